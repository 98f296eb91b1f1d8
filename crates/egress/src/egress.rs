//! The registry of dependencies, and the port.
//!
//! Owns: what a dependency is registered with, and the policy for all of them. Refuses to know: how
//! an attempt is made.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use engine::outbound::{Attempt, Boxed, Breaker, DependencyState, Outbound, Reply, SendError};
use telemetry::metrics::Metrics;

use crate::base::Base;
use crate::error::Error;
use crate::peer::Peer;
use crate::tls;

/// Something outside that is called.
#[derive(Debug, Clone)]
pub struct Dependency {
    /// Its name in metrics, logs and attempts.
    pub name: &'static str,
    /// `http(s)://host[:port][/path]`. Without https only this machine can be reached, or what
    /// `is_private_allowed` adds.
    pub base: String,
    /// Calls that may be under way at once, and so connections.
    pub in_flight_max: usize,
    /// How long making a connection may take: name, socket and TLS.
    pub connect: Duration,
    /// Whether it may be at an address that is not on the public network. With plain HTTP it then
    /// may be nowhere else.
    pub is_private_allowed: bool,
}

/// What holds for all dependencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Policy {
    /// Failures in a row that open a breaker (`CIRCUIT_BREAKER_THRESHOLD`); 0 is taken for 1.
    pub threshold: u32,
    /// How long it stays open before a probe is sent (`CIRCUIT_BREAKER_TIMEOUT`).
    pub open_for: Duration,
    /// Retries within ten seconds, in hundredths of the calls in that time. Ten are let through in
    /// any case, as a quiet service could not retry at all; with 0 there are none.
    pub retry_share_pct: u32,
}

impl Default for Policy {
    fn default() -> Policy {
        Policy { threshold: 5, open_for: Duration::from_secs(30), retry_share_pct: 10 }
    }
}

/// The one way out.
pub struct Egress {
    /// In the order of registration; so few that walking through them is the fastest way to find
    /// one.
    peers: Vec<Arc<Peer>>,
    policy: Arc<ArcSwap<Policy>>,
}

impl Egress {
    /// Registers the dependencies. `extra_roots` is PEM and holds root certificates beside the
    /// system's, such as that of a company's own proxy; it may be empty.
    ///
    /// # Errors
    /// [`Error`] names the dependency that cannot be registered, or says what TLS lacks.
    pub fn new(
        dependencies: &[Dependency],
        policy: Policy,
        extra_roots: &[u8],
        metrics: &Metrics,
    ) -> Result<Egress, Error> {
        let policy = Arc::new(ArcSwap::from_pointee(policy));
        let mut peers: Vec<Arc<Peer>> = Vec::with_capacity(dependencies.len());
        // Reading the system's roots takes a while, and a service without https needs none.
        let mut connector = None;
        for dependency in dependencies {
            let name = dependency.name;
            if peers.iter().any(|peer| peer.name == name) {
                return Err(Error::Twice { name });
            }
            let base = Base::parse(dependency)?;
            if base.is_tls && connector.is_none() {
                connector = Some(tls::connector(extra_roots, Some(b"http/1.1"))?);
            }
            let tls = connector.clone().filter(|_| base.is_tls);
            let peer = Peer::new(dependency, Arc::clone(&policy), base, tls, metrics)?;
            peers.push(Arc::new(peer));
        }
        Ok(Egress { peers, policy })
    }

    /// Puts another policy in force, for what is under way too.
    pub fn set_policy(&self, policy: Policy) {
        self.policy.store(Arc::new(policy));
        self.peers.iter().for_each(|peer| peer.look());
    }

    /// Holds a dependency's breaker for an operator, or with `None` lets it go: it is closed then,
    /// and failures are counted anew. Held half open it lets one call at a time through. False
    /// where nobody is registered under the name.
    pub fn force(&self, dependency: &str, breaker: Option<Breaker>) -> bool {
        let peer = self.find(dependency);
        if let Some(peer) = peer {
            peer.force(breaker);
        }
        peer.is_some()
    }

    /// Closes connections that have been idle for too long. To be called now and then; while calls
    /// are made it happens by itself.
    pub fn sweep(&self) {
        self.peers.iter().for_each(|peer| peer.sweep());
    }

    fn find(&self, name: &str) -> Option<&Arc<Peer>> {
        self.peers.iter().find(|peer| peer.name == name)
    }
}

impl Outbound for Egress {
    fn send(&self, attempt: Attempt) -> Boxed<'_, Result<Reply, SendError>> {
        let Some(peer) = self.find(attempt.dependency) else {
            tracing::error!(
                event = "egress_unregistered",
                dependency = attempt.dependency,
                "nobody has registered this dependency"
            );
            return Box::pin(std::future::ready(Err(SendError::Dns)));
        };
        Box::pin(peer.send(attempt))
    }

    fn is_open_to(&self, dependency: &str) -> bool {
        self.find(dependency).is_some_and(|peer| peer.is_open())
    }

    fn dependencies(&self) -> Vec<DependencyState> {
        self.peers.iter().map(|peer| peer.state()).collect()
    }
}

/// The runtime's clock, which a test can stop.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
