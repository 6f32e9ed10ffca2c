//! Moments and spans as text: RFC 3339 and seconds with a suffix.
//!
//! Written with 0, 3, 6 or 9 digits of a second, as few as keep the value. Source:
//! google/protobuf/timestamp.proto, duration.proto.

/// Seconds of 0001-01-01T00:00:00Z and of 9999-12-31T23:59:59Z.
const SECONDS: std::ops::RangeInclusive<i64> = -62_135_596_800..=253_402_300_799;
/// Longest span either way: 10,000 years.
const SPAN_SECONDS_MAX: i64 = 315_576_000_000;

/// Writes a moment such as `2026-11-05T10:20:30.250Z`; `None` when it is out of range.
pub(super) fn write_timestamp(out: &mut Vec<u8>, seconds: i64, nanos: i32) -> Option<()> {
    let nanos = u32::try_from(nanos).ok().filter(|nanos| *nanos < 1_000_000_000)?;
    if !SECONDS.contains(&seconds) {
        return None;
    }
    let (year, month, day) = civil(seconds.div_euclid(86_400));
    let second_of_day = seconds.rem_euclid(86_400);
    digits(out, year, 4);
    out.push(b'-');
    digits(out, month, 2);
    out.push(b'-');
    digits(out, day, 2);
    out.push(b'T');
    digits(out, second_of_day / 3_600, 2);
    out.push(b':');
    digits(out, second_of_day / 60 % 60, 2);
    out.push(b':');
    digits(out, second_of_day % 60, 2);
    fraction(out, nanos);
    out.push(b'Z');
    Some(())
}

/// Writes a span such as `1.500s`; `None` when it is out of range or its parts differ in sign.
pub(crate) fn write_duration(out: &mut Vec<u8>, seconds: i64, nanos: i32) -> Option<()> {
    let in_range = seconds.unsigned_abs() <= SPAN_SECONDS_MAX.unsigned_abs()
        && nanos.unsigned_abs() < 1_000_000_000;
    let signs_differ = (seconds < 0 && nanos > 0) || (seconds > 0 && nanos < 0);
    if !in_range || signs_differ {
        return None;
    }
    if seconds < 0 || nanos < 0 {
        out.push(b'-');
    }
    out.extend_from_slice(seconds.unsigned_abs().to_string().as_bytes());
    fraction(out, nanos.unsigned_abs());
    out.push(b's');
    Some(())
}

/// Reads a moment with `Z` or an offset and up to 9 digits of a second.
pub(crate) fn parse_timestamp(text: &str) -> Option<(i64, i32)> {
    let bytes = text.as_bytes();
    let fixed = bytes.get(..19)?;
    let separators = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    if separators.iter().any(|(at, wanted)| fixed[*at] != *wanted)
        || !matches!(fixed[10], b'T' | b't')
    {
        return None;
    }
    let part = |from: usize, to: usize| number(&fixed[from..to]);
    let (year, month, day) = (part(0, 4)?, part(5, 7)?, part(8, 10)?);
    let (hour, minute, second) = (part(11, 13)?, part(14, 16)?, part(17, 19)?);
    if !(1..=12).contains(&month)
        || !(1..=days_in(year, month)).contains(&day)
        || hour > 23
        || minute > 59
        || second > 59
    {
        return None;
    }
    let (nanos, zone) = parse_fraction(&bytes[19..])?;
    let offset = parse_offset(zone)?;
    let seconds = days(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second - offset;
    SECONDS.contains(&seconds).then_some((seconds, nanos))
}

/// Reads a span such as `30s`, `-1.5s`; at most 9 digits of a second.
pub(crate) fn parse_duration(text: &str) -> Option<(i64, i32)> {
    let body = text.strip_suffix('s')?;
    let (negative, body) = body.strip_prefix('-').map_or((false, body), |rest| (true, rest));
    let whole = body.find('.').unwrap_or(body.len());
    let seconds = number(&body.as_bytes()[..whole])?;
    let (nanos, rest) = parse_fraction(&body.as_bytes()[whole..])?;
    if !rest.is_empty() || seconds > SPAN_SECONDS_MAX {
        return None;
    }
    Some(if negative { (-seconds, -nanos) } else { (seconds, nanos) })
}

/// Reads `.123` into nanoseconds, if it is there; gives back what follows.
fn parse_fraction(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let Some(rest) = bytes.strip_prefix(b".") else { return Some((0, bytes)) };
    let length = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if length == 0 || length > 9 {
        return None;
    }
    let (figures, rest) = rest.split_at(length);
    let scale = 10_i64.pow(9 - u32::try_from(length).ok()?);
    let nanos = number(figures)? * scale;
    Some((i32::try_from(nanos).ok()?, rest))
}

/// Seconds east of Greenwich.
fn parse_offset(zone: &[u8]) -> Option<i64> {
    match zone {
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] => {
            let (hours, minutes) = (number(&[*h1, *h2])?, number(&[*m1, *m2])?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            let offset = hours * 3_600 + minutes * 60;
            Some(if *sign == b'-' { -offset } else { offset })
        }
        _ => None,
    }
}

/// A decimal number of at most 18 digits.
fn number(figures: &[u8]) -> Option<i64> {
    if figures.is_empty() || figures.len() > 18 {
        return None;
    }
    figures.iter().try_fold(0_i64, |value, byte| {
        byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0'))
    })
}

fn digits(out: &mut Vec<u8>, value: i64, width: u32) {
    for place in (0..width).rev() {
        let digit = value / 10_i64.pow(place) % 10;
        // A remainder of ten always fits one digit.
        out.push(b'0' + u8::try_from(digit).unwrap_or(0));
    }
}

fn fraction(out: &mut Vec<u8>, nanos: u32) {
    if nanos == 0 {
        return;
    }
    out.push(b'.');
    let nanos = i64::from(nanos);
    if nanos % 1_000_000 == 0 {
        digits(out, nanos / 1_000_000, 3);
    } else if nanos % 1_000 == 0 {
        digits(out, nanos / 1_000, 6);
    } else {
        digits(out, nanos, 9);
    }
}

/// Year, month and day of a day counted from 1970-01-01, in the Gregorian calendar.
///
/// Years are counted from March, so the leap day is the last of its year.
fn civil(day: i64) -> (i64, i64, i64) {
    let day = day + 719_468; // days from 0000-03-01 to 1970-01-01
    let era = day.div_euclid(146_097); // 400 years
    let of_era = day.rem_euclid(146_097);
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * of_year + 2) / 153;
    let day = of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (year, month, day)
}

/// The day counted from 1970-01-01; the inverse of [`civil`].
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted = if month > 2 { month - 3 } else { month + 9 };
    let of_year = (153 * shifted + 2) / 5 + day - 1;
    let of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + of_year;
    era * 146_097 + of_era - 719_468
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        4 | 6 | 9 | 11 => 30,
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, seconds: i64, nanos: i32) {
        assert_eq!(parse_timestamp(text), Some((seconds, nanos)), "{text}");
        let mut out = Vec::new();
        assert!(write_timestamp(&mut out, seconds, nanos).is_some());
        assert_eq!(parse_timestamp(std::str::from_utf8(&out).unwrap()), Some((seconds, nanos)));
    }

    #[test]
    fn moments_read_and_write_back() {
        check("1970-01-01T00:00:00Z", 0, 0);
        check("1970-01-01T01:00:00+01:00", 0, 0);
        check("2000-02-29T23:59:59.123456789Z", 951_868_799, 123_456_789);
        check("0001-01-01T00:00:00Z", -62_135_596_800, 0);
        check("9999-12-31T23:59:59.999999999Z", 253_402_300_799, 999_999_999);
        for day in -800_000..800_000 {
            let (year, month, date) = civil(day);
            assert_eq!(days(year, month, date), day);
        }
    }

    #[test]
    fn moments_that_do_not_exist_are_refused() {
        for text in [
            "",
            "2023-02-29T00:00:00Z",
            "2023-13-01T00:00:00Z",
            "2023-01-01T24:00:00Z",
            "2023-01-01T00:00:60Z",
            "2023-01-01T00:00:00",
            "2023-01-01 00:00:00Z",
            "2023-01-01T00:00:00.Z",
            "2023-01-01T00:00:00.1234567890Z",
            "2023-01-01T00:00:00+1:00",
            "0000-12-31T23:59:59Z",
            "9999-12-31T23:59:59-01:00",
            "2023-01-01T00:00:00Zé",
            "202é-01-01T00:00:00Z",
        ] {
            assert_eq!(parse_timestamp(text), None, "{text}");
        }
    }

    #[test]
    fn spans_keep_their_sign_and_as_few_digits_as_needed() {
        for (text, parts, written) in [
            ("30s", (30, 0), "30s"),
            ("-1.5s", (-1, -500_000_000), "-1.500s"),
            ("0.000001s", (0, 1_000), "0.000001s"),
            ("-0.000000001s", (0, -1), "-0.000000001s"),
        ] {
            assert_eq!(parse_duration(text), Some(parts));
            let mut out = Vec::new();
            assert!(write_duration(&mut out, parts.0, parts.1).is_some());
            assert_eq!(out, written.as_bytes());
        }
        for text in ["", "s", "1", "1.s", ".5s", "1 s", "--1s", "315576000001s", "1.0000000000s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
        assert!(write_duration(&mut Vec::new(), 1, -1).is_none());
        assert!(write_duration(&mut Vec::new(), i64::MIN, 0).is_none());
        assert!(write_timestamp(&mut Vec::new(), 0, -1).is_none());
    }
}
