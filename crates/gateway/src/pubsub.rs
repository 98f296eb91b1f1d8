//! `POST /pubsub`: push deliveries. A 2xx acknowledges the message; anything else has it
//! delivered again, and after five tries dead-lettered.
//!
//! Owns: the envelope, and who may deliver what. Refuses to know: what a message means.

use bytes::Bytes;
use dialect::pubsub::{Push, Signal, parse_push};
use engine::intake::{Message, tenant_of};
use http::StatusCode;
use serde_json::json;
use types::{Reason, Scope};

use crate::answer::{Answer, Facts, Handled, Refusal, decision, fault, json_response};
use crate::caller::Caller;
use crate::table::Access;
use crate::{Gateway, Options};

/// Decides one push delivery.
pub(crate) async fn push(
    gateway: &Gateway,
    options: &Options,
    caller: &Caller,
    body: &Bytes,
) -> Handled {
    let Push { message_id, payload, data, delivery_attempt, .. } = parse_push(body, &gateway.json)?;
    caller.may_name(tenant_of(&payload))?;
    if matches!(payload, Signal::Entitlement(_)) {
        // What the other door asks for: a tenant that may report signals must not grant itself a
        // plan by one. No push carries a signature, so that a tenant's key does not do there.
        caller.may_use(Access::Scope(Scope::MarketplaceWrite))?;
        if options.signatures.is_required() && caller.tenant().is_some() {
            let detail = "entitlement events of a tenant need a signature";
            return Err(fault(Reason::SignatureInvalid, detail));
        }
    }
    let is_plan_change = matches!(payload, Signal::Entitlement(_));
    if gateway.engine.queues_signals() && !is_plan_change {
        return queued(gateway, &message_id, body, &caller.actor("pubsub")).await;
    }
    let message = Message {
        id: &message_id,
        data: &data,
        payload,
        delivery_attempt,
        actor: caller.actor("pubsub"),
        may_register: true,
    };
    let decided = gateway.engine.take(message).await?;
    decision(&decided, Refusal::Acknowledged, |_, receipt| receipt)
}

/// Keeps a delivery on this machine while the receipt store is away. Whatever is wrong with it
/// shows when it is decided.
async fn queued(gateway: &Gateway, message_id: &str, body: &Bytes, actor: &str) -> Handled {
    gateway.engine.queue(body.to_vec(), actor).await?;
    tracing::info!(event = "signal_queued", message_id, "GRACEFUL_DEGRADE: Signal queued");
    let answer = json!({ "status": "queued", "message_id": message_id });
    Ok(Answer { response: json_response(StatusCode::ACCEPTED, &answer), facts: Facts::default() })
}
