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
    Ok(kib(&status, "VmRSS:").context("it has ended")? * 1024)
}

/// A process and all that descend from it.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Tree {
    pub(crate) cpu: Duration,
    pub(crate) resident_bytes: u64,
    /// The most that each has had, added up.
    pub(crate) peak_bytes: u64,
}

impl Tree {
    /// What the living ones have spent and hold; who has ended is not counted.
    pub(crate) fn of(root: u32) -> Result<Tree> {
        let mut parents = BTreeMap::new();
        for entry in fs::read_dir("/proc").context("no /proc")? {
            let Ok(number) = entry?.file_name().to_string_lossy().parse::<u32>() else { continue };
            // A process may end between the listing and the reading.
            if let Ok(stat) = fs::read_to_string(format!("/proc/{number}/stat")) {
                parents.insert(number, stat);
            }
        }
        let mut tree = Tree::default();
        for (number, stat) in &parents {
            if is_below(*number, root, &parents) {
                let ticks: u64 = [13, 14].iter().filter_map(|nth| column(stat, *nth)).sum();
                tree.cpu += Duration::from_millis(ticks * MILLIS_A_TICK);
                let status = fs::read_to_string(format!("/proc/{number}/status"));
                let status = status.unwrap_or_default();
                tree.resident_bytes += kib(&status, "VmRSS:").unwrap_or(0) * 1024;
                tree.peak_bytes += kib(&status, "VmHWM:").unwrap_or(0) * 1024;
            }
        }
        Ok(tree)
    }
}

/// The unit of CPU times in `/proc/PID/stat`, the same on every Linux.
const MILLIS_A_TICK: u64 = 10;

/// A column of `/proc/PID/stat`, counted from 0; a name may hold anything, its end is the last `)`.
fn column(stat: &str, nth: usize) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(nth.checked_sub(2)?)?.parse().ok()
}

fn is_below(number: u32, root: u32, stats: &BTreeMap<u32, String>) -> bool {
    let mut at = u64::from(number);
    while at != u64::from(root) {
        let parent = u32::try_from(at).ok().and_then(|at| column(stats.get(&at)?, 3));
        match parent {
            Some(parent) if parent > 1 => at = parent,
            _ => return false,
        }
    }
    true
}

fn kib(status: &str, name: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_column_is_counted_from_behind_the_name() {
        let stat = "42 (a) b) S 7 1 2 3 4 5 6 7 8 9 100 200 0 0";
        assert_eq!(column(stat, 3), Some(7));
        assert_eq!((column(stat, 13), column(stat, 14)), (Some(100), Some(200)));
    }

    #[test]
    fn a_tree_holds_its_descendants_and_nobody_else() {
        let stat = |parent: u32| format!("0 (x) S {parent} 0");
        let stats = BTreeMap::from([(5, stat(1)), (6, stat(5)), (7, stat(6)), (8, stat(1))]);
        let below: Vec<_> = (5..9).filter(|number| is_below(*number, 5, &stats)).collect();
        assert_eq!(below, [5, 6, 7]);
    }
}
