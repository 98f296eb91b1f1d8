//! The words that every crate shares: ids, hashes, time, refusal reasons and limits.
//!
//! Owns: validation of identifiers, the one table of refusal reasons, the one list of limits,
//! scopes, what a credential looks like and its removal from text. Refuses to know: JSON shapes,
//! HTTP routes, storage, and what any tenant may do.

pub mod access;
pub mod credentials;
pub mod hash;
pub mod ids;
pub mod limits;
pub mod reason;
pub mod redact;
pub mod severity;
pub mod time;
pub mod usage;

pub use access::{KeyId, KeyOwner, Scope, Scopes};
pub use hash::Hash;
pub use ids::{EntitlementId, IdError, LaneId, ReceiptId, StreamName, TenantId, split_lane};
pub use reason::{Blame, Reason};
pub use severity::Severity;
pub use time::{Clock, Micros, Millis};
pub use usage::{Operation, Usage};
