//! Secrets where they do not belong: pushed through every field, header and address, and said by a
//! provider.
//!
//! Owns: that none of them is anywhere that the service writes, tells or shows. Refuses to know:
//! how they are recognised.

use std::fs;
use std::path::Path;

use serde_json::{Value, json};
use testkit::http::Client;
use testkit::receiver::{Manner, Receiver};

use crate::callers::*;
use crate::collector::Collector;
use crate::settings::looks::Quiet;
use crate::support::*;

/// In every secret below; test vectors all.
const MARK: &str = "zq7leak";

/// A secret of each form, for a place.
fn secrets(place: usize) -> Vec<String> {
    let body = format!("{MARK}{place:02}{MARK}{MARK}");
    vec![
        format!("sk_live_{body}"),
        format!("sk-proj-{body}"),
        format!("taik_acme.{body}"),
        format!("Bearer {body}"),
        format!("password={body}"),
        format!("{{\"api_key\": \"{body}\"}}"),
        format!("eyJhbGciOiJIUzI1NiJ9.{body}.{body}"),
        format!("-----BEGIN PRIVATE KEY----- {body}"),
    ]
}

/// Sends them in each header.
fn push_headers(client: &mut Client) {
    let names = [
        "Authorization",
        "X-API-Key",
        "Cookie",
        "User-Agent",
        "Referer",
        "X-Forwarded-For",
        "X-Request-ID",
        "X-Trace-Id",
        "traceparent",
        "tracestate",
        "Idempotency-Key",
        "Content-Type",
        "X-Signature",
        "X-Anything",
    ];
    for (place, name) in names.into_iter().enumerate() {
        for secret in secrets(place) {
            for (method, path, body) in [
                ("GET", "/receipts", ""),
                ("POST", "/marketplace", r#"{"customer_id":"acme"}"#),
                ("POST", "/v1/chat/completions", r#"{"model":"echo","messages":[]}"#),
            ] {
                let headers = [(name, secret.as_str())];
                client.request(method, path, &headers, body.as_bytes()).unwrap();
            }
        }
    }
}

/// Sends them in paths and queries.
fn push_addresses(client: &mut Client) {
    for secret in secrets(20) {
        let coded: String = secret.bytes().map(|byte| format!("%{byte:02x}")).collect();
        let bare = secret.replace([' ', '"', '{', '}'], "");
        for text in [&coded, &bare] {
            for path in [
                format!("/{text}"),
                format!("/receipts/{text}"),
                format!("/receipts?tenant_id={text}"),
                format!("/receipts?{text}"),
                format!("/receipts?token={text}"),
                format!("/admin/keys/{text}"),
                format!("/admin/settings/{text}"),
                format!("/v1/models/{text}"),
            ] {
                client.request("GET", &path, &[], b"").unwrap();
            }
        }
    }
}

/// Sends them in each field of each body; what was asked for is not the point.
fn push_fields(client: &mut Client) {
    let event = json!({
        "tenant_id": "acme", "entitlement_id": "e", "action": "grant", "sku": "professional",
        "metadata": {"note": "n"},
    });
    let call = json!({"customer_id": "acme", "stripe_token": "t"});
    let signal = json!({
        "tenant_id": "acme", "metric": "cpu", "value": 95, "timestamp_ms": unix_secs() * 1000,
    });
    let chat = json!({
        "model": "fake/m", "user": "u", "messages": [{"role": "user", "content": "c"}],
        "tools": [{"type": "function", "function": {"name": "n"}}],
    });
    let message = json!({"model": "echo", "max_tokens": 5, "system": "s", "messages": []});
    let incident = json!({
        "title": "t", "severity": "P2", "component": "http", "text": "x",
    });
    let silence = json!({"alert": "errors", "minutes": 5, "comment": "c"});
    let key = json!({"tenant": "acme", "label": "l", "scopes": ["ai:invoke"]});
    let setting = json!({"value": "v", "reason": "r"});
    for (method, path, body) in [
        ("POST", "/marketplace", &event),
        ("POST", "/marketplace", &call),
        ("POST", "/v1/chat/completions", &chat),
        ("POST", "/v1/messages", &message),
        ("POST", "/admin/incidents", &incident),
        ("POST", "/admin/silences", &silence),
        ("POST", "/admin/keys", &key),
        ("PUT", "/admin/settings/LOG_LEVEL", &setting),
    ] {
        for spoilt in spoilt(body, 40) {
            let bytes = spoilt.to_string();
            client.request(method, path, &[], bytes.as_bytes()).unwrap();
        }
    }
    for (nth, spoilt) in spoilt(&signal, 60).into_iter().enumerate() {
        post(client, "/pubsub", &push(&format!("spoilt-{nth}"), &spoilt));
        for secret in secrets(61) {
            post(client, "/pubsub", &push(&secret, &spoilt));
            post(client, "/pubsub", &push_raw(&format!("raw-{nth}"), secret.as_bytes()));
        }
    }
    for secret in secrets(62) {
        let name = json!({secret.clone(): secret, "customer_id": "acme"});
        post(client, "/marketplace", &name);
        client.request("POST", "/marketplace", &[], secret.as_bytes()).unwrap();
    }
}

/// The body once for each of its fields and each secret, which stands there instead.
fn spoilt(body: &Value, place: usize) -> Vec<Value> {
    let mut all = Vec::new();
    for name in body.as_object().unwrap().keys() {
        for secret in secrets(place) {
            let mut spoilt = body.clone();
            spoilt[name] = match &body[name] {
                Value::Object(_) => json!({"note": secret}),
                Value::Array(_) => json!([{"role": secret, "content": secret, "name": secret}]),
                _ => json!(secret),
            };
            all.push(spoilt);
        }
    }
    all
}

/// What the provider says of our key, in each way in which it can refuse.
fn push_refusals(client: &mut Client, provider: &Receiver) {
    let chat = json!({"model": "fake/m", "messages": [{"role": "user", "content": "hi"}]});
    for secret in secrets(80) {
        for status in [200, 400, 401, 403, 404, 429, 500, 503] {
            let said = json!({"error": {"message": format!("Incorrect API key: {secret}"), "type": secret, "code": secret}});
            let header = secret.replace(['\r', '\n'], "");
            let headers = vec![("x-said", header.clone()), ("www-authenticate", header)];
            provider.always(Some(Manner::Says(status, headers, said.to_string())));
            post(client, "/v1/chat/completions", &chat);
        }
        provider.always(Some(Manner::Says(200, vec![], secret)));
        post(client, "/v1/chat/completions", &chat);
    }
}

/// An incident whose every text holds a secret, from its beginning to its post-mortem.
fn push_incident(client: &mut Client) -> String {
    let [title, told, note] =
        ["title", "text", "note"].map(|it| format!("{it} {}", secrets(90).join(", ")));
    let body = json!({"title": &title[..80], "severity": "P2", "component": "http", "text": told});
    let opened = post(client, "/admin/incidents", &body);
    assert_eq!(opened.status, 200, "{}", text(&opened));
    let listed = get(client, "/admin/incidents").json().unwrap();
    let id = listed["incidents"][0]["id"].as_str().unwrap().to_owned();
    for deed in [
        json!({"do": "acknowledge"}),
        json!({"do": "note", "text": note}),
        json!({"do": "update", "text": note}),
        json!({"do": "status", "status": "identified", "text": note}),
        json!({"do": "assign", "role": "commander", "who": secrets(91)[0]}),
        json!({"do": "status", "status": "resolved", "text": note}),
    ] {
        post(client, &format!("/admin/incidents/{id}"), &deed);
    }
    id
}

#[test]
fn no_secret_is_in_anything_that_is_written_told_or_shown() {
    let (room, dir) = room();
    let (collector, slack, provider) =
        (Collector::start(), Receiver::start().unwrap(), Receiver::start().unwrap());
    let spans = Receiver::start().unwrap();
    slack.always(Some(Manner::Says(200, vec![], "ok".into())));
    let file = room.path().join("app.log");
    let providers = room.path().join("providers.toml");
    let config = format!(
        "[providers.fake]\napi = \"openai\"\nbase_url = \"{}\"\nkey_env = \"FAKE_KEY\"\nallow_private = true\n",
        provider.url()
    );
    fs::write(&providers, config).unwrap();
    let (url, hook) = (collector.url(), slack.url() + "/services/" + MARK);
    let page = room.path().join("page");
    let stdout = room.path().join("stdout");
    let tai = Quiet::start(
        &dir,
        &[
            ("LOG_LEVEL", "debug"),
            ("LOG_FILE", file.to_str().unwrap()),
            ("LOG_HTTP_ENDPOINT", &url),
            ("LOG_HTTP_FLUSH_INTERVAL", "20"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &spans.url()),
            ("TRACING_SAMPLE_RATE", "1"),
            ("PROVIDERS_FILE", providers.to_str().unwrap()),
            ("FAKE_KEY", &secrets(99)[1]),
            ("SLACK_WEBHOOK_URL", &hook),
            ("STATUS_PAGE_DIR", page.to_str().unwrap()),
            ("CIRCUIT_BREAKER_THRESHOLD", "10000"),
        ],
        &stdout,
    );
    let mut client = client(tai.address);
    push_headers(&mut client);
    push_addresses(&mut client);
    push_fields(&mut client);
    push_refusals(&mut client, &provider);
    let incident = push_incident(&mut client);
    until("the incident is told", || (!slack.received().is_empty()).then_some(()));

    let shown = [
        "/metrics",
        "/health",
        "/status",
        "/api/v2/summary.json",
        "/openapi.json",
        "/admin/incidents",
        "/admin/settings",
        "/admin/alerts",
        "/admin/channels",
        &format!("/admin/incidents/{incident}"),
        &format!("/admin/incidents/{incident}/postmortem"),
    ]
    .map(|path| (path.to_owned(), text(&get(&mut client, path))));
    assert!(shown.iter().all(|(_, shown)| !shown.is_empty()));
    let told: Vec<_> = slack.received().iter().map(|it| ("slack".to_owned(), it.text())).collect();
    tai.stop();
    let collected: Vec<Value> =
        collector.deliveries().into_iter().flat_map(|delivery| delivery.logs).collect();
    assert!(collected.len() > 1_000, "{}", collected.len());
    let receipts = assert_verified(&dir);
    assert!(receipts.len() > 20, "{}", receipts.len());
    let traced: Vec<_> =
        spans.received().iter().map(|it| ("spans".to_owned(), it.text())).collect();
    assert!(traced.iter().any(|(_, text)| text.contains("/v1/chat/completions")));
    let written = [
        ("stdout".to_owned(), read(&stdout)),
        ("log file".to_owned(), read(&file)),
        ("collector".to_owned(), json!(collected).to_string()),
        ("receipts".to_owned(), json!(receipts).to_string()),
    ];
    let copies =
        ["index.html", "summary.json"].map(|name| (name.to_owned(), read(&page.join(name))));
    let places = shown.iter().chain(&told).chain(&traced).chain(&written).chain(&copies);
    let leaks: Vec<String> = places
        .flat_map(|(place, text)| {
            let around = text.match_indices(MARK).map(|(at, _)| around(text, at));
            around.take(8).map(move |text| format!("{place}: {text}"))
        })
        .collect();
    assert!(leaks.is_empty(), "{leaks:#?}");
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap()
}

/// What stands around a place, so that a leak can be told from the next.
fn around(text: &str, at: usize) -> &str {
    let from = (0..=at.saturating_sub(60)).rev().find(|from| text.is_char_boundary(*from));
    let to = (at + 40..=text.len()).find(|to| text.is_char_boundary(*to)).unwrap_or(text.len());
    &text[from.unwrap_or(0)..to]
}
