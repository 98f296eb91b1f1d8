//! A dependency, live.
//!
//! Owns: one attempt from gate to head, what is counted, logged and traced of it, and that place
//! and probe come back whatever way it ends. Refuses to know: other dependencies.

use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use engine::outbound::{Attempt, Breaker, Clock, DependencyState, Reply, SendError, Verdict};
use http::Response;
use hyper::body::Incoming;
use prometheus::{Histogram, IntCounter, IntGauge};
use telemetry::metrics::Metrics;
use telemetry::trace::{self, Context, Kind, Span};
use tokio_rustls::TlsConnector;

use crate::base::Base;
use crate::body::Body;
use crate::connection::{Connection, Exchange, Outgoing};
use crate::dial::Dialer;
use crate::egress::now;
use crate::error::Error;
use crate::failure::Failure;
use crate::gate::{Gate, Ticket};
use crate::pool::Pool;
use crate::{Dependency, Policy, head};

/// What came of an attempt, as the metric has it: an answer, or a word of the port's errors.
const OUTCOMES: [&str; 11] = [
    "answered",
    "circuit_open",
    "paused",
    "bulkhead_full",
    "retry_budget",
    "dns",
    "connect",
    "tls",
    "timeout",
    "reset",
    "protocol",
];

/// A registered dependency.
pub(crate) struct Peer {
    pub(crate) name: &'static str,
    connect: Duration,
    base: Arc<Base>,
    dialer: Dialer,
    pool: Pool<Box<Connection>>,
    gate: Mutex<Gate>,
    policy: Arc<ArcSwap<Policy>>,
    counts: Counts,
}

struct Counts {
    state: IntGauge,
    outcomes: [IntCounter; OUTCOMES.len()],
    in_flight: IntGauge,
    retries_refused: IntCounter,
    head_seconds: Histogram,
}

impl Counts {
    fn new(name: &'static str, metrics: &Metrics) -> Counts {
        let counts = Counts {
            state: metrics.circuit_breaker_state.with([name]),
            outcomes: OUTCOMES.map(|outcome| metrics.egress_attempts.with([name, outcome])),
            in_flight: metrics.egress_in_flight.with([name]),
            retries_refused: metrics.egress_retries_refused.with([name]),
            head_seconds: metrics.service_latency_histogram.with([name]),
        };
        counts.state.set(0);
        counts
    }

    fn outcome(&self, word: &str) {
        let found = OUTCOMES.iter().zip(&self.outcomes).find(|(outcome, _)| **outcome == word);
        if let Some((_, counter)) = found {
            counter.inc();
        }
    }
}

impl Peer {
    pub(crate) fn new(
        dependency: &Dependency,
        policy: Arc<ArcSwap<Policy>>,
        base: Base,
        tls: Option<TlsConnector>,
        metrics: &Metrics,
    ) -> Result<Peer, Error> {
        let name = dependency.name;
        if dependency.in_flight_max == 0 {
            return Err(Error::NoPlaces { name });
        }
        let base = Arc::new(base);
        let dialer = Dialer::new(Arc::clone(&base), tls)
            .ok_or(Error::Base { name, why: "its host is not a host" })?;
        Ok(Peer {
            name,
            connect: dependency.connect,
            base,
            dialer,
            pool: Pool::new(dependency.in_flight_max),
            gate: Mutex::new(Gate::new(dependency.in_flight_max, now())),
            policy,
            counts: Counts::new(name, metrics),
        })
    }

    pub(crate) async fn send(self: &Arc<Self>, attempt: Attempt) -> Result<Reply, SendError> {
        let mut span = self.span(attempt.is_retry);
        let sent = self.attempt(attempt, &mut span).await;
        self.counts.outcome(match &sent {
            Ok(_) => "answered",
            Err(error) => {
                span.fail(error.as_str());
                error.as_str()
            }
        });
        sent
    }

    /// What whoever looks at the trace sees of it. No path: some hold a key.
    fn span(&self, is_retry: bool) -> Span {
        let mut span = trace::child(Kind::Client, || ["POST ", self.name].concat());
        if span.is_kept() {
            span.set("http.request.method", "POST");
            span.set("server.address", self.base.host.as_str());
            span.set("server.port", self.base.port);
            span.set("peer.service", self.name);
            span.set("tai.is_retry", is_retry);
        }
        span
    }

    /// One attempt; `span` is taken by an answer, and ends when its body does.
    async fn attempt(
        self: &Arc<Self>,
        mut attempt: Attempt,
        span: &mut Span,
    ) -> Result<Reply, SendError> {
        if attempt.clocks.deadline <= now() {
            return Err(SendError::Timeout(Clock::Deadline));
        }
        let mut held = self.admit(attempt.is_retry)?;
        // Who is asked goes on from this attempt, not from the request that led to it.
        let context = span.context().or_else(trace::current);
        match self.exchange(&mut attempt, context).await {
            Ok((connection, answer)) => {
                let (head, incoming) = answer.into_parts();
                held.span = std::mem::take(span);
                held.answered(head.status.as_u16());
                Ok(Reply {
                    status: head.status.as_u16(),
                    retry_after: head::retry_after(&head.headers),
                    content_type: head::content_type(&head.headers),
                    body: Box::new(Body::new(connection, incoming, attempt.clocks, held)),
                })
            }
            Err(failure) => {
                held.failed(&failure);
                Err(failure.error)
            }
        }
    }

    fn admit(self: &Arc<Self>, is_retry: bool) -> Result<Held, SendError> {
        let admitted = self.with_gate(None, |gate, now, policy| gate.admit(is_retry, now, policy));
        match admitted {
            Ok(ticket) => {
                self.counts.in_flight.inc();
                Ok(Held { peer: Arc::clone(self), ticket, is_judged: false, span: Span::default() })
            }
            Err(error) => {
                if error == SendError::RetryBudget {
                    self.counts.retries_refused.inc();
                }
                Err(error)
            }
        }
    }

    async fn exchange(
        &self,
        attempt: &mut Attempt,
        context: Option<Context>,
    ) -> Result<(Box<Connection>, Response<Incoming>), Failure> {
        let clocks = attempt.clocks;
        let mut request = head::request(&self.base, attempt, context)?;
        // A connection that the far side has closed while it was idle hands the request back: not a
        // byte of it was sent, so it goes over the next one. That is no second attempt.
        while let Some(mut connection) = self.pool.take(now()) {
            attempt.sent.set(true);
            match self.wait(&mut connection, request, clocks.head, clocks.deadline).await? {
                Exchange::Answered(answer) => return Ok((connection, answer)),
                Exchange::Unsent(unsent) => request = *unsent,
            }
            attempt.sent.set(false);
        }
        let (until, clock) = sooner(self.connect, Clock::Connect, clocks.deadline);
        // On the heap: it is large, and most calls find a connection.
        let dialed = Box::pin(self.dialer.connect(until));
        let mut connection = tokio::time::timeout_at(until.into(), dialed)
            .await
            .map_err(|_| Failure::clock(clock))??;
        attempt.sent.set(true);
        match self.wait(&mut connection, request, clocks.head, clocks.deadline).await? {
            Exchange::Answered(answer) => Ok((connection, answer)),
            Exchange::Unsent(_) => {
                Err(Failure::new(SendError::Connect, "it closed a new connection at once"))
            }
        }
    }

    async fn wait(
        &self,
        connection: &mut Connection,
        request: Outgoing,
        head: Duration,
        deadline: Instant,
    ) -> Result<Exchange, Failure> {
        let (until, clock) = sooner(head, Clock::Head, deadline);
        let began = now();
        let exchange = pin!(connection.exchange(request));
        let exchange = tokio::time::timeout_at(until.into(), exchange)
            .await
            .map_err(|_| Failure::clock(clock))??;
        if matches!(exchange, Exchange::Answered(_)) {
            self.counts.head_seconds.observe(now().saturating_duration_since(began).as_secs_f64());
        }
        Ok(exchange)
    }

    /// Looks into the gate, or changes what is in it, and tells what came of it.
    fn with_gate<T>(
        &self,
        why: Option<&str>,
        look: impl FnOnce(&mut Gate, Instant, &Policy) -> T,
    ) -> T {
        let (now, policy) = (now(), self.policy.load());
        let mut gate = self.gate();
        let seen = look(&mut gate, now, &policy);
        let news = gate.news(now, &policy);
        if let Some((breaker, _)) = news {
            // Under the lock: of two changes that follow each other the second one stands.
            self.counts.state.set(match breaker {
                Breaker::Closed => 0,
                Breaker::Open => 1,
                Breaker::HalfOpen => 2,
            });
        }
        drop(gate);
        if let Some((breaker, failures)) = news {
            self.tell(breaker, failures, why.unwrap_or("the policy or an operator"));
        }
        seen
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        // Nothing in there can panic half-way through a change.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, breaker: Breaker, failures: u32, why: &str) {
        let dependency = self.name;
        match breaker {
            Breaker::Open => {
                tracing::warn!(
                    event = "circuit_open",
                    dependency,
                    failures,
                    why,
                    "{dependency} is not called for now: {why}"
                );
            }
            Breaker::HalfOpen => {
                tracing::info!(
                    event = "circuit_half_open",
                    dependency,
                    "{dependency} is called once, to see"
                );
            }
            Breaker::Closed => {
                tracing::info!(
                    event = "circuit_closed",
                    dependency,
                    "{dependency} is called again"
                );
            }
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.gate().is_open(now(), &self.policy.load())
    }

    pub(crate) fn state(&self) -> DependencyState {
        self.with_gate(None, |gate, now, policy| gate.state(self.name, now, policy))
    }

    /// Looks whether another policy has changed anything.
    pub(crate) fn look(&self) {
        self.with_gate(None, |_, _, _| ());
    }

    pub(crate) fn force(&self, breaker: Option<Breaker>) {
        self.with_gate(None, |gate, _, _| gate.force(breaker));
    }

    pub(crate) fn sweep(&self) {
        self.pool.sweep(now());
    }
}

/// The clock that runs out first, of one that starts now and the deadline; the former where they
/// are equal, since it would have run out without the deadline too.
fn sooner(clock: Duration, name: Clock, deadline: Instant) -> (Instant, Clock) {
    match now().checked_add(clock) {
        Some(own) if own <= deadline => (own, name),
        _ => (deadline, Clock::Deadline),
    }
}

/// An attempt's place, and perhaps the probe. Dropping it gives both back, and ends the span.
pub(crate) struct Held {
    peer: Arc<Peer>,
    ticket: Ticket,
    is_judged: bool,
    span: Span,
}

impl Held {
    /// Takes the first verdict.
    pub(crate) fn judge(&mut self, verdict: Verdict, why: &str) {
        if !self.is_judged {
            self.is_judged = true;
            self.peer.with_gate(Some(why), |gate, now, policy| {
                gate.judge(self.ticket, verdict, now, policy);
            });
        }
    }

    /// The head of an answer is there.
    fn answered(&mut self, status: u16) {
        if self.span.is_kept() {
            self.span.set("http.response.status_code", status);
            // To who asks, a refusal is a failure too.
            if status < 400 { self.span.done() } else { self.span.fail(&status.to_string()) }
        }
    }

    pub(crate) fn failed(&mut self, failure: &Failure) {
        let Failure { error, why, is_its_fault } = failure;
        self.span.fail(error.as_str());
        let dependency = self.peer.name;
        if *is_its_fault {
            tracing::debug!(event = "egress_failed", dependency, error_type = error.as_str(), %why, "an attempt failed");
            self.judge(Verdict::Bad, why);
        } else if *error == SendError::Protocol {
            tracing::error!(event = "egress_request", dependency, %why, "a request of ours cannot be sent");
        }
    }

    pub(crate) fn give_back(&self, connection: Box<Connection>) {
        self.peer.pool.put(connection, now());
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.peer.gate().leave(self.ticket);
        self.peer.counts.in_flight.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_error_of_the_port_has_a_series() {
        let retry_after = Duration::ZERO;
        for error in [
            SendError::BreakerOpen { retry_after },
            SendError::Paused { retry_after },
            SendError::Busy,
            SendError::RetryBudget,
            SendError::Dns,
            SendError::Connect,
            SendError::Tls,
            SendError::Timeout(Clock::Head),
            SendError::Reset,
            SendError::Protocol,
        ] {
            assert!(OUTCOMES.contains(&error.as_str()), "{error}");
        }
    }
}
