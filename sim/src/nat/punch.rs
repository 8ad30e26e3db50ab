//! Two peers behind boxes who try to meet with the simplest means there are: each asks a server where it is seen from,
//! learns the same of the other, sends there, and sends to wherever it hears the other from.
//!
//! This is no part of the protocol. It shows what boxes allow, for the oracle to agree or not.

use super::net::{INTERNET, Net};
use super::wires::{Arrival, Wires};
use super::{Header, NatCfg};
use peerlink_core::time::{Duration, Instant};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// What one side does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Sends from then on.
    Sends(Duration),
    /// Answers, and sends nothing on its own.
    Answers,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Plan {
    pub roles: [Role; 2],
    /// The TTL of what is sent before both have begun; afterwards it is whole.
    pub opener: Option<u8>,
}

impl Plan {
    /// Both send; each starts so many milliseconds late.
    #[must_use]
    pub const fn both(late_ms: [u64; 2]) -> Self {
        let [a, b] = late_ms;
        Self {
            roles: [Role::Sends(Duration::from_millis(a)), Role::Sends(Duration::from_millis(b))],
            opener: None,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Met {
    /// Both heard the other.
    pub heard: bool,
    /// On one pair of endpoints: somebody got an answer from where it had asked.
    pub path: bool,
    /// When both knew: since the first was to send, or nothing if they never did.
    pub after: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Say {
    WhereAmI,
    YouAre(SocketAddr),
    /// Sent to this endpoint.
    Ask(SocketAddr),
    /// To what was asked of that endpoint.
    Answer(SocketAddr),
}

/// Pauses between what is sent to one endpoint, in milliseconds.
const PAUSES: [u64; 8] = [33, 66, 133, 266, 532, 1000, 1000, 1000];
/// Endpoints that one side tries.
const CANDIDATES: usize = 8;
/// When the first is to send, and how long both try.
const START: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(6);
const SERVER: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(9, 9, 9, 9)), 3478);

#[derive(Debug)]
struct Side {
    host: usize,
    own: SocketAddr,
    seen: Option<SocketAddr>,
    tries: Vec<SocketAddr>,
    next: Option<(Instant, usize)>,
    heard: Option<Instant>,
    answered: Option<Instant>,
}

#[derive(Debug)]
struct Attempt {
    wires: Wires<Say>,
    server: usize,
    sides: [Side; 2],
    plan: Plan,
    whole_at: Instant,
}

/// Two hosts, each behind one box.
#[must_use]
pub fn apart(a: &NatCfg, b: &NatCfg, plan: Plan, seed: u64) -> Met {
    let mut net = Net::new(3, Duration::from_millis(20));
    let realms = [(a, 1), (b, 2)].map(|(cfg, site)| {
        let external = IpAddr::V4(Ipv4Addr::new(5, site, 0, 1));
        net.add_box(INTERNET, cfg.clone(), &[external], seed.wrapping_add(u64::from(site))).1
    });
    let addresses = [1, 2].map(|site| IpAddr::V4(Ipv4Addr::new(10, site, 0, 2)));
    meet(net, realms, addresses, plan)
}

/// Two hosts in these realms of any network.
#[must_use]
pub fn meet(mut net: Net, realms: [usize; 2], addresses: [IpAddr; 2], plan: Plan) -> Met {
    let server = net.add_host(INTERNET, &[SERVER.ip()]);
    let side = |at: usize| Side {
        host: 0,
        own: SocketAddr::new(addresses[at], 4711),
        seen: None,
        tries: Vec::new(),
        next: None,
        heard: None,
        answered: None,
    };
    let mut sides = [side(0), side(1)];
    for (side, realm) in sides.iter_mut().zip(realms) {
        side.host = net.add_host(realm, &[side.own.ip()]);
    }
    let mut attempt = Attempt { wires: Wires::new(net), server, sides, plan, whole_at: Instant::ZERO };
    attempt.run()
}

impl Attempt {
    fn run(&mut self) -> Met {
        for side in &self.sides {
            self.wires.send(side.host, Header::udp(side.own, SERVER), Say::WhereAmI);
        }
        let start = Instant::ZERO + START;
        while let Some(arrival) = self.wires.next(start) {
            self.arrived(arrival);
        }
        let seen = [0, 1].map(|at| self.sides[at].seen);
        for (at, role) in self.plan.roles.into_iter().enumerate() {
            self.sides[at].tries.extend(seen[1 - at]);
            if let Role::Sends(late) = role {
                self.sides[at].next = Some((start + late, 0));
                self.whole_at = self.whole_at.max(start + late + Duration::from_millis(20));
            }
        }
        let end = start + PATIENCE;
        loop {
            let due = self.sides.iter().filter_map(|side| Some(side.next?.0)).min().unwrap_or(end).min(end);
            if let Some(arrival) = self.wires.next(due) {
                self.arrived(arrival);
            } else if due == end {
                break;
            } else {
                (0..2).for_each(|at| self.send(at, due));
            }
        }
        let [a, b] = &self.sides;
        let known = a.answered.zip(b.answered).map(|(a, b)| a.max(b).saturating_since(start));
        Met {
            heard: a.heard.is_some() && b.heard.is_some(),
            path: a.answered.is_some() || b.answered.is_some(),
            after: known,
        }
    }

    /// What is due of one side.
    fn send(&mut self, at: usize, now: Instant) {
        let Some((_, sent)) = self.sides[at].next.filter(|(due, _)| *due <= now) else { return };
        self.sides[at].next = PAUSES.get(sent).map(|pause| (now + Duration::from_millis(*pause), sent + 1));
        for to in self.sides[at].tries.clone() {
            self.ask(at, to, now);
        }
    }

    fn ask(&mut self, at: usize, to: SocketAddr, now: Instant) {
        let side = &self.sides[at];
        let mut header = Header::udp(side.own, to);
        if let Some(hops) = self.plan.opener.filter(|_| now < self.whole_at) {
            header = header.with_hops(hops);
        }
        self.wires.send(side.host, header, Say::Ask(to));
    }

    fn arrived(&mut self, arrival: Arrival<Say>) {
        let (Some(say), from) = (arrival.payload, arrival.header.from) else { return };
        if arrival.host == self.server {
            let back = Header::udp(arrival.header.to, from);
            return self.wires.send(self.server, back, Say::YouAre(from));
        }
        let Some(at) = self.sides.iter().position(|side| side.host == arrival.host) else { return };
        let side = &mut self.sides[at];
        match say {
            Say::WhereAmI => {}
            Say::YouAre(seen) => side.seen = Some(seen),
            Say::Ask(asked) => {
                side.heard.get_or_insert(arrival.at);
                let back = Header::udp(side.own, from);
                self.wires.send(side.host, back, Say::Answer(asked));
                self.heard_from(at, from, arrival.at);
            }
            Say::Answer(asked) => {
                side.heard.get_or_insert(arrival.at);
                if asked == from {
                    side.answered.get_or_insert(arrival.at);
                }
            }
        }
    }

    /// Asks back at once where nobody was expected.
    fn heard_from(&mut self, at: usize, from: SocketAddr, now: Instant) {
        let answers = self.plan.roles[at] == Role::Answers;
        let tries = &mut self.sides[at].tries;
        if !answers && !tries.contains(&from) && tries.len() < CANDIDATES {
            tries.push(from);
            self.ask(at, from, now);
        }
    }
}
