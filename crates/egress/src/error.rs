//! Why there can be no way out.
//!
//! Owns: one enum, in words that name the dependency at fault. Refuses to know: what becomes of a
//! call, which the port's own errors say.

/// Why a set of dependencies is not accepted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The base address cannot be used.
    #[error("the address of dependency {name} cannot be used: {why}")]
    Base {
        /// The dependency.
        name: &'static str,
        /// What is wrong with it; the address itself is not repeated, it may hold a secret.
        why: &'static str,
    },
    /// Two dependencies have one name.
    #[error("there are two dependencies called {name}")]
    Twice {
        /// The name.
        name: &'static str,
    },
    /// A channel cannot be used as it is configured.
    #[error("the channel {name} cannot be used: {why}")]
    Channel {
        /// The channel.
        name: String,
        /// What is wrong; nothing of its configuration is repeated, it may hold a secret.
        why: &'static str,
    },
    /// No call could ever be under way.
    #[error("dependency {name} may have no call under way")]
    NoPlaces {
        /// The dependency.
        name: &'static str,
    },
    /// The extra root certificates cannot be read.
    #[error("the extra root certificates cannot be read")]
    Roots(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The system has no root certificates and none were given, but an address starts with `https`.
    #[error("there are no root certificates to check a dependency's certificate against")]
    NoRoots,
    /// The TLS library refuses its own defaults.
    #[error("TLS cannot be set up")]
    Tls(#[source] tokio_rustls::rustls::Error),
}
