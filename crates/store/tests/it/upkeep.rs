//! The write-ahead log: emptied in passing, and bounded.

use std::path::Path;

use engine::ports::{AppendError, Store};
use store::{Options, SqliteStore, Synchronous};

use crate::author::{Author, everything, note, open, stream, verify};

fn bytes(dir: &Path, file: &str) -> u64 {
    dir.join(file).metadata().unwrap().len()
}

/// Appends a receipt and a snapshot of so many bytes: one batch that fills the log.
fn append(store: &dyn Store, author: &mut Author, state_bytes: usize) {
    let name = stream("a");
    let mut batch = author.batch(&[(&name, note())]);
    batch.snapshots = vec![author.snapshot(&name, &vec![7; state_bytes])];
    store.append(&batch).unwrap();
}

#[test]
fn upkeep_moves_pages_when_there_are_enough() {
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), &Options { synchronous: Synchronous::Off }).unwrap();
    let mut author = Author::of(&store);
    store.maintain();
    let small = bytes(dir.path(), "ledger.db");
    append(&store, &mut author, 1 << 20);
    store.maintain();
    assert_eq!(bytes(dir.path(), "ledger.db"), small, "256 pages are not worth it");
    append(&store, &mut author, 9 << 20);
    store.maintain();
    assert!(bytes(dir.path(), "ledger.db") > small + (8 << 20));
    assert_eq!(everything(&store).len(), 2);
}

#[test]
fn the_log_is_started_over_when_it_is_too_large() {
    const LIMIT_BYTES: u64 = 256 << 20;
    let dir = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(dir.path(), &Options { synchronous: Synchronous::Off }).unwrap();
    let mut author = Author::of(&store);
    while bytes(dir.path(), "ledger.db-wal") <= LIMIT_BYTES {
        append(&store, &mut author, 48 << 20);
    }
    store.maintain();
    append(&store, &mut author, 1 << 20);
    assert!(bytes(dir.path(), "ledger.db-wal") <= LIMIT_BYTES, "started over and given back");
    let receipts = author.head.size;
    assert_eq!(verify(dir.path()), receipts);
}

/// Receipts written into a file that no later process opens are not durable.
#[test]
fn files_that_vanish_stop_the_writer_and_lose_nothing() {
    for name in ["ledger.db", "ledger.db-wal"] {
        for replaced in [false, true] {
            let dir = tempfile::tempdir().unwrap();
            let store = open(dir.path());
            let mut author = Author::of(&store);
            append(&store, &mut author, 1 << 10);
            store.maintain();
            append(&store, &mut author, 1 << 10);
            let kept = everything(&store);

            let (path, away) = (dir.path().join(name), dir.path().join("away"));
            std::fs::rename(&path, &away).unwrap();
            if replaced {
                std::fs::copy(&away, &path).unwrap();
            }
            store.maintain();
            let outcome = store.append(&author.clone().batch(&[(&stream("a"), note())]));
            assert!(matches!(outcome, Err(AppendError::Fatal(_))), "{name} {replaced}");
            drop(store);

            std::fs::rename(&away, &path).unwrap();
            assert_eq!(everything(&open(dir.path())), kept, "{name} {replaced}");
        }
    }
}

#[test]
fn upkeep_in_memory_is_nothing() {
    let store = SqliteStore::memory().unwrap();
    let mut author = Author::of(&store);
    append(&store, &mut author, 1 << 20);
    store.maintain();
    assert_eq!(everything(&store).len(), 1);
}
