//! Google's Pub/Sub emulator, the one of the gcloud SDK.
//!
//! Owns: finding it, its port, its process group.
//! Refuses to know: topics, subscriptions and what is published.

use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use crate::{gcloud, http, place};

/// A virtual machine on two busy cores.
const START_TIMEOUT: Duration = Duration::from_secs(90);

const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// A running emulator; it ends with this value, and so do its topics and subscriptions.
#[derive(Debug)]
pub struct Emulator {
    program: PathBuf,
    // None once it is killed.
    child: Option<Child>,
    address: SocketAddr,
    // Its output and what it leaves in its folder.
    scratch: TempDir,
}

impl Emulator {
    /// Starts one on a free port and waits until it answers; `None` where it, or the Java it needs,
    /// is not installed.
    ///
    /// The SDK is the folder in `CLOUDSDK_ROOT`, or else the one that gcloud names.
    ///
    /// # Errors
    /// When it is installed and does not answer within 90 s; the error holds what it said.
    pub fn start() -> Result<Option<Emulator>> {
        let Some(program) = program() else { return Ok(None) };
        let scratch = tempfile::tempdir()?;
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, place::free_port()?));
        let child = spawn(&program, address, scratch.path())?;
        let mut emulator = Emulator { program, child: Some(child), address, scratch };
        emulator.wait_until_ready()?;
        Ok(Some(emulator))
    }

    /// Kills it; topics, subscriptions and messages are gone.
    pub fn kill(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = child.wait();
    }

    /// Starts it again on the same port after [`Emulator::kill`], empty, and waits until it
    /// answers.
    ///
    /// # Errors
    /// As for [`Emulator::start`].
    pub fn restart(&mut self) -> Result<()> {
        self.child = Some(spawn(&self.program, self.address, self.scratch.path())?);
        self.wait_until_ready()
    }

    /// Where it listens; the value for `PUBSUB_EMULATOR_HOST`.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let answer = http::Client::connect(self.address)
                .and_then(|mut client| client.request("GET", "/", &[], b""));
            if answer.is_ok() {
                return Ok(());
            }
            let ended = match &mut self.child {
                Some(child) => child.try_wait()?.is_some(),
                None => true,
            };
            if ended || Instant::now() > deadline {
                let output = std::fs::read(self.scratch.path().join("output"))?;
                bail!("the Pub/Sub emulator does not answer: {}", String::from_utf8_lossy(&output));
            }
            // Nothing announces readiness but an answer.
            std::thread::sleep(RETRY_INTERVAL);
        }
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.kill();
    }
}

fn spawn(program: &Path, address: SocketAddr, scratch: &Path) -> Result<Child> {
    let output = File::create(scratch.join("output"))?;
    Command::new(program)
        .arg("--host=127.0.0.1")
        .arg(format!("--port={}", address.port()))
        .current_dir(scratch)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        // A script, which may keep the virtual machine as its child: both must end.
        .process_group(0)
        .spawn()
        .context("the Pub/Sub emulator does not start")
}

fn program() -> Option<PathBuf> {
    static PROGRAM: OnceLock<Option<PathBuf>> = OnceLock::new();
    PROGRAM
        .get_or_init(|| gcloud::file("platform/pubsub-emulator/bin/cloud-pubsub-emulator"))
        .clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_starts_again_on_its_port_and_ends_with_its_value() {
        let Some(mut emulator) = Emulator::start().unwrap() else {
            crate::skip!("the Pub/Sub emulator is not installed");
        };
        let address = emulator.address();
        let mut client = http::Client::connect(address).unwrap();
        let made = client.request("PUT", "/v1/projects/tests/topics/signals", &[], b"{}").unwrap();
        assert_eq!(made.status, 200, "{made:?}");
        assert_eq!(made.json().unwrap()["name"], "projects/tests/topics/signals");
        emulator.kill();
        assert!(http::Client::connect(address).is_err());
        emulator.restart().unwrap();
        assert_eq!(emulator.address(), address);
        let mut client = http::Client::connect(address).unwrap();
        let found = client.request("GET", "/v1/projects/tests/topics/signals", &[], b"").unwrap();
        assert_eq!(found.status, 404, "{found:?}");
        drop(emulator);
        assert!(http::Client::connect(address).is_err());
    }
}
