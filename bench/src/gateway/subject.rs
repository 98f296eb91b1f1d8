//! Something that calls go through: a process group, how it is asked, and what it has switched on.
//!
//! Owns: the list of subjects, their lives, and the two that are hardly more than a wire. Refuses
//! to know: what is measured.

use std::fs::File;
use std::io::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Pid, Signal, kill_process_group};
use tempfile::TempDir;

use super::client::{self, Door};
use super::upstream::Upstream;
use super::{Options, peers, tai};
use crate::process::Tree;
use crate::{big, load};

/// The path that clients of OpenAI's dialect ask.
pub(crate) const CHAT: &str = "/v1/chat/completions";
pub(crate) const MODEL: &str = "gpt-4o-mini";
/// The key that the provider is sent; it reads none.
pub(crate) const PROVIDER_KEY: &str = "sk-not-a-secret";

const START_TIMEOUT: Duration = Duration::from_secs(120);
const RETRY: Duration = Duration::from_millis(100);

type Start = fn(&Upstream, &Options) -> Result<Subject>;

/// Our own and the floor first: what comes later takes longer to install.
pub(crate) const ALL: [(&str, Start); 9] = [
    ("tai", tai::governed),
    ("tai-tenants", tai::many_tenants),
    ("tai-open", tai::open),
    ("direct", direct),
    ("nginx", peers::nginx),
    ("tensorzero", peers::tensorzero),
    ("litellm-rs", peers::litellm_rs),
    ("portkey", peers::portkey),
    ("litellm", peers::litellm),
];

/// A running subject.
pub(crate) struct Subject {
    pub(crate) version: String,
    /// What it does beside passing on, in words.
    pub(crate) on: String,
    pub(crate) door: Door,
    pub(crate) group: Option<Group>,
}

/// Why a subject could not be measured, in one line.
pub(crate) struct Missing;

impl Missing {
    pub(crate) fn why(error: &anyhow::Error) -> String {
        format!("{error:#}").replace(['\n', '|'], " ").chars().take(400).collect()
    }
}

impl Subject {
    /// Waits until somebody listens.
    pub(crate) fn wait_until_healthy(&self) -> Result<()> {
        let started = Instant::now();
        while std::net::TcpStream::connect(self.door.address).is_err() {
            if let Some(last) = self.group.as_ref().filter(|group| group.has_ended()) {
                bail!("it ended: {}", last.last_words());
            }
            ensure!(started.elapsed() < START_TIMEOUT, "nobody listens");
            std::thread::sleep(RETRY);
        }
        Ok(())
    }

    /// Waits until it gives the provider's answers, whole.
    pub(crate) fn wait_until_ready(&self) -> Result<()> {
        let started = Instant::now();
        let runtime = load::runtime()?;
        self.wait_until_healthy()?;
        loop {
            let probed = runtime.block_on(async {
                tokio::time::timeout(START_TIMEOUT, client::probe(&self.door)).await
            });
            match probed {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(error)) if started.elapsed() > START_TIMEOUT => return Err(error),
                Err(_) => bail!("no answer in time"),
                Ok(Err(_)) => std::thread::sleep(RETRY),
            }
        }
    }

    /// What its processes cost; nothing where there are none.
    pub(crate) fn tree(&self) -> Option<Tree> {
        Tree::of(self.group.as_ref()?.child.id()).ok()
    }
}

/// A process with all that it starts, and the folder that they live in. Dropping it ends them.
pub(crate) struct Group {
    pub(crate) child: Child,
    dir: TempDir,
}

impl Group {
    /// A folder for what is about to run.
    pub(crate) fn room() -> Result<TempDir> {
        Ok(tempfile::tempdir_in(big::data_dir()?)?)
    }

    /// Starts `command` in `dir`, with its log there.
    pub(crate) fn start(mut command: Command, dir: TempDir) -> Result<Group> {
        let log = File::create(dir.path().join("log"))?;
        command
            .current_dir(dir.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0);
        let child = command.spawn().context("it does not start")?;
        Ok(Group { child, dir })
    }

    fn has_ended(&self) -> bool {
        // Who has ended and was not waited for is a zombie.
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()));
        stat.map_or(true, |stat| stat.contains(") Z "))
    }

    /// The end of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        log.trim().lines().last().unwrap_or_default().to_owned()
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // It may have ended already, which is what is wanted.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

/// A door at `port` of this machine, in OpenAI's dialect, without a key.
pub(crate) fn door(port: u16) -> Door {
    Door {
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        path: CHAT.to_owned(),
        model: MODEL.to_owned(),
        headers: String::new(),
        keys: Vec::new(),
    }
}

/// The provider itself: what everything else adds to.
fn direct(upstream: &Upstream, _: &Options) -> Result<Subject> {
    Ok(Subject {
        version: "–".to_owned(),
        on: "nothing in between".to_owned(),
        door: door(upstream.address.port()),
        group: None,
    })
}

/// Progress, for who waits; a lost line is no loss.
pub(crate) fn say(line: &str) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
