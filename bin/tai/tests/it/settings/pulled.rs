//! The looks at settings of the pulled subscription, on one emulator.
//!
//! Owns: as the looks beside it. Refuses to know: what becomes of a message under failures.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::http::Client;
use testkit::pubsub::Emulator;
use testkit::tai::Tai;

use crate::support::*;

const PROJECT: &str = "project-one";
const SUBSCRIPTION: &str = "signals-sub";
/// Several of the subscription's deadlines, on two busy cores.
const PULL_TIMEOUT: Duration = Duration::from_secs(60);

/// Topics and subscriptions, made over the emulator's own HTTP.
struct Bus {
    emulator: Emulator,
}

impl Bus {
    fn ask(&self, method: &str, path: &str, body: &Value) {
        let mut client = Client::connect(self.emulator.address()).unwrap();
        let headers = [("Content-Type", "application/json")];
        let answer = client.request(method, path, &headers, body.to_string().as_bytes()).unwrap();
        assert_eq!(answer.status, 200, "{path}: {}", String::from_utf8_lossy(&answer.body));
    }

    /// A topic, and a subscription to it whose dead letters go to `dead`.
    fn make(&self, project: &str, topic: &str, subscription: &str, dead: Option<&str>) {
        let topics = format!("projects/{project}/topics");
        self.ask("PUT", &format!("/v1/{topics}/{topic}"), &json!({}));
        let mut order = json!({"topic": format!("{topics}/{topic}"), "ackDeadlineSeconds": 10});
        if let Some(dead) = dead {
            order["deadLetterPolicy"] = json!({
                "deadLetterTopic": format!("{topics}/{dead}"), "maxDeliveryAttempts": 5,
            });
        }
        self.ask("PUT", &format!("/v1/projects/{project}/subscriptions/{subscription}"), &order);
    }

    /// Publishes the grant of a tenant.
    fn grant(&self, project: &str, topic: &str, tenant: &str) {
        let data = base64(event(tenant, "grant").to_string().as_bytes());
        let path = format!("/v1/projects/{project}/topics/{topic}:publish");
        self.ask("POST", &path, &json!({"messages": [{"data": data}]}));
    }

    fn start(&self, dir: &std::path::Path, more: &[(&str, &str)]) -> Tai {
        let address = self.emulator.address().to_string();
        let mut envs = vec![
            ("GCP_PROJECT_ID", PROJECT),
            ("PUBSUB_SUBSCRIPTION", SUBSCRIPTION),
            ("PUBSUB_EMULATOR_HOST", address.as_str()),
        ];
        envs.retain(|(name, _)| !more.iter().any(|(other, _)| other == name));
        envs.extend_from_slice(more);
        start(dir, &envs)
    }
}

fn receipts(tai: &Tai, tenant: &str) -> usize {
    let page = get(&mut client(tai.address()), &format!("/receipts?tenant_id={tenant}"));
    page.json().unwrap()["receipts"].as_array().map_or(0, Vec::len)
}

/// Waits until the grant of `tenant` is decided. The emulator may have given it to the stream of a
/// service that has ended, and gives it out again only after the subscription's deadline.
fn pulled(tai: &Tai, tenant: &str) {
    let deadline = Instant::now() + PULL_TIMEOUT;
    while receipts(tai, tenant) == 0 {
        assert!(Instant::now() < deadline, "the grant of {tenant} is not pulled in time");
        // Between two looks, under the deadline above.
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The grant of `tenant` is decided, that of `other` is not.
fn assert_pulled(tai: &Tai, tenant: &str, other: &str) {
    pulled(tai, tenant);
    assert_eq!(receipts(tai, other), 0);
}

fn status(tai: &Tai) -> Option<Value> {
    let answer = get(&mut client(tai.address()), "/admin/pubsub");
    (answer.status == 200).then(|| answer.json().unwrap())
}

#[test]
fn the_settings_of_the_pulled_subscription_are_seen_at_two_values() {
    let Some(emulator) = Emulator::start().unwrap() else {
        testkit::skip!("the Pub/Sub emulator is not installed");
    };
    let bus = Bus { emulator };
    for (project, tenant) in [(PROJECT, "in-one"), ("project-two", "in-two")] {
        bus.make(project, "dead", "dead-sub", None);
        bus.make(project, "signals", SUBSCRIPTION, Some("dead"));
        bus.grant(project, "signals", tenant);
    }
    for (project, tenant, other) in
        [(PROJECT, "in-one", "in-two"), ("project-two", "in-two", "in-one")]
    {
        let (_room, dir) = room();
        let tai = bus.start(&dir, &[("GCP_PROJECT_ID", project)]);
        assert_pulled(&tai, tenant, other);
        stop(tai);
    }
    subscription(&bus);
    enabled(&bus);
    emulator_host(&bus);
    dead_letter_topic(&bus);
    dead_letter_subscription(&bus);
    max_messages(&bus);
}

fn subscription(bus: &Bus) {
    for name in ["left", "right"] {
        bus.make(PROJECT, name, &format!("{name}-sub"), None);
        bus.grant(PROJECT, name, name);
    }
    for (name, other) in [("left", "right"), ("right", "left")] {
        let (_room, dir) = room();
        let tai = bus.start(&dir, &[("PUBSUB_SUBSCRIPTION", &format!("{name}-sub"))]);
        assert_pulled(&tai, name, other);
        stop(tai);
    }
}

fn enabled(bus: &Bus) {
    for (value, pulls) in [("true", true), ("false", false)] {
        let (_room, dir) = room();
        let tai = bus.start(&dir, &[("PUBSUB_ENABLED", value)]);
        assert_eq!(status(&tai).is_some(), pulls);
        stop(tai);
    }
}

fn emulator_host(bus: &Bus) {
    let real = bus.emulator.address().to_string();
    for (value, word) in [(real.as_str(), "connected"), ("127.0.0.1:1", "disconnected")] {
        let (_room, dir) = room();
        let mut tai = bus.start(&dir, &[("PUBSUB_EMULATOR_HOST", value)]);
        tai.expect_errors();
        until("health says so", || {
            let health = get(&mut client(tai.address()), "/health").json().unwrap();
            (health["pubsub"] == word).then_some(())
        });
        stop(tai);
    }
}

fn dead_letter_topic(bus: &Bus) {
    for (value, misled) in [("dead", false), ("elsewhere", true)] {
        let (_room, dir) = room();
        // Of its own: the emulator goes on giving messages to streams of services that have ended,
        // and each time counts as an attempt.
        let name = format!("lettered-{value}");
        bus.make(PROJECT, &name, &name, Some("dead"));
        let own = [("PUBSUB_SUBSCRIPTION", name.as_str()), ("PUBSUB_DEADLETTER_TOPIC", value)];
        let tai = bus.start(&dir, &own);
        tai.wait_for_event("pubsub_active", PATIENCE).unwrap();
        if misled {
            tai.wait_for_event("pubsub_dead_letters", PATIENCE).unwrap();
        } else {
            // It would have been said at once, before any message is decided.
            bus.grant(PROJECT, &name, "after-it");
            pulled(&tai, "after-it");
            assert!(!tai.log_lines().iter().any(|line| line.contains("pubsub_dead_letters")));
        }
        stop(tai);
    }
}

fn dead_letter_subscription(bus: &Bus) {
    bus.make(PROJECT, "other-dead", "other-dead-sub", None);
    bus.grant(PROJECT, "dead", "dead-here");
    bus.grant(PROJECT, "other-dead", "dead-there");
    for (value, tenant, other) in
        [("dead-sub", "dead-here", "dead-there"), ("other-dead-sub", "dead-there", "dead-here")]
    {
        let (_room, dir) = room();
        let tai = bus.start(&dir, &[("PUBSUB_DEADLETTER_SUBSCRIPTION", value)]);
        let answer = post(&mut client(tai.address()), "/admin/pubsub/replay", &json!({}));
        assert_eq!(answer.status, 200, "{}", String::from_utf8_lossy(&answer.body));
        assert_eq!(answer.json().unwrap()["replayed"], 1);
        assert_pulled(&tai, tenant, other);
        stop(tai);
    }
}

fn max_messages(bus: &Bus) {
    testkit::needs_python!();
    for (nth, most) in [1_u64, 3].into_iter().enumerate() {
        let (_room, dir) = room();
        let topic = format!("many-{nth}");
        bus.make(PROJECT, &topic, &format!("{topic}-sub"), None);
        let tai = bus.start(
            &dir,
            &[
                ("PUBSUB_SUBSCRIPTION", &format!("{topic}-sub")),
                ("PUBSUB_MAX_MESSAGES", &most.to_string()),
            ],
        );
        tai.wait_for_event("pubsub_active", PATIENCE).unwrap();
        // While nothing can be decided, what is in work stays in work.
        let lock = HeldLock::take(&dir);
        (0..8).for_each(|tenant| bus.grant(PROJECT, &topic, &format!("many-{tenant}")));
        let outstanding = || status(&tai).unwrap()["outstanding"].as_u64().unwrap();
        until("the places are taken", || (outstanding() == most).then_some(()));
        (0..20).for_each(|_| assert_eq!(outstanding(), most));
        drop(lock);
        pulled(&tai, "many-7");
        stop(tai);
    }
}
