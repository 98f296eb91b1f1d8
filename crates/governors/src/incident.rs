//! The governor of alerts, silences, maintenance, overrides of the rota, and incidents.
//!
//! Owns: which changes of an alert are lawful, when one becomes an incident or joins one, who is
//! told and when, and how an incident ends. Refuses to know: how an alert is measured, and how
//! anybody is reached: a receipt names the channels that it is to be told over, in `tell`.

mod alert;
mod carried;
mod change;
mod duty;
mod handover;
mod maintenance;
mod silence;
mod state;
mod story;
mod tick;

pub use carried::carried;
pub use duty::{Override, override_number};
pub use maintenance::{Maintenance, MaintenancePhase, maintenance_number};
pub use state::{Alert, Incident, IncidentsState, Silence};
pub use story::{Mark, Marks, Moment, Story};

pub(crate) use tick::tick;

use std::borrow::Cow;
use std::ops::Range;

use ledger::{Draft, Meta, View};
use types::{LaneId, Micros, Severity, limits, redact};

use crate::command::{Command, IncidentStatus};
use crate::decision::{Context, Decision, Sealing};
use crate::draft::transition;
use crate::oncall::{Called, Policy};
use crate::rules::Rules;
use crate::wrong_stream;

/// The field `action` of the receipts; `rule` says what was done.
const ALERT: &str = "alert";
const INCIDENT: &str = "incident";
const SILENCE: &str = "silence";

/// The state of an incident or a silence before there is one.
const ABSENT: &str = "absent";

/// Decides a command on the stream `_incidents`.
pub(crate) fn decide(
    rules: &Rules,
    state: &IncidentsState,
    command: &Command,
    cx: &Context<'_>,
) -> Decision {
    match command {
        Command::Alert(change) => alert::decide(&rules.oncall, state, change, cx),
        Command::Incident(change) => change::decide(&rules.oncall, state, change, cx),
        Command::Silence(change) => silence::decide(state, change, cx),
        Command::Override(change) => duty::decide(rules.oncall.rota(), state, change, cx),
        Command::Maintenance(change) => maintenance::decide(state, change, cx),
        Command::Carried(carried) => carried::decide(&rules.oncall, state, carried, cx),
        Command::Tick => tick(&rules.oncall, state, cx),
        _ => wrong_stream(),
    }
}

/// The numbers of incidents that were opened in a lane begin here.
const LANES_FROM: u64 = 1_000_000_000;
/// So many of them belong to one lane.
const LANE_NUMBERS: u64 = 1_000_000;

/// True for an incident that was opened while the store was away. Its number tells its lane, so
/// that no two instances give the same one to different incidents, and it keeps it for good: far
/// sides know it by that.
fn is_of_a_lane(number: u64) -> bool {
    number >= LANES_FROM
}

/// True for an incident that was opened in this lane.
#[must_use]
pub fn is_of_lane(number: u64, lane: LaneId) -> bool {
    numbers_of(lane).contains(&number)
}

fn numbers_of(LaneId([a, b, c, d, ..]): LaneId) -> Range<u64> {
    let first = LANES_FROM + u64::from(u32::from_be_bytes([a, b, c, d])) * LANE_NUMBERS;
    first..first + LANE_NUMBERS
}

/// The number of the next incident.
fn next_number(state: &IncidentsState, cx: &Context<'_>) -> u64 {
    let Some(numbers) = cx.stream.lane_id().map(numbers_of) else { return state.count() + 1 };
    state.newest_in(&numbers).unwrap_or(numbers.start) + 1
}

/// When what the receipt says was said: before it was carried over, where it was.
#[must_use]
pub fn said_at(receipt: &View<'_>) -> Micros {
    receipt.meta_int("said_us").map_or(receipt.at, Micros)
}

/// `INC-7`.
#[must_use]
pub fn incident_name(number: u64) -> String {
    format!("INC-{number}")
}

/// The number in `INC-7`.
#[must_use]
pub fn incident_number(name: &str) -> Option<u64> {
    let digits = name.strip_prefix("INC-")?;
    let number: u64 = digits.parse().ok()?;
    (number.to_string() == digits).then_some(number)
}

/// From when and until when something is planned, in whole seconds: it may lie ahead for
/// [`limits::AHEAD_S_MAX`] and last `longest_s`. `None` for any other time.
fn span(from: Option<Micros>, until: Micros, longest_s: i64, now: Micros) -> Option<(i64, i64)> {
    let from_s = from.map_or(now, |from| from.max(now)).secs();
    let until_s = until.secs();
    let fits = from_s <= now.secs() + limits::AHEAD_S_MAX
        && from_s < until_s
        && until_s <= from_s + longest_s
        && now.secs() < until_s;
    fits.then_some((from_s, until_s))
}

/// A receipt about an incident, that leaves its status as it is.
fn about(incident: &Incident, rule: &'static str, actor: &str) -> Draft {
    moved(incident, rule, actor, incident.status)
}

/// A receipt after which an incident has another status.
fn moved(incident: &Incident, rule: &'static str, actor: &str, to: IncidentStatus) -> Draft {
    let draft = transition(INCIDENT, rule, actor).states(incident.status.as_str(), to.as_str());
    Draft { subject: Some(incident_name(incident.number).into()), ..draft }
}

/// Says over which channels the receipt is told, with what a notice of it needs; over none where it
/// holds no such entry.
fn told(draft: Draft, incident: &Incident, channels: &[String]) -> Draft {
    if channels.is_empty() {
        return draft;
    }
    let draft = match draft.metadata.iter().any(|(key, _)| key == "severity") {
        true => draft,
        false => draft.with("severity", Meta::Text(incident.severity.as_str().into())),
    };
    draft
        .with("title", Meta::Text(incident.title.clone().into()))
        .with("components", Meta::Text(incident.components.join(",").into()))
        .with("began_us", Meta::Int(incident.began_us))
        .with("opened_us", Meta::Int(incident.opened_us))
        .with("tell", Meta::Text(channels.join(",").into()))
}

/// The same with who was on call where a rotation was asked.
fn called(draft: Draft, incident: &Incident, called: &Called) -> Draft {
    on_roll(told(draft, incident, &called.channels), called)
}

/// The same for an incident that this receipt opens.
fn first_called(draft: Draft, called: &Called) -> Draft {
    let draft = match &*called.channels {
        [] => draft,
        channels => draft.with("tell", Meta::Text(channels.join(",").into())),
    };
    on_roll(draft, called)
}

fn on_roll(draft: Draft, called: &Called) -> Draft {
    let roll = called.roll();
    let draft = if roll.is_empty() { draft } else { draft.with("oncall", Meta::Text(roll.into())) };
    match called.stand_in {
        Some(stand_in) => draft.with("stand_in", Meta::Text(stand_in.as_str().into())),
        None => draft,
    }
}

/// The clocks of an incident, as receipts hold them: the step of its ladder that is next and when
/// it is due, and when the next update is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Clocks {
    /// From when the steps count.
    base: Micros,
    step: usize,
    page_at: Option<Micros>,
    update_at: Option<Micros>,
}

impl Clocks {
    /// After the steps before `from` were taken; the ladder counts from `base`.
    fn after(
        policy: &Policy,
        severity: Severity,
        from: usize,
        is_acknowledged: bool,
        base: Micros,
        now: Micros,
    ) -> Clocks {
        let next = policy.next(severity, from, is_acknowledged);
        Clocks {
            base,
            step: next.map_or(from, |next| next.step),
            page_at: next.map(|next| base.plus_secs(next.after_s)),
            update_at: policy.update_every_s(severity).map(|every_s| now.plus_secs(every_s)),
        }
    }

    fn write(self, draft: Draft) -> Draft {
        let at = |at: Option<Micros>| Meta::Int(at.map_or(0, |at| at.0));
        let step = i64::try_from(self.step).unwrap_or(i64::MAX);
        draft
            .with("base_us", Meta::Int(self.base.0))
            .with("step", Meta::Int(step))
            .with("page_at_us", at(self.page_at))
            .with("update_at_us", at(self.update_at))
    }
}

/// What a ladder does by now.
struct Climb {
    called: Called,
    /// From when the steps behind count.
    base: Micros,
    /// The step that is next.
    step: usize,
}

/// Takes every step of a ladder that is due by now: after a time without a process they are told
/// together. Where a step calls nobody the next one is taken at once, and those behind it move up
/// by the delay that it would have waited; where none is behind it, others stand in.
fn climb(
    policy: &Policy,
    overrides: &[Override],
    (severity, is_acknowledged): (Severity, bool),
    mut climb: Climb,
    now: Micros,
) -> Climb {
    let (first, mut is_anybody_called) = (climb.step, false);
    while let Some(next) = policy.next(severity, climb.step, is_acknowledged) {
        if climb.base.plus_secs(next.after_s) > now {
            break;
        }
        let found = policy.call(&policy.ladder(severity)[next.step].tell, overrides, now);
        climb.step = next.step + 1;
        is_anybody_called |= !found.calls_nobody();
        if found.calls_nobody()
            && let Some(behind) = policy.next(severity, climb.step, is_acknowledged)
        {
            climb.base = climb.base.plus_secs(next.after_s - behind.after_s);
        }
        climb.called.add(found);
    }
    if climb.step > first && !is_anybody_called {
        climb.called.add(policy.stand_in(severity, first, overrides, now));
    }
    climb
}

/// The steps that are due as soon as a ladder begins: whom they call, and the clocks behind them.
fn begin(
    policy: &Policy,
    overrides: &[Override],
    severity: Severity,
    is_acknowledged: bool,
    now: Micros,
) -> (Called, Clocks) {
    let from = Climb { called: Called::default(), base: now, step: 0 };
    let Climb { called, base, step } =
        climb(policy, overrides, (severity, is_acknowledged), from, now);
    (called, Clocks::after(policy, severity, step, is_acknowledged, base, now))
}

/// Adds the channels that are not among them.
fn add(channels: &mut Vec<String>, more: &[String]) {
    for channel in more {
        if !channels.contains(channel) {
            channels.push(channel.clone());
        }
    }
}

/// What is said of an incident is told to people and to the public, and comes from anywhere: no
/// credential in it is kept.
fn masked(mut draft: Draft) -> Draft {
    let mask = |text: &mut Cow<'static, str>| {
        if let Cow::Owned(masked) = redact::mask(text) {
            *text = masked.into();
        }
    };
    draft.detail.iter_mut().for_each(mask);
    for (key, value) in &mut draft.metadata {
        // The others are names that are looked up and compared.
        if let (true, Meta::Text(text)) = (key == "title", value) {
            mask(text);
        }
    }
    draft
}

fn seal(drafts: Vec<Draft>, primary: usize) -> Decision {
    if drafts.is_empty() {
        return Decision::Nothing;
    }
    let drafts = drafts.into_iter().map(masked).collect();
    Decision::Seal(Sealing { drafts, primary, effect: None })
}
