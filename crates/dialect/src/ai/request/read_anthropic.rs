//! Anthropic's request as meaning.
//!
//! Owns: the members that are understood, and the list of hints that may be lost. Refuses to know:
//! which dialect it is going to be written in.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::meaning::{Call, Chat, Choice, Format, Outcome, Picture, Piece, Role, Thinking, Tool};
use crate::ai::Unsupported;
use crate::ai::object::{Object, list, string, unsupported};

/// Members that change no answer: labels for the account, caches and who is served how fast.
const HINTS: &[&str] = &["model", "metadata", "service_tier", "cache_control", "inference_geo"];

/// The same for a block of content.
const BLOCK_HINTS: &[&str] = &["cache_control", "citations"];

const REFUSED: &str = "cannot be said to the model's provider";

type Read<T> = Result<T, Unsupported>;

/// Reads the whole.
pub(super) fn read(json: &str) -> Read<Chat<'_>> {
    let mut body = Object::read("", json)?;
    body.drop_hints(HINTS);
    let mut chat = Chat {
        streams: body.flag("stream")?.unwrap_or(false),
        temperature: body.number("temperature")?,
        top_p: body.number("top_p")?,
        top_k: body.count("top_k")?,
        output_max: body.count("max_tokens")?,
        ..Chat::default()
    };
    for (path, one) in body.list("stop_sequences")? {
        let text = string(one.get());
        chat.stop.push(text.ok_or_else(|| unsupported(path, "must be a string"))?);
    }
    read_system(&mut chat, &mut body)?;
    chat.thinking = thinking(&mut body)?;
    chat.format = format(&mut body, &mut chat.thinking)?;
    for (path, tool) in body.list("tools")? {
        chat.tools.push(read_tool(path, tool)?);
    }
    read_choice(&mut chat, &mut body)?;
    for (path, message) in body.list("messages")? {
        read_message(&mut chat, path, message)?;
    }
    body.end()?;
    Ok(chat)
}

fn read_system<'a>(chat: &mut Chat<'a>, body: &mut Object<'a>) -> Read<()> {
    let Some(value) = body.take("system") else { return Ok(()) };
    if let Some(text) = string(value.get()) {
        chat.system.push(text);
        return Ok(());
    }
    for (path, block) in list(&body.at("system"), value)? {
        let mut block = Object::read(path, block.get())?;
        block.drop_hints(BLOCK_HINTS);
        if block.needed_text("type")? != "text" {
            return Err(block.unsupported("type", "must be text"));
        }
        chat.system.push(block.needed_text("text")?);
        block.end()?;
    }
    Ok(())
}

fn thinking<'a>(body: &mut Object<'a>) -> Read<Thinking<'a>> {
    let Some(mut thinking) = body.object("thinking")? else { return Ok(Thinking::Unsaid) };
    // Whether thoughts are shown in full.
    thinking.drop_hints(&["display"]);
    let kind = thinking.needed_text("type")?;
    let read = match kind.as_ref() {
        "disabled" => Thinking::Off,
        "enabled" => match thinking.count("budget_tokens")? {
            Some(budget) => Thinking::Budget(budget),
            None => return Err(thinking.unsupported("budget_tokens", "is required")),
        },
        // The model decides by itself, which is what others do unasked.
        "adaptive" => Thinking::Unsaid,
        _ => return Err(thinking.unsupported("type", REFUSED)),
    };
    thinking.end()?;
    Ok(read)
}

fn format<'a>(body: &mut Object<'a>, thinking: &mut Thinking<'a>) -> Read<Format<'a>> {
    let Some(mut output) = body.object("output_config")? else { return Ok(Format::Text) };
    if let Some(effort) = output.text("effort")? {
        match thinking {
            Thinking::Unsaid => *thinking = Thinking::Effort(effort),
            _ => return Err(output.unsupported("effort", "beside a thinking budget")),
        }
    }
    let read = match output.object("format")? {
        None => Format::Text,
        Some(mut format) => {
            if format.needed_text("type")? != "json_schema" {
                return Err(format.unsupported("type", REFUSED));
            }
            let schema = format.needed("schema")?;
            format.end()?;
            Format::Schema { name: None, schema, is_strict: true }
        }
    };
    output.end()?;
    Ok(read)
}

fn read_tool(path: String, tool: &RawValue) -> Read<Tool<'_>> {
    let mut tool = Object::read(path, tool.get())?;
    tool.drop_hints(&["cache_control", "eager_input_streaming"]);
    if tool.text("type")?.is_some_and(|kind| kind != "custom") {
        return Err(tool.unsupported("type", "other than custom cannot be said to the provider"));
    }
    let read = Tool {
        name: tool.needed_text("name")?,
        description: tool.text("description")?,
        schema: tool.take("input_schema"),
        is_strict: tool.flag("strict")?.unwrap_or(false),
    };
    tool.end()?;
    Ok(read)
}

fn read_choice<'a>(chat: &mut Chat<'a>, body: &mut Object<'a>) -> Read<()> {
    let Some(mut choice) = body.object("tool_choice")? else { return Ok(()) };
    let kind = choice.needed_text("type")?;
    chat.choice = Some(match kind.as_ref() {
        "auto" => Choice::Auto,
        "none" => Choice::None,
        "any" => Choice::Any,
        "tool" => Choice::Tool(choice.needed_text("name")?),
        _ => return Err(choice.unsupported("type", REFUSED)),
    });
    chat.parallel = choice.flag("disable_parallel_tool_use")?.map(|is_off| !is_off);
    choice.end()
}

fn read_message<'a>(chat: &mut Chat<'a>, path: String, message: &'a RawValue) -> Read<()> {
    let mut message = Object::read(path, message.get())?;
    let role = match message.needed_text("role")?.as_ref() {
        "user" => Role::User,
        "assistant" => Role::Assistant,
        _ => return Err(message.unsupported("role", REFUSED)),
    };
    let value = message.needed("content")?;
    if let Some(text) = string(value.get()) {
        chat.say(role, [Piece::Text(text)]);
        return message.end();
    }
    let mut pieces = Vec::new();
    for (path, block) in list(&message.at("content"), value)? {
        pieces.extend(read_block(path, block)?);
    }
    chat.say(role, pieces);
    message.end()
}

/// A block; nothing for thoughts, which mean something to the model that had them and to no other.
fn read_block(path: String, block: &RawValue) -> Read<Option<Piece<'_>>> {
    let mut block = Object::read(path, block.get())?;
    block.drop_hints(BLOCK_HINTS);
    let kind = block.needed_text("type")?;
    let piece = match kind.as_ref() {
        "text" => Piece::Text(block.needed_text("text")?),
        "image" => Piece::Picture(picture(&mut block)?),
        "tool_use" => {
            // Who called, which is the model itself unless tools call tools.
            block.drop_hints(&["caller"]);
            Piece::Call(Call {
                id: block.needed_text("id")?,
                name: block.needed_text("name")?,
                arguments: Cow::Borrowed(block.needed_object_text("input")?),
                signature: None,
            })
        }
        "tool_result" => Piece::Outcome(outcome(&mut block)?),
        "thinking" | "redacted_thinking" => return Ok(None),
        _ => return Err(block.unsupported("type", REFUSED)),
    };
    block.end()?;
    Ok(Some(piece))
}

fn outcome<'a>(block: &mut Object<'a>) -> Read<Outcome<'a>> {
    let mut outcome = Outcome {
        call_id: block.needed_text("tool_use_id")?,
        texts: Vec::new(),
        pictures: Vec::new(),
        is_error: block.flag("is_error")?.unwrap_or(false),
    };
    let Some(value) = block.take("content") else { return Ok(outcome) };
    if let Some(text) = string(value.get()) {
        outcome.texts.push(text);
        return Ok(outcome);
    }
    for (path, inner) in list(&block.at("content"), value)? {
        let mut inner = Object::read(path, inner.get())?;
        inner.drop_hints(BLOCK_HINTS);
        match inner.needed_text("type")?.as_ref() {
            "text" => outcome.texts.push(inner.needed_text("text")?),
            "image" => outcome.pictures.push(picture(&mut inner)?),
            _ => return Err(inner.unsupported("type", REFUSED)),
        }
        inner.end()?;
    }
    Ok(outcome)
}

fn picture<'a>(block: &mut Object<'a>) -> Read<Picture<'a>> {
    let mut source = block.needed_object("source")?;
    let kind = source.needed_text("type")?;
    let read = match kind.as_ref() {
        "base64" => Picture::Data {
            media_type: source.needed_text("media_type")?,
            base64: source.needed_text("data")?,
        },
        "url" => Picture::Url(source.needed_text("url")?),
        _ => return Err(source.unsupported("type", REFUSED)),
    };
    source.end()?;
    Ok(read)
}
