//! The real binary as a child process, as an operator would run it.
//!
//! Owns: building, starting and killing it. Refuses to know: what is sent to it.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

const START_TIMEOUT: Duration = Duration::from_secs(60);
const RETRY: Duration = Duration::from_micros(500);
const LOG: &str = "tai.log";

/// The release binary, built when it is older than its sources.
pub(crate) fn binary() -> Result<PathBuf> {
    let root = testkit::place::repository();
    let built = Command::new("cargo")
        .args(["build", "--quiet", "--release", "-p", "tai"])
        .current_dir(root)
        .status()
        .context("cargo does not run")?;
    ensure!(built.success(), "the release build of tai failed");
    Ok(testkit::place::target().join("release/tai"))
}

/// A running service. Dropping it kills it as a crash would.
pub(crate) struct Service {
    child: Child,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// From the spawn to the first 200 of `/healthz`.
    pub(crate) ready_after: Duration,
}

impl Service {
    /// Starts `binary` on the ledger in `dir`, with its log in a file beside it and the door open.
    pub(crate) fn start(binary: &Path, dir: &Path, log_level: &str) -> Result<Service> {
        Service::start_with(binary, dir, &[("LOG_LEVEL", log_level)])
    }

    /// [`Service::start`] with settings.
    pub(crate) fn start_with(
        binary: &Path,
        dir: &Path,
        settings: &[(&str, &str)],
    ) -> Result<Service> {
        let port = testkit::place::free_port()?;
        std::fs::create_dir_all(dir)?;
        let log = File::options().create(true).append(true).open(dir.join(LOG))?;
        let mut command = Command::new(binary);
        command
            .env_clear()
            .env("PORT", port.to_string())
            .env("LEDGER_DIR", dir)
            .envs(settings.iter().copied())
            .current_dir(dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let started = Instant::now();
        let child = command.spawn().context("the binary does not start")?;
        let mut service = Service { child, address, ready_after: Duration::ZERO };
        while !is_healthy(address) {
            ensure!(service.child.try_wait()?.is_none(), "the binary ended, see {LOG}");
            ensure!(started.elapsed() < START_TIMEOUT, "the binary is not ready in time");
            std::thread::sleep(RETRY);
        }
        service.ready_after = started.elapsed();
        Ok(service)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Ends it without a warning.
    pub(crate) fn kill(mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended already, which is what is wanted.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn is_healthy(address: SocketAddr) -> bool {
    let ask = || {
        let mut stream = TcpStream::connect(address)?;
        stream.set_read_timeout(Some(START_TIMEOUT))?;
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n")?;
        let mut start = [0; 12];
        stream.read_exact(&mut start)?;
        std::io::Result::Ok(&start == b"HTTP/1.1 200")
    };
    ask().unwrap_or(false)
}
