//! Limits of calls and of spend: nobody passes them, however many ask at once and whatever dies.
//!
//! INV-9: what calls have used, may use and may have used is never more than the limit.

use std::sync::Barrier;
use std::thread;

use super::*;

const CLIENTS: usize = 256;
const CALLS: u64 = 1_000;

fn set(admin: &mut Caller, tenant: &str, budget: &Value) {
    let response = admin.put(&format!("/admin/tenants/{tenant}/budget"), budget);
    assert_eq!(response.status, 200, "{}", text(&response));
}

fn grant(admin: &mut Caller, tenant: &str) {
    let grant = json!({"tenant_id": tenant, "entitlement_id": "enterprise", "action": "grant"});
    assert_eq!(admin.post("/marketplace", &grant).status, 200);
}

/// Calls until the budget is spent, or the service is gone.
fn drain(address: std::net::SocketAddr, key: &Issued, began: &Barrier) -> u64 {
    let mut answered = 0;
    began.wait();
    loop {
        let own = [JSON, ("X-API-Key", key.text.as_str())];
        let body = chat("one/gpt-4o-mini").to_string();
        let Ok(mut client) = testkit::http::Client::connect(address) else { return answered };
        let Ok(response) = client.request("POST", "/v1/chat/completions", &own, body.as_bytes())
        else {
            return answered;
        };
        match response.status {
            200 => answered += 1,
            402 => return answered,
            429 | 503 => {}
            status => panic!("{status}: {}", text(&response)),
        }
    }
}

#[test]
fn a_budget_of_calls_holds_under_256_clients_and_a_kill() {
    let provider = Provider::start().unwrap();
    let named = [("one", Vendor::OpenAi, &provider)];
    let envs = [
        ("RATE_LIMIT_PER_SECOND", "1000000"),
        ("RATE_LIMIT_BURST", "1000000"),
        ("TENANT_MAX_CONCURRENT", "1000"),
        ("GOVERNOR_STATE_CHECK_INTERVAL_MS", "50"),
    ];
    let (_room, dir) = room();
    let mut tai = House::serve(&dir, &named, "", &envs);
    let mut admin = Caller::local(tai.address());
    grant(&mut admin, "acme");
    set(&mut admin, "acme", &json!({"calls": CALLS, "period": "ever"}));
    let key = issue(&mut admin, &json!({"tenant_id": "acme"}));
    let rush = |address, is_killed: &mut dyn FnMut()| {
        let began = Barrier::new(CLIENTS + 1);
        thread::scope(|scope| {
            let clients: Vec<_> =
                (0..CLIENTS).map(|_| scope.spawn(|| drain(address, &key, &began))).collect();
            began.wait();
            is_killed();
            clients.into_iter().map(|client| client.join().unwrap()).sum::<u64>()
        })
    };
    let before = rush(tai.address(), &mut || {
        provider.wait_for(PATIENCE, |books| (books.totals.requests > 300).then_some(())).unwrap();
        tai.kill().unwrap();
    });
    let tai = House::serve(&dir, &named, "", &envs);
    let after = rush(tai.address(), &mut || {});
    let mut admin = key.caller(tai.address());
    let usage = until("all to be settled", || {
        let usage = admin.get("/v1/usage").json().unwrap();
        (usage["open_calls"] == 0).then_some(usage)
    });
    assert_eq!(usage["calls"], CALLS, "{usage}");
    stop(tai);
    let receipts = assert_verified(&dir);
    let count = |kind: &str, status: Option<&str>| {
        let of_kind = receipts.iter().filter(|receipt| {
            receipt["stream"] == "acme"
                && receipt["type"] == kind
                && status.is_none_or(|status| receipt["status"] == status)
        });
        of_kind.count() as u64
    };
    let attempts = count("action_attempt", None);
    let (settled, unknown) =
        (count("action_result", None), count("action_result", Some("unknown")));
    let released = count("action_result", Some("error"));
    assert_eq!(attempts - released, CALLS, "released ones do not count");
    assert_eq!(settled, attempts, "each attempt has its result");
    assert!(unknown > 0, "the kill left some that nobody knows of");
    let requests = provider.settled(PATIENCE).unwrap().totals.requests as u64;
    assert!(requests <= CALLS, "{requests} calls left");
    assert!(before + after <= CALLS && after > 0, "{before} and {after} were answered");
}

#[test]
fn spend_is_refused_before_it_happens_and_a_stream_is_cut_at_the_line() {
    let provider = Provider::start().unwrap();
    let house = House::start(&[("one", Vendor::OpenAi, &provider)], "", &[]);
    let mut admin = house.local();
    grant(&mut admin, "acme");
    let key = issue(&mut admin, &json!({"tenant_id": "acme"}));
    let mut caller = key.caller(house.tai.address());
    // A cent: 1 000 tokens of gpt-4o's answers.
    set(&mut admin, "acme", &json!({"spend_minor": 1, "period": "ever"}));
    let refused = caller.post("/v1/chat/completions", &chat("one/nobody-has-a-price"));
    let body = refused.json().unwrap();
    assert_eq!((refused.status, &body["error"]["code"]), (422, &json!("price_unknown")), "{body}");
    assert_eq!(provider.totals().requests, 0);
    provider.set_manner(provider::Manner {
        tokens: 4_000,
        tokens_per_chunk: 20,
        // Slow enough to be stopped.
        chunk_delay: Duration::from_millis(10),
        ..provider::Manner::default()
    });
    let response = caller.post("/v1/chat/completions", &streamed("one/gpt-4o"));
    let heard = heard(&response.body);
    assert_eq!(heard.error.as_deref(), Some("budget_exceeded"), "{} bytes", heard.text.len());
    assert!(!heard.is_done && heard.finish.is_none());
    let result = result_of(&mut admin, "acme", &receipt_id(&response));
    assert_eq!(result["metadata"]["estimated"], true, "{result}");
    let usage = until("the end", || {
        let usage = caller.get("/v1/usage").json().unwrap();
        (usage["open_calls"] == 0).then_some(usage)
    });
    let (spent, over) =
        (usage["spent_micros"].as_i64().unwrap(), usage["over_micros"].as_i64().unwrap());
    assert!(spent - over <= 10_000 && spent > 8_000, "{usage}");
    let books = provider.settled(PATIENCE).unwrap();
    assert_eq!(books.entries.back().unwrap().end, provider::End::HungUp, "the provider is stopped");
    let refused = caller.post("/v1/chat/completions", &chat("one/gpt-4o-mini"));
    let body = refused.json().unwrap();
    assert_eq!(
        (refused.status, &body["error"]["code"]),
        (402, &json!("budget_exceeded")),
        "{body}"
    );
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    assert!(refused.header("x-receipt-id").is_some(), "a governor's refusal has a receipt");
    house.close("acme");
}

#[test]
fn a_key_is_answered_once() {
    let provider = Provider::start().unwrap();
    let house = House::start(&[("one", Vendor::OpenAi, &provider)], "", &[]);
    let mut caller = house.local().with("Idempotency-Key", "k-1");
    let first = caller.post("/v1/chat/completions", &chat("one/gpt-4o-mini"));
    let second = caller.post("/v1/chat/completions", &chat("one/gpt-4o-mini"));
    assert_eq!(content(&first), content(&second));
    assert_eq!(second.header("x-idempotent-replay"), Some("true"));
    assert_eq!(receipt_id(&first), receipt_id(&second));
    let other = caller.post("/v1/chat/completions", &chat("one/gpt-4o"));
    let body = other.json().unwrap();
    assert_eq!(
        (other.status, &body["error"]["code"]),
        (422, &json!("duplicate_message")),
        "{body}"
    );
    assert_eq!(provider.totals().requests, 1);
    // A stream is not kept.
    let mut caller = house.local().with("Idempotency-Key", "k-2");
    assert!(heard(&caller.post("/v1/chat/completions", &streamed("one/gpt-4o-mini")).body).is_done);
    let again = until("the end of the first", || {
        let again = caller.post("/v1/chat/completions", &streamed("one/gpt-4o-mini"));
        let body = again.json().unwrap();
        (body["error"]["code"] == "already_answered").then_some(again)
    });
    assert_eq!(again.status, 409);
    assert!(again.header("x-receipt-id").is_some());
    assert_eq!(provider.totals().requests, 2);
    house.close("local");
}

#[test]
fn what_is_reserved_covers_all_choices_and_documents() {
    let provider = Provider::start().unwrap();
    let house = House::start(&[("one", Vendor::OpenAi, &provider)], "", &[]);
    let mut caller = house.local();
    let mut reserved = |change: &dyn Fn(&mut Value)| {
        let mut call = chat("one/gpt-4o-mini");
        change(&mut call);
        caller.post("/v1/chat/completions", &call);
        let attempts = caller.receipts("tenant_id=local&type=action_attempt");
        let metadata = &attempts[0]["metadata"];
        (metadata["input_max"].as_u64().unwrap(), metadata["output_max"].as_u64().unwrap())
    };
    let (input, output) = reserved(&|_| ());
    assert_eq!(reserved(&|call| call["n"] = 4.into()).1, 4 * output, "each may be the longest");
    let both = reserved(&|call| {
        call["max_tokens"] = 900.into();
        call["max_completion_tokens"] = 7.into();
    });
    assert_eq!(both.1, 900, "the larger of two limits");
    let most = reserved(&|call| call["max_tokens"] = 4_000_000_000_u64.into());
    assert_eq!(most.1, output, "more than a model can say is not reserved");
    let document = "A".repeat(60_000);
    let with_file = reserved(&|call| {
        call["messages"][0]["content"] = json!([
            { "type": "text", "text": "read it" },
            { "type": "file", "file": { "filename": "a.pdf", "file_data": document } },
        ]);
    });
    assert!(with_file.0 >= input + 60_000, "{with_file:?}");
    house.close("local");
}

#[test]
fn a_key_of_a_call_that_nobody_answered_may_be_used_again_and_is_of_its_route() {
    let provider = Provider::start().unwrap();
    let envs = [("MAX_RETRIES", "0")];
    let mut house = House::start(&[("one", Vendor::OpenAi, &provider)], "", &envs);
    house.tai.expect_errors();
    let mut caller = house.local().with("Idempotency-Key", "k-3");
    let mut call = chat("one/gpt-4o-mini");
    call["max_tokens"] = 50.into();
    for _ in 0..2 {
        provider.next(provider::Refusal::ServerError);
        let failed = caller.post("/v1/chat/completions", &call);
        assert_eq!(failed.status, 502, "{}", text(&failed));
    }
    let answered = caller.post("/v1/chat/completions", &call);
    let again = caller.post("/v1/chat/completions", &call);
    assert_eq!(content(&answered), content(&again));
    assert_eq!(again.header("x-idempotent-replay"), Some("true"));
    let other = caller.post("/v1/messages", &call);
    assert_eq!(other.json().unwrap()["type"], "message", "{}", text(&other));
    assert_eq!(provider.totals().requests, 4);
    house.close("local");
}

#[test]
fn a_misspelt_limit_takes_none_away() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut admin = Caller::local(tai.address());
    grant(&mut admin, "acme");
    let refused =
        admin.put("/admin/tenants/acme/budget", &json!({"calls": 5, "spend_micros": 2_000}));
    assert_refused(&refused, 400, "invalid_field");
    stop(tai);
}

#[test]
fn a_model_that_a_provider_does_not_have_closes_it_to_nobody() {
    let provider = Provider::start().unwrap();
    let envs = [("CIRCUIT_BREAKER_THRESHOLD", "1")];
    let house = House::start(&[("one", Vendor::OpenAi, &provider)], "", &envs);
    let mut caller = house.local();
    // It has a price and no provider has it.
    for _ in 0..3 {
        let refused = caller.post("/v1/chat/completions", &chat("one/gpt-4.1-nano"));
        let body = refused.json().unwrap();
        assert_eq!((refused.status, &body["error"]["code"]), (404, &json!("model_not_found")));
    }
    assert_eq!(provider.totals().requests, 3, "nobody is asked twice");
    content(&caller.post("/v1/chat/completions", &chat("one/gpt-4o-mini")));
    house.close("local");
}
