//! Times: milliseconds since 1970 inside, Unix seconds and RFC 3339 outside.

use std::time::{SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Reads an RFC 3339 time, as all three agents write it.
pub(crate) fn parse(text: &str) -> Option<i64> {
    let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
    i64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

/// RFC 3339 in UTC with milliseconds: `2026-11-20T18:04:35.005Z`.
pub(crate) fn format(ms: i64) -> Option<String> {
    let time = OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000).ok()?;
    let (date, clock) = (time.date(), time.time());
    Some(format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        date.year(),
        u8::from(date.month()),
        date.day(),
        clock.hour(),
        clock.minute(),
        clock.second(),
        clock.millisecond()
    ))
}

/// Milliseconds since 1970 of a file's time.
pub(crate) fn of(time: SystemTime) -> i64 {
    time.duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|d| i64::try_from(d.as_millis()).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_survive_a_round_trip() {
        let text = "2026-11-20T18:04:35.005Z";
        assert_eq!(format(parse(text).unwrap()).unwrap(), text);
        assert_eq!(parse("2026-11-20T19:04:35.005+01:00"), parse(text));
        assert_eq!(parse("2026-11-20T18:15:39.911885877Z").unwrap() % 1000, 911);
        assert_eq!(parse("yesterday"), None);
        assert_eq!(format(i64::MAX), None);
    }
}
