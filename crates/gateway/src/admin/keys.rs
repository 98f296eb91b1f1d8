//! Tenants and keys.
//!
//! Owns: the one moment in which a key's text is shown. Refuses to know: what makes a key valid.

use dialect::admin;
use engine::access::{MadeKey, make_key};
use governors::{Command, KeyChange};
use http::StatusCode;
use ledger::{Kind, View};
use serde_json::{Value, json};
use types::{KeyId, KeyOwner, Micros, Reason, Scopes, StreamName, TenantId};

use super::{Asked, decide, ok, receipt};
use crate::Gateway;
use crate::answer::{Answer, Facts, Fault, Handled, fault, json_response, receipt_headers};

fn owner_of(tenant: Option<TenantId>) -> KeyOwner {
    tenant.map_or(KeyOwner::Service, KeyOwner::Tenant)
}

pub(super) async fn tenant_create(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let tenant = admin::tenant(&asked.body, &gateway.json)?;
    // The first look at a price registers a tenant; so does the operator's.
    let command = Command::Quote { charge: false };
    receipt(&decide(gateway, asked, StreamName::tenant(&tenant), command).await?)
}

pub(super) async fn tenant(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let bad = |error: types::IdError| fault(Reason::InvalidTenantId, format!("tenant_id {error}"));
    let tenant = TenantId::new(asked.segment()?).map_err(bad)?;
    let stream = StreamName::tenant(&tenant);
    let state = gateway.engine.state(&stream).await?;
    if !state.is_registered() {
        return Err(fault(Reason::NotFound, "there is no such tenant"));
    }
    let now = gateway.engine.clock().now();
    let entitlements: Vec<Value> = state
        .entitlements(now)
        .map(|held| json!({ "entitlement_id": held.id, "state": held.state, "plan": held.plan }))
        .collect();
    ok(&json!({
        "tenant_id": tenant.as_str(),
        "registered": true,
        "entitlements": entitlements,
        "keys": state.keys().iter().filter(|key| key.is_valid(now)).count(),
    }))
}

pub(super) async fn list(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let owner = owner_of(asked.tenant()?);
    let (state, now) = (gateway.engine.state(&owner.stream()).await?, gateway.engine.clock().now());
    let keys: Vec<Value> = state
        .keys()
        .iter()
        .filter(|key| key.is_valid(now))
        .map(|key| {
            json!({
                "id": key.id().to_string(),
                "scopes": words(key.scopes),
                "label": key.label,
                "issued_at": key.issued_at.secs(),
                "expires_at": key.expires_at.map(Micros::secs),
            })
        })
        .collect();
    ok(&json!({ "keys": keys }))
}

fn words(scopes: Scopes) -> Vec<&'static str> {
    scopes.iter().map(types::Scope::as_str).collect()
}

pub(super) async fn issue(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let order = admin::key(&asked.body, &gateway.json)?;
    let owner = owner_of(order.tenant_id);
    let usual = if owner == KeyOwner::Service { Scopes::ADMIN } else { Scopes::TENANT };
    let now = gateway.engine.clock().now();
    let made = made(gateway, &owner)?;
    let change = KeyChange::Issue {
        fingerprint: made.fingerprint,
        scopes: order.scopes.unwrap_or(usual),
        label: order.label,
        expires_at: order.expires_in_s.map(|seconds| now.plus_secs(i64::from(seconds))),
    };
    shown(gateway, asked, &owner, change, &made).await
}

pub(super) async fn rotate(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let order = admin::rotate(&asked.body, &gateway.json)?;
    let (owner, id) = (owner_of(order.tenant_id), key_id(asked)?);
    let made = made(gateway, &owner)?;
    let overlap_s = i64::from(order.overlap_s);
    let change = KeyChange::Rotate { id, fingerprint: made.fingerprint, overlap_s };
    shown(gateway, asked, &owner, change, &made).await
}

pub(super) async fn revoke(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let (owner, id) = (owner_of(asked.tenant()?), key_id(asked)?);
    let command = Command::Key(KeyChange::Revoke { id });
    receipt(&decide(gateway, asked, owner.stream(), command).await?)
}

fn key_id(asked: &Asked<'_>) -> Result<KeyId, Fault> {
    let unknown = || fault(Reason::NotFound, "there is no such key");
    KeyId::parse(asked.segment()?).ok_or_else(unknown)
}

fn made(gateway: &Gateway, owner: &KeyOwner) -> Result<MadeKey, Fault> {
    make_key(&gateway.engine.store().identity(), owner).map_err(|error| {
        tracing::error!(event = "key_not_made", %error, "cannot make a key");
        fault(Reason::InternalError, "the key could not be made")
    })
}

/// Decides the change and shows the new key, once. A caller who loses this answer revokes the key
/// and asks for another.
async fn shown(
    gateway: &Gateway,
    asked: &Asked<'_>,
    owner: &KeyOwner,
    change: KeyChange,
    made: &MadeKey,
) -> Handled {
    let decided = decide(gateway, asked, owner.stream(), Command::Key(change)).await?;
    let refused = View::scan(&decided.receipt.core).is_ok_and(|view| view.kind == Kind::Refusal);
    if refused {
        return receipt(&decided);
    }
    let body = json!({
        "key": made.text,
        "id": made.id().to_string(),
        "receipt_id": decided.receipt.id.to_string(),
    });
    let facts = Facts {
        tenant_id: owner.tenant().map(|tenant| tenant.as_str().to_owned()),
        receipt_id: Some(decided.receipt.id),
        reason: None,
        streams: false,
    };
    let mut response = json_response(StatusCode::CREATED, &body);
    receipt_headers(&mut response, decided.receipt.id, decided.durability);
    Ok(Answer { response, facts })
}
