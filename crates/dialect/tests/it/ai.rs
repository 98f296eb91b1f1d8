//! Owns: the dialects of models, each against each, with bodies and streams of the published
//! shapes.

#![expect(clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod answers;
mod echo;
mod errors;
mod requests;
mod streams;
mod translations;
mod writing;

use bytes::Bytes;
use dialect::JsonLimits;
use dialect::ai::{Api, ChatRequest, Ids};
use serde_json::Value;

const LIMITS: JsonLimits = JsonLimits { max_depth: 64, max_nodes: 100_000 };

fn ids() -> Ids {
    Ids { unique: "u1".to_owned(), created_secs: 1_700_000_000 }
}

fn chat(api: Api, body: &str) -> ChatRequest {
    let read = ChatRequest::parse(api, &Bytes::from(body.to_owned()), &LIMITS);
    read.unwrap_or_else(|fault| panic!("{fault}: {body}"))
}

fn json(bytes: &[u8]) -> Value {
    let text = String::from_utf8_lossy(bytes);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
}
