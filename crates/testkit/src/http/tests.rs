//! Tests of the client, against a server that says what the test wrote down.

use std::net::{Ipv4Addr, Shutdown, TcpListener};
use std::thread::JoinHandle;

use super::*;

/// Each inner list is one connection: what it answers to each request in turn, before it closes.
/// The handle gives the bytes received per request.
fn server(script: &[&[&'static str]]) -> (SocketAddr, JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let script: Vec<Vec<&str>> = script.iter().map(|answers| answers.to_vec()).collect();
    let thread = std::thread::spawn(move || {
        let mut requests = Vec::new();
        for answers in script {
            let (mut stream, _) = listener.accept().unwrap();
            for answer in answers {
                let mut bytes = vec![0; 64 * 1024];
                let read = stream.read(&mut bytes).unwrap();
                requests.push(String::from_utf8(bytes[..read].to_vec()).unwrap());
                stream.write_all(answer.as_bytes()).unwrap();
            }
            stream.shutdown(Shutdown::Both).unwrap();
        }
        requests
    });
    (address, thread)
}

#[test]
fn one_connection_carries_all_kinds_of_answers() {
    let (address, thread) = server(&[&[
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nX-Receipt-ID: rcpt_1\r\n\r\nhi",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\nTransfer-Encoding: chunked\r\n\r\n\
         3;x=y\r\nabc\r\n0a\r\n0123456789\r\n0\r\nTrailer: t\r\n\r\n",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
        "HTTP/1.1 400 Bad Request\r\n\r\nuntil the end",
    ]]);
    let mut client = Client::connect(address).unwrap();
    let first = client.request("GET", "/a?b=c", &[("X-Request-ID", "r1")], b"").unwrap();
    assert_eq!((first.status, first.body.as_slice()), (200, &b"hi"[..]));
    assert_eq!(first.header("x-receipt-id"), Some("rcpt_1"));
    assert_eq!(first.header("absent"), None);
    let chunked = client.request("POST", "/b", &[("Host", "h")], b"{}").unwrap();
    assert_eq!((chunked.status, chunked.body.as_slice()), (201, &b"abc0123456789"[..]));
    assert_eq!(client.request("DELETE", "/c", &[], b"").unwrap().status, 204);
    assert!(client.request("HEAD", "/d", &[], b"").unwrap().body.is_empty());
    let last = client.send_raw(b"nonsense\r\n\r\n").unwrap();
    assert_eq!((last.status, last.body.as_slice()), (400, &b"until the end"[..]));
    let requests = thread.join().unwrap();
    assert_eq!(
        requests[0],
        format!(
            "GET /a?b=c HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\nX-Request-ID: r1\r\n\r\n"
        )
    );
    assert_eq!(requests[1], "POST /b HTTP/1.1\r\nContent-Length: 2\r\nHost: h\r\n\r\n{}");
    assert_eq!(requests[4], "nonsense\r\n\r\n");
}

#[test]
fn a_closed_connection_is_opened_anew_for_the_next_request_only() {
    let (address, thread) = server(&[
        &["HTTP/1.1 503 Busy\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"],
        &["HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\ncut"],
        &["HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"],
    ]);
    let mut client = Client::connect(address).unwrap();
    let statuses: Vec<_> = (0..3)
        .map(|_| client.request("GET", "/", &[], b"").map(|response| response.status).ok())
        .collect();
    assert_eq!(statuses, [Some(503), None, Some(200)]);
    assert_eq!(thread.join().unwrap().len(), 3);
}

#[test]
fn an_answer_that_is_not_http_is_an_error() {
    for answer in [
        "",
        "HTTP/1.0 200 OK\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
    ] {
        let (address, thread) = server(&[&[answer]]);
        let mut client = Client::connect(address).unwrap();
        assert!(client.request("GET", "/", &[], b"").is_err(), "{answer:?}");
        thread.join().unwrap();
    }
}

#[test]
fn a_silent_server_is_given_up() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let mut client = Client::connect(address).unwrap();
    client.set_timeout(Duration::from_millis(20));
    let error = client.request("GET", "/", &[], b"").unwrap_err();
    assert!(error.to_string().contains("too long"), "{error:#}");
    drop(listener);
    assert!(client.request("GET", "/", &[], b"").is_err());
}

#[test]
fn an_answer_before_the_body_is_read_counts() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 16];
        stream.read_exact(&mut head).unwrap();
        stream.write_all(b"HTTP/1.1 413 Too Long\r\nContent-Length: 0\r\n\r\n").unwrap();
        // The rest is read but slowly, so that no reset overtakes the answer.
        std::io::copy(&mut stream, &mut std::io::sink()).unwrap();
    });
    let mut client = Client::connect(address).unwrap();
    let response = client.request("POST", "/", &[], &vec![b'x'; 2 * 1024 * 1024]).unwrap();
    assert_eq!(response.status, 413);
    drop(client);
    thread.join().unwrap();
}

#[test]
fn json_is_read_and_its_absence_explained() {
    let response = |body: &[u8]| Response { status: 500, headers: vec![], body: body.to_vec() };
    assert_eq!(response(b"{\"a\":1}").json().unwrap()["a"], 1);
    let error = response(b"<html>").json().unwrap_err();
    assert_eq!(error.to_string(), "status 500, not JSON: <html>");
}
