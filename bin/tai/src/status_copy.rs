//! A copy of the public status page in a directory, for a web server that outlives the service.
//!
//! Owns: when it is written, and that a reader never finds half a file. Refuses to know: what the
//! page says.
//!
//! What if the process dies here? The files of before stay, and the page says as of when it is.

use std::fs::{File, Permissions};
use std::io::{self, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use engine::supervise::{Stop, Worker};
use gateway::{Gateway, StatusPage};
use settings::Settings;
use tokio::time::Instant;

/// How often the page is looked at: it is no newer than that itself.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The longest time between two copies, also of a page that has not changed: it says as of when it
/// is, and a reader must be able to tell a service that is gone.
const COPY_INTERVAL: Duration = Duration::from_secs(30);

/// Anybody may read what is public.
const MODE: u32 = 0o644;

/// Makes the directory that the settings name, if they name one.
pub(crate) fn prepare(settings: &Settings) -> anyhow::Result<()> {
    let Some(dir) = &settings.status_page_dir else { return Ok(()) };
    std::fs::create_dir_all(dir).context("STATUS_PAGE_DIR: cannot make the directory")
}

/// The worker that keeps the copy, if a directory is set.
pub(crate) fn worker(settings: &Settings, door: &Arc<Gateway>) -> Option<Worker> {
    let dir: Arc<Path> = settings.status_page_dir.clone()?.into();
    let door = Arc::clone(door);
    Some(Worker::task("status_copy", move |stop| keep(Arc::clone(&dir), Arc::clone(&door), stop)))
}

async fn keep(dir: Arc<Path>, door: Arc<Gateway>, mut stop: Stop) {
    let mut copied: Option<(Instant, u64)> = None;
    loop {
        if let Some(page) = door.status_page().await {
            let is_due = copied.is_none_or(|(at, changes)| {
                changes != page.changes || at.elapsed() >= COPY_INTERVAL
            });
            if is_due {
                copied = copy(&dir, page).await.or(copied);
            }
        }
        tokio::select! {
            () = stop.asked() => return,
            () = tokio::time::sleep(LOOK_INTERVAL) => {}
        }
    }
}

/// Gives when and what was copied, if it was.
async fn copy(dir: &Arc<Path>, page: StatusPage) -> Option<(Instant, u64)> {
    let (dir, changes) = (Arc::clone(dir), page.changes);
    let written = tokio::task::spawn_blocking(move || {
        replace(&dir, "summary.json", &page.summary)?;
        replace(&dir, "index.html", &page.page)
    });
    match written.await {
        Ok(Ok(())) => Some((Instant::now(), changes)),
        Ok(Err(error)) => {
            tracing::warn!(event = "status_copy", %error, "the status page cannot be copied");
            None
        }
        // The file system did not answer before the end.
        Err(_) => None,
    }
}

/// Puts a whole file in the place of another one; after a loss of power it is the one or the other.
fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let mut new = tempfile::Builder::new().prefix(".status-").tempfile_in(dir)?;
    new.write_all(bytes)?;
    new.as_file().set_permissions(Permissions::from_mode(MODE))?;
    new.as_file().sync_all()?;
    new.persist(dir.join(name)).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_whole_and_nothing_is_left_beside_it() {
        let room = tempfile::tempdir().unwrap();
        let path = room.path().join("index.html");
        for text in ["a longer text", "short"] {
            replace(room.path(), "index.html", text.as_bytes()).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, MODE);
        assert_eq!(std::fs::read_dir(room.path()).unwrap().count(), 1);
        assert!(replace(&room.path().join("gone"), "index.html", b"").is_err());
        assert_eq!(std::fs::read_dir(room.path()).unwrap().count(), 1);
    }
}
