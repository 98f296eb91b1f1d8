//! Log lines on their way to who collects them.
//!
//! Owns: what one request holds, when the next is made after one that failed, and which lines are given
//! up. Refuses to know: what a line says, and how many may wait. Nothing here is logged, and what the
//! connection says about itself is not sent through it: `telemetry` keeps it out of the queue.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::outbound::{Attempt, Clocks, Outbound, Reply, SendError, Sent, Verdict};
use engine::supervise::{Stop, Worker};
use telemetry::log::{Outbox, Taken};
use tokio::sync::Notify;

use crate::base::Base;
use crate::egress::now;
use crate::{Dependency, Error};

/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(15);
/// The longest wait for the head of an answer, and between two pieces of it.
const ANSWER: Duration = Duration::from_secs(10);
/// The pause after the first failure; each further one doubles it.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The longest pause, whatever the collector asks for.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Bytes of an answer that are read so that its connection can be used again.
const ANSWER_BYTES: usize = 64 * 1024;

/// Who collects log lines: `POST {"logs":[…]}`, one object a line.
#[derive(Debug, Clone)]
pub struct LogEndpoint {
    dependency: Dependency,
    path: String,
}

impl LogEndpoint {
    /// A collector at `http(s)://host[:port]/path`. It may be on a private network; without https it may
    /// be nowhere else.
    ///
    /// # Errors
    /// [`Error::Base`], never with the address.
    pub fn new(url: &str) -> Result<LogEndpoint, Error> {
        let mut dependency = Dependency {
            name: Outbox::DEPENDENCY,
            base: url.to_owned(),
            in_flight_max: 1,
            connect: Duration::from_secs(5),
            is_private_allowed: true,
        };
        Base::parse(&dependency)?;
        // An attempt's path follows a slash, which the collector's own may not end with.
        let authority = url.find("://").map_or(0, |at| at + "://".len());
        let path_at = url[authority..].find('/').map_or(url.len(), |at| authority + at);
        dependency.base.truncate(path_at);
        let path = if path_at < url.len() { url[path_at..].to_owned() } else { "/".to_owned() };
        Ok(LogEndpoint { dependency, path })
    }

    /// What it is registered as.
    #[must_use]
    pub fn dependency(&self) -> Dependency {
        self.dependency.clone()
    }
}

/// Sends lines, one batch after the other, so that they arrive in order.
pub struct LogShipper {
    outbound: Arc<dyn Outbound>,
    outbox: Outbox,
    path: String,
    /// The value of `Authorization`.
    authorization: Option<String>,
    wake: Arc<Notify>,
}

/// What became of a request.
enum Outcome {
    Arrived,
    /// It is too much at once, or one of its lines cannot be taken.
    TooMuch,
    /// Again, not before so long.
    Later(Duration),
}

impl LogShipper {
    /// Sends what is in `outbox` to the endpoint, which is registered with `outbound`.
    #[must_use]
    pub fn new(
        outbound: Arc<dyn Outbound>,
        outbox: Outbox,
        endpoint: &LogEndpoint,
        authorization: Option<&str>,
    ) -> Arc<LogShipper> {
        let wake = Arc::new(Notify::new());
        let told = Arc::clone(&wake);
        outbox.on_full(Box::new(move || told.notify_one()));
        let (path, authorization) = (endpoint.path.clone(), authorization.map(str::to_owned));
        Arc::new(LogShipper { outbound, outbox, path, authorization, wake })
    }

    /// What sends them.
    #[must_use]
    pub fn worker(self: &Arc<LogShipper>) -> Worker {
        let shipper = Arc::clone(self);
        Worker::task("log_http", move |stop| Arc::clone(&shipper).run(stop))
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

    async fn run(self: Arc<LogShipper>, mut stop: Stop) {
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

    /// Sends a batch and says what the next may hold; gives the least pause where it was for nothing.
    async fn deliver(&self, taken: Taken, lines_max: &mut usize) -> Option<Duration> {
        match self.post(taken.lines()).await {
            Outcome::Arrived => {
                taken.arrived();
                *lines_max = lines_max.saturating_mul(2).min(self.outbox.options().batch_lines);
            }
            Outcome::TooMuch if taken.lines().len() > 1 => *lines_max = taken.lines().len() / 2,
            // One line that is never taken must not hold up all others.
            Outcome::TooMuch => taken.lose(),
            Outcome::Later(pause) => return Some(pause),
        }
        None
    }

    async fn post(&self, lines: &[String]) -> Outcome {
        let authorization = self.authorization.iter().map(|it| ("authorization", it.clone()));
        let attempt = Attempt {
            dependency: Outbox::DEPENDENCY,
            path: self.path.clone(),
            headers: authorization.collect(),
            body: body_of(lines),
            clocks: Clocks { head: ANSWER, gap: ANSWER, deadline: now() + DEADLINE },
            sent: Sent::default(),
            is_retry: false,
        };
        match self.outbound.send(attempt).await {
            Ok(reply) => judged(reply).await,
            Err(SendError::BreakerOpen { retry_after } | SendError::Paused { retry_after }) => {
                Outcome::Later(retry_after)
            }
            Err(_) => Outcome::Later(Duration::ZERO),
        }
    }
}

fn body_of(lines: &[String]) -> Bytes {
    Bytes::from(["{\"logs\":[", &lines.join(","), "]}"].concat())
}

/// Reads the answer to its end, so that the connection can be used again.
async fn judged(mut reply: Reply) -> Outcome {
    let asked = reply.retry_after.unwrap_or_default();
    let (verdict, outcome) = match reply.status {
        200..300 => (Verdict::Good, Outcome::Arrived),
        // With half of it a line that cannot be taken is found, and the others arrive.
        400 | 413 | 422 => (Verdict::NotItsFault, Outcome::TooMuch),
        429 => (Verdict::Throttled(asked), Outcome::Later(asked)),
        500.. => (Verdict::Bad, Outcome::Later(asked)),
        // A key or an address that the operator can mend.
        _ => (Verdict::NotItsFault, Outcome::Later(asked)),
    };
    reply.body.judge(verdict);
    let mut read = 0;
    while let Some(Ok(chunk)) = reply.body.chunk().await {
        read += chunk.len();
        if read > ANSWER_BYTES {
            break;
        }
    }
    outcome
}

#[cfg(test)]
#[path = "logs_tests.rs"]
mod tests;
