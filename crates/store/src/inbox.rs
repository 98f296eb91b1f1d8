//! Signals that wait on this machine while a shared store is away: the Inbox port on SQLite.
//!
//! Owns: one file for each ledger, with those that wait and those that were set aside. Refuses to
//! know: what a signal says, and when it is decided.

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::ports::{Inbox, Queued, ReadError};
use ledger::LedgerId;
use rusqlite::{Connection, params};

use crate::{OpenError, files, rows};

/// FULL makes a commit wait for the disk, as the answer to whoever delivered promises.
const SETUP: &str = "
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS signals (
    no    INTEGER PRIMARY KEY AUTOINCREMENT,
    push  BLOB NOT NULL,
    actor TEXT NOT NULL
) STRICT;
CREATE TABLE IF NOT EXISTS set_aside (
    no     INTEGER PRIMARY KEY,
    push   BLOB NOT NULL,
    actor  TEXT NOT NULL,
    reason TEXT NOT NULL
) STRICT;";

/// The Inbox port on SQLite.
pub struct SqliteInbox {
    conn: Mutex<Connection>,
    waiting: AtomicU64,
}

impl SqliteInbox {
    /// Opens the inbox of `ledger` in `dir`, creating both where they are missing. Each ledger has
    /// its own: what was said to one is not decided for another.
    ///
    /// # Errors
    /// When a file cannot be created, or is no inbox.
    pub fn open(dir: &Path, ledger: LedgerId) -> Result<SqliteInbox, OpenError> {
        files::create_dir(dir)?;
        let path = dir.join(format!("signals-{ledger}.db"));
        drop(files::create_file(&path)?);
        files::sync_dir(dir).map_err(OpenError::io("sync the spool directory"))?;
        let open = || {
            let conn = Connection::open(&path)?;
            conn.execute_batch(SETUP)?;
            let waiting: i64 =
                conn.query_row("SELECT count(*) FROM signals", [], |row| row.get(0))?;
            Ok((conn, waiting.cast_unsigned()))
        };
        let (conn, waiting) = open().map_err(OpenError::sql("open the signals that wait"))?;
        Ok(SqliteInbox { conn: Mutex::new(conn), waiting: AtomicU64::new(waiting) })
    }

    fn conn(&self) -> MutexGuard<'_, Connection> {
        // A panic inside rolls its transaction back.
        self.conn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(
        &self,
        work: impl FnOnce(&mut Connection) -> rusqlite::Result<T>,
    ) -> Result<T, ReadError> {
        work(&mut self.conn()).map_err(|error| rows::read_error(&error))
    }
}

impl Inbox for SqliteInbox {
    fn put(&self, signals: &[Queued]) -> Result<(), ReadError> {
        self.with(|conn| {
            let tx = conn.transaction()?;
            for Queued { push, actor } in signals {
                tx.prepare_cached("INSERT INTO signals (push, actor) VALUES (?1, ?2)")?
                    .execute(params![push, actor])?;
            }
            tx.commit()?;
            // While nobody else looks: a signal that is seen is counted.
            self.waiting.fetch_add(signals.len() as u64, Ordering::AcqRel);
            Ok(())
        })
    }

    fn first(&self, limit: usize) -> Result<Vec<(i64, Queued)>, ReadError> {
        self.with(|conn| {
            let mut select =
                conn.prepare_cached("SELECT no, push, actor FROM signals ORDER BY no LIMIT ?1")?;
            let queued = select.query_map([i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
                Ok((row.get(0)?, Queued { push: row.get(1)?, actor: row.get(2)? }))
            })?;
            queued.collect()
        })
    }

    fn settle(&self, decided: &[i64], set_aside: &[(i64, &'static str)]) -> Result<(), ReadError> {
        self.with(|conn| {
            let tx = conn.transaction()?;
            for (number, reason) in set_aside {
                tx.prepare_cached(
                    "INSERT INTO set_aside SELECT no, push, actor, ?2 FROM signals WHERE no = ?1",
                )?
                .execute(params![number, reason])?;
            }
            let mut gone = 0;
            for number in decided.iter().chain(set_aside.iter().map(|(number, _)| number)) {
                gone +=
                    tx.prepare_cached("DELETE FROM signals WHERE no = ?1")?.execute([number])?;
            }
            tx.commit()?;
            // Those that were there: whoever was disturbed settles some of them again.
            self.waiting.fetch_sub(gone as u64, Ordering::AcqRel);
            Ok(())
        })
    }

    fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queued(nth: u8) -> Queued {
        Queued { push: vec![nth, 0, b'\''], actor: format!("key {nth}") }
    }

    const LEDGER: LedgerId = LedgerId([7; 16]);

    fn first(inbox: &SqliteInbox) -> Vec<Queued> {
        inbox.first(9).unwrap().into_iter().map(|(_, signal)| signal).collect()
    }

    #[test]
    fn signals_wait_in_order_and_survive_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let open = || SqliteInbox::open(dir.path(), LEDGER).unwrap();
        let inbox = open();
        inbox.put(&[queued(1), queued(2)]).unwrap();
        inbox.put(&[queued(3), queued(4)]).unwrap();
        drop(inbox);
        let inbox = open();
        assert_eq!(inbox.waiting(), 4);
        assert_eq!(first(&inbox), [1, 2, 3, 4].map(queued));
        assert_eq!(inbox.first(1).unwrap()[0].1, queued(1));
        inbox.settle(&[1], &[(3, "invalid_field")]).unwrap();
        assert_eq!((inbox.waiting(), first(&inbox)), (2, [2, 4].map(queued).to_vec()));
        inbox.settle(&[1], &[(3, "invalid_field")]).unwrap();
        assert_eq!(inbox.waiting(), 2, "those were settled before");
        let kept = "SELECT no, reason FROM set_aside";
        let kept = inbox.conn().query_row(kept, [], |row| Ok((row.get(0)?, row.get(1)?)));
        assert_eq!(kept, Ok((3_i64, "invalid_field".to_owned())));
        // A number is never given twice, so that nothing new is removed for something old.
        inbox.settle(&[2, 4], &[]).unwrap();
        inbox.put(&[queued(5)]).unwrap();
        assert_eq!(inbox.first(1).unwrap()[0].0, 5);
    }

    #[test]
    fn each_ledger_has_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let open = |ledger| SqliteInbox::open(dir.path(), LedgerId([ledger; 16])).unwrap();
        open(1).put(&[queued(1)]).unwrap();
        assert_eq!((open(1).waiting(), open(2).waiting()), (1, 0));
    }

    #[test]
    fn a_file_that_is_no_inbox_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(format!("signals-{LEDGER}.db")), [7; 8192]).unwrap();
        let opened = SqliteInbox::open(dir.path(), LEDGER);
        assert!(matches!(opened, Err(OpenError::Sql { .. })));
    }
}
