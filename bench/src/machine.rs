//! Where and when a measurement was made.
//!
//! Owns: the facts that a number means nothing without. Refuses to know: the numbers.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use engine::clock::SystemClock;
use types::Clock;

/// The machine at the beginning of a measurement.
pub(crate) struct Machine {
    facts: Vec<(&'static str, String)>,
}

impl Machine {
    pub(crate) fn now() -> Result<Machine> {
        let cpu = read("/proc/cpuinfo")?;
        let model = cpu
            .lines()
            .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
            .map_or("unknown", |(_, model)| model);
        let cores = std::thread::available_parallelism()?;
        let load = read("/proc/loadavg")?;
        let load: Vec<_> = load.split(' ').take(3).collect();
        let facts = vec![
            ("date", SystemClock::default().now().to_string()),
            ("cpu", format!("{model}, {cores} cores")),
            ("kernel", read("/proc/sys/kernel/osrelease")?.trim().to_owned()),
            ("file system", file_system(&testkit::place::target())?),
            ("compiler", said("rustc", &["--version"])?),
            ("revision", revision()?),
            ("load before the run", load.join(" ")),
        ];
        Ok(Machine { facts })
    }

    pub(crate) fn lines(&self) -> impl Iterator<Item = String> {
        self.facts.iter().map(|(name, value)| format!("- {name}: {value}"))
    }
}

fn revision() -> Result<String> {
    let root = testkit::place::repository();
    let root = root.to_str().context("the repository's path is not text")?;
    let commit = said("git", &["-C", root, "rev-parse", "--short", "HEAD"])?;
    let changed = said("git", &["-C", root, "status", "--porcelain", "--", "crates", "bin"])?;
    Ok(if changed.is_empty() { commit } else { format!("{commit} with changes") })
}

fn said(program: &str, arguments: &[&str]) -> Result<String> {
    let output = Command::new(program).args(arguments).output();
    let output = output.with_context(|| format!("{program} does not run"))?;
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The type of the file system that holds `path`, by the longest mount point above it.
fn file_system(path: &Path) -> Result<String> {
    let mounts = read("/proc/mounts")?;
    let above = mounts.lines().filter_map(|line| {
        let mut columns = line.split(' ').skip(1);
        let (point, kind) = (columns.next()?, columns.next()?);
        path.starts_with(point).then_some((point.len(), kind))
    });
    Ok(above.max().map_or("unknown", |(_, kind)| kind).to_owned())
}

fn read(path: &str) -> Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))
}
