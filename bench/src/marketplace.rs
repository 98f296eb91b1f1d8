//! `POST /marketplace` on the real binary: durable decisions over HTTP.
//!
//! Owns: the phases of a run and its table. Refuses to know: HTTP.

use std::path::Path;
use std::time::Duration;

use anyhow::Result;

use crate::keys::{self, Issuer};
use crate::load::{self, Fleet, Seen};
use crate::numbers::{median, rate, rounds, whole};
use crate::process::{CpuTimes, resident_bytes};
use crate::report::Report;
use crate::service::{self, Service};
use crate::{Size, big, workload};

const TENANTS: usize = 1_000;
const CLIENTS: usize = 64;
const ROUNDS: usize = 3;
const RATE_MIN: f64 = 12_000.0;
const P95_MAX_MS: f64 = 12.0;

pub(crate) fn run(size: Size) -> Result<Report> {
    let binary = service::binary()?;
    let how_long = size.pick(Duration::from_secs(20), Duration::from_secs(5));
    let mut info = Vec::new();
    let (mut warn, mut keyed) = (Vec::new(), Vec::new());
    for _ in 0..size.pick(ROUNDS, 1) {
        info.push(round(&binary, "info", CLIENTS, how_long, Door::Open)?);
        keyed.push(round(&binary, "info", CLIENTS, how_long, Door::Keys)?);
        warn.push(round(&binary, "warn", CLIENTS, how_long, Door::Open)?);
    }
    let mut report = Report::default();
    let seconds = how_long.as_secs();
    let how = format!(
        "{CLIENTS} keep-alive clients on this machine, {TENANTS} tenants, suspend and resume, \
         {seconds} s, log to a file"
    );
    bars(&mut report, &mut info, "", &how);
    let with_keys = format!("{how}, a key for each tenant, limits on and not reached");
    bars(&mut report, &mut keyed, "keys and limits on: ", &with_keys);
    row(&mut report, "64 clients, LOG_LEVEL=warn", &mut warn, &how);
    for clients in [1, 256] {
        let mut rounds = vec![round(&binary, "info", clients, how_long, Door::Open)?];
        let how = format!("{clients} clients, {seconds} s, LOG_LEVEL=info");
        row(&mut report, &format!("clients: {clients}"), &mut rounds, &how);
    }
    Ok(report)
}

struct Round {
    rate: f64,
    seen: Seen,
    cpu: CpuTimes,
    generator: CpuTimes,
    rss_bytes: u64,
}

impl Round {
    fn cpu_us(&self, of: &CpuTimes) -> f64 {
        of.total().as_secs_f64() * 1e6 / self.seen.waits.len() as f64
    }
}

/// Whether callers need a key.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    Keys,
}

fn round(
    binary: &Path,
    level: &str,
    clients: usize,
    how_long: Duration,
    door: Door,
) -> Result<Round> {
    let dir = tempfile::tempdir_in(big::data_dir()?)?;
    let admin = keys::chance()?;
    let mut settings = vec![("LOG_LEVEL", level)];
    if door == Door::Keys {
        settings.extend(keys::required(&admin));
        // Limits are counted and not reached: what is measured is their cost.
        settings.extend([("RATE_LIMIT_PER_SECOND", "100000"), ("RATE_LIMIT_BURST", "100000")]);
    }
    let service = Service::start_with(binary, dir.path(), &settings)?;
    let mut keys = vec![None; TENANTS];
    if door == Door::Keys {
        let mut issuer = Issuer::connect(service.address, &admin)?;
        for (nth, key) in keys.iter_mut().enumerate() {
            *key = Some(issuer.issue(&workload::tenant_name("m", nth))?);
        }
    }
    let round = load::runtime()?.block_on(async {
        let mut fleet = Fleet::with_keys(service.address, "m", clients, &keys).await?;
        fleet.sweep().await?;
        let own = std::process::id();
        let before = (CpuTimes::of(service.pid())?, CpuTimes::of(own)?);
        let seen = fleet.hammer(how_long).await?;
        let cpu = CpuTimes::of(service.pid())?.since(&before.0);
        let generator = CpuTimes::of(own)?.since(&before.1);
        let rss_bytes = resident_bytes(service.pid())?;
        let rate = rate(seen.waits.len() as u64, seen.took);
        anyhow::Ok(Round { rate, seen, cpu, generator, rss_bytes })
    })?;
    service.kill()?;
    Ok(round)
}

fn bars(report: &mut Report, runs: &mut [Round], what: &str, how: &str) {
    let rates: Vec<_> = runs.iter().map(|round| round.rate).collect();
    let rate = median(&rates);
    let measured = whole(rate);
    let conditions = format!("{how}, LOG_LEVEL=info; {}", rounds(&rates));
    report.bar(&format!("{what}requests/s"), "≥ 12 000", measured, rate >= RATE_MIN, conditions);
    let p95 = wait(runs, 95.0);
    let measured = format!("{p95:.2} ms");
    let conditions = format!("p50 {:.2} ms, p99 {:.2} ms", wait(runs, 50.0), wait(runs, 99.0));
    report.bar(&format!("{what}P95"), "< 12 ms", measured, p95 < P95_MAX_MS, conditions);
    let Some(last) = runs.last() else { return };
    let count = last.seen.waits.len() as u64;
    let cpu = format!("{:.1} µs", last.cpu_us(&last.cpu));
    report.fact(&format!("{what}CPU of the service per request"), cpu, last.cpu.per(count));
    let cpu = format!("{:.1} µs", last.cpu_us(&last.generator));
    report.fact(&format!("{what}CPU of the generator per request"), cpu, last.generator.per(count));
    report.fact(
        &format!("{what}RSS at the end"),
        mib(last.rss_bytes),
        format!("after {} requests", whole(count as f64)),
    );
}

fn row(report: &mut Report, what: &str, runs: &mut [Round], how: &str) {
    let rates: Vec<_> = runs.iter().map(|round| round.rate).collect();
    let cpu: Vec<_> = runs.iter().map(|round| round.cpu_us(&round.cpu)).collect();
    let measured = format!(
        "{}/s; p50 {:.2}, p95 {:.2}, p99 {:.2} ms; {:.1} µs CPU",
        whole(median(&rates)),
        wait(runs, 50.0),
        wait(runs, 95.0),
        wait(runs, 99.0),
        median(&cpu)
    );
    report.fact(what, measured, format!("{how}; {}", rounds(&rates)));
}

fn wait(runs: &mut [Round], percent: f64) -> f64 {
    let each: Vec<_> =
        runs.iter_mut().map(|round| round.seen.waits.percentile_ms(percent)).collect();
    median(&each)
}

pub(crate) fn mib(bytes: u64) -> String {
    format!("{:.0} MB", bytes as f64 / 1e6)
}
