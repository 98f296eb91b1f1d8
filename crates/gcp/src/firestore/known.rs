//! The newest receipt of each stream that this store has read or written.
//!
//! Owns: what is remembered of them, and whether a receipt may follow. Receipts never change, so
//! nothing here is ever wrong; a stream that is missing, or has moved on, only costs a read.
//! Refuses to know: where they are kept.

use engine::ports::{Entry, Stored};
use ledger::Sealed;
use moka::sync::Cache;
use types::{Hash, Micros, StreamName};

use super::rows;

/// Streams that are remembered.
const STREAMS_MAX: u64 = 100_000;

/// The newest receipt of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Newest {
    pub(super) seq: u64,
    pub(super) hash: Hash,
    pub(super) at: Micros,
}

impl Newest {
    pub(super) fn of(sealed: &Sealed) -> Newest {
        Newest { seq: sealed.seq, hash: sealed.hash, at: sealed.at }
    }

    /// True when the entry's receipt may stand just behind this one. Places follow from instants,
    /// so the later one must be later (INV-17), whoever's clock it was.
    pub(super) fn precedes(&self, entry: &Entry) -> bool {
        let sealed = &entry.sealed;
        self.seq.checked_add(1) == Some(sealed.seq)
            && entry.prev_hash == Some(self.hash)
            && self.at < sealed.at
    }
}

pub(super) struct Known(Cache<StreamName, Newest>);

impl Known {
    pub(super) fn new() -> Known {
        Known(Cache::new(STREAMS_MAX))
    }

    pub(super) fn newest(&self, stream: &StreamName) -> Option<Newest> {
        self.0.get(stream)
    }

    pub(super) fn wrote(&self, sealed: &Sealed) {
        self.keep(&sealed.stream, Newest::of(sealed));
    }

    pub(super) fn read(&self, stored: &Stored) {
        let newest =
            Newest { seq: stored.seq, hash: stored.hash, at: rows::instant_of(stored.pos) };
        self.keep(&stored.stream, newest);
    }

    fn keep(&self, stream: &StreamName, newest: Newest) {
        // Between two threads the older may win, which only costs a read.
        if self.newest(stream).is_none_or(|known| known.seq < newest.seq) {
            self.0.insert(stream.clone(), newest);
        }
    }
}
