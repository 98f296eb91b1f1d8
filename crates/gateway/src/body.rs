//! Bodies and idempotency headers of requests that ask for a decision.
//!
//! Owns: size, time and media type. Refuses to know: what a body means.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, ORIGIN};
use http::{HeaderMap, HeaderName, HeaderValue};
use http_body_util::BodyExt;
use types::Reason;

use crate::Options;
use crate::answer::{Fault, X_REQUEST_ID, fault};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A body must arrive within this time: a slow sender must not hold a place.
const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// The time for a body where the whole request has `request_timeout`. Less than all of it, so that
/// a slow sender is told so, and not that we were slow.
fn read_timeout(request_timeout: Duration) -> Duration {
    READ_TIMEOUT.min(request_timeout.mul_f64(0.9))
}

/// What is read and thrown away of a body that is too large, so that its sender reads the answer
/// instead of a reset. Behind this the connection is cut.
const DISCARD_MAX_BYTES: usize = 8 * 1024 * 1024;

/// The same of a body that nobody wants, whoever sends it: fewer, and not for long.
const UNREAD_MAX_BYTES: usize = 256 * 1024;
const UNREAD_TIMEOUT: Duration = Duration::from_secs(1);

/// Reads a whole body of at most `max_bytes`, within the time of `options`.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    max_bytes: usize,
    options: &Options,
) -> Result<Bytes, Fault> {
    let reading = collect(headers, body, max_bytes);
    match tokio::time::timeout(read_timeout(options.request_timeout), reading).await {
        Ok(outcome) => outcome,
        Err(_) => Err(fault(Reason::RequestTimeout, "the body did not arrive in time")),
    }
}

/// Reads what is left of a small body and throws it away, so that its sender reads the answer
/// instead of a reset. Behind a larger one the connection is cut.
pub(crate) async fn discard(mut body: Body) {
    let reading = async {
        let mut seen = 0;
        while let Some(Ok(frame)) = body.frame().await {
            seen += frame.data_ref().map_or(0, Bytes::len);
            if seen > UNREAD_MAX_BYTES {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(UNREAD_TIMEOUT, reading).await;
}

async fn collect(headers: &HeaderMap, mut body: Body, max_bytes: usize) -> Result<Bytes, Fault> {
    let declared = headers.get(CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse().ok());
    let mut kept = BytesMut::with_capacity(declared.unwrap_or(0usize).min(max_bytes));
    let mut seen = 0usize;
    while let Some(frame) = body.frame().await {
        let broken = |_| fault(Reason::InvalidMessageFormat, "the body could not be read");
        let Ok(data) = frame.map_err(broken)?.into_data() else { continue };
        seen = seen.saturating_add(data.len());
        if seen > DISCARD_MAX_BYTES.max(max_bytes) {
            break;
        }
        if seen <= max_bytes {
            kept.extend_from_slice(&data);
        }
    }
    if seen > max_bytes {
        let detail = format!("the body may hold {max_bytes} bytes");
        return Err(fault(Reason::PayloadTooLarge, detail));
    }
    Ok(kept.freeze())
}

/// JSON only. The seeds' own calls leave curl's default type in place (002 scenarios 9 and 11),
/// so that one is taken as well, but not from a browser page: a form type needs no preflight, and
/// on an open loopback port any site could send it.
pub(crate) fn require_json(headers: &HeaderMap) -> Result<(), Fault> {
    let given = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = given.split(';').next().unwrap_or("").trim().to_ascii_lowercase();
    let json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    let curl = essence == "application/x-www-form-urlencoded" && !headers.contains_key(ORIGIN);
    if json || curl {
        return Ok(());
    }
    Err(fault(Reason::UnsupportedMediaType, "the content type must be application/json"))
}

/// The caller's idempotency key: `Idempotency-Key`, else `X-Request-ID`, which is the seeds' name
/// for it on `/marketplace`.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Fault> {
    key_in(headers.get(IDEMPOTENCY_KEY).or_else(|| headers.get(X_REQUEST_ID)))
}

/// The idempotency key of a call to a model: `X-Request-ID` only correlates there, since clients
/// send the same one with every attempt of theirs.
pub(crate) fn own_idempotency_key(headers: &HeaderMap) -> Result<Option<&str>, Fault> {
    key_in(headers.get(IDEMPOTENCY_KEY))
}

fn key_in(value: Option<&HeaderValue>) -> Result<Option<&str>, Fault> {
    let Some(value) = value else { return Ok(None) };
    let bad = || fault(Reason::InvalidRequestId, "the idempotency key must be printable ASCII");
    let text = value.to_str().map_err(|_| bad())?;
    dialect::request_id::check_key(text)?;
    Ok(Some(text))
}
