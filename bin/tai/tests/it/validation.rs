//! Rules of the operator's for bodies: strict and lenient, new ones while the service runs, and
//! what a refusal says.
//!
//! Owns: what a caller and an operator see of rules. Refuses to know: which keywords there are,
//! which the unit tests go through.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use testkit::http::Response;
use testkit::tai::Tai;

use crate::callers::*;
use crate::support::*;

/// The start of every value that must not be shown.
const MARKER: &str = "zq7marker";

/// A file with one rule, for `/marketplace`.
pub(crate) fn rules_in(dir: &Path, schema: &Value) -> PathBuf {
    let file = dir.join("rules.json");
    write_rules(&file, schema);
    file
}

fn write_rules(file: &Path, schema: &Value) {
    write(
        file,
        &json!({"version": 1, "rules": [
            {"route": "/marketplace", "method": "POST", "schema": schema},
        ]}),
    );
}

/// Puts a file in place as a whole, as an operator's tools do.
fn write(file: &Path, content: &Value) {
    let new = file.with_extension("new");
    fs::write(&new, content.to_string()).unwrap();
    fs::rename(new, file).unwrap();
}

/// A schema and a `note` that take far more than a millisecond to check, and are good.
pub(crate) fn dear() -> (Value, Value) {
    let branch = json!({"pattern": "^(a|b|ab)*$"});
    let schema = json!({"properties": {"note": {"items": {"allOf": vec![branch; 200]}}}});
    (schema, vec!["ab".repeat(40); 4_000].into())
}

fn serve(dir: &Path, rules: &Path, more: &[(&str, &str)]) -> Tai {
    start(dir, &[&[("VALIDATION_RULES_FILE", rules.to_str().unwrap())], more].concat())
}

fn detail(response: &Response) -> String {
    response.json().unwrap()["detail"].as_str().unwrap().to_owned()
}

#[test]
fn every_route_that_takes_a_rule_checks_its_bodies() {
    let (room, dir) = room();
    let tai = start(&dir, &[]);
    let document = get(&mut client(tai.address()), "/openapi.json").json().unwrap();
    stop(tai);
    let file = room.path().join("rules.json");
    let rule = |path: &str| json!({"route": path, "method": "POST", "schema": false});
    let takes_rule = |path: &&String| {
        write(&file, &json!({"version": 1, "rules": [rule(path)]}));
        tai_check(&dir, &file).code == Some(0)
    };
    let paths = document["paths"].as_object().unwrap();
    let posts = paths.iter().filter(|(_, methods)| methods.get("post").is_some());
    let ruled: Vec<&String> = posts.map(|(path, _)| path).filter(takes_rule).collect();
    for known in ["/marketplace", "/pubsub", "/v1/chat/completions"] {
        assert!(ruled.iter().any(|path| *path == known), "{known}");
    }
    assert!(!ruled.iter().any(|path| path.starts_with("/admin")), "{ruled:?}");
    let rules: Vec<Value> = ruled.iter().map(|path| rule(path)).collect();
    write(&file, &json!({"version": 1, "rules": rules}));
    let tai = serve(&dir, &file, &[]);
    for path in ruled {
        let response = Caller::local(tai.address()).post(path, &json!({}));
        // In the envelope of the route, whichever that is.
        assert_eq!(response.status, 400, "{path}: {}", text(&response));
        assert!(text(&response).contains("validation_failed"), "{path}: {}", text(&response));
    }
    stop(tai);
}

fn tai_check(dir: &Path, rules: &Path) -> Said {
    tai(dir, &["check", "--rules", rules.to_str().unwrap()])
}

#[test]
fn a_refusal_names_places_and_keywords_and_no_value() {
    let (room, dir) = room();
    let schema = json!({
        "type": "object",
        "required": ["plan"],
        "additionalProperties": false,
        "properties": {
            "customer_id": {"pattern": "^[a-z]+$"},
            "plan": {"enum": ["base", "pro"]},
            "seats": {"type": "integer"},
            "metadata": {"additionalProperties": {"maxLength": 3}},
        },
    });
    let file = rules_in(room.path(), &schema);
    let tai = serve(&dir, &file, &[("LOG_VALIDATION_ERRORS", "true")]);
    let mut caller = Caller::local(tai.address()).with("X-Request-ID", "the-one");
    let body = json!({
        "customer_id": format!("{MARKER}/"),
        "seats": format!("{MARKER} 4"),
        "metadata": {format!("{MARKER}@example.org"): format!("{MARKER}value")},
        format!("{MARKER}-{MARKER}"): 1,
    });
    let response = caller.post("/marketplace", &body);
    assert_refused(&response, 400, "validation_failed");
    for told in [
        "/plan required",
        "/customer_id pattern",
        "/seats type",
        "/metadata/* maxLength",
        "/* additionalProperties",
    ] {
        assert!(detail(&response).contains(told), "{told}: {}", detail(&response));
    }
    assert!(!text(&response).contains(MARKER), "{}", text(&response));
    for (class, count) in
        [("required", 1), ("pattern", 1), ("type", 1), ("size", 1), ("unknown", 1)]
    {
        let series = format!("validation_errors_total{{class=\"{class}\",route=\"/marketplace\"}}");
        assert_eq!(metric(tai.address(), &series), count, "{class}");
    }
    assert_eq!(
        metric(tai.address(), "tai_requests_refused_total{reason=\"validation_failed\"}"),
        1
    );
    let failures = || -> Vec<Value> {
        let lines = tai.log_lines();
        let of = lines.iter().filter(|line| line.contains("validation failed"));
        of.map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let failures = until("a line for each", || Some(failures()).filter(|lines| lines.len() == 5));
    for line in failures {
        assert_eq!(
            (&line["request_id"], &line["path"]),
            (&json!("the-one"), &json!("/marketplace"))
        );
        assert!(line["pointer"].is_string() && line["keyword"].is_string(), "{line}");
        assert!(!line.to_string().contains(MARKER), "{line}");
    }
    stop(tai);
}

#[test]
fn leniency_is_leased_shown_and_no_way_around_sizes_and_keys() {
    let (room, dir) = room();
    let schema = json!({
        "properties": {"customer_id": true, "seats": {"type": "integer", "maximum": 9}},
        "additionalProperties": false,
    });
    let (file, admin) = (rules_in(room.path(), &schema), new_key());
    let envs = [("VALIDATION_RULES_FILE", file.to_str().unwrap()), ("MAX_BODY_BYTES", "2048")];
    let tai = start_guarded(&dir, &admin, &envs);
    let mut operator = Caller::keyed(tai.address(), &admin);
    let with = |name: &str, value: Value| {
        let mut body = json!({"customer_id": "acme"});
        body[name] = value;
        body
    };
    let (stranger, number) = (with("note", json!(1)), with("seats", json!("4")));
    let health = |operator: &mut Caller| {
        let report = operator.get("/health").json().unwrap();
        (report["health"].clone(), report["relaxed"].clone(), report["validation_rules"].clone())
    };
    let green = (json!("green"), json!([]), json!("current"));
    assert_eq!(health(&mut operator), green);
    for body in [&stranger, &number] {
        assert_refused(&operator.post("/marketplace", body), 400, "validation_failed");
    }

    let path = "/admin/settings/VALIDATION_STRICT_MODE";
    let forever = operator.put(path, &json!({"value": false}));
    assert_refused(&forever, 422, "state_error");
    let leased = operator.put(path, &json!({"value": false, "lease_s": 3_600}));
    assert_eq!(leased.status, 200, "{}", text(&leased));
    let yellow = (json!("yellow"), json!(["VALIDATION_STRICT_MODE"]), json!("current"));
    assert_eq!(health(&mut operator), yellow);
    let gauge = "tai_safety_relaxed{setting=\"VALIDATION_STRICT_MODE\"}";
    assert_eq!(metric(tai.address(), gauge), 1);
    for body in [&stranger, &number] {
        let response = operator.post("/marketplace", body);
        assert_eq!(response.status, 200, "{}", text(&response));
    }
    until("a line for each", || {
        let lines = tai.log_lines();
        let forgiven = lines.iter().filter(|line| line.contains("validation forgiven"));
        (forgiven.count() == 2).then_some(())
    });
    let over = operator.post("/marketplace", &with("seats", json!("10")));
    assert_refused(&over, 400, "validation_failed");
    let long = operator.post("/marketplace", &with("note", json!("x".repeat(4_096))));
    assert_refused(&long, 413, "payload_too_large");
    let nobody = Caller::local(tai.address()).post("/marketplace", &stranger);
    assert_refused(&nobody, 401, "unauthorized");

    assert_eq!(operator.delete(path).status, 200);
    assert_eq!(health(&mut operator), green);
    assert_refused(&operator.post("/marketplace", &stranger), 400, "validation_failed");
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn a_check_that_does_not_end_refuses_its_own_route_alone() {
    let (room, dir) = room();
    let (schema, note) = dear();
    let file = rules_in(room.path(), &schema);
    let envs = [("VALIDATION_TIMEOUT_MS", "1"), ("LOG_VALIDATION_ERRORS", "true")];
    let tai = serve(&dir, &file, &envs);
    let mut caller = Caller::local(tai.address());
    let late = caller.post("/marketplace", &json!({"customer_id": "acme", "note": note}));
    assert_refused(&late, 504, "timeout");
    assert!(
        detail(&late).contains("VALIDATION_TIMEOUT_MS; nothing was decided"),
        "{}",
        detail(&late)
    );
    let series = "validation_errors_total{class=\"timeout\",route=\"/marketplace\"}";
    assert_eq!(metric(tai.address(), series), 1);
    let pushed = caller.post("/pubsub", &push("m-1", &json!({"signal": "test"})));
    assert_eq!(pushed.status, 200, "{}", text(&pushed));
    assert!(caller.receipts("tenant_id=acme").is_empty(), "nothing was decided");
    until("its line", || {
        let lines = tai.log_lines();
        lines.iter().any(|line| line.contains("validation failed")).then_some(())
    });
    stop(tai);
}

#[test]
fn new_rules_hold_without_a_restart_and_wrong_ones_never() {
    let (room, dir) = room();
    let longest = |chars: usize| json!({"properties": {"customer_id": {"maxLength": chars}}});
    let file = rules_in(room.path(), &longest(9));
    let mut tai = serve(&dir, &file, &[]);
    tai.expect_errors();
    let mut caller = Caller::local(tai.address());
    let word = |caller: &mut Caller| {
        let report = caller.get("/health").json().unwrap();
        let text = |name: &str| report[name].as_str().unwrap().to_owned();
        (text("validation_rules"), text("health"))
    };
    let is = |rules: &str, health: &str| (rules.to_owned(), health.to_owned());
    assert_eq!(caller.quote("acme").status, 200);
    assert_eq!(word(&mut caller), is("current", "green"));

    write_rules(&file, &longest(3));
    until("the new rules", || (caller.quote("acme").status == 400).then_some(()));
    assert_eq!(word(&mut caller), is("current", "green"));

    let wrong = json!({"route": "/none", "method": "POST", "schema": true});
    write(&file, &json!({"version": 1, "rules": [wrong]}));
    until("the wrong rules", || (word(&mut caller) == is("outdated", "yellow")).then_some(()));
    assert_refused(&caller.quote("acme"), 400, "validation_failed");
    let errors = until("the line", || Some(tai.errors()).filter(|lines| !lines.is_empty()));
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].contains("there is no route /none"), "{errors:?}");

    fs::remove_file(&file).unwrap();
    until("no rules", || (tai.errors().len() == 2).then_some(()));
    assert_refused(&caller.quote("acme"), 400, "validation_failed");

    write_rules(&file, &longest(9));
    until("good rules", || (word(&mut caller) == is("current", "green")).then_some(()));
    assert_eq!(caller.quote("acme").status, 200);
    assert_eq!(tai.errors().len(), 2, "each wrong file is one line");
    let notes = caller.receipts("stream=_ops&action=validation_rules");
    assert_eq!(notes.len(), 3, "at the start and for each file that was taken: {notes:?}");
    assert!(notes[0]["detail"].as_str().unwrap().starts_with("1 rules, sha256 "), "{}", notes[0]);
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn a_wrong_file_stops_the_start_and_says_where() {
    let (room, dir) = room();
    let file = room.path().join("rules.json");
    let wrong = json!({"version": 1, "rules": [
        {"route": "/marketplace", "method": "POST", "schema": {"type": "object"}, "strict": true},
        {"route": "/marketplace", "method": "PUT", "schema": {"properties": {"a": {"type": 7}}}},
    ]});
    write(&file, &wrong);
    for verb in ["serve", "check"] {
        let started = command(&dir, &[verb])
            .env("PORT", "0")
            .env("VALIDATION_RULES_FILE", &file)
            .output()
            .unwrap();
        let said = Said::from(started);
        assert_eq!(said.code, Some(2), "{verb}: {}", said.err);
        for told in [
            "VALIDATION_RULES_FILE: ",
            "/rules/1/method: /marketplace does not take PUT",
            "/rules/1/schema/properties/a/type: ",
        ] {
            assert!(said.err.contains(told), "{verb}: {told}: {}", said.err);
        }
    }
    assert!(!dir.exists(), "no ledger was made");

    let said = tai_check(&dir, &file);
    assert_eq!(said.code, Some(2), "{}", said.err);
    let lines: Vec<&str> = said.out.lines().collect();
    assert_eq!(lines.len(), 3, "{}", said.out);
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>().join(" "),
        "POST /marketplace good, always strict"
    );
    assert!(lines[1].contains("PUT /marketplace") && lines[1].contains("/rules/1/method"));
    assert!(said.err.contains("1 of 2 rules are wrong"), "{}", said.err);

    fs::write(&file, "{").unwrap();
    let said = tai_check(&dir, &file);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("file ends before its JSON does at line 1"), "{}", said.err);
    let said = tai_check(&dir, &room.path().join("none.json"));
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("cannot read the file"), "{}", said.err);
}

#[test]
fn the_shipped_rules_take_what_the_runbooks_send() {
    let (_room, dir) = room();
    let file = testkit::place::repository().join("deploy/validation_rules.json");
    let said = tai_check(&dir, &file);
    assert_eq!(said.code, Some(0), "{}{}", said.out, said.err);
    let tai = serve(&dir, &file, &[]);
    let mut caller = Caller::local(tai.address());
    let signal = |metric: Value| {
        json!({
            "tenant_id": "acme", "metric": metric, "value": 50, "timestamp_ms": unix_secs() * 1000,
        })
    };
    let mut dated = event("acme", "suspend");
    dated["effective_at"] = unix_secs().into();
    dated["metadata"] = json!({"order_id": 42, "note": null});
    for (path, body) in [
        ("/marketplace", event("acme", "grant")),
        ("/marketplace", dated),
        ("/marketplace", json!({"customer_id": "acme"})),
        ("/pubsub", push("m-1", &signal(json!("cpu")))),
    ] {
        let response = caller.post(path, &body);
        assert_eq!(response.status, 200, "{path}: {}", text(&response));
    }
    let mut odd = event("acme", "resume");
    odd["rank"] = 1.into();
    let mut loose = push("m-2", &signal(json!("cpu")));
    loose["message"]["attributes"] = json!({"a": 1});
    for (path, body) in [
        ("/marketplace", odd),
        ("/marketplace", json!({"tenant_id": "acme", "action": "grant"})),
        ("/marketplace", json!({"customer_id": "acme", "stripe_token": "x".repeat(256)})),
        ("/pubsub", loose),
        ("/pubsub", json!({"message": {"messageId": "m-3"}})),
    ] {
        assert_refused(&caller.post(path, &body), 400, "validation_failed");
    }
    stop(tai);
    assert_verified(&dir);
}
