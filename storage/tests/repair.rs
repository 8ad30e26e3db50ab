//! The self-check at the ends of feeds, and what a repair makes of damaged stores.

mod support;

use bytes::Bytes;
use peerlink_core::api::Store;
use peerlink_core::bounded::List;
use peerlink_core::identity::IdentitySecret;
use peerlink_core::ids::{Epoch, FeedNo};
use peerlink_core::record::{
    Conversation, Counters, Entry, Feed, Key, KeyBytes, Place, Profile, Range, Record, Table,
};
use peerlink_core::time::{Age, Instant, WallClock};
use peerlink_core::{Config, Restore};
use peerlink_storage::{Message, OpenError, Repaired};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use support::{
    CONVERSATION, MINE, PEERS, batch, beginning, copy, entry_key, feed, files, journal, more, open, peer,
};

const PAIRS: u64 = 40;

/// Half of a conversation in tables, half in the journal, one batch for each pair.
fn make(store: &Path) {
    let (mut writer, pages, reader) = open(store);
    writer.commit(&[beginning()]).unwrap();
    (1..=PAIRS / 2).for_each(|n| writer.commit(&[more(n)]).unwrap());
    writer.close();
    drop((writer, pages, reader));
    let (mut writer, _pages, _reader) = open(store);
    (PAIRS / 2 + 1..=PAIRS).for_each(|n| writer.commit(&[more(n)]).unwrap());
}

/// Who we are: with a lower PeerId than the contact's, as [`support::order`] has it.
fn me() -> u8 {
    (3..).find(|number| peer(*number) < peer(2)).unwrap()
}

fn checked(store: &Path) -> Result<(), String> {
    let opened = peerlink_storage::open(store).map_err(|error| error.to_string())?;
    opened.check_heads().map_err(|error| error.to_string())
}

#[test]
fn heads_and_counters_that_do_not_agree_with_the_entries_are_noticed() {
    let whole = tempfile::tempdir().unwrap();
    make(whole.path());
    assert_eq!(checked(whole.path()), Ok(()));
    type Write = (KeyBytes, Option<Bytes>);
    let cases: [(&str, Write); 6] = [
        ("a head whose entry, which is not there", (entry_key(MINE, PAIRS), None)),
        ("a head whose entry, which is not there", (entry_key(PEERS, PAIRS), None)),
        (
            "a head whose entry is another",
            (Key::Feed(FeedNo(PEERS)).encode(), {
                let mut feed = feed(false, PAIRS);
                feed.hash = support::hash(1);
                Some(feed.encode())
            }),
        ),
        ("that no head knows", (Key::Feed(FeedNo(PEERS)).encode(), Some(feed(false, PAIRS - 1).encode()))),
        (
            "that was not counted",
            (Key::Counters.encode(), Some(Counters { arrival: PAIRS - 1, version: 9 }.encode())),
        ),
        (
            "a head whose entry, which is not there",
            (Key::Feed(FeedNo(PEERS)).encode(), {
                let mut feed = feed(false, PAIRS);
                feed.beyond = peerlink_core::bounded::List::of([support::range(PAIRS + 2, PAIRS + 3)]);
                Some(feed.encode())
            }),
        ),
    ];
    for (what, write) in cases {
        let dir = tempfile::tempdir().unwrap();
        copy(&files(whole.path()), whole.path(), dir.path());
        let (mut writer, pages, reader) = open(dir.path());
        writer.commit(&[batch(99, vec![write])]).unwrap();
        drop((writer, pages, reader));
        let error = checked(dir.path()).unwrap_err();
        assert!(error.contains(what), "{what}: {error}");
    }
}

/// What is in a store, read as front ends do.
struct Content {
    names: Vec<String>,
    messages: Vec<Message>,
    profile: Profile,
    counters: Counters,
    /// The peer's messages that are known to be missing.
    missing: u64,
}

fn content(store: &Path) -> Content {
    let opened = peerlink_storage::open(store).unwrap();
    opened.check_heads().unwrap();
    let secret = IdentitySecret::new([me(); 32]).unwrap();
    let mut restore = Restore::new(Config::default(), &secret, [9; 32]);
    opened.restore(|key, value| restore.record(key, value)).unwrap();
    restore.start(Instant::ZERO, WallClock(1)).unwrap();
    let (_writer, _pages, reader) = opened.split();
    Content {
        names: reader.contacts().unwrap().into_iter().map(|info| info.contact.petname.to_string()).collect(),
        messages: reader.latest(CONVERSATION, usize::MAX).unwrap(),
        profile: reader.profile().unwrap().unwrap(),
        counters: reader.counters().unwrap(),
        missing: reader.counts(CONVERSATION).unwrap().missing,
    }
}

/// Repairs a copy of `files` and holds to account what comes of it. What each outcome must have, whatever was damaged:
/// the damaged store as it was, nothing that was not written, and counters beyond all that was given out.
fn repair(original: &Content, files: &BTreeMap<PathBuf, Vec<u8>>, from: &Path) -> (Content, Repaired) {
    let dir = tempfile::tempdir().unwrap();
    let (store, aside) = (dir.path().join("store"), dir.path().join("aside"));
    copy(files, from, &store);
    let before = support::files(&store);
    let repaired = peerlink_storage::repair(&store, &aside, peer(me())).unwrap();
    let left = support::files(&aside);
    for (path, bytes) in &before {
        let now = left.get(&aside.join(path.strip_prefix(&store).unwrap()));
        assert!(now == Some(bytes), "{} is as it was", path.display());
    }
    let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names.count(), 2, "nothing else stays");
    peerlink_storage::check(&store).unwrap();
    let content = content(&store);
    assert_eq!(content.profile.epoch, Epoch::TO_BE_DRAWN);
    for message in &content.messages {
        let same = original.messages.iter().find(|one| one.message == message.message).unwrap();
        assert_eq!((&same.body, same.order, same.arrival), (&message.body, message.order, message.arrival));
    }
    assert_eq!(content.messages.len() as u64, repaired.entries);
    assert!(content.counters.arrival >= 1_000_000 && content.profile.record_seq >= 1_000_000);
    (content, repaired)
}

#[test]
fn a_repair_keeps_what_can_be_read_and_says_what_it_could_not() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let files = files(dir.path());
    let original = content(dir.path());
    assert_eq!(original.messages.len() as u64, 2 * PAIRS);
    let path = journal(dir.path());
    let bytes = &files[&path];
    let batches: Vec<usize> =
        bytes.windows(5).enumerate().filter(|(_, it)| *it == b"FJL\x03\x01").map(|(at, _)| at + 4).collect();
    let with = |bytes: &[u8]| {
        let mut files = files.clone();
        files.insert(path.clone(), bytes.to_vec());
        repair(&original, &files, dir.path())
    };

    // The end is gone: eight commits and a half.
    let (found, said) = with(&bytes[..batches[10] + 9]);
    assert_eq!((found.messages.len() as u64, said.lost_commits), (2 * (PAIRS / 2 + 11), 9));
    assert_eq!(found.names, ["Bob"]);

    // A spot in the middle: one commit, and what leads to it.
    let mut spot = bytes.clone();
    spot[batches[10] + 60] ^= 4;
    let (found, said) = with(&spot);
    assert_eq!((found.messages.len() as u64, said.lost_commits, said.missing), (2 * PAIRS - 2, 0, 2));
    assert_eq!(said.unreadable.len(), 1);
    assert!(found.messages.iter().all(|message| message.message.seq != PAIRS / 2 + 12));

    // Two spots: what lies between them is not believed.
    spot[batches[14] + 60] ^= 4;
    let (found, said) = with(&spot);
    assert_eq!((found.messages.len() as u64, said.missing), (2 * PAIRS - 10, 10));

    // The journal is gone; everything else is gone.
    let (found, said) = with(&[]);
    assert_eq!((found.messages.len() as u64, said.lost_commits), (PAIRS, PAIRS / 2));
    let without = |gone: &str| {
        let left = files.iter().filter(|(path, _)| !path.starts_with(dir.path().join(gone)));
        repair(&original, &left.map(|(path, bytes)| (path.clone(), bytes.clone())).collect(), dir.path())
    };
    assert_eq!(without("format").0.messages.len() as u64, 2 * PAIRS);
    assert_eq!(without("db/keyspaces/1/current").0.messages.len() as u64, 2 * PAIRS);
    let (found, said) = without("db/keyspaces");
    assert_eq!(
        (found.names.len(), found.messages.len()),
        (0, 0),
        "heads and contact were in the tables: {said:?}"
    );
    let (found, said) = without("db");
    assert_eq!((found.names.len(), said.lost_commits), (0, PAIRS + 1));
}

#[test]
fn what_expires_is_found_again() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let (feed, place) = (FeedNo(MINE), |seq| Place { feed: FeedNo(MINE), seq }.encode());
    let key = |seq: u64| Key::Expiry { at: Age(1000 - seq), feed, seq }.encode();
    let (mut writer, mut pages, reader) = open(dir.path());
    let entry = |pages: &mut _, seq| {
        let page = support::load(pages, entry_key(MINE, seq), entry_key(MINE, seq), 1);
        let entry = Entry::decode(&page.records[0].1).unwrap();
        Entry { expires: Some(Age(1000 - seq)), ..entry }.encode()
    };
    let mut writes =
        vec![(key(3), Some(place(3))), (Key::Lived.encode(), Some(Bytes::from_static(b"damaged")))];
    writes.extend([3, 5].map(|seq| (entry_key(MINE, seq), Some(entry(&mut pages, seq)))));
    // It leads somewhere in a way that no node writes.
    writes.push((key(7), Some(Bytes::from_static(b"damaged"))));
    writer.commit(&[batch(99, writes)]).unwrap();
    drop((writer, pages, reader));
    let aside = tempfile::tempdir().unwrap();
    peerlink_storage::repair(dir.path(), &aside.path().join("aside"), peer(me())).unwrap();
    let (writer, mut pages, reader) = open(dir.path());
    let first = Key::Expiry { at: Age(0), feed: FeedNo(0), seq: 0 }.encode();
    let last = Key::Expiry { at: Age(u64::MAX), feed: FeedNo(u32::MAX), seq: u64::MAX }.encode();
    let found = support::load(&mut pages, first, last, support::PAGE).records;
    assert_eq!(found, [(key(5), place(5)), (key(3), place(3))]);
    drop((writer, pages, reader));
    content(dir.path());
}

#[test]
fn whatever_bit_is_wrong_a_repair_makes_a_store_to_start_from() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let (files, original) = (files(dir.path()), content(dir.path()));
    let mut found = Vec::new();
    for (path, bytes) in &files {
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for turn in 0..8.min(used) {
            let mut damaged = files.clone();
            let at = turn * used / 8.min(used);
            damaged.get_mut(path).unwrap()[at] ^= 1 << (turn % 8);
            let (content, said) = repair(&original, &damaged, dir.path());
            let all = content.messages.len() as u64 == 2 * PAIRS;
            assert!(all || said.missing + said.lost_commits > 0 || !said.unreadable.is_empty(), "{said:?}");
            let theirs = content.messages.iter().filter(|message| !message.mine);
            let (last, theirs) =
                theirs.fold((0, 0), |(last, count), it| (it.message.seq.max(last), count + 1));
            assert_eq!(last, theirs + content.missing, "byte {at} of {}: {said:?}", path.display());
            assert_eq!(content.names, ["Bob"], "byte {at} of {}: {said:?}", path.display());
            found.push(content.messages.len());
        }
    }
    println!("{found:?}");
    assert!(found.iter().all(|found| *found as u64 >= PAIRS), "most of it is read every time");
}

#[test]
fn a_store_that_is_in_use_or_newer_is_not_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let (store, aside) = (dir.path().join("store"), dir.path().join("aside"));
    make(&store);
    let held = open(&store);
    let refused = peerlink_storage::repair(&store, &aside, peer(me()));
    assert!(matches!(refused, Err(OpenError::InUse { .. })));
    drop(held);
    fs::write(store.join("format"), "peerlink store 9\n".repeat(2)).unwrap();
    let refused = peerlink_storage::repair(&store, &aside, peer(me()));
    assert!(matches!(refused, Err(OpenError::Newer { .. })));
    assert!(!aside.exists());
}

#[test]
fn a_contact_comes_back_without_its_conversation() {
    let dir = tempfile::tempdir().unwrap();
    let (store, aside) = (dir.path().join("store"), dir.path().join("aside"));
    make(&store);
    let (mut writer, pages, reader) = open(&store);
    let none: Option<Conversation> = None;
    let key = Key::Conversation(CONVERSATION).encode();
    writer.commit(&[batch(1, vec![(key, none.map(|it| it.encode()))])]).unwrap();
    drop((writer, pages, reader));
    peerlink_storage::repair(&store, &aside, peer(me())).unwrap();
    assert_eq!(content(&store).messages.len() as u64, 2 * PAIRS);
}

#[test]
fn what_the_user_deleted_does_not_count_as_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (store, aside) = (dir.path().join("store"), dir.path().join("aside"));
    make(&store);
    let (mut writer, pages, reader) = open(&store);
    let mut writes = Vec::new();
    for seq in 1..=10 {
        for (mine, feed) in [(true, MINE), (false, PEERS)] {
            let lamport = if mine { 2 * seq - 1 } else { 2 * seq };
            writes.push((entry_key(feed, seq), None));
            writes.push((Key::Order(support::order(mine, lamport, seq)).encode(), None));
        }
        writes.push((Key::Arrival(seq).encode(), None));
    }
    writer.commit(&[batch(99, writes)]).unwrap();
    drop((writer, pages, reader));
    fs::remove_file(store.join("format")).unwrap();
    let repaired = peerlink_storage::repair(&store, &aside, peer(me())).unwrap();
    assert_eq!((repaired.entries, repaired.missing), (2 * (PAIRS - 10), 0));
    let (found, (_writer, _pages, reader)) = (content(&store), open(&store));
    assert_eq!((found.messages.len() as u64, found.missing), (2 * (PAIRS - 10), 0));
    assert_eq!(reader.counts(CONVERSATION).unwrap().sent, PAIRS, "heads are where they were");
}

/// What a gap hides still comes: a repair must not take it for deleted. And what is beyond one in an own feed stays.
#[test]
fn a_gap_is_a_gap_after_a_repair() {
    let dir = tempfile::tempdir().unwrap();
    let (store, aside) = (dir.path().join("store"), dir.path().join("aside"));
    make(&store);
    let (mut writer, pages, reader) = open(&store);
    let beyond =
        || List::of([Range { prev: support::hash(PAIRS + 2), ..support::range(PAIRS + 3, PAIRS + 3) }]);
    let (mut own, mut theirs) = (feed(true, PAIRS), feed(false, PAIRS));
    for (feed, hash) in [(&mut own, PAIRS + 3), (&mut theirs, PAIRS + 3)] {
        feed.beyond = beyond();
        feed.lamport = 2 * PAIRS + 6;
        feed.beyond.first_mut().unwrap().hash = support::hash(hash);
    }
    (own.acked, own.acked_hash, own.acked_beyond) = (own.head, own.hash, own.beyond.clone());
    let mut writes = vec![
        (Key::Feed(FeedNo(MINE)).encode(), Some(own.encode())),
        (Key::Feed(FeedNo(PEERS)).encode(), Some(theirs.encode())),
        (Key::Counters.encode(), Some(Counters { arrival: PAIRS + 1, version: 99 }.encode())),
    ];
    writes.extend(support::entry(true, PAIRS + 3, 2 * PAIRS + 5, 0));
    writes.extend(support::entry(false, PAIRS + 3, 2 * PAIRS + 6, PAIRS + 1));
    writer.commit(&[batch(99, writes)]).unwrap();
    drop((writer, pages, reader));
    fs::remove_file(store.join("format")).unwrap();
    peerlink_storage::repair(&store, &aside, peer(me())).unwrap();
    let found = content(&store);
    assert_eq!((found.messages.len() as u64, found.missing), (2 * PAIRS + 2, 2));
    let feeds: Vec<Feed> = support::restored(&store)
        .iter()
        .filter(|(key, _)| key[0] == Table::Feed as u8)
        .map(|(_, value)| Feed::decode(value).unwrap())
        .collect();
    assert_eq!(feeds, [own, theirs]);
}
