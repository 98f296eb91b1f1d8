//! The port through which people and other tools are told.
//!
//! Owns: what is known of a channel, and that one call is one attempt. Refuses to know: how a
//! channel is spoken to.
//!
//! One call of [`Courier::deliver`] is one attempt. In which order notices go, how often one is
//! tried, and what is done about [`Delivery::Unknown`] is decided where it is known what was told
//! before.

use dialect::notify::Notice;

pub use dialect::notify::Delivery;

use crate::outbound::Boxed;

/// Whoever delivers notices.
pub trait Courier: Send + Sync {
    /// Every channel, in the order in which they were configured.
    fn channels(&self) -> Vec<ChannelFacts>;

    /// Makes one attempt, within the channel's own deadline. Dropped in the middle it may have
    /// delivered the notice all the same: as [`Delivery::Unknown`].
    fn deliver<'a>(&'a self, channel: &'a str, notice: &'a Notice) -> Boxed<'a, Delivery>;

    /// What stood in the way of the last attempt, in our own words and never in those of the far
    /// side; `None` where nothing did, or nobody knows more than the outcome says.
    fn why(&self, channel: &str) -> Option<&'static str>;
}

/// What is known of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelFacts {
    /// Its name, as configured.
    pub name: String,
    /// Its kind: `slack`, `telegram`, `email`, `pagerduty`, `statuspage`, `alertmanager` or
    /// `webhook`.
    pub kind: &'static str,
    /// Whether the far side recognises a notice that it has had before, so that a second attempt
    /// after [`Delivery::Unknown`] tells nobody twice.
    pub repeats_are_known: bool,
}

impl ChannelFacts {
    /// Whether the far side shows how things stand, and nobody is woken by what it is told.
    #[must_use]
    pub fn shows_states(&self) -> bool {
        matches!(self.kind, "statuspage" | "alertmanager")
    }
}
