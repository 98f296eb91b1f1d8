//! The chains of the service itself: each takes its own kind of fact.
//!
//! Owns: which command belongs to which system stream, and the receipts of those that only record.
//! Refuses to know: any tenant.

use ledger::Meta;
use types::Reason;
use types::limits::INTEGER_MAX;

use crate::command::Command;
use crate::decision::{Context, Decision, Sealing};
use crate::draft::{refusal, transition};
use crate::rules::Rules;
use crate::state::SystemState;
use crate::{incident, keys, live, notices, wrong_stream};

/// Decides a command on a system stream.
pub(crate) fn decide(
    rules: &Rules,
    state: &SystemState,
    command: &Command,
    cx: &Context<'_>,
) -> Decision {
    match (state, command) {
        (SystemState::Signals, Command::Untenanted { signal }) => {
            let mut draft =
                transition("signal", "signal.untenanted", cx.actor).states("received", "received");
            draft.subject = Some(signal.clone().into());
            Decision::Seal(Sealing { drafts: vec![draft], primary: 0, effect: None })
        }
        (SystemState::Edge, Command::Refused { reason, endpoint, count, window_s }) => {
            aggregate(*reason, endpoint, *count, *window_s, cx)
        }
        (SystemState::Ops, Command::Note { event, detail }) => {
            let mut draft = transition(event, "ops.note", cx.actor).states("running", "running");
            draft.detail = Some(detail.clone().into());
            Decision::Seal(Sealing { drafts: vec![draft], primary: 0, effect: None })
        }
        (SystemState::Keys(keys), Command::Key(change)) => keys::decide_service(keys, change, cx),
        (SystemState::Settings(state), Command::Setting(change)) => {
            live::decide_setting(state, change, cx)
        }
        (SystemState::Settings(state), Command::Source(change)) => {
            live::decide_source(state, change, cx)
        }
        (SystemState::Settings(state), Command::Tick) => live::tick(state, cx),
        (SystemState::Incidents(state), command) => incident::decide(rules, state, command, cx),
        (SystemState::Notices(state), command) => notices::decide(state, command, cx),
        (_, Command::Tick) => Decision::Nothing,
        _ => wrong_stream(),
    }
}

/// Records refusals that got no receipt of their own. It changes the state of no stream.
pub(crate) fn aggregate(
    reason: Reason,
    endpoint: &'static str,
    count: u64,
    window_s: i64,
    cx: &Context<'_>,
) -> Decision {
    let detail = reason.help().to_owned();
    let mut draft = refusal("request", "edge.aggregate", cx.actor, reason, detail);
    draft.subject = Some(endpoint.into());
    let count = i64::try_from(count).unwrap_or(INTEGER_MAX).min(INTEGER_MAX);
    let draft = draft.with("count", Meta::Int(count)).with("window_s", Meta::Int(window_s));
    Decision::Seal(Sealing { drafts: vec![draft], primary: 0, effect: None })
}
