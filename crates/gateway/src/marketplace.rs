//! `POST /marketplace`: entitlement events and customer calls (seeds 000 and 002).
//!
//! Owns: the map from a parsed body to a command, and who may send which. Refuses to know: prices
//! and states.

use bytes::Bytes;
use dialect::marketplace::{Call, parse};
use engine::Request;
use engine::intake::entitlement;
use engine::keys::CallerKey;
use governors::Command;
use http::HeaderMap;
use types::{Reason, StreamName};

use crate::answer::{Handled, Refusal, decision, fault, price_body};
use crate::body::idempotency_key;
use crate::caller::Caller;
use crate::{Gateway, Options};

/// Decides one call.
pub(crate) async fn call(
    gateway: &Gateway,
    options: &Options,
    caller: &Caller,
    headers: &HeaderMap,
    body: &Bytes,
) -> Handled {
    let key = idempotency_key(headers)?;
    let (stream, command, priced) = match parse(body, &gateway.json)? {
        Call::Entitlement(event) => {
            let now = gateway.engine.clock().now();
            options.signatures.check(headers, body, &event, now)?;
            caller.may_name(Some(&event.tenant_id))?;
            let (stream, command) = entitlement(event);
            (stream, command, false)
        }
        // A price is asked for with a key: there is nothing that the caller signs.
        Call::Customer(_) if *caller == Caller::Unproven => {
            return Err(fault(Reason::Unauthorized, "the request needs a key"));
        }
        Call::Customer(call) => {
            caller.may_name(Some(&call.customer_id))?;
            let command = Command::Quote { charge: call.has_stripe_token };
            (StreamName::tenant(&call.customer_id), command, true)
        }
    };
    let request = Request {
        stream,
        command,
        actor: caller.actor("marketplace"),
        may_register: true,
        key: key.map(|key| CallerKey { source: "marketplace", key, body }),
    };
    let Some(decided) = gateway.engine.act(request).await? else {
        return Err(fault(Reason::StateError, "there is nothing to decide"));
    };
    decision(
        &decided,
        Refusal::Error,
        |view, receipt| {
            if priced { price_body(view, &receipt) } else { receipt }
        },
    )
}
