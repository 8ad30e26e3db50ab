//! Packets: what travels in one datagram.
//!
//! ```text
//! initiation  0xc1, version (1), sender (4), e (32), padding, mac1 (16), mac2 (16)      INITIATION_LEN bytes
//! response    0xc2, receiver (4), sender (4), Noise XX message 2
//! finish      0xc3, receiver (4), Noise XX message 3
//! data        0xc4, receiver (4), number (8), sealed pieces
//! cookie      0xc5, receiver (4), nonce (12), sealed cookie (32)
//! ```
//!
//! Numbers are big-endian. `sender` and `receiver` are random names that each side draws for a session, so that a
//! packet finds it from whatever address it comes. The two high bits of the first byte are set: STUN (RFC 8489, section 5)
//! has them clear, so both share a socket.
//!
//! An initiation is longer than the response to it, so that nobody who lies about his address makes us send more than he
//! did. `mac1` is keyed by the responder's PeerId: who only scans hears nothing. `mac2` is keyed by a cookie that only
//! who receives at the claimed address can know; it is asked for under load (WireGuard, section 5.4.7).
//!
//! Pieces of a packet are `type, length, body` like frames. They end with the packet: what must arrive travels as parts of
//! one ordered sequence of records, and parts that were lost are sent again in other packets.

use super::frame::CloseReason;
use super::{Malformed, put, put_varint, take, take_varint};
use crate::bounded::List;
use crate::ids::PeerId;
use crate::limits::{ACK_RANGES, PACKET_BYTES, SEAL_BYTES};
use alloc::vec::Vec;
use chacha20poly1305::{AeadInOut as _, ChaCha20Poly1305, KeyInit as _, Tag};
use serde::{Deserialize, Serialize};

/// Of the packets; it is in the initiation, and changes with any of them.
pub(crate) const VERSION: u8 = 1;
pub(crate) const INITIATION_LEN: usize = 320;
const MAC_LEN: usize = 16;
const NONCE_LEN: usize = 12;
/// Header of a data packet: also what its seal covers beside the pieces.
pub(crate) const DATA_HEADER: usize = 1 + 4 + 8;
/// Where pieces end in the largest packet that we make: what is left is for the seal.
pub(crate) const PIECES: usize = PACKET_BYTES - SEAL_BYTES;

const INITIATION: u8 = 0xc1;
const RESPONSE: u8 = 0xc2;
const FINISH: u8 = 0xc3;
const DATA: u8 = 0xc4;
const COOKIE: u8 = 0xc5;

/// What knows the address of who began: only who receives there can say it back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cookie(pub(crate) [u8; 16]);

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Packet<'a> {
    /// Only its length and first byte are known to be right.
    Initiation(Initiation<'a>),
    Response {
        receiver: u32,
        sender: u32,
        noise: &'a [u8],
    },
    Finish {
        receiver: u32,
        noise: &'a [u8],
    },
    Data {
        receiver: u32,
        number: u64,
        header: [u8; DATA_HEADER],
        sealed: &'a [u8],
    },
    Cookie {
        receiver: u32,
        nonce: [u8; NONCE_LEN],
        sealed: &'a [u8],
    },
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Initiation<'a> {
    pub(crate) sender: u32,
    pub(crate) noise: &'a [u8],
    content: &'a [u8],
    pub(crate) mac1: [u8; MAC_LEN],
    macked: &'a [u8],
    mac2: [u8; MAC_LEN],
}

impl<'a> Packet<'a> {
    /// What a datagram claims to be; `None` if it is none of ours.
    pub(crate) fn parse(datagram: &'a [u8]) -> Option<Self> {
        let (kind, rest) = datagram.split_first()?;
        match *kind {
            INITIATION => Initiation::parse(datagram).map(Self::Initiation),
            RESPONSE => {
                let (receiver, rest) = take_u32(rest)?;
                let (sender, noise) = take_u32(rest)?;
                Some(Self::Response { receiver, sender, noise })
            }
            FINISH => {
                let (receiver, noise) = take_u32(rest)?;
                Some(Self::Finish { receiver, noise })
            }
            DATA => {
                let (header, sealed) = datagram.split_first_chunk::<DATA_HEADER>()?;
                let (receiver, rest) = take_u32(rest)?;
                let number = u64::from_be_bytes(*rest.first_chunk()?);
                Some(Self::Data { receiver, number, header: *header, sealed })
            }
            COOKIE => {
                let (receiver, rest) = take_u32(rest)?;
                let (nonce, sealed) = rest.split_first_chunk()?;
                Some(Self::Cookie { receiver, nonce: *nonce, sealed })
            }
            _ => None,
        }
    }
}

impl<'a> Initiation<'a> {
    fn parse(datagram: &'a [u8]) -> Option<Self> {
        if datagram.len() != INITIATION_LEN {
            return None;
        }
        let (macked, mac2) = datagram.split_last_chunk::<MAC_LEN>()?;
        let (content, mac1) = macked.split_last_chunk::<MAC_LEN>()?;
        let (version, rest) = content.get(1..)?.split_first()?;
        let (sender, rest) = take_u32(rest)?;
        let noise = rest.get(..32)?;
        (*version == VERSION).then_some(Self { sender, noise, content, mac1: *mac1, macked, mac2: *mac2 })
    }

    /// Whether it is meant for this peer.
    pub(crate) fn is_for(&self, responder: &PeerId) -> bool {
        mac("peerlink 2026-11 v1 datagram mac1", responder.as_bytes(), self.content) == self.mac1
    }

    /// Whether its sender had this cookie.
    pub(crate) fn has(&self, cookie: &Cookie) -> bool {
        mac("peerlink 2026-11 v1 datagram mac2", &cookie.0, self.macked) == self.mac2
    }
}

/// The first packet of a session. With a cookie, if one was asked for.
pub(crate) fn initiation(responder: &PeerId, sender: u32, noise: &[u8], cookie: Option<&Cookie>) -> Vec<u8> {
    let mut out = alloc::vec![INITIATION, VERSION];
    out.extend_from_slice(&sender.to_be_bytes());
    out.extend_from_slice(noise);
    out.resize(INITIATION_LEN - 2 * MAC_LEN, 0);
    let mac1 = mac("peerlink 2026-11 v1 datagram mac1", responder.as_bytes(), &out);
    out.extend_from_slice(&mac1);
    let mac2 =
        cookie.map(|cookie| mac("peerlink 2026-11 v1 datagram mac2", &cookie.0, &out)).unwrap_or_default();
    out.extend_from_slice(&mac2);
    out
}

pub(crate) fn response(receiver: u32, sender: u32, noise: &[u8]) -> Vec<u8> {
    [&[RESPONSE], receiver.to_be_bytes().as_slice(), &sender.to_be_bytes(), noise].concat()
}

pub(crate) fn finish(receiver: u32, noise: &[u8]) -> Vec<u8> {
    [&[FINISH], receiver.to_be_bytes().as_slice(), noise].concat()
}

pub(crate) fn data_header(receiver: u32, number: u64) -> [u8; DATA_HEADER] {
    let [a, b, c, d] = receiver.to_be_bytes();
    let [e, f, g, h, i, j, k, l] = number.to_be_bytes();
    [DATA, a, b, c, d, e, f, g, h, i, j, k, l]
}

/// The cookie of an address, sealed so that only who sent, or saw, an initiation of this `mac1` can read it.
pub(crate) fn cookie(
    responder: &PeerId,
    receiver: u32,
    mac1: &[u8; MAC_LEN],
    nonce: [u8; NONCE_LEN],
    cookie: Cookie,
) -> Option<Vec<u8>> {
    let mut sealed = cookie.0;
    let tag = cookie_cipher(responder)
        .encrypt_inout_detached(&nonce.into(), mac1, sealed.as_mut_slice().into())
        .ok()?;
    Some([&[COOKIE], receiver.to_be_bytes().as_slice(), &nonce, &sealed, &tag].concat())
}

pub(crate) fn open_cookie(
    responder: &PeerId,
    mac1: &[u8; MAC_LEN],
    nonce: [u8; NONCE_LEN],
    sealed: &[u8],
) -> Option<Cookie> {
    let (cookie, tag) = sealed.split_last_chunk::<SEAL_BYTES>()?;
    let mut cookie: [u8; 16] = cookie.try_into().ok()?;
    cookie_cipher(responder)
        .decrypt_inout_detached(&nonce.into(), mac1, cookie.as_mut_slice().into(), &Tag::from(*tag))
        .ok()?;
    Some(Cookie(cookie))
}

fn cookie_cipher(responder: &PeerId) -> ChaCha20Poly1305 {
    let key = blake3::derive_key("peerlink 2026-11 v1 cookie", responder.as_bytes());
    ChaCha20Poly1305::new((&key).into())
}

fn mac(context: &str, key: &[u8], message: &[u8]) -> [u8; MAC_LEN] {
    let key = blake3::derive_key(context, key);
    let mut mac = [0; MAC_LEN];
    blake3::Hasher::new_keyed(&key).update(message).finalize_xof().fill(&mut mac);
    mac
}

/// The `mac1` of an initiation that we made.
pub(crate) fn mac1_of(initiation: &[u8]) -> Option<[u8; MAC_LEN]> {
    let (macked, _) = initiation.split_last_chunk::<MAC_LEN>()?;
    macked.last_chunk().copied()
}

fn take_u32(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (head, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*head), rest))
}

// --- pieces ------------------------------------------------------------------------------------------------------

const ACK: u64 = 0x02;
const PART: u64 = 0x04;
const CHALLENGE: u64 = 0x06;
const ANSWER: u64 = 0x08;
const PROBE: u64 = 0x0a;
const CLOSE: u64 = 0x0c;
const UPTO: u64 = 0x0e;
const PADDING: u64 = 0x01;

/// Bytes of a part beside its own: type, length, offset.
pub(crate) const PART_HEADER: usize = 1 + 2 + 8;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece<'a> {
    Ack(Ack),
    /// Bytes of the sender's records, from `offset` on.
    Part {
        offset: u64,
        bytes: &'a [u8],
    },
    /// Say this back on the way that it came.
    Challenge([u8; 8]),
    Answer([u8; 8]),
    /// Nothing but a wish to be acknowledged.
    Probe,
    /// Parts are taken up to this offset.
    Limit(u64),
    /// The session is over.
    Close(CloseReason),
}

/// Which packets came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Ack {
    /// The highest number.
    pub(crate) largest: u64,
    /// Since when it waits to be acknowledged, in microseconds.
    pub(crate) delay: u32,
    /// How many came below the highest without a gap.
    pub(crate) first: u32,
    /// Then, downwards: how many are missing, less one, and how many came, less one (RFC 9000, section 19.3.1).
    pub(crate) more: List<(u32, u32), { ACK_RANGES - 1 }>,
}

impl Piece<'_> {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        let kind = match self {
            Self::Ack(ack) => {
                put(&mut body, ack);
                ACK
            }
            Self::Part { offset, bytes } => return put_part(out, *offset, bytes),
            Self::Challenge(token) => {
                body.extend_from_slice(token);
                CHALLENGE
            }
            Self::Answer(token) => {
                body.extend_from_slice(token);
                ANSWER
            }
            Self::Probe => PROBE,
            Self::Limit(limit) => {
                put(&mut body, limit);
                UPTO
            }
            Self::Close(reason) => {
                put(&mut body, reason);
                CLOSE
            }
        };
        put_varint(out, kind);
        put_varint(out, body.len() as u64);
        out.extend_from_slice(&body);
    }

    /// Whether a packet with this in it wants to be acknowledged.
    pub(crate) const fn asks(&self) -> bool {
        !matches!(self, Self::Ack(_))
    }

    /// Whether it may travel on a way that is not proven without making that the way (RFC 9000, section 9.1).
    pub(crate) const fn probes(&self) -> bool {
        matches!(self, Self::Challenge(_) | Self::Answer(_))
    }
}

fn put_part(out: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    let mut number = Vec::new();
    put_varint(&mut number, offset);
    put_varint(out, PART);
    put_varint(out, (number.len() + bytes.len()) as u64);
    out.extend_from_slice(&number);
    out.extend_from_slice(bytes);
}

/// Fills a packet up to `length` bytes of pieces, if that can be done.
pub(crate) fn pad(out: &mut Vec<u8>, length: usize) {
    let Some(missing) = length.checked_sub(out.len()).filter(|missing| *missing >= 3) else { return };
    put_varint(out, PADDING);
    // Two bytes of length, whatever it is.
    let body = missing - 3;
    out.extend([0x40 | u8::try_from(body >> 8).unwrap_or(0), (body & 0xff) as u8]);
    out.resize(length, 0);
}

/// Takes pieces off an opened packet, one by one.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pieces<'a>(pub(crate) &'a [u8]);

impl<'a> Iterator for Pieces<'a> {
    type Item = Result<Piece<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.0.is_empty() {
            match self.take_one() {
                Ok(Some(piece)) => return Some(Ok(piece)),
                Ok(None) => {}
                Err(malformed) => {
                    self.0 = &[];
                    return Some(Err(malformed));
                }
            }
        }
        None
    }
}

impl<'a> Pieces<'a> {
    fn take_one(&mut self) -> Result<Option<Piece<'a>>, Malformed> {
        let kind = take_varint(&mut self.0).ok_or(Malformed("piece type"))?;
        let length = take_varint(&mut self.0).and_then(|length| usize::try_from(length).ok());
        let (mut body, rest) =
            length.and_then(|length| self.0.split_at_checked(length)).ok_or(Malformed("piece length"))?;
        self.0 = rest;
        let token = |body: &[u8]| body.try_into().map_err(|_| Malformed("token"));
        Ok(Some(match kind {
            ACK => Piece::Ack(take(body, "acknowledgement of packets")?),
            PART => {
                let offset = take_varint(&mut body).ok_or(Malformed("offset"))?;
                Piece::Part { offset, bytes: body }
            }
            CHALLENGE => Piece::Challenge(token(body)?),
            ANSWER => Piece::Answer(token(body)?),
            PROBE => Piece::Probe,
            UPTO => Piece::Limit(take(body, "limit")?),
            CLOSE => Piece::Close(take(body, "close")?),
            unknown if unknown % 2 == 1 => return Ok(None),
            _ => return Err(Malformed("piece of an unknown critical type")),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::{Identity, IdentitySecret};

    fn peer(seed: u8) -> PeerId {
        Identity::new(&IdentitySecret::new([seed; 32]).unwrap()).unwrap().peer()
    }

    #[test]
    fn an_initiation_is_for_one_peer_and_every_bit_of_it_counts() {
        let packet = initiation(&peer(1), 7, &[5; 32], None);
        let Some(Packet::Initiation(read)) = Packet::parse(&packet) else { panic!("an initiation") };
        assert_eq!((read.sender, read.noise), (7, &[5; 32][..]));
        assert!(read.is_for(&peer(1)) && !read.is_for(&peer(2)));
        for bit in 0..(INITIATION_LEN - MAC_LEN) * 8 {
            let mut wrong = packet.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            let accepted =
                matches!(Packet::parse(&wrong), Some(Packet::Initiation(read)) if read.is_for(&peer(1)));
            assert!(!accepted, "bit {bit}");
        }
    }

    #[test]
    fn a_cookie_goes_to_who_asked_and_proves_where_he_is() {
        let asked = initiation(&peer(1), 7, &[5; 32], None);
        let mac1 = mac1_of(&asked).unwrap();
        let secret = Cookie([9; 16]);
        let reply = cookie(&peer(1), 7, &mac1, [3; 12], secret).unwrap();
        assert!(reply.len() < asked.len());
        let Some(Packet::Cookie { receiver: 7, nonce, sealed }) = Packet::parse(&reply) else {
            panic!("a cookie")
        };
        assert_eq!(open_cookie(&peer(1), &mac1, nonce, sealed), Some(secret));
        assert_eq!(open_cookie(&peer(2), &mac1, nonce, sealed), None);
        assert_eq!(open_cookie(&peer(1), &[0; 16], nonce, sealed), None);
        let again = initiation(&peer(1), 7, &[5; 32], Some(&secret));
        let Some(Packet::Initiation(read)) = Packet::parse(&again) else { panic!("an initiation") };
        assert!(read.has(&secret) && !read.has(&Cookie([8; 16])) && read.is_for(&peer(1)));
    }

    #[test]
    fn pieces_come_back_and_unknown_odd_ones_are_skipped() {
        let ack = Ack { largest: 900, delay: 25_000, first: 3, more: List::of([(1, 2)]) };
        let pieces = [
            Piece::Ack(ack),
            Piece::Part { offset: 70_000, bytes: b"half a record" },
            Piece::Challenge([1; 8]),
            Piece::Answer([2; 8]),
            Piece::Probe,
            Piece::Limit(70_000),
            Piece::Close(CloseReason::Replaced),
        ];
        let mut out = Vec::new();
        for piece in &pieces {
            piece.encode(&mut out);
            let length = out.len() + 3 + out.len() % 90;
            pad(&mut out, length);
            assert_eq!(out.len(), length);
        }
        let read: Result<Vec<Piece<'_>>, Malformed> = Pieces(&out).collect();
        assert_eq!(read.unwrap(), pieces);
        assert!(Pieces(&[0x40, 0x40, 0]).any(|piece| piece.is_err()), "unknown and critical");
        for cut in 1..out.len() {
            let _total = Pieces(&out[..cut]).count();
        }
    }

    #[test]
    fn what_is_not_ours_is_not_read() {
        assert_eq!(Packet::parse(&[]), None);
        assert_eq!(Packet::parse(&[0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42]), None, "STUN");
        for kind in 0..=255 {
            for length in 0..INITIATION_LEN + 2 {
                let _total = Packet::parse(&alloc::vec![kind; length]);
            }
        }
    }
}
