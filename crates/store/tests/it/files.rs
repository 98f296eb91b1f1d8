//! Opening: what is accepted, what is reported, what is refused (INV-18).

use std::path::Path;

use engine::ports::Store;
use ledger::head::SLOT_BYTES;
use rusqlite::Connection;
use store::{OpenError, Opened, Options, Reader, SqliteStore, Synchronous};

use crate::author::{Author, everything, note, open, stream, verify};

fn try_open(dir: &Path) -> Result<SqliteStore, OpenError> {
    SqliteStore::open(dir, &Options { synchronous: Synchronous::Full })
}

fn refusal(dir: &Path) -> OpenError {
    match try_open(dir) {
        Ok(_) => panic!("was opened"),
        Err(error) => error,
    }
}

/// A closed ledger of `batches` times two receipts.
fn closed(dir: &Path, batches: usize) {
    let store = open(dir);
    let mut author = Author::of(&store);
    for _ in 0..batches {
        author.append(&store, &[(&stream("a"), note()), (&stream("b"), note())]);
    }
}

fn shell(dir: &Path, sql: &str) {
    Connection::open(dir.join("ledger.db")).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn reopening_keeps_everything_and_closing_leaves_no_log() {
    let dir = tempfile::tempdir().unwrap();
    let new = open(dir.path());
    assert_eq!(new.opened(), Opened { created: true, head_rewritten: false, wal_recovered: false });
    let mut author = Author::of(&new);
    author.append(&new, &[(&stream("a"), note())]);
    let before = (everything(&new), new.identity().ledger, new.head().unwrap());
    drop(new);
    assert!(!dir.path().join("ledger.db-wal").exists());

    let old = open(dir.path());
    assert_eq!(
        old.opened(),
        Opened { created: false, head_rewritten: false, wal_recovered: false }
    );
    assert_eq!((everything(&old), old.identity().ledger, old.head().unwrap()), before);
    author.append(&old, &[(&stream("a"), note())]);
    drop(old);
    assert_eq!(verify(dir.path()), 2);
}

#[test]
fn one_writer_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path());
    assert!(matches!(refusal(dir.path()), OpenError::Locked));
    drop(store);
    assert!(try_open(dir.path()).is_ok());
}

#[test]
fn a_process_that_died_loses_nothing() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(dir.path());
    let mut author = Author::of(&store);
    for _ in 0..20 {
        author.append(&store, &[(&stream("a"), note())]);
    }
    // What the disk holds at this moment is what a killed process would leave.
    for file in ["ledger.db", "ledger.db-wal", "ledger.head"] {
        std::fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
    }
    let left = open(copy.path());
    assert!(left.opened().wal_recovered && !left.opened().created);
    assert_eq!(everything(&left), everything(&store));
}

/// A database that is not where its log is: SQLite would delete the log on the first look.
#[test]
fn a_log_without_its_database_is_left_alone() {
    let (dir, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let store = open(dir.path());
    let mut author = Author::of(&store);
    for _ in 0..20 {
        author.append(&store, &[(&stream("a"), note())]);
    }
    for file in ["ledger.db", "ledger.db-wal", "ledger.head"] {
        std::fs::copy(dir.path().join(file), copy.path().join(file)).unwrap();
    }
    let (path, head) = (copy.path().join("ledger.db"), copy.path().join("ledger.head"));
    let away = dir.path().join("away");
    let log = std::fs::read(copy.path().join("ledger.db-wal")).unwrap();
    let log_is_there = || std::fs::read(copy.path().join("ledger.db-wal")).unwrap() == log;
    std::fs::rename(&path, &away).unwrap();

    let refused = refusal(copy.path());
    assert!(matches!(refused, OpenError::DatabaseGone { counted: 20, .. }), "{refused}");
    assert!(log_is_there() && !path.exists(), "nothing is made or removed");
    std::fs::write(&path, b"").unwrap();
    assert!(matches!(refusal(copy.path()), OpenError::DatabaseGone { counted: 20, .. }));
    assert!(log_is_there());
    // The log alone is reason enough.
    let record = std::fs::read(&head).unwrap();
    std::fs::remove_file(&head).unwrap();
    assert!(matches!(refusal(copy.path()), OpenError::DatabaseGone { counted: 0, .. }));
    assert!(log_is_there() && !head.exists());

    std::fs::write(&head, record).unwrap();
    std::fs::rename(&away, &path).unwrap();
    assert_eq!(everything(&open(copy.path())), everything(&store));
}

#[test]
fn a_creation_that_was_cut_short_is_completed() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("ledger.db"), b"").unwrap();
    let store = open(dir.path());
    assert!(store.opened().created);
    drop(store);

    std::fs::remove_file(dir.path().join("ledger.head")).unwrap();
    let store = open(dir.path());
    assert!(!store.opened().created && !store.opened().head_rewritten);
}

#[test]
fn a_truncated_table_is_found() {
    let dir = tempfile::tempdir().unwrap();
    closed(dir.path(), 3);
    let whole = std::fs::read(dir.path().join("ledger.db")).unwrap();

    shell(dir.path(), "DELETE FROM receipts WHERE pos > 4");
    assert!(matches!(refusal(dir.path()), OpenError::Truncated { have: 4, expected: 6 }));

    // Somebody who also knows of the head in the table.
    let root = {
        let reader = Reader::open(dir.path()).unwrap();
        let mut head = ledger::HeadRecord::empty(reader.ledger());
        reader
            .for_each(None, &mut |row| {
                head = head.after(row.hash, head.at);
                std::ops::ControlFlow::Continue(())
            })
            .unwrap();
        head.root
    };
    shell(dir.path(), &format!("UPDATE head SET size = 4, root = x'{root}'"));
    assert!(matches!(refusal(dir.path()), OpenError::Truncated { have: 4, expected: 6 }));

    std::fs::write(dir.path().join("ledger.db"), b"").unwrap();
    for _ in 0..2 {
        assert!(matches!(refusal(dir.path()), OpenError::DatabaseGone { counted: 6, .. }));
    }
    std::fs::write(dir.path().join("ledger.db"), whole).unwrap();
    assert!(try_open(dir.path()).is_ok(), "nothing was spoilt by looking");
}

#[test]
fn rows_behind_the_head_are_found() {
    let dir = tempfile::tempdir().unwrap();
    closed(dir.path(), 1);
    shell(
        dir.path(),
        "INSERT INTO receipts SELECT 3, stream, 9, zeroblob(16), hash, chain_hash, core
        FROM receipts WHERE pos = 1",
    );
    assert!(matches!(refusal(dir.path()), OpenError::Altered { .. }));
}

#[test]
fn a_lost_head_file_is_reported_and_written_again() {
    let dir = tempfile::tempdir().unwrap();
    closed(dir.path(), 3);
    let path = dir.path().join("ledger.head");
    let good = std::fs::read(&path).unwrap();
    let lose: [&dyn Fn(); 3] = [
        &|| std::fs::remove_file(&path).unwrap(),
        &|| std::fs::write(&path, b"").unwrap(),
        &|| std::fs::write(&path, vec![b'x'; 2 * SLOT_BYTES]).unwrap(),
    ];
    for lose in lose {
        lose();
        assert!(open(dir.path()).opened().head_rewritten);
        assert!(!open(dir.path()).opened().head_rewritten, "once");
        assert_eq!(verify(dir.path()), 6);
    }
    std::fs::write(&path, good).unwrap();
    assert!(!open(dir.path()).opened().head_rewritten);
}

/// Killed, or without power, before the head file counts the first receipt.
#[test]
fn a_head_file_of_the_ledger_before_its_first_receipt_is_not_lost() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let [path, foreign] = [&dir, &other].map(|dir| {
        drop(open(dir.path()));
        dir.path().join("ledger.head")
    });
    let blank = std::fs::read(&path).unwrap();
    closed(dir.path(), 3);
    std::fs::write(&path, blank).unwrap();
    assert!(!open(dir.path()).opened().head_rewritten);
    std::fs::copy(foreign, &path).unwrap();
    assert!(open(dir.path()).opened().head_rewritten, "that of another ledger says nothing");
}

#[test]
fn an_older_head_record_is_a_valid_prefix() {
    let dir = tempfile::tempdir().unwrap();
    closed(dir.path(), 3);
    let path = dir.path().join("ledger.head");
    let old = std::fs::read(&path).unwrap();
    {
        let store = open(dir.path());
        let mut author = Author::of(&store);
        for _ in 0..5 {
            author.append(&store, &[(&stream("a"), note())]);
        }
    }
    std::fs::write(&path, &old).unwrap();
    assert!(!open(dir.path()).opened().head_rewritten);
    assert_eq!(verify(dir.path()), 11);

    // The same record over a table whose newer rows were changed.
    std::fs::write(&path, &old).unwrap();
    shell(dir.path(), "UPDATE receipts SET hash = zeroblob(32) WHERE pos = 9");
    assert!(matches!(refusal(dir.path()), OpenError::Altered { .. }));
}

#[test]
fn one_torn_slot_leaves_the_other() {
    for torn in 0..2 {
        let dir = tempfile::tempdir().unwrap();
        closed(dir.path(), 3);
        let path = dir.path().join("ledger.head");
        let mut head = std::fs::read(&path).unwrap();
        assert_eq!(head.len(), 2 * SLOT_BYTES);
        head[torn * SLOT_BYTES + 30] ^= 1;
        std::fs::write(&path, head).unwrap();
        assert!(!open(dir.path()).opened().head_rewritten, "slot {torn}");
        assert_eq!(verify(dir.path()), 6);
    }
}

#[test]
fn files_of_others_are_refused() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    closed(dir.path(), 1);
    closed(other.path(), 1);
    let head = |dir: &Path| dir.join("ledger.head");
    std::fs::copy(head(other.path()), head(dir.path())).unwrap();
    assert!(matches!(refusal(dir.path()), OpenError::Altered { .. }));

    for version in [1, 3] {
        shell(other.path(), &format!("PRAGMA user_version = {version}"));
        let refused = refusal(other.path());
        assert!(matches!(refused, OpenError::Format { found, known: 2 } if found == version));
    }

    let foreign = tempfile::tempdir().unwrap();
    shell(foreign.path(), "CREATE TABLE t (x)");
    assert!(matches!(refusal(foreign.path()), OpenError::Foreign));
    std::fs::write(foreign.path().join("ledger.db"), vec![b'x'; 8192]).unwrap();
    assert!(matches!(refusal(foreign.path()), OpenError::Sql { .. }));

    let empty = tempfile::tempdir().unwrap();
    assert!(matches!(Reader::open(empty.path()), Err(OpenError::Missing)));
}

#[test]
fn only_the_owner_reads_the_files() {
    use std::os::unix::fs::PermissionsExt;
    let parent = tempfile::tempdir().unwrap();
    let dir = parent.path().join("ledger");
    let store = open(&dir);
    Author::of(&store).append(&store, &[(&stream("a"), note())]);
    for file in ["", "ledger.db", "ledger.db-wal", "ledger.head"] {
        let mode = std::fs::metadata(dir.join(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0, "{file:?} is {mode:o}");
    }
}

#[test]
fn the_view_for_people_reads_like_a_receipt() {
    let dir = tempfile::tempdir().unwrap();
    closed(dir.path(), 1);
    let conn = Connection::open(dir.path().join("ledger.db")).unwrap();
    let line: String = conn
        .query_row(
            "SELECT pos || ' ' || stream || ' ' || seq || ' ' || type || ' ' || action || ' '
            || state_from || ' ' || state_to || ' ' || ifnull(reason, '-') || ' ' || length(hash)
            FROM readable WHERE pos = 2",
            [],
            |row| row.get(0),
        )
        .unwrap();
    assert_eq!(line, "2 b 0 transition grant unentitled entitled - 64");
}
