//! The chains of the service itself: they record, each its own kind of fact.
//!
//! Owns: which command belongs to which system stream. Refuses to know: any tenant.

use ledger::Meta;
use types::limits::INTEGER_MAX;

use crate::command::Command;
use crate::decision::{Context, Decision, Sealing};
use crate::draft::{refusal, transition};
use crate::state::SystemState;
use crate::wrong_stream;

/// Decides a command on a system stream.
pub(crate) fn decide(state: SystemState, command: &Command, cx: &Context<'_>) -> Decision {
    let draft = match (state, command) {
        (SystemState::Signals, Command::Untenanted { signal }) => {
            let mut draft =
                transition("signal", "signal.untenanted", cx.actor).states("received", "received");
            draft.subject = Some(signal.clone().into());
            draft
        }
        (SystemState::Edge, Command::Refused { reason, endpoint, count, window_s }) => {
            let detail = reason.help().to_owned();
            let mut draft = refusal("request", "edge.aggregate", cx.actor, *reason, detail);
            draft.subject = Some((*endpoint).into());
            let count = i64::try_from(*count).unwrap_or(INTEGER_MAX).min(INTEGER_MAX);
            draft.with("count", Meta::Int(count)).with("window_s", Meta::Int(*window_s))
        }
        (SystemState::Ops, Command::Note { event, detail }) => {
            let mut draft = transition(event, "ops.note", cx.actor).states("running", "running");
            draft.detail = Some(detail.clone().into());
            draft
        }
        (_, Command::Tick) => return Decision::Nothing,
        _ => return wrong_stream(),
    };
    Decision::Seal(Sealing { drafts: vec![draft], primary: 0, effect: None })
}
