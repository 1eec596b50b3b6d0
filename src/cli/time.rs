//! Times and durations, as they are written and as the protos have them.

use jiff::Timestamp;
use std::time::Duration;

pub(super) use crate::columns::time::{between, human, seconds};

/// Reads `30s`, `5m`, `1h30m`, `500ms`.
///
/// # Errors
///
/// It is none of these; the error says what to write.
pub fn parse(text: &str) -> Result<Duration, String> {
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

    use super::parse;

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
}
