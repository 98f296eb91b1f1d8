//! A database that goes away under load, and comes back.
//!
//! Owns: what is answered meanwhile, that everything acknowledged is in the ledger afterwards as it
//! was, and that nothing is decided on what is too old. Refuses to know: where a spool keeps it.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::http::Response;
use testkit::postgres::Cluster;
use testkit::tai::Tai;

use crate::callers::*;
use crate::support::*;

const TENANTS: usize = 6;
/// A way back that takes its time.
const SLOW: (&str, &str) = ("RECOVERY_STAGE_MS", "1500");
/// Prices that are asked for while the database is away, at the least.
const SOME: usize = 60;

/// A database server of the test's own, which it may kill, and a folder.
pub(crate) struct Ground {
    pub(crate) cluster: Cluster,
    url: String,
    pub(crate) room: TempDir,
}

impl Ground {
    /// `None` where PostgreSQL is not installed.
    pub(crate) fn new() -> Option<Ground> {
        let cluster = Cluster::start().unwrap()?;
        let url = cluster.url(&cluster.database().unwrap());
        Some(Ground { cluster, url, room: tempfile::tempdir().unwrap() })
    }

    fn dir(&self) -> PathBuf {
        self.room.path().join("tai")
    }

    fn envs<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let own = [("RECEIPT_LEDGER_BACKEND", "postgres"), ("DATABASE_URL", self.url.as_str())];
        [&own, more].concat()
    }

    /// An instance that meets errors.
    pub(crate) fn start(&self, more: &[(&str, &str)]) -> Tai {
        let quick = [("RECOVERY_STAGE_MS", "100")];
        let mut tai = start(&self.dir(), &self.envs(&[&quick, more].concat()));
        tai.expect_errors();
        tai
    }

    pub(crate) fn spool(&self) -> String {
        self.room.path().join("spool").to_str().unwrap().to_owned()
    }

    pub(crate) fn verified(&self) -> Vec<Value> {
        assert_verified_by(&|args| {
            command(&self.dir(), args).envs(self.envs(&[])).output().unwrap().into()
        })
    }
}

fn tenant(nth: usize) -> String {
    format!("acme-{nth}")
}

fn grant_all(address: SocketAddr) {
    for nth in 0..TENANTS {
        let granted = post(&mut client(address), "/marketplace", &event(&tenant(nth), "grant"));
        assert_eq!(granted.status, 200, "{}", text(&granted));
        assert_eq!(granted.header("x-durability"), Some("durable"));
    }
}

fn health(address: SocketAddr) -> Value {
    get(&mut client(address), "/health").json().unwrap()
}

/// Waits until the service says so of its store.
pub(crate) fn until_stage(address: SocketAddr, stage: &str) {
    until(&format!("the store is {stage}"), || {
        (health(address)["store_stage"] == stage).then_some(())
    });
}

/// The stages that the log names, each with its time in milliseconds.
fn stages(tai: &Tai) -> Vec<(String, i64)> {
    let lines = tai.log_lines();
    let lines = lines.iter().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines
        .filter(|line| line["event"] == "store_stage")
        .map(|line| (line["stage"].as_str().unwrap().to_owned(), millis(&line)))
        .collect()
}

fn millis(line: &Value) -> i64 {
    let at = line["timestamp"].as_str().unwrap();
    types::Micros::from_text(at.as_bytes()).unwrap().0 / 1_000
}

fn signal(message: &str, tenant: &str, value: u64) -> Value {
    let data = json!({
        "tenant_id": tenant, "metric": "cpu", "value": value, "timestamp_ms": unix_secs() * 1000,
    });
    push(message, &data)
}

/// Prices that were acknowledged: the receipt by its id, byte for byte as JSON.
type Prices = BTreeMap<String, Value>;

fn price(response: &Response) -> (String, Value) {
    (receipt_id(response), response.json().unwrap()["receipt"].clone())
}

/// Keeps a price that was acknowledged, and counts it if it says that it waits here.
fn keep(response: &Response, prices: &mut Prices, local: &AtomicUsize) {
    if response.status != 200 {
        assert!(matches!(response.status, 503 | 504), "{}", text(response));
        return;
    }
    prices.extend([price(response)]);
    if response.header("x-durability") == Some("local") {
        assert_eq!(response.json().unwrap()["price"]["source"], "cache");
        local.fetch_add(1, Ordering::AcqRel);
    }
}

/// Asks for prices until told to end.
fn ask_prices(address: SocketAddr, nth: usize, end: &AtomicBool, local: &AtomicUsize) -> Prices {
    let mut prices = Prices::new();
    let mut caller = Caller::local(address);
    while !end.load(Ordering::Acquire) {
        keep(&caller.quote(&tenant(nth % TENANTS)), &mut prices, local);
    }
    prices
}

/// Asks for prices until nobody answers any more.
fn ask_to_the_end(address: SocketAddr, nth: usize, local: &AtomicUsize) -> Prices {
    let mut prices = Prices::new();
    let mut client = client(address);
    let customer = json!({"customer_id": tenant(nth % TENANTS)}).to_string();
    let json = [("Content-Type", "application/json")];
    while let Ok(response) = client.request("POST", "/marketplace", &json, customer.as_bytes()) {
        keep(&response, &mut prices, local);
    }
    prices
}

fn assert_kept(receipts: &[Value], prices: &Prices) {
    let kept: BTreeMap<&str, &Value> =
        receipts.iter().map(|receipt| (receipt["id"].as_str().unwrap(), receipt)).collect();
    for (id, receipt) in prices {
        assert_eq!(kept.get(id.as_str()), Some(&receipt), "{id}");
    }
}

/// What an instance does while `away` keeps the database away, and after `back`.
fn rides_out(ground: &Ground, away: fn(&Cluster), back: fn(&Cluster)) {
    let spool = ground.spool();
    let tai = ground.start(&[("SPOOL_DIR", &spool)]);
    let address = tai.address();
    grant_all(address);
    let (end, local) = (AtomicBool::new(false), AtomicUsize::new(0));
    let prices: Prices = thread::scope(|scope| {
        let clients: Vec<_> = (0..2 * TENANTS)
            .map(|nth| {
                scope.spawn({
                    let (end, local) = (&end, &local);
                    move || ask_prices(address, nth, end, local)
                })
            })
            .collect();
        away(&ground.cluster);
        until_stage(address, "away");
        until("prices wait here", || (local.load(Ordering::Acquire) > SOME).then_some(()));
        let shown = health(address);
        assert_eq!((&shown["health"], &shown["db"]), (&"yellow".into(), &"disconnected".into()));
        assert!(shown["spooled"].as_u64() > Some(0), "{shown}");
        back(&ground.cluster);
        until_stage(address, "up");
        end.store(true, Ordering::Release);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    let shown = health(address);
    assert_eq!((&shown["health"], &shown["spooled"]), (&"green".into(), &0.into()), "{shown}");
    assert_eq!(metric(address, "tai_store_stage"), 4);
    assert!(tai.log_lines().iter().any(|line| line.contains("Flushed ")), "as seed 002 greps for");
    let flushed = metric(address, "tai_receipts_flushed_total");
    assert!(flushed as usize > SOME, "{flushed}");
    // What was told on it is waited for, also when the store is back.
    until("nothing is left of the spool", || {
        let mut listed = std::fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap().file_name());
        let is_left = |name: &std::ffi::OsString| {
            let name = name.to_str().unwrap();
            !name.starts_with("signals-") && name != "lock"
        };
        (!listed.any(|name| is_left(&name))).then_some(())
    });
    stop(tai);
    let receipts = ground.verified();
    assert_kept(&receipts, &prices);
    let lanes = receipts.iter().filter(|receipt| receipt["stream"].as_str().unwrap().contains('~'));
    assert!(lanes.count() > SOME);
}

#[test]
fn a_database_that_refuses_is_stood_in_for() {
    let Some(ground) = Ground::new() else { testkit::skip!("PostgreSQL is not installed") };
    rides_out(&ground, Cluster::kill, |cluster| cluster.restart().unwrap());
}

#[test]
fn a_database_that_hangs_is_stood_in_for() {
    let Some(ground) = Ground::new() else { testkit::skip!("PostgreSQL is not installed") };
    rides_out(&ground, Cluster::freeze, Cluster::thaw);
}

#[test]
fn what_waits_here_survives_the_process() {
    let Some(ground) = Ground::new() else { testkit::skip!("PostgreSQL is not installed") };
    let spool = ground.spool();
    let envs = [("SPOOL_DIR", spool.as_str())];
    let mut tai = ground.start(&envs);
    grant_all(tai.address());
    ground.cluster.kill();
    let mut caller = Caller::local(tai.address());
    let mut prices = Prices::new();
    let address = tai.address();
    let ask = |key: &str| {
        until("a price", || {
            let mut keyed = Caller::local(address).with("Idempotency-Key", key);
            let response = keyed.quote(&tenant(0));
            (response.header("x-durability") == Some("local")).then_some(response)
        })
    };
    let first = ask("k-1");
    prices.extend([price(&first)]);
    assert_eq!(receipt_id(&ask("k-1")), receipt_id(&first), "the same key");
    prices.extend([price(&ask("k-2"))]);
    // It is found where it waits, and what is not here is not.
    let found = caller.get(&format!("/receipts/{}", receipt_id(&first)));
    assert_eq!(found.json().unwrap(), first.json().unwrap()["receipt"]);
    // Plans, charges and keys need the ledger; signals need none yet.
    let refused = caller.post("/marketplace", &event(&tenant(1), "suspend"));
    assert_refused(&refused, 503, "firestore_error");
    assert_eq!(refused.header("retry-after"), Some("10"));
    let charged = json!({"customer_id": tenant(0), "stripe_token": "tok_visa"});
    assert_refused(&caller.post("/marketplace", &charged), 503, "firestore_error");
    assert_refused(&caller.quote("nobody-knows-me"), 503, "governor_not_ready");
    for turn in 0..2 {
        for message in 0..5 {
            let sent = signal(&format!("m-{message}"), &tenant(2), 10 + message);
            let queued = caller.post("/pubsub", &sent);
            assert_eq!(queued.status, 202, "{turn}: {}", text(&queued));
            assert_eq!(queued.json().unwrap()["status"], "queued");
        }
    }
    // The runbook for a database that is away can run.
    let set = caller
        .put("/admin/settings/RATE_LIMIT_PER_SECOND", &json!({"value": "77", "lease_s": 600}));
    assert_eq!(set.status, 200, "{}", text(&set));
    let shown = |caller: &mut Caller| {
        let settings = caller.get("/admin/settings").json().unwrap();
        let rows = settings["settings"].as_array().unwrap().clone();
        rows.into_iter().find(|row| row["name"] == "RATE_LIMIT_PER_SECOND").unwrap()["value"]
            .clone()
    };
    assert_eq!(shown(&mut caller), "77");
    tai.kill().unwrap();
    // Without its database it does not start, and says why.
    let refused = command(&ground.dir(), &["serve"])
        .env("PORT", "0")
        .envs(ground.envs(&envs))
        .output()
        .unwrap();
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("DATABASE_URL"));
    ground.cluster.restart().unwrap();
    let tai = ground.start(&envs);
    let address = tai.address();
    tai.wait_for_event("spool_flushed", Duration::from_secs(30)).unwrap();
    until("all signals are decided", || (metric(address, "tai_signals_queued") == 0).then_some(()));
    let mut caller = Caller::local(address);
    until("the setting holds again", || (shown(&mut caller) == "77").then_some(()));
    let again = Caller::local(address).with("Idempotency-Key", "k-1").quote(&tenant(0));
    assert_eq!(price(&again), price(&first), "the key is known in the ledger");
    stop(tai);
    let receipts = ground.verified();
    assert_kept(&receipts, &prices);
    let of_signals = receipts.iter().filter(|receipt| {
        receipt["tenant_id"] == tenant(2).as_str() && receipt["idem"].is_string()
    });
    assert_eq!(of_signals.count(), 5, "each of them once");
}

#[test]
fn a_kill_under_load_while_the_database_is_away_loses_nothing() {
    let Some(ground) = Ground::new() else { testkit::skip!("PostgreSQL is not installed") };
    let spool = ground.spool();
    let envs = [("SPOOL_DIR", spool.as_str())];
    let mut tai = ground.start(&envs);
    let address = tai.address();
    grant_all(address);
    let local = AtomicUsize::new(0);
    let prices: Prices = thread::scope(|scope| {
        let clients: Vec<_> = (0..2 * TENANTS)
            .map(|nth| {
                scope.spawn({
                    let local = &local;
                    move || ask_to_the_end(address, nth, local)
                })
            })
            .collect();
        ground.cluster.kill();
        until("prices wait here", || (local.load(Ordering::Acquire) > SOME).then_some(()));
        tai.kill().unwrap();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    ground.cluster.restart().unwrap();
    let tai = ground.start(&envs);
    tai.wait_for_event("spool_flushed", Duration::from_secs(30)).unwrap();
    stop(tai);
    assert_kept(&ground.verified(), &prices);
}

#[test]
fn without_a_disk_prices_wait_in_memory_and_signals_nowhere() {
    let Some(ground) = Ground::new() else { testkit::skip!("PostgreSQL is not installed") };
    let tai = ground.start(&[]);
    let address = tai.address();
    grant_all(address);
    ground.cluster.kill();
    until_stage(address, "away");
    let mut caller = Caller::local(address);
    let priced = caller.quote(&tenant(0));
    assert_eq!((priced.status, priced.header("x-durability")), (200, Some("volatile")));
    assert_refused(&caller.post("/pubsub", &signal("m-1", &tenant(0), 10)), 503, "firestore_error");
    ground.cluster.restart().unwrap();
    until_stage(address, "up");
    assert_eq!(caller.get(&format!("/receipts/{}", receipt_id(&priced))).status, 200);
    // In the tenant's history it stands in its place, before what came after it.
    let later = receipt_id(&caller.quote(&tenant(0)));
    let history = caller.receipts(&format!("tenant_id={}&limit=2", tenant(0)));
    let ids: Vec<_> = history.iter().map(|receipt| receipt["id"].as_str().unwrap()).collect();
    assert_eq!(ids, [later, receipt_id(&priced)]);
    stop(tai);
    assert_kept(&ground.verified(), &Prices::from([price(&priced)]));
}

#[test]
fn nothing_is_decided_on_what_is_too_old_or_beyond_the_room_there_is() {
    let Some(ground) = Ground::new() else { testkit::skip!("PostgreSQL is not installed") };
    let start = |name: &str, more: &[(&str, &str)]| {
        let mut tai = start(&ground.room.path().join(name), &ground.envs(more));
        tai.expect_errors();
        tai
    };
    let old = start("old", &[("MAX_STATE_AGE_S", "1"), ("RECOVERY_STAGE_MS", "0")]);
    let small = [("MAX_STATE_AGE_S", "3600"), ("SPOOL_MAX_RECEIPTS", "2"), SLOW];
    let small = start("small", &small);
    let off = start("off", &[("RECEIPT_SPOOL", "off")]);
    let all = [&old, &small, &off].map(Tai::address);
    grant_all(all[0]);
    let first: Vec<_> = all.map(|address| Caller::local(address).quote(&tenant(0)).status).to_vec();
    assert_eq!(first, [200; 3]);
    ground.cluster.kill();
    all.iter().for_each(|address| until_stage(*address, "away"));
    let mut callers = all.map(Caller::local);
    until("what is known is too old", || {
        (callers[0].quote(&tenant(0)).status == 503).then_some(())
    });
    assert_refused(&callers[0].quote(&tenant(0)), 503, "governor_not_ready");
    let of_small: Vec<_> = (0..3).map(|_| callers[1].quote(&tenant(0)).status).collect();
    assert_eq!(of_small, [200, 200, 503]);
    assert_refused(&callers[1].quote(&tenant(0)), 503, "firestore_error");
    assert_refused(&callers[2].quote(&tenant(0)), 503, "firestore_error");
    assert_eq!(health(all[2])["health"], "red", "nothing stands in");
    ground.cluster.restart().unwrap();
    all.iter().for_each(|address| until_stage(*address, "up"));
    let took_ms = |tai: &Tai| {
        let at = |stage: &str| stages(tai).into_iter().find(|(to, _)| to == stage).unwrap().1;
        at("up") - at("reads")
    };
    // Three stages, each for its time.
    assert!(took_ms(&small) >= 3 * 1_500, "{}", took_ms(&small));
    assert!(took_ms(&old) < took_ms(&small));
    [old, small, off].into_iter().for_each(stop);
    ground.verified();
}

#[test]
fn an_operator_takes_the_database_out_and_brings_it_back() {
    let Some(ground) = Ground::new() else { testkit::skip!("PostgreSQL is not installed") };
    let spool = ground.spool();
    // Longer than it takes until what is changed live is read again.
    let tai = ground.start(&[("SPOOL_DIR", &spool), ("RECOVERY_STAGE_MS", "1200")]);
    let address = tai.address();
    let mut other = start(&ground.room.path().join("other"), &ground.envs(&[]));
    other.expect_errors();
    grant_all(address);
    // Each on a connection of its own: one that idles is closed.
    let put = |value: &str| {
        let set =
            Caller::local(address).put("/admin/settings/RECEIPT_SPOOL", &json!({"value": value}));
        assert_eq!(set.status, 200, "{}", text(&set));
    };
    put("forced");
    until_stage(address, "away");
    // The other instance goes and comes back with it, and the directory is this one's alone.
    until_stage(other.address(), "away");
    let refused = command(&ground.room.path().join("third"), &["serve"])
        .env("PORT", "0")
        .envs(ground.envs(&[("SPOOL_DIR", &spool)]))
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("SPOOL_DIR: another instance"));
    assert_eq!(health(address)["durability"], "local");
    let waiting = Caller::local(address).quote(&tenant(0));
    assert_eq!((waiting.status, waiting.header("x-durability")), (200, Some("local")));
    put("auto");
    until_stage(address, "up");
    until_stage(other.address(), "up");
    stop(other);
    let stages: Vec<String> = stages(&tai).into_iter().map(|(stage, _)| stage).collect();
    assert_eq!(stages, ["away", "reads", "writes", "signals", "up"]);
    let durable = Caller::local(address).quote(&tenant(0));
    assert_eq!(durable.header("x-durability"), Some("durable"));
    stop(tai);
    assert_kept(&ground.verified(), &Prices::from([price(&waiting)]));
    // Changes of settings that were made in a lane are no obstacle to a copy.
    let copy = ground.room.path().join("copy");
    let copied: Said = command(&ground.dir(), &["ledger", "backup", copy.to_str().unwrap()])
        .envs(ground.envs(&[]))
        .output()
        .unwrap()
        .into();
    assert_eq!(copied.code, Some(0), "{}{}", copied.out, copied.err);
}

#[test]
fn a_database_that_hangs_under_reads_is_noticed_and_tenants_keys_go_on() {
    let Some(ground) = Ground::new() else { testkit::skip!("PostgreSQL is not installed") };
    let (spool, admin) = (ground.spool(), new_key());
    let envs = [("SPOOL_DIR", spool.as_str()), ("RECOVERY_STAGE_MS", "100")];
    let mut tai = start_guarded(&ground.dir(), &admin, &ground.envs(&envs));
    tai.expect_errors();
    let address = tai.address();
    let mut operator = Caller::keyed(address, &admin);
    let granted = operator.post("/marketplace", &event(&tenant(0), "grant"));
    let receipt = receipt_id(&granted);
    let order = json!({"tenant_id": tenant(0), "scopes": ["marketplace:write", "receipts:read"]});
    let key = issue(&mut operator, &order);
    let mut caller = key.caller(address);
    assert_eq!(caller.quote(&tenant(0)).header("x-durability"), Some("durable"));
    let end = AtomicBool::new(false);
    thread::scope(|scope| {
        let readers: Vec<_> = (0..40)
            .map(|_| {
                let (end, path, admin) = (&end, format!("/receipts/{receipt}"), &admin);
                scope.spawn(move || {
                    let mut reader = Caller::keyed(address, admin);
                    while !end.load(Ordering::Acquire) {
                        let status = reader.get(&path).status;
                        assert!(matches!(status, 200 | 503 | 504), "{status}");
                    }
                })
            })
            .collect();
        ground.cluster.freeze();
        until_stage(address, "away");
        // What is known of a key holds for a while.
        let priced = caller.quote(&tenant(0));
        assert_eq!(priced.header("x-durability"), Some("local"), "{}", text(&priced));
        end.store(true, Ordering::Release);
        readers.into_iter().for_each(|reader| reader.join().unwrap());
        ground.cluster.thaw();
    });
    until_stage(address, "up");
    stop(tai);
    ground.verified();
}

#[test]
fn a_damaged_spool_is_set_aside_and_holds_nobody_up() {
    testkit::needs_python!();
    let Some(ground) = Ground::new() else { testkit::skip!("PostgreSQL is not installed") };
    let spool = ground.spool();
    let envs = [("SPOOL_DIR", spool.as_str())];
    let mut tai = ground.start(&envs);
    grant_all(tai.address());
    ground.cluster.kill();
    until_stage(tai.address(), "away");
    let mut caller = Caller::local(tai.address());
    // The newest one would be found altered when it is opened.
    for _ in 0..3 {
        assert_eq!(caller.quote(&tenant(0)).header("x-durability"), Some("local"));
    }
    assert_eq!(caller.post("/pubsub", &signal("m-1", &tenant(1), 10)).status, 202);
    tai.kill().unwrap();
    let lane = std::fs::read_dir(&spool).unwrap().map(|entry| entry.unwrap().path());
    let lane = lane.into_iter().find(|path| path.is_dir()).unwrap();
    let change = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1], timeout=5)
db.execute(\"UPDATE receipts SET hash = zeroblob(32) WHERE pos = 1\")
assert db.total_changes == 1
db.commit()";
    python(change, &[lane.join("ledger.db").to_str().unwrap()]);
    ground.cluster.restart().unwrap();
    let tai = ground.start(&envs);
    tai.wait_for_event("spool_set_aside", Duration::from_secs(30)).unwrap();
    let mut caller = Caller::local(tai.address());
    until("the signal is decided", || {
        let found = caller.receipts(&format!("tenant_id={}", tenant(1)));
        found.iter().any(|receipt| receipt["idem"].is_string()).then_some(())
    });
    let shown = health(tai.address());
    assert_eq!((&shown["health"], &shown["spools_held_back"]), (&"yellow".into(), &1.into()));
    assert!(lane.with_extension("set-aside").exists(), "it is kept");
    stop(tai);
    ground.verified();
}
