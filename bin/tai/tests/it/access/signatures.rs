//! Signatures of entitlement events, over the real door.
//!
//! Owns: which events need one and which signature is taken. Refuses to know: keys, except that
//! they are no signatures.

use serde_json::{Value, json};
use testkit::http::Response;

use crate::callers::*;
use crate::support::*;

const FORM: (&str, &str) = ("VERIFY_SIGNATURES", "true");

fn send(caller: Caller, body: &Value) -> Response {
    let mut caller = caller;
    caller.post("/marketplace", body)
}

#[test]
fn an_event_is_taken_by_its_hmac() {
    let (_room, dir) = room();
    let (secret, admin_text) = (chance(), new_key());
    let set = base64(&secret);
    let tai = start_guarded(&dir, &admin_text, &[FORM, ("HMAC_SECRET_KEY", &set)]);
    let stranger = || Caller::local(tai.address());
    let admin = || Caller::keyed(tai.address(), &admin_text);
    let (grant, suspend) = (event("acme", "grant"), event("acme", "suspend"));
    let signed = signature(&secret, grant.to_string().as_bytes());
    let with = |value: &str| stranger().with("X-Signature", value);

    for (body, value) in [
        (&suspend, signed.as_str()),
        (&grant, &signature(&chance(), grant.to_string().as_bytes())),
        (&grant, &signed[1..]),
        (&grant, "sha256="),
        (&grant, ""),
    ] {
        assert_refused(&send(with(value), body), 401, "signature_invalid");
    }
    assert_refused(&send(stranger(), &grant), 401, "signature_invalid");
    assert_refused(&send(admin(), &grant), 401, "signature_invalid");
    assert_eq!(send(with(&signed), &grant).status, 200);
    let prefixed = format!("sha256={}", signature(&secret, suspend.to_string().as_bytes()));
    let response = send(with(&prefixed), &suspend);
    assert_eq!((response.status, &response.json().unwrap()["actor"]), (200, &json!("marketplace")));

    // A price is asked for with a key; signed or not.
    let call = json!({"customer_id": "acme"});
    let signed = signature(&secret, call.to_string().as_bytes());
    assert_refused(&send(with(&signed), &call), 401, "unauthorized");
    assert_eq!(send(admin(), &call).status, 200);
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn a_tenants_key_and_a_signature_must_both_fit() {
    let (_room, dir) = room();
    let (secret, admin_text) = (chance(), new_key());
    let set = base64(&secret);
    let tai = start_guarded(&dir, &admin_text, &[FORM, ("HMAC_SECRET_KEY", &set)]);
    let mut admin = Caller::keyed(tai.address(), &admin_text);
    let key = issue(&mut admin, &json!({"tenant_id": "acme"}));
    for (tenant, status) in [("other", 403), ("acme", 200)] {
        let body = event(tenant, "grant");
        let signed = signature(&secret, body.to_string().as_bytes());
        let response = send(key.caller(tai.address()).with("X-Signature", &signed), &body);
        assert_eq!(response.status, status, "{tenant}");
    }
    stop(tai);
}

#[test]
fn a_push_carries_no_signature_and_so_a_tenant_sends_no_event_by_one() {
    let (_room, dir) = room();
    let secret = base64(&chance());
    let tai = start(&dir, &[FORM, ("HMAC_SECRET_KEY", &secret)]);
    let mut local = Caller::local(tai.address());
    let tenants = issue(&mut local, &json!({"tenant_id": "acme"}));
    let services = issue(&mut local, &json!({}));
    let message = push("m1", &event("acme", "grant"));
    let pushed = tenants.caller(tai.address()).post("/pubsub", &message);
    assert_refused(&pushed, 401, "signature_invalid");
    assert_eq!(services.caller(tai.address()).post("/pubsub", &message).status, 200);
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn an_event_is_taken_by_a_token_that_names_it() {
    let (_room, dir) = room();
    let secret = chance();
    let tai = start(&dir, &[FORM, ("JWT_SECRET_KEY", &base64(&secret))]);
    let grant = event("acme", "grant");
    let sent = |token: &str| {
        let bearer = format!("Bearer {token}");
        send(Caller::local(tai.address()).with("Authorization", &bearer), &grant)
    };
    let changed = |name: &str, value: Value| {
        let mut claims = claims(&grant);
        claims[name] = value;
        token(&secret, &claims)
    };
    let (fresh, now) = (claims(&grant), unix_secs());
    let unsigned = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
    let payload = token(&secret, &fresh).split('.').nth(1).unwrap().to_owned();
    for bad in [
        changed("tenant_id", json!("other")),
        changed("entitlement_id", json!("starter")),
        changed("exp", json!(now - 60)),
        changed("iat", json!(now - 7_200)),
        changed("nbf", json!(now + 600)),
        changed("exp", Value::Null),
        token(&chance(), &fresh),
        format!("{unsigned}.{payload}."),
        "garbage".to_owned(),
        "a.b.c".to_owned(),
    ] {
        let response = sent(&bad);
        assert_eq!(response.status, 401, "{bad}: {}", text(&response));
    }
    assert_refused(&sent(&changed("tenant_id", json!("other"))), 401, "signature_invalid");
    assert_eq!(sent(&token(&secret, &fresh)).status, 200);
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn signatures_without_a_secret_stop_the_start() {
    let (_room, dir) = room();
    for verb in ["serve", "check"] {
        let mut start = command(&dir, &[verb]);
        start.env("VERIFY_SIGNATURES", "true").env("PORT", "0");
        let said = Said::from(start.output().unwrap());
        assert_eq!(said.code, Some(2), "{}", said.err);
        assert!(said.err.contains("VERIFY_SIGNATURES"), "{}", said.err);
    }
    assert!(!dir.exists(), "no ledger was made");
}
