//! Texts that fit.
//!
//! Owns: cutting on the border of a character, and never within an escape. Refuses to know: whose
//! limit it is.

use std::borrow::Cow;

/// What stands where something was cut off.
const ELLIPSIS: char = '…';

/// How a far side counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// Unicode scalar values.
    Chars,
    /// Units of UTF-16.
    Utf16,
}

impl Unit {
    fn of(self, c: char) -> usize {
        match self {
            Unit::Chars => 1,
            Unit::Utf16 => c.len_utf16(),
        }
    }
}

/// The text as it is, in at most `max` characters.
pub(super) fn fit(text: &str, max: usize) -> String {
    fit_escaped(text, max, Unit::Chars, |_| None)
}

/// The text with each character for which there is an `escape` replaced by it, in at most `max`
/// units all in all. An escape is whole or not there.
pub(super) fn fit_escaped(
    text: &str,
    max: usize,
    unit: Unit,
    escape: impl Fn(char) -> Option<&'static str>,
) -> String {
    let room = max.saturating_sub(unit.of(ELLIPSIS));
    let mut out = String::with_capacity(text.len().min(max.saturating_mul(4)));
    let mut used = 0;
    // Where it would have to be cut, if it turns out that it has to be.
    let mut cut = 0;
    for c in text.chars() {
        let escaped = escape(c);
        let size = escaped.map_or(unit.of(c), |escape| escape.chars().map(|c| unit.of(c)).sum());
        used += size;
        if used > max {
            out.truncate(cut);
            if max > 0 {
                out.push(ELLIPSIS);
            }
            return out;
        }
        match escaped {
            Some(escape) => out.push_str(escape),
            None => out.push(c),
        }
        if used <= room {
            cut = out.len();
        }
    }
    out
}

/// The text in one line: whatever ends a line, or is no character at all, becomes a space.
pub(super) fn line(text: &str) -> Cow<'_, str> {
    let breaks = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
    if !text.contains(breaks) {
        return Cow::Borrowed(text);
    }
    Cow::Owned(text.chars().map(|c| if breaks(c) { ' ' } else { c }).collect())
}

/// The text as part of a header: letters, digits, `.`, `_` and `-` as they are, any other byte as
/// `=` and two hexadecimal digits. Different texts stay different.
pub(super) fn token(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("={byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_fits_stays_and_what_does_not_ends_in_an_ellipsis() {
        for (text, max, expected) in [
            ("", 0, ""),
            ("a", 0, ""),
            ("abc", 3, "abc"),
            ("abcd", 3, "ab…"),
            ("äöüß", 4, "äöüß"),
            ("äöüßx", 4, "äöü…"),
            ("ab", 1, "…"),
        ] {
            assert_eq!(fit(text, max), expected, "{text} in {max}");
        }
    }

    #[test]
    fn an_escape_is_whole_or_not_there() {
        let escape = |c| (c == '&').then_some("&amp;");
        let fit = |max| fit_escaped("a&b", max, Unit::Chars, escape);
        assert_eq!([fit(7), fit(6), fit(5), fit(2)], ["a&amp;b", "a…", "a…", "a…"]);
    }

    #[test]
    fn utf16_counts_two_for_what_needs_two() {
        let fit = |max| fit_escaped("😀😀", max, Unit::Utf16, |_| None);
        assert_eq!([fit(4), fit(3), fit(2)], ["😀😀", "😀…", "…"]);
    }

    #[test]
    fn a_line_is_one_line() {
        assert_eq!(line("a\r\nb\u{2028}c\0\u{85}d"), "a  b c  d");
        assert_eq!(line("plain"), "plain");
    }

    #[test]
    fn a_token_is_safe_in_a_header() {
        assert_eq!(token("INC-7.opened_1"), "INC-7.opened_1");
        assert_eq!(token("a b\r\n<=>"), "a=20b=0D=0A=3C=3D=3E");
    }

    proptest! {
        #[test]
        fn nothing_is_ever_longer_than_it_may_be(text in any::<String>(), max in 0_usize..40) {
            let escape = |c| (c == '<').then_some("&lt;");
            let chars = fit_escaped(&text, max, Unit::Chars, escape);
            prop_assert!(chars.chars().count() <= max);
            let utf16 = fit_escaped(&text, max, Unit::Utf16, escape);
            prop_assert!(utf16.encode_utf16().count() <= max);
            if text.chars().count() <= max {
                prop_assert_eq!(fit(&text, max), text);
            }
        }
    }
}
