//! Due timers, for tenants that nobody has loaded.

use std::collections::BTreeMap;

use engine::ports::Store;
use futures_util::future::join_all;
use governors::EntitlementAction::Grant;
use governors::{Command, EntitlementChange};
use types::{Clock, Micros, StreamName};

use crate::world::{QUOTE, START_S, World, change, eventually, runtime, states, tenant, verify};

const TENANTS: usize = 1_000;

/// Half of the grants begin later, the other half end then.
fn grant(n: usize) -> Command {
    let then = Some(Micros::from_secs(START_S + 100));
    let (effective_at, expires_at) = if n.is_multiple_of(2) { (then, None) } else { (None, then) };
    Command::Entitlement(EntitlementChange { effective_at, expires_at, ..change(Grant) })
}

fn prepare(world: &World) {
    world.life(|running| async move {
        for n in 0..TENANTS / 100 {
            let grants = (0..100).map(|m| running.decide(tenant(n * 100 + m), grant(n * 100 + m)));
            join_all(grants).await;
        }
    });
    assert_eq!(due(world), 0, "nothing is due yet");
    world.clock.advance_secs(200);
    assert_eq!(due(world), TENANTS);
}

fn due(world: &World) -> usize {
    world.store.due(world.clock.now(), usize::MAX).unwrap().len()
}

fn once_each(counts: &BTreeMap<StreamName, usize>, parity: usize) {
    assert_eq!(counts.len(), TENANTS / 2);
    for n in (parity..TENANTS).step_by(2) {
        assert_eq!(counts.get(&tenant(n)), Some(&1), "tenant {n}");
    }
}

fn check(world: &World) {
    let checked = verify(&world.store);
    once_each(&checked.by_rule("entitlement.effective"), 0);
    once_each(&checked.by_rule("entitlement.lapse"), 1);
    assert_eq!(checked.receipts.len(), TENANTS * 3, "register, grant, timer");
}

#[test]
fn what_is_due_fires_once_for_tenants_that_are_not_loaded() {
    let world = World::new();
    prepare(&world);
    runtime().block_on(async {
        let running = world.start();
        eventually("all timers have fired", || due(&world) == 0).await;
        let counted = || running.metrics.timers_fired.get() == TENANTS as u64;
        eventually("all of them are counted", counted).await;
        // The state behind the receipts is what a caller meets.
        let late = running.decide(tenant(1), Command::Entitlement(change(Grant))).await;
        assert_eq!(states(&late.receipt), ("unentitled".to_owned(), "entitled".to_owned()));
        running.decide(tenant(0), QUOTE).await;
        running.end(&world).await;
    });
    let checked = verify(&world.store);
    once_each(&checked.by_rule("entitlement.effective"), 0);
    once_each(&checked.by_rule("entitlement.lapse"), 1);
}

#[test]
fn timers_that_a_crash_cut_short_fire_once_after_it() {
    let world = World::new();
    prepare(&world);
    for round in 1..=3 {
        world.life(|running| async move {
            let some = || running.metrics.timers_fired.get() >= 64 * round;
            eventually("some timers have fired", some).await;
        });
    }
    assert!(due(&world) > 0, "nothing was left for the last life");
    world.life(|_running| async {
        eventually("all timers have fired", || due(&world) == 0).await;
    });
    check(&world);
}

#[test]
fn nothing_fires_before_its_time() {
    let world = World::new();
    world.life(|running| async move {
        running.decide(tenant(0), grant(0)).await;
        running.decide(tenant(1), grant(1)).await;
    });
    world.clock.advance_secs(99);
    runtime().block_on(async {
        let running = world.start();
        // A look of the timers later than this point is observable only by its absence: the clock
        // stands one second before the due time while a hundred decisions pass.
        for _ in 0..100 {
            running.decide(tenant(2), QUOTE).await;
        }
        assert_eq!(running.metrics.timers_fired.get(), 0);
        world.clock.advance_secs(1);
        eventually("both fire", || running.metrics.timers_fired.get() == 2).await;
        running.end(&world).await;
    });
    verify(&world.store);
}
