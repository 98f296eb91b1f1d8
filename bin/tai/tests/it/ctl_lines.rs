//! `tai ctl` against a service that is played: what it asks, what it prints, how it exits.
//!
//! Owns: the command line's side of the admin API, also where the service says no, nothing, or
//! something else. Refuses to know: what the real service does.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::{Value, json};

use crate::support::*;

mod incidents;

/// One request as it arrived.
#[derive(Debug, Clone)]
struct Asked {
    line: String,
    headers: HashMap<String, String>,
    body: String,
}

/// What is played in answer.
struct Play {
    status: u16,
    body: String,
    headers: &'static str,
    /// Nobody listens afterwards.
    last: bool,
}

fn yes(body: &Value) -> Play {
    says(200, body.to_string())
}

fn says(status: u16, body: impl Into<String>) -> Play {
    Play { status, body: body.into(), headers: "", last: false }
}

/// A played service. It answers one connection after the other.
struct Fake {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Fake {
    fn new(mut play: impl FnMut(&Asked) -> Play + Send + 'static) -> Fake {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let noted = Arc::clone(&asked);
        thread::spawn(move || {
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                let request = read(&mut stream);
                noted.lock().unwrap().push(request.clone());
                let Play { status, body, headers, last } = play(&request);
                // Closed before the answer, so that nobody finds it open after the answer.
                let answer = format!(
                    "HTTP/1.1 {status} x\r\n{headers}Content-Length: {}\r\nConnection: close\r\n\
                     \r\n{body}",
                    body.len()
                );
                if last {
                    drop(listener);
                    return stream.write_all(answer.as_bytes()).unwrap();
                }
                stream.write_all(answer.as_bytes()).unwrap();
            }
        });
        Fake { address, asked }
    }

    /// Always the same answer.
    fn always(status: u16, body: impl Into<String>) -> Fake {
        let body = body.into();
        Fake::new(move |_| says(status, body.clone()))
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    fn lines(&self) -> Vec<String> {
        self.asked.lock().unwrap().iter().map(|asked| asked.line.clone()).collect()
    }

    fn last(&self) -> Asked {
        self.asked.lock().unwrap().last().unwrap().clone()
    }
}

fn read(stream: &mut TcpStream) -> Asked {
    let mut reader = BufReader::new(stream);
    let mut next = || {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        line.trim_end().to_owned()
    };
    let first = next();
    let line = first.strip_suffix(" HTTP/1.1").unwrap().to_owned();
    let mut headers = HashMap::new();
    loop {
        let header = next();
        let Some((name, value)) = header.split_once(": ") else { break };
        headers.insert(name.to_lowercase(), value.to_owned());
    }
    let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    Asked { line, headers, body: String::from_utf8(body).unwrap() }
}

/// `tai ctl` with `args`, at `url`.
fn ctl(url: &str, args: &[&str]) -> Said {
    ctl_with(&[("TAI_URL", url)], args)
}

fn ctl_with(envs: &[(&str, &str)], args: &[&str]) -> Said {
    let (_room, dir) = room();
    let arguments = [&["ctl"], args].concat();
    command(&dir, &arguments).envs(envs.iter().copied()).output().unwrap().into()
}

const RECEIPT: &str = r#"{"id":"rcpt_07","type":"transition","seq":3}"#;
const ID: &str = "key_0123456789abcdef";

#[test]
fn every_verb_asks_what_the_service_answers() {
    let state = json!({"state": "active", "name": "tai_http"});
    let receipt: Value = serde_json::from_str(RECEIPT).unwrap();
    let settings = json!({"settings": [
        {"name": "PORT", "value": "8080", "source": "default", "unit": "", "live": false, "help": "h"},
        {"name": "LOG_LEVEL", "value": "debug", "source": "lease", "unit": "", "live": true,
         "help": "h", "until": 1_700_000_000},
    ]});
    let key = json!({"key": "taik__keys.abc", "id": ID, "receipt_id": "rcpt_9"});
    let keys = json!({"keys": [{"id": ID, "scopes": ["admin:read"], "label": "mine",
        "expires_at": null, "issued_at": "2026-01-01T00:00:00Z"}]});
    let tenant = json!({"tenant_id": "a b", "registered": true, "keys": 2, "receipts": 9,
        "entitlements": [{"entitlement_id": "pro", "state": "active"}]});
    let sources = json!({"sources": [{"source": "203.0.113.0/24", "until": 9}]});
    let subsystems = json!({"subsystems": [
        {"name": "governance_sup", "state": "running", "restarts": 2, "uptime_s": 17}]});
    let numbers = json!({"rss_bytes": 1024, "action_queue_depth": 5});
    let replay = json!({"replayed": 3, "poison": 1, "later": 0});
    let none = Value::Null;
    let dependencies = json!({"dependencies": [{"name": "openai", "breaker": "closed",
        "is_forced": false, "failures": 0, "in_flight": 1, "in_flight_max": 9, "paused_for_s": 0}]});
    let table: Vec<Row<'_>> = vec![
        (
            "subsystems",
            "GET /admin/subsystems",
            none.clone(),
            &subsystems,
            &[
                "name            state    restarts  uptime_s",
                "governance_sup  running  2         17",
            ],
        ),
        (
            "restart tai_http",
            "POST /admin/subsystems/tai_http/restart",
            none.clone(),
            &state,
            &["state: active"],
        ),
        ("restart ../stop", "POST /admin/subsystems/..%2Fstop/restart", none.clone(), &state, &[]),
        ("memory", "GET /admin/memory", none.clone(), &numbers, &["rss_bytes: 1024"]),
        ("queues", "GET /admin/queues", none.clone(), &numbers, &["action_queue_depth: 5"]),
        (
            "settings",
            "GET /admin/settings",
            none.clone(),
            &settings,
            &["PORT       8080   -     default  false  -"],
        ),
        (
            "settings get LOG_LEVEL",
            "GET /admin/settings",
            none.clone(),
            &settings,
            &["name: LOG_LEVEL", "until: 1700000000"],
        ),
        (
            "settings set LOG_LEVEL debug",
            "PUT /admin/settings/LOG_LEVEL",
            json!({"value": "debug"}),
            &receipt,
            &["done, receipt rcpt_07"],
        ),
        (
            "settings set LOG_LEVEL debug --lease 60",
            "PUT /admin/settings/LOG_LEVEL",
            json!({"value": "debug", "lease_s": 60}),
            &receipt,
            &["done, receipt rcpt_07"],
        ),
        (
            "settings clear LOG_LEVEL",
            "DELETE /admin/settings/LOG_LEVEL",
            none.clone(),
            &receipt,
            &["done"],
        ),
        (
            "sources",
            "GET /admin/sources",
            none.clone(),
            &sources,
            &["203.0.113.0/24  1970-01-01T00:00:09Z"],
        ),
        (
            "sources block 203.0.113.0/24 --lease 9",
            "PUT /admin/sources",
            json!({"source": "203.0.113.0/24", "lease_s": 9}),
            &receipt,
            &["done"],
        ),
        (
            "sources unblock 203.0.113.0/24",
            "DELETE /admin/sources?source=203.0.113.0%2F24",
            none.clone(),
            &receipt,
            &["done"],
        ),
        ("pubsub", "GET /admin/pubsub", none.clone(), &state, &["state: active"]),
        ("pubsub status", "GET /admin/pubsub", none.clone(), &state, &["state: active"]),
        ("pubsub pause", "POST /admin/pubsub/pause", none.clone(), &state, &["state: active"]),
        ("pubsub resume", "POST /admin/pubsub/resume", none.clone(), &state, &["state: active"]),
        ("pubsub replay", "POST /admin/pubsub/replay", json!({}), &replay, &["replayed: 3"]),
        (
            "pubsub replay --limit 7",
            "POST /admin/pubsub/replay",
            json!({"limit": 7}),
            &replay,
            &["poison: 1", "later: 0"],
        ),
        (
            "tenant show a:b@c",
            "GET /admin/tenants/a:b@c",
            none.clone(),
            &tenant,
            &["entitlements:", "  entitlement_id=pro state=active", "keys: 2"],
        ),
        (
            "tenant create t",
            "POST /admin/tenants",
            json!({"tenant_id": "t"}),
            &receipt,
            &["done, receipt rcpt_07"],
        ),
        (
            "tenant budget t --calls 1000 --spend 50",
            "PUT /admin/tenants/t/budget",
            json!({"calls": 1000, "spend_minor": 50, "period": "month"}),
            &receipt,
            &["done, receipt rcpt_07"],
        ),
        (
            "tenant budget t --calls 5 --period ever",
            "PUT /admin/tenants/t/budget",
            json!({"calls": 5, "period": "ever"}),
            &receipt,
            &["done"],
        ),
        (
            "tenant budget t --clear",
            "DELETE /admin/tenants/t/budget",
            none.clone(),
            &receipt,
            &["done"],
        ),
        (
            "dependencies",
            "GET /admin/dependencies",
            none.clone(),
            &dependencies,
            &["openai  closed   false"],
        ),
        ("key list", "GET /admin/keys", none.clone(), &keys, &["admin:read  2026-01-01T00:00:00Z"]),
        ("key list --tenant t", "GET /admin/keys?tenant_id=t", none.clone(), &keys, &["mine"]),
        ("key create", "POST /admin/keys", json!({}), &key, &["taik__keys.abc"]),
        (
            "key create --tenant t --scope receipts:read --scope signals:write --label l --expires-in 5",
            "POST /admin/keys",
            json!({"tenant_id": "t", "scopes": ["receipts:read", "signals:write"], "label": "l",
                "expires_in_s": 5}),
            &key,
            &["taik__keys.abc"],
        ),
        ("key rotate key_1", "POST /admin/keys/key_1/rotate", json!({}), &key, &["taik__keys.abc"]),
        (
            "key rotate key_1 --tenant t --overlap 0",
            "POST /admin/keys/key_1/rotate",
            json!({"tenant_id": "t", "overlap_s": 0}),
            &key,
            &["taik__keys.abc"],
        ),
        (
            "key revoke key_1 --tenant t",
            "DELETE /admin/keys/key_1?tenant_id=t",
            none.clone(),
            &receipt,
            &["done"],
        ),
        ("drain", "POST /admin/drain", none.clone(), &state, &["state: active"]),
        ("health", "GET /health", none, &state, &["state: active"]),
    ];
    assert_asked(table);
}

/// The words, the request, its body, the answer, and what a person reads of it.
type Row<'a> = (&'a str, &'a str, Value, &'a Value, &'a [&'a str]);

fn assert_asked(table: Vec<Row<'_>>) {
    for (words, line, body, answer, shown) in table {
        let answer = answer.clone();
        let fake = Fake::new(move |_| yes(&answer));
        let words: Vec<&str> = words.split(' ').collect();
        let said = ctl(&fake.url(), &words);
        assert_eq!(said.code, Some(0), "{words:?}: {}", said.err);
        let asked = fake.last();
        assert_eq!(asked.line, line, "{words:?}");
        let sent = serde_json::from_str(&asked.body).unwrap_or(Value::Null);
        assert_eq!(sent, body, "{words:?}");
        let kind = asked.headers.get("content-type").map(String::as_str);
        assert_eq!(kind, (!body.is_null()).then_some("application/json"), "{words:?}");
        for text in shown {
            assert!(said.out.contains(text), "{words:?}: {text:?} is not in {:?}", said.out);
        }
    }
}

#[test]
fn raw_answers_come_as_they_are() {
    let body = r#"{"b" : 1, "a":[ ]}"#;
    let fake = Fake::always(200, body);
    let said = ctl(&fake.url(), &["memory", "--json"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), format!("{body}\n").as_str()));
    let settings = r#"{"settings":[{"name":"A","value":"1"},{"name":"B","value":"2"}]}"#;
    let fake = Fake::always(200, settings);
    let said = ctl(&fake.url(), &["--json", "settings", "get", "B"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "{\"name\":\"B\",\"value\":\"2\"}\n"));
    let said = ctl(&fake.url(), &["settings", "get", "C"]);
    assert!(said.code == Some(1) && said.err.contains("no such setting"), "{}", said.err);
}

#[test]
fn a_new_key_is_all_that_a_script_reads() {
    let body = json!({"key": "taik_t.secret", "id": ID, "receipt_id": "rcpt_9"}).to_string();
    let said = ctl(&Fake::always(200, body).url(), &["key", "create", "--tenant", "t"]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), "taik_t.secret\n"));
    assert!(said.err.contains(ID) && said.err.contains("rcpt_9"), "{}", said.err);
    assert!(!said.err.contains("taik_"), "{}", said.err);
}

#[test]
fn a_refusal_is_told_whole_and_exits_with_1() {
    let refusal = json!({
        "type": "refusal", "reason": "rate_limit_exceeded", "detail": "too many requests",
        "request_id": "req-7", "retryable": true, "retry_after": 3,
    })
    .to_string();
    let fake = Fake::always(429, refusal.clone());
    let said = ctl(&fake.url(), &["queues"]);
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    for part in ["rate_limit_exceeded: too many requests", "request req-7", "429", "in 3 s"] {
        assert!(said.err.contains(part), "{part:?} is not in {:?}", said.err);
    }
    let raw = ctl(&fake.url(), &["queues", "--json"]);
    assert_eq!((raw.code, raw.out), (Some(1), format!("{refusal}\n")));
    assert!(raw.err.contains("rate_limit_exceeded"), "{}", raw.err);

    let colours = json!({"type": "refusal", "reason": "forbidden", "detail": "\u{1b}[2Jgone",
        "request_id": "r"});
    let said = ctl(&Fake::always(403, colours.to_string()).url(), &["drain"]);
    assert!(said.code == Some(1) && !said.err.contains('\u{1b}'), "{:?}", said.err);
}

#[test]
fn an_unwell_service_is_shown_and_exits_with_1() {
    let health = json!({"status": "unavailable", "health": "red", "timestamp": 1,
        "reason": "supervisor governance_sup not running", "dependencies": {"pubsub": "ok"}});
    let said = ctl(&Fake::always(503, health.to_string()).url(), &["health"]);
    assert_eq!(said.code, Some(1));
    assert!(said.err.contains("supervisor governance_sup not running"), "{}", said.err);
    assert!(said.out.contains("dependencies.pubsub: ok"), "{}", said.out);
}

#[test]
fn what_is_no_answer_of_the_service_exits_with_1() {
    for (status, body, expected) in [
        (502, "<html>bad gateway</html>", "the service answers 502"),
        (200, "<html>welcome</html>", "it is not JSON"),
        (200, "[]", "the answer is no object"),
        (200, "{}", "no list of subsystems"),
    ] {
        let said = ctl(&Fake::always(status, body).url(), &["subsystems"]);
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{body}");
        assert!(said.err.contains(expected), "{body}: {}", said.err);
    }
    // Nobody is asked in the place of the one that was named: the key would go there too.
    let fake = Fake::new(|_| Play { headers: "Location: /elsewhere\r\n", ..says(307, "") });
    let said = ctl_with(&[("TAI_URL", &fake.url()), ("TAI_KEY", "k")], &["drain"]);
    assert!(said.code == Some(1) && said.err.contains("307"), "{}", said.err);
    assert_eq!(fake.lines(), ["POST /admin/drain"]);
}

#[test]
fn a_service_that_is_not_there_is_told_from_one_that_breaks_off() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let said = ctl(&format!("http://{closed}"), &["memory"]);
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    assert!(said.err.contains(&format!("cannot reach http://{closed}")), "{}", said.err);

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let closing = thread::spawn(move || drop(read(&mut silent.accept().unwrap().0)));
    let said = ctl(&format!("http://{address}"), &["drain"]);
    closing.join().unwrap();
    assert!(said.code == Some(1) && said.err.contains("is not known"), "{}", said.err);
}

#[test]
fn the_key_comes_from_a_file_or_the_environment_and_is_shown_nowhere() {
    const KEY: &str = "taik__keys.0123";
    let (room, _) = room();
    let file = room.path().join("key");
    std::fs::write(&file, format!("{KEY}\n")).unwrap();
    let named = file.to_str().unwrap();
    let fake = Fake::always(200, "{}");
    let url = fake.url();
    let sent = || fake.last().headers.get("authorization").cloned();

    assert_eq!(ctl(&url, &["memory"]).code, Some(0));
    assert_eq!(sent(), None);
    let from_variable = ctl_with(&[("TAI_URL", &url), ("TAI_KEY", KEY)], &["memory"]);
    assert_eq!((from_variable.code, sent()), (Some(0), Some(format!("Bearer {KEY}"))));
    let envs = [("TAI_URL", url.as_str()), ("TAI_KEY", "another")];
    assert_eq!(ctl_with(&envs, &["memory", "--key-file", named]).code, Some(0));
    assert_eq!(sent(), Some(format!("Bearer {KEY}")), "what is said here and now wins");

    std::fs::write(&file, "not a\nkey-text").unwrap();
    let before = fake.lines().len();
    for arguments in [
        &["memory", "--key-file", named][..],
        &["memory", "--key-file", "/nowhere/key"],
        &["memory", "--key", KEY],
    ] {
        let said = ctl(&url, arguments);
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{arguments:?}");
        assert!(!said.err.contains("key-text"), "{}", said.err);
    }
    assert_eq!(fake.lines().len(), before, "nobody was asked");
}

#[test]
fn the_service_is_where_the_option_the_variable_or_the_settings_say() {
    let fake = Fake::always(200, "{}");
    let port = fake.address.port().to_string();
    let (url, nowhere) = (fake.url(), "http://127.0.0.1:9");
    let asked = |envs: &[(&str, &str)], args: &[&str]| {
        let before = fake.lines().len();
        let said = ctl_with(envs, &[&["memory"], args].concat());
        assert_eq!(said.code, Some(0), "{envs:?} {args:?}: {}", said.err);
        assert_eq!(fake.lines().len(), before + 1, "{envs:?} {args:?}");
    };
    asked(&[("PORT", &port)], &[]);
    asked(&[("PORT", &port), ("BIND_ADDRESS", "0.0.0.0")], &[]);
    asked(&[("PORT", "9"), ("TAI_URL", &url)], &[]);
    asked(&[("TAI_URL", nowhere)], &["--url", &url]);
    asked(&[("HTTP_PROXY", nowhere), ("http_proxy", nowhere)], &["--url", &url]);
    // The settings of this machine may be those of another service.
    asked(&[("LOG_LEVEL", "loud")], &["--url", &url]);

    for (envs, expected) in [
        (&[("LOG_LEVEL", "loud")][..], "LOG_LEVEL"),
        (&[("PORT", "0")], "PORT"),
        (&[("TAI_URL", "localhost:8080")], "URL"),
        (&[("TAI_URL", "http://user:word@localhost")], "URL"),
    ] {
        let said = ctl_with(envs, &["memory"]);
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{envs:?}");
        assert!(said.err.contains(expected) && !said.err.contains("word@"), "{}", said.err);
    }
}

#[test]
fn words_that_are_none_are_not_sent() {
    let fake = Fake::always(200, "{}");
    for words in [
        "",
        "nothing",
        "sources block 203.0.113.0/24",
        "sources block 203.0.113.0/24 --lease 0",
        "settings set LOG_LEVEL",
        "settings set LOG_LEVEL debug --lease -1",
        "pubsub replay --limit 0",
        "tenant show",
        "key rotate",
        "key create --expires-in 0",
        "restart --wait 999999",
    ] {
        let words: Vec<&str> = words.split(' ').filter(|word| !word.is_empty()).collect();
        assert_eq!(ctl(&fake.url(), &words).code, Some(2), "{words:?}");
    }
    assert_eq!(fake.lines(), [""; 0]);
}

fn life(instance: &str) -> Value {
    json!({"status": "ok", "instance": instance})
}

#[test]
fn a_restart_is_over_when_a_new_start_is_well() {
    let mut turn = 0;
    let fake = Fake::new(move |request| {
        turn += 1;
        match (turn, request.line.as_str()) {
            (1, "GET /health/live") | (3, "GET /health") => yes(&life("first")),
            (2, "POST /admin/restart") => says(202, r#"{"state":"restarting"}"#),
            (4, "GET /health") => says(503, life("second").to_string()),
            (5, "GET /health") => yes(&life("second")),
            other => panic!("{other:?} is not expected"),
        }
    });
    let said = ctl(&fake.url(), &["restart"]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(said.out, "state: restarting\nrestarted\n");
    assert_eq!(fake.lines().len(), 5);

    let fake = Fake::always(200, r#"{"status":"ok"}"#);
    let said = ctl(&fake.url(), &["restart"]);
    assert!(said.code == Some(1) && said.err.contains("nothing was done"), "{}", said.err);
    assert_eq!(fake.lines(), ["GET /health/live"]);
}

#[test]
fn waiting_has_an_end() {
    let never = |request: &Asked| match request.line.as_str() {
        "POST /admin/restart" | "POST /admin/stop" => says(202, r#"{"state":"x"}"#),
        _ => yes(&life("first")),
    };
    for (verb, expected) in [("restart", "no new start"), ("stop", "still listens")] {
        let said = ctl(&Fake::new(never).url(), &[verb, "--wait", "1"]);
        assert_eq!(said.code, Some(1), "{verb}");
        assert!(said.err.contains(expected), "{verb}: {}", said.err);
        let fake = Fake::new(never);
        assert_eq!(ctl(&fake.url(), &[verb, "--wait", "0"]).code, Some(0));
        assert_eq!(fake.lines(), [format!("POST /admin/{verb}")]);
    }
    let refused = json!({"reason": "forbidden", "detail": "no", "request_id": "r"}).to_string();
    let fake = Fake::new(move |request| match request.line.as_str() {
        "POST /admin/stop" => says(403, refused.clone()),
        _ => yes(&life("first")),
    });
    assert_eq!(ctl(&fake.url(), &["stop"]).code, Some(1));
    assert_eq!(fake.lines().last().unwrap(), "POST /admin/stop", "nothing is waited for");
}

#[test]
fn a_stop_is_over_when_nobody_listens_or_somebody_new() {
    for last in [true, false] {
        let mut stopped = false;
        let fake = Fake::new(move |request| {
            if request.line == "POST /admin/stop" {
                stopped = true;
                return Play { last, ..says(202, r#"{"state":"stopping"}"#) };
            }
            yes(&life(if stopped { "second" } else { "first" }))
        });
        let said = ctl(&fake.url(), &["stop"]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        assert_eq!(said.out, "state: stopping\nstopped\n");
    }
}
