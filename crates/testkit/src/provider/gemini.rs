//! Gemini's dialect: `generateContent` and models.
//!
//! Owns: what its requests must hold, and the exact shape of its answers. Refuses to know: faults,
//! sockets.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::answer::{Answer, Asked, Choice, Event, Part, Tool, called};
use super::fault::Refusal;

/// Others are refused, as the vendor does; it knows both ways to write a name.
const FIELDS: &[&str] = &[
    "cachedContent",
    "contents",
    "generationConfig",
    "labels",
    "safetySettings",
    "serviceTier",
    "store",
    "systemInstruction",
    "toolConfig",
    "tools",
];
const CONFIG_FIELDS: &[&str] = &[
    "candidateCount",
    "enableEnhancedCivicAnswers",
    "frequencyPenalty",
    "imageConfig",
    "logprobs",
    "maxOutputTokens",
    "mediaResolution",
    "presencePenalty",
    "responseJsonSchema",
    "responseLogprobs",
    "responseMimeType",
    "responseModalities",
    "responseSchema",
    "seed",
    "speechConfig",
    "stopSequences",
    "temperature",
    "thinkingConfig",
    "topK",
    "topP",
];

/// Content that is asked for of `model`, which the path names.
pub(super) fn asked(model: &str, is_stream: bool, body: &Value) -> Result<Asked, Refusal> {
    known(body, FIELDS)?;
    let config = field(body, "generationConfig");
    known(config, CONFIG_FIELDS)?;
    let contents = body["contents"].as_array().filter(|contents| !contents.is_empty());
    let contents = contents
        .ok_or_else(|| invalid("* GenerateContentRequest.contents: contents is not specified"))?;
    let limit = field(config, "maxOutputTokens");
    let tokens_max = limit.as_u64().filter(|&max| max > 0);
    if !limit.is_null() && tokens_max.is_none() {
        return Err(invalid(
            "Unable to submit request because it has a maxOutputTokens value of 0",
        ));
    }
    let mut asked = Asked {
        model: model.to_owned(),
        is_stream,
        wants_usage: true,
        tokens_max,
        ..Asked::default()
    };
    let system = field(body, "systemInstruction");
    if !system.is_null() {
        asked.count_message();
        Parts::read(&mut asked, system)?;
    }
    let result_came = conversation(&mut asked, contents)?;
    if field(config, "responseMimeType") == "application/json" {
        let schema = ["responseSchema", "responseJsonSchema"].map(|name| field(config, name));
        let schema = schema.into_iter().find(|schema| schema.is_object());
        asked.document = Some(schema.cloned().unwrap_or_default());
    }
    let offered = tools(&body["tools"])?;
    asked.count_tools(offered.len());
    let calling = field(field(body, "toolConfig"), "functionCallingConfig");
    asked.tools = called(offered, &choice(calling), result_came, true);
    Ok(asked)
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::Invalid { param: None, message: message.into() }
}

/// A field by its name, or by the same name with underscores.
fn field<'a>(body: &'a Value, name: &str) -> &'a Value {
    match &body[name] {
        Value::Null => &body[snake(name)],
        value => value,
    }
}

fn snake(name: &str) -> String {
    name.chars().fold(String::new(), |mut snake, letter| {
        if letter.is_ascii_uppercase() {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
        snake
    })
}

fn known(body: &Value, names: &[&str]) -> Result<(), Refusal> {
    let is_known = |sent: &str| names.iter().any(|name| *name == sent || snake(name) == sent);
    match body.as_object().and_then(|it| it.keys().find(|sent| !is_known(sent))) {
        None => Ok(()),
        Some(sent) => Err(invalid(format!(
            "Invalid JSON payload received. Unknown name \"{sent}\": Cannot find field."
        ))),
    }
}

/// Reads all turns; true when the last one brings the result of a tool. As many results come as
/// calls were made.
fn conversation(asked: &mut Asked, contents: &[Value]) -> Result<bool, Refusal> {
    let mut last = Parts::default();
    for content in contents {
        asked.count_message();
        let is_model = match content["role"].as_str() {
            Some("model") => true,
            Some("user" | "function") | None => false,
            Some(_) => return Err(invalid("Please use a valid role: user, model.")),
        };
        let read = Parts::read(asked, content)?;
        if read.results != last.calls {
            return Err(invalid(
                "Please ensure that the number of function response parts is equal to the number \
                 of function call parts of the function call turn.",
            ));
        }
        asked.prefix = if is_model { read.text.clone() } else { String::new() };
        last = read;
    }
    if last.calls > 0 {
        return Err(invalid(
            "Please ensure that a function call turn is followed by its response.",
        ));
    }
    Ok(last.results > 0)
}

/// What a turn holds beside what is counted.
#[derive(Default)]
struct Parts {
    text: String,
    calls: usize,
    results: usize,
}

impl Parts {
    fn read(asked: &mut Asked, content: &Value) -> Result<Parts, Refusal> {
        let mut found = Parts::default();
        let parts = content["parts"].as_array().filter(|parts| !parts.is_empty());
        for part in parts.ok_or_else(|| invalid("contents.parts must not be empty."))? {
            let of = |name| Some(field(part, name)).filter(|value| !value.is_null());
            if let Some(text) = part["text"].as_str() {
                found.text.push_str(text);
            } else if let Some(data) = of("inlineData") {
                let bytes = data["data"].as_str().and_then(|it| BASE64_STANDARD.decode(it).ok());
                if !field(data, "mimeType").is_string() || bytes.is_none_or(|it| it.is_empty()) {
                    return Err(invalid("Unable to process input image."));
                }
                asked.count_picture();
            } else if of("fileData").is_some() {
                asked.count_picture();
            } else if let Some(call) = of("functionCall") {
                if !call["name"].is_string()
                    || !(call["args"].is_object() || call["args"].is_null())
                {
                    return Err(invalid("Invalid value at 'function_call.args'"));
                }
                found.calls += 1;
            } else if let Some(result) = of("functionResponse") {
                if !result["name"].is_string() || !result["response"].is_object() {
                    return Err(invalid("Invalid value at 'function_response.response'"));
                }
                asked.count_text(&result["response"].to_string());
                found.results += 1;
            } else {
                return Err(invalid(
                    "Unable to submit request because it must have a text parameter.",
                ));
            }
        }
        asked.count_text(&found.text);
        Ok(found)
    }
}

fn tools(tools: &Value) -> Result<Vec<Tool>, Refusal> {
    let groups = tools.as_array().into_iter().flatten();
    let declared = groups
        .flat_map(|group| field(group, "functionDeclarations").as_array().into_iter().flatten());
    let read = |tool: &Value| {
        let name = tool["name"].as_str().ok_or_else(|| invalid("Invalid function name."))?;
        let schemas = ["parameters", "parametersJsonSchema"].map(|name| field(tool, name));
        let schema = schemas.into_iter().find(|schema| schema.is_object());
        let schema = schema.cloned().unwrap_or_default();
        if schema.get("additionalProperties").is_some() && tool["parameters"].is_object() {
            return Err(invalid(
                "Invalid JSON payload received. Unknown name \"additionalProperties\": Cannot find \
                 field.",
            ));
        }
        Ok(Tool { name: name.to_owned(), schema })
    };
    declared.map(read).collect()
}

fn choice(calling: &Value) -> Choice {
    let names = field(calling, "allowedFunctionNames");
    match (calling["mode"].as_str(), names.get(0).and_then(Value::as_str)) {
        (Some("NONE"), _) => Choice::None,
        (Some("ANY"), Some(name)) => Choice::Named(name.to_owned()),
        (Some("ANY"), None) => Choice::Any,
        _ => Choice::Auto,
    }
}

/// A whole answer.
pub(super) fn whole(answer: &Answer) -> Value {
    let mut parts: Vec<Value> = Vec::new();
    if !answer.tokens.is_empty() {
        parts.push(json!({"text": answer.text()}));
    }
    parts.extend(calls(answer));
    piece(answer, &json!(parts), answer.completion(), true)
}

fn calls(answer: &Answer) -> impl Iterator<Item = Value> {
    let part = |call: &super::answer::Call| json!({"functionCall": {"name": call.name, "args": call.arguments}});
    answer.calls.iter().map(part)
}

/// A whole answer or a piece of one: they have one shape, and each says what was used so far.
fn piece(answer: &Answer, parts: &Value, tokens: u64, is_last: bool) -> Value {
    let mut candidate = json!({"content": {"parts": parts, "role": "model"}, "index": 0});
    if is_last && answer.with_finish {
        candidate["finishReason"] = json!(if answer.is_cut_short { "MAX_TOKENS" } else { "STOP" });
    }
    let mut piece = json!({
        "candidates": [candidate], "modelVersion": answer.model, "responseId": answer.serial,
    });
    if answer.with_usage {
        piece["usageMetadata"] = usage(answer, tokens);
    }
    piece
}

/// What is cached is part of the prompt; thoughts are no part of the candidates.
fn usage(answer: &Answer, tokens: u64) -> Value {
    let mut usage = json!({
        "promptTokenCount": answer.prompt,
        "candidatesTokenCount": tokens,
        "totalTokenCount": answer.prompt + tokens + answer.reasoning,
        "promptTokensDetails": [{"modality": "TEXT", "tokenCount": answer.prompt}],
    });
    if answer.cached > 0 {
        usage["cachedContentTokenCount"] = json!(answer.cached);
    }
    if answer.reasoning > 0 {
        usage["thoughtsTokenCount"] = json!(answer.reasoning);
    }
    usage
}

/// A streamed answer: whole bodies, of which the last says why it ends. There is no other mark of
/// the end, and lines end as on the vendor's wire.
pub(super) fn events(answer: &Answer) -> Vec<Event> {
    let mut events = Vec::new();
    let mut sent = 0;
    for (tokens, text) in answer.chunks() {
        sent += tokens;
        events.push((tokens, sent, json!([{"text": text}])));
    }
    for (call, part) in answer.calls.iter().zip(calls(answer)) {
        let tokens = call.pieces.len() as u64;
        sent += tokens;
        events.push((tokens, sent, json!([part])));
    }
    let mut events: Vec<Event> = events
        .into_iter()
        .map(|(tokens, sent, parts)| event(Part::Content, tokens, answer, &parts, sent, false))
        .collect();
    if answer.with_finish {
        events.push(event(Part::Closing, 0, answer, &json!([{"text": ""}]), sent, true));
    }
    events
}

fn event(
    part: Part,
    tokens: u64,
    answer: &Answer,
    parts: &Value,
    sent: u64,
    is_last: bool,
) -> Event {
    let bytes = format!("data: {}\r\n\r\n", piece(answer, parts, sent, is_last));
    Event { part, tokens, bytes }
}

/// The list of models.
pub(super) fn models(names: &[String]) -> Value {
    let models: Vec<Value> = names.iter().map(|name| model_card(name)).collect();
    json!({"models": models})
}

pub(super) fn model_card(name: &str) -> Value {
    json!({
        "name": format!("models/{name}"), "version": "001", "displayName": name,
        "inputTokenLimit": 1_048_576, "outputTokenLimit": 65_536,
        "supportedGenerationMethods": ["generateContent"],
    })
}
