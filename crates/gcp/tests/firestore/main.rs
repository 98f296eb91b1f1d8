//! The Firestore store against Google's emulator.
//!
//! With `FIRESTORE_APPENDS=500` each of the eight writers of
//! `eight_writers_make_one_chain_of_each_stream` has 500 receipts acknowledged and not 60: about a
//! minute on the emulator.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod conformance;
mod copies;
mod damage;
mod faults;
mod sharing;
mod writers;

use std::net::SocketAddr;
use std::ops::ControlFlow;

use gcp::firestore::reader::Reader;
use gcp::firestore::{FirestoreStore, Options};
use ledger::{Report, Verifier};

/// A database of its own for each name.
fn options(address: SocketAddr, project: &str) -> Options {
    Options {
        project: project.to_owned(),
        database: "(default)".to_owned(),
        emulator: Some(address.to_string()),
    }
}

fn open(address: SocketAddr, project: &str) -> FirestoreStore {
    FirestoreStore::open(&options(address, project)).unwrap()
}

/// Verifies a whole ledger, with the writers' logs.
fn verified(address: SocketAddr, project: &str) -> Report {
    let reader = Reader::open(&options(address, project)).unwrap();
    // The order of several writers has no end that grows, so no head record. Each log has one.
    let mut verifier = Verifier::new(reader.ledger(), None);
    let beside = reader.for_each(None, &mut |row| {
        verifier.push(row);
        ControlFlow::Continue(())
    });
    let mut report = verifier.finish();
    report.add(beside.unwrap());
    report
}
