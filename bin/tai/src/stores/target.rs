//! A store to copy into.
//!
//! Owns: one way into all backends, under the name of the ledger that is copied. Refuses to know:
//! what is appended.

use anyhow::{Context, bail};
use engine::ports::{Identity, Store};
use gcp::firestore::FirestoreStore;
use settings::{Backend, Settings};
use store::SqliteStore;
use store::postgres::PgStore;

use crate::options::store_options;

/// A store that a ledger is copied into.
pub(crate) enum Target {
    /// Files in a directory.
    Files(SqliteStore),
    /// A database.
    Postgres(PgStore),
    /// Documents.
    Firestore(FirestoreStore),
}

impl Target {
    /// Opens the store that the settings name for this ledger and no other, as a new writer.
    pub(crate) fn open(settings: &Settings, identity: Identity) -> anyhow::Result<Target> {
        match settings.receipt_ledger_backend {
            Backend::Memory => {
                bail!("RECEIPT_LEDGER_BACKEND: a ledger in memory is gone with its process")
            }
            Backend::Sqlite => {
                let (dir, options) = (&settings.ledger_dir, store_options(settings));
                let store = SqliteStore::open_as(dir, &options, identity);
                Ok(Target::Files(store.with_context(|| dir.display().to_string())?))
            }
            Backend::Postgres => {
                let store = PgStore::connect_as(&super::database(settings)?, identity);
                Ok(Target::Postgres(store.context("DATABASE_URL")?))
            }
            Backend::Firestore => {
                let store = FirestoreStore::open_as(&super::firestore(settings)?, identity);
                Ok(Target::Firestore(store.context("GCP_PROJECT_ID")?))
            }
        }
    }

    pub(crate) fn store(&self) -> &dyn Store {
        match self {
            Target::Files(store) => store,
            Target::Postgres(store) => store,
            Target::Firestore(store) => store,
        }
    }

    /// Keeps files and leases in order. To be called now and then.
    pub(crate) fn maintain(&self) {
        match self {
            Target::Files(store) => store.maintain(),
            Target::Postgres(store) => store.maintain(),
            Target::Firestore(store) => store.maintain(),
        }
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        // The others do it themselves.
        if let Target::Firestore(store) = self {
            store.close();
        }
    }
}
