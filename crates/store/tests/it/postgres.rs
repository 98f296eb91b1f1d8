//! The backend on PostgreSQL, on a server of the tests' own.

mod basics;
mod leases;
mod ledgers;
mod load;
mod outcomes;
mod proxy;
mod tls;
mod views;

use std::sync::Arc;

use engine::ports::Store;
use ledger::{Report, Verifier};
use store::postgres::{Options, PgReader, PgStore};
use testkit::postgres::Cluster;

fn options(url: String) -> Options {
    Options { url }
}

fn connect(cluster: &Cluster, database: &str) -> PgStore {
    PgStore::connect(&options(cluster.url(database))).unwrap()
}

fn writers(cluster: &Cluster, count: usize) -> (String, Vec<Box<dyn Store>>) {
    let database = cluster.database().unwrap();
    let writers = (0..count).map(|_| Box::new(connect(cluster, &database)) as Box<dyn Store>);
    let writers = writers.collect();
    (database, writers)
}

/// Verifies a whole ledger; gives the report with what is wrong with logs and fence.
fn verified(cluster: &Cluster, database: &str) -> (Report, Vec<ledger::verify::Finding>) {
    let mut reader = PgReader::connect(&options(cluster.url(database))).unwrap();
    let mut verifier = Verifier::new(reader.ledger(), None);
    let findings = reader
        .for_each(None, &mut |row| {
            verifier.push(row);
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    let report = verifier.finish();
    if findings.is_empty() {
        assert_eq!(report.receipts, reader.size());
    }
    (report, findings)
}

/// Checks that a ledger is intact; gives its receipts.
fn intact(cluster: &Cluster, database: &str) -> u64 {
    let (report, findings) = verified(cluster, database);
    assert!(report.intact(), "{:?}", report.findings);
    assert!(findings.is_empty(), "{findings:?}");
    report.receipts
}

/// The server of this process's tests; the caller skips without one.
fn cluster() -> Option<Arc<Cluster>> {
    Cluster::shared().unwrap()
}

const MISSING: &str = "PostgreSQL is not installed";
