//! `tai watch`: a second process that looks at the service from outside, and tells people when it
//! is dead or silent.
//!
//! Owns: the order and the pace of probes, pages, heartbeats and what follows an outage. Refuses to
//! know: the inside of the service. It opens no ledger and no port, so that nothing that the
//! service dies of is in here too.
//!
//! Three failed probes in a row begin an outage and three good ones end it. A stop that is meant is
//! none until it lasts too long. Each channel is told on its own, until it has taken it. While the
//! service is up, somebody outside hears a heartbeat: whoever misses it knows that the service, the
//! watcher or the whole machine is gone.

mod book;
mod hook;
mod leases;
mod lock;
mod probe;
mod shelf;
mod words;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use egress::Channels;
use engine::clock::SystemClock;
use engine::notify::{ChannelFacts, Courier, Delivery};
use futures_util::future::join_all;
use governors::Rules;
use serde_json::json;
use settings::Settings;
use telemetry::log::LogOptions;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch::Sender;
use tokio::time::MissedTickBehavior;
use types::{Clock, Micros, Severity};

use crate::cli::{EXIT_OK, usage_error};
use crate::client::{Call, Client};
use crate::options::log_options;
use crate::{ctl, planned_stop, serve, watch};
use book::Book;
use hook::{Hook, Unheard};
use probe::{Streak, Turn, Verdict};
use shelf::Shelf;

/// What hears that the service is up. A variable, since the URL is a key: an argument would be in
/// the list of processes.
const HEARTBEAT_VARIABLE: &str = "WATCH_HEARTBEAT_URL";
/// What restarts the service, or rolls it back; a key as well.
const RESTART_VARIABLE: &str = "WATCH_RESTART_URL";
/// Where the state is, when no option says it.
const STATE_VARIABLE: &str = "WATCH_STATE_FILE";
const STATE_FILE: &str = "tai-watch.json";

/// The first wait before a channel is tried again, doubled up to the last.
const AGAIN_FIRST: Duration = Duration::from_secs(2);
const AGAIN_LAST: Duration = Duration::from_secs(60);

/// Threads for what may block: the probe, two hooks, the file. Each ends when it is idle.
const BLOCKING_THREADS: usize = 4;

/// How to watch.
#[derive(Args)]
pub(crate) struct Watching {
    /// Where the service is; `TAI_URL`, or this machine at the port of the settings, when left out.
    #[arg(long)]
    url: Option<String>,
    /// Seconds between probes. Three that fail in a row begin an outage.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "10")]
    interval: Duration,
    /// Seconds that a probe may take.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "5")]
    timeout: Duration,
    /// Seconds after which an outage that lasts is told again, to the next step of the ladder.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "300")]
    repeat: Duration,
    /// Seconds that a stop that is meant may last before it is told like any other.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "120")]
    planned: Duration,
    /// Seconds between heartbeats to WATCH_HEARTBEAT_URL.
    #[arg(long, value_name = "SECONDS", value_parser = seconds, default_value = "60")]
    heartbeat: Duration,
    /// File of the state; `WATCH_STATE_FILE`, or `tai-watch.json` in the working directory, when
    /// left out.
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// File that holds an operator's key; `TAI_KEY` when left out. Only leases need it.
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

/// From 50 ms to a day.
fn seconds(text: &str) -> Result<Duration, String> {
    let span = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    let range = Duration::from_millis(50)..=Duration::from_secs(86_400);
    span.filter(|span| range.contains(span)).ok_or_else(|| "seconds, 0.05 to 86400".to_owned())
}

/// Watches until it is asked to stop.
pub(crate) fn run(
    how: Watching,
    settings: &Settings,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> anyhow::Result<ExitCode> {
    let path = how.state.clone().or_else(|| variable(STATE_VARIABLE).map(PathBuf::from));
    let path = path.unwrap_or_else(|| PathBuf::from(STATE_FILE));
    let ready = target(&how, settings, variable).and_then(|target| {
        let parts = prepare(settings, variable).map_err(|mistake| vec![format!("{mistake:#}")])?;
        Ok((target, parts))
    });
    let ((base, key), parts) = match ready {
        Ok(ready) => ready,
        Err(mistakes) => return Ok(usage_error(&mistakes)),
    };
    let clock = Arc::new(SystemClock::default());
    // The service's file is its own; whoever starts this process keeps its output.
    let options = LogOptions { file: None, outbox: None, ..log_options(settings) };
    let log = telemetry::log::init(&options, Arc::clone(&clock) as Arc<dyn Clock>)?;
    // A state that cannot be locked is told of in the log.
    let _lock = match lock::take(&path) {
        Ok(lock) => lock,
        Err(mistake) => return Ok(usage_error(&[mistake])),
    };
    let client = Client::new(&base, None)?;
    let watcher = Watcher {
        health: format!("{}/health", base.trim_end_matches('/')),
        base,
        key,
        client: Arc::new(client),
        shelf: Shelf::open(path),
        is_up: Sender::new(false),
        how,
        clock,
        parts,
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(BLOCKING_THREADS)
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(watcher.watch());
    // A probe that still waits must not hold the exit up.
    runtime.shutdown_background();
    log.flush();
    outcome.map(|()| ExitCode::from(EXIT_OK))
}

fn target(
    how: &Watching,
    settings: &Settings,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> Result<(String, Option<String>), Vec<String>> {
    let url = ctl::target(how.url.as_deref(), Ok(settings), variable)?;
    let key = ctl::key(how.key_file.as_deref(), variable)?;
    // Both are looked at before anything is watched.
    match Client::new(&url, key.as_deref()) {
        Ok(_) => Ok((url, key)),
        Err(error) => Err(vec![error.to_string()]),
    }
}

/// What is read before anything starts.
struct Parts {
    channels: Arc<Channels>,
    rules: Rules,
    /// Those that may be told, in the order of the policy.
    told: Vec<String>,
    /// Where the service leaves its marks.
    ledger_dir: PathBuf,
    heartbeat: Option<Hook>,
    restart: Option<Hook>,
}

fn prepare(
    settings: &Settings,
    variable: &dyn Fn(&str) -> Option<OsString>,
) -> anyhow::Result<Parts> {
    let text = |name: &str| variable(name)?.into_string().ok();
    let channels = watch::channels(settings, &text)?;
    let facts = channels.channels();
    let set_up: Vec<&str> = facts.iter().map(|facts| &*facts.name).collect();
    let shown = facts.iter().filter(|facts| facts.shows_states());
    let shown: Vec<&str> = shown.map(|facts| &*facts.name).collect();
    let rules = serve::catalogue(settings)?.with_channels(&set_up, &shown);
    let hook = |name: &str| {
        let url = variable(name).map(|url| url.into_string().ok().context("is not text"));
        url.transpose()
            .with_context(|| name.to_owned())?
            .map(|url| Hook::new(name, &url))
            .transpose()
    };
    Ok(Parts {
        told: rules.oncall().reach(Severity::Sev1),
        rules,
        ledger_dir: settings.ledger_dir.clone(),
        channels: Arc::new(channels),
        heartbeat: hook(HEARTBEAT_VARIABLE)?,
        restart: hook(RESTART_VARIABLE)?,
    })
}

/// The process.
struct Watcher {
    how: Watching,
    base: String,
    /// The route that is probed, as people may open it.
    health: String,
    key: Option<String>,
    client: Arc<Client>,
    parts: Parts,
    clock: Arc<SystemClock>,
    shelf: Shelf,
    /// Whether the service is certainly up.
    is_up: Sender<bool>,
}

impl Watcher {
    async fn watch(&self) -> anyhow::Result<()> {
        let (mut terminate, mut interrupt) =
            (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        tracing::info!(
            event = "watching",
            url = self.health,
            channels = self.parts.told.join(","),
            is_down = self.shelf.look(|book| book.open().is_some()),
            "watching the service"
        );
        if self.parts.told.is_empty() {
            tracing::warn!(
                event = "watch_tells_nobody",
                "no channel is set up: an outage is in this log alone"
            );
        }
        let facts = self.parts.channels.channels();
        let facts = facts.iter().filter(|facts| self.parts.told.contains(&facts.name));
        let tellers = join_all(facts.map(|facts| self.tell(facts)));
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = self.probe() => {}
            () = self.beat() => {}
            () = self.restart() => {}
            () = self.tidy() => {}
            () = self.shelf.keep() => {}
            () = async { tellers.await; std::future::pending().await } => {}
        }
        tracing::info!(event = "shutdown_complete", "Shutdown complete");
        Ok(())
    }

    /// Probes, and opens and closes outages.
    async fn probe(&self) {
        let mut streak = Streak::new(self.shelf.look(|book| book.open().is_some()));
        let mut ticks = tokio::time::interval(self.how.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let repeat_us = i64::try_from(self.how.repeat.as_micros()).unwrap_or(i64::MAX);
        let mut words = String::new();
        // Since when it is down by a stop that is meant.
        let mut meant = None;
        loop {
            ticks.tick().await;
            let made = self.clock.now();
            let verdict = self.ask().await;
            match &verdict {
                Verdict::Up(now) if words != *now => {
                    words.clone_from(now);
                    tracing::info!(
                        event = "service_health",
                        health = words,
                        "the service reports its health"
                    );
                }
                Verdict::Up(_) => {}
                Verdict::Says(reason) | Verdict::Silent(reason) => {
                    tracing::warn!(event = "probe_failed", reason, "a probe of the service failed");
                }
            }
            let now = self.clock.now();
            match streak.add(&verdict, made) {
                Turn::Up => drop(self.is_up.send_if_modified(|up| !std::mem::replace(up, true))),
                Turn::Unsure => {}
                Turn::Died { since, reason } => {
                    meant = self.died(since, &reason).await;
                    if meant.is_some() {
                        tracing::info!(
                            event = "service_stopped",
                            reason,
                            "the service was stopped on purpose"
                        );
                    }
                }
                Turn::Down { reason } => match meant {
                    Some(since) => meant = self.died(since, &reason).await,
                    None => {
                        let next = |round| self.step(round);
                        self.shelf.change_if(|book| book.lasts(&reason, now, repeat_us, next));
                    }
                },
                Turn::Back { since } => {
                    meant = None;
                    self.is_up.send_replace(true);
                    tracing::info!(event = "service_back", "the service serves again");
                    self.shelf.change(|book| book.end(since));
                    self.undo_leases().await;
                }
            }
        }
    }

    /// An outage begins, unless the service was stopped on purpose and may still come back: then
    /// this is since when it is down.
    async fn died(&self, since: Micros, reason: &str) -> Option<Micros> {
        if self.is_meant().await {
            return Some(since);
        }
        self.is_up.send_replace(false);
        tracing::error!(event = "service_dead", reason, "the service does not serve");
        let channels = self.step(1);
        let now = self.clock.now();
        self.shelf.change(|book| book.begin(since, reason, now, &channels));
        None
    }

    /// True while a stop that is meant may last.
    async fn is_meant(&self) -> bool {
        let dir = self.parts.ledger_dir.clone();
        let read = planned_stop::soon(move || planned_stop::read(&dir)).await;
        let Some(began) = read.flatten() else { return false };
        let limit_us = i64::try_from(self.how.planned.as_micros()).unwrap_or(i64::MAX);
        // One from the future says nothing of how long it has lasted.
        (0..limit_us).contains(&(self.clock.now().0 - began.0))
    }

    /// Whom a round calls: it climbs the ladder, and stays at its end. What the ledger knows of
    /// overrides is not known here.
    fn step(&self, round: u32) -> Vec<String> {
        let steps = self.parts.rules.oncall().steps_at(Severity::Sev1, self.clock.now());
        let at = usize::try_from(round).unwrap_or(usize::MAX).min(steps.len());
        steps.into_iter().nth(at.saturating_sub(1)).unwrap_or_default()
    }

    async fn ask(&self) -> Verdict {
        let (client, limit) = (Arc::clone(&self.client), self.how.timeout);
        let asked = tokio::task::spawn_blocking(move || client.ask(&Call::health(), limit)).await;
        match asked {
            Ok(answer) => Verdict::of(answer, limit),
            Err(_) => Verdict::Silent("it could not be asked".to_owned()),
        }
    }

    /// The service undoes leases itself, at its start and while it lives. After an outage somebody
    /// looks whether it has.
    async fn undo_leases(&self) {
        let (url, key, now) = (self.base.clone(), self.key.clone(), self.clock.now());
        let undo = move || leases::undo(&url, key.as_deref(), now);
        match tokio::task::spawn_blocking(undo).await {
            Ok(Ok(undone)) if undone.is_empty() => {}
            Ok(Ok(undone)) => {
                tracing::warn!(
                    event = "leases_undone",
                    settings = undone.join(","),
                    "leases that had ended were still in force"
                );
            }
            Ok(Err(error)) => {
                tracing::warn!(
                    event = "leases_unknown",
                    error = format!("{error:#}"),
                    has_key = self.key.is_some(),
                    "leases cannot be looked at"
                );
            }
            Err(_) => {}
        }
    }

    /// Tells one channel what it is owed, one thing at a time.
    async fn tell(&self, facts: &ChannelFacts) {
        let mut changes = self.shelf.changes();
        let mut pause = AGAIN_FIRST;
        loop {
            // Seen before it is looked up, so that a change in between is not missed.
            changes.mark_unchanged();
            let Some(due) = self.shelf.look(|book| book.due(&facts.name)) else {
                if changes.changed().await.is_err() {
                    return;
                }
                continue;
            };
            // In the file before it is sent: after a death in between it may have been taken.
            let number = self.shelf.change(|book| book.attempt(&facts.name, &due));
            self.shelf.kept(number).await;
            let may_repeat = due.is_repeat && !facts.repeats_are_known;
            let notice = words::notice(&due, &self.health, self.clock.now(), may_repeat);
            let channel = facts.name.as_str();
            let wait = match self.parts.channels.deliver(channel, &notice).await {
                Delivery::Delivered { .. } => {
                    tracing::info!(
                        event = "watch_told",
                        channel,
                        notice = notice.id,
                        "a notice was delivered"
                    );
                    None
                }
                Delivery::Refused { why } => {
                    tracing::error!(
                        event = "watch_refused",
                        channel,
                        notice = notice.id,
                        why,
                        "a channel refuses what it is told"
                    );
                    None
                }
                Delivery::Retry { after } => {
                    self.shelf.change(|book| book.not_taken(channel, &due));
                    Some(after.unwrap_or(pause))
                }
                Delivery::Unknown => Some(pause),
            };
            match wait {
                None => {
                    pause = AGAIN_FIRST;
                    self.shelf.change(|book| book.settled(channel, &due));
                }
                Some(wait) => {
                    tracing::warn!(
                        event = "watch_untold",
                        channel,
                        notice = notice.id,
                        wait_ms = wait.as_millis(),
                        "a notice was not taken and is tried again"
                    );
                    pause = (pause * 2).min(AGAIN_LAST);
                    tokio::time::sleep(wait).await;
                }
            }
        }
    }

    /// Says that the service is up, to whoever misses it. While it is down nothing is said.
    async fn beat(&self) {
        let Some(hook) = &self.parts.heartbeat else { return std::future::pending().await };
        let mut is_up = self.is_up.subscribe();
        let mut failure = None;
        loop {
            if is_up.wait_for(|is_up| *is_up).await.is_err() {
                return;
            }
            let heard = hook.knock(None).await.err();
            match &heard {
                _ if heard == failure => {}
                Some(unheard) => {
                    let why = unheard.why.as_str();
                    tracing::warn!(event = "heartbeat_failed", why, "nobody hears the heartbeat");
                }
                None => tracing::info!(event = "heartbeat_heard", "the heartbeat is heard again"),
            }
            failure = heard;
            tokio::time::sleep(self.how.heartbeat).await;
        }
    }

    /// Asks for a restart, once in an outage and not before the page is on its way. Where nobody
    /// was reached it is asked again for some time.
    async fn restart(&self) {
        let Some(hook) = &self.parts.restart else { return std::future::pending().await };
        let mut changes = self.shelf.changes();
        let mut pause = AGAIN_FIRST;
        loop {
            changes.mark_unchanged();
            let due = self.shelf.look(|book| book.restart_due(&self.parts.told).cloned());
            let Some(outage) = due else {
                if changes.changed().await.is_err() {
                    return;
                }
                continue;
            };
            // Noted first: a second restart may fall into the middle of the first start.
            let number = self.shelf.change(Book::restart_asked);
            self.shelf.kept(number).await;
            let body = json!({ "incident": words::incident(&outage), "reason": outage.reason });
            match hook.knock(Some(body)).await {
                Ok(()) => {
                    pause = AGAIN_FIRST;
                    tracing::info!(event = "restart_asked", "a restart was asked for");
                }
                Err(Unheard { why, is_unreachable: true }) if self.asks_again() => {
                    tracing::warn!(
                        event = "restart_unheard",
                        why,
                        wait_ms = pause.as_millis(),
                        "whoever restarts the service is asked again"
                    );
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(AGAIN_LAST);
                }
                Err(Unheard { why, .. }) => {
                    pause = AGAIN_FIRST;
                    tracing::error!(
                        event = "restart_not_asked",
                        why,
                        "nobody restarts the service"
                    );
                }
            }
        }
    }

    /// Notes that whoever restarts was not reached; false where that was so often enough.
    fn asks_again(&self) -> bool {
        let mut again = false;
        self.shelf.change(|book| again = book.restart_unheard());
        again
    }

    /// Forgets what everybody has been told.
    async fn tidy(&self) {
        let mut changes = self.shelf.changes();
        while changes.changed().await.is_ok() {
            let now = self.clock.now();
            self.shelf.change_if(|book| book.tidy(&self.parts.told, now));
        }
    }
}
