//! What every backend of the port must do.

use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use engine::ports::{AppendError, Query, Store};
use ledger::Verifier;
use types::{LaneId, Micros, ReceiptId};

use super::StopOnDrop;
use super::author::{Author, attempt, everything, is_conflict, key, keyed, note, result, stream};

type Check = fn(&dyn Store);

/// Runs every check on a store of its own.
pub fn suite(make: &dyn Fn() -> Box<dyn Store>) {
    let checks: [Check; 14] = [
        starts_empty,
        reads_back,
        finds_keys,
        pages,
        lists_lanes,
        lists_due,
        lists_unsettled,
        keeps_snapshots,
        refuses_stale,
        refuses_key,
        refuses_place,
        all_or_nothing,
        read_your_writes,
        one_chain,
    ];
    checks.iter().for_each(|check| check(&*make()));
}

fn lists_lanes(store: &dyn Store) {
    let (a, b, ab) = (stream("a"), stream("b"), stream("ab"));
    let [first, second] = [1, 2].map(|nth| LaneId([nth; 8]));
    let mut author = Author::of(store);
    assert!(store.lanes(&a).unwrap().is_empty());
    for name in [&a, &b, &a.lane(second), &a.lane(first), &ab.lane(first), &a.lane(second)] {
        author.append(store, &[(name, note())]);
    }
    assert_eq!(store.lanes(&a).unwrap(), [a.lane(first), a.lane(second)]);
    assert!(store.lanes(&b).unwrap().is_empty());
    // A lane is no part of the chain beside it.
    assert_eq!(store.read(&a, 0, 9).unwrap().len(), 1);
    assert_eq!(store.read(&a.lane(second), 0, 9).unwrap().len(), 2);
}

fn starts_empty(store: &dyn Store) {
    let head = store.head().unwrap();
    assert_eq!(head, ledger::HeadRecord::empty(store.identity().ledger));
    assert!(everything(store).is_empty());
    assert_eq!(store.read(&stream("a"), 0, 10).unwrap(), []);
    assert_eq!(store.find(ReceiptId([0; 16])).unwrap(), None);
    assert_eq!(store.find_keys(&[]).unwrap(), []);
    assert_eq!(store.find_keys(&[key(1), key(2)]).unwrap(), [None, None]);
    assert!(store.snapshot(&stream("a")).unwrap().is_none());
    assert!(store.due(Micros(i64::MAX), 10).unwrap().is_empty());
    assert!(store.unsettled(10).unwrap().is_empty());
    let secret = store.identity().secret;
    assert!(secret.iter().any(|byte| *byte != secret[0]), "a secret is random");
}

fn reads_back(store: &dyn Store) {
    let (a, b) = (stream("a"), stream("b"));
    let mut author = Author::of(store);
    let batch = author.batch(&[(&a, note()), (&b, note()), (&a, note())]);
    store.append(&batch).unwrap();
    let more = author.batch(&[(&a, note())]);
    store.append(&more).unwrap();
    assert_eq!(store.head().unwrap(), author.head);

    let all = everything(store);
    let sealed: Vec<_> = batch.entries.iter().chain(&more.entries).map(|e| &e.sealed).collect();
    assert_eq!(all.len(), 4);
    for (n, (stored, sealed)) in all.iter().zip(sealed).enumerate() {
        assert!(store.is_shared() || stored.pos == n as u64 + 1);
        assert_eq!((&stored.stream, stored.seq), (&sealed.stream, sealed.seq));
        assert_eq!((&stored.core[..], stored.hash), (&sealed.core[..], sealed.hash));
        assert_eq!(stored.chain_hash, sealed.chain_hash);
        assert_eq!(store.find(sealed.id).unwrap().as_ref(), Some(stored));
    }
    let seqs = |from, limit| {
        let read = store.read(&a, from, limit).unwrap();
        assert!(read.iter().all(|stored| stored.stream == a));
        read.iter().map(|stored| stored.seq).collect::<Vec<_>>()
    };
    assert_eq!(seqs(0, 10), [0, 1, 2]);
    assert_eq!(seqs(1, 1), [1]);
    assert!(seqs(3, 10).is_empty() && seqs(u64::MAX, 10).is_empty() && seqs(0, 0).is_empty());
}

fn finds_keys(store: &dyn Store) {
    let a = stream("a");
    let mut author = Author::of(store);
    let drafts = [(&a, keyed(note(), key(1))), (&a, note()), (&a, keyed(note(), key(2)))];
    let ids = author.append(store, &drafts);
    let found = store.find_keys(&[key(2), key(9), key(1), key(2)]).unwrap();
    let found: Vec<_> = found.into_iter().map(|stored| stored.map(|stored| stored.id)).collect();
    assert_eq!(found, [Some(ids[2]), None, Some(ids[0]), Some(ids[2])]);
}

fn pages(store: &dyn Store) {
    let (a, b) = (stream("a"), stream("b"));
    let mut author = Author::of(store);
    for _ in 0..5 {
        author.append(store, &[(&a, note()), (&b, note())]);
    }
    // Places by rank, since those of a shared store have gaps.
    let ranks: Vec<_> = everything(store).iter().map(|stored| stored.pos).collect();
    assert!(ranks.is_sorted_by(|a, b| a < b));
    let page = |stream: Option<&_>, before: Option<u64>, scan_limit| {
        let place =
            |rank: u64| ranks.get(rank as usize - 1).copied().unwrap_or(u64::MAX - 1 + rank % 2);
        let before_pos = before.map(place);
        let query = Query { stream: stream.cloned(), before_pos, scan_limit };
        let found = store.query(&query).unwrap();
        let rank = |stored: &engine::ports::Stored| {
            ranks.iter().position(|pos| *pos == stored.pos).unwrap() + 1
        };
        found.iter().map(rank).collect::<Vec<_>>()
    };
    assert_eq!(page(None, None, 3), [10, 9, 8]);
    assert_eq!(page(None, Some(8), 3), [7, 6, 5]);
    assert_eq!(page(Some(&a), None, 2), [9, 7]);
    assert_eq!(page(Some(&a), Some(7), 2), [5, 3]);
    assert_eq!(page(Some(&a), Some(8), 9), [7, 5, 3, 1], "a cursor from another stream");
    assert_eq!(page(Some(&b), Some(100), 1), [10], "a cursor beyond the end");
    assert_eq!(page(Some(&b), Some(u64::MAX), 1), [10]);
    assert!(page(Some(&stream("c")), None, 9).is_empty());
    assert!(page(None, Some(1), 9).is_empty() && page(None, None, 0).is_empty());
}

fn lists_due(store: &dyn Store) {
    let names = [stream("a"), stream("b"), stream("c")];
    let mut author = Author::of(store);
    let mut batch = author.batch(&[(&names[0], note()), (&names[1], note()), (&names[2], note())]);
    batch.due = vec![
        (names[0].clone(), Some(Micros(30))),
        (names[1].clone(), Some(Micros(10))),
        (names[2].clone(), Some(Micros(20))),
    ];
    store.append(&batch).unwrap();
    let due = |now, limit| {
        let due = store.due(Micros(now), limit).unwrap();
        due.iter().map(|name| name.as_str().to_owned()).collect::<Vec<_>>()
    };
    assert!(due(9, 10).is_empty());
    assert_eq!(due(10, 10), ["b"]);
    assert_eq!(due(30, 10), ["b", "c", "a"]);
    assert_eq!(due(30, 2), ["b", "c"]);
    let mut batch = author.batch(&[(&names[1], note())]);
    batch.due = vec![(names[1].clone(), None), (names[0].clone(), Some(Micros(5)))];
    store.append(&batch).unwrap();
    assert_eq!(due(30, 10), ["a", "c"]);
}

fn lists_unsettled(store: &dyn Store) {
    let (a, b) = (stream("a"), stream("b"));
    let mut author = Author::of(store);
    let ids = author.append(store, &[(&a, attempt()), (&b, attempt()), (&a, attempt())]);
    let open =
        |limit| store.unsettled(limit).unwrap().iter().map(|stored| stored.id).collect::<Vec<_>>();
    assert_eq!(open(10), ids);
    assert_eq!(open(2), ids[..2]);
    author.append(store, &[(&a, result(ids[0])), (&a, note())]);
    assert_eq!(open(10), ids[1..]);
    author.append(store, &[(&b, result(ids[1])), (&a, result(ids[2]))]);
    assert!(open(10).is_empty());
}

fn keeps_snapshots(store: &dyn Store) {
    let a = stream("a");
    let mut author = Author::of(store);
    for state in [&b"one"[..], b"", b"three"] {
        let mut batch = author.batch(&[(&a, note())]);
        let kept = author.snapshot(&a, state);
        batch.snapshots = vec![kept.clone()];
        store.append(&batch).unwrap();
        let found = store.snapshot(&a).unwrap().unwrap();
        assert_eq!((found.seq, found.hash, found.at), (kept.seq, kept.hash, kept.at));
        assert_eq!((found.stream, found.state), (kept.stream, kept.state));
    }
    assert!(store.snapshot(&stream("b")).unwrap().is_none());
}

fn refuses_stale(store: &dyn Store) {
    let (a, b) = (stream("a"), stream("b"));
    let mut stale = Author::of(store);
    let mut author = stale.clone();
    author.append(store, &[(&a, note())]);
    // Another stream, so that only the head is in the way.
    assert!(is_conflict(&store.append(&stale.batch(&[(&b, note())]))));
    let mut forked = Author::of(store);
    forked.head.root = types::Hash([7; 32]);
    assert!(is_conflict(&store.append(&forked.batch(&[(&b, note())]))), "same size, other root");
    assert_eq!(store.head().unwrap(), author.head);
    assert_eq!(everything(store).len(), 1);
}

fn refuses_key(store: &dyn Store) {
    let (a, b) = (stream("a"), stream("b"));
    let mut author = Author::of(store);
    let first = author.append(store, &[(&a, keyed(note(), key(1)))]);
    let head = author.head;
    let again = author.clone().batch(&[(&b, keyed(note(), key(1)))]);
    assert!(is_conflict(&store.append(&again)));
    let twice = author.clone().batch(&[(&a, keyed(note(), key(2))), (&b, keyed(note(), key(2)))]);
    assert!(is_conflict(&store.append(&twice)), "twice in one batch");
    assert_eq!(store.head().unwrap(), head);
    let found = store.find_keys(&[key(1), key(2)]).unwrap();
    assert_eq!(found[0].as_ref().map(|stored| stored.id), Some(first[0]));
    assert!(found[1].is_none());
}

fn refuses_place(store: &dyn Store) {
    let (a, b) = (stream("a"), stream("b"));
    let mut author = Author::of(store);
    author.append(store, &[(&a, note())]);
    // An author who knows the head but not that stream `a` has begun: same place, same id.
    let mut blind = Author::of_stream(store, &b);
    assert!(is_conflict(&store.append(&blind.batch(&[(&a, note())]))));
    // The place is free, the id is not.
    let mut forged = author.clone().batch(&[(&b, note())]);
    forged.entries[0].sealed.id = everything(store)[0].id;
    assert!(is_conflict(&store.append(&forged)));
    assert_eq!(everything(store).len(), 1);
}

fn all_or_nothing(store: &dyn Store) {
    let (a, b) = (stream("a"), stream("b"));
    let mut author = Author::of(store);
    let ids = author.append(store, &[(&a, keyed(attempt(), key(1)))]);
    let mut bad = author.clone();
    let mut batch = bad.batch(&[
        (&b, keyed(note(), key(2))),
        (&b, attempt()),
        (&a, result(ids[0])),
        (&b, keyed(note(), key(1))),
    ]);
    batch.due = vec![(a.clone(), Some(Micros(1)))];
    batch.snapshots = vec![bad.snapshot(&b, b"state")];
    assert!(is_conflict(&store.append(&batch)));

    assert_eq!(store.head().unwrap(), author.head);
    assert_eq!(everything(store).len(), 1);
    assert_eq!(store.find_keys(&[key(2)]).unwrap(), [None]);
    let open: Vec<_> = store.unsettled(10).unwrap().iter().map(|stored| stored.id).collect();
    assert_eq!(open, ids);
    assert!(store.due(Micros(i64::MAX), 10).unwrap().is_empty());
    assert!(store.snapshot(&b).unwrap().is_none());
    // The refused batch named a new stream first: its number must not be remembered.
    author.append(store, &[(&b, note()), (&stream("c"), note())]);
    assert_eq!(store.read(&b, 0, 10).unwrap().len(), 1);
    assert_eq!(store.read(&stream("c"), 0, 10).unwrap().len(), 1);
}

fn read_your_writes(store: &dyn Store) {
    let a = stream("a");
    let (newest, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut author = Author::of(store);
    std::thread::scope(|scope| {
        for _ in 0..6 {
            scope.spawn(|| {
                while !done.load(Ordering::Acquire) {
                    let acknowledged = newest.load(Ordering::Acquire);
                    let seen = store.read(&a, 0, usize::MAX).unwrap().len() as u64;
                    assert!(seen >= acknowledged, "{seen} of {acknowledged}");
                    assert!(store.head().unwrap().size >= acknowledged);
                }
            });
        }
        let _stopping = StopOnDrop(&done);
        for n in 1..=100 {
            author.append(store, &[(&a, note())]);
            newest.store(n, Ordering::Release);
        }
    });
}

fn one_chain(store: &dyn Store) {
    const THREADS: usize = 8;
    const EACH: u64 = 25;
    let hot = stream("hot");
    let start = Barrier::new(THREADS);
    let lost = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut author = Author::of_stream(store, &hot);
                start.wait();
                let mut kept = 0;
                while kept < EACH {
                    match store.append(&author.batch(&[(&hot, note())])) {
                        Ok(()) => kept += 1,
                        Err(AppendError::Conflict { .. }) => {
                            lost.fetch_add(1, Ordering::Relaxed);
                            author = consistent(store, &hot);
                        }
                        Err(error) => panic!("{error}"),
                    }
                }
            });
        }
    });
    // All began with the same head, and one of them won.
    assert!(lost.load(Ordering::Relaxed) >= THREADS as u64 - 1);
    let mut verifier = Verifier::new(store.identity().ledger, Some(store.head().unwrap()));
    for (nth, stored) in everything(store).iter().enumerate() {
        let pos = if store.is_shared() { nth as u64 + 1 } else { stored.pos };
        verifier.push(&ledger::Row { pos, ..stored.row() });
    }
    let report = verifier.finish();
    assert!(report.intact(), "{:?}", report.findings);
    assert_eq!(report.receipts, THREADS as u64 * EACH);
}

/// Head and stream are two reads: they fit together when nobody wrote in between.
fn consistent(store: &dyn Store, name: &types::StreamName) -> Author {
    loop {
        let author = Author::of_stream(store, name);
        if store.head().unwrap() == author.head {
            return author;
        }
    }
}
