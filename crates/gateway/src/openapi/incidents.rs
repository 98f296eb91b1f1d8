//! Alerts, silences, incidents, channels and the status page.
//!
//! Owns: what is asked and answered there. Refuses to know: how callers prove who they are.

use governors::incident::MaintenancePhase;
use governors::{AlertPhase, IncidentRole, IncidentStatus};
use serde_json::{Value, json};
use types::{Severity, limits};

use super::answers::{RECEIPT_ID, Told, answer};
use super::forms::{
    Member, answered, count, described, flag, integer, line, list, matching, may, must, nothing,
    or_null, schema, seconds, sent, text, words,
};
use super::requests::{body, parameter};
use super::{ANY, Contract};
use crate::status;
use crate::table::Admin;

const MATCHER: &str = "rule=ID, component=NAME or alert=KEY";
const SEVERITIES: &str =
    "sev1 to sev4, SEV-1 to SEV-4, P0 to P4, or critical, error, warning and info";
const INCIDENT: &str = "an incident, such as INC-7";

/// What the operator's requests about incidents take and answer; `None` for all others.
pub(super) fn contract(admin: Admin) -> Option<Contract> {
    let of_one = |contract: Contract| contract.segment(INCIDENT, text()).refuses(&[404]);
    Some(match admin {
        Admin::Alerts => Contract::seen("Alerts", "every alert that is not inactive"),
        Admin::Silences => Contract::seen("Silences", "every silence that is not over"),
        Admin::SilenceSet => Contract::decided("the receipt of the silence, which is in force")
            .body(body("SilenceOrder", true, &[]))
            .refuses(&[415, 422]),
        Admin::SilenceClear => {
            Contract::decided("the receipt of its end").takes([matcher()]).refuses(&[422])
        }
        Admin::Incidents => Contract::seen("Incidents", "every incident that is not resolved"),
        Admin::IncidentDeclare => Contract::decided("the receipt that opened it")
            .body(body("IncidentOrder", true, &examples()[..1]))
            .refuses(&[415, 422]),
        Admin::Incident => of_one(Contract::seen("IncidentStory", "what its receipts say")),
        Admin::IncidentAct => of_one(Contract::operator())
            .body(body("IncidentDeed", true, &examples()[1..]))
            .answers(
                200,
                "IncidentAnswer",
                Told::Decided,
                "the receipt; or the incident as it stands, where that was done before",
            )
            .refuses(&[415, 422]),
        Admin::PostMortem => {
            let draft = answer("text/markdown", text(), Told::Keyed, "the draft");
            of_one(Contract::operator()).replies(200, draft)
        }
        Admin::Channels => Contract::seen("Channels", "every channel that was ever told anything"),
        Admin::ChannelTest => Contract::operator()
            .segment("a channel, such as slack", text())
            .answers(200, "ChannelTest", Told::Keyed, "what came of it")
            .refuses(&[404]),
        _ => return None,
    })
}

/// The status page.
pub(super) fn status_contract(form: status::Status) -> Contract {
    let contract = Contract::new(&[ANY, &[503, 504]]);
    match form {
        status::Status::Page => {
            contract.replies(200, answer("text/html", text(), Told::All, "the page"))
        }
        status::Status::Summary => {
            contract.answers(200, "StatusSummary", Told::All, "the page, as Statuspage has it")
        }
    }
}

fn matcher() -> Value {
    let mut matcher = parameter("query", "matcher", MATCHER, text());
    matcher["required"] = true.into();
    matcher
}

/// The first is a declaration, the others are deeds.
fn examples() -> [(&'static str, Value); 4] {
    [
        (
            "declare",
            json!({
                "title": "checkout answers with errors",
                "severity": "SEV-2",
                "component": "http",
                "text": "seen by support",
            }),
        ),
        ("acknowledge", json!({ "do": "acknowledge" })),
        ("assign", json!({ "do": "assign", "role": "commander", "who": "alice" })),
        ("identify", json!({ "do": "status", "status": "identified", "text": "a bad deployment" })),
    ]
}

/// The schemas, by name.
pub(super) fn schemas() -> [(&'static str, Value); 12] {
    [
        ("SilenceOrder", silence_order()),
        ("IncidentOrder", incident_order()),
        ("IncidentDeed", deed()),
        ("Alerts", alerts()),
        ("Silences", silences()),
        ("Incident", incident()),
        ("Incidents", answered([must("incidents", list(schema("Incident")))])),
        ("IncidentStory", story()),
        ("IncidentAnswer", json!({ "oneOf": [schema("Receipt"), schema("Incident")] })),
        ("Channels", channels()),
        ("ChannelTest", channel_test()),
        ("StatusSummary", summary()),
    ]
}

/// As [`sent`], without members of other names.
fn closed(members: impl IntoIterator<Item = Member>) -> Value {
    let mut object = sent(members);
    object["additionalProperties"] = false.into();
    object
}

fn severity_word() -> Value {
    described(text(), SEVERITIES)
}

fn name() -> Value {
    line(1, limits::METADATA_VALUE_CHARS)
}

fn said(min_chars: usize) -> Value {
    line(min_chars, limits::INCIDENT_TEXT_CHARS)
}

fn silence_order() -> Value {
    closed([
        must("matcher", described(name(), MATCHER)),
        must("lease_s", described(integer(1, limits::LEASE_S_MAX), "seconds that it lasts")),
        may("why", said(0)),
    ])
}

fn incident_order() -> Value {
    closed([
        must("title", name()),
        must("severity", severity_word()),
        must("component", name()),
        may("text", said(0)),
    ])
}

fn deed() -> Value {
    let deed = |word: &str| must("do", words([word]));
    let forms = [
        closed([deed("acknowledge")]),
        closed([deed("assign"), must("role", roles()), must("who", name())]),
        closed([deed("grade"), must("severity", severity_word())]),
        closed([
            deed("status"),
            must("status", status_word()),
            may("text", said(0)),
            may("public", described(flag(), "of resolved alone: the public may read the text")),
        ]),
        closed([deed("update"), must("text", said(1))]),
        closed([deed("note"), must("text", said(1))]),
    ];
    json!({ "oneOf": forms })
}

fn severity() -> Value {
    words(Severity::ALL.map(Severity::as_str))
}

fn status_word() -> Value {
    words(IncidentStatus::ALL.iter().map(|status| status.as_str()))
}

fn roles() -> Value {
    words(IncidentRole::ALL.iter().map(|role| role.as_str()))
}

fn alerts() -> Value {
    let phases = AlertPhase::ALL.iter().filter(|phase| **phase != AlertPhase::Inactive);
    let one = answered([
        must("key", text()),
        must("rule", text()),
        must("phase", words(phases.map(|phase| phase.as_str()))),
        must("since", seconds()),
        must("severity", severity()),
        must("component", text()),
        must("title", text()),
        must("incident", or_null(described(text(), "the incident that it belongs to"))),
        must("silenced", described(flag(), "it opens no incident now")),
        must("maintenance", or_null(described(text(), "the window that it opens no incident in"))),
    ]);
    answered([must("alerts", list(one))])
}

fn silences() -> Value {
    let one = answered([must("matcher", text()), must("until", seconds()), must("by", text())]);
    answered([must("silences", list(one))])
}

fn incident() -> Value {
    let role = answered([must("role", roles()), must("who", text())]);
    let cause = "of its components the one that stands on none of the others";
    let at = |what: &str| or_null(described(count(), what));
    answered([
        must("id", text()),
        must("title", text()),
        must("severity", severity()),
        must("status", status_word()),
        must("components", list(text())),
        must("cause", or_null(described(text(), cause))),
        must("began", seconds()),
        must("opened", seconds()),
        must("opened_by", described(matching(RECEIPT_ID), "its first receipt")),
        must("acknowledged", or_null(seconds())),
        must("acknowledged_by", or_null(text())),
        must("roles", list(role)),
        must("told", described(list(text()), "channels over which it was to be told")),
        must("taken", described(list(text()), "channels that have taken anything of it")),
        must("unreachable", described(list(text()), "channels that did not take it")),
        must("next_page", at("when the next step of its ladder is due, in unix seconds")),
        must("next_update", at("when everybody is told how it stands, in unix seconds")),
        must("resolves", at("when it resolves by itself, in unix seconds")),
        must("alerts", described(list(text()), "keys of its alerts that fire")),
    ])
}

fn story() -> Value {
    let id = || matching(RECEIPT_ID);
    let mark = || or_null(answered([must("at", text()), must("receipt", id())]));
    let marks = ["began", "detected", "acknowledged", "identified", "recovered", "resolved"];
    let lengths =
        ["detection", "acknowledgement", "diagnosis", "mitigation", "resolution", "impact"];
    let moment = answered([
        must("at", text()),
        must("receipt", id()),
        must("rule", text()),
        must("actor", text()),
        must("text", text()),
    ]);
    let milliseconds = json!({ "type": "integer" });
    answered([
        must("id", text()),
        must("title", or_null(text())),
        must("severity", or_null(described(severity(), "the worst that it was"))),
        must("status", or_null(status_word())),
        must("components", list(text())),
        must("cause", or_null(text())),
        must("instants", answered(marks.map(|name| must(name, mark())))),
        must(
            "durations_ms",
            answered(lengths.map(|name| must(name, or_null(milliseconds.clone())))),
        ),
        must("timeline", list(moment.clone())),
        must("corrections", list(moment)),
        must("stands", json!({ "anyOf": [schema("Incident"), nothing()] })),
    ])
}

fn channels() -> Value {
    let place = "everything in _incidents before this place was told, or is not for it";
    let one = answered([
        must("name", text()),
        must("next", described(count(), place)),
        must("failures", described(count(), "tries of the notice at hand")),
        must("telling", described(flag(), "it is being told something")),
        must("last_taken", or_null(described(seconds(), "when it took anything last"))),
        must("last_failed", or_null(described(seconds(), "when an attempt failed last"))),
        must("last_error", or_null(described(text(), "why, in words that are never its own"))),
    ]);
    answered([must("channels", list(one))])
}

fn channel_test() -> Value {
    let outcomes = ["delivered", "again", "refused", "unknown"];
    answered([
        must("channel", text()),
        must("outcome", words(outcomes)),
        must("error", or_null(described(text(), "why not, in words that are never its own"))),
        must("remote", or_null(described(text(), "what the far side calls it"))),
        must("took_ms", count()),
        must("receipt_id", or_null(described(matching(RECEIPT_ID), "unless it could not be kept"))),
    ])
}

fn summary() -> Value {
    let (states, impacts) = status::words();
    let component = answered([
        must("id", text()),
        must("name", text()),
        must("status", words(states)),
        must("position", count()),
        must("description", nothing()),
        must("group", flag()),
        must("group_id", nothing()),
        must("page_id", text()),
        must("showcase", flag()),
        must("only_show_if_degraded", flag()),
        must("updated_at", text()),
    ]);
    let update = answered([
        must("id", text()),
        must("incident_id", text()),
        must("status", status_word()),
        must("body", text()),
        must("created_at", text()),
        must("updated_at", text()),
        must("display_at", text()),
    ]);
    let incident = answered([
        must("id", text()),
        must("name", text()),
        must("status", status_word()),
        must("impact", words(impacts)),
        must("page_id", text()),
        must("shortlink", text()),
        must("started_at", text()),
        must("created_at", text()),
        must("updated_at", text()),
        must("monitoring_at", or_null(text())),
        must("resolved_at", or_null(text())),
        must("incident_updates", list(update)),
        must("components", list(component.clone())),
    ]);
    let page = answered([
        must("id", text()),
        must("name", text()),
        must("url", text()),
        must("time_zone", text()),
        must("updated_at", described(text(), "when the state was read")),
        must("age_s", described(count(), "seconds since then")),
    ]);
    answered([
        must("page", page),
        must("components", list(component.clone())),
        must("incidents", described(list(incident), "those that are not resolved")),
        must(
            "scheduled_maintenances",
            described(list(window(component)), "those that are not over"),
        ),
        must("status", answered([must("indicator", words(impacts)), must("description", text())])),
    ])
}

/// A window on the status page.
fn window(component: Value) -> Value {
    let phases = || words(MaintenancePhase::ALL.map(MaintenancePhase::as_str));
    let step = answered([
        must("id", text()),
        must("incident_id", text()),
        must("status", phases()),
        must("body", text()),
        must("created_at", text()),
        must("updated_at", text()),
        must("display_at", text()),
    ]);
    answered([
        must("id", text()),
        must("name", text()),
        must("status", phases()),
        must("impact", words(["maintenance"])),
        must("page_id", text()),
        must("shortlink", text()),
        must("started_at", text()),
        must("created_at", text()),
        must("updated_at", text()),
        must("monitoring_at", nothing()),
        must("resolved_at", nothing()),
        must("scheduled_for", text()),
        must("scheduled_until", text()),
        must("incident_updates", list(step)),
        must("components", list(component)),
    ])
}
