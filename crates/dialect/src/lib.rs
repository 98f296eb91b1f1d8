//! Inbound bytes to meaning: strict JSON, the Pub/Sub push envelope, the marketplace bodies, and
//! what clients and providers of models say to each other, and what people are told about
//! incidents.
//!
//! Owns: which bodies are understood, what each member may hold, and how a refusal is worded.
//! Refuses to know: routes, credentials, states of entitlements, and what is stored of a request.

use std::borrow::Cow;
use std::fmt;

use types::Reason;

pub mod admin;
pub mod ai;
mod fields;
pub mod json;
pub mod marketplace;
pub mod notify;
pub mod pubsub;
pub mod request_id;

pub use json::JsonLimits;

/// Why a body was refused. Always the caller's fault: every reason used here is a 400.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}: {detail}")]
pub struct Fault {
    /// The row of the reason table.
    pub reason: Reason,
    /// What the caller has to change.
    pub detail: Detail,
}

impl Fault {
    pub(crate) fn new(reason: Reason, detail: impl Into<Cow<'static, str>>) -> Fault {
        Fault { reason, detail: Detail(detail.into()) }
    }
}

/// One short sentence that names the member and what is expected of it, lower case, no full stop.
///
/// Made in this crate only, from fixed words, positions and checked member names, so that it may
/// be shown and logged as it is: a value of the request cannot be inside.
#[derive(Clone, PartialEq, Eq)]
pub struct Detail(Cow<'static, str>);

impl Detail {
    /// The sentence.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Detail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}
