//! The tables, and how connections to them are tuned.
//!
//! Owns: every CREATE and PRAGMA. Refuses to know: what is written when.

use std::path::Path;
use std::time::Duration;

use engine::ports::Identity;
use ledger::LedgerId;
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, TransactionBehavior, params};

use crate::sqlite::Synchronous;
use crate::{OpenError, new_identity};

/// `user_version` of the files that this program reads and writes.
pub(crate) const FORMAT: i64 = 2;

/// Bytes of one page: the default of the library, on which the WAL limits are computed.
pub(crate) const PAGE_BYTES: u64 = 4096;

/// A WAL larger than this is restarted by the writer itself, and given back on the next reset.
pub(crate) const WAL_BYTES_MAX: u64 = 256 << 20;

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const WRITER_CACHE_KIB: i64 = 8 << 10;
const READER_CACHE_KIB: i64 = 2 << 10;

/// Every statement of both roles fits, so that none is compiled twice.
const STATEMENTS: usize = 32;

// `core` stands last: it may spill to overflow pages, and whoever reads hashes need not follow it.
// Receipts are only appended to and have no index of their own: `finds` leads to them, once it has
// been filled up to `head.indexed`.
const TABLES: &str = "
CREATE TABLE meta (
    name TEXT PRIMARY KEY,
    value BLOB NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE head (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    size INTEGER NOT NULL,
    root BLOB NOT NULL,
    at INTEGER NOT NULL,
    indexed INTEGER NOT NULL
) STRICT;

CREATE TABLE streams (
    no INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE
) STRICT;

CREATE TABLE receipts (
    pos INTEGER PRIMARY KEY,
    stream INTEGER NOT NULL,
    seq INTEGER NOT NULL,
    id BLOB NOT NULL,
    hash BLOB NOT NULL,
    chain_hash BLOB NOT NULL,
    core TEXT NOT NULL
) STRICT;

CREATE TABLE finds (
    hash BLOB PRIMARY KEY,
    pos INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE attempts (
    id BLOB PRIMARY KEY,
    pos INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE due (
    stream INTEGER PRIMARY KEY,
    at INTEGER NOT NULL
) STRICT;
CREATE INDEX due_at ON due (at);

CREATE TABLE snapshots (
    stream INTEGER PRIMARY KEY,
    seq INTEGER NOT NULL,
    hash BLOB NOT NULL,
    at INTEGER NOT NULL,
    state BLOB NOT NULL
) STRICT;

CREATE VIEW readable AS
SELECT r.pos AS pos, s.name AS stream, r.seq AS seq,
    json_extract(r.core, '$.type') AS type,
    json_extract(r.core, '$.action') AS action,
    json_extract(r.core, '$.state_from') AS state_from,
    json_extract(r.core, '$.state_to') AS state_to,
    json_extract(r.core, '$.reason') AS reason,
    json_extract(r.core, '$.at') AS at,
    lower(hex(r.hash)) AS hash
FROM receipts r JOIN streams s ON s.no = r.stream;
";

/// Opens the connection that writes; the file may be empty.
pub(crate) fn open_writer(path: &Path, mode: Synchronous) -> Result<Connection, OpenError> {
    let conn = open_with(path, OpenFlags::SQLITE_OPEN_READ_WRITE, WRITER_CACHE_KIB)?;
    into_wal(&conn, mode).map_err(OpenError::sql("prepare the database for writing"))?;
    Ok(conn)
}

/// Opens a connection that checkpoints beside the writer.
pub(crate) fn open_checkpointer(path: &Path, mode: Synchronous) -> Result<Connection, OpenError> {
    let conn = open_with(path, OpenFlags::SQLITE_OPEN_READ_WRITE, READER_CACHE_KIB)?;
    into_wal(&conn, mode).map_err(OpenError::sql("prepare the database for checkpoints"))?;
    Ok(conn)
}

/// Opens a connection that cannot write.
pub(crate) fn open_reader(path: &Path) -> Result<Connection, OpenError> {
    open_with(path, OpenFlags::SQLITE_OPEN_READ_ONLY, READER_CACHE_KIB)
}

/// Opens a database that lives as long as its only connection.
pub(crate) fn open_memory() -> Result<Connection, OpenError> {
    let open = || {
        let conn = Connection::open_in_memory()?;
        tune(&conn, WRITER_CACHE_KIB)?;
        Ok(conn)
    };
    open().map_err(OpenError::sql("open a database in memory"))
}

fn open_with(path: &Path, access: OpenFlags, cache_kib: i64) -> Result<Connection, OpenError> {
    let open = || {
        let conn = Connection::open_with_flags(path, access | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
        tune(&conn, cache_kib)?;
        Ok(conn)
    };
    open().map_err(OpenError::sql("open the database"))
}

fn tune(conn: &Connection, cache_kib: i64) -> rusqlite::Result<()> {
    conn.busy_timeout(BUSY_TIMEOUT)?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS);
    // No plan depends on a bound value. Without this, clearing the bindings of a cached statement
    // expires it, and each use compiles it again.
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    // The bundled build turns foreign keys on; there are none, and checking costs.
    conn.pragma_update(None, "foreign_keys", false)?;
    conn.pragma_update(None, "temp_store", "MEMORY")?;
    conn.pragma_update(None, "mmap_size", 0)?;
    conn.pragma_update(None, "cache_size", -cache_kib)
}

fn into_wal(conn: &Connection, mode: Synchronous) -> rusqlite::Result<()> {
    journal_mode(conn, "wal")?;
    conn.pragma_update(None, "synchronous", mode.pragma())?;
    // A checkpoint in the committing thread would be somebody's slow answer.
    conn.pragma_update(None, "wal_autocheckpoint", 0)?;
    conn.pragma_update(None, "journal_size_limit", WAL_BYTES_MAX.cast_signed())
}

/// Makes the database one file that can be read without writing beside it.
pub(crate) fn out_of_wal(conn: &Connection) -> rusqlite::Result<()> {
    journal_mode(conn, "delete")
}

fn journal_mode(conn: &Connection, mode: &str) -> rusqlite::Result<()> {
    conn.pragma_update_and_check(None, "journal_mode", mode, |row| {
        let found: String = row.get(0)?;
        if found == mode { Ok(()) } else { Err(rusqlite::Error::InvalidQuery) }
    })
}

/// Closing the connection will leave the write-ahead log and the database as they are.
pub(crate) fn leave_wal(conn: &Connection) -> rusqlite::Result<()> {
    conn.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map(drop)
}

/// Sets or clears the time that a connection waits for others.
pub(crate) fn patience(conn: &Connection, patient: bool) -> rusqlite::Result<()> {
    conn.busy_timeout(if patient { BUSY_TIMEOUT } else { Duration::ZERO })
}

/// True when nothing was ever written: a new file, or one whose creation was cut short.
pub(crate) fn is_blank(conn: &Connection) -> Result<bool, OpenError> {
    let blank = || {
        let objects: i64 = conn.query_row("SELECT count(*) FROM sqlite_schema", [], get_first)?;
        Ok(objects == 0 && user_version(conn)? == 0)
    };
    blank().map_err(OpenError::sql("read the schema"))
}

/// Creates tables and identity, the given one or a new one, in one transaction, so that a crash
/// leaves a blank file.
pub(crate) fn create(conn: &mut Connection, given: Option<Identity>) -> Result<(), OpenError> {
    let identity = given.map_or_else(new_identity, Ok).map_err(OpenError::Entropy)?;
    let mut create = || {
        let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
        tx.execute_batch(TABLES)?;
        let insert = "INSERT INTO meta (name, value) VALUES (?1, ?2)";
        tx.execute(insert, params!["ledger", &identity.ledger.0[..]])?;
        tx.execute(insert, params!["secret", &identity.secret[..]])?;
        let head = "INSERT INTO head (one, size, root, at, indexed)
            VALUES (1, 0, zeroblob(32), 0, 0)";
        tx.execute(head, [])?;
        tx.pragma_update(None, "user_version", FORMAT)?;
        tx.commit()
    };
    create().map_err(OpenError::sql("create the tables"))
}

/// Reads who the ledger is, after the format was found to be ours.
pub(crate) fn identity(conn: &Connection) -> Result<Identity, OpenError> {
    let found = user_version(conn).map_err(OpenError::sql("read the format version"))?;
    match found {
        FORMAT => {}
        0 => return Err(OpenError::Foreign),
        found => return Err(OpenError::Format { found, known: FORMAT }),
    }
    let read = || {
        let value = "SELECT value FROM meta WHERE name = ?1";
        let ledger = LedgerId(conn.query_row(value, ["ledger"], get_first)?);
        let secret = conn.query_row(value, ["secret"], get_first)?;
        Ok(Identity { ledger, secret })
    };
    read().map_err(OpenError::sql("read the ledger's identity"))
}

fn user_version(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row("SELECT user_version FROM pragma_user_version", [], get_first)
}

fn get_first<T: rusqlite::types::FromSql>(row: &rusqlite::Row<'_>) -> rusqlite::Result<T> {
    row.get(0)
}
