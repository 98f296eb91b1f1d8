//! A ledger on disk, for the author that all backends share.

use std::path::Path;
use std::time::{Duration, Instant};

use ledger::Verifier;
use store::{OpenError, Options, Reader, SqliteStore, Synchronous};
pub(crate) use testkit::store::author::*;

/// How long a lock may outlive whoever took it: see [`open`].
const INHERITED: Duration = Duration::from_secs(10);

/// Opens a ledger that nobody else has open. A process that another test is starting has inherited
/// every lock of this one until it runs its own program.
pub(crate) fn open(dir: &Path) -> SqliteStore {
    let deadline = Instant::now() + INHERITED;
    loop {
        match SqliteStore::open(dir, &Options { synchronous: Synchronous::Full }) {
            Err(OpenError::Locked) if Instant::now() < deadline => {
                // Between two tries, under the deadline above: the lock cannot be waited for.
                std::thread::sleep(Duration::from_millis(1));
            }
            opened => return opened.unwrap(),
        }
    }
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
