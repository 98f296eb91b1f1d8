//! A PostgreSQL server of the tests' own, from the binaries that are installed.
//!
//! Owns: finding it, its data, its processes, an empty database for each test.
//! Refuses to know: tables.

use std::fs::{self, File};
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

use crate::place;

/// Recovery after a kill on two busy cores included.
const START_TIMEOUT: Duration = Duration::from_secs(60);

const RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Where Debian's packages put the servers, one folder for each version.
const DEBIAN: &str = "/usr/lib/postgresql";

/// A running server; it and its data end with this value.
#[derive(Debug)]
pub struct Cluster {
    bin: PathBuf,
    /// Whom it runs as when the tests run as root, which it refuses.
    user: Option<(u32, u32)>,
    port: u16,
    child: Mutex<Option<Child>>,
    databases: AtomicU64,
    // Data, socket and log.
    scratch: TempDir,
}

impl Cluster {
    /// The server that all tests of this process share as long as one of them uses it; `None` where
    /// PostgreSQL is not installed.
    ///
    /// # Errors
    /// When it is installed and does not start; the error holds what it said.
    pub fn shared() -> Result<Option<Arc<Cluster>>> {
        static SHARED: Mutex<Weak<Cluster>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = shared.upgrade() {
            return Ok(Some(running));
        }
        let started = Cluster::start()?.map(Arc::new);
        *shared = started.as_ref().map(Arc::downgrade).unwrap_or_default();
        Ok(started)
    }

    /// A server that only the caller uses, and may kill.
    ///
    /// # Errors
    /// As for [`Cluster::shared`].
    pub fn start() -> Result<Option<Cluster>> {
        let Some(bin) = bin() else { return Ok(None) };
        let user = if geteuid().is_root() { Some(unprivileged()?) } else { None };
        let scratch = tempfile::tempdir()?;
        if let Some((uid, gid)) = user {
            chown(scratch.path(), Some(uid), Some(gid))?;
        }
        let port = place::free_port()?;
        let cluster = Cluster {
            bin,
            user,
            port,
            child: Mutex::default(),
            databases: AtomicU64::new(0),
            scratch,
        };
        cluster.make_data()?;
        cluster.restart()?;
        Ok(Some(cluster))
    }

    /// Creates an empty database and gives its name.
    ///
    /// # Errors
    /// When the server does not answer.
    pub fn database(&self) -> Result<String> {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name}"))?;
        Ok(name)
    }

    /// The address of a database, over TCP.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }

    /// The address of a database, over the server's socket.
    #[must_use]
    pub fn socket_url(&self, database: &str) -> String {
        let folder = self.scratch.path().display();
        format!("host={folder} port={} user=postgres dbname={database}", self.port)
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Runs statements; gives the rows, columns apart by `|`.
    ///
    /// # Errors
    /// When one of them fails; the error holds what the server said.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String> {
        let output = Command::new(self.bin.join("psql"))
            .args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-d"])
            .arg(self.url(database))
            .args(["-c", sql])
            .stdin(Stdio::null())
            .output()
            .context("psql does not start")?;
        if !output.status.success() {
            bail!("psql: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    /// Kills the server and all its processes at once, as a crash does.
    pub fn kill(&self) {
        let Some(mut child) = self.child().take() else { return };
        let workers = workers(child.id());
        for id in std::iter::once(child.id()).chain(workers) {
            signal(id, Signal::KILL);
        }
        let _ = child.wait();
    }

    /// Starts it after [`Cluster::kill`] on the same data and port, and waits until it answers.
    ///
    /// # Errors
    /// As for [`Cluster::shared`].
    pub fn restart(&self) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            *self.child() = Some(self.spawn()?);
            loop {
                if self.sql("postgres", "SELECT 1").is_ok() {
                    return Ok(());
                }
                // Nothing announces readiness but an answer.
                std::thread::sleep(RETRY_INTERVAL);
                let mut child = self.child();
                let ended = match &mut *child {
                    Some(child) => child.try_wait()?.is_some(),
                    None => true,
                };
                if Instant::now() > deadline {
                    let log = fs::read(self.scratch.path().join("log"))?;
                    bail!("PostgreSQL does not answer: {}", String::from_utf8_lossy(&log));
                }
                if ended {
                    // A process of the killed one may still hold its memory.
                    break;
                }
            }
        }
    }

    /// Stops all its processes in the middle of what they do, until [`Cluster::thaw`].
    pub fn freeze(&self) {
        self.signal_all(Signal::STOP);
    }

    /// Lets them go on.
    pub fn thaw(&self) {
        self.signal_all(Signal::CONT);
    }

    fn signal_all(&self, which: Signal) {
        let Some(id) = self.child().as_ref().map(Child::id) else { return };
        // The server first, so that it starts nobody meanwhile.
        signal(id, which);
        workers(id).into_iter().for_each(|id| signal(id, which));
    }

    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin.join(program));
        command.current_dir(self.scratch.path()).stdin(Stdio::null());
        if let Some((uid, gid)) = self.user {
            command.uid(uid).gid(gid);
        }
        command
    }

    fn make_data(&self) -> Result<()> {
        let output = self
            .command("initdb")
            .arg("-D")
            .arg(self.scratch.path().join("data"))
            .args(["-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"])
            .output()
            .context("initdb does not start")?;
        if !output.status.success() {
            bail!("initdb: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(())
    }

    fn spawn(&self) -> Result<Child> {
        let log =
            File::options().create(true).append(true).open(self.scratch.path().join("log"))?;
        let folder = self.scratch.path().display();
        self.command("postgres")
            .arg("-D")
            .arg(self.scratch.path().join("data"))
            .args(["-c", "listen_addresses=127.0.0.1", "-c", "fsync=on"])
            .args(["-c", "max_connections=200", "-c", "shared_buffers=64MB"])
            .args(["-c", &format!("port={}", self.port)])
            .args(["-c", &format!("unix_socket_directories={folder}")])
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("PostgreSQL does not start")
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let Some(mut child) = self.child().take() else { return };
        // It may be frozen, and then would not hear.
        let id = child.id();
        signal(id, Signal::INT);
        std::iter::once(id).chain(workers(id)).for_each(|id| signal(id, Signal::CONT));
        let _ = child.wait();
    }
}

fn signal(id: u32, which: Signal) {
    if let Some(pid) = i32::try_from(id).ok().and_then(Pid::from_raw) {
        let _ = kill_process(pid, which);
    }
}

/// The processes that the server started. Each is in a group of its own.
fn workers(server: u32) -> Vec<u32> {
    let Ok(processes) = fs::read_dir("/proc") else { return Vec::new() };
    let parent_of = |id: u32| -> Option<u32> {
        let stat = fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // Behind the name, which stands in parentheses and may hold some: state, parent.
        stat.rsplit_once(") ")?.1.split(' ').nth(1)?.parse().ok()
    };
    processes
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|id| parent_of(*id) == Some(server))
        .collect()
}

/// The folder of the programs: the one that `pg_config` names, one of `PATH`, or the newest of
/// Debian's.
fn bin() -> Option<PathBuf> {
    let is_complete = |dir: &PathBuf| {
        ["initdb", "postgres", "psql"].iter().all(|program| dir.join(program).is_file())
    };
    let named = output("pg_config", &["--bindir"]).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut debian: Vec<PathBuf> = fs::read_dir(DEBIAN)
        .map(|versions| versions.flatten().map(|version| version.path()).collect())
        .unwrap_or_default();
    debian.sort_by_key(|version| {
        let name = version.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        std::cmp::Reverse(name.parse::<u32>().unwrap_or(0))
    });
    named
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(debian.iter().map(|version| version.join("bin")))
        .find(is_complete)
}

fn unprivileged() -> Result<(u32, u32)> {
    let of = |user: &str| {
        let id = |which| output("id", &[which, user])?.parse().ok();
        Some((id("-u")?, id("-g")?))
    };
    of("postgres").or_else(|| of("nobody")).context("no user that PostgreSQL may run as")
}

fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(Path::new(program)).args(args).stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    output.status.success().then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_its_data_over_a_kill_and_ends_with_its_value() {
        let Some(cluster) = Cluster::start().unwrap() else {
            crate::skip!("PostgreSQL is not installed");
        };
        let name = cluster.database().unwrap();
        cluster.sql(&name, "CREATE TABLE t (n int); INSERT INTO t VALUES (7)").unwrap();
        cluster.kill();
        assert!(cluster.sql(&name, "SELECT n FROM t").is_err());
        cluster.restart().unwrap();
        assert_eq!(cluster.sql(&name, "SELECT n FROM t").unwrap(), "7");
        assert_ne!(cluster.database().unwrap(), name);
        cluster.freeze();
        cluster.thaw();
        assert_eq!(cluster.sql(&name, "SELECT n FROM t").unwrap(), "7");
        let data = cluster.scratch.path().to_path_buf();
        cluster.freeze();
        drop(cluster);
        assert!(!data.exists());
    }
}
