//! `/openapi.json`: the interface as an OpenAPI document, made from the route table.
//!
//! Owns: what each handler takes and which answers it gives, as far as callers see it; a handler
//! without that does not compile. Refuses to know: how a handler comes to its answer.

mod ai;
mod answers;
mod forms;
mod incidents;
mod planned;
mod requests;
mod sight;

use std::collections::BTreeSet;
use std::sync::OnceLock;

use axum::response::Response;
use bytes::Bytes;
use http::StatusCode;
use serde_json::{Map, Value, json};
use types::limits;

use self::answers::{KEY_ID, Told};
use self::forms::{id, matching, schema, text, words};
use crate::answer::raw_json;
use crate::health::Probe;
use crate::table::{Access, Admin, Ai, Handler, ROUTES, Route};

const DESCRIPTION: &str = "\
Every decision leaves a receipt in a hash chain before it is answered. Requests carry a key as a \
bearer token or in X-API-Key; while the door is open, callers on this machine need none. \
`x-required-scope` names what the key must permit. An X-Request-ID is sent back with every answer. \
A request that names its trace, by traceparent or X-Trace-Id, is told the trace and its span. \
A method that a path does not have is answered with the response Refused405, whatever the path.";

/// The headers by which a request says which trace it belongs to.
const TRACE_HEADERS: [&str; 2] = ["traceparent", "X-Trace-Id"];

/// What every request may be told, whoever asks.
const ANY: &[u16] = &[500];
/// What a request that needs a key may be told besides: no key, one that does not permit it, too
/// many requests, a part that is down, and no answer before the deadline.
const KEYED: &[u16] = &[401, 403, 429, 503, 504];
/// What a request whose body is read may be told besides: it cannot be read, is late or too long.
const READ: &[u16] = &[400, 408, 413];

/// The document.
#[must_use]
pub fn document() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.to_ascii_lowercase()] = operation(route);
    }
    let schemas = requests::schemas().into_iter().chain(answers::schemas()).chain(ai::schemas());
    let schemas = schemas.chain(incidents::schemas()).chain(planned::schemas());
    let schemas = schemas.chain(sight::schemas());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "TAI Autonomics",
            "version": env!("CARGO_PKG_VERSION"),
            "description": DESCRIPTION,
        },
        "paths": paths,
        "components": {
            "parameters": TRACE_HEADERS.map(str::to_owned).into_iter().zip(requests::trace_headers()).collect::<Map<_, _>>(),
            "schemas": schemas.map(|(name, schema)| (name.into(), schema)).collect::<Map<_, _>>(),
            "responses": answers::refusals(&refused()),
            "headers": answers::headers(),
            "securitySchemes": security_schemes(),
        },
    })
}

/// The statuses of refusals in the one envelope. That a method is not taken any path may say.
fn refused() -> BTreeSet<u16> {
    let own = ROUTES.iter().filter(|route| route.handler.speaks().is_none());
    own.flat_map(|route| contract(route).refusals).chain([405]).collect()
}

/// Answers with the document, which cannot change while the process runs.
pub(crate) fn answer() -> Response {
    static BYTES: OnceLock<Bytes> = OnceLock::new();
    let bytes = BYTES.get_or_init(|| document().to_string().into());
    raw_json(StatusCode::OK, bytes.clone())
}

fn operation(route: &Route) -> Value {
    let Contract { segment, mut parameters, body, mut responses, refusals } = contract(route);
    let refused = |status: u16| match route.handler.speaks() {
        Some(api) => ai::refused(api, status),
        None => answers::refused(status),
    };
    responses.extend(refusals.iter().map(|status| (status.to_string(), refused(*status))));
    let name = route.path.split(['{', '}']).nth(1);
    if let (Some(name), Some((description, schema))) = (name, segment) {
        parameters.insert(0, requests::parameter("path", name, description, schema));
    }
    let traced =
        TRACE_HEADERS.map(|name| json!({ "$ref": format!("#/components/parameters/{name}") }));
    parameters.extend(traced);
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.summary,
        "security": security(route),
        "parameters": parameters,
        "responses": responses,
    });
    if let Access::Scope(scope) = route.access {
        operation["x-required-scope"] = scope.as_str().into();
    }
    if let Some(body) = body {
        operation["requestBody"] = body;
    }
    operation
}

/// Method and path as one word, such as `post_admin_keys_id_rotate`. A path may end with a slash;
/// that is part of it.
fn operation_id(route: &Route) -> String {
    let path = route.path.replace(['{', '}'], "");
    let path = path.replace(|c: char| !c.is_ascii_alphanumeric(), "_");
    format!("{}{path}", route.method.to_ascii_lowercase())
}

fn security_schemes() -> Value {
    let bearer = "a key; for an entitlement event on /marketplace also a JWT (HS256) that names its \
                  tenant_id and entitlement_id, where signatures are asked for";
    let token = "a key, for push subscriptions, which can set their endpoint and no header";
    json!({
        "bearer": { "type": "http", "scheme": "bearer", "description": bearer },
        "header": { "type": "apiKey", "in": "header", "name": "X-API-Key", "description": "a key" },
        "token": { "type": "apiKey", "in": "query", "name": "token", "description": token },
    })
}

fn security(route: &Route) -> Value {
    match (route.access, route.handler) {
        (Access::Open, _) => json!([]),
        (Access::Scope(_), Handler::Pubsub) => {
            json!([{ "bearer": [] }, { "header": [] }, { "token": [] }])
        }
        (Access::Scope(_), _) => json!([{ "bearer": [] }, { "header": [] }]),
    }
}

/// What a handler takes and answers.
struct Contract {
    /// What the variable segment of the path holds.
    segment: Option<(&'static str, Value)>,
    parameters: Vec<Value>,
    body: Option<Value>,
    responses: Map<String, Value>,
    refusals: BTreeSet<u16>,
}

impl Contract {
    fn new(refusals: &[&[u16]]) -> Contract {
        Contract {
            segment: None,
            parameters: Vec::new(),
            body: None,
            responses: Map::new(),
            refusals: refusals.iter().copied().flatten().copied().collect(),
        }
    }

    /// A request of the operator's. A body is read from each of them, wanted or not.
    fn operator() -> Contract {
        Contract::new(&[ANY, KEYED, READ])
    }

    fn seen(name: &str, what: &str) -> Contract {
        Contract::operator().answers(200, name, Told::Keyed, what)
    }

    fn decided(what: &str) -> Contract {
        Contract::operator().answers(200, "Receipt", Told::Decided, what)
    }

    fn asked() -> Contract {
        Contract::operator().answers(202, "Asked", Told::Keyed, "it is asked for, and recorded")
    }

    /// A key is made and shown.
    fn shown() -> Contract {
        Contract::operator().answers(201, "KeyShown", Told::Decided, "the key, shown this once")
    }

    fn replies(mut self, status: u16, answer: Value) -> Contract {
        self.responses.insert(status.to_string(), answer);
        self
    }

    /// Answers with JSON of this schema.
    fn answers(self, status: u16, name: &str, told: Told, description: &str) -> Contract {
        let answer = answers::answer("application/json", schema(name), told, description);
        self.replies(status, answer)
    }

    fn segment(self, description: &'static str, schema: Value) -> Contract {
        Contract { segment: Some((description, schema)), ..self }
    }

    fn takes(mut self, parameters: impl IntoIterator<Item = Value>) -> Contract {
        self.parameters.extend(parameters);
        self
    }

    fn body(self, body: Value) -> Contract {
        Contract { body: Some(body), ..self }
    }

    fn refuses(mut self, statuses: &[u16]) -> Contract {
        self.refusals.extend(statuses);
        self
    }
}

fn contract(route: &Route) -> Contract {
    match route.handler {
        Handler::Probe(probe) => probe_contract(probe),
        Handler::Metrics => {
            let answer = answers::answer("text/plain", text(), Told::All, "Prometheus text");
            Contract::new(&[ANY, &[404]]).replies(200, answer)
        }
        Handler::OpenApi => {
            let shape = json!({ "type": "object" });
            let answer = answers::answer("application/json", shape, Told::All, "this document");
            Contract::new(&[ANY]).replies(200, answer)
        }
        Handler::Status(form) => incidents::status_contract(form),
        Handler::Pubsub => Contract::new(&[ANY, KEYED, READ, &[415, 422]])
            .body(requests::body("Push", true, &requests::push_examples()))
            .answers(
                200,
                "Receipt",
                Told::Decided,
                "the message is decided and acknowledged; the receipt may be one of a refusal",
            )
            .answers(
                202,
                "QueuedSignal",
                Told::Keyed,
                "the receipt store is away: the message is kept and decided when it is back",
            ),
        Handler::Marketplace => Contract::new(&[ANY, KEYED, READ, &[415, 422]])
            .takes(requests::marketplace_headers())
            .body(requests::body("MarketplaceCall", true, &requests::marketplace_examples()))
            .answers(
                200,
                "MarketplaceAnswer",
                Told::Decided,
                "the receipt of an entitlement event, or the price that a customer asked for",
            ),
        // Behind a trailing slash there is no id, and so no receipt.
        Handler::Receipt if route.path.ends_with('/') => Contract::new(&[ANY, KEYED, &[404]]),
        Handler::Receipt => Contract::new(&[ANY, KEYED, &[404]])
            .segment("rcpt_ and 32 hexadecimal digits; anything else names no receipt", text())
            .answers(200, "Receipt", Told::Keyed, "the receipt, byte for byte as it was hashed"),
        Handler::Receipts => Contract::new(&[ANY, KEYED, &[400]])
            .takes(requests::search())
            .answers(200, "ReceiptPage", Told::Keyed, "a page of receipts, newest first"),
        Handler::Ai(which) => ai_contract(which),
        Handler::Heard(sender) => sight::heard_contract(sender),
        Handler::Admin(admin) => admin_contract(admin),
    }
}

/// What a call to a model may be told besides: no such model, no budget, a key that is in use, and
/// a provider that fails.
const CALLED: &[u16] = &[402, 404, 409, 415, 422, 502];

fn ai_contract(which: Ai) -> Contract {
    let called = |body: &str, name: &str| {
        Contract::new(&[ANY, KEYED, READ, CALLED])
            .takes([ai::idempotency_key()])
            .body(ai::body(body))
            .replies(200, ai::model_answer(schema(name)))
    };
    match which {
        Ai::Chat => called("ChatCall", "Chat"),
        Ai::Messages => called("MessagesCall", "Message"),
        Ai::Embeddings => called("EmbeddingsCall", "Embeddings"),
        Ai::Models | Ai::Usage | Ai::Invoice | Ai::Entitlements => {
            let (name, what) = ai::seen(which).unwrap_or_default();
            Contract::new(&[ANY, KEYED, &[422]]).answers(200, name, Told::Keyed, what)
        }
    }
}

fn probe_contract(probe: Probe) -> Contract {
    let contract = Contract::new(&[ANY]).answers(200, "Health", Told::All, "the service serves");
    match probe {
        Probe::Live => contract,
        Probe::Health | Probe::Ready => {
            contract.answers(503, "Unavailable", Told::All, "the service does not serve")
        }
    }
}

fn admin_contract(admin: Admin) -> Contract {
    match admin {
        Admin::Subsystems => Contract::seen("Subsystems", "every supervised part"),
        Admin::SubsystemRestart => {
            Contract::asked().segment("a name that /admin/subsystems shows", text()).refuses(&[404])
        }
        Admin::Memory => Contract::seen("Memory", "what the process holds"),
        Admin::Queues => Contract::seen("Queues", "what waits and what may wait"),
        Admin::Settings => Contract::seen("Settings", "every setting; secrets are not shown"),
        Admin::SettingSet => Contract::decided("the receipt of the change, which is in force")
            .segment("a setting that takes a change without a restart", live_settings())
            .body(requests::body("SettingOrder", true, &[]))
            .refuses(&[404, 415, 422]),
        Admin::SettingClear => Contract::decided("the receipt of the change, which is in force")
            .segment("a setting, also one that an older version knew", text())
            .refuses(&[404, 422]),
        Admin::Sources => Contract::seen("Sources", "every source that is refused"),
        Admin::SourceBlock => Contract::decided("the receipt of the block, which is in force")
            .body(requests::body("SourceOrder", true, &[]))
            .refuses(&[415, 422]),
        Admin::SourceUnblock => Contract::decided("the receipt of the end of the block")
            .takes([requests::blocked_source()])
            .refuses(&[422]),
        Admin::Pubsub => Contract::seen("Subscription", "where it stands").refuses(&[404]),
        Admin::PubsubPause => Contract::seen("Subscription", "it is paused").refuses(&[404]),
        Admin::PubsubResume => Contract::seen("Subscription", "it goes on").refuses(&[404]),
        Admin::PubsubReplay => Contract::seen("Replayed", "what became of the dead letters")
            .body(requests::body("ReplayOrder", false, &[]))
            .refuses(&[404, 422]),
        Admin::TenantCreate => Contract::decided("the receipt of a price: it is registered")
            .body(requests::body("TenantOrder", true, &[]))
            .refuses(&[415]),
        Admin::BudgetSet => Contract::decided("the receipt of the limits, which are in force")
            .segment("the tenant", id(limits::CUSTOMER_ID_CHARS))
            .body(requests::body("BudgetOrder", true, &[]))
            .refuses(&[415, 422]),
        Admin::BudgetClear => Contract::decided("the receipt; the plan's limits are in force")
            .segment("the tenant", id(limits::CUSTOMER_ID_CHARS))
            .refuses(&[422]),
        Admin::Dependencies => Contract::seen("Dependencies", "everything that calls leave to"),
        Admin::Tenant => Contract::seen("Tenant", "what it holds")
            .segment("the tenant", id(limits::CUSTOMER_ID_CHARS))
            .refuses(&[404]),
        Admin::Keys | Admin::KeyIssue | Admin::KeyRotate | Admin::KeyRevoke => {
            key_contract(admin).unwrap_or_else(Contract::operator)
        }
        Admin::Drain | Admin::Stop | Admin::Restart => Contract::asked(),
        Admin::Slis | Admin::AlertExplain => {
            sight::contract(admin).unwrap_or_else(Contract::operator)
        }
        Admin::Alerts
        | Admin::Silences
        | Admin::SilenceSet
        | Admin::SilenceClear
        | Admin::Incidents
        | Admin::IncidentDeclare
        | Admin::Incident
        | Admin::IncidentAct
        | Admin::PostMortem
        | Admin::Channels
        | Admin::ChannelTest => incidents::contract(admin).unwrap_or_else(Contract::operator),
        Admin::OnCall
        | Admin::OverrideAdd
        | Admin::OverrideEnd
        | Admin::Maintenances
        | Admin::MaintenanceAdd
        | Admin::MaintenanceEnd => planned::contract(admin).unwrap_or_else(Contract::operator),
    }
}

/// `None` for what is not about keys.
fn key_contract(admin: Admin) -> Option<Contract> {
    Some(match admin {
        Admin::Keys => Contract::seen("Keys", "every key that is valid").takes([requests::owner()]),
        Admin::KeyIssue => {
            Contract::shown().body(requests::body("KeyOrder", true, &[])).refuses(&[415, 422])
        }
        Admin::KeyRotate => Contract::shown()
            .segment("the key", matching(KEY_ID))
            .body(requests::body("RotateOrder", false, &[]))
            .refuses(&[404, 422]),
        Admin::KeyRevoke => Contract::decided("the receipt of its end")
            .segment("the key", matching(KEY_ID))
            .takes([requests::owner()])
            .refuses(&[404, 422]),
        _ => return None,
    })
}

fn live_settings() -> Value {
    words(settings::table().iter().filter(|knob| knob.live).map(|knob| knob.name))
}

#[cfg(test)]
mod tests;
