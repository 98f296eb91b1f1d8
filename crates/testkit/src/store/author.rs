//! Writes batches as the engine would: sealed, linked, with a head that follows.

use std::collections::HashMap;

use engine::ports::{
    AppendError, Batch, Entry, IdemKey, Query, ReadError, Snapshot, Store, Stored,
};
use ledger::{Draft, HeadRecord, Kind, LedgerId, StreamHead, View, seal};
use types::{Micros, ReceiptId, StreamName};

/// The instant of the first receipts, in microseconds.
pub const EPOCH: i64 = 1_700_000_000_000_000;

/// A stream's name.
pub fn stream(name: &str) -> StreamName {
    StreamName::parse(name).unwrap()
}

/// A key as the engine derives it: the first half of the receipt's `idem`.
pub fn key(n: u8) -> IdemKey {
    [n; 16]
}

fn idem(key: IdemKey) -> String {
    ledger::LedgerId(key).to_string().repeat(2)
}

/// A receipt like any other.
pub fn note() -> Draft {
    Draft::new(Kind::Transition, "grant").states("unentitled", "entitled")
}

/// A receipt that opens an attempt.
pub fn attempt() -> Draft {
    Draft::new(Kind::ActionAttempt, "scale_up")
}

/// The receipt that settles an attempt.
pub fn result(of: ReceiptId) -> Draft {
    let mut draft = Draft::new(Kind::ActionResult, "scale_up");
    draft.intent = Some(of);
    draft
}

/// The same receipt as the answer to a key.
pub fn keyed(mut draft: Draft, with: IdemKey) -> Draft {
    draft.idem = Some(idem(with).into());
    draft
}

/// Knows where the ledger stands, and moves on only when told that a batch was kept.
#[derive(Clone)]
pub struct Author {
    ledger: LedgerId,
    /// Where the writer's log stands.
    pub head: HeadRecord,
    heads: HashMap<StreamName, StreamHead>,
    clock: i64,
}

impl Author {
    /// The author of a new ledger.
    pub fn new(ledger: LedgerId) -> Author {
        Author { ledger, head: HeadRecord::empty(ledger), heads: HashMap::new(), clock: EPOCH }
    }

    /// An author who has read the whole store.
    pub fn of(store: &dyn Store) -> Author {
        let head = store.head().unwrap();
        let query = Query { scan_limit: usize::MAX, ..Query::default() };
        let mut author = Author {
            ledger: store.identity().ledger,
            head,
            heads: HashMap::new(),
            clock: EPOCH.max(head.at.0),
        };
        for stored in store.query(&query).unwrap() {
            author.heads.entry(stored.stream.clone()).or_insert_with(|| head_of(&stored));
        }
        author
    }

    /// An author who knows one stream and the head: enough to extend that stream.
    pub fn of_stream(store: &dyn Store, name: &StreamName) -> Author {
        let head = store.head().unwrap();
        let query = Query { stream: Some(name.clone()), before_pos: None, scan_limit: 1 };
        let newest = store.query(&query).unwrap();
        let heads = newest.iter().map(|stored| (name.clone(), head_of(stored))).collect();
        Author { ledger: store.identity().ledger, head, heads, clock: EPOCH.max(head.at.0) }
    }

    /// Looks again where some streams and the writer's log stand.
    pub fn catch_up(&mut self, store: &dyn Store, names: &[StreamName]) -> Result<(), ReadError> {
        self.head = store.head()?;
        for name in names {
            let query = Query { stream: Some(name.clone()), before_pos: None, scan_limit: 1 };
            match store.query(&query)?.first() {
                Some(newest) => self.heads.insert(name.clone(), head_of(newest)),
                None => self.heads.remove(name),
            };
        }
        Ok(())
    }

    /// Seals drafts into one batch and believes in it at once.
    pub fn batch(&mut self, drafts: &[(&StreamName, Draft)]) -> Batch {
        let before = self.head;
        let entries = drafts.iter().map(|(name, draft)| self.entry(name, draft)).collect();
        Batch { before, after: self.head, entries, due: Vec::new(), snapshots: Vec::new() }
    }

    fn entry(&mut self, name: &StreamName, draft: &Draft) -> Entry {
        let head = self.heads.get(name).copied().unwrap_or(StreamHead::EMPTY);
        // Another writer's clock may be ahead.
        self.clock = self.clock.max(head.last_at.0) + 1;
        let sealed = seal(&self.ledger, name, &head, Micros(self.clock), draft).unwrap();
        self.heads.insert(name.clone(), head.after(&sealed));
        self.head = self.head.after(sealed.hash, sealed.at);
        let view = View::scan(&sealed.core).unwrap();
        let key = view
            .idem
            .map(|idem| LedgerId::from_hex(&idem.text()[..32]).map(|half| half.0).unwrap());
        let settles = view.intent;
        let kind = view.kind;
        Entry { kind, key, settles, sealed, prev_hash: head.last_hash }
    }

    /// Seals one batch and appends it.
    pub fn append(&mut self, store: &dyn Store, drafts: &[(&StreamName, Draft)]) -> Vec<ReceiptId> {
        let batch = self.batch(drafts);
        store.append(&batch).unwrap();
        batch.entries.iter().map(|entry| entry.sealed.id).collect()
    }

    /// A snapshot of a stream as it stands.
    pub fn snapshot(&self, name: &StreamName, state: &[u8]) -> Snapshot {
        let head = &self.heads[name];
        Snapshot {
            stream: name.clone(),
            seq: head.next_seq - 1,
            hash: head.last_hash.unwrap(),
            at: head.last_at,
            state: state.to_vec(),
        }
    }
}

fn head_of(stored: &Stored) -> StreamHead {
    let at = View::scan(&stored.core).unwrap().at;
    StreamHead { next_seq: stored.seq + 1, last_hash: Some(stored.hash), last_at: at }
}

/// Every receipt in order.
pub fn everything(store: &dyn Store) -> Vec<Stored> {
    let mut all = store.query(&Query { scan_limit: usize::MAX, ..Query::default() }).unwrap();
    all.reverse();
    all
}

/// True when the race was lost.
pub fn is_conflict(outcome: &Result<(), AppendError>) -> bool {
    matches!(outcome, Err(AppendError::Conflict { .. }))
}
