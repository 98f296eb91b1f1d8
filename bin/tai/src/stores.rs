//! Which store the settings name: one to serve from, one to read, or one to copy into.
//!
//! Owns: the choice of a backend, and what a mistake about it is called. Refuses to know: how any
//! backend works.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use engine::ports::{Identity, Standby, Store};
use engine::supervise::{Stop, Worker};
use gcp::firestore::{self, FirestoreStore};
use ledger::verify::Finding;
use ledger::{HeadRecord, LedgerId, Row};
use settings::{Backend, ServiceRole, Settings};
use store::postgres::{self, ConnectError, PgReader, PgStore};
use store::{OpenError, Reader, SqliteStore};
use types::StreamName;

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
    /// What stands in for it while it is away.
    pub(crate) standby: Option<Arc<dyn Standby>>,
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

fn standby(settings: &Settings, ledger: Ledger) -> anyhow::Result<Option<Arc<dyn Standby>>> {
    let spools = Spools::open(settings.spool_dir.as_deref(), ledger).context("SPOOL_DIR")?;
    Ok(Some(Arc::new(spools)))
}

/// Opens the store that the settings name. Blocks.
pub(crate) fn open(settings: &Settings) -> anyhow::Result<Served> {
    match settings.receipt_ledger_backend {
        Backend::Memory => {
            let store = SqliteStore::memory().context("cannot open the receipt store")?;
            let store = Arc::new(store);
            Ok(Served { store, notes: Vec::new(), workers: Vec::new(), standby: None })
        }
        Backend::Sqlite => {
            let store = SqliteStore::open(&settings.ledger_dir, &store_options(settings));
            let store = Arc::new(store.context("LEDGER_DIR")?);
            let rewritten = store.opened().head_rewritten;
            let what = || "the head record was missing and was written anew".to_owned();
            let notes = rewritten.then(|| ("recovery", what())).into_iter().collect();
            let maintained = Arc::clone(&store);
            let worker = maintenance(move || maintained.maintain());
            Ok(Served { store, notes, workers: vec![worker], standby: None })
        }
        Backend::Postgres => {
            let options = database(settings)?;
            let store = Arc::new(PgStore::connect(&options).context("DATABASE_URL")?);
            let standby = standby(settings, Ledger::Postgres(options))?;
            let maintained = Arc::clone(&store);
            let worker = maintenance(move || maintained.maintain());
            Ok(Served { store, notes: Vec::new(), workers: vec![worker], standby })
        }
        Backend::Firestore => {
            let options = firestore(settings)?;
            let store = Arc::new(FirestoreStore::open(&options).context("GCP_PROJECT_ID")?);
            let standby = standby(settings, Ledger::Firestore(options))?;
            let (maintained, closed) = (Arc::clone(&store), Arc::clone(&store));
            // Closed by the thread that may block; the next life of it renews the lease.
            let worker = Worker::thread("store_maintenance", move |stop: Stop| {
                beat(&stop, || maintained.maintain());
                closed.close();
            });
            Ok(Served { store, notes: Vec::new(), workers: vec![worker], standby })
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

/// A ledger that is open for reading, beside whoever writes it.
pub(crate) enum Source {
    /// Files in a directory.
    Files(Box<Reader>),
    /// A database.
    Postgres(Box<PgReader>),
    /// Documents.
    Firestore(Box<firestore::reader::Reader>),
}

impl Source {
    /// Opens the ledger that the settings name.
    pub(crate) fn open(settings: &Settings) -> anyhow::Result<Source> {
        match settings.receipt_ledger_backend {
            Backend::Memory => {
                bail!("RECEIPT_LEDGER_BACKEND: a ledger in memory is gone with its process")
            }
            Backend::Sqlite => {
                let dir = &settings.ledger_dir;
                let cannot = || format!("cannot read the ledger in {} (LEDGER_DIR)", dir.display());
                Ok(Source::Files(Box::new(Reader::open(dir).with_context(cannot)?)))
            }
            Backend::Postgres => {
                let reader = PgReader::connect(&database(settings)?).context("DATABASE_URL")?;
                Ok(Source::Postgres(Box::new(reader)))
            }
            Backend::Firestore => {
                let reader = firestore::reader::Reader::open(&firestore(settings)?);
                Ok(Source::Firestore(Box::new(reader.context("GCP_PROJECT_ID")?)))
            }
        }
    }

    /// [`Source::open`]; `None` where there is no ledger.
    pub(crate) fn find(settings: &Settings) -> anyhow::Result<Option<Source>> {
        match Source::open(settings) {
            Ok(source) => Ok(Some(source)),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    pub(crate) fn identity(&self) -> Identity {
        match self {
            Source::Files(reader) => reader.identity(),
            Source::Postgres(reader) => reader.identity(),
            Source::Firestore(reader) => reader.identity(),
        }
    }

    /// True while somebody may write the ledger.
    pub(crate) fn is_written(&mut self) -> anyhow::Result<bool> {
        match self {
            Source::Files(reader) => Ok(reader.is_written()?),
            Source::Postgres(reader) => Ok(reader.is_written()?),
            Source::Firestore(reader) => Ok(reader.is_written()?),
        }
    }

    pub(crate) fn ledger(&self) -> LedgerId {
        match self {
            Source::Files(reader) => reader.ledger(),
            Source::Postgres(reader) => reader.ledger(),
            Source::Firestore(reader) => reader.ledger(),
        }
    }

    /// The record of the ledger's head that is kept outside it.
    pub(crate) fn head_record(&self) -> Option<HeadRecord> {
        match self {
            Source::Files(reader) => reader.head_record(),
            Source::Postgres(_) | Source::Firestore(_) => None,
        }
    }

    /// The head that stands beside the receipts. A shared ledger has one for each writer, which the
    /// reader compares itself.
    pub(crate) fn table_head(&self) -> Option<HeadRecord> {
        match self {
            Source::Files(reader) => Some(reader.table_head()),
            Source::Postgres(_) | Source::Firestore(_) => None,
        }
    }

    /// True when a short tail would be found.
    pub(crate) fn vouches(&self) -> bool {
        match self {
            Source::Files(reader) => reader.head_record().is_some(),
            Source::Postgres(_) | Source::Firestore(_) => true,
        }
    }

    /// Hands over every receipt in the order of the ledger, or those of a stream by seq. Gives what
    /// is wrong beside the receipts.
    pub(crate) fn for_each(
        &mut self,
        stream: Option<&StreamName>,
        take: &mut dyn FnMut(&Row<'_>) -> ControlFlow<()>,
    ) -> anyhow::Result<Vec<Finding>> {
        match self {
            Source::Files(reader) => {
                reader.for_each(stream, take)?;
                Ok(Vec::new())
            }
            Source::Postgres(reader) => Ok(reader.for_each(stream, take)?),
            Source::Firestore(reader) => Ok(reader.for_each(stream, take)?),
        }
    }

    /// [`Source::for_each`] until `take` fails.
    pub(crate) fn try_each(
        &mut self,
        stream: Option<&StreamName>,
        take: &mut dyn FnMut(&Row<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<Vec<Finding>> {
        let mut failed = None;
        let found = self.for_each(stream, &mut |row| match take(row) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        })?;
        failed.map_or(Ok(found), Err)
    }
}

fn is_missing(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(OpenError::Missing))
        || matches!(error.downcast_ref(), Some(ConnectError::Missing))
        || matches!(error.downcast_ref(), Some(gcp::Error::NoLedger))
}

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
                let store = PgStore::connect_as(&database(settings)?, identity);
                Ok(Target::Postgres(store.context("DATABASE_URL")?))
            }
            Backend::Firestore => {
                let store = FirestoreStore::open_as(&firestore(settings)?, identity);
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
