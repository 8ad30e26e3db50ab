//! A peer that is not made of the core, and speaks with one that is.

use peerlink_core::api::{Command, Event, Expire, Input};
use peerlink_core::bounded::List;
use peerlink_core::ids::{CallerId, EntryHash, Epoch, FeedNo};
use peerlink_core::record::{Entry, Key, Record as _};
use peerlink_core::wire::entry::Author;
use peerlink_core::wire::frame::{Frame, Frames, Have, HaveFeed};
use peerlink_tests::bench::{Bench, SPEAKER, address};
use peerlink_tests::speaker::{Speaker, record, take_record};

#[test]
fn a_handshake_written_by_the_book_opens_a_session_from_either_side() {
    let mut bench = Bench::new(false);
    let (stream, mut speaker) = bench.session();
    let mut frames = Vec::new();
    Frame::Ping(7).encode(&mut frames);
    bench.give(stream, &speaker.say(&frames), usize::MAX);
    bench.run();
    assert!(bench.is_connected());
    assert!(hears(&mut bench, stream, &mut speaker).contains(&"Pong(7)".to_owned()));

    let mut bench = Bench::new(true);
    let dialled = bench.dialled[0];
    bench.handle(Input::StreamConnected { stream: dialled, local: address() });
    let mut speaker = Speaker::new(SPEAKER, &Speaker::peer(SPEAKER));
    let first = bench.written.get_mut(&dialled).and_then(take_record).unwrap();
    let hello = speaker.introduction(true);
    let second = speaker.second(&first, &hello).unwrap();
    bench.give(dialled, &record(&second), usize::MAX);
    bench.run();
    let third = bench.written.get_mut(&dialled).and_then(take_record).unwrap();
    assert!(speaker.finish(&third).unwrap().starts_with(Bench::peer().as_bytes()));
    bench.give(dialled, &speaker.say(&frames), usize::MAX);
    bench.run();
    assert!(bench.is_connected());
    assert!(hears(&mut bench, dialled, &mut speaker).contains(&"Pong(7)".to_owned()));
}

/// The frames that the node said, as they are shown for debugging.
fn hears(bench: &mut Bench, stream: peerlink_core::ids::StreamId, speaker: &mut Speaker) -> Vec<String> {
    let mut heard = Vec::new();
    while let Some(sealed) = bench.written.get_mut(&stream).and_then(take_record) {
        let frames = speaker.hear(&sealed).expect("a good seal");
        heard.extend(Frames(&frames).map(|frame| format!("{:?}", frame.expect("a good frame"))));
    }
    heard
}

/// What the node holds of its own feed's newest entry.
fn newest(bench: &Bench) -> Entry {
    let (first, last) = (Key::Entry { feed: FeedNo(0), seq: 0 }, Key::Entry { feed: FeedNo(9), seq: 9 });
    let (_, value) = bench.disk.range(first.encode()..=last.encode()).next_back().expect("an entry");
    Entry::decode(value).expect("a good record")
}

#[test]
fn a_message_is_delivered_by_a_have_vector_that_names_its_hash_and_by_nothing_else() {
    let mut bench = Bench::new(false);
    let (stream, mut speaker) = bench.session();
    let peer = Speaker::peer(SPEAKER);
    bench.command(Command::Send {
        peer,
        caller: CallerId([1; 16]),
        fresh: true,
        expire: Expire::Default,
        body: "hello".into(),
    });
    let heard = hears(&mut bench, stream, &mut speaker);
    assert!(heard.iter().any(|frame| frame.starts_with("Entries")), "{heard:?}");
    let hash = newest(&bench).hash;
    let lie = EntryHash([7; 32]);
    for (version, upto, named) in [(1, 1, lie), (2, 2, hash), (3, 0, hash), (4, 1, hash)] {
        let feed = HaveFeed {
            author: Author::Receiver,
            epoch: Epoch([3; 16]),
            upto,
            hash: named,
            beyond: List::new(),
            gone: List::new(),
        };
        let have = Have {
            holder: Epoch([9; 16]),
            version,
            credit: 100_000,
            feeds: List::of([feed]),
            closed: List::new(),
        };
        let mut frames = Vec::new();
        Frame::Have(have).encode(&mut frames);
        bench.give(stream, &speaker.say(&frames), usize::MAX);
        bench.run();
        let delivered = bench.events().filter(|event| matches!(event, Event::Delivered { .. })).count();
        assert_eq!(delivered, usize::from(version == 4), "version {version}");
    }
}
