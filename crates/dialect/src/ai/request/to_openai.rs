//! Meaning as OpenAI's request.
//!
//! Owns: the shape. Refuses to know: what the client spoke.

use super::meaning::{Chat, Choice, Format, Outcome, Picture, Piece, Role, Thinking, Turn};
use crate::ai::write::{Elements, Members, object};

/// The body; what cannot be said has been refused.
pub(super) fn write(chat: &Chat<'_>, model: &str, is_continued: bool) -> Vec<u8> {
    object(|body| {
        body.text("model", model);
        body.array("messages", |list| messages(chat, is_continued, list));
        body.some_count("max_completion_tokens", chat.output_max);
        body.some_number("temperature", chat.temperature.as_ref());
        body.some_number("top_p", chat.top_p.as_ref());
        body.some_texts("stop", &chat.stop);
        if chat.streams {
            body.flag("stream", true);
            body.object("stream_options", |options| options.flag("include_usage", true));
        }
        if let Thinking::Effort(word) = &chat.thinking {
            body.text("reasoning_effort", word);
        }
        format(chat, body);
        tools(chat, body);
    })
}

fn format(chat: &Chat<'_>, body: &mut Members<'_>) {
    match &chat.format {
        Format::Text => {}
        Format::Json => body.object("response_format", |format| format.text("type", "json_object")),
        Format::Schema { name, schema, is_strict } => body.object("response_format", |format| {
            format.text("type", "json_schema");
            format.object("json_schema", |inner| {
                inner.text("name", name.as_deref().unwrap_or("response"));
                inner.flag("strict", *is_strict);
                inner.raw("schema", schema.get());
            });
        }),
    }
}

fn tools(chat: &Chat<'_>, body: &mut Members<'_>) {
    if chat.tools.is_empty() {
        return;
    }
    body.array("tools", |list| {
        for tool in &chat.tools {
            list.object(|one| {
                one.text("type", "function");
                one.object("function", |function| {
                    function.text("name", &tool.name);
                    function.some_text("description", tool.description.as_deref());
                    if let Some(schema) = tool.schema {
                        function.raw("parameters", schema.get());
                    }
                    if tool.is_strict {
                        function.flag("strict", true);
                    }
                });
            });
        }
    });
    match &chat.choice {
        None => {}
        Some(Choice::Auto) => body.text("tool_choice", "auto"),
        Some(Choice::None) => body.text("tool_choice", "none"),
        Some(Choice::Any) => body.text("tool_choice", "required"),
        Some(Choice::Tool(name)) => body.object("tool_choice", |choice| {
            choice.text("type", "function");
            choice.object("function", |function| function.text("name", name));
        }),
    }
    if let Some(parallel) = chat.parallel {
        body.flag("parallel_tool_calls", parallel);
    }
}

fn messages(chat: &Chat<'_>, is_continued: bool, list: &mut Elements<'_>) {
    for text in &chat.system {
        list.object(|message| {
            message.text("role", "system");
            message.text("content", text);
        });
    }
    for (at, turn) in chat.turns.iter().enumerate() {
        match turn.role {
            Role::User => user(turn, list),
            Role::Assistant => assistant(turn, is_continued && at + 1 == chat.turns.len(), list),
        }
    }
}

/// Outcomes of calls are messages of their own here, so that a turn becomes several.
fn user(turn: &Turn<'_>, list: &mut Elements<'_>) {
    let is_outcome = |piece: &Piece<'_>| matches!(piece, Piece::Outcome(_));
    for run in turn.pieces.chunk_by(|a, b| !is_outcome(a) && !is_outcome(b)) {
        match run {
            [Piece::Outcome(found)] => outcome(found, list),
            [Piece::Text(text)] => list.object(|message| {
                message.text("role", "user");
                message.text("content", text);
            }),
            pieces => list.object(|message| {
                message.text("role", "user");
                message.array("content", |parts| pieces.iter().for_each(|one| part(one, parts)));
            }),
        }
    }
}

fn part(piece: &Piece<'_>, parts: &mut Elements<'_>) {
    match piece {
        Piece::Text(text) => parts.object(|part| {
            part.text("type", "text");
            part.text("text", text);
        }),
        Piece::Picture(picture) => parts.object(|part| {
            part.text("type", "image_url");
            part.object("image_url", |inner| match picture {
                Picture::Url(url) => inner.text("url", url),
                Picture::Data { media_type, base64 } => {
                    inner.text("url", &format!("data:{media_type};base64,{base64}"));
                }
            });
        }),
        // Neither stands in what a user says.
        Piece::Call(_) | Piece::Outcome(_) => {}
    }
}

fn outcome(outcome: &Outcome<'_>, list: &mut Elements<'_>) {
    list.object(|message| {
        message.text("role", "tool");
        message.text("tool_call_id", &outcome.call_id);
        // That it failed has no word here; the text of a failure says so itself.
        message.text("content", &outcome.texts.join("\n"));
    });
}

fn assistant(turn: &Turn<'_>, is_begun: bool, list: &mut Elements<'_>) {
    let texts: Vec<&str> = turn
        .pieces
        .iter()
        .filter_map(|piece| match piece {
            Piece::Text(text) => Some(text.as_ref()),
            _ => None,
        })
        .collect();
    let calls = || {
        turn.pieces.iter().filter_map(|piece| match piece {
            Piece::Call(call) => Some(call),
            _ => None,
        })
    };
    list.object(|message| {
        message.text("role", "assistant");
        if texts.is_empty() {
            message.null("content");
        } else {
            message.text("content", &texts.concat());
        }
        if calls().next().is_some() {
            message.array("tool_calls", |list| {
                for call in calls() {
                    list.object(|one| {
                        one.text("id", &call.id);
                        one.text("type", "function");
                        one.object("function", |function| {
                            function.text("name", &call.name);
                            function.text("arguments", &call.arguments);
                        });
                    });
                }
            });
        }
        if is_begun {
            message.flag("prefix", true);
        }
    });
}
