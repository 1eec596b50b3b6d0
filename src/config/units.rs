//! Durations and sizes as people write them: `1m30s`, `64Mi`.

use std::time::Duration;

const DURATION_UNITS: [(&str, u64); 5] = [
    // Longest first, so that `ms` is not taken for minutes.
    ("ms", 1),
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
];

const BYTE_UNITS: [(&str, u64); 10] = [
    ("Ki", 1 << 10),
    ("Mi", 1 << 20),
    ("Gi", 1 << 30),
    ("Ti", 1 << 40),
    ("k", 1_000),
    ("K", 1_000),
    ("M", 1_000_000),
    ("G", 1_000_000_000),
    ("T", 1_000_000_000_000),
    ("", 1),
];

/// `30s`, `5m`, `1h30m`, `250ms`, `1d`. `None` if it is none, or longer than `u64` milliseconds.
pub(super) fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let (number, unit) = split_number(rest)?;
        let (name, millis) = DURATION_UNITS
            .into_iter()
            .find(|(name, _)| unit.starts_with(name))?;
        total = total.checked_add(number.checked_mul(millis)?)?;
        rest = &unit[name.len()..];
    }
    (!text.is_empty()).then(|| Duration::from_millis(total))
}

/// `65536`, `64Ki`, `64Mi`, `1G`. `None` if it is none, or more than `u64`.
pub(super) fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = split_number(text)?;
    let (_, factor) = BYTE_UNITS.into_iter().find(|(name, _)| unit == *name)?;
    number.checked_mul(factor)
}

fn split_number(text: &str) -> Option<(u64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    Some((text[..end].parse().ok()?, &text[end..]))
}

/// A duration in the form that [`duration`] reads.
pub(super) fn show_duration(duration: Duration) -> String {
    let mut millis = duration.as_millis();
    if millis == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (name, factor) in [("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)] {
        if millis >= factor {
            text.push_str(&format!("{}{name}", millis / factor));
            millis %= factor;
        }
    }
    text
}

/// A size in the form that [`bytes`] reads.
pub(super) fn show_bytes(bytes: u64) -> String {
    for (name, shift) in [("Ti", 40), ("Gi", 30), ("Mi", 20), ("Ki", 10)] {
        if bytes > 0 && bytes.trailing_zeros() >= shift {
            return format!("{}{name}", bytes >> shift);
        }
    }
    bytes.to_string()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_read_as_go_and_kubernetes_write_them() {
        for (text, millis) in [
            ("130s", 130_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("250ms", 250),
            ("1m250ms", 60_250),
            ("1d", 86_400_000),
            ("0s", 0),
        ] {
            assert_eq!(
                duration(text),
                Some(Duration::from_millis(millis)),
                "{text}"
            );
        }
        for text in [
            "",
            "5",
            "s",
            "5 m",
            "-5m",
            "5x",
            "1.5h",
            "m5",
            "99999999999999999999s",
            "999999999999999999h",
        ] {
            assert_eq!(duration(text), None, "{text:?}");
        }
    }

    #[test]
    fn sizes_are_read_as_kubernetes_quantities() {
        for (text, size) in [
            ("65536", 65_536),
            ("64Ki", 65_536),
            ("64Mi", 64 << 20),
            ("1G", 1_000_000_000),
            ("0", 0),
        ] {
            assert_eq!(bytes(text), Some(size), "{text}");
        }
        for text in ["", "Mi", "64MB", "64 Mi", "-1", "1.5Gi", "99999999999Ti"] {
            assert_eq!(bytes(text), None, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_shown_is_read_back(millis in 0..u64::MAX / 2, size in any::<u64>()) {
            let millis = Duration::from_millis(millis);
            prop_assert_eq!(duration(&show_duration(millis)), Some(millis));
            prop_assert_eq!(bytes(&show_bytes(size)), Some(size));
        }

        #[test]
        fn no_text_is_too_strange(text in ".*") {
            let _ = (duration(&text), bytes(&text));
        }
    }
}
