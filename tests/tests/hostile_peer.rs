//! What a peer with the right cryptography and the wrong intentions can do to a node: nothing but end its own session.
//! The speaker speaks the protocol by its book and not through the core, so it can say what the core never would.

use peerlink_core::api::{Command, Event, Output, Rejection};
use peerlink_core::bounded::List;
use peerlink_core::ids::{CallerId, Epoch, StreamId};
use peerlink_core::limits::{CREDIT_BYTES, HANDSHAKE_BYTES, IN_FLIGHT, RECORD_FRAMES};
use peerlink_core::time::Duration;
use peerlink_core::wire::frame::{Frame, Frames, Have};
use peerlink_tests::bench::{Bench, SPEAKER};
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
    bench.command(Command::Send { peer, caller: CallerId(caller), fresh: true, body: "hello".into() });
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
