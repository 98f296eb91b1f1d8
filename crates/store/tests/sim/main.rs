//! Engine, ledger and store under a seeded load, with a fault at every step.
//!
//! Two simulations share one workload, one book of what was acknowledged and one judge, none of
//! which knows how the engine decides:
//!
//! - [`power`]: the engine on the SQLite store, recorded step by step, and the power or the process
//!   lost at each of these steps, with any part of what was not synced.
//! - [`fleet`]: several engines on one shared store that conflicts, loses its tongue, goes away and
//!   finishes statements late, while instances pause, die and have wrong clocks.
//!
//! `docs/testing.md` says how to run the long form and how to repeat a failure.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod book;
mod fleet;
mod instance;
mod judge;
mod power;
mod shared_store;
mod workload;
