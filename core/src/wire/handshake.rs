//! The three handshake messages of a stream, each in a record `length (2, big-endian), bytes`.
//!
//! 1. `version (1), e (32), mac1 (16)`. `mac1` is keyed by the responder's PeerId (as in WireGuard), so that who only
//!    scans ports hears nothing.
//! 2. Noise XX message 2, its payload a [`Hello`].
//! 3. Noise XX message 3, its payload an [`Intro`].
//!
//! The prologue binds version, network, carrier kind and the responder's PeerId.

use super::{Malformed, put, take};
use crate::identity::{Identity, verify};
use crate::ids::{Epoch, Name, PeerId, SessionId};
use alloc::vec::Vec;
use serde::{Deserialize, Serialize};

pub const VERSION: u8 = 3;
/// Length of message 1.
pub const FIRST_LEN: usize = 1 + 32 + MAC_LEN;
const MAC_LEN: usize = 16;
/// In `Intro.features`: the initiator wants the responder to relay for it, and is nobody to it.
pub(crate) const WANTS_RELAY: u64 = 1;
const CERTIFICATE_DOMAIN: &str = "peerlink/noise-static/1";

/// What moves the packets; it is part of the prologue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Carrier {
    Stream = 0,
    /// Whatever carries packets that get lost: UDP, or a relay.
    Datagram = 1,
}

pub(crate) fn prologue(network: u32, carrier: Carrier, responder: &PeerId) -> Vec<u8> {
    [b"peerlink/1".as_slice(), &network.to_be_bytes(), &[carrier as u8], responder.as_bytes()].concat()
}

fn mac1(responder: &PeerId, message: &[u8]) -> [u8; MAC_LEN] {
    let key = blake3::derive_key("peerlink 2026-11 v1 mac1", responder.as_bytes());
    let mut mac = [0; MAC_LEN];
    blake3::Hasher::new_keyed(&key).update(message).finalize_xof().fill(&mut mac);
    mac
}

/// Wraps Noise message 1.
pub(crate) fn first(responder: &PeerId, noise: &[u8]) -> Vec<u8> {
    let mut out = alloc::vec![VERSION];
    out.extend_from_slice(noise);
    let mac = mac1(responder, &out);
    out.extend_from_slice(&mac);
    out
}

/// Checks message 1 before any other work is done for it; gives the Noise message inside.
pub(crate) fn check_first<'a>(responder: &PeerId, message: &'a [u8]) -> Result<&'a [u8], Malformed> {
    let (content, mac) = message.split_last_chunk::<MAC_LEN>().ok_or(Malformed("first message"))?;
    // A MAC of public inputs: comparing it in variable time tells nobody anything.
    if message.len() != FIRST_LEN || mac1(responder, content) != *mac {
        return Err(Malformed("first message"));
    }
    match content {
        [VERSION, noise @ ..] => Ok(noise),
        _ => Err(Malformed("version")),
    }
}

/// Ties the X25519 static key of a handshake to an identity. It never expires: clocks decide nothing here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Certificate {
    pub(crate) peer: PeerId,
    r: [u8; 32],
    s: [u8; 32],
}

fn certified(network: u32, responder: bool, static_key: &[u8; 32]) -> Vec<u8> {
    [&network.to_be_bytes(), [u8::from(responder)].as_slice(), static_key].concat()
}

impl Certificate {
    pub(crate) fn make(identity: &Identity, network: u32, responder: bool, static_key: &[u8; 32]) -> Self {
        let signature = identity.sign(CERTIFICATE_DOMAIN, &certified(network, responder, static_key));
        let (mut r, mut s) = ([0; 32], [0; 32]);
        for (at, byte) in signature.into_iter().enumerate() {
            let half = if at < 32 { &mut r } else { &mut s };
            if let Some(place) = half.get_mut(at % 32) {
                *place = byte;
            }
        }
        Self { peer: identity.peer(), r, s }
    }

    pub(crate) fn check(
        &self,
        network: u32,
        responder: bool,
        static_key: &[u8; 32],
    ) -> Result<(), Malformed> {
        let mut signature = [0; 64];
        for (to, from) in signature.iter_mut().zip(self.r.iter().chain(&self.s)) {
            *to = *from;
        }
        let message = certified(network, responder, static_key);
        verify(&self.peer, CERTIFICATE_DOMAIN, &message, &signature)
            .then_some(())
            .ok_or(Malformed("certificate"))
    }
}

/// The responder's payload: nothing that a stranger may not know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) certificate: Certificate,
    pub(crate) holder: Epoch,
    /// Start counter of this installation.
    pub(crate) start: u64,
    pub(crate) features: u64,
}

/// The initiator's payload, said only to who proved to be the one that was dialled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Intro {
    pub(crate) certificate: Certificate,
    pub(crate) holder: Epoch,
    pub(crate) start: u64,
    pub(crate) features: u64,
    /// The newest session with this peer that the initiator knew when it dialled: tells a replacement from an overlap.
    pub(crate) after: Option<SessionId>,
    pub(crate) secret: Option<[u8; 16]>,
    pub(crate) nickname: Option<Name>,
}

pub(crate) fn encode<T: Serialize>(payload: &T) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, payload);
    out
}

pub(crate) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, Malformed> {
    take(bytes, "handshake payload")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::IdentitySecret;

    #[test]
    fn mac1_needs_the_peer_id_and_every_bit() {
        let identity = |seed| Identity::new(&IdentitySecret::new([seed; 32]).unwrap()).unwrap();
        let (alice, bob) = (identity(1), identity(2));
        let message = first(&alice.peer(), &[5; 32]);
        assert_eq!(check_first(&alice.peer(), &message), Ok(&[5; 32][..]));
        assert!(check_first(&bob.peer(), &message).is_err());
        for bit in 0..message.len() * 8 {
            let mut wrong = message.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(check_first(&alice.peer(), &wrong).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_certificate_binds_key_role_and_network() {
        let alice = Identity::new(&IdentitySecret::new([1; 32]).unwrap()).unwrap();
        let certificate = Certificate::make(&alice, 1, true, &[9; 32]);
        assert!(certificate.check(1, true, &[9; 32]).is_ok());
        assert!(certificate.check(2, true, &[9; 32]).is_err());
        assert!(certificate.check(1, false, &[9; 32]).is_err());
        assert!(certificate.check(1, true, &[8; 32]).is_err());
    }
}
