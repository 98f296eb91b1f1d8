//! Firestore: the Store port for many instances on one ledger.
//!
//! Owns: the port, opening and closing, and how pages are read. Refuses to know: what a receipt
//! says, and what is decided.
//!
//! It speaks REST. Each receipt is one document, created once and never changed; a batch is one
//! atomic commit. Each store object is a writer with a log of its own (`log.rs`), so that no
//! document is written by two writers in turn; what they share is only the fence (`writer.rs`).
//!
//! **Limits of the service.** `pos` is indexed and grows with time, which holds a collection to
//! about 500 new documents a second, of all instances together: neighbours in an index lie on one
//! server. Lifted by a second field of, say, the last three bits of the id, indexed before `pos`,
//! and a search that merges as many queries. All other fields of a receipt need no index
//! (`deploy/firestore.indexes.json`), and document ids are hashes. A request holds 10 MiB, a
//! document 1 MiB.

mod client;
mod known;
mod log;
pub mod reader;
mod rows;
mod search;
mod wire;
mod writer;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use engine::ports::{
    AppendError, Batch, Durability, IdemKey, Identity, Query, ReadError, Snapshot, Store, Stored,
};
use ledger::{HeadRecord, receipt_id};
use types::{Micros, ReceiptId, StreamName};

use client::Client;
use known::Known;
use log::Lease;
use search::{PAGE, Search, condition};
use writer::Writer;

use crate::Error;

/// Receipts in one batch at most: with keys, attempts and due times they stay under the 500 writes
/// that a commit was once held to, and at 16 KiB each, twice that in JSON, under 10 MiB.
const BATCH_MAX: usize = 120;
/// Receipts of a stream that are asked for at first, and then twice as many up to a page. Those
/// behind the end cost a read each.
const FIRST_LOOK: usize = 16;

/// Which database.
#[derive(Debug, Clone)]
pub struct Options {
    /// The project's id.
    pub project: String,
    /// The database's id: `(default)`, unless it has a name.
    pub database: String,
    /// `host:port` of an emulator, which is spoken to without TLS and without credentials.
    pub emulator: Option<String>,
}

/// The Store port on Firestore. Each object is a writer of its own.
pub struct FirestoreStore {
    client: Client,
    identity: Identity,
    log: u64,
    writer: Mutex<Writer>,
    /// Apart from the writer, so that asking does not wait for a commit. `None` while one is in
    /// doubt.
    head: Mutex<Option<HeadRecord>>,
    lease: Mutex<Lease>,
    known: Known,
}

impl FirestoreStore {
    /// Opens the ledger in the database, or begins one, as a new writer.
    ///
    /// # Errors
    /// [`Error::Credentials`], [`Error::Firestore`] and [`Error::FirestoreRead`] when the service
    /// cannot be used; [`Error::Format`] and [`Error::Foreign`] when the ledger is not ours.
    pub fn open(options: &Options) -> Result<FirestoreStore, Error> {
        FirestoreStore::open_given(options, None)
    }

    /// [`FirestoreStore::open`] of the ledger that is called `identity`, which is begun where there
    /// is none.
    ///
    /// # Errors
    /// As there, and [`Error::OtherLedger`] when the database holds another one.
    pub fn open_as(options: &Options, identity: Identity) -> Result<FirestoreStore, Error> {
        FirestoreStore::open_given(options, Some(identity))
    }

    fn open_given(options: &Options, given: Option<Identity>) -> Result<FirestoreStore, Error> {
        let client = Client::new(options)?;
        let identity = log::identity(&client, given)?;
        let log = log::take_number(&client, identity.ledger)?;
        let head = HeadRecord::empty(identity.ledger);
        Ok(FirestoreStore {
            client,
            identity,
            log,
            writer: Mutex::new(Writer::new(log, head)),
            head: Mutex::new(Some(head)),
            lease: Mutex::new(Lease::new(log)),
            known: Known::new(),
        })
    }

    /// The number of this writer's log.
    #[must_use]
    pub fn log(&self) -> u64 {
        self.log
    }

    /// Renews this writer's lease and leaves a hint of where its log stands, at most once a second.
    /// To be called a few times a second from a thread of its own. Without it others take on this
    /// writer's attempts after half a minute, as if it were gone.
    pub fn maintain(&self) {
        // While a commit is in doubt the service is away, and this notices when it is back.
        if let Ok(head) = self.head() {
            lock(&self.lease).maintain(&self.client, &head);
        }
    }

    /// Gives the lease up, so that others take on at once what this writer leaves unsettled.
    pub fn close(&self) {
        match self.head() {
            Ok(head) => lock(&self.lease).close(&self.client, &head),
            Err(error) => {
                tracing::warn!(event = "lease_close", %error, "this writer's lease has to run out");
            }
        }
    }

    /// The receipts with these ids, as far as they exist.
    fn receipts(&self, ids: &[ReceiptId]) -> Result<Vec<Option<Stored>>, ReadError> {
        let names: Vec<_> = ids.iter().map(|id| self.client.receipt_name(*id)).collect();
        let got = self.client.get(names.clone(), None)?;
        let stored = |name: &String| got.get(name).map(rows::stored).transpose();
        let found = names.iter().map(stored).collect::<Result<Vec<_>, _>>()?;
        found.iter().flatten().for_each(|stored| self.known.read(stored));
        Ok(found)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What a panic inside leaves is a commit in doubt at worst, which the writer knows about only
    // by its number: the next one under the same number is refused by its record.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store for FirestoreStore {
    fn backend(&self) -> &'static str {
        "firestore"
    }

    fn durability(&self) -> Durability {
        Durability::Durable
    }

    fn identity(&self) -> Identity {
        self.identity
    }

    fn is_shared(&self) -> bool {
        true
    }

    fn writer(&self) -> Option<u64> {
        Some(self.log)
    }

    fn gone(&self, writers: &BTreeSet<u64>) -> Result<BTreeSet<u64>, ReadError> {
        let alive = log::alive(&self.client, writers.clone())?;
        Ok(writers.difference(&alive).copied().collect())
    }

    fn batch_max(&self) -> usize {
        BATCH_MAX
    }

    fn head(&self) -> Result<HeadRecord, ReadError> {
        let known = *lock(&self.head);
        if let Some(head) = known {
            return Ok(head);
        }
        let mut writer = lock(&self.writer);
        let settled = writer.settle(&self.client);
        let head = writer.head();
        *lock(&self.head) = head;
        let why = settled.err().map(|failure| failure.to_string()).unwrap_or_default();
        head.ok_or_else(|| ReadError::Unavailable(format!("a commit is in doubt: {why}")))
    }

    fn append(&self, batch: &Batch) -> Result<(), AppendError> {
        let mut writer = lock(&self.writer);
        let outcome = writer.append(&self.client, &self.known, batch);
        // Also after a failure: a commit before this one may have come out of doubt.
        *lock(&self.head) = writer.head();
        outcome
    }

    fn snapshot(&self, stream: &StreamName) -> Result<Option<Snapshot>, ReadError> {
        let found = self.client.get_one(&self.client.snapshot_name(stream))?;
        Ok(found.as_ref().and_then(rows::snapshot_of).filter(|kept| kept.stream == *stream))
    }

    fn read(
        &self,
        stream: &StreamName,
        from_seq: u64,
        limit: usize,
    ) -> Result<Vec<Stored>, ReadError> {
        let mut found = Vec::new();
        let mut look = FIRST_LOOK;
        while found.len() < limit {
            let from = from_seq.saturating_add(found.len() as u64);
            let asked = look.min(limit - found.len());
            let seqs = from..from.saturating_add(asked as u64);
            let ids: Vec<_> =
                seqs.map(|seq| receipt_id(&self.identity.ledger, stream.as_str(), seq)).collect();
            // What stands behind one that is missing is given too: whoever folds sees a broken link
            // and does not take the stream for shorter.
            let looked = self.receipts(&ids)?;
            let ended = looked.len() < asked || looked.iter().any(Option::is_none);
            found.extend(looked.into_iter().flatten());
            if ended {
                break;
            }
            look = (look * 2).min(PAGE);
        }
        Ok(found)
    }

    fn find(&self, id: ReceiptId) -> Result<Option<Stored>, ReadError> {
        Ok(self.receipts(&[id])?.pop().flatten())
    }

    fn find_keys(&self, keys: &[IdemKey]) -> Result<Vec<Option<Stored>>, ReadError> {
        let names: Vec<_> = keys.iter().map(|key| self.client.key_name(key)).collect();
        let got = self.client.get(names.clone(), None)?;
        let id = |name: &String| got.get(name).map(rows::key_receipt).transpose();
        let ids = names.iter().map(id).collect::<Result<Vec<_>, _>>()?;
        let wanted: Vec<_> = ids.iter().flatten().copied().collect();
        let found = self.receipts(&wanted)?;
        let found: BTreeMap<_, _> = wanted.iter().zip(found).collect();
        let receipt = |id: &Option<ReceiptId>| {
            let Some(id) = id else { return Ok(None) };
            // They were created together: a key without its receipt is damage, and to decide again
            // might double what was done.
            let stored = found.get(id).cloned().flatten();
            stored.map(Some).ok_or_else(|| {
                ReadError::Corrupt(format!("a key names {id}, which does not exist"))
            })
        };
        ids.iter().map(receipt).collect()
    }

    fn query(&self, query: &Query) -> Result<Vec<Stored>, ReadError> {
        let mut filters = Vec::new();
        if let Some(stream) = &query.stream {
            filters.push(condition("stream", "EQUAL", &wire::Value::text(stream)));
        }
        // No place is beyond what an integer of the service holds.
        if let Some(before) = query.before_pos.and_then(|pos| i64::try_from(pos).ok()) {
            filters.push(condition("pos", "LESS_THAN", &wire::Value::int(before)));
        }
        let search = Search {
            collection: rows::RECEIPTS,
            by: Some("pos"),
            descending: true,
            filters,
            read_time: None,
        };
        let mut found = Vec::new();
        search.each(&self.client, query.scan_limit, |document| {
            found.push(rows::stored(document)?);
            Ok(true)
        })?;
        Ok(found)
    }

    fn lanes(&self, base: &StreamName) -> Result<Vec<StreamName>, ReadError> {
        let (mut after, before) = base.lanes_between();
        let mut lanes = Vec::new();
        // One look for each, at its first receipt, however many receipts they hold.
        loop {
            let search = Search {
                collection: rows::RECEIPTS,
                by: Some("stream"),
                descending: false,
                filters: vec![
                    condition("stream", "GREATER_THAN", &wire::Value::text(&after)),
                    condition("stream", "LESS_THAN", &wire::Value::text(&before)),
                ],
                read_time: None,
            };
            let found = lanes.len();
            search.each(&self.client, 1, |document| {
                lanes.push(rows::stored(document)?.stream);
                Ok(true)
            })?;
            match lanes.last() {
                Some(last) if lanes.len() > found => after = last.to_string(),
                _ => return Ok(lanes),
            }
        }
    }

    fn due(&self, now: Micros, limit: usize) -> Result<Vec<StreamName>, ReadError> {
        let search = Search {
            collection: rows::DUE,
            by: Some("at"),
            descending: false,
            filters: vec![condition("at", "LESS_THAN_OR_EQUAL", &wire::Value::int(now.0))],
            read_time: None,
        };
        let mut found = Vec::new();
        search.each(&self.client, limit, |document| {
            found.push(rows::stream_of(document)?);
            Ok(true)
        })?;
        Ok(found)
    }

    fn unsettled(&self, limit: usize) -> Result<Vec<Stored>, ReadError> {
        let search = Search {
            collection: rows::ATTEMPTS,
            by: Some("pos"),
            descending: false,
            filters: Vec::new(),
            read_time: None,
        };
        // All of them: those in front may be others'. A tenant has one at most in flight.
        let mut open = Vec::new();
        search.each(&self.client, usize::MAX, |document| {
            let id = ReceiptId::parse(document.id());
            open.push(id.zip(document.count("log")).ok_or_else(|| rows::corrupt(document))?);
            Ok(true)
        })?;
        let others: BTreeSet<u64> =
            open.iter().map(|(_, log)| *log).filter(|log| *log != self.log).collect();
        let alive = log::alive(&self.client, others)?;
        let mut found = Vec::new();
        let gone: Vec<_> =
            open.iter().filter(|(_, log)| !alive.contains(log)).map(|(id, _)| *id).collect();
        for ids in gone[..gone.len().min(limit)].chunks(PAGE) {
            for (id, stored) in ids.iter().zip(self.receipts(ids)?) {
                let missing = || ReadError::Corrupt(format!("an attempt {id} does not exist"));
                found.push(stored.ok_or_else(missing)?);
            }
        }
        Ok(found)
    }
}
