//! The writer: makes groups durable and hands them on to be answered. One thread of its own,
//! because a synced write takes 0.1 ms alone and 2 to 4 ms when it waits for a busy core.
//!
//! Owns: the moment of truth. Refuses to know: what was decided.
//!
//! What if the process dies here? Before `append` returns nobody has been told anything. After it
//! the receipts are durable, and callers who were not told ask again under the same key. Actions
//! whose jobs were not handed on are found as unsettled attempts by the reconciler.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Sender, TrySendError, select};
use governors::Touch;
use ledger::HeadRecord;
use telemetry::metrics::Metrics;
use tokio::sync::watch;
use types::Reason;

use crate::access::Access;
use crate::actions::Pool;
use crate::commit::{Group, OpenGroup, Progress, Refused, Reply};
use crate::ports::{AppendError, Store};
use crate::supervise::Stop;

pub(crate) struct Shared {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) progress: Arc<Progress>,
    pub(crate) pool: Pool,
    pub(crate) access: Arc<Access>,
    pub(crate) live: watch::Sender<u64>,
    pub(crate) open: Arc<OpenGroup>,
    /// Where durable groups go to be answered.
    pub(crate) durable: Sender<Group>,
}

/// Runs until asked to stop. A group that waits is left to the next life, which sends it back to be
/// decided again: under load there is always one, and a restart must not wait for a quiet moment.
pub(crate) fn run(shared: &Shared, stop: &Stop) {
    // A former life may have died between `append` and its answers: what the decider believes
    // about that group is not known to be true.
    shared.progress.new_epoch();
    // Nor what that group changed: whoever looks again finds it in the store.
    shared.access.forget_all();
    shared.live.send_modify(|changes| *changes += 1);
    let mut writer = Writer { shared, stop, head: None };
    loop {
        select! {
            recv(shared.open.filled()) -> _ => {
                if let Some(group) = shared.open.take() {
                    writer.write(group);
                }
            }
            recv(stop.channel()) -> _ => return,
        }
    }
}

struct Writer<'a> {
    shared: &'a Shared,
    stop: &'a Stop,
    /// Where the next batch goes; asked of the store when it is not certain.
    head: Option<HeadRecord>,
}

impl Writer<'_> {
    fn write(&mut self, mut group: Group) {
        let shared = self.shared;
        if group.epoch != shared.progress.epoch() {
            // Built on receipts that never became durable.
            return group.give_up(|| Reply::Again);
        }
        let outcome = loop {
            match self.append(&mut group) {
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
            Err(AppendError::Conflict { .. }) => {
                tracing::warn!(
                    event = "append_conflict",
                    "another writer was faster, deciding again"
                );
                shared.progress.new_epoch();
                group.give_up(|| Reply::Again);
            }
            Err(AppendError::Unavailable(error)) => {
                tracing::error!(
                    event = "append_failed",
                    error,
                    "the receipt store refused a commit"
                );
                shared.progress.new_epoch();
                group.give_up(|| refusal(Reason::FirestoreError, "nothing was recorded"));
            }
            Err(AppendError::Unknown(error)) => {
                tracing::error!(
                    event = "append_unknown",
                    error,
                    "the receipt store went away during a commit"
                );
                // What is decided next is read from the store, which settles the outcome first.
                shared.progress.new_epoch();
                group.give_up(|| refusal(Reason::Timeout, "the outcome is unknown"));
            }
            Err(AppendError::Fatal(error)) => {
                tracing::error!(
                    event = "store_failed",
                    error,
                    "the receipt store can no longer be trusted"
                );
                shared.progress.new_epoch();
                group.give_up(|| refusal(Reason::Timeout, "the outcome is unknown"));
                // Last: whoever is told must find everyone answered.
                shared.progress.fail();
            }
        }
    }

    fn head(&mut self) -> Result<HeadRecord, AppendError> {
        if let Some(head) = self.head.take() {
            return Ok(head);
        }
        let head = self.shared.progress.after_vital_read(self.shared.store.head());
        head.map_err(|error| AppendError::Unavailable(error.to_string()))
    }

    /// Writes the group behind the head, which is unknown afterwards unless it succeeds.
    fn append(&mut self, group: &mut Group) -> Result<(), AppendError> {
        let shared = self.shared;
        let started = Instant::now();
        if !group.batch.entries.is_empty() {
            group.follow(self.head()?);
            let outcome = shared.store.append(&group.batch);
            // A lost race is an answer.
            let answered = matches!(outcome, Ok(()) | Err(AppendError::Conflict { .. }));
            shared.progress.after_append(answered);
            outcome?;
            self.head = Some(group.batch.after);
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
        shared.progress.new_epoch();
    }
    // Before anybody is told: a revoked key is refused from the answer on.
    for (stream, touch) in group.touched.drain(..) {
        match touch {
            Touch::Keys => shared.access.forget(&stream),
            Touch::Live => shared.live.send_modify(|changes| *changes += 1),
        }
    }
    // INV-2: only now, when the attempts are durable.
    for job in group.jobs.drain(..) {
        shared.pool.submit(job);
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

fn refusal(reason: Reason, detail: &str) -> Reply {
    Reply::Refused(Refused::new(reason, detail))
}
