//! Actions: outcomes, repeats, one at a time for each tenant, and a pool with an end.

use std::collections::HashMap;
use std::time::Duration;

use engine::ports::Store;
use futures_util::future::join_all;
use governors::OutcomeStatus;
use types::Reason;

use crate::fault_store::Fault;
use crate::robot::{Robot, Step};
use crate::world::{Running, World, eventually, request, settled, signal, tenant, verify, word};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_way_to_end_is_a_result() {
    use OutcomeStatus::{Error, Success, Timeout, Unknown};
    for (idempotent, step, runs, status) in [
        (true, Step::Done, 1, Success),
        (false, Step::Done, 1, Success),
        (true, Step::Refuse, 1, Error),
        (false, Step::Retry, 1, Error),
        (false, Step::Hang, 1, Unknown),
        (false, Step::Panic, 1, Unknown),
    ] {
        let (metric, name) = if idempotent { ("load", "scale") } else { ("disk", "wipe") };
        let robot = Robot::new(name, idempotent, step);
        let world = World::new()
            .with(robot.clone())
            .tuned(|options| options.action_timeout = Duration::from_millis(50));
        let running = world.start();
        running.admit([1]).await;
        running.decide(tenant(1), signal(metric, 90)).await;
        settled(&world, 1).await;
        assert_eq!(robot.calls(), runs, "{step:?}");
        assert!(running.restarts().values().all(|restarts| *restarts == 0), "{step:?}");
        running.end(&world).await;
        assert_eq!(verify(&world.store).statuses(), [word(status)], "{step:?}");
        assert_ne!(status, Timeout, "only what may be repeated times out: see the next test");
    }
}

/// Waits with paused time: it moves on whenever nothing else can.
#[tokio::test(start_paused = true)]
async fn what_may_be_repeated_is_tried_three_times() {
    use Step::{Done, Hang, Panic, Retry};
    for (script, runs, status) in [
        (vec![Retry, Done], 2, OutcomeStatus::Success),
        (vec![Retry, Hang, Done], 3, OutcomeStatus::Success),
        (vec![Panic, Done], 2, OutcomeStatus::Success),
        (vec![Retry, Retry, Retry, Done], 3, OutcomeStatus::Error),
        (vec![Hang, Hang, Hang, Done], 3, OutcomeStatus::Timeout),
        (vec![Panic, Panic, Panic, Done], 3, OutcomeStatus::Error),
    ] {
        let robot = Robot::new("scale", true, Step::Refuse);
        robot.script(script.clone());
        let world = World::new().with(robot.clone());
        let running = world.start();
        running.admit([1]).await;
        running.decide(tenant(1), signal("load", 90)).await;
        settled(&world, 1).await;
        let attempts = robot.attempts();
        assert_eq!(attempts.len(), runs, "{script:?}");
        assert!(attempts.iter().all(|id| *id == attempts[0]), "one attempt id for all tries");
        running.end(&world).await;
        let checked = verify(&world.store);
        assert_eq!(checked.statuses(), [word(status)], "{script:?}");
        let result = checked
            .receipts
            .iter()
            .find_map(|stored| ledger::View::scan(&stored.core).unwrap().meta_int("tries"));
        assert_eq!(result, Some(runs as i64), "{script:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_wait_behind_an_action_and_the_newest_is_decided_after_it() {
    let robot = Robot::new("scale", true, Step::Wait);
    let world = World::new().with(robot.clone());
    let running = world.start();
    running.admit([1]).await;
    running.decide(tenant(1), signal("load", 90)).await;
    eventually("the action runs", || robot.calls() == 1).await;
    for value in [95, 20, 99] {
        let waits = running.decide(tenant(1), signal("load", value)).await;
        assert!(crate::world::view(&waits.receipt).rule.unwrap().is("signal.coalesce"));
    }
    assert_eq!(robot.calls(), 1, "INV-8: at most one action of a tenant is in flight");
    robot.release(1);
    eventually("the newest signal starts the next action", || robot.calls() == 2).await;
    running.decide(tenant(1), signal("load", 10)).await;
    robot.release(1);
    settled(&world, 2).await;
    assert_eq!(robot.overlaps(), 0);
    running.end(&world).await;
    let checked = verify(&world.store);
    assert_eq!(checked.by_rule("signal.coalesce")[&tenant(1)], 4);
    assert_eq!(checked.by_rule("signal.calm")[&tenant(1)], 1, "the last signal was calm");
    assert_eq!(robot.calls(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_pool_takes_no_signal_and_records_nothing() {
    let robot = Robot::new("scale", true, Step::Wait);
    let world = World::new().with(robot.clone()).tuned(|options| {
        options.pool_size = 1;
        options.pool_queue = 1;
    });
    let running = world.start();
    running.admit(0..3).await;
    running.decide(tenant(0), signal("load", 90)).await;
    running.decide(tenant(1), signal("load", 90)).await;
    let size = world.store.size();
    // A calm signal would need no place, but nobody knows before it is decided.
    for value in [90, 10] {
        let refused = running.refused(request(tenant(2), signal("load", value))).await;
        assert_eq!((refused.reason, refused.retry_after_s), (Reason::ActionQueueFull, Some(1)));
    }
    assert_eq!(world.store.size(), size);
    robot.release(3);
    settled(&world, 2).await;
    let place = async || running.engine.act(request(tenant(2), signal("load", 90))).await;
    // The place is given back a moment after the result is durable.
    while place().await.is_err() {
        tokio::task::yield_now().await;
    }
    settled(&world, 3).await;
    running.end(&world).await;
    verify(&world.store);
}

/// Signals until the pool has no place left; returns how many were taken.
async fn fill(running: &Running, tenants: impl IntoIterator<Item = usize>) -> usize {
    let mut taken = 0;
    for n in tenants {
        match running.engine.act(request(tenant(n), signal("load", 90))).await {
            Ok(_) => taken += 1,
            Err(refused) => assert_eq!(refused.reason, Reason::ActionQueueFull),
        }
    }
    taken
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_keeps_its_place_while_the_store_is_away() {
    let robot = Robot::new("scale", true, Step::Wait);
    let world = World::new().with(robot.clone()).tuned(|options| {
        options.pool_size = 1;
        options.pool_queue = 2;
    });
    let running = world.start();
    running.admit(0..9).await;
    running.decide(tenant(0), signal("load", 90)).await;
    eventually("the action runs", || robot.calls() == 1).await;
    running.decide(tenant(0), signal("load", 99)).await;
    // The result, which starts another action at once, cannot be sealed at first. Meanwhile
    // others take every place there is.
    world.store.plan(Fault::Lost);
    robot.release(1);
    eventually("the store refused the result", || world.store.plan_done()).await;
    let taken = fill(&running, 1..9).await;
    assert_eq!(taken, 2, "two places are free, and the one of the result is not");
    robot.release(10);
    settled(&world, 2 + taken).await;
    running.end(&world).await;
    verify(&world.store);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_storm_settles_every_attempt_once_under_an_eager_reconciler() {
    const TENANTS: usize = 20;
    const ROUNDS: usize = 15;
    let scale = Robot::new("scale", true, Step::Done);
    let wipe = Robot::new("wipe", false, Step::Done);
    let world = World::new().with(scale.clone()).with(wipe.clone()).tuned(|options| {
        options.check_interval = Duration::from_micros(100);
    });
    let running = world.start();
    running.admit(0..TENANTS).await;
    for round in 0..ROUNDS {
        let metric = if round % 2 == 0 { "load" } else { "disk" };
        join_all((0..TENANTS).map(|n| running.decide(tenant(n), signal(metric, 90)))).await;
    }
    let idle = || world.store.unsettled(usize::MAX).unwrap().is_empty();
    eventually("nothing is in flight", idle).await;
    running.end(&world).await;
    let checked = verify(&world.store);
    let mut runs: HashMap<_, usize> = HashMap::new();
    for attempt in scale.attempts().into_iter().chain(wipe.attempts()) {
        *runs.entry(attempt).or_default() += 1;
    }
    assert!(checked.results.len() >= TENANTS);
    assert_eq!(runs.len(), checked.results.len(), "each result is of a run");
    assert!(runs.values().all(|count| *count == 1), "an attempt was run twice");
    assert!(checked.statuses().iter().all(|status| *status == word(OutcomeStatus::Success)));
    assert_eq!(scale.overlaps() + wipe.overlaps(), 0);
}
