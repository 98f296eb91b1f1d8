//! The store as the port promises it, and as files on a disk behave.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod author;
mod border;
mod care;
mod conformance;
mod copies;
mod files;
mod model;
mod postgres;
mod upkeep;
