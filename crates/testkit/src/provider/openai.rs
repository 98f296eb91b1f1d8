//! OpenAI's dialect: chat completions and models.
//!
//! Owns: what its requests must hold, and the exact shape of its answers. Refuses to know: faults,
//! sockets.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::answer::{Answer, Asked, Choice, Event, Part, Tool, called, object};
use super::fault::Refusal;

/// Constant, so that two answers differ by their ids alone.
const CREATED: u64 = 1_790_000_000;
const FINGERPRINT: &str = "fp_fake";

/// A chat completion that is asked for.
pub(super) fn asked(body: &Value) -> Result<Asked, Refusal> {
    let model = model(body)?;
    let messages = body["messages"].as_array().ok_or_else(|| missing("messages"))?;
    if messages.is_empty() {
        return Err(Refusal::of("messages", "Invalid 'messages': empty array."));
    }
    let mut asked = Asked {
        model,
        is_stream: body["stream"] == json!(true),
        wants_usage: body["stream_options"]["include_usage"] == json!(true),
        tokens_max: limit(body)?,
        ..Asked::default()
    };
    knobs(body)?;
    let mut open: Vec<String> = Vec::new();
    let mut all_text = String::new();
    for (at, message) in messages.iter().enumerate() {
        asked.count_message();
        let text = read_message(&mut asked, at, message, &mut open)?;
        asked.count_text(&text);
        all_text.push_str(&text);
        asked.prefix = if message["role"] == "assistant" { text } else { String::new() };
    }
    unanswered(&open)?;
    asked.document = document(body, &all_text)?;
    let result_came = messages.last().is_some_and(|last| last["role"] == "tool");
    let offered = tools(body)?;
    asked.count_tools(offered.len());
    let choice = choice(body, &offered)?;
    let is_parallel = body["parallel_tool_calls"] != json!(false);
    asked.tools = called(offered, &choice, result_came, is_parallel);
    Ok(asked)
}

pub(super) fn model(body: &Value) -> Result<String, Refusal> {
    let model = body["model"].as_str().filter(|model| !model.is_empty());
    model.map(str::to_owned).ok_or_else(|| Refusal::Invalid {
        param: None,
        message: "you must provide a model parameter".to_owned(),
    })
}

fn missing(name: &str) -> Refusal {
    Refusal::of(name, format!("Missing required parameter: '{name}'."))
}

pub(super) fn wrong(name: &str, what: &str) -> Refusal {
    Refusal::of(name, format!("Invalid value for '{name}': {what}."))
}

fn limit(body: &Value) -> Result<Option<u64>, Refusal> {
    let read = |name: &str| match &body[name] {
        Value::Null => Ok(None),
        value => match value.as_u64().filter(|&limit| limit > 0) {
            Some(limit) => Ok(Some(limit)),
            None => Err(wrong(name, "expected an integer of at least 1")),
        },
    };
    match (read("max_tokens")?, read("max_completion_tokens")?) {
        (Some(_), Some(_)) => Err(wrong(
            "max_tokens",
            "'max_tokens' and 'max_completion_tokens' cannot be set at the same time",
        )),
        (one, other) => Ok(one.or(other)),
    }
}

/// Fields that are checked and change nothing here.
fn knobs(body: &Value) -> Result<(), Refusal> {
    if !body["stream_options"].is_null() && body["stream"] != json!(true) {
        return Err(wrong("stream_options", "only allowed when 'stream' is enabled"));
    }
    if !body["stream_options"].is_null() && !body["stream_options"].is_object() {
        return Err(wrong("stream_options", "expected an object"));
    }
    for (name, max) in [("temperature", 2.0), ("top_p", 1.0)] {
        let value = &body[name];
        let fits = value.as_f64().is_some_and(|value| (0.0..=max).contains(&value));
        if !value.is_null() && !fits {
            return Err(wrong(name, "out of range"));
        }
    }
    let n = &body["n"];
    if !n.is_null() && *n != json!(1) {
        return Err(wrong("n", "the fake gives one answer only"));
    }
    let fits = |stop: &Value| match stop {
        Value::Null | Value::String(_) => true,
        Value::Array(stops) => stops.len() <= 4 && stops.iter().all(Value::is_string),
        _ => false,
    };
    if fits(&body["stop"]) { Ok(()) } else { Err(wrong("stop", "expected up to 4 texts")) }
}

/// The text of a message; counts its pictures and pairs the calls of tools with their results.
fn read_message(
    asked: &mut Asked,
    at: usize,
    message: &Value,
    open: &mut Vec<String>,
) -> Result<String, Refusal> {
    let place = format!("messages[{at}]");
    let role = message["role"].as_str().ok_or_else(|| missing(&format!("{place}.role")))?;
    let calls = message["tool_calls"].as_array();
    match role {
        "tool" => {
            let id = message["tool_call_id"].as_str();
            let id = id.ok_or_else(|| missing(&format!("{place}.tool_call_id")))?;
            let found = open.iter().position(|call| call == id);
            let found = found.ok_or_else(|| {
                let why = "messages with role 'tool' must be a response to a preceding message \
                           with 'tool_calls'";
                wrong(&place, why)
            })?;
            open.remove(found);
        }
        "system" | "developer" | "user" | "assistant" => unanswered(open)?,
        _ => return Err(wrong(&format!("{place}.role"), "not a role")),
    }
    for call in calls.into_iter().flatten() {
        let (id, arguments) = (call["id"].as_str(), call["function"]["arguments"].as_str());
        let (Some(id), Some(arguments)) = (id, arguments) else {
            return Err(missing(&format!("{place}.tool_calls[0].function.arguments")));
        };
        asked.count_text(arguments);
        open.push(id.to_owned());
    }
    match &message["content"] {
        Value::String(text) => Ok(text.clone()),
        Value::Null if role == "assistant" && calls.is_some() => Ok(String::new()),
        Value::Array(parts) if !parts.is_empty() => {
            let read = |part: &Value| read_part(asked, &place, role, part);
            parts.iter().map(read).collect::<Result<Vec<_>, _>>().map(|texts| texts.join(" "))
        }
        _ => Err(wrong(&format!("{place}.content"), "expected a text or an array of parts")),
    }
}

fn read_part(asked: &mut Asked, place: &str, role: &str, part: &Value) -> Result<String, Refusal> {
    match part["type"].as_str() {
        Some("text") => {
            let text = part["text"].as_str().map(str::to_owned);
            text.ok_or_else(|| missing(&format!("{place}.content[0].text")))
        }
        Some("image_url") if role == "user" => {
            let url = part["image_url"]["url"].as_str();
            let url = url.ok_or_else(|| missing(&format!("{place}.content[0].image_url.url")))?;
            if !is_picture(url) {
                return Err(wrong("image_url", "not a picture that can be read"));
            }
            asked.count_picture();
            Ok(String::new())
        }
        _ => Err(wrong(&format!("{place}.content[0].type"), "not a type for this role")),
    }
}

/// An address, or `data:image/png;base64,…` of something.
fn is_picture(url: &str) -> bool {
    let Some(data) = url.strip_prefix("data:image/") else {
        return url.starts_with("https://") || url.starts_with("http://");
    };
    let encoded = data.split_once(";base64,").map(|(_, encoded)| encoded);
    encoded.is_some_and(|it| BASE64_STANDARD.decode(it).is_ok_and(|bytes| !bytes.is_empty()))
}

fn unanswered(open: &[String]) -> Result<(), Refusal> {
    match open.first() {
        None => Ok(()),
        Some(id) => Err(Refusal::of(
            "messages",
            format!(
                "An assistant message with 'tool_calls' must be followed by tool messages \
                 responding to each 'tool_call_id'. The following tool_call_ids did not have \
                 response messages: {id}"
            ),
        )),
    }
}

fn document(body: &Value, all_text: &str) -> Result<Option<Value>, Refusal> {
    let format = &body["response_format"];
    match format["type"].as_str() {
        None if format.is_null() => Ok(None),
        Some("text") => Ok(None),
        Some("json_object") if all_text.to_lowercase().contains("json") => Ok(Some(Value::Null)),
        Some("json_object") => Err(Refusal::of(
            "messages",
            "'messages' must contain the word 'json' in some form, to use 'response_format' of \
             type 'json_object'.",
        )),
        Some("json_schema") => {
            let schema = &format["json_schema"];
            if schema["name"].is_string() && schema["schema"].is_object() {
                Ok(Some(schema["schema"].clone()))
            } else {
                Err(missing("response_format.json_schema"))
            }
        }
        _ => Err(wrong("response_format.type", "not a format")),
    }
}

fn tools(body: &Value) -> Result<Vec<Tool>, Refusal> {
    let offered = match &body["tools"] {
        Value::Null => return Ok(Vec::new()),
        Value::Array(tools) if !tools.is_empty() => tools,
        _ => return Err(wrong("tools", "expected an array of at least one")),
    };
    let read = |tool: &Value| {
        let function = &tool["function"];
        let name = function["name"].as_str().filter(|_| tool["type"] == "function");
        let name = name.ok_or_else(|| missing("tools[0].function.name"))?;
        Ok(Tool { name: name.to_owned(), schema: function["parameters"].clone() })
    };
    offered.iter().map(read).collect()
}

fn choice(body: &Value, offered: &[Tool]) -> Result<Choice, Refusal> {
    let choice = &body["tool_choice"];
    if !choice.is_null() && offered.is_empty() {
        return Err(wrong("tool_choice", "only allowed when 'tools' are specified"));
    }
    let named = choice["function"]["name"].as_str();
    match (choice.as_str(), named) {
        (Some("none"), _) => Ok(Choice::None),
        (Some("required"), _) => Ok(Choice::Any),
        (Some("auto"), _) => Ok(Choice::Auto),
        (_, Some(name)) if offered.iter().any(|tool| tool.name == name) => {
            Ok(Choice::Named(name.to_owned()))
        }
        _ if choice.is_null() => Ok(Choice::Auto),
        _ => Err(wrong("tool_choice", "not a choice among the tools")),
    }
}

/// A whole answer.
pub(super) fn whole(answer: &Answer) -> Value {
    let calls: Vec<Value> = answer
        .calls
        .iter()
        .enumerate()
        .map(|(at, call)| {
            json!({
                "id": call_id(answer, at), "type": "function",
                "function": {"name": call.name, "arguments": call.arguments.to_string()},
            })
        })
        .collect();
    let text = answer.text();
    let message = object(json!({
        "role": "assistant",
        "tool_calls": (!calls.is_empty()).then_some(calls),
        "annotations": [],
    }));
    let mut message = Value::Object(message);
    message["content"] = if answer.calls.is_empty() { json!(text) } else { Value::Null };
    message["refusal"] = Value::Null;
    let mut body = json!({
        "id": id(answer), "object": "chat.completion", "created": CREATED, "model": answer.model,
        "choices": [{
            "index": 0, "message": message, "logprobs": null, "finish_reason": finish(answer),
        }],
        "service_tier": "default", "system_fingerprint": FINGERPRINT,
    });
    if answer.with_usage {
        body["usage"] = usage(answer);
    }
    body
}

pub(super) fn id(answer: &Answer) -> String {
    format!("chatcmpl-{}", answer.serial)
}

fn call_id(answer: &Answer, at: usize) -> String {
    format!("call_{}_{at}", answer.serial.replace('-', "_"))
}

fn finish(answer: &Answer) -> Option<&'static str> {
    answer.with_finish.then_some(match answer {
        Answer { is_cut_short: true, .. } => "length",
        Answer { calls, .. } if !calls.is_empty() => "tool_calls",
        _ => "stop",
    })
}

/// Thoughts are part of the completion, and what was cached of the prompt.
fn usage(answer: &Answer) -> Value {
    let completion = answer.completion() + answer.reasoning;
    json!({
        "prompt_tokens": answer.prompt,
        "completion_tokens": completion,
        "total_tokens": answer.prompt + completion,
        "prompt_tokens_details": {"cached_tokens": answer.cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": answer.reasoning, "audio_tokens": 0,
            "accepted_prediction_tokens": 0, "rejected_prediction_tokens": 0,
        },
    })
}

/// A streamed answer.
pub(super) fn events(answer: &Answer) -> Vec<Event> {
    let nothing = &Value::Null;
    let chunk = |part, tokens, delta: Value| {
        Event::data(part, tokens, &chunk(answer, &json!([choice_of(&delta, nothing)])))
    };
    let opening = match answer.calls.first() {
        None => json!({"role": "assistant", "content": "", "refusal": null}),
        Some(_) => json!({"role": "assistant", "content": null, "refusal": null}),
    };
    let mut events = vec![chunk(Part::Opening, 0, opening)];
    for (tokens, text) in answer.chunks() {
        events.push(chunk(Part::Content, tokens, json!({"content": text})));
    }
    for (at, call) in answer.calls.iter().enumerate() {
        let head = json!({"tool_calls": [{
            "index": at, "id": call_id(answer, at), "type": "function",
            "function": {"name": call.name, "arguments": ""},
        }]});
        events.push(chunk(Part::Content, 0, head));
        for piece in &call.pieces {
            let delta = json!({"tool_calls": [{"index": at, "function": {"arguments": piece}}]});
            events.push(chunk(Part::Content, 1, delta));
        }
    }
    if let Some(finish) = finish(answer) {
        let end = choice_of(&json!({}), &json!(finish));
        events.push(Event::data(Part::Closing, 0, &self::chunk(answer, &json!([end]))));
        if answer.with_usage {
            let mut last = self::chunk(answer, &json!([]));
            last["usage"] = usage(answer);
            events.push(Event::data(Part::Closing, 0, &last));
        }
        let bytes = "data: [DONE]\n\n".to_owned();
        events.push(Event { part: Part::Done, tokens: 0, bytes });
    }
    events
}

fn choice_of(delta: &Value, finish: &Value) -> Value {
    json!({"index": 0, "delta": delta, "logprobs": null, "finish_reason": finish})
}

fn chunk(answer: &Answer, choices: &Value) -> Value {
    let mut chunk = json!({
        "id": id(answer), "object": "chat.completion.chunk", "created": CREATED,
        "model": answer.model, "service_tier": "default", "system_fingerprint": FINGERPRINT,
        "choices": choices,
    });
    if answer.with_usage {
        // Where usage was asked for, every chunk has the field and the last one its value.
        chunk["usage"] = Value::Null;
    }
    chunk
}

/// The list of models, or one of them.
pub(super) fn models(names: &[String]) -> Value {
    let data: Vec<Value> = names.iter().map(|name| model_card(name)).collect();
    json!({"object": "list", "data": data})
}

pub(super) fn model_card(name: &str) -> Value {
    json!({"id": name, "object": "model", "created": CREATED, "owned_by": "fake"})
}
