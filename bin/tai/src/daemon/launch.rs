//! One start in the background, from the spawn to the first good answer.
//!
//! Owns: what the new process gets of this one, its log file, and when it counts as started.
//! Refuses to know: the pid file, and whether another one runs.
//!
//! The new process says that it listens, and where, in systemd's protocol (sd_notify(3)): a port
//! that answers could be anybody's.

use std::fs::{DirBuilder, File};
use std::io::{Read, Seek, SeekFrom};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::Context;
use settings::ServiceRole;
use tempfile::TempDir;

use super::process::{Handle, Process, wait_readable};
use crate::called::Called;
use crate::check::ROLE;
use crate::client::{Call, Client};
use crate::ctl::url_of;

/// The variable of the notification that holds the address.
const ADDRESS: &str = "X_TAI_ADDRESS=";
/// The longest notification that is looked at.
const WORD_BYTES_MAX: usize = 4096;
/// The log may hold what the caller sends.
const LOG_DIR_MODE: u32 = 0o700;
/// Nothing announces health but the answer itself.
const HEALTH_INTERVAL: Duration = Duration::from_millis(20);
/// How much of the log a failed start shows.
const TAIL_BYTES: u64 = 16 * 1024;
const TAIL_LINES: usize = 20;

/// What is told to the new process's caller, as one line of [`sd_notify`].
pub(crate) fn ready_word(address: SocketAddr) -> String {
    format!("{ADDRESS}{address}")
}

/// How far a start has come.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// It answers.
    Healthy(SocketAddr),
    /// It has ended; its last words.
    Ended(Vec<String>),
    /// It has not answered in time, and goes on.
    Late,
}

/// A process that was spawned and may not be ready.
#[derive(Debug)]
pub(crate) struct Launch {
    child: Child,
    /// Where it says that it listens.
    socket: UnixDatagram,
    /// Holds the socket's name, which nobody else may guess or write to.
    _room: TempDir,
    log: PathBuf,
    log_starts_at: u64,
}

impl Launch {
    /// Spawns the service under the name that this process was called by, in a session of its own.
    /// `own_log` is the file that the settings name; without it the service is told `log`.
    pub(crate) fn spawn(
        called: &Called,
        (config, role): (Option<&Path>, ServiceRole),
        log: &Path,
        own_log: Option<&Path>,
    ) -> anyhow::Result<Launch> {
        let room = tempfile::Builder::new().prefix("tai-").tempdir();
        let room = room.context("cannot make a room for the word of the new process")?;
        let name = room.path().join("ready");
        let socket = UnixDatagram::bind(&name).context("cannot listen for the new process")?;
        let (out, log_starts_at) =
            open_log(log).with_context(|| format!("cannot write the log {}", log.display()))?;
        let mut command = Command::new(called.program());
        command.arg0(called.argv0()).args(["foreground", "--detached"]);
        command.args(config.into_iter().flat_map(|file| [Path::new("--config"), file]));
        command.env("NOTIFY_SOCKET", &name).env(ROLE, role.as_str());
        if own_log.is_none() {
            command.env("LOG_FILE", log);
        }
        // What is said outside the log, such as why a start failed, is said there too.
        command.stdin(Stdio::null()).stderr(out.try_clone()?).stdout(out);
        let child = command.spawn();
        let child = child.with_context(|| format!("cannot run {}", called.program().display()))?;
        Ok(Launch { child, socket, _room: room, log: log.to_owned(), log_starts_at })
    }

    /// Which process it is; `None` when it has ended already.
    pub(crate) fn process(&self) -> Option<Process> {
        Process::now(self.child.id())
    }

    /// Waits until it answers, until it has ended, or until `limit` is over.
    pub(crate) fn wait(&mut self, process: &Process, limit: Duration) -> anyhow::Result<Outcome> {
        let deadline = Instant::now() + limit;
        let Some(handle) = process.handle() else { return self.ended() };
        let address = loop {
            let ready = wait_readable(&[self.socket.as_fd(), handle.as_fd()], deadline)?;
            match ready {
                [true, _] => {
                    if let Some(address) = self.word()? {
                        break address;
                    }
                }
                [false, true] => return self.ended(),
                [false, false] => return Ok(Outcome::Late),
            }
        };
        self.wait_healthy(&handle, address, deadline)
    }

    fn wait_healthy(
        &mut self,
        handle: &Handle,
        address: SocketAddr,
        deadline: Instant,
    ) -> anyhow::Result<Outcome> {
        let client = Client::new(&url_of(address), None)?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Outcome::Late);
            }
            if client.ask(&Call::health(), left).is_ok_and(|answer| answer.is_yes()) {
                return Ok(Outcome::Healthy(address));
            }
            if handle.ends_within(HEALTH_INTERVAL)? {
                return self.ended();
            }
        }
    }

    /// The address, if that is what was said.
    fn word(&self) -> anyhow::Result<Option<SocketAddr>> {
        let mut bytes = [0; WORD_BYTES_MAX];
        let read = self.socket.recv(&mut bytes).context("cannot hear the new process")?;
        let text = String::from_utf8_lossy(&bytes[..read]);
        let address = text.lines().find_map(|line| line.strip_prefix(ADDRESS));
        Ok(address.and_then(|address| address.parse().ok()))
    }

    /// Where its output goes.
    pub(crate) fn log(&self) -> &Path {
        &self.log
    }

    /// It has ended: its exit and the last lines that it left.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Outcome> {
        let status = self.child.wait().context("cannot ask how it ended")?;
        let mut lines = vec![format!("it ended at once: {status}")];
        lines.extend(self.tail().unwrap_or_default());
        Ok(Outcome::Ended(lines))
    }

    fn tail(&self) -> std::io::Result<Vec<String>> {
        let mut log = File::open(&self.log)?;
        let end = log.metadata()?.len();
        log.seek(SeekFrom::Start(self.log_starts_at.max(end.saturating_sub(TAIL_BYTES))))?;
        let mut bytes = Vec::new();
        log.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let last = &lines[lines.len().saturating_sub(TAIL_LINES)..];
        Ok(last.iter().map(|line| (*line).to_owned()).collect())
    }
}

/// The log, opened to append, and how long it is already.
fn open_log(path: &Path) -> std::io::Result<(File, u64)> {
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(LOG_DIR_MODE).create(dir)?;
    }
    let file = File::options().create(true).append(true).open(path)?;
    let length = file.metadata()?.len();
    Ok((file, length))
}
