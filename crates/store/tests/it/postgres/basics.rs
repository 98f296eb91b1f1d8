//! The port's promises with one writer and with several.

use std::cell::Cell;

use engine::ports::{Durability, Store};
use store::postgres::PgStore;
use testkit::store::author::{Author, is_conflict, note, stream};
use testkit::store::{conformance, shared};

use super::{MISSING, cluster, connect, intact, options, writers};

#[test]
fn postgres_conforms() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let database = cluster.database().unwrap();
    let count = Cell::new(0);
    conformance::suite(&|| {
        // A schema of its own is as good as a database, and made faster.
        count.set(count.get() + 1);
        let schema = format!("ledger_{}", count.get());
        cluster.sql(&database, &format!("CREATE SCHEMA {schema}")).unwrap();
        let url = format!("{} options='-c search_path={schema}'", cluster.socket_url(&database));
        let store = PgStore::connect(&options(url)).unwrap();
        assert_eq!((store.backend(), store.durability()), ("postgres", Durability::Durable));
        Box::new(store)
    });
}

#[test]
fn postgres_is_shared() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    shared::suite(&|count| writers(&cluster, count).1);
}

#[test]
fn two_logs_that_give_one_place_twice_do_not_overwrite_each_other() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let database = cluster.database().unwrap();
    let a = connect(&cluster, &database);
    cluster.sql(&database, "ALTER TABLE logs ALTER COLUMN no RESTART WITH 1025").unwrap();
    let b = connect(&cluster, &database);
    assert_eq!((a.log(), b.log()), (1, 1025));
    // Both begin at the same instant.
    let (mut by_a, mut by_b) = (Author::of(&a), Author::of(&b));
    by_a.append(&a, &[(&stream("a"), note())]);
    let before = by_b.head;
    let refused = b.append(&by_b.batch(&[(&stream("b"), note())]));
    assert!(is_conflict(&refused), "{refused:?}");
    // Decided again, it has another instant.
    by_b.catch_up(&b, &[stream("b")]).unwrap();
    assert_eq!(by_b.head, before);
    by_b.append(&b, &[(&stream("b"), note())]);
    assert_eq!(intact(&cluster, &database), 2);
}
