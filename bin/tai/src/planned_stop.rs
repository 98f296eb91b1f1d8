//! The mark of a stop that is meant: a signal, `tai ctl stop`, a graceful restart.
//!
//! Owns: the file, which the service leaves when it begins to stop and takes away once it serves
//! again, and what it says. Refuses to know: who looks, and how long a stop may last.
//!
//! What if the process dies here? Half a mark is none. One that was never taken away covers nothing
//! but its own time.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::time::Duration;

use types::Micros;

/// In the ledger's directory: whoever watches the service finds that by the same setting.
const FILE: &str = "planned-stop";

/// How long anybody waits for the file: a disk that hangs has no mark, and holds nobody up.
const LIMIT: Duration = Duration::from_secs(1);

/// Does one of what follows off the runtime; `None` where that takes too long.
pub(crate) async fn soon<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    tokio::time::timeout(LIMIT, tokio::task::spawn_blocking(work)).await.ok()?.ok()
}

/// Leaves the mark, in a directory that a shared store has no other use for.
pub(crate) fn leave(dir: &Path, now: Micros) {
    tell(fs::create_dir_all(dir));
    tell(fs::write(dir.join(FILE), format!("{now}\n")));
}

/// Takes the mark away.
pub(crate) fn clear(dir: &Path) {
    tell(fs::remove_file(dir.join(FILE)));
}

fn tell(done: std::io::Result<()>) {
    if let Err(error) = done.map_err(|error| error.kind())
        && error != ErrorKind::NotFound
    {
        tracing::warn!(event = "planned_stop", %error, "the mark of a planned stop cannot be changed");
    }
}

/// When the stop began that is marked; `None` where none is.
pub(crate) fn read(dir: &Path) -> Option<Micros> {
    let text = fs::read(dir.join(FILE)).ok()?;
    Micros::from_text(text.strip_suffix(b"\n")?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_left_read_and_taken_away_and_half_of_one_is_none() {
        let room = tempfile::tempdir().unwrap();
        let now = Micros(1_800_000_000_123_456);
        assert_eq!(read(room.path()), None);
        clear(room.path());
        leave(room.path(), now);
        assert_eq!(read(room.path()), Some(now));
        let path = room.path().join(FILE);
        let whole = fs::read(&path).unwrap();
        for length in 0..whole.len() {
            fs::write(&path, &whole[..length]).unwrap();
            assert_eq!(read(room.path()), None, "{length}");
        }
        leave(room.path(), now);
        clear(room.path());
        assert_eq!(read(room.path()), None);
        let made = room.path().join("made");
        leave(&made, now);
        assert_eq!(read(&made), Some(now));
    }
}
