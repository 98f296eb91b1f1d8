//! A disk that loses power.
//!
//! Owns: building the shim of `tests/crashfs`, the two folders of a disk, the moment of the loss.
//! Refuses to know: how the shim tells synced from unsynced, which its own header explains.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

use crate::place;

/// The shim as a library for `LD_PRELOAD`, compiled with `cc` on the first call.
///
/// # Errors
/// When there is no C compiler, or it refuses the source.
pub fn build() -> Result<PathBuf> {
    shim("crashfs")
}

/// The library of `tests/<name>/<name>.c` for `LD_PRELOAD`, compiled with `cc` on the first call.
pub(crate) fn shim(name: &str) -> Result<PathBuf> {
    let source = place::repository().join(format!("tests/{name}/{name}.c"));
    let text = fs::read_to_string(&source).context("the shim's source cannot be read")?;
    place::built_once(name, &text, |library| {
        let output = Command::new("cc")
            .args(["-shared", "-fPIC", "-O2", "-Wall", "-Werror", "-fvisibility=hidden"])
            .args(["-pthread", "-o"])
            .arg(library)
            .arg(&source)
            .stdin(Stdio::null())
            .output()
            .context("the C compiler does not start")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "the shim does not compile: {said}");
        Ok(())
    })
}

/// A folder that a process uses under the shim, and the shadow of it that survives the power.
#[derive(Debug)]
pub struct Disk {
    dir: PathBuf,
    shadow: PathBuf,
    leak: Option<u64>,
}

impl Disk {
    /// An empty disk, whose two folders `disk` and `shadow` are made inside `parent`.
    ///
    /// # Errors
    /// When the folders exist already or cannot be made.
    pub fn new(parent: &Path) -> Result<Disk> {
        let parent = parent.canonicalize().context("the parent folder does not exist")?;
        let disk = Disk { dir: parent.join("disk"), shadow: parent.join("shadow"), leak: None };
        for dir in [&disk.dir, &disk.shadow] {
            fs::create_dir(dir).context("a folder of the disk cannot be made")?;
        }
        Ok(disk)
    }

    /// About a quarter of the unsynced pages also survives, chosen by `seed`.
    #[must_use]
    pub fn leaking(mut self, seed: u64) -> Disk {
        self.leak = Some(seed);
        self
    }

    /// The folder for the process under test.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The environment that the shim reads; `LD_PRELOAD` with the path from [`build`] comes on
    /// top.
    #[must_use]
    pub fn envs(&self) -> Vec<(&'static str, String)> {
        let mut envs = vec![
            ("CRASHFS_DIR", self.dir.display().to_string()),
            ("CRASHFS_SHADOW", self.shadow.display().to_string()),
        ];
        envs.extend(self.leak.map(|seed| ("CRASHFS_LEAK", seed.to_string())));
        envs
    }

    /// What the process wrote and never synced is gone. The process must be dead.
    ///
    /// # Errors
    /// When a folder cannot be read or written.
    pub fn lose_power(&self) -> Result<()> {
        fs::remove_dir_all(&self.dir).context("the disk cannot be emptied")?;
        copy(&self.shadow, &self.dir).context("the shadow cannot be copied")
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
