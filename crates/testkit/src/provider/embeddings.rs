//! Vectors of texts, in the two dialects that have them.
//!
//! Owns: what such a request must hold, and its answer. Refuses to know: conversations.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::Vendor;
use super::answer::{Asked, vector};
use super::fault::Refusal;
use super::openai::{model, wrong};

const DIMENSIONS: usize = 8;
const DIMENSIONS_MAX: u64 = 4_096;

/// The answer to a request for vectors, and what it cost.
pub(super) fn answer(vendor: Vendor, body: &Value) -> Result<(u64, Value), Refusal> {
    if vendor == Vendor::Gemini { gemini(body) } else { openai(body) }
}

/// `batchEmbedContents`, which says nothing of what was used.
fn gemini(body: &Value) -> Result<(u64, Value), Refusal> {
    let invalid = |message: &str| Refusal::Invalid { param: None, message: message.to_owned() };
    let requests = body["requests"].as_array().filter(|requests| !requests.is_empty());
    let mut asked = Asked::default();
    let mut embeddings = Vec::new();
    for request in requests.ok_or_else(|| invalid("at least one request is required"))? {
        let parts = request["content"]["parts"].as_array().filter(|parts| !parts.is_empty());
        let text = |part: &Value| part["text"].as_str().map(str::to_owned);
        let texts = parts.and_then(|parts| parts.iter().map(text).collect::<Option<Vec<_>>>());
        let is_named = request["model"].as_str().is_some_and(|name| name.starts_with("models/"));
        let text = texts.filter(|_| is_named).ok_or_else(|| invalid("no content, or no model"))?;
        let text = text.concat();
        asked.count_text(&text);
        let dimensions = dimensions("output_dimensionality", &request["outputDimensionality"])?;
        embeddings.push(json!({"values": vector(&text, dimensions)}));
    }
    Ok((asked.prompt_tokens, json!({"embeddings": embeddings})))
}

fn dimensions(name: &str, wanted: &Value) -> Result<usize, Refusal> {
    if wanted.is_null() {
        return Ok(DIMENSIONS);
    }
    let fits = wanted.as_u64().filter(|wanted| (1..=DIMENSIONS_MAX).contains(wanted));
    fits.and_then(|wanted| usize::try_from(wanted).ok()).ok_or_else(|| wrong(name, "out of range"))
}

fn openai(body: &Value) -> Result<(u64, Value), Refusal> {
    let model = model(body)?;
    let dimensions = dimensions("dimensions", &body["dimensions"])?;
    let is_base64 = match body["encoding_format"].as_str() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => return Err(wrong("encoding_format", "not a format")),
    };
    let inputs = inputs(&body["input"])?;
    let mut asked = Asked::default();
    let mut data = Vec::new();
    for (at, input) in inputs.iter().enumerate() {
        asked.count_text(input);
        let numbers = vector(input, dimensions);
        let embedding = if is_base64 {
            let bytes: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
            json!(BASE64_STANDARD.encode(bytes))
        } else {
            json!(numbers)
        };
        data.push(json!({"object": "embedding", "index": at, "embedding": embedding}));
    }
    let tokens = asked.prompt_tokens;
    let usage = json!({"prompt_tokens": tokens, "total_tokens": tokens});
    Ok((tokens, json!({"object": "list", "data": data, "model": model, "usage": usage})))
}

/// One text or many; a list of numbers is a text that is tokens already.
fn inputs(input: &Value) -> Result<Vec<String>, Refusal> {
    let tokens = |list: &[Value]| {
        let all = list.iter().all(Value::is_u64);
        all.then(|| list.iter().map(Value::to_string).collect::<Vec<_>>().join(" "))
    };
    let found = match input {
        Value::String(text) => Some(vec![text.clone()]),
        Value::Array(list) if list.first().is_some_and(Value::is_u64) => {
            tokens(list).map(|text| vec![text])
        }
        Value::Array(list) => list
            .iter()
            .map(|one| match one {
                Value::String(text) => Some(text.clone()),
                Value::Array(list) => tokens(list),
                _ => None,
            })
            .collect(),
        _ => None,
    };
    found
        .filter(|texts| !texts.is_empty() && texts.iter().all(|text| !text.is_empty()))
        .ok_or_else(|| wrong("input", "expected a text, or an array of texts or tokens"))
}
