//! Names of things. An id is an opaque value: what it can do is be compared, ordered, written and read back.

use alloc::string::String;
use core::fmt;
use core::str::FromStr;
use serde::{Deserialize, Serialize};

/// A text that is not what it should be, such as an id of the wrong length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a valid {0}")]
pub struct BadId(pub &'static str);

macro_rules! bytes_id {
    ($(#[$doc:meta])* $name:ident, $len:expr, $what:expr) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub struct $name(pub [u8; $len]);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let bytes = data_encoding::HEXLOWER.decode(text.as_bytes()).map_err(|_| BadId($what))?;
                bytes.try_into().map(Self).map_err(|_| BadId($what))
            }
        }
    };
}

bytes_id!(
    /// One installation's run of numbers: random, drawn when a store is created and again after a rollback. It names
    /// the *holder* in have-vectors.
    Epoch, 16, "epoch"
);
impl Epoch {
    /// Stands in the profile record of a store that was put together from an older one: the next start draws a new
    /// epoch, because nobody knows which numbers of the old one were used.
    pub const TO_BE_DRAWN: Self = Self([0; 16]);
}
bytes_id!(
    /// The caller's own name for a message: the same id sent again to the same contact is the same message.
    CallerId, 16, "message id"
);
bytes_id!(
    /// BLAKE3 over an entry's header, which holds the hash of its body.
    EntryHash, 32, "entry hash"
);
bytes_id!(
    /// The author's own keyed BLAKE3 over an entry, truncated to 16 bytes: only the author can make or check it.
    Tag, 16, "tag"
);
bytes_id!(
    /// BLAKE3 over the two peers of a conversation, in order.
    ConversationId, 32, "conversation id"
);
bytes_id!(
    /// The name under which an invitation is stored: a hash of its secret.
    InviteId, 16, "invitation id"
);
bytes_id!(
    /// First 8 bytes of a session's handshake hash.
    SessionId, 8, "session id"
);

bytes_id!(
    /// Names a queue at a relay: who knows it may send there. Only the two peers that it is for can compute it.
    QueueId, 16, "queue id"
);

impl EntryHash {
    /// What the first entry of an epoch names as the one before it.
    pub const NONE: Self = Self([0; 32]);
}

/// A peer: a canonical Ed25519 public key that is not of small order. Its text form is bech32m with prefix `peer`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "[u8; 32]", into = "[u8; 32]")]
pub struct PeerId([u8; 32]);

const PEER_HRP: bech32::Hrp = bech32::Hrp::parse_unchecked("peer");

impl PeerId {
    /// # Errors
    /// `BadId` if the bytes are not the canonical encoding of a point, or one of small order.
    pub fn new(bytes: [u8; 32]) -> Result<Self, BadId> {
        ed25519_compact::PublicKey::new(bytes).validate().map_err(|_| BadId("peer id"))?;
        Ok(Self(bytes))
    }

    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl TryFrom<[u8; 32]> for PeerId {
    type Error = BadId;
    fn try_from(bytes: [u8; 32]) -> Result<Self, BadId> {
        Self::new(bytes)
    }
}

impl From<PeerId> for [u8; 32] {
    fn from(peer: PeerId) -> Self {
        peer.0
    }
}

impl fmt::Display for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bech32::encode_to_fmt::<bech32::Bech32m, _>(f, PEER_HRP, &self.0).map_err(|_| fmt::Error)
    }
}

impl fmt::Debug for PeerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PeerId {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let checked = bech32::primitives::decode::CheckedHrpstring::new::<bech32::Bech32m>(text)
            .map_err(|_| BadId("peer id"))?;
        if checked.hrp() != PEER_HRP {
            return Err(BadId("peer id"));
        }
        let bytes: alloc::vec::Vec<u8> = checked.byte_iter().collect();
        Self::new(bytes.try_into().map_err(|_| BadId("peer id"))?)
    }
}

macro_rules! number_id {
    ($(#[$doc:meta])* $name:ident, $int:ty) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                text.parse().map(Self).map_err(|_| BadId("number"))
            }
        }
    };
}

number_id!(
    /// One carrier stream, never used twice. The core numbers those it dials (even), the driver those it accepts (odd).
    StreamId, u64
);
number_id!(
    /// A batch of writes. Batches are numbered from 1 without holes and confirmed in order.
    BatchId, u64
);
number_id!(
    /// A question to storage.
    LoadId, u64
);
number_id!(
    /// This profile's short name for a conversation; it never leaves the device.
    ConversationNo, u32
);
number_id!(
    /// This profile's short name for a feed; it never leaves the device.
    FeedNo, u32
);

/// A message's place in its author's feed: what both sides call it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct MessageRef {
    pub epoch: Epoch,
    /// From 1, without holes.
    pub seq: u64,
}

impl fmt::Display for MessageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.epoch, self.seq)
    }
}

impl fmt::Debug for MessageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for MessageRef {
    type Err = BadId;
    fn from_str(text: &str) -> Result<Self, BadId> {
        let (epoch, seq) = text.split_once(':').ok_or(BadId("message reference"))?;
        Ok(Self { epoch: epoch.parse()?, seq: seq.parse().map_err(|_| BadId("message reference"))? })
    }
}

/// A short name that a person chose: a nickname or a petname. At most [`crate::limits::NAME_BYTES`] bytes of UTF-8,
/// not empty, no control, format or bidirectional-override characters, no white space at either end.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Name(heapless::String<{ crate::limits::NAME_BYTES }>);

impl Name {
    /// # Errors
    /// `BadId` if the text breaks one of the rules above.
    pub fn new(text: &str) -> Result<Self, BadId> {
        if text.is_empty() || text.trim() != text || text.chars().any(is_invisible) {
            return Err(BadId("name"));
        }
        heapless::String::try_from(text).map(Self).map_err(|_| BadId("name (too long)"))
    }

    /// The nearest valid name to what a peer calls itself: invisible characters dropped, cut to fit.
    #[must_use]
    pub fn lossy(text: &str) -> Option<Self> {
        let mut kept = String::new();
        for c in text.trim().chars().filter(|c| !is_invisible(*c)) {
            if kept.len() + c.len_utf8() > crate::limits::NAME_BYTES {
                break;
            }
            kept.push(c);
        }
        Self::new(kept.trim()).ok()
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = heapless::String::<{ crate::limits::NAME_BYTES }>::deserialize(deserializer)?;
        Self::new(&text).map_err(serde::de::Error::custom)
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Characters that change how a terminal or a reader sees the text around them without being seen themselves:
/// controls, zero-width and bidirectional formatting (Unicode UAX #9), line separators, tags, fillers.
#[must_use]
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{00AD}' | '\u{034F}' | '\u{061C}' | '\u{115F}'..='\u{1160}' | '\u{17B4}'..='\u{17B5}'
            | '\u{180B}'..='\u{180F}' | '\u{200B}'..='\u{200F}' | '\u{2028}'..='\u{202E}'
            | '\u{2060}'..='\u{206F}' | '\u{3164}' | '\u{FE00}'..='\u{FE0F}' | '\u{FEFF}' | '\u{FFA0}'
            | '\u{FFF0}'..='\u{FFFB}' | '\u{E0000}'..='\u{E0FFF}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn a_peer_id_reads_back_and_refuses_small_order_and_typos() {
        let key = ed25519_compact::KeyPair::from_seed(ed25519_compact::Seed::new([7; 32]));
        let peer = PeerId::new(*key.pk).unwrap();
        let text = peer.to_string();
        assert_eq!(text.parse(), Ok(peer));
        assert!(text.starts_with("peer1"));
        let mut typo = text.clone().into_bytes();
        typo[20] = if typo[20] == b'q' { b'p' } else { b'q' };
        assert!(String::from_utf8(typo).unwrap().parse::<PeerId>().is_err());
        let mut identity = [0; 32];
        identity[0] = 1;
        assert!(PeerId::new(identity).is_err());
        assert!(PeerId::new([0; 32]).is_err());
    }

    #[test]
    fn names_hold_no_invisible_characters() {
        assert!(Name::new("Alice").is_ok());
        assert!(Name::new("Ali\u{202e}ce").is_err());
        assert!(Name::new(" Alice").is_err());
        assert!(Name::new("").is_err());
        assert_eq!(Name::lossy("\u{202e}Bob\u{1b}[2J").unwrap().as_str(), "Bob[2J");
        assert_eq!(Name::lossy("\u{200b}"), None);
    }
}
