//! Answers that are kept for who asks again under the same key.
//!
//! Owns: how many, for how long. Refuses to know: what an answer says. Lost with the process: who
//! asks then is told which receipt the first answer has.

use std::time::Duration;

use bytes::Bytes;
use moka::sync::Cache;
use types::ReceiptId;

/// Bytes of all answers that are kept.
const BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Bytes of one.
const ONE_MAX: usize = 1024 * 1024;
/// How long one is kept.
const TIME: Duration = Duration::from_secs(600);

/// Calls of which is known that nobody answered them.
const FAILED_MAX: u64 = 100_000;

/// The answers, and the calls that nobody answered, by the receipt of their attempt.
pub(crate) struct Kept {
    answers: Cache<ReceiptId, Bytes>,
    failed: Cache<ReceiptId, ()>,
}

impl Default for Kept {
    fn default() -> Kept {
        let weigher = |_: &ReceiptId, body: &Bytes| u32::try_from(body.len()).unwrap_or(u32::MAX);
        let cache = Cache::builder().max_capacity(BYTES_MAX).weigher(weigher).time_to_live(TIME);
        let failed = Cache::builder().max_capacity(FAILED_MAX).time_to_live(TIME);
        Kept { answers: cache.build(), failed: failed.build() }
    }
}

impl Kept {
    pub(crate) fn keep(&self, attempt: ReceiptId, body: &Bytes) {
        if body.len() <= ONE_MAX {
            self.answers.insert(attempt, body.clone());
        }
    }

    /// Nobody answered, and it cost nothing.
    pub(crate) fn fail(&self, attempt: ReceiptId) {
        self.failed.insert(attempt, ());
    }

    pub(crate) fn has_failed(&self, attempt: ReceiptId) -> bool {
        self.failed.contains_key(&attempt)
    }

    pub(crate) fn find(&self, attempt: ReceiptId) -> Option<Bytes> {
        self.answers.get(&attempt)
    }
}
