//! Maintenance windows and the alerts that they hold back.
//!
//! Owns: windows before, in and after their time. Refuses to know: status pages.

use types::{Severity, limits};

use super::incidents::{fires, on, over, pass, tell};
use super::*;
use crate::incident::MaintenancePhase;

fn incidents() -> Chain {
    let mut chain = Chain::new(limits::STREAM_INCIDENTS);
    chain.rules = chain.rules.with_channels(&["slack", "pagerduty"], &[]);
    chain
}

fn add(components: &[&str], from_s: i64, until_s: i64) -> Command {
    Command::Maintenance(MaintenanceChange::Add {
        title: "a new disk".to_owned(),
        components: components.iter().map(|name| (*name).to_owned()).collect(),
        from: Some(START.plus_secs(from_s)),
        until: START.plus_secs(until_s),
        text: "short pauses".to_owned(),
    })
}

pub(super) fn end(number: u64) -> Command {
    Command::Maintenance(MaintenanceChange::End { number })
}

fn opened(chain: &Chain) -> usize {
    chain.state.incidents().unwrap().open().len()
}

fn inhibited_by(decision: &Decision) -> Option<String> {
    let Decision::Seal(sealing) = decision else { return None };
    let entry = sealing.drafts[0].metadata.iter().find(|(key, _)| key == "inhibited_by");
    entry.map(|(_, value)| format!("{value:?}"))
}

#[test]
fn an_alert_of_what_is_worked_on_is_on_record_wakes_nobody_and_opens_its_incident_afterwards() {
    let mut chain = incidents();
    chain.act(START, &add(&["ledger", "http"], 60, 660));
    let fire = |name: &str| fires(name, Severity::Sev1, name);
    // Before its time nothing is held back, and what it opened goes on.
    chain.act(START.plus_secs(59), &fires("early", Severity::Sev3, "mail"));
    chain.act(START.plus_secs(59), &fire("http"));
    assert_eq!(opened(&chain), 2);
    let (decision, _) = chain.act(START.plus_secs(60), &fire("ledger"));
    assert_eq!(inhibited_by(&decision).as_deref(), Some("Text(\"MNT-1\")"));
    let Decision::Seal(sealing) = &decision else { panic!("it is on record") };
    assert!(sealing.drafts.len() == 1 && tell(&sealing.drafts[0]).is_empty());
    let alert = chain.state.incidents().unwrap().alert("ledger").unwrap();
    assert!(alert.is_firing() && alert.incident.is_none(), "it is still visible");
    // Said again it changes nothing; another component is not covered.
    assert_eq!(chain.decide(START.plus_secs(659), &fire("ledger")), Decision::Nothing);
    chain.act(START.plus_secs(100), &fire("checkout"));
    assert_eq!(opened(&chain), 3);
    let seen = pass(&mut chain, 660);
    let ended: Vec<_> =
        seen.iter().filter(|(_, rule, _)| rule.starts_with("maintenance")).collect();
    assert_eq!(ended, [&(660, "maintenance.over".to_owned(), String::new())]);
    assert!(chain.state.incidents().unwrap().maintenances().is_empty());
    let (decision, _) = chain.act(START.plus_secs(661), &fire("ledger"));
    let Decision::Seal(sealing) = decision else { panic!("it still fires") };
    assert_eq!(sealing.drafts.len(), 2, "and belongs to an incident");
    let alert = chain.state.incidents().unwrap().alert("ledger").unwrap();
    assert!(alert.incident.is_some());
}

#[test]
fn what_is_over_before_the_window_ends_was_no_incident() {
    let mut chain = incidents();
    chain.act(START, &add(&["ledger"], 0, 600));
    chain.act(START.plus_secs(1), &fires("slow", Severity::Sev1, "ledger"));
    chain.act(START.plus_secs(9), &over("slow", Severity::Sev1, "ledger"));
    pass(&mut chain, 700);
    let state = chain.state.incidents().unwrap();
    assert_eq!((state.count(), state.alerts().len()), (0, 0));
}

#[test]
fn a_window_that_is_ended_early_holds_nothing_back_any_more() {
    let mut chain = incidents();
    chain.act(START, &add(&["ledger"], 0, 600));
    let bytes = chain.state.to_snapshot();
    assert_eq!(StreamState::from_snapshot(&chain.stream, &bytes).as_ref(), Some(&chain.state));
    chain.act(START.plus_secs(5), &end(1));
    chain.act(START.plus_secs(6), &fires("slow", Severity::Sev1, "ledger"));
    assert_eq!(opened(&chain), 1);
    assert!(chain.show(7, &end(1)).contains("there is no such window"));
    // A person may still say that there is an incident, window or not.
    chain.act(START.plus_secs(8), &add(&["mail"], 8, 600));
    let declared = Declared {
        title: "no mail".to_owned(),
        severity: Severity::Sev1,
        component: "mail".to_owned(),
        text: String::new(),
    };
    chain.act(START.plus_secs(9), &Command::Incident(IncidentChange::Declare(declared)));
    assert_eq!(opened(&chain), 2);
    chain.act(START.plus_secs(9), &on(2, IncidentDeed::Acknowledge));
}

#[test]
fn phases_follow_from_the_time_alone() {
    let mut chain = incidents();
    chain.act(START, &add(&["ledger"], 60, 120));
    let window = chain.state.incidents().unwrap().maintenances()[0].clone();
    for (second, phase) in [
        (59, MaintenancePhase::Scheduled),
        (60, MaintenancePhase::InProgress),
        (119, MaintenancePhase::InProgress),
        (120, MaintenancePhase::Completed),
    ] {
        assert_eq!(window.phase(START.plus_secs(second)), phase, "{second}");
    }
}

#[test]
fn a_window_that_is_not_lawful_is_refused() {
    let mut chain = incidents();
    let time = "until is over, not after from, or more than a week after it";
    let words = "components are none, too many, or hold a comma";
    for (command, detail) in [
        (add(&[], 0, 9), words),
        (add(&["a,b"], 0, 9), words),
        (add(&["a", ""], 0, 9), words),
        (add(&["x".repeat(257).as_str()], 0, 9), words),
        (add(&["a"], 9, 9), time),
        (add(&["a"], -9, 0), time),
        (add(&["a"], 0, limits::LEASE_S_MAX + 1), time),
        (add(&["a"], limits::AHEAD_S_MAX + 1, limits::AHEAD_S_MAX + 9), time),
    ] {
        let Decision::Reject(rejection) = chain.decide(START, &command) else { panic!("{detail}") };
        assert_eq!(rejection.detail, detail);
    }
    for _ in 0..limits::MAINTENANCES {
        chain.act(START, &add(&["a"], 0, 9));
    }
    assert!(chain.show(0, &add(&["a"], 0, 9)).contains("as many maintenance windows as may be"));
}
