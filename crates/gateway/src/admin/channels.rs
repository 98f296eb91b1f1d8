//! The channels over which incidents are told.
//!
//! Owns: how each is shown, and what is said of a test. Refuses to know: how a channel is spoken
//! to.

use engine::notify::Delivery;
use governors::notices::{Channel, NoticesState};
use serde_json::{Value, json};
use types::{Micros, Reason};

use super::{Asked, note, ok};
use crate::Gateway;
use crate::answer::{Handled, fault};

/// The channels that have taken anything of an incident.
pub(super) fn takers(state: &NoticesState, incident: &str) -> Vec<String> {
    let takers = state.channels().iter().filter(|channel| channel.has_heard_of(incident));
    takers.map(|channel| channel.name.clone()).collect()
}

pub(super) async fn list(gateway: &Gateway) -> Handled {
    let state = gateway.engine.notices().await?;
    let channels: Vec<Value> = state.channels().iter().map(shown).collect();
    ok(&json!({ "channels": channels }))
}

fn shown(channel: &Channel) -> Value {
    let secs = |at_us: Option<i64>| at_us.map(|at_us| Micros(at_us).secs());
    json!({
        "name": channel.name,
        "next": channel.next,
        "failures": channel.failures,
        "telling": channel.open.is_some(),
        "last_taken": secs(channel.last_taken_us),
        "last_failed": secs(channel.last_failed_us),
        "last_error": channel.last_error,
    })
}

/// Tells a channel a notice that is marked as a test.
pub(super) async fn test(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let name = asked.segment()?;
    if !gateway.engine.has_channel(name) {
        return Err(fault(Reason::NotFound, "there is no such channel"));
    }
    note(gateway, asked, "channel_test", &format!("the operator tests the channel {name}")).await?;
    let tested = gateway.engine.test_channel(name, asked.caller.actor("admin")).await;
    let tested = tested.ok_or_else(|| fault(Reason::NotFound, "there is no such channel"))?;
    let known_as = match &tested.delivery {
        Delivery::Delivered { remote } => remote.as_deref(),
        _ => None,
    };
    ok(&json!({
        "channel": name,
        "outcome": tested.outcome.as_str(),
        "error": tested.why,
        "remote": known_as,
        "took_ms": u64::try_from(tested.took.as_millis()).unwrap_or(u64::MAX),
        "receipt_id": tested.receipt.map(|id| id.to_string()),
    }))
}
