//! The port's promises with one writer and with several.

use std::cell::Cell;

use engine::ports::{Durability, Store};
use store::postgres::PgStore;
use testkit::store::{conformance, shared};

use super::{MISSING, cluster, options, writers};

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
