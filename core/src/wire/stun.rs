//! STUN binding (RFC 8489) with the addresses of RFC 5780: how a node learns what address the world sees it at, from any
//! server, and what it answers to any client. Nothing else of STUN: no authentication, no TURN.
//!
//! ```text
//! type (2), length of the attributes (2), magic cookie (4), transaction (12), then attributes, each
//! type (2), length (2), value, padded to a multiple of 4
//! ```
//!
//! What is decoded is checked as a whole: a message that is cut, has bytes behind it, a wrong FINGERPRINT or one that is not
//! last is malformed. Of an attribute that comes twice the first counts. An attribute that must be understood and is not
//! makes a response worthless, and is named in a request ([`Request::unknown`]), which is then answered by
//! [`Failure::unknown_attributes`].
//!
//! **No amplifier.** A request may be padded, so that a server can tell more without sending more than it got
//! ([`Success::encode`]). The PADDING of RFC 5780 is not used for that: servers that know it answer with a whole MTU, and
//! others refuse it. Ours is of a type that servers must ignore.

use super::Malformed;
use crate::bounded::List;
use crate::limits::STUN_UNKNOWN;
use alloc::vec::Vec;
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// Names a request and its answer; must be unpredictable (RFC 8489, section 5).
pub type Transaction = [u8; 12];

const COOKIE: u32 = 0x2112_a442;
const HEADER_LEN: usize = 20;
/// Header of an attribute.
const ATTRIBUTE_LEN: usize = 4;
const FINGERPRINT_LEN: usize = ATTRIBUTE_LEN + 4;
/// What the checksum is combined with, so that no other protocol's checksum passes for it (section 14.7).
const FINGERPRINT_XOR: u32 = 0x5354_554e;

// Types of messages: method Binding in the four classes (section 5).
const REQUEST: u16 = 0x0001;
const INDICATION: u16 = 0x0011;
const SUCCESS: u16 = 0x0101;
const FAILURE: u16 = 0x0111;

// Types of attributes (section 18.3; RFC 5780, section 9.1).
const MAPPED_ADDRESS: u16 = 0x0001;
const CHANGE_REQUEST: u16 = 0x0003;
const ERROR_CODE: u16 = 0x0009;
const UNKNOWN_ATTRIBUTES: u16 = 0x000a;
const XOR_MAPPED_ADDRESS: u16 = 0x0020;
const FINGERPRINT: u16 = 0x8028;
const RESPONSE_ORIGIN: u16 = 0x802b;
const OTHER_ADDRESS: u16 = 0x802c;
/// Ours, for requests: from the half that must be ignored if it is not known.
const FILLER: u16 = 0xff50;
/// Credentials and what belongs to them, which a server that asks for none ignores (section 6.3.1).
const IGNORED: [u16; 7] = [0x0006, 0x0008, 0x0014, 0x0015, 0x001c, 0x001d, 0x001e];

/// Bits of CHANGE-REQUEST.
const CHANGE_IP: u32 = 4;
const CHANGE_PORT: u32 = 2;

/// Whether a datagram is STUN and nothing of ours: two zero bits, the cookie, and a length that fits.
#[must_use]
pub fn is_stun(datagram: &[u8]) -> bool {
    Header::read(datagram).is_some()
}

/// A STUN message that means something to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Message {
    Request(Request),
    /// Keeps a mapping open and is not answered.
    Indication(Transaction),
    Success(Success),
    Failure(Failure),
}

/// "What is my address?"
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Request {
    pub transaction: Transaction,
    /// From where the answer should come (RFC 5780, section 7.2).
    pub change: Change,
    /// Attributes that the sender insists on and that we do not know, as many as are kept. Not encoded.
    pub unknown: List<u16, STUN_UNKNOWN>,
}

/// Which of address and port the answer should come from another of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Change {
    pub ip: bool,
    pub port: bool,
}

/// "This is your address."
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Success {
    pub transaction: Transaction,
    /// Where the request came from. An IPv4 address is never written as an IPv6 one.
    pub mapped: SocketAddr,
    /// Where the server has another address and another port (RFC 5780, section 7.4).
    pub other: Option<SocketAddr>,
    /// Where the answer came from (RFC 5780, section 7.3).
    pub origin: Option<SocketAddr>,
}

/// "No."
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub transaction: Transaction,
    /// 300 to 699 (section 14.8).
    pub code: u16,
    /// What was not understood, with code 420.
    pub unknown: List<u16, STUN_UNKNOWN>,
}

impl Message {
    /// # Errors
    /// If this is no STUN binding message, is damaged, or is an answer with something in it that must be understood and is
    /// not.
    pub fn decode(datagram: &[u8]) -> Result<Self, Malformed> {
        let header = Header::read(datagram).ok_or(Malformed("STUN message"))?;
        if !matches!(header.kind, REQUEST | INDICATION | SUCCESS | FAILURE) {
            return Err(Malformed("STUN method"));
        }
        let found = Found::read(&header, datagram)?;
        let transaction = header.transaction;
        match header.kind {
            REQUEST => {
                let flags = found.change.unwrap_or(0);
                let change = Change { ip: flags & CHANGE_IP != 0, port: flags & CHANGE_PORT != 0 };
                Ok(Self::Request(Request { transaction, change, unknown: found.unknown }))
            }
            INDICATION => Ok(Self::Indication(transaction)),
            _ if !found.unknown.is_empty() => Err(Malformed("STUN attribute")),
            SUCCESS => {
                // A server from before RFC 5389 knows only the plain form, which some gateways rewrite.
                let mapped = found.xor_mapped.or(found.mapped).ok_or(Malformed("STUN address"))?;
                Ok(Self::Success(Success { transaction, mapped, other: found.other, origin: found.origin }))
            }
            _ => {
                let code = found.code.ok_or(Malformed("STUN error"))?;
                let unknown = if code == 420 { found.unknown_there } else { List::new() };
                Ok(Self::Failure(Failure { transaction, code, unknown }))
            }
        }
    }
}

impl Request {
    /// Appends the request, padded to at least `least` bytes: so much a server may answer without sending more than it
    /// got.
    pub fn encode(&self, out: &mut Vec<u8>, least: usize) {
        let mut writer = Writer::new(out, REQUEST, &self.transaction);
        let flags =
            if self.change.ip { CHANGE_IP } else { 0 } | if self.change.port { CHANGE_PORT } else { 0 };
        if flags != 0 {
            writer.put(CHANGE_REQUEST, &flags.to_be_bytes());
        }
        let made = writer.len() + FINGERPRINT_LEN;
        if least > made {
            let filler = least.saturating_sub(made + ATTRIBUTE_LEN).min(usize::from(u16::MAX) / 2);
            writer.put(FILLER, &alloc::vec![0; filler]);
        }
        writer.finish();
    }
}

impl Success {
    /// Appends the answer. The addresses of the server are left out where with them it would have more than `most` bytes;
    /// without them it has at most 52.
    pub fn encode(&self, out: &mut Vec<u8>, most: usize) {
        let mut writer = Writer::new(out, SUCCESS, &self.transaction);
        writer.put_address(XOR_MAPPED_ADDRESS, &xor(self.mapped, &self.transaction));
        for (kind, address) in [(OTHER_ADDRESS, self.other), (RESPONSE_ORIGIN, self.origin)] {
            if let Some(address) = address
                && writer.len() + ATTRIBUTE_LEN + address_len(&address) + FINGERPRINT_LEN <= most
            {
                writer.put_address(kind, &address);
            }
        }
        writer.finish();
    }
}

impl Failure {
    /// The answer to a request that insists on what we do not know, if this is one (section 6.3.1).
    #[must_use]
    pub fn unknown_attributes(request: &Request) -> Option<Self> {
        let unknown = request.unknown.clone();
        (!unknown.is_empty()).then_some(Self { transaction: request.transaction, code: 420, unknown })
    }

    /// The answer to a request that should be answered from elsewhere, by a server that has no elsewhere.
    #[must_use]
    pub fn cannot_change(request: &Request) -> Self {
        Self { transaction: request.transaction, code: 420, unknown: List::of([CHANGE_REQUEST]) }
    }

    /// Appends the answer. It has at most 20 bytes more than the shortest request that leads to it.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out, FAILURE, &self.transaction);
        let [_, class] = (self.code / 100).to_be_bytes();
        let [_, number] = (self.code % 100).to_be_bytes();
        writer.put(ERROR_CODE, &[0, 0, class & 7, number]);
        if !self.unknown.is_empty() {
            let types: Vec<u8> = self.unknown.iter().flat_map(|kind| kind.to_be_bytes()).collect();
            writer.put(UNKNOWN_ATTRIBUTES, &types);
        }
        writer.finish();
    }
}

// --- reading ---------------------------------------------------------------------------------------------------------

struct Header<'a> {
    kind: u16,
    transaction: Transaction,
    attributes: &'a [u8],
}

impl<'a> Header<'a> {
    fn read(datagram: &'a [u8]) -> Option<Self> {
        let (kind, rest) = take_u16(datagram)?;
        let (length, rest) = take_u16(rest)?;
        let (cookie, rest) = rest.split_first_chunk()?;
        let (transaction, attributes) = rest.split_first_chunk()?;
        let whole = usize::from(length) == attributes.len() && length.is_multiple_of(4);
        let ours = kind >> 14 == 0 && u32::from_be_bytes(*cookie) == COOKIE;
        (whole && ours).then_some(Self { kind, transaction: *transaction, attributes })
    }
}

/// The attributes that mean something, of each the first.
#[derive(Default)]
struct Found {
    mapped: Option<SocketAddr>,
    xor_mapped: Option<SocketAddr>,
    other: Option<SocketAddr>,
    origin: Option<SocketAddr>,
    change: Option<u32>,
    code: Option<u16>,
    /// What we do not know and should.
    unknown: List<u16, STUN_UNKNOWN>,
    /// What the sender says that it did not know.
    unknown_there: List<u16, STUN_UNKNOWN>,
}

impl Found {
    fn read(header: &Header<'_>, datagram: &[u8]) -> Result<Self, Malformed> {
        let wrong = Malformed("STUN attribute");
        let mut found = Self::default();
        let mut rest = header.attributes;
        while !rest.is_empty() {
            let here = rest.len();
            let (kind, after) = take_u16(rest).ok_or(wrong)?;
            let (length, after) = take_u16(after).ok_or(wrong)?;
            let (value, after) = after.split_at_checked(length.into()).ok_or(wrong)?;
            let padding = usize::from(length).next_multiple_of(4) - usize::from(length);
            rest = after.get(padding..).ok_or(wrong)?;
            if kind == FINGERPRINT {
                let before =
                    datagram.len().checked_sub(here).and_then(|at| datagram.get(..at)).ok_or(wrong)?;
                if !rest.is_empty() || value != fingerprint(before) {
                    return Err(Malformed("STUN fingerprint"));
                }
            } else {
                found.note(kind, value, header).ok_or(wrong)?;
            }
        }
        Ok(found)
    }

    /// None if the value of an attribute that we read is not what it should be.
    fn note(&mut self, kind: u16, value: &[u8], header: &Header<'_>) -> Option<()> {
        let answer = matches!(header.kind, SUCCESS | FAILURE);
        match kind {
            MAPPED_ADDRESS if answer => keep(&mut self.mapped, address(value)?),
            XOR_MAPPED_ADDRESS if answer => {
                keep(&mut self.xor_mapped, xor(address(value)?, &header.transaction));
            }
            OTHER_ADDRESS if answer => keep(&mut self.other, address(value)?),
            RESPONSE_ORIGIN if answer => keep(&mut self.origin, address(value)?),
            ERROR_CODE if answer => {
                let [_, _, class, number, ..] = value else { return None };
                let (class, number) = (u16::from(class & 7), u16::from(*number));
                if !(3..=6).contains(&class) || number > 99 {
                    return None;
                }
                keep(&mut self.code, class * 100 + number);
            }
            UNKNOWN_ATTRIBUTES if answer => {
                let (types, []) = value.as_chunks() else { return None };
                self.unknown_there = List::of(types.iter().map(|bytes| u16::from_be_bytes(*bytes)));
            }
            CHANGE_REQUEST if !answer => keep(&mut self.change, u32::from_be_bytes(value.try_into().ok()?)),
            // Known, and not where it belongs, or of no use to us.
            MAPPED_ADDRESS | CHANGE_REQUEST | ERROR_CODE | UNKNOWN_ATTRIBUTES | XOR_MAPPED_ADDRESS => {}
            _ if kind >= 0x8000 || IGNORED.contains(&kind) => {}
            _ if self.unknown.contains(&kind) => {}
            // More than are kept are not named: the first are reason enough.
            _ => drop(self.unknown.push(kind)),
        }
        Some(())
    }
}

fn keep<T>(place: &mut Option<T>, value: T) {
    place.get_or_insert(value);
}

fn take_u16(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let (number, rest) = bytes.split_first_chunk()?;
    Some((u16::from_be_bytes(*number), rest))
}

/// `0 (1), family (1), port (2), address (4 or 16)` (section 14.1).
fn address(value: &[u8]) -> Option<SocketAddr> {
    let [_, family, rest @ ..] = value else { return None };
    let (port, ip) = take_u16(rest)?;
    let ip = match family {
        1 => IpAddr::from(<[u8; 4]>::try_from(ip).ok()?),
        2 => IpAddr::from(<[u8; 16]>::try_from(ip).ok()?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, port))
}

/// The address as it is written, and back (section 14.2).
fn xor(address: SocketAddr, transaction: &Transaction) -> SocketAddr {
    let port = address.port() ^ (COOKIE >> 16) as u16;
    let ip = match address.ip() {
        IpAddr::V4(ip) => Ipv4Addr::from_bits(ip.to_bits() ^ COOKIE).into(),
        IpAddr::V6(ip) => {
            let tail = transaction.iter().fold(0, |bits, byte| (bits << 8) | u128::from(*byte));
            Ipv6Addr::from_bits(ip.to_bits() ^ (u128::from(COOKIE) << 96 | tail)).into()
        }
    };
    SocketAddr::new(ip, port)
}

/// The value of FINGERPRINT for a message of which these bytes are before it, with the length in the header counting it.
fn fingerprint(before: &[u8]) -> [u8; 4] {
    // CRC-32 as in ITU V.42, bit by bit: messages are short and few.
    let crc = before.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ if crc & 1 == 0 { 0 } else { 0xedb8_8320 })
    });
    (!crc ^ FINGERPRINT_XOR).to_be_bytes()
}

// --- writing ---------------------------------------------------------------------------------------------------------

/// Appends one message.
struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// Where the message starts.
    start: usize,
}

impl<'a> Writer<'a> {
    fn new(out: &'a mut Vec<u8>, kind: u16, transaction: &Transaction) -> Self {
        let start = out.len();
        out.extend(kind.to_be_bytes());
        out.extend([0; 2]);
        out.extend(COOKIE.to_be_bytes());
        out.extend(transaction);
        Self { out, start }
    }

    fn len(&self) -> usize {
        self.out.len() - self.start
    }

    fn put(&mut self, kind: u16, value: &[u8]) {
        self.out.extend(kind.to_be_bytes());
        self.out.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        self.out.extend(value);
        let padded = self.len().next_multiple_of(4);
        self.out.resize(self.start + padded, 0);
    }

    fn put_address(&mut self, kind: u16, address: &SocketAddr) {
        let [high, low] = address.port().to_be_bytes();
        match address.ip() {
            IpAddr::V4(ip) => self.put(kind, &[[0, 1, high, low].as_slice(), &ip.octets()].concat()),
            IpAddr::V6(ip) => self.put(kind, &[[0, 2, high, low].as_slice(), &ip.octets()].concat()),
        }
    }

    /// Writes the length and the fingerprint.
    fn finish(mut self) {
        let length = u16::try_from(self.len() + FINGERPRINT_LEN - HEADER_LEN).unwrap_or(u16::MAX);
        let at = self.start + 2;
        if let Some(place) = self.out.get_mut(at..at + 2) {
            place.copy_from_slice(&length.to_be_bytes());
        }
        let value = fingerprint(self.out.get(self.start..).unwrap_or_default());
        self.put(FINGERPRINT, &value);
    }
}

const fn address_len(address: &SocketAddr) -> usize {
    if address.is_ipv4() { 8 } else { 20 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// RFC 5769, sections 2.1 to 2.4.
    const REQUEST_SHORT_TERM: &str = "000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c\
        69656e74002400046e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb56\
        781ef2b5b2d3f249c1b571a280280004e57a3bcf";
    const RESPONSE_V4: &str = "0101003c2112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f722000200008\
        0001a147e112a643000800142b91f599fd9e90c38c7489f92af9ba53f06be7d780280004c07d4c96";
    const RESPONSE_V6: &str = "010100482112a442b7e7a701bc34d686fa87dfae8022000b7465737420766563746f722000200014\
        0002a1470113a9faa5d3f179bc25f4b5bed2b9d900080014a382954e4be67bf11784c97c8292c275bfe3ed4180280004c8fb0b4c";
    const REQUEST_LONG_TERM: &str = "000100602112a44278ad3433c6ad72c029da412e00060012e3839ee38388e383aae38383\
        e382afe382b900000015001c662f2f3439396b39353464364f4c33346f4c394653547679363473410014000b6578616d706c65\
        2e6f72670000080014f67024656dd64a3e02b8e0712e85c9a28ca89666";

    fn hex(text: &str) -> Vec<u8> {
        data_encoding::HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    const TRANSACTION: Transaction = [0xb7, 0xe7, 0xa7, 0x01, 0xbc, 0x34, 0xd6, 0x86, 0xfa, 0x87, 0xdf, 0xae];

    fn request() -> Request {
        Request { transaction: TRANSACTION, ..Request::default() }
    }

    fn success(mapped: &str) -> Success {
        Success { transaction: TRANSACTION, mapped: mapped.parse().unwrap(), other: None, origin: None }
    }

    fn encoded(encode: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        // Behind something else, as into a buffer that is shared.
        let mut out = vec![9; 3];
        encode(&mut out);
        out.split_off(3)
    }

    #[test]
    fn vectors_of_rfc_5769() {
        // PRIORITY of ICE must be understood and is not; the credentials are ignored.
        let asked = Request { unknown: List::of([0x0024]), ..request() };
        assert_eq!(Message::decode(&hex(REQUEST_SHORT_TERM)), Ok(Message::Request(asked)));
        let v4 = success("192.0.2.1:32853");
        assert_eq!(Message::decode(&hex(RESPONSE_V4)), Ok(Message::Success(v4)));
        let v6 = success("[2001:db8:1234:5678:11:2233:4455:6677]:32853");
        assert_eq!(Message::decode(&hex(RESPONSE_V6)), Ok(Message::Success(v6)));
        let Ok(Message::Request(long_term)) = Message::decode(&hex(REQUEST_LONG_TERM)) else { panic!() };
        assert!(long_term.unknown.is_empty());
        // What we write of the same is what they wrote, but for what we leave out.
        let ours = encoded(|out| v6.encode(out, 0));
        assert_eq!(ours[20..44], hex(RESPONSE_V6)[36..60]);
        assert_eq!(ours.len(), 52);
        assert_eq!(encoded(|out| v4.encode(out, 0))[20..32], hex(RESPONSE_V4)[36..48]);
    }

    #[test]
    fn every_bit_of_a_message_with_a_fingerprint_counts() {
        for vector in [REQUEST_SHORT_TERM, RESPONSE_V4, RESPONSE_V6] {
            let good = hex(vector);
            // Where the attributes start: what kind and how long they are decides whether a fingerprint is seen at all.
            let mut heads = vec![20];
            while let Some(at) = heads.last().copied().filter(|at| at + 8 < good.len()) {
                heads.push(at + 4 + usize::from(good[at + 3]).next_multiple_of(4));
            }
            for bit in 0..good.len() * 8 {
                let mut wrong = good.clone();
                wrong[bit / 8] ^= 1 << (bit % 8);
                let in_a_head = heads.iter().any(|head| (*head..head + 4).contains(&(bit / 8)));
                assert!(Message::decode(&wrong).is_err() || in_a_head, "bit {bit}");
            }
            for length in 0..good.len() {
                assert!(!is_stun(&good[..length]), "cut at {length}");
                assert!(Message::decode(&good[..length]).is_err());
            }
            assert!(!is_stun(&[good, vec![0; 4]].concat()));
        }
    }

    #[test]
    fn what_is_written_reads_as_the_same() {
        for (ip, port) in [(false, false), (true, false), (false, true), (true, true)] {
            for least in [0, 28, 33, 40, 100, 548] {
                let request = Request { change: Change { ip, port }, ..request() };
                let bytes = encoded(|out| request.encode(out, least));
                assert!(is_stun(&bytes) && bytes.len() >= least && bytes.len() <= (least + 8).max(36));
                assert_eq!(Message::decode(&bytes), Ok(Message::Request(request)));
            }
        }
        for mapped in ["203.0.113.7:1", "[2001:db8::1]:65535"] {
            let whole = Success {
                other: Some("198.51.100.1:3479".parse().unwrap()),
                origin: Some("[2001:db8::9]:3478".parse().unwrap()),
                ..success(mapped)
            };
            let bytes = encoded(|out| whole.encode(out, usize::MAX));
            assert_eq!(Message::decode(&bytes), Ok(Message::Success(whole)));
        }
        for code in [300, 400, 420, 438, 500, 699] {
            let unknown = if code == 420 { List::of([1, 2, 3]) } else { List::new() };
            let failure = Failure { transaction: TRANSACTION, code, unknown };
            let bytes = encoded(|out| failure.encode(out));
            assert_eq!(Message::decode(&bytes), Ok(Message::Failure(failure)));
        }
    }

    #[test]
    fn an_answer_is_no_larger_than_a_padded_request() {
        for mapped in ["203.0.113.7:40000", "[2001:db8::1]:40000"] {
            let whole = Success {
                other: Some("[2001:db8::2]:3479".parse().unwrap()),
                origin: Some("[2001:db8::3]:3478".parse().unwrap()),
                ..success(mapped)
            };
            let longest = encoded(|out| whole.encode(out, usize::MAX)).len();
            for least in 0..=longest {
                let asked = encoded(|out| request().encode(out, least)).len();
                let answer = encoded(|out| whole.encode(out, asked));
                assert!(answer.len() <= asked.max(52), "{} for {asked}", answer.len());
                let Ok(Message::Success(read)) = Message::decode(&answer) else { panic!() };
                assert_eq!(read.mapped, whole.mapped);
                assert_eq!(read == whole, asked >= longest);
            }
        }
    }

    /// A message of these attributes, without a fingerprint.
    fn message(kind: u16, attributes: &[(u16, &[u8])]) -> Vec<u8> {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, kind, &TRANSACTION);
        for (kind, value) in attributes {
            writer.put(*kind, value);
        }
        let length = u16::try_from(out.len() - HEADER_LEN).unwrap();
        out[2..4].copy_from_slice(&length.to_be_bytes());
        out
    }

    #[test]
    fn what_must_be_understood_and_is_not_is_named() {
        let bytes = message(REQUEST, &[(0x0026, &[0; 8]), (0x0027, &[0; 4]), (0x8001, &[]), (0x0026, &[1])]);
        let Ok(Message::Request(request)) = Message::decode(&bytes) else { panic!() };
        assert_eq!(*request.unknown, [0x0026, 0x0027]);
        let failure = Failure::unknown_attributes(&request).unwrap();
        assert_eq!((failure.code, &*failure.unknown), (420, &[0x0026, 0x0027][..]));
        assert!(encoded(|out| failure.encode(out)).len() <= bytes.len() + 20);
        // An answer of that kind says nothing.
        let mapped: &[u8] = &[0, 1, 0, 1, 1, 2, 3, 4];
        assert!(Message::decode(&message(SUCCESS, &[(MAPPED_ADDRESS, mapped), (0x0026, &[])])).is_err());
        // However many there are.
        let many: Vec<(u16, &[u8])> = (0x100..0x200).map(|kind| (kind, &[][..])).collect();
        let Ok(Message::Request(request)) = Message::decode(&message(REQUEST, &many)) else { panic!() };
        assert_eq!(request.unknown.len(), STUN_UNKNOWN);
        assert_eq!(Failure::unknown_attributes(&Request::default()), None);
        assert_eq!(*Failure::cannot_change(&request).unknown, [CHANGE_REQUEST]);
    }

    #[test]
    fn the_first_of_two_counts_and_the_coded_address_before_the_plain() {
        let (a, b): (&[u8], &[u8]) = (&[0, 1, 0, 1, 1, 1, 1, 1], &[0, 1, 0, 2, 2, 2, 2, 2]);
        let mapped = |attributes: &[(u16, &[u8])]| match Message::decode(&message(SUCCESS, attributes)) {
            Ok(Message::Success(success)) => Some(success.mapped),
            _ => None,
        };
        let plain: SocketAddr = "1.1.1.1:1".parse().unwrap();
        assert_eq!(mapped(&[(MAPPED_ADDRESS, a), (MAPPED_ADDRESS, b)]), Some(plain));
        let coded = mapped(&[(MAPPED_ADDRESS, a), (XOR_MAPPED_ADDRESS, b)]).unwrap();
        assert_eq!(coded, xor("2.2.2.2:2".parse().unwrap(), &TRANSACTION));
        assert_eq!(mapped(&[]), None);
        for wrong in [&[0, 3, 0, 1, 1, 1, 1, 1][..], &[0, 2, 0, 1, 1, 1, 1, 1], &[0, 1, 0, 1, 1], &[0]] {
            assert_eq!(mapped(&[(MAPPED_ADDRESS, a), (OTHER_ADDRESS, wrong)]), None);
        }
    }

    #[test]
    fn what_is_none_of_ours_is_refused() {
        // Allocate of TURN; two set bits in front; another cookie.
        assert!(Message::decode(&message(0x0003, &[])).is_err());
        assert!(!is_stun(&message(0x4001, &[])) && !is_stun(&message(0x8001, &[])));
        let mut other = message(REQUEST, &[]);
        assert!(is_stun(&other));
        other[4] ^= 1;
        assert!(!is_stun(&other));
        assert_eq!(Message::decode(&message(INDICATION, &[])), Ok(Message::Indication(TRANSACTION)));
        for code in [[0, 0, 2, 0], [0, 0, 7, 0], [0, 0, 4, 100]] {
            assert!(Message::decode(&message(FAILURE, &[(ERROR_CODE, &code)])).is_err());
        }
        assert!(Message::decode(&message(FAILURE, &[])).is_err());
        assert!(Message::decode(&message(REQUEST, &[(CHANGE_REQUEST, &[0; 3])])).is_err());
        // A fingerprint that is right and not last.
        let mut out = encoded(|out| request().encode(out, 0));
        out[3] += 4;
        let mut again = out[..20].to_vec();
        again.extend([0x80, 0x28, 0, 4]);
        again.extend(fingerprint(&out[..20]));
        again.extend([0x80, 0x22, 0, 0]);
        assert_eq!(Message::decode(&again), Err(Malformed("STUN fingerprint")));
    }
}
