//! SIGTERM: what was begun is finished, what was not is refused, and the exit is clean.
//!
//! Owns: how a stop looks to clients and to the operator. Refuses to know: death without warning,
//! which `kills` has.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use testkit::tai::Tai;

use crate::support::*;

const CLIENTS: usize = 32;

/// How one request ended, for its sender.
#[derive(Debug, PartialEq, Eq)]
enum Ending {
    Answered {
        status: u16,
        receipt: Option<String>,
        last: bool,
    },
    /// Nobody took the connection: nothing was sent.
    NotConnected,
    /// The connection was closed before the first byte of an answer.
    Unanswered,
    /// The connection was closed within an answer.
    Cut(String),
}

/// One request on a stream that stays open, and the whole of its answer.
fn exchange(stream: &mut TcpStream, id: &str, body: &Value) -> Ending {
    let body = body.to_string();
    let request = format!(
        "POST /marketplace HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         X-Request-ID: {id}\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let sent = stream.write_all(request.as_bytes());
    read_answer(stream, sent.is_ok())
}

fn read_answer(stream: &mut TcpStream, sent: bool) -> Ending {
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        if let Some(ending) = complete(&answer) {
            return ending;
        }
        match stream.read(&mut buffer) {
            Ok(count) if count > 0 => answer.extend_from_slice(&buffer[..count]),
            _ if answer.is_empty() && !sent => return Ending::NotConnected,
            _ if answer.is_empty() => return Ending::Unanswered,
            _ => return Ending::Cut(String::from_utf8_lossy(&answer).into_owned()),
        }
    }
}

fn complete(answer: &[u8]) -> Option<Ending> {
    let text = String::from_utf8_lossy(answer);
    let (head, body) = text.split_once("\r\n\r\n")?;
    let header = |name: &str| {
        head.lines().find_map(|line| {
            let (sent, value) = line.split_once(':')?;
            sent.eq_ignore_ascii_case(name).then(|| value.trim().to_owned())
        })
    };
    let length: usize = header("content-length")?.parse().ok()?;
    let status = head.split(' ').nth(1)?.parse().ok()?;
    let last = header("connection").is_some_and(|value| value == "close");
    let receipt = header("x-receipt-id");
    (body.len() >= length).then_some(Ending::Answered { status, receipt, last })
}

fn connect(address: SocketAddr) -> Option<TcpStream> {
    let stream = TcpStream::connect(address).ok()?;
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Some(stream)
}

/// Asks until the service is gone. Half of the clients open a connection for each request.
fn ask_until_gone(address: SocketAddr, name: usize, answered: &AtomicUsize) -> Vec<Ending> {
    let mut endings = Vec::new();
    let mut stream = connect(address);
    for number in 0.. {
        let Some(open) = &mut stream else {
            endings.push(Ending::NotConnected);
            break;
        };
        let tenant = format!("tenant-{}", (name + number) % 40);
        let action = ["grant", "suspend", "resume"][number % 3];
        let ending = exchange(open, &format!("drain-{name}-{number}"), &event(&tenant, action));
        let Ending::Answered { last, .. } = ending else {
            endings.push(ending);
            break;
        };
        endings.push(ending);
        answered.fetch_add(1, Ordering::Relaxed);
        if last || name.is_multiple_of(2) {
            stream = connect(address);
        }
    }
    endings
}

fn assert_clean_exit(mut tai: Tai, within: Duration) {
    let status = tai.wait(within).unwrap();
    assert_eq!(status.code(), Some(0), "{:#?}", tai.log_lines());
    assert_eq!(tai.errors(), Vec::<String>::new());
    let lines = tai.log_lines();
    let last: Value = serde_json::from_str(lines.last().unwrap()).unwrap();
    assert_eq!(last["message"], "Shutdown complete");
}

#[test]
fn under_load_everything_in_flight_is_answered() {
    let (_room, dir) = room();
    let deadline = Duration::from_secs(10);
    let tai = start(&dir, &[("GRACEFUL_SHUTDOWN_MS", "10000")]);
    let (address, answered) = (tai.address(), AtomicUsize::new(0));
    let endings: Vec<Ending> = thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|name| {
                let answered = &answered;
                scope.spawn(move || ask_until_gone(address, name, answered))
            })
            .collect();
        until("a load", || (answered.load(Ordering::Relaxed) > 300).then_some(()));
        tai.terminate().unwrap();
        assert_clean_exit(tai, deadline);
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    });

    let receipts = assert_verified(&dir);
    let stored: BTreeSet<&str> = receipts.iter().filter_map(|it| it["id"].as_str()).collect();
    let mut acknowledged = BTreeSet::new();
    for ending in &endings {
        match ending {
            Ending::Answered { receipt: Some(id), .. } => {
                assert!(stored.contains(id.as_str()), "an acknowledged receipt is lost");
                acknowledged.insert(id.as_str());
            }
            Ending::Answered { status: 503, receipt: None, .. } | Ending::NotConnected => {}
            other => panic!("{other:?}"),
        }
    }
    let gone = endings.iter().filter(|ending| **ending == Ending::NotConnected).count();
    assert_eq!(gone, CLIENTS, "each client went on until the door was closed");
    let decided = receipts.iter().filter(|receipt| receipt["idem"].is_string()).count();
    assert_eq!(decided, acknowledged.len(), "a decision that nobody was told about");
    let stopped = receipts.iter().any(|it| it["stream"] == "_ops" && it["action"] == "stop");
    assert!(stopped, "the stop is on record");
}

/// The head of a request and half of its body.
fn half_a_request(address: SocketAddr) -> (TcpStream, &'static str) {
    let mut stream = connect(address).unwrap();
    let head = "POST /marketplace HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
                Content-Length: 22\r\n\r\n{\"customer_i";
    stream.write_all(head.as_bytes()).unwrap();
    (stream, "d\":\"late\"}")
}

#[test]
fn a_request_that_has_begun_is_finished_and_a_second_signal_changes_nothing() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let (mut stream, rest) = half_a_request(tai.address());
    until("the request is in work", || {
        let page = String::from_utf8(get(&mut client(tai.address()), "/metrics").body).unwrap();
        page.lines().any(|line| line == "tai_http_requests_in_flight 1").then_some(())
    });
    tai.terminate().unwrap();
    tai.wait_for_event("shutdown", PATIENCE).unwrap();
    tai.terminate().unwrap();
    let refused = until("the door closes", || TcpStream::connect(tai.address()).err());
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    stream.write_all(rest.as_bytes()).unwrap();
    let answer = read_answer(&mut stream, true);
    assert!(
        matches!(&answer, Ending::Answered { status: 200, receipt: Some(_), last: true }),
        "{answer:?}"
    );
    assert_clean_exit(tai, PATIENCE);
    assert_verified(&dir);
}

#[test]
fn an_idle_connection_holds_nothing_up() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut idle: Vec<_> = (0..10).map(|_| client(tai.address())).collect();
    idle.iter_mut().for_each(|client| assert_eq!(get(client, "/health").status, 200));
    let silent = connect(tai.address()).unwrap();
    let began = Instant::now();
    tai.terminate().unwrap();
    assert_clean_exit(tai, PATIENCE);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    drop(silent);
}

#[test]
fn a_log_rotation_signal_or_a_hangup_does_not_stop_the_service() {
    let (_room, dir) = room();
    let tai = start(&dir, &[]);
    let mut client = client(tai.address());
    for signal in ["-USR1", "-HUP"] {
        let pid = tai.pid().to_string();
        let sent = std::process::Command::new("kill").args([signal, &pid]).status().unwrap();
        assert!(sent.success());
        assert_eq!(get(&mut client, "/health").status, 200, "{signal}");
    }
    stop(tai);
    assert_verified(&dir);
}
