//! The status page as Statuspage's `summary.json`, so that tools that read one read this.
//!
//! Owns: the names of members. Refuses to know: where the state comes from.

use governors::incident::MaintenancePhase;
use serde_json::{Value, json};
use types::Micros;

use super::board::{Board, ComponentState, Item, Said};
use super::planned::Window;

/// What Statuspage would give an id to each of.
const PAGE_ID: &str = "tai";

/// The summary of a board that was read at `as_of`, `age_s` seconds ago.
pub(super) fn summary(board: &Board, known: &[String], as_of: Micros, age_s: i64) -> Value {
    let now = as_of.plus_secs(age_s);
    let all = board.components(known, now);
    let places = 1..;
    let components: Vec<Value> = all
        .iter()
        .zip(places)
        .map(|((name, state), place)| component(name, *state, place, since(board, name, as_of)))
        .collect();
    let incidents: Vec<Value> =
        board.open.iter().rev().map(|item| incident(item, &components)).collect();
    let windows: Vec<Value> =
        board.plans.ahead(now).map(|held| window(held, &components, now)).collect();
    let indicator = board.indicator();
    json!({
        "page": {
            "id": PAGE_ID,
            "name": super::NAME,
            "url": "/status",
            "time_zone": "Etc/UTC",
            "updated_at": as_of.to_string(),
            "age_s": age_s,
        },
        "components": components,
        "incidents": incidents,
        "scheduled_maintenances": windows,
        "status": { "indicator": indicator.as_str(), "description": board.overall(now) },
    })
}

/// When the component came to its state, as far as open incidents tell; else when that was seen.
fn since(board: &Board, component: &str, as_of: Micros) -> Micros {
    let affects = |held: &&Item| held.components.iter().any(|name| name == component);
    board.open.iter().filter(affects).map(|held| held.updated).max().unwrap_or(as_of)
}

fn component(name: &str, state: ComponentState, place: usize, updated: Micros) -> Value {
    json!({
        "id": name,
        "name": name,
        "status": state.as_str(),
        "position": place,
        "description": null,
        "group": false,
        "group_id": null,
        "page_id": PAGE_ID,
        "showcase": true,
        "only_show_if_degraded": false,
        "updated_at": updated.to_string(),
    })
}

fn incident(item: &Item, components: &[Value]) -> Value {
    let affected = |shown: &&Value| item.components.iter().any(|name| shown["name"] == **name);
    let updates: Vec<Value> = item.updates.iter().rev().map(|said| update(item, said)).collect();
    json!({
        "id": item.name,
        "name": item.title,
        "status": item.status.as_str(),
        "impact": item.impact().as_str(),
        "page_id": PAGE_ID,
        "shortlink": "/status",
        "started_at": item.began.to_string(),
        "created_at": item.opened.to_string(),
        "updated_at": item.updated.to_string(),
        "monitoring_at": item.monitoring.map(|at| at.to_string()),
        "resolved_at": item.resolved.map(|at| at.to_string()),
        "incident_updates": updates,
        "components": components.iter().filter(affected).collect::<Vec<_>>(),
    })
}

fn update(item: &Item, said: &Said) -> Value {
    let at = said.at.to_string();
    json!({
        "id": format!("{}-{}", item.name, said.nth),
        "incident_id": item.name,
        "status": said.status.as_str(),
        "body": said.text,
        "created_at": at,
        "updated_at": at,
        "display_at": at,
    })
}

/// A window, with what is said of it: that it was planned, and that it goes on.
fn window(held: &Window, components: &[Value], now: Micros) -> Value {
    let phase = held.phase(now);
    let step = |phase: MaintenancePhase, at: Micros, text: &str| {
        let at = at.to_string();
        json!({
            "id": format!("{}-{}", held.name, phase.as_str()),
            "incident_id": held.name,
            "status": phase.as_str(),
            "body": text,
            "created_at": at,
            "updated_at": at,
            "display_at": at,
        })
    };
    let planned = step(MaintenancePhase::Scheduled, held.created, &held.text);
    let begun = (phase == MaintenancePhase::InProgress).then(|| step(phase, held.from, ""));
    let updated = if begun.is_some() { held.from } else { held.created };
    let affected = |shown: &&Value| held.components.iter().any(|name| shown["name"] == **name);
    json!({
        "id": held.name,
        "name": held.title,
        "status": phase.as_str(),
        "impact": "maintenance",
        "page_id": PAGE_ID,
        "shortlink": "/status",
        "started_at": held.from.to_string(),
        "created_at": held.created.to_string(),
        "updated_at": updated.to_string(),
        "monitoring_at": null,
        "resolved_at": null,
        "scheduled_for": held.from.to_string(),
        "scheduled_until": held.until.to_string(),
        "incident_updates": begun.into_iter().chain([planned]).collect::<Vec<_>>(),
        "components": components.iter().filter(affected).collect::<Vec<_>>(),
    })
}
