//! Names lead to receipts: through memory while they are new, through the table `finds` after that.
//!
//! Owns: the order in which both are asked, the snapshot that this needs, and the way from one into
//! the other. Refuses to know: when an append begins and ends, and how a row becomes a receipt.
//!
//! What if the process dies here? A move is part of the transaction of an append, and so is
//! `head.indexed`, which goes on when a whole generation is in the table. What lies behind it is
//! read into memory on opening, also what was moved already; moving it again changes nothing.

use std::cell::RefCell;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use ledger::{LedgerId, receipt_id};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use types::StreamName;

use crate::fresh::{Fresh, Name};
use crate::projections::Traces;
use crate::rows;

/// The memory for reading. Only the writer waits for it to be free of readers.
pub(crate) fn shared(fresh: &RwLock<Fresh>) -> RwLockReadGuard<'_, Fresh> {
    fresh.read().unwrap_or_else(PoisonError::into_inner)
}

/// The name of a place: a receipt's id follows from it, so that places need no index of their own.
pub(crate) fn place(ledger: &LedgerId, stream: &StreamName, seq: u64) -> Name {
    receipt_id(ledger, stream.as_str(), seq).0
}

/// Where the table says that a name leads.
pub(crate) fn indexed(conn: &Connection, name: &Name) -> rusqlite::Result<Option<u64>> {
    conn.prepare_cached("SELECT pos FROM finds WHERE hash = ?1")?
        .query_row([&name[..]], |row| rows::unsigned(row, 0))
        .optional()
}

/// Moves names into the table as an append that brings `brought` should. Returns how many.
pub(crate) fn move_some(
    conn: &Connection,
    fresh: &Fresh,
    brought: usize,
) -> rusqlite::Result<usize> {
    let mut insert =
        conn.prepare_cached("INSERT OR IGNORE INTO finds (hash, pos) VALUES (?1, ?2)")?;
    let run = fresh.run(brought);
    let moved = run.len();
    for (name, pos) in run {
        insert.execute(params![&name[..], pos.cast_signed()])?;
    }
    Ok(moved)
}

/// The id in a column. One that was altered may lead nowhere.
pub(crate) fn id(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Name>> {
    Ok(row.get_ref(column)?.as_bytes().ok().and_then(|id| Name::try_from(id).ok()))
}

/// Reads into memory what the table does not have for certain.
pub(crate) fn load(conn: &Connection, size: u64) -> rusqlite::Result<Fresh> {
    let reach = conn.query_row("SELECT indexed FROM head", [], |row| rows::unsigned(row, 0))?;
    let mut fresh = Fresh::new(reach);
    let mut receipts =
        conn.prepare("SELECT pos, id, core FROM receipts WHERE pos > ?1 ORDER BY pos")?;
    let mut found = receipts.query([reach.cast_signed()])?;
    let mut behind = Vec::new();
    while let Some(row) = found.next()? {
        let pos = rows::unsigned(row, 0)?;
        let traces = row.get_ref(2)?.as_bytes().ok().and_then(Traces::of);
        let key = match traces.and_then(|traces| traces.key) {
            // A key that is named again belongs to its first receipt, which may be in the table.
            Some(key) if indexed(conn, &key)?.is_some_and(|first| first != pos) => None,
            key => key,
        };
        behind.extend([id(row, 1)?, key].into_iter().flatten().map(|name| (name, pos)));
    }
    fresh.commit(0, behind, size);
    Ok(fresh)
}

/// The ledger as of one moment, for any number of questions.
///
/// Whatever was committed by then is seen: a name leaves memory only after the transaction that
/// put it into the table was committed, and the table is asked in a snapshot that is younger than
/// the memory which did not have the name. Whatever came later is not seen, although that snapshot
/// may have it: names move in an order of their own, and a stream with its end but without its
/// middle would pass for a broken one.
pub(crate) struct Look<'a> {
    conn: &'a Connection,
    fresh: &'a RwLock<Fresh>,
    ledger: LedgerId,
    /// The newest receipt that is seen.
    newest: u64,
    /// With the size of the ledger before which it was not begun.
    snapshot: RefCell<Option<(u64, Transaction<'a>)>>,
}

impl<'a> Look<'a> {
    /// A look at what is committed now. `conn` is outside of any transaction.
    pub(crate) fn new(conn: &'a Connection, fresh: &'a RwLock<Fresh>, ledger: LedgerId) -> Self {
        let newest = shared(fresh).size();
        Look { conn, fresh, ledger, newest, snapshot: RefCell::new(None) }
    }

    /// The same, but for receipts at `pos` and after it.
    pub(crate) fn before(self, pos: u64) -> Self {
        Look { newest: self.newest.min(pos.saturating_sub(1)), ..self }
    }

    pub(crate) fn place(&self, stream: &StreamName, seq: u64) -> Name {
        place(&self.ledger, stream, seq)
    }

    /// Tells `take` for each name where it leads, with a connection to read what is there, until
    /// it says false.
    pub(crate) fn each(
        &self,
        names: &[Name],
        mut take: impl FnMut(&Connection, Option<u64>) -> rusqlite::Result<bool>,
    ) -> rusqlite::Result<()> {
        let (size, remembered): (_, Vec<_>) = {
            let fresh = shared(self.fresh);
            (fresh.size(), names.iter().map(|name| fresh.get(name)).collect())
        };
        self.be_younger_than(size)?;
        for (name, remembered) in names.iter().zip(remembered) {
            let pos = match remembered {
                Some(pos) => Some(pos),
                None => indexed(self.conn, name)?,
            };
            if !take(self.conn, pos.filter(|pos| *pos <= self.newest))? {
                break;
            }
        }
        Ok(())
    }

    /// True when the name leads anywhere.
    pub(crate) fn has(&self, name: Name) -> rusqlite::Result<bool> {
        let mut has = false;
        self.each(&[name], |_, pos| {
            has = pos.is_some();
            Ok(true)
        })?;
        Ok(has)
    }

    /// Begins a snapshot after a look into memory as of `size`. While memory stays as it was, the
    /// one from before will do, and each statement on its own would lock and unlock the log.
    fn be_younger_than(&self, size: u64) -> rusqlite::Result<()> {
        let mut snapshot = self.snapshot.borrow_mut();
        if snapshot.as_ref().is_none_or(|(since, _)| *since != size) {
            *snapshot = None;
            *snapshot = Some((size, self.conn.unchecked_transaction()?));
        }
        Ok(())
    }
}
