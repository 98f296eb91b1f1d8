//! Reading: the statements behind the port's reads, and rows as the port has them.
//!
//! Owns: every SELECT of a running service. Refuses to know: connections.

use std::collections::{BTreeSet, HashMap};

use engine::ports::{IdemKey, Query, Snapshot, Stored};
use tokio_postgres::Row;
use tokio_postgres::types::FromSql;
use types::{Hash, Micros, ReceiptId, StreamName};

use super::error::Failure;
use super::link::Session;

const BY_PLACE: &str = "
SELECT r.pos, r.seq, r.id, r.hash, r.chain_hash, r.core FROM receipts r
WHERE r.stream = (SELECT no FROM streams WHERE name = $1) AND r.seq >= $2
ORDER BY r.seq LIMIT $3";

const BY_ID: &str = "
SELECT r.pos, r.seq, r.id, r.hash, r.chain_hash, r.core, s.name
FROM receipts r JOIN streams s ON s.no = r.stream WHERE r.id = $1";

const BY_KEYS: &str = "
SELECT r.pos, r.seq, r.id, r.hash, r.chain_hash, r.core, s.name, k.key
FROM keys k JOIN receipts r ON r.pos = k.pos JOIN streams s ON s.no = r.stream
WHERE k.key = ANY ($1)";

const NEWEST: &str = "
SELECT r.pos, r.seq, r.id, r.hash, r.chain_hash, r.core, s.name
FROM receipts r JOIN streams s ON s.no = r.stream
WHERE r.pos < $1 ORDER BY r.pos DESC LIMIT $2";

// Within a stream the order of positions is the order of seq, and seq is what the index holds. A
// cursor is normally a row of this stream, and then the index leads straight to its page.
const NEWEST_OF_STREAM: &str = "
SELECT r.pos, r.seq, r.id, r.hash, r.chain_hash, r.core FROM receipts r
WHERE r.stream = (SELECT no FROM streams WHERE name = $1) AND r.pos < $2
    AND r.seq < coalesce((SELECT c.seq FROM receipts c JOIN streams t ON t.no = c.stream
        WHERE c.pos = $2 AND t.name = $1), 9223372036854775807)
ORDER BY r.seq DESC LIMIT $3";

const UNSETTLED: &str = "
SELECT r.pos, r.seq, r.id, r.hash, r.chain_hash, r.core, s.name
FROM attempts a JOIN logs l ON l.no = a.log
    JOIN receipts r ON r.pos = a.pos JOIN streams s ON s.no = r.stream
WHERE a.log = $1 OR l.lease_until <= clock_timestamp()
ORDER BY a.pos LIMIT $2";

const ALIVE: &str = "SELECT no FROM logs WHERE no = ANY($1) AND lease_until > clock_timestamp()";

const DUE: &str = "
SELECT s.name FROM due d JOIN streams s ON s.no = d.stream
WHERE d.at <= $1 ORDER BY d.at, d.stream LIMIT $2";

const LANES: &str = "SELECT name FROM streams WHERE name > $1 AND name < $2 ORDER BY name";

const SNAPSHOT: &str = "
SELECT n.seq, n.hash, n.at, n.state FROM snapshots n
WHERE n.stream = (SELECT no FROM streams WHERE name = $1)";

fn limit(rows: usize) -> i64 {
    i64::try_from(rows).unwrap_or(i64::MAX)
}

fn clamp(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A column as it must be; anything else was put there by something else.
pub(super) fn get<'a, T: FromSql<'a>>(row: &'a Row, column: usize) -> Result<T, Failure> {
    row.try_get(column).map_err(|error| Failure::Impossible(error.to_string()))
}

pub(super) fn unsigned(row: &Row, column: usize) -> Result<u64, Failure> {
    u64::try_from(get::<i64>(row, column)?)
        .map_err(|_| Failure::Impossible("a count is negative".to_owned()))
}

pub(super) fn bytes<const N: usize>(row: &Row, column: usize) -> Result<[u8; N], Failure> {
    get::<&[u8]>(row, column)?
        .try_into()
        .map_err(|_| Failure::Impossible("a hash or id has another size".to_owned()))
}

fn stream_name(row: &Row, column: usize) -> Result<StreamName, Failure> {
    StreamName::parse(get(row, column)?)
        .map_err(|error| Failure::Impossible(format!("the name of a stream {error}")))
}

/// The columns every receipt query begins with.
fn stored(row: &Row, stream: StreamName) -> Result<Stored, Failure> {
    Ok(Stored {
        pos: unsigned(row, 0)?,
        stream,
        seq: unsigned(row, 1)?,
        id: ReceiptId(bytes(row, 2)?),
        hash: Hash(bytes(row, 3)?),
        chain_hash: Hash(bytes(row, 4)?),
        core: get::<&str>(row, 5)?.as_bytes().to_vec(),
    })
}

fn stored_named(row: &Row) -> Result<Stored, Failure> {
    stored(row, stream_name(row, 6)?)
}

/// [`engine::ports::Store::snapshot`].
pub(super) async fn snapshot(
    session: &mut Session,
    stream: &StreamName,
) -> Result<Option<Snapshot>, Failure> {
    let rows = session.rows(SNAPSHOT, &[&stream.as_str()]).await?;
    let read = |row: &Row| {
        Ok(Snapshot {
            stream: stream.clone(),
            seq: unsigned(row, 0)?,
            hash: Hash(bytes(row, 1)?),
            at: Micros(get(row, 2)?),
            state: get(row, 3)?,
        })
    };
    rows.first().map(read).transpose()
}

/// [`engine::ports::Store::read`].
pub(super) async fn read(
    session: &mut Session,
    stream: &StreamName,
    from_seq: u64,
    rows_max: usize,
) -> Result<Vec<Stored>, Failure> {
    let rows =
        session.rows(BY_PLACE, &[&stream.as_str(), &clamp(from_seq), &limit(rows_max)]).await?;
    rows.iter().map(|row| stored(row, stream.clone())).collect()
}

/// [`engine::ports::Store::find`].
pub(super) async fn find(session: &mut Session, id: ReceiptId) -> Result<Option<Stored>, Failure> {
    let rows = session.rows(BY_ID, &[&&id.0[..]]).await?;
    rows.first().map(stored_named).transpose()
}

/// [`engine::ports::Store::find_keys`], in one round trip.
pub(super) async fn find_keys(
    session: &mut Session,
    keys: &[IdemKey],
) -> Result<Vec<Option<Stored>>, Failure> {
    let wanted: Vec<&[u8]> = keys.iter().map(|key| &key[..]).collect();
    let rows = session.rows(BY_KEYS, &[&wanted]).await?;
    let mut found = HashMap::with_capacity(rows.len());
    for row in &rows {
        found.insert(bytes::<16>(row, 7)?, stored_named(row)?);
    }
    Ok(keys.iter().map(|key| found.get(key).cloned()).collect())
}

/// [`engine::ports::Store::query`].
pub(super) async fn query(session: &mut Session, query: &Query) -> Result<Vec<Stored>, Failure> {
    let before_pos = query.before_pos.map_or(i64::MAX, clamp);
    let rows_max = limit(query.scan_limit);
    let Some(stream) = &query.stream else {
        let rows = session.rows(NEWEST, &[&before_pos, &rows_max]).await?;
        return rows.iter().map(stored_named).collect();
    };
    let rows = session.rows(NEWEST_OF_STREAM, &[&stream.as_str(), &before_pos, &rows_max]).await?;
    rows.iter().map(|row| stored(row, stream.clone())).collect()
}

/// [`engine::ports::Store::lanes`].
pub(super) async fn lanes(
    session: &mut Session,
    base: &StreamName,
) -> Result<Vec<StreamName>, Failure> {
    let (after, before) = base.lanes_between();
    let rows = session.rows(LANES, &[&after, &before]).await?;
    rows.iter().map(|row| stream_name(row, 0)).collect()
}

/// [`engine::ports::Store::due`].
pub(super) async fn due(
    session: &mut Session,
    now: Micros,
    rows_max: usize,
) -> Result<Vec<StreamName>, Failure> {
    let rows = session.rows(DUE, &[&now.0, &limit(rows_max)]).await?;
    rows.iter().map(|row| stream_name(row, 0)).collect()
}

/// Those of the writers whose lease has run out, or who never were.
pub(super) async fn gone(
    session: &mut Session,
    writers: &BTreeSet<u64>,
) -> Result<BTreeSet<u64>, Failure> {
    let asked: Vec<i64> = writers.iter().filter_map(|no| i64::try_from(*no).ok()).collect();
    let mut gone = writers.clone();
    for row in session.rows(ALIVE, &[&asked]).await? {
        gone.remove(&unsigned(&row, 0)?);
    }
    Ok(gone)
}

/// [`engine::ports::Store::unsettled`] for the writer of the log `own`.
pub(super) async fn unsettled(
    session: &mut Session,
    own: i64,
    rows_max: usize,
) -> Result<Vec<Stored>, Failure> {
    let rows = session.rows(UNSETTLED, &[&own, &limit(rows_max)]).await?;
    rows.iter().map(stored_named).collect()
}
