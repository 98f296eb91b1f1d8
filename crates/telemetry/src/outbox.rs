//! What waits to be sent elsewhere: lines of the log, or spans.
//!
//! Owns: the bounded queue, its order, and the count of what was lost. Refuses to know: what a line
//! says, where lines go, and how they are sent. A caller never waits: what is too much pushes out
//! the oldest.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

/// Lines that wait at most.
const LINES_MAX: usize = 10_000;
/// Their bytes at most.
const BYTES_MAX: usize = 8 * 1024 * 1024;

/// When lines are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OutboxOptions {
    /// Lines that are sent together.
    pub batch_lines: usize,
    /// How long a line may wait for others.
    pub flush_interval: Duration,
}

/// The queue. Copies are one; one of them sends.
#[derive(Clone)]
pub struct Outbox(Arc<Shared>);

struct Shared {
    options: OutboxOptions,
    queue: Mutex<Queue>,
    dropped: AtomicU64,
    wake: OnceLock<Box<dyn Fn() + Send + Sync>>,
}

#[derive(Default)]
struct Queue {
    lines: VecDeque<String>,
    bytes: usize,
}

impl Queue {
    /// Makes room from the oldest on; gives how many lines were lost.
    fn bound(&mut self) -> u64 {
        let mut lost = 0;
        while self.lines.len() > LINES_MAX || self.bytes > BYTES_MAX {
            let Some(line) = self.lines.pop_front() else { break };
            self.bytes -= line.len();
            lost += 1;
        }
        lost
    }
}

impl Outbox {
    /// An empty queue.
    #[must_use]
    pub fn new(options: OutboxOptions) -> Outbox {
        let (queue, dropped, wake) = Default::default();
        Outbox(Arc::new(Shared { options, queue, dropped, wake }))
    }

    /// When lines are sent.
    #[must_use]
    pub fn options(&self) -> OutboxOptions {
        self.0.options
    }

    /// Sets, once, what is called when a batch is full or a flush is asked for. It must not wait,
    /// and must not log.
    pub fn on_full(&self, wake: Box<dyn Fn() + Send + Sync>) {
        let _ = self.0.wake.set(wake);
    }

    /// Adds a line, which is one JSON object.
    pub fn push(&self, line: String) {
        let mut queue = self.lock();
        queue.bytes += line.len();
        queue.lines.push_back(line);
        let lost = queue.bound();
        let is_full = queue.lines.len() == self.0.options.batch_lines;
        drop(queue);
        self.lost(lost);
        if is_full {
            self.flush();
        }
    }

    /// Asks for what waits to be sent now.
    pub fn flush(&self) {
        if let Some(wake) = self.0.wake.get() {
            wake();
        }
    }

    /// Whether a whole batch waits.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.lock().lines.len() >= self.0.options.batch_lines
    }

    /// The oldest lines, at most so many; `None` where none waits.
    #[must_use]
    pub fn take(&self, lines_max: usize) -> Option<Taken> {
        let mut queue = self.lock();
        let count = queue.lines.len().min(lines_max.max(1));
        let lines: Vec<String> = queue.lines.drain(..count).collect();
        queue.bytes -= lines.iter().map(String::len).sum::<usize>();
        drop(queue);
        (!lines.is_empty()).then(|| Taken { outbox: self.clone(), lines })
    }

    /// Lines lost so far.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    fn lost(&self, lines: u64) {
        self.0.dropped.fetch_add(lines, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Lines on their way. Dropped without a word they go back in front of the others.
pub struct Taken {
    outbox: Outbox,
    lines: Vec<String>,
}

impl Taken {
    /// Each is one JSON object.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.lines
    }

    /// They arrived, all but so many that the far side did not keep.
    pub fn arrived(mut self, refused: u64) {
        self.outbox.lost(refused.min(self.lines.len() as u64));
        self.lines.clear();
    }

    /// They are given up.
    pub fn lose(mut self) {
        self.outbox.lost(self.lines.len() as u64);
        self.lines.clear();
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let mut queue = self.outbox.lock();
        for line in self.lines.drain(..).rev() {
            queue.bytes += line.len();
            queue.lines.push_front(line);
        }
        let lost = queue.bound();
        drop(queue);
        self.outbox.lost(lost);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    fn outbox(batch_lines: usize) -> Outbox {
        Outbox::new(OutboxOptions { batch_lines, flush_interval: Duration::from_secs(10) })
    }

    fn lines(taken: &Option<Taken>) -> Vec<&str> {
        taken.iter().flat_map(Taken::lines).map(String::as_str).collect()
    }

    #[test]
    fn lines_come_out_in_order_whatever_becomes_of_a_batch() {
        let outbox = outbox(2);
        ["a", "b", "c", "d", "e"].iter().for_each(|line| outbox.push((*line).to_owned()));
        let taken = outbox.take(2);
        assert_eq!(lines(&taken), ["a", "b"]);
        outbox.push("f".to_owned());
        drop(taken);
        outbox.take(1).unwrap().arrived(0);
        outbox.take(1).unwrap().lose();
        assert_eq!(lines(&outbox.take(9)), ["c", "d", "e", "f"]);
        assert_eq!(lines(&outbox.take(0)), ["c"], "one at least");
        outbox.take(9).unwrap().arrived(2);
        assert!(outbox.take(9).is_none());
        assert_eq!(outbox.dropped(), 3);
    }

    #[test]
    fn a_full_batch_wakes_who_sends_once() {
        let outbox = outbox(3);
        let woken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&woken);
        outbox.on_full(Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        }));
        for (line, times) in [("a", 0), ("b", 0), ("c", 1), ("d", 1)] {
            outbox.push(line.to_owned());
            assert_eq!(woken.load(Ordering::Relaxed), times);
        }
        assert!(outbox.is_full());
        outbox.flush();
        assert_eq!(woken.load(Ordering::Relaxed), 2);
    }

    #[test]
    fn too_many_lines_push_out_the_oldest_and_are_counted() {
        let outbox = outbox(2);
        (0..LINES_MAX + 5).for_each(|line| outbox.push(line.to_string()));
        assert_eq!((lines(&outbox.take(1)), outbox.dropped()), (vec!["5"], 5));
        let taken = outbox.take(3);
        (0..3).for_each(|_| outbox.push("new".to_owned()));
        drop(taken);
        assert_eq!((lines(&outbox.take(1)), outbox.dropped()), (vec!["8"], 8));
    }

    #[test]
    fn too_many_bytes_push_out_the_oldest_and_are_counted() {
        let outbox = outbox(2);
        let large = "x".repeat(BYTES_MAX / 2);
        ["a", &large, &large].iter().for_each(|line| outbox.push((*line).to_owned()));
        assert_eq!((lines(&outbox.take(9)), outbox.dropped()), (vec![&large[..], &large], 1));
    }
}
