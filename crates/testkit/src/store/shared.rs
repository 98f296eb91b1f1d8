//! What a store must do that several processes write.
//!
//! Owns: the checks with more than one writer, and a load that counts what it was told.
//! Refuses to know: any backend, and how it is disturbed.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use engine::ports::{AppendError, Batch, IdemKey, Store};
use types::StreamName;

use super::author::{Author, attempt, everything, key, keyed, note, result, stream};

/// Some writers of one new ledger.
pub type Writers = Vec<Box<dyn Store>>;

type Check = fn(&[Box<dyn Store>]);

/// Runs every check on a ledger of its own; `make` gives so many writers of a new one.
pub fn suite(make: &dyn Fn(usize) -> Writers) {
    let checks: [Check; 5] =
        [has_own_logs, names_lost_streams, shares_keys, shares_projections, settles_own_attempts];
    checks.iter().for_each(|check| check(&make(2)));
}

fn lost(outcome: Result<(), AppendError>) -> Vec<StreamName> {
    match outcome {
        Err(AppendError::Conflict { streams }) => streams,
        other => panic!("not a lost race: {other:?}"),
    }
}

fn has_own_logs(writers: &[Box<dyn Store>]) {
    let [a, b] = [&*writers[0], &*writers[1]];
    assert_eq!(a.identity().ledger, b.identity().ledger);
    assert!(a.is_shared() && b.is_shared());
    let (mut by_a, mut by_b) = (Author::of(a), Author::of(b));
    by_a.append(a, &[(&stream("a"), note()), (&stream("a"), note())]);
    assert_eq!(b.head().unwrap(), by_b.head, "another writer's log");
    by_b.append(b, &[(&stream("b"), note())]);
    assert_eq!(a.head().unwrap(), by_a.head);
    assert_eq!((by_a.head.size, by_b.head.size), (2, 1));
    assert_eq!(everything(a), everything(b));
    // One stream goes on in another writer's log.
    by_b.catch_up(b, &[stream("a")]).unwrap();
    by_b.append(b, &[(&stream("a"), note())]);
    let read = a.read(&stream("a"), 0, 9).unwrap();
    assert_eq!(read.iter().map(|stored| stored.seq).collect::<Vec<_>>(), [0, 1, 2]);
    assert!(read.is_sorted_by_key(|stored| stored.pos));
}

fn names_lost_streams(writers: &[Box<dyn Store>]) {
    let [a, b] = [&*writers[0], &*writers[1]];
    let [hot, warm, cold] = ["hot", "warm", "cold"].map(stream);
    let (mut by_a, mut by_b) = (Author::of(a), Author::of(b));
    by_a.append(a, &[(&hot, note()), (&warm, note())]);
    let before = by_b.clone();
    let batch = by_b.batch(&[(&cold, note()), (&hot, note()), (&warm, note()), (&hot, note())]);
    let mut streams = lost(b.append(&batch));
    streams.sort();
    assert_eq!(streams, [hot.clone(), warm.clone()], "new streams that were begun by another");
    assert!(b.read(&cold, 0, 9).unwrap().is_empty(), "nothing was written");
    assert_eq!(b.head().unwrap(), before.head);
    // Without them the rest goes through, and they do when they are looked at again.
    by_b = before;
    by_b.append(b, &[(&cold, note())]);
    by_b.catch_up(b, std::slice::from_ref(&hot)).unwrap();
    by_b.append(b, &[(&hot, note()), (&cold, note())]);
    let stale = by_a.batch(&[(&warm, note()), (&hot, note())]);
    assert_eq!(lost(a.append(&stale)), [hot], "a stream that was moved on");
    assert_eq!(a.read(&warm, 0, 9).unwrap().len(), 1);
    // A fork: the right position behind a receipt that is not there.
    let mut forked = Author::of(a);
    let mut batch = forked.batch(&[(&warm, note())]);
    batch.entries[0].prev_hash = Some(types::Hash([7; 32]));
    assert_eq!(lost(a.append(&batch)), [warm]);
}

fn shares_keys(writers: &[Box<dyn Store>]) {
    let [a, b] = [&*writers[0], &*writers[1]];
    let (one, other, third) = (stream("a"), stream("b"), stream("c"));
    let (mut by_a, mut by_b) = (Author::of(a), Author::of(b));
    let ids = by_a.append(a, &[(&one, keyed(note(), key(1)))]);
    let found = b.find_keys(&[key(1)]).unwrap();
    assert_eq!(found[0].as_ref().map(|stored| stored.id), Some(ids[0]));
    let again = by_b.batch(&[(&third, note()), (&other, keyed(note(), key(1)))]);
    // Which stream it is may be said, and must then be right.
    let streams = lost(b.append(&again));
    assert!(streams.is_empty() || streams == [other.clone()], "{streams:?}");
    assert!(b.read(&other, 0, 9).unwrap().is_empty() && b.read(&third, 0, 9).unwrap().is_empty());
}

fn shares_projections(writers: &[Box<dyn Store>]) {
    let [a, b] = [&*writers[0], &*writers[1]];
    let one = stream("a");
    let mut by_a = Author::of(a);
    let mut batch = by_a.batch(&[(&one, note())]);
    batch.due = vec![(one.clone(), Some(types::Micros(9))), (one.clone(), Some(types::Micros(5)))];
    batch.snapshots = vec![by_a.snapshot(&one, b"old"), by_a.snapshot(&one, b"new")];
    a.append(&batch).unwrap();
    assert_eq!(b.due(types::Micros(5), 9).unwrap().len(), 1, "the last word counts");
    assert_eq!(b.snapshot(&one).unwrap().unwrap().state, b"new");
    let mut by_b = Author::of(b);
    let mut batch = by_b.batch(&[(&one, note())]);
    batch.due = vec![(one.clone(), None)];
    b.append(&batch).unwrap();
    assert!(a.due(types::Micros(i64::MAX), 9).unwrap().is_empty());
}

fn settles_own_attempts(writers: &[Box<dyn Store>]) {
    let [a, b] = [&*writers[0], &*writers[1]];
    let open = |store: &dyn Store| -> Vec<_> {
        store.unsettled(9).unwrap().iter().map(|stored| stored.id).collect()
    };
    let ids = Author::of(a).append(a, &[(&stream("a"), attempt())]);
    assert_eq!(open(a), ids);
    assert!(open(b).is_empty(), "its writer is still there");
    // Whoever settles it, it is settled for all.
    Author::of(b).append(b, &[(&stream("a"), result(ids[0]))]);
    assert!(open(a).is_empty());
}

/// What each writer of a load does.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Receipts that each writer must get acknowledged.
    pub each: usize,
    /// Receipts of one batch, half of them in the stream that everybody writes.
    pub batch: usize,
    /// Streams beside it, which also several write.
    pub others: usize,
}

/// What was seen under a load.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tally {
    /// Receipts that must be there.
    pub receipts: usize,
    /// Batches that were written.
    pub batches: usize,
    /// Streams of batches that were lost to another writer.
    pub lost: usize,
    /// Batches that were answered with "unavailable".
    pub unavailable: usize,
    /// Batches whose outcome was not known at first.
    pub unknown: usize,
    /// The longest call, in milliseconds.
    pub longest_ms: u128,
}

/// How long a writer goes on trying while the store is away.
const PATIENCE: Duration = Duration::from_secs(60);

/// Lets all writers append at once, each as the engine does: what lost a race is done again on what
/// is there now, what was acknowledged never, what is not known is looked up by its keys. Each
/// receipt has a key of its own, so that every one can be asked for afterwards, with
/// [`check_all_there`].
pub fn run(writers: &[Box<dyn Store>], load: Load) -> Tally {
    let start = Barrier::new(writers.len());
    let tallies: Vec<Tally> = std::thread::scope(|scope| {
        let threads: Vec<_> = writers
            .iter()
            .enumerate()
            .map(|(nth, store)| {
                let start = &start;
                scope.spawn(move || {
                    start.wait();
                    Worker::new(&**store, nth, load).run()
                })
            })
            .collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let mut sum = Tally::default();
    for tally in tallies {
        sum.receipts += tally.receipts;
        sum.batches += tally.batches;
        sum.lost += tally.lost;
        sum.unavailable += tally.unavailable;
        sum.unknown += tally.unknown;
        sum.longest_ms = sum.longest_ms.max(tally.longest_ms);
    }
    sum
}

/// Checks that everything is there that so many writers were told is there.
pub fn check_all_there(store: &dyn Store, writers: usize, load: Load) {
    for nth in 0..writers {
        let keys: Vec<_> = (0..load.each).map(|n| op_key(nth, n)).collect();
        for keys in keys.chunks(1_000) {
            let found = store.find_keys(keys).unwrap();
            assert!(found.iter().all(Option::is_some), "a receipt of writer {nth} is missing");
        }
    }
}

/// The key of one receipt: writer, count.
fn op_key(writer: usize, n: usize) -> IdemKey {
    let mut key = [0xab; 16];
    key[..4].copy_from_slice(&(writer as u32).to_be_bytes());
    key[4..12].copy_from_slice(&(n as u64).to_be_bytes());
    key
}

/// A receipt to be written.
type Op = (StreamName, IdemKey);

struct Worker<'a> {
    store: &'a dyn Store,
    nth: usize,
    load: Load,
    author: Author,
    tally: Tally,
}

impl<'a> Worker<'a> {
    fn new(store: &'a dyn Store, nth: usize, load: Load) -> Worker<'a> {
        let author = Author::of_stream(store, &stream("hot"));
        Worker { store, nth, load, author, tally: Tally::default() }
    }

    fn run(mut self) -> Tally {
        let mut next = 0;
        while next < self.load.each {
            let count = self.load.batch.min(self.load.each - next);
            let other = stream(&format!("warm-{}", (self.nth + next) % self.load.others.max(1)));
            let hot = if self.load.others == 0 { count } else { count / 2 };
            let mut todo: Vec<Op> = (0..count)
                .map(|n| {
                    let name = if n < hot { stream("hot") } else { other.clone() };
                    (name, op_key(self.nth, next + n))
                })
                .collect();
            while !todo.is_empty() {
                self.attempt(&mut todo);
            }
            next += count;
        }
        self.tally
    }

    /// Takes out of `todo` what is there afterwards.
    fn attempt(&mut self, todo: &mut Vec<Op>) {
        let before = self.author.clone();
        let drafts: Vec<_> = todo.iter().map(|(name, key)| (name, keyed(note(), *key))).collect();
        let batch = self.author.batch(&drafts);
        match self.timed(&batch) {
            Ok(()) => self.kept(todo),
            Err(AppendError::Conflict { streams }) if !streams.is_empty() => {
                self.tally.lost += streams.len();
                self.author = before;
                let is_lost = |op: &Op| streams.contains(&op.0);
                let back: Vec<Op> = todo.extract_if(.., |op| is_lost(op)).collect();
                assert!(!back.is_empty(), "lost what is not in the batch");
                // The others' receipts are as good as before.
                if !todo.is_empty() {
                    self.attempt(todo);
                }
                self.catch_up(&streams);
                todo.extend(back);
            }
            Err(AppendError::Conflict { .. }) => self.again(before, todo),
            Err(AppendError::Unavailable(_) | AppendError::Quota(_)) => {
                self.tally.unavailable += 1;
                self.again(before, todo);
                let keys: Vec<_> = todo.iter().map(|(_, key)| *key).collect();
                let found = self.patiently(|store| store.find_keys(&keys));
                assert!(found.iter().all(Option::is_none), "unavailable, and written");
            }
            Err(AppendError::Unknown(_)) => {
                self.tally.unknown += 1;
                self.again(before, todo);
                let keys: Vec<_> = todo.iter().map(|(_, key)| *key).collect();
                let found = self.patiently(|store| store.find_keys(&keys));
                let there = found.iter().flatten().count();
                assert!(there == 0 || there == keys.len(), "half a batch");
                if there > 0 {
                    self.kept(todo);
                }
            }
            Err(AppendError::Fatal(why)) => panic!("{why}"),
        }
    }

    fn kept(&mut self, todo: &mut Vec<Op>) {
        self.tally.batches += 1;
        self.tally.receipts += todo.len();
        todo.clear();
    }

    /// Believes nothing any more and looks at the store, as soon as it is back.
    fn again(&mut self, before: Author, todo: &[Op]) {
        self.author = before;
        let mut names: Vec<_> = todo.iter().map(|(name, _)| name.clone()).collect();
        names.sort();
        names.dedup();
        self.catch_up(&names);
    }

    fn catch_up(&mut self, names: &[StreamName]) {
        let mut author = self.author.clone();
        self.author = self.patiently(|store| {
            author.catch_up(store, names)?;
            Ok::<_, engine::ports::ReadError>(author.clone())
        });
    }

    fn patiently<T, E: std::fmt::Debug>(
        &self,
        mut ask: impl FnMut(&dyn Store) -> Result<T, E>,
    ) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match ask(self.store) {
                Ok(answer) => return answer,
                Err(error) => assert!(Instant::now() < deadline, "{error:?}"),
            }
            // Nothing announces that a store is back.
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn timed(&mut self, batch: &Batch) -> Result<(), AppendError> {
        let started = Instant::now();
        let outcome = self.store.append(batch);
        self.tally.longest_ms = self.tally.longest_ms.max(started.elapsed().as_millis());
        outcome
    }
}
