//! Who is on call, overrides of that, and maintenance windows, over HTTP and over restarts.
//!
//! Owns: what an operator plans, and what becomes of it. Refuses to know: how turns are counted,
//! and how anybody is reached.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::receiver::{Manner, Received, Receiver};
use testkit::tai::Tai;

use crate::callers::*;
use crate::support::*;
use crate::watch::ALWAYS;

/// Two people who take turns by the hour, and the ladder that names their rotation.
const ROTA: &str = r#"
[oncall.people]
ada = ["slack"]
bob = ["chat"]

[oncall.rotations.primary]
layers = [{ start = 2026-01-01T00:00:00Z, shift_h = 1, order = ["ada", "bob"] }]
"#;

fn write(dir: &Path, name: &str, text: &str) -> PathBuf {
    let path = dir.parent().unwrap().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn catalogue(dir: &Path) -> PathBuf {
    let shipped = include_str!("../../../../crates/governors/catalogue.toml");
    let text = shipped.replacen("\"status\", \"responders\"]", "\"status\", \"primary\"]", 1);
    assert_ne!(text, shipped);
    write(dir, "catalogue.toml", &(text + ROTA))
}

fn receipt(admin: &mut Caller, response: &testkit::http::Response) -> Value {
    assert_eq!(response.status, 200, "{}", text(response));
    let id = receipt_id(response);
    let found = admin.get(&format!("/receipts/{id}"));
    assert_eq!((found.status, &found.body), (200, &response.body), "{}", text(&found));
    found.json().unwrap()
}

fn shown(admin: &mut Caller, path: &str) -> Value {
    let response = admin.get(path);
    assert_eq!(response.status, 200, "{path}: {}", text(&response));
    response.json().unwrap()
}

fn who(admin: &mut Caller, at: i64) -> Value {
    shown(admin, &format!("/admin/oncall?at={at}"))["oncall"][0].clone()
}

#[test]
fn an_override_is_receipted_outlives_the_process_and_ends() {
    let (_room, dir) = room();
    let catalogue = catalogue(&dir);
    let envs = [
        ("CATALOGUE_FILE", catalogue.to_str().unwrap()),
        ("SLACK_WEBHOOK_URL", "https://hooks.slack.com/services/x"),
    ];
    let mut tai = start(&dir, &envs);
    let mut admin = Caller::local(tai.address());
    // Whole hours from the start on: even ones are ada's.
    let even = unix_secs() / 7_200 * 7_200 + 7_200;
    assert_eq!(
        who(&mut admin, even),
        json!({"rotation": "primary", "who": "ada", "channels": ["slack"], "override": null})
    );
    assert_eq!(who(&mut admin, even + 3_600)["who"], "bob");
    assert_eq!(who(&mut admin, 0)["who"], Value::Null);
    let now = shown(&mut admin, "/admin/oncall");
    assert!((unix_secs() - now["at"].as_i64().unwrap()).abs() < 60, "{now}");

    let order = json!({"rotation": "primary", "who": "bob", "from": even + 60, "until": even + 120,
        "why": "a wedding"});
    let response = admin.post("/admin/oncall/overrides", &order);
    let added = receipt(&mut admin, &response);
    for (member, value) in [
        ("rule", json!("oncall.override")),
        ("subject", json!("OVR-1")),
        ("detail", json!("a wedding")),
        ("effective_at", json!(even + 60)),
        ("expires_at", json!(even + 120)),
        ("metadata", json!({"rotation": "primary", "who": "bob"})),
    ] {
        assert_eq!(added[member], value, "{member}: {added}");
    }
    tai.kill().unwrap();
    let tai = start(&dir, &envs);
    let mut admin = Caller::local(tai.address());
    for (second, person, by) in
        [(59, "ada", Value::Null), (60, "bob", json!("OVR-1")), (120, "ada", Value::Null)]
    {
        let turn = who(&mut admin, even + second);
        assert_eq!((&turn["who"], &turn["override"]), (&json!(person), &by), "{second}");
    }
    let listed = shown(&mut admin, "/admin/oncall");
    let kept = &listed["overrides"][0];
    assert_eq!((&kept["id"], &kept["from"]), (&json!("OVR-1"), &json!(even + 60)));
    let response = admin.delete("/admin/oncall/overrides/OVR-1");
    assert_eq!(receipt(&mut admin, &response)["rule"], "oncall.override_end");
    assert_eq!(who(&mut admin, even + 60)["who"], "ada");
    let gone = admin.delete("/admin/oncall/overrides/OVR-1");
    assert_refused(&gone, 422, "state_error");

    let url = format!("http://{}", tai.address());
    let ctl = |words: &[&str]| {
        let mut command = command(&dir, &[&["ctl"], words].concat());
        let said = Said::from(command.env("TAI_URL", &url).output().unwrap());
        assert_eq!(said.code, Some(0), "{words:?}: {}{}", said.out, said.err);
        said.out
    };
    let until = (even + 7_200).to_string();
    let add = ["oncall", "override", "add", "primary", "bob", "--until", &until];
    assert!(ctl(&add).starts_with("OVR-2, receipt rcpt_"));
    assert!(ctl(&["oncall", "override"]).contains("OVR-2  primary   bob"));
    assert!(ctl(&["oncall", "who"]).contains("primary   bob  OVR-2"));
    assert!(ctl(&["oncall", "who", "--at", "2026-01-01T00:30:00Z"]).contains("primary   ada  -"));
    assert!(ctl(&["oncall", "override", "end", "OVR-2"]).starts_with("done, receipt rcpt_"));
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn what_is_wrong_with_a_plan_is_said_and_changes_nothing() {
    let (_room, dir) = room();
    let catalogue = catalogue(&dir);
    let tai = start(&dir, &[("CATALOGUE_FILE", catalogue.to_str().unwrap())]);
    let mut admin = Caller::local(tai.address());
    let before = admin.receipts("stream=_incidents");
    let (overrides, windows) = ("/admin/oncall/overrides", "/admin/maintenance");
    let until = unix_secs() + 600;
    let (missing, invalid, nowhere) =
        ((400, "missing_field"), (400, "invalid_field"), (404, "not_found"));
    for (method, path, body, (status, reason)) in [
        ("GET", "/admin/oncall?at=soon", Value::Null, invalid),
        ("GET", "/admin/oncall?when=1", Value::Null, invalid),
        ("POST", overrides, json!({}), missing),
        ("POST", overrides, json!({"rotation": "x", "who": "ada", "until": until}), invalid),
        ("POST", overrides, json!({"rotation": "primary", "who": "zoe", "until": until}), invalid),
        ("POST", overrides, json!({"rotation": "primary", "who": "ada", "until": 1}), invalid),
        ("DELETE", "/admin/oncall/overrides/1", Value::Null, nowhere),
        ("POST", windows, json!({"title": "t", "until": until}), missing),
        ("POST", windows, json!({"title": "t", "components": ["a"], "until": 1}), invalid),
        ("POST", windows, json!({"title": "t", "components": [], "until": until}), invalid),
        (
            "POST",
            windows,
            json!({"title": "t", "components": ["a"], "until": until + 700_000}),
            invalid,
        ),
        ("DELETE", "/admin/maintenance/OVR-1", Value::Null, nowhere),
        (
            "POST",
            "/admin/incidents/INC-1",
            json!({"do": "status", "status": "identified", "public": true}),
            invalid,
        ),
    ] {
        let response = admin.send(method, path, &body);
        assert_eq!(response.status, status, "{method} {path} {body}: {}", text(&response));
        assert_refused(&response, status, reason);
    }
    assert_eq!(admin.receipts("stream=_incidents"), before);
    stop(tai);
}

#[test]
fn a_rota_that_is_wrong_is_named_by_check_and_stops_the_start() {
    let (_room, dir) = room();
    let path = catalogue(&dir);
    let good = std::fs::read_to_string(&path).unwrap();
    let check =
        || Said::from(command(&dir, &["check"]).env("CATALOGUE_FILE", &path).output().unwrap());
    let said = check();
    assert_eq!(said.code, Some(0), "{}", said.err);
    // Right, and of no use before a channel is set up.
    for person in ["ada", "bob"] {
        let line = format!("no channel that is set up reaches {person}\n");
        assert!(said.err.contains(&line), "{}", said.err);
    }
    // With one channel alone, what is of no use is named.
    let mut with_slack = command(&dir, &["check"]);
    with_slack.env("CATALOGUE_FILE", &path).env("SLACK_WEBHOOK_URL", "https://hooks.slack.com/x");
    let said = Said::from(with_slack.output().unwrap());
    assert_eq!(said.code, Some(0), "{}", said.err);
    for line in [
        "tai: oncall.sev1 step 2, after 300 s, reaches nobody: not set up: pagerduty, email\n",
        "tai: oncall.sev3 step 2, after 3600 s, reaches nobody: not set up: pagerduty, email\n",
    ] {
        assert!(said.err.contains(line), "{}", said.err);
    }
    for (find, replace, message) in [
        (
            "[\"ada\", \"bob\"]",
            "[\"ada\", \"eve\"]",
            "oncall.rotations.primary.layers.order must be a list of at most 64 names out of oncall.people",
        ),
        (
            "shift_h = 1,",
            "shift_h = 0,",
            "oncall.rotations.primary.layers.shift_h must be hours, 1 to 2016",
        ),
        (
            "\"status\", \"primary\"]",
            "\"status\", \"tertiary\"]",
            "oncall.sev1.steps.tell must be a list of targets and rotations",
        ),
    ] {
        std::fs::write(&path, good.replacen(find, replace, 1)).unwrap();
        let said = check();
        assert_eq!(said.code, Some(2), "{}{}", said.out, said.err);
        assert!(said.err.contains(message), "{}", said.err);
    }
}

/// How long the window of the test lasts: two starts and some looks at both pages fit.
const WINDOW_S: i64 = 15;

#[test]
fn a_window_holds_alerts_back_over_restarts_and_what_still_fires_at_its_end_is_told() {
    let (_room, dir) = room();
    let slack = Receiver::start().unwrap();
    slack.always(Some(Manner::Says(200, vec![], "ok".into())));
    let told = || -> Vec<String> { slack.received().iter().map(Received::text).collect() };
    let alerts = write(&dir, "alerts.toml", ALWAYS);
    let copy = dir.parent().unwrap().join("copy");
    let url = slack.url() + "/services/hook";
    let envs = [
        ("SLACK_WEBHOOK_URL", &*url),
        ("ALERT_INTERVAL_MS", "100"),
        ("STATUS_PAGE_DIR", copy.to_str().unwrap()),
        ("ALERTS_FILE", alerts.to_str().unwrap()),
    ];
    // Planned before there is an alert.
    let tai = start(&dir, &envs[..3]);
    let mut admin = Caller::local(tai.address());
    let until_s = unix_secs() + WINDOW_S;
    let order = json!({"title": "a new disk", "components": ["http", "logs"], "until": until_s,
        "text": "short pauses"});
    let response = admin.post("/admin/maintenance", &order);
    let added = receipt(&mut admin, &response);
    assert_eq!((&added["subject"], &added["expires_at"]), (&json!("MNT-1"), &json!(until_s)));
    stop(tai);

    let watched = |tai: &Tai| {
        let mut admin = Caller::local(tai.address());
        let alert = until("the alert", || {
            let alert = shown(&mut admin, "/admin/alerts")["alerts"][0].clone();
            (alert["phase"] == "firing").then_some(alert)
        });
        assert_eq!((&alert["incident"], &alert["maintenance"]), (&Value::Null, &json!("MNT-1")));
        let window = shown(&mut admin, "/admin/maintenance")["maintenances"][0].clone();
        assert_eq!(window["status"], "in_progress", "{window}");
        let page = text(&get(&mut client(tai.address()), "/status"));
        assert!(page.contains("Service Under Maintenance") && page.contains("short pauses"));
        let summary = get(&mut client(tai.address()), "/api/v2/summary.json").json().unwrap();
        assert_eq!(summary["scheduled_maintenances"][0]["id"], "MNT-1");
        let states = summary["components"].as_array().unwrap().iter();
        let logs = states.clone().find(|held| held["name"] == "logs").unwrap();
        assert_eq!(logs["status"], "under_maintenance");
    };
    let mut tai = start(&dir, &envs);
    watched(&tai);
    until("the copy", || {
        let page = std::fs::read_to_string(copy.join("index.html")).ok()?;
        page.contains("In progress").then_some(())
    });
    tai.kill().unwrap();
    let tai = start(&dir, &envs);
    watched(&tai);
    assert_eq!(told(), Vec::<String>::new());
    assert!(unix_secs() < until_s, "the window of the test is too short");
    let first = until("what still fires is told", || told().first().cloned());
    assert!(unix_secs() >= until_s && first.contains("It is up"), "{first}");
    let mut admin = Caller::local(tai.address());
    assert_eq!(shown(&mut admin, "/admin/maintenance")["maintenances"], json!([]));
    assert_eq!(shown(&mut admin, "/admin/alerts")["alerts"][0]["incident"], "INC-1");
    until("the end of the window", || {
        let receipts = admin.receipts("stream=_incidents");
        receipts.iter().any(|receipt| receipt["rule"] == "maintenance.over").then_some(())
    });
    stop(tai);
    let receipts = assert_verified(&dir);
    let of = |rule: &str| receipts.iter().filter(|receipt| receipt["rule"] == rule).count();
    let counts = ["maintenance.add", "maintenance.over", "incident.open"].map(of);
    assert_eq!(counts, [1, 1, 1]);
    let held_back = receipts.iter().find(|receipt| receipt["rule"] == "alert.change").unwrap();
    assert_eq!(held_back["metadata"]["inhibited_by"], "MNT-1", "{held_back}");
    assert!(Duration::from_secs(WINDOW_S.unsigned_abs()) < PATIENCE, "it is waited for");
}
