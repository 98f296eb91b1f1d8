//! `cargo xtask tidy | gen`.
//!
//! Owns: the choice of a chore and its exit code.
//! Refuses to know: how a chore is done.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, ExitCode};

use anyhow::{Context as _, Result, bail, ensure};
use xtask::tidy;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // Not returned from main, where a backtrace would bury the findings.
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let root = tidy::workspace_root();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["tidy"] => report(&tidy::Workspace::load(&root)?.findings()),
        ["gen"] => generate(&root),
        _ => bail!("usage: cargo xtask tidy | gen"),
    }
}

fn report(findings: &[tidy::Finding]) -> Result<()> {
    let lines: Vec<String> = findings.iter().map(|finding| format!("  {finding}")).collect();
    ensure!(findings.is_empty(), "{} findings\n{}", findings.len(), lines.join("\n"));
    Ok(())
}

/// Every crate with a generated page has a test target named `generated` that compares it, and
/// writes it when told to; so there is one rendering and no second path to a page.
fn generate(root: &Path) -> Result<()> {
    let status = Command::new("cargo")
        .args(["test", "--quiet", "--workspace", "--test", "generated"])
        .env("UPDATE_GENERATED", "1")
        .current_dir(root)
        .status()
        .context("cargo does not start")?;
    ensure!(status.success(), "the generated pages could not be written");
    Ok(())
}
