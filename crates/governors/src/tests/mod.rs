//! Tests over the whole crate, through the same door as the engine: decide, seal, scan, fold.
//!
//! Owns: the harness and the text form of decisions. Refuses to know: the inside of any state.

mod budget;
mod carried;
mod duty;
mod faults;
mod incidents;
mod interleavings;
mod keys;
mod live;
mod maintenance;
mod properties;
mod sensors;
mod table;

use ledger::draft::Text;
use ledger::{Draft, LedgerId, Meta, StreamHead, View, seal};
use types::{EntitlementId, Micros, Millis, ReceiptId, StreamName};

use crate::*;

/// The instant that every table starts at; commands add seconds to it.
pub(super) const START: Micros = Micros::from_secs(1_800_000_000);

/// One stream and everything that was ever sealed on it.
pub(super) struct Chain {
    pub(super) rules: Rules,
    pub(super) stream: StreamName,
    pub(super) state: StreamState,
    pub(super) may_register: bool,
    pub(super) cores: Vec<Box<[u8]>>,
    head: StreamHead,
}

impl Chain {
    pub(super) fn new(stream: &str) -> Chain {
        let stream = StreamName::parse(stream).unwrap();
        Chain {
            rules: Rules::builtin().unwrap(),
            state: StreamState::empty(&stream),
            stream,
            may_register: true,
            cores: Vec::new(),
            head: StreamHead::EMPTY,
        }
    }

    pub(super) fn tenant() -> Chain {
        Chain::new("tenant-123")
    }

    pub(super) fn decide(&self, now: Micros, command: &Command) -> Decision {
        let cx =
            Context { stream: &self.stream, now, actor: "tester", may_register: self.may_register };
        decide(&self.rules, &self.state, command, &cx)
    }

    /// Decides, seals and folds; returns the decision and the ids of its receipts.
    pub(super) fn act(&mut self, now: Micros, command: &Command) -> (Decision, Vec<ReceiptId>) {
        let decision = self.decide(now, command);
        let mut ids = Vec::new();
        if let Decision::Seal(sealing) = &decision {
            assert!(sealing.primary < sealing.drafts.len());
            for (nth, draft) in (0..).zip(&sealing.drafts) {
                // Time goes on by a microsecond with each, as where receipts are sealed.
                let at = Micros(now.0 + nth);
                let sealed = seal(&LedgerId([7; 16]), &self.stream, &self.head, at, draft).unwrap();
                self.head = self.head.after(&sealed);
                self.state.apply(&View::scan(&sealed.core).unwrap()).unwrap();
                self.cores.push(sealed.core);
                ids.push(sealed.id);
            }
        }
        (decision, ids)
    }

    /// Runs commands at `START` plus their seconds.
    pub(super) fn after(mut self, steps: &[(i64, Command)]) -> Chain {
        for (second, command) in steps {
            self.act(START.plus_secs(*second), command);
        }
        self
    }

    /// The text of what `command` would do at `START` plus `second`.
    pub(super) fn show(&self, second: i64, command: &Command) -> String {
        show(&self.decide(START.plus_secs(second), command))
    }
}

pub(super) fn change(id: &str, action: EntitlementAction) -> EntitlementChange {
    EntitlementChange {
        entitlement_id: EntitlementId::new(id).unwrap(),
        action,
        effective_at: None,
        expires_at: None,
        plan: None,
        metadata: Vec::new(),
    }
}

pub(super) fn signal(value: i64, measured_second: Option<i64>) -> Command {
    Command::Signal(Signal {
        metric: "cpu".to_owned(),
        value_milli: value * 1000,
        measured_at: measured_second.map(|second| Millis(START.plus_secs(second).0 / 1000)),
    })
}

pub(super) fn settle(chain: &Chain, status: OutcomeStatus) -> Command {
    let attempt = chain.state.in_flight().unwrap_or(ReceiptId([0; 16]));
    Command::Settle { attempt, outcome: Outcome { status, duration_ms: 12, tries: 1 } }
}

/// Folds a receipt that was made by hand.
pub(super) fn fold(chain: &mut Chain, draft: &Draft) -> Result<(), FoldError> {
    let before = chain.state.clone();
    let sealed = seal(&LedgerId([7; 16]), &chain.stream, &chain.head, START, draft).unwrap();
    let result = chain.state.apply(&View::scan(&sealed.core).unwrap());
    if result.is_err() {
        assert_eq!(chain.state, before, "a receipt that does not fold leaves no trace");
    }
    result
}

/// The receipts to be that answer `command` at [`START`].
pub(super) fn drafts(chain: &Chain, command: &Command) -> Vec<Draft> {
    match chain.decide(START, command) {
        Decision::Seal(sealing) => sealing.drafts,
        other => panic!("expected receipts, got {other:?}"),
    }
}

/// A decision as lines of text, one for each receipt; `>` marks the one that answers the caller.
pub(super) fn show(decision: &Decision) -> String {
    match decision {
        Decision::Nothing => "  nothing\n".to_owned(),
        Decision::Reject(Rejection { reason, detail, retry_after_s }) => {
            let retry = retry_after_s.map(|s| format!(" retry_after_s={s}")).unwrap_or_default();
            format!("  reject {reason} ({detail}){retry}\n")
        }
        Decision::Seal(sealing) => {
            let mut out = String::new();
            for (at, draft) in sealing.drafts.iter().enumerate() {
                out += if at == sealing.primary { "  > " } else { "    " };
                out += &show_draft(draft);
                if let Some(effect) = sealing.effect.as_ref().filter(|e| e.attempt == at) {
                    out += &format!(" => perform {} {:?}", effect.action, effect.args);
                }
                out += "\n";
            }
            out
        }
    }
}

fn show_draft(draft: &Draft) -> String {
    let text = |field: &Option<Text>| field.as_deref().unwrap_or("-").to_owned();
    let mut out = format!(
        "{} {} by {} at {}: {} -> {}",
        draft.kind.as_str(),
        draft.action,
        text(&draft.actor),
        text(&draft.rule),
        text(&draft.state_from),
        text(&draft.state_to),
    );
    let since = |instant: Micros| format!("+{}", instant.secs() - START.secs());
    let fields = [
        ("entitlement", draft.entitlement_id.as_deref().map(str::to_owned)),
        ("subject", draft.subject.as_deref().map(str::to_owned)),
        ("reason", draft.reason.as_deref().map(str::to_owned)),
        ("detail", draft.detail.as_deref().map(|detail| format!("({detail})"))),
        ("intent", draft.intent.map(|_| "set".to_owned())),
        ("amount", draft.amount.map(|amount| amount.to_string())),
        ("currency", draft.currency.as_deref().map(str::to_owned)),
        ("status", draft.status.as_deref().map(str::to_owned)),
        ("effective", draft.effective_at.map(since)),
        ("expires", draft.expires_at.map(since)),
    ];
    for (name, value) in fields {
        if let Some(value) = value {
            out += &format!(" {name}={value}");
        }
    }
    for (key, value) in &draft.metadata {
        out += &match (&**key, value) {
            ("signal_at", Meta::Int(ms)) => {
                format!(" signal_at=+{}", ms / 1000 - START.secs())
            }
            ("fingerprint", Meta::Text(text)) => format!(" fingerprint={}…", &text[..4]),
            (_, Meta::Text(text)) => format!(" {key}={text}"),
            (_, Meta::Int(value)) => format!(" {key}={value}"),
            (_, Meta::Bool(value)) => format!(" {key}={value}"),
        };
    }
    out
}
