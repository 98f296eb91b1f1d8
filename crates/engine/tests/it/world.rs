//! A store, a clock that only moves when told to, and engines over them.
//!
//! Owns: how tests start engines, ask them, wait, and check the whole ledger afterwards.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use engine::actions::{Actuator, Registry};
use engine::ai::{AiOptions, AiParts};
use engine::keys::CallerKey;
use engine::ports::{Query, Standby, Store, Stored};
use engine::{Decided, Engine, Options, Parts, Refused, Request, SpoolUse, WatchParts, Writes};
use futures_util::FutureExt;
use governors::{
    Command, EntitlementAction, EntitlementChange, OutcomeStatus, Reserve, Rules, Signal,
    StreamState,
};
use ledger::{Kind, Sealed, Verifier, View};
use store::SqliteStore;
use telemetry::metrics::Metrics;
use tokio::runtime::Runtime;
use types::{Clock, EntitlementId, Micros, Operation, Reason, ReceiptId, StreamName, TenantId};

use crate::fault_store::FaultStore;

/// Above 80 a signal of `load` starts `scale`, of `disk` `wipe`, of anything else `throttle`.
const CATALOGUE: &str = r#"
version = "test"
currency = "USD"
default_plan = "starter"
[plans.starter]
aliases = []
price_minor_per_month = 100
features = []
[signals.default]
warn_above = 60
intervene_above = 80
action = "throttle"
throttle_min_interval_ms = 1000
throttle_lease_s = 60
[signals.metrics.load]
action = "scale"
[signals.metrics.disk]
action = "wipe"
[signals.severity]
critical = 90
"#;

/// How long a condition may take to come true before the test fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where every test's time begins, in unix seconds.
pub(crate) const START_S: i64 = 1_800_000_000;

#[derive(Clone)]
pub(crate) struct ManualClock(Arc<AtomicI64>);

impl ManualClock {
    pub(crate) fn advance_secs(&self, secs: i64) {
        self.advance_micros(secs * 1_000_000);
    }

    pub(crate) fn advance_micros(&self, micros: i64) {
        self.0.fetch_add(micros, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Micros {
        Micros(self.0.load(Ordering::SeqCst))
    }
}

/// A command that has been asked and not been answered.
pub(crate) type Asked<'a> =
    Pin<Box<dyn Future<Output = Result<Option<Decided>, Refused>> + Send + 'a>>;

/// What engines are started over. Survives them.
pub(crate) struct World {
    pub(crate) store: Arc<FaultStore>,
    pub(crate) clock: ManualClock,
    pub(crate) options: Options,
    pub(crate) registry: Registry,
    /// Off: nobody looks for what is due or was left unsettled.
    pub(crate) does_due: bool,
    /// What figures are watched by, and through whom people are told.
    pub(crate) watch: WatchParts,
    /// What stands in for the store while it is away.
    pub(crate) standby: Option<Arc<dyn Standby>>,
}

/// A running engine and what it counts.
pub(crate) struct Running {
    pub(crate) engine: Engine,
    pub(crate) metrics: Arc<Metrics>,
}

impl World {
    pub(crate) fn new() -> World {
        World {
            store: Arc::new(FaultStore::new(SqliteStore::memory().unwrap())),
            clock: ManualClock(Arc::new(AtomicI64::new(START_S * 1_000_000))),
            registry: Registry::shipped(),
            does_due: true,
            watch: WatchParts::default(),
            standby: None,
            options: Options {
                queue_max: 1_024,
                states_max: 10_000,
                pool_size: 8,
                pool_queue: 1_000,
                action_timeout: Duration::from_secs(30),
                check_interval: Duration::from_millis(10),
                fresh: Duration::from_secs(2),
                probe_interval: Duration::from_millis(10),
                state_age_max: Duration::from_secs(300),
                spool_use: SpoolUse::Auto,
                spool_max: 100_000,
                stage_time: Duration::ZERO,
                spare_batch: 100,
                spare_wait: Duration::from_millis(10),
                writes: Writes::Auto,
                ai: AiOptions::default(),
                alert_interval: Duration::from_secs(15),
                verify_reads: true,
            },
        }
    }

    pub(crate) fn with(mut self, actuator: impl Actuator) -> World {
        self.registry = self.registry.clone().with(actuator);
        self
    }

    pub(crate) fn tuned(mut self, tune: impl FnOnce(&mut Options)) -> World {
        tune(&mut self.options);
        self
    }

    /// Starts an engine on the present runtime.
    pub(crate) fn start(&self) -> Running {
        let metrics = Arc::new(Metrics::new().unwrap());
        let store: Arc<dyn Store> = Arc::clone(&self.store) as Arc<dyn Store>;
        let parts = Parts {
            store,
            rules: Arc::new(Rules::parse(CATALOGUE).unwrap()),
            clock: Arc::new(self.clock.clone()),
            registry: self.registry.clone(),
            metrics: Arc::clone(&metrics),
            store_workers: Vec::new(),
            standby: self.standby.clone(),
            ai: AiParts::none(),
            watch: self.watch.clone(),
            does_due: self.does_due,
        };
        Running { engine: Engine::start(parts, self.options.clone()), metrics }
    }

    /// Runs `life` on a runtime of its own, which then dies with everything that still runs: what
    /// is left of the engine afterwards is what is left of a killed process.
    pub(crate) fn life<F: Future<Output = ()>>(&self, life: impl FnOnce(Running) -> F) {
        let runtime = runtime();
        runtime.block_on(async { life(self.start()).await });
        runtime.shutdown_background();
        let deadline = Instant::now() + PATIENCE;
        while Arc::strong_count(&self.store) > 1 {
            assert!(Instant::now() < deadline, "a worker outlives its engine");
            std::thread::yield_now();
        }
    }
}

impl Drop for World {
    /// A test that fails while a gate is closed must not wait for those behind it.
    fn drop(&mut self) {
        self.store.appends_gate.open();
        self.store.reads_gate.open();
    }
}

pub(crate) fn runtime() -> Runtime {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.worker_threads(2).enable_all().build().unwrap()
}

/// Waits until `condition` holds; fails the test when it never does.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition() {
        assert!(Instant::now() < deadline, "never: {what}");
        // Between two looks, under the deadline above; with paused time it lets the clock go on.
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Waits until so many attempts have their result and none lacks it.
pub(crate) async fn settled(world: &World, results: usize) {
    let is_result = |stored: &Stored| View::scan(&stored.core).unwrap().kind == Kind::ActionResult;
    let all = || {
        let open = world.store.unsettled(1).unwrap();
        open.is_empty() && all(&world.store).into_iter().filter(is_result).count() == results
    };
    eventually("all attempts are settled", all).await;
}

/// Polls once: true when the future waits for something.
pub(crate) fn waits<F: Future + Unpin>(future: &mut F) -> bool {
    future.now_or_never().is_none()
}

pub(crate) fn tenant(n: usize) -> StreamName {
    StreamName::tenant(&TenantId::new(&format!("tenant-{n}")).unwrap())
}

pub(crate) fn entitlement(action: EntitlementAction) -> Command {
    Command::Entitlement(change(action))
}

pub(crate) fn change(action: EntitlementAction) -> EntitlementChange {
    EntitlementChange {
        entitlement_id: EntitlementId::new("base").unwrap(),
        action,
        effective_at: None,
        expires_at: None,
        plan: None,
        metadata: Vec::new(),
    }
}

/// A call to a model that costs nothing.
pub(crate) fn reserve() -> Command {
    Command::Reserve(Reserve {
        operation: Operation::Chat,
        model: "model".to_owned(),
        prices: vec!["model".to_owned()],
        input_max: 1,
        output_floor: 1,
        output_wish: 1,
    })
}

pub(crate) const QUOTE: Command = Command::Quote { charge: false };

pub(crate) fn signal(metric: &str, value: i64) -> Command {
    Command::Signal(Signal {
        metric: metric.to_owned(),
        value_milli: value * 1000,
        measured_at: None,
    })
}

/// A request by a caller that may register tenants and gives no key.
pub(crate) fn request(stream: StreamName, command: Command) -> Request<'static> {
    Request { stream, command, actor: "test".into(), may_register: true, key: None }
}

/// The same under a key, with a body.
pub(crate) fn keyed<'a>(
    stream: StreamName,
    command: Command,
    key: &'a str,
    body: &'a str,
) -> Request<'a> {
    let key = Some(CallerKey { source: "test", key, body: body.as_bytes() });
    Request { key, ..request(stream, command) }
}

impl Running {
    /// Asks for something that must be decided.
    pub(crate) async fn decide(&self, stream: StreamName, command: Command) -> Decided {
        self.engine.act(request(stream, command)).await.unwrap().unwrap()
    }

    /// Asks for something that must be refused without a receipt.
    pub(crate) async fn refused(&self, request: Request<'_>) -> Refused {
        self.engine.act(request).await.unwrap_err()
    }

    /// Registers tenants and grants them what signals need.
    pub(crate) async fn admit(&self, tenants: impl IntoIterator<Item = usize>) {
        let grants = tenants
            .into_iter()
            .map(|n| self.decide(tenant(n), entitlement(EntitlementAction::Grant)));
        futures_util::future::join_all(grants).await;
    }

    /// Asks again, under the same key, as long as the answer says that a retry can help.
    pub(crate) async fn persist(&self, ask: impl Fn() -> Request<'static>, key: &str) -> Decided {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let key = Some(CallerKey { source: "test", key, body: b"{}" });
            match self.engine.act(Request { key, ..ask() }).await {
                Ok(decided) => return decided.unwrap(),
                Err(refused) => {
                    assert!(refused.reason.retryable(), "{refused}");
                    assert!(Instant::now() < deadline, "{refused}");
                }
            }
        }
    }

    /// Closes the gate of commits and lets in one command that the writer waits with and one that
    /// the decider waits with: whatever comes next stays in the queue. The stream must be loaded.
    pub(crate) async fn hold_up<'a>(&'a self, world: &World, keys: [&'a str; 2]) -> Vec<Asked<'a>> {
        let store = &world.store;
        store.appends_gate.close();
        let mut asked: Vec<Asked<'a>> = Vec::new();
        for key in keys {
            let before = store.key_lookups.load(Ordering::SeqCst);
            asked.push(Box::pin(self.engine.act(keyed(tenant(1), QUOTE, key, "{}"))));
            assert!(asked.last_mut().is_some_and(waits));
            let taken = || store.key_lookups.load(Ordering::SeqCst) > before;
            eventually("the decider has taken it", taken).await;
            eventually("the writer is held up", || store.appends_gate.waiting() == 1).await;
        }
        asked
    }

    /// Restarts so far, by subsystem.
    pub(crate) fn restarts(&self) -> BTreeMap<&'static str, u64> {
        let status = self.engine.supervisor().status();
        status.iter().map(|subsystem| (subsystem.name, subsystem.restarts)).collect()
    }

    /// Drains and drops the engine; fails the test when a worker stays behind.
    pub(crate) async fn end(self, world: &World) {
        self.engine.drain(PATIENCE).await;
        drop(self);
        eventually("the store is let go of", || Arc::strong_count(&world.store) == 1).await;
    }
}

pub(crate) fn view(receipt: &Sealed) -> View<'_> {
    View::scan(&receipt.core).unwrap()
}

/// State before and after, as the receipt names them.
pub(crate) fn states(receipt: &Sealed) -> (String, String) {
    let view = view(receipt);
    let text = |raw: Option<ledger::scan::Raw<'_>>| {
        raw.map_or(String::new(), |raw| raw.text().into_owned())
    };
    (text(view.state_from), text(view.state_to))
}

/// The reason on a refusal receipt.
pub(crate) fn reason(receipt: &Sealed) -> Option<Reason> {
    let code = view(receipt).reason?.text().into_owned();
    Reason::ALL.iter().copied().find(|reason| reason.code() == code)
}

/// Everything that a test wants to know of a ledger, after it was found intact.
pub(crate) struct Checked {
    /// In commit order.
    pub(crate) receipts: Vec<Stored>,
    /// The status of each result, by attempt.
    pub(crate) results: HashMap<ReceiptId, String>,
}

impl Checked {
    /// Receipts of one rule, by stream.
    pub(crate) fn by_rule(&self, rule: &str) -> BTreeMap<StreamName, usize> {
        let mut counts = BTreeMap::new();
        for stored in &self.receipts {
            if View::scan(&stored.core).unwrap().rule.is_some_and(|raw| raw.is(rule)) {
                *counts.entry(stored.stream.clone()).or_default() += 1;
            }
        }
        counts
    }

    pub(crate) fn of(&self, stream: &StreamName) -> Vec<&Stored> {
        self.receipts.iter().filter(|stored| stored.stream == *stream).collect()
    }

    /// How the attempts ended, sorted.
    pub(crate) fn statuses(&self) -> Vec<&str> {
        let mut statuses: Vec<&str> = self.results.values().map(String::as_str).collect();
        statuses.sort_unstable();
        statuses
    }
}

/// Hashes, links and folds the whole ledger again, and compares the projections with the folds.
pub(crate) fn verify(store: &FaultStore) -> Checked {
    let receipts = all(store);
    let head = store.head().unwrap();
    assert_eq!(head.size, receipts.len() as u64);
    let mut verifier = Verifier::new(store.identity().ledger, Some(head));
    receipts.iter().for_each(|stored| verifier.push(&stored.row()));
    let report = verifier.finish();
    assert!(report.intact(), "{:?}", report.findings);

    let mut states: BTreeMap<StreamName, StreamState> = BTreeMap::new();
    let (mut attempts, mut results) = (BTreeSet::new(), HashMap::new());
    let mut idems = BTreeSet::new();
    let mut last_at = Micros(0);
    for stored in &receipts {
        let view = View::scan(&stored.core).unwrap();
        assert!(view.at > last_at, "time stands still at {}", stored.pos);
        last_at = view.at;
        let empty = || StreamState::empty(&stored.stream);
        let state = states.entry(stored.stream.clone()).or_insert_with(empty);
        state.apply(&view).unwrap_or_else(|error| panic!("{} at {}", error, stored.pos));
        if let Some(idem) = view.idem {
            assert!(idems.insert(idem.text().into_owned()), "a key was used twice");
        }
        match view.kind {
            Kind::ActionAttempt => assert!(attempts.insert(stored.id)),
            Kind::ActionResult => {
                let status = view.status.unwrap().text().into_owned();
                let before = results.insert(view.intent.unwrap(), status);
                assert!(before.is_none(), "an attempt was settled twice");
            }
            Kind::Transition | Kind::Refusal => {}
        }
    }
    let open: BTreeSet<_> = store.unsettled(usize::MAX).unwrap().iter().map(|s| s.id).collect();
    let of_state = |state: &StreamState| -> Vec<ReceiptId> {
        state.in_flight().into_iter().chain(state.reservations()).collect()
    };
    let folded: BTreeSet<_> = states.values().flat_map(of_state).collect();
    assert_eq!(open, folded, "unsettled attempts");
    assert!(attempts.iter().all(|id| open.contains(id) != results.contains_key(id)));
    let due: BTreeSet<_> = store.due(Micros(i64::MAX), usize::MAX).unwrap().into_iter().collect();
    let waiting = states.iter().filter(|(_, state)| state.next_due().is_some());
    assert_eq!(due, waiting.map(|(stream, _)| stream.clone()).collect(), "due streams");
    Checked { receipts, results }
}

/// Every receipt in commit order.
fn all(store: &FaultStore) -> Vec<Stored> {
    let mut receipts: Vec<Stored> = Vec::new();
    loop {
        let before_pos = receipts.last().map(|stored| stored.pos);
        let page = store.query(&Query { stream: None, before_pos, scan_limit: 1_000 }).unwrap();
        if page.is_empty() {
            receipts.reverse();
            return receipts;
        }
        receipts.extend(page);
    }
}

/// The word of an outcome, for comparison with [`Checked::statuses`].
pub(crate) const fn word(status: OutcomeStatus) -> &'static str {
    status.as_str()
}
