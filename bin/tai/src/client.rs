//! One HTTP client for one running service.
//!
//! Owns: time limits, the size of an answer, where the key goes, and telling "nobody is there"
//! from "no answer came". Refuses to know: which routes exist and what an answer means.

use std::io::Read;
use std::time::Duration;

use reqwest::Url;
use reqwest::blocking::{Client as Http, RequestBuilder};
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use reqwest::redirect::Policy;
use serde_json::Value;

pub(crate) use reqwest::Method;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// From the first byte sent to the last byte read.
pub(crate) const TOTAL_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest answer that is read. A list of every blocked source is a tenth of it.
const ANSWER_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// One request, without where it goes and who asks.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Call {
    /// What is done with the resource.
    pub(crate) method: Method,
    /// The parts of the path; each is escaped, so that no id can lead to another route.
    pub(crate) path: Vec<String>,
    /// Names and values behind the path.
    pub(crate) query: Vec<(&'static str, String)>,
    /// The body, if there is one.
    pub(crate) body: Option<Value>,
}

impl Call {
    /// A request without query and body. `path` holds no part that needs escaping.
    pub(crate) fn new(method: Method, path: &str) -> Call {
        let path = path.split('/').map(str::to_owned).collect();
        Call { method, path, query: Vec::new(), body: None }
    }

    /// What a probe asks.
    pub(crate) fn health() -> Call {
        Call::new(Method::GET, "health")
    }

    /// One more part of the path.
    pub(crate) fn of(mut self, part: &str) -> Call {
        self.path.push(part.to_owned());
        self
    }

    /// A name behind the path, where there is a value.
    pub(crate) fn with(mut self, name: &'static str, value: Option<String>) -> Call {
        self.query.extend(value.map(|value| (name, value)));
        self
    }

    /// A body.
    pub(crate) fn send(mut self, body: Value) -> Call {
        self.body = Some(body);
        self
    }
}

/// What a service answered, whatever it thinks of the request.
#[derive(Debug)]
pub(crate) struct Answer {
    /// The status code.
    pub(crate) status: u16,
    /// The body, whole.
    pub(crate) body: Vec<u8>,
}

impl Answer {
    /// True for every status that says yes.
    pub(crate) fn is_yes(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON, if it is.
    pub(crate) fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

/// Why there is no answer. The address is in the message, since it may come from a setting.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    /// No connection came about, so nothing was asked.
    #[error("cannot reach {base}")]
    Unreachable {
        /// Where nobody is.
        base: Url,
        /// True when the host is there and its port is closed.
        refused: bool,
        /// What the client says.
        #[source]
        source: reqwest::Error,
    },
    /// The request left, and no whole answer came back.
    #[error("no answer from {base}: whether it was done is not known")]
    Lost {
        /// Who was asked.
        base: Url,
        /// What the client says.
        #[source]
        source: reqwest::Error,
    },
    /// The answer did not arrive whole or is longer than any answer is.
    #[error("the answer from {base} is cut or too long")]
    Cut {
        /// Who was asked.
        base: Url,
    },
}

/// Why no service can be asked: a mistake of the caller's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BadTarget {
    /// Not a URL that can be asked.
    #[error("the URL must be http:// or https:// and a host, without user, query or fragment")]
    Url,
    /// Not a text that can be sent.
    #[error("the key is not one word of printable ASCII")]
    Key,
    /// The client cannot be made.
    #[error("no HTTP client")]
    Client(#[source] reqwest::Error),
}

/// A client of one service.
pub(crate) struct Client {
    http: Http,
    base: Url,
    authorization: Option<HeaderValue>,
}

impl Client {
    /// A client of the service at `url`, which may lie under a path. The key is sent with every
    /// request and shown nowhere.
    pub(crate) fn new(url: &str, key: Option<&str>) -> Result<Client, BadTarget> {
        let base = Url::parse(url).map_err(|_| BadTarget::Url)?;
        let is_web = matches!(base.scheme(), "http" | "https") && base.has_host();
        // A password here would be in the list of processes.
        let is_bare = base.username().is_empty() && base.password().is_none();
        if !is_web || !is_bare || base.query().is_some() || base.fragment().is_some() {
            return Err(BadTarget::Url);
        }
        let authorization = key.map(bearer).transpose()?;
        let http = http().map_err(BadTarget::Client)?;
        Ok(Client { http, base, authorization })
    }

    /// Asks once. Nothing is repeated: the caller must know whether it was answered.
    pub(crate) fn ask(&self, call: &Call, timeout: Duration) -> Result<Answer, NoAnswer> {
        let base = || self.base.clone();
        let answer = self.request(call).timeout(timeout).send().map_err(|error| {
            let source = error.without_url();
            if source.is_connect() {
                let refused = is_refused(&source);
                NoAnswer::Unreachable { base: base(), refused, source }
            } else {
                NoAnswer::Lost { base: base(), source }
            }
        })?;
        let status = answer.status().as_u16();
        let mut body = Vec::new();
        match answer.take(ANSWER_BYTES_MAX).read_to_end(&mut body) {
            Ok(read) if (read as u64) < ANSWER_BYTES_MAX => Ok(Answer { status, body }),
            _ => Err(NoAnswer::Cut { base: base() }),
        }
    }

    fn request(&self, call: &Call) -> RequestBuilder {
        let mut url = self.base.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(&call.path);
        }
        if !call.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&call.query);
        }
        let json = HeaderValue::from_static("application/json");
        let mut request = self.http.request(call.method.clone(), url).header(ACCEPT, json.clone());
        if let Some(authorization) = &self.authorization {
            request = request.header(AUTHORIZATION, authorization.clone());
        }
        match &call.body {
            Some(body) => request.header(CONTENT_TYPE, json).body(body.to_string()),
            None => request,
        }
    }
}

/// A client that goes where it is sent and nowhere else.
pub(crate) fn http() -> reqwest::Result<Http> {
    Http::builder()
        .connect_timeout(CONNECT_TIMEOUT)
        .redirect(Policy::none())
        // A proxy of the environment would be asked about loopback, and would see the key.
        .no_proxy()
        // Every request finds out anew whether somebody listens.
        .pool_max_idle_per_host(0)
        .build()
}

fn bearer(key: &str) -> Result<HeaderValue, BadTarget> {
    if key.is_empty() || !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(BadTarget::Key);
    }
    let mut value = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| BadTarget::Key)?;
    value.set_sensitive(true);
    Ok(value)
}

/// Whether the host is there and its port is closed, which no timeout and no lost name says.
fn is_refused(error: &reqwest::Error) -> bool {
    let causes = std::iter::successors(Some(error as &dyn std::error::Error), |it| it.source());
    causes
        .filter_map(|cause| cause.downcast_ref::<std::io::Error>())
        .any(|cause| cause.kind() == std::io::ErrorKind::ConnectionRefused)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url_of(base: &str, call: &Call) -> String {
        let request = Client::new(base, None).unwrap().request(call).build().unwrap();
        request.url().to_string()
    }

    #[test]
    fn no_part_of_a_path_leads_elsewhere() {
        let key = Call::new(Method::DELETE, "admin/keys").of("a/../b?c#d e");
        assert_eq!(url_of("http://h:1", &key), "http://h:1/admin/keys/a%2F..%2Fb%3Fc%23d%20e");
        assert_eq!(url_of("https://h/tai/", &Call::health()), "https://h/tai/health");
        let source = Call::new(Method::GET, "admin/sources").with("source", Some("::/0&x".into()));
        let source = source.with("absent", None);
        assert_eq!(url_of("http://h", &source), "http://h/admin/sources?source=%3A%3A%2F0%26x");
    }

    #[test]
    fn a_target_is_checked_before_it_is_asked() {
        for bad in ["", "h:1", "ftp://h", "http://", "http://u:p@h", "http://u@h", "http://h?a=b"] {
            assert!(matches!(Client::new(bad, None), Err(BadTarget::Url)), "{bad}");
        }
        for bad in ["", "two words", "two\nlines", "nul\0", "schlüssel"] {
            assert!(matches!(Client::new("http://h", Some(bad)), Err(BadTarget::Key)), "{bad:?}");
        }
    }
}
