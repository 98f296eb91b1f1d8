//! Which store the settings name: one to serve from, one to read, or one to copy into.
//!
//! Owns: the choice of a backend, and what a mistake about it is called. Refuses to know: how any
//! backend works.

mod source;
mod target;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use engine::ports::{Standby, Store};
use engine::supervise::{Stop, Worker};
use gcp::firestore::{self, FirestoreStore};
use settings::{Backend, ServiceRole, Settings};
use store::SqliteStore;
use store::postgres::{self, PgStore};

pub(crate) use source::Source;
pub(crate) use target::Target;

use crate::options::store_options;
use crate::standby::Spools;

/// How often the store is asked whether its journal wants folding back, or its lease renewing.
const MAINTAIN_INTERVAL: Duration = Duration::from_millis(100);

/// A store that is open for writing.
pub(crate) struct Served {
    pub(crate) store: Arc<dyn Store>,
    /// What there is to record about its opening.
    pub(crate) notes: Vec<(&'static str, String)>,
    /// What it needs beside the writer.
    pub(crate) workers: Vec<Worker>,
}

/// A shared ledger, to be opened once more.
pub(crate) enum Ledger {
    /// A database.
    Postgres(postgres::Options),
    /// Documents.
    Firestore(firestore::Options),
}

impl Ledger {
    /// A store on it with a log of its own. Blocks.
    pub(crate) fn again(&self) -> anyhow::Result<Arc<dyn Store>> {
        Ok(match self {
            Ledger::Postgres(options) => Arc::new(PgStore::connect(options)?),
            Ledger::Firestore(options) => Arc::new(FirestoreStore::open(options)?),
        })
    }
}

/// What stands in for `store`, which the settings name, while it is away; nothing for one that is
/// not shared. Blocks.
pub(crate) fn standby(
    settings: &Settings,
    store: &dyn Store,
) -> anyhow::Result<Option<Arc<dyn Standby>>> {
    let ledger = match settings.receipt_ledger_backend {
        Backend::Memory | Backend::Sqlite => return Ok(None),
        Backend::Postgres => Ledger::Postgres(database(settings)?),
        Backend::Firestore => Ledger::Firestore(firestore(settings)?),
    };
    let (dir, id) = (settings.spool_dir.as_deref(), store.identity().ledger);
    let spools = Spools::open(dir, ledger, id).context("SPOOL_DIR")?;
    Ok(Some(Arc::new(spools)))
}

/// Opens the store that the settings name. Blocks.
pub(crate) fn open(settings: &Settings) -> anyhow::Result<Served> {
    match settings.receipt_ledger_backend {
        Backend::Memory => {
            let store = SqliteStore::memory().context("cannot open the receipt store")?;
            let store = Arc::new(store);
            Ok(Served { store, notes: Vec::new(), workers: Vec::new() })
        }
        Backend::Sqlite => {
            let store = SqliteStore::open(&settings.ledger_dir, &store_options(settings));
            let store = Arc::new(store.context("LEDGER_DIR")?);
            let rewritten = store.opened().head_rewritten;
            let what = || "the head record was missing and was written anew".to_owned();
            let notes = rewritten.then(|| ("recovery", what())).into_iter().collect();
            let maintained = Arc::clone(&store);
            let worker = maintenance(move || maintained.maintain());
            Ok(Served { store, notes, workers: vec![worker] })
        }
        Backend::Postgres => {
            let options = database(settings)?;
            let store = Arc::new(PgStore::connect(&options).context("DATABASE_URL")?);
            let maintained = Arc::clone(&store);
            let worker = maintenance(move || maintained.maintain());
            Ok(Served { store, notes: Vec::new(), workers: vec![worker] })
        }
        Backend::Firestore => {
            let options = firestore(settings)?;
            let store = Arc::new(FirestoreStore::open(&options).context("GCP_PROJECT_ID")?);
            let (maintained, closed) = (Arc::clone(&store), Arc::clone(&store));
            // Closed by the thread that may block; the next life of it renews the lease.
            let worker = Worker::thread("store_maintenance", move |stop: Stop| {
                beat(&stop, || maintained.maintain());
                closed.close();
            });
            Ok(Served { store, notes: Vec::new(), workers: vec![worker] })
        }
    }
}

pub(crate) fn maintenance(maintain: impl Fn() + Send + Sync + 'static) -> Worker {
    Worker::thread("store_maintenance", move |stop: Stop| beat(&stop, &maintain))
}

fn beat(stop: &Stop, maintain: impl Fn()) {
    while stop.channel().recv_timeout(MAINTAIN_INTERVAL).is_err_and(|e| e.is_timeout()) {
        maintain();
    }
}

fn database(settings: &Settings) -> anyhow::Result<postgres::Options> {
    let url = settings.database_url.as_ref();
    let url = url.context("DATABASE_URL: not set, and RECEIPT_LEDGER_BACKEND is postgres")?;
    Ok(postgres::Options { url: url.expose().to_owned() })
}

fn firestore(settings: &Settings) -> anyhow::Result<firestore::Options> {
    let project = settings.gcp_project_id.clone();
    let project =
        project.context("GCP_PROJECT_ID: not set, and RECEIPT_LEDGER_BACKEND is firestore")?;
    Ok(firestore::Options {
        project,
        database: settings.firestore_database.clone(),
        emulator: settings.firestore_emulator_host.clone(),
    })
}

/// A look at what no single setting shows.
pub(crate) fn check(settings: &Settings) -> anyhow::Result<()> {
    let is_shared =
        matches!(settings.receipt_ledger_backend, Backend::Postgres | Backend::Firestore);
    if settings.service_role != ServiceRole::All && !is_shared {
        bail!("SERVICE_ROLE: the ledger has one instance, which does everything");
    }
    match settings.receipt_ledger_backend {
        Backend::Postgres => database(settings).map(drop),
        Backend::Firestore => firestore(settings).map(drop),
        Backend::Sqlite | Backend::Memory => Ok(()),
    }
}
