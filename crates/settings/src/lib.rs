//! The one table of settings, and the way from texts to a typed [`Settings`].
//!
//! Owns: each setting's name, kind, range, unit, default and help; precedence (lease over live
//! change over environment over file over default); which changes a running process takes; where
//! each value came from; the generated page about them.
//! Refuses to know: the process environment, the file system, the clock, where changes are kept,
//! and what a setting does.

mod baseline;
mod change;
mod choices;
mod error;
mod file;
mod form;
mod knob;
mod otel;
mod page;
mod resolve;
mod secret;
mod table;

pub use baseline::Baseline;
pub use change::{Change, Lease, check_change};
pub use choices::{AuthRequired, Backend, LogLevel, ServiceRole, SpoolUse, Synchronous, Writes};
pub use error::{ChangeError, SettingError};
pub use form::{Form, breakers};
pub use knob::{Kind, Knob};
pub use otel::{Share, header_pairs};
pub use page::markdown;
pub use resolve::{Origin, Resolved, Source};
pub use secret::Secret;
pub use table::{Settings, table};
