//! Spans, as a collector gets them.
//!
//! Owns: that what is exported is OTLP, that the ids of one request agree wherever they are seen,
//! that nothing secret is exported, and that a collector which fails costs no request anything.
//! Refuses to know: how a span is built; that has tests of its own.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::http::Response;
use testkit::provider::{self, Fault, Provider, Refusal, Vendor};
use testkit::receiver::{Manner, Received, Receiver};

use crate::callers::{Caller, issue, metric, new_key, start_guarded};
use crate::calls::{House, KEY_VARIABLE, chat, providers_file, streamed};
use crate::support::*;

pub(crate) mod looks;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// The settings of a service that exports every trace to `receiver`.
fn exporting(url: &str) -> [(&str, &str); 2] {
    [("OTEL_EXPORTER_OTLP_ENDPOINT", url), ("TRACING_SAMPLE_RATE", "1")]
}

/// Every span that arrived, each checked to be one of OTLP.
fn spans(receiver: &Receiver) -> Vec<Value> {
    let received = receiver.received();
    received.iter().flat_map(spans_of).collect()
}

fn spans_of(received: &Received) -> Vec<Value> {
    assert_eq!((received.method.as_str(), received.path.as_str()), ("POST", "/v1/traces"));
    assert_eq!(received.header("content-type"), Some("application/json"));
    let body = received.json().unwrap();
    let [resource] = &body["resourceSpans"].as_array().unwrap()[..] else { panic!("{body}") };
    assert!(resource["resource"]["attributes"].as_array().unwrap().len() >= 2);
    let [scope] = &resource["scopeSpans"].as_array().unwrap()[..] else { panic!("{body}") };
    assert_eq!(scope["scope"]["name"], "tai");
    let spans = scope["spans"].as_array().unwrap().clone();
    assert!(!spans.is_empty());
    spans.iter().for_each(assert_span);
    spans
}

/// The shape of `opentelemetry.proto.trace.v1.Span` in JSON.
fn assert_span(span: &Value) {
    let is_hex = |name: &str, digits: usize| {
        let id = span[name].as_str().unwrap_or_default();
        let allowed = |byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        id.len() == digits && id.bytes().all(allowed) && id.bytes().any(|byte| byte != b'0')
    };
    assert!(is_hex("traceId", 32) && is_hex("spanId", 16), "{span}");
    assert!(span.get("parentSpanId").is_none() || is_hex("parentSpanId", 16), "{span}");
    let time = |name: &str| span[name].as_str().unwrap().parse::<u128>().unwrap();
    let year_2024 = 1_704_067_200_000_000_000;
    assert!(year_2024 < time("startTimeUnixNano"), "{span}");
    assert!(time("startTimeUnixNano") <= time("endTimeUnixNano"), "{span}");
    assert!([1, 2, 3].map(Value::from).contains(&span["kind"]), "{span}");
    assert!(!span["name"].as_str().unwrap().is_empty());
    assert!([json!({}), json!({"code": 2})].contains(&span["status"]), "{span}");
    for attribute in span["attributes"].as_array().unwrap() {
        assert!(!attribute["key"].as_str().unwrap().is_empty());
        let value = attribute["value"].as_object().unwrap();
        let kinds = ["stringValue", "intValue", "boolValue"];
        assert!(
            value.len() == 1 && value.keys().all(|kind| kinds.contains(&kind.as_str())),
            "{span}"
        );
        assert!(value.get("intValue").is_none_or(Value::is_string), "{span}");
    }
    let known = ["traceId", "spanId", "parentSpanId", "flags", "name", "kind"];
    let known =
        [&known[..], &["startTimeUnixNano", "endTimeUnixNano", "attributes", "status"]].concat();
    assert!(span.as_object().unwrap().keys().all(|name| known.contains(&name.as_str())), "{span}");
}

/// What an attribute says, without its kind.
fn said(span: &Value, name: &str) -> Value {
    let attributes = span["attributes"].as_array().unwrap();
    let found = attributes.iter().find(|it| it["key"] == name);
    let value = found.and_then(|it| it["value"].as_object()?.values().next().cloned());
    value.unwrap_or(Value::Null)
}

fn of_trace(spans: &[Value], trace: &str) -> Vec<Value> {
    spans.iter().filter(|span| span["traceId"] == trace).cloned().collect()
}

fn named<'a>(spans: &'a [Value], name: &str) -> Vec<&'a Value> {
    spans.iter().filter(|span| span["name"] == name).collect()
}

/// A request with a trace of its own, whose flags say whether it is sampled.
fn traced(house: &House, trace: &str, flags: &str, body: &Value) -> Response {
    let parent = format!("00-{trace}-{PARENT}-{flags}");
    house.local().with("traceparent", &parent).post("/v1/chat/completions", body)
}

#[test]
fn a_call_to_a_model_is_one_trace_from_who_asks_to_who_answers() {
    let (provider, receiver) = (Provider::start().unwrap(), Receiver::start().unwrap());
    let url = receiver.url();
    let house = House::start(&[("one", Vendor::OpenAi, &provider)], "", &exporting(&url));
    // The first attempt fails, the second one answers.
    provider.next(Fault::Refuse(Refusal::ServerError));
    for (body, trace) in
        [(chat("one/gpt-4o-mini"), TRACE), (streamed("one/gpt-4o-mini"), &"a".repeat(32))]
    {
        let answer = traced(&house, trace, "01", &body);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.header("x-trace-id"), Some(trace));
        // Until the span has arrived: it is sent soon, and not only at the end.
        let spans = until("the spans", || {
            let spans = of_trace(&spans(&receiver), trace);
            (!named(&spans, "POST /v1/chat/completions").is_empty()).then_some(spans)
        });
        let server = named(&spans, "POST /v1/chat/completions")[0];
        assert_eq!((&server["parentSpanId"], &server["kind"]), (&PARENT.into(), &2.into()));
        assert_eq!(server["spanId"].as_str(), answer.header("x-span-id"));
        assert_eq!(server["status"], json!({}));
        for (name, value) in [
            ("http.request.method", json!("POST")),
            ("http.route", json!("/v1/chat/completions")),
            ("http.response.status_code", json!("200")),
            ("url.scheme", json!("http")),
            ("tai.tenant_id", json!("local")),
            ("tai.request_id", json!(answer.header("x-request-id"))),
            ("tai.receipt_id", json!(answer.header("x-receipt-id"))),
        ] {
            assert_eq!(said(server, name), value, "{name}");
        }
        let commit = named(&spans, "receipt.commit")[0];
        assert_eq!((&commit["parentSpanId"], &commit["kind"]), (&server["spanId"], &1.into()));
        assert_eq!(said(commit, "tai.receipt_id"), json!(answer.header("x-receipt-id")));
        assert_eq!(said(commit, "tai.durability"), "durable");

        let attempts = named(&spans, "POST one");
        let books = provider.books();
        let asked = books.entries.iter().filter_map(|entry| entry.header("traceparent"));
        let asked: BTreeSet<&str> = asked.filter(|sent| sent.contains(trace)).collect();
        let told = |span: &&Value| format!("00-{trace}-{}-01", span["spanId"].as_str().unwrap());
        let sent: BTreeSet<String> = attempts.iter().map(told).collect();
        assert!(sent.iter().map(String::as_str).eq(asked.iter().copied()), "{sent:?} {asked:?}");
        assert_eq!(attempts.len(), if trace == TRACE { 2 } else { 1 });
        for attempt in &attempts {
            assert_eq!(
                (&attempt["parentSpanId"], &attempt["kind"]),
                (&server["spanId"], &3.into())
            );
            assert_eq!(said(attempt, "server.port"), provider.address().port().to_string());
            let failed = said(attempt, "http.response.status_code") != "200";
            assert_eq!(attempt["status"].get("code").is_some(), failed, "{attempt}");
        }
        let failed = attempts.iter().filter(|attempt| said(attempt, "error.type") == "500");
        assert_eq!(failed.count(), usize::from(trace == TRACE));
    }
    stop(house.tai);
}

#[test]
fn who_began_the_trace_decides_and_else_the_share_by_its_id() {
    for (share, flags, is_kept) in [("0", "01", true), ("1", "00", false)] {
        let receiver = Receiver::start().unwrap();
        let url = receiver.url();
        let envs = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("TRACING_SAMPLE_RATE", share)];
        let provider = Provider::start().unwrap();
        let house = House::start(&[("one", Vendor::OpenAi, &provider)], "", &envs);
        traced(&house, TRACE, flags, &chat("one/gpt-4o-mini"));
        stop(house.tai);
        assert_eq!(!of_trace(&spans(&receiver), TRACE).is_empty(), is_kept, "{share} {flags}");
        let sent = provider.books().entries[0].header("traceparent").unwrap().to_owned();
        assert!(sent.ends_with(&format!("-{flags}")), "{sent}");
    }
    let (_room, dir) = room();
    let receiver = Receiver::start().unwrap();
    let url = receiver.url();
    let envs = [("OTEL_EXPORTER_OTLP_ENDPOINT", url.as_str()), ("TRACING_SAMPLE_RATE", "0.25")];
    let tai = start(&dir, &envs);
    let mut client = client(tai.address());
    let mut expected = BTreeSet::new();
    for at in 0..64_u64 {
        // The random part of the id is what decides: its last fourteen digits, of which the first
        // two tell here.
        let id = format!("{:018x}{:02x}{:012x}", at + 1, at * 4, at);
        client.request("GET", "/receipts", &[("X-Trace-Id", &id)], b"").unwrap();
        if at * 4 >= 0xc0 {
            expected.insert(id);
        }
    }
    stop(tai);
    let of_receipts =
        named(&spans(&receiver), "GET /receipts").into_iter().cloned().collect::<Vec<_>>();
    let kept: BTreeSet<String> =
        of_receipts.iter().map(|span| span["traceId"].as_str().unwrap().to_owned()).collect();
    assert_eq!((expected.len(), kept), (16, expected.clone()));
    assert!(of_receipts.iter().all(|span| span.get("parentSpanId").is_none()));
}

#[test]
fn a_collector_that_fails_costs_no_request_anything_and_what_is_lost_is_counted() {
    let wait = vec![("Retry-After", "1".to_owned())];
    for (manner, is_lost) in [
        (Manner::Says(429, wait, String::new()), false),
        (Manner::Hangs(Duration::from_secs(3)), false),
        (Manner::Drops, false),
        (Manner::status(400), true),
        (Manner::Says(200, vec![], r#"{"partialSuccess":{"rejectedSpans":"1"}}"#.into()), true),
    ] {
        let (_room, dir) = room();
        let receiver = Receiver::start().unwrap();
        receiver.next(manner.clone());
        let url = receiver.url();
        let tai = start(&dir, &exporting(&url));
        let mut client = client(tai.address());
        let began = Instant::now();
        let granted = post(&mut client, "/marketplace", &event("acme", "grant"));
        assert_eq!(granted.status, 200, "{manner:?}");
        assert!(began.elapsed() < Duration::from_secs(3), "{manner:?}: {:?}", began.elapsed());
        let arrived = || {
            let all = receiver.received();
            // The first request is the one that goes wrong.
            let later: Vec<Value> = all.iter().skip(1).flat_map(spans_of).collect();
            (!named(&later, "POST /marketplace").is_empty()).then_some(())
        };
        if is_lost {
            until("the loss", || {
                (metric(tai.address(), "tai_trace_spans_dropped_total") > 0).then_some(())
            });
        } else {
            until("the span after all", arrived);
            assert_eq!(metric(tai.address(), "tai_trace_spans_dropped_total"), 0, "{manner:?}");
        }
        stop(tai);
    }
    // Nobody listens there: the end does not wait for ever.
    let (_room, dir) = room();
    let tai = start(&dir, &exporting("http://127.0.0.1:1"));
    let granted = post(&mut client(tai.address()), "/marketplace", &event("acme", "grant"));
    assert_eq!(granted.status, 200);
    let began = Instant::now();
    stop(tai);
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[test]
fn nothing_secret_is_exported() {
    const SECRET: &str = "hunter2hunter2";
    let (provider, receiver) = (Provider::start().unwrap(), Receiver::start().unwrap());
    let url = receiver.url();
    let (room, dir) = room();
    let (admin, pairs) = (new_key(), format!("api-key={SECRET}"));
    let file = providers_file(&dir, &[("one", Vendor::OpenAi, &provider)], "");
    let envs = [
        &exporting(&url)[..],
        &[
            ("OTEL_EXPORTER_OTLP_HEADERS", pairs.as_str()),
            ("PROVIDERS_FILE", file.to_str().unwrap()),
            (KEY_VARIABLE, provider::KEY),
        ],
    ]
    .concat();
    let tai = start_guarded(&dir, &admin, &envs);
    // A provider that quotes what it was sent.
    provider.always(Fault::Refuse(Refusal::Invalid {
        param: None,
        message: format!("bad key sk_live_{SECRET}, api_key={SECRET}"),
    }));
    let mut operator = Caller::keyed(tai.address(), &admin);
    let key = issue(&mut operator, &json!({"tenant_id": "acme", "scopes": ["ai:invoke"]})).text;
    let bearer = format!("Bearer {key}");
    let request = format!("password={SECRET}");
    let mut client = client(tai.address());
    for path in [
        &format!("/receipts?api_key={SECRET}"),
        &format!("/receipts/{SECRET}"),
        &format!("/password={SECRET}"),
        "/v1/chat/completions",
    ] {
        let headers = [
            JSON,
            ("Authorization", bearer.as_str()),
            ("X-API-Key", SECRET),
            ("Cookie", SECRET),
            ("User-Agent", SECRET),
            ("X-Request-ID", request.as_str()),
        ];
        let method = if path.starts_with("/v1") { "POST" } else { "GET" };
        let body = chat("one/gpt-4o-mini").to_string();
        client.request(method, path, &headers, body.as_bytes()).unwrap();
    }
    stop(tai);
    assert!(spans(&receiver).len() >= 4);
    for received in receiver.received() {
        assert_eq!(received.header("api-key"), Some(SECRET), "the collector's own key goes to it");
        let text = received.text();
        for secret in [SECRET, provider::KEY, &admin, &key] {
            assert!(!secret.is_empty() && !text.contains(secret), "{text}");
        }
    }
    drop(room);
}
