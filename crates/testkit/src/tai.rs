//! The real binary as a child process.
//!
//! Owns: its start and end, its port, what it logs. A test in which it logs an ERROR that was not
//! announced fails.
//! Refuses to know: its routes, except that `/healthz` answers 200 when it is ready.

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Read};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use serde_json::Value;

use crate::http;

const START_TIMEOUT: Duration = Duration::from_secs(10);
const RETRY_INTERVAL: Duration = Duration::from_millis(10);
const LINES_MAX: usize = 10_000;
const ERRORS_MAX: usize = 1_000;
const LINE_BYTES_MAX: u64 = 1024 * 1024;
/// How many lines a failed start shows.
const TAIL_LINES: usize = 30;

/// How a binary is to be started.
#[derive(Debug)]
pub struct Builder {
    command: Command,
    start_timeout: Duration,
}

impl Builder {
    /// One variable of its environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Builder {
        self.command.env(name, value);
        self
    }

    /// The port to listen on, instead of any free one.
    #[must_use]
    pub fn port(self, port: u16) -> Builder {
        self.env("PORT", &port.to_string())
    }

    /// A shared library to load before all others.
    #[must_use]
    pub fn preload(mut self, library: &Path) -> Builder {
        self.command.env("LD_PRELOAD", library);
        self
    }

    /// How long it may take until `/healthz` answers 200, instead of 10 s: replaying a large ledger
    /// takes its time.
    #[must_use]
    pub fn start_timeout(mut self, timeout: Duration) -> Builder {
        self.start_timeout = timeout;
        self
    }

    /// Starts it and waits until it is ready.
    ///
    /// # Errors
    /// When it does not start, ends, or is not ready in time; the error holds the last log lines.
    pub fn start(mut self) -> Result<Tai> {
        let mut child = self.command.spawn().context("the binary does not start")?;
        let log = Arc::new(Log::default());
        let mut readers = Vec::new();
        if let (Some(stdout), Some(stderr)) = (child.stdout.take(), child.stderr.take()) {
            readers.push(reader(stdout, Arc::clone(&log)));
            readers.push(reader(stderr, Arc::clone(&log)));
        }
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut tai =
            Tai { child, readers, log, address, status: None, errors_are_expected: false };
        if let Err(error) = tai.wait_until_ready(Instant::now() + self.start_timeout) {
            // The error says it all; a panic on the way out would hide it.
            tai.errors_are_expected = true;
            let _ = tai.kill();
            let lines = tai.log_lines();
            let tail = lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n");
            return Err(error.context(format!("the binary said last:\n{tail}")));
        }
        Ok(tai)
    }
}

/// A running binary. Dropping it kills it.
#[derive(Debug)]
pub struct Tai {
    child: Child,
    readers: Vec<JoinHandle<()>>,
    log: Arc<Log>,
    address: SocketAddr,
    status: Option<ExitStatus>,
    errors_are_expected: bool,
}

impl Tai {
    /// Starts `bin` on a free port with the data folder `dir`; see [`Builder::start`].
    ///
    /// # Errors
    /// As [`Builder::start`].
    pub fn start(bin: &Path, dir: &Path, envs: &[(&str, &str)]) -> Result<Tai> {
        envs.iter()
            .fold(Tai::builder(bin, dir), |builder, (name, value)| builder.env(name, value))
            .start()
    }

    /// `bin` with the data folder `dir`, 127.0.0.1, any free port, log level info, and nothing of
    /// the test's own environment but `PATH`.
    #[must_use]
    pub fn builder(bin: &Path, dir: &Path) -> Builder {
        let mut command = Command::new(bin);
        command
            .env_clear()
            .envs(std::env::var_os("PATH").map(|path| ("PATH", path)))
            .env("PORT", "0")
            .env("BIND_ADDRESS", "127.0.0.1")
            .env("LEDGER_DIR", dir)
            .env("LOG_LEVEL", "info")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        Builder { command, start_timeout: START_TIMEOUT }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Announces that this test makes it log ERROR lines.
    pub fn expect_errors(&mut self) {
        self.errors_are_expected = true;
    }

    /// The last 10 000 lines of its output, both streams; complete once it has ended.
    #[must_use]
    pub fn log_lines(&self) -> Vec<String> {
        self.log.state().lines.iter().cloned().collect()
    }

    /// The lines of level ERROR, and the first lines of panics; the first 1 000.
    #[must_use]
    pub fn errors(&self) -> Vec<String> {
        self.log.state().errors.clone()
    }

    /// Waits until a log line has this event, and gives it; lines before the call count too.
    ///
    /// # Errors
    /// When there is none in time, or the binary ends without it.
    pub fn wait_for_event(&self, event: &str, timeout: Duration) -> Result<Value> {
        self.log.wait_for_event(event, Instant::now() + timeout)
    }

    /// Its resident memory, in bytes.
    ///
    /// # Errors
    /// When it has ended.
    pub fn rss_bytes(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))
            .context("the binary has ended")?;
        let kib: u64 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|rest| rest.trim().strip_suffix(" kB"))
            .context("the binary has ended")?
            .parse()?;
        Ok(kib * 1024)
    }

    /// Ends it without a warning, as a crash does, and reads the rest of its output. Killing what
    /// has ended already changes nothing.
    ///
    /// # Errors
    /// When the system does not give its end.
    pub fn kill(&mut self) -> Result<ExitStatus> {
        if self.status.is_none() {
            self.child.kill()?;
        }
        self.reap()
    }

    /// Asks it to end, with SIGTERM.
    ///
    /// # Errors
    /// When it has ended already.
    pub fn terminate(&self) -> Result<()> {
        ensure!(self.status.is_none(), "the binary has ended");
        kill_process(self.process()?, Signal::TERM).context("the binary has ended")
    }

    /// Waits until it ends by itself, and reads the rest of its output.
    ///
    /// # Errors
    /// When it does not end within `timeout`; it goes on running.
    pub fn wait(&mut self, timeout: Duration) -> Result<ExitStatus> {
        if self.status.is_none() {
            let ended = pidfd_open(self.process()?, PidfdFlags::empty())?;
            let deadline = Instant::now() + timeout;
            loop {
                let left = deadline.saturating_duration_since(Instant::now());
                match poll(
                    &mut [PollFd::new(&ended, PollFlags::IN)],
                    Some(&Timespec::try_from(left)?),
                ) {
                    Ok(0) => bail!("the binary has not ended in time"),
                    Ok(_) => break,
                    Err(rustix::io::Errno::INTR) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        self.reap()
    }

    fn process(&self) -> Result<Pid> {
        i32::try_from(self.pid()).ok().and_then(Pid::from_raw).context("the process id is not one")
    }

    fn reap(&mut self) -> Result<ExitStatus> {
        let status = self.child.wait()?;
        self.status = Some(status);
        for reader in self.readers.drain(..) {
            ensure!(reader.join().is_ok(), "a reader of the log has panicked");
        }
        Ok(status)
    }

    fn wait_until_ready(&mut self, deadline: Instant) -> Result<()> {
        let line = self.log.wait_for_event("listening", deadline)?;
        let address = line.get("address").and_then(Value::as_str);
        self.address =
            address.context("`listening` has no address")?.parse().context("not an address")?;
        loop {
            let health = http::Client::connect(self.address)
                .and_then(|mut client| client.request("GET", "/healthz", &[], b""));
            let why = match health {
                Ok(response) if response.status == 200 => return Ok(()),
                Ok(response) => format!("/healthz answers {}", response.status),
                Err(error) => format!("/healthz does not answer: {error:#}"),
            };
            if let Some(status) = self.child.try_wait()? {
                bail!("the binary ended: {status}, signal {:?}", status.signal());
            }
            ensure!(Instant::now() < deadline, "{why}");
            // Nothing announces readiness but the answer itself.
            std::thread::sleep(RETRY_INTERVAL);
        }
    }
}

impl Drop for Tai {
    #[expect(clippy::panic, reason = "the only way to fail the test that owns the binary")]
    fn drop(&mut self) {
        let _ = self.kill();
        let errors = self.errors();
        if !errors.is_empty() && !self.errors_are_expected && !std::thread::panicking() {
            panic!("the binary logged errors that the test did not announce: {errors:#?}");
        }
    }
}

#[derive(Debug, Default)]
struct Log {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<String>,
    // Of all lines ever, so that a waiter knows which it has seen.
    count: usize,
    errors: Vec<String>,
    ended_streams: usize,
}

impl Log {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, line: String) {
        let mut state = self.state();
        if is_error(&line) && state.errors.len() < ERRORS_MAX {
            state.errors.push(line.clone());
        }
        if state.lines.len() == LINES_MAX {
            state.lines.pop_front();
        }
        state.lines.push_back(line);
        state.count += 1;
        self.changed.notify_all();
    }

    fn end(&self) {
        self.state().ended_streams += 1;
        self.changed.notify_all();
    }

    fn wait_for_event(&self, event: &str, deadline: Instant) -> Result<Value> {
        let mut state = self.state();
        let mut seen = 0;
        loop {
            let unseen = (state.count - seen).min(state.lines.len());
            let from = state.lines.len() - unseen;
            let found = state
                .lines
                .range(from..)
                .filter_map(|line| serde_json::from_str::<Value>(line).ok())
                .find(|line| line.get("event").and_then(Value::as_str) == Some(event));
            if let Some(line) = found {
                return Ok(line);
            }
            seen = state.count;
            ensure!(state.ended_streams < 2, "the binary ended without the event {event}");
            let left = deadline.saturating_duration_since(Instant::now());
            ensure!(!left.is_zero(), "no event {event} in time");
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

fn is_error(line: &str) -> bool {
    match serde_json::from_str::<Value>(line) {
        Ok(line) => line.get("level").and_then(Value::as_str) == Some("ERROR"),
        // Before the log is set up, a panic has nowhere to go but stderr.
        Err(_) => line.starts_with("thread '") && line.contains("panicked at"),
    }
}

fn reader(stream: impl Read + Send + 'static, log: Arc<Log>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let mut stream = BufReader::new(stream);
        loop {
            let mut line = Vec::new();
            match stream.by_ref().take(LINE_BYTES_MAX).read_until(b'\n', &mut line) {
                Ok(0) | Err(_) => break,
                Ok(_) => log.push(String::from_utf8_lossy(&line).trim_end().to_owned()),
            }
        }
        log.end();
    })
}

#[cfg(test)]
mod tests;
