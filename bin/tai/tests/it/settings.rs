//! Settings: where they come from, what stops a start, and what each of them changes.
//!
//! Owns: one look from outside at two values of every row of the settings table. Refuses to know:
//! ranges, which the table itself states.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use settings::Kind;
use testkit::http::{Client, Response};
use testkit::tai::Tai;

use crate::support::*;

const EXIT_USAGE: Option<i32> = Some(2);
/// The start of every bad value, so that it is recognised wherever it is printed.
const MARKER: &str = "zq7marker";

/// Looks that are tests, and the list of what they look at.
macro_rules! seen {
    ($($name:literal => $look:ident,)+) => {
        const SEEN: &[&str] = &[$($name),+];

        mod each {
            $(#[test]
            fn $look() {
                super::$look();
            })+
        }
    };
}

seen! {
    "PORT" => port,
    "BIND_ADDRESS" => bind_address,
    "REQUEST_TIMEOUT_MS" => request_timeout_ms,
    "GRACEFUL_SHUTDOWN_MS" => graceful_shutdown_ms,
    "MAX_CONCURRENT_REQUESTS" => max_concurrent_requests,
    "MAX_CONNECTIONS" => max_connections,
    "MAX_BODY_BYTES" => max_body_bytes,
    "RECEIPT_LEDGER_BACKEND" => receipt_ledger_backend,
    "LEDGER_DIR" => ledger_dir,
    "RECEIPT_BUFFER_SIZE" => receipt_buffer_size,
    "RECEIPT_VERIFY_HASHES" => receipt_verify_hashes,
    "ERL_MAX_ETS_TABLES" => erl_max_ets_tables,
    "SQLITE_SYNCHRONOUS" => sqlite_synchronous,
    "ACTION_POOL_SIZE" => action_pool_size,
    "ACTION_QUEUE_SIZE" => action_queue_size,
    "GOVERNOR_STATE_CHECK_INTERVAL_MS" => governor_state_check_interval_ms,
    "CATALOGUE_FILE" => catalogue_file,
    "LOG_LEVEL" => log_level,
    "LOG_FILE" => log_file,
    "METRICS_ENABLED" => metrics_enabled,
}

/// What cannot be seen from outside, and where it is tested instead.
const UNSEEN: [(&str, &str); 1] =
    [("ACTION_TIMEOUT_MS", "the one action that ships has nothing to wait for: engine tests")];

#[test]
fn every_setting_is_looked_at() {
    let unseen = UNSEEN.iter().map(|(name, _)| name);
    let mut looked: Vec<&str> = SEEN.iter().chain(unseen).copied().collect();
    let mut table: Vec<&str> = settings::table().iter().map(|row| row.name).collect();
    looked.sort_unstable();
    table.sort_unstable();
    assert_eq!(looked, table);
}

#[test]
fn check_shows_where_each_value_comes_from() {
    let (room, dir) = room();
    let own = room.path().join("own.toml");
    fs::write(room.path().join("tai.toml"), "request_timeout_ms = 2500\nport = 4000\n").unwrap();
    fs::write(&own, "max_body_bytes = 2048\n").unwrap();
    let check = |arguments: &[&str]| {
        let output = command(&dir, arguments).env("PORT", "4711").env("LOG_LEVEL", "").output();
        let said = Said::from(output.unwrap());
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert!(said.out.contains("catalogue 2026-11-01 is valid"), "{}", said.out);
        said.out
    };
    let assert_row = |shown: &str, name: &str, words: &[&str]| {
        let row = shown.lines().find(|line| line.split(' ').next() == Some(name)).unwrap();
        let found: Vec<&str> = row.split_whitespace().skip(1).collect();
        assert_eq!(found, words, "{row}");
    };
    let shown = check(&["check"]);
    assert_eq!(shown.lines().count(), settings::table().len() + 1);
    assert_row(&shown, "PORT", &["4711", "environment"]);
    assert_row(&shown, "REQUEST_TIMEOUT_MS", &["2500", "milliseconds", "file", "\"tai.toml\""]);
    assert_row(&shown, "MAX_BODY_BYTES", &["1048576", "bytes", "default"]);
    assert_row(&shown, "LOG_LEVEL", &["info", "default"]);
    assert_row(&shown, "CATALOGUE_FILE", &["(none)", "default"]);
    let shown = check(&["--config", "own.toml", "check"]);
    assert_row(&shown, "MAX_BODY_BYTES", &["2048", "bytes", "file", "\"own.toml\""]);
    assert_row(&shown, "REQUEST_TIMEOUT_MS", &["30000", "milliseconds", "default"]);
    assert!(!dir.exists(), "a check makes nothing");
}

/// A start that must not be: soon, with exit code 2, the setting's name and not its value.
fn assert_refused(mut start: Command, name: &str, value: &str) {
    let began = Instant::now();
    let said = Said::from(start.output().unwrap());
    let what = format!("{name}={value:?}");
    assert_eq!(said.code, EXIT_USAGE, "{what}: {}{}", said.out, said.err);
    assert!(began.elapsed() < Duration::from_secs(2), "{what}: {:?}", began.elapsed());
    assert!(said.err.contains(name), "{what}: {}", said.err);
    assert!(said.out.is_empty(), "{what}: {}", said.out);
    let shown = |value: &str| said.err.split_whitespace().any(|word| word.contains(value));
    assert!(!shown(MARKER), "{what}: {}", said.err);
    if value.len() > 5 {
        assert!(!shown(value), "{what}: {}", said.err);
    }
}

fn bad_values(kind: Kind) -> Vec<String> {
    let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
    match kind {
        Kind::Integer { min, max } => {
            let mut bad: Vec<String> = texts(&[
                MARKER,
                "-1",
                "+5000",
                "5000.5",
                "5e3",
                " 5000",
                "0x5000",
                "zq7marker5000",
            ]);
            bad.push((u128::from(max) + 1).to_string());
            bad.push("9".repeat(30));
            bad.extend(min.checked_sub(1).map(|low| low.to_string()));
            bad
        }
        Kind::Flag => texts(&[MARKER, "yes", "TRUE", "1", " true"]),
        Kind::Choice(_) => texts(&[MARKER, "Full", "sqlite memory", "INFO"]),
        Kind::Address => texts(&[MARKER, "localhost", "127.0.0.1:8080", "256.1.1.1", "[::1]"]),
        // Any text is a path; a number in the file is none.
        Kind::Path => Vec::new(),
    }
}

#[test]
fn a_bad_value_stops_the_start_and_is_not_shown() {
    let (room, dir) = room();
    let file = room.path().join("tai.toml");
    let with_file = |verb: &str| {
        let mut start = command(&dir, &[verb]);
        // What the environment sets is not read from the file.
        start.env_remove("LEDGER_DIR");
        start
    };
    for row in settings::table() {
        for value in bad_values(row.kind) {
            let _ = fs::remove_file(&file);
            let mut start = command(&dir, &[]);
            start.env(row.name, &value);
            assert_refused(start, row.name, &value);
            fs::write(&file, format!("{} = {:?}\n", row.key, value)).unwrap();
            assert_refused(with_file("serve"), row.name, &value);
        }
        let wrong_type = format!("[\"{MARKER}\"]");
        fs::write(&file, format!("{} = {wrong_type}\n", row.key)).unwrap();
        assert_refused(with_file("check"), row.name, &wrong_type);
        fs::remove_file(&file).unwrap();
    }
    assert!(!room.path().join("tai-data").exists());
    assert!(!dir.exists(), "no ledger was made");
}

#[test]
fn mistakes_beyond_one_value_stop_the_start_too() {
    let (room, dir) = room();
    let file = room.path().join("tai.toml");
    for (text, name) in [
        (format!("prot = \"{MARKER}\""), "prot"),
        (format!("PORT = \"{MARKER}\""), "PORT"),
        (format!("[{MARKER}x]\nport = 1"), "no such setting"),
        (format!("port = {MARKER}"), "line 1"),
        (format!("port = 1\nport = \"{MARKER}\""), "line 2"),
    ] {
        fs::write(&file, &text).unwrap();
        let said = tai(&dir, &[]);
        assert_eq!(said.code, EXIT_USAGE, "{text}: {}", said.err);
        assert!(said.err.contains(name), "{text}: {}", said.err);
        assert!(!said.err.contains(&format!("{MARKER}\"")), "{text}: {}", said.err);
    }
    fs::write(&file, "port = 70000\nlog_level = \"loud\"\nsqlite_synchronous = 1\n").unwrap();
    let all = tai(&dir, &[]).err;
    for name in ["PORT", "LOG_LEVEL", "SQLITE_SYNCHRONOUS"] {
        assert!(all.contains(name), "all mistakes at once: {all}");
    }
    fs::remove_file(&file).unwrap();
    assert_eq!(tai(&dir, &["--config", "nowhere.toml", "check"]).code, EXIT_USAGE);

    for address in ["0.0.0.0", "192.0.2.7", "::"] {
        for verb in ["serve", "check"] {
            let mut start = command(&dir, &[verb]);
            start.env("BIND_ADDRESS", address);
            let said = Said::from(start.output().unwrap());
            assert_eq!(said.code, EXIT_USAGE, "{address}: {}", said.err);
            assert!(said.err.contains("BIND_ADDRESS"), "{address}: {}", said.err);
        }
    }
    let catalogue = room.path().join(format!("{MARKER}.toml"));
    let path = catalogue.to_str().unwrap();
    let with = |name: &str, value: &str| {
        let mut start = command(&dir, &["serve"]);
        start.env(name, value).env("PORT", "0");
        start
    };
    assert_refused(with("CATALOGUE_FILE", path), "CATALOGUE_FILE", path);
    for text in [
        format!("{MARKER} {MARKER}"),
        format!("version = \"{MARKER}\""),
        format!("version = [\"{MARKER}\"]"),
    ] {
        fs::write(&catalogue, text).unwrap();
        assert_refused(with("CATALOGUE_FILE", path), "CATALOGUE_FILE", path);
    }
    let inside_a_file = format!("{path}/log");
    assert_refused(with("LOG_FILE", &inside_a_file), "LOG_FILE", &inside_a_file);
}

/// A service whose log says little or goes elsewhere: known by its port alone.
struct Quiet {
    child: Child,
    address: SocketAddr,
}

impl Quiet {
    fn start(dir: &Path, envs: &[(&str, &str)], stdout: &Path) -> Quiet {
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

    /// Ends it in order, so that its log is whole.
    fn stop(mut self) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
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

/// A value of the metrics page.
fn metric(address: SocketAddr, name: &str) -> i64 {
    let page = String::from_utf8(get(&mut client(address), "/metrics").body).unwrap();
    let value = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {name}: {page}")).parse().unwrap()
}

/// Requests in work; a scrape is none.
fn in_work(address: SocketAddr) -> usize {
    metric(address, "tai_http_requests_in_flight") as usize
}

/// A request whose body does not come, and the rest of it.
fn half_a_request(address: SocketAddr) -> (TcpStream, &'static [u8]) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "POST /marketplace HTTP/1.1\r\nHost: t\r\nContent-Type: application/json\r\n\
                Content-Length: 22\r\n\r\n{\"customer_i";
    stream.write_all(head.as_bytes()).unwrap();
    until("the request is in work", || (in_work(address) == 1).then_some(()));
    (stream, b"d\":\"late\"}")
}

fn port() {
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

fn bind_address() {
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

fn request_timeout_ms() {
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

fn graceful_shutdown_ms() {
    for (deadline, patient) in [("200", false), ("20000", true)] {
        let (_room, dir) = room();
        let mut tai = start(&dir, &[("GRACEFUL_SHUTDOWN_MS", deadline)]);
        let (mut stream, rest) = half_a_request(tai.address());
        tai.terminate().unwrap();
        if patient {
            // It still waits when the other one has ended.
            assert!(tai.wait(Duration::from_millis(800)).is_err());
            stream.write_all(rest).unwrap();
        }
        let status = tai.wait(PATIENCE).unwrap();
        assert_eq!(status.code(), Some(0));
        let mut answer = String::new();
        let _ = stream.read_to_string(&mut answer);
        assert_eq!(answer.starts_with("HTTP/1.1 200"), patient, "{answer}");
    }
}

fn max_concurrent_requests() {
    for (limit, status) in [("1", 503), ("2", 200)] {
        let (_room, dir) = room();
        let tai = start(&dir, &[("MAX_CONCURRENT_REQUESTS", limit)]);
        let (mut stream, rest) = half_a_request(tai.address());
        let mut second = client(tai.address());
        let response = quote(&mut second, "other");
        assert_eq!(response.status, status, "{limit}");
        if status == 503 {
            assert_eq!(response.json().unwrap()["reason"], "service_unavailable");
            assert_eq!(response.header("retry-after"), Some("1"));
        }
        assert_eq!(get(&mut second, "/health").status, 200, "health is never limited");
        stream.write_all(rest).unwrap();
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
        assert_eq!(quote(&mut second, "other").status, 200, "the place is free again");
        stop(tai);
    }
}

fn max_connections() {
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

fn max_body_bytes() {
    for (limit, status) in [("1024", 413), ("2048", 200)] {
        let (_room, dir) = room();
        let tai = start(&dir, &[("MAX_BODY_BYTES", limit)]);
        let body = json!({"customer_id": "acme", "note": "x".repeat(1_500)});
        assert_eq!(post(&mut client(tai.address()), "/marketplace", &body).status, status);
        stop(tai);
    }
}

fn receipt_ledger_backend() {
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

fn ledger_dir() {
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

fn receipt_buffer_size() {
    const CALLERS: usize = 250;
    for (size, floods) in [("64", true), ("1000", false)] {
        let (_room, dir) = room();
        let tai = start(&dir, &[("RECEIPT_BUFFER_SIZE", size)]);
        let (address, ended) = (tai.address(), AtomicUsize::new(0));
        let held = HeldLock::take(&dir);
        let responses: Vec<Response> = thread::scope(|scope| {
            let callers: Vec<_> = (0..CALLERS)
                .map(|name| {
                    let ended = &ended;
                    scope.spawn(move || {
                        let response = quote(&mut client(address), &format!("c-{name}"));
                        ended.fetch_add(1, Ordering::AcqRel);
                        response
                    })
                })
                .collect();
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

fn receipt_verify_hashes() {
    for (flag, status, health) in [("true", 503, "green"), ("false", 200, "yellow")] {
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

fn erl_max_ets_tables() {
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

fn sqlite_synchronous() {
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

fn action_pool_size() {
    assert_eq!(turned_away("1", "1"), 6);
    assert_eq!(turned_away("3", "1"), 4);
}

fn action_queue_size() {
    assert_eq!(turned_away("1", "2"), 5);
    assert_eq!(turned_away("1", "5"), 2);
}

/// Of eight signals that come while nothing can be decided, how many find no place for the action
/// that they may need: each holds one from before its decision.
fn turned_away(pool: &str, queue: &str) -> usize {
    const SIGNALS: usize = 8;
    let (_room, dir) = room();
    let tai = start(&dir, &[("ACTION_POOL_SIZE", pool), ("ACTION_QUEUE_SIZE", queue)]);
    let (address, ended) = (tai.address(), AtomicUsize::new(0));
    for name in 0..SIGNALS {
        let granted = event(&format!("t-{name}"), "grant");
        assert_eq!(post(&mut client(address), "/marketplace", &granted).status, 200);
    }
    let now_ms = unix_secs() * 1000;
    let held = HeldLock::take(&dir);
    let responses: Vec<Response> = thread::scope(|scope| {
        let senders: Vec<_> = (0..SIGNALS)
            .map(|name| {
                let ended = &ended;
                scope.spawn(move || {
                    let data = json!({
                        "tenant_id": format!("t-{name}"), "metric": "cpu", "value": 50,
                        "timestamp_ms": now_ms,
                    });
                    let body = push(&format!("m-{name}"), &data);
                    let response = post(&mut client(address), "/pubsub", &body);
                    ended.fetch_add(1, Ordering::AcqRel);
                    response
                })
            })
            .collect();
        until("all have asked", || {
            (in_work(address) + ended.load(Ordering::Acquire) >= SIGNALS).then_some(())
        });
        drop(held);
        senders.into_iter().map(|sender| sender.join().unwrap()).collect()
    });
    let refused: Vec<&Response> = responses.iter().filter(|it| it.status != 200).collect();
    for response in &refused {
        assert_eq!(response.status, 429);
        assert_eq!(response.json().unwrap()["reason"], "action_queue_full");
    }
    let logged =
        tai.log_lines().iter().filter(|line| line.contains("action_queue_depth = ")).count();
    assert_eq!(logged, refused.len());
    stop(tai);
    refused.len()
}

fn governor_state_check_interval_ms() {
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

fn catalogue_file() {
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

fn log_level() {
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

fn log_file() {
    let (room, dir) = room();
    let (stdout, file) = (room.path().join("stdout"), room.path().join("logs/tai.log"));
    Quiet::start(&dir, &[], &stdout).stop();
    assert!(fs::read_to_string(&stdout).unwrap().contains("Shutdown complete"));
    assert!(!file.exists());
    Quiet::start(&dir, &[("LOG_FILE", file.to_str().unwrap())], &stdout).stop();
    assert_eq!(fs::read_to_string(&stdout).unwrap(), "");
    assert!(fs::read_to_string(&file).unwrap().contains("Shutdown complete"));
}

fn metrics_enabled() {
    for (flag, status) in [("true", 200), ("false", 404)] {
        let (_room, dir) = room();
        let tai = start(&dir, &[("METRICS_ENABLED", flag)]);
        let response = get(&mut client(tai.address()), "/metrics");
        assert_eq!(response.status, status);
        stop(tai);
    }
}
