//! The life of a key: issue, rotation, end, revocation, and what survives the process.
//!
//! Owns: from which moment on a key counts and from which it does not, and that its text is
//! nowhere but in the answer. Refuses to know: what a key permits.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::{Value, json};
use testkit::tai::Tai;

use super::flipped;
use crate::callers::*;
use crate::support::*;

/// What a look with the key is answered with.
fn status(tai: &Tai, key: &Issued) -> u16 {
    key.caller(tai.address()).get("/receipts?limit=1").status
}

fn rotate(admin: &mut Caller, id: &str, order: &Value) -> Issued {
    issued(&admin.post(&format!("/admin/keys/{id}/rotate"), order))
}

fn listed(admin: &mut Caller, query: &str) -> Vec<Value> {
    let response = admin.get(&format!("/admin/keys{query}"));
    assert_eq!(response.status, 200, "{}", text(&response));
    response.json().unwrap()["keys"].as_array().unwrap().clone()
}

fn ids(keys: &[Value]) -> Vec<&str> {
    keys.iter().map(|key| key["id"].as_str().unwrap()).collect()
}

/// The texts of keys stand in no log line and in no file, nor in what is exported.
fn assert_nowhere(lines: &[String], dir: &Path, texts: &[&str]) {
    let export = tai(dir, &["ledger", "export"]);
    assert_eq!(export.code, Some(0), "{}", export.err);
    let files = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    let files = files.filter(|path| path.is_file()).map(|path| fs::read(path).unwrap());
    let files: Vec<String> =
        files.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect();
    assert!(!files.is_empty() && !lines.is_empty());
    for text in texts {
        // The random part alone would do for a thief who knows the owner.
        let secret = &text[text.len().saturating_sub(80)..];
        let shown = |place: &str| place.contains(secret);
        assert!(!lines.iter().any(|line| shown(line)), "in the log");
        assert!(!shown(&export.out), "in the export");
        assert!(!files.iter().any(|file| shown(file)), "in a file");
    }
}

#[test]
fn a_key_counts_from_its_answer_on_and_no_longer_than_its_revocation() {
    let (_room, dir) = room();
    let admin_text = new_key();
    let mut tai = start_guarded(&dir, &admin_text, &[]);
    let mut admin = Caller::keyed(tai.address(), &admin_text);
    let order = json!({"tenant_id": "acme", "label": "billing"});
    let tenants = issue(&mut admin, &order);
    let services = issue(&mut admin, &json!({"scopes": ["receipts:read", "admin:read"]}));
    for key in [&tenants, &services] {
        assert_eq!(status(&tai, key), 200, "at once");
    }
    for (query, key, label, scopes) in [
        (
            "?tenant_id=acme",
            &tenants,
            json!("billing"),
            json!(["marketplace:write", "signals:write", "receipts:read", "ai:invoke"]),
        ),
        ("", &services, Value::Null, json!(["receipts:read", "admin:read"])),
    ] {
        let keys = listed(&mut admin, query);
        assert_eq!(ids(&keys), [key.id.as_str()]);
        assert_eq!((&keys[0]["label"], &keys[0]["scopes"]), (&label, &scopes));
        let members: Vec<&String> = keys[0].as_object().unwrap().keys().collect();
        assert_eq!(members, ["expires_at", "id", "issued_at", "label", "scopes"]);
    }
    let id = &tenants.id;
    let unnamed = admin.delete(&format!("/admin/keys/{id}"));
    assert_refused(&unnamed, 422, "state_error");
    let revoked = admin.delete(&format!("/admin/keys/{id}?tenant_id=acme"));
    assert_eq!(revoked.status, 200);
    assert_eq!(status(&tai, &tenants), 401, "from the answer on");
    assert_eq!(status(&tai, &services), 200);
    assert!(listed(&mut admin, "?tenant_id=acme").is_empty());
    let again = admin.delete(&format!("/admin/keys/{id}?tenant_id=acme"));
    assert_refused(&again, 422, "state_error");

    // Also after the state was read anew from the ledger.
    tai.kill().unwrap();
    let lines = tai.log_lines();
    let tai = start_guarded(&dir, &admin_text, &[]);
    assert_eq!((status(&tai, &tenants), status(&tai, &services)), (401, 200));
    let all_lines = [lines, tai.log_lines()].concat();
    stop(tai);
    assert_nowhere(&all_lines, &dir, &[&tenants.text, &services.text, &admin_text]);
    assert_verified(&dir);
}

#[test]
fn a_revoked_key_is_refused_however_often_it_is_asked_with_meanwhile() {
    const ROUNDS: usize = 30;
    let (_room, dir) = room();
    let tai = start(&dir, &[("RATE_LIMIT_BURST", "1000000")]);
    let address = tai.address();
    let mut local = Caller::local(address);
    for round in 0..ROUNDS {
        let key = issue(&mut local, &json!({"tenant_id": "acme"}));
        let (revoked, asked) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            let _end = Finally(|| revoked.store(true, Ordering::Release));
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut holder = key.caller(address);
                    loop {
                        let is_over = revoked.load(Ordering::Acquire);
                        let status = holder.get("/receipts/none").status;
                        asked.fetch_add(1, Ordering::AcqRel);
                        assert!(!is_over || status == 401, "{round}: {status} after its end");
                        if is_over {
                            break;
                        }
                    }
                });
            }
            until("some use of the key", || (asked.load(Ordering::Acquire) > 8).then_some(()));
            let path = format!("/admin/keys/{}?tenant_id=acme", key.id);
            assert_eq!(local.delete(&path).status, 200);
        });
    }
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn a_key_ends_by_itself() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut local = Caller::local(tai.address());
    let lasting = issue(&mut local, &json!({"tenant_id": "acme", "expires_in_s": 3_600}));
    let brief = issue(&mut local, &json!({"tenant_id": "acme", "expires_in_s": 1}));
    until("the end of the key", || (status(&tai, &brief) == 401).then_some(()));
    assert_eq!(status(&tai, &lasting), 200);
    let keys = listed(&mut local, "?tenant_id=acme");
    assert_eq!(ids(&keys), [lasting.id.as_str()]);
    assert!(keys[0]["expires_at"].as_i64().unwrap() > unix_secs());
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn a_rotation_leaves_both_keys_valid_for_its_overlap() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut local = Caller::local(tai.address());
    let order = json!({"tenant_id": "acme", "label": "billing", "scopes": ["receipts:read"]});
    let first = issue(&mut local, &order);
    let overlap = |seconds: i64| json!({"tenant_id": "acme", "overlap_s": seconds});
    let second = rotate(&mut local, &first.id, &overlap(3_600));
    assert_eq!((status(&tai, &first), status(&tai, &second)), (200, 200));
    for key in listed(&mut local, "?tenant_id=acme") {
        assert_eq!((&key["label"], &key["scopes"]), (&json!("billing"), &json!(["receipts:read"])));
        assert_eq!(key["expires_at"].is_i64(), key["id"] == first.id.as_str());
    }
    let third = rotate(&mut local, &second.id, &overlap(0));
    assert_eq!([&first, &second, &third].map(|key| status(&tai, key)), [200, 401, 200]);
    let fourth = rotate(&mut local, &third.id, &overlap(1));
    until("the end of the overlap", || (status(&tai, &third) == 401).then_some(()));
    assert_eq!(status(&tai, &fourth), 200);
    let path = format!("/admin/keys/{}/rotate", third.id);
    assert_refused(&local.post(&path, &overlap(0)), 422, "state_error");
    let lines = tai.log_lines();
    stop(tai);
    assert_nowhere(&lines, &dir, &[&first, &second, &third, &fourth].map(|key| key.text.as_str()));
    assert_verified(&dir);
}

#[test]
fn keys_survive_the_process_however_it_ends() {
    let (_room, dir) = room();
    let mut keys = Vec::new();
    for round in 0..6 {
        let mut tai = start(&dir, &[]);
        for key in &keys {
            assert_eq!(status(&tai, key), 200, "{round}");
        }
        let order = if round % 2 == 0 { json!({"tenant_id": "acme"}) } else { json!({}) };
        keys.push(issue(&mut Caller::local(tai.address()), &order));
        // Right after the answer: it was durable before.
        if round < 4 {
            tai.kill().unwrap();
        } else {
            stop(tai);
        }
    }
    assert_verified(&dir);
}

#[test]
fn every_character_of_a_key_counts() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut local = Caller::local(tai.address());
    for order in [json!({"tenant_id": "acme"}), json!({})] {
        let good = issue(&mut local, &order);
        for at in 0..good.text.len() {
            let text = flipped(&good.text, at);
            let bad = Issued { text, ..good.clone() };
            assert_eq!(status(&tai, &bad), 401, "{at}");
        }
        for text in [format!("{}0", good.text), good.text[..good.text.len() - 1].to_owned()] {
            assert_eq!(status(&tai, &Issued { text, ..good.clone() }), 401);
        }
        let renamed = good.text.replacen("acme", "acmf", 1).replacen("_keys", "acme", 1);
        assert_eq!(status(&tai, &Issued { text: renamed, ..good.clone() }), 401, "another owner");
        assert_eq!(status(&tai, &good), 200);
    }
    stop(tai);
}

#[test]
fn a_key_in_the_address_of_a_push_is_taken_and_not_logged() {
    let (_room, dir) = room();
    let admin_text = new_key();
    let tai = start_guarded(&dir, &admin_text, &[]);
    let mut admin = Caller::keyed(tai.address(), &admin_text);
    let both = json!({"tenant_id": "a@b", "scopes": ["signals:write", "marketplace:write"]});
    let key = issue(&mut admin, &both);
    let mut subscription = Caller::local(tai.address());
    let mut pushed = |path: &str, token: &str, number: u32| {
        let message = push(&format!("m-{number}"), &event("a@b", "grant"));
        subscription.post(&format!("{path}?token={token}"), &message)
    };
    let encoded = key.text.replace('@', "%40");
    for (number, token) in (0..).zip([&key.text, &encoded]) {
        let response = pushed("/pubsub", token, number);
        assert_eq!(response.status, 200, "{}", text(&response));
        assert_eq!(response.json().unwrap()["actor"], key.id.as_str());
    }
    let wrong = flipped(&key.text, key.text.len() - 1);
    assert_refused(&pushed("/pubsub", &wrong, 2), 401, "unauthorized");
    assert_refused(&pushed("/marketplace", &key.text, 3), 401, "unauthorized");
    until("the lines of all requests", || {
        let lines = tai.log_lines();
        let ended = lines.iter().filter(|line| line.contains("\"event\":\"request_completed\""));
        (ended.count() >= 4).then_some(())
    });
    let lines = tai.log_lines();
    stop(tai);
    assert_nowhere(&lines, &dir, &[&key.text, &wrong, &admin_text]);
}

#[test]
fn a_tenant_holds_so_many_keys_and_none_of_an_operator() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut local = Caller::local(tai.address());
    let order = json!({"tenant_id": "acme"});
    let keys: Vec<Issued> =
        (0..types::limits::KEYS_PER_TENANT).map(|_| issue(&mut local, &order)).collect();
    assert_refused(&local.post("/admin/keys", &order), 422, "too_many_keys");
    // One that leaked can be replaced all the same.
    rotate(&mut local, &keys[0].id, &json!({"tenant_id": "acme", "overlap_s": 0}));
    let wide = json!({"tenant_id": "other", "scopes": ["admin:read"]});
    assert_refused(&local.post("/admin/keys", &wide), 403, "forbidden");
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn a_key_for_receipts_does_not_show_the_services_own() {
    let (_room, dir) = room();
    let admin_text = new_key();
    let tai = start_guarded(&dir, &admin_text, &[]);
    let mut admin = Caller::keyed(tai.address(), &admin_text);
    issue(&mut admin, &json!({"tenant_id": "acme"}));
    let narrow = issue(&mut admin, &json!({"scopes": ["receipts:read"]}));
    let wide = issue(&mut admin, &json!({"scopes": ["receipts:read", "admin:read"]}));
    let streams = |key: &Issued, query: &str| {
        let response = key.caller(tai.address()).get(&format!("/receipts{query}"));
        let page = response.json().unwrap();
        let rows = page["receipts"].as_array().cloned().unwrap_or_default();
        let of = |row: &Value| row["stream"].as_str().unwrap().to_owned();
        (response.status, rows.iter().map(of).collect::<BTreeSet<_>>())
    };
    let set = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(streams(&narrow, ""), (200, set(&["acme"])));
    assert_eq!(streams(&narrow, "?stream=_keys").0, 403);
    assert_eq!(streams(&wide, ""), (200, set(&["_keys", "_ops", "acme"])));
    assert_eq!(streams(&wide, "?stream=_keys"), (200, set(&["_keys"])));

    let page = wide.caller(tai.address()).get("/receipts?stream=_keys").json().unwrap();
    let path = format!("/receipts/{}", page["receipts"][0]["id"].as_str().unwrap());
    assert_eq!(narrow.caller(tai.address()).get(&path).status, 404);
    assert_eq!(wide.caller(tai.address()).get(&path).status, 200);
    stop(tai);
}
