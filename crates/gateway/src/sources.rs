//! Where a request comes from, and the sources that are refused.
//!
//! Owns: the address behind proxies, the text form of a source, and the look-up. Refuses to know:
//! why a source is blocked and for how long it should be.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use types::Micros;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address that a request comes from. Each trusted proxy appends the address that it was called
/// from to `X-Forwarded-For`; what stands further left is the caller's own claim. Where the header
/// does not reach that far, the peer itself is the source.
pub(crate) fn source(peer: IpAddr, headers: &HeaderMap, proxies: usize) -> IpAddr {
    let Some(nth) = proxies.checked_sub(1) else { return peer.to_canonical() };
    let values = headers.get_all(X_FORWARDED_FOR).into_iter();
    // Cut as bytes: what a caller put into its own part must not spoil the part of a proxy.
    let hops: Vec<&[u8]> =
        values.flat_map(|value| value.as_bytes().split(|b| *b == b',')).collect();
    let hop = hops.len().checked_sub(nth + 1).and_then(|at| address(hops[at]));
    hop.unwrap_or(peer).to_canonical()
}

/// An address as proxies write it: alone, in brackets, or with a port.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop).ok()?.trim();
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse::<SocketAddr>().ok().map(|socket| socket.ip());
    bare.parse().ok().or_else(with_port)
}

/// True when the canonical text of a source holds `address`.
pub(crate) fn covers(source: &str, address: IpAddr) -> bool {
    source.parse::<IpNet>().is_ok_and(|net| net.contains(&address.to_canonical()))
}

/// The canonical text of an address or a network; `None` when it is neither. An address is the
/// network of that address alone.
#[must_use]
pub fn canonical(text: &str) -> Option<String> {
    let net = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address.to_canonical()),
        Err(_) => match text.parse::<IpNet>().ok()?.trunc() {
            IpNet::V6(net) => mapped(net).map_or(IpNet::V6(net), IpNet::V4),
            net => net,
        },
    };
    // A network that holds everything would shut the door on the operator too.
    (net.prefix_len() > 0).then(|| net.to_string())
}

/// The IPv4 network that an IPv6 one stands for, since addresses are looked up in that form.
fn mapped(net: Ipv6Net) -> Option<Ipv4Net> {
    let length = net.prefix_len().checked_sub(96)?;
    Ipv4Net::new(net.network().to_ipv4_mapped()?, length).ok()
}

/// The sources that are refused, each until an instant.
#[derive(Debug, Default)]
pub struct Blocked {
    until: HashMap<IpNet, Micros>,
    prefixes: BTreeSet<u8>,
}

impl Blocked {
    /// These sources. Texts that are no source are left out: they were checked when they came.
    pub fn new<'a>(sources: impl Iterator<Item = (&'a str, Micros)>) -> Blocked {
        let mut blocked = Blocked::default();
        for (text, until) in sources {
            if let Ok(net) = text.parse::<IpNet>() {
                blocked.prefixes.insert(net.prefix_len());
                blocked.until.insert(net, until);
            }
        }
        blocked
    }

    /// Whether `source` is refused at `now`: one look for each length of prefix that is in use.
    #[must_use]
    pub fn holds(&self, source: IpAddr, now: Micros) -> bool {
        self.prefixes.iter().any(|prefix| {
            let net = IpNet::new(source, *prefix).ok().map(|net| net.trunc());
            net.and_then(|net| self.until.get(&net)).is_some_and(|until| now < *until)
        })
    }

    /// Sources on the list.
    #[must_use]
    pub fn len(&self) -> usize {
        self.until.len()
    }

    /// True when none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.until.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn the_source_is_what_the_outermost_trusted_proxy_saw() {
        let peer: IpAddr = "10.0.0.1".parse().unwrap();
        let headers = |texts: &[&'static str]| {
            let pair = |text: &&'static str| (X_FORWARDED_FOR, HeaderValue::from_static(text));
            texts.iter().map(pair).collect::<HeaderMap>()
        };
        for (texts, proxies, expected) in [
            (&["1.1.1.1"][..], 0, "10.0.0.1"),
            (&["1.1.1.1"], 1, "1.1.1.1"),
            (&["9.9.9.9, 1.1.1.1"], 1, "1.1.1.1"),
            (&["9.9.9.9, 1.1.1.1", "2.2.2.2"], 2, "1.1.1.1"),
            (&["1.1.1.1"], 2, "10.0.0.1"),
            (&["unknown"], 1, "10.0.0.1"),
            (&[], 1, "10.0.0.1"),
            (&["::ffff:1.1.1.1"], 1, "1.1.1.1"),
            (&["1.1.1.1:4711"], 1, "1.1.1.1"),
            (&["[2001:db8::1]:4711"], 1, "2001:db8::1"),
            (&["[2001:db8::1]"], 1, "2001:db8::1"),
        ] {
            let found = source(peer, &headers(texts), proxies);
            assert_eq!(found.to_string(), expected, "{texts:?} {proxies}");
        }
        let spoilt = HeaderValue::from_bytes(b"\xff, 1.1.1.1").unwrap();
        let spoilt = HeaderMap::from_iter([(X_FORWARDED_FOR, spoilt)]);
        assert_eq!(source(peer, &spoilt, 1).to_string(), "1.1.1.1");
    }

    #[test]
    fn texts_are_canonical_or_refused() {
        for (text, canonical_text) in [
            ("203.0.113.42", "203.0.113.42/32"),
            ("203.0.113.42/24", "203.0.113.0/24"),
            ("2001:DB8::1", "2001:db8::1/128"),
            ("::ffff:1.2.3.4", "1.2.3.4/32"),
            ("::ffff:203.0.113.0/120", "203.0.113.0/24"),
        ] {
            assert_eq!(canonical(text).as_deref(), Some(canonical_text), "{text}");
        }
        for text in ["", "localhost", "1.2.3.4/33", "0.0.0.0/0", "::/0", "1.2.3.4 ", "1.2.3"] {
            assert_eq!(canonical(text), None, "{text:?}");
        }
    }

    #[test]
    fn a_block_holds_for_its_sources_until_it_ends() {
        let list =
            [("203.0.113.0/24", Micros(100)), ("2001:db8::1/128", Micros(100)), ("no", Micros(9))];
        let blocked = Blocked::new(list.into_iter());
        assert_eq!(blocked.len(), 2);
        for (source, now, held) in [
            ("203.0.113.7", 99, true),
            ("203.0.113.7", 100, false),
            ("203.0.114.7", 0, false),
            ("2001:db8::1", 0, true),
            ("2001:db8::2", 0, false),
        ] {
            assert_eq!(blocked.holds(source.parse().unwrap(), Micros(now)), held, "{source} {now}");
        }
    }
}
