//! Receipts to be, as governors write them.
//!
//! Owns: the rule names and the fields that every draft of this crate fills. Refuses to know:
//! which draft is right.

use ledger::draft::Text;
use ledger::{Draft, Kind};
use types::{Micros, Reason, credentials};

use crate::decision::Context;
use crate::state::TenantState;

/// The rules that decide, as the receipt field `rule` names them. Folding matches on them.
pub(crate) mod rule {
    pub(crate) const REGISTER: &str = "tenant.register";
    pub(crate) const SCHEDULE: &str = "entitlement.schedule";
    pub(crate) const EFFECTIVE: &str = "entitlement.effective";
    pub(crate) const LAPSE: &str = "entitlement.lapse";
    pub(crate) const QUOTE: &str = "account.quote";
    pub(crate) const CHARGE: &str = "account.charge";
    pub(crate) const GATE: &str = "signal.gate";
    pub(crate) const STALE: &str = "signal.stale";
    pub(crate) const COALESCE: &str = "signal.coalesce";
    pub(crate) const INTERVENE: &str = "signal.intervene";
    pub(crate) const WARN: &str = "signal.warn";
    pub(crate) const CALM: &str = "signal.calm";
    pub(crate) const SETTLED: &str = "signal.settled";
    pub(crate) const SETTLE: &str = "action.settle";
    pub(crate) const THROTTLE_END: &str = "throttle.lease";
    pub(crate) const BUDGET_RESERVE: &str = "budget.reserve";
    pub(crate) const BUDGET_TOP_UP: &str = "budget.top_up";
    pub(crate) const BUDGET_CHARGE: &str = "budget.charge";
    pub(crate) const BUDGET_SETTLE: &str = "budget.settle";
    pub(crate) const BUDGET_LEVEL: &str = "budget.level";
    pub(crate) const BUDGET_SET: &str = "budget.set";
    pub(crate) const BUDGET_CLEAR: &str = "budget.clear";
    pub(crate) const KEY_ISSUE: &str = "key.issue";
    pub(crate) const KEY_END: &str = "key.end";
    pub(crate) const KEY_REVOKE: &str = "key.revoke";
    pub(crate) const SETTINGS_SET: &str = "settings.set";
    pub(crate) const SETTINGS_LEASE: &str = "settings.lease";
    pub(crate) const SETTINGS_CLEAR: &str = "settings.clear";
    pub(crate) const SETTINGS_LEASE_END: &str = "settings.lease_end";
    pub(crate) const SOURCE_BLOCK: &str = "source.block";
    pub(crate) const SOURCE_UNBLOCK: &str = "source.unblock";
    pub(crate) const SOURCE_LEASE_END: &str = "source.lease_end";
    pub(crate) const ALERT_CHANGE: &str = "alert.change";
    pub(crate) const SILENCE_SET: &str = "silence.set";
    pub(crate) const SILENCE_CLEAR: &str = "silence.clear";
    pub(crate) const SILENCE_LEASE_END: &str = "silence.lease_end";
    pub(crate) const OVERRIDE_ADD: &str = "oncall.override";
    pub(crate) const OVERRIDE_END: &str = "oncall.override_end";
    pub(crate) const OVERRIDE_OVER: &str = "oncall.override_over";
    pub(crate) const MAINTENANCE_ADD: &str = "maintenance.add";
    pub(crate) const MAINTENANCE_END: &str = "maintenance.end";
    pub(crate) const MAINTENANCE_OVER: &str = "maintenance.over";
    pub(crate) const INCIDENT_OPEN: &str = "incident.open";
    pub(crate) const INCIDENT_JOIN: &str = "incident.join";
    pub(crate) const INCIDENT_ESCALATE: &str = "incident.escalate";
    pub(crate) const INCIDENT_ACKNOWLEDGE: &str = "incident.acknowledge";
    pub(crate) const INCIDENT_ASSIGN: &str = "incident.assign";
    pub(crate) const INCIDENT_GRADE: &str = "incident.grade";
    pub(crate) const INCIDENT_STATUS: &str = "incident.status";
    pub(crate) const INCIDENT_UPDATE: &str = "incident.update";
    pub(crate) const INCIDENT_NOTE: &str = "incident.note";
    pub(crate) const INCIDENT_REROUTE: &str = "incident.reroute";
    pub(crate) const INCIDENT_RECOVERED: &str = "incident.recovered";
    pub(crate) const INCIDENT_RESOLVE: &str = "incident.resolve";
    pub(crate) const INCIDENT_CORRECT: &str = "incident.correct";
    pub(crate) const NOTICE_BEGIN: &str = "notice.begin";
    pub(crate) const NOTICE_TELL: &str = "notice.tell";
    pub(crate) const NOTICE_TOLD: &str = "notice.told";
    pub(crate) const NOTICE_TEST: &str = "notice.test";
}

/// Who acts when only time has passed. The same whichever command noticed it, because that
/// command's caller asked for nothing of the kind.
pub(crate) const TIME: &str = "governor";

/// The state of an account once it exists, the field `state_to` of its registration.
pub(crate) const REGISTERED: &str = "registered";

pub(crate) fn transition(action: &'static str, rule: &'static str, actor: &str) -> Draft {
    ruled(Kind::Transition, action, rule, actor)
}

pub(crate) fn ruled(kind: Kind, action: impl Into<Text>, rule: &'static str, actor: &str) -> Draft {
    let mut draft = Draft::new(kind, action);
    draft.rule = Some(rule.into());
    draft.actor = Some(actor.to_owned().into());
    draft
}

pub(crate) fn refusal(
    action: &'static str,
    rule: &'static str,
    actor: &str,
    reason: Reason,
    detail: String,
) -> Draft {
    let mut draft = ruled(Kind::Refusal, action, rule, actor);
    draft.reason = Some(reason.code().into());
    draft.detail = Some(detail.into());
    draft
}

/// What must stand before the answer to a caller of this tenant: its registration, or nothing;
/// `None` when the tenant is unknown and this caller may not register it.
pub(crate) fn registration(state: &TenantState, cx: &Context<'_>) -> Option<Vec<Draft>> {
    match (state.registered, cx.may_register) {
        (true, _) => Some(Vec::new()),
        (false, true) => {
            let draft = transition("register", rule::REGISTER, cx.actor);
            Some(vec![draft.states("unregistered", REGISTERED)])
        }
        (false, false) => None,
    }
}

/// True when a receipt may keep the text of a caller: at most `chars_max` characters, none of them
/// a control character, and nothing that begins as a credential does, because a receipt is for
/// ever.
pub(crate) fn is_keepable(text: &str, chars_max: usize) -> bool {
    text.chars().count() <= chars_max
        && !text.chars().any(char::is_control)
        && !credentials::is_credential(text)
}

/// An instant as receipts hold it. Commands are floored to it before anything is decided, so that
/// a decision and the fold of its receipt see the same instant.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, serde::Serialize, serde::Deserialize,
)]
#[serde(transparent)]
pub(crate) struct Secs(pub(crate) i64);

impl Secs {
    pub(crate) fn floor(instant: Micros) -> Secs {
        Secs(instant.secs())
    }

    pub(crate) fn instant(self) -> Micros {
        Micros::from_secs(self.0)
    }

    /// True when this instant is not after `now`.
    pub(crate) fn reached(self, now: Micros) -> bool {
        self.instant() <= now
    }
}
