//! A channel's address on the web, and one exchange with it.
//!
//! Owns: the parts of the address, whether a request may have left, and how much of an answer is
//! read. Refuses to know: what an answer means. Redirects are answers like any other.

use std::future::poll_fn;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ::http::header::{ACCEPT, CONTENT_TYPE, HOST, HeaderName, HeaderValue, USER_AGENT};
use ::http::{Request, Response, Uri};
use bytes::Bytes;
use dialect::notify::{Method, Outgoing};
use http_body_util::Full;
use hyper::body::Incoming;
use settings::Secret;
use tokio_rustls::TlsConnector;

use crate::base::Base;
use crate::connection::{Connection, Exchange};
use crate::dial::Dialer;
use crate::failure::Failure;
use crate::head;

/// Where a channel is.
pub(super) struct Address {
    dialer: Dialer,
    host_header: HeaderValue,
    /// Path and query. May be the key itself.
    path: Secret,
}

/// An answer: its head, and as much of its body as was to be had.
pub(super) struct Heard {
    pub(super) status: u16,
    pub(super) retry_after: Option<Duration>,
    pub(super) body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// Not a byte of the request has left.
    Unsent,
    /// It may have.
    Unknown,
    /// It is not HTTP: a mistake of ours or of the configuration.
    Unwritable,
}

impl Address {
    /// An address as `http(s)://host[:port][/path][?query]`; `tls` is there where it asks for it.
    pub(super) fn new(
        url: &str,
        is_private_allowed: bool,
        tls: Option<TlsConnector>,
    ) -> Result<Address, &'static str> {
        if url.contains('#') {
            return Err("its address has a fragment");
        }
        let authority = url.find("://").map_or(0, |at| at + 3);
        let end = url[authority..].find(['/', '?']).map_or(url.len(), |at| authority + at);
        let (origin, path) = url.split_at(end);
        let base = Base::parts(origin, is_private_allowed)?;
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if path.parse::<Uri>().is_err() {
            return Err("its path is not one");
        }
        let host_header = base.host_header.clone();
        let dialer = Dialer::new(Arc::new(base), tls).ok_or("its host is not a host")?;
        Ok(Address { dialer, host_header, path: path.into() })
    }

    /// Sends a request and reads the answer, both until `until`. Once the head is there, it is an
    /// answer: a body that does not end, or is longer than `body_max`, is cut off.
    pub(super) async fn exchange(
        &self,
        channel: &str,
        outgoing: Outgoing,
        until: Instant,
        body_max: usize,
    ) -> Result<Heard, Lost> {
        let Some(request) = self.request(outgoing) else {
            tracing::error!(event = "notify_request", channel, "a request of ours cannot be sent");
            return Err(Lost::Unwritable);
        };
        let lost = |lost, why: &str| {
            tracing::debug!(event = "notify_lost", channel, why, "an attempt came to nothing");
            lost
        };
        let connected = tokio::time::timeout_at(until.into(), self.dialer.connect(until)).await;
        let mut connection = match connected {
            Ok(Ok(connection)) => connection,
            Ok(Err(Failure { why, .. })) => return Err(lost(Lost::Unsent, &why)),
            Err(_) => return Err(lost(Lost::Unsent, "there is no connection in time")),
        };
        let answered = tokio::time::timeout_at(until.into(), connection.exchange(request)).await;
        let answer = match answered {
            Ok(Ok(Exchange::Answered(answer))) => answer,
            Ok(Ok(Exchange::Unsent(_))) => {
                return Err(lost(Lost::Unsent, "it closed a new connection at once"));
            }
            Ok(Err(Failure { why, .. })) => return Err(lost(Lost::Unknown, &why)),
            Err(_) => return Err(lost(Lost::Unknown, "there is no answer in time")),
        };
        let (status, retry_after) = (answer.status().as_u16(), head::retry_after(answer.headers()));
        let body = read(&mut connection, answer, until, body_max).await;
        Ok(Heard { status, retry_after, body })
    }

    fn request(&self, outgoing: Outgoing) -> Option<Request<Full<Bytes>>> {
        let path = if outgoing.path.is_empty() {
            self.path.expose().to_owned()
        } else {
            [self.path.expose().trim_end_matches('/'), outgoing.path.as_str()].concat()
        };
        let mut request = Request::new(Full::new(Bytes::from(outgoing.body)));
        *request.uri_mut() = path.parse().ok()?;
        *request.method_mut() = match outgoing.method {
            Method::Get => ::http::Method::GET,
            Method::Post => ::http::Method::POST,
            Method::Patch => ::http::Method::PATCH,
        };
        let headers = request.headers_mut();
        for (name, value) in outgoing.headers {
            let mut value = HeaderValue::try_from(value).ok()?;
            value.set_sensitive(true);
            headers.insert(HeaderName::from_static(name), value);
        }
        headers.insert(HOST, self.host_header.clone());
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static(head::AGENT));
        if outgoing.method != Method::Get {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        Some(request)
    }
}

async fn read(
    connection: &mut Connection,
    answer: Response<Incoming>,
    until: Instant,
    body_max: usize,
) -> Vec<u8> {
    let (mut body, mut incoming) = (Vec::new(), answer.into_body());
    while body.len() < body_max {
        let chunk = poll_fn(|cx| connection.poll_data(&mut incoming, cx));
        match tokio::time::timeout_at(until.into(), chunk).await {
            Ok(Some(Ok(chunk))) => {
                let room = body_max - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
            }
            _ => break,
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(url: &str) -> Result<String, &'static str> {
        Address::new(url, false, None).map(|address| address.path.expose().to_owned())
    }

    #[test]
    fn a_path_is_kept_as_it_is_written() {
        for (url, expected) in [
            ("http://127.0.0.1:1", "/"),
            ("http://127.0.0.1:1/", "/"),
            ("http://127.0.0.1:1/hook/", "/hook/"),
            ("http://127.0.0.1:1/a/b?token=x/y", "/a/b?token=x/y"),
            ("http://127.0.0.1:1?token=x", "/?token=x"),
        ] {
            assert_eq!(parts(url), Ok(expected.to_owned()), "{url}");
        }
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        for url in [
            "",
            "hooks.slack.com/services",
            "http://example.com/hook",
            "http://10.0.0.1/hook",
            "ftp://127.0.0.1",
            "http://user:swordfish@127.0.0.1",
            "http://127.0.0.1/a#b",
            "http://127.0.0.1/a b",
        ] {
            let why = parts(url).unwrap_err();
            assert!(!why.contains("swordfish"), "{url}");
        }
    }
}
