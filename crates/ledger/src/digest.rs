//! SHA-256 over what is short: a sealed or verified receipt costs one hash of its bytes and three
//! of less than two blocks, for which a buffering hasher takes as long as the rounds themselves.
//!
//! Owns: the padding of such messages (FIPS 180-4, 5.1.1). Refuses to know: what is hashed.

use sha2::block_api::compress256;
use sha2::{Digest, Sha256};
use types::Hash;

const BLOCK_BYTES: usize = 64;

/// One block takes this much of a message: behind it come a 1 bit and 64 bits of length.
const ONE_BLOCK_BYTES: usize = BLOCK_BYTES - 9;

/// FIPS 180-4, 5.3.3.
const INITIAL: [u32; 8] = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// What stands behind a message of exactly one block.
const AFTER_ONE_BLOCK: [u8; BLOCK_BYTES] = {
    let mut block = [0; BLOCK_BYTES];
    block[0] = 0x80;
    let bits = (BLOCK_BYTES as u16 * 8).to_be_bytes();
    block[BLOCK_BYTES - 2] = bits[0];
    block[BLOCK_BYTES - 1] = bits[1];
    block
};

/// SHA-256 of `bytes`.
#[must_use]
pub fn sha256(bytes: &[u8]) -> Hash {
    Hash(Sha256::digest(bytes).into())
}

/// SHA-256(left ‖ right), over the raw digests.
pub(crate) fn sha256_pair(left: Hash, right: Hash) -> Hash {
    let mut block = [0; BLOCK_BYTES];
    block[..32].copy_from_slice(&left.0);
    block[32..].copy_from_slice(&right.0);
    of_blocks(&[block, AFTER_ONE_BLOCK])
}

/// SHA-256 of all parts, one behind the other.
pub(crate) fn sha256_parts(parts: &[&[u8]]) -> Hash {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    if len > ONE_BLOCK_BYTES {
        let mut hasher = Sha256::new();
        parts.iter().for_each(|part| hasher.update(part));
        return Hash(hasher.finalize().into());
    }
    let mut block = [0; BLOCK_BYTES];
    let mut at = 0;
    for part in parts {
        block[at..at + part.len()].copy_from_slice(part);
        at += part.len();
    }
    block[at] = 0x80;
    block[BLOCK_BYTES - 8..].copy_from_slice(&(len as u64 * 8).to_be_bytes());
    of_blocks(&[block])
}

fn of_blocks(padded: &[[u8; BLOCK_BYTES]]) -> Hash {
    let mut state = INITIAL;
    compress256(&mut state, padded);
    let mut digest = [0; 32];
    for (bytes, word) in digest.chunks_exact_mut(4).zip(state) {
        bytes.copy_from_slice(&word.to_be_bytes());
    }
    Hash(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_messages_have_the_digest_of_the_library() {
        let bytes: Vec<u8> = (0..200).map(|n| (n * 7 + 3) as u8).collect();
        for len in 0..bytes.len() {
            let (left, right) = bytes[..len].split_at(len / 3);
            assert_eq!(sha256_parts(&[left, right]), sha256(&bytes[..len]), "{len} bytes");
        }
        let half = |at: usize| Hash(std::array::from_fn(|n| bytes[at + n]));
        assert_eq!(sha256_pair(half(0), half(32)), sha256(&bytes[..64]));
    }
}
