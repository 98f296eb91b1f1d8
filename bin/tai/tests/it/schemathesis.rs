//! Real input: Schemathesis sends what `/openapi.json` permits and much that it does not, and holds
//! every answer against it.
//!
//! Owns: the promise that the document and the service agree, and that no request makes the service
//! fail. Refuses to know: what the document says.

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::http::Client;
use testkit::tai::Tai;
use testkit::{place, python};

use crate::callers::{Caller, issue, new_key, start_guarded};
use crate::support::{assert_verified, client, get, room, stop};

/// The whole run. It takes half a minute where nothing else runs.
const TIME_MAX: Duration = Duration::from_secs(300);
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// They end the service, or a part of it: `schemathesis.toml` leaves them out.
const LEFT_OUT: [&str; 4] =
    ["/admin/stop", "/admin/restart", "/admin/drain", "/admin/subsystems/{name}/restart"];

#[test]
fn every_answer_is_one_that_the_document_describes() {
    testkit::needs_python!();
    let (room, ledger) = room();
    let key = new_key();
    // Refusals for the rate alone would hide the answers that are looked for.
    let tai = start_guarded(&ledger, &key, &[("RATE_LIMIT_PER_SECOND", "1000000")]);
    // Calls to models are for tenants.
    let mut operator = Caller::keyed(tai.address(), &key);
    let grant = json!({"tenant_id": "acme", "entitlement_id": "enterprise", "action": "grant"});
    assert_eq!(operator.post("/marketplace", &grant).status, 200);
    let tenant = issue(&mut operator, &json!({"tenant_id": "acme"})).text;
    let (status, said) = schemathesis(room.path(), &tai, (&key, &tenant));
    assert!(status.success(), "{status}: {said}");

    let mut client = client(tai.address());
    assert_all_were_reached(&mut client);
    let health = get(&mut client, "/health");
    let shown = health.json().unwrap();
    assert_eq!((health.status, &shown["tampered"]), (200, &Value::Bool(false)), "{shown}");
    assert_eq!(tai.errors(), Vec::<String>::new());
    stop(tai);
    assert_verified(&ledger);
}

/// Runs it against the service; gives how it ended and what it said.
fn schemathesis(room: &Path, tai: &Tai, (key, tenant): (&str, &str)) -> (ExitStatus, String) {
    let folder = place::repository().join("tests/python");
    let requirements = std::fs::read_to_string(folder.join("requirements.txt")).unwrap();
    let program = python::venv(&requirements).unwrap().with_file_name("schemathesis");
    let said = room.join("schemathesis.txt");
    let file = File::create(&said).unwrap();
    let mut child = Command::new(program)
        .arg("--config-file")
        .arg(folder.join("schemathesis.toml"))
        .arg("run")
        .arg(format!("http://{}/openapi.json", tai.address()))
        .arg("--no-color")
        // Nothing of ours: a proxy in the environment would be asked for loopback too.
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("TAI_KEY", key)
        .env("TAI_TENANT_KEY", tenant)
        .env("SCHEMATHESIS_HOOKS", folder.join("schemathesis_hooks.py"))
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .current_dir(room)
        .stdin(Stdio::null())
        .stdout(file.try_clone().unwrap())
        .stderr(file)
        .spawn()
        .unwrap();
    let deadline = Instant::now() + TIME_MAX;
    let status = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        if Instant::now() > deadline {
            child.kill().unwrap();
            break child.wait().unwrap();
        }
        // Between two looks at the child, under the deadline above: no wait with a limit is in std.
        std::thread::sleep(POLL_INTERVAL);
    };
    (status, std::fs::read_to_string(said).unwrap())
}

/// Every operation was answered by its handler, and not only by those who stand before it: a run
/// without its key, or from a source that it had blocked, would find nothing wrong.
fn assert_all_were_reached(client: &mut Client) {
    let statuses = statuses(client);
    let document = get(client, "/openapi.json").json().unwrap();
    for (path, operations) in document["paths"].as_object().unwrap() {
        if LEFT_OUT.contains(&path.as_str()) {
            continue;
        }
        for method in operations.as_object().unwrap().keys() {
            let operation = (path.clone(), method.to_uppercase());
            let met = statuses.get(&operation).map_or(&[][..], Vec::as_slice);
            let reached = met.iter().any(|status| ![401, 403, 429].contains(status));
            assert!(reached, "{operation:?} was answered with {met:?} only");
            // A tenant's key may not be issued for an operator; nothing else was forbidden.
            assert!(path == "/admin/keys" || !met.contains(&403), "{operation:?}");
        }
    }
}

/// The statuses that each route was answered with, by path and method.
fn statuses(client: &mut Client) -> BTreeMap<(String, String), Vec<u16>> {
    let metrics = get(client, "/metrics");
    let text = String::from_utf8(metrics.body).unwrap();
    let mut found = BTreeMap::<_, Vec<u16>>::new();
    for line in text.lines().filter(|line| line.starts_with("tai_http_requests_total{")) {
        let label = |name: &str| {
            let (_, rest) = line.split_once(&format!("{name}=\"")).unwrap();
            rest.split_once('"').unwrap().0.to_owned()
        };
        let operation = (label("endpoint"), label("method"));
        found.entry(operation).or_default().push(label("status").parse().unwrap());
    }
    found
}
