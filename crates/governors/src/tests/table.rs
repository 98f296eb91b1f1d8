//! Every state × every command, as text under `snapshots/`.
//!
//! Owns: how each state is reached. Refuses to know: what the right answer is; that is what the
//! committed snapshots say and a reviewer reads.

use EntitlementAction::{Grant, Resume, Revoke, Suspend};
use OutcomeStatus::{Error, Success, Timeout, Unknown};
use types::{Reason, Severity, limits};

use super::*;

const ACTIONS: [EntitlementAction; 4] = [Grant, Revoke, Suspend, Resume];
/// When the tables ask; states are reached before it.
const ASK: i64 = 50;

fn on(id: &str, action: EntitlementAction) -> Command {
    Command::Entitlement(change(id, action))
}

fn with(action: EntitlementAction, effective: Option<i64>, expires: Option<i64>) -> Command {
    let at = |second: Option<i64>| second.map(|second| START.plus_secs(second));
    let change = change("ent-1", action);
    Command::Entitlement(EntitlementChange {
        effective_at: at(effective),
        expires_at: at(expires),
        ..change
    })
}

fn now(action: EntitlementAction) -> Command {
    with(action, None, None)
}

fn quote() -> Command {
    Command::Quote { charge: false }
}

/// The ways to every phase, without what time does.
fn phases() -> Vec<(&'static str, Vec<(i64, Command)>)> {
    vec![
        ("unentitled", vec![(0, quote())]),
        ("entitled", vec![(0, now(Grant))]),
        ("suspended", vec![(0, now(Grant)), (1, now(Suspend))]),
        ("revoked", vec![(0, now(Grant)), (1, now(Revoke))]),
    ]
}

/// Phases, and beside them those with something scheduled, due or expired.
fn entitlement_states() -> Vec<(String, Vec<(i64, Command)>)> {
    let mut states: Vec<(String, Vec<(i64, Command)>)> = vec![("unregistered".into(), vec![])];
    for (name, steps) in phases() {
        states.push((name.into(), steps.clone()));
        for (scheduled, second) in [("scheduled", 100), ("due", 20)] {
            for action in ACTIONS {
                let mut steps = steps.clone();
                steps.push((2, with(action, Some(second), None)));
                let chain = Chain::tenant().after(&steps);
                if chain.state.next_due().is_some() {
                    states.push((format!("{name}, {} {scheduled}", action.as_str()), steps));
                }
            }
        }
    }
    let lapsing = (0, with(Grant, None, Some(20)));
    states.push(("entitled, expired".into(), vec![lapsing.clone()]));
    states.push(("suspended, expired".into(), vec![lapsing.clone(), (1, now(Suspend))]));
    states.push((
        "entitled, expired, then revoke due".into(),
        vec![lapsing.clone(), (1, with(Revoke, Some(30), None))],
    ));
    states.push((
        "entitled, expired in the second that revoke is due".into(),
        vec![lapsing, (1, with(Revoke, Some(20), None))],
    ));
    states.push((
        "unentitled, grant due and expired".into(),
        vec![(0, with(Grant, Some(20), Some(30)))],
    ));
    states
}

#[test]
fn every_entitlement_state_meets_every_change() {
    let mut out = String::new();
    for (name, steps) in entitlement_states() {
        let chain = Chain::tenant().after(&steps);
        for action in ACTIONS {
            for (when, command) in [
                ("now", now(action)),
                ("since +40", with(action, Some(40), None)),
                ("from +200", with(action, Some(200), None)),
                ("until +300", with(action, None, Some(300))),
                ("until +50", with(action, None, Some(50))),
                ("from +200 until +200", with(action, Some(200), Some(200))),
                ("from +200 until +300", with(action, Some(200), Some(300))),
            ] {
                out += &format!("{name} × {} {when}\n", action.as_str());
                out += &chain.show(ASK, &command);
            }
        }
        out += &format!("{name} × tick\n{}", chain.show(ASK, &Command::Tick));
    }
    insta::assert_snapshot!("entitlement", out);
}

#[test]
fn plans_and_metadata_of_a_change() {
    let named = |id: &str, action, plan: Option<&str>| {
        let plan = plan.map(str::to_owned);
        Command::Entitlement(EntitlementChange { plan, ..change(id, action) })
    };
    let noted = |entries: &[(&str, &str)]| {
        let metadata =
            entries.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect();
        Command::Entitlement(EntitlementChange { metadata, ..change("ent-1", Grant) })
    };
    let long = "x".repeat(500);
    let many: Vec<(&str, &str)> = (0..17).map(|at| (&long[at..], "v")).collect();
    let fresh = Chain::tenant().after(&[(0, quote())]);
    let held = Chain::tenant().after(&[(0, named("ent-1", Grant, Some("enterprise")))]);
    let mut out = String::new();
    for (name, chain, command) in [
        ("named by alias", &fresh, named("ent-1", Grant, Some("base"))),
        ("named by the entitlement", &fresh, named("professional", Grant, None)),
        ("not named", &fresh, named("ent-1", Grant, None)),
        ("not in the catalogue", &fresh, named("ent-1", Grant, Some("secret"))),
        ("held, on a suspension", &held, named("ent-1", Suspend, None)),
        ("another than held, on a suspension", &held, named("ent-1", Suspend, Some("starter"))),
        ("metadata", &fresh, noted(&[("order_id", "17"), ("plan", "of \"ours\"")])),
        ("metadata key", &fresh, noted(&[("order id", "secret")])),
        ("metadata key empty", &fresh, noted(&[("", "secret")])),
        ("metadata repeated", &fresh, noted(&[("a", "secret"), ("a", "secret")])),
        ("metadata of a credential's name", &fresh, noted(&[("a", "b"), ("X-Api.Key", "secret")])),
        ("metadata with a Stripe key", &fresh, noted(&[("a", "sk_live_secret")])),
        ("metadata with a bearer", &fresh, noted(&[("a", "bearer secret")])),
        ("metadata with PEM", &fresh, noted(&[("a", "-----BEGIN secret")])),
        ("metadata entries", &fresh, noted(&many)),
        ("metadata bytes", &fresh, noted(&[("a", &"\"".repeat(4_090))])),
    ] {
        out += &format!("{name}\n{}", chain.show(ASK, &command));
    }
    assert!(!out.contains("secret"), "a refusal repeats what it refuses");
    insta::assert_snapshot!("change_details", out);
}

/// The ways to every phase of the signal governor, ending with the gate open.
fn signal_phases() -> Vec<(&'static str, Vec<(i64, Command)>)> {
    let grant = (0, now(Grant));
    vec![
        ("boot", vec![grant.clone()]),
        ("stable", vec![grant.clone(), (10, signal(10, None))]),
        ("warning", vec![grant.clone(), (10, signal(70, None))]),
        ("intervening", vec![grant.clone(), (10, signal(90, None))]),
        (
            "intervening, two waiting",
            vec![grant, (10, signal(90, None)), (11, signal(99, None)), (12, signal(70, None))],
        ),
        ("refusing", vec![(0, quote()), (5, signal(90, None)), (6, now(Grant))]),
    ]
}

#[test]
fn every_signal_phase_meets_every_signal() {
    let mut out = String::new();
    out += "unregistered × calm\n";
    out += &Chain::tenant().show(ASK, &signal(10, None));
    for (name, steps) in signal_phases() {
        let open = Chain::tenant().after(&steps);
        let shut = Chain::tenant().after(&steps).after(&[(20, now(Suspend))]);
        let lapsed = Chain::tenant().after(&steps).after(&[(20, with(Suspend, Some(45), None))]);
        for (what, chain, command) in [
            ("gate shut", &shut, signal(90, None)),
            ("gate shut by time alone", &lapsed, signal(90, None)),
            ("calm", &open, signal(60, None)),
            ("warn", &open, signal(61, None)),
            ("warn, the last", &open, signal(80, None)),
            ("intervene", &open, signal(81, None)),
            ("measured earlier", &open, signal(81, Some(9))),
            ("measured in the same second", &open, signal(81, Some(10))),
            ("measured in the future", &open, signal(10, Some(1_000))),
        ] {
            out += &format!("{name} × {what}\n{}", chain.show(ASK, &command));
        }
    }
    insta::assert_snapshot!("signal", out);
}

#[test]
fn every_outcome_meets_everything_that_may_wait() {
    let flying = |waiting: &[(i64, Command)]| {
        Chain::tenant().after(&[(0, now(Grant)), (10, signal(90, None))]).after(waiting)
    };
    let states = [
        ("nothing waits", flying(&[])),
        ("calm waits", flying(&[(11, signal(99, None)), (12, signal(10, None))])),
        ("warn waits", flying(&[(11, signal(70, None))])),
        ("intervene waits", flying(&[(11, signal(85, None)), (12, signal(99, None))])),
        ("gate shut, nothing waits", flying(&[(11, now(Suspend))])),
        ("gate shut, intervene waits", flying(&[(11, signal(99, None)), (12, now(Suspend))])),
    ];
    let mut out = String::new();
    for (name, chain) in &states {
        for status in [Success, Error, Timeout, Unknown] {
            out += &format!("{name} × {}\n", status.as_str());
            out += &chain.show(ASK, &settle(chain, status));
        }
    }
    let mut settled = flying(&[]);
    let command = settle(&settled, Success);
    settled.act(START.plus_secs(20), &command);
    out += &format!("settled before × success\n{}", settled.show(ASK, &command));
    let other = settle(&settled, Success);
    out += &format!("in flight × another attempt\n{}", states[0].1.show(ASK, &other));
    out += &format!("unregistered × success\n{}", Chain::tenant().show(ASK, &other));
    insta::assert_snapshot!("settle", out);
}

/// A tenant whose throttle holds from +20 until +80.
fn throttled() -> Chain {
    let mut chain = Chain::tenant().after(&[(0, now(Grant)), (10, signal(90, None))]);
    let command = settle(&chain, Success);
    chain.act(START.plus_secs(20), &command);
    chain
}

#[test]
fn calls_and_time() {
    let charge = Command::Quote { charge: true };
    let stranger = || Chain { may_register: false, ..Chain::tenant() };
    let two = [(0, on("professional", Grant)), (1, on("enterprise", Grant))];
    let mut suspended = two.to_vec();
    suspended.push((2, on("enterprise", Suspend)));
    // Due at +30, and nothing has ticked since.
    let due = |steps: &[(i64, Command)], id: &str, action| {
        let effective_at = Some(START.plus_secs(30));
        let change = EntitlementChange { effective_at, ..change(id, action) };
        Chain::tenant().after(steps).after(&[(5, Command::Entitlement(change))])
    };
    let mut out = String::new();
    for (name, chain, second, command) in [
        ("unregistered × quote", Chain::tenant(), ASK, quote()),
        ("unregistered × charge", Chain::tenant(), ASK, charge.clone()),
        ("unregistered × quote of a stranger", stranger(), ASK, quote()),
        ("unregistered × grant of a stranger", stranger(), ASK, now(Grant)),
        ("unregistered × tick", Chain::tenant(), ASK, Command::Tick),
        ("no entitlement × quote", Chain::tenant().after(&[(0, quote())]), ASK, quote()),
        ("no entitlement × charge", Chain::tenant().after(&[(0, quote())]), ASK, charge.clone()),
        ("no plan × quote", Chain::tenant().after(&[(0, now(Grant))]), ASK, quote()),
        ("two plans × quote", Chain::tenant().after(&two), ASK, quote()),
        ("the dearer suspended × quote", Chain::tenant().after(&suspended), ASK, quote()),
        ("grant due × quote", due(&[], "enterprise", Grant), ASK, quote()),
        ("one plan, dearer grant due × quote", due(&two[..1], "enterprise", Grant), ASK, quote()),
        ("the dearer's revocation due × quote", due(&two, "enterprise", Revoke), ASK, quote()),
        (
            "the dearer's resumption due × quote",
            due(&suspended, "enterprise", Resume),
            ASK,
            quote(),
        ),
        ("grant scheduled × quote", due(&[], "enterprise", Grant), 29, quote()),
        ("throttled, no call yet × quote", throttled(), 21, quote()),
        ("throttled × quote at once", throttled().after(&[(21, quote())]), 21, quote()),
        ("throttled × charge at once", throttled().after(&[(21, charge.clone())]), 21, charge),
        ("throttled × quote after it", throttled().after(&[(21, quote())]), 22, quote()),
        ("throttle over × quote at once", throttled().after(&[(80, quote())]), 80, quote()),
        ("throttled × tick", throttled(), 79, Command::Tick),
        ("throttle over × tick", throttled(), 80, Command::Tick),
    ] {
        out += &format!("{name}\n{}", chain.show(second, &command));
    }
    insta::assert_snapshot!("account", out);
}

#[test]
fn every_stream_takes_its_own_commands_only() {
    let mut out = String::new();
    let refused = || Command::Refused {
        reason: Reason::PayloadTooLarge,
        endpoint: "/pubsub",
        count: u64::MAX,
        window_s: 10,
    };
    let unregistered = Chain::tenant().show(ASK, &refused());
    out += &format!("unregistered × refused\n{unregistered}");
    let streams = limits::SYSTEM_STREAMS.into_iter().chain(["_other", "tenant-123"]);
    for stream in streams {
        let mut chain = Chain::new(stream);
        let commands = [
            ("grant", now(Grant)),
            ("quote", quote()),
            ("signal", signal(90, None)),
            ("settle", settle(&chain, Success)),
            ("reserve", Command::Reserve(budget::call(&["gpt-4o-mini"], 1_000, (1, 100)))),
            ("top up", Command::TopUp { attempt: ReceiptId([0; 16]), output: 1 }),
            (
                "charge",
                Command::Charge {
                    attempt: ReceiptId([0; 16]),
                    charge: budget::used(Success, types::Usage::default()),
                },
            ),
            ("budget", budget::set(Some(1), Some(1), Period::Day)),
            ("tick", Command::Tick),
            ("untenanted", Command::Untenanted { signal: "test".to_owned() }),
            ("refused", refused()),
            ("key", keys::issue(1)),
            ("setting", live::set("RATE", "5")),
            ("source", live::block("192.0.2.0/24", 60)),
            ("note", Command::Note { event: "start", detail: "version 0.1.0".to_owned() }),
            ("alert", incidents::fires("errors", Severity::Sev1, "http")),
            ("incident", incidents::on(1, IncidentDeed::Acknowledge)),
            ("silence", incidents::silence("rule=errors", 60)),
            ("override", duty::end(1)),
            ("maintenance", maintenance::end(1)),
            ("notice", incidents::begin("slack", 3)),
        ];
        for (name, command) in commands {
            let (decision, _) = chain.act(START, &command);
            out += &format!("{stream} × {name}\n{}", show(&decision));
        }
        assert_eq!(chain.state.in_flight().is_some(), stream == "tenant-123");
    }
    insta::assert_snapshot!("streams", out);
}
