//! Spans: what took how long on behalf of a request, for who looks at it elsewhere.
//!
//! Owns: which traces are sampled, the ids of spans, what a span says and that it is redacted
//! before it waits anywhere. Refuses to know: how spans are sent, and what is worth one.
//!
//! A request whose trace is not sampled has no spans: nothing is built, nothing is allocated.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use types::redact::{REDACTED, is_sensitive};
use types::{Clock, Micros};

use super::{Context, current, otlp};
use crate::log::clean;
use crate::outbox::{Outbox, OutboxOptions};

/// Spans that are sent together.
const BATCH_SPANS: usize = 512;
/// How long a span waits for others.
const FLUSH_INTERVAL: Duration = Duration::from_secs(1);

/// Bits of a trace's id that decide whether it is sampled: those that W3C Trace Context calls
/// random.
const RANDOM_BITS: u32 = 56;
/// The whole, of which a share is given.
const WHOLE: u32 = 1_000_000_000;

/// Odd, so that its multiples do not repeat, with bits all over.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// `error.type` of a span whose work was given up before it had an outcome.
const CANCELLED: &str = "cancelled";

/// Where spans go. There is one in a process, and it lives as long.
pub struct Tracer {
    clock: Arc<dyn Clock>,
    outbox: Outbox,
    /// Ids from here on are sampled.
    threshold: AtomicU64,
    children: AtomicU64,
}

impl Tracer {
    /// Keeps the spans of so many billionths of all traces.
    #[must_use]
    pub fn new(clock: Arc<dyn Clock>, share: u32) -> Tracer {
        let options = OutboxOptions { batch_lines: BATCH_SPANS, flush_interval: FLUSH_INTERVAL };
        let (outbox, children) = (Outbox::new(options), AtomicU64::new(1));
        Tracer { clock, outbox, threshold: AtomicU64::new(threshold(share)), children }
    }

    /// Keeps the spans of so many billionths from now on, of traces that begin here.
    pub fn set_share(&self, share: u32) {
        self.threshold.store(threshold(share), Ordering::Relaxed);
    }

    /// What waits to be sent: each line is one span of OTLP in JSON.
    #[must_use]
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Whether the trace is sampled, by the rule of OpenTelemetry's consistent probability
    /// sampling: its random bits are not below a threshold.
    pub(super) fn samples(&self, trace: u128) -> bool {
        let random = trace & ((1 << RANDOM_BITS) - 1);
        random >= u128::from(self.threshold.load(Ordering::Relaxed))
    }

    /// An id that no other span of the same trace has: the spans of one request are told apart by
    /// the count, those of several by the id of the request's own.
    fn child_id(&self, parent: u64) -> u64 {
        let count = self.children.fetch_add(1, Ordering::Relaxed);
        mixed(parent.wrapping_add(count.wrapping_mul(STEP))).max(1)
    }
}

impl fmt::Debug for Tracer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tracer")
    }
}

impl PartialEq for Tracer {
    fn eq(&self, other: &Tracer) -> bool {
        std::ptr::eq(self, other)
    }
}

impl Eq for Tracer {}

fn threshold(share: u32) -> u64 {
    let left_out = u128::from(WHOLE.saturating_sub(share));
    let threshold = (left_out << RANDOM_BITS) / u128::from(WHOLE);
    u64::try_from(threshold).unwrap_or(u64::MAX)
}

/// The finalizer of `SplitMix64`: one to one, and every bit of the outcome depends on all.
fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// Whose work a span is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Our own, inside.
    Internal,
    /// Ours, for who asked.
    Server,
    /// Somebody else's, whom we asked.
    Client,
}

/// What an attribute says.
#[derive(Debug, Clone, Copy)]
pub enum Value<'a> {
    /// A text.
    Text(&'a str),
    /// A number.
    Number(i64),
    /// A yes or no.
    Flag(bool),
}

impl<'a> From<&'a str> for Value<'a> {
    fn from(text: &'a str) -> Value<'a> {
        Value::Text(text)
    }
}

impl From<u16> for Value<'_> {
    fn from(number: u16) -> Self {
        Value::Number(number.into())
    }
}

impl From<bool> for Value<'_> {
    fn from(flag: bool) -> Self {
        Value::Flag(flag)
    }
}

/// A span that is under way; it ends when it is dropped. Where the trace is not sampled it is
/// nothing, and everything that is done to it is nothing too.
#[derive(Debug, Default)]
pub struct Span(Option<Box<Open>>);

/// What is known of a span.
#[derive(Debug)]
pub(super) struct Open {
    tracer: &'static Tracer,
    /// Its own id is the one of this.
    pub(super) context: Context,
    pub(super) parent: Option<u64>,
    pub(super) is_parent_remote: bool,
    pub(super) kind: Kind,
    pub(super) name: String,
    pub(super) began: Micros,
    since: Instant,
    /// Attributes in JSON, with commas between them.
    pub(super) attributes: String,
    outcome: Outcome,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Unknown,
    Good,
    Bad,
}

impl Span {
    fn begin(
        context: Context,
        parent: Option<u64>,
        kind: Kind,
        name: impl FnOnce() -> String,
    ) -> Span {
        let Some(tracer) = context.tracer else { return Span(None) };
        Span(Some(Box::new(Open {
            tracer,
            context,
            parent,
            is_parent_remote: kind == Kind::Server && parent.is_some(),
            kind,
            name: name(),
            began: tracer.clock.now(),
            since: Instant::now(),
            attributes: String::new(),
            outcome: Outcome::Unknown,
        })))
    }

    /// Whether anybody will see it.
    #[must_use]
    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// What goes further from here: its id in place of the request's own.
    #[must_use]
    pub fn context(&self) -> Option<Context> {
        self.0.as_ref().map(|open| open.context)
    }

    /// Says something about it. A name that may hold a secret is said without its value, and a text
    /// without what looks like one.
    pub fn set<'a>(&mut self, name: &'static str, value: impl Into<Value<'a>>) {
        let Some(open) = &mut self.0 else { return };
        match value.into() {
            _ if is_sensitive(name) => {
                otlp::attribute(&mut open.attributes, name, Value::Text(REDACTED));
            }
            Value::Text(text) => {
                otlp::attribute(&mut open.attributes, name, Value::Text(&clean(text)));
            }
            value => otlp::attribute(&mut open.attributes, name, value),
        }
    }

    /// It came to what it was for, unless [`Span::fail`] says otherwise, before or after. What
    /// neither is said of was given up.
    pub fn done(&mut self) {
        if let Some(open) = &mut self.0
            && open.outcome == Outcome::Unknown
        {
            open.outcome = Outcome::Good;
        }
    }

    /// It came to nothing, for a reason of a small set; the first one stands.
    pub fn fail(&mut self, error_type: &str) {
        let Some(open) = &mut self.0 else { return };
        if open.outcome != Outcome::Bad {
            open.outcome = Outcome::Bad;
            self.set("error.type", error_type);
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        if self.0.as_ref().is_some_and(|open| open.outcome == Outcome::Unknown) {
            self.fail(CANCELLED);
        }
        if let Some(open) = self.0.take() {
            let span = otlp::span(&open, open.since.elapsed(), open.outcome == Outcome::Bad);
            open.tracer.outbox.push(span);
        }
    }
}

impl Context {
    /// The span of the request itself.
    #[must_use]
    pub fn span(&self, name: impl FnOnce() -> String) -> Span {
        Span::begin(*self, self.parent, Kind::Server, name)
    }
}

/// The span of something that is done for the request of this thread.
#[must_use]
pub fn child(kind: Kind, name: impl FnOnce() -> String) -> Span {
    let Some((context, tracer)) = current().and_then(|context| Some((context, context.tracer?)))
    else {
        return Span(None);
    };
    let own = Context { span: tracer.child_id(context.span), ..context };
    Span::begin(own, Some(context.span), kind, name)
}

#[cfg(test)]
#[path = "span_tests.rs"]
mod tests;
