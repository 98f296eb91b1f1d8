//! The pid file: which process was started in the background, and where it listens.
//!
//! Owns: its text, and that one command at a time changes it. Refuses to know: how a process is
//! started or stopped.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use super::process::Process;

/// The longest text that a pid file has.
const TEXT_BYTES_MAX: usize = 512;
/// The ledger's directory holds secrets; it may be made here first.
const DIR_MODE: u32 = 0o700;

/// What a pid file says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Record {
    /// Who was started.
    pub(crate) process: Process,
    /// Where it listens, once it does.
    pub(crate) address: Option<SocketAddr>,
}

impl Record {
    /// The number on a line of its own, for whoever else reads it; then what makes it certain.
    fn text(&self) -> String {
        let Process { pid, boot, started } = &self.process;
        let address = self.address.map(|address| format!("{address}\n")).unwrap_or_default();
        format!("{pid}\n{boot} {started}\n{address}")
    }

    /// `None` for any other text: a number alone does not say whose it is.
    fn parse(text: &str) -> Option<Record> {
        let mut lines = text.lines();
        let pid = lines.next()?.parse().ok()?;
        let (boot, started) = lines.next()?.split_once(' ')?;
        let started = started.parse().ok()?;
        let address = lines.next().map(str::parse).transpose().ok()?;
        let process = Process { pid, boot: boot.to_owned(), started };
        lines.next().is_none().then_some(Record { process, address })
    }
}

/// What stands in the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Found {
    /// No file, or an empty one.
    Nothing,
    /// Our record of a process that runs.
    Running(Record),
    /// A number whose process is gone or is not known to be ours.
    Stale(u32),
}

/// Reads the file without taking it: for who only looks.
pub(crate) fn look(path: &Path) -> anyhow::Result<Found> {
    let cannot = || format!("cannot read {}", path.display());
    match File::open(path) {
        Ok(file) => found(&file, path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Found::Nothing),
        Err(error) => Err(error).with_context(cannot),
    }
}

/// The right to change the file, given back when dropped.
#[derive(Debug)]
pub(crate) struct PidFile {
    file: File,
    path: PathBuf,
}

impl PidFile {
    /// Takes the file, which is made when it is not there.
    ///
    /// # Errors
    /// When another command holds it.
    pub(crate) fn take(path: &Path) -> anyhow::Result<PidFile> {
        let cannot = || format!("cannot write {}", path.display());
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            let made = DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir);
            made.with_context(|| format!("cannot create {}", dir.display()))?;
        }
        loop {
            let options = &mut OpenOptions::new();
            let file = options.read(true).write(true).create(true).truncate(false).open(path);
            let file = file.with_context(cannot)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => {
                    bail!("another start or stop with {} is under way", path.display())
                }
                Err(TryLockError::Error(error)) => return Err(error).with_context(cannot),
            }
            // Whoever held it before may have removed it, and this is a file without a name.
            let taken = file.metadata().with_context(cannot)?;
            let same =
                |named: std::fs::Metadata| (named.dev(), named.ino()) == (taken.dev(), taken.ino());
            if std::fs::metadata(path).is_ok_and(same) {
                return Ok(PidFile { file, path: path.to_owned() });
            }
        }
    }

    /// What stands in it.
    ///
    /// # Errors
    /// When it is another kind of file, which must not be written over.
    pub(crate) fn found(&self) -> anyhow::Result<Found> {
        found(&self.file, &self.path)
    }

    /// Writes a record. Who looks meanwhile sees the old text, none, or the new one.
    pub(crate) fn write(&self, record: &Record) -> anyhow::Result<()> {
        let text = record.text();
        let write = || {
            if self.file.metadata()?.len() > text.len() as u64 {
                self.file.set_len(0)?;
            }
            self.file.write_all_at(text.as_bytes(), 0)
        };
        write().with_context(|| format!("cannot write {}", self.path.display()))
    }

    /// Removes the file.
    pub(crate) fn remove(self) -> anyhow::Result<()> {
        std::fs::remove_file(&self.path)
            .with_context(|| format!("cannot remove {}", self.path.display()))
    }
}

fn found(file: &File, path: &Path) -> anyhow::Result<Found> {
    let mut bytes = [0; TEXT_BYTES_MAX];
    let read = file.read_at(&mut bytes, 0);
    let read = read.with_context(|| format!("cannot read {}", path.display()))?;
    if read == 0 {
        return Ok(Found::Nothing);
    }
    let text = String::from_utf8_lossy(&bytes[..read]);
    let number = text.lines().next().and_then(|line| line.trim().parse().ok());
    let Some(number) = number else {
        bail!("{} is no pid file: nothing was done with it", path.display())
    };
    Ok(match Record::parse(&text) {
        Some(record) if record.process.runs() => Found::Running(record),
        _ => Found::Stale(number),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn record() -> Record {
        Record { process: Process::now(std::process::id()).unwrap(), address: None }
    }

    #[test]
    fn records_are_written_and_found_again() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("run/tai.pid");
        assert_eq!(look(&path).unwrap(), Found::Nothing);
        let file = PidFile::take(&path).unwrap();
        assert_eq!(file.found().unwrap(), Found::Nothing);
        let full = Record { address: Some(([127, 0, 0, 1], 8080).into()), ..record() };
        for record in [full, record()] {
            file.write(&record).unwrap();
            assert_eq!(Record::parse(&fs::read_to_string(&path).unwrap()), Some(record.clone()));
            assert_eq!(look(&path).unwrap(), Found::Running(record));
        }
        let again = PidFile::take(&path).unwrap_err();
        assert!(again.to_string().contains("under way"), "{again}");
        file.remove().unwrap();
        assert!(!path.exists());
    }

    #[test]
    fn what_is_not_ours_is_stale_and_what_is_no_pid_file_is_left_alone() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("tai.pid");
        let this = std::process::id();
        let gone = Process { started: 0, ..record().process };
        for text in [
            format!("{this}"),
            format!("{this}\n"),
            format!("{this}\nboot\n"),
            Record { process: gone, address: None }.text(),
            format!("{}extra\n", Record { address: Some(([1; 4], 1).into()), ..record() }.text()),
        ] {
            fs::write(&path, &text).unwrap();
            assert_eq!(look(&path).unwrap(), Found::Stale(this), "{text:?}");
        }
        for text in ["root:x:0:0", "\n", "-1\n"] {
            fs::write(&path, text).unwrap();
            let error = look(&path).unwrap_err();
            assert!(format!("{error:#}").contains("is no pid file"), "{error:#}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
