//! The words of a receipt as metric labels.
//!
//! Owns: the closed sets of governors and states that may become labels, so that no text of a
//! caller ever does. Refuses to know: what is counted.

use ledger::{Kind, View};

const GOVERNORS: [&str; 5] = ["entitlement", "signal", "tenant", "account", "throttle"];

const STATES: [&str; 12] = [
    "unregistered",
    "registered",
    "unentitled",
    "entitled",
    "suspended",
    "revoked",
    "boot",
    "stable",
    "warning",
    "intervening",
    "refusing",
    "throttled",
];

/// Governor, state before and state after, where a transition changed a state.
#[must_use]
pub fn transition_labels(receipt: &View<'_>) -> Option<(&'static str, &'static str, &'static str)> {
    if receipt.kind != Kind::Transition {
        return None;
    }
    let rule = receipt.rule?.text();
    let governor = GOVERNORS
        .into_iter()
        .find(|name| rule.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))?;
    let state = |word: &str| STATES.into_iter().find(|state| *state == word);
    let from = state(&receipt.state_from?.text())?;
    let to = state(&receipt.state_to?.text())?;
    (from != to).then_some((governor, from, to))
}
