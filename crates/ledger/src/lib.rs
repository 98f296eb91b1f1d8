//! Receipts: their canonical bytes, their hash chain and the verifier. The public format is
//! described in `docs/receipts.md`; this crate is that document in code.
//!
//! Owns: what is hashed and how, the order of fields, what counts as intact.
//! Refuses to know: where bytes are kept, what a decision means, and any clock.

mod digest;
pub mod draft;
pub mod export;
pub mod head;
mod heads;
pub mod public;
pub mod scan;
pub mod seal;
pub mod verify;
mod write;

pub use draft::{Draft, Kind, Meta};
pub use head::{HeadRecord, LedgerId};
pub use scan::{MetaView, ScanError, View};
pub use seal::{SealError, Sealed, StreamHead, chain_hash, receipt_id, seal};
pub use verify::{Report, Row, Verifier};

/// The format version that this crate writes and reads: the receipt field `v`.
pub const FORMAT_VERSION: i64 = 1;

/// What stands before the hex digits of `hash`, `chain_hash` and all but the first `prev_hash`.
pub const HASH_PREFIX: &str = "sha256:";

/// `prev_hash` of the first receipt of a stream: 64 zeros, without a prefix.
pub const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";
