//! The communication templates: initial alert, status update, all clear.
//!
//! Owns: their words, and what stands where nobody knows. Refuses to know: where facts come from, and
//! limits of channels.
//!
//! Facts go in, and nothing else: what is not known stays a blank that everybody can see. A fact is one
//! line, whatever is in it, so that it cannot be taken for another line of the template.

use types::Micros;

use super::text::line;
use super::{Phase, seconds, severity_name};

/// What stands where nobody knows.
pub const BLANK: &str = "________";

/// The facts of an initial alert.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InitialAlert<'a> {
    /// 1 is the worst, 4 the least.
    pub severity: u8,
    /// What is the matter.
    pub description: &'a str,
    /// The service's health route.
    pub url: Option<&'a str>,
    /// When it began, in microseconds since 1970, UTC.
    pub started_at_us: Option<i64>,
    /// Where updates are told, such as `#tai-autonomics-incidents`.
    pub updates_in: Option<&'a str>,
}

/// The first thing that is told.
#[must_use]
pub fn initial_alert(facts: &InitialAlert<'_>) -> String {
    format!(
        "INCIDENT DECLARED: {} - {}\n\n\
         Service: TAI Autonomics\n\
         Status: Investigating\n\
         URL: {}\n\
         Started: {}\n\n\
         Updates in: {}\n",
        severity_name(facts.severity),
        known(Some(facts.description)),
        known(facts.url),
        time(facts.started_at_us),
        known(facts.updates_in),
    )
}

/// The facts of a status update.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StatusUpdate<'a> {
    /// When it is told, in microseconds since 1970, UTC.
    pub at_us: i64,
    /// What has been done since the last one.
    pub done: Option<&'a str>,
    /// What was checked.
    pub checked: &'a [&'a str],
    /// The cause, once it is found.
    pub found: Option<&'a str>,
    /// What is done next.
    pub next: Option<&'a str>,
    /// How far the work is.
    pub phase: Option<Phase>,
    /// When it is expected to be over, in microseconds since 1970, UTC.
    pub eta_us: Option<i64>,
}

/// What is told every 15 minutes.
#[must_use]
pub fn status_update(facts: &StatusUpdate<'_>) -> String {
    let at = Micros(facts.at_us).to_string();
    let clock = at.get(11..16).unwrap_or(BLANK);
    let checked: Vec<_> = facts.checked.iter().map(|checked| known(Some(*checked))).collect();
    let checked = if checked.is_empty() { BLANK.to_owned() } else { checked.join(", ") };
    format!(
        "[{clock} UTC] Update: {}\n\
         - Checked {checked}\n\
         - Found {}\n\
         - Next: {}\n\n\
         Status: {}\n\
         ETA to resolution: {}\n",
        known(facts.done),
        known(facts.found),
        known(facts.next),
        facts.phase.map_or(BLANK, Phase::words),
        time(facts.eta_us),
    )
}

/// The facts of an all clear.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AllClear<'a> {
    /// What happened.
    pub root_cause: Option<&'a str>,
    /// What was affected.
    pub impact: Option<&'a str>,
    /// When it began, in microseconds since 1970, UTC.
    pub started_at_us: Option<i64>,
    /// When it ended, in microseconds since 1970, UTC.
    pub ended_at_us: Option<i64>,
    /// Users that were affected, in tenths of a percent of all.
    pub affected_users_permille: Option<u16>,
    /// What was done about it.
    pub actions: &'a [&'a str],
    /// When the post-mortem is, in microseconds since 1970, UTC.
    pub post_mortem_at_us: Option<i64>,
    /// What is to keep it from coming back.
    pub preventive_measures: &'a [&'a str],
}

/// The last thing that is told.
#[must_use]
pub fn all_clear(facts: &AllClear<'_>) -> String {
    let affected = match facts.affected_users_permille {
        Some(permille) => format!("{}.{} %", permille / 10, permille % 10),
        None => BLANK.to_owned(),
    };
    let actions = if facts.actions.is_empty() { &[""] } else { facts.actions };
    let actions: Vec<_> =
        actions.iter().map(|action| format!("- {}", known(Some(action)))).collect();
    let measures: Vec<_> =
        facts.preventive_measures.iter().map(|measure| known(Some(*measure))).collect();
    let measures = if measures.is_empty() { BLANK.to_owned() } else { measures.join(", ") };
    format!(
        "INCIDENT RESOLVED\n\n\
         Root Cause: {}\n\
         Impact: {}\n\
         Duration: {} - {}{}\n\
         Affected Users: {affected}\n\n\
         Action Taken:\n{}\n\n\
         Next Steps:\n\
         - Post-mortem scheduled: {}\n\
         - Preventive measures planned: {measures}\n",
        known(facts.root_cause),
        known(facts.impact),
        time(facts.started_at_us),
        time(facts.ended_at_us),
        duration(facts.started_at_us, facts.ended_at_us),
        actions.join("\n"),
        time(facts.post_mortem_at_us),
    )
}

fn known(text: Option<&str>) -> String {
    match text.map(|text| line(text.trim())) {
        Some(text) if !text.is_empty() => text.into_owned(),
        _ => BLANK.to_owned(),
    }
}

fn time(at_us: Option<i64>) -> String {
    at_us.map_or_else(|| BLANK.to_owned(), seconds)
}

/// How long it was, in hours, minutes and seconds, where both ends are known and in order.
fn duration(started_at_us: Option<i64>, ended_at_us: Option<i64>) -> String {
    let between = started_at_us.zip(ended_at_us).and_then(|(from, to)| to.checked_sub(from));
    match between {
        Some(between) if between >= 0 => {
            let s = between / 1_000_000;
            format!(" ({} h {} min {} s)", s / 3_600, s / 60 % 60, s % 60)
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: i64 = 1_795_000_000_000_000;

    #[test]
    fn the_initial_alert_is_the_one_of_the_runbook() {
        let facts = InitialAlert {
            severity: 1,
            description: "Errors above 50 %",
            url: Some("https://tai.example/health"),
            started_at_us: Some(START),
            updates_in: Some("#tai-autonomics-incidents"),
        };
        assert_eq!(
            initial_alert(&facts),
            "INCIDENT DECLARED: SEV-1 - Errors above 50 %\n\nService: TAI Autonomics\n\
             Status: Investigating\nURL: https://tai.example/health\n\
             Started: 2026-11-18T11:06:40Z\n\nUpdates in: #tai-autonomics-incidents\n"
        );
    }

    #[test]
    fn what_nobody_knows_is_a_blank() {
        let update = StatusUpdate {
            at_us: START,
            done: None,
            checked: &[],
            found: Some("  "),
            next: None,
            phase: None,
            eta_us: None,
        };
        assert_eq!(
            status_update(&update),
            "[11:06 UTC] Update: ________\n- Checked ________\n- Found ________\n\
             - Next: ________\n\nStatus: ________\nETA to resolution: ________\n"
        );
        let clear = AllClear {
            root_cause: None,
            impact: None,
            started_at_us: None,
            ended_at_us: Some(START),
            affected_users_permille: None,
            actions: &[],
            post_mortem_at_us: None,
            preventive_measures: &[],
        };
        assert_eq!(
            all_clear(&clear),
            "INCIDENT RESOLVED\n\nRoot Cause: ________\nImpact: ________\n\
             Duration: ________ - 2026-11-18T11:06:40Z\nAffected Users: ________\n\n\
             Action Taken:\n- ________\n\nNext Steps:\n- Post-mortem scheduled: ________\n\
             - Preventive measures planned: ________\n"
        );
    }

    #[test]
    fn what_is_known_is_told() {
        let update = StatusUpdate {
            at_us: START,
            done: Some("restarted the writer"),
            checked: &["the store", "the spool"],
            found: Some("a full disk"),
            next: Some("free it"),
            phase: Some(Phase::Fixing),
            eta_us: Some(START + 600_000_000),
        };
        let told = status_update(&update);
        for line in [
            "[11:06 UTC] Update: restarted the writer",
            "- Checked the store, the spool",
            "- Found a full disk",
            "Status: Implementing fix",
            "ETA to resolution: 2026-11-18T11:16:40Z",
        ] {
            assert!(told.lines().any(|told| told == line), "{line}");
        }
        let clear = AllClear {
            root_cause: Some("a full disk"),
            impact: Some("writes"),
            started_at_us: Some(START),
            ended_at_us: Some(START + 3_725_000_000),
            affected_users_permille: Some(125),
            actions: &["freed it", "restarted the writer"],
            post_mortem_at_us: Some(START + 86_400_000_000),
            preventive_measures: &["an alert on free space"],
        };
        let told = all_clear(&clear);
        for line in [
            "Duration: 2026-11-18T11:06:40Z - 2026-11-18T12:08:45Z (1 h 2 min 5 s)",
            "Affected Users: 12.5 %",
            "- freed it",
            "- restarted the writer",
            "- Post-mortem scheduled: 2026-11-19T11:06:40Z",
            "- Preventive measures planned: an alert on free space",
        ] {
            assert!(told.lines().any(|told| told == line), "{line}");
        }
    }

    #[test]
    fn a_fact_cannot_pass_for_another_line() {
        let facts = InitialAlert {
            severity: 9,
            description: "x\nStatus: Resolved\r\n",
            url: None,
            started_at_us: None,
            updates_in: None,
        };
        let told = initial_alert(&facts);
        assert_eq!(told.lines().filter(|line| line.starts_with("Status:")).count(), 1);
        assert!(told.starts_with("INCIDENT DECLARED: SEV-4 - x Status: Resolved\n"));
    }
}
