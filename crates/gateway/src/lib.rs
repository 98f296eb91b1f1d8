//! The front door: HTTP in, one call to the engine, HTTP out.
//!
//! Owns: the route table, limits on connections, bodies and time, request ids, the span of a
//! request, the error envelope and `/health`. Refuses to know: SQL, files, and why anything is
//! decided. A handler parses, calls the engine and renders.

mod admin;
mod ai;
mod answer;
mod body;
mod caller;
mod external;
mod health;
mod marketplace;
mod openapi;
pub mod process;
mod pubsub;
mod rate;
mod receipts;
mod routes;
mod search;
mod serve;
mod signature;
mod sources;
mod spans;
mod status;
mod table;
pub mod validation;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use dialect::JsonLimits;
use engine::Engine;
use telemetry::metrics::Metrics;
use telemetry::trace::Tracer;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use types::{Hash, Micros};

use rate::{Places, Rates};

pub use openapi::document as openapi_document;
pub use process::Process;
pub use rate::Rate;
pub use serve::worker;
pub use signature::Signatures;
pub use sources::{Blocked, canonical as canonical_source};
pub use status::StatusPage;
pub use table::{Access, ROUTES, Route};
pub use validation::Validation;

/// Searches that run at once. They read, hash and render far more than any other request, and must
/// not take the machine from decisions.
const SEARCHES_MAX: usize = 2;

/// Levels of JSON in a call to a model.
const AI_DEPTH_MAX: usize = 64;
/// Values and names in it: conversations are long.
const AI_NODES_MAX: usize = 500_000;

/// Limits and facts of the front door.
#[derive(Debug, Clone)]
pub struct Options {
    /// Connections at once; further ones wait in the listen backlog.
    pub connections_max: usize,
    /// Requests in work at once; further ones are answered 503.
    pub requests_max: usize,
    /// Bytes of a body.
    pub body_max_bytes: usize,
    /// Bytes of the body of a call to a model.
    pub ai_body_max_bytes: usize,
    /// From the request's head to its answer.
    pub request_timeout: Duration,
    /// The same for a call to a model, up to the first word of a stream.
    pub ai_timeout: Duration,
    /// How long connections may finish their work once asked to stop.
    pub drain_timeout: Duration,
    /// False answers 404 on `/metrics`.
    pub metrics_enabled: bool,
    /// Settings that give up a guarantee: named in `/health`, which turns yellow.
    pub relaxed: Vec<&'static str>,
    /// Local callers need no key.
    pub is_open: bool,
    /// Take what tenants ask; else only what operators and probes do.
    pub serves_tenants: bool,
    /// SHA-256 of the operator's key that the environment gives.
    pub admin_key: Option<Hash>,
    /// How entitlement events are signed.
    pub signatures: Signatures,
    /// Requests that one key may make.
    pub rate: Rate,
    /// Requests of one tenant in work at once.
    pub tenant_requests_max: usize,
    /// How bodies are checked against the rules of the operator.
    pub validation: Validation,
    /// Proxies in front that add to `X-Forwarded-For`.
    pub trusted_proxies: usize,
}

/// The front door's parts.
pub struct Gateway {
    engine: Engine,
    metrics: Arc<Metrics>,
    process: Arc<dyn Process>,
    options: ArcSwap<Options>,
    rates: ArcSwap<Rates>,
    blocked: ArcSwap<Blocked>,
    rules: ArcSwap<validation::Rules>,
    /// What the operator wrote last is not what is in force.
    rules_refused: AtomicBool,
    places: Arc<Places>,
    started: Micros,
    /// Names this life of the process.
    instance: String,
    json: JsonLimits,
    /// For calls to models, whose schemas of tools are deep.
    ai_json: JsonLimits,
    searches: Arc<Semaphore>,
    status: status::Shared,
    /// Where spans of requests go.
    tracer: Option<&'static Tracer>,
    /// Bound once: a restart of the subsystem takes it again, and never loses the port.
    listener: Mutex<Option<Arc<TcpListener>>>,
    closing: AtomicBool,
}

impl Gateway {
    /// A front door for `engine`. Without a tracer there are no spans.
    #[must_use]
    pub fn new(
        engine: Engine,
        metrics: Arc<Metrics>,
        process: Arc<dyn Process>,
        options: Options,
        tracer: Option<&'static Tracer>,
    ) -> Gateway {
        let started = engine.clock().now();
        let status = status::Shared::new(&engine.rules().oncall().components());
        Gateway {
            engine,
            metrics,
            process,
            rates: ArcSwap::from_pointee(Rates::new(options.rate)),
            options: ArcSwap::from_pointee(options),
            blocked: ArcSwap::default(),
            rules: ArcSwap::default(),
            rules_refused: AtomicBool::new(false),
            places: Arc::default(),
            started,
            instance: uuid::Uuid::now_v7().to_string(),
            json: JsonLimits::default(),
            ai_json: JsonLimits { max_depth: AI_DEPTH_MAX, max_nodes: AI_NODES_MAX },
            searches: Arc::new(Semaphore::new(SEARCHES_MAX)),
            status,
            tracer,
            listener: Mutex::new(None),
            closing: AtomicBool::new(false),
        }
    }

    /// Closes the door for good, as soon as its subsystem is asked to stop: connections are
    /// refused from then on, and answers on open ones say that they are the last.
    pub fn close(&self) {
        self.closing.store(true, Ordering::Release);
        self.lock_listener().take();
    }

    /// Puts other options in force, from the next request on.
    pub fn reconfigure(&self, options: Options) {
        self.rates.store(self.rates.load().changed(options.rate));
        self.options.store(Arc::new(options));
    }

    /// Refuses these sources and no others, from the next request on.
    pub fn block(&self, blocked: Blocked) {
        self.blocked.store(Arc::new(blocked));
    }

    /// Checks bodies against these rules and no others, from the next request on.
    pub fn set_rules(&self, rules: validation::Rules) {
        self.rules.store(Arc::new(rules));
        self.rules_refused.store(false, Ordering::Release);
    }

    /// Keeps the rules and says so in `/health`: what was written since cannot be used.
    pub fn keep_rules(&self) {
        self.rules_refused.store(true, Ordering::Release);
    }

    fn validation_rules(&self) -> Arc<validation::Rules> {
        self.rules.load_full()
    }

    fn options(&self) -> Arc<Options> {
        self.options.load_full()
    }

    fn rates(&self) -> Arc<Rates> {
        self.rates.load_full()
    }

    fn blocked(&self) -> Arc<Blocked> {
        self.blocked.load_full()
    }

    fn is_closing(&self) -> bool {
        self.closing.load(Ordering::Acquire)
    }

    fn lock_listener(&self) -> MutexGuard<'_, Option<Arc<TcpListener>>> {
        self.listener.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
