//! Durations as kubectl shows them: two figures at most, coarser the longer they are.

use jiff::Timestamp;
use std::time::Duration;

/// `5m30s`, `3h`, `2y14d`. Clocks may differ by a second: that is `0s`; a time further ahead is `<invalid>`.
pub(super) fn human(seconds: i64) -> String {
    const MINUTE: i64 = 60;
    const HOUR: i64 = 60 * MINUTE;
    const DAY: i64 = 24 * HOUR;
    const YEAR: i64 = 365 * DAY;
    let two = |large: i64, large_unit: char, small: i64, small_unit: char| match small {
        0 => format!("{large}{large_unit}"),
        _ => format!("{large}{large_unit}{small}{small_unit}"),
    };
    let s = seconds;
    match s {
        ..-1 => "<invalid>".into(),
        -1 => "0s".into(),
        0..120 => format!("{s}s"),
        _ if s < 10 * MINUTE => two(s / MINUTE, 'm', s % MINUTE, 's'),
        _ if s < 3 * HOUR => format!("{}m", s / MINUTE),
        _ if s < 8 * HOUR => two(s / HOUR, 'h', s % HOUR / MINUTE, 'm'),
        _ if s < 2 * DAY => format!("{}h", s / HOUR),
        _ if s < 8 * DAY => two(s / DAY, 'd', s % DAY / HOUR, 'h'),
        _ if s < 2 * YEAR => format!("{}d", s / DAY),
        _ if s < 8 * YEAR => two(s / YEAR, 'y', s % YEAR / DAY, 'd'),
        _ => format!("{}y", s / YEAR),
    }
}

/// The same, from one time to a later one.
pub(super) fn between(from: Timestamp, to: Timestamp) -> String {
    human(to.duration_since(from).as_secs())
}

/// Reads `30s`, `5m`, `1h30m`, `500ms`.
pub(super) fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration: write 30s, 5m or 1h30m");
    let mut rest = text;
    let mut total = Duration::ZERO;
    if rest.is_empty() {
        return Err(wrong());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let count: u32 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let (unit, length) = match rest {
            _ if rest.starts_with("ms") => (Duration::from_millis(1), 2),
            _ if rest.starts_with('h') => (Duration::from_secs(3600), 1),
            _ if rest.starts_with('m') => (Duration::from_secs(60), 1),
            _ if rest.starts_with('s') => (Duration::from_secs(1), 1),
            _ => return Err(wrong()),
        };
        rest = &rest[length..];
        let part = unit.checked_mul(count).ok_or_else(wrong)?;
        total = total.checked_add(part).ok_or_else(wrong)?;
    }
    Ok(total)
}

/// A duration of the protos; nothing for a negative one.
pub(super) fn duration(of: &Option<prost_types::Duration>) -> Option<Duration> {
    of.and_then(|it| it.try_into().ok())
}

/// A time of the protos.
pub(super) fn timestamp(of: &Option<prost_types::Timestamp>) -> Option<Timestamp> {
    of.and_then(|it| Timestamp::new(it.seconds, it.nanos).ok())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{human, parse};

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, seconds) in [
            ("30s", 30.0),
            ("5m", 300.0),
            ("1h30m", 5400.0),
            ("1500ms", 1.5),
            ("0s", 0.0),
        ] {
            assert_eq!(parse(text), Ok(Duration::from_secs_f64(seconds)), "{text}");
        }
        for wrong in ["", "5", "m", "5 m", "-5s", "5d", "99999999999s", "é"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_read_as_kubectl_writes_them() {
        const HOUR: i64 = 3600;
        const DAY: i64 = 24 * HOUR;
        for (seconds, text) in [
            (-2, "<invalid>"),
            (-1, "0s"),
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (150, "2m30s"),
            (599, "9m59s"),
            (600, "10m"),
            (3 * HOUR - 1, "179m"),
            (3 * HOUR, "3h"),
            (3 * HOUR + 25 * 60 + 5, "3h25m"),
            (8 * HOUR - 1, "7h59m"),
            (8 * HOUR + 1799, "8h"),
            (2 * DAY - 1, "47h"),
            (2 * DAY, "2d"),
            (2 * DAY + HOUR, "2d1h"),
            (8 * DAY - 1, "7d23h"),
            (8 * DAY, "8d"),
            (2 * 365 * DAY - 1, "729d"),
            (2 * 365 * DAY, "2y"),
            (2 * 365 * DAY + DAY, "2y1d"),
            (8 * 365 * DAY - 1, "7y364d"),
            (8 * 365 * DAY + DAY, "8y"),
        ] {
            assert_eq!(human(seconds), text, "{seconds}");
        }
    }
}
