//! The writer: makes groups durable and hands them on to be answered. One thread of its own,
//! because a synced write takes 0.1 ms alone and 2 to 4 ms when it waits for a busy core.
//!
//! Owns: the moment of truth. Refuses to know: what was decided.
//!
//! What if the process dies here? Before `append` returns nobody has been told anything. After it
//! the receipts are durable, and callers who were not told ask again under the same key. Actions
//! whose jobs were not handed on are found as unsettled attempts by the reconciler.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_channel::{Sender, TrySendError, select};
use governors::Touch;
use ledger::HeadRecord;
use telemetry::metrics::Metrics;
use tokio::sync::watch;
use types::Reason;

use crate::access::Access;
use crate::act::Options;
use crate::actions::Pool;
use crate::answers;
use crate::commit::{Group, OpenGroup, Progress, Refused, Reply};
use crate::decider::{Duty, receipts_max};
use crate::ports::{AppendError, Store};
use crate::supervise::Stop;

pub(crate) struct Shared {
    pub(crate) duty: Duty,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) pool: Pool,
    pub(crate) access: Arc<Access>,
    pub(crate) live: watch::Sender<u64>,
    /// Counts what is to be told.
    pub(crate) told: watch::Sender<u64>,
    pub(crate) open: Arc<OpenGroup>,
    pub(crate) options: Arc<ArcSwap<Options>>,
    /// Where durable groups go to be answered.
    pub(crate) durable: Sender<Group>,
}

/// Runs until asked to stop. A group that waits is left to the next life, which sends it back to be
/// decided again: under load there is always one, and a restart must not wait for a quiet moment.
pub(crate) fn run(shared: &Shared, stop: &Stop) {
    // A former life may have died between `append` and its answers: what the decider believes
    // about that group is not known to be true.
    shared.progress.start_blank();
    if shared.duty == Duty::Ledger {
        // Nor what that group changed: whoever looks again finds it in the store. While a spool
        // stands in for that, what is known is all there is.
        shared.access.forget_all();
        shared.live.send_modify(|changes| *changes += 1);
    }
    shared.told.send_modify(|changes| *changes += 1);
    let mut writer = Writer { shared, stop, head: None, spare: None };
    loop {
        select! {
            recv(shared.open.filled()) -> _ => {}
            // Without an eye on a stop: what waits here has nobody else who tells of it.
            recv(shared.open.lingers()) -> _ => {
                let _ = shared.open.filled().recv_timeout(LINGERS_FOR);
            }
            recv(stop.channel()) -> _ => return,
        }
        if !writer.gathers() {
            return;
        }
        if let Some(group) = shared.open.take() {
            writer.write(group);
        }
    }
}

/// How long receipts for which nobody waits stay for company: a sync of their own would be in the
/// way of the next caller.
const LINGERS_FOR: Duration = Duration::from_millis(5);

/// Callers whom the writer answers itself when nothing else waits for it.
const ANSWERED_AT_ONCE: usize = 4;

/// How long after the newest refusal for its quota a store is spared.
const SPARED_FOR: Duration = Duration::from_secs(60);

/// How often a group is offered to a store that refuses it for its quota.
const QUOTA_TRIES: usize = 3;

/// How often a writer that spares its store looks whether there is enough to write.
const GATHER_INTERVAL: Duration = Duration::from_millis(20);

/// A store that takes no more writes for now.
#[derive(Clone, Copy)]
struct Spare {
    refused_at: Instant,
    written_at: Instant,
}

struct Writer<'a> {
    shared: &'a Shared,
    stop: &'a Stop,
    /// Where the next batch goes; asked of the store when it is not certain.
    head: Option<HeadRecord>,
    spare: Option<Spare>,
}

impl Writer<'_> {
    /// Waits, while the store is spared, until there are receipts enough for one batch or the first
    /// of them has waited long enough; false when asked to stop.
    fn gathers(&mut self) -> bool {
        self.spare = self.spare.filter(|spare| spare.refused_at.elapsed() < SPARED_FOR);
        let Some(spare) = self.spare else { return true };
        loop {
            let options = self.shared.options.load();
            let waited = spare.written_at.elapsed() >= options.spare_wait;
            let receipts = self.shared.open.receipts();
            // A group without receipts costs the store nothing, and more than it takes at once
            // never come.
            let enough = options.spare_batch.min(receipts_max(&*self.shared.store));
            if waited || receipts == 0 || receipts >= enough {
                return true;
            }
            if !self.pause(GATHER_INTERVAL) {
                return false;
            }
        }
    }

    /// False when asked to stop.
    fn pause(&self, time: Duration) -> bool {
        self.stop.channel().recv_timeout(time).is_err_and(|error| error.is_timeout())
    }

    /// Offers the group again and again to a store that has refused it for its quota.
    fn insist(&mut self, group: &mut Group, mut refused: String) -> Result<(), AppendError> {
        for _ in 1..QUOTA_TRIES {
            let now = Instant::now();
            self.spare = Some(Spare { refused_at: now, written_at: now });
            tracing::warn!(
                event = "store_quota",
                error = refused,
                "the receipt store is spared: larger batches, fewer of them"
            );
            let wait = self.shared.options.load().spare_wait;
            if !self.pause(wait) {
                break;
            }
            match self.append(group) {
                Err(AppendError::Quota(again)) => refused = again,
                outcome => return outcome,
            }
        }
        Err(AppendError::Unavailable(refused))
    }

    fn write(&mut self, mut group: Group) {
        let shared = self.shared;
        if group.epoch != shared.progress.epoch() {
            // Built on receipts that never became durable.
            return group.give_up(|| Reply::Again);
        }
        let outcome = loop {
            let outcome = match self.append(&mut group) {
                Err(AppendError::Quota(refused)) => self.insist(&mut group, refused),
                outcome => outcome,
            };
            match outcome {
                // Everybody else's receipts are as good as before.
                Err(AppendError::Conflict { streams }) if !streams.is_empty() => {
                    let (lost, before) = (streams.len(), group.batch.entries.len());
                    tracing::debug!(event = "append_conflict", lost, "another writer was faster");
                    shared.metrics.append_conflicts.inc_by(lost as u64);
                    group.lose(&streams);
                    shared.open.lose(&streams);
                    if group.batch.entries.len() == before {
                        // A store that names streams which are not in the batch: no end otherwise.
                        break Err(AppendError::Conflict { streams });
                    }
                    // Nothing was written.
                    self.head = Some(group.batch.before);
                }
                outcome => break outcome,
            }
        };
        match outcome {
            Ok(()) => succeed(shared, group, self.stop),
            Err(error) => fail(shared, group, error),
        }
    }

    fn head(&mut self) -> Result<HeadRecord, AppendError> {
        if let Some(head) = self.head.take() {
            return Ok(head);
        }
        let head = self.shared.progress.vital_read(|| self.shared.store.head());
        head.map_err(|error| AppendError::Unavailable(error.to_string()))
    }

    fn append_behind_head(&mut self, group: &mut Group) -> Result<(), AppendError> {
        group.follow(self.head()?);
        self.shared.store.append(&group.batch)
    }

    /// Writes the group behind the head, which is unknown afterwards unless it succeeds.
    fn append(&mut self, group: &mut Group) -> Result<(), AppendError> {
        let shared = self.shared;
        let started = Instant::now();
        if !group.batch.entries.is_empty() {
            let progress = Arc::clone(&shared.progress);
            let outcome = progress.watched(|| self.append_behind_head(group));
            // A lost race is an answer, and so is that there are too many.
            let answered = matches!(
                outcome,
                Ok(()) | Err(AppendError::Conflict { .. } | AppendError::Quota(_))
            );
            shared.progress.after_append(answered);
            outcome?;
            if shared.duty == Duty::Ledger {
                shared.metrics.receipts_durable.inc_by(group.batch.entries.len() as u64);
            }
            self.head = Some(group.batch.after);
            if let Some(spare) = &mut self.spare {
                spare.written_at = Instant::now();
            }
        }
        let duration =
            shared.metrics.receipt_storage_duration_ms.with([shared.store.backend(), "append"]);
        duration.observe(started.elapsed().as_secs_f64() * 1e3);
        Ok(())
    }
}

fn succeed(shared: &Shared, mut group: Group, stop: &Stop) {
    // Committed first: a load that begins after an answer must see the receipts behind it.
    shared.progress.commit(group.number);
    if group.epoch != shared.progress.epoch() {
        // The decider was restarted meanwhile and may have read the store just before this group:
        // it has to look again.
        shared.progress.start_blank();
    }
    // Before anybody is told: a revoked key is refused from the answer on.
    for (stream, touch) in group.touched.drain(..) {
        match touch {
            Touch::Keys => shared.access.forget(&stream),
            Touch::Live => shared.live.send_modify(|changes| *changes += 1),
            Touch::Tell => shared.told.send_modify(|changes| *changes += 1),
        }
    }
    // INV-2: only now, when the attempts are durable.
    for job in group.jobs.drain(..) {
        shared.pool.submit(job);
    }
    if group.waiting.len() <= ANSWERED_AT_ONCE && shared.open.waiting() == 0 {
        return answers::answer(shared.duty, &shared.metrics, group);
    }
    // There is room unless the answers have died. What stands in the channel survives a restart, so
    // a stop is looked at only when there is none: those callers then do not know their outcome.
    if let Err(TrySendError::Full(group)) = shared.durable.try_send(group) {
        let (durable, stopped) = (&shared.durable, stop.channel());
        select! {
            send(durable, group) -> _ => {}
            recv(stopped) -> _ => {}
        }
    }
}

/// Tells everyone what became of a group that is not durable, and the decider what it can still
/// rely on.
fn fail(shared: &Shared, group: Group, error: AppendError) {
    match error {
        AppendError::Conflict { .. } => {
            tracing::warn!(event = "append_conflict", "another writer was faster, deciding again");
            shared.progress.start_blank();
            group.give_up(|| Reply::Again);
        }
        AppendError::Unavailable(error) | AppendError::Quota(error) => {
            tracing::error!(event = "append_failed", error, "the receipt store refused a commit");
            shared.progress.roll_back();
            group.give_up(|| refusal(Reason::FirestoreError, "nothing was recorded"));
        }
        AppendError::Unknown(error) => {
            tracing::error!(
                event = "append_unknown",
                error,
                "the receipt store went away during a commit"
            );
            // The store settles the outcome before it takes the next batch, whose fences then
            // tell whether what is decided meanwhile stands on too little.
            shared.progress.roll_back();
            group.give_up(|| refusal(Reason::Timeout, "the outcome is unknown"));
        }
        AppendError::Fatal(error) => {
            tracing::error!(
                event = "store_failed",
                error,
                "the receipt store can no longer be trusted"
            );
            shared.progress.start_blank();
            group.give_up(|| refusal(Reason::Timeout, "the outcome is unknown"));
            // Last: whoever is told must find everyone answered.
            shared.progress.fail();
        }
    }
}

fn refusal(reason: Reason, detail: &str) -> Reply {
    Reply::Refused(Refused::new(reason, detail))
}
