//! A state as bytes: a cache of the fold, never the truth.
//!
//! Owns: the snapshot format and its number. Refuses to know: where snapshots are kept. Whatever
//! does not read back exactly is no snapshot, and the caller folds from the beginning.

use serde::{Deserialize, Serialize};
use types::StreamName;

use crate::ai::AiState;
use crate::entitlement::Entitlement;
use crate::incident::IncidentsState;
use crate::keys::Owner;
use crate::notices::NoticesState;
use crate::state::{Keys, LiveState, StreamState, SystemState, TenantState};

/// Raised whenever a state of the same receipts would be written differently.
const SNAPSHOT_FORMAT: u32 = 5;

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    state: WrittenState<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum WrittenState<'a> {
    Tenant(&'a TenantState),
    Keys(&'a Keys),
    Settings(&'a LiveState),
    Incidents(&'a IncidentsState),
    Notices(&'a NoticesState),
    Nothing,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    format: u32,
    state: ReadState,
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum ReadState {
    Tenant(TenantState),
    Keys(Keys),
    Settings(Box<LiveState>),
    Incidents(Box<IncidentsState>),
    Notices(Box<NoticesState>),
    Nothing,
}

impl StreamState {
    /// The state as bytes for [`StreamState::from_snapshot`] of the same stream.
    #[must_use]
    pub fn to_snapshot(&self) -> Vec<u8> {
        let state = match self {
            StreamState::Tenant(state) => WrittenState::Tenant(state),
            StreamState::System(SystemState::Keys(keys)) => WrittenState::Keys(keys),
            StreamState::System(SystemState::Settings(state)) => WrittenState::Settings(state),
            StreamState::System(SystemState::Incidents(state)) => WrittenState::Incidents(state),
            StreamState::System(SystemState::Notices(state)) => WrittenState::Notices(state),
            StreamState::System(
                SystemState::Signals | SystemState::Edge | SystemState::Ops | SystemState::Unlisted,
            ) => WrittenState::Nothing,
        };
        // Writing to memory cannot fail; were it to, empty bytes read back as no snapshot.
        serde_json::to_vec(&Written { format: SNAPSHOT_FORMAT, state }).unwrap_or_default()
    }

    /// Reads a snapshot of `stream`; `None` when the bytes are of another format, of another
    /// kind of stream, or not a state that a fold can lead to.
    #[must_use]
    pub fn from_snapshot(stream: &StreamName, bytes: &[u8]) -> Option<StreamState> {
        let read: Read = serde_json::from_slice(bytes).ok()?;
        if read.format != SNAPSHOT_FORMAT {
            return None;
        }
        match (read.state, StreamState::empty(stream)) {
            (ReadState::Tenant(state), StreamState::Tenant(_)) => {
                is_folded(&state).then_some(StreamState::Tenant(state))
            }
            (ReadState::Keys(keys), StreamState::System(SystemState::Keys(_))) => keys
                .is_folded(Owner::SERVICE)
                .then_some(StreamState::System(SystemState::Keys(keys))),
            (ReadState::Settings(state), StreamState::System(SystemState::Settings(_))) => {
                state.is_folded().then_some(StreamState::System(SystemState::Settings(state)))
            }
            (ReadState::Incidents(state), StreamState::System(SystemState::Incidents(_))) => {
                state.is_folded().then_some(StreamState::System(SystemState::Incidents(state)))
            }
            (ReadState::Notices(state), StreamState::System(SystemState::Notices(_))) => {
                state.is_folded().then_some(StreamState::System(SystemState::Notices(state)))
            }
            (ReadState::Nothing, StreamState::System(state)) => match state {
                SystemState::Keys(_)
                | SystemState::Settings(_)
                | SystemState::Incidents(_)
                | SystemState::Notices(_) => None,
                recorder => Some(StreamState::System(recorder)),
            },
            _ => None,
        }
    }
}

/// True when a fold can lead to this state of a tenant.
fn is_folded(state: &TenantState) -> bool {
    let ordered = state.entitlements.is_sorted_by(|a, b| a.id() < b.id());
    let kept = |held: &Entitlement| {
        !held.is_blank() && !held.is_revoked() && !state.revoked.holds(held.id())
    };
    let kept = state.entitlements.iter().all(kept);
    let revoked = state.revoked.ids().is_sorted_by(|a, b| a < b);
    let ai = state.ai.as_deref().is_none_or(AiState::is_folded);
    ordered && kept && revoked && ai && state.keys.is_folded(Owner::TENANT)
}

/// Types of other crates that are written as the word that they are in receipts.
pub(crate) mod word {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use types::{Hash, ReceiptId, Scopes, Severity};

    /// What has exactly one word.
    pub(crate) trait Word: Sized {
        fn to_word(&self) -> String;
        fn from_word(word: &str) -> Option<Self>;
    }

    impl Word for ReceiptId {
        fn to_word(&self) -> String {
            self.to_string()
        }

        fn from_word(word: &str) -> Option<ReceiptId> {
            ReceiptId::parse(word)
        }
    }

    impl Word for Hash {
        fn to_word(&self) -> String {
            self.to_string()
        }

        fn from_word(word: &str) -> Option<Hash> {
            Hash::from_hex(word.as_bytes())
        }
    }

    impl Word for Scopes {
        fn to_word(&self) -> String {
            self.to_string()
        }

        fn from_word(word: &str) -> Option<Scopes> {
            Scopes::parse(word)
        }
    }

    impl Word for Severity {
        fn to_word(&self) -> String {
            self.as_str().to_owned()
        }

        fn from_word(word: &str) -> Option<Severity> {
            Severity::parse(word)
        }
    }

    pub(crate) fn serialize<T: Word, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&value.to_word())
    }

    pub(crate) fn deserialize<'de, T: Word, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        let word = String::deserialize(from)?;
        T::from_word(&word).ok_or_else(|| serde::de::Error::custom("unknown word"))
    }
}
