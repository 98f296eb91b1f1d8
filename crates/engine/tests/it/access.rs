//! Keys in memory and keys in the chain: whoever is told of a change finds it in force.
//!
//! Owns: the cache of owners' keys under a writer that dies. Refuses to know: what a key permits.

use engine::access::{MadeKey, make_key};
use engine::ports::Store as _;
use governors::{Command, KeyChange};
use types::{KeyOwner, Reason, Scopes, TenantId};

use crate::fault_store::Fault;
use crate::world::{QUOTE, Running, World, eventually, request, runtime, tenant, verify};

fn owner() -> KeyOwner {
    KeyOwner::Tenant(TenantId::new("acme").unwrap())
}

async fn issued(world: &World, running: &Running) -> MadeKey {
    let made = make_key(&world.store.identity(), &owner()).unwrap();
    let change = KeyChange::Issue {
        fingerprint: made.fingerprint,
        scopes: Scopes::TENANT,
        label: None,
        expires_at: None,
    };
    running.decide(owner().stream(), Command::Key(change)).await;
    made
}

async fn refusal(running: &Running, made: &MadeKey) -> Option<Reason> {
    running.engine.authenticate(&made.text).await.err().map(|refused| refused.reason)
}

#[test]
fn a_key_is_valid_from_its_receipt_until_that_of_its_revocation() {
    let world = World::new();
    runtime().block_on(async {
        let running = world.start();
        let made = issued(&world, &running).await;
        assert_eq!(refusal(&running, &made).await, None);
        let revoke = Command::Key(KeyChange::Revoke { id: made.id() });
        running.decide(owner().stream(), revoke).await;
        assert_eq!(refusal(&running, &made).await, Some(Reason::Unauthorized));
        running.end(&world).await;
    });
    verify(&world.store);
}

#[test]
fn a_revocation_is_in_force_also_when_the_writer_dies_behind_it() {
    let world = World::new();
    runtime().block_on(async {
        let running = world.start();
        let made = issued(&world, &running).await;
        assert_eq!(refusal(&running, &made).await, None, "and remembered");
        world.store.plan(Fault::Dies);
        let revoke = Command::Key(KeyChange::Revoke { id: made.id() });
        let outcome = running.engine.act(request(owner().stream(), revoke)).await;
        assert!(outcome.is_err(), "nobody is told what became of it");
        eventually("the writer lives again", || running.restarts()["receipt_ledger_sup"] == 1)
            .await;
        // It passes the writer that came after, and is no change to a key of this owner.
        running.decide(tenant(1), QUOTE).await;
        assert_eq!(refusal(&running, &made).await, Some(Reason::Unauthorized));
        running.end(&world).await;
    });
    verify(&world.store);
}
