//! What a governor can be asked.
//!
//! Owns: the closed list of commands. Refuses to know: where a command came from on the wire.

use types::{
    EntitlementId, Hash, KeyId, Micros, Millis, Operation, Reason, ReceiptId, Scopes, Usage,
};

use crate::period::Period;

mod incidents;

pub use incidents::{
    AlertChange, AlertPhase, Carried, Declared, Gone, IncidentChange, IncidentDeed, IncidentRole,
    IncidentStatus, MaintenanceChange, NoticeChange, OverrideChange, SilenceChange, TellOutcome,
    Telling,
};

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
    /// What became of an action attempt; of a call to a model where nobody knows what it used.
    Settle {
        /// The attempt's receipt.
        attempt: ReceiptId,
        /// Its outcome.
        outcome: Outcome,
    },
    /// A call to a model is about to be made: may it, and how much may it use?
    Reserve(Reserve),
    /// A call that is open needs a longer answer than was reserved for it.
    TopUp {
        /// The attempt's receipt.
        attempt: ReceiptId,
        /// Further tokens of the answer, 1 to [`types::limits::CALL_TOKENS`].
        output: u64,
    },
    /// What a call to a model used.
    Charge {
        /// The attempt's receipt.
        attempt: ReceiptId,
        /// What it used, and of whom.
        charge: Charge,
    },
    /// A change to the tenant's own limits.
    Budget(BudgetChange),
    /// Time has passed: do what is due.
    Tick,
    /// A signal that names no tenant; only the stream `_signals` takes it.
    Untenanted {
        /// The name of the signal, 1 to 64 characters.
        signal: String,
    },
    /// A change to the keys of a tenant, or of the service; tenants and the stream `_keys` take it.
    Key(KeyChange),
    /// A live change to a setting; only the stream `_settings` takes it.
    Setting(SettingChange),
    /// A source to refuse; only the stream `_settings` takes it.
    Source(SourceChange),
    /// What an alert has become; only the stream `_incidents` takes it, as the next four.
    Alert(AlertChange),
    /// What a person does to an incident.
    Incident(IncidentChange),
    /// Somebody takes the place of a rotation for a while.
    Override(OverrideChange),
    /// Work that is planned.
    Maintenance(MaintenanceChange),
    /// What nobody wants to hear of for a while.
    Silence(SilenceChange),
    /// What was said of incidents while the store was away; only the stream `_incidents` takes it.
    Carried(Box<Carried>),
    /// Something is told over a channel; only the stream `_notices` takes it.
    Notice(NoticeChange),
    /// Refusals that got no receipt of their own, in aggregate: of a tenant in its stream, of
    /// callers whom nobody knows in the stream `_edge`.
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

/// A call to a model, before it is made. All that it may use is set aside until it is settled, so
/// that calls at the same time cannot pass a limit together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reserve {
    /// What the model is asked to do.
    pub operation: Operation,
    /// The model as the caller named it: 1 to [`types::limits::MODEL_CHARS`] characters.
    pub model: String,
    /// The names in the price table of all targets that may serve the call: 1 to
    /// [`types::limits::CALL_TARGETS`]. The dearest is reserved for.
    pub prices: Vec<String>,
    /// The most tokens that the prompt can be, pictures and what tools of the provider read
    /// included: at most [`types::limits::CALL_TOKENS`].
    pub input_max: u64,
    /// The shortest answer, in tokens, that the call is worth making for.
    pub output_floor: u64,
    /// The longest answer, in tokens, that is asked for: at most [`types::limits::CALL_TOKENS`].
    pub output_wish: u64,
}

/// What a call to a model used. Whatever its form it is recorded: the provider has been paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Charge {
    /// How the call ended. A call that failed costs what it used.
    pub status: OutcomeStatus,
    /// Tokens used, of all tries.
    pub usage: Usage,
    /// Counted here, because the provider did not say.
    pub is_estimated: bool,
    /// The name in the price table of the target that served it.
    pub price: String,
    /// Who served it.
    pub provider: String,
    /// The model as the provider named it.
    pub model: String,
    /// How often it was tried, over all targets.
    pub tries: u32,
    /// Milliseconds from start to end.
    pub duration_ms: i64,
}

/// A change to the limits that an operator sets for one tenant in place of those of its plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetChange {
    /// From now on these; an absent one is no limit. What has been used of the period counts.
    Set {
        /// Calls in the period.
        calls: Option<u64>,
        /// What calls may cost in the period, in micros of the catalogue's currency, 0 or more.
        spend_micros: Option<i64>,
        /// How long is counted together.
        period: Period,
    },
    /// Those of the plan hold again.
    Clear,
}

/// A change to the keys of one owner. The key itself never comes here: only its fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KeyChange {
    /// A new key.
    Issue {
        /// SHA-256 of the key's text; its first bits are the key's id.
        fingerprint: Hash,
        /// What it permits, at least one scope. A tenant's key holds scopes of
        /// [`Scopes::TENANT`] only.
        scopes: Scopes,
        /// What a person calls it: at most [`types::limits::KEY_LABEL_CHARS`] characters.
        label: Option<String>,
        /// Until when; absent means without end.
        expires_at: Option<Micros>,
    },
    /// A new key with scopes, label and expiry of an old one, which ends after the overlap.
    Rotate {
        /// The old key.
        id: KeyId,
        /// SHA-256 of the new key's text.
        fingerprint: Hash,
        /// Seconds that both are valid, 0 to [`types::limits::LEASE_S_MAX`].
        overlap_s: i64,
    },
    /// The key ends now.
    Revoke {
        /// Which.
        id: KeyId,
    },
}

/// A live change to a setting. Whether there is such a setting and whether the value is one of its
/// values is checked before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SettingChange {
    /// From now on this value.
    Set {
        /// The setting's name.
        name: String,
        /// The value as text; never a secret.
        value: String,
        /// Seconds after which the change undoes itself, 1 to [`types::limits::LEASE_S_MAX`];
        /// absent means that it stays. A lease does not replace a change that stays: it covers it.
        /// A change that stays ends a lease, which would hide it.
        lease_s: Option<i64>,
    },
    /// Neither change nor lease any more: what the process was started with holds again.
    Clear {
        /// The setting's name.
        name: String,
    },
}

/// A change to the list of sources that are refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceChange {
    /// Refuse requests from it for some time.
    Block {
        /// An address or a network, in canonical text.
        source: String,
        /// Seconds until the block ends by itself, 1 to [`types::limits::LEASE_S_MAX`].
        lease_s: i64,
    },
    /// Refuse it no longer.
    Unblock {
        /// The text of the block.
        source: String,
    },
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
    pub(crate) const ALL: [OutcomeStatus; 4] = [
        OutcomeStatus::Success,
        OutcomeStatus::Error,
        OutcomeStatus::Timeout,
        OutcomeStatus::Unknown,
    ];

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
