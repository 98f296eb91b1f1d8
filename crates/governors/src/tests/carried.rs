//! Alerts of several instances, and what was said of incidents in a lane.
//!
//! Owns: that what comes back from a lane is said once, told once, and undone by nobody. Refuses to
//! know: how a lane is kept.

use types::{LaneId, Severity, limits};

use super::incidents::{fires, on, silence};
use super::*;
use crate::incident::{Story, carried, incident_number};

const LANE: LaneId = LaneId([0, 0, 0, 7, 1, 2, 3, 4]);

fn chain() -> Chain {
    let mut chain = Chain::new(limits::STREAM_INCIDENTS);
    chain.rules = chain.rules.with_channels(&["slack", "pagerduty"], &[]);
    chain
}

/// A lane that goes on from where `chain` stands.
fn lane(chain: &Chain) -> Chain {
    let mut lane = Chain::new(limits::STREAM_INCIDENTS);
    lane.rules = chain.rules.clone();
    lane.stream = chain.stream.lane(LANE);
    lane.state = chain.state.clone();
    lane
}

/// Says everything of the lane again; gives what the chain is to tell of it.
fn carry(lane: &Chain, to: &mut Chain, at: Micros, taken: &[&str]) -> Vec<String> {
    let is_told = |channel: &str| taken.contains(&channel);
    let commands: Vec<Command> = lane
        .cores
        .iter()
        .filter_map(|core| carried(&View::scan(core).unwrap(), &is_told))
        .collect();
    let mut told = Vec::new();
    for (nth, command) in commands.iter().enumerate() {
        let before = to.cores.len();
        to.act(at.plus_secs(nth as i64), command);
        for core in &to.cores[before..] {
            let view = View::scan(core).unwrap();
            told.extend(view.meta_text("tell").map(|tell| tell.into_owned()));
        }
    }
    told
}

fn of(instance: &str, to: AlertPhase, is_gone: bool) -> Command {
    Command::Alert(AlertChange {
        key: format!("errors{{instance=\"{instance}\"}}"),
        rule: "errors".to_owned(),
        to,
        severity: Severity::Sev1,
        component: "http".to_owned(),
        title: "requests fail".to_owned(),
        message: "value is 12%".to_owned(),
        inhibited_by: None,
        instance: Some(instance.to_owned()),
        gone: is_gone.then_some(Gone::Unmeasured),
    })
}

fn rules_of(chain: &Chain) -> Vec<String> {
    let rule = |core: &[u8]| View::scan(core).unwrap().rule.unwrap().text().into_owned();
    chain.cores.iter().map(|core| rule(core)).collect()
}

#[test]
fn instances_with_the_same_trouble_share_an_incident_that_ends_with_the_last_of_them() {
    let mut chain = chain();
    chain.act(START, &of("1", AlertPhase::Firing, false));
    chain.act(START.plus_secs(5), &of("2", AlertPhase::Firing, false));
    let state = chain.state.incidents().unwrap();
    assert_eq!((state.count(), state.alerts_of(1).count()), (1, 2));
    assert_eq!(state.alerts()[1].instance.as_deref(), Some("2"));
    let last = View::scan(chain.cores.last().unwrap()).unwrap();
    assert!(last.meta("tell").is_none(), "nobody is told twice of the same");
    chain.act(START.plus_secs(9), &of("1", AlertPhase::Inactive, false));
    let status = |chain: &Chain| chain.state.incidents().unwrap().incident(1).unwrap().status;
    assert_eq!(status(&chain), IncidentStatus::Investigating, "the other one is sick");
    chain.act(START.plus_secs(20), &of("2", AlertPhase::Inactive, true));
    assert_eq!(status(&chain), IncidentStatus::Monitoring);
    // The second to say so says nothing new.
    let again = of("2", AlertPhase::Inactive, true);
    assert_eq!(chain.decide(START.plus_secs(21), &again), Decision::Nothing);
}

#[test]
fn the_end_of_an_instance_is_told_by_its_incident() {
    let mut chain = chain();
    chain.act(START, &of("7", AlertPhase::Firing, false));
    chain.act(START.plus_secs(1), &of("8", AlertPhase::Firing, false));
    chain.act(START.plus_secs(20), &of("7", AlertPhase::Inactive, true));
    chain.act(START.plus_secs(30), &of("8", AlertPhase::Inactive, true));
    let mut story = Story::new(1);
    chain.cores.iter().for_each(|core| story.take(&View::scan(core).unwrap()));
    let said: Vec<&str> = story.moments().iter().map(|moment| &*moment.text).collect();
    let why = |instance| format!("instance {instance} is gone, and nobody measures this any more");
    let first = format!("Alert errors{{instance=\"7\"}} is inactive: {}", why(7));
    assert!(said.contains(&&*first), "{said:?}");
    let last = format!("No alert fires any more: {}", why(8));
    assert_eq!(said.last(), Some(&&*last));
    let recovered = View::scan(chain.cores.last().unwrap()).unwrap();
    assert_eq!(recovered.meta_text("tell").as_deref(), Some("slack,pagerduty"));
}

fn handed(from: &str, to: &str) -> Command {
    let Command::Alert(change) = of(from, AlertPhase::Inactive, true) else { unreachable!() };
    let to = format!("errors{{instance=\"{to}\"}}");
    Command::Alert(AlertChange { gone: Some(Gone::Handed { to }), ..change })
}

#[test]
fn an_instance_goes_on_with_the_alert_of_another_as_far_as_that_is_ahead() {
    use AlertPhase::{Firing, Pending, Recovering};
    let pending = |from| vec![(from, Pending)];
    let firing = |from| vec![(from, Pending), (from + 10, Firing)];
    let recovering = |from| vec![(from, Pending), (from + 10, Firing), (from + 20, Recovering)];
    // What each has become, and: the heir's phase, since when, since when its condition holds, and
    // whether it has an incident.
    for (gone, heir, expected) in [
        (pending(0), pending(30), (Pending, 0, 0, false)),
        (pending(31), pending(30), (Pending, 30, 30, false)),
        (firing(0), pending(30), (Firing, 10, 0, true)),
        (recovering(0), pending(30), (Firing, 10, 0, true)),
        (firing(0), firing(5), (Firing, 15, 5, true)),
        (pending(0), firing(5), (Firing, 15, 5, true)),
        (firing(0), recovering(5), (Recovering, 25, 5, true)),
    ] {
        let mut chain = chain();
        let steps = |name, steps: &[(i64, AlertPhase)]| -> Vec<(i64, Command)> {
            steps.iter().map(|(at, to)| (*at, of(name, *to, false))).collect()
        };
        let mut all = [steps("1", &gone), steps("2", &heir)].concat();
        all.sort_by_key(|(at, _)| *at);
        for (at, command) in &all {
            chain.act(START.plus_secs(*at), command);
        }
        let told = |chain: &Chain| {
            let tells = |core: &[u8]| View::scan(core).unwrap().meta("tell").is_some();
            chain.cores.iter().filter(|core| tells(core)).count()
        };
        let (before, case) = (told(&chain), format!("{gone:?} × {heir:?}"));
        chain.act(START.plus_secs(60), &handed("1", "2"));
        let state = chain.state.incidents().unwrap();
        let [alert] = state.alerts() else { panic!("{case}: {:?}", state.alerts()) };
        let second = |at_us: i64| (at_us - START.0) / 1_000_000;
        let since = alert.since_us;
        let found = (alert.phase, second(since), second(alert.began_us), alert.incident.is_some());
        assert_eq!(found, expected, "{case}");
        assert_eq!(told(&chain), before, "{case}: nobody is told");
        assert!(state.open().iter().all(|open| open.resolve_at_us.is_none()), "{case}");
        let again = handed("1", "2");
        assert_eq!(chain.decide(START.plus_secs(61), &again), Decision::Nothing, "{case}");
        let bytes = chain.state.to_snapshot();
        assert_eq!(StreamState::from_snapshot(&chain.stream, &bytes), Some(chain.state));
    }
}

#[test]
fn a_silenced_heir_keeps_the_incident_that_is_open() {
    let mut chain = chain();
    chain.act(START, &of("1", AlertPhase::Firing, false));
    chain.act(START.plus_secs(1), &silence("rule=errors", 3_600));
    chain.act(START.plus_secs(2), &of("2", AlertPhase::Firing, false));
    assert_eq!(chain.state.incidents().unwrap().alerts()[1].incident, None);
    let text = "found".to_owned();
    let status = IncidentStatus::Identified;
    chain.act(START.plus_secs(3), &on(1, IncidentDeed::Status { status, text, is_public: false }));
    chain.act(START.plus_secs(20), &handed("1", "2"));
    let state = chain.state.incidents().unwrap();
    assert_eq!(state.alerts()[0].incident, Some(1));
    assert_eq!(state.incident(1).unwrap().status, IncidentStatus::Identified);
    // Who has none to go on with ends nothing.
    assert_eq!(chain.decide(START.plus_secs(21), &handed("2", "3")), Decision::Nothing);
    assert_eq!(chain.decide(START.plus_secs(21), &handed("2", "2")), Decision::Nothing);
}

#[test]
fn what_a_lane_says_is_said_again_with_its_instants_and_told_to_whoever_missed_it() {
    let mut chain = chain();
    let mut away = lane(&chain);
    away.act(START.plus_secs(10), &of("1", AlertPhase::Pending, false));
    away.act(START.plus_secs(20), &of("1", AlertPhase::Firing, false));
    let opened = away.state.incidents().unwrap().open()[0].clone();
    let number = opened.number;
    assert_eq!(incident_number(&opened.name()), Some(number));
    away.act(START.plus_secs(30), &on(number, IncidentDeed::Acknowledge));
    away.act(START.plus_secs(40), &silence("rule=other", 3_600));
    let told = carry(&away, &mut chain, START.plus_secs(900), &["pagerduty"]);
    assert_eq!(told, ["slack", "slack"], "the opening and the answer");
    let state = chain.state.incidents().unwrap();
    let mut held = state.incident(number).unwrap().clone();
    // The receipt that opened it is the chain's own, and so is the order of those who were told.
    held.opened_by = opened.opened_by;
    held.told.sort_unstable_by_key(|channel| channel == "pagerduty");
    assert_eq!(held, away.state.incidents().unwrap().open()[0]);
    assert_eq!(state.alerts(), away.state.incidents().unwrap().alerts());
    assert_eq!(state.silences(), away.state.incidents().unwrap().silences());
    assert_eq!(state.count(), 0, "the chain's own numbers go on as they were");
    // The story tells the instants of the lane.
    let mut story = Story::new(number);
    chain.cores.iter().for_each(|core| story.take(&View::scan(core).unwrap()));
    let at = |mark: crate::incident::Mark| (mark.unwrap().0.0 - START.0) / 1_000_000;
    let marks = story.marks();
    assert_eq!((at(marks.began), at(marks.detected), at(marks.acknowledged)), (10, 20, 30));
    let bytes = chain.state.to_snapshot();
    assert_eq!(StreamState::from_snapshot(&chain.stream, &bytes), Some(chain.state));
}

#[test]
fn what_is_carried_over_twice_changes_nothing_the_second_time() {
    let mut chain = chain();
    let mut away = lane(&chain);
    away.act(START.plus_secs(10), &of("1", AlertPhase::Firing, false));
    away.act(START.plus_secs(60), &of("1", AlertPhase::Inactive, false));
    let text = "it was the disk".to_owned();
    let number = away.state.incidents().unwrap().open()[0].number;
    let resolve = IncidentDeed::Status { status: IncidentStatus::Resolved, text, is_public: false };
    away.act(START.plus_secs(70), &on(number, resolve));
    let all = ["slack", "pagerduty"];
    assert!(carry(&away, &mut chain, START.plus_secs(900), &all).is_empty(), "all were told");
    let state = chain.state.incidents().unwrap().clone();
    assert!(state.open().is_empty() && state.alerts().is_empty());
    assert!(state.was_there(number), "it takes corrections");
    let rules = rules_of(&chain);
    carry(&away, &mut chain, START.plus_secs(2_000), &all);
    let opened = |rules: &[String]| rules.iter().filter(|rule| **rule == "incident.open").count();
    assert_eq!(opened(&rules_of(&chain)), opened(&rules));
    assert!(chain.state.incidents().unwrap().open().is_empty());
}

#[test]
fn an_incident_of_before_goes_on_in_the_lane_and_what_others_did_meanwhile_stands() {
    let mut chain = chain();
    chain.act(START, &of("1", AlertPhase::Firing, false));
    let mut away = lane(&chain);
    // The lane climbs the ladder and sees the end; in the chain a person has found the cause, and
    // another instance is sick.
    away.act(START.plus_secs(301), &Command::Tick);
    away.act(START.plus_secs(400), &of("1", AlertPhase::Inactive, false));
    let text = "a bad deploy".to_owned();
    let status = IncidentStatus::Identified;
    chain
        .act(START.plus_secs(310), &on(1, IncidentDeed::Status { status, text, is_public: false }));
    chain.act(START.plus_secs(320), &of("2", AlertPhase::Firing, false));
    let step = away.state.incidents().unwrap().open()[0].step;
    carry(&away, &mut chain, START.plus_secs(900), &["slack", "pagerduty"]);
    let state = chain.state.incidents().unwrap();
    let incident = state.incident(1).unwrap();
    assert_eq!(incident.status, IncidentStatus::Identified);
    assert_eq!(incident.step, step, "nobody is paged again for a step that was taken");
    assert_eq!(incident.resolve_at_us, None, "it has not recovered");
    let firing: Vec<_> = state.alerts_of(1).map(|alert| alert.instance.as_deref()).collect();
    assert_eq!(firing, [Some("2")]);
}

#[test]
fn an_incident_whose_alert_was_told_in_a_lane_recovers_by_itself() {
    // The chain has taken what the lane says as well: the answer was lost.
    for has_another in [false, true] {
        let mut chain = chain();
        let mut away = lane(&chain);
        chain.act(START, &of("1", AlertPhase::Firing, false));
        if has_another {
            chain.act(START.plus_secs(1), &of("2", AlertPhase::Firing, false));
        }
        away.act(START.plus_secs(3), &of("1", AlertPhase::Firing, false));
        let number = away.state.incidents().unwrap().open()[0].number;
        carry(&away, &mut chain, START.plus_secs(900), &["slack", "pagerduty"]);
        let state = chain.state.incidents().unwrap();
        assert_eq!(state.alerts()[0].incident, Some(number));
        let left = state.incident(1).unwrap();
        assert_eq!(left.resolve_at_us.is_none(), has_another, "what still fires keeps it open");
        if has_another {
            continue;
        }
        assert_eq!(left.status, IncidentStatus::Monitoring);
        let said = View::scan(chain.cores.last().unwrap()).unwrap();
        let why = format!("INC-{number} has its alert, and was told while the store was away");
        assert_eq!(said.detail.unwrap().text(), why);
        let seen = super::incidents::pass(&mut chain, 3_600);
        assert!(chain.state.incidents().unwrap().incident(1).is_none(), "{seen:?}");
        assert!(chain.state.incidents().unwrap().incident(number).is_some());
    }
}

#[test]
fn an_end_that_was_told_in_a_lane_stands_and_what_still_fires_opens_another_incident() {
    let mut chain = chain();
    chain.act(START, &of("1", AlertPhase::Firing, false));
    let mut away = lane(&chain);
    away.act(START.plus_secs(40), &of("1", AlertPhase::Inactive, false));
    let text = "a bad deploy".to_owned();
    let resolve = IncidentDeed::Status { status: IncidentStatus::Resolved, text, is_public: false };
    away.act(START.plus_secs(50), &on(1, resolve));
    chain.act(START.plus_secs(20), &of("2", AlertPhase::Firing, false));
    carry(&away, &mut chain, START.plus_secs(900), &["slack", "pagerduty"]);
    let state = chain.state.incidents().unwrap();
    assert!(state.open().is_empty());
    let mut story = Story::new(1);
    chain.cores.iter().for_each(|core| story.take(&View::scan(core).unwrap()));
    let ended = story.marks().resolved.unwrap().0;
    assert_eq!(ended, START.plus_secs(50), "when it was told");
    // Whoever measures what still fires says so again.
    assert_eq!((state.alerts().len(), state.alerts()[0].incident), (1, None));
    chain.act(START.plus_secs(910), &of("2", AlertPhase::Firing, false));
    let state = chain.state.incidents().unwrap();
    assert_eq!(state.open().iter().map(|open| open.number).collect::<Vec<_>>(), [2]);
    let last = View::scan(chain.cores.last().unwrap()).unwrap();
    assert_eq!(last.meta_text("tell").as_deref(), Some("slack,pagerduty"));
}

#[test]
fn two_lanes_never_give_two_incidents_one_number() {
    let mut numbers = Vec::new();
    for id in [0_u8, 1, 0xff] {
        let base = chain();
        let mut away = lane(&base);
        away.stream = base.stream.lane(LaneId([id; 8]));
        for component in ["one", "two"] {
            away.act(START, &fires(component, Severity::Sev3, component));
        }
        let open = away.state.incidents().unwrap().open().to_vec();
        assert_eq!(open.len(), 2);
        numbers.extend(open.iter().map(|incident| incident.number));
    }
    let count = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), count);
    assert!(numbers.iter().all(|number| *number > 1_000_000_000));
    assert!(numbers.iter().all(|number| i64::try_from(*number).unwrap() < limits::INTEGER_MAX));
}
