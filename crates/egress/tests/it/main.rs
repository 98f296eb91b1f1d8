//! The way out, against servers that misbehave.
//!
//! Real sockets on loopback, real clocks. A test that waits for a clock to run out waits for a
//! server that never answers, so that slowness of the machine cannot change what happens.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod connections;
mod faults;
mod health;
mod notify;
mod server;
mod tls;
mod world;
