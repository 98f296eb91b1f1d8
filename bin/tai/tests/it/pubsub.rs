//! Real input: Google's emulator pushes what Google's client publishes, while the service is
//! killed three times.
//!
//! Owns: the promise that every message is decided exactly once or ends as a dead letter. Refuses
//! to know: how the emulator delivers, and what is in a message beyond what its receipt repeats.

mod published;
mod pulled;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::pubsub::Emulator;
use testkit::tai::Tai;
use testkit::{place, skip};

use crate::support::{
    assert_verified, bin, client, get, post, push, push_raw, receipt_id, room, stop, until,
};
use published::{
    Published, Publisher, assert_each_once, exported, finished, keyed, numbers, said_by_message,
    said_by_receipt, serials,
};

const MESSAGES: usize = 5_000;
/// The share of the messages, in percent, at whose decision the service is killed.
const KILLS_PERCENT: [u64; 3] = [20, 45, 70];
/// Good messages that are delivered once more by hand.
const REPEATED: usize = 300;
/// From the first message to the last dead letter.
const TIME_MAX: Duration = Duration::from_secs(240);
/// An outage that lasts longer could cost a good message more deliveries than the publishing script
/// gives it.
const OUTAGE_MAX: Duration = Duration::from_secs(5);

#[test]
fn every_message_is_decided_once_or_becomes_a_dead_letter_under_three_kills() {
    let Some(emulator) = Emulator::start().unwrap() else {
        skip!("the Pub/Sub emulator is not installed");
    };
    testkit::needs_python!();
    let (room, ledger) = room();
    let started = Instant::now();
    let publisher = Publisher::new(&emulator, room.path().join("manifest.jsonl"));
    let mut service = Service::start(&ledger);

    publisher.run(&["grants", &publisher.manifest(), &service.endpoint()]);
    let tenants = publisher.published().len();
    service.wait_for(tenants as u64);
    let total = MESSAGES.to_string();
    let publishing = publisher.spawn(&["signals", &publisher.manifest(), &total]);
    for percent in KILLS_PERCENT {
        service.wait_for((tenants + MESSAGES) as u64 * percent / 100);
        service.kill_and_restart();
        assert!(service.acknowledged_before < MESSAGES as u64, "the kill came too late");
    }
    finished(publishing);
    let published = publisher.published();
    assert_eq!(published.len(), tenants + MESSAGES);

    let poison: BTreeSet<u64> = serials(&published, "poison");
    assert_eq!(poison.len(), MESSAGES / 50);
    let left = TIME_MAX.saturating_sub(started.elapsed()).as_secs().to_string();
    let dead = publisher.run(&["dead-letters", &poison.len().to_string(), &left]);
    assert_eq!(numbers(&dead), poison, "the dead letters are the poison, all of it");

    let good: Vec<&Published> = published.iter().filter(|sent| sent.kind == "good").collect();
    let decided = until("every good message is decided", || {
        let decided = keyed(&exported(&ledger));
        (decided.len() >= good.len()).then_some(decided)
    });
    assert_each_once(&good, &decided);
    assert_repeats(&service, &good, &decided);
    let dead = publisher.run(&["dead-letters", "1", "2"]);
    assert_eq!(dead, "", "a dead letter came after the last poison");

    let log = service.stop();
    let received = log.iter().filter(|line| {
        line.split_once("Received").is_some_and(|(_, rest)| rest.contains("signal"))
    });
    assert!(received.count() >= good.len() / 2, "the log says what was received");
    let after = keyed(&assert_verified(&ledger));
    assert_eq!(after, decided, "repeated deliveries decided nothing");
    assert!(started.elapsed() < TIME_MAX);
}

/// The service through all its lives, on one port, since a subscription knows one endpoint.
struct Service<'a> {
    ledger: &'a Path,
    port: u16,
    envs: Vec<(String, String)>,
    /// What counts the deliveries that a life has acknowledged.
    counter: &'static str,
    tai: Tai,
    /// Deliveries acknowledged by former lives.
    acknowledged_before: u64,
    log: Vec<String>,
}

impl Service<'_> {
    fn start(ledger: &Path) -> Service<'_> {
        const PUSHED: &str =
            r#"tai_http_requests_total{endpoint="/pubsub",method="POST",status="200"} "#;
        Service::start_with(ledger, Vec::new(), PUSHED)
    }

    fn start_with<'a>(
        ledger: &'a Path,
        envs: Vec<(String, String)>,
        counter: &'static str,
    ) -> Service<'a> {
        let port = place::free_port().unwrap();
        let tai = life(ledger, port, &envs);
        Service { ledger, port, envs, counter, tai, acknowledged_before: 0, log: Vec::new() }
    }

    fn endpoint(&self) -> String {
        format!("http://{}/pubsub", self.tai.address())
    }

    /// Deliveries acknowledged by this life.
    fn acknowledged(&self) -> u64 {
        let metrics = get(&mut client(self.tai.address()), "/metrics");
        let text = String::from_utf8(metrics.body).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(self.counter));
        value.map_or(0, |value| value.parse().unwrap())
    }

    fn wait_for(&self, acknowledged: u64) {
        until("deliveries are acknowledged", || {
            (self.acknowledged_before + self.acknowledged() >= acknowledged).then_some(())
        });
    }

    /// The moment is arbitrary: some deliveries are in work and some are decided but not answered.
    fn kill_and_restart(&mut self) {
        self.acknowledged_before += self.acknowledged();
        let down = Instant::now();
        self.tai.kill().unwrap();
        self.log.append(&mut self.tai.log_lines());
        self.tai = life(self.ledger, self.port, &self.envs);
        assert!(down.elapsed() < OUTAGE_MAX, "the restart took {:?}", down.elapsed());
    }

    fn stop(mut self) -> Vec<String> {
        let mut lines = self.tai.log_lines();
        stop(self.tai);
        self.log.append(&mut lines);
        self.log
    }
}

fn life(ledger: &Path, port: u16, envs: &[(String, String)]) -> Tai {
    let builder = Tai::builder(bin(), ledger).port(port);
    let builder = envs.iter().fold(builder, |builder, (name, value)| builder.env(name, value));
    builder.start().unwrap()
}

/// A delivery that comes again is answered with the receipt of the first; another body under the
/// same id is refused.
fn assert_repeats(service: &Service<'_>, good: &[&Published], decided: &BTreeMap<String, Value>) {
    let mut client = client(service.tai.address());
    let mut receipts = BTreeSet::new();
    for sent in good.iter().step_by(good.len() / REPEATED).take(REPEATED) {
        let body = push_raw(&sent.message_id, sent.data.as_bytes());
        let answer = post(&mut client, "/pubsub", &body);
        assert_eq!(answer.status, 200, "{:?}", answer.json());
        assert_eq!(answer.header("x-idempotent-replay"), Some("true"));
        let id = receipt_id(&answer);
        assert_eq!(answer.json().unwrap(), decided[&id]);
        assert_eq!(said_by_receipt(&decided[&id]), said_by_message(&sent.payload()));

        let mut other = sent.payload();
        other["padding"] = json!("another body");
        let refused = post(&mut client, "/pubsub", &push(&sent.message_id, &other));
        assert_eq!(refused.status, 422);
        assert_eq!(refused.json().unwrap()["reason"], "duplicate_message");
        assert!(receipts.insert(id), "two messages share a receipt");
    }
    assert_eq!(receipts.len(), REPEATED);
}
