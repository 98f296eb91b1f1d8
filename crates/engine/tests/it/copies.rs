//! Copies into a store that fails and does not say what became of a batch.

use engine::copy::{Copier, CopyError};
use engine::ports::{Store, Stored};
use store::SqliteStore;
use types::Micros;

use testkit::store::author::{Author, everything, note, stream};
use testkit::store::copies::assert_same;

use crate::fault_store::{Fault, FaultStore, Reading};

/// Receipts that one batch holds, and some for a second one.
const RECEIPTS: usize = 600;

/// A ledger, and a store of the same name that fails as planned.
struct Ends {
    from: SqliteStore,
    to: FaultStore,
    all: Vec<Stored>,
}

fn ends() -> Ends {
    let from = SqliteStore::memory().unwrap();
    let (a, b) = (stream("a"), stream("b"));
    let mut author = Author::of(&from);
    for _ in 0..RECEIPTS / 2 {
        author.append(&from, &[(&a, note()), (&b, note())]);
    }
    let to = FaultStore::new(SqliteStore::memory_as(from.identity()).unwrap());
    let all = everything(&from);
    Ends { from, to, all }
}

#[test]
fn an_outcome_that_nobody_heard_is_learned() {
    for fault in [Fault::UnknownKept, Fault::UnknownLost, Fault::Conflict] {
        let Ends { from, to, all } = ends();
        to.plan(fault);
        let copied = Copier::new(&to).unwrap().copy(&all).unwrap();
        assert_eq!(copied as usize, RECEIPTS, "{fault:?}");
        assert!(to.plan_done());
        assert_same(&from, &to);
    }
}

#[test]
fn a_store_that_is_away_is_no_end() {
    let Ends { from, to, all } = ends();
    let mut copier = Copier::new(&to).unwrap();
    to.plan(Fault::Lost);
    let refused = copier.copy(&all);
    assert!(matches!(refused, Err(CopyError::Unavailable(_))), "{refused:?}");
    // Away before it says what became of the batch, which was kept.
    to.plan(Fault::UnknownKept);
    to.fail(Some(Reading::Head));
    let refused = copier.copy(&all);
    assert!(matches!(refused, Err(CopyError::Unavailable(_))), "{refused:?}");
    to.fail(Some(Reading::Stream));
    let refused = copier.copy(&all);
    assert!(matches!(refused, Err(CopyError::Unavailable(_))), "{refused:?}");
    to.fail(None);
    let size = to.size();
    assert!(0 < size && size < RECEIPTS as u64, "one of two batches: {size}");
    assert_eq!(copier.copy(&all).unwrap(), RECEIPTS as u64 - size);
    assert_same(&from, &to);
}

#[test]
fn what_makes_no_sense_comes_to_an_end() {
    let Ends { to, all, .. } = ends();
    let mut copier = Copier::new(&to).unwrap();
    for _ in 0..5 {
        to.plan(Fault::Conflict);
    }
    let refused = copier.copy(&all);
    assert!(matches!(refused, Err(CopyError::Refused)), "{refused:?}");
    assert!(to.plan_done());
    to.plan(Fault::UnknownLost);
    copier.set_due(&[(stream("a"), Some(Micros(7)))]).unwrap();
    assert_eq!(to.due(Micros(7), 9).unwrap(), [stream("a")]);
    to.plan(Fault::Fatal);
    let refused = copier.copy(&all);
    assert!(matches!(refused, Err(CopyError::Fatal(_))), "{refused:?}");
    to.corrupt(Reading::Head);
    assert!(matches!(Copier::new(&to).err(), Some(CopyError::Fatal(_))));
}
