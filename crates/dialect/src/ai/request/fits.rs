//! What of a request's meaning a dialect has no words for.
//!
//! Owns: the refusals of each dialect, before anything is written. Refuses to know: how it is
//! written.

use super::meaning::{Chat, Format, Picture, Piece, Thinking};
use crate::ai::object::unsupported;
use crate::ai::{Api, Unsupported};

/// Texts to stop at that OpenAI takes.
const OPENAI_STOPS: usize = 4;
/// Texts to stop at that Gemini takes.
const GEMINI_STOPS: usize = 5;

const NO_WORD: &str = "cannot be said to the model's provider";

/// Refuses by the name that the client, who speaks `from`, gave it.
pub(super) fn check(chat: &Chat<'_>, from: Api, to: Api) -> Result<(), Unsupported> {
    match to {
        Api::OpenAi => openai(chat, from),
        Api::Anthropic => anthropic(chat),
        Api::Gemini => gemini(chat, from),
    }
}

fn openai(chat: &Chat<'_>, from: Api) -> Result<(), Unsupported> {
    if chat.top_k.is_some() {
        return Err(unsupported("top_k", NO_WORD));
    }
    if chat.stop.len() > OPENAI_STOPS {
        return Err(unsupported(stop_name(from), "must hold at most 4 for the model's provider"));
    }
    match &chat.thinking {
        Thinking::Budget(_) => return Err(unsupported("thinking.budget_tokens", NO_WORD)),
        Thinking::Effort(word) if word == "max" => {
            return Err(unsupported(effort_name(from), NO_WORD));
        }
        _ => {}
    }
    outcomes_are_text(chat)
}

fn anthropic(chat: &Chat<'_>) -> Result<(), Unsupported> {
    if chat.temperature.as_ref().and_then(|number| number.as_f64()).is_some_and(|it| it > 1.0) {
        return Err(unsupported("temperature", "must be at most 1 for the model's provider"));
    }
    if chat.seed.is_some() {
        return Err(unsupported("seed", NO_WORD));
    }
    for (name, number) in [
        ("presence_penalty", &chat.presence_penalty),
        ("frequency_penalty", &chat.frequency_penalty),
    ] {
        if number.as_ref().is_some_and(|number| number.as_f64() != Some(0.0)) {
            return Err(unsupported(name, NO_WORD));
        }
    }
    // An answer that is JSON of any shape cannot be asked for, one of a schema can.
    if matches!(chat.format, Format::Json) {
        return Err(unsupported("response_format", "json_object cannot be said to the provider"));
    }
    match &chat.thinking {
        Thinking::Effort(word) if super::to_anthropic::effort(word).is_none() => {
            Err(unsupported("reasoning_effort", NO_WORD))
        }
        _ => Ok(()),
    }
}

fn gemini(chat: &Chat<'_>, from: Api) -> Result<(), Unsupported> {
    if chat.stop.len() > GEMINI_STOPS {
        return Err(unsupported(stop_name(from), "must hold at most 5 for the model's provider"));
    }
    if chat.parallel == Some(false) && !chat.tools.is_empty() {
        let name = if from == Api::OpenAi {
            "parallel_tool_calls"
        } else {
            "tool_choice.disable_parallel_tool_use"
        };
        return Err(unsupported(name, NO_WORD));
    }
    if let Thinking::Effort(word) = &chat.thinking
        && super::to_gemini::budget(word).is_none()
    {
        return Err(unsupported(effort_name(from), NO_WORD));
    }
    let calls = chat.tools_of_calls();
    for piece in chat.turns.iter().flat_map(|turn| &turn.pieces) {
        match piece {
            Piece::Picture(Picture::Url(_)) => {
                let name = if from == Api::OpenAi { "image_url.url" } else { "source.url" };
                return Err(unsupported(name, "must be base64 data for the model's provider"));
            }
            Piece::Outcome(outcome) if !calls.contains_key(outcome.call_id.as_ref()) => {
                let name = if from == Api::OpenAi { "tool_call_id" } else { "tool_use_id" };
                return Err(unsupported(name, "must be the id of a call of the conversation"));
            }
            _ => {}
        }
    }
    outcomes_are_text(chat)
}

fn outcomes_are_text(chat: &Chat<'_>) -> Result<(), Unsupported> {
    let has_picture = chat
        .turns
        .iter()
        .flat_map(|turn| &turn.pieces)
        .any(|piece| matches!(piece, Piece::Outcome(outcome) if !outcome.pictures.is_empty()));
    if has_picture {
        return Err(unsupported("tool_result.content", "must be text for the model's provider"));
    }
    Ok(())
}

fn stop_name(from: Api) -> &'static str {
    if from == Api::OpenAi { "stop" } else { "stop_sequences" }
}

fn effort_name(from: Api) -> &'static str {
    if from == Api::OpenAi { "reasoning_effort" } else { "output_config.effort" }
}
