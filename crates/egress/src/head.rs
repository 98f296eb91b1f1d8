//! The head of a request and the head of an answer.
//!
//! Owns: which headers leave, and the three things that are read from an answer. Refuses to know:
//! bodies.
//!
//! Compression is not asked for: a stream of events would be held back until a block is full, and
//! what is spent on bytes between data centres is less than what unpacking costs here.

use std::time::Duration;

use bytes::Bytes;
use engine::outbound::Attempt;
use http::header::{
    ACCEPT, CONTENT_LENGTH, CONTENT_TYPE, DATE, HOST, HeaderMap, HeaderName, HeaderValue,
    RETRY_AFTER, USER_AGENT,
};
use http::{Method, Request, Uri};
use http_body_util::Full;
use telemetry::trace::Context;

use crate::base::Base;
use crate::connection::Outgoing;
use crate::failure::Failure;

pub(crate) const AGENT: &str = concat!("tai/", env!("CARGO_PKG_VERSION"));

/// Some providers say it in milliseconds too, and mean that one.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");

/// Which trace it belongs to, by W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The request of an attempt, on behalf of `context`. The port's own headers win over a caller's of
/// the same name.
pub(crate) fn request(
    base: &Base,
    attempt: &mut Attempt,
    context: Option<Context>,
) -> Result<Outgoing, Failure> {
    let body = std::mem::take(&mut attempt.body);
    let mut headers = HeaderMap::with_capacity(attempt.headers.len() + 6);
    for (name, value) in attempt.headers.drain(..) {
        let name = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| Failure::request("the name of a header is none"))?;
        let mut value = HeaderValue::try_from(value)
            .map_err(|_| Failure::request("the value of a header cannot be sent"))?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    if let Some(context) = context {
        let value = HeaderValue::try_from(context.traceparent());
        headers.extend(value.ok().map(|value| (TRACEPARENT, value)));
    }
    headers.insert(HOST, base.host_header.clone());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(ACCEPT, HeaderValue::from_static("application/json, text/event-stream"));
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
    let path = if base.path.is_empty() {
        std::mem::take(&mut attempt.path)
    } else {
        [base.path.as_str(), attempt.path.as_str()].concat()
    };
    if !path.starts_with('/') {
        return Err(Failure::request("the path has no slash in front"));
    }
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = Method::POST;
    *request.uri_mut() = Uri::from_maybe_shared(Bytes::from(path))
        .map_err(|_| Failure::request("the path is none"))?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// `Content-Type` without parameters, in lower case; empty where there is none.
pub(crate) fn content_type(headers: &HeaderMap) -> String {
    let text = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let media = text.split_once(';').map_or(text, |(media, _)| media);
    media.trim().to_ascii_lowercase()
}

/// `Retry-After` from now. A point in time is measured against the answer's own `Date`: the far
/// side's clock may be wrong, and by the same amount in both.
pub(crate) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    if let Some(ms) = text(RETRY_AFTER_MS).and_then(|ms| ms.parse::<f64>().ok()) {
        return Duration::try_from_secs_f64(ms / 1000.0).ok();
    }
    let retry_after = text(RETRY_AFTER)?;
    if let Ok(seconds) = retry_after.parse::<f64>() {
        // RFC 9110 has whole seconds; some send a fraction.
        return Duration::try_from_secs_f64(seconds).ok();
    }
    let then = httpdate::parse_http_date(retry_after).ok()?;
    let now = httpdate::parse_http_date(text(DATE)?).ok()?;
    Some(then.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (HeaderName::from_static(name), HeaderValue::try_from(*value).unwrap())
            })
            .collect()
    }

    #[test]
    fn retry_after_in_all_its_forms() {
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        let ms = Duration::from_millis;
        for (pairs, expected) in [
            (vec![], None),
            (vec![("retry-after", "7")], Some(ms(7000))),
            (vec![("retry-after", " 1.5 ")], Some(ms(1500))),
            (vec![("retry-after", "0")], Some(ms(0))),
            (vec![("retry-after", "-1")], None),
            (vec![("retry-after", "soon")], None),
            (vec![("retry-after", "NaN")], None),
            (vec![("retry-after", "1e300")], None),
            (vec![("retry-after", "7"), ("retry-after-ms", "250")], Some(ms(250))),
            (vec![("retry-after", "7"), ("retry-after-ms", "x")], Some(ms(7000))),
            (vec![date, ("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")], Some(ms(30_000))),
            (vec![date, ("retry-after", "Sun, 06 Nov 1994 08:49:00 GMT")], Some(ms(0))),
            (vec![("retry-after", "Sun, 06 Nov 1994 08:50:07 GMT")], None),
        ] {
            assert_eq!(retry_after(&headers(&pairs)), expected, "{pairs:?}");
        }
    }

    #[test]
    fn content_type_without_parameters() {
        for (pairs, expected) in [
            (vec![], ""),
            (vec![("content-type", "Application/JSON; charset=utf-8")], "application/json"),
            (vec![("content-type", "text/event-stream")], "text/event-stream"),
            (vec![("content-type", " ; ")], ""),
        ] {
            assert_eq!(content_type(&headers(&pairs)), expected, "{pairs:?}");
        }
    }
}
