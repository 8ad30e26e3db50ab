//! What travels: frames inside sealed records, the two handshake payloads, entries, peer records.
//!
//! A frame is `type, length, body`, both numbers as variable-length integers (RFC 9000, section 16). An unknown odd
//! type is skipped, an unknown even type ends the session. Bodies are postcard with nothing behind them, or raw bytes.
//!
//! What servers and gateways speak is theirs: STUN, PCP and NAT-PMP, each a file of its own.

pub mod entry;
pub mod frame;
#[cfg(test)]
mod golden;
pub mod handshake;
pub mod natpmp;
pub(crate) mod packet;
pub mod pcp;
pub mod peer_record;
pub mod stun;

use alloc::vec::Vec;
use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};

/// Bytes that are not what the peer should have sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed {0}")]
pub struct Malformed(pub &'static str);

/// Appends a variable-length integer (RFC 9000, section 16). Values of 2^62 and more are cut to the largest.
pub(crate) fn put_varint(out: &mut Vec<u8>, value: u64) {
    let [.., a, b, c, d] = value.to_be_bytes();
    match value {
        0..0x40 => out.push(d),
        0x40..0x4000 => out.extend([c | 0x40, d]),
        0x4000..0x4000_0000 => out.extend([a | 0x80, b, c, d]),
        _ => out.extend((value.min((1 << 62) - 1) | (0b11 << 62)).to_be_bytes()),
    }
}

/// Takes a variable-length integer off the front.
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<u64> {
    let first = *bytes.first()?;
    let length = 1usize << (first >> 6);
    let (head, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    let value = head.iter().fold(0u64, |value, byte| (value << 8) | u64::from(*byte));
    // The two length bits are not part of the value.
    let bits = u32::try_from(length).ok()?.checked_mul(8)?.checked_sub(2)?;
    Some(value & 1u64.checked_shl(bits)?.checked_sub(1)?)
}

/// Appends to a vector, what is many bytes in one go.
struct Append<'a>(&'a mut Vec<u8>);

impl Flavor for Append<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// Appends the postcard form of a value.
pub(crate) fn put<T: Serialize>(out: &mut Vec<u8>, value: &T) {
    // Serialising our own types (no maps, no sequences of unknown length) into a growing vector cannot fail.
    let done = postcard::serialize_with_flavor(value, Append(out));
    debug_assert!(done.is_ok());
}

/// Decodes a value that fills `bytes` exactly.
pub(crate) fn take<'a, T: Deserialize<'a>>(bytes: &'a [u8], what: &'static str) -> Result<T, Malformed> {
    match postcard::take_from_bytes(bytes) {
        Ok((value, [])) => Ok(value),
        _ => Err(Malformed(what)),
    }
}

/// Decodes a value at the front of `bytes`, and gives what is behind it.
pub(crate) fn take_front<'a, T: Deserialize<'a>>(
    bytes: &'a [u8],
    what: &'static str,
) -> Result<(T, &'a [u8]), Malformed> {
    postcard::take_from_bytes(bytes).map_err(|_| Malformed(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_of_rfc_9000_appendix_a() {
        for (value, bytes) in [
            (151_288_809_941_952_652, &[0xc2, 0x19, 0x7c, 0x5e, 0xff, 0x14, 0xe8, 0x8c][..]),
            (494_878_333, &[0x9d, 0x7f, 0x3e, 0x7d]),
            (15_293, &[0x7b, 0xbd]),
            (37, &[0x25]),
        ] {
            let mut out = Vec::new();
            put_varint(&mut out, value);
            assert_eq!(out, bytes);
            let mut rest = bytes;
            assert_eq!(take_varint(&mut rest), Some(value));
            assert!(rest.is_empty());
            assert_eq!(take_varint(&mut &bytes[..bytes.len() - 1]), None);
        }
    }
}
