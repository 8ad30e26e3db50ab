//! Two channels, and every packet between them in the hand of the test.

use super::*;
use crate::limits::ACK_DELAY;
use crate::noise::{Handshake, Role, StaticKey};
use crate::wire::frame::Frame;
use crate::wire::packet::Packet;

const A: Place = Place::Udp(SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::new(9, 9, 9, 1)), 1));
const B: Place = Place::Udp(SocketAddr::new(core::net::IpAddr::V4(core::net::Ipv4Addr::new(9, 9, 9, 2)), 2));

struct Two {
    now: Instant,
    rng: Rng,
    sides: [Channel; 2],
}

impl Two {
    fn new() -> Self {
        let mut rng = Rng::from_seed([1; 32]);
        let keys = [StaticKey::generate(&mut rng), StaticKey::generate(&mut rng)];
        let mut first = Handshake::new(Role::Initiator, b"test", &keys[0], &mut rng).unwrap();
        let mut second = Handshake::new(Role::Responder, b"test", &keys[1], &mut rng).unwrap();
        for message in 0..3 {
            let (from, to) = if message == 1 { (&mut second, &mut first) } else { (&mut first, &mut second) };
            let mut bytes = Vec::new();
            from.write(&[], &mut bytes).unwrap();
            to.read(&bytes).unwrap();
        }
        let now = Instant::from_micros(1_000_000);
        let channel = |split, remote| Channel::new(now, split, 7, remote);
        let sides = [channel(first.split().unwrap(), B), channel(second.split().unwrap(), A)];
        Self { now, rng, sides }
    }

    /// Everything that `side` lets out now.
    fn out(&mut self, side: usize) -> Vec<Leaving> {
        let mut all = Vec::new();
        while let Some(leaving) = self.sides[side].leave(self.now, &mut self.rng).unwrap() {
            all.push(leaving);
            assert!(all.len() < 3_000, "it never ends");
        }
        all
    }

    fn hand(&mut self, side: usize, leaving: &Leaving) {
        let Some(Packet::Data { number, header, sealed, .. }) = Packet::parse(&leaving.bytes) else {
            panic!("a data packet")
        };
        let from = if side == 0 { B } else { A };
        let mut sealed = sealed.to_vec();
        let _opened = self.sides[side].packet(self.now, from, number, &header, &mut sealed).unwrap();
    }

    fn say(&mut self, side: usize, bytes: usize) {
        let mut record = Vec::new();
        Frame::Record(&alloc::vec![1; bytes]).encode(&mut record);
        self.sides[side].write(&record);
    }

    /// Lets both speak until both are silent for a while; the first `held` packets of `from` are kept back.
    fn talk(&mut self, from: usize, held: usize) -> Vec<Leaving> {
        let mut kept = Vec::new();
        for _ in 0..200 {
            for side in 0..2 {
                self.sides[side].due(self.now);
                for leaving in self.out(side) {
                    if side == from && kept.len() < held {
                        kept.push(leaving);
                    } else {
                        self.hand(1 - side, &leaving);
                    }
                }
            }
            self.now += Duration::from_millis(10);
        }
        kept
    }
}

#[test]
fn a_packet_that_comes_after_everything_was_settled_is_not_answered_without_end() {
    let mut two = Two::new();
    two.say(0, 100);
    let late = two.talk(0, 1);
    for _ in 0..5 {
        two.say(0, 500);
        two.say(1, 500);
        two.talk(0, 0);
    }
    for leaving in &late {
        two.hand(1, leaving);
    }
    let answers = two.out(1).len();
    assert!(answers <= 1, "{answers}");
    two.now += Duration::from_secs(1);
    two.sides[1].due(two.now);
    assert!(two.out(1).len() <= 1);
    assert!(two.sides[1].deadline().is_none_or(|at| at > two.now), "and nothing stays due");
}

#[test]
fn a_peer_cannot_make_us_send_to_others_without_end() {
    let mut two = Two::new();
    let mut bytes = 0;
    for round in 0..100u32 {
        for n in 0..16u16 {
            let [_, a, b, c] = (round * 16 + u32::from(n)).to_be_bytes();
            let place = Place::Udp(SocketAddr::from(([9, a, b, c], 1000 + n)));
            two.sides[0].try_place(two.now, place);
        }
        for _ in 0..10 {
            two.sides[0].due(two.now);
            bytes += two
                .out(0)
                .iter()
                .filter(|leaving| leaving.remote != B)
                .map(|leaving| leaving.bytes.len())
                .sum::<usize>();
            two.now += Duration::from_millis(10);
        }
    }
    // 1,600 places were named within ten seconds.
    let places = bytes / (49 * CHALLENGE_TRIES as usize);
    assert!((1..=44).contains(&places), "{places} places were tried whole, {bytes} bytes");
}

#[test]
fn an_opener_is_followed_by_a_packet_that_gets_there_as_soon_as_the_other_is_heard() {
    let mut two = Two::new();
    // The second knows that the first was told where it is; the first does not know that of the second.
    two.say(0, 100);
    two.say(1, 100);
    two.sides[1].told_places();
    two.talk(0, 0);
    two.say(0, 100);
    two.sides[0].told_places();
    let held = two.out(0);
    let there = Place::Udp("9.9.9.3:3".parse().unwrap());
    two.sides[0].try_place(two.now, there);
    let openers = two.out(0);
    assert_eq!(openers.len(), usize::from(OPENERS));
    assert!(openers.iter().all(|opener| (opener.remote, opener.ttl) == (there, Some(OPENER_TTL))));
    two.now += Duration::from_millis(10);
    two.sides[0].due(two.now);
    assert!(two.out(0).is_empty());
    // The other side tries us from there.
    two.sides[1].try_place(two.now, Place::Udp("9.9.9.4:4".parse().unwrap()));
    let tried = two.out(1);
    let [tried] = &tried[..] else { panic!("one packet") };
    assert_eq!(tried.ttl, None);
    let Some(Packet::Data { number, header, sealed, .. }) = Packet::parse(&tried.bytes) else {
        panic!("a data packet")
    };
    let mut sealed = sealed.to_vec();
    let _opened = two.sides[0].packet(two.now, there, number, &header, &mut sealed).unwrap();
    let answers = two.out(0);
    let to_there: Vec<_> = answers.iter().filter(|leaving| leaving.remote == there).collect();
    assert!(matches!(to_there[..], [Leaving { ttl: None, .. }]), "answer and challenge in one");
    // And it does not begin again with what it hears next, and needs no opener once what it told has arrived.
    held.iter().for_each(|leaving| two.hand(1, leaving));
    two.sides[1].probe = true;
    let more = two.out(1);
    more.iter().for_each(|leaving| two.hand(0, leaving));
    assert!(two.out(0).iter().all(|leaving| leaving.remote != there));
    two.sides[0].try_place(two.now, Place::Udp("9.9.9.5:5".parse().unwrap()));
    assert!(two.out(0).iter().all(|leaving| leaving.ttl.is_none()));
}

#[test]
fn a_whole_packet_waits_until_the_peer_knows_where_we_are_but_not_for_ever() {
    let there = Place::Udp("9.9.9.3:3".parse().unwrap());
    let ttls = |two: &mut Two, waits: u32| -> Vec<Option<u8>> {
        let mut ttls = Vec::new();
        for _ in 0..waits {
            two.now += CHALLENGE_WAIT;
            two.sides[0].due(two.now);
            ttls.extend(
                two.out(0).iter().filter(|leaving| leaving.remote == there).map(|leaving| leaving.ttl),
            );
        }
        ttls
    };
    let begin = || {
        let mut two = Two::new();
        two.say(0, 100);
        two.sides[0].told_places();
        let told = two.out(0);
        two.sides[0].try_place(two.now, there);
        assert!(two.out(0).iter().all(|opener| opener.ttl == Some(OPENER_TTL)));
        (two, told)
    };
    // What tells it is lost again and again.
    let (mut two, _) = begin();
    let low = usize::try_from(OPENER_TRIES).unwrap() - 1;
    let tried = ttls(&mut two, CHALLENGE_TRIES + 3);
    assert_eq!(tried[..low], alloc::vec![Some(OPENER_TTL); low]);
    // The way in use is doubted by then, and every other tried for that.
    assert!(tried[low..].iter().all(Option::is_none) && tried.len() >= low + 2, "{tried:?}");
    // It arrives, and that is heard: at once, and with all tries.
    let (mut two, told) = begin();
    assert_eq!(ttls(&mut two, 1), [Some(OPENER_TTL)]);
    for leaving in told {
        two.hand(1, &leaving);
    }
    two.now += ACK_DELAY;
    two.sides[1].due(two.now);
    for leaving in two.out(1) {
        two.hand(0, &leaving);
    }
    let whole: Vec<_> = two.out(0).into_iter().filter(|leaving| leaving.remote == there).collect();
    assert_eq!(whole.iter().map(|leaving| leaving.ttl).collect::<Vec<_>>(), [None]);
    assert_eq!(ttls(&mut two, CHALLENGE_TRIES + 3), alloc::vec![None; CHALLENGE_TRIES as usize - 1]);
}
