//! One attempt at one target, until there is an answer or its first word.
//!
//! Owns: that the commit is held back until something of the answer is there, and what an attempt
//! says about its dependency. Refuses to know: what is tried next.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dialect::ai::{
    About, Answer, Api, Edits, Event, Ids, Part, ProviderError, StreamReader, Unsupported,
    Upstream, auth, echo,
};
use types::Reason;

use crate::ai::Ask;
use crate::ai::failure::Failure;
use crate::ai::models::{Speaks, Target};
use crate::outbound::{
    Attempt, Boxed, Clock, Clocks, Outbound, Reply, ReplyBody, SendError, Sent, Verdict,
};

/// Bytes of a whole answer.
const ANSWER_MAX: usize = 32 * 1024 * 1024;
/// Bytes of an error that are read for what it says.
const ERROR_MAX: usize = 64 * 1024;
/// How long they are waited for.
const ERROR_WAIT: Duration = Duration::from_secs(2);
/// Pieces that are held back before the first word.
const HELD_MAX: usize = 256;
/// The pause of a dependency that asks to be called less and does not say how long.
const THROTTLE_PAUSE: Duration = Duration::from_secs(1);

/// What one attempt is made of.
pub(crate) struct Try<'a> {
    pub(crate) outbound: &'a dyn Outbound,
    pub(crate) target: &'a Target,
    pub(crate) ask: &'a Ask,
    /// The part of the answer that the caller has already.
    pub(crate) so_far: Option<&'a str>,
    pub(crate) edits: Edits,
    pub(crate) ids: &'a Ids,
    pub(crate) clocks: Clocks,
    pub(crate) sent: Sent,
    pub(crate) is_retry: bool,
}

/// How far an attempt came.
pub(crate) enum Opened {
    /// The whole answer.
    Whole { answer: Answer },
    /// A stream whose first word is there.
    Stream(Box<Opening>),
}

/// A stream whose first word is there.
pub(crate) struct Opening {
    pub(crate) api: Api,
    pub(crate) body: Box<dyn ReplyBody>,
    pub(crate) reader: StreamReader,
    /// What came up to the first word, which is the last of them.
    pub(crate) held: VecDeque<Event>,
}

/// Why an attempt came to nothing.
pub(crate) enum Missed {
    /// Nothing was sent.
    Unsent(Failure),
    /// Something was sent; the same target may be tried again.
    Failed(Failure),
    /// Something was sent, or cannot be: this target is of no use to the call.
    Useless(Failure),
    /// No other target would do better, or none may be asked.
    Final(Failure),
}

impl Try<'_> {
    /// Makes the attempt.
    pub(crate) async fn open(self) -> Result<Opened, Missed> {
        let (api, reply) = match self.target.provider.speaks {
            Speaks::Echo => {
                self.sent.set(true);
                (Api::OpenAi, self.echo())
            }
            Speaks::Api(api) => (api, self.send(api).await?),
        };
        if reply.status != 200 {
            return Err(refusal(api, self.target.provider.name, reply).await);
        }
        if self.ask.streams() {
            self.stream(api, reply).await
        } else {
            self.whole(api, reply).await
        }
    }

    fn echo(&self) -> Reply {
        let bytes = match self.ask {
            Ask::Chat(request) if request.streams() => echo::stream(request, self.ids),
            Ask::Chat(request) => vec![echo::answer(request, self.ids).into()],
            Ask::Embeddings(request) => vec![echo::embeddings(request).into()],
        };
        let content_type = if self.ask.streams() { EVENT_STREAM } else { "application/json" };
        let body = Box::new(EchoBody(bytes.into()));
        Reply { status: 200, retry_after: None, content_type: content_type.to_owned(), body }
    }

    fn upstream(&self, api: Api) -> Result<Upstream, Unsupported> {
        let model = &self.target.model;
        match (self.ask, self.so_far) {
            (Ask::Chat(request), Some(so_far)) => {
                request.continued(api, model, so_far, &self.edits)
            }
            (Ask::Chat(request), None) => request.for_upstream(api, model, &self.edits),
            (Ask::Embeddings(request), _) => request.for_upstream(api, model),
        }
    }

    async fn send(&self, api: Api) -> Result<Reply, Missed> {
        let Upstream { path, body } = self.upstream(api).map_err(|unsupported| {
            let detail = unsupported.to_string();
            Missed::Useless(Failure::new("unsupported", Reason::UnsupportedFeature, detail))
        })?;
        let key = self.target.provider.key.as_deref();
        let attempt = Attempt {
            dependency: self.target.provider.name,
            path,
            headers: key.map(|key| auth(api, key)).unwrap_or_default(),
            body: body.into(),
            clocks: self.clocks,
            sent: self.sent.clone(),
            is_retry: self.is_retry,
        };
        self.outbound.send(attempt).await.map_err(|error| {
            if error.is_unsent()
                && !matches!(error, SendError::Connect | SendError::Dns | SendError::Tls)
            {
                Missed::Unsent(error.into())
            } else {
                Missed::Failed(error.into())
            }
        })
    }

    async fn whole(&self, api: Api, mut reply: Reply) -> Result<Opened, Missed> {
        let body = collect(&mut *reply.body, ANSWER_MAX).await.map_err(Missed::Failed)?;
        match Answer::parse(api, self.ask.operation(), &body) {
            Ok(answer) => {
                reply.body.judge(Verdict::Good);
                Ok(Opened::Whole { answer })
            }
            Err(bad) => {
                reply.body.judge(Verdict::Bad);
                tracing::warn!(event = "bad_answer", provider = self.target.provider.name, error = %bad, "answer of a provider cannot be read");
                Err(Missed::Failed(Failure::bad_answer("the provider's answer cannot be read")))
            }
        }
    }

    async fn stream(&self, api: Api, mut reply: Reply) -> Result<Opened, Missed> {
        if reply.content_type != EVENT_STREAM {
            reply.body.judge(Verdict::Bad);
            let detail = "the provider's answer is no stream of events";
            return Err(Missed::Failed(Failure::bad_answer(detail)));
        }
        // What the head has taken of it is over; the words have what is left.
        let by = Instant::now() + self.clocks.head;
        let by = by.min(self.clocks.deadline);
        let mut opening = Opening {
            api,
            body: reply.body,
            reader: StreamReader::new(api),
            held: VecDeque::new(),
        };
        let first = tokio::time::timeout_at(by.into(), opening.first_word()).await;
        match first.unwrap_or(Err(Fault::Send(SendError::Timeout(Clock::Head)))) {
            Ok(()) => Ok(Opened::Stream(Box::new(opening))),
            Err(fault) => {
                let (failure, missed) = fault.into_missed();
                opening.body.judge(failure);
                Err(missed)
            }
        }
    }
}

const EVENT_STREAM: &str = "text/event-stream";

/// What may be wrong with a stream.
pub(crate) enum Fault {
    Send(SendError),
    Bad(dialect::ai::BadStream),
    Told(ProviderError),
}

impl Fault {
    /// What it says about the dependency, and about the attempt.
    fn into_missed(self) -> (Verdict, Missed) {
        match self {
            Fault::Told(error) => {
                let verdict = verdict(&error, None);
                (verdict, missed(&error, None))
            }
            fault => (Verdict::Bad, Missed::Failed(fault.failure())),
        }
    }

    /// What it says about the dependency, and whether nobody else may be asked.
    pub(crate) fn judged(&self) -> (Verdict, bool) {
        match self {
            Fault::Told(error) => {
                let is_final = matches!(error.about, About::Request | About::Policy);
                (verdict(error, None), is_final && !error.is_throttle)
            }
            Fault::Send(_) | Fault::Bad(_) => (Verdict::Bad, false),
        }
    }

    /// For the caller and the metrics.
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Fault::Send(error) => (*error).into(),
            Fault::Bad(error) => (*error).into(),
            Fault::Told(error) => Failure::told(error, None),
        }
    }
}

impl Opening {
    /// Reads until something of the answer is there: until then another provider may be asked
    /// without the caller's seeing it.
    async fn first_word(&mut self) -> Result<(), Fault> {
        loop {
            while let Some(event) = self.reader.next() {
                if let Part::Error(error) = event.part {
                    return Err(Fault::Told(error));
                }
                let holds_back = event.part.holds_back();
                self.held.push_back(event);
                if !holds_back {
                    return Ok(());
                }
            }
            // Whoever says nothing for so long is let through: the gaps are watched all the same.
            if self.held.len() > HELD_MAX {
                return Ok(());
            }
            match self.body.chunk().await {
                Some(Ok(bytes)) => self.reader.feed(&bytes).map_err(Fault::Bad)?,
                Some(Err(error)) => return Err(Fault::Send(error)),
                None => {
                    self.reader.end().map_err(Fault::Bad)?;
                    self.held.extend(std::iter::from_fn(|| self.reader.next()));
                    return Ok(());
                }
            }
        }
    }
}

/// Reads a body to its end.
async fn collect(body: &mut dyn ReplyBody, max: usize) -> Result<Bytes, Failure> {
    // Most come in one piece, which then is not copied.
    let mut first: Option<Bytes> = None;
    let mut all = BytesMut::new();
    while let Some(chunk) = body.chunk().await {
        let chunk = chunk.map_err(Failure::from)?;
        if all.len() + first.as_ref().map_or(0, Bytes::len) + chunk.len() > max {
            body.judge(Verdict::Bad);
            return Err(Failure::bad_answer("the provider's answer is too large"));
        }
        match first.take() {
            None if all.is_empty() => first = Some(chunk),
            before => {
                all.extend_from_slice(before.as_deref().unwrap_or_default());
                all.extend_from_slice(&chunk);
            }
        }
    }
    Ok(first.unwrap_or_else(|| all.freeze()))
}

/// Reads what an answer says that is no 200, and sorts it.
async fn refusal(api: Api, provider: &'static str, mut reply: Reply) -> Missed {
    let body = tokio::time::timeout(ERROR_WAIT, collect(&mut *reply.body, ERROR_MAX)).await;
    let body = body.ok().and_then(Result::ok).unwrap_or_default();
    if reply.status == 404 {
        // The name is the caller's or the operator's: another target may have the model, and the
        // provider is as well as ever.
        reply.body.judge(Verdict::NotItsFault);
        let detail = "the provider does not have the model";
        return Missed::Useless(Failure::new("model_not_found", Reason::ModelNotFound, detail));
    }
    let error = ProviderError::parse(api, reply.status, &body);
    let verdict = verdict(&error, reply.retry_after);
    reply.body.judge(verdict);
    if error.about == About::Key && !error.is_throttle {
        tracing::error!(
            event = "provider_key",
            provider,
            code = error.code,
            "a provider does not take our key"
        );
    }
    missed(&error, reply.retry_after)
}

fn verdict(error: &ProviderError, retry_after: Option<Duration>) -> Verdict {
    match error.about {
        _ if error.is_throttle => Verdict::Throttled(retry_after.unwrap_or(THROTTLE_PAUSE)),
        About::Route => match retry_after {
            // Whoever says when to come back works as far as one can tell.
            Some(wait) => Verdict::Throttled(wait),
            None => Verdict::Bad,
        },
        About::Key | About::Request | About::Policy => Verdict::NotItsFault,
    }
}

fn missed(error: &ProviderError, retry_after: Option<Duration>) -> Missed {
    let failure = Failure::told(error, retry_after);
    match error.about {
        _ if error.is_throttle => Missed::Failed(failure),
        About::Route => Missed::Failed(failure),
        About::Key => Missed::Useless(failure),
        // A policy is not routed around, and a bad request is bad everywhere.
        About::Request | About::Policy => Missed::Final(failure),
    }
}

/// The body of an answer that needs no network.
struct EchoBody(VecDeque<Bytes>);

impl ReplyBody for EchoBody {
    fn chunk(&mut self) -> Boxed<'_, Option<Result<Bytes, SendError>>> {
        Box::pin(std::future::ready(self.0.pop_front().map(Ok)))
    }

    fn judge(&mut self, _: Verdict) {}
}
