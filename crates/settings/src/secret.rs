//! A value that is not shown.
//!
//! Owns: hiding it from formatting.
//! Refuses to know: what it opens.

use std::fmt;

use crate::knob::FromText;

/// The text of a secret setting. `Debug` gives `(secret)`; there is no `Display`.
///
/// Equality is for comparing settings: it ends at the first difference, so it must not decide
/// whether a caller knows the secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Box<str>);

/// What is shown in place of a secret.
pub(crate) const HIDDEN: &str = "(secret)";

impl Secret {
    /// The text itself.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret(text.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(HIDDEN)
    }
}

impl FromText for Secret {
    fn from_text(text: &str) -> Option<Secret> {
        Some(Secret(text.into()))
    }
}
