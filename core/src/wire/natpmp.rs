//! NAT-PMP (RFC 6886), which gateways speak that know nothing of its successor ([`super::pcp`]). Both directions, so that
//! a gateway can be played in tests.
//!
//! ```text
//! request   0 (1), opcode (1), and to map: 0 (2), internal port (2), external port (2), lifetime (4)
//! response  0 (1), opcode + 128 (1), result (2), epoch (4), and of success
//!           address (4), or internal port (2), external port (2), lifetime (4)
//! ```

use super::Malformed;
pub use super::pcp::{PORT, Transport};
use alloc::vec::Vec;
use core::net::Ipv4Addr;

pub const VERSION: u8 = 0;
const ANSWER: u8 = 128;

// Results (section 3.5).
pub const SUCCESS: u16 = 0;
pub const UNSUPPORTED_VERSION: u16 = 1;
pub const REFUSED: u16 = 2;
pub const NETWORK_FAILURE: u16 = 3;
pub const OUT_OF_RESOURCES: u16 = 4;

/// What a request or its answer is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// The gateway's address on the other side.
    Address,
    Mapping(Transport),
}

impl Subject {
    const fn opcode(self) -> u8 {
        match self {
            Self::Address => 0,
            Self::Mapping(Transport::Udp) => 1,
            Self::Mapping(Transport::Tcp) => 2,
        }
    }

    const fn from_opcode(opcode: u8) -> Option<Self> {
        match opcode {
            0 => Some(Self::Address),
            1 => Some(Self::Mapping(Transport::Udp)),
            2 => Some(Self::Mapping(Transport::Tcp)),
            _ => None,
        }
    }
}

/// Ports of a mapping and how long it should live, or does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Map {
    pub transport: Transport,
    pub internal: u16,
    /// In a request a wish, 0 without one.
    pub external: u16,
    /// 0 gives the mapping back.
    pub lifetime_s: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    Address,
    Map(Map),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Response {
    /// Seconds since the gateway lost its mappings.
    pub epoch_s: u32,
    pub body: Body,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    Address(Ipv4Addr),
    Map(Map),
    /// With a result other than [`SUCCESS`].
    Failed(Subject, u16),
}

impl Request {
    /// # Errors
    /// If this is no request of this version.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let wrong = Malformed("NAT-PMP request");
        match *datagram {
            [VERSION, 0] => Ok(Self::Address),
            [VERSION, opcode, _, _, ref map @ ..] => {
                let Some(Subject::Mapping(transport)) = Subject::from_opcode(opcode) else {
                    return Err(wrong);
                };
                Ok(Self::Map(Map::decode(transport, map).ok_or(wrong)?))
            }
            _ => Err(wrong),
        }
    }

    /// Appends the request.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Address => out.extend([VERSION, Subject::Address.opcode()]),
            Self::Map(map) => {
                out.extend([VERSION, Subject::Mapping(map.transport).opcode(), 0, 0]);
                map.encode(out);
            }
        }
    }
}

impl Response {
    /// # Errors
    /// If this is no answer of a gateway to a request that we make.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let wrong = Malformed("NAT-PMP response");
        let [VERSION, opcode, r, s, a, b, c, d, ref rest @ ..] = *datagram else { return Err(wrong) };
        let subject = opcode.checked_sub(ANSWER).and_then(Subject::from_opcode).ok_or(wrong)?;
        let epoch_s = u32::from_be_bytes([a, b, c, d]);
        let body = match (u16::from_be_bytes([r, s]), subject) {
            (SUCCESS, Subject::Address) => {
                Body::Address(<[u8; 4]>::try_from(rest).map_err(|_| wrong)?.into())
            }
            (SUCCESS, Subject::Mapping(transport)) => Body::Map(Map::decode(transport, rest).ok_or(wrong)?),
            // What is behind an error is whatever the gateway had there.
            (result, subject) => Body::Failed(subject, result),
        };
        Ok(Self { epoch_s, body })
    }

    /// Appends the response.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (subject, result) = match self.body {
            Body::Address(_) => (Subject::Address, SUCCESS),
            Body::Map(map) => (Subject::Mapping(map.transport), SUCCESS),
            Body::Failed(subject, result) => (subject, result),
        };
        out.extend([VERSION, subject.opcode() | ANSWER]);
        out.extend(result.to_be_bytes());
        out.extend(self.epoch_s.to_be_bytes());
        match self.body {
            Body::Address(ip) => out.extend(ip.octets()),
            Body::Map(map) => map.encode(out),
            Body::Failed(..) => {}
        }
    }
}

impl Map {
    fn decode(transport: Transport, bytes: &[u8]) -> Option<Self> {
        let [a, b, c, d, e, f, g, h] = *bytes else { return None };
        Some(Self {
            transport,
            internal: u16::from_be_bytes([a, b]),
            external: u16::from_be_bytes([c, d]),
            lifetime_s: u32::from_be_bytes([e, f, g, h]),
        })
    }

    fn encode(&self, out: &mut Vec<u8>) {
        out.extend(self.internal.to_be_bytes());
        out.extend(self.external.to_be_bytes());
        out.extend(self.lifetime_s.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(text.replace(' ', "").as_bytes()).unwrap()
    }

    const fn map(transport: Transport, external: u16, lifetime_s: u32) -> Map {
        Map { transport, internal: 4500, external, lifetime_s }
    }

    /// By hand from the figures of RFC 6886, sections 3.2, 3.3 and 3.5.
    fn responses() -> [(&'static str, Response); 5] {
        let response = |body| Response { epoch_s: 1234, body };
        [
            ("00 80 0000 000004d2 cb007107", response(Body::Address(Ipv4Addr::new(203, 0, 113, 7)))),
            ("00 81 0000 000004d2 1194 a1b2 00000e10", response(Body::Map(map(Transport::Udp, 41394, 3600)))),
            ("00 82 0000 000004d2 1194 1194 00000000", response(Body::Map(map(Transport::Tcp, 4500, 0)))),
            ("00 80 0003 000004d2", response(Body::Failed(Subject::Address, NETWORK_FAILURE))),
            ("00 81 0002 000004d2", response(Body::Failed(Subject::Mapping(Transport::Udp), REFUSED))),
        ]
    }

    #[test]
    fn vectors_by_hand_from_the_figures() {
        for (text, request) in [
            ("00 00", Request::Address),
            ("00 01 0000 1194 0000 00001c20", Request::Map(map(Transport::Udp, 0, 7200))),
            ("00 02 0000 1194 a1b2 00000000", Request::Map(map(Transport::Tcp, 41394, 0))),
        ] {
            let mut out = Vec::new();
            request.encode(&mut out);
            assert_eq!(out, hex(text));
            assert_eq!(Request::decode(&out), Ok(request));
        }
        for (text, response) in responses() {
            let mut out = Vec::new();
            response.encode(&mut out);
            assert_eq!(out, hex(text));
            assert_eq!(Response::decode(&out), Ok(response));
        }
    }

    #[test]
    fn an_error_may_have_anything_behind_it() {
        let short = Response::decode(&hex("00 81 0004 00000001"));
        assert_eq!(Response::decode(&hex("00 81 0004 00000001 1194 0000 00000000")), short);
        assert_eq!(
            short.map(|response| response.body),
            Ok(Body::Failed(Subject::Mapping(Transport::Udp), OUT_OF_RESOURCES))
        );
    }

    #[test]
    fn what_is_cut_or_something_else_is_refused() {
        for (text, _) in responses() {
            let good = hex(text);
            for length in 0..good.len() {
                assert!(Response::decode(&good[..length]).is_err(), "{length}");
            }
            assert!(Request::decode(&good).is_err());
            // A success has nothing behind it; version 2 is another protocol.
            let longer = [good.clone(), [0].to_vec()].concat();
            assert_eq!(Response::decode(&longer).is_err(), good[3] == 0);
            let other = [[2].to_vec(), good[1..].to_vec()].concat();
            assert!(Response::decode(&other).is_err());
        }
        let request = hex("00 01 0000 1194 0000 00001c20");
        for length in 0..request.len() {
            assert!(Request::decode(&request[..length]).is_err(), "{length}");
        }
        assert!(Request::decode(&hex("00 03 0000 1194 0000 00001c20")).is_err());
        assert!(Response::decode(&hex("00 83 0000 000004d2 cb007107")).is_err());
    }
}
