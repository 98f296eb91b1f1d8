//! Alerts and incidents, for who looks.
//!
//! Owns: reading their stream, and which workers fill it. Refuses to know: how an alert is
//! measured, and who is told.

use std::sync::Arc;

use governors::StreamState;
use governors::incident::{Story, is_of_lane};
use ledger::View;
use types::{Reason, StreamName, limits};

use crate::act::Engine;
use crate::commit::Refused;
use crate::notify::Courier;
use crate::ports::Stored;
use crate::spool::Spool;
use crate::supervise::Worker;
use crate::{alerts, external, notices};

/// Receipts that are read at once.
const PAGE: usize = 512;

/// The stream of alerts, silences and incidents.
#[must_use]
pub fn stream() -> StreamName {
    StreamName::system(limits::STREAM_INCIDENTS)
}

/// What alerts and incidents stand on.
#[derive(Clone, Default)]
pub struct WatchParts {
    /// The alert rules; without them nothing is watched.
    pub rules: Option<Arc<runbook::Rules>>,
    /// Who tells people; without one nobody is told.
    pub courier: Option<Arc<dyn Courier>>,
}

impl Engine {
    /// Every instance watches its own figures; who is told is for those that do what is due.
    pub(crate) fn supervise_watch(&self, watch: WatchParts, does_due: bool) {
        if let Some(rules) = watch.rules {
            let engine = self.clone();
            let evaluator = Worker::task("alert_evaluator", move |stop| {
                alerts::evaluate(engine.clone(), Arc::clone(&rules), stop)
            });
            let engine = self.clone();
            let external =
                Worker::task("external_alerts", move |stop| external::sweep(engine.clone(), stop));
            self.supervisor().start(alerts::ALERTS, vec![evaluator, external]);
        }
        // Where there is no channel there is nobody to tell.
        let courier = watch.courier.filter(|courier| does_due && !courier.channels().is_empty());
        if let Some(courier) = courier {
            let engine = self.clone();
            let teller = Worker::task("notice_teller", move |stop| {
                notices::tell(engine.clone(), Arc::clone(&courier), stop)
            });
            self.supervisor().start(notices::NOTICES, vec![teller]);
        }
    }

    /// Alerts, silences and incidents as they stand: ask [`StreamState::incidents`].
    ///
    /// # Errors
    /// The reasons of a store that does not answer.
    pub async fn incidents(&self) -> Result<StreamState, Refused> {
        self.state(&stream()).await
    }

    /// Receipts of the chain, or of the lane beside it, ascending.
    pub(crate) async fn incident_page(
        &self,
        lane: Option<&Arc<Spool>>,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Stored>, Refused> {
        match lane {
            Some(spool) => spool.read(stream().lane(spool.lane), from_seq, limit).await,
            None => self.blocking(move |store| store.read(&stream(), from_seq, limit)).await,
        }
    }

    /// What the receipts say of one incident, open or resolved; `None` where there was none of that
    /// number.
    ///
    /// # Errors
    /// As [`Engine::incidents`]; [`Reason::FirestoreError`] for a receipt that is not as it was
    /// sealed: a story that leaves one out would be another story.
    pub async fn incident_story(&self, number: u64) -> Result<Option<Story>, Refused> {
        let mut told = Story::new(number);
        let mut next = 0;
        // What began before the store went away is told by the chain alone.
        let lane = self.outage().spools.current().filter(|spool| is_of_lane(number, spool.lane));
        loop {
            let page = self.incident_page(lane.as_ref(), next, PAGE).await?;
            for stored in &page {
                let view = View::scan(&stored.core).ok().filter(|view| stored.is_intact(view));
                let Some(view) = view else {
                    self.inner().ledger.progress.mark_tampered();
                    let detail = "a stored receipt fails verification";
                    return Err(Refused::new(Reason::FirestoreError, detail));
                };
                told.take(&view);
            }
            next += page.len() as u64;
            if page.len() < PAGE {
                return Ok(told.is_there().then_some(told));
            }
        }
    }
}
