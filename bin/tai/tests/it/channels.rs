//! Channels, as an operator sees and tries them.
//!
//! Owns: that a test goes the way of a notice and is on record, and who took what. Refuses to know:
//! when anybody is told.

use serde_json::{Value, json};
use testkit::receiver::{Manner, Received, Receiver};

use crate::callers::*;
use crate::support::*;

fn json_of(admin: &mut Caller, path: &str) -> Value {
    let response = admin.get(path);
    assert_eq!(response.status, 200, "{path}: {}", text(&response));
    response.json().unwrap()
}

/// What came of a test, once the channel's rate has room for it.
fn tested(admin: &mut Caller) -> Value {
    until("the channel has room", || {
        let response = admin.post("/admin/channels/slack/test", &json!({}));
        assert_eq!(response.status, 200, "{}", text(&response));
        let said: Value = response.json().unwrap();
        let is_held_back = said["error"].as_str().is_some_and(|why| why.contains("rate"));
        (!is_held_back).then_some(said)
    })
}

#[test]
fn a_channel_is_tried_on_purpose_and_what_came_of_it_is_on_record() {
    let (_room, dir) = room();
    let slack = Receiver::start().unwrap();
    slack.always(Some(Manner::Says(200, vec![], "ok".into())));
    let url = slack.url() + "/services/hook";
    let key = new_key();
    let tai = start_guarded(&dir, &key, &[("SLACK_WEBHOOK_URL", &url)]);
    let mut admin = Caller::keyed(tai.address(), &key);
    until("it has begun", || {
        let channels = json_of(&mut admin, "/admin/channels");
        (channels["channels"][0]["name"] == "slack").then_some(())
    });
    assert_refused(&admin.post("/admin/channels/mail/test", &json!({})), 404, "not_found");

    let said = tested(&mut admin);
    assert_eq!((&said["outcome"], &said["error"]), (&json!("delivered"), &Value::Null), "{said}");
    let told: Vec<String> = slack.received().iter().map(Received::text).collect();
    assert!(told[0].contains("TEST of the channel slack: nobody has to do anything"), "{told:?}");
    assert_eq!(told.len(), 1);

    slack.always(Some(Manner::Says(403, vec![], "invalid_token swordfish".into())));
    let said = tested(&mut admin);
    let why = "it refuses the credentials";
    assert_eq!((&said["outcome"], &said["error"]), (&json!("refused"), &json!(why)), "{said}");
    let listed = json_of(&mut admin, "/admin/channels");
    let channel = &listed["channels"][0];
    assert_eq!(channel["last_error"], why, "{channel}");
    for time in ["last_taken", "last_failed"] {
        let age = unix_secs() - channel[time].as_i64().unwrap();
        assert!((0..600).contains(&age), "{time}: {channel}");
    }
    assert_eq!((&channel["failures"], &channel["telling"]), (&json!(0), &json!(false)));

    let receipts = admin.receipts("stream=_notices");
    let of = |receipts: &[Value], rule: &str| -> Vec<Value> {
        receipts.iter().filter(|receipt| receipt["rule"] == rule).cloned().collect()
    };
    let kept = of(&receipts, "notice.test");
    let refused = kept.iter().find(|receipt| receipt["id"] == said["receipt_id"]).unwrap();
    assert_eq!((&refused["status"], &refused["subject"]), (&json!("refused"), &json!("slack")));
    let actor = refused["actor"].as_str().unwrap();
    assert!(!actor.is_empty() && actor != "notices", "{refused}");
    let asked = admin.receipts("stream=_ops");
    assert!(asked.iter().any(|note| note["action"] == "channel_test" && note["actor"] == actor));
    assert!(!format!("{listed}{said}{receipts:?}").contains("swordfish"), "its text is nowhere");
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn an_incident_shows_who_has_taken_it_beside_who_was_to_be_told() {
    let (_room, dir) = room();
    let (slack, pager) = (Receiver::start().unwrap(), Receiver::start().unwrap());
    slack.always(Some(Manner::Says(200, vec![], "ok".into())));
    pager.always(Some(Manner::Says(500, vec![], "no".into())));
    let file = dir.parent().unwrap().join("channels.toml");
    let rows = format!(
        "[channels.pagerduty]\nkind = \"pagerduty\"\nkey_env = \"PAGERDUTY_KEY\"\nbase_url = \"{}\"\n",
        pager.url()
    );
    std::fs::write(&file, rows).unwrap();
    let url = slack.url() + "/services/hook";
    let envs = [
        ("SLACK_WEBHOOK_URL", &*url),
        ("PAGERDUTY_KEY", "k"),
        ("CHANNELS_FILE", file.to_str().unwrap()),
    ];
    let tai = start(&dir, &envs);
    let mut admin = Caller::local(tai.address());
    until("they have begun", || {
        let channels = json_of(&mut admin, "/admin/channels");
        (channels["channels"].as_array().unwrap().len() == 2).then_some(())
    });
    let order = json!({"title": "t", "severity": "P1", "component": "http"});
    assert_eq!(admin.post("/admin/incidents", &order).status, 200);
    let shown = until("one has taken it, and one has failed", || {
        let channels = json_of(&mut admin, "/admin/channels");
        let pager = channels["channels"].as_array().unwrap().iter();
        let mut pager = pager.filter(|channel| channel["name"] == "pagerduty");
        let has_failed = pager.any(|channel| {
            channel["last_error"] == "it answers with an error of its own"
                && channel["last_taken"] == Value::Null
        });
        let shown = json_of(&mut admin, "/admin/incidents")["incidents"][0].clone();
        (has_failed && shown["taken"] == json!(["slack"])).then_some(shown)
    });
    let told = shown["told"].as_array().unwrap();
    assert!(told.contains(&json!("slack")) && told.contains(&json!("pagerduty")), "{shown}");
    stop(tai);
    assert_verified(&dir);
}
