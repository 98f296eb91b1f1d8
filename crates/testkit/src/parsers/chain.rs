//! A chain that only exists for one input: what the governors decide on it, sealed and folded.
//!
//! Owns: that whatever is decided can be sealed, and that whatever was sealed folds. Refuses to
//! know: which decision is right.

use governors::{
    BudgetChange, Charge, Command, Context, Decision, EntitlementAction, EntitlementChange,
    KeyChange, Outcome, OutcomeStatus, Period, Reserve, Rules, SettingChange, Signal, SourceChange,
    StreamState, decide,
};
use ledger::{LedgerId, StreamHead, View, seal};
use types::limits::CALL_TOKENS;
use types::{EntitlementId, Hash, Micros, Operation, ReceiptId, Scope, Scopes, StreamName, Usage};

const LEDGER: LedgerId = LedgerId([7; 16]);

/// A stream as its receipts leave it, and the instant to decide at.
#[derive(Debug, Clone)]
pub(super) struct Chain {
    pub(super) stream: StreamName,
    pub(super) state: StreamState,
    pub(super) now: Micros,
}

impl Chain {
    /// Decides one command of every kind on a copy each.
    pub(super) fn decide_each(&self, rules: &Rules) {
        for command in self.commands() {
            self.clone().decide(rules, &command);
        }
    }

    /// Decides, seals and folds: no state may lead to a decision that the ledger or the fold
    /// refuses.
    pub(super) fn decide(&mut self, rules: &Rules, command: &Command) {
        let stream = self.stream.clone();
        let cx = Context { stream: &stream, now: self.now, actor: "fuzz", may_register: true };
        let Decision::Seal(sealing) = decide(rules, &self.state, command, &cx) else { return };
        assert!(sealing.primary < sealing.drafts.len(), "no draft answers the caller");
        let mut head = StreamHead::EMPTY;
        for draft in &sealing.drafts {
            let sealed = match seal(&LEDGER, &stream, &head, self.now, draft) {
                Ok(sealed) => sealed,
                // A stored text may fill a receipt by itself; no caller can send such a one.
                Err(ledger::SealError::TooLarge { .. }) => return,
                Err(why) => {
                    assert_eq!(Err(why), Ok(()), "a decision cannot be sealed: {command:?}");
                    return;
                }
            };
            head = head.after(&sealed);
            let folded = View::scan(&sealed.core).map(|view| self.state.apply(&view));
            assert_eq!(folded, Ok(Ok(())), "a decision does not fold: {command:?} {draft:?}");
        }
    }

    fn commands(&self) -> Vec<Command> {
        let attempt = self.state.in_flight().unwrap_or(ReceiptId([0; 16]));
        let outcome = |status| Outcome { status, duration_ms: 1, tries: 1 };
        let mut commands = vec![
            Command::Tick,
            Command::Quote { charge: false },
            Command::Quote { charge: true },
            Command::Signal(Signal { metric: "cpu".into(), value_milli: 0, measured_at: None }),
            Command::Signal(Signal {
                metric: "cpu".into(),
                value_milli: 1 << 50,
                measured_at: None,
            }),
            Command::Settle { attempt, outcome: outcome(OutcomeStatus::Success) },
            Command::Settle { attempt, outcome: outcome(OutcomeStatus::Unknown) },
            Command::Key(KeyChange::Issue {
                fingerprint: Hash([1; 32]),
                scopes: Scopes::of(&[Scope::SignalsWrite]),
                label: None,
                expires_at: None,
            }),
        ];
        commands.extend(self.calls());
        for key in self.state.keys() {
            let (id, fingerprint) = (key.id(), Hash([2; 32]));
            commands.push(Command::Key(KeyChange::Revoke { id }));
            commands.push(Command::Key(KeyChange::Rotate { id, fingerprint, overlap_s: 60 }));
        }
        for holding in self.state.entitlements(self.now) {
            let Ok(id) = EntitlementId::new(&holding.id) else { continue };
            commands.extend(changes(&id));
        }
        let live = self.state.live();
        for value in live.iter().flat_map(|live| live.values()) {
            let name = value.name.to_owned();
            let set = SettingChange::Set { name: name.clone(), value: "1".into(), lease_s: None };
            commands.push(Command::Setting(set));
            commands.push(Command::Setting(SettingChange::Clear { name }));
        }
        for (source, _) in live.iter().flat_map(|live| live.sources()) {
            let source = source.to_owned();
            let block = SourceChange::Block { source: source.clone(), lease_s: 60 };
            commands.push(Command::Source(block));
            commands.push(Command::Source(SourceChange::Unblock { source }));
        }
        commands
    }

    /// Calls to models: one more, and whatever may become of one that is open.
    fn calls(&self) -> Vec<Command> {
        let attempt = self.state.reservations().next().unwrap_or(ReceiptId([0; 16]));
        let settle = |status| Command::Settle {
            attempt,
            outcome: Outcome { status, duration_ms: 1, tries: 1 },
        };
        let set = |calls, spend_micros| {
            Command::Budget(BudgetChange::Set { calls, spend_micros, period: Period::Day })
        };
        vec![
            reserve(0),
            reserve(CALL_TOKENS),
            Command::TopUp { attempt, output: 1 },
            Command::TopUp { attempt, output: CALL_TOKENS },
            Command::Charge { attempt, charge: charge(1) },
            Command::Charge { attempt, charge: charge(u64::MAX) },
            settle(OutcomeStatus::Unknown),
            settle(OutcomeStatus::Error),
            set(Some(0), Some(0)),
            set(None, None),
            Command::Budget(BudgetChange::Clear),
        ]
    }
}

/// The largest numbers that a call to a model may name, and none.
fn reserve(output_wish: u64) -> Command {
    Command::Reserve(Reserve {
        operation: Operation::Chat,
        model: "gpt-4o".into(),
        prices: vec!["gpt-4o".into()],
        input_max: output_wish,
        output_floor: 0,
        output_wish,
    })
}

fn charge(tokens: u64) -> Charge {
    Charge {
        status: OutcomeStatus::Success,
        usage: Usage::of([tokens; Usage::BUCKETS.len()]),
        is_estimated: true,
        price: "gpt-4o".into(),
        provider: "openai".into(),
        model: "gpt-4o-2024-08-06".into(),
        tries: u32::MAX,
        duration_ms: i64::MAX,
    }
}

/// Every action on one entitlement.
fn changes(id: &EntitlementId) -> impl Iterator<Item = Command> {
    use EntitlementAction::{Grant, Resume, Revoke, Suspend};
    let change = |action| EntitlementChange {
        entitlement_id: id.clone(),
        action,
        effective_at: None,
        expires_at: None,
        plan: None,
        metadata: Vec::new(),
    };
    [Grant, Revoke, Suspend, Resume].map(|action| Command::Entitlement(change(action))).into_iter()
}
