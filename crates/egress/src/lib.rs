//! The one way out: every call that leaves the process goes through here.
//!
//! Owns: connections and TLS, which addresses may be reached, the clocks of an attempt, and what is
//! known of each dependency's health: breaker, pause, retry budget, bulkhead. Refuses to know: what
//! a body means, which dependency is tried next, and how a failure is told to a caller.
//!
//! ```text
//!   send ─▶ gate (pause, breaker, retry budget, bulkhead) ─▶ pool, or resolve, dial, TLS ─▶ head
//!             ▲                                                                            │
//!             └── verdict, place and probe, whatever way the attempt ends ◀── body ◀───────┘
//! ```
//!
//! There is no task behind a connection: whoever waits for an answer drives it. A body that nobody
//! reads is therefore read by nobody, a dropped one closes its socket in the same instant, and an
//! answer wakes one task instead of two.

mod address;
mod answers;
mod base;
mod body;
mod budget;
mod circuit;
mod connection;
mod dial;
mod egress;
mod endpoint;
mod error;
mod failure;
mod gate;
mod head;
mod hook;
mod notify;
mod pause;
mod peer;
mod pool;
mod ship;
mod signature;
mod tls;

pub use answers::RedisAnswers;
pub use egress::{Dependency, Egress, Policy};
pub use endpoint::Endpoint;
pub use error::Error;
pub use hook::Hook;
pub use notify::{ChannelConfig, ChannelKind, Channels, MailConfig, MailSecurity};
pub use ship::{Cargo, Collector, Shipper};
