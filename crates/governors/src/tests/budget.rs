//! Calls to models: the tables of gates, grants and results, and what must not fold.
//!
//! Owns: how each state is reached. Refuses to know: the shipped prices; those here are so round
//! that a reader can add them up.

use OutcomeStatus::{Error, Success, Timeout, Unknown};
use types::{Operation, Reason, Usage, limits};

use super::*;

/// When the tables ask; states are reached before it.
const ASK: i64 = 50;
/// Seconds from [`START`], 2027-01-15T08:00:00Z, to midnight, and to the first of February.
pub(super) const MIDNIGHT: i64 = 16 * 3_600;
const NEXT_MONTH: i64 = 16 * 86_400 + MIDNIGHT;

/// A token of `cheap` costs a micro in the prompt and two in the answer; starter may spend 10 000
/// micros a month, in five calls.
const CATALOGUE: &str = r#"
version = "t-1"
currency = "USD"
default_plan = "starter"
[plans.starter]
aliases = []
price_minor_per_month = 100
features = []
models = ["m-*", "echo"]
calls_per_month = 5
spend_per_month_minor = 1
[plans.open]
aliases = []
price_minor_per_month = 200
features = []
[models.cheap]
input = "1"
output = "2"
[models.dear]
input = "2"
cache_write = "3"
output = "10"
[models.echo]
input = "0"
output = "0"
[signals.default]
warn_above = 60
intervene_above = 80
action = "throttle"
throttle_min_interval_ms = 1000
throttle_lease_s = 60
[signals.severity]
info = 0
"#;

pub(super) fn tenant() -> Chain {
    Chain { rules: Rules::parse(CATALOGUE).unwrap(), ..Chain::tenant() }
}

pub(super) fn granted(plan: &str) -> Chain {
    let grant = Command::Entitlement(change(plan, EntitlementAction::Grant));
    tenant().after(&[(0, grant)])
}

pub(super) fn call(prices: &[&str], input_max: u64, output: (u64, u64)) -> Reserve {
    Reserve {
        operation: Operation::Chat,
        model: "m-1".to_owned(),
        prices: prices.iter().map(|name| (*name).to_owned()).collect(),
        input_max,
        output_floor: output.0,
        output_wish: output.1,
    }
}

/// A call that costs 1 000 micros at most, of which 500 are for the answer.
fn small() -> Command {
    Command::Reserve(call(&["cheap"], 500, (10, 250)))
}

pub(super) fn used(status: OutcomeStatus, usage: Usage) -> Charge {
    Charge {
        status,
        usage,
        is_estimated: false,
        price: "cheap".to_owned(),
        provider: "openai".to_owned(),
        model: "cheap-2026-01-01".to_owned(),
        tries: 1,
        duration_ms: 12,
    }
}

fn tokens(input: u64, output: u64) -> Usage {
    Usage { input, output, ..Usage::default() }
}

/// The call that was opened first, or one that nobody opened.
fn first(chain: &Chain) -> ReceiptId {
    chain.state.reservations().next().unwrap_or(ReceiptId([0; 16]))
}

fn settled(chain: &Chain, status: OutcomeStatus) -> Command {
    let outcome = Outcome { status, duration_ms: 12, tries: 2 };
    Command::Settle { attempt: first(chain), outcome }
}

fn charged(chain: &Chain, input: u64, output: u64) -> Command {
    Command::Charge { attempt: first(chain), charge: used(Success, tokens(input, output)) }
}

pub(super) fn set(calls: Option<u64>, spend_micros: Option<i64>, period: Period) -> Command {
    Command::Budget(BudgetChange::Set { calls, spend_micros, period })
}

const CLEAR: Command = Command::Budget(BudgetChange::Clear);

/// One call that used `micros`, an even number, at `second`.
fn spend(chain: Chain, second: i64, micros: u64) -> Chain {
    let mut chain = chain;
    let now = START.plus_secs(second);
    chain.act(now, &Command::Reserve(call(&["cheap"], 0, (micros / 2, micros / 2))));
    let charge = charged(&chain, 0, micros / 2);
    chain.act(now, &charge);
    chain
}

fn states() -> Vec<(&'static str, Chain)> {
    let registered = || tenant().after(&[(0, Command::Quote { charge: false })]);
    let suspend = Command::Entitlement(change("starter", EntitlementAction::Suspend));
    let fresh = || granted("starter");
    vec![
        ("unregistered", tenant()),
        ("unregistered, a stranger asks", Chain { may_register: false, ..tenant() }),
        ("unentitled", registered()),
        ("suspended", granted("starter").after(&[(1, suspend)])),
        ("entitled", fresh()),
        ("no limits", granted("open")),
        ("one open", fresh().after(&[(1, small())])),
        ("five open", fresh().after(&[1, 2, 3, 4, 5].map(|second| (second, small())))),
        ("9 000 spent", spend(fresh(), 1, 9_000)),
        ("9 000 spent, one open", spend(fresh(), 1, 9_000).after(&[(2, small())])),
        ("all spent, one open", spend(fresh().after(&[(1, small())]), 2, 9_000)),
        ("own limit of 700 a day", fresh().after(&[(1, set(None, Some(700), Period::Day))])),
        ("own limits of nothing", fresh().after(&[(1, set(Some(0), Some(0), Period::Ever))])),
        ("own limits, none", fresh().after(&[(1, set(None, None, Period::Ever))])),
    ]
}

#[test]
fn every_state_meets_every_call() {
    let mut out = String::new();
    let reserve = |call| Command::Reserve(call);
    for (name, chain) in states() {
        for (what, command) in [
            ("small call", small()),
            ("longer than affordable", reserve(call(&["cheap"], 500, (10, 90_000)))),
            ("floor above affordable", reserve(call(&["cheap"], 500, (80_000, 90_000)))),
            ("prompt above affordable", reserve(call(&["cheap"], 90_000, (0, 0)))),
            ("dearest of two targets", reserve(call(&["cheap", "dear"], 100, (10, 20)))),
            ("free", reserve(call(&["echo"], 500, (10, 250)))),
            ("a target without price", reserve(call(&["cheap", "none"], 1, (1, 1)))),
            (
                "embeddings",
                reserve(Reserve {
                    operation: Operation::Embeddings,
                    ..call(&["cheap"], 100, (0, 0))
                }),
            ),
            (
                "another model",
                reserve(Reserve { model: "x-1".to_owned(), ..call(&["cheap"], 1, (1, 1)) }),
            ),
        ] {
            out += &format!("{name} × {what}\n{}", chain.show(ASK, &command));
        }
    }
    insta::assert_snapshot!("reserve", out);
}

#[test]
fn every_state_meets_every_result() {
    let mut out = String::new();
    for (name, chain) in states() {
        let attempt = first(&chain);
        let charge = |charge| Command::Charge { attempt, charge };
        let all = Usage::of([1, 2, 3, 4, 5, 6, 7, 8]);
        let odd = Charge {
            provider: "a\nb".to_owned(),
            model: String::new(),
            price: "none".to_owned(),
            is_estimated: true,
            duration_ms: -1,
            ..used(Error, tokens(7, 8))
        };
        for (what, command) in [
            ("used less", charge(used(Success, tokens(200, 100)))),
            ("used every bucket", charge(used(Success, all))),
            ("failed and used", charge(used(Error, tokens(200, 0)))),
            ("used more than reserved", charge(used(Success, tokens(500, 300)))),
            ("used more than there is", charge(used(Success, tokens(u64::MAX, u64::MAX)))),
            ("unpriced and odd", charge(odd)),
            ("success, use unknown", settled(&chain, Success)),
            ("error", settled(&chain, Error)),
            ("timeout", settled(&chain, Timeout)),
            ("unknown", settled(&chain, Unknown)),
            ("top up 100", Command::TopUp { attempt, output: 100 }),
            ("top up of all", Command::TopUp { attempt, output: limits::CALL_TOKENS }),
            ("top up of nothing", Command::TopUp { attempt, output: 0 }),
            ("set", set(Some(3), Some(500), Period::Day)),
            ("set none", set(None, None, Period::Month)),
            ("clear", CLEAR),
        ] {
            out += &format!("{name} × {what}\n{}", chain.show(ASK, &command));
        }
    }
    insta::assert_snapshot!("settled", out);
}

#[test]
fn what_has_no_form_is_not_decided() {
    let chain = granted("starter");
    let plain = call(&["cheap"], 1, (1, 1));
    let named = |model: &str| Reserve { model: model.to_owned(), ..plain.clone() };
    let most = limits::CALL_TOKENS;
    for (what, asked) in [
        ("no model", named("")),
        ("a long model", named(&"m".repeat(129))),
        ("a control character", named("m-\n")),
        ("a credential", named("sk_live_0123456789")),
        ("no targets", call(&[], 1, (1, 1))),
        ("many targets", call(&["cheap"; 17], 1, (1, 1))),
        ("a long prompt", call(&["cheap"], most + 1, (1, 1))),
        ("a long answer", call(&["cheap"], 1, (1, most + 1))),
        ("a floor above the wish", call(&["cheap"], 1, (2, 1))),
    ] {
        let Decision::Reject(rejection) = chain.decide(START, &Command::Reserve(asked)) else {
            panic!("{what} is decided");
        };
        assert_eq!(rejection.reason, Reason::InvalidField, "{what}");
    }
    let fits = Reserve { model: "m".repeat(128), ..call(&["cheap"; 16], most, (most, most)) };
    assert!(matches!(chain.decide(START, &Command::Reserve(fits)), Decision::Seal(_)));
    for output in [0, most + 1] {
        let command = Command::TopUp { attempt: first(&chain), output };
        assert!(matches!(chain.decide(START, &command), Decision::Reject(_)), "{output}");
    }
    for command in [
        set(Some(1 << 53), None, Period::Day),
        set(None, Some(1 << 53), Period::Day),
        set(None, Some(-1), Period::Day),
    ] {
        assert!(matches!(chain.decide(START, &command), Decision::Reject(_)), "{command:?}");
    }
}

#[test]
fn open_calls_are_bounded_without_a_receipt() {
    let mut chain = granted("open");
    let now = START.plus_secs(1);
    for _ in 0..limits::RESERVATIONS_PER_TENANT {
        chain.act(now, &small());
    }
    assert_eq!(chain.state.reservations().count(), limits::RESERVATIONS_PER_TENANT);
    let Decision::Reject(rejection) = chain.decide(now, &small()) else {
        panic!("one more is decided");
    };
    assert_eq!((rejection.reason, rejection.retry_after_s), (Reason::RateLimitExceeded, Some(1)));
    let read = StreamState::from_snapshot(&chain.stream, &chain.state.to_snapshot());
    assert_eq!(read.as_ref(), Some(&chain.state));
    let command = settled(&chain, Error);
    chain.act(now, &command);
    assert!(matches!(chain.decide(now, &small()), Decision::Seal(_)), "one has ended");
}

#[test]
fn a_period_begins_with_nothing_settled_and_with_what_is_open() {
    let looked = |chain: &Chain, second| {
        let view = chain.state.ai(START.plus_secs(second), &chain.rules).unwrap();
        let limits = (view.calls, view.spent_micros, view.open_calls, view.reserved_micros);
        (limits, view.level, view.invoice.models.len())
    };
    let mut chain = spend(granted("starter"), 1, 9_000).after(&[(2, small())]);
    assert_eq!(looked(&chain, NEXT_MONTH - 1), ((1, 9_000, 1, 1_000), Level::Critical, 1));
    assert_eq!(looked(&chain, NEXT_MONTH), ((0, 0, 1, 1_000), Level::Ok, 0));
    // All that is left is 9 000, because the open call counts until it is settled.
    let rest = Command::Reserve(call(&["cheap"], 0, (4_500, 90_000)));
    assert_eq!(drafts_at(&chain, NEXT_MONTH, &rest)[0].kind, ledger::Kind::ActionAttempt);
    let more = Command::Reserve(call(&["cheap"], 0, (4_501, 90_000)));
    let refused = drafts_at(&chain, NEXT_MONTH, &more).remove(0);
    assert_eq!(refused.reason.as_deref(), Some(Reason::BudgetExceeded.code()));
    // It is charged to the month in which it is settled.
    let charge = charged(&chain, 500, 250);
    chain.act(START.plus_secs(NEXT_MONTH), &charge);
    assert_eq!(looked(&chain, NEXT_MONTH), ((1, 1_000, 0, 0), Level::Ok, 1));

    // By the day, and without end: neither change of period forgets what was used.
    chain.act(START.plus_secs(NEXT_MONTH), &set(Some(9), Some(9_999), Period::Day));
    assert_eq!(looked(&chain, NEXT_MONTH).0, (1, 1_000, 0, 0));
    assert_eq!(looked(&chain, NEXT_MONTH + 86_400).0, (0, 0, 0, 0));
    chain.act(START.plus_secs(NEXT_MONTH), &set(Some(9), Some(9_999), Period::Ever));
    assert_eq!(looked(&chain, NEXT_MONTH + 1_000 * 86_400).0, (2, 10_000, 0, 0));
    assert_eq!(looked(&chain, NEXT_MONTH).1, Level::Exceeded);
    chain.act(START.plus_secs(NEXT_MONTH), &CLEAR);
    assert_eq!(looked(&chain, NEXT_MONTH).0, (1, 1_000, 0, 0));
}

fn drafts_at(chain: &Chain, second: i64, command: &Command) -> Vec<Draft> {
    match chain.decide(START.plus_secs(second), command) {
        Decision::Seal(sealing) => sealing.drafts,
        other => panic!("expected receipts, got {other:?}"),
    }
}

#[test]
fn levels_are_told_when_they_are_crossed() {
    let mut chain = granted("starter").after(&[(0, set(None, Some(10_000), Period::Day))]);
    let mut said = Vec::new();
    for (second, micros) in [
        (1, 7_498),
        (2, 2),
        (3, 1_498),
        (4, 2),
        (5, 1_000),
        // Time alone says nothing; the first result of the new day is measured from the start.
        (MIDNIGHT, 200),
        (MIDNIGHT + 1, 9_000),
    ] {
        let before = chain.cores.len();
        chain = spend(chain, second, micros);
        for core in &chain.cores[before..] {
            said.extend(transition_labels(&View::scan(core).unwrap()));
        }
    }
    assert_eq!(
        said,
        [
            ("budget", "ok", "warning"),
            ("budget", "warning", "critical"),
            ("budget", "critical", "exceeded"),
            ("budget", "ok", "critical"),
        ]
    );
    // By calls as by money, whichever is higher; a limit of nothing is used up.
    for (calls, level) in
        [(0, Level::Exceeded), (2, Level::Exceeded), (3, Level::Ok), (4, Level::Ok)]
    {
        let now = START.plus_secs(MIDNIGHT + 2);
        chain.act(now, &set(Some(calls), None, Period::Day));
        assert_eq!(chain.state.ai(now, &chain.rules).unwrap().level, level, "of {calls} calls");
    }
}

/// Midnight may lie between the result and the crossing that it led to, because the committer gives
/// each receipt a later instant.
#[test]
fn a_crossing_belongs_to_the_period_of_its_result() {
    let mut chain = granted("starter").after(&[(0, set(None, Some(1_000), Period::Day))]);
    let last = Micros(START.plus_secs(MIDNIGHT).0 - 1);
    chain.act(last, &small());
    let command = charged(&chain, 500, 250);
    let Decision::Seal(sealing) = chain.decide(last, &command) else { panic!("it is open") };
    for (nth, draft) in sealing.drafts.iter().enumerate() {
        let at = Micros(last.0 + nth as i64);
        let sealed = seal(&LedgerId([7; 16]), &chain.stream, &chain.head, at, draft).unwrap();
        chain.head = chain.head.after(&sealed);
        chain.state.apply(&View::scan(&sealed.core).unwrap()).unwrap();
    }
    assert_eq!(sealing.drafts[1].state_to.as_deref(), Some("exceeded"));
    let at = |now| chain.state.ai(now, &chain.rules).unwrap();
    assert_eq!((at(last).spent_micros, at(last).level), (1_000, Level::Exceeded));
    let next = Micros(last.0 + 1);
    assert_eq!((at(next).spent_micros, at(next).level), (0, Level::Ok));
}

#[test]
fn an_invoice_adds_up_and_names_no_more_models_than_it_may() {
    let mut chain = granted("open");
    let now = START.plus_secs(1);
    for n in 0..limits::MODELS_PER_TENANT + 5 {
        let model = format!("m-{n:03}");
        chain.act(now, &Command::Reserve(Reserve { model, ..call(&["none"], 5, (5, 5)) }));
        let charge = Charge { price: "none".to_owned(), ..used(Success, tokens(3, 2)) };
        chain.act(now, &Command::Charge { attempt: first(&chain), charge });
    }
    // Priced ones go by the name of their price; those of unknown use by the name asked for.
    chain.act(now, &small());
    let unknown = settled(&chain, Unknown);
    chain.act(now, &unknown);
    chain.act(now, &small());
    let charge = charged(&chain, 500, 100);
    chain.act(now, &charge);
    let view = chain.state.ai(now, &chain.rules).unwrap();
    let models = &view.invoice.models;
    assert_eq!(models.len(), limits::MODELS_PER_TENANT + 1);
    let other = models.iter().find(|model| model.name == "other").unwrap();
    assert_eq!((other.calls, other.usage, other.micros), (7, tokens(515, 110), 1_700));
    let calls: u64 = models.iter().map(|model| model.calls).sum();
    assert_eq!(view.calls + view.unknown_calls, calls);
    let lines: i64 = models.iter().map(|model| model.micros).sum();
    assert_eq!((view.spent_micros, view.unknown_micros, lines), (700, 1_000, 1_700));
    assert_eq!((view.invoice.plan_minor, view.invoice.plan_micros), (200, 2_000_000));
    assert_eq!(view.invoice.total_micros, 2_001_700);
    let read = StreamState::from_snapshot(&chain.stream, &chain.state.to_snapshot());
    assert_eq!(read.as_ref(), Some(&chain.state));
}

#[test]
fn limits_are_the_plans_unless_the_tenant_has_its_own() {
    let now = START.plus_secs(10);
    let limits = |chain: &Chain| chain.state.ai(now, &chain.rules).unwrap().limits;
    let plan = limits(&granted("starter"));
    assert_eq!((plan.calls, plan.spend_micros), (Some(5), Some(10_000)));
    assert_eq!((plan.period, plan.source), (Period::Month, LimitSource::Plan));
    assert_eq!(limits(&granted("open")).source, LimitSource::None);
    let own = granted("starter").after(&[(1, set(None, Some(7), Period::Day))]);
    let Limits { calls, spend_micros, period, source } = limits(&own);
    assert_eq!((calls, spend_micros), (None, Some(7)));
    assert_eq!((period, source), (Period::Day, LimitSource::Own));
    assert_eq!(limits(&own.after(&[(2, CLEAR)])), plan);
    assert_eq!(tenant().state.ai(now, &tenant().rules), None);
    assert_eq!(Chain::new("_ops").state.ai(now, &tenant().rules), None);
}

/// INV-9 and the rest, where they are read.
#[test]
fn receipts_of_calls_that_cannot_follow_are_refused_and_leave_no_trace() {
    let field = |field| Err(FoldError::Field { field });
    let open = || granted("starter").after(&[(0, small())]);
    let reserved = drafts(&granted("starter"), &small()).remove(0);
    for (key, value, result) in [
        ("reserved_micros", 10_000, Ok(())),
        ("reserved_micros", 10_001, Err(FoldError::OverLimit)),
        ("calls_limit", 0, Err(FoldError::OverLimit)),
        ("spend_limit_micros", 999, Err(FoldError::OverLimit)),
        ("spend_limit_micros", 1_000, Ok(())),
        ("reserved_micros", -1, field("reserved_micros")),
        ("output_max", limits::CALL_TOKENS.cast_signed() + 1, field("output_max")),
        ("output_price", -1, field("output_price")),
    ] {
        assert_eq!(fold(&mut granted("starter"), &with(&reserved, key, value)), result, "{key}");
    }
    for draft in [
        Draft { subject: None, ..reserved.clone() },
        Draft { action: "ai.sing".into(), ..reserved },
    ] {
        assert!(matches!(fold(&mut granted("starter"), &draft), Err(FoldError::Field { .. })));
    }

    let chain = open();
    let attempt = first(&chain);
    let top_up = drafts(&chain, &Command::TopUp { attempt, output: 5 }).remove(0);
    let charge = drafts(&chain, &charged(&chain, 500, 250)).remove(0);
    let settle = drafts(&chain, &settled(&chain, Unknown)).remove(0);
    for draft in [&top_up, &charge, &settle] {
        assert_eq!(fold(&mut granted("starter"), draft), Err(FoldError::NotReserved));
        let stranger = Draft { intent: Some(ReceiptId([1; 16])), ..draft.clone() };
        assert_eq!(fold(&mut open(), &stranger), Err(FoldError::NotReserved));
        assert_eq!(fold(&mut open(), &Draft { intent: None, ..draft.clone() }), field("intent"));
        let unheard = Draft { rule: Some("budget.unheard".into()), ..draft.clone() };
        assert_eq!(fold(&mut open(), &unheard), Err(FoldError::UnknownRule));
        let refused = Draft { kind: ledger::Kind::Refusal, ..draft.clone() };
        let mut chain = open();
        assert_eq!(fold(&mut chain, &refused), Ok(()));
        assert_eq!(chain.state, open().state, "a refusal changes nothing");
    }
    for draft in [&charge, &settle] {
        let mut chain = open();
        assert_eq!(fold(&mut chain, draft), Ok(()));
        assert_eq!(fold(&mut chain, draft), Err(FoldError::NotReserved), "a second result");
        assert_eq!(fold(&mut open(), &with(draft, "cost_micros", -1)), field("cost_micros"));
        let odd = Draft { status: Some("odd".into()), ..draft.clone() };
        assert_eq!(fold(&mut open(), &odd), field("status"));
    }
    assert_eq!(fold(&mut open(), &with(&charge, "input_tokens", -1)), field("input_tokens"));
    let over = with(&top_up, "reserved_micros", 10_001);
    assert_eq!(fold(&mut open(), &over), Err(FoldError::OverLimit));
    for (key, value) in [("output_max", 250), ("reserved_micros", 999)] {
        assert_eq!(fold(&mut open(), &with(&top_up, key, value)), field("output_max"), "{key}");
    }
}

#[test]
fn receipts_of_limits_that_cannot_follow_are_refused_and_leave_no_trace() {
    let field = |field| Err(FoldError::Field { field });
    let own = || granted("starter").after(&[(0, set(Some(3), Some(500), Period::Day))]);
    let set_first = drafts(&granted("starter"), &set(Some(3), Some(500), Period::Day)).remove(0);
    let cleared = drafts(&own(), &CLEAR).remove(0);
    assert_eq!(fold(&mut own(), &set_first), Err(FoldError::StateFrom));
    assert_eq!(fold(&mut granted("starter"), &cleared), Err(FoldError::StateFrom));
    assert_eq!(fold(&mut own(), &cleared), Ok(()));
    for (key, value, named) in [("calls", -1, "calls"), ("spend_micros", -1, "calls")] {
        let draft = with(&set_first, key, value);
        assert_eq!(fold(&mut granted("starter"), &draft), field(named));
    }
    let endless = Draft { metadata: Vec::new(), ..set_first };
    assert_eq!(fold(&mut granted("starter"), &endless), field("period"));

    let chain =
        granted("starter").after(&[(0, Command::Reserve(call(&["cheap"], 0, (5_000, 5_000))))]);
    let crossing = drafts(&chain, &charged(&chain, 0, 5_000)).remove(1);
    assert_eq!(crossing.state_to.as_deref(), Some("exceeded"));
    assert_eq!(fold(&mut granted("starter"), &crossing), Err(FoldError::NotReserved));
    let from = Draft { state_from: Some("critical".into()), ..crossing.clone() };
    assert_eq!(fold(&mut own(), &from), Err(FoldError::StateFrom));
    let to = Draft { state_to: Some("high".into()), ..crossing };
    assert_eq!(fold(&mut own(), &to), field("state_to"));
}

fn with(draft: &Draft, key: &str, value: i64) -> Draft {
    let mut draft = draft.clone();
    let entry = draft.metadata.iter_mut().find(|(name, _)| name == key);
    match entry {
        Some((_, old)) => *old = Meta::Int(value),
        None => draft.metadata.push((key.to_owned().into(), Meta::Int(value))),
    }
    draft
}

#[test]
fn a_snapshot_of_calls_that_does_not_fit_is_no_snapshot() {
    let mut chain = spend(granted("starter"), 1, 2_000);
    let steps = [(2, set(Some(9), Some(9_000), Period::Day)), (3, small()), (4, small())];
    chain = chain.after(&steps);
    let text = String::from_utf8(chain.state.to_snapshot()).unwrap();
    let read = |text: &str| StreamState::from_snapshot(&chain.stream, text.as_bytes());
    assert_eq!(read(&text), Some(chain.state.clone()));
    let [one, two] = [0, 1].map(|nth| chain.state.reservations().nth(nth).unwrap().to_string());
    for (find, replace) in [
        (&*one, &*two),
        (&*two, "rcpt_00000000000000000000000000000000"),
        ("\"operation\":\"chat\"", "\"operation\":\"sing\""),
        ("\"model\":\"m-1\"", "\"model\":\"\""),
        ("\"micros\":1000", "\"micros\":-1"),
        ("\"output\":250", "\"output\":1000000001"),
        ("\"output_price\":2000000", "\"output_price\":1000000000001"),
        ("\"day\":20833", "\"day\":-1"),
        ("\"of_day\":{\"calls\":1", "\"of_day\":{\"calls\":2"),
        ("\"ever\":{\"calls\":1", "\"ever\":{\"calls\":0"),
        ("\"over_micros\":0", "\"over_micros\":2001"),
        ("\"name\":\"cheap\"", "\"name\":\"\""),
        ("[0,0,0,1000,0,0,0,0]", "[0,0,0,1000,0,0,0]"),
        ("\"calls\":1,\"micros\":2000", "\"calls\":2,\"micros\":2000"),
        ("\"spend_micros\":9000", "\"spend_micros\":-9000"),
        ("\"period\":\"day\"", "\"period\":\"week\""),
        ("\"level\":\"ok\"", "\"level\":\"high\""),
        ("\"own\":", "\"owns\":"),
    ] {
        let changed = text.replacen(find, replace, 1);
        assert_ne!(changed, text, "{find}");
        assert_eq!(read(&changed), None, "{find} as {replace}");
    }
}

/// A tenant with many calls at the same time is cloned with every commit.
#[test]
fn a_tenant_without_calls_pays_a_pointer() {
    assert!(granted("starter").state.to_snapshot().ends_with(b"\"ai\":null}}}"));
    assert!(size_of::<crate::ai::Reservation>() <= 64);
}

#[test]
fn buckets_have_the_names_of_their_receipts() {
    let named = Usage::BUCKETS.iter().map(|bucket| format!("{bucket}_tokens"));
    assert!(named.eq(crate::ai::TOKENS));
}
