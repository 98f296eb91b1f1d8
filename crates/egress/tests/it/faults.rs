//! What each misbehaviour is called, and whom it speaks against.

use std::sync::Arc;
use std::time::Duration;

use egress::{Dependency, Egress, Error, Policy};
use engine::outbound::{Attempt, Clock, Outbound as _, SendError, Verdict};
use telemetry::metrics::Metrics;
use tokio::net::TcpListener;
use tokio::sync::Notify;

use crate::server::{OK, Server};
use crate::world::{LONG, SHORT, World, attempt, clocked, dependency, read};

/// An answer that cannot be read to its end.
async fn broken(answer: &'static str) -> (SendError, World) {
    let server = Server::closing(answer).await;
    let world = World::new(&server);
    let error = world.call().await.unwrap_err();
    (error, world)
}

#[tokio::test]
async fn nobody_listens() {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let world = World::with(dependency(format!("http://{address}")), Policy::default());
    let error = world.failure(attempt()).await;
    assert_eq!(error, SendError::Connect);
    assert!(error.is_unsent());
    assert_eq!(world.failures(), 1);
    world.scraped(r#"egress_attempts_total{dependency="model",outcome="connect"} 1"#);
}

#[tokio::test]
async fn nobody_has_the_name() {
    let base =
        Dependency { is_private_allowed: true, ..dependency("http://nowhere.invalid".to_owned()) };
    let world = World::with(base, Policy::default());
    assert_eq!(world.failure(attempt()).await, SendError::Dns);
    assert_eq!(world.failures(), 1);
}

#[tokio::test]
async fn nobody_has_registered_it() {
    let server = Server::answering(OK).await;
    let world = World::new(&server);
    let stranger = Attempt { dependency: "stranger", ..attempt() };
    assert_eq!(world.failure(stranger).await, SendError::Dns);
    assert!(!world.egress.is_open_to("stranger"));
    assert!(!world.egress.force("stranger", None));
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn the_head_does_not_come() {
    let server = Server::start(|line, _| line.hang()).await;
    let world = World::new(&server);
    let error = world.failure(clocked(SHORT, LONG, LONG)).await;
    assert_eq!(error, SendError::Timeout(Clock::Head));
    assert!(!error.is_unsent());
    assert_eq!(world.failures(), 1);
    world.scraped(r#"egress_attempts_total{dependency="model",outcome="timeout"} 1"#);
}

#[tokio::test]
async fn a_deadline_that_was_nearer_than_the_head_clock_speaks_against_nobody() {
    let server = Server::start(|line, _| line.hang()).await;
    let world = World::new(&server);
    let error = world.failure(clocked(LONG, LONG, SHORT)).await;
    assert_eq!(error, SendError::Timeout(Clock::Deadline));
    let error = world.failure(clocked(LONG, LONG, Duration::ZERO)).await;
    assert_eq!(error, SendError::Timeout(Clock::Deadline));
    assert_eq!(world.failures(), 0);
    assert_eq!(server.accepted(), 1, "with no time left nothing is begun");
}

#[tokio::test]
async fn the_body_stops() {
    let server = Server::start(|mut line, _| async move {
        line.answer("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome").await;
        line.hang().await;
    })
    .await;
    let world = World::new(&server);
    let mut reply = world.send(clocked(LONG, SHORT, LONG)).await.unwrap();
    assert_eq!(reply.body.chunk().await.unwrap().unwrap(), "some");
    for _ in 0..2 {
        let error = reply.body.chunk().await.unwrap().unwrap_err();
        assert_eq!(error, SendError::Timeout(Clock::Gap), "and stays so");
    }
    reply.body.judge(Verdict::Good);
    assert_eq!(world.failures(), 1, "the body has judged itself");
}

#[tokio::test]
async fn the_gap_clock_begins_with_each_chunk() {
    let go = Arc::new(Notify::new());
    let heard = Arc::clone(&go);
    let server = Server::start(move |mut line, _| {
        let go = Arc::clone(&heard);
        async move {
            line.answer("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n").await;
            for _ in 0..4 {
                go.notified().await;
                line.send("x").await;
            }
        }
    })
    .await;
    let world = World::new(&server);
    // The clock stands still but for what the test moves it by; it would run ahead to the next
    // alarm whenever all tasks wait, were there not a thread that is busy.
    tokio::time::pause();
    let (end, busy) = std::sync::mpsc::channel::<()>();
    let thread = tokio::task::spawn_blocking(move || busy.recv());
    let gap = LONG / 6;
    let mut reply = world.send(clocked(LONG, gap, LONG)).await.unwrap();
    for _ in 0..4 {
        tokio::select! {
            biased;
            _ = reply.body.chunk() => panic!("nothing was sent"),
            () = std::future::ready(()) => {}
        }
        tokio::time::advance(gap * 3 / 4).await;
        go.notify_one();
        assert_eq!(reply.body.chunk().await.unwrap().unwrap(), "x");
    }
    assert!(reply.body.chunk().await.is_none());
    drop(end);
    thread.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn a_wait_that_was_given_up_and_begun_anew_is_one_wait() {
    let server = Server::start(|mut line, _| async move {
        line.answer("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome").await;
        line.hang().await;
    })
    .await;
    let world = World::new(&server);
    let mut reply = world.send(clocked(LONG, 2 * SHORT, LONG)).await.unwrap();
    reply.body.chunk().await.unwrap().unwrap();
    // Somebody who sends a sign of life to its own caller now and then.
    let error = loop {
        if let Ok(chunk) = tokio::time::timeout(SHORT, reply.body.chunk()).await {
            break chunk.unwrap().unwrap_err();
        }
    };
    assert_eq!(error, SendError::Timeout(Clock::Gap));
}

#[tokio::test]
async fn a_stream_without_end_ends_at_the_deadline() {
    let server = Server::start(|mut line, _| async move {
        line.answer("HTTP/1.1 200 OK\r\n\r\n").await;
        while line.send("more and more").await {}
    })
    .await;
    let world = World::new(&server);
    let mut reply = world.send(clocked(LONG, LONG, 20 * SHORT)).await.unwrap();
    let error = read(&mut *reply.body).await.unwrap_err();
    assert_eq!(error, SendError::Timeout(Clock::Deadline));
    assert_eq!(world.failures(), 0);
}

#[tokio::test]
async fn the_connection_breaks_off() {
    for answer in [
        "",
        "HTTP/1.1 200",
        "HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nso",
    ] {
        let (error, world) = broken(answer).await;
        assert_eq!(error, SendError::Reset, "{answer}");
        assert!(!error.is_unsent());
        assert_eq!(world.failures(), 1, "{answer}");
        assert_eq!(world.state().in_flight, 0, "{answer}");
    }
}

#[tokio::test]
async fn a_verdict_before_the_break_stands() {
    let server = Server::closing("HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome").await;
    let world = World::new(&server);
    let mut reply = world.send(attempt()).await.unwrap();
    reply.body.judge(Verdict::Good);
    assert_eq!(read(&mut *reply.body).await.unwrap_err(), SendError::Reset);
    reply.body.judge(Verdict::Bad);
    assert_eq!(world.failures(), 0);
}

#[tokio::test]
async fn what_comes_is_not_http() {
    for answer in [
        "220 mail.example ESMTP ready\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\nsome\r\n",
    ] {
        let (error, world) = broken(answer).await;
        assert_eq!(error, SendError::Protocol, "{answer}");
        assert_eq!(world.failures(), 1, "{answer}");
    }
}

#[tokio::test]
async fn a_head_without_end_is_not_read_to_its_end() {
    let server = Server::start(|mut line, _| async move {
        line.answer("HTTP/1.1 200 OK\r\nx: ").await;
        while line.send(&"x".repeat(8 * 1024)).await {}
    })
    .await;
    let world = World::new(&server);
    assert_eq!(world.failure(attempt()).await, SendError::Protocol);
    assert_eq!(world.failures(), 1);
}

#[tokio::test]
async fn a_request_that_cannot_be_written_is_nobodys_fault() {
    let server = Server::answering(OK).await;
    let world = World::new(&server);
    for attempt in [
        Attempt { path: "chat".to_owned(), ..attempt() },
        Attempt { path: "/a b".to_owned(), ..attempt() },
        Attempt { headers: vec![("x", "a\r\nhost: evil".to_owned())], ..attempt() },
        Attempt { headers: vec![("x y", "z".to_owned())], ..attempt() },
    ] {
        let base = World::with(dependency(format!("http://{}", server.address)), Policy::default());
        assert_eq!(base.failure(attempt).await, SendError::Protocol);
        assert_eq!(base.failures(), 0);
    }
    assert_eq!(server.accepted(), 0);
    world.call().await.unwrap();
}

#[tokio::test]
async fn a_private_address_is_not_gone_to_whatever_its_name() {
    let server = Server::answering(OK).await;
    let port = server.address.port();
    for host in ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]"] {
        let base = dependency(format!("https://{host}:{port}"));
        let world =
            World::trusting(base, Policy::default(), crate::tls::identity(host).1.as_bytes());
        assert_eq!(world.failure(attempt()).await, SendError::Connect, "{host}");
    }
    assert_eq!(server.accepted(), 0);
}

#[tokio::test]
async fn plain_http_does_not_leave_the_inside() {
    let base = Dependency {
        is_private_allowed: true,
        connect: SHORT,
        ..dependency("http://8.8.8.8".to_owned())
    };
    let world = World::with(base, Policy::default());
    assert_eq!(world.failure(attempt()).await, SendError::Connect, "and no clock has run out");
}

#[test]
fn what_cannot_be_registered_is_named() {
    let new = |dependencies: &[Dependency]| {
        let metrics = Metrics::new().unwrap();
        Egress::new(dependencies, Policy::default(), &[], &metrics).err().unwrap()
    };
    let good = dependency("http://127.0.0.1:1".to_owned());
    let bad = |base: &str| Dependency { name: "bad", ..dependency(base.to_owned()) };
    for base in ["http://example.com", "https://user:pw@example.com", "example.com", ""] {
        let error = new(&[good.clone(), bad(base)]);
        assert!(matches!(error, Error::Base { name: "bad", .. }), "{base}: {error}");
        assert!(!error.to_string().contains("pw"));
    }
    assert!(matches!(new(&[good.clone(), good.clone()]), Error::Twice { name: "model" }));
    let none = Dependency { in_flight_max: 0, ..good };
    assert!(matches!(new(&[none]), Error::NoPlaces { name: "model" }));
}
