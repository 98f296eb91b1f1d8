//! The engine's commit path beside a bare insert of the same bytes.
//!
//! Owns: the driver of an engine in this process, and the comparison. Refuses to know: SQL.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use engine::actions::Registry;
use engine::ai::{AiOptions, AiParts};
use engine::clock::SystemClock;
use engine::keys::CallerKey;
use engine::ports::{
    AppendError, Batch, Durability, IdemKey, Identity, Query, ReadError, Snapshot, Store, Stored,
};
use engine::supervise::{Stop, Worker};
use engine::{Engine, Options, Parts, Request, SpoolUse, WatchParts, Writes};
use governors::Rules;
use ledger::HeadRecord;
use store::{SqliteStore, Synchronous};
use telemetry::metrics::Metrics;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use types::{Micros, ReceiptId, StreamName};

use crate::numbers::{self, Waits, median, whole};
use crate::process::CpuTimes;
use crate::report::Report;
use crate::{Size, bare, workload};

const SUBMITTERS: usize = 64;
const TENANTS: usize = 1_000;
const ROUNDS: usize = 5;
const SHARE_MIN: f64 = 0.85;
const ACK_P99_MAX_MS: f64 = 5.0;

/// Stream states that the service keeps by default.
const STATES_MAX: usize = 100_000;

/// How often upkeep of the files runs, in the service and here.
pub(crate) const MAINTAIN_INTERVAL: Duration = Duration::from_millis(100);

pub(crate) fn run(size: Size) -> Result<Report> {
    let decisions = size.pick(200_000, 20_000);
    let runtime = two_workers()?;
    let base = crate::big::data_dir()?;
    let mut rounds = Vec::new();
    for _ in 0..size.pick(ROUNDS, 2) {
        let dir = tempfile::tempdir_in(&base)?;
        let ours = ours(&runtime, dir.path(), decisions)?;
        let bare_dir = tempfile::tempdir_in(&base)?;
        let rows = bare::Rows::load(dir.path())?;
        ensure!(rows.len() as u64 == ours.receipts, "the ledger has other receipts than were seen");
        let groups = ours.groups.clone();
        let to = bare_dir.path().to_owned();
        let bare = runtime
            .block_on(async move {
                tokio::task::spawn_blocking(move || bare::insert(&to, &rows, &groups)).await
            })
            .context("the bare insert panicked")??;
        rounds.push((ours, bare));
    }
    Ok(tell(decisions, rounds))
}

fn tell(decisions: usize, mut rounds: Vec<(Ours, bare::Bare)>) -> Report {
    let ours: Vec<_> =
        rounds.iter().map(|(ours, _)| numbers::rate(ours.receipts, ours.took)).collect();
    let bare: Vec<_> =
        rounds.iter().map(|(ours, bare)| numbers::rate(ours.receipts, bare.took)).collect();
    let shares: Vec<_> = ours.iter().zip(&bare).map(|(ours, bare)| ours / bare).collect();
    let mut percentile = |percent| {
        let each: Vec<_> =
            rounds.iter_mut().map(|(ours, _)| ours.waits.percentile_ms(percent)).collect();
        median(&each)
    };
    let (p50, p99) = (percentile(50.0), percentile(99.0));
    let share = median(&shares);
    let mut report = Report::default();
    let how = format!(
        "{SUBMITTERS} submitters, {TENANTS} tenants, {decisions} decisions, each with a key; \
         median of {} alternating rounds",
        rounds.len()
    );
    report.fact(
        "engine, receipts/s",
        whole(median(&ours)),
        format!("{how}; {}", numbers::rounds(&ours)),
    );
    report.fact(
        "bare insert, receipts/s",
        whole(median(&bare)),
        format!(
            "same bytes, tables, group sizes, pragmas, upkeep; names go into the index at once; {}",
            numbers::rounds(&bare)
        ),
    );
    let each: Vec<_> = shares.iter().map(|share| format!("{:.1}", share * 100.0)).collect();
    report.bar(
        "engine ÷ bare",
        "≥ 85 %",
        format!("{:.1} %", share * 100.0),
        share >= SHARE_MIN,
        format!("median of the rounds: {} %", each.join(", ")),
    );
    report.bar(
        "ack p99",
        "< 5 ms",
        format!("{p99:.2} ms (p50 {p50:.2} ms)"),
        p99 < ACK_P99_MAX_MS,
        "from `act` to its answer, closed loop".to_owned(),
    );
    if let Some((last, bare)) = rounds.last() {
        let groups = last.groups.len();
        let busy: Duration = last.groups.iter().map(|group| group.took).sum();
        let each = |time: Duration| time.as_secs_f64() * 1e6 / last.receipts as f64;
        report.fact(
            "receipts per group",
            format!("{:.1}", last.receipts as f64 / groups as f64),
            format!("{groups} groups in the last round"),
        );
        report.fact(
            "writer inside the store",
            format!("{:.0} %", 100.0 * busy.as_secs_f64() / last.took.as_secs_f64()),
            format!(
                "{:.1} µs per receipt; the bare insert needs {:.1}",
                each(busy),
                each(bare.took)
            ),
        );
        let mut waits = Waits::default();
        last.groups.iter().for_each(|group| waits.add(group.took));
        report.fact(
            "one append",
            format!(
                "p50 {:.2}, p99 {:.2}, worst {:.2} ms",
                waits.percentile_ms(50.0),
                waits.percentile_ms(99.0),
                waits.percentile_ms(100.0)
            ),
            "the store's part of a group, in the last round".to_owned(),
        );
        let cpu = format!("{:.1} µs", each(last.cpu.total()));
        report.fact("engine, CPU per receipt", cpu, last.cpu.per(last.receipts));
        let cpu = format!("{:.1} µs", each(bare.cpu.total()));
        report.fact("bare, CPU per receipt", cpu, bare.cpu.per(last.receipts));
    }
    report
}

/// What one round of the engine gave.
struct Ours {
    receipts: u64,
    took: Duration,
    waits: Waits,
    groups: Vec<Group>,
    cpu: CpuTimes,
}

fn ours(runtime: &Runtime, dir: &Path, decisions: usize) -> Result<Ours> {
    let store = SqliteStore::open(dir, &store::Options { synchronous: Synchronous::Full })?;
    let recorder = Arc::new(Recorder { store, groups: Mutex::default() });
    let maintained = Arc::clone(&recorder);
    let drive = Drive { prefix: "t", submitters: SUBMITTERS, tenants: TENANTS, decisions };
    let (took, waits, cpu) = runtime.block_on(async {
        let upkeep = upkeep(move || maintained.store.maintain());
        let (engine, _) = start(Arc::clone(&recorder) as Arc<dyn Store>, upkeep, STATES_MAX)?;
        let cpu = CpuTimes::of(std::process::id())?;
        let started = Instant::now();
        let waits = drive.run(&engine).await?;
        let took = started.elapsed();
        let cpu = CpuTimes::of(std::process::id())?.since(&cpu);
        engine.drain(Duration::from_secs(10)).await;
        anyhow::Ok((took, waits, cpu))
    })?;
    let groups = recorder.groups();
    // The note about the drain is no work of the submitters, but it stands in the ledger.
    let receipts = groups.iter().map(|group| group.keys.len() as u64).sum();
    Ok(Ours { receipts, took, waits, groups, cpu })
}

/// A runtime as small as the machine that the bars are stated for.
pub(crate) fn two_workers() -> Result<Runtime> {
    Ok(tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?)
}

/// The worker that keeps a ledger's files small, at the pace of the service.
pub(crate) fn upkeep(maintain: impl Fn() + Send + Sync + 'static) -> Worker {
    Worker::thread("store_maintenance", move |stop: Stop| {
        while stop.channel().recv_timeout(MAINTAIN_INTERVAL).is_err_and(|end| end.is_timeout()) {
            maintain();
        }
    })
}

/// An engine with the service's defaults, and what it counts.
pub(crate) fn start(
    store: Arc<dyn Store>,
    upkeep: Worker,
    states_max: usize,
) -> Result<(Engine, Arc<Metrics>)> {
    let metrics = Arc::new(Metrics::new()?);
    let parts = Parts {
        store,
        rules: Arc::new(Rules::builtin()?),
        clock: Arc::new(SystemClock::default()),
        registry: Registry::shipped(),
        metrics: Arc::clone(&metrics),
        store_workers: vec![upkeep],
        standby: None,
        ai: AiParts::none(),
        watch: WatchParts::default(),
        does_due: true,
    };
    let options = Options {
        queue_max: 10_000,
        states_max,
        pool_size: 10,
        pool_queue: 1_000,
        action_timeout: Duration::from_secs(60),
        check_interval: Duration::from_secs(1),
        fresh: Duration::from_secs(2),
        probe_interval: Duration::from_millis(10),
        state_age_max: Duration::from_secs(300),
        spool_use: SpoolUse::Auto,
        spool_max: 100_000,
        stage_time: Duration::ZERO,
        spare_batch: 100,
        spare_wait: Duration::from_secs(5),
        writes: Writes::Auto,
        ai: AiOptions::default(),
        alert_interval: Duration::from_secs(15),
        verify_reads: true,
    };
    Ok((Engine::start(parts, options), metrics))
}

/// Submitters that each decide on tenants of their own, one command at a time.
#[derive(Clone, Copy)]
pub(crate) struct Drive {
    pub(crate) prefix: &'static str,
    pub(crate) submitters: usize,
    pub(crate) tenants: usize,
    pub(crate) decisions: usize,
}

impl Drive {
    pub(crate) async fn run(self, engine: &Engine) -> Result<Waits> {
        let mut tasks = JoinSet::new();
        for nth in 0..self.submitters {
            let engine = engine.clone();
            tasks.spawn(async move { self.submit(&engine, nth).await });
        }
        let mut waits = Waits::default();
        while let Some(done) = tasks.join_next().await {
            waits.extend(done??);
        }
        Ok(waits)
    }

    async fn submit(self, engine: &Engine, nth: usize) -> Result<Waits> {
        let mut waits = Waits::default();
        let own: Vec<_> = (nth..self.tenants).step_by(self.submitters).collect();
        let share = self.decisions / self.submitters;
        let extra = usize::from(nth < self.decisions % self.submitters);
        for turn in 0..share + extra {
            let (tenant, step) = (own[turn % own.len()], turn / own.len());
            let action = workload::action(step);
            let (name, command) = workload::command(self.prefix, tenant, action)?;
            let (key, body) =
                (format!("{nth:04x}-{turn:08x}"), workload::body(self.prefix, tenant, action));
            let key = CallerKey { source: "marketplace", key: &key, body: body.as_bytes() };
            let stream = StreamName::tenant(&name);
            let started = Instant::now();
            let decided = engine
                .act(Request {
                    stream,
                    command,
                    actor: "marketplace".into(),
                    may_register: true,
                    key: Some(key),
                })
                .await?
                .context("nothing was decided")?;
            waits.add(started.elapsed());
            ensure!(!decided.replayed, "a key was used twice");
        }
        Ok(waits)
    }
}

/// What the store was asked to write at once, and how long it took.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    /// For each receipt the key that it answers.
    pub(crate) keys: Vec<Option<IdemKey>>,
    pub(crate) after: HeadRecord,
    pub(crate) snapshots: Vec<Snapshot>,
    took: Duration,
}

/// The store, with a note of each group.
struct Recorder {
    store: SqliteStore,
    groups: Mutex<Vec<Group>>,
}

impl Recorder {
    fn groups(&self) -> Vec<Group> {
        std::mem::take(&mut self.groups.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Store for Recorder {
    fn backend(&self) -> &'static str {
        self.store.backend()
    }

    fn durability(&self) -> Durability {
        self.store.durability()
    }

    fn identity(&self) -> Identity {
        self.store.identity()
    }

    fn head(&self) -> Result<HeadRecord, ReadError> {
        self.store.head()
    }

    fn append(&self, batch: &Batch) -> Result<(), AppendError> {
        let started = Instant::now();
        let outcome = self.store.append(batch);
        let group = Group {
            keys: batch.entries.iter().map(|entry| entry.key).collect(),
            after: batch.after,
            snapshots: batch.snapshots.clone(),
            took: started.elapsed(),
        };
        self.groups.lock().unwrap_or_else(PoisonError::into_inner).push(group);
        outcome
    }

    fn snapshot(&self, stream: &StreamName) -> Result<Option<Snapshot>, ReadError> {
        self.store.snapshot(stream)
    }

    fn read(
        &self,
        stream: &StreamName,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Stored>, ReadError> {
        self.store.read(stream, from_seq, limit)
    }

    fn find(&self, id: ReceiptId) -> Result<Option<Stored>, ReadError> {
        self.store.find(id)
    }

    fn find_keys(&self, keys: &[IdemKey]) -> Result<Vec<Option<Stored>>, ReadError> {
        self.store.find_keys(keys)
    }

    fn query(&self, query: &Query) -> Result<Vec<Stored>, ReadError> {
        self.store.query(query)
    }

    fn lanes(&self, base: &StreamName) -> Result<Vec<StreamName>, ReadError> {
        self.store.lanes(base)
    }

    fn due(&self, now: Micros, limit: usize) -> Result<Vec<StreamName>, ReadError> {
        self.store.due(now, limit)
    }

    fn unsettled(&self, limit: usize) -> Result<Vec<Stored>, ReadError> {
        self.store.unsettled(limit)
    }
}
