//! A panic in the log. It has a process of its own, since a process has one log and one hook.
//!
//! Owns: what a line about a panic says. Refuses to know: who catches it.

use std::sync::Arc;
use std::time::Duration;

use telemetry::log::{self, FileOptions, LogOptions};
use tracing::Level;
use types::{Clock, Micros};

struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> Micros {
        Micros(0)
    }
}

#[test]
fn a_panic_is_a_line_of_level_error_without_the_secret_that_it_says() {
    let room = tempfile::tempdir().unwrap();
    let path = room.path().join("app.log");
    let flush_interval = Duration::from_secs(3600);
    let file = FileOptions { path: path.clone(), buffer_lines: 1000, flush_interval };
    let options =
        LogOptions { level: Level::ERROR, is_structured: true, file: Some(file), outbox: None };
    let handle = log::init(&options, Arc::new(Fixed)).unwrap();
    let reply = r#"{"api_key": "hunter2", "model": "m"}"#;
    let broken = std::thread::spawn(move || panic!("cannot read {reply} with sk_live_hunter2"));
    assert!(broken.join().is_err());
    drop(handle);
    let text = std::fs::read_to_string(path).unwrap();
    let line: serde_json::Value = serde_json::from_str(text.trim_end()).unwrap();
    assert_eq!((&line["level"], &line["event"]), (&"ERROR".into(), &"panicked".into()));
    let said = r#"panicked: cannot read {"api_key": "REDACTED", "model": "m"} with REDACTED"#;
    assert_eq!(line["message"], said);
    assert!(line["place"].as_str().unwrap().contains("panics.rs"), "{line}");
}
