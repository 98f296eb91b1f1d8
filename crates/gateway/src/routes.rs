//! The one path that every request takes.
//!
//! Owns: the order of checks and limits around a handler. Refuses to know: which routes there are,
//! and what a handler does.

use std::net::{IpAddr, Ipv4Addr};
use std::panic::AssertUnwindSafe;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{self, Poll};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::HttpBody;
use axum::extract::{FromRequestParts, Query, RawPathParams, Request};
use axum::response::Response;
use axum::routing::{MethodFilter, on};
use bytes::Bytes;
use futures_util::FutureExt;
use http::header::{CONNECTION, USER_AGENT};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version};
use hyper::body::Frame;
use telemetry::metrics::Endpoint;
use telemetry::trace::{self, Context, Span};
use types::{Reason, TenantId};
use uuid::Uuid;

use crate::answer::{Answer, Facts, Fault, Handled, X_REQUEST_ID, ai_envelope, envelope, fault};
use crate::caller::{Caller, identify};
use crate::health::{metrics, probe};
use crate::rate::{Allowance, Criticality, Place, TenantPlace};
use crate::sources::source;
use crate::spans::describe;
use crate::table::{Handler, ROUTES, Route};
use crate::{
    Gateway, Options, admin, ai, body, external, marketplace, openapi, pubsub, receipts, status,
    validation,
};

/// Characters of a caller's user agent that are logged.
const USER_AGENT_MAX: usize = 256;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const X_TRACE_ID: HeaderName = HeaderName::from_static("x-trace-id");
const X_SPAN_ID: HeaderName = HeaderName::from_static("x-span-id");

/// The address of the peer, which the accept loop puts beside each request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// The router, made from the table.
pub(crate) fn router(gateway: &Arc<Gateway>) -> Router {
    let mut router = Router::new();
    for route in ROUTES {
        let endpoint = Arc::new(gateway.metrics.endpoint(route.path, route.method));
        let gateway = Arc::clone(gateway);
        let method = match route.method {
            "POST" => MethodFilter::POST,
            "PUT" => MethodFilter::PUT,
            "DELETE" => MethodFilter::DELETE,
            _ => MethodFilter::GET,
        };
        let handle = move |request: Request| {
            let (gateway, endpoint) = (Arc::clone(&gateway), Arc::clone(&endpoint));
            async move { through(&gateway, &endpoint, route, request).await }
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
    let mut met = Met::new(gateway, &request);
    let context = met.context;
    let method = method_name(request.method());
    met.span = context.span(|| method.to_owned());
    let detail = match reason {
        Reason::MethodNotAllowed => "the route does not take this method",
        _ => "there is no such route",
    };
    let outcome = Err(fault(reason, detail));
    let ended = Ended { route: None, method, started, outcome, met };
    trace::within(Some(context), || finish(gateway, endpoint, ended))
}

/// What was learned of a request on its way, and what it holds.
pub(crate) struct Met {
    request_id: String,
    pub(crate) context: Context,
    pub(crate) version: Version,
    /// As the caller has it; shared with the head of the request.
    user_agent: Option<HeaderValue>,
    pub(crate) source: Option<IpAddr>,
    pub(crate) tenant: Option<TenantId>,
    /// Ends with the request: also where the caller leaves.
    span: Span,
    allowance: Option<Allowance>,
    place: Option<Place>,
    tenant_place: Option<TenantPlace>,
}

impl Met {
    fn new(gateway: &Gateway, request: &Request) -> Met {
        let unique = Uuid::now_v7();
        let header = |name| request.headers().get(name).map(HeaderValue::as_bytes);
        let context = Context::read(header(&TRACEPARENT), header(&X_TRACE_ID), unique.as_u128());
        Met {
            request_id: request_id(request, unique),
            context: gateway.tracer.map_or(context, |tracer| context.traced(tracer)),
            version: request.version(),
            user_agent: request.headers().get(USER_AGENT).cloned(),
            span: Span::default(),
            source: None,
            tenant: None,
            allowance: None,
            place: None,
            tenant_place: None,
        }
    }
}

/// The way of every request: id → source → load shedding → deadline over (key → rate → scope →
/// tenant's places → handler) → answer → count → log.
async fn through(
    gateway: &Gateway,
    endpoint: &Endpoint,
    route: &'static Route,
    request: Request,
) -> Response {
    let started = Instant::now();
    let mut met = Met::new(gateway, &request);
    let context = met.context.of(route.method, route.path);
    met.context = context;
    met.span = context.span(|| [route.method, " ", route.path].concat());
    // Pinned where it is: a future that is handed on is copied, and held once more by each hand.
    let handled = pin!(async {
        let options = gateway.options();
        let outcome = limited(gateway, &options, route, request, &mut met).await;
        let (route, method) = (Some(route), route.method);
        finish(gateway, endpoint, Ended { route, method, started, outcome, met })
    });
    trace::follow(context, handled).await
}

async fn limited(
    gateway: &Gateway,
    options: &Options,
    route: &'static Route,
    request: Request,
    met: &mut Met,
) -> Handled {
    if let Some(class) = route.handler.criticality() {
        shed(gateway, options, class, &request, met)?;
    }
    let is_ai = matches!(route.handler, Handler::Ai(_));
    let timeout = if is_ai { options.ai_timeout } else { options.request_timeout };
    let work = pin!(known(gateway, options, route, request, met));
    attended(timeout, work).await
}

/// Turns away whom nobody serves now, before anything of the body is read.
fn shed(
    gateway: &Gateway,
    options: &Options,
    class: Criticality,
    request: &Request,
    met: &mut Met,
) -> Result<(), Fault> {
    if class != Criticality::Critical && !options.serves_tenants {
        return Err(fault(Reason::NotFound, "this instance takes no requests of tenants"));
    }
    let peer = request.extensions().get().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |Peer(ip)| *ip);
    let source = source(peer, request.headers(), options.trusted_proxies);
    met.source = Some(source);
    // An operator on this machine gets in: whoever blocked too much must be able to unblock.
    let local_hands = class == Criticality::Critical && peer.is_loopback() && source == peer;
    if !local_hands && gateway.blocked().holds(source, gateway.engine.clock().now()) {
        return Err(fault(Reason::Forbidden, "access denied"));
    }
    // Probes and scrapes take no place: who watches must not crowd out who works.
    let place = met.place.insert(gateway.places.take(&gateway.metrics));
    place.admits(class, options.requests_max)
}

/// Waits no longer than the deadline, and survives a handler that does not.
async fn attended(timeout: Duration, work: Pin<&mut impl Future<Output = Handled>>) -> Handled {
    let work = AssertUnwindSafe(work).catch_unwind();
    match tokio::time::timeout(timeout, work).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(_)) => Err(fault(Reason::InternalError, "the request failed")),
        Err(_) => {
            let detail = "no durable answer before the deadline; retry with the same key";
            Err(fault(Reason::Timeout, detail))
        }
    }
}

/// From here on it is known who asks.
async fn known(
    gateway: &Gateway,
    options: &Options,
    route: &'static Route,
    request: Request,
    met: &mut Met,
) -> Handled {
    let (parts, body) = request.into_parts();
    match admitted(gateway, options, route, &parts, met).await {
        Ok(caller) => dispatch(gateway, options, route, (&caller, met), (parts, body)).await,
        Err(refusal) => {
            // Whoever is still sending would find the connection broken and not the answer.
            body::discard(body).await;
            Err(refusal)
        }
    }
}

/// Who asks, within its limits.
async fn admitted(
    gateway: &Gateway,
    options: &Options,
    route: &Route,
    parts: &Parts,
    met: &mut Met,
) -> Result<Caller, Fault> {
    let asked = (route.access, route.handler);
    let caller = identify(gateway, options, asked, &parts.headers, &parts.uri).await?;
    met.tenant = caller.tenant().cloned();
    if let Caller::Key(principal) = &caller {
        match gateway.rates().take(principal.key) {
            Ok(allowance) => met.allowance = Some(allowance),
            Err((refusal, allowance)) => {
                met.allowance = Some(allowance);
                return Err(refusal);
            }
        }
    }
    // After the rate: what the key may not do is limited and counted as its own all the same.
    caller.may_use(route.access)?;
    let group = match &caller {
        // Whoever proves nothing yet shares what one tenant has, before a byte of body is read.
        Caller::Unproven => Some(None),
        _ => met.tenant.clone().map(Some),
    };
    let place = group.map(|group| gateway.places.of(group, options.tenant_requests_max));
    met.tenant_place = place.transpose()?;
    Ok(caller)
}

async fn dispatch(
    gateway: &Gateway,
    options: &Options,
    route: &'static Route,
    (caller, met): (&Caller, &Met),
    (mut parts, body): (Parts, axum::body::Body),
) -> Handled {
    let plain = |response| Ok(Answer { response, facts: Facts::default() });
    match route.handler {
        Handler::Probe(which) => plain(probe(gateway, options, which)),
        Handler::Metrics if options.metrics_enabled => plain(metrics(gateway)),
        Handler::Metrics => Err(fault(Reason::NotFound, "metrics are switched off")),
        Handler::OpenApi => plain(openapi::answer()),
        Handler::Status(form) => status::answer(gateway, form).await,
        Handler::Pubsub => {
            let bytes = ruled(gateway, options, (route, met), (&parts.headers, body)).await?;
            pubsub::push(gateway, options, caller, &bytes).await
        }
        Handler::Marketplace => {
            let bytes = ruled(gateway, options, (route, met), (&parts.headers, body)).await?;
            marketplace::call(gateway, options, caller, &parts.headers, &bytes).await
        }
        Handler::Heard(sender) => {
            body::require_json(&parts.headers)?;
            let bytes = body::read(&parts.headers, body, options.body_max_bytes, options).await?;
            external::hear(gateway, options, sender, (caller, &parts.headers), &bytes).await
        }
        Handler::Receipt => {
            let id = parts.uri.path().rsplit('/').next().unwrap_or_default();
            receipts::one(gateway, caller, id).await
        }
        Handler::Receipts => {
            let query = query(&mut parts).await?;
            receipts::search(gateway, caller, query).await
        }
        Handler::Ai(which) => {
            let mut bytes = Bytes::new();
            if which.takes_body() {
                bytes = ruled(gateway, options, (route, met), (&parts.headers, body)).await?;
            }
            ai::answer(gateway, which, caller, &parts.headers, bytes).await
        }
        Handler::Admin(which) => {
            let query = query(&mut parts).await?;
            let path = RawPathParams::from_request_parts(&mut parts, &()).await;
            let path = path.map_err(|_| fault(Reason::NotFound, "the path cannot be read"))?;
            let segment = path.iter().next().map(|(_, value)| value.to_owned());
            if which.takes_body() {
                body::require_json(&parts.headers)?;
            }
            let bytes = body::read(&parts.headers, body, options.body_max_bytes, options).await?;
            let source = met.source;
            let asked = admin::Asked { caller, source, segment, query, body: bytes };
            admin::answer(gateway, which, asked).await
        }
    }
}

/// The body of a route that the operator may have a rule for: read, and what the rule asks for.
async fn ruled(
    gateway: &Gateway,
    options: &Options,
    (route, met): (&'static Route, &Met),
    (headers, body): (&HeaderMap, axum::body::Body),
) -> Result<Bytes, Fault> {
    let (max_bytes, limits) = match route.handler {
        Handler::Ai(_) => (options.ai_body_max_bytes, gateway.ai_json),
        _ => (options.body_max_bytes, gateway.json),
    };
    body::require_json(headers)?;
    let bytes = body::read(headers, body, max_bytes, options).await?;
    let (request_id, tenant) = (met.request_id.as_str(), met.tenant.as_ref());
    let about = validation::About { route, request_id, tenant, limits };
    validation::check(gateway, options.validation, about, &bytes).await?;
    Ok(bytes)
}

async fn query(parts: &mut Parts) -> Result<Vec<(String, String)>, Fault> {
    let query = Query::<Vec<(String, String)>>::from_request_parts(parts, &()).await;
    let bad = |_| fault(Reason::InvalidMessageFormat, "the query cannot be read");
    Ok(query.map_err(bad)?.0)
}

/// A method as the log shows it: one that HTTP does not define is a caller's own text.
fn method_name(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] =
        ["GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"];
    KNOWN.into_iter().find(|name| *name == method.as_str()).unwrap_or("OTHER")
}

/// The caller's request id when it is a good one, else a new one that sorts by time.
fn request_id(request: &Request, unique: Uuid) -> String {
    let given = request.headers().get(&X_REQUEST_ID).and_then(|value| value.to_str().ok());
    match given.filter(|text| dialect::request_id::check_key(text).is_ok()) {
        Some(text) => text.to_owned(),
        None => unique.to_string(),
    }
}

struct Ended<'a> {
    route: Option<&'static Route>,
    method: &'a str,
    started: Instant,
    outcome: Handled,
    met: Met,
}

fn finish(gateway: &Gateway, endpoint: &Endpoint, ended: Ended<'_>) -> Response {
    let Ended { route, method, started, outcome, mut met } = ended;
    let request_id = std::mem::take(&mut met.request_id);
    let path = route.map_or("unmatched", |route| route.path);
    let (mut response, facts, detail) = match outcome {
        Ok(Answer { response, facts }) => {
            if let Some(reason) = facts.reason {
                gateway.metrics.refused(reason);
            }
            (response, facts, None)
        }
        Err(fault) => {
            gateway.metrics.refused(fault.refused.reason);
            if fault.receipt.is_none() {
                let reason = fault.refused.reason;
                gateway.engine.refused_at_edge(reason, path, met.tenant.clone());
            }
            let now = gateway.engine.clock().now();
            let response = match route.and_then(|route| route.handler.speaks()) {
                Some(api) => ai_envelope(api, &fault, &request_id, now),
                None => envelope(&fault, &request_id, now),
            };
            (response, fault.facts, Some(fault.refused.detail))
        }
    };
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(X_REQUEST_ID, value);
    }
    // Whoever named no trace is told of none: its lines are found by the request id.
    if met.context.was_asked() {
        let ids = [(X_TRACE_ID, met.context.trace_id()), (X_SPAN_ID, met.context.span_id())];
        for (name, id) in ids {
            let value = HeaderValue::from_str(id.as_str());
            response.headers_mut().extend(value.ok().map(|value| (name, value)));
        }
    }
    if let Some(allowance) = met.allowance {
        allowance.onto(response.headers_mut());
    }
    if gateway.is_closing() {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    let took = started.elapsed().as_secs_f64();
    let status = response.status().as_u16();
    let (duration_ms, request_id, detail) = (took * 1e3, &*request_id, detail.as_deref());
    let line = Line { path, method, status, duration_ms, request_id, detail };
    let mut span = std::mem::take(&mut met.span);
    if span.is_kept() {
        describe(&mut span, &line, &facts, &met);
    }
    if facts.streams {
        // In work until the last word.
        let body = std::mem::take(response.body_mut());
        let places = (met.place.take(), met.tenant_place.take());
        let span = std::mem::take(&mut span);
        let streamed = Streamed { body, context: met.context, span, _places: places };
        *response.body_mut() = axum::body::Body::new(streamed);
    }
    endpoint.answered(status, took);
    log(&line, &facts, &met);
    response
}

/// An answer that is still being written: it keeps its places, and what is logged on the way is
/// about its request.
struct Streamed {
    body: axum::body::Body,
    context: Context,
    span: Span,
    _places: (Option<Place>, Option<TenantPlace>),
}

impl HttpBody for Streamed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut task::Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let context = self.context;
        let polled = trace::within(Some(context), || Pin::new(&mut self.body).poll_frame(cx));
        if matches!(polled, Poll::Ready(None)) {
            self.span.done();
        }
        polled
    }
}

/// What every line says of a request.
pub(crate) struct Line<'a> {
    pub(crate) path: &'a str,
    pub(crate) method: &'a str,
    pub(crate) status: u16,
    duration_ms: f64,
    pub(crate) request_id: &'a str,
    /// Why it was refused, as the caller is told.
    detail: Option<&'a str>,
}

/// One line for each request. A failure of ours has been logged where it happened.
fn log(line: &Line<'_>, facts: &Facts, met: &Met) {
    let Line { path, method, status, duration_ms, request_id, detail } = *line;
    let tenant_id = facts.tenant_id.as_deref().or(met.tenant.as_ref().map(TenantId::as_str));
    let receipt_id = facts.receipt_id.map(tracing::field::display);
    let client_ip = met.source.map(tracing::field::display);
    let user_agent = met.user_agent.as_ref().and_then(|value| value.to_str().ok());
    let user_agent = user_agent.map(|text| &text[..text.len().min(USER_AGENT_MAX)]);
    match facts.reason {
        None => tracing::info!(
            event = "request_completed",
            path,
            method,
            status,
            duration_ms,
            request_id,
            client_ip,
            user_agent,
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
            client_ip,
            user_agent,
            tenant_id,
            receipt_id,
            r#type = "refusal",
            reason = reason.code(),
            error_code = reason.code(),
            error_message = detail,
            "request refused"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::Access;

    #[test]
    fn every_route_that_does_something_needs_a_scope() {
        for route in ROUTES {
            let open = route.access == Access::Open;
            assert_eq!(open, route.handler.criticality().is_none(), "{}", route.path);
            assert!(!open || route.method == "GET", "{}", route.path);
        }
    }
}
