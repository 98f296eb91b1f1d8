//! Copies from Firestore into Firestore, and a ledger under a given name.

use std::cell::Cell;

use engine::ports::Store;
use gcp::Error;
use gcp::firestore::FirestoreStore;
use gcp::firestore::reader::Reader;
use testkit::firestore::Emulator;
use testkit::skip;
use testkit::store::author::{Author, note, stream};
use testkit::store::copies;

#[test]
fn a_copy_keeps_what_every_copy_must() {
    let Some(emulator) = Emulator::start().unwrap() else {
        skip!("the Firestore emulator is not installed");
    };
    let made = Cell::new(0);
    let options = || {
        made.set(made.get() + 1);
        crate::options(emulator.address(), &format!("copies-{}", made.get()))
    };
    copies::suite(&|| Box::new(FirestoreStore::open(&options()).unwrap()), &|identity| {
        Box::new(FirestoreStore::open_as(&options(), identity).unwrap())
    });
}

#[test]
fn a_ledger_is_opened_under_its_name_and_no_other() {
    let Some(emulator) = Emulator::start().unwrap() else {
        skip!("the Firestore emulator is not installed");
    };
    let [mine, other] = ["mine", "other"].map(|name| crate::open(emulator.address(), name));
    let identity = mine.identity();
    let options = crate::options(emulator.address(), "copy");
    let copy = FirestoreStore::open_as(&options, identity).unwrap();
    assert!(copy.identity() == identity);
    Author::of(&copy).append(&copy, &[(&stream("a"), note())]);
    let reader = || Reader::open(&options).unwrap();
    assert!(reader().is_written().unwrap() && reader().identity() == identity);
    copy.close();
    assert!(!reader().is_written().unwrap());
    assert!(FirestoreStore::open(&options).unwrap().identity() == identity);
    let refused = FirestoreStore::open_as(&options, other.identity()).err();
    assert!(matches!(refused, Some(Error::OtherLedger)), "{refused:?}");
}
