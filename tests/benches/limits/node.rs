//! A node in a process of its own, on the real driver and the real store, that does what lines on its standard input
//! say and answers each with one line.

use crate::machine::MESSAGE;
use crate::measure::{Samples, cpu_ns, now_ns};
use bytes::Bytes;
use peerlink_core::api::{Answer, Batch, Command, Event, Expire, KeyRange, Loader, Page, Store, StoreError};
use peerlink_core::bounded::List;
use peerlink_core::identity::IdentitySecret;
use peerlink_core::ids::{CallerId, ConversationNo, Name, PeerId};
use peerlink_core::ticket::{Ticket, TicketSecret};
use peerlink_core::time::WallClock;
use peerlink_core::{Config, Restore};
use peerlink_drivers::{Driver, DriverConfig, Events, Handle, Notice, clock};
use peerlink_storage::{Reader, Writer};
use std::io::BufRead as _;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// A store that is no disk: everything is durable at once.
struct Nothing;

impl Store for Nothing {
    fn commit(&mut self, _: &[Batch]) -> Result<(), StoreError> {
        Ok(())
    }
    fn close(&mut self) {}
}

impl Loader for Nothing {
    fn load(&mut self, _: &KeyRange) -> Answer {
        Answer::Page(Page { records: Vec::new(), complete: true })
    }
}

/// The real store, with a note of when each commit began and how long it took, in nanoseconds.
struct Timed {
    writer: Writer,
    commits: Commits,
}

type Commits = Arc<Mutex<Vec<(u64, u64)>>>;

impl Store for Timed {
    fn commit(&mut self, batches: &[Batch]) -> Result<(), StoreError> {
        let from = now_ns();
        let outcome = self.writer.commit(batches);
        self.commits.lock().expect("no panic").push((from, now_ns() - from));
        outcome
    }
    fn close(&mut self) {
        self.writer.close();
    }
}

struct Running {
    commits: Commits,
    handle: Handle,
    events: Events,
    peer: PeerId,
    reader: Option<Reader>,
    next: u64,
    friend: Option<PeerId>,
}

fn until<T>(events: &Events, mut pick: impl FnMut(&Event) -> Option<T>) -> T {
    loop {
        match events.recv().expect("the driver runs") {
            Notice::Event(event) => {
                if let Some(found) = pick(&event) {
                    return found;
                }
            }
            Notice::Lagged => {}
        }
    }
}

fn start(dir: &str, seed: u8, salt: u8) -> Running {
    let secret = IdentitySecret::new([seed; 32]).expect("a seed");
    let mut restore = Restore::new(Config::default(), &secret, [seed.wrapping_add(salt); 32]);
    let listen = DriverConfig { listen: vec![SocketAddr::from(([127, 0, 0, 1], 0))] };
    let begin = |restore: Restore| restore.start(clock::now(), clock::wall()).expect("whole");
    let commits = Commits::default();
    let (peer, (handle, events), reader) = if dir == "-" {
        let node = begin(restore);
        (node.peer(), Driver::start(node, Nothing, Nothing, listen).expect("it starts"), None)
    } else {
        let opened = peerlink_storage::open(Path::new(dir)).expect("a good store");
        opened.restore(|key, value| restore.record(key, value)).expect("good records");
        let node = begin(restore);
        let (writer, loader, reader) = opened.split();
        let store = Timed { writer, commits: commits.clone() };
        (node.peer(), Driver::start(node, store, loader, listen).expect("it starts"), Some(reader))
    };
    until(&events, |event| matches!(event, Event::Ready).then_some(()));
    Running { commits, handle, events, peer, reader, next: u64::from(salt) << 32, friend: None }
}

/// `DIR SEED SALT`: runs until its input ends or says so.
pub(crate) fn run(args: &[String]) {
    let began = now_ns();
    let number = |at: usize| args[at].parse().expect("a number");
    let mut node = start(&args[0], number(1), number(2));
    println!("ready {}", (now_ns() - began) / 1000);
    for line in std::io::stdin().lock().lines() {
        let line = line.expect("text");
        let words: Vec<&str> = line.split(' ').collect();
        let number = |at: usize| words.get(at).and_then(|word| word.parse::<u64>().ok()).expect("a number");
        match words[0] {
            "ticket" => println!("{}", node.ticket()),
            "add" => node.add(words[1]),
            "connected" => node.connected(),
            "single" => println!("{}", node.single(number(1))),
            "again" => {
                let (next, us) = node.again(&args[0], number(1), &args[1]);
                node = next;
                println!("{us}");
            }
            "commits" => println!("{}", node.commits(number(1))),
            "flood" => println!("{}", node.flood(number(1), number(2))),
            "queue" => node.queue(number(1)),
            "latest" => println!("{}", node.latest()),
            "stats" => {
                let stats = node.handle.stats();
                println!("{} {} {}", stats.batches, stats.entries_received, cpu_ns() / 1000);
            }
            "stop" => {
                node.handle.shutdown();
                println!("stopped");
                return;
            }
            other => panic!("what is {other:?}?"),
        }
    }
}

impl Running {
    fn ticket(&self) -> Ticket {
        let secret = TicketSecret([9; 16]);
        let expires = WallClock(clock::wall().0 + 3_600_000);
        let invite = Command::Invite { secret, expires };
        self.handle.command(invite).expect("it runs").expect("room");
        until(&self.events, |event| matches!(event, Event::InviteStored { .. }).then_some(()));
        let addresses = List::of(self.handle.listen_addresses());
        Ticket { peer: self.peer, secret, nickname: None, expires, addresses, relays: List::new() }
    }

    fn add(&mut self, ticket: &str) {
        let ticket: Ticket = ticket.parse().expect("a ticket");
        self.friend = Some(ticket.peer);
        let petname = Name::new("friend").expect("a name");
        let add = Command::Add { ticket: Box::new(ticket), petname };
        self.handle.command(add).expect("it runs").expect("room");
        self.connected();
    }

    fn connected(&mut self) {
        let peer = until(&self.events, |event| match event {
            Event::Connected { peer, .. } => Some(*peer),
            _ => None,
        });
        self.friend = Some(peer);
        println!("connected");
    }

    fn send(&mut self, body: &Bytes) -> Command {
        self.next += 1;
        let mut caller = [0; 16];
        caller[..8].copy_from_slice(&self.next.to_be_bytes());
        let peer = self.friend.expect("a friend");
        Command::Send {
            peer,
            caller: CallerId(caller),
            fresh: true,
            expire: Expire::Default,
            body: body.clone(),
        }
    }

    /// One message at a time, nanoseconds each: from the request until the proof of delivery, and of that until the
    /// acknowledgement was there and its proof went to the store (or the same again without a store).
    fn single(&mut self, count: u64) -> String {
        let body = Bytes::from(vec![b'x'; MESSAGE]);
        let mut samples = Samples::default();
        for n in 0..count + count / 10 {
            let send = self.send(&body);
            let from = now_ns();
            self.handle.command(send).expect("it runs").expect("room");
            until(&self.events, |event| matches!(event, Event::Delivered { .. }).then_some(()));
            let (until, proven) = (now_ns(), self.commits.lock().expect("no panic").last().copied());
            if n >= count / 10 {
                samples.0.push(until - from);
                samples.0.push(proven.map_or(until, |(began, _)| began).saturating_sub(from));
            }
        }
        samples.0.iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
    }

    /// Starts again with another salt; microseconds from when it is ready, and dials, to a first acknowledged message,
    /// whose proof is stored.
    fn again(self, dir: &str, salt: u64, seed: &str) -> (Self, u64) {
        let Self { handle, events, reader, commits, .. } = self;
        handle.shutdown();
        // The store is free when nobody has a part of it.
        drop((handle, events, reader, commits));
        let mut node = start(dir, seed.parse().expect("a number"), u8::try_from(salt).expect("small"));
        let from = now_ns();
        node.friend = node.reader.as_ref().and_then(|reader| Some(reader.contacts().ok()?.first()?.peer));
        let send = node.send(&Bytes::from(vec![b'x'; MESSAGE]));
        node.handle.command(send).expect("it runs").expect("room");
        until(&node.events, |event| matches!(event, Event::Delivered { .. }).then_some(()));
        (node, (now_ns() - from) / 1000)
    }

    /// How long the newest commits took, in nanoseconds.
    fn commits(&self, count: u64) -> String {
        let commits = self.commits.lock().expect("no panic");
        commits
            .iter()
            .rev()
            .take(count as usize)
            .map(|(_, took)| took.to_string())
            .collect::<Vec<_>>()
            .join(" ")
    }

    /// With so many on the way: microseconds in all, and processor time of them.
    fn flood(&mut self, count: u64, window: u64) -> String {
        let body = Bytes::from(vec![b'x'; MESSAGE]);
        let (mut sent, mut delivered) = (0, 0);
        let (from, cpu) = (now_ns(), cpu_ns());
        while delivered < count {
            let room = window.saturating_sub(sent - delivered).min(count - sent);
            // As a front end with much to say: when half of them are through, the next half.
            if room >= (window / 2).max(1).min(count - sent) && room > 0 {
                let commands: Vec<Command> = (0..room).map(|_| self.send(&body)).collect();
                assert!(self.handle.commands(commands).expect("it runs").is_empty(), "refused");
                sent += room;
            }
            delivered += until(&self.events, |event| match event {
                Event::Delivered { first, last, .. } => Some(last - first + 1),
                _ => None,
            });
        }
        format!("{} {}", (now_ns() - from) / 1000, (cpu_ns() - cpu) / 1000)
    }

    /// Messages to whoever is the friend, who need not be there; durable when this is over.
    fn queue(&mut self, count: u64) {
        let body = Bytes::from(vec![b'x'; MESSAGE]);
        self.friend = self.reader.as_ref().and_then(|reader| Some(reader.contacts().ok()?.first()?.peer));
        for _ in 0..count / 500 {
            let commands: Vec<Command> = (0..500).map(|_| self.send(&body)).collect();
            assert!(self.handle.commands(commands).expect("it runs").is_empty(), "refused");
            for _ in 0..500 {
                until(&self.events, |event| matches!(event, Event::Queued { .. }).then_some(()));
            }
        }
        println!("queued");
    }

    /// The newest fifty of the first conversation, read again and again: nanoseconds each.
    fn latest(&self) -> String {
        let reader = self.reader.as_ref().expect("a store");
        let mut samples = Samples::default();
        for _ in 0..300 {
            let from = now_ns();
            let page = reader.latest(ConversationNo(1), 50).expect("it reads");
            samples.0.push(now_ns() - from);
            assert_eq!(page.len(), 50);
        }
        samples.0[100..].iter().map(u64::to_string).collect::<Vec<_>>().join(" ")
    }
}
