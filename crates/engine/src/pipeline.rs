//! A pipeline: one queue, one decider, one writer and the answers, over one store.
//!
//! Owns: how the four are wired, and how a command is handed in. Refuses to know: whether its store
//! is the ledger or stands in for one.

use std::sync::Arc;

use arc_swap::ArcSwap;
use crossbeam_channel as channel;
use governors::Rules;
use telemetry::metrics::Metrics;
use tokio::sync::{oneshot, watch};
use types::{Clock, Reason};

use crate::access::Access;
use crate::act::Options;
use crate::actions::{InFlight, Pool};
use crate::ai::Settlements;
use crate::cache::States;
use crate::commit::{OpenGroup, Progress, Refused, Reply, Submission, Work};
use crate::decider::Duty;
use crate::ports::Store;
use crate::supervise::{Supervisor, Worker};
use crate::{answers, decider, writer};

/// Durable groups that wait to be answered.
const ANSWERS_MAX: usize = 8;

/// What all pipelines of an engine share.
#[derive(Clone)]
pub(crate) struct Common {
    pub(crate) rules: Arc<Rules>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) options: Arc<ArcSwap<Options>>,
    pub(crate) pool: Pool,
    pub(crate) in_flight: Arc<InFlight>,
    pub(crate) settlements: Arc<Settlements>,
    pub(crate) access: Arc<Access>,
    pub(crate) live: watch::Sender<u64>,
    /// Counts what is to be told.
    pub(crate) told: watch::Sender<u64>,
}

/// The way in.
pub(crate) struct Pipeline {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) states: States,
    pub(crate) progress: Arc<Progress>,
    queue: channel::Sender<Submission>,
    options: Arc<ArcSwap<Options>>,
    /// Subsystems without which no command is ever answered.
    needed: &'static [&'static str],
}

/// What has to run.
pub(crate) struct Workers {
    /// `receipt_writer` and `receipt_answers`.
    pub(crate) ledger: Vec<Worker>,
    /// `governor_decider`.
    pub(crate) decider: Worker,
}

impl Pipeline {
    pub(crate) fn new(
        duty: Duty,
        store: Arc<dyn Store>,
        common: &Common,
        needed: &'static [&'static str],
    ) -> (Pipeline, Workers) {
        #[expect(
            clippy::disallowed_methods,
            reason = "the limit is a live setting: see `Pipeline::turn`"
        )]
        let (queue, queued) = channel::unbounded();
        let (durable, answered) = channel::bounded(ANSWERS_MAX);
        let states = States::new(common.options.load().states_max);
        let open = Arc::new(OpenGroup::new(states.clone()));
        let progress = Arc::new(Progress::default());
        let Common {
            rules,
            clock,
            metrics,
            options,
            pool,
            in_flight,
            settlements,
            access,
            live,
            told,
        } = common.clone();
        let answers = answers::Shared { duty, metrics: Arc::clone(&metrics), durable: answered };
        let written = writer::Shared {
            duty,
            store: Arc::clone(&store),
            metrics: Arc::clone(&metrics),
            progress: Arc::clone(&progress),
            pool,
            access,
            live,
            told,
            open: Arc::clone(&open),
            options: Arc::clone(&options),
            durable,
        };
        let decided = decider::Shared {
            duty,
            store: Arc::clone(&store),
            states: states.clone(),
            rules,
            clock,
            metrics,
            progress: Arc::clone(&progress),
            in_flight,
            settlements,
            queue: queued,
            open,
            options: Arc::clone(&options),
        };
        let workers = Workers {
            ledger: vec![
                Worker::thread("receipt_writer", move |stop| writer::run(&written, &stop)),
                Worker::thread("receipt_answers", move |stop| answers::run(&answers, &stop)),
            ],
            decider: Worker::thread("governor_decider", move |stop| decider::run(&decided, &stop)),
        };
        (Pipeline { store, states, progress, queue, options, needed }, workers)
    }

    /// Commands that wait for the decider.
    pub(crate) fn depth(&self) -> usize {
        self.queue.len()
    }

    /// Hands one command in and waits for its answer.
    pub(crate) async fn turn(&self, supervisor: &Supervisor, work: Work) -> Result<Reply, Refused> {
        let lost = |down: &Vec<&str>| self.needed.iter().any(|name| down.contains(name));
        let mut down = supervisor.given_up();
        if lost(&down.borrow()) {
            return Err(Refused::new(Reason::GovernorNotReady, "a part is down"));
        }
        let (reply, answer) = oneshot::channel();
        // INV-13: a full queue is an answer. Callers that look at once pass it by their number,
        // which the front door bounds.
        let room = self.queue.len() < self.options.load().queue_max;
        let sent = room.then(|| self.queue.send(Submission { work, reply }).ok()).flatten();
        sent.ok_or_else(|| {
            let mut refused =
                Refused::new(Reason::ServiceUnavailable, "too many decisions are waiting");
            refused.retry_after_s = Some(1);
            refused
        })?;
        tokio::select! {
            biased;
            answer = answer => answer.map_err(|_| {
                Refused::new(Reason::Timeout, "a part was restarted, the outcome is unknown")
            }),
            _ = down.wait_for(lost) => {
                Err(Refused::new(Reason::GovernorNotReady, "a part is down, the outcome is unknown"))
            }
        }
    }
}
