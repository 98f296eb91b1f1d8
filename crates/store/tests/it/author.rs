//! A ledger on disk, for the author that all backends share.

use std::path::Path;

use ledger::Verifier;
use store::{Options, Reader, SqliteStore, Synchronous};
pub(crate) use testkit::store::author::*;

pub(crate) fn open(dir: &Path) -> SqliteStore {
    SqliteStore::open(dir, &Options { synchronous: Synchronous::Full }).unwrap()
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
