//! A client's request for an answer.
//!
//! Owns: what of it is checked when it comes in, the bounds on what it can use, and the request
//! that a provider gets for it. Refuses to know: which provider that is, and what tokens cost.

mod bound;
mod fits;
mod meaning;
mod read_anthropic;
mod read_openai;
mod to_anthropic;
mod to_gemini;
mod to_openai;

use std::borrow::Cow;

use bytes::Bytes;
use serde::de::DeserializeOwned;
use types::Reason;

use self::meaning::{Chat, Piece, Role};
use super::body::Body;
use super::object::{elements, members, string, unsupported};
use super::write::quoted;
use super::{Api, Edits, Unsupported, Upstream};
use crate::{Fault, JsonLimits};

/// Bytes of the name of a model.
const MODEL_BYTES: usize = 256;
/// A limit on an answer above this is no limit. Keeps products of it within range.
const OUTPUT_MAX: u64 = 1 << 32;
/// Choices that one request may ask for, which is OpenAI's own limit.
const CHOICES_MAX: u64 = 128;

/// A request for an answer to a conversation, in the client's dialect.
#[derive(Debug, Clone)]
pub struct ChatRequest {
    api: Api,
    body: Body,
    model: String,
    streams: bool,
    wants_usage: bool,
    output_max: Option<u64>,
    choices: u64,
}

impl ChatRequest {
    /// Reads a body of `/chat/completions` ([`Api::OpenAi`]) or `/messages` ([`Api::Anthropic`]);
    /// no client speaks [`Api::Gemini`], which is refused. Checks the members that are read here;
    /// what else there is, is the provider's to judge.
    pub fn parse(api: Api, body: &Bytes, limits: &JsonLimits) -> Result<ChatRequest, Fault> {
        let body = Body::parse(body, limits)?;
        let (wants_usage, output_max, choices) = match api {
            Api::OpenAi => {
                let choices = count(&body, "n", CHOICES_MAX)?.unwrap_or(1);
                let old = count(&body, "max_tokens", OUTPUT_MAX)?;
                // Which of both counts is the provider's to say: the larger one is safe.
                let max = count(&body, "max_completion_tokens", OUTPUT_MAX)?.max(old);
                (include_usage(&body)?, max, choices)
            }
            Api::Anthropic => {
                let max = count(&body, "max_tokens", OUTPUT_MAX)?;
                if max.is_none() {
                    return Err(missing("max_tokens"));
                }
                (true, max, 1)
            }
            Api::Gemini => {
                return Err(Fault::new(
                    Reason::InvalidMessageFormat,
                    "body is of a dialect that is spoken to providers only",
                ));
            }
        };
        check_messages(&body)?;
        Ok(ChatRequest {
            api,
            model: model(&body)?,
            streams: typed(&body, "stream", "must be true or false")?.unwrap_or(false),
            wants_usage,
            output_max: output_max.map(|max| max.saturating_mul(choices)),
            choices,
            body,
        })
    }

    /// The dialect it was read in.
    #[must_use]
    pub fn api(&self) -> Api {
        self.api
    }

    /// The name of the model, as the client wrote it.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// Whether the answer is to come in pieces.
    #[must_use]
    pub fn streams(&self) -> bool {
        self.streams
    }

    /// Whether a streamed answer has to end with usage; in Anthropic's dialect each does.
    #[must_use]
    pub fn wants_usage(&self) -> bool {
        self.wants_usage
    }

    /// Tokens that the whole answer may have, over all choices, where the client says so.
    #[must_use]
    pub fn output_max(&self) -> Option<u64> {
        self.output_max
    }

    /// Answers that are asked for at once, 1 or more.
    #[must_use]
    pub fn choices(&self) -> u64 {
        self.choices
    }

    /// The text of the request.
    #[must_use]
    pub fn body(&self) -> &Bytes {
        self.body.bytes()
    }

    /// A bound that the provider's count of the prompt cannot pass, since a token is at least a
    /// byte: the bytes of all texts, tools, documents and sounds, what a provider writes around
    /// them, and `picture_tokens_max` for each picture, whose own bytes do not count.
    #[must_use]
    pub fn input_tokens_max(&self, picture_tokens_max: u64) -> u64 {
        bound::input_tokens_max(&self.body, picture_tokens_max)
    }

    /// Whether [`ChatRequest::continued`] makes sense: one choice of free text, nothing thought
    /// before it that would be lost, and no answer that the client has begun itself.
    #[must_use]
    pub fn can_continue(&self) -> bool {
        let asks = |name: &str, usual: &str| {
            self.body.get(name).is_some_and(|json| kind(json).is_none_or(|kind| kind != usual))
        };
        let has_schema = self.body.get("output_config").is_some_and(|json| {
            members(json).is_none_or(|all| all.iter().any(|(n, _)| n == "format"))
        });
        self.choices == 1
            && !asks("response_format", "text")
            && !asks("thinking", "disabled")
            && !has_schema
            && !self.ends_with_answer()
    }

    fn ends_with_answer(&self) -> bool {
        let last = self.body.get("messages").and_then(elements).and_then(|all| all.last().copied());
        let role = last.and_then(|message| {
            members(message.get())?.into_iter().find(|(name, _)| name == "role")
        });
        role.is_some_and(|(_, role)| string(role.get()).is_some_and(|role| role == "assistant"))
    }

    /// The request for a provider.
    pub fn for_upstream(
        &self,
        to: Api,
        model: &str,
        edits: &Edits,
    ) -> Result<Upstream, Unsupported> {
        if to == self.api {
            return Ok(self.passed_on(model, edits, None));
        }
        let chat = self.meaning()?;
        self.written(chat, to, model, edits, false)
    }

    /// The same conversation with the answer so far at its end, for models that take an answer up
    /// where it was cut. OpenAI's own do not; of others who speak its dialect, those that do want
    /// the last message marked by `prefix`.
    ///
    /// Anthropic refuses a space at the end of `so_far`, which is left out there: the model may say
    /// it again, and [`super::StreamWriter::resume`] leaves it out of that.
    pub fn continued(
        &self,
        to: Api,
        model: &str,
        so_far: &str,
        edits: &Edits,
    ) -> Result<Upstream, Unsupported> {
        if !self.can_continue() {
            return Err(unsupported("messages", "ask for an answer that cannot be continued"));
        }
        let is_blank = so_far.trim().is_empty();
        if to == self.api {
            return Ok(self.passed_on(model, edits, Some(so_far).filter(|_| !is_blank)));
        }
        let mut chat = self.meaning()?;
        if !is_blank {
            chat.say(Role::Assistant, [Piece::Text(Cow::Borrowed(so_far))]);
        }
        self.written(chat, to, model, edits, !is_blank)
    }

    fn meaning(&self) -> Result<Chat<'_>, Unsupported> {
        let json = std::str::from_utf8(self.body.bytes())
            .map_err(|_| unsupported("body", "must be UTF-8"))?;
        match self.api {
            Api::Anthropic => read_anthropic::read(json),
            Api::OpenAi | Api::Gemini => read_openai::read(json),
        }
    }

    fn written(
        &self,
        mut chat: Chat<'_>,
        to: Api,
        model: &str,
        edits: &Edits,
        is_continued: bool,
    ) -> Result<Upstream, Unsupported> {
        fits::check(&chat, self.api, to)?;
        // No dialect takes a limit of nothing.
        chat.output_max = capped(chat.output_max, edits.output_cap.map(|cap| cap.max(1)));
        Ok(match to {
            Api::OpenAi => Upstream {
                path: "/chat/completions".to_owned(),
                body: to_openai::write(&chat, model, is_continued),
            },
            Api::Anthropic => {
                Upstream { path: "/messages".to_owned(), body: to_anthropic::write(&chat, model) }
            }
            Api::Gemini => Upstream {
                path: to_gemini::path(model, chat.streams),
                body: to_gemini::write(&chat, model),
            },
        })
    }

    /// The client's own text but for a few members.
    fn passed_on(&self, model: &str, edits: &Edits, so_far: Option<&str>) -> Upstream {
        let mut changes: Vec<(&str, String)> = vec![("model", quoted(model))];
        if let Some(cap) = edits.output_cap {
            let max = self.output_max.map(|max| max / self.choices);
            let cap = capped(max, Some((cap / self.choices).max(1))).unwrap_or(1);
            // Where the client says nothing, the name that is not deprecated.
            let names = ["max_completion_tokens", "max_tokens"];
            let said = names.into_iter().filter(|name| self.body.get(name).is_some());
            changes.extend(said.map(|name| (name, cap.to_string())));
            if self.output_max.is_none() {
                changes.push(("max_completion_tokens", cap.to_string()));
            }
        }
        if self.api == Api::OpenAi && self.streams && edits.want_usage && !self.wants_usage {
            changes.push(("stream_options", self.options_with_usage()));
        }
        if let Some(so_far) = so_far {
            changes.push(("messages", self.messages_with(so_far)));
        }
        let changes: Vec<(&str, &str)> = changes.iter().map(|(n, json)| (*n, &**json)).collect();
        let path = if self.api == Api::OpenAi { "/chat/completions" } else { "/messages" };
        Upstream { path: path.to_owned(), body: self.body.with(&changes) }
    }

    fn options_with_usage(&self) -> String {
        let old = self.body.get("stream_options").map(|json| Bytes::from(json.to_owned()));
        let old = old.and_then(|json| Body::of_provider(&json)).filter(Body::has_members);
        match old {
            Some(old) => {
                String::from_utf8(old.with(&[("include_usage", "true")])).unwrap_or_default()
            }
            None => "{\"include_usage\":true}".to_owned(),
        }
    }

    /// The conversation, which is never empty, and behind it the answer so far.
    fn messages_with(&self, so_far: &str) -> String {
        let old = self.body.get("messages").unwrap_or_default().trim_end();
        let old = old.strip_suffix(']').unwrap_or(old);
        let is_anthropic = self.api == Api::Anthropic;
        let text = quoted(if is_anthropic { so_far.trim_end() } else { so_far });
        let mark = if is_anthropic { "" } else { ",\"prefix\":true" };
        format!("{old},{{\"role\":\"assistant\",\"content\":{text}{mark}}}]")
    }
}

fn capped(asked: Option<u64>, cap: Option<u64>) -> Option<u64> {
    match (asked, cap) {
        (Some(asked), Some(cap)) => Some(asked.min(cap)),
        (asked, cap) => asked.or(cap),
    }
}

/// The member `type` of an object.
fn kind(json: &str) -> Option<Cow<'_, str>> {
    let (_, kind) = members(json)?.into_iter().find(|(name, _)| name == "type")?;
    string(kind.get())
}

fn missing(name: &str) -> Fault {
    Fault::new(Reason::MissingField, format!("{name} is required"))
}

fn invalid(name: &str, expected: &str) -> Fault {
    Fault::new(Reason::InvalidField, format!("{name} {expected}"))
}

fn typed<T: DeserializeOwned>(body: &Body, name: &str, expected: &str) -> Result<Option<T>, Fault> {
    let Some(json) = body.get(name) else { return Ok(None) };
    serde_json::from_str(json).map(Some).map_err(|_| invalid(name, expected))
}

fn count(body: &Body, name: &str, max: u64) -> Result<Option<u64>, Fault> {
    let found: Option<u64> = typed(body, name, "must be an integer from 1")?;
    match found {
        Some(0) => Err(invalid(name, "must be an integer from 1")),
        Some(count) if count > max => Err(invalid(name, "is larger than any model permits")),
        found => Ok(found),
    }
}

/// The name of the model, which is looked up and shown.
pub(super) fn model(body: &Body) -> Result<String, Fault> {
    let Some(json) = body.get("model") else { return Err(missing("model")) };
    match string(json) {
        Some(model)
            if (1..=MODEL_BYTES).contains(&model.len()) && !model.contains(char::is_control) =>
        {
            Ok(model.into_owned())
        }
        _ => Err(invalid("model", "must be a string of 1 to 256 characters")),
    }
}

fn include_usage(body: &Body) -> Result<bool, Fault> {
    let Some(json) = body.get("stream_options") else { return Ok(false) };
    let Some(options) = members(json) else {
        return Err(invalid("stream_options", "must be an object"));
    };
    let Some((_, found)) = options.into_iter().find(|(name, _)| name == "include_usage") else {
        return Ok(false);
    };
    serde_json::from_str::<Option<bool>>(found.get())
        .map(|found| found.unwrap_or(false))
        .map_err(|_| invalid("stream_options.include_usage", "must be true or false"))
}

fn check_messages(body: &Body) -> Result<(), Fault> {
    let Some(json) = body.get("messages") else { return Err(missing("messages")) };
    // The body is valid JSON, so that its first two characters tell.
    match json.strip_prefix('[').map(str::trim_start) {
        Some(rest) if !rest.starts_with(']') => Ok(()),
        _ => Err(invalid("messages", "must be an array that is not empty")),
    }
}
