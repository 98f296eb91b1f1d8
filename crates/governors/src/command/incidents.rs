//! What may be done to alerts, incidents and what people are told of them.
//!
//! Owns: those commands. Refuses to know: what follows from one.

use ledger::Draft;
use serde::{Deserialize, Serialize};
use types::{Micros, ReceiptId, Severity};

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
    /// Why it ends, where that instance is gone and cannot say so itself.
    pub gone: Option<Gone>,
}

/// Why the alert of an instance ends that is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Gone {
    /// Nobody measures this any more.
    Unmeasured,
    /// Another instance measures the same, and it does not hold.
    Over {
        /// The instance.
        by: String,
    },
    /// Another instance measures the same, and goes on with it.
    Handed {
        /// The key of that one's alert.
        to: String,
    },
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
        /// What stood in the way, in our own words.
        why: Option<String>,
    },
    /// A channel was tried on purpose.
    Tested {
        /// Its name.
        channel: String,
        /// What came of it.
        outcome: TellOutcome,
        /// What stood in the way, in our own words.
        why: Option<String>,
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
