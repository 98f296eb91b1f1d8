//! The whole binary, from outside: its sockets, its files, its exit codes.
//!
//! Owns: what a client and an operator may rely on. Refuses to know: any type of the service; what
//! is checked here was read from an answer, a log line or a file.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod bad_input;
mod door;
mod drain;
mod kills;
mod operations;
mod power;
mod pubsub;
mod settings;
mod support;
mod tamper;
mod verbs;
