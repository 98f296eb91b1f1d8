//! The suites of every backend, and of those that several processes write.

use std::cell::Cell;

use testkit::firestore::Emulator;
use testkit::skip;
use testkit::store::{conformance, shared};

#[test]
fn it_conforms() {
    let Some(emulator) = Emulator::start().unwrap() else {
        skip!("the Firestore emulator is not installed");
    };
    let made = Cell::new(0);
    let project = || {
        made.set(made.get() + 1);
        format!("suite-{}", made.get())
    };
    conformance::suite(&|| Box::new(crate::open(emulator.address(), &project())));
    shared::suite(&|count| {
        let project = project();
        (0..count).map(|_| Box::new(crate::open(emulator.address(), &project)) as _).collect()
    });
}
