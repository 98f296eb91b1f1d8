//! What the service says about itself: metrics, log lines and its own process figures.
//!
//! Owns the table of metrics and its rendering, the shape of a log line and its redaction, the
//! log sinks, spans and which of them are kept, and the reading of `/proc` and of control groups.
//! Refuses to know: what a request, a receipt or an incident is, which routes exist, and when
//! anything is worth saying.
//!
//! The crate stands in the pure ring with one exception: the log sinks write to stdout or a file
//! from a thread of their own, with monotonic time for the rotation check, spans are
//! measured by it, and `process` and
//! `machine` read what the system tells of itself. Wall time is still injected.

mod error;
pub mod log;
pub mod machine;
pub mod metrics;
pub mod outbox;
pub mod process;
pub mod trace;

pub use error::Error;
pub use log::LogHandle;
pub use metrics::Metrics;
