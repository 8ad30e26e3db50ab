//! The keys of this installation's person: one seed on disk, everything else derived at load.

use crate::ids::{ConversationId, EntryHash, PeerId, QueueId, Tag};
use core::fmt;
use ed25519_compact::{KeyPair, Seed, Signature, x25519};
use zeroize::{Zeroize, ZeroizeOnDrop};

/// The 32-byte seed of an identity, as it is stored. All zero is not a seed.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct IdentitySecret([u8; 32]);

impl IdentitySecret {
    /// `None` for the all-zero seed.
    #[must_use]
    pub fn new(seed: [u8; 32]) -> Option<Self> {
        (seed != [0; 32]).then_some(Self(seed))
    }

    /// For the one file that stores it.
    #[must_use]
    pub const fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for IdentitySecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IdentitySecret(..)")
    }
}

/// Signs, tags and names as one person.
pub struct Identity {
    keys: KeyPair,
    peer: PeerId,
    tag_key: [u8; 32],
    pseudonyms: [u8; 32],
}

impl Identity {
    /// `None` if the seed makes no valid key (none is known that does so).
    #[must_use]
    pub fn new(secret: &IdentitySecret) -> Option<Self> {
        let keys = KeyPair::try_from_seed(Seed::new(secret.0)).ok()?;
        let peer = PeerId::new(*keys.pk).ok()?;
        let tag_key = blake3::derive_key("peerlink 2026-11 v1 entry tag", &secret.0);
        let pseudonyms = blake3::derive_key("peerlink 2026-11 v1 pseudonyms", &secret.0);
        Some(Self { keys, peer, tag_key, pseudonyms })
    }

    #[must_use]
    pub const fn peer(&self) -> PeerId {
        self.peer
    }

    /// Ed25519 (RFC 8032) over `domain`, a zero byte, and `message`.
    #[must_use]
    pub fn sign(&self, domain: &str, message: &[u8]) -> [u8; 64] {
        *self.keys.sk.sign(signed_bytes(domain, message), None)
    }

    /// Who this is to one relay: always the same, and nothing that it or another relay could tell this identity by.
    #[must_use]
    pub fn pseudonym(&self, relay: &PeerId) -> Option<Self> {
        let mut hasher = blake3::Hasher::new_keyed(&self.pseudonyms);
        hasher.update(relay.as_bytes());
        Self::new(&IdentitySecret::new(*hasher.finalize().as_bytes())?)
    }

    /// What only this identity and `other` know: X25519 (RFC 7748) of their keys, which are mapped from Ed25519. Not used
    /// as it is, and for nothing that a session keeps secret.
    #[must_use]
    pub fn shared(&self, other: &PeerId) -> Option<Shared> {
        let mine = x25519::SecretKey::from_ed25519(&self.keys.sk).ok()?;
        let theirs = ed25519_compact::PublicKey::new(*other.as_bytes());
        let theirs = x25519::PublicKey::from_ed25519(&theirs).ok()?;
        Some(Shared(*theirs.dh(&mine).ok()?))
    }

    /// The author's own proof that it wrote this entry: only this identity can make it or check it. The hash says which
    /// one that is, down to conversation, epoch and number.
    #[must_use]
    pub fn tag(&self, hash: &EntryHash) -> Tag {
        let [tag @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] =
            *blake3::keyed_hash(&self.tag_key, &hash.0).as_bytes();
        Tag(tag)
    }
}

/// What two peers know of each other and nobody else does.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Shared([u8; 32]);

impl Shared {
    /// The queue of `recipient` at `relay` that the other of the two sends to.
    #[must_use]
    pub fn queue(&self, recipient: &PeerId, relay: &PeerId) -> QueueId {
        let mut hasher = blake3::Hasher::new_derive_key("peerlink 2026-11 v1 queue");
        hasher.update(&self.0).update(recipient.as_bytes()).update(relay.as_bytes());
        let mut id = [0; 16];
        hasher.finalize_xof().fill(&mut id);
        QueueId(id)
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shared(..)")
    }
}

impl Drop for Identity {
    fn drop(&mut self) {
        self.tag_key.zeroize();
        self.pseudonyms.zeroize();
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Identity").field(&self.peer).finish()
    }
}

fn signed_bytes(domain: &str, message: &[u8]) -> alloc::vec::Vec<u8> {
    [domain.as_bytes(), &[0], message].concat()
}

/// Whether `peer` signed `message` under `domain`. Strict: canonical, no small order.
#[must_use]
pub fn verify(peer: &PeerId, domain: &str, message: &[u8], signature: &[u8; 64]) -> bool {
    verify_bytes(peer, &signed_bytes(domain, message), signature)
}

fn verify_bytes(peer: &PeerId, bytes: &[u8], signature: &[u8; 64]) -> bool {
    ed25519_compact::PublicKey::new(*peer.as_bytes()).verify(bytes, &Signature::new(*signature)).is_ok()
}

/// The conversation of two peers: the same for both.
#[must_use]
pub fn conversation_id(a: &PeerId, b: &PeerId) -> ConversationId {
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    let mut hasher = blake3::Hasher::new_derive_key("peerlink 2026-11 v1 conversation");
    hasher.update(low.as_bytes()).update(high.as_bytes());
    ConversationId(*hasher.finalize().as_bytes())
}

/// The 60 digits that two people compare to be sure that nobody stands between them: twelve groups of five, the same
/// on both sides. Iterated 5,200 times, as Signal's fingerprints are, to make a near match costly.
#[must_use]
pub fn safety_number(a: &PeerId, b: &PeerId) -> alloc::string::String {
    use core::fmt::Write as _;
    let (low, high) = if a <= b { (a, b) } else { (b, a) };
    let mut out = alloc::string::String::new();
    for peer in [low, high] {
        let mut state = blake3::derive_key("peerlink 2026-11 v1 safety number", peer.as_bytes());
        for _ in 0..5_200 {
            state = blake3::keyed_hash(&state, peer.as_bytes()).into();
        }
        let mut digits = [0; 30];
        blake3::Hasher::new_keyed(&state).finalize_xof().fill(&mut digits);
        for group in digits.chunks(5) {
            let value = group.iter().fold(0u64, |value, byte| (value << 8) | u64::from(*byte));
            let space = if out.is_empty() { "" } else { " " };
            // Writing into a String cannot fail.
            let _ = write!(out, "{space}{:05}", value % 100_000);
        }
    }
    out
}

#[cfg(test)]
mod oracles;
#[cfg(test)]
mod tests {
    use super::*;

    fn identity(seed: u8) -> Identity {
        Identity::new(&IdentitySecret::new([seed; 32]).unwrap()).unwrap()
    }

    #[test]
    fn signatures_bind_domain_message_and_signer() {
        let (alice, bob) = (identity(1), identity(2));
        let signature = alice.sign("d", b"m");
        assert!(verify(&alice.peer(), "d", b"m", &signature));
        assert!(!verify(&bob.peer(), "d", b"m", &signature));
        assert!(!verify(&alice.peer(), "e", b"m", &signature));
        for bit in 0..512 {
            let mut wrong = signature;
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(!verify(&alice.peer(), "d", b"m", &wrong), "bit {bit}");
        }
    }

    #[test]
    fn both_sides_read_the_same_sixty_digits() {
        let (alice, bob) = (identity(1).peer(), identity(2).peer());
        let number = safety_number(&alice, &bob);
        assert_eq!(number, safety_number(&bob, &alice));
        assert_eq!(number.chars().filter(char::is_ascii_digit).count(), 60);
        assert_ne!(number, safety_number(&alice, &identity(3).peer()));
    }

    #[test]
    fn no_secret_is_printed() {
        let secret = IdentitySecret::new([0xAB; 32]).unwrap();
        assert_eq!(alloc::format!("{secret:?}"), "IdentitySecret(..)");
        assert!(!alloc::format!("{:?}", identity(0xAB)).to_lowercase().contains("abab"));
        assert!(IdentitySecret::new([0; 32]).is_none());
    }
}
