//! What was published with Google's client, and what the ledger says of it.
//!
//! Owns: the publishing script, its manifest, and the comparison of messages with receipts. Refuses
//! to know: how messages were delivered.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use testkit::pubsub::Emulator;
use testkit::{place, python};

use crate::support::{receipts_of, tai};

/// One published message, as the manifest has it.
pub(super) struct Published {
    pub(super) serial: u64,
    pub(super) message_id: String,
    pub(super) kind: String,
    pub(super) data: String,
}

impl Published {
    pub(super) fn payload(&self) -> Value {
        serde_json::from_str(&self.data).unwrap()
    }
}

pub(super) fn serials(published: &[Published], kind: &str) -> BTreeSet<u64> {
    published.iter().filter(|sent| sent.kind == kind).map(|sent| sent.serial).collect()
}

pub(super) fn numbers(lines: &str) -> BTreeSet<u64> {
    lines.lines().map(|line| line.parse().unwrap()).collect()
}

/// The script that publishes with Google's client.
pub(super) struct Publisher {
    python: PathBuf,
    emulator: String,
    manifest: PathBuf,
}

impl Publisher {
    pub(super) fn new(emulator: &Emulator, manifest: PathBuf) -> Publisher {
        let list = place::repository().join("tests/python/requirements.txt");
        let python = python::venv(&std::fs::read_to_string(list).unwrap()).unwrap();
        Publisher { python, emulator: emulator.address().to_string(), manifest }
    }

    pub(super) fn manifest(&self) -> String {
        self.manifest.to_str().unwrap().to_owned()
    }

    pub(super) fn published(&self) -> Vec<Published> {
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

    pub(super) fn spawn(&self, args: &[&str]) -> Child {
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

    pub(super) fn run(&self, args: &[&str]) -> String {
        finished(self.spawn(args))
    }
}

pub(super) fn finished(child: Child) -> String {
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// What the ledger holds, while the service runs.
pub(super) fn exported(ledger: &Path) -> Vec<Value> {
    let said = tai(ledger, &["ledger", "export"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    receipts_of(&said.out)
}

/// Receipts of messages, by id: those that carry an idempotency key. Nothing else here has one.
pub(super) fn keyed(receipts: &[Value]) -> BTreeMap<String, Value> {
    let keyed: Vec<&Value> = receipts.iter().filter(|it| it.get("idem").is_some()).collect();
    let keys: BTreeSet<&str> = keyed.iter().map(|it| it["idem"].as_str().unwrap()).collect();
    assert_eq!(keys.len(), keyed.len(), "one message has two receipts");
    assert!(keyed.iter().all(|it| it["actor"] == "pubsub"));
    let id = |it: &Value| it["id"].as_str().unwrap().to_owned();
    keyed.into_iter().map(|it| (id(it), it.clone())).collect()
}

/// The message ids are not in the receipts, so what the messages say is compared as a multiset:
/// the same payload published twice is decided twice.
pub(super) fn assert_each_once(good: &[&Published], decided: &BTreeMap<String, Value>) {
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

pub(super) fn said_by_message(message: &Value) -> String {
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

pub(super) fn said_by_receipt(receipt: &Value) -> String {
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

/// The messages that no receipt speaks of: of several that say the same, the last ones.
pub(super) fn undecided<'a>(
    good: &[&'a Published],
    decided: &BTreeMap<String, Value>,
) -> Vec<&'a Published> {
    let mut told: BTreeMap<String, usize> = BTreeMap::new();
    for receipt in decided.values() {
        *told.entry(said_by_receipt(receipt)).or_default() += 1;
    }
    let open = |sent: &&&Published| match told.get_mut(&said_by_message(&sent.payload())) {
        Some(left) if *left > 0 => {
            *left -= 1;
            false
        }
        _ => true,
    };
    good.iter().filter(open).copied().collect()
}
