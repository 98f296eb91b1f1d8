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
    started_at: Option<Value>,
}

impl Before {
    /// Looks when the service was started.
    ///
    /// # Errors
    /// When there is no answer; when it does not say, and a new start could not be told by it.
    pub(crate) fn look(client: &Client, until: Until) -> anyhow::Result<Before> {
        let look = || client.ask(&alive(), LOOK_TIMEOUT);
        let mut health = look()?.json();
        // A start is known by its second: a second start within it could not be told.
        while until == Until::Restarted && is_in_its_first_second(health.as_ref()) {
            std::thread::sleep(POLL_INTERVAL);
            health = look()?.json();
        }
        let started_at = health.as_ref().and_then(started_at).cloned();
        if started_at.is_none() && until == Until::Restarted {
            anyhow::bail!(
                "the service does not say when it was started, so a restart could not be seen; \
                 nothing was done (--wait 0 does not wait)"
            );
        }
        Ok(Before { started_at })
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
        let is_new = |answer: &Answer| {
            let health = answer.json();
            let now = health.as_ref().and_then(started_at);
            now.is_some() && self.started_at.is_some() && now != self.started_at.as_ref()
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

fn started_at(health: &Value) -> Option<&Value> {
    health.get("started_at").filter(|value| !value.is_null())
}

fn is_in_its_first_second(health: Option<&Value>) -> bool {
    let started_at = health.and_then(started_at);
    started_at.is_some() && started_at == health.and_then(|health| health.get("timestamp"))
}
