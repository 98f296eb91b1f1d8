//! What a restart of a subsystem drops, and what it must not.

use std::sync::Arc;
use std::time::Duration;

use engine::keys::seal_snapshot;
use engine::ports::{Snapshot, Store, Stored};
use futures_util::future::join_all;
use governors::EntitlementAction::{Resume, Suspend};
use governors::StreamState;
use ledger::View;
use tokio::task::JoinSet;
use types::Reason;

use crate::world::{
    QUOTE, Running, World, entitlement, eventually, reason, request, states, tenant, verify, waits,
};

/// A snapshot that is sealed and belongs to the chain by its hash, of a state that the chain does
/// not lead to: the tenant is registered and holds nothing.
fn poison(world: &World) -> Snapshot {
    let chain = world.store.read(&tenant(1), 0, 10).unwrap();
    let mut state = StreamState::empty(&tenant(1));
    state.apply(&View::scan(&chain[0].core).unwrap()).unwrap();
    let last = chain.last().unwrap();
    let at = View::scan(&last.core).unwrap().at;
    let identity = world.store.identity();
    let state = seal_snapshot(&identity, &tenant(1), last.seq, last.hash, &state.to_snapshot());
    Snapshot { stream: tenant(1), seq: last.seq, hash: last.hash, at, state }
}

async fn restarted(running: &Running, name: &'static str) {
    let before = running.restarts()[name];
    assert!(running.engine.supervisor().restart(name));
    eventually("it has restarted", || running.restarts()[name] == before + 1).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_of_governance_heals_poisoned_memory() {
    let world = World::new();
    let running = world.start();
    running.admit([1]).await;
    running.decide(tenant(1), entitlement(Suspend)).await;
    running.end(&world).await;

    world.store.forge(poison(&world));
    let running = world.start();
    for round in ["from the snapshot", "from memory"] {
        let wrong = running.decide(tenant(1), entitlement(Resume)).await;
        assert_eq!(reason(&wrong.receipt), Some(Reason::StateError), "poisoned {round}");
        assert_eq!(states(&wrong.receipt).0, "unentitled", "poisoned {round}");
        world.store.forget_forged();
    }
    restarted(&running, "governance_sup").await;
    let right = running.decide(tenant(1), entitlement(Resume)).await;
    assert_eq!(states(&right.receipt), ("suspended".to_owned(), "entitled".to_owned()));
    for (name, restarts) in running.restarts() {
        assert_eq!(restarts, u64::from(name == "governance_sup"), "{name}");
    }
    running.end(&world).await;
    verify(&world.store);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_that_was_read_before_a_restart_is_not_taken_after_it() {
    let world = World::new();
    let running = world.start();
    running.admit([1]).await;
    running.decide(tenant(1), entitlement(Suspend)).await;
    running.end(&world).await;

    world.store.forge(poison(&world));
    let running = Arc::new(world.start());
    world.store.reads_gate.close();
    let mut task = JoinSet::new();
    let engine = running.engine.clone();
    task.spawn(async move { engine.act(request(tenant(1), entitlement(Resume))).await });
    eventually("the poisoned read is under way", || world.store.reads_gate.waiting() == 1).await;
    world.store.forget_forged();
    restarted(&running, "governance_sup").await;
    world.store.reads_gate.open();
    let decided = task.join_next().await.unwrap().unwrap().unwrap().unwrap();
    assert_eq!(states(&decided.receipt).0, "suspended");
    Arc::into_inner(running).unwrap().end(&world).await;
    verify(&world.store);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_queued_survives_a_restart() {
    for name in ["governance_sup", "receipt_ledger_sup"] {
        let world = World::new();
        let running = world.start();
        running.admit(0..4).await;
        let mut asked = running.hold_up(&world, ["a", "b"]).await;
        for n in 0..20 {
            asked.push(Box::pin(running.engine.act(request(tenant(n % 4), QUOTE))));
            assert!(asked.last_mut().is_some_and(waits));
        }
        assert!(running.engine.supervisor().restart(name));
        // The writer waits for the store, the decider does not wait for the writer.
        let stopped = || {
            let status = running.engine.supervisor().status();
            let part = status.iter().find(|subsystem| subsystem.name == name).unwrap();
            part.state == "starting" || part.restarts == 1
        };
        eventually("it is stopped", stopped).await;
        for n in 0..20 {
            asked.push(Box::pin(running.engine.act(request(tenant(n % 4), QUOTE))));
            assert!(asked.last_mut().is_some_and(waits));
        }
        world.store.appends_gate.open();
        let answers = join_all(asked).await;
        let refused: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
        assert!(refused.is_empty(), "{name}: {refused:?}");
        eventually("it has restarted", || running.restarts()[name] == 1).await;
        running.end(&world).await;
        assert_eq!(verify(&world.store).by_rule("account.quote").values().sum::<usize>(), 42);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_comes_to_its_end_under_load() {
    let world = World::new();
    let running = Arc::new(world.start());
    running.admit(0..8).await;
    let mut load = JoinSet::new();
    for task in 0..32 {
        let running = Arc::clone(&running);
        load.spawn(async move {
            let mut answered = 0;
            while running.restarts().values().sum::<u64>() < 6 {
                running.decide(tenant(task % 8), QUOTE).await;
                answered += 1;
            }
            answered
        });
    }
    // Fewer than the intensity limit, which counts falls and not requests, and each while the
    // queue is never empty.
    for _ in 0..3 {
        restarted(&running, "governance_sup").await;
        restarted(&running, "receipt_ledger_sup").await;
    }
    let answered: usize = load.join_all().await.into_iter().sum();
    Arc::into_inner(running).unwrap().end(&world).await;
    let quotes: usize = verify(&world.store).by_rule("account.quote").values().sum();
    assert_eq!(quotes, answered, "each answer is a receipt, each receipt was an answer");
}

/// With paused time, so that the ten seconds between two records of refusals pass at once.
#[tokio::test(start_paused = true)]
async fn a_restart_while_refusals_are_being_recorded_comes_to_its_end() {
    const ROUNDS: u64 = 12;
    let world = World::new().tuned(|options| options.check_interval = Duration::from_secs(5));
    let running = world.start();
    running.admit([1]).await;
    for round in 1..=ROUNDS {
        // The record of the round before must not come in between.
        eventually("it is recorded", || recorded(&world) == round - 1).await;
        running.decide(tenant(1), QUOTE).await;
        let keys = ["a", "b"].map(|key| format!("{key}-{round}"));
        let asked = running.hold_up(&world, [&keys[0], &keys[1]]).await;
        running.engine.refused_at_edge(Reason::MissingField, "/pubsub", None);
        // Waits for nobody: the clock is paused, and moves on to where refusals are recorded.
        tokio::time::sleep(Duration::from_secs(11)).await;
        assert!(running.engine.supervisor().restart("governance_sup"));
        let done = || running.restarts()["governance_sup"] == round;
        eventually("it has restarted", done).await;
        world.store.appends_gate.open();
        let answers = join_all(asked).await;
        let refused: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
        assert!(refused.is_empty(), "{refused:?}");
    }
    running.end(&world).await;
    verify(&world.store);
    assert_eq!(recorded(&world), ROUNDS, "none lost, none counted twice");
}

/// How many refusals the receipts about them count.
fn recorded(world: &World) -> u64 {
    let edge = types::StreamName::system(types::limits::STREAM_EDGE);
    let receipts = world.store.read(&edge, 0, 1_000).unwrap();
    let count = |stored: &Stored| View::scan(&stored.core).unwrap().meta_int("count").unwrap();
    receipts.iter().map(count).sum::<i64>().unsigned_abs()
}
