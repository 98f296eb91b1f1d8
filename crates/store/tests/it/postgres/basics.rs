//! The port's promises with one writer and with several.

use engine::ports::Durability;
use engine::ports::Store;
use testkit::store::{conformance, shared};

use super::{MISSING, cluster, connect, writers};

#[test]
fn postgres_conforms() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    conformance::suite(&|| {
        let store = connect(&cluster, &cluster.database().unwrap());
        assert_eq!((store.backend(), store.durability()), ("postgres", Durability::Durable));
        Box::new(store)
    });
}

#[test]
fn postgres_is_shared() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    shared::suite(&|count| writers(&cluster, count).1);
}
