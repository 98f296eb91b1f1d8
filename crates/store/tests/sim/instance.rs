//! One instance of the service: an engine over a store, with a clock that only moves when told to.
//!
//! Owns: how an engine is started, asked and ended, here and nowhere else. Refuses to know: which
//! store it is, and what becomes of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use engine::actions::{
    ActionError, ActionFuture, ActionSpec, Actuator, Call, EffectClass, Registry,
};
use engine::ai::{AiOptions, AiParts};
use engine::ports::Store;
use engine::{Engine, Options, Parts, SpoolUse, Stage, WatchParts, Writes};
use futures_util::FutureExt;
use futures_util::future::join_all;
use governors::{Rules, StreamState};
use telemetry::metrics::Metrics;
use tokio::runtime::{Builder, Runtime};
use types::{Clock, Micros, StreamName};

use crate::book::{Fault, Heard};
use crate::workload::Ask;

/// Above 80 a signal of `load` starts `scale`, of `disk` `wipe`, of anything else `throttle`.
const CATALOGUE: &str = r#"
version = "sim"
currency = "USD"
default_plan = "starter"
[plans.starter]
aliases = ["base"]
price_minor_per_month = 100
features = []
[plans.pro]
aliases = []
price_minor_per_month = 900
features = ["more"]
[signals.default]
warn_above = 60
intervene_above = 80
action = "throttle"
throttle_min_interval_ms = 1000
throttle_lease_s = 20
[signals.metrics.load]
action = "scale"
[signals.metrics.disk]
action = "wipe"
[signals.severity]
critical = 90
"#;

/// How long an end may take before it fails the test.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often timers and attempts are looked for, beside the look at the start, by real time:
/// never where the order of everything must follow from the seed.
pub(crate) const NEVER: Duration = Duration::from_secs(3_600);

/// An instant that is set from outside.
#[derive(Clone, Default)]
pub(crate) struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    pub(crate) fn set(&self, at: Micros) {
        self.0.store(at.0, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Micros {
        Micros(self.0.load(Ordering::SeqCst))
    }
}

/// An action whose outcome follows from its attempt, however often it is repeated.
struct Hand {
    name: &'static str,
    idempotent: bool,
}

impl Actuator for Hand {
    fn spec(&self) -> ActionSpec {
        let Hand { name, idempotent } = *self;
        ActionSpec { name, class: EffectClass::Reversible, idempotent, args: &[] }
    }

    fn run(&self, call: Call) -> ActionFuture {
        let refused = call.attempt.0[0].is_multiple_of(4);
        let outcome = if refused { Err(ActionError::Refused("no".into())) } else { Ok(()) };
        Box::pin(std::future::ready(outcome))
    }
}

/// A running engine on a runtime of its own, which stands still while nobody waits for it.
pub(crate) struct Instance<S> {
    runtime: Runtime,
    engine: Engine,
    store: Arc<S>,
    pub(crate) clock: ManualClock,
}

impl<S: Store> Instance<S> {
    pub(crate) fn start(store: Arc<S>, check_interval: Duration) -> Instance<S> {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        let clock = ManualClock::default();
        let parts = Parts {
            store: Arc::clone(&store) as Arc<dyn Store>,
            rules: Arc::new(Rules::parse(CATALOGUE).unwrap()),
            clock: Arc::new(clock.clone()),
            registry: Registry::shipped()
                .with(Hand { name: "scale", idempotent: true })
                .with(Hand { name: "wipe", idempotent: false }),
            metrics: Arc::new(Metrics::new().unwrap()),
            store_workers: Vec::new(),
            standby: None,
            ai: AiParts::none(),
            watch: WatchParts::default(),
            does_due: true,
        };
        let options = Options {
            queue_max: 1_024,
            states_max: 4,
            pool_size: 4,
            pool_queue: 1_000,
            action_timeout: Duration::from_secs(30),
            check_interval,
            fresh: Duration::from_millis(1),
            state_age_max: Duration::ZERO,
            probe_interval: Duration::from_millis(1),
            spool_use: SpoolUse::Off,
            spool_max: 0,
            stage_time: Duration::ZERO,
            spare_batch: 100,
            spare_wait: Duration::ZERO,
            writes: Writes::Auto,
            ai: AiOptions::default(),
            alert_interval: Duration::from_secs(15),
            verify_reads: true,
        };
        let engine = runtime.block_on(async { Engine::start(parts, options) });
        Instance { runtime, engine, store, clock }
    }

    pub(crate) fn store(&self) -> &S {
        &self.store
    }

    /// Asks all at once; whoever does not give up tells `hear` as soon as the answer is there.
    pub(crate) fn ask(&self, asks: &[Ask], hear: impl Fn(&Ask, Heard)) {
        let one = |ask| self.one(ask, &hear);
        self.runtime.block_on(async { join_all(asks.iter().map(one)).await });
    }

    async fn one(&self, ask: &Ask, hear: &impl Fn(&Ask, Heard)) {
        let mut answer = Box::pin(self.engine.act(ask.request()));
        if ask.gives_up {
            let _ = answer.as_mut().now_or_never();
            return;
        }
        hear(ask, Heard::of(&answer.await));
    }

    /// True once the store is lost for this process.
    pub(crate) fn has_failed(&self) -> bool {
        self.runtime.block_on(async { self.engine.store_failed().now_or_never() }).is_some()
    }

    /// True while everything that commands need runs.
    pub(crate) fn is_running(&self) -> bool {
        self.engine.supervisor().given_up().borrow().is_empty()
    }

    /// No alarm that nothing calls for.
    pub(crate) fn check_calm(&self) -> Result<(), Fault> {
        if self.engine.is_tampered() {
            return Err(Fault::FalseAlarm("a stored state was called tampered".into()));
        }
        Ok(())
    }

    /// The state of a stream by snapshot and tail.
    pub(crate) fn state(&self, stream: &StreamName) -> Result<StreamState, String> {
        self.runtime
            .block_on(self.engine.state(stream))
            .map_err(|refused| format!("{stream} cannot be read: {refused}"))
    }

    /// Lets the instance work until `done` holds; false when it never does.
    pub(crate) fn wait(&self, done: impl Fn(&S) -> bool) -> bool {
        self.wait_until(|| done(&self.store))
    }

    /// Lets the instance work until it takes its store for one that works; false when it never
    /// does.
    pub(crate) fn recover(&self) -> bool {
        self.wait_until(|| self.engine.stage() == Stage::Up)
    }

    fn wait_until(&self, done: impl Fn() -> bool) -> bool {
        let deadline = Instant::now() + PATIENCE;
        self.runtime.block_on(async {
            while !done() {
                if Instant::now() > deadline {
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            true
        })
    }

    /// Ends in order and gives the store back.
    pub(crate) fn drain(self) -> S {
        self.runtime.block_on(self.engine.drain(PATIENCE));
        self.kill()
    }

    /// Ends where it stands: what is left afterwards is what is left of a killed process.
    pub(crate) fn kill(self) -> S {
        let Instance { runtime, engine, mut store, .. } = self;
        drop(engine);
        runtime.shutdown_background();
        let deadline = Instant::now() + PATIENCE;
        loop {
            match Arc::try_unwrap(store) {
                Ok(store) => return store,
                Err(shared) => store = shared,
            }
            assert!(Instant::now() < deadline, "a worker outlives its engine");
            std::thread::yield_now();
        }
    }
}
