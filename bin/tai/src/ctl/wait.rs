//! Waiting until a restart or a stop has happened.
//!
//! Owns: what counts as happened. Refuses to know: how it was asked for.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::client::{Answer, Call, Client, Method, NoAnswer};

/// Nothing announces a new start but its first answer.
const POLL_INTERVAL: Duration = Duration::from_millis(50);
/// One look; a service that is about to end may hold a connection open.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);

/// What is waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Until {
    /// A new start answers that it is well.
    Restarted,
    /// Nobody listens any more, or somebody who was started since.
    Gone,
}

/// A service as it was before.
#[derive(Debug)]
pub(crate) struct Before {
    /// The name of that life of the process. Its start in seconds would not do: a restart takes
    /// less than one.
    instance: Option<Value>,
}

impl Before {
    /// Looks which life of the service is asked.
    ///
    /// # Errors
    /// When there is no answer; when it does not say, and a restart could not be seen.
    pub(crate) fn look(client: &Client, until: Until) -> anyhow::Result<Before> {
        let instance = instance(&client.ask(&alive(), LOOK_TIMEOUT)?);
        if instance.is_none() && until == Until::Restarted {
            anyhow::bail!(
                "the service does not name its instance, so a restart could not be seen; nothing \
                 was done (--wait 0 does not wait)"
            );
        }
        Ok(Before { instance })
    }

    /// True once `until` has happened, false when it has not within `limit`.
    pub(crate) fn wait(&self, client: &Client, until: Until, limit: Duration) -> bool {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let call = if until == Until::Restarted { Call::health() } else { alive() };
            if self.has_happened(until, &client.ask(&call, left.min(LOOK_TIMEOUT))) {
                return true;
            }
            std::thread::sleep(POLL_INTERVAL.min(left));
        }
    }

    fn has_happened(&self, until: Until, look: &Result<Answer, NoAnswer>) -> bool {
        let is_new = |answer| {
            let now = instance(answer);
            now.is_some() && self.instance.is_some() && now != self.instance
        };
        match (until, look) {
            (Until::Restarted, Ok(answer)) => answer.is_yes() && is_new(answer),
            (Until::Gone, Ok(answer)) => is_new(answer),
            (Until::Gone, Err(NoAnswer::Unreachable { refused, .. })) => *refused,
            (_, Err(_)) => false,
        }
    }
}

/// A probe that a service answers as long as it lives, also one that is unwell.
fn alive() -> Call {
    Call::new(Method::GET, "health/live")
}

fn instance(health: &Answer) -> Option<Value> {
    health.json()?.get("instance").filter(|value| value.is_string()).cloned()
}
