//! `POST /pubsub`: push deliveries. A 2xx acknowledges the message; anything else has it
//! delivered again, and after five tries dead-lettered.
//!
//! Owns: the map from a decoded signal to a command. Refuses to know: what is decided.

use std::borrow::Cow;

use bytes::Bytes;
use dialect::pubsub::{Push, Signal as Wire, parse_push};
use engine::Request;
use engine::keys::CallerKey;
use governors::{Command, Signal};
use types::{StreamName, limits};

use crate::Gateway;
use crate::answer::{Handled, Refusal, decision, fault};
use crate::marketplace::entitlement;

/// Decides one push delivery.
pub(crate) async fn push(gateway: &Gateway, body: &Bytes) -> Handled {
    let Push { message_id, payload, data, delivery_attempt, .. } = parse_push(body, &gateway.json)?;
    let kind = payload.kind();
    gateway.metrics.signals_received.with([kind]).inc();
    let name = name(&payload).into_owned();
    let started = std::time::Instant::now();
    let (stream, command) = command(gateway, payload);
    let request = Request {
        stream,
        command,
        actor: "pubsub",
        may_register: true,
        key: Some(CallerKey { source: "pubsub", key: &message_id, body: &data }),
    };
    let outcome = gateway.engine.act(request).await;
    let message_processing_ms = started.elapsed().as_secs_f64() * 1e3;
    tracing::info!(
        event = "signal_received",
        kind,
        message_id,
        delivery_attempt,
        message_processing_ms,
        "Received {name} signal"
    );
    let Some(decided) = outcome? else {
        return Err(fault(types::Reason::StateError, "there is nothing to decide"));
    };
    decision(&decided, Refusal::Acknowledged, |_, receipt| receipt)
}

/// How the log line calls it: 002 scenario 7 greps `Received.*signal`.
fn name(signal: &Wire) -> Cow<'_, str> {
    match signal {
        Wire::Untenanted { signal, .. } => Cow::Borrowed(signal),
        other => Cow::Borrowed(other.kind()),
    }
}

fn command(gateway: &Gateway, signal: Wire) -> (StreamName, Command) {
    match signal {
        Wire::Entitlement(event) => entitlement(event),
        Wire::Measurement { tenant_id, metric, value, timestamp } => {
            let signal = Signal { metric, value_milli: value.0, measured_at: Some(timestamp) };
            (StreamName::tenant(&tenant_id), Command::Signal(signal))
        }
        Wire::Autonomic { tenant_id, signal_type, severity, timestamp } => {
            let value_milli = gateway.rules.severity_milli(severity.as_str()).unwrap_or_default();
            let metric = signal_type.as_str().to_owned();
            let signal = Signal { metric, value_milli, measured_at: timestamp };
            (StreamName::tenant(&tenant_id), Command::Signal(signal))
        }
        Wire::Untenanted { signal, .. } => {
            (StreamName::system(limits::STREAM_SIGNALS), Command::Untenanted { signal })
        }
    }
}
