//! Alerts, silences, incidents and notices: the tables, and the ladders of the runbooks hour by
//! hour.
//!
//! Owns: how each state is reached. Refuses to know: samples and channels.

use types::{Severity, limits};

use super::*;
use crate::incident::incident_name;

const ALL: [&str; 9] = [
    "slack",
    "telegram",
    "webhook",
    "alertmanager",
    "statuspage",
    "pagerduty",
    "pagerduty-secondary",
    "pagerduty-commander",
    "pagerduty-executive",
];

fn alert_of(key: &str, to: AlertPhase, severity: Severity, component: &str) -> AlertChange {
    AlertChange {
        key: key.to_owned(),
        rule: key.split('{').next().unwrap().to_owned(),
        to,
        severity,
        component: component.to_owned(),
        title: format!("{key} is bad"),
        message: "value is 12%, threshold is 10%".to_owned(),
        inhibited_by: None,
        instance: None,
        gone: None,
    }
}

fn alert(key: &str, to: AlertPhase) -> Command {
    Command::Alert(alert_of(key, to, Severity::Sev1, "http"))
}

pub(super) fn fires(key: &str, severity: Severity, component: &str) -> Command {
    Command::Alert(alert_of(key, AlertPhase::Firing, severity, component))
}

pub(super) fn over(key: &str, severity: Severity, component: &str) -> Command {
    Command::Alert(alert_of(key, AlertPhase::Inactive, severity, component))
}

pub(super) fn on(incident: u64, deed: IncidentDeed) -> Command {
    Command::Incident(IncidentChange::On { incident, deed })
}

pub(super) fn silence(matcher: &str, lease_s: i64) -> Command {
    Command::Silence(SilenceChange::Set {
        matcher: matcher.to_owned(),
        lease_s,
        why: "planned work".to_owned(),
    })
}

fn incidents() -> Chain {
    incidents_with(&ALL)
}

fn incidents_with(channels: &[&str]) -> Chain {
    let mut chain = Chain::new(limits::STREAM_INCIDENTS);
    chain.rules = chain.rules.with_channels(channels, &[]);
    chain
}

/// Lets time alone act until `end`; gives the second, the rule and who is told of each receipt.
pub(super) fn pass(chain: &mut Chain, end_s: i64) -> Vec<(i64, String, String)> {
    let mut seen = Vec::new();
    while let Some(due) = chain.state.next_due().filter(|due| *due <= START.plus_secs(end_s)) {
        let (decision, _) = chain.act(due, &Command::Tick);
        let Decision::Seal(sealing) = decision else { panic!("due, and nothing to do") };
        for draft in sealing.drafts {
            let rule = draft.rule.clone().unwrap().into_owned();
            seen.push(((due.0 - START.0) / 1_000_000, rule, tell(&draft)));
        }
    }
    seen
}

pub(super) fn tell(draft: &Draft) -> String {
    let told = draft.metadata.iter().find(|(key, _)| key == "tell");
    match told {
        Some((_, Meta::Text(channels))) => channels.to_string(),
        _ => String::new(),
    }
}

pub(super) fn pages(seen: &[(i64, String, String)]) -> Vec<(i64, &str)> {
    let paged = seen.iter().filter(|(_, rule, _)| rule == "incident.escalate");
    paged.map(|(at, _, tell)| (*at, &**tell)).collect()
}

#[test]
fn every_phase_meets_every_other() {
    let mut out = String::new();
    for from in AlertPhase::ALL {
        let steps: &[AlertPhase] = match from {
            AlertPhase::Inactive => &[],
            AlertPhase::Pending => &[AlertPhase::Pending],
            AlertPhase::Firing => &[AlertPhase::Pending, AlertPhase::Firing],
            AlertPhase::Recovering => &[AlertPhase::Firing, AlertPhase::Recovering],
        };
        let steps: Vec<_> =
            steps.iter().zip(0..).map(|(to, at)| (at, alert("errors", *to))).collect();
        let chain = incidents().after(&steps);
        for to in AlertPhase::ALL {
            let shown = chain.show(50, &alert("errors", *to));
            out += &format!("{} × {}\n{shown}", from.as_str(), to.as_str());
        }
    }
    insta::assert_snapshot!("alerts", out);
}

#[test]
fn every_incident_meets_every_deed() {
    let fired = (0, fires("errors", Severity::Sev1, "http"));
    let ended = (10, over("errors", Severity::Sev1, "http"));
    let status =
        |status| IncidentDeed::Status { status, text: "found it".to_owned(), is_public: false };
    let mut out = String::new();
    for (name, steps) in [
        ("none", vec![]),
        ("investigating", vec![fired.clone()]),
        ("acknowledged", vec![fired.clone(), (5, on(1, IncidentDeed::Acknowledge))]),
        ("identified", vec![fired.clone(), (5, on(1, status(IncidentStatus::Identified)))]),
        ("monitoring", vec![fired.clone(), ended.clone()]),
        ("resolved", vec![fired, ended, (20, on(1, status(IncidentStatus::Resolved)))]),
    ] {
        let chain = incidents().after(&steps);
        let text = || "what we know".to_owned();
        let role = IncidentRole::Commander;
        for (what, command) in [
            ("acknowledge", on(1, IncidentDeed::Acknowledge)),
            ("assign", on(1, IncidentDeed::Assign { role, who: "ada".to_owned() })),
            ("grade", on(1, IncidentDeed::Grade { severity: Severity::Sev2 })),
            ("identify", on(1, status(IncidentStatus::Identified))),
            ("resolve", on(1, status(IncidentStatus::Resolved))),
            ("update", on(1, IncidentDeed::Update { text: text() })),
            ("note", on(1, IncidentDeed::Note { text: text() })),
            ("tick", Command::Tick),
        ] {
            out += &format!("{name} × {what}\n{}", chain.show(50, &command));
        }
    }
    insta::assert_snapshot!("deeds", out);
}

#[test]
fn nobody_answers_and_the_ladder_of_a_sev_1_is_climbed_to_the_second() {
    let mut chain = incidents();
    let (decision, _) = chain.act(START, &fires("errors", Severity::Sev1, "http"));
    let Decision::Seal(sealing) = decision else { panic!("it opens an incident") };
    let everybody = "slack,telegram,webhook,alertmanager,statuspage,pagerduty";
    assert_eq!(tell(&sealing.drafts[1]), everybody);
    let seen = pass(&mut chain, 3_600);
    assert_eq!(
        pages(&seen),
        [
            (300, "pagerduty"),
            (600, "pagerduty-secondary"),
            (900, "pagerduty-commander"),
            (1_800, "pagerduty-executive"),
        ]
    );
    let updates: Vec<i64> =
        seen.iter().filter(|(_, rule, _)| rule == "incident.update").map(|(at, ..)| *at).collect();
    assert_eq!(updates, [900, 1_800, 2_700, 3_600]);
}

#[test]
fn who_acknowledges_is_paged_no_more_and_the_commander_still_is() {
    let mut chain = incidents();
    chain.act(START, &fires("errors", Severity::Sev1, "http"));
    chain.act(START.plus_secs(299), &on(1, IncidentDeed::Acknowledge));
    let seen = pass(&mut chain, 3_600);
    let expected = [(900, "pagerduty-commander"), (1_800, "pagerduty-executive")];
    assert_eq!(pages(&seen), expected);
    let incident = chain.state.incidents().unwrap().incident(1).unwrap();
    assert_eq!(incident.acknowledged_us, Some(START.plus_secs(299).0));
    assert_eq!(incident.acknowledged_by.as_deref(), Some("tester"));
}

#[test]
fn a_step_that_would_tell_nobody_is_skipped_at_once() {
    let mut chain =
        incidents_with(&["pagerduty-secondary", "pagerduty-commander", "pagerduty-executive"]);
    let (decision, _) = chain.act(START, &fires("errors", Severity::Sev1, "http"));
    let Decision::Seal(sealing) = decision else { panic!("it opens an incident") };
    // Nobody is there at 0 and at 300: whom 600 would have reached is told at once.
    assert_eq!(tell(&sealing.drafts[1]), "pagerduty-secondary");
    let seen = pass(&mut chain, 3_600);
    let expected = [(300, "pagerduty-commander"), (1_200, "pagerduty-executive")];
    assert_eq!(pages(&seen), expected);
}

#[test]
fn a_ladder_of_alerts_is_one_incident_that_climbs_once() {
    let mut chain = incidents();
    chain.act(START, &fires("errors-p2", Severity::Sev2, "http"));
    chain.act(START.plus_secs(60), &fires("errors-p1", Severity::Sev1, "http"));
    let mut inhibited = alert_of("errors-p3", AlertPhase::Firing, Severity::Sev3, "http");
    inhibited.inhibited_by = Some("errors-p1".to_owned());
    chain.act(START.plus_secs(70), &Command::Alert(inhibited));
    chain.act(START.plus_secs(80), &fires("latency", Severity::Sev2, "http"));
    let state = chain.state.incidents().unwrap();
    assert_eq!(state.count(), 1);
    let incident = state.incident(1).unwrap();
    assert_eq!((incident.severity, state.alerts_of(1).count()), (Severity::Sev1, 4));
    // The ladder of the worse severity counts from when it was found to be worse.
    assert_eq!(pages(&pass(&mut chain, 370)), [(360, "pagerduty")]);
}

#[test]
fn whoever_was_told_of_an_incident_hears_of_an_alert_that_joins_it_and_nobody_is_called() {
    let mut chain = incidents_with(&["slack", "pagerduty"]);
    chain.act(START, &fires("latency", Severity::Sev3, "http"));
    // It is told over the channels of a SEV-3, whichever the severity of an alert has.
    for (at, key, severity) in [(5, "same", Severity::Sev3), (6, "less", Severity::Sev4)] {
        let (decision, _) = chain.act(START.plus_secs(at), &fires(key, severity, "http"));
        let Decision::Seal(sealing) = decision else { panic!("it joins") };
        let joined = &sealing.drafts[1];
        assert_eq!((joined.rule.as_deref(), &*tell(joined)), (Some("incident.join"), "slack"));
        let text = format!("{key} is bad: value is 12%, threshold is 10%");
        assert_eq!(joined.detail.as_deref(), Some(&*text));
        assert!(joined.metadata.iter().all(|(name, _)| name != "step"), "no ladder begins");
    }
    let incident = chain.state.incidents().unwrap().incident(1).unwrap();
    assert_eq!(
        (incident.severity, incident.page_at_us),
        (Severity::Sev3, Some(START.plus_secs(3_600).0))
    );
    // A worse one raises it, and calls.
    let (decision, _) = chain.act(START.plus_secs(9), &fires("errors", Severity::Sev1, "http"));
    let Decision::Seal(sealing) = decision else { panic!("it joins") };
    assert_eq!(tell(&sealing.drafts[1]), "slack,pagerduty");
}

#[test]
fn a_case_that_another_instance_has_told_is_not_told_again_and_another_case_is() {
    let mut chain = incidents_with(&["slack"]);
    let mut second = 0;
    for (instance, key, is_told) in [
        ("7", "ai{instance=\"7\",provider=\"openai\"}", true),
        ("8", "ai{instance=\"8\",provider=\"openai\"}", false),
        ("8", "ai{instance=\"8\",provider=\"anthropic\"}", true),
        ("7", "ai{instance=\"7\",provider=\"anthropic\"}", false),
        ("7", "ai{instance=\"7\"}", true),
        ("8", "ai{instance=\"8\"}", false),
    ] {
        let Command::Alert(change) = fires(key, Severity::Sev3, "http") else { panic!() };
        let of = AlertChange { instance: Some(instance.to_owned()), ..change };
        second += 1;
        let (decision, _) = chain.act(START.plus_secs(second), &Command::Alert(of));
        let Decision::Seal(sealing) = decision else { panic!("{key} is recorded") };
        assert_eq!(!tell(&sealing.drafts[1]).is_empty(), is_told, "{key}");
    }
}

#[test]
fn what_a_person_has_declared_outlives_the_end_of_its_alerts() {
    let mut chain = incidents();
    let (title, component) = ("checkout is slow".to_owned(), "http".to_owned());
    let declared = Declared { title, severity: Severity::Sev2, component, text: String::new() };
    chain.act(START, &Command::Incident(IncidentChange::Declare(declared)));
    for (from, to) in [(10, 60), (90, 120)] {
        chain.act(START.plus_secs(from), &fires("errors", Severity::Sev3, "http"));
        let ended = over("errors", Severity::Sev3, "http");
        let (decision, _) = chain.act(START.plus_secs(to), &ended);
        let Decision::Seal(sealing) = decision else { panic!("it is over") };
        let noted = &sealing.drafts[1];
        assert_eq!((noted.rule.as_deref(), &*tell(noted)), (Some("incident.note"), ""));
    }
    pass(&mut chain, 86_400);
    let incident = chain.state.incidents().unwrap().incident(1).unwrap();
    let stands = (incident.status, incident.resolve_at_us, incident.is_declared);
    assert_eq!(stands, (IncidentStatus::Investigating, None, true));
    let told = story(&chain, 1);
    // What it was detected by is not its alert, which came later: no time is negative.
    let page = told.post_mortem();
    let row = |name: &str| page.lines().find(|line| line.starts_with(name)).unwrap();
    assert!(row("| Detection |").starts_with("| Detection | declared by hand before any alert | "));
    assert!(row("| Detection |").ends_with(" | ________ |"), "{page}");
    assert!(row("| Impact |").starts_with(&format!("| Impact | {START} ")), "{page}");
    assert!(
        told.durations()
            .iter()
            .all(|(_, from, to)| { from.zip(*to).is_none_or(|((from, _), (to, _))| from <= to) })
    );
    let note = told.moments().iter().find(|moment| moment.rule == "incident.note").unwrap();
    assert!(note.text.ends_with("a person declared it, and a person ends it"), "{}", note.text);
    // A person ends it, as any other one.
    let status = IncidentStatus::Resolved;
    let deed = IncidentDeed::Status { status, text: String::new(), is_public: false };
    chain.act(START.plus_secs(86_400), &on(1, deed));
    assert!(chain.state.incidents().unwrap().open().is_empty());
}

#[test]
fn a_cascade_is_one_incident_and_its_cause_stands_on_nothing_else_that_fails() {
    let mut chain = incidents();
    for (at, component) in [(0, "http"), (5, "pubsub"), (9, "ledger")] {
        chain.act(START.plus_secs(at), &fires(component, Severity::Sev2, component));
    }
    chain.act(START.plus_secs(20), &fires("mail", Severity::Sev3, "mail"));
    let state = chain.state.incidents().unwrap();
    let components: Vec<_> =
        state.open().iter().map(|incident| incident.components.join(" ")).collect();
    assert_eq!(components, ["http pubsub ledger", "mail"]);
    let names: Vec<&str> = state.open()[0].components.iter().map(|name| &**name).collect();
    assert_eq!(chain.rules.oncall().cause(&names), Some("ledger"));
}

#[test]
fn calm_resolves_an_incident_and_a_relapse_does_not_open_another() {
    let mut chain = incidents();
    chain.act(START, &fires("errors", Severity::Sev2, "http"));
    chain.act(START.plus_secs(100), &over("errors", Severity::Sev2, "http"));
    chain.act(START.plus_secs(200), &fires("errors", Severity::Sev2, "http"));
    let status =
        |chain: &Chain| chain.state.incidents().unwrap().incident(1).map(|held| held.status);
    assert_eq!(status(&chain), Some(IncidentStatus::Investigating));
    chain.act(START.plus_secs(250), &over("errors", Severity::Sev2, "http"));
    assert_eq!(status(&chain), Some(IncidentStatus::Monitoring));
    let seen = pass(&mut chain, 600);
    let last = seen.last().unwrap();
    assert_eq!((last.0, &*last.1), (550, "incident.resolve"));
    assert_eq!(last.2, "slack,telegram,webhook,alertmanager,statuspage,pagerduty");
    assert_eq!((status(&chain), chain.state.next_due()), (None, None));
    assert!(chain.state.incidents().unwrap().alerts().is_empty());
}

#[test]
fn who_was_told_that_it_is_over_hears_of_a_relapse_and_nobody_is_woken_in_between() {
    let mut chain = incidents();
    chain.act(START, &fires("errors", Severity::Sev1, "http"));
    chain.act(START.plus_secs(20), &on(1, IncidentDeed::Acknowledge));
    chain.act(START.plus_secs(250), &over("errors", Severity::Sev1, "http"));
    assert_eq!(pages(&pass(&mut chain, 500)), []);
    let (decision, _) = chain.act(START.plus_secs(510), &fires("errors", Severity::Sev1, "http"));
    let Decision::Seal(sealing) = decision else { panic!("it goes on") };
    assert!(tell(&sealing.drafts[1]).contains("pagerduty"), "{:?}", sealing.drafts[1]);
    // From the relapse on, whoever has acknowledged is not paged again, and the commander is.
    assert_eq!(pages(&pass(&mut chain, 1_500)), [(1_410, "pagerduty-commander")]);
}

#[test]
fn what_is_watched_by_hand_resolves_by_itself_once_its_alerts_are_over() {
    let mut chain = incidents();
    chain.act(START, &fires("errors", Severity::Sev3, "http"));
    let status = IncidentStatus::Monitoring;
    let deed = IncidentDeed::Status { status, text: String::new(), is_public: false };
    chain.act(START.plus_secs(9), &on(1, deed));
    chain.act(START.plus_secs(60), &over("errors", Severity::Sev3, "http"));
    let seen = pass(&mut chain, 400);
    assert_eq!(seen.last().map(|(at, rule, _)| (*at, &**rule)), Some((360, "incident.resolve")));
}

#[test]
fn a_text_that_no_receipt_keeps_does_not_keep_an_alert_from_being_told() {
    let mut chain = incidents();
    let mut change = alert_of("errors", AlertPhase::Firing, Severity::Sev1, "http");
    (change.title, change.message) = ("sk_live_x".to_owned(), "a\nb".to_owned());
    chain.act(START, &Command::Alert(change));
    assert_eq!(chain.state.incidents().unwrap().incident(1).unwrap().title, "errors");
}

#[test]
fn what_a_person_says_reaches_whoever_was_told() {
    let mut chain = incidents_with(&["pagerduty"]);
    chain.act(START, &fires("errors", Severity::Sev1, "http"));
    let text = "rolled back".to_owned();
    let (decision, _) = chain.act(START.plus_secs(9), &on(1, IncidentDeed::Update { text }));
    let Decision::Seal(sealing) = decision else { panic!("it is said") };
    assert_eq!(tell(&sealing.drafts[0]), "pagerduty");
}

#[test]
fn what_is_silenced_opens_no_incident_until_the_silence_ends() {
    for matcher in ["rule=errors", "component=http", "alert=errors{a=\"b\"}"] {
        let mut chain = incidents();
        chain.act(START, &silence(matcher, 60));
        chain.act(START.plus_secs(1), &fires("errors{a=\"b\"}", Severity::Sev1, "http"));
        assert!(chain.state.incidents().unwrap().open().is_empty(), "{matcher}");
        let again = fires("errors{a=\"b\"}", Severity::Sev1, "http");
        assert_eq!(chain.decide(START.plus_secs(59), &again), Decision::Nothing, "{matcher}");
        assert_eq!(pass(&mut chain, 60)[0].1, "silence.lease_end", "{matcher}");
        chain.act(START.plus_secs(61), &again);
        assert_eq!(chain.state.incidents().unwrap().open().len(), 1, "{matcher}");
    }
    let mut chain = incidents();
    chain.act(START, &silence("rule=other", 60));
    chain.act(START.plus_secs(1), &fires("errors", Severity::Sev1, "http"));
    assert_eq!(chain.state.incidents().unwrap().open().len(), 1);
}

#[test]
fn an_incident_does_not_end_while_an_alert_fires_and_takes_corrections_afterwards() {
    let mut chain = incidents();
    let resolve = || {
        let text = "rolled back".to_owned();
        on(1, IncidentDeed::Status { status: IncidentStatus::Resolved, text, is_public: true })
    };
    chain.act(START, &fires("errors", Severity::Sev1, "http"));
    chain.act(START.plus_secs(1), &resolve());
    assert!(chain.state.incidents().unwrap().incident(1).is_some());
    chain.act(START.plus_secs(2), &over("errors", Severity::Sev1, "http"));
    chain.act(START.plus_secs(3), &resolve());
    assert!(chain.state.incidents().unwrap().incident(1).is_none());
    let note = || IncidentDeed::Note { text: "it began earlier".to_owned() };
    assert!(matches!(chain.decide(START.plus_secs(4), &on(1, note())), Decision::Seal(_)));
    for absent in [0, 2] {
        let decision = chain.decide(START.plus_secs(4), &on(absent, note()));
        assert!(matches!(decision, Decision::Reject(_)), "{absent}");
    }
}

#[test]
fn a_channel_that_does_not_take_it_is_stood_in_for_once() {
    let mut chain = incidents();
    chain.act(START, &fires("errors", Severity::Sev1, "http"));
    let deed = || IncidentDeed::Unreachable { channel: "pagerduty".to_owned() };
    let (decision, _) = chain.act(START.plus_secs(9), &on(1, deed()));
    let Decision::Seal(sealing) = decision else { panic!("others are told") };
    assert_eq!(tell(&sealing.drafts[0]), "slack,telegram,webhook,alertmanager");
    assert_eq!(chain.decide(START.plus_secs(10), &on(1, deed())), Decision::Nothing);
}

#[test]
fn states_read_back_from_their_snapshots() {
    let mut chain = incidents();
    chain.act(START, &silence("rule=other", 60));
    chain.act(START, &fires("errors", Severity::Sev1, "http"));
    chain.act(START, &alert("pending", AlertPhase::Pending));
    chain.act(START.plus_secs(9), &on(1, IncidentDeed::Acknowledge));
    let who = "ada".to_owned();
    chain.act(START.plus_secs(9), &on(1, IncidentDeed::Assign { role: IncidentRole::Scribe, who }));
    let bytes = chain.state.to_snapshot();
    assert_eq!(StreamState::from_snapshot(&chain.stream, &bytes), Some(chain.state));
}

pub(super) fn begin(channel: &str, from: u64) -> Command {
    Command::Notice(NoticeChange::Begin { channel: channel.to_owned(), from })
}

fn notices() -> Chain {
    Chain::new(limits::STREAM_NOTICES).after(&[(0, begin("slack", 3))])
}

fn telling(channel: &str, seq: u64) -> Command {
    let channel = channel.to_owned();
    Command::Notice(NoticeChange::Tell(Telling { channel, seq, incident: incident_name(1) }))
}

#[test]
fn a_channel_is_told_one_thing_after_the_other_and_nothing_twice() {
    for outcome in TellOutcome::ALL.iter().copied() {
        let mut chain = notices();
        let (_, ids) = chain.act(START.plus_secs(1), &telling("slack", 5));
        let refused = |chain: &Chain, command: &Command| {
            matches!(chain.decide(START.plus_secs(2), command), Decision::Reject(_))
        };
        assert!(refused(&chain, &telling("slack", 6)), "one is open");
        assert!(refused(&chain, &telling("mail", 5)), "never begun");
        let is_taken = outcome == TellOutcome::Delivered;
        let why = (!is_taken).then(|| "it cannot be reached".to_owned());
        let told = Command::Notice(NoticeChange::Told { attempt: ids[0], outcome, why });
        chain.act(START.plus_secs(2), &told);
        assert!(refused(&chain, &told), "settled once");
        let ended = outcome.is_final();
        let again = matches!(outcome, TellOutcome::Again | TellOutcome::Unknown);
        assert_ne!(ended, again, "{outcome:?}");
        assert_eq!(refused(&chain, &telling("slack", 5)), ended, "{outcome:?}");
        assert!(!refused(&chain, &telling("slack", 6)));
        let channel = chain.state.notices().unwrap().channel("slack").unwrap().clone();
        assert_eq!(channel.unknowns, u32::from(outcome == TellOutcome::Unknown));
        assert_eq!((channel.failures, channel.next), if ended { (0, 6) } else { (1, 5) });
        assert_eq!((channel.has_taken(5), channel.has_heard_of("INC-1")), (is_taken, is_taken));
        let at = Some(START.plus_secs(2).0);
        let is_failed = !is_taken && outcome != TellOutcome::Superseded;
        assert_eq!(channel.last_taken_us, at.filter(|_| is_taken), "{outcome:?}");
        assert_eq!(channel.last_failed_us, at.filter(|_| is_failed), "{outcome:?}");
        let expected = is_failed.then_some("it cannot be reached");
        assert_eq!(channel.last_error.as_deref(), expected, "{outcome:?}");
        let bytes = chain.state.to_snapshot();
        assert_eq!(StreamState::from_snapshot(&chain.stream, &bytes), Some(chain.state));
    }
}

#[test]
fn a_channel_that_is_tried_on_purpose_shows_how_it_went_and_no_place_moves() {
    let mut chain = notices();
    let tested = |channel: &str, outcome, why: Option<&str>| {
        let (channel, why) = (channel.to_owned(), why.map(str::to_owned));
        Command::Notice(NoticeChange::Tested { channel, outcome, why })
    };
    chain.act(START.plus_secs(1), &telling("slack", 5));
    let refused = tested("slack", TellOutcome::Refused, Some("it refuses the credentials"));
    chain.act(START.plus_secs(2), &refused);
    chain.act(START.plus_secs(3), &tested("slack", TellOutcome::Delivered, None));
    let channel = chain.state.notices().unwrap().channel("slack").unwrap().clone();
    assert_eq!(channel.last_failed_us, Some(START.plus_secs(2).0));
    assert_eq!(channel.last_taken_us, Some(START.plus_secs(3).0));
    assert_eq!(channel.last_error.as_deref(), Some("it refuses the credentials"));
    assert_eq!((channel.next, channel.failures, channel.open.is_some()), (5, 0, true));
    // One that was never told anything is on record all the same.
    let (decision, _) = chain.act(START.plus_secs(4), &tested("mail", TellOutcome::Again, None));
    let Decision::Seal(sealing) = decision else { panic!("it is on record") };
    assert_eq!(sealing.drafts[0].rule.as_deref(), Some("notice.test"));
    assert!(chain.state.notices().unwrap().channel("mail").is_none());
}

/// The story that a chain's receipts tell.
fn story(chain: &Chain, number: u64) -> crate::incident::Story {
    let mut story = crate::incident::Story::new(number);
    chain.cores.iter().for_each(|core| story.take(&View::scan(core).unwrap()));
    story
}

#[test]
fn a_post_mortem_cites_a_receipt_for_every_sentence_and_leaves_blank_what_nobody_said() {
    let mut chain = incidents().after(&[
        (0, alert("errors", AlertPhase::Pending)),
        (5, alert("other", AlertPhase::Pending)),
        (9, alert("other", AlertPhase::Inactive)),
        (60, alert("errors", AlertPhase::Firing)),
        (120, on(1, IncidentDeed::Acknowledge)),
        (
            200,
            on(
                1,
                IncidentDeed::Status {
                    status: IncidentStatus::Identified,
                    text: "a bad deploy # of | <the> [store]".to_owned(),
                    is_public: false,
                },
            ),
        ),
        (240, alert("errors", AlertPhase::Recovering)),
        (300, alert("errors", AlertPhase::Inactive)),
    ]);
    pass(&mut chain, 1_000);
    chain.act(START.plus_secs(2_000), &on(1, IncidentDeed::Note { text: "it was 3 %".to_owned() }));
    let told = story(&chain, 1);
    let page = told.post_mortem();
    let ids: Vec<String> =
        chain.cores.iter().map(|core| View::scan(core).unwrap().id.to_string()).collect();
    let sentences = page.lines().filter(|line| line.starts_with("- ") && !line.contains("[ ]"));
    let mut count = 0;
    for line in sentences {
        count += 1;
        assert!(ids.iter().any(|id| line.ends_with(&format!("[{id}]"))), "{line}");
    }
    assert_eq!(count, told.moments().len() + 1);
    for (row, seconds) in [
        ("Detection", "60.0"),
        ("Acknowledgement", "60.0"),
        ("Diagnosis", "140.0"),
        ("Mitigation", "240.0"),
        ("Resolution", "540.0"),
        ("Impact", "300.0"),
    ] {
        let line = page.lines().find(|line| line.starts_with(&format!("| {row} |"))).unwrap();
        assert!(line.ends_with(&format!("| {seconds} |")), "{line}");
    }
    assert!(page.contains("a bad deploy \\# of \\| \\<the\\> \\[store\\]"));
    assert!(page.contains("## Contributing Factors\n\n________\n"));
    assert!(page.contains("## Corrections\n\n- ") && page.contains("it was 3 %"));
    assert!(!page.contains("Alert other"), "what was over before is no part of it");
    assert!(!story(&chain, 2).is_there());
}

#[test]
fn an_incident_that_goes_on_has_blanks_for_what_has_not_come() {
    let chain = incidents().after(&[(0, fires("errors", Severity::Sev1, "http"))]);
    let page = story(&chain, 1).post_mortem();
    let resolution = page.lines().find(|line| line.starts_with("| Resolution |")).unwrap();
    assert!(resolution.ends_with("| ________ | ________ |"), "{resolution}");
    assert!(page.contains("## Root Cause\n\n________\n"));
}
