//! Which components there are, for who names one.
//!
//! Owns: that a name which is misspelt plans, silences and declares nothing. Refuses to know: what
//! is done to a component.

use types::Reason;

use crate::Gateway;
use crate::answer::{Fault, fault};

/// Refuses names that nothing is known by: those of the status page are known, with what else is
/// affected or worked on, and those that alerts are about.
///
/// # Errors
/// [`Reason::InvalidField`], with the names that are known and never the one that is not.
pub(super) async fn check(gateway: &Gateway, member: &str, names: &[&str]) -> Result<(), Fault> {
    let known = components(gateway).await?;
    if names.iter().all(|name| known.iter().any(|held| held == name)) {
        return Ok(());
    }
    let detail = format!(
        "{member} must be among {}; others can be named in oncall.depends of the catalogue",
        known.join(", ")
    );
    Err(fault(Reason::InvalidField, detail))
}

/// All of them, each once, in ascending order.
async fn components(gateway: &Gateway) -> Result<Vec<String>, Fault> {
    let state = gateway.engine.incidents().await?;
    let policy = gateway.engine.rules().oncall().components();
    let mut all: Vec<String> = policy.into_iter().map(str::to_owned).collect();
    all.extend(gateway.engine.watched_components());
    if let Some(held) = state.incidents() {
        all.extend(held.alerts().iter().map(|alert| alert.component.clone()));
        all.extend(held.open().iter().flat_map(|incident| incident.components.clone()));
        all.extend(held.maintenances().iter().flat_map(|window| window.components.clone()));
    }
    all.sort_unstable();
    all.dedup();
    Ok(all)
}
