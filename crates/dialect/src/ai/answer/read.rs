//! A whole answer as meaning.
//!
//! Owns: the members of each dialect's answer that are looked at; all others are let be.
//! Refuses to know: how it is written for a client.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use types::Usage;

use super::BadAnswer;
use crate::ai::finish::{Ending, read as read_finish};
use crate::ai::object::{elements, string};
use crate::ai::{Api, Finish, usage};

/// What an answer says, in order.
#[derive(Debug)]
pub(super) struct Said<'a> {
    pub(super) pieces: Vec<Piece<'a>>,
    pub(super) finish: Finish,
    pub(super) usage: Option<Usage>,
}

/// A piece of it.
#[derive(Debug)]
pub(super) enum Piece<'a> {
    Text(Cow<'a, str>),
    Refusal(String),
    Thought(Cow<'a, str>),
    Call {
        /// Empty where the provider gives none.
        id: String,
        name: String,
        arguments: Cow<'a, str>,
        signature: Option<String>,
    },
    /// Something that has no word in another dialect.
    Other(&'a str),
}

impl Piece<'_> {
    pub(super) fn bytes(&self) -> u64 {
        (match self {
            Piece::Text(text) | Piece::Thought(text) => text.len(),
            Piece::Refusal(text) => text.len(),
            Piece::Call { name, arguments, .. } => name.len() + arguments.len(),
            Piece::Other(json) => json.len(),
        }) as u64
    }
}

const MALFORMED: BadAnswer = BadAnswer::Malformed("not the members of an answer");

fn parse<'a, T: Deserialize<'a>>(json: &'a str) -> Result<T, BadAnswer> {
    serde_json::from_str(json).map_err(|_| MALFORMED)
}

fn ending(from: Api, word: Option<&str>) -> Result<Finish, BadAnswer> {
    match word.map(|word| read_finish(from, word)) {
        Some(Ending::Finish(finish)) => Ok(finish),
        Some(Ending::Failed) => Err(BadAnswer::Incomplete("it ended in a failure")),
        None => Err(BadAnswer::Incomplete("no reason to end")),
    }
}

#[derive(Deserialize)]
struct OpenAi<'a> {
    #[serde(borrow)]
    choices: Vec<OpenAiChoice<'a>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct OpenAiChoice<'a> {
    #[serde(borrow)]
    message: OpenAiMessage<'a>,
    #[serde(default)]
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct OpenAiMessage<'a> {
    #[serde(borrow, default)]
    content: Option<&'a RawValue>,
    #[serde(default)]
    refusal: Option<String>,
    /// Two names for one thing, by provider, and not always text.
    #[serde(borrow, default)]
    reasoning_content: Option<&'a RawValue>,
    #[serde(borrow, default)]
    reasoning: Option<&'a RawValue>,
    #[serde(borrow, default)]
    tool_calls: Option<Vec<OpenAiCall<'a>>>,
    #[serde(borrow, default)]
    audio: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct OpenAiCall<'a> {
    #[serde(default)]
    id: Option<String>,
    #[serde(borrow, default)]
    function: Option<OpenAiFunction<'a>>,
}

#[derive(Deserialize)]
struct OpenAiFunction<'a> {
    name: String,
    #[serde(borrow, default)]
    arguments: Option<&'a RawValue>,
}

pub(super) fn openai(json: &str) -> Result<Said<'_>, BadAnswer> {
    let answer: OpenAi<'_> = parse(json)?;
    let usage = match answer.usage {
        Some(json) => usage::openai(json.get()).map_err(|_| BadAnswer::AbsurdUsage)?,
        None => None,
    };
    let mut said = Said { pieces: Vec::new(), finish: Finish::Stop, usage };
    if answer.choices.is_empty() {
        return Err(BadAnswer::Malformed("no choices"));
    }
    for (at, choice) in answer.choices.into_iter().enumerate() {
        let finish = ending(Api::OpenAi, choice.finish_reason.as_deref())?;
        if at == 0 {
            said.finish = finish;
        }
        openai_message(choice.message, &mut said.pieces);
    }
    let has_call = said.pieces.iter().any(|piece| matches!(piece, Piece::Call { .. }));
    // Some say "stop" beside the calls that they ask for.
    if said.finish == Finish::Stop && has_call {
        said.finish = Finish::ToolCalls;
    }
    Ok(said)
}

fn openai_message<'a>(message: OpenAiMessage<'a>, pieces: &mut Vec<Piece<'a>>) {
    let thought = message.reasoning_content.or(message.reasoning);
    pieces.extend(thought.and_then(|json| string(json.get())).map(Piece::Thought));
    if let Some(content) = message.content {
        match string(content.get()) {
            Some(text) if text.is_empty() => {}
            Some(text) => pieces.push(Piece::Text(text)),
            None => pieces.push(Piece::Other(content.get())),
        }
    }
    if let Some(refusal) = message.refusal {
        pieces.push(Piece::Refusal(refusal));
    }
    if let Some(audio) = message.audio {
        pieces.push(Piece::Other(audio.get()));
    }
    for call in message.tool_calls.unwrap_or_default() {
        let Some(function) = call.function else { continue };
        let arguments = function.arguments.map_or("{}", RawValue::get);
        pieces.push(Piece::Call {
            id: call.id.unwrap_or_default(),
            name: function.name,
            // Text that holds JSON; a few send the JSON itself.
            arguments: string(arguments).unwrap_or(Cow::Borrowed(arguments)),
            signature: None,
        });
    }
}

#[derive(Deserialize)]
struct Anthropic<'a> {
    #[serde(borrow)]
    content: Vec<&'a RawValue>,
    #[serde(default)]
    stop_reason: Option<String>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct AnthropicBlock<'a> {
    r#type: String,
    #[serde(borrow, default)]
    text: Cow<'a, str>,
    #[serde(borrow, default)]
    thinking: Cow<'a, str>,
    #[serde(default)]
    id: String,
    #[serde(default)]
    name: String,
    #[serde(borrow, default)]
    input: Option<&'a RawValue>,
}

pub(super) fn anthropic(json: &str) -> Result<Said<'_>, BadAnswer> {
    let answer: Anthropic<'_> = parse(json)?;
    let usage = match answer.usage {
        Some(json) => {
            usage::Anthropic::read(json.get()).map_err(|_| BadAnswer::AbsurdUsage)?.usage()
        }
        None => None,
    };
    let finish = ending(Api::Anthropic, answer.stop_reason.as_deref())?;
    let mut pieces = Vec::new();
    for json in answer.content {
        let block: AnthropicBlock<'_> = parse(json.get())?;
        pieces.push(match block.r#type.as_str() {
            "text" => Piece::Text(block.text),
            "thinking" => Piece::Thought(block.thinking),
            // Sealed, and nothing to read.
            "redacted_thinking" => continue,
            "tool_use" => Piece::Call {
                id: block.id,
                name: block.name,
                arguments: Cow::Borrowed(block.input.map_or("{}", RawValue::get)),
                signature: None,
            },
            _ => Piece::Other(json.get()),
        });
    }
    Ok(Said { pieces, finish, usage })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::ai) struct Gemini<'a> {
    #[serde(borrow, default)]
    pub(in crate::ai) candidates: Vec<GeminiCandidate<'a>>,
    #[serde(borrow, default)]
    pub(in crate::ai) usage_metadata: Option<&'a RawValue>,
    #[serde(default)]
    pub(in crate::ai) prompt_feedback: Option<GeminiFeedback>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::ai) struct GeminiFeedback {
    #[serde(default)]
    pub(in crate::ai) block_reason: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::ai) struct GeminiCandidate<'a> {
    #[serde(borrow, default)]
    pub(in crate::ai) content: Option<GeminiContent<'a>>,
    #[serde(default)]
    pub(in crate::ai) finish_reason: Option<String>,
}

#[derive(Deserialize)]
pub(in crate::ai) struct GeminiContent<'a> {
    #[serde(borrow, default)]
    pub(in crate::ai) parts: Vec<GeminiPart<'a>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::ai) struct GeminiPart<'a> {
    #[serde(default)]
    pub(in crate::ai) text: Option<String>,
    #[serde(default)]
    pub(in crate::ai) thought: bool,
    #[serde(default)]
    pub(in crate::ai) thought_signature: Option<String>,
    #[serde(borrow, default)]
    pub(in crate::ai) function_call: Option<GeminiCall<'a>>,
}

#[derive(Deserialize)]
pub(in crate::ai) struct GeminiCall<'a> {
    #[serde(default)]
    pub(in crate::ai) id: String,
    pub(in crate::ai) name: String,
    #[serde(borrow, default)]
    pub(in crate::ai) args: Option<&'a RawValue>,
}

pub(super) fn gemini(json: &str) -> Result<Said<'_>, BadAnswer> {
    let answer: Gemini<'_> = parse(json)?;
    let usage = match answer.usage_metadata {
        Some(json) => usage::gemini(json.get()).map_err(|_| BadAnswer::AbsurdUsage)?,
        None => None,
    };
    let mut said = Said { pieces: Vec::new(), finish: Finish::ContentFilter, usage };
    let Some(candidate) = answer.candidates.into_iter().next() else {
        // A prompt that is not answered is an answer: it says why not.
        return match answer.prompt_feedback.and_then(|feedback| feedback.block_reason) {
            Some(_) => Ok(said),
            None => Err(BadAnswer::Malformed("no candidates")),
        };
    };
    said.finish = ending(Api::Gemini, candidate.finish_reason.as_deref())?;
    for part in candidate.content.map(|content| content.parts).unwrap_or_default() {
        if let Some(call) = part.function_call {
            said.pieces.push(Piece::Call {
                id: call.id,
                name: call.name,
                arguments: Cow::Borrowed(call.args.map_or("{}", RawValue::get)),
                signature: part.thought_signature,
            });
            if said.finish == Finish::Stop {
                said.finish = Finish::ToolCalls;
            }
        } else {
            match part.text {
                Some(text) if part.thought => said.pieces.push(Piece::Thought(text.into())),
                Some(text) if !text.is_empty() => said.pieces.push(Piece::Text(text.into())),
                _ => {}
            }
        }
    }
    Ok(said)
}

/// Vectors, each as JSON: an array of numbers, or OpenAI's base64 text.
pub(super) struct Vectors<'a> {
    pub(super) list: Vec<&'a RawValue>,
    pub(super) usage: Option<Usage>,
}

#[derive(Deserialize)]
struct OpenAiVectors<'a> {
    #[serde(borrow)]
    data: Vec<OpenAiVector<'a>>,
    #[serde(borrow, default)]
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct OpenAiVector<'a> {
    #[serde(borrow)]
    embedding: &'a RawValue,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct GeminiVectors<'a> {
    #[serde(borrow)]
    embeddings: Vec<GeminiVector<'a>>,
    #[serde(borrow, default)]
    usage_metadata: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct GeminiVector<'a> {
    #[serde(borrow)]
    values: &'a RawValue,
}

pub(super) fn vectors(from: Api, json: &str) -> Result<Vectors<'_>, BadAnswer> {
    let (list, usage): (Vec<_>, _) = match from {
        Api::Gemini => {
            let answer: GeminiVectors<'_> = parse(json)?;
            let usage = answer.usage_metadata.map(|json| usage::gemini(json.get()));
            (answer.embeddings.into_iter().map(|one| one.values).collect(), usage)
        }
        Api::OpenAi | Api::Anthropic => {
            let answer: OpenAiVectors<'_> = parse(json)?;
            let usage = answer.usage.map(|json| usage::openai(json.get()));
            (answer.data.into_iter().map(|one| one.embedding).collect(), usage)
        }
    };
    let is_vector = |json: &&RawValue| json.get().starts_with(['[', '"']);
    if list.is_empty() || !list.iter().all(is_vector) {
        return Err(BadAnswer::Malformed("no vectors"));
    }
    if from == Api::Gemini && !list.iter().all(|json| elements(json.get()).is_some()) {
        return Err(BadAnswer::Malformed("no vectors"));
    }
    let usage = usage.transpose().map_err(|_| BadAnswer::AbsurdUsage)?.flatten();
    Ok(Vectors { list, usage })
}
