//! Several instances on one PostgreSQL server, or on one Firestore.
//!
//! Owns: that it does not matter which of them is asked, that one which dies, hangs or has a wrong
//! clock loses and doubles nothing, and that what is changed on one holds on all. Refuses to know:
//! tables, which the store's own tests look at.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use testkit::clockshift::{self, SHIFT};
use testkit::firestore::Emulator;
use testkit::postgres::Cluster;
use testkit::tai::Tai;

use crate::callers::*;
use crate::kills::{Acknowledged, Whereabouts, ask_again, ask_away, assert_among, assert_settled};
use crate::support::*;

const CLIENTS: u64 = 24;
/// The instance with the clock that is ahead is the second to start.
const EARLY: usize = 1;
/// What is changed on one instance holds on the others.
const EVERYWHERE: Duration = Duration::from_secs(2);

/// A ledger of the test's own that instances share, and folders for them.
struct Shared {
    server: Server,
    room: TempDir,
    own: Vec<(&'static str, String)>,
}

enum Server {
    /// With the name of the database.
    Postgres(Arc<Cluster>, String),
    Firestore(#[expect(dead_code, reason = "held for its drop")] Emulator),
}

impl Shared {
    /// `None` where PostgreSQL is not installed.
    fn on_postgres() -> Option<Shared> {
        let cluster = Cluster::shared().unwrap()?;
        let database = cluster.database().unwrap();
        let url = cluster.url(&database);
        let own = vec![("RECEIPT_LEDGER_BACKEND", "postgres".to_owned()), ("DATABASE_URL", url)];
        let server = Server::Postgres(cluster, database);
        Some(Shared { server, room: tempfile::tempdir().unwrap(), own })
    }

    /// `None` where the emulator is not installed.
    fn on_firestore() -> Option<Shared> {
        let emulator = Emulator::start().unwrap()?;
        let own = vec![
            ("RECEIPT_LEDGER_BACKEND", "firestore".to_owned()),
            ("GCP_PROJECT_ID", "instances".to_owned()),
            ("PUBSUB_ENABLED", "false".to_owned()),
            ("FIRESTORE_EMULATOR_HOST", emulator.address().to_string()),
        ];
        let server = Server::Firestore(emulator);
        Some(Shared { server, room: tempfile::tempdir().unwrap(), own })
    }

    fn envs<'a>(&'a self, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
        let own: Vec<_> = self.own.iter().map(|(name, value)| (*name, value.as_str())).collect();
        [&own, more].concat()
    }

    fn dir(&self, name: &str) -> PathBuf {
        self.room.path().join(name)
    }

    fn start(&self, name: &str, more: &[(&str, &str)]) -> Tai {
        start(&self.dir(name), &self.envs(more))
    }

    /// An instance whose wall clock is `shift_s` off.
    fn start_off(&self, name: &str, shift_s: &str, more: &[(&str, &str)]) -> Tai {
        let shim = clockshift::build().unwrap();
        let mut builder = Tai::builder(bin(), &self.dir(name)).preload(&shim).env(SHIFT, shift_s);
        for (variable, value) in self.envs(more) {
            builder = builder.env(variable, value);
        }
        builder.start().unwrap()
    }

    /// Whether the others take the instance for gone that was the `nth` to start, from 0.
    fn is_taken_for_gone(&self, nth: usize) -> bool {
        let Server::Postgres(cluster, database) = &self.server else { panic!("not on PostgreSQL") };
        let lease = format!(
            "SELECT lease_until <= clock_timestamp() FROM logs ORDER BY no OFFSET {nth} LIMIT 1"
        );
        cluster.sql(database, &lease).unwrap() == "t"
    }

    fn tai(&self, args: &[&str]) -> Said {
        command(&self.dir("verbs"), args).envs(self.envs(&[])).output().unwrap().into()
    }
}

fn send(tai: &Tai, signal: Signal) {
    let pid = Pid::from_raw(tai.pid().cast_signed()).unwrap();
    kill_process(pid, signal).unwrap();
}

fn addresses(instances: &[&Tai]) -> Vec<SocketAddr> {
    instances.iter().map(|tai| tai.address()).collect()
}

#[test]
fn an_instance_that_dies_or_hangs_or_has_a_wrong_clock_loses_and_doubles_nothing() {
    let Some(shared) = Shared::on_postgres() else {
        testkit::skip!("PostgreSQL is not installed");
    };
    let often = [("GOVERNOR_STATE_CHECK_INTERVAL_MS", "200")];
    let mut first = shared.start("first", &often);
    let mut early = shared.start_off("early", "3600", &often);
    let late = shared.start_off("late", "-3600", &often);
    // It finds its connections gone when it comes back.
    early.expect_errors();
    let whereabouts = Whereabouts::default();
    whereabouts.set(addresses(&[&first, &early, &late]));
    let acknowledged: Acknowledged = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|name| {
                let whereabouts = &whereabouts;
                scope.spawn(move || ask_away(whereabouts, name, 7_000 + name, "shared"))
            })
            .collect();
        whereabouts.after_more(300);
        first.kill().unwrap();
        whereabouts.set(addresses(&[&early, &late]));
        whereabouts.after_more(100);
        first = shared.start("first", &often);
        whereabouts.set(addresses(&[&first, &early, &late]));
        whereabouts.after_more(100);
        assert!(!shared.is_taken_for_gone(EARLY));
        send(&early, Signal::STOP);
        until("its lease runs out", || shared.is_taken_for_gone(EARLY).then_some(()));
        whereabouts.after_more(100);
        send(&early, Signal::CONT);
        until("it is back", || (!shared.is_taken_for_gone(EARLY)).then_some(()));
        whereabouts.after_more(100);
        whereabouts.end();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert!(acknowledged.len() > 500, "hardly a load: {}", acknowledged.len());
    println!("{} requests acknowledged by three instances", acknowledged.len());
    for tai in [&first, &early, &late] {
        ask_again(tai.address(), &acknowledged);
    }
    until("the last actions are settled", || {
        let page = get(&mut client(late.address()), "/metrics").body;
        let page = String::from_utf8(page).unwrap();
        page.lines().any(|line| line == "tai_actions_unsettled 0").then_some(())
    });
    for tai in [first, early, late] {
        stop(tai);
    }
    let receipts = assert_verified_by(&|args| shared.tai(args));
    assert_among(&receipts, &acknowledged);
    assert_settled(&receipts);
}

#[test]
fn what_is_changed_on_one_instance_holds_on_all() {
    let Some(shared) = Shared::on_postgres() else {
        testkit::skip!("PostgreSQL is not installed");
    };
    let admin_text = new_key();
    let guarded = [("AUTH_REQUIRED", "true"), ("ADMIN_API_KEY", admin_text.as_str())];
    let (one, other) = (shared.start("one", &guarded), shared.start("other", &guarded));
    let (mut admin, mut there) =
        (Caller::keyed(one.address(), &admin_text), Caller::keyed(other.address(), &admin_text));
    let key = issue(&mut admin, &json!({"tenant_id": "acme"}));
    let status = |tai: &Tai| key.caller(tai.address()).get("/receipts?limit=1").status;
    assert_eq!((status(&one), status(&other)), (200, 200), "at once");

    let revoked = admin.delete(&format!("/admin/keys/{}?tenant_id=acme", key.id));
    assert_eq!((revoked.status, status(&one)), (200, 401), "from the answer on");
    let since = Instant::now();
    until("the key is refused everywhere", || (status(&other) == 401).then_some(()));
    assert!(since.elapsed() < EVERYWHERE, "{:?}", since.elapsed());

    let change = json!({"value": "77"});
    let changed = admin.put("/admin/settings/RATE_LIMIT_PER_SECOND", &change);
    assert_eq!(changed.status, 200, "{}", text(&changed));
    let shown = |caller: &mut Caller| {
        let settings = caller.get("/admin/settings").json().unwrap();
        let rows = settings["settings"].as_array().unwrap().clone();
        rows.into_iter().find(|row| row["name"] == "RATE_LIMIT_PER_SECOND").unwrap()["value"]
            .clone()
    };
    assert_eq!(shown(&mut admin), Value::from("77"));
    until("the setting holds everywhere", || (shown(&mut there) == "77").then_some(()));
    stop(one);
    stop(other);
    assert_verified_by(&|args| shared.tai(args));
}

#[test]
fn an_answer_without_a_receipt_is_never_old() {
    let Some(shared) = Shared::on_postgres() else {
        testkit::skip!("PostgreSQL is not installed");
    };
    let (registrar, other) = (shared.start("registrar", &[]), shared.start("other", &[]));
    let data = json!({
        "tenant_id": "acme", "metric": "cpu", "value": 10, "timestamp_ms": unix_secs() * 1000,
    });
    let mut turn = 0;
    let mut signal = || {
        turn += 1;
        post(&mut client(other.address()), "/pubsub", &push(&format!("m-{turn}"), &data)).status
    };
    // Nobody knows the tenant, and the other instance remembers that.
    assert_eq!(signal(), 422);
    let granted = post(&mut client(registrar.address()), "/marketplace", &event("acme", "grant"));
    assert_eq!(granted.status, 200);
    until("the other looks again", || (signal() == 200).then_some(()));
    [registrar, other].into_iter().for_each(stop);
}

#[test]
fn one_instance_answers_and_another_does_what_is_due() {
    let Some(shared) = Shared::on_postgres() else {
        testkit::skip!("PostgreSQL is not installed");
    };
    let often = ("GOVERNOR_STATE_CHECK_INTERVAL_MS", "100");
    let gateway = shared.start("gateway", &[("SERVICE_ROLE", "gateway"), often]);
    let mut asker = client(gateway.address());
    let mut grant = event("acme", "grant");
    grant["expires_at"] = json!(unix_secs() + 1);
    assert_eq!(post(&mut asker, "/marketplace", &grant).status, 200);
    let lapsed = |asker: &mut testkit::http::Client| {
        let found = get(asker, "/receipts?tenant_id=acme&action=lapse").json().unwrap();
        !found["receipts"].as_array().unwrap().is_empty()
    };
    // It looks ten times a second, where it looks at all.
    until("the grant is over", || {
        (unix_secs() > grant["expires_at"].as_i64().unwrap() + 1).then_some(())
    });
    assert!(!lapsed(&mut asker), "nobody has ticked");
    let worker = shared.start("worker", &[("SERVICE_ROLE", "worker"), often]);
    until("the worker ticks", || lapsed(&mut asker).then_some(()));
    let fired = |tai: &Tai| metric(tai.address(), "tai_timers_fired_total");
    assert_eq!((fired(&gateway), fired(&worker)), (0, 1));
    let mut other = client(worker.address());
    assert_refused(&post(&mut other, "/marketplace", &grant), 404, "not_found");
    assert_eq!(get(&mut other, "/receipts").status, 404);
    for path in ["/health", "/metrics", "/admin/settings"] {
        assert_eq!(get(&mut other, path).status, 200, "{path}");
    }
    [gateway, worker].into_iter().for_each(stop);
    // A ledger in files has one instance.
    let (_room, dir) = room();
    let refused = tai(&dir, &["serve", "--role", "worker"]);
    assert_eq!(refused.code, Some(2), "{}", refused.err);
    assert!(refused.err.contains("SERVICE_ROLE"), "{}", refused.err);
}

#[test]
fn two_instances_share_a_ledger_in_firestore() {
    let Some(shared) = Shared::on_firestore() else {
        testkit::skip!("the Firestore emulator is not installed");
    };
    let (mut one, other) = (shared.start("one", &[]), shared.start("other", &[]));
    let whereabouts = Whereabouts::default();
    whereabouts.set(addresses(&[&one, &other]));
    let acknowledged: Acknowledged = thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|name| {
                let whereabouts = &whereabouts;
                scope.spawn(move || ask_away(whereabouts, name, 9_000 + name, "documents"))
            })
            .collect();
        whereabouts.after_more(30);
        one.kill().unwrap();
        whereabouts.set(addresses(&[&other]));
        whereabouts.after_more(10);
        whereabouts.end();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });
    assert!(acknowledged.len() > 20, "hardly a load: {}", acknowledged.len());
    println!("{} requests acknowledged by two instances", acknowledged.len());
    ask_again(other.address(), &acknowledged);
    stop(other);
    assert_among(&assert_verified_by(&|args| shared.tai(args)), &acknowledged);
}

#[test]
fn a_database_that_cannot_be_had_is_named_and_its_password_is_not() {
    let (_room, dir) = room();
    let said = |envs: &[(&str, &str)]| {
        let mut serve = command(&dir, &["serve"]);
        Said::from(serve.env("PORT", "0").envs(envs.iter().copied()).output().unwrap())
    };
    let postgres = ("RECEIPT_LEDGER_BACKEND", "postgres");
    let unset = said(&[postgres]);
    assert_eq!(unset.code, Some(2), "{}", unset.err);
    assert!(unset.err.contains("DATABASE_URL"), "{}", unset.err);
    let nowhere = "postgres://tai:Xq7ZmarkerXq7Z@127.0.0.1:1/tai";
    let gone = said(&[postgres, ("DATABASE_URL", nowhere)]);
    assert!(gone.code.is_some_and(|code| code != 0), "{}", gone.err);
    assert!(gone.err.contains("DATABASE_URL"), "{}", gone.err);
    assert!(!format!("{}{}", gone.err, gone.out).contains("Xq7Z"));
}

/// Two rules: one whose figure differs from instance to instance, and one that always fires.
fn rules_of(shared: &Shared, name: &str, up: u8) -> String {
    let rule = |id: &str, up: u8| {
        format!(
            "[[alert]]\nid = \"{id}\"\ntitle = \"It is {id}\"\nmessage = \"health is ${{value}}\"\n\
             severity = \"sev3\"\ncategory = \"system\"\ncomponent = \"http\"\n\
             condition = \"health.up[1s] == {up}\"\n\n"
        )
    };
    let path = shared.room.path().join(format!("{name}.toml"));
    std::fs::write(&path, rule("sick", up) + &rule("here", 1)).unwrap();
    path.to_str().unwrap().to_owned()
}

#[test]
fn an_alert_stands_until_its_instance_is_well_or_gone_and_its_incident_says_which() {
    let Some(shared) = Shared::on_postgres() else {
        testkit::skip!("PostgreSQL is not installed");
    };
    let files = [("well", 0), ("ill", 1)].map(|(name, up)| rules_of(&shared, name, up));
    let [well, mut ill] = ["well", "ill"].map(|name| {
        let rules = &files[usize::from(name == "ill")];
        shared.start(name, &[("ALERTS_FILE", rules), ("ALERT_INTERVAL_MS", "100")])
    });
    let alerts = || {
        let page = Caller::local(well.address()).get("/admin/alerts").json().unwrap();
        let rows = page["alerts"].as_array().unwrap().clone();
        rows.into_iter()
            .filter(|row| row["phase"] == "firing")
            .map(|row| row["key"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    let of = |rule: &str, all: &[String]| {
        all.iter().filter(|key| key.starts_with(rule)).cloned().collect::<Vec<_>>()
    };
    // Both are here, and one of them is sick.
    let all = until("both have spoken", || {
        let all = alerts();
        (of("here", &all).len() == 2 && of("sick", &all).len() == 1).then_some(all)
    });
    let sick = of("sick", &all).remove(0);
    ill.kill().unwrap();
    let left = || format!("the end of what it said: {:?}", alerts());
    until_within(4 * PATIENCE, left, || (alerts().len() <= 1).then_some(()));
    let story = Caller::local(well.address()).get("/admin/incidents/INC-1");
    // The other one does not find the first, and finds the second as well.
    for why in ["is gone, and on instance", "goes on with this"] {
        assert!(text(&story).contains(why), "{}", text(&story));
    }
    let open = Caller::local(well.address()).get("/admin/incidents").json().unwrap();
    assert_eq!(open["incidents"].as_array().unwrap().len(), 1, "{open}");
    stop(well);
    let receipts = assert_verified_by(&|args| shared.tai(args));
    let phases: Vec<&str> = receipts
        .iter()
        .filter(|receipt| receipt["rule"] == "alert.change" && receipt["subject"] == sick.as_str())
        .map(|receipt| receipt["state_to"].as_str().unwrap())
        .collect();
    assert_eq!(phases, ["firing", "inactive"], "nobody has unsaid it in between");
}
