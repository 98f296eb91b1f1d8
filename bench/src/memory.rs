//! How much memory the service holds with many tenants and little traffic.
//!
//! Owns: the two lives of a service that are sampled. Refuses to know: what the memory is for.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::load::{self, Fleet};
use crate::marketplace::mib;
use crate::process::resident_bytes;
use crate::report::Report;
use crate::service::{self, Service};
use crate::{Size, big};

const CLIENTS: usize = 64;
const PER_SECOND: usize = 1_000;
const RSS_MAX_BYTES: u64 = 100_000_000;
const SAMPLE_EVERY: Duration = Duration::from_secs(1);
/// Samples in the table; the highest is always told.
const SHOWN: usize = 7;

pub(crate) fn run(size: Size) -> Result<Report> {
    let binary = service::binary()?;
    let tenants = size.pick(100_000, 10_000);
    let how_long = size.pick(Duration::from_secs(60), Duration::from_secs(10));
    let dir = tempfile::tempdir_in(big::data_dir()?)?;
    let mut report = Report::default();

    let idle = Service::start(&binary, dir.path(), "info")?;
    report.fact("RSS after the start", mib(resident_bytes(idle.pid())?), "empty ledger".to_owned());
    idle.kill()?;
    let mut fleet = None;
    for what in ["RSS, all tenants registered in this life", "RSS, restarted on that ledger"] {
        let (lived, after) = life(&binary, dir.path(), fleet.take(), tenants, how_long)?;
        fleet = Some(after);
        let highest = lived.highest();
        let how = format!(
            "{tenants} registered, {} active, {PER_SECOND}/s for {} s; p50 {:.2}, p99 {:.2} ms; {}",
            tenants / 10,
            how_long.as_secs(),
            lived.p50_ms,
            lived.p99_ms,
            lived.curve()
        );
        report.bar(what, "< 100 MB", mib(highest), highest < RSS_MAX_BYTES, how);
    }
    report.note("Not part of this yet: 1 000 open streams, and an hour of flatness.");
    Ok(report)
}

struct Lived {
    samples: Vec<(Duration, u64)>,
    p50_ms: f64,
    p99_ms: f64,
}

impl Lived {
    fn highest(&self) -> u64 {
        self.samples.iter().map(|(_, bytes)| *bytes).max().unwrap_or_default()
    }

    fn curve(&self) -> String {
        let step = self.samples.len().div_ceil(SHOWN).max(1);
        let shown: Vec<_> = self
            .samples
            .iter()
            .step_by(step)
            .map(|(at, bytes)| format!("{} s {}", at.as_secs(), mib(*bytes)))
            .collect();
        shown.join(", ")
    }
}

/// One life of the service. Without a fleet of a former life all tenants are registered first.
fn life(
    binary: &Path,
    dir: &Path,
    former: Option<Fleet>,
    tenants: usize,
    how_long: Duration,
) -> Result<(Lived, Fleet)> {
    let service = Service::start(binary, dir, "info")?;
    let pid = service.pid();
    let lived = load::runtime()?.block_on(async {
        let mut fleet = match former {
            Some(mut fleet) => {
                fleet.reconnect(service.address).await?;
                fleet
            }
            None => {
                let mut fleet = Fleet::connect(service.address, "a", CLIENTS, tenants).await?;
                fleet.sweep().await?;
                fleet
            }
        };
        let started = Instant::now();
        let sample = async {
            let mut beat = tokio::time::interval(SAMPLE_EVERY);
            let mut samples = Vec::new();
            while started.elapsed() < how_long {
                beat.tick().await;
                samples.push((started.elapsed(), resident_bytes(pid)?));
            }
            anyhow::Ok(samples)
        };
        let load = fleet.steady(PER_SECOND, tenants / 10, how_long);
        let (samples, seen) = tokio::join!(sample, load);
        let (samples, mut seen) = (samples?, seen?);
        fleet.hang_up();
        let (p50_ms, p99_ms) = (seen.waits.percentile_ms(50.0), seen.waits.percentile_ms(99.0));
        anyhow::Ok((Lived { samples, p50_ms, p99_ms }, fleet))
    })?;
    service.kill()?;
    Ok(lived)
}
