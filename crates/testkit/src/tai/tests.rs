//! Tests of the launcher, against a stand-in for the binary.

use std::os::unix::process::ExitStatusExt as _;
use std::panic::catch_unwind;
use std::path::PathBuf;

use super::*;
use crate::place;

const LONG: Duration = Duration::from_secs(10);

fn fake() -> PathBuf {
    place::repository().join("crates/testkit/fixtures/fake_tai.py")
}

fn dir() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn it_waits_until_ready_and_passes_nothing_but_what_it_says() {
    let dir = dir();
    let tai = Tai::start(&fake(), dir.path(), &[("LOG_LEVEL", "debug")]).unwrap();
    let mut client = http::Client::connect(tai.address()).unwrap();
    let seen = client.request("GET", "/", &[], b"").unwrap().json().unwrap();
    assert_eq!(seen["PORT"], "0");
    assert_eq!(seen["BIND_ADDRESS"], "127.0.0.1");
    assert_eq!(seen["LEDGER_DIR"], dir.path().to_str().unwrap());
    assert_eq!(seen["LOG_LEVEL"], "debug");
    assert!(seen.get("CARGO_MANIFEST_DIR").is_none());
    assert!(tai.rss_bytes().unwrap() > 1024 * 1024);
    assert!(tai.errors().is_empty());
}

#[test]
fn sigterm_is_a_request_and_sigkill_is_not() {
    let dir = dir();
    let mut tai = Tai::start(&fake(), dir.path(), &[]).unwrap();
    assert!(tai.wait(Duration::from_millis(1)).is_err());
    tai.terminate().unwrap();
    tai.wait_for_event("stopped", LONG).unwrap();
    assert_eq!(tai.wait(LONG).unwrap().code(), Some(0));
    assert!(tai.log_lines().last().unwrap().contains("stopped"));
    assert!(tai.terminate().is_err());
    assert_eq!(tai.kill().unwrap().code(), Some(0));
    assert!(tai.wait_for_event("never", LONG).is_err());

    let port = place::free_port().unwrap();
    let mut tai = Tai::builder(&fake(), dir.path()).port(port).start().unwrap();
    assert_eq!(tai.address().port(), port);
    assert_eq!(tai.kill().unwrap().signal(), Some(9));
    assert!(tai.rss_bytes().is_err());
    // The same port again, as after a crash.
    let again = Tai::builder(&fake(), dir.path()).port(port).start().unwrap();
    assert_eq!(again.address().port(), port);
}

#[test]
fn an_error_that_was_not_announced_fails_the_test() {
    for kind in ["error", "panic"] {
        let run = |announced: bool| {
            catch_unwind(move || {
                let dir = dir();
                let mut tai = Tai::start(&fake(), dir.path(), &[("FAKE", kind)]).unwrap();
                if announced {
                    tai.expect_errors();
                }
                tai.kill().unwrap();
                assert_eq!(tai.errors().len(), 1);
            })
            .is_ok()
        };
        assert!(run(true), "{kind}");
        assert!(!run(false), "{kind}");
    }
}

#[test]
fn a_failed_start_shows_what_was_logged() {
    let dir = dir();
    let error = Tai::start(&fake(), dir.path(), &[("FAKE", "refuse")]).unwrap_err();
    let text = format!("{error:#}");
    assert!(text.contains("start_failed") && text.contains("ended without"), "{text}");
}

#[test]
fn the_log_is_bounded_and_a_late_waiter_finds_what_is_kept() {
    let log = Log::default();
    for number in 0..LINES_MAX + 5 {
        log.push(format!(r#"{{"event":"e{number}"}}"#));
    }
    let now = Instant::now();
    assert_eq!(log.state().lines.len(), LINES_MAX);
    assert!(log.wait_for_event("e4", now).is_err());
    assert!(log.wait_for_event("e5", now).is_ok());
}

#[test]
fn only_level_error_and_panics_are_errors() {
    for (line, expected) in [
        (r#"{"level":"ERROR","event":"x"}"#, true),
        (r#"{"level":"INFO","message":"\"level\":\"ERROR\""}"#, false),
        ("thread 'committer' (12) panicked at src/a.rs:1:2:", true),
        ("ERROR in plain text", false),
        ("", false),
    ] {
        assert_eq!(is_error(line), expected, "{line}");
    }
}
