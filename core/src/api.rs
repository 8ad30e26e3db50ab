//! The closed vocabulary between a node and its driver: facts in, requests in, effects out.

use crate::bounded::List;
use crate::ids::{BatchId, CallerId, Epoch, LoadId, MessageRef, Name, PeerId, StreamId};
use crate::limits::{ADDRESSES, GATEWAYS, RELAYS, STUN_SERVERS};
use crate::record::{Key, KeyBytes, Kind};
use crate::ticket::{Ticket, TicketSecret};
use crate::time::{Duration, Instant, WallClock};
pub use crate::wire::pcp::Transport;
use crate::wire::peer_record::Relay;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::SocketAddr;

/// A fact: it happened, it cannot be refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input<'a> {
    /// Time has passed; send one when the deadline is due.
    Tick,
    /// A listener accepted `stream` (an odd id that was never used before).
    StreamAccepted { stream: StreamId, remote: SocketAddr },
    /// A dial succeeded.
    StreamConnected { stream: StreamId, local: SocketAddr },
    /// A dial failed or timed out; the stream id is spent.
    DialFailed { stream: StreamId, why: DialFailure },
    /// Bytes were read, never more than `Node::read_budget` allowed.
    StreamData { stream: StreamId, bytes: &'a [u8] },
    /// The outstanding write of this stream was taken whole by the carrier.
    StreamWritten { stream: StreamId },
    /// The stream is over, whoever ended it. The last word about it.
    StreamClosed { stream: StreamId, why: StreamEnd },
    /// A datagram came, whole. Whoever sent it may have lied about `remote`.
    Datagram { remote: SocketAddr, bytes: &'a [u8] },
    /// Every batch up to and including this one is on stable storage.
    Persisted { batch: BatchId },
    /// A commit failed. What of this and later batches is on disk is unknown until the next start.
    PersistFailed { batch: BatchId },
    /// The answer to a `Load`.
    Loaded { load: LoadId, answer: Answer },
    /// What the wall clock says now. At start, and whenever it was set.
    WallClock(WallClock),
    /// Where this node can be reached, as far as the machine knows.
    LocalAddresses(List<SocketAddr, ADDRESSES>),
    /// The gateways in front of this machine that may open ports, as far as the machine knows.
    Gateways(List<Gateway, GATEWAYS>),
}

/// A router that may open ports for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gateway {
    /// Where it takes requests for that.
    pub router: SocketAddr,
    /// Where this node is, as that router sees it: a listener's port at the address of the interface that leads there.
    pub own: SocketAddr,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DialFailure {
    Refused,
    Unreachable,
    TimedOut,
    /// No descriptor, no memory, or something else on this side.
    Local,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamEnd {
    /// The peer ended its side in good order.
    Finished,
    /// Reset, broken or timed out.
    Broken,
    /// This side closed it, by `Output::Close`.
    Local,
}

/// The answer of storage to one `Load`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Page(Page),
    /// Something in the range cannot be read.
    Damaged,
}

/// Records in order of their keys. `complete` is false if `max_bytes` ended it early; at least one record is in a
/// page if the range holds one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    pub records: Vec<(KeyBytes, Bytes)>,
    pub complete: bool,
}

/// A request: it may be refused, and then it comes back whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Write a message. Answered by `Event::Queued` when it is durable. With `fresh`, the caller vouches that it drew
    /// `caller` at random just now; without, the id is looked up first, and an old one answers with its old message.
    /// `expire`: how long it is tried.
    Send {
        peer: PeerId,
        caller: CallerId,
        fresh: bool,
        expire: Expire,
        body: Bytes,
    },
    /// Store an invitation. Answered by `Event::InviteStored` when it is durable: then the ticket may be shown.
    Invite {
        secret: TicketSecret,
        expires: WallClock,
    },
    /// Become a contact of who made the ticket. Answered by `Event::ContactChanged` when it is durable; dials until
    /// the inviter answers.
    Add {
        ticket: Box<Ticket>,
        petname: Name,
    },
    Rename {
        peer: PeerId,
        petname: Name,
    },
    /// Take the contact off the list. Heads and cursors stay, so that adding it again goes on from there.
    Remove {
        peer: PeerId,
    },
    Block {
        peer: PeerId,
        blocked: bool,
    },
    Verify {
        peer: PeerId,
        verified: bool,
    },
    /// Take back an own message that was not delivered. Answered by `Event::Dropped` when that is durable, by
    /// `Event::DropFailed` if it was delivered in the meantime. If it was and nobody knew yet, the proof of that wins.
    Cancel {
        peer: PeerId,
        message: MessageRef,
    },
    /// Delete one message on this device. An own one that was not delivered is taken back.
    Delete {
        peer: PeerId,
        message: MessageRef,
    },
    /// Delete all messages of a conversation on this device; what was not delivered is taken back. Answered by
    /// `Event::ConversationDeleted`.
    DeleteConversation {
        peer: PeerId,
    },
    /// The user has seen the first `ordinal` messages received in this conversation.
    MarkRead {
        peer: PeerId,
        ordinal: u64,
    },
    SetNickname {
        nickname: Option<Name>,
    },
    /// How long messages are tried that do not say so themselves, from now on; `None`: without end. Answered by
    /// `Event::ProfileChanged`.
    SetExpire {
        after: Option<Duration>,
    },
    /// Addresses for the peer record that the machine cannot know.
    Advertise {
        addresses: List<SocketAddr, ADDRESSES>,
    },
    /// The home relays of this node, for this run: where others reach it if they cannot reach it directly.
    UseRelays {
        relays: List<Relay, RELAYS>,
    },
    /// Servers beside the relays that are asked from where this node's datagrams come (STUN, RFC 8489), for this run.
    UseStunServers {
        servers: List<SocketAddr, STUN_SERVERS>,
    },
    /// The user is looking: try to reach this contact now, whatever the backoff says.
    Reach {
        peer: PeerId,
    },
    /// Make everything durable, close every session in good order, then `Event::Stopped`.
    Shutdown,
}

/// How long a message is tried. It is over by the profile's own count of time, and only if nothing proved until then that
/// the message was delivered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expire {
    /// As the profile says.
    Default,
    Never,
    After(Duration),
}

/// A refused request, whole, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    pub command: Command,
    pub why: Refusal,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no such contact")]
    UnknownContact,
    #[error("the message is empty")]
    Empty,
    #[error("the message is longer than {} bytes", crate::limits::BODY_BYTES)]
    TooLong,
    #[error("the message is not UTF-8 text")]
    NotText,
    #[error("too many messages wait for this contact")]
    QueueFull,
    #[error("the disk is behind; try again")]
    Busy,
    #[error("there is no such message")]
    UnknownMessage,
    #[error("it was delivered and cannot be taken back")]
    Delivered,
    #[error("another contact has this name")]
    NameTaken,
    #[error("this ticket is your own")]
    OwnTicket,
    #[error("there are too many contacts")]
    TooManyContacts,
    #[error("there are too many open invitations")]
    TooManyInvites,
    #[error("the store failed; nothing more is promised until the next start")]
    StoreFailed,
    #[error("the node is stopping")]
    Stopping,
}

/// An effect that the driver carries out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// Connect; report `StreamConnected` or `DialFailed` within `timeout`.
    Dial { stream: StreamId, remote: SocketAddr, timeout: Duration },
    /// Hand these bytes to the carrier in order. The next write of this stream comes only after `StreamWritten`.
    Write { stream: StreamId, bytes: Bytes },
    /// End the stream: at once, or after what was handed over is sent. Report `StreamClosed`.
    Close { stream: StreamId, flush: bool },
    /// The read budget of this stream was 0 and is not any more.
    ReadReady { stream: StreamId },
    /// Send one datagram, once, from the one socket of that family. `ttl`: how far it may go (IP hop limit); `None`: as far
    /// as the system lets it. It may be lost, and nobody is told.
    Datagram { remote: SocketAddr, ttl: Option<u8>, bytes: Bytes },
    /// Make this batch durable as one, after all earlier ones.
    Persist(Batch),
    /// Read records. The answer must see every batch emitted before this, and none that was emitted later in part.
    Load { load: LoadId, range: KeyRange },
    /// Something the front end may want to know. Never the only place where it is written.
    Event(Event),
}

/// Writes that become durable together or not at all. `None` removes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Batch {
    pub id: BatchId,
    pub writes: Vec<(KeyBytes, Option<Bytes>)>,
}

/// Keys `first..=last`, as many records as fit `max_bytes` of keys and values, but at least one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRange {
    pub first: KeyBytes,
    pub last: KeyBytes,
    pub max_bytes: u32,
}

impl KeyRange {
    #[must_use]
    pub fn new(first: &Key, last: &Key, max_bytes: u32) -> Self {
        Self { first: first.encode(), last: last.encode(), max_bytes }
    }
}

/// What happened, for front ends. Everything that a person may see as proof left `poll` only after its batch was
/// durable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The first batch is durable; the node dials and answers from now on.
    Ready,
    /// Contract 1. `duplicate`: the caller's id was known, and this is the message it named.
    Queued {
        peer: PeerId,
        caller: CallerId,
        message: MessageRef,
        duplicate: bool,
        delivered: bool,
    },
    /// A `Send` that was accepted for lookup could not be answered.
    SendFailed {
        peer: PeerId,
        caller: CallerId,
        why: Refusal,
    },
    /// Contract 2, seen from the author: `first..=last` of this epoch are on the recipient's stable storage.
    Delivered {
        peer: PeerId,
        epoch: Epoch,
        first: u64,
        last: u64,
    },
    /// A message was stored. `arrival` is its number in this profile, `ordinal` in this conversation.
    Received {
        peer: PeerId,
        arrival: u64,
        ordinal: u64,
        message: MessageRef,
        kind: Kind,
        claimed: WallClock,
        body: Bytes,
    },
    /// Entries `first..=last` of the peer's feed are missing while later ones are here; they were asked for.
    Gap {
        peer: PeerId,
        epoch: Epoch,
        first: u64,
        last: u64,
    },
    /// A gap was filled.
    GapFilled {
        peer: PeerId,
        epoch: Epoch,
        first: u64,
        last: u64,
    },
    /// Entries `first..=last` are gone at the peer that wrote them: they will never come, and nothing waits for them.
    Gone {
        peer: PeerId,
        epoch: Epoch,
        first: u64,
        last: u64,
    },
    /// The peer has entries of this epoch of mine, beyond `common`, that this store does not: it was restored from an
    /// older state. What was written since goes out again in a newer epoch, what was lost comes back.
    RolledBack {
        peer: PeerId,
        epoch: Epoch,
        common: u64,
    },
    /// Own entries that this store had lost are back. They were written and delivered before.
    Recovered {
        peer: PeerId,
        epoch: Epoch,
        first: u64,
        last: u64,
    },
    /// A message has a new name, because the epoch that it was written in ended.
    Reissued {
        peer: PeerId,
        old: MessageRef,
        new: MessageRef,
    },
    /// Somebody writes as this identity in an epoch that is not this profile's: a second copy of it is in use.
    SecondCopy {
        peer: PeerId,
        epoch: Epoch,
    },
    /// The body of a message is gone from this device.
    Dropped {
        peer: PeerId,
        message: MessageRef,
        /// Taken back before it was delivered; otherwise deleted here alone.
        cancelled: bool,
    },
    /// The time that the user had set for an own message is over, and nothing proves that it was delivered: it is taken
    /// back. If it was delivered all the same, the proof of that wins.
    Expired {
        peer: PeerId,
        message: MessageRef,
    },
    /// A message that was to be taken away is as it was: it was delivered before it could be taken back, or cannot be
    /// read from the store.
    DropFailed {
        peer: PeerId,
        message: MessageRef,
        why: Refusal,
    },
    ConversationDeleted {
        peer: PeerId,
    },
    InviteStored {
        secret: TicketSecret,
    },
    /// A contact's record changed; read it from the store.
    ContactChanged {
        peer: PeerId,
        change: ContactChange,
    },
    ProfileChanged,
    /// A session stands.
    Connected {
        peer: PeerId,
        remote: SocketAddr,
        path: PathKind,
        initiator: bool,
    },
    /// A relay serves this node, or does not any more.
    RelayChanged {
        relay: PeerId,
        remote: SocketAddr,
        path: PathKind,
        up: bool,
    },
    /// A router opened a port for this node, or it is not open any more.
    PortMapped {
        router: SocketAddr,
        transport: Transport,
        external: SocketAddr,
        up: bool,
    },
    /// From where others see this node's datagrams come, the newest last, and what the boxes between do.
    Observed {
        addresses: List<SocketAddr, RELAYS>,
        mapping: NatMapping,
        filtering: NatFiltering,
    },
    /// The packets of a session go another way now.
    PathChanged {
        peer: PeerId,
        remote: SocketAddr,
        path: PathKind,
    },
    /// A peer or a relay answered: so long it took, there and back.
    RoundTrip {
        peer: PeerId,
        round_trip: Duration,
    },
    Disconnected {
        peer: PeerId,
        why: SessionEnd,
    },
    /// One try to reach a contact, and what came of it.
    Attempt {
        peer: PeerId,
        remote: SocketAddr,
        path: PathKind,
        outcome: AttemptOutcome,
    },
    /// The next try to reach a contact is due then.
    NextAttempt {
        peer: PeerId,
        at: Instant,
    },
    /// A stream was turned away.
    Rejected {
        remote: SocketAddr,
        peer: Option<PeerId>,
        why: Rejection,
    },
    /// A contact sent what a correct peer does not send.
    Misbehaved {
        peer: PeerId,
        what: String,
    },
    /// The store failed; the program should end and say so.
    StoreFailed,
    /// Everything is closed; the program may end.
    Stopped,
}

/// From which addresses a node is seen, behind the boxes that are between (RFC 4787, section 4.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatMapping {
    /// Nobody answered.
    Unknown,
    /// From its own.
    None,
    /// From another; only one answered.
    Translated,
    /// From the same one, whoever looks: a peer can be told where to send.
    EndpointIndependent,
    /// From another for everybody: nobody can be told.
    EndpointDependent,
}

/// What these boxes let in (RFC 4787, section 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NatFiltering {
    /// No server could tell.
    Unknown,
    EndpointIndependent,
    /// Whatever comes from an address that was spoken to.
    AddressDependent,
    /// Whatever comes from an address and port that were spoken to.
    AddressAndPortDependent,
}

/// What moves the packets of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PathKind {
    /// A TCP stream.
    Stream,
    /// UDP datagrams, straight to the peer.
    Datagram,
    /// Packets that a relay passes on.
    Relayed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ContactChange {
    /// Added by the user from a ticket; not answered yet.
    Added,
    /// The inviter answered, or someone presented our ticket.
    Established,
    /// The inviter turned our ticket down.
    Refused(TicketRefusal),
    Renamed,
    Removed,
    Blocked,
    Unblocked,
    Verified,
    Unverified,
    /// New addresses.
    Record,
    Read,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TicketRefusal {
    Unknown,
    Expired,
    Spent,
    /// The inviter has no room for another contact.
    Full,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// The peer said goodbye.
    Closed,
    /// The stream ended without goodbye.
    Lost,
    /// A ping stayed unanswered.
    Silent,
    /// A newer or preferred session took over.
    Replaced,
    /// This side closed it: shutdown, block or removal.
    Local,
    /// Something was wrong with what came.
    Misbehaved,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttemptOutcome {
    Connected,
    /// Another session was faster.
    Superseded,
    DialFailed(DialFailure),
    /// The stream opened, but who answered did not complete the handshake as this peer.
    HandshakeFailed,
    /// The peer answered, and does not want us.
    Refused,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rejection {
    /// Too many streams that are not yet known.
    HalfOpen,
    /// Not a handshake for this peer.
    NotForUs,
    /// The handshake did not check out.
    BadHandshake,
    /// It took too long.
    Slow,
    /// A valid peer that is no contact and brought no ticket.
    Stranger,
    Ticket(TicketRefusal),
    Blocked,
}

/// How much a node holds of something in memory, and the most that it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gauge {
    pub what: &'static str,
    pub now: usize,
    pub most: usize,
}

impl Gauge {
    pub(crate) const fn new(what: &'static str, now: usize, most: usize) -> Self {
        Self { what, now, most }
    }
}

/// Counts since the start; for `status`, and for tests that ask whether something was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Stats {
    pub rejected_half_open: u64,
    pub rejected_not_for_us: u64,
    pub rejected_bad_handshake: u64,
    pub rejected_slow: u64,
    pub rejected_stranger: u64,
    pub rejected_ticket: u64,
    pub rejected_blocked: u64,
    pub misbehaved: u64,
    /// Have-vectors of contacts that said more of my own feeds than this store knows.
    pub doubts: u64,
    /// Entries of contacts that did not fit the chain that is held.
    pub conflicts: u64,
    /// Own entries that came back.
    pub recovered: u64,
    pub sessions: u64,
    /// Datagrams that came and went; of those that came, the ones that changed nothing.
    pub datagrams_received: u64,
    pub datagrams_sent: u64,
    pub datagrams_ignored: u64,
    /// Packets that a relay did not take in time, and those that this node as a relay did not pass on.
    pub relay_dropped: u64,
    pub forwarded: u64,
    pub not_forwarded: u64,
    pub entries_sent: u64,
    pub entries_received: u64,
    pub duplicates: u64,
    pub batches: u64,
    pub loads: u64,
}

/// What a driver commits through, on a thread of its own.
pub trait Store: Send {
    /// Make the batches durable, in order, each as one. They may share one fsync.
    ///
    /// # Errors
    /// `StoreError` if anything failed. What is on disk is then unknown; the store must not be used again.
    fn commit(&mut self, batches: &[Batch]) -> Result<(), StoreError>;
    /// Nothing more will come: leave the store so that the next start is quick.
    fn close(&mut self);
}

/// What a driver reads through, on a thread of its own. It sees everything that `commit` returned for.
pub trait Loader: Send {
    fn load(&mut self, range: &KeyRange) -> Answer;
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct StoreError(pub String);
