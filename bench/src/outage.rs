//! A database that is away for a while under load: waits before, meanwhile and afterwards, and how
//! fast what waited is carried over.
//!
//! Owns: the phases, and the proof that nothing acknowledged was lost. Refuses to know: how the
//! service stands in for its database.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use testkit::http::{Client, Response};
use testkit::postgres::Cluster;

use crate::numbers::Waits;
use crate::report::Report;
use crate::service::{self, Service};
use crate::{Size, big};

const CLIENTS: usize = 16;
const TENANTS: usize = 100;
/// Longer than the service waits for a database that hangs.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK: Duration = Duration::from_millis(20);

/// The phases in their order; what is asked during one counts for it.
const PHASES: [&str; 4] = ["before", "while it is away", "on its way back", "afterwards"];
/// One past the last: the load ends.
const END: usize = PHASES.len();

/// How the database goes away, and comes back.
struct Way {
    name: &'static str,
    away: fn(&Cluster),
    back: fn(&Cluster) -> Result<()>,
}

const WAYS: [Way; 2] = [
    Way { name: "refuses", away: Cluster::kill, back: Cluster::restart },
    Way {
        name: "hangs",
        away: Cluster::freeze,
        back: |cluster| {
            cluster.thaw();
            Ok(())
        },
    },
];

/// What the clients saw.
#[derive(Default)]
struct Seen {
    /// Answers with a receipt, by phase.
    waits: [Waits; PHASES.len()],
    /// Answers without.
    refused: [u64; PHASES.len()],
    slowest_refusal: Duration,
    receipts: HashSet<String>,
}

impl Seen {
    fn add(&mut self, other: Seen) {
        for (mine, others) in self.waits.iter_mut().zip(other.waits) {
            mine.extend(others);
        }
        for (mine, others) in self.refused.iter_mut().zip(other.refused) {
            *mine += others;
        }
        self.slowest_refusal = self.slowest_refusal.max(other.slowest_refusal);
        self.receipts.extend(other.receipts);
    }
}

pub(crate) fn run(size: Size) -> Result<Report> {
    let binary = service::binary()?;
    let mut report = Report::default();
    for way in &WAYS {
        let Some(cluster) = Cluster::start()? else { bail!("PostgreSQL is not installed") };
        let url = cluster.url(&cluster.database()?);
        let dir = tempfile::tempdir_in(big::data_dir()?)?;
        let spool = dir.path().join("spool");
        let spool = spool.to_str().context("the path is no text")?;
        let settings = [
            ("RECEIPT_LEDGER_BACKEND", "postgres"),
            ("DATABASE_URL", url.as_str()),
            ("SPOOL_DIR", spool),
            ("SPOOL_MAX_RECEIPTS", "10000000"),
            ("MAX_STATE_AGE_S", "3600"),
            ("LOG_LEVEL", "warn"),
        ];
        let service = Service::start_with(&binary, dir.path(), &settings)?;
        grant(service.address)?;
        let (seen, times) = ride_out(&cluster, way, service.address, size)?;
        tell(&mut report, way, &seen, &times);
        drop(service);
        let exported = Command::new(&binary)
            .args(["ledger", "export"])
            .env_clear()
            .envs(settings)
            .current_dir(dir.path())
            .output()?;
        ensure!(exported.status.success(), "the export failed");
        let lines = String::from_utf8(exported.stdout)?;
        let kept: HashSet<String> = lines.lines().filter_map(id_of).collect();
        let lost = seen.receipts.difference(&kept).count();
        let told = format!("{} acknowledged, each looked up in the export", seen.receipts.len());
        report.bar(&format!("{}: receipts lost", way.name), "0", lost.to_string(), lost == 0, told);
    }
    report.note("Prices of 100 tenants, 16 clients in a closed loop on the same machine.");
    Ok(report)
}

fn id_of(line: &str) -> Option<String> {
    let receipt: Value = serde_json::from_str(line).ok()?;
    receipt["id"].as_str().map(str::to_owned)
}

fn post(client: &mut Client, path: &str, body: &Value) -> Result<Response> {
    let json = [("Content-Type", "application/json")];
    client.request("POST", path, &json, body.to_string().as_bytes())
}

fn grant(address: SocketAddr) -> Result<()> {
    let mut client = Client::connect(address)?;
    for nth in 0..TENANTS {
        let event = json!({
            "tenant_id": tenant(nth), "entitlement_id": "professional", "action": "grant",
        });
        let granted = post(&mut client, "/marketplace", &event)?;
        ensure!(granted.status == 200, "a grant is refused with {}", granted.status);
    }
    Ok(())
}

fn tenant(nth: usize) -> String {
    format!("tenant-{}", nth % TENANTS)
}

/// How long each step took.
struct Times {
    until_away: Duration,
    until_up: Duration,
    carried: u64,
    carrying: Duration,
}

fn ride_out(
    cluster: &Cluster,
    way: &Way,
    address: SocketAddr,
    size: Size,
) -> Result<(Seen, Times)> {
    let phase = AtomicUsize::new(0);
    thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|nth| {
                let phase = &phase;
                scope.spawn(move || ask(address, nth, phase))
            })
            .collect();
        let times = conduct(cluster, way, address, &phase, size);
        phase.store(END, Ordering::Release);
        let mut seen = Seen::default();
        for client in clients {
            let one = client.join().map_err(|_| anyhow::anyhow!("a client failed"))?;
            seen.add(one?);
        }
        Ok((seen, times?))
    })
}

/// Moves the load from phase to phase.
fn conduct(
    cluster: &Cluster,
    way: &Way,
    address: SocketAddr,
    phase: &AtomicUsize,
    size: Size,
) -> Result<Times> {
    let steady = size.pick(Duration::from_secs(10), Duration::from_secs(2));
    thread::sleep(steady);
    phase.store(1, Ordering::Release);
    let gone = Instant::now();
    (way.away)(cluster);
    until(address, "away")?;
    let until_away = gone.elapsed();
    // Ten minutes, compressed: what is kept grows with the load and not with the time.
    thread::sleep(size.pick(Duration::from_secs(60), Duration::from_secs(5)));
    phase.store(2, Ordering::Release);
    let back = Instant::now();
    (way.back)(cluster)?;
    until(address, "writes")?;
    let carrying = Instant::now();
    until(address, "signals")?;
    let carrying = carrying.elapsed();
    until(address, "up")?;
    let until_up = back.elapsed();
    phase.store(3, Ordering::Release);
    thread::sleep(steady);
    let carried = flushed(address)?;
    Ok(Times { until_away, until_up, carried, carrying })
}

/// Waits until the store is at `stage` or beyond it.
fn until(address: SocketAddr, stage: &str) -> Result<()> {
    let order = ["away", "reads", "writes", "signals", "up"];
    let place = |name: &str| order.iter().position(|known| *known == name);
    let deadline = Instant::now() + PATIENCE;
    let mut client = Client::connect(address)?;
    loop {
        let health = client.request("GET", "/health", &[], b"")?.json()?;
        let now = health["store_stage"].as_str().and_then(place);
        if now == place(stage) || (stage != "away" && now >= place(stage)) {
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "the store is not {stage} in time: {health}");
        thread::sleep(LOOK);
    }
}

fn flushed(address: SocketAddr) -> Result<u64> {
    let metrics = Client::connect(address)?.request("GET", "/metrics", &[], b"")?;
    let text = String::from_utf8(metrics.body)?;
    let mut lines = text.lines();
    let line = lines.find_map(|line| line.strip_prefix("tai_receipts_flushed_total "));
    Ok(line.context("no such metric")?.parse()?)
}

/// Asks for prices until the load ends.
fn ask(address: SocketAddr, nth: usize, phase: &AtomicUsize) -> Result<Seen> {
    let mut seen = Seen::default();
    let mut client = Client::connect(address)?;
    client.set_timeout(PATIENCE);
    for turn in 0.. {
        let now = phase.load(Ordering::Acquire);
        if now == END {
            break;
        }
        let customer = json!({"customer_id": tenant(nth + turn * CLIENTS)});
        let started = Instant::now();
        let response = post(&mut client, "/marketplace", &customer)?;
        let took = started.elapsed();
        match (response.status, response.header("x-receipt-id")) {
            (200, Some(id)) => {
                seen.waits[now].add(took);
                seen.receipts.insert(id.to_owned());
            }
            _ => {
                seen.refused[now] += 1;
                seen.slowest_refusal = seen.slowest_refusal.max(took);
            }
        }
    }
    Ok(seen)
}

fn tell(report: &mut Report, way: &Way, seen: &Seen, times: &Times) {
    let name = way.name;
    for (nth, phase) in PHASES.iter().enumerate() {
        let mut waits = seen.waits[nth].clone();
        let (p50, p99) = (waits.percentile_ms(50.0), waits.percentile_ms(99.0));
        let told = format!("{} receipts, {} refused", waits.len(), seen.refused[nth]);
        report.fact(
            &format!("{name}: p99 {phase}"),
            format!("{p99:.2} ms (p50 {p50:.2} ms)"),
            told,
        );
    }
    let seconds = |time: Duration| format!("{:.2} s", time.as_secs_f64());
    report.fact(
        &format!("{name}: until it is noticed"),
        seconds(times.until_away),
        format!("the slowest refusal took {}", seconds(seen.slowest_refusal)),
    );
    report.fact(
        &format!("{name}: carried over"),
        format!("{:.0}/s", times.carried as f64 / times.carrying.as_secs_f64()),
        format!("{} receipts in {}", times.carried, seconds(times.carrying)),
    );
    report.fact(
        &format!("{name}: from its return to all as ever"),
        seconds(times.until_up),
        "three stages of 2 s, the server's own start included".to_owned(),
    );
}
