//! Alerts of an instance that is gone, and what its successors and its neighbours make of them.
//!
//! Owns: that a restart during an incident neither ends it nor pages again, and that what is over
//! ends. Refuses to know: when a lease has run out, which the store says.

use std::sync::Arc;

use engine::ports::{Query, Store};
use engine::{WatchParts, incidents};
use governors::incident::{Alert, Incident};
use governors::{AlertPhase, IncidentStatus};
use ledger::View;
use types::Micros;

use crate::instances::{RULES, alerts, beside, drop_dead, pass, sick, until, watching};
use crate::post::count;
use crate::world::{Running, World};

/// After it an instance that is missed is gone.
const GONE_S: i64 = 15;

/// The rule begins and ends slowly here: after a minute, and half a minute.
fn slow() -> WatchParts {
    watching(&format!("{RULES}for = \"60s\"\nhold = \"30s\"\n"))
}

/// An instance on the ledger of `first` that watches by these rules.
fn instance(first: &World, writer: u64) -> World {
    let mut world = beside(first, writer);
    world.watch = slow();
    world
}

/// The alert of an instance.
async fn alert(running: &Running, instance: &str) -> Alert {
    let state = running.engine.incidents().await.unwrap();
    let its =
        |alert: &&Alert| alert.instance.as_deref() == Some(instance) && alert.key.contains("disk");
    state.incidents().unwrap().alerts().iter().find(its).unwrap().clone()
}

async fn incident(running: &Running) -> Incident {
    let state = running.engine.incidents().await.unwrap();
    state.incidents().unwrap().incident(1).unwrap().clone()
}

/// Receipts that somebody is told of.
fn tells(world: &World) -> usize {
    let query = Query { stream: Some(incidents::stream()), before_pos: None, scan_limit: 1_000 };
    let all = world.store.query(&query).unwrap();
    let is_told = |core: &[u8]| View::scan(core).unwrap().meta_text("tell").is_some();
    all.iter().filter(|stored| is_told(&stored.core)).count()
}

/// An instance with the number 1 that sees its disk fail, for long enough or not yet, and is gone.
async fn leaves(first: &World, phase: AlertPhase) -> Alert {
    let world = instance(first, 1);
    let running = world.start();
    sick(&running, true);
    until(&world, &running, &[("1", AlertPhase::Pending)]).await;
    if phase == AlertPhase::Firing {
        world.clock.advance_secs(60);
        until(&world, &running, &[("1", phase)]).await;
    }
    let left = alert(&running, "1").await;
    drop_dead(running, &world).await;
    first.store.lapse(1);
    left
}

/// Lets as much time go by as samples need to fill a window, and asserts that nothing changes.
async fn nothing_changes(world: &World, running: &Running, phases: &[(&str, AlertPhase)]) {
    until(world, running, phases).await;
    let before = alerts(running).await;
    for _ in 0..150 {
        pass(world).await;
        assert_eq!(alerts(running).await, before);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_that_is_restarted_during_an_incident_goes_on_with_it_and_tells_nobody() {
    use AlertPhase::{Firing, Pending, Recovering};
    let first = World::new();
    let left = leaves(&first, Firing).await;
    let world = instance(&first, 2);
    let running = world.start();
    sick(&running, true);
    nothing_changes(&world, &running, &[("1", Firing), ("2", Pending)]).await;
    let told = tells(&world);
    world.clock.advance_secs(GONE_S);
    until(&world, &running, &[("2", Firing)]).await;
    let taken = alert(&running, "2").await;
    assert_eq!((taken.firing_since_us, taken.began_us), (left.firing_since_us, left.began_us));
    assert_eq!(taken.incident, Some(1));
    let held = incident(&running).await;
    assert_eq!((held.status, held.resolve_at_us), (IncidentStatus::Investigating, None));
    let counts = |rule| count(&*world.store, rule);
    assert_eq!((counts("incident.open"), counts("incident.recovered")), (1, 0));
    assert_eq!(tells(&world), told, "nothing has begun, and nothing has ended");
    // From now on it is the successor's.
    sick(&running, false);
    until(&world, &running, &[("2", Recovering)]).await;
    world.clock.advance_secs(30);
    until(&world, &running, &[]).await;
    assert_eq!(incident(&running).await.status, IncidentStatus::Monitoring);
    running.end(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_instance_has_waited_for_its_successor_does_not_wait_for_again() {
    use AlertPhase::{Firing, Pending};
    let first = World::new();
    let left = leaves(&first, Pending).await;
    let world = instance(&first, 2);
    world.clock.advance_secs(20);
    let running = world.start();
    sick(&running, true);
    nothing_changes(&world, &running, &[("1", Pending), ("2", Pending)]).await;
    world.clock.advance_secs(GONE_S);
    until(&world, &running, &[("2", Pending)]).await;
    let taken = alert(&running, "2").await;
    assert_eq!((taken.since_us, taken.began_us), (left.since_us, left.began_us));
    nothing_changes(&world, &running, &[("2", Pending)]).await;
    world.clock.advance_secs(25);
    until(&world, &running, &[("2", Firing)]).await;
    let fired = alert(&running, "2").await.firing_since_us.unwrap();
    assert!(Micros(fired) < Micros(left.since_us).plus_secs(80), "it did not begin anew");
    running.end(&world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_alert_of_an_instance_that_is_gone_ends_once_others_have_seen_enough_to_say_so() {
    use AlertPhase::Firing;
    let first = World::new();
    leaves(&first, Firing).await;
    let (one, two) = (instance(&first, 2), instance(&first, 3));
    let (well, also) = (one.start(), two.start());
    sick(&well, false);
    sick(&also, false);
    nothing_changes(&one, &well, &[("1", Firing)]).await;
    one.clock.advance_secs(GONE_S);
    nothing_changes(&one, &well, &[("1", Firing)]).await;
    assert_eq!(count(&*one.store, "incident.recovered"), 0);
    one.clock.advance_secs(61 - GONE_S);
    until(&one, &well, &[]).await;
    for _ in 0..20 {
        pass(&one).await;
    }
    assert_eq!(count(&*one.store, "incident.recovered"), 1, "two who say so do no harm");
    let story = well.engine.incident_story(1).await.unwrap().unwrap();
    let last = &story.moments().last().unwrap().text;
    assert!(last.contains("instance 1 is gone, and on instance"), "{last}");
    well.end(&one).await;
    also.end(&two).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_neighbour_whose_own_case_is_pending_neither_ends_nor_inherits_an_alert() {
    use AlertPhase::{Firing, Pending};
    let first = World::new();
    let neighbour = instance(&first, 2);
    let beside = neighbour.start();
    sick(&beside, false);
    // It has been there for longer than the rule looks back.
    leaves(&first, Firing).await;
    first.clock.advance_secs(20);
    nothing_changes(&neighbour, &beside, &[("1", Firing)]).await;
    sick(&beside, true);
    nothing_changes(&neighbour, &beside, &[("1", Firing), ("2", Pending)]).await;
    neighbour.clock.advance_secs(GONE_S);
    nothing_changes(&neighbour, &beside, &[("1", Firing), ("2", Pending)]).await;
    neighbour.clock.advance_secs(60);
    until(&neighbour, &beside, &[("2", Firing)]).await;
    assert_eq!(count(&*first.store, "incident.open"), 1, "it joins what is open");
    assert_eq!(count(&*first.store, "incident.recovered"), 0);
    beside.end(&neighbour).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_nobody_sees_any_more_ends_after_a_while_and_what_has_no_rule_at_once() {
    use AlertPhase::Firing;
    for has_rule in [true, false] {
        let first = World::new();
        leaves(&first, Firing).await;
        let mut world = instance(&first, 2);
        if !has_rule {
            world.watch.rules = Some(Arc::default());
        }
        let running = world.start();
        nothing_changes(&world, &running, &[("1", Firing)]).await;
        world.clock.advance_secs(GONE_S);
        if has_rule {
            nothing_changes(&world, &running, &[("1", Firing)]).await;
            world.clock.advance_secs(600 - 30);
            nothing_changes(&world, &running, &[("1", Firing)]).await;
            world.clock.advance_secs(20);
        }
        until(&world, &running, &[]).await;
        let story = running.engine.incident_story(1).await.unwrap().unwrap();
        let last = &story.moments().last().unwrap().text;
        assert!(last.ends_with("is gone, and nobody measures this any more"), "{last}");
        running.end(&world).await;
    }
}
