//! The port through which people and other tools are told.
//!
//! Owns: what one attempt to deliver a notice may come to. Refuses to know: channels, and how each is
//! spoken to.
//!
//! One call of [`Courier::deliver`] is one attempt. In which order notices go, how often one is tried, and
//! what is done about [`Delivery::Unknown`] is decided where it is known what was told before.

use std::time::Duration;

use dialect::notify::Notice;

use crate::outbound::Boxed;

/// Whoever delivers notices.
pub trait Courier: Send + Sync {
    /// Every channel, in the order in which they were configured.
    fn channels(&self) -> Vec<ChannelFacts>;

    /// Makes one attempt, within the channel's own deadline. Dropped in the middle it may have delivered
    /// the notice all the same: as [`Delivery::Unknown`].
    fn deliver<'a>(&'a self, channel: &'a str, notice: &'a Notice) -> Boxed<'a, Delivery>;
}

/// What is known of a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChannelFacts {
    /// Its name, as configured.
    pub name: String,
    /// Its kind: `slack`, `telegram`, `email`, `pagerduty`, `statuspage`, `alertmanager` or `webhook`.
    pub kind: &'static str,
    /// Whether the far side recognises a notice that it has had before, so that a second attempt after
    /// [`Delivery::Unknown`] tells nobody twice.
    pub repeats_are_known: bool,
}

/// What came of an attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Delivery {
    /// The far side has taken it.
    Delivered {
        /// What it calls it, where it says so.
        remote: Option<String>,
    },
    /// It was not sent, or the far side has said that it has not taken it and may do so later.
    Retry {
        /// Not before so long from now.
        after: Option<Duration>,
    },
    /// The far side has not taken it and never will, or there is no such channel.
    Refused {
        /// Why, in our own words.
        why: &'static str,
    },
    /// It was sent, and no answer came that says what became of it. Another attempt may tell it twice
    /// unless the channel's repeats are known.
    Unknown,
}
