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
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use governors::{Command, KeyChange, StreamState};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use types::{Reason, StreamName, limits};

use crate::act::Engine;
use crate::commit::Refused;
use crate::decider::local;
use crate::load;
use crate::ports::{Durability, Standby};
use crate::spool::{Spool, Spools};
use crate::supervise::Stop;

/// How often it is looked whether a call is stuck, and what the operator wants.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// A call that all decisions wait for and that takes longer than this is a store that does not
/// answer.
const STALL: Duration = Duration::from_secs(2);

/// How long those who wait for a store that has gone away go on waiting: a store that refuses is
/// heard within this time, one that hangs is not.
const PARTING: Duration = Duration::from_secs(1);

/// The longest wait for a probe. One that goes on is waited for again before another is made.
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);

/// The longest wait for a verdict on a store that failed.
const VERDICT_TIMEOUT: Duration = Duration::from_secs(5);

/// When a caller that was refused may come again.
pub(crate) const RETRY_AFTER_S: i64 = 10;

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
    /// The question that the store has not answered yet.
    probe: tokio::sync::Mutex<Option<JoinHandle<bool>>>,
    /// A spool has been opened since the store was up last, and the log says so.
    stood_in: AtomicBool,
    pub(crate) spools: Spools,
}

impl Outage {
    pub(crate) fn new(standby: Option<Arc<dyn Standby>>) -> Outage {
        Outage {
            stage: watch::Sender::new(Stage::Up),
            verdicts: watch::Sender::new(0),
            probe: tokio::sync::Mutex::default(),
            stood_in: AtomicBool::new(false),
            spools: Spools::new(standby),
        }
    }

    pub(crate) fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    fn tell_verdict(&self) {
        self.verdicts.send_modify(|count| *count += 1);
    }

    /// Verdicts so far.
    pub(crate) fn verdicts(&self) -> u64 {
        *self.verdicts.borrow()
    }
}

/// What may be decided on what is known, and recorded elsewhere: prices, which change nothing, and
/// what the service says of itself, so that the runbook for a store that is away can run.
fn may_be_spooled(stream: &StreamName, command: &Command) -> bool {
    match command {
        Command::Quote { charge } => !charge,
        Command::Setting(_) | Command::Source(_) => true,
        Command::Note { .. } => stream.as_str() == limits::STREAM_OPS,
        // Somebody has to hear that the store is away.
        Command::Alert(_) | Command::Incident(_) | Command::Silence(_) => true,
        Command::Tick => stream.as_str() == limits::STREAM_INCIDENTS,
        Command::Entitlement(_)
        | Command::Signal(_)
        | Command::Settle { .. }
        | Command::Reserve(_)
        | Command::TopUp { .. }
        | Command::Charge { .. }
        | Command::Budget(_)
        | Command::Untenanted { .. }
        | Command::Key(_)
        | Command::Override(_)
        | Command::Maintenance(_)
        // Goes to the chain itself, where the other one is sent by whoever tells.
        | Command::Carried(_)
        | Command::Notice(_)
        | Command::Refused { .. } => false,
    }
}

fn is_watched(stream: &StreamName) -> bool {
    stream.as_str() == limits::STREAM_INCIDENTS
}

pub(crate) fn away() -> Refused {
    away_because("the receipt store is away")
}

pub(crate) fn away_because(detail: &str) -> Refused {
    let mut refused = Refused::new(Reason::FirestoreError, detail);
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

    /// What a receipt survives that is given out now.
    #[must_use]
    pub fn durability(&self) -> Durability {
        let spool = self.outage().spools.current().filter(|_| self.is_spooling());
        spool.map_or_else(|| self.store().durability(), |spool| local(spool.store.durability()))
    }

    /// A stream's state as the store has it, also while that is taken out.
    ///
    /// # Errors
    /// When the store does not answer, or too many ask it.
    pub async fn state_in_ledger(&self, stream: &StreamName) -> Result<StreamState, Refused> {
        let turn = Arc::clone(&self.inner().reads).try_acquire_owned().map_err(|_| away())?;
        let ledger = &self.inner().ledger;
        let (store, progress) = (Arc::clone(&ledger.store), Arc::clone(&ledger.progress));
        let stream = stream.clone();
        let loaded = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            load::load(&*store, &stream, &progress)
        });
        let loaded = loaded.await.ok().and_then(Result::ok).ok_or_else(away)?;
        Ok(loaded.live.now.state)
    }

    /// Receipts that wait to be carried over to the store.
    #[must_use]
    pub fn spooled(&self) -> u64 {
        self.outage().spools.pending()
    }

    /// Spools of this or of an earlier life that cannot be opened or carried over: people have to
    /// look at them.
    #[must_use]
    pub fn spools_held_back(&self) -> u64 {
        self.outage().spools.held_back()
    }

    /// Where `command` goes now.
    pub(crate) fn route(&self, stream: &StreamName, command: &Command) -> Result<Route, Refused> {
        // What was begun is finished, and a key that is no longer trusted is taken away.
        let must_go_on = matches!(
            command,
            Command::Settle { .. }
                | Command::Charge { .. }
                | Command::Key(KeyChange::Revoke { .. })
        );
        if self.is_frozen() && !stream.is_system() && !must_go_on {
            let detail =
                "writes are frozen: a stored receipt failed verification, or an operator said so";
            return Err(Refused::new(Reason::ServiceUnavailable, detail));
        }
        let stage = self.stage();
        if is_watched(stream) {
            return self.route_watched(stage, may_be_spooled(stream, command));
        }
        match (stage, command) {
            (Stage::Away | Stage::Reads, _)
                if may_be_spooled(stream, command) && self.options().spool_use != SpoolUse::Off =>
            {
                let spool = self.outage().spools.current().ok_or_else(away)?;
                if self.spooled() >= self.options().spool_max {
                    return Err(away_because("the receipt store is away and the spool is full"));
                }
                Ok(Route::Spool(spool))
            }
            (Stage::Away | Stage::Reads, _)
            | (Stage::Writes, Command::Signal(_) | Command::Untenanted { .. })
            | (
                Stage::Writes | Stage::Signals,
                Command::Quote { charge: true }
                | Command::Reserve(_)
                | Command::TopUp { .. }
                | Command::Budget(_),
            ) => Err(away()),
            (Stage::Writes | Stage::Signals | Stage::Up, _) => Ok(Route::Ledger),
        }
    }

    /// Where goes what is said of alerts and incidents. All of it goes to the lane until that is
    /// carried over, or the chain would learn of an incident twice; and it is not kept out by what
    /// fills the spool. What is not carried over has to wait: it would be taken and then lost.
    fn route_watched(&self, stage: Stage, may_wait: bool) -> Result<Route, Refused> {
        match self.outage().spools.current() {
            Some(spool) if self.options().spool_use != SpoolUse::Off => match may_wait {
                true => Ok(Route::Spool(spool)),
                false => Err(away()),
            },
            _ if stage < Stage::Writes => Err(away()),
            _ if self.outage().spools.keep_waiting() => {
                Err(away_because("what an earlier life said of incidents is not carried over yet"))
            }
            _ => Ok(Route::Ledger),
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

    /// Where a command goes that the store has just failed: waits for a verdict on the store,
    /// unless there was one after the first `seen`.
    pub(crate) async fn reroute(
        &self,
        stream: &StreamName,
        command: &Command,
        seen: u64,
    ) -> Option<Arc<Spool>> {
        if !self.store().is_shared() || !may_be_spooled(stream, command) {
            return None;
        }
        let mut verdicts = self.outage().verdicts.subscribe();
        if self.stage() == Stage::Up {
            if self.store_answers() {
                return None;
            }
            let _ = timeout(VERDICT_TIMEOUT, verdicts.wait_for(|count| *count > seen)).await;
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
            // Before anybody is sent there, unless it takes too long: nobody else is to begin to
            // wait for the store.
            let _ = timeout(PARTING, stands_in(engine)).await;
        }
        let next_word = next.as_str();
        tracing::warn!(
            event = "store_stage",
            stage = next_word,
            "the receipt store is at the stage {next_word}"
        );
        engine.outage().stage.send_replace(next);
        engine.inner().common.metrics.store_stage.set(next as i64);
        engine.outage().tell_verdict();
    }
}

/// Waits for a reason to doubt the store, and asks it.
async fn up(engine: &Engine) -> Stage {
    tokio::select! {
        () = engine.inner().ledger.progress.trouble() => {}
        () = sleep(LOOK_INTERVAL) => {
            if is_stuck(engine) || is_taken_out(engine).await {
                return Stage::Away;
            }
            if engine.inner().ledger.progress.longest_read() > STALL {
                return verdict(engine).await;
            }
            match undisturbed(engine, carry_left(engine)).await {
                Ok(()) => return Stage::Up,
                // A failed call has given trouble as well, or it is not the store's.
                Err(error) => {
                    tracing::error!(event = "carry_failed", error, "what was kept here is not in the store yet");
                    sleep(engine.options().probe_interval).await;
                }
            }
        }
    }
    verdict(engine).await
}

async fn verdict(engine: &Engine) -> Stage {
    let answered = !is_stuck(engine) && answers(engine).await;
    engine.outage().tell_verdict();
    if answered { Stage::Up } else { Stage::Away }
}

fn is_stuck(engine: &Engine) -> bool {
    engine.inner().ledger.progress.longest_call() > STALL
}

/// True when the operator wants the store out and something stands in for it.
async fn is_taken_out(engine: &Engine) -> bool {
    engine.options().spool_use == SpoolUse::Forced && stands_in(engine).await
}

/// Does what an earlier life left undone: its receipts first, then the signals behind them.
async fn carry_left(engine: &Engine) -> Result<(), String> {
    engine.carry_over().await?;
    engine.take_queued().await
}

/// Opens a spool unless there is one; false when nothing stands in for the store.
async fn stands_in(engine: &Engine) -> bool {
    let outage = engine.outage();
    if engine.options().spool_use == SpoolUse::Off {
        return false;
    }
    match engine.open_spool().await {
        Ok(durability) => {
            if !outage.stood_in.swap(true, Ordering::AcqRel) {
                tracing::warn!(
                    event = "graceful_degrade",
                    durability = durability.as_str(),
                    "GRACEFUL_DEGRADE: receipts are kept here until the receipt store is back"
                );
            }
            true
        }
        Err(error) => {
            tracing::error!(
                event = "spool_failed",
                error,
                "nothing stands in for the receipt store"
            );
            false
        }
    }
}

async fn comes_back(engine: &Engine) -> Stage {
    sleep(engine.options().probe_interval).await;
    // What could not be opened a moment ago may be now.
    let stands_in = stands_in(engine).await;
    let taken_out = engine.options().spool_use == SpoolUse::Forced && stands_in;
    if taken_out || !answers(engine).await { Stage::Away } else { Stage::Reads }
}

/// Holds a stage for as long as the operator wants, proves it, and goes on to the next.
async fn advance(engine: &Engine, stage: Stage, since: Instant) -> Stage {
    if !holds(engine).await {
        return Stage::Away;
    }
    let proved = match stage {
        Stage::Reads => undisturbed(engine, engine.note_return(since.elapsed())).await,
        Stage::Writes => undisturbed(engine, engine.carry_over()).await,
        Stage::Signals => undisturbed(engine, engine.take_queued()).await,
        Stage::Away | Stage::Up => Ok(()),
    };
    match (proved, stage) {
        (Ok(()), Stage::Reads) => Stage::Writes,
        (Ok(()), Stage::Writes) => {
            engine.outage().stood_in.store(false, Ordering::Release);
            Stage::Signals
        }
        (Ok(()), _) => Stage::Up,
        (Err(error), _) => {
            let stage_word = stage.as_str();
            tracing::error!(
                event = "return_halted",
                stage = stage_word,
                error,
                "the way back is halted"
            );
            if !is_stuck(engine) && answers(engine).await { stage } else { Stage::Away }
        }
    }
}

/// Does `work` unless the store hangs meanwhile, or the operator takes it out. All that is done
/// here may be left in the middle and done again.
async fn undisturbed(
    engine: &Engine,
    work: impl Future<Output = Result<(), String>>,
) -> Result<(), String> {
    let disturbed = async {
        while !is_stuck(engine) && engine.options().spool_use != SpoolUse::Forced {
            sleep(LOOK_INTERVAL).await;
        }
    };
    tokio::select! {
        outcome = work => outcome,
        () = disturbed => Err("the store hangs, or was taken out".to_owned()),
    }
}

/// True when the store answers for the time of one stage.
async fn holds(engine: &Engine) -> bool {
    let until = Instant::now() + engine.options().stage_time;
    loop {
        if is_taken_out(engine).await || !answers(engine).await {
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
    let mut probe = engine.outage().probe.lock().await;
    let asked = probe.get_or_insert_with(|| {
        let ledger = &engine.inner().ledger;
        let (store, progress) = (Arc::clone(&ledger.store), Arc::clone(&ledger.progress));
        tokio::task::spawn_blocking(move || progress.vital_read(|| store.head()).is_ok())
    });
    match timeout(PROBE_TIMEOUT, asked).await {
        Ok(answered) => {
            *probe = None;
            answered.unwrap_or(false)
        }
        Err(_) => false,
    }
}
