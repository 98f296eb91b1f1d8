//! How large a prompt can be at most.
//!
//! Owns: the bound, without a tokenizer: a token is at least one byte of what was sent, and what a
//! provider adds of its own has a limit. Refuses to know: which model it is for.
//!
//! Whatever is not known is counted by its whole text, so that a member of tomorrow cannot be a way
//! around a budget.

use serde_json::value::RawValue;

use crate::ai::body::Body;
use crate::ai::object::{elements, members, string};

/// What is written around one message.
const MESSAGE_TOKENS: u64 = 16;
/// What a provider tells its model about tools, beyond the tools themselves.
const TOOLS_TOKENS: u64 = 1_024;

/// The longest prompt of models that take documents, for those that nobody here has seen.
const CONTEXT_TOKENS: u64 = 200_000;

/// Members that hold no part of the prompt.
const NOT_SAID: &[&str] = &[
    "model",
    "messages",
    "system",
    "stream",
    "stream_options",
    "max_tokens",
    "max_completion_tokens",
    "temperature",
    "top_p",
    "top_k",
    "n",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "user",
    "metadata",
    "store",
    "service_tier",
    "logit_bias",
    "stop",
    "stop_sequences",
    "prompt_cache_key",
    "safety_identifier",
];

pub(super) fn input_tokens_max(body: &Body, picture_tokens_max: u64) -> u64 {
    let mut bound = MESSAGE_TOKENS;
    let rest = body.members().filter(|(name, _)| !NOT_SAID.contains(name));
    for (name, json) in rest {
        bound = bound.saturating_add(length(json));
        if name == "tools" || name == "functions" {
            bound = bound.saturating_add(TOOLS_TOKENS);
        }
    }
    if let Some(system) = body.get("system") {
        bound = bound.saturating_add(content(system, picture_tokens_max));
    }
    let messages = body.get("messages").and_then(elements).unwrap_or_default();
    for message in messages {
        let tokens = message_bound(message, picture_tokens_max);
        bound = bound.saturating_add(tokens).saturating_add(MESSAGE_TOKENS);
    }
    bound
}

fn length(json: &str) -> u64 {
    json.len() as u64
}

/// The text of a JSON string counts without its escapes, anything else as it is written.
fn text(json: &RawValue) -> u64 {
    string(json.get()).map_or_else(|| length(json.get()), |text| text.len() as u64)
}

fn message_bound(message: &RawValue, picture: u64) -> u64 {
    let Some(members) = members(message.get()) else { return length(message.get()) };
    let mut bound = 0u64;
    for (name, value) in members {
        bound = bound.saturating_add(match name.as_ref() {
            "role" => 0,
            "content" => content(value.get(), picture),
            _ => (name.len() as u64).saturating_add(text(value)),
        });
    }
    bound
}

/// A string, or an array of parts.
fn content(json: &str, picture: u64) -> u64 {
    if let Some(text) = string(json) {
        return text.len() as u64;
    }
    let Some(parts) = elements(json) else { return length(json) };
    parts.into_iter().map(|part| part_bound(part, picture)).fold(0, u64::saturating_add)
}

fn part_bound(part: &RawValue, picture: u64) -> u64 {
    let Some(members) = members(part.get()) else { return length(part.get()) };
    let kind = members.iter().find(|(name, _)| name == "type");
    let kind = kind.and_then(|(_, kind)| string(kind.get())).unwrap_or_default();
    let mut bound = 0u64;
    for (name, value) in members {
        bound = bound.saturating_add(match (kind.as_ref(), name.as_ref()) {
            (_, "type" | "cache_control") => 0,
            ("image_url", "image_url") => picture,
            ("file", "file") => document(value),
            ("image", "source") => source(value, picture),
            ("document", "source") => source(value, document(value)),
            ("tool_result", "content") => content(value.get(), picture),
            _ => (name.len() as u64).saturating_add(text(value)),
        });
    }
    bound
}

/// A document that comes along is bounded by its bytes; one that a provider fetches, by what a
/// model can read at all.
fn document(json: &RawValue) -> u64 {
    let is_elsewhere = |name: &str| matches!(name, "file_id" | "file_url" | "url");
    let members = members(json.get()).unwrap_or_default();
    let elsewhere = members.iter().any(|(name, _)| is_elsewhere(name));
    length(json.get()).max(if elsewhere { CONTEXT_TOKENS } else { 0 })
}

/// Anthropic's source of a picture or document; a document may also be plain text.
fn source(json: &RawValue, picture: u64) -> u64 {
    let kind = super::kind(json.get()).unwrap_or_default();
    match kind.as_ref() {
        "base64" | "url" | "file" => picture,
        _ => length(json.get()),
    }
}
