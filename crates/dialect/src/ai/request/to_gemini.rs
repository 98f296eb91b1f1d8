//! Meaning as Gemini's request.
//!
//! Owns: the shape, and which models want a seal on calls. Refuses to know: what the client spoke.

use std::collections::HashMap;

use super::meaning::{Call, Chat, Choice, Format, Outcome, Picture, Piece, Role, Thinking};
use crate::ai::gemini_path;
use crate::ai::write::{Elements, Members, object};

/// What Google's documentation says to put on a call that another model made, for which there is no
/// seal: without one the models that want it refuse the whole conversation.
const NO_SEAL: &str = "skip_thought_signature_validator";

/// The path behind the base address.
pub(super) fn path(model: &str, streams: bool) -> String {
    let verb = if streams { "streamGenerateContent?alt=sse" } else { "generateContent" };
    gemini_path(model, verb)
}

/// Tokens of thought for OpenAI's word, as Google's own endpoint in that dialect translates them.
pub(super) fn budget(effort: &str) -> Option<u64> {
    match effort {
        "minimal" | "low" => Some(1_024),
        "medium" => Some(8_192),
        "high" => Some(24_576),
        _ => None,
    }
}

/// The body; what cannot be said has been refused.
pub(super) fn write(chat: &Chat<'_>, model: &str) -> Vec<u8> {
    let wants_seal = !(model.starts_with("gemini-1") || model.starts_with("gemini-2"));
    object(|body| {
        if !chat.system.is_empty() {
            body.object("systemInstruction", |system| {
                system.array("parts", |parts| {
                    chat.system.iter().for_each(|text| text_part(text, parts));
                });
            });
        }
        let calls = chat.tools_of_calls();
        body.array("contents", |list| {
            for turn in &chat.turns {
                list.object(|content| {
                    content.text("role", if turn.role == Role::User { "user" } else { "model" });
                    content.array("parts", |parts| {
                        let mut is_first_call = wants_seal;
                        for piece in &turn.pieces {
                            part(&calls, piece, &mut is_first_call, parts);
                        }
                    });
                });
            }
        });
        tools(chat, body);
        body.object("generationConfig", |config| generation(chat, config));
    })
}

fn generation(chat: &Chat<'_>, config: &mut Members<'_>) {
    config.some_count("maxOutputTokens", chat.output_max);
    config.some_number("temperature", chat.temperature.as_ref());
    config.some_number("topP", chat.top_p.as_ref());
    config.some_count("topK", chat.top_k);
    config.some_number("seed", chat.seed.as_ref());
    config.some_number("presencePenalty", chat.presence_penalty.as_ref());
    config.some_number("frequencyPenalty", chat.frequency_penalty.as_ref());
    config.some_texts("stopSequences", &chat.stop);
    match &chat.format {
        Format::Text => {}
        Format::Json => config.text("responseMimeType", "application/json"),
        Format::Schema { schema, .. } => {
            config.text("responseMimeType", "application/json");
            // Takes JSON Schema as it is; `responseSchema` takes a dialect of its own.
            config.raw("responseJsonSchema", schema.get());
        }
    }
    // Thoughts are not asked for: the client that names a budget speaks the dialect in which only
    // its own models' thoughts can be shown.
    let tokens = match &chat.thinking {
        Thinking::Unsaid => None,
        Thinking::Off => Some(0),
        Thinking::Effort(word) => budget(word),
        Thinking::Budget(tokens) => Some(*tokens),
    };
    if tokens.is_some() {
        config.object("thinkingConfig", |thinking| thinking.some_count("thinkingBudget", tokens));
    }
}

fn tools(chat: &Chat<'_>, body: &mut Members<'_>) {
    if chat.tools.is_empty() {
        return;
    }
    body.array("tools", |list| {
        list.object(|tools| {
            tools.array("functionDeclarations", |list| {
                for tool in &chat.tools {
                    list.object(|one| {
                        one.text("name", &tool.name);
                        one.some_text("description", tool.description.as_deref());
                        if let Some(schema) = tool.schema {
                            one.raw("parametersJsonSchema", schema.get());
                        }
                    });
                }
            });
        });
    });
    let mode = match &chat.choice {
        None => return,
        Some(Choice::Auto) => "AUTO",
        Some(Choice::None) => "NONE",
        Some(Choice::Any | Choice::Tool(_)) => "ANY",
    };
    body.object("toolConfig", |config| {
        config.object("functionCallingConfig", |calling| {
            calling.text("mode", mode);
            if let Some(Choice::Tool(name)) = &chat.choice {
                calling.some_texts("allowedFunctionNames", &[name]);
            }
        });
    });
}

fn text_part(text: &str, parts: &mut Elements<'_>) {
    parts.object(|part| part.text("text", text));
}

/// `is_first_call` is for models that want a seal: only the first of several calls carries one.
fn part(
    calls: &HashMap<&str, &str>,
    piece: &Piece<'_>,
    is_first_call: &mut bool,
    parts: &mut Elements<'_>,
) {
    match piece {
        Piece::Text(text) => text_part(text, parts),
        Piece::Picture(picture) => parts.object(|part| match picture {
            Picture::Data { media_type, base64 } => part.object("inlineData", |data| {
                data.text("mimeType", media_type);
                data.text("data", base64);
            }),
            Picture::Url(url) => part.object("fileData", |data| data.text("fileUri", url)),
        }),
        Piece::Call(found) => {
            let seal = std::mem::replace(is_first_call, false).then_some(NO_SEAL);
            parts.object(|part| call(found, found.signature.as_deref().or(seal), part));
        }
        Piece::Outcome(found) => {
            let name = calls.get(found.call_id.as_ref()).copied().unwrap_or_default();
            parts.object(|part| outcome(found, name, part));
        }
    }
}

fn call(call: &Call<'_>, seal: Option<&str>, part: &mut Members<'_>) {
    part.object("functionCall", |inner| {
        inner.text("id", &call.id);
        inner.text("name", &call.name);
        inner.raw("args", &call.arguments);
    });
    part.some_text("thoughtSignature", seal);
}

fn outcome(outcome: &Outcome<'_>, name: &str, part: &mut Members<'_>) {
    part.object("functionResponse", |inner| {
        inner.text("id", &outcome.call_id);
        inner.text("name", name);
        // The two names under which the documentation says that it is looked for.
        let member = if outcome.is_error { "error" } else { "output" };
        inner.object("response", |response| response.text(member, &outcome.texts.join("\n")));
    });
}
