//! Two engines over one store: the fence on positions is all that keeps them apart.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::task::JoinSet;

use crate::world::{QUOTE, World, request, tenant, verify};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_engines_interleave_on_one_chain_without_loss() {
    const TASKS: usize = 4;
    const EACH: usize = 50;
    let world = World::new();
    let engines = [Arc::new(world.start()), Arc::new(world.start())];
    let mut tasks = JoinSet::new();
    for (side, engine) in engines.iter().enumerate() {
        for task in 0..TASKS {
            let engine = Arc::clone(engine);
            tasks.spawn(async move {
                let mut ids = Vec::with_capacity(EACH);
                for nth in 0..EACH {
                    let key = format!("{side}-{task}-{nth}");
                    let decided = engine.persist(|| request(tenant(1), QUOTE), &key).await;
                    ids.push(decided.receipt.id);
                }
                ids
            });
        }
    }
    let ids: HashSet<_> = tasks.join_all().await.into_iter().flatten().collect();
    assert_eq!(ids.len(), 2 * TASKS * EACH);
    assert!(world.store.conflicts.load(Ordering::SeqCst) > 0, "they never met");
    for engine in engines {
        Arc::into_inner(engine).unwrap().engine.drain(std::time::Duration::from_secs(60)).await;
    }
    let checked = verify(&world.store);
    assert_eq!(checked.by_rule("account.quote")[&tenant(1)], 2 * TASKS * EACH);
    assert_eq!(checked.by_rule("tenant.register")[&tenant(1)], 1);
}
