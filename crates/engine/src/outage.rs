//! Outages of a shared store: noticing one, standing in for the store, and the way back in stages.
//!
//! Owns: the stage, what each of them admits, and who moves it. Refuses to know: how receipts are
//! kept meanwhile ([`crate::spool`]), and why a store is away.
//!
//! ```text
//!   up ──fails and a probe fails──▶ away ──probe──▶ reads ──a note is written──▶ writes
//!    ▲                               ▲  any stage that fails                       │
//!    └──── signals are decided ◀── signals ◀── receipts are carried over ──────────┘
//! ```
//!
//! What if the process dies here? The stage is memory: the next start needs the store, and carries
//! over what it finds on the disk before it decides a signal that was queued.

use std::sync::Arc;
use std::time::{Duration, Instant};

use governors::Command;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use types::{Reason, StreamName, limits};

use crate::act::Engine;
use crate::commit::Refused;
use crate::ports::Standby;
use crate::spool::{Spool, Spools};
use crate::supervise::Stop;

/// How often it is looked whether an append is stuck, and what the operator wants.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// An append that takes longer than this is a store that does not answer.
const STALL: Duration = Duration::from_secs(2);

/// How long those who wait for a store that has gone away go on waiting: a store that refuses is
/// heard within this time, one that hangs is not.
const PARTING: Duration = Duration::from_secs(1);

/// The longest wait for a probe; the store's own deadline is shorter.
const PROBE_TIMEOUT: Duration = Duration::from_secs(15);

/// When a caller that was refused may come again.
const RETRY_AFTER_S: i64 = 10;

/// Where a shared store stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// It does not answer, or the operator has taken it out.
    Away,
    /// It answers: receipts are read again.
    Reads,
    /// It takes receipts: what was kept meanwhile is carried over.
    Writes,
    /// It has all receipts: signals are decided again.
    Signals,
    /// All is as ever, charges included.
    Up,
}

impl Stage {
    /// The word in health.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Stage::Away => "away",
            Stage::Reads => "reads",
            Stage::Writes => "writes",
            Stage::Signals => "signals",
            Stage::Up => "up",
        }
    }
}

/// What the operator wants of the spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpoolUse {
    /// It stands in while the store is away.
    Auto,
    /// Receipts go there also while the store answers.
    Forced,
    /// It is not used: while the store is away nothing is decided.
    Off,
}

/// Which receipts are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writes {
    /// All, until a stored receipt fails verification.
    Auto,
    /// None but those of the service about itself.
    Frozen,
    /// All, whatever was found.
    Open,
}

/// Where a command goes.
pub(crate) enum Route {
    /// To the ledger.
    Ledger,
    /// To what stands in for it.
    Spool(Arc<Spool>),
}

/// The stage of the store and what stands in for it.
pub(crate) struct Outage {
    stage: watch::Sender<Stage>,
    /// Counts verdicts on a store that failed.
    verdicts: watch::Sender<u64>,
    pub(crate) spools: Spools,
}

impl Outage {
    pub(crate) fn new(standby: Option<Arc<dyn Standby>>) -> Outage {
        Outage {
            stage: watch::Sender::new(Stage::Up),
            verdicts: watch::Sender::new(0),
            spools: Spools::new(standby),
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    fn set(&self, stage: Stage) {
        self.stage.send_replace(stage);
    }
}

/// What may be decided on what is known, and recorded elsewhere: prices, which change nothing, and
/// what the service says of itself, so that the runbook for a store that is away can run.
fn may_be_spooled(stream: &StreamName, command: &Command) -> bool {
    match command {
        Command::Quote { charge } => !charge,
        Command::Setting(_) | Command::Source(_) => true,
        Command::Note { .. } => stream.as_str() == limits::STREAM_OPS,
        Command::Entitlement(_)
        | Command::Signal(_)
        | Command::Settle { .. }
        | Command::Tick
        | Command::Untenanted { .. }
        | Command::Key(_)
        | Command::Refused { .. } => false,
    }
}

pub(crate) fn away() -> Refused {
    let mut refused = Refused::new(Reason::FirestoreError, "the receipt store is away");
    refused.retry_after_s = Some(RETRY_AFTER_S);
    refused
}

impl Engine {
    /// Where the store stands; always [`Stage::Up`] for one that is not shared.
    #[must_use]
    pub fn stage(&self) -> Stage {
        self.outage().stage()
    }

    /// True while something stands in for a store that is away.
    #[must_use]
    pub fn is_spooling(&self) -> bool {
        self.stage() < Stage::Writes && self.outage().spools.current().is_some()
    }

    /// Receipts that wait to be carried over to the store.
    #[must_use]
    pub fn spooled(&self) -> u64 {
        self.outage().spools.pending()
    }

    /// Where `command` goes now.
    pub(crate) fn route(&self, stream: &StreamName, command: &Command) -> Result<Route, Refused> {
        if self.is_frozen() && !stream.is_system() {
            let detail =
                "writes are frozen: a stored receipt failed verification, or an operator said so";
            return Err(Refused::new(Reason::ServiceUnavailable, detail));
        }
        let stage = self.stage();
        match (stage, command) {
            (Stage::Away | Stage::Reads, _) if may_be_spooled(stream, command) => {
                let spool = self.outage().spools.current().ok_or_else(away)?;
                spool.check_room(self.options().spool_max)?;
                Ok(Route::Spool(spool))
            }
            (Stage::Away | Stage::Reads, _)
            | (Stage::Writes, Command::Signal(_) | Command::Untenanted { .. })
            | (Stage::Writes | Stage::Signals, Command::Quote { charge: true }) => Err(away()),
            (Stage::Writes | Stage::Signals | Stage::Up, _) => Ok(Route::Ledger),
        }
    }

    /// True when no receipt of a tenant may be written.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        match self.options().writes {
            Writes::Auto => self.is_tampered(),
            Writes::Frozen => true,
            Writes::Open => false,
        }
    }

    /// Fails at once what would only wait for a store that is away.
    pub(crate) fn check_reads(&self) -> Result<(), Refused> {
        if self.stage() == Stage::Away { Err(away()) } else { Ok(()) }
    }

    /// Returns some time after a shared store has gone away.
    pub(crate) async fn store_gone(&self) {
        if !self.store().is_shared() {
            return std::future::pending().await;
        }
        let mut stage = self.outage().stage.subscribe();
        // The sender is ours, and outlives us.
        let _ = stage.wait_for(|stage| *stage == Stage::Away).await;
        sleep(PARTING).await;
    }

    /// Where a command goes that the store has just failed: waits for the verdict on the store.
    pub(crate) async fn reroute(
        &self,
        stream: &StreamName,
        command: &Command,
    ) -> Option<Arc<Spool>> {
        if !self.store().is_shared() || !may_be_spooled(stream, command) {
            return None;
        }
        let mut verdicts = self.outage().verdicts.subscribe();
        if self.stage() == Stage::Up {
            let _ = timeout(PROBE_TIMEOUT, verdicts.changed()).await;
        }
        match self.route(stream, command) {
            Ok(Route::Spool(spool)) => Some(spool),
            Ok(Route::Ledger) | Err(_) => None,
        }
    }
}

/// Watches a shared store until asked to stop.
pub(crate) async fn watch(engine: Engine, mut stop: Stop) {
    tokio::select! {
        () = stop.asked() => {}
        () = follow(&engine) => {}
    }
}

async fn follow(engine: &Engine) {
    engine.gather_left().await;
    let mut since = Instant::now();
    loop {
        let stage = engine.stage();
        let next = match stage {
            Stage::Up => up(engine).await,
            Stage::Away => comes_back(engine).await,
            Stage::Reads | Stage::Writes | Stage::Signals => advance(engine, stage, since).await,
        };
        if next == stage {
            continue;
        }
        if next == Stage::Away {
            since = Instant::now();
            leave(engine).await;
        }
        tracing::warn!(
            event = "store_stage",
            stage = next.as_str(),
            "the receipt store is {}",
            next.as_str()
        );
        engine.outage().set(next);
        engine.inner().common.metrics.store_stage.set(next as i64);
        engine.outage().verdicts.send_modify(|count| *count += 1);
    }
}

/// Waits for a reason to doubt the store, and asks it.
async fn up(engine: &Engine) -> Stage {
    let progress = &engine.inner().ledger.progress;
    tokio::select! {
        () = progress.trouble() => {}
        () = sleep(LOOK_INTERVAL) => {
            if wants_spool(engine) || progress.append_takes() > STALL {
                return Stage::Away;
            }
            carry_left(engine).await;
            return Stage::Up;
        }
    }
    if answers(engine).await {
        engine.outage().verdicts.send_modify(|count| *count += 1);
        return Stage::Up;
    }
    Stage::Away
}

fn wants_spool(engine: &Engine) -> bool {
    engine.options().spool_use == SpoolUse::Forced
}

/// Does what an earlier life left undone: its receipts first, then the signals behind them.
async fn carry_left(engine: &Engine) {
    let done = match engine.carry_over().await {
        Ok(()) => engine.take_queued().await,
        Err(error) => Err(error),
    };
    if let Err(error) = done {
        tracing::error!(
            event = "carry_failed",
            error,
            "what was kept here is not in the store yet"
        );
        sleep(engine.options().probe_interval).await;
    }
}

async fn leave(engine: &Engine) {
    if engine.options().spool_use == SpoolUse::Off {
        return;
    }
    match engine.open_spool().await {
        Ok(durability) => tracing::warn!(
            event = "graceful_degrade",
            durability = durability.as_str(),
            "GRACEFUL_DEGRADE: the receipt store is away, receipts are kept here until it is back"
        ),
        Err(error) => {
            tracing::error!(
                event = "spool_failed",
                error,
                "nothing stands in for the receipt store"
            );
        }
    }
}

async fn comes_back(engine: &Engine) -> Stage {
    sleep(engine.options().probe_interval).await;
    if wants_spool(engine) || !answers(engine).await { Stage::Away } else { Stage::Reads }
}

/// Holds a stage for as long as the operator wants, proves it, and goes on to the next.
async fn advance(engine: &Engine, stage: Stage, since: Instant) -> Stage {
    if !holds(engine).await {
        return Stage::Away;
    }
    let proved = match stage {
        Stage::Reads => {
            engine.note_return(since.elapsed()).await.map_err(|error| error.to_string())
        }
        Stage::Writes => engine.carry_over().await,
        Stage::Signals => engine.take_queued().await,
        Stage::Away | Stage::Up => Ok(()),
    };
    match (proved, stage) {
        (Ok(()), Stage::Reads) => Stage::Writes,
        (Ok(()), Stage::Writes) => Stage::Signals,
        (Ok(()), _) => Stage::Up,
        (Err(error), _) => {
            tracing::error!(
                event = "return_halted",
                stage = stage.as_str(),
                error,
                "the way back is halted"
            );
            if answers(engine).await { stage } else { Stage::Away }
        }
    }
}

/// True when the store answers for the time of one stage.
async fn holds(engine: &Engine) -> bool {
    let until = Instant::now() + engine.options().stage_time;
    loop {
        if wants_spool(engine) || !answers(engine).await {
            return false;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return true;
        }
        sleep(left.min(engine.options().probe_interval)).await;
    }
}

/// Asks the store where its log stands, which settles what nobody knows the outcome of.
async fn answers(engine: &Engine) -> bool {
    let (store, progress) =
        (Arc::clone(&engine.inner().ledger.store), Arc::clone(&engine.inner().ledger.progress));
    let asked =
        tokio::task::spawn_blocking(move || progress.after_vital_read(store.head()).is_ok());
    matches!(timeout(PROBE_TIMEOUT, asked).await, Ok(Ok(true)))
}
