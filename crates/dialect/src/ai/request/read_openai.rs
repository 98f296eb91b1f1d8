//! OpenAI's request as meaning.
//!
//! Owns: the members that are understood, and the list of hints that may be lost. Refuses to know:
//! which dialect it is going to be written in.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::meaning::{Call, Chat, Choice, Format, Outcome, Picture, Piece, Role, Thinking, Tool};
use crate::ai::Unsupported;
use crate::ai::object::{Object, list, members, string, unsupported};

/// Members that change no answer: labels for the account, caches and who is billed how fast.
/// `stream_options` has been read when the request was.
const HINTS: &[&str] = &[
    "model",
    "user",
    "metadata",
    "store",
    "service_tier",
    "safety_identifier",
    "prompt_cache_key",
    "prompt_cache_retention",
    "stream_options",
];

/// The same for a message: what an answer held besides its text and is sent back as it came.
const MESSAGE_HINTS: &[&str] = &["annotations", "reasoning_content", "reasoning", "prefix"];

type Read<T> = Result<T, Unsupported>;

/// Reads the whole.
pub(super) fn read(json: &str) -> Read<Chat<'_>> {
    let mut body = Object::read("", json)?;
    body.drop_hints(HINTS);
    let mut chat = Chat {
        streams: body.flag("stream")?.unwrap_or(false),
        temperature: body.number("temperature")?,
        top_p: body.number("top_p")?,
        seed: body.number("seed")?,
        presence_penalty: body.number("presence_penalty")?,
        frequency_penalty: body.number("frequency_penalty")?,
        parallel: body.flag("parallel_tool_calls")?,
        ..Chat::default()
    };
    let old_max = body.count("max_tokens")?;
    chat.output_max = body.count("max_completion_tokens")?.or(old_max);
    if body.count("n")?.is_some_and(|choices| choices != 1) {
        return Err(body.unsupported("n", "above 1 cannot be said to the model's provider"));
    }
    chat.stop = stop(&mut body)?;
    chat.thinking = match body.text("reasoning_effort")? {
        None => Thinking::Unsaid,
        Some(word) if word == "none" => Thinking::Off,
        Some(word) => Thinking::Effort(word),
    };
    chat.format = format(&mut body)?;
    for (path, tool) in body.list("tools")? {
        chat.tools.push(read_tool(path, tool)?);
    }
    chat.choice = choice(&mut body)?;
    for (path, message) in body.list("messages")? {
        read_message(&mut chat, path, message)?;
    }
    neutral_values(&mut body)?;
    body.end()?;
    Ok(chat)
}

/// Members whose usual value asks for nothing.
fn neutral_values(body: &mut Object<'_>) -> Read<()> {
    let refuse = "cannot be said to the model's provider";
    if body.flag("logprobs")?.unwrap_or(false) {
        return Err(body.unsupported("logprobs", refuse));
    }
    if body.count("top_logprobs")?.unwrap_or(0) > 0 {
        return Err(body.unsupported("top_logprobs", refuse));
    }
    if let Some(bias) = body.take("logit_bias")
        && members(bias.get()).is_none_or(|entries| !entries.is_empty())
    {
        return Err(body.unsupported("logit_bias", refuse));
    }
    let kinds = body.list("modalities")?;
    if kinds.iter().any(|(_, kind)| string(kind.get()).is_none_or(|kind| kind != "text")) {
        return Err(body.unsupported("modalities", "other than text cannot be asked for"));
    }
    Ok(())
}

fn stop<'a>(body: &mut Object<'a>) -> Read<Vec<Cow<'a, str>>> {
    let Some(value) = body.take("stop") else { return Ok(Vec::new()) };
    if let Some(text) = string(value.get()) {
        return Ok(vec![text]);
    }
    list(&body.at("stop"), value)?
        .into_iter()
        .map(|(path, one)| string(one.get()).ok_or_else(|| unsupported(path, "must be a string")))
        .collect()
}

fn format<'a>(body: &mut Object<'a>) -> Read<Format<'a>> {
    let Some(mut format) = body.object("response_format")? else { return Ok(Format::Text) };
    let kind = format.needed_text("type")?;
    let read = match kind.as_ref() {
        "text" => Format::Text,
        "json_object" => Format::Json,
        "json_schema" => {
            let mut schema = format.needed_object("json_schema")?;
            schema.drop_hints(&["description"]);
            let read = Format::Schema {
                name: schema.text("name")?,
                schema: schema.needed("schema")?,
                is_strict: schema.flag("strict")?.unwrap_or(false),
            };
            schema.end()?;
            read
        }
        _ => return Err(format.unsupported("type", "is not known")),
    };
    format.end()?;
    Ok(read)
}

fn read_tool(path: String, tool: &RawValue) -> Read<Tool<'_>> {
    let mut tool = Object::read(path, tool.get())?;
    if tool.needed_text("type")? != "function" {
        return Err(tool.unsupported("type", "other than function cannot be said to the provider"));
    }
    let mut function = tool.needed_object("function")?;
    let read = Tool {
        name: function.needed_text("name")?,
        description: function.text("description")?,
        schema: function.take("parameters"),
        is_strict: function.flag("strict")?.unwrap_or(false),
    };
    function.end()?;
    tool.end()?;
    Ok(read)
}

fn choice<'a>(body: &mut Object<'a>) -> Read<Option<Choice<'a>>> {
    let Some(value) = body.take("tool_choice") else { return Ok(None) };
    if let Some(word) = string(value.get()) {
        return match word.as_ref() {
            "auto" => Ok(Some(Choice::Auto)),
            "none" => Ok(Some(Choice::None)),
            "required" => Ok(Some(Choice::Any)),
            _ => Err(body.unsupported("tool_choice", "is not known")),
        };
    }
    let mut choice = Object::read(body.at("tool_choice"), value.get())?;
    if choice.needed_text("type")? != "function" {
        return Err(
            choice.unsupported("type", "other than function cannot be said to the provider")
        );
    }
    let mut function = choice.needed_object("function")?;
    let name = function.needed_text("name")?;
    function.end()?;
    choice.end()?;
    Ok(Some(Choice::Tool(name)))
}

fn read_message<'a>(chat: &mut Chat<'a>, path: String, message: &'a RawValue) -> Read<()> {
    let mut message = Object::read(path, message.get())?;
    let role = message.needed_text("role")?;
    message.drop_hints(MESSAGE_HINTS);
    match role.as_ref() {
        "system" | "developer" => {
            if !chat.turns.is_empty() {
                return Err(message.unsupported("role", "must not be system inside a conversation"));
            }
            for piece in content(&mut message)? {
                match piece {
                    Piece::Text(text) => chat.system.push(text),
                    _ => return Err(message.unsupported("content", "must be text")),
                }
            }
        }
        "user" => chat.say(Role::User, content(&mut message)?),
        "assistant" => {
            let mut pieces = content(&mut message)?;
            if let Some(refusal) = message.text("refusal")? {
                pieces.push(Piece::Text(refusal));
            }
            for (path, call) in message.list("tool_calls")? {
                pieces.push(Piece::Call(read_call(path, call)?));
            }
            chat.say(Role::Assistant, pieces);
        }
        "tool" => {
            let call_id = message.needed_text("tool_call_id")?;
            let mut texts = Vec::new();
            for piece in content(&mut message)? {
                match piece {
                    Piece::Text(text) => texts.push(text),
                    _ => return Err(message.unsupported("content", "must be text")),
                }
            }
            let outcome = Outcome { call_id, texts, pictures: Vec::new(), is_error: false };
            chat.say(Role::User, [Piece::Outcome(outcome)]);
        }
        _ => return Err(message.unsupported("role", "cannot be said to the model's provider")),
    }
    message.end()
}

fn read_call(path: String, call: &RawValue) -> Read<Call<'_>> {
    let mut call = Object::read(path, call.get())?;
    // An index is what clients keep that put the answer together from a stream.
    call.drop_hints(&["index"]);
    if call.text("type")?.is_some_and(|kind| kind != "function") {
        return Err(call.unsupported("type", "other than function cannot be said to the provider"));
    }
    let id = call.needed_text("id")?;
    let mut function = call.needed_object("function")?;
    let name = function.needed_text("name")?;
    let mut arguments = function.text("arguments")?.unwrap_or_default();
    if arguments.trim().is_empty() {
        arguments = Cow::Borrowed("{}");
    }
    if members(&arguments).is_none() {
        return Err(function.unsupported("arguments", "must be a JSON object"));
    }
    function.end()?;
    let signature = seal(&mut call)?;
    call.end()?;
    Ok(Call { id, name, arguments, signature })
}

/// Where Google's own endpoint in this dialect puts the seal on a call.
fn seal<'a>(call: &mut Object<'a>) -> Read<Option<Cow<'a, str>>> {
    let Some(mut extra) = call.object("extra_content")? else { return Ok(None) };
    let Some(mut google) = extra.object("google")? else { return Ok(None) };
    google.text("thought_signature")
}

/// The content of a message: a string, parts, or nothing.
fn content<'a>(message: &mut Object<'a>) -> Read<Vec<Piece<'a>>> {
    let Some(value) = message.take("content") else { return Ok(Vec::new()) };
    if let Some(text) = string(value.get()) {
        return Ok(vec![Piece::Text(text)]);
    }
    let mut pieces = Vec::new();
    for (path, part) in list(&message.at("content"), value)? {
        let mut part = Object::read(path, part.get())?;
        let kind = part.needed_text("type")?;
        pieces.push(match kind.as_ref() {
            "text" => Piece::Text(part.needed_text("text")?),
            "refusal" => Piece::Text(part.needed_text("refusal")?),
            "image_url" => {
                let mut picture = part.needed_object("image_url")?;
                // How closely to look is the provider's to choose where it has no word for it.
                picture.drop_hints(&["detail"]);
                let url = picture.needed_text("url")?;
                let read = read_picture(url)
                    .ok_or_else(|| picture.unsupported("url", "must be https or base64 data"))?;
                picture.end()?;
                Piece::Picture(read)
            }
            "input_audio" | "file" => {
                return Err(part.unsupported(&kind, "cannot be said to the model's provider"));
            }
            _ => return Err(part.unsupported("type", "cannot be said to the model's provider")),
        });
        part.end()?;
    }
    Ok(pieces)
}

fn read_picture(url: Cow<'_, str>) -> Option<Picture<'_>> {
    if !url.starts_with("data:") {
        let is_web = url.starts_with("https://") || url.starts_with("http://");
        return is_web.then_some(Picture::Url(url));
    }
    let split = |url: &str| {
        let (head, data) = url.strip_prefix("data:")?.split_once(',')?;
        let media_type = head.strip_suffix(";base64")?;
        let media_type = media_type.split(';').next().filter(|kind| kind.starts_with("image/"))?;
        Some((media_type.len(), url.len() - data.len()))
    };
    let (media_len, data_at) = split(&url)?;
    let media_at = "data:".len()..;
    Some(match url {
        Cow::Borrowed(url) => Picture::Data {
            media_type: Cow::Borrowed(url.get(media_at)?.get(..media_len)?),
            base64: Cow::Borrowed(url.get(data_at..)?),
        },
        Cow::Owned(url) => Picture::Data {
            media_type: Cow::Owned(url.get(media_at)?.get(..media_len)?.to_owned()),
            base64: Cow::Owned(url.get(data_at..)?.to_owned()),
        },
    })
}
