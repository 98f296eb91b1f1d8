//! The engine's commit path on every backend that runs here, with the backend's own limit beside
//! it; and one hot tenant that three instances decide on.
//!
//! Owns: the cases and how they are driven. Refuses to know: how a backend works.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use engine::keys::CallerKey;
use engine::ports::Store;
use engine::supervise::{Stop, Worker};
use engine::{Engine, Request};
use governors::Command;
use ledger::{Draft, HeadRecord, Kind, StreamHead, seal};
use store::postgres::{self, PgStore};
use store::{Options, SqliteStore, Synchronous};
use testkit::postgres::Cluster;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use types::{Micros, StreamName, TenantId};

use crate::append::{MAINTAIN_INTERVAL, start, two_workers};
use crate::numbers::{self, Waits, whole};
use crate::report::Report;
use crate::{Size, workload};

const SUBMITTERS: usize = 64;
const TENANTS: usize = 1_000;
const INSTANCES: usize = 3;
const HOT_TENANT_MIN: f64 = 8_000.0;
const STATES_MAX: usize = 100_000;
const DRAIN: Duration = Duration::from_secs(10);

pub(crate) fn run(size: Size) -> Result<Report> {
    let decisions = size.pick(100_000, 5_000);
    let runtime = two_workers()?;
    let base = crate::big::data_dir()?;
    let mut report = Report::default();
    for (name, open) in [("memory", memory as fn(&Path) -> Result<Backend>), ("sqlite", sqlite)] {
        let dir = tempfile::tempdir_in(&base)?;
        let backend = open(dir.path())?;
        let one = through(&runtime, &[backend], 1, decisions)?;
        let dir = tempfile::tempdir_in(&base)?;
        let many = through(&runtime, &[open(dir.path())?], TENANTS, decisions)?;
        report.fact(&format!("{name}, one tenant"), one.rate(), one.how());
        report.fact(&format!("{name}, {TENANTS} tenants"), many.rate(), many.how());
    }
    let Some(cluster) = Cluster::start()? else {
        report.note("PostgreSQL is not installed: not measured.");
        return Ok(report);
    };
    on_postgres(&runtime, &cluster, decisions, &mut report)?;
    report.note(
        "Not measured: Firestore. Its emulator, which takes 27 to 43 ms for a commit, shows what is \
         right and not what is fast.",
    );
    Ok(report)
}

fn on_postgres(
    runtime: &Runtime,
    cluster: &Cluster,
    decisions: usize,
    report: &mut Report,
) -> Result<()> {
    let database = || cluster.database().map(|name| cluster.url(&name));
    let one = through(runtime, &[server(&database()?)?], 1, decisions)?;
    report.bar(
        "postgres, one tenant",
        "≥ 8 000/s",
        one.rate(),
        one.per_second() >= HOT_TENANT_MIN,
        one.how(),
    );
    let many = through(runtime, &[server(&database()?)?], TENANTS, decisions)?;
    report.fact(&format!("postgres, {TENANTS} tenants"), many.rate(), many.how());
    for batch in [1, 64, 512] {
        let store = PgStore::connect(&postgres::Options { url: database()? })?;
        let receipts = (decisions / 2).min(batch * 1_000);
        let took = alone(&store, batch, receipts)?;
        report.fact(
            &format!("postgres, the store alone, batches of {batch}"),
            format!("{}/s", whole(numbers::rate(receipts as u64, took))),
            "the limit: one stream, sealed and appended one batch after the other".to_owned(),
        );
    }
    let url = database()?;
    let instances = (0..INSTANCES).map(|_| server(&url)).collect::<Result<Vec<_>>>()?;
    let hot = through(runtime, &instances, 1, decisions / 4)?;
    report.fact(
        &format!("postgres, one tenant on {INSTANCES} instances"),
        hot.rate(),
        format!("{}; {:.2} lost races for each receipt", hot.how(), hot.lost_share()),
    );
    let url = database()?;
    let instances = (0..INSTANCES).map(|_| server(&url)).collect::<Result<Vec<_>>>()?;
    let apart = through(runtime, &instances, TENANTS, decisions / 2)?;
    report.fact(
        &format!("postgres, {TENANTS} tenants on {INSTANCES} instances"),
        apart.rate(),
        format!("{}; {:.2} lost races for each receipt", apart.how(), apart.lost_share()),
    );
    Ok(())
}

/// A store, and what has to be done for it beside the writer.
#[derive(Clone)]
struct Backend {
    store: Arc<dyn Store>,
    maintain: Arc<dyn Fn() + Send + Sync>,
}

fn memory(_: &Path) -> Result<Backend> {
    Ok(Backend { store: Arc::new(SqliteStore::memory()?), maintain: Arc::new(|| {}) })
}

fn sqlite(dir: &Path) -> Result<Backend> {
    let store = SqliteStore::open(dir, &Options { synchronous: Synchronous::Full })?;
    let store = Arc::new(store);
    let maintained = Arc::clone(&store);
    Ok(Backend { store, maintain: Arc::new(move || maintained.maintain()) })
}

fn server(url: &str) -> Result<Backend> {
    let store = Arc::new(PgStore::connect(&postgres::Options { url: url.to_owned() })?);
    let maintained = Arc::clone(&store);
    Ok(Backend { store, maintain: Arc::new(move || maintained.maintain()) })
}

struct Through {
    decisions: usize,
    tenants: usize,
    took: Duration,
    waits: Waits,
    lost: u64,
}

impl Through {
    fn per_second(&self) -> f64 {
        numbers::rate(self.decisions as u64, self.took)
    }

    fn rate(&self) -> String {
        format!("{}/s", whole(self.per_second()))
    }

    fn how(&self) -> String {
        let mut waits = self.waits.clone();
        format!(
            "{SUBMITTERS} submitters, {} tenants, {} decisions; p50 {:.2}, p99 {:.2} ms",
            self.tenants,
            self.decisions,
            waits.percentile_ms(50.0),
            waits.percentile_ms(99.0)
        )
    }

    fn lost_share(&self) -> f64 {
        self.lost as f64 / self.decisions as f64
    }
}

/// Submitters that ask the instances in turn for prices: commands that depend on no order.
fn through(
    runtime: &Runtime,
    backends: &[Backend],
    tenants: usize,
    decisions: usize,
) -> Result<Through> {
    runtime.block_on(async {
        let mut engines = Vec::new();
        for Backend { store, maintain } in backends {
            let maintain = Arc::clone(maintain);
            let upkeep = Worker::thread("store_maintenance", move |stop: Stop| {
                let beat = || stop.channel().recv_timeout(MAINTAIN_INTERVAL);
                while beat().is_err_and(|end| end.is_timeout()) {
                    maintain();
                }
            });
            engines.push(start(Arc::clone(store), upkeep, STATES_MAX)?);
        }
        let started = Instant::now();
        let mut tasks = JoinSet::new();
        for (nth, (engine, _)) in engines.iter().cycle().take(SUBMITTERS).enumerate() {
            let share = decisions / SUBMITTERS + usize::from(nth < decisions % SUBMITTERS);
            tasks.spawn(quotes(engine.clone(), nth, tenants, share));
        }
        let mut waits = Waits::default();
        while let Some(done) = tasks.join_next().await {
            waits.extend(done??);
        }
        let took = started.elapsed();
        let lost = engines.iter().map(|(_, metrics)| metrics.append_conflicts.get()).sum();
        for (engine, _) in engines {
            engine.drain(DRAIN).await;
        }
        Ok(Through { decisions, tenants, took, waits, lost })
    })
}

async fn quotes(engine: Engine, nth: usize, tenants: usize, share: usize) -> Result<Waits> {
    let mut waits = Waits::default();
    for turn in 0..share {
        let name = workload::tenant_name("b", (nth + turn * SUBMITTERS) % tenants);
        let tenant = TenantId::new(&name).context("not a tenant id")?;
        let key = format!("{nth:04x}-{turn:08x}");
        let started = Instant::now();
        loop {
            let key = CallerKey { source: "marketplace", key: &key, body: b"{}" };
            let request = Request {
                stream: StreamName::tenant(&tenant),
                command: Command::Quote { charge: false },
                actor: "marketplace".into(),
                may_register: true,
                key: Some(key),
            };
            match engine.act(request).await {
                Ok(decided) => break ensure!(decided.is_some(), "nothing was decided"),
                // A hot stream: the caller is told to come back.
                Err(refused) if refused.reason == types::Reason::GovernorNotReady => {}
                Err(refused) => return Err(refused.into()),
            }
        }
        waits.add(started.elapsed());
    }
    Ok(waits)
}

/// Appends `receipts` to one stream, a batch at a time, without an engine.
fn alone(store: &dyn Store, batch: usize, receipts: usize) -> Result<Duration> {
    let (ledger, stream) = (store.identity().ledger, StreamName::parse("hot")?);
    let (mut head, mut log) = (StreamHead::EMPTY, store.head()?);
    let started = Instant::now();
    for first in (0..receipts).step_by(batch) {
        let before = log;
        let mut entries = Vec::with_capacity(batch);
        for nth in first..(first + batch).min(receipts) {
            let draft = Draft::new(Kind::Transition, "grant").states("unentitled", "entitled");
            let at = Micros(1_700_000_000_000_000 + nth as i64);
            let sealed = seal(&ledger, &stream, &head, at, &draft)?;
            let prev_hash = head.last_hash;
            head = head.after(&sealed);
            log = HeadRecord::after(&log, sealed.hash, sealed.at);
            let kind = draft.kind;
            entries.push(engine::ports::Entry {
                sealed,
                prev_hash,
                kind,
                key: None,
                settles: None,
            });
        }
        let (due, snapshots) = (Vec::new(), Vec::new());
        store.append(&engine::ports::Batch { before, after: log, entries, due, snapshots })?;
    }
    Ok(started.elapsed())
}
