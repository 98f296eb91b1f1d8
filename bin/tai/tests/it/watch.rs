//! From our own figures to people: alerts, incidents and what is told of them.
//!
//! INV-19: every notice stands between two receipts, and none is told again that was taken.
//!
//! Owns: providers that fail, far sides that say no, and processes that die on the way. Refuses to
//! know: how any of it is done inside.

use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;
use testkit::mail::MailServer;
use testkit::provider::{Provider, Refusal, Vendor};
use testkit::receiver::{Manner, Received, Receiver};
use testkit::tai::Tai;

use crate::callers::Caller;
use crate::calls::{House, Named, chat};
use crate::support::*;

mod pending;

const MODEL: &str = "fake/gpt-4o-mini";

/// A rule on the errors of the last seconds, so that a test need not wait for minutes.
const RULES: &str = r#"
[[alert]]
id = "errors"
title = "Requests fail"
message = "Error rate is ${value}, threshold is ${threshold}"
severity = "sev1"
category = "error"
component = "http"
condition = "http.error_rate[2s] > 10%"
for = "1s"
hold = "1s"
"#;

/// A provider that may fail, two far sides that are told, and the service between them.
struct Post {
    _room: TempDir,
    dir: PathBuf,
    provider: Provider,
    slack: Receiver,
    pagerduty: Receiver,
    files: [PathBuf; 3],
}

impl Post {
    fn new() -> Post {
        let (room, dir) = room();
        let (slack, pagerduty) = (Receiver::start().unwrap(), Receiver::start().unwrap());
        slack.always(Some(Manner::Says(200, vec![], "ok".into())));
        pagerduty.always(Some(Manner::Says(202, vec![], r#"{"status":"success"}"#.into())));
        let write = |name: &str, text: &str| {
            let path = room.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let channels = format!(
            "[channels.pagerduty]\nkind = \"pagerduty\"\nkey_env = \"PAGERDUTY_KEY\"\n\
             base_url = \"{}\"\nallow_private = true\n",
            pagerduty.url()
        );
        // The shipped policy with seconds for minutes.
        let catalogue = include_str!("../../../../crates/governors/catalogue.toml")
            .replace("stable_s = 300", "stable_s = 2")
            .replace("after_s = 300,", "after_s = 4,");
        let files = [
            write("alerts.toml", RULES),
            write("channels.toml", &channels),
            write("catalogue.toml", &catalogue),
        ];
        let provider = Provider::start().unwrap();
        Post { _room: room, dir, provider, slack, pagerduty, files }
    }

    fn start(&self) -> Tai {
        let [alerts, channels, catalogue] =
            self.files.each_ref().map(|path| path.to_str().unwrap());
        let url = self.slack.url() + "/services/hook";
        let envs = [
            ("ALERTS_FILE", alerts),
            ("CHANNELS_FILE", channels),
            ("CATALOGUE_FILE", catalogue),
            ("ALERT_INTERVAL_MS", "100"),
            ("SLACK_WEBHOOK_URL", &*url),
            ("PAGERDUTY_KEY", "routing-key"),
            ("MAX_RETRIES", "0"),
            ("CIRCUIT_BREAKER_THRESHOLD", "10000"),
        ];
        let providers: [Named<'_>; 1] = [("fake", Vendor::OpenAi, &self.provider)];
        House::serve(&self.dir, &providers, "", &envs)
    }

    /// Calls until `done` says what was waited for.
    fn call_until<T>(&self, tai: &Tai, what: &str, mut done: impl FnMut() -> Option<T>) -> T {
        let mut caller = Caller::local(tai.address());
        let others = |line: &String| {
            !line.contains("request_completed") && !line.contains("ai_attempt_failed")
        };
        let so_far = || {
            let log: Vec<String> = tai.log_lines().into_iter().filter(others).collect();
            let told: Vec<String> = self.slack.received().iter().map(Received::text).collect();
            format!("{what}: {log:#?} {told:#?}")
        };
        until_within(3 * PATIENCE, so_far, || {
            caller.post("/v1/chat/completions", &chat(MODEL));
            done()
        })
    }

    fn slack_says(&self, word: &str) -> Option<Received> {
        self.slack.received().into_iter().find(|received| received.text().contains(word))
    }

    fn pagerduty_events(&self) -> Vec<(String, String)> {
        let event = |received: &Received| {
            let body = received.json().unwrap();
            let word = |name: &str| body[name].as_str().unwrap().to_owned();
            (word("event_action"), word("dedup_key"))
        };
        self.pagerduty.received().iter().map(event).collect()
    }
}

/// The receipts of one stream that the ledger holds.
fn of_stream(receipts: &[Value], stream: &str) -> Vec<Value> {
    receipts.iter().filter(|receipt| receipt["stream"] == stream).cloned().collect()
}

/// Every notice is an attempt with one result, and each channel took each place once.
fn assert_told_once(receipts: &[Value]) {
    let notices = of_stream(receipts, "_notices");
    let attempts: Vec<&Value> =
        notices.iter().filter(|receipt| receipt["type"] == "action_attempt").collect();
    for attempt in &attempts {
        let results = notices.iter().filter(|receipt| receipt["intent"] == attempt["id"]);
        assert_eq!(results.count(), 1, "{attempt}");
    }
    let mut taken: Vec<String> = notices
        .iter()
        .filter(|receipt| receipt["status"] == "delivered")
        .map(|receipt| format!("{} {}", receipt["subject"], receipt["metadata"]["place"]))
        .collect();
    taken.sort_unstable();
    let count = taken.len();
    taken.dedup();
    assert_eq!(taken.len(), count, "{taken:?}");
    // And each that stands in `_incidents` was.
    let incidents = of_stream(receipts, "_incidents");
    let told = incidents.iter().filter_map(|receipt| {
        let tell = receipt["metadata"]["tell"].as_str()?;
        Some(tell.split(',').map(|channel| format!("\"{channel}\" {}", receipt["seq"])))
    });
    let told: Vec<String> = told.flatten().collect();
    assert!(
        !told.is_empty() && told.iter().all(|place| taken.contains(place)),
        "{told:?} {taken:?}"
    );
}

#[test]
fn an_outage_pages_survives_a_kill_and_ends_in_one_incident() {
    let post = Post::new();
    let mut tai = post.start();
    post.provider.always(Refusal::ServerError);
    post.call_until(&tai, "the first notice", || post.slack_says("INCIDENT DECLARED: SEV-1"));
    until("the page", || (!post.pagerduty_events().is_empty()).then_some(()));
    assert_eq!(post.pagerduty_events()[0], ("trigger".to_owned(), "INC-1".to_owned()));
    tai.kill().unwrap();
    let tai = post.start();
    // Nobody has acknowledged: the next step is due whoever remembers it.
    post.call_until(&tai, "the second page", || (post.pagerduty_events().len() > 1).then_some(()));
    post.provider.heal();
    post.call_until(&tai, "the end", || post.slack_says("INCIDENT RESOLVED"));
    until("the end of the page", || {
        let events = post.pagerduty_events();
        events.iter().any(|(action, key)| action == "resolve" && key == "INC-1").then_some(())
    });
    let keys = post.pagerduty_events();
    assert!(keys.iter().all(|(_, key)| key == "INC-1"), "{keys:?}");
    stop(tai);
    let receipts = assert_verified(&post.dir);
    assert_told_once(&receipts);
    let incidents = of_stream(&receipts, "_incidents");
    let opened = incidents.iter().filter(|receipt| receipt["rule"] == "incident.open").count();
    let resolved = incidents.iter().filter(|receipt| receipt["rule"] == "incident.resolve").count();
    assert_eq!((opened, resolved), (1, 1));
}

#[test]
fn a_far_side_that_says_no_is_asked_again_or_stood_in_for() {
    let post = Post::new();
    // The webhook is limited, then away, then takes the request and says nothing.
    let wait = vec![("Retry-After", "1".to_owned())];
    post.slack.next(Manner::Says(429, wait, String::new()));
    post.slack.next(Manner::status(500));
    post.slack.next(Manner::Drops);
    // The pager will never take it.
    post.pagerduty.always(Some(Manner::status(400)));
    let mut tai = post.start();
    tai.expect_errors();
    post.provider.always(Refusal::ServerError);
    let declared = |post: &Post| {
        let all = post.slack.received();
        all.iter().filter(|received| received.text().contains("INCIDENT DECLARED")).count()
    };
    post.call_until(&tai, "four tries", || (declared(&post) >= 4).then_some(()));
    let last = post.slack.received().into_iter().rev();
    let mut last = last.filter(|received| received.text().contains("INCIDENT DECLARED"));
    assert!(last.next().unwrap().text().contains("told this before"), "it may have been taken");
    let reroute = || post.slack_says("pagerduty cannot be reached");
    post.call_until(&tai, "others are told", reroute);
    stop(tai);
    let receipts = assert_verified(&post.dir);
    let outcomes: Vec<String> = of_stream(&receipts, "_notices")
        .iter()
        .filter(|receipt| receipt["subject"] == "slack" && receipt["type"] == "action_result")
        .map(|receipt| receipt["status"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(outcomes[..4], ["again", "again", "unknown", "delivered"]);
}

#[test]
fn rules_and_channels_that_are_wrong_stop_the_start() {
    let (room, dir) = room();
    let path = room.path().join("file.toml");
    let refuse = |setting: &str, text: &str, expected: &str| {
        std::fs::write(&path, text).unwrap();
        let said: Said = command(&dir, &[]).env(setting, &path).output().unwrap().into();
        assert_eq!(said.code, Some(2), "{}", said.err);
        assert!(said.err.contains(setting) && said.err.contains(expected), "{}", said.err);
        assert!(!said.err.contains("zq7marker"), "{}", said.err);
    };
    refuse("ALERTS_FILE", &RULES.replace("http.error_rate", "http.eror_rate"), "http.error_rate");
    refuse("ALERTS_FILE", "[[alert]]\nid = [\"zq7marker\"]", "2:6");
    refuse("CHANNELS_FILE", "zq7marker", "line 1");
    refuse("CHANNELS_FILE", "[channels.x]\nkind = \"zq7marker\"", "channel x");
    let pager = "[channels.p]\nkind = \"pagerduty\"\nkey_env = \"NOBODY_SETS_THIS\"";
    refuse("CHANNELS_FILE", pager, "key_env");
    let said: Said =
        command(&dir, &[]).env("TELEGRAM_BOT_TOKEN", "bot1:a").output().unwrap().into();
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("TELEGRAM_CHAT_ID"), "{}", said.err);
    assert!(Path::new(&dir).read_dir().is_err(), "nothing was opened");
}

#[test]
fn rules_are_checked_and_tested_without_a_service() {
    let (room, dir) = room();
    let write = |name: &str, text: &str| {
        let path = room.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let tests = include_str!("../../../../crates/runbook/rules/alerts_test.toml");
    let shipped = tai(&dir, &["check", "--alerts", "shipped", "--tests", &write("tests", tests)]);
    assert_eq!(shipped.code, Some(0), "{}", shipped.err);
    assert!(shipped.out.contains(" 0 mistakes"), "{}", shipped.out);
    let minute = RULES.replace("[2s]", "[1m]").replace("1s", "1m");
    let rules = write("rules", &minute);
    assert_eq!(tai(&dir, &["check", "--alerts", &rules]).code, Some(0));
    let wrong = write("wrong", &minute.replace("sev1", "loud"));
    let said = tai(&dir, &["check", "--alerts", &wrong]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("6:12: rule errors: severity"), "{}", said.err);
    // A test that expects what does not happen fails, and says which.
    let quiet = "[[test]]\nname = \"nothing\"\ninterval = \"15s\"\nseries = []\n\
                 expect = [{ at = \"1m\", firing = [\"errors\"] }]\n";
    let said = tai(&dir, &["check", "--alerts", &rules, "--tests", &write("quiet", quiet)]);
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("nothing: "), "{}", said.err);
    let yaml = tai(&dir, &["check", "--alerts", &rules, "--prometheus"]);
    assert!(yaml.out.contains("alert: errors") && yaml.out.contains("expr: "), "{}", yaml.out);
}

/// A rule that holds as soon as there are two looks.
pub(crate) const ALWAYS: &str = r#"
[[alert]]
id = "up"
title = "It is up"
message = "health is ${value}"
severity = "sev1"
category = "system"
component = "http"
condition = "health.up[1s] == 1"
"#;

/// What was heard of the settings of one start.
#[derive(Debug, PartialEq, Eq)]
struct Heard {
    slack_path: String,
    telegram_path: String,
    chat: String,
    auth: Option<String>,
    from: String,
    to: Vec<String>,
}

/// Starts with these channels and waits until each has heard of the incident.
fn hear(nth: usize, host: &str) -> Heard {
    let (room, dir) = room();
    let (slack, telegram) = (Receiver::start().unwrap(), Receiver::start().unwrap());
    let mail = MailServer::start().unwrap();
    slack.always(Some(Manner::Says(200, vec![], "ok".into())));
    let sent = r#"{"ok":true,"result":{"message_id":7}}"#;
    telegram.always(Some(Manner::Says(200, vec![], sent.into())));
    let write = |name: &str, text: &str| {
        let path = room.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let channels = format!(
        "[channels.telegram]\nkind = \"telegram\"\nbase_url = \"{}\"\nallow_private = true\n",
        telegram.url()
    );
    let values: Vec<(&str, String)> = vec![
        ("ALERTS_FILE", write("alerts", ALWAYS)),
        ("CHANNELS_FILE", write("channels", &channels)),
        ("ALERT_INTERVAL_MS", format!("{}00", nth + 1)),
        ("SLACK_WEBHOOK_URL", format!("{}/services/{nth}", slack.url())),
        ("TELEGRAM_BOT_TOKEN", format!("{nth}7:token-of-a-test")),
        ("TELEGRAM_CHAT_ID", format!("{nth}42")),
        ("SMTP_HOST", host.to_owned()),
        ("SMTP_PORT", mail.port().to_string()),
        ("SMTP_USER", format!("user{nth}")),
        ("SMTP_PASS", format!("pass{nth}")),
        ("ALERT_EMAIL_FROM", format!("tai{nth}@example.com")),
        ("ALERT_EMAIL_TO", format!("a{nth}@example.com, b{nth}@example.com")),
    ];
    let envs: Vec<(&str, &str)> = values.iter().map(|(name, value)| (*name, &**value)).collect();
    let tai = start(&dir, &envs);
    let first = |receiver: &Receiver| receiver.received().into_iter().next();
    let slack = until("slack", || first(&slack));
    let telegram = until("telegram", || first(&telegram));
    let letter = until("mail", || mail.mails().into_iter().next());
    let told = ["SLACK_WEBHOOK_URL", "TELEGRAM_BOT_TOKEN", "SMTP_PASS"];
    for (_, secret) in values.iter().filter(|(name, _)| told.contains(name)) {
        assert!(!tai.log_lines().iter().any(|line| line.contains(secret.as_str())), "{secret}");
    }
    stop(tai);
    assert_verified(&dir);
    Heard {
        slack_path: slack.path,
        chat: telegram.json().unwrap()["chat_id"].to_string(),
        telegram_path: telegram.path,
        auth: letter.auth,
        from: letter.from,
        to: letter.to,
    }
}

#[test]
fn every_setting_of_a_channel_is_heard_at_its_far_side() {
    for (nth, host) in [(0, "127.0.0.1"), (1, "localhost")] {
        let heard = hear(nth, host);
        let plain = format!("\0user{nth}\0pass{nth}");
        let expected = Heard {
            slack_path: format!("/services/{nth}"),
            telegram_path: format!("/bot{nth}7:token-of-a-test/sendMessage"),
            chat: format!("\"{nth}42\""),
            auth: Some(base64(plain.as_bytes())),
            from: format!("tai{nth}@example.com"),
            to: vec![format!("a{nth}@example.com"), format!("b{nth}@example.com")],
        };
        assert_eq!(heard, expected);
    }
    // The interval bounds windows: what two looks cannot span is refused.
    let (room, dir) = room();
    let alerts = room.path().join("alerts");
    std::fs::write(&alerts, ALWAYS).unwrap();
    let mut refused = command(&dir, &[]);
    refused.env("ALERTS_FILE", &alerts).env("ALERT_INTERVAL_MS", "15000");
    let said: Said = refused.output().unwrap().into();
    assert_eq!(said.code, Some(2));
    assert!(said.err.contains("a window of 30s to 1h"), "{}", said.err);
}
