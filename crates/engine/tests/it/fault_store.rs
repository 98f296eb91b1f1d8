//! A store that fails as planned, over one that does not.
//!
//! Owns: the plan of faults, the gates that hold calls up, and the counts of calls. Refuses to
//! know: what is appended.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use engine::ports::{
    AppendError, Batch, Durability, IdemKey, Identity, Query, ReadError, Snapshot, Store, Stored,
};
use ledger::HeadRecord;
use store::SqliteStore;
use types::{Micros, ReceiptId, StreamName};

/// How one append goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Unavailable, and nothing was kept.
    Lost,
    /// Unavailable, although everything was kept: a store that does not keep the contract.
    Kept,
    /// Too many writes, and nothing was kept.
    Quota,
    /// A conflict, although nobody else wrote.
    Conflict,
    /// The store went away during the commit, and nothing was kept.
    UnknownLost,
    /// The store went away during the commit, and everything was kept.
    UnknownKept,
    /// The store is gone for good.
    Fatal,
    /// The writer dies with everything kept.
    Dies,
}

/// Which reads fail while they are told to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reading {
    Head,
    Snapshot,
    Stream,
    Keys,
}

/// Which batches fail.
type Refusing = fn(&Batch) -> bool;

/// How a read fails.
type Failing = fn(String) -> ReadError;

/// Calls wait here while it is closed.
#[derive(Default)]
pub(crate) struct Gate {
    /// Closed, and how many wait.
    state: Mutex<(bool, usize)>,
    changed: Condvar,
}

impl Gate {
    pub(crate) fn close(&self) {
        self.state.lock().unwrap().0 = true;
    }

    pub(crate) fn open(&self) {
        self.state.lock().unwrap().0 = false;
        self.changed.notify_all();
    }

    pub(crate) fn waiting(&self) -> usize {
        self.state.lock().unwrap().1
    }

    pub(crate) fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.1 += 1;
        state = self.changed.wait_while(state, |(closed, _)| *closed).unwrap();
        state.1 -= 1;
    }
}

pub(crate) struct FaultStore {
    inner: Arc<SqliteStore>,
    /// The number of this writer where others write beside it.
    writer: Option<u64>,
    /// Writers whose leases have run out.
    gone: Arc<Mutex<BTreeSet<u64>>>,
    away: AtomicBool,
    plan: Mutex<VecDeque<Fault>>,
    rival: Mutex<Option<StreamName>>,
    /// Batches that it does not take.
    refused: Mutex<Option<Refusing>>,
    /// What another writer's log holds of the same ledger.
    beside: Mutex<Option<Arc<FaultStore>>>,
    failing: Mutex<Option<(Reading, Failing)>>,
    altered: Mutex<Option<fn(&mut Stored)>>,
    forged: Mutex<HashMap<StreamName, Snapshot>>,
    fatal: AtomicBool,
    pub(crate) appends_gate: Gate,
    pub(crate) reads_gate: Gate,
    pub(crate) keys_gate: Gate,
    pub(crate) appends: AtomicU64,
    /// Conflicts that the store itself found.
    pub(crate) conflicts: AtomicU64,
    pub(crate) key_lookups: AtomicU64,
    /// Receipts that [`Store::read`] gave.
    pub(crate) rows_read: AtomicU64,
    /// Calls that read receipts or snapshots of a stream.
    pub(crate) looks: AtomicU64,
}

impl FaultStore {
    pub(crate) fn new(inner: SqliteStore) -> FaultStore {
        FaultStore::over(Arc::new(inner), None, Arc::default())
    }

    /// What the writer of that number sees of the same ledger.
    pub(crate) fn beside(&self, writer: u64) -> FaultStore {
        FaultStore::over(Arc::clone(&self.inner), Some(writer), Arc::clone(&self.gone))
    }

    /// The lease of a writer runs out.
    pub(crate) fn lapse(&self, writer: u64) {
        self.gone.lock().unwrap().insert(writer);
    }

    /// From now on the ledger does not answer this writer, or does again.
    pub(crate) fn go_away(&self, away: bool) {
        self.away.store(away, Ordering::SeqCst);
    }

    fn reach(&self) -> Result<(), ReadError> {
        match self.away.load(Ordering::SeqCst) {
            true => Err(ReadError::Unavailable("planned".into())),
            false => Ok(()),
        }
    }

    fn over(
        inner: Arc<SqliteStore>,
        writer: Option<u64>,
        gone: Arc<Mutex<BTreeSet<u64>>>,
    ) -> FaultStore {
        FaultStore {
            inner,
            writer,
            gone,
            away: AtomicBool::new(false),
            plan: Mutex::default(),
            rival: Mutex::default(),
            refused: Mutex::default(),
            beside: Mutex::default(),
            failing: Mutex::default(),
            altered: Mutex::default(),
            forged: Mutex::default(),
            fatal: AtomicBool::new(false),
            appends_gate: Gate::default(),
            reads_gate: Gate::default(),
            keys_gate: Gate::default(),
            appends: AtomicU64::new(0),
            conflicts: AtomicU64::new(0),
            key_lookups: AtomicU64::new(0),
            rows_read: AtomicU64::new(0),
            looks: AtomicU64::new(0),
        }
    }

    /// The next append goes wrong.
    pub(crate) fn plan(&self, fault: Fault) {
        self.plan.lock().unwrap().push_back(fault);
    }

    /// The next batch with a receipt of `stream` finds that another writer was faster there.
    pub(crate) fn outrun(&self, stream: StreamName) {
        *self.rival.lock().unwrap() = Some(stream);
    }

    /// From now on such batches fail, and nothing of them is kept; `None`: none does.
    pub(crate) fn refuse(&self, refused: Option<Refusing>) {
        *self.refused.lock().unwrap() = refused;
    }

    /// Receipts are also looked for in the log of another writer.
    pub(crate) fn also(&self, beside: &Arc<FaultStore>) {
        *self.beside.lock().unwrap() = Some(Arc::clone(beside));
    }

    fn beside_it(&self) -> Option<Arc<FaultStore>> {
        self.beside.lock().unwrap().clone()
    }

    /// True when everything planned has happened.
    pub(crate) fn plan_done(&self) -> bool {
        self.plan.lock().unwrap().is_empty() && self.rival.lock().unwrap().is_none()
    }

    /// From now on this kind of read fails; `None`: none does.
    pub(crate) fn fail(&self, reading: Option<Reading>) {
        *self.failing.lock().unwrap() =
            reading.map(|reading| (reading, ReadError::Unavailable as _));
    }

    /// From now on this kind of read finds what cannot be.
    pub(crate) fn corrupt(&self, reading: Reading) {
        *self.failing.lock().unwrap() = Some((reading, ReadError::Corrupt));
    }

    /// From now on every receipt that is read has been altered like this.
    pub(crate) fn alter(&self, alter: Option<fn(&mut Stored)>) {
        *self.altered.lock().unwrap() = alter;
    }

    fn altered(&self, stored: &mut Stored) {
        if let Some(alter) = *self.altered.lock().unwrap() {
            alter(stored);
        }
    }

    /// From now on this is the stream's snapshot.
    pub(crate) fn forge(&self, snapshot: Snapshot) {
        self.forged.lock().unwrap().insert(snapshot.stream.clone(), snapshot);
    }

    pub(crate) fn forget_forged(&self) {
        self.forged.lock().unwrap().clear();
    }

    /// Receipts in the ledger.
    pub(crate) fn size(&self) -> u64 {
        self.inner.head().unwrap().size
    }

    fn check(&self, reading: Reading) -> Result<(), ReadError> {
        self.reach()?;
        match *self.failing.lock().unwrap() {
            Some((failing, error)) if failing == reading => Err(error("planned".into())),
            _ => Ok(()),
        }
    }
}

impl Store for FaultStore {
    fn backend(&self) -> &'static str {
        self.inner.backend()
    }

    fn durability(&self) -> Durability {
        self.inner.durability()
    }

    fn identity(&self) -> Identity {
        self.inner.identity()
    }

    fn is_shared(&self) -> bool {
        self.writer.is_some()
    }

    fn writer(&self) -> Option<u64> {
        self.writer
    }

    fn gone(&self, writers: &BTreeSet<u64>) -> Result<BTreeSet<u64>, ReadError> {
        self.reach()?;
        Ok(self.gone.lock().unwrap().intersection(writers).copied().collect())
    }

    fn head(&self) -> Result<HeadRecord, ReadError> {
        self.check(Reading::Head)?;
        self.inner.head()
    }

    fn append(&self, batch: &Batch) -> Result<(), AppendError> {
        self.appends_gate.pass();
        self.appends.fetch_add(1, Ordering::SeqCst);
        self.reach().map_err(|error| AppendError::Unavailable(error.to_string()))?;
        if self.refused.lock().unwrap().is_some_and(|is_refused| is_refused(batch)) {
            return Err(AppendError::Unavailable("planned".into()));
        }
        let planned = self.plan.lock().unwrap().pop_front();
        if planned == Some(Fault::Fatal) || self.fatal.load(Ordering::SeqCst) {
            self.fatal.store(true, Ordering::SeqCst);
            return Err(AppendError::Fatal("planned".into()));
        }
        match planned {
            Some(Fault::Lost) => return Err(AppendError::Unavailable("planned".into())),
            Some(Fault::Quota) => return Err(AppendError::Quota("planned".into())),
            Some(Fault::Conflict) => return Err(AppendError::Conflict { streams: Vec::new() }),
            Some(Fault::UnknownLost) => return Err(AppendError::Unknown("planned".into())),
            Some(Fault::Kept | Fault::UnknownKept | Fault::Dies | Fault::Fatal) | None => {}
        }
        let outrun = self
            .rival
            .lock()
            .unwrap()
            .take_if(|rival| batch.entries.iter().any(|entry| entry.sealed.stream == *rival));
        if let Some(stream) = outrun {
            return Err(AppendError::Conflict { streams: vec![stream] });
        }
        let outcome = self.inner.append(batch);
        if matches!(outcome, Err(AppendError::Conflict { .. })) {
            self.conflicts.fetch_add(1, Ordering::SeqCst);
        }
        match planned {
            Some(Fault::Kept) => {
                outcome?;
                Err(AppendError::Unavailable("planned".into()))
            }
            Some(Fault::UnknownKept) => {
                outcome?;
                Err(AppendError::Unknown("planned".into()))
            }
            Some(Fault::Dies) => {
                outcome?;
                panic!("planned")
            }
            _ => outcome,
        }
    }

    fn snapshot(&self, stream: &StreamName) -> Result<Option<Snapshot>, ReadError> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.check(Reading::Snapshot)?;
        if let Some(forged) = self.forged.lock().unwrap().get(stream) {
            return Ok(Some(forged.clone()));
        }
        self.inner.snapshot(stream)
    }

    fn read(
        &self,
        stream: &StreamName,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Stored>, ReadError> {
        self.reads_gate.pass();
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.check(Reading::Stream)?;
        if let Some(beside) = self.beside_it().filter(|_| stream.is_lane()) {
            return beside.read(stream, from_seq, limit);
        }
        let mut page = self.inner.read(stream, from_seq, limit)?;
        page.iter_mut().for_each(|stored| self.altered(stored));
        self.rows_read.fetch_add(page.len() as u64, Ordering::SeqCst);
        Ok(page)
    }

    fn find(&self, id: ReceiptId) -> Result<Option<Stored>, ReadError> {
        self.reach()?;
        match (self.inner.find(id)?, self.beside_it()) {
            (None, Some(beside)) => beside.find(id),
            (found, _) => Ok(found),
        }
    }

    fn find_keys(&self, keys: &[IdemKey]) -> Result<Vec<Option<Stored>>, ReadError> {
        self.key_lookups.fetch_add(keys.len() as u64, Ordering::SeqCst);
        self.keys_gate.pass();
        self.check(Reading::Keys)?;
        let mut found = self.inner.find_keys(keys)?;
        found.iter_mut().flatten().for_each(|stored| self.altered(stored));
        Ok(found)
    }

    fn query(&self, query: &Query) -> Result<Vec<Stored>, ReadError> {
        self.looks.fetch_add(1, Ordering::SeqCst);
        self.reach()?;
        self.inner.query(query)
    }

    fn lanes(&self, base: &StreamName) -> Result<Vec<StreamName>, ReadError> {
        self.inner.lanes(base)
    }

    fn due(&self, now: Micros, limit: usize) -> Result<Vec<StreamName>, ReadError> {
        self.reach()?;
        self.inner.due(now, limit)
    }

    fn unsettled(&self, limit: usize) -> Result<Vec<Stored>, ReadError> {
        self.reach()?;
        self.inner.unsettled(limit)
    }
}
