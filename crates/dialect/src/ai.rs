//! What clients and providers of models say to each other, in three dialects.
//!
//! Owns: the shapes of OpenAI's, Anthropic's and Gemini's bodies, streams and errors, what of one
//! can be said in another, and how usage becomes disjoint buckets. Refuses to know: which provider
//! is asked, what a call costs, sockets, clocks and randomness: ids and times are arguments.
//!
//! Where client and provider speak the same dialect, bytes pass through but for a few members, so
//! that what this module has never heard of arrives as it was sent. Everything else goes through
//! one neutral meaning; what it cannot hold is refused by name ([`Unsupported`]), never dropped.
//! Dropped are only hints that change no answer, and they are listed where each dialect is read.

use std::borrow::Cow;

mod answer;
mod body;
pub mod echo;
mod embeddings;
mod errors;
mod finish;
mod object;
mod request;
mod stream;
mod usage;
mod write;
mod writer;

pub use answer::{Answer, BadAnswer};
pub use embeddings::EmbeddingsRequest;
pub use errors::{About, ProviderError, client_error, error_type};
pub use request::ChatRequest;
pub use stream::{BadStream, Block, Event, Part, StreamReader};
pub use writer::StreamWriter;

/// A dialect. Clients speak the first two, providers all three.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Api {
    /// `/chat/completions` and `/embeddings`, as OpenAI and most others have them.
    OpenAi,
    /// `/messages`.
    Anthropic,
    /// `:generateContent`, `:streamGenerateContent` and `:batchEmbedContents`.
    Gemini,
}

impl Api {
    /// Every dialect.
    pub const ALL: [Api; 3] = [Api::OpenAi, Api::Anthropic, Api::Gemini];

    /// The word in settings, metrics and receipts.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Api::OpenAi => "openai",
            Api::Anthropic => "anthropic",
            Api::Gemini => "gemini",
        }
    }
}

/// The headers that show `key` to a provider, in lower case.
#[must_use]
pub fn auth(api: Api, key: &str) -> Vec<(&'static str, String)> {
    match api {
        Api::OpenAi => vec![("authorization", format!("Bearer {key}"))],
        Api::Anthropic => vec![
            ("x-api-key", key.to_owned()),
            // The one version there is; newer behaviour is asked for by members.
            ("anthropic-version", "2023-06-01".to_owned()),
        ],
        Api::Gemini => vec![("x-goog-api-key", key.to_owned())],
    }
}

/// The path of something that a model of Gemini's does. A name is one segment whatever is in it: it
/// may be the client's own, and must not lead anywhere else.
fn gemini_path(model: &str, verb: &str) -> String {
    let mut path = "/models/".to_owned();
    for byte in model.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_') {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path.push(':');
    path.push_str(verb);
    path
}

/// What is changed in a request on its way to a provider, besides the name of the model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Edits {
    /// Tokens that the whole answer may have, over all choices; lowers what the client asked for
    /// and is set where it asked for nothing.
    pub output_cap: Option<u64>,
    /// Asks for usage at the end of a stream, even if the client did not.
    pub want_usage: bool,
}

/// A request as a provider takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// Behind the provider's base address (such as `https://api.openai.com/v1`), with a leading
    /// slash; holds a query where the dialect puts the wish for a stream there.
    pub path: String,
    /// The JSON.
    pub body: Vec<u8>,
}

/// Something that a request asks for and that cannot be said in the dialect of a provider.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} {why}")]
pub struct Unsupported {
    /// Where it stands, such as `messages[2].content[0].input_audio`. Of names that the caller
    /// chose it holds only those that are plain words.
    pub field: String,
    /// What is the matter with it; follows the field in a sentence.
    pub why: Cow<'static, str>,
}

/// What answers that are made here are called.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ids {
    /// Letters and digits, unique for the call: becomes `chatcmpl-…`, `msg_…` and so on.
    pub unique: String,
    /// Unix seconds.
    pub created_secs: i64,
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Finish {
    /// It was complete.
    Stop,
    /// A text to stop at was reached; which one, Anthropic alone says.
    StopSequence,
    /// The limit of tokens, the asked one or the model's.
    Length,
    /// Tools have to be called first.
    ToolCalls,
    /// The provider held it back.
    ContentFilter,
    /// The model declined.
    Refusal,
    /// A long turn was paused and can be taken up again (Anthropic).
    Pause,
}

impl Finish {
    /// The word in receipts and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Finish::Stop => "stop",
            Finish::StopSequence => "stop_sequence",
            Finish::Length => "length",
            Finish::ToolCalls => "tool_calls",
            Finish::ContentFilter => "content_filter",
            Finish::Refusal => "refusal",
            Finish::Pause => "pause",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_model_is_one_segment() {
        assert_eq!(gemini_path("gemini-2.5", "x?alt=sse"), "/models/gemini-2.5:x?alt=sse");
        assert_eq!(gemini_path("../a?b#\u{e9}", "x"), "/models/..%2Fa%3Fb%23%C3%A9:x");
    }

    #[test]
    fn a_key_is_shown_as_each_provider_wants_it() {
        assert_eq!(auth(Api::OpenAi, "k"), [("authorization", "Bearer k".to_owned())]);
        assert_eq!(auth(Api::Anthropic, "k")[0], ("x-api-key", "k".to_owned()));
        assert_eq!(auth(Api::Anthropic, "k")[1].0, "anthropic-version");
        assert_eq!(auth(Api::Gemini, "k"), [("x-goog-api-key", "k".to_owned())]);
    }
}
