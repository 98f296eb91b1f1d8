//! Wall time as integers. Waiting uses monotonic time elsewhere; the two never mix.

/// Microseconds since the Unix epoch, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Micros(pub i64);

/// Milliseconds since the Unix epoch, UTC: the unit of `timestamp_ms` in signals.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub i64);

/// The last instant that the fixed-width text form can show: 9999-12-31T23:59:59.999999Z.
pub const MICROS_MAX: Micros = Micros(253_402_300_799_999_999);

/// Characters of the text form.
pub const TEXT_CHARS: usize = 27;

impl Micros {
    /// From whole seconds.
    #[must_use]
    pub const fn from_secs(secs: i64) -> Micros {
        Micros(secs.saturating_mul(1_000_000))
    }

    /// Whole seconds, rounded down.
    #[must_use]
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// `self` plus `seconds`.
    #[must_use]
    pub const fn plus_secs(self, seconds: i64) -> Micros {
        Micros(self.0.saturating_add(seconds.saturating_mul(1_000_000)))
    }

    /// The fixed-width form `2026-11-23T14:37:45.123456Z`; instants outside the years 1970 to
    /// 9999 are clamped.
    ///
    /// Written here and not by a calendar crate because it is part of the receipt format: the
    /// ledger must not depend on a library's idea of a timestamp.
    #[must_use]
    pub fn to_text(self) -> [u8; TEXT_CHARS] {
        let clamped = self.0.clamp(0, MICROS_MAX.0);
        let (secs, micros) = (clamped.div_euclid(1_000_000), clamped.rem_euclid(1_000_000));
        let (days, of_day) = (secs.div_euclid(86_400), secs.rem_euclid(86_400));
        let (year, month, day) = civil_from_days(days);
        let mut out = *b"0000-00-00T00:00:00.000000Z";
        put(&mut out[0..4], year);
        put(&mut out[5..7], month);
        put(&mut out[8..10], day);
        put(&mut out[11..13], of_day / 3600);
        put(&mut out[14..16], of_day / 60 % 60);
        put(&mut out[17..19], of_day % 60);
        put(&mut out[20..26], micros);
        out
    }

    /// Reads the fixed-width form back; `None` for any other text.
    #[must_use]
    pub fn from_text(text: &[u8]) -> Option<Micros> {
        if text.len() != TEXT_CHARS || text[10] != b'T' || text[26] != b'Z' {
            return None;
        }
        if [text[4], text[7], text[13], text[16], text[19]] != *b"--::." {
            return None;
        }
        let (year, month, day) = (get(&text[0..4])?, get(&text[5..7])?, get(&text[8..10])?);
        let (hour, minute, second) =
            (get(&text[11..13])?, get(&text[14..16])?, get(&text[17..19])?);
        if !(1970..=9999).contains(&year) || hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        if !(1..=12).contains(&month) || day < 1 || day > days_in_month(year, month) {
            return None;
        }
        let secs = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
        Some(Micros(secs * 1_000_000 + get(&text[20..26])?))
    }
}

impl std::fmt::Display for Micros {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.to_text().iter().try_for_each(|byte| std::fmt::Write::write_char(f, char::from(*byte)))
    }
}

fn put(slot: &mut [u8], mut value: i64) {
    for digit in slot.iter_mut().rev() {
        *digit = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

fn get(digits: &[u8]) -> Option<i64> {
    digits.iter().try_fold(0, |sum, byte| match byte {
        b'0'..=b'9' => Some(sum * 10 + i64::from(byte - b'0')),
        _ => None,
    })
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days since 1970-01-01 of a proleptic Gregorian date: years start in March, so that the leap
/// day is the last of its year and needs no case of its own.
#[must_use]
pub fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The year, month and day of a date that is so many days after 1970-01-01.
#[must_use]
pub fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let of_era = shifted.rem_euclid(146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + i64::from(month <= 2), month, day)
}

/// Wall time, injected so that tests own it.
pub trait Clock: Send + Sync + 'static {
    /// The present instant, UTC.
    fn now(&self) -> Micros;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_matches_known_instants() {
        for (micros, text) in [
            (0, "1970-01-01T00:00:00.000000Z"),
            (1_704_067_200_000_000, "2024-01-01T00:00:00.000000Z"),
            (1_709_251_199_999_999, "2024-02-29T23:59:59.999999Z"),
            (MICROS_MAX.0, "9999-12-31T23:59:59.999999Z"),
        ] {
            assert_eq!(Micros(micros).to_string(), text);
            assert_eq!(Micros::from_text(text.as_bytes()), Some(Micros(micros)));
        }
    }

    #[test]
    fn every_day_of_four_centuries_round_trips() {
        for day in 0..146_097 {
            let instant = Micros::from_secs(day * 86_400 + day % 86_400);
            assert_eq!(Micros::from_text(&instant.to_text()), Some(instant));
        }
    }

    #[test]
    fn what_is_not_an_instant_is_refused() {
        for bad in [
            "2024-02-30T00:00:00.000000Z",
            "2023-02-29T00:00:00.000000Z",
            "2024-13-01T00:00:00.000000Z",
            "2024-01-01T24:00:00.000000Z",
            "2024-01-01T00:00:60.000000Z",
            "2024-01-01 00:00:00.000000Z",
            "2024-01-01T00:00:00.00000Z",
            "2024-01-01T00:00:00.00000+Z",
            "1969-12-31T23:59:59.999999Z",
        ] {
            assert_eq!(Micros::from_text(bad.as_bytes()), None, "{bad}");
        }
    }
}
