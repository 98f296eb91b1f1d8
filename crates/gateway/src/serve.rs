//! The accept loop.
//!
//! Owns: connections, their limits and their graceful end. Refuses to know: requests.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use engine::supervise::{Stop, Worker};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::Gateway;
use crate::routes::router;

/// A request's head must arrive within this time, the first and each later one on a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
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
    let places = Arc::new(Semaphore::new(gateway.options.connections_max));
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
        tokio::time::sleep(LAST_CALL.min(gateway.options.drain_timeout)).await;
    }
    let drained = connections.graceful.shutdown();
    if tokio::time::timeout(gateway.options.drain_timeout, drained).await.is_err() {
        tracing::warn!(event = "drain_connections", "connections were cut at the drain deadline");
    }
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

/// What serves connections and ends them.
struct Connections {
    http: http1::Builder,
    service: TowerToHyperService<Router>,
    graceful: GracefulShutdown,
}

impl Connections {
    fn new(gateway: &Arc<Gateway>) -> Connections {
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).keep_alive(true);
        let service = TowerToHyperService::new(router(gateway));
        Connections { http, service, graceful: GracefulShutdown::new() }
    }

    fn serve(
        &self,
        gateway: &Arc<Gateway>,
        stream: TcpStream,
        place: Option<OwnedSemaphorePermit>,
    ) {
        let connection = self.http.serve_connection(TokioIo::new(stream), self.service.clone());
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
