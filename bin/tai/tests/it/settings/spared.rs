//! The looks at settings of a Firestore that refuses writes for their number, on one emulator.
//!
//! Owns: as the looks beside it. Refuses to know: what a refused write costs its caller.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use serde_json::json;
use testkit::firestore::Emulator;
use testkit::firestore::proxy::{Act, Proxy};
use testkit::tai::Tai;

use crate::callers::*;
use crate::support::*;

/// A time that no test waits out.
const NEVER_MS: &str = "60000";

/// What stands between a service and the emulator: it counts the commits with receipts that arrive,
/// and refuses the next one where it is told to.
struct Between {
    proxy: Proxy,
    commits: Arc<AtomicUsize>,
    refuses: Arc<AtomicBool>,
}

impl Between {
    fn start(emulator: &Emulator) -> Between {
        let (commits, refuses) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, told) = (Arc::clone(&commits), Arc::clone(&refuses));
        let proxy = Proxy::start(emulator.address(), move |call| {
            // The lease is renewed by commits of its own.
            if !call.writes_into("receipts") {
                return Act::Pass;
            }
            if told.swap(false, Ordering::AcqRel) {
                return Act::Refuse;
            }
            counted.fetch_add(1, Ordering::AcqRel);
            Act::Pass
        });
        Between { proxy: proxy.unwrap(), commits, refuses }
    }

    fn serve(&self, dir: &std::path::Path, project: &str, more: &[(&str, &str)]) -> Tai {
        let address = self.proxy.address().to_string();
        let own = [
            ("RECEIPT_LEDGER_BACKEND", "firestore"),
            ("GCP_PROJECT_ID", project),
            ("PUBSUB_ENABLED", "false"),
            ("FIRESTORE_EMULATOR_HOST", address.as_str()),
        ];
        start(dir, &[&own, more].concat())
    }

    fn commits(&self) -> usize {
        self.commits.load(Ordering::Acquire)
    }

    /// The next commit is refused, as by a project that writes more than it may.
    fn refuse_once(&self) {
        self.refuses.store(true, Ordering::Release);
    }
}

#[test]
fn a_store_that_is_spared_gets_the_batches_that_are_set() {
    let Some(emulator) = Emulator::start().unwrap() else {
        testkit::skip!("the Firestore emulator is not installed");
    };
    let between = Between::start(&emulator);
    assert_eq!(commits_of_eight(&between, "1"), 8);
    assert_eq!(commits_of_eight(&between, "8"), 1);
    assert_eq!(status_of_refused(&between, "100"), 200);
    assert_eq!(status_of_refused(&between, NEVER_MS), 504);
}

/// How many commits eight receipts become with this FIRESTORE_BATCH_SIZE, while the store is spared
/// and its longest wait is none that passes.
fn commits_of_eight(between: &Between, size: &str) -> usize {
    const RECEIPTS: usize = 8;
    let (_room, dir) = room();
    let project = format!("batches-of-{size}");
    let envs = [("FIRESTORE_BATCH_SIZE", size), ("FIRESTORE_BATCH_TIMEOUT_MS", "100")];
    let mut tai = between.serve(&dir, &project, &envs);
    let address = tai.address();
    let mut operator = Caller::local(address);
    // Known before: what registers a tenant is not counted.
    assert_eq!(operator.quote("acme").status, 200);
    between.refuse_once();
    assert_eq!(operator.quote("acme").status, 200, "it is offered again");
    let longer = json!({"value": NEVER_MS});
    let longer = operator.put("/admin/settings/FIRESTORE_BATCH_TIMEOUT_MS", &longer);
    assert_eq!(longer.status, 200, "{}", text(&longer));
    let before = between.commits();
    if size == "1" {
        // One after the other, each is enough for a commit.
        for _ in 0..RECEIPTS {
            assert_eq!(operator.quote("acme").status, 200);
        }
    } else {
        let statuses: Vec<u16> = thread::scope(|scope| {
            let quote = || scope.spawn(move || Caller::local(address).quote("acme").status);
            let mut asked: Vec<_> = (1..RECEIPTS).map(|_| quote()).collect();
            until("all but one wait", || (in_work(address) == RECEIPTS - 1).then_some(()));
            assert_eq!(between.commits(), before, "too few for a commit");
            asked.push(quote());
            asked.into_iter().map(|asked| asked.join().unwrap()).collect()
        });
        assert_eq!(statuses, [200; RECEIPTS]);
    }
    let commits = between.commits() - before;
    // Its last words would wait for seven more.
    tai.kill().unwrap();
    commits
}

/// What a caller is told whose commit was refused once, with this FIRESTORE_BATCH_TIMEOUT_MS and
/// some seconds of patience.
fn status_of_refused(between: &Between, wait_ms: &str) -> u16 {
    let (_room, dir) = room();
    let project = format!("waits-of-{wait_ms}");
    let envs = [("FIRESTORE_BATCH_TIMEOUT_MS", wait_ms), ("REQUEST_TIMEOUT_MS", "5000")];
    let mut tai = between.serve(&dir, &project, &envs);
    let mut caller = Caller::local(tai.address());
    assert_eq!(caller.quote("acme").status, 200);
    between.refuse_once();
    let status = caller.quote("acme").status;
    // What the store has not taken is not waited for.
    tai.kill().unwrap();
    status
}
