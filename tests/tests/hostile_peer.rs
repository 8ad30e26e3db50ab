//! What a peer with the right cryptography and the wrong intentions can do to a node: nothing but end its own session.
//! The speaker speaks the protocol by its book and not through the core, so it can say what the core never would.

use peerlink_core::api::{Command, Event, Expire, Output, Rejection};
use peerlink_core::bounded::List;
use peerlink_core::ids::{CallerId, EntryHash, Epoch, StreamId};
use peerlink_core::limits::{
    BODY_BYTES, CREDIT_BYTES, ENTRY_COST, HANDSHAKE_BYTES, IN_FLIGHT, LAMPORT_LIMIT, OPEN_EPOCHS, RANGES,
    RECORD_FRAMES,
};
use peerlink_core::record::{Entry, Record as _, Table};
use peerlink_core::time::Duration;
use peerlink_core::wire::entry::{Author, Body, Chunk, Gone, RunHead};
use peerlink_core::wire::frame::{Frame, Frames, Have, HaveFeed};
use peerlink_tests::bench::{Bench, SPEAKER, entries, item};
use peerlink_tests::speaker::{Speaker, record, take_record};

/// Somebody whom the node does not know.
const STRANGER: u8 = 9;

fn frame(frame: &Frame<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    frame.encode(&mut out);
    out
}

fn send(bench: &mut Bench, number: u16) {
    let mut caller = [0; 16];
    caller[..2].copy_from_slice(&number.to_be_bytes());
    let peer = Speaker::peer(SPEAKER);
    bench.command(Command::Send {
        peer,
        caller: CallerId(caller),
        fresh: true,
        expire: Expire::Default,
        body: "hello".into(),
    });
}

/// How many entries the node offered on this stream, and whether it answered a ping.
fn heard(bench: &mut Bench, stream: StreamId, speaker: &mut Speaker) -> (usize, bool) {
    let (mut entries, mut pong) = (0, false);
    while let Some(sealed) = bench.written.get_mut(&stream).and_then(take_record) {
        let frames = speaker.hear(&sealed).expect("a good seal");
        for frame in Frames(&frames) {
            match frame.expect("a good frame") {
                Frame::Entries(mut run) => {
                    while let Some(item) = run.next_item() {
                        item.expect("a good entry");
                        entries += 1;
                    }
                }
                Frame::Pong(_) => pong = true,
                _ => {}
            }
        }
    }
    (entries, pong)
}

#[test]
fn a_stranger_is_refused_counted_and_forgotten() {
    let mut bench = Bench::new(false);
    let before = bench.disk.clone();
    let peer = Bench::peer();
    for attempt in 1..=20 {
        let mut speaker = Speaker::new(STRANGER, &peer);
        let stream = bench.accept();
        bench.give(stream, &record(&speaker.first(&peer)), usize::MAX);
        bench.run();
        let second = bench.written.get_mut(&stream).and_then(take_record).unwrap();
        let third = speaker.third(&second, &[speaker.introduction(false), vec![0, 0, 0]].concat()).unwrap();
        bench.give(stream, &record(&third), usize::MAX);
        bench.run();
        assert!(bench.closed.contains(&stream));
        assert_eq!(bench.node.stats().rejected_stranger, attempt);
    }
    let refused = |event: &&Event| matches!(event, Event::Rejected { peer: Some(peer), why: Rejection::Stranger, .. } if *peer == Speaker::peer(STRANGER));
    assert_eq!(bench.events().filter(refused).count(), 20);
    assert_eq!(bench.disk, before, "nothing of a stranger is stored");
    let (stream, mut speaker) = bench.session();
    bench.give(stream, &speaker.say(&frame(&Frame::Ping(1))), usize::MAX);
    bench.run();
    assert!(heard(&mut bench, stream, &mut speaker).1, "a contact is served as ever");
}

#[test]
fn a_handshake_for_another_is_answered_with_silence() {
    let mut bench = Bench::new(false);
    let stream = bench.accept();
    let other = Speaker::peer(STRANGER);
    let mut speaker = Speaker::new(SPEAKER, &other);
    bench.give(stream, &record(&speaker.first(&other)), usize::MAX);
    bench.run();
    assert_eq!(bench.written.get(&stream), None, "a scanner hears nothing");
    assert!(bench.closed.contains(&stream));
    assert_eq!(bench.node.stats().rejected_not_for_us, 1);
}

#[test]
fn a_length_that_promises_much_is_not_waited_for() {
    for length in [0, HANDSHAKE_BYTES + 1, usize::from(u16::MAX)] {
        let mut bench = Bench::new(false);
        let stream = bench.accept();
        let length = u16::try_from(length).unwrap().to_be_bytes();
        bench.give(stream, &[&length[..], &[7; 70_000]].concat(), usize::MAX);
        bench.run();
        assert!(bench.closed.contains(&stream), "{length:?}");
        assert_eq!(bench.written.get(&stream), None);
    }
}

/// Frames that no correct peer sends, with what they are.
fn wrong_frames() -> Vec<(&'static str, Vec<u8>)> {
    let ping = frame(&Frame::Ping(1));
    let have = |version| {
        let holder = Epoch([9; 16]);
        Have { holder, version, credit: 1, feeds: List::new(), closed: List::new() }
    };
    let mut padded = frame(&Frame::Have(have(1)));
    padded.push(0);
    padded[1] += 1;
    vec![
        ("an unknown frame that must be understood", vec![0x3e, 1, 0]),
        ("a frame longer than its record", vec![0x0c, 0x3f, 0]),
        ("a frame longer than any", vec![0x04, 0xbf, 0xff, 0xff, 0xff]),
        ("half a number", vec![0xff]),
        ("a ping without a number", vec![0x0c, 0]),
        ("entries without an entry", vec![0x04, 2, 0, 0]),
        ("entries of noise", [&[0x04, 60][..], &[0xa5; 60]].concat()),
        ("a have-vector with something behind it", padded),
        (
            "a list that claims four billion",
            [&[0x02, 24][..], &[9; 16], &[1, 1, 0xff, 0xff, 0xff, 0xff, 0x0f, 0]].concat(),
        ),
        ("a peer record that nobody signed", frame(&Frame::Record(&[7; 200]))),
        ("more frames than a record may hold", ping.repeat(RECORD_FRAMES + 1)),
    ]
}

#[test]
fn what_a_correct_peer_never_says_ends_its_session_and_nothing_else() {
    for (what, frames) in wrong_frames() {
        let mut bench = Bench::new(false);
        let (stream, mut speaker) = bench.session();
        bench.give(stream, &speaker.say(&frame(&Frame::Ping(1))), usize::MAX);
        bench.run();
        assert!(bench.is_connected());
        send(&mut bench, 1);
        bench.give(stream, &speaker.say(&frames), usize::MAX);
        bench.run();
        assert!(bench.closed.contains(&stream), "{what}: the session goes on");
        assert_eq!(bench.node.stats().misbehaved, 1, "{what}: not counted");
        // The message waits, and the next session brings it.
        let (stream, mut speaker) = bench.session();
        bench.give(stream, &speaker.say(&frame(&Frame::Ping(2))), usize::MAX);
        bench.run();
        let (entries, pong) = heard(&mut bench, stream, &mut speaker);
        assert_eq!((entries, pong), (1, true), "{what}: what waited is lost or doubled");
    }
}

#[test]
fn a_record_that_was_touched_on_the_way_ends_the_session() {
    let mut bench = Bench::new(false);
    let (stream, mut speaker) = bench.session();
    let mut touched = speaker.say(&frame(&Frame::Ping(1)));
    let last = touched.len() - 1;
    touched[last] ^= 1;
    bench.give(stream, &touched, usize::MAX);
    bench.run();
    assert!(bench.closed.contains(&stream));
    assert!(!heard(&mut bench, stream, &mut speaker).1, "and is not answered");
}

#[test]
fn a_frame_that_may_be_unknown_is_skipped() {
    let mut bench = Bench::new(false);
    let (stream, mut speaker) = bench.session();
    let unknown = [&[0x3f, 3, 1, 2, 3][..], &frame(&Frame::Ping(1))].concat();
    bench.give(stream, &speaker.say(&unknown), usize::MAX);
    bench.run();
    assert!(heard(&mut bench, stream, &mut speaker).1);
    assert!(!bench.closed.contains(&stream));
}

/// A peer says how much it takes; how much the node keeps track of, the node says.
#[test]
fn endless_credit_buys_no_more_than_the_node_keeps_track_of() {
    let mut bench = Bench::new(false);
    let (stream, mut speaker) = bench.session();
    let holder = Epoch([9; 16]);
    let have = Have { holder, version: 1, credit: u32::MAX, feeds: List::new(), closed: List::new() };
    bench.give(stream, &speaker.say(&frame(&Frame::Have(have))), usize::MAX);
    bench.run();
    let mut offered = 0;
    for number in 0..u16::try_from(IN_FLIGHT + 500).unwrap() {
        send(&mut bench, number);
        bench.outputs.clear();
        offered += heard(&mut bench, stream, &mut speaker).0;
    }
    assert!(offered > CREDIT_BYTES as usize / 512, "only {offered} were offered");
    assert!(offered <= IN_FLIGHT, "{offered} are on the way");
}

/// Pings, have-vectors and records without end lead to no more than an answer each, and nothing piles up.
#[test]
fn a_flood_of_small_frames_leads_to_few_answers() {
    let mut bench = Bench::new(false);
    let (stream, mut speaker) = bench.session();
    for version in 1..2_000 {
        let have =
            Have { holder: Epoch([9; 16]), version, credit: 1, feeds: List::new(), closed: List::new() };
        let frames = [frame(&Frame::Have(have)), frame(&Frame::Ping(version))].concat();
        bench.give(stream, &speaker.say(&frames), usize::MAX);
    }
    bench.outputs.clear();
    bench.run();
    let writes = bench.outputs.iter().filter(|output| matches!(output, Output::Write { .. })).count();
    assert!(writes <= 2, "{writes} writes for what one turn brought");
    assert!(!bench.closed.contains(&stream));
    bench.pass(Duration::from_secs(1));
    assert!(bench.disk.len() < 20, "{} records", bench.disk.len());
}

// --- entries -----------------------------------------------------------------------------------------------------

/// A run of texts from `first` on, in the speaker's own epoch number `epoch`.
fn texts(epoch: u8, first: u64, prev: EntryHash, texts: &[&str]) -> Vec<u8> {
    let head = RunHead { author: Author::Sender, epoch: Epoch([epoch; 16]), first, prev };
    // From the end of all numbers on, some time that could be.
    let time = |at: usize| first.saturating_add(at as u64).clamp(1, LAMPORT_LIMIT);
    let items: Vec<_> =
        texts.iter().enumerate().map(|(at, text)| item(time(at), Body::Inline(text.as_bytes()))).collect();
    entries(&head, &items)
}

/// A run of one item, the first of its feed.
fn only(lamport: u64, body: Body<'_>) -> Vec<u8> {
    let head = RunHead { author: Author::Sender, epoch: Epoch([9; 16]), first: 1, prev: EntryHash::NONE };
    entries(&head, &[item(lamport, body)])
}

fn say(bench: &mut Bench, stream: StreamId, speaker: &mut Speaker, frames: &[u8]) {
    bench.give(stream, &speaker.say(frames), usize::MAX);
    bench.run();
}

/// What the node says that it holds of this epoch, from the newest of its have-vectors.
fn held(bench: &mut Bench, stream: StreamId, speaker: &mut Speaker, epoch: u8) -> Option<HaveFeed> {
    let mut newest = None;
    while let Some(sealed) = bench.written.get_mut(&stream).and_then(take_record) {
        let frames = speaker.hear(&sealed).expect("a good seal");
        for frame in Frames(&frames) {
            if let Frame::Have(have) = frame.expect("a good frame") {
                newest = Some(have);
            }
        }
    }
    let epoch = Epoch([epoch; 16]);
    newest?.feeds.iter().find(|feed| feed.epoch == epoch && feed.author == Author::Receiver).cloned()
}

/// Texts that are on the disk, in the order of their numbers, the node's own among them.
fn stored(bench: &Bench) -> Vec<String> {
    let entries = bench.disk.iter().filter(|(key, _)| key.first() == Some(&(Table::Entry as u8)));
    let text = |value: &bytes::Bytes| String::from_utf8(Entry::decode(value).unwrap().body.to_vec()).unwrap();
    entries.map(|(_, value)| text(value)).collect()
}

fn shown(bench: &Bench) -> usize {
    bench.events().filter(|event| matches!(event, Event::Received { .. })).count()
}

/// Entries and chunks that cannot be, whatever was said before, with what they are.
fn impossible_entries() -> Vec<(&'static str, Vec<u8>)> {
    let chunk = |seq, offset, bytes: &[u8]| {
        frame(&Frame::Chunk(Chunk { author: Author::Sender, epoch: Epoch([9; 16]), seq, offset, bytes }))
    };
    let long = [7; 20_000];
    let hash = EntryHash(*blake3::hash(&long).as_bytes());
    let announced = |len| only(1, Body::Chunked { len, hash });
    let too_long = u32::try_from(BODY_BYTES + 1).unwrap();
    vec![
        ("a chunk that was not announced", chunk(1, 0, b"x")),
        ("a body longer than any", announced(too_long)),
        ("a body of four billion bytes", announced(u32::MAX)),
        ("a chunk of another entry", [announced(20_000), chunk(2, 0, b"x")].concat()),
        ("a chunk that leaves some out", [announced(20_000), chunk(1, 5, b"x")].concat()),
        ("an empty chunk", [announced(20_000), chunk(1, 0, b"")].concat()),
        ("more than was announced", [announced(3), chunk(1, 0, b"four")].concat()),
        (
            "another body than was announced",
            [announced(20_000), chunk(1, 0, &long[..10_000]), chunk(1, 10_000, &[8; 10_000])].concat(),
        ),
        ("no logical time", only(0, Body::Inline(b"x"))),
        ("a logical time that none could follow", only(LAMPORT_LIMIT + 1, Body::Inline(b"x"))),
        ("a text that is none", only(1, Body::Inline(&[0xff, 0xfe]))),
        ("numbers beyond the last", texts(9, u64::MAX, EntryHash([1; 32]), &["last", "beyond"])),
    ]
}

#[test]
fn entries_that_cannot_be_end_the_session_and_leave_no_trace() {
    for (what, frames) in impossible_entries() {
        let mut bench = Bench::new(false);
        let (stream, mut speaker) = bench.session();
        say(&mut bench, stream, &mut speaker, &frames);
        assert!(bench.closed.contains(&stream), "{what}: the session goes on");
        assert_eq!(bench.node.stats().misbehaved, 1, "{what}: not counted");
        assert!(stored(&bench).iter().all(|text| text == "last"), "{what}: {:?}", stored(&bench));
        // It may come again, and what it then says as it should counts.
        let (stream, mut speaker) = bench.session();
        say(&mut bench, stream, &mut speaker, &texts(8, 1, EntryHash::NONE, &["good"]));
        let held = held(&mut bench, stream, &mut speaker, 8).expect("acknowledged");
        assert_eq!((held.upto, stored(&bench).contains(&"good".to_owned())), (1, true), "{what}");
    }
}

#[test]
fn an_entry_that_does_not_follow_is_counted_and_never_acknowledged() {
    let mut bench = Bench::new(false);
    let (stream, mut speaker) = bench.session();
    say(&mut bench, stream, &mut speaker, &texts(9, 1, EntryHash::NONE, &["one"]));
    let one = held(&mut bench, stream, &mut speaker, 9).expect("acknowledged");
    // It names another before it than the one that is held; so does one that would close a gap.
    say(&mut bench, stream, &mut speaker, &texts(9, 3, EntryHash([5; 32]), &["three"]));
    say(&mut bench, stream, &mut speaker, &texts(9, 2, EntryHash([7; 32]), &["wrong"]));
    assert_eq!(bench.node.stats().conflicts, 1);
    say(&mut bench, stream, &mut speaker, &texts(9, 2, one.hash, &["not who three names"]));
    assert_eq!(bench.node.stats().conflicts, 2);
    // What stands beyond such a place is of no use either.
    say(&mut bench, stream, &mut speaker, &texts(9, 7, EntryHash([5; 32]), &["seven"]));
    assert_eq!(bench.node.stats().conflicts, 3);
    let held = held(&mut bench, stream, &mut speaker, 9).expect("a have-vector");
    assert_eq!((held.upto, held.hash, held.beyond.len()), (1, one.hash, 1));
    assert_eq!(stored(&bench), ["one", "three"]);
    assert_eq!(shown(&bench), 2);
}

/// Two entries under one number: the first that came is held and acknowledged, the other neither, however often and
/// on whichever session it is said.
#[test]
fn a_forked_feed_shows_one_of_its_branches() {
    let mut bench = Bench::new(false);
    let (stream, mut speaker) = bench.session();
    say(&mut bench, stream, &mut speaker, &texts(9, 1, EntryHash::NONE, &["one", "two"]));
    let before = held(&mut bench, stream, &mut speaker, 9).expect("acknowledged");
    let (mut stream, mut speaker) = (stream, speaker);
    for _ in 0..3 {
        say(&mut bench, stream, &mut speaker, &texts(9, 1, EntryHash::NONE, &["one", "fork"]));
        assert_eq!(stored(&bench), ["one", "two"]);
        if let Some(held) = held(&mut bench, stream, &mut speaker, 9) {
            assert_eq!((held.upto, held.hash), (2, before.hash), "only the first is acknowledged");
        }
        (stream, speaker) = bench.session();
    }
    assert!(bench.node.stats().conflicts >= 3);
    // The branch that is held goes on.
    say(&mut bench, stream, &mut speaker, &texts(9, 3, before.hash, &["three"]));
    assert_eq!(stored(&bench), ["one", "two", "three"]);
    assert_eq!(held(&mut bench, stream, &mut speaker, 9).expect("acknowledged").upto, 3);
    assert_eq!(shown(&bench), 3);
}

#[test]
fn epochs_gaps_and_bytes_without_end_stop_at_a_limit() {
    let mut bench = Bench::new(false);
    let (stream, mut speaker) = bench.session();
    for epoch in 20..60 {
        say(&mut bench, stream, &mut speaker, &texts(epoch, 1, EntryHash::NONE, &["again"]));
    }
    assert!(shown(&bench) <= OPEN_EPOCHS, "{} epochs", shown(&bench));
    assert!(bench.node.stats().misbehaved >= 40 - OPEN_EPOCHS as u64);
    // Gaps: every other number.
    let before = shown(&bench);
    for seq in 2..50 {
        say(&mut bench, stream, &mut speaker, &texts(20, 2 * seq, EntryHash([7; 32]), &["gap"]));
    }
    assert!((1..=RANGES).contains(&(shown(&bench) - before)), "{} gaps", shown(&bench) - before);
    // Bytes: one turn of the loop, so that nothing is acknowledged meanwhile.
    let (mut prev, text) = (EntryHash::NONE, "x".repeat(8 * 1024));
    let mut bench = Bench::new(false);
    let (stream, mut speaker) = bench.session();
    // The hash of an entry is what its successor names: another node computes it.
    let mut other = Bench::new(false);
    let (other_stream, mut other_speaker) = other.session();
    for seq in 1..100 {
        let run = texts(9, seq, prev, &[&text]);
        bench.give(stream, &speaker.say(&run), usize::MAX);
        say(&mut other, other_stream, &mut other_speaker, &run);
        prev = held(&mut other, other_stream, &mut other_speaker, 9).expect("held").hash;
    }
    let most = CREDIT_BYTES / (ENTRY_COST + 8 * 1024) + 1;
    let taken = bench.node.stats().entries_received;
    assert!((1..=u64::from(most)).contains(&taken), "{taken} entries beyond the credit");
    assert!(bench.node.stats().misbehaved > 0);
}

#[test]
fn acknowledgements_of_what_never_was_prove_nothing() {
    let mut bench = Bench::new(false);
    let (stream, mut speaker) = bench.session();
    send(&mut bench, 1);
    say(&mut bench, stream, &mut speaker, &frame(&Frame::Ping(1)));
    let claims = [(1, EntryHash([7; 32])), (2, EntryHash([7; 32])), (u64::MAX, EntryHash::NONE)];
    for (version, (upto, hash)) in (1..).zip(claims) {
        // The epoch is the node's, from its profile.
        let feed = HaveFeed {
            author: Author::Receiver,
            epoch: Epoch([3; 16]),
            upto,
            hash,
            beyond: List::new(),
            gone: List::new(),
        };
        let holder = Epoch([9; 16]);
        let have = Have { holder, version, credit: 1 << 20, feeds: List::of([feed]), closed: List::new() };
        say(&mut bench, stream, &mut speaker, &frame(&Frame::Have(have)));
        assert_eq!(bench.node.stats().doubts, 1, "it is asked for proof, once");
    }
    assert!(!bench.events().any(|event| matches!(event, Event::Delivered { .. })));
}

/// What is gone is counted as held, so one frame moves a head as far as it says: never to where counting ends.
#[test]
fn numbers_at_the_end_of_all_numbers_are_turned_away() {
    let mut bench = Bench::new(false);
    let (stream, mut speaker) = bench.session();
    let hash = EntryHash([7; 32]);
    let (author, epoch) = (Author::Sender, Epoch([9; 16]));
    let gone = Gone { author, epoch, first: 1, last: u64::MAX - 1, hash, lamport: 1 };
    say(&mut bench, stream, &mut speaker, &frame(&Frame::Gone(gone)));
    let (stream, mut speaker) = bench.session();
    say(&mut bench, stream, &mut speaker, &texts(9, u64::MAX, hash, &["the last of all"]));
    let (stream, mut speaker) = bench.session();
    say(&mut bench, stream, &mut speaker, &texts(9, 1, EntryHash::NONE, &["good"]));
    let held = held(&mut bench, stream, &mut speaker, 9).expect("acknowledged");
    assert_eq!((held.upto, stored(&bench)), (1, vec!["good".to_owned()]));
}

#[test]
fn frames_that_nobody_asked_for_change_nothing() {
    let mut bench = Bench::new(false);
    let (stream, mut speaker) = bench.session();
    let before = bench.disk.clone();
    let head = RunHead { author: Author::Receiver, epoch: Epoch([9; 16]), first: 1, prev: EntryHash::NONE };
    let gone = Gone {
        author: Author::Sender,
        epoch: Epoch([9; 16]),
        first: 1,
        last: u64::MAX,
        hash: EntryHash([7; 32]),
        lamport: 1,
    };
    for frames in [
        frame(&Frame::Pong(4711)),
        frame(&Frame::Gone(gone)),
        frame(&Frame::PrekeyGone(7)),
        entries(&head, &[item(1, Body::Inline(b"this is yours, believe me"))]),
    ] {
        say(&mut bench, stream, &mut speaker, &frames);
        assert_eq!(bench.disk, before);
    }
    say(&mut bench, stream, &mut speaker, &frame(&Frame::Ping(1)));
    assert!(heard(&mut bench, stream, &mut speaker).1 && !bench.closed.contains(&stream));
}

/// Two processes of one identity: of the first, which has died since, the last bytes of its handshake come late.
#[test]
fn a_handshake_that_comes_late_replaces_no_session_that_began_after_it() {
    for late in [true, false] {
        let mut bench = Bench::new(false);
        let peer = Bench::peer();
        let begin = |bench: &mut Bench, number: u8| {
            let mut speaker = Speaker::of([SPEAKER; 32], [number; 32], &peer).another(number);
            let stream = bench.accept();
            bench.give(stream, &record(&speaker.first(&peer)), usize::MAX);
            bench.run();
            bench.now += Duration::from_millis(100);
            (stream, speaker)
        };
        let complete = |bench: &mut Bench, stream: StreamId, speaker: &mut Speaker| {
            let second = bench.written.get_mut(&stream).and_then(take_record).unwrap();
            let payload = [speaker.introduction(false), vec![0, 0, 0]].concat();
            let third = speaker.third(&second, &payload).unwrap();
            bench.give(stream, &record(&third), usize::MAX);
            bench.run();
        };
        let speak = |bench: &mut Bench, stream: StreamId, speaker: &mut Speaker| {
            bench.give(stream, &speaker.say(&frame(&Frame::Ping(1))), usize::MAX);
            bench.run();
            heard(bench, stream, speaker).1
        };
        let (dead_stream, mut dead) = begin(&mut bench, 70);
        if !late {
            complete(&mut bench, dead_stream, &mut dead);
            assert!(speak(&mut bench, dead_stream, &mut dead));
        }
        let (stream, mut live) = begin(&mut bench, 71);
        complete(&mut bench, stream, &mut live);
        assert!(speak(&mut bench, stream, &mut live));
        if late {
            complete(&mut bench, dead_stream, &mut dead);
        } else {
            assert!(bench.closed.contains(&dead_stream), "the newer process replaces the older at once");
        }
        assert!(!bench.closed.contains(&stream), "late: {late}");
        send(&mut bench, 1);
        bench.run();
        assert_eq!(heard(&mut bench, stream, &mut live).0, 1, "the live one carries what is said");
    }
}
