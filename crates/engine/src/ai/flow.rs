//! A call from its reservation to an answer, over as many targets as it takes.
//!
//! Owns: the order of attempts, the waits between them, and what a reservation is said to end as on
//! the way. Refuses to know: bytes.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use dialect::ai::{Edits, Ids};
use governors::{Charge, Command, OutcomeStatus, Reserve};
use ledger::{Kind, View};
use types::limits::{CALL_TOKENS, INTEGER_MAX};
use types::{Operation, Reason, StreamName, Usage};

use crate::act::{Engine, Request};
use crate::ai::attempt::{Missed, Opened, Opening, Try};
use crate::ai::cache::{Cached, Slot, is_complete};
use crate::ai::failure::Failure;
use crate::ai::models::{Model, Target};
use crate::ai::reserve::{End, Reservation};
use crate::ai::stream::AnswerStream;
use crate::ai::{AiOptions, Answered, Ask, Asked, Call, Failed, Given};
use crate::commit::{Decided, Refused};
use crate::keys::CallerKey;
use crate::outbound::{Clocks, Sent};

/// Tokens of the shortest answer that a call is worth making for.
const OUTPUT_FLOOR: u64 = 64;
/// Tokens of the longest answer of a model of which nobody says more.
const OUTPUT_MAX: u64 = 16_384;
/// Tokens that a picture is taken for where nobody says more.
const PICTURE_TOKENS: u64 = 4_096;
/// Bytes of text that are taken for a token where a provider does not count.
pub(crate) const BYTES_PER_TOKEN: u64 = 4;
/// The wait before all targets are tried once more; it doubles.
const BACKOFF: Duration = Duration::from_millis(250);
/// The longest wait between two rounds. Who asks for more is told to come back.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// How often a key may be used again.
const KEY_ATTEMPTS_MAX: u32 = 16;

/// What is reserved, by whom.
struct Wish {
    stream: StreamName,
    command: Command,
    actor: Cow<'static, str>,
    may_register: bool,
    source: &'static str,
    body: Bytes,
}

/// A call that has its reservation.
pub(crate) struct Flow {
    pub(crate) engine: Engine,
    pub(crate) model: Arc<Model>,
    pub(crate) ask: Ask,
    pub(crate) ids: Ids,
    pub(crate) reservation: Reservation,
    pub(crate) options: AiOptions,
    pub(crate) started: Instant,
    deadline: Instant,
    edits: Edits,
    line: Vec<usize>,
    /// Targets that are of no use to this call.
    useless: Vec<usize>,
    /// Targets that were tried.
    tried: Vec<usize>,
}

/// The target that answered.
pub(crate) struct Served {
    pub(crate) at: usize,
    pub(crate) opened: Opened,
}

impl Engine {
    /// Makes a call to a model: reserves, finds somebody who answers, and settles behind the
    /// answer.
    ///
    /// # Errors
    /// A refusal that is not in a receipt of its own, or that nobody answered.
    pub async fn ask(&self, call: Call) -> Result<Asked, Failed> {
        let started = Instant::now();
        let Some(model) = self.models().find(call.ask.model()) else {
            return Err(Refused::new(Reason::ModelNotFound, "there is no such model").into());
        };
        let slot = self.slot(&call);
        if let Some(slot) = &slot
            && let Some(recalled) = self.recall(slot, &call).await
        {
            return Ok(Asked::Recalled(recalled));
        }
        self.call(call, &model, slot, started).await.map(Asked::Answered)
    }

    async fn call(
        &self,
        call: Call,
        model: &Arc<Model>,
        slot: Option<Slot>,
        started: Instant,
    ) -> Result<Answered, Failed> {
        let Call { tenant, actor, may_register, key, body, ask, ids, cache: _ } = call;
        let stream = StreamName::tenant(&tenant);
        let reserve = self.wish(model, &ask);
        let wish = reserve.output_wish;
        let command = Command::Reserve(reserve);
        let wished = Wish { stream, command, actor, may_register, source: ask.source(), body };
        let mut receipt = self.reserve_call(wished, key).await?;
        let Some(reservation) = receipt.reservation.take().and_then(Arc::into_inner) else {
            return self.decided_before(receipt);
        };
        let output = View::scan(&receipt.receipt.core).ok();
        let output = output.and_then(|view| u64::try_from(view.meta_int("output_max")?).ok());
        let mut flow = Flow::new(self, Arc::clone(model), ask, ids, reservation, started);
        flow.edits = Edits {
            // Where there was no more to reserve, what has been is all that may come.
            output_cap: output.filter(|output| *output < wish),
            want_usage: flow.ask.streams(),
        };
        match flow.open(None).await {
            Ok(served) => {
                let is_worth_it = is_complete(flow.ask.operation(), &served.opened);
                let mut answered = flow.give(served, receipt, output.unwrap_or(wish));
                let Some(slot) = slot else { return Ok(answered) };
                let body = match &answered.given {
                    Given::Whole(body) if is_worth_it => Some(body.clone()),
                    _ => None,
                };
                answered.cached = match body {
                    Some(body) => self.keep(slot, &answered.receipt, &body).await,
                    None => Cached::Not,
                };
                Ok(answered)
            }
            Err(failure) => {
                flow.failed(&failure);
                self.ai().kept.fail(receipt.receipt.id);
                Err(Failed { refused: failure.refused(), receipt: Some(receipt) })
            }
        }
    }

    /// Reserves, under the caller's key if there is one. A key whose call nobody answered, so that
    /// it cost nothing, may be used again: it stands for another attempt then.
    async fn reserve_call(&self, wished: Wish, key: Option<String>) -> Result<Decided, Refused> {
        let Wish { stream, command, actor, may_register, source, body } = wished;
        let mut attempt = 0;
        loop {
            let text = key.as_ref().map(|key| match attempt {
                0 => key.clone(),
                again => format!("{key} again {again}"),
            });
            let key = text.as_deref().map(|key| CallerKey { source, key, body: &body });
            let (stream, command, actor) = (stream.clone(), command.clone(), actor.clone());
            let request = Request { stream, command, actor, may_register, key };
            let nothing = || Refused::new(Reason::StateError, "there is nothing to decide");
            let decided = self.act(request).await?.ok_or_else(nothing)?;
            let may_repeat = decided.replayed && self.ai().kept.has_failed(decided.receipt.id);
            if !may_repeat || attempt == KEY_ATTEMPTS_MAX {
                return Ok(decided);
            }
            attempt += 1;
        }
    }

    /// What a call should have set aside.
    fn wish(&self, model: &Model, ask: &Ask) -> Reserve {
        let rules = &self.inner().common.rules;
        let prices = || model.targets.iter().filter_map(|target| rules.price(&target.price));
        let (input_max, output_wish) = match ask {
            Ask::Chat(request) => {
                let picture = prices().filter_map(|price| price.image_tokens_max).max();
                let longest = prices().filter_map(|price| price.output_tokens_max).max();
                let longest = longest.unwrap_or(OUTPUT_MAX);
                // Of a model's longest answer more can be asked for, and not more can come.
                let longest = longest.saturating_mul(request.choices());
                let asked = request.output_max().map_or(longest, |asked| asked.min(longest));
                // A stream is topped up on the way, and need not begin with the worst case.
                let wish = if request.streams() { asked.min(model.observed.p99()) } else { asked };
                (request.input_tokens_max(picture.unwrap_or(PICTURE_TOKENS)), wish)
            }
            Ask::Embeddings(request) => (request.input_tokens_max(), 0),
        };
        let output_wish = output_wish.min(CALL_TOKENS);
        Reserve {
            operation: ask.operation(),
            model: model.name.clone(),
            prices: model.targets.iter().map(|target| target.price.clone()).collect(),
            input_max: input_max.min(CALL_TOKENS),
            output_floor: output_wish.min(OUTPUT_FLOOR),
            output_wish,
        }
    }

    /// The answer where nothing is to be called: a refusal, or a key that was used before.
    fn decided_before(&self, receipt: Decided) -> Result<Answered, Failed> {
        let id = receipt.receipt.id;
        let view = View::scan(&receipt.receipt.core);
        if view.is_ok_and(|view| view.kind == Kind::Refusal) {
            return Ok(Answered { receipt, given: Given::Refused, cached: Cached::Off });
        }
        if let Some(body) = self.ai().kept.find(id) {
            return Ok(Answered { receipt, given: Given::Whole(body), cached: Cached::Off });
        }
        let refused = if self.inner().common.in_flight.holds(id) {
            let mut refused =
                Refused::new(Reason::RequestInProgress, "the first request is being answered");
            refused.retry_after_s = Some(1);
            refused
        } else {
            let detail = "the first request was answered; its answer is not kept, its receipt is";
            Refused::new(Reason::AlreadyAnswered, detail)
        };
        Err(Failed { refused, receipt: Some(receipt) })
    }
}

impl Flow {
    fn new(
        engine: &Engine,
        model: Arc<Model>,
        ask: Ask,
        ids: Ids,
        reservation: Reservation,
        started: Instant,
    ) -> Flow {
        let options = engine.options().ai;
        let deadline = started + model.total.unwrap_or(options.total);
        // The id of a receipt is a hash: as good a lot as any.
        let [a, b, c, d, ..] = reservation.attempt().0;
        let lot = u32::from_be_bytes([a, b, c, d]);
        let line = model.line_up(|below| lot % below.max(1));
        let engine = engine.clone();
        let (edits, useless, tried) = Default::default();
        Flow {
            engine,
            model,
            ask,
            ids,
            reservation,
            options,
            started,
            deadline,
            edits,
            line,
            useless,
            tried,
        }
    }

    pub(crate) fn target(&self, at: usize) -> &Target {
        &self.model.targets[at]
    }

    /// Finds somebody who answers, or who goes on where `so_far` was cut.
    pub(crate) async fn open(&mut self, so_far: Option<&str>) -> Result<Served, Failure> {
        let mut last = None;
        let mut wait = BACKOFF;
        let mut left: Option<usize> = None;
        loop {
            let mut was_sent = false;
            for at in self.line.clone() {
                if self.useless.contains(&at) || so_far.is_some() && !self.target(at).continues {
                    continue;
                }
                if self.is_over() {
                    return Err(last.unwrap_or_else(too_late));
                }
                let failure = match self.attempt(at, so_far).await {
                    Ok(opened) => {
                        // What is left in the middle of a stream is counted there.
                        if let Some(left) = left.filter(|left| *left != at && so_far.is_none()) {
                            self.count_failover(left, false);
                        }
                        return Ok(Served { at, opened });
                    }
                    Err(Missed::Final(failure)) => {
                        self.count_error(at, &failure);
                        return Err(failure);
                    }
                    Err(Missed::Unsent(failure)) => {
                        self.count_error(at, &failure);
                        // What was sent tells more.
                        last.get_or_insert(failure);
                        continue;
                    }
                    Err(Missed::Useless(failure)) => {
                        self.useless.push(at);
                        failure
                    }
                    Err(Missed::Failed(failure)) => {
                        was_sent = true;
                        failure
                    }
                };
                self.count_error(at, &failure);
                left = Some(at);
                last = Some(failure);
            }
            // Whoever was not asked says so for a while: it is the caller who comes back.
            let failure = last.take().unwrap_or_else(too_late);
            let pause = failure.retry_after.unwrap_or_default().max(wait);
            let is_soon = pause <= BACKOFF_MAX && Instant::now() + pause < self.deadline;
            if !was_sent || self.is_over() || !is_soon {
                return Err(failure);
            }
            tokio::time::sleep(pause).await;
            last = Some(failure);
            wait = (wait * 2).min(BACKOFF_MAX);
        }
    }

    fn is_over(&self) -> bool {
        self.reservation.tries() > self.options.retries_max || Instant::now() >= self.deadline
    }

    async fn attempt(&mut self, at: usize, so_far: Option<&str>) -> Result<Opened, Missed> {
        let streams = self.ask.streams();
        let embeds = self.ask.operation() == Operation::Embeddings;
        let first = self.model.first_token.unwrap_or(self.options.first_token);
        let head = if streams || embeds { first } else { self.options.answer };
        let now = Instant::now();
        let deadline = if streams { self.deadline } else { self.deadline.min(now + head) };
        self.reservation.tried();
        let sent = Sent::default();
        if so_far.is_none() {
            self.reservation.hangs_on(sent.clone());
            // Should the caller leave now: a stream is cut before its first word, of a whole answer
            // nobody can know how much there was.
            let end = if streams {
                self.charge(at, OutcomeStatus::Error, self.prompt(), true)
            } else {
                End::Unknown
            };
            self.reservation.ends(end);
        }
        let opened = Try {
            outbound: &*self.engine.ai().parts.outbound,
            target: &self.model.targets[at],
            ask: &self.ask,
            so_far,
            edits: self.edits,
            ids: &self.ids,
            clocks: Clocks { head, gap: self.options.gap, deadline },
            sent: sent.clone(),
            is_retry: self.tried.contains(&at),
        }
        .open()
        .await;
        match &opened {
            Err(Missed::Unsent(_)) => self.reservation.untried(),
            Ok(_) | Err(_) => self.tried.push(at),
        }
        if opened.is_err() && so_far.is_none() {
            // A provider that failed costs the tenant nothing.
            self.reservation.ends(End::Released);
        }
        opened
    }

    /// Turns an answer into what the caller gets.
    fn give(mut self, served: Served, receipt: Decided, output: u64) -> Answered {
        match served.opened {
            Opened::Whole { mut answer } => {
                let said = answer.usage();
                let usage = said.unwrap_or_else(|| {
                    let output = answer.text_bytes().div_ceil(BYTES_PER_TOKEN);
                    Usage { output, ..self.prompt() }
                });
                self.model.observed.saw(usage.output + usage.reasoning);
                let end = self.charge(served.at, OutcomeStatus::Success, usage, said.is_none());
                self.reservation.ends(end);
                self.count_end(served.at, OutcomeStatus::Success, &usage);
                if said.is_none() {
                    answer.estimate(usage);
                }
                let body = self.render(&answer);
                self.engine.ai().kept.keep(self.reservation.attempt(), &body);
                Answered { receipt, given: Given::Whole(body), cached: Cached::Off }
            }
            Opened::Stream(opening) => {
                let stream = AnswerStream::new(self, served.at, opening, output);
                Answered { receipt, given: Given::Stream(Box::new(stream)), cached: Cached::Off }
            }
        }
    }

    fn render(&self, answer: &dialect::ai::Answer) -> Bytes {
        let name = &self.model.name;
        match &self.ask {
            Ask::Chat(request) => answer.render(request.api(), name, &self.ids),
            Ask::Embeddings(request) => answer.render_vectors(name, request.wants_base64()),
        }
        .into()
    }

    /// The prompt as it is estimated where the provider does not say.
    pub(crate) fn prompt(&self) -> Usage {
        let bytes = match &self.ask {
            Ask::Chat(request) => request.input_tokens_max(PICTURE_TOKENS),
            Ask::Embeddings(request) => request.input_tokens_max(),
        };
        Usage { input: bytes.div_ceil(BYTES_PER_TOKEN), ..Usage::default() }
    }

    pub(crate) fn charge(
        &self,
        at: usize,
        status: OutcomeStatus,
        usage: Usage,
        is_estimated: bool,
    ) -> End {
        let target = self.target(at);
        let duration_ms = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(INTEGER_MAX);
        End::Charged(Box::new(Charge {
            status,
            usage,
            is_estimated,
            price: target.price.clone(),
            provider: target.provider.name.to_owned(),
            model: target.model.clone(),
            tries: self.reservation.tries(),
            duration_ms,
        }))
    }

    pub(crate) fn count_error(&self, at: usize, failure: &Failure) {
        let target = self.target(at);
        let (provider, label) = (target.provider.name, target.label);
        let metrics = &self.engine.inner().common.metrics;
        metrics.ai_request_errors.with([provider, label, failure.kind]).inc();
        tracing::warn!(
            event = "ai_attempt_failed",
            provider,
            model = label,
            error_type = failure.kind,
            attempt = %self.reservation.attempt(),
            "attempt at a provider failed: {}",
            failure.kind
        );
    }

    pub(crate) fn count_failover(&self, at: usize, is_mid_stream: bool) {
        let kind = if is_mid_stream { "mid_stream" } else { "before_first_byte" };
        let metrics = &self.engine.inner().common.metrics;
        metrics.ai_failovers.with([self.target(at).provider.name, kind]).inc();
    }

    /// Counts a call that nobody answered.
    fn failed(&self, failure: &Failure) {
        let at = self.tried.last().or(self.line.first()).copied().unwrap_or_default();
        let timeout = failure.reason == Reason::ProviderTimeout;
        let status = if timeout { OutcomeStatus::Timeout } else { OutcomeStatus::Error };
        self.count_end(at, status, &Usage::default());
    }

    pub(crate) fn count_end(&self, at: usize, status: OutcomeStatus, usage: &Usage) {
        let target = self.target(at);
        let (provider, label) = (target.provider.name, target.label);
        let operation = self.ask.operation().as_str();
        let metrics = &self.engine.inner().common.metrics;
        metrics.ai_requests.with([provider, label, operation, status.as_str()]).inc();
        let took = self.started.elapsed().as_secs_f64();
        metrics.ai_request_duration_seconds.with([provider, label, operation]).observe(took);
        let completion = usage.output + usage.reasoning;
        for (kind, tokens) in [("prompt", usage.total() - completion), ("completion", completion)] {
            metrics.ai_tokens_used.with([provider, label, kind]).inc_by(tokens);
        }
    }
}

/// The opening of a stream that goes on with an answer.
pub(crate) fn opening(served: Served) -> Option<(usize, Box<Opening>)> {
    match served.opened {
        Opened::Stream(opening) => Some((served.at, opening)),
        Opened::Whole { .. } => None,
    }
}

fn too_late() -> Failure {
    Failure::new("timeout", Reason::ProviderTimeout, "no target of the model answered in time")
}
