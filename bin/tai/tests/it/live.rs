//! Settings of a running service: changed, leased, restored, and kept over its death.
//!
//! INV-14: a leased setting that gives up a guarantee turns health yellow and raises its gauge for
//! as long as it holds.
//!
//! Owns: that a change is in force from its answer on, what is refused, and that a lease ends by
//! itself. Refuses to know: what else a setting does, which `settings` looks at.

use serde_json::{Value, json};
use settings::{Form, Kind, Knob};
use testkit::http::Response;

use crate::callers::*;
use crate::settings::looks::turned_away;
use crate::support::*;

mod process;

/// The start of every bad value, so that it is recognised wherever it is shown.
const MARKER: &str = "zq7marker";
const VERIFY: &str = "RECEIPT_VERIFY_HASHES";

fn path(name: &str) -> String {
    format!("/admin/settings/{name}")
}

fn set(operator: &mut Caller, name: &str, value: &str) -> Value {
    change(operator, name, &json!({"value": value}))
}

fn lease(operator: &mut Caller, name: &str, value: &str, lease_s: i64) -> Value {
    change(operator, name, &json!({"value": value, "lease_s": lease_s}))
}

fn change(operator: &mut Caller, name: &str, order: &Value) -> Value {
    receipt(&operator.put(&path(name), order))
}

fn clear(operator: &mut Caller, name: &str) -> Value {
    receipt(&operator.delete(&path(name)))
}

fn receipt(response: &Response) -> Value {
    assert_eq!(response.status, 200, "{}", text(response));
    response.json().unwrap()
}

fn shown(operator: &mut Caller) -> Vec<Value> {
    receipt(&operator.get("/admin/settings"))["settings"].as_array().unwrap().clone()
}

/// One setting as it is shown.
fn row(operator: &mut Caller, name: &str) -> Value {
    shown(operator).into_iter().find(|row| row["name"] == name).unwrap()
}

fn live() -> impl Iterator<Item = &'static Knob> {
    settings::table().iter().filter(|knob| knob.live)
}

/// A value that the setting may have and does not.
fn another(knob: &Knob, value: &str) -> String {
    match knob.kind {
        Kind::Integer { max, .. } => {
            let number: u64 = value.parse().unwrap();
            (if number < max { number + 1 } else { number - 1 }).to_string()
        }
        Kind::Flag => (value != "true").to_string(),
        Kind::Choice(words) => {
            words.iter().find(|word| **word != value).copied().unwrap().to_owned()
        }
        Kind::Text(Form::Breakers) => "openai=closed".to_owned(),
        Kind::Text(Form::Share) => "0.25".to_owned(),
        Kind::Path | Kind::Address | Kind::Text(_) => panic!("{} is live", knob.name),
    }
}

#[test]
fn every_live_setting_changes_and_comes_back() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut operator = Caller::local(tai.address());
    let at_start = shown(&mut operator);
    assert_eq!(at_start.len(), settings::table().len());
    for knob in live() {
        let name = knob.name;
        let before = row(&mut operator, name);
        let value = another(knob, before["value"].as_str().unwrap());
        let relaxes = knob.relaxes == Some(value.as_str());
        if relaxes {
            lease(&mut operator, name, &value, 3_600);
        } else {
            set(&mut operator, name, &value);
        }
        let after = row(&mut operator, name);
        assert_eq!((&after["value"], &after["live"]), (&json!(value), &json!(true)), "{name}");
        let source = after["source"].as_str().unwrap();
        if relaxes {
            assert!(source.starts_with("lease until 2"), "{name}: {source}");
            assert!(after["until"].as_i64().unwrap() > unix_secs(), "{name}");
        } else {
            assert_eq!((source, &after["until"]), ("live change", &Value::Null), "{name}");
        }
        let others = |rows: Vec<Value>| -> Vec<Value> {
            rows.into_iter().filter(|row| row["name"] != name).collect()
        };
        assert_eq!(others(shown(&mut operator)), others(at_start.clone()), "{name}");
        clear(&mut operator, name);
        assert_eq!(row(&mut operator, name), before, "{name}");
    }
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn what_is_no_change_is_refused_and_not_shown() {
    let (_room, dir) = room();
    let (admin, secrets) = (new_key(), [base64(&chance()), base64(&chance())]);
    let url = format!("postgres://tai:{}@db/tai", new_key());
    let provider = new_key();
    let redis = format!("redis://:{}@127.0.0.1:1", new_key());
    // Nobody listens there, and nobody is told anything.
    let webhook = format!("http://127.0.0.1:1/{}", new_key());
    let bot = format!("7:{}", new_key());
    let pairs = format!("api-key={provider}");
    let envs = [
        ("HMAC_SECRET_KEY", secrets[0].as_str()),
        ("JWT_SECRET_KEY", secrets[1].as_str()),
        ("DATABASE_URL", url.as_str()),
        ("OPENAI_API_KEY", provider.as_str()),
        ("ANTHROPIC_API_KEY", provider.as_str()),
        ("GEMINI_API_KEY", provider.as_str()),
        ("REDIS_URL", redis.as_str()),
        ("ACTION_HOOK_URL", webhook.as_str()),
        ("ACTION_HOOK_SECRET", provider.as_str()),
        ("SLACK_WEBHOOK_URL", webhook.as_str()),
        ("TELEGRAM_BOT_TOKEN", bot.as_str()),
        ("TELEGRAM_CHAT_ID", "1"),
        ("SMTP_PASS", provider.as_str()),
        ("LOG_HTTP_ENDPOINT", webhook.as_str()),
        ("LOG_HTTP_AUTH_HEADER", provider.as_str()),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", webhook.as_str()),
        ("OTEL_EXPORTER_OTLP_HEADERS", pairs.as_str()),
    ];
    let tai = start_guarded(&dir, &admin, &envs);
    let mut operator = Caller::keyed(tai.address(), &admin);
    let at_start = operator.get("/admin/settings");
    let all = [&admin, &secrets[0], &secrets[1], &url, &provider, &redis, &webhook, &bot];
    for secret in all {
        assert!(!text(&at_start).contains(secret.as_str()));
    }
    for knob in settings::table() {
        let (name, good) = (knob.name, row(&mut operator, knob.name)["value"].clone());
        let mut refused = |order: Value, status: u16, reason: &str| {
            let response = operator.put(&path(name), &order);
            assert_refused(&response, status, reason);
            assert!(!text(&response).contains(MARKER), "{name}: {}", text(&response));
        };
        if !knob.live {
            assert_eq!(knob.secret, good == "(secret)", "{name}");
            refused(json!({"value": MARKER}), 422, "state_error");
            refused(json!({"value": good, "lease_s": 60}), 422, "state_error");
            continue;
        }
        refused(json!({"value": format!("{MARKER}1")}), 400, "invalid_field");
        refused(json!({"value": format!("{MARKER}1"), "lease_s": 60}), 400, "invalid_field");
        refused(json!({"value": good, "lease_s": 0}), 400, "invalid_field");
        refused(json!({"value": good, "lease_s": 604_801}), 400, "invalid_field");
        refused(json!({"lease_s": 60}), 400, "missing_field");
        if let Kind::Integer { min, max } = knob.kind {
            let over = u128::from(max) + 1;
            refused(json!({"value": over.to_string()}), 400, "invalid_field");
            if let Some(under) = min.checked_sub(1) {
                refused(json!({"value": under}), 400, "invalid_field");
            }
        }
        if let Some(value) = knob.relaxes {
            refused(json!({"value": value}), 422, "state_error");
        }
        assert_refused(&operator.delete(&path(name)), 422, "state_error");
    }
    for unknown in [MARKER, "prot", "log_level"] {
        let put = operator.put(&path(unknown), &json!({"value": "1"}));
        for response in [put, operator.delete(&path(unknown))] {
            assert_refused(&response, 404, "not_found");
            assert!(!text(&response).contains(MARKER));
        }
    }
    assert_eq!(operator.get("/admin/settings").body, at_start.body, "nothing has changed");
    let lines = tai.log_lines();
    stop(tai);
    for secret in [&admin, &secrets[0], &secrets[1]] {
        assert!(!lines.iter().any(|line| line.contains(secret.as_str())));
    }
    assert_verified(&dir);
}

#[test]
fn each_change_is_on_record_with_the_key_that_made_it() {
    let (_room, dir) = room();
    let admin = new_key();
    let tai = start_guarded(&dir, &admin, &[]);
    let key = issue(&mut Caller::keyed(tai.address(), &admin), &json!({}));
    let mut operator = key.caller(tai.address());
    let name = "MAX_BODY_BYTES";
    let told = [
        set(&mut operator, name, "2048"),
        change(&mut operator, name, &json!({"value": 4096, "lease_s": 3_600})),
        clear(&mut operator, name),
        receipt(&operator.put("/admin/sources", &json!({"source": "192.0.2.1", "lease_s": 60}))),
        receipt(&operator.delete("/admin/sources?source=192.0.2.1")),
    ];
    for (receipt, (rule, subject, value, from, to)) in told.iter().zip([
        ("settings.set", name, json!("2048"), "default", "live"),
        ("settings.lease", name, json!("4096"), "live", "leased"),
        ("settings.clear", name, Value::Null, "leased", "default"),
        ("source.block", "192.0.2.1/32", Value::Null, "open", "blocked"),
        ("source.unblock", "192.0.2.1/32", Value::Null, "blocked", "open"),
    ]) {
        assert_eq!(receipt["metadata"]["value"], value, "{rule}");
        for (field, expected) in [
            ("stream", "_settings"),
            ("type", "transition"),
            ("actor", &key.id),
            ("rule", rule),
            ("subject", subject),
            ("state_from", from),
            ("state_to", to),
        ] {
            assert_eq!(receipt[field], expected, "{rule} {field}");
        }
    }
    let newest_first: Vec<Value> = told.into_iter().rev().collect();
    assert_eq!(operator.receipts("stream=_settings"), newest_first);
    stop(tai);
    assert_verified(&dir);
    let verified = crate::support::tai(&dir, &["ledger", "verify", "--stream", "_settings"]);
    assert_eq!(verified.code, Some(0), "{}{}", verified.out, verified.err);
}

#[test]
fn limits_hold_from_the_answer_on() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut operator = Caller::local(tai.address());
    let mut holder = issue(&mut operator, &json!({"tenant_id": "acme"})).caller(tai.address());

    let long = json!({"customer_id": "acme", "note": "x".repeat(1_500)});
    assert_eq!(operator.post("/marketplace", &long).status, 200);
    set(&mut operator, "MAX_BODY_BYTES", "1024");
    assert_refused(&operator.post("/marketplace", &long), 413, "payload_too_large");
    clear(&mut operator, "MAX_BODY_BYTES");
    assert_eq!(operator.post("/marketplace", &long).status, 200);

    set(&mut operator, "RATE_LIMIT_PER_SECOND", "1");
    set(&mut operator, "RATE_LIMIT_BURST", "2");
    let looked = holder.get("/receipts/none");
    assert_eq!(looked.header("x-ratelimit-limit"), Some("1"));
    assert_eq!(looked.header("x-ratelimit-remaining"), Some("1"));
    until("the limit", || (holder.get("/receipts/none").status == 429).then_some(()));
    clear(&mut operator, "RATE_LIMIT_BURST");
    clear(&mut operator, "RATE_LIMIT_PER_SECOND");
    let looked = holder.get("/receipts/none");
    assert_eq!((looked.status, looked.header("x-ratelimit-limit")), (404, Some("100")));

    set(&mut operator, "TENANT_MAX_CONCURRENT", "1");
    let key = issue(&mut operator, &json!({"tenant_id": "late"}));
    let held = Half::begin(tai.address(), Some(&key.text));
    let mut second = key.caller(tai.address());
    assert_refused(&second.get("/receipts/none"), 429, "rate_limit_exceeded");
    clear(&mut operator, "TENANT_MAX_CONCURRENT");
    assert_eq!(second.get("/receipts/none").status, 404);
    drop(held);

    set(&mut operator, "METRICS_ENABLED", "false");
    assert_refused(&operator.get("/metrics"), 404, "not_found");
    clear(&mut operator, "METRICS_ENABLED");
    assert_eq!(operator.get("/metrics").status, 200);
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn the_log_says_less_and_more_from_the_answer_on() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut operator = Caller::local(tai.address());
    let asked = |id: &str| {
        let mut caller = Caller::local(tai.address()).with("X-Request-ID", id);
        assert_eq!(caller.get("/health").status, 200);
    };
    set(&mut operator, "LOG_LEVEL", "warn");
    asked("unheard");
    set(&mut operator, "LOG_LEVEL", "info");
    asked("heard");
    let said = |id: &str| tai.log_lines().iter().any(|line| line.contains(id));
    until("the line", || said("\"heard\"").then_some(()));
    assert!(!said("unheard"), "lines are written in order");
    stop(tai);
}

#[test]
fn a_deadline_holds_from_the_answer_on() {
    testkit::needs_python!();
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut operator = Caller::local(tai.address());
    set(&mut operator, "REQUEST_TIMEOUT_MS", "1500");
    let held = HeldLock::take(&dir);
    let late = operator.quote("acme");
    assert_refused(&late, 504, "timeout");
    drop(held);
    // What the lock held up is written first.
    until("the ledger", || (operator.quote("acme").status == 200).then_some(()));
    clear(&mut operator, "REQUEST_TIMEOUT_MS");
    assert_eq!(row(&mut operator, "REQUEST_TIMEOUT_MS")["value"], "30000");
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn the_action_pool_grows_and_shrinks_from_the_answer_on() {
    testkit::needs_python!();
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut operator = Caller::local(tai.address());
    for (pool, queue, turned) in [("1", "1", 6), ("3", "2", 3), ("1", "1", 6)] {
        set(&mut operator, "ACTION_POOL_SIZE", pool);
        set(&mut operator, "ACTION_QUEUE_SIZE", queue);
        let queues = receipt(&operator.get("/admin/queues"));
        let places: u64 = [pool, queue].iter().map(|size| size.parse::<u64>().unwrap()).sum();
        assert_eq!(queues["action_pool_size"], pool.parse::<u64>().unwrap());
        assert_eq!(queues["action_queue_max"], places);
        assert_eq!(turned_away(&tai, &dir, places as usize), turned, "{pool} {queue}");
    }
    stop(tai);
    assert_verified(&dir);
}

/// Health, and whether the gauge says that receipts are not checked.
fn health(operator: &mut Caller) -> (String, Value, bool) {
    let report = operator.get("/health").json().unwrap();
    let page = text(&operator.get("/metrics"));
    let raised = |line: &str| line == "tai_safety_relaxed{setting=\"RECEIPT_VERIFY_HASHES\"} 1";
    (
        report["health"].as_str().unwrap().to_owned(),
        report["relaxed"].clone(),
        page.lines().any(raised),
    )
}

#[test]
fn a_guarantee_is_given_up_by_lease_and_comes_back() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut operator = Caller::local(tai.address());
    let (green, yellow) =
        (("green".to_owned(), json!([]), false), ("yellow".to_owned(), json!([VERIFY]), true));
    assert_refused(&operator.put(&path(VERIFY), &json!({"value": false})), 422, "state_error");
    assert_eq!(health(&mut operator), green);
    lease(&mut operator, VERIFY, "false", 3_600);
    assert_eq!(health(&mut operator), yellow, "from the answer on");
    clear(&mut operator, VERIFY);
    assert_eq!(health(&mut operator), green, "from the answer on");
    lease(&mut operator, VERIFY, "false", 3_600);
    // A second lease takes the place of the first, also one that ends earlier.
    let brief = lease(&mut operator, VERIFY, "false", 1);
    until("the end of the lease", || (health(&mut operator) == green).then_some(()));
    let end = until("its receipt", || {
        let ends = operator.receipts("stream=_settings&state_to=default&state_from=leased");
        ends.into_iter().find(|end| end["rule"] == "settings.lease_end")
    });
    assert_eq!(end["actor"], "governor");
    assert!(end["timestamp"].as_i64() >= brief["expires_at"].as_i64(), "{end}");
    assert_eq!(row(&mut operator, VERIFY)["source"], "default");
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn a_lease_ends_while_its_end_cannot_be_recorded() {
    testkit::needs_python!();
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut operator = Caller::local(tai.address());
    lease(&mut operator, VERIFY, "false", 2);
    let held = HeldLock::take(&dir);
    until("the end of the lease", || (health(&mut operator).0 == "green").then_some(()));
    assert!(operator.receipts("stream=_settings&state_from=leased").is_empty());
    drop(held);
    until("its receipt", || {
        (!operator.receipts("stream=_settings&state_from=leased").is_empty()).then_some(())
    });
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn what_is_kept_stays_and_what_is_leased_ends_over_a_kill() {
    let (_room, dir) = room();
    let mut tai = start(&dir, &[]);
    let mut operator = Caller::local(tai.address());
    set(&mut operator, "RATE_LIMIT_PER_SECOND", "77");
    set(&mut operator, "MAX_BODY_BYTES", "4096");
    let ended = lease(&mut operator, "MAX_BODY_BYTES", "2048", 1);
    lease(&mut operator, VERIFY, "false", 3_600);
    let during = lease(&mut operator, "ACTION_POOL_SIZE", "3", 4);
    tai.kill().unwrap();

    let ends = ended["expires_at"].as_i64().unwrap();
    until("the end of a lease that nobody sees", || (unix_secs() > ends).then_some(()));
    let mut tai = start(&dir, &[]);
    let mut operator = Caller::local(tai.address());
    // Before any timer: the first look finds what holds now.
    let of = |rows: &[Value], name: &str| {
        let row = rows.iter().find(|row| row["name"] == name).unwrap();
        (row["value"].as_str().unwrap().to_owned(), row["source"].as_str().unwrap().to_owned())
    };
    let live = |value: &str| (value.to_owned(), "live change".to_owned());
    let rows = shown(&mut operator);
    assert_eq!(of(&rows, "RATE_LIMIT_PER_SECOND"), live("77"));
    assert_eq!(of(&rows, "MAX_BODY_BYTES"), live("4096"), "what the lease had covered");
    assert!(of(&rows, VERIFY).1.starts_with("lease until"));
    assert_eq!(health(&mut operator).0, "yellow");
    let mut holder = issue(&mut operator, &json!({"tenant_id": "acme"})).caller(tai.address());
    assert_eq!(holder.get("/receipts/none").header("x-ratelimit-limit"), Some("77"));
    until("the end of the lease that was taken over", || {
        (row(&mut operator, "ACTION_POOL_SIZE")["source"] == "default").then_some(())
    });
    let over =
        |end: &Value| end["subject"] == "ACTION_POOL_SIZE" || end["subject"] == "MAX_BODY_BYTES";
    until("both ends on record", || {
        let found = operator.receipts("stream=_settings&state_from=leased");
        (found.iter().filter(|end| over(end)).count() == 2).then_some(())
    });
    let end = &operator.receipts("stream=_settings&state_from=leased")[0];
    assert!(end["timestamp"].as_i64() >= during["expires_at"].as_i64(), "{end}");
    clear(&mut operator, VERIFY);
    clear(&mut operator, "RATE_LIMIT_PER_SECOND");
    tai.kill().unwrap();

    let tai = start(&dir, &[("RATE_LIMIT_PER_SECOND", "55"), ("MAX_BODY_BYTES", "8192")]);
    let mut operator = Caller::local(tai.address());
    let rows = shown(&mut operator);
    assert_eq!(of(&rows, "RATE_LIMIT_PER_SECOND"), ("55".into(), "environment".into()));
    assert_eq!(of(&rows, "MAX_BODY_BYTES"), live("4096"), "a change covers the environment");
    assert_eq!(health(&mut operator).0, "green");
    clear(&mut operator, "MAX_BODY_BYTES");
    let row = row(&mut operator, "MAX_BODY_BYTES");
    assert_eq!((&row["value"], &row["source"]), (&json!("8192"), &json!("environment")));
    stop(tai);
    assert_verified(&dir);
}
