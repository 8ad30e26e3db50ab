//! One node and a router that opens ports for it, packet by packet.

use peerlink_core::api::{Answer, Command, Event, Gateway, Input, Output, Page, Transport};
use peerlink_core::bounded::List;
use peerlink_core::identity::IdentitySecret;
use peerlink_core::record::{Key, Profile, Record as _};
use peerlink_core::time::{Duration, Instant, WallClock};
use peerlink_core::wire::pcp::{Request, Response, SUCCESS};
use peerlink_core::{Config, Node, Restore};
use std::net::SocketAddr;

struct Alone {
    node: Node,
    now: Instant,
    /// What left, and where to.
    sent: Vec<(SocketAddr, Vec<u8>)>,
    events: Vec<Event>,
    /// What the profile says that others are told.
    told: Vec<SocketAddr>,
}

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn gateways() -> Input<'static> {
    Input::Gateways(List::of([Gateway { router: at("10.0.0.1:5351"), own: at("10.0.0.2:4711") }]))
}

impl Alone {
    fn new(mapping: bool) -> Self {
        let now = Instant::from_micros(1);
        let config = Config { datagrams: true, mapping, ..Config::default() };
        let restore = Restore::new(config, &IdentitySecret::new([7; 32]).unwrap(), [1; 32]);
        let node = restore.start(now, WallClock(1_790_000_000_000)).unwrap();
        let mut alone = Self { node, now, sent: Vec::new(), events: Vec::new(), told: Vec::new() };
        // Nothing is asked before this start is on disk.
        alone.node.handle(now, gateways());
        let mut stored = false;
        while let Some(output) = alone.node.poll() {
            stored |= matches!(output, Output::Persist(_));
            assert!(stored || !matches!(output, Output::Datagram { .. }));
            alone.carry_out(output);
        }
        alone.run();
        alone
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Persist(batch) => {
                for (key, value) in &batch.writes {
                    if let (Ok(Key::Profile), Some(value)) = (Key::decode(key), value) {
                        self.told = Profile::decode(value).unwrap().record_addresses.to_vec();
                    }
                }
                self.node.handle(self.now, Input::Persisted { batch: batch.id });
            }
            Output::Datagram { remote, ttl: None, bytes } => self.sent.push((remote, bytes.to_vec())),
            Output::Event(event) => self.events.push(event),
            Output::Load { load, .. } => {
                let nothing = Answer::Page(Page { records: Vec::new(), complete: true });
                self.node.handle(self.now, Input::Loaded { load, answer: nothing });
            }
            other => panic!("{other:?}"),
        }
    }

    fn run(&mut self) {
        while let Some(output) = self.node.poll() {
            self.carry_out(output);
        }
    }

    fn hears(&mut self, from: SocketAddr, bytes: &[u8]) {
        self.node.handle(self.now, Input::Datagram { remote: from, bytes });
        self.run();
    }

    fn mapped(&mut self) -> Vec<(Transport, SocketAddr, bool)> {
        let all = std::mem::take(&mut self.events);
        let of = |event| match event {
            Event::PortMapped { transport, external, up, .. } => Some((transport, external, up)),
            _ => None,
        };
        all.into_iter().filter_map(of).collect()
    }

    /// The last request that left, and what a router answers that opens `external`.
    fn answer(&self, external: &str) -> Vec<u8> {
        let mut map = Request::decode(&self.sent.last().unwrap().1).unwrap().map.unwrap();
        map.external = at(external);
        let mut out = Vec::new();
        Response { result: SUCCESS, lifetime_s: 3600, epoch_s: 10, map: Some(map) }.encode(&mut out);
        out
    }
}

#[test]
fn what_a_router_opens_is_told_until_it_is_over_and_given_back_at_the_end() {
    let mut alone = Alone::new(true);
    assert_eq!(alone.sent.len(), 1);
    assert_eq!(alone.sent[0].0, at("10.0.0.1:5351"));
    let udp = alone.answer("5.5.1.2:4711");
    // From anywhere else it is nothing, whatever it says.
    for elsewhere in ["10.0.0.1:5350", "10.0.0.3:5351", "[::ffff:10.0.0.1]:5351"] {
        let ignored = alone.node.stats().datagrams_ignored;
        alone.hears(at(elsewhere), &udp);
        assert_eq!((alone.mapped(), alone.sent.len()), (vec![], 1), "{elsewhere}");
        assert_eq!(alone.node.stats().datagrams_ignored, ignored + 1);
    }
    alone.hears(at("10.0.0.1:5351"), &udp);
    assert_eq!(alone.mapped(), [(Transport::Udp, at("5.5.1.2:4711"), true)]);
    assert_eq!(alone.told, [at("5.5.1.2:4711")]);
    let tcp = alone.answer("5.5.1.2:4711");
    alone.hears(at("10.0.0.1:5351"), &tcp);
    assert_eq!(alone.mapped(), [(Transport::Tcp, at("5.5.1.2:4711"), true)]);
    assert_eq!(alone.told, [at("5.5.1.2:4711")], "once, though it is open twice");
    // The router goes silent: asked again, and over when its time is.
    let end = alone.now + Duration::from_secs(3600);
    while alone.now < end {
        alone.now = alone.node.deadline().unwrap().min(end);
        alone.node.handle(alone.now, Input::Tick);
        alone.run();
    }
    let gone = [Transport::Udp, Transport::Tcp].map(|transport| (transport, at("5.5.1.2:4711"), false));
    assert_eq!(alone.mapped(), gone);
    assert_eq!(alone.told, []);
    assert!((6..=20).contains(&alone.sent.len()), "{}", alone.sent.len());
}

#[test]
fn what_is_open_at_the_end_is_given_back_and_another_network_is_another_router() {
    let mut alone = Alone::new(true);
    for _ in 0..2 {
        let answer = alone.answer("5.5.1.2:4711");
        alone.hears(at("10.0.0.1:5351"), &answer);
    }
    assert_eq!(alone.mapped().len(), 2);
    alone.node.handle(alone.now, gateways());
    alone.run();
    assert_eq!((alone.mapped(), alone.sent.len()), (vec![], 2), "nothing new");
    let elsewhere = Gateway { router: at("192.168.1.1:5351"), own: at("192.168.1.9:4711") };
    alone.node.handle(alone.now, Input::Gateways(List::of([elsewhere])));
    alone.run();
    assert!(alone.mapped().iter().all(|(.., up)| !up) && alone.told.is_empty());
    let answer = alone.answer("5.5.9.9:4711");
    alone.hears(at("10.0.0.1:5351"), &answer);
    assert!(alone.told.is_empty(), "the old one has no say");
    alone.hears(at("192.168.1.1:5351"), &answer);
    assert_eq!(alone.told, [at("5.5.9.9:4711")]);
    let before = alone.sent.len();
    alone.node.command(alone.now, Command::Shutdown).unwrap();
    alone.run();
    let back: Vec<Request> =
        alone.sent[before..].iter().map(|(_, bytes)| Request::decode(bytes).unwrap()).collect();
    // The one that was opened and the one that was asked for.
    assert!(back.len() == 2 && back.iter().all(|request| request.lifetime_s == 0), "{back:?}");
    assert!(alone.events.contains(&Event::Stopped));
}

#[test]
fn who_does_not_want_it_asks_for_nothing() {
    let mut alone = Alone::new(false);
    assert_eq!(alone.sent, []);
    assert!(alone.node.deadline().is_none_or(|at| at > alone.now + Duration::from_secs(60)));
    alone.hears(at("10.0.0.1:5351"), &[2; 60]);
    assert_eq!((alone.sent.len(), alone.mapped()), (0, vec![]));
}
