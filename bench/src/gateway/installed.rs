//! Other people's gateways, at one version each, in a folder that is not ours.
//!
//! Owns: how each is fetched, through the client of its registry, once. Refuses to know: how it is
//! run. Nothing of this is part of the product, and nothing of it is kept in the repository.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Options;

pub(super) const LITELLM: &str = "1.106.2";
pub(super) const TENSORZERO: &str = "2026.6.0";
pub(super) const LITELLM_RS: &str = "0.9.0";
pub(super) const PORTKEY: &str = "1.15.2";
/// The packages that serve its HTTP: a plain install takes the latest that its range admits, and
/// its streams answer 500 on those.
const PORTKEY_SERVED_BY: [&str; 3] =
    ["hono@4.9.7", "@hono/node-server@1.13.8", "@hono/node-ws@1.2.0"];

/// The folder of one of them; whole, or an error that says why not.
fn once(
    options: &Options,
    name: &str,
    install: impl FnOnce(&Path) -> Result<()>,
) -> Result<PathBuf> {
    let peers = options.peers.as_ref().context("not installed: --peers DIR was not given")?;
    let dir = peers.join(name);
    let done = dir.join("installed");
    if !done.exists() {
        std::fs::create_dir_all(&dir)?;
        install(&dir).context("the installation failed")?;
        std::fs::write(done, "")?;
    }
    Ok(dir.canonicalize()?)
}

fn run(dir: &Path, program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program).args(arguments).current_dir(dir).output();
    let output = output.with_context(|| format!("{program} does not run"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.trim().lines().last().unwrap_or_default();
    ensure!(output.status.success(), "{program} failed: {last}");
    Ok(())
}

/// Debian's package, unpacked and not installed.
pub(super) fn nginx(options: &Options) -> Result<PathBuf> {
    let dir = once(options, "nginx", |dir| {
        run(dir, "apt-get", &["download", "nginx"])?;
        run(dir, "sh", &["-c", "dpkg -x nginx_*.deb ."])
    })?;
    Ok(dir.join("usr/sbin/nginx"))
}

fn python(options: &Options, name: &str, packages: &[&str]) -> Result<PathBuf> {
    let dir = once(options, name, |dir| {
        run(dir, "python3", &["-m", "venv", "."])?;
        run(dir, "bin/pip", &[&["install", "--quiet"], packages].concat())
    })?;
    Ok(dir.join("bin"))
}

pub(super) fn litellm(options: &Options) -> Result<PathBuf> {
    python(options, "litellm", &[&format!("litellm[proxy]=={LITELLM}")])
}

pub(super) fn tensorzero(options: &Options) -> Result<PathBuf> {
    python(options, "tensorzero", &[&format!("tensorzero=={TENSORZERO}"), "openai"])
}

pub(super) fn litellm_rs(options: &Options) -> Result<PathBuf> {
    let dir = once(options, "litellm-rs", |dir| {
        let root = dir.to_str().context("the folder's name is not text")?;
        let version = ["--version", LITELLM_RS, "--locked", "--root", root];
        run(dir, "cargo", &[&["install", "litellm-rs"], &version[..]].concat())
    })?;
    Ok(dir.join("bin/gateway"))
}

pub(super) fn portkey(options: &Options) -> Result<PathBuf> {
    let dir = once(options, "portkey", |dir| {
        std::fs::write(dir.join("package.json"), "{\"private\":true}\n")?;
        let gateway = format!("@portkey-ai/gateway@{PORTKEY}");
        let exact = ["install", "--silent", "--save-exact", "--legacy-peer-deps", &gateway];
        run(dir, "npm", &[&exact[..], &PORTKEY_SERVED_BY].concat())
    })?;
    Ok(dir.join("node_modules/@portkey-ai/gateway/build/start-server.js"))
}
