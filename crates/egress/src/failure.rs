//! What a failed attempt is called.
//!
//! Owns: the way from what the libraries say to the port's errors, and whether such a failure
//! speaks against the dependency. Refuses to know: who is told. Nothing that the far side wrote is
//! kept.

use std::borrow::Cow;
use std::error::Error as _;
use std::io;

use engine::outbound::{Clock, SendError};
use tokio_rustls::rustls;

/// A failed attempt.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) error: SendError,
    /// For the log, in our own words.
    pub(crate) why: Cow<'static, str>,
    /// Whether it speaks against the dependency.
    pub(crate) is_its_fault: bool,
}

impl Failure {
    pub(crate) fn new(error: SendError, why: impl Into<Cow<'static, str>>) -> Failure {
        Failure { error, why: why.into(), is_its_fault: true }
    }

    /// A clock ran out. Where it is the deadline of the whole call, earlier attempts may have used
    /// the time up: that says nothing about this dependency, whose own clocks had not run out.
    pub(crate) fn clock(clock: Clock) -> Failure {
        Failure {
            error: SendError::Timeout(clock),
            why: format!("timeout: the {} clock ran out", clock.as_str()).into(),
            is_its_fault: clock != Clock::Deadline,
        }
    }

    /// The request cannot be written as HTTP. The port has no word for a mistake of ours; nobody
    /// else is blamed for it, and it is logged as what it is.
    pub(crate) fn request(why: &'static str) -> Failure {
        Failure { error: SendError::Protocol, why: why.into(), is_its_fault: false }
    }

    pub(crate) fn connect(error: &io::Error) -> Failure {
        Failure::new(SendError::Connect, error.kind().to_string())
    }

    /// The handshake failed.
    pub(crate) fn tls(error: &io::Error) -> Failure {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let why = match inner {
            Some(rustls::Error::InvalidCertificate(reason)) => certificate(reason),
            Some(rustls::Error::AlertReceived(_)) => "it refused the handshake",
            Some(_) => "the handshake failed",
            None => "the connection broke off in the handshake",
        };
        Failure::new(SendError::Tls, why)
    }

    /// Waiting for the head, or reading the body, failed.
    pub(crate) fn answer(error: &hyper::Error) -> Failure {
        let io = error.source().and_then(|source| source.downcast_ref::<io::Error>());
        // A chunk with an impossible length, or a record that TLS cannot open.
        let is_nonsense = io.is_some_and(|io| {
            matches!(io.kind(), io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput)
        });
        if error.is_parse_too_large() {
            Failure::new(SendError::Protocol, "the head of the answer is too large")
        } else if error.is_parse() || is_nonsense {
            Failure::new(SendError::Protocol, "the answer is not HTTP")
        } else {
            Failure::new(SendError::Reset, "the connection broke off")
        }
    }
}

/// The words are ours: the library's own repeat names from the certificate.
fn certificate(reason: &rustls::CertificateError) -> &'static str {
    use rustls::CertificateError as Reason;
    match reason {
        Reason::UnknownIssuer => "nobody we know has signed its certificate",
        Reason::NotValidForName | Reason::NotValidForNameContext { .. } => {
            "its certificate is for another name"
        }
        Reason::Expired | Reason::ExpiredContext { .. } => "its certificate has expired",
        Reason::NotValidYet | Reason::NotValidYetContext { .. } => {
            "its certificate is not valid yet"
        }
        Reason::Revoked => "its certificate is revoked",
        _ => "its certificate is not valid",
    }
}
