//! Which addresses a dependency may be reached at.
//!
//! Owns: the ranges that are not the public network, and what each kind of base address may resolve
//! to. Refuses to know: names. The check is made on what a name resolved to for the very connection
//! that is about to be made, so that a name which changes its answer gains nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a dependency's addresses may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Only this machine: plain HTTP to a base address that says so itself.
    Loopback,
    /// Only the public network.
    Public,
    /// Only what is not the public network: plain HTTP that an operator has allowed. A key never
    /// crosses the public network in clear text.
    Inside,
    /// Any: TLS that an operator has allowed.
    Any,
}

impl Reach {
    pub(crate) fn permits(self, address: IpAddr) -> bool {
        match self {
            Reach::Loopback => plain(address).is_loopback(),
            Reach::Public => is_public(address),
            Reach::Inside => !is_public(address),
            Reach::Any => true,
        }
    }
}

/// An IPv4 address that is written as IPv6 is judged as what it is.
fn plain(address: IpAddr) -> IpAddr {
    address.to_canonical()
}

fn is_public(address: IpAddr) -> bool {
    match plain(address) {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        // Shared space of carriers, RFC 6598.
        || (a == 100 && (b & 0xc0) == 64)
        // Protocol assignments, RFC 6890, and the old anycast of 6to4.
        || (a == 192 && b == 0 && c == 0)
        || (a == 192 && b == 88 && c == 99)
        // Benchmarks, RFC 2544.
        || (a == 198 && (b & 0xfe) == 18)
        // Reserved, and broadcast.
        || a >= 240)
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [a, b, c, d, e, f, g, h] = address.segments();
    let v4 = |high: u16, low: u16| {
        let [a, b] = high.to_be_bytes();
        let [c, d] = low.to_be_bytes();
        Ipv4Addr::new(a, b, c, d)
    };
    match (a, b) {
        // NAT64 and 6to4 carry an IPv4 address, which is where the packets go.
        (0x64, 0xff9b) => [c, d, e, f] == [0; 4] && is_public_v4(v4(g, h)),
        (0x2002, _) => is_public_v4(v4(b, c)),
        // Teredo, benchmarks, ORCHID, documentation.
        (0x2001, b) => b >= 0x0200 && b != 0x0db8,
        (0x3fff, b) => b >= 0x1000,
        // Everything that is routed is in 2000::/3.
        (a, _) => (a & 0xe000) == 0x2000,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn what_is_not_the_public_network_is_known_in_every_spelling() {
        for inside in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "100.127.255.255",
            "127.0.0.1",
            "127.8.8.8",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.1",
            "192.0.2.1",
            "192.168.1.1",
            "198.18.0.1",
            "198.19.255.255",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "64:ff9b:1::1",
            "100::1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::",
            "2002:a00:1::",
            "3fff::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!is_public(at(inside)), "{inside}");
            assert!(!Reach::Public.permits(at(inside)), "{inside}");
            assert!(Reach::Inside.permits(at(inside)), "{inside}");
        }
    }

    #[test]
    fn the_public_network_is_public() {
        for public in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.0",
            "172.15.0.1",
            "172.32.0.1",
            "198.17.0.1",
            "198.20.0.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
            "2001:4860:4860::8888",
            "2606:4700::1111",
        ] {
            assert!(is_public(at(public)), "{public}");
            assert!(Reach::Public.permits(at(public)), "{public}");
            assert!(!Reach::Inside.permits(at(public)), "{public}");
            assert!(Reach::Any.permits(at(public)), "{public}");
        }
    }

    #[test]
    fn loopback_is_this_machine_and_nothing_else() {
        for (text, permitted) in [
            ("127.0.0.1", true),
            ("::1", true),
            ("::ffff:127.0.0.1", true),
            ("10.0.0.1", false),
            ("169.254.169.254", false),
            ("0.0.0.0", false),
            ("8.8.8.8", false),
        ] {
            assert_eq!(Reach::Loopback.permits(at(text)), permitted, "{text}");
        }
    }
}
