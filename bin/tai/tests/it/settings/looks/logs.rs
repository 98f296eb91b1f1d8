//! One look at each setting of the log's sinks.

use std::path::PathBuf;

use serde_json::Value;
use tempfile::TempDir;

use super::*;
use crate::collector::Collector;

/// So long that nothing is written for want of patience.
const NEVER: &str = "600000";
const MANY: &str = "10000";

pub(in super::super) fn log_structured() {
    let lines = |flag: &str| {
        let (room, dir) = room();
        let stdout = room.path().join("stdout");
        Quiet::start(&dir, &[("LOG_STRUCTURED", flag)], &stdout).stop();
        fs::read_to_string(stdout).unwrap()
    };
    let (json, text) = (lines("true"), lines("false"));
    let is_json = |line: &str| serde_json::from_str::<Value>(line).is_ok_and(|it| it.is_object());
    assert!(json.lines().all(is_json) && json.contains("\"event\":\"listening\""), "{json}");
    assert!(!text.lines().any(is_json) && text.contains(" event=listening"), "{text}");
}

/// A service with a log file, that answers already.
fn filing(envs: &[(&str, &str)]) -> (TempDir, PathBuf, Quiet) {
    let (room, dir) = room();
    let file = room.path().join("app.log");
    let envs = [envs, &[("LOG_FILE", file.to_str().unwrap())]].concat();
    let quiet = Quiet::start(&dir, &envs, &room.path().join("stdout"));
    (room, file, quiet)
}

fn says_listening(file: &Path) -> Option<()> {
    fs::read_to_string(file).unwrap().contains("\"event\":\"listening\"").then_some(())
}

/// With `soon` lines are in the file while it runs; with `late` none is, until it is asked for.
fn assert_filed(soon: &[(&str, &str)], late: &[(&str, &str)]) {
    let (_room, file, quiet) = filing(soon);
    until("the line", || says_listening(&file));
    quiet.stop();
    let (_room, file, quiet) = filing(late);
    assert_eq!(fs::read_to_string(&file).unwrap(), "");
    quiet.signal("-USR1");
    until("the line that is asked for", || says_listening(&file));
    quiet.stop();
    assert!(fs::read_to_string(&file).unwrap().contains("Shutdown complete"));
}

pub(in super::super) fn log_file_buffer_size() {
    let interval = ("LOG_FILE_FLUSH_INTERVAL", NEVER);
    let of = |size| [interval, ("LOG_FILE_BUFFER_SIZE", size)];
    assert_filed(&of("1"), &of(MANY));
}

pub(in super::super) fn log_file_flush_interval() {
    let size = ("LOG_FILE_BUFFER_SIZE", MANY);
    let of = |interval| [size, ("LOG_FILE_FLUSH_INTERVAL", interval)];
    assert_filed(&of("20"), &of(NEVER));
}

/// A service that sends its log to a collector of its own.
fn sending(envs: &[(&str, &str)]) -> (TempDir, Collector, Quiet) {
    let (room, dir) = room();
    let collector = Collector::start();
    let url = collector.url();
    let envs = [envs, &[("LOG_HTTP_ENDPOINT", url.as_str())]].concat();
    let quiet = Quiet::start(&dir, &envs, &room.path().join("stdout"));
    (room, collector, quiet)
}

pub(in super::super) fn log_http_endpoint() {
    let one = ("LOG_HTTP_BUFFER_SIZE", "1");
    let (_one, first, sends_to_first) = sending(&[one]);
    let (_two, second, sends_to_second) = sending(&[one]);
    let head = first.wait_for("listening", 204).head;
    assert!(head.starts_with("POST /ingest HTTP/1.1\r\n"), "{head}");
    assert!(head.to_ascii_lowercase().contains("content-type: application/json\r\n"), "{head}");
    second.wait_for("listening", 204);
    sends_to_first.stop();
    let before = first.deliveries().len();
    sends_to_second.stop();
    assert!(second.deliveries().iter().any(|it| it.has("shutdown")));
    assert_eq!(first.deliveries().len(), before);
}

pub(in super::super) fn log_http_auth_header() {
    let one = ("LOG_HTTP_BUFFER_SIZE", "1");
    for (value, header) in [
        ("Bearer swordfish", Some("authorization: bearer swordfish\r\n")),
        ("ApiKey a, b", Some("authorization: apikey a, b\r\n")),
        ("", None),
    ] {
        let (room, collector, quiet) = sending(&[one, ("LOG_HTTP_AUTH_HEADER", value)]);
        let head = collector.wait_for("listening", 204).head.to_ascii_lowercase();
        match header {
            Some(header) => assert!(head.contains(header), "{head}"),
            None => assert!(!head.contains("authorization"), "{head}"),
        }
        quiet.stop();
        let log = fs::read_to_string(room.path().join("stdout")).unwrap();
        assert!(!log.contains("swordfish"));
    }
}

/// With `soon` lines arrive while it runs; with `late` none does, until it is asked for.
fn assert_sent(soon: &[(&str, &str)], late: &[(&str, &str)]) {
    let (_room, collector, quiet) = sending(soon);
    collector.wait_for("listening", 204);
    quiet.stop();
    let (_room, collector, quiet) = sending(late);
    assert!(collector.deliveries().is_empty());
    quiet.signal("-USR1");
    let delivery = collector.wait_for("listening", 204);
    assert!(delivery.logs.len() > 1, "all that waited, together");
    quiet.stop();
}

pub(in super::super) fn log_http_buffer_size() {
    let interval = ("LOG_HTTP_FLUSH_INTERVAL", NEVER);
    let of = |size| [interval, ("LOG_HTTP_BUFFER_SIZE", size)];
    assert_sent(&of("1"), &of(MANY));
}

pub(in super::super) fn log_http_flush_interval() {
    let size = ("LOG_HTTP_BUFFER_SIZE", MANY);
    let of = |interval| [size, ("LOG_HTTP_FLUSH_INTERVAL", interval)];
    assert_sent(&of("20"), &of(NEVER));
}
