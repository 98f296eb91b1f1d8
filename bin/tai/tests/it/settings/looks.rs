//! One look from outside at each setting: two values, two different outcomes.
//!
//! Owns: how each difference is made to show, without waiting longer than it takes. Refuses to
//! know: which settings there are; the list stands beside.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::http::{Client, Response};
use testkit::tai::Tai;

use crate::callers::*;
use crate::support::*;

mod access;
mod logs;
mod validation;

pub(super) use crate::calls::cache::{ai_cache_max_bytes, ai_cache_ttl_s, redis_url};
pub(super) use crate::calls::tuning::*;
pub(super) use crate::hook::{action_hook_secret, action_hook_url, action_timeout_ms};
pub(super) use crate::traces::looks::*;
pub(super) use access::*;
pub(super) use logs::*;
pub(super) use validation::*;

/// A service whose log says little or goes elsewhere: known by its port alone.
pub(crate) struct Quiet {
    child: Child,
    pub(crate) address: SocketAddr,
}

impl Quiet {
    pub(crate) fn start(dir: &Path, envs: &[(&str, &str)], stdout: &Path) -> Quiet {
        let port = testkit::place::free_port().unwrap();
        let child = command(dir, &["serve"])
            .env("PORT", port.to_string())
            .envs(envs.iter().copied())
            .stdout(fs::File::create(stdout).unwrap())
            .spawn()
            .unwrap();
        let quiet = Quiet { child, address: SocketAddr::from(([127, 0, 0, 1], port)) };
        until("health", || {
            let mut client = Client::connect(quiet.address).ok()?;
            (client.request("GET", "/health", &[], b"").ok()?.status == 200).then_some(())
        });
        quiet
    }

    pub(crate) fn signal(&self, signal: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    /// Ends it in order, so that its log is whole.
    pub(crate) fn stop(mut self) {
        self.signal("-TERM");
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Quiet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn quote(client: &mut Client, customer: &str) -> Response {
    post(client, "/marketplace", &json!({"customer_id": customer}))
}

pub(super) fn port() {
    let mut used = Vec::new();
    for _ in 0..2 {
        let (_room, dir) = room();
        let wanted = testkit::place::free_port().unwrap();
        let tai = Tai::builder(bin(), &dir).port(wanted).start().unwrap();
        assert_eq!(tai.address().port(), wanted);
        assert_eq!(get(&mut client(tai.address()), "/health").status, 200);
        used.push(wanted);
        stop(tai);
    }
    assert_ne!(used[0], used[1]);
}

pub(super) fn bind_address() {
    for (bound, other) in [("127.0.0.1", "127.0.0.2"), ("127.0.0.2", "127.0.0.1")] {
        let (_room, dir) = room();
        let tai = start(&dir, &[("BIND_ADDRESS", bound)]);
        assert_eq!(tai.address().ip().to_string(), bound);
        assert_eq!(get(&mut client(tai.address()), "/health").status, 200);
        let elsewhere = SocketAddr::new(other.parse().unwrap(), tai.address().port());
        assert!(TcpStream::connect(elsewhere).is_err(), "{other}");
        stop(tai);
    }
}

pub(super) fn request_timeout_ms() {
    testkit::needs_python!();
    let asked = |timeout: &str| {
        let (_room, dir) = room();
        let tai = start(&dir, &[("REQUEST_TIMEOUT_MS", timeout)]);
        let address = tai.address();
        let held = HeldLock::take(&dir);
        let response = thread::scope(|scope| {
            let asking = scope.spawn(move || {
                let mut client = client(address);
                post_as(&mut client, "/marketplace", "slow", &event("acme", "grant"))
            });
            // Either it has been given up, or it is still in work when the other would have been.
            let began = Instant::now();
            until("the outcome", || {
                let waited = began.elapsed() > Duration::from_millis(600);
                (asking.is_finished() || (waited && in_work(address) == 1)).then_some(())
            });
            drop(held);
            asking.join().unwrap()
        });
        let again = post_as(&mut client(address), "/marketplace", "slow", &event("acme", "grant"));
        assert_eq!((again.status, again.header("x-idempotent-replay")), (200, Some("true")));
        stop(tai);
        assert_verified(&dir);
        response
    };
    let late = asked("150");
    assert_eq!((late.status, &late.json().unwrap()["reason"]), (504, &json!("timeout")));
    assert_eq!(asked("20000").status, 200);
}

pub(super) fn graceful_shutdown_ms() {
    for (deadline, patient) in [("200", false), ("20000", true)] {
        let (_room, dir) = room();
        let mut tai = start(&dir, &[("GRACEFUL_SHUTDOWN_MS", deadline)]);
        let mut half = Half::begin(tai.address(), None);
        tai.terminate().unwrap();
        if patient {
            // It still waits when the other one has ended.
            assert!(tai.wait(Duration::from_millis(800)).is_err());
            half.finish();
        }
        let status = tai.wait(PATIENCE).unwrap();
        assert_eq!(status.code(), Some(0));
        assert_eq!(half.status() == Some(200), patient);
    }
}

pub(super) fn max_concurrent_requests() {
    for (limit, status) in [("1", 503), ("2", 200)] {
        let (_room, dir) = room();
        let tai = start(&dir, &[("MAX_CONCURRENT_REQUESTS", limit)]);
        let mut half = Half::begin(tai.address(), None);
        let mut second = client(tai.address());
        let response = quote(&mut second, "other");
        assert_eq!(response.status, status, "{limit}");
        if status == 503 {
            assert_eq!(response.json().unwrap()["reason"], "service_unavailable");
            assert_eq!(response.header("retry-after"), Some("1"));
        }
        assert_eq!(get(&mut second, "/health").status, 200, "health is never limited");
        half.finish();
        assert_eq!(half.status(), Some(200));
        assert_eq!(quote(&mut second, "other").status, 200, "the place is free again");
        stop(tai);
    }
}

pub(super) fn max_connections() {
    for (limit, served) in [("2", false), ("3", true)] {
        let (_room, dir) = room();
        let tai = start(&dir, &[("MAX_CONNECTIONS", limit)]);
        let (mut first, mut second) = (client(tai.address()), client(tai.address()));
        for open in [&mut first, &mut second] {
            assert_eq!(get(open, "/health").status, 200);
        }
        let mut third = client(tai.address());
        third.set_timeout(Duration::from_millis(if served { 10_000 } else { 500 }));
        let answer = third.request("GET", "/health", &[], b"");
        assert_eq!(answer.is_ok_and(|response| response.status == 200), served, "{limit}");
        drop(first);
        let mut fourth = client(tai.address());
        assert_eq!(get(&mut fourth, "/health").status, 200, "a place is free again");
        stop(tai);
    }
}

pub(super) fn max_body_bytes() {
    for (limit, status) in [("1024", 413), ("2048", 200)] {
        let (_room, dir) = room();
        let tai = start(&dir, &[("MAX_BODY_BYTES", limit)]);
        let body = json!({"customer_id": "acme", "note": "x".repeat(1_500)});
        assert_eq!(post(&mut client(tai.address()), "/marketplace", &body).status, status);
        stop(tai);
    }
}

pub(super) fn receipt_ledger_backend() {
    for (backend, shown, durability, survives) in [
        ("memory", "memory", "volatile", false),
        ("ets", "memory", "volatile", false),
        ("sqlite", "sqlite", "durable", true),
    ] {
        let (_room, dir) = room();
        let envs = [("RECEIPT_LEDGER_BACKEND", backend)];
        let tai = start(&dir, &envs);
        let mut first = client(tai.address());
        let health = get(&mut first, "/health").json().unwrap();
        assert_eq!(
            (&health["backend"], &health["durability"]),
            (&json!(shown), &json!(durability))
        );
        let response = quote(&mut first, "acme");
        assert_eq!(response.header("x-durability"), Some(durability));
        let id = receipt_id(&response);
        assert_eq!(get(&mut first, &format!("/receipts/{id}")).status, 200);
        stop(tai);
        let tai = start(&dir, &envs);
        let status = get(&mut client(tai.address()), &format!("/receipts/{id}")).status;
        assert_eq!(status == 200, survives, "{backend}");
        assert_eq!(dir.join("ledger.db").exists(), survives, "{backend}");
        stop(tai);
    }
}

pub(super) fn ledger_dir() {
    let (room, _) = room();
    for name in ["one", "two/deep"] {
        let dir = room.path().join(name);
        let tai = start(&dir, &[]);
        assert_eq!(quote(&mut client(tai.address()), name.split('/').next().unwrap()).status, 200);
        stop(tai);
        let receipts = assert_verified(&dir);
        let tenants: Vec<_> = receipts.iter().filter_map(|it| it["tenant_id"].as_str()).collect();
        assert!(tenants.iter().all(|tenant| name.starts_with(tenant)), "{tenants:?}");
    }
}

pub(super) fn receipt_buffer_size() {
    testkit::needs_python!();
    // Those who wait for the committer come behind the open group, which takes 575 at most.
    const CALLERS: usize = 720;
    for (size, floods) in [("64", true), ("1000", false)] {
        let (_room, dir) = room();
        let tai = start(&dir, &[("RECEIPT_BUFFER_SIZE", size)]);
        let (address, ended) = (tai.address(), AtomicUsize::new(0));
        let held = HeldLock::take(&dir);
        let responses: Vec<Response> = thread::scope(|scope| {
            let ended = &ended;
            let call = move |name: usize| {
                let response = quote(&mut client(address), &format!("c-{name}"));
                ended.fetch_add(1, Ordering::AcqRel);
                response
            };
            // The first one is alone in the group that is being written.
            let mut callers = vec![scope.spawn(move || call(0))];
            until("the first is decided", || {
                (metric(address, "tai_streams_loaded") > 1).then_some(())
            });
            callers.extend((1..CALLERS).map(|name| scope.spawn(move || call(name))));
            until("all have asked", || {
                let waiting = in_work(address);
                (waiting + ended.load(Ordering::Acquire) >= CALLERS).then_some(())
            });
            drop(held);
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        });
        let refused: Vec<&Response> = responses.iter().filter(|it| it.status != 200).collect();
        for response in &refused {
            let body = response.json().unwrap();
            assert_eq!(
                (response.status, &body["detail"]),
                (503, &json!("too many decisions are waiting"))
            );
            assert_eq!(response.header("retry-after"), Some("1"));
        }
        assert_eq!(!refused.is_empty(), floods, "{size}: {}", refused.len());
        stop(tai);
        let decided = assert_verified(&dir).iter().filter(|it| it["action"] == "quote").count();
        assert_eq!(decided, CALLERS - refused.len());
    }
}

pub(super) fn receipt_writes() {
    testkit::needs_python!();
    // What is asked after a receipt was found altered, and before.
    for (writes, before, after) in [("auto", 200, 503), ("frozen", 503, 503), ("open", 200, 200)] {
        let (_room, dir) = room();
        let mut tai = start(&dir, &[("RECEIPT_WRITES", "auto")]);
        let mut asker = client(tai.address());
        let id = receipt_id(&quote(&mut asker, "acme"));
        let set = json!({"value": writes, "lease_s": 600});
        let set = asker.request(
            "PUT",
            "/admin/settings/RECEIPT_WRITES",
            &[JSON],
            set.to_string().as_bytes(),
        );
        assert_eq!(set.unwrap().status, 200);
        assert_eq!(quote(&mut asker, "other").status, before, "{writes}");
        let report = get(&mut asker, "/health").json().unwrap();
        assert_eq!(report["frozen"], writes == "frozen");
        assert_eq!(report["health"], if writes == "open" { "yellow" } else { "green" });
        let change = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=5)
db.execute(\"UPDATE receipts SET core = replace(core, '250000', '250001')\")
db.commit()";
        python(change, &[dir.join("ledger.db").to_str().unwrap()]);
        tai.expect_errors();
        assert_eq!(get(&mut asker, &format!("/receipts/{id}")).status, 503);
        assert_eq!(quote(&mut asker, "third").status, after, "{writes}");
        stop(tai);
    }
}

pub(super) fn receipt_verify_hashes() {
    testkit::needs_python!();
    for (flag, status, health) in [("true", 503, "red"), ("false", 200, "yellow")] {
        let (_room, dir) = room();
        let mut tai = start(&dir, &[("RECEIPT_VERIFY_HASHES", flag)]);
        let mut asker = client(tai.address());
        let id = receipt_id(&quote(&mut asker, "acme"));
        let change = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=5)
db.execute(\"UPDATE receipts SET core = replace(core, '250000', '250001')\")
db.commit()";
        python(change, &[dir.join("ledger.db").to_str().unwrap()]);
        let response = get(&mut asker, &format!("/receipts/{id}"));
        assert_eq!(response.status, status, "{flag}");
        let report = get(&mut asker, "/health").json().unwrap();
        assert_eq!(report["health"], health, "{flag}");
        let relaxed =
            report["relaxed"].as_array().unwrap().contains(&json!("RECEIPT_VERIFY_HASHES"));
        assert_eq!(relaxed, flag == "false");
        let gauge = "tai_safety_relaxed{setting=\"RECEIPT_VERIFY_HASHES\"}";
        assert_eq!(metric(tai.address(), gauge), i64::from(flag == "false"));
        tai.expect_errors();
        let complained =
            || tai.errors().iter().any(|line| line.contains("Hash verification failed"));
        if flag == "true" {
            until("the complaint", || complained().then_some(()));
        }
        assert_eq!(complained(), flag == "true");
    }
}

pub(super) fn erl_max_ets_tables() {
    for (limit, range) in [("100", 1..=100), ("100000", 301..=100_000)] {
        let (_room, dir) = room();
        let tai = start(&dir, &[("ERL_MAX_ETS_TABLES", limit)]);
        let mut asker = client(tai.address());
        for name in 0..301 {
            assert_eq!(quote(&mut asker, &format!("c-{name}")).status, 200);
        }
        let loaded = metric(tai.address(), "tai_streams_loaded");
        assert!(range.contains(&loaded), "{limit}: {loaded}");
        assert_eq!(quote(&mut asker, "c-0").status, 200, "one that went is loaded again");
        stop(tai);
        assert_verified(&dir);
    }
}

pub(super) fn sqlite_synchronous() {
    for (mode, durability, health) in [("full", "durable", "green"), ("off", "volatile", "yellow")]
    {
        let (_room, dir) = room();
        let tai = start(&dir, &[("SQLITE_SYNCHRONOUS", mode)]);
        let mut asker = client(tai.address());
        assert_eq!(quote(&mut asker, "acme").header("x-durability"), Some(durability));
        assert_eq!(get(&mut asker, "/health").json().unwrap()["health"], health);
        stop(tai);
    }
}

pub(super) fn action_pool_size() {
    testkit::needs_python!();
    assert_eq!(turned_away_by("1", "1"), 6);
    assert_eq!(turned_away_by("3", "1"), 4);
}

pub(super) fn action_queue_size() {
    testkit::needs_python!();
    assert_eq!(turned_away_by("1", "2"), 5);
    assert_eq!(turned_away_by("1", "5"), 2);
}

fn turned_away_by(pool: &str, queue: &str) -> usize {
    let (_room, dir) = room();
    let tai = start(&dir, &[("ACTION_POOL_SIZE", pool), ("ACTION_QUEUE_SIZE", queue)]);
    let places = pool.parse::<usize>().unwrap() + queue.parse::<usize>().unwrap();
    let turned = turned_away(&tai, &dir, places);
    stop(tai);
    turned
}

/// Of eight signals that come while nothing can be decided, how many find no place for the action
/// that they may need: each holds one from before its decision. There should be so many `places`.
pub(crate) fn turned_away(tai: &Tai, dir: &Path, places: usize) -> usize {
    const SIGNALS: usize = 8;
    let (address, ended) = (tai.address(), AtomicUsize::new(0));
    let new = &new_key()[..8];
    for name in 0..SIGNALS {
        let granted = event(&format!("t-{new}-{name}"), "grant");
        assert_eq!(post(&mut client(address), "/marketplace", &granted).status, 200);
    }
    let logged = || {
        let lines = tai.log_lines();
        lines.iter().filter(|line| line.contains("action_queue_depth = ")).count()
    };
    let (now_ms, logged_before) = (unix_secs() * 1000, logged());
    let held = HeldLock::take(dir);
    let responses: Vec<Response> = thread::scope(|scope| {
        let senders: Vec<_> = (0..SIGNALS)
            .map(|name| {
                let ended = &ended;
                scope.spawn(move || {
                    let data = json!({
                        "tenant_id": format!("t-{new}-{name}"), "metric": "cpu", "value": 50,
                        "timestamp_ms": now_ms,
                    });
                    let body = push(&format!("m-{new}-{name}"), &data);
                    let response = post(&mut client(address), "/pubsub", &body);
                    ended.fetch_add(1, Ordering::AcqRel);
                    response
                })
            })
            .collect();
        // The others hold their places until the lock is let go.
        until("those without a place are told", || {
            (ended.load(Ordering::Acquire) >= SIGNALS - places).then_some(())
        });
        drop(held);
        senders.into_iter().map(|sender| sender.join().unwrap()).collect()
    });
    let refused: Vec<&Response> = responses.iter().filter(|it| it.status != 200).collect();
    for response in &refused {
        assert_eq!(response.status, 429);
        assert_eq!(response.json().unwrap()["reason"], "action_queue_full");
    }
    until("a line for each", || (logged() == logged_before + refused.len()).then_some(()));
    refused.len()
}

pub(super) fn governor_state_check_interval_ms() {
    let services = ["20", "60000"].map(|interval| {
        let (room, dir) = room();
        let tai = start(&dir, &[("GOVERNOR_STATE_CHECK_INTERVAL_MS", interval)]);
        let mut grant = event("acme", "grant");
        grant["expires_at"] = (unix_secs() + 2).into();
        assert_eq!(post(&mut client(tai.address()), "/marketplace", &grant).status, 200);
        (room, tai)
    });
    let lapses = |tai: &Tai| {
        let page = get(&mut client(tai.address()), "/receipts?tenant_id=acme&action=lapse");
        page.json().unwrap()["receipts"].as_array().unwrap().len()
    };
    let [(_one, often), (_two, seldom)] = services;
    until("the lapse", || (lapses(&often) == 1).then_some(()));
    // Its grant is as old, and nobody has looked.
    until("the same second", || (unix_secs() > begun_secs(&seldom) + 3).then_some(()));
    assert_eq!(lapses(&seldom), 0);
    stop(often);
    stop(seldom);
}

/// When the grant of the other service was decided.
fn begun_secs(tai: &Tai) -> i64 {
    let page = get(&mut client(tai.address()), "/receipts?tenant_id=acme&action=grant");
    let receipts: Value = page.json().unwrap();
    receipts["receipts"][0]["timestamp"].as_i64().unwrap()
}

pub(super) fn catalogue_file() {
    let shipped = testkit::place::repository().join("crates/governors/catalogue.toml");
    let text = fs::read_to_string(shipped).unwrap();
    for price in [250_000, 123_456] {
        let (room, dir) = room();
        let file = room.path().join("catalogue.toml");
        fs::write(&file, text.replace("250000", &price.to_string())).unwrap();
        let tai = start(&dir, &[("CATALOGUE_FILE", file.to_str().unwrap())]);
        let body = quote(&mut client(tai.address()), "acme").json().unwrap();
        assert_eq!(body["price"]["amount"], price);
        stop(tai);
    }
}

pub(super) fn log_level() {
    let lines = |level: &str| {
        let (room, dir) = room();
        let stdout = room.path().join("stdout");
        Quiet::start(&dir, &[("LOG_LEVEL", level)], &stdout).stop();
        fs::read_to_string(stdout).unwrap()
    };
    let (info, warn, error) = (lines("info"), lines("warn"), lines("error"));
    assert!(info.contains("\"level\":\"INFO\"") && info.contains("\"level\":\"WARN\""), "{info}");
    assert!(!warn.contains("\"level\":\"INFO\"") && warn.contains("\"level\":\"WARN\""), "{warn}");
    assert_eq!(error, "");
}

pub(super) fn log_file() {
    let (room, dir) = room();
    let (stdout, file) = (room.path().join("stdout"), room.path().join("logs/tai.log"));
    Quiet::start(&dir, &[], &stdout).stop();
    assert!(fs::read_to_string(&stdout).unwrap().contains("Shutdown complete"));
    assert!(!file.exists());
    Quiet::start(&dir, &[("LOG_FILE", file.to_str().unwrap())], &stdout).stop();
    assert_eq!(fs::read_to_string(&stdout).unwrap(), "");
    assert!(fs::read_to_string(&file).unwrap().contains("Shutdown complete"));
}

pub(super) fn status_page_dir() {
    let (room, dir) = room();
    let shown = room.path().join("www/status");
    let [page, summary] = ["index.html", "summary.json"].map(|name| shown.join(name));
    stop(start(&dir, &[]));
    assert!(!shown.exists());
    let tai = start(&dir, &[("STATUS_PAGE_DIR", shown.to_str().unwrap())]);
    let copy = || fs::read_to_string(&page).ok().filter(|_| summary.exists());
    let quiet = until("a copy", copy);
    assert!(quiet.contains("All Systems Operational"), "{quiet}");
    let declared = json!({"title": "down", "severity": "sev1", "component": "ledger"});
    assert_eq!(post(&mut client(tai.address()), "/admin/incidents", &declared).status, 200);
    until("the copy follows", || copy().filter(|text| text.contains("Major Service Outage")));
    stop(tai);
    // It outlives the service, and nothing else is left beside it.
    assert!(copy().is_some());
    assert_eq!(fs::read_dir(&shown).unwrap().count(), 2);
}

pub(super) fn metrics_enabled() {
    for (flag, status) in [("true", 200), ("false", 404)] {
        let (_room, dir) = room();
        let tai = start(&dir, &[("METRICS_ENABLED", flag)]);
        let response = get(&mut client(tai.address()), "/metrics");
        assert_eq!(response.status, status);
        stop(tai);
    }
}
