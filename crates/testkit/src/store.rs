//! What any backend of the Store port has to show, and who writes to it for that.
//!
//! Owns: the conformance suite, the one for stores that several processes write, the one for copies
//! from store to store, and their author. Refuses to know: any backend.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a check fails by panicking")]

pub mod author;
pub mod conformance;
pub mod copies;
pub mod shared;

use std::sync::atomic::{AtomicBool, Ordering};

/// Sets a flag when it is dropped, so that a thread that waits for it ends also after a panic.
pub struct StopOnDrop<'a>(pub &'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}
