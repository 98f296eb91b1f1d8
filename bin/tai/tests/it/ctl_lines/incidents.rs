//! The verbs about figures, alerts, silences, incidents and channels.
//!
//! Owns: what each asks and prints. Refuses to know: what the real service does.

use serde_json::{Value, json};

use super::{Fake, RECEIPT, Row, assert_asked, ctl};

#[test]
fn every_verb_about_incidents_asks_what_the_service_answers() {
    let receipt: Value = serde_json::from_str(RECEIPT).unwrap();
    let alerts = json!({"alerts": [{"key": "ledger-slow", "rule": "ledger-slow", "phase": "firing",
        "since": 7, "severity": "sev2", "component": "ledger", "title": "slow",
        "incident": "INC-3", "silenced": false, "maintenance": "MNT-1"}]});
    let silences = json!({"silences": [{"matcher": "rule=a", "until": 9, "by": "key_1"}]});
    let incident = json!({"id": "INC-3", "severity": "sev2", "status": "identified",
        "cause": "ledger", "components": ["http", "ledger"], "opened": 5,
        "acknowledged_by": null, "next_page": 12, "next_update": null, "title": "slow"});
    let incidents = json!({"incidents": [&incident]});
    let opened = json!({"id": "rcpt_08", "type": "transition", "subject": "INC-4"});
    let channels = json!({"channels": [{"name": "slack", "next": 7, "failures": 2,
        "telling": true, "last_taken": 7, "last_failed": 9, "last_error": "it refuses the credentials"}]});
    let tried = json!({"channel": "slack", "outcome": "again", "error": "it cannot be reached",
        "remote": null, "took_ms": 3, "receipt_id": "rcpt_07"});
    let slis = json!({"at": 7, "slis": [{"name": "slo.budget", "labels": {"slo": "availability"},
        "value": 0.5, "missing": "", "unit": "ratio", "window": "5m", "samples": 20,
        "help": "What is left.", "promql": "min (x)"}]});
    let condition = json!({"condition": "health.up[1m] == 0", "readings": [
        {"labels": {}, "verdict": "fails", "value": 1.0, "explanation": "1 against 0"}]});
    let explained = json!({"rule": "a", "title": "t", "combine": "all", "conditions": ["x > 1"],
        "for_s": 60, "hold_s": 0, "cases": []});
    let none = Value::Null;
    let table: Vec<Row<'_>> = vec![
        (
            "sli",
            "GET /admin/sli",
            none.clone(),
            &slis,
            &["slo.budget  slo=availability  0.5    -        ratio  5m      min (x)"],
        ),
        (
            "sli slo.*",
            "GET /admin/sli?name=slo.*",
            none.clone(),
            &slis,
            &["slo.budget  slo=availability  0.5    -        ratio  5m      min (x)"],
        ),
        (
            "sli slo.budget",
            "GET /admin/sli?name=slo.budget",
            none.clone(),
            &slis,
            &["0.5    -        ratio  5m      20       What is left.  min (x)"],
        ),
        (
            "sli --explain health.up[1m]==0",
            "GET /admin/sli?condition=health.up%5B1m%5D%3D%3D0",
            none.clone(),
            &condition,
            &["condition: health.up[1m] == 0", "verdict=fails"],
        ),
        (
            "alerts explain a --labels {b=\"1\"}",
            "GET /admin/alerts/a/explain?labels=%7Bb%3D%221%22%7D",
            none.clone(),
            &explained,
            &["a: t", "all of: x > 1; for 60 s, hold 0 s", "it was not evaluated yet"],
        ),
        (
            "alerts",
            "GET /admin/alerts",
            none.clone(),
            &alerts,
            &[
                "ledger-slow  firing  1970-01-01T00:00:07Z  sev2      ledger     INC-3     false     MNT-1        slow",
            ],
        ),
        (
            "silences",
            "GET /admin/silences",
            none.clone(),
            &silences,
            &["rule=a   1970-01-01T00:00:09Z  key_1"],
        ),
        (
            "silences set rule=a --lease 9 --why work",
            "PUT /admin/silences",
            json!({"matcher": "rule=a", "lease_s": 9, "why": "work"}),
            &receipt,
            &["done, receipt rcpt_07"],
        ),
        (
            "silences clear component=a/b",
            "DELETE /admin/silences?matcher=component%3Da%2Fb",
            none.clone(),
            &receipt,
            &["done"],
        ),
        (
            "incidents",
            "GET /admin/incidents",
            none.clone(),
            &incidents,
            &[
                "INC-3  sev2      identified  ledger  http, ledger  1970-01-01T00:00:05Z  -                1970-01-01T00:00:12Z",
            ],
        ),
        (
            "incidents show INC-3",
            "GET /admin/incidents/INC-3",
            none.clone(),
            &incident,
            &["status: identified", "components: http, ledger"],
        ),
        (
            "incidents declare slow --severity P2 --component http",
            "POST /admin/incidents",
            json!({"title": "slow", "severity": "P2", "component": "http"}),
            &opened,
            &["INC-4, receipt rcpt_08"],
        ),
        (
            "incidents declare slow --severity P2 --component http --text seen",
            "POST /admin/incidents",
            json!({"title": "slow", "severity": "P2", "component": "http", "text": "seen"}),
            &opened,
            &["INC-4"],
        ),
        (
            "incidents ack INC-3",
            "POST /admin/incidents/INC-3",
            json!({"do": "acknowledge"}),
            &receipt,
            &["done, receipt rcpt_07"],
        ),
        (
            "incidents ack ../3",
            "POST /admin/incidents/..%2F3",
            json!({"do": "acknowledge"}),
            &incident,
            &["INC-3: nothing to do"],
        ),
        (
            "incidents assign INC-3 scribe bob",
            "POST /admin/incidents/INC-3",
            json!({"do": "assign", "role": "scribe", "who": "bob"}),
            &receipt,
            &["done"],
        ),
        (
            "incidents grade INC-3 sev1",
            "POST /admin/incidents/INC-3",
            json!({"do": "grade", "severity": "sev1"}),
            &receipt,
            &["done"],
        ),
        (
            "incidents status INC-3 resolved",
            "POST /admin/incidents/INC-3",
            json!({"do": "status", "status": "resolved"}),
            &receipt,
            &["done"],
        ),
        (
            "incidents status INC-3 resolved disk --public",
            "POST /admin/incidents/INC-3",
            json!({"do": "status", "status": "resolved", "text": "disk", "public": true}),
            &receipt,
            &["done"],
        ),
        (
            "incidents status INC-3 identified disk",
            "POST /admin/incidents/INC-3",
            json!({"do": "status", "status": "identified", "text": "disk"}),
            &receipt,
            &["done"],
        ),
        (
            "incidents update INC-3 soon",
            "POST /admin/incidents/INC-3",
            json!({"do": "update", "text": "soon"}),
            &receipt,
            &["done"],
        ),
        (
            "incidents note INC-3 hm",
            "POST /admin/incidents/INC-3",
            json!({"do": "note", "text": "hm"}),
            &receipt,
            &["done"],
        ),
        (
            "channels",
            "GET /admin/channels",
            none.clone(),
            &channels,
            &[
                "slack  7     2         true     1970-01-01T00:00:07Z  1970-01-01T00:00:09Z  it refuses the credentials",
            ],
        ),
        (
            "channels test a/b",
            "POST /admin/channels/a%2Fb/test",
            none,
            &tried,
            &["outcome: again", "error: it cannot be reached", "receipt_id: rcpt_07"],
        ),
    ];
    assert_asked(table);
}

#[test]
fn every_verb_about_what_is_planned_asks_what_the_service_answers() {
    let receipt: Value = serde_json::from_str(RECEIPT).unwrap();
    let oncall = json!({"at": 9, "oncall": [
        {"rotation": "primary", "who": "ada", "channels": ["phone", "mail"], "override": "OVR-2"},
        {"rotation": "secondary", "who": null, "channels": [], "override": null},
    ], "overrides": [{"id": "OVR-2", "rotation": "primary", "who": "ada", "from": 5, "until": 12,
        "by": "key_1"}]});
    let windows = json!({"maintenances": [{"id": "MNT-1", "title": "a disk",
        "components": ["ledger", "http"], "status": "in_progress", "from": 5, "until": 12,
        "by": "key_1"}]});
    let added = json!({"id": "rcpt_08", "type": "transition", "subject": "OVR-2"});
    let planned = json!({"id": "rcpt_09", "type": "transition", "subject": "MNT-1"});
    let none = Value::Null;
    let table: Vec<Row<'_>> = vec![
        (
            "oncall who",
            "GET /admin/oncall",
            none.clone(),
            &oncall,
            &["primary    ada  OVR-2     phone, mail", "secondary  -    -"],
        ),
        (
            "oncall who --at 2026-12-24T09:00:00Z",
            "GET /admin/oncall?at=2026-12-24T09%3A00%3A00Z",
            none.clone(),
            &oncall,
            &["ada"],
        ),
        (
            "oncall override",
            "GET /admin/oncall",
            none.clone(),
            &oncall,
            &["OVR-2  primary   ada  1970-01-01T00:00:05Z  1970-01-01T00:00:12Z  key_1"],
        ),
        (
            "oncall override add primary ada --until 12",
            "POST /admin/oncall/overrides",
            json!({"rotation": "primary", "who": "ada", "until": 12}),
            &added,
            &["OVR-2, receipt rcpt_08"],
        ),
        (
            "oncall override add primary ada --from 2026-12-24T09:00:00Z --until 12 --why away",
            "POST /admin/oncall/overrides",
            json!({"rotation": "primary", "who": "ada", "from": "2026-12-24T09:00:00Z",
                "until": 12, "why": "away"}),
            &added,
            &["OVR-2"],
        ),
        (
            "oncall override end OVR-2",
            "DELETE /admin/oncall/overrides/OVR-2",
            none.clone(),
            &receipt,
            &["done, receipt rcpt_07"],
        ),
        (
            "maintenance add disk --component ledger --component http --until 12",
            "POST /admin/maintenance",
            json!({"title": "disk", "components": ["ledger", "http"], "until": 12}),
            &planned,
            &["MNT-1, receipt rcpt_09"],
        ),
        (
            "maintenance add disk --component a --from 5 --until 12 --text slow",
            "POST /admin/maintenance",
            json!({"title": "disk", "components": ["a"], "from": 5, "until": 12, "text": "slow"}),
            &planned,
            &["MNT-1"],
        ),
        (
            "maintenance list",
            "GET /admin/maintenance",
            none.clone(),
            &windows,
            &[
                "MNT-1  in_progress  ledger, http  1970-01-01T00:00:05Z  1970-01-01T00:00:12Z  key_1  a disk",
            ],
        ),
        (
            "maintenance end MNT-1",
            "DELETE /admin/maintenance/MNT-1",
            none,
            &receipt,
            &["done, receipt rcpt_07"],
        ),
    ];
    assert_asked(table);
}

#[test]
fn a_post_mortem_is_printed_as_it_is_and_moves_no_cursor() {
    let fake = Fake::always(200, "# POST-MORTEM: a\u{1b}[2Jb\n\n- [ ] ____\n");
    let said = ctl(&fake.url(), &["incidents", "postmortem", "INC-3"]);
    assert_eq!(
        (said.code, said.out.as_str()),
        (Some(0), "# POST-MORTEM: a\\u{1b}[2Jb\n\n- [ ] ____\n")
    );
    assert_eq!(fake.last().line, "GET /admin/incidents/INC-3/postmortem");
}
