//! The answers: tells everyone whose group is durable, and counts what became of it. A thread of
//! its own, since waking callers costs the writer time in which it could be writing the next group.
//!
//! Owns: the order answer first, count after. Refuses to know: how a group became durable.
//!
//! What if the process dies here? The receipts are durable; callers who were not told ask again
//! under the same key.

use std::sync::Arc;

use crossbeam_channel::{Receiver, select};
use telemetry::metrics::Metrics;

use crate::commit::Group;
use crate::decider::Duty;
use crate::supervise::Stop;

pub(crate) struct Shared {
    pub(crate) duty: Duty,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) durable: Receiver<Group>,
}

/// Runs until asked to stop and nobody waits for an answer that is due.
pub(crate) fn run(shared: &Shared, stop: &Stop) {
    loop {
        select! {
            recv(shared.durable) -> group => match group {
                Ok(group) => answer(shared.duty, &shared.metrics, group),
                Err(_) => {
                    let _ = stop.channel().recv();
                    return;
                }
            },
            recv(stop.channel()) -> _ => break,
        }
    }
    shared.durable.try_iter().for_each(|group| answer(shared.duty, &shared.metrics, group));
}

/// Answers one group.
pub(crate) fn answer(duty: Duty, metrics: &Metrics, group: Group) {
    for waiting in &group.waiting {
        metrics.receipt_emission_duration_ms.observe(waiting.since.elapsed().as_secs_f64() * 1e3);
    }
    metrics.receipt_group_size.observe(group.waiting.len() as f64);
    for waiting in group.waiting {
        // A caller that hung up has its receipt all the same.
        let _ = waiting.reply.send(waiting.answer);
    }
    for (_, (governor, from, to)) in group.transitions {
        metrics.governor_transitions.with([governor, from, to]).inc();
    }
    if duty == Duty::Ledger {
        metrics.receipts_told.inc_by(group.batch.entries.len() as u64);
    }
    for entry in &group.batch.entries {
        metrics.receipt_emitted(entry.kind.as_str(), 1);
    }
}
