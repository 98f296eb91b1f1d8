//! `POST /pubsub`: push deliveries. A 2xx acknowledges the message; anything else has it
//! delivered again, and after five tries dead-lettered.
//!
//! Owns: the envelope, and who may deliver what. Refuses to know: what a message means.

use bytes::Bytes;
use dialect::pubsub::{Push, parse_push};
use engine::intake::{Message, tenant_of};

use crate::Gateway;
use crate::answer::{Handled, Refusal, decision};
use crate::caller::Caller;

/// Decides one push delivery.
pub(crate) async fn push(gateway: &Gateway, caller: &Caller, body: &Bytes) -> Handled {
    let Push { message_id, payload, data, delivery_attempt, .. } = parse_push(body, &gateway.json)?;
    caller.may_name(tenant_of(&payload))?;
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
