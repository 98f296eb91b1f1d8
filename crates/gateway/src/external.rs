//! Alerts that others have found: `POST /api/v2/alerts` as Alertmanager takes it, and
//! `POST /webhooks/alertmanager` as Alertmanager sends it.
//!
//! Owns: who may send them, and the answer. Refuses to know: what an alert leads to.

use bytes::Bytes;
use dialect::JsonLimits;
use dialect::notify::incoming::{self, Group};
use engine::{Heard, Sender};
use http::{HeaderMap, StatusCode};
use serde_json::json;

use crate::answer::{Answer, Facts, Handled, json_response};
use crate::caller::Caller;
use crate::{Gateway, Options};

/// Values and names in one body: 500 alerts with forty texts each.
const NODES_MAX: usize = 50_000;

/// Takes the alerts of one body.
pub(crate) async fn hear(
    gateway: &Gateway,
    options: &Options,
    sender: Sender,
    (caller, headers): (&Caller, &HeaderMap),
    body: &Bytes,
) -> Handled {
    // What is wrong with the whole service is no tenant's to say.
    caller.may_name(None)?;
    if *caller == Caller::Unproven {
        options.signatures.check_body(headers, body)?;
    }
    let limits = JsonLimits { max_nodes: NODES_MAX, ..gateway.json };
    let (alerts, truncated) = match sender {
        Sender::Prometheus => (incoming::posted(body, limits)?, 0),
        Sender::Alertmanager => {
            let Group { alerts, truncated } = incoming::webhook(body, limits)?;
            (alerts, truncated)
        }
    };
    if truncated > 0 {
        tracing::warn!(event = "alerts_truncated", truncated, "the sender left alerts out");
    }
    let actor = caller.actor("alertmanager");
    let Heard { fired, ended, repeated, own } =
        gateway.engine.hear(sender, &alerts, &actor).await?;
    let answer = json!({ "status": "success", "fired": fired, "ended": ended, "repeated": repeated, "own": own });
    Ok(Answer { response: json_response(StatusCode::OK, &answer), facts: Facts::default() })
}
