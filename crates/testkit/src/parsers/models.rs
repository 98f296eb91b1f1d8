//! Readers of what clients and providers of models say.
//!
//! Owns: that a request says the same model in every dialect it can be said in, that an answer and
//! a stream mean the same however they come, and that an error is bounded. Refuses to know: routes.

use bytes::{Bytes, BytesMut};
use dialect::JsonLimits;
use dialect::ai::{
    Answer, Api, ChatRequest, Edits, EmbeddingsRequest, Event, Ids, ProviderError, StreamReader,
    StreamWriter, Unsupported, Upstream,
};
use serde_json::Value;
use types::Operation;

use super::bodies::judged;

/// The dialects of clients.
const CLIENTS: [Api; 2] = [Api::OpenAi, Api::Anthropic];
/// A name that no input has by chance.
const MODEL: &str = "up/stream";

/// Both requests for an answer and the one for vectors; one text may be more than one of them.
pub(super) fn ai_request(bytes: &[u8]) -> bool {
    let bounds = JsonLimits { max_depth: 64, max_nodes: 10_000 };
    let body = Bytes::copy_from_slice(bytes);
    let mut is_taken = false;
    for api in CLIENTS {
        let Some(request) = judged(bytes, ChatRequest::parse(api, &body, &bounds)) else {
            continue;
        };
        is_taken = true;
        assert!(request.output_max() != Some(0) && !request.model().is_empty());
        assert!(request.input_tokens_max(1) <= request.input_tokens_max(1_000));
        let edits = Edits { output_cap: Some(7), want_usage: true };
        for to in Api::ALL {
            check_upstream(to == api, request.for_upstream(to, MODEL, &edits));
            let continued = request.continued(to, MODEL, "so far ", &edits);
            assert!(request.can_continue() || continued.is_err());
            check_upstream(to == api && request.can_continue(), continued);
        }
        let own =
            request.for_upstream(api, MODEL, &edits).map(|upstream| Bytes::from(upstream.body));
        let again = own.ok().and_then(|own| ChatRequest::parse(api, &own, &bounds).ok());
        // What the edits add may be more than the limits that the request was just within.
        if let Some(again) = again {
            assert_eq!(again.model(), MODEL);
            assert!(again.output_max().is_none_or(|max| max <= 128), "the cap, or one a choice");
            assert_eq!(again.streams(), request.streams());
        }
    }
    if let Some(request) = judged(bytes, EmbeddingsRequest::parse(&body, &bounds)) {
        is_taken = true;
        for to in Api::ALL {
            check_upstream(to == Api::OpenAi, request.for_upstream(to, MODEL));
        }
    }
    is_taken
}

fn check_upstream(must_be: bool, found: Result<Upstream, Unsupported>) {
    match found {
        Ok(upstream) => {
            assert!(upstream.path.starts_with('/') && !upstream.path.contains(MODEL));
            let body: Result<Value, _> = serde_json::from_slice(&upstream.body);
            assert!(body.is_ok_and(|body| body.is_object()), "a provider gets what is no object");
        }
        Err(why) => {
            assert!(!must_be, "its own dialect has no word: {why}");
            assert!(!why.to_string().contains(char::is_control), "{why:?}");
        }
    }
}

fn ids() -> Ids {
    Ids { unique: "0".to_owned(), created_secs: 0 }
}

/// A whole answer or vectors, in any dialect.
pub(super) fn ai_answer(bytes: &[u8]) -> bool {
    let body = Bytes::copy_from_slice(bytes);
    let mut is_taken = false;
    for from in Api::ALL {
        for op in Operation::ALL {
            let Ok(answer) = Answer::parse(from, op, &body) else { continue };
            is_taken = true;
            for to in CLIENTS {
                let rendered = Bytes::from(answer.render(to, MODEL, &ids()));
                let shown: Value = serde_json::from_slice(&rendered).unwrap_or_default();
                assert_eq!(shown["model"], MODEL, "a client gets another model");
                if op == Operation::Embeddings {
                    continue;
                }
                let again = Answer::parse(to, op, &rendered);
                assert!(again.is_ok(), "{again:?} after {from:?} to {to:?}");
                let Ok(again) = again else { continue };
                let total = |answer: &Answer| answer.usage().map(|usage| usage.total());
                let is_same = total(&again) == total(&answer);
                // In Anthropic's dialect there is no answer without counts.
                let is_added = to == Api::Anthropic && answer.usage().is_none();
                // A sum of counts that are just within the limit is not within it.
                let is_huge = total(&answer).is_some_and(|total| total > 1 << 50);
                assert!(is_same || is_added || is_huge, "{from:?} to {to:?} counts anew");
            }
        }
    }
    is_taken
}

/// All that a stream says, fed in pieces of that size.
fn events(from: Api, bytes: &[u8], size: usize) -> (Vec<Event>, bool) {
    let mut reader = StreamReader::new(from);
    let mut events = Vec::new();
    let mut is_good = true;
    for piece in bytes.chunks(size) {
        is_good &= reader.feed(piece).is_ok();
        events.extend(std::iter::from_fn(|| reader.next()));
    }
    is_good &= reader.end().is_ok();
    events.extend(std::iter::from_fn(|| reader.next()));
    (events, is_good)
}

/// A stream of any dialect, which must not depend on how it is split.
pub(super) fn ai_stream(bytes: &[u8]) -> bool {
    let mut is_taken = false;
    for from in Api::ALL {
        let (whole, is_good) = events(from, bytes, bytes.len().max(1));
        for size in [1, 7] {
            assert_eq!(events(from, bytes, size), (whole.clone(), is_good), "split by {size}");
        }
        for to in CLIENTS {
            let mut writer = StreamWriter::new(to, from, MODEL, ids(), true);
            let mut out = BytesMut::new();
            let half = whole.len() / 2;
            whole.iter().take(half).for_each(|event| writer.write(event, &mut out));
            writer.resume(from, "so far ");
            whole.iter().skip(half).for_each(|event| writer.write(event, &mut out));
            writer.end(&mut out);
            // What is passed on as it came may be anything, but text stays text.
            assert!(std::str::from_utf8(&out).is_ok(), "a client gets what is no text");
        }
        is_taken |= is_good;
    }
    is_taken
}

/// The body of an error; taken where the provider has a word for it.
pub(super) fn ai_error(bytes: &[u8]) -> bool {
    let mut is_taken = false;
    for from in Api::ALL {
        for status in [0, 200, 302, 400, 401, 404, 429, 500, 529] {
            let error = ProviderError::parse(from, status, bytes);
            assert!((1..=64).contains(&error.code.len()), "{error:?}");
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            assert!(error.code.bytes().all(plain), "{error:?}");
            assert!(error.message.len() <= 512 && !error.message.contains(char::is_control));
            is_taken |= !error.code.starts_with("http_");
        }
    }
    is_taken
}
