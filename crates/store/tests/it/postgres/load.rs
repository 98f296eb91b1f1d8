//! Eight writers under load, undisturbed and disturbed: nothing acknowledged is lost, nothing is
//! there twice, and the ledger verifies.
//!
//! `LEDGER_LOAD` is the number of receipts that each writer of the undisturbed load gets
//! acknowledged; 10 000 without it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use engine::ports::Store;
use store::postgres::PgStore;
use testkit::postgres::Cluster;
use testkit::store::StopOnDrop;
use testkit::store::author::{Author, keyed, note, stream};
use testkit::store::shared::{Load, Tally, check_all_there, run};

use super::proxy::{Fault, Proxy};
use super::{MISSING, cluster, options, writers};

const WRITERS: usize = 8;

#[expect(clippy::print_stdout, reason = "the figures of a load are for whoever runs it")]
fn timed(writers: &[Box<dyn Store>], load: Load) -> Tally {
    let started = Instant::now();
    let tally = run(writers, load);
    println!("{tally:?} in {} ms", started.elapsed().as_millis());
    tally
}

/// All that was acknowledged, once, in chains and logs that verify.
fn check(cluster: &Cluster, database: &str, store: &dyn Store, load: Load, tally: &Tally) {
    check_all_there(store, WRITERS, load);
    assert_eq!(tally.receipts, WRITERS * load.each);
    assert_eq!(super::intact(cluster, database), tally.receipts as u64);
}

#[test]
fn eight_writers_make_one_chain() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let (database, writers) = writers(&cluster, WRITERS);
    let each = std::env::var_os("LEDGER_LOAD").map_or(10_000, |count| {
        count.to_str().and_then(|count| count.parse().ok()).expect("LEDGER_LOAD is a number")
    });
    let load = Load { each, batch: 50, others: 4 };
    let tally = timed(&writers, load);
    assert_eq!((tally.unavailable, tally.unknown), (0, 0));
    assert!(tally.lost > 0, "nobody lost a race");
    check(&cluster, &database, &*writers[0], load, &tally);
}

/// Prints what one writer and the server do on this machine; what is asserted is that it is kept.
#[test]
fn one_stream_takes_batch_after_batch() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    for (batch, count) in [(64, 200), (512, 50)] {
        let (database, writers) = writers(&cluster, 1);
        let (store, name) = (&*writers[0], stream("tenant"));
        let mut author = Author::of(store);
        // Sealed before: sealing is not the store's work.
        let batches: Vec<_> = (0..count)
            .map(|nth| {
                let draft = |n: usize| keyed(note(), ((nth * batch + n) as u128).to_be_bytes());
                let drafts: Vec<_> = (0..batch).map(|n| (&name, draft(n))).collect();
                author.batch(&drafts)
            })
            .collect();
        let started = Instant::now();
        batches.iter().for_each(|batch| store.append(batch).unwrap());
        let took = started.elapsed();
        let rate = (batch * count) as f64 / took.as_secs_f64();
        println!("batches of {batch}: {rate:.0} receipts a second, {:?} each", took / count as u32);
        assert_eq!(super::intact(&cluster, &database), (batch * count) as u64);
    }
}

#[test]
fn one_hot_stream_alone_is_one_chain() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let (database, writers) = writers(&cluster, WRITERS);
    let load = Load { each: 500, batch: 25, others: 0 };
    let tally = timed(&writers, load);
    check(&cluster, &database, &*writers[0], load, &tally);
}

#[test]
fn one_call_in_ten_of_unknown_outcome_loses_and_doubles_nothing() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let database = cluster.database().unwrap();
    let proxy = Proxy::new(cluster.port(), |number| match number % 30 {
        7 => Some(Fault::Lost),
        17 => Some(Fault::Unanswered),
        27 => Some(Fault::Cut),
        _ => None,
    });
    let connect = || PgStore::connect(&options(proxy.url(&database))).unwrap();
    let writers: Vec<Box<dyn Store>> =
        (0..WRITERS).map(|_| Box::new(connect()) as Box<dyn Store>).collect();
    let load = Load { each: 1_000, batch: 20, others: 4 };
    let tally = timed(&writers, load);
    assert!(proxy.faults() > 40, "{} faults", proxy.faults());
    assert!(tally.unavailable > 0, "what was lost is unavailable");
    check(&cluster, &database, &*writers[0], load, &tally);
}

/// Disturbs a server of its own while writers load it.
fn disturbed(cluster: &Cluster, load: Load, disturb: impl Fn(&str) + Sync) -> Tally {
    let (database, writers) = writers(cluster, WRITERS);
    let done = AtomicBool::new(false);
    let tally = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Acquire) {
                disturb(&database);
            }
        });
        let _stopping = StopOnDrop(&done);
        timed(&writers, load)
    });
    check(cluster, &database, &*writers[0], load, &tally);
    tally
}

#[test]
fn connections_that_are_killed_at_any_moment_lose_and_double_nothing() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let kill = |database: &str| {
        let sql = format!(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'
                AND application_name LIKE '%writer' AND state = 'active' LIMIT 2"
        );
        let _ = cluster.sql("postgres", &sql);
        // The pace of the kills; nothing is waited for.
        std::thread::sleep(Duration::from_millis(10));
    };
    disturbed(&cluster, Load { each: 1_000, batch: 20, others: 4 }, kill);
}

#[test]
fn a_server_that_is_killed_under_load_loses_nothing_acknowledged() {
    let Some(cluster) = Cluster::start().unwrap() else { testkit::skip!(MISSING) };
    let kill = |_: &str| {
        // How long a life of the server lasts; nothing is waited for.
        std::thread::sleep(Duration::from_millis(700));
        cluster.kill();
        cluster.restart().unwrap();
    };
    disturbed(&cluster, Load { each: 1_000, batch: 20, others: 4 }, kill);
}
