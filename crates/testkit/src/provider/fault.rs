//! What goes wrong at the fake provider, and with which request.
//!
//! Owns: the faults, and who gets which. Refuses to know: how a fault looks on the wire.

use std::collections::VecDeque;
use std::time::Duration;

/// How long a refusal asks to be left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// `Retry-After: 7`.
    Seconds(u64),
    /// `Retry-After: Thu, 26 Nov 2026 06:00:00 GMT`, so many seconds from now.
    Date(u64),
}

/// An answer that says no, in the vendor's own words; the fake gives them for its own reasons too.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// No key came: 401, or 403 from Gemini.
    NoKey,
    /// Another key came: 401, or 400 from Gemini.
    BadKey,
    /// The key may not do this: 403.
    Forbidden,
    /// Too many requests: 429.
    RateLimited(Option<RetryAfter>),
    /// The account has no money left: 429 from OpenAI and Gemini, 402 from Anthropic. Waiting does
    /// not help.
    OutOfCredit,
    /// 500.
    ServerError,
    /// 503.
    Unavailable(Option<RetryAfter>),
    /// 529, which only Anthropic documents.
    Overloaded,
    /// The prompt is too long: 400.
    ContextLength,
    /// The prompt may not be answered: 400, or from Gemini 200 without a candidate.
    ContentPolicy,
    /// No such model: 404.
    NoModel(String),
    /// No such path: 404.
    NoRoute,
    /// The request is not one: 400.
    Invalid {
        /// The field.
        param: Option<String>,
        /// What is wrong with it.
        message: String,
    },
}

impl Refusal {
    /// A field is wrong.
    pub(super) fn of(param: &str, message: impl Into<String>) -> Refusal {
        Refusal::Invalid { param: Some(param.to_owned()), message: message.into() }
    }

    /// What it asks for.
    pub(super) fn retry_after(&self) -> Option<RetryAfter> {
        match self {
            Refusal::RateLimited(after) | Refusal::Unavailable(after) => *after,
            _ => None,
        }
    }
}

/// What goes wrong with one request.
///
/// Chunks are those with content; what a vendor sends before them is not counted. Of an answer that
/// is not streamed, whatever happens "after n chunks" happens after half of its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It is refused.
    Refuse(Refusal),
    /// 302 to another path of the fake, whose books show who followed.
    Redirect,
    /// Nothing comes.
    HangBeforeHead,
    /// The head comes and nothing else.
    HangAfterHead,
    /// Head and opening frames come, and no token.
    HangBeforeFirstToken,
    /// So long between chunks, instead of what the manner says.
    Slow(Duration),
    /// Nothing more comes after so many chunks.
    StallAfter(usize),
    /// The connection is closed after so many chunks, and the body has no end.
    CutAfter(usize),
    /// The body ends properly after so many chunks, and the answer does not.
    EndAfter(usize),
    /// The connection is reset after so many chunks.
    ResetAfter(usize),
    /// An event that is no JSON comes after so many chunks, and then the others. An answer that is
    /// not streamed is no JSON then.
    MalformedAfter(usize),
    /// The vendor's error comes inside the stream after so many chunks, and ends it. An answer that
    /// is not streamed is 200 and the error.
    ErrorAfter(usize),
    /// 200, the right content type, and bytes that mean nothing.
    Garbage,
    /// 200 and a page for people.
    Html,
    /// 200 and an empty body.
    Empty,
    /// The last event with content ends in its middle, and with it the body, properly. So does an
    /// answer that is not streamed.
    TruncatedJson,
    /// No `[DONE]`, where the vendor sends one.
    NoDone,
    /// No usage anywhere.
    NoUsage,
    /// All of the text and no reason why it ends.
    NoFinish,
    /// A first chunk with 2 MiB of text before the others.
    HugeChunk,
    /// The head comes byte by byte, with so long between them.
    TrickledHead(Duration),
    /// Each event is written in pieces of a few bytes, which part characters too.
    Pieces,
    /// `Content-Encoding: gzip`, which nobody asked for.
    Gzip,
}

impl From<Refusal> for Fault {
    fn from(refusal: Refusal) -> Fault {
        Fault::Refuse(refusal)
    }
}

/// Who gets which fault.
#[derive(Debug, Default)]
pub(super) struct Plan {
    next: VecDeque<Rule>,
    always: Vec<Rule>,
}

/// For requests of one model, or of any; `None` is an answer without a fault.
#[derive(Debug)]
struct Rule {
    model: Option<String>,
    fault: Option<Fault>,
}

impl Rule {
    fn fits(&self, model: &str) -> bool {
        self.model.as_deref().is_none_or(|wanted| wanted == model)
    }
}

impl Plan {
    pub(super) fn push_next(&mut self, model: Option<&str>, fault: Option<Fault>) {
        self.next.push_back(Rule { model: model.map(str::to_owned), fault });
    }

    pub(super) fn push_always(&mut self, model: Option<&str>, fault: Fault) {
        self.always.push(Rule { model: model.map(str::to_owned), fault: Some(fault) });
    }

    pub(super) fn clear(&mut self) {
        *self = Plan::default();
    }

    /// The fault of a request that has come: the first of the queue that fits, or else the last
    /// standing one that does.
    pub(super) fn take(&mut self, model: &str) -> Option<Fault> {
        if let Some(at) = self.next.iter().position(|rule| rule.fits(model)) {
            return self.next.remove(at).and_then(|rule| rule.fault);
        }
        self.always.iter().rev().find(|rule| rule.fits(model)).and_then(|rule| rule.fault.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_queue_comes_first_and_a_name_is_only_for_its_model() {
        let mut plan = Plan::default();
        assert_eq!(plan.take("a"), None);
        plan.push_always(None, Fault::Empty);
        plan.push_always(Some("a"), Fault::Html);
        plan.push_next(Some("b"), Some(Fault::Gzip));
        plan.push_next(None, None);
        assert_eq!(plan.take("a"), None, "a fine answer is a place in the queue");
        assert_eq!(plan.take("a"), Some(Fault::Html));
        assert_eq!(plan.take("b"), Some(Fault::Gzip));
        assert_eq!(plan.take("b"), Some(Fault::Empty));
        plan.clear();
        assert_eq!(plan.take("b"), None);
    }
}
