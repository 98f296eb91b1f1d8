//! A subscription and an intake that a test plays by hand.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::supervise::Supervisor;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt as _, StreamExt as _, stream};
use telemetry::metrics::Metrics;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use types::{Clock, Micros};

use super::source::{DeadLetters, Delivery, Link, Source};
use super::{Intake, Message, Options, Subscriber, Taken};
use crate::Error;

/// What all fakes publish at, and what the clock shows: a minute later.
const PUBLISHED: Micros = Micros::from_secs(1_700_000_000);
const NOW: Micros = Micros::from_secs(1_700_000_060);

/// Virtual time that nothing takes.
pub(super) const LONG: Duration = Duration::from_secs(600);

const PLENTY: usize = 64;

/// A call of [`Source::connect`] that waits for its answer.
pub(super) struct Connect {
    pub(super) subscription: String,
    pub(super) outstanding_max: usize,
    answer: oneshot::Sender<Result<Link, Error>>,
}

impl Connect {
    pub(super) fn refuse(self) {
        let subscription = self.subscription;
        self.answer.send(Err(Error::Missing { subscription })).ok().unwrap();
    }

    pub(super) fn accept(self) -> Peer {
        let (give, given) = mpsc::channel(PLENTY);
        let (tell, outcomes) = mpsc::channel(PLENTY);
        let (reachable, is_reachable) = watch::channel(true);
        let (settle, settled) = oneshot::channel();
        let link = Link {
            deliveries: stream::unfold(given, |mut given| async move {
                given.recv().await.map(|next| (next, given))
            })
            .boxed(),
            check: Box::new(move || {
                let answer = if *is_reachable.borrow() { Ok(()) } else { Err(Error::Ended) };
                async move { answer }.boxed()
            }),
            settled: settled.map(drop).boxed(),
            dead_letters: DeadLetters::Unknown,
        };
        self.answer.send(Ok(link)).ok().unwrap();
        Peer { give, tell, outcomes, reachable, settle: Some(settle) }
    }
}

/// The server's end of a connection.
pub(super) struct Peer {
    give: mpsc::Sender<Result<Delivery, Error>>,
    tell: mpsc::Sender<(String, bool)>,
    outcomes: mpsc::Receiver<(String, bool)>,
    reachable: watch::Sender<bool>,
    settle: Option<oneshot::Sender<()>>,
}

impl Peer {
    pub(super) async fn deliver(&self, id: &str) {
        let message = Message {
            id: id.to_owned(),
            data: Bytes::from_static(b"{}"),
            publish_time: Some(PUBLISHED),
            delivery_attempt: Some(1),
            attributes: BTreeMap::new(),
        };
        let outcome = Outcome { id: id.to_owned(), acked: false, tell: self.tell.clone() };
        let ack = Box::new(move || outcome.ack());
        self.give.send(Ok(Delivery { message, ack })).await.ok().unwrap();
    }

    /// The id of the next message that is settled, and whether it was acknowledged.
    pub(super) async fn outcome(&mut self) -> (String, bool) {
        timeout(LONG, self.outcomes.recv()).await.unwrap().unwrap()
    }

    pub(super) fn has_outcome(&self) -> bool {
        !self.outcomes.is_empty()
    }

    pub(super) async fn fail(&self) {
        self.give.send(Err(Error::Ended)).await.ok().unwrap();
    }

    pub(super) fn reachable(&self, reachable: bool) {
        self.reachable.send(reachable).unwrap();
    }

    /// Returns once nobody listens any more.
    pub(super) async fn closed(&self) {
        timeout(LONG, self.give.closed()).await.unwrap();
    }

    pub(super) fn settled(&mut self) {
        let _ = self.settle.take().unwrap().send(());
    }
}

struct Outcome {
    id: String,
    acked: bool,
    tell: mpsc::Sender<(String, bool)>,
}

impl Outcome {
    fn ack(mut self) {
        self.acked = true;
    }
}

impl Drop for Outcome {
    fn drop(&mut self) {
        let _ = self.tell.try_send((std::mem::take(&mut self.id), self.acked));
    }
}

struct FakeSource(mpsc::Sender<Connect>);

impl Source for FakeSource {
    fn connect<'a>(
        &'a self,
        subscription: &'a str,
        outstanding_max: usize,
    ) -> BoxFuture<'a, Result<Link, Error>> {
        async move {
            let (answer, answered) = oneshot::channel();
            let subscription = subscription.to_owned();
            let connect = Connect { subscription, outstanding_max, answer };
            self.0.send(connect).await.ok().unwrap();
            answered.await.unwrap()
        }
        .boxed()
    }
}

/// A message that the intake was asked about.
pub(super) struct Asked {
    pub(super) message: Message,
    answer: oneshot::Sender<Taken>,
}

impl Asked {
    pub(super) fn answer(self, taken: Taken) {
        self.answer.send(taken).unwrap();
    }
}

struct FakeIntake(mpsc::Sender<Asked>);

impl Intake for FakeIntake {
    fn take(&self, message: Message) -> BoxFuture<'_, Taken> {
        async move {
            let (answer, answered) = oneshot::channel();
            self.0.send(Asked { message, answer }).await.ok().unwrap();
            // A test that forgets to answer has an intake that hangs.
            match answered.await {
                Ok(taken) => taken,
                Err(_) => std::future::pending().await,
            }
        }
        .boxed()
    }
}

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Micros {
        NOW
    }
}

/// A subscriber between a fake subscription and a fake intake.
pub(super) struct World {
    pub(super) subscriber: Arc<Subscriber>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) supervisor: Arc<Supervisor>,
    connects: mpsc::Receiver<Connect>,
    asked: mpsc::Receiver<Asked>,
}

pub(super) const SUBSYSTEM: &str = "gcp_pubsub";

impl World {
    /// With two places; its worker does not run yet.
    pub(super) fn new() -> World {
        let (connect, connects) = mpsc::channel(PLENTY);
        let (ask, asked) = mpsc::channel(PLENTY);
        let metrics = Arc::new(Metrics::new().unwrap());
        let options = Options {
            project: "p".to_owned(),
            subscription: "signals".to_owned(),
            dead_letter_subscription: "dead".to_owned(),
            dead_letter_topic: "dead".to_owned(),
            max_messages: 2,
            emulator: None,
        };
        let subscriber = Subscriber::with_source(
            options,
            Box::new(FakeSource(connect)),
            Arc::new(FakeIntake(ask)),
            Arc::clone(&metrics),
            Arc::new(Fixed),
        );
        World {
            subscriber: Arc::new(subscriber),
            supervisor: Arc::new(Supervisor::new(Arc::clone(&metrics))),
            metrics,
            connects,
            asked,
        }
    }

    /// With its worker, which is about to connect.
    pub(super) fn started() -> World {
        let world = World::new();
        world.supervisor.start(SUBSYSTEM, vec![world.subscriber.worker()]);
        world
    }

    pub(super) async fn connect(&mut self) -> Connect {
        timeout(LONG, self.connects.recv()).await.unwrap().unwrap()
    }

    pub(super) async fn asked(&mut self) -> Asked {
        timeout(LONG, self.asked.recv()).await.unwrap().unwrap()
    }

    pub(super) fn is_asked(&self) -> bool {
        !self.asked.is_empty()
    }

    pub(super) fn state(&self) -> &'static str {
        self.subscriber.status().state
    }
}
