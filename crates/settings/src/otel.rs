//! What the settings of OpenTelemetry hold: a share of all traces, and headers as pairs.
//!
//! Owns: the forms of both, and what a text of them means. Refuses to know: what is traced, and who
//! is sent the headers.

use crate::knob::FromText;

/// Digits behind the point at most.
const DIGITS_MAX: usize = 9;
/// The whole, in billionths.
const WHOLE: u32 = 1_000_000_000;

/// A share from 0 to 1, exact to the billionth.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share(u32);

impl Share {
    /// Billionths of the whole, 0 to 1 000 000 000.
    #[must_use]
    pub const fn billionths(self) -> u32 {
        self.0
    }
}

impl FromText for Share {
    fn from_text(text: &str) -> Option<Share> {
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let is_part = (1..=DIGITS_MAX).contains(&part.len());
        if !is_part || !part.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let whole = match whole {
            "0" => 0,
            "1" => WHOLE,
            _ => return None,
        };
        let part: u32 = format!("{part:0<DIGITS_MAX$}").parse().ok()?;
        (whole + part <= WHOLE).then_some(Share(whole + part))
    }
}

/// The pairs of `OTEL_EXPORTER_OTLP_HEADERS`: `name=value,name=value`, with `%` and two digits for
/// what cannot stand in there itself. Names are in lower case. `None` when the text is of another
/// form.
#[must_use]
pub fn header_pairs(text: &str) -> Option<Vec<(String, String)>> {
    text.split(',').map(pair).collect()
}

fn pair(text: &str) -> Option<(String, String)> {
    let (name, value) = text.split_once('=')?;
    let (name, value) = (name.trim(), decoded(value.trim())?);
    // RFC 9110, 5.6.2: what a name is made of.
    let in_name = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    let in_value = |byte: u8| byte.is_ascii_graphic() || byte == b' ';
    let is_sound = !name.is_empty()
        && name.bytes().all(in_name)
        && value.trim() == value
        && !value.is_empty()
        && value.bytes().all(in_value);
    is_sound.then(|| (name.to_ascii_lowercase(), value))
}

fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut out = parts.next()?.to_owned();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        // `from_str_radix` alone would take a sign.
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        out.push(char::from(u8::from_str_radix(digits, 16).ok()?));
        out.push_str(rest);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_exact_to_the_billionth() {
        for (text, billionths) in [
            ("0", Some(0)),
            ("0.0", Some(0)),
            ("1", Some(WHOLE)),
            ("1.000000000", Some(WHOLE)),
            ("0.1", Some(100_000_000)),
            ("0.01", Some(10_000_000)),
            ("0.000000001", Some(1)),
            ("0.0000000001", None),
            ("1.000000001", None),
            ("2", None),
            (".5", None),
            ("0.", None),
            ("", None),
            ("-0.1", None),
            ("+1", None),
            ("00", None),
            ("1e-3", None),
            ("0,5", None),
            ("50%", None),
            (" 0.5", None),
            ("NaN", None),
        ] {
            assert_eq!(Share::from_text(text).map(Share::billionths), billionths, "{text}");
        }
    }

    #[test]
    fn headers_are_pairs_and_their_values_may_be_encoded() {
        let pairs = |text: &str| {
            let pairs = header_pairs(text)?;
            Some(pairs.iter().map(|(name, value)| format!("{name}: {value}")).collect::<Vec<_>>())
        };
        for (text, expected) in [
            ("api-key=k", vec!["api-key: k"]),
            (
                "Authorization=Bearer%20a%2Cb, X-Scope = one ",
                vec!["authorization: Bearer a,b", "x-scope: one"],
            ),
            ("authorization=Basic dXNlcjpwYXNz==", vec!["authorization: Basic dXNlcjpwYXNz=="]),
        ] {
            assert_eq!(pairs(text).unwrap(), expected, "{text}");
        }
        for text in [
            "", "a", "=a", "a=", "a b=c", "a=b,", "a=%2", "a=%zz", "a=%0ab", "a=%+1", "a=%C3%A9",
            "a=%20",
        ] {
            assert_eq!(pairs(text), None, "{text}");
        }
    }
}
