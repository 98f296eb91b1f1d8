//! The action that asks somebody outside to act.
//!
//! Owns: what the far side is sent, and what its answers become in receipts. Refuses to know: when
//! a signal intervenes.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::receiver::{Manner, Received, Receiver};
use testkit::tai::Tai;

use crate::callers::*;
use crate::support::*;

/// Key of the signature, a test vector.
const KEY: &str = "a key between us and the hook";

/// A far side, and the catalogue that sends interventions there.
struct Hooked {
    room: TempDir,
    far: Receiver,
    catalogue: String,
}

impl Hooked {
    fn new() -> Hooked {
        let (room, _) = room();
        let shipped = testkit::place::repository().join("crates/governors/catalogue.toml");
        let text = fs::read_to_string(shipped).unwrap();
        let file = room.path().join("catalogue.toml");
        fs::write(&file, text.replace("action = \"throttle\"", "action = \"hook\"")).unwrap();
        let catalogue = file.to_str().unwrap().to_owned();
        Hooked { room, far: Receiver::start().unwrap(), catalogue }
    }

    fn start(&self, dir: &Path, envs: &[(&str, &str)]) -> Tai {
        let url = self.far.url() + "/deploy/roll-back?token=t0ken";
        let own = [
            ("CATALOGUE_FILE", &*self.catalogue),
            ("ACTION_HOOK_URL", &*url),
            ("ACTION_HOOK_SECRET", KEY),
        ];
        start(dir, &[&own, envs].concat())
    }

    fn dir(&self, name: &str) -> std::path::PathBuf {
        self.room.path().join(name)
    }

    /// The result of the attempt that a signal of the tenant leads to.
    fn result(&self, tai: &Tai, tenant: &str) -> Value {
        intervene(tai, tenant);
        wait_for_result(tai, tenant)
    }
}

fn intervene(tai: &Tai, tenant: &str) {
    let mut client = client(tai.address());
    assert_eq!(post(&mut client, "/marketplace", &event(tenant, "grant")).status, 200);
    let data = json!({
        "tenant_id": tenant, "metric": "cpu", "value": 95, "timestamp_ms": unix_secs() * 1000,
    });
    let response = post(&mut client, "/pubsub", &push(&format!("m-{tenant}"), &data));
    assert_eq!(response.status, 200);
}

fn wait_for_result(tai: &Tai, tenant: &str) -> Value {
    until("the result", || {
        let query = format!("/receipts?tenant_id={tenant}&type=action_result");
        let page: Value = get(&mut client(tai.address()), &query).json().unwrap();
        page["receipts"].get(0).cloned()
    })
}

fn attempts(sent: &[Received]) -> Vec<&str> {
    sent.iter().map(|request| request.header("idempotency-key").unwrap()).collect()
}

#[test]
fn an_intervention_asks_the_hook_and_its_word_is_the_result() {
    let hooked = Hooked::new();
    let dir = hooked.dir("ledger");
    let tai = hooked.start(&dir, &[]);
    let result = hooked.result(&tai, "acme");
    assert_eq!((&result["status"], &result["action"]), (&json!("success"), &json!("hook")));
    let sent = hooked.far.received();
    let [request] = &sent[..] else { panic!("{} requests", sent.len()) };
    assert_eq!((&*request.method, &*request.path), ("POST", "/deploy/roll-back?token=t0ken"));
    let expected = json!({"action": "hook", "attempt": result["intent"], "tenant_id": "acme"});
    assert_eq!(request.json().unwrap(), expected);
    assert_eq!(request.header("idempotency-key"), result["intent"].as_str());
    let signed = format!("sha256={}", signature(KEY.as_bytes(), &request.body));
    assert_eq!(request.header("x-hub-signature-256"), Some(&*signed));
    let log = tai.log_lines().concat();
    assert!(!log.contains("t0ken") && !log.contains(KEY));
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn a_hook_that_is_unwell_is_asked_again_and_a_refusal_is_final() {
    let hooked = Hooked::new();
    let tai = hooked.start(&hooked.dir("ledger"), &[]);
    for (tenant, manners, status, tries) in [
        ("away", vec![Manner::status(503)], "success", 2),
        ("dropped", vec![Manner::Drops], "success", 2),
        ("refused", vec![Manner::status(403)], "error", 1),
        ("elsewhere", vec![Manner::status(302)], "error", 1),
    ] {
        let before = hooked.far.received().len();
        manners.into_iter().for_each(|manner| hooked.far.next(manner));
        assert_eq!(hooked.result(&tai, tenant)["status"], status, "{tenant}");
        let sent = hooked.far.received().split_off(before);
        let keys = attempts(&sent);
        assert_eq!(keys.len(), tries, "{tenant}");
        assert!(keys.iter().all(|key| *key == keys[0]), "one key for all tries: {keys:?}");
    }
    stop(tai);
}

#[test]
fn a_call_that_a_killed_process_left_is_made_again_under_its_key() {
    let hooked = Hooked::new();
    let dir = hooked.dir("ledger");
    let mut tai = hooked.start(&dir, &[]);
    hooked.far.always(Some(Manner::Hangs(Duration::from_secs(60))));
    intervene(&tai, "acme");
    until("the call", || (!hooked.far.received().is_empty()).then_some(()));
    tai.kill().unwrap();
    hooked.far.always(None);
    let tai = hooked.start(&dir, &[]);
    assert_eq!(wait_for_result(&tai, "acme")["status"], "success");
    let sent = hooked.far.received();
    let keys = attempts(&sent);
    assert!(keys.len() >= 2 && keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    stop(tai);
    let receipts = assert_verified(&dir);
    let of = |kind: &str| receipts.iter().filter(|receipt| receipt["type"] == kind).count();
    assert_eq!((of("action_attempt"), of("action_result")), (1, 1));
}

#[test]
fn a_profile_whose_action_nobody_performs_stops_the_start() {
    let hooked = Hooked::new();
    let dir = hooked.dir("ledger");
    let refused = |catalogue: &str, words: &str| {
        let mut start = command(&dir, &["check"]);
        let said = Said::from(start.env("CATALOGUE_FILE", catalogue).output().unwrap());
        assert_eq!(said.code, Some(2));
        assert!(said.err.contains(words), "{}", said.err);
    };
    refused(&hooked.catalogue, "ACTION_HOOK_URL");
    let text = fs::read_to_string(&hooked.catalogue).unwrap();
    let other = hooked.room.path().join("other.toml");
    fs::write(&other, text.replace("\"hook\"", "\"zq7marker\"")).unwrap();
    refused(other.to_str().unwrap(), "names an action that there is not");
}

pub(crate) fn action_hook_url() {
    let (one, other) = (Hooked::new(), Hooked::new());
    for (hooked, silent) in [(&one, &other), (&other, &one)] {
        let (sent, quiet) = (hooked.far.received().len(), silent.far.received().len());
        let tai = hooked.start(&hooked.dir("ledger"), &[]);
        hooked.result(&tai, "acme");
        stop(tai);
        assert_eq!(hooked.far.received().len(), sent + 1);
        assert_eq!(silent.far.received().len(), quiet);
    }
}

pub(crate) fn action_hook_secret() {
    let hooked = Hooked::new();
    for (name, secret) in [("a", "one"), ("b", "other"), ("c", "")] {
        let tai = hooked.start(&hooked.dir(name), &[("ACTION_HOOK_SECRET", secret)]);
        hooked.result(&tai, "acme");
        stop(tai);
        let sent = hooked.far.received();
        let request = sent.last().unwrap();
        let expected = format!("sha256={}", signature(secret.as_bytes(), &request.body));
        let expected = (!secret.is_empty()).then_some(&*expected);
        assert_eq!(request.header("x-hub-signature-256"), expected);
    }
}

pub(crate) fn action_timeout_ms() {
    let hooked = Hooked::new();
    // It never answers; after a while it closes the connection.
    hooked.far.always(Some(Manner::Hangs(Duration::from_millis(600))));
    for (timeout, status) in [("100", "timeout"), ("60000", "unknown")] {
        let tai = hooked.start(&hooked.dir(timeout), &[("ACTION_TIMEOUT_MS", timeout)]);
        assert_eq!(hooked.result(&tai, "acme")["status"], status, "{timeout}");
        stop(tai);
    }
}
