//! Google Cloud, through Google's own clients.
//!
//! Owns: how the service speaks to Google Cloud, how it survives that it is away, and how it is
//! told to use an emulator. Refuses to know: what a message means and what is decided.

mod error;
pub mod firestore;
pub mod pubsub;

pub use error::Error;
