//! Copies of a ledger: taken while it is written, put back while it is not.
//!
//! Owns: the order of files and syncs. Refuses to know: whether a copy is intact; the caller
//! verifies before it restores.

use std::fs;
use std::path::{Path, PathBuf};

use ledger::HeadRecord;
use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, ffi};

use crate::files::{self, HeadFile, Lock};
use crate::reader::Reader;
use crate::{OpenError, schema};

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
/// deleted. From the first move to the last, a file named `restoring` keeps the directory from
/// being opened; after a restore that died it is run again under another label.
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
    exchange(dir, &staged, &replaced)?;
    fs::remove_dir(&staged).map_err(OpenError::io("remove the empty staging directory"))?;
    sync_dirs(&[dir])?;
    Ok(replaced)
}

/// Moves the old files to `replaced` and the new ones from `staged` into `dir`.
///
/// What if the process dies here? The marker is durable before the first move and goes after the
/// last, so that no half of it opens: a database without its log may look like a whole, shorter
/// ledger when the head file is old too. For anything else that opens a database, the log goes
/// first: SQLite deletes a log that it finds without a database, and replays one that it finds
/// beside the wrong database.
fn exchange(dir: &Path, staged: &Path, replaced: &Path) -> Result<(), OpenError> {
    let marker = dir.join(files::RESTORING);
    drop(files::create_file(&marker)?);
    sync_dirs(&[dir])?;
    for name in [files::WAL, files::SHM, files::JOURNAL] {
        move_file(&dir.join(name), &replaced.join(name))?;
    }
    sync_dirs(&[replaced, dir])?;
    for name in [files::DATABASE, files::HEAD] {
        move_file(&dir.join(name), &replaced.join(name))?;
        move_file(&staged.join(name), &dir.join(name))?;
    }
    sync_dirs(&[replaced, dir])?;
    fs::remove_file(marker).map_err(OpenError::io("remove the mark of an unfinished restore"))
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
    step_through(&Backup::new(source, &mut dest)?, progress)?;
    // The copied header says WAL, and such a database cannot be read where nothing can be
    // written: on read-only media. Opening it as a ledger brings it back into WAL mode.
    schema::out_of_wal(&dest)
}

fn step_through(
    backup: &Backup<'_, '_>,
    progress: &mut dyn FnMut(u64, u64),
) -> rusqlite::Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Options, SqliteStore, Synchronous};

    #[test]
    fn an_exchange_that_fails_keeps_the_directory_shut() {
        let room = tempfile::tempdir().unwrap();
        let [dir, staged, replaced] = ["dir", "staged", "replaced"].map(|name| {
            let path = room.path().join(name);
            fs::create_dir(&path).unwrap();
            path
        });
        for name in [files::DATABASE, files::WAL, files::HEAD] {
            fs::write(dir.join(name), b"old").unwrap();
            fs::write(staged.join(name), b"new").unwrap();
        }
        // No file can take the place of a directory.
        let in_the_way = replaced.join(files::DATABASE);
        fs::create_dir(&in_the_way).unwrap();
        assert!(exchange(&dir, &staged, &replaced).is_err());
        let is_old = |path: PathBuf| fs::read(path).is_ok_and(|bytes| bytes == b"old");
        assert!(
            is_old(replaced.join(files::WAL)) && is_old(dir.join(files::DATABASE)),
            "log first"
        );
        let options = Options { synchronous: Synchronous::Full };
        assert!(matches!(SqliteStore::open(&dir, &options), Err(OpenError::Unfinished)));

        fs::remove_dir(&in_the_way).unwrap();
        exchange(&dir, &staged, &replaced).unwrap();
        assert!(is_old(replaced.join(files::DATABASE)) && !dir.join(files::RESTORING).exists());
    }
}
