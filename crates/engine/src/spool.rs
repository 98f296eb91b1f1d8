//! What stands in for a store that is away: a ledger of lanes on this machine.
//!
//! Owns: opening one, deciding on what is known of the chains beside, carrying the lanes over
//! verbatim, and signals that wait. Refuses to know: when ([`crate::outage`]).
//!
//! What if the process dies here? A spool on a disk is found by the next start, and so is every
//! signal that waits. A spool is removed after all of its receipts were appended to the store and
//! never before; what was carried over twice is passed over the second time.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arc_swap::ArcSwapOption;
use dialect::JsonLimits;
use dialect::pubsub::{Push, parse_push};
use futures_util::future::join_all;
use governors::{StreamState, change_of};
use ledger::{StreamHead, View};
use tokio::sync::RwLock;
use types::{Blame, LaneId, Reason, StreamName, limits};

use crate::act::{Engine, Request};
use crate::cache::{Loaded, Version};
use crate::commit::{Decided, Refused};
use crate::copy::Copier;
use crate::decider::{Duty, too_old};
use crate::intake::Message;
use crate::keys::{CallerKey, Keyed};
use crate::load;
use crate::pipeline::Pipeline;
use crate::ports::{
    Durability, Inbox, OpenSpool, Query, Queued, ReadError, Standby, Store, Stored,
};
use crate::supervise::Worker;

/// The subsystem of a spool's workers.
pub(crate) const SPOOL_SUP: &str = "spool_sup";

/// Receipts that are carried over at a time.
const CARRY_PAGE: u64 = 500;

/// Signals that are decided at a time.
const TAKE_PAGE: usize = 64;

/// One spool.
pub(crate) struct Spool {
    pub(crate) lane: LaneId,
    pub(crate) store: Arc<dyn Store>,
    /// Absent in one that an earlier life left: nothing is decided into it any more.
    pipeline: Option<Pipeline>,
    /// Shared by every command inside; taken whole before the last receipts are carried over.
    door: RwLock<()>,
    /// Receipts in it, and those of them that are in the store.
    held: AtomicU64,
    carried: AtomicU64,
}

impl Spool {
    fn pending(&self) -> u64 {
        let held = self.held.load(Ordering::Acquire);
        held.saturating_sub(self.carried.load(Ordering::Acquire))
    }

    /// Refuses what would make it larger than it may be.
    pub(crate) fn check_room(&self, max: u64) -> Result<(), Refused> {
        if self.pending() < max {
            return Ok(());
        }
        Err(Refused::new(Reason::FirestoreError, "the receipt store is away and the spool is full"))
    }
}

/// The spools of this life and of those before.
pub(crate) struct Spools {
    standby: Option<Arc<dyn Standby>>,
    current: ArcSwapOption<Spool>,
    left: Mutex<Vec<Arc<Spool>>>,
    /// The live settings as they were read last: what changes to them are decided on.
    settings: Mutex<Option<Version>>,
}

impl Spools {
    pub(crate) fn new(standby: Option<Arc<dyn Standby>>) -> Spools {
        Spools {
            standby,
            current: ArcSwapOption::empty(),
            left: Mutex::default(),
            settings: Mutex::default(),
        }
    }

    pub(crate) fn current(&self) -> Option<Arc<Spool>> {
        self.current.load_full()
    }

    /// Receipts that wait to be carried over.
    pub(crate) fn pending(&self) -> u64 {
        self.all().iter().map(|spool| spool.pending()).sum()
    }

    /// Those of lives before, then the current one.
    fn all(&self) -> Vec<Arc<Spool>> {
        self.left().iter().cloned().chain(self.current()).collect()
    }

    fn left(&self) -> MutexGuard<'_, Vec<Arc<Spool>>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settings(&self) -> MutexGuard<'_, Option<Version>> {
        self.settings.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers the live settings as they were read.
    pub(crate) fn remember(&self, stream: &StreamName, version: &Version) {
        if self.standby.is_some() && stream.as_str() == limits::STREAM_SETTINGS {
            *self.settings() = Some(version.clone());
        }
    }

    fn inbox(&self) -> Option<Arc<dyn Inbox>> {
        self.standby.as_ref().and_then(|standby| standby.inbox())
    }
}

impl Engine {
    /// Makes a spool stand in for the store, unless one does already; gives what its receipts
    /// survive.
    pub(crate) async fn open_spool(&self) -> Result<Durability, String> {
        let spools = &self.outage().spools;
        if let Some(spool) = spools.current() {
            return Ok(local(&*spool.store));
        }
        let standby = spools.standby.clone().ok_or("none is set up")?;
        let identity = self.store().identity();
        let OpenSpool { lane, store, workers } = here(move || standby.open(&identity)).await?;
        let common = &self.inner().common;
        let (pipeline, parts) =
            Pipeline::new(Duty::Spool, Arc::clone(&store), common, &[SPOOL_SUP]);
        let mut all: Vec<Worker> = parts.ledger;
        all.push(parts.decider);
        all.extend(workers);
        self.supervisor().start(SPOOL_SUP, all);
        let durability = local(&*store);
        let spool = Spool {
            lane,
            store,
            pipeline: Some(pipeline),
            door: RwLock::new(()),
            held: AtomicU64::new(0),
            carried: AtomicU64::new(0),
        };
        spools.current.store(Some(Arc::new(spool)));
        Ok(durability)
    }

    /// Opens what earlier lives left behind, to be carried over.
    pub(crate) async fn gather_left(&self) {
        let spools = &self.outage().spools;
        let Some(standby) = spools.standby.clone() else { return };
        let identity = self.store().identity();
        let opened = here(move || {
            let left = standby.left(&identity)?.into_iter();
            left.map(|open| Ok((open.store.head()?.size, open)))
                .collect::<Result<Vec<_>, ReadError>>()
        });
        match opened.await {
            Ok(left) => {
                let spool = |(size, OpenSpool { lane, store, .. })| {
                    let (held, carried) = (AtomicU64::new(size), AtomicU64::new(0));
                    let door = RwLock::new(());
                    Arc::new(Spool { lane, store, pipeline: None, door, held, carried })
                };
                spools.left().extend(left.into_iter().map(spool));
            }
            Err(error) => {
                tracing::error!(
                    event = "spool_left",
                    error,
                    "what an earlier life kept cannot be read"
                );
            }
        }
    }

    /// Decides in the spool. As [`Engine::act`].
    pub(crate) async fn act_in_spool(
        &self,
        spool: &Arc<Spool>,
        request: Request<'_>,
    ) -> Result<Option<Decided>, Refused> {
        let gone = || Refused::new(Reason::FirestoreError, "the spool is being carried over");
        let _inside = spool.door.try_read().map_err(|_| gone())?;
        let pipeline = spool.pipeline.as_ref().ok_or_else(gone)?;
        let identity = self.store().identity();
        let keyed = request.key.map(|key| Keyed::new(&identity, &request.stream, &key));
        let lane = request.stream.lane(spool.lane);
        let request = Request { stream: lane, key: None, ..request };
        let decided = self.decide_on(pipeline, request, keyed, None).await?;
        if let Some(Decided { receipt, replayed: false, .. }) = &decided {
            spool.held.fetch_add(1, Ordering::AcqRel);
            self.inner().common.metrics.receipts_spooled.set(self.spooled() as i64);
            tracing::info!(
                event = "receipt_spooled",
                receipt_id = %receipt.id,
                "GRACEFUL_DEGRADE: Receipt cached, will persist when DB available"
            );
        }
        Ok(decided)
    }

    /// The state that a lane begins with, and all that is in the lane.
    pub(crate) async fn load_lane(&self, lane: &StreamName) -> Result<Loaded, Refused> {
        let spool = self.outage().spools.current();
        let spool =
            spool.ok_or_else(|| Refused::new(Reason::FirestoreError, "the spool is closed"))?;
        let Some(pipeline) = &spool.pipeline else { return Err(too_old()) };
        let (base, progress) = (self.known(&lane.base())?, Arc::clone(&pipeline.progress));
        let (store, lane) = (Arc::clone(&spool.store), lane.clone());
        let loaded = here(move || load::lane(&*store, &lane, base, &progress)).await;
        loaded.map_err(|error| {
            tracing::error!(event = "spool_read", error, "the spool cannot be read");
            Refused::new(Reason::FirestoreError, "the spool did not answer")
        })
    }

    /// What is known of a chain without asking the store.
    fn known(&self, stream: &StreamName) -> Result<Version, Refused> {
        match stream.as_str() {
            limits::STREAM_SETTINGS => self.outage().spools.settings().clone().ok_or_else(too_old),
            name if name.starts_with('_') => Ok(Version {
                state: StreamState::empty(stream),
                head: StreamHead::EMPTY,
                due: None,
                last_group: 0,
                read_at: std::time::Instant::now(),
            }),
            _ => {
                let ledger = &self.inner().ledger;
                let mut states = ledger.states.lock();
                let live = states.get(stream);
                let durable = live.and_then(|live| live.durable(ledger.progress.committed()));
                durable.cloned().ok_or_else(too_old)
            }
        }
    }

    /// The receipt that a key of `stream` was used for in the spool, where that is not in the store
    /// yet.
    pub(crate) async fn spool_of(&self, keyed: &Keyed) -> Option<Arc<Spool>> {
        let spool = self.outage().spools.current().filter(|spool| spool.pending() > 0)?;
        let (store, key) = (Arc::clone(&spool.store), keyed.store_key());
        let found = here(move || store.find_keys(&[key])).await.ok()?;
        found.first()?.as_ref().map(|_| spool)
    }

    /// A receipt that waits to be carried over.
    pub(crate) async fn find_spooled(&self, id: types::ReceiptId) -> Option<Stored> {
        let stores: Vec<_> =
            self.outage().spools.all().iter().map(|spool| Arc::clone(&spool.store)).collect();
        if stores.is_empty() {
            return None;
        }
        let look = move || {
            let mut found = None;
            for store in stores {
                found = found.or(store.find(id)?);
            }
            Ok(found)
        };
        here(look).await.ok().flatten()
    }

    /// Carries all spools over and closes them. What was carried over before an error is not lost
    /// and not doubled by the next try.
    pub(crate) async fn carry_over(&self) -> Result<(), String> {
        let spools = &self.outage().spools;
        for spool in spools.all() {
            self.carry(&spool).await?;
            if spool.pipeline.is_some() {
                spools.current.store(None);
                self.supervisor().stop(SPOOL_SUP).await;
            }
            spools.left().retain(|left| left.lane != spool.lane);
            let (lane, standby) = (spool.lane, spools.standby.clone());
            // The files are closed with the last one who holds them.
            drop(spool);
            here(move || standby.map_or(Ok(()), |standby| standby.discard(lane))).await?;
        }
        Ok(())
    }

    async fn carry(&self, spool: &Arc<Spool>) -> Result<(), String> {
        let standby = self.outage().spools.standby.clone().ok_or("none is set up")?;
        // Nobody is inside any more when this is had, and the stage lets nobody in.
        let _closed = spool.door.write().await;
        let carried = Arc::clone(spool);
        let moved = here(move || carry_all(&carried, &*standby)).await?;
        self.inner().common.metrics.receipts_flushed.inc_by(moved.receipts);
        for change in moved.changes {
            self.repeat(change).await.map_err(|refused| refused.to_string())?;
        }
        spool.carried.store(spool.held.load(Ordering::Acquire), Ordering::Release);
        self.inner().common.metrics.receipts_spooled.set(self.spooled() as i64);
        if moved.receipts == 0 {
            return Ok(());
        }
        let count = moved.receipts;
        tracing::warn!(event = "spool_flushed", count, "Flushed {count} cached receipts");
        let detail = format!("Flushed {count} cached receipts of lane {}", spool.lane);
        self.note("spool_flushed", detail).await.map_err(|refused| refused.to_string())
    }

    /// Makes a change to the live settings, which was decided in a lane, in the chain itself.
    async fn repeat(&self, stored: Stored) -> Result<(), Refused> {
        let Ok(view) = View::scan(&stored.core) else { return Ok(()) };
        let Some(command) = change_of(&view, self.clock().now()) else { return Ok(()) };
        let id = stored.id.to_string();
        let request = Request {
            stream: StreamName::system(limits::STREAM_SETTINGS),
            command,
            actor: view.actor.map(|actor| actor.text().into_owned()).unwrap_or_default().into(),
            may_register: false,
            key: Some(CallerKey { source: "spool", key: &id, body: &stored.core }),
        };
        self.submit(request, None).await.map(drop)
    }

    /// Records that the store is back: the first receipt that it takes.
    pub(crate) async fn note_return(&self, away: std::time::Duration) -> Result<(), Refused> {
        let detail = format!("the receipt store was away for {} s", away.as_secs());
        let request = Engine::note_request("tai".into(), "store_back", detail);
        let ledger = &self.inner().ledger;
        self.decide_on(ledger, request, None, None).await.map(drop)
    }

    /// True when signals are kept instead of decided.
    #[must_use]
    pub fn queues_signals(&self) -> bool {
        self.stage() < crate::outage::Stage::Signals && self.outage().spools.inbox().is_some()
    }

    /// Keeps a signal until the store is back. Durable on return.
    ///
    /// # Errors
    /// [`Reason::FirestoreError`] when nothing durable is at hand.
    pub async fn queue(&self, push: Vec<u8>, actor: &str) -> Result<(), Refused> {
        let away = || Refused::new(Reason::FirestoreError, "the receipt store is away");
        let inbox = self.outage().spools.inbox().ok_or_else(away)?;
        let queued = Queued { push, actor: actor.to_owned() };
        let kept = here(move || inbox.put(&[queued]).and_then(|()| inbox.waiting())).await;
        let waiting = kept.map_err(|error| {
            tracing::error!(event = "inbox_failed", error, "a signal cannot be kept");
            away()
        })?;
        self.inner().common.metrics.signals_queued.set(waiting);
        Ok(())
    }

    /// Decides all signals that wait, oldest first.
    pub(crate) async fn take_queued(&self) -> Result<(), String> {
        let Some(inbox) = self.outage().spools.inbox() else { return Ok(()) };
        let mut taken = 0_usize;
        loop {
            let from = Arc::clone(&inbox);
            let page = here(move || from.first(TAKE_PAGE)).await?;
            if page.is_empty() {
                break;
            }
            let outcomes = join_all(page.iter().map(|(number, queued)| async move {
                self.take_one(queued).await.map(|()| *number)
            }));
            let (done, failed) = outcomes.await.into_iter().partition::<Vec<_>, _>(Result::is_ok);
            let done: Vec<i64> = done.into_iter().flatten().collect();
            taken += done.len();
            let from = Arc::clone(&inbox);
            let waiting = here(move || from.remove(&done).and_then(|()| from.waiting())).await?;
            self.inner().common.metrics.signals_queued.set(waiting);
            if let Some(Err(refused)) = failed.into_iter().next() {
                return Err(refused.to_string());
            }
        }
        if taken > 0 {
            tracing::warn!(event = "signals_taken", taken, "{taken} queued signals are decided");
        }
        Ok(())
    }

    /// Decides one signal. What the caller got wrong is counted, since nobody waits for an answer.
    async fn take_one(&self, queued: &Queued) -> Result<(), Refused> {
        let Push { message_id, payload, data, delivery_attempt, .. } =
            match parse_push(&queued.push, &JsonLimits::default()) {
                Ok(push) => push,
                Err(fault) => {
                    self.refused_at_edge(fault.reason, "/pubsub", None);
                    return Ok(());
                }
            };
        let message = Message {
            id: &message_id,
            data: &data,
            payload,
            delivery_attempt,
            actor: queued.actor.clone().into(),
            may_register: true,
        };
        match self.take(message).await {
            Ok(_) => Ok(()),
            Err(refused) if refused.reason.blame() == Blame::Caller => {
                self.refused_at_edge(refused.reason, "/pubsub", None);
                Ok(())
            }
            Err(refused) => Err(refused),
        }
    }
}

/// What was carried over.
#[derive(Default)]
struct Moved {
    receipts: u64,
    /// Receipts of lanes beside the live settings.
    changes: Vec<Stored>,
}

/// Carries a spool over in the order in which it was filled.
fn carry_all(spool: &Spool, standby: &dyn Standby) -> Result<Moved, ReadError> {
    let size = spool.store.head()?.size;
    let mut moved = Moved::default();
    if spool.carried.load(Ordering::Acquire) >= size {
        return Ok(moved);
    }
    let failed = |error: crate::copy::CopyError| ReadError::Unavailable(error.to_string());
    let ledger = standby.carrier()?;
    let mut copier = Copier::new(&*ledger).map_err(failed)?;
    // From the beginning, also after a try that failed: the changes are made again as well.
    let mut from = 0;
    while from < size {
        // A spool has one writer, whose positions have no gaps.
        let to = (from + CARRY_PAGE).min(size);
        let scan_limit = usize::try_from(to - from).unwrap_or(usize::MAX);
        let mut page =
            spool.store.query(&Query { stream: None, before_pos: Some(to + 1), scan_limit })?;
        page.reverse();
        moved.receipts += copier.copy(&page).map_err(failed)?;
        let settings = |stored: &Stored| stored.stream.base().as_str() == limits::STREAM_SETTINGS;
        moved.changes.extend(page.into_iter().filter(settings));
        from = to;
    }
    Ok(moved)
}

fn local(store: &dyn Store) -> Durability {
    match store.durability() {
        Durability::Durable => Durability::Local,
        other => other,
    }
}

/// Runs what blocks on a disk of this machine, whatever becomes of the store.
async fn here<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err("the work failed".to_owned()),
    }
}
