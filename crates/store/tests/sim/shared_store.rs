//! A shared store that is nothing but vectors and maps, and fails as the seed says.
//!
//! Owns: the contract of the port for several writers, and every way in which a remote store may
//! leave a writer in doubt: a race lost, a store that is away, an outcome that is not known, a
//! statement that is carried out long after. Refuses to know: what is written.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};

use engine::ports::{
    AppendError, Batch, Durability, IdemKey, Identity, Query, ReadError, Snapshot, Store, Stored,
};
use ledger::{HeadRecord, LedgerId};
use testkit::dice::Dice;
use types::{Micros, ReceiptId, StreamName};

/// The store that all writers share.
pub(crate) struct SharedStore {
    identity: Identity,
    inner: Mutex<Inner>,
}

struct Inner {
    rows: Vec<Stored>,
    streams: BTreeMap<StreamName, Vec<usize>>,
    ids: HashMap<ReceiptId, usize>,
    keys: HashMap<IdemKey, usize>,
    /// Attempts without a result: which row, and whose.
    open: BTreeMap<usize, usize>,
    due: BTreeMap<StreamName, Micros>,
    snapshots: BTreeMap<StreamName, Snapshot>,
    writers: Vec<Log>,
    /// Statements whose writer was told nothing, and which may still be carried out.
    late: Vec<(usize, Batch)>,
    faults: Option<Dice>,
    knows_keys: bool,
    seen: Seen,
}

/// The log of one writer.
struct Log {
    head: HeadRecord,
    /// The others have not given it up.
    alive: bool,
}

/// What went wrong, counted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Seen {
    pub(crate) lost_races: u64,
    pub(crate) unavailable: u64,
    pub(crate) unknown_written: u64,
    pub(crate) unknown_lost: u64,
    pub(crate) late_written: u64,
    pub(crate) late_refused: u64,
    pub(crate) reads_failed: u64,
}

/// What happens to one append.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    Fine,
    Unavailable,
    UnknownLost,
    UnknownWritten,
    Late,
}

impl SharedStore {
    /// An empty one without faults.
    pub(crate) fn new(seed: u64) -> Arc<SharedStore> {
        let mut dice = Dice::new(seed);
        let mut ledger = [0; 16];
        ledger[..8].copy_from_slice(&dice.throw().to_le_bytes());
        let mut secret = [7; 32];
        secret[..8].copy_from_slice(&dice.throw().to_le_bytes());
        let inner = Inner {
            rows: Vec::new(),
            streams: BTreeMap::new(),
            ids: HashMap::new(),
            keys: HashMap::new(),
            open: BTreeMap::new(),
            due: BTreeMap::new(),
            snapshots: BTreeMap::new(),
            writers: Vec::new(),
            late: Vec::new(),
            faults: None,
            knows_keys: true,
            seen: Seen::default(),
        };
        let identity = Identity { ledger: LedgerId(ledger), secret };
        Arc::new(SharedStore { identity, inner: Mutex::new(inner) })
    }

    /// A new writer with a log of its own.
    pub(crate) fn writer(self: &Arc<SharedStore>) -> Writer {
        let mut inner = self.lock();
        let number = inner.writers.len();
        inner.writers.push(Log { head: HeadRecord::empty(self.identity.ledger), alive: true });
        Writer { shared: Arc::clone(self), number }
    }

    /// From now on things go wrong as the dice say; `None`: nothing does, and whatever is late is
    /// carried out.
    pub(crate) fn set_faults(&self, faults: Option<Dice>) {
        let mut inner = self.lock();
        inner.faults = faults;
        while faults.is_none() && inner.carry_out_late(None) {}
    }

    /// From now on no key counts as used: neither is one found, nor does one keep a batch out.
    pub(crate) fn forget_keys(&self) {
        self.lock().knows_keys = false;
    }

    pub(crate) fn seen(&self) -> Seen {
        self.lock().seen
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}

impl Inner {
    fn percent(&mut self, of: u64) -> bool {
        self.faults.as_mut().is_some_and(|dice| dice.percent(of))
    }

    fn fate(&mut self) -> Fate {
        let Some(dice) = &mut self.faults else { return Fate::Fine };
        match dice.below(100) {
            0..8 => Fate::Unavailable,
            8..12 => Fate::UnknownLost,
            12..17 => Fate::UnknownWritten,
            17..23 => Fate::Late,
            _ => Fate::Fine,
        }
    }

    /// Streams in which the batch comes too late.
    fn lost(&self, batch: &Batch) -> Vec<StreamName> {
        let mut ends: BTreeMap<&StreamName, (u64, Option<types::Hash>)> = BTreeMap::new();
        let (mut lost, mut keys) = (Vec::new(), HashSet::new());
        for entry in &batch.entries {
            let stream = &entry.sealed.stream;
            let end = ends.entry(stream).or_insert_with(|| {
                let rows = self.streams.get(stream).map_or(&[][..], Vec::as_slice);
                (rows.len() as u64, rows.last().map(|row| self.rows[*row].hash))
            });
            let behind = (entry.sealed.seq, entry.prev_hash) == *end;
            *end = (end.0 + 1, Some(entry.sealed.hash));
            let used = entry
                .key
                .filter(|_| self.knows_keys)
                .is_some_and(|key| self.keys.contains_key(&key) || !keys.insert(key));
            let taken = used || self.ids.contains_key(&entry.sealed.id);
            if (!behind || taken) && !lost.contains(stream) {
                lost.push(stream.clone());
            }
        }
        lost
    }

    fn commit(&mut self, writer: usize, batch: &Batch) -> Result<(), AppendError> {
        let conflict = |streams| Err(AppendError::Conflict { streams });
        if self.writers[writer].head != batch.before {
            return conflict(Vec::new());
        }
        let lost = self.lost(batch);
        if !lost.is_empty() {
            self.seen.lost_races += 1;
            return conflict(lost);
        }
        for entry in &batch.entries {
            self.insert(writer, entry);
        }
        for (stream, at) in &batch.due {
            match at {
                Some(at) => self.due.insert(stream.clone(), *at),
                None => self.due.remove(stream),
            };
        }
        for snapshot in &batch.snapshots {
            self.snapshots.insert(snapshot.stream.clone(), snapshot.clone());
        }
        self.writers[writer].head = batch.after;
        Ok(())
    }

    fn insert(&mut self, writer: usize, entry: &engine::ports::Entry) {
        let (row, sealed) = (self.rows.len(), &entry.sealed);
        self.rows.push(Stored {
            pos: row as u64 + 1,
            stream: sealed.stream.clone(),
            seq: sealed.seq,
            id: sealed.id,
            core: sealed.core.to_vec(),
            hash: sealed.hash,
            chain_hash: sealed.chain_hash,
        });
        self.streams.entry(sealed.stream.clone()).or_default().push(row);
        self.ids.insert(sealed.id, row);
        self.keys.extend(entry.key.filter(|_| self.knows_keys).map(|key| (key, row)));
        if entry.opens_attempt() {
            self.open.insert(row, writer);
        }
        if let Some(row) = entry.settles.and_then(|attempt| self.ids.get(&attempt)) {
            self.open.remove(row);
        }
    }

    /// Carries out the oldest late statement, of one writer or of any; false when there is none.
    fn carry_out_late(&mut self, of: Option<usize>) -> bool {
        let Some(at) = self.late.iter().position(|(writer, _)| of.is_none_or(|of| of == *writer))
        else {
            return false;
        };
        let (writer, batch) = self.late.remove(at);
        match self.commit(writer, &batch) {
            Ok(()) => self.seen.late_written += 1,
            Err(_) => self.seen.late_refused += 1,
        }
        true
    }

    /// Settles what a writer does not know: it is carried out now or never.
    fn settle(&mut self, writer: usize) {
        if self.percent(50) {
            while self.carry_out_late(Some(writer)) {}
        }
        self.late.retain(|(of, _)| *of != writer);
    }

    fn read_fails(&mut self, percent: u64) -> Result<(), ReadError> {
        if self.percent(15) {
            self.carry_out_late(None);
        }
        if self.percent(percent) {
            self.seen.reads_failed += 1;
            return Err(ReadError::Unavailable("planned".into()));
        }
        Ok(())
    }
}

/// One writer's end of the store.
pub(crate) struct Writer {
    shared: Arc<SharedStore>,
    number: usize,
}

impl Writer {
    /// Whether the others take it for alive: they settle the attempts of who is not.
    pub(crate) fn set_alive(&self, alive: bool) {
        self.shared.lock().writers[self.number].alive = alive;
    }

    fn reading(&self) -> Result<MutexGuard<'_, Inner>, ReadError> {
        let mut inner = self.shared.lock();
        inner.read_fails(3)?;
        Ok(inner)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.set_alive(false);
    }
}

impl Store for Writer {
    fn backend(&self) -> &'static str {
        "model"
    }

    fn durability(&self) -> Durability {
        Durability::Durable
    }

    fn identity(&self) -> Identity {
        self.shared.identity
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn head(&self) -> Result<HeadRecord, ReadError> {
        let mut inner = self.shared.lock();
        // Seldom: the engine gives up after a few in a row.
        inner.read_fails(1)?;
        inner.settle(self.number);
        Ok(inner.writers[self.number].head)
    }

    fn append(&self, batch: &Batch) -> Result<(), AppendError> {
        let mut inner = self.shared.lock();
        inner.settle(self.number);
        let fate = inner.fate();
        match fate {
            Fate::Fine => inner.commit(self.number, batch),
            Fate::Unavailable => {
                inner.seen.unavailable += 1;
                Err(AppendError::Unavailable("planned".into()))
            }
            Fate::UnknownLost => {
                inner.seen.unknown_lost += 1;
                Err(AppendError::Unknown("planned".into()))
            }
            Fate::UnknownWritten => {
                inner.commit(self.number, batch)?;
                inner.seen.unknown_written += 1;
                Err(AppendError::Unknown("planned".into()))
            }
            Fate::Late => {
                inner.late.push((self.number, batch.clone()));
                Err(AppendError::Unknown("planned".into()))
            }
        }
    }

    fn snapshot(&self, stream: &StreamName) -> Result<Option<Snapshot>, ReadError> {
        Ok(self.reading()?.snapshots.get(stream).cloned())
    }

    fn read(
        &self,
        stream: &StreamName,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Stored>, ReadError> {
        let inner = self.reading()?;
        let rows = inner.streams.get(stream).map_or(&[][..], Vec::as_slice);
        let from = usize::try_from(from_seq).unwrap_or(usize::MAX);
        Ok(rows.iter().skip(from).take(limit).map(|row| inner.rows[*row].clone()).collect())
    }

    fn find(&self, id: ReceiptId) -> Result<Option<Stored>, ReadError> {
        let inner = self.reading()?;
        Ok(inner.ids.get(&id).map(|row| inner.rows[*row].clone()))
    }

    fn find_keys(&self, keys: &[IdemKey]) -> Result<Vec<Option<Stored>>, ReadError> {
        let inner = self.reading()?;
        let find = |key| inner.keys.get(key).map(|row| inner.rows[*row].clone());
        Ok(keys.iter().map(find).collect())
    }

    fn query(&self, query: &Query) -> Result<Vec<Stored>, ReadError> {
        let inner = self.reading()?;
        let newest = inner.rows.iter().rev();
        let wanted = newest
            .filter(|stored| query.before_pos.is_none_or(|before| stored.pos < before))
            .filter(|stored| query.stream.as_ref().is_none_or(|only| stored.stream == *only));
        Ok(wanted.take(query.scan_limit).cloned().collect())
    }

    fn lanes(&self, base: &StreamName) -> Result<Vec<StreamName>, ReadError> {
        let inner = self.reading()?;
        let lane = |name: &&StreamName| name.is_lane() && name.base() == *base;
        let mut lanes: Vec<_> = inner.streams.keys().filter(lane).cloned().collect();
        lanes.sort();
        Ok(lanes)
    }

    fn due(&self, now: Micros, limit: usize) -> Result<Vec<StreamName>, ReadError> {
        let inner = self.reading()?;
        let mut due: Vec<_> = inner.due.iter().filter(|(_, at)| **at <= now).collect();
        due.sort_by_key(|(_, at)| **at);
        Ok(due.into_iter().take(limit).map(|(stream, _)| stream.clone()).collect())
    }

    fn unsettled(&self, limit: usize) -> Result<Vec<Stored>, ReadError> {
        let inner = self.reading()?;
        let mine = |writer: &usize| *writer == self.number || !inner.writers[*writer].alive;
        let open = inner.open.iter().filter(|(_, writer)| mine(writer));
        Ok(open.take(limit).map(|(row, _)| inner.rows[*row].clone()).collect())
    }
}

mod tests {
    use testkit::store::{conformance, shared};

    use super::*;

    #[test]
    fn the_model_is_a_store_like_any_other() {
        conformance::suite(&|| Box::new(SharedStore::new(1).writer()));
    }

    #[test]
    fn the_model_is_a_shared_store_like_any_other() {
        shared::suite(&|writers| {
            let store = SharedStore::new(1);
            (0..writers).map(|_| Box::new(store.writer()) as Box<dyn Store>).collect()
        });
    }
}
