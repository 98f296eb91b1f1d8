//! The messages in hand.
//!
//! Owns: how many there are, how old the oldest is, and how each of them ended. Refuses to know:
//! why.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use telemetry::metrics::Metrics;
use types::Micros;

/// All that were taken and are not settled.
#[derive(Debug)]
pub(crate) struct Hand {
    metrics: Arc<Metrics>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    taken: u64,
    /// By the order of arrival; at most as many as may be outstanding.
    published: BTreeMap<u64, Option<Micros>>,
}

impl Hand {
    pub(crate) fn new(metrics: Arc<Metrics>) -> Hand {
        Hand { metrics, held: Mutex::default() }
    }

    /// Takes one in; it is counted as given back unless its guard is told otherwise.
    pub(crate) fn take(self: &Arc<Self>, published: Option<Micros>) -> InHand {
        let mut held = self.lock();
        held.taken += 1;
        let number = held.taken;
        held.published.insert(number, published);
        self.show(&held);
        InHand { hand: Arc::clone(self), number, result: "nacked" }
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.lock().published.len()
    }

    /// Messages taken since the start of the process.
    pub(crate) fn taken(&self) -> u64 {
        self.lock().taken
    }

    /// Seconds since the oldest in hand was published; 0 when there is none, or its clock is
    /// ahead of ours.
    pub(crate) fn oldest_s(&self, now: Micros) -> u64 {
        let oldest = self.lock().published.values().flatten().min().copied();
        let age = oldest.map_or(0, |published| now.secs().saturating_sub(published.secs()));
        u64::try_from(age).unwrap_or(0)
    }

    fn show(&self, held: &Held) {
        let outstanding = i64::try_from(held.published.len()).unwrap_or(i64::MAX);
        self.metrics.pubsub_outstanding.set(outstanding);
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One message in hand. However it ends, by an answer, a stop or a panic, it is counted once.
pub(crate) struct InHand {
    hand: Arc<Hand>,
    number: u64,
    result: &'static str,
}

impl InHand {
    /// Counts it as acknowledged.
    pub(crate) fn acked(mut self) {
        self.result = "acked";
    }
}

impl Drop for InHand {
    fn drop(&mut self) {
        let mut held = self.hand.lock();
        held.published.remove(&self.number);
        self.hand.metrics.pubsub_messages.with([self.result]).inc();
        self.hand.show(&held);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_is_the_earliest_published_that_is_still_in_hand() {
        let metrics = Arc::new(Metrics::new().unwrap());
        let hand = Arc::new(Hand::new(Arc::clone(&metrics)));
        let now = Micros::from_secs(100);
        assert_eq!((hand.outstanding(), hand.oldest_s(now)), (0, 0));
        let at = |second| hand.take(Some(Micros::from_secs(second)));
        let (young, old, timeless) = (at(90), at(40), hand.take(None));
        assert_eq!((hand.outstanding(), hand.oldest_s(now)), (3, 60));
        old.acked();
        assert_eq!((hand.outstanding(), hand.oldest_s(now)), (2, 10));
        assert_eq!(hand.oldest_s(Micros::from_secs(1)), 0, "the publisher's clock is ahead");
        assert_eq!(metrics.pubsub_outstanding.get(), 2);
        drop((young, timeless));
        assert_eq!((hand.outstanding(), hand.taken()), (0, 3));
        let counted = |result| metrics.pubsub_messages.with([result]).get();
        assert_eq!((counted("acked"), counted("nacked")), (1, 2));
    }
}
