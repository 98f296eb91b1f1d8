//! The entitlement governor: what a tenant holds, from when and until when.
//!
//! Owns: the four phases, scheduled changes and lapses of one entitlement, and the decision on a
//! change. Refuses to know: prices, and why anybody asks.

use std::borrow::Cow;

use ledger::{Draft, Kind, Meta, View};
use serde::{Deserialize, Serialize};
use types::{Micros, Reason, ReceiptId, credentials, limits};

use crate::command::{EntitlementAction, EntitlementChange};
use crate::decision::{Context, Decision, Sealing};
use crate::draft::{Secs, TIME, refusal, registration, rule, transition};
use crate::rules::Rules;
use crate::snapshot::word::{self, Word};
use crate::state::{FoldError, TenantState};
use crate::{invalid_field, unknown_tenant};

/// Bytes that the caller's metadata may take in a receipt, escapes counted: half of what a
/// receipt holds, so that the decision itself always fits beside it.
const METADATA_BYTES: usize = limits::RECEIPT_BYTES / 2;

/// Where an entitlement stands (seed 000). Serialised as its word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Phase {
    Unentitled,
    Entitled,
    Suspended,
    Revoked,
}

impl Phase {
    const ALL: [Phase; 4] = [Phase::Unentitled, Phase::Entitled, Phase::Suspended, Phase::Revoked];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Phase::Unentitled => "unentitled",
            Phase::Entitled => "entitled",
            Phase::Suspended => "suspended",
            Phase::Revoked => "revoked",
        }
    }

    fn refusal_detail(self, action: EntitlementAction) -> String {
        let hint = match (self, action) {
            (Phase::Suspended, EntitlementAction::Grant) => "; use resume",
            (Phase::Revoked, _) => "; a revocation is final",
            _ => "",
        };
        format!("cannot {} while {}{hint}", action.as_str(), self.as_str())
    }

    /// The whole table: where `action` leads, or why it is refused.
    fn after(self, action: EntitlementAction) -> Result<Phase, Reason> {
        use EntitlementAction::{Grant, Resume, Revoke, Suspend};
        match (self, action) {
            (Phase::Unentitled, Grant) | (Phase::Suspended, Resume) => Ok(Phase::Entitled),
            (Phase::Entitled, Suspend) => Ok(Phase::Suspended),
            (Phase::Entitled | Phase::Suspended, Revoke) => Ok(Phase::Revoked),
            (Phase::Entitled, Grant) => Err(Reason::EntitlementAlreadyActive),
            (Phase::Suspended | Phase::Revoked, Grant)
            | (Phase::Unentitled | Phase::Revoked, Revoke)
            | (Phase::Unentitled | Phase::Suspended | Phase::Revoked, Suspend)
            | (Phase::Unentitled | Phase::Entitled | Phase::Revoked, Resume) => {
                Err(Reason::StateError)
            }
        }
    }
}

impl Word for EntitlementAction {
    fn to_word(&self) -> String {
        self.as_str().to_owned()
    }

    fn from_word(word: &str) -> Option<EntitlementAction> {
        use EntitlementAction::{Grant, Resume, Revoke, Suspend};
        [Grant, Revoke, Suspend, Resume].into_iter().find(|action| action.as_str() == word)
    }
}

const fn rule_of(action: EntitlementAction) -> &'static str {
    match action {
        EntitlementAction::Grant => "entitlement.grant",
        EntitlementAction::Revoke => "entitlement.revoke",
        EntitlementAction::Suspend => "entitlement.suspend",
        EntitlementAction::Resume => "entitlement.resume",
    }
}

/// One entitlement of one tenant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entitlement {
    id: Box<str>,
    phase: Phase,
    expires_at: Option<Secs>,
    plan: Option<Box<str>>,
    scheduled: Option<Box<Scheduled>>,
}

/// A change that has been accepted and waits for its instant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Scheduled {
    #[serde(with = "word")]
    action: EntitlementAction,
    effective_at: Secs,
    expires_at: Option<Secs>,
    plan: Option<Box<str>>,
    /// The receipt that scheduled it.
    #[serde(with = "word")]
    receipt: ReceiptId,
}

/// What a receipt says of an entitlement: all that folding looks at. Decisions move their own
/// copy on by the same steps, so that the two cannot come apart.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// A change holds from now on; `due` when it had been scheduled.
    Change {
        action: EntitlementAction,
        to: Phase,
        expires_at: Option<Secs>,
        plan: Option<Box<str>>,
        due: bool,
    },
    /// A change will hold later.
    Schedule(Scheduled),
    /// A scheduled change was no longer permitted when its time came.
    Drop,
    /// The end of the grant has come.
    Lapse,
}

impl Entitlement {
    pub(crate) fn unentitled(id: &str) -> Entitlement {
        Entitlement {
            id: id.into(),
            phase: Phase::Unentitled,
            expires_at: None,
            plan: None,
            scheduled: None,
        }
    }

    /// What is left of one that was revoked: nothing but the fact.
    pub(crate) fn revoked(id: &str) -> Entitlement {
        Entitlement { phase: Phase::Revoked, ..Entitlement::unentitled(id) }
    }

    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    pub(crate) fn plan(&self) -> Option<&str> {
        self.plan.as_deref()
    }

    /// Where it stands, as receipts spell it.
    pub(crate) fn word(&self) -> &'static str {
        self.phase.as_str()
    }

    /// True when there is nothing to remember of it.
    pub(crate) fn is_blank(&self) -> bool {
        self.phase == Phase::Unentitled && self.scheduled.is_none()
    }

    /// True when nothing of it is left but that it was revoked.
    pub(crate) fn is_revoked(&self) -> bool {
        self.phase == Phase::Revoked
    }

    /// True when it is entitled as it stands; time may have changed that, see [`Entitlement::at`].
    pub(crate) fn is_entitled(&self) -> bool {
        self.phase == Phase::Entitled
    }

    /// When time alone changes it next.
    pub(crate) fn next_due(&self) -> Option<Secs> {
        let scheduled = self.scheduled.as_ref().map(|change| change.effective_at);
        scheduled.into_iter().chain(self.lapses_at()).min()
    }

    fn lapses_at(&self) -> Option<Secs> {
        self.expires_at.filter(|_| matches!(self.phase, Phase::Entitled | Phase::Suspended))
    }

    /// The entitlement as it is at `now`, counting what is due and not yet receipted.
    pub(crate) fn at(&self, now: Micros) -> Cow<'_, Entitlement> {
        if !self.next_due().is_some_and(|due| due.reached(now)) {
            return Cow::Borrowed(self);
        }
        let mut later = self.clone();
        while later.take_due(now).is_some() {}
        Cow::Owned(later)
    }

    /// Does the oldest thing that is due at `now`: returns its receipt to be and moves on as the
    /// fold of that receipt will. A scheduled change goes before a lapse of the same second, so
    /// that a revocation on the last day is final.
    pub(crate) fn take_due(&mut self, now: Micros) -> Option<Draft> {
        let due = self.next_due().filter(|due| due.reached(now))?;
        let scheduled = self.scheduled.as_deref().filter(|change| change.effective_at == due);
        let (draft, step) = match scheduled {
            Some(change) => self.due_change(change),
            None => {
                let mut draft = transition("lapse", rule::LAPSE, TIME)
                    .states(self.phase.as_str(), Phase::Unentitled.as_str());
                draft.expires_at = self.expires_at.map(Secs::instant);
                (draft, Step::Lapse)
            }
        };
        self.step(step);
        Some(self.named(draft))
    }

    fn due_change(&self, change: &Scheduled) -> (Draft, Step) {
        let action = change.action;
        let (mut draft, step) = match self.phase.after(action) {
            Ok(to) => {
                let mut draft = transition(action.as_str(), rule::EFFECTIVE, TIME)
                    .states(self.phase.as_str(), to.as_str());
                draft.expires_at = change.expires_at.map(Secs::instant);
                draft.metadata.extend(plan_entry(change.plan.as_deref()));
                let (expires_at, plan) = (change.expires_at, change.plan.clone());
                (draft, Step::Change { action, to, expires_at, plan, due: true })
            }
            Err(reason) => (self.refused(action, rule::EFFECTIVE, TIME, reason), Step::Drop),
        };
        draft.effective_at = Some(change.effective_at.instant());
        draft.intent = Some(change.receipt);
        (draft, step)
    }

    /// A refusal by the table of phases.
    fn refused(
        &self,
        action: EntitlementAction,
        rule: &'static str,
        actor: &str,
        reason: Reason,
    ) -> Draft {
        let mut draft =
            refusal(action.as_str(), rule, actor, reason, self.phase.refusal_detail(action));
        draft.state_from = Some(self.phase.as_str().into());
        draft
    }

    fn named(&self, mut draft: Draft) -> Draft {
        draft.entitlement_id = Some(self.id.to_string().into());
        draft
    }

    fn step(&mut self, step: Step) {
        use EntitlementAction::{Grant, Resume, Revoke, Suspend};
        match step {
            Step::Change { action, to, expires_at, plan, due } => {
                self.phase = to;
                match action {
                    Grant => (self.expires_at, self.plan) = (expires_at, plan),
                    Revoke => (self.expires_at, self.plan) = (None, None),
                    Suspend | Resume => {}
                }
                if due || matches!(action, Grant | Revoke) {
                    self.scheduled = None;
                }
            }
            Step::Schedule(change) => self.scheduled = Some(Box::new(change)),
            Step::Drop => self.scheduled = None,
            Step::Lapse => {
                self.phase = Phase::Unentitled;
                (self.expires_at, self.plan) = (None, None);
            }
        }
    }

    /// Folds one receipt of this entitlement that changes it.
    pub(crate) fn apply(&mut self, rule: &str, receipt: &View<'_>) -> Result<(), FoldError> {
        if !receipt.state_from.is_some_and(|from| from.is(self.phase.as_str())) {
            return Err(FoldError::StateFrom);
        }
        self.step(Step::read(rule, receipt)?);
        Ok(())
    }
}

impl Step {
    fn read(rule: &str, receipt: &View<'_>) -> Result<Step, FoldError> {
        let expires_at = receipt.expires_at.map(Secs);
        let plan = receipt.meta_text("plan").map(|plan| plan.as_ref().into());
        match (receipt.kind, rule) {
            (Kind::Refusal, _) => return Ok(Step::Drop),
            (_, rule::LAPSE) => return Ok(Step::Lapse),
            _ => {}
        }
        let action = EntitlementAction::from_word(&receipt.action.text())
            .ok_or(FoldError::Field { field: "action" })?;
        if rule == rule::SCHEDULE {
            let effective_at = receipt.effective_at.map(Secs);
            return Ok(Step::Schedule(Scheduled {
                action,
                effective_at: effective_at.ok_or(FoldError::Field { field: "effective_at" })?,
                expires_at,
                plan,
                receipt: receipt.id,
            }));
        }
        if rule != rule::EFFECTIVE && rule != rule_of(action) {
            return Err(FoldError::UnknownRule);
        }
        let to = receipt.state_to.and_then(|to| Phase::ALL.into_iter().find(|p| to.is(p.as_str())));
        Ok(Step::Change {
            action,
            to: to.ok_or(FoldError::Field { field: "state_to" })?,
            expires_at,
            plan,
            due: rule == rule::EFFECTIVE,
        })
    }
}

/// A change that nothing forbids.
struct Permitted {
    to: Phase,
    effective_at: Option<Secs>,
    later: bool,
    expires_at: Option<Secs>,
    plan: Option<Box<str>>,
}

type Refused = (Reason, String);

/// Decides a change. What has fallen due on the entitlement is receipted first, so that a change
/// never meets a grant that is already over.
pub(crate) fn decide(
    rules: &Rules,
    state: &TenantState,
    change: &EntitlementChange,
    cx: &Context<'_>,
) -> Decision {
    if let Some(fault) = metadata_fault(&change.metadata) {
        return invalid_field(fault);
    }
    let Some(mut drafts) = registration(state, cx) else {
        return unknown_tenant();
    };
    let id = change.entitlement_id.as_str();
    let mut held = state.entitlement(id);
    while let Some(draft) = held.take_due(cx.now) {
        drafts.push(draft);
    }
    let answer = match permit(rules, &held, no_room(state, id), change, cx.now) {
        Ok(permitted) => accepted(&held, change, &permitted, cx.actor),
        Err((reason, detail)) => {
            let word = change.action.as_str();
            let mut draft = refusal(word, rule_of(change.action), cx.actor, reason, detail);
            draft.state_from = Some(held.phase.as_str().into());
            draft
        }
    };
    let primary = drafts.len();
    drafts.push(held.named(answer));
    Decision::Seal(Sealing { drafts, primary, effect: None })
}

/// Why the tenant may hold nothing new. Whatever is held may always be changed, revoked above all:
/// that the revoked ones are too many stops grants, never a revocation.
fn no_room(state: &TenantState, id: &str) -> Option<&'static str> {
    if state.find(id).is_ok() {
        return None;
    }
    if state.entitlements.len() >= limits::ENTITLEMENTS_PER_TENANT {
        return Some("the tenant holds as many entitlements as one tenant may");
    }
    (state.revoked.len() >= limits::REVOKED_PER_TENANT)
        .then_some("as many entitlements of the tenant are revoked as are remembered of one tenant")
}

fn permit(
    rules: &Rules,
    held: &Entitlement,
    no_room: Option<&str>,
    change: &EntitlementChange,
    now: Micros,
) -> Result<Permitted, Refused> {
    let grant = change.action == EntitlementAction::Grant;
    let state_error = |detail: &str| Err((Reason::StateError, detail.to_owned()));
    let named_plan = plan_of(rules, change)?;
    let to = held
        .phase
        .after(change.action)
        .map_err(|reason| (reason, held.phase.refusal_detail(change.action)))?;
    let effective_at = change.effective_at.map(Secs::floor);
    let later = effective_at.is_some_and(|at| !at.reached(now));
    let expires_at = change.expires_at.map(Secs::floor);
    if expires_at.is_some() && !grant {
        return state_error("only a grant may set expires_at");
    }
    if expires_at.is_some_and(|end| end.reached(now)) {
        return state_error("expires_at has passed");
    }
    if later && expires_at.is_some_and(|end| Some(end) <= effective_at) {
        return state_error("expires_at is not after effective_at");
    }
    if later && held.scheduled.is_some() {
        return state_error("another change is scheduled already");
    }
    if let Some(detail) = no_room {
        return Err((Reason::TooManyEntitlements, detail.to_owned()));
    }
    // A plan belongs to the grant; on any other change the receipt repeats the one that is held.
    let plan = if grant { named_plan } else { held.plan.clone() };
    Ok(Permitted { to, effective_at, later, expires_at, plan })
}

fn accepted(
    held: &Entitlement,
    change: &EntitlementChange,
    permitted: &Permitted,
    actor: &str,
) -> Draft {
    let word = change.action.as_str();
    let from = held.phase.as_str();
    let mut draft = if permitted.later {
        transition(word, rule::SCHEDULE, actor)
            .states(from, from)
            .with("change", Meta::Text(word.into()))
    } else {
        transition(word, rule_of(change.action), actor).states(from, permitted.to.as_str())
    };
    draft.effective_at = permitted.effective_at.map(Secs::instant);
    draft.expires_at = permitted.expires_at.map(Secs::instant);
    draft.metadata.extend(plan_entry(permitted.plan.as_deref()));
    // The prefix keeps a caller's words apart from ours.
    draft.metadata.extend(
        change
            .metadata
            .iter()
            .map(|(key, value)| (format!("meta.{key}").into(), Meta::Text(value.clone().into()))),
    );
    draft
}

/// The plan that the caller names, or that the entitlement is called after.
fn plan_of(rules: &Rules, change: &EntitlementChange) -> Result<Option<Box<str>>, Refused> {
    let catalogue = &rules.catalogue;
    let plan =
        match &change.plan {
            None => catalogue.plan(change.entitlement_id.as_str()),
            Some(name) => Some(catalogue.plan(name).ok_or_else(|| {
                (Reason::InvalidField, "plan is not in the catalogue".to_owned())
            })?),
        };
    Ok(plan.map(|plan| plan.name.as_str().into()))
}

fn plan_entry(plan: Option<&str>) -> Option<(ledger::draft::Text, Meta)> {
    plan.map(|plan| ("plan".into(), Meta::Text(plan.to_owned().into())))
}

/// Why a receipt cannot keep the caller's metadata. Asked before sealing, because there it would
/// be a failure of ours; and before registering, because it is a fault of form.
fn metadata_fault(entries: &[(String, String)]) -> Option<&'static str> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let escaped =
        |text: &str| text.len() + text.bytes().filter(|byte| matches!(byte, b'"' | b'\\')).count();
    let bytes: usize = entries.iter().map(|(key, value)| key.len() + escaped(value) + 16).sum();
    if entries.len() > limits::METADATA_ENTRIES || bytes > METADATA_BYTES {
        return Some("metadata is larger than a receipt keeps");
    }
    if entries.iter().any(|(key, _)| key.is_empty() || !key.bytes().all(plain)) {
        return Some("metadata keys may hold letters, digits and . _ - only");
    }
    // A receipt is for ever, and whoever may read one would read the credential.
    let credential = |(key, value): &(String, String)| {
        credentials::is_credential_name(key) || credentials::is_credential(value)
    };
    if entries.iter().any(credential) {
        return Some("metadata may not hold credentials");
    }
    let repeats = |(at, (key, _)): (usize, &(String, String))| {
        entries[..at].iter().any(|(earlier, _)| earlier == key)
    };
    entries.iter().enumerate().any(repeats).then_some("metadata repeats a key")
}
