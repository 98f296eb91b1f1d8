//! The head record: what the whole ledger amounted to at one moment, kept outside the table, so
//! that a truncated table is found.
//!
//! Owns: the running root over commit order and the record's text. Refuses to know: files.

use sha2::{Digest, Sha256};
use types::hash::{hex_decode, hex_encode};
use types::{Hash, Micros};

use crate::digest::sha256_pair;

/// 128 random bits that name a ledger for its whole life.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LedgerId(pub [u8; 16]);

impl LedgerId {
    /// Reads 32 lower-case hex digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<LedgerId> {
        let mut out = [0; 16];
        hex_decode(text.as_bytes(), &mut out)?;
        Some(LedgerId(out))
    }
}

impl std::fmt::Display for LedgerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl std::fmt::Debug for LedgerId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

/// Bytes of one record, newline included. Two of them alternate in the head file, so that a torn
/// write spoils at most one.
pub const SLOT_BYTES: usize = 256;

/// How many receipts there are in all streams together, and the root over their hashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeadRecord {
    /// The ledger.
    pub ledger: LedgerId,
    /// Receipts in commit order, counted from the beginning.
    pub size: u64,
    /// `root(n) = SHA-256(root(n−1) ‖ hash(n))`, `root(0)` = 32 zero bytes.
    pub root: Hash,
    /// `at` of the newest receipt, zero when there is none.
    pub at: Micros,
}

impl HeadRecord {
    /// The head of a ledger without receipts.
    #[must_use]
    pub const fn empty(ledger: LedgerId) -> HeadRecord {
        HeadRecord { ledger, size: 0, root: Hash::ZERO, at: Micros(0) }
    }

    /// The head after one more receipt.
    #[must_use]
    pub fn after(&self, hash: Hash, at: Micros) -> HeadRecord {
        HeadRecord { size: self.size + 1, root: next_root(self.root, hash), at, ..*self }
    }

    /// The record as one line of [`SLOT_BYTES`], closed by its own SHA-256.
    #[must_use]
    pub fn to_slot(&self) -> [u8; SLOT_BYTES] {
        let mut line =
            format!("tai-head-1 {} {} {} {} ", self.ledger, self.size, self.root, self.at)
                .into_bytes();
        let check: [u8; 32] = Sha256::digest(&line).into();
        hex_encode(&check[..16], &mut line);
        let mut slot = [b' '; SLOT_BYTES];
        slot[..line.len()].copy_from_slice(&line);
        slot[SLOT_BYTES - 1] = b'\n';
        slot
    }

    /// Reads one line; `None` when it is torn, altered or of another version.
    #[must_use]
    pub fn from_slot(slot: &[u8]) -> Option<HeadRecord> {
        let line = std::str::from_utf8(slot.get(..SLOT_BYTES)?).ok()?.trim_end();
        let (body, check) = line.rsplit_once(' ')?;
        let mut wanted = [0; 16];
        hex_decode(check.as_bytes(), &mut wanted)?;
        let actual: [u8; 32] = Sha256::digest(format!("{body} ")).into();
        if actual[..16] != wanted {
            return None;
        }
        let mut parts = body.split(' ');
        if parts.next()? != "tai-head-1" {
            return None;
        }
        let record = HeadRecord {
            ledger: LedgerId::from_hex(parts.next()?)?,
            size: parts.next()?.parse().ok()?,
            root: Hash::from_hex(parts.next()?.as_bytes())?,
            at: Micros::from_text(parts.next()?.as_bytes())?,
        };
        parts.next().is_none().then_some(record)
    }

    /// The newest intact record of a head file's bytes.
    #[must_use]
    pub fn newest(file: &[u8]) -> Option<HeadRecord> {
        file.chunks(SLOT_BYTES).filter_map(HeadRecord::from_slot).max_by_key(|record| record.size)
    }
}

/// One step of the running root.
#[must_use]
pub fn next_root(root: Hash, hash: Hash) -> Hash {
    sha256_pair(root, hash)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_round_trips_and_every_changed_byte_is_noticed() {
        let record = HeadRecord {
            ledger: LedgerId([7; 16]),
            size: 1_234_567,
            root: Hash([9; 32]),
            at: Micros(1_700_000_000_123_456),
        };
        let slot = record.to_slot();
        assert_eq!(HeadRecord::from_slot(&slot), Some(record));
        let used = slot.iter().rposition(|b| !b.is_ascii_whitespace()).unwrap() + 1;
        for at in 0..used {
            let mut broken = slot;
            broken[at] ^= 1;
            assert_eq!(HeadRecord::from_slot(&broken), None, "byte {at}");
        }
    }

    #[test]
    fn the_newest_intact_slot_wins() {
        let old = HeadRecord { size: 4, ..HeadRecord::empty(LedgerId([1; 16])) };
        let new = HeadRecord { size: 5, ..old };
        let mut file = [old.to_slot(), new.to_slot()].concat();
        assert_eq!(HeadRecord::newest(&file), Some(new));
        file[SLOT_BYTES + 20] ^= 1;
        assert_eq!(HeadRecord::newest(&file), Some(old));
        assert_eq!(HeadRecord::newest(b""), None);
    }
}
