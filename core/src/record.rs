//! What is on disk: keys in an ordered map of bytes, and values that begin with a format version and a sealing id
//! (0 = not sealed). A format of its own, apart from the wire: golden vectors freeze both.
//!
//! | table | key after the table byte | value | written by |
//! |---|---|---|---|
//! | `Profile` | – | [`Profile`] | start, settings |
//! | `Counters` | – | [`Counters`] | every batch that stores received entries |
//! | `Contact` | PeerId | [`Contact`] | contacts |
//! | `Invite` | hash of the secret | [`Invite`] | contacts |
//! | `Conversation` | number | [`Conversation`] | every batch that stores entries |
//! | `Feed` | number | [`Feed`] | every batch that moves a head or a cursor |
//! | `Lived` | – | [`Lived`] | start, and now and then a batch that is written anyway |
//! | `Entry` | feed, seq | [`Entry`] | once an entry |
//! | `Order` | conversation, lamport, author rank, epoch, seq | [`Place`] | once an entry |
//! | `Arrival` | arrival number | [`Place`] | once a received entry |
//! | `Caller` | conversation, caller's id | [`Place`] | once an own entry |
//! | `Shown` | conversation, hash of what was replaced | [`Shown`] | once an entry that replaces another |
//! | `Expiry` | when, feed, seq | [`Place`] | once an own entry that expires; gone when it did, or was delivered |
//!
//! Integers in keys are big-endian, so that byte order is their order. Tables up to `Lived` restore a node; the rest
//! is history, read by page.

use crate::bounded::List;
use crate::ids::{CallerId, ConversationNo, EntryHash, Epoch, FeedNo, InviteId, Name, PeerId, Tag};
use crate::limits::{ADDRESSES, ENTRY_HEADS, HOLES, KEY_BYTES, RANGES, RELAYS, SHORT_BYTES};
use crate::time::{Age, WallClock};
use crate::wire::peer_record::Relay;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::SocketAddr;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Version of every stored record and of the whole store.
/// 2: an entry names the place of what it replaces beside its hash, and says why its body is gone; a feed says how far
/// it was issued again, a conversation how far it is being deleted.
/// 3: an own entry says when it expires, a profile how long it tries a message; it counts how long it has lived. The hash
/// of an entry has a key that stands for its feed, the tag is one over that hash. A contact has relays. A conversation
/// that is being deleted says what of it by arrival numbers too.
/// 4: a feed says which of its numbers are held only as gone.
pub const FORMAT: u8 = 4;
/// Sealing id of a record that is not encrypted.
pub const NOT_SEALED: u8 = 0;

/// A record that is not what was written: it fails to decode, or its version or sealing is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CorruptRecord {
    #[error("a stored record has no valid key")]
    Key,
    #[error("a stored record in table {0} does not decode")]
    Value(u8),
    #[error("a stored record in table {table} has format {found}, this program knows {FORMAT}")]
    Newer { table: u8, found: u8 },
    #[error("a stored record in table {0} is sealed, this program cannot open it")]
    Sealed(u8),
    #[error("a stored record names {0}, which is not there")]
    Dangling(&'static str),
}

/// The bytes of a key.
pub type KeyBytes = heapless::Vec<u8, KEY_BYTES>;

/// The tables, by the first byte of their keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    Profile = 1,
    Counters = 2,
    Contact = 3,
    Invite = 4,
    Conversation = 5,
    Feed = 6,
    Lived = 7,
    Entry = 0x10,
    Order = 0x11,
    Arrival = 0x12,
    Caller = 0x13,
    Shown = 0x14,
    Expiry = 0x15,
}

/// Keys from the first to this one (exclusive) are what [`crate::Restore`] wants to see, in order.
pub const RESTORE_END: u8 = Table::Entry as u8;

/// The place of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    Profile,
    Counters,
    Contact(PeerId),
    Invite(InviteId),
    Conversation(ConversationNo),
    Feed(FeedNo),
    Lived,
    Entry {
        feed: FeedNo,
        seq: u64,
    },
    Order(OrderKey),
    Arrival(u64),
    Caller {
        conversation: ConversationNo,
        caller: CallerId,
    },
    Shown {
        conversation: ConversationNo,
        hash: EntryHash,
    },
    /// That an own entry expires at `at`.
    Expiry {
        at: Age,
        feed: FeedNo,
        seq: u64,
    },
}

/// Where an entry stands in its conversation: an order that both sides compute alike from what is authenticated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct OrderKey {
    pub conversation: ConversationNo,
    pub lamport: u64,
    /// 0 for the author with the lower PeerId, 1 for the other.
    pub rank: u8,
    pub epoch: Epoch,
    pub seq: u64,
}

impl OrderKey {
    /// Before everything in the conversation.
    #[must_use]
    pub const fn first(conversation: ConversationNo) -> Self {
        Self { conversation, lamport: 0, rank: 0, epoch: Epoch([0; 16]), seq: 0 }
    }

    /// After everything in the conversation.
    #[must_use]
    pub const fn last(conversation: ConversationNo) -> Self {
        Self { conversation, lamport: u64::MAX, rank: u8::MAX, epoch: Epoch([0xff; 16]), seq: u64::MAX }
    }
}

impl Key {
    #[must_use]
    pub const fn table(&self) -> Table {
        match self {
            Self::Profile => Table::Profile,
            Self::Counters => Table::Counters,
            Self::Contact(_) => Table::Contact,
            Self::Invite(_) => Table::Invite,
            Self::Conversation(_) => Table::Conversation,
            Self::Feed(_) => Table::Feed,
            Self::Lived => Table::Lived,
            Self::Entry { .. } => Table::Entry,
            Self::Order(_) => Table::Order,
            Self::Arrival(_) => Table::Arrival,
            Self::Caller { .. } => Table::Caller,
            Self::Shown { .. } => Table::Shown,
            Self::Expiry { .. } => Table::Expiry,
        }
    }

    #[must_use]
    pub fn encode(&self) -> KeyBytes {
        let mut out = KeyBytes::new();
        let mut put = |bytes: &[u8]| {
            // The longest key is `Order` with 38 bytes, which a test holds against `KEY_BYTES`.
            let fits = out.extend_from_slice(bytes);
            debug_assert!(fits.is_ok());
        };
        put(&[self.table() as u8]);
        match self {
            Self::Profile | Self::Counters | Self::Lived => {}
            Self::Contact(peer) => put(peer.as_bytes()),
            Self::Invite(id) => put(&id.0),
            Self::Conversation(no) => put(&no.0.to_be_bytes()),
            Self::Feed(no) => put(&no.0.to_be_bytes()),
            Self::Entry { feed, seq } => {
                put(&feed.0.to_be_bytes());
                put(&seq.to_be_bytes());
            }
            Self::Order(order) => {
                put(&order.conversation.0.to_be_bytes());
                put(&order.lamport.to_be_bytes());
                put(&[order.rank]);
                put(&order.epoch.0);
                put(&order.seq.to_be_bytes());
            }
            Self::Arrival(number) => put(&number.to_be_bytes()),
            Self::Caller { conversation, caller } => {
                put(&conversation.0.to_be_bytes());
                put(&caller.0);
            }
            Self::Shown { conversation, hash } => {
                put(&conversation.0.to_be_bytes());
                put(&hash.0);
            }
            Self::Expiry { at, feed, seq } => {
                put(&at.0.to_be_bytes());
                put(&feed.0.to_be_bytes());
                put(&seq.to_be_bytes());
            }
        }
        out
    }

    /// # Errors
    /// `CorruptRecord::Key` if the bytes are not what `encode` makes.
    pub fn decode(bytes: &[u8]) -> Result<Self, CorruptRecord> {
        fn all<const N: usize>(bytes: &[u8]) -> Result<[u8; N], CorruptRecord> {
            bytes.try_into().map_err(|_| CorruptRecord::Key)
        }
        fn part<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], CorruptRecord> {
            let (head, rest) = bytes.split_first_chunk::<N>().ok_or(CorruptRecord::Key)?;
            *bytes = rest;
            Ok(*head)
        }
        let (table, mut rest) = bytes.split_first().ok_or(CorruptRecord::Key)?;
        let key = match *table {
            1 => Self::Profile,
            2 => Self::Counters,
            3 => Self::Contact(PeerId::new(part(&mut rest)?).map_err(|_| CorruptRecord::Key)?),
            4 => Self::Invite(InviteId(part(&mut rest)?)),
            5 => Self::Conversation(ConversationNo(u32::from_be_bytes(part(&mut rest)?))),
            6 => Self::Feed(FeedNo(u32::from_be_bytes(part(&mut rest)?))),
            7 => Self::Lived,
            0x10 => Self::Entry {
                feed: FeedNo(u32::from_be_bytes(part(&mut rest)?)),
                seq: u64::from_be_bytes(part(&mut rest)?),
            },
            0x11 => Self::Order(OrderKey {
                conversation: ConversationNo(u32::from_be_bytes(part(&mut rest)?)),
                lamport: u64::from_be_bytes(part(&mut rest)?),
                rank: u8::from_be_bytes(part(&mut rest)?),
                epoch: Epoch(part(&mut rest)?),
                seq: u64::from_be_bytes(part(&mut rest)?),
            }),
            0x12 => Self::Arrival(u64::from_be_bytes(part(&mut rest)?)),
            0x13 => Self::Caller {
                conversation: ConversationNo(u32::from_be_bytes(part(&mut rest)?)),
                caller: CallerId(part(&mut rest)?),
            },
            0x14 => Self::Shown {
                conversation: ConversationNo(u32::from_be_bytes(part(&mut rest)?)),
                hash: EntryHash(part(&mut rest)?),
            },
            0x15 => Self::Expiry {
                at: Age(u64::from_be_bytes(part(&mut rest)?)),
                feed: FeedNo(u32::from_be_bytes(part(&mut rest)?)),
                seq: u64::from_be_bytes(part(&mut rest)?),
            },
            _ => return Err(CorruptRecord::Key),
        };
        all::<0>(rest)?;
        Ok(key)
    }
}

/// A value that a table holds.
pub trait Record: Serialize + DeserializeOwned {
    const TABLE: Table;

    #[must_use]
    fn encode(&self) -> Bytes {
        encode_any(self)
    }

    /// # Errors
    /// `CorruptRecord` if the version or sealing is unknown, or the rest is not exactly what `encode` makes.
    fn decode(bytes: &[u8]) -> Result<Self, CorruptRecord> {
        let table = Self::TABLE as u8;
        let (&[format, sealing], body) = bytes.split_first_chunk::<2>().ok_or(CorruptRecord::Value(table))?;
        if format != FORMAT {
            return Err(CorruptRecord::Newer { table, found: format });
        }
        if sealing != NOT_SEALED {
            return Err(CorruptRecord::Sealed(table));
        }
        match postcard::take_from_bytes::<Self>(body) {
            // Postcard reads a number that has more bytes than it needs, and nothing else that it would not write.
            Ok((record, [])) if written_length(&record) == Some(body.len()) => Ok(record),
            _ => Err(CorruptRecord::Value(table)),
        }
    }
}

fn encode_any<T: Serialize>(record: &T) -> Bytes {
    // Nearly all are short: one allocation, of what they need.
    let mut short = [0; SHORT_BYTES];
    if let Some((head, rest)) = short.split_first_chunk_mut::<2>()
        && let Ok(body) = postcard::to_slice(record, rest)
    {
        let length = head.len() + body.len();
        *head = [FORMAT, NOT_SEALED];
        return Bytes::copy_from_slice(short.get(..length).unwrap_or_default());
    }
    let start = alloc::vec![FORMAT, NOT_SEALED];
    // Serialising into a growing vector cannot fail: our records hold no maps, no unsized sequences.
    Bytes::from(postcard::to_extend(record, start).unwrap_or_default())
}

fn written_length<T: Serialize>(record: &T) -> Option<usize> {
    postcard::serialize_with_flavor(record, postcard::ser_flavors::Size::default()).ok()
}

macro_rules! record {
    ($name:ident) => {
        impl Record for $name {
            const TABLE: Table = Table::$name;
        }
    };
}
record!(Profile);
record!(Counters);
record!(Contact);
record!(Invite);
record!(Conversation);
record!(Feed);
record!(Lived);
record!(Shown);

impl Record for Entry {
    const TABLE: Table = Table::Entry;

    /// Entries are most of what is written, and nearly all are plain: those are put together by hand, which takes a third
    /// of the time and gives the same bytes.
    fn encode(&self) -> Bytes {
        plain(self).unwrap_or_else(|| encode_any(self))
    }
}

/// An entry that names no other epoch, stands for nothing else and has its body.
fn plain(entry: &Entry) -> Option<Bytes> {
    let Entry { kind, prev, hash, tag, lamport, claimed, caller, heads, link, replaces, .. } = entry;
    let Entry { arrival, recovered, dropped, expires, body_hash, body_len, body, .. } = entry;
    if link.is_some() || replaces.is_some() || dropped.is_some() {
        return None;
    }
    // Exactly what it needs: then it is not copied again.
    let numbers = [*lamport, claimed.0, *arrival, u64::from(*body_len), body.len() as u64];
    let heads_bytes: usize = heads.iter().map(|head| 48 + number_bytes(head.seq)).sum();
    let expires_bytes = expires.map_or(0, |at| number_bytes(at.0));
    let length = 8 + 4 * 32 + number_bytes(heads.len() as u64) + heads_bytes + expires_bytes + body.len();
    let mut out = Vec::with_capacity(length + numbers.into_iter().map(number_bytes).sum::<usize>());
    out.extend_from_slice(&[FORMAT, NOT_SEALED, *kind as u8]);
    out.extend_from_slice(&prev.0);
    out.extend_from_slice(&hash.0);
    out.extend_from_slice(&tag.0);
    put_number(&mut out, *lamport);
    put_number(&mut out, claimed.0);
    out.extend_from_slice(&caller.0);
    put_heads(&mut out, heads);
    out.extend_from_slice(&[0, 0]);
    put_number(&mut out, *arrival);
    out.extend_from_slice(&[u8::from(*recovered), 0, u8::from(expires.is_some())]);
    if let Some(at) = expires {
        put_number(&mut out, at.0);
    }
    out.extend_from_slice(&body_hash.0);
    put_number(&mut out, u64::from(*body_len));
    put_number(&mut out, body.len() as u64);
    out.extend_from_slice(body);
    debug_assert_eq!(out.len(), out.capacity());
    Some(Bytes::from(out))
}

/// Bytes of a number as postcard writes it.
const fn number_bytes(number: u64) -> usize {
    (70 - (number | 1).leading_zeros() as usize) / 7
}

/// A number as postcard writes it: seven bits in each byte, the lowest first.
pub(crate) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Heads as postcard writes them.
pub(crate) fn put_heads(out: &mut Vec<u8>, heads: &[Head]) {
    put_number(out, heads.len() as u64);
    for head in heads {
        out.extend_from_slice(&head.epoch.0);
        put_number(out, head.seq);
        out.extend_from_slice(&head.hash.0);
    }
}

/// The installation itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    pub epoch: Epoch,
    /// How often this installation was started: it orders handshakes across restarts.
    pub start: u64,
    pub nickname: Option<Name>,
    /// Addresses that the machine cannot know by itself.
    pub advertised: List<SocketAddr, ADDRESSES>,
    /// `seq` and addresses of the newest own peer record.
    pub record_seq: u64,
    pub record_addresses: List<SocketAddr, ADDRESSES>,
    /// For how many milliseconds of the profile's age a message is tried that does not say so itself; `None`: without end.
    pub expire_ms: Option<u64>,
}

/// How long the profile has lived, by its own count, when this was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lived {
    pub age: Age,
    /// How many milliseconds of the age are there on the word of a wall clock alone, and may be taken back.
    pub believed_ms: u64,
    /// What the wall clock said.
    pub wall: WallClock,
}

/// What rises with every batch that stores something received.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Counters {
    /// The newest arrival number; the first is 1.
    pub arrival: u64,
    /// Version of our have-vectors.
    pub version: u64,
}

/// How far a contact has come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ContactState {
    /// We hold this ticket secret and the inviter has not answered yet.
    Pending {
        secret: [u8; 16],
    },
    Established,
    /// The inviter turned our ticket down.
    Refused {
        secret: [u8; 16],
        why: u8,
    },
    /// Removed by the user: no session, no name, but heads and cursors are kept.
    Removed,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Contact {
    pub state: ContactState,
    pub petname: Name,
    /// What the peer calls itself; shown with care, decides nothing.
    pub nickname: Option<Name>,
    pub blocked: bool,
    /// The user compared the safety number.
    pub verified: bool,
    pub conversation: ConversationNo,
    /// Addresses from the ticket.
    pub ticket_addresses: List<SocketAddr, ADDRESSES>,
    /// Those addresses of the newest peer record that we may dial.
    pub record_addresses: List<SocketAddr, ADDRESSES>,
    /// Its home relays: from the ticket, then from the newest peer record that names any.
    pub relays: List<Relay, RELAYS>,
    pub record_seq: u64,
    /// The peer record exactly as it was signed; empty if none came yet.
    pub record: Bytes,
    pub added: WallClock,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invite {
    pub expires: WallClock,
    /// Who became a contact by it; the same peer presenting it again succeeds.
    pub spent_by: Option<PeerId>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Conversation {
    pub peer: PeerId,
    /// Messages received, ever, and how many of them (in order of arrival) the user has seen.
    pub received: u64,
    pub read: u64,
    /// The user deleted all that was in it, and that work is not finished.
    pub erase: Option<Erase>,
}

/// What was in a conversation when the user deleted it: own entries up to a logical time, received ones up to an arrival
/// number. What comes later stays, whatever its logical time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erase {
    pub lamport: u64,
    pub arrival: u64,
}

impl Erase {
    #[must_use]
    pub const fn covers(&self, mine: bool, entry: &Entry) -> bool {
        if mine { entry.lamport <= self.lamport } else { entry.arrival <= self.arrival }
    }
}

/// Entries `first..=last`, all held. `prev` is what `first` names as the hash before it, `hash` is that of `last`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    pub first: u64,
    pub last: u64,
    pub prev: EntryHash,
    pub hash: EntryHash,
}

/// Numbers `first..=last` of a feed that are held only as gone: their author, or a copy of its profile, said that they will
/// never come. `prev` and `hash` as in [`Range`]: what comes all the same must fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hole {
    pub first: u64,
    pub last: u64,
    pub prev: EntryHash,
    pub hash: EntryHash,
    /// Logical time and arrival number of the marker that stands for them; no time: the user deleted the marker.
    pub lamport: u64,
    pub arrival: u64,
}

/// The epoch before, its last known number and that entry's hash: named by the first entry of an epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EpochLink {
    pub epoch: Epoch,
    pub last: u64,
    pub hash: EntryHash,
}

/// One author's run of numbers in one conversation: heads and cursors, never entries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Feed {
    pub conversation: ConversationNo,
    /// Whether this profile's identity wrote it.
    pub mine: bool,
    pub epoch: Epoch,
    /// Everything up to here is held, and the hash of that entry.
    pub head: u64,
    pub hash: EntryHash,
    /// Held beyond the first gap (only of others' feeds, and of what a rollback lost).
    pub beyond: List<Range, RANGES>,
    /// What of that is held only as gone. Nobody may take it for delivered.
    pub holes: List<Hole, HOLES>,
    /// Highest logical time in the feed.
    pub lamport: u64,
    /// The heads that my newest entry named, so that the next names only what moved.
    pub heads_named: List<Head, ENTRY_HEADS>,
    /// Proven by the peer's have-vectors: everything up to here, then ranges beyond.
    pub acked: u64,
    pub acked_hash: EntryHash,
    pub acked_beyond: List<Range, RANGES>,
    pub link: Option<EpochLink>,
    /// Known whole, and it will not grow: out of the have-vector.
    pub closed: bool,
    /// Own, and the peer proved another history: entries from this number on are being issued again in a newer epoch.
    /// They end at `head`, which then falls back to `acked`.
    pub fork: Option<u64>,
}

/// The head of a feed that an entry's author had seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub epoch: Epoch,
    pub seq: u64,
    pub hash: EntryHash,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Kind {
    /// A message of UTF-8 text.
    Text,
    /// What stands for entries that are gone at their author. Never on the wire as an entry.
    Tombstone,
    /// The author takes back what it replaces, if that was not delivered.
    Cancel,
    /// The author has read up to the heads it names.
    Read,
}

/// Why the body of an entry is gone. Its header stays, so that the chain holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Dropped {
    /// The user took it back. `settled`: the peer said that it did not have it before it was told so, and never will.
    /// Otherwise an acknowledgement proves that it came, whatever the user decided.
    Cancelled { settled: bool },
    /// The time that the user had set for it was over. `settled` as above.
    Expired { settled: bool },
    /// The user deleted it, on this device alone.
    Deleted,
    /// It came without its body: its author had taken it back.
    ByAuthor,
    /// Entries from `first` up to this one are gone at their author, header and all.
    Gone { first: u64 },
}

impl Dropped {
    /// Whether the user took back what may be on its way.
    #[must_use]
    pub const fn is_withdrawn(self) -> bool {
        matches!(self, Self::Cancelled { .. } | Self::Expired { .. })
    }
}

/// A stored entry: its header, proofs, and what this device knows about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub kind: Kind,
    pub prev: EntryHash,
    pub hash: EntryHash,
    pub tag: Tag,
    pub lamport: u64,
    /// What the author's clock said.
    pub claimed: WallClock,
    pub caller: CallerId,
    pub heads: List<Head, ENTRY_HEADS>,
    pub link: Option<EpochLink>,
    /// The entry of an epoch that a rollback ended, which is issued again by this one; if that was issued again before,
    /// the first of them.
    pub replaces: Option<Head>,
    /// Local arrival number; 0 for own entries.
    pub arrival: u64,
    /// Given back by the peer after a loss: raises no new-message event.
    pub recovered: bool,
    /// Why there is no body, if it is gone.
    pub dropped: Option<Dropped>,
    /// Own, and not to be tried any more from this age of the profile on.
    pub expires: Option<Age>,
    /// Hash and length of the body.
    pub body_hash: EntryHash,
    pub body_len: u32,
    pub body: Bytes,
}

/// Which of the entries that stand for the same message is the one that is shown: the one that comes last in the order of
/// the conversation, which both sides compute alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Shown {
    pub feed: FeedNo,
    pub epoch: Epoch,
    pub seq: u64,
    pub lamport: u64,
    /// Its local arrival number; 0 for own entries.
    pub arrival: u64,
}

/// Where an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub feed: FeedNo,
    pub seq: u64,
}

/// An index value: so small and so many that it is written by hand. `FORMAT, NOT_SEALED, feed (4), seq (8)`.
impl Place {
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = [FORMAT, NOT_SEALED, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        let (_, rest) = out.split_at_mut(2);
        if let Some((feed, seq)) = rest.split_first_chunk_mut::<4>() {
            *feed = self.feed.0.to_be_bytes();
            seq.copy_from_slice(&self.seq.to_be_bytes());
        }
        Bytes::copy_from_slice(&out)
    }

    /// # Errors
    /// `CorruptRecord` if the bytes are not what `encode` makes.
    pub fn decode(table: Table, bytes: &[u8]) -> Result<Self, CorruptRecord> {
        let table = table as u8;
        let (&[format, sealing], rest) = bytes.split_first_chunk::<2>().ok_or(CorruptRecord::Value(table))?;
        if format != FORMAT {
            return Err(CorruptRecord::Newer { table, found: format });
        }
        if sealing != NOT_SEALED {
            return Err(CorruptRecord::Sealed(table));
        }
        let (feed, seq) = rest.split_first_chunk::<4>().ok_or(CorruptRecord::Value(table))?;
        let seq = seq.try_into().map_err(|_| CorruptRecord::Value(table))?;
        Ok(Self { feed: FeedNo(u32::from_be_bytes(*feed)), seq: u64::from_be_bytes(seq) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_together_by_hand_is_what_postcard_writes() {
        let bytes = |n: u8, len: usize| Bytes::from(alloc::vec![n; len]);
        let numbers = [0, 1, 0x7f, 0x80, 0x3fff, 0x4000, u64::from(u32::MAX), u64::MAX];
        for (at, number) in numbers.into_iter().enumerate() {
            let n = u8::try_from(at).unwrap();
            let head = Head { epoch: Epoch([n; 16]), seq: number, hash: EntryHash([n + 1; 32]) };
            let entry = Entry {
                kind: [Kind::Text, Kind::Tombstone, Kind::Cancel, Kind::Read][at % 4],
                prev: EntryHash([n + 2; 32]),
                hash: EntryHash([n + 3; 32]),
                tag: Tag([n + 4; 16]),
                lamport: number,
                claimed: WallClock(number),
                caller: CallerId([n + 5; 16]),
                heads: List::of(core::iter::repeat_n(head, at % (ENTRY_HEADS + 1))),
                link: None,
                replaces: None,
                arrival: number,
                recovered: at % 2 == 1,
                dropped: None,
                expires: (at % 3 == 1).then_some(Age(number)),
                body_hash: EntryHash([n + 6; 32]),
                body_len: number as u32,
                body: bytes(n, at * 100),
            };
            assert_eq!(plain(&entry).unwrap(), encode_any(&entry), "{number}");
            assert_eq!(Entry::decode(&entry.encode()), Ok(entry.clone()));
            let marker = Entry { dropped: Some(Dropped::Deleted), ..entry.clone() };
            assert_eq!(Entry::decode(&marker.encode()), Ok(marker));
            let linked =
                Entry { link: Some(EpochLink { epoch: head.epoch, last: 1, hash: head.hash }), ..entry };
            assert_eq!(Entry::decode(&linked.encode()), Ok(linked));
        }
    }
}
