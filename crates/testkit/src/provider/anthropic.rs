//! Anthropic's dialect: messages and models.
//!
//! Owns: what its requests must hold, and the exact shape of its answers. Refuses to know: faults,
//! sockets.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::answer::{Answer, Asked, Choice, Event, Part, Tool, called};
use super::fault::Refusal;

/// Others are refused, as the vendor does.
const FIELDS: &[&str] = &[
    "cache_control",
    "container",
    "context_management",
    "diagnostics",
    "inference_geo",
    "max_tokens",
    "mcp_servers",
    "messages",
    "metadata",
    "model",
    "output_config",
    "service_tier",
    "speed",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
    "user_profile_id",
    "workspace_id",
];

/// A message that is asked for.
pub(super) fn asked(body: &Value) -> Result<Asked, Refusal> {
    let unknown = body
        .as_object()
        .and_then(|fields| fields.keys().find(|name| !FIELDS.contains(&name.as_str())));
    if let Some(name) = unknown {
        return Err(Refusal::of(name, "Extra inputs are not permitted"));
    }
    let model = body["model"].as_str().ok_or_else(|| required("model"))?;
    let tokens_max = body["max_tokens"].as_u64().filter(|&max| max > 0);
    let messages = body["messages"].as_array().ok_or_else(|| required("messages"))?;
    let mut asked = Asked {
        model: model.to_owned(),
        is_stream: body["stream"] == json!(true),
        wants_usage: true,
        tokens_max: Some(tokens_max.ok_or_else(|| required("max_tokens"))?),
        ..Asked::default()
    };
    knobs(body)?;
    system(&mut asked, &body["system"])?;
    conversation(&mut asked, messages)?;
    let format = &body["output_config"]["format"];
    if format["type"] == "json_schema" {
        asked.document = Some(format["schema"].clone());
    }
    let offered = tools(&body["tools"])?;
    asked.count_tools(offered.len());
    let result_came = messages.last().is_some_and(|last| {
        last["content"].as_array().into_iter().flatten().any(|it| it["type"] == "tool_result")
    });
    let choice = choice(&body["tool_choice"], &offered)?;
    let is_parallel = body["tool_choice"]["disable_parallel_tool_use"] != json!(true);
    asked.tools = called(offered, &choice, result_came, is_parallel);
    Ok(asked)
}

fn required(place: &str) -> Refusal {
    Refusal::of(place, "Field required")
}

fn knobs(body: &Value) -> Result<(), Refusal> {
    for name in ["temperature", "top_p"] {
        let value = &body[name];
        let fits = value.as_f64().is_some_and(|value| (0.0..=1.0).contains(&value));
        if !value.is_null() && !fits {
            return Err(Refusal::of(name, "range: 0..1"));
        }
    }
    let stops = &body["stop_sequences"];
    let are_texts = stops.as_array().is_some_and(|stops| {
        stops.iter().all(|stop| stop.as_str().is_some_and(|stop| !stop.trim().is_empty()))
    });
    if !stops.is_null() && !are_texts {
        return Err(Refusal::of(
            "stop_sequences",
            "each stop sequence must contain non-whitespace",
        ));
    }
    Ok(())
}

fn system(asked: &mut Asked, system: &Value) -> Result<(), Refusal> {
    if system.is_null() {
        return Ok(());
    }
    asked.count_message();
    match system {
        Value::String(text) => asked.count_text(text),
        Value::Array(blocks) => {
            for block in blocks {
                let text = block["text"].as_str().filter(|_| block["type"] == "text");
                asked.count_text(text.ok_or_else(|| required("system.0.text"))?);
            }
        }
        _ => return Err(Refusal::of("system", "Input should be a valid string")),
    }
    Ok(())
}

/// Reads all messages; each call of a tool has its result in the very next one.
fn conversation(asked: &mut Asked, messages: &[Value]) -> Result<(), Refusal> {
    if messages.is_empty() {
        return Err(Refusal::of("messages", "at least one message is required"));
    }
    let mut open: Vec<String> = Vec::new();
    for (at, message) in messages.iter().enumerate() {
        asked.count_message();
        let place = format!("messages.{at}");
        let is_user = match message["role"].as_str() {
            Some("user") => true,
            Some("assistant") if at > 0 => false,
            Some("assistant") => {
                return Err(Refusal::of("messages", "first message must use the \"user\" role"));
            }
            _ => return Err(Refusal::of(&place, "role: Input should be 'user' or 'assistant'")),
        };
        let read = Blocks::read(asked, &place, &message["content"], is_user)?;
        for id in &read.results {
            let found = open.iter().position(|call| call == id);
            let found = found.ok_or_else(|| {
                Refusal::of(
                    &place,
                    format!("unexpected `tool_use_id` found in `tool_result` blocks: {id}"),
                )
            })?;
            open.remove(found);
        }
        if let Some(id) = open.first() {
            let why = "`tool_use` ids were found without `tool_result` blocks immediately after";
            return Err(Refusal::of(&place, format!("{why}: {id}")));
        }
        open = read.calls;
        let is_last = at + 1 == messages.len();
        if is_last && !is_user {
            if read.text.ends_with(char::is_whitespace) {
                let why = "final assistant content cannot end with trailing whitespace";
                return Err(Refusal::of("messages", why));
            }
            asked.prefix = read.text;
        }
    }
    Ok(())
}

/// What a message holds beside what is counted.
#[derive(Default)]
struct Blocks {
    text: String,
    calls: Vec<String>,
    results: Vec<String>,
}

impl Blocks {
    fn read(
        asked: &mut Asked,
        place: &str,
        content: &Value,
        is_user: bool,
    ) -> Result<Blocks, Refusal> {
        let mut found = Blocks::default();
        match content {
            Value::String(text) if !text.is_empty() => found.text.push_str(text),
            Value::Array(blocks) if !blocks.is_empty() => {
                for (at, block) in blocks.iter().enumerate() {
                    found.block(asked, &format!("{place}.content.{at}"), block, is_user)?;
                }
            }
            _ => return Err(Refusal::of(place, "all messages must have non-empty content")),
        }
        asked.count_text(&found.text);
        Ok(found)
    }

    fn block(
        &mut self,
        asked: &mut Asked,
        place: &str,
        block: &Value,
        is_user: bool,
    ) -> Result<(), Refusal> {
        match block["type"].as_str() {
            Some("text") => {
                let text = block["text"].as_str().filter(|text| !text.is_empty());
                let why = "text content blocks must be non-empty";
                self.text.push_str(text.ok_or_else(|| Refusal::of(place, why))?);
            }
            Some("image") if is_user => picture(asked, place, &block["source"])?,
            Some("tool_use") if !is_user => {
                let id = id(&block["id"]).ok_or_else(|| pattern(place))?;
                if !block["name"].is_string() || !block["input"].is_object() {
                    let why = "tool_use.input: Input should be a valid dictionary";
                    return Err(Refusal::of(place, why));
                }
                asked.count_text(&block["input"].to_string());
                self.calls.push(id);
            }
            Some("tool_result") if is_user => {
                self.results.push(id(&block["tool_use_id"]).ok_or_else(|| pattern(place))?);
                result(asked, place, &block["content"])?;
            }
            Some("thinking" | "redacted_thinking") if !is_user => {}
            _ => {
                return Err(Refusal::of(
                    place,
                    "Input tag does not match any of the expected tags",
                ));
            }
        }
        Ok(())
    }
}

fn pattern(place: &str) -> Refusal {
    Refusal::of(place, "id: String should match pattern '^[a-zA-Z0-9_-]+$'")
}

fn id(value: &Value) -> Option<String> {
    let id = value.as_str().filter(|id| !id.is_empty())?;
    let fits = id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    fits.then(|| id.to_owned())
}

fn picture(asked: &mut Asked, place: &str, source: &Value) -> Result<(), Refusal> {
    let kinds = ["image/jpeg", "image/png", "image/gif", "image/webp"];
    let fits = match source["type"].as_str() {
        Some("base64") => {
            let kind = source["media_type"].as_str().is_some_and(|kind| kinds.contains(&kind));
            let bytes = source["data"].as_str().and_then(|it| BASE64_STANDARD.decode(it).ok());
            kind && bytes.is_some_and(|bytes| !bytes.is_empty())
        }
        Some("url") => source["url"].as_str().is_some_and(|url| url.starts_with("http")),
        _ => false,
    };
    if !fits {
        return Err(Refusal::of(place, "image.source: Could not process image"));
    }
    asked.count_picture();
    Ok(())
}

fn result(asked: &mut Asked, place: &str, content: &Value) -> Result<(), Refusal> {
    match content {
        Value::Null => {}
        Value::String(text) => asked.count_text(text),
        Value::Array(blocks) => {
            for block in blocks {
                match block["type"].as_str() {
                    Some("text") => asked.count_text(block["text"].as_str().unwrap_or_default()),
                    Some("image") => picture(asked, place, &block["source"])?,
                    _ => return Err(Refusal::of(place, "tool_result.content: not a block")),
                }
            }
        }
        _ => return Err(Refusal::of(place, "tool_result.content: Input should be a valid string")),
    }
    Ok(())
}

fn tools(tools: &Value) -> Result<Vec<Tool>, Refusal> {
    let read = |(at, tool): (usize, &Value)| {
        let name = id(&tool["name"]).ok_or_else(|| required(&format!("tools.{at}.custom.name")))?;
        let schema = &tool["input_schema"];
        if schema["type"] != "object" {
            return Err(required(&format!("tools.{at}.custom.input_schema.type")));
        }
        Ok(Tool { name, schema: schema.clone() })
    };
    tools.as_array().into_iter().flatten().enumerate().map(read).collect()
}

fn choice(choice: &Value, offered: &[Tool]) -> Result<Choice, Refusal> {
    if !choice.is_null() && offered.is_empty() {
        return Err(Refusal::of("tool_choice", "may only be specified while providing `tools`"));
    }
    match choice["type"].as_str() {
        None if choice.is_null() => Ok(Choice::Auto),
        Some("auto") => Ok(Choice::Auto),
        Some("none") => Ok(Choice::None),
        Some("any") => Ok(Choice::Any),
        Some("tool") => {
            let name = choice["name"].as_str().ok_or_else(|| required("tool_choice.tool.name"))?;
            if !offered.iter().any(|tool| tool.name == name) {
                let why = format!("Tool '{name}' not found in provided tools");
                return Err(Refusal::of("tool_choice", why));
            }
            Ok(Choice::Named(name.to_owned()))
        }
        _ => Err(Refusal::of("tool_choice", "Input tag does not match any of the expected tags")),
    }
}

/// A whole answer.
pub(super) fn whole(answer: &Answer) -> Value {
    let mut content: Vec<Value> = Vec::new();
    if !answer.tokens.is_empty() {
        content.push(json!({"type": "text", "text": answer.text()}));
    }
    for (at, call) in answer.calls.iter().enumerate() {
        let id = call_id(answer, at);
        content.push(
            json!({"type": "tool_use", "id": id, "name": call.name, "input": call.arguments}),
        );
    }
    let mut message = message(answer, &content, stop_reason(answer));
    if answer.with_usage {
        message["usage"] = usage(answer, answer.completion() + answer.reasoning);
    }
    message
}

pub(super) fn id_of(answer: &Answer) -> String {
    format!("msg_{}", answer.serial)
}

fn message(answer: &Answer, content: &[Value], stop_reason: Option<&str>) -> Value {
    json!({
        "id": id_of(answer), "type": "message", "role": "assistant", "model": answer.model,
        "content": content, "stop_reason": stop_reason, "stop_sequence": null,
    })
}

fn call_id(answer: &Answer, at: usize) -> String {
    format!("toolu_{}_{at}", answer.serial.replace('-', "_"))
}

fn stop_reason(answer: &Answer) -> Option<&'static str> {
    answer.with_finish.then_some(match answer {
        Answer { is_cut_short: true, .. } => "max_tokens",
        Answer { calls, .. } if !calls.is_empty() => "tool_use",
        _ => "end_turn",
    })
}

/// What is cached is no part of the input here; thoughts are part of the output.
fn usage(answer: &Answer, output: u64) -> Value {
    json!({
        "input_tokens": answer.prompt - answer.cached - answer.cache_written,
        "cache_creation_input_tokens": answer.cache_written,
        "cache_read_input_tokens": answer.cached,
        "cache_creation": {
            "ephemeral_5m_input_tokens": answer.cache_written, "ephemeral_1h_input_tokens": 0,
        },
        "output_tokens": output,
        "service_tier": "standard",
    })
}

/// A streamed answer.
pub(super) fn events(answer: &Answer) -> Vec<Event> {
    let mut start = message(answer, &[], None);
    if answer.with_usage {
        start["usage"] = usage(answer, 1);
    }
    let mut events = vec![
        event(Part::Opening, 0, &json!({"type": "message_start", "message": start})),
        event(Part::Opening, 0, &json!({"type": "ping"})),
    ];
    let mut index = 0;
    if !answer.tokens.is_empty() {
        let deltas = answer
            .chunks()
            .map(|(tokens, text)| (tokens, json!({"type": "text_delta", "text": text})));
        block(&mut events, index, &json!({"type": "text", "text": ""}), deltas);
        index += 1;
    }
    for (at, call) in answer.calls.iter().enumerate() {
        let id = call_id(answer, at);
        let start = json!({"type": "tool_use", "id": id, "name": call.name, "input": {}});
        let deltas = call
            .pieces
            .iter()
            .map(|piece| (1, json!({"type": "input_json_delta", "partial_json": piece})));
        block(&mut events, index, &start, deltas);
        index += 1;
    }
    if let Some(stop_reason) = stop_reason(answer) {
        let delta = json!({"stop_reason": stop_reason, "stop_sequence": null});
        let mut last = json!({"type": "message_delta", "delta": delta});
        last["usage"] = if answer.with_usage {
            usage(answer, answer.completion() + answer.reasoning)
        } else {
            json!({})
        };
        events.push(event(Part::Closing, 0, &last));
        events.push(event(Part::Done, 0, &json!({"type": "message_stop"})));
    }
    events
}

/// A block: its start, which is an opening only where nothing was said before, its parts, its end.
fn block(
    events: &mut Vec<Event>,
    index: usize,
    start: &Value,
    deltas: impl Iterator<Item = (u64, Value)>,
) {
    let part = if index == 0 { Part::Opening } else { Part::Content };
    let start = json!({"type": "content_block_start", "index": index, "content_block": start});
    events.push(event(part, 0, &start));
    for (tokens, delta) in deltas {
        let delta = json!({"type": "content_block_delta", "index": index, "delta": delta});
        events.push(event(Part::Content, tokens, &delta));
    }
    let stop = json!({"type": "content_block_stop", "index": index});
    events.push(event(Part::Closing, 0, &stop));
}

/// An event has its type twice: as its name and in its data.
pub(super) fn event(part: Part, tokens: u64, value: &Value) -> Event {
    let name = value["type"].as_str().unwrap_or_default();
    Event { part, tokens, bytes: format!("event: {name}\ndata: {value}\n\n") }
}

/// The list of models.
pub(super) fn models(names: &[String]) -> Value {
    let data: Vec<Value> = names.iter().map(|name| model_card(name)).collect();
    json!({
        "data": data, "has_more": false, "first_id": names.first(), "last_id": names.last(),
    })
}

pub(super) fn model_card(name: &str) -> Value {
    let created = "2026-01-01T00:00:00Z";
    json!({"type": "model", "id": name, "display_name": name, "created_at": created})
}
