//! Keyed hashes: idempotency keys, commitments to bodies, and the seal of snapshots.
//!
//! Owns: what goes into them. They are keyed with the ledger's secret because order numbers and
//! small bodies are guessable: a plain hash of them in a public receipt would give them away.

use hmac::{Hmac, KeyInit, Mac};
use ledger::View;
use sha2::Sha256;
use types::hash::hex_decode;
use types::{Hash, StreamName};

use crate::ports::{IdemKey, Identity, Snapshot};

/// An idempotency key as a caller gave it, with the body that it was given for.
#[derive(Debug, Clone, Copy)]
pub struct CallerKey<'a> {
    /// Whose key it is: `pubsub`, `marketplace`. Keys of one source never meet another's.
    pub source: &'static str,
    /// The key.
    pub key: &'a str,
    /// The body, byte for byte.
    pub body: &'a [u8],
}

/// What the committer and the receipt hold of a caller's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keyed {
    /// Keyed hash of stream, source and key: the receipt field `idem`.
    pub idem: Hash,
    /// Keyed hash of stream and body: the receipt field `commitment`.
    pub commitment: Hash,
}

impl Keyed {
    /// Computes both hashes.
    #[must_use]
    pub fn new(identity: &Identity, stream: &StreamName, key: &CallerKey<'_>) -> Keyed {
        let name = stream.as_str().as_bytes();
        let source = key.source.as_bytes();
        Keyed {
            idem: keyed(identity, b"idem", &[name, source, key.key.as_bytes()]),
            commitment: keyed(identity, b"body", &[name, key.body]),
        }
    }

    /// The key under which the store finds the receipt again.
    #[must_use]
    pub fn store_key(&self) -> IdemKey {
        store_key(self.idem)
    }
}

/// The first half of an `idem` hash.
#[must_use]
pub fn store_key(idem: Hash) -> IdemKey {
    let mut key = [0; 16];
    key.copy_from_slice(&idem.0[..16]);
    key
}

/// The key that a receipt answers, as its bytes name it.
#[must_use]
pub fn named_key(view: &View<'_>) -> Option<IdemKey> {
    let mut key = IdemKey::default();
    hex_decode(view.idem?.text().as_bytes().get(..2 * key.len())?, &mut key)?;
    Some(key)
}

/// Bytes of a keyed hash.
const MAC_LEN: usize = 32;

/// The state of a snapshot as it is stored: behind a keyed hash over it and its place. No receipt
/// holds a hash of a state, so that nothing else would tell an altered one.
#[must_use]
pub fn seal_snapshot(
    identity: &Identity,
    stream: &StreamName,
    seq: u64,
    hash: Hash,
    state: &[u8],
) -> Vec<u8> {
    [&snapshot_mac(identity, stream, seq, hash, state).0[..], state].concat()
}

/// The state out of a stored snapshot; `None` when it is not as it was sealed.
#[must_use]
pub fn open_snapshot<'a>(identity: &Identity, snapshot: &'a Snapshot) -> Option<&'a [u8]> {
    let (mac, state) = snapshot.state.split_at_checked(MAC_LEN)?;
    let Snapshot { stream, seq, hash, .. } = snapshot;
    (snapshot_mac(identity, stream, *seq, *hash, state).0[..] == *mac).then_some(state)
}

fn snapshot_mac(
    identity: &Identity,
    stream: &StreamName,
    seq: u64,
    hash: Hash,
    state: &[u8],
) -> Hash {
    let parts = [stream.as_str().as_bytes(), &seq.to_be_bytes(), &hash.0, state];
    keyed(identity, b"snapshot", &parts)
}

pub(crate) fn keyed(identity: &Identity, label: &[u8], parts: &[&[u8]]) -> Hash {
    // `new` takes a key of the block's length and cannot fail; `new_from_slice` could.
    let mut block = [0; 64];
    block[..32].copy_from_slice(&identity.secret);
    let mut mac = Hmac::<Sha256>::new(&block.into());
    mac.update(label);
    for part in parts {
        // Lengths keep ("ab", "c") and ("a", "bc") apart.
        mac.update(&(part.len() as u64).to_be_bytes());
        mac.update(part);
    }
    Hash(mac.finalize().into_bytes().into())
}
