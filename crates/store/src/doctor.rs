//! A look at a ledger's files and projections, without changing anything.
//!
//! Owns: what is measured and what counts as healthy. Refuses to know: hashes; `verify` does.

use std::ops::ControlFlow;
use std::path::Path;

use ledger::HeadRecord;
use rusqlite::{CachedStatement, Connection, OptionalExtension};
use types::hash::hex_encode;

use crate::fresh::Name;
use crate::projections::{Open, Traces};
use crate::reader::Reader;
use crate::sqlite::{check_head, check_table};
use crate::{OpenError, files, rows};

/// Receipts that the head file may be behind the table: a few groups in flight.
const HEAD_BEHIND_MAX: u64 = 4_096;

/// Faults of the index that are told one by one.
const FAULTS_SHOWN: usize = 100;

const KEY: &str = "key";

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
    /// Entries of the index that are missing, needless or lead to another receipt.
    pub finds_wrong: u64,
    /// The first hundred of them, in a sentence each.
    pub finds_faults: Vec<String>,
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
            && self.finds_wrong == 0
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
        finds_wrong: wrong.finds.count,
        finds_faults: wrong.finds.faults,
        attempts_wrong: wrong.attempts,
    })
}

fn damages(conn: &Connection) -> rusqlite::Result<Vec<String>> {
    let mut check = conn.prepare("PRAGMA quick_check(100)")?;
    let lines: rusqlite::Result<Vec<String>> = check.query_map([], |row| row.get(0))?.collect();
    Ok(lines?.into_iter().filter(|line| line != "ok").collect())
}

fn count_rows(conn: &Connection) -> rusqlite::Result<Vec<(&'static str, u64)>> {
    let tables = ["streams", "receipts", "finds", "attempts", "due", "snapshots"];
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
    finds: Faults,
    attempts: u64,
}

/// What is wrong with the index.
#[derive(Default)]
struct Faults {
    count: u64,
    faults: Vec<String>,
}

impl Faults {
    fn add(&mut self, fault: impl FnOnce() -> String) {
        self.count += 1;
        if self.faults.len() < FAULTS_SHOWN {
            self.faults.push(fault());
        }
    }
}

/// The index beside the rows.
struct Index<'a> {
    find: CachedStatement<'a>,
    /// Behind this position names may be missing.
    reach: u64,
    right: u64,
    wrong: Faults,
}

impl Index<'_> {
    fn check(&mut self, what: &str, name: &Name, pos: u64) -> rusqlite::Result<()> {
        let whose = || format!("{what} {} of receipt {pos}", hex(name));
        match position(&mut self.find, name)? {
            Some(found) if found == pos => self.right += 1,
            // A key that was used again belongs to its first receipt.
            Some(found) if found < pos && what == KEY => {}
            Some(found) => self.wrong.add(|| format!("{} leads to {found} instead", whose())),
            None if pos > self.reach => {}
            None => self.wrong.add(|| format!("{} is not in the index", whose())),
        }
        Ok(())
    }

    /// What leads to a receipt that has another id and another key, or to none.
    fn name_needless(&mut self, conn: &Connection) -> rusqlite::Result<()> {
        let mut all = conn.prepare(
            "SELECT f.hash, f.pos, r.id, r.core
            FROM finds f LEFT JOIN receipts r ON r.pos = f.pos ORDER BY f.hash",
        )?;
        let mut found = all.query([])?;
        while let Some(row) = found.next()? {
            let (hash, pos) = (row.get_ref(0)?.as_bytes().unwrap_or_default(), row.get_ref(1)?);
            let is_id = row.get_ref(2)?.as_bytes().is_ok_and(|id| id == hash);
            let traces = row.get_ref(3)?.as_bytes().ok().and_then(Traces::of);
            let key = traces.and_then(|traces| traces.key);
            if !is_id && key.is_none_or(|key| key != hash) {
                let (name, pos) = (hex(hash), pos.as_i64().unwrap_or(-1));
                self.wrong.add(|| format!("{name} in the index is no name of receipt {pos}"));
            }
        }
        Ok(())
    }
}

fn projections_wrong(reader: &Reader, tables: &[(&'static str, u64)]) -> rusqlite::Result<Wrong> {
    let conn = reader.conn();
    let reach = conn.query_row("SELECT indexed FROM head", [], |row| rows::unsigned(row, 0))?;
    let find = conn.prepare_cached("SELECT pos FROM finds WHERE hash = ?1")?;
    let mut index = Index { find, reach, right: 0, wrong: Faults::default() };
    let mut wrong = Wrong { unreadable: 0, finds: Faults::default(), attempts: 0 };
    let mut open = Open::default();
    let mut failed = None;
    reader.walk(None, &mut |row| {
        let traces = Traces::of(row.core);
        match &traces {
            Some(traces) => open.take(row.pos, row.id, traces),
            None => wrong.unreadable += 1,
        }
        let key = traces.and_then(|traces| traces.key);
        let checked = index.check("id", &row.id.0, row.pos).and_then(|()| match &key {
            Some(key) => index.check(KEY, key, row.pos),
            None => Ok(()),
        });
        match checked {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => {
                failed = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    if let Some(error) = failed {
        return Err(error);
    }
    let listed = |table| tables.iter().find(|(name, _)| *name == table).map_or(0, |(_, n)| *n);
    if listed("finds") > index.right {
        index.name_needless(conn)?;
    }
    wrong.finds = index.wrong;
    let mut attempt_of = conn.prepare_cached("SELECT pos FROM attempts WHERE id = ?1")?;
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

fn hex(bytes: &[u8]) -> String {
    let mut text = Vec::new();
    hex_encode(bytes, &mut text);
    String::from_utf8_lossy(&text).into_owned()
}
