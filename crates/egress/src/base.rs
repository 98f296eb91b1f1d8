//! A dependency's base address.
//!
//! Owns: what such an address may look like, and its parts. Refuses to know: what it resolves to.

use std::net::IpAddr;

use http::{HeaderValue, Uri};

use crate::Dependency;
use crate::address::Reach;
use crate::error::Error;

/// A base address in parts.
#[derive(Debug)]
pub(crate) struct Base {
    pub(crate) is_tls: bool,
    /// A name or an address, without the brackets of IPv6.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// As the header `Host` has it: with the port unless that is the scheme's own.
    pub(crate) host_header: HeaderValue,
    /// The path before every attempt's own, without a slash at its end.
    pub(crate) path: String,
    pub(crate) reach: Reach,
}

impl Base {
    pub(crate) fn parse(dependency: &Dependency) -> Result<Base, Error> {
        Base::parts(&dependency.base, dependency.is_private_allowed)
            .map_err(|why| Error::Base { name: dependency.name, why })
    }

    /// As [`Base::parse`], for what is not registered; says what is wrong with it.
    pub(crate) fn parts(text: &str, is_private_allowed: bool) -> Result<Base, &'static str> {
        let uri: Uri = text.parse().map_err(|_| "it is not a URL")?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("it starts with neither http:// nor https://"),
        };
        let authority = uri.authority().ok_or("it has no host")?;
        if authority.as_str().contains('@') {
            return Err("it holds a user name; keys are settings of their own");
        }
        if uri.query().is_some() || text.contains('#') {
            return Err("it has more than scheme, host, port and path");
        }
        let host = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
        if host.is_empty() {
            return Err("it has no host");
        }
        let port_default = if is_tls { 443 } else { 80 };
        let port = match (authority.port_u16(), authority.as_str().ends_with(':')) {
            (Some(0), _) | (None, true) => return Err("its port is not a port"),
            (Some(port), _) => port,
            // What follows the host is neither nothing nor a number that fits.
            (None, false) if authority.as_str().len() != authority.host().len() => {
                return Err("its port is not a port");
            }
            (None, false) => port_default,
        };
        let header = if port == port_default {
            authority.host().to_owned()
        } else {
            format!("{}:{port}", authority.host())
        };
        let host_header = HeaderValue::try_from(header).map_err(|_| "its host is not a host")?;
        let reach = reach(is_tls, is_private_allowed, &host)?;
        let path = uri.path().trim_end_matches('/').to_owned();
        Ok(Base { is_tls, host, port, host_header, path, reach })
    }
}

fn reach(is_tls: bool, is_private_allowed: bool, host: &str) -> Result<Reach, &'static str> {
    Ok(match (is_tls, is_private_allowed) {
        (true, true) => Reach::Any,
        (true, false) => Reach::Public,
        (false, true) => Reach::Inside,
        (false, false) => {
            let is_loopback = host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback());
            if !is_loopback && host != "localhost" {
                return Err("without https only this machine can be reached");
            }
            Reach::Loopback
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_an_address() {
        for (text, is_private_allowed, expected) in [
            (
                "https://api.openai.com/v1",
                false,
                (true, "api.openai.com", 443, "api.openai.com", "/v1", Reach::Public),
            ),
            (
                "https://API.openai.com:443/v1/",
                false,
                (true, "api.openai.com", 443, "API.openai.com", "/v1", Reach::Public),
            ),
            ("https://proxy:8443", true, (true, "proxy", 8443, "proxy:8443", "", Reach::Any)),
            (
                "http://127.0.0.1:11434/",
                false,
                (false, "127.0.0.1", 11434, "127.0.0.1:11434", "", Reach::Loopback),
            ),
            ("http://localhost", false, (false, "localhost", 80, "localhost", "", Reach::Loopback)),
            (
                "http://[::1]:8080/a/b",
                false,
                (false, "::1", 8080, "[::1]:8080", "/a/b", Reach::Loopback),
            ),
            ("http://vllm:8000/v1", true, (false, "vllm", 8000, "vllm:8000", "/v1", Reach::Inside)),
        ] {
            let base = Base::parts(text, is_private_allowed).unwrap();
            let found = (
                base.is_tls,
                base.host.as_str(),
                base.port,
                base.host_header.to_str().unwrap(),
                base.path.as_str(),
                base.reach,
            );
            assert_eq!(found, expected, "{text}");
        }
    }

    #[test]
    fn what_is_not_a_base_address_is_refused() {
        for text in [
            "",
            "api.openai.com",
            "/v1",
            "ftp://host",
            "https://",
            "https://user:secret@host",
            "https://host/v1?key=secret",
            "https://host/v1#part",
            "https://host:0",
            "https://host:",
            "https://host:99999",
            "http://vllm:8000",
            "http://10.0.0.1",
            "http://localhost.evil.example",
        ] {
            assert!(Base::parts(text, false).is_err(), "{text}");
        }
    }
}
