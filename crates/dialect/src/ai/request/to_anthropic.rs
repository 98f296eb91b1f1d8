//! Meaning as Anthropic's request.
//!
//! Owns: the shape, and the limit of an answer for which the client set none. Refuses to know: what
//! the client spoke.

use super::meaning::{Chat, Choice, Format, Outcome, Picture, Piece, Role, Thinking};
use crate::ai::write::{Elements, Members, object};

/// The limit has to be said in this dialect; what every model of the last years can do.
const OUTPUT_DEFAULT: u64 = 4_096;

/// The body; what cannot be said has been refused.
pub(super) fn write(chat: &Chat<'_>, model: &str) -> Vec<u8> {
    object(|body| {
        body.text("model", model);
        body.count("max_tokens", chat.output_max.unwrap_or(OUTPUT_DEFAULT));
        let system: Vec<&str> = chat.system.iter().map(AsRef::as_ref).collect();
        if !system.is_empty() {
            body.text("system", &system.join("\n\n"));
        }
        body.array("messages", |list| messages(chat, list));
        body.some_number("temperature", chat.temperature.as_ref());
        body.some_number("top_p", chat.top_p.as_ref());
        body.some_count("top_k", chat.top_k);
        body.some_texts("stop_sequences", &chat.stop);
        if chat.streams {
            body.flag("stream", true);
        }
        if matches!(chat.thinking, Thinking::Off) {
            body.object("thinking", |thinking| thinking.text("type", "disabled"));
        }
        output(chat, body);
        tools(chat, body);
    })
}

/// How hard to try, in this dialect's words.
pub(super) fn effort(word: &str) -> Option<&'static str> {
    match word {
        "minimal" | "low" => Some("low"),
        "medium" => Some("medium"),
        "high" => Some("high"),
        _ => None,
    }
}

fn output(chat: &Chat<'_>, body: &mut Members<'_>) {
    let effort = match &chat.thinking {
        Thinking::Effort(word) => effort(word),
        _ => None,
    };
    let schema = match &chat.format {
        Format::Schema { schema, .. } => Some(schema),
        _ => None,
    };
    if effort.is_none() && schema.is_none() {
        return;
    }
    body.object("output_config", |output| {
        output.some_text("effort", effort);
        if let Some(schema) = schema {
            output.object("format", |format| {
                format.text("type", "json_schema");
                format.raw("schema", schema.get());
            });
        }
    });
}

fn tools(chat: &Chat<'_>, body: &mut Members<'_>) {
    if chat.tools.is_empty() {
        return;
    }
    body.array("tools", |list| {
        for tool in &chat.tools {
            list.object(|one| {
                one.text("name", &tool.name);
                one.some_text("description", tool.description.as_deref());
                match tool.schema {
                    Some(schema) => one.raw("input_schema", schema.get()),
                    None => one.object("input_schema", |schema| schema.text("type", "object")),
                }
                if tool.is_strict {
                    one.flag("strict", true);
                }
            });
        }
    });
    let one_at_a_time = chat.parallel == Some(false);
    let choice = match &chat.choice {
        None if !one_at_a_time => return,
        None | Some(Choice::Auto) => "auto",
        Some(Choice::None) => "none",
        Some(Choice::Any) => "any",
        Some(Choice::Tool(_)) => "tool",
    };
    body.object("tool_choice", |inner| {
        inner.text("type", choice);
        if let Some(Choice::Tool(name)) = &chat.choice {
            inner.text("name", name);
        }
        if one_at_a_time && choice != "none" {
            inner.flag("disable_parallel_tool_use", true);
        }
    });
}

fn messages(chat: &Chat<'_>, list: &mut Elements<'_>) {
    let is_empty = |piece: &Piece<'_>| matches!(piece, Piece::Text(text) if text.is_empty());
    for (at, turn) in chat.turns.iter().enumerate() {
        // A message without content is refused there, and says nothing.
        if turn.pieces.iter().all(is_empty) {
            continue;
        }
        let is_last = at + 1 == chat.turns.len();
        list.object(|message| {
            message.text("role", if turn.role == Role::User { "user" } else { "assistant" });
            message.array("content", |blocks| {
                for (at, piece) in turn.pieces.iter().enumerate() {
                    // The last word of an answer that is begun must not end with a space.
                    let is_begun = is_last && turn.role == Role::Assistant;
                    block(piece, is_begun && at + 1 == turn.pieces.len(), blocks);
                }
            });
        });
    }
}

fn block(piece: &Piece<'_>, is_begun: bool, blocks: &mut Elements<'_>) {
    match piece {
        Piece::Text(text) => {
            let text = if is_begun { text.trim_end() } else { text };
            // A block without text is refused there, and says nothing.
            if !text.is_empty() {
                text_block(text, blocks);
            }
        }
        Piece::Picture(picture) => picture_block(picture, blocks),
        Piece::Call(call) => blocks.object(|block| {
            block.text("type", "tool_use");
            block.text("id", &plain_id(&call.id));
            block.text("name", &call.name);
            block.raw("input", &call.arguments);
        }),
        Piece::Outcome(outcome) => outcome_block(outcome, blocks),
    }
}

fn text_block(text: &str, blocks: &mut Elements<'_>) {
    blocks.object(|block| {
        block.text("type", "text");
        block.text("text", text);
    });
}

fn picture_block(picture: &Picture<'_>, blocks: &mut Elements<'_>) {
    blocks.object(|block| {
        block.text("type", "image");
        block.object("source", |source| match picture {
            Picture::Url(url) => {
                source.text("type", "url");
                source.text("url", url);
            }
            Picture::Data { media_type, base64 } => {
                source.text("type", "base64");
                source.text("media_type", media_type);
                source.text("data", base64);
            }
        });
    });
}

fn outcome_block(outcome: &Outcome<'_>, blocks: &mut Elements<'_>) {
    blocks.object(|block| {
        block.text("type", "tool_result");
        block.text("tool_use_id", &plain_id(&outcome.call_id));
        block.array("content", |inner| {
            outcome
                .texts
                .iter()
                .filter(|text| !text.is_empty())
                .for_each(|text| text_block(text, inner));
            outcome.pictures.iter().for_each(|picture| picture_block(picture, inner));
        });
        if outcome.is_error {
            block.flag("is_error", true);
        }
    });
}

/// Ids of calls are letters, digits, `_` and `-` here; others use more.
fn plain_id(id: &str) -> String {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || letter == '_' || letter == '-';
    id.chars().map(|letter| if plain(letter) { letter } else { '_' }).collect()
}
