//! Refusals before a decision, in aggregate.
//!
//! Owns: the counts per (tenant, reason, endpoint) since the last receipt. A refusal of this kind
//! waits for no sync and writes no receipt of its own, so that nobody can flood the ledger; every
//! ten seconds each count becomes one receipt, of a tenant in its own chain, else in `_edge`.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use types::{Reason, TenantId};

/// The span that one receipt covers.
pub const WINDOW: Duration = Duration::from_secs(10);

/// Counts that are kept apart at once. Beyond it a refusal counts without its tenant: those are as
/// many as reasons × routes, both closed sets.
const COUNTS_MAX: usize = 1_000;

/// What is counted together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// The route.
    pub endpoint: &'static str,
    /// Whose credential it was; `None` where nobody is known.
    pub tenant: Option<TenantId>,
}

/// The counts.
#[derive(Debug, Default)]
pub struct Edge(Mutex<BTreeMap<Refusal, u64>>);

impl Edge {
    /// Counts one refusal.
    pub fn count(&self, refusal: Refusal) {
        self.add(refusal, 1);
    }

    /// Takes all counts out.
    #[must_use]
    pub fn take(&self) -> Vec<(Refusal, u64)> {
        let counts = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        counts.into_iter().collect()
    }

    /// Adds to a count, as for refusals that could not be recorded: the next receipt covers them.
    pub fn add(&self, refusal: Refusal, count: u64) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let apart = counts.len() < COUNTS_MAX || counts.contains_key(&refusal);
        let tenant = refusal.tenant.filter(|_| apart);
        *counts.entry(Refusal { tenant, ..refusal }).or_default() += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_kept_apart_as_far_as_there_is_room() {
        let edge = Edge::default();
        let of = |tenant: Option<usize>| Refusal {
            reason: Reason::RateLimitExceeded,
            endpoint: "/pubsub",
            tenant: tenant.map(|nth| TenantId::new(&format!("t{nth}")).unwrap()),
        };
        for nth in 0..COUNTS_MAX + 50 {
            edge.count(of(Some(nth)));
            edge.count(of(Some(0)));
        }
        let counts = edge.take();
        assert!(counts.len() <= COUNTS_MAX + 1, "{}", counts.len());
        assert_eq!(
            counts.iter().map(|(_, count)| count).sum::<u64>(),
            2 * (COUNTS_MAX as u64 + 50)
        );
        assert!(counts.contains(&(of(None), 50)), "those without room count together");
        assert!(edge.take().is_empty());
    }
}
