//! `tai`: one binary for the service and the operator's hands.
//!
//! Owns: the command line and the order in which the parts are put together. Refuses to know:
//! anything that a part knows.

mod check;
mod cli;
mod fold;
mod ledger_verbs;
mod serve;

use std::process::ExitCode;

use clap::Parser;

/// The allocator: memory stays with the thread that uses it, and goes back to the system.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = cli::Arguments::parse();
    let settings = match check::resolve(arguments.config.as_deref()) {
        Ok(settings) => settings,
        Err(mistakes) => return cli::usage_error(&mistakes),
    };
    let outcome = match arguments.command.unwrap_or(cli::Command::Serve) {
        cli::Command::Serve => serve::run(settings.settings),
        cli::Command::Check => check::show(&settings),
        cli::Command::Ledger(verb) => ledger_verbs::run(verb, &settings.settings.ledger_dir),
    };
    outcome.unwrap_or_else(|error| cli::failure(&error))
}
