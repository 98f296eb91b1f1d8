//! Connections that wait for their next request.
//!
//! Owns: how many, how long, and which one is taken. Refuses to know: what a connection is.
//!
//! The one that was used last is taken first: the others grow old and are closed, so a peak leaves
//! no connections behind. Nothing runs in the background; what is too old goes whenever anything is
//! taken, and when [`Pool::sweep`] is called.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Below the minute or more after which providers and their load balancers close an idle connection
/// themselves: a request that crosses with a close is lost.
const IDLE_MAX: Duration = Duration::from_secs(55);

/// Idle connections, the oldest first.
#[derive(Debug)]
pub(crate) struct Pool<C> {
    idle: Mutex<Vec<(Instant, C)>>,
    max: usize,
}

impl<C> Pool<C> {
    pub(crate) fn new(max: usize) -> Pool<C> {
        Pool { idle: Mutex::new(Vec::new()), max }
    }

    /// Takes the youngest.
    pub(crate) fn take(&self, now: Instant) -> Option<C> {
        let (since, connection) = self.idle().pop()?;
        if is_old(since, now) {
            // All the others are older.
            self.sweep(now);
            return None;
        }
        Some(connection)
    }

    /// Gives one back.
    pub(crate) fn put(&self, connection: C, now: Instant) {
        let mut idle = self.idle();
        if idle.len() < self.max {
            idle.push((now, connection));
        }
    }

    /// Closes what is too old.
    pub(crate) fn sweep(&self, now: Instant) {
        let mut idle = self.idle();
        let young = idle.partition_point(|(since, _)| is_old(*since, now));
        let old: Vec<_> = idle.drain(..young).collect();
        // Closing is a call of the system for each, and nobody has to wait for them.
        drop(idle);
        drop(old);
    }

    fn idle(&self) -> MutexGuard<'_, Vec<(Instant, C)>> {
        // Nothing in here can panic half-way through a change.
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_old(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) >= IDLE_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_youngest_is_taken_and_the_old_are_closed() {
        let start = Instant::now();
        let pool = Pool::new(10);
        pool.put("first", start);
        pool.put("second", start + IDLE_MAX / 2);
        pool.put("third", start + IDLE_MAX / 2);
        assert_eq!(pool.take(start + IDLE_MAX), Some("third"));
        pool.sweep(start + IDLE_MAX);
        assert_eq!(pool.idle().len(), 1);
        assert_eq!(pool.take(start + IDLE_MAX), Some("second"));
        assert_eq!(pool.take(start + IDLE_MAX), None);
    }

    #[test]
    fn when_the_youngest_is_too_old_all_are() {
        let start = Instant::now();
        let pool = Pool::new(10);
        (0..5).for_each(|n| pool.put(n, start));
        assert_eq!(pool.take(start + IDLE_MAX), None);
        assert!(pool.idle().is_empty());
    }

    #[test]
    fn there_are_never_more_than_may_be() {
        let start = Instant::now();
        let pool = Pool::new(2);
        (0..5).for_each(|n| pool.put(n, start));
        assert_eq!(pool.idle().len(), 2);
    }
}
