//! Golden vectors: the bytes of every frame and handshake payload, frozen. One that moves breaks peers that are out
//! there; until 1.0 it may move together with its version and a word why.

use super::entry::{Author, Body, Chunk, Gone, Item, RunHead, put_item};
use super::frame::{
    CloseReason, Closed, Frame, Frames, Have, HaveFeed, HaveRange, NotRelayed, OpenQueue, Port, Undelivered,
    put_entries, put_grease,
};
use super::handshake::{Carrier, Certificate, Hello, Intro, decode, encode, first, prologue};
use super::peer_record::{PeerRecord, Prekey, Relay};
use super::put;
use crate::bounded::List;
use crate::identity::{Identity, IdentitySecret};
use crate::ids::{CallerId, EntryHash, Epoch, Name, QueueId, SessionId, Tag};
use crate::record::{EpochLink, Head, Kind};
use crate::time::WallClock;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt::Write as _;

fn epoch(n: u8) -> Epoch {
    Epoch([n; 16])
}

fn hash(n: u8) -> EntryHash {
    EntryHash([n; 32])
}

fn identity() -> Identity {
    Identity::new(&IdentitySecret::new([7; 32]).unwrap()).unwrap()
}

fn entries() -> Vec<u8> {
    let mut body = Vec::new();
    put(&mut body, &RunHead { author: Author::Sender, epoch: epoch(1), first: 300, prev: hash(2) });
    let item = |kind, body| Item {
        kind,
        lamport: 70_000,
        claimed: WallClock(1_790_000_000_000),
        caller: CallerId([3; 16]),
        heads: List::new(),
        link: None,
        replaces: None,
        tag: Tag([4; 16]),
        body,
    };
    put_item(&mut body, &item(Kind::Text, Body::Inline("grüße".as_bytes())));
    let mut all = item(Kind::Tombstone, Body::Dropped { len: 9, hash: hash(5) });
    all.heads = List::of([Head { epoch: epoch(6), seq: 7, hash: hash(8) }]);
    all.link = Some(EpochLink { epoch: epoch(9), last: 10, hash: hash(11) });
    all.replaces = Some(Head { epoch: epoch(13), seq: 14, hash: hash(12) });
    put_item(&mut body, &all);
    put_item(&mut body, &item(Kind::Cancel, Body::Inline(b"")));
    put_item(&mut body, &item(Kind::Read, Body::Inline(b"")));
    put_item(&mut body, &item(Kind::Text, Body::Chunked { len: 65_536, hash: hash(13) }));
    let mut out = Vec::new();
    put_entries(&mut out, &body);
    out
}

fn frames() -> Vec<(&'static str, Vec<u8>)> {
    let have = Have {
        holder: epoch(1),
        version: 300,
        credit: 524_288,
        feeds: List::of([HaveFeed {
            author: Author::Receiver,
            epoch: epoch(2),
            upto: 4,
            hash: hash(3),
            beyond: List::of([HaveRange { first: 6, last: 7, hash: hash(4) }]),
            gone: List::of([(5, 5)]),
        }]),
        closed: List::of([Closed { author: Author::Sender, epochs: 2, hash: hash(5) }]),
    };
    let chunk = Chunk { author: Author::Sender, epoch: epoch(1), seq: 2, offset: 15_360, bytes: b"part" };
    let gone =
        Gone { author: Author::Receiver, epoch: epoch(1), first: 2, last: 3, hash: hash(6), lamport: 300 };
    let reasons = [
        CloseReason::Goodbye,
        CloseReason::Replaced,
        CloseReason::Stranger,
        CloseReason::TicketUnknown,
        CloseReason::TicketExpired,
        CloseReason::TicketSpent,
        CloseReason::Full,
        CloseReason::Misbehaved,
        CloseReason::Unsupported,
    ];
    let one = |frame: Frame<'_>| {
        let mut out = Vec::new();
        frame.encode(&mut out);
        out
    };
    let mut all = alloc::vec![
        ("have", one(Frame::Have(have))),
        ("entries", entries()),
        ("chunk", one(Frame::Chunk(chunk))),
        ("gone", one(Frame::Gone(gone))),
        ("record", one(Frame::Record(b"signed bytes"))),
        ("ping", one(Frame::Ping(u64::MAX))),
        ("pong", one(Frame::Pong(1))),
        ("prekey gone", one(Frame::PrekeyGone(300))),
        ("open queue", one(Frame::OpenQueue(OpenQueue { id: QueueId([7; 16]), knock: true }))),
        ("close queue", one(Frame::CloseQueue(QueueId([7; 16])))),
        ("forward", one(Frame::Forward { to: Port::Queue(QueueId([7; 16])), packet: b"sealed" })),
        ("relayed", one(Frame::Relayed { from: Port::Back(300), packet: b"sealed" })),
        ("undelivered", one(Frame::Undelivered(Undelivered { to: Port::Back(1), why: NotRelayed::Nobody }))),
        ("observed", one(Frame::Observed("192.0.2.7:4711".parse().unwrap()))),
        ("candidates", one(Frame::Candidates(List::of(["[2001:db8::1]:4711".parse().unwrap()])))),
    ];
    all.push(("close", reasons.iter().flat_map(|reason| one(Frame::Close(*reason))).collect()));
    all
}

#[test]
fn frames_are_what_they_were() {
    let mut text = String::new();
    for (name, bytes) in frames() {
        writeln!(text, "{name}: {}", data_encoding::HEXLOWER.encode(&bytes)).unwrap();
        let mut again = Vec::new();
        for frame in Frames(&bytes) {
            frame.unwrap().encode(&mut again);
        }
        assert_eq!(again, bytes, "{name}");
    }
    let mut grease = Vec::new();
    put_grease(&mut grease, 255, b"noise");
    writeln!(text, "grease: {}", data_encoding::HEXLOWER.encode(&grease)).unwrap();
    insta::assert_snapshot!(text);
}

#[test]
fn handshakes_and_peer_records_are_what_they_were() {
    let me = identity();
    let certificate = Certificate::make(&me, 1, true, &[9; 32]);
    let hello = Hello { certificate, holder: epoch(1), start: 300, features: 0 };
    let intro = Intro {
        certificate: Certificate::make(&me, 1, false, &[9; 32]),
        holder: epoch(1),
        start: 2,
        features: 0,
        after: Some(SessionId([3; 8])),
        secret: Some([4; 16]),
        nickname: Some(Name::new("Alice").unwrap()),
    };
    let record = PeerRecord {
        version: 1,
        peer: me.peer(),
        seq: 5,
        issued: WallClock(1),
        expires: WallClock(2),
        addresses: List::of(["192.0.2.1:4711".parse().unwrap(), "[2001:db8::1]:4711".parse().unwrap()]),
        relays: List::of([Relay { peer: me.peer(), address: "192.0.2.2:1".parse().unwrap() }]),
        prekey: Some(Prekey { id: 3, hash: hash(4) }),
        features: 0,
    };
    assert_eq!(decode::<Hello>(&encode(&hello)), Ok(hello.clone()));
    assert_eq!(decode::<Intro>(&encode(&intro)), Ok(intro.clone()));
    let mut text = String::new();
    for (name, bytes) in [
        ("prologue", prologue(1, Carrier::Stream, &me.peer())),
        ("first", first(&me.peer(), &[5; 32])),
        ("hello", encode(&hello)),
        ("intro", encode(&intro)),
        ("peer record", record.sign(&me)),
    ] {
        writeln!(text, "{name}: {}", data_encoding::HEXLOWER.encode(&bytes)).unwrap();
    }
    insta::assert_snapshot!(text);
}

#[test]
fn no_flipped_bit_in_a_frame_panics() {
    for (_, bytes) in frames() {
        for bit in 0..bytes.len() * 8 {
            let mut wrong = bytes.clone();
            wrong[bit / 8] ^= 1 << (bit % 8);
            for frame in Frames(&wrong) {
                if let Ok(Frame::Entries(mut run)) = frame {
                    while let Some(Ok(_)) = run.next_item() {}
                }
            }
        }
    }
}
