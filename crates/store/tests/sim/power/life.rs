//! One life of an instance, recorded in a process of its own.
//!
//! Owns: what that process does, and how it is started again as the test that it belongs to.
//! Refuses to know: what becomes of its disk.

use std::cell::RefCell;
use std::env;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use testkit::dice::Dice;
use testkit::disktrace::{self, Image, Step, Voice, lay_out};

use super::{ASKS, open};
use crate::book::Heard;
use crate::instance::{Instance, NEVER};
use crate::workload::{Ask, Workload};

/// Questions that are asked at once, at most.
const BURST_MAX: u64 = 6;
/// Questions of the life before that are asked again at first.
const AGAIN: u64 = 20;

/// What the process of a life is told: seed, number, folder and log, with blanks between them.
const LIFE: &str = "SIM_LIFE";

/// True in the process that is recorded, after it has lived.
pub(super) fn was_lived_here() -> bool {
    env::var_os(LIFE).map(|orders| live(orders.to_str().unwrap())).is_some()
}

/// A life that is to be recorded.
pub(super) struct Life<'a> {
    pub(super) seed: u64,
    pub(super) number: u64,
    /// The test that calls [`was_lived_here`].
    pub(super) test: &'a str,
    /// The sync that fails, counted from 1.
    pub(super) fail_sync: Option<u64>,
}

impl Life<'_> {
    /// Starts from these files, in a process of its own; gives its steps. The log stays in `logs`.
    pub(super) fn record(&self, files: &Image, logs: &Path) -> Vec<Step> {
        let Life { seed, number, test, fail_sync } = *self;
        let (dir, log) = (logs.join(format!("life-{number}")), log_of(seed, number, logs));
        std::fs::create_dir(&dir).unwrap();
        lay_out(files, &dir).unwrap();
        let output = Command::new(env::current_exe().unwrap())
            .args(["--exact", test])
            .stdin(Stdio::null())
            .env(LIFE, format!("{seed} {number} {} {}", dir.display(), log.display()))
            .env("LD_PRELOAD", disktrace::build().unwrap())
            .envs(disktrace::envs(&dir, &log, fail_sync))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "life {number} of seed {seed}: {said}");
        let steps = disktrace::read(&log).unwrap();
        assert!(!steps.is_empty(), "nothing was recorded");
        steps
    }
}

/// Where the log of a life is.
pub(super) fn log_of(seed: u64, number: u64, logs: &Path) -> std::path::PathBuf {
    logs.join(format!("{seed}-{number}.log"))
}

/// Lives, and says aloud what callers are told.
fn live(orders: &str) {
    let words: Vec<&str> = orders.split(' ').collect();
    let (seed, life) = (words[0].parse().unwrap(), words[1].parse().unwrap());
    let voice = RefCell::new(Voice::new(Path::new(words[3])).unwrap());
    let hear = |ask: &Ask, heard: Heard| {
        voice.borrow_mut().say(heard.to_line(ask.nth).as_bytes()).unwrap();
    };
    let mut bursts = bursts(seed, life);
    let second = bursts.split_off(bursts.len() / 2);
    let behind_us = if Dice::new(seed).part(life).percent(25) { 3_600_000_000 } else { 0 };
    for bursts in [bursts, second] {
        // Only a sync that fails keeps a ledger from opening, and then the process is over.
        let Ok(store) = open(Path::new(words[2])) else { return };
        let instance = Instance::start(Arc::new(store), NEVER);
        for asks in bursts {
            let mut at = Workload::at(asks[0].nth.max(life * ASKS));
            at.0 -= behind_us;
            instance.clock.set(at);
            instance.ask(&asks, hear);
            instance.store().maintain();
            if instance.has_failed() {
                return;
            }
        }
        instance.check_calm().unwrap();
        drop(instance.drain());
    }
}

/// The questions of a life, in the order and the company in which they are asked.
fn bursts(seed: u64, life: u64) -> Vec<Vec<Ask>> {
    let workload = Workload::new(seed);
    let mut dice = Dice::new(seed).part(life);
    let first = life * ASKS;
    let again = (first.saturating_sub(AGAIN)..first)
        .map(|nth| vec![Ask { gives_up: false, ..workload.ask(nth) }]);
    let mut bursts: Vec<_> = again.collect();
    let mut nth = first;
    while nth < first + ASKS {
        let end = (nth + 1 + dice.below(BURST_MAX)).min(first + ASKS);
        bursts.push((nth..end).map(|nth| workload.ask(nth)).collect());
        nth = end;
    }
    bursts
}
