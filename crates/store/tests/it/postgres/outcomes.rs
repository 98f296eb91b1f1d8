//! Outcomes that nobody heard, one at a time: after each of them the store says the truth.

use std::time::{Duration, Instant};

use engine::ports::{AppendError, ReadError, Store};
use store::postgres::PgStore;
use testkit::postgres::Cluster;
use testkit::store::author::{Author, everything, note, stream};

use super::proxy::{Fault, Plan, Proxy};
use super::{MISSING, cluster, connect, intact, options};

/// A call of the port ends within this: one round trip and the settling, and a busy machine.
const CALL_MAX: Duration = Duration::from_secs(15);

struct Place {
    proxy: Proxy,
    database: String,
    store: PgStore,
}

/// A store behind a proxy that breaks by plan.
fn behind(cluster: &Cluster, plan: Plan) -> Place {
    let database = cluster.database().unwrap();
    let proxy = Proxy::new(cluster.port(), plan);
    let store = PgStore::connect(&options(proxy.url(&database))).unwrap();
    Place { proxy, database, store }
}

#[test]
fn a_statement_that_was_lost_is_unavailable_and_can_be_sent_again() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let Place { proxy, database, store } = behind(&cluster, |n| (n == 1).then_some(Fault::Lost));
    let mut author = Author::of(&store);
    author.append(&store, &[(&stream("a"), note())]);
    let batch = author.batch(&[(&stream("a"), note())]);
    assert!(matches!(store.append(&batch), Err(AppendError::Unavailable(_))));
    assert_eq!(store.head().unwrap(), batch.before);
    store.append(&batch).unwrap();
    assert_eq!(store.head().unwrap(), batch.after);
    assert_eq!((proxy.faults(), intact(&cluster, &database)), (1, 2));
}

#[test]
fn a_commit_whose_answer_was_lost_is_acknowledged() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let plan: Plan = |n| (n > 0).then_some(Fault::Unanswered);
    let Place { proxy, database, store } = behind(&cluster, plan);
    let mut author = Author::of(&store);
    for _ in 0..3 {
        author.append(&store, &[(&stream("a"), note())]);
    }
    assert_eq!(store.head().unwrap(), author.head);
    assert_eq!((proxy.faults(), intact(&cluster, &database)), (2, 3));
}

#[test]
fn a_statement_that_arrives_after_its_outcome_was_told_writes_nothing() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let Place { proxy, database, store } = behind(&cluster, |n| (n == 1).then_some(Fault::Late));
    let mut author = Author::of(&store);
    author.append(&store, &[(&stream("a"), note())]);
    let batch = author.batch(&[(&stream("a"), note())]);
    assert!(matches!(store.append(&batch), Err(AppendError::Unavailable(_))));
    proxy.release();
    assert_eq!(everything(&store).len(), 1, "told to be unwritten");
    assert_eq!(store.head().unwrap(), batch.before);
    store.append(&batch).unwrap();
    assert_eq!(intact(&cluster, &database), 2);
}

/// The test above would notice: without a new term the late statement is carried out.
#[test]
fn only_the_term_keeps_a_late_statement_out() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let Place { proxy, database, store } = behind(&cluster, |n| (n == 1).then_some(Fault::Late));
    let mut author = Author::of(&store);
    author.append(&store, &[(&stream("a"), note())]);
    let batch = author.batch(&[(&stream("a"), note())]);
    assert!(matches!(store.append(&batch), Err(AppendError::Unavailable(_))));
    assert_eq!(cluster.sql(&database, "SELECT term FROM logs").unwrap(), "2");
    cluster.sql(&database, "UPDATE logs SET term = 1").unwrap();
    proxy.release();
    assert_eq!(everything(&store).len(), 2);
}

#[test]
fn a_connection_that_is_killed_while_it_waits_for_a_lock_has_written_nothing() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let database = cluster.database().unwrap();
    let store = connect(&cluster, &database);
    let mut author = Author::of(&store);
    author.append(&store, &[(&stream("a"), note())]);
    let batch = author.batch(&[(&stream("a"), note())]);
    let outcome = std::thread::scope(|scope| {
        // Holds the stream until the writer's connection is dead.
        let holder = scope.spawn(|| {
            let sql = "DO $$ BEGIN
                PERFORM 1 FROM streams FOR UPDATE;
                FOR n IN 1..1000 LOOP
                    PERFORM pg_sleep(0.01);
                    PERFORM pg_stat_clear_snapshot();
                    PERFORM pg_terminate_backend(pid, 1000) FROM pg_stat_activity
                    WHERE query LIKE 'SELECT ledger_append%' AND wait_event_type = 'Lock'
                        AND datname = current_database();
                    EXIT WHEN FOUND;
                END LOOP;
            END $$";
            cluster.sql(&database, sql).unwrap();
        });
        while cluster.sql(&database, LOCKED).unwrap() == "0" {}
        let outcome = store.append(&batch);
        holder.join().unwrap();
        outcome
    });
    assert!(matches!(outcome, Err(AppendError::Unavailable(_))), "{outcome:?}");
    store.append(&batch).unwrap();
    assert_eq!(intact(&cluster, &database), 2);
}

const LOCKED: &str = "SELECT count(*) FROM pg_locks l JOIN pg_class c ON c.oid = l.relation
    WHERE c.relname = 'streams' AND l.mode = 'RowShareLock'
        AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())";

#[test]
fn a_server_that_hangs_leaves_an_outcome_open_until_it_goes_on() {
    let Some(cluster) = Cluster::start().unwrap() else { testkit::skip!(MISSING) };
    let database = cluster.database().unwrap();
    let store = connect(&cluster, &database);
    let mut author = Author::of(&store);
    author.append(&store, &[(&stream("a"), note())]);
    store.find_keys(&[[1; 16]]).unwrap();

    cluster.freeze();
    let timed = |what: &str, ask: &dyn Fn()| {
        let started = Instant::now();
        ask();
        let took = started.elapsed();
        assert!(took < CALL_MAX, "{what} took {took:?}");
    };
    let batch = author.batch(&[(&stream("a"), note()), (&stream("b"), note())]);
    timed("append", &|| {
        let outcome = store.append(&batch);
        assert!(matches!(outcome, Err(AppendError::Unknown(_))), "{outcome:?}");
    });
    timed("append in doubt", &|| {
        let outcome = store.append(&batch);
        assert!(matches!(outcome, Err(AppendError::Unavailable(_))), "{outcome:?}");
    });
    std::thread::scope(|scope| {
        scope.spawn(|| {
            timed("head", &|| assert!(matches!(store.head(), Err(ReadError::Unavailable(_)))));
        });
        scope.spawn(|| timed("read", &|| assert!(store.read(&stream("a"), 0, 9).is_err())));
        scope.spawn(|| timed("find_keys", &|| assert!(store.find_keys(&[[1; 16]]).is_err())));
        scope.spawn(|| timed("maintain", &|| store.maintain()));
    });

    cluster.thaw();
    let head = store.head().unwrap();
    if head == batch.before {
        store.append(&batch).unwrap();
    }
    assert_eq!(store.head().unwrap(), batch.after, "all of it or nothing");
    author.append(&store, &[(&stream("b"), note())]);
    assert_eq!(intact(&cluster, &database), 4);
}

#[test]
fn a_server_that_is_gone_is_unavailable_and_found_again() {
    let Some(cluster) = Cluster::start().unwrap() else { testkit::skip!(MISSING) };
    let database = cluster.database().unwrap();
    let store = connect(&cluster, &database);
    let mut author = Author::of(&store);
    author.append(&store, &[(&stream("a"), note())]);
    cluster.kill();
    assert!(matches!(store.head(), Err(ReadError::Unavailable(_))));
    let batch = author.batch(&[(&stream("a"), note())]);
    assert!(matches!(store.append(&batch), Err(AppendError::Unavailable(_))));
    assert!(store.query(&engine::ports::Query::default()).is_err());
    cluster.restart().unwrap();
    store.append(&batch).unwrap();
    assert_eq!(everything(&store).len(), 2);
    assert_eq!(intact(&cluster, &database), 2);
}

#[test]
fn a_refusal_is_unavailable_and_a_new_connection_finds_what_was_made_anew() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let database = cluster.database().unwrap();
    let store = connect(&cluster, &database);
    let mut author = Author::of(&store);
    author.append(&store, &[(&stream("a"), note())]);
    let batch = author.batch(&[(&stream("a"), note())]);
    cluster.sql(&database, "ALTER TABLE receipts RENAME TO elsewhere").unwrap();
    assert!(matches!(store.append(&batch), Err(AppendError::Unavailable(_))));
    assert!(matches!(store.read(&stream("a"), 0, 9), Err(ReadError::Unavailable(_))));
    assert_eq!(store.head().unwrap(), batch.before);
    cluster.sql(&database, "ALTER TABLE elsewhere RENAME TO receipts").unwrap();
    // Idle connections die unnoticed.
    let forget = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{database}'
            AND application_name LIKE 'tai %'"
    );
    cluster.sql("postgres", &forget).unwrap();
    // The client may have heard of it or not: then nothing was written, and the next try finds out.
    if let Err(error) = store.append(&batch) {
        assert!(matches!(error, AppendError::Unavailable(_)), "{error}");
        store.append(&batch).unwrap();
    }
    assert_eq!(everything(&store).len(), 2);
    assert_eq!(intact(&cluster, &database), 2);
}

#[test]
fn a_log_that_lost_what_was_acknowledged_is_final() {
    let Some(cluster) = cluster() else { testkit::skip!(MISSING) };
    let database = cluster.database().unwrap();
    let store = connect(&cluster, &database);
    let mut author = Author::of(&store);
    author.append(&store, &[(&stream("a"), note())]);
    let reset = "UPDATE logs SET size = 0, root = decode(repeat('00', 32), 'hex')";
    cluster.sql(&database, reset).unwrap();
    let batch = author.batch(&[(&stream("a"), note())]);
    for _ in 0..2 {
        assert!(matches!(store.append(&batch), Err(AppendError::Fatal(_))));
        assert!(matches!(store.head(), Err(ReadError::Corrupt(_))));
    }
}

/// What the tests with kills are worth: a commit that did not wait for the disk is gone after one.
#[test]
fn a_kill_reveals_commits_that_did_not_wait_for_the_disk() {
    let Some(cluster) = Cluster::start().unwrap() else { testkit::skip!(MISSING) };
    let database = cluster.database().unwrap();
    // Nothing else writes the log of commits for so long.
    cluster.sql("postgres", "ALTER SYSTEM SET wal_writer_delay = '10s'").unwrap();
    cluster.sql("postgres", "SELECT pg_reload_conf()").unwrap();
    let lasting = connect(&cluster, &database);
    let mut author = Author::of(&lasting);
    author.append(&lasting, &[(&stream("a"), note())]);
    let url = format!("{}?options=-csynchronous_commit%3Doff", cluster.url(&database));
    let fleeting = PgStore::connect(&options(url)).unwrap();
    Author::of(&fleeting).append(&fleeting, &[(&stream("b"), note())]);
    cluster.kill();
    cluster.restart().unwrap();
    assert_eq!(lasting.head().unwrap(), author.head);
    assert!(matches!(fleeting.head(), Err(ReadError::Corrupt(_))), "acknowledged and lost");
    assert_eq!(intact(&cluster, &database), 1);
}
