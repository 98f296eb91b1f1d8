//! One look from outside at each setting of calls to models: two values, two different outcomes.
//!
//! Owns: how each difference is made to show, by what the provider's books or the caller's answer
//! say and not by how long it took. Refuses to know: which settings there are.

use testkit::provider::{Manner, Refusal};

use super::*;

/// Longer than the short clocks of these tests, and far shorter than the long ones.
const PAUSE: Duration = Duration::from_millis(600);
const SHORT_MS: &str = "200";
const LONG_MS: &str = "60000";

/// Asks a fresh service in front of one provider, and says what the answer was.
fn asked(
    provider: &Provider,
    envs: &[(&str, &str)],
    ask: impl FnOnce(&mut Caller) -> String,
) -> String {
    let once = [("MAX_RETRIES", "0"), ("CIRCUIT_BREAKER_THRESHOLD", "1000")];
    let mut house = House::start(&[("one", Vendor::OpenAi, provider)], "", &[&once, envs].concat());
    house.tai.expect_errors();
    let outcome = ask(&mut house.local());
    house.close("local");
    outcome
}

/// The reason of a refusal, or of the error that a stream ends in; `complete` where there is none.
fn outcome(response: &Response) -> String {
    if response.status != 200 {
        return response.json().unwrap()["error"]["code"].as_str().unwrap().to_owned();
    }
    if response.header("content-type").unwrap().starts_with("text/event-stream") {
        return heard(&response.body).error.unwrap_or_else(|| "complete".to_owned());
    }
    "complete".to_owned()
}

fn one(body: &Value) -> impl Fn(&mut Caller) -> String {
    let body = body.clone();
    move |caller| outcome(&caller.post("/v1/chat/completions", &body))
}

fn whole() -> Value {
    chat("one/gpt-4o-mini")
}

fn stream() -> Value {
    streamed("one/gpt-4o-mini")
}

fn slow(manner: impl FnOnce(&mut Manner)) -> Provider {
    let provider = Provider::start().unwrap();
    let mut slow = Manner { tokens: 4, ..Manner::default() };
    manner(&mut slow);
    provider.set_manner(slow);
    provider
}

fn clock(name: &str, provider: &Provider, body: &Value, late: &str) {
    assert_eq!(asked(provider, &[(name, SHORT_MS)], one(body)), late, "{name}");
    assert_eq!(asked(provider, &[(name, LONG_MS)], one(body)), "complete", "{name}");
}

pub(crate) fn timeout_threshold_ms() {
    let provider = slow(|manner| manner.first_token_delay = PAUSE);
    clock("TIMEOUT_THRESHOLD_MS", &provider, &stream(), "provider_timeout");
}

pub(crate) fn ai_answer_timeout_ms() {
    let provider = slow(|manner| manner.head_delay = PAUSE);
    clock("AI_ANSWER_TIMEOUT_MS", &provider, &whole(), "provider_timeout");
}

pub(crate) fn ai_gap_timeout_ms() {
    let provider = slow(|manner| manner.chunk_delay = PAUSE);
    clock("AI_GAP_TIMEOUT_MS", &provider, &stream(), "provider_timeout");
}

pub(crate) fn ai_timeout_ms() {
    // No clock but that of the whole call is short.
    let provider = slow(|manner| manner.chunk_delay = PAUSE / 3);
    clock("AI_TIMEOUT_MS", &provider, &stream(), "provider_timeout");
}

pub(crate) fn ai_max_body_bytes() {
    let provider = Provider::start().unwrap();
    let mut long = whole();
    long["messages"][0]["content"] = "a word ".repeat(400).into();
    for (bytes, expected) in [("2048", "payload_too_large"), ("1048576", "complete")] {
        assert_eq!(asked(&provider, &[("AI_MAX_BODY_BYTES", bytes)], one(&long)), expected);
    }
}

pub(crate) fn max_retries() {
    let provider = Provider::start().unwrap();
    provider.always(Refusal::ServerError);
    for (retries, requests) in [("0", 1), ("2", 3)] {
        let before = provider.totals().requests;
        let outcome = asked(&provider, &[("MAX_RETRIES", retries)], one(&whole()));
        assert_eq!(outcome, "provider_error");
        assert_eq!(provider.totals().requests - before, requests, "MAX_RETRIES={retries}");
    }
}

pub(crate) fn circuit_breaker_threshold() {
    let provider = Provider::start().unwrap();
    provider.always(Refusal::ServerError);
    for (threshold, requests, last) in
        [("2", 2, "provider_unavailable"), ("1000", 4, "provider_error")]
    {
        let before = provider.totals().requests;
        let outcome = asked(&provider, &[("CIRCUIT_BREAKER_THRESHOLD", threshold)], |caller| {
            (0..4).map(|_| one(&whole())(caller)).last().unwrap()
        });
        assert_eq!(outcome, last, "{threshold}");
        assert_eq!(provider.totals().requests - before, requests, "{threshold}");
    }
}

pub(crate) fn circuit_breaker_timeout() {
    let provider = Provider::start().unwrap();
    let healed = |timeout: &str| {
        provider.next(Refusal::ServerError);
        let envs = [("CIRCUIT_BREAKER_THRESHOLD", "1"), ("CIRCUIT_BREAKER_TIMEOUT", timeout)];
        asked(&provider, &envs, |caller| {
            assert_eq!(one(&whole())(caller), "provider_error");
            // Longer than the short one.
            let began = std::time::Instant::now();
            until("a moment to pass", || (began.elapsed() > PAUSE).then_some(()));
            one(&whole())(caller)
        })
    };
    assert_eq!(healed("1"), "complete", "it is asked again, and works");
    assert_eq!(healed("3600000"), "provider_unavailable");
}

pub(crate) fn circuit_breaker_force() {
    let provider = Provider::start().unwrap();
    for (force, expected, requests) in
        [("none", "complete", 1), ("one=open", "provider_unavailable", 0)]
    {
        let before = provider.totals().requests;
        let outcome = asked(&provider, &[("CIRCUIT_BREAKER_FORCE", force)], |caller| {
            let state = caller.get("/admin/dependencies").json().unwrap();
            assert_eq!(state["dependencies"][0]["is_forced"], force != "none", "{state}");
            one(&whole())(caller)
        });
        assert_eq!(outcome, expected, "{force}");
        assert_eq!(provider.totals().requests - before, requests, "{force}");
    }
}

pub(crate) fn providers_file() {
    let provider = Provider::start().unwrap();
    assert_eq!(asked(&provider, &[], one(&whole())), "complete");
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    assert_eq!(one(&whole())(&mut Caller::local(tai.address())), "model_not_found");
    stop(tai);
}

fn vendor(variable: &str, name: &str) {
    for (value, expected) in [("", vec![]), ("a-key", vec![name.to_owned()])] {
        let (_room, dir) = room();
        let tai = start(&dir, &[(variable, value)]);
        let mut caller = Caller::local(tai.address());
        let state = caller.get("/admin/dependencies").json().unwrap();
        let names = state["dependencies"].as_array().unwrap().iter();
        let names: Vec<String> =
            names.map(|one| one["name"].as_str().unwrap().to_owned()).collect();
        assert_eq!(names, expected, "{variable}");
        assert!(tai.log_lines().iter().all(|line| !line.contains("a-key")));
        stop(tai);
    }
}

pub(crate) fn openai_api_key() {
    vendor("OPENAI_API_KEY", "openai");
}

pub(crate) fn anthropic_api_key() {
    vendor("ANTHROPIC_API_KEY", "anthropic");
}

pub(crate) fn gemini_api_key() {
    vendor("GEMINI_API_KEY", "gemini");
}

/// The runbook of seed 004 raises these while the service runs, and a lease takes them back.
#[test]
fn toggles_hold_from_the_next_call_on() {
    let provider = Provider::start().unwrap();
    let once = [("MAX_RETRIES", "0"), ("CIRCUIT_BREAKER_THRESHOLD", "1000")];
    let mut house = House::start(&[("one", Vendor::OpenAi, &provider)], "", &once);
    house.tai.expect_errors();
    let mut caller = house.local();
    let set = |name: &str, value: &str| {
        let order = json!({"value": value, "lease_s": 600});
        let response = house.local().put(&format!("/admin/settings/{name}"), &order);
        assert_eq!(response.status, 200, "{}", text(&response));
    };
    let requests = |caller: &mut Caller| {
        let before = provider.totals().requests;
        let outcome = one(&whole())(caller);
        (outcome, provider.totals().requests - before)
    };
    provider.always(Refusal::ServerError);
    assert_eq!(requests(&mut caller), ("provider_error".to_owned(), 1));
    set("MAX_RETRIES", "1");
    assert_eq!(requests(&mut caller), ("provider_error".to_owned(), 2));
    set("CIRCUIT_BREAKER_THRESHOLD", "3");
    assert_eq!(requests(&mut caller), ("provider_unavailable".to_owned(), 0), "three have failed");
    provider.heal();
    assert_eq!(requests(&mut caller).1, 0, "it is left alone for 30 s");
    set("CIRCUIT_BREAKER_TIMEOUT", "1");
    until("the breaker to let one through", || {
        (requests(&mut caller).0 == "complete").then_some(())
    });
    let slow = Manner { tokens: 2, first_token_delay: PAUSE, ..Manner::default() };
    provider.set_manner(slow);
    set("TIMEOUT_THRESHOLD_MS", SHORT_MS);
    set("MAX_RETRIES", "0");
    assert_eq!(one(&stream())(&mut caller), "provider_timeout");
    set("TIMEOUT_THRESHOLD_MS", LONG_MS);
    set("CIRCUIT_BREAKER_THRESHOLD", "1000");
    assert_eq!(one(&stream())(&mut caller), "complete");
    house.close("local");
}
