//! Supervision: subsystems with the names that operators know, restarted when they fall, given
//! up when they keep falling.
//!
//! Owns: the life of every thread and task of the engine, restart intensity, and what `/health`
//! says about it. Refuses to know: what a worker does. Work that is queued belongs to the queues,
//! which outlive the workers: a restart drops a worker's memory, never its work.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::maybe_done;
use telemetry::metrics::Metrics;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;

/// Restarts within [`INTENSITY_WINDOW`] before a worker is given up (the seeds' 5 in 60 s).
pub const INTENSITY_RESTARTS: usize = 5;
/// The wait before the first of them; it doubles, since what was missing may come back.
pub const RESTART_BACKOFF: Duration = Duration::from_millis(50);
/// The span in which restarts are counted.
pub const INTENSITY_WINDOW: Duration = Duration::from_secs(60);

/// A request to stop, in the forms that threads and tasks can wait for.
#[derive(Clone)]
pub struct Stop {
    asked: watch::Receiver<bool>,
    hung_up: crossbeam_channel::Receiver<()>,
}

impl Stop {
    /// True once asked to stop.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        *self.asked.borrow()
    }

    /// Waits until asked to stop.
    pub async fn asked(&mut self) {
        // An error means that the supervisor is gone, which is a request to stop as well.
        let _ = self.asked.wait_for(|asked| *asked).await;
    }

    /// For `select!` in threads: becomes ready, disconnected, when asked to stop.
    #[must_use]
    pub fn channel(&self) -> &crossbeam_channel::Receiver<()> {
        &self.hung_up
    }
}

struct Stopper {
    ask: watch::Sender<bool>,
    hang_up: crossbeam_channel::Sender<()>,
}

fn stop_pair() -> (Stopper, Stop) {
    let (ask, asked) = watch::channel(false);
    let (hang_up, hung_up) = crossbeam_channel::bounded(0);
    (Stopper { ask, hang_up }, Stop { asked, hung_up })
}

type TaskFuture = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How a worker is started. Called again for each restart.
pub enum Body {
    /// On a thread of its own: for work that waits for disks.
    Thread(Box<dyn Fn(Stop) + Send + Sync>),
    /// On the async pool.
    Task(Box<dyn Fn(Stop) -> TaskFuture + Send + Sync>),
}

/// One supervised worker.
pub struct Worker {
    /// A name for logs and the thread list.
    pub name: &'static str,
    /// What it runs.
    pub body: Body,
}

impl Worker {
    /// A worker on a thread of its own.
    pub fn thread(name: &'static str, run: impl Fn(Stop) + Send + Sync + 'static) -> Worker {
        Worker { name, body: Body::Thread(Box::new(run)) }
    }

    /// A worker on the async pool.
    pub fn task<F: Future<Output = ()> + Send + 'static>(
        name: &'static str,
        run: impl Fn(Stop) -> F + Send + Sync + 'static,
    ) -> Worker {
        Worker { name, body: Body::Task(Box::new(move |stop| Box::pin(run(stop)))) }
    }
}

const STARTING: u8 = 0;
const RUNNING: u8 = 1;
const DOWN: u8 = 2;
const STOPPED: u8 = 3;

/// A named group of workers: one of the seeds' supervisors.
pub struct Subsystem {
    /// The seeds' name, such as `governance_sup`.
    pub name: &'static str,
    state: AtomicU8,
    restarts: AtomicU64,
    since: Mutex<Instant>,
    restart_asked: Notify,
}

/// How a subsystem looks from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubsystemStatus {
    /// The seeds' name.
    pub name: &'static str,
    /// `starting`, `running`, `down` or `stopped`.
    pub state: &'static str,
    /// Restarts since the process started.
    pub restarts: u64,
    /// Seconds since its last start.
    pub uptime_s: u64,
}

impl Subsystem {
    fn new(name: &'static str) -> Subsystem {
        Subsystem {
            name,
            state: AtomicU8::new(STARTING),
            restarts: AtomicU64::new(0),
            since: Mutex::new(Instant::now()),
            restart_asked: Notify::new(),
        }
    }

    /// True while all its workers run.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.state.load(Ordering::Acquire) == RUNNING
    }

    /// How it looks from outside.
    #[must_use]
    pub fn status(&self) -> SubsystemStatus {
        let state = match self.state.load(Ordering::Acquire) {
            STARTING => "starting",
            RUNNING => "running",
            DOWN => "down",
            _ => "stopped",
        };
        let since = *self.since.lock().unwrap_or_else(PoisonError::into_inner);
        SubsystemStatus {
            name: self.name,
            state,
            restarts: self.restarts.load(Ordering::Relaxed),
            uptime_s: since.elapsed().as_secs(),
        }
    }

    fn mark(&self, state: u8, metrics: &Metrics) {
        self.state.store(state, Ordering::Release);
        if state == RUNNING {
            *self.since.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        }
        let up = i64::from(state == RUNNING);
        metrics.subsystem_up.with([self.name]).set(up);
    }
}

/// A subsystem with what stops it and what ends when it has stopped.
struct Child {
    subsystem: Arc<Subsystem>,
    stopper: Stopper,
    ended: JoinHandle<()>,
}

/// The root of the tree: `tai_autonomics_sup`.
pub struct Supervisor {
    metrics: Arc<Metrics>,
    children: Mutex<Vec<Child>>,
    given_up: watch::Sender<Vec<&'static str>>,
}

impl Supervisor {
    /// A supervisor without children.
    #[must_use]
    pub fn new(metrics: Arc<Metrics>) -> Supervisor {
        let given_up = watch::Sender::new(Vec::new());
        Supervisor { metrics, children: Mutex::new(Vec::new()), given_up }
    }

    /// Starts a subsystem. Its workers restart together (one for all), so that none of them meets
    /// the memory of another's former life; other subsystems do not notice.
    pub fn start(&self, name: &'static str, workers: Vec<Worker>) {
        // One that begins again is not given up any more.
        self.given_up.send_modify(|names| names.retain(|given_up| *given_up != name));
        let subsystem = Arc::new(Subsystem::new(name));
        let (stopper, stop) = stop_pair();
        let (watched, metrics) = (Arc::clone(&subsystem), Arc::clone(&self.metrics));
        let task = supervise(watched, workers, stop, metrics, self.given_up.clone());
        #[expect(clippy::disallowed_methods, reason = "the supervisor is what names and drains")]
        let ended = tokio::spawn(task);
        self.lock().push(Child { subsystem, stopper, ended });
    }

    /// All subsystems in start order.
    #[must_use]
    pub fn status(&self) -> Vec<SubsystemStatus> {
        self.lock().iter().map(|child| child.subsystem.status()).collect()
    }

    /// The first subsystem that does not run, if any.
    #[must_use]
    pub fn first_not_running(&self) -> Option<&'static str> {
        let children = self.lock();
        let mut subsystems = children.iter().map(|child| &child.subsystem);
        subsystems.find(|subsystem| !subsystem.is_running()).map(|subsystem| subsystem.name)
    }

    /// The subsystems that are down for good, as they become so.
    #[must_use]
    pub fn given_up(&self) -> watch::Receiver<Vec<&'static str>> {
        self.given_up.subscribe()
    }

    /// The name of a subsystem as it is shown. `governor_sup` is the name that seed 001 once uses
    /// for `governance_sup`.
    #[must_use]
    pub fn canonical(&self, name: &str) -> Option<&'static str> {
        let name = if name == "governor_sup" { "governance_sup" } else { name };
        let children = self.lock();
        children.iter().map(|child| child.subsystem.name).find(|known| *known == name)
    }

    /// Restarts one subsystem; false when there is none of that name.
    #[must_use]
    pub fn restart(&self, name: &str) -> bool {
        let Some(name) = self.canonical(name) else { return false };
        let children = self.lock();
        let found = children.iter().find(|child| child.subsystem.name == name);
        if let Some(child) = found {
            child.subsystem.restart_asked.notify_one();
        }
        found.is_some()
    }

    /// Stops one subsystem and waits for its workers.
    pub async fn stop(&self, name: &str) {
        let taken = {
            let mut children = self.lock();
            let at = children.iter().position(|child| child.subsystem.name == name);
            at.map(|at| children.remove(at))
        };
        if let Some(Child { subsystem, stopper, ended }) = taken {
            // A send fails only when the task is gone already.
            let _ = stopper.ask.send(true);
            drop(stopper.hang_up);
            if ended.await.is_err() {
                tracing::error!(subsystem = subsystem.name, "supervision task failed");
            }
            subsystem.mark(STOPPED, &self.metrics);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Child>> {
        self.children.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn supervise(
    subsystem: Arc<Subsystem>,
    workers: Vec<Worker>,
    mut stop: Stop,
    metrics: Arc<Metrics>,
    given_up: watch::Sender<Vec<&'static str>>,
) {
    let workers: Vec<_> = workers.into_iter().map(Arc::new).collect();
    let mut restarts = VecDeque::new();
    loop {
        let (stopper, worker_stop) = stop_pair();
        let mut running: Vec<_> =
            workers.iter().map(|worker| start_worker(worker, &worker_stop)).collect();
        subsystem.mark(RUNNING, &metrics);
        let ended = tokio::select! {
            () = stop.asked() => Ended::Stopped,
            () = subsystem.restart_asked.notified() => Ended::Asked,
            name = first_ended(&mut running) => Ended::Fell(name),
        };
        subsystem.mark(STARTING, &metrics);
        let _ = stopper.ask.send(true);
        drop(stopper);
        for (_, handle) in running {
            // Whether it panicked is logged where it is caught.
            let _ = handle.await;
        }
        match ended {
            Ended::Stopped => return,
            Ended::Asked => {
                tracing::warn!(
                    event = "subsystem_restart",
                    subsystem = subsystem.name,
                    "restarting on request"
                );
            }
            Ended::Fell(worker) => {
                tracing::error!(
                    event = "subsystem_fell",
                    subsystem = subsystem.name,
                    worker,
                    "worker ended, restarting"
                );
                if too_many(&mut restarts, Instant::now()) {
                    subsystem.mark(DOWN, &metrics);
                    given_up.send_modify(|names| names.push(subsystem.name));
                    tracing::error!(
                        event = "subsystem_down",
                        subsystem = subsystem.name,
                        "given up after repeated failures"
                    );
                    stop.asked().await;
                    return;
                }
                let backoff = RESTART_BACKOFF * (1 << (restarts.len().saturating_sub(1)));
                tokio::select! {
                    () = stop.asked() => return,
                    () = tokio::time::sleep(backoff) => {}
                }
            }
        }
        subsystem.restarts.fetch_add(1, Ordering::Relaxed);
        metrics.subsystem_restarts.with([subsystem.name]).inc();
    }
}

enum Ended {
    Stopped,
    Asked,
    Fell(&'static str),
}

/// Counts a restart; true when there were too many within the window.
fn too_many(restarts: &mut VecDeque<Instant>, now: Instant) -> bool {
    restarts.push_back(now);
    while restarts.front().is_some_and(|at| now.duration_since(*at) > INTENSITY_WINDOW) {
        restarts.pop_front();
    }
    restarts.len() > INTENSITY_RESTARTS
}

/// A worker that runs. It may be awaited again after it has ended.
type Running = (&'static str, Pin<Box<dyn Future<Output = ()> + Send>>);

async fn first_ended(running: &mut [Running]) -> &'static str {
    let ends = running.iter_mut().map(|(name, end)| end.as_mut().map(|()| *name).boxed());
    futures_util::future::select_all(ends).await.0
}

fn start_worker(worker: &Arc<Worker>, stop: &Stop) -> Running {
    let (name, stop) = (worker.name, stop.clone());
    match &worker.body {
        Body::Task(run) => {
            let guarded = AssertUnwindSafe(run(stop)).catch_unwind();
            #[expect(clippy::disallowed_methods, reason = "the supervisor names and drains it")]
            let handle = tokio::spawn(async move {
                if guarded.await.is_err() {
                    tracing::error!(event = "worker_panicked", worker = name, "worker panicked");
                }
            });
            (name, Box::pin(maybe_done(handle.map(drop))))
        }
        Body::Thread(_) => {
            let worker = Arc::clone(worker);
            let (done, finished) = tokio::sync::oneshot::channel::<()>();
            let run = move || {
                if let Body::Thread(run) = &worker.body
                    && catch_unwind(AssertUnwindSafe(|| run(stop))).is_err()
                {
                    tracing::error!(event = "worker_panicked", worker = name, "worker panicked");
                }
                // Whoever waits for the end may close what the worker held.
                drop(worker);
                drop(done);
            };
            if let Err(error) = std::thread::Builder::new().name(name.to_owned()).spawn(run) {
                tracing::error!(worker = name, %error, "cannot start thread");
            }
            (name, Box::pin(maybe_done(finished.map(drop))))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicUsize;

    fn supervisor() -> Supervisor {
        Supervisor::new(Arc::new(Metrics::new().unwrap()))
    }

    #[tokio::test]
    async fn a_fallen_worker_is_restarted_and_others_do_not_notice() {
        let supervisor = supervisor();
        let starts = Arc::new(AtomicUsize::new(0));
        let other_starts = Arc::new(AtomicUsize::new(0));
        let (again, mut started) = tokio::sync::mpsc::channel(8);
        let counted = Arc::clone(&starts);
        supervisor.start(
            "falls",
            vec![Worker::thread("thread", move |stop| {
                let nth = counted.fetch_add(1, Ordering::SeqCst);
                again.blocking_send(nth).unwrap();
                assert!(nth > 1, "falls twice");
                let _ = stop.channel().recv();
            })],
        );
        let counted = Arc::clone(&other_starts);
        supervisor.start(
            "stays",
            vec![Worker::task("task", move |mut stop| {
                counted.fetch_add(1, Ordering::SeqCst);
                async move { stop.asked().await }
            })],
        );
        for nth in 0..3 {
            assert_eq!(started.recv().await, Some(nth));
        }
        supervisor.stop("falls").await;
        supervisor.stop("stays").await;
        assert_eq!(starts.load(Ordering::SeqCst), 3);
        assert_eq!(other_starts.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn a_worker_that_keeps_falling_is_given_up_and_named() {
        let supervisor = supervisor();
        supervisor.start("governance_sup", vec![Worker::task("task", |_| async {})]);
        let given_up = async {
            while supervisor.status()[0].state != "down" {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), given_up).await.unwrap();
        assert_eq!(supervisor.first_not_running(), Some("governance_sup"));
        let status = &supervisor.status()[0];
        assert_eq!((status.state, status.restarts), ("down", INTENSITY_RESTARTS as u64));
        supervisor.stop("governance_sup").await;
    }

    #[tokio::test]
    async fn a_restart_on_request_runs_the_worker_again() {
        let supervisor = supervisor();
        let (again, mut started) = tokio::sync::mpsc::channel(8);
        supervisor.start(
            "governance_sup",
            vec![Worker::task("task", move |mut stop| {
                let again = again.clone();
                async move {
                    again.send(()).await.unwrap();
                    stop.asked().await;
                }
            })],
        );
        started.recv().await.unwrap();
        assert!(supervisor.restart("governor_sup"), "the alias of seed 001");
        started.recv().await.unwrap();
        assert!(!supervisor.restart("nobody"));
        supervisor.stop("governance_sup").await;
    }

    #[test]
    fn restarts_are_forgotten_after_the_window() {
        let mut restarts = VecDeque::new();
        let start = Instant::now();
        for nth in 0..INTENSITY_RESTARTS {
            assert!(!too_many(&mut restarts, start + Duration::from_secs(nth as u64)));
        }
        let later = start + INTENSITY_WINDOW + Duration::from_secs(2);
        assert!(!too_many(&mut restarts, later));
        assert!(too_many(&mut restarts, later - Duration::from_secs(1)) || restarts.len() < 6);
    }
}
