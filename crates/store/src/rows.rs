//! The reads: one function per question of the port, on any connection.
//!
//! Owns: SELECT statements and how rows become receipts. Refuses to know: which connection.

use engine::ports::{IdemKey, Query, ReadError, Snapshot, Stored};
use ledger::{HeadRecord, LedgerId};
use rusqlite::types::Type;
use rusqlite::{CachedStatement, Connection, ErrorCode, OptionalExtension, Params, Row, params};
use types::{Hash, Micros, ReceiptId, StreamName};

use crate::finds::Look;

const BY_POS: &str = "
SELECT r.pos, r.seq, r.id, r.hash, r.chain_hash, r.core, s.name
FROM receipts r CROSS JOIN streams s ON s.no = r.stream WHERE r.pos = ?1";

const NEWEST: &str = "
SELECT r.pos, r.seq, r.id, r.hash, r.chain_hash, r.core, s.name
FROM receipts r CROSS JOIN streams s ON s.no = r.stream
WHERE r.pos < ?1 ORDER BY r.pos DESC LIMIT ?2";

const UNSETTLED: &str = "
SELECT r.pos, r.seq, r.id, r.hash, r.chain_hash, r.core, s.name
FROM attempts a CROSS JOIN receipts r ON r.pos = a.pos CROSS JOIN streams s ON s.no = r.stream
ORDER BY a.pos LIMIT ?1";

const DUE: &str = "
SELECT s.name FROM due d CROSS JOIN streams s ON s.no = d.stream
WHERE d.at <= ?1 ORDER BY d.at, d.stream LIMIT ?2";

const LANES: &str = "SELECT name FROM streams WHERE name > ?1 AND name < ?2 ORDER BY name";

const SNAPSHOT: &str = "
SELECT n.seq, n.hash, n.at, n.state FROM snapshots n
WHERE n.stream = (SELECT no FROM streams WHERE name = ?1)";

/// Places of a stream that are looked up at once: few at first, since most reads are of a short
/// tail.
const PLACES_MIN: u64 = 8;
const PLACES_MAX: u64 = 256;

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

/// The columns of every receipt query.
fn stored(row: &Row<'_>) -> rusqlite::Result<Stored> {
    Ok(Stored {
        pos: unsigned(row, 0)?,
        stream: stream_name(row, 6)?,
        seq: unsigned(row, 1)?,
        id: ReceiptId(row.get(2)?),
        hash: Hash(row.get(3)?),
        chain_hash: Hash(row.get(4)?),
        core: row.get_ref(5)?.as_bytes()?.to_vec(),
    })
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
///
/// A stream ends where two places in a row lead nowhere. Behind one that does, or whose row is
/// gone, a row was removed by hand: what follows is given, so that a fold sees the broken link.
pub(crate) fn read(
    look: &Look<'_>,
    stream: &StreamName,
    from_seq: u64,
    rows_max: usize,
) -> rusqlite::Result<Vec<Stored>> {
    let mut found = Vec::new();
    let (mut next, mut nowhere) = (from_seq, 0);
    let mut places = PLACES_MIN.min(rows_max as u64);
    while found.len() < rows_max && nowhere < 2 && next < u64::MAX {
        let end = next.saturating_add(places);
        each_place(look, stream, next..end, |led, stored| {
            nowhere = if led { 0 } else { nowhere + 1 };
            found.extend(stored);
            found.len() < rows_max && nowhere < 2
        })?;
        next = end;
        places = PLACES_MAX.min(places * 2);
    }
    Ok(found)
}

/// [`engine::ports::Store::find`].
pub(crate) fn find(look: &Look<'_>, id: ReceiptId) -> rusqlite::Result<Option<Stored>> {
    let mut found = None;
    look.each(&[id.0], |conn, pos| {
        found = at(conn, pos)?.filter(|stored| stored.id == id);
        Ok(true)
    })?;
    Ok(found)
}

/// [`engine::ports::Store::find_keys`].
pub(crate) fn find_keys(
    look: &Look<'_>,
    keys: &[IdemKey],
) -> rusqlite::Result<Vec<Option<Stored>>> {
    let mut found = Vec::with_capacity(keys.len());
    look.each(keys, |conn, pos| {
        found.push(at(conn, pos)?);
        Ok(true)
    })?;
    Ok(found)
}

/// The row at a position, if there is one.
fn at(conn: &Connection, pos: Option<u64>) -> rusqlite::Result<Option<Stored>> {
    let Some(pos) = pos else { return Ok(None) };
    conn.prepare_cached(BY_POS)?.query_row([pos.cast_signed()], stored).optional()
}

/// Tells `take` for each place whether it leads anywhere, and to which receipt, until it says
/// false. A row that is filed elsewhere by now counts as gone.
fn each_place(
    look: &Look<'_>,
    stream: &StreamName,
    seqs: impl Iterator<Item = u64> + Clone,
    mut take: impl FnMut(bool, Option<Stored>) -> bool,
) -> rusqlite::Result<()> {
    let names: Vec<_> = seqs.clone().map(|seq| look.place(stream, seq)).collect();
    let mut seqs = seqs;
    look.each(&names, |conn, pos| {
        let seq = seqs.next();
        let here = |stored: &Stored| Some(stored.seq) == seq && stored.stream == *stream;
        Ok(take(pos.is_some(), at(conn, pos)?.filter(here)))
    })
}

/// The newest place of a stream that leads anywhere: by steps that double, then by halves. One row
/// that was removed by hand does not make the stream look shorter.
fn newest_seq(look: &Look<'_>, stream: &StreamName) -> rusqlite::Result<Option<u64>> {
    let reaches = |seq: u64| {
        Ok::<_, rusqlite::Error>(
            look.has(look.place(stream, seq))? || look.has(look.place(stream, seq + 1))?,
        )
    };
    if !reaches(0)? {
        return Ok(None);
    }
    let (mut low, mut step) = (0, 1);
    while reaches(low + step)? {
        low += step;
        step *= 2;
    }
    let mut high = low + step;
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if reaches(middle)? {
            low = middle;
        } else {
            high = middle;
        }
    }
    Ok(Some(low))
}

/// [`engine::ports::Store::query`] over all streams.
pub(crate) fn query_all(conn: &Connection, query: &Query) -> rusqlite::Result<Vec<Stored>> {
    let before_pos = query.before_pos.and_then(|pos| i64::try_from(pos).ok()).unwrap_or(i64::MAX);
    all(conn.prepare_cached(NEWEST)?, params![before_pos, limit(query.scan_limit)], stored)
}

/// [`engine::ports::Store::query`] of one stream. Within a stream the order of positions is the
/// order of seq.
pub(crate) fn query_stream(
    look: Look<'_>,
    stream: &StreamName,
    query: &Query,
) -> rusqlite::Result<Vec<Stored>> {
    let (look, rows_max) = (look.before(query.before_pos.unwrap_or(u64::MAX)), query.scan_limit);
    let mut found = Vec::new();
    let mut end = newest_seq(&look, stream)?.map_or(0, |newest| newest + 1);
    while end > 0 && found.len() < rows_max {
        let start = end.saturating_sub(PLACES_MAX.min((rows_max - found.len()) as u64));
        each_place(&look, stream, (start..end).rev(), |_, stored| {
            found.extend(stored);
            true
        })?;
        end = start;
    }
    Ok(found)
}

/// [`engine::ports::Store::lanes`].
pub(crate) fn lanes(conn: &Connection, base: &StreamName) -> rusqlite::Result<Vec<StreamName>> {
    let (after, before) = base.lanes_between();
    all(conn.prepare_cached(LANES)?, [after, before], |row| stream_name(row, 0))
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
    all(conn.prepare_cached(UNSETTLED)?, [limit(rows_max)], stored)
}
