//! Calls to models: reserve, find somebody who answers, meter, settle.
//!
//! Owns: the order of these, and which target is tried next. Refuses to know: what a vendor's bytes
//! mean, what a token costs, and how a connection is made.
//!
//! One path for every route: a call that does not come through [`Engine::ask`] does not leave.

mod attempt;
pub mod cache;
mod failure;
mod flow;
mod kept;
pub mod learn;
pub mod models;
mod reserve;
mod stream;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dialect::ai::{Api, ChatRequest, EmbeddingsRequest, Ids};
use types::{Operation, TenantId};

use crate::act::Engine;
use crate::commit::{Decided, Refused};
use crate::outbound::{Attempt, Boxed, DependencyState, Outbound, Reply, SendError};

use cache::{AnswerStore, Answers, CacheWish, Cached, Recalled};
pub(crate) use kept::Kept;
use models::Models;
pub(crate) use reserve::{Reservation, Settlements, seal};
pub use stream::AnswerStream;

/// How calls are made. Each holds for attempts that begin after it was changed.
#[derive(Debug, Clone, Copy)]
pub struct AiOptions {
    /// Attempts after the first one, over all targets of a call.
    pub retries_max: u32,
    /// From the sent request to the first word of a stream, or to vectors.
    pub first_token: Duration,
    /// From the sent request to the end of an answer that is not streamed.
    pub answer: Duration,
    /// Between two pieces of an answer.
    pub gap: Duration,
    /// The whole call.
    pub total: Duration,
    /// How long an answer is given again to who asks for the same again; zero gives none again.
    pub cache_time: Duration,
}

impl Default for AiOptions {
    /// As the table of settings has them.
    fn default() -> AiOptions {
        AiOptions {
            retries_max: 3,
            first_token: Duration::from_secs(5),
            answer: Duration::from_secs(60),
            gap: Duration::from_secs(15),
            total: Duration::from_secs(300),
            cache_time: Duration::ZERO,
        }
    }
}

/// What calls to models need besides the ledger.
#[derive(Clone)]
pub struct AiParts {
    /// Which models there are.
    pub models: Arc<Models>,
    /// The way out.
    pub outbound: Arc<dyn Outbound>,
    /// Where answers are kept, if not in memory.
    pub answers: Option<Arc<dyn AnswerStore>>,
    /// Bytes of answers in memory.
    pub answers_max_bytes: u64,
}

/// Memory for answers where nobody says how much.
const ANSWERS_MAX_BYTES: u64 = 64 * 1024 * 1024;

impl AiParts {
    /// No models and no way out.
    #[must_use]
    pub fn none() -> AiParts {
        AiParts {
            models: Arc::default(),
            outbound: Arc::new(NoWay),
            answers: None,
            answers_max_bytes: ANSWERS_MAX_BYTES,
        }
    }
}

struct NoWay;

impl Outbound for NoWay {
    fn send(&self, _: Attempt) -> Boxed<'_, Result<Reply, SendError>> {
        Box::pin(std::future::ready(Err(SendError::Connect)))
    }

    fn is_open_to(&self, _: &str) -> bool {
        false
    }

    fn dependencies(&self) -> Vec<DependencyState> {
        Vec::new()
    }
}

/// What the engine holds for calls to models.
pub(crate) struct Ai {
    pub(crate) parts: AiParts,
    pub(crate) kept: Kept,
    pub(crate) answers: Answers,
}

impl Ai {
    pub(crate) fn new(parts: AiParts) -> Ai {
        let answers = Answers::new(parts.answers.clone(), parts.answers_max_bytes);
        Ai { parts, kept: Kept::default(), answers }
    }
}

/// One call, as the front door hands it in.
#[derive(Debug)]
pub struct Call {
    /// Who pays.
    pub tenant: TenantId,
    /// Who asks, for the receipt's `actor`.
    pub actor: Cow<'static, str>,
    /// May register the tenant, and grant it the default plan.
    pub may_register: bool,
    /// The caller's idempotency key.
    pub key: Option<String>,
    /// The body as it came, which the key was given for.
    pub body: Bytes,
    /// What is asked.
    pub ask: Ask,
    /// What the answer is called.
    pub ids: Ids,
    /// Whether a kept answer will do, and whether this one may be kept.
    pub cache: CacheWish,
}

/// What is asked of a model.
#[derive(Debug)]
pub enum Ask {
    /// An answer to a conversation.
    Chat(ChatRequest),
    /// Vectors of texts.
    Embeddings(EmbeddingsRequest),
}

impl Ask {
    /// The model as the caller named it.
    #[must_use]
    pub fn model(&self) -> &str {
        match self {
            Ask::Chat(request) => request.model(),
            Ask::Embeddings(request) => request.model(),
        }
    }

    /// Whose idempotency keys are meant: those of one route never meet another's.
    pub(crate) fn source(&self) -> &'static str {
        match self {
            Ask::Chat(request) => match request.api() {
                Api::Anthropic => "ai.messages",
                Api::OpenAi | Api::Gemini => "ai.chat",
            },
            Ask::Embeddings(_) => "ai.embeddings",
        }
    }

    pub(crate) fn operation(&self) -> Operation {
        match self {
            Ask::Chat(_) => Operation::Chat,
            Ask::Embeddings(_) => Operation::Embeddings,
        }
    }

    pub(crate) fn streams(&self) -> bool {
        match self {
            Ask::Chat(request) => request.streams(),
            Ask::Embeddings(_) => false,
        }
    }
}

/// What came of a call.
pub enum Asked {
    /// It was decided by a governor.
    Answered(Answered),
    /// It was answered before, and nothing was called.
    Recalled(Recalled),
}

/// What came of a call that a governor has decided.
pub struct Answered {
    /// The receipt: the attempt, or a refusal.
    pub receipt: Decided,
    /// The answer.
    pub given: Given,
    /// Whether it is kept.
    pub cached: Cached,
}

/// An answer.
pub enum Given {
    /// The governor refused; the receipt says why.
    Refused,
    /// The whole answer, in the caller's dialect.
    Whole(Bytes),
    /// The answer as it comes, in the caller's dialect.
    Stream(Box<AnswerStream>),
}

/// A call that nobody answered.
#[derive(Debug)]
pub struct Failed {
    /// Why.
    pub refused: Refused,
    /// The attempt, if it came so far; it is settled behind this.
    pub receipt: Option<Decided>,
}

impl From<Refused> for Failed {
    fn from(refused: Refused) -> Failed {
        Failed { refused, receipt: None }
    }
}

impl Engine {
    /// Which models there are.
    #[must_use]
    pub fn models(&self) -> &Models {
        &self.ai().parts.models
    }

    /// What is known of the dependencies that calls leave to.
    #[must_use]
    pub fn dependencies(&self) -> Vec<DependencyState> {
        self.ai().parts.outbound.dependencies()
    }

    /// Calls to models that are under way or not settled yet.
    #[must_use]
    pub fn calls_open(&self) -> usize {
        self.inner().common.settlements.open()
    }
}
