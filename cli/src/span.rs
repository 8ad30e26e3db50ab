//! Lengths of time as people write them: `30m`, `12h`, `7d`, and `never`.

use crate::fault::Fault;
use crate::limits::LONGEST_SPAN;
use peerlink_core::api::Expire;
use std::time::Duration;

const UNITS: [(char, u64); 5] = [('w', 7 * 86_400), ('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

/// A number with its unit; without one, seconds.
pub(crate) fn parse(text: &str) -> Result<Duration, Fault> {
    read(text, "90s, 30m, 12h, 7d or 2w")
}

fn read(text: &str, forms: &str) -> Result<Duration, Fault> {
    let no_time = || Fault::usage(format!("{text:?} is no time: write {forms}"));
    let unit = text.chars().next_back().and_then(|last| UNITS.iter().find(|(unit, _)| *unit == last));
    let (digits, seconds) = match unit {
        Some((unit, seconds)) => (text.strip_suffix(*unit).unwrap_or(text), *seconds),
        None => (text, 1),
    };
    // A sign is a number's, not a time's.
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(no_time());
    }
    let time = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(seconds));
    match time.map(Duration::from_secs).filter(|time| *time <= LONGEST_SPAN) {
        Some(Duration::ZERO) => Err(Fault::usage("a time must be longer than nothing")),
        Some(time) => Ok(time),
        None => Err(Fault::usage(format!("{text:?} is too long: {} at most", spoken(LONGEST_SPAN)))),
    }
}

/// The same, or `never`: then `None`.
pub(crate) fn parse_or_never(text: &str) -> Result<Option<Duration>, Fault> {
    if text == "never" { Ok(None) } else { read(text, "90s, 30m, 12h, 7d, 2w or never").map(Some) }
}

/// What a message says about itself; nothing: as the profile says.
pub(crate) fn expire(text: Option<&str>) -> Result<Expire, Fault> {
    Ok(match text.map(parse_or_never).transpose()? {
        None => Expire::Default,
        Some(None) => Expire::Never,
        Some(Some(after)) => Expire::After(after),
    })
}

/// The shortest way to write it.
pub(crate) fn spoken(time: Duration) -> String {
    let seconds = time.as_secs();
    let fits = UNITS.iter().find(|(_, length)| seconds >= *length && seconds.is_multiple_of(*length));
    fits.map_or_else(|| format!("{seconds}s"), |(unit, length)| format!("{}{unit}", seconds / length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_reads_back_and_what_is_none_says_so() {
        for (text, seconds) in
            [("90", 90), ("90s", 90), ("30m", 1800), ("12h", 43_200), ("7d", 604_800), ("2w", 1_209_600)]
        {
            assert_eq!(parse(text).unwrap(), Duration::from_secs(seconds), "{text}");
            assert_eq!(parse(&spoken(Duration::from_secs(seconds))).unwrap(), Duration::from_secs(seconds));
        }
        assert_eq!(spoken(Duration::from_secs(604_800)), "1w");
        assert_eq!(spoken(Duration::from_secs(90_000)), "25h");
        for text in ["", "d", "7x", "-7d", "+7d", "7 d", "1.5h", "7dd", "sieben", "never"] {
            assert!(parse(text).unwrap_err().message.contains("is no time"), "{text}");
        }
        for text in ["0", "0d"] {
            assert!(parse(text).unwrap_err().message.contains("longer than nothing"), "{text}");
        }
        for text in ["99999999999999999999", "9999999999999999w", "5219w"] {
            assert!(parse(text).unwrap_err().message.contains("too long"), "{text}");
        }
        assert_eq!(parse_or_never("never").unwrap(), None);
        assert!(parse_or_never("always").unwrap_err().message.contains("or never"));
        assert_eq!(expire(None).unwrap(), Expire::Default);
        assert_eq!(expire(Some("never")).unwrap(), Expire::Never);
    }
}
