//! Leases that a service should have undone by itself.
//!
//! Owns: which settings are looked at after an outage, and that they are taken back. Refuses to
//! know: what a setting means. Blocked sources need no look: the service compares each with its
//! clock when it is asked.

use std::time::Duration;

use anyhow::{Context, bail};
use types::Micros;

use crate::client::{Call, Client, Method};

/// How late the service may be.
const LATE_S: i64 = 60;
const LIMIT: Duration = Duration::from_secs(10);

/// Takes back every lease that should have ended long before `now`; gives the names of the
/// settings.
///
/// # Errors
/// When the service says no, or nothing.
pub(crate) fn undo(url: &str, key: Option<&str>, now: Micros) -> anyhow::Result<Vec<String>> {
    let client = Client::new(url, key)?;
    let answer = client.ask(&Call::new(Method::GET, "admin/settings"), LIMIT)?;
    if !answer.is_yes() {
        bail!("the settings cannot be read: status {}", answer.status);
    }
    let body = answer.json().context("the settings are not JSON")?;
    let rows = body.get("settings").and_then(|rows| rows.as_array());
    let mut undone = Vec::new();
    for row in rows.into_iter().flatten() {
        let name = row.get("name").and_then(|name| name.as_str());
        let until = row.get("until").and_then(serde_json::Value::as_i64);
        let Some((name, until)) = name.zip(until) else { continue };
        if Micros::from_secs(until).plus_secs(LATE_S) > now {
            continue;
        }
        let answer = client.ask(&Call::new(Method::DELETE, "admin/settings").of(name), LIMIT)?;
        if !answer.is_yes() {
            bail!("a lease that has ended cannot be taken back: status {}", answer.status);
        }
        undone.push(name.to_owned());
    }
    Ok(undone)
}
