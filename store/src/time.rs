//! Instants as microseconds since 1970, and their RFC 3339 form.
//!
//! Covers the years 0000 to 9999; what lies outside is refused. Knows nothing about zones beyond an offset:
//! local time is the command line's business.

use std::fmt;

/// An instant: microseconds since 1970-01-01T00:00:00Z; finer digits are cut off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(i64);

const DAY_MICROS: i64 = 86_400_000_000;

impl Timestamp {
    /// The smallest instant that has an RFC 3339 form.
    pub const MIN: Timestamp = Timestamp(-62_167_219_200_000_000);
    /// The largest instant that has an RFC 3339 form.
    pub const MAX: Timestamp = Timestamp(253_402_300_799_999_999);

    /// Makes an instant from microseconds since 1970; outside the range it is clamped.
    pub fn from_micros(micros: i64) -> Timestamp {
        Timestamp(micros.clamp(Timestamp::MIN.0, Timestamp::MAX.0))
    }

    /// Microseconds since 1970.
    pub fn micros(self) -> i64 {
        self.0
    }

    /// The instant that many microseconds later (earlier if negative), clamped to the range.
    #[must_use]
    pub fn plus_micros(self, micros: i64) -> Timestamp {
        Timestamp::from_micros(self.0.saturating_add(micros))
    }

    /// Reads an RFC 3339 date and time with `Z` or an offset; a missing offset means UTC.
    ///
    /// Takes a space for the `T` and one to nine or more fractional digits, since agents write both.
    pub fn parse(text: &str) -> Option<Timestamp> {
        let bytes = text.as_bytes();
        let digits = |from: usize, count: usize| -> Option<i64> {
            let part = bytes.get(from..from + count)?;
            part.iter()
                .try_fold(0i64, |sum, byte| byte.is_ascii_digit().then(|| sum * 10 + i64::from(byte - b'0')))
        };
        let is = |at: usize, wanted: &[u8]| bytes.get(at).is_some_and(|byte| wanted.contains(byte));
        if !(is(4, b"-") && is(7, b"-") && is(10, b"Tt ") && is(13, b":")) {
            return None;
        }
        let (year, month, day) = (digits(0, 4)?, digits(5, 2)?, digits(8, 2)?);
        let (hour, minute) = (digits(11, 2)?, digits(14, 2)?);
        let mut at = 16;
        let mut second = 0;
        if is(at, b":") {
            second = digits(at + 1, 2)?;
            at += 3;
        }
        let mut fraction = 0i64;
        if is(at, b".,") {
            at += 1;
            let start = at;
            while at < bytes.len() && bytes[at].is_ascii_digit() {
                if at - start < 6 {
                    fraction = fraction * 10 + i64::from(bytes[at] - b'0');
                }
                at += 1;
            }
            if at == start {
                return None;
            }
            for _ in (at - start)..6 {
                fraction *= 10;
            }
        }
        let offset_minutes = match bytes.get(at) {
            None => 0,
            Some(b'Z' | b'z') => {
                at += 1;
                0
            }
            Some(sign @ (b'+' | b'-')) => {
                let hours = digits(at + 1, 2)?;
                let minutes_at = if is(at + 3, b":") { at + 4 } else { at + 3 };
                let minutes = if minutes_at < bytes.len() { digits(minutes_at, 2)? } else { 0 };
                at = if minutes_at < bytes.len() { minutes_at + 2 } else { minutes_at };
                if hours > 23 || minutes > 59 {
                    return None;
                }
                (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
            }
            Some(_) => return None,
        };
        // A leap second is counted as the second after it.
        if at != bytes.len() || month == 0 || month > 12 || hour > 23 || minute > 59 || second > 60 {
            return None;
        }
        if day == 0 || day > days_in_month(year, month) {
            return None;
        }
        let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second
            - offset_minutes * 60;
        let micros = seconds * 1_000_000 + fraction;
        (Timestamp::MIN.0..=Timestamp::MAX.0).contains(&micros).then_some(Timestamp(micros))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with as many fractional digits as there are: none, three or six.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let days = self.0.div_euclid(DAY_MICROS);
        let rest = self.0.rem_euclid(DAY_MICROS);
        let (year, month, day) = civil_from_days(days);
        let (seconds, micros) = (rest / 1_000_000, rest % 1_000_000);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}",
            seconds / 3_600,
            seconds / 60 % 60,
            seconds % 60
        )?;
        if micros % 1_000 != 0 {
            write!(f, ".{micros:06}")?;
        } else if micros != 0 {
            write!(f, ".{:03}", micros / 1_000)?;
        }
        f.write_str("Z")
    }
}

fn days_in_month(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

/// Days since 1970-01-01 in the proleptic Gregorian calendar; years start in March, so the leap day is last.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    (era * 400 + year_of_era + i64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn known_instants_are_read_and_written() {
        let check = |text: &str, micros: i64, back: &str| {
            let read = Timestamp::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((read.micros(), read.to_string().as_str()), (micros, back), "{text}");
        };
        check("1970-01-01T00:00:00Z", 0, "1970-01-01T00:00:00Z");
        check("2026-01-05T14:49:43.988316+01:00", 1_767_620_983_988_316, "2026-01-05T13:49:43.988316Z");
        check("2026-03-25T00:34:28.945899392Z", 1_774_398_868_945_899, "2026-03-25T00:34:28.945899Z");
        check("2024-02-29 23:59:60.5Z", 1_709_251_200_500_000, "2024-03-01T00:00:00.500Z");
        check("0000-01-01T00:00:00Z", Timestamp::MIN.micros(), "0000-01-01T00:00:00Z");
        check("9999-12-31T23:59:59.999999Z", Timestamp::MAX.micros(), "9999-12-31T23:59:59.999999Z");
    }

    #[test]
    fn what_is_no_instant_is_refused() {
        for text in [
            "",
            "2026",
            "2026-13-01T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-01-01T24:00:00Z",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00:00Zx",
            "2026-01-01T00:00:00+25:00",
            "20é6-01-01T00:00:00Z",
        ] {
            assert_eq!(Timestamp::parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn every_instant_comes_back(micros in Timestamp::MIN.0..=Timestamp::MAX.0) {
            let instant = Timestamp::from_micros(micros);
            prop_assert_eq!(Timestamp::parse(&instant.to_string()), Some(instant));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,40}") {
            let _ = Timestamp::parse(&text);
        }
    }
}
