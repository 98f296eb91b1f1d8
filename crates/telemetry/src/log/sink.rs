//! The writer thread: a bounded queue of lines in, stdout or a file out.
//!
//! Owns the queue, the count of what was lost, and the file across rotations. Refuses to know what
//! a line says. A caller never waits: a full queue loses the line and counts it. This module
//! never logs.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::Error;

/// Lines that wait for the writer.
const QUEUE_LINES: usize = 8192;
/// Lines that one write carries at most, so that a flush is not held up by an endless batch.
const BATCH_LINES: usize = 512;
/// The writer's rest after a batch. Callers then fill the queue without waking it for each line,
/// which would cost them a system call.
const REST: Duration = Duration::from_millis(2);
/// How often the path is compared with the open file.
const ROTATION_CHECK: Duration = Duration::from_secs(1);
/// How long a flush waits for a writer whose disk or pipe is stuck.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

#[derive(Default)]
struct Progress {
    queued: AtomicU64,
    dropped: AtomicU64,
    /// Lines that the writer is done with, written or lost.
    settled: Mutex<u64>,
    moved: Condvar,
}

/// The callers' end. Cheap to clone.
#[derive(Clone)]
pub(super) struct Queue {
    lines: SyncSender<String>,
    progress: Arc<Progress>,
}

impl Queue {
    pub(super) fn push(&self, line: String) {
        match self.lines.try_send(line) {
            Ok(()) => self.progress.queued.fetch_add(1, Ordering::Release),
            Err(_) => self.progress.dropped.fetch_add(1, Ordering::Relaxed),
        };
    }
}

/// The owner's end of the log. Dropping it flushes; lines that come later are still written, but
/// nobody waits for them.
pub struct LogHandle {
    queue: Queue,
    level: Option<SetLevel>,
}

/// Puts another level in force.
pub(super) type SetLevel = Box<dyn Fn(tracing::Level) + Send + Sync>;

impl LogHandle {
    pub(super) fn on_level(&mut self, level: SetLevel) {
        self.level = Some(level);
    }

    /// Logs events of `level` and above from now on.
    pub fn set_level(&self, level: tracing::Level) {
        if let Some(set) = &self.level {
            set(level);
        }
    }

    pub(super) fn queue(&self) -> Queue {
        self.queue.clone()
    }

    /// Lines lost so far: the queue was full, or the sink refused them.
    #[must_use]
    pub fn dropped(&self) -> u64 {
        self.queue.progress.dropped.load(Ordering::Relaxed)
    }

    /// Waits until the lines that were queued before the call are written, at most five seconds:
    /// a reader that stopped reading stdout must not keep the process alive.
    pub fn flush(&self) {
        let progress = &self.queue.progress;
        let wanted = progress.queued.load(Ordering::Acquire);
        let settled = progress.settled.lock().unwrap_or_else(PoisonError::into_inner);
        let waited =
            progress.moved.wait_timeout_while(settled, FLUSH_LIMIT, |settled| *settled < wanted);
        drop(waited);
    }
}

impl Drop for LogHandle {
    fn drop(&mut self) {
        self.flush();
    }
}

/// Opens the sink and starts its writer, which ends when the last queue is dropped.
pub(super) fn start(file: Option<&Path>) -> Result<LogHandle, Error> {
    let sink = match file {
        Some(path) => Sink::File(RotatedFile::open(path).map_err(Error::LogFile)?),
        None => Sink::Stdout,
    };
    start_with(sink, QUEUE_LINES)
}

fn start_with(sink: Sink, queue_lines: usize) -> Result<LogHandle, Error> {
    let (lines, waiting) = sync_channel(queue_lines);
    let queue = Queue { lines, progress: Arc::default() };
    let progress = Arc::clone(&queue.progress);
    std::thread::Builder::new()
        .name("log-writer".to_owned())
        .spawn(move || write_lines(&waiting, sink, &progress))
        .map_err(Error::LogWriter)?;
    Ok(LogHandle { queue, level: None })
}

fn write_lines(waiting: &Receiver<String>, mut sink: Sink, progress: &Progress) {
    let started = Instant::now();
    let mut batch = Vec::new();
    while let Ok(first) = waiting.recv() {
        batch.clear();
        let mut lines = 0;
        for line in std::iter::once(first).chain(waiting.try_iter().take(BATCH_LINES - 1)) {
            batch.extend_from_slice(line.as_bytes());
            batch.push(b'\n');
            lines += 1;
        }
        if sink.write(&batch, started.elapsed()).is_err() {
            progress.dropped.fetch_add(lines, Ordering::Relaxed);
        }
        *progress.settled.lock().unwrap_or_else(PoisonError::into_inner) += lines;
        progress.moved.notify_all();
        std::thread::sleep(REST);
    }
}

enum Sink {
    Stdout,
    File(RotatedFile),
    #[cfg(test)]
    Test(Box<dyn Write + Send>),
}

impl Sink {
    /// Writes whole lines; `now` is monotonic time since the writer started.
    fn write(&mut self, batch: &[u8], now: Duration) -> io::Result<()> {
        match self {
            Sink::Stdout => {
                let mut out = io::stdout().lock();
                out.write_all(batch).and_then(|()| out.flush())
            }
            Sink::File(file) => file.write(batch, now),
            #[cfg(test)]
            Sink::Test(out) => out.write_all(batch),
        }
    }
}

/// A file that is opened anew when its path leads elsewhere, as after logrotate's rename.
struct RotatedFile {
    path: PathBuf,
    file: File,
    checked: Duration,
    /// The last write failed and may have left half a line.
    torn: bool,
}

impl RotatedFile {
    fn open(path: &Path) -> io::Result<RotatedFile> {
        let file = open_append(path)?;
        Ok(RotatedFile { path: path.to_owned(), file, checked: Duration::ZERO, torn: false })
    }

    fn write(&mut self, batch: &[u8], now: Duration) -> io::Result<()> {
        if now.saturating_sub(self.checked) >= ROTATION_CHECK {
            self.checked = now;
            if !self.is_current() {
                // Where the path cannot be opened the old file takes the lines: late is not lost.
                if let Ok(file) = open_append(&self.path) {
                    (self.file, self.torn) = (file, false);
                }
            }
        }
        let written = if self.torn { self.file.write_all(b"\n") } else { Ok(()) };
        let written = written.and_then(|()| self.file.write_all(batch));
        self.torn = written.is_err();
        written
    }

    fn is_current(&self) -> bool {
        match (fs::metadata(&self.path), self.file.metadata()) {
            (Ok(named), Ok(open)) => (named.dev(), named.ino()) == (open.dev(), open.ino()),
            _ => false,
        }
    }
}

fn open_append(path: &Path) -> io::Result<File> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory)?;
    }
    File::options().create(true).append(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE_SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_renamed_or_deleted_file_is_opened_anew_at_the_next_check() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("log/app.log");
        let rotated = directory.path().join("log/app.log.1");
        let mut file = RotatedFile::open(&path).unwrap();
        file.write(b"a\n", Duration::ZERO).unwrap();
        fs::rename(&path, &rotated).unwrap();
        file.write(b"b\n", ONE_SECOND / 2).unwrap();
        assert_eq!(fs::read_to_string(&rotated).unwrap(), "a\nb\n", "no check before a second");
        file.write(b"c\n", ONE_SECOND).unwrap();
        assert_eq!(fs::read_to_string(&rotated).unwrap(), "a\nb\n");
        assert_eq!(fs::read_to_string(&path).unwrap(), "c\n");

        fs::remove_dir_all(path.parent().unwrap()).unwrap();
        file.write(b"d\n", ONE_SECOND * 2).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "d\n");

        // Renamed, and another made in its place: logrotate's `create`.
        fs::rename(&path, &rotated).unwrap();
        fs::write(&path, "made\n").unwrap();
        file.write(b"e\n", ONE_SECOND * 3).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "made\ne\n");
    }

    #[test]
    fn what_was_in_the_file_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.log");
        fs::write(&path, "old\n").unwrap();
        let handle = start(Some(&path)).unwrap();
        handle.queue().push("new".to_owned());
        drop(handle);
        assert_eq!(fs::read_to_string(&path).unwrap(), "old\nnew\n");
    }

    #[test]
    fn a_flush_waits_for_every_line_that_was_queued() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.log");
        let handle = start(Some(&path)).unwrap();
        let queue = handle.queue();
        for round in 1..=20_usize {
            (0..300).for_each(|line| queue.push(format!("{round} {line}")));
            handle.flush();
            assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), round * 300);
        }
        assert_eq!(handle.dropped(), 0);
    }

    #[test]
    fn a_path_that_cannot_be_opened_is_an_error() {
        let directory = tempfile::tempdir().unwrap();
        assert!(matches!(start(Some(directory.path())), Err(Error::LogFile(_))));
    }

    /// Says that a write has begun, and lets it through when told to.
    struct Gate {
        begun: SyncSender<()>,
        open: Receiver<()>,
    }

    fn gate() -> (Gate, Receiver<()>, SyncSender<()>) {
        let (begun, begins) = sync_channel(64);
        let (opener, open) = sync_channel(64);
        (Gate { begun, open }, begins, opener)
    }

    impl Write for Gate {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.begun.send(()).map_err(|_| io::ErrorKind::BrokenPipe)?;
            self.open.recv().map_err(|_| io::ErrorKind::BrokenPipe)?;
            Ok(bytes.len())
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_queue_loses_lines_and_counts_them_without_waiting() {
        let (gate, begins, opener) = gate();
        let handle = start_with(Sink::Test(Box::new(gate)), 4).unwrap();
        handle.queue().push("first".to_owned());
        begins.recv().unwrap();
        // The writer is stuck now: four lines find room, and nobody waits for the others.
        (0..100).for_each(|line| handle.queue().push(line.to_string()));
        assert_eq!(handle.dropped(), 96);
        opener.send(()).unwrap();
        opener.send(()).unwrap();
        handle.flush();
        assert_eq!(*handle.queue.progress.settled.lock().unwrap(), 5);
        assert_eq!(handle.dropped(), 96);
    }

    #[test]
    fn lines_that_the_sink_refuses_are_counted() {
        let (gate, _begins, opener) = gate();
        drop(opener);
        let handle = start_with(Sink::Test(Box::new(gate)), 16).unwrap();
        (0..10).for_each(|line| handle.queue().push(line.to_string()));
        handle.flush();
        assert_eq!(handle.dropped(), 10);
    }

    #[test]
    fn half_a_line_is_closed_before_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("app.log");
        let mut file = RotatedFile::open(&path).unwrap();
        file.write(b"{\"half", Duration::ZERO).unwrap();
        file.torn = true;
        file.write(b"{}\n", Duration::ZERO).unwrap();
        file.write(b"{}\n", Duration::ZERO).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "{\"half\n{}\n{}\n");
    }
}
