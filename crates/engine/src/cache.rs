//! Stream states that the decider holds in memory.
//!
//! Owns: which states are loaded, and the rule that no stale state is ever taken for a fresh one.
//! Refuses to know: how a state is read from the store or what it means.
//!
//! Two generations approximate least-recently-used: a state that is touched moves to the young
//! one; when the young one is full the old one is dropped whole. That costs no list and no clock.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use governors::StreamState;
use ledger::StreamHead;
use types::{Micros, StreamName};

/// A stream as the decider knows it.
#[derive(Debug, Clone)]
pub struct Live {
    /// What is decided on.
    pub now: Version,
    /// What it was before groups that may not be durable yet, oldest first: where they fail, the
    /// newest of these that is durable holds again.
    behind: Vec<Version>,
}

/// A stream at one moment.
#[derive(Debug, Clone)]
pub struct Version {
    /// The fold over all receipts up to the head.
    pub state: StreamState,
    /// What the next receipt links to.
    pub head: StreamHead,
    /// The next due time by the fold. The projection was told the same; a row that it has lost
    /// since is not noticed here.
    pub due: Option<Micros>,
    /// The newest group that wrote to it.
    pub last_group: u64,
    /// When nobody else had moved it on: the read that it was loaded by began, or the newest group
    /// was decided, whose fence says the same.
    pub read_at: Instant,
}

impl Live {
    /// A stream as it was read.
    #[must_use]
    pub fn new(now: Version) -> Live {
        Live { now, behind: Vec::new() }
    }

    /// Keeps what it is, since `group` is about to write to it. `committed` is the newest durable
    /// group.
    pub fn keep(&mut self, group: u64, committed: u64) {
        if self.now.last_group == group {
            return;
        }
        let older = self.behind.iter().filter(|version| version.last_group <= committed).count();
        if self.now.last_group <= committed {
            self.behind.clear();
        } else if older > 1 {
            self.behind.drain(..older - 1);
        }
        self.behind.push(self.now.clone());
    }

    /// What is durable of it.
    #[must_use]
    pub fn durable(&self, committed: u64) -> Option<&Version> {
        let newest_first = std::iter::once(&self.now).chain(self.behind.iter().rev());
        newest_first.into_iter().find(|version| version.last_group <= committed)
    }
}

/// A state that was read from the store.
#[derive(Debug)]
pub struct Loaded {
    /// The stream.
    pub live: Live,
    /// Groups that were committed before the read began.
    pub read_after_group: u64,
    /// The life of the decider's memory that the read began in; another life takes no part of it.
    pub epoch: u64,
}

/// The states of a decider, which alone changes them. Where the store is away, others look up what
/// is known.
#[derive(Clone)]
pub struct States(Arc<Mutex<Cache>>);

impl States {
    /// No states, at most `cap`.
    #[must_use]
    pub fn new(cap: usize) -> States {
        States(Arc::new(Mutex::new(Cache::new(cap))))
    }

    /// The states. Not to be held over anything that blocks.
    pub fn lock(&self) -> MutexGuard<'_, Cache> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The loaded states.
pub struct Cache {
    young: HashMap<StreamName, Live>,
    old: HashMap<StreamName, Live>,
    generation_cap: usize,
    /// The newest group of any stream that was dropped: a read that began before that group was
    /// committed may lack its receipts.
    dropped_group: u64,
}

impl Cache {
    /// A cache of at most `cap` states.
    #[must_use]
    pub fn new(cap: usize) -> Cache {
        Cache {
            young: HashMap::new(),
            old: HashMap::new(),
            generation_cap: (cap / 2).max(1),
            dropped_group: 0,
        }
    }

    /// Holds at most `cap` states from now on.
    pub fn resize(&mut self, cap: usize) {
        self.generation_cap = (cap / 2).max(1);
    }

    /// States held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// True when nothing is loaded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The state of a stream, if it is loaded.
    pub fn get(&mut self, stream: &StreamName) -> Option<&mut Live> {
        if !self.young.contains_key(stream) {
            let live = self.old.remove(stream)?;
            self.young.insert(stream.clone(), live);
        }
        self.young.get_mut(stream)
    }

    /// Takes a state from the store unless the stream is loaded already; false when the read is
    /// too old to be trusted and must be done again.
    pub fn admit(&mut self, stream: &StreamName, loaded: Loaded) -> bool {
        if self.get(stream).is_some() {
            return true;
        }
        if loaded.read_after_group < self.dropped_group {
            return false;
        }
        self.young.insert(stream.clone(), loaded.live);
        true
    }

    /// Makes room. `committed` is the newest durable group: states that groups in flight have
    /// touched stay, since the store cannot give them back yet.
    pub fn shrink(&mut self, committed: u64) {
        if self.young.len() < self.generation_cap {
            return;
        }
        let dropped = std::mem::replace(&mut self.old, std::mem::take(&mut self.young));
        for (stream, live) in dropped {
            if live.now.last_group > committed {
                self.young.insert(stream, live);
            } else {
                self.dropped_group = self.dropped_group.max(live.now.last_group);
            }
        }
    }

    /// Forgets one stream, because its memory can no longer be trusted. Reads of other streams
    /// are refused only as long as the last group that touched this one is in flight.
    pub fn forget(&mut self, stream: &StreamName) {
        if let Some(live) = self.young.remove(stream).or_else(|| self.old.remove(stream)) {
            self.dropped_group = self.dropped_group.max(live.now.last_group);
        }
    }

    /// Forgets one stream, because another writer has moved it on. A read that began before is not
    /// refused: what is decided on it loses the race again.
    pub fn lose(&mut self, stream: &StreamName) {
        let _ = self.young.remove(stream).or_else(|| self.old.remove(stream));
    }

    /// Forgets what groups after `committed` have made of the streams: they never become durable.
    pub fn roll_back(&mut self, committed: u64) {
        for generation in [&mut self.young, &mut self.old] {
            generation.retain(|_, live| {
                let durable = live.durable(committed).cloned();
                durable.map(|version| *live = Live::new(version)).is_some()
            });
        }
        self.dropped_group = committed;
    }

    /// Forgets everything that was known before `group`.
    pub fn clear(&mut self, group: u64) {
        self.young.clear();
        self.old.clear();
        // Not the larger of both: a group that was dropped before it was durable never will be, and
        // reads of the life before are told by its epoch.
        self.dropped_group = group;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(n: usize) -> StreamName {
        StreamName::parse(&format!("t{n}")).unwrap()
    }

    fn loaded(n: usize, last_group: u64, read_after_group: u64) -> Loaded {
        let state = StreamState::empty(&name(n));
        let head = StreamHead::EMPTY;
        let now = Version { state, head, due: None, last_group, read_at: Instant::now() };
        Loaded { live: Live::new(now), read_after_group, epoch: 0 }
    }

    #[test]
    fn what_is_used_stays_and_what_is_not_goes() {
        let mut cache = Cache::new(10);
        for n in 0..1000 {
            assert!(cache.admit(&name(n), loaded(n, 0, 0)));
            assert!(cache.get(&name(0)).is_some(), "touched every time");
            cache.shrink(u64::MAX);
            assert!(cache.len() <= 10, "{}", cache.len());
        }
        assert!(cache.get(&name(1)).is_none());
    }

    #[test]
    fn states_of_groups_in_flight_stay() {
        let mut cache = Cache::new(2);
        for n in 0..10 {
            assert!(cache.admit(&name(n), loaded(n, 7, 7)));
            cache.shrink(6);
        }
        assert_eq!(cache.len(), 10);
        for n in 10..12 {
            cache.shrink(7);
            assert!(cache.admit(&name(n), loaded(n, 7, 7)));
        }
        cache.shrink(7);
        assert!(cache.len() <= 2, "{}", cache.len());
    }

    #[test]
    fn a_read_from_before_a_dropped_commit_is_refused() {
        let mut cache = Cache::new(2);
        assert!(cache.admit(&name(1), loaded(1, 5, 5)));
        cache.shrink(5);
        assert!(cache.admit(&name(2), loaded(2, 5, 5)));
        cache.shrink(5);
        assert!(cache.get(&name(1)).is_none());
        assert!(!cache.admit(&name(1), loaded(1, 4, 4)), "lacks group 5");
        assert!(cache.admit(&name(1), loaded(1, 5, 5)));
    }

    #[test]
    fn a_cleared_cache_takes_only_fresh_reads() {
        let mut cache = Cache::new(4);
        cache.clear(9);
        assert!(!cache.admit(&name(1), loaded(1, 3, 8)));
        assert!(cache.admit(&name(1), loaded(1, 10, 9)));
        cache.forget(&name(1));
        assert!(!cache.admit(&name(1), loaded(1, 3, 9)), "lacks group 10");
        assert!(cache.admit(&name(2), loaded(2, 3, 10)));
    }

    #[test]
    fn a_group_that_never_became_durable_keeps_no_read_out() {
        let mut cache = Cache::new(4);
        assert!(cache.admit(&name(1), loaded(1, 9, 8)));
        cache.forget(&name(1));
        cache.clear(8);
        assert!(cache.admit(&name(1), loaded(1, 8, 8)), "group 9 was given up");
    }

    /// Writes to stream 1 as the decider does.
    fn write(cache: &mut Cache, group: u64, committed: u64) {
        let live = cache.get(&name(1)).unwrap();
        live.keep(group, committed);
        live.now.last_group = group;
        live.now.head.next_seq += 1;
    }

    fn next_seq(cache: &mut Cache) -> Option<u64> {
        cache.get(&name(1)).map(|live| live.now.head.next_seq)
    }

    #[test]
    fn what_failed_is_taken_back_and_no_more() {
        let mut cache = Cache::new(4);
        assert!(cache.admit(&name(1), loaded(1, 5, 5)));
        assert!(cache.admit(&name(2), loaded(2, 5, 5)));
        // Group 6 is being written, 7 is open; the second write of a group keeps nothing new.
        for group in [6, 7, 7] {
            write(&mut cache, group, 5);
        }
        assert_eq!(next_seq(&mut cache), Some(3));
        cache.roll_back(6);
        assert_eq!(next_seq(&mut cache), Some(1), "group 6 was durable");
        assert!(cache.get(&name(2)).is_some(), "nothing of it failed");
        write(&mut cache, 8, 6);
        cache.roll_back(6);
        assert_eq!(next_seq(&mut cache), Some(1));
    }

    #[test]
    fn a_stream_under_steady_load_keeps_one_durable_version_and_what_is_under_way() {
        let mut cache = Cache::new(4);
        assert!(cache.admit(&name(1), loaded(1, 1, 1)));
        for group in 3..50 {
            write(&mut cache, group, group - 2);
            let live = cache.get(&name(1)).unwrap();
            assert!(live.behind.len() <= 2, "{}", live.behind.len());
            let durable = live.durable(group - 2).unwrap();
            assert!(durable.last_group == group - 2 || group < 5, "{durable:?}");
        }
    }

    #[test]
    fn a_stream_of_which_nothing_is_durable_is_forgotten() {
        let mut cache = Cache::new(4);
        assert!(cache.admit(&name(1), loaded(1, 9, 9)));
        cache.roll_back(8);
        assert!(cache.get(&name(1)).is_none());
    }
}
