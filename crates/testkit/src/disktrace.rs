//! What a process asked of its disk, step by step, and every disk that a crash can leave of it.
//!
//! Owns: building the shim of `tests/disktrace`, and reading its log. Refuses to know: who wrote,
//! and what the bytes mean.
//!
//! One recorded run gives as many crashes as it has steps, each within milliseconds, and a log that
//! was kept gives them again, however the threads of the recorded process would run next time.

mod disk;

use std::ffi::OsString;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};

use crate::crashfs::shim;

pub use disk::{Disk, Image, Survival, lay_out};

/// The kind of an entry that the tested program makes itself.
const SAID: u32 = 9;

/// Bytes in front of the name of an entry.
const HEAD: usize = 32;

/// One step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// A file was opened, or made and opened, under a name.
    Opened {
        /// Under which name.
        name: String,
        /// The number that later steps know it by.
        inode: u64,
        /// It was not there before.
        made: bool,
    },
    /// Bytes were written.
    Wrote {
        /// Into which file.
        inode: u64,
        /// At which position.
        at: usize,
        /// What.
        bytes: Vec<u8>,
    },
    /// A file was made shorter, or longer by zeros.
    Cut {
        /// Which.
        inode: u64,
        /// How long it is now.
        length: usize,
    },
    /// What was written to a file is durable.
    Synced {
        /// Which.
        inode: u64,
    },
    /// The process was told that a sync failed.
    SyncFailed {
        /// Of which file; 0 for the folder.
        inode: u64,
    },
    /// The names in the folder are durable.
    NamesSynced,
    /// A name is gone.
    Unlinked {
        /// Which.
        name: String,
    },
    /// A file has another name.
    Renamed {
        /// The old one.
        from: String,
        /// The new one.
        to: String,
    },
    /// The tested program said something to whoever listens outside.
    Said(Vec<u8>),
}

/// The shim as a library for `LD_PRELOAD`, compiled with `cc` on the first call.
///
/// # Errors
/// When there is no C compiler, or it refuses the source.
pub fn build() -> Result<PathBuf> {
    shim("disktrace")
}

/// The environment of a process that is recorded: its folder, the log, and which sync fails.
#[must_use]
pub fn envs(dir: &Path, log: &Path, fail_sync: Option<u64>) -> Vec<(&'static str, OsString)> {
    let mut envs = vec![("DISKTRACE_DIR", dir.into()), ("DISKTRACE_LOG", log.into())];
    envs.extend(fail_sync.map(|nth| ("DISKTRACE_FAIL_SYNC", nth.to_string().into())));
    envs
}

/// The steps of a log.
///
/// # Errors
/// When it cannot be read, or holds what the shim does not write.
pub fn read(log: &Path) -> Result<Vec<Step>> {
    let bytes = std::fs::read(log).context("the log of a recorded process cannot be read")?;
    let (mut steps, mut rest) = (Vec::new(), &bytes[..]);
    while !rest.is_empty() {
        let (step, behind) = entry(rest)?;
        steps.push(step);
        rest = behind;
    }
    Ok(steps)
}

fn entry(bytes: &[u8]) -> Result<(Step, &[u8])> {
    ensure!(bytes.len() >= HEAD, "the log ends within an entry");
    let word = |at: usize| bytes[at..at + 4].try_into().map(u32::from_le_bytes);
    let long = |at: usize| bytes[at..at + 8].try_into().map(u64::from_le_bytes);
    let (kind, inode, at) = (word(0)?, long(8)?, usize::try_from(long(16)?)?);
    let name_end = HEAD + usize::try_from(word(4)?)?;
    let end = name_end + usize::try_from(long(24)?)?;
    ensure!(bytes.len() >= end, "the log ends within an entry");
    let name = || String::from_utf8(bytes[HEAD..name_end].to_vec());
    let data = &bytes[name_end..end];
    let step = match kind {
        1 => Step::Opened { name: name()?, inode, made: at != 0 },
        2 => Step::Wrote { inode, at, bytes: data.to_vec() },
        3 => Step::Cut { inode, length: at },
        4 => Step::Synced { inode },
        5 => Step::SyncFailed { inode },
        6 => Step::NamesSynced,
        7 => Step::Unlinked { name: name()? },
        8 => Step::Renamed { from: name()?, to: String::from_utf8(data.to_vec())? },
        SAID => Step::Said(data.to_vec()),
        other => bail!("the log holds an entry of the kind {other}"),
    };
    Ok((step, &bytes[end..]))
}

/// Where a recorded process says what it has been told.
#[derive(Debug)]
pub struct Voice(File);

impl Voice {
    /// The end of the log that this process is recorded in.
    ///
    /// # Errors
    /// When it cannot be opened.
    pub fn new(log: &Path) -> Result<Voice> {
        let file = File::options().create(true).append(true).open(log);
        Ok(Voice(file.context("the log cannot be opened")?))
    }

    /// Appends one entry with one call.
    ///
    /// # Errors
    /// When the log takes no more.
    pub fn say(&mut self, words: &[u8]) -> Result<()> {
        let mut entry = vec![0; HEAD];
        entry[..4].copy_from_slice(&SAID.to_le_bytes());
        entry[24..32].copy_from_slice(&(words.len() as u64).to_le_bytes());
        entry.extend_from_slice(words);
        self.0.write_all(&entry).context("the log takes no more")
    }
}

#[cfg(test)]
mod tests;
