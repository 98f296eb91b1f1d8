//! The accept loop.
//!
//! Owns: connections, their limits and their graceful end. Refuses to know: requests.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use engine::supervise::{Stop, Worker};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::Gateway;
use crate::routes::router;

/// A request's head must arrive within this time, the first and each later one on a connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// The wait after a failed accept, such as one for want of file descriptors.
const ACCEPT_BACKOFF: Duration = Duration::from_millis(50);

/// The supervised worker of `tai_http`. The listener is bound before, so that a restart of the
/// subsystem never loses the port.
#[must_use]
pub fn worker(gateway: Arc<Gateway>, listener: TcpListener) -> Worker {
    let listener = Arc::new(listener);
    Worker::task("accept", move |stop| accept(Arc::clone(&gateway), Arc::clone(&listener), stop))
}

async fn accept(gateway: Arc<Gateway>, listener: Arc<TcpListener>, mut stop: Stop) {
    let service = TowerToHyperService::new(router(&gateway));
    let places = Arc::new(Semaphore::new(gateway.options.connections_max));
    let graceful = GracefulShutdown::new();
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).keep_alive(true);
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
        let stream = match accepted.and_then(|(stream, _)| prepared(stream)) {
            Ok(stream) => stream,
            Err(error) => {
                tracing::warn!(event = "accept_failed", %error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_BACKOFF).await;
                continue;
            }
        };
        let connection = http.serve_connection(TokioIo::new(stream), service.clone());
        let connection = graceful.watch(connection);
        let open = Open::new(&gateway);
        #[expect(clippy::disallowed_methods, reason = "watched and drained by `graceful`")]
        tokio::spawn(async move {
            let (_open, _place) = (open, place);
            // A connection that breaks is the peer's business; requests log their own failures.
            let _ = connection.await;
        });
    }
    let drained = tokio::time::timeout(gateway.options.drain_timeout, graceful.shutdown()).await;
    if drained.is_err() {
        tracing::warn!(event = "drain_connections", "connections were cut at the drain deadline");
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
