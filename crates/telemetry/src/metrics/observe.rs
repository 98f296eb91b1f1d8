//! Figures of the process and the machine, brought to their metrics.
//!
//! Owns: which figure is shown under which name. Refuses to know how a figure is read, and when:
//! before a scrape, and now and then for who reads metrics without one.

use std::path::Path;
use std::sync::PoisonError;

use super::Metrics;
use crate::{machine, process};

impl Metrics {
    /// Takes the figures of memory, processor and descriptors. A figure that the system does not
    /// give leaves its metric as it was. Reads a few files of `/proc` and of control groups, which
    /// take no disk.
    pub fn observe_process(&self) {
        // Two at once could count the same time twice.
        let observing = self.observing.lock().unwrap_or_else(PoisonError::into_inner);
        let gauge = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        if let Some(memory) = process::memory() {
            self.process_resident_memory_bytes.set(gauge(memory.resident_bytes));
            self.memory_usage_bytes.with(["rss"]).set(gauge(memory.resident_bytes));
            self.memory_usage_bytes.with(["heap_used"]).set(gauge(memory.heap_used_bytes));
        }
        if let Some(room) = machine::memory() {
            self.memory_usage_bytes.with(["heap_total"]).set(gauge(room.limit_bytes));
            self.memory_limit_bytes.set(gauge(room.limit_bytes));
            self.memory_available_bytes.set(gauge(room.available_bytes));
        }
        if let Some(fds) = process::open_fds() {
            self.process_open_fds.set(gauge(fds));
        }
        let used = process::cpu_seconds() - self.process_cpu_seconds.get();
        self.process_cpu_seconds.inc_by(used.max(0.0));
        if let Some(load) = machine::load1() {
            self.host_load1.set(load);
        }
        if let Some(cpus) = machine::cpus() {
            self.host_cpus.set(gauge(cpus));
        }
        drop(observing);
    }

    /// Takes the free share of the file system that holds `path`. May wait for the disk.
    pub fn observe_disk(&self, mount: &'static str, path: &Path) {
        if let Some(ratio) = machine::disk_free_ratio(path) {
            self.disk_free_ratio.with([mount]).set(ratio);
        }
    }
}
