//! The first key, made while the service is stopped, and what its holder then does with it.
//!
//! Owns: `tai key create`, and `tai ctl` against a service that asks for keys. Refuses to know:
//! scopes and limits of keys, which the front door has.

use std::net::SocketAddr;
use std::path::Path;

use serde_json::Value;

use crate::support::*;

/// `tai ctl` with a key.
fn ctl(dir: &Path, address: SocketAddr, key: &str, words: &[&str]) -> Said {
    let mut command = command(dir, &[&["ctl"], words].concat());
    command.env("TAI_URL", format!("http://{address}")).env("TAI_KEY", key);
    command.output().unwrap().into()
}

/// The key's text, and its id from the remark beside it.
fn made(said: &Said) -> (String, String) {
    assert_eq!(said.code, Some(0), "{}", said.err);
    let key = said.out.strip_suffix('\n').unwrap();
    assert!(key.starts_with("taik_") && !key.contains('\n'), "{}", said.out);
    let id = said.err.split(',').next().unwrap();
    assert!(id.starts_with("key_") && !said.err.contains(key), "{}", said.err);
    (key.to_owned(), id.to_owned())
}

#[test]
fn the_first_key_is_made_without_a_service_and_opens_it() {
    let (_room, dir) = room();
    let create = |more: &[&str]| tai(&dir, &[&["key", "create", "--admin"], more].concat());
    let (admin, admin_id) = made(&create(&["--label", "first"]));
    let (other, _) = made(&create(&[]));
    assert_ne!(admin, other);
    let receipts = assert_verified(&dir);
    assert!(receipts.iter().any(|it| it["stream"] == "_keys" && it["actor"] == "operator"));
    let text = receipts.iter().map(Value::to_string).collect::<String>();
    assert!(!text.contains(&admin), "the ledger has no text of a key");

    let service = start(&dir, &[("AUTH_REQUIRED", "true")]);
    let ctl = |key: &str, words: &[&str]| ctl(&dir, service.address(), key, words);
    let refused = create(&[]);
    assert_eq!((refused.code, refused.out.as_str()), (Some(1), ""));
    assert!(refused.err.contains("tai ctl key create"), "{}", refused.err);

    let listed = ctl(&admin, &["key", "list"]);
    assert_eq!(listed.code, Some(0), "{}", listed.err);
    let row = listed.out.lines().find(|line| line.starts_with(&admin_id)).unwrap();
    assert!(row.contains("first") && row.contains("admin:write"), "{}", listed.out);
    for key in ["", "taik__keys.00", &admin[..admin.len() - 1]] {
        let said = ctl(key, &["key", "list"]);
        assert_eq!((said.code, said.out.as_str()), (Some(1), ""), "{key:?}");
        assert!(said.err.contains("unauthorized"), "{}", said.err);
    }

    let (tenants, id) = made(&ctl(&admin, &["key", "create", "--tenant", "acme"]));
    let forbidden = ctl(&tenants, &["queues"]);
    assert!(forbidden.code == Some(1) && forbidden.err.contains("forbidden"), "{}", forbidden.err);
    let (rotated, _) = made(&ctl(&admin, &["key", "rotate", &id, "--tenant", "acme"]));
    assert_ne!(rotated, tenants);
    let shown = ctl(&admin, &["tenant", "show", "acme"]);
    assert!(shown.out.contains("tenant_id: acme"), "{}{}", shown.out, shown.err);
    let gone = ctl(&other, &["key", "revoke", &admin_id]);
    assert_eq!(gone.code, Some(0), "{}", gone.err);
    assert!(gone.out.contains("done, receipt rcpt_"), "{}", gone.out);
    assert_eq!(ctl(&admin, &["queues"]).code, Some(1), "a revoked key opens nothing");
    assert_eq!(ctl(&other, &["queues"]).code, Some(0));
    stop(service);
    assert_verified(&dir);
}

#[test]
fn no_key_is_made_where_it_could_not_be_kept_or_asked_for() {
    let (_room, dir) = room();
    let mut in_memory = command(&dir, &["key", "create", "--admin"]);
    let said = Said::from(in_memory.env("RECEIPT_LEDGER_BACKEND", "memory").output().unwrap());
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    assert!(said.err.contains("RECEIPT_LEDGER_BACKEND"), "{}", said.err);
    assert!(!dir.exists());
    assert_eq!(tai(&dir, &["key", "create"]).code, Some(2), "which kind is not guessed");
    let label = "x".repeat(65);
    let said = tai(&dir, &["key", "create", "--admin", "--label", &label]);
    assert_eq!((said.code, said.out.as_str()), (Some(1), ""));
    assert!(said.err.contains("label"), "{}", said.err);
}
