//! Dead letters, given to the intake once more.
//!
//! Owns: that a dead letter is acknowledged only once it is decided, and that one replay runs at a
//! time. Refuses to know: why they died.

use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::time::timeout;

use super::pull::SETTLE;
use super::source::{Delivery, Link};
use super::{Message, Subscriber, Taken};
use crate::Error;

/// Dead letters of one replay; what is left is for the next.
pub(super) const LETTERS_MAX: usize = 1_000;
/// A subscription that delivers nothing for so long is taken to be empty; Pub/Sub does not say.
pub(super) const QUIET: Duration = Duration::from_secs(3);

/// What became of the dead letters that were looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Replay {
    /// Decided and acknowledged.
    pub replayed: usize,
    /// Still cannot be decoded; they stay dead letters.
    pub poison: usize,
    /// Could not be decided now; they stay dead letters.
    pub later: usize,
}

impl Subscriber {
    /// Gives up to `limit` dead letters to the intake, at most a thousand at a time. The id of each
    /// is `dead-letter:` and its message id, so that one which is replayed twice has one effect.
    /// It ends when none has come for three seconds.
    ///
    /// # Errors
    /// [`Error::ReplayRunning`] while another replay runs; any other when the subscription of the
    /// dead letters cannot be reached or is lost. What was replayed until then stays so, and is
    /// counted.
    pub async fn replay_dead_letters(&self, limit: usize) -> Result<Replay, Error> {
        let _only = self.replaying.try_acquire().map_err(|_| Error::ReplayRunning)?;
        let limit = limit.min(LETTERS_MAX);
        let mut replay = Replay::default();
        if limit == 0 {
            return Ok(replay);
        }
        let link = self.source.connect(&self.options.dead_letter_subscription, limit).await?;
        let Link { mut deliveries, settled, .. } = link;
        let mut asked = FuturesUnordered::new();
        let (mut pulled, mut ended, mut lost) = (0, false, None);
        // Given back only at the end: until then they would be delivered again at once.
        let mut kept = Vec::new();
        loop {
            let more = !ended && pulled < limit;
            let room = asked.len() < self.options.max_messages;
            tokio::select! {
                next = timeout(QUIET, deliveries.next()), if more && room => match next {
                    Ok(Some(Ok(delivery))) => {
                        pulled += 1;
                        asked.push(self.ask_dead_letter(delivery));
                    }
                    Ok(Some(Err(error))) => (ended, lost) = (true, Some(error)),
                    Ok(None) | Err(_) => ended = true,
                },
                Some((taken, delivery)) = asked.next(), if !asked.is_empty() => match taken {
                    Taken::Done => {
                        (delivery.ack)();
                        replay.replayed += 1;
                        self.metrics.pubsub_dead_letters_replayed.inc();
                    }
                    Taken::Poison => {
                        replay.poison += 1;
                        kept.push(delivery);
                    }
                    Taken::Later => {
                        replay.later += 1;
                        kept.push(delivery);
                    }
                },
                else => break,
            }
        }
        drop((kept, asked, deliveries));
        // What the server does not hear of is delivered again, and has been decided.
        let _ = timeout(SETTLE, settled).await;
        let Replay { replayed, poison, later } = replay;
        tracing::info!(
            event = "pubsub_dead_letters_replayed",
            replayed,
            poison,
            later,
            "dead letters replayed"
        );
        lost.map_or(Ok(replay), Err)
    }

    async fn ask_dead_letter(&self, delivery: Delivery) -> (Taken, Delivery) {
        let id = format!("dead-letter:{}", delivery.message.id);
        let message = Message { id, ..delivery.message.clone() };
        (self.intake.take(message).await, delivery)
    }
}

#[cfg(test)]
mod tests;
