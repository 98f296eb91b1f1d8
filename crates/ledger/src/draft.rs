//! What a decision says, before the ledger gives it a place.
//!
//! Owns: the fields that a governor may fill. Refuses to know: ids, positions, hashes and times,
//! which only [`crate::seal`] assigns.

use std::borrow::Cow;

use types::{Micros, ReceiptId};

/// The four kinds of receipt (seeds 000 and 001), the field `type`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A state changed, or was confirmed by a decision.
    Transition,
    /// A governor said no.
    Refusal,
    /// An effect is about to be tried.
    ActionAttempt,
    /// What became of an attempt.
    ActionResult,
}

impl Kind {
    /// Every kind, in the order that [`Kind::index`] counts.
    pub const ALL: [Kind; 4] =
        [Kind::Transition, Kind::Refusal, Kind::ActionAttempt, Kind::ActionResult];

    /// The text of the field `type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Kind::Transition => "transition",
            Kind::Refusal => "refusal",
            Kind::ActionAttempt => "action_attempt",
            Kind::ActionResult => "action_result",
        }
    }

    /// The inverse of [`Kind::as_str`].
    #[must_use]
    pub fn parse(text: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.as_str() == text)
    }

    /// Position in [`Kind::ALL`].
    #[must_use]
    pub const fn index(self) -> usize {
        self as usize
    }
}

/// A metadata value. There are no floats, nulls, arrays or nested objects in a receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Meta {
    /// Text without control characters.
    Text(Cow<'static, str>),
    /// An integer within ±(2^53 − 1).
    Int(i64),
    /// A flag.
    Bool(bool),
}

/// A text field: static for words of our own, owned for words of a caller.
pub type Text = Cow<'static, str>;

/// The content of a receipt to be. Fields are those of `docs/receipts.md`; absent ones are left
/// out of the bytes. Times of effect are instants, written as unix seconds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The field `type`.
    pub kind: Kind,
    /// What was asked for or done: `grant`, `signal`, `throttle`, ….
    pub action: Text,
    /// A code of `types::Reason`, on refusals.
    pub reason: Option<Text>,
    /// One sentence for people, never the offending value.
    pub detail: Option<Text>,
    /// What the tenant holds, where the decision is about it.
    pub entitlement_id: Option<Text>,
    /// Who asked.
    pub actor: Option<Text>,
    /// What it is about, where that is neither tenant nor entitlement.
    pub subject: Option<Text>,
    /// State before.
    pub state_from: Option<Text>,
    /// State after.
    pub state_to: Option<Text>,
    /// The rule that decided.
    pub rule: Option<Text>,
    /// On a result, the id of its attempt, and so where more is reserved for a call; on a scheduled
    /// change, of the receipt that set it.
    pub intent: Option<ReceiptId>,
    /// Integer minor units.
    pub amount: Option<i64>,
    /// ISO 4217 code, with `amount`.
    pub currency: Option<Text>,
    /// State of the money or of the effect: `quoted`, `success`, `timeout`, ….
    pub status: Option<Text>,
    /// From when a change holds.
    pub effective_at: Option<Micros>,
    /// Until when it holds.
    pub expires_at: Option<Micros>,
    /// Keyed hash of the idempotency key, 64 hex digits.
    pub idem: Option<Text>,
    /// Keyed hash of the request, 64 hex digits: proves the body without holding it.
    pub commitment: Option<Text>,
    /// Small facts, typed per action. Order does not matter; a repeated key is an error.
    pub metadata: Vec<(Text, Meta)>,
}

impl Draft {
    /// A draft with nothing but its kind and action.
    pub fn new(kind: Kind, action: impl Into<Text>) -> Draft {
        Draft {
            kind,
            action: action.into(),
            reason: None,
            detail: None,
            entitlement_id: None,
            actor: None,
            subject: None,
            state_from: None,
            state_to: None,
            rule: None,
            intent: None,
            amount: None,
            currency: None,
            status: None,
            effective_at: None,
            expires_at: None,
            idem: None,
            commitment: None,
            metadata: Vec::new(),
        }
    }

    /// Adds a metadata entry.
    #[must_use]
    pub fn with(mut self, key: impl Into<Text>, value: Meta) -> Draft {
        self.metadata.push((key.into(), value));
        self
    }

    /// Sets the states before and after.
    #[must_use]
    pub fn states(mut self, from: impl Into<Text>, to: impl Into<Text>) -> Draft {
        self.state_from = Some(from.into());
        self.state_to = Some(to.into());
        self
    }
}
