//! Figures, what was seen of rules, and alerts of others.
//!
//! Owns: what is asked and answered there. Refuses to know: how callers prove who they are.

use engine::Sender;
use serde_json::{Value, json};
use types::Severity;

use super::answers::Told;
use super::forms::{
    Member, answered, count, described, list, may, must, or_null, schema, seconds, sent, text,
    words,
};
use super::requests::{body, parameter};
use super::{ANY, Contract, KEYED, READ};
use crate::admin::sight::{PHASES, VERDICTS};
use crate::table::Admin;

/// What the operator's requests about figures take and answer; `None` for all others.
pub(super) fn contract(admin: Admin) -> Option<Contract> {
    Some(match admin {
        Admin::Slis => Contract::seen("SliAnswer", "the SLIs; or what a condition says")
            .takes([
                parameter(
                    "query",
                    "name",
                    "an SLI, or the beginning of some with * behind it",
                    text(),
                ),
                parameter(
                    "query",
                    "condition",
                    "a condition, such as http.error_rate[5m] > 10%",
                    text(),
                ),
            ])
            .refuses(&[404]),
        Admin::AlertExplain => Contract::seen("RuleSeen", "what was seen of the rule")
            .segment("an alert rule, such as error-rate-high", text())
            .takes([parameter(
                "query",
                "labels",
                "one case alone, such as {provider=\"openai\"}",
                text(),
            )])
            .refuses(&[404]),
        _ => return None,
    })
}

/// Alerts of others.
pub(super) fn heard_contract(sender: Sender) -> Contract {
    let (name, example) = match sender {
        Sender::Prometheus => ("PostedAlerts", ("posted", json!([posted_example()]))),
        Sender::Alertmanager => ("AlertGroup", ("webhook", group_example())),
    };
    let what = "every alert is taken; what became of them";
    Contract::new(&[ANY, KEYED, READ, &[415, 422]])
        .takes([parameter(
            "header",
            "X-Signature",
            "HMAC-SHA-256 of the body in hex, in place of a key; beside one it is passed over",
            json!({}),
        )])
        .body(body(name, true, &[example]))
        .answers(200, "AlertsHeard", Told::Keyed, what)
}

/// The schemas, by name.
pub(super) fn schemas() -> [(&'static str, Value); 8] {
    [
        ("Slis", slis()),
        ("ConditionSeen", condition()),
        ("SliAnswer", json!({ "oneOf": [schema("Slis"), schema("ConditionSeen")] })),
        ("RuleSeen", rule()),
        ("PostedAlert", sent(alert(None))),
        ("PostedAlerts", list_of_at_most(schema("PostedAlert"))),
        ("AlertGroup", group()),
        ("AlertsHeard", heard()),
    ]
}

fn list_of_at_most(items: Value) -> Value {
    let mut list = list(items);
    list["maxItems"] = dialect::notify::incoming::ALERTS_MAX.into();
    list
}

fn texts() -> Value {
    json!({ "type": "object", "additionalProperties": { "type": "string" } })
}

fn number() -> Value {
    json!({ "type": "number" })
}

fn instant() -> Value {
    described(text(), "RFC 3339; the year 1 stands for none")
}

fn alert(status: Option<Member>) -> Vec<Member> {
    let own = [
        must("labels", described(texts(), "at least one that is not empty")),
        may("annotations", texts()),
        may("startsAt", instant()),
        may("endsAt", described(instant(), "when it ends unless it is sent again")),
        may("generatorURL", text()),
    ];
    status.into_iter().chain(own).collect()
}

fn group() -> Value {
    let one = sent(alert(Some(must("status", words(["firing", "resolved"])))));
    sent([
        must("version", words(["4"])),
        must("alerts", list_of_at_most(one)),
        may("truncatedAlerts", count()),
    ])
}

fn posted_example() -> Value {
    json!({
        "labels": { "alertname": "InstanceDown", "component": "http", "severity": "critical" },
        "annotations": { "summary": "an instance does not answer" },
        "startsAt": "2026-01-01T00:00:00Z",
    })
}

fn group_example() -> Value {
    let mut alert = posted_example();
    alert["status"] = "firing".into();
    json!({ "version": "4", "alerts": [alert] })
}

fn heard() -> Value {
    answered([
        must("status", words(["success"])),
        must("fired", described(count(), "alerts that began to fire, or were given an incident")),
        must("ended", described(count(), "alerts that ended")),
        must("repeated", described(count(), "alerts of which nothing new was said")),
        must("own", described(count(), "notices of this service that came back")),
    ])
}

fn slis() -> Value {
    let one = answered([
        must("name", text()),
        must("labels", described(texts(), "the case; empty for all series together")),
        must("by", described(list(text()), "the labels that it can be narrowed by")),
        must("value", or_null(number())),
        must("missing", described(text(), "why there is no value; empty where there is one")),
        must("unit", text()),
        must("window", text()),
        must("samples", count()),
        must("help", text()),
        must("promql", text()),
    ]);
    answered([must("at", seconds()), must("slis", list(one))])
}

fn condition() -> Value {
    let one = answered([
        must("labels", texts()),
        must("verdict", words(VERDICTS)),
        must("value", or_null(number())),
        must("explanation", text()),
    ]);
    answered([
        must("at", seconds()),
        must("condition", described(text(), "as it was read")),
        must("sli", text()),
        must("unit", text()),
        must("threshold", number()),
        must("promql", text()),
        must("readings", list(one)),
    ])
}

fn rule() -> Value {
    let reading = answered([
        must("value", or_null(number())),
        must("shown", or_null(described(text(), "the value in the unit of the threshold"))),
        must("op", text()),
        must("threshold", text()),
        must("verdict", words(VERDICTS)),
    ]);
    let sample = answered([
        must("at", text()),
        must("verdict", words(VERDICTS)),
        must("readings", described(list(reading), "one for each condition, in their order")),
        must("phase", words(PHASES)),
        must("for_s", or_null(described(count(), "since when it stands there, in seconds"))),
        must("inhibited_by", or_null(text())),
    ]);
    let case = answered([
        must("labels", texts()),
        must("alert", described(text(), "its key in /admin/alerts")),
        must("phase", words(PHASES)),
        must("why", described(text(), "one sentence")),
        must("silenced_by", described(list(text()), "matchers of silences")),
        must("incident", or_null(text())),
        must("samples", described(list(sample), "the oldest first")),
    ]);
    answered([
        must("rule", text()),
        must("title", text()),
        must("severity", words(Severity::ALL.map(Severity::as_str))),
        must("component", text()),
        must("combine", words(["all", "any"])),
        must("conditions", list(text())),
        must("for_s", count()),
        must("hold_s", count()),
        must("cases", list(case)),
    ])
}
