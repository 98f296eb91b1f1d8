//! A provider's whole answer.
//!
//! Owns: whether it is one, and how it is written for a client. Refuses to know: what it costs.

mod read;

use bytes::Bytes;
use types::{Operation, Usage};

pub(super) use self::read::Gemini;
use self::read::{Piece, Said, Vectors};
use super::body::Body;
use super::object::{members, string};
use super::write::{Members, object, quoted};
use super::{Api, Finish, Ids, finish, usage};

/// Why the body of a successful answer cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadAnswer {
    /// Not the shape of the dialect.
    #[error("answer is not what its dialect says: {0}")]
    Malformed(&'static str),
    /// A count of tokens that cannot be.
    #[error("answer counts tokens that cannot be")]
    AbsurdUsage,
    /// An answer without a reason to end, or with one that says that it failed.
    #[error("answer is not complete: {0}")]
    Incomplete(&'static str),
}

/// A whole answer of a provider.
#[derive(Debug, Clone)]
pub struct Answer {
    from: Api,
    op: Operation,
    body: Body,
    usage: Option<Usage>,
    finish: Finish,
    text_bytes: u64,
}

impl Answer {
    /// Reads the body of a 200.
    pub fn parse(from: Api, op: Operation, body: &Bytes) -> Result<Answer, BadAnswer> {
        let body = Body::of_provider(body).ok_or(BadAnswer::Malformed("not a JSON object"))?;
        if body.get("error").is_some() {
            return Err(BadAnswer::Malformed("an error"));
        }
        let (usage, finish, text_bytes) = match op {
            Operation::Embeddings => {
                let found = read::vectors(from, text(&body))?;
                (found.usage, Finish::Stop, 0)
            }
            Operation::Chat => {
                let said = read_chat(from, text(&body))?;
                let bytes = said.pieces.iter().map(Piece::bytes).sum();
                (said.usage, said.finish, bytes)
            }
        };
        Ok(Answer { from, op, body, usage, finish, text_bytes })
    }

    /// What the provider says was used; `None` where it says nothing.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// Usage to show where the provider says nothing and a dialect has to say something.
    pub fn estimate(&mut self, usage: Usage) {
        self.usage = self.usage.or(Some(usage));
    }

    /// Why it ended. Of several choices the first one's.
    #[must_use]
    pub fn finish(&self) -> Finish {
        self.finish
    }

    /// Bytes of text, thought and tool arguments, over all choices, for an estimate.
    #[must_use]
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// The answer for a client: in the provider's own dialect its text with the name of the model
    /// replaced, in another one translated. Thoughts become `reasoning_content` in OpenAI's
    /// dialect, and are left out in Anthropic's: there they carry a seal that only its own models
    /// can make, and one without it would spoil the rest of the conversation.
    #[must_use]
    pub fn render(&self, to: Api, as_model: &str, ids: &Ids) -> Vec<u8> {
        if self.op == Operation::Embeddings {
            return self.render_vectors(as_model, false);
        }
        if to == self.from {
            return self.body.with(&[("model", &quoted(as_model))]);
        }
        match read_chat(self.from, text(&self.body)) {
            Ok(said) => {
                let said = Said { usage: self.usage, ..said };
                if to == Api::Anthropic {
                    anthropic(&said, as_model, ids)
                } else {
                    openai(&said, as_model, ids)
                }
            }
            // It has been read before.
            Err(_) => self.body.bytes().to_vec(),
        }
    }

    /// As [`Answer::render`] for vectors, each as base64 of little-endian 32-bit floats where the
    /// client wants that and the provider has no such form.
    #[must_use]
    pub fn render_vectors(&self, as_model: &str, as_base64: bool) -> Vec<u8> {
        if self.from != Api::Gemini {
            return self.body.with(&[("model", &quoted(as_model))]);
        }
        match read::vectors(self.from, text(&self.body)) {
            Ok(vectors) => openai_vectors(&vectors, as_model, as_base64),
            Err(_) => self.body.bytes().to_vec(),
        }
    }
}

/// What was read as an object is UTF-8.
fn text(body: &Body) -> &str {
    std::str::from_utf8(body.bytes()).unwrap_or_default()
}

fn read_chat(from: Api, json: &str) -> Result<Said<'_>, BadAnswer> {
    match from {
        Api::OpenAi => read::openai(json),
        Api::Anthropic => read::anthropic(json),
        Api::Gemini => read::gemini(json),
    }
}

/// All text in one: this dialect has one content.
fn joined(pieces: &[Piece<'_>], is_wanted: impl Fn(&Piece<'_>) -> bool) -> Option<String> {
    let mut wanted = pieces.iter().filter(|piece| is_wanted(piece)).peekable();
    wanted.peek()?;
    let texts = wanted.map(|piece| match piece {
        Piece::Text(text) | Piece::Thought(text) => text.as_ref(),
        Piece::Refusal(text) => text,
        Piece::Call { .. } | Piece::Other(_) => "",
    });
    Some(texts.collect())
}

fn openai(said: &Said<'_>, as_model: &str, ids: &Ids) -> Vec<u8> {
    object(|body| {
        body.text("id", &format!("chatcmpl-{}", ids.unique));
        body.text("object", "chat.completion");
        body.raw("created", &ids.created_secs.to_string());
        body.text("model", as_model);
        body.array("choices", |list| {
            list.object(|choice| {
                choice.count("index", 0);
                choice.object("message", |message| openai_message(said, ids, message));
                choice.null("logprobs");
                choice.text("finish_reason", finish::openai(said.finish));
            });
        });
        if let Some(used) = &said.usage {
            body.object("usage", |out| usage::write_openai(used, out));
        }
    })
}

fn openai_message(said: &Said<'_>, ids: &Ids, message: &mut Members<'_>) {
    message.text("role", "assistant");
    match joined(&said.pieces, |piece| matches!(piece, Piece::Text(_))) {
        Some(text) => message.text("content", &text),
        None => message.null("content"),
    }
    message.null("refusal");
    let thought = joined(&said.pieces, |piece| matches!(piece, Piece::Thought(_)));
    message.some_text("reasoning_content", thought.as_deref());
    let is_call = |piece: &&Piece<'_>| matches!(piece, Piece::Call { .. });
    if !said.pieces.iter().any(|piece| is_call(&piece)) {
        return;
    }
    message.array("tool_calls", |list| {
        for (at, piece) in said.pieces.iter().filter(is_call).enumerate() {
            let Piece::Call { id, name, arguments, signature } = piece else { continue };
            list.object(|call| {
                call.text("id", &call_id(id, "call", ids, at));
                call.text("type", "function");
                call.object("function", |function| {
                    function.text("name", name);
                    function.text("arguments", arguments);
                });
                seal(signature.as_deref(), call);
            });
        }
    });
}

/// Gemini's seal, where Google's own endpoint in OpenAI's dialect puts it.
pub(super) fn seal(signature: Option<&str>, call: &mut Members<'_>) {
    if let Some(signature) = signature {
        call.object("extra_content", |extra| {
            extra.object("google", |google| google.text("thought_signature", signature));
        });
    }
}

/// The provider's id of a call, or one of ours.
pub(super) fn call_id(id: &str, prefix: &str, ids: &Ids, at: usize) -> String {
    if id.is_empty() { format!("{prefix}_{}_{at}", ids.unique) } else { id.to_owned() }
}

fn anthropic(said: &Said<'_>, as_model: &str, ids: &Ids) -> Vec<u8> {
    let declines = said.pieces.iter().any(|piece| matches!(piece, Piece::Refusal(_)));
    let finish = if declines { Finish::Refusal } else { said.finish };
    object(|body| {
        body.text("id", &format!("msg_{}", ids.unique));
        body.text("type", "message");
        body.text("role", "assistant");
        body.text("model", as_model);
        body.array("content", |blocks| {
            let mut calls = 0;
            for piece in &said.pieces {
                match piece {
                    Piece::Text(text) => blocks.object(|block| text_block(text, block)),
                    Piece::Refusal(text) => blocks.object(|block| text_block(text, block)),
                    Piece::Call { id, name, arguments, .. } => {
                        let id = call_id(id, "toolu", ids, calls);
                        calls += 1;
                        blocks.object(|block| {
                            block.text("type", "tool_use");
                            block.text("id", &id);
                            block.text("name", name);
                            input(arguments, block);
                        });
                    }
                    Piece::Thought(_) | Piece::Other(_) => {}
                }
            }
        });
        body.text("stop_reason", finish::anthropic(finish));
        body.null("stop_sequence");
        // Counts are no choice in this dialect; where there are none the caller has an estimate.
        let used = said.usage.unwrap_or_default();
        body.object("usage", |out| usage::write_anthropic(&used, out));
    })
}

fn text_block(text: &str, block: &mut Members<'_>) {
    block.text("type", "text");
    block.text("text", text);
}

/// Arguments that are no object cannot stand as input. The model wrote them and failed to; an empty
/// object in their place would be another call than the one it meant.
fn input(arguments: &str, block: &mut Members<'_>) {
    if arguments.trim().is_empty() {
        block.raw("input", "{}");
    } else if members(arguments).is_some() {
        block.raw("input", arguments);
    } else {
        block.object("input", |input| input.text("unreadable_arguments", arguments));
    }
}

fn openai_vectors(vectors: &Vectors<'_>, as_model: &str, as_base64: bool) -> Vec<u8> {
    object(|body| {
        body.text("object", "list");
        body.array("data", |list| {
            for (at, vector) in vectors.list.iter().enumerate() {
                list.object(|one| {
                    one.text("object", "embedding");
                    one.count("index", at as u64);
                    let packed = as_base64.then(|| packed(vector.get())).flatten();
                    match packed {
                        Some(base64) => one.text("embedding", &base64),
                        None => one.raw("embedding", vector.get()),
                    }
                });
            }
        });
        body.text("model", as_model);
        let used = vectors.usage.unwrap_or_default();
        body.object("usage", |out| {
            out.count("prompt_tokens", used.total());
            out.count("total_tokens", used.total());
        });
    })
}

fn packed(numbers: &str) -> Option<String> {
    if string(numbers).is_some() {
        return None;
    }
    let numbers: Vec<f32> = serde_json::from_str(numbers).ok()?;
    Some(super::embeddings::packed(&numbers))
}
