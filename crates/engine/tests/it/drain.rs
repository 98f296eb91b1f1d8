//! The way down: everyone inside is answered, nobody is let in, everything is recorded and every
//! worker is gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use ledger::View;
use store::{Options, SqliteStore, Synchronous};
use tokio::task::JoinSet;
use types::{Reason, StreamName, limits};

use crate::fault_store::{Fault, FaultStore};
use crate::robot::{Robot, Step};
use crate::world::{QUOTE, World, eventually, request, settled, signal, tenant, verify, waits};

const DEADLINE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everyone_inside_is_answered_and_nobody_is_let_in() {
    let world = World::new();
    let running = world.start();
    running.admit(0..50).await;
    world.store.appends_gate.close();
    world.store.reads_gate.close();
    // Some wait for their stream to be read, the others for a commit.
    let mut cold = JoinSet::new();
    for n in 50..200 {
        let engine = running.engine.clone();
        cold.spawn(async move { engine.act(request(tenant(n), QUOTE)).await });
    }
    // As many as are made at once; the others wait for their turn.
    eventually("reads wait", || world.store.reads_gate.waiting() == 6).await;
    let mut loaded: Vec<_> =
        (0..50).map(|n| Box::pin(running.engine.act(request(tenant(n), QUOTE)))).collect();
    assert!(loaded.iter_mut().all(waits));
    eventually("a commit waits", || world.store.appends_gate.waiting() == 1).await;
    let mut drain = Box::pin(running.engine.drain(DEADLINE));
    assert!(waits(&mut drain), "it waits for those inside");
    assert!(running.engine.is_draining());
    let late = running.refused(request(tenant(0), QUOTE)).await;
    assert_eq!(late.reason, Reason::ServiceUnavailable);
    world.store.appends_gate.open();
    let mut answers = join_all(loaded).await;
    let early = tokio::time::timeout(Duration::from_millis(100), &mut drain).await;
    assert!(early.is_err(), "it did not wait for streams that are being read");
    world.store.reads_gate.open();
    drain.await;
    answers.extend(cold.join_all().await);
    assert_eq!(answers.len(), 200);
    let refused: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    assert!(refused.is_empty(), "{refused:?}");
    let late = running.refused(request(tenant(0), QUOTE)).await;
    assert_eq!(late.reason, Reason::ServiceUnavailable);
    drop(running);
    eventually("no worker is left", || Arc::strong_count(&world.store) == 1).await;
    let checked = verify(&world.store);
    assert_eq!(checked.by_rule("account.quote").values().sum::<usize>(), 200);
    let last = checked.receipts.last().unwrap();
    assert_eq!(last.stream, StreamName::system(limits::STREAM_OPS));
    assert!(View::scan(&last.core).unwrap().action.is("stop"), "the stop is the last word");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_running_action_is_settled_before_the_end() {
    let robot = Robot::new("scale", true, Step::Wait);
    let world = World::new().with(robot.clone());
    let running = world.start();
    running.admit([1]).await;
    running.decide(tenant(1), signal("load", 90)).await;
    eventually("the action runs", || robot.calls() == 1).await;
    let mut drain = Box::pin(running.engine.drain(DEADLINE));
    assert!(waits(&mut drain));
    robot.release(1);
    drain.await;
    assert_eq!(verify(&world.store).statuses(), ["success"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_action_that_does_not_end_is_left_to_the_next_start() {
    let robot = Robot::new("scale", true, Step::Hang);
    let world = World::new().with(robot.clone());
    let running = world.start();
    running.admit([1]).await;
    running.decide(tenant(1), signal("load", 90)).await;
    eventually("the action runs", || robot.calls() == 1).await;
    running.engine.drain(Duration::from_millis(20)).await;
    assert_eq!(verify(&world.store).results.len(), 0);
    robot.otherwise(Step::Done);
    let next = world.start();
    settled(&world, 1).await;
    next.engine.drain(DEADLINE).await;
    assert_eq!(verify(&world.store).statuses(), ["success"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_at_the_edge_are_recorded_in_sums() {
    let world = World::new();
    let running = world.start();
    let mut wanted: BTreeMap<(String, String), i64> = BTreeMap::new();
    for (reason, endpoint, count) in [
        (Reason::MissingField, "/pubsub", 1_000),
        (Reason::MissingField, "/marketplace", 3),
        (Reason::PayloadTooLarge, "/pubsub", 1),
    ] {
        (0..count).for_each(|_| running.engine.refused_at_edge(reason, endpoint, None));
        wanted.insert((reason.code().to_owned(), endpoint.to_owned()), count);
    }
    assert_eq!(world.store.size(), 0, "no refusal waits for a commit");
    running.end(&world).await;
    let checked = verify(&world.store);
    let mut found: BTreeMap<(String, String), i64> = BTreeMap::new();
    for stored in checked.of(&StreamName::system(limits::STREAM_EDGE)) {
        let view = View::scan(&stored.core).unwrap();
        let text = |raw: Option<ledger::scan::Raw<'_>>| raw.unwrap().text().into_owned();
        let key = (text(view.reason), text(view.subject));
        *found.entry(key).or_default() += view.meta_int("count").unwrap();
    }
    assert_eq!(found, wanted);
    assert_eq!(checked.receipts.len(), wanted.len() + 1, "one receipt for each sum, one note");
}

/// With paused time, so that the ten seconds between two records pass at once.
#[tokio::test(start_paused = true)]
async fn refusals_that_cannot_be_recorded_are_part_of_the_next_record() {
    let world = World::new().tuned(|options| options.check_interval = Duration::from_secs(5));
    let running = world.start();
    running.engine.refused_at_edge(Reason::MissingField, "/pubsub", None);
    world.store.plan(Fault::Lost);
    eventually("the record has failed", || world.store.plan_done()).await;
    running.engine.refused_at_edge(Reason::MissingField, "/pubsub", None);
    eventually("the next one is kept", || world.store.size() == 1).await;
    running.end(&world).await;
    let checked = verify(&world.store);
    let count = View::scan(&checked.receipts[0].core).unwrap().meta_int("count");
    assert_eq!((count, checked.receipts.len()), (Some(2), 2), "one record, one note of the stop");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drained_engine_leaves_a_closed_ledger_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { synchronous: Synchronous::Full };
    for life in 0_u64..3 {
        let store = SqliteStore::open(dir.path(), &options).unwrap();
        assert!(!store.opened().wal_recovered, "life {life} found the one before unclosed");
        let mut world = World::new();
        world.store = Arc::new(FaultStore::new(store));
        let running = world.start();
        let decided = running.decide(tenant(1), QUOTE).await;
        assert_eq!(decided.receipt.seq, life + 1);
        running.end(&world).await;
        verify(&world.store);
    }
}
