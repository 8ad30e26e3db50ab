//! A peer's own statement of where it is. The signature covers the exact bytes, which are stored and passed on
//! unchanged. Among records of one peer only `seq` decides.

use super::{Malformed, put};
use crate::bounded::List;
use crate::identity::{Identity, verify};
use crate::ids::{BadId, EntryHash, PeerId};
use crate::limits::{ADDRESSES, PEER_RECORD_BYTES, RELAYS};
use crate::time::WallClock;
use alloc::vec::Vec;
use core::fmt;
use core::net::SocketAddr;
use core::str::FromStr;
use serde::{Deserialize, Serialize};

const DOMAIN: &str = "peerlink/peer-record/1";
const SIGNATURE_LEN: usize = 64;
pub const VERSION: u8 = 1;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerRecord {
    pub version: u8,
    pub peer: PeerId,
    pub seq: u64,
    pub issued: WallClock,
    /// An expired record is tried last, but stays usable by contacts.
    pub expires: WallClock,
    pub addresses: List<SocketAddr, ADDRESSES>,
    pub relays: List<Relay, RELAYS>,
    pub prekey: Option<Prekey>,
    pub features: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Relay {
    pub peer: PeerId,
    pub address: SocketAddr,
}

impl fmt::Display for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.peer, self.address)
    }
}

impl FromStr for Relay {
    type Err = BadId;

    fn from_str(text: &str) -> Result<Self, BadId> {
        let bad = BadId("relay: it is PEER@ADDRESS:PORT");
        let (peer, address) = text.split_once('@').ok_or(bad)?;
        Ok(Self { peer: peer.parse().map_err(|_| bad)?, address: address.parse().map_err(|_| bad)? })
    }
}

/// The prekey for envelopes: its id, and the hash of the key, which is fetched apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prekey {
    pub id: u32,
    pub hash: EntryHash,
}

impl PeerRecord {
    /// The signed bytes: the record, then 64 bytes of Ed25519 over it.
    pub(crate) fn sign(&self, identity: &Identity) -> Vec<u8> {
        let mut out = Vec::new();
        put(&mut out, self);
        let signature = identity.sign(DOMAIN, &out);
        out.extend_from_slice(&signature);
        out
    }

    /// Checks and reads signed bytes that `peer` should have signed.
    ///
    /// # Errors
    /// `Malformed` if they are too long, not signed by `peer`, of another version, or about somebody else.
    pub fn open(peer: &PeerId, signed: &[u8]) -> Result<Self, Malformed> {
        let malformed = Malformed("peer record");
        if signed.len() > PEER_RECORD_BYTES {
            return Err(malformed);
        }
        let (body, signature) = signed.split_last_chunk::<SIGNATURE_LEN>().ok_or(malformed)?;
        let record: Self = super::take(body, "peer record")?;
        if record.version != VERSION || record.peer != *peer || !verify(peer, DOMAIN, body, signature) {
            return Err(malformed);
        }
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::IdentitySecret;

    #[test]
    fn a_record_is_believed_from_its_subject_alone_and_only_unchanged() {
        let identity = |seed| Identity::new(&IdentitySecret::new([seed; 32]).unwrap()).unwrap();
        let (alice, bob) = (identity(1), identity(2));
        let record = PeerRecord {
            version: VERSION,
            peer: alice.peer(),
            seq: 3,
            issued: WallClock(1),
            expires: WallClock(2),
            addresses: List::of((0..8).map(|n| SocketAddr::new([2001, 2, 3, 4, 5, 6, 7, n].into(), 65_000))),
            relays: List::of((0..4).map(|n| Relay {
                peer: bob.peer(),
                address: SocketAddr::new([2001, 2, 3, 4, 5, 6, 7, n].into(), 65_000),
            })),
            prekey: Some(Prekey { id: u32::MAX, hash: EntryHash([1; 32]) }),
            features: u64::MAX,
        };
        let signed = record.sign(&alice);
        assert!(signed.len() <= PEER_RECORD_BYTES, "{}", signed.len());
        assert_eq!(PeerRecord::open(&alice.peer(), &signed), Ok(record.clone()));
        assert!(PeerRecord::open(&bob.peer(), &signed).is_err());
        assert!(PeerRecord::open(&alice.peer(), &record.sign(&bob)).is_err());
        for bit in 0..signed.len() * 8 {
            let mut wrong = signed.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(PeerRecord::open(&alice.peer(), &wrong).is_err(), "bit {bit}");
        }
    }
}
