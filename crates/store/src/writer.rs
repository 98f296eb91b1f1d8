//! The one connection that writes: a batch becomes one transaction.
//!
//! Owns: the fence, the order of writes and what a failed write means. Refuses to know: the head
//! file and checkpoints.
//!
//! What if the process dies here? Before COMMIT returns nothing is there; after it everything is,
//! synced. There is no state between.

use std::collections::HashMap;

use engine::ports::{AppendError, Batch};
use ledger::{HeadRecord, LedgerId};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, ffi, params};
use types::StreamName;

use crate::{rows, schema};

/// Stream numbers remembered; behind these the table is asked again.
const STREAMS_CACHED: usize = 65_536;

pub(crate) struct Writer {
    pub(crate) conn: Connection,
    ledger: LedgerId,
    streams: HashMap<StreamName, i64>,
    /// Why nothing may be written any more.
    failed: Option<String>,
}

/// Why a transaction was given up before its COMMIT.
enum Stopped {
    Stale,
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Stopped {
    fn from(error: rusqlite::Error) -> Stopped {
        Stopped::Sql(error)
    }
}

impl Writer {
    pub(crate) fn new(conn: Connection, ledger: LedgerId) -> Writer {
        Writer { conn, ledger, streams: HashMap::new(), failed: None }
    }

    /// True when a failure left it open what the disk holds.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// Nothing may be written any more.
    pub(crate) fn poison(&mut self, why: &str) {
        self.failed.get_or_insert_with(|| why.to_owned());
    }

    /// Writes the batch, all of it or nothing.
    pub(crate) fn append(&mut self, batch: &Batch) -> Result<(), AppendError> {
        debug_assert!(adds_up(batch), "the head after a batch must follow from its receipts");
        if let Some(why) = &self.failed {
            return Err(AppendError::Fatal(why.clone()));
        }
        match self.fill(batch) {
            Ok(()) => {}
            Err(Stopped::Stale) => {
                return Err(self.give_up(AppendError::Conflict { streams: Vec::new() }));
            }
            Err(Stopped::Sql(error)) => {
                let meaning = self.meaning(&error);
                return Err(self.give_up(meaning));
            }
        }
        match self.run("COMMIT") {
            Ok(()) => Ok(()),
            Err(error) => self.settle(batch, &error),
        }
    }

    /// Copies what is left of the WAL, so that the next write starts it over. Readers that still
    /// need it are not waited for: the caller comes back.
    pub(crate) fn restart_wal(&self) {
        let restart = schema::patience(&self.conn, false)
            .and_then(|()| self.conn.query_row("PRAGMA wal_checkpoint(RESTART)", [], |_| Ok(())));
        // Also after a failure: a batch that waits for nobody would be refused for no reason.
        let patient = schema::patience(&self.conn, true);
        if let Err(error) = restart.and(patient) {
            tracing::warn!(event = "wal_restart", %error, "the write-ahead log keeps growing");
        }
    }

    fn run(&self, sql: &'static str) -> rusqlite::Result<()> {
        self.conn.prepare_cached(sql)?.execute([]).map(drop)
    }

    /// Everything between BEGIN and COMMIT.
    fn fill(&mut self, batch: &Batch) -> Result<(), Stopped> {
        self.run("BEGIN IMMEDIATE")?;
        let head = rows::head(&self.conn, self.ledger)?;
        if !same_place(&head, &batch.before) {
            return Err(Stopped::Stale);
        }
        let Writer { conn, streams, .. } = self;
        insert_entries(conn, streams, batch)?;
        for (stream, at) in &batch.due {
            let number = stream_number(conn, streams, stream)?;
            match at {
                Some(at) => conn
                    .prepare_cached("INSERT OR REPLACE INTO due (stream, at) VALUES (?1, ?2)")?
                    .execute([number, at.0])?,
                None => {
                    conn.prepare_cached("DELETE FROM due WHERE stream = ?1")?.execute([number])?
                }
            };
        }
        for kept in &batch.snapshots {
            let number = stream_number(conn, streams, &kept.stream)?;
            let sql = "INSERT OR REPLACE INTO snapshots (stream, seq, hash, at, state)
                VALUES (?1, ?2, ?3, ?4, ?5)";
            let seq = kept.seq.cast_signed();
            let params = params![number, seq, &kept.hash.0[..], kept.at.0, &kept.state];
            conn.prepare_cached(sql)?.execute(params)?;
        }
        let after = &batch.after;
        conn.prepare_cached("UPDATE head SET size = ?1, root = ?2, at = ?3")?.execute(params![
            after.size.cast_signed(),
            &after.root.0[..],
            after.at.0
        ])?;
        Ok(())
    }

    /// Undoes the open transaction and says `why`, or that even this failed.
    fn give_up(&mut self, why: AppendError) -> AppendError {
        // Numbers given to new streams go with the transaction.
        self.streams.clear();
        if self.conn.is_autocommit() {
            return why;
        }
        match self.run("ROLLBACK") {
            Ok(()) => why,
            Err(error) => self.fail(&error),
        }
    }

    /// What a failure before COMMIT means.
    fn meaning(&mut self, error: &rusqlite::Error) -> AppendError {
        if is_taken(error) {
            AppendError::Conflict { streams: Vec::new() }
        } else if is_final(error) {
            self.fail(error)
        } else {
            AppendError::Unavailable(error.to_string())
        }
    }

    /// A COMMIT that reported a failure may have taken effect: the head tells.
    fn settle(&mut self, batch: &Batch, error: &rusqlite::Error) -> Result<(), AppendError> {
        if is_final(error) {
            return Err(self.fail(error));
        }
        match self.give_up(AppendError::Unavailable(error.to_string())) {
            AppendError::Unavailable(why) => match rows::head(&self.conn, self.ledger) {
                Ok(head) if same_place(&head, &batch.after) => Ok(()),
                Ok(head) if same_place(&head, &batch.before) => Err(AppendError::Unavailable(why)),
                Ok(_) | Err(_) => Err(self.fail(error)),
            },
            worse => Err(worse),
        }
    }

    fn fail(&mut self, error: &rusqlite::Error) -> AppendError {
        let why = error.to_string();
        self.failed = Some(why.clone());
        AppendError::Fatal(why)
    }
}

fn insert_entries(
    conn: &Connection,
    streams: &mut HashMap<StreamName, i64>,
    batch: &Batch,
) -> rusqlite::Result<()> {
    let mut receipt = conn.prepare_cached(
        "INSERT INTO receipts (pos, stream, seq, id, hash, chain_hash, core)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let mut key = conn.prepare_cached("INSERT INTO keys (key, pos) VALUES (?1, ?2)")?;
    let mut open = conn.prepare_cached("INSERT INTO attempts (id, pos) VALUES (?1, ?2)")?;
    let mut settle = conn.prepare_cached("DELETE FROM attempts WHERE id = ?1")?;
    let mut pos = batch.before.size.cast_signed();
    for entry in &batch.entries {
        pos += 1;
        let sealed = &entry.sealed;
        let (id, seq) = (&sealed.id.0[..], sealed.seq.cast_signed());
        let number = stream_number(conn, streams, &sealed.stream)?;
        let (hash, chain_hash) = (&sealed.hash.0[..], &sealed.chain_hash.0[..]);
        receipt.execute(params![pos, number, seq, id, hash, chain_hash, Text(&sealed.core)])?;
        if let Some(idem) = &entry.key {
            key.execute(params![&idem[..], pos])?;
        }
        if entry.opens_attempt() {
            open.execute(params![id, pos])?;
        }
        if let Some(attempt) = &entry.settles {
            settle.execute([&attempt.0[..]])?;
        }
    }
    Ok(())
}

fn stream_number(
    conn: &Connection,
    streams: &mut HashMap<StreamName, i64>,
    name: &StreamName,
) -> rusqlite::Result<i64> {
    if let Some(number) = streams.get(name) {
        return Ok(*number);
    }
    let known = conn
        .prepare_cached("SELECT no FROM streams WHERE name = ?1")?
        .query_row([name.as_str()], |row| row.get(0))
        .optional()?;
    let number = match known {
        Some(number) => number,
        None => conn
            .prepare_cached("INSERT INTO streams (name) VALUES (?1)")?
            .insert([name.as_str()])?,
    };
    if streams.len() >= STREAMS_CACHED {
        streams.clear();
    }
    streams.insert(name.clone(), number);
    Ok(number)
}

fn same_place(a: &HeadRecord, b: &HeadRecord) -> bool {
    a.size == b.size && a.root == b.root
}

fn adds_up(batch: &Batch) -> bool {
    let last = batch
        .entries
        .iter()
        .fold(batch.before, |head, entry| head.after(entry.sealed.hash, entry.sealed.at));
    same_place(&last, &batch.after)
}

/// A place, an id or a key that exists already.
fn is_taken(error: &rusqlite::Error) -> bool {
    matches!(
        error.sqlite_error().map(|failure| failure.extended_code),
        Some(
            ffi::SQLITE_CONSTRAINT_UNIQUE
                | ffi::SQLITE_CONSTRAINT_PRIMARYKEY
                | ffi::SQLITE_CONSTRAINT_ROWID
        )
    )
}

/// After a failed sync the kernel may have dropped the very pages that a later sync would call
/// durable, so the only safe answer is to stop.
fn is_final(error: &rusqlite::Error) -> bool {
    error.sqlite_error().is_some_and(|failure| {
        let sync = [ffi::SQLITE_IOERR_FSYNC, ffi::SQLITE_IOERR_DIR_FSYNC];
        sync.contains(&failure.extended_code) || rows::is_corrupt(failure.code)
    })
}

/// Receipt bytes are UTF-8 by construction: bound as text without looking again.
struct Text<'a>(&'a [u8]);

impl ToSql for Text<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(ToSqlOutput::Borrowed(ValueRef::Text(self.0)))
    }
}

#[cfg(test)]
mod tests {
    use engine::ports::Entry;
    use ledger::{Draft, Kind, StreamHead, seal};
    use types::Micros;

    use super::*;
    use crate::sqlite::Synchronous;

    const STREAM: &str = "tenant-1";

    /// A writer on a new ledger in `dir`.
    fn writer(dir: &std::path::Path) -> Writer {
        let path = dir.join("ledger.db");
        std::fs::write(&path, b"").unwrap();
        let mut conn = schema::open_writer(&path, Synchronous::Full).unwrap();
        schema::create(&mut conn).unwrap();
        let ledger = schema::identity(&conn).unwrap().ledger;
        Writer::new(conn, ledger)
    }

    /// The first batch of a ledger, of `count` receipts.
    fn batch(writer: &Writer, count: u64) -> Batch {
        let before = HeadRecord::empty(writer.ledger);
        let stream = StreamName::parse(STREAM).unwrap();
        let (mut after, mut head, mut entries) = (before, StreamHead::EMPTY, Vec::new());
        for n in 0..count {
            let mut draft = Draft::new(Kind::Transition, "grant");
            draft.detail = Some("x".repeat(500).into());
            let at = Micros(1_700_000_000_000_000 + n.cast_signed());
            let sealed = seal(&writer.ledger, &stream, &head, at, &draft).unwrap();
            let prev_hash = head.last_hash;
            head = head.after(&sealed);
            after = after.after(sealed.hash, sealed.at);
            entries.push(Entry { kind: draft.kind, key: None, settles: None, sealed, prev_hash });
        }
        Batch { before, after, entries, due: Vec::new(), snapshots: Vec::new() }
    }

    fn failure(extended_code: i32) -> rusqlite::Error {
        rusqlite::Error::SqliteFailure(ffi::Error::new(extended_code), None)
    }

    fn receipts(writer: &Writer) -> i64 {
        writer.conn.query_row("SELECT count(*) FROM receipts", [], |row| row.get(0)).unwrap()
    }

    #[test]
    fn a_full_disk_is_unavailable_until_there_is_room() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path());
        let batch = batch(&writer, 200);
        let pages: i64 = writer.conn.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
        let limit = |writer: &Writer, pages| {
            writer.conn.pragma_update_and_check(None, "max_page_count", pages, |_| Ok(())).unwrap();
        };
        limit(&writer, pages + 5);
        for _ in 0..2 {
            assert!(matches!(writer.append(&batch), Err(AppendError::Unavailable(_))));
            assert_eq!(receipts(&writer), 0);
        }
        assert!(!writer.has_failed());
        limit(&writer, pages + 1_000);
        writer.append(&batch).unwrap();
        assert_eq!(receipts(&writer), 200);
    }

    #[test]
    fn a_commit_of_unknown_outcome_is_settled_by_the_head() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path());
        let batch = batch(&writer, 3);
        let error = failure(ffi::SQLITE_IOERR_WRITE);

        // Failed, not kept.
        assert!(writer.fill(&batch).is_ok());
        let outcome = writer.settle(&batch, &error);
        assert!(matches!(outcome, Err(AppendError::Unavailable(_))));
        assert_eq!(receipts(&writer), 0);

        // Failed, kept.
        assert!(writer.fill(&batch).is_ok());
        writer.run("COMMIT").unwrap();
        assert!(writer.settle(&batch, &error).is_ok());
        assert_eq!(receipts(&writer), 3);
        assert!(!writer.has_failed());
    }

    #[test]
    fn a_head_that_is_neither_before_nor_after_is_final() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path());
        let batch = batch(&writer, 1);
        writer.conn.execute_batch("UPDATE head SET size = 77").unwrap();
        let outcome = writer.settle(&batch, &failure(ffi::SQLITE_IOERR_WRITE));
        assert!(matches!(outcome, Err(AppendError::Fatal(_))) && writer.has_failed());
    }

    #[test]
    fn a_failed_sync_and_a_damaged_file_are_final() {
        for code in [
            ffi::SQLITE_IOERR_FSYNC,
            ffi::SQLITE_IOERR_DIR_FSYNC,
            ffi::SQLITE_CORRUPT,
            ffi::SQLITE_NOTADB,
        ] {
            let dir = tempfile::tempdir().unwrap();
            let mut writer = writer(dir.path());
            let batch = batch(&writer, 1);
            assert!(writer.fill(&batch).is_ok());
            let outcome = writer.settle(&batch, &failure(code));
            assert!(matches!(outcome, Err(AppendError::Fatal(_))), "{code}");
            assert!(matches!(writer.append(&batch), Err(AppendError::Fatal(_))), "for good");

            let mut writer = Writer::new(writer.conn, writer.ledger);
            assert!(matches!(writer.meaning(&failure(code)), AppendError::Fatal(_)), "{code}");
        }
    }

    #[test]
    fn patience_returns_after_a_restart_that_failed() {
        let dir = tempfile::tempdir().unwrap();
        let writer = writer(dir.path());
        let patience = || -> i64 {
            writer.conn.query_row("PRAGMA busy_timeout", [], |row| row.get(0)).unwrap()
        };
        let before = patience();
        // A checkpoint within a transaction is an error.
        writer.conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        writer.restart_wal();
        assert!(before > 0 && patience() == before);
    }

    #[test]
    fn a_busy_database_is_unavailable() {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path());
        let batch = batch(&writer, 1);
        let other = Connection::open(dir.path().join("ledger.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        schema::patience(&writer.conn, false).unwrap();
        assert!(matches!(writer.append(&batch), Err(AppendError::Unavailable(_))));
        other.execute_batch("ROLLBACK").unwrap();
        writer.append(&batch).unwrap();
    }
}
