//! The work that is measured: tenants that are granted, suspended and resumed, over and over.
//!
//! Owns: names, bodies and the order of actions, the same for the engine and for HTTP. Refuses to
//! know: who sends it.

use anyhow::{Context, Result};
use governors::{Command, EntitlementAction, EntitlementChange};
use types::{EntitlementId, TenantId};

/// The plan that each grant names.
const PLAN: &str = "professional";

/// What a tenant's `step`-th command is: a grant, then suspend and resume in turn.
pub(crate) fn action(step: usize) -> EntitlementAction {
    match step {
        0 => EntitlementAction::Grant,
        odd if odd % 2 == 1 => EntitlementAction::Suspend,
        _ => EntitlementAction::Resume,
    }
}

/// A tenant by number.
pub(crate) fn tenant_name(prefix: &str, tenant: usize) -> String {
    format!("{prefix}-{tenant:06}")
}

/// The body of an entitlement event, as a marketplace sends it.
pub(crate) fn body(prefix: &str, tenant: usize, action: EntitlementAction) -> String {
    let (name, word) = (tenant_name(prefix, tenant), action.as_str());
    let plan = match action {
        EntitlementAction::Grant => format!(",\"metadata\":{{\"plan\":\"{PLAN}\"}}"),
        _ => String::new(),
    };
    format!(
        "{{\"tenant_id\":\"{name}\",\"entitlement_id\":\"ent-{tenant:06}\",\"action\":\"{word}\"{plan}}}"
    )
}

/// The command that the front door makes of [`body`].
pub(crate) fn command(
    prefix: &str,
    tenant: usize,
    action: EntitlementAction,
) -> Result<(TenantId, Command)> {
    let name = TenantId::new(&tenant_name(prefix, tenant)).context("not a tenant id")?;
    let id = EntitlementId::new(&format!("ent-{tenant:06}")).context("not an entitlement id")?;
    let plan = (action == EntitlementAction::Grant).then(|| PLAN.to_owned());
    let metadata = plan.iter().map(|plan| ("plan".to_owned(), plan.clone())).collect();
    let change = EntitlementChange {
        entitlement_id: id,
        action,
        effective_at: None,
        expires_at: None,
        plan,
        metadata,
    };
    Ok((name, Command::Entitlement(change)))
}
