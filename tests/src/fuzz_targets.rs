//! What a fuzzer calls with any bytes at all, and what `cargo test` replays over the committed corpora. Each function
//! panics if what must hold does not.

mod damaged;
mod servers;
mod story;
mod text;
mod third;

use crate::bench::{Bench, SPEAKER, address};
use crate::speaker::{Speaker, record, take_record};
use peerlink_core::api::Input;
use peerlink_core::ids::{PeerId, StreamId};
use peerlink_core::record::{
    Contact, Conversation, Counters, Entry, FORMAT, Feed, Invite, Key, Place, Profile, Record, Table,
};
use peerlink_core::ticket::Ticket;
use peerlink_core::trace;
use peerlink_core::wire::frame::{Frame, Frames};
use peerlink_core::wire::peer_record::PeerRecord;
use std::fmt;

/// A target, by the name of its corpus.
pub type Target = (&'static str, fn(&[u8]));

pub const ALL: [Target; 12] = [
    ("deframer", deframer),
    ("frames", frames),
    ("handshake", handshake),
    ("natpmp", natpmp),
    ("node", node),
    ("pcp", pcp),
    ("restore", restore),
    ("socket", socket),
    ("stored", stored),
    ("stun", stun),
    ("third", third),
    ("ticket", ticket),
];

pub use damaged::restore;
pub use servers::{natpmp, pcp, stun};
pub use story::node;
pub use text::{socket, ticket};
pub use third::third;

/// Decisions, taken off the fuzzer's bytes from the front; zeros when they have run out.
#[derive(Debug)]
struct Draw<'a>(&'a [u8]);

impl<'a> Draw<'a> {
    fn byte(&mut self) -> u8 {
        let Some((byte, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *byte
    }

    fn one_in(&mut self, many: u8) -> bool {
        self.byte().is_multiple_of(many)
    }

    const fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// The next bytes: as many as a byte says, or as are left.
    fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }
}

/// The plaintext of a record: whatever reads as a frame is written to be read again as the same.
pub fn frames(data: &[u8]) {
    for frame in Frames(data) {
        let Ok(frame) = frame else { break };
        if let Frame::Entries(run) = &frame {
            let mut run = *run;
            while let Some(item) = run.next_item() {
                if item.is_err() {
                    assert!(run.next_item().is_none(), "a bad entry ends the run");
                }
            }
        }
        let mut again = Vec::new();
        frame.encode(&mut again);
        let mut read = Frames(&again);
        assert_eq!(read.next(), Some(Ok(frame)));
        assert_eq!(read.next(), None);
    }
    let _unsigned = PeerRecord::open(&Speaker::peer(SPEAKER), data).map_err(|error| error.0);
}

/// Stored records and what people hand over as text: what reads, is written to be read again as the same.
pub fn stored(data: &[u8]) {
    fn again<T: Record + PartialEq + fmt::Debug>(data: &[u8]) {
        if let Ok(record) = T::decode(data) {
            assert_eq!(T::decode(&record.encode()), Ok(record));
        }
    }
    if let Ok(key) = Key::decode(data) {
        assert_eq!(key.encode(), data);
    }
    // What was found with an earlier format is of use with the next one too.
    let current: Vec<u8> = data.iter().take(1).map(|_| FORMAT).chain(data.iter().skip(1).copied()).collect();
    again::<Profile>(&current);
    again::<Counters>(&current);
    again::<Contact>(&current);
    again::<Invite>(&current);
    again::<Conversation>(&current);
    again::<Feed>(&current);
    again::<Entry>(&current);
    if let Ok(place) = Place::decode(Table::Order, &current) {
        assert_eq!(place.encode(), current);
    }
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(ticket) = text.parse::<Ticket>() {
        assert_eq!(ticket.to_string().parse(), Ok(ticket));
    }
    if let Ok(peer) = text.parse::<PeerId>() {
        assert_eq!(peer.to_string().parse(), Ok(peer));
    }
    let (mut scratch, mut scratch_again) = (Vec::new(), Vec::new());
    if let Ok(entry) = trace::parse(text, &mut scratch) {
        assert_eq!(trace::parse(&entry.to_string(), &mut scratch_again), Ok(entry));
    }
}

/// The three messages of a handshake: noise from anybody; good seals around any payload, from either side; and a good
/// handshake with something changed on its way, which must never lead to a session.
pub fn handshake(data: &[u8]) {
    let mut draw = Draw(data);
    match draw.byte() % 4 {
        0 => garbage(draw),
        1 => hostile_initiator(draw),
        2 => hostile_responder(draw),
        _ => changed_on_the_way(draw),
    }
}

fn garbage(mut draw: Draw<'_>) {
    let mut bench = Bench::new(false);
    let step = usize::from(draw.byte());
    let stream = bench.accept();
    bench.give(stream, draw.0, step);
    bench.run();
    assert!(!bench.is_connected());
    // A fuzzer sees what the MAC is compared with, so it can come to know the name.
    let could_be_a_first = draw.0.starts_with(&[0, 49, 1]) && draw.0.len() >= 2 + 49;
    assert!(bench.written.is_empty() || could_be_a_first, "who does not know the name hears nothing");
}

/// A payload that is the fuzzer's from its start, from behind the certificate, or from behind all that is always there,
/// which is then good, or good but for one byte.
fn payload(draw: &mut Draw<'_>, mut good: Vec<u8>) -> Vec<u8> {
    match draw.byte() % 4 {
        0 => good.clear(),
        1 => good.truncate(96),
        2 => {}
        _ => {
            let at = usize::from(draw.byte()) % good.len();
            good[at] ^= draw.byte();
        }
    }
    [&good, draw.bytes()].concat()
}

fn hostile_initiator(mut draw: Draw<'_>) {
    let peer = Bench::peer();
    let mut bench = Bench::new(false);
    let mut speaker = Speaker::new(SPEAKER, &peer);
    let stream = bench.accept();
    bench.give(stream, &record(&speaker.first(&peer)), usize::MAX);
    bench.run();
    let second = bench.written.get_mut(&stream).and_then(take_record).expect("message 2");
    let payload = payload(&mut draw, speaker.introduction(false));
    let third = speaker.third(&second, &payload).expect("message 2 checks out");
    bench.give(stream, &record(&third), usize::MAX);
    bench.run();
    if !payload.starts_with(&speaker.introduction(false)[..96]) {
        assert!(bench.closed.contains(&stream), "a stranger to the certificate");
    }
    after_the_handshake(&mut bench, stream, &mut speaker, draw);
}

fn hostile_responder(mut draw: Draw<'_>) {
    let mut bench = Bench::new(true);
    let stream = *bench.dialled.first().expect("a contact with an address is dialled");
    bench.handle(Input::StreamConnected { stream, local: address() });
    let mut speaker = Speaker::new(SPEAKER, &Speaker::peer(SPEAKER));
    let first = bench.written.get_mut(&stream).and_then(take_record).expect("message 1");
    let payload = payload(&mut draw, speaker.introduction(true));
    let second = speaker.second(&first, &payload).expect("message 1 checks out");
    bench.give(stream, &record(&second), usize::MAX);
    bench.run();
    if let Some(third) = bench.written.get_mut(&stream).and_then(take_record) {
        assert!(payload.starts_with(&speaker.introduction(true)[..96]), "said who it is to nobody");
        speaker.finish(&third).expect("message 3 checks out");
        after_the_handshake(&mut bench, stream, &mut speaker, draw);
    }
}

fn after_the_handshake(bench: &mut Bench, stream: StreamId, speaker: &mut Speaker, draw: Draw<'_>) {
    if draw.is_over() || bench.closed.contains(&stream) {
        return;
    }
    bench.give(stream, &speaker.say(draw.0), usize::MAX);
    bench.run();
}

fn changed_on_the_way(mut draw: Draw<'_>) {
    let peer = Bench::peer();
    let mut bench = Bench::new(false);
    let mut speaker = Speaker::new(SPEAKER, &peer);
    let stream = bench.accept();
    let in_the_first = draw.one_in(2);
    let good = record(&speaker.first(&peer));
    let mut first = good.clone();
    if in_the_first {
        change(&mut draw, &mut first);
    }
    bench.give(stream, &first, usize::MAX);
    bench.run();
    let second = bench.written.get_mut(&stream).and_then(take_record);
    assert_eq!(second.is_some(), first.starts_with(&good), "only who knows the name hears something");
    let Some(second) = second else { return };
    let payload = [speaker.introduction(false), vec![0, 0, 0]].concat();
    let third = record(&speaker.third(&second, &payload).expect("message 2 checks out"));
    let mut ping = Vec::new();
    Frame::Ping(1).encode(&mut ping);
    let rest = [third, speaker.say(&ping)].concat();
    let mut changed = rest.clone();
    if !in_the_first {
        change(&mut draw, &mut changed);
    }
    bench.give(stream, &changed, usize::MAX);
    bench.run();
    assert_eq!(bench.is_connected(), first == good && changed.starts_with(&rest));
}

fn change(draw: &mut Draw<'_>, bytes: &mut Vec<u8>) {
    while !draw.is_over() {
        let (what, at, with) = (draw.byte(), usize::from(draw.byte()) % bytes.len(), draw.byte());
        match what % 4 {
            0 => bytes[at] ^= with,
            1 => bytes.truncate(at.max(1)),
            2 => bytes.insert(at, with),
            _ => bytes.push(with),
        }
    }
}

/// Records inside an open session, cut as the fuzzer likes, lead to what the same records lead to uncut.
pub fn deframer(data: &[u8]) {
    let mut draw = Draw(data);
    let step = usize::from(draw.byte());
    let (mut cut, mut whole) = (Bench::new(false), Bench::new(false));
    let (stream, mut speaker) = cut.session();
    let _the_same = whole.session();
    let mut bytes = Vec::new();
    while !draw.is_over() {
        match draw.byte() % 4 {
            // A record as it should be, of any frames.
            0 | 1 => bytes.extend(speaker.say(draw.bytes())),
            // A large one, full of what must be skipped.
            2 => {
                let frame = [&[0x21, 0x7f, 0xff][..], &vec![draw.byte(); 0x3fff]].concat();
                bytes.extend(speaker.say(&frame.repeat(usize::from(draw.byte() % 4))));
            }
            _ => bytes.extend_from_slice(draw.bytes()),
        }
    }
    // Without a `run` between them, so that both make the same batches.
    let taken = [cut.give(stream, &bytes, step), whole.give(stream, &bytes, usize::MAX)];
    cut.run();
    whole.run();
    // Where a stream ends, what is behind its end in the same piece is taken with it.
    assert!(taken[0] == taken[1] || cut.closed.contains(&stream));
    assert_eq!(cut.outputs, whole.outputs);
    assert_eq!(cut.disk, whole.disk);
}
