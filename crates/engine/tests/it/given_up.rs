//! Parts that are gone or hang: everyone is answered all the same, and the way down has an end.

use std::time::Duration;

use types::Reason;

use crate::fault_store::{Fault, Reading};
use crate::robot::{Robot, Step};
use crate::world::{
    QUOTE, World, eventually, keyed, request, settled, signal, tenant, verify, waits,
};

/// Longer than anything here may take, shorter than for ever.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_whose_writer_died_is_settled() {
    for (metric, name, status) in [("load", "scale", "success"), ("disk", "wipe", "unknown")] {
        let robot = Robot::new(name, name == "scale", Step::Done);
        let world = World::new().with(robot.clone());
        let running = world.start();
        running.admit([1]).await;
        world.store.plan(Fault::Dies);
        let refused = running.refused(request(tenant(1), signal(metric, 90))).await;
        assert_eq!(refused.reason, Reason::Timeout, "nobody knows");
        settled(&world, 1).await;
        running.end(&world).await;
        assert_eq!(verify(&world.store).statuses(), [status]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_writer_everyone_is_refused_and_the_drain_ends() {
    let world = World::new().tuned(|options| options.check_interval = PATIENCE);
    let running = world.start();
    running.admit([1]).await;
    let down = || {
        let status = running.engine.supervisor().status();
        status.iter().any(|part| part.name == "receipt_ledger_sup" && part.state == "down")
    };
    let ask = || async {
        tokio::time::timeout(PATIENCE, running.engine.act(request(tenant(1), QUOTE))).await
    };
    while !down() {
        world.store.plan(Fault::Dies);
        let refused = ask().await.expect("an answer").unwrap_err();
        assert!(matches!(refused.reason, Reason::Timeout | Reason::GovernorNotReady), "{refused}");
    }
    for _ in 0..3 {
        assert_eq!(ask().await.expect("an answer").unwrap_err().reason, Reason::GovernorNotReady);
    }
    tokio::time::timeout(PATIENCE, running.end(&world)).await.expect("the drain ends");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drain_ends_although_the_store_hangs() {
    let world = World::new();
    let running = world.start();
    running.admit([1]).await;
    let asked = running.hold_up(&world, ["a", "b"]).await;
    running.engine.refused_at_edge(Reason::MissingField, "/pubsub", None);
    let drain = running.engine.drain(Duration::from_millis(200));
    tokio::time::timeout(PATIENCE, drain).await.expect("the drain ends");
    drop(asked);
    world.store.appends_gate.open();
    eventually("the commit ends", || world.store.appends_gate.waiting() == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_decider_that_waits_for_the_writer_can_be_restarted() {
    let world = World::new();
    let running = world.start();
    running.admit([1]).await;
    let mut asked = running.hold_up(&world, ["a", "b"]).await;
    assert!(running.engine.supervisor().restart("governance_sup"));
    eventually("it has restarted", || running.restarts()["governance_sup"] == 1).await;
    assert!(asked.iter_mut().all(waits));
    world.store.appends_gate.open();
    for asked in asked {
        asked.await.unwrap().unwrap();
    }
    running.end(&world).await;
    assert_eq!(verify(&world.store).of(&tenant(1)).len(), 4, "register, grant and both quotes");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_append_and_the_last_read_tell_whether_the_store_answers() {
    // No look of the reconcilers comes in between.
    let world = World::new().tuned(|options| options.check_interval = PATIENCE * 60);
    let running = world.start();
    running.admit([1]).await;
    let ask = || running.engine.act(keyed(tenant(1), QUOTE, "key", "{}"));
    assert!(running.engine.store_answers());
    world.store.plan(Fault::Lost);
    ask().await.unwrap_err();
    assert!(!running.engine.store_answers());
    running.engine.find(types::ReceiptId([0; 16])).await.unwrap();
    assert!(!running.engine.store_answers(), "a read says nothing of appends");
    ask().await.unwrap();
    assert!(running.engine.store_answers());
    for reading in [Reading::Keys, Reading::Stream] {
        world.store.fail(Some(reading));
        let cold = running.engine.act(keyed(tenant(2), QUOTE, "cold", "{}"));
        cold.await.unwrap_err();
        assert!(!running.engine.store_answers(), "{reading:?}");
        world.store.fail(None);
        ask().await.unwrap();
        assert!(running.engine.store_answers(), "{reading:?}");
    }
    running.end(&world).await;
}
