//! Points in time as text, in UTC: RFC 3339 for machines and people, the Apache form for the combined log.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use serde::Serializer;

const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAY_SECONDS: u64 = 24 * 60 * 60;

/// `2026-11-23T06:40:15.123Z`; a time before 1970 counts as its first moment.
#[must_use]
pub fn rfc3339(time: SystemTime) -> String {
    let mut out = Vec::with_capacity(24);
    write_rfc3339(time, &mut out);
    String::from_utf8(out).unwrap_or_default()
}

/// Serde's form of [`rfc3339`], for `#[serde(serialize_with)]`.
///
/// # Errors
/// Those of the serializer.
pub fn serialize<S: Serializer>(time: &SystemTime, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&rfc3339(*time))
}

/// The same of a time that may not be.
///
/// # Errors
/// Those of the serializer.
pub fn serialize_option<S: Serializer>(time: &Option<SystemTime>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serialize(time, serializer),
        None => serializer.serialize_none(),
    }
}

pub(super) fn write_rfc3339(time: SystemTime, out: &mut Vec<u8>) {
    let Civil { year, month, day, hour, minute, second, millis } = Civil::of(time);
    // Writing to a Vec cannot fail.
    let _ = write!(out, "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z");
}

/// `23/Nov/2026:06:40:15 +0000`
pub(super) fn write_combined(time: SystemTime, out: &mut Vec<u8>) {
    let Civil { year, month, day, hour, minute, second, .. } = Civil::of(time);
    let month = MONTHS.get(month as usize - 1).copied().unwrap_or_default();
    let _ = write!(out, "{day:02}/{month}/{year:04}:{hour:02}:{minute:02}:{second:02} +0000");
}

/// A point in time in the proleptic Gregorian calendar, UTC.
struct Civil {
    year: u64,
    month: u64,
    day: u64,
    hour: u64,
    minute: u64,
    second: u64,
    millis: u32,
}

impl Civil {
    fn of(time: SystemTime) -> Self {
        let elapsed = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let (days, seconds) = (elapsed.as_secs() / DAY_SECONDS, elapsed.as_secs() % DAY_SECONDS);
        // Years that begin in March make the leap day the last of its year; 719 468 days lie between 0000-03-01 and
        // 1970-01-01, 146 097 in an era of 400 years.
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
        Self {
            year: era * 400 + year_of_era + u64::from(month <= 2),
            month,
            day: day_of_year - (153 * march_month + 2) / 5 + 1,
            hour: seconds / 3600,
            minute: seconds / 60 % 60,
            second: seconds % 60,
            millis: elapsed.subsec_millis(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_agree_with_the_calendar() {
        let check = |millis: u64, iso: &str, apache: &str| {
            let time = SystemTime::UNIX_EPOCH + Duration::from_millis(millis);
            let mut combined = Vec::new();
            write_combined(time, &mut combined);
            assert_eq!(rfc3339(time), iso);
            assert_eq!(String::from_utf8(combined).unwrap(), apache);
        };
        check(0, "1970-01-01T00:00:00.000Z", "01/Jan/1970:00:00:00 +0000");
        check(951_782_399_999, "2000-02-28T23:59:59.999Z", "28/Feb/2000:23:59:59 +0000");
        check(951_782_400_000, "2000-02-29T00:00:00.000Z", "29/Feb/2000:00:00:00 +0000");
        check(1_795_416_015_123, "2026-11-23T06:40:15.123Z", "23/Nov/2026:06:40:15 +0000");
        check(4_107_542_400_000, "2100-03-01T00:00:00.000Z", "01/Mar/2100:00:00:00 +0000");
    }
}
