//! A store that takes fewer writes than there are, one that fails for a moment, and writes that are
//! frozen. What a store that is away for longer does is seen where a real one can go away.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use engine::Writes;
use futures_util::future::join_all;
use governors::EntitlementAction::Suspend;
use governors::{BudgetChange, Charge, Command, Declared, IncidentChange, OutcomeStatus};
use types::{Reason, Severity, Usage};

use crate::fault_store::{Fault, Reading};
use crate::world::{QUOTE, World, entitlement, eventually, request, reserve, tenant, verify};

/// So long that nothing is written because of it.
const NEVER: Duration = Duration::from_secs(3_600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_takes_fewer_writes_gets_fewer_and_larger_ones() {
    let world = World::new().tuned(|options| {
        options.spare_batch = 16;
        options.spare_wait = Duration::from_millis(50);
    });
    let running = world.start();
    running.admit(0..16).await;
    world.store.plan(Fault::Quota);
    world.store.plan(Fault::Quota);
    running.decide(tenant(0), QUOTE).await;
    assert!(world.store.plan_done(), "it was offered again until it was taken");
    // From now on sixteen at once, or what there is after the wait.
    running.engine.reconfigure({
        let mut options = (*running.engine.options()).clone();
        options.spare_wait = NEVER;
        options
    });
    let before = world.store.appends.load(Ordering::SeqCst);
    let asked = (0..16).map(|nth| running.decide(tenant(nth), QUOTE));
    join_all(asked).await;
    let appends = world.store.appends.load(Ordering::SeqCst) - before;
    assert_eq!(appends, 1);
    running.engine.reconfigure({
        let mut options = (*running.engine.options()).clone();
        options.spare_wait = Duration::from_millis(50);
        options
    });
    let since = Instant::now();
    running.decide(tenant(0), QUOTE).await;
    assert!(since.elapsed() < NEVER);
    running.end(&world).await;
    verify(&world.store);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_goes_on_to_refuse_writes_is_not_waited_for() {
    let world = World::new().tuned(|options| options.spare_wait = Duration::from_millis(10));
    let running = world.start();
    running.admit([1]).await;
    for _ in 0..3 {
        world.store.plan(Fault::Quota);
    }
    let refused = running.refused(request(tenant(1), QUOTE)).await;
    assert_eq!(refused.reason, Reason::FirestoreError);
    running.decide(tenant(1), QUOTE).await;
    running.end(&world).await;
    verify(&world.store);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_failed_commit_did_not_touch_is_not_read_again() {
    let world = World::new();
    let running = world.start();
    running.admit([1, 2]).await;
    world.store.plan(Fault::Lost);
    let refused = running.refused(request(tenant(1), entitlement(Suspend))).await;
    assert_eq!(refused.reason, Reason::FirestoreError);
    world.store.fail(Some(Reading::Stream));
    running.decide(tenant(2), QUOTE).await;
    world.store.fail(None);
    // The suspension never was.
    running.decide(tenant(1), QUOTE).await;
    running.end(&world).await;
    verify(&world.store);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_writes_are_the_services_own_only() {
    for (writes, tampered, frozen) in [
        (Writes::Auto, false, false),
        (Writes::Auto, true, true),
        (Writes::Frozen, false, true),
        (Writes::Open, true, false),
    ] {
        let world = World::new().tuned(|options| options.writes = writes);
        let running = world.start();
        if tampered {
            let other = running.decide(tenant(2), QUOTE).await;
            world.store.alter(Some(|stored| stored.core.truncate(10)));
            let state = running.engine.state(&other.receipt.stream).await;
            assert_eq!(state.unwrap_err().reason, Reason::FirestoreError);
            world.store.alter(None);
        }
        assert_eq!(running.engine.is_frozen(), frozen, "{writes:?}, {tampered}");
        let outcome = running.engine.act(request(tenant(1), QUOTE)).await;
        match outcome {
            Ok(decided) => assert!(decided.is_some() && !frozen),
            Err(refused) => assert!(frozen && refused.reason == Reason::ServiceUnavailable),
        }
        running.engine.note("recovery", "the service's own".to_owned()).await.unwrap();
        running.end(&world).await;
        verify(&world.store);
    }
}

/// Whoever is on call must hear of it all the more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frozen_writes_stop_no_page() {
    let world = World::new().tuned(|options| options.writes = Writes::Frozen);
    let running = world.start();
    let declared = Declared {
        title: "it is down".to_owned(),
        severity: Severity::Sev1,
        component: "http".to_owned(),
        text: String::new(),
    };
    let declare = Command::Incident(IncidentChange::Declare(declared));
    running.decide(engine::incidents::stream(), declare).await;
    let incidents = running.engine.incidents().await.unwrap();
    let before = incidents.incidents().unwrap().incident(1).unwrap().step;
    world.clock.advance_secs(301);
    let fired = || running.metrics.timers_fired.get() > 0;
    eventually("the next page", fired).await;
    let incidents = running.engine.incidents().await.unwrap();
    assert_eq!(incidents.incidents().unwrap().incident(1).unwrap().step, before + 1);
    running.end(&world).await;
    verify(&world.store);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_that_was_begun_is_charged_though_writes_are_frozen() {
    let mut world = World::new();
    // Nobody but the caller settles it.
    world.does_due = false;
    let running = world.start();
    running.admit([1]).await;
    // Held: it would be given back.
    let reserved = running.decide(tenant(1), reserve()).await;
    let attempt = reserved.receipt.id;
    running.engine.reconfigure({
        let mut options = (*running.engine.options()).clone();
        options.writes = Writes::Frozen;
        options
    });
    for command in
        [reserve(), Command::TopUp { attempt, output: 1 }, Command::Budget(BudgetChange::Clear)]
    {
        let refused = running.refused(request(tenant(1), command)).await;
        assert_eq!(refused.reason, Reason::ServiceUnavailable);
    }
    let charge = Charge {
        status: OutcomeStatus::Success,
        usage: Usage::default(),
        is_estimated: false,
        price: "model".to_owned(),
        provider: "provider".to_owned(),
        model: "model".to_owned(),
        tries: 1,
        duration_ms: 1,
    };
    running.decide(tenant(1), Command::Charge { attempt, charge }).await;
    drop(reserved);
    running.end(&world).await;
    assert_eq!(verify(&world.store).statuses(), ["success"]);
}
