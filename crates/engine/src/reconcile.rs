//! Reconcilers: jobs without input, idempotent, woken by a timer, with one code path for the
//! first run after a crash and for every later one.
//!
//! Owns: due timers, unsettled attempts, aggregated refusals. Refuses to know: what is decided.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use governors::{Command, Outcome, OutcomeStatus};
use ledger::View;
use ledger::scan::MetaView;
use types::{Reason, ReceiptId, StreamName, limits};

use crate::act::{Engine, Request};
use crate::actions::{Job, Mark};
use crate::edge::{Refusal, WINDOW};
use crate::incidents;
use crate::ports::Stored;
use crate::supervise::Stop;

/// Streams or attempts that one look takes on.
const LOOK_MAX: usize = 256;
/// Streams that a look takes on while writes are frozen, most of which it leaves alone.
const FROZEN_LOOK_MAX: usize = 100_000;
/// Ticks that wait for one commit together.
const TICKS_AT_ONCE: usize = 64;
/// The wait between two tries to settle a result while the store is away.
const SETTLE_BACKOFF: Duration = Duration::from_millis(500);

/// Does what is due, also for tenants that are not loaded.
pub(crate) async fn timers(engine: Engine, mut stop: Stop) {
    loop {
        let more = tokio::select! {
            () = stop.asked() => return,
            more = fire_due(&engine) => more,
        };
        if !more {
            tokio::select! {
                () = stop.asked() => return,
                () = tokio::time::sleep(engine.options().check_interval) => {}
            }
        }
    }
}

/// One look; true when there is probably more.
async fn fire_due(engine: &Engine) -> bool {
    if engine.outage().spools.current().is_some() {
        // Nobody finds what is due while the store is away, and the ladders go on.
        if let Err(refused) = engine.submit(tick(&incidents::stream()), None).await {
            tracing::warn!(event = "timer_refused", %refused, "a due timer waits");
        }
        return false;
    }
    let now = engine.clock().now();
    // While writes are frozen the service's own clocks go on: whoever is on call must hear of it.
    // Those that wait may be many, and must not hide them.
    let is_frozen = engine.is_frozen();
    let limit = if is_frozen { FROZEN_LOOK_MAX } else { LOOK_MAX };
    let Ok(mut due) = engine.blocking(move |store| store.due(now, limit)).await else {
        return false;
    };
    if is_frozen {
        due.retain(StreamName::is_system);
    }
    let mut moved = false;
    for streams in due.chunks(TICKS_AT_ONCE) {
        let ticks = streams.iter().map(|stream| engine.submit(tick(stream), None));
        for outcome in join_all(ticks).await {
            match outcome {
                Ok(Some(_)) => {
                    moved = true;
                    engine.inner().common.metrics.timers_fired.inc();
                }
                Ok(None) => {}
                Err(refused) => {
                    tracing::warn!(event = "timer_refused", %refused, "a due timer waits");
                }
            }
        }
    }
    // Without progress the next look would find the same streams at once.
    moved && due.len() == LOOK_MAX
}

fn tick(stream: &StreamName) -> Request<'static> {
    Request {
        stream: stream.clone(),
        command: Command::Tick,
        actor: "timer".into(),
        may_register: false,
        key: None,
    }
}

/// Finds attempts that nobody is about to settle: their process died, or their result was lost.
pub(crate) async fn unsettled(engine: Engine, mut stop: Stop) {
    loop {
        tokio::select! {
            () = stop.asked() => return,
            () = settle_orphans(&engine) => {}
        }
        tokio::select! {
            () = stop.asked() => return,
            () = tokio::time::sleep(engine.options().check_interval) => {}
        }
    }
}

/// INV-3: an attempt without a result stays listed until it has one.
async fn settle_orphans(engine: &Engine) {
    let inner = engine.inner();
    let Ok(mut open) = engine.blocking(|store| store.unsettled(LOOK_MAX)).await else { return };
    // Whoever tells notices settles its own.
    open.retain(|stored| stored.stream.as_str() != limits::STREAM_NOTICES);
    inner.common.metrics.actions_unsettled.set(open.len() as i64);
    // Let go of when the look fails or is cut short.
    let held: Vec<Mark> =
        open.iter().filter_map(|stored| inner.common.in_flight.adopt(stored.id)).collect();
    if held.is_empty() {
        return;
    }
    // Some of them may have been settled, and let go of, after the look. What is still open now
    // that we hold it is an orphan: nobody lets go of an attempt before its result is durable.
    let Ok(open) = engine.blocking(|store| store.unsettled(LOOK_MAX)).await else { return };
    for mark in held {
        if let Some(stored) = open.iter().find(|stored| stored.id == mark.attempt()) {
            adopt(engine, stored, mark).await;
        }
    }
}

/// Takes an orphan on, or leaves it to a later look.
async fn adopt(engine: &Engine, stored: &Stored, mark: Mark) {
    let view = View::scan(&stored.core).ok().filter(|view| stored.is_intact(view));
    let Some(view) = view else {
        engine.inner().ledger.progress.mark_tampered();
        tracing::error!(event = "attempt_unreadable", receipt_id = %stored.id, "unsettled attempt cannot be read");
        return;
    };
    let action = view.action.text().into_owned();
    let spec = engine.inner().registry.get(&action).map(|actuator| actuator.spec());
    let Some(permit) = engine.inner().common.pool.reserve() else { return };
    let args = arguments(&view);
    let job = Job { stream: stored.stream.clone(), mark, action, args, permit };
    if spec.is_some_and(|spec| spec.idempotent) {
        tracing::warn!(event = "attempt_repeated", receipt_id = %stored.id, "repeating an attempt without a result");
        return engine.inner().common.pool.submit(job);
    }
    tracing::warn!(event = "attempt_unknown", receipt_id = %stored.id, "the outcome of an attempt is unknown");
    let outcome = Outcome { status: OutcomeStatus::Unknown, duration_ms: 0, tries: 1 };
    let request = settlement(&stored.stream, stored.id, outcome);
    // Settled or not, it is not in flight: what failed now is found again by the next look.
    let _ = engine.submit(request, Some(job.permit.clone())).await;
}

fn arguments(view: &View<'_>) -> BTreeMap<String, i64> {
    let integers = view.metadata().filter_map(|(key, value)| match value {
        MetaView::Int(value) => Some((key.to_owned(), value)),
        MetaView::Text(_) | MetaView::Bool(_) => None,
    });
    integers.collect()
}

fn settlement(stream: &StreamName, attempt: ReceiptId, outcome: Outcome) -> Request<'static> {
    Request {
        stream: stream.clone(),
        command: Command::Settle { attempt, outcome },
        actor: "action_pool".into(),
        may_register: false,
        key: None,
    }
}

/// Seals the result of a job; goes on trying while the store is away, until asked to stop.
pub(crate) async fn settle(engine: Engine, job: Job, command: Command, mut stop: Stop) {
    let Job { stream, mark, permit, .. } = job;
    let attempt = mark.attempt();
    loop {
        let request = Request {
            stream: stream.clone(),
            command: command.clone(),
            actor: "action_pool".into(),
            may_register: false,
            key: None,
        };
        // The next action of the same tenant, if there is one, takes over the place of this one.
        match engine.submit(request, Some(permit.clone())).await {
            Ok(_) => break,
            Err(refused) => {
                tracing::warn!(event = "settle_waits", %attempt, %refused, "a result cannot be sealed yet");
            }
        }
        tokio::select! {
            () = stop.asked() => break,
            () = tokio::time::sleep(SETTLE_BACKOFF) => {}
        }
    }
    // Only now: nobody lets go of an attempt before its result is durable.
    drop(mark);
}

/// Turns the counts of refusals into receipts.
pub(crate) async fn edge(engine: Engine, mut stop: Stop) {
    loop {
        tokio::select! {
            () = stop.asked() => return,
            () = tokio::time::sleep(WINDOW) => flush_edge(&engine).await,
        }
    }
}

/// One receipt for each count: of a tenant's refusals in its own chain, of all others in `_edge`.
/// What cannot be recorded goes back and is part of the next one.
pub(crate) async fn flush_edge(engine: &Engine) {
    let counts = engine.edge().take();
    let receipts = counts.into_iter().map(|(refusal, count)| async move {
        match engine.submit(refusals(&refusal, count), None).await {
            Ok(_) => {}
            // A tenant that nobody registered has no chain.
            Err(refused) if refused.reason == Reason::UnknownTenant => {
                engine.edge().add(Refusal { tenant: None, ..refusal }, count);
            }
            Err(refused) => {
                engine.edge().add(refusal, count);
                tracing::warn!(event = "edge_waits", %refused, "refusals cannot be recorded yet");
            }
        }
    });
    join_all(receipts).await;
}

fn refusals(refusal: &Refusal, count: u64) -> Request<'static> {
    let Refusal { reason, endpoint, ref tenant } = *refusal;
    let window_s = WINDOW.as_secs() as i64;
    let edge = || StreamName::system(limits::STREAM_EDGE);
    Request {
        stream: tenant.as_ref().map_or_else(edge, StreamName::tenant),
        command: Command::Refused { reason, endpoint, count, window_s },
        actor: "tai".into(),
        may_register: false,
        key: None,
    }
}
