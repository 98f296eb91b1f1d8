//! Signals that wait on this machine while a shared store is away: the Inbox port on SQLite.
//!
//! Owns: one file with one table. Refuses to know: what a signal says, and when it is decided.

use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::ports::{Inbox, Queued, ReadError};
use rusqlite::{Connection, params};

use crate::{OpenError, files, rows};

/// The file in the directory that is given.
const FILE: &str = "signals.db";

/// FULL makes a commit wait for the disk, as the answer to whoever delivered promises.
const SETUP: &str = "
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS signals (
    no    INTEGER PRIMARY KEY AUTOINCREMENT,
    push  BLOB NOT NULL,
    actor TEXT NOT NULL
) STRICT;";

/// The Inbox port on SQLite.
pub struct SqliteInbox(Mutex<Connection>);

impl SqliteInbox {
    /// Opens the inbox in `dir`, creating both where they are missing.
    ///
    /// # Errors
    /// When a file cannot be created, or is no inbox.
    pub fn open(dir: &Path) -> Result<SqliteInbox, OpenError> {
        files::create_dir(dir)?;
        let path = dir.join(FILE);
        drop(files::create_file(&path)?);
        files::sync_dir(dir).map_err(OpenError::io("sync the spool directory"))?;
        let open = || {
            let conn = Connection::open(&path)?;
            conn.execute_batch(SETUP)?;
            Ok(conn)
        };
        let conn = open().map_err(OpenError::sql("open the signals that wait"))?;
        Ok(SqliteInbox(Mutex::new(conn)))
    }

    fn conn(&self) -> MutexGuard<'_, Connection> {
        // A panic inside rolls its transaction back.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
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
            tx.commit()
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

    fn remove(&self, numbers: &[i64]) -> Result<(), ReadError> {
        self.with(|conn| {
            let tx = conn.transaction()?;
            for number in numbers {
                tx.prepare_cached("DELETE FROM signals WHERE no = ?1")?.execute([number])?;
            }
            tx.commit()
        })
    }

    fn waiting(&self) -> Result<i64, ReadError> {
        self.with(|conn| conn.query_row("SELECT count(*) FROM signals", [], |row| row.get(0)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queued(nth: u8) -> Queued {
        Queued { push: vec![nth, 0, b'\''], actor: format!("key {nth}") }
    }

    #[test]
    fn signals_wait_in_order_and_survive_the_process() {
        let dir = tempfile::tempdir().unwrap();
        let inbox = SqliteInbox::open(dir.path()).unwrap();
        inbox.put(&[queued(1), queued(2)]).unwrap();
        inbox.put(&[queued(3)]).unwrap();
        drop(inbox);
        let inbox = SqliteInbox::open(dir.path()).unwrap();
        assert_eq!(inbox.waiting().unwrap(), 3);
        let first = inbox.first(2).unwrap();
        let bodies: Vec<_> = first.iter().map(|(_, signal)| signal.clone()).collect();
        assert_eq!(bodies, [queued(1), queued(2)]);
        inbox.remove(&[first[0].0]).unwrap();
        let left: Vec<_> = inbox.first(9).unwrap().into_iter().map(|(_, signal)| signal).collect();
        assert_eq!(left, [queued(2), queued(3)]);
        // A number is never given twice, so that nothing new is removed for something old.
        inbox.remove(&[first[1].0, 3]).unwrap();
        inbox.put(&[queued(4)]).unwrap();
        assert_eq!(inbox.first(1).unwrap()[0].0, 4);
    }

    #[test]
    fn a_file_that_is_no_inbox_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), [7; 8192]).unwrap();
        assert!(matches!(SqliteInbox::open(dir.path()), Err(OpenError::Sql { .. })));
    }
}
