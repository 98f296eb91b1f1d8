//! What a copy from any store into any other must keep.
//!
//! Owns: the checks of a copy between two stores. Refuses to know: any backend.

use engine::copy::{Copier, CopyError};
use engine::ports::{Batch, Identity, Store, Stored};
use ledger::{LedgerId, Row, Verifier};
use types::{Micros, StreamName};

use super::author::{Author, attempt, everything, key, keyed, note, result, stream};

/// The store that is copied from, and a way to a new one that is called as it is.
type Check = fn(&dyn Store, &dyn Store);

/// Runs every check between stores of its own.
pub fn suite(source: &dyn Fn() -> Box<dyn Store>, target: &dyn Fn(Identity) -> Box<dyn Store>) {
    let checks: [Check; 9] = [
        carries_everything_over,
        goes_on_where_it_was,
        passes_over_what_is_there,
        carries_due_times_over,
        sees_a_fork,
        sees_a_gap,
        refuses_what_is_altered,
        leaves_taken_keys_alone,
        keeps_the_order_of_a_log,
    ];
    for check in checks {
        let from = source();
        let to = target(from.identity());
        assert!(from.identity() == to.identity());
        check(&*from, &*to);
    }
}

/// Copies all of one store into another; how many receipts were appended.
pub fn copy(from: &dyn Store, to: &dyn Store) -> u64 {
    Copier::new(to).unwrap().copy(&everything(from)).unwrap()
}

/// Receipts of some streams, with keys and with attempts of which one is left open.
fn fill(store: &dyn Store) {
    let (a, b, c) = (stream("a"), stream("b"), stream("c"));
    let mut author = Author::of(store);
    let ids = author.append(store, &[(&a, attempt()), (&b, attempt()), (&a, note())]);
    author.append(store, &[(&a, keyed(note(), key(1))), (&b, result(ids[1]))]);
    for n in 2..9 {
        author.append(store, &[(&b, note()), (&c, keyed(note(), key(n))), (&a, note())]);
    }
}

/// What must be the same at both ends: everything but the place.
fn same(stored: &[Stored]) -> Vec<Stored> {
    let mut same: Vec<_> = stored.iter().cloned().map(|one| Stored { pos: 0, ..one }).collect();
    same.sort_by(|a, b| (&a.stream, a.seq).cmp(&(&b.stream, b.seq)));
    same
}

/// Checks that two stores hold the same, and that the second one is whole.
pub fn assert_same(from: &dyn Store, to: &dyn Store) {
    let (here, there) = (everything(from), everything(to));
    assert_eq!(same(&here), same(&there));
    let mut verifier = Verifier::new(to.identity().ledger, None);
    for (rank, stored) in (1..).zip(&there) {
        verifier.push(&Row { pos: rank, ..stored.row() });
    }
    let report = verifier.finish();
    assert!(report.intact(), "{:?}", report.findings);
    let keys: Vec<_> = (0..10).map(key).collect();
    let found = |store: &dyn Store| -> Vec<_> {
        let found = store.find_keys(&keys).unwrap();
        found.into_iter().map(|stored| stored.map(|stored| stored.id)).collect()
    };
    assert_eq!(found(from), found(to));
}

fn carries_everything_over(from: &dyn Store, to: &dyn Store) {
    fill(from);
    assert_eq!(copy(from, to), everything(from).len() as u64);
    assert_same(from, to);
    let open = |store: &dyn Store| -> Vec<_> {
        store.unsettled(9).unwrap().into_iter().map(|stored| stored.id).collect()
    };
    assert_eq!(open(from).len(), 1);
    assert_eq!(open(from), open(to));
    assert_eq!(copy(from, to), 0, "a second time");
    // It goes on as a ledger like any other.
    Author::of(to).append(to, &[(&stream("a"), result(open(to)[0])), (&stream("d"), note())]);
    assert!(open(to).is_empty());
    assert_eq!(copy(from, to), 0, "also behind the end of the copy");
}

fn goes_on_where_it_was(from: &dyn Store, to: &dyn Store) {
    fill(from);
    let all = everything(from);
    for end in [1, 4, 9, all.len()] {
        let before = everything(to).len();
        let appended = Copier::new(to).unwrap().copy(&all[..end]).unwrap();
        assert_eq!(appended as usize, end - before);
    }
    assert_same(from, to);
}

fn passes_over_what_is_there(from: &dyn Store, to: &dyn Store) {
    fill(from);
    let all = everything(from);
    let mut copier = Copier::new(to).unwrap();
    assert_eq!(copier.copy(&all[..7]).unwrap(), 7);
    assert_eq!(copier.copy(&all[2..5]).unwrap(), 0);
    assert_eq!(copier.copy(&all[5..]).unwrap() as usize, all.len() - 7);
    assert_same(from, to);
}

fn carries_due_times_over(from: &dyn Store, to: &dyn Store) {
    fill(from);
    copy(from, to);
    let due = || -> Vec<StreamName> { to.due(Micros(i64::MAX), 9).unwrap() };
    assert!(due().is_empty(), "nobody has said yet what is due");
    let (a, b) = (stream("a"), stream("b"));
    let mut copier = Copier::new(to).unwrap();
    copier.set_due(&[(a.clone(), Some(Micros(7))), (b.clone(), Some(Micros(5)))]).unwrap();
    assert_eq!(due(), [b.clone(), a.clone()]);
    copier.set_due(&[(b, None)]).unwrap();
    assert_eq!(due(), [a]);
    assert_same(from, to);
}

fn sees_a_fork(from: &dyn Store, to: &dyn Store) {
    let (a, b) = (stream("a"), stream("b"));
    let mut author = Author::of(from);
    author.append(from, &[(&a, note()), (&b, note()), (&a, note()), (&b, note())]);
    let all = everything(from);
    let mut copier = Copier::new(to).unwrap();
    copier.copy(&all[..2]).unwrap();
    Author::of_stream(to, &a).append(to, &[(&a, attempt())]);
    let refused = copier.copy(&all);
    let at_a =
        |error: &CopyError| matches!(error, CopyError::Fork { stream: s, seq: 1 } if *s == a);
    assert!(refused.as_ref().is_err_and(at_a), "{refused:?}");
    assert_eq!(everything(to).len(), 3, "nothing of that batch was appended");
}

fn sees_a_gap(from: &dyn Store, to: &dyn Store) {
    fill(from);
    let all = everything(from);
    let refused = Copier::new(to).unwrap().copy(&all[2..]);
    let is_gap = |error: &CopyError| matches!(error, CopyError::Gap { seq: 1, .. });
    assert!(refused.as_ref().is_err_and(is_gap), "{refused:?}");
    assert!(everything(to).is_empty());
}

fn refuses_what_is_altered(from: &dyn Store, to: &dyn Store) {
    fill(from);
    let all = everything(from);
    let alterations: [fn(&mut Stored); 6] = [
        |stored| stored.core[20] ^= 1,
        |stored| stored.hash.0[0] ^= 1,
        |stored| stored.chain_hash.0[0] ^= 1,
        |stored| stored.seq += 1,
        |stored| stored.stream = stream("z"),
        |stored| stored.id.0[0] ^= 1,
    ];
    for alter in alterations {
        let mut altered = all.clone();
        alter(&mut altered[5]);
        let named = (altered[5].stream.clone(), altered[5].seq);
        match Copier::new(to).unwrap().copy(&altered) {
            Err(CopyError::Altered { stream, seq }) => assert_eq!((stream, seq), named),
            other => panic!("{other:?}"),
        }
        assert!(everything(to).is_empty());
    }
    let foreign = Author::new(LedgerId([7; 16])).batch(&[(&stream("a"), note())]);
    let refused = Copier::new(to).unwrap().copy(&stored_of(&foreign));
    assert!(matches!(refused, Err(CopyError::Foreign { seq: 0, .. })), "{refused:?}");
}

fn leaves_taken_keys_alone(from: &dyn Store, to: &dyn Store) {
    let (a, b, own) = (stream("a"), stream("b"), stream("own"));
    let mut author = Author::of(from);
    // So that the others are later than what the target has of its own.
    author.append(from, &[(&stream("first"), note())]);
    author.append(from, &[(&a, note()), (&a, keyed(note(), key(1))), (&b, keyed(note(), key(2)))]);
    let first = Author::of(to).append(to, &[(&own, keyed(note(), key(1)))]);
    let mut copier = Copier::new(to).unwrap();
    let mut handed = everything(from).split_off(1);
    assert_eq!(copier.copy(&handed).unwrap(), 3);
    handed.extend(stored_of(
        &author.batch(&[(&a, keyed(note(), key(3))), (&b, keyed(note(), key(3)))]),
    ));
    assert_eq!(copier.copy(&handed).unwrap(), 2);
    let found = to.find_keys(&[key(1), key(2), key(3)]).unwrap();
    let found: Vec<_> = found.into_iter().map(|stored| stored.map(|stored| stored.id)).collect();
    assert_eq!(found, [Some(first[0]), Some(handed[2].id), Some(handed[3].id)]);
    for name in [&a, &b] {
        let wanted: Vec<_> = handed.iter().filter(|one| one.stream == *name).cloned().collect();
        assert_eq!(same(&to.read(name, 0, 9).unwrap()), same(&wanted), "the bytes still name it");
    }
    assert_eq!(copier.copy(&handed).unwrap(), 0);
}

fn keeps_the_order_of_a_log(from: &dyn Store, to: &dyn Store) {
    let (a, own) = (stream("a"), stream("own"));
    Author::of(from).append(from, &[(&a, note()), (&a, note())]);
    let all = everything(from);
    let mut ahead = Author::of(to);
    ahead.append(to, &[(&own, note())]);
    // At the same instant, which two receipts of one log of a shared store cannot have.
    let outcome = Copier::new(to).unwrap().copy(&all[..1]);
    let is_late = |outcome: &Result<u64, CopyError>, nth: u64| matches!(outcome, Err(CopyError::Late { stream, seq }) if *stream == a && *seq == nth);
    if to.is_shared() {
        assert!(is_late(&outcome, 0), "{outcome:?}");
        return;
    }
    assert_eq!(outcome.unwrap(), 1);
    ahead.catch_up(to, std::slice::from_ref(&own)).unwrap();
    ahead.append(to, &[(&own, note()), (&own, note())]);
    let outcome = Copier::new(to).unwrap().copy(&all);
    assert!(is_late(&outcome, 1), "what is there is no matter: {outcome:?}");
}

/// A batch as a store would give its receipts back.
pub fn stored_of(batch: &Batch) -> Vec<Stored> {
    let sealed = batch.entries.iter().map(|entry| &entry.sealed);
    let stored = (batch.before.size + 1..).zip(sealed).map(|(pos, sealed)| Stored {
        pos,
        stream: sealed.stream.clone(),
        seq: sealed.seq,
        id: sealed.id,
        core: sealed.core.to_vec(),
        hash: sealed.hash,
        chain_hash: sealed.chain_hash,
    });
    stored.collect()
}
