//! The writer thread: a bounded queue of lines in, stdout or a file out.
//!
//! Owns the queue, how long a line may be held back, the count of what was lost, and the file
//! across rotations. Refuses to know what a line says. A caller never waits: a full queue loses the
//! line and counts it. This module never logs.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::FileOptions;
use super::text::readable;
use crate::Error;
use crate::outbox::Outbox;

/// Lines that wait for the writer.
const QUEUE_LINES: usize = 8192;
/// Lines that one write carries at most, so that a flush is not held up by an endless batch.
const BATCH_LINES: usize = 2048;
/// The writer's rest after a batch. Callers then fill the queue without waking it for each line,
/// which would cost them a system call, and the machine more than the line itself.
const REST: Duration = Duration::from_millis(10);
/// How often the path is compared with the open file.
const ROTATION_CHECK: Duration = Duration::from_secs(1);
/// How long a flush waits for a writer whose disk or pipe is stuck.
const FLUSH_LIMIT: Duration = Duration::from_secs(5);

/// Bytes that wait to be written at most, however many lines may.
const HELD_BYTES: usize = 256 * 1024;

#[derive(Default)]
struct Progress {
    queued: AtomicU64,
    dropped: AtomicU64,
    /// Lines that somebody waits for: nothing is held back until so many are settled.
    wanted: AtomicU64,
    /// The file is to be opened anew, whether or not its path leads elsewhere.
    reopens: AtomicBool,
    /// Lines that the writer is done with, written or lost.
    settled: Mutex<u64>,
    moved: Condvar,
}

enum Message {
    Line {
        text: String,
        /// Written at once, with all before it.
        is_urgent: bool,
    },
    /// Somebody waits: `Progress` says for what.
    Look,
}

/// The callers' end. Cheap to clone.
#[derive(Clone)]
pub(super) struct Queue {
    lines: SyncSender<Message>,
    progress: Arc<Progress>,
}

impl Queue {
    pub(super) fn push(&self, text: String, is_urgent: bool) {
        match self.lines.try_send(Message::Line { text, is_urgent }) {
            Ok(()) => self.progress.queued.fetch_add(1, Ordering::Release),
            Err(_) => self.progress.dropped.fetch_add(1, Ordering::Relaxed),
        };
    }
}

/// The owner's end of the log. Dropping it flushes; lines that come later are still written, but
/// nobody waits for them.
pub struct LogHandle {
    queue: Queue,
    name: &'static str,
    outbox: Option<Outbox>,
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

    pub(super) fn set_outbox(&mut self, outbox: Outbox) {
        self.outbox = Some(outbox);
    }

    /// The lines that wait to be sent elsewhere, where that is asked for.
    #[must_use]
    pub fn outbox(&self) -> Option<&Outbox> {
        self.outbox.as_ref()
    }

    /// Lines lost so far, by sink: its queue was full, or it refused them.
    #[must_use]
    pub fn dropped(&self) -> Vec<(&'static str, u64)> {
        let own = (self.name, self.queue.progress.dropped.load(Ordering::Relaxed));
        let sent = self.outbox.as_ref().map(|outbox| ("http", outbox.dropped()));
        std::iter::once(own).chain(sent).collect()
    }

    /// Waits until the lines that were queued before the call are written, at most five seconds:
    /// a reader that stopped reading stdout must not keep the process alive. What is sent elsewhere
    /// is asked for, and not waited for.
    pub fn flush(&self) {
        if let Some(outbox) = &self.outbox {
            outbox.flush();
        }
        let progress = &self.queue.progress;
        let wanted = progress.queued.load(Ordering::Acquire);
        progress.wanted.fetch_max(wanted, Ordering::AcqRel);
        // A full queue has a writer that is awake already.
        let _full = self.queue.lines.try_send(Message::Look);
        let settled = progress.settled.lock().unwrap_or_else(PoisonError::into_inner);
        let waited =
            progress.moved.wait_timeout_while(settled, FLUSH_LIMIT, |settled| *settled < wanted);
        drop(waited);
    }

    /// Flushes, and opens the file anew: lines that come later are in the file that has its name
    /// then.
    pub fn reopen(&self) {
        self.flush();
        self.queue.progress.reopens.store(true, Ordering::Release);
        let _full = self.queue.lines.try_send(Message::Look);
    }
}

impl Drop for LogHandle {
    fn drop(&mut self) {
        self.flush();
    }
}

/// How long lines may wait to be written together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Hold {
    lines: usize,
    time: Duration,
}

impl Hold {
    const NOT_AT_ALL: Hold = Hold { lines: 1, time: Duration::ZERO };
}

/// Opens the sink and starts its writer, which ends when the last queue is dropped.
pub(super) fn start(file: Option<&FileOptions>, is_structured: bool) -> Result<LogHandle, Error> {
    let (sink, hold) = match file {
        Some(file) => {
            let opened = RotatedFile::open(&file.path).map_err(Error::LogFile)?;
            let hold = Hold { lines: file.buffer_lines, time: file.flush_interval };
            (Sink::File(opened), hold)
        }
        None => (Sink::Stdout, Hold::NOT_AT_ALL),
    };
    start_with(Writer::new(sink, hold, is_structured), QUEUE_LINES)
}

fn start_with(mut writer: Writer, queue_lines: usize) -> Result<LogHandle, Error> {
    let (lines, waiting) = sync_channel(queue_lines);
    let queue = Queue { lines, progress: Arc::clone(&writer.progress) };
    let name = writer.sink.name();
    std::thread::Builder::new()
        .name("log-writer".to_owned())
        .spawn(move || writer.run(&waiting))
        .map_err(Error::LogWriter)?;
    Ok(LogHandle { queue, name, outbox: None, level: None })
}

/// What the thread has.
struct Writer {
    sink: Sink,
    hold: Hold,
    is_structured: bool,
    progress: Arc<Progress>,
    started: Instant,
    batch: Vec<u8>,
    lines: usize,
    /// When the first line of the batch came.
    since: Option<Instant>,
    is_urgent: bool,
}

impl Writer {
    fn new(sink: Sink, hold: Hold, is_structured: bool) -> Writer {
        Writer {
            sink,
            hold,
            is_structured,
            progress: Arc::default(),
            started: Instant::now(),
            batch: Vec::new(),
            lines: 0,
            since: None,
            is_urgent: false,
        }
    }

    fn run(&mut self, waiting: &Receiver<Message>) {
        loop {
            let message = match self.since {
                None => waiting.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(since) => waiting.recv_timeout(self.hold.time.saturating_sub(since.elapsed())),
            };
            match message {
                Ok(first) => {
                    self.take(first);
                    waiting.try_iter().take(BATCH_LINES - 1).for_each(|message| self.take(message));
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return self.write(),
            }
            // Before the write: what was to be in the old file is there already.
            if self.progress.reopens.swap(false, Ordering::AcqRel) {
                self.sink.reopen();
            }
            if self.is_due() {
                self.write();
            }
            std::thread::sleep(REST);
        }
    }

    fn take(&mut self, message: Message) {
        let Message::Line { text, is_urgent } = message else { return };
        if self.is_structured {
            self.batch.extend_from_slice(text.as_bytes());
        } else {
            self.batch.extend_from_slice(readable(&text).as_bytes());
        }
        self.batch.push(b'\n');
        self.lines += 1;
        self.since = self.since.or_else(|| Some(Instant::now()));
        self.is_urgent |= is_urgent;
    }

    fn is_due(&self) -> bool {
        let settled = || *self.progress.settled.lock().unwrap_or_else(PoisonError::into_inner);
        self.is_urgent
            || self.lines >= self.hold.lines
            || self.batch.len() >= HELD_BYTES
            || self.since.is_some_and(|since| since.elapsed() >= self.hold.time)
            || settled() < self.progress.wanted.load(Ordering::Acquire)
    }

    fn write(&mut self) {
        if self.lines == 0 {
            return;
        }
        let lines = self.lines as u64;
        if self.sink.write(&self.batch, self.started.elapsed()).is_err() {
            self.progress.dropped.fetch_add(lines, Ordering::Relaxed);
        }
        self.batch.clear();
        (self.lines, self.since, self.is_urgent) = (0, None, false);
        *self.progress.settled.lock().unwrap_or_else(PoisonError::into_inner) += lines;
        self.progress.moved.notify_all();
    }
}

enum Sink {
    Stdout,
    File(RotatedFile),
    #[cfg(test)]
    Test(Box<dyn Write + Send>),
}

impl Sink {
    /// Its name in the count of what was lost.
    fn name(&self) -> &'static str {
        match self {
            Sink::Stdout => "stdout",
            Sink::File(_) => "file",
            #[cfg(test)]
            Sink::Test(_) => "test",
        }
    }

    fn reopen(&mut self) {
        if let Sink::File(file) = self {
            file.reopen();
        }
    }

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
                self.reopen();
            }
        }
        let written = if self.torn { self.file.write_all(b"\n") } else { Ok(()) };
        let written = written.and_then(|()| self.file.write_all(batch));
        self.torn = written.is_err();
        written
    }

    /// Where the path cannot be opened the old file takes the lines: late is not lost.
    fn reopen(&mut self) {
        if let Ok(file) = open_append(&self.path) {
            // Half a line stays behind in the old file, unless this is the same one.
            self.torn = self.torn && self.is_current();
            self.file = file;
        }
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
#[path = "sink_tests.rs"]
mod tests;
