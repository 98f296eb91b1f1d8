//! The files of a ledger's directory, apart from what SQLite does with its own.
//!
//! Owns: names, modes, the lock, the head file and its syncs. Refuses to know: tables.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use ledger::HeadRecord;
use ledger::head::SLOT_BYTES;

use crate::OpenError;

/// What a ledger's directory holds.
pub(crate) const DATABASE: &str = "ledger.db";
/// SQLite's log of committed pages that are not in the database yet.
pub(crate) const WAL: &str = "ledger.db-wal";
/// SQLite's shared index over it.
pub(crate) const SHM: &str = "ledger.db-shm";
/// SQLite's undo log, there only while a database enters or leaves WAL mode.
pub(crate) const JOURNAL: &str = "ledger.db-journal";
/// The head record outside the table.
pub(crate) const HEAD: &str = "ledger.head";
/// Says that a restore has begun to exchange files and has not finished.
pub(crate) const RESTORING: &str = "restoring";
const LOCK: &str = "lock";

/// The directory holds the secret that salts commitments: nobody else reads it.
const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// Creates the directory and its parents where they are missing.
pub(crate) fn create_dir(dir: &Path) -> Result<(), OpenError> {
    let create = || {
        DirBuilder::new().recursive(true).mode(DIR_MODE).create(dir)?;
        match dir.parent() {
            Some(parent) if parent.as_os_str().is_empty() => sync_dir(Path::new(".")),
            Some(parent) => sync_dir(parent),
            None => Ok(()),
        }
    };
    create().map_err(OpenError::io("create the ledger directory"))
}

/// Creates a file that only its owner reads, or leaves the one that is there alone.
pub(crate) fn create_file(path: &Path) -> Result<File, OpenError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(FILE_MODE)
        .open(path)
        .map_err(OpenError::io("create a file in the ledger directory"))
}

/// Makes the names in a directory durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

/// Bytes that are rewritten at a time.
const REWRITE_BYTES: usize = 1 << 20;

/// Makes durable what can be read in a file, whoever wrote it. A process that was killed may have
/// written and not synced; one whose sync failed leaves pages that pass for synced and are not, so
/// that a sync alone would do nothing for them.
pub(crate) fn rewrite(path: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).open(path)?;
    let (mut part, mut at) = (vec![0; REWRITE_BYTES], 0);
    loop {
        match file.read_at(&mut part, at)? {
            0 => return file.sync_all(),
            read => {
                file.write_all_at(&part[..read], at)?;
                at += read as u64;
            }
        }
    }
}

/// Bytes of a file; 0 when it is not there.
pub(crate) fn bytes_of(path: &Path) -> u64 {
    path.metadata().map_or(0, |meta| meta.len())
}

/// The file behind a path at one moment, to notice when another one or none stands there.
#[derive(Debug)]
pub(crate) struct Place {
    path: PathBuf,
    device: u64,
    inode: u64,
}

impl Place {
    /// Remembers the file that is there.
    pub(crate) fn of(path: PathBuf) -> io::Result<Place> {
        let meta = std::fs::metadata(&path)?;
        Ok(Place { path, device: meta.dev(), inode: meta.ino() })
    }

    /// True while the path leads to the same file. Asks for the name only: opening and closing
    /// the file would drop the locks that SQLite holds on it.
    pub(crate) fn holds(&self) -> io::Result<bool> {
        match std::fs::metadata(&self.path) {
            Ok(meta) => Ok((meta.dev(), meta.ino()) == (self.device, self.inode)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// The right to write a ledger, given back when dropped or when the process ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock or fails at once.
    pub(crate) fn take(dir: &Path) -> Result<Lock, OpenError> {
        let file = create_file(&dir.join(LOCK))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(OpenError::Locked),
            Err(TryLockError::Error(source)) => {
                Err(OpenError::Io { what: "lock the ledger directory", source })
            }
        }
    }
}

/// True while a process holds the right to write the ledger in `dir`.
pub(crate) fn is_locked(dir: &Path) -> Result<bool, OpenError> {
    let cannot = |source| OpenError::Io { what: "look at the lock", source };
    // Not created: the ledger may lie where nothing can be.
    let file = match File::open(dir.join(LOCK)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(cannot(error)),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(false),
        Err(TryLockError::WouldBlock) => Ok(true),
        Err(TryLockError::Error(error)) => Err(cannot(error)),
    }
}

/// The newest intact record of a head file; `None` without file or without an intact slot.
pub(crate) fn read_head(dir: &Path) -> Result<Option<HeadRecord>, OpenError> {
    match std::fs::read(dir.join(HEAD)) {
        Ok(bytes) => Ok(HeadRecord::newest(&bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(OpenError::Io { what: "read the head file", source }),
    }
}

/// The head file of a ledger that is open for writing.
#[derive(Debug)]
pub(crate) struct HeadFile {
    file: File,
    next_slot: AtomicUsize,
    unsynced: AtomicBool,
}

impl HeadFile {
    /// Opens or creates the file. The newest intact record is the last to be overwritten.
    pub(crate) fn open(path: PathBuf) -> Result<HeadFile, OpenError> {
        let file = create_file(&path)?;
        let bytes = std::fs::read(path).map_err(OpenError::io("read the head file"))?;
        let newest = HeadRecord::newest(&bytes);
        let in_first = newest.is_some() && HeadRecord::from_slot(&bytes) == newest;
        let next_slot = AtomicUsize::new(usize::from(in_first));
        Ok(HeadFile { file, next_slot, unsynced: AtomicBool::new(false) })
    }

    /// Writes the record into the older slot; durable after the next [`HeadFile::sync`].
    pub(crate) fn write(&self, record: &HeadRecord) -> io::Result<()> {
        let slot = self.next_slot.load(Ordering::Acquire);
        self.file.write_all_at(&record.to_slot(), (slot * SLOT_BYTES) as u64)?;
        // A slot that failed is tried again: the other one still holds an intact record.
        self.next_slot.store(1 - slot, Ordering::Release);
        self.unsynced.store(true, Ordering::Release);
        Ok(())
    }

    /// Syncs when something was written since the last time.
    pub(crate) fn sync(&self) -> io::Result<()> {
        if self.unsynced.swap(false, Ordering::AcqRel) { self.file.sync_data() } else { Ok(()) }
    }
}
