//! Times as files write them: decimal numbers of milliseconds or seconds, and calendar dates.

/// A JSON number as a whole number of nanoseconds, 10^`scale` of which make its unit (6 for milliseconds, 9 for
/// seconds): decimal arithmetic on the digits as written; digits beyond the nanosecond are rounded half up. None where
/// it is no number, negative, or beyond 64 bits.
pub(crate) fn decimal_to_ns(json: &str, scale: i64) -> Option<u64> {
    let (mantissa, exponent) = match json.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (json, 0),
    };
    let (negative, mantissa) = match mantissa.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, mantissa),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    if whole.is_empty() || !whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit()) {
        return None;
    }
    let digits: Vec<u8> =
        whole.bytes().chain(fraction.bytes()).map(|b| b - b'0').skip_while(|digit| *digit == 0).collect();
    if digits.is_empty() {
        return Some(0);
    }
    // ns = digits * 10^scale
    let scale = exponent.checked_sub(i64::try_from(fraction.len()).ok()?)?.checked_add(scale)?;
    // Leading zeros of the fraction are gone from `digits` already, so this is where the nanoseconds end.
    let kept = i64::try_from(digits.len()).ok()?.checked_add(scale)?;
    if negative || kept > 20 {
        return None;
    }
    if kept < 0 {
        return Some(0);
    }
    let kept = kept as usize;
    let digit = |at: usize| u128::from(digits.get(at).copied().unwrap_or(0));
    let ns = (0..kept).fold(0u128, |ns, at| ns * 10 + digit(at)) + u128::from(digit(kept) >= 5);
    u64::try_from(ns).ok()
}

/// `2023-11-16 18:17:03.9799600`, with `T` for the blank and with or without a zone (`Z`, `+01:00`), as nanoseconds
/// since the start of 1970 UTC. None where it is no such date, or before 1970.
pub(crate) fn date_to_ns(text: &str) -> Option<u64> {
    let (date, time) = text.trim().split_once(['T', ' '])?;
    let (year, rest) = date.split_once('-')?;
    let (month, day) = rest.split_once('-')?;
    let (year, month, day) = (number(year, 4)?, number(month, 2)?, number(day, 2)?);
    let (clock, zone) = match time.find(['Z', 'z', '+', '-']) {
        Some(at) => time.split_at(at),
        None => (time, ""),
    };
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let mut parts = whole.split(':');
    let mut part = || number(parts.next()?, 2);
    let (hour, minute, second) = (part()?, part()?, part()?);
    let valid = (1..=12).contains(&month) && (1..=days_in(year, month)).contains(&day);
    // A leap second counts as the one after it.
    if !valid || hour > 23 || minute > 59 || second > 60 || parts.next().is_some() {
        return None;
    }
    let seconds = days(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset(zone)?;
    let nanos = if fraction.is_empty() { 0 } else { decimal_to_ns(&format!("0.{fraction}"), 9)? };
    u64::try_from(seconds).ok()?.checked_mul(1_000_000_000)?.checked_add(nanos)
}

fn number(digits: &str, most: usize) -> Option<i64> {
    let plain = !digits.is_empty() && digits.len() <= most && digits.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| digits.parse().ok()).flatten()
}

/// Seconds that a zone is ahead of UTC.
fn offset(zone: &str) -> Option<i64> {
    let sign = match zone.bytes().next() {
        None => return Some(0),
        Some(b'Z' | b'z') => return (zone.len() == 1).then_some(0),
        Some(b'-') => -1,
        Some(_) => 1,
    };
    let digits = zone.get(1..)?.replace(':', "");
    let (hours, minutes) =
        (number(digits.get(..2)?, 2)?, number(digits.get(2..).filter(|m| !m.is_empty()).unwrap_or("0"), 2)?);
    (hours < 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}

fn days_in(year: i64, month: i64) -> i64 {
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    match month {
        2 => 28 + i64::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Days from 1970-01-01 in the Gregorian calendar (Howard Hinnant's `days_from_civil`).
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn milliseconds_are_exact() {
        for (json, ns) in [
            ("0", Some(0)),
            ("-0.0", Some(0)),
            ("7.215", Some(7_215_000)),
            ("27482", Some(27_482_000_000)),
            ("1700000000123.456789", Some(1_700_000_000_123_456_789)),
            ("0.0000005", Some(1)),
            ("0.0000004999", Some(0)),
            ("0.000001", Some(1)),
            ("1.5e3", Some(1_500_000_000)),
            ("15E-1", Some(1_500_000)),
            ("1e-300", Some(0)),
            ("0e999999999999999999", Some(0)),
            ("18446744073709.551615", Some(u64::MAX)),
            ("18446744073709.551616", None),
            ("1e300", None),
            ("-1", None),
            ("\"7\"", None),
            ("true", None),
            ("1e99999999999999999999", None),
        ] {
            assert_eq!(decimal_to_ns(json, 6), ns, "{json}");
        }
    }

    proptest! {
        #[test]
        fn any_nanosecond_survives_being_written_in_milliseconds(ns: u64) {
            let json = format!("{}.{:06}", ns / 1_000_000, ns % 1_000_000);
            prop_assert_eq!(decimal_to_ns(&json, 6), Some(ns));
        }

        #[test]
        fn no_number_text_panics(json in "-?[0-9]{0,30}(\\.[0-9]{0,30})?([eE][+-]?[0-9]{0,20})?") {
            decimal_to_ns(&json, 6);
        }
    }

    #[test]
    fn dates_are_exact() {
        for (text, ns) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2023-11-16 18:17:03.9799600", Some(1_700_158_623_979_960_000)),
            ("2024-05-10 00:00:00.009930+00:00", Some(1_715_299_200_009_930_000)),
            ("2024-02-29T23:59:59.999999999+01:00", Some(1_709_247_599_999_999_999)),
            ("2000-03-01T00:00:00-0530", Some(951_888_600_000_000_000)),
            ("2023-02-29T00:00:00Z", None),
            ("1969-12-31T23:59:59Z", None),
            ("2023-11-16", None),
            ("2023-11-16T24:00:00", None),
            ("2023-11-16T10:00", None),
            ("2023-11-16T10:00:00+", None),
            ("x", None),
        ] {
            assert_eq!(date_to_ns(text), ns, "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_date_text_panics(text in "[0-9TZ:+. é-]{0,40}") {
            date_to_ns(&text);
        }
    }
}
