//! How an answer of the fake provider goes out: in its time, and with its fault.
//!
//! Owns: heads, framing, pacing, and what a fault looks like on the wire. Refuses to know: what a
//! request meant.

use std::time::Duration;

use anyhow::Result;
use serde_json::Value;

use super::answer::{Answer, Asked, Event, Part};
use super::fault::{Fault, Refusal, RetryAfter};
use super::wire::{Caller, Gone, Gzip, LAST_CHUNK, chunk};
use super::{Manner, Shared, Vendor, anthropic, gemini, openai, refused};

const HUGE_BYTES: usize = 2 * 1024 * 1024;
const JSON: &str = "application/json";
const EVENTS: &str = "text/event-stream; charset=utf-8";
/// A page as one stands before a vendor that is away.
const PAGE: &str = "<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head>\
                    <body><h1>502 Bad Gateway</h1></body></html>";

/// Why an answer ends before its end; the connection ends with it.
#[derive(Debug)]
pub(super) enum Stop {
    /// The caller hung up.
    Gone,
    /// The fault says so.
    Broken,
    /// The fault says so, and that it is no proper end.
    Reset,
}

impl From<Gone> for Stop {
    fn from(_: Gone) -> Stop {
        Stop::Gone
    }
}

/// One answer on its way.
pub(super) struct Delivery<'a, 'b> {
    pub(super) shared: &'a Shared,
    pub(super) caller: &'a mut Caller<'b>,
    pub(super) number: usize,
    pub(super) vendor: Vendor,
    pub(super) key: &'a str,
    pub(super) path: &'a str,
    pub(super) is_stream: bool,
    pub(super) manner: Manner,
    pub(super) fault: Option<Fault>,
}

impl Delivery<'_, '_> {
    /// Says no.
    pub(super) fn refuse(&mut self, refusal: &Refusal) -> Result<(), Stop> {
        let (status, body) = refused::body(self.vendor, refusal, self.key);
        let mut more = Vec::new();
        if let Some(after) = refusal.retry_after() {
            more.push(("retry-after", retry_after(after)));
        }
        if status == 200 && self.is_stream {
            return self.message(200, EVENTS, &more, format!("data: {body}\r\n\r\n").as_bytes());
        }
        self.message(status, JSON, &more, body.to_string().as_bytes())
    }

    /// A body that nothing goes wrong with.
    pub(super) fn whole(&mut self, body: &Value) -> Result<(), Stop> {
        self.message(200, JSON, &[], body.to_string().as_bytes())
    }

    /// Vectors.
    pub(super) fn vectors(&mut self, prompt_tokens: u64, body: &Value) -> Result<(), Stop> {
        self.opening()?;
        if let Some(done) = self.instead() {
            return done;
        }
        self.body(&body.to_string())?;
        self.shared.books.note(self.number, |entry| entry.prompt_tokens = prompt_tokens);
        Ok(())
    }

    /// An answer of the model.
    pub(super) fn answer(&mut self, asked: &Asked) -> Result<(), Stop> {
        self.shared.books.note(self.number, |entry| entry.pictures = asked.pictures);
        self.opening()?;
        if let Some(done) = self.instead() {
            return done;
        }
        let mut answer = Answer::new(self.shared.serial(self.number), asked, &self.manner);
        answer.with_usage = asked.wants_usage || !asked.is_stream;
        match self.fault {
            Some(Fault::NoUsage) => answer.with_usage = false,
            Some(Fault::NoFinish) => answer.with_finish = false,
            Some(Fault::HugeChunk) => {
                answer.tokens.insert(0, format!("{} ", "x".repeat(HUGE_BYTES)));
            }
            _ => {}
        }
        if asked.is_stream { self.stream(&answer) } else { self.whole_answer(&answer) }
    }

    /// What comes before the head.
    fn opening(&mut self) -> Result<(), Stop> {
        self.caller.in_pieces = self.fault == Some(Fault::Pieces);
        if self.fault == Some(Fault::HangBeforeHead) {
            return Err(self.caller.hang().into());
        }
        Ok(self.caller.wait(self.manner.head_delay)?)
    }

    /// The answer of a fault that has nothing to do with what was asked.
    fn instead(&mut self) -> Option<Result<(), Stop>> {
        let (kind, body): (_, &[u8]) = match self.fault {
            Some(Fault::Garbage) => (JSON, b"\x00\xff{]: not what anybody asked for\x00"),
            Some(Fault::Html) => ("text/html", PAGE.as_bytes()),
            Some(Fault::Empty) => (JSON, b""),
            Some(Fault::Redirect) => {
                let place = format!("http://{}/moved{}", self.shared.address, self.path);
                return Some(self.message(302, JSON, &[("location", place)], b""));
            }
            _ => return None,
        };
        Some(self.message(200, kind, &[], body))
    }

    fn whole_answer(&mut self, answer: &Answer) -> Result<(), Stop> {
        let chunks = u32::try_from(answer.chunks().count()).unwrap_or(u32::MAX);
        let between = self.between();
        self.caller.wait(self.manner.first_token_delay + between.saturating_mul(chunks))?;
        let body = match self.vendor {
            Vendor::OpenAi => openai::whole(answer),
            Vendor::Anthropic => anthropic::whole(answer),
            Vendor::Gemini => gemini::whole(answer),
        };
        self.body(&body.to_string())?;
        self.bill(answer, answer.completion());
        Ok(())
    }

    fn between(&self) -> Duration {
        match self.fault {
            Some(Fault::Slow(between)) => between,
            _ => self.manner.chunk_delay,
        }
    }

    /// A body in one piece, as far as the fault lets it.
    fn body(&mut self, body: &str) -> Result<(), Stop> {
        let (all, half) = (body.as_bytes(), &body.as_bytes()[..body.len() / 2]);
        let stop = match self.fault {
            Some(Fault::HangAfterHead | Fault::HangBeforeFirstToken) => {
                self.start(200, JSON, &[], Some(all.len()))?;
                return Err(self.caller.hang().into());
            }
            Some(Fault::StallAfter(_)) => None,
            Some(Fault::CutAfter(_)) => Some(Stop::Broken),
            Some(Fault::ResetAfter(_)) => Some(Stop::Reset),
            Some(Fault::EndAfter(_) | Fault::MalformedAfter(_) | Fault::TruncatedJson) => {
                return self.message(200, JSON, &[], half);
            }
            Some(Fault::ErrorAfter(_)) => {
                let (_, error) = refused::body(self.vendor, &Refusal::Overloaded, self.key);
                return self.message(200, JSON, &[], error.to_string().as_bytes());
            }
            Some(Fault::Gzip) => {
                let mut gzip = Gzip::default();
                let encoded = [gzip.encode(all), gzip.finish()].concat();
                let more = [("content-encoding", "gzip".to_owned())];
                return self.message(200, JSON, &more, &encoded);
            }
            _ => return self.message(200, JSON, &[], all),
        };
        self.start(200, JSON, &[], Some(all.len()))?;
        self.caller.send(half)?;
        Err(stop.unwrap_or_else(|| self.caller.hang().into()))
    }

    fn stream(&mut self, answer: &Answer) -> Result<(), Stop> {
        let mut events = match self.vendor {
            Vendor::OpenAi => openai::events(answer),
            Vendor::Anthropic => anthropic::events(answer),
            Vendor::Gemini => gemini::events(answer),
        };
        match self.fault {
            Some(Fault::NoDone) => events.retain(|event| event.part != Part::Done),
            Some(Fault::TruncatedJson) => {
                let last = events.iter().rposition(|event| event.part == Part::Content);
                events.truncate(last.map_or(0, |at| at + 1));
                if let Some(last) = events.last_mut() {
                    let middle = last.bytes.len() / 2;
                    last.bytes.truncate(last.bytes.floor_char_boundary(middle));
                }
            }
            _ => {}
        }
        let is_gzip = self.fault == Some(Fault::Gzip);
        let more = [("content-encoding", "gzip".to_owned())];
        self.start(200, EVENTS, if is_gzip { &more } else { &[] }, None)?;
        if self.fault == Some(Fault::HangAfterHead) {
            return Err(self.caller.hang().into());
        }
        let mut gzip = is_gzip.then(Gzip::default);
        self.events(answer, &events, &mut gzip)?;
        if let Some(gzip) = gzip {
            self.caller.send(&chunk(&gzip.finish()))?;
        }
        Ok(self.caller.send(LAST_CHUNK)?)
    }

    fn events(
        &mut self,
        answer: &Answer,
        events: &[Event],
        gzip: &mut Option<Gzip>,
    ) -> Result<(), Stop> {
        let mut sent_chunks = 0;
        let mut has_begun = false;
        for event in events {
            if event.part != Part::Opening && !has_begun {
                has_begun = true;
                self.bill(answer, 0);
                if self.fault == Some(Fault::HangBeforeFirstToken) {
                    return Err(self.caller.hang().into());
                }
                self.caller.wait(self.manner.first_token_delay)?;
            } else if event.part == Part::Content {
                self.caller.wait(self.between())?;
            }
            if event.part != Part::Opening && self.fails_after(sent_chunks, gzip)? {
                return Ok(());
            }
            self.event(&event.bytes, gzip)?;
            if event.part == Part::Content {
                sent_chunks += 1;
                let tokens = event.tokens;
                self.shared.books.note(self.number, |entry| entry.completion_tokens += tokens);
            }
        }
        Ok(())
    }

    fn event(&mut self, event: &str, gzip: &mut Option<Gzip>) -> Result<(), Stop> {
        let bytes = match gzip {
            Some(gzip) => chunk(&gzip.encode(event.as_bytes())),
            None => chunk(event.as_bytes()),
        };
        Ok(self.caller.send(&bytes)?)
    }

    /// Does what the fault says after so many chunks; true when nothing more is to come.
    fn fails_after(&mut self, sent: usize, gzip: &mut Option<Gzip>) -> Result<bool, Stop> {
        match self.fault {
            Some(Fault::StallAfter(at)) if at == sent => Err(self.caller.hang().into()),
            Some(Fault::CutAfter(at)) if at == sent => Err(Stop::Broken),
            Some(Fault::ResetAfter(at)) if at == sent => Err(Stop::Reset),
            Some(Fault::EndAfter(at)) if at == sent => Ok(true),
            Some(Fault::MalformedAfter(at)) if at == sent => {
                // Once only.
                self.fault = None;
                let name = match self.vendor {
                    Vendor::Anthropic => "event: content_block_delta\n",
                    Vendor::OpenAi | Vendor::Gemini => "",
                };
                self.event(&format!("{name}data: {{\"id\": \"broken\", \"cho\n\n"), gzip)?;
                Ok(false)
            }
            Some(Fault::ErrorAfter(at)) if at == sent => {
                let (_, error) = refused::body(self.vendor, &Refusal::Overloaded, self.key);
                let event = match self.vendor {
                    Vendor::Anthropic => format!("event: error\ndata: {error}\n\n"),
                    Vendor::OpenAi => format!("data: {error}\n\n"),
                    Vendor::Gemini => format!("data: {error}\r\n\r\n"),
                };
                self.event(&event, gzip)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// The model has worked: the prompt is billed, and so many tokens of the answer.
    fn bill(&self, answer: &Answer, completion_tokens: u64) {
        self.shared.books.note(self.number, |entry| {
            entry.prompt_tokens = answer.prompt;
            entry.cached_tokens = answer.cached;
            entry.reasoning_tokens = answer.reasoning;
            entry.completion_tokens = completion_tokens;
        });
    }

    /// Head and body in one write, or the head as slowly as the fault wants it.
    fn message(
        &mut self,
        status: u16,
        kind: &str,
        more: &[(&str, String)],
        body: &[u8],
    ) -> Result<(), Stop> {
        if matches!(self.fault, Some(Fault::TrickledHead(_) | Fault::Pieces)) {
            self.start(status, kind, more, Some(body.len()))?;
            return Ok(self.caller.send(body)?);
        }
        let mut bytes = self.head(status, kind, more, Some(body.len())).into_bytes();
        bytes.extend_from_slice(body);
        self.note_status(status);
        Ok(self.caller.send(&bytes)?)
    }

    fn start(
        &mut self,
        status: u16,
        kind: &str,
        more: &[(&str, String)],
        length: Option<usize>,
    ) -> Result<(), Stop> {
        let head = self.head(status, kind, more, length);
        self.note_status(status);
        match self.fault {
            Some(Fault::TrickledHead(between)) => self.caller.trickle(head.as_bytes(), between)?,
            _ => self.caller.send(head.as_bytes())?,
        }
        Ok(())
    }

    fn note_status(&self, status: u16) {
        self.shared.books.note(self.number, |entry| entry.status = status);
    }

    fn head(
        &self,
        status: u16,
        kind: &str,
        more: &[(&str, String)],
        length: Option<usize>,
    ) -> String {
        let id = self.shared.serial(self.number);
        let request_id = match self.vendor {
            Vendor::Anthropic => "request-id",
            Vendor::OpenAi | Vendor::Gemini => "x-request-id",
        };
        let mut head =
            format!("HTTP/1.1 {status} Fake\r\ncontent-type: {kind}\r\n{request_id}: req_{id}\r\n");
        for (name, value) in more {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        match length {
            Some(length) => head.push_str(&format!("content-length: {length}\r\n\r\n")),
            None => head.push_str("transfer-encoding: chunked\r\n\r\n"),
        }
        head
    }
}

fn retry_after(after: RetryAfter) -> String {
    match after {
        RetryAfter::Seconds(secs) => secs.to_string(),
        RetryAfter::Date(secs) => {
            let then = jiff::Timestamp::now() + Duration::from_secs(secs);
            let date = jiff::fmt::rfc2822::DateTimePrinter::new();
            date.timestamp_to_rfc9110_string(&then).unwrap_or_default()
        }
    }
}
