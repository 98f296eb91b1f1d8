//! A few connections that read, shared by however many threads ask.
//!
//! Owns: how many there are and who waits. Refuses to know: what is read.

use std::sync::{Condvar, Mutex, PoisonError};

use rusqlite::Connection;

/// Reads at the same time; further ones wait.
pub(crate) const READERS: usize = 4;

pub(crate) struct Pool {
    slots: Vec<Mutex<Connection>>,
    idle: Mutex<Vec<usize>>,
    returned: Condvar,
}

impl Pool {
    pub(crate) fn new(connections: Vec<Connection>) -> Pool {
        let idle = Mutex::new((0..connections.len()).collect());
        let slots = connections.into_iter().map(Mutex::new).collect();
        Pool { slots, idle, returned: Condvar::new() }
    }

    /// Lends a connection to `read`, waiting for one if all are lent.
    pub(crate) fn with<T>(&self, read: impl FnOnce(&Connection) -> T) -> T {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = loop {
            match idle.pop() {
                Some(slot) => break slot,
                None => idle = self.returned.wait(idle).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(idle);
        let _lent = Lent { pool: self, slot };
        // Never contended: the slot is ours until `_lent` goes. The lock only satisfies `Sync`.
        let conn = self.slots[slot].lock().unwrap_or_else(PoisonError::into_inner);
        read(&conn)
    }
}

/// Returns the slot also when `read` panics.
struct Lent<'a> {
    pool: &'a Pool,
    slot: usize,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        let mut idle = self.pool.idle.lock().unwrap_or_else(PoisonError::into_inner);
        idle.push(self.slot);
        self.pool.returned.notify_one();
    }
}
