//! Watching our own figures: samples in, changes of alerts out.
//!
//! Owns: when a scrape is taken, what an alert is called, and what is said to the governor. Refuses
//! to know: what an SLI is made of, and what an alert leads to.
//!
//! In a shared store every instance says what its own figures show, under its own name: the number
//! of its log, which the store's leases know it by. What one says no other one unsays; what becomes
//! of it once that instance is gone is in [`gone`].
//!
//! What if the process dies here? Where an alert stands is folded from receipts, so that the time
//! that it has been pending or firing goes on; the samples are gone, and for one window nothing is
//! said on the strength of their absence. In a shared store the next life has another name, and
//! takes the alert over.

mod gone;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use governors::incident::{Alert, IncidentsState};
use governors::{AlertChange, AlertPhase, Command};
use ledger::seal::sha256;
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

/// The label that tells instances apart.
const INSTANCE: &str = "instance";

/// How long a case of a life before is waited for that nobody sees.
const UNSEEN_S: i64 = 600;

/// Bytes of the hash behind a key that was cut.
const MARK_BYTES: usize = 8;

/// Evaluates every rule again and again until asked to stop.
pub(crate) async fn evaluate(engine: Engine, rules: Arc<Rules>, mut stop: Stop) {
    let interval = engine.options().alert_interval;
    let interval_us = i64::try_from(interval.as_micros()).unwrap_or(i64::MAX);
    let instance = engine.store().writer().map(|number| number.to_string());
    if let Some(instance) = &instance {
        tracing::info!(event = "instance", instance, "alerts of this instance have its name");
    }
    let began = engine.clock().now();
    let sight = Sight::new(Arc::clone(&rules), interval_us, instance.clone(), began.0);
    let sight = Arc::new(sight);
    engine.show(Arc::clone(&sight));
    let (long, missed) = (BTreeMap::new(), BTreeMap::new());
    let mut watch = Watch { engine, rules, sight, instance, began, long, missed };
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
    /// What this instance is called, where there may be others.
    instance: Option<String>,
    began: Micros,
    /// The labels behind keys that do not hold them.
    long: BTreeMap<String, Labels>,
    /// Instances that the store takes for gone, and since when: after an outage of the store all of
    /// them are, until they are heard of again.
    missed: BTreeMap<u64, Micros>,
}

impl Watch {
    /// One scrape, and what follows from it.
    async fn look(&mut self) {
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
        for change in self.of_the_gone(state, now).await {
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
    fn changes(&mut self, state: &IncidentsState, now: Micros) -> Vec<AlertChange> {
        // What was said and refused is said again: the receipts are where an alert stands.
        let ours = || state.alerts().iter().filter(|alert| !is_external(&alert.key));
        let own: Vec<&Alert> = ours().filter(|alert| alert.instance == self.instance).collect();
        self.learn(&own, now);
        let kept: Vec<_> = own.iter().filter_map(|alert| self.kept(alert)).collect();
        let (moved, firing) = self.sight.step(kept, now.0);
        let inhibitor = |rule: &str, labels: &Labels| {
            let found = firing.iter().find(|((id, of), _)| (id.as_str(), of) == (rule, labels));
            let (by, of) = found?.1.as_ref()?;
            Some(self.key_of(by, of))
        };
        let mut changes: Vec<AlertChange> = moved
            .iter()
            .filter_map(|moved| self.change(moved, state, inhibitor(&moved.rule, &moved.labels)))
            .collect();
        // Nothing may stand in the way any more of one that fires without an incident: it is said
        // again until it has one, or somebody does not want to hear of it.
        let alone = own
            .iter()
            .filter(|alert| alert.phase == AlertPhase::Firing && alert.incident.is_none());
        for alert in alone {
            let Some((rule, labels, _)) = self.kept(alert) else { continue };
            let has_moved =
                moved.iter().any(|moved| (&moved.rule, &moved.labels) == (&rule, &labels));
            if !has_moved && inhibitor(&rule, &labels).is_none() {
                changes.push(AlertChange { to: AlertPhase::Firing, ..of(alert) });
            }
        }
        // An inhibitor comes first, so that whom it holds back finds its incident.
        changes.sort_by_key(|change| (change.inhibited_by.is_some(), change.severity));
        changes.extend(own.iter().filter(|alert| self.is_lost(alert, now)).map(|alert| of(alert)));
        // Of a time when nobody had a name.
        let is_nobodys = |alert: &&Alert| alert.instance.is_none() && self.instance.is_some();
        changes.extend(ours().filter(is_nobodys).map(of));
        for moved in moved {
            let key = self.key_of(&moved.rule, &moved.labels);
            if moved.to == Phase::Inactive {
                self.long.remove(&key);
            } else if parsed(&key, &moved.rule).is_none() {
                self.long.insert(key, moved.labels);
            }
        }
        changes
    }

    /// Finds the labels behind keys of a life before that do not hold them.
    fn learn(&mut self, own: &[&Alert], now: Micros) {
        let is_unknown = |alert: &&&Alert| self.kept(alert).is_none();
        let unknown: BTreeSet<&str> =
            own.iter().filter(is_unknown).map(|alert| &*alert.key).collect();
        if unknown.is_empty() {
            return;
        }
        let cases = self.sight.cases(now.0);
        let keyed = cases.into_iter().map(|(rule, labels)| (self.key_of(&rule, &labels), labels));
        let found: Vec<_> = keyed.filter(|(key, _)| unknown.contains(&**key)).collect();
        self.long.extend(found);
    }

    /// True for an alert whose case this life has not seen for long enough.
    fn is_lost(&self, alert: &Alert, now: Micros) -> bool {
        self.kept(alert).is_none() && self.began.plus_secs(UNSEEN_S) <= now
    }

    /// Rule, labels and phase as the receipts tell them; `None` for a key whose labels nobody
    /// knows.
    fn kept(&self, alert: &Alert) -> Option<(String, Labels, Phase)> {
        let labels = parsed(&alert.key, &alert.rule);
        let labels = labels.or_else(|| self.long.get(&alert.key).cloned())?;
        let labels = labels.iter().filter(|(name, _)| *name != INSTANCE).collect();
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

    fn key_of(&self, rule: &str, labels: &Labels) -> String {
        key_of(rule, labels, self.instance.as_deref())
    }

    fn change(
        &self,
        moved: &Change,
        state: &IncidentsState,
        inhibited_by: Option<String>,
    ) -> Option<AlertChange> {
        let key = self.key_of(&moved.rule, &moved.labels);
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
            instance: self.instance.clone(),
            gone: None,
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
        instance: alert.instance.clone(),
        gone: None,
    }
}

/// The labels that a key holds; `None` for one that was too long to hold them.
fn parsed(key: &str, rule: &str) -> Option<Labels> {
    Labels::parse(key.strip_prefix(rule)?)
}

/// `ai-errors{instance="7",provider="openai"}`. What is too long for a receipt is cut, and ends
/// with what tells it from others that begin alike.
pub(crate) fn key_of(rule: &str, labels: &Labels, instance: Option<&str>) -> String {
    let all: Labels = labels.iter().chain(instance.map(|name| (INSTANCE, name))).collect();
    let whole = format!("{rule}{all}");
    let plain = cut(&whole, limits::METADATA_VALUE_CHARS);
    if plain == whole {
        return plain;
    }
    let mut key = cut(&whole, limits::METADATA_VALUE_CHARS - 1 - 2 * MARK_BYTES);
    key.push('~');
    for byte in &sha256(whole.as_bytes()).0[..MARK_BYTES] {
        let _ = write!(key, "{byte:02x}");
    }
    key
}

pub(crate) fn cut(text: &str, chars_max: usize) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(chars_max).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_holds_its_labels_and_the_instance_or_ends_with_what_tells_it_apart() {
        let labels: Labels = [("provider", "openai")].into_iter().collect();
        assert_eq!(key_of("ai", &labels, None), "ai{provider=\"openai\"}");
        let named = key_of("ai", &labels, Some("7"));
        assert_eq!(named, "ai{instance=\"7\",provider=\"openai\"}");
        assert_eq!(parsed(&named, "ai").unwrap().get(INSTANCE), Some("7"));
        let long = |end: &str| -> Labels {
            [("route", format!("{}{end}", "é".repeat(300)))].into_iter().collect()
        };
        let (one, other) = (key_of("ai", &long("a"), None), key_of("ai", &long("b"), None));
        assert_eq!(one, key_of("ai", &long("a"), None), "it is the same at every look");
        assert_ne!(one, other);
        assert_eq!(one.chars().count(), limits::METADATA_VALUE_CHARS);
        assert_eq!(parsed(&one, "ai"), None);
        // What a receipt cannot hold as it is told apart as well.
        let odd: Labels = [("route", "a\u{7f}b")].into_iter().collect();
        let plain: Labels = [("route", "a b")].into_iter().collect();
        assert_ne!(key_of("ai", &odd, None), key_of("ai", &plain, None));
    }
}
