//! What the worker needs of a subscription.
//!
//! Owns: the seam between Google's client and our rules, so that the rules are tested without a
//! network. Refuses to know: gRPC, leases and retries inside the client.

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use super::Message;
use crate::Error;

/// Where messages come from.
pub(crate) trait Source: Send + Sync + 'static {
    /// Connects to the subscription of that short name, once it is known to be there. It gives at
    /// most `outstanding_max` messages that are neither acknowledged nor given back.
    fn connect<'a>(
        &'a self,
        subscription: &'a str,
        outstanding_max: usize,
    ) -> BoxFuture<'a, Result<Link, Error>>;
}

/// An open subscription. Dropping `deliveries` stops it.
pub(crate) struct Link {
    /// What is delivered. It says nothing of connections that the client repairs by itself.
    pub deliveries: BoxStream<'static, Result<Delivery, Error>>,
    /// Asks whether the subscription can still be reached.
    pub check: Check,
    /// Stops the stream as well, and ends when everything it delivered is settled with the server.
    pub settled: BoxFuture<'static, ()>,
    /// Where the subscription sends what nobody acknowledges.
    pub dead_letters: DeadLetters,
}

/// One question whether the subscription can be reached.
pub(crate) type Check = Box<dyn Fn() -> BoxFuture<'static, Result<(), Error>> + Send + Sync>;

/// What is known of a subscription's dead-letter policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DeadLetters {
    /// The full name of the topic.
    Topic(String),
    /// It has none: a message that cannot be decoded comes again for ever.
    Nowhere,
    /// The service may pull, and may not look.
    Unknown,
}

/// One delivered message; its lease is extended while this lives. Dropping it gives the message
/// back, to be delivered again.
pub(crate) struct Delivery {
    /// What was delivered.
    pub message: Message,
    /// Acknowledges it.
    pub ack: Box<dyn FnOnce() + Send>,
}
