//! A database that is away, and the page that says so.
//!
//! Owns: that it is sent while the database is away, that nobody gets it twice, and that a process
//! which dies meanwhile takes no incident with it. Refuses to know: where it is kept meanwhile.

use serde_json::Value;
use testkit::receiver::{Manner, Receiver};
use testkit::tai::Tai;

use crate::callers::Caller;
use crate::outage::{Ground, until_stage};
use crate::support::*;

const RULES: &str = r#"
[[alert]]
id = "store-away"
title = "The receipt store is away"
message = "it stands at ${value}"
severity = "sev1"
category = "system"
component = "ledger"
condition = "ledger.stage[1s] == 0"
"#;

/// A pager, and what is set for it.
struct Pager {
    receiver: Receiver,
    files: [String; 3],
    spool: String,
}

impl Pager {
    fn new(ground: &Ground) -> Pager {
        let receiver = Receiver::start().unwrap();
        receiver.always(Some(Manner::Says(202, vec![], r#"{"status":"success"}"#.into())));
        let write = |name: &str, text: &str| {
            let path = ground.room.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let channels = format!(
            "[channels.pagerduty]\nkind = \"pagerduty\"\nkey_env = \"PAGERDUTY_KEY\"\n\
             base_url = \"{}\"\nallow_private = true\n",
            receiver.url()
        );
        // The shipped policy with seconds for minutes.
        let catalogue = include_str!("../../../../crates/governors/catalogue.toml")
            .replace("stable_s = 300", "stable_s = 2");
        let files = [
            write("alerts.toml", RULES),
            write("channels.toml", &channels),
            write("catalogue.toml", &catalogue),
        ];
        Pager { receiver, files, spool: ground.spool() }
    }

    fn start(&self, ground: &Ground) -> Tai {
        let [alerts, channels, catalogue] = &self.files;
        ground.start(&[
            ("SPOOL_DIR", &self.spool),
            ("ALERTS_FILE", alerts),
            ("CHANNELS_FILE", channels),
            ("CATALOGUE_FILE", catalogue),
            ("ALERT_INTERVAL_MS", "100"),
            ("PAGERDUTY_KEY", "routing-key"),
        ])
    }

    /// The incidents of the events of that action whose text holds a word. News of an incident is a
    /// trigger as well, which the pager knows by its key.
    fn events(&self, action: &str, word: &str) -> Vec<String> {
        let received = self.receiver.received().into_iter();
        let wanted = received.filter(|received| received.text().contains(word));
        let bodies = wanted.map(|received| received.json().unwrap());
        let of_action = bodies.filter(|body| body["event_action"] == action);
        of_action.map(|body| body["dedup_key"].as_str().unwrap().to_owned()).collect()
    }

    fn pages(&self) -> Vec<String> {
        self.events("trigger", " opened: ")
    }
}

fn of<'a>(receipts: &'a [Value], rule: &str) -> Vec<&'a Value> {
    receipts.iter().filter(|receipt| receipt["rule"] == rule).collect()
}

fn incidents(tai: &Tai) -> Vec<Value> {
    let page = Caller::local(tai.address()).get("/admin/incidents").json().unwrap();
    page["incidents"].as_array().cloned().unwrap_or_default()
}

#[test]
fn a_database_that_is_away_pages_while_it_is_and_nobody_twice() {
    let Some(ground) = Ground::new() else { testkit::skip!("PostgreSQL is not installed") };
    let pager = Pager::new(&ground);
    let tai = pager.start(&ground);
    ground.cluster.kill();
    let page = until("the page", || pager.pages().into_iter().next());
    until_stage(tai.address(), "away");
    let shown = incidents(&tai);
    assert_eq!(shown[0]["id"], page.as_str(), "it can be looked at meanwhile: {shown:?}");
    ground.cluster.restart().unwrap();
    until_stage(tai.address(), "up");
    // Quiet for long enough, it resolves by itself, under the name that the pager knows.
    assert_eq!(until("its end", || pager.events("resolve", "").into_iter().next()), page);
    stop(tai);
    let receipts = ground.verified();
    assert_eq!(pager.pages(), [page.as_str()], "once");
    assert_eq!(pager.events("resolve", ""), [page.as_str()], "once");
    let opened = of(&receipts, "incident.open");
    let streams: Vec<&str> = opened.iter().map(|held| held["stream"].as_str().unwrap()).collect();
    assert_eq!(streams.len(), 2, "{streams:?}");
    let lane = opened.iter().find(|held| held["stream"] != "_incidents").unwrap();
    let copy = opened.iter().find(|held| held["stream"] == "_incidents").unwrap();
    assert!(lane["stream"].as_str().unwrap().starts_with("_incidents~"));
    assert_eq!(copy["intent"], lane["id"], "the chain says where it was said");
    assert_eq!(copy["metadata"].get("tell"), None);
    for attempt in of(&receipts, "notice.tell") {
        let results = receipts.iter().filter(|receipt| receipt["intent"] == attempt["id"]);
        assert_eq!(results.count(), 1, "{attempt}");
    }
}

#[test]
fn a_process_that_is_killed_while_the_database_is_away_loses_no_incident() {
    let Some(ground) = Ground::new() else { testkit::skip!("PostgreSQL is not installed") };
    let pager = Pager::new(&ground);
    let mut tai = pager.start(&ground);
    ground.cluster.kill();
    let page = until("the page", || pager.pages().into_iter().next());
    until("its end is sealed", || {
        let noted = |line: &String| line.contains("receipt_spooled");
        (tai.log_lines().iter().filter(|line| noted(line)).count() >= 4).then_some(())
    });
    tai.kill().unwrap();
    ground.cluster.restart().unwrap();
    let tai = pager.start(&ground);
    until("it is in the ledger", || {
        incidents(&tai).iter().any(|held| held["id"] == page.as_str()).then_some(())
    });
    stop(tai);
    let receipts = ground.verified();
    assert_eq!(pager.pages(), [page.as_str()], "once");
    let opened = of(&receipts, "incident.open");
    let kept = opened.iter().filter(|held| held["stream"] == "_incidents");
    assert_eq!(kept.count(), 1);
}
