//! `tai serve`, as a story: telemetry, store, governors, engine, HTTP last; and back in reverse.
//!
//! Owns: the order of start and stop. Refuses to know: how any part works.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use engine::actions::Registry;
use engine::clock::SystemClock;
use engine::ports::Store;
use engine::supervise::{Stop, Worker};
use engine::{Engine, Options, Parts};
use gateway::Gateway;
use governors::Rules;
use settings::{Backend, LogLevel, Settings, Synchronous};
use store::SqliteStore;
use telemetry::LogHandle;
use telemetry::metrics::Metrics;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::{EXIT_FAILED, EXIT_OK, usage_error};

/// How often the log's own losses are brought to the metrics.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(5);
/// How often the store is asked whether its journal wants folding back.
const MAINTAIN_INTERVAL: Duration = Duration::from_millis(100);

/// Threads for reads that may block: twice the store's readers. More would only wait, each with a
/// heap of its own.
const BLOCKING_THREADS: usize = 8;

/// Runs the service until it is asked to stop.
pub(crate) fn run(settings: Settings) -> anyhow::Result<ExitCode> {
    let clock = Arc::new(SystemClock::default());
    let prepared = rules(&settings).and_then(|rules| {
        let file = settings.log_file.as_deref();
        let log = telemetry::log::init(level(settings.log_level), file, clock);
        Ok((Arc::new(rules), Arc::new(log.context("LOG_FILE")?)))
    });
    let (rules, log) = match prepared {
        Ok(prepared) => prepared,
        Err(mistake) => return Ok(usage_error(&[format!("{mistake:#}")])),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(serve(settings, rules, Arc::clone(&log)));
    // Reads that still block must not hold the exit up: nothing depends on their answers.
    runtime.shutdown_background();
    if let Ok(EXIT_OK) = outcome {
        tracing::info!(event = "shutdown_complete", "Shutdown complete");
    }
    log.flush();
    outcome.map(ExitCode::from)
}

async fn serve(settings: Settings, rules: Arc<Rules>, log: Arc<LogHandle>) -> anyhow::Result<u8> {
    let metrics = Arc::new(Metrics::new()?);
    metrics.build_info.with([env!("CARGO_PKG_VERSION")]).set(1);
    // Taken before the store is touched, answered last: a start that cannot listen leaves no trace.
    let listener = TcpListener::bind((settings.bind_address, settings.port))
        .await
        .context("PORT: cannot listen")?;
    let address = listener.local_addr()?;
    let (store, opened, store_workers) = open_store(&settings)?;
    let relaxed = relaxed(&settings, &metrics);
    let head = store.head().context("cannot read the ledger's head")?;
    let parts = Parts {
        store,
        rules: Arc::clone(&rules),
        clock: Arc::new(SystemClock::not_before(head.at)),
        registry: Registry::shipped(),
        metrics: Arc::clone(&metrics),
        store_workers,
    };
    let mut signals = Signals::new()?;
    let engine = Engine::start(parts, engine_options(&settings));
    let observed = (Arc::clone(&metrics), Arc::clone(&log));
    let observer = Worker::task("observer", move |stop| observe(observed.clone(), stop));
    engine.supervisor().start("observability_sup", vec![observer]);
    for (event, detail) in opened {
        engine.note(event, detail).await.context("cannot record the start")?;
    }

    let options = gateway_options(&settings, relaxed);
    let door = Arc::new(Gateway::new(engine.clone(), rules, metrics, options, address));
    engine.supervisor().start("tai_http", vec![gateway::worker(Arc::clone(&door), listener)]);
    tracing::warn!(event = "open_door", "no keys exist: every local caller may do everything");
    tracing::info!(event = "listening", address = %address, "listening");

    let exit = tokio::select! {
        () = signals.asked(&log) => EXIT_OK,
        () = engine.store_failed() => EXIT_FAILED,
    };
    tracing::info!(event = "shutdown", "shutting down");
    // One deadline for all: what the connections take is not there for the actions.
    let deadline = Instant::now() + Duration::from_millis(settings.graceful_shutdown_ms);
    door.close();
    engine.supervisor().stop("tai_http").await;
    engine.supervisor().stop("observability_sup").await;
    engine.drain(deadline.saturating_duration_since(Instant::now())).await;
    Ok(exit)
}

/// What an operator sends.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    flush: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            flush: signal(SignalKind::user_defined1())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Returns when asked to stop. SIGUSR1 writes out the log, as logrotate's scripts ask for; a
    /// hangup is no reason to stop.
    async fn asked(&mut self, log: &Arc<LogHandle>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {}
                _ = self.flush.recv() => {
                    let log = Arc::clone(log);
                    // Waits for a disk; its outcome is in the log or nowhere.
                    let _ = tokio::task::spawn_blocking(move || log.flush()).await;
                }
            }
        }
    }
}

type Notes = Vec<(&'static str, String)>;

/// The store, what there is to record about its opening, and the workers that it needs.
fn open_store(settings: &Settings) -> anyhow::Result<(Arc<dyn Store>, Notes, Vec<Worker>)> {
    let version = env!("CARGO_PKG_VERSION");
    let started = ("start", format!("version {version}"));
    if settings.receipt_ledger_backend == Backend::Memory {
        let store = SqliteStore::memory().context("cannot open the receipt store")?;
        tracing::warn!(event = "volatile", "receipts are kept in memory only");
        return Ok((Arc::new(store), vec![started], Vec::new()));
    }
    let options = store::Options { synchronous: synchronous(settings) };
    let store = SqliteStore::open(&settings.ledger_dir, &options).context("LEDGER_DIR")?;
    let mut notes = vec![started];
    if store.opened().head_rewritten {
        notes.push(("recovery", "the head record was missing and was written anew".to_owned()));
    }
    let store = Arc::new(store);
    let maintained = Arc::clone(&store);
    let maintenance = Worker::thread("store_maintenance", move |stop: Stop| {
        while stop.channel().recv_timeout(MAINTAIN_INTERVAL).is_err_and(|e| e.is_timeout()) {
            maintained.maintain();
        }
    });
    Ok((store, notes, vec![maintenance]))
}

fn synchronous(settings: &Settings) -> store::Synchronous {
    match settings.sqlite_synchronous {
        Synchronous::Full => store::Synchronous::Full,
        Synchronous::Off => store::Synchronous::Off,
    }
}

/// The catalogue in force, after a look at what no single setting shows: the operator's file, or
/// the example that ships with the service. A mistake names the setting, never its value.
pub(crate) fn rules(settings: &Settings) -> anyhow::Result<Rules> {
    if !settings.bind_address.is_loopback() {
        bail!("BIND_ADDRESS: without keys the service runs open and only on a loopback address");
    }
    let Some(path) = &settings.catalogue_file else { return Ok(Rules::builtin()?) };
    let text = std::fs::read_to_string(path).context("CATALOGUE_FILE: cannot read the file")?;
    Rules::parse(&text).context("CATALOGUE_FILE")
}

/// Settings that give up a guarantee, shown in `/health` and as gauges (INV-14).
fn relaxed(settings: &Settings, metrics: &Metrics) -> Vec<&'static str> {
    let off = [
        ("RECEIPT_VERIFY_HASHES", !settings.receipt_verify_hashes),
        ("SQLITE_SYNCHRONOUS", settings.sqlite_synchronous == Synchronous::Off),
    ];
    for (name, is_off) in off {
        metrics.safety_relaxed.with([name]).set(i64::from(is_off));
    }
    off.into_iter().filter(|(_, is_off)| *is_off).map(|(name, _)| name).collect()
}

fn engine_options(settings: &Settings) -> Options {
    Options {
        queue_max: settings.receipt_buffer_size,
        states_max: settings.erl_max_ets_tables,
        pool_size: settings.action_pool_size,
        pool_queue: settings.action_queue_size,
        action_timeout: Duration::from_millis(settings.action_timeout_ms),
        check_interval: Duration::from_millis(settings.governor_state_check_interval_ms),
        verify_reads: settings.receipt_verify_hashes,
    }
}

fn gateway_options(settings: &Settings, relaxed: Vec<&'static str>) -> gateway::Options {
    gateway::Options {
        connections_max: settings.max_connections,
        requests_max: settings.max_concurrent_requests,
        body_max_bytes: settings.max_body_bytes,
        request_timeout: Duration::from_millis(settings.request_timeout_ms),
        drain_timeout: Duration::from_millis(settings.graceful_shutdown_ms),
        metrics_enabled: settings.metrics_enabled,
        relaxed,
    }
}

async fn observe((metrics, log): (Arc<Metrics>, Arc<LogHandle>), mut stop: Stop) {
    loop {
        metrics.log_lines_dropped_reach(log.dropped());
        tokio::select! {
            () = stop.asked() => return,
            () = tokio::time::sleep(OBSERVE_INTERVAL) => {}
        }
    }
}

fn level(level: LogLevel) -> tracing::Level {
    match level {
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Error => tracing::Level::ERROR,
    }
}
