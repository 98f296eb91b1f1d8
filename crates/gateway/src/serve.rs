//! The accept loop.
//!
//! Owns: connections, their limits and their graceful end. Refuses to know: requests.

use std::io;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use engine::supervise::{Stop, Worker};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Gateway;
use crate::routes::{Peer, router};

/// A request's head must arrive within this time, the first and each later one on a connection.
/// An idle connection is one whose next head does not come, and is closed by the same clock, so
/// that silent callers cannot hold all places for long.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// What is buffered for one connection, and so the longest head. The library's own limit is twelve
/// times that, for each of thousands of connections.
const BUFFER_MAX_BYTES: usize = 32 << 10;
/// File descriptors that are left to the store, its log and the standard streams.
const FDS_KEPT: u64 = 64;
/// The wait after a failed accept, such as one for want of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// How long open connections are still served once the door is closed. Each answer says that it is
/// the last, so that a request which was on its way when the stop came is read and answered, and
/// not met by a closed connection.
const LAST_CALL: Duration = Duration::from_millis(200);

/// The supervised worker of `tai_http`. The listener is bound before, so that a restart of the
/// subsystem never loses the port.
#[must_use]
pub fn worker(gateway: Arc<Gateway>, listener: TcpListener) -> Worker {
    *gateway.lock_listener() = Some(Arc::new(listener));
    Worker::task("accept", move |stop| accept(Arc::clone(&gateway), stop))
}

async fn accept(gateway: Arc<Gateway>, mut stop: Stop) {
    let Some(listener) = gateway.lock_listener().clone() else { return stop.asked().await };
    let connections = Connections::new(&gateway);
    let places = Arc::new(Semaphore::new(connections_max(gateway.options().connections_max)));
    loop {
        let next = async {
            // A closed semaphore cannot happen: nobody closes it.
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            () = stop.asked() => break,
            next = next => next,
        };
        match accepted.and_then(|(stream, _)| prepared(stream)) {
            Ok(stream) => connections.serve(&gateway, stream, place.ok()),
            Err(error) => {
                tracing::warn!(event = "accept_failed", %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
            }
        }
    }
    // The last holder closes it: on a restart the gateway holds it as well.
    if let Some(listener) = Arc::into_inner(listener) {
        for stream in waiting(listener) {
            connections.serve(&gateway, stream, None);
        }
        tokio::time::sleep(LAST_CALL.min(gateway.options().drain_timeout)).await;
    }
    let drained = connections.graceful.shutdown();
    if tokio::time::timeout(gateway.options().drain_timeout, drained).await.is_err() {
        tracing::warn!(event = "drain_connections", "connections were cut at the drain deadline");
    }
}

/// How many connections are taken at once: never so many that a file of the store could not be
/// opened for want of a descriptor.
fn connections_max(wanted: usize) -> usize {
    let fds = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let allowed = affordable(wanted, fds);
    if allowed < wanted {
        tracing::info!(
            event = "connections_clamped",
            wanted,
            allowed,
            "the limit of open files allows fewer connections than are set"
        );
    }
    allowed
}

/// `fds` is `None` where descriptors are not limited.
fn affordable(wanted: usize, fds: Option<u64>) -> usize {
    let Some(fds) = fds else { return wanted };
    let left = usize::try_from(fds.saturating_sub(FDS_KEPT)).unwrap_or(usize::MAX);
    wanted.min(left.max(1))
}

/// Connections that were made before the door was closed and not taken yet. They may have sent
/// their request already.
fn waiting(listener: TcpListener) -> Vec<TcpStream> {
    let Ok(listener) = listener.into_std() else { return Vec::new() };
    let take = || {
        let (stream, _) = listener.accept().ok()?;
        stream.set_nonblocking(true).ok()?;
        prepared(TcpStream::from_std(stream).ok()?).ok()
    };
    std::iter::from_fn(take).collect()
}

fn protocol() -> http1::Builder {
    let mut http = http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).keep_alive(true);
    http.max_buf_size(BUFFER_MAX_BYTES);
    http
}

/// What serves connections and ends them.
struct Connections {
    http: http1::Builder,
    router: Router,
    graceful: GracefulShutdown,
}

impl Connections {
    fn new(gateway: &Arc<Gateway>) -> Connections {
        Connections { http: protocol(), router: router(gateway), graceful: GracefulShutdown::new() }
    }

    fn serve(
        &self,
        gateway: &Arc<Gateway>,
        stream: TcpStream,
        place: Option<OwnedSemaphorePermit>,
    ) {
        // A peer that is gone already has no address and will read no answer.
        let peer = stream.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
        let service = TowerToHyperService::new(self.router.clone().layer(Extension(Peer(peer))));
        let connection = self.http.serve_connection(TokioIo::new(stream), service);
        let connection = self.graceful.watch(connection);
        let open = Open::new(gateway);
        #[expect(clippy::disallowed_methods, reason = "watched and drained by `graceful`")]
        tokio::spawn(async move {
            let (_open, _place) = (open, place);
            // A connection that breaks is the peer's business; requests log their own failures.
            let _ = connection.await;
        });
    }
}

/// Answers are written whole: waiting for more to send would only add delay.
fn prepared(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    Ok(stream)
}

struct Open(Arc<Gateway>);

impl Open {
    fn new(gateway: &Arc<Gateway>) -> Open {
        gateway.metrics.http_active_connections.inc();
        Open(Arc::clone(gateway))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.metrics.http_active_connections.dec();
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::Instant;

    use super::*;

    /// What a connection answers to `sent` when no more follows, and how long it stays open.
    async fn answered(sent: &[u8]) -> (String, Duration) {
        let (mut near, far) = tokio::io::duplex(1 << 20);
        near.write_all(sent).await.unwrap();
        let started = Instant::now();
        let service = TowerToHyperService::new(Router::new());
        let _ = protocol().serve_connection(TokioIo::new(far), service).await;
        let took = started.elapsed();
        let mut text = String::new();
        near.read_to_string(&mut text).await.unwrap();
        (text, took)
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_does_not_come_ends_the_connection_soon() {
        for sent in ["", "GET / HTTP/1.1\r\nhost: a", "GET / HTTP/1.1\r\nhost: a\r\n\r\n"] {
            let (_, took) = answered(sent.as_bytes()).await;
            let range = HEAD_TIMEOUT..=Duration::from_secs(11);
            assert!(range.contains(&took), "{sent:?} held its place for {took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_longer_than_the_buffer_is_refused_and_a_long_one_is_read() {
        let head = |bytes: usize| {
            let long = "a".repeat(bytes);
            format!("GET / HTTP/1.1\r\nhost: a\r\nx: {long}\r\nconnection: close\r\n\r\n")
        };
        let (text, _) = answered(head(BUFFER_MAX_BYTES / 2).as_bytes()).await;
        assert!(text.starts_with("HTTP/1.1 404"), "{text}");
        let (text, took) = answered(head(2 * BUFFER_MAX_BYTES).as_bytes()).await;
        assert!(text.starts_with("HTTP/1.1 431"), "{text}");
        assert_eq!(took, Duration::ZERO);
    }

    #[test]
    fn connections_leave_descriptors_to_the_store() {
        for (wanted, fds, allowed) in [
            (4_096, None, 4_096),
            (4_096, Some(1 << 20), 4_096),
            (4_096, Some(4_096 + 64), 4_096),
            (4_096, Some(4_096 + 63), 4_095),
            (4_096, Some(1_024), 960),
            (4_096, Some(64), 1),
            (4_096, Some(0), 1),
        ] {
            assert_eq!(affordable(wanted, fds), allowed, "{wanted} of {fds:?}");
        }
    }
}
