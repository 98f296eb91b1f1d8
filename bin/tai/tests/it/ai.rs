//! Real callers of models: the vendors' own clients, unmodified, in front of the running binary,
//! and behind it a provider that keeps books.
//!
//! Owns: the promise that a program which speaks to a vendor today speaks to the service tomorrow,
//! with another address and another key. Refuses to know: how the service translates.

mod client;
mod desk;
mod faults;
mod other;
mod table;

use serde_json::{Value, json};
use testkit::provider::{End, KEY, Manner, Provider, Statement, Vendor};

use crate::support::until;

use client::{ANTHROPIC, OPENAI, holds, run};
use desk::{Behind, Desk, EMBEDDINGS, MODEL, model_of, settled};

/// Whatever is behind the model.
const CHAT: &[&str] = &[
    "chat",
    "details_of_usage",
    "limit",
    "stream",
    "stream_without_usage",
    "stream_helper",
    "tools",
    "streamed_tools",
    "choice_of_tools",
    "json_schema",
    "pictures",
    "headers",
    "models",
    "async_client",
    "unknown_model",
    "bad_key",
    "bad_requests",
];
const MESSAGES: &[&str] = &[
    "message",
    "details_of_usage",
    "limit",
    "stream",
    "order_of_events",
    "tools",
    "streamed_tools",
    "choice_of_tools",
    "pictures",
    "headers",
    "async_client",
    "unknown_model",
    "bad_key",
    "bad_requests",
];

/// The provider thinks and caches, so that what is told of it can be held against its books.
fn thoughtful() -> Manner {
    Manner { cached_tokens: 3, reasoning_tokens: 5, ..Manner::default() }
}

/// Everything in front of one provider, and what it then has in its books.
fn through(vendor: Vendor, script: &str, checks: &[&str], more: &[&str]) {
    let provider = Provider::start().unwrap();
    provider.set_manner(thoughtful());
    let desk = Desk::open(&[Behind::new(&provider, vendor)], "", &[]);
    // Anthropic counts thoughts as part of the answer and does not say how many there were.
    let thoughts = if vendor == Vendor::Anthropic { "0" } else { "5" };
    let envs =
        [("AI_MODEL", MODEL), ("AI_THOUGHTS", thoughts), ("AI_EMBEDDINGS_MODEL", EMBEDDINGS)];
    holds(&desk, script, &envs, &[checks, more].concat());

    let books = settled(&provider);
    assert!(books.totals.requests > checks.len(), "{:?}", books.totals);
    assert_eq!(books.totals.hung_up, 0, "nobody left, so the service has heard every answer");
    for entry in &books.entries {
        assert_eq!(entry.end, End::Complete, "{entry:#?}");
        // Some of what callers do wrong is the provider's to say.
        assert!([200, 400].contains(&entry.status), "{entry:#?}");
        assert_eq!(entry.vendor, Some(vendor), "{}", entry.route);
        let shown = format!("{:?}", entry.headers);
        assert!(!shown.contains(desk.key()), "the provider is shown the tenant's key");
    }
    assert_eq!(books.entries.iter().filter(|entry| entry.pictures == 1).count(), 1);
    assert_billed(&desk, &books);
    desk.close();
}

/// What the tenant is told that it has used is what the provider would bill, token for token.
fn assert_billed(desk: &Desk, books: &Statement) {
    let mut tenant = desk.tenant();
    let answered = books.entries.iter().filter(|entry| entry.status == 200).count() as u64;
    let totals = &books.totals;
    let wanted =
        (answered, totals.prompt_tokens, totals.completion_tokens + totals.reasoning_tokens);
    let told = |usage: &Value| {
        let models = usage["models"].as_array().unwrap();
        let behind = models.iter().filter(|model| model["model"] != "echo");
        let sum = |buckets: &[&str]| -> u64 {
            let tokens = |model: &Value| {
                let count = |bucket: &&str| model["tokens"][*bucket].as_u64().unwrap_or(0);
                buckets.iter().map(count).sum::<u64>()
            };
            behind.clone().map(tokens).sum()
        };
        let calls = behind.clone().map(|model| model["calls"].as_u64().unwrap()).sum();
        (calls, sum(&["input", "cache_read", "cache_write"]), sum(&["output", "reasoning"]))
    };
    // Results are sealed behind the answers.
    let usage = until("nothing is open", || {
        let usage = tenant.get("/v1/usage").json().unwrap();
        (usage["open_calls"] == 0).then_some(usage)
    });
    assert_eq!(told(&usage), wanted, "{usage:#}");
    assert_eq!(
        (&usage["unknown_calls"], &usage["over_micros"]),
        (&json!(0), &json!(0)),
        "{usage:#}"
    );
    assert!(usage["spent_micros"].as_i64().unwrap() > 0, "{usage:#}");
}

#[test]
fn openais_client_speaks_to_openai() {
    testkit::needs_python!();
    through(Vendor::OpenAi, OPENAI, CHAT, &["json_mode", "embeddings", "embeddings_usage", "echo"]);
}

#[test]
fn openais_client_speaks_to_anthropic() {
    testkit::needs_python!();
    through(Vendor::Anthropic, OPENAI, CHAT, &[]);
}

#[test]
fn openais_client_speaks_to_gemini() {
    testkit::needs_python!();
    through(Vendor::Gemini, OPENAI, CHAT, &["json_mode"]);
}

/// Gemini does not say what vectors cost, so there is nothing to hold the bill against.
#[test]
fn openais_client_gets_vectors_of_gemini() {
    testkit::needs_python!();
    let provider = Provider::start().unwrap();
    let desk = Desk::open(&[Behind::new(&provider, Vendor::Gemini)], "", &[]);
    let envs = [("AI_MODEL", MODEL), ("AI_EMBEDDINGS_MODEL", EMBEDDINGS)];
    holds(&desk, OPENAI, &envs, &["embeddings"]);
    assert_eq!(settled(&provider).totals.requests, 3);
    desk.close();
}

#[test]
fn anthropics_client_speaks_to_anthropic() {
    testkit::needs_python!();
    through(Vendor::Anthropic, ANTHROPIC, MESSAGES, &["echo"]);
}

#[test]
fn anthropics_client_speaks_to_openai() {
    testkit::needs_python!();
    through(Vendor::OpenAi, ANTHROPIC, MESSAGES, &[]);
}

#[test]
fn anthropics_client_speaks_to_gemini() {
    testkit::needs_python!();
    through(Vendor::Gemini, ANTHROPIC, MESSAGES, &[]);
}

/// Where this fails, it is the checks or the fake that are wrong, and not the service.
#[test]
fn the_checks_hold_where_no_service_stands_between() {
    testkit::needs_python!();
    let provider = Provider::start().unwrap();
    provider.set_manner(thoughtful());
    let room = tempfile::tempdir().unwrap();
    let url = format!("http://{}", provider.address());
    // These are of the service and not of a vendor.
    let ours = ["headers", "bad_key", "unknown_model"];
    for (script, vendor, thoughts, checks) in
        [(OPENAI, Vendor::OpenAi, "5", CHAT), (ANTHROPIC, Vendor::Anthropic, "0", MESSAGES)]
    {
        let envs = [
            ("AI_URL", url.as_str()),
            ("AI_KEY", KEY),
            ("AI_MODEL", model_of(vendor)),
            ("AI_THOUGHTS", thoughts),
        ];
        let checks: Vec<&str> =
            checks.iter().copied().filter(|check| !ours.contains(check)).collect();
        assert_eq!(run(room.path(), script, &envs, &checks), Ok(()));
    }
}
