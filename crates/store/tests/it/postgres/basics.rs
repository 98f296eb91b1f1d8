//! The port's promises with one writer and with several.

use engine::ports::Durability;
use engine::ports::Store;
use testkit::store::shared::{Load, run};
use testkit::store::{conformance, shared};

use super::{MISSING, cluster, connect, intact, writers};

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

#[test]
fn writers_on_hot_streams_make_one_chain() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let (database, writers) = writers(&cluster, 8);
    let started = std::time::Instant::now();
    let tally = run(&writers, Load { each: 1_000, batch: 50, others: 4 });
    println!("{tally:?} in {} ms", started.elapsed().as_millis());
    assert_eq!(intact(&cluster, &database), tally.receipts as u64);
}
