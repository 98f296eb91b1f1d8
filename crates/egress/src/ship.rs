//! Log lines and spans on their way to who collects them.
//!
//! Owns: what one request holds, when the next is made after one that failed, and what is given up.
//! Refuses to know: what a line or a span says, and how many may wait. Nothing here is logged or
//! traced, and what the connection says about itself is not sent through it: `telemetry` keeps it
//! out of the queue.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use engine::outbound::{Attempt, Clocks, Outbound, Reply, SendError, Sent, Verdict};
use engine::supervise::{Stop, Worker};
use telemetry::outbox::{Outbox, Taken};
use telemetry::trace;
use tokio::sync::Notify;

use crate::egress::now;
use crate::endpoint::read_out;
use crate::{Dependency, Endpoint, Error};

/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(15);
/// The longest wait for the head of an answer, and between two pieces of it.
const ANSWER: Duration = Duration::from_secs(10);
/// The pause after the first failure; each further one doubles it.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause, whatever the collector asks for.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// What is collected, and so what an answer means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cargo {
    /// Lines of the log.
    Lines,
    /// Spans, by the rules of OTLP over HTTP.
    Spans,
}

impl Cargo {
    /// The dependency that takes it.
    const fn dependency(self) -> &'static str {
        match self {
            Cargo::Lines => telemetry::log::COLLECTOR,
            Cargo::Spans => "otlp",
        }
    }

    const fn worker(self) -> &'static str {
        match self {
            Cargo::Lines => "log_http",
            Cargo::Spans => "trace_export",
        }
    }

    /// What an answer says about the collector, and about what it was sent.
    fn judged(self, status: u16, asked: Duration) -> (Verdict, Outcome) {
        match (self, status) {
            (_, 200..300) => (Verdict::Good, Outcome::Arrived),
            // With half of it a line that cannot be taken is found, and the others arrive.
            (Cargo::Lines, 400 | 413 | 422) | (Cargo::Spans, 413) => {
                (Verdict::NotItsFault, Outcome::TooMuch)
            }
            (_, 429) => (Verdict::Throttled(asked), Outcome::Later(asked)),
            (Cargo::Lines, 500..) | (Cargo::Spans, 502..=504) => {
                (Verdict::Bad, Outcome::Later(asked))
            }
            // A key or an address that the operator can mend.
            (Cargo::Lines, _) => (Verdict::NotItsFault, Outcome::Later(asked)),
            // The protocol forbids to try these again.
            (Cargo::Spans, 500..) => (Verdict::Bad, Outcome::Lost),
            (Cargo::Spans, _) => (Verdict::NotItsFault, Outcome::Lost),
        }
    }
}

/// Who collects: a POST of what stands around the lines, and the lines between with commas.
#[derive(Debug, Clone)]
pub struct Collector {
    cargo: Cargo,
    endpoint: Endpoint,
}

impl Collector {
    /// A collector at that address, as [`Endpoint::new`] takes it.
    ///
    /// # Errors
    /// [`Error::Base`], never with the address.
    pub fn new(cargo: Cargo, url: &str) -> Result<Collector, Error> {
        Ok(Collector { cargo, endpoint: Endpoint::new(cargo.dependency(), url, 1)? })
    }

    /// What it is registered as.
    #[must_use]
    pub fn dependency(&self) -> Dependency {
        self.endpoint.dependency()
    }
}

/// Sends lines, one batch after the other, so that they arrive in order.
pub struct Shipper {
    outbound: Arc<dyn Outbound>,
    outbox: Outbox,
    collector: Collector,
    headers: Vec<(&'static str, String)>,
    /// What stands before the lines, and behind them.
    around: (String, &'static str),
    wake: Arc<Notify>,
}

/// What became of a request.
enum Outcome {
    Arrived,
    /// It is too much at once, or one of its lines cannot be taken.
    TooMuch,
    /// It is never taken.
    Lost,
    /// Again, not before so long.
    Later(Duration),
}

impl Shipper {
    /// Sends what is in `outbox` to the collector, which is registered with `outbound`. The headers
    /// go with each request.
    #[must_use]
    pub fn new(
        outbound: Arc<dyn Outbound>,
        outbox: Outbox,
        collector: Collector,
        headers: Vec<(&'static str, String)>,
        around: (String, &'static str),
    ) -> Arc<Shipper> {
        let wake = Arc::new(Notify::new());
        let told = Arc::clone(&wake);
        outbox.on_full(Box::new(move || told.notify_one()));
        Arc::new(Shipper { outbound, outbox, collector, headers, around, wake })
    }

    /// What sends them.
    #[must_use]
    pub fn worker(self: &Arc<Shipper>) -> Worker {
        let shipper = Arc::clone(self);
        Worker::task(self.collector.cargo.worker(), move |stop| Arc::clone(&shipper).run(stop))
    }

    /// Sends what waits, within `limit`; what fails is not tried again.
    pub async fn finish(&self, limit: Duration) {
        let all = async {
            let mut lines_max = self.outbox.options().batch_lines;
            while let Some(taken) = self.outbox.take(lines_max) {
                if self.deliver(taken, &mut lines_max).await.is_some() {
                    return;
                }
            }
        };
        // What is left when time is up goes with the process.
        let _ = tokio::time::timeout(limit, all).await;
    }

    async fn run(self: Arc<Shipper>, mut stop: Stop) {
        tokio::select! {
            () = stop.asked() => {}
            () = self.ship() => {}
        }
    }

    /// Sends for ever. Lines on their way go back when it is dropped.
    async fn ship(&self) {
        let options = self.outbox.options();
        let (mut lines_max, mut failures) = (options.batch_lines, 0);
        loop {
            if !self.outbox.is_full() {
                tokio::select! {
                    () = self.wake.notified() => {}
                    () = tokio::time::sleep(options.flush_interval) => {}
                }
            }
            while let Some(taken) = self.outbox.take(lines_max) {
                let Some(asked) = self.deliver(taken, &mut lines_max).await else {
                    failures = 0;
                    continue;
                };
                let pause = PAUSE_MIN.saturating_mul(1 << failures).max(asked).min(PAUSE_MAX);
                failures = (failures + 1).min(6);
                tokio::time::sleep(pause).await;
            }
        }
    }

    /// Sends a batch and says what the next may hold; gives the least pause where it was for
    /// nothing.
    async fn deliver(&self, taken: Taken, lines_max: &mut usize) -> Option<Duration> {
        let (outcome, refused) = self.post(taken.lines()).await;
        match outcome {
            Outcome::Arrived => {
                taken.arrived(refused);
                *lines_max = lines_max.saturating_mul(2).min(self.outbox.options().batch_lines);
            }
            Outcome::TooMuch if taken.lines().len() > 1 => *lines_max = taken.lines().len() / 2,
            // One line that is never taken must not hold up all others.
            Outcome::TooMuch | Outcome::Lost => taken.lose(),
            Outcome::Later(pause) => return Some(pause),
        }
        None
    }

    /// What became of it, and how many lines were not kept of a request that was taken.
    async fn post(&self, lines: &[String]) -> (Outcome, u64) {
        let attempt = Attempt {
            dependency: self.collector.cargo.dependency(),
            path: self.collector.endpoint.path().to_owned(),
            headers: self.headers.clone(),
            body: self.body_of(lines),
            clocks: Clocks { head: ANSWER, gap: ANSWER, deadline: now() + DEADLINE },
            sent: Sent::default(),
            is_retry: false,
        };
        match self.outbound.send(attempt).await {
            Ok(reply) => self.judged(reply).await,
            Err(SendError::BreakerOpen { retry_after } | SendError::Paused { retry_after }) => {
                (Outcome::Later(retry_after), 0)
            }
            Err(_) => (Outcome::Later(Duration::ZERO), 0),
        }
    }

    fn body_of(&self, lines: &[String]) -> Bytes {
        let (before, behind) = &self.around;
        Bytes::from([before.as_str(), &lines.join(","), behind].concat())
    }

    /// Reads the answer to its end, so that the connection can be used again.
    async fn judged(&self, mut reply: Reply) -> (Outcome, u64) {
        let asked = reply.retry_after.unwrap_or_default();
        let cargo = self.collector.cargo;
        let (verdict, outcome) = cargo.judged(reply.status, asked);
        reply.body.judge(verdict);
        let mut read = BytesMut::new();
        read_out(&mut *reply.body, |chunk| read.extend_from_slice(chunk)).await;
        let refused = match (cargo, &outcome) {
            (Cargo::Spans, Outcome::Arrived) => trace::refused(&read),
            _ => 0,
        };
        (outcome, refused)
    }
}

#[cfg(test)]
#[path = "ship_tests.rs"]
mod tests;
