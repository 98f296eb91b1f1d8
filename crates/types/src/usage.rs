//! What a call to a model used, in buckets that do not overlap.
//!
//! Owns: the buckets, and their names in receipts and answers. Refuses to know: how a provider
//! counts, and what a token costs.
//!
//! Providers disagree whether cached tokens are part of the prompt and reasoning part of the
//! answer; whoever reads an answer sorts that out, so that each token is in exactly one bucket.

/// What a model is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Operation {
    /// An answer to a conversation.
    Chat,
    /// Vectors of texts.
    Embeddings,
}

impl Operation {
    /// Every operation.
    pub const ALL: [Operation; 2] = [Operation::Chat, Operation::Embeddings];

    /// The word in metrics and answers.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Operation::Chat => "chat",
            Operation::Embeddings => "embeddings",
        }
    }

    /// The `action` of its receipts.
    #[must_use]
    pub const fn action(self) -> &'static str {
        match self {
            Operation::Chat => "ai.chat",
            Operation::Embeddings => "ai.embeddings",
        }
    }
}

macro_rules! buckets {
    ($($field:ident, $doc:literal;)+) => {
        /// Tokens of one call, or of many; each is counted in one bucket only.
        #[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
        pub struct Usage { $(#[doc = $doc] pub $field: u64,)+ }

        impl Usage {
            /// The names of the buckets, as receipts, price tables and answers use them.
            pub const BUCKETS: &'static [&'static str] = &[$(stringify!($field),)+];

            /// The buckets in the order of [`Usage::BUCKETS`].
            #[must_use]
            pub const fn counts(&self) -> [u64; Usage::BUCKETS.len()] {
                [$(self.$field,)+]
            }

            /// The usage with these counts, in the order of [`Usage::BUCKETS`].
            #[must_use]
            pub const fn of(counts: [u64; Usage::BUCKETS.len()]) -> Usage {
                let [$($field,)+] = counts;
                Usage { $($field,)+ }
            }

            /// Both together.
            #[must_use]
            pub const fn plus(&self, other: &Usage) -> Usage {
                Usage { $($field: self.$field.saturating_add(other.$field),)+ }
            }

            /// All tokens.
            #[must_use]
            pub const fn total(&self) -> u64 {
                0u64 $(.saturating_add(self.$field))+
            }
        }
    };
}

buckets! {
    input, "Of the prompt, read anew: neither cached nor of another kind below.";
    cache_read, "Of the prompt, from the provider's cache.";
    cache_write, "Of the prompt, put into the provider's cache.";
    output, "Of the answer, as text or calls of tools.";
    reasoning, "Thought and not said, which is billed as output.";
    audio, "Of sound, in the prompt or the answer.";
    image, "Of pictures, where the provider counts them apart.";
    tool, "Of tools that the provider itself ran.";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_listed_once_and_add_up() {
        let usage = Usage::of([1, 2, 4, 8, 16, 32, 64, 128]);
        assert_eq!(usage.total(), 255);
        assert_eq!(Usage::of(usage.counts()), usage);
        assert_eq!((usage.cache_read, usage.output, usage.tool), (2, 8, 128));
        assert_eq!(usage.plus(&usage).total(), 510);
        assert_eq!(Usage::BUCKETS[3], "output");
    }
}
