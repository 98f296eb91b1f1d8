//! The one table of settings, and the way from texts to a typed [`Settings`].
//!
//! Owns: each setting's name, kind, range, unit, default and help; precedence (environment over
//! file over default); where each value came from; the generated page about them.
//! Refuses to know: the process environment, the file system, and what a setting does.

mod choices;
mod error;
mod knob;
mod page;
mod resolve;
mod table;

pub use choices::{Backend, LogLevel, Synchronous};
pub use error::SettingError;
pub use knob::{Kind, Knob};
pub use page::markdown;
pub use resolve::{Origin, Resolved, Source};
pub use table::{Settings, table};
