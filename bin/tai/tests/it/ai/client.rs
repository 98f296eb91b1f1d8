//! A script that uses a vendor's client.
//!
//! Owns: its Python, its process, and that every check which was asked for has run. Refuses to
//! know: what a check checks.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Stdio};

use testkit::{place, python};

use super::desk::Desk;

pub(super) const OPENAI: &str = "openai_client.py";
pub(super) const ANTHROPIC: &str = "anthropic_client.py";

/// Runs checks of a script against the service with the desk's key; all of them must hold.
pub(super) fn holds(desk: &Desk, script: &str, envs: &[(&str, &str)], checks: &[&str]) {
    let own = [("AI_URL", &*desk.url()), ("AI_KEY", desk.key())];
    let said = run(desk.room(), script, &[&own, envs].concat(), checks);
    assert!(said.is_ok(), "{}\n{:#?}", said.unwrap_err(), desk.log_tail());
}

/// Runs checks of a script; what it says where one does not hold, or does not run.
pub(super) fn run(
    room: &Path,
    script: &str,
    envs: &[(&str, &str)],
    checks: &[&str],
) -> Result<(), String> {
    let list = place::repository().join("tests/python/ai_clients.txt");
    let python = python::venv(&std::fs::read_to_string(list).unwrap()).unwrap();
    let output = Command::new(python)
        .arg(place::repository().join("bin/tai/tests/it/ai").join(script))
        .args(checks)
        // Nothing of ours: neither a proxy nor somebody's real key.
        .env_clear()
        .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
        .env("HOME", room)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .envs(envs.iter().copied())
        .current_dir(room)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let held: BTreeSet<&str> = said.lines().filter_map(|line| line.strip_prefix("held ")).collect();
    if output.status.success() && held == checks.iter().copied().collect() {
        return Ok(());
    }
    Err(format!("{said}{}", String::from_utf8_lossy(&output.stderr)))
}
