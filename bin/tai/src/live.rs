//! Settings in a running process: what it was started with, and the live changes over it.
//!
//! Owns: who is told when a setting changes, and the end of the process. Refuses to know: what a
//! setting changes inside a part.
//!
//! What if the process dies here? A change is durable before it is applied, and applied again by
//! the next start; a lease that ended meanwhile is not.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use arc_swap::ArcSwap;
use egress::Egress;
use engine::Engine;
use engine::outbound::{Breaker, Outbound};
use engine::supervise::Stop;
use gateway::process::Pull;
use gateway::{Blocked, Gateway, Process};
use governors::StreamState;
use settings::{Baseline, Change, Lease, Resolved, Source, SpoolUse};
use telemetry::LogHandle;
use telemetry::metrics::Metrics;
use tokio::sync::{Notify, watch};
use types::{Micros, StreamName, limits};

use crate::exports::Exports;
use crate::options::{egress_policy, engine_options, gateway_options, level, relaxed};

/// The longest wait for the end of a lease, since wall time may be set meanwhile, and for another
/// try where live settings could not be read.
const LOOK_INTERVAL: Duration = Duration::from_secs(10);

/// How soon a change that another instance made holds here.
const SHARED_INTERVAL: Duration = Duration::from_secs(1);

/// What the operator asked the process to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    /// End in order.
    Stop,
    /// End in order and begin anew.
    Restart,
}

/// The settings in force and the life of the process.
pub(crate) struct Live {
    baseline: Baseline,
    resolved: ArcSwap<Resolved>,
    applied: watch::Sender<u64>,
    ask: OnceLock<Ask>,
    asked: Notify,
    pull: OnceLock<Arc<dyn Pull>>,
}

/// The parts that settings are applied to.
pub(crate) struct Applied {
    pub(crate) engine: Engine,
    pub(crate) egress: Arc<Egress>,
    pub(crate) door: Arc<Gateway>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) log: Arc<LogHandle>,
    pub(crate) exports: Exports,
}

impl Live {
    pub(crate) fn new(baseline: Baseline, resolved: Resolved) -> Live {
        Live {
            baseline,
            resolved: ArcSwap::from_pointee(resolved),
            applied: watch::Sender::new(0),
            ask: OnceLock::new(),
            asked: Notify::new(),
            pull: OnceLock::new(),
        }
    }

    /// Sets the subscription, once, before anybody asks for it.
    pub(crate) fn set_pull(&self, pull: Arc<dyn Pull>) {
        let _ = self.pull.set(pull);
    }

    /// Returns when the operator asked for the end, and says for which.
    pub(crate) async fn asked(&self) -> Ask {
        loop {
            let notified = self.asked.notified();
            if let Some(ask) = self.ask.get() {
                return *ask;
            }
            notified.await;
        }
    }

    fn ask(&self, ask: Ask) {
        // The first one holds: a stop is not overruled by a restart, nor the other way round.
        let _ = self.ask.set(ask);
        self.asked.notify_waiters();
    }

    /// Reads the live changes and puts what follows from them in force.
    pub(crate) async fn apply(&self, to: &Applied) -> anyhow::Result<()> {
        // Read before the state: a change in between leads to one more turn, never to one less.
        let newest = *to.engine.live_changes().borrow();
        let stream = StreamName::system(limits::STREAM_SETTINGS);
        let state = to.engine.state(&stream).await.context("cannot read the live settings")?;
        let mut resolved = self.resolve(&state, to.engine.clock().now());
        // Who takes the store out on all instances brings it back on one: the others read it there.
        if resolved.settings.receipt_spool == SpoolUse::Forced
            && to.engine.store().is_shared()
            && let Ok(there) = to.engine.state_in_ledger(&stream).await
        {
            let there = self.resolve(&there, to.engine.clock().now());
            if there.settings.receipt_spool != SpoolUse::Forced {
                resolved = there;
            }
        }
        for name in &resolved.ignored {
            tracing::warn!(event = "live_change_ignored", name, "a live change is not usable");
        }
        to.engine.reconfigure(engine_options(&resolved.settings));
        to.egress.set_policy(egress_policy(&resolved.settings));
        hold(&to.egress, &resolved.settings.circuit_breaker_force);
        let relaxed = relaxed(&resolved.settings, &to.metrics);
        to.door.reconfigure(gateway_options(&resolved.settings, relaxed));
        to.door.block(blocked(&state));
        to.log.set_level(level(resolved.settings.log_level));
        to.exports.reconfigure(&resolved.settings);
        self.resolved.store(Arc::new(resolved));
        self.applied.send_replace(newest);
        Ok(())
    }

    fn resolve(&self, state: &StreamState, now: Micros) -> Resolved {
        let values = state.live().into_iter().flat_map(|live| live.values());
        let changes: Vec<Change> = values
            .map(|value| Change {
                name: value.name.to_owned(),
                kept: value.kept.map(str::to_owned),
                lease: value
                    .lease
                    .filter(|(_, until)| now < *until)
                    .map(|(value, until)| Lease { value: value.to_owned(), until_s: until.secs() }),
            })
            .collect();
        // What the process was started with was resolved before, and changes cannot break it.
        self.baseline.resolve(&changes).unwrap_or_else(|_| (*self.resolved.load_full()).clone())
    }

    /// Applies every live change, and the end of every lease, until asked to stop.
    pub(crate) async fn follow(self: Arc<Live>, to: Arc<Applied>, mut stop: Stop) {
        let mut changes = to.engine.live_changes();
        loop {
            let applied = tokio::select! {
                // A store that hangs must not hold up the end.
                () = stop.asked() => return,
                applied = self.apply(&to) => applied,
            };
            if let Err(error) = &applied {
                tracing::error!(
                    event = "live_apply",
                    error = format!("{error:#}"),
                    "live settings cannot be applied"
                );
            }
            // A lease ends also where its end cannot be recorded, and so is no change. In a shared
            // store another instance makes changes that this one is not told of.
            let next_end = || self.next_end(to.engine.clock().now());
            let again = match applied {
                Ok(()) if to.engine.store().is_shared() => {
                    Some(next_end().map_or(SHARED_INTERVAL, |end| end.min(SHARED_INTERVAL)))
                }
                Ok(()) => next_end(),
                Err(_) => Some(LOOK_INTERVAL),
            };
            tokio::select! {
                () = stop.asked() => return,
                changed = changes.changed() => if changed.is_err() { return stop.asked().await },
                () = tokio::time::sleep(again.unwrap_or_default()), if again.is_some() => {}
            }
        }
    }

    /// How long until the first lease in force ends; no longer than a look at wall time may wait.
    fn next_end(&self, now: Micros) -> Option<Duration> {
        let resolved = self.resolved.load();
        let ends = resolved.provenance.iter().filter_map(|origin| match origin.source {
            Source::Lease { until_s } => Some(Micros::from_secs(until_s)),
            _ => None,
        });
        let left = ends.min()?.0.saturating_sub(now.0);
        Some(Duration::from_micros(u64::try_from(left).unwrap_or(0)).min(LOOK_INTERVAL))
    }
}

/// Holds the breakers that the setting names, and no others.
fn hold(egress: &Egress, text: &str) {
    let held = settings::breakers(text).unwrap_or_default();
    let dependencies = egress.dependencies();
    for (name, _) in &held {
        if !dependencies.iter().any(|state| state.name == *name) {
            tracing::warn!(event = "breaker_unknown", name, "CIRCUIT_BREAKER_FORCE names nobody");
        }
    }
    for state in dependencies {
        let found = held.iter().rev().find(|(name, _)| *name == state.name);
        let wanted =
            found.map(|(_, is_open)| if *is_open { Breaker::Open } else { Breaker::Closed });
        // Let go of only what was held: letting go closes it.
        if wanted.is_some() || state.is_forced {
            egress.force(state.name, wanted);
        }
    }
}

fn blocked(state: &StreamState) -> Blocked {
    Blocked::new(state.live().into_iter().flat_map(|live| live.sources()))
}

impl Process for Live {
    fn settings(&self) -> Arc<Resolved> {
        self.resolved.load_full()
    }

    fn applied(&self) -> watch::Receiver<u64> {
        self.applied.subscribe()
    }

    fn pull(&self) -> Option<Arc<dyn Pull>> {
        self.pull.get().cloned()
    }

    fn stop(&self) {
        self.ask(Ask::Stop);
    }

    fn restart(&self) {
        self.ask(Ask::Restart);
    }
}
