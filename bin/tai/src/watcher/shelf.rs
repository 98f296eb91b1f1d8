//! The book, shared within the process and kept in a file over its death.
//!
//! Owns: that every change wakes whoever waits for one, and reaches the file whole or not at all.
//! Refuses to know: what the book says.
//!
//! A disk that hangs or is full is one of the things that a service dies of: people are told all
//! the same, after a short wait for the file.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;

use super::book::Book;

/// How long a change waits for the file.
const KEEP_LIMIT: Duration = Duration::from_secs(1);

/// The book, and how much of it is in the file.
pub(crate) struct Shelf {
    path: PathBuf,
    book: watch::Sender<(u64, Book)>,
    kept: watch::Sender<u64>,
}

impl Shelf {
    /// Reads the file. One that cannot be read counts as empty: to page twice is better than never.
    pub(crate) fn open(path: PathBuf) -> Shelf {
        let book = match fs::read(&path).map(|bytes| serde_json::from_slice(&bytes)) {
            Ok(Ok(book)) => book,
            Err(error) if error.kind() == ErrorKind::NotFound => Book::default(),
            Ok(Err(_)) | Err(_) => {
                tracing::error!(event = "watch_state_unreadable", path = %path.display(), "the watcher's state cannot be read, and is begun anew");
                Book::default()
            }
        };
        Shelf { path, book: watch::Sender::new((1, book)), kept: watch::Sender::new(0) }
    }

    /// Looks something up.
    pub(crate) fn look<T>(&self, look: impl FnOnce(&Book) -> T) -> T {
        look(&self.book.borrow().1)
    }

    /// Changes something, where `change` says that it has. Gives the number of the change.
    pub(crate) fn change_if(&self, change: impl FnOnce(&mut Book) -> bool) -> u64 {
        self.book.send_if_modified(|(number, book)| {
            let is_changed = change(book);
            *number += u64::from(is_changed);
            is_changed
        });
        self.book.borrow().0
    }

    /// Changes something.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Book)) -> u64 {
        self.change_if(|book| {
            change(book);
            true
        })
    }

    /// Wakes on each change from now on.
    pub(crate) fn changes(&self) -> watch::Receiver<(u64, Book)> {
        self.book.subscribe()
    }

    /// Waits until that change is in the file, or was tried to be; not for long.
    pub(crate) async fn kept(&self, number: u64) {
        let mut kept = self.kept.subscribe();
        // Too late is as good as failed, of which the log tells.
        let _ = tokio::time::timeout(KEEP_LIMIT, kept.wait_for(|kept| *kept >= number)).await;
    }

    /// Brings every change to the file. The first one is the state as it was read, which shows
    /// whether it can be written before it is needed.
    pub(crate) async fn keep(&self) {
        let mut changes = self.book.subscribe();
        let mut is_failing = false;
        loop {
            let (number, text) = {
                let held = changes.borrow_and_update();
                (held.0, serde_json::to_vec(&held.1).unwrap_or_default())
            };
            let path = self.path.clone();
            let written = tokio::task::spawn_blocking(move || write(&path, &text)).await;
            let failure = match written {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(error.kind()),
                Err(_) => Some(ErrorKind::Other),
            };
            if let Some(kind) = failure.filter(|_| !is_failing) {
                tracing::error!(event = "watch_state_unwritable", path = %self.path.display(), error = %kind, "the watcher's state cannot be written");
            }
            is_failing = failure.is_some();
            self.kept.send_replace(number);
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Whoever reads sees the old text or the new one, also after a loss of power.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let new = PathBuf::from(name);
    let mut file = File::create(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}
