//! The engine as its callers see it, over a real store that fails, lies and blocks on demand.
//!
//! Every test of an engine ends with [`world::verify`]: the whole ledger is hashed, linked and
//! folded again from stored bytes, and the store's projections are compared with the folds.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod access;
mod actions;
mod altered;
mod carry_over;
mod copies;
mod drain;
mod failures;
mod fault_store;
mod given_up;
mod instances;
mod orphans;
mod outage;
mod path;
mod post;
mod restart;
mod rivals;
mod robot;
mod streams;
mod successors;
mod tellers;
mod timers;
mod world;
