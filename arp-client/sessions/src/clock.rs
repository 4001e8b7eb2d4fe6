//! Times: milliseconds since 1970 (UTC) inside, RFC 3339 outside.

use std::time::{Duration, SystemTime, UNIX_EPOCH};
use time::OffsetDateTime;
use time::format_description::BorrowedFormatItem;
use time::macros::format_description;

const FORMAT: &[BorrowedFormatItem<'_>] =
    format_description!("[year]-[month]-[day]T[hour]:[minute]:[second].[subsecond digits:3]Z");

/// Now.
#[must_use]
pub fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or(Duration::ZERO);
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// A time as `2026-11-20T18:42:05.123Z`.
#[must_use]
pub fn rfc3339(ms: u64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(ms) * 1_000_000)
        .ok()
        .and_then(|time| time.format(FORMAT).ok())
        .unwrap_or_default()
}

/// The milliseconds since 1970 of an RFC 3339 time; `None` if it is none, or before 1970.
#[must_use]
pub fn parse_rfc3339(text: &str) -> Option<u64> {
    let time = OffsetDateTime::parse(text, &time::format_description::well_known::Rfc3339).ok()?;
    u64::try_from(time.unix_timestamp_nanos() / 1_000_000).ok()
}

#[cfg(test)]
mod tests {
    #[test]
    fn times_are_rfc_3339() {
        assert_eq!(super::rfc3339(0), "1970-01-01T00:00:00.000Z");
        assert_eq!(super::rfc3339(1_795_200_125_123), "2026-11-20T18:42:05.123Z");
        assert_eq!(super::rfc3339(u64::MAX), "");
        assert_eq!(
            super::parse_rfc3339("2026-11-20T19:42:05.123+01:00"),
            Some(1_795_200_125_123)
        );
        assert_eq!(super::parse_rfc3339("yesterday"), None);
    }
}
