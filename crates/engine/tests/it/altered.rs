//! Bytes that were altered behind the service's back: never believed, never decided on.

use engine::Writes;
use engine::keys::seal_snapshot;
use engine::ports::{Snapshot, Store, Stored};
use governors::EntitlementAction::Suspend;
use governors::StreamState;
use ledger::View;
use types::Reason;

use crate::fault_store::Reading;
use crate::world::{QUOTE, World, entitlement, keyed, reason, request, states, tenant, verify};

/// Who asked is somebody else now: the bytes still scan, link and fold.
fn rename(stored: &mut Stored) {
    let core = String::from_utf8(stored.core.clone()).unwrap();
    let other = core.replace("\"test\"", "\"tess\"");
    assert_ne!(core, other);
    stored.core = other.into_bytes();
}

fn truncate(stored: &mut Stored) {
    stored.core.truncate(10);
}

fn relink(stored: &mut Stored) {
    stored.chain_hash.0[0] ^= 1;
}

const ALTERATIONS: [fn(&mut Stored); 3] = [rename, truncate, relink];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_altered_receipt_is_not_folded() {
    for alter in ALTERATIONS {
        let world = World::new().tuned(|options| options.writes = Writes::Open);
        let running = world.start();
        running.decide(tenant(1), QUOTE).await;
        running.end(&world).await;
        let running = world.start();
        world.store.alter(Some(alter));
        let refused = running.refused(request(tenant(1), QUOTE)).await;
        assert_eq!(refused.reason, Reason::FirestoreError);
        assert!(running.engine.is_tampered());
        world.store.alter(None);
        running.decide(tenant(1), QUOTE).await;
        assert!(running.engine.is_tampered(), "until the next start");
        running.end(&world).await;
        verify(&world.store);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_altered_answer_is_neither_repeated_nor_decided_again() {
    for alter in ALTERATIONS {
        let world = World::new().tuned(|options| options.writes = Writes::Open);
        let running = world.start();
        running.decide(tenant(1), QUOTE).await;
        let ask = || running.engine.act(keyed(tenant(1), QUOTE, "key", "{}"));
        let first = ask().await.unwrap().unwrap();
        // A group after it: the answer is no longer in memory.
        running.decide(tenant(1), QUOTE).await;
        let size = world.store.size();
        world.store.alter(Some(alter));
        assert_eq!(ask().await.unwrap_err().reason, Reason::FirestoreError);
        assert!(running.engine.is_tampered());
        running.decide(tenant(1), QUOTE).await;
        assert_eq!(world.store.size(), size + 1, "others are served");
        world.store.alter(None);
        let again = ask().await.unwrap().unwrap();
        assert_eq!((again.replayed, again.receipt), (true, first.receipt));
        running.end(&world).await;
        verify(&world.store);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_is_believed_only_under_its_seal() {
    let world = World::new().tuned(|options| options.writes = Writes::Open);
    let running = world.start();
    running.admit([1]).await;
    running.decide(tenant(1), entitlement(Suspend)).await;
    running.end(&world).await;
    let chain = world.store.read(&tenant(1), 0, 10).unwrap();
    let last = chain.last().unwrap();
    let at = View::scan(&last.core).unwrap().at;
    let forged = StreamState::empty(&tenant(1)).to_snapshot();
    let identity = world.store.identity();
    let sealed = |identity, seq| seal_snapshot(&identity, &tenant(1), seq, last.hash, &forged);
    let mut stranger = identity;
    stranger.secret[0] ^= 1;
    let mut flipped = sealed(identity, last.seq);
    flipped[0] ^= 1;
    let states_of = [
        forged.clone(),
        Vec::new(),
        flipped,
        sealed(stranger, last.seq),
        sealed(identity, last.seq - 1),
    ];
    for state in states_of {
        let snapshot = Snapshot { stream: tenant(1), seq: last.seq, hash: last.hash, at, state };
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
async fn a_store_that_is_corrupt_where_every_decision_stands_stops_the_service() {
    let world = World::new().tuned(|options| options.writes = Writes::Open);
    let running = world.start();
    running.admit([1]).await;
    world.store.corrupt(Reading::Keys);
    let refused = running.refused(keyed(tenant(1), QUOTE, "key", "{}")).await;
    assert_eq!(refused.reason, Reason::FirestoreError);
    let told =
        tokio::time::timeout(std::time::Duration::from_secs(60), running.engine.store_failed());
    assert!(told.await.is_ok(), "the process is not told to stop");
    world.store.fail(None);
    running.end(&world).await;

    let world = World::new().tuned(|options| options.writes = Writes::Open);
    world.store.corrupt(Reading::Head);
    let running = world.start();
    running.engine.store_failed().await;
    world.store.fail(None);
    running.decide(tenant(1), QUOTE).await;
    running.end(&world).await;
}
