//! Calls to models: the way of one from a client to a provider and back, and what it leaves.
//!
//! Owns: a service in front of providers that keep books of their own, which bills are held
//! against. Refuses to know: any type of the service.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::http::Response;
use testkit::provider::{self, Provider, Vendor};
use testkit::tai::Tai;

use crate::callers::*;
use crate::support::*;

mod budget;
pub(crate) mod cache;
mod clients;
mod faults;
pub(crate) mod tuning;

/// The variable that holds the key of the providers.
pub(crate) const KEY_VARIABLE: &str = "FAKE_KEY";

/// A service in front of providers.
pub(crate) struct House {
    _room: TempDir,
    pub(crate) dir: PathBuf,
    pub(crate) tai: Tai,
}

/// A provider and the name that it is given.
pub(crate) type Named<'a> = (&'a str, Vendor, &'a Provider);

/// The file that makes providers known, and `models` behind it.
pub(crate) fn providers_file(dir: &Path, providers: &[Named<'_>], models: &str) -> PathBuf {
    let row = |(name, vendor, provider): &Named<'_>| {
        let (api, base) = (vendor.as_str(), provider.base_url(*vendor));
        format!(
            "[providers.{name}]\napi = \"{api}\"\nbase_url = \"{base}\"\nkey_env = \"{KEY_VARIABLE}\"\n\
             allow_private = true\n"
        )
    };
    let text = providers.iter().map(row).collect::<String>() + models;
    let path = dir.with_file_name("providers.toml");
    std::fs::write(&path, text).unwrap();
    path
}

impl House {
    /// Starts the service with these providers, and `models` as the rest of their file.
    pub(crate) fn start(providers: &[Named<'_>], models: &str, envs: &[(&str, &str)]) -> House {
        let (room, dir) = room();
        let tai = House::serve(&dir, providers, models, envs);
        House { _room: room, dir, tai }
    }

    /// Starts the service once more, on the same ledger.
    pub(crate) fn serve(
        dir: &Path,
        providers: &[Named<'_>],
        models: &str,
        envs: &[(&str, &str)],
    ) -> Tai {
        let file = providers_file(dir, providers, models);
        let own = [("PROVIDERS_FILE", file.to_str().unwrap()), (KEY_VARIABLE, provider::KEY)];
        start(dir, &[&own, envs].concat())
    }

    pub(crate) fn local(&self) -> Caller {
        Caller::local(self.tai.address())
    }

    /// Stops it and verifies what it left; the receipts of a tenant.
    pub(crate) fn close(self, tenant: &str) -> Vec<Value> {
        let House { _room, dir, tai } = self;
        stop(tai);
        let mut receipts = assert_verified(&dir);
        receipts.retain(|receipt| receipt["stream"] == tenant);
        receipts
    }
}

pub(crate) fn chat(model: &str) -> Value {
    json!({ "model": model, "messages": [{ "role": "user", "content": "say it again" }] })
}

pub(crate) fn streamed(model: &str) -> Value {
    let mut call = chat(model);
    call["stream"] = true.into();
    call["stream_options"] = json!({ "include_usage": true });
    call
}

/// What the events of a stream say, in OpenAI's dialect.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    pub(crate) text: String,
    pub(crate) finish: Option<String>,
    pub(crate) error: Option<String>,
    pub(crate) usage: Option<(u64, u64)>,
    pub(crate) is_done: bool,
}

pub(crate) fn heard(body: &[u8]) -> Heard {
    let text = String::from_utf8(body.to_vec()).unwrap();
    let mut heard = Heard::default();
    for data in text.lines().filter_map(|line| line.strip_prefix("data: ")) {
        assert!(!heard.is_done && heard.error.is_none(), "nothing follows an end: {text}");
        if data == "[DONE]" {
            heard.is_done = true;
            continue;
        }
        let event: Value = serde_json::from_str(data).unwrap();
        if let Some(reason) = event["error"]["code"].as_str() {
            heard.error = Some(reason.to_owned());
        }
        let choice = &event["choices"][0];
        heard.text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        if let Some(finish) = choice["finish_reason"].as_str() {
            heard.finish = Some(finish.to_owned());
        }
        if let (Some(prompt), Some(completion)) =
            (event["usage"]["prompt_tokens"].as_u64(), event["usage"]["completion_tokens"].as_u64())
        {
            heard.usage = Some((prompt, completion));
        }
    }
    heard
}

pub(crate) fn content(response: &Response) -> String {
    assert_eq!(response.status, 200, "{}", text(response));
    let body = response.json().unwrap();
    body["choices"][0]["message"]["content"].as_str().unwrap().to_owned()
}

/// The receipt of a result, once it is sealed behind its answer.
pub(crate) fn result_of(caller: &mut Caller, tenant: &str, attempt: &str) -> Value {
    until("the result", || {
        let results = caller.receipts(&format!("tenant_id={tenant}&type=action_result"));
        results.into_iter().find(|receipt| receipt["intent"] == attempt)
    })
}

fn receipt_id(response: &Response) -> String {
    response
        .header("x-receipt-id")
        .unwrap_or_else(|| panic!("no receipt: {}", text(response)))
        .to_owned()
}

#[test]
fn the_first_call_needs_no_key_and_no_network() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut caller = Caller::local(tai.address());
    let response = caller.post("/v1/chat/completions", &chat("echo"));
    assert_eq!(content(&response), "say it again");
    let attempt = receipt_id(&response);
    let result = result_of(&mut caller, "local", &attempt);
    assert_eq!((&result["action"], &result["status"]), (&json!("ai.chat"), &json!("success")));
    assert_eq!(result["metadata"]["output_tokens"], 3, "{result}");
    let usage = caller.get("/v1/usage").json().unwrap();
    assert_eq!((&usage["calls"], &usage["plan"]), (&json!(1), &json!("starter")), "{usage}");
    let models = caller.get("/v1/models").json().unwrap();
    assert!(models["data"].as_array().unwrap().iter().any(|model| model["id"] == "echo"));
    let held = caller.get("/v1/entitlements").json().unwrap();
    assert_eq!(held["data"][0]["state"], "entitled", "{held}");
    let response = caller.post("/v1/chat/completions", &streamed("echo"));
    let heard = heard(&response.body);
    assert_eq!((heard.text.as_str(), heard.is_done), ("say it again", true));
    assert_eq!(response.header("content-type"), Some("text/event-stream; charset=utf-8"));
    stop(tai);
    let receipts = assert_verified(&dir);
    let of_local: Vec<&str> = receipts
        .iter()
        .filter(|receipt| receipt["stream"] == "local")
        .map(|receipt| receipt["type"].as_str().unwrap())
        .collect();
    let calls = ["action_attempt", "action_result", "action_attempt", "action_result"];
    assert_eq!(of_local, [&["transition", "transition"], &calls[..]].concat());
}

#[test]
fn a_call_is_answered_billed_and_receipted_as_the_provider_counts() {
    let provider = Provider::start().unwrap();
    for vendor in Vendor::ALL {
        let house = House::start(&[("one", vendor, &provider)], "", &[]);
        let mut caller = house.local();
        let before = provider.totals();
        let whole = caller.post("/v1/chat/completions", &chat("one/gpt-4o-mini"));
        let said = content(&whole);
        let stream = caller.post("/v1/chat/completions", &streamed("one/gpt-4o-mini"));
        let heard = heard(&stream.body);
        assert_eq!((heard.text, heard.is_done), (said, true), "{vendor:?}");
        assert_eq!(heard.finish.as_deref(), Some("stop"));
        let after = provider.settled(PATIENCE).unwrap().totals;
        let (prompt, completion) = (
            after.prompt_tokens - before.prompt_tokens,
            after.completion_tokens - before.completion_tokens,
        );
        assert_eq!(after.requests - before.requests, 2);
        assert_eq!(heard.usage, Some((prompt / 2, completion / 2)), "{vendor:?}");
        let mut billed = (0, 0, 0);
        for response in [&whole, &stream] {
            let metadata = &result_of(&mut caller, "local", &receipt_id(response))["metadata"];
            let number = |name: &str| metadata[name].as_u64().unwrap_or_default();
            billed.0 += number("input_tokens") + number("cache_read_tokens");
            billed.1 += number("output_tokens") + number("reasoning_tokens");
            billed.2 += number("cost_micros");
            assert_ne!(metadata["estimated"], true, "{metadata}");
        }
        assert_eq!((billed.0, billed.1), (prompt, completion), "{vendor:?}");
        // 0.15 and 0.60 a million tokens; each call is rounded up.
        let exact = prompt as f64 * 0.15 + completion as f64 * 0.6;
        assert!((billed.2 as f64 - exact).abs() < 2.0, "{billed:?} {exact}");
        let invoice = caller.get("/v1/usage/invoice").json().unwrap();
        let lines = invoice["lines"].as_array().unwrap();
        let sum: u64 = lines.iter().map(|line| line["micros"].as_u64().unwrap()).sum();
        assert_eq!(invoice["total_micros"], sum, "{invoice}");
        assert_eq!(lines[1]["micros"], billed.2, "{invoice}");
        house.close("local");
    }
}

#[test]
fn messages_are_answered_in_their_own_dialect() {
    let provider = Provider::start().unwrap();
    for vendor in Vendor::ALL {
        let house = House::start(&[("one", vendor, &provider)], "", &[]);
        let mut caller = house.local();
        let mut call = chat("one/claude-haiku-4-5");
        call["max_tokens"] = 100.into();
        let whole = caller.post("/v1/messages", &call);
        let body = whole.json().unwrap();
        assert_eq!((whole.status, &body["type"]), (200, &json!("message")), "{body}");
        assert_eq!(body["stop_reason"], "end_turn", "{body}");
        call["stream"] = true.into();
        let stream = text(&caller.post("/v1/messages", &call));
        assert!(stream.contains("event: message_start"), "{vendor:?}: {stream}");
        assert!(
            stream.trim_end().ends_with(r#"data: {"type":"message_stop"}"#),
            "{vendor:?}: {stream}"
        );
        call["model"] = "nobody".into();
        let refused = caller.post("/v1/messages", &call);
        let body = refused.json().unwrap();
        assert_eq!((refused.status, &body["error"]["type"]), (404, &json!("not_found_error")));
        assert_eq!(body["error"]["reason"], "model_not_found");
        house.close("local");
    }
}

#[test]
fn the_bill_goes_to_whom_the_key_belongs() {
    let provider = Provider::start().unwrap();
    let house = House::start(&[("one", Vendor::OpenAi, &provider)], "", &[]);
    let mut admin = house.local();
    let key = issue(&mut admin, &json!({"tenant_id": "acme"}));
    let narrow = issue(&mut admin, &json!({"tenant_id": "acme", "scopes": ["receipts:read"]}));
    let service = issue(&mut admin, &json!({"scopes": ["ai:invoke"]}));
    let call = chat("one/gpt-4o-mini");
    let ask = |key: &Issued| key.caller(house.tai.address()).post("/v1/chat/completions", &call);
    for (key, status, reason) in [
        (&key, 422, "entitlement_inactive"),
        (&narrow, 403, "forbidden"),
        (&service, 403, "forbidden"),
    ] {
        let refused = ask(key);
        let body = refused.json().unwrap();
        assert_eq!((refused.status, &body["error"]["code"]), (status, &json!(reason)), "{body}");
    }
    assert_eq!(provider.totals().requests, 0, "nothing leaves unless it is permitted");
    let grant = json!({"tenant_id": "acme", "entitlement_id": "starter", "action": "grant"});
    assert_eq!(admin.post("/marketplace", &grant).status, 200);
    let response = ask(&key);
    content(&response);
    result_of(&mut admin, "acme", &receipt_id(&response));
    let receipts = house.close("acme");
    let refusals = receipts.iter().filter(|receipt| receipt["type"] == "refusal");
    assert_eq!(refusals.filter(|receipt| receipt["rule"] != "edge.aggregate").count(), 1);
    let attempt = receipts.iter().find(|receipt| receipt["type"] == "action_attempt").unwrap();
    assert_eq!(attempt["actor"], key.id.as_str(), "{attempt}");
}

#[test]
fn a_caller_who_leaves_stops_the_provider_and_pays_for_what_came() {
    let provider = Provider::start().unwrap();
    provider.set_manner(provider::Manner {
        tokens: 2_000,
        chunk_delay: Duration::from_millis(20),
        ..provider::Manner::default()
    });
    let house = House::start(&[("one", Vendor::OpenAi, &provider)], "", &[]);
    let mut caller = house.local();
    {
        use std::io::{Read as _, Write as _};
        let mut socket = std::net::TcpStream::connect(house.tai.address()).unwrap();
        let body = streamed("one/gpt-4o-mini").to_string();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n",
            body.len()
        );
        socket.write_all(head.as_bytes()).unwrap();
        socket.write_all(body.as_bytes()).unwrap();
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        while seen.windows(6).filter(|window| window == b"data: ").count() < 5 {
            let count = socket.read(&mut buffer).unwrap();
            assert!(count > 0, "{}", String::from_utf8_lossy(&seen));
            seen.extend_from_slice(&buffer[..count]);
        }
    }
    let books = provider.settled(PATIENCE).unwrap();
    let entry = books.entries.back().unwrap();
    assert_eq!(entry.end, provider::End::HungUp, "{entry:?}");
    assert!(entry.completion_tokens < 500, "stopped soon: {entry:?}");
    let attempts = caller.receipts("tenant_id=local&type=action_attempt");
    let result = result_of(&mut caller, "local", attempts[0]["id"].as_str().unwrap());
    assert_eq!(
        (&result["status"], &result["metadata"]["estimated"]),
        (&json!("error"), &json!(true))
    );
    let output = result["metadata"]["output_tokens"].as_u64().unwrap();
    assert!(output >= 1 && output <= entry.completion_tokens, "{output} of {entry:?}");
    house.close("local");
}

/// A provider that takes connections and says this to each, then nothing more.
fn script(answer: &'static str) -> std::net::SocketAddr {
    use std::io::{Read as _, Write as _};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for socket in listener.incoming() {
            let mut socket = socket.unwrap();
            let mut request = [0; 8192];
            let _ = socket.read(&mut request);
            let _ = socket.write_all(answer.as_bytes());
        }
    });
    address
}

const STREAM: &str =
    "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n";

fn behind(address: std::net::SocketAddr, dir: &Path) -> PathBuf {
    let path = dir.with_file_name("providers.toml");
    let text = format!(
        "[providers.one]\napi = \"openai\"\nbase_url = \"http://{address}/v1\"\nallow_private = true\n"
    );
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn an_end_without_a_reason_is_none_and_early_usage_is_not_all() {
    let word = "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"one two three four five six\"}}],\
                \"usage\":{\"prompt_tokens\":9,\"completion_tokens\":1}}\n\n";
    let finish = "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    for (finish, is_done) in [("", false), (finish, true)] {
        let (_room, dir) = room();
        let answer = format!("{STREAM}{word}{finish}data: [DONE]\n\n");
        let file = behind(script(answer.leak()), &dir);
        let mut tai = start(&dir, &[("PROVIDERS_FILE", file.to_str().unwrap())]);
        tai.expect_errors();
        let mut caller = Caller::local(tai.address());
        let response = caller.post("/v1/chat/completions", &streamed("one/gpt-4o-mini"));
        let heard = heard(&response.body);
        assert_eq!((heard.is_done, heard.error.is_none()), (is_done, is_done), "{heard:?}");
        let result = result_of(&mut caller, "local", &receipt_id(&response));
        let metadata = &result["metadata"];
        assert_eq!(metadata["estimated"], true, "{metadata}");
        assert!(metadata["output_tokens"].as_u64().unwrap() > 1, "{metadata}");
        stop(tai);
    }
}
