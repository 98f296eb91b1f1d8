//! The whole binary, from outside: its sockets, its files, its exit codes.
//!
//! Owns: what a client and an operator may rely on. Refuses to know: any type of the service; what
//! is checked here was read from an answer, a log line or a file.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod access;
mod ai;
mod bad_input;
mod callers;
mod calls;
mod channels;
mod collector;
mod copies;
mod ctl_lines;
mod door;
mod drain;
mod external;
mod hook;
mod incidents;
mod instances;
mod key_create;
mod kills;
mod limits;
mod live;
mod logs;
mod operations;
mod outage;
mod paged;
mod peers;
mod planned;
mod power;
mod pubsub;
mod schemathesis;
mod secrets;
mod settings;
mod sight;
mod start_stop;
mod support;
mod tamper;
mod traces;
mod validation;
mod verbs;
mod watch;
mod watcher;
