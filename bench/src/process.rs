//! What a process costs, as the kernel counts it.
//!
//! Owns: reading `/proc`. Refuses to know: which process it is.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result};

/// CPU time of each thread since it began: by its number in `/proc`, with its name.
#[derive(Debug, Clone, Default)]
pub(crate) struct CpuTimes(BTreeMap<OsString, (String, Spent)>);

#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    running: Duration,
    waiting: Duration,
}

impl CpuTimes {
    /// Threads that have ended are not counted: sample while they live.
    pub(crate) fn of(process: u32) -> Result<CpuTimes> {
        let mut times = CpuTimes::default();
        for task in fs::read_dir(format!("/proc/{process}/task")).context("no such process")? {
            let task = task?;
            let (number, task) = (task.file_name(), task.path());
            // A thread may end between the listing and the reading.
            let (Ok(name), Ok(stat)) =
                (fs::read_to_string(task.join("comm")), fs::read_to_string(task.join("schedstat")))
            else {
                continue;
            };
            let mut nanos = stat.split_whitespace().map(str::parse::<u64>);
            let mut next = || nanos.next().and_then(Result::ok).map(Duration::from_nanos);
            let running = next().unwrap_or_default();
            let spent = Spent { running, waiting: next().unwrap_or_default() };
            times.0.insert(number, (name.trim().to_owned(), spent));
        }
        Ok(times)
    }

    pub(crate) fn total(&self) -> Duration {
        self.0.values().map(|(_, spent)| spent.running).sum()
    }

    /// What was spent since an earlier sample.
    pub(crate) fn since(&self, earlier: &CpuTimes) -> CpuTimes {
        let differences = self.0.iter().map(|(number, (name, now))| {
            let then = earlier.0.get(number).map_or(Spent::default(), |(_, then)| *then);
            let running = now.running.saturating_sub(then.running);
            let waiting = now.waiting.saturating_sub(then.waiting);
            (number.clone(), (name.clone(), Spent { running, waiting }))
        });
        CpuTimes(differences.collect())
    }

    /// Microseconds per unit of work, summed over threads of one name, the costliest first.
    pub(crate) fn per(&self, count: u64) -> String {
        let micros = |time: Duration| time.as_secs_f64() * 1e6 / count.max(1) as f64;
        let mut groups = BTreeMap::<&str, Spent>::new();
        for (name, spent) in self.0.values() {
            let group = groups.entry(name).or_default();
            group.running += spent.running;
            group.waiting += spent.waiting;
        }
        let mut threads: Vec<_> = groups.iter().collect();
        threads.sort_by_key(|(_, spent)| std::cmp::Reverse(spent.running));
        let shown: Vec<_> = threads
            .iter()
            .filter(|(_, spent)| micros(spent.running) >= 0.1)
            .map(|(name, spent)| {
                let (running, waiting) = (micros(spent.running), micros(spent.waiting));
                format!("{name} {running:.1} (+{waiting:.1} waiting for a core)")
            })
            .collect();
        shown.join(", ")
    }
}

/// Resident bytes of a process.
pub(crate) fn resident_bytes(process: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{process}/status")).context("it has ended")?;
    let kib =
        status.lines().find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB"));
    Ok(kib.context("it has ended")?.trim().parse::<u64>()? * 1024)
}
