//! `act`: the one way in, for requests, signals, timers, results and the service's own notes.
//!
//! Owns: loading cold streams before they are queued, so that a cold tenant never delays
//! strangers; coming back after a lost race; start and drain. Refuses to know: HTTP.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_channel as channel;
use governors::{Command, Rules, StreamState};
use ledger::View;
use telemetry::metrics::Metrics;
use tokio::sync::{RwLock, oneshot, watch};
use tokio::time;
use types::{Clock, Reason, ReceiptId, StreamName, TenantId, limits};

use crate::access::Access;
use crate::actions::{Bench, InFlight, Permit, Pool, Registry};
use crate::commit::{Decided, OpenGroup, Progress, Refused, Reply, Submission, Work};
use crate::edge::{Edge, Refusal};
use crate::keys::{CallerKey, Keyed};
use crate::ports::{Identity, ReadError, Store, Stored};
use crate::supervise::{Supervisor, Worker};
use crate::{answers, decider, load, reconcile, writer};

/// Turns of one command through loading and lost races before the caller is told to come back.
/// A restart of the decider or the writer costs each command a few.
const TURNS_MAX: usize = 32;

/// Subsystems without which no command is ever answered.
const NEEDED: [&str; 2] = ["governance_sup", "receipt_ledger_sup"];

/// Durable groups that wait to be answered.
const ANSWERS_MAX: usize = 8;

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
    /// The greatest age of a state that commands are answered from without a receipt. Only in a
    /// shared store: there alone others write, and what is written is fenced at any age.
    pub state_age_max: Duration,
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
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) registry: Registry,
    pub(crate) pool: Pool,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) rules: Arc<Rules>,
    options: Arc<ArcSwap<Options>>,
    access: Arc<Access>,
    live: watch::Sender<u64>,
    identity: Identity,
    pub(crate) progress: Arc<Progress>,
    queue: channel::Sender<Submission>,
    edge: Edge,
    supervisor: Supervisor,
    draining: AtomicBool,
    /// Shared by every command from outside until it is answered; the drain takes it whole.
    door: RwLock<()>,
}

impl Engine {
    /// Starts writer, decider, pool and reconcilers, in this order. Must be called on the async
    /// pool.
    #[must_use]
    pub fn start(parts: Parts, options: Options) -> Engine {
        let Parts { store, rules, clock, registry, metrics, store_workers } = parts;
        let progress = Arc::new(Progress::default());
        let in_flight = Arc::new(InFlight::default());
        let options = Arc::new(ArcSwap::from_pointee(options));
        let access = Arc::new(Access::default());
        let live = watch::Sender::new(0);
        let pool = Pool::new(Arc::clone(&options), Arc::clone(&metrics));
        #[expect(
            clippy::disallowed_methods,
            reason = "the limit is a live setting: see `one_turn`"
        )]
        let (queue, queued) = channel::unbounded();
        let open = Arc::new(OpenGroup::default());
        let engine = Engine(Arc::new(Inner {
            identity: store.identity(),
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            metrics: Arc::clone(&metrics),
            registry,
            pool: pool.clone(),
            in_flight: Arc::clone(&in_flight),
            rules: Arc::clone(&rules),
            options: Arc::clone(&options),
            access: Arc::clone(&access),
            live: live.clone(),
            progress: Arc::clone(&progress),
            queue,
            edge: Edge::default(),
            supervisor: Supervisor::new(Arc::clone(&metrics)),
            draining: AtomicBool::new(false),
            door: RwLock::new(()),
        }));
        let (durable, answered) = channel::bounded(ANSWERS_MAX);
        let answers = answers::Shared { metrics: Arc::clone(&metrics), durable: answered };
        let written = writer::Shared {
            store: Arc::clone(&store),
            metrics: Arc::clone(&metrics),
            progress: Arc::clone(&progress),
            pool,
            access,
            live,
            open: Arc::clone(&open),
            durable,
        };
        let decided = decider::Shared {
            store,
            rules,
            clock,
            metrics,
            progress,
            in_flight,
            queue: queued,
            open,
            options,
        };
        engine.supervise(written, answers, decided, store_workers);
        engine
    }

    fn supervise(
        &self,
        written: writer::Shared,
        answers: answers::Shared,
        decided: decider::Shared,
        store_workers: Vec<Worker>,
    ) {
        let mut ledger_workers = vec![
            Worker::thread("receipt_writer", move |stop| writer::run(&written, &stop)),
            Worker::thread("receipt_answers", move |stop| answers::run(&answers, &stop)),
        ];
        ledger_workers.extend(store_workers);
        let (timers, unsettled, edge) = (self.clone(), self.clone(), self.clone());
        let governance = vec![
            Worker::thread("governor_decider", move |stop| decider::run(&decided, &stop)),
            Worker::task("due_timers", move |stop| reconcile::timers(timers.clone(), stop)),
            Worker::task("unsettled", move |stop| reconcile::unsettled(unsettled.clone(), stop)),
        ];
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
        self.supervisor().start("receipt_ledger_sup", ledger_workers);
        self.supervisor().start("governance_sup", governance);
        // Not beside the decider: workers of one subsystem are stopped together, and this one
        // waits for the decider's answers.
        let edge = Worker::task("edge_refusals", move |stop| reconcile::edge(edge.clone(), stop));
        self.supervisor().start("action_pool", vec![actions, edge]);
    }

    fn bench(&self) -> Bench {
        Bench {
            pool: self.0.pool.clone(),
            registry: self.0.registry.clone(),
            options: Arc::clone(&self.0.options),
            metrics: Arc::clone(&self.0.metrics),
        }
    }

    /// Decides one command. `Ok` is durable: the receipt of the decision, which may be a refusal,
    /// or `None` when there was nothing to decide. `Err` is a refusal without a receipt of its own.
    pub async fn act(&self, request: Request<'_>) -> Result<Option<Decided>, Refused> {
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

    fn reserve(&self) -> Result<Permit, Refused> {
        self.0.pool.reserve().ok_or_else(|| {
            let depth = self.0.pool.depth();
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
        let Request { stream, command, actor, may_register, key } = request;
        let keyed = key.map(|key| Keyed::new(&self.0.identity, &stream, &key));
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
            work = match self.one_turn(work).await? {
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

    async fn one_turn(&self, work: Work) -> Result<Reply, Refused> {
        let lost = |down: &Vec<&str>| NEEDED.iter().any(|name| down.contains(name));
        let mut down = self.supervisor().given_up();
        if lost(&down.borrow()) {
            return Err(Refused::new(Reason::GovernorNotReady, "a part is down"));
        }
        let (reply, answer) = oneshot::channel();
        // INV-13: a full queue is an answer. Callers that look at once pass it by their number,
        // which the front door bounds.
        let room = self.0.queue.len() < self.options().queue_max;
        let sent = room.then(|| self.0.queue.send(Submission { work, reply }).ok()).flatten();
        sent.ok_or_else(|| {
            let mut refused =
                Refused::new(Reason::ServiceUnavailable, "too many decisions are waiting");
            refused.retry_after_s = Some(1);
            refused
        })?;
        tokio::select! {
            biased;
            answer = answer => answer.map_err(|_| {
                Refused::new(Reason::Timeout, "a part was restarted, the outcome is unknown")
            }),
            _ = down.wait_for(lost) => {
                Err(Refused::new(Reason::GovernorNotReady, "a part is down, the outcome is unknown"))
            }
        }
    }

    async fn load(&self, stream: &StreamName) -> Result<crate::cache::Loaded, Refused> {
        let stream = stream.clone();
        let progress = Arc::clone(&self.0.progress);
        self.blocking(move |store| load::load(store, &stream, &progress)).await
    }

    /// Runs a read of the store where it may block.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        read: impl FnOnce(&dyn Store) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, Refused> {
        let (store, progress) = (Arc::clone(&self.0.store), Arc::clone(&self.0.progress));
        let read = move || progress.after_read(read(&*store));
        match tokio::task::spawn_blocking(read).await {
            Ok(Ok(value)) => Ok(value),
            Ok(Err(error)) => {
                tracing::error!(event = "store_read_failed", %error, "cannot read the receipt store");
                Err(Refused::new(Reason::FirestoreError, "the receipt store did not answer"))
            }
            Err(_) => Err(Refused::new(Reason::InternalError, "the read failed")),
        }
    }

    /// A receipt by id. Its hashes are checked on the way unless reads are set to trust them.
    pub async fn find(&self, id: ReceiptId) -> Result<Option<Stored>, Refused> {
        let found = self.blocking(move |store| store.find(id)).await?;
        found.map(|stored| self.checked(stored)).transpose()
    }

    /// Runs a search where it may block. It is handed the store, and what tells whether a receipt
    /// is as it was sealed, so that only receipts that are shown are checked.
    pub async fn scan<T: Send + 'static>(
        &self,
        search: impl FnOnce(&dyn Store, &dyn Fn(&Stored) -> bool) -> Result<T, ReadError>
        + Send
        + 'static,
    ) -> Result<T, Refused> {
        let engine = self.clone();
        let intact = move |stored: &Stored| engine.checked(stored.clone()).is_ok();
        self.blocking(move |store| search(store, &intact)).await
    }

    fn checked(&self, stored: Stored) -> Result<Stored, Refused> {
        if !self.options().verify_reads {
            return Ok(stored);
        }
        let intact = View::scan(&stored.core).is_ok_and(|view| stored.is_intact(&view));
        let result = if intact { "success" } else { "failed" };
        self.0.metrics.receipt_verification.with([result]).inc();
        if intact {
            return Ok(stored);
        }
        self.0.progress.mark_tampered();
        tracing::error!(event = "hash_verification_failed", receipt_id = %stored.id, seq = stored.seq, "Hash verification failed");
        Err(Refused::new(Reason::FirestoreError, "the stored receipt fails verification"))
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

    /// A stream's state as it is stored: for who looks, not for who decides.
    ///
    /// # Errors
    /// The reasons of a store that does not answer.
    pub async fn state(&self, stream: &StreamName) -> Result<StreamState, Refused> {
        Ok(self.load(stream).await?.live.state)
    }

    /// The options in force.
    #[must_use]
    pub fn options(&self) -> Arc<Options> {
        self.0.options.load_full()
    }

    /// Puts other options in force, from the next decision and the next action on.
    pub fn reconfigure(&self, options: Options) {
        self.0.options.store(Arc::new(options));
    }

    /// Changes whenever a live setting or a blocked source does, after the change is durable.
    #[must_use]
    pub fn live_changes(&self) -> watch::Receiver<u64> {
        self.0.live.subscribe()
    }

    /// Commands that wait for the decider.
    #[must_use]
    pub fn queue_depth(&self) -> usize {
        self.0.queue.len()
    }

    /// Places taken in the action pool and its queue.
    #[must_use]
    pub fn actions_depth(&self) -> usize {
        self.0.pool.depth()
    }

    pub(crate) fn access(&self) -> &Access {
        &self.0.access
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
        let stream = StreamName::system(limits::STREAM_OPS);
        let command = Command::Note { event, detail };
        let request = Request { stream, command, actor, may_register: false, key: None };
        self.submit(request, None).await.map(drop)
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
        &*self.0.store
    }

    /// The clock that decisions are made by.
    #[must_use]
    pub fn clock(&self) -> &dyn Clock {
        &*self.0.clock
    }

    /// Returns when the store can no longer be trusted and the process has to start anew.
    pub async fn store_failed(&self) {
        self.0.progress.failed().await;
    }

    /// True once a stored receipt has failed verification. Only a start forgets it.
    #[must_use]
    pub fn is_tampered(&self) -> bool {
        self.0.progress.is_tampered()
    }

    /// False from a failed append or read of the store until the next one of its kind succeeds.
    #[must_use]
    pub fn store_answers(&self) -> bool {
        self.0.progress.store_answers()
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

    /// Refuses new work, answers what is inside and settles running actions as far as three
    /// quarters of `deadline` allow, records what is left and stops all workers. What could not be
    /// settled is found by the reconciler of the next start. Returns within `deadline`, also when
    /// the store hangs.
    pub async fn drain(&self, deadline: Duration) {
        self.refuse_work();
        let supervisor = self.supervisor();
        let now = time::Instant::now();
        // An action that does not end must not cost the record of the stop.
        let (settled_by, ended_by) = (now + deadline * 3 / 4, now + deadline);
        if time::timeout_at(settled_by, self.0.door.write()).await.is_err() {
            tracing::warn!(event = "drain_commands", "commands are left without an answer");
        }
        if time::timeout_at(settled_by, supervisor.stop("action_pool")).await.is_err() {
            let left = self.0.in_flight.len();
            tracing::warn!(event = "drain_actions", left, "actions are left to the next start");
        }
        let record = async {
            reconcile::flush_edge(self).await;
            self.note("stop", "graceful shutdown".to_owned()).await
        };
        match time::timeout_at(ended_by, record).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(event = "drain_note", %error, "the stop could not be recorded");
            }
            Err(_) => {
                tracing::warn!(event = "drain_note", "the stop could not be recorded in time");
            }
        }
        for name in NEEDED {
            // Past the deadline it is still asked to stop.
            if time::timeout_at(ended_by, supervisor.stop(name)).await.is_err() {
                tracing::warn!(
                    event = "drain_workers",
                    subsystem = name,
                    "workers did not stop in time"
                );
            }
        }
    }
}
