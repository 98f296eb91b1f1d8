//! A provider's stream, as it comes.
//!
//! Owns: what its events say, whether it is one and whether it came to its end. Refuses to know:
//! what is done about a bad one, and clocks.

mod frame;
mod parse;

use std::collections::VecDeque;

use super::{Api, Finish, ProviderError};
use bytes::Bytes;
use types::Usage;

use self::frame::Frames;
pub(super) use self::frame::data_range;
use self::parse::Progress;

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

/// Reads a stream of server-sent events.
#[derive(Debug)]
pub struct StreamReader {
    from: Api,
    frames: Frames,
    progress: Progress,
    events: VecDeque<Event>,
    failure: Option<BadStream>,
}

impl StreamReader {
    /// For a stream in that dialect.
    #[must_use]
    pub fn new(from: Api) -> StreamReader {
        StreamReader {
            from,
            frames: Frames::default(),
            progress: Progress::default(),
            events: VecDeque::new(),
            failure: None,
        }
    }

    /// Takes the next bytes, split anywhere. Once it has failed it fails for ever; what was read
    /// before can still be taken.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), BadStream> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        self.frames.feed(bytes);
        self.read_frames().inspect_err(|failure| self.failure = Some(*failure))
    }

    fn read_frames(&mut self) -> Result<(), BadStream> {
        while let Some(block) = self.frames.next()? {
            self.read_block(block)?;
        }
        Ok(())
    }

    fn read_block(&mut self, raw: Bytes) -> Result<(), BadStream> {
        if raw.trim_ascii().is_empty() {
            return Ok(());
        }
        let parts = match frame::data(&raw)? {
            Some(data) if !data.trim().is_empty() => self.progress.read(self.from, &data)?,
            // A comment, which is how providers say that they are still there.
            _ => vec![Part::Lifecycle],
        };
        let mut parts = parts.into_iter();
        let part = parts.next().unwrap_or(Part::Other);
        self.events.push_back(Event { raw, part });
        self.events.extend(parts.map(|part| Event { raw: Bytes::new(), part }));
        Ok(())
    }

    /// The next piece that is complete; `None` until more has been fed.
    #[expect(clippy::should_implement_trait, reason = "more may come after a None")]
    pub fn next(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// The stream has ended; [`BadStream::Cut`] when the answer had not. A last block without an
    /// empty line behind it is read first, so that [`StreamReader::next`] has to be asked once
    /// more.
    pub fn end(&mut self) -> Result<(), BadStream> {
        if let Some(failure) = self.failure {
            return Err(failure);
        }
        let rest = self.frames.rest();
        // Half a block is no more than a sign of the cut.
        let _ = self.read_block(rest);
        if self.progress.is_complete() {
            return Ok(());
        }
        self.failure = Some(BadStream::Cut);
        Err(BadStream::Cut)
    }

    /// What the provider has said of usage so far.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        self.progress.usage
    }

    /// Whether that is all: before its end, a stream's counts leave the answer out.
    #[must_use]
    pub fn usage_is_final(&self) -> bool {
        self.progress.usage_is_final && self.progress.is_complete()
    }

    /// Why the answer ended, once that is known.
    #[must_use]
    pub fn finish(&self) -> Option<Finish> {
        self.progress.finish
    }

    /// Bytes of text, thought and tool arguments so far, for an estimate.
    #[must_use]
    pub fn text_bytes(&self) -> u64 {
        self.progress.text_bytes
    }
}
