//! Real input: Google's emulator pushes what Google's client publishes, while the service is
//! killed three times.
//!
//! Owns: the promise that every message is decided exactly once or ends as a dead letter. Refuses
//! to know: how the emulator delivers, and what is in a message beyond what its receipt repeats.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::pubsub::Emulator;
use testkit::tai::Tai;
use testkit::{place, python, skip};

use crate::support::{
    assert_verified, bin, client, get, post, push, push_raw, receipt_id, receipts_of, room, stop,
    tai, until,
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

/// One published message, as the manifest has it.
struct Published {
    serial: u64,
    message_id: String,
    kind: String,
    data: String,
}

impl Published {
    fn payload(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }
}

fn serials(published: &[Published], kind: &str) -> BTreeSet<u64> {
    published.iter().filter(|sent| sent.kind == kind).map(|sent| sent.serial).collect()
}

fn numbers(lines: &str) -> BTreeSet<u64> {
    lines.lines().map(|line| line.parse().unwrap()).collect()
}

/// The script that publishes with Google's client.
struct Publisher {
    python: PathBuf,
    emulator: String,
    manifest: PathBuf,
}

impl Publisher {
    fn new(emulator: &Emulator, manifest: PathBuf) -> Publisher {
        let list = place::repository().join("tests/python/requirements.txt");
        let python = python::venv(&std::fs::read_to_string(list).unwrap()).unwrap();
        Publisher { python, emulator: emulator.address().to_string(), manifest }
    }

    fn manifest(&self) -> String {
        self.manifest.to_str().unwrap().to_owned()
    }

    fn published(&self) -> Vec<Published> {
        let text = std::fs::read_to_string(&self.manifest).unwrap();
        let read = |line: &str| {
            let line: Value = serde_json::from_str(line).unwrap();
            let text = |name: &str| line[name].as_str().unwrap().to_owned();
            Published {
                serial: line["serial"].as_u64().unwrap(),
                message_id: text("message_id"),
                kind: text("kind"),
                data: text("data"),
            }
        };
        text.lines().map(read).collect()
    }

    fn spawn(&self, args: &[&str]) -> Child {
        Command::new(&self.python)
            .arg(place::repository().join("tests/python/publish_signals.py"))
            .args(args)
            .env("PUBSUB_EMULATOR_HOST", &self.emulator)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    fn run(&self, args: &[&str]) -> String {
        finished(self.spawn(args))
    }
}

fn finished(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The service through all its lives, on one port, since a subscription knows one endpoint.
struct Service<'a> {
    ledger: &'a Path,
    port: u16,
    tai: Tai,
    /// Deliveries acknowledged by former lives.
    acknowledged_before: u64,
    log: Vec<String>,
}

impl Service<'_> {
    fn start(ledger: &Path) -> Service<'_> {
        let port = place::free_port().unwrap();
        let tai = Tai::builder(bin(), ledger).port(port).start().unwrap();
        Service { ledger, port, tai, acknowledged_before: 0, log: Vec::new() }
    }

    fn endpoint(&self) -> String {
        format!("http://{}/pubsub", self.tai.address())
    }

    /// Deliveries acknowledged by this life.
    fn acknowledged(&self) -> u64 {
        const COUNTER: &str =
            r#"tai_http_requests_total{endpoint="/pubsub",method="POST",status="200"} "#;
        let metrics = get(&mut client(self.tai.address()), "/metrics");
        let text = String::from_utf8(metrics.body).unwrap();
        let value = text.lines().find_map(|line| line.strip_prefix(COUNTER));
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
        self.tai = Tai::builder(bin(), self.ledger).port(self.port).start().unwrap();
        assert!(down.elapsed() < OUTAGE_MAX, "the restart took {:?}", down.elapsed());
    }

    fn stop(mut self) -> Vec<String> {
        let mut lines = self.tai.log_lines();
        stop(self.tai);
        self.log.append(&mut lines);
        self.log
    }
}

/// What the ledger holds, while the service runs.
fn exported(ledger: &Path) -> Vec<Value> {
    let said = tai(ledger, &["ledger", "export"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    receipts_of(&said.out)
}

/// Receipts of messages, by id: those that carry an idempotency key. Nothing else here has one.
fn keyed(receipts: &[Value]) -> BTreeMap<String, Value> {
    let keyed: Vec<&Value> = receipts.iter().filter(|it| it.get("idem").is_some()).collect();
    let keys: BTreeSet<&str> = keyed.iter().map(|it| it["idem"].as_str().unwrap()).collect();
    assert_eq!(keys.len(), keyed.len(), "one message has two receipts");
    assert!(keyed.iter().all(|it| it["actor"] == "pubsub"));
    let id = |it: &Value| it["id"].as_str().unwrap().to_owned();
    keyed.into_iter().map(|it| (id(it), it.clone())).collect()
}

/// The message ids are not in the receipts, so what the messages say is compared as a multiset:
/// the same payload published twice is decided twice.
fn assert_each_once(good: &[&Published], decided: &BTreeMap<String, Value>) {
    let mut open: BTreeMap<String, i64> = BTreeMap::new();
    for sent in good {
        *open.entry(said_by_message(&sent.payload())).or_default() += 1;
    }
    for receipt in decided.values() {
        *open.entry(said_by_receipt(receipt)).or_default() -= 1;
    }
    open.retain(|_, surplus| *surplus != 0);
    assert!(open.is_empty(), "published minus decided: {open:#?}");
    assert_eq!(decided.len(), good.len());
}

fn said_by_message(message: &Value) -> String {
    let text = |name: &str| message[name].as_str().unwrap();
    if message.get("signal").is_some() {
        return format!("_signals {}", text("signal"));
    }
    if message.get("action").is_some() {
        return format!("{} {} {}", text("tenant_id"), text("action"), text("entitlement_id"));
    }
    let (metric, value_milli) = if message.get("metric").is_some() {
        (text("metric"), (message["value"].as_f64().unwrap() * 1e3).round() as i64)
    } else {
        // The severities of the shipped catalogue; absent means a warning.
        let value = match message.get("severity").and_then(Value::as_str) {
            Some("info") => 0,
            Some("critical") => 90_000,
            _ => 70_000,
        };
        (text("signal_type"), value)
    };
    format!("{} {metric} {value_milli} {}", text("tenant_id"), message["timestamp_ms"])
}

fn said_by_receipt(receipt: &Value) -> String {
    let text = |name: &str| receipt[name].as_str().unwrap();
    let stream = text("stream");
    if stream == "_signals" {
        return format!("{stream} {}", text("subject"));
    }
    let Some(metric) = receipt["metadata"].get("metric") else {
        return format!("{stream} {} {}", text("action"), text("entitlement_id"));
    };
    let metadata = &receipt["metadata"];
    let metric = metric.as_str().unwrap();
    format!("{stream} {metric} {} {}", metadata["value_milli"], metadata["signal_at"])
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
