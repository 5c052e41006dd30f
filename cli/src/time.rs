//! Times as people write and read them: local, by day, or back from now.

use agent_trace_store::{Error, Result, Timestamp};
use jiff::civil::{Date, DateTime};
use jiff::tz::TimeZone;

const SECOND_MICROS: i64 = 1_000_000;

/// Which end of a day a bare date stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edge {
    /// Its local midnight.
    First,
    /// The last moment before the next local midnight.
    Last,
}

/// Reads RFC 3339, a date, or `30d`, `12h`, `2w` (also `45min`) back from now. A time without an offset is local.
pub(crate) fn parse(text: &str, edge: Edge, now: Timestamp, zone: &TimeZone) -> Result<Timestamp> {
    let refused = || {
        Error::invalid(format!(
            "cannot read time `{text}`: expected RFC 3339 (2026-02-01T12:00:00Z), a date (2026-02-01), or 30d, 12h, 2w"
        ))
    };
    if let Some(seconds) = distance(text) {
        let micros = seconds.checked_mul(SECOND_MICROS).ok_or_else(refused)?;
        return Ok(now.plus_micros(-micros));
    }
    if text.len() == 10 {
        let date: Date = text.parse().map_err(|_| refused())?;
        let day = match edge {
            Edge::First => date,
            Edge::Last => date.tomorrow().map_err(|_| refused())?,
        };
        let start = local(day.to_datetime(jiff::civil::Time::midnight()), zone).ok_or_else(refused)?;
        return Ok(if edge == Edge::First { start } else { start.plus_micros(-1) });
    }
    let time = text.get(11..).ok_or_else(refused)?;
    if time.contains(['Z', 'z', '+', '-']) {
        return Timestamp::parse(text).ok_or_else(refused);
    }
    let written: DateTime = text.parse().map_err(|_| refused())?;
    local(written, zone).ok_or_else(refused)
}

/// Reads a time to come: as `parse`, but `30d`, `12h`, `2w` on from now, and a date with all of its day.
pub(crate) fn parse_ahead(text: &str, now: Timestamp, zone: &TimeZone) -> Result<Timestamp> {
    let micros = distance(text).and_then(|seconds| seconds.checked_mul(SECOND_MICROS));
    match micros {
        Some(micros) => Ok(now.plus_micros(micros)),
        None => parse(text, Edge::Last, now, zone),
    }
}

/// An instant as a local date and time.
pub(crate) fn show(time: Timestamp, zone: &TimeZone) -> String {
    match jiff::Timestamp::from_microsecond(time.micros()) {
        Ok(instant) => zone.to_datetime(instant).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        Err(_) => time.to_string(),
    }
}

/// The local month of an instant, `2026-02`.
pub(crate) fn month(time: Timestamp, zone: &TimeZone) -> String {
    match jiff::Timestamp::from_microsecond(time.micros()) {
        Ok(instant) => zone.to_datetime(instant).strftime("%Y-%m").to_string(),
        Err(_) => time.to_string().chars().take(7).collect(),
    }
}

fn local(written: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    let zoned = written.to_zoned(zone.clone()).ok()?;
    Some(Timestamp::from_micros(zoned.timestamp().as_microsecond()))
}

/// Seconds between now and then.
fn distance(text: &str) -> Option<i64> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let seconds = match unit {
        "min" => 60,
        "h" => 3_600,
        "d" => 86_400,
        "w" => 7 * 86_400,
        _ => return None,
    };
    number.parse::<i64>().ok()?.checked_mul(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone() -> TimeZone {
        TimeZone::fixed(jiff::tz::offset(2))
    }

    #[test]
    fn times_are_read_as_people_mean_them() {
        let now = Timestamp::parse("2026-03-10T12:00:00Z").unwrap();
        let check = |text: &str, edge: Edge, expected: &str| {
            assert_eq!(parse(text, edge, now, &zone()).unwrap().to_string(), expected, "{text}");
        };
        check("2026-02-01", Edge::First, "2026-01-31T22:00:00Z");
        check("2026-02-01", Edge::Last, "2026-02-01T21:59:59.999999Z");
        check("2026-02-01T05:00:00Z", Edge::First, "2026-02-01T05:00:00Z");
        check("2026-02-01T05:00:00-03:00", Edge::First, "2026-02-01T08:00:00Z");
        check("2026-02-01T05:00:00", Edge::First, "2026-02-01T03:00:00Z");
        check("2026-02-01 05:00", Edge::First, "2026-02-01T03:00:00Z");
        check("30d", Edge::First, "2026-02-08T12:00:00Z");
        check("12h", Edge::Last, "2026-03-10T00:00:00Z");
        check("2w", Edge::First, "2026-02-24T12:00:00Z");
        check("45min", Edge::First, "2026-03-10T11:15:00Z");
    }

    #[test]
    fn times_to_come_are_read_as_people_mean_them() {
        let now = Timestamp::parse("2026-03-10T12:00:00Z").unwrap();
        let check = |text: &str, expected: &str| {
            assert_eq!(parse_ahead(text, now, &zone()).unwrap().to_string(), expected, "{text}");
        };
        check("30d", "2026-04-09T12:00:00Z");
        check("45min", "2026-03-10T12:45:00Z");
        check("2026-04-01", "2026-04-01T21:59:59.999999Z");
        check("2026-04-01T05:00:00Z", "2026-04-01T05:00:00Z");
        for text in ["", "soon", "99999999999999999d"] {
            assert!(parse_ahead(text, now, &zone()).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in
            ["", "yesterday", "d", "30", "30y", "-3d", "2026-02-30", "2026-02-01T", "99999999999999999d", "é"]
        {
            assert!(parse(text, Edge::First, Timestamp::default(), &zone()).is_err(), "{text}");
        }
    }
}
