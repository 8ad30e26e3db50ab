//! What one person sends to invite another: a line of text that holds a PeerId, a one-use secret, a nickname, an
//! expiry, addresses and relays as fit, and a checksum. Not a URL.
//!
//! `pl1` + lower-case base32 without padding (RFC 4648, section 6) of: version, PeerId (32), secret (16), expiry in
//! minutes since 1970 (4, big-endian), nickname (length, bytes), addresses (count, then 4 or 6, octets, port),
//! relays (count, then PeerId and address of each), and the first 4 bytes of BLAKE3 over all of it.

use crate::bounded::List;
use crate::ids::{InviteId, Name, PeerId, QueueId};
use crate::limits::{ADDRESSES, RELAYS};
use crate::time::WallClock;
use crate::wire::peer_record::Relay;
use alloc::string::String;
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use core::str::FromStr;

const PREFIX: &str = "pl1";
const VERSION: u8 = 1;
const CHECK: usize = 4;
const MS_PER_MINUTE: u64 = 60_000;

/// The one-use secret of an invitation. Whoever presents it becomes a contact.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TicketSecret(pub [u8; 16]);

impl TicketSecret {
    /// The name under which the inviter stores it.
    #[must_use]
    pub fn invite_id(&self) -> InviteId {
        let hash = blake3::derive_key("peerlink 2026-11 v1 invite id", &self.0);
        let mut id = [0; 16];
        for (to, from) in id.iter_mut().zip(hash) {
            *to = from;
        }
        InviteId(id)
    }
}

/// The queue of an inviter at `relay` for who has the ticket of this invitation and is no contact yet.
#[must_use]
pub fn knock_queue(invite: &InviteId, relay: &PeerId) -> QueueId {
    let mut hasher = blake3::Hasher::new_derive_key("peerlink 2026-11 v1 knock queue");
    hasher.update(&invite.0).update(relay.as_bytes());
    let mut id = [0; 16];
    hasher.finalize_xof().fill(&mut id);
    QueueId(id)
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketSecret(..)")
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    pub peer: PeerId,
    pub secret: TicketSecret,
    pub nickname: Option<Name>,
    /// Judged by the inviter alone; to the minute.
    pub expires: WallClock,
    pub addresses: List<SocketAddr, ADDRESSES>,
    /// Where the inviter can be reached if none of the addresses can.
    pub relays: List<Relay, RELAYS>,
}

/// Why a text is not a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BadTicket {
    #[error("this is not a ticket: a ticket begins with {PREFIX}")]
    NotATicket,
    #[error("the ticket is damaged: a character is wrong or missing; copy it again, whole")]
    Damaged,
    #[error("the ticket is of a newer kind (version {0}); update peerlink")]
    Newer(u8),
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = alloc::vec![VERSION];
        out.extend_from_slice(self.peer.as_bytes());
        out.extend_from_slice(&self.secret.0);
        let minutes = u32::try_from(self.expires.0 / MS_PER_MINUTE).unwrap_or(u32::MAX);
        out.extend_from_slice(&minutes.to_be_bytes());
        let nickname = self.nickname.as_ref().map_or("", Name::as_str);
        out.push(u8::try_from(nickname.len()).map_err(|_| fmt::Error)?);
        out.extend_from_slice(nickname.as_bytes());
        out.push(u8::try_from(self.addresses.len()).map_err(|_| fmt::Error)?);
        for address in self.addresses.iter() {
            put_address(&mut out, address);
        }
        out.push(u8::try_from(self.relays.len()).map_err(|_| fmt::Error)?);
        for relay in self.relays.iter() {
            out.extend_from_slice(relay.peer.as_bytes());
            put_address(&mut out, &relay.address);
        }
        let check = blake3::hash(&out);
        out.extend(check.as_bytes().iter().take(CHECK));
        let mut text = data_encoding::BASE32_NOPAD.encode(&out);
        text.make_ascii_lowercase();
        write!(f, "{PREFIX}{text}")
    }
}

impl FromStr for Ticket {
    type Err = BadTicket;

    fn from_str(text: &str) -> Result<Self, BadTicket> {
        // A ticket that was wrapped by a mail program or a terminal is still the ticket.
        let joined: String = text.chars().filter(|c| !c.is_whitespace()).collect();
        let lower = joined.to_ascii_lowercase();
        let body = lower.strip_prefix(PREFIX).ok_or(BadTicket::NotATicket)?;
        let bytes = data_encoding::BASE32_NOPAD
            .decode(body.to_ascii_uppercase().as_bytes())
            .map_err(|_| BadTicket::Damaged)?;
        let (content, check) = bytes.split_last_chunk::<CHECK>().ok_or(BadTicket::Damaged)?;
        if !blake3::hash(content).as_bytes().starts_with(check) {
            return Err(BadTicket::Damaged);
        }
        match content.first() {
            Some(&VERSION) => {}
            Some(&version) => return Err(BadTicket::Newer(version)),
            None => return Err(BadTicket::Damaged),
        }
        Self::parse(content).ok_or(BadTicket::Damaged)
    }
}

fn put_address(out: &mut alloc::vec::Vec<u8>, address: &SocketAddr) {
    match address.ip() {
        IpAddr::V4(ip) => {
            out.push(4);
            out.extend_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            out.push(6);
            out.extend_from_slice(&ip.octets());
        }
    }
    out.extend_from_slice(&address.port().to_be_bytes());
}

fn part<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (head, tail) = rest.split_first_chunk::<N>()?;
    *rest = tail;
    Some(*head)
}

fn take_address(rest: &mut &[u8]) -> Option<SocketAddr> {
    let [family] = part(rest)?;
    let ip = match family {
        4 => IpAddr::from(part::<4>(rest)?),
        6 => IpAddr::from(part::<16>(rest)?),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(part(rest)?)))
}

impl Ticket {
    fn parse(content: &[u8]) -> Option<Self> {
        let mut rest = content;
        let [_version] = part(&mut rest)?;
        let peer = PeerId::new(part(&mut rest)?).ok()?;
        let secret = TicketSecret(part(&mut rest)?);
        let expires = WallClock(u64::from(u32::from_be_bytes(part(&mut rest)?)).checked_mul(MS_PER_MINUTE)?);
        let [length] = part(&mut rest)?;
        let (name, tail) = rest.split_at_checked(usize::from(length))?;
        rest = tail;
        let name = core::str::from_utf8(name).ok()?;
        let nickname = if name.is_empty() { None } else { Some(Name::new(name).ok()?) };
        let [count] = part(&mut rest)?;
        let mut addresses = List::new();
        for _ in 0..count {
            addresses.push(take_address(&mut rest)?).ok()?;
        }
        let [count] = part(&mut rest)?;
        let mut relays = List::new();
        for _ in 0..count {
            let peer = PeerId::new(part(&mut rest)?).ok()?;
            relays.push(Relay { peer, address: take_address(&mut rest)? }).ok()?;
        }
        rest.is_empty().then_some(Self { peer, secret, nickname, expires, addresses, relays })
    }

    /// The bytes that a checksum protects, for tests that damage them one at a time.
    #[cfg(test)]
    fn bytes(&self) -> alloc::vec::Vec<u8> {
        use alloc::string::ToString;
        self.to_string().into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn ticket() -> Ticket {
        let key = ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new([7; 32]));
        Ticket {
            peer: PeerId::new(*key.pk).unwrap(),
            secret: TicketSecret([9; 16]),
            nickname: Some(Name::new("Alice").unwrap()),
            expires: WallClock(1_790_000_040_000),
            addresses: List::of(["192.0.2.7:4711".parse().unwrap(), "[2001:db8::1]:4711".parse().unwrap()]),
            relays: List::of([Relay {
                peer: PeerId::new(*key.pk).unwrap(),
                address: "192.0.2.8:4712".parse().unwrap(),
            }]),
        }
    }

    #[test]
    fn a_ticket_reads_back_also_when_it_was_wrapped_or_shouted() {
        let text = ticket().to_string();
        assert_eq!(text.parse(), Ok(ticket()));
        let (a, b) = text.split_at(40);
        assert_eq!(alloc::format!("  {a}\n\t{b}\n").to_uppercase().parse(), Ok(ticket()));
    }

    #[test]
    fn a_ticket_with_one_address_is_short_enough_to_send() {
        let mut one = ticket();
        one.addresses = List::of(["192.0.2.7:4711".parse().unwrap()]);
        one.relays = List::new();
        assert!(one.to_string().len() <= 125, "{}", one.to_string().len());
    }

    #[test]
    fn any_wrong_character_and_any_cut_is_noticed() {
        let bytes = ticket().bytes();
        for at in 3..bytes.len() {
            let mut wrong = bytes.clone();
            wrong[at] = if wrong[at] == b'a' { b'b' } else { b'a' };
            assert_eq!(String::from_utf8(wrong).unwrap().parse::<Ticket>(), Err(BadTicket::Damaged), "{at}");
            assert!(String::from_utf8(bytes[..at].to_vec()).unwrap().parse::<Ticket>().is_err());
        }
        assert_eq!("peer1xyz".parse::<Ticket>(), Err(BadTicket::NotATicket));
    }
}
