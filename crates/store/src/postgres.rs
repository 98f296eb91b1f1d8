//! The Store port on PostgreSQL: one ledger that many instances write.
//!
//! Each store, which is one life of one instance, writes a log of its own; the streams are shared,
//! and where each of them stands is the only fence between instances. See `docs/adr/0010`.
//!
//! Owns: tables, the one statement that appends, connections and deadlines, leases. Refuses to
//! know: what a receipt decides.

mod columns;
mod error;
mod link;
mod reader;
mod rows;
mod schema;
mod writer;

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use engine::ports::{
    AppendError, Batch, Durability, IdemKey, Identity, Query, ReadError, Snapshot, Store, Stored,
};
use ledger::HeadRecord;
use types::{Hash, Micros, ReceiptId, StreamName};

pub use error::ConnectError;
pub use reader::PgReader;

use error::Failure;
use link::{CALL_TIMEOUT, Link, Pool, Session};
use schema::Wanted;
use writer::Writer;

/// Reads at the same time; further ones wait.
const READERS: usize = 4;

/// How long an instance counts as alive after its last sign of life, by the database's clock. After
/// it, others settle its attempts.
const LEASE_TTL_S: i64 = 10;

/// How often it gives one.
const LEASE_RENEWAL: Duration = Duration::from_secs(2);

/// How long closing waits for the server to note that this instance is gone.
const FAREWELL_TIMEOUT: Duration = Duration::from_secs(1);

const BEGIN_LOG: &str = "
INSERT INTO logs (root, lease_until) VALUES ($1, clock_timestamp() + $2::bigint * interval '1 second')
RETURNING no";

const RENEW: &str = "
UPDATE logs SET lease_until = clock_timestamp() + $2::bigint * interval '1 second' WHERE no = $1";

/// What a commit survives is the server's choice and the session's.
const IS_DURABLE: &str =
    "SELECT current_setting('fsync') = 'on' AND current_setting('synchronous_commit') <> 'off'";

/// How to reach a ledger.
#[derive(Clone)]
pub struct Options {
    /// `postgres://…`, or `host=… user=…` as libpq takes it. With `sslmode=require` the server's
    /// certificate is verified; with `prefer`, the default, an offered one is too.
    /// Not the address of a pooler that gives each transaction another connection: statements are
    /// prepared once.
    pub url: String,
}

/// The Store port on PostgreSQL. Dropping it ends its lease.
pub struct PgStore {
    writer: Mutex<Writer>,
    readers: Pool,
    /// One session for what every decision asks, so that none waits for people's searches.
    decider: Pool,
    /// One for leases, so that a busy instance is not taken for dead.
    upkeep: Arc<Pool>,
    link: Arc<Link>,
    identity: Identity,
    /// The number of this writer's log.
    own: i64,
    durable: AtomicBool,
    renewed: Mutex<Instant>,
    /// Repeated failures of the same kind are logged once.
    complained: AtomicBool,
}

impl PgStore {
    /// Connects, creates the tables where there are none, and begins a log. All other calls are for
    /// threads that may block: not for one that drives an async runtime.
    ///
    /// # Errors
    /// When the server cannot be reached in time, or holds something else.
    pub fn connect(options: &Options) -> Result<PgStore, ConnectError> {
        link::apart(|| PgStore::open(options, Wanted::Any))
    }

    /// [`PgStore::connect`] to the ledger that is called `identity`, which is created where there
    /// is none.
    ///
    /// # Errors
    /// As there, and [`ConnectError::OtherLedger`] when the database holds another one.
    pub fn connect_as(options: &Options, identity: Identity) -> Result<PgStore, ConnectError> {
        link::apart(|| PgStore::open(options, Wanted::Given(identity)))
    }

    fn open(options: &Options, wanted: Wanted) -> Result<PgStore, ConnectError> {
        let link = Arc::new(Link::new(options)?);
        let deadline = || Instant::now() + CALL_TIMEOUT;
        let open = link.wait(deadline(), link.open("upkeep"));
        let mut session = open.map_err(ConnectError::from("connect to the database"))?;
        let identity = schema::identity(&link, &mut session, wanted)?;
        let begin = async {
            let params: link::Params<'_> = &[&&Hash::ZERO.0[..], &LEASE_TTL_S];
            let row = session.client.query_one(BEGIN_LOG, params).await?;
            Ok((rows::get(&row, 0)?, is_durable(&mut session).await?))
        };
        let begun = link.wait(deadline(), begin);
        let (own, durable) = begun.map_err(ConnectError::from("begin a log"))?;
        if !durable {
            tracing::warn!(event = "volatile", "the database does not wait for its disk");
        }
        Ok(PgStore {
            writer: Mutex::new(Writer::new(&link, own, identity.ledger)),
            readers: Pool::new(&link, "reader", READERS),
            decider: Pool::new(&link, "decider", 1),
            upkeep: Arc::new(Pool::new(&link, "upkeep", 1)),
            link,
            identity,
            own,
            durable: AtomicBool::new(durable),
            renewed: Mutex::new(Instant::now()),
            complained: AtomicBool::new(false),
        })
    }

    /// The number of this writer's log.
    #[must_use]
    pub fn log(&self) -> i64 {
        self.own
    }

    /// Tells the other instances every two seconds that this one is alive, and looks whether
    /// commits still wait for the disk. To be called about every 100 ms from a thread that may
    /// block. Without it others settle this instance's attempts.
    pub fn maintain(&self) {
        let mut renewed = self.renewed.lock().unwrap_or_else(PoisonError::into_inner);
        if renewed.elapsed() < LEASE_RENEWAL {
            return;
        }
        *renewed = Instant::now();
        let own = self.own;
        let outcome = self.upkeep.with(&async |session| {
            session.rows(RENEW, &[&own, &LEASE_TTL_S]).await?;
            is_durable(session).await
        });
        match outcome {
            Ok(durable) => {
                self.complained.store(false, Ordering::Relaxed);
                if self.durable.swap(durable, Ordering::AcqRel) && !durable {
                    tracing::warn!(event = "volatile", "the database no longer waits for its disk");
                }
            }
            Err(error) => {
                if !self.complained.swap(true, Ordering::Relaxed) {
                    tracing::warn!(event = "lease", %error, "this instance may be taken for dead");
                }
            }
        }
    }

    fn lock_writer(&self) -> MutexGuard<'_, Writer> {
        // A panic inside leaves a connection that the next call replaces, or a doubt that it
        // settles.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn is_durable(session: &mut Session) -> Result<bool, Failure> {
    let rows = session.rows(IS_DURABLE, &[]).await?;
    rows.first().map_or(Ok(false), |row| rows::get(row, 0))
}

impl Store for PgStore {
    fn backend(&self) -> &'static str {
        "postgres"
    }

    fn durability(&self) -> Durability {
        if self.durable.load(Ordering::Acquire) {
            Durability::Durable
        } else {
            Durability::Volatile
        }
    }

    fn identity(&self) -> Identity {
        self.identity
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn writer(&self) -> Option<u64> {
        u64::try_from(self.own).ok()
    }

    fn gone(&self, writers: &BTreeSet<u64>) -> Result<BTreeSet<u64>, ReadError> {
        self.readers.read(&async |session| rows::gone(session, writers).await)
    }

    fn head(&self) -> Result<HeadRecord, ReadError> {
        self.lock_writer().head()
    }

    fn append(&self, batch: &Batch) -> Result<(), AppendError> {
        self.lock_writer().append(batch)
    }

    fn snapshot(&self, stream: &StreamName) -> Result<Option<Snapshot>, ReadError> {
        self.readers.read(&async |session| rows::snapshot(session, stream).await)
    }

    fn read(
        &self,
        stream: &StreamName,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Stored>, ReadError> {
        self.readers.read(&async |session| rows::read(session, stream, from_seq, limit).await)
    }

    fn find(&self, id: ReceiptId) -> Result<Option<Stored>, ReadError> {
        self.readers.read(&async |session| rows::find(session, id).await)
    }

    fn find_keys(&self, keys: &[IdemKey]) -> Result<Vec<Option<Stored>>, ReadError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.decider.read(&async |session| rows::find_keys(session, keys).await)
    }

    fn query(&self, query: &Query) -> Result<Vec<Stored>, ReadError> {
        self.readers.read(&async |session| rows::query(session, query).await)
    }

    fn lanes(&self, base: &StreamName) -> Result<Vec<StreamName>, ReadError> {
        self.readers.read(&async |session| rows::lanes(session, base).await)
    }

    fn due(&self, now: Micros, limit: usize) -> Result<Vec<StreamName>, ReadError> {
        self.readers.read(&async |session| rows::due(session, now, limit).await)
    }

    fn unsettled(&self, limit: usize) -> Result<Vec<Stored>, ReadError> {
        let own = self.own;
        self.readers.read(&async |session| rows::unsettled(session, own, limit).await)
    }
}

impl Drop for PgStore {
    fn drop(&mut self) {
        // Others may settle its attempts at once. When this fails, they wait for the lease to end.
        let (link, own) = (Arc::clone(&self.link), self.own);
        self.link.finish(FAREWELL_TIMEOUT, async move {
            if let Ok(mut session) = link.open("upkeep").await {
                let _ = session.rows(RENEW, &[&own, &0_i64]).await;
            }
        });
    }
}
