//! Arbitrary stories of a node: two that converse through whatever befalls them, or one that is told anything.

#[path = "../../../core/tests/pair/mod.rs"]
pub(super) mod pair;

use super::Draw;
use crate::bench::{Bench, SPEAKER, address};
use crate::speaker::Speaker;
use bytes::Bytes;
use pair::{ALICE, BOB, Pair};
use peerlink_core::api::{Answer, Command, DialFailure, Event, Expire, Input, Page, StreamEnd};
use peerlink_core::bounded::List;
use peerlink_core::ids::{BatchId, CallerId, EntryHash, Epoch, LoadId, Name, StreamId};
use peerlink_core::record::{Entry, Key, Record as _, Table};
use peerlink_core::ticket::{Ticket, TicketSecret};
use peerlink_core::time::{Duration, WallClock};
use peerlink_core::wire::entry::{Author, Body, Chunk, Gone, Item, RunHead};
use peerlink_core::wire::frame::{CloseReason, Frame, Have, HaveFeed, HaveRange};

/// Steps of one story.
const STEPS: usize = 64;

/// Two nodes, or one.
pub fn node(data: &[u8]) {
    let mut draw = Draw(data);
    if draw.one_in(2) { together(draw) } else { alone(draw) }
}

// --- two nodes ---------------------------------------------------------------------------------------------------

/// Whatever befalls them: in the end everything that was queued is delivered, once, and both hold the same.
fn together(mut draw: Draw<'_>) {
    let mut pair = Pair::met();
    let mut sent: [Vec<Command>; 2] = Default::default();
    for step in 0..STEPS {
        if draw.is_over() {
            break;
        }
        let what = draw.byte();
        let side = usize::from(what >> 7);
        match what % 12 {
            0..=3 => send(&mut pair, &mut sent[side], &mut draw, side, step),
            4 => pair.cut(),
            5 => pair.cut_one(side),
            6 => {
                pair.crash(side);
                pair.start(side);
            }
            7 => pair.sides[side].slow = !pair.sides[side].slow,
            8 => {
                pair.sync(side);
            }
            9 => pair.silent = !pair.silent,
            10 => pair.refuse = !pair.refuse,
            _ => {
                pair.now += Duration::from_millis(u64::from(draw.byte()) * 100);
                pair.handle(ALICE, Input::Tick);
                pair.handle(BOB, Input::Tick);
            }
        }
        if draw.one_in(2) {
            pair.settle();
        }
    }
    heal(&mut pair, &sent);
}

pub(super) fn send(pair: &mut Pair, sent: &mut Vec<Command>, draw: &mut Draw<'_>, side: usize, step: usize) {
    let length = [0, 10, 1_000, 9_000, 20_000][usize::from(draw.byte()) % 5];
    let text = format!("{side} {step} {}", "x".repeat(length));
    let caller = pair::caller(u32::try_from(step).unwrap_or_default());
    let peer = pair.peer(1 - side);
    let send = Command::Send { peer, caller, fresh: false, expire: Expire::Default, body: Bytes::from(text) };
    sent.push(send.clone());
    let _refused_is_asked_again = pair.command(side, send);
}

/// Nothing stands in their way any more: everything arrives, and neither blames the other.
pub(super) fn heal(pair: &mut Pair, sent: &[Vec<Command>; 2]) {
    (pair.silent, pair.refuse) = (false, false);
    pair.cut();
    for side in [ALICE, BOB] {
        pair.sides[side].slow = false;
        pair.crash(side);
        pair.start(side);
    }
    pair.settle();
    for side in [ALICE, BOB] {
        for send in &sent[side] {
            pair.command(side, send.clone()).expect("nothing stands against it");
            pair.settle();
        }
    }
    let count = |side: usize| sent[side].len() as u64;
    pair.drive_until("everything is delivered", |pair| {
        [ALICE, BOB].iter().all(|side| pair.acknowledged(*side) == count(*side))
    });
    assert_eq!(pair.history(ALICE), pair.history(BOB));
    assert_eq!(pair.history(ALICE).len(), sent[ALICE].len() + sent[BOB].len());
    for side in [ALICE, BOB] {
        let other = pair.peer(1 - side);
        let blames = |event: &Event| matches!(event, Event::Misbehaved { peer, .. } if *peer == other);
        assert_eq!(pair.count(side, blames), 0);
    }
}

// --- one node ----------------------------------------------------------------------------------------------------

/// Told anything at all, by its driver, its user, and a contact with good keys, it does not panic, does not spin, keeps
/// within its limits, and starts again from whatever it stored.
fn alone(mut draw: Draw<'_>) {
    let mut bench = Bench::new(draw.one_in(2));
    let mut session = bench.try_session();
    for _ in 0..STEPS {
        if draw.is_over() {
            break;
        }
        match draw.byte() % 10 {
            0 | 1 => {
                let command = command(&mut draw);
                bench.command(command);
            }
            2 => fact(&mut bench, &mut draw),
            3 => bench.pass(Duration::from_millis(u64::from(draw.byte()) * 500)),
            4 => {
                bench.hold_loads = !bench.hold_loads;
                bench.answer();
                bench.run();
            }
            5 => session = bench.try_session(),
            _ => {
                let Some((stream, speaker)) = &mut session else { continue };
                let frames = frames(&bench.disk, &mut draw);
                bench.give(*stream, &speaker.say(&frames), usize::MAX);
                bench.run();
            }
        }
    }
    bench.pass(Duration::from_secs(3600));
    bench.restart().expect("a node starts from what it stored");
}

fn expire(draw: &mut Draw<'_>) -> Expire {
    match draw.byte() {
        0..128 => Expire::Default,
        128..160 => Expire::Never,
        byte => Expire::After(Duration::from_secs(u64::from(byte - 160))),
    }
}

fn command(draw: &mut Draw<'_>) -> Command {
    let peer = if draw.one_in(8) { Speaker::peer(3) } else { Speaker::peer(SPEAKER) };
    let secret = TicketSecret([draw.byte(); 16]);
    let name = |draw: &mut Draw<'_>| Name::lossy(&String::from_utf8_lossy(draw.bytes()));
    let expires = WallClock(1_790_000_000_000 + u64::from(draw.byte()) * 10_000);
    match draw.byte() % 16 {
        0..=4 => Command::Send {
            peer,
            caller: CallerId([draw.byte() % 8; 16]),
            fresh: draw.one_in(2),
            expire: expire(draw),
            body: Bytes::from(draw.bytes().repeat(1 + usize::from(draw.byte()))),
        },
        5 => Command::Invite { secret, expires },
        6 => Command::Add {
            ticket: Box::new(Ticket {
                peer,
                secret,
                nickname: name(draw),
                expires,
                addresses: List::of([address()]),
                relays: List::new(),
            }),
            petname: name(draw).unwrap_or_else(|| Name::new("somebody").expect("a name")),
        },
        7 => Command::Rename { peer, petname: Name::new("renamed").expect("a name") },
        8 => Command::Remove { peer },
        9 => Command::Block { peer, blocked: draw.one_in(2) },
        10 => Command::Verify { peer, verified: draw.one_in(2) },
        11 => Command::MarkRead { peer, ordinal: number(draw) },
        12 => Command::SetNickname { nickname: name(draw) },
        13 => Command::Advertise { addresses: List::of([address()]) },
        14 => Command::Reach { peer },
        _ if draw.one_in(16) => Command::Shutdown,
        _ => Command::Reach { peer },
    }
}

/// Small, or at an end of what there is.
fn number(draw: &mut Draw<'_>) -> u64 {
    match draw.byte() {
        small @ 0..0xf0 => u64::from(small % 16),
        large => u64::MAX - u64::from(0xff - large),
    }
}

/// What a driver says, whether or not it happened.
fn fact(bench: &mut Bench, draw: &mut Draw<'_>) {
    let stream = StreamId(number(draw));
    let records = |draw: &mut Draw<'_>| {
        let key = Key::Entry { feed: peerlink_core::ids::FeedNo(1), seq: number(draw) }.encode();
        vec![(key, Bytes::copy_from_slice(draw.bytes()))]
    };
    let input = match draw.byte() % 13 {
        0 => Input::Tick,
        1 => Input::StreamAccepted { stream, remote: ([192, 0, 2, draw.byte()], 1).into() },
        2 => Input::StreamConnected { stream, local: address() },
        3 => Input::DialFailed { stream, why: DialFailure::Refused },
        4 => Input::StreamData { stream, bytes: draw.bytes() },
        5 => Input::StreamWritten { stream },
        6 => Input::StreamClosed { stream, why: StreamEnd::Broken },
        7 => Input::Persisted { batch: BatchId(number(draw)) },
        8 if draw.one_in(16) => Input::PersistFailed { batch: BatchId(number(draw)) },
        9 => {
            let page = Page { records: records(draw), complete: draw.one_in(2) };
            Input::Loaded { load: LoadId(number(draw)), answer: Answer::Page(page) }
        }
        10 => Input::Loaded { load: LoadId(number(draw)), answer: Answer::Damaged },
        11 => Input::WallClock(WallClock(number(draw))),
        _ => Input::LocalAddresses(List::of([address()])),
    };
    bench.handle(input);
}

/// What a contact says: frames that could be true, or nearly, or are not even frames.
pub(super) fn frames(disk: &pair::Disk, draw: &mut Draw<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    for _ in 0..=draw.byte() % 4 {
        match draw.byte() % 9 {
            0 | 1 => Frame::Have(have(disk, draw)).encode(&mut out),
            2..=4 => entries(disk, draw, &mut out),
            5 => {
                let (author, epoch) = feed(draw);
                let offset = u32::from(draw.byte()) * 100;
                let bytes = draw.bytes();
                Frame::Chunk(Chunk { author, epoch, seq: number(draw), offset, bytes }).encode(&mut out);
            }
            6 => {
                let (author, epoch) = feed(draw);
                let (first, last, hash) = (number(draw), number(draw), hash(disk, draw));
                Frame::Gone(Gone { author, epoch, first, last, hash, lamport: last % 64 }).encode(&mut out);
            }
            7 => match draw.byte() % 4 {
                0 => Frame::Ping(number(draw)).encode(&mut out),
                1 => Frame::Pong(number(draw)).encode(&mut out),
                2 => Frame::Record(draw.bytes()).encode(&mut out),
                _ => Frame::Close(CloseReason::Goodbye).encode(&mut out),
            },
            _ => out.extend_from_slice(draw.bytes()),
        }
    }
    out
}

fn feed(draw: &mut Draw<'_>) -> (Author, Epoch) {
    let author = if draw.one_in(2) { Author::Sender } else { Author::Receiver };
    // The node's own epoch is one of these.
    (author, Epoch([draw.byte() % 16; 16]))
}

/// Nothing's, an entry's that the node holds, or nobody's.
fn hash(disk: &pair::Disk, draw: &mut Draw<'_>) -> EntryHash {
    let which = usize::from(draw.byte());
    let entries = disk.iter().filter(|(key, _)| key.first() == Some(&(Table::Entry as u8)));
    let held = entries.filter_map(|(_, value)| Entry::decode(value).ok());
    match which {
        0 => EntryHash::NONE,
        255 => EntryHash([7; 32]),
        which => held.map(|entry| entry.hash).nth((which - 1) % 16).unwrap_or(EntryHash::NONE),
    }
}

fn have(disk: &pair::Disk, draw: &mut Draw<'_>) -> Have {
    let feeds = (0..draw.byte() % 4).map(|_| {
        let (author, epoch) = feed(draw);
        let beyond = (0..draw.byte() % 3).map(|_| HaveRange {
            first: number(draw),
            last: number(draw),
            hash: hash(disk, draw),
        });
        let beyond = List::of(beyond.collect::<Vec<_>>());
        let gone = List::of((0..draw.byte() % 2).map(|_| (number(draw), number(draw))).collect::<Vec<_>>());
        HaveFeed { author, epoch, upto: number(draw), hash: hash(disk, draw), beyond, gone }
    });
    let feeds = List::of(feeds.collect::<Vec<_>>());
    Have {
        holder: Epoch([draw.byte(); 16]),
        version: number(draw),
        credit: u32::from(draw.byte()) << 12,
        feeds,
        closed: List::new(),
    }
}

/// A run of entries, of any kind and anywhere.
fn entries(disk: &pair::Disk, draw: &mut Draw<'_>, out: &mut Vec<u8>) {
    let (author, epoch) = feed(draw);
    let head = RunHead { author, epoch, first: number(draw), prev: hash(disk, draw) };
    let items: Vec<Item<'_>> = (0..=draw.byte() % 4)
        .map(|_| {
            let (text, lamport, claimed) = (draw.bytes(), number(draw), WallClock(number(draw)));
            let caller = CallerId([draw.byte(); 16]);
            let body = match draw.byte() % 4 {
                0 => Body::Chunked { len: u32::from(draw.byte()) * 300, hash: hash(disk, draw) },
                1 => Body::Dropped { len: u32::from(draw.byte()) * 300, hash: hash(disk, draw) },
                _ => Body::Inline(text),
            };
            Item { claimed, caller, ..crate::bench::item(lamport, body) }
        })
        .collect();
    out.extend(crate::bench::entries(&head, &items));
}
