//! The real driver's datagrams on real links: hops that end where they should, and links that are slower than a node.

use crate::lab::{Lab, SERVERS, Site, alone, command, within};
use crate::rules::Rules;
use bytes::Bytes;
use peerlink_core::api::Output;
use peerlink_drivers::{Driver, DriverConfig, Events, Handle};
use peerlink_tests::conformance::FAILSAFE;
use peerlink_tests::conformance::memory::Memory;
use peerlink_tests::conformance::scripted::{Fact, Script};
use std::net::{SocketAddr, UdpSocket};

const PORT: u16 = 4711;

#[test]
fn low_hops_open_the_own_box_and_reach_no_other() {
    alone("openers", "openers::inside");
}

/// A driver on the first host of a site, which says what it is told to.
struct Node {
    script: Script,
    handle: Handle,
    _events: Events,
    /// Where it is seen: its box keeps the port.
    seen: SocketAddr,
}

impl Node {
    fn new(site: &Site, number: u8) -> Self {
        let (script, memory) = (Script::default(), Memory::default());
        let own = SocketAddr::new(site.v4[0], PORT);
        let config = DriverConfig { listen: vec![own] };
        let start = || Driver::start(script.machine(), memory.clone(), memory.clone(), config).unwrap();
        let (handle, events) = within(&site.hosts[0], start);
        let seen = if site.rules[0].is_public() { own } else { ([5, 5, number, 2], PORT).into() };
        Self { script, handle, _events: events, seen }
    }

    fn send(&self, to: SocketAddr, ttl: Option<u8>, word: &str) {
        let bytes = Bytes::copy_from_slice(word.as_bytes());
        self.script.do_now(&self.handle, [Output::Datagram { remote: to, ttl, bytes }]);
    }

    /// From where this came.
    fn hears(&self, word: &str) -> SocketAddr {
        self.script.until(word, |state| {
            state.facts.iter().find_map(|fact| match fact {
                Fact::Datagram(from, bytes) if bytes == word.as_bytes() => Some(*from),
                _ => None,
            })
        })
    }

    fn heard(&self, word: &str) -> bool {
        let is = |fact: &Fact| matches!(fact, Fact::Datagram(_, bytes) if bytes == word.as_bytes());
        self.script.facts().iter().any(is)
    }
}

fn receive(server: &UdpSocket) -> (String, SocketAddr) {
    let mut buffer = [0; 2000];
    let (count, from) = server.recv_from(&mut buffer).expect("a datagram comes");
    (String::from_utf8_lossy(&buffer[..count]).into_owned(), from)
}

#[test]
#[ignore = "run by the test above, in namespaces of its own"]
fn inside() {
    let Some(lab) = Lab::enter() else { return };
    let rules = [Rules::Masquerade, Rules::Naive, Rules::Open, Rules::Open];
    let sites: Vec<Site> = rules.iter().enumerate().map(|(at, rules)| lab.site(at + 1, &[*rules])).collect();
    let nodes: Vec<Node> = (1..).zip(&sites).map(|(number, site)| Node::new(site, number)).collect();
    let [home, naive, early, gentle] = &nodes[..] else { unreachable!() };
    let there = SocketAddr::new(SERVERS[0], 3478);
    let server = within("s1", || UdpSocket::bind(there)).unwrap();
    server.set_read_timeout(Some(FAILSAFE)).unwrap();

    // One hop ends in the own box, which maps nothing.
    home.send(there, Some(1), "one hop");
    server.send_to(b"unasked", home.seen).unwrap();
    // Two end behind it, and the way back is open.
    home.send(there, Some(2), "two hops");
    server.send_to(b"asked", home.seen).unwrap();
    assert_eq!(home.hears("asked"), there);
    assert!(!home.heard("unasked"), "packets on one link keep their order");
    // The next one goes all the way, and is the first that does.
    home.send(there, None, "all the way");
    assert_eq!(receive(&server), ("all the way".to_owned(), home.seen));
    assert_eq!(
        home.handle.carried().datagram_errors,
        0,
        "what routers say of it is not an error of the socket"
    );

    // A naive box that keeps its port.
    naive.send(there, None, "seen");
    assert_eq!(receive(&server).1, naive.seen);
    for opener in [gentle, home] {
        opener.send(naive.seen, Some(2), "opener");
        naive.send(opener.seen, None, "from the same port");
        assert_eq!(opener.hears("from the same port"), naive.seen);
        opener.send(naive.seen, None, "and back");
        assert_eq!(naive.hears("and back"), opener.seen);
        naive.script.forget_datagrams();
    }
    // Who sends too far too early makes a naive box change the port.
    early.send(naive.seen, None, "too early");
    naive.send(early.seen, None, "from another port");
    let poisoned = early.hears("from another port");
    assert!(poisoned.ip() == naive.seen.ip() && poisoned != naive.seen, "{poisoned}");
    // Who was sent to before sees the old port, and who is new the other one: all of them are misled.
    naive.send(there, None, "known");
    assert_eq!(receive(&server).1, naive.seen);
    let newcomer = SocketAddr::new(SERVERS[1], 3478);
    let second = within("s2", || UdpSocket::bind(newcomer)).unwrap();
    second.set_read_timeout(Some(FAILSAFE)).unwrap();
    naive.send(newcomer, None, "new");
    assert_eq!(receive(&second).1, poisoned);
    assert!(!naive.heard("opener") && !naive.heard("too early"));

    let (written, unsent) = slow_link(&sites[0], home, &server);
    println!(
        "RAN openers: 4 kinds of hops; a slow link took {written} and refused {unsent}; control: {poisoned}"
    );
}

/// A link that takes a packet a second: the rest is lost, counted, and forgotten.
fn slow_link(site: &Site, node: &Node, server: &UdpSocket) -> (u64, u64) {
    const STORM: u64 = 2_000;
    let shape = "qdisc add dev eth0 root tbf rate 8kbit burst 1600 limit 100000000";
    within(&site.hosts[0], || command("tc", shape));
    let before = node.handle.carried();
    let storm = Output::Datagram {
        remote: server.local_addr().unwrap(),
        ttl: None,
        bytes: Bytes::from(vec![b's'; 1200]),
    };
    node.script.do_now(&node.handle, vec![storm; usize::try_from(STORM).unwrap()]);
    let after = node.handle.carried();
    let counts = [
        after.datagrams_written - before.datagrams_written,
        after.datagrams_unsent - before.datagrams_unsent,
        after.datagram_errors - before.datagram_errors,
    ];
    assert!(
        counts.iter().sum::<u64>() == STORM && counts[0] > 0 && counts[1] > 0 && counts[2] == 0,
        "{counts:?}"
    );
    within(&site.hosts[0], || command("tc", "qdisc del dev eth0 root"));
    node.send(server.local_addr().unwrap(), None, "after the storm");
    while receive(server).0 != "after the storm" {}
    (counts[0], counts[1])
}
