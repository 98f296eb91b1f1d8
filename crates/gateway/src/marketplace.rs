//! `POST /marketplace`: entitlement events and customer calls (seeds 000 and 002).
//!
//! Owns: the map from a parsed body to a command. Refuses to know: prices and states.

use bytes::Bytes;
use dialect::marketplace::{Action, Call, EntitlementEvent, parse};
use engine::Request;
use engine::keys::CallerKey;
use governors::{Command, EntitlementAction, EntitlementChange};
use http::HeaderMap;
use types::StreamName;

use crate::Gateway;
use crate::answer::{Handled, Refusal, decision, fault, price_body};
use crate::body::idempotency_key;

/// Decides one call.
pub(crate) async fn call(gateway: &Gateway, headers: &HeaderMap, body: &Bytes) -> Handled {
    let key = idempotency_key(headers)?;
    let (stream, command, priced) = match parse(body, &gateway.json)? {
        Call::Entitlement(event) => {
            let (stream, command) = entitlement(event);
            (stream, command, false)
        }
        Call::Customer(call) => {
            let command = Command::Quote { charge: call.has_stripe_token };
            (StreamName::tenant(&call.customer_id), command, true)
        }
    };
    let request = Request {
        stream,
        command,
        actor: "marketplace",
        may_register: true,
        key: key.map(|key| CallerKey { source: "marketplace", key, body }),
    };
    let Some(decided) = gateway.engine.act(request).await? else {
        return Err(fault(types::Reason::StateError, "there is nothing to decide"));
    };
    decision(
        &decided,
        Refusal::Error,
        |view, receipt| {
            if priced { price_body(view, &receipt) } else { receipt }
        },
    )
}

/// The command of an entitlement event, from whichever door it came.
pub(crate) fn entitlement(event: EntitlementEvent) -> (StreamName, Command) {
    let EntitlementEvent {
        tenant_id,
        entitlement_id,
        action,
        effective_at,
        expires_at,
        plan,
        metadata,
    } = event;
    let action = match action {
        Action::Grant => EntitlementAction::Grant,
        Action::Revoke => EntitlementAction::Revoke,
        Action::Suspend => EntitlementAction::Suspend,
        Action::Resume => EntitlementAction::Resume,
    };
    let change =
        EntitlementChange { entitlement_id, action, effective_at, expires_at, plan, metadata };
    (StreamName::tenant(&tenant_id), Command::Entitlement(change))
}
