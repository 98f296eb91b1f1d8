//! A stream for a client.
//!
//! Owns: the order of a dialect's events, so that each stream is whole whatever the provider sent,
//! and the seam where another provider goes on. Refuses to know: what was kept back, and why.
//!
//! While client and provider speak the same dialect, blocks are passed on as they came, with the
//! name of the model replaced. From the seam on everything is written anew, in the blocks that are
//! open.

mod anthropic;
mod openai;

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};
use serde_json::value::RawValue;
use types::Usage;

use super::object::{members, string};
use super::stream::data_range;
use super::write::{Members, object, quoted};
use super::{Api, Block, Event, Finish, Ids, Part, error_type};

/// Writes a stream in the client's dialect.
#[derive(Debug)]
pub struct StreamWriter {
    to: Api,
    as_model: String,
    /// The same as JSON.
    model: String,
    ids: Ids,
    wants_usage: bool,
    /// Whether blocks have to be written anew.
    translates: bool,
    /// The id that the client has seen, once there is one.
    id: Option<String>,
    has_begun: bool,
    /// The block that is open (Anthropic), whose number is `blocks`.
    open: Option<Open>,
    /// Blocks that are closed.
    blocks: u64,
    /// The block of each call that was begun.
    calls: Vec<(u32, u64)>,
    usage: Option<Usage>,
    usage_is_estimated: bool,
    usage_is_written: bool,
    finish: Option<Finish>,
    finish_is_written: bool,
    declines: bool,
    is_over: bool,
    /// White space that the client has already, should the text begin with it.
    overlap: String,
}

/// What an open block holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Open {
    Text,
    Call,
    Other,
}

impl StreamWriter {
    /// For a client that speaks `to` and a provider that speaks `from`.
    #[must_use]
    pub fn new(to: Api, from: Api, as_model: &str, ids: Ids, wants_usage: bool) -> StreamWriter {
        StreamWriter {
            to,
            as_model: as_model.to_owned(),
            model: quoted(as_model),
            ids,
            wants_usage,
            translates: to != from,
            id: None,
            has_begun: false,
            open: None,
            blocks: 0,
            calls: Vec::new(),
            usage: None,
            usage_is_estimated: false,
            usage_is_written: false,
            finish: None,
            finish_is_written: false,
            declines: false,
            is_over: false,
            overlap: String::new(),
        }
    }

    /// Writes what an event says. Two things are not written here: a `Done`, so that usage can
    /// still be put before it ([`StreamWriter::end`]), and an error of the provider, which may
    /// speak of things that are not the client's ([`StreamWriter::error`]).
    pub fn write(&mut self, event: &Event, out: &mut BytesMut) {
        if self.is_over || matches!(event.part, Part::Done | Part::Error(_)) {
            return;
        }
        if self.translates {
            match self.to {
                Api::Anthropic => self.anthropic_part(&event.part, out),
                Api::OpenAi | Api::Gemini => self.openai_part(&event.part, out),
            }
        } else {
            self.pass_on(event, out);
        }
    }

    /// Another provider takes the answer up where it was cut; `so_far` is the text that the client
    /// has. White space at its end is left out of what comes, should the new answer begin with it.
    pub fn resume(&mut self, from: Api, so_far: &str) {
        // Nothing that the client has: the new stream may be passed on as it is.
        self.translates = self.has_begun || from != self.to;
        self.overlap = so_far.get(so_far.trim_end().len()..).unwrap_or_default().to_owned();
        self.usage = None;
    }

    /// Usage that the stream itself did not hold, or all of it where several providers took part;
    /// it replaces what was counted so far. Comes before the end if the client wants it.
    pub fn usage(&mut self, usage: &Usage, is_estimated: bool, out: &mut BytesMut) {
        if self.is_over {
            return;
        }
        self.usage = Some(*usage);
        self.usage_is_estimated = is_estimated;
        if self.to != Api::Anthropic {
            self.openai_usage(out);
        }
    }

    /// Ends the answer here, for a reason of ours.
    pub fn finish(&mut self, finish: Finish, out: &mut BytesMut) {
        if self.is_over || self.finish_is_written {
            return;
        }
        match self.to {
            Api::Anthropic => self.anthropic_part(&Part::Finish(finish), out),
            Api::OpenAi | Api::Gemini => self.openai_part(&Part::Finish(finish), out),
        }
    }

    /// Says that the answer failed. Nothing is written after it, no end either.
    pub fn error(&mut self, code: &str, message: &str, out: &mut BytesMut) {
        if self.is_over {
            return;
        }
        self.is_over = true;
        let kind = error_type(self.to, 500);
        let json = object(|body| {
            if self.to == Api::Anthropic {
                body.text("type", "error");
            }
            body.object("error", |error| {
                error.text("type", kind);
                error.text("message", message);
                error.text("code", code);
            });
        });
        let name = (self.to == Api::Anthropic).then_some("error");
        put(name, &json, out);
    }

    /// A comment, which clients do not see: `: tai {text}`.
    pub fn note(&mut self, text: &str, out: &mut BytesMut) {
        let line: String = text.chars().filter(|letter| !letter.is_control()).collect();
        out.extend_from_slice(format!(": tai {line}\n\n").as_bytes());
    }

    /// The proper end. Only for an answer that is complete.
    pub fn end(&mut self, out: &mut BytesMut) {
        if self.is_over {
            return;
        }
        match self.to {
            Api::Anthropic => self.anthropic_end(out),
            Api::OpenAi | Api::Gemini => self.openai_end(out),
        }
        self.is_over = true;
    }

    /// The provider's own block.
    fn pass_on(&mut self, event: &Event, out: &mut BytesMut) {
        match &event.part {
            Part::Block(Block::Text) => self.open = Some(Open::Text),
            Part::Block(Block::Thought | Block::Other) => self.open = Some(Open::Other),
            Part::ToolStart { .. } => self.open = Some(Open::Call),
            Part::Block(Block::End) => {
                self.open = None;
                self.blocks += 1;
            }
            Part::Finish(finish) => {
                self.finish = Some(*finish);
                self.finish_is_written = true;
            }
            Part::Usage(usage) => {
                self.usage = Some(*usage);
                self.usage_is_written = true;
                // The block is about nothing else, and the client did not ask for it.
                if self.to == Api::OpenAi && !self.wants_usage {
                    return;
                }
            }
            _ => {}
        }
        if !event.raw.is_empty() {
            self.has_begun = true;
            self.put_renamed(&event.raw, out);
        }
    }

    /// A block under the name of the model that the client asked for.
    fn put_renamed(&mut self, raw: &Bytes, out: &mut BytesMut) {
        let Some((model, at)) = self.model_of(raw).filter(|(model, _)| *model != self.model) else {
            return out.extend_from_slice(raw);
        };
        out.extend_from_slice(raw.get(..at).unwrap_or_default());
        out.extend_from_slice(self.model.as_bytes());
        out.extend_from_slice(raw.get(at + model.len()..).unwrap_or_default());
    }

    /// The JSON of the model's name in a block, and where in the block it stands.
    fn model_of<'r>(&mut self, raw: &'r Bytes) -> Option<(&'r str, usize)> {
        let json = std::str::from_utf8(raw.get(data_range(raw)?)?).ok()?;
        let found = members(json)?;
        let named = |all: &[(Cow<'r, str>, &'r RawValue)], wanted: &str| {
            all.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.get())
        };
        let model = if self.to == Api::Anthropic {
            named(&members(named(&found, "message")?)?, "model")
        } else {
            if self.id.is_none() {
                self.id = named(&found, "id").and_then(string).map(Cow::into_owned);
            }
            named(&found, "model")
        }?;
        Some((model, model.as_ptr().addr() - raw.as_ptr().addr()))
    }

    /// The text without what the client has of it.
    fn without_overlap<'t>(&mut self, text: &'t str) -> &'t str {
        if self.overlap.is_empty() {
            return text;
        }
        let common = text.bytes().zip(self.overlap.bytes()).take_while(|(a, b)| a == b).count();
        // White space of more bytes than one may be cut inside.
        let common = (0..=common).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        let left = text.get(common..).unwrap_or(text);
        // The rest of the white space may come with the next piece.
        self.overlap = match left.is_empty() {
            true => self.overlap.get(common..).unwrap_or_default().to_owned(),
            false => String::new(),
        };
        left
    }
}

/// One event.
fn put(name: Option<&str>, json: &[u8], out: &mut BytesMut) {
    if let Some(name) = name {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b"\n");
    }
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(json);
    out.extend_from_slice(b"\n\n");
}
