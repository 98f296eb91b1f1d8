//! The projections, derived again from receipt bytes.
//!
//! Owns: which receipt answers a key and which attempt is unsettled, as read from bytes; the
//! rebuilding of all projections and of the index. Refuses to know: when something is due; whoever
//! folds knows.

use std::collections::BTreeMap;
use std::path::Path;

use engine::keys::named_key;
use engine::ports::IdemKey;
use ledger::{Kind, View};
use rusqlite::{Connection, TransactionBehavior, params};
use types::{Micros, ReceiptId, StreamName};

use crate::fresh::Name;
use crate::reader::Names;
use crate::{OpenError, Options, SqliteStore, Synchronous, finds};

/// Folds every stream, to say what is due afterwards.
pub trait StreamFold {
    /// Takes the next receipt of `stream`: the canonical bytes without hashes.
    fn apply(&mut self, stream: &StreamName, core: &[u8]);

    /// The next due time of each stream that has one.
    fn due(&mut self) -> Vec<(StreamName, Micros)>;
}

/// What a rebuild wrote.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rebuilt {
    /// Receipts read.
    pub receipts: u64,
    /// Receipts that could not be read, and therefore left nothing behind but their ids.
    pub unreadable: u64,
    /// Idempotency keys.
    pub keys: u64,
    /// Attempts without a result.
    pub attempts: u64,
    /// Streams with something due.
    pub due: u64,
}

/// What one receipt means to the projections.
pub(crate) struct Traces {
    pub(crate) key: Option<IdemKey>,
    pub(crate) opens: bool,
    pub(crate) settles: Option<ReceiptId>,
}

impl Traces {
    /// `None` when the bytes are not a receipt.
    pub(crate) fn of(core: &[u8]) -> Option<Traces> {
        let view = View::scan(core).ok()?;
        let key = named_key(&view);
        let settles = view.intent.filter(|_| view.kind == Kind::ActionResult);
        Some(Traces { key, opens: view.kind == Kind::ActionAttempt, settles })
    }
}

/// Attempts without a result, while receipts go by in commit order.
#[derive(Default)]
pub(crate) struct Open(pub(crate) BTreeMap<ReceiptId, u64>);

impl Open {
    pub(crate) fn take(&mut self, pos: u64, id: ReceiptId, traces: &Traces) {
        if traces.opens {
            self.0.insert(id, pos);
        }
        if let Some(attempt) = &traces.settles {
            self.0.remove(attempt);
        }
    }
}

/// Throws away the index, unsettled attempts, due times and snapshots of the ledger in `dir` and
/// makes the first three again from its receipts, in one transaction. Needs the ledger for itself,
/// and 24 bytes of memory for each receipt and for each key. Receipts are only read.
///
/// # Errors
/// As [`SqliteStore::open`]; nothing is changed then.
pub fn rebuild(dir: &Path, folds: &mut dyn StreamFold) -> Result<Rebuilt, OpenError> {
    if !dir.join(crate::files::DATABASE).exists() {
        return Err(OpenError::Missing);
    }
    let store = SqliteStore::open(dir, &Options { synchronous: Synchronous::Full })?;
    store
        .with_writer(|conn| rebuild_all(conn, folds))
        .map_err(OpenError::sql("rebuild the projections"))
}

fn rebuild_all(conn: &mut Connection, folds: &mut dyn StreamFold) -> rusqlite::Result<Rebuilt> {
    let tx = conn.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute_batch(
        "DELETE FROM finds; DELETE FROM attempts; DELETE FROM due; DELETE FROM snapshots;",
    )?;
    let mut rebuilt = Rebuilt { receipts: 0, unreadable: 0, keys: 0, attempts: 0, due: 0 };
    let mut names = Vec::new();
    let mut open = Open::default();
    fold_all(&tx, folds, &mut rebuilt, &mut names, &mut open)?;

    write_finds(&tx, &mut names)?;
    write_attempts(&tx, &open)?;
    rebuilt.attempts = open.0.len() as u64;
    rebuilt.due = write_due(&tx, &folds.due())?;
    tx.commit()?;
    Ok(rebuilt)
}

fn fold_all(
    conn: &Connection,
    folds: &mut dyn StreamFold,
    rebuilt: &mut Rebuilt,
    names: &mut Vec<(Name, u64)>,
    open: &mut Open,
) -> rusqlite::Result<()> {
    let streams = Names::load(conn)?;
    let mut receipts = conn.prepare("SELECT pos, id, core, stream FROM receipts ORDER BY pos")?;
    let mut found = receipts.query([])?;
    while let Some(row) = found.next()? {
        let pos = crate::rows::unsigned(row, 0)?;
        let core = row.get_ref(2)?.as_bytes()?;
        rebuilt.receipts += 1;
        names.extend(finds::id(row, 1)?.map(|id| (id, pos)));
        let (Some(traces), Some(stream)) = (Traces::of(core), streams.get(row.get(3)?)) else {
            rebuilt.unreadable += 1;
            continue;
        };
        open.take(pos, ReceiptId(row.get(1)?), &traces);
        names.extend(traces.key.map(|key| (key, pos)));
        rebuilt.keys += u64::from(traces.key.is_some());
        folds.apply(stream, core);
    }
    Ok(())
}

fn write_finds(conn: &Connection, names: &mut Vec<(Name, u64)>) -> rusqlite::Result<()> {
    // Sorted, so that the tree grows at its end; stable, so that a name's first receipt keeps it.
    names.sort_by_key(|(name, _)| *name);
    names.dedup_by_key(|(name, _)| *name);
    let mut insert = conn.prepare("INSERT INTO finds (hash, pos) VALUES (?1, ?2)")?;
    for (name, pos) in names {
        insert.execute(params![&name[..], pos.cast_signed()])?;
    }
    conn.execute("UPDATE head SET indexed = size", [])?;
    Ok(())
}

fn write_attempts(conn: &Connection, open: &Open) -> rusqlite::Result<()> {
    let mut insert = conn.prepare("INSERT INTO attempts (id, pos) VALUES (?1, ?2)")?;
    for (id, pos) in &open.0 {
        insert.execute(params![&id.0[..], pos.cast_signed()])?;
    }
    Ok(())
}

/// Returns how many streams were known and written.
fn write_due(conn: &Connection, due: &[(StreamName, Micros)]) -> rusqlite::Result<u64> {
    let mut insert = conn.prepare(
        "INSERT OR REPLACE INTO due (stream, at) SELECT no, ?2 FROM streams WHERE name = ?1",
    )?;
    let mut written = 0;
    for (stream, at) in due {
        written += insert.execute(params![stream.as_str(), at.0])? as u64;
    }
    Ok(written)
}
