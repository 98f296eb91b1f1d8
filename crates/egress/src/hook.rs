//! The action `hook`: something outside is asked to act for a tenant.
//!
//! Owns: the request, and what its answer says of the action. Refuses to know: why the action was
//! decided, how often it is tried, and how long it may take, which the pool of actions says.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use engine::actions::{ActionError, ActionFuture, ActionSpec, Actuator, Call, EffectClass};
use engine::outbound::{Attempt, Clocks, Outbound, SendError, Sent, Verdict};
use serde_json::json;
use settings::Secret;

use crate::egress::now;
use crate::endpoint::read_out;
use crate::signature::{SIGNATURE, signature};
use crate::{Endpoint, Error};

/// The part of an action's time that its request has: the far side, and not the pool, is then what
/// has taken too long.
const SHARE: f64 = 0.9;
/// Calls under way at once: as many as the pool runs at most (`ACTION_POOL_SIZE`).
const IN_FLIGHT_MAX: usize = 1_000;

/// Sends `POST {"action":"hook","attempt":…,"tenant_id":…}` with the attempt's id as
/// `Idempotency-Key`. 2xx is done; 408, 429 and 5xx are tried again; any other status is a refusal.
/// Whoever takes it does no more for a second request with the same key than for the first.
pub struct Hook {
    outbound: Arc<dyn Outbound>,
    endpoint: Endpoint,
    key: Option<Secret>,
}

impl Hook {
    /// The action's name: what a signal profile asks for, and what the far side is registered as.
    pub const NAME: &'static str = "hook";

    /// The far side at that address.
    ///
    /// # Errors
    /// [`Error::Base`], never with the address.
    pub fn endpoint(url: &str) -> Result<Endpoint, Error> {
        Endpoint::new(Hook::NAME, url, IN_FLIGHT_MAX)
    }

    /// The action. The endpoint is registered with `outbound`; with a key requests are signed in
    /// `X-Hub-Signature-256`.
    #[must_use]
    pub fn new(outbound: Arc<dyn Outbound>, endpoint: Endpoint, key: Option<Secret>) -> Hook {
        Hook { outbound, endpoint, key }
    }

    fn attempt(&self, call: &Call) -> Attempt {
        let attempt = call.attempt.to_string();
        let body = json!({
            "action": Hook::NAME,
            "attempt": attempt,
            "tenant_id": call.stream.as_str(),
        });
        let body = Bytes::from(body.to_string());
        let signed = self.key.iter().map(|key| (SIGNATURE, signature(key, &body)));
        let headers = [("idempotency-key", attempt)].into_iter().chain(signed).collect();
        let limit = call.timeout.mul_f64(SHARE);
        Attempt {
            dependency: self.endpoint.name(),
            path: self.endpoint.path().to_owned(),
            headers,
            body,
            clocks: Clocks { head: limit, gap: limit, deadline: now() + limit },
            sent: Sent::default(),
            is_retry: call.is_retry,
        }
    }
}

impl Actuator for Hook {
    fn spec(&self) -> ActionSpec {
        ActionSpec {
            name: Hook::NAME,
            class: EffectClass::Irreversible,
            idempotent: true,
            args: &[],
        }
    }

    fn run(&self, call: Call) -> ActionFuture {
        let (outbound, attempt) = (Arc::clone(&self.outbound), self.attempt(&call));
        Box::pin(async move {
            let mut reply = match outbound.send(attempt).await {
                Ok(reply) => reply,
                Err(error) if error.is_unsent() => {
                    return Err(ActionError::Retryable(error.to_string()));
                }
                Err(SendError::Timeout(_)) => return Err(ActionError::TimedOut),
                Err(error) => return Err(ActionError::Unknown(error.to_string())),
            };
            let (verdict, outcome) = judged(reply.status, reply.retry_after.unwrap_or_default());
            reply.body.judge(verdict);
            // Its words are of no use: the status says all.
            read_out(&mut *reply.body, |_| ()).await;
            outcome
        })
    }
}

fn judged(status: u16, asked: Duration) -> (Verdict, Result<(), ActionError>) {
    let text = || format!("it answers {status}");
    match status {
        200..300 => (Verdict::Good, Ok(())),
        429 => (Verdict::Throttled(asked), Err(ActionError::Retryable(text()))),
        408 | 500.. => (Verdict::Bad, Err(ActionError::Unknown(text()))),
        _ => (Verdict::NotItsFault, Err(ActionError::Refused(text()))),
    }
}
