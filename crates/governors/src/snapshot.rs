//! A state as bytes: a cache of the fold, never the truth.
//!
//! Owns: the snapshot format and its number. Refuses to know: where snapshots are kept. Whatever
//! does not read back exactly is no snapshot, and the caller folds from the beginning.

use serde::{Deserialize, Serialize};
use types::StreamName;

use crate::entitlement::Entitlement;
use crate::state::{StreamState, TenantState};

/// Raised whenever a state of the same receipts would be written differently.
const SNAPSHOT_FORMAT: u32 = 2;

#[derive(Serialize)]
struct Written<'a> {
    format: u32,
    tenant: Option<&'a TenantState>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Read {
    format: u32,
    tenant: Option<TenantState>,
}

impl StreamState {
    /// The state as bytes for [`StreamState::from_snapshot`] of the same stream.
    #[must_use]
    pub fn to_snapshot(&self) -> Vec<u8> {
        let tenant = match self {
            StreamState::Tenant(state) => Some(state),
            StreamState::System(_) => None,
        };
        // Writing to memory cannot fail; were it to, empty bytes read back as no snapshot.
        serde_json::to_vec(&Written { format: SNAPSHOT_FORMAT, tenant }).unwrap_or_default()
    }

    /// Reads a snapshot of `stream`; `None` when the bytes are of another format, of another
    /// kind of stream, or not a state that a fold can lead to.
    #[must_use]
    pub fn from_snapshot(stream: &StreamName, bytes: &[u8]) -> Option<StreamState> {
        let read: Read = serde_json::from_slice(bytes).ok()?;
        if read.format != SNAPSHOT_FORMAT {
            return None;
        }
        match (read.tenant, StreamState::empty(stream)) {
            (None, system @ StreamState::System(_)) => Some(system),
            (Some(state), StreamState::Tenant(_)) => {
                let ordered = state.entitlements.is_sorted_by(|a, b| a.id() < b.id());
                let kept = |held: &Entitlement| {
                    !held.is_blank() && !held.is_revoked() && !state.revoked.holds(held.id())
                };
                let kept = state.entitlements.iter().all(kept);
                let revoked = state.revoked.ids().is_sorted_by(|a, b| a < b);
                (ordered && kept && revoked).then_some(StreamState::Tenant(state))
            }
            _ => None,
        }
    }
}

/// Types of other crates that are written as the word that they are in receipts.
pub(crate) mod word {
    use serde::{Deserialize as _, Deserializer, Serializer};
    use types::ReceiptId;

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

    pub(crate) fn serialize<T: Word, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&value.to_word())
    }

    pub(crate) fn deserialize<'de, T: Word, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
        let word = String::deserialize(from)?;
        T::from_word(&word).ok_or_else(|| serde::de::Error::custom("unknown word"))
    }
}
