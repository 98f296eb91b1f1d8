//! What the front door asks of the process around it.
//!
//! Owns: the port to settings, to the pulled subscription and to the life of the process. Refuses
//! to know: how any of them works.

use std::pin::Pin;
use std::sync::Arc;

use settings::Resolved;
use tokio::sync::watch;

/// The process around the front door.
pub trait Process: Send + Sync + 'static {
    /// The settings in force.
    fn settings(&self) -> Arc<Resolved>;

    /// The newest live change that is in force, counted as [`engine::Engine::live_changes`] does.
    fn applied(&self) -> watch::Receiver<u64>;

    /// The subscription that signals are pulled from, if there is one.
    fn pull(&self) -> Option<Arc<dyn Pull>>;

    /// Asks the process to end in order.
    fn stop(&self);

    /// Asks the process to end in order and to begin anew under the same id.
    fn restart(&self);
}

/// A subscription that signals are pulled from.
pub trait Pull: Send + Sync + 'static {
    /// Where it stands, for health.
    fn state(&self) -> PullState;

    /// Where it stands, with its counts.
    fn status(&self) -> PullStatus;

    /// Pulls nothing more; what is in hand is finished.
    fn pause(&self);

    /// Pulls again.
    fn resume(&self);

    /// Decides up to `limit` dead letters.
    fn replay(&self, limit: usize) -> ReplayFuture<'_>;
}

/// The future of a replay.
pub type ReplayFuture<'a> =
    Pin<Box<dyn Future<Output = Result<Replayed, ReplayError>> + Send + 'a>>;

/// Where a subscription stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PullState {
    /// Messages come in.
    Active,
    /// An operator paused it.
    Paused,
    /// It has not been reached yet.
    Connecting,
    /// It was reached before, or cannot be.
    Disconnected,
}

impl PullState {
    /// The word in answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            PullState::Active => "active",
            PullState::Paused => "paused",
            PullState::Connecting => "connecting",
            PullState::Disconnected => "disconnected",
        }
    }
}

/// A subscription's counts since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PullStatus {
    /// Where it stands.
    pub state: PullState,
    /// Messages in hand.
    pub outstanding: u64,
    /// Age of the oldest of them by its publish time, in seconds.
    pub oldest_unacked_s: u64,
    /// Messages that came in.
    pub received: u64,
    /// Messages that were acknowledged.
    pub acked: u64,
    /// Messages that were sent back.
    pub nacked: u64,
    /// Dead letters that were decided after all.
    pub dead_letters_replayed: u64,
}

/// What became of dead letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// Decided now, or found to have been decided before.
    pub replayed: u64,
    /// Still undecodable; they stay where they are.
    pub poison: u64,
    /// Not decided because the service could not; they stay where they are.
    pub later: u64,
}

/// Why dead letters could not be replayed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// Another replay runs.
    #[error("another replay is running")]
    Busy,
    /// The subscription does not answer.
    #[error("the dead letters cannot be pulled")]
    Unavailable,
}
