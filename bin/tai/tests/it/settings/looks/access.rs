//! The looks at settings of keys, signatures, sources and the limits of callers.
//!
//! Owns: as the looks beside it. Refuses to know: what may be done with a key.

use serde_json::{Value, json};

use super::quote;
use crate::callers::*;
use crate::support::*;

pub(in crate::settings) fn auth_required() {
    for (when, status) in [("auto", 200), ("true", 401)] {
        let (_room, dir) = room();
        let tai = start(&dir, &[("AUTH_REQUIRED", when), ("ADMIN_API_KEY", &new_key())]);
        assert_eq!(quote(&mut client(tai.address()), "acme").status, status);
        stop(tai);
    }
}

pub(in crate::settings) fn admin_api_key() {
    let keys = [new_key(), new_key()];
    for set in &keys {
        let (_room, dir) = room();
        let tai = start(&dir, &[("ADMIN_API_KEY", set)]);
        for shown in &keys {
            let response = Caller::keyed(tai.address(), shown).get("/admin/queues");
            assert_eq!(response.status, if shown == set { 200 } else { 401 });
        }
        stop(tai);
    }
}

pub(in crate::settings) fn verify_signatures() {
    let secret = base64(&chance());
    for (flag, status) in [("false", 200), ("true", 401)] {
        let (_room, dir) = room();
        let tai = start(&dir, &[("VERIFY_SIGNATURES", flag), ("HMAC_SECRET_KEY", &secret)]);
        let response = post(&mut client(tai.address()), "/marketplace", &event("acme", "grant"));
        assert_eq!(response.status, status);
        stop(tai);
    }
}

pub(in crate::settings) fn hmac_secret_key() {
    let body = event("acme", "grant");
    signed_by_either("HMAC_SECRET_KEY", &|secret| {
        ("X-Signature", signature(secret, body.to_string().as_bytes()))
    });
}

pub(in crate::settings) fn jwt_secret_key() {
    let body = event("acme", "grant");
    signed_by_either("JWT_SECRET_KEY", &|secret| {
        ("Authorization", format!("Bearer {}", token(secret, &claims(&body))))
    });
}

/// Of two secrets the one that is set opens the door, and the other does not.
fn signed_by_either(setting: &str, header: &dyn Fn(&[u8]) -> (&'static str, String)) {
    let secrets = [chance(), chance()];
    for set in &secrets {
        let (_room, dir) = room();
        let tai = start(&dir, &[("VERIFY_SIGNATURES", "true"), (setting, &base64(set))]);
        for used in &secrets {
            let (name, value) = header(used);
            let mut sender = Caller::local(tai.address()).with(name, &value);
            let response = sender.post("/marketplace", &event("acme", "grant"));
            assert_eq!(response.status, if used == set { 200 } else { 401 });
        }
        stop(tai);
    }
}

pub(in crate::settings) fn trusted_proxy_hops() {
    let admin = new_key();
    for (hops, source) in [("0", "127.0.0.1"), ("1", "203.0.113.7"), ("2", "198.51.100.9")] {
        let (_room, dir) = room();
        let tai = start(&dir, &[("TRUSTED_PROXY_HOPS", hops), ("ADMIN_API_KEY", &admin)]);
        let way = "192.0.2.1, 198.51.100.9, 203.0.113.7";
        let mut sender = Caller::keyed(tai.address(), &admin).with("X-Forwarded-For", way);
        assert_eq!(sender.quote("acme").status, 200);
        let line = until("the line of the call", || {
            let lines = tai.log_lines();
            let line = lines.iter().find(|line| line.contains("\"path\":\"/marketplace\""));
            line.map(|line| serde_json::from_str::<Value>(line).unwrap())
        });
        assert_eq!(line["client_ip"], source, "{hops}");
        stop(tai);
    }
}

pub(in crate::settings) fn rate_limit_per_second() {
    for (rate, limited) in [("1", true), ("1000000", false)] {
        let envs = [("RATE_LIMIT_PER_SECOND", rate), ("RATE_LIMIT_BURST", "1")];
        assert_eq!(turned_back(&envs) > 0, limited, "{rate}");
    }
}

pub(in crate::settings) fn rate_limit_burst() {
    for (burst, limited) in [("1", true), ("100", false)] {
        let envs = [("RATE_LIMIT_PER_SECOND", "1"), ("RATE_LIMIT_BURST", burst)];
        assert_eq!(turned_back(&envs) > 0, limited, "{burst}");
    }
}

/// Of a hundred looks with one key, how many are refused.
fn turned_back(envs: &[(&str, &str)]) -> usize {
    let (_room, dir) = room();
    let tai = start(&dir, envs);
    let key = issue(&mut Caller::local(tai.address()), &json!({"tenant_id": "acme"}));
    let mut holder = Caller::keyed(tai.address(), &key.text);
    let path = "/receipts/00000000000000000000000000000000";
    let statuses: Vec<u16> = (0..100).map(|_| holder.get(path).status).collect();
    assert!(statuses.iter().all(|status| [404, 429].contains(status)), "{statuses:?}");
    stop(tai);
    statuses.iter().filter(|status| **status == 429).count()
}

pub(in crate::settings) fn tenant_max_concurrent() {
    for (limit, status) in [("1", 429), ("2", 404)] {
        let (_room, dir) = room();
        let tai = start(&dir, &[("TENANT_MAX_CONCURRENT", limit)]);
        let key = issue(&mut Caller::local(tai.address()), &json!({"tenant_id": "late"}));
        let mut half = Half::begin(tai.address(), Some(&key.text));
        let mut second = Caller::keyed(tai.address(), &key.text);
        assert_eq!(second.get("/receipts/none").status, status, "{limit}");
        half.finish();
        assert_eq!(half.status(), Some(200));
        stop(tai);
    }
}
