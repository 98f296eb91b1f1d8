//! The span of a request, for who looks at its trace elsewhere.
//!
//! Owns: what such a span says, by OpenTelemetry's conventions for HTTP. Refuses to know: which
//! traces are sampled. Neither path nor query is said: callers have put keys into both.

use http::Version;
use telemetry::trace::Span;
use types::TenantId;

use crate::answer::Facts;
use crate::routes::{Line, Met};

/// Says what was learned of a request, once it is known what is answered. What was caller's text is
/// redacted as in the log.
pub(crate) fn describe(span: &mut Span, line: &Line<'_>, facts: &Facts, met: &Met) {
    let Line { path, method, status, request_id, .. } = *line;
    span.set("http.request.method", method);
    span.set("http.route", path);
    span.set("http.response.status_code", status);
    span.set("url.scheme", "http");
    span.set(
        "network.protocol.version",
        if met.version == Version::HTTP_10 { "1.0" } else { "1.1" },
    );
    span.set("tai.request_id", request_id);
    if let Some(source) = met.source {
        span.set("client.address", source.to_string().as_str());
    }
    if met.context.was_asked() {
        // What a caller named with `X-Trace-Id` need not be a trace to anybody else.
        span.set("tai.trace_id", met.context.trace_id().as_str());
    }
    if let Some(tenant) = facts.tenant_id.as_deref().or(met.tenant.as_ref().map(TenantId::as_str)) {
        span.set("tai.tenant_id", tenant);
    }
    if let Some(receipt) = facts.receipt_id {
        span.set("tai.receipt_id", receipt.to_string().as_str());
    }
    if let Some(reason) = facts.reason {
        span.set("tai.reason", reason.code());
    }
    if status >= 500 {
        // A refusal of what a caller did is no failure of the service.
        span.fail(facts.reason.map_or("500", |reason| reason.code()));
    } else if !facts.streams {
        span.done();
    }
}
