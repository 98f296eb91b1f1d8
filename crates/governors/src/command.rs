//! What a governor can be asked.
//!
//! Owns: the closed list of commands. Refuses to know: where a command came from on the wire.

use ledger::Draft;
use serde::{Deserialize, Serialize};
use types::{
    EntitlementId, Hash, KeyId, Micros, Millis, Operation, Reason, ReceiptId, Scopes, Severity,
    Usage,
};

use crate::period::Period;

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

/// What an alert has become, as whoever measures found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertChange {
    /// The rule, with its labels behind it where it holds per label. At most
    /// [`types::limits::METADATA_VALUE_CHARS`] characters, as each of the four words here.
    pub key: String,
    /// The rule's id.
    pub rule: String,
    /// The phase that it has come to. One that fires and has no incident may be said to fire again:
    /// nothing may stand in the way of one any more.
    pub to: AlertPhase,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub component: String,
    /// One line for people.
    pub title: String,
    /// The line with its figures, at most [`types::limits::INCIDENT_TEXT_CHARS`] characters.
    pub message: String,
    /// The alert that says it better: while that one fires, this one opens no incident of its own.
    pub inhibited_by: Option<String>,
    /// Whose figures they are, where several instances measure; part of the key as well. At most as
    /// many characters as the words above.
    pub instance: Option<String>,
    /// It ends because that instance is gone, and not because its condition does not hold any more.
    pub is_gone: bool,
}

/// What a lane beside `_incidents` says, to be said in the chain itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Carried {
    /// The receipt of the lane, without what only the lane decides: the state before.
    pub(crate) draft: Draft,
    /// When it was said.
    pub(crate) at: Micros,
}

/// A word of a closed list, as receipts and answers write it.
macro_rules! words {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every one.
            pub const ALL: &'static [$name] = &[$($name::$variant,)+];

            /// The word in receipts and answers.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }

            /// Reads the word back.
            #[must_use]
            pub fn parse(word: &str) -> Option<$name> {
                $name::ALL.iter().copied().find(|one| one.as_str() == word)
            }
        }
    };
}

words! {
    /// Where an alert stands.
    AlertPhase {
        /// Its condition does not hold.
        Inactive = "inactive",
        /// It holds, and not for long enough yet.
        Pending = "pending",
        /// It has held for long enough.
        Firing = "firing",
        /// It held, and has not been over for long enough.
        Recovering = "recovering",
    }
}

impl TellOutcome {
    /// True where the channel goes on with what comes next.
    #[must_use]
    pub const fn is_final(self) -> bool {
        match self {
            TellOutcome::Delivered
            | TellOutcome::Refused
            | TellOutcome::GivenUp
            | TellOutcome::Superseded => true,
            TellOutcome::Again | TellOutcome::Unknown => false,
        }
    }
}

impl AlertPhase {
    /// True when an alert may come from here to there.
    #[must_use]
    pub const fn leads_to(self, to: AlertPhase) -> bool {
        use AlertPhase::{Firing, Inactive, Pending, Recovering};
        matches!(
            (self, to),
            (Inactive, Pending | Firing)
                | (Pending, Firing | Inactive)
                | (Firing, Firing | Recovering | Inactive)
                | (Recovering, Firing | Inactive)
        )
    }
}

words! {
    /// What is being done about an incident, in the words of status pages.
    IncidentStatus {
        /// Nobody knows yet why.
        Investigating = "investigating",
        /// The cause is known.
        Identified = "identified",
        /// It works again, and is watched.
        Monitoring = "monitoring",
        /// It is over.
        Resolved = "resolved",
    }
}

words! {
    /// The roles of seed 001.
    IncidentRole {
        /// Incident commander.
        Commander = "commander",
        /// Technical lead.
        TechnicalLead = "technical_lead",
        /// Communications lead.
        Communications = "communications",
        /// Who writes it down.
        Scribe = "scribe",
    }
}

/// What a person does to incidents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IncidentChange {
    /// There is one that no alert has found.
    Declare(Declared),
    /// Something about one of them.
    On {
        /// Its number.
        incident: u64,
        /// What.
        deed: IncidentDeed,
    },
}

/// An incident as a person declares it. Texts as in [`AlertChange`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Declared {
    /// One line.
    pub title: String,
    /// How bad it is.
    pub severity: Severity,
    /// What it is about.
    pub component: String,
    /// What is known; may be empty.
    pub text: String,
}

/// What a person does to one incident.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IncidentDeed {
    /// Somebody looks after it.
    Acknowledge,
    /// Somebody takes a role.
    Assign {
        /// Which.
        role: IncidentRole,
        /// Who.
        who: String,
    },
    /// It is better or worse than it was taken for.
    Grade {
        /// How bad it is.
        severity: Severity,
    },
    /// It has come to another status.
    Status {
        /// Which; resolved only when none of its alerts fires.
        status: IncidentStatus,
        /// What is known; may be empty.
        text: String,
        /// Whether the public may read what is said of its end; what is said of any other status it
        /// may always.
        is_public: bool,
    },
    /// Something to tell everybody.
    Update {
        /// What.
        text: String,
    },
    /// A channel over which it was to be told does not take it.
    Unreachable {
        /// The channel.
        channel: String,
    },
    /// Something for the timeline alone. Of an incident that is resolved, a correction.
    Note {
        /// What.
        text: String,
    },
}

/// A change to the silences.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SilenceChange {
    /// Let alerts open no incident for some time.
    Set {
        /// `rule=ID`, `component=NAME` or `alert=KEY`.
        matcher: String,
        /// Seconds until it ends by itself, 1 to [`types::limits::LEASE_S_MAX`].
        lease_s: i64,
        /// Why.
        why: String,
    },
    /// End one.
    Clear {
        /// What it matches.
        matcher: String,
    },
}

/// A change to the overrides of the rota.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OverrideChange {
    /// Somebody takes the place of a rotation.
    Add {
        /// The rotation.
        rotation: String,
        /// The person, as the catalogue names people.
        person: String,
        /// From when; absent or past means now.
        from: Option<Micros>,
        /// Until when, at most [`types::limits::AHEAD_S_MAX`] after it begins.
        until: Micros,
        /// Why; may be empty.
        why: String,
    },
    /// It ends now, or never begins.
    End {
        /// Its number.
        number: u64,
    },
}

/// A change to the maintenance windows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MaintenanceChange {
    /// Work is planned.
    Add {
        /// One line, which the status page shows.
        title: String,
        /// What is worked on: at least one component, none with a comma in its name.
        components: Vec<String>,
        /// From when; absent or past means now.
        from: Option<Micros>,
        /// Until when, at most [`types::limits::LEASE_S_MAX`] after it begins.
        until: Micros,
        /// What the public is to know; may be empty.
        text: String,
    },
    /// It ends now, or never begins.
    End {
        /// Its number.
        number: u64,
    },
}

/// What happens on a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NoticeChange {
    /// The channel is set up, and told whatever comes in `_incidents` from this place on.
    Begin {
        /// Its name.
        channel: String,
        /// The place.
        from: u64,
    },
    /// A notice is about to be told.
    Tell(Telling),
    /// What became of that.
    Told {
        /// The attempt's receipt.
        attempt: ReceiptId,
        /// What came of it.
        outcome: TellOutcome,
    },
}

/// A notice that is about to be told over a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Telling {
    /// The channel.
    pub channel: String,
    /// The place in `_incidents` of the receipt that is told.
    pub seq: u64,
    /// Its incident, `INC-7`.
    pub incident: String,
}

words! {
    /// What came of telling a notice.
    TellOutcome {
        /// The far side has taken it.
        Delivered = "delivered",
        /// It has not, and is to be asked again.
        Again = "again",
        /// It will never take it.
        Refused = "refused",
        /// It may have.
        Unknown = "unknown",
        /// It has not for too often or too long, and is asked no more.
        GivenUp = "given_up",
        /// It was not asked again, because something newer says how things stand.
        Superseded = "superseded",
    }
}
