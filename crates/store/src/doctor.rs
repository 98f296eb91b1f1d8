//! A look at a ledger's files and projections, without changing anything.
//!
//! Owns: what is measured and what counts as healthy. Refuses to know: hashes; `verify` does.

use std::ops::ControlFlow;
use std::path::Path;

use ledger::HeadRecord;
use rusqlite::{CachedStatement, Connection, OptionalExtension};

use crate::projections::{Open, Traces};
use crate::reader::Reader;
use crate::sqlite::{check_head, check_table};
use crate::{OpenError, files, rows};

/// Receipts that the head file may be behind the table: a few groups in flight.
const HEAD_BEHIND_MAX: u64 = 4_096;

/// What was found.
#[derive(Debug, Clone)]
pub struct Diagnosis {
    /// What SQLite's own check says about its pages and indexes, at most 100
    /// lines; empty when all is well.
    pub damages: Vec<String>,
    /// Rows in each table, in the order of the schema.
    pub rows: Vec<(&'static str, u64)>,
    /// Bytes of the database.
    pub database_bytes: u64,
    /// Bytes of the write-ahead log.
    pub wal_bytes: u64,
    /// The head in the database.
    pub table_head: HeadRecord,
    /// The newest intact record of the head file.
    pub head_record: Option<HeadRecord>,
    /// What is wrong with the heads, in a sentence.
    pub head_fault: Option<String>,
    /// Receipts whose bytes could not be read; their projections were not checked.
    pub unreadable: u64,
    /// Entries of the key index that are missing, needless or point to another receipt.
    pub keys_wrong: u64,
    /// Entries among the unsettled attempts that are missing, needless or wrong.
    pub attempts_wrong: u64,
}

impl Diagnosis {
    /// True when nothing needs a person.
    #[must_use]
    pub fn healthy(&self) -> bool {
        self.damages.is_empty()
            && self.head_fault.is_none()
            && self.unreadable == 0
            && self.keys_wrong == 0
            && self.attempts_wrong == 0
    }
}

/// Examines the ledger in `dir`, also while a service writes it.
///
/// # Errors
/// When there is no ledger, or it cannot be read at all.
pub fn doctor(dir: &Path) -> Result<Diagnosis, OpenError> {
    let reader = Reader::open(dir)?;
    let cannot = || OpenError::sql("examine the ledger");
    let tables = count_rows(reader.conn()).map_err(cannot())?;
    let wrong = projections_wrong(&reader, &tables).map_err(cannot())?;
    Ok(Diagnosis {
        damages: damages(reader.conn()).map_err(cannot())?,
        rows: tables,
        database_bytes: files::bytes_of(&dir.join(files::DATABASE)),
        wal_bytes: files::bytes_of(&dir.join(files::WAL)),
        table_head: reader.table_head(),
        head_record: reader.head_record(),
        head_fault: head_fault(&reader),
        unreadable: wrong.unreadable,
        keys_wrong: wrong.keys,
        attempts_wrong: wrong.attempts,
    })
}

fn damages(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut check = conn.prepare("PRAGMA quick_check(100)")?;
    let lines: rusqlite::Result<Vec<String>> = check.query_map([], |row| row.get(0))?.collect();
    Ok(lines?.into_iter().filter(|line| line != "ok").collect())
}

fn count_rows(conn: &Connection) -> rusqlite::Result<Vec<(&'static str, u64)>> {
    let tables = ["streams", "receipts", "keys", "attempts", "due", "snapshots"];
    let count = |table| {
        let sql = format!("SELECT count(*) FROM {table}");
        Ok((table, conn.query_row(&sql, [], |row| rows::unsigned(row, 0))?))
    };
    tables.into_iter().map(count).collect()
}

fn head_fault(reader: &Reader) -> Option<String> {
    let head = reader.table_head();
    let checked = check_table(reader.conn(), reader.identity()).and_then(|head| {
        match reader.head_record().filter(|record| record.size > 0) {
            Some(recorded) => check_head(reader.conn(), &head, &recorded),
            None => Ok(()),
        }
    });
    if let Err(error) = checked {
        return Some(error.to_string());
    }
    match reader.head_record() {
        None => Some("head file is missing or unreadable".to_owned()),
        Some(recorded) if head.size - recorded.size > HEAD_BEHIND_MAX => {
            Some(format!("head file is {} receipts behind", head.size - recorded.size))
        }
        Some(_) => None,
    }
}

struct Wrong {
    unreadable: u64,
    keys: u64,
    attempts: u64,
}

fn projections_wrong(reader: &Reader, tables: &[(&'static str, u64)]) -> rusqlite::Result<Wrong> {
    let mut key_of = reader.conn().prepare_cached("SELECT pos FROM keys WHERE key = ?1")?;
    let mut wrong = Wrong { unreadable: 0, keys: 0, attempts: 0 };
    let mut open = Open::default();
    let mut keys_right = 0;
    let mut failed = None;
    reader.walk(None, &mut |row| {
        let Some(traces) = Traces::of(row.core) else {
            wrong.unreadable += 1;
            return ControlFlow::Continue(());
        };
        open.take(row.pos, row.id, &traces);
        let Some(key) = traces.key else { return ControlFlow::Continue(()) };
        match position(&mut key_of, &key) {
            Ok(Some(pos)) if pos == row.pos => keys_right += 1,
            // A key that was used again belongs to its first receipt.
            Ok(Some(pos)) if pos < row.pos => {}
            Ok(_) => wrong.keys += 1,
            Err(error) => {
                failed = Some(error);
                return ControlFlow::Break(());
            }
        }
        ControlFlow::Continue(())
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    let listed = |table| tables.iter().find(|(name, _)| *name == table).map_or(0, |(_, n)| *n);
    wrong.keys += listed("keys").saturating_sub(keys_right);
    let mut attempt_of = reader.conn().prepare_cached("SELECT pos FROM attempts WHERE id = ?1")?;
    let mut attempts_right = 0;
    for (id, pos) in &open.0 {
        match position(&mut attempt_of, &id.0)? {
            Some(found) if found == *pos => attempts_right += 1,
            _ => wrong.attempts += 1,
        }
    }
    wrong.attempts += listed("attempts").saturating_sub(attempts_right);
    Ok(wrong)
}

fn position(find: &mut CachedStatement<'_>, name: &[u8; 16]) -> rusqlite::Result<Option<u64>> {
    find.query_row([&name[..]], |row| rows::unsigned(row, 0)).optional()
}
