//! Prometheus and Alertmanager of a test's own, from the programs that are installed.
//!
//! Owns: their processes, their files, and their end. Refuses to know: what they are configured to
//! do, and what follows from it.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;
use tempfile::TempDir;

use crate::http::Client;
use crate::place;

const START_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

fn is_there(program: &str) -> bool {
    let version = Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    version.is_ok_and(|status| status.success())
}

/// A running server of either kind.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    child: Child,
    scratch: TempDir,
}

impl Server {
    /// Whether both programs are installed, and the one that checks their files.
    #[must_use]
    pub fn are_installed() -> bool {
        ["prometheus", "prometheus-alertmanager", "promtool"].into_iter().all(is_there)
    }

    /// A Prometheus with this configuration, and `rules` as the file `rules.yml` beside it. It says
    /// every second what fires.
    ///
    /// # Errors
    /// When it does not start.
    pub fn prometheus(config: &str, rules: &str) -> Result<Server> {
        let scratch = tempfile::tempdir()?;
        fs::write(scratch.path().join("rules.yml"), rules)?;
        let own = ["--rules.alert.resend-delay=1s", "--log.level=warn"];
        Server::start("prometheus", "--storage.tsdb.path", &own, config, free()?, scratch)
    }

    /// An Alertmanager with this configuration, on its own, at an address from [`free`].
    ///
    /// # Errors
    /// When it does not start.
    pub fn alertmanager(config: &str, address: SocketAddr) -> Result<Server> {
        let own = ["--cluster.listen-address=", "--log.level=warn"];
        let scratch = tempfile::tempdir()?;
        Server::start("prometheus-alertmanager", "--storage.path", &own, config, address, scratch)
    }

    fn start(
        program: &str,
        storage: &str,
        own: &[&str],
        config: &str,
        address: SocketAddr,
        scratch: TempDir,
    ) -> Result<Server> {
        let path = |name: &str| scratch.path().join(name);
        fs::write(path("config.yml"), config)?;
        let log = File::create(path("log"))?;
        let child = Command::new(program)
            .arg(format!("--config.file={}", path("config.yml").display()))
            .arg(format!("{storage}={}", path("data").display()))
            .arg(format!("--web.listen-address={address}"))
            .args(own)
            .current_dir(scratch.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{program} does not start"))?;
        let mut server = Server { address, child, scratch };
        let began = Instant::now();
        while server.status("/-/ready") != Some(200) {
            if began.elapsed() > START_TIMEOUT || server.child.try_wait()?.is_some() {
                bail!("{program} does not answer: {}", server.log());
            }
            // There is nothing to be woken by: a port that nobody listens at says nothing.
            std::thread::sleep(RETRY_INTERVAL);
        }
        Ok(server)
    }

    fn status(&self, path: &str) -> Option<u16> {
        let mut client = Client::connect(self.address).ok()?;
        Some(client.request("GET", path, &[], b"").ok()?.status)
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What it answers.
    ///
    /// # Errors
    /// When it does not answer 200 and JSON.
    pub fn get(&self, path: &str) -> Result<Value> {
        let response = Client::connect(self.address)?.request("GET", path, &[], b"")?;
        if response.status != 200 {
            bail!("{path}: status {}", response.status);
        }
        response.json()
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An address on loopback that nobody listens at.
///
/// # Errors
/// When there is no port.
pub fn free() -> Result<SocketAddr> {
    Ok(SocketAddr::from(([127, 0, 0, 1], place::free_port()?)))
}

/// Runs `promtool check …`; `input` is what it reads from its standard input.
///
/// # Errors
/// When it cannot be run.
pub fn promtool(what: &str, file: Option<&Path>, input: Option<&Path>) -> Result<Output> {
    let input = match input {
        Some(path) => Stdio::from(File::open(path)?),
        None => Stdio::null(),
    };
    let mut command = Command::new("promtool");
    command.args(["check", what]).args(file.map(PathBuf::from)).stdin(input);
    command.output().context("promtool does not start")
}
