//! Cold streams: loaded, dropped, loaded again, and never from a snapshot that is not of the
//! chain.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use engine::keys::seal_snapshot;
use engine::ports::{Snapshot, Store};
use futures_util::future::join_all;
use governors::EntitlementAction::{Grant, Resume, Suspend};
use governors::StreamState;
use tokio::task::JoinSet;
use types::{Hash, Micros, Reason};

use crate::world::{QUOTE, World, entitlement, reason, request, signal, states, tenant, verify};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_tenants_go_through_a_hundred_places() {
    const TENANTS: usize = 2_000;
    const TASKS: usize = 16;
    let world = World::new().tuned(|options| options.states_max = 100);
    let running = Arc::new(world.start());
    for (action, to) in [(Grant, "entitled"), (Suspend, "suspended"), (Resume, "entitled")] {
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let running = Arc::clone(&running);
            tasks.spawn(async move {
                for n in (task..TENANTS).step_by(TASKS) {
                    let decided = running.decide(tenant(n), entitlement(action)).await;
                    assert_eq!(states(&decided.receipt).1, to, "tenant {n}");
                }
            });
        }
        tasks.join_all().await;
    }
    let loaded = running.metrics.streams_loaded.get();
    // Room is made behind each group, which holds at most one command of each task: one may
    // overfill the generation that is closed, and one is in flight and stays.
    assert!(loaded <= 100 + 2 * TASKS as i64, "{loaded} states in memory");
    Arc::into_inner(running).unwrap().end(&world).await;
    assert_eq!(verify(&world.store).by_rule("tenant.register").len(), TENANTS);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tenants_that_nobody_knows_do_not_fill_the_memory() {
    let world = World::new().tuned(|options| options.states_max = 100);
    let running = world.start();
    for n in 0..1_000 {
        let mut unknown = request(tenant(n), signal("cpu", 90));
        unknown.may_register = false;
        assert_eq!(running.refused(unknown).await.reason, Reason::UnknownTenant);
    }
    let loaded = running.metrics.streams_loaded.get();
    assert!((1..=100).contains(&loaded), "{loaded} states in memory");
    assert_eq!(world.store.size(), 0, "and none in the ledger");
    running.end(&world).await;
    verify(&world.store);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_outside_the_chain_is_not_believed() {
    let world = World::new();
    let running = world.start();
    running.admit([1]).await;
    running.decide(tenant(1), entitlement(Suspend)).await;
    running.end(&world).await;
    let chain = world.store.read(&tenant(1), 0, 10).unwrap();
    let state = StreamState::empty(&tenant(1)).to_snapshot();
    let forged = |seq, hash, state: &[u8]| Snapshot {
        stream: tenant(1),
        seq,
        hash,
        at: Micros(1),
        state: seal_snapshot(&world.store.identity(), &tenant(1), seq, hash, state),
    };
    for snapshot in [
        forged(2, Hash([7; 32]), &state),
        forged(1, chain[2].hash, &state),
        forged(2, chain[1].hash, &state),
        forged(3, chain[2].hash, &state),
        forged(2, chain[2].hash, b"{}"),
    ] {
        world.store.forge(snapshot);
        let running = world.start();
        let refusal = running.decide(tenant(1), entitlement(Suspend)).await;
        assert_eq!(states(&refusal.receipt).0, "suspended");
        assert_eq!(reason(&refusal.receipt), Some(Reason::StateError));
        running.end(&world).await;
    }
    world.store.forget_forged();
    verify(&world.store);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_stream_loads_from_its_snapshot_and_a_short_tail() {
    let world = World::new();
    let running = world.start();
    running.admit([1]).await;
    for _ in 0..10 {
        join_all((0..500).map(|_| running.decide(tenant(1), QUOTE))).await;
    }
    running.end(&world).await;
    let running = world.start();
    let before = world.store.rows_read.load(Ordering::SeqCst);
    let decided = running.decide(tenant(1), entitlement(Suspend)).await;
    assert_eq!((decided.receipt.seq, states(&decided.receipt).0.as_str()), (5_002, "entitled"));
    let read = world.store.rows_read.load(Ordering::SeqCst) - before;
    assert!(read <= 129, "{read} receipts read for one decision");
    running.end(&world).await;
    verify(&world.store);
}
