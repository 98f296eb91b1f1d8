//! `tai serve`, as a story: telemetry, store, governors, engine, HTTP last; and back in reverse.
//!
//! Owns: the order of start and stop. Refuses to know: how any part works.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use base64::{Engine as _, alphabet};
use engine::actions::Registry;
use engine::clock::SystemClock;
use engine::ports::Store;
use engine::supervise::{Stop, Worker};
use engine::{Engine, Options, Parts};
use gateway::{Gateway, Process, Rate, Signatures};
use governors::Rules;
use ledger::seal::sha256;
use sd_notify::NotifyState;
use settings::{AuthRequired, Backend, LogLevel, Secret, Settings, Synchronous};
use store::SqliteStore;
use telemetry::LogHandle;
use telemetry::metrics::Metrics;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};

use types::Clock;

use crate::check::Start;
use crate::cli::{EXIT_FAILED, EXIT_OK, usage_error};
use crate::daemon::ready_word;
use crate::live::{Applied, Ask, Live};
use crate::pull::{self, Pulled};

/// How often the log's own losses are brought to the metrics.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(5);
/// How often the store is asked whether its journal wants folding back.
const MAINTAIN_INTERVAL: Duration = Duration::from_millis(100);

/// Threads for reads that may block: twice the store's readers. More would only wait, each with a
/// heap of its own.
const BLOCKING_THREADS: usize = 8;

/// Runs the service until it is asked to stop; `detached` from the terminal that it was started
/// from, so that the end of that session is not its end.
///
/// A restart runs `program`, which may be another file by then: that is the point of it. A link is
/// run as such, so that the process keeps its name.
pub(crate) fn run(start: Start, program: &Path, detached: bool) -> anyhow::Result<ExitCode> {
    if detached {
        // Fails for who leads a session already, as after a restart.
        let _ = rustix::process::setsid();
    }
    let settings = start.resolved.settings.clone();
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
    let live = Arc::new(Live::new(start.baseline, start.resolved));
    let outcome = runtime.block_on(serve(&live, settings, rules, Arc::clone(&log)));
    // Reads that still block must not hold the exit up: nothing depends on their answers.
    runtime.shutdown_background();
    if let Ok(End::Asked | End::Restart) = outcome {
        tracing::info!(event = "shutdown_complete", "Shutdown complete");
    }
    log.flush();
    match outcome? {
        End::Asked => Ok(ExitCode::from(EXIT_OK)),
        End::StoreFailed => Ok(ExitCode::from(EXIT_FAILED)),
        End::NoKeys => {
            let mistake = "BIND_ADDRESS: beyond loopback every request needs a key, and there is \
                           no operator's key yet; make one with `tai key create --admin` or set \
                           ADMIN_API_KEY";
            Ok(usage_error(&[mistake.to_owned()]))
        }
        End::Restart => {
            let mut arguments = std::env::args_os();
            let mut command = std::process::Command::new(program);
            command.args(arguments.by_ref().skip(1));
            command.arg0(std::env::args_os().next().unwrap_or_default());
            // Returns only when it failed: the process keeps its id, and whoever watches it.
            Err(command.exec()).context("cannot restart")
        }
    }
}

/// Why the service ended.
enum End {
    /// By a signal, or by the operator.
    Asked,
    /// To begin anew.
    Restart,
    /// The store can no longer be trusted.
    StoreFailed,
    /// It did not begin: strangers could reach it and nobody has a key.
    NoKeys,
}

async fn serve(
    live: &Arc<Live>,
    settings: Settings,
    rules: Arc<Rules>,
    log: Arc<LogHandle>,
) -> anyhow::Result<End> {
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
    let clock = Arc::new(SystemClock::not_before(head.at));
    let parts = Parts {
        store,
        rules,
        clock: Arc::clone(&clock) as Arc<dyn Clock>,
        registry: Registry::shipped(),
        metrics: Arc::clone(&metrics),
        store_workers,
    };
    let mut signals = Signals::new()?;
    let engine = Engine::start(parts, engine_options(&settings));
    let observed = (Arc::clone(&metrics), Arc::clone(&log));
    let observer = Worker::task("observer", move |stop| observe(observed.clone(), stop));
    engine.supervisor().start("observability_sup", vec![observer]);
    let has_key = settings.admin_api_key.is_some() || engine.has_admin_key().await?;
    if !settings.bind_address.is_loopback() && !has_key {
        engine.drain(Duration::from_secs(1)).await;
        return Ok(End::NoKeys);
    }
    for (event, detail) in opened {
        engine.note(event, detail).await.context("cannot record the start")?;
    }

    let options = gateway_options(&settings, relaxed);
    let is_open = options.is_open;
    let process = Arc::clone(live) as Arc<dyn Process>;
    let door = Gateway::new(engine.clone(), Arc::clone(&metrics), process, options, address);
    let door = Arc::new(door);
    let applied = Arc::new(Applied {
        engine: engine.clone(),
        door: Arc::clone(&door),
        metrics: Arc::clone(&metrics),
        log: Arc::clone(&log),
    });
    // Before the door opens: a setting that was changed live holds from the first request on.
    live.apply(&applied).await?;
    let followed = Arc::clone(live);
    let follower = Worker::task("live_settings", move |stop| {
        Arc::clone(&followed).follow(Arc::clone(&applied), stop)
    });
    engine.supervisor().start("settings_sup", vec![follower]);
    if let Some(subscriber) = pull::subscriber(&settings, &engine, &metrics, clock) {
        live.set_pull(Arc::new(Pulled(Arc::clone(&subscriber))));
        engine.supervisor().start("gcp_pubsub", vec![subscriber.worker()]);
    }
    engine.supervisor().start("tai_http", vec![gateway::worker(Arc::clone(&door), listener)]);
    if is_open {
        tracing::warn!(
            event = "open_door",
            "no key is needed: every local caller may do everything"
        );
    }
    tracing::info!(event = "listening", address = %address, "listening");
    tell_manager(&[NotifyState::Ready, NotifyState::Custom(&ready_word(address))]);

    let end = tokio::select! {
        () = signals.asked(&log) => End::Asked,
        ask = live.asked() => match ask {
            Ask::Stop => End::Asked,
            Ask::Restart => End::Restart,
        },
        () = engine.store_failed() => End::StoreFailed,
    };
    tracing::info!(event = "shutdown", "shutting down");
    tell_manager(&[NotifyState::Stopping]);
    // One deadline for all: what the connections take is not there for the actions.
    let deadline = Instant::now() + Duration::from_millis(settings.graceful_shutdown_ms);
    door.close();
    engine.supervisor().stop("tai_http").await;
    engine.supervisor().stop("gcp_pubsub").await;
    engine.supervisor().stop("settings_sup").await;
    engine.supervisor().stop("observability_sup").await;
    engine.drain(deadline.saturating_duration_since(Instant::now())).await;
    Ok(end)
}

/// Tells systemd, or `start`, where the process stands; nobody when neither asked.
fn tell_manager(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        // `start` listens until the service is ready and no longer.
        tracing::debug!(event = "manager_gone", %error, "nobody listens at NOTIFY_SOCKET");
    }
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
    let store = SqliteStore::open(&settings.ledger_dir, &store_options(settings));
    let store = store.context("LEDGER_DIR")?;
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

pub(crate) fn store_options(settings: &Settings) -> store::Options {
    let synchronous = match settings.sqlite_synchronous {
        Synchronous::Full => store::Synchronous::Full,
        Synchronous::Off => store::Synchronous::Off,
    };
    store::Options { synchronous }
}

/// The catalogue in force, after a look at what no single setting shows. A mistake names the
/// setting, never its value.
pub(crate) fn rules(settings: &Settings) -> anyhow::Result<Rules> {
    let has_secret = settings.hmac_secret_key.is_some() || settings.jwt_secret_key.is_some();
    if settings.verify_signatures && !has_secret {
        bail!("VERIFY_SIGNATURES: neither HMAC_SECRET_KEY nor JWT_SECRET_KEY is set");
    }
    catalogue(settings)
}

/// The operator's catalogue, or the example that ships with the service.
pub(crate) fn catalogue(settings: &Settings) -> anyhow::Result<Rules> {
    let Some(path) = &settings.catalogue_file else { return Ok(Rules::builtin()?) };
    let text = std::fs::read_to_string(path).context("CATALOGUE_FILE: cannot read the file")?;
    Rules::parse(&text).context("CATALOGUE_FILE")
}

/// Settings that give up a guarantee, shown in `/health` and as gauges (INV-14).
pub(crate) fn relaxed(settings: &Settings, metrics: &Metrics) -> Vec<&'static str> {
    let off = [
        ("RECEIPT_VERIFY_HASHES", !settings.receipt_verify_hashes),
        ("SQLITE_SYNCHRONOUS", settings.sqlite_synchronous == Synchronous::Off),
    ];
    for (name, is_off) in off {
        metrics.safety_relaxed.with([name]).set(i64::from(is_off));
    }
    off.into_iter().filter(|(_, is_off)| *is_off).map(|(name, _)| name).collect()
}

pub(crate) fn engine_options(settings: &Settings) -> Options {
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

pub(crate) fn gateway_options(settings: &Settings, relaxed: Vec<&'static str>) -> gateway::Options {
    gateway::Options {
        connections_max: settings.max_connections,
        requests_max: settings.max_concurrent_requests,
        body_max_bytes: settings.max_body_bytes,
        request_timeout: Duration::from_millis(settings.request_timeout_ms),
        drain_timeout: Duration::from_millis(settings.graceful_shutdown_ms),
        metrics_enabled: settings.metrics_enabled,
        relaxed,
        is_open: settings.auth_required == AuthRequired::Auto
            && settings.bind_address.is_loopback(),
        admin_key: settings.admin_api_key.as_ref().map(|key| sha256(key.expose().as_bytes())),
        signatures: Signatures {
            required: settings.verify_signatures,
            hmac: settings.hmac_secret_key.as_ref().and_then(decoded),
            jwt: settings.jwt_secret_key.as_ref().and_then(decoded),
        },
        rate: Rate::new(settings.rate_limit_per_second, settings.rate_limit_burst),
        tenant_requests_max: settings.tenant_max_concurrent,
        trusted_proxies: settings.trusted_proxy_hops,
    }
}

/// The bytes of a key that is given in base64; the table of settings has checked that it is.
fn decoded(secret: &Secret) -> Option<Vec<u8>> {
    let engine = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
    );
    engine.decode(secret.expose()).ok()
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

pub(crate) fn level(level: LogLevel) -> tracing::Level {
    match level {
        LogLevel::Debug => tracing::Level::DEBUG,
        LogLevel::Info => tracing::Level::INFO,
        LogLevel::Warn => tracing::Level::WARN,
        LogLevel::Error => tracing::Level::ERROR,
    }
}
