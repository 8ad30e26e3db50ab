//! The Port Control Protocol (RFC 6887), as far as a mapping of our own ports needs it: MAP and ANNOUNCE, without options.
//! Both directions, so that a gateway can be played in tests.
//!
//! ```text
//! request   version (1), opcode (1), 0 (2), lifetime (4), own address (16), payload
//! response  version (1), opcode | 128 (1), 0 (1), result (1), lifetime (4), epoch (4), 0 (12), payload
//! MAP       nonce (12), protocol (1), 0 (3), internal port (2), external port (2), external address (16)
//! ```
//!
//! Addresses of IPv4 are written as IPv6 ones that map them (section 5). Options behind the payload are skipped: who asks
//! for none gets none that matter (section 7.3).

use super::Malformed;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

pub const VERSION: u8 = 2;
/// Where a gateway listens, for this protocol and for NAT-PMP (section 19.1).
pub const PORT: u16 = 5351;
/// No message is longer (section 7).
const MESSAGE_LEN: usize = 1100;
const HEADER_LEN: usize = 24;
const MAP_LEN: usize = 36;
const ANSWER: u8 = 128;

const ANNOUNCE: u8 = 0;
const MAP: u8 = 1;

/// Results that are treated on their own (section 7.4).
pub const SUCCESS: u8 = 0;
pub const UNSUPP_VERSION: u8 = 1;
pub const NOT_AUTHORIZED: u8 = 2;
pub const UNSUPP_OPCODE: u8 = 4;
pub const NETWORK_FAILURE: u8 = 7;
pub const NO_RESOURCES: u8 = 8;
pub const ADDRESS_MISMATCH: u8 = 12;

/// What is mapped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Transport {
    Udp,
    Tcp,
}

impl Transport {
    const fn number(self) -> u8 {
        match self {
            Self::Udp => 17,
            Self::Tcp => 6,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        match number {
            17 => Some(Self::Udp),
            6 => Some(Self::Tcp),
            _ => None,
        }
    }
}

/// Proves that an answer, and a later change of a mapping, is its owner's: unpredictable, and the same for as long as the
/// mapping is wanted (section 11.2).
pub type Nonce = [u8; 12];

/// The payload of MAP: suggested in a request, assigned in a response.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Map {
    pub nonce: Nonce,
    pub transport: Transport,
    pub internal: u16,
    /// In a request a wish; nothing of it known is port 0 at the unspecified address of the family.
    pub external: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// How long the mapping should live; 0 gives it back.
    pub lifetime_s: u32,
    /// The sender's own address, as it sees it: tells a NAT between it and the gateway.
    pub client: IpAddr,
    /// None for ANNOUNCE.
    pub map: Option<Map>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// [`SUCCESS`], or why not.
    pub result: u8,
    /// How long the mapping lives, or how long the same request will be refused.
    pub lifetime_s: u32,
    /// Seconds since the gateway lost its mappings.
    pub epoch_s: u32,
    /// None for ANNOUNCE, which a gateway also sends unasked after a start.
    pub map: Option<Map>,
}

/// What comes from the port of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    Response(Response),
    /// It speaks another version: highest that it knows, 0 for NAT-PMP (section 9 and appendix A).
    OtherVersion(u8),
}

impl Answer {
    /// # Errors
    /// If this is no answer of a gateway to a request that we make.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let wrong = Malformed("PCP response");
        let [version, kind, _, result, ..] = *datagram else { return Err(wrong) };
        if kind & ANSWER == 0 {
            return Err(wrong);
        }
        // NAT-PMP has a result of two bytes at the same place, and its answer may end there or 4 bytes later.
        if version != VERSION {
            return if result == UNSUPP_VERSION { Ok(Self::OtherVersion(version)) } else { Err(wrong) };
        }
        let (head, payload) = split(datagram).ok_or(wrong)?;
        let [_, _, _, _, a, b, c, d, e, f, g, h, ..] = *head;
        let map = match kind & !ANSWER {
            ANNOUNCE => None,
            MAP => Some(Map::decode(payload).ok_or(wrong)?),
            _ => return Err(wrong),
        };
        let lifetime_s = u32::from_be_bytes([a, b, c, d]);
        let epoch_s = u32::from_be_bytes([e, f, g, h]);
        Ok(Self::Response(Response { result, lifetime_s, epoch_s, map }))
    }
}

impl Response {
    /// Appends the response.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend([VERSION, self.map.map_or(ANNOUNCE, |_| MAP) | ANSWER, 0, self.result]);
        out.extend(self.lifetime_s.to_be_bytes());
        out.extend(self.epoch_s.to_be_bytes());
        out.extend([0; 12]);
        self.map.inspect(|map| map.encode(out));
    }
}

impl Request {
    /// # Errors
    /// If this is no request of this version, or one that we never make.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let wrong = Malformed("PCP request");
        let (head, payload) = split(datagram).ok_or(wrong)?;
        let [VERSION, kind, _, _, a, b, c, d, client @ ..] = *head else { return Err(wrong) };
        let map = match kind {
            ANNOUNCE => None,
            MAP => Some(Map::decode(payload).ok_or(wrong)?),
            _ => return Err(wrong),
        };
        Ok(Self { lifetime_s: u32::from_be_bytes([a, b, c, d]), client: unmapped(client), map })
    }

    /// Appends the request.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.extend([VERSION, self.map.map_or(ANNOUNCE, |_| MAP), 0, 0]);
        out.extend(self.lifetime_s.to_be_bytes());
        out.extend(mapped(self.client));
        self.map.inspect(|map| map.encode(out));
    }
}

impl Map {
    fn decode(payload: &[u8]) -> Option<Self> {
        let payload: &[u8; MAP_LEN] = payload.first_chunk()?;
        let (nonce, rest) = payload.split_first_chunk()?;
        let [protocol, _, _, _, a, b, c, d, ip @ ..] = rest else { return None };
        Some(Self {
            nonce: *nonce,
            transport: Transport::from_number(*protocol)?,
            internal: u16::from_be_bytes([*a, *b]),
            external: SocketAddr::new(unmapped(ip.try_into().ok()?), u16::from_be_bytes([*c, *d])),
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.nonce);
        out.extend([self.transport.number(), 0, 0, 0]);
        out.extend(self.internal.to_be_bytes());
        out.extend(self.external.port().to_be_bytes());
        out.extend(mapped(self.external.ip()));
    }
}

/// Header and what is behind it, if the length is one that a message can have.
fn split(datagram: &[u8]) -> Option<(&[u8; HEADER_LEN], &[u8])> {
    let fits = datagram.len() <= MESSAGE_LEN && datagram.len().is_multiple_of(4);
    datagram.split_first_chunk().filter(|_| fits)
}

fn mapped(ip: IpAddr) -> [u8; 16] {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped().octets(),
        IpAddr::V6(ip) => ip.octets(),
    }
}

fn unmapped(octets: [u8; 16]) -> IpAddr {
    Ipv6Addr::from(octets).to_canonical()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(text.replace(' ', "").as_bytes()).unwrap()
    }

    /// Built by hand from figures 2, 3, 9 and 10 of RFC 6887.
    const REQUEST_V4: &str = "02 01 0000 00001c20 00000000000000000000ffff0a000005 \
        0102030405060708090a0b0c 11 000000 1194 0000 00000000000000000000ffff00000000";
    const RESPONSE_V4: &str = "02 81 00 00 00000e10 000004d2 000000000000000000000000 \
        0102030405060708090a0b0c 11 000000 1194 a1b2 00000000000000000000ffffcb007107";
    const RESPONSE_V6: &str = "02 81 00 00 00000e10 000004d2 000000000000000000000000 \
        0102030405060708090a0b0c 06 000000 1194 1194 20010db8000000000000000000000001";
    const REFUSED: &str = "02 81 00 02 00000708 000004d2 000000000000000000000000 \
        0102030405060708090a0b0c 11 000000 1194 0000 00000000000000000000ffff00000000";
    const ANNOUNCED: &str = "02 80 00 00 00000000 00000001 000000000000000000000000";

    const NONCE: Nonce = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12];

    fn map(transport: Transport, external: &str) -> Option<Map> {
        Some(Map { nonce: NONCE, transport, internal: 4500, external: external.parse().unwrap() })
    }

    fn response(result: u8, lifetime_s: u32, map: Option<Map>) -> Response {
        Response { result, lifetime_s, epoch_s: 1234, map }
    }

    #[test]
    fn vectors_by_hand_from_the_figures() {
        let request = Request {
            lifetime_s: 7200,
            client: "10.0.0.5".parse().unwrap(),
            map: map(Transport::Udp, "0.0.0.0:0"),
        };
        let mut out = Vec::new();
        request.encode(&mut out);
        assert_eq!(out, hex(REQUEST_V4));
        assert_eq!(Request::decode(&out), Ok(request));
        for (text, response) in [
            (RESPONSE_V4, response(SUCCESS, 3600, map(Transport::Udp, "203.0.113.7:41394"))),
            (RESPONSE_V6, response(SUCCESS, 3600, map(Transport::Tcp, "[2001:db8::1]:4500"))),
            (REFUSED, response(NOT_AUTHORIZED, 1800, map(Transport::Udp, "0.0.0.0:0"))),
            (ANNOUNCED, Response { result: SUCCESS, lifetime_s: 0, epoch_s: 1, map: None }),
        ] {
            let mut out = Vec::new();
            response.encode(&mut out);
            assert_eq!(out, hex(text));
            assert_eq!(Answer::decode(&out), Ok(Answer::Response(response)));
        }
    }

    #[test]
    fn a_gateway_of_another_version_says_so() {
        // NAT-PMP: version 0, opcode + 128, result 1 in two bytes, epoch; in full, and cut after the result.
        assert_eq!(Answer::decode(&hex("00 81 0001 00000005")), Ok(Answer::OtherVersion(0)));
        assert_eq!(Answer::decode(&hex("00 81 0001")), Ok(Answer::OtherVersion(0)));
        assert_eq!(
            Answer::decode(&hex(&REFUSED.replace("02 81 00 02", "01 81 00 01"))),
            Ok(Answer::OtherVersion(1))
        );
        // Another error of another version is none that we can read.
        assert!(Answer::decode(&hex("00 81 0002 00000005")).is_err());
    }

    #[test]
    fn options_behind_the_payload_are_skipped() {
        let with = [hex(RESPONSE_V4), hex("02 00 0004 00000000")].concat();
        assert_eq!(Answer::decode(&with), Answer::decode(&hex(RESPONSE_V4)));
        let most = [hex(RESPONSE_V4), [0; 1040].to_vec()].concat();
        assert!(Answer::decode(&most).is_ok());
        assert!(Answer::decode(&[most, [0; 4].to_vec()].concat()).is_err());
    }

    #[test]
    fn what_is_cut_or_something_else_is_refused() {
        for text in [RESPONSE_V4, REFUSED, ANNOUNCED] {
            let good = hex(text);
            for length in 0..good.len() {
                assert!(Answer::decode(&good[..length]).is_err(), "{length}");
            }
            // A request is no answer, and the other way around.
            assert!(Request::decode(&good).is_err());
        }
        let request = hex(REQUEST_V4);
        for length in 0..request.len() {
            assert!(Request::decode(&request[..length]).is_err(), "{length}");
        }
        assert!(Answer::decode(&request).is_err());
        // PEER; a protocol that we never map.
        assert!(Answer::decode(&hex(&RESPONSE_V4.replace("02 81", "02 82"))).is_err());
        assert!(Answer::decode(&hex(&RESPONSE_V4.replace("0c 11", "0c 84"))).is_err());
    }
}
