//! Every fault of a provider, in every dialect, streamed and whole: what its caller sees when there
//! is a second provider.
//!
//! Owns: the table. Refuses to know: how the service finds out.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::http::Response;
use testkit::provider::{Fault, Provider, Refusal, RetryAfter, Vendor, text};

use super::desk::{Behind, Desk, MODEL, settled};

/// What the caller sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// All of the answer, which the first provider gave.
    Fine,
    /// All of the answer, which the second provider gave.
    Healed,
    /// That the request is not one, or may not be answered; the second provider was not asked.
    Rejected,
    /// Some of the answer and then that it broke; nothing that looks like an end.
    Broken,
}

/// What is seen of a stream, and of a whole answer.
fn table() -> Vec<(Fault, Seen, Seen)> {
    use Seen::{Broken, Fine, Healed, Rejected};
    let hour = Some(RetryAfter::Seconds(3_600));
    let refused = |refusal: Refusal| Fault::Refuse(refusal);
    vec![
        (refused(Refusal::RateLimited(None)), Healed, Healed),
        (refused(Refusal::RateLimited(hour)), Healed, Healed),
        (refused(Refusal::RateLimited(Some(RetryAfter::Date(60)))), Healed, Healed),
        (refused(Refusal::ServerError), Healed, Healed),
        (refused(Refusal::Unavailable(None)), Healed, Healed),
        (refused(Refusal::Overloaded), Healed, Healed),
        (refused(Refusal::BadKey), Healed, Healed),
        (refused(Refusal::Forbidden), Healed, Healed),
        (refused(Refusal::OutOfCredit), Healed, Healed),
        (refused(Refusal::ContextLength), Rejected, Rejected),
        (refused(Refusal::ContentPolicy), Rejected, Rejected),
        (Fault::Redirect, Healed, Healed),
        (Fault::HangBeforeHead, Healed, Healed),
        (Fault::HangAfterHead, Healed, Healed),
        (Fault::HangBeforeFirstToken, Healed, Healed),
        (Fault::Garbage, Healed, Healed),
        (Fault::Html, Healed, Healed),
        (Fault::Empty, Healed, Healed),
        (Fault::CutAfter(0), Healed, Healed),
        (Fault::EndAfter(0), Healed, Healed),
        (Fault::ResetAfter(0), Healed, Healed),
        (Fault::ErrorAfter(0), Healed, Healed),
        (Fault::StallAfter(0), Healed, Healed),
        (Fault::HugeChunk, Healed, Fine),
        (Fault::CutAfter(5), Broken, Healed),
        (Fault::EndAfter(5), Broken, Healed),
        (Fault::ResetAfter(5), Broken, Healed),
        (Fault::ErrorAfter(5), Broken, Healed),
        (Fault::StallAfter(5), Broken, Healed),
        (Fault::MalformedAfter(5), Broken, Healed),
        (Fault::NoFinish, Broken, Healed),
        (Fault::TruncatedJson, Broken, Healed),
        (Fault::NoDone, Fine, Fine),
        (Fault::NoUsage, Fine, Fine),
        (Fault::Pieces, Fine, Fine),
        (Fault::TrickledHead(Duration::from_micros(100)), Fine, Fine),
        (Fault::Slow(Duration::from_millis(1)), Fine, Fine),
        (Fault::Gzip, Healed, Healed),
    ]
}

/// The text, the reasons to end, and whether an error is told inside the stream.
fn heard(response: &Response) -> (String, Vec<Value>, bool) {
    let body = String::from_utf8_lossy(&response.body);
    let events: Vec<Value> = match body.starts_with('{') {
        true => vec![serde_json::from_str(&body).unwrap()],
        false => body
            .lines()
            .filter_map(|line| line.strip_prefix("data: "))
            .filter(|data| *data != "[DONE]")
            .map(|data| serde_json::from_str(data).unwrap())
            .collect(),
    };
    let choices = || events.iter().map(|event| &event["choices"][0]);
    let said = choices().filter_map(|choice| {
        choice["delta"]["content"].as_str().or_else(|| choice["message"]["content"].as_str())
    });
    let finishes = choices().map(|choice| choice["finish_reason"].clone());
    let finishes = finishes.filter(|finish| !finish.is_null()).collect();
    (said.collect(), finishes, events.iter().any(|event| event["error"].is_object()))
}

/// What the caller sees of one fault; `Err` is a sight that nobody may have.
fn seen(fault: &Fault, vendor: Vendor, is_stream: bool) -> Result<Seen, String> {
    let (first, second) = (Provider::start().unwrap(), Provider::start().unwrap());
    first.always(fault.clone());
    let behind = [Behind::new(&first, vendor), Behind::new(&second, Vendor::OpenAi)];
    let envs = [("AI_GAP_TIMEOUT_MS", "1500"), ("AI_ANSWER_TIMEOUT_MS", "1500")];
    let mut desk = Desk::open(&behind, "first_token_timeout_ms = 1500", &envs);
    desk.expect_errors();
    let ask = json!([{"role": "user", "content": "hi"}]);
    let body = json!({"model": MODEL, "messages": ask, "stream": is_stream, "max_tokens": 100});
    let response = desk.tenant().post("/v1/chat/completions", &body);
    let whole = text(20);
    let (said, finishes, is_error) = heard(&response);
    let asked = settled(&second).totals.requests;
    let complete = said.ends_with(&whole) && finishes == [json!("stop")] && !is_error;
    match (response.status, asked) {
        (200, 0) if complete => Ok(Seen::Fine),
        (200, 1) if complete && said == whole => Ok(Seen::Healed),
        (400, 0) => Ok(Seen::Rejected),
        // Gemini's way to say it, in the words of the caller's dialect.
        (200, 0) if said.is_empty() && finishes == [json!("content_filter")] => Ok(Seen::Rejected),
        (200, _) if is_error && finishes.is_empty() => Ok(Seen::Broken),
        _ => Err(format!("{} after {asked} others: {said} {finishes:?}", response.status)),
    }
}

fn assert_table(vendor: Vendor) {
    let mut wrong = Vec::new();
    for (fault, stream, whole) in table() {
        for (is_stream, wanted) in [(true, stream), (false, whole)] {
            let found = seen(&fault, vendor, is_stream);
            if found != Ok(wanted) {
                wrong.push(format!("{fault:?}, stream {is_stream}: {found:?}, not {wanted:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{vendor:?}: {wrong:#?}");
}

#[test]
fn every_fault_of_openais_dialect_is_taken_as_it_must_be() {
    assert_table(Vendor::OpenAi);
}

#[test]
fn every_fault_of_anthropics_dialect_is_taken_as_it_must_be() {
    assert_table(Vendor::Anthropic);
}

#[test]
fn every_fault_of_geminis_dialect_is_taken_as_it_must_be() {
    assert_table(Vendor::Gemini);
}
