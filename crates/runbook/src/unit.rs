//! Units and spans of time as text.
//!
//! Owns: which words an operator may write, what they are worth, and how a value is shown. Refuses
//! to know: which SLI has which unit.

use std::fmt;

/// Microseconds in a second.
pub const SECOND_US: i64 = 1_000_000;
/// The longest window and the longest `for` or `hold`: samples are kept no longer.
pub const HOUR_US: i64 = 3600 * SECOND_US;

/// What a value counts. Values are in the base unit: a share from 0 to 1, seconds, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unit {
    /// A share of a whole, written in percent.
    Ratio,
    /// Seconds.
    Seconds,
    /// Bytes.
    Bytes,
    /// Events a second.
    PerSecond,
    /// Bytes a second.
    BytesPerSecond,
    /// A bare number.
    Count,
    /// 1 where it is so, 0 where it is not.
    Flag,
}

impl Unit {
    /// The base unit, as a word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Unit::Ratio => "ratio",
            Unit::Seconds => "seconds",
            Unit::Bytes => "bytes",
            Unit::PerSecond => "1/s",
            Unit::BytesPerSecond => "bytes/s",
            Unit::Count => "count",
            Unit::Flag => "0 or 1",
        }
    }

    /// What to write behind a number, for an error text.
    #[must_use]
    pub const fn expected(self) -> &'static str {
        match self {
            Unit::Ratio => "a number in %",
            Unit::Seconds => "a number in ms, s or m",
            Unit::Bytes => "a number in B, KiB, MiB, GiB, kB, MB or GB",
            Unit::PerSecond => "a number in /s",
            Unit::BytesPerSecond => "a number in B/s, KiB/s or MiB/s",
            Unit::Count => "a number without a unit",
            Unit::Flag => "0 or 1",
        }
    }
}

/// A unit as it is written. One word is `factor / divisor` of the base unit: two numbers, since
/// 7 / 100 is the nearest number to seven percent and 7 * 0.01 is not.
#[derive(Debug, PartialEq)]
pub struct Word {
    text: &'static str,
    unit: Unit,
    factor: f64,
    divisor: f64,
}

const fn word(text: &'static str, unit: Unit, factor: f64, divisor: f64) -> Word {
    Word { text, unit, factor, divisor }
}

/// Longer words stand before those that they begin with.
const WORDS: &[Word] = &[
    word("%", Unit::Ratio, 1.0, 100.0),
    word("ms", Unit::Seconds, 1.0, 1000.0),
    word("s", Unit::Seconds, 1.0, 1.0),
    word("m", Unit::Seconds, 60.0, 1.0),
    word("KiB/s", Unit::BytesPerSecond, 1024.0, 1.0),
    word("MiB/s", Unit::BytesPerSecond, 1_048_576.0, 1.0),
    word("B/s", Unit::BytesPerSecond, 1.0, 1.0),
    word("KiB", Unit::Bytes, 1024.0, 1.0),
    word("MiB", Unit::Bytes, 1_048_576.0, 1.0),
    word("GiB", Unit::Bytes, 1_073_741_824.0, 1.0),
    word("kB", Unit::Bytes, 1e3, 1.0),
    word("MB", Unit::Bytes, 1e6, 1.0),
    word("GB", Unit::Bytes, 1e9, 1.0),
    word("B", Unit::Bytes, 1.0, 1.0),
    word("/s", Unit::PerSecond, 1.0, 1.0),
    word("", Unit::Count, 1.0, 1.0),
    word("", Unit::Flag, 1.0, 1.0),
];

/// A number with its unit, as it was written.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Quantity {
    number: f64,
    word: &'static Word,
}

impl Quantity {
    /// A number behind which stands `text`, for an SLI of `unit`; `None` where the two do not fit.
    #[must_use]
    pub fn new(number: f64, text: &str, unit: Unit) -> Option<Quantity> {
        let word = WORDS.iter().find(|word| word.text == text && word.unit == unit)?;
        let fits = unit != Unit::Flag || number == 0.0 || number == 1.0;
        (fits && number.is_finite()).then_some(Quantity { number, word })
    }

    /// In the base unit.
    #[must_use]
    pub fn value(self) -> f64 {
        self.number * self.word.factor / self.word.divisor
    }

    /// What it counts.
    #[must_use]
    pub fn unit(self) -> Unit {
        self.word.unit
    }

    /// A value of the base unit as text in this quantity's own, with three digits that count, so
    /// that it can be read beside the threshold.
    #[must_use]
    pub fn show(self, value: f64) -> String {
        let number = value * self.word.divisor / self.word.factor;
        let whole = if number == 0.0 { 0 } else { number.abs().log10().floor() as i32 };
        let decimals = usize::try_from(2 - whole).unwrap_or(0).min(6);
        let text = format!("{number:.decimals$}");
        let text = match text.contains('.') {
            true => text.trim_end_matches('0').trim_end_matches('.'),
            false => &text,
        };
        format!("{text}{}", self.word.text)
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.number, self.word.text)
    }
}

/// A length of time in whole seconds, such as `90s`, `5m` or `1h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(i64);

impl Span {
    /// From whole seconds.
    #[must_use]
    pub const fn from_secs(secs: i64) -> Span {
        Span(secs)
    }

    /// Reads a whole number behind which stands `s`, `m` or `h`; `None` for any other text and
    /// for what is longer than a day.
    #[must_use]
    pub fn parse(text: &str) -> Option<Span> {
        let digits = text.get(..text.len().checked_sub(1)?)?;
        let number: i64 = match digits.bytes().all(|byte| byte.is_ascii_digit()) {
            true => digits.parse().ok()?,
            false => return None,
        };
        let secs = match text.as_bytes().last()? {
            b's' => number,
            b'm' => number.checked_mul(60)?,
            b'h' => number.checked_mul(3600)?,
            _ => return None,
        };
        (secs <= 86_400).then_some(Span(secs))
    }

    /// In seconds.
    #[must_use]
    pub const fn secs(self) -> i64 {
        self.0
    }

    /// In microseconds.
    #[must_use]
    pub const fn micros(self) -> i64 {
        self.0.saturating_mul(SECOND_US)
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            secs if secs == 0 || secs % 60 != 0 => write!(f, "{secs}s"),
            secs if secs % 3600 != 0 => write!(f, "{}m", secs / 60),
            secs => write!(f, "{}h", secs / 3600),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_and_its_unit_have_one_worth() {
        for (number, text, unit, value) in [
            (7.0, "%", Unit::Ratio, 0.07),
            (1500.0, "ms", Unit::Seconds, 1.5),
            (10.0, "m", Unit::Seconds, 600.0),
            (100.0, "MiB", Unit::Bytes, 104_857_600.0),
            (100.0, "MB", Unit::Bytes, 100_000_000.0),
            (2.0, "MiB/s", Unit::BytesPerSecond, 2_097_152.0),
            (0.2, "/s", Unit::PerSecond, 0.2),
            (14.4, "", Unit::Count, 14.4),
            (1.0, "", Unit::Flag, 1.0),
        ] {
            let quantity = Quantity::new(number, text, unit).unwrap();
            assert_eq!(quantity.value(), value);
            assert_eq!(quantity.to_string(), format!("{number}{text}"));
        }
    }

    #[test]
    fn what_does_not_fit_the_unit_is_refused() {
        assert_eq!(Quantity::new(10.0, "ms", Unit::Ratio), None);
        assert_eq!(Quantity::new(10.0, "", Unit::Ratio), None);
        assert_eq!(Quantity::new(2.0, "", Unit::Flag), None);
        assert_eq!(Quantity::new(f64::INFINITY, "s", Unit::Seconds), None);
    }

    #[test]
    fn a_value_is_shown_in_the_unit_of_its_threshold() {
        let percent = Quantity::new(10.0, "%", Unit::Ratio).unwrap();
        assert_eq!(percent.show(0.12345), "12.3%");
        assert_eq!(percent.show(0.0), "0%");
        assert_eq!(percent.show(1.0), "100%");
        let mebibytes = Quantity::new(100.0, "MiB", Unit::Bytes).unwrap();
        assert_eq!(mebibytes.show(52_428_800.0), "50MiB");
        assert_eq!(mebibytes.show(5_368_709_120.0), "5120MiB");
        let millis = Quantity::new(500.0, "ms", Unit::Seconds).unwrap();
        assert_eq!(millis.show(0.0001), "0.1ms");
    }

    #[test]
    fn a_span_is_shown_in_the_largest_unit_that_divides_it() {
        for (text, secs, shown) in
            [("90s", 90, "90s"), ("300s", 300, "5m"), ("60m", 3600, "1h"), ("0m", 0, "0s")]
        {
            let span = Span::parse(text).unwrap();
            assert_eq!((span.secs(), span.to_string().as_str()), (secs, shown));
        }
        for bad in ["", "s", "5", "-5s", "+5s", "1.5m", "5 m", "5d", "25h", "99999999999999999999s"]
        {
            assert_eq!(Span::parse(bad), None, "{bad}");
        }
    }
}
