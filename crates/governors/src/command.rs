//! What a governor can be asked.
//!
//! Owns: the closed list of commands. Refuses to know: where a command came from on the wire.

use types::{EntitlementId, Micros, Millis, Reason, ReceiptId};

/// One thing to decide. Closed: a new command is a new line in the table of every governor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// An entitlement event (seed 000 `/pubsub`, `/marketplace`).
    Entitlement(EntitlementChange),
    /// A customer call: what does the tenant pay? (seed 002, scenarios 1 and 4)
    Quote {
        /// The caller wants to be charged at once.
        charge: bool,
    },
    /// A measurement about the tenant.
    Signal(Signal),
    /// What became of an action attempt.
    Settle {
        /// The attempt's receipt.
        attempt: ReceiptId,
        /// Its outcome.
        outcome: Outcome,
    },
    /// Time has passed: do what is due.
    Tick,
    /// A signal that names no tenant; only the stream `_signals` takes it.
    Untenanted {
        /// The name of the signal, 1 to 64 characters.
        signal: String,
    },
    /// Refusals before a tenant was governed, in aggregate; only the stream `_edge` takes it.
    Refused {
        /// Why.
        reason: Reason,
        /// Where: the route.
        endpoint: &'static str,
        /// How many since the last such receipt.
        count: u64,
        /// Seconds that the count spans.
        window_s: i64,
    },
    /// A fact about the service itself; only the stream `_ops` takes it.
    Note {
        /// `start`, `stop`, `recovery`, `restart`, ….
        event: &'static str,
        /// One sentence.
        detail: String,
    },
}

/// A change to one entitlement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntitlementChange {
    /// Which.
    pub entitlement_id: EntitlementId,
    /// What to do with it.
    pub action: EntitlementAction,
    /// From when; absent or past means now.
    pub effective_at: Option<Micros>,
    /// Until when; absent means without end. Only a grant may set it.
    pub expires_at: Option<Micros>,
    /// The plan that the caller names; else the entitlement id is looked up in the catalogue.
    pub plan: Option<String>,
    /// What the caller wants to keep beside it: bounded and free of control characters.
    pub metadata: Vec<(String, String)>,
}

/// The four actions of the seeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EntitlementAction {
    /// unentitled → entitled.
    Grant,
    /// entitled or suspended → revoked, for good.
    Revoke,
    /// entitled → suspended.
    Suspend,
    /// suspended → entitled.
    Resume,
}

impl EntitlementAction {
    /// The word on the wire and in receipts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            EntitlementAction::Grant => "grant",
            EntitlementAction::Revoke => "revoke",
            EntitlementAction::Suspend => "suspend",
            EntitlementAction::Resume => "resume",
        }
    }
}

/// A measurement. Values are thousandths, because no float enters a decision or a receipt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signal {
    /// What was measured; chooses the profile. 1 to 64 characters.
    pub metric: String,
    /// The value in thousandths, 0 or more.
    pub value_milli: i64,
    /// When it was measured; absent means now.
    pub measured_at: Option<Millis>,
}

/// What became of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// How it ended.
    pub status: OutcomeStatus,
    /// Milliseconds from start to end; 0 when nobody knows.
    pub duration_ms: i64,
    /// How often it was tried.
    pub tries: u32,
}

/// How an attempt ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeStatus {
    /// Done.
    Success,
    /// Not done.
    Error,
    /// Not done before its deadline, and it may be repeated.
    Timeout,
    /// Nobody can know: the process died on the way and the action may not be repeated.
    Unknown,
}

impl OutcomeStatus {
    /// The field `status` of the result.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            OutcomeStatus::Success => "success",
            OutcomeStatus::Error => "error",
            OutcomeStatus::Timeout => "timeout",
            OutcomeStatus::Unknown => "unknown",
        }
    }
}
