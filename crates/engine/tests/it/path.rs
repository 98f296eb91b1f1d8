//! The path of a command when nothing fails: receipts, links, replays (INV-7), groups, order in
//! time (INV-17), limits (INV-13).

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures_util::FutureExt;
use futures_util::future::join_all;
use governors::EntitlementAction::{Grant, Resume, Revoke, Suspend};
use ledger::chain_hash;
use tokio::task::JoinSet;
use types::Reason;

use crate::world::{
    Asked, QUOTE, World, entitlement, eventually, keyed, reason, request, states, tenant, verify,
    view, waits,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_life_of_an_entitlement_is_one_chain() {
    let world = World::new();
    let running = world.start();
    let mut last = None;
    for (action, seq, from, to) in [
        (Grant, 1, "unentitled", "entitled"),
        (Suspend, 2, "entitled", "suspended"),
        (Resume, 3, "suspended", "entitled"),
        (Revoke, 4, "entitled", "revoked"),
    ] {
        let decided = running.decide(tenant(1), entitlement(action)).await;
        let receipt = &decided.receipt;
        assert!(!decided.replayed);
        assert_eq!((receipt.seq, states(receipt)), (seq, (from.to_owned(), to.to_owned())));
        let prev = view(receipt).prev_hash;
        assert_eq!(receipt.chain_hash, chain_hash(prev, receipt.hash));
        if seq > 1 {
            assert_eq!(prev, last, "linked to the receipt before");
        }
        last = Some(receipt.hash);
        let found = running.engine.find(receipt.id).await.unwrap().unwrap();
        assert_eq!(*found.core, *receipt.core, "what was answered is what is stored");
    }
    let refusal = running.decide(tenant(1), entitlement(Grant)).await;
    assert_eq!(reason(&refusal.receipt), Some(Reason::StateError), "revoked for good");
    running.end(&world).await;
    let checked = verify(&world.store);
    let chain = checked.of(&tenant(1));
    assert_eq!(chain.len(), 6);
    assert_eq!(states_of_first(&chain), ("unregistered".to_owned(), "registered".to_owned()));
}

fn states_of_first(chain: &[&engine::ports::Stored]) -> (String, String) {
    let view = ledger::View::scan(&chain[0].core).unwrap();
    let text = |raw: Option<ledger::scan::Raw<'_>>| raw.unwrap().text().into_owned();
    (text(view.state_from), text(view.state_to))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repeated_key_gets_the_first_receipt_and_another_body_none() {
    let world = World::new();
    let running = world.start();
    let ask = |body| running.engine.act(keyed(tenant(1), entitlement(Grant), "key-1", body));
    let first = ask("{}").await.unwrap().unwrap();
    let size = world.store.size();
    let again = ask("{}").await.unwrap().unwrap();
    assert!(again.replayed && !first.replayed);
    assert_eq!(again.receipt, first.receipt, "byte for byte");
    let other = ask("{ }").await.unwrap_err();
    assert_eq!(other.reason, Reason::DuplicateMessage);
    assert_eq!(world.store.size(), size, "neither left a receipt");

    // The same key of another tenant is another key.
    let stranger = running.engine.act(keyed(tenant(2), entitlement(Grant), "key-1", "{}")).await;
    assert!(!stranger.unwrap().unwrap().replayed);

    // A restart remembers: the key is in the store.
    running.end(&world).await;
    let running = world.start();
    let later = running.engine.act(keyed(tenant(1), entitlement(Grant), "key-1", "{}")).await;
    let later = later.unwrap().unwrap();
    assert_eq!((later.replayed, &later.receipt), (true, &first.receipt));
    running.end(&world).await;
    verify(&world.store);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn duplicates_of_a_command_in_flight_wait_for_its_receipt() {
    let world = World::new();
    let running = Arc::new(world.start());
    running.admit([1]).await;
    world.store.appends_gate.close();
    let mut asked = JoinSet::new();
    let ask = |body| {
        let running = Arc::clone(&running);
        async move { running.engine.act(keyed(tenant(1), QUOTE, "key-1", body)).await }
    };
    asked.spawn(ask("{}"));
    eventually("the first is in flight", || world.store.appends_gate.waiting() == 1).await;
    (0..8).for_each(|_| drop(asked.spawn(ask("{}"))));
    let mut others = JoinSet::new();
    (0..4).for_each(|_| drop(others.spawn(ask("[]"))));
    let replays = || running.metrics.receipts_replayed.get() > 0;
    eventually("a repeat is known before the first is durable", replays).await;
    assert!(asked.try_join_next().is_none(), "nobody was told before it was durable");
    world.store.appends_gate.open();
    let answers: Vec<_> =
        asked.join_all().await.into_iter().map(|answer| answer.unwrap().unwrap()).collect();
    assert!(answers.iter().all(|answer| answer.receipt == answers[0].receipt));
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1);
    for other in others.join_all().await {
        assert_eq!(other.unwrap_err().reason, Reason::DuplicateMessage);
    }
    let running = Arc::into_inner(running).unwrap();
    running.end(&world).await;
    assert_eq!(verify(&world.store).by_rule("account.quote")[&tenant(1)], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_callers_share_few_commits_and_each_stream_is_one_chain() {
    const TASKS: usize = 64;
    const EACH: usize = 200;
    const TENANTS: usize = 7;
    let world = World::new();
    let running = Arc::new(world.start());
    let mut tasks = JoinSet::new();
    for task in 0..TASKS {
        let running = Arc::clone(&running);
        tasks.spawn(async move {
            let mut ids = Vec::with_capacity(EACH);
            for nth in 0..EACH {
                let decided = running.decide(tenant((task + nth) % TENANTS), QUOTE).await;
                ids.push(decided.receipt.id);
            }
            ids
        });
    }
    let ids: HashSet<_> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(ids.len(), TASKS * EACH, "everyone has a receipt of their own");
    let appends = world.store.appends.load(Ordering::SeqCst);
    assert!(appends < (TASKS * EACH / 2) as u64, "{appends} commits: no groups form");
    let running = Arc::into_inner(running).unwrap();
    running.end(&world).await;
    let checked = verify(&world.store);
    assert_eq!(checked.by_rule("account.quote").values().sum::<usize>(), TASKS * EACH);
    assert_eq!(checked.by_rule("tenant.register").values().sum::<usize>(), TENANTS);
    assert!(checked.by_rule("tenant.register").values().all(|count| *count == 1));
    let stored: HashSet<_> = checked.receipts.iter().map(|stored| stored.id).collect();
    assert!(ids.is_subset(&stored));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_queue_refuses_at_once_and_says_when_to_come_back() {
    let world = World::new().tuned(|options| options.queue_max = 4);
    let running = world.start();
    running.admit([1]).await;
    // The decider takes whatever the queue has, unless it waits itself.
    world.store.keys_gate.close();
    let mut waiting: Vec<Asked<'_>> =
        vec![Box::pin(running.engine.act(keyed(tenant(1), QUOTE, "a", "{}")))];
    assert!(waits(&mut waiting[0]));
    eventually("the decider is held up", || world.store.keys_gate.waiting() == 1).await;
    for _ in 0..4 {
        waiting.push(Box::pin(running.engine.act(request(tenant(1), QUOTE))));
        assert!(waiting.last_mut().is_some_and(waits));
    }
    let refused = running.engine.act(request(tenant(1), QUOTE)).now_or_never();
    let refused = refused.unwrap_or_else(|| panic!("a full queue made the caller wait"));
    let refused = refused.unwrap_err();
    assert_eq!((refused.reason, refused.retry_after_s), (Reason::ServiceUnavailable, Some(1)));
    world.store.keys_gate.open();
    let answers = join_all(waiting).await;
    assert!(answers.iter().all(Result::is_ok), "whoever was let in is answered");
    running.end(&world).await;
    assert_eq!(verify(&world.store).by_rule("account.quote")[&tenant(1)], 5);
}
