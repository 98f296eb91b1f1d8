//! The operator's hands on the process: its parts restarted, itself drained, restarted, stopped.
//!
//! Owns: that each does what it says and loses nothing that was acknowledged. Refuses to know:
//! signals and kills, which have tests of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};
use testkit::http::Client;
use testkit::tai::Tai;

use crate::callers::*;
use crate::kills::{Acknowledged, Whereabouts, ask_away, assert_kept};
use crate::support::*;

const CLIENTS: usize = 8;

/// A part as it is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Part {
    state: String,
    restarts: u64,
    uptime_s: u64,
}

/// All parts; `None` when the connection is cut.
fn parts(address: SocketAddr) -> Option<BTreeMap<String, Part>> {
    let answer = Client::connect(address).ok()?.request("GET", "/admin/subsystems", &[], b"");
    let shown = answer.ok()?.json().unwrap();
    let parts = shown["subsystems"].as_array().unwrap().iter().map(|part| {
        let text = |field: &str| part[field].as_str().unwrap().to_owned();
        let number = |field: &str| part[field].as_u64().unwrap();
        let (restarts, uptime_s) = (number("restarts"), number("uptime_s"));
        (text("name"), Part { state: text("state"), restarts, uptime_s })
    });
    Some(parts.collect())
}

/// Clients that ask until the end. Every request must be answered with a receipt; where
/// `may_be_cut`, a connection may break, and the request is asked again under its id.
fn ask_until(
    address: SocketAddr,
    name: usize,
    may_be_cut: bool,
    (over, answered): (&AtomicBool, &AtomicUsize),
) -> BTreeSet<String> {
    let mut client = client(address);
    let mut told = BTreeSet::new();
    for number in 0.. {
        if over.load(Ordering::Acquire) {
            break;
        }
        let (id, tenant) = (format!("part-{name}-{number}"), format!("t-{}", number % 20));
        let headers = [JSON, ("X-Request-ID", id.as_str())];
        let body = json!({"customer_id": tenant}).to_string();
        let response = until("an answer", || {
            let answer = client.request("POST", "/marketplace", &headers, body.as_bytes());
            if let (Err(error), false) = (&answer, may_be_cut) {
                panic!("{id} was not answered: {error:#}");
            }
            answer.ok()
        });
        assert_eq!(response.status, 200, "{id}: {}", text(&response));
        assert!(told.insert(receipt_id(&response)), "{id} was given the receipt of another");
        answered.fetch_add(1, Ordering::AcqRel);
    }
    told
}

/// Restarts one part and waits until it runs again; the others go on.
fn restart(address: SocketAddr, name: &str, shown: &str) {
    let before = parts(address).unwrap();
    let response =
        Caller::local(address).post(&format!("/admin/subsystems/{name}/restart"), &Value::Null);
    assert_eq!(response.status, 202, "{name}: {}", text(&response));
    let body = response.json().unwrap();
    assert_eq!((&body["name"], &body["state"]), (&json!(shown), &json!("restarting")));
    let after = until("the part runs again", || {
        let parts = parts(address)?;
        let part = &parts[shown];
        (part.restarts > before[shown].restarts && part.state == "running").then_some(parts)
    });
    for (other, part) in &after {
        let was = &before[other];
        if other == shown {
            assert_eq!(part.restarts, was.restarts + 1, "{other}");
        } else {
            assert_eq!((part.restarts, part.state.as_str()), (was.restarts, "running"), "{other}");
            assert!(part.uptime_s >= was.uptime_s, "{other} began anew with {shown}");
        }
    }
}

/// Restarts parts under load and gives the receipts that the clients were told.
fn restart_all(tai: &Tai, names: &[String], may_be_cut: bool) -> BTreeSet<String> {
    let (over, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let address = tai.address();
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|name| {
                let shared = (&over, &answered);
                let name = name + if may_be_cut { CLIENTS } else { 0 };
                scope.spawn(move || ask_until(address, name, may_be_cut, shared))
            })
            .collect();
        let end = Finally(|| over.store(true, Ordering::Release));
        let more = |what: &str| {
            let before = answered.load(Ordering::Acquire);
            until(what, || (answered.load(Ordering::Acquire) > before + 50).then_some(()));
        };
        for name in names {
            more("a load");
            restart(address, name, name);
            more("the load goes on");
        }
        drop(end);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

#[test]
fn each_part_restarts_alone_and_everything_is_answered() {
    const HTTP: &str = "tai_http";
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let names: Vec<String> = until("some age", || {
        let parts = parts(tai.address()).unwrap();
        assert!(parts.values().all(|part| part.restarts == 0 && part.state == "running"));
        parts.values().all(|part| part.uptime_s >= 2).then(|| parts.into_keys().collect())
    });
    let (door, inner): (Vec<String>, Vec<String>) = names.into_iter().partition(|it| it == HTTP);
    assert!(inner.len() >= 4 && door.len() == 1, "{inner:?}");
    let mut told = restart_all(&tai, &inner, false);
    told.extend(restart_all(&tai, &door, true));

    restart(tai.address(), "governor_sup", "governance_sup");
    let mut operator = Caller::local(tai.address());
    let unknown = operator.post("/admin/subsystems/nothing_sup/restart", &Value::Null);
    assert_refused(&unknown, 404, "not_found");
    let asked = operator.receipts("stream=_ops&action=subsystem_restart_asked");
    assert_eq!(asked.len(), inner.len() + 2, "one for each, and none for the unknown");
    assert_eq!(operator.get("/health").json().unwrap()["health"], "green");
    stop(tai);
    let receipts = assert_verified(&dir);
    let quotes = receipts.iter().filter(|receipt| receipt["action"] == "quote");
    let kept: BTreeSet<String> =
        quotes.map(|receipt| receipt["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(kept, told, "what was told is kept, and nothing besides");
}

#[test]
fn a_restart_of_the_process_keeps_its_id_and_what_was_acknowledged() {
    let (_room, dir) = room();
    let admin = new_key();
    let tai = Tai::builder(bin(), &dir)
        .port(testkit::place::free_port().unwrap())
        .env("ADMIN_API_KEY", &admin)
        .env("GOVERNOR_STATE_CHECK_INTERVAL_MS", "50")
        .start()
        .unwrap();
    let address = tai.address();
    let started_at = || {
        let response = Client::connect(address).ok()?.request("GET", "/health", &[], b"").ok()?;
        response.json().ok()?["started_at"].as_i64()
    };
    let whereabouts = Whereabouts::default();
    whereabouts.set(Some(address));
    let acknowledged: Acknowledged = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS as u64)
            .map(|name| {
                let whereabouts = &whereabouts;
                scope.spawn(move || ask_away(whereabouts, name, 2_000 + name, "restart"))
            })
            .collect();
        let end = Finally(|| whereabouts.end());
        for _ in 0..3 {
            let before = started_at().unwrap();
            until("the next second", || (unix_secs() > before + 1).then_some(()));
            let mut operator = Caller::keyed(address, &admin);
            let response = operator.post("/admin/restart", &Value::Null);
            assert_eq!(response.status, 202, "{}", text(&response));
            until("the next life", || started_at().filter(|started| *started > before));
        }
        drop(end);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let asked = Caller::keyed(address, &admin).receipts("stream=_ops&action=restart_asked");
    assert_eq!(asked.len(), 3);
    assert!(asked.iter().all(|it| it["actor"].as_str().unwrap().starts_with("key_")), "{asked:?}");
    // The process that was started first is the one that ends now.
    let ends = |tai: &Tai| {
        tai.log_lines().iter().filter(|line| line.contains("Shutdown complete")).count()
    };
    assert_eq!(ends(&tai), 3);
    stop(tai);
    assert!(acknowledged.len() > 100, "hardly a load: {}", acknowledged.len());
    assert_kept(&dir, &acknowledged);
}

#[test]
fn a_drained_service_answers_and_takes_nothing_new_until_it_is_stopped() {
    let (_room, dir) = room();
    let admin = new_key();
    let mut tai = start_guarded(&dir, &admin, &[]);
    let key = issue(&mut Caller::keyed(tai.address(), &admin), &json!({}));
    let mut operator = key.caller(tai.address());
    let granted = operator.post("/marketplace", &event("acme", "grant"));
    assert_eq!(granted.status, 200);
    let mut half = Half::begin(tai.address(), Some(&key.text));
    let drained = operator.post("/admin/drain", &Value::Null);
    assert_eq!((drained.status, drained.json().unwrap()), (202, json!({"state": "draining"})));

    assert_refused(&operator.quote("acme"), 503, "service_unavailable");
    let signal = push("m1", &event("acme", "suspend"));
    assert_refused(&operator.post("/pubsub", &signal), 503, "service_unavailable");
    assert_refused(&operator.post("/admin/keys", &json!({})), 503, "service_unavailable");
    // It had not been decided yet when the drain began.
    half.finish();
    assert_eq!(half.status(), Some(503));
    assert_eq!(operator.get(&format!("/receipts/{}", receipt_id(&granted))).status, 200);
    for (path, status) in
        [("/health", 200), ("/health/live", 200), ("/readyz", 503), ("/admin/queues", 200)]
    {
        assert_eq!(operator.get(path).status, status, "{path}");
    }

    let stopped = operator.post("/admin/stop", &Value::Null);
    assert_eq!((stopped.status, stopped.json().unwrap()), (202, json!({"state": "stopping"})));
    let status = tai.wait(PATIENCE).unwrap();
    assert_eq!(status.code(), Some(0), "{:#?}", tai.log_lines());
    assert!(tai.log_lines().last().unwrap().contains("Shutdown complete"));
    let receipts = assert_verified(&dir);
    let ops: Vec<_> = receipts.iter().filter(|receipt| receipt["stream"] == "_ops").collect();
    let said: Vec<(&str, &str)> = ops
        .iter()
        .map(|receipt| (receipt["action"].as_str().unwrap(), receipt["actor"].as_str().unwrap()))
        .collect();
    let by = key.id.as_str();
    assert_eq!(said, [("start", "tai"), ("drain", by), ("stop_asked", by), ("stop", "tai")]);
}
