//! What a receipt says to those who do not fold it: metric labels, and what it touches.
//!
//! Owns: the closed sets of governors and states that may become labels, so that no text of a
//! caller ever does; and which rules change who may come in. Refuses to know: what is counted, and
//! what anybody keeps in memory beside the states.

use ledger::{Kind, View};

/// What the rules of a governor begin with, and its label.
const GOVERNORS: [(&str, &str); 14] = [
    ("entitlement.", "entitlement"),
    ("signal.", "signal"),
    ("tenant.", "tenant"),
    ("account.", "account"),
    ("throttle.", "throttle"),
    ("budget.", "budget"),
    (KEY, "keys"),
    (SETTINGS, "settings"),
    (SOURCE, "sources"),
    ("alert.", "alerts"),
    ("silence.", "silences"),
    (INCIDENT, "incidents"),
    ("oncall.", "oncall"),
    ("maintenance.", "maintenance"),
];

const KEY: &str = "key.";
const SETTINGS: &str = "settings.";
const SOURCE: &str = "source.";
const INCIDENT: &str = "incident.";

const STATES: [&str; 33] = [
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
    "absent",
    "valid",
    "ending",
    "default",
    "live",
    "leased",
    "open",
    "blocked",
    "ok",
    "critical",
    "exceeded",
    "plan",
    "own",
    "inactive",
    "pending",
    "firing",
    "recovering",
    "investigating",
    "identified",
    "monitoring",
    "resolved",
];

/// What whoever guards the doors keeps in memory, and must read again once it has changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// The keys of the stream's owner.
    Keys,
    /// Live settings or blocked sources.
    Live,
    /// What is to be told over channels.
    Tell,
}

/// What the receipt changes of that; `None` for every receipt that changes nothing of it.
#[must_use]
pub fn touches(receipt: &View<'_>) -> Option<Touch> {
    if receipt.kind != Kind::Transition {
        return None;
    }
    let rule = receipt.rule?.text();
    if rule.starts_with(KEY) {
        return Some(Touch::Keys);
    }
    if rule.starts_with(INCIDENT) {
        return receipt.meta("tell").map(|_| Touch::Tell);
    }
    (rule.starts_with(SETTINGS) || rule.starts_with(SOURCE)).then_some(Touch::Live)
}

/// Governor, state before and state after, where a transition changed a state.
#[must_use]
pub fn transition_labels(receipt: &View<'_>) -> Option<(&'static str, &'static str, &'static str)> {
    if receipt.kind != Kind::Transition {
        return None;
    }
    let rule = receipt.rule?.text();
    let (_, governor) = GOVERNORS.into_iter().find(|(prefix, _)| rule.starts_with(prefix))?;
    let state = |word: &str| STATES.into_iter().find(|state| *state == word);
    let from = state(&receipt.state_from?.text())?;
    let to = state(&receipt.state_to?.text())?;
    (from != to).then_some((governor, from, to))
}
