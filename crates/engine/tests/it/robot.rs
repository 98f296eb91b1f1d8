//! An actuator that does as it is told and keeps book.
//!
//! Owns: the script, the calls that were made, and whether two of one tenant ever overlapped.

use std::collections::{HashSet, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use engine::actions::{ActionError, ActionFuture, ActionSpec, Actuator, Call, EffectClass};
use tokio::sync::Semaphore;
use types::{ReceiptId, StreamName};

/// What one call does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step {
    Done,
    Retry,
    Refuse,
    Hang,
    Panic,
    /// Done once [`Robot::release`] lets it.
    Wait,
}

/// Cheap to clone; all clones share one book.
#[derive(Clone)]
pub(crate) struct Robot(Arc<Book>);

struct Book {
    spec: ActionSpec,
    script: Mutex<VecDeque<Step>>,
    otherwise: Mutex<Step>,
    calls: Mutex<Vec<Call>>,
    running: Mutex<HashSet<StreamName>>,
    overlaps: AtomicUsize,
    released: Semaphore,
}

impl Robot {
    pub(crate) fn new(name: &'static str, idempotent: bool, otherwise: Step) -> Robot {
        let class = EffectClass::Reversible;
        Robot(Arc::new(Book {
            spec: ActionSpec { name, class, idempotent, args: &[] },
            script: Mutex::default(),
            otherwise: Mutex::new(otherwise),
            calls: Mutex::default(),
            running: Mutex::default(),
            overlaps: AtomicUsize::new(0),
            released: Semaphore::new(0),
        }))
    }

    /// The next calls do this, one each, before all later ones do as they were told at first.
    pub(crate) fn script(&self, steps: impl IntoIterator<Item = Step>) {
        self.0.script.lock().unwrap().extend(steps);
    }

    pub(crate) fn otherwise(&self, step: Step) {
        *self.0.otherwise.lock().unwrap() = step;
    }

    /// Lets so many waiting calls end.
    pub(crate) fn release(&self, calls: usize) {
        self.0.released.add_permits(calls);
    }

    /// The attempts of all calls, in order.
    pub(crate) fn attempts(&self) -> Vec<ReceiptId> {
        self.0.calls.lock().unwrap().iter().map(|call| call.attempt).collect()
    }

    pub(crate) fn calls(&self) -> usize {
        self.0.calls.lock().unwrap().len()
    }

    /// How often a call began while another of the same tenant ran.
    pub(crate) fn overlaps(&self) -> usize {
        self.0.overlaps.load(Ordering::SeqCst)
    }
}

/// One running call.
struct Shift(Robot, StreamName);

impl Drop for Shift {
    fn drop(&mut self) {
        self.0.0.running.lock().unwrap().remove(&self.1);
    }
}

impl Actuator for Robot {
    fn spec(&self) -> ActionSpec {
        self.0.spec
    }

    fn run(&self, call: Call) -> ActionFuture {
        let robot = self.clone();
        Box::pin(async move {
            let book = &robot.0;
            if !book.running.lock().unwrap().insert(call.stream.clone()) {
                book.overlaps.fetch_add(1, Ordering::SeqCst);
            }
            let _shift = Shift(robot.clone(), call.stream.clone());
            let scripted = book.script.lock().unwrap().pop_front();
            let step = scripted.unwrap_or(*book.otherwise.lock().unwrap());
            book.calls.lock().unwrap().push(call);
            match step {
                Step::Done => Ok(()),
                Step::Retry => Err(ActionError::Retryable("planned".into())),
                Step::Refuse => Err(ActionError::Refused("planned".into())),
                Step::Hang => std::future::pending().await,
                Step::Panic => panic!("planned"),
                Step::Wait => {
                    book.released.acquire().await.unwrap().forget();
                    Ok(())
                }
            }
        })
    }
}
