//! The decider: takes commands from the queue, decides them on folded state, seals receipts and
//! hands groups to the writer. One thread, so that each stream has one writer without a lock.
//!
//! Owns: order, idempotency and the states in memory. While the writer syncs one group the decider
//! builds the next one on top of it: what it believes then is provisional, and
//! [`Progress::epoch`] tells it when to forget.
//!
//! What if the process dies here? Nothing is promised before the writer has answered, and nothing
//! is kept outside the store: a restart decides the same commands again under the same keys.

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use arc_swap::ArcSwap;
use crossbeam_channel::{Receiver, select};
use governors::{Command, Context, Decision, Rules, Sealing};
use ledger::{Kind, Sealed, StreamHead, View, seal};
use telemetry::metrics::Metrics;
use types::{Clock, Hash, Micros, Reason, ReceiptId, StreamName};

use crate::act::Options;
use crate::actions::{InFlight, Job};
use crate::ai::{Reservation, Settlements};
use crate::cache::{Cache, States, Version};
use crate::commit::{
    Decided, Group, OpenGroup, Progress, Refused, Reply, Submission, Waiting, Work,
};
use crate::keys::{Keyed, seal_snapshot};
use crate::outage::RETRY_AFTER_S;
use crate::ports::{Durability, Entry, IdemKey, Identity, ReadError, Snapshot, Store, Stored};
use crate::supervise::Stop;

/// Commands that one group holds at most: bounds the time of one sync and the memory of a group.
const GROUP_MAX: usize = 512;

/// Receipts that one command brings at most: a signal's result, what had waited for it, and the
/// next attempt among them.
const UNIT_MAX: usize = 16;

/// Commands whose keys are looked up at once.
const TURN_MAX: usize = 64;

/// Receipts between two snapshots of a stream: bounds what a cold load has to fold.
const SNAPSHOT_EVERY: u64 = 128;

/// What the store is to those who ask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// The ledger itself.
    Ledger,
    /// It stands in for a ledger that is away: its chains are lanes, decided on what is known of
    /// the chains beside them.
    Spool,
}

/// What the decider works with; shared by all its lives.
pub(crate) struct Shared {
    pub(crate) duty: Duty,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) states: States,
    pub(crate) rules: Arc<Rules>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) settlements: Arc<Settlements>,
    pub(crate) queue: Receiver<Submission>,
    pub(crate) open: Arc<OpenGroup>,
    pub(crate) options: Arc<ArcSwap<Options>>,
}

/// An answer that a key was used for, in a group that is not in the store yet.
struct Recent {
    receipt: Arc<Sealed>,
    commitment: Hash,
    group: u64,
}

struct Decider<'a> {
    shared: &'a Shared,
    stop: &'a Stop,
    identity: Identity,
    recent: HashMap<IdemKey, Recent>,
    /// `at` of the newest receipt that this writer decided.
    last_at: Micros,
    epoch: u64,
    /// The newest durable group whose answers are no longer in `recent`.
    forgotten: u64,
}

/// Runs until asked to stop. What is queued then waits for the next life: this one's memory may
/// be the reason for the restart.
pub(crate) fn run(shared: &Shared, stop: &Stop) {
    let mut decider = Decider::new(shared, stop);
    // Where this fails, the first turn begins with it again.
    decider.renew();
    while decider.turn() {}
    shared.open.give_up();
}

impl<'a> Decider<'a> {
    /// Nothing is read yet: it begins as after a failed write.
    fn new(shared: &'a Shared, stop: &'a Stop) -> Decider<'a> {
        // A former life may have left a group with the writer. It carries the former epoch, so
        // the writer drops it unless it has begun already.
        let epoch = shared.progress.epoch();
        shared.progress.start_blank();
        Decider {
            shared,
            stop,
            identity: shared.store.identity(),
            recent: HashMap::new(),
            last_at: Micros(0),
            epoch,
            forgotten: 0,
        }
    }

    /// Decides what waits, command by command, into the open group. False when this life is at its
    /// end.
    fn turn(&mut self) -> bool {
        let Some(first) = self.next() else { return false };
        if self.shared.progress.epoch() != self.epoch && !self.renew() {
            let _ = first.reply.send(Reply::Refused(store_failed()));
            return true;
        }
        let mut submissions = vec![first];
        submissions.extend(self.shared.queue.try_iter().take(TURN_MAX - 1));
        self.shared.metrics.receipt_queue_depth.set(self.shared.queue.len() as i64);
        self.forget_committed();
        let priors = match self.priors(&submissions) {
            Ok(priors) => priors,
            Err(error) => {
                tracing::error!(event = "key_lookup", %error, "cannot look up idempotency keys");
                for submission in submissions {
                    let _ = submission.reply.send(Reply::Refused(store_failed()));
                }
                return true;
            }
        };
        let open = Arc::clone(&self.shared.open);
        for (submission, prior) in submissions.into_iter().zip(priors) {
            if !self.has_room() {
                let _ = submission.reply.send(Reply::Again);
                continue;
            }
            let (epoch, ledger) = (self.epoch, self.identity.ledger);
            let empty = || Group::empty(self.shared.progress.next_group(), epoch, ledger);
            open.fill(empty, |group, lost| {
                let mut states = self.shared.states.lock();
                self.lose(&mut states, &lost);
                self.one(&mut states, group, submission, prior);
            });
        }
        // Also when nothing was sealed: signals for tenants that nobody knows load states too.
        let mut states = self.shared.states.lock();
        states.resize(self.shared.options.load().states_max);
        states.shrink(self.shared.progress.committed());
        if self.shared.duty == Duty::Ledger {
            self.shared.metrics.streams_loaded.set(states.len() as i64);
        }
        true
    }

    /// The next command, as soon as the open group has room for it; `None` when asked to stop.
    fn next(&self) -> Option<Submission> {
        if !self.has_room() {
            return None;
        }
        select! {
            recv(self.shared.queue) -> submission => submission.ok(),
            recv(self.stop.channel()) -> _ => None,
        }
    }

    /// Waits until the open group has room for a command; false when asked to stop.
    fn has_room(&self) -> bool {
        let (open, receipts_max) = (&self.shared.open, receipts_max(&*self.shared.store));
        while open.waiting() >= GROUP_MAX || open.receipts() > receipts_max {
            // The writer may be gone for good: whoever waits for it must be able to stop.
            select! {
                recv(open.taken()) -> _ => {}
                recv(self.stop.channel()) -> _ => return false,
            }
        }
        true
    }

    /// Forgets the answers that the store has by now. Before the keys are looked up there, so that
    /// no answer is missing in both places.
    fn forget_committed(&mut self) {
        let committed = self.shared.progress.committed();
        if committed != self.forgotten {
            self.recent.retain(|_, recent| recent.group > committed);
            self.forgotten = committed;
        }
    }

    /// Starts a new life after a failed write: everything provisional is forgotten.
    fn renew(&mut self) -> bool {
        let progress = &self.shared.progress;
        self.shared.open.give_up();
        // The epoch is read before the head, so that whatever changes the head later is noticed.
        let (epoch, is_blank) = progress.since(self.epoch);
        if is_blank {
            self.shared.states.lock().clear(progress.committed());
        } else {
            self.shared.states.lock().roll_back(progress.committed());
        }
        self.epoch = epoch;
        self.recent.clear();
        match progress.vital_read(|| self.shared.store.head()) {
            Ok(head) => {
                self.last_at = self.last_at.max(head.at);
                true
            }
            Err(error) => {
                tracing::error!(event = "head_read", %error, "cannot read the ledger's head");
                progress.roll_back();
                false
            }
        }
    }

    /// Forgets streams that another writer has moved on, with the answers that were built on them.
    fn lose(&mut self, states: &mut Cache, streams: &[StreamName]) {
        for stream in streams {
            states.lose(stream);
            self.recent.retain(|_, recent| recent.receipt.stream != *stream);
        }
    }

    /// Looks all keys of the group up at once, so that a remote store costs one round trip.
    fn priors(&self, submissions: &[Submission]) -> Result<Vec<Option<Stored>>, ReadError> {
        let keys: Vec<_> =
            submissions.iter().filter_map(|s| s.work.keyed.map(|k| k.store_key())).collect();
        if keys.is_empty() {
            return Ok(vec![None; submissions.len()]);
        }
        let found = self.shared.progress.vital_read(|| self.shared.store.find_keys(&keys))?;
        let mut found = found.into_iter();
        Ok(submissions.iter().map(|s| s.work.keyed.and_then(|_| found.next().flatten())).collect())
    }

    fn one(
        &mut self,
        states: &mut Cache,
        group: &mut Group,
        submission: Submission,
        prior: Option<Stored>,
    ) {
        let Submission { mut work, reply } = submission;
        let (stream, since) = (work.stream.clone(), work.since);
        if let Some(answer) = work.keyed.and_then(|keyed| self.replay(&keyed, prior)) {
            let waits = matches!(answer, Reply::Decided(_));
            group.hurries |= waits;
            return answer_with(group, Waiting { stream, reply, answer, since }, waits);
        }
        let brought = work.loaded.is_some();
        let fresh = work.loaded.take().filter(|loaded| loaded.epoch == self.epoch);
        let admitted = fresh.is_none_or(|loaded| states.admit(&work.stream, loaded));
        if !admitted || states.get(&work.stream).is_none() {
            let _ = reply.send(Reply::NotLoaded(Box::new(work)));
            return;
        }
        let decide = || self.decide(states, group, &mut work, brought);
        let answer = match catch_unwind(AssertUnwindSafe(decide)) {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => defect(states, &work, &error.to_string()),
            Err(_) => defect(states, &work, "decision panicked"),
        };
        let waits = match answer {
            Reply::Decided(_) => true,
            Reply::Nothing | Reply::Refused(_) => self.may_be_lost(states, &stream),
            Reply::NotLoaded(_) | Reply::Again => false,
        };
        let is_patient = is_patient(&work.command) && group.jobs.is_empty();
        group.hurries |= waits && !is_patient;
        answer_with(group, Waiting { stream, reply, answer, since }, waits);
    }

    /// True when the state of a stream stands on receipts that another writer may still outrun.
    fn may_be_lost(&self, states: &mut Cache, stream: &StreamName) -> bool {
        let committed = self.shared.progress.committed();
        self.shared.store.is_shared()
            && states.get(stream).is_some_and(|live| live.now.last_group > committed)
    }

    /// The answer of the time when the key was used first (INV-7).
    fn replay(&self, keyed: &Keyed, prior: Option<Stored>) -> Option<Reply> {
        let (receipt, same) = if let Some(recent) = self.recent.get(&keyed.store_key()) {
            (Arc::clone(&recent.receipt), recent.commitment == keyed.commitment)
        } else {
            let prior = prior?;
            let view = View::scan(&prior.core).ok().filter(|view| prior.is_intact(view));
            // The key was used, and nobody can say for what: to decide again might double it.
            let Some(view) = view else {
                self.shared.progress.mark_tampered();
                tracing::error!(event = "hash_verification_failed", receipt_id = %prior.id, seq = prior.seq, "Hash verification failed");
                return Some(Reply::Refused(store_failed()));
            };
            let commitment = view.commitment.map(|raw| raw.text());
            let same = commitment.is_some_and(|c| c == keyed.commitment.to_string());
            let at = view.at;
            let Stored { stream, seq, id, core, hash, chain_hash, .. } = prior;
            let core = core.into_boxed_slice();
            (Arc::new(Sealed { id, stream, seq, at, core, hash, chain_hash }), same)
        };
        if !same {
            let detail = "the idempotency key was used before with another body";
            return Some(Reply::Refused(Refused::new(Reason::DuplicateMessage, detail)));
        }
        self.shared.metrics.receipts_replayed.inc();
        let durability = self.durability();
        Some(Reply::Decided(Decided { receipt, replayed: true, durability, reservation: None }))
    }

    /// What survives whatever this decider's store has taken.
    fn durability(&self) -> Durability {
        let durability = self.shared.store.durability();
        if self.shared.duty == Duty::Spool { local(durability) } else { durability }
    }

    /// `brought`: the state was read for this very command.
    fn decide(
        &mut self,
        states: &mut Cache,
        group: &mut Group,
        work: &mut Work,
        brought: bool,
    ) -> Result<Reply, Broken> {
        let live = &states.get(&work.stream).ok_or(Broken::Gone)?.now;
        if self.shared.duty == Duty::Spool && is_too_old(self.shared, &work.stream, live) {
            states.forget(&work.stream);
            return Ok(Reply::Refused(too_old()));
        }
        // INV-17: strictly increasing over all that this writer commits, so that commit order can
        // be verified, and over the stream, whoever wrote to it: clocks differ.
        let floor = self.last_at.max(live.head.last_at);
        let now = self.shared.clock.now().max(Micros(floor.0 + 1));
        let cx = Context {
            stream: &work.stream,
            now,
            actor: &work.actor,
            may_register: work.may_register,
        };
        let decision = governors::decide(&self.shared.rules, &live.state, &work.command, &cx);
        if !matches!(decision, Decision::Seal(_)) && !brought && is_stale(self.shared, live) {
            states.forget(&work.stream);
            return Ok(Reply::Again);
        }
        match decision {
            Decision::Nothing => Ok(Reply::Nothing),
            Decision::Reject(rejection) => Ok(Reply::Refused(Refused {
                reason: rejection.reason,
                detail: rejection.detail,
                retry_after_s: rejection.retry_after_s,
            })),
            Decision::Seal(sealing) if sealing.effect.is_some() && work.permit.is_none() => {
                let detail = "no place in the action queue";
                Ok(Reply::Refused(Refused::new(Reason::ActionQueueFull, detail)))
            }
            Decision::Seal(sealing) => self.seal(states, group, work, sealing, now),
        }
    }

    /// Seals all drafts of a decision, then folds them: all or none.
    fn seal(
        &mut self,
        states: &mut Cache,
        group: &mut Group,
        work: &mut Work,
        sealing: Sealing,
        now: Micros,
    ) -> Result<Reply, Broken> {
        let stream = work.stream.clone();
        let Sealing { mut drafts, primary, effect } = sealing;
        if let (Some(keyed), Some(draft)) = (&work.keyed, drafts.get_mut(primary)) {
            draft.idem = Some(keyed.idem.to_string().into());
            draft.commitment = Some(keyed.commitment.to_string().into());
        }
        let live = states.get(&stream).ok_or(Broken::Gone)?;
        if self.shared.store.is_shared() {
            live.keep(group.number, self.shared.progress.committed());
            live.now.read_at = Instant::now();
        }
        let live = &mut live.now;
        let mut head = live.head;
        let mut sealed = Vec::with_capacity(drafts.len());
        for (nth, draft) in drafts.iter().enumerate() {
            let at = Micros(now.0 + nth as i64);
            let receipt = seal(&self.identity.ledger, &stream, &head, at, draft)?;
            head = head.after(&receipt);
            sealed.push(receipt);
        }
        let answer = Arc::new(sealed.get(primary).ok_or(Broken::NoPrimary)?.clone());
        // What nobody here performs, the caller does, and holds the attempt meanwhile.
        let is_callers =
            effect.is_none() && !stream.is_system() && drafts[primary].kind == Kind::ActionAttempt;
        let reservation = is_callers.then(|| {
            let mark = self.shared.in_flight.mark(answer.id);
            Arc::new(Reservation::new(&self.shared.settlements, stream.clone(), mark))
        });
        let job = match effect.zip(work.permit.take()) {
            Some((effect, permit)) => {
                let attempt = sealed.get(effect.attempt).ok_or(Broken::NoPrimary)?.id;
                let mark = self.shared.in_flight.mark(attempt);
                Some(Job::new(stream.clone(), mark, effect, permit))
            }
            None => None,
        };
        let entries = fold(live, &sealed, group)?;
        live.head = head;
        live.last_group = group.number;
        let due = live.state.next_due();
        if due != live.due {
            live.due = due;
            // What is due on a lane is due on the chain beside it; that of incidents is ticked on
            // its own.
            if self.shared.duty == Duty::Ledger {
                group.batch.due.push((stream.clone(), due));
            }
        }
        let snapshots_due = |next_seq: u64| next_seq / SNAPSHOT_EVERY;
        let before = head.next_seq - sealed.len() as u64;
        // The state of a lane is not the fold of the lane alone.
        if self.shared.duty == Duty::Ledger && snapshots_due(head.next_seq) > snapshots_due(before)
        {
            group.batch.snapshots.extend(snapshot(&self.identity, &stream, live));
        }
        self.book(group, work.keyed, &answer, entries, primary, job);
        let durability = self.durability();
        Ok(Reply::Decided(Decided { receipt: answer, replayed: false, durability, reservation }))
    }

    /// Enters sealed receipts into the group. From here on nothing can fail.
    fn book(
        &mut self,
        group: &mut Group,
        keyed: Option<Keyed>,
        answer: &Arc<Sealed>,
        mut entries: Vec<Entry>,
        primary: usize,
        job: Option<Job>,
    ) {
        if let Some(keyed) = keyed {
            let key = keyed.store_key();
            entries[primary].key = Some(key);
            let receipt = Arc::clone(answer);
            let recent = Recent { receipt, commitment: keyed.commitment, group: group.number };
            self.recent.insert(key, recent);
        }
        self.last_at = entries.last().map_or(self.last_at, |entry| entry.sealed.at);
        group.batch.entries.extend(entries);
        group.jobs.extend(job);
    }
}

/// Receipts that a group may hold and still take one more command.
pub(crate) fn receipts_max(store: &dyn Store) -> usize {
    store.batch_max().saturating_sub(UNIT_MAX)
}

/// True when others may have moved the stream on since it was read. While a commit of ours is under
/// way, the answer waits for that.
fn is_stale(shared: &Shared, live: &Version) -> bool {
    shared.store.is_shared()
        && live.last_group <= shared.progress.committed()
        && live.read_at.elapsed() > shared.options.load().fresh
}

/// True when what is known of a tenant dates from too long before the outage. What the service says
/// of itself depends on nobody else.
fn is_too_old(shared: &Shared, lane: &StreamName, live: &Version) -> bool {
    !lane.is_system() && live.read_at.elapsed() > shared.options.load().state_age_max
}

/// What survives here of what a ledger on this machine has taken for another one.
pub(crate) fn local(durability: Durability) -> Durability {
    match durability {
        Durability::Durable => Durability::Local,
        other => other,
    }
}

pub(crate) fn too_old() -> Refused {
    let detail = "the receipt store is away, and nothing recent enough is known of the tenant here";
    Refused { retry_after_s: Some(RETRY_AFTER_S), ..Refused::new(Reason::GovernorNotReady, detail) }
}

/// A defect of ours touches this command alone; the stream is read again from the store.
fn defect(states: &mut Cache, work: &Work, error: &str) -> Reply {
    tracing::error!(event = "decision_failed", tenant_id = %work.stream, error, "decision failed");
    states.forget(&work.stream);
    Reply::Refused(Refused::new(Reason::InternalError, "the decision failed"))
}

/// True for results: who asked has been answered, and until they are durable an attempt is charged
/// for what was reserved.
fn is_patient(command: &Command) -> bool {
    matches!(command, Command::Charge { .. } | Command::Settle { .. })
}

/// A receipt leaves when its group is durable, a repeated one too: the first may be in flight. So
/// does what was decided on a state that others may outrun. Any other answer waits for no sync.
fn answer_with(group: &mut Group, waiting: Waiting, waits: bool) {
    if waits {
        group.waiting.push(waiting);
    } else {
        let _ = waiting.reply.send(waiting.answer);
    }
}

/// Folds sealed receipts into the state, from the very bytes that will be stored.
fn fold(live: &mut Version, sealed: &[Sealed], group: &mut Group) -> Result<Vec<Entry>, Broken> {
    // In place: when a receipt does not fold, the caller forgets the stream and reads it again.
    let mut entries = Vec::with_capacity(sealed.len());
    let (mut changes, mut touched) = (Vec::new(), Vec::new());
    for receipt in sealed {
        let view = View::scan(&receipt.core)?;
        live.state.apply(&view)?;
        let change = governors::transition_labels(&view);
        changes.extend(change.map(|change| (receipt.stream.clone(), change)));
        touched.extend(governors::touches(&view).map(|touch| (receipt.stream.clone(), touch)));
        entries.push(Entry {
            sealed: receipt.clone(),
            prev_hash: view.prev_hash,
            kind: view.kind,
            key: None,
            settles: settles(&view),
        });
    }
    group.transitions.extend(changes);
    group.touched.extend(touched);
    Ok(entries)
}

pub(crate) fn settles(view: &View<'_>) -> Option<ReceiptId> {
    view.intent.filter(|_| view.kind == Kind::ActionResult)
}

fn snapshot(identity: &Identity, stream: &StreamName, live: &Version) -> Option<Snapshot> {
    let StreamHead { next_seq, last_hash, last_at } = live.head;
    let (seq, hash) = (next_seq.checked_sub(1)?, last_hash?);
    let state = seal_snapshot(identity, stream, seq, hash, &live.state.to_snapshot());
    Some(Snapshot { stream: stream.clone(), seq, hash, at: last_at, state })
}

fn store_failed() -> Refused {
    Refused::new(Reason::FirestoreError, "the receipt store did not answer")
}

/// A defect of ours: a decision that does not seal or fold.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("cannot seal: {0}")]
    Seal(#[from] ledger::SealError),
    #[error("sealed bytes do not scan: {0}")]
    Scan(#[from] ledger::ScanError),
    #[error("sealed receipt does not fold: {0}")]
    Fold(#[from] governors::FoldError),
    #[error("decision names a draft that it does not hold")]
    NoPrimary,
    #[error("stream is gone from memory")]
    Gone,
}
