//! Packet by packet: what leaves, when, and what answers do.

use super::*;
use crate::wire::natpmp::Response as Pmp;
use crate::wire::pcp::{Map, Response};
use alloc::vec;

const OWN: &str = "10.0.0.2:4711";
const OUTSIDE: [u8; 4] = [5, 5, 1, 2];

struct Lab {
    now: Instant,
    /// Seconds that the gateway's clock is ahead of ours.
    epoch: u32,
    rng: Rng,
    mapping: Mapping,
}

impl Lab {
    fn new() -> Self {
        let now = Instant::from_micros(5_000_000);
        let mut rng = Rng::from_seed([7; 32]);
        let gateway = Gateway { router: "10.0.0.1:5351".parse().unwrap(), own: OWN.parse().unwrap() };
        let mapping = Mapping::new(now, &mut rng, gateway);
        Self { now, epoch: 1000, rng, mapping }
    }

    fn leave(&mut self) -> Option<Vec<u8>> {
        self.mapping.leave(self.now, &mut self.rng)
    }

    /// The next question, whenever it is due: how long that took, and what it is.
    fn next(&mut self) -> (Duration, Vec<u8>) {
        let before = self.now;
        for _ in 0..10 {
            self.now = self.now.max(self.mapping.deadline());
            if let Some(bytes) = self.leave() {
                assert!(self.leave().is_none(), "one at a time");
                return (self.now.saturating_since(before), bytes);
            }
            assert!(self.mapping.deadline() > self.now, "a deadline is never in the past twice");
        }
        panic!("nothing leaves")
    }

    fn says(&mut self, bytes: &[u8]) -> bool {
        self.mapping.answer(self.now, &mut self.rng, bytes)
    }

    fn seconds(&self) -> u32 {
        self.epoch + u32::try_from(self.now.as_micros() / 1_000_000).unwrap()
    }

    /// What a gateway that speaks PCP says to this.
    fn pcp(&self, request: &[u8], change: impl Fn(&mut Response, &mut Map)) -> Vec<u8> {
        let mut map = pcp::Request::decode(request).unwrap().map.unwrap();
        map.external = SocketAddr::new(OUTSIDE.into(), 40_000 + u16::from(map.transport == Transport::Tcp));
        let mut response =
            Response { result: pcp::SUCCESS, lifetime_s: 3600, epoch_s: self.seconds(), map: None };
        change(&mut response, &mut map);
        let mut out = Vec::new();
        Response { map: Some(map), ..response }.encode(&mut out);
        out
    }

    fn natpmp(&self, body: Body) -> Vec<u8> {
        let mut out = Vec::new();
        Pmp { epoch_s: self.seconds(), body }.encode(&mut out);
        out
    }

    /// Both ports are opened.
    fn opened() -> Self {
        let mut lab = Self::new();
        for _ in 0..2 {
            let (_, request) = lab.next();
            let answer = lab.pcp(&request, |_, _| {});
            assert!(lab.says(&answer));
        }
        lab
    }

    fn open(&self) -> Vec<(Transport, SocketAddr)> {
        self.mapping.open().collect()
    }
}

fn both() -> Vec<(Transport, SocketAddr)> {
    vec![
        (Transport::Udp, SocketAddr::new(OUTSIDE.into(), 40_000)),
        (Transport::Tcp, SocketAddr::new(OUTSIDE.into(), 40_001)),
    ]
}

fn unsupported(version: u8) -> Vec<u8> {
    // To the request for an address, which has the number of an announcement in the newer language.
    vec![
        version,
        128 | u8::from(version == 0),
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        9,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ]
}

#[test]
fn both_ports_are_asked_for_and_again_at_half_of_their_life() {
    let mut lab = Lab::new();
    let (wait, first) = lab.next();
    let request = pcp::Request::decode(&first).unwrap();
    let map = request.map.unwrap();
    assert_eq!((wait, request.lifetime_s, request.client), (Duration::ZERO, 7200, [10, 0, 0, 2].into()));
    assert_eq!((map.transport, map.internal, map.external.port()), (Transport::Udp, 4711, 4711));
    let answer = lab.pcp(&first, |_, _| {});
    assert!(lab.says(&answer));
    assert!(!lab.says(&answer), "a second one was not asked for");
    let (wait, second) = lab.next();
    let other = pcp::Request::decode(&second).unwrap().map.unwrap();
    assert_eq!((wait, other.transport), (Duration::ZERO, Transport::Tcp));
    assert_ne!(other.nonce, map.nonce);
    let answer = lab.pcp(&second, |_, _| {});
    assert!(lab.says(&answer));
    assert_eq!(lab.open(), both());
    let (wait, again) = lab.next();
    assert!((1800..=2250).contains(&wait.as_secs()), "{wait:?}");
    // The same port under the same nonce.
    let again = pcp::Request::decode(&again).unwrap().map.unwrap();
    let held = lab.open().into_iter().find(|(transport, _)| *transport == again.transport).unwrap();
    assert_eq!(again.external, held.1);
    assert!([map.nonce, other.nonce].contains(&again.nonce));
}

#[test]
fn a_silent_gateway_is_asked_in_both_languages_ever_more_rarely_and_then_left_alone() {
    let mut lab = Lab::new();
    let mut waits = Vec::new();
    for _ in 0..12 {
        let (wait, request) = lab.next();
        waits.push((wait.as_millis(), request[0], request.len()));
    }
    let expected = [0, 3000, 6000, 250, 500, 1000, 2000, 4000, 8000, 16_000, 32_000];
    for ((at, expected), (wait, version, length)) in expected.iter().enumerate().zip(&waits) {
        assert!((expected * 9 / 10..=expected * 11 / 10).contains(wait), "{waits:?}");
        assert_eq!((*version, *length), if at < 2 { (2, 60) } else { (0, 2) }, "{at}");
    }
    // After the last one, half an hour; and then from the beginning.
    assert!(waits[11].0 >= MAPPING_AGAIN.as_millis() && waits[11].1 == 2, "{waits:?}");
    assert!(lab.open().is_empty());
}

#[test]
fn lost_packets_only_delay() {
    let mut lab = Lab::new();
    let (_, lost) = lab.next();
    let (_, second) = lab.next();
    assert_eq!(lost, second, "the same question");
    // An answer to the first that comes late counts as well.
    let answer = lab.pcp(&lost, |_, _| {});
    assert!(lab.says(&answer));
    let (_, tcp) = lab.next();
    let answer = lab.pcp(&tcp, |_, _| {});
    lab.says(&answer);
    assert_eq!(lab.open(), both());
    // Renewals that are lost, all of them: what is held is held to its end and no longer.
    let end = lab.now + Duration::from_secs(3600);
    let mut asked = 0;
    while lab.mapping.deadline() < end {
        lab.now = lab.mapping.deadline();
        asked += usize::from(lab.leave().is_some());
        assert_eq!(lab.open(), both());
    }
    assert!((4..=12).contains(&asked), "{asked}");
    lab.now = end;
    lab.leave();
    assert!(lab.open().is_empty());
}

#[test]
fn a_gateway_of_the_older_language_says_so_and_is_asked_for_its_address_first() {
    let mut lab = Lab::new();
    lab.next();
    assert!(lab.says(&unsupported(0)));
    let (wait, request) = lab.next();
    assert_eq!((wait, natpmp::Request::decode(&request)), (Duration::ZERO, Ok(natpmp::Request::Address)));
    let answer = lab.natpmp(Body::Address(OUTSIDE.into()));
    assert!(lab.says(&answer));
    for (transport, external) in both() {
        let (wait, request) = lab.next();
        assert_eq!(wait, Duration::ZERO);
        let Ok(natpmp::Request::Map(map)) = natpmp::Request::decode(&request) else { panic!("{request:?}") };
        let wanted = natpmp::Map { transport, internal: 4711, external: 4711, lifetime_s: 7200 };
        assert_eq!(map, wanted);
        let answer = natpmp::Map { external: external.port(), lifetime_s: 3600, ..map };
        let answer = lab.natpmp(Body::Map(answer));
        assert!(lab.says(&answer));
    }
    assert_eq!(lab.open(), both());
    // The address may be another one by now: it is asked for again.
    let (_, request) = lab.next();
    assert_eq!(natpmp::Request::decode(&request), Ok(natpmp::Request::Address));
    let back = lab.mapping.give_back();
    let back: Vec<_> = back.iter().map(|request| natpmp::Request::decode(request).unwrap()).collect();
    let zero = |transport| {
        natpmp::Request::Map(natpmp::Map { transport, internal: 4711, external: 0, lifetime_s: 0 })
    };
    assert_eq!(back, [zero(Transport::Udp), zero(Transport::Tcp)]);
}

#[test]
fn a_gateway_that_began_anew_is_asked_for_everything_at_once() {
    let mut lab = Lab::opened();
    let (_, first) = lab.next();
    lab.epoch = 0;
    let restarted = |response: &mut Response, _: &mut Map| response.epoch_s = 3;
    let answer = lab.pcp(&first, restarted);
    assert!(lab.says(&answer));
    let about = |request: &[u8]| pcp::Request::decode(request).unwrap().map.unwrap().transport;
    let (wait, second) = lab.next();
    assert!(wait.is_zero() && about(&second) != about(&first), "{wait:?}");
    let answer = lab.pcp(&second, restarted);
    assert!(lab.says(&answer));
    // Its clock goes on from there, and so all is well until the next renewal.
    let (wait, _) = lab.next();
    assert!(wait.as_secs() >= 1800, "{wait:?}");
}

#[test]
fn who_announces_a_new_beginning_makes_us_ask_and_not_more_than_once_a_minute() {
    let mut lab = Lab::opened();
    let mut announcement = Vec::new();
    Response { result: pcp::SUCCESS, lifetime_s: 0, epoch_s: 1, map: None }.encode(&mut announcement);
    let mut asked = 0;
    for _ in 0..600 {
        lab.says(&announcement);
        while let Some(request) = lab.leave() {
            asked += 1;
            let answer = lab.pcp(&request, |_, _| {});
            lab.says(&answer);
        }
        lab.now += Duration::from_millis(100);
    }
    assert_eq!(asked, 2, "each port once");
    assert_eq!(lab.open(), both());
}

#[test]
fn an_answer_counts_only_if_it_is_to_our_question_and_with_our_nonce() {
    let mut lab = Lab::new();
    let (_, request) = lab.next();
    let forged: [fn(&mut Response, &mut Map); 4] = [
        |_, map| map.nonce[11] ^= 1,
        |_, map| map.internal += 1,
        |_, map| map.transport = Transport::Tcp,
        |response, map| (response.result, map.nonce) = (pcp::NOT_AUTHORIZED, [0; 12]),
    ];
    for forge in forged {
        let answer = lab.pcp(&request, forge);
        assert!(!lab.says(&answer));
    }
    assert!(!lab.says(&lab.natpmp(Body::Address(OUTSIDE.into()))));
    for bytes in [&request[..], &[], &[2], &[0; 60], &[255; 1100]] {
        assert!(!lab.says(bytes));
    }
    assert!(lab.open().is_empty() && lab.leave().is_none(), "and none of it makes us ask again");
    let answer = lab.pcp(&request, |_, _| {});
    assert!(lab.says(&answer));
    assert_eq!(lab.open(), both()[..1]);
}

#[test]
fn absurd_lifetimes_and_places_make_us_neither_ask_without_end_nor_believe_for_ever() {
    let absurd: [fn(&mut Response, &mut Map); 6] = [
        |response, _| response.lifetime_s = 0,
        |response, _| response.lifetime_s = 1,
        |_, map| map.external.set_port(0),
        |_, map| map.external.set_ip([0, 0, 0, 0].into()),
        |_, map| map.external.set_ip([127, 0, 0, 1].into()),
        |response, _| (response.result, response.lifetime_s) = (pcp::NO_RESOURCES, 0),
    ];
    for absurd in absurd {
        let mut lab = Lab::new();
        let began = lab.now;
        let mut asked = 0;
        while lab.now < began + Duration::from_secs(3600) {
            let (_, request) = lab.next();
            asked += 1;
            let answer = lab.pcp(&request, absurd);
            assert!(lab.says(&answer) && lab.open().is_empty());
        }
        assert!(asked <= 130, "{asked} in an hour");
    }
    let mut lab = Lab::new();
    let (_, request) = lab.next();
    let answer = lab.pcp(&request, |response, _| response.lifetime_s = u32::MAX);
    assert!(lab.says(&answer));
    lab.now += MAPPING_LIFETIME_MAX;
    lab.leave();
    assert!(lab.open().is_empty());
    // Who refuses for ever is asked again all the same.
    let mut lab = Lab::new();
    for _ in 0..2 {
        let (_, request) = lab.next();
        let refuse = |response: &mut Response, _: &mut Map| {
            (response.result, response.lifetime_s) = (pcp::NOT_AUTHORIZED, u32::MAX);
        };
        let answer = lab.pcp(&request, refuse);
        assert!(lab.says(&answer));
    }
    assert_eq!(lab.next().0, MAPPING_AGAIN);
}

#[test]
fn nobody_talks_us_into_the_older_language_once_the_newer_was_understood_nor_back_and_forth() {
    let mut lab = Lab::opened();
    let (_, request) = lab.next();
    assert!(!lab.says(&unsupported(0)));
    let answer = lab.pcp(&request, |_, _| {});
    assert!(lab.says(&answer));
    let mut lab = Lab::new();
    let began = lab.now;
    let mut asked = 0;
    while lab.now < began + Duration::from_secs(3600) {
        let (_, request) = lab.next();
        asked += 1;
        // Whatever it is asked in, it speaks the other one.
        lab.says(&unsupported(if request[0] == 2 { 0 } else { 2 }));
    }
    assert!(asked <= 12, "{asked} in an hour");
}

#[test]
fn what_is_held_or_was_asked_for_is_given_back() {
    let mut lab = Lab::opened();
    let back = lab.mapping.give_back();
    let back: Vec<_> = back.iter().map(|request| pcp::Request::decode(request).unwrap()).collect();
    let told: Vec<_> = back.iter().map(|request| (request.lifetime_s, request.map.unwrap())).collect();
    assert_eq!(told.len(), 2);
    for ((lifetime, map), lease) in told.iter().zip(&lab.mapping.leases) {
        assert_eq!((*lifetime, map.nonce, map.internal), (0, lease.nonce, 4711));
        assert_eq!(map.external, "0.0.0.0:0".parse().unwrap());
    }
    // A question whose answer is on its way.
    let mut lab = Lab::new();
    assert_eq!(lab.mapping.give_back().len(), 0);
    lab.next();
    assert_eq!(lab.mapping.give_back().len(), 1);
}
