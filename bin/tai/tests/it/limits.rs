//! Limits: of a key's rate, of a tenant's and of all requests in work, and sources that are
//! refused.
//!
//! Owns: who is refused first, what the refused are told, and that their number cannot flood a
//! ledger or a neighbour. Refuses to know: who may ask at all.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::http::Response;
use testkit::tai::Tai;

use crate::callers::*;
use crate::support::*;

/// What a key asks for when all that matters is that it asks.
const LOOK: &str = "/receipts/none";

fn number(response: &Response, header: &str) -> u64 {
    let value = response.header(header).unwrap_or_else(|| panic!("no {header}"));
    value.parse().unwrap()
}

/// A tenant's key, issued through the open door.
fn key_of(tai: &Tai, tenant: &str) -> Issued {
    issue(&mut Caller::local(tai.address()), &json!({"tenant_id": tenant}))
}

#[test]
fn a_key_may_burst_and_is_told_when_to_come_again() {
    const BURST: u64 = 5;
    let (_room, dir) = room();
    let tai = start(&dir, &[("RATE_LIMIT_PER_SECOND", "1"), ("RATE_LIMIT_BURST", "5")]);
    let keys = [key_of(&tai, "acme"), key_of(&tai, "acme"), key_of(&tai, "other")];
    let [mut first, mut second, mut third] = keys.map(|key| key.caller(tai.address()));
    let began = Instant::now();
    let (served, refused) = (1..)
        .find_map(|nth| {
            let response = first.get(LOOK);
            // What a slow machine gave back meanwhile.
            let back = began.elapsed().as_secs() + 1;
            let (limit, remaining) = (
                number(&response, "x-ratelimit-limit"),
                number(&response, "x-ratelimit-remaining"),
            );
            let reset = number(&response, "x-ratelimit-reset");
            assert_eq!(limit, 1);
            if response.status == 429 {
                assert_eq!((remaining, reset), (0, BURST));
                return Some((nth - 1, response));
            }
            assert_eq!(response.status, 404);
            assert_eq!(reset, BURST - remaining, "as long as it takes until all is there again");
            assert!(
                (BURST.saturating_sub(nth)..=BURST - nth.min(BURST) + back).contains(&remaining)
            );
            assert!(nth <= BURST + back, "more than the burst");
            None
        })
        .unwrap();
    assert!(served >= BURST, "{served}");
    assert_refused(&refused, 429, "rate_limit_exceeded");
    let wait = number(&refused, "retry-after");
    assert_eq!(refused.json().unwrap()["retry_after"], wait);
    assert!((1..=2).contains(&wait), "{wait}");
    for other in [&mut second, &mut third] {
        let response = other.get(LOOK);
        assert_eq!(response.status, 404, "each key has its own");
        assert_eq!(number(&response, "x-ratelimit-remaining"), BURST - 1);
    }
    let told = Instant::now();
    until("what was told", || (told.elapsed() >= Duration::from_secs(wait)).then_some(()));
    assert_eq!(first.get(LOOK).status, 404);
    let unlimited = Caller::local(tai.address()).get(LOOK);
    assert_eq!((unlimited.status, unlimited.header("x-ratelimit-limit")), (404, None));
    stop(tai);
}

/// The counts of the aggregated refusals, one for each receipt.
fn counts(receipts: &[Value]) -> Vec<i64> {
    receipts
        .iter()
        .map(|receipt| {
            assert_eq!(receipt["rule"], "edge.aggregate", "{receipt}");
            assert_eq!(receipt["metadata"]["window_s"], 10, "{receipt}");
            receipt["metadata"]["count"].as_i64().unwrap()
        })
        .collect()
}

#[test]
fn refusals_are_receipted_in_aggregate() {
    const CALLS: usize = 500;
    let (_room, dir) = room();
    let tai = start(&dir, &[("RATE_LIMIT_PER_SECOND", "1"), ("RATE_LIMIT_BURST", "1")]);
    let mut local = Caller::local(tai.address());
    let mut flood = key_of(&tai, "acme").caller(tai.address());
    let mut stranger = Caller::keyed(tai.address(), "garbage");
    let began = Instant::now();
    let (mut limited, mut unknown) = (0, 0);
    while limited < CALLS {
        let call = flood.quote("acme");
        limited += usize::from(call.status == 429);
        assert_eq!(call.status == 429, call.header("x-receipt-id").is_none());
        assert_refused(&stranger.get(LOOK), 401, "unauthorized");
        unknown += 1;
    }
    let mut recorded = |query: &str, all: usize| {
        until(query, || {
            let found = counts(&local.receipts(query));
            (found.iter().sum::<i64>() == all as i64).then_some(found)
        })
    };
    let of_tenant = recorded("tenant_id=acme&type=refusal&reason=rate_limit_exceeded", limited);
    let of_nobody = recorded("stream=_edge&reason=unauthorized", unknown);
    // One for each window that has begun.
    let windows = began.elapsed().as_secs() as usize / 10 + 2;
    for receipts in [&of_tenant, &of_nobody] {
        assert!(receipts.len() <= windows, "{receipts:?} in {windows} windows");
    }
    let receipt = &local.receipts("tenant_id=acme&reason=rate_limit_exceeded")[0];
    assert_eq!(receipt["subject"], "/marketplace", "{receipt}");
    let edge = local.receipts("stream=_edge");
    assert!(edge.iter().all(|receipt| receipt["subject"] == "/receipts/{id}"), "{edge:?}");
    stop(tai);
    let receipts = assert_verified(&dir);
    let refusals = receipts.iter().filter(|receipt| receipt["type"] == "refusal").count();
    assert_eq!(refusals, of_tenant.len() + of_nobody.len());
}

#[test]
fn what_a_key_may_not_do_is_limited_and_counted_as_its_own() {
    const CALLS: usize = 60;
    let (_room, dir) = room();
    let tai = start(&dir, &[("RATE_LIMIT_PER_SECOND", "1"), ("RATE_LIMIT_BURST", "20")]);
    let mut local = Caller::local(tai.address());
    let order = json!({"tenant_id": "acme", "scopes": ["receipts:read"]});
    let mut reader = issue(&mut local, &order).caller(tai.address());
    let statuses: Vec<u16> = (0..CALLS).map(|_| reader.quote("acme").status).collect();
    let of = |status: u16| statuses.iter().filter(|given| **given == status).count();
    assert!(of(403) >= 20 && of(429) > 0, "{statuses:?}");
    assert_eq!(of(403) + of(429), CALLS, "{statuses:?}");
    for (reason, all) in [("forbidden", of(403)), ("rate_limit_exceeded", of(429))] {
        until(reason, || {
            let found = counts(&local.receipts(&format!("tenant_id=acme&reason={reason}")));
            (found.iter().sum::<i64>() == all as i64).then_some(())
        });
    }
    assert!(local.receipts("stream=_edge").is_empty());
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn a_tenants_places_are_its_own() {
    let (_room, dir) = room();
    let tai = start(&dir, &[("TENANT_MAX_CONCURRENT", "2")]);
    let (late, other) = (key_of(&tai, "late"), key_of(&tai, "other"));
    let mut halves: Vec<Half> =
        (0..2).map(|_| Half::begin(tai.address(), Some(&late.text))).collect();
    let mut third = late.caller(tai.address());
    let refused = third.get(LOOK);
    assert_refused(&refused, 429, "rate_limit_exceeded");
    assert_eq!(refused.header("retry-after"), Some("1"));
    assert_eq!(other.caller(tai.address()).quote("other").status, 200);
    let service = issue(&mut Caller::local(tai.address()), &json!({}));
    assert_eq!(service.caller(tai.address()).quote("late").status, 200, "it is no tenant's");
    let mut half = halves.pop().unwrap();
    half.finish();
    assert_eq!(half.status(), Some(200));
    assert_eq!(third.get(LOOK).status, 404, "a place is free again");
    // One that hangs up gives its place back too.
    drop(halves);
    until("nothing in work", || (in_work(tai.address()) == 0).then_some(()));
    let _held = Half::begin(tai.address(), Some(&late.text));
    assert_eq!(third.get(LOOK).status, 404);
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn searches_are_shed_first_and_operators_last() {
    let (_room, dir) = room();
    let tai = start(&dir, &[("MAX_CONCURRENT_REQUESTS", "4")]);
    let mut local = Caller::local(tai.address());
    let mut statuses = |held: usize| {
        let shed = [local.get("/receipts"), local.quote("acme"), local.get("/admin/queues")];
        for refused in shed.iter().filter(|response| response.status == 503) {
            assert_refused(refused, 503, "service_unavailable");
            assert_eq!(refused.header("retry-after"), Some("1"));
        }
        let probes = ["/health", "/readyz", "/metrics"].map(|path| local.get(path).status);
        assert_eq!(probes, [200; 3], "{held}: whoever watches is never shed");
        shed.map(|response| response.status)
    };
    let mut halves = Vec::new();
    // The request that asks takes a place as well.
    for (held, expected) in [
        (2, [200, 200, 200]),
        (3, [503, 200, 200]),
        (4, [503, 503, 200]),
        (19, [503, 503, 200]),
        (20, [503, 503, 503]),
    ] {
        // Beyond the limit it is the operator's own requests that are in work.
        while halves.len() < held {
            halves.push(if halves.len() < 4 {
                Half::begin(tai.address(), None)
            } else {
                Half::begin_order(tai.address())
            });
        }
        assert_eq!(statuses(held), expected, "{held}");
    }
    drop(halves);
    until("places again", || (statuses(0) == [200; 3]).then_some(()));
    stop(tai);
    assert_verified(&dir);
}

/// A service behind one proxy, for which everybody comes from afar.
fn start_behind_a_proxy(dir: &Path, admin: &str) -> Tai {
    start_guarded(dir, admin, &[("TRUSTED_PROXY_HOPS", "1")])
}

/// Somebody with a key, from this source.
fn from(tai: &Tai, key: &str, source: &str) -> Caller {
    Caller::keyed(tai.address(), key).with("X-Forwarded-For", source)
}

fn blocked_sources(operator: &mut Caller) -> Vec<String> {
    let shown = operator.get("/admin/sources").json().unwrap();
    let sources = shown["sources"].as_array().unwrap();
    sources.iter().map(|it| it["source"].as_str().unwrap().to_owned()).collect()
}

fn block(source: &str, lease_s: i64) -> Value {
    json!({"source": source, "lease_s": lease_s})
}

/// The network of documentation and what shares a prefix with it are blocked, and nobody else;
/// `first_is` tells of one address more.
fn assert_blocked(tai: &Tai, key: &str, first_is: bool) {
    for (source, is) in [
        ("203.0.113.7", first_is),
        ("9.9.9.9, 203.0.113.7", first_is),
        // What stands further left is the caller's own claim.
        ("203.0.113.7, 9.9.9.9", false),
        ("203.0.113.8", false),
        ("198.51.100.1", true),
        ("::ffff:198.51.100.1", true),
        ("198.51.101.1", false),
        ("2001:db8:1::1", true),
        ("2001:db9::1", false),
    ] {
        let mut caller = from(tai, key, source);
        let response = caller.quote("acme");
        assert_eq!(response.status, if is { 403 } else { 200 }, "{source}");
        if is {
            assert_refused(&response, 403, "forbidden");
            assert_eq!(response.json().unwrap()["detail"], "access denied");
        }
        assert_eq!(caller.get("/health").status, 200, "{source}: probes answer everybody");
    }
}

#[test]
fn a_blocked_source_is_refused_and_no_other() {
    let (_room, dir) = room();
    let admin = new_key();
    let mut tai = start_behind_a_proxy(&dir, &admin);
    let mut operator = from(&tai, &admin, "192.0.2.1");
    for source in ["203.0.113.7", "198.51.100.77/24", "2001:db8::/32"] {
        let response = operator.put("/admin/sources", &block(source, 3_600));
        assert_eq!(response.status, 200, "{}", text(&response));
        assert_eq!(response.json().unwrap()["stream"], "_settings");
    }
    assert_blocked(&tai, &admin, true);
    tai.kill().unwrap();
    let tai = start_behind_a_proxy(&dir, &admin);
    let mut operator = from(&tai, &admin, "192.0.2.1");
    assert_blocked(&tai, &admin, true);
    let all = ["198.51.100.0/24", "2001:db8::/32", "203.0.113.7/32"];
    assert_eq!(blocked_sources(&mut operator), all);
    assert_eq!(operator.delete("/admin/sources?source=203.0.113.7").status, 200);
    assert_blocked(&tai, &admin, false);
    assert_eq!(blocked_sources(&mut operator), all[..2]);
    let again = operator.delete("/admin/sources?source=203.0.113.7");
    assert_refused(&again, 422, "state_error");
    // Neither what is no source, nor what would refuse the one who asks.
    for bad in ["", "localhost", "0.0.0.0/0", "1.2.3.4/33", "192.0.2.1", "192.0.0.0/16"] {
        assert_refused(&operator.put("/admin/sources", &block(bad, 60)), 400, "invalid_field");
    }
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn an_operator_at_the_machine_is_never_shut_out() {
    let (_room, dir) = room();
    let admin = new_key();
    let tai = start_behind_a_proxy(&dir, &admin);
    let mut remote = from(&tai, &admin, "192.0.2.1");
    assert_eq!(remote.put("/admin/sources", &block("127.0.0.0/8", 3_600)).status, 200);
    // Nothing was forwarded: the source is the peer.
    let mut local = Caller::keyed(tai.address(), &admin);
    assert_refused(&local.quote("acme"), 403, "forbidden");
    assert_eq!(blocked_sources(&mut local), ["127.0.0.0/8"]);
    assert_refused(&from(&tai, &admin, "127.0.0.9").get("/admin/sources"), 403, "forbidden");
    assert_eq!(local.delete("/admin/sources?source=127.0.0.0/8").status, 200);
    assert_eq!(local.quote("acme").status, 200);
    stop(tai);
    assert_verified(&dir);
}

#[test]
fn strangers_who_may_still_prove_an_event_share_one_tenants_places() {
    let (_room, dir) = room();
    let (admin, secret) = (new_key(), base64(&chance()));
    let envs = [
        ("TENANT_MAX_CONCURRENT", "1"),
        ("VERIFY_SIGNATURES", "true"),
        ("HMAC_SECRET_KEY", &secret),
    ];
    let tai = start_guarded(&dir, &admin, &envs);
    let held = Half::begin_with(tai.address(), "X-Signature: 00\r\n");
    let mut second = Caller::local(tai.address()).with("X-Signature", "00");
    assert_refused(&second.quote("acme"), 429, "rate_limit_exceeded");
    let mut keyed = Caller::keyed(tai.address(), &admin);
    let key = issue(&mut keyed, &json!({"tenant_id": "acme"}));
    assert_eq!(key.caller(tai.address()).quote("acme").status, 200);
    drop(held);
    until("the place", || (second.quote("acme").status == 401).then_some(()));
    stop(tai);
}

#[test]
fn a_block_ends_by_itself() {
    let (_room, dir) = room();
    let admin = new_key();
    let tai = start_behind_a_proxy(&dir, &admin);
    let mut operator = from(&tai, &admin, "192.0.2.1");
    assert_eq!(operator.put("/admin/sources", &block("203.0.113.7", 1)).status, 200);
    let mut blocked = from(&tai, &admin, "203.0.113.7");
    until("the end of the block", || (blocked.quote("acme").status == 200).then_some(()));
    let ended = until("its receipt", || {
        let ends = operator.receipts("stream=_settings&state_to=open");
        ends.into_iter().next()
    });
    assert_eq!(
        (&ended["rule"], &ended["subject"]),
        (&json!("source.lease_end"), &json!("203.0.113.7/32"))
    );
    assert!(blocked_sources(&mut operator).is_empty());
    stop(tai);
    assert_verified(&dir);
}

/// Calls one after the other; how long each took, in ascending order.
fn calls(address: SocketAddr, key: &Issued, tenant: &str) -> Vec<Duration> {
    let mut caller = key.caller(address);
    let mut took: Vec<Duration> = (0..1_000)
        .map(|nth| {
            let began = Instant::now();
            let response = caller.quote(tenant);
            assert_eq!(response.status, 200, "{nth}: {}", text(&response));
            began.elapsed()
        })
        .collect();
    took.sort_unstable();
    took
}

#[test]
fn a_flood_of_one_tenant_costs_its_neighbour_no_call() {
    const RATE: u64 = 50;
    let (_room, dir) = room();
    let tai = start(&dir, &[("RATE_LIMIT_PER_SECOND", "50"), ("RATE_LIMIT_BURST", "1200")]);
    let address = tai.address();
    // A key for each phase, so that the neighbour never meets a limit of its own.
    let keys = [key_of(&tai, "neighbour"), key_of(&tai, "neighbour")];
    let noisy = key_of(&tai, "noisy");
    let quiet = calls(address, &keys[0], "neighbour");
    let (over, sent, limited) = (AtomicBool::new(false), AtomicU64::new(0), AtomicU64::new(0));
    let began = Instant::now();
    let flooded = thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let mut caller = noisy.caller(address);
                while !over.load(Ordering::Acquire) {
                    let status = caller.quote("noisy").status;
                    assert!([200, 429].contains(&status), "{status}");
                    sent.fetch_add(1, Ordering::Relaxed);
                    limited.fetch_add(u64::from(status == 429), Ordering::Relaxed);
                }
            });
        }
        let _end = Finally(|| over.store(true, Ordering::Release));
        until("the flood", || (limited.load(Ordering::Relaxed) > 1_000).then_some(()));
        calls(address, &keys[1], "neighbour")
    });
    let seconds = began.elapsed().as_secs_f64();
    let times = sent.into_inner() as f64 / seconds / RATE as f64;
    let at =
        |took: &[Duration], percent: usize| took[took.len() * percent / 100].as_secs_f64() * 1e3;
    for percent in [50, 99] {
        let (quiet, flooded) = (at(&quiet, percent), at(&flooded, percent));
        println!(
            "neighbour p{percent}: {quiet:.2} ms quiet, {flooded:.2} ms at {times:.0} times the \
             other's rate over {seconds:.1} s, ratio {:.2}",
            flooded / quiet
        );
    }
    stop(tai);
    assert_verified(&dir);
}
