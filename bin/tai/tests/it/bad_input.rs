//! Input that is wrong in form: the right 4xx, and nothing else happens.
//!
//! Owns: that no row of the table is answered with a 5xx, comes back in an answer or in the log,
//! harms the process or disappears from the counts. Refuses to know: the rows, which stand beside.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use serde_json::Value;
use testkit::http::{Client, Response};

use self::rows::{FORMAT, MARKET, Row};
use crate::door::assert_envelope;
use crate::support::*;

mod rows;

/// Stands in every value that is wrong, and must be seen nowhere again.
const MARKER: &str = "zq7marker9xk";

#[test]
fn every_mistake_of_a_caller_gets_its_4xx() {
    let (_room, dir) = room();
    let tai = start(&dir, &[("REQUEST_TIMEOUT_MS", "3000")]);
    let address = tai.address();
    let slow = thread::spawn(move || slow_body(address));
    let mut client = client(address);
    let rows = rows::all();
    assert!(rows.len() > 250, "{}", rows.len());

    let mut counts: BTreeMap<(String, String), i64> = BTreeMap::new();
    for row in &rows {
        let headers: Vec<(&str, &str)> =
            row.headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let response = client.request(row.method, &row.path, &headers, &row.body).unwrap();
        check(row, &response);
        if row.status != 200 && response.header("x-receipt-id").is_none() {
            *counts.entry((row.reason.to_owned(), endpoint(row))).or_default() += 1;
        }
    }
    for body in [slow.join().unwrap(), cut_body(address)] {
        let (reason, count) = (body["reason"].as_str().unwrap().to_owned(), MARKET.to_owned());
        *counts.entry((reason, count)).or_default() += 1;
    }
    assert_eq!(get(&mut client, "/health").status, 200);
    assert_eq!(tai.errors(), Vec::<String>::new());
    let log = || tai.log_lines().join("\n").to_lowercase();
    until("the log of the last request", || log().contains("/health").then_some(()));
    assert!(!log().contains(MARKER), "a value came into the log");

    let room = tempfile::tempdir().unwrap();
    stop(tai);
    assert_verified(&dir);
    let file = room.path().join("edge.jsonl");
    let file = file.to_str().unwrap();
    let export = tai_export(&dir, file);
    let mut found: BTreeMap<(String, String), i64> = BTreeMap::new();
    for receipt in export {
        let text = |field: &str| receipt[field].as_str().unwrap().to_owned();
        let key = (text("reason"), text("subject"));
        *found.entry(key).or_default() += receipt["metadata"]["count"].as_i64().unwrap();
    }
    assert_eq!(found, counts, "no refusal is lost");
}

fn tai_export(dir: &std::path::Path, file: &str) -> Vec<Value> {
    let said = tai(dir, &["ledger", "export", "--stream", "_edge", "--to", file]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    receipts_of(&std::fs::read_to_string(file).unwrap())
}

/// The route under which the service counts a row.
fn endpoint(row: &Row) -> String {
    let path = row.path.split('?').next().unwrap();
    match row.reason {
        "method_not_allowed" => "unmatched".to_owned(),
        "not_found" if path == "/receipts/" => path.to_owned(),
        "not_found" if path.starts_with("/receipts/") && path.matches('/').count() == 2 => {
            "/receipts/{id}".to_owned()
        }
        "not_found" => "unmatched".to_owned(),
        _ => path.to_owned(),
    }
}

fn check(row: &Row, response: &Response) {
    let shown = String::from_utf8_lossy(&response.body).into_owned();
    assert_eq!(response.status, row.status, "{}: {shown}", row.name);
    assert!(!shown.to_lowercase().contains(MARKER), "{}: the value came back: {shown}", row.name);
    for (name, value) in &response.headers {
        assert!(!value.to_lowercase().contains(MARKER), "{}: {name}: {value}", row.name);
    }
    if row.reason.is_empty() {
        receipt_id(response);
    } else {
        assert_envelope(response, row.reason);
        let body = response.json().unwrap();
        assert_eq!(body["retryable"], false, "{}", row.name);
    }
}

/// The head, the start of a body, and then nothing: the service stops waiting and says so.
fn slow_body(address: SocketAddr) -> Value {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "POST /marketplace HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 100\r\n\r\n{\"customer_id\"";
    stream.write_all(head.as_bytes()).unwrap();
    let body = refusal_of(&mut stream, "408");
    assert_eq!(body["reason"], "request_timeout");
    body
}

/// A chunked body that ends inside a chunk.
fn cut_body(address: SocketAddr) -> Value {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = "POST /marketplace HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Transfer-Encoding: chunked\r\n\r\n40\r\n{\"customer_id\"";
    stream.write_all(head.as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let body = refusal_of(&mut stream, "400");
    assert_eq!(body["reason"], FORMAT);
    body
}

fn refusal_of(stream: &mut TcpStream, status: &str) -> Value {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
    serde_json::from_str(body).unwrap()
}

/// Bytes that are not HTTP, or hardly: the connection ends or gets a 4xx, the next one works.
#[test]
fn bytes_that_are_no_http_harm_nobody() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let head =
        |lines: &str| format!("POST /marketplace HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n\r\n");
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("a word", format!("{MARKER}\r\n\r\n").into()),
        ("no version", b"GET /health\r\n\r\n".to_vec()),
        ("a future version", b"GET /health HTTP/9.9\r\n\r\n".to_vec()),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
        ("TLS", [b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".as_slice(), &[7; 512]].concat()),
        ("NUL bytes", vec![0; 4096]),
        ("line breaks", b"\r\n".repeat(10_000)),
        ("a header of 1 MiB", head(&format!("X-Big: {}", MARKER.repeat(90_000))).into()),
        ("10000 headers", head(&"X-Many: 1\r\n".repeat(10_000)).into()),
        ("a path of 1 MiB", format!("GET /{} HTTP/1.1\r\n\r\n", "a".repeat(1 << 20)).into()),
        ("a header without a name", head(": x").into()),
        ("a header with NUL", head("X-A: a\0b").into()),
        ("a length that is none", head("Content-Length: -5").into()),
        ("two lengths", head("Content-Length: 2\r\nContent-Length: 3").into()),
        ("a chunk size that is none", (head("Transfer-Encoding: chunked") + "zz\r\n").into()),
        (
            "a huge chunk",
            (head("Transfer-Encoding: chunked\r\nContent-Type: application/json")
                + "fffffffffffffffff\r\n")
                .into(),
        ),
        ("an unknown coding", head("Transfer-Encoding: gzip").into()),
    ];
    for (name, bytes) in table {
        let mut stream = TcpStream::connect(tai.address()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        // It may hang up while we still write.
        let _ = stream.write_all(&bytes);
        let _ = stream.shutdown(Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        let answer = String::from_utf8_lossy(&answer);
        assert!(
            answer.is_empty()
                || answer.starts_with("HTTP/1.1 4")
                || answer.starts_with("HTTP/1.0 4"),
            "{name}: {answer}"
        );
        assert!(!answer.contains(MARKER), "{name}: {answer}");
        assert_eq!(get(&mut client(tai.address()), "/health").status, 200, "{name}");
    }
    // Too large even to be thrown away: the connection is cut, with or without its answer.
    let mut greedy = Client::connect(tai.address()).unwrap();
    greedy.set_timeout(Duration::from_secs(20));
    if let Ok(response) = greedy.request("POST", MARKET, &[JSON], &vec![b' '; 24 << 20]) {
        assert_eq!(response.status, 413);
    }
    assert_eq!(get(&mut client(tai.address()), "/health").status, 200);
    assert!(!tai.log_lines().join("\n").contains(MARKER));
    stop(tai);
    assert_verified(&dir);
}
