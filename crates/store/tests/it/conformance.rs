//! The backends on SQLite do what every backend must.

use std::cell::Cell;

use engine::ports::{Durability, Store};
use store::SqliteStore;
use testkit::store::conformance::suite;

use crate::author::open;

#[test]
fn sqlite_on_disk_conforms() {
    let dir = tempfile::tempdir().unwrap();
    let count = Cell::new(0);
    suite(&|| {
        count.set(count.get() + 1);
        let store = open(&dir.path().join(count.get().to_string()));
        assert_eq!((store.backend(), store.durability()), ("sqlite", Durability::Durable));
        Box::new(store)
    });
}

#[test]
fn sqlite_in_memory_conforms() {
    suite(&|| {
        let store = SqliteStore::memory().unwrap();
        assert_eq!((store.backend(), store.durability()), ("memory", Durability::Volatile));
        Box::new(store)
    });
}
