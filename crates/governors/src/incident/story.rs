//! The story of one incident, told from its receipts.
//!
//! Owns: which receipts belong to it, the named instants and the durations between them, and the
//! draft of a post-mortem. Refuses to know: where receipts are kept. Every sentence cites its
//! receipt; what no receipt says stays a blank.

use std::fmt::Write as _;

use ledger::{Kind, View};
use types::{Micros, ReceiptId, Severity};

use super::{incident_name, said_at};
use crate::command::{AlertPhase, IncidentStatus};
use crate::draft::rule;

/// What stands where nobody knows.
const BLANK: &str = "________";
/// What stands in place of a beginning that came after somebody had found it.
const BY_HAND: &str = "declared by hand before any alert";

/// One moment of an incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// When.
    pub at: Micros,
    /// The receipt that says so.
    pub receipt: ReceiptId,
    /// Its rule, such as `incident.acknowledge`.
    pub rule: String,
    /// Who did it.
    pub actor: String,
    /// One sentence.
    pub text: String,
}

/// An instant and the receipt that says so.
pub type Mark = Option<(Micros, ReceiptId)>;

/// The named instants that durations are computed from.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// A condition began to hold.
    pub began: Mark,
    /// An alert fired, or a person declared it.
    pub detected: Mark,
    /// Somebody took it on.
    pub acknowledged: Mark,
    /// The cause was found.
    pub identified: Mark,
    /// No alert fired any more.
    pub recovered: Mark,
    /// It ended.
    pub resolved: Mark,
}

/// One incident, as its receipts tell it. Feed it every receipt of `_incidents` in order.
#[derive(Debug, Clone)]
pub struct Story {
    name: String,
    title: Option<String>,
    severity: Option<Severity>,
    status: Option<IncidentStatus>,
    components: Vec<String>,
    /// The alerts that joined it.
    alerts: Vec<String>,
    /// What alerts did before anybody knew which incident they would be.
    before: Vec<(String, Moment)>,
    moments: Vec<Moment>,
    marks: Marks,
    cause: Option<Moment>,
    corrections: Vec<Moment>,
}

impl Story {
    /// The story of incident `number`, with nothing told yet.
    #[must_use]
    pub fn new(number: u64) -> Story {
        Story {
            name: incident_name(number),
            title: None,
            severity: None,
            status: None,
            components: Vec::new(),
            alerts: Vec::new(),
            before: Vec::new(),
            moments: Vec::new(),
            marks: Marks::default(),
            cause: None,
            corrections: Vec::new(),
        }
    }

    /// Takes the next receipt of the stream.
    pub fn take(&mut self, receipt: &View<'_>) {
        let rule = receipt.rule.map(|rule| rule.text().into_owned()).unwrap_or_default();
        let subject =
            receipt.subject.map(|subject| subject.text().into_owned()).unwrap_or_default();
        if receipt.kind != Kind::Transition {
            return;
        }
        if rule == rule::ALERT_CHANGE {
            let is_over =
                receipt.state_to.is_some_and(|word| word.is(AlertPhase::Inactive.as_str()));
            let moment = moment(receipt, &rule, alert_text(receipt, &subject));
            return self.take_alert(&subject, is_over, moment);
        }
        if subject != self.name || !rule.starts_with("incident.") {
            return;
        }
        let moment = moment(receipt, &rule, incident_text(receipt, &rule));
        self.take_facts(receipt);
        self.mark(&rule, receipt, &moment);
        match &*rule {
            rule::INCIDENT_CORRECT => self.corrections.push(moment),
            _ => self.moments.push(moment),
        }
    }

    fn take_alert(&mut self, key: &str, is_over: bool, moment: Moment) {
        let is_known = self.alerts.iter().any(|held| held == key);
        if is_known && self.marks.resolved.is_none() {
            self.moments.push(moment);
        } else if self.marks.resolved.is_none() {
            if is_over {
                self.before.retain(|(held, _)| held != key);
            } else {
                self.before.push((key.to_owned(), moment));
            }
        }
    }

    fn take_facts(&mut self, receipt: &View<'_>) {
        let text = |key| receipt.meta_text(key).map(|text| text.into_owned());
        if let Some(title) = text("title") {
            self.title.get_or_insert(title);
        }
        if let Some(severity) = text("severity").and_then(|word| Severity::parse(&word)) {
            // The worst that it was: a smaller one later does not undo the harm.
            self.severity = Some(self.severity.map_or(severity, |held| held.min(severity)));
        }
        if let Some(component) = text("component")
            && !self.components.contains(&component)
        {
            self.components.push(component);
        }
        if let Some(key) = text("alert") {
            let (its, others) =
                std::mem::take(&mut self.before).into_iter().partition(|(held, _)| *held == key);
            self.before = others;
            let its: Vec<(String, Moment)> = its;
            if let Some((_, first)) = its.first() {
                let began = (first.at, first.receipt);
                self.marks.began = Some(self.marks.began.map_or(began, |held| held.min(began)));
            }
            self.moments.extend(its.into_iter().map(|(_, moment)| moment));
            self.moments.sort_by_key(|moment| moment.at);
            if !self.alerts.contains(&key) {
                self.alerts.push(key);
            }
        }
    }

    fn mark(&mut self, rule: &str, receipt: &View<'_>, moment: &Moment) {
        let here = Some((moment.at, moment.receipt));
        let status = receipt.state_to.and_then(|word| IncidentStatus::parse(&word.text()));
        self.status = status.or(self.status);
        match rule {
            rule::INCIDENT_OPEN => self.marks.detected = here,
            rule::INCIDENT_ACKNOWLEDGE => self.marks.acknowledged = here,
            // What fires again has not recovered.
            rule::INCIDENT_JOIN => self.marks.recovered = None,
            rule::INCIDENT_RECOVERED => self.marks.recovered = here,
            rule::INCIDENT_RESOLVE => self.marks.resolved = here,
            _ => {}
        }
        let found = status == Some(IncidentStatus::Identified) && rule == rule::INCIDENT_STATUS;
        if found && receipt.detail.is_some() {
            self.marks.identified = self.marks.identified.or(here);
            self.cause = Some(moment.clone());
        }
    }

    /// Whether there is such an incident.
    #[must_use]
    pub fn is_there(&self) -> bool {
        self.marks.detected.is_some()
    }

    /// What happened, in order.
    #[must_use]
    pub fn moments(&self) -> &[Moment] {
        &self.moments
    }

    /// The named instants.
    #[must_use]
    pub fn marks(&self) -> Marks {
        self.marks
    }

    /// One line for people.
    #[must_use]
    pub fn title(&self) -> Option<&str> {
        self.title.as_deref()
    }

    /// What a person found to be the cause.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_ref().map(|cause| &*cause.text)
    }

    /// The alerts that joined it, in order.
    #[must_use]
    pub fn alerts(&self) -> &[String] {
        &self.alerts
    }

    /// The worst that it was.
    #[must_use]
    pub fn severity(&self) -> Option<Severity> {
        self.severity
    }

    /// What was done about it last.
    #[must_use]
    pub fn status(&self) -> Option<IncidentStatus> {
        self.status
    }

    /// The components that were affected, in the order in which they were found to be.
    #[must_use]
    pub fn components(&self) -> &[String] {
        &self.components
    }

    /// What was corrected after its end, in order.
    #[must_use]
    pub fn corrections(&self) -> &[Moment] {
        &self.corrections
    }

    /// The named durations, each from one instant to another.
    #[must_use]
    pub fn durations(&self) -> [(&'static str, Mark, Mark); 6] {
        let Marks { detected, acknowledged, identified, recovered, resolved, .. } = self.marks;
        let began = self.marks.began.filter(|_| !self.is_declared_first());
        [
            ("Detection", began, detected),
            ("Acknowledgement", detected, acknowledged),
            ("Diagnosis", detected, identified),
            ("Mitigation", detected, recovered),
            ("Resolution", detected, resolved),
            ("Impact", began.or(detected), recovered.or(resolved)),
        ]
    }

    /// Whether a person declared it before the condition of any alert began to hold: it was not
    /// detected from that on.
    fn is_declared_first(&self) -> bool {
        let Marks { began, detected, .. } = self.marks;
        began.zip(detected).is_some_and(|((began, _), (detected, _))| detected < began)
    }

    /// The draft of a post-mortem, in Markdown: the template of seed 001, filled as far as receipts
    /// go.
    #[must_use]
    pub fn post_mortem(&self) -> String {
        let mut page = format!("# POST-MORTEM: {}\n\n", plain(self.title().unwrap_or(BLANK)));
        let severity = self.severity.map_or(BLANK, Severity::as_str);
        let _ =
            writeln!(page, "{} · {severity} · {}\n", self.name, plain(&self.components.join(", ")));
        self.write_durations(&mut page);
        page.push_str("## Timeline\n\n");
        for moment in &self.moments {
            let _ = writeln!(
                page,
                "- {} - {} {}",
                moment.at,
                plain(&moment.text),
                cite(moment.receipt)
            );
        }
        page.push_str("\n## Root Cause\n\n");
        match &self.cause {
            Some(cause) => {
                let _ = writeln!(page, "{} {}", plain(&cause.text), cite(cause.receipt));
            }
            None => {
                let _ = writeln!(page, "{BLANK}");
            }
        }
        let _ = write!(
            page,
            "\n## Contributing Factors\n\n{BLANK}\n\n## Action Items\n\n\
             - [ ] {BLANK} (prevention)\n- [ ] {BLANK} (detection)\n- [ ] {BLANK} (response)\n"
        );
        if !self.corrections.is_empty() {
            page.push_str("\n## Corrections\n\n");
            for moment in &self.corrections {
                let _ = writeln!(
                    page,
                    "- {} {} {}",
                    moment.at,
                    plain(&moment.text),
                    cite(moment.receipt)
                );
            }
        }
        page
    }

    fn write_durations(&self, page: &mut String) {
        let _ = writeln!(page, "| | from | to | seconds |\n|---|---|---|---|");
        for (name, from, to) in self.durations() {
            let at = |mark: Mark| match mark {
                Some((at, receipt)) => format!("{at} {}", cite(receipt)),
                None => BLANK.to_owned(),
            };
            let seconds = match from.zip(to) {
                Some(((from, _), (to, _))) => seconds(to.0 - from.0),
                None => BLANK.to_owned(),
            };
            let from = match from {
                None if name == "Detection" && self.is_declared_first() => BY_HAND.to_owned(),
                from => at(from),
            };
            let _ = writeln!(page, "| {name} | {from} | {} | {seconds} |", at(to));
        }
        page.push('\n');
    }
}

fn moment(receipt: &View<'_>, rule: &str, text: String) -> Moment {
    Moment {
        at: said_at(receipt),
        receipt: receipt.id,
        rule: rule.to_owned(),
        actor: receipt.actor.map(|actor| actor.text().into_owned()).unwrap_or_default(),
        text,
    }
}

fn alert_text(receipt: &View<'_>, key: &str) -> String {
    let phase = receipt.state_to.map(|word| word.text().into_owned()).unwrap_or_default();
    let detail = receipt.detail.map(|detail| detail.text()).filter(|detail| !detail.is_empty());
    match detail {
        Some(detail) if phase == AlertPhase::Firing.as_str() => {
            format!("Alert {key} fires: {detail}")
        }
        Some(detail) if receipt.meta("ended").is_some() => {
            format!("Alert {key} is {phase}: {detail}")
        }
        _ => format!("Alert {key} is {phase}"),
    }
}

fn incident_text(receipt: &View<'_>, rule: &str) -> String {
    let actor = receipt.actor.map(|actor| actor.text().into_owned()).unwrap_or_default();
    let meta = |key| receipt.meta_text(key).map(|text| text.into_owned()).unwrap_or_default();
    let detail = receipt.detail.map(|detail| detail.text().into_owned());
    let detail = detail.filter(|detail| !detail.is_empty());
    let told = meta("tell");
    let said = |what: String| match &detail {
        Some(detail) => format!("{what}: {detail}"),
        None => what,
    };
    let instead = match &*meta("stand_in") {
        "before" => "; nobody is on call there, and those before are called again",
        "all" => "; nobody is on call, and every channel is told",
        _ => "",
    };
    match rule {
        rule::INCIDENT_OPEN => said(format!("Opened by {actor} as {}{instead}", meta("severity"))),
        rule::INCIDENT_JOIN => format!("Alert {} joined{instead}", meta("alert")),
        rule::INCIDENT_ESCALATE => {
            let who = if told.is_empty() { "nobody" } else { &*told };
            match &*meta("oncall") {
                "" => format!("Escalated to {who}{instead}"),
                roll => format!("Escalated to {who} ({roll}){instead}"),
            }
        }
        rule::INCIDENT_ACKNOWLEDGE => format!("Acknowledged by {actor}"),
        rule::INCIDENT_ASSIGN => format!("{} took the role {}", meta("who"), meta("role")),
        rule::INCIDENT_GRADE => format!("Graded {} by {actor}{instead}", meta("severity")),
        rule::INCIDENT_STATUS => {
            let status = receipt.state_to.map(|word| word.text().into_owned());
            said(format!("{actor} set it to {}", status.unwrap_or_default()))
        }
        rule::INCIDENT_UPDATE => said("Update".to_owned()),
        rule::INCIDENT_REROUTE => format!("{} cannot be reached: told {told}", meta("unreachable")),
        rule::INCIDENT_RECOVERED => said("No alert fires any more".to_owned()),
        rule::INCIDENT_RESOLVE => said(format!("Resolved by {actor}")),
        rule::INCIDENT_NOTE | rule::INCIDENT_CORRECT => said(format!("{actor} noted")),
        _ => said(rule.to_owned()),
    }
}

fn cite(receipt: ReceiptId) -> String {
    format!("[{receipt}]")
}

/// Text of others must not become a heading, a row or a link of the page.
fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if "\\`*_{}[]<>#|".contains(c) {
            plain.push('\\');
        }
        plain.push(c);
    }
    plain
}

fn seconds(micros: i64) -> String {
    let tenths = (micros + 50_000).div_euclid(100_000);
    format!("{}.{}", tenths / 10, tenths.rem_euclid(10))
}
