//! Actions: the registry of what may be done, and the bounded pool that does it.
//!
//! Owns: permits, deadlines, repeats and the hand-back of results. Refuses to know: why an action
//! was decided. Every attempt is durable before it is performed, and its result is a receipt.
//!
//! What if the process dies here? The attempt stands in the ledger without a result. The
//! reconciler finds it: what may be repeated is repeated under the same attempt id, what may not
//! is settled as `unknown`.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use crossbeam_channel as channel;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use governors::{Command, Effect, Outcome, OutcomeStatus};
use telemetry::metrics::Metrics;
use types::{ReceiptId, StreamName};

use crate::act::Options;

/// Tries of an action that may be repeated.
pub const TRIES_MAX: u32 = 3;
/// The wait before the second try; it doubles.
pub const RETRY_BACKOFF: Duration = Duration::from_secs(1);

/// What an action can do to the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EffectClass {
    /// Changes nothing.
    Read,
    /// Can be undone.
    Reversible,
    /// Cannot be undone.
    Irreversible,
}

/// What is known about an action before it runs.
#[derive(Debug, Clone, Copy)]
pub struct ActionSpec {
    /// The name in receipts and metrics.
    pub name: &'static str,
    /// What it can do to the world.
    pub class: EffectClass,
    /// True when a second run under the same attempt id does no more than the first.
    pub idempotent: bool,
    /// The integers that it takes.
    pub args: &'static [&'static str],
}

/// One call of an action.
#[derive(Debug, Clone)]
pub struct Call {
    /// The tenant whose governor decided it.
    pub stream: StreamName,
    /// The attempt's receipt: the idempotency key of the effect.
    pub attempt: ReceiptId,
    /// Arguments by name.
    pub args: BTreeMap<String, i64>,
    /// How long it may take; it is abandoned then.
    pub timeout: Duration,
    /// True for every try but the first.
    pub is_retry: bool,
}

/// Why an action did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ActionError {
    /// It did not take effect and may be tried again.
    #[error("not done: {0}")]
    Retryable(String),
    /// It may have taken effect; what may be repeated is tried again.
    #[error("nobody knows: {0}")]
    Unknown(String),
    /// It did not answer in time, and may have taken effect.
    #[error("no answer in time")]
    TimedOut,
    /// It did not take effect and never will.
    #[error("refused: {0}")]
    Refused(String),
}

/// The future of one call.
pub type ActionFuture = Pin<Box<dyn Future<Output = Result<(), ActionError>> + Send>>;

/// Something that performs an action.
pub trait Actuator: Send + Sync + 'static {
    /// What is known about it.
    fn spec(&self) -> ActionSpec;
    /// Performs it. Dropping the future abandons the call.
    fn run(&self, call: Call) -> ActionFuture;
}

/// The `throttle` of the shipped signal profiles. Its effect is inside the service: from its
/// result receipt on, the tenant's governor spaces the tenant's calls until the lease ends. There
/// is nothing to call outside.
#[derive(Debug, Clone, Copy)]
pub struct Throttle;

impl Actuator for Throttle {
    fn spec(&self) -> ActionSpec {
        ActionSpec {
            name: "throttle",
            class: EffectClass::Reversible,
            idempotent: true,
            args: &["min_interval_ms", "lease_s"],
        }
    }

    fn run(&self, _: Call) -> ActionFuture {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// The registered actions.
#[derive(Clone, Default)]
pub struct Registry {
    actions: BTreeMap<&'static str, Arc<dyn Actuator>>,
}

impl Registry {
    /// The actions that ship with the service.
    #[must_use]
    pub fn shipped() -> Registry {
        Registry::default().with(Throttle)
    }

    /// Adds an action, or replaces the one of that name.
    #[must_use]
    pub fn with(mut self, actuator: impl Actuator) -> Registry {
        self.actions.insert(actuator.spec().name, Arc::new(actuator));
        self
    }

    /// The action of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<dyn Actuator>> {
        self.actions.get(name)
    }
}

/// A place in the pool or its queue, held from before the decision until after the result. Copies
/// are one place: whoever has to repeat a decision keeps one, so that a lost race or a failed
/// write never costs it the place.
#[derive(Debug, Clone)]
pub struct Permit(#[expect(dead_code, reason = "held for its drop")] Arc<Place>);

#[derive(Debug)]
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// An action to perform, with the place it was promised.
#[derive(Debug)]
pub struct Job {
    pub(crate) stream: StreamName,
    /// Lets go of the attempt when the job is lost, wherever that happens.
    pub(crate) mark: Mark,
    pub(crate) action: String,
    pub(crate) args: BTreeMap<String, i64>,
    pub(crate) permit: Permit,
}

impl Job {
    /// A job for a decided effect.
    #[must_use]
    pub fn new(stream: StreamName, mark: Mark, effect: Effect, permit: Permit) -> Job {
        let Effect { action, args, .. } = effect;
        Job { stream, mark, action, args: args.into_iter().collect(), permit }
    }

    /// The attempt's receipt.
    #[must_use]
    pub fn attempt(&self) -> ReceiptId {
        self.mark.attempt
    }
}

/// Attempts that this process is about to settle, with the number of their marks, so that the
/// reconciler leaves them alone.
#[derive(Debug, Default)]
pub struct InFlight(Mutex<HashMap<ReceiptId, usize>>);

/// One hold on an attempt; let go of when it is dropped.
#[derive(Debug)]
pub struct Mark {
    in_flight: Arc<InFlight>,
    attempt: ReceiptId,
}

impl InFlight {
    /// Takes on an attempt of one's own. Counted, because two lives of the decider may seal the
    /// same attempt, of which one is never written.
    #[must_use]
    pub fn mark(self: &Arc<InFlight>, attempt: ReceiptId) -> Mark {
        *self.lock().entry(attempt).or_default() += 1;
        Mark { in_flight: Arc::clone(self), attempt }
    }

    /// Takes on an attempt that nobody holds.
    #[must_use]
    pub fn adopt(self: &Arc<InFlight>, attempt: ReceiptId) -> Option<Mark> {
        match self.lock().entry(attempt) {
            Entry::Vacant(free) => free.insert(1),
            Entry::Occupied(_) => return None,
        };
        Some(Mark { in_flight: Arc::clone(self), attempt })
    }

    /// True while somebody holds the attempt.
    #[must_use]
    pub fn holds(&self, attempt: ReceiptId) -> bool {
        self.lock().contains_key(&attempt)
    }

    /// Attempts in flight.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ReceiptId, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// True when none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Mark {
    /// What it holds.
    #[must_use]
    pub fn attempt(&self) -> ReceiptId {
        self.attempt
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        if let Entry::Occupied(mut marks) = self.in_flight.lock().entry(self.attempt) {
            *marks.get_mut() -= 1;
            if *marks.get() == 0 {
                marks.remove();
            }
        }
    }
}

/// The pool's entrance. Cheap to clone.
#[derive(Clone)]
pub struct Pool {
    taken: Arc<AtomicUsize>,
    options: Arc<ArcSwap<Options>>,
    jobs: channel::Sender<Job>,
    queued: channel::Receiver<Job>,
    wake: Arc<tokio::sync::Notify>,
    metrics: Arc<Metrics>,
}

impl Pool {
    /// A pool of as many workers and places to wait as the options say at the time.
    #[must_use]
    pub fn new(options: Arc<ArcSwap<Options>>, metrics: Arc<Metrics>) -> Pool {
        #[expect(clippy::disallowed_methods, reason = "each job holds a permit, which are limited")]
        let (jobs, queued) = channel::unbounded();
        Pool {
            taken: Arc::default(),
            options,
            jobs,
            queued,
            wake: Arc::new(tokio::sync::Notify::new()),
            metrics,
        }
    }

    /// A place for one action, or `None` when the queue is full.
    #[must_use]
    pub fn reserve(&self) -> Option<Permit> {
        let options = self.options.load();
        let places_max = options.pool_size + options.pool_queue;
        let next = |taken: usize| (taken < places_max).then_some(taken + 1);
        self.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, next).ok()?;
        Some(Permit(Arc::new(Place(Arc::clone(&self.taken)))))
    }

    /// Places taken: actions waiting and running, and commands that may still need one.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.taken.load(Ordering::Acquire)
    }

    pub(crate) fn submit(&self, job: Job) {
        // Fails only when the pool is gone.
        if let Err(error) = self.jobs.send(job) {
            let attempt = error.into_inner().attempt();
            tracing::error!(event = "action_lost", %attempt, "action queue refused a permitted job");
        }
        self.metrics.action_queue_depth.set(self.queued.len() as i64);
        self.wake.notify_one();
    }

    /// The next job; waits for one.
    async fn next(&self) -> Job {
        loop {
            let woken = self.wake.notified();
            if let Ok(job) = self.queued.try_recv() {
                self.metrics.action_queue_depth.set(self.queued.len() as i64);
                if !self.queued.is_empty() {
                    self.wake.notify_one();
                }
                return job;
            }
            woken.await;
        }
    }
}

/// What the workers need besides the pool.
#[derive(Clone)]
pub(crate) struct Bench {
    pub(crate) pool: Pool,
    pub(crate) registry: Registry,
    pub(crate) options: Arc<ArcSwap<Options>>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Bench {
    /// The workers: performs as many jobs at once as the options say at the time, and settles each
    /// through `settle`. When asked to stop, what runs is finished and nothing new is begun.
    pub(crate) async fn work<F: Future<Output = ()>>(
        &self,
        mut stop: crate::supervise::Stop,
        settle: impl Fn(Job, Command) -> F,
    ) {
        let mut running = FuturesUnordered::new();
        loop {
            let room = running.len() < self.options.load().pool_size;
            tokio::select! {
                biased;
                () = stop.asked() => break,
                Some(()) = running.next(), if !running.is_empty() => {}
                job = self.pool.next(), if room => running.push(self.one(job, &settle)),
            }
        }
        while running.next().await.is_some() {}
    }

    async fn one<F: Future<Output = ()>>(&self, job: Job, settle: &impl Fn(Job, Command) -> F) {
        self.metrics.worker_pool_active.inc();
        let outcome = self.perform(&job).await;
        self.metrics.worker_pool_active.dec();
        let command = Command::Settle { attempt: job.attempt(), outcome };
        settle(job, command).await;
    }

    async fn perform(&self, job: &Job) -> Outcome {
        let started = Instant::now();
        let Some(actuator) = self.registry.get(&job.action) else {
            tracing::error!(event = "action_unknown", attempt = %job.attempt(), "no such action");
            return Outcome { status: OutcomeStatus::Error, duration_ms: 0, tries: 0 };
        };
        let spec = actuator.spec();
        let mut tries = 0;
        let status = loop {
            tries += 1;
            let timeout = self.options.load().action_timeout;
            let call = Call {
                stream: job.stream.clone(),
                attempt: job.attempt(),
                args: job.args.clone(),
                timeout,
                is_retry: tries > 1,
            };
            let again = spec.idempotent && tries < TRIES_MAX;
            // One broken actuator must neither take its worker down nor leave the attempt open.
            let guarded = AssertUnwindSafe(async { actuator.run(call).await }).catch_unwind();
            let done = tokio::time::timeout(timeout, guarded).await.map(Result::ok);
            match done.unwrap_or(Some(Err(ActionError::TimedOut))) {
                Some(Ok(())) => break OutcomeStatus::Success,
                Some(Err(error)) if again && !matches!(error, ActionError::Refused(_)) => {}
                None if again => {}
                Some(Err(error)) => {
                    tracing::warn!(event = "action_failed", action = spec.name, attempt = %job.attempt(), %error, "action failed");
                    break failed(&error, spec.idempotent);
                }
                None => {
                    tracing::error!(event = "action_panicked", action = spec.name, attempt = %job.attempt(), "action panicked");
                    let idempotent = spec.idempotent;
                    break if idempotent { OutcomeStatus::Error } else { OutcomeStatus::Unknown };
                }
            }
            tokio::time::sleep(RETRY_BACKOFF * (1 << (tries - 1))).await;
        };
        let took = started.elapsed();
        self.metrics.action_executions.with([spec.name, status.as_str()]).inc();
        let duration = self.metrics.action_execution_duration_ms.with([spec.name]);
        duration.observe(took.as_secs_f64() * 1e3);
        let duration_ms = i64::try_from(took.as_millis()).unwrap_or(i64::MAX);
        Outcome { status, duration_ms, tries }
    }
}

fn failed(error: &ActionError, idempotent: bool) -> OutcomeStatus {
    match error {
        ActionError::Retryable(_) | ActionError::Refused(_) => OutcomeStatus::Error,
        ActionError::TimedOut if idempotent => OutcomeStatus::Timeout,
        // Abandoned on the way: what may not be repeated may have happened.
        ActionError::TimedOut | ActionError::Unknown(_) => OutcomeStatus::Unknown,
    }
}
