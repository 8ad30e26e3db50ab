//! Batches and conversations for the tests of the store.
#![allow(dead_code, unreachable_pub, reason = "every test file uses its own part")]

use bytes::Bytes;
use peerlink_core::api::{Answer, Batch, KeyRange, Loader, Page};
use peerlink_core::bounded::List;
use peerlink_core::ids::{BatchId, CallerId, ConversationNo, EntryHash, Epoch, FeedNo, Name, PeerId, Tag};
use peerlink_core::record::{
    Contact, ContactState, Conversation, Counters, Entry, Feed, Key, KeyBytes, Kind, OrderKey, Place,
    Profile, Range, Record,
};
use peerlink_core::time::WallClock;
use peerlink_storage::{PageReader, Reader, Writer};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

pub const PAGE: u32 = 64 * 1024;

pub fn open(path: &Path) -> (Writer, PageReader, Reader) {
    peerlink_storage::open(path).unwrap().split()
}

pub fn batch(id: u64, writes: Vec<(KeyBytes, Option<Bytes>)>) -> Batch {
    Batch { id: BatchId(id), writes }
}

pub fn entry_key(feed: u32, seq: u64) -> KeyBytes {
    Key::Entry { feed: FeedNo(feed), seq }.encode()
}

/// A write of one raw value.
pub fn put(key: KeyBytes, value: impl Into<Vec<u8>>) -> (KeyBytes, Option<Bytes>) {
    (key, Some(Bytes::from(value.into())))
}

pub fn load(pages: &mut PageReader, first: KeyBytes, last: KeyBytes, max_bytes: u32) -> Page {
    match pages.load(&KeyRange { first, last, max_bytes }) {
        Answer::Page(page) => page,
        Answer::Damaged => panic!("damaged"),
    }
}

/// Every record of a feed's entries.
pub fn entries(pages: &mut PageReader, feed: u32) -> Vec<(u64, Bytes)> {
    let mut found = Vec::new();
    let mut next = 0;
    loop {
        let page = load(pages, entry_key(feed, next), entry_key(feed, u64::MAX), PAGE);
        for (key, value) in page.records {
            let Key::Entry { seq, .. } = Key::decode(&key).unwrap() else { panic!("not an entry") };
            found.push((seq, value));
            next = seq + 1;
        }
        if page.complete {
            return found;
        }
    }
}

pub fn restored(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let opened = peerlink_storage::open(path).unwrap();
    let mut found = Vec::new();
    opened
        .restore(|key, value| {
            found.push((key.to_vec(), value.to_vec()));
            Ok(())
        })
        .unwrap();
    found
}

pub fn peer(number: u8) -> PeerId {
    let seed = [number.max(1); 32];
    let secret = peerlink_core::identity::IdentitySecret::new(seed).unwrap();
    peerlink_core::identity::Identity::new(&secret).unwrap().peer()
}

pub const CONVERSATION: ConversationNo = ConversationNo(1);
pub const MINE: u32 = 1;
pub const PEERS: u32 = 2;

pub fn range(first: u64, last: u64) -> Range {
    Range { first, last, prev: EntryHash::NONE, hash: EntryHash::NONE }
}

/// The hash of a feed's entry with this number.
pub fn hash(seq: u64) -> EntryHash {
    let mut hash = [3; 32];
    hash[..8].copy_from_slice(&seq.to_be_bytes());
    if seq == 0 { EntryHash::NONE } else { EntryHash(hash) }
}

pub fn feed(mine: bool, head: u64) -> Feed {
    Feed {
        conversation: CONVERSATION,
        mine,
        epoch: epoch(mine),
        head,
        hash: hash(head),
        beyond: List::new(),
        holes: List::new(),
        lamport: head,
        heads_named: List::new(),
        acked: 0,
        acked_hash: EntryHash::NONE,
        acked_beyond: List::new(),
        link: None,
        closed: false,
        fork: None,
    }
}

pub fn epoch(mine: bool) -> Epoch {
    Epoch([if mine { 0xaa } else { 0xbb }; 16])
}

pub fn contact(name: &str) -> Contact {
    Contact {
        state: ContactState::Established,
        petname: Name::new(name).unwrap(),
        nickname: None,
        blocked: false,
        verified: false,
        conversation: CONVERSATION,
        ticket_addresses: List::new(),
        record_addresses: List::new(),
        relays: List::new(),
        record_seq: 0,
        record: Bytes::new(),
        added: WallClock(1),
    }
}

pub fn caller(seq: u64) -> CallerId {
    let mut id = [7; 16];
    id[..8].copy_from_slice(&seq.to_be_bytes());
    CallerId(id)
}

pub fn order(mine: bool, lamport: u64, seq: u64) -> OrderKey {
    OrderKey { conversation: CONVERSATION, lamport, rank: u8::from(!mine), epoch: epoch(mine), seq }
}

/// The writes of one entry, as a node makes them.
pub fn entry(mine: bool, seq: u64, lamport: u64, arrival: u64) -> Vec<(KeyBytes, Option<Bytes>)> {
    let body = Bytes::from(format!("{} {seq}", if mine { "mine" } else { "theirs" }));
    let record = Entry {
        kind: Kind::Text,
        prev: hash(seq - 1),
        hash: hash(seq),
        tag: Tag([4; 16]),
        lamport,
        claimed: WallClock(1_000 + lamport),
        caller: caller(seq),
        heads: List::new(),
        link: None,
        replaces: None,
        arrival,
        recovered: false,
        dropped: None,
        expires: None,
        body_hash: EntryHash::NONE,
        body_len: u32::try_from(body.len()).unwrap(),
        body,
    };
    let feed = FeedNo(if mine { MINE } else { PEERS });
    let place = Place { feed, seq };
    let mut writes = vec![
        (Key::Entry { feed, seq }.encode(), Some(record.encode())),
        (Key::Order(order(mine, lamport, seq)).encode(), Some(place.encode())),
    ];
    if mine {
        let key = Key::Caller { conversation: CONVERSATION, caller: caller(seq) };
        writes.push((key.encode(), Some(place.encode())));
    } else {
        writes.push((Key::Arrival(arrival).encode(), Some(place.encode())));
    }
    writes
}

/// A conversation in which both write in turns: `mine` 1..=n at odd times, `theirs` 1..=n at even ones.
pub fn conversation(n: u64) -> Batch {
    let mut writes = vec![
        (Key::Contact(peer(2)).encode(), Some(contact("Bob").encode())),
        (
            Key::Conversation(CONVERSATION).encode(),
            Some(Conversation { peer: peer(2), received: n, read: 0, erase: None }.encode()),
        ),
        (Key::Feed(FeedNo(MINE)).encode(), Some(feed(true, n).encode())),
        (Key::Feed(FeedNo(PEERS)).encode(), Some(feed(false, n).encode())),
    ];
    for seq in 1..=n {
        writes.extend(entry(true, seq, 2 * seq - 1, 0));
        writes.extend(entry(false, seq, 2 * seq, seq));
    }
    batch(1, writes)
}

/// The writes that add number `n` of both feeds to [`conversation`] with `n - 1`, with heads and counters.
pub fn more(n: u64) -> Batch {
    let received = Conversation { peer: peer(2), received: n, read: 0, erase: None };
    let mut writes = vec![
        (Key::Counters.encode(), Some(Counters { arrival: n, version: n }.encode())),
        (Key::Conversation(CONVERSATION).encode(), Some(received.encode())),
        (Key::Feed(FeedNo(MINE)).encode(), Some(feed(true, n).encode())),
        (Key::Feed(FeedNo(PEERS)).encode(), Some(feed(false, n).encode())),
    ];
    writes.extend(entry(true, n, 2 * n - 1, 0));
    writes.extend(entry(false, n, 2 * n, n));
    batch(n, writes)
}

/// What a profile begins with: itself and one contact.
pub fn beginning() -> Batch {
    let profile = Profile {
        epoch: epoch(true),
        start: 1,
        nickname: Name::new("Alice").ok(),
        advertised: List::new(),
        record_seq: 1,
        record_addresses: List::new(),
        expire_ms: None,
    };
    let conversation = Conversation { peer: peer(2), received: 0, read: 0, erase: None };
    let writes = vec![
        (Key::Profile.encode(), Some(profile.encode())),
        (Key::Contact(peer(2)).encode(), Some(contact("Bob").encode())),
        (Key::Conversation(CONVERSATION).encode(), Some(conversation.encode())),
        (Key::Feed(FeedNo(MINE)).encode(), Some(feed(true, 0).encode())),
        (Key::Feed(FeedNo(PEERS)).encode(), Some(feed(false, 0).encode())),
    ];
    batch(1, writes)
}

pub fn files(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            } else {
                found.insert(entry.path(), fs::read(entry.path()).unwrap());
            }
        }
    }
    found
}

pub fn copy(files: &BTreeMap<PathBuf, Vec<u8>>, from: &Path, to: &Path) {
    for (path, bytes) in files {
        let path = to.join(path.strip_prefix(from).unwrap());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
}

pub fn journal(dir: &Path) -> PathBuf {
    let path =
        files(&dir.join("db")).into_keys().find(|path| path.extension().is_some_and(|end| end == "jnl"));
    path.unwrap()
}
