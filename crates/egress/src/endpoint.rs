//! An address with a path of its own, where a dependency is one place and not a whole API.
//!
//! Owns: where the path begins. Refuses to know: what is sent there.

use std::time::Duration;

use ::http::Uri;
use engine::outbound::ReplyBody;
use settings::Secret;

use crate::base::Base;
use crate::{Dependency, Error};

/// How long a connection to it may take.
const CONNECT: Duration = Duration::from_secs(5);

/// Bytes of an answer that are read so that its connection can be used again.
const ANSWER_BYTES: usize = 64 * 1024;

/// Hands an answer to `take`, to its end or to a limit.
pub(crate) async fn read_out(body: &mut dyn ReplyBody, mut take: impl FnMut(&[u8])) {
    let mut read = 0;
    while let Some(Ok(chunk)) = body.chunk().await {
        take(&chunk);
        read += chunk.len();
        if read > ANSWER_BYTES {
            break;
        }
    }
}

/// Where a dependency takes its one kind of request.
#[derive(Debug, Clone)]
pub struct Endpoint {
    dependency: Dependency,
    /// Path and query. May be the key itself.
    path: Secret,
}

impl Endpoint {
    /// The endpoint of the dependency `name` at `http(s)://host[:port][/path][?query]`. It may be
    /// on a private network; without https it may be nowhere else. At most `in_flight_max` requests
    /// are under way.
    ///
    /// # Errors
    /// [`Error::Base`], never with the address.
    pub fn new(name: &'static str, url: &str, in_flight_max: usize) -> Result<Endpoint, Error> {
        let authority = url.find("://").map_or(0, |at| at + "://".len());
        let path_at = url[authority..].find(['/', '?', '#']).map_or(url.len(), |at| authority + at);
        let (base, path) = url.split_at(path_at);
        let dependency = Dependency {
            name,
            base: base.to_owned(),
            in_flight_max,
            connect: CONNECT,
            is_private_allowed: true,
        };
        Base::parse(&dependency)?;
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        if path.contains('#') || path.parse::<Uri>().is_err() {
            return Err(Error::Base { name, why: "its path is not one" });
        }
        Ok(Endpoint { dependency, path: path.into() })
    }

    /// What it is registered as.
    #[must_use]
    pub fn dependency(&self) -> Dependency {
        self.dependency.clone()
    }

    /// The name that it is registered under.
    pub(crate) fn name(&self) -> &'static str {
        self.dependency.name
    }

    pub(crate) fn path(&self) -> &str {
        self.path.expose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_keeps_its_path_as_it_is() {
        for (url, base, path) in [
            ("http://127.0.0.1:9/ingest", "http://127.0.0.1:9", "/ingest"),
            ("https://logs.example.com", "https://logs.example.com", "/"),
            ("https://logs.example.com/a/b/", "https://logs.example.com", "/a/b/"),
            ("http://127.0.0.1:9/a?token=b/c", "http://127.0.0.1:9", "/a?token=b/c"),
            ("http://127.0.0.1:9?token=b", "http://127.0.0.1:9", "/?token=b"),
        ] {
            let endpoint = Endpoint::new("far", url, 1).unwrap();
            assert_eq!((endpoint.dependency.base.as_str(), endpoint.path()), (base, path));
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused_without_its_address() {
        for url in ["", "a.example.com", "http://user@a/", "https://a/zq#b", "https://a/z q"] {
            let error = Endpoint::new("far", url, 1).unwrap_err().to_string();
            assert!(error.contains("far") && !error.contains("zq"), "{url}: {error}");
        }
    }
}
