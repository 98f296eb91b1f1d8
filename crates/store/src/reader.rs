//! Reading a whole ledger, also one that a running service writes.
//!
//! Owns: one consistent view of table and head file, and rows without copies. Refuses to know:
//! what is intact; that is the verifier's word, so nothing here stops at a strange row.

use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use engine::ports::{Identity, ReadError};
use ledger::{HeadRecord, LedgerId, Row};
use rusqlite::{Connection, OptionalExtension, Statement, ToSql};
use types::{Hash, ReceiptId, StreamName};

use crate::{OpenError, files, rows, schema};

const ALL: &str = "
SELECT pos, seq, id, hash, chain_hash, core, stream FROM receipts ORDER BY pos";

// Through all rows: the newest names are in the memory of whoever writes, and only rows tell all.
const OF_STREAM: &str = "
SELECT pos, seq, id, hash, chain_hash, core, stream FROM receipts
WHERE stream = ?1 ORDER BY pos";

/// A read-only view of a ledger on disk as it was at one moment. Takes no lock; while it exists
/// the write-ahead log of a running service cannot shrink.
pub struct Reader {
    dir: PathBuf,
    conn: Connection,
    identity: Identity,
    recorded: Option<HeadRecord>,
    table_head: HeadRecord,
    names: Names,
}

impl Reader {
    /// Opens the ledger in `dir` and fixes the view.
    ///
    /// # Errors
    /// [`OpenError::Missing`] without a database, [`OpenError::Foreign`] and
    /// [`OpenError::Format`] when it is not ours.
    pub fn open(dir: &Path) -> Result<Reader, OpenError> {
        let path = dir.join(files::DATABASE);
        if files::bytes_of(&path) == 0 {
            return Err(OpenError::Missing);
        }
        // Before the view is fixed: the record then counts no receipt that the view lacks.
        let recorded = files::read_head(dir)?;
        let conn = schema::open_reader(&path)?;
        let identity = schema::identity(&conn)?;
        let fix = || {
            conn.execute_batch("BEGIN")?;
            let table_head = rows::head(&conn, identity.ledger)?;
            Ok((table_head, Names::load(&conn)?))
        };
        let (table_head, names) = fix().map_err(OpenError::sql("begin to read the ledger"))?;
        Ok(Reader { dir: dir.to_owned(), conn, identity, recorded, table_head, names })
    }

    /// The ledger's id.
    #[must_use]
    pub fn ledger(&self) -> LedgerId {
        self.identity.ledger
    }

    /// The ledger's name and secret, for a copy of it.
    #[must_use]
    pub fn identity(&self) -> Identity {
        self.identity
    }

    /// True while a process has the ledger open for writing.
    ///
    /// # Errors
    /// When the lock cannot be looked at.
    pub fn is_written(&self) -> Result<bool, OpenError> {
        files::is_locked(&self.dir)
    }

    /// The newest intact record of the head file, read just before the view was fixed.
    #[must_use]
    pub fn head_record(&self) -> Option<HeadRecord> {
        self.recorded
    }

    /// The head that the database itself holds.
    #[must_use]
    pub fn table_head(&self) -> HeadRecord {
        self.table_head
    }

    /// Hands every receipt, or every one of a stream, to `take` in commit order until it breaks.
    /// Rows borrow from the database. What cannot be arrives as something that no intact
    /// receipt has, so that the verifier finds it: a hash of the wrong size as zeros, a negative
    /// count as the largest, a stream without a name as the empty name.
    ///
    /// # Errors
    /// When the database cannot be read further.
    pub fn for_each(
        &self,
        stream: Option<&StreamName>,
        take: &mut dyn FnMut(&Row<'_>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        self.walk(stream, take).map_err(|error| rows::read_error(&error))
    }

    pub(crate) fn walk(
        &self,
        stream: Option<&StreamName>,
        take: &mut dyn FnMut(&Row<'_>) -> ControlFlow<()>,
    ) -> rusqlite::Result<()> {
        let Some(stream) = stream else {
            return each(&mut self.conn.prepare(ALL)?, &[], &self.names, take);
        };
        let number: Option<i64> = self
            .conn
            .query_row("SELECT no FROM streams WHERE name = ?1", [stream.as_str()], |r| r.get(0))
            .optional()?;
        match number {
            Some(number) => each(&mut self.conn.prepare(OF_STREAM)?, &[&number], &self.names, take),
            None => Ok(()),
        }
    }

    pub(crate) fn conn(&self) -> &Connection {
        &self.conn
    }
}

/// The names of all streams by number: cheaper than a join for each of a million rows.
pub(crate) struct Names(Vec<Option<StreamName>>);

impl Names {
    pub(crate) fn load(conn: &Connection) -> rusqlite::Result<Names> {
        let mut names = Vec::new();
        let mut statement = conn.prepare("SELECT no, name FROM streams ORDER BY no")?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let number: i64 = row.get(0)?;
            // Numbers are given in order from 1; one that was not is a stream without a name.
            if usize::try_from(number).is_ok_and(|number| number == names.len() + 1) {
                names.push(rows::stream_name(row, 1).ok());
            }
        }
        Ok(Names(names))
    }

    pub(crate) fn get(&self, number: i64) -> Option<&StreamName> {
        let place = usize::try_from(number).ok()?.checked_sub(1)?;
        self.0.get(place)?.as_ref()
    }
}

fn each(
    statement: &mut Statement<'_>,
    params: &[&dyn ToSql],
    names: &Names,
    take: &mut dyn FnMut(&Row<'_>) -> ControlFlow<()>,
) -> rusqlite::Result<()> {
    let mut found = statement.query(params)?;
    while let Some(row) = found.next()? {
        let number = row.get(6)?;
        let taken = take(&Row {
            pos: counted(row, 0)?,
            seq: counted(row, 1)?,
            id: ReceiptId(sized(row, 2)?),
            hash: Hash(sized(row, 3)?),
            chain_hash: Hash(sized(row, 4)?),
            core: row.get_ref(5)?.as_bytes().unwrap_or_default(),
            stream: names.get(number).map_or("", StreamName::as_str),
            stream_no: usize::try_from(number).ok(),
        });
        if taken.is_break() {
            break;
        }
    }
    Ok(())
}

/// What cannot be a count becomes the largest one, which no receipt's bytes say.
fn counted(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<u64> {
    let value = row.get_ref(column)?.as_i64().unwrap_or(-1);
    Ok(u64::try_from(value).unwrap_or(i64::MAX.cast_unsigned()))
}

fn sized<const N: usize>(row: &rusqlite::Row<'_>, column: usize) -> rusqlite::Result<[u8; N]> {
    let bytes = row.get_ref(column)?.as_bytes().unwrap_or_default();
    Ok(bytes.try_into().unwrap_or([0; N]))
}
