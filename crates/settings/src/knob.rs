//! One row of the table: what a setting is called and which texts it accepts.
//!
//! Owns: the kinds of values, their ranges, and the sentence that describes what is expected.
//! Refuses to know: which settings exist and where a value comes from.

// From `core`: the address types without the sockets, which a pure crate may not see.
use core::net::IpAddr;
use std::path::PathBuf;

use crate::form::Form;

/// A setting, as documented and as checked.
#[derive(Debug, Clone, Copy)]
pub struct Knob {
    /// The environment variable, such as `PORT`.
    pub name: &'static str,
    /// The key in the settings file: `name` in lower case.
    pub key: &'static str,
    /// Which values are accepted.
    pub kind: Kind,
    /// The value when nobody sets one; `None` leaves an optional setting unset.
    pub default: Option<&'static str>,
    /// What a number counts, in the plural; empty for anything that is no quantity.
    pub unit: &'static str,
    /// Whether the value is hidden wherever settings are shown.
    pub secret: bool,
    /// Whether a change takes effect without a restart.
    pub live: bool,
    /// The value that gives up a guarantee, if there is one. A running process takes it by lease
    /// only, so that it ends by itself.
    pub relaxes: Option<&'static str>,
    /// What the setting changes, in a sentence.
    pub help: &'static str,
}

/// The values that a setting accepts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A whole number within bounds, both included.
    Integer {
        /// The smallest value, in the unit of the row.
        min: u64,
        /// The largest value, in the unit of the row.
        max: u64,
    },
    /// `true` or `false`.
    Flag,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A path of the file system, relative to the working directory unless absolute.
    Path,
    /// An IPv4 or IPv6 address, without port or brackets.
    Address,
    /// Text of a certain form.
    Text(Form),
}

impl Kind {
    /// Whether `text` is within the kind's range.
    #[must_use]
    pub fn accepts(self, text: &str) -> bool {
        match self {
            // Digits only: `parse` alone would also take a leading plus sign.
            Kind::Integer { min, max } => {
                text.bytes().all(|byte| byte.is_ascii_digit())
                    && text.parse().is_ok_and(|number: u64| (min..=max).contains(&number))
            }
            Kind::Flag => bool::from_text(text).is_some(),
            Kind::Choice(words) => words.contains(&text),
            Kind::Path => PathBuf::from_text(text).is_some(),
            Kind::Address => IpAddr::from_text(text).is_some(),
            Kind::Text(form) => form.accepts(text),
        }
    }

    /// How the value is written in a settings file.
    pub(crate) const fn toml_type(self) -> &'static str {
        match self {
            Kind::Integer { .. } => "integer",
            Kind::Flag => "boolean",
            Kind::Choice(_) | Kind::Path | Kind::Address | Kind::Text(_) => "string",
        }
    }
}

impl Knob {
    /// What a correct value looks like, with range and unit, such as
    /// `a whole number from 1 to 600000 milliseconds`.
    #[must_use]
    pub fn expected(&self) -> String {
        match self.kind {
            Kind::Integer { min, max } if self.unit.is_empty() => {
                format!("a whole number from {min} to {max}")
            }
            Kind::Integer { min, max } => {
                format!("a whole number from {min} to {max} {}", self.unit)
            }
            Kind::Flag => "true or false".to_owned(),
            Kind::Choice(words) => format!("one of {}", words.join(", ")),
            Kind::Path => "a path".to_owned(),
            Kind::Address => "an IPv4 or IPv6 address".to_owned(),
            Kind::Text(form) => form.expected().to_owned(),
        }
    }

    /// The row with a value that a change may set without a restart.
    pub(crate) const fn live(self) -> Knob {
        Knob { live: true, ..self }
    }

    /// The row with a value that is never shown.
    pub(crate) const fn secret(self) -> Knob {
        Knob { secret: true, ..self }
    }

    /// The row with `value` as the one that gives up a guarantee.
    pub(crate) const fn relaxes(self, value: &'static str) -> Knob {
        Knob { relaxes: Some(value), ..self }
    }
}

/// From a text to the type of a field of [`crate::Settings`].
pub(crate) trait FromText: Sized {
    /// `None` when `text` is no such value.
    fn from_text(text: &str) -> Option<Self>;
    /// The value when neither environment, file nor default gives a text.
    fn unset() -> Option<Self> {
        None
    }
}

macro_rules! parsed {
    ($($type:ty),+) => { $(impl FromText for $type {
        fn from_text(text: &str) -> Option<$type> {
            text.parse().ok()
        }
    })+ };
}
parsed!(u16, u32, u64, usize, bool, String, IpAddr);

impl FromText for PathBuf {
    fn from_text(text: &str) -> Option<PathBuf> {
        // No file system takes a NUL, and it would surface as an obscure error much later.
        (!text.is_empty() && !text.contains('\0')).then(|| PathBuf::from(text))
    }
}

impl<T: FromText> FromText for Option<T> {
    fn from_text(text: &str) -> Option<Option<T>> {
        T::from_text(text).map(Some)
    }
    fn unset() -> Option<Option<T>> {
        Some(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_accept_their_range_and_nothing_else() {
        let number = Kind::Integer { min: 10, max: 60_000 };
        let word = Kind::Choice(&["full", "off"]);
        let cases: &[(Kind, &[&str], &[&str])] = &[
            (
                number,
                &["10", "60000", "0042"],
                &["9", "60001", "-10", "+10", "1e3", "10.0", " 10", "10 ", "0x20", "", "ten", "١٠"],
            ),
            (number, &[], &["18446744073709551616", "99999999999999999999999999"]),
            (Kind::Flag, &["true", "false"], &["TRUE", "yes", "1", "0", "on", "", " true"]),
            (word, &["full", "off"], &["Full", "of", "off ", "", "full,off"]),
            (Kind::Path, &["a", "/a b/ä", ".", "-"], &["", "a\0b"]),
            (
                Kind::Address,
                &["127.0.0.1", "::1", "0.0.0.0", "fe80::1"],
                &["localhost", "127.0.0.1:80", "[::1]", "127.1", "256.0.0.1", ""],
            ),
        ];
        for (kind, good, bad) in cases {
            for text in *good {
                assert!(kind.accepts(text), "{kind:?} must accept {text:?}");
            }
            for text in *bad {
                assert!(!kind.accepts(text), "{kind:?} must refuse {text:?}");
            }
        }
    }
}
