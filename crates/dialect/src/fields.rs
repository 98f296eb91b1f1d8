//! Members of an object, read by name and type, with one wording for every refusal.
//!
//! Owns: null means absent, the number and time forms that are taken, the text of type errors.
//! Refuses to know: which members belong together and what they mean.

use jiff::civil::{DateTime, date};
use jiff::fmt::temporal::Pieces;
use serde_json::{Map, Number, Value};
use types::time::MICROS_MAX;
use types::{EntitlementId, IdError, Micros, Millis, Reason, TenantId, limits};

use crate::Fault;
use crate::pubsub::Milli;

/// The largest `timestamp_ms`: the last millisecond of the year 9999.
const MILLIS_MAX: i64 = 253_402_300_799_999;
/// The largest `value` of a measurement, in whole units.
const VALUE_MAX: u64 = 1_000_000_000;
/// Bytes of the longest timestamp text worth reading: nine fraction digits and a numeric offset.
const INSTANT_BYTES: usize = 35;

/// The members of one object; `path` is what a refusal puts before a member's name.
#[derive(Clone, Copy)]
pub(crate) struct Fields<'a> {
    members: &'a Map<String, Value>,
    path: &'static str,
}

impl<'a> Fields<'a> {
    pub(crate) fn new(members: &'a Map<String, Value>, path: &'static str) -> Fields<'a> {
        Fields { members, path }
    }

    /// The member, unless it is absent or null.
    pub(crate) fn get(self, name: &str) -> Option<&'a Value> {
        self.members.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn has(self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(crate) fn fault(self, reason: Reason, name: &str, expected: &str) -> Fault {
        Fault::new(reason, format!("{}{name} {expected}", self.path))
    }

    pub(crate) fn invalid(self, name: &str, expected: &str) -> Fault {
        self.fault(Reason::InvalidField, name, expected)
    }

    pub(crate) fn missing(self, name: &str) -> Fault {
        self.fault(Reason::MissingField, name, "is required")
    }

    /// What a reader of this type found, or the refusal that says the member is required.
    pub(crate) fn required<T>(self, name: &str, found: Option<T>) -> Result<T, Fault> {
        found.ok_or_else(|| self.missing(name))
    }

    pub(crate) fn text(self, name: &str) -> Result<Option<&'a str>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.invalid(name, "must be a string")),
        }
    }

    pub(crate) fn object(self, name: &str) -> Result<Option<&'a Map<String, Value>>, Fault> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(members)) => Ok(Some(members)),
            Some(_) => Err(self.invalid(name, "must be an object")),
        }
    }

    /// A text of 1 to 64 letters, digits, dots, hyphens and underscores.
    pub(crate) fn word(self, name: &str) -> Result<Option<&'a str>, Fault> {
        let text = self.text(name)?;
        if text.is_some_and(|text| !is_word(text)) {
            return Err(self.invalid(name, WORD_EXPECTED));
        }
        Ok(text)
    }

    /// One of a closed set, or `reason` with the permitted texts.
    pub(crate) fn choice<T: Copy>(
        self,
        name: &str,
        reason: Reason,
        choices: &[(&'static str, T)],
    ) -> Result<Option<T>, Fault> {
        let Some(text) = self.text(name)? else { return Ok(None) };
        if let Some((_, choice)) = choices.iter().find(|(word, _)| *word == text) {
            return Ok(Some(*choice));
        }
        let words: Vec<&str> = choices.iter().map(|(word, _)| *word).collect();
        Err(self.fault(reason, name, &format!("must be one of {}", words.join(", "))))
    }

    pub(crate) fn tenant_id(self, name: &str, max_chars: usize) -> Result<Option<TenantId>, Fault> {
        self.id(name, Reason::InvalidTenantId, |text| TenantId::bounded(text, max_chars))
    }

    pub(crate) fn entitlement_id(self, name: &str) -> Result<Option<EntitlementId>, Fault> {
        self.id(name, Reason::InvalidEntitlementId, EntitlementId::new)
    }

    fn id<T>(
        self,
        name: &str,
        reason: Reason,
        read: impl Fn(&str) -> Result<T, IdError>,
    ) -> Result<Option<T>, Fault> {
        self.text(name)?
            .map(|text| read(text).map_err(|why| self.fault(reason, name, &why.to_string())))
            .transpose()
    }

    /// ISO 8601 with an offset, or unix seconds as an integer.
    pub(crate) fn instant(self, name: &str) -> Result<Option<Micros>, Fault> {
        let read = match self.get(name) {
            None => return Ok(None),
            Some(Value::String(text)) => instant_from_text(text),
            Some(Value::Number(number)) => instant_from_secs(number),
            Some(_) => None,
        };
        match read {
            Some(instant) => Ok(Some(instant)),
            None => Err(self.invalid(
                name,
                "must be an ISO 8601 time with an offset or integer unix seconds, \
                 in the years 1970 to 9999",
            )),
        }
    }

    /// Unix milliseconds as an integer.
    pub(crate) fn millis(self, name: &str) -> Result<Option<Millis>, Fault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_i64() {
            Some(millis @ 0..=MILLIS_MAX) => Ok(Some(Millis(millis))),
            _ => {
                Err(self
                    .invalid(name, "must be integer unix milliseconds in the years 1970 to 9999"))
            }
        }
    }

    /// A number from 0 to one thousand million, rounded half away from zero to thousandths.
    pub(crate) fn milli(self, name: &str) -> Result<Option<Milli>, Fault> {
        let read = match self.get(name) {
            None => return Ok(None),
            Some(Value::Number(number)) => thousandths(number),
            Some(_) => None,
        };
        match read {
            Some(milli) => Ok(Some(milli)),
            None => Err(self.invalid(name, "must be a number from 0 to 1000000000")),
        }
    }

    /// A non-negative integer of 32 bits.
    pub(crate) fn count(self, name: &str) -> Result<Option<u32>, Fault> {
        let Some(value) = self.get(name) else { return Ok(None) };
        match value.as_u64().map(u32::try_from) {
            Some(Ok(count)) => Ok(Some(count)),
            _ => Err(self.invalid(name, "must be an integer from 0 to 4294967295")),
        }
    }
}

/// What [`is_word`] asks for, in words.
pub(crate) const WORD_EXPECTED: &str =
    "must be 1 to 64 letters, digits, dots, hyphens or underscores";

/// 1 to 64 of letters, digits, `.`, `-` and `_`: safe as a metric label, a log field and a path.
pub(crate) fn is_word(text: &str) -> bool {
    (1..=limits::METRIC_CHARS).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
}

/// Civil arithmetic and not `jiff::Timestamp`, which ends a day before the year 9999 does:
/// 9999-12-31 is what catalogues write for "never".
pub(crate) fn instant_from_text(text: &str) -> Option<Micros> {
    // Keeps out the forms that jiff reads beyond ISO 8601, such as zone names in brackets.
    let plain = |byte: u8| byte.is_ascii_digit() || b"-:.,+TZtz".contains(&byte);
    if text.len() > INSTANT_BYTES || !text.bytes().all(plain) {
        return None;
    }
    let pieces = Pieces::parse(text).ok()?;
    let offset_secs = i128::from(pieces.to_numeric_offset()?.seconds());
    let epoch: DateTime = date(1970, 1, 1).at(0, 0, 0, 0);
    let civil = pieces.date().to_datetime(pieces.time()?).duration_since(epoch);
    let micros = (civil.as_nanos() - offset_secs * 1_000_000_000).div_euclid(1_000);
    let micros = i64::try_from(micros).ok()?;
    (0..=MICROS_MAX.0).contains(&micros).then_some(Micros(micros))
}

fn instant_from_secs(number: &Number) -> Option<Micros> {
    let secs = number.as_i64()?;
    (0..=MICROS_MAX.secs()).contains(&secs).then(|| Micros::from_secs(secs))
}

/// Decimal rounding on the shortest text of the double, which is the sender's own decimal for up
/// to 15 digits. Rounding the double itself would put 1.0005, stored a little lower, at 1.000.
fn thousandths(number: &Number) -> Option<Milli> {
    if let Some(units) = number.as_u64() {
        return (units <= VALUE_MAX).then(|| Milli(units.cast_signed() * 1_000));
    }
    let value = number.as_f64()?;
    if !(0.0..=VALUE_MAX as f64).contains(&value) {
        return None;
    }
    // `abs` turns minus zero, which is within the range, into zero.
    let text = value.abs().to_string();
    let (units, fraction) = text.split_once('.').unwrap_or((&text, ""));
    let digit = |place: usize| {
        i64::from(fraction.as_bytes().get(place).map_or(0, |byte| byte.wrapping_sub(b'0')))
    };
    let kept = digit(0) * 100 + digit(1) * 10 + digit(2) + i64::from(digit(3) >= 5);
    Some(Milli(units.parse::<i64>().ok()? * 1_000 + kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn milli(text: &str) -> Option<i64> {
        let number: Number = serde_json::from_str(text).expect("a JSON number");
        thousandths(&number).map(|milli| milli.0)
    }

    #[test]
    fn values_become_thousandths_half_away_from_zero() {
        for (text, expected) in [
            ("0", Some(0)),
            ("-0", Some(0)),
            ("-0.0", Some(0)),
            ("80", Some(80_000)),
            ("60.5", Some(60_500)),
            ("0.0004", Some(0)),
            ("0.0005", Some(1)),
            ("1.0005", Some(1_001)),
            ("1.0004999", Some(1_000)),
            ("2.6755", Some(2_676)),
            ("0.9995", Some(1_000)),
            ("59.9999", Some(60_000)),
            ("123456789.1235", Some(123_456_789_124)),
            ("8e1", Some(80_000)),
            ("5e-324", Some(0)),
            ("1e9", Some(1_000_000_000_000)),
            ("1000000000", Some(1_000_000_000_000)),
            ("1000000000.001", None),
            ("1000000001", None),
            ("18446744073709551615", None),
            ("18446744073709551616", None),
            ("1e308", None),
            ("-0.001", None),
            ("-1", None),
            ("-1e308", None),
        ] {
            assert_eq!(milli(text), expected, "{text}");
        }
    }

    #[test]
    fn instants_are_utc_and_within_the_years_of_the_receipts() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2024-01-01T00:00:00Z", Some(1_704_067_200_000_000)),
            ("2024-01-01T01:30:00+01:30", Some(1_704_067_200_000_000)),
            ("2023-12-31T19:00:00-05:00", Some(1_704_067_200_000_000)),
            ("20240101T000000Z", Some(1_704_067_200_000_000)),
            ("2024-02-29T23:59:59.999999999Z", Some(1_709_251_199_999_999)),
            ("9999-12-31T23:59:59Z", Some(253_402_300_799_000_000)),
            ("9999-12-31T23:59:59.999999999Z", Some(MICROS_MAX.0)),
            ("1969-12-31T23:00:00-01:00", Some(0)),
            ("1969-12-31T23:59:59.9999999Z", None),
            ("1970-01-01T00:00:00+00:01", None),
            ("9999-12-31T23:59:59-00:01", None),
            ("-000001-01-01T00:00:00Z", None),
            ("2024-01-01T00:00:00", None),
            ("2024-01-01", None),
            ("2024-01-01Z", None),
            ("2024-01-01 00:00:00Z", None),
            ("2024-01-01T00:00:00Z[Europe/Berlin]", None),
            ("2024-01-01T00:00:00[+01:00]", None),
            ("2024-02-30T00:00:00Z", None),
            ("2024-13-01T00:00:00Z", None),
            ("2024-01-01T25:00:00Z", None),
            ("2024-W01-1T00:00:00Z", None),
            ("Mon, 01 Jan 2024 00:00:00 GMT", None),
            ("1704067200", None),
            ("now", None),
            ("", None),
            (&"2".repeat(100_000), None),
        ] {
            let shown = text.chars().take(40).collect::<String>();
            assert_eq!(instant_from_text(text), expected.map(Micros), "{shown}");
        }
    }

    #[test]
    fn what_the_receipts_write_is_read_back() {
        for micros in [0, 1, 999_999, 951_782_400_000_000, 4_107_542_399_999_999, MICROS_MAX.0] {
            assert_eq!(instant_from_text(&Micros(micros).to_string()), Some(Micros(micros)));
        }
    }

    #[test]
    fn seconds_are_integers_within_the_same_years() {
        for (text, expected) in [
            ("0", Some(0)),
            ("1704067200", Some(1_704_067_200_000_000)),
            ("253402300799", Some(253_402_300_799_000_000)),
            ("253402300800", None),
            ("1704067200000", None),
            ("-1", None),
            ("-0", None),
            ("1.5", None),
            ("1e3", None),
            ("18446744073709551615", None),
        ] {
            let number: Number = serde_json::from_str(text).expect("a JSON number");
            assert_eq!(instant_from_secs(&number), expected.map(Micros), "{text}");
        }
    }
}
