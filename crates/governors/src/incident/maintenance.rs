//! Maintenance windows: work that is planned, and the alerts that it is expected to raise.
//!
//! Owns: which window is lawful, what one covers, and that each ends by itself. Refuses to know:
//! which alerts there are. A window keeps alerts of its components from becoming incidents; it
//! hides no alert, and an incident that is open goes on.

use ledger::{Draft, Meta, View};
use serde::{Deserialize, Serialize};
use types::{Micros, Reason, limits};

use super::state::{IncidentsState, text};
use super::{ABSENT, seal, span};
use crate::command::MaintenanceChange;
use crate::decision::{Context, Decision};
use crate::draft::{Secs, TIME, is_keepable, refusal, rule, transition};
use crate::invalid_field;
use crate::state::FoldError;

/// The field `action` of the receipts.
const MAINTENANCE: &str = "maintenance";
const LIVE: &str = "live";

/// A window.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Maintenance {
    /// `MNT-` and this.
    pub number: u64,
    /// One line for the public.
    pub title: String,
    /// What is worked on.
    pub components: Vec<String>,
    /// From when, in unix seconds.
    pub from_s: i64,
    /// Until when, in unix seconds.
    pub until_s: i64,
    /// Who planned it.
    pub by: String,
}

/// How far a window is, which follows from the time alone; in the words of status pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaintenancePhase {
    /// It lies ahead.
    Scheduled,
    /// It is now.
    InProgress,
    /// It is over.
    Completed,
}

impl MaintenancePhase {
    /// Every one.
    pub const ALL: [MaintenancePhase; 3] =
        [MaintenancePhase::Scheduled, MaintenancePhase::InProgress, MaintenancePhase::Completed];

    /// How far a window is at `now`, of which `from_s` and `until_s` are unix seconds.
    #[must_use]
    pub fn at(from_s: i64, until_s: i64, now: Micros) -> MaintenancePhase {
        match () {
            () if Secs(until_s).reached(now) => MaintenancePhase::Completed,
            () if Secs(from_s).reached(now) => MaintenancePhase::InProgress,
            () => MaintenancePhase::Scheduled,
        }
    }

    /// The word on status pages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            MaintenancePhase::Scheduled => "scheduled",
            MaintenancePhase::InProgress => "in_progress",
            MaintenancePhase::Completed => "completed",
        }
    }
}

impl Maintenance {
    /// `MNT-3`.
    #[must_use]
    pub fn name(&self) -> String {
        maintenance_name(self.number)
    }

    /// How far it is.
    #[must_use]
    pub fn phase(&self, now: Micros) -> MaintenancePhase {
        MaintenancePhase::at(self.from_s, self.until_s, now)
    }

    /// True while the component is worked on.
    #[must_use]
    pub fn covers(&self, component: &str, now: Micros) -> bool {
        self.phase(now) == MaintenancePhase::InProgress
            && self.components.iter().any(|name| name == component)
    }

    pub(super) fn is_over(&self, now: Micros) -> bool {
        self.phase(now) == MaintenancePhase::Completed
    }
}

fn maintenance_name(number: u64) -> String {
    format!("MNT-{number}")
}

/// The number in `MNT-3`.
#[must_use]
pub fn maintenance_number(name: &str) -> Option<u64> {
    let number = name.strip_prefix("MNT-")?.parse().ok()?;
    (maintenance_name(number) == name).then_some(number)
}

/// Decides a change to the windows.
pub(super) fn decide(
    state: &IncidentsState,
    change: &MaintenanceChange,
    cx: &Context<'_>,
) -> Decision {
    match change {
        MaintenanceChange::Add { title, components, from, until, text } => {
            let joined = components.join(",");
            let is_word =
                |word: &str| !word.is_empty() && is_keepable(word, limits::METADATA_VALUE_CHARS);
            if !is_word(title) || !is_keepable(text, limits::INCIDENT_TEXT_CHARS) {
                return invalid_field("title or text is too long, or holds a control character");
            }
            let are_words = components.iter().all(|name| is_word(name) && !name.contains(','));
            if !are_words || !is_word(&joined) {
                return invalid_field("components are none, too many, or hold a comma");
            }
            let Some((from_s, until_s)) = span(*from, *until, limits::LEASE_S_MAX, cx.now) else {
                return invalid_field(
                    "until is over, not after from, or more than a week after it",
                );
            };
            if state.maintenances().len() >= limits::MAINTENANCES {
                let detail = "there are as many maintenance windows as may be";
                return refused(rule::MAINTENANCE_ADD, detail, cx);
            }
            let draft = transition(MAINTENANCE, rule::MAINTENANCE_ADD, cx.actor)
                .states(ABSENT, LIVE)
                .with("title", Meta::Text(title.clone().into()))
                .with("components", Meta::Text(joined.into()));
            let draft = Draft {
                subject: Some(maintenance_name(state.maintenances_count() + 1).into()),
                detail: Some(text.clone().into()),
                effective_at: Some(Micros::from_secs(from_s)),
                expires_at: Some(Micros::from_secs(until_s)),
                ..draft
            };
            seal(vec![draft], 0)
        }
        MaintenanceChange::End { number } => {
            let held = state.maintenances().iter().find(|held| held.number == *number);
            match held.filter(|held| !held.is_over(cx.now)) {
                Some(held) => seal(vec![ended(held, rule::MAINTENANCE_END, cx.actor)], 0),
                None => refused(rule::MAINTENANCE_END, "there is no such window", cx),
            }
        }
    }
}

fn refused(rule: &'static str, detail: &str, cx: &Context<'_>) -> Decision {
    seal(vec![refusal(MAINTENANCE, rule, cx.actor, Reason::StateError, detail.to_owned())], 0)
}

/// The receipt to be of a window whose time is over.
pub(super) fn end(held: &Maintenance) -> Draft {
    ended(held, rule::MAINTENANCE_OVER, TIME)
}

fn ended(held: &Maintenance, rule: &'static str, actor: &str) -> Draft {
    let draft = transition(MAINTENANCE, rule, actor).states(LIVE, ABSENT);
    let expires_at = Some(Micros::from_secs(held.until_s));
    Draft { subject: Some(held.name().into()), expires_at, ..draft }
}

/// Folds one receipt about windows.
pub(super) fn apply(
    count: &mut u64,
    held: &mut Vec<Maintenance>,
    rule: &str,
    name: &str,
    receipt: &View<'_>,
) -> Result<(), FoldError> {
    let number = maintenance_number(name).ok_or(FoldError::Field { field: "subject" })?;
    let found = held.binary_search_by_key(&number, |held| held.number);
    match (rule, found) {
        (rule::MAINTENANCE_ADD, Err(at)) if number == *count + 1 => {
            let from_s = receipt.effective_at.ok_or(FoldError::Field { field: "effective_at" })?;
            let until_s = receipt.expires_at.ok_or(FoldError::Field { field: "expires_at" })?;
            let by = receipt.actor.map(|actor| actor.text().into_owned()).unwrap_or_default();
            let title = text(receipt, "title")?;
            let components = text(receipt, "components")?.split(',').map(str::to_owned).collect();
            held.insert(at, Maintenance { number, title, components, from_s, until_s, by });
            *count = number;
        }
        (rule::MAINTENANCE_OVER, Ok(at)) if !held[at].is_over(receipt.at) => {
            return Err(FoldError::StateFrom);
        }
        (rule::MAINTENANCE_END | rule::MAINTENANCE_OVER, Ok(at)) => {
            held.remove(at);
        }
        _ => return Err(FoldError::StateFrom),
    }
    Ok(())
}
