//! One watcher to a state file: two would page twice, and each undo what the other notes.
//!
//! Owns: the lock, a file beside the state. Refuses to know: what the state says. The state itself
//! is replaced with each change, so a lock on it would be one on a file without a name.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};

/// The right to the state file, given back when dropped or when the process dies.
pub(crate) struct Lock {
    /// Without one nothing is locked: a disk that takes no file must not keep people from being
    /// told.
    _file: Option<File>,
}

/// Takes the lock of the state at `path`.
///
/// # Errors
/// Another process holds it.
pub(crate) fn take(path: &Path) -> Result<Lock, String> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let lock = PathBuf::from(name);
    let opened = OpenOptions::new().write(true).create(true).truncate(false).open(&lock);
    let taken = opened.map_err(TryLockError::Error).and_then(|file| {
        file.try_lock()?;
        Ok(file)
    });
    match taken {
        Ok(file) => Ok(Lock { _file: Some(file) }),
        Err(TryLockError::WouldBlock) => {
            Err(format!("another watcher uses the state file {}", path.display()))
        }
        Err(TryLockError::Error(error)) => {
            tracing::error!(event = "watch_state_unlocked", path = %lock.display(), error = %error.kind(), "the watcher's state cannot be locked");
            Ok(Lock { _file: None })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_watcher_is_refused_until_the_first_is_gone() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("state.json");
        let first = take(&path).ok().unwrap();
        let refused = take(&path).err().unwrap();
        assert!(refused.starts_with("another watcher uses the state file "), "{refused}");
        drop(first);
        assert!(take(&path).is_ok());
        assert!(take(&room.path().join("gone/state.json")).is_ok(), "it watches all the same");
    }
}
