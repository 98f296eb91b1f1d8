//! The store: a writer, a few readers, and on disk the files beside the database.
//!
//! INV-18: the head in the table, the head file and the rows agree, when written and when opened.
//!
//! Owns: opening with its checks, the port, upkeep and closing. Refuses to know: statements.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

use engine::ports::{
    AppendError, Batch, Durability, IdemKey, Identity, Query, ReadError, Snapshot, Store, Stored,
};
use ledger::HeadRecord;
use ledger::head::next_root;
use rusqlite::Connection;
use types::{Hash, Micros, ReceiptId, StreamName};

use crate::files::{self, HeadFile, Lock, Place};
use crate::finds::{self, Look};
use crate::fresh::Fresh;
use crate::pool::{Pool, READERS};
use crate::writer::Writer;
use crate::{OpenError, rows, schema};

/// Pages that wait in the WAL before upkeep copies them into the database.
const CHECKPOINT_PAGES: i64 = 2_000;

/// The head file is synced at most this often: it guards against a shorter table, not a crash.
const HEAD_SYNC_EVERY: Duration = Duration::from_secs(1);

/// Whether a commit waits for the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Synchronous {
    /// It does: an acknowledged receipt survives the loss of power.
    Full,
    /// It does not: an acknowledged receipt survives the death of the process only.
    Off,
}

impl Synchronous {
    pub(crate) const fn pragma(self) -> &'static str {
        match self {
            Synchronous::Full => "FULL",
            Synchronous::Off => "OFF",
        }
    }
}

/// How to open a ledger on disk.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Whether commits wait for the disk.
    pub synchronous: Synchronous,
}

/// What was found on opening: facts for a note in the `_ops` stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Opened {
    /// The ledger is new.
    pub created: bool,
    /// The head file of a ledger with receipts was gone or unreadable, and was written again from
    /// the table: a truncation before this moment would not have been noticed.
    pub head_rewritten: bool,
    /// The process before did not close: its last commits came out of the write-ahead log.
    pub wal_recovered: bool,
}

/// The Store port on SQLite. Dropping it closes the ledger in order.
pub struct SqliteStore {
    // Closed before the writer, whose connection goes last and so removes the WAL.
    disk: Option<Disk>,
    writer: Mutex<Writer>,
    /// What the index does not have yet.
    fresh: Arc<RwLock<Fresh>>,
    identity: Identity,
    opened: Opened,
}

/// What only a ledger on disk has.
struct Disk {
    readers: Pool,
    /// One connection for what every decision asks, so that none waits for people's searches.
    decider: Pool,
    upkeep: Mutex<Upkeep>,
    /// The database and its log as they were opened.
    places: [Place; 2],
    head_file: HeadFile,
    /// The WAL is too large: the writer restarts it before its next batch.
    restart_wal: AtomicBool,
    /// Repeated failures of the same kind are logged once.
    complained: AtomicBool,
    synchronous: Synchronous,
    _lock: Lock,
}

struct Upkeep {
    conn: Connection,
    head_synced: Instant,
}

impl SqliteStore {
    /// Opens the ledger in `dir`, creating both where missing, and checks that no receipt is
    /// missing that the head file counts.
    ///
    /// # Errors
    /// [`OpenError::Locked`] while another process has it open, [`OpenError::DatabaseGone`] and
    /// [`OpenError::Unfinished`] when files are missing, [`OpenError::Truncated`] and
    /// [`OpenError::Altered`] when the table is not what the heads say.
    pub fn open(dir: &Path, options: &Options) -> Result<SqliteStore, OpenError> {
        SqliteStore::open_given(dir, options, None)
    }

    /// [`SqliteStore::open`] of the ledger that is called `identity`, which is created where there
    /// is none.
    ///
    /// # Errors
    /// As there, and [`OpenError::OtherLedger`] when another one is in `dir`.
    pub fn open_as(
        dir: &Path,
        options: &Options,
        identity: Identity,
    ) -> Result<SqliteStore, OpenError> {
        SqliteStore::open_given(dir, options, Some(identity))
    }

    fn open_given(
        dir: &Path,
        options: &Options,
        given: Option<Identity>,
    ) -> Result<SqliteStore, OpenError> {
        files::create_dir(dir)?;
        let lock = Lock::take(dir)?;
        let recorded = files::read_head(dir)?;
        check_files(dir, recorded)?;
        let wal_recovered = files::bytes_of(&dir.join(files::WAL)) > 0;
        if wal_recovered {
            files::rewrite(&dir.join(files::WAL)).map_err(OpenError::io("sync the log"))?;
        }
        let path = dir.join(files::DATABASE);
        drop(files::create_file(&path)?);
        // Before there is a log: one without a database is refused.
        files::sync_dir(dir).map_err(OpenError::io("sync the ledger directory"))?;
        let mut conn = schema::open_writer(&path, options.synchronous)?;
        let created = schema::is_blank(&conn)?;
        if created {
            match recorded {
                Some(head) if head.size > 0 => {
                    return Err(OpenError::Truncated { have: 0, expected: head.size });
                }
                _ => schema::create(&mut conn, given)?,
            }
        }
        let identity = schema::identity(&conn)?;
        if given.is_some_and(|given| given != identity) {
            return Err(OpenError::OtherLedger);
        }
        let head = check_table(&conn, identity)?;
        // The head file of a ledger without receipts says nothing; another one may stand there
        // when a creation was cut short.
        if let Some(recorded) = recorded.filter(|record| record.size > 0) {
            check_head(&conn, &head, &recorded)?;
        }
        // Its own says nothing wrong: the process may have died before it counted a receipt.
        let own = recorded.is_some_and(|record| record.size > 0 || record.ledger == head.ledger);
        let head_rewritten = !own && head.size > 0;
        if head_rewritten {
            tracing::warn!(event = "head_rewritten", "no intact head file: written from the table");
        }
        let head_file = HeadFile::open(dir.join(files::HEAD))?;
        head_file
            .write(&head)
            .and_then(|()| head_file.sync())
            .and_then(|()| files::sync_dir(dir))
            .map_err(OpenError::io("write the head file"))?;
        let fresh = finds::load(&conn, head.size)
            .map_err(OpenError::sql("read what the index does not have"))?;
        let disk = Disk::open(dir, head_file, lock, options.synchronous)?;
        let opened = Opened { created, head_rewritten, wal_recovered };
        Ok(SqliteStore::new(Some(disk), conn, fresh, identity, opened))
    }

    /// A new ledger that is gone with the process.
    ///
    /// # Errors
    /// When memory or random bytes are not to be had.
    pub fn memory() -> Result<SqliteStore, OpenError> {
        SqliteStore::memory_given(None)
    }

    /// [`SqliteStore::memory`] of a ledger that is called `identity`.
    ///
    /// # Errors
    /// As there.
    pub fn memory_as(identity: Identity) -> Result<SqliteStore, OpenError> {
        SqliteStore::memory_given(Some(identity))
    }

    fn memory_given(given: Option<Identity>) -> Result<SqliteStore, OpenError> {
        let mut conn = schema::open_memory()?;
        schema::create(&mut conn, given)?;
        let identity = schema::identity(&conn)?;
        let opened = Opened { created: true, head_rewritten: false, wal_recovered: false };
        Ok(SqliteStore::new(None, conn, Fresh::new(0), identity, opened))
    }

    fn new(
        disk: Option<Disk>,
        conn: Connection,
        fresh: Fresh,
        identity: Identity,
        opened: Opened,
    ) -> SqliteStore {
        let fresh = Arc::new(RwLock::new(fresh));
        let writer = Mutex::new(Writer::new(conn, identity.ledger, Arc::clone(&fresh)));
        SqliteStore { disk, writer, fresh, identity, opened }
    }

    /// What was found on opening.
    #[must_use]
    pub fn opened(&self) -> Opened {
        self.opened
    }

    /// Moves committed pages from the WAL into the database and syncs the head file. When either
    /// file was removed or replaced from outside, appends fail for good from then on: what they
    /// wrote would be in a file that no later process opens. To be called about every 100 ms from a
    /// thread of its own; returns at once when there is nothing to do. Without it the WAL grows,
    /// and files that vanish are not noticed.
    pub fn maintain(&self) {
        let Some(disk) = &self.disk else { return };
        if self.writer().has_failed() {
            return;
        }
        match disk.in_place() {
            Ok(true) => {}
            Ok(false) => {
                let why = "the database or its log was removed or replaced while it was open";
                self.writer().poison(why);
                tracing::error!(event = "ledger_gone", "{why}");
                return;
            }
            // No answer is not the answer that they are gone.
            Err(error) => return disk.complain(&error, "cannot look at the ledger's files"),
        }
        match disk.maintain() {
            Ok(()) => disk.complained.store(false, Ordering::Relaxed),
            Err(error) => disk.complain(&error, "upkeep of the ledger's files failed"),
        }
    }

    /// Moves receipts into the index in generations of so many names from now on: for tests, so
    /// that few receipts cross every border.
    #[doc(hidden)]
    pub fn set_generation(&self, names: usize) {
        let mut fresh = self.fresh.write().unwrap_or_else(PoisonError::into_inner);
        fresh.set_generation(names);
    }

    /// The connection that writes, for work that needs the whole ledger to itself.
    pub(crate) fn with_writer<T>(&self, work: impl FnOnce(&mut Connection) -> T) -> T {
        work(&mut self.writer().conn)
    }

    fn writer(&self) -> MutexGuard<'_, Writer> {
        // A panic inside leaves a transaction that the next BEGIN refuses, not half a batch.
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is committed when the connection that is lent asks.
    fn look<'a>(&'a self, conn: &'a Connection) -> Look<'a> {
        Look::new(conn, &self.fresh, self.identity.ledger)
    }

    fn read_with<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        self.read_from(self.disk.as_ref().map(|disk| &disk.readers), read)
    }

    fn decide_with<T>(
        &self,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        self.read_from(self.disk.as_ref().map(|disk| &disk.decider), read)
    }

    fn read_from<T>(
        &self,
        pool: Option<&Pool>,
        read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        let result = match pool {
            Some(pool) => pool.with(read),
            None => read(&self.writer().conn),
        };
        result.map_err(|error| rows::read_error(&error))
    }
}

impl Disk {
    /// The writer has created the database and its log by now.
    fn open(
        dir: &Path,
        head_file: HeadFile,
        lock: Lock,
        synchronous: Synchronous,
    ) -> Result<Disk, OpenError> {
        let path = dir.join(files::DATABASE);
        let open_pool = |connections: usize| {
            let opened = (0..connections).map(|_| schema::open_reader(&path));
            opened.collect::<Result<_, _>>().map(Pool::new)
        };
        let conn = schema::open_checkpointer(&path, synchronous)?;
        let place = |name| Place::of(dir.join(name)).map_err(OpenError::io("look at the database"));
        Ok(Disk {
            readers: open_pool(READERS)?,
            decider: open_pool(1)?,
            places: [place(files::DATABASE)?, place(files::WAL)?],
            upkeep: Mutex::new(Upkeep { conn, head_synced: Instant::now() }),
            head_file,
            restart_wal: AtomicBool::new(false),
            complained: AtomicBool::new(false),
            synchronous,
            _lock: lock,
        })
    }

    fn in_place(&self) -> std::io::Result<bool> {
        let [database, log] = &self.places;
        Ok(database.holds()? && log.holds()?)
    }

    fn maintain(&self) -> Result<(), OpenError> {
        let mut upkeep = self.upkeep.lock().unwrap_or_else(PoisonError::into_inner);
        if upkeep.head_synced.elapsed() >= HEAD_SYNC_EVERY {
            self.head_file.sync().map_err(OpenError::io("sync the head file"))?;
            upkeep.head_synced = Instant::now();
        }
        // NOOP only counts: pages in the WAL, and how many of them the database has already.
        let (in_wal, copied) = checkpoint(&upkeep.conn, "NOOP")?;
        if in_wal - copied > CHECKPOINT_PAGES {
            checkpoint(&upkeep.conn, "PASSIVE")?;
        }
        let wal_bytes = in_wal.max(0).cast_unsigned() * schema::PAGE_BYTES;
        if wal_bytes > schema::WAL_BYTES_MAX {
            self.restart_wal.store(true, Ordering::Release);
        }
        Ok(())
    }

    fn complain(&self, error: &dyn std::error::Error, what: &'static str) {
        if !self.complained.swap(true, Ordering::Relaxed) {
            let cause = error.source().map(ToString::to_string).unwrap_or_default();
            tracing::warn!(event = "ledger_files", %error, cause, "{what}");
        }
    }
}

impl Store for SqliteStore {
    fn backend(&self) -> &'static str {
        if self.disk.is_some() { "sqlite" } else { "memory" }
    }

    fn durability(&self) -> Durability {
        match &self.disk {
            Some(disk) if disk.synchronous == Synchronous::Full => Durability::Durable,
            _ => Durability::Volatile,
        }
    }

    fn identity(&self) -> Identity {
        self.identity
    }

    fn head(&self) -> Result<HeadRecord, ReadError> {
        self.decide_with(|conn| rows::head(conn, self.identity.ledger))
    }

    fn append(&self, batch: &Batch) -> Result<(), AppendError> {
        let mut writer = self.writer();
        let Some(disk) = &self.disk else { return writer.append(batch) };
        if disk.restart_wal.swap(false, Ordering::AcqRel) {
            writer.restart_wal();
        }
        writer.append(batch)?;
        // The batch is durable whatever becomes of its head record: an older record still guards
        // everything that it counts.
        if let Err(error) = disk.head_file.write(&batch.after) {
            disk.complain(&error, "the head file could not be written");
        }
        Ok(())
    }

    fn snapshot(&self, stream: &StreamName) -> Result<Option<Snapshot>, ReadError> {
        self.read_with(|conn| rows::snapshot(conn, stream))
    }

    fn read(
        &self,
        stream: &StreamName,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Stored>, ReadError> {
        self.read_with(|conn| rows::read(&self.look(conn), stream, from_seq, limit))
    }

    fn find(&self, id: ReceiptId) -> Result<Option<Stored>, ReadError> {
        self.read_with(|conn| rows::find(&self.look(conn), id))
    }

    fn find_keys(&self, keys: &[IdemKey]) -> Result<Vec<Option<Stored>>, ReadError> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.decide_with(|conn| rows::find_keys(&self.look(conn), keys))
    }

    fn query(&self, query: &Query) -> Result<Vec<Stored>, ReadError> {
        self.read_with(|conn| match &query.stream {
            Some(stream) => rows::query_stream(self.look(conn), stream, query),
            None => rows::query_all(conn, query),
        })
    }

    fn lanes(&self, base: &StreamName) -> Result<Vec<StreamName>, ReadError> {
        self.read_with(|conn| rows::lanes(conn, base))
    }

    fn due(&self, now: Micros, limit: usize) -> Result<Vec<StreamName>, ReadError> {
        self.read_with(|conn| rows::due(conn, now, limit))
    }

    fn unsettled(&self, limit: usize) -> Result<Vec<Stored>, ReadError> {
        self.read_with(|conn| rows::unsettled(conn, limit))
    }
}

impl Drop for SqliteStore {
    fn drop(&mut self) {
        let Some(disk) = &self.disk else { return };
        let writer = self.writer.get_mut().unwrap_or_else(PoisonError::into_inner);
        if writer.has_failed() {
            // What the files hold is for the next opening, or a person, to find out; removing the
            // log here could remove the only copy of receipts.
            if let Err(error) = schema::leave_wal(&writer.conn) {
                disk.complain(&error, "the write-ahead log may not survive closing");
            }
            return;
        }
        let close = || {
            let cannot_read = OpenError::sql("read the head");
            let head = rows::head(&writer.conn, self.identity.ledger).map_err(cannot_read)?;
            let written = disk.head_file.write(&head).and_then(|()| disk.head_file.sync());
            written.map_err(OpenError::io("write the head file"))?;
            checkpoint(&writer.conn, "TRUNCATE").map(drop)
        };
        if let Err(error) = close() {
            disk.complain(&error, "the ledger was not closed in order");
        }
    }
}

/// Runs a checkpoint. Gives the pages in the WAL and how many of them the database has; both −1
/// when there is no WAL.
fn checkpoint(conn: &Connection, mode: &'static str) -> Result<(i64, i64), OpenError> {
    conn.prepare_cached(&format!("PRAGMA wal_checkpoint({mode})"))
        .and_then(|mut statement| statement.query_row([], |row| Ok((row.get(1)?, row.get(2)?))))
        .map_err(OpenError::sql("checkpoint the write-ahead log"))
}

/// Refuses what must not be opened even to look: without a database, SQLite deletes the log.
fn check_files(dir: &Path, recorded: Option<HeadRecord>) -> Result<(), OpenError> {
    if dir.join(files::RESTORING).exists() {
        return Err(OpenError::Unfinished);
    }
    let counted = recorded.map_or(0, |head| head.size);
    let wal_bytes = files::bytes_of(&dir.join(files::WAL));
    let is_gone = files::bytes_of(&dir.join(files::DATABASE)) == 0;
    if is_gone && (counted > 0 || wal_bytes > 0) {
        return Err(OpenError::DatabaseGone { counted, wal_bytes });
    }
    Ok(())
}

/// Compares the head in the table with the last receipt. Returns the head.
pub(crate) fn check_table(conn: &Connection, identity: Identity) -> Result<HeadRecord, OpenError> {
    let head = rows::head(conn, identity.ledger).map_err(OpenError::sql("read the head"))?;
    let last = "SELECT ifnull(max(pos), 0) FROM receipts";
    let have = conn
        .query_row(last, [], |row| rows::unsigned(row, 0))
        .map_err(OpenError::sql("read the last position"))?;
    let indexed = conn
        .query_row("SELECT indexed FROM head", [], |row| rows::unsigned(row, 0))
        .map_err(OpenError::sql("read how far the index reaches"))?;
    match have.cmp(&head.size) {
        std::cmp::Ordering::Less => Err(OpenError::Truncated { have, expected: head.size }),
        std::cmp::Ordering::Equal if indexed > head.size => {
            Err(OpenError::Altered { what: "its index reaches behind its head" })
        }
        std::cmp::Ordering::Equal => Ok(head),
        std::cmp::Ordering::Greater => {
            Err(OpenError::Altered { what: "there are receipts behind its head" })
        }
    }
}

/// Compares the head in the table with one that was recorded outside, now or earlier, by computing
/// the root from the older to the newer one.
pub(crate) fn check_head(
    conn: &Connection,
    head: &HeadRecord,
    recorded: &HeadRecord,
) -> Result<(), OpenError> {
    if recorded.ledger != head.ledger {
        return Err(OpenError::Altered { what: "the head file belongs to another ledger" });
    }
    if recorded.size > head.size {
        return Err(OpenError::Truncated { have: head.size, expected: recorded.size });
    }
    let walk = || {
        let mut hashes = conn.prepare("SELECT hash FROM receipts WHERE pos > ?1 ORDER BY pos")?;
        let mut rows = hashes.query([recorded.size.cast_signed()])?;
        let mut root = recorded.root;
        while let Some(row) = rows.next()? {
            root = next_root(root, Hash(row.get(0)?));
        }
        Ok(root)
    };
    let root = walk().map_err(OpenError::sql("compute the root since the head record"))?;
    if root == head.root {
        Ok(())
    } else {
        Err(OpenError::Altered { what: "the head file has another root for the same receipts" })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    /// Calls `then` while `left` readers are lent.
    fn with_lent(pool: &Pool, left: usize, then: &dyn Fn()) {
        match left {
            0 => then(),
            left => pool.with(|_| with_lent(pool, left - 1, then)),
        }
    }

    #[test]
    fn decisions_do_not_wait_for_searches() {
        let dir = tempfile::tempdir().unwrap();
        let options = Options { synchronous: Synchronous::Full };
        let store = SqliteStore::open(dir.path(), &options).unwrap();
        let readers = &store.disk.as_ref().unwrap().readers;
        let (tell, told) = mpsc::channel();
        std::thread::scope(|scope| {
            with_lent(readers, READERS, &|| {
                let (store, tell) = (&store, tell.clone());
                scope.spawn(move || {
                    let answers = (store.head().is_ok(), store.find_keys(&[[1; 16]]).unwrap());
                    drop(tell.send(answers));
                });
                let answers = told.recv_timeout(Duration::from_secs(20));
                assert_eq!(answers, Ok((true, vec![None])));
            });
        });
    }
}
