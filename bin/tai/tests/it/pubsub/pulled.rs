//! The same messages, pulled through Google's own client, while the service is killed three times
//! and the emulator once.
//!
//! Owns: the promise that what was acknowledged was decided, exactly once. Refuses to know: how the
//! client keeps its leases.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::pubsub::Emulator;
use testkit::skip;

use super::Service;
use super::published::{
    Published, Publisher, assert_each_once, exported, finished, keyed, numbers, serials, undecided,
};
use crate::support::{assert_verified, client, get, room, until_within};

const MESSAGES: usize = 10_000;
/// The share of the messages, in percent, at whose decision the service is killed; the emulator is
/// killed between the second and the third.
const KILLS_PERCENT: [u64; 3] = [15, 35, 60];
/// From the first message to the last dead letter.
const TIME_MAX: Duration = Duration::from_secs(420);

const PULLED: &str = r#"tai_pubsub_messages_total{result="acked"} "#;

fn settings(emulator: &Emulator) -> Vec<(String, String)> {
    let address = emulator.address().to_string();
    [
        ("GCP_PROJECT_ID", "tai-autonomics"),
        ("PUBSUB_SUBSCRIPTION", "erlang-autonomics-signals-sub"),
        ("PUBSUB_MAX_MESSAGES", "100"),
        ("PUBSUB_EMULATOR_HOST", &address),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// As [`crate::support::until`], for what waits for Pub/Sub's own clocks.
fn patiently<T>(deadline: Instant, what: &str, ask: impl FnMut() -> Option<T>) -> T {
    until_within(deadline.saturating_duration_since(Instant::now()), || what.to_owned(), ask)
}

fn health(service: &Service<'_>) -> Value {
    get(&mut client(service.tai.address()), "/health").json().unwrap()
}

fn outstanding(service: &Service<'_>) -> u64 {
    let status = get(&mut client(service.tai.address()), "/admin/pubsub").json().unwrap();
    status["outstanding"].as_u64().unwrap()
}

fn undecided_serials(ledger: &Path, good: &[&Published]) -> Vec<u64> {
    let decided = keyed(&exported(ledger));
    undecided(good, &decided).iter().map(|sent| sent.serial).collect()
}

#[test]
fn every_pulled_message_is_decided_once_under_kills_of_both_sides() {
    let Some(mut emulator) = Emulator::start().unwrap() else {
        skip!("the Pub/Sub emulator is not installed");
    };
    testkit::needs_python!();
    let (room, ledger) = room();
    let deadline = Instant::now() + TIME_MAX;
    let publisher = Publisher::new(&emulator, room.path().join("manifest.jsonl"));
    publisher.run(&["grants", &publisher.manifest(), "pull"]);
    let tenants = publisher.published().len();
    let mut service = Service::start_with(&ledger, settings(&emulator), PULLED);
    let acknowledged = |service: &Service<'_>, wanted: u64| {
        patiently(deadline, "messages are acknowledged", || {
            let all = service.acknowledged_before + service.acknowledged();
            (all >= wanted).then_some(())
        });
    };
    acknowledged(&service, tenants as u64);

    let total = MESSAGES.to_string();
    let publishing = publisher.spawn(&["signals", &publisher.manifest(), &total]);
    for percent in &KILLS_PERCENT[..2] {
        acknowledged(&service, (tenants + MESSAGES) as u64 * percent / 100);
        service.kill_and_restart();
    }
    finished(publishing);
    let published = publisher.published();
    let good: Vec<&Published> = published.iter().filter(|sent| sent.kind == "good").collect();
    let poison: BTreeSet<u64> = serials(&published, "poison");
    let mut dead = numbers(&publisher.run(&["dead-letters", &poison.len().to_string(), "1"]));

    emulator.kill();
    patiently(deadline, "the loss shows in health", || {
        let health = health(&service);
        let lost = health["pubsub"] == "disconnected" && health["health"] == "yellow";
        lost.then_some(())
    });
    // What was in hand is decided all the same; nobody can be told, since the server is gone.
    patiently(deadline, "nothing is in hand", || (outstanding(&service) == 0).then_some(()));
    emulator.restart().unwrap();
    // Dead letters were published too, and each attempt of the publisher may have used an id.
    publisher.run(&["remake", "pull", &(2 * (tenants + MESSAGES)).to_string()]);
    let lost = undecided_serials(&ledger, &good);
    assert!(lost.len() > 100, "the emulator was killed too late: {} were left", lost.len());
    let again: Vec<u64> = lost.into_iter().chain(poison.difference(&dead).copied()).collect();
    let again: Vec<String> = again.iter().map(u64::to_string).collect();
    let manifest = publisher.manifest();
    let arguments: Vec<&str> =
        ["again", &manifest].into_iter().chain(again.iter().map(String::as_str)).collect();
    publisher.run(&arguments);

    acknowledged(&service, (tenants + MESSAGES) as u64 * KILLS_PERCENT[2] / 100);
    service.kill_and_restart();
    let decided = patiently(deadline, "every good message is decided", || {
        let decided = keyed(&exported(&ledger));
        (decided.len() >= good.len()).then_some(decided)
    });
    assert_each_once(&good, &decided);
    let left = deadline.saturating_duration_since(Instant::now()).as_secs().to_string();
    let wanted = (poison.len() - dead.len()).to_string();
    dead.extend(numbers(&publisher.run(&["dead-letters", &wanted, &left])));
    assert_eq!(dead, poison, "the dead letters are the poison, all of it");
    assert_eq!(health(&service)["pubsub"], "connected");

    let log = service.stop();
    assert!(log.iter().any(|line| line.contains("Pub/Sub subscription active")));
    let after = keyed(&assert_verified(&ledger));
    assert_eq!(after, decided, "repeated deliveries decided nothing");
}
