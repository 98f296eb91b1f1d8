//! What stands in for a store that is away: a ledger of lanes on this machine.
//!
//! Owns: opening one, deciding on what is known of the chains beside, and carrying the lanes over
//! verbatim. Refuses to know: when ([`crate::outage`]).
//!
//! What if the process dies here? A spool on a disk is found by the next start. It is removed after
//! all of its receipts were appended to the store and never before; what was carried over twice is
//! passed over the second time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use governors::incident::carried;
use governors::{StreamState, change_of};
use ledger::{StreamHead, View};
use tokio::sync::RwLock;
use types::{LaneId, Reason, ReceiptId, StreamName, limits};

use crate::act::{Engine, Request};
use crate::cache::{Loaded, Version};
use crate::carry::{NotCarried, Told, carry_all};
use crate::commit::{Decided, Refused};
use crate::decider::{Duty, local, too_old};
use crate::incidents;
use crate::keys::{CallerKey, Keyed};
use crate::load;
use crate::outage::Stage;
use crate::pipeline::Pipeline;
use crate::ports::{Durability, Inbox, OpenSpool, ReadError, Standby, Store, Stored};
use crate::supervise::Worker;

/// The subsystem of a spool's workers.
pub(crate) const SPOOL_SUP: &str = "spool_sup";

/// One spool.
pub(crate) struct Spool {
    pub(crate) lane: LaneId,
    pub(crate) store: Arc<dyn Store>,
    /// Absent in one that an earlier life left: nothing is decided into it any more.
    pipeline: Option<Pipeline>,
    /// True once its receipts are being carried over: whoever comes late must not add to them.
    /// Shared by every command inside, taken whole to be changed.
    closed: RwLock<bool>,
    /// Receipts in it, as far as it was looked.
    held: AtomicU64,
    /// Alerts and incidents as they were known when it was opened: what is said of them goes on
    /// from there, whatever is learned of the chain meanwhile.
    watched: Option<Version>,
    /// Shared by whoever is telling something of it, until its end is sealed: what is carried over
    /// before would be told again.
    pub(crate) telling: RwLock<()>,
    /// Receipts that changed nothing when they were carried over. They have no key in the chain,
    /// and would undo at the next try what others have done since.
    void: Mutex<BTreeSet<ReceiptId>>,
}

/// How long what is said of incidents waits for what an earlier life said of them. After it
/// somebody may be told twice, which is better than not at all.
const LEFT_FIRST: Duration = Duration::from_secs(30);

/// True for a chain whose lane is what holds, as long as there is one.
pub(crate) fn is_carried_on(stream: &StreamName) -> bool {
    matches!(stream.as_str(), limits::STREAM_SETTINGS | limits::STREAM_INCIDENTS)
}

/// The spools of this life and of those before.
pub(crate) struct Spools {
    standby: Option<Arc<dyn Standby>>,
    current: ArcSwapOption<Spool>,
    left: Mutex<Vec<Arc<Spool>>>,
    /// Those of lives before were found, which is done once in a life.
    gathered: AtomicBool,
    /// Those that cannot be opened, or hold what cannot be carried over.
    held_back: AtomicU64,
    /// Live settings, alerts and incidents as they were read last: what changes to them are decided
    /// on.
    known: Mutex<BTreeMap<StreamName, Version>>,
    began: Instant,
}

impl Spools {
    pub(crate) fn new(standby: Option<Arc<dyn Standby>>) -> Spools {
        Spools {
            standby,
            current: ArcSwapOption::empty(),
            left: Mutex::default(),
            gathered: AtomicBool::new(false),
            held_back: AtomicU64::new(0),
            known: Mutex::default(),
            began: Instant::now(),
        }
    }

    pub(crate) fn current(&self) -> Option<Arc<Spool>> {
        self.current.load_full()
    }

    /// Receipts that wait to be carried over.
    pub(crate) fn pending(&self) -> u64 {
        self.all().iter().map(|spool| spool.held.load(Ordering::Acquire)).sum()
    }

    /// Spools that people have to look at.
    pub(crate) fn held_back(&self) -> u64 {
        self.held_back.load(Ordering::Acquire)
    }

    /// Those of lives before, then the current one.
    fn all(&self) -> Vec<Arc<Spool>> {
        self.left().iter().cloned().chain(self.current()).collect()
    }

    fn left(&self) -> MutexGuard<'_, Vec<Arc<Spool>>> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read_last(&self) -> MutexGuard<'_, BTreeMap<StreamName, Version>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Remembers a chain as it was read, where its lane goes on from that.
    pub(crate) fn remember(&self, stream: &StreamName, version: &Version) {
        if self.standby.is_some() && is_carried_on(stream) {
            self.read_last().insert(stream.clone(), version.clone());
        }
    }

    /// True while what an earlier life said of incidents is on its way into the chain.
    pub(crate) fn keep_waiting(&self) -> bool {
        let is_gathered = self.gathered.load(Ordering::Acquire) && self.left().is_empty();
        self.standby.is_some() && !is_gathered && self.began.elapsed() < LEFT_FIRST
    }

    pub(crate) fn inbox(&self) -> Option<Arc<dyn Inbox>> {
        self.standby.as_ref().and_then(|standby| standby.inbox())
    }
}

impl Spool {
    /// Receipts of one of its lanes, ascending.
    pub(crate) async fn read(
        &self,
        lane: StreamName,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Stored>, Refused> {
        let store = Arc::clone(&self.store);
        let page = here(move || store.read(&lane, from_seq, limit)).await;
        page.map_err(|error| unread(&error))
    }

    fn void(&self) -> MutexGuard<'_, BTreeSet<ReceiptId>> {
        self.void.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Engine {
    /// Makes a spool stand in for the store, unless one does already; gives what its receipts
    /// survive.
    pub(crate) async fn open_spool(&self) -> Result<Durability, String> {
        let spools = &self.outage().spools;
        if let Some(spool) = spools.current() {
            if let Some(pipeline) = spool.pipeline.as_ref().filter(|_| self.stage() != Stage::Away)
            {
                // Lanes go on from what is known of the chains by now.
                pipeline.progress.start_blank();
            }
            return Ok(local(spool.store.durability()));
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
        let durability = local(store.durability());
        let spool = Spool {
            lane,
            store,
            pipeline: Some(pipeline),
            closed: RwLock::new(false),
            held: AtomicU64::new(0),
            watched: self.newest_known(&incidents::stream()),
            telling: RwLock::new(()),
            void: Mutex::default(),
        };
        spools.current.store(Some(Arc::new(spool)));
        Ok(durability)
    }

    /// Opens what earlier lives left behind, to be carried over.
    pub(crate) async fn gather_left(&self) {
        let spools = &self.outage().spools;
        let Some(standby) = spools.standby.clone() else { return };
        if spools.gathered.load(Ordering::Acquire) {
            return;
        }
        let identity = self.store().identity();
        let opened = here(move || {
            let (left, held_back) = standby.left(&identity)?;
            let sized = left.into_iter().map(|open| Ok((open.store.head()?.size, open)));
            Ok((sized.collect::<Result<Vec<_>, ReadError>>()?, held_back))
        });
        match opened.await {
            Ok((left, held_back)) => {
                let spool = |(size, OpenSpool { lane, store, .. })| {
                    let (held, closed) = (AtomicU64::new(size), RwLock::new(true));
                    let (pipeline, watched) = (None, None);
                    let (telling, void) = (RwLock::new(()), Mutex::default());
                    let spool =
                        Spool { lane, store, pipeline, closed, held, watched, telling, void };
                    Arc::new(spool)
                };
                let spools_left: Vec<Arc<Spool>> = left.into_iter().map(spool).collect();
                // Told of by an earlier life, and to be accounted for by this one.
                let held = spools_left.iter().map(|spool| spool.held.load(Ordering::Acquire)).sum();
                self.inner().common.metrics.receipts_told.inc_by(held);
                spools.left().extend(spools_left);
                spools.held_back.store(held_back, Ordering::Release);
                self.show_spooled();
            }
            Err(error) => {
                spools.held_back.store(1, Ordering::Release);
                tracing::error!(
                    event = "spool_left",
                    error,
                    "what an earlier life kept cannot be read"
                );
            }
        }
        // Only now: until then nobody knows that there is nothing to wait for.
        spools.gathered.store(true, Ordering::Release);
    }

    pub(crate) fn show_spooled(&self) {
        let metrics = &self.inner().common.metrics;
        metrics.receipts_spooled.set(self.spooled().cast_signed());
        let waiting = self.outage().spools.inbox().map_or(0, |inbox| inbox.waiting());
        metrics.signals_queued.set(waiting.cast_signed());
    }

    /// Decides in the spool. As [`Engine::act`].
    pub(crate) async fn act_in_spool(
        &self,
        spool: &Arc<Spool>,
        request: Request<'_>,
    ) -> Result<Option<Decided>, Refused> {
        let gone = || Refused::new(Reason::FirestoreError, "the spool is being carried over");
        // Held until the answer is there.
        let closed = spool.closed.try_read().map_err(|_| gone())?;
        if *closed {
            return Err(gone());
        }
        let pipeline = spool.pipeline.as_ref().ok_or_else(gone)?;
        let identity = self.store().identity();
        let keyed = request.key.map(|key| Keyed::new(&identity, &request.stream, &key));
        let lane = request.stream.lane(spool.lane);
        let request = Request { stream: lane, key: None, ..request };
        let decided = self.decide_on(pipeline, request, keyed, None).await?;
        if let Some(Decided { receipt, replayed: false, .. }) = &decided {
            spool.held.fetch_add(1, Ordering::AcqRel);
            self.inner().common.metrics.receipts_told.inc();
            self.show_spooled();
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
        let (base, progress) = (self.known(&spool, &lane.base())?, Arc::clone(&pipeline.progress));
        let (store, lane) = (Arc::clone(&spool.store), lane.clone());
        here(move || load::lane(&*store, &lane, base, &progress))
            .await
            .map_err(|error| unread(&error))
    }

    /// What is known of a chain without asking the store.
    fn known(&self, spool: &Spool, stream: &StreamName) -> Result<Version, Refused> {
        let empty = || Version {
            state: StreamState::empty(stream),
            head: StreamHead::EMPTY,
            due: None,
            last_group: 0,
            read_at: Instant::now(),
        };
        match stream.as_str() {
            limits::STREAM_SETTINGS => {
                self.outage().spools.read_last().get(stream).cloned().ok_or_else(too_old)
            }
            limits::STREAM_INCIDENTS => Ok(spool.watched.clone().unwrap_or_else(empty)),
            _ if stream.is_system() => Ok(empty()),
            _ => self.durable(stream).ok_or_else(too_old),
        }
    }

    fn durable(&self, stream: &StreamName) -> Option<Version> {
        let ledger = &self.inner().ledger;
        let mut states = ledger.states.lock();
        states.get(stream)?.durable(ledger.progress.committed()).cloned()
    }

    /// What was read of a chain, or written to it, whichever is newer.
    fn newest_known(&self, stream: &StreamName) -> Option<Version> {
        let read = self.outage().spools.read_last().get(stream).cloned();
        read.into_iter().chain(self.durable(stream)).max_by_key(|version| version.head.next_seq)
    }

    /// The spool that holds the receipt that a key was used for, where that is not in the store
    /// yet.
    ///
    /// # Errors
    /// When a spool does not answer: the key may have been used.
    pub(crate) async fn spool_of(&self, keyed: &Keyed) -> Result<Option<Arc<Spool>>, Refused> {
        for spool in self.outage().spools.all() {
            let (store, key) = (Arc::clone(&spool.store), keyed.store_key());
            let found =
                here(move || store.find_keys(&[key])).await.map_err(|error| unread(&error))?;
            if found.iter().any(Option::is_some) {
                return Ok(Some(spool));
            }
        }
        Ok(None)
    }

    /// A receipt that waits to be carried over.
    ///
    /// # Errors
    /// When a spool does not answer: the receipt may be in it.
    pub(crate) async fn find_spooled(&self, id: ReceiptId) -> Result<Option<Stored>, Refused> {
        for spool in self.outage().spools.all() {
            let store = Arc::clone(&spool.store);
            let found = here(move || store.find(id)).await.map_err(|error| unread(&error))?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// Carries all spools over and closes them. What was carried over before an error is not lost
    /// and not doubled by the next try. One of which a receipt cannot be carried over, as one that
    /// was altered, is set aside and holds nobody up.
    pub(crate) async fn carry_over(&self) -> Result<(), String> {
        for spool in self.outage().spools.all() {
            // Whoever is being told something hears the end of it first.
            let told = spool.telling.write().await;
            // Nobody is inside any more when this is had, and nobody comes in until the spool is
            // gone.
            let mut closed = spool.closed.write().await;
            let outcome = self.carry(&spool).await;
            // The store may be away again, and this stand in for it.
            *closed = !matches!(outcome, Err(NotCarried::Now(_)));
            drop(closed);
            drop(told);
            match outcome {
                Ok(()) => {
                    let held = spool.held.load(Ordering::Acquire);
                    self.inner().common.metrics.receipts_durable.inc_by(held);
                    self.close(spool, Standby::discard).await?;
                }
                Err(NotCarried::Now(error)) => return Err(error),
                Err(NotCarried::Ever(error)) => {
                    let lane = spool.lane;
                    tracing::error!(event = "spool_set_aside", %lane, error, "a spool cannot be carried over");
                    self.outage().spools.held_back.fetch_add(1, Ordering::AcqRel);
                    self.close(spool, Standby::set_aside).await?;
                    self.note_in_ledger("spool_set_aside", format!("lane {lane}: {error}")).await?;
                }
            }
        }
        Ok(())
    }

    /// Ends a spool, and does with its files what is to be done.
    async fn close(
        &self,
        spool: Arc<Spool>,
        end: fn(&(dyn Standby + 'static), LaneId) -> Result<(), ReadError>,
    ) -> Result<(), String> {
        let spools = &self.outage().spools;
        if spool.pipeline.is_some() {
            spools.current.store(None);
            self.supervisor().stop(SPOOL_SUP).await;
        }
        spools.left().retain(|left| left.lane != spool.lane);
        self.show_spooled();
        let (lane, standby) = (spool.lane, spools.standby.clone());
        // The files are closed with the last one who holds them.
        drop(spool);
        here(move || standby.map_or(Ok(()), |standby| end(&*standby, lane))).await
    }

    async fn carry(&self, spool: &Arc<Spool>) -> Result<(), NotCarried> {
        let standby = self.outage().spools.standby.clone();
        let standby = standby.ok_or_else(|| NotCarried::Now("none is set up".to_owned()))?;
        let carried = Arc::clone(spool);
        let moved =
            tokio::task::spawn_blocking(move || carry_all(&*carried.store, &*standby)).await;
        let moved = moved.map_err(|_| NotCarried::Now("the work failed".to_owned()))??;
        self.inner().common.metrics.receipts_flushed.inc_by(moved.receipts);
        for change in &moved.changes {
            if spool.void().contains(&change.id) {
                continue;
            }
            let repeated = self.repeat(change, &moved.told).await;
            if repeated.map_err(|refused| NotCarried::Now(refused.to_string()))?.is_none() {
                spool.void().insert(change.id);
            }
        }
        if moved.receipts == 0 {
            return Ok(());
        }
        let count = moved.receipts;
        tracing::warn!(event = "spool_flushed", count, "Flushed {count} cached receipts");
        let detail = format!("Flushed {count} cached receipts of lane {}", spool.lane);
        self.note_in_ledger("spool_flushed", detail).await.map_err(NotCarried::Now)
    }

    /// Makes a change to live settings or incidents, which was decided in a lane, in the chain
    /// itself; `None` where it changes nothing there.
    async fn repeat(
        &self,
        stored: &Stored,
        told: &BTreeSet<Told>,
    ) -> Result<Option<Decided>, Refused> {
        let Ok(view) = View::scan(&stored.core) else { return Ok(None) };
        let (stream, id) = (stored.stream.base(), stored.id.to_string());
        let command = match stream.as_str() {
            limits::STREAM_INCIDENTS => {
                carried(&view, &|channel| told.contains(&(channel.to_owned(), stored.seq)))
            }
            _ => change_of(&view, self.clock().now()),
        };
        let Some(command) = command else { return Ok(None) };
        let key = CallerKey { source: "spool", key: &id, body: &stored.core };
        let keyed = Keyed::new(&self.store().identity(), &stream, &key);
        let actor = view.actor.map(|actor| actor.text().into_owned()).unwrap_or_default().into();
        let request = Request { stream, command, actor, may_register: false, key: None };
        self.decide_on(&self.inner().ledger, request, Some(keyed), None).await
    }

    /// Records that the store is back: the first receipt that it takes.
    pub(crate) async fn note_return(&self, away: Duration) -> Result<(), String> {
        let detail = format!("the receipt store was away for {} s", away.as_secs());
        self.note_in_ledger("store_back", detail).await
    }

    /// [`Engine::note`] past what would wait for the one who asks.
    async fn note_in_ledger(&self, event: &'static str, detail: String) -> Result<(), String> {
        let request = Engine::note_request("tai".into(), event, detail);
        let noted = self.decide_on(&self.inner().ledger, request, None, None).await;
        noted.map(drop).map_err(|refused| refused.to_string())
    }
}

pub(crate) fn unread(error: &str) -> Refused {
    tracing::error!(event = "spool_read", error, "what stands in for the store does not answer");
    Refused::new(Reason::FirestoreError, "what stands in for the receipt store does not answer")
}

/// Runs what blocks on a disk of this machine, whatever becomes of the store.
pub(crate) async fn here<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReadError> + Send + 'static,
) -> Result<T, String> {
    match tokio::task::spawn_blocking(work).await {
        Ok(outcome) => outcome.map_err(|error| error.to_string()),
        Err(_) => Err("the work failed".to_owned()),
    }
}
