//! The front door as the runbooks use it (seeds 000 to 002).
//!
//! Owns: every call of the seeds that exists, and what its answer promises. Refuses to know: input
//! that is wrong in form, which `bad_input` has.

use std::collections::BTreeSet;
use std::thread;

use serde_json::{Value, json};
use testkit::http::{Client, Response};

use crate::support::*;

const PROBES: [&str; 6] =
    ["/health", "/healthz", "/readyz", "/health/startup", "/health/live", "/health/ready"];

#[test]
fn probes_answer_under_every_name() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut client = client(tai.address());
    for path in PROBES {
        let response = get(&mut client, path);
        assert_eq!(response.status, 200, "{path}");
        let body = response.json().unwrap();
        for (field, expected) in [
            ("status", json!("ok")),
            ("health", json!("green")),
            ("db", json!("connected")),
            ("pubsub", json!("connected")),
            ("backend", json!("sqlite")),
            ("durability", json!("durable")),
            ("relaxed", json!([])),
            ("dependencies", json!({"supervisors": "ok", "firestore": "ok", "pubsub": "ok"})),
        ] {
            assert_eq!(body[field], expected, "{path} {field}");
        }
        let timestamp = body["timestamp"].as_i64().unwrap();
        assert!((timestamp - unix_secs()).abs() <= 2, "{path}");
        assert!(response.header("x-request-id").is_some(), "{path}");
    }
    stop(tai);
}

#[test]
fn metrics_carry_the_names_that_the_runbook_greps() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut client = client(tai.address());
    assert_eq!(post(&mut client, "/marketplace", &event("acme", "grant")).status, 200);
    assert_eq!(post(&mut client, "/marketplace", &event("acme", "grant")).status, 422);
    assert_eq!(get(&mut client, "/receipts").status, 200);
    let page = || {
        String::from_utf8(get(&mut Client::connect(tai.address()).unwrap(), "/metrics").body)
            .unwrap()
    };
    let expected = [
        r#"tai_http_requests_total{endpoint="/marketplace",method="POST",status="200"} 1"#,
        r#"tai_http_requests_total{endpoint="/marketplace",method="POST",status="422"} 1"#,
        r#"tai_governor_transitions_total{from_state="unentitled",governor="entitlement",to_state="entitled"} 1"#,
        r#"tai_receipts_emitted_total{type="refusal"} 1"#,
        r#"tai_receipt_verification_total{result="success"} "#,
        r#"tai_requests_refused_total{reason="entitlement_already_active"} 1"#,
        r#"tai_subsystem_up{subsystem="governance_sup"} 1"#,
    ];
    // The writer answers first and counts then.
    until("the counts", || {
        let page = page();
        expected.iter().all(|line| page.contains(line)).then_some(())
    });
    for prefix in ["tai_http_requests", "tai_governor", "tai_receipt"] {
        assert!(page().lines().any(|line| line.starts_with(prefix)), "{prefix}");
    }
    assert!(!page().contains("acme"), "a tenant is never a label");
    stop(tai);
}

#[test]
fn an_entitlement_lives_and_ends() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut client = client(tai.address());
    let steps = [
        ("suspend", 422, "state_error", "unentitled", ""),
        ("grant", 200, "", "unentitled", "entitled"),
        ("grant", 422, "entitlement_already_active", "entitled", ""),
        ("resume", 422, "state_error", "entitled", ""),
        ("suspend", 200, "", "entitled", "suspended"),
        ("grant", 422, "state_error", "suspended", ""),
        ("suspend", 422, "state_error", "suspended", ""),
        ("resume", 200, "", "suspended", "entitled"),
        ("revoke", 200, "", "entitled", "revoked"),
        ("grant", 422, "state_error", "revoked", ""),
        ("suspend", 422, "state_error", "revoked", ""),
        ("resume", 422, "state_error", "revoked", ""),
        ("revoke", 422, "state_error", "revoked", ""),
    ];
    for (step, (action, status, reason, from, to)) in steps.into_iter().enumerate() {
        let response = post(&mut client, "/marketplace", &event("acme", action));
        let body = response.json().unwrap();
        assert_eq!(response.status, status, "{step} {action}: {body}");
        assert_eq!(body["id"], receipt_id(&response).as_str(), "{step}");
        let stored = get(&mut client, &format!("/receipts/{}", receipt_id(&response)));
        assert_eq!(stored.status, 200, "{step}");
        let receipt = stored.json().unwrap();
        assert_eq!(receipt["tenant_id"], "acme", "{step}");
        assert_eq!(receipt["entitlement_id"], "professional", "{step}");
        assert_eq!(receipt["action"], action, "{step}");
        assert_eq!(receipt["state_from"], from, "{step}");
        assert_eq!(receipt["hash"], body["hash"], "{step}");
        if status == 200 {
            assert_eq!(response.body, stored.body, "{step}: byte for byte");
            assert_eq!(response.header("x-durability"), Some("durable"), "{step}");
            assert_eq!(
                (&receipt["type"], &receipt["state_to"]),
                (&json!("transition"), &json!(to))
            );
        } else {
            assert_eq!(receipt["type"], "refusal", "{step}");
            for field in ["reason", "detail", "timestamp"] {
                assert_eq!(receipt[field], body[field], "{step} {field}");
            }
            assert_envelope(&response, reason);
        }
    }
    stop(tai);
    assert_verified(&dir);
}

/// The one shape of a refusal.
pub(crate) fn assert_envelope(response: &Response, reason: &str) {
    let body = response.json().unwrap();
    assert_eq!(body["type"], "refusal", "{body}");
    assert_eq!(body["reason"], reason, "{body}");
    assert!(body["timestamp"].is_i64() && body["retryable"].is_boolean(), "{body}");
    assert!(body["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{body}");
    assert_eq!(body["request_id"].as_str(), response.header("x-request-id"), "{body}");
    assert_eq!(body.get("id").and_then(Value::as_str), response.header("x-receipt-id"), "{body}");
    assert_eq!(body.get("id").is_some(), body.get("hash").is_some(), "{body}");
    let retry_after = body.get("retry_after").and_then(Value::as_i64);
    let header = response.header("retry-after").map(|text| text.parse::<i64>().unwrap());
    assert_eq!(retry_after, header, "{body}");
    assert_eq!(response.header("content-type"), Some("application/json"), "{body}");
}

#[test]
fn a_customer_is_quoted_the_plan_it_holds() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut client = client(tai.address());
    let call = json!({"customer_id": "test-001"});
    let mut quoted = |amount: i64, plan: &str| {
        let response = post(&mut client, "/marketplace", &call);
        assert_eq!(response.status, 200);
        let body = response.json().unwrap();
        assert_eq!(body["status"], "ok");
        assert_eq!(body["customer_id"], "test-001");
        let price = json!({"amount": amount, "currency": "USD", "plan": plan, "period": "month", "source": "ledger"});
        assert_eq!(body["price"], price);
        assert_eq!(body["receipt_id"], receipt_id(&response).as_str());
        let stored = get(&mut client, &format!("/receipts/{}", receipt_id(&response))).body;
        let tail = [b",\"receipt\":".as_slice(), &stored, b"}"].concat();
        assert!(response.body.ends_with(&tail), "the receipt stands inside byte for byte");
        assert_eq!(body["receipt"]["status"], "quoted");
        assert_eq!(body["receipt"]["amount"], amount);
    };
    quoted(250_000, "starter");
    let grant = |plan: &str| {
        let mut body = event("test-001", "grant");
        body["entitlement_id"] = plan.into();
        let mut other = Client::connect(tai.address()).unwrap();
        assert_eq!(post(&mut other, "/marketplace", &body).status, 200);
    };
    grant("professional");
    quoted(1_500_000, "professional");
    grant("enterprise");
    quoted(7_500_000, "enterprise");
    let charge = json!({"customer_id": "test-payment-001", "stripe_token": "tok_visa"});
    let response = post(&mut client, "/marketplace", &charge);
    assert_eq!(response.status, 422);
    assert_envelope(&response, "payment_not_configured");
    receipt_id(&response);
    let stored = String::from_utf8(get(&mut client, "/receipts?tenant_id=test-payment-001").body);
    assert!(!stored.unwrap().contains("tok_visa"), "a token is kept nowhere");
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn the_four_signals_are_taken() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut client = client(tai.address());
    let now_ms = unix_secs() * 1000;
    let mut deliver = |id: &str, data: Value| post(&mut client, "/pubsub", &push(id, &data));

    let early = json!({"tenant_id": "acme", "metric": "cpu", "value": 70, "timestamp_ms": now_ms});
    let refused = deliver("m0", early.clone());
    assert_eq!(refused.status, 422, "nobody knows this tenant");
    assert_envelope(&refused, "unknown_tenant");

    let granted = deliver("m1", event("acme", "grant"));
    assert_eq!(
        (granted.status, granted.json().unwrap()["state_to"].as_str()),
        (200, Some("entitled"))
    );
    let calm = json!({"tenant_id": "acme", "metric": "cpu", "value": 60, "timestamp_ms": now_ms});
    let calm = deliver("m2", calm);
    assert_eq!((calm.status, calm.json().unwrap()["state_to"].as_str()), (200, Some("stable")));
    let warned = deliver("m3", early.clone());
    assert_eq!(
        (warned.status, warned.json().unwrap()["state_to"].as_str()),
        (200, Some("warning"))
    );
    let autonomic = json!({
        "event": "autonomic_signal", "tenant_id": "acme", "signal_type": "quota_approaching",
        "severity": "info", "timestamp_ms": now_ms + 1,
    });
    let autonomic = deliver("m4", autonomic);
    assert_eq!(autonomic.status, 200, "{:?}", autonomic.json());
    let test = json!({"signal": "test", "timestamp": "2024-01-01T00:00:00Z"});
    let test = deliver("m5", test);
    assert_eq!((test.status, test.json().unwrap()["stream"].as_str()), (200, Some("_signals")));

    let again = deliver("m3", early.clone());
    assert_eq!(again.status, 200);
    assert_eq!(again.body, warned.body, "a redelivery is answered with the first receipt");
    assert_eq!(again.header("x-idempotent-replay"), Some("true"));
    let mut other = early;
    other["value"] = 71.into();
    let other = deliver("m3", other);
    assert_eq!(other.status, 422);
    assert_envelope(&other, "duplicate_message");
    until("the line that the runbook greps", || {
        tai.log_lines().iter().any(|line| line.contains("Received test signal")).then_some(())
    });
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn a_search_finds_every_receipt_once() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut client = client(tai.address());
    let mut all = BTreeSet::new();
    for call in 0..250 {
        let customer = json!({"customer_id": format!("customer-{}", call % 10)});
        all.insert(receipt_id(&post(&mut client, "/marketplace", &customer)));
    }
    let granted = receipt_id(&post(&mut client, "/marketplace", &event("customer-3", "grant")));
    let refused = receipt_id(&post(&mut client, "/marketplace", &event("customer-3", "grant")));
    let mut ids = |query: &str| pages(&mut client, query);

    for limit in ["", "&limit=100", "&limit=7"] {
        let found = ids(&format!("action=quote{limit}"));
        assert_eq!(found.len(), 250, "{limit}: none twice");
        assert_eq!(found.iter().cloned().collect::<BTreeSet<_>>(), all, "{limit}");
    }
    assert_eq!(ids("tenant_id=customer-3&action=quote").len(), 25);
    assert_eq!(ids("tenant_id=customer-3&type=refusal"), [refused.as_str()]);
    assert_eq!(ids("reason=entitlement_already_active"), [refused.as_str()]);
    assert_eq!(ids("state_to=entitled&state_from=unentitled"), [granted.as_str()]);
    assert_eq!(ids("entitlement_id=professional"), [refused.as_str(), granted.as_str()]);
    assert_eq!(ids("stream=_ops&action=start").len(), 1);
    assert_eq!(ids(&format!("action=quote&until={}", unix_secs() + 60)).len(), 250);
    assert!(ids(&format!("since={}", unix_secs() + 60)).is_empty());
    assert!(ids("tenant_id=nobody").is_empty());
    stop(tai);
}

/// The ids of all pages of a search, newest first.
fn pages(client: &mut Client, query: &str) -> Vec<String> {
    let (mut ids, mut cursor) = (Vec::new(), String::new());
    let mut newest = String::from("9999");
    loop {
        let response = get(client, &format!("/receipts?{query}{cursor}"));
        assert_eq!(response.status, 200, "{query}");
        let body = response.json().unwrap();
        for receipt in body["receipts"].as_array().unwrap() {
            let at = receipt["at"].as_str().unwrap().to_owned();
            assert!(at < newest, "{query}: newest first");
            newest = at;
            ids.push(receipt["id"].as_str().unwrap().to_owned());
        }
        match body.get("next").and_then(Value::as_str) {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return ids,
        }
    }
}

#[test]
fn a_request_id_is_echoed_and_decides_once() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut client = client(tai.address());
    let (grant, suspend) = (event("acme", "grant"), event("acme", "suspend"));

    let first = post_as(&mut client, "/marketplace", "req-1", &grant);
    assert_eq!((first.status, first.header("x-request-id")), (200, Some("req-1")));
    assert_eq!(first.header("x-idempotent-replay"), None);
    let again = post_as(&mut client, "/marketplace", "req-1", &grant);
    assert_eq!((again.status, again.header("x-request-id")), (200, Some("req-1")));
    assert_eq!(again.header("x-idempotent-replay"), Some("true"));
    assert_eq!((&again.body, receipt_id(&again)), (&first.body, receipt_id(&first)));
    let other = post_as(&mut client, "/marketplace", "req-1", &suspend);
    assert_eq!(other.status, 422);
    assert_envelope(&other, "duplicate_message");
    assert_eq!(other.header("x-receipt-id"), None, "it has no receipt of its own");

    let refused = post_as(&mut client, "/marketplace", "req-2", &grant);
    assert_eq!(refused.status, 422);
    let again = post_as(&mut client, "/marketplace", "req-2", &grant);
    assert_eq!((again.status, again.header("x-idempotent-replay")), (422, Some("true")));
    assert_eq!((&again.body, receipt_id(&again)), (&refused.body, receipt_id(&refused)));
    // A pushed message that was refused has been decided: it is acknowledged, not an error.
    let message = push("m1", &grant);
    let first = post(&mut client, "/pubsub", &message);
    assert_eq!((first.status, first.header("x-idempotent-replay")), (200, None));
    assert_eq!(first.json().unwrap()["reason"], "entitlement_already_active");
    let again = post(&mut client, "/pubsub", &message);
    assert_eq!((again.status, again.header("x-idempotent-replay")), (200, Some("true")));
    assert_eq!(again.body, first.body);

    // The standard header wins over the seeds' one, which then only correlates.
    let headers = [JSON, ("Idempotency-Key", "key-1"), ("X-Request-ID", "req-3")];
    let body = suspend.to_string();
    let first = client.request("POST", "/marketplace", &headers, body.as_bytes()).unwrap();
    let headers = [JSON, ("Idempotency-Key", "key-1"), ("X-Request-ID", "req-4")];
    let again = client.request("POST", "/marketplace", &headers, body.as_bytes()).unwrap();
    assert_eq!((first.status, again.status), (200, 200));
    assert_eq!(receipt_id(&first), receipt_id(&again));
    assert_eq!(again.header("x-request-id"), Some("req-4"));

    let bare = post(&mut client, "/marketplace", &event("acme", "resume"));
    assert_eq!(bare.header("x-request-id").unwrap().len(), 36, "a new one where none is given");
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn time_alone_begins_and_ends_a_grant_across_a_crash() {
    let (_room, dir) = room();
    let envs = [("GOVERNOR_STATE_CHECK_INTERVAL_MS", "50")];
    let mut tai = start(&dir, &envs);
    let begins = unix_secs() + 2;
    let mut grant = event("acme", "grant");
    grant["effective_at"] = begins.into();
    grant["expires_at"] = (begins + 2).into();
    let scheduled = post(&mut client(tai.address()), "/marketplace", &grant).json().unwrap();
    assert_eq!(
        (&scheduled["state_from"], &scheduled["state_to"]),
        (&json!("unentitled"), &json!("unentitled"))
    );
    tai.kill().unwrap();

    // From here on nobody asks for this tenant: only its timers know it.
    let tai = start(&dir, &envs);
    let mut client = client(tai.address());
    let mut first = |query: &str| {
        until(query, || {
            let page =
                get(&mut client, &format!("/receipts?tenant_id=acme&{query}")).json().unwrap();
            page["receipts"].get(0).cloned()
        })
    };
    let began = first("state_to=entitled");
    assert_eq!(
        (&began["actor"], &began["intent"]),
        (&json!("governor"), &scheduled["id"]),
        "{began}"
    );
    assert!((begins..begins + 2).contains(&began["timestamp"].as_i64().unwrap()), "{began}");
    let ended = first("action=lapse");
    assert_eq!(
        (&ended["state_from"], &ended["state_to"]),
        (&json!("entitled"), &json!("unentitled"))
    );
    assert!(ended["timestamp"].as_i64().unwrap() >= begins + 2, "{ended}");
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn an_intervention_throttles_and_is_alone() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let address = tai.address();
    let mut client = client(address);
    assert_eq!(post(&mut client, "/marketplace", &event("acme", "grant")).status, 200);
    let now_ms = unix_secs() * 1000;
    thread::scope(|scope| {
        for sender in 0..8 {
            scope.spawn(move || {
                let mut client = Client::connect(address).unwrap();
                for signal in 0..10 {
                    let data = json!({
                        "tenant_id": "acme", "metric": "cpu", "value": 95,
                        "timestamp_ms": now_ms + signal,
                    });
                    let id = format!("storm-{sender}-{signal}");
                    assert_eq!(post(&mut client, "/pubsub", &push(&id, &data)).status, 200);
                }
            });
        }
    });
    until("the throttle", || {
        let page = get(&mut client, "/receipts?tenant_id=acme&type=action_result").json().unwrap();
        page["receipts"].get(0).cloned()
    });
    let call = json!({"customer_id": "acme"});
    assert_eq!(post(&mut client, "/marketplace", &call).status, 200, "the first one is free");
    let limited = post(&mut client, "/marketplace", &call);
    assert_eq!(limited.status, 429);
    assert_envelope(&limited, "rate_limit_exceeded");
    assert_eq!(limited.header("retry-after"), Some("1"));
    assert_eq!(limited.json().unwrap()["retryable"], true);
    assert_eq!(post(&mut client, "/marketplace", &json!({"customer_id": "b"})).status, 200);
    stop(tai);

    let mut open: Option<Value> = None;
    let mut settled = 0;
    for receipt in assert_verified(&dir).iter().filter(|receipt| receipt["stream"] == "acme") {
        match receipt["type"].as_str().unwrap() {
            "action_attempt" => {
                assert_eq!(open, None, "a second action while one is in flight");
                open = Some(receipt["id"].clone());
            }
            "action_result" => {
                assert_eq!(open.take(), Some(receipt["intent"].clone()));
                assert_eq!(receipt["status"], "success");
                settled += 1;
            }
            _ => {}
        }
    }
    assert!(settled >= 1 && open.is_none(), "{settled}");
}

#[test]
fn the_open_door_answers_only_to_loopback_names() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut client = client(tai.address());
    let body = json!({"customer_id": "test-001"}).to_string();
    for (host, status) in [
        ("localhost", 200),
        ("LOCALHOST:8080", 200),
        ("127.0.0.1:1", 200),
        ("127.9.9.9", 200),
        ("[::1]:8080", 200),
        ("evil.example:8080", 403),
        ("localhost.evil.example", 403),
        ("10.0.0.1", 403),
        ("0.0.0.0", 403),
        ("", 403),
    ] {
        for path in ["/marketplace", "/health"] {
            let request = format!(
                "POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n\
                 Content-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let request = request.replace("POST /health", "GET /health");
            let answer = client.send_raw(request.as_bytes()).unwrap();
            let expected = if path == "/health" { 200 } else { status };
            assert_eq!(answer.status, expected, "{host} {path}");
        }
    }
    stop(tai);
    assert_verified(&dir);
}
