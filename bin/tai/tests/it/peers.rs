//! The service among the field's tools: Prometheus scrapes it and runs its rules, Alertmanager
//! takes its notices and sends it what Prometheus finds.
//!
//! Owns: that both sides say the same of one fault, and that nothing goes round in circles. Refuses
//! to know: how any of the three decides.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::alerting::{Server, free, promtool};
use testkit::skip;
use testkit::tai::Tai;

use crate::callers::*;
use crate::support::*;

const MISSING: &str = "Prometheus or Alertmanager is not installed";

/// A rule on what is asked for and not there, which a test can do at will.
const RULES: &str = r#"
[[alert]]
id = "lost"
title = "Nothing is found"
message = "${value} are not found, threshold is ${threshold}"
severity = "sev1"
category = "error"
component = "http"
condition = 'http.rate{status="404"}[3s] > 5/s'
for = "1s"
hold = "1s"
"#;

/// Between two requests: enough of them for the rule, and no more load than that.
const PACE: Duration = Duration::from_millis(20);

fn alertmanager_config(tai: SocketAddr, key: &str) -> String {
    format!(
        "route:\n  receiver: tai\n  group_by: [alertname, incident]\n  group_wait: 200ms\n  \
         group_interval: 1s\n  repeat_interval: 1h\nreceivers:\n  - name: tai\n    \
         webhook_configs:\n      - url: http://{tai}/webhooks/alertmanager\n        \
         send_resolved: true\n        http_config:\n          authorization:\n            \
         credentials: {key}\n"
    )
}

fn prometheus_config(tai: SocketAddr, alertmanager: SocketAddr) -> String {
    format!(
        "global:\n  scrape_interval: 500ms\n  evaluation_interval: 500ms\nrule_files: [rules.yml]\n\
         scrape_configs:\n  - job_name: tai\n    static_configs:\n      - targets: ['{tai}']\n\
         alerting:\n  alertmanagers:\n    - static_configs:\n        - targets: ['{alertmanager}']\n"
    )
}

/// The three of them.
struct Peers {
    tai: Tai,
    admin: Caller,
    prometheus: Server,
    alertmanager: Server,
}

impl Peers {
    /// The alerts that are active here: rule, and whether somebody else found it.
    fn ours(&mut self) -> Vec<(String, bool)> {
        let listed = self.admin.get("/admin/alerts").json().unwrap();
        let all = listed["alerts"].as_array().unwrap().iter();
        let firing = all.filter(|one| one["phase"] != "pending");
        let word = |one: &Value, name: &str| one[name].as_str().unwrap().to_owned();
        firing.map(|one| (word(one, "rule"), word(one, "key").contains(':'))).collect()
    }

    fn fires_in_prometheus(&self) -> bool {
        let alerts = self.prometheus.get("/api/v1/alerts").unwrap();
        let mut all = alerts["data"]["alerts"].as_array().unwrap().iter();
        all.any(|one| one["state"] == "firing" && one["labels"]["alertname"] == "lost")
    }

    /// The label `incident` of each alert that Alertmanager holds for active, where it has one.
    fn in_alertmanager(&self) -> Vec<Option<String>> {
        let alerts = self.alertmanager.get("/api/v2/alerts").unwrap();
        let all = alerts.as_array().unwrap().iter();
        all.map(|one| one["labels"]["incident"].as_str().map(str::to_owned)).collect()
    }

    /// Looks until all of it is so, `between` two looks doing something.
    fn until(&mut self, what: &str, mut between: impl FnMut(), done: impl Fn(&mut Peers) -> bool) {
        let end = Instant::now() + 3 * PATIENCE;
        while !done(self) {
            let seen = (self.ours(), self.fires_in_prometheus(), self.in_alertmanager());
            assert!(Instant::now() < end, "{what}: {seen:?}\n{}", self.alertmanager.log());
            between();
            // How fast a client asks; nothing is waited for.
            std::thread::sleep(PACE);
        }
    }
}

#[test]
fn one_fault_fires_in_both_reaches_each_other_and_ends_in_both() {
    if !Server::are_installed() {
        skip!(MISSING);
    }
    let (room, dir) = room();
    let write = |name: &str, text: &str| {
        let path = room.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let at = free().unwrap();
    // The shipped policy names the channel; what it is, the file says.
    let channels = "[channels.slack]\nkind = \"alertmanager\"\nurl_env = \"AM_URL\"\n\
                    allow_private = true\n";
    let catalogue = include_str!("../../../../crates/governors/catalogue.toml")
        .replace("stable_s = 300", "stable_s = 2");
    let (rules, admin_text) = (write("alerts.toml", RULES), new_key());
    let envs = [
        ("ALERTS_FILE", &*rules),
        ("CHANNELS_FILE", &*write("channels.toml", channels)),
        ("CATALOGUE_FILE", &*write("catalogue.toml", &catalogue)),
        ("AM_URL", &*format!("http://{at}/api/v2/alerts")),
        ("ALERT_INTERVAL_MS", "500"),
    ];
    let tai = start_guarded(&dir, &admin_text, &envs);
    let mut admin = Caller::keyed(tai.address(), &admin_text);
    let key = issue(&mut admin, &json!({"scopes": ["signals:write"]})).text;
    let config = alertmanager_config(tai.address(), &key);
    let alertmanager = Server::alertmanager(&config, at).unwrap();
    let mut exported = command(&dir, &["check", "--alerts", &rules, "--prometheus"]);
    let exported: Said = exported.env("ALERT_INTERVAL_MS", "500").output().unwrap().into();
    assert_eq!(exported.code, Some(0), "{}", exported.err);
    let config = prometheus_config(tai.address(), at);
    let prometheus = Server::prometheus(&config, &exported.out).unwrap();
    let mut peers = Peers { tai, admin, prometheus, alertmanager };

    let mut asker = Caller::local(peers.tai.address());
    let ask = || drop(asker.get("/nowhere"));
    peers.until("it fires in both, and each is told by the other", ask, |peers| {
        let both = [("lost".to_owned(), true), ("lost".to_owned(), false)];
        let (ours, there) = (peers.ours(), peers.in_alertmanager());
        both.iter().all(|one| ours.contains(one))
            && peers.fires_in_prometheus()
            && there.contains(&Some("INC-1".to_owned()))
            && there.contains(&None)
    });
    assert_eq!(peers.ours().len(), 2, "our own notice came back, and is no alert");
    peers.until(
        "it ends in both",
        || (),
        |peers| {
            peers.ours().is_empty()
                && !peers.fires_in_prometheus()
                && peers.in_alertmanager().is_empty()
        },
    );
    let Peers { tai, mut admin, .. } = peers;
    let story = admin.get("/admin/incidents/INC-1").json().unwrap();
    assert_eq!(story["status"], "resolved", "{story}");
    let open = admin.get("/admin/incidents").json().unwrap();
    assert_eq!(open["incidents"], json!([]));
    stop(tai);
    let receipts = assert_verified(&dir);
    let of = |rule: &str| receipts.iter().filter(|receipt| receipt["rule"] == rule).count();
    assert_eq!((of("incident.open"), of("incident.resolve")), (1, 1), "one fault, one incident");
}

#[test]
fn the_rules_that_ship_are_rules_for_prometheus() {
    if !Server::are_installed() {
        skip!(MISSING);
    }
    let (room, dir) = room();
    let said = tai(&dir, &["check", "--alerts", "shipped", "--prometheus"]);
    let file = room.path().join("rules.yml");
    std::fs::write(&file, &said.out).unwrap();
    let checked = promtool("rules", Some(&file), None).unwrap();
    let out = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.status.success(), "{out}{}", String::from_utf8_lossy(&checked.stderr));
    let rules = said.out.matches("- alert: ").count();
    assert!(out.contains(&format!("{rules} rules found")), "{out}");
}

/// Names that promtool would rather have otherwise, and that are the runbooks'.
const NAMED_BY_RUNBOOKS: [&str; 4] = [
    "service_latency_histogram",
    "tai_action_execution_duration_ms",
    "tai_receipt_emission_duration_ms",
    "tai_receipt_storage_duration_ms",
];

#[test]
fn the_page_of_metrics_is_one_for_prometheus() {
    if !Server::are_installed() {
        skip!(MISSING);
    }
    let (room, dir) = room();
    let tai = start(&dir, &[]);
    let mut local = Caller::local(tai.address());
    assert_eq!(local.quote("acme").status, 200);
    let file = room.path().join("metrics");
    std::fs::write(&file, text(&local.get("/metrics"))).unwrap();
    let checked = promtool("metrics", None, Some(&file)).unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    let found: Vec<&str> = said
        .lines()
        .filter(|line| !NAMED_BY_RUNBOOKS.iter().any(|name| line.starts_with(name)))
        .collect();
    assert!(found.is_empty(), "{found:#?}");
    stop(tai);
}
