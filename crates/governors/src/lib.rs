//! Governors: who may do what, decided from folded receipts and nothing else.
//!
//! Owns: the closed table of state × command for every kind of stream, the fold that receipts
//! change state by, and the catalogue that prices and thresholds come from. Refuses to know: any
//! clock, storage, wire format, or how an action is performed.
//!
//! Two rules hold everywhere. State changes only by [`StreamState::apply`], so that what is
//! decided now and what is folded after a restart cannot differ. And [`decide`] never fails: what
//! is not permitted is a refusal with a reason, not an error.

mod account;
mod ai;
mod budget;
pub mod command;
pub mod decision;
mod draft;
mod entitlement;
pub mod incident;
mod keys;
pub mod labels;
mod limits;
mod live;
pub mod notices;
pub mod oncall;
pub mod period;
pub mod plan;
pub mod prices;
pub mod rota;
pub mod rules;
mod section;
mod signal;
mod snapshot;
pub mod state;
pub mod statement;
mod system;
mod tally;
#[cfg(test)]
mod tests;
mod tick;

pub use command::{
    AlertChange, AlertPhase, BudgetChange, Carried, Charge, Command, Declared, EntitlementAction,
    EntitlementChange, Gone, IncidentChange, IncidentDeed, IncidentRole, IncidentStatus, KeyChange,
    MaintenanceChange, NoticeChange, Outcome, OutcomeStatus, OverrideChange, Reserve,
    SettingChange, Signal, SilenceChange, SourceChange, TellOutcome, Telling,
};
pub use decision::{Context, Decision, Effect, Rejection, Sealing};
pub use labels::{Touch, touches, transition_labels};
pub use limits::{LimitSource, Limits};
pub use live::change_of;
pub use period::Period;
pub use plan::Plan;
pub use prices::ModelPrice;
pub use rules::{Catalogue, Rules};
pub use section::CatalogueError;
pub use state::{
    FoldError, HeldKey, Keys, LiveState, LiveValue, StreamState, SystemState, TenantState,
};
pub use statement::{AiView, InvoiceView, ModelView};
pub use tally::Level;

use ledger::{Draft, Kind};
use types::Reason;

/// Decides one command. Total: every command on every state has an answer, and none of them
/// changes `state`; only sealed receipts do, through [`StreamState::apply`].
#[must_use]
pub fn decide(rules: &Rules, state: &StreamState, command: &Command, cx: &Context<'_>) -> Decision {
    debug_assert_eq!(cx.stream.is_system(), matches!(state, StreamState::System(_)));
    let decision = match state {
        StreamState::System(state) => system::decide(rules, state, command, cx),
        StreamState::Tenant(state) => match command {
            Command::Entitlement(change) => entitlement::decide(rules, state, change, cx),
            Command::Quote { charge } => account::decide(rules, state, *charge, cx),
            Command::Signal(signal) => signal::decide(rules, state, signal, cx),
            Command::Settle { attempt, outcome } if state.has_reserved(*attempt) => {
                budget::settle(rules, state, *attempt, *outcome, cx)
            }
            Command::Settle { attempt, outcome } => {
                signal::settle(rules, state, *attempt, *outcome, cx)
            }
            Command::Reserve(asked) => budget::reserve(rules, state, asked, cx),
            Command::TopUp { attempt, output } => {
                budget::top_up(rules, state, *attempt, *output, cx)
            }
            Command::Charge { attempt, charge } => {
                budget::charge(rules, state, *attempt, charge, cx)
            }
            Command::Budget(change) => budget::change(state, *change, cx),
            Command::Tick => tick::decide(state, cx),
            Command::Key(change) => keys::decide_tenant(state, change, cx),
            Command::Refused { .. } if !state.registered => unknown_tenant(),
            Command::Refused { reason, endpoint, count, window_s } => {
                system::aggregate(*reason, endpoint, *count, *window_s, cx)
            }
            Command::Untenanted { .. }
            | Command::Setting(_)
            | Command::Source(_)
            | Command::Alert(_)
            | Command::Incident(_)
            | Command::Silence(_)
            | Command::Override(_)
            | Command::Maintenance(_)
            | Command::Carried(_)
            | Command::Notice(_)
            | Command::Note { .. } => wrong_stream(),
        },
    };
    debug_assert!(at_most_one_action(state, &decision), "INV-8");
    decision
}

/// INV-8: at most one action of a tenant is in flight. A unit may start one only where none is,
/// or behind the result of the one that was. Calls to models are no actions of the governors: as
/// many may be open as are reserved for.
fn at_most_one_action(state: &StreamState, decision: &Decision) -> bool {
    let Decision::Seal(sealing) = decision else { return true };
    if matches!(state, StreamState::System(_)) {
        return true;
    }
    let mut in_flight = state.in_flight().is_some();
    let of_call =
        |draft: &&Draft| draft.rule.as_ref().is_some_and(|rule| rule.starts_with(budget::RULES));
    sealing.drafts.iter().filter(|draft| !of_call(draft)).all(|draft| match draft.kind {
        Kind::ActionAttempt => !std::mem::replace(&mut in_flight, true),
        Kind::ActionResult => std::mem::replace(&mut in_flight, false),
        Kind::Transition | Kind::Refusal => true,
    })
}

/// The answer to a command that this kind of stream does not take.
fn wrong_stream() -> Decision {
    Decision::Reject(Rejection {
        reason: Reason::StateError,
        detail: "this stream does not take the command".to_owned(),
        retry_after_s: None,
    })
}

/// The answer to a command whose form no governor accepts: no receipt, whatever the state.
fn invalid_field(detail: &str) -> Decision {
    Decision::Reject(Rejection {
        reason: Reason::InvalidField,
        detail: detail.to_owned(),
        retry_after_s: None,
    })
}

/// The answer to a command for a tenant that nobody has registered.
fn unknown_tenant() -> Decision {
    Decision::Reject(Rejection {
        reason: Reason::UnknownTenant,
        detail: "the tenant is not registered".to_owned(),
        retry_after_s: None,
    })
}
