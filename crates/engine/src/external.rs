//! Alerts that others have found.
//!
//! Owns: what an alert of Prometheus or Alertmanager is called here, when one that is not repeated
//! ends, and that a repeat leaves no receipt. Refuses to know: how one is sent, and which incident
//! it belongs to.
//!
//! What if the process dies here? That an alert fires is in the receipts. How long it may go
//! unrepeated is in memory: after a start every one has its whole time again.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dialect::notify::incoming::ExternalAlert;
use governors::incident::{Alert, IncidentsState};
use governors::{AlertChange, AlertPhase, Command};
use types::{Micros, ReceiptId, Severity, credentials, limits};

use crate::act::{Engine, Request};
use crate::alerts::{cut, of};
use crate::commit::Refused;
use crate::incidents;
use crate::supervise::Stop;

/// Who sends alerts. It decides how long one lasts that is not repeated and does not say so itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// Prometheus and what is like it: says every minute or so what fires.
    Prometheus,
    /// Alertmanager: says that an alert is over, and repeats one every few hours.
    Alertmanager,
}

impl Sender {
    const ALL: [Sender; 2] = [Sender::Prometheus, Sender::Alertmanager];

    /// What stands before the fingerprint in a key. No rule of ours has a colon in its id.
    const fn prefix(self) -> &'static str {
        match self {
            Sender::Prometheus => "prometheus:",
            Sender::Alertmanager => "alertmanager:",
        }
    }

    /// Alertmanager's `resolve_timeout` as it is without a setting; and more than its
    /// `repeat_interval` of 4 h.
    const fn patience_s(self) -> i64 {
        match self {
            Sender::Prometheus => 300,
            Sender::Alertmanager => 6 * 3_600,
        }
    }

    fn of(key: &str) -> Option<Sender> {
        Sender::ALL.into_iter().find(|sender| key.starts_with(sender.prefix()))
    }
}

/// True for the alert of somebody else.
pub(crate) fn is_external(key: &str) -> bool {
    Sender::of(key).is_some()
}

/// What became of alerts that were sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Heard {
    /// Alerts that began to fire, or were given the incident that they did not have.
    pub fired: usize,
    /// Alerts that ended.
    pub ended: usize,
    /// Alerts of which nothing new was said.
    pub repeated: usize,
    /// Notices of our own that came back, and are passed over.
    pub own: usize,
}

/// When alerts end that are not repeated, by their keys. Bounded by the alerts that may be active.
#[derive(Default)]
pub(crate) struct External(Mutex<BTreeMap<String, Micros>>);

impl External {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Micros>> {
        // A map is whole after every change.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Forgets what is not active, gives what was never heard of its whole time, and names what is
    /// over.
    fn over<'a>(&self, active: &'a [Alert], now: Micros, may_guess: bool) -> Vec<&'a Alert> {
        let mut ends = self.lock();
        ends.retain(|key, _| active.iter().any(|alert| alert.key == *key));
        let is_over = |alert: &&Alert| {
            let Some(sender) = Sender::of(&alert.key) else { return false };
            match ends.get(&alert.key) {
                Some(at) => *at <= now,
                None if may_guess => {
                    ends.insert(alert.key.clone(), now.plus_secs(sender.patience_s()));
                    false
                }
                None => false,
            }
        };
        active.iter().filter(is_over).collect()
    }
}

/// Ends alerts that are not repeated, again and again until asked to stop.
pub(crate) async fn sweep(engine: Engine, mut stop: Stop) {
    loop {
        tokio::select! {
            () = stop.asked() => return,
            () = tokio::time::sleep(engine.options().alert_interval) => {}
        }
        let Ok(state) = engine.incidents().await else { continue };
        let Some(held) = state.incidents() else { continue };
        // On a shared store another instance may hear what this one does not.
        let may_guess = !engine.store().is_shared();
        let over = engine.inner().external.over(held.alerts(), engine.clock().now(), may_guess);
        let ends = over.iter().map(|alert| of(alert));
        // What held one back may be over: it is said again until it has an incident.
        let waits = |alert: &&Alert| {
            let is_alone = alert.phase == AlertPhase::Firing && alert.incident.is_none();
            is_external(&alert.key) && is_alone && !over.iter().any(|it| it.key == alert.key)
        };
        let waiting = held.alerts().iter().filter(waits);
        let again = waiting.map(|alert| AlertChange { to: AlertPhase::Firing, ..of(alert) });
        for change in ends.chain(again) {
            let key = change.key.clone();
            let said = engine.say_external(change, "external_alerts".into()).await;
            if let Err(refused) = said {
                tracing::warn!(event = "alert_waits", alert = %key, %refused, "a change of an alert is not recorded yet");
            }
        }
    }
}

impl Engine {
    /// Takes alerts of somebody else. What fires becomes an alert of the incidents, which an
    /// incident is opened or joined for as for our own; what is over ends; a repeat only puts off
    /// its end.
    ///
    /// # Errors
    /// Those of a store that does not answer, and [`types::Reason::StateError`] where as many
    /// alerts are active as may be. Alerts before the one that was refused are taken: a sender that
    /// sends them all again does no harm.
    pub async fn hear(
        &self,
        sender: Sender,
        alerts: &[ExternalAlert],
        actor: &str,
    ) -> Result<Heard, Refused> {
        let mut heard = Heard::default();
        let state = self.incidents().await?;
        let empty = IncidentsState::default();
        let state = state.incidents().unwrap_or(&empty);
        let now = self.clock().now();
        for alert in alerts {
            if self.is_own(alert).await? {
                heard.own += 1;
                continue;
            }
            let key = format!("{}{}", sender.prefix(), alert.fingerprint);
            let held = state.alert(&key);
            if alert.is_resolved(now) {
                self.inner().external.lock().remove(&key);
                match held {
                    Some(held) => {
                        self.say_external(of(held), actor.to_owned()).await?;
                        heard.ended += 1;
                    }
                    None => heard.repeated += 1,
                }
                continue;
            }
            let patience = now.plus_secs(sender.patience_s());
            let ends = alert.ends_at.filter(|ends| *ends > now).unwrap_or(patience);
            // One that fires without an incident was silenced, and may not be any more.
            let is_new = held.is_none_or(|held| held.incident.is_none());
            let said =
                is_new && self.say_external(change(key.clone(), alert), actor.to_owned()).await?;
            self.inner().external.lock().insert(key, ends);
            if said { heard.fired += 1 } else { heard.repeated += 1 }
        }
        Ok(heard)
    }

    /// True where something was decided.
    async fn say_external(&self, change: AlertChange, actor: String) -> Result<bool, Refused> {
        let request = Request {
            stream: incidents::stream(),
            command: Command::Alert(change),
            actor: actor.into(),
            may_register: false,
            key: None,
        };
        Ok(self.act(request).await?.is_some())
    }

    /// Whether it is a notice of ours that has come back by way of an Alertmanager: taken for an
    /// alert, it would keep the incident that it is about from ending.
    async fn is_own(&self, alert: &ExternalAlert) -> Result<bool, Refused> {
        let receipt =
            alert.annotations.get("receipt").filter(|_| alert.labels.contains_key("incident"));
        let Some(id) = receipt.and_then(|id| ReceiptId::parse(id)) else { return Ok(false) };
        Ok(self.find(id).await?.is_some())
    }
}

/// What an alert becomes here. Where labels have no word for it: `sev3`, and the job that it is
/// about.
fn change(key: String, alert: &ExternalAlert) -> AlertChange {
    let first = |texts: &BTreeMap<String, String>, names: &[&str]| {
        names.iter().find_map(|name| texts.get(*name)).cloned()
    };
    let name = first(&alert.labels, &["alertname"]).unwrap_or_else(|| "external".to_owned());
    let component = first(&alert.labels, &["component", "service", "job"]);
    let severity = alert.labels.get("severity").and_then(|word| Severity::parse(word));
    let title = first(&alert.annotations, &["summary", "title"]);
    let message = first(&alert.annotations, &["description", "message"]);
    // A word that no receipt keeps must not keep an alert from being told.
    let word = |text: &str| match credentials::is_credential(text) {
        true => "external".to_owned(),
        false => cut(text, limits::METADATA_VALUE_CHARS),
    };
    AlertChange {
        key,
        rule: word(&name),
        to: AlertPhase::Firing,
        severity: severity.unwrap_or(Severity::Sev3),
        component: word(component.as_deref().unwrap_or("external")),
        title: word(title.as_deref().unwrap_or(&name)),
        message: cut(message.as_deref().unwrap_or_default(), limits::INCIDENT_TEXT_CHARS),
        inhibited_by: None,
        instance: None,
        gone: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(key: &str) -> Alert {
        Alert {
            key: key.to_owned(),
            rule: "x".to_owned(),
            phase: AlertPhase::Firing,
            since_us: 0,
            firing_since_us: Some(0),
            began_us: 0,
            severity: Severity::Sev3,
            component: "http".to_owned(),
            title: "x".to_owned(),
            incident: Some(1),
            instance: None,
        }
    }

    fn keys(over: Vec<&Alert>) -> Vec<String> {
        over.into_iter().map(|alert| alert.key.clone()).collect()
    }

    #[test]
    fn an_alert_that_is_not_repeated_ends_when_its_time_is_over_and_others_do_not() {
        let external = External::default();
        let at = Micros::from_secs;
        let active =
            ["alertmanager:1", "error-rate-high", "prometheus:1", "prometheus:2"].map(alert);
        external.lock().insert("prometheus:1".to_owned(), at(60));
        external.lock().insert("prometheus:gone".to_owned(), at(0));
        assert_eq!(keys(external.over(&active, at(59), true)), [""; 0]);
        assert_eq!(keys(external.over(&active, at(60), true)), ["prometheus:1"]);
        assert!(!external.lock().contains_key("prometheus:gone"), "it is not active");
        // Those that an earlier process has heard have their time from the first look on.
        assert_eq!(keys(external.over(&active, at(59 + 299), true)), ["prometheus:1"]);
        assert_eq!(
            keys(external.over(&active, at(59 + 300), true)),
            ["prometheus:1", "prometheus:2"]
        );
        let late = external.over(&active, at(59 + 6 * 3_600), true);
        assert_eq!(keys(late), ["alertmanager:1", "prometheus:1", "prometheus:2"]);
    }

    #[test]
    fn what_another_instance_may_have_heard_is_left_alone() {
        let external = External::default();
        let active = ["prometheus:1", "prometheus:2"].map(alert);
        external.lock().insert("prometheus:1".to_owned(), Micros::from_secs(1));
        let over = external.over(&active, Micros::from_secs(1_000_000), false);
        assert_eq!(keys(over), ["prometheus:1"]);
    }

    #[test]
    fn an_alert_is_called_by_its_labels_and_what_they_lack_has_a_word() {
        let texts = |pairs: &[(&str, &str)]| {
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
        };
        let sent = |labels: &[(&str, &str)], annotations: &[(&str, &str)]| ExternalAlert {
            fingerprint: "f".to_owned(),
            labels: texts(labels),
            annotations: texts(annotations),
            starts_at: None,
            ends_at: None,
            generator_url: None,
            said_resolved: None,
        };
        let bare = change("prometheus:f".to_owned(), &sent(&[("job", "node")], &[]));
        assert_eq!((&*bare.rule, &*bare.component, &*bare.title), ("external", "node", "external"));
        assert_eq!((bare.severity, &*bare.message), (Severity::Sev3, ""));
        let labels =
            [("alertname", "Down"), ("component", "http"), ("severity", "critical"), ("job", "n")];
        let texts = [("summary", "it is\ndown"), ("description", "since noon")];
        let full = change("prometheus:f".to_owned(), &sent(&labels, &texts));
        assert_eq!((&*full.rule, &*full.component, &*full.title), ("Down", "http", "it is down"));
        assert_eq!((full.severity, &*full.message), (Severity::Sev1, "since noon"));
    }
}
