//! Alerts that others have found, over the real door.
//!
//! Owns: who may send them, that a repeat leaves nothing behind, and when one ends. Refuses to
//! know: how Prometheus and Alertmanager come to theirs (`peers`).

use serde_json::{Value, json};
use testkit::http::Response;
use testkit::tai::Tai;

use crate::callers::*;
use crate::support::*;

const POSTED: &str = "/api/v2/alerts";
const WEBHOOK: &str = "/webhooks/alertmanager";
/// Looks often, so that what is over ends soon.
const SOON: (&str, &str) = ("ALERT_INTERVAL_MS", "100");

fn alert(name: &str) -> Value {
    json!({
        "labels": {"alertname": name, "component": "http", "severity": "critical"},
        "annotations": {"summary": "it is down"},
        "startsAt": "2026-01-01T00:00:00Z",
    })
}

fn with(mut alert: Value, member: &str, value: &str) -> Value {
    alert[member] = value.into();
    alert
}

fn group(alerts: &[Value]) -> Value {
    json!({"version": "4", "status": "firing", "receiver": "tai", "alerts": alerts})
}

/// Sends, and gives how many fired, ended and were repeated.
fn sent(caller: &mut Caller, path: &str, body: &Value) -> [u64; 3] {
    let response = caller.post(path, body);
    assert_eq!(response.status, 200, "{}", text(&response));
    let body = response.json().unwrap();
    ["fired", "ended", "repeated"].map(|name| body[name].as_u64().unwrap())
}

fn json_of(caller: &mut Caller, path: &str) -> Value {
    let response = caller.get(path);
    assert_eq!(response.status, 200, "{path}: {}", text(&response));
    response.json().unwrap()
}

/// Rule, phase and incident of each alert.
fn alerts(caller: &mut Caller) -> Vec<(String, String, Value)> {
    let listed = json_of(caller, "/admin/alerts");
    let word = |one: &Value, name: &str| one[name].as_str().unwrap().to_owned();
    let all = listed["alerts"].as_array().unwrap().iter();
    all.map(|one| (word(one, "rule"), word(one, "phase"), one["incident"].clone())).collect()
}

fn receipts_of_incidents(caller: &mut Caller) -> usize {
    caller.receipts("stream=_incidents&limit=100").len()
}

fn fires(name: &str, incident: &str) -> (String, String, Value) {
    (name.to_owned(), "firing".to_owned(), json!(incident))
}

/// A time so many seconds from now, as senders write it.
fn from_now(secs: i64) -> String {
    let out = std::process::Command::new("date")
        .args(["-u", "-d", &format!("@{}", unix_secs() + secs), "+%Y-%m-%dT%H:%M:%SZ"])
        .output()
        .unwrap();
    String::from_utf8(out.stdout).unwrap().trim().to_owned()
}

#[test]
fn an_alert_of_others_opens_an_incident_is_repeated_without_a_receipt_and_ends() {
    let (_room, dir) = room();
    let mut tai = start(&dir, &[]);
    let mut local = Caller::local(tai.address());
    for (path, one, over) in [
        (POSTED, json!([alert("Down")]), {
            json!([with(alert("Down"), "endsAt", "2026-01-01T00:01:00Z")])
        }),
        (
            WEBHOOK,
            group(&[with(alert("Down"), "status", "firing")]),
            group(&[with(alert("Down"), "status", "resolved")]),
        ),
    ] {
        // Whoever is worse off joins: the second sender finds the incident of the first.
        assert_eq!(sent(&mut local, path, &one), [1, 0, 0], "{path}");
        assert_eq!(alerts(&mut local), [fires("Down", "INC-1")], "{path}");
        let before = receipts_of_incidents(&mut local);
        for _ in 0..3 {
            assert_eq!(sent(&mut local, path, &one), [0, 0, 1], "{path}");
        }
        assert_eq!(receipts_of_incidents(&mut local), before, "{path}: a repeat left a receipt");
        // A restart forgets nothing of it.
        tai.kill().unwrap();
        tai = start(&dir, &[]);
        local = Caller::local(tai.address());
        assert_eq!(alerts(&mut local), [fires("Down", "INC-1")], "{path}");
        assert_eq!(sent(&mut local, path, &one), [0, 0, 1], "{path}");
        assert_eq!(sent(&mut local, path, &over), [0, 1, 0], "{path}");
        assert_eq!(sent(&mut local, path, &over), [0, 0, 1], "{path}");
        assert_eq!(alerts(&mut local), [], "{path}");
    }
    let incidents = json_of(&mut local, "/admin/incidents");
    assert_eq!(incidents["incidents"][0]["status"], "monitoring");
    assert_eq!(incidents["incidents"][0]["severity"], "sev1");
    assert_eq!(incidents["incidents"][0]["title"], "it is down");
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn an_alert_that_is_not_repeated_ends_when_its_sender_said() {
    let (_room, dir) = room();
    let tai = start(&dir, &[SOON]);
    let mut local = Caller::local(tai.address());
    let soon = json!([with(alert("Soon"), "endsAt", &from_now(2))]);
    let late = json!([with(alert("Late"), "endsAt", &from_now(3_600)), alert("Open")]);
    assert_eq!(sent(&mut local, POSTED, &soon), [1, 0, 0]);
    assert_eq!(sent(&mut local, POSTED, &late), [2, 0, 0]);
    until("what is not repeated ends", || {
        let names: Vec<String> = alerts(&mut local).into_iter().map(|one| one.0).collect();
        (!names.contains(&"Soon".to_owned())).then(|| assert_eq!(names.len(), 2, "{names:?}"))
    });
    // Said again it is a new one, of the same incident.
    assert_eq!(sent(&mut local, POSTED, &json!([alert("Soon")])), [1, 0, 0]);
    assert_eq!(alerts(&mut local).len(), 3);
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn a_silence_keeps_alerts_of_others_from_incidents_and_a_repeat_after_it_does_not() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut local = Caller::local(tai.address());
    let silence = json!({"matcher": "rule=Down", "lease_s": 600, "why": "work"});
    assert_eq!(local.put("/admin/silences", &silence).status, 200);
    assert_eq!(sent(&mut local, POSTED, &json!([alert("Down")])), [1, 0, 0]);
    assert_eq!(alerts(&mut local)[0].2, Value::Null);
    assert_eq!(local.delete("/admin/silences?matcher=rule%3DDown").status, 200);
    assert_eq!(sent(&mut local, POSTED, &json!([alert("Down")])), [1, 0, 0]);
    assert_eq!(alerts(&mut local), [fires("Down", "INC-1")]);
    stop(tai);
}

#[test]
fn an_alert_of_others_that_a_silence_held_back_has_its_incident_when_that_ends() {
    let (_room, dir) = room();
    let tai = start(&dir, &[SOON]);
    let mut local = Caller::local(tai.address());
    let silence = json!({"matcher": "rule=Down", "lease_s": 600, "why": "work"});
    assert_eq!(local.put("/admin/silences", &silence).status, 200);
    let one = group(&[with(alert("Down"), "status", "firing")]);
    assert_eq!(sent(&mut local, WEBHOOK, &one), [1, 0, 0]);
    assert_eq!(alerts(&mut local)[0].2, Value::Null);
    assert_eq!(local.delete("/admin/silences?matcher=rule%3DDown").status, 200);
    // Its sender repeats it in hours.
    until("its incident", || (alerts(&mut local) == [fires("Down", "INC-1")]).then_some(()));
    stop(tai);
}

#[test]
fn alerts_need_a_key_of_the_service_or_a_signature() {
    let (_room, dir) = room();
    let (secret, admin_text) = (chance(), new_key());
    let set = base64(&secret);
    let tai = start_guarded(&dir, &admin_text, &[("HMAC_SECRET_KEY", &set)]);
    let mut admin = Caller::keyed(tai.address(), &admin_text);
    let stranger = || Caller::local(tai.address());
    for (path, body) in [(POSTED, json!([alert("Down")])), (WEBHOOK, group(&[]))] {
        let key = |admin: &mut Caller, order: Value| issue(admin, &order).text;
        let own = key(&mut admin, json!({"scopes": ["signals:write"]}));
        let tenants = key(&mut admin, json!({"tenant_id": "acme", "scopes": ["signals:write"]}));
        let other = key(&mut admin, json!({"scopes": ["receipts:read", "marketplace:write"]}));
        assert_refused(&stranger().post(path, &body), 401, "unauthorized");
        for wrong in [tenants, other] {
            let response = Caller::keyed(tai.address(), &wrong).post(path, &body);
            assert_refused(&response, 403, "forbidden");
        }
        let bearer = format!("Bearer {own}");
        assert_eq!(stranger().with("Authorization", &bearer).post(path, &body).status, 200);
        let bytes = body.to_string();
        let good = signature(&secret, bytes.as_bytes());
        assert_eq!(stranger().with("X-Signature", &good).post(path, &body).status, 200);
        for bad in [&good[1..], "", &signature(&chance(), bytes.as_bytes())] {
            let response = stranger().with("X-Signature", bad).post(path, &body);
            assert_refused(&response, 401, "signature_invalid");
        }
    }
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn what_is_no_alert_is_refused_by_the_table_and_leaves_nothing() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut local = Caller::local(tai.address());
    let refused = |response: &Response, reason: &str| assert_refused(response, 400, reason);
    let many: Vec<Value> = (0..501).map(|nth| alert(&format!("a{nth}"))).collect();
    for (path, body, reason) in [
        (POSTED, json!({}), "invalid_message_format"),
        (POSTED, json!([{}]), "missing_field"),
        (POSTED, json!([{"labels": {}}]), "invalid_field"),
        (POSTED, json!([{"labels": {"a": 1}}]), "invalid_field"),
        (POSTED, json!([alert("good"), with(alert("x"), "endsAt", "noon")]), "invalid_field"),
        (POSTED, Value::Array(many), "invalid_field"),
        (WEBHOOK, json!([]), "invalid_message_format"),
        (WEBHOOK, json!({"alerts": []}), "missing_field"),
        (WEBHOOK, json!({"version": "3", "alerts": []}), "invalid_field"),
        (WEBHOOK, group(&[alert("x")]), "missing_field"),
        (WEBHOOK, group(&[with(alert("x"), "status", "maybe")]), "invalid_field"),
    ] {
        refused(&local.post(path, &body), reason);
    }
    let deep = format!("[{}", "[".repeat(100));
    refused(&local.send_bytes("POST", POSTED, deep.as_bytes()), "invalid_message_format");
    assert_eq!(alerts(&mut local), [], "one bad alert, and none of its body is taken");
    assert_eq!(receipts_of_incidents(&mut local), 0);
    // As many as one body may hold are taken at once.
    let most: Vec<Value> = (0..100).map(|nth| alert(&format!("a{nth}"))).collect();
    assert_eq!(sent(&mut local, POSTED, &Value::Array(most)), [100, 0, 0]);
    assert_eq!(json_of(&mut local, "/admin/incidents")["incidents"].as_array().unwrap().len(), 1);
    stop(tai);
}

/// What an Alertmanager makes of a notice of ours, and sends back.
fn echo(tai: &Tai, local: &mut Caller) -> Value {
    let opened = json_of(local, "/admin/incidents")["incidents"][0]["opened_by"].clone();
    let mut echo = alert("high-error-rate");
    echo["labels"]["incident"] = "INC-1".into();
    echo["annotations"]["receipt"] = opened;
    assert!(tai.address().ip().is_loopback());
    with(echo, "status", "firing")
}

#[test]
fn a_notice_of_our_own_that_comes_back_is_no_alert() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut local = Caller::local(tai.address());
    assert_eq!(sent(&mut local, POSTED, &json!([alert("Down")])), [1, 0, 0]);
    let own = echo(&tai, &mut local);
    let response = local.post(WEBHOOK, &group(std::slice::from_ref(&own)));
    assert_eq!(response.json().unwrap()["own"], 1, "{}", text(&response));
    assert_eq!(alerts(&mut local), [fires("Down", "INC-1")]);
    // Another service's is one.
    let mut other = own;
    other["annotations"]["receipt"] = format!("rcpt_{}", "0".repeat(32)).into();
    assert_eq!(sent(&mut local, WEBHOOK, &group(&[other])), [1, 0, 0]);
    stop(tai);
}
