//! What writers see of each other, and what a commit holds.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use engine::ports::{AppendError, Batch, Store};
use testkit::firestore::Emulator;
use testkit::skip;
use testkit::store::author::{
    Author, attempt, everything, is_conflict, key, keyed, note, result, stream,
};
use types::{Hash, Micros};

use crate::{open, verified};

#[test]
fn writers_share_a_ledger() {
    let Some(emulator) = Emulator::start().unwrap() else {
        skip!("the Firestore emulator is not installed");
    };
    let address = emulator.address();
    // Side by side: leases take their time.
    std::thread::scope(|scope| {
        scope.spawn(|| leases_run_out(address));
        first_instances_agree(address);
        a_race_names_who_lost(address);
        nothing_follows_what_is_not_there(address);
        a_commit_has_room(address);
    });
}

fn first_instances_agree(address: SocketAddr) {
    let opened: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(move || open(address, "first"))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let logs: BTreeSet<_> = opened.iter().map(gcp::firestore::FirestoreStore::log).collect();
    assert_eq!(logs, BTreeSet::from([1, 2, 3, 4]), "each has a log, and no number is left out");
    let first = opened[0].identity();
    for store in &opened {
        assert_eq!(
            (store.identity().ledger, store.identity().secret),
            (first.ledger, first.secret)
        );
    }
}

/// The names of the streams that were lost.
fn lost(outcome: Result<(), AppendError>) -> Vec<String> {
    match outcome {
        Err(AppendError::Conflict { streams }) => {
            streams.iter().map(|stream| stream.as_str().to_owned()).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn a_race_names_who_lost(address: SocketAddr) {
    let (one, two) = (open(address, "race"), open(address, "race"));
    let (a, b, c, d) = (stream("a"), stream("b"), stream("c"), stream("d"));
    let mut first = Author::of(&one);
    let mut second = Author::of(&two);
    first.append(&one, &[(&a, note()), (&b, keyed(note(), key(1)))]);
    // One place is taken and one key; the third would be free.
    let before = second.clone();
    let batch = second.batch(&[(&a, note()), (&c, keyed(note(), key(1))), (&d, note())]);
    assert_eq!(lost(two.append(&batch)), ["a", "c"]);
    assert!(two.read(&d, 0, 1).unwrap().is_empty(), "all or nothing");
    let mut second = before;
    second.append(&two, &[(&d, note())]);
    assert_eq!(everything(&one).len(), 3);
    assert_eq!((one.head().unwrap().size, two.head().unwrap().size), (2, 1), "a log each");
    // Having read it, the loser follows.
    let mut second = Author::of_stream(&two, &a);
    second.append(&two, &[(&a, note())]);
    let read = one.read(&a, 0, 10).unwrap();
    assert!(read.len() == 2 && read[0].pos < read[1].pos);
}

fn nothing_follows_what_is_not_there(address: SocketAddr) {
    let (one, two) = (open(address, "gaps"), open(address, "gaps"));
    let (a, b) = (stream("a"), stream("b"));
    let mut author = Author::of(&one);
    author.append(&one, &[(&a, note())]);
    // It believes in a receipt that was not kept.
    let mut dreamer = Author::of_stream(&two, &a);
    let log = dreamer.clone().head;
    dreamer.batch(&[(&a, note())]);
    dreamer.head = log;
    assert_eq!(lost(two.append(&dreamer.batch(&[(&a, note())]))), ["a"]);
    // The place is right, the receipt before it another one.
    let mut liar = Author::of_stream(&two, &a).batch(&[(&a, note())]);
    liar.entries[0].prev_hash = Some(Hash([7; 32]));
    assert_eq!(lost(two.append(&liar)), ["a"]);
    // A gap inside the batch, and one at the beginning of a stream.
    let mut gap = author.clone().batch(&[(&b, note()), (&b, note()), (&b, note())]);
    gap.entries.remove(1);
    gap.after = follow(&gap);
    assert_eq!(lost(one.append(&gap)), ["b"]);
    gap.entries.remove(0);
    gap.after = follow(&gap);
    assert_eq!(lost(one.append(&gap)), ["b"]);
    assert_eq!(everything(&one).len(), 1);
}

fn follow(batch: &Batch) -> ledger::HeadRecord {
    let entries = batch.entries.iter();
    entries.fold(batch.before, |head, entry| head.after(entry.sealed.hash, entry.sealed.at))
}

fn a_commit_has_room(address: SocketAddr) {
    let store = open(address, "room");
    let mut author = Author::of(&store);
    // The most that a batch may hold, each as large and with as much beside it as can be.
    let mut large = attempt();
    large.detail = Some("\"".repeat(7_800).into());
    let names: Vec<_> = (0..store.batch_max()).map(|n| stream(&format!("tenant-{n}"))).collect();
    let nth_key = |n: usize| [n as u8; 16];
    let drafts: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(n, name)| (name, keyed(large.clone(), nth_key(n))))
        .collect();
    let mut batch = author.batch(&drafts);
    batch.due = names.iter().map(|name| (name.clone(), Some(Micros(1)))).collect();
    batch.snapshots = vec![
        author.snapshot(&names[0], &vec![7; 900_000]),
        author.snapshot(&names[1], &vec![7; 1 << 20]),
    ];
    store.append(&batch).unwrap();
    assert_eq!(everything(&store).len(), store.batch_max());
    assert_eq!(store.due(Micros(1), 1_000).unwrap().len(), store.batch_max());
    let state = store.snapshot(&names[0]).unwrap().unwrap().state;
    assert!(state.len() == 900_000 && state.iter().all(|byte| *byte == 7));
    assert!(store.snapshot(&names[1]).unwrap().is_none(), "too large to be kept");
    // An attempt and its result in one commit.
    let name = stream("quick");
    let batch = author.batch(&[(&name, attempt())]);
    let id = batch.entries[0].sealed.id;
    let mut both = author.batch(&[(&name, result(id))]);
    both.entries.splice(0..0, batch.entries);
    both.before = batch.before;
    store.append(&both).unwrap();
    assert_eq!(store.read(&name, 0, 10).unwrap().len(), 2);
    assert_eq!(store.unsettled(1_000).unwrap().len(), store.batch_max());
    // Too much for any commit: refused, and nothing of it is kept.
    let before = author.clone();
    let long = "x".repeat(400);
    let many: Vec<_> = (0..9_000)
        .map(|_| {
            (&name, {
                let mut draft = note();
                draft.detail = Some(long.clone().into());
                draft
            })
        })
        .collect();
    let outcome = store.append(&author.batch(&many));
    assert!(matches!(outcome, Err(AppendError::Unavailable(_))), "{outcome:?}");
    let mut author = before;
    author.append(&store, &[(&name, note())]);
    assert!(is_conflict(&store.append(
        &author.clone().batch(&[(&names[0], note()), (&names[0], keyed(note(), nth_key(0)))])
    )));
}

fn leases_run_out(address: SocketAddr) {
    let a = stream("a");
    let silent = open(address, "leases");
    let opened = Instant::now();
    let ids = Author::of(&silent).append(&silent, &[(&a, attempt())]);
    let (b, c) = (stream("b"), stream("c"));
    let closing = open(address, "leases");
    let more = Author::of(&closing).append(&closing, &[(&b, attempt())]);
    let lively = open(address, "leases");
    let own = Author::of(&lively).append(&lively, &[(&c, attempt())]);
    let look = open(address, "leases");
    let open = |store: &dyn Store| {
        store.unsettled(10).unwrap().iter().map(|stored| stored.id).collect::<Vec<_>>()
    };
    assert_eq!(open(&silent), ids);
    assert_eq!(open(&lively), own);
    assert!(open(&look).is_empty(), "all of them are there");
    closing.close();
    assert_eq!(open(&look), more, "gone by its own word");
    // Gone without one.
    let both: BTreeSet<_> = ids.iter().chain(&more).copied().collect();
    while BTreeSet::from_iter(open(&look)) != both {
        assert!(opened.elapsed() < Duration::from_secs(90), "the lease does not run out");
        lively.maintain();
        // Between two looks, under the deadline above.
        std::thread::sleep(Duration::from_millis(200));
    }
    assert!(opened.elapsed() > Duration::from_secs(29), "{:?}", opened.elapsed());
    let report = verified(address, "leases");
    assert!(report.intact(), "{report:?}");
}
