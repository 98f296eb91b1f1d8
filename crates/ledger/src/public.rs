//! The public form: the core with `hash` and `chain_hash` in their places.
//!
//! Owns: splicing the two fields in and out. The core's own bytes are never rewritten, so that
//! what a reader gets back is what was hashed.

use types::Hash;

use crate::HASH_PREFIX;
use crate::scan::{ScanError, View};

/// Bytes of one added member beside its name: comma, four quotes, colon, prefix and digits.
const MEMBER_BYTES: usize = HASH_PREFIX.len() + 64 + 6;

/// What the public form has more than the core.
pub(crate) const ADDED_BYTES: usize = "hash".len() + "chain_hash".len() + 2 * MEMBER_BYTES;

/// The public bytes of a stored receipt.
pub fn public_bytes(core: &[u8], hash: Hash, chain_hash: Hash) -> Result<Vec<u8>, ScanError> {
    let place = View::scan(core)?.public;
    let mut out = Vec::with_capacity(core.len() + ADDED_BYTES);
    out.extend_from_slice(&core[..place.chain_hash_at]);
    member(&mut out, "chain_hash", chain_hash);
    out.extend_from_slice(&core[place.chain_hash_at..place.hash_at]);
    member(&mut out, "hash", hash);
    out.extend_from_slice(&core[place.hash_at..]);
    Ok(out)
}

fn member(out: &mut Vec<u8>, name: &str, hash: Hash) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
    out.extend_from_slice(HASH_PREFIX.as_bytes());
    hash.write_hex(out);
    out.push(b'"');
}

/// Takes public bytes apart: core, `hash`, `chain_hash`.
pub fn split(public: &[u8]) -> Result<(Vec<u8>, Hash, Hash), ScanError> {
    let place = View::scan_public(public)?.public;
    let (Some(hash), Some(chain_hash)) = (place.hash, place.chain_hash) else {
        return Err(ScanError { at: 0, why: "hash and chain_hash are in the wrong form" });
    };
    let hash_from = place.hash_at - ("hash".len() + MEMBER_BYTES);
    let chain_to = place.chain_hash_at + "chain_hash".len() + MEMBER_BYTES;
    let mut core = Vec::with_capacity(public.len());
    core.extend_from_slice(&public[..place.chain_hash_at]);
    core.extend_from_slice(&public[chain_to..hash_from]);
    core.extend_from_slice(&public[place.hash_at..]);
    Ok((core, hash, chain_hash))
}
