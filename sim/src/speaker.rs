//! A peer made by hand, that says whatever it is told.
//!
//! It speaks `Noise_XX_25519_ChaChaPoly_BLAKE2s` and the framing around it as they are written down, and shares with
//! the core nothing but the primitives. So it proves that the core speaks the same, and it can say, with good keys and
//! good seals, what no node would ever say.

use blake2::{Blake2s256, Digest as _};
use chacha20poly1305::{AeadInOut as _, ChaCha20Poly1305, KeyInit as _};
use ed25519_compact::{KeyPair, Seed, x25519};
use peerlink_core::ids::PeerId;

/// One X25519 key pair.
#[derive(Debug, Clone)]
struct Keys {
    secret: x25519::SecretKey,
    public: [u8; 32],
}

impl Keys {
    fn new(seed: [u8; 32]) -> Self {
        let secret = x25519::SecretKey::new(seed);
        let public = *secret.recover_public_key().expect("every seed makes a key");
        Self { secret, public }
    }

    /// `None` for a key of small order.
    fn agree(&self, public: &[u8; 32]) -> Option<[u8; 32]> {
        x25519::PublicKey::new(*public).dh(&self.secret).ok().map(|shared| *shared)
    }
}

fn hash(parts: &[&[u8]]) -> [u8; 32] {
    let mut hasher = Blake2s256::new();
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().into()
}

/// HMAC (RFC 2104) with the block of 64 bytes that BLAKE2s has.
fn hmac(key: &[u8; 32], parts: &[&[u8]]) -> [u8; 32] {
    let pad = |with: u8| {
        let mut block = [with; 64];
        block.iter_mut().zip(key).for_each(|(to, from)| *to ^= from);
        block
    };
    let (inner_key, outer_key) = (pad(0x36), pad(0x5c));
    let inner: Vec<&[u8]> = [&inner_key[..]].into_iter().chain(parts.iter().copied()).collect();
    hash(&[&outer_key, &hash(&inner)])
}

fn derive(chaining_key: &[u8; 32], input: &[u8]) -> ([u8; 32], [u8; 32]) {
    let temporary = hmac(chaining_key, &[input]);
    let first = hmac(&temporary, &[&[1]]);
    (first, hmac(&temporary, &[&first, &[2]]))
}

/// A key and the number of its next message.
#[derive(Debug, Clone)]
struct Cipher {
    key: [u8; 32],
    number: u64,
}

impl Cipher {
    fn nonce(&mut self) -> [u8; 12] {
        let mut nonce = [0; 12];
        nonce[4..].copy_from_slice(&self.number.to_le_bytes());
        self.number += 1;
        nonce
    }

    fn seal(&mut self, associated: &[u8], plaintext: &[u8]) -> Vec<u8> {
        let mut out = plaintext.to_vec();
        let (cipher, nonce) = (ChaCha20Poly1305::new(&self.key.into()), self.nonce());
        let tag = cipher.encrypt_inout_detached(&nonce.into(), associated, (&mut out[..]).into());
        out.extend_from_slice(&tag.expect("a message is short"));
        out
    }

    fn open(&mut self, associated: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (bytes, tag) = sealed.split_last_chunk::<16>()?;
        let mut out = bytes.to_vec();
        let (cipher, nonce) = (ChaCha20Poly1305::new(&self.key.into()), self.nonce());
        cipher
            .decrypt_inout_detached(&nonce.into(), associated, (&mut out[..]).into(), &(*tag).into())
            .ok()?;
        Some(out)
    }
}

/// Noise's `SymmetricState`.
#[derive(Debug, Clone)]
struct Symmetric {
    chaining_key: [u8; 32],
    hash: [u8; 32],
    cipher: Cipher,
}

impl Symmetric {
    fn new(prologue: &[u8]) -> Self {
        let name = hash(&[b"Noise_XX_25519_ChaChaPoly_BLAKE2s"]);
        let cipher = Cipher { key: [0; 32], number: 0 };
        Self { chaining_key: name, hash: hash(&[&name, prologue]), cipher }
    }

    fn mix_hash(&mut self, data: &[u8]) {
        self.hash = hash(&[&self.hash, data]);
    }

    fn mix_key(&mut self, shared: Option<[u8; 32]>) -> Option<()> {
        let (chaining_key, key) = derive(&self.chaining_key, &shared?);
        self.chaining_key = chaining_key;
        self.cipher = Cipher { key, number: 0 };
        Some(())
    }

    fn seal(&mut self, plaintext: &[u8]) -> Vec<u8> {
        let sealed = self.cipher.seal(&self.hash, plaintext);
        self.mix_hash(&sealed);
        sealed
    }

    fn open(&mut self, sealed: &[u8]) -> Option<Vec<u8>> {
        let plaintext = self.cipher.open(&self.hash, sealed)?;
        self.mix_hash(sealed);
        Some(plaintext)
    }
}

/// The speaker and the one session that it has.
#[derive(Debug)]
pub struct Speaker {
    identity: KeyPair,
    statics: Keys,
    ephemeral: Keys,
    symmetric: Symmetric,
    theirs: [u8; 32],
    ciphers: Option<(Cipher, Cipher)>,
}

/// `length (2, big-endian), bytes`: how every message of a stream travels.
#[must_use]
pub fn record(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("a record is short");
    [&length.to_be_bytes(), bytes].concat()
}

/// Takes one record off the front.
pub fn take_record(bytes: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes(*bytes.first_chunk()?));
    let whole = bytes.get(2..2 + length)?.to_vec();
    bytes.drain(..2 + length);
    Some(whole)
}

impl Speaker {
    /// For a session whose responder is `responder`.
    #[must_use]
    pub fn new(seed: u8, responder: &PeerId) -> Self {
        Self::of([seed; 32], [seed.wrapping_add(100); 32], responder)
    }

    /// With the identity of this seed, and an ephemeral key of its own.
    #[must_use]
    pub fn of(seed: [u8; 32], ephemeral: [u8; 32], responder: &PeerId) -> Self {
        let prologue = [b"peerlink/1".as_slice(), &1u32.to_be_bytes(), &[0], responder.as_bytes()].concat();
        Self {
            identity: KeyPair::from_seed(Seed::new(seed)),
            statics: Keys::new(seed),
            ephemeral: Keys::new(ephemeral),
            symmetric: Symmetric::new(&prologue),
            theirs: [0; 32],
            ciphers: None,
        }
    }

    /// Another process of the same identity: they have static keys of their own.
    #[must_use]
    pub fn another(self, key: u8) -> Self {
        Self { statics: Keys::new([key; 32]), ..self }
    }

    #[must_use]
    pub fn peer(seed: u8) -> PeerId {
        PeerId::new(*identity(seed).pk).expect("a good key")
    }

    /// The certificate that ties the static key to the identity, and what follows it up to the features.
    #[must_use]
    pub fn introduction(&self, responder: bool) -> Vec<u8> {
        self.introduction_as(&self.identity.pk, responder)
    }

    /// The same in the name of somebody whose key it does not have, if that is another.
    #[must_use]
    pub fn introduction_as(&self, peer: &[u8; 32], responder: bool) -> Vec<u8> {
        let domain = b"peerlink/noise-static/1\0";
        let said = [&domain[..], &1u32.to_be_bytes(), &[u8::from(responder)], &self.statics.public].concat();
        let signature = self.identity.sk.sign(said, None);
        let (holder, start, features) = ([9; 16], 1, 0);
        [&peer[..], &signature[..], &holder, &[start, features]].concat()
    }

    /// As initiator: message 1.
    pub fn first(&mut self, responder: &PeerId) -> Vec<u8> {
        self.symmetric.mix_hash(&self.ephemeral.public);
        self.symmetric.mix_hash(&[]);
        let mut out = vec![3];
        out.extend_from_slice(&self.ephemeral.public);
        let key = blake3::derive_key("peerlink 2026-11 v1 mac1", responder.as_bytes());
        let mut mac = [0; 16];
        blake3::Hasher::new_keyed(&key).update(&out).finalize_xof().fill(&mut mac);
        out.extend_from_slice(&mac);
        out
    }

    /// As initiator: reads message 2, gives message 3 with this payload. `None` if message 2 is not what it should be.
    pub fn third(&mut self, second: &[u8], payload: &[u8]) -> Option<Vec<u8>> {
        let (ephemeral, rest) = second.split_first_chunk::<32>()?;
        let (theirs, hello) = rest.split_at_checked(48)?;
        self.symmetric.mix_hash(ephemeral);
        self.symmetric.mix_key(self.ephemeral.agree(ephemeral))?;
        self.theirs = self.symmetric.open(theirs)?.try_into().ok()?;
        self.symmetric.mix_key(self.ephemeral.agree(&self.theirs))?;
        self.symmetric.open(hello)?;
        let mut out = self.symmetric.seal(&self.statics.public.clone());
        self.symmetric.mix_key(self.statics.agree(ephemeral))?;
        out.extend(self.symmetric.seal(payload));
        let (initiator, responder) = derive(&self.symmetric.chaining_key, &[]);
        self.ciphers = Some((Cipher { key: initiator, number: 0 }, Cipher { key: responder, number: 0 }));
        Some(out)
    }

    /// As responder: reads message 1, gives message 2 with this payload.
    pub fn second(&mut self, first: &[u8], payload: &[u8]) -> Option<Vec<u8>> {
        let ephemeral: &[u8; 32] = first.get(1..33)?.try_into().ok()?;
        self.symmetric.mix_hash(ephemeral);
        self.symmetric.mix_hash(&[]);
        let mut out = self.ephemeral.public.to_vec();
        self.symmetric.mix_hash(&out);
        self.symmetric.mix_key(self.ephemeral.agree(ephemeral))?;
        out.extend(self.symmetric.seal(&self.statics.public.clone()));
        self.symmetric.mix_key(self.statics.agree(ephemeral))?;
        out.extend(self.symmetric.seal(payload));
        Some(out)
    }

    /// As responder: reads message 3 and gives its payload.
    pub fn finish(&mut self, third: &[u8]) -> Option<Vec<u8>> {
        let (theirs, intro) = third.split_at_checked(48)?;
        self.theirs = self.symmetric.open(theirs)?.try_into().ok()?;
        self.symmetric.mix_key(self.ephemeral.agree(&self.theirs))?;
        let payload = self.symmetric.open(intro)?;
        let (initiator, responder) = derive(&self.symmetric.chaining_key, &[]);
        self.ciphers = Some((Cipher { key: responder, number: 0 }, Cipher { key: initiator, number: 0 }));
        Some(payload)
    }

    /// A sealed record of these frames, whatever they are, as it travels.
    pub fn say(&mut self, frames: &[u8]) -> Vec<u8> {
        let (seal, _) = self.ciphers.as_mut().expect("the handshake is over");
        record(&seal.seal(&[], frames))
    }

    /// The frames of a record of theirs.
    pub fn hear(&mut self, sealed: &[u8]) -> Option<Vec<u8>> {
        self.ciphers.as_mut()?.1.open(&[], sealed)
    }
}

fn identity(seed: u8) -> KeyPair {
    KeyPair::from_seed(Seed::new([seed; 32]))
}
