//! Who settles whose attempts.

use engine::ports::Store;
use testkit::store::author::{Author, attempt, result, stream};
use types::ReceiptId;

use super::{MISSING, cluster, connect};

fn open(store: &dyn Store) -> Vec<ReceiptId> {
    store.unsettled(9).unwrap().iter().map(|stored| stored.id).collect()
}

#[test]
fn attempts_of_a_writer_whose_lease_ran_out_are_everybodys() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let database = cluster.database().unwrap();
    let (a, b) = (connect(&cluster, &database), connect(&cluster, &database));
    let ids = Author::of(&a).append(&a, &[(&stream("a"), attempt()), (&stream("b"), attempt())]);
    assert_eq!((open(&a), open(&b)), (ids.clone(), vec![]));

    let end = format!("UPDATE logs SET lease_until = now() WHERE no = {}", a.log());
    cluster.sql(&database, &end).unwrap();
    assert_eq!((open(&a), open(&b)), (ids.clone(), ids.clone()));
    // Whoever was taken for dead and is not, says so; an append does too.
    Author::of(&a).append(&a, &[(&stream("a"), result(ids[0]))]);
    assert_eq!((open(&a), open(&b)), (ids[1..].to_vec(), vec![]));
}

#[test]
fn a_lease_is_renewed_by_maintenance_and_ends_with_the_store() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let database = cluster.database().unwrap();
    let (a, b) = (connect(&cluster, &database), connect(&cluster, &database));
    let ids = Author::of(&a).append(&a, &[(&stream("a"), attempt())]);
    let own = a.log();
    let left = || {
        let left = format!(
            "SELECT (extract(epoch FROM lease_until - clock_timestamp()) * 1000)::int
            FROM logs WHERE no = {own}"
        );
        cluster.sql(&database, &left).unwrap().parse::<i64>().unwrap()
    };
    assert!((5_000..=10_000).contains(&left()), "{}", left());
    cluster.sql(&database, "UPDATE logs SET lease_until = now() + interval '1 s'").unwrap();
    a.maintain();
    assert!(left() <= 1_000, "not at every call");
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(10);
    while left() <= 1_000 {
        assert!(std::time::Instant::now() < deadline, "never renewed");
        a.maintain();
    }
    assert!(left() > 5_000);
    assert!(open(&b).is_empty());
    drop(a);
    assert!(left() <= 0, "the farewell");
    assert_eq!(open(&b), ids);
}
