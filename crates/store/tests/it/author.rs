//! Writes batches as the engine would: sealed, linked, with a head that follows.

use std::collections::HashMap;
use std::path::Path;

use engine::ports::{AppendError, Batch, Entry, IdemKey, Query, Snapshot, Store, Stored};
use ledger::{Draft, HeadRecord, Kind, LedgerId, StreamHead, Verifier, View, seal};
use store::{Options, Reader, SqliteStore, Synchronous};
use types::{Micros, ReceiptId, StreamName};

pub(crate) const EPOCH: i64 = 1_700_000_000_000_000;

pub(crate) fn stream(name: &str) -> StreamName {
    StreamName::parse(name).unwrap()
}

/// A key as the engine derives it: the first half of the receipt's `idem`.
pub(crate) fn key(n: u8) -> IdemKey {
    [n; 16]
}

fn idem(key: IdemKey) -> String {
    ledger::LedgerId(key).to_string().repeat(2)
}

pub(crate) fn note() -> Draft {
    Draft::new(Kind::Transition, "grant").states("unentitled", "entitled")
}

pub(crate) fn attempt() -> Draft {
    Draft::new(Kind::ActionAttempt, "scale_up")
}

pub(crate) fn result(of: ReceiptId) -> Draft {
    let mut draft = Draft::new(Kind::ActionResult, "scale_up");
    draft.intent = Some(of);
    draft
}

pub(crate) fn keyed(mut draft: Draft, with: IdemKey) -> Draft {
    draft.idem = Some(idem(with).into());
    draft
}

/// Knows where the ledger stands, and moves on only when told that a batch was kept.
#[derive(Clone)]
pub(crate) struct Author {
    ledger: LedgerId,
    pub(crate) head: HeadRecord,
    heads: HashMap<StreamName, StreamHead>,
    clock: i64,
}

impl Author {
    /// An author who has read the whole store.
    pub(crate) fn of(store: &dyn Store) -> Author {
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
    pub(crate) fn of_stream(store: &dyn Store, name: &StreamName) -> Author {
        let head = store.head().unwrap();
        let query = Query { stream: Some(name.clone()), before_pos: None, scan_limit: 1 };
        let newest = store.query(&query).unwrap();
        let heads = newest.iter().map(|stored| (name.clone(), head_of(stored))).collect();
        Author { ledger: store.identity().ledger, head, heads, clock: EPOCH.max(head.at.0) }
    }

    /// Seals drafts into one batch and believes in it at once.
    pub(crate) fn batch(&mut self, drafts: &[(&StreamName, Draft)]) -> Batch {
        let before = self.head;
        let entries = drafts.iter().map(|(name, draft)| self.entry(name, draft)).collect();
        Batch { before, after: self.head, entries, due: Vec::new(), snapshots: Vec::new() }
    }

    fn entry(&mut self, name: &StreamName, draft: &Draft) -> Entry {
        self.clock += 1;
        let head = self.heads.get(name).copied().unwrap_or(StreamHead::EMPTY);
        let sealed = seal(&self.ledger, name, &head, Micros(self.clock), draft).unwrap();
        self.heads.insert(name.clone(), head.after(&sealed));
        self.head = self.head.after(sealed.hash, sealed.at);
        let view = View::scan(&sealed.core).unwrap();
        let key = view
            .idem
            .map(|idem| LedgerId::from_hex(&idem.text()[..32]).map(|half| half.0).unwrap());
        let settles = view.intent;
        let kind = view.kind;
        Entry { kind, key, settles, sealed }
    }

    /// Seals one batch and appends it.
    pub(crate) fn append(
        &mut self,
        store: &dyn Store,
        drafts: &[(&StreamName, Draft)],
    ) -> Vec<ReceiptId> {
        let batch = self.batch(drafts);
        store.append(&batch).unwrap();
        batch.entries.iter().map(|entry| entry.sealed.id).collect()
    }

    /// A snapshot of a stream as it stands.
    pub(crate) fn snapshot(&self, name: &StreamName, state: &[u8]) -> Snapshot {
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

pub(crate) fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(dir, &Options { synchronous: Synchronous::Full }).unwrap()
}

pub(crate) fn everything(store: &dyn Store) -> Vec<Stored> {
    let mut all = store.query(&Query { scan_limit: usize::MAX, ..Query::default() }).unwrap();
    all.reverse();
    all
}

pub(crate) fn is_conflict(outcome: &Result<(), AppendError>) -> bool {
    matches!(outcome, Err(AppendError::Conflict))
}

/// Verifies a ledger from its files; gives the receipts counted.
pub(crate) fn verify(dir: &Path) -> u64 {
    let reader = Reader::open(dir).unwrap();
    let recorded = reader.head_record().unwrap();
    assert!(recorded.size <= reader.table_head().size);
    let mut verifier = Verifier::new(reader.ledger(), Some(recorded));
    reader
        .for_each(None, &mut |row| {
            verifier.push(row);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    let report = verifier.finish();
    assert!(report.intact() && report.head_checked, "{:?}", report.findings);
    assert_eq!(report.receipts, reader.table_head().size);
    assert_eq!(report.root, reader.table_head().root);
    report.receipts
}
