//! The command line.
//!
//! Owns: names of subcommands, exit codes, and the two ways to print. Refuses to know: what the
//! subcommands do.

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use crate::ctl::Ctl;
use crate::daemon::Place;
use crate::watcher::Watching;

/// Nothing is wrong.
pub(crate) const EXIT_OK: u8 = 0;
/// The command ran and the answer is no: a ledger that does not verify, a start that failed.
pub(crate) const EXIT_FAILED: u8 = 1;
/// The command could not run as asked: arguments, settings, files.
pub(crate) const EXIT_USAGE: u8 = 2;

/// Governed multi-tenant service with receipts that anyone can verify.
#[derive(Parser)]
#[command(name = "tai", version, disable_help_subcommand = true)]
pub(crate) struct Arguments {
    /// Settings file; `tai.toml` in the working directory is read when it exists.
    #[arg(long, global = true)]
    pub(crate) config: Option<PathBuf>,
    /// What this instance does: `all`, `gateway` or `worker`. Stands for SERVICE_ROLE.
    #[arg(long, global = true)]
    pub(crate) role: Option<OsString>,
    /// What to do; `serve` when left out.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

#[derive(Subcommand)]
pub(crate) enum Command {
    /// What is done on this machine, with its settings.
    #[command(flatten)]
    Local(Local),
    /// Ask the running service.
    Ctl(Ctl),
}

#[derive(Subcommand)]
pub(crate) enum Local {
    /// Run the service; the default.
    #[command(visible_alias = "foreground")]
    Serve(Serve),
    /// Run the service in the background, and wait until it answers.
    Start(Place),
    /// Stop the service that `start` began, gracefully.
    Stop(Place),
    /// Stop it and start it again, with the settings of now.
    Restart(Place),
    /// Tell whether the service that `start` began runs, and how it is.
    Status(Place),
    /// Watch the service from outside: page when it is dead, and say outside that it is not.
    Watch(Watching),
    /// Show every setting, where its value comes from, and stop.
    Check(Check),
    /// Work on the receipt ledger.
    #[command(subcommand)]
    Ledger(Ledger),
    /// Keys, while the service is stopped.
    #[command(subcommand)]
    Key(Key),
}

impl Default for Command {
    fn default() -> Command {
        Command::Local(Local::Serve(Serve::default()))
    }
}

/// How to run the service.
#[derive(Args, Default)]
pub(crate) struct Serve {
    /// Leave the session of the terminal; `start` says it.
    #[arg(long, hide = true)]
    pub(crate) detached: bool,
}

/// What to check.
#[derive(Args)]
pub(crate) struct Check {
    /// Check a file of rules for bodies instead, rule by rule.
    #[arg(long, value_name = "FILE")]
    pub(crate) rules: Option<PathBuf>,
    /// Check a file of alert rules instead; `shipped` stands for those inside the program.
    #[arg(long, value_name = "FILE", conflicts_with = "rules")]
    pub(crate) alerts: Option<PathBuf>,
    /// Run these tests of the alert rules, on synthetic series.
    #[arg(long, value_name = "FILE", requires = "alerts")]
    pub(crate) tests: Option<PathBuf>,
    /// Print the alert rules as a file of rules for Prometheus.
    #[arg(long, requires = "alerts", conflicts_with = "tests")]
    pub(crate) prometheus: bool,
}

/// Verbs on keys that need no running service.
#[derive(Subcommand)]
pub(crate) enum Key {
    /// A new key of the service, printed once and kept nowhere. For the first one; with a running
    /// service it is `tai ctl key create`.
    Create(CreateKey),
}

#[derive(Args)]
pub(crate) struct CreateKey {
    /// It may do everything that an operator does. There is no other kind without a service.
    #[arg(long, required = true)]
    pub(crate) admin: bool,
    /// What a person calls it.
    #[arg(long)]
    pub(crate) label: Option<String>,
}

/// Verbs on the ledger. None of them edits history.
#[derive(Subcommand)]
pub(crate) enum Ledger {
    /// Recompute every hash and report the four verdicts. Works while the service runs.
    Verify(Verify),
    /// Write all receipts, or those of one stream, as JSON Lines. Works while the service runs.
    Export(Export),
    /// Copy the ledger into another store, and verify both. Run again, it adds what is new.
    Copy {
        /// The settings file of the service that will run on the copy; the environment says
        /// nothing about it.
        #[arg(long)]
        to: PathBuf,
    },
    /// Copy the ledger to a new directory. Works while the service runs.
    Backup {
        /// The directory to create.
        to: PathBuf,
    },
    /// Put a verified backup in place. Files that are there are moved aside, never deleted; a
    /// database must be empty, or hold the beginning of the same ledger.
    Restore {
        /// A directory that `backup` wrote.
        from: PathBuf,
    },
    /// Examine the files and the projections.
    Doctor {
        /// Rebuild all projections from receipts and drop all snapshots. The service must be
        /// stopped.
        #[arg(long)]
        rebuild: bool,
    },
}

#[derive(Args)]
pub(crate) struct Verify {
    /// Check a file that `export` wrote instead of the ledger.
    #[arg(long)]
    pub(crate) export: Option<PathBuf>,
    /// Only one stream: a tenant id, or a system stream such as `_ops`.
    #[arg(long, conflicts_with = "export")]
    pub(crate) stream: Option<String>,
}

#[derive(Args)]
pub(crate) struct Export {
    /// The file to write; standard output when left out.
    #[arg(long)]
    pub(crate) to: Option<PathBuf>,
    /// Only one stream: a tenant id, or a system stream such as `_ops`.
    #[arg(long)]
    pub(crate) stream: Option<String>,
}

/// Prints one line for the operator. A closed pipe is the reader's choice, not an error.
pub(crate) fn say(line: &str) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Prints one line of complaint.
pub(crate) fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// Settings that cannot be used: each mistake by name, none by value.
pub(crate) fn usage_error(mistakes: &[String]) -> ExitCode {
    for mistake in mistakes {
        complain(&format!("tai: {mistake}"));
    }
    ExitCode::from(EXIT_USAGE)
}

/// A command that failed: the chain of causes on one line.
pub(crate) fn failure(error: &anyhow::Error) -> ExitCode {
    complain(&format!("tai: {error:#}"));
    ExitCode::from(EXIT_FAILED)
}
