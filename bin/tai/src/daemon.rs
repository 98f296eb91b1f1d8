//! `start`, `stop`, `restart` and `status`: the service in the background of this machine.
//!
//! Owns: what an operator reads, exit codes, and that no process is ended that was not started
//! here. Refuses to know: what the service does once it runs.

mod launch;
mod pid_file;
mod process;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use settings::Settings;

use crate::called::Called;
use crate::cli::{EXIT_FAILED, EXIT_OK, complain, say};
use crate::client::{Call, Client};
use crate::ctl::url_of;

pub(crate) use launch::ready_word;
use launch::{Launch, Outcome};
use pid_file::{Found, PidFile, Record, look};
use process::Process;

/// A large ledger takes its time; whoever needs longer finds out with `status`.
const START_LIMIT: Duration = Duration::from_secs(60);
/// What a stop takes beyond GRACEFUL_SHUTDOWN_MS: the log's last lines, the end of the threads.
const STOP_MARGIN: Duration = Duration::from_secs(5);
const STATUS_TIMEOUT: Duration = Duration::from_secs(5);
/// In the ledger's directory: two services on one ledger are impossible, and so are two pid files.
const PID_FILE: &str = "tai.pid";
/// The name that seed 000 follows with `tail -f`.
const LOG_FILE: &str = "log/erlang.log.1";

/// Which process in the background.
#[derive(Args)]
pub(crate) struct Place {
    /// The pid file; `tai.pid` in LEDGER_DIR when left out.
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
}

/// What is done with the service in the background.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verb {
    Start,
    Stop,
    Restart,
    Status,
}

/// The service in the background, as it is spoken to.
pub(crate) struct Daemon<'a> {
    called: &'a Called,
    settings: &'a Settings,
    config: Option<&'a Path>,
    pid_file: PathBuf,
}

impl<'a> Daemon<'a> {
    /// The one that `place` and the settings name.
    pub(crate) fn new(
        called: &'a Called,
        settings: &'a Settings,
        config: Option<&'a Path>,
        place: Place,
    ) -> Daemon<'a> {
        let pid_file = place.pid_file.unwrap_or_else(|| settings.ledger_dir.join(PID_FILE));
        Daemon { called, settings, config, pid_file }
    }

    /// Does one thing with it. What is so already is well.
    pub(crate) fn run(&self, verb: Verb) -> anyhow::Result<ExitCode> {
        let well = match verb {
            Verb::Start => self.start()?,
            Verb::Stop => self.stop()?,
            Verb::Restart => self.stop()? && self.start()?,
            Verb::Status => self.status()?,
        };
        Ok(ExitCode::from(if well { EXIT_OK } else { EXIT_FAILED }))
    }

    fn start(&self) -> anyhow::Result<bool> {
        let name = self.called.name();
        let file = PidFile::take(&self.pid_file)?;
        match file.found()? {
            Found::Running(record) => {
                say(&format!("{name} is already running: {}", told(&record)));
                return Ok(true);
            }
            Found::Stale(pid) => {
                say(&format!("the pid file is stale, {}: replaced", gone(pid)));
            }
            Found::Nothing => {}
        }
        let own_log = self.settings.log_file.as_deref();
        let log = own_log.map_or_else(|| self.default_log(), Path::to_owned);
        let how = (self.config, self.settings.service_role);
        let mut launch = Launch::spawn(self.called, how, &log, own_log)?;
        let outcome = match launch.process() {
            Some(process) => {
                let mut record = Record { process, address: None };
                file.write(&record)?;
                let outcome = launch.wait(&record.process, START_LIMIT)?;
                if let Outcome::Healthy(address) = outcome {
                    record.address = Some(address);
                    file.write(&record)?;
                    say(&format!("{name} is running: {}", told(&record)));
                    say(&format!("log: {}", launch.log().display()));
                }
                outcome
            }
            None => launch.ended()?,
        };
        match outcome {
            Outcome::Healthy(_) => return Ok(true),
            Outcome::Ended(last) => {
                file.remove()?;
                complain(&format!("tai: {name} did not start"));
                last.iter().for_each(|line| complain(line));
            }
            Outcome::Late => {
                let (seconds, log) = (START_LIMIT.as_secs(), launch.log().display());
                complain(&format!("tai: {name} does not answer after {seconds} s and goes on"));
                complain(&format!("tai: `status` shows when it does; log: {log}"));
            }
        }
        Ok(false)
    }

    fn stop(&self) -> anyhow::Result<bool> {
        let name = self.called.name();
        // Looked at first, so that nothing is made where nothing was started.
        if look(&self.pid_file)? == Found::Nothing {
            say(&format!("{name} is not running"));
            return Ok(true);
        }
        let file = PidFile::take(&self.pid_file)?;
        let running = match file.found()? {
            Found::Running(record) => Some(record.process),
            Found::Stale(pid) => {
                say(&format!("the pid file is stale, {}: only the file is removed", gone(pid)));
                None
            }
            Found::Nothing => None,
        };
        let Some(process) = running else {
            file.remove()?;
            say(&format!("{name} is not running"));
            return Ok(true);
        };
        if let Some(handle) = process.handle() {
            let pid = process.pid;
            handle.terminate().with_context(|| format!("cannot ask process {pid} to end"))?;
            let grace = Duration::from_millis(self.settings.graceful_shutdown_ms) + STOP_MARGIN;
            if !handle.ends_within(grace)? {
                let seconds = grace.as_secs();
                complain(&format!(
                    "tai: process {pid} was asked to end and runs on after {seconds} s"
                ));
                return Ok(false);
            }
        }
        file.remove()?;
        say(&format!("{name} is stopped"));
        Ok(true)
    }

    fn status(&self) -> anyhow::Result<bool> {
        let name = self.called.name();
        let record = match look(&self.pid_file)? {
            Found::Running(record) => record,
            Found::Nothing => {
                say(&format!("{name} is not running"));
                return Ok(false);
            }
            Found::Stale(pid) => {
                say(&format!("{name} is not running; the pid file is stale, {}", gone(pid)));
                return Ok(false);
            }
        };
        let health = record.address.and_then(health);
        let word = match &health {
            Some((_, word)) => word,
            None => "no answer",
        };
        say(&format!("{name} is running: {}, health: {word}", told(&record)));
        Ok(health.is_some_and(|(well, _)| well))
    }

    /// In the folder of a release, where the seeds look; with the ledger's files otherwise.
    fn default_log(&self) -> PathBuf {
        let dir = self.called.release_dir();
        let log = dir.unwrap_or_else(|| self.settings.ledger_dir.clone()).join(LOG_FILE);
        // The new process may not stand in the same directory for ever.
        std::path::absolute(&log).unwrap_or(log)
    }
}

/// What became of a process that a pid file names and that is not there.
fn gone(pid: u32) -> String {
    match Process::now(pid) {
        Some(_) => format!("process {pid} is not ours"),
        None => format!("process {pid} has ended"),
    }
}

fn told(record: &Record) -> String {
    let address = record.address.map(|it| format!(", {}", url_of(it))).unwrap_or_default();
    format!("process {}{address}", record.process.pid)
}

/// Whether it says that it is well, and its own words about it.
fn health(address: SocketAddr) -> Option<(bool, String)> {
    let client = Client::new(&url_of(address), None).ok()?;
    let answer = client.ask(&Call::health(), STATUS_TIMEOUT).ok()?;
    let body = answer.json()?;
    let word = |name: &str| body.get(name).and_then(|it| it.as_str()).map(str::to_owned);
    let words: Vec<String> = ["status", "health", "reason"].into_iter().filter_map(word).collect();
    Some((answer.is_yes(), words.join(", ")))
}
