//! Real nodes on a driver: two people talk.

use super::memory::{Disk, Memory};
use super::{DriverUnderTest, FAILSAFE, loopback};
use bytes::Bytes;
use peerlink_core::api::{Command, Event, Expire, PathKind, Refusal};
use peerlink_core::bounded::List;
use peerlink_core::identity::IdentitySecret;
use peerlink_core::ids::{CallerId, Name, PeerId};
use peerlink_core::record::RESTORE_END;
use peerlink_core::ticket::{Ticket, TicketSecret};
use peerlink_core::time::WallClock;
use peerlink_core::{Config, Restore};
use peerlink_drivers::{Events, Handle, Notice, clock};
use std::net::SocketAddr;

/// One running profile.
#[derive(Debug)]
pub struct Person {
    pub handle: Handle,
    pub events: Events,
    pub peer: PeerId,
    pub memory: Memory,
}

impl Person {
    /// Starts from what `memory` holds. `seed` names the person.
    pub fn start<D: DriverUnderTest>(seed: u8, start: u8, memory: &Memory, listen: SocketAddr) -> Self {
        Self::start_as::<D>(Config::default(), seed, start, memory, listen)
    }

    /// The same, with this configuration.
    pub fn start_as<D: DriverUnderTest>(
        config: Config,
        seed: u8,
        start: u8,
        memory: &Memory,
        listen: SocketAddr,
    ) -> Self {
        let secret = IdentitySecret::new([seed; 32]).expect("a valid seed");
        let mut entropy = [seed; 32];
        entropy[0] = start;
        let mut restore = Restore::new(config, &secret, entropy);
        for (key, value) in memory.records() {
            if key.first().is_some_and(|table| *table < RESTORE_END) {
                restore.record(&key, &value).expect("what was stored is readable");
            }
        }
        let node = restore.start(clock::now(), clock::wall()).expect("the store is whole");
        let peer = node.peer();
        let (handle, events) =
            D::start(node, memory.clone(), memory.clone(), &[listen]).expect("the driver starts");
        let person = Self { handle, events, peer, memory: memory.clone() };
        person.until("ready", |event| matches!(event, Event::Ready).then_some(()));
        person
    }

    /// Waits for an event.
    pub fn until<T>(&self, what: &str, mut found: impl FnMut(&Event) -> Option<T>) -> T {
        loop {
            match self.events.recv_timeout(FAILSAFE) {
                Ok(Some(Notice::Event(event))) => {
                    if let Some(found) = found(&event) {
                        return found;
                    }
                }
                Ok(Some(Notice::Lagged)) => {}
                Ok(None) => panic!("{what} did not happen"),
                Err(gone) => panic!("{what}: {gone}"),
            }
        }
    }

    pub fn command(&self, command: Command) {
        self.handle.command(command).expect("the driver runs").expect("not refused");
    }

    pub fn send(&self, to: PeerId, caller: u8, text: &str) {
        let body = Bytes::copy_from_slice(text.as_bytes());
        self.command(Command::Send {
            peer: to,
            caller: CallerId([caller; 16]),
            fresh: true,
            expire: Expire::Default,
            body,
        });
    }

    /// Waits for the next message.
    #[must_use]
    pub fn message(&self) -> String {
        self.until("message", |event| match event {
            Event::Received { body, .. } => Some(String::from_utf8_lossy(body).into_owned()),
            _ => None,
        })
    }

    pub fn delivered(&self) {
        self.until("delivery", |event| matches!(event, Event::Delivered { .. }).then_some(()));
    }

    /// Makes `other` a contact, by a ticket. How both then talk.
    pub fn befriend(&self, other: &Self) -> [PathKind; 2] {
        let secret = TicketSecret([9; 16]);
        let expires = WallClock(clock::wall().0 + 3_600_000);
        self.command(Command::Invite { secret, expires });
        self.until("invitation", |event| matches!(event, Event::InviteStored { .. }).then_some(()));
        let addresses = List::of(self.handle.listen_addresses());
        let ticket =
            Ticket { peer: self.peer, secret, nickname: None, expires, addresses, relays: List::new() };
        let petname = Name::new("inviter").expect("a name");
        other.command(Command::Add { ticket: Box::new(ticket), petname });
        [self, other].map(|person| {
            person.until("session", |event| match event {
                Event::Connected { path, .. } => Some(*path),
                _ => None,
            })
        })
    }
}

/// A conversation over real sockets; one side stops and starts again, and what was written meanwhile arrives.
pub fn two_nodes_talk_and_go_on_after_a_restart<D: DriverUnderTest>() {
    let (alice, bob_store) = (Person::start::<D>(1, 0, &Memory::default(), loopback()), Memory::default());
    let bob = Person::start::<D>(2, 0, &bob_store, loopback());
    assert_eq!(alice.befriend(&bob), [PathKind::Stream; 2]);
    let large = "x".repeat(60_000);
    bob.send(alice.peer, 1, "hello");
    bob.send(alice.peer, 2, &large);
    assert_eq!(alice.message(), "hello");
    assert!(alice.message() == large);
    bob.delivered();
    alice.send(bob.peer, 3, "good day");
    assert_eq!(bob.message(), "good day");
    alice.delivered();

    let address = bob.handle.listen_addresses()[0];
    bob.handle.shutdown();
    bob.until("stop", |event| matches!(event, Event::Stopped).then_some(()));
    assert_eq!(bob_store.closed(), 1);
    alice.until("goodbye", |event| matches!(event, Event::Disconnected { .. }).then_some(()));
    alice.send(bob.peer, 4, "while you were away");
    let bob = Person::start::<D>(2, 1, &bob_store, address);
    bob.command(Command::Reach { peer: alice.peer });
    assert_eq!(bob.message(), "while you were away");
    alice.delivered();
    alice.handle.shutdown();
    bob.handle.shutdown();
    assert_eq!(alice.handle.carried().streams, 0);
}

/// The same by datagrams: no stream carries anything.
pub fn two_nodes_talk_by_datagrams<D: DriverUnderTest>() {
    let config = || Config { datagrams: true, datagrams_first: true, ..Config::default() };
    let start = |seed| Person::start_as::<D>(config(), seed, 0, &Memory::default(), loopback());
    let (alice, bob) = (start(1), start(2));
    assert_eq!(alice.befriend(&bob), [PathKind::Datagram; 2]);
    let large = "x".repeat(60_000);
    for round in 0..20 {
        bob.send(alice.peer, round, "hello");
        assert_eq!(alice.message(), "hello");
        bob.delivered();
        bob.send(alice.peer, 100 + round, &large);
        assert!(alice.message() == large);
        bob.delivered();
        alice.send(bob.peer, 200 + round, "good day");
        assert_eq!(bob.message(), "good day");
        alice.delivered();
    }
    let carried = [&alice, &bob].map(|person| person.handle.carried());
    assert!(
        carried.iter().all(|carried| carried.datagrams_written > 100 && carried.bytes_read == 0),
        "{carried:?}"
    );
    for person in [&alice, &bob] {
        person.handle.shutdown();
        person.until("stop", |event| matches!(event, Event::Stopped).then_some(()));
    }
}

/// A node with datagrams and one that has none talk by a stream.
pub fn a_node_with_datagrams_reaches_one_without<D: DriverUnderTest>() {
    let config = Config { datagrams: true, ..Config::default() };
    let alice = Person::start::<D>(1, 0, &Memory::default(), loopback());
    let bob = Person::start_as::<D>(config, 2, 0, &Memory::default(), loopback());
    assert_eq!(alice.befriend(&bob), [PathKind::Stream; 2]);
    bob.send(alice.peer, 1, "hello");
    assert_eq!(alice.message(), "hello");
    bob.delivered();
    alice.handle.shutdown();
    bob.handle.shutdown();
}

/// `StoreFailed` is told, commands come back refused, and the node still stops.
pub fn a_failed_store_still_refuses_and_stops<D: DriverUnderTest>() {
    let memory = Memory::default();
    let alice = Person::start::<D>(1, 0, &memory, loopback());
    memory.set(Disk::Fails);
    let invite =
        Command::Invite { secret: TicketSecret([1; 16]), expires: WallClock(clock::wall().0 + 60_000) };
    alice.command(invite.clone());
    alice.until("failure", |event| matches!(event, Event::StoreFailed).then_some(()));
    let refused = alice.handle.command(invite.clone()).expect("the driver runs").expect_err("refused");
    assert_eq!((refused.command, refused.why), (invite, Refusal::StoreFailed));
    alice.handle.shutdown();
    alice.until("stop", |event| matches!(event, Event::Stopped).then_some(()));
}
