//! Refusals before a decision, in aggregate.
//!
//! Owns: the counts per (reason, endpoint) since the last receipt. A refusal of this kind waits
//! for no sync and writes no receipt of its own, so that nobody can flood the ledger; every ten
//! seconds each count becomes one receipt in `_edge`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use types::Reason;

/// The span that one receipt covers.
pub const WINDOW: Duration = Duration::from_secs(10);

/// The counts. Bounded by reasons × routes, both closed sets.
#[derive(Debug, Default)]
pub struct Edge(Mutex<BTreeMap<(Reason, &'static str), u64>>);

impl Edge {
    /// Counts one refusal.
    pub fn count(&self, reason: Reason, endpoint: &'static str) {
        self.add(reason, endpoint, 1);
    }

    /// Takes all counts out.
    #[must_use]
    pub fn take(&self) -> Vec<(Reason, &'static str, u64)> {
        let counts = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        counts.into_iter().map(|((reason, endpoint), count)| (reason, endpoint, count)).collect()
    }

    /// Puts counts back that could not be recorded: the next receipt covers them too.
    pub fn add(&self, reason: Reason, endpoint: &'static str, count: u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry((reason, endpoint)).or_default() += count;
    }
}
