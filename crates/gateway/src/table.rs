//! The route table.
//!
//! Owns: which routes there are, who may call them, and who is served first. The router, the pages
//! of the documentation, `/openapi.json` and the authorization test are made from it. Refuses to
//! know: how a request is taken through.

use engine::Sender;
use types::Scope;

use crate::health::Probe;
use crate::rate::Criticality;
use crate::status::Status;

/// One row of the route table.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The method: `GET`, `POST`, `PUT` or `DELETE`.
    pub method: &'static str,
    /// The path, with `{name}` for a segment.
    pub path: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    /// Who may call it.
    pub access: Access,
    pub(crate) handler: Handler,
}

impl Route {
    /// Whether both are one row. Compared by name: a constant has no one address.
    pub(crate) fn is(&self, other: &Route) -> bool {
        self.path == other.path && self.method == other.method
    }
}

/// Who may call a route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody: it must answer when nothing else does.
    Open,
    /// Keys with this scope, and local callers while the door is open.
    Scope(Scope),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Handler {
    Probe(Probe),
    Metrics,
    OpenApi,
    Status(Status),
    Pubsub,
    Marketplace,
    Receipt,
    Receipts,
    Ai(Ai),
    Heard(Sender),
    Admin(Admin),
}

/// Calls to models, and what a tenant has of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ai {
    Chat,
    Messages,
    Embeddings,
    Models,
    Usage,
    Invoice,
    Entitlements,
}

/// The operator's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Admin {
    Subsystems,
    SubsystemRestart,
    Memory,
    Queues,
    Settings,
    SettingSet,
    SettingClear,
    Sources,
    SourceBlock,
    SourceUnblock,
    Pubsub,
    PubsubPause,
    PubsubResume,
    PubsubReplay,
    TenantCreate,
    BudgetSet,
    BudgetClear,
    Dependencies,
    Tenant,
    Keys,
    KeyIssue,
    KeyRotate,
    KeyRevoke,
    Slis,
    Alerts,
    AlertExplain,
    Silences,
    SilenceSet,
    SilenceClear,
    Incidents,
    IncidentDeclare,
    Incident,
    IncidentAct,
    PostMortem,
    Channels,
    ChannelTest,
    OnCall,
    OverrideAdd,
    OverrideEnd,
    Maintenances,
    MaintenanceAdd,
    MaintenanceEnd,
    Drain,
    Stop,
    Restart,
}

const READ: Access = Access::Scope(Scope::AdminRead);
const WRITE: Access = Access::Scope(Scope::AdminWrite);
const MARKETPLACE: Access = Access::Scope(Scope::MarketplaceWrite);
const SIGNALS: Access = Access::Scope(Scope::SignalsWrite);
const RECEIPTS: Access = Access::Scope(Scope::ReceiptsRead);
const AI: Access = Access::Scope(Scope::AiInvoke);

const fn route(
    method: &'static str,
    path: &'static str,
    access: Access,
    handler: Handler,
    summary: &'static str,
) -> Route {
    Route { method, path, summary, access, handler }
}

const fn open(path: &'static str, handler: Handler, summary: &'static str) -> Route {
    route("GET", path, Access::Open, handler, summary)
}

const fn ai(method: &'static str, path: &'static str, handler: Ai, summary: &'static str) -> Route {
    route(method, path, AI, Handler::Ai(handler), summary)
}

const fn see(path: &'static str, handler: Admin, summary: &'static str) -> Route {
    route("GET", path, READ, Handler::Admin(handler), summary)
}

const fn act(
    method: &'static str,
    path: &'static str,
    handler: Admin,
    summary: &'static str,
) -> Route {
    route(method, path, WRITE, Handler::Admin(handler), summary)
}

/// Every route of the service.
pub const ROUTES: &[Route] = &[
    open("/health", Handler::Probe(Probe::Health), "health of all parts"),
    open("/healthz", Handler::Probe(Probe::Health), "alias of /health"),
    open("/readyz", Handler::Probe(Probe::Ready), "may it be sent traffic"),
    open("/health/startup", Handler::Probe(Probe::Health), "alias of /health"),
    open("/health/live", Handler::Probe(Probe::Live), "is the process alive"),
    open("/health/ready", Handler::Probe(Probe::Ready), "alias of /readyz"),
    open("/metrics", Handler::Metrics, "Prometheus text"),
    open("/openapi.json", Handler::OpenApi, "this interface as an OpenAPI document"),
    open("/status", Handler::Status(Status::Page), "the public status page"),
    open(
        "/api/v2/summary.json",
        Handler::Status(Status::Summary),
        "the same in the form of Statuspage",
    ),
    route("POST", "/pubsub", SIGNALS, Handler::Pubsub, "push delivery of a signal"),
    route(
        "POST",
        "/marketplace",
        MARKETPLACE,
        Handler::Marketplace,
        "entitlement event or customer call",
    ),
    route("GET", "/receipts/{id}", RECEIPTS, Handler::Receipt, "one receipt"),
    route("GET", "/receipts", RECEIPTS, Handler::Receipts, "search, newest first"),
    // Behind a trailing slash there is no id: the same answer as for an unknown one.
    route("GET", "/receipts/", RECEIPTS, Handler::Receipt, "one receipt, id missing"),
    ai("POST", "/v1/chat/completions", Ai::Chat, "an answer of a model, as OpenAI has it"),
    ai("POST", "/v1/messages", Ai::Messages, "an answer of a model, as Anthropic has it"),
    ai("POST", "/v1/embeddings", Ai::Embeddings, "vectors of texts, as OpenAI has it"),
    ai("GET", "/v1/models", Ai::Models, "models that may be asked for, as OpenAI has it"),
    ai("GET", "/v1/usage", Ai::Usage, "what the tenant has used of its limits"),
    ai("GET", "/v1/usage/invoice", Ai::Invoice, "the bill of the month as it would be now"),
    ai("GET", "/v1/entitlements", Ai::Entitlements, "what the tenant holds"),
    see("/admin/subsystems", Admin::Subsystems, "supervised parts: state, restarts, uptime"),
    act(
        "POST",
        "/admin/subsystems/{name}/restart",
        Admin::SubsystemRestart,
        "restart one part; the others go on",
    ),
    see("/admin/memory", Admin::Memory, "what the process holds in memory"),
    see("/admin/queues", Admin::Queues, "what waits, and how much may wait"),
    see("/admin/settings", Admin::Settings, "settings in force and where each comes from"),
    act(
        "PUT",
        "/admin/settings/{name}",
        Admin::SettingSet,
        "change a setting, for good or by lease",
    ),
    act("DELETE", "/admin/settings/{name}", Admin::SettingClear, "undo the change of a setting"),
    see("/admin/sources", Admin::Sources, "sources that are refused"),
    act("PUT", "/admin/sources", Admin::SourceBlock, "refuse a source for some time"),
    act("DELETE", "/admin/sources", Admin::SourceUnblock, "refuse a source no longer"),
    see("/admin/pubsub", Admin::Pubsub, "the subscription that signals are pulled from"),
    act("POST", "/admin/pubsub/pause", Admin::PubsubPause, "pull nothing more"),
    act("POST", "/admin/pubsub/resume", Admin::PubsubResume, "pull again"),
    act("POST", "/admin/pubsub/replay", Admin::PubsubReplay, "decide dead letters after all"),
    act("POST", "/admin/tenants", Admin::TenantCreate, "register a tenant"),
    act("PUT", "/admin/tenants/{tenant_id}/budget", Admin::BudgetSet, "limits of a tenant's own"),
    act(
        "DELETE",
        "/admin/tenants/{tenant_id}/budget",
        Admin::BudgetClear,
        "its plan's limits again",
    ),
    see("/admin/dependencies", Admin::Dependencies, "what calls leave to, and whether they may"),
    see("/admin/tenants/{tenant_id}", Admin::Tenant, "what a tenant amounts to"),
    see("/admin/keys", Admin::Keys, "keys of a tenant, or of the service"),
    act("POST", "/admin/keys", Admin::KeyIssue, "issue a key; its text is shown once"),
    act("POST", "/admin/keys/{id}/rotate", Admin::KeyRotate, "a new key, and an end for the old"),
    act("DELETE", "/admin/keys/{id}", Admin::KeyRevoke, "end a key now"),
    route(
        "POST",
        "/api/v2/alerts",
        SIGNALS,
        Handler::Heard(Sender::Prometheus),
        "alerts of others, as Prometheus sends them to Alertmanager",
    ),
    route(
        "POST",
        "/webhooks/alertmanager",
        SIGNALS,
        Handler::Heard(Sender::Alertmanager),
        "alerts of others, as Alertmanager sends them to a webhook",
    ),
    see("/admin/sli", Admin::Slis, "our own figures, or what a condition says of them"),
    see("/admin/alerts", Admin::Alerts, "alerts that are not inactive"),
    see(
        "/admin/alerts/{rule}/explain",
        Admin::AlertExplain,
        "sample by sample why a rule fires or does not",
    ),
    see("/admin/silences", Admin::Silences, "what opens no incident for some time"),
    act("PUT", "/admin/silences", Admin::SilenceSet, "let alerts open no incident for some time"),
    act("DELETE", "/admin/silences", Admin::SilenceClear, "end a silence"),
    see("/admin/incidents", Admin::Incidents, "incidents that are not resolved"),
    act("POST", "/admin/incidents", Admin::IncidentDeclare, "declare an incident"),
    see("/admin/incidents/{id}", Admin::Incident, "what the receipts say of an incident"),
    act(
        "POST",
        "/admin/incidents/{id}",
        Admin::IncidentAct,
        "acknowledge, assign, grade, update or resolve it, or note something",
    ),
    see(
        "/admin/incidents/{id}/postmortem",
        Admin::PostMortem,
        "the draft of its post-mortem, as Markdown",
    ),
    see("/admin/channels", Admin::Channels, "channels over which incidents are told"),
    act(
        "POST",
        "/admin/channels/{name}/test",
        Admin::ChannelTest,
        "tell a channel a notice that is marked as a test, and say what came of it",
    ),
    see("/admin/oncall", Admin::OnCall, "who is on call, and the overrides of that"),
    act(
        "POST",
        "/admin/oncall/overrides",
        Admin::OverrideAdd,
        "put somebody in the place of a rotation for some time",
    ),
    act("DELETE", "/admin/oncall/overrides/{id}", Admin::OverrideEnd, "end an override"),
    see("/admin/maintenance", Admin::Maintenances, "maintenance windows that are not over"),
    act("POST", "/admin/maintenance", Admin::MaintenanceAdd, "plan a maintenance window"),
    act("DELETE", "/admin/maintenance/{id}", Admin::MaintenanceEnd, "end a maintenance window"),
    act("POST", "/admin/drain", Admin::Drain, "take no new work, finish what is in flight"),
    act("POST", "/admin/stop", Admin::Stop, "stop the process in order"),
    act("POST", "/admin/restart", Admin::Restart, "restart the process in order"),
];

impl Handler {
    /// Whether an operator may have a rule for the bodies that come here. Those that tenants send:
    /// a wrong rule must never keep the operator's own requests out.
    pub(crate) fn takes_rule(self) -> bool {
        match self {
            Handler::Pubsub | Handler::Marketplace => true,
            Handler::Ai(which) => which.takes_body(),
            Handler::Probe(_)
            | Handler::Metrics
            | Handler::OpenApi
            | Handler::Status(_)
            | Handler::Receipt
            | Handler::Receipts
            | Handler::Heard(_)
            | Handler::Admin(_) => false,
        }
    }

    /// Probes and scrapes are never limited: they must answer when all else is refused.
    pub(crate) const fn criticality(self) -> Option<Criticality> {
        match self {
            Handler::Probe(_) | Handler::Metrics | Handler::OpenApi | Handler::Status(_) => None,
            Handler::Receipts => Some(Criticality::Sheddable),
            Handler::Pubsub | Handler::Marketplace | Handler::Receipt | Handler::Ai(_) => {
                Some(Criticality::Normal)
            }
            // What is wrong must be heard also when there is too much to do.
            Handler::Heard(_) | Handler::Admin(_) => Some(Criticality::Critical),
        }
    }
}
