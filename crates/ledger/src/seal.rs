//! Sealing: a draft gets its place, its bytes and its hashes.
//!
//! Owns: receipt ids, `hash`, `chain_hash` and the head of a stream. Refuses to know: storage.

use types::{Hash, Micros, ReceiptId, StreamName};

pub use crate::digest::sha256;
use crate::digest::{sha256_pair, sha256_parts};
use crate::draft::Draft;
use crate::head::LedgerId;
use crate::write::{Place, core_bytes};

/// Why a draft cannot become a receipt. A caller's text never reaches these messages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// The bytes would pass the limit.
    #[error("receipt is larger than {max_bytes} bytes")]
    TooLarge {
        /// The limit.
        max_bytes: usize,
    },
    /// The profile forbids control characters.
    #[error("{field} holds a control character")]
    ControlCharacter {
        /// The receipt field.
        field: &'static str,
    },
    /// The profile keeps integers within ±(2^53 − 1).
    #[error("{field} is outside the integer range of receipts")]
    IntegerRange {
        /// The receipt field.
        field: &'static str,
    },
    /// Two metadata entries share a key.
    #[error("metadata repeats a key")]
    RepeatedKey,
    /// A metadata key is empty or not plain ASCII.
    #[error("metadata key is not plain ascii")]
    MetadataKey,
}

/// Where a stream stands: what the next receipt links to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StreamHead {
    /// The position of the next receipt; 0 when the stream is empty.
    pub next_seq: u64,
    /// `hash` of the newest receipt; `None` when the stream is empty.
    pub last_hash: Option<Hash>,
    /// `at` of the newest receipt; zero when the stream is empty.
    pub last_at: Micros,
}

impl StreamHead {
    /// The head of a stream without receipts.
    pub const EMPTY: StreamHead = StreamHead { next_seq: 0, last_hash: None, last_at: Micros(0) };

    /// The head after `sealed`, which must be the next receipt of this stream.
    #[must_use]
    pub fn after(&self, sealed: &Sealed) -> StreamHead {
        debug_assert_eq!(self.next_seq, sealed.seq, "INV-4");
        StreamHead { next_seq: sealed.seq + 1, last_hash: Some(sealed.hash), last_at: sealed.at }
    }
}

/// A receipt: its bytes and what was computed over them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The receipt's name.
    pub id: ReceiptId,
    /// The chain that it belongs to.
    pub stream: StreamName,
    /// Its position in that chain.
    pub seq: u64,
    /// Its instant.
    pub at: Micros,
    /// The canonical bytes without `hash` and `chain_hash`. Stored verbatim, hashed as they are.
    pub core: Box<[u8]>,
    /// SHA-256 of `core`.
    pub hash: Hash,
    /// SHA-256 of the raw previous hash and the raw `hash`.
    pub chain_hash: Hash,
}

/// Gives `draft` the next place of `stream` and seals it. `at` is moved forward, never back, so
/// that time does not run backwards in a stream when the wall clock does.
pub fn seal(
    ledger: &LedgerId,
    stream: &StreamName,
    head: &StreamHead,
    at: Micros,
    draft: &Draft,
) -> Result<Sealed, SealError> {
    let at = at.max(head.last_at);
    let id = receipt_id(ledger, stream.as_str(), head.next_seq);
    let place = Place { id, stream, seq: head.next_seq, at, prev_hash: head.last_hash };
    let core = core_bytes(draft, &place)?.into_boxed_slice();
    let hash = sha256(&core);
    let chain_hash = chain_hash(head.last_hash, hash);
    Ok(Sealed { id, stream: stream.clone(), seq: head.next_seq, at, core, hash, chain_hash })
}

/// The first 128 bits of SHA-256 over ledger id (16 bytes) ‖ stream name (UTF-8) ‖ 0x00 ‖ `seq`
/// (8 bytes, big-endian): unique, and of no guessable order.
#[must_use]
pub fn receipt_id(ledger: &LedgerId, stream: &str, seq: u64) -> ReceiptId {
    let hash = sha256_parts(&[&ledger.0, stream.as_bytes(), &[0], &seq.to_be_bytes()]);
    let mut id = [0; 16];
    id.copy_from_slice(&hash.0[..16]);
    ReceiptId(id)
}

/// SHA-256(previous hash ‖ hash), over the raw 32-byte digests; 32 zero bytes stand for no
/// previous receipt.
#[must_use]
pub fn chain_hash(prev_hash: Option<Hash>, hash: Hash) -> Hash {
    sha256_pair(prev_hash.unwrap_or(Hash::ZERO), hash)
}
