//! Signals that are pulled: what stands between Google's subscription and the engine.
//!
//! Owns: which answer of the engine acknowledges a message. Refuses to know: how messages are
//! pulled, and what they mean.

use std::sync::Arc;

use dialect::{JsonLimits, pubsub::parse_signal};
use engine::Engine;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use gateway::process::{Pull, PullState, PullStatus, ReplayError, ReplayFuture, Replayed};
use gcp::pubsub::{Intake, Message, Options, Status, Subscriber, Taken};
use settings::{ServiceRole, Settings};
use telemetry::metrics::Metrics;
use types::{Blame, Clock, Reason};

/// The subscription that the settings name; `None` when they name none.
pub(crate) fn subscriber(
    settings: &Settings,
    engine: &Engine,
    metrics: &Arc<Metrics>,
    clock: Arc<dyn Clock>,
) -> Option<Arc<Subscriber>> {
    let pulls = settings.pubsub_enabled && settings.service_role != ServiceRole::Gateway;
    let project = settings.gcp_project_id.clone().filter(|_| pulls)?;
    let options = Options {
        project,
        subscription: settings.pubsub_subscription.clone(),
        dead_letter_subscription: settings.pubsub_deadletter_subscription.clone(),
        dead_letter_topic: settings.pubsub_deadletter_topic.clone(),
        max_messages: settings.pubsub_max_messages,
        emulator: settings.pubsub_emulator_host.clone(),
    };
    let intake = Arc::new(Signals(engine.clone()));
    Some(Arc::new(Subscriber::new(options, intake, Arc::clone(metrics), clock)))
}

/// Messages on their way into the engine.
struct Signals(Engine);

impl Intake for Signals {
    fn take(&self, message: Message) -> BoxFuture<'_, Taken> {
        async move {
            let limits = JsonLimits::default();
            let payload = match parse_signal(&message.data, &limits) {
                Ok(payload) => payload,
                Err(fault) => return self.poison(&message, fault.reason),
            };
            if let Err(fault) = dialect::request_id::check_key(&message.id) {
                return self.poison(&message, fault.reason);
            }
            let decoded = engine::intake::Message {
                id: &message.id,
                data: &message.data,
                payload,
                delivery_attempt: message.delivery_attempt,
                actor: "pubsub".into(),
                may_register: true,
            };
            match self.0.take(decoded).await {
                Ok(_) => Taken::Done,
                // A publisher's mistake is the dead letters' business, and not worth a place in
                // hand until somebody mends it: a replay decides it then.
                Err(refused) if refused.reason.blame() == Blame::Caller => {
                    self.poison(&message, refused.reason)
                }
                Err(_) => Taken::Later,
            }
        }
        .boxed()
    }
}

impl Signals {
    /// Counts a message that cannot be decided; the receipt about it is an aggregate.
    fn poison(&self, message: &Message, reason: Reason) -> Taken {
        tracing::warn!(
            event = "signal_refused",
            message_id = message.id,
            delivery_attempt = message.delivery_attempt,
            reason = reason.code(),
            "a pulled message cannot be decided"
        );
        self.0.refused_at_edge(reason, "pubsub_pull", None);
        Taken::Poison
    }
}

/// The subscription as the front door sees it.
pub(crate) struct Pulled(pub(crate) Arc<Subscriber>);

impl Pull for Pulled {
    fn state(&self) -> PullState {
        state_of(self.0.status().state)
    }

    fn status(&self) -> PullStatus {
        let Status {
            state,
            outstanding,
            oldest_unacked_s,
            received,
            acked,
            nacked,
            dead_letters_replayed,
        } = self.0.status();
        PullStatus {
            state: state_of(state),
            outstanding: outstanding as u64,
            oldest_unacked_s,
            received,
            acked,
            nacked,
            dead_letters_replayed,
        }
    }

    fn pause(&self) {
        self.0.pause();
    }

    fn resume(&self) {
        self.0.resume();
    }

    fn replay(&self, limit: usize) -> ReplayFuture<'_> {
        Box::pin(async move {
            let replay = self.0.replay_dead_letters(limit).await;
            let replay = replay.map_err(|error| match error {
                gcp::Error::ReplayRunning => ReplayError::Busy,
                error => {
                    tracing::warn!(event = "replay_failed", %error, "dead letters cannot be pulled");
                    ReplayError::Unavailable
                }
            })?;
            Ok(Replayed {
                replayed: replay.replayed as u64,
                poison: replay.poison as u64,
                later: replay.later as u64,
            })
        })
    }
}

fn state_of(state: &str) -> PullState {
    match state {
        "active" => PullState::Active,
        "paused" => PullState::Paused,
        "connecting" => PullState::Connecting,
        _ => PullState::Disconnected,
    }
}
