//! Live settings and blocked sources: the tables, the laws, and what must not fold.
//!
//! Owns: how each state is reached. Refuses to know: which settings there are.

use std::collections::BTreeMap;

use ledger::Kind;
use proptest::prelude::*;
use types::{Reason, limits};

use super::*;

/// When the tables ask; states are reached before it.
const ASK: i64 = 50;
const SOURCE: &str = "192.0.2.0/24";

pub(super) fn set(name: &str, value: &str) -> Command {
    let (name, value) = (name.to_owned(), value.to_owned());
    Command::Setting(SettingChange::Set { name, value, lease_s: None })
}

fn lease(name: &str, value: &str, lease_s: i64) -> Command {
    let (name, value) = (name.to_owned(), value.to_owned());
    Command::Setting(SettingChange::Set { name, value, lease_s: Some(lease_s) })
}

fn clear(name: &str) -> Command {
    Command::Setting(SettingChange::Clear { name: name.to_owned() })
}

pub(super) fn block(source: &str, lease_s: i64) -> Command {
    Command::Source(SourceChange::Block { source: source.to_owned(), lease_s })
}

fn unblock(source: &str) -> Command {
    Command::Source(SourceChange::Unblock { source: source.to_owned() })
}

fn live() -> Chain {
    Chain::new(limits::STREAM_SETTINGS)
}

#[test]
fn every_setting_meets_every_change() {
    let mut out = String::new();
    for (name, steps) in [
        ("default", vec![]),
        ("live", vec![(0, set("RATE", "5"))]),
        ("leased", vec![(0, lease("RATE", "7", 100))]),
        ("leased over live", vec![(0, set("RATE", "5")), (1, lease("RATE", "7", 100))]),
        ("lease over", vec![(0, lease("RATE", "7", 20))]),
        ("lease over, live below", vec![(0, set("RATE", "5")), (1, lease("RATE", "7", 20))]),
        ("cleared", vec![(0, set("RATE", "5")), (1, clear("RATE"))]),
    ] {
        let chain = live().after(&steps);
        for (what, command) in [
            ("set", set("RATE", "9")),
            ("lease", lease("RATE", "9", 60)),
            ("clear", clear("RATE")),
            ("set another", set("BURST", "9")),
            ("tick", Command::Tick),
        ] {
            out += &format!("{name} × {what}\n{}", chain.show(ASK, &command));
        }
    }
    insta::assert_snapshot!("settings", out);
}

#[test]
fn every_source_meets_every_change() {
    let mut out = String::new();
    for (name, steps) in [
        ("open", vec![]),
        ("blocked", vec![(0, block(SOURCE, 100))]),
        ("block over", vec![(0, block(SOURCE, 20))]),
        ("unblocked", vec![(0, block(SOURCE, 100)), (1, unblock(SOURCE))]),
    ] {
        let chain = live().after(&steps);
        for (what, command) in [
            ("block for longer", block(SOURCE, 3_600)),
            ("block for less", block(SOURCE, 1)),
            ("unblock", unblock(SOURCE)),
            ("unblock another", unblock("192.0.2.1")),
            ("tick", Command::Tick),
        ] {
            out += &format!("{name} × {what}\n{}", chain.show(ASK, &command));
        }
    }
    insta::assert_snapshot!("sources", out);
}

#[test]
fn the_form_of_a_live_change() {
    let most = "\"".repeat(limits::METADATA_VALUE_CHARS);
    let more = "é".repeat(limits::METADATA_VALUE_CHARS + 1);
    let day = limits::LEASE_S_MAX;
    for (name, command) in [
        ("the longest value", set("RATE", &most)),
        ("no value", set("RATE", "")),
        ("the shortest lease", lease("RATE", "5", 1)),
        ("the longest lease", lease("RATE", "5", day)),
        ("the shortest block", block(SOURCE, 1)),
        ("the longest block", block(SOURCE, day)),
    ] {
        let (decision, _) = live().act(START, &command);
        assert!(matches!(decision, Decision::Seal(_)), "{name}");
    }
    let mut out = String::new();
    for (name, command) in [
        ("a longer value", set("RATE", &more)),
        ("a value with a line break", set("RATE", "a\nb")),
        ("a value that is a credential", set("RATE", "sk_live_abc")),
        ("a value that is a key", set("RATE", " taik__keys.abc")),
        ("no name", set("", "5")),
        ("a longer name", set(&more, "5")),
        ("a name with a control character", clear("RATE\u{7f}")),
        ("no lease", lease("RATE", "5", 0)),
        ("a longer lease", lease("RATE", "5", day + 1)),
        ("no source", block("", 60)),
        ("a longer source", unblock(&"1".repeat(65))),
        ("a source with a line break", unblock("a\nb")),
        ("no block", block(SOURCE, 0)),
        ("a longer block", block(SOURCE, day + 1)),
    ] {
        out += &format!("{name}\n{}", live().show(ASK, &command));
    }
    insta::assert_snapshot!("live_form", out);
}

#[test]
fn what_is_live_is_told_with_its_ends() {
    let chain = live().after(&[
        (0, set("RATE", "5")),
        (0, lease("RATE", "7", 100)),
        (0, lease("BURST", "9", 50)),
        (0, set("ZONE", "\"a\\b\"")),
        (0, block("192.0.2.1", 60)),
        (0, block("198.51.100.0/24", 10)),
    ]);
    let state = chain.state.live().unwrap();
    let told: Vec<_> = state.values().map(|v| (v.name, v.kept, v.lease)).collect();
    let at = |second| START.plus_secs(second);
    assert_eq!(
        told,
        [
            ("BURST", None, Some(("9", at(50)))),
            ("RATE", Some("5"), Some(("7", at(100)))),
            ("ZONE", Some("\"a\\b\""), None),
        ]
    );
    let blocked: Vec<_> = state.sources().collect();
    assert_eq!(blocked, [("192.0.2.1", at(60)), ("198.51.100.0/24", at(10))]);
    assert_eq!(chain.state.next_due(), Some(at(10)));
    assert!(Chain::tenant().state.live().is_none() && Chain::new("_ops").state.live().is_none());
}

#[test]
fn a_tick_ends_the_oldest_leases_first_and_a_bounded_number() {
    let mut chain = live().after(&[
        (0, lease("RATE", "7", 30)),
        (0, block("a", 20)),
        (0, lease("BURST", "7", 10)),
        (0, block("b", 40)),
    ]);
    let Decision::Seal(sealing) = chain.decide(START.plus_secs(39), &Command::Tick) else {
        panic!("three are due");
    };
    let order: Vec<_> = sealing.drafts.iter().map(|d| d.subject.as_deref().unwrap()).collect();
    assert_eq!(order, ["BURST", "a", "RATE"]);

    for n in 0..150 {
        chain.act(START, &block(&format!("192.0.2.{n}"), 60));
    }
    let mut ended = Vec::new();
    while let (Decision::Seal(sealing), _) = chain.act(START.plus_secs(60), &Command::Tick) {
        ended.push(sealing.drafts.len());
    }
    assert_eq!(ended, [64, 64, 26]);
    assert_eq!(chain.state, live().state, "nothing is left of what has ended");
}

#[test]
fn no_more_is_blocked_than_the_limit_and_what_is_over_makes_room() {
    let source = |n: usize| format!("2001:db8::{n:x}");
    let mut chain = live();
    chain.act(START, &block(&source(0), 20));
    for n in 1..limits::SOURCES_BLOCKED {
        chain.act(START, &block(&source(n), 100));
    }
    let (another, refused) = (block("another", 60), |second, command: &Command| {
        match chain.decide(START.plus_secs(second), command) {
            Decision::Seal(sealing) => {
                let first = sealing.drafts[0].subject.as_deref().map(str::to_owned);
                (first, sealing.drafts[sealing.primary].reason.clone())
            }
            other => panic!("expected receipts, got {other:?}"),
        }
    });
    let code = || Some(Reason::StateError.code().into());
    assert_eq!(refused(19, &another), (Some("another".to_owned()), code()));
    assert_eq!(refused(19, &block(&source(7), 60)), (Some(source(7)), None), "held already");
    assert_eq!(refused(20, &another), (Some(source(0)), None), "the end of the first, then it");
    chain.act(START.plus_secs(20), &another);
    let blocked = chain.state.live().map(|state| state.sources().count());
    assert_eq!(blocked, Some(limits::SOURCES_BLOCKED));
}

#[test]
fn no_more_settings_are_live_than_the_limit() {
    let mut chain = live();
    for n in 0..200 {
        chain.act(START, &set(&format!("S{n}"), "5"));
    }
    for command in [set("ANOTHER", "5"), lease("ANOTHER", "5", 60)] {
        let refused = drafts(&chain, &command).remove(0);
        assert_eq!(refused.reason.as_deref(), Some(Reason::StateError.code()));
    }
    assert_eq!(drafts(&chain, &lease("S7", "6", 60))[0].reason, None, "held already");
    chain.act(START, &clear("S7"));
    assert_eq!(drafts(&chain, &set("ANOTHER", "5"))[0].reason, None);
}

#[test]
fn live_receipts_that_cannot_follow_are_refused_and_leave_no_trace() {
    let field = |field| Err(FoldError::Field { field });
    let leased = || live().after(&[(0, lease("RATE", "7", 100)), (0, block(SOURCE, 100))]);
    let later = START.plus_secs(100);
    let of = |chain: &Chain, now, command| match chain.decide(now, &command) {
        Decision::Seal(sealing) => sealing.drafts,
        other => panic!("expected receipts, got {other:?}"),
    };
    let set_first = of(&live(), START, set("RATE", "5")).remove(0);
    let leased_first = of(&live(), START, lease("RATE", "5", 60)).remove(0);
    let blocked_first = of(&live(), START, block(SOURCE, 60)).remove(0);
    for draft in [&set_first, &leased_first, &blocked_first] {
        assert_eq!(fold(&mut live(), draft), Ok(()));
        assert_eq!(fold(&mut leased(), draft), Err(FoldError::StateFrom));
        let nameless = Draft { subject: None, ..draft.clone() };
        assert_eq!(fold(&mut live(), &nameless), field("subject"));
        let unheard = Draft { rule: Some("settings.unheard".into()), ..draft.clone() };
        assert_eq!(fold(&mut live(), &unheard), Err(FoldError::UnknownRule));
        for kind in [Kind::ActionAttempt, Kind::ActionResult] {
            let other = Draft { kind, ..draft.clone() };
            assert_eq!(fold(&mut live(), &other), Err(FoldError::UnknownRule));
        }
        let mut chain = leased();
        let refused = Draft { kind: Kind::Refusal, ..draft.clone() };
        assert_eq!(fold(&mut chain, &refused), Ok(()));
        assert_eq!(chain.state, leased().state, "a refusal changes nothing");
    }
    for draft in [&set_first, &leased_first] {
        let valueless = Draft { metadata: Vec::new(), ..draft.clone() };
        assert_eq!(fold(&mut live(), &valueless), field("value"));
        let elsewhere = Draft { state_to: Some("default".into()), ..draft.clone() };
        assert_eq!(fold(&mut live(), &elsewhere), field("state_to"));
    }
    for draft in [&leased_first, &blocked_first] {
        let endless = Draft { expires_at: None, ..draft.clone() };
        assert_eq!(fold(&mut live(), &endless), field("expires_at"));
    }

    // Ends: of nothing, and of what is not over yet.
    let ends = of(&leased(), later, Command::Tick);
    let cleared = of(&leased(), START, clear("RATE")).remove(0);
    let unblocked = of(&leased(), START, unblock(SOURCE)).remove(0);
    for draft in [&ends[0], &ends[1], &cleared, &unblocked] {
        for from in ["default", "open", "leased", "blocked"] {
            let forged = Draft { state_from: Some(from.into()), ..draft.clone() };
            assert_eq!(fold(&mut live(), &forged), Err(FoldError::StateFrom), "from {from}");
        }
    }
    for draft in &ends {
        assert_eq!(fold(&mut leased(), draft), Err(FoldError::StateFrom), "before its time");
    }
}

#[test]
fn a_snapshot_of_live_changes_that_does_not_fit_is_no_snapshot() {
    let chain = live().after(&[
        (0, set("RATE", "5")),
        (0, lease("BURST", "7", 100)),
        (0, block("a", 100)),
        (0, block("b", 100)),
    ]);
    let text = String::from_utf8(chain.state.to_snapshot()).unwrap();
    let read = |text: &str| StreamState::from_snapshot(&chain.stream, text.as_bytes());
    assert_eq!(read(&text), Some(chain.state.clone()));
    for (find, replace) in [
        ("\"BURST\"", "\"RATE\""),
        ("\"BURST\"", "\"TATE\""),
        ("\"kept\":\"5\"", "\"kept\":null"),
        ("\"source\":\"a\"", "\"source\":\"b\""),
        ("\"source\":\"a\"", "\"source\":\"c\""),
        ("\"until\"", "\"unti\""),
        ("\"settings\":{", "\"tenant\":{"),
    ] {
        let changed = text.replacen(find, replace, 1);
        assert_ne!(changed, text, "{find}");
        assert_eq!(read(&changed), None, "{find} as {replace}");
    }
    for end in 0..text.len() {
        assert_eq!(read(&text[..end]), None, "cut at {end}");
    }
}

#[test]
fn receipts_of_live_changes_say_what_they_touch() {
    let mut chain = live();
    let mut said = Vec::new();
    for (second, command) in [
        (0, set("RATE", "5")),
        (0, lease("RATE", "7", 10)),
        (0, block(SOURCE, 10)),
        (10, Command::Tick),
        (10, clear("RATE")),
        (10, clear("RATE")),
        (10, block(SOURCE, 10)),
        (10, block(SOURCE, 20)),
        (10, unblock(SOURCE)),
    ] {
        let before = chain.cores.len();
        chain.act(START.plus_secs(second), &command);
        for core in &chain.cores[before..] {
            let view = View::scan(core).unwrap();
            let refused = view.kind == Kind::Refusal;
            assert_eq!(touches(&view), (!refused).then_some(Touch::Live));
            said.extend(transition_labels(&view));
        }
    }
    assert_eq!(
        said,
        [
            ("settings", "default", "live"),
            ("settings", "live", "leased"),
            ("sources", "open", "blocked"),
            ("settings", "leased", "live"),
            ("sources", "blocked", "open"),
            ("settings", "live", "default"),
            ("sources", "open", "blocked"),
            ("sources", "blocked", "open"),
        ]
    );
}

#[derive(Debug, Clone)]
enum Ask {
    Set { name: usize, value: u8, lease_s: Option<i64> },
    Clear { name: usize },
    Block { source: usize, lease_s: i64 },
    Unblock { source: usize },
    Tick,
}

const NAMES: [&str; 3] = ["BURST", "RATE", "ZONE"];
const SOURCES: [&str; 3] = ["192.0.2.1", "192.0.2.2", "2001:db8::/32"];

impl Ask {
    fn command(&self) -> Command {
        match *self {
            Ask::Set { name, value, lease_s: None } => set(NAMES[name], &value.to_string()),
            Ask::Set { name, value, lease_s: Some(s) } => lease(NAMES[name], &value.to_string(), s),
            Ask::Clear { name } => clear(NAMES[name]),
            Ask::Block { source, lease_s } => block(SOURCES[source], lease_s),
            Ask::Unblock { source } => unblock(SOURCES[source]),
            Ask::Tick => Command::Tick,
        }
    }
}

fn ask() -> impl Strategy<Value = Ask> {
    let lease_s = prop::option::weighted(0.6, 0..20_i64);
    prop_oneof![
        4 => (0..3_usize, 0..4_u8, lease_s)
            .prop_map(|(name, value, lease_s)| Ask::Set { name, value, lease_s }),
        1 => (0..3_usize).prop_map(|name| Ask::Clear { name }),
        3 => (0..3_usize, 0..20_i64)
            .prop_map(|(source, lease_s)| Ask::Block { source, lease_s }),
        1 => (0..3_usize).prop_map(|source| Ask::Unblock { source }),
        1 => Just(Ask::Tick),
    ]
}

/// What holds, by the commands and the clock alone: no receipt and no tick changes it.
#[derive(Debug, Default)]
struct Model {
    kept: BTreeMap<String, String>,
    leased: BTreeMap<String, (String, i64)>,
    blocked: BTreeMap<String, i64>,
}

impl Model {
    fn take(&mut self, command: &Command, now: Micros) {
        self.leased.retain(|_, (_, until)| *until > now.secs());
        self.blocked.retain(|_, until| *until > now.secs());
        match command {
            Command::Setting(SettingChange::Set { name, value, lease_s: None }) => {
                self.leased.remove(name);
                self.kept.insert(name.clone(), value.clone());
            }
            Command::Setting(SettingChange::Set { name, value, lease_s: Some(lease_s) })
                if *lease_s > 0 =>
            {
                self.leased.insert(name.clone(), (value.clone(), now.secs() + lease_s));
            }
            Command::Setting(SettingChange::Clear { name }) => {
                self.leased.remove(name);
                self.kept.remove(name);
            }
            Command::Source(SourceChange::Block { source, lease_s }) if *lease_s > 0 => {
                self.blocked.insert(source.clone(), now.secs() + lease_s);
            }
            Command::Source(SourceChange::Unblock { source }) => {
                self.blocked.remove(source);
            }
            _ => {}
        }
    }

    /// Each setting's value now.
    fn values(&self) -> BTreeMap<String, String> {
        let leased = self.leased.iter().map(|(name, (value, _))| (name.clone(), value.clone()));
        let mut values = self.kept.clone();
        values.extend(leased);
        values
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn every_history_of_live_changes_keeps_the_laws(
        history in prop::collection::vec((0..6_000_000_i64, ask()), 1..60),
    ) {
        let mut chain = live();
        let mut model = Model::default();
        let mut now = START;
        for (step_us, ask) in &history {
            // Never before what was sealed, as the engine has it.
            now = Micros(now.0 + step_us + 100);
            let command = ask.command();
            prop_assert_eq!(chain.decide(now, &command), chain.decide(now, &command));
            chain.act(now, &command);
            model.take(&command, now);
            let state = chain.state.live().unwrap();
            let values: BTreeMap<String, String> = state
                .values()
                .filter_map(|told| {
                    let leased = told.lease.filter(|(_, until)| now < *until);
                    let value = leased.map(|(value, _)| value).or(told.kept)?;
                    Some((told.name.to_owned(), value.to_owned()))
                })
                .collect();
            prop_assert_eq!(values, model.values());
            let blocked: BTreeMap<String, i64> = state
                .sources()
                .filter(|(_, until)| now < *until)
                .map(|(source, until)| (source.to_owned(), until.secs()))
                .collect();
            prop_assert_eq!(&blocked, &model.blocked);
            let read = StreamState::from_snapshot(&chain.stream, &chain.state.to_snapshot());
            prop_assert_eq!(read.as_ref(), Some(&chain.state));
        }
        let mut again = StreamState::empty(&chain.stream);
        for core in &chain.cores {
            again.apply(&View::scan(core).unwrap()).unwrap();
        }
        prop_assert_eq!(&again, &chain.state, "folding from the beginning");
        // Time alone comes to rest: each tick at the due instant leaves only later ones.
        while let Some(due) = chain.state.next_due() {
            now = Micros(now.0 + 100).max(due);
            let (decision, _) = chain.act(now, &Command::Tick);
            prop_assert!(decision != Decision::Nothing, "due and nothing to do");
            prop_assert!(chain.state.next_due().is_none_or(|next| next > now), "a spin");
        }
        prop_assert_eq!(chain.decide(now, &Command::Tick), Decision::Nothing);
        let state = chain.state.live().unwrap();
        prop_assert!(state.values().all(|told| told.kept.is_some() && told.lease.is_none()));
        prop_assert_eq!(state.sources().count(), 0);
    }
}
