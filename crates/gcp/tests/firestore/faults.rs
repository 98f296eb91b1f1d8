//! Commits whose outcome nobody tells.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use engine::ports::{AppendError, Store as _};
use gcp::firestore::FirestoreStore;
use testkit::firestore::Emulator;
use testkit::firestore::proxy::{Act, Proxy};
use testkit::skip;
use testkit::store::StopOnDrop;
use testkit::store::author::{Author, attempt, everything, note, stream};
use testkit::store::shared::{Load, Writers, run};

use crate::{open, options, verified};

const WRITERS: usize = 4;
const EACH: usize = 60;

/// Commits before the service seems to be gone, and how long that lasts: longer than a store tries.
const STORM_AFTER: u64 = 80;
const STORM: Duration = Duration::from_secs(12);

/// One of ten commits has no answer: a third of these got lost, a third were kept, and a third come
/// later. In the middle no call has one for a while, and some commits are kept all the same.
#[test]
fn a_tenth_of_commits_without_an_answer_makes_no_duplicate() {
    let Some(emulator) = Emulator::start().unwrap() else {
        skip!("the Firestore emulator is not installed");
    };
    let seen = Arc::new([const { AtomicU64::new(0) }; 4]);
    let storm = Arc::new(AtomicBool::new(false));
    let (counted, stormy) = (Arc::clone(&seen), Arc::clone(&storm));
    let proxy = Proxy::start(emulator.address(), move |call| {
        let storm = stormy.load(Ordering::Acquire);
        if !call.is_commit() {
            return if storm { Act::LoseRequest } else { Act::Pass };
        }
        let nth = counted[0].fetch_add(1, Ordering::Relaxed);
        let (act, count) = match if storm { nth % 3 * 10 + 9 } else { nth % 30 } {
            9 => (Act::LoseRequest, 1),
            19 => (Act::LoseAnswer, 2),
            29 => (Act::Keep, 3),
            _ => return Act::Pass,
        };
        counted[count].fetch_add(1, Ordering::Relaxed);
        act
    })
    .unwrap();
    let writers: Writers =
        (0..WRITERS).map(|_| Box::new(open(proxy.address(), "faults")) as _).collect();
    let done = AtomicBool::new(false);
    let tally = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut began = None;
            // Late copies arrive in between, most of them long after their commit was settled.
            while !done.load(Ordering::Acquire) {
                if seen[0].load(Ordering::Relaxed) > STORM_AFTER {
                    let began: &mut Instant = began.get_or_insert_with(Instant::now);
                    storm.store(began.elapsed() < STORM, Ordering::Release);
                }
                proxy.release().unwrap();
                // How late a late copy is; nothing is waited for.
                std::thread::sleep(Duration::from_millis(500));
            }
            storm.store(false, Ordering::Release);
        });
        let _stopping = StopOnDrop(&done);
        run(&writers, Load { each: EACH, batch: 2, others: 2 })
    });
    proxy.release().unwrap();
    let seen = [0, 1, 2, 3].map(|count| seen[count].load(Ordering::Relaxed));
    println!("commits, lost requests, lost answers, late requests: {seen:?}; {tally:?}");
    assert!(seen.iter().all(|count| *count > 2), "{seen:?}");
    assert!(tally.unknown + tally.unavailable > 0, "it was never away for long: {tally:?}");
    assert_eq!(tally.receipts, WRITERS * EACH);
    let store = open(emulator.address(), "faults");
    assert_eq!(everything(&store).len(), tally.receipts, "one receipt for each key");
    let report = verified(emulator.address(), "faults");
    assert!(report.intact(), "{report:?}");
}

/// The service goes away in the middle of a commit, and comes back.
#[test]
fn a_commit_in_doubt_is_settled_before_the_next_one() {
    let Some(emulator) = Emulator::start().unwrap() else {
        skip!("the Firestore emulator is not installed");
    };
    const UP: u64 = 0;
    const KEEP: u64 = 1;
    const LOSE_ANSWER: u64 = 2;
    const DOWN: u64 = 3;
    let mode = Arc::new(AtomicU64::new(UP));
    let asked = Arc::clone(&mode);
    let proxy = Proxy::start(emulator.address(), move |_| match asked.load(Ordering::Acquire) {
        UP => Act::Pass,
        KEEP => Act::Keep,
        LOSE_ANSWER => {
            asked.store(DOWN, Ordering::Release);
            Act::LoseAnswer
        }
        _ => Act::LoseRequest,
    })
    .unwrap();
    let (a, b) = (stream("a"), stream("b"));
    let store = open(proxy.address(), "doubt");
    let mut author = Author::of(&store);
    author.append(&store, &[(&a, note())]);

    // Failed, and on its way.
    let before = author.clone();
    mode.store(KEEP, Ordering::Release);
    let began = Instant::now();
    let outcome = store.append(&author.batch(&[(&a, attempt()), (&b, note())]));
    assert!(matches!(outcome, Err(AppendError::Unknown(_))), "{outcome:?}");
    assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
    // As long as nothing is certain nothing is written.
    let outcome = store.append(&before.clone().batch(&[(&b, note())]));
    assert!(matches!(outcome, Err(AppendError::Unavailable(_))), "{outcome:?}");
    assert!(store.head().is_err());
    mode.store(UP, Ordering::Release);
    let mut author = before;
    assert_eq!(store.head().unwrap(), author.head, "it is settled by asking");
    author.append(&store, &[(&b, note())]);
    let late = proxy.release().unwrap();
    assert!(late.len() > 1 && late.iter().all(|status| *status == 409), "{late:?}");
    assert_eq!(everything(&store).len(), 2);
    assert!(store.unsettled(10).unwrap().is_empty());
    assert_eq!(store.head().unwrap(), author.head);

    // Failed, kept.
    let before = author.clone();
    mode.store(LOSE_ANSWER, Ordering::Release);
    let outcome = store.append(&author.batch(&[(&a, note()), (&b, note())]));
    assert!(matches!(outcome, Err(AppendError::Unknown(_))), "{outcome:?}");
    mode.store(UP, Ordering::Release);
    let mut before = before;
    let outcome = store.append(&before.batch(&[(&b, note())]));
    assert!(matches!(outcome, Err(AppendError::Conflict { .. })), "{outcome:?}");
    assert_eq!(store.head().unwrap(), author.head, "it had taken effect");
    author.append(&store, &[(&b, note())]);
    assert_eq!(everything(&store).len(), 5);

    let report = verified(emulator.address(), "doubt");
    assert!(report.intact(), "{report:?}");
}

#[test]
fn a_service_that_is_gone_is_unavailable_in_time() {
    let Some(mut emulator) = Emulator::start().unwrap() else {
        skip!("the Firestore emulator is not installed");
    };
    let a = stream("a");
    let store = open(emulator.address(), "gone");
    let mut author = Author::of(&store);
    author.append(&store, &[(&a, note())]);
    emulator.kill();
    let batch = author.batch(&[(&a, note())]);
    let in_time = Duration::from_secs(15);
    for _ in 0..2 {
        let began = Instant::now();
        let outcome = store.append(&batch);
        assert!(matches!(outcome, Err(AppendError::Unavailable(_))), "{outcome:?}");
        assert!(store.read(&a, 0, 10).is_err() && store.find_keys(&[[1; 16]]).is_err());
        println!("append and two reads without a service: {:?}", began.elapsed());
        assert!(began.elapsed() < 3 * in_time);
    }
    // Upkeep does not fail; it has nothing to say to.
    store.maintain();
    store.close();
    assert!(FirestoreStore::open(&options(emulator.address(), "gone")).is_err());
}
