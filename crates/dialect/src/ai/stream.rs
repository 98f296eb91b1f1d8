//! Owns: x. Refuses to know: y.
use super::{Api, Finish, ProviderError};
use bytes::Bytes;
use types::Usage;

/// Why a stream cannot be used any further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BadStream {
    /// One event is larger than a mebibyte.
    #[error("event of the stream is too large")]
    TooLarge,
    /// An event is not what the dialect says.
    #[error("event of the stream cannot be read")]
    Malformed,
    /// A count of tokens that cannot be.
    #[error("stream counts tokens that cannot be")]
    AbsurdUsage,
    /// The stream ended and the answer did not.
    #[error("stream ended before the answer did")]
    Cut,
}

/// A piece of a stream. One block may say several things: the first event holds its bytes, those of
/// the others are empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The block as it came, with the empty line behind it.
    pub raw: Bytes,
    /// What it says.
    pub part: Part,
}

/// What a piece of a stream says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// Nothing of the answer yet: the role, the start, a ping. Holds back the commit.
    Lifecycle,
    /// A block of the answer begins or ends (Anthropic); says nothing by itself.
    Block(Block),
    /// Text of the answer.
    Text(String),
    /// Text of a refusal (OpenAI).
    Refusal(String),
    /// What the model thinks; `signature` is the provider's seal on it, which comes apart.
    Thought {
        /// The text.
        text: String,
        /// The seal.
        signature: Option<String>,
    },
    /// A call of a tool begins.
    ToolStart {
        /// Which call of the answer, from 0.
        index: u32,
        /// The provider's id; empty where it has none.
        id: String,
        /// The tool.
        name: String,
        /// Gemini's seal on the call.
        signature: Option<String>,
    },
    /// The next piece of the JSON of a call's arguments.
    ToolArguments {
        /// Which call of the answer.
        index: u32,
        /// The piece.
        text: String,
    },
    /// The answer is complete.
    Finish(Finish),
    /// Usage so far; the last one counts.
    Usage(Usage),
    /// The stream says that it is over.
    Done,
    /// The provider gave up.
    Error(ProviderError),
    /// Something that this module has no word for.
    Other,
}

/// The edge of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Block {
    /// Text follows.
    Text,
    /// Thought follows.
    Thought,
    /// Something else follows.
    Other,
    /// The block that was last begun is over.
    End,
}

impl Part {
    /// Whether nothing of the answer has been said by this, so that another provider may still be
    /// asked without the client's seeing it.
    #[must_use]
    pub fn holds_back(&self) -> bool {
        matches!(self, Part::Lifecycle | Part::Block(_) | Part::Usage(_))
    }
}

/// Reads a stream of server-sent events as it comes.
#[derive(Debug)]
pub struct StreamReader {
    from: Api,
}

impl StreamReader {
    /// For a stream in that dialect.
    #[must_use]
    pub fn new(from: Api) -> StreamReader {
        StreamReader { from }
    }
    /// Takes the next bytes, split anywhere. Once it has failed it fails for ever; what was read
    /// before can still be taken.
    pub fn feed(&mut self, _bytes: &[u8]) -> Result<(), BadStream> {
        let _ = self.from;
        Ok(())
    }
    /// The next piece that is complete.
    #[expect(clippy::should_implement_trait, reason = "more may come after a None")]
    pub fn next(&mut self) -> Option<Event> {
        None
    }
    /// The stream has ended; [`BadStream::Cut`] when no finish was seen. A last block without an empty
    /// line behind it is read first, so that [`StreamReader::next`] has to be asked once more.
    pub fn end(&mut self) -> Result<(), BadStream> {
        Ok(())
    }
    /// What the provider has said of usage so far.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        None
    }
    /// Why the answer ended, once that is known.
    #[must_use]
    pub fn finish(&self) -> Option<Finish> {
        None
    }
    /// Bytes of text, thought and tool arguments so far, for an estimate.
    #[must_use]
    pub fn text_bytes(&self) -> u64 {
        0
    }
}
