//! `tai serve`, as a story: telemetry, store, governors, engine, HTTP last; and back in reverse.
//!
//! Owns: the order of start and stop. Refuses to know: how any part works.

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use egress::{Egress, Endpoint, Hook, RedisAnswers};
use engine::actions::Registry;
use engine::ai::AiParts;
use engine::ai::cache::AnswerStore;
use engine::ai::models::Models;
use engine::clock::SystemClock;
use engine::outbound::Outbound;
use engine::ports::Durability;
use engine::supervise::Worker;
use engine::{Engine, Parts, WatchParts};
use gateway::{Gateway, Process};
use governors::Rules;
use governors::oncall::Gap;
use sd_notify::NotifyState;
use settings::{ServiceRole, Settings};
use telemetry::LogHandle;
use telemetry::metrics::Metrics;
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use types::Clock;

use crate::check::{Start, variable};
use crate::cli::{EXIT_FAILED, EXIT_OK, usage_error};
use crate::daemon::ready_word;
use crate::exports::{Collectors, Exports};
use crate::live::{Applied, Ask, Live};
use crate::observe::{self, Observed};
use crate::options::{
    egress_policy, engine_options, gateway_options, is_open, log_options, relaxed,
};
use crate::providers::{self, Providers};
use crate::pull::{self, Pulled};
use crate::rules_file::{self, RulesFile};
use crate::stores::{self, Served};
use crate::watch::{self, Watch};
use crate::{planned_stop, status_copy};

/// The subsystem that keeps a connection to Redis.
const REDIS: &str = "redis";
/// The subsystem that keeps a copy of the status page.
const STATUS_PAGE: &str = "status_page";

/// What is read and checked before anything is opened.
pub(crate) struct Prepared {
    pub(crate) rules: Arc<Rules>,
    pub(crate) providers: Providers,
    pub(crate) watch: Watch,
    /// The operator's rules for bodies, where there is a file of them.
    pub(crate) bodies: Option<RulesFile>,
    /// Steps of the ladders that are of no use with the channels that are set up.
    pub(crate) gaps: Vec<Gap>,
}

/// What a start that is given up has to end in: nobody waits for it but the operator.
const NO_KEYS_DRAIN: Duration = Duration::from_secs(1);

/// Threads for what may block: reads of the store, of which the engine makes six at once, and what
/// stands in for it. More would only wait, each with a heap of its own.
const BLOCKING_THREADS: usize = 10;

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
    let prepared = prepare(&settings).and_then(|prepared| {
        status_copy::prepare(&settings)?;
        let log = telemetry::log::init(&log_options(&settings), clock);
        Ok((prepared, Arc::new(log.context("LOG_FILE")?)))
    });
    let (prepared, log) = match prepared {
        Ok(prepared) => prepared,
        Err(mistake) => return Ok(usage_error(&[format!("{mistake:#}")])),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()?;
    let live = Arc::new(Live::new(start.baseline, start.resolved));
    let outcome = runtime.block_on(serve(&live, settings, prepared, Arc::clone(&log)));
    // Reads that still block must not hold the exit up: nothing depends on their answers.
    runtime.shutdown_background();
    if let Ok(End::Asked | End::Restart) = outcome {
        tracing::info!(event = "shutdown_complete", "Shutdown complete");
    }
    log.flush();
    match outcome? {
        End::Restart => Err(again(program)),
        End::Asked => Ok(ExitCode::from(EXIT_OK)),
        End::StoreFailed => Ok(ExitCode::from(EXIT_FAILED)),
        End::NoKeys => {
            let mistake = "BIND_ADDRESS, AUTH_REQUIRED: beyond loopback, behind a proxy, and where it is set, \
                           every request needs a key, and there is no operator's key yet; make one \
                           with `tai key create --admin` or set ADMIN_API_KEY";
            Ok(usage_error(&[mistake.to_owned()]))
        }
    }
}

/// Becomes a new process of the same id, so that whoever watches it goes on watching. Returns only
/// when that failed.
fn again(program: &Path) -> anyhow::Error {
    let mut arguments = std::env::args_os();
    let mut command = std::process::Command::new(program);
    // By the name that this one was called by: a link stands for more than the file.
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    anyhow::Error::new(command.args(arguments).exec()).context("cannot restart")
}

/// Why the service ended.
enum End {
    /// By a signal, or by the operator.
    Asked,
    /// To begin anew.
    Restart,
    /// The store can no longer be trusted.
    StoreFailed,
    /// It did not begin: a key is needed and nobody has one.
    NoKeys,
}

async fn serve(
    live: &Arc<Live>,
    settings: Settings,
    prepared: Prepared,
    log: Arc<LogHandle>,
) -> anyhow::Result<End> {
    let mut signals = Signals::new()?;
    // Taken before the store is touched, answered last: a start that cannot listen leaves no trace.
    let listener = TcpListener::bind((settings.bind_address, settings.port))
        .await
        .context("PORT: cannot listen")?;
    let address = listener.local_addr()?;
    let Some(parts) = begin(live, &settings, prepared, &log, listener).await? else {
        return Ok(End::NoKeys);
    };
    tracing::info!(event = "listening", address = %address, "listening");
    tell_manager(&[NotifyState::Ready, NotifyState::Custom(&ready_word(address))]);
    let dir = settings.ledger_dir.clone();
    planned_stop::soon(move || planned_stop::clear(&dir)).await;
    let end = tokio::select! {
        () = signals.asked(&log) => End::Asked,
        ask = live.asked() => match ask {
            Ask::Stop => End::Asked,
            Ask::Restart => End::Restart,
        },
        () = parts.engine.store_failed() => End::StoreFailed,
    };
    tracing::info!(event = "shutdown", "shutting down");
    if !matches!(end, End::StoreFailed) {
        // Whoever watches from outside need not wake anybody for it.
        let (dir, now) = (settings.ledger_dir.clone(), parts.engine.clock().now());
        planned_stop::soon(move || planned_stop::leave(&dir, now)).await;
    }
    if !matches!(end, End::Restart) {
        // To systemd a process that says so and does not end has hung.
        tell_manager(&[NotifyState::Stopping]);
    }
    let limit = Duration::from_millis(live.settings().settings.graceful_shutdown_ms);
    finish(&parts, limit).await;
    Ok(end)
}

/// Starts all parts, HTTP last; `None` when a key is needed that nobody has.
async fn begin(
    live: &Arc<Live>,
    settings: &Settings,
    Prepared { rules, providers, watch, bodies, gaps }: Prepared,
    log: &Arc<LogHandle>,
    listener: TcpListener,
) -> anyhow::Result<Option<Arc<Applied>>> {
    gaps.iter().for_each(|gap| tracing::warn!(event = "oncall_gap", %gap, "{gap}"));
    let metrics = Arc::new(Metrics::new()?);
    let Providers { models, mut dependencies } = providers;
    let policy = egress_policy(settings);
    let collectors = Collectors::read(settings)?;
    dependencies.extend(collectors.dependencies());
    let hook = hook(settings)?;
    dependencies.extend(hook.as_ref().map(Endpoint::dependency));
    let egress = Arc::new(Egress::new(&dependencies, policy, &[], &metrics)?);
    let exports = collectors.begin(settings, log, &egress);
    let redis = redis(settings)?;
    metrics.build_info.with([env!("CARGO_PKG_VERSION")]).set(1);
    let opened = tokio::task::block_in_place(|| {
        let served = stores::open(settings)?;
        let standby = stores::standby(settings, &*served.store)?;
        let head = served.store.head().context("cannot read the ledger's head")?;
        anyhow::Ok((served, standby, head))
    });
    let (Served { store, notes, workers }, standby, head) = opened?;
    tell_volatile(store.durability());
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::not_before(head.at));
    let parts = Parts {
        store,
        rules,
        clock: Arc::clone(&clock),
        registry: registry(settings, hook, &egress),
        metrics: Arc::clone(&metrics),
        store_workers: workers,
        standby,
        ai: ai_parts(settings, models, &egress, redis.as_ref()),
        watch: WatchParts { rules: Some(watch.rules), courier: Some(watch.channels) },
        does_due: settings.service_role != ServiceRole::Gateway,
    };
    let engine = Engine::start(parts, engine_options(settings));
    if let Some(redis) = redis {
        engine.supervisor().start(REDIS, vec![redis.worker()]);
    }
    let observed = Observed {
        engine: engine.clone(),
        egress: Arc::clone(&egress),
        metrics: Arc::clone(&metrics),
        log: Arc::clone(log),
        exports: exports.clone(),
        mounts: observe::mounts(settings).into(),
    };
    let observer = Worker::task("observer", move |stop| observed.clone().observe(stop));
    let observers = [observer].into_iter().chain(exports.workers()).collect();
    engine.supervisor().start("observability_sup", observers);
    note_start(&engine, notes, bodies.as_ref()).await?;
    let has_key = settings.admin_api_key.is_some() || engine.has_admin_key().await?;
    if !is_open(settings) && !has_key {
        engine.drain(NO_KEYS_DRAIN).await;
        return Ok(None);
    }
    let door = Arc::new(door(live, settings, &engine, &metrics, &exports));
    let applied = Applied { engine, egress, door, metrics, log: Arc::clone(log), exports };
    let applied = Arc::new(applied);
    // Before the door opens: a setting that was changed live holds from the first request on.
    live.apply(&applied).await?;
    open_door(live, (settings, bodies), &applied, clock, listener);
    Ok(Some(applied))
}

/// The start is a receipt, and so is what there is to say of it.
async fn note_start(
    engine: &Engine,
    notes: Vec<(&'static str, String)>,
    bodies: Option<&RulesFile>,
) -> anyhow::Result<()> {
    let started = ("start", format!("version {}", env!("CARGO_PKG_VERSION")));
    let checked = bodies.map(|file| ("validation_rules", file.note.clone()));
    for (event, detail) in [started].into_iter().chain(notes).chain(checked) {
        engine.note(event, detail).await.context("cannot record the start")?;
    }
    Ok(())
}

/// The door, still closed.
fn door(
    live: &Arc<Live>,
    settings: &Settings,
    engine: &Engine,
    metrics: &Arc<Metrics>,
    exports: &Exports,
) -> Gateway {
    let process = Arc::clone(live) as Arc<dyn Process>;
    let options = gateway_options(settings, relaxed(settings, metrics));
    if options.is_open {
        tracing::warn!(
            event = "open_door",
            "no key is needed: every local caller may do everything"
        );
    }
    Gateway::new(engine.clone(), Arc::clone(metrics), process, options, exports.tracer())
}

fn tell_volatile(durability: Durability) {
    if durability == Durability::Volatile {
        tracing::warn!(
            event = "volatile",
            "receipts do not survive this process or a loss of power"
        );
    }
}

fn ai_parts(
    settings: &Settings,
    models: Models,
    egress: &Arc<Egress>,
    redis: Option<&RedisAnswers>,
) -> AiParts {
    AiParts {
        models: Arc::new(models),
        outbound: Arc::clone(egress) as Arc<dyn Outbound>,
        answers: redis.map(|redis| Arc::new(redis.clone()) as Arc<dyn AnswerStore>),
        answers_max_bytes: settings.ai_cache_max_bytes,
    }
}

fn open_door(
    live: &Arc<Live>,
    (settings, bodies): (&Settings, Option<RulesFile>),
    parts: &Arc<Applied>,
    clock: Arc<dyn Clock>,
    listener: TcpListener,
) {
    let supervisor = parts.engine.supervisor();
    let (live, followed, applied) = (Arc::clone(live), Arc::clone(live), Arc::clone(parts));
    let follower = Worker::task("live_settings", move |stop| {
        Arc::clone(&followed).follow(Arc::clone(&applied), stop)
    });
    let bodies = bodies.map(|file| file.begin(&parts.engine, &parts.door));
    supervisor.start("settings_sup", [follower].into_iter().chain(bodies).collect());
    if let Some(subscriber) = pull::subscriber(settings, &parts.engine, &parts.metrics, clock) {
        live.set_pull(Arc::new(Pulled(Arc::clone(&subscriber))));
        supervisor.start("gcp_pubsub", vec![subscriber.worker()]);
    }
    if let Some(copier) = status_copy::worker(settings, &parts.door) {
        supervisor.start(STATUS_PAGE, vec![copier]);
    }
    supervisor.start("tai_http", vec![gateway::worker(Arc::clone(&parts.door), listener)]);
}

/// Back in reverse, within one deadline for all: what the connections take is not there for the
/// actions.
async fn finish(parts: &Applied, limit: Duration) {
    let deadline = Instant::now() + limit;
    parts.door.close();
    for name in ["tai_http", STATUS_PAGE, "gcp_pubsub", "settings_sup", REDIS, "observability_sup"]
    {
        // Past the deadline it is still asked to stop.
        let stopped = parts.engine.supervisor().stop(name);
        let left = deadline.saturating_duration_since(Instant::now());
        if tokio::time::timeout(left, stopped).await.is_err() {
            tracing::warn!(
                event = "drain_workers",
                subsystem = name,
                "workers did not stop in time"
            );
        }
    }
    parts.engine.drain(deadline.saturating_duration_since(Instant::now())).await;
    parts.exports.finish().await;
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

    /// Returns when asked to stop. SIGUSR1 writes out the log to wherever it goes and opens its
    /// file anew, as logrotate's scripts ask for; a hangup is no reason to stop.
    async fn asked(&mut self, log: &Arc<LogHandle>) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {}
                _ = self.flush.recv() => {
                    let log = Arc::clone(log);
                    // Waits for a disk; its outcome is in the log or nowhere.
                    let _ = tokio::task::spawn_blocking(move || log.reopen()).await;
                }
            }
        }
    }
}

/// The catalogue and the providers in force, after a look at what no single setting shows. A
/// mistake names the setting, never its value.
pub(crate) fn prepare(settings: &Settings) -> anyhow::Result<Prepared> {
    let has_secret = settings.hmac_secret_key.is_some() || settings.jwt_secret_key.is_some();
    if settings.verify_signatures && !has_secret {
        bail!("VERIFY_SIGNATURES: neither HMAC_SECRET_KEY nor JWT_SECRET_KEY is set");
    }
    stores::check(settings)?;
    let rules = catalogue(settings)?;
    redis(settings)?;
    let variable = |name: &str| variable(name)?.into_string().ok();
    let providers = providers::read(settings, &rules, &variable)?;
    // Where calls leave to is looked at before anything starts.
    let egress = |dependencies: &[_]| {
        Egress::new(dependencies, egress_policy(settings), &[], &Metrics::new()?)
            .map_err(anyhow::Error::new)
    };
    egress(&providers.dependencies).context("PROVIDERS_FILE")?;
    let collectors = Collectors::read(settings)?;
    egress(
        &providers
            .dependencies
            .iter()
            .cloned()
            .chain(collectors.dependencies())
            .collect::<Vec<_>>(),
    )
    .context("LOG_HTTP_ENDPOINT, OTEL_EXPORTER_OTLP_ENDPOINT")?;
    let hook = hook(settings)?.map(|endpoint| endpoint.dependency());
    check_actions(&rules, hook.is_some())?;
    egress(&hook.into_iter().collect::<Vec<_>>()).context("ACTION_HOOK_URL")?;
    let watch = watch::read(settings, &variable)?;
    let channels = watch.names();
    let channels: Vec<&str> = channels.iter().map(|name| &**name).collect();
    // Where nothing is set up, that is all there is to say.
    let gaps = if channels.is_empty() { Vec::new() } else { rules.oncall().gaps(&channels) };
    let shown = watch.shown();
    let shown: Vec<&str> = shown.iter().map(|name| &**name).collect();
    // A step that would tell nobody is no step.
    let rules = Arc::new(rules.with_channels(&channels, &shown));
    let bodies = rules_file::read(settings)?;
    Ok(Prepared { rules, providers, watch, bodies, gaps })
}

/// Who is asked to act outside, if somebody is.
fn hook(settings: &Settings) -> anyhow::Result<Option<Endpoint>> {
    let url = settings.action_hook_url.as_ref();
    url.map(|url| Hook::endpoint(url.expose())).transpose().context("ACTION_HOOK_URL")
}

/// What may be done.
fn registry(settings: &Settings, hook: Option<Endpoint>, egress: &Arc<Egress>) -> Registry {
    let Some(endpoint) = hook else { return Registry::shipped() };
    let outbound = Arc::clone(egress) as Arc<dyn Outbound>;
    Registry::shipped().with(Hook::new(outbound, endpoint, settings.action_hook_secret.clone()))
}

/// A profile whose action nobody can perform would fail each time that it is needed.
fn check_actions(rules: &Rules, has_hook: bool) -> anyhow::Result<()> {
    let shipped = Registry::shipped();
    for action in rules.signal_actions() {
        match action {
            Hook::NAME if has_hook => {}
            Hook::NAME => bail!("CATALOGUE_FILE: the action hook needs ACTION_HOOK_URL"),
            name if shipped.get(name).is_some() => {}
            _ => bail!("CATALOGUE_FILE: a signal profile names an action that there is not"),
        }
    }
    Ok(())
}

/// The server that keeps answers, if one is named. Nothing is sent to it yet.
fn redis(settings: &Settings) -> anyhow::Result<Option<RedisAnswers>> {
    let url = settings.redis_url.as_ref();
    url.map(|url| RedisAnswers::new(url.expose(), &[])).transpose().context("REDIS_URL")
}

/// The operator's catalogue, or the example that ships with the service.
pub(crate) fn catalogue(settings: &Settings) -> anyhow::Result<Rules> {
    let Some(path) = &settings.catalogue_file else { return Ok(Rules::builtin()?) };
    let text = std::fs::read_to_string(path).context("CATALOGUE_FILE: cannot read the file")?;
    Rules::parse(&text).context("CATALOGUE_FILE")
}
