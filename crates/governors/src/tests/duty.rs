//! Who is on call: turns, overrides, and ladders that name rotations.
//!
//! Owns: a catalogue with a rota, and its instants. Refuses to know: samples and channels.

use proptest::prelude::*;
use types::{Severity, limits};

use super::incidents::{fires, on, pages, pass, tell};
use super::*;
use crate::rules::SHIPPED;

/// A quarter of an hour before the first hand-over behind [`START`], 2027-01-15T08:00:00Z.
const HAND_OVER: i64 = 3_600;
const DAY: i64 = 86_400;

const ROTA: &str = r#"
[oncall.people]
ada = ["phone-ada"]
bob = ["phone-bob", "secondary-desk"]
cyd = ["phone-cyd"]
eve = ["nowhere"]

[oncall.rotations.primary]
layers = [{ start = 2027-01-01T00:00:00Z, hand_over = 09:00:00, shift_h = 24, order = ["ada", "bob", "cyd"] }]

[oncall.rotations.backup]
layers = [
    { start = 2027-01-01T00:00:00Z, shift_h = 24, order = ["bob"], hours = [22:00:00, 06:00:00] },
    { start = 2027-01-16T00:00:00Z, shift_h = 168, order = ["cyd"] },
]

[oncall.rotations.nobody]
layers = [{ start = 2027-01-01T00:00:00Z, shift_h = 24, order = [] }]

[oncall.rotations.silent]
layers = [{ start = 2027-01-01T00:00:00Z, shift_h = 24, order = ["eve"] }]
"#;

const CHANNELS: [&str; 6] =
    ["slack", "phone-ada", "phone-bob", "phone-cyd", "secondary-desk", "pagerduty-commander"];

/// The shipped catalogue with a rota, and this ladder for SEV-1.
fn catalogue(steps: &str) -> String {
    let (before, behind) = SHIPPED.split_once("[oncall.sev1]").unwrap();
    let (_, behind) = behind.split_once("[oncall.sev2]").unwrap();
    let before =
        before.replace("fallback = [\"responders\", \"chat\"]", "fallback = [\"primary\"]");
    let targets = "secondary = [\"pagerduty-secondary\", \"email\"]";
    let before = before.replace(targets, "desk = [\"secondary-desk\"]");
    let behind = behind.replace("tell = [\"secondary\"]", "tell = [\"backup\"]");
    let ada = ROTA.replace("\"secondary-desk\"", "\"desk\"");
    format!("{before}[oncall.sev1]\nsteps = [\n{steps}\n]\n[oncall.sev2]{behind}{ada}")
}

const STEPS: &str = r#"
    { after_s = 0, tell = ["chat", "primary"] },
    { after_s = 300, tell = ["primary"], unless = "acknowledged" },
    { after_s = 600, tell = ["backup"], unless = "acknowledged" },
    { after_s = 900, tell = ["commander"] },
"#;

fn chain(steps: &str) -> Chain {
    let mut chain = Chain::new(limits::STREAM_INCIDENTS);
    chain.rules = Rules::parse(&catalogue(steps)).unwrap().with_channels(&CHANNELS, &[]);
    chain
}

fn add(rotation: &str, person: &str, from_s: i64, until_s: i64) -> Command {
    Command::Override(OverrideChange::Add {
        rotation: rotation.to_owned(),
        person: person.to_owned(),
        from: Some(START.plus_secs(from_s)),
        until: START.plus_secs(until_s),
        why: "a wedding".to_owned(),
    })
}

pub(super) fn end(number: u64) -> Command {
    Command::Override(OverrideChange::End { number })
}

fn on_call(chain: &Chain, rotation: &str, second: i64) -> Option<String> {
    let overrides = chain.state.incidents().unwrap().overrides();
    let found = chain.rules.oncall().rota().on_call(rotation, overrides, START.plus_secs(second));
    found.map(|(person, _)| person.name.clone())
}

/// Every second at which somebody else comes, within two weeks.
fn turns(chain: &Chain, rotation: &str) -> Vec<(i64, Option<String>)> {
    let mut turns: Vec<(i64, Option<String>)> = Vec::new();
    for second in (0..14 * DAY).step_by(900) {
        let who = on_call(chain, rotation, second);
        if turns.last().is_none_or(|(_, last)| *last != who) {
            turns.push((second, who));
        }
    }
    turns
}

fn opening(chain: &mut Chain, second: i64) -> (String, Option<String>) {
    let command = fires("errors", Severity::Sev1, "http");
    let (decision, _) = chain.act(START.plus_secs(second), &command);
    let Decision::Seal(sealing) = decision else { panic!("it opens an incident") };
    let draft = sealing.drafts.last().unwrap();
    let roll = draft.metadata.iter().find(|(key, _)| key == "oncall");
    let roll = roll.map(|(_, value)| match value {
        Meta::Text(roll) => roll.to_string(),
        other => panic!("{other:?}"),
    });
    (tell(draft), roll)
}

#[test]
fn at_every_instant_of_two_weeks_one_person_is_primary_and_hands_over_at_nine() {
    let chain = chain(STEPS);
    let turns = turns(&chain, "primary");
    // The first hand-over was on January 1 at 9: fourteen turns later it is cyd's.
    let order = ["bob", "cyd", "ada"];
    let expected: Vec<(i64, Option<String>)> = (0..15)
        .map(|turn: usize| {
            let second = if turn == 0 { 0 } else { HAND_OVER + (turn as i64 - 1) * DAY };
            (second, Some(order[turn % 3].to_owned()))
        })
        .collect();
    assert_eq!(turns, expected);
    // To the second.
    assert_eq!(on_call(&chain, "primary", HAND_OVER - 1).as_deref(), Some("bob"));
    assert_eq!(on_call(&chain, "primary", HAND_OVER).as_deref(), Some("cyd"));
    assert_eq!(on_call(&chain, "primary", -15 * DAY), None, "before its start");
    assert_eq!(on_call(&chain, "unknown", 0), None);
}

#[test]
fn the_first_layer_that_somebody_is_on_counts_also_over_midnight() {
    let turns = turns(&chain(STEPS), "backup");
    let at = |hour: i64| hour * 3_600 - 8 * 3_600;
    assert_eq!(turns[0], (0, None), "the second layer has not begun");
    assert_eq!(turns[1], (at(22), Some("bob".to_owned())));
    assert_eq!(turns[2], (at(30), Some("cyd".to_owned())));
    assert_eq!(turns[3], (at(46), Some("bob".to_owned())));
}

#[test]
fn an_override_wins_while_it_lasts_and_the_newest_of_several() {
    let mut chain = chain(STEPS);
    chain.act(START, &add("primary", "cyd", 600, 1_200));
    chain.act(START, &add("primary", "ada", 900, 1_000));
    let who = |chain: &Chain, second| on_call(chain, "primary", second).unwrap();
    let at =
        |chain: &Chain| [599, 600, 899, 900, 999, 1_000, 1_199, 1_200].map(|at| who(chain, at));
    assert_eq!(at(&chain), ["bob", "cyd", "cyd", "ada", "ada", "cyd", "cyd", "bob"]);
    assert_eq!(on_call(&chain, "backup", 700), None, "of another rotation");
    chain.act(START.plus_secs(10), &end(2));
    assert_eq!(at(&chain), ["bob", "cyd", "cyd", "cyd", "cyd", "cyd", "cyd", "bob"]);
    let bytes = chain.state.to_snapshot();
    assert_eq!(StreamState::from_snapshot(&chain.stream, &bytes).as_ref(), Some(&chain.state));
    // It ends by itself, and on record.
    assert_eq!(
        pass(&mut chain, 1_200),
        [(1_200, "oncall.override_over".to_owned(), String::new())]
    );
    assert!(chain.state.incidents().unwrap().overrides().is_empty());
    // Numbers are never used twice.
    chain.act(START.plus_secs(1_300), &add("primary", "cyd", 1_300, 1_400));
    assert_eq!(chain.state.incidents().unwrap().overrides()[0].name(), "OVR-3");
}

#[test]
fn who_is_paged_is_whoever_is_on_call_at_that_moment_and_stands_in_the_receipt() {
    let mut chain = chain(STEPS);
    // Before nine it is bob's, who hands over to cyd within the ladder.
    let (told, roll) = opening(&mut chain, HAND_OVER - 200);
    assert_eq!((&*told, roll.as_deref()), ("slack,phone-bob,secondary-desk", Some("primary=bob")));
    let seen = pass(&mut chain, HAND_OVER + 600);
    // Nobody is backup: the commander is told at once, in its place.
    assert_eq!(
        pages(&seen),
        [(HAND_OVER + 100, "phone-cyd"), (HAND_OVER + 400, "pagerduty-commander")]
    );
    let receipt = View::scan(chain.cores.last().unwrap()).unwrap();
    assert_eq!(receipt.meta_text("oncall").as_deref(), Some("backup="));
    assert_eq!(chain.state.next_due(), Some(START.plus_secs(HAND_OVER + 700)), "the next update");
}

#[test]
fn an_override_is_paged_in_the_place_of_whose_turn_it_is() {
    let mut chain = chain(STEPS);
    chain.act(START, &add("primary", "ada", 0, 400));
    let (told, roll) = opening(&mut chain, 100);
    assert_eq!((&*told, roll.as_deref()), ("slack,phone-ada", Some("primary=ada")));
    // It is over when the next step is due: the turn counts again.
    let seen = pass(&mut chain, 400);
    assert_eq!(pages(&seen), [(400, "phone-bob,secondary-desk")]);
    assert_eq!(seen[0].1, "oncall.override_over");
}

#[test]
fn a_step_that_calls_nobody_is_left_at_once_and_those_behind_move_up() {
    for missing in ["nobody", "silent"] {
        let steps = format!(
            "{{ after_s = 0, tell = [\"chat\", \"{missing}\"] }},\n\
             {{ after_s = 300, tell = [\"primary\"], unless = \"acknowledged\" }},\n\
             {{ after_s = 900, tell = [\"commander\"] }},"
        );
        let mut chain = chain(&steps);
        let (told, roll) = opening(&mut chain, 0);
        assert_eq!(told, "slack,phone-bob,secondary-desk", "{missing}");
        assert_eq!(roll, Some(format!("{missing}=,primary=bob")), "{missing}");
        assert_eq!(pages(&pass(&mut chain, 900)), [(600, "pagerduty-commander")], "{missing}");
        let policy = chain.rules.oncall();
        let steps = policy.steps_at(Severity::Sev1, START);
        assert_eq!(steps[0], ["slack", "phone-bob", "secondary-desk"], "{missing}");
        assert_eq!((steps.len(), &*steps[1][0]), (2, "pagerduty-commander"), "{missing}");
    }
}

/// A ladder whose last step names these.
fn ladder_to(last: &str) -> String {
    format!(
        "{{ after_s = 0, tell = [\"chat\", \"primary\"] }},\n\
         {{ after_s = 900, tell = [{last}] }},"
    )
}

#[test]
fn where_a_ladder_ends_with_nobody_those_before_are_called_again_and_the_timeline_says_so() {
    for (last, told, roll) in [
        ("\"nobody\"", "slack,phone-bob,secondary-desk", "nobody=,primary=bob"),
        ("\"silent\"", "slack,phone-bob,secondary-desk", "silent=,primary=bob"),
        ("\"chat\", \"nobody\"", "slack,phone-bob,secondary-desk", "nobody=,primary=bob"),
    ] {
        let mut chain = chain(&ladder_to(last));
        opening(&mut chain, 0);
        assert_eq!(pages(&pass(&mut chain, 900)), [(900, told)], "{last}");
        let cores: Vec<_> = chain.cores.iter().map(|core| View::scan(core).unwrap()).collect();
        let receipt = cores.iter().rfind(|receipt| receipt.meta("oncall").is_some()).unwrap();
        assert_eq!(receipt.meta_text("oncall").as_deref(), Some(roll), "{last}");
        assert_eq!(receipt.meta_text("stand_in").as_deref(), Some("before"), "{last}");
        let mut story = crate::incident::Story::new(1);
        cores.iter().for_each(|receipt| story.take(receipt));
        let said = story.moments().iter().rfind(|moment| moment.rule == "incident.escalate");
        let text = &said.unwrap().text;
        assert!(
            text.ends_with("nobody is on call there, and those before are called again"),
            "{text}"
        );
        let steps = chain.rules.oncall().steps_at(Severity::Sev1, START);
        assert_eq!(steps[1], ["slack", "phone-bob", "secondary-desk"], "{last}");
    }
}

#[test]
fn where_nobody_of_a_ladder_is_on_call_every_channel_is_told() {
    let mut chain =
        chain("{ after_s = 0, tell = [\"nobody\"] }, { after_s = 60, tell = [\"silent\"] },");
    let (told, roll) = opening(&mut chain, 0);
    assert_eq!((&*told, roll.as_deref()), (&*CHANNELS.join(","), Some("nobody=,silent=")));
    assert_eq!(pages(&pass(&mut chain, 900)), []);
    let steps = chain.rules.oncall().steps_at(Severity::Sev1, START);
    assert_eq!(steps, [CHANNELS]);
}

#[test]
fn whoever_stands_in_wakes_somebody_and_so_does_what_is_left_of_a_ladder() {
    let steps = r#"{ after_s = 0, tell = ["chat"] }, { after_s = 60, tell = ["silent"] },"#;
    for (set_up, shown, told, then) in [
        (["slack", "mail"], &[] as &[&str], "slack", vec![(60, "slack")]),
        // What only shows how things stand wakes nobody.
        (["slack", "mail"], &["slack"], "slack", vec![(60, "mail")]),
        // Nothing of the ladder is set up.
        (["page", "mail"], &["page"], "mail", vec![]),
        (["page", "mail"], &[], "page,mail", vec![]),
    ] {
        let mut chain = Chain::new(limits::STREAM_INCIDENTS);
        let steps =
            if set_up[0] == "slack" { steps } else { &steps[..steps.find("}").unwrap() + 2] };
        chain.rules = Rules::parse(&catalogue(steps)).unwrap().with_channels(&set_up, shown);
        let what = format!("{set_up:?} {shown:?}");
        assert_eq!(opening(&mut chain, 0).0, told, "{what}");
        let passed = pass(&mut chain, 900);
        let paged = pages(&passed);
        let paged: Vec<_> = paged.iter().map(|(at, told)| (*at, &**told)).collect();
        assert_eq!(paged, then, "{what}");
    }
}

#[test]
fn an_override_by_whom_no_channel_reaches_counts_for_nothing() {
    let mut chain = chain(STEPS);
    chain.act(START, &add("primary", "cyd", 0, 600));
    assert_eq!(on_call(&chain, "primary", 0).as_deref(), Some("cyd"));
    // Another catalogue, or a channel less.
    let channels = CHANNELS.map(|name| if name == "phone-cyd" { "mail" } else { name });
    chain.rules = Rules::parse(&catalogue(STEPS)).unwrap().with_channels(&channels, &[]);
    assert_eq!(on_call(&chain, "primary", 0).as_deref(), Some("bob"));
}

#[test]
fn where_no_fallback_is_there_every_other_channel_stands_in() {
    let mut chain = Chain::new(limits::STREAM_INCIDENTS);
    let text = catalogue(STEPS).replacen("fallback = [\"primary\"]", "fallback = [\"nobody\"]", 1);
    chain.rules = Rules::parse(&text).unwrap().with_channels(&["slack", "phone-bob"], &[]);
    opening(&mut chain, 0);
    let lost = on(1, IncidentDeed::Unreachable { channel: "phone-bob".to_owned() });
    let (Decision::Seal(sealing), _) = chain.act(START.plus_secs(9), &lost) else { panic!() };
    assert_eq!(tell(&sealing.drafts[0]), "slack");
}

#[test]
fn whoever_is_on_call_stands_in_for_a_channel_and_not_for_their_own() {
    let mut chain = chain(STEPS);
    opening(&mut chain, 0);
    let lost = |channel: &str| on(1, IncidentDeed::Unreachable { channel: channel.to_owned() });
    let told = |chain: &mut Chain, channel| match chain.act(START.plus_secs(9), &lost(channel)).0 {
        Decision::Seal(sealing) => tell(&sealing.drafts[0]),
        other => panic!("{other:?}"),
    };
    assert_eq!(told(&mut chain, "slack"), "phone-bob,secondary-desk");
    assert_eq!(told(&mut chain, "phone-bob"), "secondary-desk");
}

#[test]
fn an_override_that_is_not_lawful_is_refused() {
    let mut chain = chain(STEPS);
    let rejected = |chain: &Chain, command: &Command| match chain.decide(START, command) {
        Decision::Reject(rejection) => rejection.detail,
        other => panic!("{other:?}"),
    };
    for (command, detail) in [
        (add("unknown", "ada", 0, 9), "rotation is none of the catalogue"),
        (add("primary", "zoe", 0, 9), "who is nobody of the catalogue"),
        (add("primary", "eve", 0, 9), "who is reached by no channel that is set up"),
        (add("primary", "ada", 9, 9), "until is over, not after from, or more than a year away"),
        (add("primary", "ada", -9, -1), "until is over, not after from, or more than a year away"),
        (
            add("primary", "ada", 0, limits::AHEAD_S_MAX + 1),
            "until is over, not after from, or more than a year away",
        ),
    ] {
        assert_eq!(rejected(&chain, &command), detail);
    }
    assert!(chain.show(0, &end(1)).contains("there is no such override"));
    for _ in 0..limits::OVERRIDES {
        chain.act(START, &add("primary", "ada", 0, 9));
    }
    assert!(chain.show(0, &add("primary", "ada", 0, 9)).contains("as many overrides as may be"));
    assert!(chain.show(9, &end(1)).contains("there is no such override"), "its time is over");
}

#[test]
fn a_rota_that_is_wrong_is_refused_with_its_place() {
    let layer = "{ start = 2027-01-01T00:00:00Z, hand_over = 09:00:00, shift_h = 24, order = [\"ada\", \"bob\", \"cyd\"] }";
    for (find, replace, message) in [
        (
            "order = [\"ada\"",
            "order = [\"zoe\"",
            "oncall.rotations.primary.layers.order must be a list of at most 64 names out of oncall.people",
        ),
        (
            "09:00:00",
            "\"09:00\"",
            "oncall.rotations.primary.layers.hand_over must be a time of day, such as 09:00:00",
        ),
        (
            "start = 2027-01-01T00:00:00Z, hand",
            "start = 2027-01-01T00:00:00+01:00, hand",
            "oncall.rotations.primary.layers.start must be an instant in UTC without fractions, such as 2026-11-23T09:00:00Z",
        ),
        (
            "start = 2027-01-01T00:00:00Z, hand",
            "start = 2027-01-01, hand",
            "oncall.rotations.primary.layers.start must be an instant in UTC without fractions, such as 2026-11-23T09:00:00Z",
        ),
        (
            "start = 2027-01-01T00:00:00Z, hand",
            "hand",
            "lacks oncall.rotations.primary.layers.start",
        ),
        (
            "shift_h = 168",
            "shift_h = 0",
            "oncall.rotations.backup.layers.shift_h must be hours, 1 to 2016",
        ),
        (
            "[22:00:00, 06:00:00]",
            "[22:00:00, 22:00:00]",
            "oncall.rotations.backup.layers.hours must be two different times of day, such as [09:00:00, 17:00:00]",
        ),
        (layer, "", "oncall.rotations.primary.layers must be a list of tables"),
        ("hours = ", "hour = ", "unknown key oncall.rotations.backup.layers.hour"),
        (
            "[oncall.rotations.nobody]",
            "[oncall.rotations.chat]",
            "oncall.rotations must be rotations whose names are of no target",
        ),
        ("\"phone-ada\"", "7", "oncall.people.ada must be 1 to 64 letters, digits and . _ : -"),
        (
            "tell = [\"primary\"]",
            "tell = [\"primry\"]",
            "oncall.sev1.steps.tell must be a list of targets and rotations",
        ),
    ] {
        let text = catalogue(STEPS);
        let changed = text.replacen(find, replace, 1);
        assert_ne!(changed, text, "{find}");
        let error = Rules::parse(&changed).unwrap_err().to_string();
        assert!(error.contains(message), "{find}: {error}");
    }
}

#[test]
fn without_a_rota_the_watched_steps_are_the_ladder_of_the_runbooks() {
    let rules = Rules::builtin().unwrap();
    let policy = rules.oncall();
    let ladder: Vec<_> = policy.ladder(Severity::Sev1).iter().map(|step| &step.tell).collect();
    assert!(ladder.iter().all(|tell| tell.rotations.is_empty()));
    let channels: Vec<_> = ladder.iter().map(|tell| tell.channels.clone()).collect();
    assert_eq!(policy.steps_at(Severity::Sev1, START), channels);
    assert!(policy.reach(Severity::Sev1).contains(&"pagerduty-executive".to_owned()));
}

proptest! {
    #[test]
    fn somebody_is_on_call_from_the_start_on_and_only_a_hand_over_changes_that(
        hour in 0..24_i64,
        shift_h in 1..200_i64,
        people in 1..4_usize,
        (hours, offset) in (0..1_440_i64, 0..2_i64),
    ) {
        let second = hours * 3_600 + offset;
        let order = &["\"ada\"", "\"bob\"", "\"cyd\""][..people];
        let layer = format!(
            "shift_h = {shift_h}, hand_over = {hour:02}:00:00, order = [{}]",
            order.join(", ")
        );
        let text = catalogue(STEPS).replacen(
            "hand_over = 09:00:00, shift_h = 24, order = [\"ada\", \"bob\", \"cyd\"]",
            &layer,
            1,
        );
        let rules = Rules::parse(&text).unwrap();
        let rota = rules.oncall().rota();
        let who = |at| rota.on_call("primary", &[], at).map(|(person, _)| person.name.clone());
        let begin = Micros::from_secs(START.secs() - 14 * DAY - 8 * 3_600);
        prop_assert!(who(begin.plus_secs(-1)).is_none());
        let at = begin.plus_secs(second);
        prop_assert!(who(at).is_some());
        let since = second - hour * 3_600;
        let is_hand_over = since > 0 && since % (shift_h * 3_600) == 0 && people > 1;
        prop_assert_eq!(second > 0 && who(at) != who(at.plus_secs(-1)), is_hand_over);
    }
}
