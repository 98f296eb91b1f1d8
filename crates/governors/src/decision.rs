//! What a governor answers.
//!
//! Owns: the shape of an answer. Refuses to know: who seals, stores or performs it.

use ledger::Draft;
use types::{Micros, Reason, StreamName};

/// What is true around a decision.
#[derive(Debug, Clone, Copy)]
pub struct Context<'a> {
    /// The stream that decides.
    pub stream: &'a StreamName,
    /// The present instant, never before the newest receipt of the stream.
    pub now: Micros,
    /// Who asks, for the field `actor`.
    pub actor: &'a str,
    /// True when an unknown tenant may be registered by this caller (loopback, service keys).
    pub may_register: bool,
}

/// The answer to one command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Seal these receipts together; all or none.
    Seal(Sealing),
    /// Refuse without a receipt of its own; the edge counts it.
    Reject(Rejection),
    /// There is nothing to do and nothing to record.
    Nothing,
}

/// Receipts to seal as one unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealing {
    /// In order, at least one.
    pub drafts: Vec<Draft>,
    /// Which draft answers the caller and carries the idempotency key.
    pub primary: usize,
    /// What to perform once the receipts are durable.
    pub effect: Option<Effect>,
}

/// An action to perform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// Which draft is its attempt.
    pub attempt: usize,
    /// The registered action's name.
    pub action: String,
    /// Its arguments: names and integers.
    pub args: Vec<(String, i64)>,
}

/// A refusal without a receipt of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    /// Why.
    pub reason: Reason,
    /// One sentence, never the offending value.
    pub detail: String,
    /// When a retry may succeed.
    pub retry_after_s: Option<i64>,
}
