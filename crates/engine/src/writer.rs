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
    loop {
        select! {
            recv(shared.open.filled()) -> _ => {
                if let Some(group) = shared.open.take() {
                    write(shared, group, stop);
                }
            }
            recv(stop.channel()) -> _ => return,
        }
    }
}

fn write(shared: &Shared, group: Group, stop: &Stop) {
    if group.epoch != shared.progress.epoch() {
        // Built on receipts that never became durable.
        return group.give_up(|| Reply::Again);
    }
    let started = Instant::now();
    let outcome = if group.batch.entries.is_empty() {
        Ok(())
    } else {
        let outcome = shared.store.append(&group.batch);
        // A lost race is an answer.
        shared.progress.after_append(matches!(outcome, Ok(()) | Err(AppendError::Conflict)));
        outcome
    };
    let took = started.elapsed();
    let backend = shared.store.backend();
    let duration = shared.metrics.receipt_storage_duration_ms.with([backend, "append"]);
    duration.observe(took.as_secs_f64() * 1e3);
    match outcome {
        Ok(()) => succeed(shared, group, stop),
        Err(AppendError::Conflict) => {
            tracing::warn!(event = "append_conflict", "another writer was faster, deciding again");
            shared.progress.new_epoch();
            group.give_up(|| Reply::Again);
        }
        Err(AppendError::Unavailable(error)) => {
            tracing::error!(event = "append_failed", error, "the receipt store refused a commit");
            shared.progress.new_epoch();
            group.give_up(|| refusal(Reason::FirestoreError, "nothing was recorded"));
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
