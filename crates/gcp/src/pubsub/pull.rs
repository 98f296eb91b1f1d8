//! The worker: one future that feeds messages and one that carries them to the intake.
//!
//! Owns: the life of a connection, and the life of a message in hand. Refuses to know: which
//! client is behind the connection.

use std::error::Error as _;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use engine::supervise::Stop;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::{BoxStream, FuturesUnordered};
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::hand::InHand;
use super::source::{Check, DeadLetters, Delivery, Link};
use super::{ACTIVE, CONNECTING, DISCONNECTED, Options, Subscriber, Taken};
use crate::Error;

/// A stream that did not fail for so long is open. Pub/Sub says nothing until there is a message.
pub(super) const OPEN_AFTER: Duration = Duration::from_secs(1);
/// How often it is asked whether the subscription can be reached.
pub(super) const CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How soon a failed check is repeated: one lost answer does not end a stream that works.
pub(super) const CHECK_AGAIN: Duration = Duration::from_secs(1);
/// Between two attempts to connect.
pub(super) const RECONNECT: (Duration, Duration) =
    (Duration::from_secs(1), Duration::from_secs(30));
/// Between two questions to an intake that said later.
const ASK_AGAIN: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));
/// How long a message is held for such an intake: the seeds' deadline for an acknowledgement. One
/// that is given back at once would be a dead letter before a store has restarted.
pub(super) const HOLD_MAX: Duration = Duration::from_secs(60);
/// How long a stop waits for the messages in hand.
pub(super) const FINISH: Duration = Duration::from_secs(5);
/// How long it waits then for the server to hear of them.
pub(super) const SETTLE: Duration = Duration::from_secs(2);
/// How often the age of the oldest message is shown.
const SHOW_INTERVAL: Duration = Duration::from_secs(1);

/// A message on its way to the intake.
struct Held {
    delivery: Delivery,
    in_hand: InHand,
    place: OwnedSemaphorePermit,
}

impl Subscriber {
    /// Runs until asked to stop.
    pub(super) async fn run(self: Arc<Self>, stop: Stop) {
        // Whoever sends has a place, and there are no more of them than this.
        let (give, held) = mpsc::channel(self.options.max_messages);
        let mut carry = Box::pin(self.carry(held));
        let settled = tokio::select! {
            settled = self.feed(give, stop) => settled,
            () = &mut carry => None,
        };
        self.phase.store(DISCONNECTED, Ordering::Release);
        if timeout(FINISH, &mut carry).await.is_err() {
            let left = self.hand.outstanding();
            tracing::warn!(event = "pubsub_left", left, "messages in hand are given back");
        }
        drop(carry);
        if let Some(settled) = settled
            && timeout(SETTLE, settled).await.is_err()
        {
            tracing::warn!(event = "pubsub_unsettled", "the server has not heard of every message");
        }
    }

    /// Keeps a connection while one is wanted; gives what settles the last one.
    async fn feed(
        &self,
        give: mpsc::Sender<Held>,
        mut stop: Stop,
    ) -> Option<BoxFuture<'static, ()>> {
        let mut wanted = self.wanted.subscribe();
        let mut settled = None;
        let mut pauses = pauses(RECONNECT);
        let mut said = String::new();
        loop {
            tokio::select! {
                () = stop.asked() => return settled,
                () = becomes(&mut wanted, true) => {}
            }
            self.phase.store(CONNECTING, Ordering::Release);
            let lost = tokio::select! {
                () = stop.asked() => return settled,
                () = becomes(&mut wanted, false) => continue,
                lost = self.pull(&give, &mut settled) => lost,
            };
            let was = self.phase.swap(DISCONNECTED, Ordering::AcqRel);
            if was == ACTIVE {
                pauses = self::pauses(RECONNECT);
                said.clear();
            }
            self.metrics.pubsub_errors.inc();
            // Once for each reason, however long it lasts.
            if said != lost.to_string() {
                said = lost.to_string();
                let cause = lost.source().map(tracing::field::display);
                tracing::warn!(
                    event = "pubsub_disconnected",
                    error = said,
                    cause,
                    "Pub/Sub subscription disconnected"
                );
            }
            let pause = pauses.next().unwrap_or(RECONNECT.1);
            tokio::select! {
                () = stop.asked() => return settled,
                () = becomes(&mut wanted, false) => {}
                () = sleep(pause) => {}
            }
        }
    }

    /// One connection, from its first word to the reason of its end.
    async fn pull(
        &self,
        give: &mpsc::Sender<Held>,
        last: &mut Option<BoxFuture<'static, ()>>,
    ) -> Error {
        let Options { subscription, max_messages, .. } = &self.options;
        let link = match self.source.connect(subscription, *max_messages).await {
            Ok(link) => link,
            Err(error) => return error,
        };
        let Link { mut deliveries, check, settled, dead_letters } = link;
        *last = Some(settled);
        let mut lost = pin!(lost(&check));
        let mut quiet = pin!(sleep(OPEN_AFTER));
        let mut is_open = false;
        loop {
            tokio::select! {
                error = &mut lost => return error,
                () = &mut quiet, if !is_open => {}
                next = self.next(&mut deliveries) => match next {
                    // A failure means that nobody carries any more: it goes back.
                    Ok(held) => drop(give.try_send(held)),
                    Err(error) => return error,
                },
            }
            if !is_open {
                is_open = true;
                self.opened(&dead_letters);
            }
        }
    }

    fn opened(&self, dead_letters: &DeadLetters) {
        self.phase.store(ACTIVE, Ordering::Release);
        let Options { project, subscription, dead_letter_topic, .. } = &self.options;
        tracing::info!(event = "pubsub_active", subscription, "Pub/Sub subscription active");
        let expected = format!("projects/{project}/topics/{dead_letter_topic}");
        if let Some(fault) = misled(dead_letters, &expected) {
            tracing::warn!(event = "pubsub_dead_letters", subscription, expected, "{fault}");
        }
    }

    /// The next message, once there is a place for it. May be dropped while it waits.
    async fn next(
        &self,
        deliveries: &mut BoxStream<'static, Result<Delivery, Error>>,
    ) -> Result<Held, Error> {
        let places = Arc::clone(&self.places);
        let place = places.acquire_owned().await.map_err(|_| Error::Ended)?;
        let delivery = deliveries.next().await.ok_or(Error::Ended)??;
        let in_hand = self.hand.take(delivery.message.publish_time);
        Ok(Held { delivery, in_hand, place })
    }

    /// Carries messages to the intake until no more come.
    async fn carry(&self, mut held: mpsc::Receiver<Held>) {
        let mut carried = FuturesUnordered::new();
        let mut show = interval(SHOW_INTERVAL);
        show.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut more = true;
        while more || !carried.is_empty() {
            tokio::select! {
                next = held.recv(), if more => match next {
                    Some(held) => carried.push(self.ask(held)),
                    None => more = false,
                },
                Some(()) = carried.next(), if !carried.is_empty() => {}
                _ = show.tick() => self.show_oldest(),
            }
        }
        self.show_oldest();
    }

    /// Asks the intake until it has decided, or has put it off for too long.
    async fn ask(&self, Held { delivery, in_hand, place }: Held) {
        let give_back_at = Instant::now() + HOLD_MAX;
        let mut pauses = pauses(ASK_AGAIN);
        loop {
            match self.intake.take(delivery.message.clone()).await {
                Taken::Done => {
                    (delivery.ack)();
                    in_hand.acked();
                    break;
                }
                Taken::Poison => break,
                Taken::Later => {
                    let pause = pauses.next().unwrap_or(ASK_AGAIN.1);
                    if Instant::now() + pause > give_back_at {
                        break;
                    }
                    sleep(pause).await;
                }
            }
        }
        drop(place);
    }

    fn show_oldest(&self) {
        let oldest_s = self.hand.oldest_s(self.clock.now());
        self.metrics.pubsub_oldest_unacked_seconds.set(i64::try_from(oldest_s).unwrap_or(i64::MAX));
    }
}

/// Waits until the subscription cannot be reached.
async fn lost(check: &Check) -> Error {
    let mut failed_before = false;
    loop {
        sleep(if failed_before { CHECK_AGAIN } else { CHECK_INTERVAL }).await;
        match check().await {
            Ok(()) => failed_before = false,
            Err(error) if failed_before || matches!(error, Error::Missing { .. }) => return error,
            Err(_) => failed_before = true,
        }
    }
}

/// What is wrong with where a subscription sends its dead letters.
fn misled(dead_letters: &DeadLetters, expected: &str) -> Option<&'static str> {
    match dead_letters {
        DeadLetters::Nowhere => Some(
            "the subscription has no dead-letter policy: what cannot be decoded comes again until \
             it expires",
        ),
        DeadLetters::Topic(topic) if topic != expected => {
            Some("the subscription's dead letters go to another topic than the settings say")
        }
        DeadLetters::Topic(_) | DeadLetters::Unknown => None,
    }
}

async fn becomes(wanted: &mut watch::Receiver<bool>, value: bool) {
    // The sender lives as long as the subscriber.
    let _ = wanted.wait_for(|it| *it == value).await;
}

/// Doubling pauses between `min` and `max`, without end.
fn pauses((min, max): (Duration, Duration)) -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(min)
        // The jitter adds up to as much again.
        .with_max_delay(max / 2)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests;
