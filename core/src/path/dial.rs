//! Direct paths: the addresses of one peer raced, by streams and by datagrams, with a head start each (RFC 8305), then a
//! backoff, then again.

use crate::api::PathKind;
use crate::backoff::Backoff;
use crate::bounded::List;
use crate::ids::StreamId;
use crate::limits::{ADDRESSES, DIAL_STAGGER, PARALLEL_DIALS, SESSION_PROVEN, TWIN_STAGGER};
use crate::rng::Rng;
use crate::time::{Duration, Instant};
use core::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Not wanted, or a session stands.
    Idle,
    /// A timer is set for the next race.
    Waiting,
    Racing,
}

/// How an address is tried by datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Datagrams {
    None,
    /// To people: where a stream gets through it costs fewer calls of the system for each message, and the kernel looks
    /// after it.
    Second,
    /// To relays: they see then from where our datagrams come.
    First,
}

#[derive(Debug)]
pub(crate) struct Dial {
    phase: Phase,
    left: List<(PathKind, SocketAddr), { 4 * ADDRESSES }>,
    running: List<StreamId, PARALLEL_DIALS>,
    /// What each address is tried by after the other.
    second: Option<PathKind>,
    backoff: Backoff,
    /// Since when sessions have stood without a break, and how much was acknowledged by then.
    stands: Option<(Instant, u64)>,
    /// The way was good: a break of it is worth a quick try.
    proven: bool,
}

impl Dial {
    pub(crate) fn new() -> Self {
        Self {
            phase: Phase::Idle,
            left: List::new(),
            running: List::new(),
            second: None,
            backoff: Backoff::default(),
            stands: None,
            proven: false,
        }
    }

    pub(crate) fn is_racing(&self) -> bool {
        self.phase == Phase::Racing
    }

    /// The next race is set.
    pub(crate) fn is_waiting(&self) -> bool {
        self.phase == Phase::Waiting
    }

    /// Begins a race over these addresses, in order, each once.
    pub(crate) fn race(&mut self, addresses: impl IntoIterator<Item = SocketAddr>, datagrams: Datagrams) {
        self.left.clear();
        for address in addresses {
            if self.left.iter().any(|(_, known)| *known == address) {
                continue;
            }
            let order: &[PathKind] = match datagrams {
                Datagrams::None => &[PathKind::Stream],
                Datagrams::Second => &[PathKind::Stream, PathKind::Datagram],
                Datagrams::First => &[PathKind::Datagram, PathKind::Stream],
            };
            for path in order {
                // More than fit were never stored.
                let _surplus = self.left.push((*path, address));
            }
        }
        self.second = match datagrams {
            Datagrams::None => None,
            Datagrams::Second => Some(PathKind::Datagram),
            Datagrams::First => Some(PathKind::Stream),
        };
        self.phase = Phase::Racing;
    }

    /// The next address to dial now, if one may be.
    pub(crate) fn next(&mut self) -> Option<(PathKind, SocketAddr)> {
        if self.phase != Phase::Racing || self.running.is_full() {
            return None;
        }
        self.left.remove(0)
    }

    /// The head start over the attempt that comes next, if there is one: short over the other way to the same address.
    pub(crate) fn stagger(&self) -> Option<Duration> {
        let (path, _) = self.left.first().filter(|_| self.phase == Phase::Racing)?;
        Some(if self.second == Some(*path) { TWIN_STAGGER } else { DIAL_STAGGER })
    }

    pub(crate) fn started(&mut self, stream: StreamId) {
        let _room_was_checked = self.running.push(stream);
    }

    pub(crate) fn running(&self) -> &List<StreamId, PARALLEL_DIALS> {
        &self.running
    }

    /// One attempt is over.
    pub(crate) fn ended(&mut self, stream: StreamId) {
        self.running.retain(|running| *running != stream);
    }

    /// Every address failed.
    pub(crate) fn is_lost(&self) -> bool {
        self.phase == Phase::Racing && self.left.is_empty() && self.running.is_empty()
    }

    /// Waits for the next race; how long.
    pub(crate) fn wait(&mut self, rng: &mut Rng) -> Duration {
        self.phase = Phase::Waiting;
        self.backoff.next(rng)
    }

    /// This device is somewhere else, where nothing has failed yet.
    pub(crate) fn moved(&mut self) {
        self.backoff.reset();
    }

    /// The wait is over, whether or not a race begins.
    pub(crate) fn waited(&mut self) {
        if self.phase == Phase::Waiting {
            self.phase = Phase::Idle;
        }
    }

    /// Waits shorter if the session that just broke was a good one. Otherwise a peer that breaks every session at once
    /// would be dialled without end.
    pub(crate) fn wait_after_break(&mut self, rng: &mut Rng) -> Duration {
        if !self.proven {
            return self.wait(rng);
        }
        self.phase = Phase::Waiting;
        Duration::from_micros(rng.up_to(250_000))
    }

    /// A session stands, or none is wanted. Gives the attempts to end.
    pub(crate) fn stop(&mut self) -> List<StreamId, PARALLEL_DIALS> {
        self.phase = Phase::Idle;
        self.left.clear();
        core::mem::take(&mut self.running)
    }

    /// A session stands after none did; so much was acknowledged before.
    pub(crate) fn stands(&mut self, now: Instant, acknowledged: u64) {
        self.stands = Some((now, acknowledged));
    }

    /// The last session is over.
    pub(crate) fn fell(&mut self, now: Instant, acknowledged: u64) {
        self.proven = self.stands.take().is_some_and(|(since, before)| {
            acknowledged != before || now.saturating_since(since) >= SESSION_PROVEN
        });
        if self.proven {
            self.backoff.reset();
        }
    }
}

/// How far an address reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Loopback,
    Private,
    Global,
}

fn scope(address: &SocketAddr) -> Option<Scope> {
    if address.port() == 0 {
        return None;
    }
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() || ip.is_multicast() || ip.is_broadcast() => None,
        IpAddr::V4(ip) if ip.is_loopback() => Some(Scope::Loopback),
        // RFC 1918, RFC 3927, and the shared space of RFC 6598.
        IpAddr::V4(ip)
            if ip.is_private()
                || ip.is_link_local()
                || (ip.octets()[0] == 100 && ip.octets()[1] & 0xc0 == 64) =>
        {
            Some(Scope::Private)
        }
        IpAddr::V4(_) => Some(Scope::Global),
        IpAddr::V6(ip) if ip.is_unspecified() || ip.is_multicast() => None,
        IpAddr::V6(ip) if ip.is_loopback() => Some(Scope::Loopback),
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(v4) => scope(&SocketAddr::new(v4.into(), address.port())),
            // RFC 4193 and RFC 4291, section 2.5.6.
            None if ip.is_unique_local() || ip.is_unicast_link_local() => Some(Scope::Private),
            None => Some(Scope::Global),
        },
    }
}

/// Which addresses of a peer record that came over a session with `remote` we may dial: never one that reaches less
/// far than that session did, so that nobody can aim our packets into a network that he is not in.
pub(crate) fn dialable<'a>(
    addresses: &'a [SocketAddr],
    remote: &SocketAddr,
) -> impl Iterator<Item = SocketAddr> + use<'a> {
    let reach = scope(remote).unwrap_or(Scope::Global);
    addresses.iter().copied().filter(move |address| scope(address).is_some_and(|scope| scope >= reach))
}

/// Some address that does not reach beyond its network.
const PRIVATE: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 1));

/// Where to send packets, of the places that a peer names on a way from `remote`. `observed`: where ours come from, as
/// others see it.
pub(crate) fn places<'a>(
    named: &'a [SocketAddr],
    remote: &'a SocketAddr,
    observed: &[SocketAddr],
) -> impl Iterator<Item = SocketAddr> + 'a {
    // Who comes from the same public address is a neighbour: then what reaches no further may be tried, and is the only
    // way if the box in front of both does not lead back in.
    let ours = |place: &SocketAddr| is_far(place) && observed.iter().any(|own| own.ip() == place.ip());
    let reach = if named.iter().any(ours) { PRIVATE } else { *remote };
    dialable(named, &reach).filter(move |place| place != remote && is_probeable(place))
}

/// Whether a peer may have us send packets there: not to a service that answers whoever asks.
fn is_probeable(address: &SocketAddr) -> bool {
    // SSDP, mDNS and memcached are those above 1,023.
    !matches!(address.port(), 1900 | 5353 | 11211) && (address.port() >= 1024 || address.port() == 443)
}

/// Whether packets to there leave the own network.
pub(crate) fn is_far(address: &SocketAddr) -> bool {
    scope(address) == Some(Scope::Global)
}

/// Whether an address that a person gave us can be dialled at all.
pub(crate) fn is_dialable(address: &SocketAddr) -> bool {
    scope(address).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn a_record_cannot_aim_into_a_network_that_its_sender_is_not_in() {
        let all: Vec<SocketAddr> = [
            "127.0.0.1:1",
            "10.0.0.1:1",
            "100.64.0.1:1",
            "8.8.8.8:1",
            "[::1]:1",
            "[fe80::1]:1",
            "[fd00::1]:1",
            "[2001:4860::1]:1",
            "[::ffff:127.0.0.1]:1",
            "0.0.0.0:1",
            "224.0.0.1:1",
            "8.8.8.8:0",
        ]
        .iter()
        .map(|text| text.parse().unwrap())
        .collect();
        let count = |remote: &str| dialable(&all, &remote.parse().unwrap()).count();
        assert_eq!(count("127.0.0.1:9"), 9);
        assert_eq!(count("192.168.1.1:9"), 6);
        assert_eq!(count("9.9.9.9:9"), 2);
    }

    #[test]
    fn a_race_tries_every_address_once_and_then_waits() {
        let addresses = ["10.0.0.1:1", "10.0.0.2:1", "10.0.0.1:1"].map(|text| text.parse().unwrap());
        let (mut dial, mut rng) = (Dial::new(), Rng::from_seed([1; 32]));
        dial.race(addresses, Datagrams::None);
        assert_eq!(dial.next(), Some((PathKind::Stream, addresses[0])));
        dial.started(StreamId(2));
        assert_eq!(dial.next(), Some((PathKind::Stream, addresses[1])));
        dial.started(StreamId(4));
        assert_eq!(dial.next(), None);
        dial.ended(StreamId(2));
        assert!(!dial.is_lost());
        dial.ended(StreamId(4));
        assert!(dial.is_lost());
        assert!(dial.wait(&mut rng) <= crate::limits::RETRY_FIRST);
        assert!(!dial.is_racing());
    }

    #[test]
    fn only_a_neighbour_names_places_in_our_network() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let named = ["198.51.100.1:7000", "10.0.0.5:7000", "127.0.0.1:7000"].map(at);
        let relay = at("203.0.113.1:443");
        let tried = |seen: &[&str]| -> Vec<SocketAddr> {
            let seen: Vec<SocketAddr> = seen.iter().map(|seen| at(seen)).collect();
            places(&named, &relay, &seen).collect()
        };
        assert_eq!(tried(&[]), named[..1]);
        assert_eq!(tried(&["198.51.100.2:9000"]), named[..1], "another house of the same street");
        assert_eq!(tried(&["198.51.100.1:9000"]), named[..2], "never what is on this machine alone");
        assert_eq!(tried(&["10.0.0.5:9000"]), named[..1], "what many have shows nothing");
    }

    #[test]
    fn no_peer_names_a_service_that_answers_anybody() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let named = ["198.51.100.1:53", "198.51.100.1:1900", "198.51.100.1:443", "198.51.100.1:0"].map(at);
        let relay = at("203.0.113.1:443");
        assert_eq!(places(&named, &relay, &[]).collect::<Vec<_>>(), [named[2]]);
    }
}
