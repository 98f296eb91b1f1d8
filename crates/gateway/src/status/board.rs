//! What the public may know of incidents, folded from their receipts.
//!
//! Owns: which parts of a receipt are public: title, severity, status, times, components, and what
//! was written as an update or beside a status; of an end, where that was asked for. Refuses to
//! know: alerts, who did anything, who was told, and how a page looks. The state of a component is
//! derived and stored nowhere.

use engine::ports::{ReadError, Store, Stored};
use governors::IncidentStatus;
use ledger::{Kind, MetaView, View};
use types::{Micros, Severity};

use super::planned::Plans;

/// Receipts that are read at once.
const PAGE: usize = 512;
/// What is kept of what was said about one incident, the newest.
const UPDATES: usize = 20;
/// Incidents that are over and shown all the same, the newest.
const RESOLVED: usize = 10;

/// What the public may know.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Board {
    /// The place in the stream that is read next.
    next: u64,
    /// How often anything public has changed.
    pub(super) changes: u64,
    /// In the order in which they were opened.
    pub(super) open: Vec<Item>,
    /// The newest end first.
    pub(super) resolved: Vec<Item>,
    /// What is planned.
    pub(super) plans: Plans,
}

/// One incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) severity: Severity,
    pub(super) status: IncidentStatus,
    pub(super) components: Vec<String>,
    /// When what is wrong began.
    pub(super) began: Micros,
    pub(super) opened: Micros,
    /// When anything of this changed last.
    pub(super) updated: Micros,
    /// Since when it is watched, if it is or was.
    pub(super) monitoring: Option<Micros>,
    pub(super) resolved: Option<Micros>,
    /// What was said, in order.
    pub(super) updates: Vec<Said>,
    /// How much was said; the oldest of it may be gone.
    pub(super) said: usize,
}

/// What was said at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    /// Which of them it is, from 1.
    pub(super) nth: usize,
    pub(super) at: Micros,
    pub(super) status: IncidentStatus,
    /// May be empty: then the status says it all.
    pub(super) text: String,
}

/// How a component is, in the words of Statuspage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ComponentState {
    Operational,
    UnderMaintenance,
    DegradedPerformance,
    PartialOutage,
    MajorOutage,
}

impl ComponentState {
    pub(super) const ALL: [ComponentState; 5] = [
        ComponentState::Operational,
        ComponentState::UnderMaintenance,
        ComponentState::DegradedPerformance,
        ComponentState::PartialOutage,
        ComponentState::MajorOutage,
    ];

    const fn of(severity: Severity) -> ComponentState {
        match severity {
            Severity::Sev1 => ComponentState::MajorOutage,
            Severity::Sev2 => ComponentState::PartialOutage,
            Severity::Sev3 => ComponentState::DegradedPerformance,
            Severity::Sev4 => ComponentState::Operational,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            ComponentState::Operational => "operational",
            ComponentState::UnderMaintenance => "under_maintenance",
            ComponentState::DegradedPerformance => "degraded_performance",
            ComponentState::PartialOutage => "partial_outage",
            ComponentState::MajorOutage => "major_outage",
        }
    }

    /// For people.
    pub(super) const fn words(self) -> &'static str {
        match self {
            ComponentState::Operational => "Operational",
            ComponentState::UnderMaintenance => "Under maintenance",
            ComponentState::DegradedPerformance => "Degraded performance",
            ComponentState::PartialOutage => "Partial outage",
            ComponentState::MajorOutage => "Major outage",
        }
    }
}

/// How bad all of it is, in the words of Statuspage: of an incident its impact, of all of them the
/// indicator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Impact {
    None,
    Minor,
    Major,
    Critical,
}

impl Impact {
    pub(super) const ALL: [Impact; 4] =
        [Impact::None, Impact::Minor, Impact::Major, Impact::Critical];

    const fn of(severity: Severity) -> Impact {
        match severity {
            Severity::Sev1 => Impact::Critical,
            Severity::Sev2 => Impact::Major,
            Severity::Sev3 => Impact::Minor,
            Severity::Sev4 => Impact::None,
        }
    }

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Impact::None => "none",
            Impact::Minor => "minor",
            Impact::Major => "major",
            Impact::Critical => "critical",
        }
    }

    /// For people, of all incidents together.
    pub(super) const fn words(self) -> &'static str {
        match self {
            Impact::None => "All Systems Operational",
            Impact::Minor => "Minor Service Outage",
            Impact::Major => "Partial System Outage",
            Impact::Critical => "Major Service Outage",
        }
    }
}

impl Item {
    pub(super) fn impact(&self) -> Impact {
        Impact::of(self.severity)
    }
}

impl Board {
    /// Reads what has come since; false when a receipt is not as it was sealed: a page that leaves
    /// one out would say something else.
    pub(super) fn catch_up(
        &mut self,
        store: &dyn Store,
        intact: &dyn Fn(&Stored) -> bool,
    ) -> Result<bool, ReadError> {
        loop {
            let page = store.read(&engine::incidents::stream(), self.next, PAGE)?;
            for stored in &page {
                let view = View::scan(&stored.core).ok().filter(|_| intact(stored));
                let Some(view) = view else { return Ok(false) };
                self.take(&view);
            }
            if page.len() < PAGE {
                return Ok(true);
            }
        }
    }

    /// Takes the next receipt of the stream.
    pub(super) fn take(&mut self, receipt: &View<'_>) {
        self.next += 1;
        if receipt.kind == Kind::Transition && self.fold(receipt).is_some() {
            self.changes += 1;
        }
    }

    /// `None` where nothing public has changed.
    fn fold(&mut self, receipt: &View<'_>) -> Option<()> {
        let (rule, name) = (receipt.rule?.text(), receipt.subject?.text());
        if rule.starts_with("maintenance.") {
            return self.plans.fold(&rule, &name, receipt);
        }
        if !rule.starts_with("incident.") {
            return None;
        }
        let status = IncidentStatus::parse(&receipt.state_to?.text())?;
        if rule == "incident.open" {
            self.open.push(Item::opened(name.into_owned(), status, receipt)?);
            return Some(());
        }
        let at = self.open.iter().position(|held| *held.name == *name)?;
        self.open[at].take(&rule, status, receipt)?;
        if status == IncidentStatus::Resolved {
            let over = self.open.remove(at);
            self.resolved.insert(0, over);
            self.resolved.truncate(RESOLVED);
        }
        Some(())
    }

    /// Takes note of the time, which alone begins and ends what is planned.
    pub(super) fn advance(&mut self, now: Micros) {
        if self.plans.advance(now) {
            self.changes += 1;
        }
    }

    /// Every component with its state: `known` first, in their order, then what else is affected.
    pub(super) fn components<'a>(
        &'a self,
        known: &'a [String],
        now: Micros,
    ) -> Vec<(&'a str, ComponentState)> {
        let affected = self.open.iter().flat_map(|held| &held.components);
        let worked_on = self.plans.in_progress(now).flat_map(|held| &held.components);
        let mut all: Vec<(&str, ComponentState)> = Vec::new();
        for name in known.iter().chain(affected).chain(worked_on) {
            if !all.iter().any(|(held, _)| held == name) {
                all.push((name, self.state(name, now)));
            }
        }
        all
    }

    fn state(&self, component: &str, now: Micros) -> ComponentState {
        let affects = |names: &[String]| names.iter().any(|name| name == component);
        let failing = self.open.iter().filter(|held| affects(&held.components));
        let failing = failing.map(|held| ComponentState::of(held.severity));
        let mut worked_on = self.plans.in_progress(now);
        let worked_on = worked_on.any(|held| affects(&held.components));
        let worked_on = worked_on.then_some(ComponentState::UnderMaintenance);
        failing.chain(worked_on).max().unwrap_or(ComponentState::Operational)
    }

    /// The indicator for people.
    pub(super) fn overall(&self, now: Micros) -> &'static str {
        match self.indicator() {
            Impact::None if self.plans.in_progress(now).next().is_some() => {
                "Service Under Maintenance"
            }
            indicator => indicator.words(),
        }
    }

    /// How bad all of it is.
    pub(super) fn indicator(&self) -> Impact {
        self.open.iter().map(Item::impact).max().unwrap_or(Impact::None)
    }
}

impl Item {
    fn opened(name: String, status: IncidentStatus, receipt: &View<'_>) -> Option<Item> {
        let opened = receipt.at;
        Some(Item {
            name,
            title: receipt.meta_text("title")?.into_owned(),
            severity: Severity::parse(&receipt.meta_text("severity")?)?,
            status,
            components: receipt.meta_text("component").into_iter().map(Into::into).collect(),
            began: receipt.meta_int("began_us").map_or(opened, Micros),
            opened,
            updated: opened,
            monitoring: None,
            resolved: None,
            updates: Vec::new(),
            said: 0,
        })
    }

    fn take(&mut self, rule: &str, status: IncidentStatus, receipt: &View<'_>) -> Option<()> {
        let severity = receipt.meta_text("severity").and_then(|word| Severity::parse(&word));
        let severity = severity.unwrap_or(self.severity);
        let component = receipt.meta_text("component").map(|name| name.into_owned());
        let component = component.filter(|name| !self.components.contains(name));
        let is_shown = matches!(receipt.meta("public"), Some(MetaView::Bool(true)));
        let is_said = matches!(rule, "incident.update" | "incident.status") || is_shown;
        let is_news = (self.severity, self.status) != (severity, status);
        if !is_said && !is_news && component.is_none() {
            return None;
        }
        if is_said || self.status != status {
            // What is written beside anything else is for those who work on it.
            let detail = receipt.detail.filter(|_| is_said);
            let text = detail.map(|detail| detail.text().into_owned()).unwrap_or_default();
            self.said += 1;
            self.updates.push(Said { nth: self.said, at: receipt.at, status, text });
            let over = self.updates.len().saturating_sub(UPDATES);
            self.updates.drain(..over);
        }
        match status {
            IncidentStatus::Monitoring if self.status != status => {
                self.monitoring = Some(receipt.at);
            }
            IncidentStatus::Resolved => self.resolved = Some(receipt.at),
            _ => {}
        }
        self.components.extend(component);
        (self.severity, self.status, self.updated) = (severity, status, receipt.at);
        Some(())
    }
}
