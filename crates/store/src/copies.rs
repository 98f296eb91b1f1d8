//! Copies of a ledger: taken while it is written, put back while it is not.
//!
//! Owns: the order of files and syncs. Refuses to know: whether a copy is intact; the caller
//! verifies before it restores.

use std::fs;
use std::path::{Path, PathBuf};

use ledger::HeadRecord;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ffi};

use crate::OpenError;
use crate::files::{self, HeadFile, Lock};
use crate::reader::Reader;

/// Pages copied between two reports of progress: 4 MiB.
const PAGES_PER_STEP: i32 = 1_024;

/// Copies the ledger in `dir` into the empty or missing `dest_dir`, also while a service writes
/// it; `progress` hears pages remaining and pages in total. Returns the head of the copy, which
/// is durable then.
///
/// # Errors
/// [`OpenError::NotEmpty`] when there is anything in `dest_dir`. A copy that failed half-way has
/// no head file and is left for the caller to look at.
pub fn backup(
    dir: &Path,
    dest_dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<HeadRecord, OpenError> {
    let source = Reader::open(dir)?;
    files::create_dir(dest_dir)?;
    let mut entries = fs::read_dir(dest_dir).map_err(OpenError::io("list the destination"))?;
    if entries.next().is_some() {
        return Err(OpenError::NotEmpty);
    }
    copy(&source, dest_dir, progress)
}

/// Puts the ledger in `from_dir`, which the caller has verified, in the place of the one in `dir`.
/// What was there moves to `replaced-<label>` inside `dir`, whose path is returned; nothing is
/// deleted.
///
/// # Errors
/// [`OpenError::Locked`] while a service writes `dir`, [`OpenError::NotEmpty`] when `label` was
/// used before.
pub fn restore(from_dir: &Path, dir: &Path, label: &str) -> Result<PathBuf, OpenError> {
    let source = Reader::open(from_dir)?;
    files::create_dir(dir)?;
    let _lock = Lock::take(dir)?;
    let replaced = dir.join(format!("replaced-{label}"));
    let staged = dir.join(format!("restoring-{label}"));
    if replaced.exists() || staged.exists() {
        return Err(OpenError::NotEmpty);
    }
    files::create_dir(&replaced)?;
    files::create_dir(&staged)?;
    copy(&source, &staged, &mut |_, _| {})?;
    // The old head file goes last: until then a crash leaves a directory that refuses to open,
    // never one that looks like a new ledger.
    for name in [files::DATABASE, files::WAL, files::SHM] {
        move_file(&dir.join(name), &replaced.join(name))?;
    }
    move_file(&staged.join(files::DATABASE), &dir.join(files::DATABASE))?;
    sync_dirs(&[dir, &replaced])?;
    move_file(&dir.join(files::HEAD), &replaced.join(files::HEAD))?;
    move_file(&staged.join(files::HEAD), &dir.join(files::HEAD))?;
    fs::remove_dir(&staged).map_err(OpenError::io("remove the empty staging directory"))?;
    sync_dirs(&[&replaced, dir])?;
    Ok(replaced)
}

/// The source's view never changes, so that a busy writer cannot make the copy start over.
fn copy(
    source: &Reader,
    dest_dir: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> Result<HeadRecord, OpenError> {
    let path = dest_dir.join(files::DATABASE);
    let file = files::create_file(&path)?;
    copy_pages(source.conn(), &path, progress).map_err(OpenError::sql("copy the database"))?;
    file.sync_all().map_err(OpenError::io("sync the copy"))?;
    let head = source.table_head();
    let head_file = HeadFile::open(dest_dir.join(files::HEAD))?;
    head_file
        .write(&head)
        .and_then(|()| head_file.sync())
        .and_then(|()| files::sync_dir(dest_dir))
        .map_err(OpenError::io("write the head of the copy"))?;
    Ok(head)
}

fn copy_pages(
    source: &Connection,
    path: &Path,
    progress: &mut dyn FnMut(u64, u64),
) -> rusqlite::Result<()> {
    let mut dest = Connection::open(path)?;
    let backup = Backup::new(source, &mut dest)?;
    loop {
        let step = backup.step(PAGES_PER_STEP)?;
        let pages = backup.progress();
        let count = |pages: i32| u64::try_from(pages).unwrap_or_default();
        progress(count(pages.remaining), count(pages.pagecount));
        match step {
            StepResult::Done => return Ok(()),
            StepResult::More => {}
            // Somebody holds the unfinished copy, and longer than the connection waits.
            _ => {
                let busy = ffi::Error::new(ffi::SQLITE_BUSY);
                return Err(rusqlite::Error::SqliteFailure(busy, None));
            }
        }
    }
}

fn move_file(from: &Path, to: &Path) -> Result<(), OpenError> {
    if !from.exists() {
        return Ok(());
    }
    fs::rename(from, to).map_err(OpenError::io("move a file of the ledger"))
}

fn sync_dirs(dirs: &[&Path]) -> Result<(), OpenError> {
    dirs.iter()
        .try_for_each(|dir| files::sync_dir(dir))
        .map_err(OpenError::io("sync the ledger directory"))
}
