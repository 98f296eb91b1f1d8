//! The communication templates: initial alert, status update, all clear.
//!
//! Owns: their words, and that a line whose fact is not known is left out. Refuses to know: where
//! facts come from, and limits of channels.
//!
//! Facts go in, and nothing else. A fact is one line, whatever is in it, so that it cannot be taken
//! for another line of the template.

use types::Micros;

use super::text::line;
use super::{Phase, seconds, severity_name};

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
    let severity = severity_name(facts.severity);
    let description = known(Some(facts.description)).map(|text| format!(" - {text}"));
    text(&[
        vec![Some(format!("INCIDENT DECLARED: {severity}{}", description.unwrap_or_default()))],
        vec![
            Some("Service: TAI Autonomics".to_owned()),
            Some("Status: Investigating".to_owned()),
            fact("URL: ", known(facts.url)),
            fact("Started: ", facts.started_at_us.map(seconds)),
        ],
        vec![fact("Updates in: ", known(facts.updates_in))],
    ])
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
    let clock = at.get(11..16).unwrap_or_default();
    let done = known(facts.done).map(|done| format!(": {done}"));
    text(&[
        vec![
            Some(format!("[{clock} UTC] Update{}", done.unwrap_or_default())),
            fact("- Checked ", list(facts.checked)),
            fact("- Found ", known(facts.found)),
            fact("- Next: ", known(facts.next)),
        ],
        vec![
            fact("Status: ", facts.phase.map(|phase| phase.words().to_owned())),
            fact("ETA to resolution: ", facts.eta_us.map(seconds)),
        ],
    ])
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
    let affected = facts.affected_users_permille;
    let affected = affected.map(|permille| format!("{}.{} %", permille / 10, permille % 10));
    let actions = facts.actions.iter().map(|action| fact("- ", known(Some(action))));
    text(&[
        vec![Some("INCIDENT RESOLVED".to_owned())],
        vec![
            fact("Root Cause: ", known(facts.root_cause)),
            fact("Impact: ", known(facts.impact)),
            fact("Duration: ", duration(facts.started_at_us, facts.ended_at_us)),
            fact("Affected Users: ", affected),
        ],
        under("Action Taken:", actions.collect()),
        under(
            "Next Steps:",
            vec![
                fact("- Post-mortem scheduled: ", facts.post_mortem_at_us.map(seconds)),
                fact("- Preventive measures planned: ", list(facts.preventive_measures)),
            ],
        ),
    ])
}

/// The lines that there are, with an empty one between blocks.
fn text(blocks: &[Vec<Option<String>>]) -> String {
    let block = |lines: &Vec<Option<String>>| {
        let lines: Vec<&str> = lines.iter().flatten().map(String::as_str).collect();
        (!lines.is_empty()).then(|| lines.join("\n"))
    };
    blocks.iter().filter_map(block).collect::<Vec<_>>().join("\n\n") + "\n"
}

/// A block with a head, where there is anything below it.
fn under(head: &str, mut lines: Vec<Option<String>>) -> Vec<Option<String>> {
    if lines.iter().any(Option::is_some) {
        lines.insert(0, Some(head.to_owned()));
    }
    lines
}

fn fact(name: &str, value: Option<String>) -> Option<String> {
    value.map(|value| format!("{name}{value}"))
}

fn known(text: Option<&str>) -> Option<String> {
    let text = text.map(|text| line(text.trim()).into_owned());
    text.filter(|text| !text.is_empty())
}

fn list(all: &[&str]) -> Option<String> {
    let all: Vec<String> = all.iter().filter_map(|one| known(Some(one))).collect();
    (!all.is_empty()).then(|| all.join(", "))
}

/// From when until when, and how long that was in hours, minutes and seconds where it is in order.
fn duration(started_at_us: Option<i64>, ended_at_us: Option<i64>) -> Option<String> {
    let (from, to) = started_at_us.zip(ended_at_us)?;
    let length = match to.checked_sub(from) {
        Some(between) if between >= 0 => {
            let s = between / 1_000_000;
            format!(" ({} h {} min {} s)", s / 3_600, s / 60 % 60, s % 60)
        }
        _ => String::new(),
    };
    Some(format!("{} - {}{length}", seconds(from), seconds(to)))
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
    fn what_nobody_knows_is_left_out() {
        let update = StatusUpdate {
            at_us: START,
            done: None,
            checked: &[],
            found: Some("  "),
            next: None,
            phase: None,
            eta_us: None,
        };
        assert_eq!(status_update(&update), "[11:06 UTC] Update\n");
        let found = StatusUpdate { done: Some("a look"), phase: Some(Phase::Testing), ..update };
        assert_eq!(status_update(&found), "[11:06 UTC] Update: a look\n\nStatus: Testing\n");
        let alert = InitialAlert {
            severity: 2,
            description: "Errors",
            url: None,
            started_at_us: None,
            updates_in: Some(""),
        };
        assert_eq!(
            initial_alert(&alert),
            "INCIDENT DECLARED: SEV-2 - Errors\n\nService: TAI Autonomics\nStatus: Investigating\n"
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
        assert_eq!(all_clear(&clear), "INCIDENT RESOLVED\n");
        let clear = AllClear { impact: Some("http"), actions: &["freed it", " "], ..clear };
        assert_eq!(
            all_clear(&clear),
            "INCIDENT RESOLVED\n\nImpact: http\n\nAction Taken:\n- freed it\n"
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
