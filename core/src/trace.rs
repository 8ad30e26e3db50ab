//! One line of text for everything that goes into a node and comes out of it, and back: what a recorder writes, a
//! replayer reads, a fuzzer mutates and a snapshot shows.
//!
//! ```text
//! 12.000034 in stream_data stream=1 bytes=0a0b
//! 12.000034 cmd mark_read peer=peer1… ordinal=7
//! 12.000034 out persist batch=3/0101:00ff,0203:-
//! 12.000034 out event.connected peer=peer1… remote=192.0.2.7:4711 path=stream initiator=true
//! ```
//!
//! A line is ASCII: when (seconds and microseconds of the node's clock), the direction, a name, and the fields in the
//! order of their declaration. Bytes are lower-case hexadecimal, text is percent-escaped, lists are separated by commas,
//! the parts of a structure by slashes, and `-` is `None`. Every variant is listed once, below, for both directions.
//!
//! **A trace holds secrets.** A replay is only a replay if it says the same to the byte, so lines carry ticket secrets,
//! messages, and stored records. (They never carry the seed of an identity: it does not pass through here.) Guard a
//! trace like the profile it was taken from.

use crate::api::{
    Answer, AttemptOutcome, Batch, Command, ContactChange, DialFailure, Event, Expire, Gateway, Input,
    KeyRange, NatFiltering, NatMapping, Output, Page, PathKind, Refusal, Rejection, SessionEnd, StreamEnd,
    TicketRefusal, Transport,
};
use crate::record::Kind;
use crate::ticket::Ticket;
use crate::time::Instant;
use alloc::vec::Vec;
use core::fmt;
use core::str::Split;

/// A text that is not a trace line, and which part of it is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a trace line: {0}")]
pub struct BadLine(pub &'static str);

/// A line that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry<'a> {
    pub at: Instant,
    pub item: Item<'a>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Item<'a> {
    /// A call of `Node::handle`.
    Input(Input<'a>),
    /// A call of `Node::command`, whether or not it was refused.
    Command(Command),
    /// What `Node::poll` gave.
    Output(Output),
}

impl fmt::Display for Entry<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.item {
            Item::Input(input) => line(self.at, input).fmt(f),
            Item::Command(command) => line(self.at, command).fmt(f),
            Item::Output(output) => line(self.at, output).fmt(f),
        }
    }
}

/// What has a line: an [`Input`], a [`Command`], an [`Output`], or an [`Event`] by itself, whose line is that of the
/// output that carries it.
pub trait Traced: sealed::Write {}

/// The line of `item`, without a line end. It displays without an allocation.
pub fn line<'a>(at: Instant, item: &'a impl Traced) -> impl fmt::Display + 'a {
    fmt::from_fn(move |f| {
        write!(f, "{at} ")?;
        item.write(f)
    })
}

/// Reads one line, without its line end. `scratch` is overwritten and lends the bytes that an [`Input`] borrows.
///
/// # Errors
/// `BadLine` if the text is not exactly one line of this format.
pub fn parse<'a>(text: &str, scratch: &'a mut Vec<u8>) -> Result<Entry<'a>, BadLine> {
    let mut words = text.split(' ');
    let at = words.next().unwrap_or_default();
    let at = field::<Instant>(at).ok_or(BadLine("its time"))?;
    let direction = words.next().ok_or(BadLine("its direction"))?;
    let name = words.next().ok_or(BadLine("its name"))?;
    let mut fields = Fields { words, scratch: Some(scratch) };
    let item = match direction {
        INPUT => Item::Input(Line::parse(name, &mut fields)?),
        COMMAND => Item::Command(Line::parse(name, &mut fields)?),
        OUTPUT => Item::Output(Line::parse(name, &mut fields)?),
        _ => return Err(BadLine("its direction")),
    };
    match fields.words.next() {
        None => Ok(Entry { at, item }),
        Some(_) => Err(BadLine("more fields than it has")),
    }
}

const INPUT: &str = "in";
const COMMAND: &str = "cmd";
const OUTPUT: &str = "out";
/// What the name of an event begins with, among the outputs.
const EVENT: &str = "event.";

mod sealed {
    pub trait Write {
        /// Everything that follows the time.
        fn write(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result;
    }
}

/// The fields of a line that is being read.
struct Fields<'t, 'a> {
    words: Split<'t, char>,
    scratch: Scratch<'a>,
}

/// Taken by the one field of a line that borrows.
type Scratch<'a> = Option<&'a mut Vec<u8>>;

impl<'a> Fields<'_, 'a> {
    fn next<T: Field<'a>>(&mut self, key: &'static str) -> Result<T, BadLine> {
        let (found, value) = self.words.next().and_then(|word| word.split_once('=')).ok_or(BadLine(key))?;
        if found != key {
            return Err(BadLine(key));
        }
        T::parse(value, &mut self.scratch).ok_or(BadLine(key))
    }
}

/// A value behind `key=`. It holds no space, and within a list no comma, within a structure no slash.
trait Field<'a>: Sized {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
    fn parse(text: &str, scratch: &mut Scratch<'a>) -> Option<Self>;
}

/// A field that borrows nothing.
fn field<T: for<'a> Field<'a>>(text: &str) -> Option<T> {
    T::parse(text, &mut None)
}

/// A name and its fields.
trait Line<'a>: Sized {
    fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result;
    fn parse(name: &str, fields: &mut Fields<'_, 'a>) -> Result<Self, BadLine>;
}

/// A variant's name, and what follows a colon behind it.
struct Word<'t, 's, 'a> {
    name: &'t str,
    held: Option<&'t str>,
    scratch: &'s mut Scratch<'a>,
}

impl<'t, 's, 'a> Word<'t, 's, 'a> {
    fn of(text: &'t str, scratch: &'s mut Scratch<'a>) -> Self {
        let (name, held) = text.split_once(':').map_or((text, None), |(name, held)| (name, Some(held)));
        Self { name, held, scratch }
    }

    fn held<T: Field<'a>>(&mut self) -> Option<T> {
        T::parse(self.held.take()?, self.scratch)
    }
}

// --- the lists ---------------------------------------------------------------------------------------------------

/// An enum whose every variant is a line. `nested` names the one variant that holds an enum of lines itself.
macro_rules! lines {
    ($type:ident $(<$life:lifetime>)? {
        $($name:literal = $variant:ident $({ $($field:ident),* })? $(($inner:ident))?,)*
    } $(nested $prefix:ident = $nested:ident)?) => {
        impl<'a> Line<'a> for $type $(<$life>)? {
            fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant $({ $($field),* })? $(($inner))? => {
                        f.write_str($name)?;
                        $($(
                            f.write_str(concat!(" ", stringify!($field), "="))?;
                            $field.write(f)?;
                        )*)?
                        $(
                            f.write_str(concat!(" ", stringify!($inner), "="))?;
                            $inner.write(f)?;
                        )?
                    })*
                    $(Self::$nested(nested) => {
                        f.write_str($prefix)?;
                        Line::write(nested, f)?;
                    })?
                }
                Ok(())
            }

            fn parse(name: &str, fields: &mut Fields<'_, 'a>) -> Result<Self, BadLine> {
                $(if let Some(name) = name.strip_prefix($prefix) {
                    return Line::parse(name, fields).map(Self::$nested);
                })?
                Ok(match name {
                    $($name => Self::$variant
                        $({ $($field: fields.next(stringify!($field))?),* })?
                        $((fields.next(stringify!($inner))?))?,)*
                    _ => return Err(BadLine("its name")),
                })
            }
        }

        #[cfg(test)]
        impl $(<$life>)? tests::Varied for $type $(<$life>)? {
            fn varied(draw: &mut tests::Draw) -> Vec<Self> {
                let all = alloc::vec![$(Self::$variant
                    $({ $($field: tests::Varied::one(draw)),* })?
                    $({ 0: { let $inner = tests::Varied::one(draw); $inner } })?),*];
                $(
                    let nested = tests::Varied::varied(draw).into_iter().map(Self::$nested);
                    let all = all.into_iter().chain(nested).collect();
                )?
                all
            }
        }
    };
}

/// An enum in one word; a variant that holds another such value puts it behind a colon.
macro_rules! words {
    ($type:ident { $($name:literal = $variant:ident $(($inner:ident))?,)* }) => {
        impl<'a> Field<'a> for $type {
            fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant $(($inner))? => {
                        f.write_str($name)?;
                        $(
                            f.write_str(":")?;
                            $inner.write(f)?;
                        )?
                    })*
                }
                Ok(())
            }

            fn parse(text: &str, scratch: &mut Scratch<'a>) -> Option<Self> {
                let word = &mut Word::of(text, scratch);
                let value = match word.name {
                    $($name => Self::$variant $({ 0: {
                        let $inner = word.held()?;
                        $inner
                    } })?,)*
                    _ => return None,
                };
                word.held.is_none().then_some(value)
            }
        }

        #[cfg(test)]
        impl tests::Varied for $type {
            #[allow(unused_variables, reason = "most enums of words hold nothing")]
            fn varied(draw: &mut tests::Draw) -> Vec<Self> {
                alloc::vec![$(Self::$variant
                    $({ 0: { let $inner = tests::Varied::one(draw); $inner } })?),*]
            }
        }
    };
}

/// A structure: its parts in this order, separated by slashes.
macro_rules! parts {
    ($type:ident { $first:ident $(, $part:ident)* }) => {
        impl<'a> Field<'a> for $type {
            fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let Self { $first $(, $part)* } = self;
                $first.write(f)?;
                $(
                    f.write_str("/")?;
                    $part.write(f)?;
                )*
                Ok(())
            }

            fn parse(text: &str, scratch: &mut Scratch<'a>) -> Option<Self> {
                let mut parts = text.split('/');
                let value = Self {
                    $first: Field::parse(parts.next()?, scratch)?,
                    $($part: Field::parse(parts.next()?, scratch)?,)*
                };
                parts.next().is_none().then_some(value)
            }
        }

        #[cfg(test)]
        impl tests::Varied for $type {
            fn varied(draw: &mut tests::Draw) -> Vec<Self> {
                alloc::vec![Self {
                    $first: tests::Varied::one(draw),
                    $($part: tests::Varied::one(draw),)*
                }]
            }
        }
    };
}

lines!(Input<'a> {
    "tick" = Tick,
    "stream_accepted" = StreamAccepted { stream, remote },
    "stream_connected" = StreamConnected { stream, local },
    "dial_failed" = DialFailed { stream, why },
    "stream_data" = StreamData { stream, bytes },
    "stream_written" = StreamWritten { stream },
    "stream_closed" = StreamClosed { stream, why },
    "datagram" = Datagram { remote, bytes },
    "persisted" = Persisted { batch },
    "persist_failed" = PersistFailed { batch },
    "loaded" = Loaded { load, answer },
    "wall_clock" = WallClock(now),
    "local_addresses" = LocalAddresses(addresses),
    "gateways" = Gateways(gateways),
});

lines!(Command {
    "send" = Send { peer, caller, fresh, expire, body },
    "invite" = Invite { secret, expires },
    "add" = Add { ticket, petname },
    "rename" = Rename { peer, petname },
    "remove" = Remove { peer },
    "block" = Block { peer, blocked },
    "verify" = Verify { peer, verified },
    "cancel" = Cancel { peer, message },
    "delete" = Delete { peer, message },
    "delete_conversation" = DeleteConversation { peer },
    "mark_read" = MarkRead { peer, ordinal },
    "set_nickname" = SetNickname { nickname },
    "set_expire" = SetExpire { after },
    "advertise" = Advertise { addresses },
    "use_relays" = UseRelays { relays },
    "use_stun_servers" = UseStunServers { servers },
    "reach" = Reach { peer },
    "shutdown" = Shutdown,
});

lines!(Output {
    "dial" = Dial { stream, remote, timeout },
    "write" = Write { stream, bytes },
    "close" = Close { stream, flush },
    "read_ready" = ReadReady { stream },
    "datagram" = Datagram { remote, ttl, bytes },
    "persist" = Persist(batch),
    "load" = Load { load, range },
} nested EVENT = Event);

lines!(Event {
    "ready" = Ready,
    "queued" = Queued { peer, caller, message, duplicate, delivered },
    "send_failed" = SendFailed { peer, caller, why },
    "delivered" = Delivered { peer, epoch, first, last },
    "received" = Received { peer, arrival, ordinal, message, kind, claimed, body },
    "gap" = Gap { peer, epoch, first, last },
    "gap_filled" = GapFilled { peer, epoch, first, last },
    "gone" = Gone { peer, epoch, first, last },
    "rolled_back" = RolledBack { peer, epoch, common },
    "recovered" = Recovered { peer, epoch, first, last },
    "reissued" = Reissued { peer, old, new },
    "second_copy" = SecondCopy { peer, epoch },
    "dropped" = Dropped { peer, message, cancelled },
    "expired" = Expired { peer, message },
    "drop_failed" = DropFailed { peer, message, why },
    "conversation_deleted" = ConversationDeleted { peer },
    "invite_stored" = InviteStored { secret },
    "contact_changed" = ContactChanged { peer, change },
    "profile_changed" = ProfileChanged,
    "connected" = Connected { peer, remote, path, initiator },
    "relay_changed" = RelayChanged { relay, remote, path, up },
    "port_mapped" = PortMapped { router, transport, external, up },
    "observed" = Observed { addresses, mapping, filtering },
    "path_changed" = PathChanged { peer, remote, path },
    "round_trip" = RoundTrip { peer, round_trip },
    "disconnected" = Disconnected { peer, why },
    "attempt" = Attempt { peer, remote, path, outcome },
    "next_attempt" = NextAttempt { peer, at },
    "rejected" = Rejected { remote, peer, why },
    "misbehaved" = Misbehaved { peer, what },
    "store_failed" = StoreFailed,
    "stopped" = Stopped,
});

words!(DialFailure {
    "refused" = Refused,
    "unreachable" = Unreachable,
    "timed_out" = TimedOut,
    "local" = Local,
});
words!(StreamEnd { "finished" = Finished, "broken" = Broken, "local" = Local, });
words!(Expire { "default" = Default, "never" = Never, "after" = After(time), });
words!(Answer { "page" = Page(page), "damaged" = Damaged, });
words!(Refusal {
    "unknown_contact" = UnknownContact,
    "empty" = Empty,
    "too_long" = TooLong,
    "not_text" = NotText,
    "queue_full" = QueueFull,
    "busy" = Busy,
    "unknown_message" = UnknownMessage,
    "delivered" = Delivered,
    "name_taken" = NameTaken,
    "own_ticket" = OwnTicket,
    "too_many_contacts" = TooManyContacts,
    "too_many_invites" = TooManyInvites,
    "store_failed" = StoreFailed,
    "stopping" = Stopping,
});
words!(ContactChange {
    "added" = Added,
    "established" = Established,
    "refused" = Refused(why),
    "renamed" = Renamed,
    "removed" = Removed,
    "blocked" = Blocked,
    "unblocked" = Unblocked,
    "verified" = Verified,
    "unverified" = Unverified,
    "record" = Record,
    "read" = Read,
});
words!(TicketRefusal { "unknown" = Unknown, "expired" = Expired, "spent" = Spent, "full" = Full, });
words!(SessionEnd {
    "closed" = Closed,
    "lost" = Lost,
    "silent" = Silent,
    "replaced" = Replaced,
    "local" = Local,
    "misbehaved" = Misbehaved,
});
words!(Transport { "udp" = Udp, "tcp" = Tcp, });
words!(NatMapping {
    "unknown" = Unknown,
    "none" = None,
    "translated" = Translated,
    "endpoint_independent" = EndpointIndependent,
    "endpoint_dependent" = EndpointDependent,
});
words!(NatFiltering {
    "unknown" = Unknown,
    "endpoint_independent" = EndpointIndependent,
    "address_dependent" = AddressDependent,
    "address_and_port_dependent" = AddressAndPortDependent,
});
words!(PathKind { "stream" = Stream, "datagram" = Datagram, "relayed" = Relayed, });
words!(AttemptOutcome {
    "connected" = Connected,
    "superseded" = Superseded,
    "dial_failed" = DialFailed(why),
    "handshake_failed" = HandshakeFailed,
    "refused" = Refused,
});
words!(Rejection {
    "half_open" = HalfOpen,
    "not_for_us" = NotForUs,
    "bad_handshake" = BadHandshake,
    "slow" = Slow,
    "stranger" = Stranger,
    "ticket" = Ticket(why),
    "blocked" = Blocked,
});
words!(Kind { "text" = Text, "tombstone" = Tombstone, "cancel" = Cancel, "read" = Read, });

parts!(Gateway { router, own });
parts!(Page { complete, records });
parts!(Batch { id, writes });
parts!(KeyRange { first, last, max_bytes });
parts!(Ticket { peer, secret, nickname, expires, addresses, relays });

macro_rules! directed {
    ($($type:ty, $direction:ident $($prefix:ident)?;)*) => {$(
        impl Traced for $type {}

        impl sealed::Write for $type {
            fn write(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str($direction)?;
                f.write_str(" ")?;
                $(f.write_str($prefix)?;)?
                Line::write(self, f)
            }
        }
    )*};
}

directed! {
    Input<'_>, INPUT;
    Command, COMMAND;
    Output, OUTPUT;
    Event, OUTPUT EVENT;
}

#[cfg(test)]
mod tests;
mod values;
