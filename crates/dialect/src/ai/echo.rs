//! A provider without a network: it repeats what it was told.
//!
//! Owns: answers made from the request alone, the same each time, in OpenAI's dialect. Refuses to
//! know: models.
//!
//! For trying the service out and for tests of all that lies between a client and a provider. Words
//! count as tokens, so that limits and bills can be checked by hand.

use bytes::Bytes;
use serde_json::Value;
use types::Usage;

use super::embeddings::{Input, packed};
use super::write::{Members, object};
use super::{ChatRequest, EmbeddingsRequest, Finish, Ids, finish, usage};

/// Numbers of a vector for which the client names no length.
const DIMENSIONS: usize = 8;
/// Numbers of a vector at most.
const DIMENSIONS_MAX: usize = 4_096;

/// What is answered.
struct Reply {
    words: Vec<String>,
    /// The tool that has to be called.
    tool: Option<String>,
    finish: Finish,
    usage: Usage,
}

/// The answer: the words of the last user's message, as many as the request permits; or a call of a
/// tool with no arguments where the request demands one.
#[must_use]
pub fn answer(request: &ChatRequest, ids: &Ids) -> Vec<u8> {
    let reply = reply(request);
    object(|body| {
        head(request, ids, "chat.completion", body);
        body.array("choices", |list| {
            list.object(|choice| {
                choice.count("index", 0);
                choice.object("message", |message| {
                    message.text("role", "assistant");
                    match &reply.tool {
                        None => message.text("content", &reply.words.join(" ")),
                        Some(name) => {
                            message.null("content");
                            call(name, ids, false, message);
                        }
                    }
                    message.null("refusal");
                });
                choice.null("logprobs");
                choice.text("finish_reason", finish::openai(reply.finish));
            });
        });
        body.object("usage", |out| usage::write_openai(&reply.usage, out));
    })
}

/// The same as a stream: one item for each event, the last one `[DONE]`. Holds usage whether the
/// client wants it or not.
#[must_use]
pub fn stream(request: &ChatRequest, ids: &Ids) -> Vec<Bytes> {
    let reply = reply(request);
    let chunk = |finish: Option<&str>, delta: &dyn Fn(&mut Members<'_>)| {
        event(&object(|body| {
            head(request, ids, "chat.completion.chunk", body);
            body.array("choices", |list| {
                list.object(|choice| {
                    choice.count("index", 0);
                    choice.object("delta", delta);
                    choice.null("logprobs");
                    match finish {
                        Some(word) => choice.text("finish_reason", word),
                        None => choice.null("finish_reason"),
                    }
                });
            });
        }))
    };
    let mut events = vec![chunk(None, &|delta| {
        delta.text("role", "assistant");
        delta.text("content", "");
    })];
    if let Some(name) = &reply.tool {
        events.push(chunk(None, &|delta| call(name, ids, true, delta)));
    }
    for (at, word) in reply.words.iter().enumerate() {
        let space = if at == 0 { "" } else { " " };
        events.push(chunk(None, &|delta| delta.text("content", &format!("{space}{word}"))));
    }
    events.push(chunk(Some(finish::openai(reply.finish)), &|_| {}));
    events.push(event(&object(|body| {
        head(request, ids, "chat.completion.chunk", body);
        body.array("choices", |_| {});
        body.object("usage", |out| usage::write_openai(&reply.usage, out));
    })));
    events.push(event(b"[DONE]"));
    events
}

/// Vectors in OpenAI's dialect, of length one and a text's own.
#[must_use]
pub fn embeddings(request: &EmbeddingsRequest) -> Vec<u8> {
    let wanted = request.dimensions().and_then(|count| usize::try_from(count).ok());
    let dimensions = wanted.unwrap_or(DIMENSIONS).min(DIMENSIONS_MAX);
    let inputs = request.inputs();
    let tokens = inputs.iter().map(|input| match input {
        Input::Text(text) => words(text),
        Input::Tokens(count) => *count as u64,
    });
    let tokens = tokens.fold(0, u64::saturating_add);
    object(|body| {
        body.text("object", "list");
        body.array("data", |list| {
            for (at, input) in inputs.iter().enumerate() {
                let seed = match input {
                    Input::Text(text) => hash(text.as_bytes()),
                    Input::Tokens(count) => hash(&count.to_le_bytes()),
                };
                let numbers = vector(seed, dimensions);
                list.object(|one| {
                    one.text("object", "embedding");
                    one.count("index", at as u64);
                    if request.wants_base64() {
                        one.text("embedding", &packed(&numbers));
                    } else {
                        one.array("embedding", |list| {
                            numbers.iter().for_each(|it| list.float(*it));
                        });
                    }
                });
            }
        });
        body.text("model", request.model());
        body.object("usage", |used| {
            used.count("prompt_tokens", tokens);
            used.count("total_tokens", tokens);
        });
    })
}

fn event(json: &[u8]) -> Bytes {
    Bytes::from([b"data: ", json, b"\n\n"].concat())
}

fn head(request: &ChatRequest, ids: &Ids, kind: &str, body: &mut Members<'_>) {
    body.text("id", &format!("chatcmpl-{}", ids.unique));
    body.text("object", kind);
    body.raw("created", &ids.created_secs.to_string());
    body.text("model", request.model());
}

fn call(name: &str, ids: &Ids, is_delta: bool, message: &mut Members<'_>) {
    message.array("tool_calls", |list| {
        list.object(|call| {
            if is_delta {
                call.count("index", 0);
            }
            call.text("id", &format!("call_{}_0", ids.unique));
            call.text("type", "function");
            call.object("function", |function| {
                function.text("name", name);
                function.text("arguments", "{}");
            });
        });
    });
}

fn reply(request: &ChatRequest) -> Reply {
    let body: Value = serde_json::from_slice(request.body()).unwrap_or_default();
    let messages = body["messages"].as_array().map(Vec::as_slice).unwrap_or_default();
    let heard = messages.iter().map(|message| words(&text(&message["content"])));
    let heard = heard.fold(words(&text(&body["system"])), u64::saturating_add);
    let last = messages.iter().rev().find(|message| message["role"] == "user");
    let said = last.map(|message| text(&message["content"])).unwrap_or_default();
    let mut words: Vec<String> = said.split_whitespace().map(str::to_owned).collect();
    let max = request.output_max().and_then(|max| usize::try_from(max).ok());
    let mut finish = Finish::Stop;
    if let Some(max) = max.filter(|max| *max < words.len()) {
        words.truncate(max);
        finish = Finish::Length;
    }
    let tool = forced_tool(&body);
    if tool.is_some() {
        words.clear();
        finish = Finish::ToolCalls;
    }
    // A call is a word.
    let output = words.len() as u64 + u64::from(tool.is_some());
    let usage = Usage { input: heard, output, ..Usage::default() };
    Reply { words, tool, finish, usage }
}

/// The tool that a request demands, in either dialect of clients.
fn forced_tool(body: &Value) -> Option<String> {
    let choice = &body["tool_choice"];
    let named = choice["function"]["name"].as_str().or(choice["name"].as_str());
    if let Some(name) = named {
        return Some(name.to_owned());
    }
    let must = choice == "required" || choice["type"] == "any";
    let first = &body["tools"][0];
    let first = first["function"]["name"].as_str().or(first["name"].as_str());
    first.filter(|_| must).map(str::to_owned)
}

/// The text of a content: itself, or its parts'.
fn text(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part["text"].as_str());
            texts.collect::<Vec<_>>().join(" ")
        }
        _ => String::new(),
    }
}

fn words(text: &str) -> u64 {
    text.split_whitespace().count() as u64
}

/// FNV-1a, 64 bits: the same on every machine.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// A direction for a hash.
fn vector(seed: u64, dimensions: usize) -> Vec<f32> {
    let mut state = seed;
    let numbers: Vec<f64> = (0..dimensions)
        .map(|_| {
            // SplitMix64.
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            f64::from((mixed >> 32) as u32) / f64::from(u32::MAX) - 0.5
        })
        .collect();
    let length = numbers.iter().map(|number| number * number).sum::<f64>().sqrt();
    // Half of nothing in every direction does not come out of a hash, but would divide by zero.
    let length = if length > 0.0 { length } else { 1.0 };
    numbers.into_iter().map(|number| (number / length) as f32).collect()
}
