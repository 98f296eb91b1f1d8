//! The operator's requests.
//!
//! Owns: how each is answered. What changes anything is decided by the engine and leaves a receipt
//! that names the operator's key. Refuses to know: who may ask; that was settled before.

mod channels;
mod incidents;
mod keys;
mod known;
mod live;
mod planned;
pub(crate) mod sight;

use std::net::IpAddr;
use std::time::Duration;

use bytes::Bytes;
use dialect::admin::{BudgetOrder, BudgetPeriod};
use engine::{Decided, Request};
use governors::{BudgetChange, Command, Period};
use http::StatusCode;
use serde_json::{Value, json};
use types::{Reason, StreamName, TenantId};

use crate::Gateway;
use crate::answer::{Answer, Facts, Fault, Handled, Refusal, decision, fault, json_response};
use crate::caller::Caller;
use crate::process::{Pull, PullStatus, ReplayError};
use crate::table::Admin;

/// One request of the operator.
pub(crate) struct Asked<'a> {
    pub(crate) caller: &'a Caller,
    /// Where the request comes from.
    pub(crate) source: Option<IpAddr>,
    /// The segment of the path that is a name or an id.
    pub(crate) segment: Option<String>,
    pub(crate) query: Vec<(String, String)>,
    pub(crate) body: Bytes,
}

impl Asked<'_> {
    fn segment(&self) -> Result<&str, Fault> {
        self.segment.as_deref().ok_or_else(|| fault(Reason::NotFound, "the path names nothing"))
    }

    /// The only parameter that the request takes.
    fn parameter(&self, name: &str) -> Result<Option<&str>, Fault> {
        match self.query.as_slice() {
            [] => Ok(None),
            [(given, value)] if given == name => Ok(Some(value)),
            _ => Err(fault(Reason::InvalidField, format!("the query may hold {name} only"))),
        }
    }

    /// The tenant that the query names.
    fn tenant(&self) -> Result<Option<TenantId>, Fault> {
        let bad =
            |error: types::IdError| fault(Reason::InvalidTenantId, format!("tenant_id {error}"));
        self.parameter("tenant_id")?.map(|text| TenantId::new(text).map_err(bad)).transpose()
    }
}

impl Admin {
    /// Whether a body is asked for, and so its media type looked at.
    pub(crate) const fn takes_body(self) -> bool {
        matches!(
            self,
            Admin::SettingSet
                | Admin::SourceBlock
                | Admin::TenantCreate
                | Admin::BudgetSet
                | Admin::KeyIssue
                | Admin::SilenceSet
                | Admin::IncidentDeclare
                | Admin::IncidentAct
                | Admin::OverrideAdd
                | Admin::MaintenanceAdd
        )
    }
}

/// Answers one request.
pub(crate) async fn answer(gateway: &Gateway, which: Admin, asked: Asked<'_>) -> Handled {
    match which {
        Admin::Subsystems => subsystems(gateway),
        Admin::SubsystemRestart => subsystem_restart(gateway, &asked).await,
        Admin::Memory => memory(gateway),
        Admin::Queues => queues(gateway),
        Admin::Settings => live::settings(gateway),
        Admin::SettingSet => live::set(gateway, &asked).await,
        Admin::SettingClear => live::clear(gateway, &asked).await,
        Admin::Sources => live::sources(gateway).await,
        Admin::SourceBlock => live::block(gateway, &asked).await,
        Admin::SourceUnblock => live::unblock(gateway, &asked).await,
        Admin::Pubsub => pull(gateway, |_| ()),
        Admin::PubsubPause => {
            note(gateway, &asked, "pubsub_pause", "the operator paused the subscription").await?;
            pull(gateway, Pull::pause)
        }
        Admin::PubsubResume => {
            note(gateway, &asked, "pubsub_resume", "the operator resumed the subscription").await?;
            pull(gateway, Pull::resume)
        }
        Admin::PubsubReplay => replay(gateway, &asked).await,
        Admin::TenantCreate => keys::tenant_create(gateway, &asked).await,
        Admin::BudgetSet => budget_set(gateway, &asked).await,
        Admin::BudgetClear => budget(gateway, &asked, BudgetChange::Clear).await,
        Admin::Dependencies => dependencies(gateway),
        Admin::Tenant => keys::tenant(gateway, &asked).await,
        Admin::Keys => keys::list(gateway, &asked).await,
        Admin::KeyIssue => keys::issue(gateway, &asked).await,
        Admin::KeyRotate => keys::rotate(gateway, &asked).await,
        Admin::KeyRevoke => keys::revoke(gateway, &asked).await,
        Admin::Slis => sight::slis(gateway, &asked).await,
        Admin::Alerts => incidents::alerts(gateway).await,
        Admin::AlertExplain => sight::explain(gateway, &asked).await,
        Admin::Silences => incidents::silences(gateway).await,
        Admin::SilenceSet => incidents::silence_set(gateway, &asked).await,
        Admin::SilenceClear => incidents::silence_clear(gateway, &asked).await,
        Admin::Incidents => incidents::list(gateway).await,
        Admin::IncidentDeclare => incidents::declare(gateway, &asked).await,
        Admin::Incident => incidents::one(gateway, &asked).await,
        Admin::IncidentAct => incidents::act(gateway, &asked).await,
        Admin::PostMortem => incidents::post_mortem(gateway, &asked).await,
        Admin::Channels => channels::list(gateway).await,
        Admin::ChannelTest => channels::test(gateway, &asked).await,
        Admin::OnCall => planned::oncall(gateway, &asked).await,
        Admin::OverrideAdd => planned::override_add(gateway, &asked).await,
        Admin::OverrideEnd => planned::override_end(gateway, &asked).await,
        Admin::Maintenances => planned::maintenances(gateway).await,
        Admin::MaintenanceAdd => planned::maintenance_add(gateway, &asked).await,
        Admin::MaintenanceEnd => planned::maintenance_end(gateway, &asked).await,
        Admin::Drain => {
            note(gateway, &asked, "drain", "the operator asked for a drain").await?;
            gateway.engine.refuse_work();
            accepted(&json!({ "state": "draining" }))
        }
        Admin::Stop => {
            note(gateway, &asked, "stop_asked", "the operator asked for a stop").await?;
            gateway.process.stop();
            accepted(&json!({ "state": "stopping" }))
        }
        Admin::Restart => {
            note(gateway, &asked, "restart_asked", "the operator asked for a restart").await?;
            gateway.process.restart();
            accepted(&json!({ "state": "restarting" }))
        }
    }
}

fn ok(value: &Value) -> Handled {
    Ok(Answer { response: json_response(StatusCode::OK, value), facts: Facts::default() })
}

fn accepted(value: &Value) -> Handled {
    Ok(Answer { response: json_response(StatusCode::ACCEPTED, value), facts: Facts::default() })
}

/// How long the operator's hands wait for a record of what they do.
const NOTE_TIMEOUT: Duration = Duration::from_secs(2);

/// Records what the operator did where no stream of its own does. A service that cannot record
/// goes on all the same: the hands must work when the ledger does not, and the log has the line.
async fn note(
    gateway: &Gateway,
    asked: &Asked<'_>,
    event: &'static str,
    detail: &str,
) -> Result<(), Fault> {
    let actor = asked.caller.actor("admin");
    tracing::warn!(event, actor = %actor, "{detail}");
    let noted = gateway.engine.note_by(actor, event, detail.to_owned());
    if !matches!(tokio::time::timeout(NOTE_TIMEOUT, noted).await, Ok(Ok(()))) {
        tracing::warn!(event = "note_lost", "what the operator did may be in the log only");
    }
    Ok(())
}

/// Decides a command of the operator's on one stream.
async fn decide(
    gateway: &Gateway,
    asked: &Asked<'_>,
    stream: StreamName,
    command: Command,
) -> Result<Decided, Fault> {
    let decided = try_decide(gateway, asked, stream, command).await?;
    decided.ok_or_else(|| fault(Reason::StateError, "there is nothing to decide"))
}

/// The same; `None` where there is nothing to decide.
async fn try_decide(
    gateway: &Gateway,
    asked: &Asked<'_>,
    stream: StreamName,
    command: Command,
) -> Result<Option<Decided>, Fault> {
    let actor = asked.caller.actor("admin");
    let request = Request { stream, command, actor, may_register: true, key: None };
    Ok(gateway.engine.act(request).await?)
}

/// The receipt of what was decided.
fn receipt(decided: &Decided) -> Handled {
    decision(decided, Refusal::Error, |_, receipt| receipt)
}

async fn budget_set(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let BudgetOrder { calls, spend_minor, period } =
        dialect::admin::budget(&asked.body, &gateway.json)?;
    let per_minor = gateway.engine.rules().catalogue.micros_per_minor();
    let change = BudgetChange::Set {
        calls: calls.map(u64::from),
        spend_micros: spend_minor.map(|minor| i64::from(minor).saturating_mul(per_minor)),
        period: match period {
            BudgetPeriod::Month => Period::Month,
            BudgetPeriod::Day => Period::Day,
            BudgetPeriod::Ever => Period::Ever,
        },
    };
    budget(gateway, asked, change).await
}

async fn budget(gateway: &Gateway, asked: &Asked<'_>, change: BudgetChange) -> Handled {
    let bad = |error: types::IdError| fault(Reason::InvalidTenantId, format!("tenant_id {error}"));
    let tenant = TenantId::new(asked.segment()?).map_err(bad)?;
    let stream = StreamName::tenant(&tenant);
    receipt(&decide(gateway, asked, stream, Command::Budget(change)).await?)
}

fn dependencies(gateway: &Gateway) -> Handled {
    let all = gateway.engine.dependencies();
    let all: Vec<Value> = all
        .into_iter()
        .map(|state| {
            json!({
                "name": state.name,
                "breaker": state.breaker.as_str(),
                "is_forced": state.is_forced,
                "failures": state.failures,
                "in_flight": state.in_flight,
                "in_flight_max": state.in_flight_max,
                "paused_for_s": state.paused_for.map_or(0, |wait| wait.as_secs()),
            })
        })
        .collect();
    ok(&json!({ "dependencies": all }))
}

fn subsystems(gateway: &Gateway) -> Handled {
    let all: Vec<Value> = gateway
        .engine
        .supervisor()
        .status()
        .into_iter()
        .map(|status| {
            json!({
                "name": status.name,
                "state": status.state,
                "restarts": status.restarts,
                "uptime_s": status.uptime_s,
            })
        })
        .collect();
    ok(&json!({ "subsystems": all }))
}

async fn subsystem_restart(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let supervisor = gateway.engine.supervisor();
    let name = supervisor.canonical(asked.segment()?);
    let Some(name) = name else {
        return Err(fault(Reason::NotFound, "there is no such subsystem"));
    };
    note(gateway, asked, "subsystem_restart_asked", &format!("restart of {name}")).await?;
    if supervisor.restart(name) {
        accepted(&json!({ "name": name, "state": "restarting" }))
    } else {
        Err(fault(Reason::NotFound, "there is no such subsystem"))
    }
}

fn memory(gateway: &Gateway) -> Handled {
    ok(&json!({
        "rss_bytes": telemetry::process::resident_bytes(),
        "open_fds": telemetry::process::open_fds(),
        "streams_loaded": gateway.metrics.streams_loaded.get(),
        "streams_max": gateway.engine.options().states_max,
        "connections": gateway.metrics.http_active_connections.get(),
        "sources_blocked": gateway.blocked().len(),
    }))
}

fn queues(gateway: &Gateway) -> Handled {
    let options = gateway.engine.options();
    ok(&json!({
        "receipt_queue_depth": gateway.engine.queue_depth(),
        "receipt_queue_max": options.queue_max,
        "action_queue_depth": gateway.engine.actions_depth(),
        "action_queue_max": options.pool_size + options.pool_queue,
        "action_pool_size": options.pool_size,
        "actions_running": gateway.metrics.worker_pool_active.get(),
        "calls_open": gateway.engine.calls_open(),
        "actions_unsettled": gateway.metrics.actions_unsettled.get(),
        "requests_in_work": gateway.places.in_work(),
        "requests_max": gateway.options().requests_max,
    }))
}

/// Does something with the subscription and says where it stands.
fn pull(gateway: &Gateway, act: impl Fn(&dyn Pull)) -> Handled {
    let Some(pull) = gateway.process.pull() else {
        return Err(fault(Reason::NotFound, "no subscription is set: see GCP_PROJECT_ID"));
    };
    act(&*pull);
    let PullStatus {
        state,
        outstanding,
        oldest_unacked_s,
        received,
        acked,
        nacked,
        dead_letters_replayed,
    } = pull.status();
    ok(&json!({
        "state": state.as_str(),
        "outstanding": outstanding,
        "oldest_unacked_s": oldest_unacked_s,
        "received": received,
        "acked": acked,
        "nacked": nacked,
        "dead_letters_replayed": dead_letters_replayed,
    }))
}

async fn replay(gateway: &Gateway, asked: &Asked<'_>) -> Handled {
    let order = dialect::admin::replay(&asked.body, &gateway.json)?;
    let Some(pull) = gateway.process.pull() else {
        return Err(fault(Reason::NotFound, "no subscription is set: see GCP_PROJECT_ID"));
    };
    note(gateway, asked, "pubsub_replay", "the operator replays dead letters").await?;
    let replayed = pull.replay(order.limit as usize).await.map_err(|error| {
        let reason = match error {
            ReplayError::Busy => Reason::StateError,
            ReplayError::Unavailable => Reason::ServiceUnavailable,
        };
        fault(reason, error.to_string())
    })?;
    ok(&json!({
        "replayed": replayed.replayed,
        "poison": replayed.poison,
        "later": replayed.later,
    }))
}
