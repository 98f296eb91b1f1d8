//! An incident from its declaration to its post-mortem, over HTTP, and what the public sees of it.
//!
//! Owns: what a person who is on call may rely on, also when the process dies in between. Refuses
//! to know: alerts and how they are measured, and how anybody is reached.

use std::net::SocketAddr;

use serde_json::{Value, json};
use testkit::http::Response;

use crate::callers::*;
use crate::support::*;

/// The answer's receipt, which anybody who may see the service's own finds by its id.
fn receipted(admin: &mut Caller, response: &Response) -> (String, Value) {
    assert_eq!(response.status, 200, "{}", text(response));
    let id = receipt_id(response);
    let found = admin.get(&format!("/receipts/{id}"));
    assert_eq!((found.status, &found.body), (200, &response.body), "{}", text(&found));
    (id, found.json().unwrap())
}

fn act(admin: &mut Caller, incident: &str, deed: &Value) -> (String, Value) {
    let response = admin.post(&format!("/admin/incidents/{incident}"), deed);
    receipted(admin, &response)
}

fn json_of(admin: &mut Caller, path: &str) -> Value {
    let response = admin.get(path);
    assert_eq!(response.status, 200, "{path}: {}", text(&response));
    response.json().unwrap()
}

/// The public page, once it says so.
fn page_with(address: SocketAddr, wanted: &str) -> String {
    until("the page follows", || {
        let response = get(&mut client(address), "/status");
        assert_eq!(response.status, 200, "{}", text(&response));
        Some(text(&response)).filter(|page| page.contains(wanted))
    })
}

fn summary(address: SocketAddr) -> Value {
    let response = get(&mut client(address), "/api/v2/summary.json");
    assert_eq!(response.status, 200, "{}", text(&response));
    response.json().unwrap()
}

fn declared() -> Value {
    json!({
        "title": "checkout <b>fails</b>", "severity": "P2", "component": "http",
        "text": "support has seen it",
    })
}

#[test]
fn an_incident_is_told_from_its_declaration_to_its_post_mortem_and_survives_a_kill() {
    let (_room, dir) = room();
    let key = new_key();
    let mut tai = start_guarded(&dir, &key, &[]);
    let mut admin = Caller::keyed(tai.address(), &key);
    assert!(page_with(tai.address(), "As of").contains("All Systems Operational"));

    let response = admin.post("/admin/incidents", &declared());
    let (opened, receipt) = receipted(&mut admin, &response);
    assert_eq!((&receipt["subject"], &receipt["rule"]), (&json!("INC-1"), &json!("incident.open")));
    let page = page_with(tai.address(), "Partial System Outage");
    assert!(page.contains("checkout &lt;b&gt;fails&lt;/b&gt;") && !page.contains("support"));

    let listed = json_of(&mut admin, "/admin/incidents");
    let incident = &listed["incidents"][0];
    for (member, value) in [
        ("id", json!("INC-1")),
        ("severity", json!("sev2")),
        ("status", json!("investigating")),
        ("cause", json!("http")),
        ("opened_by", json!(opened)),
        ("acknowledged", Value::Null),
        ("roles", json!([])),
        ("alerts", json!([])),
    ] {
        assert_eq!(incident[member], value, "{member}: {incident}");
    }

    let acknowledge = json!({"do": "acknowledge"});
    let (acknowledged, _) = act(&mut admin, "INC-1", &acknowledge);
    let again = admin.post("/admin/incidents/INC-1", &acknowledge);
    assert_eq!((again.status, again.header("x-receipt-id")), (200, None), "{}", text(&again));
    let again = again.json().unwrap();
    assert_eq!(again["id"], "INC-1");
    assert!(again["acknowledged"].is_i64() && again["acknowledged_by"].is_string(), "{again}");
    let assign = json!({"do": "assign", "role": "commander", "who": "alice"});
    let (assigned, _) = act(&mut admin, "INC-1", &assign);

    tai.kill().unwrap();
    let tai = start_guarded(&dir, &key, &[]);
    let mut admin = Caller::keyed(tai.address(), &key);
    let listed = json_of(&mut admin, "/admin/incidents");
    assert_eq!(listed["incidents"][0]["acknowledged_by"], again["acknowledged_by"]);
    let roles = json!([{"role": "commander", "who": "alice"}]);
    assert_eq!(listed["incidents"][0]["roles"], roles);

    let identify = json!({"do": "status", "status": "identified", "text": "a bad deployment"});
    let (identified, _) = act(&mut admin, "INC-1", &identify);
    let (updated, _) = act(&mut admin, "INC-1", &json!({"do": "update", "text": "rolled back"}));
    let (graded, _) = act(&mut admin, "INC-1", &json!({"do": "grade", "severity": "sev3"}));
    let (noted, _) = act(&mut admin, "INC-1", &json!({"do": "note", "text": "between us"}));
    let page = page_with(tai.address(), "rolled back");
    assert!(page.contains("a bad deployment") && page.contains("Degraded performance"), "{page}");
    for hidden in ["between us", "alice", "rcpt_", "key_"] {
        assert!(!page.contains(hidden), "{hidden}: {page}");
    }
    let shown = summary(tai.address());
    assert_eq!(shown["status"]["indicator"], "minor");
    assert_eq!(shown["incidents"][0]["incident_updates"][0]["body"], "rolled back");

    let resolve = json!({"do": "status", "status": "resolved", "text": "it holds"});
    let (resolved, _) = act(&mut admin, "INC-1", &resolve);
    assert!(page_with(tai.address(), "Resolved incidents").contains("All Systems Operational"));
    assert_eq!(summary(tai.address())["incidents"], json!([]));
    assert_eq!(json_of(&mut admin, "/admin/incidents")["incidents"], json!([]));
    assert_refused(&admin.post("/admin/incidents/INC-1", &acknowledge), 422, "state_error");
    let (corrected, _) = act(&mut admin, "INC-1", &json!({"do": "note", "text": "it was 3 %"}));

    let told = json_of(&mut admin, "/admin/incidents/INC-1");
    let receipts = |list: &Value| -> Vec<String> {
        let all = list.as_array().unwrap().iter();
        all.map(|moment| moment["receipt"].as_str().unwrap().to_owned()).collect()
    };
    let expected =
        [&opened, &acknowledged, &assigned, &identified, &updated, &graded, &noted, &resolved];
    assert_eq!(receipts(&told["timeline"]), expected.map(String::clone));
    assert_eq!(receipts(&told["corrections"]), std::slice::from_ref(&corrected));
    assert_eq!((&told["status"], &told["severity"]), (&json!("resolved"), &json!("sev2")));
    assert_eq!(told["stands"], Value::Null);
    assert_eq!(told["instants"]["identified"]["receipt"], json!(identified));
    assert!(told["durations_ms"]["resolution"].as_i64().is_some_and(|length| length > 0));
    assert_eq!(told["durations_ms"]["detection"], Value::Null);

    let draft = admin.get("/admin/incidents/INC-1/postmortem");
    assert_eq!(draft.header("content-type"), Some("text/markdown; charset=utf-8"));
    let draft = text(&draft);
    for id in expected.into_iter().chain([&corrected]) {
        assert!(draft.contains(&format!("[{id}]")), "{id}: {draft}");
    }
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn silences_are_set_shown_and_ended() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut admin = Caller::local(tai.address());
    let silence = json!({"matcher": "component=http", "lease_s": 600, "why": "planned work"});
    let response = admin.put("/admin/silences", &silence);
    let (_, receipt) = receipted(&mut admin, &response);
    assert_eq!((&receipt["rule"], &receipt["detail"]), (&json!("silence.set"), &silence["why"]));
    let shown = json_of(&mut admin, "/admin/silences");
    assert_eq!(shown["silences"][0]["matcher"], "component=http");
    assert_eq!(shown["silences"][0]["until"], receipt["expires_at"]);
    let response = admin.delete("/admin/silences?matcher=component%3Dhttp");
    receipted(&mut admin, &response);
    assert_eq!(json_of(&mut admin, "/admin/silences"), json!({"silences": []}));
    let gone = admin.delete("/admin/silences?matcher=component%3Dhttp");
    assert_refused(&gone, 422, "state_error");
    assert_eq!(json_of(&mut admin, "/admin/alerts"), json!({"alerts": []}));
    assert_eq!(json_of(&mut admin, "/admin/channels"), json!({"channels": []}));
    stop(tai);
}

#[test]
fn a_component_that_nothing_is_known_by_is_refused_with_the_names_that_are() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut admin = Caller::local(tai.address());
    let until = unix_secs() + 600;
    for (method, path, body) in [
        ("POST", "/admin/incidents", json!({"title": "t", "severity": "P2", "component": "htpt"})),
        ("PUT", "/admin/silences", json!({"matcher": "component=htpt", "lease_s": 60, "why": ""})),
        (
            "POST",
            "/admin/maintenance",
            json!({"title": "t", "components": ["http", "htpt"], "until": until}),
        ),
    ] {
        let response = admin.send(method, path, &body);
        assert_refused(&response, 400, "invalid_field");
        let said = text(&response);
        assert!(said.contains("host, http, ledger") && !said.contains("htpt"), "{said}");
    }
    assert_eq!(admin.receipts("stream=_incidents"), Vec::<Value>::new());
    // Rules and alerts have names of their own.
    let silence = json!({"matcher": "rule=htpt", "lease_s": 60, "why": ""});
    assert_eq!(admin.put("/admin/silences", &silence).status, 200);
    stop(tai);
}

#[test]
fn what_is_wrong_with_a_request_is_said_and_changes_nothing() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut admin = Caller::local(tai.address());
    assert_eq!(admin.post("/admin/incidents", &declared()).status, 200);
    let before = admin.receipts("stream=_incidents");
    let (one, all) = ("/admin/incidents/INC-1", "/admin/incidents");
    let silences = "/admin/silences";
    let (missing, invalid, nowhere) =
        ((400, "missing_field"), (400, "invalid_field"), (404, "not_found"));
    for (method, path, body, (status, reason)) in [
        ("POST", all, json!({}), missing),
        ("POST", all, json!({"title": "t", "severity": "bad", "component": "c"}), invalid),
        ("POST", all, json!({"title": "t", "severity": 1, "component": "c"}), invalid),
        (
            "POST",
            all,
            json!({"title": "t", "severity": "sev1", "component": "c", "tilte": 1}),
            invalid,
        ),
        ("POST", one, json!({}), missing),
        ("POST", one, json!({"do": "resolve"}), invalid),
        ("POST", one, json!({"do": "acknowledge", "by": "me"}), invalid),
        ("POST", one, json!({"do": "assign", "role": "boss", "who": "me"}), invalid),
        ("POST", one, json!({"do": "assign", "role": "scribe"}), missing),
        ("POST", one, json!({"do": "status", "status": "done"}), invalid),
        ("POST", one, json!({"do": "note", "text": "taik_x.y"}), invalid),
        ("POST", one, json!({"do": "update", "text": "x".repeat(1_001)}), invalid),
        ("POST", "/admin/incidents/INC-2", json!({"do": "acknowledge"}), nowhere),
        ("POST", "/admin/incidents/INC-01", json!({"do": "acknowledge"}), nowhere),
        ("POST", "/admin/incidents/1", json!({"do": "acknowledge"}), nowhere),
        ("GET", "/admin/incidents/INC-2", Value::Null, nowhere),
        ("GET", "/admin/incidents/INC-2/postmortem", Value::Null, nowhere),
        ("GET", "/admin/incidents/x/postmortem", Value::Null, nowhere),
        ("PUT", silences, json!({"matcher": "rule=a"}), missing),
        ("PUT", silences, json!({"matcher": "host=a", "lease_s": 1}), invalid),
        ("PUT", silences, json!({"matcher": "rule=a", "lease_s": 0}), invalid),
        ("PUT", silences, json!({"matcher": "rule=a", "lease_s": 604_801}), invalid),
        ("DELETE", silences, Value::Null, missing),
        ("DELETE", "/admin/silences?rule=a", Value::Null, invalid),
    ] {
        let response = admin.send(method, path, &body);
        assert_eq!(response.status, status, "{method} {path} {body}: {}", text(&response));
        assert_refused(&response, status, reason);
    }
    assert_eq!(admin.receipts("stream=_incidents"), before);
    stop(tai);
}

#[test]
fn the_page_is_open_and_carries_nothing_that_runs() {
    let (_room, dir) = room();
    let tai = start_guarded(&dir, &new_key(), &[]);
    let response = get(&mut client(tai.address()), "/status");
    assert_eq!(response.header("content-type"), Some("text/html; charset=utf-8"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    let policy = response.header("content-security-policy").unwrap().to_owned();
    assert!(policy.starts_with("default-src 'none'; style-src 'sha256-"), "{policy}");
    assert!(!policy.contains("unsafe"), "{policy}");
    let page = text(&response);
    let (_, style) = page.split_once("<style>").unwrap();
    let style = style.split_once("</style>").unwrap().0;
    let digest = base64(&<sha2::Sha256 as sha2::Digest>::digest(style.as_bytes()));
    assert!(policy.contains(&digest), "the style is the one that is permitted: {policy}");
    assert!(!page.contains("<script") && !page.contains("href"), "{page}");
    let response = get(&mut client(tai.address()), "/api/v2/summary.json");
    assert_eq!(response.header("cache-control"), Some("no-store"));
    let names = response.json().unwrap();
    let names = names["components"].as_array().unwrap().iter().map(|held| held["name"].clone());
    let names: Vec<Value> = names.collect();
    for name in ["http", "ledger", "host"] {
        assert!(names.contains(&json!(name)), "{names:?}");
    }
    stop(tai);
}

#[test]
fn ctl_does_and_shows_all_of_it() {
    let (_room, dir) = room();
    let key = new_key();
    let tai = start_guarded(&dir, &key, &[]);
    let url = format!("http://{}", tai.address());
    let ctl = |words: &[&str]| {
        let mut command = command(&dir, &[&["ctl"], words].concat());
        let said =
            Said::from(command.envs([("TAI_URL", &url), ("TAI_KEY", &key)]).output().unwrap());
        assert_eq!(said.code, Some(0), "{words:?}: {}{}", said.out, said.err);
        said.out
    };
    let declare =
        ["incidents", "declare", "disk full", "--severity", "SEV-1", "--component", "ledger"];
    assert!(ctl(&declare).starts_with("INC-1, receipt rcpt_"));
    assert!(ctl(&["incidents"]).contains("INC-1  sev1      investigating  ledger"));
    assert!(ctl(&["incidents", "ack", "INC-1"]).starts_with("done, receipt rcpt_"));
    assert_eq!(ctl(&["incidents", "ack", "INC-1"]), "INC-1: nothing to do\n");
    ctl(&["incidents", "assign", "INC-1", "communications", "bob"]);
    ctl(&["incidents", "grade", "INC-1", "p3"]);
    ctl(&["incidents", "status", "INC-1", "identified", "a full disk"]);
    ctl(&["incidents", "update", "INC-1", "more room soon"]);
    ctl(&["incidents", "note", "INC-1", "ask about quotas"]);
    assert!(ctl(&["incidents", "show", "INC-1"]).contains("text=bob took the role communications"));
    ctl(&["incidents", "status", "INC-1", "resolved"]);
    let draft = ctl(&["incidents", "postmortem", "INC-1"]);
    assert!(draft.starts_with("# POST-MORTEM: disk full\n") && draft.contains("a full disk"));
    ctl(&["silences", "set", "rule=a", "--lease", "60", "--why", "planned"]);
    assert!(ctl(&["silences"]).contains("rule=a"));
    ctl(&["silences", "clear", "rule=a"]);
    assert_eq!(ctl(&["silences"]), "matcher  until  by\n");
    assert!(ctl(&["alerts"]).starts_with("key  phase"));
    assert!(ctl(&["channels"]).starts_with("name  next"));
    stop(tai);
}
