//! Random histories against a model that is nothing but vectors and maps.

use std::collections::{BTreeMap, BTreeSet};

use engine::ports::{Batch, Entry, IdemKey, Query, Snapshot, Store, Stored};
use ledger::Draft;
use proptest::prelude::*;
use store::SqliteStore;
use types::{Micros, ReceiptId, StreamName};

use crate::author::{
    Author, attempt, everything, is_conflict, key, keyed, note, open, result, stream,
};

const STREAMS: [&str; 4] = ["a", "b", "c", "_ops"];

#[derive(Debug, Clone)]
struct Receipt {
    stream: usize,
    kind: u8,
    key: Option<u8>,
}

#[derive(Debug, Clone)]
struct Step {
    receipts: Vec<Receipt>,
    due: Vec<(usize, Option<i64>)>,
    snapshot: bool,
    stale: bool,
}

#[derive(Default)]
struct Model {
    stored: Vec<Stored>,
    keys: BTreeMap<IdemKey, u64>,
    open: BTreeSet<u64>,
    due: BTreeMap<StreamName, Micros>,
    snapshots: BTreeMap<StreamName, Snapshot>,
}

impl Model {
    fn accepts(&self, batch: &Batch) -> bool {
        let keys: Vec<_> = batch.entries.iter().filter_map(|entry| entry.key).collect();
        let distinct: BTreeSet<_> = keys.iter().collect();
        batch.before.size == self.stored.len() as u64
            && distinct.len() == keys.len()
            && keys.iter().all(|key| !self.keys.contains_key(key))
    }

    fn take(&mut self, batch: &Batch) {
        for Entry { sealed, kind, key, settles, .. } in &batch.entries {
            let pos = self.stored.len() as u64 + 1;
            self.stored.push(Stored {
                pos,
                stream: sealed.stream.clone(),
                seq: sealed.seq,
                id: sealed.id,
                core: sealed.core.to_vec(),
                hash: sealed.hash,
                chain_hash: sealed.chain_hash,
            });
            if let Some(key) = key {
                self.keys.insert(*key, pos);
            }
            if *kind == ledger::Kind::ActionAttempt {
                self.open.insert(pos);
            }
            if let Some(id) = settles {
                let settled = self.stored.iter().find(|stored| stored.id == *id).unwrap().pos;
                self.open.remove(&settled);
            }
        }
        for (name, at) in &batch.due {
            match at {
                Some(at) => self.due.insert(name.clone(), *at),
                None => self.due.remove(name),
            };
        }
        for snapshot in &batch.snapshots {
            self.snapshots.insert(snapshot.stream.clone(), snapshot.clone());
        }
    }

    fn at(&self, pos: u64) -> Stored {
        self.stored[pos as usize - 1].clone()
    }

    fn newest_open(&self, name: &StreamName) -> Option<ReceiptId> {
        let open = self.open.iter().rev().map(|pos| self.at(*pos));
        open.filter(|stored| stored.stream == *name).map(|stored| stored.id).next()
    }

    fn draft(&self, receipt: &Receipt, name: &StreamName) -> Draft {
        let draft = match (receipt.kind, self.newest_open(name)) {
            (1, _) => attempt(),
            (2, Some(id)) => result(id),
            _ => note(),
        };
        receipt.key.map_or(draft.clone(), |n| keyed(draft, key(n)))
    }

    fn compare(&self, store: &dyn Store, page: usize) {
        assert_eq!(everything(store), self.stored);
        for stored in &self.stored {
            assert_eq!(store.find(stored.id).unwrap().as_ref(), Some(stored));
        }
        let keys: Vec<_> = (0..12).map(key).collect();
        let expected: Vec<_> =
            keys.iter().map(|key| self.keys.get(key).map(|pos| self.at(*pos))).collect();
        assert_eq!(store.find_keys(&keys).unwrap(), expected);
        let open: Vec<_> = self.open.iter().map(|pos| self.at(*pos)).collect();
        assert_eq!(store.unsettled(usize::MAX).unwrap(), open);
        for now in [0, 3, 6, 10] {
            let mut expected: Vec<_> = self
                .due
                .iter()
                .filter(|(_, at)| at.0 <= now)
                .map(|(name, at)| (*at, name))
                .collect();
            expected.sort();
            let mut found: Vec<_> = store.due(Micros(now), 9).unwrap();
            let order: Vec<_> = found.iter().map(|name| self.due[name]).collect();
            assert!(order.is_sorted());
            found.sort_by_key(|name| (self.due[name], name.clone()));
            assert_eq!(
                found.iter().collect::<Vec<_>>(),
                expected.iter().map(|e| e.1).collect::<Vec<_>>()
            );
        }
        for name in STREAMS.map(stream) {
            let of_stream: Vec<_> =
                self.stored.iter().filter(|stored| stored.stream == name).cloned().collect();
            assert_eq!(store.read(&name, 0, usize::MAX).unwrap(), of_stream);
            let tail = store.read(&name, 2, page).unwrap();
            let expected: Vec<_> = of_stream.iter().skip(2).take(page).cloned().collect();
            assert_eq!(tail, expected);
            assert_eq!(pages(store, Some(&name), page), reversed(&of_stream));
            let found =
                store.snapshot(&name).unwrap().map(|kept| (kept.seq, kept.hash, kept.state));
            let expected = self.snapshots.get(&name);
            assert_eq!(found, expected.map(|kept| (kept.seq, kept.hash, kept.state.clone())));
        }
        assert_eq!(pages(store, None, page), reversed(&self.stored));
    }
}

fn reversed(stored: &[Stored]) -> Vec<Stored> {
    stored.iter().rev().cloned().collect()
}

/// All pages, each found through the cursor of the one before.
fn pages(store: &dyn Store, name: Option<&StreamName>, page: usize) -> Vec<Stored> {
    let mut all: Vec<Stored> = Vec::new();
    loop {
        let before_pos = all.last().map(|stored| stored.pos);
        let query = Query { stream: name.cloned(), before_pos, scan_limit: page };
        let found = store.query(&query).unwrap();
        assert!(found.len() <= page);
        if found.is_empty() {
            return all;
        }
        all.extend(found);
    }
}

fn receipts() -> impl Strategy<Value = Vec<Receipt>> {
    let receipt = (0..STREAMS.len(), 0..3u8, prop::option::weighted(0.3, 0..12u8))
        .prop_map(|(stream, kind, key)| Receipt { stream, kind, key });
    prop::collection::vec(receipt, 1..6)
}

fn step() -> impl Strategy<Value = Step> {
    let due = prop::collection::vec((0..STREAMS.len(), prop::option::of(0..10i64)), 0..3);
    (receipts(), due, any::<bool>(), prop::bool::weighted(0.1))
        .prop_map(|(receipts, due, snapshot, stale)| Step { receipts, due, snapshot, stale })
}

/// Plays a history on both, comparing each outcome, and everything at the end.
fn play(store: &dyn Store, steps: &[Step], page: usize) {
    let mut model = Model::default();
    let mut author = Author::of(store);
    let mut former = author.clone();
    for step in steps {
        let mut next = if step.stale { former.clone() } else { author.clone() };
        let names = STREAMS.map(stream);
        let drafts: Vec<_> = step
            .receipts
            .iter()
            .map(|receipt| {
                let name = &names[receipt.stream];
                (name, model.draft(receipt, name))
            })
            .collect();
        let mut batch = next.batch(&drafts);
        batch.due = step.due.iter().map(|(n, at)| (names[*n].clone(), at.map(Micros))).collect();
        if step.snapshot {
            batch.snapshots = vec![next.snapshot(drafts[0].0, &[step.receipts[0].kind; 3])];
        }
        let outcome = store.append(&batch);
        if model.accepts(&batch) {
            outcome.unwrap();
            model.take(&batch);
            former = std::mem::replace(&mut author, next);
        } else {
            assert!(is_conflict(&outcome), "{outcome:?}");
        }
        assert_eq!(store.head().unwrap(), author.head);
    }
    model.compare(store, page);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn memory_behaves_like_the_model(
        steps in prop::collection::vec(step(), 1..12),
        page in 1..5usize,
        generation in 1..20usize,
    ) {
        let store = SqliteStore::memory().unwrap();
        store.set_generation(generation);
        play(&store, &steps, page);
    }

    #[test]
    fn disk_behaves_like_the_model_and_survives_reopening(
        steps in prop::collection::vec(step(), 1..12),
        page in 1..5usize,
        generation in 1..20usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let store = open(dir.path());
        store.set_generation(generation);
        play(&store, &steps, page);
        let (before, identity) = (everything(&store), store.identity());
        drop(store);
        let store = open(dir.path());
        prop_assert_eq!(everything(&store), before);
        prop_assert_eq!(store.identity().ledger, identity.ledger);
        prop_assert_eq!(store.identity().secret, identity.secret);
    }
}
