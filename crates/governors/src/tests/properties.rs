//! Laws that hold for every history, checked over random ones.
//!
//! Owns: the histories and the laws. Refuses to know: the inside of any state; laws are checked
//! against receipts.

use std::collections::BTreeMap;

use ledger::Kind;
use proptest::prelude::*;
use types::Reason;

use super::*;

/// What to ask, relative to the instant that it is asked at.
#[derive(Debug, Clone)]
enum Ask {
    Change { id: usize, action: usize, effective_s: Option<i64>, expires_s: Option<i64> },
    Quote { charge: bool },
    Signal { metric: usize, value_milli: i64, measured_ms: Option<i64> },
    Settle { status: usize, right: bool },
    Key { what: usize, n: u8 },
    Refused,
    Tick,
}

const IDS: [&str; 3] = ["ent-1", "professional", "base"];

impl Ask {
    fn command(&self, chain: &Chain, now: Micros) -> Command {
        use EntitlementAction::{Grant, Resume, Revoke, Suspend};
        let later = |seconds: Option<i64>| seconds.map(|seconds| now.plus_secs(seconds));
        match *self {
            Ask::Change { id, action, effective_s, expires_s } => {
                Command::Entitlement(EntitlementChange {
                    effective_at: later(effective_s),
                    expires_at: later(expires_s),
                    ..change(IDS[id], [Grant, Grant, Suspend, Resume, Revoke][action])
                })
            }
            Ask::Quote { charge } => Command::Quote { charge },
            Ask::Signal { metric, value_milli, measured_ms } => Command::Signal(Signal {
                metric: ["cpu", "queue"][metric].to_owned(),
                value_milli,
                measured_at: measured_ms.map(|ms| Millis(now.0 / 1000 + ms)),
            }),
            Ask::Settle { status, right } => {
                use OutcomeStatus::{Error, Success, Timeout, Unknown};
                match settle(chain, [Success, Error, Timeout, Unknown][status]) {
                    Command::Settle { outcome, .. } if !right => {
                        Command::Settle { attempt: ReceiptId([9; 16]), outcome }
                    }
                    command => command,
                }
            }
            Ask::Key { what: 0, n } => keys::issue(n),
            Ask::Key { what: 1, n } => keys::rotate(n, n + 1, 5),
            Ask::Key { n, .. } => keys::revoke(n),
            Ask::Refused => Command::Refused {
                reason: Reason::RateLimitExceeded,
                endpoint: "/pubsub",
                count: 1,
                window_s: 10,
            },
            Ask::Tick => Command::Tick,
        }
    }
}

fn ask() -> impl Strategy<Value = Ask> {
    let change = (0..IDS.len(), 0..5_usize, maybe(-10..40), maybe(-5..60)).prop_map(
        |(id, action, effective_s, expires_s)| Ask::Change { id, action, effective_s, expires_s },
    );
    let signal = (0..2_usize, 0..110_000_i64, maybe(-20_000..5_000)).prop_map(
        |(metric, value_milli, measured_ms)| Ask::Signal { metric, value_milli, measured_ms },
    );
    prop_oneof![
        4 => change,
        1 => any::<bool>().prop_map(|charge| Ask::Quote { charge }),
        4 => signal,
        2 => (0..4_usize, prop::bool::weighted(0.9))
            .prop_map(|(status, right)| Ask::Settle { status, right }),
        1 => (0..3_usize, 0..4_u8).prop_map(|(what, n)| Ask::Key { what, n }),
        1 => Just(Ask::Refused),
        1 => Just(Ask::Tick),
    ]
}

/// Absent more often than not, so that histories get somewhere.
fn maybe(range: std::ops::Range<i64>) -> impl Strategy<Value = Option<i64>> {
    prop::option::weighted(0.3, range)
}

fn history() -> impl Strategy<Value = Vec<(i64, Ask)>> {
    prop::collection::vec((0..15_000_000_i64, ask()), 1..60)
}

/// What the receipts alone say of a tenant, folded by other code than the governor's.
#[derive(Default)]
struct Model {
    held: BTreeMap<String, Held>,
    in_flight: Option<ReceiptId>,
}

#[derive(Default, Clone)]
struct Held {
    state: String,
    expires_at: Option<i64>,
    scheduled: Option<(i64, String, Option<i64>)>,
}

impl Held {
    fn is_active(&self, now: Micros) -> bool {
        let over = |end: Option<i64>| end.is_some_and(|end| end <= now.secs());
        match &self.scheduled {
            Some((at, action, end)) if *at <= now.secs() => match action.as_str() {
                "grant" => !over(*end),
                "resume" => !over(self.expires_at),
                _ => false,
            },
            _ => self.state == "entitled" && !over(self.expires_at),
        }
    }
}

impl Model {
    fn read(&mut self, receipt: &View<'_>) {
        let rule = receipt.rule.unwrap().text();
        match receipt.kind {
            Kind::ActionAttempt => {
                assert_eq!(self.in_flight, None, "INV-8: two actions in flight");
                self.in_flight = Some(receipt.id);
            }
            Kind::ActionResult => {
                assert!(receipt.intent.is_some() && receipt.intent == self.in_flight);
                self.in_flight = None;
            }
            Kind::Transition | Kind::Refusal => {}
        }
        let Some(id) = receipt.entitlement_id else { return };
        let held = self.held.entry(id.text().into_owned()).or_default();
        let before = if held.state.is_empty() { "unentitled" } else { &held.state };
        assert!(receipt.state_from.unwrap().is(before), "{rule} starts from {before}");
        if before == "revoked" {
            assert_eq!(receipt.kind, Kind::Refusal, "revoked is final");
        }
        if rule == "entitlement.schedule" {
            let change = receipt.meta_text("change").unwrap().into_owned();
            held.scheduled = Some((receipt.effective_at.unwrap(), change, receipt.expires_at));
            return;
        }
        if rule == "entitlement.effective" {
            held.scheduled = None;
        }
        if receipt.kind == Kind::Transition {
            held.state = receipt.state_to.unwrap().text().into_owned();
            if receipt.action.is("grant") {
                held.expires_at = receipt.expires_at;
            }
            if ["entitlement.grant", "entitlement.revoke"].contains(&&*rule) {
                held.scheduled = None;
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(256) })]

    #[test]
    fn every_history_keeps_the_laws(history in history()) {
        let mut chain = Chain::tenant();
        let mut model = Model::default();
        let mut now = START;
        for (step_us, ask) in &history {
            now = Micros(now.0 + step_us);
            let command = ask.command(&chain, now);
            let was_active = model.held.values().any(|held| held.is_active(now));
            let sealed_before = chain.cores.len();
            // Sealing and folding without an error is the first law; the harness asserts it.
            let (decision, ids) = chain.act(now, &command);
            for core in &chain.cores[sealed_before..] {
                model.read(&View::scan(core).unwrap());
            }
            prop_assert_eq!(chain.state.in_flight(), model.in_flight);
            let effect = match &decision {
                Decision::Seal(sealing) => sealing.effect.as_ref().map(|e| ids[e.attempt]),
                _ => None,
            };
            if let Some(attempt) = effect {
                prop_assert_eq!(model.in_flight, Some(attempt), "the effect names its attempt");
                prop_assert!(was_active, "an action for a tenant that holds nothing");
            }
            let snapshot = chain.state.to_snapshot();
            let read = StreamState::from_snapshot(&chain.stream, &snapshot);
            prop_assert_eq!(read.as_ref(), Some(&chain.state));
        }
        let mut again = StreamState::empty(&chain.stream);
        for core in &chain.cores {
            again.apply(&View::scan(core).unwrap()).unwrap();
        }
        prop_assert_eq!(&again, &chain.state, "folding from the beginning");
        // Time alone comes to rest: each tick at the due instant leaves only later ones.
        while let Some(due) = chain.state.next_due() {
            now = now.max(due);
            let (decision, _) = chain.act(now, &Command::Tick);
            prop_assert!(decision != Decision::Nothing, "due and nothing to do");
            prop_assert!(chain.state.next_due().is_none_or(|next| next > now), "a spin");
        }
        prop_assert_eq!(chain.decide(now, &Command::Tick), Decision::Nothing);
    }

    #[test]
    fn deciding_changes_nothing_and_repeats_itself(history in history(), last in ask()) {
        let mut chain = Chain::tenant();
        let mut now = START;
        for (step_us, ask) in &history {
            now = Micros(now.0 + step_us);
            let command = ask.command(&chain, now);
            chain.act(now, &command);
        }
        let command = last.command(&chain, now);
        let before = chain.state.clone();
        prop_assert_eq!(chain.decide(now, &command), chain.decide(now, &command));
        prop_assert_eq!(chain.state, before);
    }
}
