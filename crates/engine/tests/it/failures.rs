//! Each durable step, failing both ways: "failed, not kept" and "failed, kept".

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use governors::Command;
use governors::EntitlementAction::{Grant, Resume, Suspend};
use types::Reason;

use crate::fault_store::{Fault, Reading};
use crate::robot::{Robot, Step};
use crate::world::{
    QUOTE, World, entitlement, eventually, keyed, reason, request, settled, signal, states, tenant,
    verify,
};

/// What a caller is told, and whether asking again finds the first receipt.
fn expected(fault: Fault) -> (Option<Reason>, bool) {
    match fault {
        Fault::Lost => (Some(Reason::FirestoreError), false),
        Fault::Kept => (Some(Reason::FirestoreError), true),
        // Offered again, it is taken.
        Fault::Quota | Fault::Conflict => (None, true),
        Fault::UnknownLost => (Some(Reason::Timeout), false),
        Fault::UnknownKept => (Some(Reason::Timeout), true),
        Fault::Fatal => (Some(Reason::Timeout), false),
        Fault::Dies => (Some(Reason::Timeout), true),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_command_whose_commit_fails_is_told_the_truth_and_never_doubled() {
    for fault in [
        Fault::Lost,
        Fault::Kept,
        Fault::Quota,
        Fault::Conflict,
        Fault::UnknownLost,
        Fault::UnknownKept,
        Fault::Dies,
    ] {
        let world = World::new();
        let running = world.start();
        for (nth, action) in [Grant, Suspend, Resume].into_iter().enumerate() {
            let key = format!("key-{nth}");
            let ask = || running.engine.act(keyed(tenant(1), entitlement(action), &key, "{}"));
            let before = world.store.size();
            world.store.plan(fault);
            let (reason, kept) = expected(fault);
            let first = ask().await;
            assert_eq!(first.as_ref().err().map(|refused| refused.reason), reason, "{fault:?}");
            assert_eq!(world.store.size() > before, kept, "{fault:?}");
            let after = world.store.size();
            let again = ask().await.unwrap().unwrap();
            assert_eq!(again.replayed, kept, "{fault:?}");
            assert_eq!(world.store.size() == after, kept, "{fault:?}");
            if let Ok(Some(first)) = first {
                assert_eq!(first.receipt, again.receipt);
            }
        }
        assert!(world.store.plan_done());
        // Register, grant, suspend, resume: all on the true state, none twice.
        running.end(&world).await;
        assert_eq!(verify(&world.store).of(&tenant(1)).len(), 4, "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_a_rival_has_moved_on_is_decided_again() {
    let world = World::new();
    let running = Arc::new(world.start());
    for number in 1..=3 {
        running.decide(tenant(number), QUOTE).await;
    }
    let mut tasks = tokio::task::JoinSet::new();
    world.store.appends_gate.close();
    for (number, key) in [(3, "in flight"), (1, "outrun"), (2, "beside it"), (1, "on top of it")] {
        let before = world.store.key_lookups.load(Ordering::SeqCst);
        let asking = Arc::clone(&running);
        tasks.spawn(async move {
            let request = keyed(tenant(number), QUOTE, key, "{}");
            let decided = asking.engine.act(request).await.unwrap().unwrap();
            assert!(!decided.replayed, "{key}");
            (number, decided.receipt.seq)
        });
        let taken = || world.store.key_lookups.load(Ordering::SeqCst) > before;
        eventually("it is decided", taken).await;
        eventually("the writer is held up", || world.store.appends_gate.waiting() == 1).await;
    }
    world.store.outrun(tenant(1));
    world.store.appends_gate.open();
    let mut decided: Vec<_> = tasks.join_all().await;
    decided.sort_unstable();
    // Registered and asked for once before; nobody's place was taken twice or left empty.
    assert_eq!(decided, [(1, 2), (1, 3), (2, 2), (3, 2)]);
    assert!(world.store.plan_done());
    // Nothing that was built on the lost place reached the store.
    assert_eq!(world.store.conflicts.load(Ordering::SeqCst), 0);
    Arc::into_inner(running).unwrap().end(&world).await;
    assert_eq!(verify(&world.store).of(&tenant(1)).len(), 4);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_failed_commit_the_next_command_meets_the_true_state() {
    for (fault, from, refused) in
        [(Fault::Lost, "unentitled", Some(Reason::StateError)), (Fault::Kept, "entitled", None)]
    {
        let world = World::new();
        let running = world.start();
        world.store.plan(fault);
        running.refused(request(tenant(1), entitlement(Grant))).await;
        let next = running.decide(tenant(1), entitlement(Suspend)).await;
        assert_eq!(states(&next.receipt).0, from, "{fault:?}");
        assert_eq!(reason(&next.receipt), refused, "{fault:?}");
        running.end(&world).await;
        verify(&world.store);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_decided_on_top_of_a_failed_commit_is_decided_again() {
    for (fault, refused) in [(Fault::Lost, Some(Reason::StateError)), (Fault::Kept, None)] {
        let world = World::new();
        let running = Arc::new(world.start());
        running.decide(tenant(1), QUOTE).await;
        world.store.appends_gate.close();
        world.store.plan(fault);
        let asked = |command, key| {
            let running = Arc::clone(&running);
            async move { running.engine.act(keyed(tenant(1), command, key, "{}")).await }
        };
        let mut tasks = tokio::task::JoinSet::new();
        tasks.spawn(asked(entitlement(Grant), "grant"));
        eventually("the grant is in flight", || world.store.appends_gate.waiting() == 1).await;
        let before = world.store.key_lookups.load(Ordering::SeqCst);
        let second = asked(entitlement(Suspend), "suspend");
        let mut late = tokio::task::JoinSet::new();
        late.spawn(second);
        let taken = || world.store.key_lookups.load(Ordering::SeqCst) > before;
        eventually("the suspension is decided on top of it", taken).await;
        world.store.appends_gate.open();
        let grant = tasks.join_next().await.unwrap().unwrap().unwrap_err();
        assert_eq!(grant.reason, Reason::FirestoreError);
        let suspend = late.join_next().await.unwrap().unwrap().unwrap().unwrap();
        assert_eq!(reason(&suspend.receipt), refused, "{fault:?}: decided on a grant that failed");
        let running = Arc::into_inner(running).unwrap();
        running.end(&world).await;
        verify(&world.store);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_whose_commit_fails_runs_once_or_not_at_all() {
    for (fault, runs) in [(Fault::Lost, 0), (Fault::Kept, 1), (Fault::Conflict, 1)] {
        let robot = Robot::new("scale", true, Step::Done);
        let world = World::new().with(robot.clone());
        let running = world.start();
        running.admit([1]).await;
        world.store.plan(fault);
        let told = running.engine.act(request(tenant(1), signal("load", 90))).await;
        assert_eq!(told.err().map(|refused| refused.reason), expected(fault).0, "{fault:?}");
        settled(&world, runs).await;
        running.end(&world).await;
        assert_eq!(robot.calls(), runs, "{fault:?}");
        assert_eq!(verify(&world.store).statuses(), vec!["success"; runs], "{fault:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_whose_commit_fails_is_sealed_once_without_a_second_run() {
    for fault in [Fault::Lost, Fault::Kept, Fault::Conflict] {
        for idempotent in [true, false] {
            let (metric, name) = if idempotent { ("load", "scale") } else { ("disk", "wipe") };
            let robot = Robot::new(name, idempotent, Step::Wait);
            let world = World::new().with(robot.clone());
            let running = world.start();
            running.admit([1]).await;
            running.decide(tenant(1), signal(metric, 90)).await;
            eventually("the action runs", || robot.calls() == 1).await;
            world.store.plan(fault);
            robot.release(1);
            settled(&world, 1).await;
            assert!(world.store.plan_done(), "the fault met the result");
            running.end(&world).await;
            assert_eq!(robot.calls(), 1, "{fault:?}");
            assert_eq!(verify(&world.store).statuses(), ["success"], "{fault:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_failed_for_good_stops_the_service() {
    let world = World::new();
    let running = world.start();
    running.admit([1]).await;
    let size = world.store.size();
    world.store.plan(Fault::Fatal);
    let refused = running.refused(request(tenant(1), QUOTE)).await;
    assert_eq!(refused.reason, Reason::Timeout, "nobody knows what the disk holds");
    let told = tokio::time::timeout(Duration::from_secs(60), running.engine.store_failed()).await;
    assert!(told.is_ok(), "the process is not told to stop");
    assert_eq!(world.store.size(), size);
    running.end(&world).await;
    verify(&world.store);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_that_fails_refuses_one_command_and_breaks_nothing() {
    for reading in [Reading::Keys, Reading::Stream, Reading::Snapshot] {
        let world = World::new();
        let running = world.start();
        world.store.fail(Some(reading));
        let refused = running.refused(keyed(tenant(1), QUOTE, "key", "{}")).await;
        assert_eq!(refused.reason, Reason::FirestoreError, "{reading:?}");
        world.store.fail(None);
        running.engine.act(keyed(tenant(1), QUOTE, "key", "{}")).await.unwrap();
        running.end(&world).await;
        assert_eq!(verify(&world.store).of(&tenant(1)).len(), 2);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_cannot_be_read_after_a_failed_commit_is_asked_for_again() {
    let world = World::new();
    let running = world.start();
    running.admit([2]).await;
    world.store.plan(Fault::Kept);
    world.store.fail(Some(Reading::Head));
    for _ in 0..3 {
        let refused = running.refused(keyed(tenant(1), QUOTE, "key", "{}")).await;
        assert_eq!(refused.reason, Reason::FirestoreError);
    }
    world.store.fail(None);
    let found = running.engine.act(keyed(tenant(1), QUOTE, "key", "{}")).await.unwrap().unwrap();
    assert!(found.replayed, "the store had kept it");
    running.end(&world).await;
    assert_eq!(verify(&world.store).of(&tenant(1)).len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_defect_hurts_its_own_command_alone() {
    let world = World::new();
    let running = world.start();
    let signals = || types::StreamName::system(types::limits::STREAM_SIGNALS);
    // A receipt cannot hold a control character, and it is the callers' duty to know: a defect.
    let untenanted =
        |signal: &str| request(signals(), Command::Untenanted { signal: signal.to_owned() });
    for round in 0..3 {
        let refused = running.refused(untenanted("a\u{0}b")).await;
        assert_eq!(refused.reason, Reason::InternalError);
        running.decide(tenant(round), QUOTE).await;
        running.engine.act(untenanted("test")).await.unwrap();
    }
    assert!(running.restarts().values().all(|restarts| *restarts == 0));
    running.end(&world).await;
    assert_eq!(verify(&world.store).of(&signals()).len(), 3);
}
