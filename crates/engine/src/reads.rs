//! Looking at what is stored: receipts and states, for who decides nothing.
//!
//! Owns: that a receipt that is shown was checked on the way. Refuses to know: who may see it.

use governors::StreamState;
use ledger::View;
use types::{Reason, ReceiptId, StreamName};

use crate::act::Engine;
use crate::commit::Refused;
use crate::ports::{ReadError, Store, Stored};
use crate::spool;

impl Engine {
    /// A receipt by id. Its hashes are checked on the way unless reads are set to trust them.
    pub async fn find(&self, id: ReceiptId) -> Result<Option<Stored>, Refused> {
        let found = match self.find_spooled(id).await? {
            Some(found) => Some(found),
            None => self.blocking(move |store| store.find(id)).await?,
        };
        found.map(|stored| self.checked(stored)).transpose()
    }

    /// Runs a search where it may block. It is handed the store, and what tells whether a receipt
    /// is as it was sealed, so that only receipts that are shown are checked.
    pub async fn scan<T: Send + 'static>(
        &self,
        search: impl FnOnce(&dyn Store, &dyn Fn(&Stored) -> bool) -> Result<T, ReadError>
        + Send
        + 'static,
    ) -> Result<T, Refused> {
        let engine = self.clone();
        let intact = move |stored: &Stored| engine.checked(stored.clone()).is_ok();
        self.blocking(move |store| search(store, &intact)).await
    }

    fn checked(&self, stored: Stored) -> Result<Stored, Refused> {
        if !self.options().verify_reads {
            return Ok(stored);
        }
        let intact = View::scan(&stored.core).is_ok_and(|view| stored.is_intact(&view));
        let result = if intact { "success" } else { "failed" };
        self.inner().common.metrics.receipt_verification.with([result]).inc();
        if intact {
            return Ok(stored);
        }
        self.inner().ledger.progress.mark_tampered();
        tracing::error!(event = "hash_verification_failed", receipt_id = %stored.id, seq = stored.seq, "Hash verification failed");
        Err(Refused::new(Reason::FirestoreError, "the stored receipt fails verification"))
    }

    /// A stream's state as it is stored: for who looks, not for who decides.
    ///
    /// # Errors
    /// The reasons of a store that does not answer.
    pub async fn state(&self, stream: &StreamName) -> Result<StreamState, Refused> {
        // What was changed while the store was away holds until it is in the chain itself.
        let spool = self.outage().spools.current();
        if let Some(spool) = spool.filter(|_| spool::is_carried_on(stream)) {
            return Ok(self.load_lane(&stream.lane(spool.lane)).await?.live.now.state);
        }
        let loaded = self.load(stream).await?;
        self.outage().spools.remember(stream, &loaded.live.now);
        Ok(loaded.live.now.state)
    }
}
