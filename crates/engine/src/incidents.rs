//! Alerts and incidents, for who looks.
//!
//! Owns: reading their stream. Refuses to know: how an alert is measured, and who is told.

use governors::StreamState;
use governors::incident::Story;
use ledger::View;
use types::{Reason, StreamName, limits};

use crate::act::Engine;
use crate::commit::Refused;

/// Receipts that are read at once.
const PAGE: usize = 512;

/// The stream of alerts, silences and incidents.
#[must_use]
pub fn stream() -> StreamName {
    StreamName::system(limits::STREAM_INCIDENTS)
}

impl Engine {
    /// Alerts, silences and incidents as they stand: ask [`StreamState::incidents`].
    ///
    /// # Errors
    /// The reasons of a store that does not answer.
    pub async fn incidents(&self) -> Result<StreamState, Refused> {
        self.state(&stream()).await
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
        loop {
            let page = self.blocking(move |store| store.read(&stream(), next, PAGE)).await?;
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
