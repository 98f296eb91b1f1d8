//! The reads: one function per question of the port, on any connection.
//!
//! Owns: SELECT statements and how rows become receipts. Refuses to know: which connection.

use engine::ports::{IdemKey, Query, ReadError, Snapshot, Stored};
use ledger::{HeadRecord, LedgerId};
use rusqlite::types::Type;
use rusqlite::{CachedStatement, Connection, ErrorCode, OptionalExtension, Params, Row, params};
use types::{Hash, Micros, ReceiptId, StreamName};

const BY_PLACE: &str = "
SELECT r.pos, r.seq, r.id, r.hash, r.chain_hash, r.core FROM receipts r
WHERE r.stream = (SELECT no FROM streams WHERE name = ?1) AND r.seq >= ?2
ORDER BY r.seq LIMIT ?3";

const BY_ID: &str = "
SELECT r.pos, r.seq, r.id, r.hash, r.chain_hash, r.core, s.name
FROM receipts r CROSS JOIN streams s ON s.no = r.stream WHERE r.id = ?1";

const BY_KEY: &str = "
SELECT r.pos, r.seq, r.id, r.hash, r.chain_hash, r.core, s.name
FROM keys k CROSS JOIN receipts r ON r.pos = k.pos CROSS JOIN streams s ON s.no = r.stream
WHERE k.key = ?1";

const NEWEST: &str = "
SELECT r.pos, r.seq, r.id, r.hash, r.chain_hash, r.core, s.name
FROM receipts r CROSS JOIN streams s ON s.no = r.stream
WHERE r.pos < ?1 ORDER BY r.pos DESC LIMIT ?2";

// Within a stream the order of positions is the order of seq, and seq is what the index holds.
const NEWEST_OF_STREAM: &str = "
SELECT r.pos, r.seq, r.id, r.hash, r.chain_hash, r.core FROM receipts r
WHERE r.stream = ?1 AND r.seq < ?2 AND r.pos < ?3 ORDER BY r.seq DESC LIMIT ?4";

const UNSETTLED: &str = "
SELECT r.pos, r.seq, r.id, r.hash, r.chain_hash, r.core, s.name
FROM attempts a CROSS JOIN receipts r ON r.pos = a.pos CROSS JOIN streams s ON s.no = r.stream
ORDER BY a.pos LIMIT ?1";

const DUE: &str = "
SELECT s.name FROM due d CROSS JOIN streams s ON s.no = d.stream
WHERE d.at <= ?1 ORDER BY d.at, d.stream LIMIT ?2";

const SNAPSHOT: &str = "
SELECT n.seq, n.hash, n.at, n.state FROM snapshots n
WHERE n.stream = (SELECT no FROM streams WHERE name = ?1)";

/// Sorts a failed read into the port's two kinds.
pub(crate) fn read_error(error: &rusqlite::Error) -> ReadError {
    use rusqlite::Error as E;
    let corrupt = match error {
        E::SqliteFailure(failure, _) => is_corrupt(failure.code),
        E::FromSqlConversionFailure(..)
        | E::IntegralValueOutOfRange(..)
        | E::InvalidColumnType(..)
        | E::Utf8Error(..)
        | E::QueryReturnedNoRows => true,
        _ => false,
    };
    let text = error.to_string();
    if corrupt { ReadError::Corrupt(text) } else { ReadError::Unavailable(text) }
}

/// True when the file itself is damaged.
pub(crate) fn is_corrupt(code: ErrorCode) -> bool {
    matches!(code, ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase)
}

/// Integers of receipts stay below 2^53; a negative one was put there by something else.
pub(crate) fn unsigned(row: &Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value: i64 = row.get(column)?;
    u64::try_from(value).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(column, value))
}

fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

/// A name out of the table of streams.
pub(crate) fn stream_name(row: &Row<'_>, column: usize) -> rusqlite::Result<StreamName> {
    StreamName::parse(row.get_ref(column)?.as_str()?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(column, Type::Text, Box::new(error))
    })
}

/// The columns every receipt query begins with.
fn stored(row: &Row<'_>, stream: StreamName) -> rusqlite::Result<Stored> {
    Ok(Stored {
        pos: unsigned(row, 0)?,
        stream,
        seq: unsigned(row, 1)?,
        id: ReceiptId(row.get(2)?),
        hash: Hash(row.get(3)?),
        chain_hash: Hash(row.get(4)?),
        core: row.get_ref(5)?.as_bytes()?.to_vec(),
    })
}

fn stored_named(row: &Row<'_>) -> rusqlite::Result<Stored> {
    stored(row, stream_name(row, 6)?)
}

fn all<T, P: Params>(
    mut statement: CachedStatement<'_>,
    params: P,
    read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
) -> rusqlite::Result<Vec<T>> {
    statement.query_map(params, read)?.collect()
}

/// The head inside the database.
pub(crate) fn head(conn: &Connection, ledger: LedgerId) -> rusqlite::Result<HeadRecord> {
    conn.prepare_cached("SELECT size, root, at FROM head")?.query_row([], |row| {
        Ok(HeadRecord {
            ledger,
            size: unsigned(row, 0)?,
            root: Hash(row.get(1)?),
            at: Micros(row.get(2)?),
        })
    })
}

/// [`engine::ports::Store::snapshot`].
pub(crate) fn snapshot(
    conn: &Connection,
    stream: &StreamName,
) -> rusqlite::Result<Option<Snapshot>> {
    let read = |row: &Row<'_>| {
        Ok(Snapshot {
            stream: stream.clone(),
            seq: unsigned(row, 0)?,
            hash: Hash(row.get(1)?),
            at: Micros(row.get(2)?),
            state: row.get(3)?,
        })
    };
    conn.prepare_cached(SNAPSHOT)?.query_row([stream.as_str()], read).optional()
}

/// [`engine::ports::Store::read`].
pub(crate) fn read(
    conn: &Connection,
    stream: &StreamName,
    from_seq: u64,
    rows_max: usize,
) -> rusqlite::Result<Vec<Stored>> {
    let from_seq = i64::try_from(from_seq).unwrap_or(i64::MAX);
    let params = params![stream.as_str(), from_seq, limit(rows_max)];
    all(conn.prepare_cached(BY_PLACE)?, params, |row| stored(row, stream.clone()))
}

/// [`engine::ports::Store::find`].
pub(crate) fn find(conn: &Connection, id: ReceiptId) -> rusqlite::Result<Option<Stored>> {
    conn.prepare_cached(BY_ID)?.query_row([&id.0[..]], stored_named).optional()
}

/// [`engine::ports::Store::find_keys`].
pub(crate) fn find_keys(
    conn: &Connection,
    keys: &[IdemKey],
) -> rusqlite::Result<Vec<Option<Stored>>> {
    // One snapshot for all keys; also, each statement on its own would lock and unlock the index.
    let tx = conn.unchecked_transaction()?;
    let mut statement = tx.prepare_cached(BY_KEY)?;
    keys.iter().map(|key| statement.query_row([&key[..]], stored_named).optional()).collect()
}

/// [`engine::ports::Store::query`].
pub(crate) fn query(conn: &Connection, query: &Query) -> rusqlite::Result<Vec<Stored>> {
    let before_pos = query.before_pos.and_then(|pos| i64::try_from(pos).ok()).unwrap_or(i64::MAX);
    let rows_max = limit(query.scan_limit);
    let Some(stream) = &query.stream else {
        return all(conn.prepare_cached(NEWEST)?, params![before_pos, rows_max], stored_named);
    };
    let number = "SELECT no FROM streams WHERE name = ?1";
    let number: Option<i64> =
        conn.prepare_cached(number)?.query_row([stream.as_str()], |row| row.get(0)).optional()?;
    let Some(number) = number else { return Ok(Vec::new()) };
    // A cursor is normally a row of this stream, and then the index leads straight to its page.
    let before_seq = "SELECT seq FROM receipts WHERE pos = ?1 AND stream = ?2";
    let before_seq: Option<i64> = conn
        .prepare_cached(before_seq)?
        .query_row([before_pos, number], |row| row.get(0))
        .optional()?;
    let params = params![number, before_seq.unwrap_or(i64::MAX), before_pos, rows_max];
    all(conn.prepare_cached(NEWEST_OF_STREAM)?, params, |row| stored(row, stream.clone()))
}

/// [`engine::ports::Store::due`].
pub(crate) fn due(
    conn: &Connection,
    now: Micros,
    rows_max: usize,
) -> rusqlite::Result<Vec<StreamName>> {
    all(conn.prepare_cached(DUE)?, [now.0, limit(rows_max)], |row| stream_name(row, 0))
}

/// [`engine::ports::Store::unsettled`].
pub(crate) fn unsettled(conn: &Connection, rows_max: usize) -> rusqlite::Result<Vec<Stored>> {
    all(conn.prepare_cached(UNSETTLED)?, [limit(rows_max)], stored_named)
}
