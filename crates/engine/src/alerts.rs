//! Watching our own figures: samples in, changes of alerts out.
//!
//! Owns: when a scrape is taken, and what is said to the governor. Refuses to know: what an SLI is
//! made of, and what an alert leads to.
//!
//! What if the process dies here? Where an alert stands is folded from receipts, so that the time
//! that it has been pending or firing goes on; the samples are gone, and for one window nothing is
//! said on the strength of their absence.

use std::sync::Arc;

use governors::incident::{Alert, IncidentsState};
use governors::{AlertChange, AlertPhase, Command};
use runbook::alerts::Change;
use runbook::{Labels, Phase, Rules};
use types::{Micros, limits};

use crate::act::{Engine, Request};
use crate::external::is_external;
use crate::incidents;
use crate::sight::Sight;
use crate::supervise::Stop;

/// The subsystem that watches.
pub(crate) const ALERTS: &str = "alerts_sup";

/// Evaluates every rule again and again until asked to stop.
pub(crate) async fn evaluate(engine: Engine, rules: Arc<Rules>, mut stop: Stop) {
    let interval = engine.options().alert_interval;
    let interval_us = i64::try_from(interval.as_micros()).unwrap_or(i64::MAX);
    let sight = Arc::new(Sight::new(Arc::clone(&rules), interval_us, engine.clock().now().0));
    engine.show(Arc::clone(&sight));
    let watch = Watch { engine, rules, sight };
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.asked() => return,
            _ = ticks.tick() => watch.look().await,
        }
    }
}

struct Watch {
    engine: Engine,
    rules: Arc<Rules>,
    sight: Arc<Sight>,
}

impl Watch {
    /// One scrape, and what follows from it.
    async fn look(&self) {
        let metrics = Arc::clone(&self.engine.inner().common.metrics);
        metrics.observe_process();
        let now = self.engine.clock().now();
        self.sight.scrape(&metrics, now.0);
        let state = match self.engine.incidents().await {
            Ok(state) => state,
            Err(refused) => {
                tracing::warn!(event = "alerts_wait", %refused, "alerts cannot be read");
                return;
            }
        };
        let Some(state) = state.incidents() else { return };
        for change in self.changes(state, now) {
            self.say(change).await;
        }
        self.count(state);
    }

    fn count(&self, state: &IncidentsState) {
        let metrics = &self.engine.inner().common.metrics;
        for phase in AlertPhase::ALL.iter().filter(|phase| **phase != AlertPhase::Inactive) {
            let count = state.alerts().iter().filter(|alert| alert.phase == *phase).count();
            metrics.alerts.with([phase.as_str()]).set(count as i64);
        }
        for severity in types::Severity::ALL {
            let count = state.open().iter().filter(|open| open.severity == severity).count();
            metrics.incidents_open.with([severity.as_str()]).set(count as i64);
        }
    }

    /// What is to be said of the state that was read.
    fn changes(&self, state: &IncidentsState, now: Micros) -> Vec<AlertChange> {
        let own = || state.alerts().iter().filter(|alert| !is_external(&alert.key));
        // What was said and refused is said again: the receipts are where an alert stands.
        let (moved, firing) = self.sight.step(own().filter_map(kept), now.0);
        let inhibitor = |rule: &str, labels: &Labels| {
            let found = firing.iter().find(|((id, of), _)| (id.as_str(), of) == (rule, labels));
            let (by, of) = found?.1.as_ref()?;
            Some(key_of(by, of))
        };
        let mut changes: Vec<AlertChange> = moved
            .iter()
            .filter_map(|moved| self.change(moved, state, inhibitor(&moved.rule, &moved.labels)))
            .collect();
        // Nothing may stand in the way any more of one that fires without an incident: it is said
        // again until it has one, or somebody does not want to hear of it.
        let alone =
            own().filter(|alert| alert.phase == AlertPhase::Firing && alert.incident.is_none());
        for alert in alone {
            let Some((rule, labels, _)) = kept(alert) else { continue };
            let has_moved =
                moved.iter().any(|moved| (&moved.rule, &moved.labels) == (&rule, &labels));
            if !has_moved && inhibitor(&rule, &labels).is_none() {
                changes.push(AlertChange { to: AlertPhase::Firing, ..of(alert) });
            }
        }
        // An inhibitor comes first, so that whom it holds back finds its incident.
        changes.sort_by_key(|change| (change.inhibited_by.is_some(), change.severity));
        changes.extend(own().filter(|alert| kept(alert).is_none()).map(of));
        changes
    }

    fn change(
        &self,
        moved: &Change,
        state: &IncidentsState,
        inhibited_by: Option<String>,
    ) -> Option<AlertChange> {
        let key = key_of(&moved.rule, &moved.labels);
        let to = match moved.to {
            Phase::Inactive => AlertPhase::Inactive,
            Phase::Pending { .. } => AlertPhase::Pending,
            Phase::Firing { .. } => AlertPhase::Firing,
            Phase::Recovering { .. } => AlertPhase::Recovering,
        };
        let Some(rule) = self.rules.get(&moved.rule) else {
            // The rule is gone, and what is known of its alert is what was said.
            return state.alert(&key).map(of);
        };
        let message = moved.finding.as_ref().map(|finding| rule.message(finding));
        Some(AlertChange {
            key,
            rule: rule.id.clone(),
            to,
            severity: rule.severity,
            component: rule.component.clone(),
            title: cut(&rule.title, limits::METADATA_VALUE_CHARS),
            message: cut(&message.unwrap_or_default(), limits::INCIDENT_TEXT_CHARS),
            inhibited_by,
        })
    }

    async fn say(&self, change: AlertChange) {
        let key = change.key.clone();
        let request = Request {
            stream: incidents::stream(),
            command: Command::Alert(change),
            actor: "alerts".into(),
            may_register: false,
            key: None,
        };
        if let Err(refused) = self.engine.submit(request, None).await {
            tracing::warn!(event = "alert_waits", alert = %key, %refused, "a change of an alert is not recorded yet");
        }
    }
}

/// The end of an alert, as far as its receipts know it.
pub(crate) fn of(alert: &Alert) -> AlertChange {
    AlertChange {
        key: alert.key.clone(),
        rule: alert.rule.clone(),
        to: AlertPhase::Inactive,
        severity: alert.severity,
        component: alert.component.clone(),
        title: alert.title.clone(),
        message: String::new(),
        inhibited_by: None,
    }
}

/// Rule, labels and phase as the receipts tell them; `None` for a key that was cut.
fn kept(alert: &Alert) -> Option<(String, Labels, Phase)> {
    let labels = Labels::parse(alert.key.strip_prefix(&*alert.rule)?)?;
    let since_us = alert.since_us;
    let fired_us = alert.firing_since_us.unwrap_or(since_us);
    let phase = match alert.phase {
        AlertPhase::Inactive => Phase::Inactive,
        AlertPhase::Pending => Phase::Pending { since_us },
        AlertPhase::Firing => Phase::Firing { since_us: fired_us },
        AlertPhase::Recovering => Phase::Recovering { since_us, fired_us },
    };
    Some((alert.rule.clone(), labels, phase))
}

/// `ai-errors{provider="openai"}`, of a length that a receipt keeps.
pub(crate) fn key_of(rule: &str, labels: &Labels) -> String {
    cut(&format!("{rule}{labels}"), limits::METADATA_VALUE_CHARS)
}

pub(crate) fn cut(text: &str, chars_max: usize) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(chars_max).collect()
}
