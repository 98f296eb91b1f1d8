//! The route table, and the one path that every request takes through it.
//!
//! Owns: which routes there are, and the order of limits around a handler. Refuses to know: what
//! a handler does.

use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use axum::Router;
use axum::extract::{FromRequestParts, Query, Request};
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use futures_util::FutureExt;
use http::header::{CONNECTION, HOST};
use http::uri::Authority;
use http::{HeaderValue, Method};
use telemetry::metrics::Endpoint;
use types::Reason;

use crate::Gateway;
use crate::answer::{
    Answer, Facts, Fault, Handled, X_DURABILITY, X_RECEIPT_ID, X_REQUEST_ID, envelope, fault,
};
use crate::health::{Probe, metrics, probe};
use crate::{body, marketplace, pubsub, receipts};

/// One row of the route table.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// The method: `GET` or `POST`.
    pub method: &'static str,
    /// The path, with `{name}` for a segment.
    pub path: &'static str,
    /// What it does, in one line.
    pub summary: &'static str,
    handler: Handler,
}

#[derive(Debug, Clone, Copy)]
enum Handler {
    Probe(Probe),
    Metrics,
    Pubsub,
    Marketplace,
    Receipt,
    Receipts,
}

const fn get(path: &'static str, handler: Handler, summary: &'static str) -> Route {
    Route { method: "GET", path, summary, handler }
}

const fn post(path: &'static str, handler: Handler, summary: &'static str) -> Route {
    Route { method: "POST", path, summary, handler }
}

/// Every route of the service.
pub const ROUTES: [Route; 12] = [
    get("/health", Handler::Probe(Probe::Health), "health of all parts"),
    get("/healthz", Handler::Probe(Probe::Health), "alias of /health"),
    get("/readyz", Handler::Probe(Probe::Ready), "may it be sent traffic"),
    get("/health/startup", Handler::Probe(Probe::Health), "alias of /health"),
    get("/health/live", Handler::Probe(Probe::Live), "is the process alive"),
    get("/health/ready", Handler::Probe(Probe::Ready), "alias of /readyz"),
    get("/metrics", Handler::Metrics, "Prometheus text"),
    post("/pubsub", Handler::Pubsub, "push delivery of a signal"),
    post("/marketplace", Handler::Marketplace, "entitlement event or customer call"),
    get("/receipts/{id}", Handler::Receipt, "one receipt"),
    get("/receipts", Handler::Receipts, "search, newest first"),
    // Behind a trailing slash there is no id: the same answer as for an unknown one.
    get("/receipts/", Handler::Receipt, "one receipt, id missing"),
];

impl Handler {
    /// Probes and scrapes are never limited: they must answer when all else is refused.
    const fn is_limited(self) -> bool {
        !matches!(self, Handler::Probe(_) | Handler::Metrics)
    }
}

/// The router, made from the table.
pub(crate) fn router(gateway: &Arc<Gateway>) -> Router {
    let mut router = Router::new();
    for route in &ROUTES {
        let endpoint = Arc::new(gateway.metrics.endpoint(route.path, route.method));
        let gateway = Arc::clone(gateway);
        let method = match route.method {
            "POST" => MethodFilter::POST,
            _ => MethodFilter::GET,
        };
        let handle = move |request: Request| {
            let (gateway, endpoint) = (Arc::clone(&gateway), Arc::clone(&endpoint));
            async move { through(&gateway, &endpoint, Some(route), request).await }
        };
        router = router.route(route.path, on(method, handle));
    }
    let unmatched = Arc::new(gateway.metrics.endpoint("unmatched", "OTHER"));
    let lost = |reason: Reason| {
        let (gateway, endpoint) = (Arc::clone(gateway), Arc::clone(&unmatched));
        move |request: Request| async move { astray(&gateway, &endpoint, reason, request).await }
    };
    router
        .method_not_allowed_fallback(lost(Reason::MethodNotAllowed))
        .fallback(lost(Reason::NotFound))
}

/// A request for which there is no handler.
async fn astray(
    gateway: &Gateway,
    endpoint: &Endpoint,
    reason: Reason,
    request: Request,
) -> Response {
    let started = Instant::now();
    let request_id = request_id(&request);
    let method = known(request.method());
    let detail = match reason {
        Reason::MethodNotAllowed => "the route does not take this method",
        _ => "there is no such route",
    };
    let outcome = Err(fault(reason, detail));
    finish(gateway, endpoint, Ended { route: None, method, request_id, started, outcome })
}

/// The way of every request: id → load shedding → deadline → handler → answer → count → log.
async fn through(
    gateway: &Gateway,
    endpoint: &Endpoint,
    route: Option<&'static Route>,
    request: Request,
) -> Response {
    let started = Instant::now();
    let request_id = request_id(&request);
    let Some(Route { handler, method, .. }) = route else {
        return astray(gateway, endpoint, Reason::NotFound, request).await;
    };
    // Probes and scrapes take no place: who watches must not crowd out who works.
    let place = handler.is_limited().then(|| Place::take(gateway));
    let outcome = if place.as_ref().is_some_and(|place| place.number > gateway.options.requests_max)
    {
        Err(shed())
    } else {
        let work = AssertUnwindSafe(dispatch(gateway, *handler, request)).catch_unwind();
        match tokio::time::timeout(gateway.options.request_timeout, work).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(fault(Reason::InternalError, "the request failed")),
            Err(_) => {
                let detail = "no durable answer before the deadline; retry with the same key";
                Err(fault(Reason::Timeout, detail))
            }
        }
    };
    finish(gateway, endpoint, Ended { route, method, request_id, started, outcome })
}

/// A place among the requests in work, given back also when the caller hangs up and the future is
/// dropped.
struct Place<'a> {
    gateway: &'a Gateway,
    number: usize,
}

impl Place<'_> {
    fn take(gateway: &Gateway) -> Place<'_> {
        gateway.metrics.http_requests_in_flight.inc();
        Place { gateway, number: gateway.in_flight.fetch_add(1, Ordering::AcqRel) + 1 }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.gateway.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.gateway.metrics.http_requests_in_flight.dec();
    }
}

fn shed() -> Fault {
    let mut fault = fault(Reason::ServiceUnavailable, "too many requests are in work");
    fault.refused.retry_after_s = Some(1);
    fault
}

async fn dispatch(gateway: &Gateway, handler: Handler, request: Request) -> Handled {
    if handler.is_limited() && !is_local(request.headers().get(HOST)) {
        let detail = "without keys only host names of loopback are answered";
        return Err(fault(Reason::Forbidden, detail));
    }
    let plain = |response| Ok(Answer { response, facts: Facts::default() });
    let (mut parts, body) = request.into_parts();
    match handler {
        Handler::Probe(which) => plain(probe(gateway, which)),
        Handler::Metrics if gateway.options.metrics_enabled => plain(metrics(gateway)),
        Handler::Metrics => Err(fault(Reason::NotFound, "metrics are switched off")),
        Handler::Pubsub => {
            body::require_json(&parts.headers)?;
            let bytes = body::read(&parts.headers, body, &gateway.options).await?;
            pubsub::push(gateway, &bytes).await
        }
        Handler::Marketplace => {
            body::require_json(&parts.headers)?;
            let bytes = body::read(&parts.headers, body, &gateway.options).await?;
            marketplace::call(gateway, &parts.headers, &bytes).await
        }
        Handler::Receipt => {
            let id = parts.uri.path().rsplit('/').next().unwrap_or_default();
            receipts::one(gateway, id).await
        }
        Handler::Receipts => {
            let query = Query::<Vec<(String, String)>>::from_request_parts(&mut parts, &()).await;
            let bad = |_| fault(Reason::InvalidMessageFormat, "the query cannot be read");
            receipts::search(gateway, &query.map_err(bad)?.0).await
        }
    }
}

/// Whether a request was meant for this machine by its sender. A web page can have its own host
/// name resolve to loopback and then speak to the open door as to its own server; the name gives
/// it away. Only programs leave the name out.
fn is_local(host: Option<&HeaderValue>) -> bool {
    let Some(host) = host else { return true };
    let Ok(host) = host.to_str() else { return false };
    let authority = host.parse::<Authority>().ok();
    authority.is_some_and(|authority| {
        let name = authority.host().trim_start_matches('[').trim_end_matches(']');
        let address = name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
        address || name.eq_ignore_ascii_case("localhost")
    })
}

/// A method as the log shows it: one that HTTP does not define is a caller's own text.
fn known(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] =
        ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    KNOWN.into_iter().find(|name| *name == method.as_str()).unwrap_or("OTHER")
}

/// The caller's request id when it is a good one, else a new one that sorts by time.
fn request_id(request: &Request) -> String {
    let given = request.headers().get(&X_REQUEST_ID).and_then(|value| value.to_str().ok());
    match given.filter(|text| dialect::request_id::check_key(text).is_ok()) {
        Some(text) => text.to_owned(),
        None => uuid::Uuid::now_v7().to_string(),
    }
}

struct Ended<'a> {
    route: Option<&'static Route>,
    method: &'a str,
    request_id: String,
    started: Instant,
    outcome: Handled,
}

fn finish(gateway: &Gateway, endpoint: &Endpoint, ended: Ended<'_>) -> Response {
    let Ended { route, method, request_id, started, outcome } = ended;
    let path = route.map_or("unmatched", |route| route.path);
    let (mut response, facts) = match outcome {
        Ok(Answer { response, facts }) => {
            if let Some(reason) = facts.reason {
                gateway.metrics.refused(reason);
            }
            (response, facts)
        }
        Err(fault) => {
            gateway.metrics.refused(fault.refused.reason);
            if fault.receipt.is_none() {
                gateway.engine.refused_at_edge(fault.refused.reason, path);
            }
            let now = gateway.engine.clock().now();
            (envelope(&fault, &request_id, now), fault.facts)
        }
    };
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    if response.headers().contains_key(X_RECEIPT_ID) {
        let durability = gateway.engine.store().durability().as_str();
        response.headers_mut().insert(X_DURABILITY, HeaderValue::from_static(durability));
    }
    if gateway.is_closing() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let took = started.elapsed().as_secs_f64();
    let status = response.status().as_u16();
    endpoint.answered(status, took);
    log(path, method, status, took * 1e3, &request_id, &facts);
    response
}

/// One line for each request. A failure of ours has been logged where it happened.
fn log(path: &str, method: &str, status: u16, duration_ms: f64, request_id: &str, facts: &Facts) {
    let tenant_id = facts.tenant_id.as_deref();
    let receipt_id = facts.receipt_id.map(tracing::field::display);
    match facts.reason {
        None => tracing::info!(
            event = "request_completed",
            path,
            method,
            status,
            duration_ms,
            request_id,
            tenant_id,
            receipt_id,
            "request completed"
        ),
        Some(reason) => tracing::info!(
            event = "request_completed",
            path,
            method,
            status,
            duration_ms,
            request_id,
            tenant_id,
            receipt_id,
            r#type = "refusal",
            reason = reason.code(),
            error_code = reason.code(),
            "request refused"
        ),
    }
}
