//! The port through which calls leave the process.
//!
//! Owns: what one attempt may take, what came of it, and what a dependency's health is called.
//! Refuses to know: sockets, TLS, and what a body means.
//!
//! One call of [`Outbound::send`] is one attempt. Which dependency is tried next, and whether at
//! all, is decided where the meaning of an answer is known; how many second attempts a dependency
//! may be sent over all callers is decided behind the port, where all of them meet.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;

/// A future on the heap: the port is used through a pointer.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The one way out.
pub trait Outbound: Send + Sync {
    /// Makes one attempt. Returns once the head of the answer is there.
    fn send(&self, attempt: Attempt) -> Boxed<'_, Result<Reply, SendError>>;

    /// Whether an attempt would be let through now: breaker, bulkhead and what the dependency
    /// itself has said. Takes no place and sends no probe.
    fn is_open_to(&self, dependency: &str) -> bool;

    /// Every dependency, in the order in which they were registered.
    fn dependencies(&self) -> Vec<DependencyState>;
}

/// One attempt.
#[derive(Debug)]
pub struct Attempt {
    /// The name under which the dependency is registered.
    pub dependency: &'static str,
    /// The path behind the dependency's base address, with a leading slash.
    pub path: String,
    /// Headers beside those that the port sets itself (host, length, content type
    /// `application/json`, accept, user agent). Values are never logged.
    pub headers: Vec<(&'static str, String)>,
    /// The body; the method is POST.
    pub body: Bytes,
    /// What it may take.
    pub clocks: Clocks,
    /// Told before the first byte of the request leaves.
    pub sent: Sent,
    /// A second or later attempt of the same call, at whichever dependency: counts against the
    /// retry budget of this one.
    pub is_retry: bool,
}

/// Whether a request may have left: what whoever made an attempt can still ask when it was dropped
/// in the middle. Copies are one.
#[derive(Debug, Clone, Default)]
pub struct Sent(Arc<AtomicBool>);

impl Sent {
    /// Says so; or takes it back, where not a byte had left after all.
    pub fn set(&self, is_sent: bool) {
        self.0.store(is_sent, Ordering::Release);
    }

    /// True once a byte may have left.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

/// The clocks of one attempt. `connect` is the dependency's own.
#[derive(Debug, Clone, Copy)]
pub struct Clocks {
    /// From the sent request to the head of the answer.
    pub head: Duration,
    /// Between two chunks of the body.
    pub gap: Duration,
    /// When everything has to be over; only ever moved nearer.
    pub deadline: Instant,
}

/// The head of an answer, and the body as it comes.
pub struct Reply {
    /// The status.
    pub status: u16,
    /// `Retry-After`, as a duration from now.
    pub retry_after: Option<Duration>,
    /// `Content-Type`, without parameters, in lower case.
    pub content_type: String,
    /// The body.
    pub body: Box<dyn ReplyBody>,
}

/// A body as it comes. Dropping it closes the connection unless the body was read to its end, so
/// that the far side stops working. Dropped without a verdict it says nothing about the dependency:
/// the caller left.
pub trait ReplyBody: Send {
    /// The next bytes; `None` at the proper end. Bounded by gap and deadline.
    fn chunk(&mut self) -> Boxed<'_, Option<Result<Bytes, SendError>>>;

    /// What the attempt says about the dependency. The first verdict counts.
    fn judge(&mut self, verdict: Verdict);
}

/// What an attempt says about the dependency. A failure of [`Outbound::send`] has judged itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It works.
    Good,
    /// It does not: counts towards opening its breaker.
    Bad,
    /// It asked to be left alone for so long. Says nothing about whether it works.
    Throttled(Duration),
    /// The request, the key or a policy was at fault: says that it works.
    NotItsFault,
}

/// Which clock ran out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Making the connection, TLS included.
    Connect,
    /// Waiting for the head of the answer.
    Head,
    /// Waiting for the next chunk.
    Gap,
    /// The whole.
    Deadline,
}

impl Clock {
    /// The word in metrics and logs.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Clock::Connect => "connect",
            Clock::Head => "head",
            Clock::Gap => "gap",
            Clock::Deadline => "deadline",
        }
    }
}

/// Why an attempt came to nothing. No text of the far side is in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// Not sent: the breaker is open, or the one probe of a half-open breaker is under way.
    #[error("the breaker is open")]
    BreakerOpen {
        /// Until it lets a probe through.
        retry_after: Duration,
    },
    /// Not sent: the dependency has asked to be left alone.
    #[error("the dependency asked for a pause")]
    Paused {
        /// Until the pause is over.
        retry_after: Duration,
    },
    /// Not sent: as many calls as may be are under way.
    #[error("too many calls are under way")]
    Busy,
    /// Not sent: second attempts would be more than their share of calls.
    #[error("the retry budget is spent")]
    RetryBudget,
    /// Not sent: nobody knows the name.
    #[error("the name does not resolve")]
    Dns,
    /// Not sent: no connection.
    #[error("no connection")]
    Connect,
    /// Not sent: no secure connection.
    #[error("no secure connection")]
    Tls,
    /// A clock ran out.
    #[error("the {} clock ran out", .0.as_str())]
    Timeout(Clock),
    /// The connection broke off, before the head or in the body.
    #[error("the connection broke off")]
    Reset,
    /// What came was not HTTP.
    #[error("the answer is not HTTP")]
    Protocol,
}

impl SendError {
    /// True when the far side cannot have seen the request.
    #[must_use]
    pub const fn is_unsent(self) -> bool {
        match self {
            SendError::BreakerOpen { .. }
            | SendError::Paused { .. }
            | SendError::Busy
            | SendError::RetryBudget
            | SendError::Dns
            | SendError::Connect
            | SendError::Tls
            | SendError::Timeout(Clock::Connect) => true,
            SendError::Timeout(_) | SendError::Reset | SendError::Protocol => false,
        }
    }

    /// The word in metrics and logs, label `error_type`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            SendError::BreakerOpen { .. } => "circuit_open",
            SendError::Paused { .. } => "paused",
            SendError::Busy => "bulkhead_full",
            SendError::RetryBudget => "retry_budget",
            SendError::Dns => "dns",
            SendError::Connect => "connect",
            SendError::Tls => "tls",
            SendError::Timeout(_) => "timeout",
            SendError::Reset => "reset",
            SendError::Protocol => "protocol",
        }
    }
}

/// A breaker's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Breaker {
    /// Calls go through.
    Closed,
    /// Calls are refused.
    Open,
    /// One probe goes through.
    HalfOpen,
}

impl Breaker {
    /// The word in answers; the gauge is its place: 0, 1, 2.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Breaker::Closed => "closed",
            Breaker::Open => "open",
            Breaker::HalfOpen => "half_open",
        }
    }
}

/// What is known of a dependency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DependencyState {
    /// Its name.
    pub name: &'static str,
    /// Its breaker.
    pub breaker: Breaker,
    /// True while an operator holds the breaker.
    pub is_forced: bool,
    /// Failures in a row.
    pub failures: u32,
    /// Calls under way.
    pub in_flight: usize,
    /// Calls that may be under way.
    pub in_flight_max: usize,
    /// How long it has asked to be left alone, from now.
    pub paused_for: Option<Duration>,
}
