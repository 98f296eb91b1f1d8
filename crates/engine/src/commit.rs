//! What travels between the caller, the decider and the writer.
//!
//! Owns: the shapes of a submission, its answer and a group. Refuses to know: who produces them.

use std::borrow::Cow;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use governors::{Command, Touch};
use ledger::{HeadRecord, LedgerId, Sealed};
use tokio::sync::{Notify, oneshot};
use types::{Reason, StreamName};

use crate::actions::{Job, Permit};
use crate::ai::Reservation;
use crate::cache::{Loaded, States};
use crate::keys::Keyed;
use crate::ports::{Batch, Durability, ReadError};

/// A refusal on its way to the edge.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Refused {
    /// The row of the reason table.
    pub reason: Reason,
    /// One sentence for the caller; never the offending value.
    pub detail: String,
    /// When a retry may succeed.
    pub retry_after_s: Option<i64>,
}

impl Refused {
    /// A refusal with its reason's own advice on retrying.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Refused {
        Refused { reason, detail: detail.into(), retry_after_s: None }
    }
}

/// A decided command, durable.
#[derive(Debug, Clone)]
pub struct Decided {
    /// The receipt that answers the caller. It may be a refusal.
    pub receipt: Arc<Sealed>,
    /// True when the key was used before and this is the receipt of that time.
    pub replayed: bool,
    /// What it survives now.
    pub durability: Durability,
    /// The attempt, where the caller itself makes it. A caller who has left by then gives it back.
    pub(crate) reservation: Option<Arc<Reservation>>,
}

/// What the committer says to one submission.
#[derive(Debug)]
pub enum Reply {
    /// Durable.
    Decided(Decided),
    /// There was nothing to decide.
    Nothing,
    /// Refused without a receipt of its own.
    Refused(Refused),
    /// The stream is not in memory, or the state that came along is stale: load and come back.
    NotLoaded(Box<Work>),
    /// Nothing was written, because another write failed first or won the race: come back.
    Again,
}

/// A command and all that is needed to decide it.
#[derive(Debug)]
pub struct Work {
    /// Whose chain.
    pub stream: StreamName,
    /// What to decide.
    pub command: Arc<Command>,
    /// Who asks.
    pub actor: Cow<'static, str>,
    /// May register an unknown tenant.
    pub may_register: bool,
    /// The caller's idempotency key.
    pub keyed: Option<Keyed>,
    /// The stream's state, when the caller had to load it.
    pub loaded: Option<Loaded>,
    /// A place in the action pool, for commands that may need one.
    pub permit: Option<Permit>,
    /// When the caller began to wait.
    pub since: Instant,
}

/// Work on its way to the decider.
#[derive(Debug)]
pub struct Submission {
    /// What to do.
    pub work: Work,
    /// Where the answer goes. A caller that left is no error.
    pub reply: oneshot::Sender<Reply>,
}

/// An answer that waits for its group to be durable.
pub struct Waiting {
    /// Whose state it was decided on.
    pub stream: StreamName,
    /// Where it goes.
    pub reply: oneshot::Sender<Reply>,
    /// What it will be.
    pub answer: Reply,
    /// When the caller began to wait.
    pub since: Instant,
}

/// A state change: governor, from, to.
pub type Transition = (&'static str, &'static str, &'static str);

/// Decided commands that become durable together.
pub struct Group {
    /// Counted from 1; the order of commits.
    pub number: u64,
    /// The life of the decider's memory that it was built on.
    pub epoch: u64,
    /// What to write; empty when only repeated answers wait.
    pub batch: Batch,
    /// Who waits.
    pub waiting: Vec<Waiting>,
    /// False while nobody in it waits but for the record's sake, and nothing is to be performed: it
    /// may wait for company.
    pub hurries: bool,
    /// What to perform afterwards.
    pub jobs: Vec<Job>,
    /// Streams whose keys or live settings change with it.
    pub touched: Vec<(StreamName, Touch)>,
    /// State changes to count, once they are durable.
    pub transitions: Vec<(StreamName, Transition)>,
}

impl Group {
    /// A group without commands. The writer puts it behind its log's head.
    pub fn empty(number: u64, epoch: u64, ledger: LedgerId) -> Group {
        let nowhere = HeadRecord::empty(ledger);
        Group {
            number,
            epoch,
            batch: Batch {
                before: nowhere,
                after: nowhere,
                entries: Vec::new(),
                due: Vec::new(),
                snapshots: Vec::new(),
            },
            waiting: Vec::new(),
            hurries: false,
            jobs: Vec::new(),
            touched: Vec::new(),
            transitions: Vec::new(),
        }
    }

    /// Puts the receipts behind `head`.
    pub fn follow(&mut self, head: HeadRecord) {
        self.batch.before = head;
        let entries = self.batch.entries.iter();
        self.batch.after =
            entries.fold(head, |head, entry| head.after(entry.sealed.hash, entry.sealed.at));
    }

    /// Takes out all that concerns `streams`, which another writer has moved on, and sends everyone
    /// back who waits for it.
    pub fn lose(&mut self, streams: &[StreamName]) {
        let lost = |stream: &StreamName| streams.contains(stream);
        self.batch.entries.retain(|entry| !lost(&entry.sealed.stream));
        self.batch.due.retain(|(stream, _)| !lost(stream));
        self.batch.snapshots.retain(|snapshot| !lost(&snapshot.stream));
        self.jobs.retain(|job| !lost(&job.stream));
        self.touched.retain(|(stream, _)| !lost(stream));
        self.transitions.retain(|(stream, _)| !lost(stream));
        let answers = std::mem::take(&mut self.waiting);
        let (back, waiting): (Vec<Waiting>, _) =
            answers.into_iter().partition(|waiting| lost(&waiting.stream));
        self.waiting = waiting;
        for waiting in back {
            let _ = waiting.reply.send(Reply::Again);
        }
    }

    /// Answers everyone who waits for a group that does not become durable.
    pub fn give_up(self, answer: impl Fn() -> Reply) {
        // First: whoever is told may ask again at once, and finds no attempt taken.
        drop(self.jobs);
        for waiting in self.waiting {
            let _ = waiting.reply.send(answer());
        }
    }
}

/// The group that lies between decider and writer: the one fills it, command by command, until the
/// other is free and takes it. So each sync carries all that was decided during the one before, and
/// neither waits for the other to wake up.
pub struct OpenGroup {
    states: States,
    inside: Mutex<Inside>,
    filled: (Sender<()>, Receiver<()>),
    lingers: (Sender<()>, Receiver<()>),
    taken: (Sender<()>, Receiver<()>),
}

#[derive(Default)]
struct Inside {
    group: Option<Group>,
    /// Streams that the writer has lost and the decider does not know of yet.
    lost: Vec<StreamName>,
}

impl OpenGroup {
    /// No group; `states` are those that its commands are decided on.
    #[must_use]
    pub fn new(states: States) -> OpenGroup {
        OpenGroup {
            states,
            inside: Mutex::default(),
            filled: bounded(1),
            lingers: bounded(1),
            taken: bounded(1),
        }
    }

    /// Lets `fill` work on the open group, or on a new one from `empty`, and tells it which streams
    /// were lost since the last time: what is in the group by now is not built on them, and what
    /// comes must not be. A group for which nobody waits afterwards is dropped.
    pub fn fill(
        &self,
        empty: impl FnOnce() -> Group,
        fill: impl FnOnce(&mut Group, Vec<StreamName>),
    ) {
        let mut open = self.lock();
        let lost = std::mem::take(&mut open.lost);
        let group = open.group.get_or_insert_with(empty);
        fill(group, lost);
        if group.waiting.is_empty() {
            open.group = None;
            return;
        }
        let told = if group.hurries { &self.filled.0 } else { &self.lingers.0 };
        drop(open);
        // When it is full the writer has been told already.
        let _ = told.try_send(());
    }

    /// Takes the open group, if there is one.
    pub fn take(&self) -> Option<Group> {
        let group = self.lock().group.take();
        let _ = self.taken.0.try_send(());
        group
    }

    /// Takes all that concerns `streams` out of the open group and out of memory, and keeps their
    /// names for the decider.
    pub fn lose(&self, streams: &[StreamName]) {
        let mut open = self.lock();
        let mut states = self.states.lock();
        streams.iter().for_each(|stream| states.lose(stream));
        drop(states);
        open.lost.extend_from_slice(streams);
        if let Some(group) = &mut open.group {
            group.lose(streams);
        }
    }

    /// Sends everyone back who waits for the open group.
    pub fn give_up(&self) {
        if let Some(group) = self.take() {
            group.give_up(|| Reply::Again);
        }
    }

    /// Commands in the open group.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.lock().group.as_ref().map_or(0, |group| group.waiting.len())
    }

    /// Receipts in the open group.
    #[must_use]
    pub fn receipts(&self) -> usize {
        self.lock().group.as_ref().map_or(0, |group| group.batch.entries.len())
    }

    /// For `select!`: ready when something may have been put in that hurries.
    #[must_use]
    pub fn filled(&self) -> &Receiver<()> {
        &self.filled.1
    }

    /// For `select!`: ready when something may have been put in that can wait for company.
    #[must_use]
    pub fn lingers(&self) -> &Receiver<()> {
        &self.lingers.1
    }

    /// For `select!`: ready when there may be room again.
    #[must_use]
    pub fn taken(&self) -> &Receiver<()> {
        &self.taken.1
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Calls that are under way: since when each of them is.
#[derive(Debug, Default)]
struct UnderWay(Mutex<Vec<Instant>>);

impl UnderWay {
    fn watch<T>(&self, call: impl FnOnce() -> T) -> T {
        let since = Instant::now();
        self.lock().push(since);
        let outcome = call();
        let mut under_way = self.lock();
        if let Some(at) = under_way.iter().position(|began| *began == since) {
            under_way.swap_remove(at);
        }
        outcome
    }

    fn longest(&self) -> Duration {
        self.lock().iter().map(Instant::elapsed).max().unwrap_or_default()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What decider, writer and readers tell each other.
#[derive(Debug, Default)]
pub struct Progress {
    groups: AtomicU64,
    committed: AtomicU64,
    epoch: AtomicU64,
    /// The newest epoch that began with nothing known.
    blank: AtomicU64,
    fatal: AtomicBool,
    fatal_notify: Notify,
    tampered: AtomicBool,
    append_failed: AtomicBool,
    read_failed: AtomicBool,
    /// Calls of the store that all decisions wait for.
    vital: UnderWay,
    /// Other reads.
    reads: UnderWay,
    /// Held while a life of the decider's memory ends.
    ending: Mutex<()>,
    trouble: Notify,
}

impl Progress {
    /// The newest durable group.
    #[must_use]
    pub fn committed(&self) -> u64 {
        self.committed.load(Ordering::Acquire)
    }

    /// The number of a new group. Numbers are never used twice, also not by the next life of
    /// the decider, since a group of its former life may still be on its way.
    pub fn next_group(&self) -> u64 {
        self.groups.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// Marks a group durable.
    pub fn commit(&self, group: u64) {
        self.committed.fetch_max(group, Ordering::AcqRel);
    }

    /// Marks the store as lost for this process.
    pub fn fail(&self) {
        self.fatal.store(true, Ordering::Release);
        self.fatal_notify.notify_waiters();
    }

    /// Returns when the store is lost for this process.
    pub async fn failed(&self) {
        let notified = self.fatal_notify.notified();
        if !self.fatal.load(Ordering::Acquire) {
            notified.await;
        }
    }

    /// Makes a call of the store that all decisions wait for.
    pub fn watched<T>(&self, call: impl FnOnce() -> T) -> T {
        self.vital.watch(call)
    }

    /// How long the oldest such call has taken so far.
    #[must_use]
    pub fn longest_call(&self) -> Duration {
        self.vital.longest()
    }

    /// How long the oldest read has taken so far that few wait for.
    #[must_use]
    pub fn longest_read(&self) -> Duration {
        self.reads.longest()
    }

    /// Keeps whether the store took the newest batch.
    pub fn after_append(&self, answered: bool) {
        self.append_failed.store(!answered, Ordering::Release);
        if !answered {
            self.trouble.notify_one();
        }
    }

    /// Returns after the store has failed an append or a read since the last time.
    pub async fn trouble(&self) {
        self.trouble.notified().await;
    }

    /// Makes a read that few wait for, and keeps whether the store answered it.
    pub fn read<T>(&self, read: impl FnOnce() -> Result<T, ReadError>) -> Result<T, ReadError> {
        let outcome = self.reads.watch(read);
        self.after_read(outcome)
    }

    fn after_read<T>(&self, outcome: Result<T, ReadError>) -> Result<T, ReadError> {
        self.read_failed.store(outcome.is_err(), Ordering::Release);
        if outcome.is_err() {
            self.trouble.notify_one();
        }
        outcome
    }

    /// Reads what every decision stands on: a store that is corrupt there is lost for this process.
    pub fn vital_read<T>(
        &self,
        read: impl FnOnce() -> Result<T, ReadError>,
    ) -> Result<T, ReadError> {
        let outcome = self.watched(read);
        if matches!(outcome, Err(ReadError::Corrupt(_))) {
            self.fail();
        }
        self.after_read(outcome)
    }

    /// True unless the newest append or the newest read failed.
    #[must_use]
    pub fn store_answers(&self) -> bool {
        !self.append_failed.load(Ordering::Acquire) && !self.read_failed.load(Ordering::Acquire)
    }

    /// Remembers that a stored receipt failed verification.
    pub fn mark_tampered(&self) {
        self.tampered.store(true, Ordering::Release);
    }

    /// True once a stored receipt has failed verification.
    #[must_use]
    pub fn is_tampered(&self) -> bool {
        self.tampered.load(Ordering::Acquire)
    }

    /// The present life of the decider's memory.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }

    /// Ends it: whatever was decided on it and is not durable must not become so. What was durable
    /// before is still as it was.
    pub fn roll_back(&self) {
        let _ending = self.lock_ending();
        self.epoch.fetch_add(1, Ordering::AcqRel);
    }

    /// Ends it, where nothing that is in memory can be relied on.
    pub fn start_blank(&self) {
        let _ending = self.lock_ending();
        let epoch = self.epoch.fetch_add(1, Ordering::AcqRel) + 1;
        self.blank.store(epoch, Ordering::Release);
    }

    /// The present life, and whether nothing that was known in `former` is known in it.
    #[must_use]
    pub fn since(&self, former: u64) -> (u64, bool) {
        let _ending = self.lock_ending();
        (self.epoch(), self.blank.load(Ordering::Acquire) > former)
    }

    fn lock_ending(&self) -> MutexGuard<'_, ()> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(open: &OpenGroup, hurries: bool) {
        let empty = || Group::empty(1, 1, LedgerId([3; 16]));
        open.fill(empty, |group, _| {
            let stream = StreamName::tenant(&types::TenantId::new("acme").unwrap());
            let (reply, answer) = (oneshot::channel().0, Reply::Nothing);
            group.waiting.push(Waiting { stream, reply, answer, since: Instant::now() });
            group.hurries |= hurries;
        });
    }

    #[test]
    fn results_alone_linger_and_leave_with_whoever_hurries() {
        let open = OpenGroup::new(States::new(1));
        filled(&open, false);
        assert!(open.filled().try_recv().is_err(), "nobody has to be waited on at once");
        assert!(open.lingers().try_recv().is_ok());
        filled(&open, true);
        assert!(open.filled().try_recv().is_ok());
        assert_eq!(open.take().unwrap().waiting.len(), 2);
        filled(&open, false);
        assert!(open.filled().try_recv().is_err(), "the next group is another one");
    }
}
