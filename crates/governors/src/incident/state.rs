//! What stands in the stream `_incidents`: alerts, silences, what is planned, and open incidents.
//!
//! Owns: the fold. Refuses to know: who is told what, which the receipts say.

use std::ops::Range;

use ledger::View;
use serde::{Deserialize, Serialize};
use types::{Micros, ReceiptId, Severity, limits};

use super::{
    ABSENT, Maintenance, Override, duty, incident_name, incident_number, is_of_a_lane, maintenance,
    said_at,
};
use crate::command::{AlertPhase, IncidentRole, IncidentStatus};
use crate::draft::{Secs, rule};
use crate::snapshot::word;
use crate::state::FoldError;

/// The state of the stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IncidentsState {
    /// Incidents so far; the next one has the number after it.
    count: u64,
    /// In ascending order of keys. An inactive one is not kept.
    alerts: Vec<Alert>,
    /// In ascending order of what they match.
    silences: Vec<Silence>,
    /// In ascending order of numbers.
    open: Vec<Incident>,
    /// Overrides so far.
    #[serde(default)]
    overrides_count: u64,
    /// In ascending order of numbers.
    #[serde(default)]
    overrides: Vec<Override>,
    /// Maintenance windows so far.
    #[serde(default)]
    maintenances_count: u64,
    /// In ascending order of numbers.
    #[serde(default)]
    maintenances: Vec<Maintenance>,
    /// The numbers of the newest incidents that were opened in lanes, in the order of their coming.
    #[serde(default)]
    of_lanes: Vec<u64>,
}

/// Incidents of lanes that are remembered once they are resolved.
const OF_LANES_MAX: usize = 1_000;

/// An alert that is not inactive.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Alert {
    /// The rule, with its labels behind it where it holds per label: `ai-errors{provider="a"}`.
    pub key: String,
    /// The rule's id.
    pub rule: String,
    /// Where it stands.
    pub phase: AlertPhase,
    /// Since when it stands there, in microseconds.
    pub since_us: i64,
    /// Since when it fires, where it does.
    pub firing_since_us: Option<i64>,
    /// Since when its condition holds.
    pub began_us: i64,
    /// How bad it is.
    #[serde(with = "word")]
    pub severity: Severity,
    /// What it is about.
    pub component: String,
    /// One line for people.
    pub title: String,
    /// The incident that it belongs to.
    pub incident: Option<u64>,
    /// Whose figures it stands on, where several instances measure.
    pub instance: Option<String>,
}

/// A silence: alerts that it matches open no incident while it lasts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Silence {
    /// `rule=ID`, `component=NAME` or `alert=KEY`.
    pub matcher: String,
    /// Until when, in unix seconds.
    pub until_s: i64,
    /// Who set it.
    pub by: String,
}

/// An incident that is not resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Incident {
    /// `INC-` and this.
    pub number: u64,
    /// The receipt that opened it.
    #[serde(with = "word")]
    pub opened_by: ReceiptId,
    /// One line for people.
    pub title: String,
    /// How bad it is.
    #[serde(with = "word")]
    pub severity: Severity,
    /// What is being done.
    pub status: IncidentStatus,
    /// When what is wrong began, as far as anybody knows; in microseconds, as all times here.
    pub began_us: i64,
    /// When it was opened.
    pub opened_us: i64,
    /// When it was acknowledged first.
    pub acknowledged_us: Option<i64>,
    /// Who acknowledged it.
    pub acknowledged_by: Option<String>,
    /// Who has which role.
    pub roles: Vec<(IncidentRole, String)>,
    /// The components that are affected, in the order in which they were found to be.
    pub components: Vec<String>,
    /// The channels over which it was told.
    pub told: Vec<String>,
    /// The channels that could not be reached, for which others were told.
    pub unreachable: Vec<String>,
    /// From when the steps of its ladder count.
    pub base_us: i64,
    /// The step of the ladder that is next.
    pub step: u64,
    /// When that step is due.
    pub page_at_us: Option<i64>,
    /// When the next update is due.
    pub update_at_us: Option<i64>,
    /// When it resolves by itself.
    pub resolve_at_us: Option<i64>,
    /// A person has declared it, before any alert.
    #[serde(default)]
    pub is_declared: bool,
}

impl Silence {
    /// True when it matches the alert.
    #[must_use]
    pub fn matches(&self, alert: &str, rule: &str, component: &str) -> bool {
        match self.matcher.split_once('=') {
            Some(("rule", wanted)) => wanted == rule,
            Some(("component", wanted)) => wanted == component,
            Some(("alert", wanted)) => wanted == alert,
            _ => false,
        }
    }

    pub(super) fn is_over(&self, now: Micros) -> bool {
        Secs(self.until_s).reached(now)
    }
}

impl Alert {
    /// True while it fires or may fire again at once.
    #[must_use]
    pub fn is_firing(&self) -> bool {
        matches!(self.phase, AlertPhase::Firing | AlertPhase::Recovering)
    }
}

impl IncidentsState {
    /// The alerts that are not inactive, in ascending order of keys.
    #[must_use]
    pub fn alerts(&self) -> &[Alert] {
        &self.alerts
    }

    /// The silences, in ascending order of what they match. One that is over may be among them.
    #[must_use]
    pub fn silences(&self) -> &[Silence] {
        &self.silences
    }

    /// The incidents that are not resolved, in ascending order of numbers.
    #[must_use]
    pub fn open(&self) -> &[Incident] {
        &self.open
    }

    /// The overrides of the rota, in ascending order of numbers. One that is over may be among
    /// them.
    #[must_use]
    pub fn overrides(&self) -> &[Override] {
        &self.overrides
    }

    pub(super) fn overrides_count(&self) -> u64 {
        self.overrides_count
    }

    /// The maintenance windows, in ascending order of numbers. One that is over may be among them.
    #[must_use]
    pub fn maintenances(&self) -> &[Maintenance] {
        &self.maintenances
    }

    pub(super) fn maintenances_count(&self) -> u64 {
        self.maintenances_count
    }

    /// The window in which a component is worked on at `now`.
    #[must_use]
    pub fn maintenance_of(&self, component: &str, now: Micros) -> Option<&Maintenance> {
        self.maintenances.iter().find(|held| held.covers(component, now))
    }

    /// Incidents so far, resolved ones too, without those that were opened in lanes.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// True for an incident that is open, or was.
    #[must_use]
    pub fn was_there(&self, number: u64) -> bool {
        (1..=self.count).contains(&number) || self.of_lanes.contains(&number)
    }

    /// The highest of these numbers that an incident of a lane has.
    pub(super) fn newest_in(&self, numbers: &Range<u64>) -> Option<u64> {
        self.of_lanes.iter().copied().filter(|number| numbers.contains(number)).max()
    }

    /// The alert of that key, unless it is inactive.
    #[must_use]
    pub fn alert(&self, key: &str) -> Option<&Alert> {
        self.find_alert(key).ok().map(|at| &self.alerts[at])
    }

    /// The incident of that number, unless it is resolved.
    #[must_use]
    pub fn incident(&self, number: u64) -> Option<&Incident> {
        self.find_incident(number).ok().map(|at| &self.open[at])
    }

    /// The alerts of an incident that fire or may again at once.
    pub fn alerts_of(&self, number: u64) -> impl Iterator<Item = &Alert> {
        self.alerts.iter().filter(move |held| held.incident == Some(number) && held.is_firing())
    }

    /// True when somebody does not want to hear of the alert at `now`.
    pub(super) fn is_silenced(&self, key: &str, rule: &str, component: &str, now: Micros) -> bool {
        let counts = |held: &&Silence| !held.is_over(now) && held.matches(key, rule, component);
        self.silences.iter().any(|held| counts(&held))
    }

    /// When time alone has something to do next.
    pub(crate) fn next_due(&self) -> Option<Micros> {
        let silences = self.silences.iter().map(|held| Secs(held.until_s).instant());
        let clocks = |held: &Incident| {
            let clocks = [held.page_at_us, held.update_at_us, held.resolve_at_us];
            clocks.into_iter().flatten().map(Micros).min()
        };
        let overrides = self.overrides.iter().map(|held| Micros::from_secs(held.until_s));
        let windows = self.maintenances.iter().map(|held| Micros::from_secs(held.until_s));
        let planned = silences.chain(overrides).chain(windows);
        planned.chain(self.open.iter().filter_map(clocks)).min()
    }

    fn find_alert(&self, key: &str) -> Result<usize, usize> {
        self.alerts.binary_search_by(|held| (*held.key).cmp(key))
    }

    pub(super) fn find_silence(&self, matcher: &str) -> Result<usize, usize> {
        self.silences.binary_search_by(|held| (*held.matcher).cmp(matcher))
    }

    fn find_incident(&self, number: u64) -> Result<usize, usize> {
        self.open.binary_search_by_key(&number, |held| held.number)
    }

    /// True when a fold can lead to this state.
    pub(crate) fn is_folded(&self) -> bool {
        self.alerts.is_sorted_by(|a, b| a.key < b.key)
            && self.silences.is_sorted_by(|a, b| a.matcher < b.matcher)
            && self.open.is_sorted_by(|a, b| a.number < b.number)
            && self.open.iter().all(|held| self.was_there(held.number))
            && self.of_lanes.iter().all(|number| is_of_a_lane(*number))
            && self.alerts.iter().all(|held| held.phase != AlertPhase::Inactive)
            && self.alerts.len() <= limits::ALERTS
            && self.overrides.is_sorted_by(|a, b| a.number < b.number)
            && self.overrides.last().is_none_or(|last| last.number <= self.overrides_count)
            && self.maintenances.is_sorted_by(|a, b| a.number < b.number)
            && self.maintenances.last().is_none_or(|last| last.number <= self.maintenances_count)
    }

    /// Folds one transition.
    pub(crate) fn apply(&mut self, rule: &str, receipt: &View<'_>) -> Result<(), FoldError> {
        let subject = receipt.subject.ok_or(FoldError::Field { field: "subject" })?.text();
        match rule {
            rule::ALERT_CHANGE => self.apply_alert(&subject, receipt),
            rule::SILENCE_SET | rule::SILENCE_CLEAR | rule::SILENCE_LEASE_END => {
                self.apply_silence(rule, &subject, receipt)
            }
            rule::OVERRIDE_ADD | rule::OVERRIDE_END | rule::OVERRIDE_OVER => {
                let (count, held) = (&mut self.overrides_count, &mut self.overrides);
                duty::apply(count, held, rule, &subject, receipt)
            }
            rule::MAINTENANCE_ADD | rule::MAINTENANCE_END | rule::MAINTENANCE_OVER => {
                let (count, held) = (&mut self.maintenances_count, &mut self.maintenances);
                maintenance::apply(count, held, rule, &subject, receipt)
            }
            rule::INCIDENT_CORRECT => Ok(()),
            _ if rule.starts_with("incident.") => self.apply_incident(rule, &subject, receipt),
            _ => Err(FoldError::UnknownRule),
        }
    }

    fn is_next(&self, number: u64) -> bool {
        if is_of_a_lane(number) { !self.was_there(number) } else { number == self.count + 1 }
    }

    fn apply_alert(&mut self, key: &str, receipt: &View<'_>) -> Result<(), FoldError> {
        let found = self.find_alert(key);
        let from = found.map_or(AlertPhase::Inactive, |at| self.alerts[at].phase);
        if !receipt.state_from.is_some_and(|word| word.is(from.as_str())) {
            return Err(FoldError::StateFrom);
        }
        let to = receipt.state_to.and_then(|word| AlertPhase::parse(&word.text()));
        let to = to.ok_or(FoldError::Field { field: "state_to" })?;
        let held = match found {
            Ok(at) => Some(self.alerts[at].clone()),
            Err(_) => None,
        };
        if to == AlertPhase::Inactive {
            if let Ok(at) = found {
                self.alerts.remove(at);
            }
            return Ok(());
        }
        let now_us = said_at(receipt).0;
        let fires = matches!(to, AlertPhase::Firing | AlertPhase::Recovering);
        let fired = held.as_ref().and_then(|held| held.firing_since_us);
        // Said where it goes on with the alert of another instance.
        let inherited = receipt.meta_int("since_us");
        let since_us = if from == to { held.as_ref().map(|held| held.since_us) } else { None };
        let began_us = receipt.meta_int("began_us");
        let alert = Alert {
            key: key.to_owned(),
            rule: text(receipt, "rule")?,
            phase: to,
            since_us: inherited.or(since_us).unwrap_or(now_us),
            firing_since_us: if fires { fired.or(inherited).or(Some(now_us)) } else { None },
            began_us: began_us.or(held.as_ref().map(|held| held.began_us)).unwrap_or(now_us),
            severity: severity(receipt)?,
            component: text(receipt, "component")?,
            title: text(receipt, "title")?,
            incident: held.and_then(|held| held.incident),
            instance: receipt.meta_text("instance").map(|text| text.into_owned()),
        };
        match found {
            Ok(at) => self.alerts[at] = alert,
            Err(at) => self.alerts.insert(at, alert),
        }
        Ok(())
    }

    fn apply_silence(
        &mut self,
        rule: &str,
        matcher: &str,
        receipt: &View<'_>,
    ) -> Result<(), FoldError> {
        let found = self.find_silence(matcher);
        let from = if found.is_ok() { "live" } else { ABSENT };
        if !receipt.state_from.is_some_and(|word| word.is(from)) {
            return Err(FoldError::StateFrom);
        }
        match (rule, found) {
            (rule::SILENCE_SET, found) => {
                let until_s = receipt.expires_at.ok_or(FoldError::Field { field: "expires_at" })?;
                let by = receipt.actor.map(|actor| actor.text().into_owned()).unwrap_or_default();
                let silence = Silence { matcher: matcher.to_owned(), until_s, by };
                match found {
                    Ok(at) => self.silences[at] = silence,
                    Err(at) => self.silences.insert(at, silence),
                }
            }
            (rule::SILENCE_LEASE_END, Ok(at)) if !self.silences[at].is_over(receipt.at) => {
                return Err(FoldError::StateFrom);
            }
            (_, Ok(at)) => {
                self.silences.remove(at);
            }
            (_, Err(_)) => return Err(FoldError::StateFrom),
        }
        Ok(())
    }

    fn apply_incident(
        &mut self,
        rule: &str,
        name: &str,
        receipt: &View<'_>,
    ) -> Result<(), FoldError> {
        let number = incident_number(name).ok_or(FoldError::Field { field: "subject" })?;
        let status = receipt.state_to.and_then(|word| IncidentStatus::parse(&word.text()));
        let status = status.ok_or(FoldError::Field { field: "state_to" })?;
        let found = self.find_incident(number);
        let from = found.map_or(ABSENT, |at| self.open[at].status.as_str());
        if !receipt.state_from.is_some_and(|word| word.is(from)) {
            return Err(FoldError::StateFrom);
        }
        let mut incident = match (found, rule) {
            (Ok(at), _) if rule != rule::INCIDENT_OPEN => self.open[at].clone(),
            (Err(_), rule::INCIDENT_OPEN) if self.is_next(number) => {
                Incident::opened(number, receipt)?
            }
            _ => return Err(FoldError::StateFrom),
        };
        incident.apply(rule, status, receipt)?;
        if let Some(key) = receipt.meta_text("alert") {
            let at = self.find_alert(&key).map_err(|_| FoldError::Field { field: "alert" })?;
            self.alerts[at].incident = Some(number);
        }
        match found {
            Ok(at) if status == IncidentStatus::Resolved => {
                self.open.remove(at);
                let its = self.alerts.iter_mut().filter(|held| held.incident == Some(number));
                its.for_each(|held| held.incident = None);
            }
            Ok(at) => self.open[at] = incident,
            Err(at) => {
                self.open.insert(at, incident);
                if is_of_a_lane(number) {
                    let older = (self.of_lanes.len() + 1).saturating_sub(OF_LANES_MAX);
                    self.of_lanes.drain(..older);
                    self.of_lanes.push(number);
                } else {
                    self.count = number;
                }
            }
        }
        Ok(())
    }
}

impl Incident {
    /// `INC-7`.
    #[must_use]
    pub fn name(&self) -> String {
        incident_name(self.number)
    }

    fn opened(number: u64, receipt: &View<'_>) -> Result<Incident, FoldError> {
        let opened_us = said_at(receipt).0;
        Ok(Incident {
            number,
            opened_by: receipt.id,
            title: text(receipt, "title")?,
            severity: severity(receipt)?,
            status: IncidentStatus::Investigating,
            began_us: receipt.meta_int("began_us").unwrap_or(opened_us),
            opened_us,
            acknowledged_us: None,
            acknowledged_by: None,
            roles: Vec::new(),
            components: Vec::new(),
            told: Vec::new(),
            unreachable: Vec::new(),
            base_us: opened_us,
            step: 0,
            page_at_us: None,
            update_at_us: None,
            resolve_at_us: None,
            // An alert knows since when its condition holds.
            is_declared: receipt.meta("began_us").is_none(),
        })
    }

    /// Moves on by one receipt.
    fn apply(
        &mut self,
        rule: &str,
        status: IncidentStatus,
        receipt: &View<'_>,
    ) -> Result<(), FoldError> {
        let now_us = said_at(receipt).0;
        self.status = status;
        if let Some(component) = receipt.meta_text("component")
            && !self.components.iter().any(|held| *held == component)
        {
            self.components.push(component.into_owned());
        }
        if let Some(word) = receipt.meta_text("severity") {
            self.severity = Severity::parse(&word).ok_or(FoldError::Field { field: "severity" })?;
        }
        if let Some(step) = receipt.meta_int("step") {
            let at = |key| receipt.meta_int(key).filter(|at_us| *at_us > 0);
            let base_us = receipt.meta_int("base_us");
            self.base_us = base_us.ok_or(FoldError::Field { field: "base_us" })?;
            self.step = u64::try_from(step).map_err(|_| FoldError::Field { field: "step" })?;
            (self.page_at_us, self.update_at_us) = (at("page_at_us"), at("update_at_us"));
        }
        self.resolve_at_us = match rule {
            rule::INCIDENT_JOIN => None,
            rule::INCIDENT_RECOVERED => receipt.meta_int("resolve_at_us"),
            _ => self.resolve_at_us.filter(|_| status == IncidentStatus::Monitoring),
        };
        if rule == rule::INCIDENT_ACKNOWLEDGE && self.acknowledged_us.is_none() {
            self.acknowledged_us = Some(now_us);
            self.acknowledged_by = receipt.actor.map(|actor| actor.text().into_owned());
        }
        if rule == rule::INCIDENT_ASSIGN {
            let role = IncidentRole::parse(&text(receipt, "role")?);
            let role = role.ok_or(FoldError::Field { field: "role" })?;
            self.roles.retain(|(held, _)| *held != role);
            self.roles.push((role, text(receipt, "who")?));
        }
        if let Some(channel) = receipt.meta_text("unreachable") {
            self.unreachable.push(channel.into_owned());
        }
        for channels in ["told", "tell"].into_iter().filter_map(|key| receipt.meta_text(key)) {
            let told = channels.split(',').map(str::to_owned).collect::<Vec<_>>();
            super::add(&mut self.told, &told);
        }
        Ok(())
    }
}

pub(super) fn text(receipt: &View<'_>, field: &'static str) -> Result<String, FoldError> {
    let text = receipt.meta_text(field).ok_or(FoldError::Field { field })?;
    Ok(text.into_owned())
}

fn severity(receipt: &View<'_>) -> Result<Severity, FoldError> {
    let word = receipt.meta_text("severity");
    let severity = word.and_then(|word| Severity::parse(&word));
    severity.ok_or(FoldError::Field { field: "severity" })
}
