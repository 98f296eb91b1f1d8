//! Appends receipts of another store verbatim to the log of this one.
//!
//! Owns: what of them is there already, what may follow it, and how an outcome that nobody heard is
//! learned. Refuses to know: where receipts come from, and whether all of them came: whoever hands
//! them over verifies that.
//!
//! What if the process dies here? What was appended stays. The same receipts, handed over again,
//! are passed over as far as they are there.

use std::collections::{HashMap, HashSet};

use ledger::{HeadRecord, Sealed, View, receipt_id};
use types::{Hash, Micros, StreamName};

use crate::decider::settles;
use crate::keys::named_key;
use crate::ports::{AppendError, Batch, Entry, IdemKey, ReadError, Store, Stored};

/// Receipts, or due times, of one commit at most, also where a store sets no limit: at 16 KiB each
/// they stay within what a commit has time for.
const BATCH_MAX: usize = 500;

/// Tries of one batch. Each but the first begins with a look at what is there, so that a conflict
/// which comes back has a cause that no look shows.
const TRIES_MAX: usize = 5;

/// Why receipts could not be appended. Those before the one that is named may have been.
#[derive(Debug, thiserror::Error)]
pub enum CopyError {
    /// Bytes, hash, link and place of a receipt do not belong together.
    #[error("receipt {seq} of stream {stream} is not intact")]
    Altered {
        /// The stream that it is filed under.
        stream: StreamName,
        /// Its position there.
        seq: u64,
    },
    /// Its id follows from another ledger's.
    #[error("receipt {seq} of stream {stream} belongs to another ledger")]
    Foreign {
        /// The receipt's stream.
        stream: StreamName,
        /// Its position there.
        seq: u64,
    },
    /// Another receipt stands in its place: the two stores have gone on apart from each other.
    #[error("another receipt stands at {seq} of stream {stream}: the two have gone on apart")]
    Fork {
        /// The stream.
        stream: StreamName,
        /// The first position that was seen to differ.
        seq: u64,
    },
    /// The receipt before it is neither there nor handed over.
    #[error("the receipt before {seq} of stream {stream} is missing")]
    Gap {
        /// The receipt's stream.
        stream: StreamName,
        /// Its position there.
        seq: u64,
    },
    /// It may not stand behind what this writer's log holds, because instants do not run backwards
    /// in a log, and in that of a shared store go up. Another writer of the store may take it.
    #[error("receipt {seq} of stream {stream} is too early for this writer's log")]
    Late {
        /// The receipt's stream.
        stream: StreamName,
        /// Its position there.
        seq: u64,
    },
    /// The store says again and again that something is taken, and no look shows what.
    #[error("store refuses a batch, and nothing is seen in its way")]
    Refused,
    /// The store does not answer; the same receipts may be handed over again.
    #[error("store is unavailable: {0}")]
    Unavailable(String),
    /// The store cannot be trusted any more.
    #[error("store failed for good: {0}")]
    Fatal(String),
}

impl From<ReadError> for CopyError {
    fn from(error: ReadError) -> CopyError {
        match error {
            ReadError::Unavailable(why) => CopyError::Unavailable(why),
            ReadError::Corrupt(why) => CopyError::Fatal(why),
        }
    }
}

/// Appends receipts of another store verbatim to the log of this one.
pub struct Copier<'a> {
    to: &'a dyn Store,
    /// Where the log of this writer stands, as far as it is known.
    head: HeadRecord,
    /// Some of the newest receipts were there already, so that the next ones may be.
    overlaps: bool,
}

impl<'a> Copier<'a> {
    /// A copier into the log of `to`, which nobody else appends to meanwhile.
    ///
    /// # Errors
    /// When the store does not say where its log stands.
    pub fn new(to: &'a dyn Store) -> Result<Copier<'a>, CopyError> {
        Ok(Copier { to, head: to.head()?, overlaps: false })
    }

    /// Appends those of `receipts` that the store does not hold yet, in their order, in batches
    /// that respect [`Store::batch_max`]. Gives how many it appended, as far as it has learned.
    ///
    /// A receipt that is there with the same hash is passed over. One whose idempotency key answers
    /// another receipt already is appended without it; its bytes still name it.
    ///
    /// # Errors
    /// After [`CopyError::Unavailable`] the same receipts may be handed over again.
    pub fn copy(&mut self, receipts: &[Stored]) -> Result<u64, CopyError> {
        let mut appended = 0;
        for some in receipts.chunks(self.batch_max()) {
            let entries: Result<_, _> = some.iter().map(|stored| self.entry(stored)).collect();
            appended += self.append_missing(entries?)?;
        }
        Ok(appended)
    }

    /// Sets when something is due next in each of these streams; `None`: nothing is. For a ledger
    /// that is there as a whole: until then nobody can say what is due.
    ///
    /// # Errors
    /// After [`CopyError::Unavailable`] all of it may be said again.
    pub fn set_due(&mut self, due: &[(StreamName, Option<Micros>)]) -> Result<(), CopyError> {
        for some in due.chunks(self.batch_max()) {
            let mut tries = 1;
            while self.append(&self.batch(Vec::new(), some.to_vec()))? != Outcome::Kept {
                if tries == TRIES_MAX {
                    return Err(CopyError::Refused);
                }
                tries += 1;
            }
        }
        Ok(())
    }

    fn batch_max(&self) -> usize {
        self.to.batch_max().clamp(1, BATCH_MAX)
    }

    /// A receipt as the port takes it, with what its own bytes say to the projections.
    fn entry(&self, stored: &Stored) -> Result<Entry, CopyError> {
        let Stored { stream, seq, id, core, hash, chain_hash, .. } = stored;
        let (stream, seq) = (stream.clone(), *seq);
        let view = View::scan(core).ok().filter(|view| {
            let filed = view.stream == stream.as_str() && view.seq == seq && view.id == *id;
            filed && stored.is_intact(view)
        });
        let Some(view) = view else { return Err(CopyError::Altered { stream, seq }) };
        if *id != receipt_id(&self.head.ledger, stream.as_str(), seq) {
            return Err(CopyError::Foreign { stream, seq });
        }
        let (kind, at, prev_hash) = (view.kind, view.at, view.prev_hash);
        let (key, settles) = (named_key(&view), settles(&view));
        let core = core.clone().into_boxed_slice();
        let sealed =
            Sealed { id: *id, stream, seq, at, core, hash: *hash, chain_hash: *chain_hash };
        Ok(Entry { sealed, prev_hash, kind, key, settles })
    }

    fn append_missing(&mut self, mut entries: Vec<Entry>) -> Result<u64, CopyError> {
        // A look costs a read for each stream, and is left out while nothing speaks for it.
        let mut look = self.overlaps || self.late(&entries).is_some();
        let mut unheard = 0;
        for _ in 0..TRIES_MAX {
            if look {
                entries = self.missing(entries)?;
                if entries.is_empty() {
                    return Ok(unheard);
                }
                self.unbind_keys(&mut entries)?;
                if let Some(late) = self.late(&entries) {
                    return Err(late);
                }
            }
            let batch = self.batch(entries, Vec::new());
            let outcome = self.append(&batch)?;
            entries = batch.entries;
            let sent = entries.len() as u64;
            unheard = match outcome {
                Outcome::Kept => return Ok(sent),
                Outcome::Refused => 0,
                Outcome::Unheard => sent,
            };
            look = true;
        }
        Err(CopyError::Refused)
    }

    /// The first receipt that may not stand behind those before it in this writer's log.
    fn late(&self, entries: &[Entry]) -> Option<CopyError> {
        // Places in a shared store follow from instants, and no two receipts of a log share one.
        let apart = i64::from(self.to.is_shared());
        let mut earliest = self.head.at.0.saturating_add(apart);
        for Entry { sealed, .. } in entries {
            if sealed.at.0 < earliest {
                return Some(CopyError::Late { stream: sealed.stream.clone(), seq: sealed.seq });
            }
            earliest = sealed.at.0.saturating_add(apart);
        }
        None
    }

    fn batch(&self, entries: Vec<Entry>, due: Vec<(StreamName, Option<Micros>)>) -> Batch {
        let before = self.head;
        let after = entries
            .iter()
            .fold(before, |head, entry| head.after(entry.sealed.hash, entry.sealed.at));
        Batch { before, after, entries, due, snapshots: Vec::new() }
    }

    /// Appends a batch, and knows afterwards where the log stands.
    fn append(&mut self, batch: &Batch) -> Result<Outcome, CopyError> {
        let outcome = match self.to.append(batch) {
            Ok(()) => {
                self.head = batch.after;
                return Ok(Outcome::Kept);
            }
            Err(AppendError::Conflict { .. }) => Outcome::Refused,
            Err(AppendError::Unknown(_)) => Outcome::Unheard,
            Err(AppendError::Unavailable(why) | AppendError::Quota(why)) => {
                return Err(CopyError::Unavailable(why));
            }
            Err(AppendError::Fatal(why)) => return Err(CopyError::Fatal(why)),
        };
        // Settles an outcome that nobody heard before it answers.
        self.head = self.to.head()?;
        Ok(outcome)
    }

    /// Those of `entries` that the store does not hold.
    fn missing(&mut self, entries: Vec<Entry>) -> Result<Vec<Entry>, CopyError> {
        let given = entries.len();
        let mut held = self.held(&entries)?;
        let mut missing = Vec::new();
        for entry in entries {
            let Sealed { stream, seq, hash, .. } = &entry.sealed;
            let held = held.entry(stream.clone()).or_default();
            match held.get(seq) {
                Some(there) if there == hash => continue,
                Some(_) => return Err(CopyError::Fork { stream: stream.clone(), seq: *seq }),
                None => {}
            }
            if let Some(before) = seq.checked_sub(1) {
                let stream = stream.clone();
                match held.get(&before) {
                    Some(there) if entry.prev_hash == Some(*there) => {}
                    Some(_) => return Err(CopyError::Fork { stream, seq: before }),
                    None => return Err(CopyError::Gap { stream, seq: *seq }),
                }
            }
            held.insert(*seq, *hash);
            missing.push(entry);
        }
        self.overlaps = missing.len() < given;
        Ok(missing)
    }

    /// What stands in the places of `entries` and just before them.
    fn held(&self, entries: &[Entry]) -> Result<HashMap<StreamName, Held>, CopyError> {
        let mut spans: HashMap<&StreamName, (u64, u64)> = HashMap::new();
        for Entry { sealed, .. } in entries {
            let span = spans.entry(&sealed.stream).or_insert((sealed.seq, sealed.seq));
            *span = (span.0.min(sealed.seq), span.1.max(sealed.seq));
        }
        let mut held = HashMap::new();
        for (stream, (first, last)) in spans {
            let from = first.saturating_sub(1);
            let limit = usize::try_from((last - from).saturating_add(1)).unwrap_or(usize::MAX);
            let found = self.to.read(stream, from, limit)?;
            let found = found.into_iter().map(|stored| (stored.seq, stored.hash)).collect();
            held.insert(stream.clone(), found);
        }
        Ok(held)
    }

    /// Takes the keys away that answer other receipts.
    fn unbind_keys(&self, entries: &mut [Entry]) -> Result<(), CopyError> {
        let keys: Vec<IdemKey> = entries.iter().filter_map(|entry| entry.key).collect();
        let found = self.to.find_keys(&keys)?;
        let taken = keys.into_iter().zip(found).filter(|(_, found)| found.is_some());
        let mut taken: HashSet<IdemKey> = taken.map(|(key, _)| key).collect();
        for entry in entries {
            if entry.key.is_some_and(|key| !taken.insert(key)) {
                entry.key = None;
            }
        }
        Ok(())
    }
}

/// Hashes of receipts by their position in a stream.
type Held = HashMap<u64, Hash>;

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Kept,
    Refused,
    /// Kept or not: a look tells.
    Unheard,
}
