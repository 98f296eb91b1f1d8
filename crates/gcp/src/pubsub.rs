//! Pub/Sub, pulled.
//!
//! Owns: when a message is acknowledged (after the intake answered that it is done with it), how
//! long one is held that cannot be taken now, connecting again, pausing, and giving dead letters
//! to the intake once more. Refuses to know: what a message says, and what is decided about it.
//!
//! ```text
//!   subscription ──feed──▶ at most max_messages in hand ──take──▶ intake
//!        ▲                     │ Later: held, asked again           │
//!        └──── ack, or back ───┴────────────────────────────────────┘
//! ```

#[cfg(test)]
mod fake;
mod google;
mod hand;
mod pull;
mod replay;
mod source;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use bytes::Bytes;
use engine::supervise::Worker;
use futures_util::future::BoxFuture;
use telemetry::metrics::Metrics;
use tokio::sync::{Semaphore, watch};
use types::{Clock, Micros};

use google::Google;
use hand::Hand;
pub use replay::Replay;
use source::Source;

/// Which subscriptions, and how much at once.
#[derive(Debug, Clone)]
pub struct Options {
    /// The project's id.
    pub project: String,
    /// The subscription to pull, without its project.
    pub subscription: String,
    /// The subscription that holds the dead letters, without its project.
    pub dead_letter_subscription: String,
    /// The topic that the subscription's dead-letter policy should name, without its project.
    pub dead_letter_topic: String,
    /// Messages in hand at once, at least one.
    pub max_messages: usize,
    /// `host:port` of an emulator, which is spoken to without TLS and without credentials.
    pub emulator: Option<String>,
}

/// One delivered message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// The server's id, the same for every delivery; a dead letter's has `dead-letter:` before it.
    pub id: String,
    /// What was published.
    pub data: Bytes,
    /// When the server took it.
    pub publish_time: Option<Micros>,
    /// How often it was delivered, this time included, where the subscription counts it.
    pub delivery_attempt: Option<u32>,
    /// What the publisher said about it, and Pub/Sub about a dead letter.
    pub attributes: BTreeMap<String, String>,
}

/// What the intake says of one message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// Its receipt is durable, or there is nothing to decide: it is acknowledged.
    Done,
    /// It cannot be decoded: it is given back until it is dead-lettered.
    Poison,
    /// Not now, as the store is away or the queue is full: it is held and asked about again.
    Later,
}

/// Who decides about messages.
pub trait Intake: Send + Sync + 'static {
    /// Takes one message in. [`Taken::Done`] must be said only once a loss of power cannot undo
    /// it. The same message may come again, also at the same time.
    fn take(&self, message: Message) -> BoxFuture<'_, Taken>;
}

/// How the intake stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// `active`, `paused`, `connecting` or `disconnected`.
    pub state: &'static str,
    /// Messages in hand.
    pub outstanding: usize,
    /// Seconds since the oldest message in hand was published; 0 without one.
    pub oldest_unacked_s: u64,
    /// Messages taken from the subscription since the start of the process.
    pub received: u64,
    /// Of these, acknowledged.
    pub acked: u64,
    /// Of these, given back.
    pub nacked: u64,
    /// Dead letters that a replay has acknowledged since the start of the process.
    pub dead_letters_replayed: u64,
}

const CONNECTING: u8 = 0;
const ACTIVE: u8 = 1;
const DISCONNECTED: u8 = 2;

/// The intake from one subscription, and from that of its dead letters.
pub struct Subscriber {
    options: Options,
    source: Box<dyn Source>,
    intake: Arc<dyn Intake>,
    metrics: Arc<Metrics>,
    clock: Arc<dyn Clock>,
    wanted: watch::Sender<bool>,
    phase: AtomicU8,
    hand: Arc<Hand>,
    /// One for each message that may be in hand.
    places: Arc<Semaphore>,
    /// For one replay at a time.
    replaying: Semaphore,
}

impl Subscriber {
    /// An intake that pulls once its worker runs.
    #[must_use]
    pub fn new(
        options: Options,
        intake: Arc<dyn Intake>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Subscriber {
        let source = Box::new(Google::new(&options));
        Subscriber::with_source(options, source, intake, metrics, clock)
    }

    fn with_source(
        mut options: Options,
        source: Box<dyn Source>,
        intake: Arc<dyn Intake>,
        metrics: Arc<Metrics>,
        clock: Arc<dyn Clock>,
    ) -> Subscriber {
        options.max_messages = options.max_messages.clamp(1, Semaphore::MAX_PERMITS);
        Subscriber {
            places: Arc::new(Semaphore::new(options.max_messages)),
            options,
            source,
            intake,
            hand: Arc::new(Hand::new(Arc::clone(&metrics))),
            metrics,
            clock,
            wanted: watch::Sender::new(true),
            phase: AtomicU8::new(CONNECTING),
            replaying: Semaphore::new(1),
        }
    }

    /// The only worker of the subsystem `gcp_pubsub`.
    #[must_use]
    pub fn worker(self: &Arc<Self>) -> Worker {
        let subscriber = Arc::clone(self);
        Worker::task("pubsub_pull", move |stop| Arc::clone(&subscriber).run(stop))
    }

    /// Stops pulling; what is in hand is finished.
    pub fn pause(&self) {
        self.want(false);
    }

    /// Pulls again after a pause.
    pub fn resume(&self) {
        self.want(true);
    }

    fn want(&self, wanted: bool) {
        let changed = self.wanted.send_if_modified(|was| std::mem::replace(was, wanted) != wanted);
        if changed {
            let subscription = &*self.options.subscription;
            if wanted {
                tracing::info!(event = "pubsub_resumed", subscription, "pulling is resumed");
            } else {
                tracing::info!(event = "pubsub_paused", subscription, "pulling is paused");
            }
        }
    }

    /// How it stands.
    #[must_use]
    pub fn status(&self) -> Status {
        let state = match self.phase.load(Ordering::Acquire) {
            _ if !*self.wanted.borrow() => "paused",
            CONNECTING => "connecting",
            ACTIVE => "active",
            _ => "disconnected",
        };
        let counted = |result| self.metrics.pubsub_messages.with([result]).get();
        Status {
            state,
            outstanding: self.hand.outstanding(),
            oldest_unacked_s: self.hand.oldest_s(self.clock.now()),
            received: self.hand.taken(),
            acked: counted("acked"),
            nacked: counted("nacked"),
            dead_letters_replayed: self.metrics.pubsub_dead_letters_replayed.get(),
        }
    }
}
