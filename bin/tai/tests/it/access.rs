//! Who may do what: scopes, tenants (INV-12), the open door and the one beyond loopback.
//!
//! Owns: that each route of the table asks for its scope, that a tenant's key reaches no other
//! tenant, and when a service may be without keys. Refuses to know: what each route does once it
//! lets somebody in.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use gateway::{Access, ROUTES, Route};
use serde_json::{Value, json};
use testkit::http::Response;
use types::Scope;

use crate::callers::*;
use crate::support::*;

mod keys;
mod signatures;

/// Routes after which little can be asked of the service: each gets one of its own.
const LAST: [&str; 3] = ["/admin/drain", "/admin/stop", "/admin/restart"];

/// A request to the route, as empty as may be.
fn ask(caller: &mut Caller, route: &Route) -> Response {
    let body = if route.method == "GET" { Value::Null } else { json!({}) };
    caller.send(route.method, &path_of(route), &body)
}

fn path_of(route: &Route) -> String {
    let parts = route.path.split('/');
    parts.map(|part| if part.starts_with('{') { "x" } else { part }).collect::<Vec<_>>().join("/")
}

fn named(route: &Route) -> String {
    format!("{} {}", route.method, route.path)
}

/// The routes that ask for a scope, and which.
fn scoped() -> impl Iterator<Item = (&'static Route, Scope)> {
    ROUTES.iter().filter_map(|route| match route.access {
        Access::Scope(scope) => Some((route, scope)),
        Access::Open => None,
    })
}

fn words(scopes: impl Iterator<Item = Scope>) -> Value {
    scopes.map(Scope::as_str).collect()
}

/// Every scope that does not permit what `scope` does.
fn all_but(scope: Scope) -> Value {
    let implies = |other: Scope| scope == Scope::AdminRead && other == Scope::AdminWrite;
    words(Scope::ALL.iter().copied().filter(|other| *other != scope && !implies(*other)))
}

/// The text with one character changed.
fn flipped(text: &str, at: usize) -> String {
    let mut bytes = text.as_bytes().to_vec();
    bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
    String::from_utf8(bytes).unwrap()
}

/// A key that is good, for the same owner, at another service.
fn foreign() -> String {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let key = issue(&mut Caller::local(tai.address()), &json!({}));
    stop(tai);
    key.text
}

#[test]
fn every_route_asks_for_its_scope() {
    let (_room, dir) = room();
    let admin_text = new_key();
    let tai = start_guarded(&dir, &admin_text, &[]);
    let address = tai.address();
    let mut admin = Caller::keyed(address, &admin_text);
    let good = issue(&mut admin, &json!({})).text;
    let bad = [
        String::new(),
        "taik_".to_owned(),
        "garbage".to_owned(),
        format!("taik__keys.{}", "0".repeat(80)),
        flipped(&good, good.len() - 1),
        flipped(&good, good.len() - 80),
        flipped(&admin_text, 0),
        foreign(),
    ];
    let mut strangers: Vec<Caller> = bad
        .iter()
        .flat_map(|key| {
            let bearer = format!("Bearer {key}");
            [Caller::keyed(address, key), Caller::local(address).with("Authorization", &bearer)]
        })
        .chain([Caller::local(address)])
        .chain(
            [&format!("Basic {}", base64(good.as_bytes())), &good]
                .map(|value| Caller::local(address).with("Authorization", value)),
        )
        .collect();
    for route in ROUTES {
        for (nth, stranger) in strangers.iter_mut().enumerate() {
            let response = ask(stranger, route);
            match route.access {
                Access::Open => assert_eq!(response.status, 200, "{nth} {}", named(route)),
                Access::Scope(_) => {
                    assert_eq!(response.status, 401, "{nth} {}: {}", named(route), text(&response));
                    assert_refused(&response, 401, "unauthorized");
                    assert_eq!(response.header("www-authenticate"), Some("Bearer"));
                }
            }
        }
    }
    for scope in Scope::ALL {
        let mut without = issue(&mut admin, &json!({"scopes": all_but(*scope)})).caller(address);
        let mut order = json!({"scopes": [scope.as_str()]});
        if *scope == Scope::AiInvoke {
            // Somebody has to pay.
            order["tenant_id"] = "acme".into();
        }
        let mut with = issue(&mut admin, &order).caller(address);
        for (route, _) in scoped().filter(|(_, needed)| needed == scope) {
            assert_refused(&ask(&mut without, route), 403, "forbidden");
            if !LAST.contains(&route.path) {
                let response = ask(&mut with, route);
                assert!(is_let_in(&response), "{}: {}", named(route), text(&response));
            }
        }
    }
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn who_may_write_as_an_operator_may_drain_restart_and_stop() {
    for (route, scope) in scoped().filter(|(route, _)| LAST.contains(&route.path)) {
        let (_room, dir) = room();
        let admin = new_key();
        let tai = start_guarded(&dir, &admin, &[]);
        let mut issuer = Caller::keyed(tai.address(), &admin);
        let key = issue(&mut issuer, &json!({"scopes": [scope.as_str()]}));
        let response = ask(&mut key.caller(tai.address()), route);
        assert_eq!(response.status, 202, "{}", named(route));
    }
}

#[test]
fn every_route_of_the_table_is_asked_for() {
    let (all, asked): (BTreeSet<_>, BTreeSet<_>) =
        (ROUTES.iter().map(named).collect(), scoped().map(|(route, _)| named(route)).collect());
    let open: Vec<_> = all.difference(&asked).cloned().collect();
    assert!(open.iter().all(|name| name.starts_with("GET ")), "{open:?}");
    let scopes: BTreeSet<Scope> = scoped().map(|(_, scope)| scope).collect();
    assert_eq!(scopes.len(), Scope::ALL.len(), "a scope that opens nothing");
    for last in LAST {
        assert!(scoped().any(|(route, _)| route.path == last), "{last}");
    }
}

#[test]
fn a_tenants_key_names_its_own_tenant_only() {
    let (_room, dir) = room();
    let admin_text = new_key();
    let tai = start_guarded(&dir, &admin_text, &[]);
    let mut admin = Caller::keyed(tai.address(), &admin_text);
    let mut acme = issue(&mut admin, &json!({"tenant_id": "acme"})).caller(tai.address());
    let now_ms = unix_secs() * 1000;
    let measured = |tenant: &str| json!({"tenant_id": tenant, "metric": "cpu", "value": 20, "timestamp_ms": now_ms});
    let untenanted = json!({"signal": "test", "timestamp": "2024-01-01T00:00:00Z"});
    for (path, own, others) in [
        ("/marketplace", event("acme", "grant"), vec![event("other", "grant")]),
        ("/marketplace", json!({"customer_id": "acme"}), vec![json!({"customer_id": "other"})]),
        (
            "/pubsub",
            push("m1", &measured("acme")),
            vec![
                push("m2", &measured("other")),
                push("m3", &event("other", "grant")),
                push("m4", &untenanted),
            ],
        ),
    ] {
        for other in &others {
            assert_refused(&acme.post(path, other), 403, "forbidden");
        }
        assert_eq!(acme.post(path, &own).status, 200, "{path} {own}");
        for other in others {
            assert_eq!(admin.post(path, &other).status, 200, "the service's key: {path} {other}");
        }
    }
    let found = acme.receipts("limit=100");
    assert!(found.len() >= 4, "{found:?}");
    assert!(found.iter().all(|it| it["tenant_id"] == "acme" && it["stream"] == "acme"));
    assert_eq!(acme.receipts("tenant_id=acme"), found);
    assert_eq!(admin.receipts("tenant_id=acme"), found);
    for query in ["tenant_id=other", "stream=other", "stream=_ops", "stream=_keys"] {
        assert_refused(&acme.get(&format!("/receipts?{query}")), 403, "forbidden");
    }
    for (query, status) in [("tenant_id=acme", 200), ("tenant_id=other", 404), ("stream=_ops", 404)]
    {
        let receipt = &admin.receipts(query)[0];
        let path = format!("/receipts/{}", receipt["id"].as_str().unwrap());
        let seen = acme.get(&path);
        assert_eq!(seen.status, status, "{query}");
        let unknown = acme.get("/receipts/none");
        let differs = |field: &str| seen.json().unwrap()[field] != unknown.json().unwrap()[field];
        assert!(status == 200 || !(differs("reason") || differs("detail")), "it is told apart");
        assert_eq!(admin.get(&path).status, 200);
    }
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn a_pushed_entitlement_needs_the_scope_of_the_other_door_too() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut local = Caller::local(tai.address());
    let now_ms = unix_secs() * 1000;
    let measured =
        json!({"tenant_id": "acme", "metric": "cpu", "value": 20, "timestamp_ms": now_ms});
    for (nth, (scopes, status)) in
        [(json!(["signals:write"]), 403), (json!(["signals:write", "marketplace:write"]), 200)]
            .into_iter()
            .enumerate()
    {
        let order = json!({"tenant_id": "acme", "scopes": scopes});
        let mut holder = issue(&mut local, &order).caller(tai.address());
        let signal = push(&format!("signal-{nth}"), &measured);
        assert_eq!(holder.post("/pubsub", &signal).status, 200, "{scopes}");
        let grant = push(&format!("grant-{nth}"), &event("acme", "grant"));
        assert_eq!(holder.post("/pubsub", &grant).status, status, "{scopes}");
    }
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn the_open_door_is_for_programs_on_this_machine() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let key = issue(&mut Caller::local(tai.address()), &json!({}));
    for (name, value) in [
        ("X-Forwarded-For", "127.0.0.1"),
        ("Forwarded", "for=127.0.0.1"),
        ("Via", "1.1 proxy"),
        ("Origin", "https://evil.example"),
        ("Sec-Fetch-Site", "cross-site"),
    ] {
        let mut caller = Caller::local(tai.address()).with(name, value);
        assert_refused(&caller.quote("acme"), 403, "forbidden");
        assert_refused(&caller.get("/admin/settings"), 403, "forbidden");
        let mut keyed = key.caller(tai.address()).with(name, value);
        assert_eq!(keyed.quote("acme").status, 200, "{name}: with a key it does not matter");
    }
    stop(tai);
}

#[test]
fn the_open_door_needs_no_key_and_takes_no_wrong_one() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut local = Caller::local(tai.address());
    let foreign = foreign();
    let mut wrong = [
        Caller::keyed(tai.address(), &foreign),
        Caller::local(tai.address()).with("Authorization", &format!("Bearer {foreign}")),
        Caller::local(tai.address()).with("Authorization", "Bearer a.b.c"),
    ];
    for (route, _) in scoped() {
        for wrong in &mut wrong {
            assert_refused(&ask(wrong, route), 401, "unauthorized");
        }
        if !LAST.contains(&route.path) {
            let response = ask(&mut local, route);
            assert!(is_let_in(&response), "{}: {}", named(route), text(&response));
        }
    }
    stop(tai);
    assert_verified(&dir);
}

/// Everything that is needed on `0.0.0.0` is there; where a key is needed, it is.
fn assert_guarded_beyond_loopback(dir: &std::path::Path, envs: &[(&str, &str)], key: &str) {
    let tai = start(dir, &[&[("BIND_ADDRESS", "0.0.0.0")], envs].concat());
    let mut nobody = Caller::local(tai.address());
    assert_eq!(nobody.get("/health").status, 200);
    assert_refused(&nobody.quote("acme"), 401, "unauthorized");
    assert_eq!(Caller::keyed(tai.address(), key).quote("acme").status, 200);
    stop(tai);
}

#[test]
fn beyond_loopback_nothing_begins_without_an_operators_key() {
    let (_room, dir) = room();
    let by = |verb: &str, name: &str, value: &str| {
        let mut start = command(&dir, &[verb]);
        start.env(name, value).env("PORT", "0");
        let began = Instant::now();
        (Said::from(start.output().unwrap()), began.elapsed())
    };
    let beyond = |verb: &str| by(verb, "BIND_ADDRESS", "0.0.0.0");
    // A second time: what the first one left behind is no key. Behind a proxy strangers come too.
    let proxied = by("serve", "TRUSTED_PROXY_HOPS", "1");
    let asked_for = by("serve", "AUTH_REQUIRED", "true");
    for (said, took) in [beyond("serve"), beyond("serve"), proxied, asked_for] {
        assert_eq!(said.code, Some(2), "{}", said.err);
        assert!(said.err.contains("BIND_ADDRESS"), "{}", said.err);
        assert!(took < Duration::from_secs(2), "{took:?}");
        assert!(!said.out.contains("\"event\":\"listening\""), "{}", said.out);
    }
    assert_eq!(beyond("check").0.code, Some(0), "whether there is a key is not looked at");

    let admin = new_key();
    assert_guarded_beyond_loopback(&dir, &[("ADMIN_API_KEY", &admin)], &admin);
    assert_eq!(beyond("serve").0.code, Some(2), "the key of the environment is kept nowhere");

    let made = tai(&dir, &["key", "create", "--admin"]);
    assert_eq!(made.code, Some(0), "{}", made.err);
    assert_guarded_beyond_loopback(&dir, &[], made.out.trim());
    assert_verified(&dir);
}

#[test]
fn a_service_key_that_is_no_operators_is_not_enough_beyond_loopback() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut local = Caller::local(tai.address());
    issue(&mut local, &json!({"scopes": ["admin:read", "receipts:read"]}));
    issue(&mut local, &json!({"tenant_id": "acme"}));
    stop(tai);
    let mut again = command(&dir, &["serve"]);
    let said = Said::from(again.env("BIND_ADDRESS", "0.0.0.0").env("PORT", "0").output().unwrap());
    assert_eq!(said.code, Some(2), "{}", said.err);
}
