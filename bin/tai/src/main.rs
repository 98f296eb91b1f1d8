//! `tai`: one binary for the service and the operator's hands.
//!
//! Owns: the command line and the order in which the parts are put together. Refuses to know:
//! anything that a part knows.

mod called;
mod check;
mod cli;
mod client;
mod copy;
mod ctl;
mod daemon;
mod exports;
mod fold;
mod key_verbs;
mod ledger_verbs;
mod live;
mod observe;
mod options;
mod planned_stop;
mod providers;
mod pull;
mod rules_file;
mod serve;
mod standby;
mod status_copy;
mod stores;
mod watch;
mod watcher;

use std::path::Path;
use std::process::ExitCode;

use called::Called;
use check::Start;
use clap::Parser;
use cli::{Check, Command, Local};
use daemon::{Daemon, Verb};

/// The allocator: memory stays with the thread that uses it, and goes back to the system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    let called = match Called::now(check::variable("PATH").as_deref()) {
        Ok(called) => called,
        Err(error) => return cli::failure(&error),
    };
    let config = arguments.config.as_deref();
    let settings = check::resolve(config, arguments.role.as_ref(), called.default_port());
    let outcome = match (arguments.command.unwrap_or_default(), settings) {
        // The service that is asked may run elsewhere, with settings of its own.
        (Command::Ctl(ctl), settings) => {
            let settings = settings.as_ref().map(|start| &start.resolved.settings);
            ctl::run(ctl, settings.map_err(Clone::clone), &check::variable)
        }
        (Command::Local(_), Err(mistakes)) => return cli::usage_error(&mistakes),
        (Command::Local(command), Ok(start)) => run(command, start, config, &called),
    };
    outcome.unwrap_or_else(|error| cli::failure(&error))
}

fn run(
    command: Local,
    start: Start,
    config: Option<&Path>,
    called: &Called,
) -> anyhow::Result<ExitCode> {
    let in_background =
        |verb, place| Daemon::new(called, &start.resolved.settings, config, place).run(verb);
    match command {
        Local::Serve(how) => serve::run(start, called.program(), how.detached),
        Local::Start(place) => in_background(Verb::Start, place),
        Local::Stop(place) => in_background(Verb::Stop, place),
        Local::Restart(place) => in_background(Verb::Restart, place),
        Local::Status(place) => in_background(Verb::Status, place),
        Local::Watch(how) => watcher::run(how, &start.resolved.settings, &check::variable),
        Local::Check(Check { rules: Some(file), .. }) => rules_file::check(&file),
        Local::Check(Check { alerts: Some(file), tests, prometheus, .. }) => {
            watch::check(&start.resolved.settings, &file, tests.as_deref(), prometheus)
        }
        Local::Check(_) => check::show(&start.resolved),
        Local::Ledger(verb) => ledger_verbs::run(verb, &start.resolved.settings),
        Local::Key(verb) => key_verbs::run(verb, &start.resolved.settings),
    }
}
