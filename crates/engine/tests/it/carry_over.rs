//! The way of a lane into the chain, where it takes more than one try.
//!
//! Owns: what is not told, not undone and not begun because a try ended in the middle or has not
//! begun. Refuses to know: files, which real spools have.

use std::sync::Arc;
use std::time::Duration;

use engine::Stage;
use engine::incidents::stream;
use engine::ports::Batch;
use governors::{AlertChange, AlertPhase, Command, SilenceChange};
use ledger::View;
use types::{Reason, Severity};

use crate::instances::{begun, goes_away, intact, outage, shelf_of, stage, taken};
use crate::post::{DELIVERED, LATER, Post, count, declare};
use crate::world::{World, eventually, request};

/// The last that the lanes here say.
fn silence() -> Command {
    Command::Silence(SilenceChange::Set {
        matcher: "rule=other".to_owned(),
        lease_s: 3_600,
        why: "planned work".to_owned(),
    })
}

fn is_silence(batch: &Batch) -> bool {
    let is_it =
        |core: &[u8]| View::scan(core).unwrap().rule.is_some_and(|rule| rule.is("silence.set"));
    batch.entries.iter().any(|entry| is_it(&entry.sealed.core))
}

/// The store comes back, and goes away again when an incident of the lane is in the chain and the
/// silence is not.
async fn comes_back_for_half(world: &World, opened: usize) {
    world.store.refuse(Some(is_silence));
    world.store.go_away(false);
    eventually("half of it", || count(&*world.store, "incident.open") == opened).await;
    world.store.go_away(true);
    world.store.refuse(None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_channel_takes_between_two_tries_to_carry_a_lane_over_it_is_not_told_again() {
    let post = Post::new(&["slack", "pagerduty"]);
    post.answers("slack", &[], LATER);
    let (world, shelf) = outage(&post);
    world.store.also(&shelf.ledger);
    let running = world.start();
    begun(&world, 2).await;
    running.engine.incidents().await.unwrap();
    goes_away(&world, &running).await;
    running.decide(stream(), declare("the store is away", "ledger")).await;
    eventually("it is tried", || !post.told("slack").is_empty()).await;
    running.decide(stream(), silence()).await;
    comes_back_for_half(&world, 1).await;
    stage(&running, Stage::Away).await;
    post.answers("slack", &[], DELIVERED);
    eventually("it has heard it", || taken(&shelf, "slack") == 1).await;
    let heard = post.told("slack").len();
    world.store.go_away(false);
    stage(&running, Stage::Up).await;
    running.decide(stream(), declare("afterwards", "mail")).await;
    let last = || post.told("slack").last().unwrap().title.clone();
    eventually("what follows", || last() == "afterwards").await;
    assert_eq!(post.told("slack").len(), heard + 1, "and nothing else");
    running.end(&world).await;
    intact(&world.store);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_to_nothing_at_the_first_try_undoes_nothing_at_the_second() {
    let (mut world, shelf) = outage(&Post::new(&[]));
    // It sees at once what the other one has said.
    world.options.fresh = Duration::ZERO;
    let other = {
        let mut other = World::new();
        other.store = Arc::new(world.store.beside(2));
        other.clock = world.clock.clone();
        other.does_due = false;
        other
    };
    let (running, neighbour) = (world.start(), other.start());
    let alert = |to| {
        Command::Alert(AlertChange {
            key: "prometheus:f".to_owned(),
            rule: "Down".to_owned(),
            to,
            severity: Severity::Sev1,
            component: "http".to_owned(),
            title: "it is down".to_owned(),
            message: String::new(),
            inhibited_by: None,
            instance: None,
            gone: None,
        })
    };
    running.engine.incidents().await.unwrap();
    goes_away(&world, &running).await;
    running.decide(stream(), alert(AlertPhase::Firing)).await;
    running.decide(stream(), silence()).await;
    // The other one has heard of it as well, and says it in the chain.
    neighbour.decide(stream(), alert(AlertPhase::Firing)).await;
    comes_back_for_half(&world, 2).await;
    neighbour.decide(stream(), alert(AlertPhase::Inactive)).await;
    world.store.go_away(false);
    stage(&running, Stage::Up).await;
    let state = running.engine.incidents().await.unwrap();
    assert_eq!(state.incidents().unwrap().alerts(), [], "it is over");
    neighbour.end(&other).await;
    running.end(&world).await;
    assert!(shelf_of(&shelf).is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_earlier_life_said_of_incidents_is_waited_for_while_it_is_looked_for() {
    let (world, shelf) = outage(&Post::new(&[]));
    shelf.left_gate.close();
    let running = world.start();
    eventually("it is looked for", || shelf.left_gate.waiting() == 1).await;
    let early = running.engine.act(request(stream(), declare("too early", "http"))).await;
    shelf.left_gate.open();
    assert_eq!(early.unwrap_err().reason, Reason::FirestoreError);
    running.persist(|| request(stream(), declare("in time", "http")), "key").await;
    assert_eq!(count(&*world.store, "incident.open"), 1);
    running.engine.drain(Duration::from_secs(5)).await;
    running.end(&world).await;
}
