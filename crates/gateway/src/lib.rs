//! The front door: HTTP in, one call to the engine, HTTP out.
//!
//! Owns: the route table, limits on connections, bodies and time, request ids, the error envelope
//! and `/health`. Refuses to know: SQL, files, and why anything is decided. A handler parses,
//! calls the engine and renders.

mod answer;
mod body;
mod health;
mod marketplace;
mod pubsub;
mod receipts;
mod routes;
mod search;
mod serve;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dialect::JsonLimits;
use engine::Engine;
use governors::Rules;
use telemetry::metrics::Metrics;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

pub use routes::{ROUTES, Route};
pub use serve::worker;

/// Searches that run at once. They read, hash and render far more than any other request, and must
/// not take the machine from decisions.
const SEARCHES_MAX: usize = 2;

/// Limits and facts of the front door.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connections at once; further ones wait in the listen backlog.
    pub connections_max: usize,
    /// Requests in work at once; further ones are answered 503.
    pub requests_max: usize,
    /// Bytes of a body.
    pub body_max_bytes: usize,
    /// From the request's head to its answer.
    pub request_timeout: Duration,
    /// How long connections may finish their work once asked to stop.
    pub drain_timeout: Duration,
    /// False answers 404 on `/metrics`.
    pub metrics_enabled: bool,
    /// Settings that give up a guarantee: named in `/health`, which turns yellow.
    pub relaxed: Vec<&'static str>,
}

/// The front door's parts.
pub struct Gateway {
    engine: Engine,
    rules: Arc<Rules>,
    metrics: Arc<Metrics>,
    options: Options,
    json: JsonLimits,
    searches: Arc<Semaphore>,
    in_flight: AtomicUsize,
    /// Bound once: a restart of the subsystem takes it again, and never loses the port.
    listener: Mutex<Option<Arc<TcpListener>>>,
    closing: AtomicBool,
    /// Where the door is.
    pub address: SocketAddr,
}

impl Gateway {
    /// A front door for `engine` that listens at `address`.
    #[must_use]
    pub fn new(
        engine: Engine,
        rules: Arc<Rules>,
        metrics: Arc<Metrics>,
        options: Options,
        address: SocketAddr,
    ) -> Gateway {
        Gateway {
            engine,
            rules,
            metrics,
            options,
            json: JsonLimits::default(),
            searches: Arc::new(Semaphore::new(SEARCHES_MAX)),
            in_flight: AtomicUsize::new(0),
            listener: Mutex::new(None),
            closing: AtomicBool::new(false),
            address,
        }
    }

    /// Closes the door for good, as soon as its subsystem is asked to stop: connections are
    /// refused from then on, and answers on open ones say that they are the last.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.lock_listener().take();
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    fn lock_listener(&self) -> MutexGuard<'_, Option<Arc<TcpListener>>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
