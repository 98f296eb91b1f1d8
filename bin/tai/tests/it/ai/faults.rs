//! What a vendor's client sees when something says no: its key, its budget, its model, or the
//! provider behind it.
//!
//! Owns: that every refusal is the typed error that a program already handles, and that no broken
//! answer looks like a whole one. Refuses to know: the words of an error beyond its reason.

use std::time::Duration;

use testkit::provider::{End, Fault, Manner, Provider, Refusal, RetryAfter, Vendor, text};

use super::client::{ANTHROPIC, OPENAI, holds};
use super::desk::{Behind, Desk, MODEL, settled};

/// Nobody waits so long: what comes after it does not come.
const NEVER: Duration = Duration::from_secs(3_600);
const FAST: [(&str, &str); 1] = [("AI_MODEL", MODEL)];

/// The service in front of one provider that speaks OpenAI's dialect.
fn alone(more: &str, envs: &[(&str, &str)]) -> (Provider, Desk) {
    let provider = Provider::start().unwrap();
    let desk = Desk::open(&[Behind::new(&provider, Vendor::OpenAi)], more, envs);
    (provider, desk)
}

/// Both clients, with the same check.
fn both_hold(desk: &Desk, check: &str) {
    for script in [OPENAI, ANTHROPIC] {
        holds(desk, script, &FAST, &[check]);
    }
}

#[test]
fn an_empty_budget_is_the_error_that_clients_know() {
    testkit::needs_python!();
    let (provider, desk) = alone("", &[]);
    desk.set_budget(0);
    both_hold(&desk, "budget");
    assert_eq!(provider.totals().requests, 0, "nothing was asked that nobody pays for");
    desk.close();
}

#[test]
fn too_many_calls_are_the_error_that_clients_know() {
    testkit::needs_python!();
    let envs = [("RATE_LIMIT_BURST", "2"), ("RATE_LIMIT_PER_SECOND", "1")];
    let (provider, desk) = alone("", &envs);
    holds(&desk, OPENAI, &FAST, &["too_many"]);
    assert!(provider.totals().requests < 4);
    desk.close();
}

#[test]
fn what_the_provider_rejects_is_the_callers_to_mend() {
    testkit::needs_python!();
    let (provider, desk) = alone("", &[]);
    for refusal in [Refusal::ContextLength, Refusal::ContentPolicy] {
        provider.heal();
        provider.always(refusal);
        let before = provider.totals().requests;
        holds(&desk, OPENAI, &FAST, &["refused_by_provider"]);
        assert_eq!(provider.totals().requests, before + 1, "it is not asked again");
    }
    desk.close();
}

#[test]
fn a_provider_that_is_away_is_asked_again_by_the_client() {
    testkit::needs_python!();
    let (provider, desk) = alone("", &[]);
    provider.next(Refusal::Unavailable(None));
    provider.next(Refusal::ServerError);
    holds(&desk, OPENAI, &FAST, &["retried_by_the_client"]);
    desk.close();
}

#[test]
fn a_provider_that_wants_to_be_left_alone_is() {
    testkit::needs_python!();
    let (provider, desk) = alone("", &[]);
    provider.next(Refusal::RateLimited(Some(RetryAfter::Seconds(3_600))));
    holds(&desk, OPENAI, &FAST, &["busy"]);
    let asked = provider.totals().requests;
    holds(&desk, OPENAI, &FAST, &["busy"]);
    assert_eq!(provider.totals().requests, asked, "it asked for an hour");
    desk.close();
}

#[test]
fn a_silent_provider_is_left_when_its_caller_leaves() {
    testkit::needs_python!();
    let (provider, desk) = alone("", &[]);
    provider.always(Fault::HangBeforeHead);
    both_hold(&desk, "timeout");
    let books = settled(&provider);
    assert!(books.entries.iter().all(|entry| entry.end == End::HungUp), "{books:#?}");
    desk.close();
}

#[test]
fn a_silent_provider_is_left_at_the_deadline() {
    testkit::needs_python!();
    let (provider, desk) = alone("total_timeout_ms = 1000", &[]);
    provider.always(Fault::HangBeforeHead);
    holds(&desk, OPENAI, &FAST, &["provider_timeout"]);
    let books = settled(&provider);
    assert!(books.entries.iter().all(|entry| entry.end == End::HungUp), "{books:#?}");
    desk.close();
}

#[test]
fn a_caller_that_leaves_stops_the_provider() {
    testkit::needs_python!();
    let (provider, desk) = alone("", &[]);
    provider.set_manner(Manner { chunk_delay: NEVER, ..Manner::default() });
    both_hold(&desk, "early_leave");
    let books = settled(&provider);
    assert_eq!((books.totals.requests, books.totals.hung_up), (2, 2));
    assert_eq!(books.totals.completion_tokens, 2, "one token for each caller");
    desk.close();
}

#[test]
fn a_broken_stream_never_looks_finished() {
    testkit::needs_python!();
    // One stream after another breaks, and each is to be heard.
    let (provider, desk) = alone("", &[("CIRCUIT_BREAKER_THRESHOLD", "1000")]);
    for fault in
        [Fault::CutAfter(5), Fault::EndAfter(5), Fault::ResetAfter(5), Fault::ErrorAfter(5)]
    {
        provider.heal();
        provider.always(fault);
        both_hold(&desk, "broken_stream");
    }
    desk.close();
}

/// Two providers: the first one fails, and its caller does not see it.
fn failed_over(fault: impl Into<Fault>, continues: bool, more: &str) {
    let fault = fault.into();
    let (first, second) = (Provider::start().unwrap(), Provider::start().unwrap());
    first.always(fault.clone());
    let behind = [
        Behind::new(&first, Vendor::OpenAi),
        Behind::new(&second, Vendor::Anthropic).continuing(continues),
    ];
    let mut desk = Desk::open(&behind, more, &[]);
    if fault == Fault::Refuse(Refusal::BadKey) {
        // Nobody but a person can mend a key.
        desk.expect_errors();
    }
    both_hold(&desk, "whole_stream");
    let (first, second) = (settled(&first), settled(&second));
    assert!(first.totals.requests >= 1, "{fault:?}: nobody asked the first");
    assert_eq!(second.totals.requests, 2, "{fault:?}");
    if continues {
        let begun = &second.entries[0].body["messages"];
        let last = begun.as_array().unwrap().last().unwrap();
        assert_eq!(last["role"], "assistant", "{last}");
        assert_eq!(first.totals.completion_tokens + second.totals.completion_tokens, 40);
    }
    desk.close();
}

#[test]
fn what_a_provider_may_not_answer_is_asked_of_no_other() {
    testkit::needs_python!();
    let (first, second) = (Provider::start().unwrap(), Provider::start().unwrap());
    first.always(Refusal::ContentPolicy);
    let behind = [Behind::new(&first, Vendor::OpenAi), Behind::new(&second, Vendor::Anthropic)];
    let desk = Desk::open(&behind, "", &[]);
    holds(&desk, OPENAI, &FAST, &["refused_by_provider"]);
    assert_eq!((first.totals().requests, second.totals().requests), (1, 0));
    desk.close();
}

#[test]
fn before_the_first_token_another_provider_answers() {
    testkit::needs_python!();
    for fault in [
        Fault::Refuse(Refusal::Unavailable(None)),
        Fault::Refuse(Refusal::BadKey),
        Fault::HangBeforeFirstToken,
        Fault::CutAfter(0),
        Fault::Html,
        Fault::Empty,
    ] {
        failed_over(fault, false, "first_token_timeout_ms = 1000");
    }
}

#[test]
fn after_the_first_token_another_provider_goes_on() {
    testkit::needs_python!();
    assert_ne!(text(5), text(20));
    for fault in [Fault::CutAfter(5), Fault::ResetAfter(5), Fault::ErrorAfter(5)] {
        failed_over(fault, true, "first_token_timeout_ms = 1000");
    }
}
