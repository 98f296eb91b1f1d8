//! The settings whose value is one word of a closed list.
//!
//! Owns: the words, their aliases and their types.
//! Refuses to know: which setting uses which list, and what the choice changes.

use crate::knob::FromText;

/// One list gives the type, the words that a person may write and the word that is shown back.
macro_rules! choices {
    ($(#[doc = $about:literal] $name:ident {
        $(#[doc = $means:literal] $variant:ident = $word:literal $(| $alias:literal)*,)+
    })+) => { $(
        #[doc = $about]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum $name { $(#[doc = $means] $variant,)+ }

        impl $name {
            /// Every word that is accepted, aliases included, in the order of the list.
            pub const WORDS: &'static [&'static str] = &[$($word $(, $alias)*),+];

            /// The word of this choice; for an aliased choice the first one.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $($name::$variant => $word,)+ }
            }
        }

        impl FromText for $name {
            fn from_text(text: &str) -> Option<$name> {
                match text {
                    $($word $(| $alias)* => Some($name::$variant),)+
                    _ => None,
                }
            }
        }
    )+ };
}

choices! {
    /// When a request needs a key.
    AuthRequired {
        /// Always, unless the service listens on a loopback address.
        Auto = "auto",
        /// Always.
        True = "true",
    }
    /// Where receipts are kept.
    Backend {
        /// A file per installation; survives the process.
        Sqlite = "sqlite",
        /// The process's own memory; lost with it. The seeds call it `ets`.
        Memory = "memory" | "ets",
        /// A server that any number of instances share.
        Postgres = "postgres",
        /// Google's Firestore, that any number of instances share.
        Firestore = "firestore",
    }
    /// Which part of the service an instance is.
    ServiceRole {
        /// All of it.
        All = "all",
        /// It answers requests, and leaves what is due and what is pulled to others.
        Gateway = "gateway",
        /// It does what is due and pulls signals, and takes no request of a tenant.
        Worker = "worker",
    }
    /// When the spool stands in for a shared store.
    SpoolUse {
        /// While the store is away.
        Auto = "auto",
        /// Also while it answers.
        Forced = "forced",
        /// Never.
        Off = "off",
    }
    /// Which receipts are taken.
    Writes {
        /// All, until a stored receipt fails verification.
        Auto = "auto",
        /// None but those of the service about itself.
        Frozen = "frozen",
        /// All, also after a stored receipt failed verification.
        Open = "open",
    }
    /// When the embedded database waits for the disk.
    Synchronous {
        /// At every commit: an acknowledged receipt survives a power loss.
        Full = "full",
        /// Never: a power loss may take acknowledged receipts.
        Off = "off",
    }
    /// The least severe event that is logged.
    LogLevel {
        /// Everything.
        Debug = "debug",
        /// Normal operation and worse.
        Info = "info",
        /// What may need attention and worse.
        Warn = "warn",
        /// Only what a person must look at.
        Error = "error",
    }
}
