//! An answer as it comes: metered, topped up, taken up elsewhere when it breaks, settled when it
//! ends.
//!
//! Owns: that a stream ends in exactly one of finish and usage, an error that says so, or the
//! caller's leaving, and that each is settled. Refuses to know: how a caller is written to. Nothing
//! is read ahead of the caller, so that one who does not read costs a buffer and no more.

use std::mem;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dialect::ai::{Event, Part, StreamWriter};
use futures_util::FutureExt;
use governors::{Command, OutcomeStatus};
use ledger::{Kind, View};
use types::{Reason, Usage};

use crate::act::Request;
use crate::ai::Ask;
use crate::ai::attempt::{Fault, Opening};
use crate::ai::failure::Failure;
use crate::ai::flow::{BYTES_PER_TOKEN, Flow, opening};
use crate::outbound::{ReplyBody, Verdict};

/// Tokens of the smallest addition to a reservation: each costs a receipt.
const TOP_UP_MIN: u64 = 1_024;
/// Bytes of an answer that are kept so that another provider can go on with it.
const SO_FAR_MAX: usize = 256 * 1024;
/// How long a provider has to end a stream whose last word is there, for its connection to be used
/// again.
const END_WAIT: Duration = Duration::from_secs(1);

/// The answer of a call, as the caller's dialect has it. Dropped before its end, it stops the
/// provider and is settled with what had come.
pub struct AnswerStream {
    flow: Flow,
    at: usize,
    from: Box<Opening>,
    writer: StreamWriter,
    out: BytesMut,
    /// Tokens of the answer that are reserved.
    granted: u64,
    /// The text so far; `None` once there is something that nobody else could go on with.
    so_far: Option<String>,
    /// Bytes of the answer that came from providers that broke off.
    before: u64,
    has_ended: bool,
    is_over: bool,
}

impl AnswerStream {
    pub(crate) fn new(flow: Flow, at: usize, from: Box<Opening>, granted: u64) -> AnswerStream {
        let (to, wants_usage, can_continue) = match &flow.ask {
            Ask::Chat(request) => (request.api(), request.wants_usage(), request.can_continue()),
            Ask::Embeddings(_) => (from.api, false, false),
        };
        let writer =
            StreamWriter::new(to, from.api, &flow.model.name, flow.ids.clone(), wants_usage);
        let others = flow.model.targets.iter().any(|target| target.continues);
        let so_far = (can_continue && others).then(String::new);
        let target = flow.target(at);
        let metrics = &flow.engine.inner().common.metrics;
        let first = metrics.ai_first_token_seconds.with([target.provider.name, target.label]);
        first.observe(flow.started.elapsed().as_secs_f64());
        let out = BytesMut::new();
        let (before, has_ended, is_over) = (0, false, false);
        AnswerStream { flow, at, from, writer, out, granted, so_far, before, has_ended, is_over }
    }

    /// The next bytes for the caller; `None` at the end.
    pub async fn next(&mut self) -> Option<Bytes> {
        while self.out.is_empty() && !self.is_over {
            if let Err(fault) = self.step().await {
                self.broken(&fault).await;
            }
        }
        (!self.out.is_empty()).then(|| self.out.split().freeze())
    }

    /// Writes all that is there, or waits for more.
    async fn step(&mut self) -> Result<(), Fault> {
        let had = self.out.len();
        let mut is_done = false;
        while let Some(event) = self.event() {
            is_done |= event.part == Part::Done;
            self.write(&event)?;
        }
        if is_done && !self.has_ended {
            // Who says that it is over has to have said why.
            self.from.reader.end().map_err(Fault::Bad)?;
        }
        if is_done || self.has_ended {
            self.finish();
            return Ok(());
        }
        if self.out.len() > had {
            self.top_up().await;
            return Ok(());
        }
        match self.from.body.chunk().await {
            Some(Ok(bytes)) => {
                let fed = self.from.reader.feed(&bytes);
                // What came before the fault is part of the answer.
                if fed.is_err() {
                    while let Some(event) = self.event() {
                        self.write(&event)?;
                    }
                }
                fed.map_err(Fault::Bad)
            }
            Some(Err(error)) => Err(Fault::Send(error)),
            None => {
                self.has_ended = true;
                self.from.reader.end().map_err(Fault::Bad)
            }
        }
    }

    fn event(&mut self) -> Option<Event> {
        self.from.held.pop_front().or_else(|| self.from.reader.next())
    }

    fn write(&mut self, event: &Event) -> Result<(), Fault> {
        match &event.part {
            Part::Error(error) => return Err(Fault::Told(error.clone())),
            Part::Text(text) => {
                let text_len = text.len();
                let kept = self.so_far.take_if(|so_far| so_far.len() + text_len > SO_FAR_MAX);
                if kept.is_none()
                    && let Some(so_far) = &mut self.so_far
                {
                    so_far.push_str(text);
                }
            }
            Part::ToolStart { .. }
            | Part::ToolArguments { .. }
            | Part::Refusal(_)
            | Part::Other => {
                self.so_far = None;
            }
            Part::Lifecycle
            | Part::Block(_)
            | Part::Thought { .. }
            | Part::Finish(_)
            | Part::Usage(_)
            | Part::Done => {}
        }
        self.writer.write(event, &mut self.out);
        Ok(())
    }

    /// Bytes of the answer, whoever they came from.
    fn bytes(&self) -> u64 {
        self.before + self.from.reader.text_bytes()
    }

    /// What has been used, as far as that is known.
    fn usage(&self) -> (Usage, bool) {
        let estimated =
            Usage { output: self.bytes().div_ceil(BYTES_PER_TOKEN), ..self.flow.prompt() };
        let Some(said) = self.from.reader.usage() else { return (estimated, true) };
        let before = self.before.div_ceil(BYTES_PER_TOKEN);
        if self.from.reader.usage_is_final() {
            // What somebody else had said was part of the prompt then.
            let input = said.input.saturating_sub(before);
            return (Usage { input, output: said.output + before, ..said }, before > 0);
        }
        (Usage { output: said.output.max(estimated.output), ..said }, true)
    }

    /// Sets more aside where the answer is about to pass what is.
    async fn top_up(&mut self) {
        let (usage, _) = self.usage();
        let used = usage.output + usage.reasoning;
        if used < self.granted {
            return;
        }
        let output = self.granted.max(TOP_UP_MIN);
        let attempt = self.flow.reservation.attempt();
        let request = Request {
            stream: self.flow.reservation.stream().clone(),
            command: Command::TopUp { attempt, output },
            actor: "ai_gateway".into(),
            may_register: false,
            key: None,
        };
        // Not as work from outside: what was begun is finished while the service drains.
        let failure = match self.flow.engine.submit(request, None).await {
            Ok(Some(decided)) => match View::scan(&decided.receipt.core) {
                Ok(view) if view.kind != Kind::Refusal => {
                    let total =
                        view.meta_int("output_max").and_then(|total| u64::try_from(total).ok());
                    self.granted = total.unwrap_or(self.granted + output);
                    return;
                }
                _ => {
                    let detail = "the answer has reached the tenant's limit";
                    Failure::new("budget", Reason::BudgetExceeded, detail)
                }
            },
            Ok(None) => return,
            Err(refused) => Failure::new("budget", refused.reason, refused.detail),
        };
        // The provider did nothing wrong.
        self.from.body.judge(Verdict::NotItsFault);
        self.fail(&failure, OutcomeStatus::Error);
    }

    /// The answer is complete.
    fn finish(&mut self) {
        let (usage, is_estimated) = self.usage();
        if !self.from.reader.usage_is_final() || self.before > 0 {
            self.writer.usage(&usage, is_estimated, &mut self.out);
        }
        self.writer.end(&mut self.out);
        self.from.body.judge(Verdict::Good);
        self.flow.model.observed.saw(usage.output + usage.reasoning);
        self.settle(OutcomeStatus::Success);
        if !self.has_ended {
            let body = mem::replace(&mut self.from.body, Box::new(Nothing));
            end(body);
        }
    }

    /// A provider broke off: another one goes on if it can, else the caller is told.
    async fn broken(&mut self, fault: &Fault) {
        if self.from.reader.finish().is_some() {
            return self.finish();
        }
        let failure = fault.failure();
        let (verdict, is_final) = fault.judged();
        self.from.body.judge(verdict);
        self.flow.count_error(self.at, &failure);
        if is_final {
            // What is not permitted, or no request, is nobody else's to answer.
            return self.fail(&failure, OutcomeStatus::Error);
        }
        let so_far = self.so_far.take().filter(|so_far| !so_far.is_empty());
        if let Some(so_far) = so_far {
            // Should the caller leave meanwhile, this is what it has had.
            let (usage, is_estimated) = self.usage();
            let end = self.flow.charge(self.at, OutcomeStatus::Error, usage, is_estimated);
            self.flow.reservation.ends(end);
            let opened = self.flow.open(Some(&so_far)).await.ok().and_then(opening);
            if let Some((at, from)) = opened {
                return self.resume(at, from, so_far);
            }
        }
        self.fail(&failure, OutcomeStatus::Error);
    }

    fn resume(&mut self, at: usize, from: Box<Opening>, so_far: String) {
        self.flow.count_failover(self.at, true);
        self.before = self.bytes();
        self.writer.resume(from.api, &so_far);
        let name = self.flow.target(at).provider.name;
        self.writer.note(&format!("continued by {name}"), &mut self.out);
        (self.at, self.from, self.so_far) = (at, from, Some(so_far));
        self.has_ended = false;
    }

    fn fail(&mut self, failure: &Failure, status: OutcomeStatus) {
        self.writer.error(failure.reason.code(), &failure.detail, &mut self.out);
        self.settle(status);
        // Stops the provider now, not when the caller has read the rest.
        self.from.body = Box::new(Nothing);
    }

    fn settle(&mut self, status: OutcomeStatus) {
        self.is_over = true;
        let (usage, is_estimated) = self.usage();
        let end = self.flow.charge(self.at, status, usage, is_estimated);
        self.flow.reservation.ends(end);
        self.flow.count_end(self.at, status, &usage);
    }
}

impl Drop for AnswerStream {
    fn drop(&mut self) {
        if !self.is_over {
            self.settle(OutcomeStatus::Error);
        }
    }
}

/// Reads the end of a stream behind its last word.
fn end(mut body: Box<dyn ReplyBody>) {
    if body.chunk().now_or_never().is_some() {
        return;
    }
    #[expect(
        clippy::disallowed_methods,
        reason = "over within a second, and nothing waits for it"
    )]
    tokio::spawn(async move {
        let _ = tokio::time::timeout(END_WAIT, body.chunk()).await;
    });
}

/// The body of a stream that is over.
struct Nothing;

impl ReplyBody for Nothing {
    fn chunk(
        &mut self,
    ) -> crate::outbound::Boxed<'_, Option<Result<Bytes, crate::outbound::SendError>>> {
        Box::pin(std::future::ready(None))
    }

    fn judge(&mut self, _: Verdict) {}
}
