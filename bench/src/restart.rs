//! How soon the service is back after a crash, and how fast everything else can be made again.
//!
//! Owns: the crash, the wait and the folds over the large ledger. Refuses to know: what is folded.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use governors::StreamState;
use ledger::View;
use store::{Reader, StreamFold};
use types::{Micros, StreamName};

use crate::load::{self, Fleet};
use crate::numbers::{median, rate, rounds, whole};
use crate::report::Report;
use crate::service::{self, Service};
use crate::{Size, big};

const ROUNDS: usize = 10;
const READY_MAX_MS: f64 = 1_000.0;
const FOLD_RATE_MIN: f64 = 200_000.0;

/// Load before each crash, so that there is a log to recover.
const LOAD: Duration = Duration::from_millis(500);
const CLIENTS: usize = 16;
const TENANTS: usize = 200;

pub(crate) fn run(size: Size) -> Result<Report> {
    let binary = service::binary()?;
    let source = big::ledger(size)?;
    let scratch = tempfile::tempdir_in(big::data_dir()?)?;
    let dir = scratch.path().join("ledger");
    store::backup(&source, &dir, &mut |_, _| {}).context("cannot copy the large ledger")?;
    let mut report = Report::default();
    let how = format!(
        "{} receipts over {} tenants",
        whole(big::receipts(size) as f64),
        whole(big::tenants(size) as f64)
    );
    ready(&mut report, &binary, &dir, size, &how)?;
    fold(&mut report, &dir, size, &how)?;
    rebuild(&mut report, &dir)?;
    report.note(
        "The page cache is warm: it cannot be dropped here, so the first start after a reboot \
         reads from the disk what these starts found in memory.",
    );
    Ok(report)
}

fn ready(report: &mut Report, binary: &Path, dir: &Path, size: Size, how: &str) -> Result<()> {
    let mut times = Vec::new();
    let mut wal_bytes = Vec::new();
    // The first start is no restart after a crash.
    for round in 0..=size.pick(ROUNDS, 3) {
        let wal = dir.join("ledger.db-wal").metadata().map_or(0, |file| file.len());
        let service = Service::start(binary, dir, "info")?;
        if round > 0 {
            times.push(service.ready_after.as_secs_f64() * 1e3);
            wal_bytes.push(wal as f64 / 1e6);
        }
        load::runtime()?.block_on(async {
            let prefix = format!("r{round:x}");
            let mut fleet = Fleet::connect(service.address, &prefix, CLIENTS, TENANTS).await?;
            fleet.sweep().await?;
            fleet.hammer(LOAD).await
        })?;
        service.kill()?;
    }
    let (middle, worst) = (median(&times), times.iter().copied().fold(0.0, f64::max));
    let conditions = format!(
        "{how}; kill −9 under load, log of {} MB to recover; from spawn to 200 on /healthz; ms in {}",
        whole(median(&wal_bytes)),
        rounds(&times)
    );
    let measured = format!("{middle:.0} ms (worst {worst:.0} ms)");
    report.bar("ready after kill −9", "< 1 s", measured, worst < READY_MAX_MS, conditions);
    Ok(())
}

/// All states from nothing but receipts.
fn fold(report: &mut Report, dir: &Path, size: Size, how: &str) -> Result<()> {
    let mut rates = Vec::new();
    for _ in 0..size.pick(3, 1) {
        let started = Instant::now();
        let reader = Reader::open(dir)?;
        let mut folds = Folds::default();
        let (mut receipts, mut name) = (0, None::<StreamName>);
        reader.for_each(None, &mut |row| {
            receipts += 1;
            if name.as_ref().is_none_or(|name| name.as_str() != row.stream) {
                name = StreamName::parse(row.stream).ok();
            }
            if let Some(name) = &name {
                folds.apply(name, row.core);
            }
            ControlFlow::Continue(())
        })?;
        rates.push(rate(receipts, started.elapsed()));
        ensure!(folds.unfolded == 0, "receipts that do not fold");
    }
    let folded = median(&rates);
    let conditions = format!("{how}; one thread, no snapshots; {}", rounds(&rates));
    let measured = whole(folded);
    report.bar(
        "fold all states, receipts/s",
        "≥ 200 000",
        measured,
        folded >= FOLD_RATE_MIN,
        conditions,
    );
    Ok(())
}

fn rebuild(report: &mut Report, dir: &Path) -> Result<()> {
    let started = Instant::now();
    let mut folds = Folds::default();
    let rebuilt = store::rebuild(dir, &mut folds)?;
    let took = started.elapsed();
    ensure!(rebuilt.unreadable == 0 && folds.unfolded == 0, "receipts that do not fold");
    let conditions =
        format!("{:.1} s for {} keys; one transaction, synced", took.as_secs_f64(), rebuilt.keys);
    let measured = whole(rate(rebuilt.receipts, took));
    report.fact("rebuild of all projections, receipts/s", measured, conditions);
    Ok(())
}

/// The states of all streams.
#[derive(Default)]
struct Folds {
    states: HashMap<StreamName, StreamState>,
    unfolded: u64,
}

impl StreamFold for Folds {
    fn apply(&mut self, stream: &StreamName, core: &[u8]) {
        if !self.states.contains_key(stream) {
            self.states.insert(stream.clone(), StreamState::empty(stream));
        }
        let folded = match (self.states.get_mut(stream), View::scan(core)) {
            (Some(state), Ok(view)) => state.apply(&view).is_ok(),
            _ => false,
        };
        self.unfolded += u64::from(!folded);
    }

    fn due(&mut self) -> Vec<(StreamName, Micros)> {
        let due =
            self.states.iter().filter_map(|(name, state)| Some((name.clone(), state.next_due()?)));
        due.collect()
    }
}
