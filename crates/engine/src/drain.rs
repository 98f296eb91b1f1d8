//! The end of a process, in order.
//!
//! Owns: who is waited for, in which order, and how the time is shared. Refuses to know: who asked.

use std::time::Duration;

use tokio::time;

use crate::act::{AI_GATEWAY, Engine, NEEDED, OUTAGE_SUP};
use crate::alerts::ALERTS;
use crate::notices::NOTICES;
use crate::reconcile;
use crate::spool::SPOOL_SUP;

impl Engine {
    /// Refuses new work, answers what is inside and settles running actions as far as three
    /// quarters of `deadline` allow, records what is left and stops all workers. What could not be
    /// settled is found by the reconciler of the next start. Returns within `deadline`, also when
    /// the store hangs.
    pub async fn drain(&self, deadline: Duration) {
        self.refuse_work();
        let supervisor = self.supervisor();
        let now = time::Instant::now();
        // An action that does not end must not cost the record of the stop.
        let (settled_by, ended_by) = (now + deadline * 3 / 4, now + deadline);
        if time::timeout_at(settled_by, self.inner().door.write()).await.is_err() {
            tracing::warn!(event = "drain_commands", "commands are left without an answer");
        }
        // A notice that is on its way is brought to its end, and so are its receipts.
        for name in [ALERTS, NOTICES] {
            if time::timeout_at(settled_by, supervisor.stop(name)).await.is_err() {
                tracing::warn!(event = "drain_notices", subsystem = name, "a notice is left open");
            }
        }
        if time::timeout_at(settled_by, supervisor.stop("action_pool")).await.is_err() {
            let left = self.inner().common.in_flight.len();
            tracing::warn!(event = "drain_actions", left, "actions are left to the next start");
        }
        if time::timeout_at(settled_by, supervisor.stop(AI_GATEWAY)).await.is_err() {
            let left = self.calls_open();
            tracing::warn!(event = "drain_calls", left, "calls are left to the next start");
        }
        let record = async {
            reconcile::flush_edge(self).await;
            self.note("stop", "graceful shutdown".to_owned()).await
        };
        // A store somewhere else that hangs must not cost all the time that there is.
        let share = if self.store().is_shared() { deadline / 4 } else { deadline };
        let recorded_by = ended_by.min(time::Instant::now() + share);
        let recorded = time::timeout_at(recorded_by, record).await;
        // The way back ends here: the next start goes it again.
        supervisor.stop(OUTAGE_SUP).await;
        match recorded {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(event = "drain_note", %error, "the stop could not be recorded");
            }
            Err(_) => {
                tracing::warn!(event = "drain_note", "the stop could not be recorded in time");
            }
        }
        for name in NEEDED.into_iter().chain([SPOOL_SUP]) {
            // Past the deadline it is still asked to stop.
            if time::timeout_at(ended_by, supervisor.stop(name)).await.is_err() {
                tracing::warn!(
                    event = "drain_workers",
                    subsystem = name,
                    "workers did not stop in time"
                );
            }
        }
    }
}
