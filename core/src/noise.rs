//! `Noise_XX_25519_ChaChaPoly_BLAKE2s` (Noise Protocol Framework, revision 34): a handshake in three messages, then one
//! key for each direction.
//!
//! The handshake's state machine is `snow`'s; what it computes with is chosen here: X25519 of `ed25519-compact`, which
//! turns a result of all zeros down (RFC 7748, section 6.1), ChaCha20-Poly1305 and BLAKE2s of RustCrypto, randomness
//! from the caller. After the handshake `snow` is gone: [`Sealer`] and [`Opener`] count their own nonces, so that a
//! record that does not check out moves nothing.
//!
//! A handshake that failed once is over: `snow` rolls back only part of its state, so nothing is ever read into it
//! again. Keys are wiped when dropped; only what `snow` keeps inside (its chaining key) is not.

use crate::limits::{HANDSHAKE_BYTES, RECORD_BYTES, SEAL_BYTES, SESSION_RECORDS};
use crate::planted::planted;
use crate::rng::Rng;
use alloc::boxed::Box;
use alloc::vec::Vec;
use blake2::{Blake2s256, Digest as _};
use chacha20poly1305::{AeadInOut as _, ChaCha20Poly1305, KeyInit as _, Nonce, Tag};
use core::cell::Cell;
use core::fmt;
use core::mem;
use ed25519_compact::x25519;
use snow::params::{CipherChoice, DHChoice, HashChoice};
use snow::resolvers::CryptoResolver;
use snow::types::{Cipher, Dh, Hash, Random};
use snow::{Builder, Error, HandshakeState};
use zeroize::{Zeroize as _, Zeroizing};

const KEY_NAME: &str = "peerlink 2026-11 v1 name of a key";
const PROTOCOL: &str = "Noise_XX_25519_ChaChaPoly_BLAKE2s";
/// The most that a message of this pattern is longer than its payload: an ephemeral key, a sealed static key, a tag.
const OVERHEAD: usize = 32 + (32 + SEAL_BYTES) + SEAL_BYTES;

const _: () = assert!(OVERHEAD < HANDSHAKE_BYTES);

/// Why a handshake or a record came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NoiseError {
    /// The peer's doing: it is cut short, was altered, is out of turn, or holds a key of small order.
    #[error("it does not check out")]
    Rejected,
    #[error("it is longer than the protocol allows")]
    TooLong,
    /// This key has sealed or opened all that it may.
    #[error("the key is used up")]
    Exhausted,
    /// This side's doing: a call that has no place here, or on a handshake that failed before.
    #[error("the call does not belong here")]
    Misused,
}

/// A node's X25519 key pair. It is certified by the identity inside the handshake and is not the identity.
pub(crate) struct StaticKey(KeyPair);

impl StaticKey {
    pub(crate) fn generate(rng: &mut Rng) -> Self {
        loop {
            let secret = Zeroizing::new(rng.bytes());
            // No scalar is known that has no public key.
            if let Some(pair) = KeyPair::new(&secret) {
                return Self(pair);
            }
        }
    }

    pub(crate) const fn public(&self) -> &[u8; 32] {
        &self.0.public
    }
}

impl fmt::Debug for StaticKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StaticKey(..)")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Initiator,
    Responder,
}

/// Three messages: the initiator writes the first and the third. Each carries a payload: the first one's travels in the
/// clear, the second's can be read by whoever wrote the first, the third's by the proven responder alone.
pub(crate) struct Handshake {
    /// `None` once something failed.
    state: Option<Box<HandshakeState>>,
}

impl Handshake {
    /// Both sides must give the same `prologue`. `rng` gives one fork, from which the ephemeral key is drawn.
    ///
    /// # Errors
    /// None that a peer could bring about.
    pub(crate) fn new(
        role: Role,
        prologue: &[u8],
        key: &StaticKey,
        rng: &mut Rng,
    ) -> Result<Self, NoiseError> {
        let mut build = || {
            let resolver = Box::new(Primitives { rng: Cell::new(Some(rng.fork())), own: key.0.clone() });
            let builder = Builder::with_resolver(PROTOCOL.parse()?, resolver)
                .local_private_key(&*key.0.secret)?
                .prologue(prologue)?;
            match role {
                Role::Initiator => builder.build_initiator(),
                Role::Responder => builder.build_responder(),
            }
        };
        let state = build().map_err(|_| NoiseError::Misused)?;
        Ok(Self { state: Some(Box::new(state)) })
    }

    /// Appends the next message to `out`. On an error `out` is as it was.
    ///
    /// # Errors
    /// `TooLong` if the payload is not at least 96 bytes shorter than [`HANDSHAKE_BYTES`]; `Misused` if it is not this
    /// side's turn; `Rejected` if the peer's key is of small order.
    pub(crate) fn write(&mut self, payload: &[u8], out: &mut Vec<u8>) -> Result<(), NoiseError> {
        if payload.len() > HANDSHAKE_BYTES - OVERHEAD {
            return Err(NoiseError::TooLong);
        }
        let mut state = self.take_if(HandshakeState::is_my_turn)?;
        let start = out.len();
        out.resize(start + OVERHEAD + payload.len(), 0);
        let message = out.get_mut(start..).unwrap_or_default();
        match state.write_message(payload, message) {
            Ok(written) => {
                out.truncate(start + written);
                self.state = Some(state);
                Ok(())
            }
            Err(_) => {
                out.truncate(start);
                Err(NoiseError::Rejected)
            }
        }
    }

    /// The payload of the peer's next message, never longer than [`HANDSHAKE_BYTES`].
    ///
    /// # Errors
    /// `Rejected` or `TooLong`, after which the handshake is over; `Misused` if it is not the peer's turn.
    pub(crate) fn read(&mut self, message: &[u8]) -> Result<Vec<u8>, NoiseError> {
        let mut state = self.take_if(|state| !state.is_my_turn())?;
        if message.len() > HANDSHAKE_BYTES {
            return Err(NoiseError::TooLong);
        }
        let mut payload = alloc::vec![0; message.len()];
        let length = state.read_message(message, &mut payload).map_err(|_| NoiseError::Rejected)?;
        payload.truncate(length);
        self.state = Some(state);
        Ok(payload)
    }

    /// The state, taken out so that it is gone unless the caller puts it back; only if it is not done and `fits`.
    fn take_if(
        &mut self,
        fits: impl FnOnce(&HandshakeState) -> bool,
    ) -> Result<Box<HandshakeState>, NoiseError> {
        self.state.take_if(|state| !state.is_handshake_finished() && fits(state)).ok_or(NoiseError::Misused)
    }

    /// The static key that the peer has proven to hold: known to the initiator from the second message on, to the
    /// responder from the third.
    pub(crate) fn remote_static(&self) -> Option<[u8; 32]> {
        self.state.as_ref()?.get_remote_static()?.try_into().ok()
    }

    pub(crate) fn is_finished(&self) -> bool {
        self.state.as_ref().is_some_and(|state| state.is_handshake_finished())
    }

    /// One key for each direction.
    ///
    /// # Errors
    /// `Misused` if the handshake is not finished.
    pub(crate) fn split(self) -> Result<Split, NoiseError> {
        let mut state =
            self.state.filter(|state| state.is_handshake_finished()).ok_or(NoiseError::Misused)?;
        let hash = state.get_handshake_hash().try_into().map_err(|_| NoiseError::Misused)?;
        let (initiator, responder) = state.dangerously_get_raw_split();
        let (initiator, responder) = (Zeroizing::new(initiator), Zeroizing::new(responder));
        let (seal, open) = if state.is_initiator() { (initiator, responder) } else { (responder, initiator) };
        Ok(Split { seal: Sealer::new(&seal), open: Opener::new(&open), hash })
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handshake").field("finished", &self.is_finished()).finish_non_exhaustive()
    }
}

/// What a finished handshake leaves.
#[derive(Debug)]
pub(crate) struct Split {
    pub(crate) seal: Sealer,
    pub(crate) open: Opener,
    /// The handshake hash: names the session, the same on both sides, not secret.
    pub(crate) hash: [u8; 32],
}

/// Seals this side's records. The record's number is its nonce.
pub(crate) struct Sealer {
    cipher: ChaCha20Poly1305,
    number: u64,
    /// A hash of the key: names it, and tells nothing of it.
    name: u64,
    #[cfg(peerlink_planted)]
    pub(crate) planted: Option<crate::planted::Planted>,
}

impl Sealer {
    fn new(key: &[u8; 32]) -> Self {
        let mut name = [0; 8];
        blake3::Hasher::new_derive_key(KEY_NAME).update(key).finalize_xof().fill(&mut name);
        Self {
            cipher: ChaCha20Poly1305::new(key.into()),
            number: 0,
            name: u64::from_le_bytes(name),
            #[cfg(peerlink_planted)]
            planted: None,
        }
    }

    /// Encrypts `record[from..]` in place and appends the tag of [`SEAL_BYTES`]. On an error nothing was changed.
    ///
    /// # Errors
    /// `Exhausted` at [`SESSION_RECORDS`]: a nonce never comes twice. `TooLong` if the sealed part would be longer than
    /// [`RECORD_BYTES`]. `Misused` if `from` lies beyond the end.
    pub(crate) fn seal(&mut self, record: &mut Vec<u8>, from: usize) -> Result<(), NoiseError> {
        if self.number >= SESSION_RECORDS {
            return Err(NoiseError::Exhausted);
        }
        let plaintext = record.get_mut(from..).ok_or(NoiseError::Misused)?;
        if plaintext.len() > RECORD_BYTES - SEAL_BYTES {
            return Err(NoiseError::TooLong);
        }
        let tag = if planted!(self, PlaintextOnTheWire) {
            [0; SEAL_BYTES]
        } else {
            seal_in_place(&self.cipher, &nonce(self.number), &[], plaintext)?
        };
        record.extend_from_slice(&tag);
        if !(planted!(self, NonceReused) && self.number == 9) {
            self.number += 1;
        }
        Ok(())
    }

    /// Seals a packet whose header, `packet[..from]`, names the number that [`Self::number`] gave: the header is
    /// authenticated, what follows is encrypted in place, and the tag is appended. On an error nothing was changed.
    ///
    /// # Errors
    /// As [`Self::seal`].
    pub(crate) fn seal_packet(&mut self, packet: &mut Vec<u8>, from: usize) -> Result<(), NoiseError> {
        if self.number >= SESSION_RECORDS {
            return Err(NoiseError::Exhausted);
        }
        let (header, plaintext) = packet.split_at_mut_checked(from).ok_or(NoiseError::Misused)?;
        let tag = if planted!(self, PlaintextOnTheWire) {
            [0; SEAL_BYTES]
        } else {
            seal_in_place(&self.cipher, &nonce(self.number), header, plaintext)?
        };
        packet.extend_from_slice(&tag);
        if !(planted!(self, NonceReused) && self.number == 9) {
            self.number += 1;
        }
        Ok(())
    }

    /// The number of the next record, and so how many were sealed.
    pub(crate) const fn number(&self) -> u64 {
        self.number
    }

    pub(crate) const fn name(&self) -> u64 {
        self.name
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("number", &self.number).finish_non_exhaustive()
    }
}

/// Opens the peer's records, in order.
pub(crate) struct Opener {
    cipher: ChaCha20Poly1305,
    number: u64,
    #[cfg(peerlink_planted)]
    pub(crate) planted: Option<crate::planted::Planted>,
}

impl Opener {
    fn new(key: &[u8; 32]) -> Self {
        Self {
            cipher: ChaCha20Poly1305::new(key.into()),
            number: 0,
            #[cfg(peerlink_planted)]
            planted: None,
        }
    }

    /// Decrypts in place and gives the plaintext. On an error nothing was changed: the next record may still open.
    ///
    /// # Errors
    /// `Rejected` if the record is not the peer's next one; `Exhausted` at [`SESSION_RECORDS`].
    pub(crate) fn open<'a>(&mut self, record: &'a mut [u8]) -> Result<&'a mut [u8], NoiseError> {
        if self.number >= SESSION_RECORDS {
            return Err(NoiseError::Exhausted);
        }
        let (sealed, tag) = record.split_last_chunk_mut::<SEAL_BYTES>().ok_or(NoiseError::Rejected)?;
        let opened = if planted!(self, PlaintextOnTheWire) {
            Ok(())
        } else {
            open_in_place(&self.cipher, &nonce(self.number), &[], sealed, tag)
        };
        if planted!(self, MacIgnored) && opened.is_err() {
            // What seals also opens: the one is the other's keystream.
            let _tag = seal_in_place(&self.cipher, &nonce(self.number), &[], sealed)?;
        } else {
            opened?;
        }
        if !(planted!(self, NonceReused) && self.number == 9) {
            self.number += 1;
        }
        Ok(sealed)
    }
}

impl Opener {
    /// Decrypts a packet of this number in place and gives the plaintext. Nothing else changes, whatever came: which
    /// numbers came before is the caller's to know.
    ///
    /// # Errors
    /// `Rejected` if number, header or packet are not the peer's.
    pub(crate) fn open_packet<'a>(
        &self,
        number: u64,
        header: &[u8],
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], NoiseError> {
        if number >= SESSION_RECORDS {
            return Err(NoiseError::Exhausted);
        }
        let (sealed, tag) = sealed.split_last_chunk_mut::<SEAL_BYTES>().ok_or(NoiseError::Rejected)?;
        if planted!(self, PlaintextOnTheWire) {
            return Ok(sealed);
        }
        let opened = open_in_place(&self.cipher, &nonce(number), header, sealed, tag);
        if planted!(self, MacIgnored) && opened.is_err() {
            let _tag = seal_in_place(&self.cipher, &nonce(number), header, sealed)?;
        } else {
            opened?;
        }
        Ok(sealed)
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opener").field("number", &self.number).finish_non_exhaustive()
    }
}

// --- primitives --------------------------------------------------------------------------------------------------

/// Noise, section 12.3: 32 bits of zeros, then the number in little-endian.
fn nonce(number: u64) -> Nonce {
    let [a, b, c, d, e, f, g, h] = number.to_le_bytes();
    [0, 0, 0, 0, a, b, c, d, e, f, g, h].into()
}

fn seal_in_place(
    cipher: &ChaCha20Poly1305,
    nonce: &Nonce,
    associated: &[u8],
    bytes: &mut [u8],
) -> Result<[u8; SEAL_BYTES], NoiseError> {
    cipher
        .encrypt_inout_detached(nonce, associated, bytes.into())
        .map(Into::into)
        .map_err(|_| NoiseError::TooLong)
}

fn open_in_place(
    cipher: &ChaCha20Poly1305,
    nonce: &Nonce,
    associated: &[u8],
    bytes: &mut [u8],
    tag: &[u8; SEAL_BYTES],
) -> Result<(), NoiseError> {
    cipher
        .decrypt_inout_detached(nonce, associated, bytes.into(), &Tag::from(*tag))
        .map_err(|_| NoiseError::Rejected)
}

/// X25519, RFC 7748: any 32 bytes are a public key, of which the unused bit is ignored.
#[derive(Clone)]
struct KeyPair {
    secret: Zeroizing<[u8; 32]>,
    public: [u8; 32],
}

impl KeyPair {
    fn new(secret: &[u8; 32]) -> Option<Self> {
        let public = x25519::SecretKey::new(*secret).recover_public_key().ok()?;
        Some(Self { secret: Zeroizing::new(*secret), public: *public })
    }

    /// `None` if the public key is of small order: the result would be all zeros, and the secret no secret.
    fn agree(&self, public: &[u8; 32]) -> Option<Zeroizing<[u8; 32]>> {
        let shared = x25519::PublicKey::new(*public).dh(&x25519::SecretKey::new(*self.secret)).ok()?;
        Some(Zeroizing::new(*shared))
    }
}

/// What one handshake computes with.
struct Primitives {
    /// Given out once: two readers of one seed would draw the same key.
    rng: Cell<Option<Rng>>,
    /// The static key, whose public half is known and need not be computed for each handshake.
    own: KeyPair,
}

impl CryptoResolver for Primitives {
    fn resolve_rng(&self) -> Option<Box<dyn Random>> {
        self.rng.take().map(|rng| Box::new(Entropy(rng)) as Box<dyn Random>)
    }

    fn resolve_dh(&self, choice: &DHChoice) -> Option<Box<dyn Dh>> {
        matches!(choice, DHChoice::Curve25519)
            .then(|| Box::new(Agreement { own: self.own.clone(), pair: None }) as Box<dyn Dh>)
    }

    fn resolve_hash(&self, choice: &HashChoice) -> Option<Box<dyn Hash>> {
        matches!(choice, HashChoice::Blake2s).then(|| Box::new(Blake2s(Blake2s256::new())) as Box<dyn Hash>)
    }

    fn resolve_cipher(&self, choice: &CipherChoice) -> Option<Box<dyn Cipher>> {
        matches!(choice, CipherChoice::ChaChaPoly).then(|| Box::new(Aead(None)) as Box<dyn Cipher>)
    }
}

struct Entropy(Rng);

impl Random for Entropy {
    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Error> {
        for chunk in out.chunks_mut(32) {
            let mut bytes: [u8; 32] = self.0.bytes();
            for (to, from) in chunk.iter_mut().zip(bytes) {
                *to = from;
            }
            bytes.zeroize();
        }
        Ok(())
    }
}

/// Without a pair it agrees on nothing, and its public key is of small order: the peer will notice.
struct Agreement {
    own: KeyPair,
    pair: Option<KeyPair>,
}

impl Dh for Agreement {
    fn name(&self) -> &'static str {
        "25519"
    }

    fn pub_len(&self) -> usize {
        32
    }

    fn priv_len(&self) -> usize {
        32
    }

    fn set(&mut self, secret: &[u8]) {
        self.pair = if *secret == *self.own.secret {
            Some(self.own.clone())
        } else {
            secret.try_into().ok().and_then(KeyPair::new)
        };
    }

    fn generate(&mut self, rng: &mut dyn Random) -> Result<(), Error> {
        let mut secret = Zeroizing::new([0; 32]);
        rng.try_fill_bytes(&mut *secret)?;
        self.pair = Some(KeyPair::new(&secret).ok_or(Error::Dh)?);
        Ok(())
    }

    fn pubkey(&self) -> &[u8] {
        self.pair.as_ref().map_or(&[0; 32], |pair| &pair.public)
    }

    fn privkey(&self) -> &[u8] {
        self.pair.as_ref().map_or(&[0; 32], |pair| &*pair.secret)
    }

    fn dh(&self, public: &[u8], out: &mut [u8]) -> Result<(), Error> {
        // The public key comes in a buffer that is large enough for any curve.
        let public = public.first_chunk().ok_or(Error::Dh)?;
        let shared = self.pair.as_ref().and_then(|pair| pair.agree(public)).ok_or(Error::Dh)?;
        *out.first_chunk_mut().ok_or(Error::Dh)? = *shared;
        Ok(())
    }
}

struct Blake2s(Blake2s256);

impl Hash for Blake2s {
    fn name(&self) -> &'static str {
        "BLAKE2s"
    }

    fn block_len(&self) -> usize {
        64
    }

    fn hash_len(&self) -> usize {
        32
    }

    fn reset(&mut self) {
        self.0 = Blake2s256::new();
    }

    fn input(&mut self, data: &[u8]) {
        self.0.update(data);
    }

    fn result(&mut self, out: &mut [u8]) {
        let hash = mem::take(&mut self.0).finalize();
        for (to, from) in out.iter_mut().zip(hash) {
            *to = from;
        }
    }
}

/// The cipher of the handshake itself.
struct Aead(Option<ChaCha20Poly1305>);

impl Cipher for Aead {
    fn name(&self) -> &'static str {
        "ChaChaPoly"
    }

    fn set(&mut self, key: &[u8; 32]) {
        self.0 = Some(ChaCha20Poly1305::new(key.into()));
    }

    /// 0, and nothing but zeros in `out`, where nothing can be sealed: no key (`snow` asks first) or no room.
    fn encrypt(&self, number: u64, associated: &[u8], plaintext: &[u8], out: &mut [u8]) -> usize {
        let seal = |out: &mut [u8]| {
            let (bytes, rest) = out.split_at_mut_checked(plaintext.len())?;
            let tag = rest.first_chunk_mut()?;
            bytes.copy_from_slice(plaintext);
            *tag = seal_in_place(self.0.as_ref()?, &nonce(number), associated, bytes).ok()?;
            Some(plaintext.len() + SEAL_BYTES)
        };
        seal(out).unwrap_or_else(|| {
            out.fill(0);
            0
        })
    }

    fn decrypt(&self, number: u64, associated: &[u8], sealed: &[u8], out: &mut [u8]) -> Result<usize, Error> {
        let cipher = self.0.as_ref().ok_or(Error::Decrypt)?;
        let (sealed, tag) = sealed.split_last_chunk().ok_or(Error::Decrypt)?;
        let out = out.get_mut(..sealed.len()).ok_or(Error::Decrypt)?;
        out.copy_from_slice(sealed);
        open_in_place(cipher, &nonce(number), associated, out, tag).map_err(|_| Error::Decrypt)?;
        Ok(sealed.len())
    }
}

#[cfg(test)]
mod oracles;
#[cfg(test)]
mod tests;
