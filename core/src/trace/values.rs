//! How the values of a trace line are written and read.

use super::{Field, Scratch};
use crate::bounded::List;
use crate::ids::{BatchId, CallerId, Epoch, LoadId, MessageRef, Name, PeerId, StreamId};
use crate::record::KeyBytes;
use crate::ticket::TicketSecret;
use crate::time::{Duration, Instant, WallClock};
use crate::wire::peer_record::Relay;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::fmt;
use core::net::{SocketAddr, SocketAddrV6};
use core::str::FromStr;
use data_encoding::HEXLOWER;

/// Types whose own text form is what is wanted.
macro_rules! as_text {
    ($($type:ty),*) => {$(
        impl<'a> Field<'a> for $type {
            fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }

            fn parse(text: &str, _: &mut Scratch<'a>) -> Option<Self> {
                Self::from_str(text).ok()
            }
        }
    )*};
}

as_text!(bool, u8, u32, u64, BatchId, CallerId, Epoch, LoadId, MessageRef, PeerId, StreamId);

impl<'a> Field<'a> for Relay {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@", self.peer)?;
        self.address.write(f)
    }

    fn parse(text: &str, scratch: &mut Scratch<'a>) -> Option<Self> {
        let (peer, address) = text.split_once('@')?;
        Some(Self { peer: peer.parse().ok()?, address: Field::parse(address, scratch)? })
    }
}

fn write_hex(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(f, "{}", HEXLOWER.encode_display(bytes))
}

fn parse_hex(text: &str) -> Option<Vec<u8>> {
    HEXLOWER.decode(text.as_bytes()).ok()
}

impl<'a> Field<'a> for &'a [u8] {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(self, f)
    }

    fn parse(text: &str, scratch: &mut Scratch<'a>) -> Option<Self> {
        let bytes = scratch.take()?;
        bytes.clear();
        bytes.resize(HEXLOWER.decode_len(text.len()).ok()?, 0);
        HEXLOWER.decode_mut(text.as_bytes(), bytes).ok()?;
        Some(bytes)
    }
}

/// Types that are bytes and nothing else.
macro_rules! as_hex {
    ($($type:ty, |$value:ident| $bytes:expr, |$read:ident| $back:expr;)*) => {$(
        impl<'a> Field<'a> for $type {
            fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let $value = self;
                write_hex($bytes, f)
            }

            fn parse(text: &str, _: &mut Scratch<'a>) -> Option<Self> {
                let $read = parse_hex(text)?;
                $back
            }
        }
    )*};
}

as_hex! {
    Bytes, |value| value, |read| Some(read.into());
    KeyBytes, |value| value, |read| Self::from_slice(&read).ok();
    TicketSecret, |value| &value.0, |read| read.try_into().ok().map(Self);
}

/// Percent-escaped (RFC 3986, section 2.1): everything but visible ASCII, what separates, and a leading `-`.
impl<'a> Field<'a> for String {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(self, f)
    }

    fn parse(text: &str, _: &mut Scratch<'a>) -> Option<Self> {
        parse_escaped(text)
    }
}

impl<'a> Field<'a> for Name {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_escaped(self.as_str(), f)
    }

    fn parse(text: &str, _: &mut Scratch<'a>) -> Option<Self> {
        Self::new(&parse_escaped(text)?).ok()
    }
}

/// Whether a byte at this place stands for itself.
fn is_plain(at: usize, byte: u8) -> bool {
    match byte {
        b'%' | b',' | b'/' | b':' | b'=' => false,
        b'-' => at > 0,
        _ => byte.is_ascii_graphic(),
    }
}

fn write_escaped(text: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    use fmt::Write as _;
    for (at, byte) in text.bytes().enumerate() {
        if is_plain(at, byte) {
            f.write_char(char::from(byte))?;
        } else {
            write!(f, "%{byte:02X}")?;
        }
    }
    Ok(())
}

fn parse_escaped(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        if is_plain(out.len(), byte) {
            out.push(byte);
            rest = after;
            continue;
        }
        let (&[b'%', high, low], after) = rest.split_first_chunk()? else { return None };
        let [byte] = *data_encoding::HEXUPPER.decode(&[high, low]).ok()?.as_slice() else { return None };
        out.push(byte);
        rest = after;
    }
    String::from_utf8(out).ok()
}

/// Its own text form drops the flow label of an IPv6 address, so that follows behind a tilde, if there is one.
impl<'a> Field<'a> for SocketAddr {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)?;
        match self {
            Self::V6(v6) if v6.flowinfo() != 0 => write!(f, "~{}", v6.flowinfo()),
            Self::V4(_) | Self::V6(_) => Ok(()),
        }
    }

    fn parse(text: &str, _: &mut Scratch<'a>) -> Option<Self> {
        let Some((address, flow)) = text.split_once('~') else { return text.parse().ok() };
        let mut address: SocketAddrV6 = address.parse().ok()?;
        address.set_flowinfo(flow.parse().ok()?);
        Some(address.into())
    }
}

/// Seconds and microseconds.
impl<'a> Field<'a> for Instant {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }

    fn parse(text: &str, _: &mut Scratch<'a>) -> Option<Self> {
        let (seconds, micros) = text.split_once('.')?;
        if micros.len() != 6 {
            return None;
        }
        let seconds = seconds.parse::<u64>().ok()?.checked_mul(1_000_000)?;
        Some(Self::from_micros(seconds.checked_add(micros.parse().ok()?)?))
    }
}

/// Seconds and nanoseconds.
impl<'a> Field<'a> for Duration {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:09}", self.as_secs(), self.subsec_nanos())
    }

    fn parse(text: &str, _: &mut Scratch<'a>) -> Option<Self> {
        let (seconds, nanos) = text.split_once('.')?;
        if nanos.len() != 9 {
            return None;
        }
        // Nine characters make less than a second of nanoseconds: nothing is carried over.
        Some(Self::new(seconds.parse().ok()?, nanos.parse().ok()?))
    }
}

/// Milliseconds since 1970.
impl<'a> Field<'a> for WallClock {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f)
    }

    fn parse(text: &str, scratch: &mut Scratch<'a>) -> Option<Self> {
        Field::parse(text, scratch).map(Self)
    }
}

impl<'a, T: Field<'a>> Field<'a> for Box<T> {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).write(f)
    }

    fn parse(text: &str, scratch: &mut Scratch<'a>) -> Option<Self> {
        T::parse(text, scratch).map(Self::new)
    }
}

/// No value's own text is `-`.
impl<'a, T: Field<'a>> Field<'a> for Option<T> {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            None => f.write_str("-"),
            Some(value) => value.write(f),
        }
    }

    fn parse(text: &str, scratch: &mut Scratch<'a>) -> Option<Self> {
        if text == "-" { Some(None) } else { T::parse(text, scratch).map(Some) }
    }
}

impl<'a, A: Field<'a>, B: Field<'a>> Field<'a> for (A, B) {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write(f)?;
        f.write_str(":")?;
        self.1.write(f)
    }

    fn parse(text: &str, scratch: &mut Scratch<'a>) -> Option<Self> {
        let (a, b) = text.split_once(':')?;
        Some((A::parse(a, scratch)?, B::parse(b, scratch)?))
    }
}

fn write_list<'a, T: Field<'a>>(values: &[T], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    for (at, value) in values.iter().enumerate() {
        if at > 0 {
            f.write_str(",")?;
        }
        value.write(f)?;
    }
    Ok(())
}

/// Nothing at all is the empty list: no value that is in a list has an empty text.
fn list_items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').skip(usize::from(text.is_empty()))
}

impl<'a, T: Field<'a>> Field<'a> for Vec<T> {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(self, f)
    }

    fn parse(text: &str, scratch: &mut Scratch<'a>) -> Option<Self> {
        list_items(text).map(|item| T::parse(item, scratch)).collect()
    }
}

impl<'a, T: Field<'a>, const N: usize> Field<'a> for List<T, N> {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_list(self, f)
    }

    fn parse(text: &str, scratch: &mut Scratch<'a>) -> Option<Self> {
        let mut list = Self::new();
        for item in list_items(text) {
            list.push(T::parse(item, scratch)?).ok()?;
        }
        Some(list)
    }
}
