//! What people read. Everything that came from a peer is shown with its invisible characters made visible.

use crate::limits::SHORT_TEXT;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use peerlink_core::ids::is_invisible;
use serde_json::Value;

/// Invisible, and able to deceive. Joiners and variation selectors are not: Persian and emoji need them, and they
/// move nothing.
fn deceives(c: char) -> bool {
    is_invisible(c) && !matches!(c, '\u{200C}' | '\u{200D}' | '\u{FE00}'..='\u{FE0F}')
}

/// Text of a peer, safe for a terminal: controls, escapes and bidirectional overrides become their names. With
/// `lines`, a line feed stays one.
pub(crate) fn visible(text: &str, lines: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\n' if lines => out.push_str("\n    "),
            '\t' => out.push(' '),
            c if deceives(c) => out.push_str(&format!("<U+{:04X}>", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

/// The beginning of a text, on one line.
pub(crate) fn shortened(text: &str) -> String {
    let visible = visible(text, false);
    match visible.char_indices().nth(SHORT_TEXT) {
        Some((at, _)) => format!("{}…", visible.get(..at).unwrap_or_default()),
        None => visible,
    }
}

/// A wall clock in the name of a file, in UTC.
pub(crate) fn file_time(milliseconds: u64) -> String {
    let at = i64::try_from(milliseconds).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    at.unwrap_or_default().strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// A wall clock for people: hours and minutes today, with the date otherwise.
pub(crate) fn time(milliseconds: u64, now: u64) -> String {
    let zoned = |milliseconds: u64| {
        let milliseconds = i64::try_from(milliseconds).ok()?;
        Some(Timestamp::from_millisecond(milliseconds).ok()?.to_zoned_datetime(TimeZone::system()))
    };
    match (zoned(milliseconds), zoned(now)) {
        (Some(then), Some(now)) if then.date() == now.date() => then.strftime("%H:%M").to_string(),
        (Some(then), _) => then.strftime("%Y-%m-%d %H:%M").to_string(),
        (None, _) => "at no time".to_owned(),
    }
}

/// One message as a line: time, who, what, and its state as a word.
pub(crate) fn message(message: &Value, now: u64) -> String {
    let text = |name: &str| message.get(name).and_then(Value::as_str).unwrap_or_default();
    let number = |name: &str| message.get(name).and_then(Value::as_u64).unwrap_or_default();
    let missing = number("missing_before");
    let gap = match missing {
        0 => String::new(),
        1 => "    (1 message is missing here and was asked for)\n".to_owned(),
        many => format!("    ({many} messages are missing here and were asked for)\n"),
    };
    let time = time(number("claimed_ms"), now);
    let body = match text("taken_away") {
        "" => visible(text("text"), true),
        "cancelled" => "(taken back)".to_owned(),
        "expired" => "(taken back: it was not delivered in time)".to_owned(),
        why => format!("({})", visible(why, false)),
    };
    if message.get("mine").and_then(Value::as_bool) == Some(true) {
        format!("{gap}{time}  you: {body}  [{}]", text("state"))
    } else {
        format!("{gap}{time}  {}: {body}", visible(text("contact"), false))
    }
}

/// What a person must know of the store itself, if this event is about that.
pub(crate) fn notice(event: &Value) -> Option<String> {
    let text = |name: &str| event.get(name).and_then(Value::as_str).unwrap_or_default();
    let contact = visible(text("contact"), false);
    match text("kind") {
        "rolled_back" => Some(format!(
            "(This profile is older than what {contact} has of you: it was restored from a backup. What you lost of your \
             messages comes back from there.)"
        )),
        "second_copy" => Some(format!(
            "(WARNING: another copy of this profile is writing to {contact}. Use only one, and make a new profile for \
             the other.)"
        )),
        "dropped" if text("state") == "expired" => {
            Some(format!("(A message to {contact} expired before it was delivered.)"))
        }
        "gone" => Some(format!("(Some messages of {contact} are gone on that side and will not come.)")),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_peer_writes_cannot_steer_the_terminal() {
        let shown = visible("a\u{1b}[2J\u{202e}b\u{7}\r\nc\u{9b}31m", true);
        assert!(!shown.chars().any(|c| is_invisible(c) && c != '\n'), "{shown:?}");
        assert_eq!(shown, "a<U+001B>[2J<U+202E>b<U+0007><U+000D>\n    c<U+009B>31m");
        assert_eq!(visible("a\nb", false), "a<U+000A>b");
        assert_eq!(visible("❤\u{fe0f} 👩\u{200d}🚀", false), "❤\u{fe0f} 👩\u{200d}🚀");
    }
}
