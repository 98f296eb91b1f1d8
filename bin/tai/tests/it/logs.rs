//! The log, as operators query it.
//!
//! Owns: that the queries of the runbooks find what they look for in a log that the binary wrote,
//! and that no sink keeps another from its lines. Refuses to know: settings, which are looked at
//! one by one.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use testkit::http::Client;
use testkit::provider::{Provider, Vendor};

use crate::calls::{House, chat, streamed};
use crate::collector::Collector;
use crate::settings::looks::Quiet;
use crate::support::*;

/// The one of seed 003.
const TRACE_ID: &str = "550e8400-e29b-41d4-a716-446655440000";

/// Changes the stored hash of each receipt of a tenant, behind the service's back.
const ALTER: &str = "import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
stream = '(SELECT no FROM streams WHERE name = ?)'
db.execute(f'UPDATE receipts SET hash = zeroblob(32) WHERE stream = {stream}', sys.argv[2:])
assert db.total_changes > 0
db.commit()";

/// What a line of shell prints, in the folder of the log.
fn shell(folder: &Path, line: &str) -> String {
    let output = Command::new("sh").args(["-c", line]).current_dir(folder).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.is_empty(), "{line}: {said}");
    String::from_utf8(output.stdout).unwrap()
}

fn lines(file: &Path) -> Vec<Value> {
    let text = fs::read_to_string(file).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn the_queries_of_seed_003_find_what_they_look_for() {
    testkit::needs_python!();
    let (room, dir) = room();
    let file = room.path().join("app.log");
    let envs = [("LOG_FILE", file.to_str().unwrap())];
    let stdout = room.path().join("stdout");
    let quiet = Quiet::start(&dir, &envs, &stdout);
    let granted = post(&mut client(quiet.address), "/marketplace", &event("acme", "grant"));
    let receipt = receipt_id(&granted);
    quiet.stop();
    python(ALTER, &[dir.join("ledger.db").to_str().unwrap(), "acme"]);

    let quiet = Quiet::start(&dir, &envs, &stdout);
    let mut client = client(quiet.address);
    let headers = [("Authorization", "Bearer hunter2hunter2"), ("X-API-Key", "hunter2hunter2")];
    for path in ["/receipts?api_key=hunter2hunter2", "/password=hunter2hunter2"] {
        client.request("GET", path, &headers, b"").unwrap();
    }
    let path = format!("/receipts/{receipt}");
    let broken = client.request("GET", &path, &[("X-Trace-Id", TRACE_ID)], b"").unwrap();
    assert!(broken.status >= 500);
    assert_eq!(broken.header("x-trace-id"), Some(TRACE_ID));
    quiet.stop();

    let said = |line: &str| shell(room.path(), line);
    let counts = said(r#"grep '"level":"ERROR"' app.log | jq -r '.error.name' | sort | uniq -c"#);
    assert!(counts.lines().any(|line| line.ends_with(" hash_verification_failed")), "{counts}");
    assert!(!counts.contains("null"), "{counts}");
    let select = format!(r#"jq '. | select(.traceId == "{TRACE_ID}")'"#);
    let of_trace = said(&format!(r#"grep '"level":"ERROR"' app.log | {select}"#));
    assert!(of_trace.contains("hash_verification_failed"), "{of_trace}");
    let traces = said(r#"grep '"level":"ERROR"' app.log | jq -r '.traceId' | sort | uniq"#);
    assert!(traces.lines().any(|line| line == TRACE_ID), "{traces}");
    let whole = said(&format!(r#"TRACE_ID="{TRACE_ID}"; grep "$TRACE_ID" app.log | jq -c ."#));
    assert!(whole.lines().count() > 1 && whole.contains("request_completed"), "{whole}");
    let slow = |limit: &str| {
        said(&format!(
            r#"grep '"event":"request_completed"' app.log | jq '. | select(.duration > {limit})'"#
        ))
    };
    assert!(slow("0").contains("/marketplace") && slow("1000000").is_empty());
    let leaks = r"grep -E 'api[_-]?key|password|secret' app.log | grep -v REDACTED";
    assert_eq!(said(leaks), "");
    assert!(!fs::read_to_string(&file).unwrap().contains("hunter2"));
    assert!(lines(&file).iter().any(|line| line["event"] == "memory_usage"
        && line["rss_bytes"].as_u64() > Some(0)
        && line["heap_used"].as_u64() <= line["heap_total"].as_u64()));
}

#[test]
fn a_collector_that_is_away_keeps_no_line_from_the_file_and_gets_all_in_order() {
    let (room, dir) = room();
    let (file, stdout) = (room.path().join("app.log"), room.path().join("stdout"));
    let collector = Collector::start();
    let url = collector.url();
    let envs = [
        ("LOG_FILE", file.to_str().unwrap()),
        ("LOG_FILE_BUFFER_SIZE", "1"),
        ("LOG_HTTP_ENDPOINT", url.as_str()),
        ("LOG_HTTP_BUFFER_SIZE", "4"),
        ("LOG_HTTP_FLUSH_INTERVAL", "20"),
    ];
    collector.answer(503);
    let quiet = Quiet::start(&dir, &envs, &stdout);
    until("a refusal", || collector.deliveries().iter().any(|it| it.status == 503).then_some(()));
    until("the file", || lines(&file).iter().any(|it| it["event"] == "listening").then_some(()));
    assert_eq!(
        post(&mut client(quiet.address), "/marketplace", &event("acme", "grant")).status,
        200
    );
    collector.answer(200);
    collector.wait_for("request_completed", 200);
    quiet.stop();
    let arrived: Vec<Value> = collector
        .deliveries()
        .into_iter()
        .filter(|it| it.status == 200)
        .flat_map(|it| it.logs)
        .collect();
    let written = lines(&file);
    // What is said about the way to the collector does not go that way; the very last line is said
    // when the way is closed.
    let expected: Vec<&Value> = written
        .iter()
        .filter(|it| it["dependency"] != "log_http" && it["event"] != "shutdown_complete")
        .collect();
    assert!(arrived.iter().eq(expected.iter().copied()), "{arrived:#?}\nis not\n{written:#?}");
}

#[test]
fn a_signal_opens_the_file_anew() {
    let (room, dir) = room();
    let (file, rotated) = (room.path().join("app.log"), room.path().join("app.log.1"));
    let quiet =
        Quiet::start(&dir, &[("LOG_FILE", file.to_str().unwrap())], &room.path().join("stdout"));
    fs::rename(&file, &rotated).unwrap();
    quiet.signal("-USR1");
    until("the file", || file.exists().then_some(()));
    let mut client = Client::connect(quiet.address).unwrap();
    post(&mut client, "/marketplace", &event("acme", "grant"));
    quiet.stop();
    let (before, after) = (lines(&rotated), lines(&file));
    assert!(after.iter().any(|line| line["path"] == "/marketplace"));
    assert!(!before.iter().any(|line| line["path"] == "/marketplace"));
    let told = before.iter().chain(&after).filter(|line| line["event"] == "listening");
    assert_eq!(told.count(), 1, "held back or not, no line is lost between the two");
}

#[test]
fn every_line_of_a_request_has_its_ids_and_who_named_a_trace_is_told_them() {
    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut client = client(tai.address());
    let mut told = Vec::new();
    for (headers, trace) in [
        (&[][..], None),
        (&[("X-Trace-Id", "order-4711")][..], Some("order-4711")),
        (&[("traceparent", PARENT)], Some("4bf92f3577b34da6a3ce929d0e0e4736")),
        (&[("traceparent", PARENT), ("X-Trace-Id", "order-4712")], Some("order-4712")),
        (&[("traceparent", "00-0-0-0"), ("X-Trace-Id", "no id, this")], None),
    ] {
        for path in ["/receipts", "/nowhere"] {
            let answer = client.request("GET", path, headers, b"").unwrap();
            assert_eq!(answer.header("x-trace-id"), trace, "{path} {headers:?}");
            assert_eq!(answer.header("x-span-id").is_some(), trace.is_some());
            let request = answer.header("x-request-id").unwrap().to_owned();
            let span = answer.header("x-span-id").map(str::to_owned);
            told.push((request, trace, span));
        }
    }
    let lines = until("the lines", || {
        let text = tai.log_lines();
        let lines: Vec<Value> =
            text.iter().filter_map(|it| serde_json::from_str(it).ok()).collect();
        let of = |id: &str| lines.iter().find(|line| line["request_id"] == id).cloned();
        told.iter().map(|(request, ..)| of(request)).collect::<Option<Vec<Value>>>()
    });
    let is_hex =
        |id: &str, digits| id.len() == digits && id.bytes().all(|it| it.is_ascii_hexdigit());
    let mut spans = std::collections::BTreeSet::new();
    for (line, (_, trace, span)) in lines.iter().zip(&told) {
        let (its_trace, its_span) =
            (line["traceId"].as_str().unwrap(), line["spanId"].as_str().unwrap());
        assert!(trace.map_or(is_hex(its_trace, 32), |trace| trace == its_trace), "{line}");
        assert!(
            is_hex(its_span, 16) && span.as_deref().is_none_or(|span| span == its_span),
            "{line}"
        );
        assert!(spans.insert(its_span), "each request has a span of its own");
    }
    stop(tai);
}

#[test]
fn a_trace_goes_on_to_the_provider_that_answers() {
    let provider = Provider::start().unwrap();
    let house = House::start(&[("one", Vendor::OpenAi, &provider)], "", &[]);
    for call in [chat("one/gpt-4o-mini"), streamed("one/gpt-4o-mini")] {
        let mut caller = house.local().with("X-Trace-Id", TRACE_ID);
        let answer = caller.post("/v1/chat/completions", &call);
        assert_eq!(answer.status, 200);
        let span = answer.header("x-span-id").unwrap();
        let asked = provider.books().entries.back().unwrap().clone();
        let sent = asked.headers.iter().find(|(name, _)| name == "traceparent").unwrap();
        assert_eq!(sent.1, format!("00-{}-{span}-00", TRACE_ID.replace('-', "")));
        assert!(!asked.headers.iter().any(|(_, value)| value == TRACE_ID));
    }
    stop(house.tai);
}
