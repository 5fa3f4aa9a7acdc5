//! Numbers, times and foreign bytes as people read them.

use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes with a binary unit, such as `64.0 KiB`.
pub(crate) fn size(len: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if len < 1024 {
        return format!("{len} B");
    }
    let mut value = len as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    format!("{value:.1} {}", UNITS[unit])
}

/// A count with its thousands apart.
pub(crate) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `part` of `whole` in percent.
pub(crate) fn percent(part: u64, whole: u64) -> String {
    if whole == 0 {
        return "-".to_owned();
    }
    format!("{:.1} %", part as f64 * 100.0 / whole as f64)
}

/// A count with its noun, in the singular for 1.
pub(crate) fn counted(number: u64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{} {noun}s", count(number)) }
}

/// A time in nanoseconds since 1970 as a date in UTC, and how long ago that was.
pub(crate) fn moment(unix_ns: u64) -> String {
    if unix_ns == 0 {
        return "unknown".to_owned();
    }
    let seconds = unix_ns / 1_000_000_000;
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let age = age(unix_ns);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z ({age})")
}

/// How long ago a time in nanoseconds since 1970 was.
pub(crate) fn age(unix_ns: u64) -> String {
    if unix_ns == 0 {
        return "unknown".to_owned();
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_secs());
    let Some(passed) = now.checked_sub(unix_ns / 1_000_000_000) else {
        return "in the future".to_owned();
    };
    let (number, unit) = match passed {
        0..120 => (passed, "s"),
        120..7_200 => (passed / 60, "min"),
        7_200..172_800 => (passed / 3600, "h"),
        _ => (passed / 86_400, "days"),
    };
    format!("{number} {unit} ago")
}

/// Year, month and day of a day counted from 1970-01-01, after Howard Hinnant's
/// `civil_from_days`: years begin in March, so that leap days come last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Untrusted text with nothing in it that a terminal would act on.
pub(crate) fn printable(text: &str) -> String {
    let mut safe = String::new();
    for c in text.chars() {
        match c {
            '"' | '\'' => safe.push(c),
            _ => safe.extend(c.escape_debug()),
        }
    }
    safe
}

/// Bytes up to the first 0, with nothing in them that a terminal would act on.
pub(crate) fn printable_bytes(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    printable(&String::from_utf8_lossy(&bytes[..end]))
}

/// Bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_the_calendar() {
        assert_eq!(date(0), (1970, 1, 1));
        assert_eq!(date(11_016), (2000, 2, 29));
        assert_eq!(date(20_778), (2026, 11, 21));
    }

    #[test]
    fn sizes_and_counts_read_well() {
        assert_eq!([size(0), size(1023), size(1 << 20)], ["0 B", "1023 B", "1.0 MiB"]);
        assert_eq!([count(7), count(1234), count(1_000_000)], ["7", "1,234", "1,000,000"]);
    }

    #[test]
    fn nothing_printable_moves_a_cursor() {
        assert_eq!(printable("a\x1b[2J\u{202e}é\n"), r"a\u{1b}[2J\u{202e}é\n");
        assert_eq!(printable_bytes(b"ab\0cd"), "ab");
    }
}
