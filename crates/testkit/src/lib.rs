//! What tests of the whole binary need: the binary itself, a client, a disk that loses power,
//! real services, a provider of models that can say no, honest skips, every reader of outside bytes
//! in one list, and what a store must do.
//!
//! Owns: children and scratch files of tests, and their end.
//! Refuses to know: what the product answers, and when that is right.

pub mod alerting;
pub mod clockshift;
pub mod crashfs;
pub mod dice;
pub mod disktrace;
pub mod firestore;
mod gcloud;
pub mod http;
pub mod mail;
pub mod parsers;
pub mod place;
pub mod postgres;
pub mod provider;
pub mod pubsub;
pub mod python;
pub mod receiver;
pub mod redis;
pub mod skip;
pub mod store;
pub mod tai;
