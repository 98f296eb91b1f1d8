//! What is written when, what is lost, and which file it is in.

use super::*;

fn held(path: &Path, buffer_lines: usize, flush_ms: u64) -> FileOptions {
    let flush_interval = Duration::from_millis(flush_ms);
    FileOptions { path: path.to_owned(), buffer_lines, flush_interval }
}

fn at_once(sink: Sink) -> Writer {
    Writer::new(sink, Hold::NOT_AT_ALL, true)
}

fn lost(handle: &LogHandle) -> u64 {
    handle.dropped()[0].1
}

/// An hour: what is written before was not written for want of patience.
const HELD_MS: u64 = 3_600_000;

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
    let handle = start(Some(&held(&path, 1, 0)), true).unwrap();
    handle.queue().push("new".to_owned(), false);
    drop(handle);
    assert_eq!(fs::read_to_string(&path).unwrap(), "old\nnew\n");
}

#[test]
fn a_flush_waits_for_every_line_that_was_queued() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.log");
    let handle = start(Some(&held(&path, 1, 0)), true).unwrap();
    let queue = handle.queue();
    for round in 1..=20_usize {
        (0..300).for_each(|line| queue.push(format!("{round} {line}"), false));
        handle.flush();
        assert_eq!(fs::read_to_string(&path).unwrap().lines().count(), round * 300);
    }
    assert_eq!(lost(&handle), 0);
}

#[test]
fn a_path_that_cannot_be_opened_is_an_error() {
    let directory = tempfile::tempdir().unwrap();
    assert!(matches!(start(Some(&held(directory.path(), 1, 0)), true), Err(Error::LogFile(_))));
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
    let handle = start_with(at_once(Sink::Test(Box::new(gate))), 4).unwrap();
    handle.queue().push("first".to_owned(), false);
    begins.recv().unwrap();
    // The writer is stuck now: four lines find room, and nobody waits for the others.
    (0..100).for_each(|line| handle.queue().push(line.to_string(), false));
    assert_eq!(lost(&handle), 96);
    opener.send(()).unwrap();
    opener.send(()).unwrap();
    handle.flush();
    assert_eq!(*handle.queue.progress.settled.lock().unwrap(), 5);
    assert_eq!(lost(&handle), 96);
}

#[test]
fn lines_that_the_sink_refuses_are_counted() {
    let (gate, _begins, opener) = gate();
    drop(opener);
    let handle = start_with(at_once(Sink::Test(Box::new(gate))), 16).unwrap();
    (0..10).for_each(|line| handle.queue().push(line.to_string(), false));
    handle.flush();
    assert_eq!(lost(&handle), 10);
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

/// A sink that tells each write.
struct Told(SyncSender<String>);

impl Write for Told {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(bytes).into_owned();
        self.0.send(text).map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(bytes.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn told(hold: Hold, is_structured: bool) -> (LogHandle, Receiver<String>) {
    let (tell, writes) = sync_channel(64);
    let writer = Writer::new(Sink::Test(Box::new(Told(tell))), hold, is_structured);
    (start_with(writer, 64).unwrap(), writes)
}

#[test]
fn lines_are_held_until_there_are_enough_of_them() {
    let (handle, writes) = told(Hold { lines: 3, time: Duration::from_millis(HELD_MS) }, true);
    for line in ["a", "b", "c"] {
        assert!(writes.try_recv().is_err());
        handle.queue().push(line.to_owned(), false);
    }
    assert_eq!(writes.recv().unwrap(), "a\nb\nc\n");
}

#[test]
fn a_line_that_has_waited_long_enough_is_written_alone() {
    let (handle, writes) = told(Hold { lines: 100, time: Duration::from_millis(20) }, true);
    handle.queue().push("a".to_owned(), false);
    assert_eq!(writes.recv().unwrap(), "a\n");
}

#[test]
fn an_urgent_line_takes_all_before_it_along() {
    let (handle, writes) = told(Hold { lines: 100, time: Duration::from_millis(HELD_MS) }, true);
    handle.queue().push("a".to_owned(), false);
    handle.queue().push("b".to_owned(), true);
    let mut written = writes.recv().unwrap();
    while !written.ends_with("b\n") {
        written += &writes.recv().unwrap();
    }
    assert_eq!(written, "a\nb\n");
}

#[test]
fn a_flush_and_the_end_write_what_is_held() {
    let (handle, writes) = told(Hold { lines: 100, time: Duration::from_millis(HELD_MS) }, true);
    handle.queue().push("a".to_owned(), false);
    handle.flush();
    assert_eq!(writes.try_recv().unwrap(), "a\n");
    let queue = handle.queue();
    queue.push("b".to_owned(), false);
    drop(handle);
    assert_eq!(writes.try_recv().unwrap(), "b\n");
    queue.push("c".to_owned(), false);
    drop(queue);
    assert_eq!(writes.recv().unwrap(), "c\n", "the writer ends with its last queue");
}

#[test]
fn many_bytes_are_not_held_however_few_lines_they_are() {
    let (handle, writes) = told(Hold { lines: 100, time: Duration::from_millis(HELD_MS) }, true);
    handle.queue().push("x".repeat(HELD_BYTES), false);
    assert_eq!(writes.recv().unwrap().len(), HELD_BYTES + 1);
}

#[test]
fn a_reopened_file_is_the_one_that_has_the_name() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("app.log");
    let rotated = directory.path().join("app.log.1");
    let handle = start(Some(&held(&path, 100, HELD_MS)), true).unwrap();
    handle.queue().push("a".to_owned(), false);
    fs::rename(&path, &rotated).unwrap();
    handle.reopen();
    handle.queue().push("b".to_owned(), false);
    handle.flush();
    assert_eq!(fs::read_to_string(&rotated).unwrap(), "a\n");
    assert_eq!(fs::read_to_string(&path).unwrap(), "b\n");
}

#[test]
fn readable_lines_are_made_by_the_writer() {
    let (handle, writes) = told(Hold::NOT_AT_ALL, false);
    let line = r#"{"timestamp":"t","level":"INFO","severity":"INFO","logger":"l","message":"m"}"#;
    handle.queue().push(line.to_owned(), false);
    assert_eq!(writes.recv().unwrap(), "t INFO l: m\n");
}
