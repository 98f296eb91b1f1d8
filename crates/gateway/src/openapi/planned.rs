//! The rota and maintenance.
//!
//! Owns: what is asked and answered there. Refuses to know: how callers prove who they are.

use governors::incident::MaintenancePhase;
use serde_json::{Value, json};
use types::limits;

use super::Contract;
use super::forms::{
    Member, answered, described, line, list, may, must, or_null, seconds, sent, text, words,
};
use super::requests::{body, instant, query};
use crate::table::Admin;

const COMPONENTS: &str = "1 to 32 names without commas";

/// What the operator's requests about what is planned take and answer; `None` for all others.
pub(super) fn contract(admin: Admin) -> Option<Contract> {
    Some(match admin {
        Admin::OnCall => Contract::seen("OnCall", "who is on call, and every override")
            .takes([query("at", "at which instant; now without it", instant())]),
        Admin::OverrideAdd => Contract::decided("the receipt of the override; subject is its id")
            .body(body("OverrideOrder", true, &[("cover", override_example())]))
            .refuses(&[415, 422]),
        Admin::OverrideEnd => Contract::decided("the receipt of its end")
            .segment("an override, such as OVR-3", text())
            .refuses(&[404, 422]),
        Admin::Maintenances => Contract::seen("Maintenances", "every window that is not over"),
        Admin::MaintenanceAdd => Contract::decided("the receipt of the window; subject is its id")
            .body(body("MaintenanceOrder", true, &[("disk", window_example())]))
            .refuses(&[415, 422]),
        Admin::MaintenanceEnd => Contract::decided("the receipt of its end")
            .segment("a window, such as MNT-3", text())
            .refuses(&[404, 422]),
        _ => return None,
    })
}

fn override_example() -> Value {
    json!({
        "rotation": "primary",
        "who": "ada",
        "from": "2026-12-24T09:00:00Z",
        "until": "2026-12-26T09:00:00Z",
        "why": "bob is away",
    })
}

fn window_example() -> Value {
    json!({
        "title": "a new disk",
        "components": ["ledger"],
        "from": "2026-12-24T02:00:00Z",
        "until": "2026-12-24T03:00:00Z",
        "text": "short pauses are possible",
    })
}

/// The schemas, by name.
pub(super) fn schemas() -> [(&'static str, Value); 4] {
    [
        ("OverrideOrder", override_order()),
        ("MaintenanceOrder", maintenance_order()),
        ("OnCall", oncall()),
        ("Maintenances", maintenances()),
    ]
}

/// As [`sent`], without members of other names.
fn closed(members: impl IntoIterator<Item = Member>) -> Value {
    let mut object = sent(members);
    object["additionalProperties"] = false.into();
    object
}

fn name() -> Value {
    line(1, limits::METADATA_VALUE_CHARS)
}

fn override_order() -> Value {
    closed([
        must("rotation", described(name(), "a rotation of the catalogue")),
        must("who", described(name(), "a person of the catalogue")),
        may("from", described(instant(), "now without it")),
        must("until", instant()),
        may("why", line(0, limits::INCIDENT_TEXT_CHARS)),
    ])
}

fn maintenance_order() -> Value {
    closed([
        must("title", described(name(), "the status page shows it")),
        must("components", described(list(name()), COMPONENTS)),
        may("from", described(instant(), "now without it")),
        must("until", described(instant(), "at most a week after it begins")),
        may("text", described(line(0, limits::INCIDENT_TEXT_CHARS), "the status page shows it")),
    ])
}

fn oncall() -> Value {
    let turn = answered([
        must("rotation", text()),
        must("who", or_null(described(text(), "nobody where it is null"))),
        must("channels", described(list(text()), "those that are set up")),
        must("override", or_null(described(text(), "the override that says so"))),
    ]);
    let one = answered([
        must("id", text()),
        must("rotation", text()),
        must("who", text()),
        must("from", seconds()),
        must("until", seconds()),
        must("by", text()),
    ]);
    answered([must("at", seconds()), must("oncall", list(turn)), must("overrides", list(one))])
}

fn maintenances() -> Value {
    let phases = MaintenancePhase::ALL.map(MaintenancePhase::as_str);
    let one = answered([
        must("id", text()),
        must("title", text()),
        must("components", list(text())),
        must("status", words(phases)),
        must("from", seconds()),
        must("until", seconds()),
        must("by", text()),
    ]);
    answered([must("maintenances", list(one))])
}
