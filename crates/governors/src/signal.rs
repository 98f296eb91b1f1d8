//! The signal governor: measurements about a tenant become calm, a warning or one action.
//!
//! Owns: the five phases, the gate before them, and INV-8: at most one action of a tenant is in
//! flight. Refuses to know: how an action is performed.

use ledger::scan::MetaView;
use ledger::{Draft, Kind, Meta, View};
use serde::{Deserialize, Serialize};
use types::limits::INTEGER_MAX;
use types::{Micros, Reason, ReceiptId};

use crate::command::{Outcome, OutcomeStatus, Signal};
use crate::decision::{Context, Decision, Effect, Sealing};
use crate::draft::{Secs, refusal, rule, ruled, transition};
use crate::rules::{Rules, THROTTLE};
use crate::snapshot::word;
use crate::state::{FoldError, TenantState, Throttle};
use crate::unknown_tenant;

/// What the fold knows of a tenant's signals.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SignalState {
    phase: Phase,
    /// `signal_at`, in milliseconds, of the newest signal of each metric that was decided or
    /// coalesced: sensors have clocks of their own, so one must not make another's signals stale.
    newest_ms: Vec<(Box<str>, i64)>,
}

/// Metrics of one tenant whose order is kept; of further ones the longest silent is forgotten.
const METRICS_MAX: usize = 16;

/// Where the governor stands. Intervening and having an action in flight are one thing by
/// construction (INV-8).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Phase {
    #[default]
    Boot,
    Stable,
    Warning,
    Refusing,
    Intervening(Box<Flight>),
}

/// The action in flight and what waits behind it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Flight {
    #[serde(with = "word")]
    pub(crate) attempt: ReceiptId,
    action: Box<str>,
    metric: Box<str>,
    /// Arguments of a throttle, which its result repeats; absent on other actions.
    min_interval_ms: Option<i64>,
    lease_s: Option<i64>,
    pending: Option<Pending>,
}

/// The signals that came while the action ran: one is decided, the others are counted, so that a
/// storm costs one decision and no memory. The newest waits, but a calm one of another metric
/// never takes the place of a worse one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Pending {
    measured: Measured,
    count: u32,
}

/// A signal as it is decided and receipted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Measured {
    metric: Box<str>,
    value_milli: i64,
    at_ms: i64,
}

impl Measured {
    /// A signal from the future counts as of now: one sensor whose clock runs ahead must not make
    /// all others stale.
    fn new(signal: &Signal, now: Micros) -> Measured {
        let now_ms = now.0.div_euclid(1000);
        Measured {
            metric: signal.metric.as_str().into(),
            value_milli: signal.value_milli.clamp(0, INTEGER_MAX),
            at_ms: signal.measured_at.map_or(now_ms, |at| at.0.min(now_ms).max(0)),
        }
    }

    fn onto(&self, draft: Draft) -> Draft {
        draft
            .with("metric", Meta::Text(self.metric.to_string().into()))
            .with("value_milli", Meta::Int(self.value_milli))
            .with("signal_at", Meta::Int(self.at_ms))
    }

    fn read(receipt: &View<'_>) -> Result<Measured, FoldError> {
        let metric = receipt.meta_text("metric").ok_or(FoldError::Field { field: "metric" })?;
        let integer = |field| receipt.meta_int(field).ok_or(FoldError::Field { field });
        Ok(Measured {
            metric: metric.as_ref().into(),
            value_milli: integer("value_milli")?,
            at_ms: integer("signal_at")?,
        })
    }
}

impl SignalState {
    pub(crate) fn flight(&self) -> Option<&Flight> {
        match &self.phase {
            Phase::Intervening(flight) => Some(flight),
            Phase::Boot | Phase::Stable | Phase::Warning | Phase::Refusing => None,
        }
    }

    fn newest_ms(&self, metric: &str) -> Option<i64> {
        self.newest_ms.iter().find(|(name, _)| &**name == metric).map(|(_, at_ms)| *at_ms)
    }

    fn saw(&mut self, measured: &Measured) {
        self.newest_ms.retain(|(name, _)| *name != measured.metric);
        if self.newest_ms.len() == METRICS_MAX {
            self.newest_ms.remove(0);
        }
        // Last seen last, so that the first is the longest silent.
        self.newest_ms.reserve_exact(1);
        self.newest_ms.push((measured.metric.clone(), measured.at_ms));
    }

    fn word(&self) -> &'static str {
        match &self.phase {
            Phase::Boot => "boot",
            Phase::Stable => "stable",
            Phase::Warning => "warning",
            Phase::Refusing => "refusing",
            Phase::Intervening(_) => INTERVENING,
        }
    }

    /// Folds a transition by one of the rules `signal.*`.
    pub(crate) fn apply_transition(
        &mut self,
        rule: &str,
        receipt: &View<'_>,
    ) -> Result<(), FoldError> {
        match (rule, &mut self.phase) {
            (rule::STALE, _) => {}
            (rule::COALESCE, Phase::Intervening(flight)) => {
                let measured = Measured::read(receipt)?;
                let waits = match receipt.meta("waits") {
                    Some(MetaView::Bool(waits)) => waits,
                    _ => return Err(FoldError::Field { field: "waits" }),
                };
                match &mut flight.pending {
                    Some(pending) => {
                        pending.count = pending.count.saturating_add(1);
                        if waits {
                            pending.measured = measured.clone();
                        }
                    }
                    None => {
                        flight.pending = Some(Pending { measured: measured.clone(), count: 1 });
                    }
                }
                self.saw(&measured);
            }
            (rule::COALESCE, _) => return Err(FoldError::NotInFlight),
            (_, Phase::Intervening(_)) => return Err(FoldError::SecondAttempt),
            (rule::WARN | rule::CALM | rule::INTERVENE, _) => {
                let measured = Measured::read(receipt)?;
                self.enter(receipt)?;
                self.saw(&measured);
            }
            (rule::SETTLED, _) => self.enter(receipt)?,
            _ => return Err(FoldError::UnknownRule),
        }
        Ok(())
    }

    fn enter(&mut self, receipt: &View<'_>) -> Result<(), FoldError> {
        match receipt.state_to {
            Some(to) if to.is("stable") => self.phase = Phase::Stable,
            Some(to) if to.is("warning") => self.phase = Phase::Warning,
            // The attempt that stands behind this receipt in the same unit begins it.
            Some(to) if to.is(INTERVENING) => {}
            _ => return Err(FoldError::Field { field: "state_to" }),
        }
        Ok(())
    }

    /// Folds a refusal by the gate. An action that is in flight stays so.
    pub(crate) fn refuse(&mut self) {
        if self.flight().is_none() {
            self.phase = Phase::Refusing;
        }
    }

    /// Folds an attempt.
    pub(crate) fn start(&mut self, receipt: &View<'_>) -> Result<(), FoldError> {
        if self.flight().is_some() {
            return Err(FoldError::SecondAttempt);
        }
        let metric = receipt.subject.ok_or(FoldError::Field { field: "subject" })?;
        self.phase = Phase::Intervening(Box::new(Flight {
            attempt: receipt.id,
            action: receipt.action.text().as_ref().into(),
            metric: metric.text().as_ref().into(),
            min_interval_ms: receipt.meta_int("min_interval_ms"),
            lease_s: receipt.meta_int("lease_s"),
            pending: None,
        }));
        Ok(())
    }

    /// Folds a result; returns the throttle that it puts in force.
    pub(crate) fn settle(&mut self, receipt: &View<'_>) -> Result<Option<Throttle>, FoldError> {
        let flight = self.flight().ok_or(FoldError::NotInFlight)?;
        if receipt.intent != Some(flight.attempt) {
            return Err(FoldError::NotInFlight);
        }
        let success =
            receipt.status.is_some_and(|status| status.is(OutcomeStatus::Success.as_str()));
        self.phase = if success { Phase::Stable } else { Phase::Warning };
        let until = receipt.expires_at.map(Secs);
        let throttle = until.zip(receipt.meta_int("min_interval_ms"));
        Ok(throttle.map(|(until, min_interval_ms)| Throttle { until, min_interval_ms }))
    }
}

const INTERVENING: &str = "intervening";

/// Decides a signal: gate, order, storm control, thresholds; the first that applies answers.
pub(crate) fn decide(
    rules: &Rules,
    state: &TenantState,
    signal: &Signal,
    cx: &Context<'_>,
) -> Decision {
    if !state.registered {
        return unknown_tenant();
    }
    let measured = Measured::new(signal, cx.now);
    let from = state.signal.word();
    if !state.any_active(cx.now) {
        return seal(vec![gate_refusal(&measured, from, state.signal.flight().is_some(), cx)]);
    }
    if state.signal.newest_ms(&measured.metric).is_some_and(|newest| measured.at_ms < newest) {
        let draft = transition("signal", rule::STALE, cx.actor).states(from, from);
        return seal(vec![measured.onto(draft)]);
    }
    if let Some(flight) = state.signal.flight() {
        return seal(vec![coalesce(rules, flight, &measured, from, cx)]);
    }
    Decision::Seal(evaluate(rules, &measured, from, cx))
}

/// Decides what became of the action in flight, and then the newest signal that waited for it.
pub(crate) fn settle(
    rules: &Rules,
    state: &TenantState,
    attempt: ReceiptId,
    outcome: Outcome,
    cx: &Context<'_>,
) -> Decision {
    let Some(flight) = state.signal.flight().filter(|flight| flight.attempt == attempt) else {
        return Decision::Nothing;
    };
    let mut drafts = vec![result(flight, outcome, cx)];
    let mut effect = None;
    match &flight.pending {
        None => {
            let to = if outcome.status == OutcomeStatus::Success { "stable" } else { "warning" };
            drafts.push(transition("signal", rule::SETTLED, cx.actor).states(INTERVENING, to));
        }
        Some(Pending { measured, .. }) if !state.any_active(cx.now) => {
            drafts.push(gate_refusal(measured, INTERVENING, false, cx));
        }
        Some(Pending { measured, count }) => {
            let mut next = evaluate(rules, measured, INTERVENING, cx);
            if let Some(first) = next.drafts.first_mut() {
                first.metadata.push(("coalesced".into(), Meta::Int((*count).into())));
            }
            effect = next
                .effect
                .map(|effect| Effect { attempt: effect.attempt + drafts.len(), ..effect });
            drafts.append(&mut next.drafts);
        }
    }
    Decision::Seal(Sealing { drafts, primary: 0, effect })
}

fn coalesce(
    rules: &Rules,
    flight: &Flight,
    measured: &Measured,
    from: &'static str,
    cx: &Context<'_>,
) -> Draft {
    let (count, waits) = match &flight.pending {
        None => (1, true),
        Some(Pending { measured: waiting, count }) => {
            let same = waiting.metric == measured.metric;
            let as_bad = Gravity::of(rules, measured) >= Gravity::of(rules, waiting);
            (count.saturating_add(1), same || as_bad)
        }
    };
    let draft = transition("signal", rule::COALESCE, cx.actor).states(from, from);
    let draft = draft.with("coalesced", Meta::Int(count.into())).with("waits", Meta::Bool(waits));
    measured.onto(draft)
}

fn seal(drafts: Vec<Draft>) -> Decision {
    Decision::Seal(Sealing { drafts, primary: 0, effect: None })
}

fn gate_refusal(
    measured: &Measured,
    from: &'static str,
    in_flight: bool,
    cx: &Context<'_>,
) -> Draft {
    let detail = "the tenant holds no active entitlement".to_owned();
    let draft = refusal("signal", rule::GATE, cx.actor, Reason::EntitlementInactive, detail)
        .states(from, if in_flight { from } else { "refusing" });
    measured.onto(draft)
}

/// How bad a signal is by its profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Gravity {
    Calm,
    Warn,
    Intervene,
}

impl Gravity {
    fn of(rules: &Rules, measured: &Measured) -> Gravity {
        let profile = rules.profile(&measured.metric);
        if measured.value_milli > profile.intervene_above_milli {
            Gravity::Intervene
        } else if measured.value_milli > profile.warn_above_milli {
            Gravity::Warn
        } else {
            Gravity::Calm
        }
    }
}

/// Thresholds. Only called when nothing is in flight or what was has just been settled (INV-8).
fn evaluate(rules: &Rules, measured: &Measured, from: &'static str, cx: &Context<'_>) -> Sealing {
    let profile = rules.profile(&measured.metric);
    let (rule, to) = match Gravity::of(rules, measured) {
        Gravity::Calm => (rule::CALM, "stable"),
        Gravity::Warn => (rule::WARN, "warning"),
        Gravity::Intervene => (rule::INTERVENE, INTERVENING),
    };
    let decided = transition("signal", rule, cx.actor).states(from, to);
    let mut drafts = vec![measured.onto(decided)];
    if to != INTERVENING {
        return Sealing { drafts, primary: 0, effect: None };
    }
    let args = profile.args();
    let mut attempt = ruled(Kind::ActionAttempt, profile.action.clone(), rule, cx.actor);
    attempt.subject = Some(measured.metric.to_string().into());
    attempt.metadata =
        args.iter().map(|(name, value)| ((*name).into(), Meta::Int(*value))).collect();
    drafts.push(attempt);
    let args = args.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    let effect = Effect { attempt: 1, action: profile.action.clone(), args };
    Sealing { drafts, primary: 0, effect: Some(effect) }
}

fn result(flight: &Flight, outcome: Outcome, cx: &Context<'_>) -> Draft {
    let mut draft = ruled(Kind::ActionResult, flight.action.to_string(), rule::SETTLE, cx.actor)
        .with("duration_ms", Meta::Int(outcome.duration_ms.clamp(0, INTEGER_MAX)))
        .with("tries", Meta::Int(outcome.tries.into()));
    draft.subject = Some(flight.metric.to_string().into());
    draft.intent = Some(flight.attempt);
    draft.status = Some(outcome.status.as_str().into());
    let throttled = outcome.status == OutcomeStatus::Success && &*flight.action == THROTTLE;
    let lease = flight.min_interval_ms.zip(flight.lease_s).filter(|_| throttled);
    if let Some((min_interval_ms, lease_s)) = lease {
        draft.expires_at = Some(cx.now.plus_secs(lease_s));
        draft = draft
            .with("min_interval_ms", Meta::Int(min_interval_ms))
            .with("lease_s", Meta::Int(lease_s));
    }
    draft
}
