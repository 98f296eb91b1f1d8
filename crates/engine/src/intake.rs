//! Signals in: one way for messages that are pushed and for those that are pulled.
//!
//! Owns: the map from a decoded message to a command, and the log line about it. Refuses to know:
//! who delivers, and what an answer does to the message.

use std::borrow::Cow;
use std::time::Instant;

use dialect::marketplace::{Action, EntitlementEvent};
use dialect::pubsub::Signal as Wire;
use governors::{Command, EntitlementAction, EntitlementChange, Signal};
use types::{Reason, StreamName, TenantId, limits};

use crate::act::{Engine, Request};
use crate::commit::{Decided, Refused};
use crate::keys::CallerKey;

/// One decoded message.
#[derive(Debug, Clone)]
pub struct Message<'a> {
    /// The message's id: its idempotency key.
    pub id: &'a str,
    /// The decoded data, byte for byte.
    pub data: &'a [u8],
    /// What it says.
    pub payload: Wire,
    /// How often it was delivered, where the source tells.
    pub delivery_attempt: Option<u32>,
    /// For the receipt's `actor`: a key's id, or the source.
    pub actor: Cow<'static, str>,
    /// May register an unknown tenant.
    pub may_register: bool,
}

/// The tenant that a message names.
#[must_use]
pub fn tenant_of(payload: &Wire) -> Option<&TenantId> {
    match payload {
        Wire::Entitlement(event) => Some(&event.tenant_id),
        Wire::Measurement { tenant_id, .. } | Wire::Autonomic { tenant_id, .. } => Some(tenant_id),
        Wire::Untenanted { .. } => None,
    }
}

impl Engine {
    /// Decides one message. `Ok` is durable, as for [`Engine::act`].
    ///
    /// # Errors
    /// As [`Engine::act`].
    pub async fn take(&self, message: Message<'_>) -> Result<Decided, Refused> {
        let Message { id, data, payload, delivery_attempt, actor, may_register } = message;
        let kind = payload.kind();
        self.inner().common.metrics.signals_received.with([kind]).inc();
        let name = name(&payload).into_owned();
        let started = Instant::now();
        let (stream, command) = self.command(payload);
        let key = Some(CallerKey { source: "pubsub", key: id, body: data });
        let outcome = self.act(Request { stream, command, actor, may_register, key }).await;
        let message_processing_ms = started.elapsed().as_secs_f64() * 1e3;
        tracing::info!(
            event = "signal_received",
            kind,
            message_id = id,
            delivery_attempt,
            message_processing_ms,
            "Received {name} signal"
        );
        outcome?.ok_or_else(|| Refused::new(Reason::StateError, "there is nothing to decide"))
    }

    fn command(&self, signal: Wire) -> (StreamName, Command) {
        match signal {
            Wire::Entitlement(event) => entitlement(event),
            Wire::Measurement { tenant_id, metric, value, timestamp } => {
                let signal = Signal { metric, value_milli: value.0, measured_at: Some(timestamp) };
                (StreamName::tenant(&tenant_id), Command::Signal(signal))
            }
            Wire::Autonomic { tenant_id, signal_type, severity, timestamp } => {
                let value_milli = self.inner().common.rules.severity_milli(severity.as_str());
                let value_milli = value_milli.unwrap_or_default();
                let metric = signal_type.as_str().to_owned();
                let signal = Signal { metric, value_milli, measured_at: timestamp };
                (StreamName::tenant(&tenant_id), Command::Signal(signal))
            }
            Wire::Untenanted { signal, .. } => {
                (StreamName::system(limits::STREAM_SIGNALS), Command::Untenanted { signal })
            }
        }
    }
}

/// How the log line calls it: 002 scenario 7 greps `Received.*signal`.
fn name(signal: &Wire) -> Cow<'_, str> {
    match signal {
        Wire::Untenanted { signal, .. } => Cow::Borrowed(signal),
        other => Cow::Borrowed(other.kind()),
    }
}

/// The command of an entitlement event, from whichever door it came.
#[must_use]
pub fn entitlement(event: EntitlementEvent) -> (StreamName, Command) {
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
