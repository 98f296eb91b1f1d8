//! Which request is being handled: the ids that its lines carry, and that go where it asks further.
//!
//! Owns: the forms of the ids (`traceparent` of W3C Trace Context, `X-Trace-Id`), which one holds
//! on this thread, and where its spans go, if anywhere. Refuses to know: where ids came from.
//!
//! What holds is set for as long as a future is polled, and not kept in a span of `tracing`: that
//! would cost each request allocations, for two ids that most of them never show.

mod otlp;
mod span;

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;

use types::credentials;

pub use otlp::{envelope, refused};
pub use span::{Kind, Span, Tracer, Value, child};

/// Characters of an `X-Trace-Id` at most.
const GIVEN_MAX: usize = 64;

/// The ids of one request. Small, and copied; text is made when it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Context {
    trace: u128,
    span: u64,
    /// The span that asked, in another process.
    parent: Option<u64>,
    is_sampled: bool,
    was_asked: bool,
    given: Option<Text>,
    /// Where spans go; none are made without it.
    tracer: Option<&'static Tracer>,
    asked: Option<(&'static str, &'static str)>,
}

/// The text of an id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text {
    bytes: [u8; GIVEN_MAX],
    length: usize,
}

impl Text {
    /// `None` for what is no id: 1 to 64 letters, digits and hyphens that are no key of a vendor.
    fn new(text: &[u8]) -> Option<Text> {
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'-';
        let mut bytes = [0; GIVEN_MAX];
        bytes.get_mut(..text.len())?.copy_from_slice(text);
        let is_id = !text.is_empty() && text.iter().all(allowed);
        let is_key = || std::str::from_utf8(text).is_ok_and(credentials::is_credential);
        (is_id && !is_key()).then_some(Text { bytes, length: text.len() })
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let text = self.bytes.get(..self.length).map(std::str::from_utf8);
        text.and_then(Result::ok).unwrap_or_default()
    }
}

impl Context {
    /// The ids of a request that came with these headers. `unique` is a number that nobody else
    /// has, such as a UUID: it names the trace where no header does, and its lower half the span.
    /// What is not of its form is passed over, as the W3C asks for.
    ///
    /// Lines carry the `X-Trace-Id` before the trace of `traceparent`: whoever wrote it will look
    /// for it. What goes further carries `traceparent` before that.
    #[must_use]
    pub fn read(traceparent: Option<&[u8]>, trace_id: Option<&[u8]>, unique: u128) -> Context {
        let parent = traceparent.and_then(parse);
        let given = trace_id.and_then(Text::new);
        let was_asked = parent.is_some() || given.is_some();
        // The lower half is what is kept.
        let span = (unique as u64).max(1);
        let (trace, parent, is_sampled) = match parent {
            Some((trace, parent, is_sampled)) => (trace, Some(parent), is_sampled),
            None => {
                let named = given.and_then(|given| plain_trace(given.as_str()));
                (named.unwrap_or(unique.max(1)), None, false)
            }
        };
        Context { trace, span, parent, is_sampled, was_asked, given, tracer: None, asked: None }
    }

    /// The same, with spans that go to `tracer` where the trace is sampled: as whoever asked has
    /// decided, else by the trace's id, so that all who decide alike agree.
    #[must_use]
    pub fn traced(self, tracer: &'static Tracer) -> Context {
        let is_sampled = match self.parent {
            Some(_) => self.is_sampled,
            None => tracer.samples(self.trace),
        };
        Context { is_sampled, tracer: is_sampled.then_some(tracer), ..self }
    }

    /// The same, of a request with this method for the route with this template.
    #[must_use]
    pub const fn of(self, method: &'static str, path: &'static str) -> Context {
        Context { asked: Some((method, path)), ..self }
    }

    /// The method and the template of the route, where the request has one.
    #[must_use]
    pub const fn asked(&self) -> Option<(&'static str, &'static str)> {
        self.asked
    }

    /// Whether the request named its trace.
    #[must_use]
    pub const fn was_asked(&self) -> bool {
        self.was_asked
    }

    /// The trace, as lines carry it.
    #[must_use]
    pub fn trace_id(&self) -> Text {
        self.given.unwrap_or_else(|| hex(self.trace, 32))
    }

    /// The handling of this request, in 16 hex digits.
    #[must_use]
    pub fn span_id(&self) -> Text {
        hex(u128::from(self.span), 16)
    }

    /// The header of a request that this one leads to: `00-TRACE-SPAN-FLAGS`.
    #[must_use]
    pub fn traceparent(&self) -> String {
        let flags = if self.is_sampled { "01" } else { "00" };
        ["00-", hex(self.trace, 32).as_str(), "-", self.span_id().as_str(), "-", flags].concat()
    }
}

/// Trace, span and whether they are sampled; `None` for what is no `traceparent`. A later version
/// may have more behind what is known of it.
fn parse(text: &[u8]) -> Option<(u128, u64, bool)> {
    let (known, rest) = text.split_at_checked(55)?;
    let known = std::str::from_utf8(known).ok()?;
    let mut parts = known.split('-');
    let version = lower_hex(parts.next()?, 2)?;
    let trace = lower_hex(parts.next()?, 32).filter(|id| *id != 0)?;
    let span = lower_hex(parts.next()?, 16).filter(|id| *id != 0)?;
    let flags = lower_hex(parts.next()?, 2)?;
    let goes_on = rest.is_empty() || (version > 0 && rest.starts_with(b"-"));
    // Sixteen digits fit.
    (version != 0xff && goes_on).then_some((trace, span as u64, flags & 1 == 1))
}

fn lower_hex(text: &str, digits: usize) -> Option<u128> {
    let allowed = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let is_hex = text.len() == digits && text.bytes().all(allowed);
    is_hex.then(|| u128::from_str_radix(text, 16).ok()).flatten()
}

/// The trace that an `X-Trace-Id` names for others too: 32 hex digits, such as those of a UUID.
fn plain_trace(text: &str) -> Option<u128> {
    lower_hex(&text.replace('-', "").to_ascii_lowercase(), 32).filter(|id| *id != 0)
}

fn hex(value: u128, digits: usize) -> Text {
    let mut bytes = [0; GIVEN_MAX];
    for (place, byte) in bytes.iter_mut().take(digits).rev().enumerate() {
        *byte = b"0123456789abcdef"[(value >> (4 * place) & 15) as usize];
    }
    Text { bytes, length: digits }
}

thread_local! {
    static CURRENT: Cell<Option<Context>> = const { Cell::new(None) };
}

/// The request that is handled on this thread now.
#[must_use]
pub fn current() -> Option<Context> {
    CURRENT.get()
}

/// Does something on behalf of a request, on this thread: for work that is moved to another one.
pub fn within<R>(context: Option<Context>, act: impl FnOnce() -> R) -> R {
    /// What held before holds again, also where `act` panics.
    struct Before(Option<Context>);
    impl Drop for Before {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _before = Before(CURRENT.replace(context));
    act()
}

/// Handles a request: what is logged meanwhile, on whichever thread, carries its ids.
pub async fn follow<F: Future>(context: Context, work: F) -> F::Output {
    let mut work = pin!(work);
    poll_fn(move |cx| within(Some(context), || work.as_mut().poll(cx))).await
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::task::{Context as Task, Poll, Waker};

    use proptest::prelude::*;

    use super::*;

    const UNIQUE: u128 = 0x0190_0000_0000_7000_8000_0000_0000_00ab;
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

    fn read(traceparent: Option<&str>, trace_id: Option<&str>) -> Context {
        Context::read(traceparent.map(str::as_bytes), trace_id.map(str::as_bytes), UNIQUE)
    }

    #[test]
    fn a_request_that_names_no_trace_gets_one() {
        let context = read(None, None);
        assert!(!context.was_asked());
        assert_eq!(context.trace_id().as_str(), "019000000000700080000000000000ab");
        assert_eq!(context.span_id().as_str(), "80000000000000ab");
        let sent = "00-019000000000700080000000000000ab-80000000000000ab-00";
        assert_eq!(context.traceparent(), sent);
    }

    #[test]
    fn a_trace_goes_on_under_a_span_of_our_own() {
        for (flags, sent) in [("00", "00"), ("01", "01"), ("02", "00"), ("ff", "01")] {
            let context = read(Some(&format!("00-{TRACE}-00f067aa0ba902b7-{flags}")), None);
            assert!(context.was_asked());
            assert_eq!(context.trace_id().as_str(), TRACE);
            assert_eq!(context.traceparent(), format!("00-{TRACE}-80000000000000ab-{sent}"));
        }
        let later = read(Some(&format!("cc-{TRACE}-00f067aa0ba902b7-01-what-comes")), None);
        assert_eq!(later.trace_id().as_str(), TRACE);
    }

    #[test]
    fn what_is_no_traceparent_is_passed_over() {
        let upper = TRACE.to_ascii_uppercase();
        let (zeros, none) = ("0".repeat(32), "0".repeat(16));
        for text in [
            "",
            "00",
            TRACE,
            &format!("00-{TRACE}-00f067aa0ba902b7"),
            &format!("00-{TRACE}-00f067aa0ba902b7-0"),
            &format!("00-{TRACE}-00f067aa0ba902b7-01-more"),
            &format!("cc-{TRACE}-00f067aa0ba902b7-01more"),
            &format!("ff-{TRACE}-00f067aa0ba902b7-01"),
            &format!("00-{upper}-00f067aa0ba902b7-01"),
            &format!("00-{zeros}-00f067aa0ba902b7-01"),
            &format!("00-{TRACE}-{none}-01"),
            &format!("00-{TRACE}0-0f067aa0ba902b7-01"),
            &format!("00_{TRACE}_00f067aa0ba902b7_01"),
            &format!("00-{TRACE}-00f067aa0ba902b7-é1"),
        ] {
            assert_eq!(read(Some(text), None), read(None, None), "{text}");
        }
    }

    #[test]
    fn a_trace_id_is_carried_as_it_was_given() {
        let uuid = "550E8400-e29b-41d4-a716-446655440000";
        let context = read(None, Some(uuid));
        assert!(context.was_asked());
        assert_eq!(context.trace_id().as_str(), uuid);
        assert!(context.traceparent().starts_with("00-550e8400e29b41d4a716446655440000-"));
        let own = read(None, Some("order-4711"));
        assert_eq!(own.trace_id().as_str(), "order-4711");
        assert!(own.traceparent().starts_with("00-01900000000070008"), "nothing else is a trace");
        let both = read(Some(&format!("00-{TRACE}-00f067aa0ba902b7-01")), Some("order-4711"));
        assert_eq!(both.trace_id().as_str(), "order-4711");
        assert!(both.traceparent().starts_with(&format!("00-{TRACE}-")));
    }

    #[test]
    fn what_is_no_trace_id_is_passed_over() {
        let (longest, longer) = ("a".repeat(64), "a".repeat(65));
        assert_eq!(read(None, Some(&longest)).trace_id().as_str(), longest);
        for text in
            ["", &longer, "a b", "a\"b", "a\nb", "a_b", "é", "a,b", "sk-proj-0123456789abcdef"]
        {
            assert_eq!(read(None, Some(text)), read(None, None), "{text}");
        }
    }

    #[test]
    fn what_holds_ends_with_what_it_was_set_for() {
        let (outer, inner) = (read(None, Some("outer")), read(None, Some("inner")));
        assert_eq!(current(), None);
        within(Some(outer), || {
            within(Some(inner), || assert_eq!(current(), Some(inner)));
            let broke = catch_unwind(AssertUnwindSafe(|| within(Some(inner), || panic!("broke"))));
            assert!(broke.is_err());
            assert_eq!(current(), Some(outer));
        });
        assert_eq!(current(), None);
    }

    #[test]
    fn a_request_is_followed_from_poll_to_poll_and_not_between() {
        let context = read(None, Some("followed"));
        let mut polls = 0;
        let work = poll_fn(|_| {
            assert_eq!(current(), Some(context));
            polls += 1;
            if polls < 3 { Poll::Pending } else { Poll::Ready(polls) }
        });
        let mut followed = pin!(follow(context, work));
        let mut task = Task::from_waker(Waker::noop());
        for expected in [Poll::Pending, Poll::Pending, Poll::Ready(3)] {
            assert_eq!(followed.as_mut().poll(&mut task), expected);
            assert_eq!(current(), None);
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_what_is_shown_and_sent_is_of_its_form(
            traceparent in proptest::collection::vec(any::<u8>(), 0..80),
            near in "[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(-x)?",
            trace_id in proptest::collection::vec(any::<u8>(), 0..80),
            unique in any::<u128>(),
        ) {
            for parent in [traceparent.as_slice(), near.as_bytes()] {
                let context = Context::read(Some(parent), Some(&trace_id), unique);
                let shown = context.trace_id();
                prop_assert!(Text::new(shown.as_str().as_bytes()).is_some());
                let sent = context.traceparent();
                prop_assert!(sent.len() == 55 && parse(sent.as_bytes()).is_some(), "{}", sent);
            }
        }
    }
}
