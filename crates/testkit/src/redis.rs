//! A Redis server of a test's own, from the binaries that are installed.
//!
//! Owns: its process, its password, and its end. What it holds is in memory and ends with it.
//! Refuses to know: what is kept in it.

use std::fs::File;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::place;

const START_TIMEOUT: Duration = Duration::from_secs(30);
const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Of this machine's tests alone; there so that a password is asked for.
const PASSWORD: &str = "of-a-test";

/// A running server.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    child: Mutex<Option<Child>>,
    // Log and working folder.
    scratch: TempDir,
}

impl Redis {
    /// Starts a server; `None` where Redis is not installed.
    ///
    /// # Errors
    /// When it is installed and does not start.
    pub fn start() -> Result<Option<Redis>> {
        let is_there = |program: &str| {
            let version = Command::new(program).arg("--version").stdout(Stdio::null()).status();
            version.is_ok_and(|status| status.success())
        };
        if !is_there("redis-server") || !is_there("redis-cli") {
            return Ok(None);
        }
        let scratch = tempfile::tempdir()?;
        let redis = Redis { port: place::free_port()?, child: Mutex::default(), scratch };
        redis.restart()?;
        Ok(Some(redis))
    }

    /// Its address, password included.
    #[must_use]
    pub fn url(&self) -> String {
        format!("redis://:{PASSWORD}@127.0.0.1:{}/1", self.port)
    }

    /// Runs one command in the database of [`Redis::url`]; gives what it answers, a line for each.
    ///
    /// # Errors
    /// When it does not answer, or with an error.
    pub fn ask(&self, command: &[&str]) -> Result<String> {
        let output = Command::new("redis-cli")
            .args(["-h", "127.0.0.1", "-n", "1", "-e", "--no-auth-warning", "-a", PASSWORD, "-p"])
            .arg(self.port.to_string())
            .args(command)
            .stdin(Stdio::null())
            .output()
            .context("redis-cli does not start")?;
        if !output.status.success() {
            bail!("redis-cli: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Starts the server again, empty, at the same address.
    ///
    /// # Errors
    /// When it does not answer in time.
    pub fn restart(&self) -> Result<()> {
        self.kill();
        let log = File::create(self.scratch.path().join("log"))?;
        let child = Command::new("redis-server")
            .args(["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])
            .args(["--requirepass", PASSWORD, "--port", &self.port.to_string()])
            .arg("--dir")
            .arg(self.scratch.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("Redis does not start")?;
        *self.child() = Some(child);
        let began = Instant::now();
        while self.ask(&["PING"]).is_err() {
            if began.elapsed() > START_TIMEOUT {
                bail!("Redis does not answer");
            }
            // There is nothing to be woken by: a port that nobody listens at says nothing.
            std::thread::sleep(RETRY_INTERVAL);
        }
        Ok(())
    }

    /// Kills it, as a crash does.
    pub fn kill(&self) {
        let Some(mut child) = self.child().take() else { return };
        let _ = child.kill();
        let _ = child.wait();
    }

    /// Stops it without its connections' noticing, until [`Redis::thaw`].
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, which: Signal) {
        let id = self.child().as_ref().and_then(|child| i32::try_from(child.id()).ok());
        if let Some(pid) = id.and_then(Pid::from_raw) {
            let _ = kill_process(pid, which);
        }
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        // A kill ends a frozen one too.
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_asks_for_its_password_and_forgets_with_its_end() {
        let Some(redis) = Redis::start().unwrap() else {
            crate::skip!("Redis is not installed");
        };
        redis.ask(&["SET", "a", "1"]).unwrap();
        assert_eq!(redis.ask(&["GET", "a"]).unwrap(), "1");
        let port = redis.port.to_string();
        let said = Command::new("redis-cli").args(["-p", &port, "GET", "a"]).output().unwrap();
        assert!(String::from_utf8_lossy(&said.stdout).contains("NOAUTH"), "{said:?}");
        redis.freeze();
        redis.thaw();
        assert_eq!(redis.ask(&["DBSIZE"]).unwrap(), "1");
        redis.restart().unwrap();
        assert_eq!(redis.ask(&["DBSIZE"]).unwrap(), "0");
        redis.kill();
        assert!(redis.ask(&["PING"]).is_err());
    }
}
