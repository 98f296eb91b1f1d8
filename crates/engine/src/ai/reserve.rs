//! A tenant's reservation for one call, from the attempt's receipt to its result.
//!
//! Owns: that each reservation ends in exactly one settlement, whatever becomes of whoever holds
//! it, and that results are sealed behind the answers. Refuses to know: what a call says and costs.
//!
//! What if the process dies here? The attempt stands in the ledger without a result, and the
//! reconciler of the next start settles it as unknown, at what was reserved.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crossbeam_channel as channel;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use governors::{Charge, Command, Outcome, OutcomeStatus};
use telemetry::metrics::Metrics;
use tokio::sync::Notify;
use types::{ReceiptId, StreamName};

use crate::act::{Engine, Request};
use crate::actions::Mark;
use crate::outbound::Sent;
use crate::supervise::Stop;

/// Results that wait for one commit together.
const AT_ONCE: usize = 512;

/// The wait between two tries to seal a result while the store is away.
const BACKOFF: Duration = Duration::from_millis(500);

/// How a reservation ends.
#[derive(Debug, Clone)]
pub(crate) enum End {
    /// Nothing was used: it is given back.
    Released,
    /// Nobody can know what was used: it is charged whole.
    Unknown,
    /// This was used.
    Charged(Box<Charge>),
}

/// A reservation that is held. Dropped, it ends as was last said of it.
#[derive(Debug)]
pub(crate) struct Reservation {
    stream: StreamName,
    mark: Option<Mark>,
    attempt: ReceiptId,
    end: End,
    tries: u32,
    /// Whether the newest request has left: before, there is nothing to charge.
    sent: Option<Sent>,
    to: Arc<Settlements>,
}

impl Reservation {
    /// Holds the reservation of an attempt that has been sealed. It ends as released until
    /// something else is said; where the attempt never becomes durable there is nothing to settle.
    pub(crate) fn new(to: &Arc<Settlements>, stream: StreamName, mark: Mark) -> Reservation {
        to.open.fetch_add(1, Ordering::AcqRel);
        let (attempt, mark) = (mark.attempt(), Some(mark));
        Reservation {
            stream,
            mark,
            attempt,
            end: End::Released,
            tries: 0,
            sent: None,
            to: Arc::clone(to),
        }
    }

    pub(crate) fn attempt(&self) -> ReceiptId {
        self.attempt
    }

    pub(crate) fn stream(&self) -> &StreamName {
        &self.stream
    }

    /// Says how it ends, unless something else is said later.
    pub(crate) fn ends(&mut self, end: End) {
        self.end = end;
    }

    /// Has what it is said to end as depend on whether a request has left.
    pub(crate) fn hangs_on(&mut self, sent: Sent) {
        self.sent = Some(sent);
    }

    /// Counts a request that was sent under it.
    pub(crate) fn tried(&mut self) {
        self.tries += 1;
    }

    /// Takes back the newest count: nothing was sent.
    pub(crate) fn untried(&mut self) {
        self.tries = self.tries.saturating_sub(1);
    }

    pub(crate) fn tries(&self) -> u32 {
        self.tries
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut end = std::mem::replace(&mut self.end, End::Released);
        if self.sent.as_ref().is_some_and(|sent| !sent.is_set()) {
            end = End::Released;
        }
        let command = match end {
            End::Charged(charge) => Command::Charge { attempt: self.attempt, charge: *charge },
            End::Released => settle(self.attempt, OutcomeStatus::Error, self.tries),
            End::Unknown => settle(self.attempt, OutcomeStatus::Unknown, self.tries),
        };
        let settlement =
            Settlement { stream: self.stream.clone(), command, mark: self.mark.take() };
        // Fails only when the engine is gone: the reconciler of the next start finds the attempt.
        let _ = self.to.jobs.send(settlement);
        self.to.wake.notify_one();
    }
}

fn settle(attempt: ReceiptId, status: OutcomeStatus, tries: u32) -> Command {
    Command::Settle { attempt, outcome: Outcome { status, duration_ms: 0, tries } }
}

/// A result to seal.
#[derive(Debug)]
struct Settlement {
    stream: StreamName,
    command: Command,
    mark: Option<Mark>,
}

/// Results that wait to be sealed. They outlive their worker.
#[derive(Debug)]
pub(crate) struct Settlements {
    jobs: channel::Sender<Settlement>,
    queued: channel::Receiver<Settlement>,
    wake: Notify,
    /// Reservations that are held or not settled yet.
    open: AtomicUsize,
}

impl Default for Settlements {
    fn default() -> Settlements {
        #[expect(
            clippy::disallowed_methods,
            reason = "each comes from a reservation, which are limited"
        )]
        let (jobs, queued) = channel::unbounded();
        Settlements { jobs, queued, wake: Notify::new(), open: AtomicUsize::new(0) }
    }
}

impl Settlements {
    /// Reservations that are held or not settled yet.
    pub(crate) fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    async fn next(&self) -> Settlement {
        loop {
            let woken = self.wake.notified();
            if let Ok(settlement) = self.queued.try_recv() {
                if !self.queued.is_empty() {
                    self.wake.notify_one();
                }
                return settlement;
            }
            woken.await;
        }
    }
}

/// Seals results as they come. Asked to stop, it seals what waits by then.
pub(crate) async fn seal(engine: Engine, settlements: Arc<Settlements>, mut stop: Stop) {
    let metrics = Arc::clone(&engine.inner().common.metrics);
    let mut running = FuturesUnordered::new();
    let mut is_stopping = false;
    // What is taken yet: each once, since what cannot be sealed comes back.
    let mut left = usize::MAX;
    loop {
        count(&metrics, &settlements);
        if is_stopping && running.is_empty() && left == 0 {
            return;
        }
        tokio::select! {
            biased;
            Some(()) = running.next(), if !running.is_empty() => {}
            settlement = settlements.next(), if running.len() < AT_ONCE && left > 0 => {
                if is_stopping {
                    left -= 1;
                }
                running.push(one(&engine, &settlements, settlement, stop.clone()));
            }
            () = stop.asked(), if !is_stopping => {
                is_stopping = true;
                left = settlements.queued.len();
            }
        }
    }
}

fn count(metrics: &Metrics, settlements: &Settlements) {
    metrics.ai_reservations.set(settlements.open() as i64);
}

/// Seals one result; goes on trying while the store is away, until asked to stop.
async fn one(engine: &Engine, settlements: &Settlements, settlement: Settlement, mut stop: Stop) {
    loop {
        let Settlement { stream, command, .. } = &settlement;
        let request = Request {
            stream: stream.clone(),
            command: command.clone(),
            actor: "ai_gateway".into(),
            may_register: false,
            key: None,
        };
        match engine.submit(request, None).await {
            Ok(_) => break,
            Err(refused) => {
                tracing::warn!(event = "settle_waits", %refused, "what a call used cannot be sealed yet");
            }
        }
        tokio::select! {
            () = stop.asked() => {
                // For the next life of this worker, if there is one.
                let _ = settlements.jobs.send(settlement);
                return;
            }
            () = tokio::time::sleep(BACKOFF) => {}
        }
    }
    settlements.open.fetch_sub(1, Ordering::AcqRel);
    // Only now: nobody lets go of an attempt before its result is durable.
    drop(settlement.mark);
}
