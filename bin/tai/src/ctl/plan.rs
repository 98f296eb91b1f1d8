//! From a verb to the request that it stands for.
//!
//! Owns: routes and bodies of the admin API, how each answer is to be shown, and what there is to
//! wait for. Refuses to know: where the service is and what it answers.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::args::{
    AlertVerb, ChannelVerb, IncidentVerb, KeyVerb, MaintenanceVerb, OncallVerb, OverrideVerb,
    PubsubVerb, SettingVerb, SilenceVerb, SourceVerb, TenantVerb, Verb, Wait,
};
use super::view::View;
use super::wait::Until;
use crate::client::{Call, Method};

/// What one verb comes to.
#[derive(Debug, PartialEq)]
pub(crate) struct Plan {
    /// What is asked.
    pub(crate) call: Call,
    /// How a good answer is shown.
    pub(crate) view: View,
    /// What is waited for after a good answer, and how long.
    pub(crate) wait: Option<(Until, Duration)>,
}

/// The plan of `verb`.
pub(crate) fn plan(verb: Verb) -> Plan {
    let get = |path| Call::new(Method::GET, path);
    let post = |path| Call::new(Method::POST, path);
    match verb {
        Verb::Health => shown(Call::health(), View::Facts),
        Verb::Subsystems => shown(get("admin/subsystems"), View::SUBSYSTEMS),
        Verb::Restart { subsystem: Some(name), .. } => {
            shown(post("admin/subsystems").of(&name).of("restart"), View::Facts)
        }
        Verb::Restart { subsystem: None, wait } => {
            waiting(post("admin/restart"), Until::Restarted, wait)
        }
        Verb::Memory => shown(get("admin/memory"), View::Facts),
        Verb::Queues => shown(get("admin/queues"), View::Facts),
        Verb::Settings { verb } => settings(verb),
        Verb::Sources { verb } => sources(verb),
        Verb::Pubsub { verb } => pubsub(verb),
        Verb::Dependencies => shown(get("admin/dependencies"), View::DEPENDENCIES),
        Verb::Tenant { verb } => tenants(verb),
        Verb::Key { verb } => keys(verb),
        Verb::Sli { name, explain } => sli(name, explain),
        Verb::Alerts { verb: None } => shown(get("admin/alerts"), View::ALERTS),
        Verb::Alerts { verb: Some(AlertVerb::Explain { rule, labels }) } => {
            let call = get("admin/alerts").of(&rule).of("explain");
            shown(call.with("labels", labels), View::Explained)
        }
        Verb::Silences { verb } => silences(verb),
        Verb::Incidents { verb } => incidents(verb),
        Verb::Channels { verb: None } => shown(get("admin/channels"), View::CHANNELS),
        Verb::Channels { verb: Some(ChannelVerb::Test { name }) } => {
            shown(post("admin/channels").of(&name).of("test"), View::Facts)
        }
        Verb::Oncall { verb } => oncall(verb),
        Verb::Maintenance { verb } => maintenance(verb),
        Verb::Drain => shown(post("admin/drain"), View::Facts),
        Verb::Stop { wait } => waiting(post("admin/stop"), Until::Gone, wait),
    }
}

fn settings(verb: Option<SettingVerb>) -> Plan {
    let all = Call::new(Method::GET, "admin/settings");
    let one = |method, name: &str| Call::new(method, "admin/settings").of(name);
    match verb {
        None => shown(all, View::SETTINGS),
        Some(SettingVerb::Get { name }) => shown(all, View::Setting(name)),
        Some(SettingVerb::Set { name, value, lease }) => {
            let body = object([("value", Some(value.into())), ("lease_s", lease.map(Value::from))]);
            shown(one(Method::PUT, &name).send(body), View::Receipt)
        }
        Some(SettingVerb::Clear { name }) => shown(one(Method::DELETE, &name), View::Receipt),
    }
}

fn sources(verb: Option<SourceVerb>) -> Plan {
    let on = |method| Call::new(method, "admin/sources");
    match verb {
        None => shown(on(Method::GET), View::SOURCES),
        Some(SourceVerb::Block { source, lease }) => {
            let body = json!({"source": source, "lease_s": lease});
            shown(on(Method::PUT).send(body), View::Receipt)
        }
        Some(SourceVerb::Unblock { source }) => {
            shown(on(Method::DELETE).with("source", Some(source)), View::Receipt)
        }
    }
}

fn sli(name: Option<String>, explain: Option<String>) -> Plan {
    let call = Call::new(Method::GET, "admin/sli");
    match explain {
        Some(condition) => shown(call.with("condition", Some(condition)), View::Facts),
        // One alone, with what it says and its definition.
        None if name.as_ref().is_some_and(|name| !name.ends_with('*')) => {
            shown(call.with("name", name), View::SLI)
        }
        None => shown(call.with("name", name), View::SLIS),
    }
}

fn silences(verb: Option<SilenceVerb>) -> Plan {
    let on = |method| Call::new(method, "admin/silences");
    match verb {
        None => shown(on(Method::GET), View::SILENCES),
        Some(SilenceVerb::Set { matcher, lease, why }) => {
            let body = json!({"matcher": matcher, "lease_s": lease, "why": why});
            shown(on(Method::PUT).send(body), View::Receipt)
        }
        Some(SilenceVerb::Clear { matcher }) => {
            shown(on(Method::DELETE).with("matcher", Some(matcher)), View::Receipt)
        }
    }
}

fn incidents(verb: Option<IncidentVerb>) -> Plan {
    let on = |method| Call::new(method, "admin/incidents");
    let deed = |id: &str, body: Value| shown(on(Method::POST).of(id).send(body), View::Done);
    match verb {
        None => shown(on(Method::GET), View::INCIDENTS),
        Some(IncidentVerb::Show { id }) => shown(on(Method::GET).of(&id), View::Facts),
        Some(IncidentVerb::Declare { title, severity, component, text }) => {
            let body = object([
                ("title", Some(title.into())),
                ("severity", Some(severity.into())),
                ("component", Some(component.into())),
                ("text", text.map(Value::from)),
            ]);
            shown(on(Method::POST).send(body), View::Opened)
        }
        Some(IncidentVerb::Ack { id }) => deed(&id, json!({"do": "acknowledge"})),
        Some(IncidentVerb::Assign { id, role, who }) => {
            deed(&id, json!({"do": "assign", "role": role, "who": who}))
        }
        Some(IncidentVerb::Grade { id, severity }) => {
            deed(&id, json!({"do": "grade", "severity": severity}))
        }
        Some(IncidentVerb::Status { id, word, text, public }) => deed(
            &id,
            object([
                ("do", Some("status".into())),
                ("status", Some(word.into())),
                ("text", text.map(Value::from)),
                ("public", public.then_some(Value::Bool(true))),
            ]),
        ),
        Some(IncidentVerb::Update { id, text }) => deed(&id, json!({"do": "update", "text": text})),
        Some(IncidentVerb::Note { id, text }) => deed(&id, json!({"do": "note", "text": text})),
        Some(IncidentVerb::Postmortem { id }) => {
            shown(on(Method::GET).of(&id).of("postmortem"), View::Text)
        }
    }
}

fn oncall(verb: OncallVerb) -> Plan {
    let all = Call::new(Method::GET, "admin/oncall");
    let overrides = |method| Call::new(method, "admin/oncall").of("overrides");
    match verb {
        OncallVerb::Who { at } => shown(all.with("at", at), View::ONCALL),
        OncallVerb::Override { verb: None } => shown(all, View::OVERRIDES),
        OncallVerb::Override {
            verb: Some(OverrideVerb::Add { rotation, who, from, until, why }),
        } => {
            let body = object([
                ("rotation", Some(rotation.into())),
                ("who", Some(who.into())),
                ("from", from.map(instant)),
                ("until", Some(instant(until))),
                ("why", why.map(Value::from)),
            ]);
            shown(overrides(Method::POST).send(body), View::Opened)
        }
        OncallVerb::Override { verb: Some(OverrideVerb::End { id }) } => {
            shown(overrides(Method::DELETE).of(&id), View::Receipt)
        }
    }
}

fn maintenance(verb: MaintenanceVerb) -> Plan {
    let on = |method| Call::new(method, "admin/maintenance");
    match verb {
        MaintenanceVerb::Add { title, components, from, until, text } => {
            let body = object([
                ("title", Some(title.into())),
                ("components", Some(components.into())),
                ("from", from.map(instant)),
                ("until", Some(instant(until))),
                ("text", text.map(Value::from)),
            ]);
            shown(on(Method::POST).send(body), View::Opened)
        }
        MaintenanceVerb::List => shown(on(Method::GET), View::MAINTENANCES),
        MaintenanceVerb::End { id } => shown(on(Method::DELETE).of(&id), View::Receipt),
    }
}

/// Unix seconds are a number; what any other text means is the service's to say.
fn instant(text: String) -> Value {
    text.parse::<i64>().map_or_else(|_| Value::from(text), Value::from)
}

fn pubsub(verb: Option<PubsubVerb>) -> Plan {
    let post = |part| Call::new(Method::POST, "admin/pubsub").of(part);
    let call = match verb {
        None | Some(PubsubVerb::Status) => Call::new(Method::GET, "admin/pubsub"),
        Some(PubsubVerb::Pause) => post("pause"),
        Some(PubsubVerb::Resume) => post("resume"),
        Some(PubsubVerb::Replay { limit }) => {
            post("replay").send(object([("limit", limit.map(Value::from))]))
        }
    };
    shown(call, View::Facts)
}

fn tenants(verb: TenantVerb) -> Plan {
    let on = |method| Call::new(method, "admin/tenants");
    match verb {
        TenantVerb::Show { id } => shown(on(Method::GET).of(&id), View::Facts),
        TenantVerb::Create { id } => {
            shown(on(Method::POST).send(json!({ "tenant_id": id })), View::Receipt)
        }
        TenantVerb::Budget { id, clear: true, .. } => {
            shown(on(Method::DELETE).of(&id).of("budget"), View::Receipt)
        }
        TenantVerb::Budget { id, calls, spend, period, clear: false } => {
            let body = object([
                ("calls", calls.map(Value::from)),
                ("spend_minor", spend.map(Value::from)),
                ("period", Some(period.into())),
            ]);
            shown(on(Method::PUT).of(&id).of("budget").send(body), View::Receipt)
        }
    }
}

fn keys(verb: KeyVerb) -> Plan {
    let on = |method| Call::new(method, "admin/keys");
    match verb {
        KeyVerb::List { owner } => {
            shown(on(Method::GET).with("tenant_id", owner.tenant), View::KEYS)
        }
        KeyVerb::Create { owner, scopes, label, expires_in } => {
            let body = object([
                ("tenant_id", owner.tenant.map(Value::from)),
                ("scopes", (!scopes.is_empty()).then(|| scopes.into())),
                ("label", label.map(Value::from)),
                ("expires_in_s", expires_in.map(Value::from)),
            ]);
            shown(on(Method::POST).send(body), View::NewKey)
        }
        KeyVerb::Rotate { id, owner, overlap } => {
            let body = object([
                ("tenant_id", owner.tenant.map(Value::from)),
                ("overlap_s", overlap.map(Value::from)),
            ]);
            shown(on(Method::POST).of(&id).of("rotate").send(body), View::NewKey)
        }
        KeyVerb::Revoke { id, owner } => {
            shown(on(Method::DELETE).of(&id).with("tenant_id", owner.tenant), View::Receipt)
        }
    }
}

fn shown(call: Call, view: View) -> Plan {
    Plan { call, view, wait: None }
}

fn waiting(call: Call, until: Until, wait: Wait) -> Plan {
    let wait = (wait.seconds > 0).then(|| (until, Duration::from_secs(wait.seconds)));
    Plan { call, view: View::Facts, wait }
}

/// The fields that have a value: what is left out is the service's to choose.
fn object<const N: usize>(fields: [(&str, Option<Value>); N]) -> Value {
    let given = fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
    Value::Object(given.collect::<Map<_, _>>())
}
