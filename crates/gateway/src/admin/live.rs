//! Live settings and blocked sources.
//!
//! Owns: the check of a change against the table of settings, and the wait until it is in force.
//! Refuses to know: what a setting changes.

use std::time::Duration;

use dialect::admin;
use engine::Decided;
use governors::{Command, SettingChange, SourceChange};
use serde_json::{Value, json};
use settings::{ChangeError, Source, check_change};
use types::{Reason, StreamName, limits};

use super::{Asked, decide, ok, receipt};
use crate::Gateway;
use crate::answer::{Fault, Handled, fault};
use crate::sources::{canonical, covers};

/// How long an answer waits for its change to be in force. It is durable before that.
const APPLY_TIMEOUT: Duration = Duration::from_secs(2);

fn stream() -> StreamName {
    StreamName::system(limits::STREAM_SETTINGS)
}

pub(super) fn settings(gateway: &Gateway) -> Handled {
    let resolved = gateway.process.settings();
    let live = |name: &str| settings::table().iter().any(|knob| knob.name == name && knob.live);
    let all: Vec<Value> = resolved
        .provenance
        .iter()
        .map(|origin| {
            let until = match origin.source {
                Source::Lease { until_s } => Some(until_s),
                _ => None,
            };
            json!({
                "name": origin.name,
                "value": origin.value,
                "source": origin.source.to_string(),
                "until": until,
                "unit": origin.unit,
                "live": live(origin.name),
                "help": origin.help,
            })
        })
        .collect();
    ok(&json!({ "settings": all }))
}

pub(super) async fn set(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let order = admin::setting(&asked.body, &gateway.json)?;
    let lease_s = order.lease_s.map(i64::from);
    let knob = check_change(asked.segment()?, &order.value, lease_s.is_some())?;
    let change = SettingChange::Set { name: knob.name.to_owned(), value: order.value, lease_s };
    change_live(gateway, asked, Command::Setting(change)).await
}

pub(super) async fn clear(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let name = asked.segment()?;
    // A name that an older version knew can still be cleared.
    let known = settings::table().iter().any(|knob| knob.name == name);
    let state = gateway.engine.state(&stream()).await?;
    let changed = state.live().is_some_and(|live| live.values().any(|value| value.name == name));
    if !known && !changed {
        return Err(fault(Reason::NotFound, "there is no such setting"));
    }
    let change = SettingChange::Clear { name: name.to_owned() };
    change_live(gateway, asked, Command::Setting(change)).await
}

pub(super) async fn sources(gateway: &Gateway) -> Handled {
    let (state, now) = (gateway.engine.state(&stream()).await?, gateway.engine.clock().now());
    let blocked: Vec<Value> = state
        .live()
        .into_iter()
        .flat_map(|live| live.sources())
        .filter(|(_, until)| now < *until)
        .map(|(source, until)| json!({ "source": source, "until": until.secs() }))
        .collect();
    ok(&json!({ "sources": blocked }))
}

pub(super) async fn block(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let order = admin::source(&asked.body, &gateway.json)?;
    let source = read_source(&order.source)?;
    let own = asked.source.is_some_and(|own| covers(&source, own));
    if own {
        return Err(fault(Reason::InvalidField, "source would refuse the one who asks"));
    }
    let change = SourceChange::Block { source, lease_s: i64::from(order.lease_s) };
    change_live(gateway, asked, Command::Source(change)).await
}

pub(super) async fn unblock(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let given = asked.parameter("source")?;
    let given = given.ok_or_else(|| fault(Reason::MissingField, "source is required"))?;
    let change = SourceChange::Unblock { source: read_source(given)? };
    change_live(gateway, asked, Command::Source(change)).await
}

fn read_source(text: &str) -> Result<String, Fault> {
    let expected = "source must be an address or a network of at least one bit";
    canonical(text).ok_or_else(|| fault(Reason::InvalidField, expected))
}

/// Decides a change, and answers once it is in force.
async fn change_live(gateway: &Gateway, asked: &Asked<'_>, command: Command) -> Handled {
    let decided: Decided = decide(gateway, asked, stream(), command).await?;
    let newest = *gateway.engine.live_changes().borrow();
    let mut applied = gateway.process.applied();
    let in_force = applied.wait_for(|applied| *applied >= newest);
    if !matches!(tokio::time::timeout(APPLY_TIMEOUT, in_force).await, Ok(Ok(_))) {
        tracing::warn!(
            event = "live_change_late",
            "a live change is recorded and not in force yet"
        );
    }
    receipt(&decided)
}

impl From<ChangeError> for Fault {
    fn from(error: ChangeError) -> Fault {
        let reason = match error {
            ChangeError::UnknownSetting => Reason::NotFound,
            ChangeError::Value { .. } => Reason::InvalidField,
            _ => Reason::StateError,
        };
        fault(reason, error.to_string())
    }
}
