//! `act`: the one way in, for requests, signals, timers, results and the service's own notes.
//!
//! Owns: loading cold streams before they are queued, so that a cold tenant never delays
//! strangers; coming back after a lost race; start and drain. Refuses to know: HTTP.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, ArcSwapOption};
use governors::{Command, Rules};
use telemetry::metrics::Metrics;
use telemetry::trace::{self, Kind};
use tokio::sync::{RwLock, Semaphore, watch};
use types::{Clock, Reason, StreamName, TenantId, limits};

use crate::access::Access;
use crate::actions::{Bench, InFlight, Permit, Pool, Registry};
use crate::ai::{self, Ai, AiOptions, AiParts};
use crate::cache::Loaded;
use crate::commit::{Decided, Refused, Reply, Work};
use crate::decider::Duty;
use crate::edge::{Edge, Refusal};
use crate::external::External;
use crate::incidents::WatchParts;
use crate::keys::{CallerKey, Keyed};
use crate::notify::Courier;
use crate::outage::{self, Outage, Route, SpoolUse, Stage, Writes};
use crate::pipeline::{Common, Pipeline, Workers};
use crate::ports::{ReadError, Standby, Store};
use crate::sight::Sight;
use crate::supervise::{Supervisor, Worker};
use crate::{load, reconcile};

/// Turns of one command through loading and lost races before the caller is told to come back.
/// A restart of the decider or the writer costs each command a few.
const TURNS_MAX: usize = 32;

/// The span of a command, from the queue until its receipt is durable.
const COMMIT_SPAN: &str = "receipt.commit";

/// Subsystems without which no command is ever answered.
pub(crate) const NEEDED: [&str; 2] = ["governance_sup", "receipt_ledger_sup"];

/// Reads of the store at once, for which the runtime must have more threads than that: a store that
/// hangs must not hold up what stands in for it.
const READS_MAX: usize = 6;

/// The subsystem that seals what calls to models have used.
pub(crate) const AI_GATEWAY: &str = "ai_gateway";

/// The subsystem that watches a shared store.
pub(crate) const OUTAGE_SUP: &str = "outage_sup";

/// How the engine is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// Commands that may wait for the decider.
    pub queue_max: usize,
    /// Stream states in memory.
    pub states_max: usize,
    /// Actions that run at once.
    pub pool_size: usize,
    /// Actions that may wait.
    pub pool_queue: usize,
    /// The deadline of one try of an action.
    pub action_timeout: Duration,
    /// How often due timers and unsettled attempts are looked for.
    pub check_interval: Duration,
    /// How long what was read of a shared store is taken for what holds, where an answer leaves no
    /// receipt behind whose fence would tell.
    pub fresh: Duration,
    /// The greatest age of what is known of a tenant and is decided on while a shared store is
    /// away.
    pub state_age_max: Duration,
    /// How often a shared store that is away is asked whether it is back, and one on its way back
    /// whether it still answers.
    pub probe_interval: Duration,
    /// What stands in for a shared store that is away.
    pub spool_use: SpoolUse,
    /// Receipts that may wait for it.
    pub spool_max: u64,
    /// How long each stage of its return has to hold.
    pub stage_time: Duration,
    /// Receipts that are written at once, and the wait for them, while a store refuses writes
    /// because there are too many.
    pub spare_batch: usize,
    /// The longest wait for so many.
    pub spare_wait: Duration,
    /// Which receipts are taken.
    pub writes: Writes,
    /// How calls to models are made.
    pub ai: AiOptions,
    /// How often our own figures are looked at.
    pub alert_interval: Duration,
    /// Check the hashes of receipts that are read.
    pub verify_reads: bool,
}

/// What the engine stands on.
pub struct Parts {
    /// Where receipts are kept.
    pub store: Arc<dyn Store>,
    /// What is decided by.
    pub rules: Arc<Rules>,
    /// Wall time.
    pub clock: Arc<dyn Clock>,
    /// What may be done.
    pub registry: Registry,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Workers that the store needs beside the writer.
    pub store_workers: Vec<Worker>,
    /// What stands in for the store while it is away, if it is a shared one.
    pub standby: Option<Arc<dyn Standby>>,
    /// Which models there are, and the way out to them.
    pub ai: AiParts,
    /// What our own figures are watched by, and through whom people are told.
    pub watch: WatchParts,
    /// Do what is due and settle what others have left, for which an instance may be set aside.
    pub does_due: bool,
}

/// One command, as the outer crates hand it in.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Whose chain.
    pub stream: StreamName,
    /// What to decide.
    pub command: Command,
    /// Who asks, for the receipt's `actor`.
    pub actor: Cow<'static, str>,
    /// May register an unknown tenant.
    pub may_register: bool,
    /// The caller's idempotency key.
    pub key: Option<CallerKey<'a>>,
}

/// The engine. Cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

pub(crate) struct Inner {
    pub(crate) ledger: Pipeline,
    pub(crate) common: Common,
    pub(crate) registry: Registry,
    ai: Ai,
    outage: Outage,
    pub(crate) reads: Arc<Semaphore>,
    edge: Edge,
    /// What the process sees of itself, once it looks.
    sight: ArcSwapOption<Sight>,
    pub(crate) external: External,
    /// Who tells people, where anybody is told.
    courier: Option<Arc<dyn Courier>>,
    supervisor: Supervisor,
    draining: AtomicBool,
    /// Shared by every command from outside until it is answered; the drain takes it whole.
    pub(crate) door: RwLock<()>,
}

impl Engine {
    /// Starts writer, decider, pool and reconcilers, in this order. Must be called on the async
    /// pool.
    #[must_use]
    pub fn start(parts: Parts, options: Options) -> Engine {
        let Parts {
            store,
            rules,
            clock,
            registry,
            metrics,
            store_workers,
            standby,
            ai,
            watch,
            does_due,
        } = parts;
        let options = Arc::new(ArcSwap::from_pointee(options));
        metrics.store_stage.set(Stage::Up as i64);
        let common = Common {
            rules,
            clock,
            pool: Pool::new(Arc::clone(&options), Arc::clone(&metrics)),
            metrics: Arc::clone(&metrics),
            options,
            in_flight: Arc::new(InFlight::default()),
            settlements: Arc::default(),
            access: Arc::new(Access::default()),
            live: watch::Sender::new(0),
            told: watch::Sender::new(0),
        };
        let (ledger, workers) = Pipeline::new(Duty::Ledger, store, &common, &NEEDED);
        let engine = Engine(Arc::new(Inner {
            ledger,
            common,
            registry,
            ai: Ai::new(ai),
            outage: Outage::new(standby),
            reads: Arc::new(Semaphore::new(READS_MAX)),
            edge: Edge::default(),
            sight: ArcSwapOption::empty(),
            external: External::default(),
            courier: watch.courier.clone(),
            supervisor: Supervisor::new(metrics),
            draining: AtomicBool::new(false),
            door: RwLock::new(()),
        }));
        engine.supervise(workers, store_workers, does_due);
        engine.supervise_watch(watch, does_due);
        engine
    }

    fn supervise(&self, workers: Workers, store_workers: Vec<Worker>, does_due: bool) {
        let Workers { mut ledger, decider } = workers;
        ledger.extend(store_workers);
        let (timers, unsettled, edge) = (self.clone(), self.clone(), self.clone());
        let mut governance = vec![decider];
        if does_due {
            governance.extend([
                Worker::task("due_timers", move |stop| reconcile::timers(timers.clone(), stop)),
                Worker::task("unsettled", move |stop| {
                    reconcile::unsettled(unsettled.clone(), stop)
                }),
            ]);
        }
        let acting = self.clone();
        let actions = Worker::task("action_workers", move |stop| {
            let (engine, bench) = (acting.clone(), acting.bench());
            async move {
                let waiting = stop.clone();
                let settle =
                    |job, command| reconcile::settle(engine.clone(), job, command, waiting.clone());
                bench.work(stop, settle).await;
            }
        });
        self.supervisor().start("receipt_ledger_sup", ledger);
        self.supervisor().start("governance_sup", governance);
        // Not beside the decider: workers of one subsystem are stopped together, and this one
        // waits for the decider's answers.
        let edge = Worker::task("edge_refusals", move |stop| reconcile::edge(edge.clone(), stop));
        self.supervisor().start("action_pool", vec![actions, edge]);
        let sealing = self.clone();
        let results = Worker::task("call_results", move |stop| {
            ai::seal(sealing.clone(), Arc::clone(&sealing.inner().common.settlements), stop)
        });
        self.supervisor().start(AI_GATEWAY, vec![results]);
        if self.store().is_shared() {
            let watched = self.clone();
            let watch =
                Worker::task("store_watch", move |stop| outage::watch(watched.clone(), stop));
            self.supervisor().start(OUTAGE_SUP, vec![watch]);
        }
    }

    fn bench(&self) -> Bench {
        let Common { pool, options, metrics, .. } = self.0.common.clone();
        Bench { pool, registry: self.0.registry.clone(), options, metrics }
    }

    /// Decides one command. `Ok` is durable: the receipt of the decision, which may be a refusal,
    /// or `None` when there was nothing to decide. `Err` is a refusal without a receipt of its own.
    pub async fn act(&self, request: Request<'_>) -> Result<Option<Decided>, Refused> {
        let mut span = trace::child(Kind::Internal, || COMMIT_SPAN.to_owned());
        let outcome = self.admit(request).await;
        match &outcome {
            Ok(decided) => {
                span.done();
                if let Some(decided) = decided.as_ref().filter(|_| span.is_kept()) {
                    span.set("tai.receipt_id", decided.receipt.id.to_string().as_str());
                    span.set("tai.durability", decided.durability.as_str());
                    span.set("tai.is_replay", decided.replayed);
                }
            }
            Err(refused) => span.fail(refused.reason.code()),
        }
        outcome
    }

    async fn admit(&self, request: Request<'_>) -> Result<Option<Decided>, Refused> {
        let open = self.0.door.try_read().ok().filter(|_| !self.is_draining());
        let Some(_inside) = open else {
            return Err(Refused::new(Reason::ServiceUnavailable, "the service is shutting down"));
        };
        let permit = match request.command {
            // Reserved before the decision: an intervention that was sealed must have its place.
            Command::Signal(_) => Some(self.reserve()?),
            _ => None,
        };
        self.submit(request, permit).await
    }

    /// Puts what is seen from now on where others find it.
    pub(crate) fn show(&self, sight: Arc<Sight>) {
        self.0.sight.store(Some(sight));
    }

    pub(crate) fn courier(&self) -> Option<&Arc<dyn Courier>> {
        self.0.courier.as_ref()
    }

    pub(crate) fn sight(&self) -> Option<Arc<Sight>> {
        self.0.sight.load_full()
    }

    fn reserve(&self) -> Result<Permit, Refused> {
        self.0.common.pool.reserve().ok_or_else(|| {
            let depth = self.0.common.pool.depth();
            tracing::warn!(
                event = "action_queue_full",
                action_queue_depth = depth,
                "action_queue_depth = {depth}"
            );
            let mut refused = Refused::new(Reason::ActionQueueFull, "the action queue is full");
            refused.retry_after_s = Some(1);
            refused
        })
    }

    /// [`Engine::act`] for work of the engine's own, which goes on while it drains.
    pub(crate) async fn submit(
        &self,
        request: Request<'_>,
        permit: Option<Permit>,
    ) -> Result<Option<Decided>, Refused> {
        if let Route::Spool(spool) = self.route(&request.stream, &request.command)? {
            return self.act_in_spool(&spool, request).await;
        }
        let identity = self.store().identity();
        let keyed = request.key.map(|key| Keyed::new(&identity, &request.stream, &key));
        // A key that was used while the store was away, and is not known there yet.
        if let Some(keyed) = &keyed
            && let Some(spool) = self.spool_of(keyed).await?
        {
            return self.act_in_spool(&spool, request).await;
        }
        let again = self.store().is_shared().then(|| request.clone());
        let seen = self.outage().verdicts();
        match self.act_in_ledger(request, keyed, permit).await {
            Err(refused) if refused.reason == Reason::FirestoreError => {
                // Nothing was written: a store that is away is stood in for.
                let Some(request) = again else { return Err(refused) };
                match self.reroute(&request.stream, &request.command, seen).await {
                    Some(spool) => self.act_in_spool(&spool, request).await,
                    None => Err(refused),
                }
            }
            outcome => outcome,
        }
    }

    /// Decides in the ledger and nowhere else, unless the store goes away.
    pub(crate) async fn act_in_ledger(
        &self,
        request: Request<'_>,
        keyed: Option<Keyed>,
        permit: Option<Permit>,
    ) -> Result<Option<Decided>, Refused> {
        tokio::select! {
            biased;
            decided = self.decide_on(&self.0.ledger, request, keyed, permit) => decided,
            () = self.store_gone() => {
                let detail = "the receipt store went away, the outcome is unknown";
                Err(Refused::new(Reason::Timeout, detail))
            }
        }
    }

    /// Decides on one pipeline, loading the stream where it is not in memory.
    pub(crate) async fn decide_on(
        &self,
        pipeline: &Pipeline,
        request: Request<'_>,
        keyed: Option<Keyed>,
        permit: Option<Permit>,
    ) -> Result<Option<Decided>, Refused> {
        let Request { stream, command, actor, may_register, .. } = request;
        let (command, since) = (Arc::new(command), Instant::now());
        let fresh = || Work {
            stream: stream.clone(),
            command: Arc::clone(&command),
            actor: actor.clone(),
            may_register,
            keyed,
            loaded: None,
            permit: permit.clone(),
            since,
        };
        let mut work = fresh();
        for _ in 0..TURNS_MAX {
            work = match pipeline.turn(self.supervisor(), work).await? {
                Reply::Decided(decided) => return Ok(Some(decided)),
                Reply::Nothing => return Ok(None),
                Reply::Refused(refused) => return Err(refused),
                Reply::NotLoaded(back) => {
                    let mut back = *back;
                    back.loaded = Some(self.load(&stream).await?);
                    back
                }
                Reply::Again => fresh(),
            };
        }
        Err(Refused::new(Reason::GovernorNotReady, "the stream is contended"))
    }

    pub(crate) async fn load(&self, stream: &StreamName) -> Result<Loaded, Refused> {
        if stream.is_lane() {
            return self.load_lane(stream).await;
        }
        let stream = stream.clone();
        let progress = Arc::clone(&self.0.ledger.progress);
        self.blocking(move |store| load::load(store, &stream, &progress)).await
    }

    /// Runs a read of the store where it may block.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Refused> {
        self.check_reads()?;
        let turn = tokio::select! {
            turn = Arc::clone(&self.0.reads).acquire_owned() => turn,
            () = self.store_gone() => return Err(outage::away()),
        };
        let Pipeline { store, progress, .. } = &self.0.ledger;
        let (store, progress) = (Arc::clone(store), Arc::clone(progress));
        let request = trace::current();
        let read = move || {
            // Given back by the read itself: a caller who hangs up does not end it.
            let _turn = turn;
            trace::within(request, || progress.read(|| read(&*store)))
        };
        let outcome = tokio::select! {
            biased;
            outcome = tokio::task::spawn_blocking(read) => outcome,
            // The read goes on, and keeps its turn; whoever asked need not wait for it.
            () = self.store_gone() => return Err(outage::away()),
        };
        match outcome {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                tracing::error!(event = "store_read_failed", %error, "cannot read the receipt store");
                Err(Refused::new(Reason::FirestoreError, "the receipt store did not answer"))
            }
            Err(_) => Err(Refused::new(Reason::InternalError, "the read failed")),
        }
    }

    /// Counts a refusal that got no receipt of its own; `tenant` is whose credential it was.
    pub fn refused_at_edge(
        &self,
        reason: Reason,
        endpoint: &'static str,
        tenant: Option<TenantId>,
    ) {
        self.0.edge.count(Refusal { reason, endpoint, tenant });
    }

    /// The options in force.
    #[must_use]
    pub fn options(&self) -> Arc<Options> {
        self.0.common.options.load_full()
    }

    /// Puts other options in force, from the next decision and the next action on.
    pub fn reconfigure(&self, options: Options) {
        if options.ai.cache_time.is_zero() {
            self.0.ai.answers.clear();
        }
        self.0.common.options.store(Arc::new(options));
    }

    /// Changes whenever a live setting or a blocked source does, after the change is durable.
    #[must_use]
    pub fn live_changes(&self) -> watch::Receiver<u64> {
        self.0.common.live.subscribe()
    }

    /// Commands that wait for the decider.
    #[must_use]
    pub fn queue_depth(&self) -> usize {
        self.0.ledger.depth()
    }

    /// Places taken in the action pool and its queue.
    #[must_use]
    pub fn actions_depth(&self) -> usize {
        self.0.common.pool.depth()
    }

    pub(crate) fn ai(&self) -> &Ai {
        &self.0.ai
    }

    pub(crate) fn outage(&self) -> &Outage {
        &self.0.outage
    }

    pub(crate) fn access(&self) -> &Access {
        &self.0.common.access
    }

    /// The counts of refusals since the last receipt about them.
    pub(crate) fn edge(&self) -> &Edge {
        &self.0.edge
    }

    /// Records a fact about the service itself.
    ///
    /// # Errors
    /// As [`Engine::act`].
    pub async fn note(&self, event: &'static str, detail: String) -> Result<(), Refused> {
        self.note_by("tai".into(), event, detail).await
    }

    /// [`Engine::note`] of what somebody did.
    ///
    /// # Errors
    /// As [`Engine::act`].
    pub async fn note_by(
        &self,
        actor: Cow<'static, str>,
        event: &'static str,
        detail: String,
    ) -> Result<(), Refused> {
        self.submit(Engine::note_request(actor, event, detail), None).await.map(drop)
    }

    pub(crate) fn note_request(
        actor: Cow<'static, str>,
        event: &'static str,
        detail: String,
    ) -> Request<'static> {
        let stream = StreamName::system(limits::STREAM_OPS);
        let command = Command::Note { event, detail };
        Request { stream, command, actor, may_register: false, key: None }
    }

    /// The supervision tree.
    #[must_use]
    pub fn supervisor(&self) -> &Supervisor {
        &self.0.supervisor
    }

    /// The parts that the engine's own workers use.
    pub(crate) fn inner(&self) -> &Inner {
        &self.0
    }

    /// What acknowledged receipts survive, and where they are.
    #[must_use]
    pub fn store(&self) -> &dyn Store {
        &*self.0.ledger.store
    }

    /// What is decided by.
    #[must_use]
    pub fn rules(&self) -> &Rules {
        &self.0.common.rules
    }

    /// The clock that decisions are made by.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.0.common.clock
    }

    /// Returns when the store can no longer be trusted and the process has to start anew.
    pub async fn store_failed(&self) {
        self.0.ledger.progress.failed().await;
    }

    /// True once a stored receipt has failed verification. Only a start forgets it.
    #[must_use]
    pub fn is_tampered(&self) -> bool {
        self.0.ledger.progress.is_tampered()
    }

    /// False from a failed append or read of the store until the next one of its kind succeeds.
    #[must_use]
    pub fn store_answers(&self) -> bool {
        self.0.ledger.progress.store_answers()
    }

    /// Refuses new work from now on and goes on with what is inside; only a start undoes it.
    pub fn refuse_work(&self) {
        self.0.draining.store(true, Ordering::Release);
    }

    /// True once [`Engine::drain`] has begun, or [`Engine::refuse_work`] was asked for.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.0.draining.load(Ordering::Acquire)
    }
}
