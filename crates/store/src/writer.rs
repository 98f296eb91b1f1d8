//! The one connection that writes: a batch becomes one transaction.
//!
//! Owns: the fence, the order of writes and what a failed write means. Refuses to know: the head
//! file and checkpoints.
//!
//! What if the process dies here? Before COMMIT returns nothing is there; after it everything is,
//! synced. There is no state between.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use engine::ports::{AppendError, Batch};
use ledger::{HeadRecord, LedgerId, Sealed};
use rusqlite::types::{ToSql, ToSqlOutput, ValueRef};
use rusqlite::{Connection, OptionalExtension, ffi, params};
use types::StreamName;

use crate::fresh::{Fresh, Name};
use crate::{finds, rows, schema};

/// Streams remembered; behind these the tables are asked again.
const STREAMS_CACHED: usize = 65_536;

pub(crate) struct Writer {
    pub(crate) conn: Connection,
    ledger: LedgerId,
    streams: HashMap<StreamName, Known>,
    /// Changed here only, and only after a commit.
    fresh: Arc<RwLock<Fresh>>,
    /// Why nothing may be written any more.
    failed: Option<String>,
}

/// What is remembered of a stream.
struct Known {
    number: i64,
    /// The first free place. `None` until it was looked for: from then on the stream grows here
    /// only.
    end: Option<u64>,
}

/// Why a transaction was given up before its COMMIT.
enum Stopped {
    /// The ledger has moved on, or a place or key is taken.
    Conflict,
    Sql(rusqlite::Error),
}

impl From<rusqlite::Error> for Stopped {
    fn from(error: rusqlite::Error) -> Stopped {
        Stopped::Sql(error)
    }
}

impl Writer {
    pub(crate) fn new(conn: Connection, ledger: LedgerId, fresh: Arc<RwLock<Fresh>>) -> Writer {
        Writer { conn, ledger, streams: HashMap::new(), fresh, failed: None }
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
        let moved = match self.fill(batch) {
            Ok(moved) => moved,
            Err(Stopped::Conflict) => {
                return Err(self.give_up(AppendError::Conflict { streams: Vec::new() }));
            }
            Err(Stopped::Sql(error)) => {
                let meaning = self.meaning(&error);
                return Err(self.give_up(meaning));
            }
        };
        if let Err(error) = self.run("COMMIT") {
            self.settle(batch, &error)?;
        }
        self.remember(batch, moved);
        Ok(())
    }

    /// Makes a batch that was kept visible: its receipts are found from here on.
    fn remember(&self, batch: &Batch, moved: usize) {
        let mut fresh = self.fresh.write().unwrap_or_else(PoisonError::into_inner);
        fresh.commit(moved, names(batch), batch.after.size);
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

    /// Everything between BEGIN and COMMIT. Returns how many names went from memory into the index.
    fn fill(&mut self, batch: &Batch) -> Result<usize, Stopped> {
        self.run("BEGIN IMMEDIATE")?;
        let head = rows::head(&self.conn, self.ledger)?;
        if !same_place(&head, &batch.before) {
            return Err(Stopped::Conflict);
        }
        let Writer { conn, streams, ledger, fresh, .. } = self;
        // Not within a batch: where its own receipts end is known from here only.
        if streams.len() >= STREAMS_CACHED {
            streams.clear();
        }
        // Nobody waits: only this thread ever asks for it alone.
        let fresh = finds::shared(fresh);
        let fence = Fence { conn, ledger: *ledger, fresh: &fresh };
        fence.check_keys(batch)?;
        insert_entries(&fence, streams, batch)?;
        let moved = finds::move_some(conn, &fresh, names(batch).count())?;
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
        conn.prepare_cached("UPDATE head SET size = ?1, root = ?2, at = ?3, indexed = ?4")?
            .execute(params![
                after.size.cast_signed(),
                &after.root.0[..],
                after.at.0,
                fresh.indexed_after(moved).cast_signed()
            ])?;
        Ok(moved)
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

/// The names of a batch, with the positions that they lead to.
fn names(batch: &Batch) -> impl Iterator<Item = (Name, u64)> {
    let placed = batch.entries.iter().zip(batch.before.size + 1..);
    placed.flat_map(|(entry, pos)| {
        [Some(entry.sealed.id.0), entry.key].into_iter().flatten().map(move |name| (name, pos))
    })
}

/// What keeps a place, an id or a key from being given twice (INV-7). No constraint of the database
/// does: the index is behind.
struct Fence<'a> {
    conn: &'a Connection,
    ledger: LedgerId,
    fresh: &'a Fresh,
}

impl Fence<'_> {
    fn is_taken(&self, name: &Name) -> rusqlite::Result<bool> {
        Ok(self.fresh.get(name).is_some() || finds::indexed(self.conn, name)?.is_some())
    }

    fn check_keys(&self, batch: &Batch) -> Result<(), Stopped> {
        let mut keys: Vec<_> = batch.entries.iter().filter_map(|entry| entry.key).collect();
        keys.sort_unstable();
        if keys.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(Stopped::Conflict);
        }
        for key in &keys {
            if self.is_taken(key)? {
                return Err(Stopped::Conflict);
            }
        }
        Ok(())
    }

    /// Takes the place, which must be the first free one, and the id, which must be the place's.
    /// A place behind a gap would be free and yet hide what comes later in the gap, and another id
    /// would never be found.
    fn take_place(&self, sealed: &Sealed, end: &mut Option<u64>) -> Result<(), Stopped> {
        let place = |seq| finds::place(&self.ledger, &sealed.stream, seq);
        let name = place(sealed.seq);
        let is_next = match (*end, sealed.seq.checked_sub(1)) {
            (Some(end), _) => sealed.seq == end,
            (None, None) => !self.is_taken(&name)?,
            (None, Some(last)) => !self.is_taken(&name)? && self.is_taken(&place(last))?,
        };
        if !is_next || sealed.id.0 != name {
            return Err(Stopped::Conflict);
        }
        *end = Some(sealed.seq + 1);
        Ok(())
    }
}

fn insert_entries(
    fence: &Fence<'_>,
    streams: &mut HashMap<StreamName, Known>,
    batch: &Batch,
) -> Result<(), Stopped> {
    let conn = fence.conn;
    let mut receipt = conn.prepare_cached(
        "INSERT INTO receipts (pos, stream, seq, id, hash, chain_hash, core)
        VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
    )?;
    let mut open = conn.prepare_cached("INSERT INTO attempts (id, pos) VALUES (?1, ?2)")?;
    let mut settle = conn.prepare_cached("DELETE FROM attempts WHERE id = ?1")?;
    let mut pos = batch.before.size.cast_signed();
    for entry in &batch.entries {
        pos += 1;
        let sealed = &entry.sealed;
        let (id, seq) = (&sealed.id.0[..], sealed.seq.cast_signed());
        let known = known_stream(conn, streams, &sealed.stream)?;
        fence.take_place(sealed, &mut known.end)?;
        let (hash, chain_hash) = (&sealed.hash.0[..], &sealed.chain_hash.0[..]);
        receipt.execute(params![
            pos,
            known.number,
            seq,
            id,
            hash,
            chain_hash,
            Text(&sealed.core)
        ])?;
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
    streams: &mut HashMap<StreamName, Known>,
    name: &StreamName,
) -> rusqlite::Result<i64> {
    known_stream(conn, streams, name).map(|known| known.number)
}

fn known_stream<'a>(
    conn: &Connection,
    streams: &'a mut HashMap<StreamName, Known>,
    name: &StreamName,
) -> rusqlite::Result<&'a mut Known> {
    if !streams.contains_key(name) {
        let number = conn
            .prepare_cached("SELECT no FROM streams WHERE name = ?1")?
            .query_row([name.as_str()], |row| row.get(0))
            .optional()?;
        let known = match number {
            Some(number) => Known { number, end: None },
            None => {
                let mut insert = conn.prepare_cached("INSERT INTO streams (name) VALUES (?1)")?;
                Known { number: insert.insert([name.as_str()])?, end: Some(0) }
            }
        };
        streams.insert(name.clone(), known);
    }
    streams.get_mut(name).ok_or(rusqlite::Error::QueryReturnedNoRows)
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

/// A position or an open attempt that exists already.
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
        schema::create(&mut conn, None).unwrap();
        let ledger = schema::identity(&conn).unwrap().ledger;
        Writer::new(conn, ledger, Arc::new(RwLock::new(Fresh::new(0))))
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

            let mut writer = Writer::new(writer.conn, writer.ledger, writer.fresh);
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
