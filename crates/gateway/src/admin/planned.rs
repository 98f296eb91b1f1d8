//! Who is on call, overrides of that, and maintenance windows.
//!
//! Owns: how each is shown. Refuses to know: whose turn it is, and what is lawful when.

use dialect::admin::planned::{self, MaintenanceOrder, OverrideOrder};
use engine::incidents::stream;
use governors::incident::{
    Maintenance, MaintenancePhase, Override, maintenance_number, override_number,
};
use governors::{Command, MaintenanceChange, OverrideChange};
use serde_json::{Value, json};
use types::Reason;

use super::{Asked, decide, known, ok, receipt};
use crate::Gateway;
use crate::answer::{Handled, fault};

/// Who is on call now, or at the instant that is asked for; with every override that is known.
pub(super) async fn oncall(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    const WRONG: &str = "at must be an ISO 8601 time with an offset or integer unix seconds, \
                         in the years 1970 to 9999";
    let at = match asked.parameter("at")? {
        None => gateway.engine.clock().now(),
        Some(text) => planned::instant(text).ok_or_else(|| fault(Reason::InvalidField, WRONG))?,
    };
    let state = gateway.engine.incidents().await?;
    let overrides = state.incidents().map(|held| held.overrides()).unwrap_or_default();
    let rota = gateway.engine.rules().oncall().rota();
    let one = |rotation: &str| {
        let found = rota.on_call(rotation, overrides, at);
        json!({
            "rotation": rotation,
            "who": found.map(|(person, _)| &person.name),
            "channels": found.map(|(person, _)| &*person.channels).unwrap_or_default(),
            "override": found.and_then(|(_, held)| held).map(Override::name),
        })
    };
    let turns: Vec<Value> = rota.rotations().map(one).collect();
    let overrides: Vec<Value> = overrides
        .iter()
        .map(|held| {
            json!({
                "id": held.name(),
                "rotation": held.rotation,
                "who": held.person,
                "from": held.from_s,
                "until": held.until_s,
                "by": held.by,
            })
        })
        .collect();
    ok(&json!({ "at": at.secs(), "oncall": turns, "overrides": overrides }))
}

pub(super) async fn override_add(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let OverrideOrder { rotation, who, from, until, why } =
        planned::override_order(&asked.body, &gateway.json)?;
    let change = OverrideChange::Add { rotation, person: who, from, until, why };
    receipt(&decide(gateway, asked, stream(), Command::Override(change)).await?)
}

pub(super) async fn override_end(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let number = override_number(asked.segment()?);
    let number = number.ok_or_else(|| fault(Reason::NotFound, "there is no such override"))?;
    let command = Command::Override(OverrideChange::End { number });
    receipt(&decide(gateway, asked, stream(), command).await?)
}

/// The windows that are not over.
pub(super) async fn maintenances(gateway: &Gateway) -> Handled {
    let (state, now) = (gateway.engine.incidents().await?, gateway.engine.clock().now());
    let all = state.incidents().map(|held| held.maintenances()).unwrap_or_default();
    let ahead = all.iter().filter(|held| held.phase(now) != MaintenancePhase::Completed);
    let one = |held: &Maintenance| {
        json!({
            "id": held.name(),
            "title": held.title,
            "components": held.components,
            "status": held.phase(now).as_str(),
            "from": held.from_s,
            "until": held.until_s,
            "by": held.by,
        })
    };
    ok(&json!({ "maintenances": ahead.map(one).collect::<Vec<Value>>() }))
}

pub(super) async fn maintenance_add(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let MaintenanceOrder { title, components, from, until, text } =
        planned::maintenance(&asked.body, &gateway.json)?;
    let names: Vec<&str> = components.iter().map(String::as_str).collect();
    known::check(gateway, "components", &names).await?;
    let change = MaintenanceChange::Add { title, components, from, until, text };
    receipt(&decide(gateway, asked, stream(), Command::Maintenance(change)).await?)
}

pub(super) async fn maintenance_end(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let number = maintenance_number(asked.segment()?);
    let number = number.ok_or_else(|| fault(Reason::NotFound, "there is no such window"))?;
    let command = Command::Maintenance(MaintenanceChange::End { number });
    receipt(&decide(gateway, asked, stream(), command).await?)
}
