//! Death without warning, again and again, under load.
//!
//! Owns: the promise that an acknowledged receipt is there for good and that a request id decides
//! once, however often it is asked. Refuses to know: power losses, which `power` has.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use serde_json::{Value, json};
use testkit::http::{Client, Response};

use crate::support::*;

const CLIENTS: u64 = 64;
const TENANTS: u64 = 200;
const KILLS: u64 = 50;
/// Between two requests of a client, so that the service is loaded and not the machine exhausted;
/// nothing is waited for.
const CLIENT_PAUSE: Duration = Duration::from_millis(2);

/// Where the service listens, in one place or several; nowhere between two lives.
#[derive(Default)]
pub(crate) struct Whereabouts {
    addresses: Mutex<Vec<SocketAddr>>,
    /// Requests with an answer that names a receipt, of all clients.
    acknowledged: AtomicUsize,
    over: AtomicBool,
}

impl Whereabouts {
    pub(crate) fn set(&self, addresses: impl IntoIterator<Item = SocketAddr>) {
        *self.addresses.lock().unwrap() = addresses.into_iter().collect();
    }

    /// Returns when so many more requests were acknowledged.
    pub(crate) fn after_more(&self, requests: usize) {
        let wanted = self.acknowledged.load(Ordering::Acquire) + requests;
        let enough = || (self.acknowledged.load(Ordering::Acquire) >= wanted).then_some(());
        until("the load goes on", enough);
    }

    /// The clients finish what they have begun and end.
    pub(crate) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }

    /// One of the places; another one for another turn.
    fn get(&self, turn: usize) -> Option<SocketAddr> {
        let addresses = self.addresses.lock().unwrap();
        addresses.get(turn % addresses.len().max(1)).copied()
    }
}

/// What was acknowledged: receipt id and the request, by request id.
pub(crate) type Acknowledged = BTreeMap<String, (String, Ask)>;

/// One request of the load.
#[derive(Clone)]
pub(crate) struct Ask {
    path: &'static str,
    id: String,
    body: Value,
}

impl Ask {
    fn roll(dice: &mut Dice, id: String, now_ms: i64) -> Ask {
        let number = dice.below(TENANTS);
        let tenant = format!("tenant-{number:03}");
        let kind = dice.below(8);
        let path = if kind == 7 { "/pubsub" } else { "/marketplace" };
        let body = match kind {
            0 | 1 => event(&tenant, "grant"),
            2 => event(&tenant, "suspend"),
            3 => event(&tenant, "resume"),
            4..=6 => json!({"customer_id": tenant}),
            _ => {
                // Some tenants are throttled for good, so that actions are in flight as well.
                let value = if number.is_multiple_of(10) { 95 } else { dice.below(80) };
                let data = json!({
                    "tenant_id": tenant, "metric": "cpu", "value": value, "timestamp_ms": now_ms,
                });
                push(&id, &data)
            }
        };
        Ask { path, id, body }
    }

    fn send(&self, client: &mut Client) -> anyhow::Result<Response> {
        let headers = [JSON, ("X-Request-ID", self.id.as_str())];
        client.request("POST", self.path, &headers, self.body.to_string().as_bytes())
    }
}

/// Asks until the end; each request is repeated under its id until it has an answer for good.
pub(crate) fn ask_away(
    whereabouts: &Whereabouts,
    name: u64,
    seed: u64,
    life: &str,
) -> Acknowledged {
    let mut dice = Dice::new(seed);
    let now_ms = unix_secs() * 1000;
    let mut acknowledged = Acknowledged::new();
    let mut client: Option<(SocketAddr, Client)> = None;
    let mut turn = name as usize;
    for number in 0.. {
        if whereabouts.over.load(Ordering::Acquire) {
            break;
        }
        let ask = Ask::roll(&mut dice, format!("{life}-{name}-{number}"), now_ms);
        let answer = until("an answer between two lives", || {
            let address = whereabouts.get(turn)?;
            if client.as_ref().is_none_or(|(known, _)| *known != address) {
                let mut fresh = Client::connect(address).ok()?;
                fresh.set_timeout(Duration::from_secs(5));
                client = Some((address, fresh));
            }
            let answer = ask.send(&mut client.as_mut()?.1);
            if answer.is_err() {
                client = None;
            }
            // Not now, or nobody knows: asked again under the same id, elsewhere where there is
            // one.
            let known = answer.ok().filter(|response| !matches!(response.status, 503 | 504));
            turn += usize::from(known.is_none());
            known
        });
        match answer.header("x-receipt-id") {
            Some(id) => {
                assert!(matches!(answer.status, 200 | 422), "{}", answer.status);
                acknowledged.insert(ask.id.clone(), (id.to_owned(), ask));
                whereabouts.acknowledged.fetch_add(1, Ordering::AcqRel);
            }
            // Throttled, or a signal of a tenant that nobody knows yet: refused without a receipt.
            None => {
                assert!(
                    matches!(answer.status, 422 | 429),
                    "{}: {:?}",
                    answer.status,
                    answer.json()
                );
                // How fast a client asks; nothing is waited for.
                thread::sleep(CLIENT_PAUSE);
            }
        }
    }
    acknowledged
}

/// What the clients were told stands in the ledger, once each and nothing besides.
pub(crate) fn assert_kept(dir: &Path, acknowledged: &Acknowledged) {
    assert_among(&assert_verified(dir), acknowledged);
}

/// What the clients were told stands among `receipts`, once each and nothing besides.
pub(crate) fn assert_among(receipts: &[Value], acknowledged: &Acknowledged) {
    let text = |receipt: &Value, field: &str| receipt[field].as_str().map(str::to_owned);
    let ids: BTreeSet<String> = receipts.iter().filter_map(|it| text(it, "id")).collect();
    let mut told = BTreeSet::new();
    for (request, (receipt, _)) in acknowledged {
        assert!(ids.contains(receipt), "{request} was acknowledged and its receipt is lost");
        assert!(told.insert(receipt), "{request} was given the receipt of another");
    }
    let keyed: Vec<String> = receipts.iter().filter_map(|it| text(it, "idem")).collect();
    let distinct: BTreeSet<&String> = keyed.iter().collect();
    assert_eq!(distinct.len(), keyed.len(), "a request id decided twice");
    assert_eq!(keyed.len(), acknowledged.len(), "a receipt that nobody was told about");
}

/// Each attempt has one result, also where the process died in between.
pub(crate) fn assert_settled(receipts: &[Value]) {
    let of = |kind: &str, field: &str| -> Vec<String> {
        let matching = receipts.iter().filter(|receipt| receipt["type"] == kind);
        matching.map(|receipt| receipt[field].as_str().unwrap().to_owned()).collect()
    };
    let (mut attempts, mut results) = (of("action_attempt", "id"), of("action_result", "intent"));
    attempts.sort();
    results.sort();
    assert!(!attempts.is_empty());
    assert_eq!(attempts, results);
}

#[test]
fn fifty_kills_lose_and_double_nothing() {
    let (_room, dir) = room();
    let envs = [("GOVERNOR_STATE_CHECK_INTERVAL_MS", "50")];
    let whereabouts = Whereabouts::default();
    let mut dice = Dice::new(50);
    let acknowledged: Acknowledged = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|name| {
                let whereabouts = &whereabouts;
                scope.spawn(move || ask_away(whereabouts, name, 1_000 + name, "kill"))
            })
            .collect();
        for _ in 0..KILLS {
            let mut tai = start(&dir, &envs);
            whereabouts.set(Some(tai.address()));
            // How long this life lasts; nothing is waited for.
            thread::sleep(Duration::from_millis(50 + dice.below(201)));
            tai.kill().unwrap();
            whereabouts.set(None);
            assert_eq!(tai.errors(), Vec::<String>::new());
        }
        whereabouts.end();
        let tai = start(&dir, &envs);
        whereabouts.set(Some(tai.address()));
        let acknowledged =
            clients.into_iter().flat_map(|client| client.join().unwrap()).collect::<Acknowledged>();
        ask_again(tai.address(), &acknowledged);
        until("the last actions are settled", || {
            let page = get(&mut client(tai.address()), "/metrics").body;
            let page = String::from_utf8(page).unwrap();
            page.lines().any(|line| line == "tai_actions_unsettled 0").then_some(())
        });
        stop(tai);
        acknowledged
    });
    assert!(acknowledged.len() > 500, "hardly a load: {}", acknowledged.len());
    println!("{} requests acknowledged over {KILLS} kills", acknowledged.len());
    assert_kept(&dir, &acknowledged);
    assert_settled(&assert_verified(&dir));
}

/// Every receipt is found by its id, and every request is answered with it again.
pub(crate) fn ask_again(address: SocketAddr, acknowledged: &Acknowledged) {
    let all: Vec<&(String, Ask)> = acknowledged.values().collect();
    thread::scope(|scope| {
        for part in all.chunks(all.len().div_ceil(8).max(1)) {
            scope.spawn(move || {
                let mut client = Client::connect(address).unwrap();
                for (at, (id, ask)) in part.iter().enumerate() {
                    let found = get(&mut client, &format!("/receipts/{id}"));
                    assert_eq!(found.status, 200, "{id} was acknowledged and is lost");
                    assert_eq!(found.json().unwrap()["id"], id.as_str());
                    if at % 8 == 0 {
                        // A store that is slow on a busy machine is taken for one that is away.
                        let again = until("the store to answer", || {
                            let again = ask.send(&mut client).unwrap();
                            (again.status != 503).then_some(again)
                        });
                        let told = String::from_utf8_lossy(&again.body);
                        let replay = again.header("x-idempotent-replay");
                        assert_eq!(replay, Some("true"), "{}: {} {told}", ask.id, again.status);
                        assert_eq!(again.header("x-receipt-id"), Some(id.as_str()), "{}", ask.id);
                    }
                }
            });
        }
    });
}
