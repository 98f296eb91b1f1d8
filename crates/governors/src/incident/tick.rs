//! What time alone does to incidents: pages, updates, and their end.
//!
//! Owns: which due things are done, in which order and how many at once. Refuses to know: when
//! anybody looks at the clock.

use ledger::Draft;
use types::Micros;

use super::alert::update;
use super::change::resolve;
use super::state::{Incident, IncidentsState};
use super::{Climb, Clocks, about, climb, duty, maintenance, seal, silence};
use crate::decision::{Context, Decision};
use crate::draft::{TIME, rule};
use crate::oncall::{Called, Policy};

/// Receipts of one tick. What is left over is due at once again.
const DRAFTS_MAX: usize = 8;

/// Does what is due: one thing of each incident, and the end of each silence, override and window.
pub(crate) fn tick(policy: &Policy, state: &IncidentsState, cx: &Context<'_>) -> Decision {
    let over = state.silences().iter().filter(|held| held.is_over(cx.now));
    let silences = over.map(|held| (Micros::from_secs(held.until_s), silence::end(held)));
    let over = state.overrides().iter().filter(|held| held.is_over(cx.now));
    let overrides = over.map(|held| (Micros::from_secs(held.until_s), duty::end(held)));
    let over = state.maintenances().iter().filter(|held| held.is_over(cx.now));
    let windows = over.map(|held| (Micros::from_secs(held.until_s), maintenance::end(held)));
    let incidents = state.open().iter().filter_map(|incident| due(policy, state, incident, cx));
    let mut due: Vec<(Micros, Draft)> =
        silences.chain(overrides).chain(windows).chain(incidents).collect();
    due.sort_by_key(|(at, _)| *at);
    seal(due.into_iter().take(DRAFTS_MAX).map(|(_, draft)| draft).collect(), 0)
}

/// The oldest thing that is due on an incident.
fn due(
    policy: &Policy,
    state: &IncidentsState,
    incident: &Incident,
    cx: &Context<'_>,
) -> Option<(Micros, Draft)> {
    let Incident { page_at_us, update_at_us, resolve_at_us, .. } = incident;
    let at = |at_us: &Option<i64>| at_us.map(Micros).filter(|at| *at <= cx.now);
    let whens = [at(page_at_us), at(update_at_us), at(resolve_at_us)];
    let (when, which) =
        whens.iter().enumerate().filter_map(|(which, at)| Some(((*at)?, which))).min()?;
    let draft = match which {
        0 => escalate(policy, state, incident, cx),
        1 => {
            let firing: Vec<&str> =
                state.alerts_of(incident.number).map(|alert| &*alert.title).collect();
            let detail = match &*firing {
                [] => "No alert fires any more.".to_owned(),
                firing => format!("Still firing: {}.", firing.join(", ")),
            };
            let detail = detail.chars().take(types::limits::INCIDENT_TEXT_CHARS).collect();
            update(policy, state.overrides(), incident, TIME, detail, cx)
        }
        _ => resolve(incident, TIME, cx.now),
    };
    Some((when, draft))
}

/// Takes every step that is due by now.
fn escalate(
    policy: &Policy,
    state: &IncidentsState,
    incident: &Incident,
    cx: &Context<'_>,
) -> Draft {
    let Incident { severity, base_us, .. } = *incident;
    let is_acknowledged = incident.acknowledged_us.is_some();
    let step = usize::try_from(incident.step).unwrap_or(usize::MAX);
    let from = Climb { called: Called::default(), base: Micros(base_us), step };
    let Climb { called, base, step } =
        climb(policy, state.overrides(), (severity, is_acknowledged), from, cx.now);
    let clocks = Clocks {
        update_at: incident.update_at_us.map(Micros),
        ..Clocks::after(policy, severity, step, is_acknowledged, base, cx.now)
    };
    let draft = clocks.write(about(incident, rule::INCIDENT_ESCALATE, TIME));
    super::called(draft, incident, &called)
}
