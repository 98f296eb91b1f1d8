//! What the service looks at now and then, without being asked.
//!
//! Owns: how often the figures of process, disks and log are brought to the metrics, and the line
//! about memory. Refuses to know: how a figure is read, and what follows from it.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use egress::Egress;
use engine::Engine;
use engine::supervise::Stop;
use settings::Settings;
use telemetry::LogHandle;
use telemetry::metrics::Metrics;
use tokio::time::Instant;

use crate::exports::Exports;

/// How old a figure may be that nobody asked for.
const OBSERVE_INTERVAL: Duration = Duration::from_secs(5);

/// How often memory is told to the log.
const MEMORY_INTERVAL: Duration = Duration::from_secs(60);

/// A folder whose disk is watched, by the name that metrics have for it.
type Mount = (&'static str, PathBuf);

/// The folders that fill: of the ledger, and of the log where it is a file.
pub(crate) fn mounts(settings: &Settings) -> Vec<Mount> {
    let log = settings.log_file.as_deref().and_then(Path::parent).map(|folder| {
        // The folder of a bare file name is the one that the process stands in.
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        ("logs", folder.to_owned())
    });
    std::iter::once(("ledger", settings.ledger_dir.clone())).chain(log).collect()
}

/// What is looked at.
#[derive(Clone)]
pub(crate) struct Observed {
    pub(crate) engine: Engine,
    pub(crate) egress: Arc<Egress>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) log: Arc<LogHandle>,
    pub(crate) exports: Exports,
    pub(crate) mounts: Arc<[Mount]>,
}

impl Observed {
    /// Looks until asked to stop.
    pub(crate) async fn observe(self, mut stop: Stop) {
        let mut told = Instant::now();
        tell_memory();
        loop {
            for (sink, lines) in self.log.dropped() {
                self.metrics.log_lines_dropped_reach(sink, lines);
            }
            self.metrics.trace_spans_dropped_reach(self.exports.spans_dropped());
            self.metrics.observe_process();
            let is_up = self.engine.supervisor().first_not_running().is_none();
            self.metrics.health_up.set(i64::from(is_up));
            // Connections that nobody uses any more.
            self.egress.sweep();
            self.engine.observe_answers();
            if told.elapsed() >= MEMORY_INTERVAL {
                told = Instant::now();
                tell_memory();
            }
            let rest = async {
                self.observe_disks().await;
                tokio::time::sleep(OBSERVE_INTERVAL).await;
            };
            tokio::select! {
                () = stop.asked() => return,
                () = rest => {}
            }
        }
    }

    /// A disk that hangs holds up the next look and nothing else.
    async fn observe_disks(&self) {
        let (metrics, mounts) = (Arc::clone(&self.metrics), Arc::clone(&self.mounts));
        let look = move || {
            mounts.iter().for_each(|(mount, path)| metrics.observe_disk(mount, path));
        };
        // It cannot panic, and a figure that is missing is one.
        let _ = tokio::task::spawn_blocking(look).await;
    }
}

/// One line about memory, for who has a log and no metrics.
fn tell_memory() {
    let Some(memory) = telemetry::process::memory() else { return };
    let heap_total = telemetry::machine::memory().map(|memory| memory.limit_bytes);
    // Seed 002 has megabytes, and calls what a process keeps in memory its tables.
    let megabytes = |bytes: u64| (bytes / 1_000) as f64 / 1_000.0;
    tracing::info!(
        event = "memory_usage",
        rss_bytes = memory.resident_bytes,
        heap_used = memory.heap_used_bytes,
        heap_total,
        memory_used_mb = megabytes(memory.resident_bytes),
        ets_size_mb = megabytes(memory.heap_used_bytes),
        "memory in use"
    );
}
