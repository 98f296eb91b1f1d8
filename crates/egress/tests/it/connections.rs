//! Which connections are used, kept and closed, and what is written on them.

use std::sync::Arc;
use std::time::Duration;

use engine::outbound::Attempt;
use tokio::sync::{Notify, mpsc};

use crate::server::{OK, Server};
use crate::world::{World, attempt, read};

#[tokio::test]
async fn a_connection_is_used_again_when_its_answer_was_read() {
    let server = Server::answering(OK).await;
    let world = World::new(&server);
    for _ in 0..5 {
        assert_eq!(world.call().await.unwrap(), "{}");
    }
    assert_eq!(server.accepted(), 1);
    world.scraped(r#"egress_attempts_total{dependency="model",outcome="answered"} 5"#);
    world.scraped(r#"service_latency_histogram_count{service="model"} 5"#);
}

#[tokio::test]
async fn a_chunked_answer_gives_its_connection_back_too() {
    let server = Server::answering(
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\nx-end: 1\r\n\r\n",
    )
    .await;
    let world = World::new(&server);
    for _ in 0..3 {
        assert_eq!(world.call().await.unwrap(), "abcde");
    }
    assert_eq!(server.accepted(), 1);
}

#[tokio::test]
async fn an_answer_without_a_length_ends_with_its_connection() {
    let server = Server::closing("HTTP/1.1 200 OK\r\n\r\nto the end").await;
    let world = World::new(&server);
    assert_eq!(world.call().await.unwrap(), "to the end");
    assert_eq!(world.call().await.unwrap(), "to the end");
    assert_eq!(server.accepted(), 2);
}

#[tokio::test]
async fn head_and_body_leave_in_one_write() {
    let (pieces, mut seen) = mpsc::channel(1);
    let server = Server::start(move |mut line, _| {
        let pieces = pieces.clone();
        async move {
            pieces.send(line.piece().await).await.unwrap();
            line.send(OK).await;
            line.hang().await;
        }
    })
    .await;
    let world = World::new(&server);
    let sent = Attempt {
        headers: vec![("authorization", "Bearer k".to_owned()), ("Accept", "image/gif".to_owned())],
        ..attempt()
    };
    world.send(sent).await.unwrap();
    let piece = seen.recv().await.unwrap();
    let (head, body) = piece.split_once("\r\n\r\n").unwrap();
    let mut lines: Vec<&str> = head.lines().collect();
    assert_eq!(lines.remove(0), "POST /v1/chat HTTP/1.1");
    lines.sort_unstable();
    let host = format!("host: {}", server.address);
    let agent = concat!("user-agent: tai/", env!("CARGO_PKG_VERSION"));
    let expected = [
        "accept: application/json, text/event-stream",
        "authorization: Bearer k",
        "content-length: 7",
        "content-type: application/json",
        &host,
        agent,
    ];
    assert_eq!(lines, expected);
    assert_eq!(body, "{\"q\":1}");
}

#[tokio::test]
async fn a_connection_that_died_idle_is_replaced() {
    let (close, closed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let told = (Arc::clone(&close), Arc::clone(&closed));
    let server = Server::start(move |mut line, number| {
        let (close, closed) = told.clone();
        async move {
            line.answer(OK).await;
            if number == 0 {
                close.notified().await;
                drop(line);
                closed.notify_one();
            } else {
                line.hang().await;
            }
        }
    })
    .await;
    let world = World::new(&server);
    world.call().await.unwrap();
    // Not before: a connection that is closed when its answer ends is not kept at all.
    close.notify_one();
    closed.notified().await;
    // Lets the runtime look at its sockets; the close is there, but has not been seen.
    tokio::task::yield_now().await;
    assert_eq!(world.call().await.unwrap(), "{}");
    assert_eq!(server.accepted(), 2);
    assert_eq!(world.failures(), 0);
}

#[tokio::test]
async fn a_dropped_body_closes_its_connection() {
    let closed = Arc::new(Notify::new());
    let tell = Arc::clone(&closed);
    let server = Server::start(move |mut line, _| {
        let tell = Arc::clone(&tell);
        async move {
            line.answer("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome").await;
            line.until_closed().await;
            tell.notify_one();
        }
    })
    .await;
    let world = World::new(&server);
    let mut reply = world.send(attempt()).await.unwrap();
    assert_eq!(reply.body.chunk().await.unwrap().unwrap(), "some");
    assert_eq!(world.state().in_flight, 1);
    world.scraped(r#"egress_in_flight{dependency="model"} 1"#);
    drop(reply);
    assert_eq!(world.state().in_flight, 0);
    world.scraped(r#"egress_in_flight{dependency="model"} 0"#);
    closed.notified().await;
    assert_eq!(world.failures(), 0);
}

#[tokio::test]
async fn a_caller_that_does_not_wait_for_the_head_closes_it_too() {
    let (arrived, closed) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let tell = (Arc::clone(&arrived), Arc::clone(&closed));
    let server = Server::start(move |mut line, _| {
        let (arrived, closed) = tell.clone();
        async move {
            line.request().await.unwrap();
            arrived.notify_one();
            line.until_closed().await;
            closed.notify_one();
        }
    })
    .await;
    let world = World::new(&server);
    tokio::select! {
        _ = world.send(attempt()) => panic!("nobody answers"),
        () = arrived.notified() => {}
    }
    closed.notified().await;
    let state = world.state();
    assert_eq!((state.in_flight, state.failures), (0, 0));
}

#[tokio::test]
async fn a_redirect_is_an_answer_like_any_other() {
    let server = Server::answering(
        "HTTP/1.1 307 Elsewhere\r\nlocation: http://169.254.169.254/\r\ncontent-length: 0\r\nretry-after: 3\r\ncontent-type: Text/HTML; x=y\r\n\r\n",
    )
    .await;
    let world = World::new(&server);
    let mut reply = world.send(attempt()).await.unwrap();
    assert_eq!(reply.status, 307);
    assert_eq!(reply.retry_after, Some(Duration::from_secs(3)));
    assert_eq!(reply.content_type, "text/html");
    assert_eq!(read(&mut *reply.body).await.unwrap(), "");
}

/// Bytes that the server gets rid of while nobody reads them: what the systems of both sides hold,
/// and a buffer. The sender's side alone may hold 4 MiB.
const HELD_MAX: usize = 8 * 1024 * 1024;

#[tokio::test]
async fn a_stream_that_nobody_reads_holds_its_sender_back() {
    let (sent, mut seen) = tokio::sync::watch::channel(0);
    let server = Server::start(move |mut line, _| {
        let sent = sent.clone();
        async move {
            let piece = "x".repeat(64 * 1024);
            line.answer("HTTP/1.1 200 OK\r\n\r\n").await;
            for _ in 0..4 * HELD_MAX / piece.len() {
                line.send(&piece).await;
                sent.send_modify(|sent| *sent += piece.len());
            }
        }
    })
    .await;
    let world = World::new(&server);
    let mut reply = world.send(attempt()).await.unwrap();
    reply.body.chunk().await.unwrap().unwrap();
    // Nothing tells that a sender is stuck but that it stays so.
    while tokio::time::timeout(Duration::from_millis(200), seen.changed()).await.is_ok() {}
    let held = *seen.borrow();
    assert!(held < HELD_MAX, "{held}");
    let rest = read(&mut *reply.body).await.unwrap();
    assert!(rest.len() > 3 * HELD_MAX, "the rest is there when it is asked for");
}
