//! Golden vectors: the exact bytes of every key and value on disk. One that moves makes stores that are out there
//! unreadable; until 1.0 it may move together with its version and a word why.

use bytes::Bytes;
use peerlink_core::bounded::List;
use peerlink_core::identity::{Identity, IdentitySecret};
use peerlink_core::ids::{CallerId, ConversationNo, EntryHash, Epoch, FeedNo, InviteId, Name, PeerId, Tag};
use peerlink_core::limits::KEY_BYTES;
use peerlink_core::record::{
    Contact, ContactState, Conversation, CorruptRecord, Counters, Dropped, Entry, EpochLink, Erase, FORMAT,
    Feed, Head, Invite, Key, Kind, Lived, OrderKey, Place, Profile, Range, Record, Table,
};
use peerlink_core::time::{Age, WallClock};
use std::fmt::{Debug, Write as _};

fn peer() -> PeerId {
    Identity::new(&IdentitySecret::new([7; 32]).unwrap()).unwrap().peer()
}

fn epoch(n: u8) -> Epoch {
    Epoch([n; 16])
}

fn hash(n: u8) -> EntryHash {
    EntryHash([n; 32])
}

fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

fn addresses<const N: usize>() -> List<std::net::SocketAddr, N> {
    List::of(["192.0.2.1:4711".parse().unwrap(), "[2001:db8::1]:4712".parse().unwrap()])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

/// Writes a value down, reads it back, and looks at every single-bit flip and every cut of its bytes: each is refused,
/// or is a record of its own that encodes to exactly those bytes. Nothing is read as what it is not, nothing panics.
fn frozen<T: Debug + PartialEq>(
    text: &mut String,
    what: &str,
    value: &T,
    encode: impl Fn(&T) -> Vec<u8>,
    decode: impl Fn(&[u8]) -> Result<T, CorruptRecord>,
) {
    let bytes = encode(value);
    writeln!(text, "{what}: {}", hex(&bytes)).unwrap();
    assert_eq!(decode(&bytes).as_ref(), Ok(value), "{what}");
    let mut refused = 0;
    for bit in 0..bytes.len() * 8 {
        let mut wrong = bytes.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        match decode(&wrong) {
            Ok(other) => {
                assert_ne!(&other, value, "{what}: bit {bit} changes nothing");
                assert_eq!(hex(&encode(&other)), hex(&wrong), "{what}: bit {bit}");
            }
            Err(_) => refused += 1,
        }
    }
    assert!(refused >= 8, "{what}: table or version are not looked at");
    for cut in 0..bytes.len() {
        if let Ok(other) = decode(&bytes[..cut]) {
            panic!("{what}: cut to {cut} bytes it reads as {other:?}");
        }
    }
    assert!(decode(&[&bytes[..], &[0]].concat()).is_err(), "{what}: a byte too many");
}

fn record<T: Record + Debug + PartialEq>(text: &mut String, what: &str, value: &T) {
    frozen(text, what, value, |value| value.encode().to_vec(), T::decode);
}

#[test]
fn keys_are_what_they_were() {
    let (conversation, feed) = (ConversationNo(0x0102_0304), FeedNo(0x0506_0708));
    let seq = 0x1112_1314_1516_1718;
    let order = OrderKey { conversation, lamport: 0x2122_2324_2526_2728, rank: 1, epoch: epoch(9), seq };
    let keys = [
        Key::Profile,
        Key::Counters,
        Key::Contact(peer()),
        Key::Invite(InviteId([5; 16])),
        Key::Conversation(conversation),
        Key::Feed(feed),
        Key::Entry { feed, seq },
        Key::Order(order),
        Key::Arrival(seq),
        Key::Caller { conversation, caller: CallerId([6; 16]) },
        Key::Lived,
        Key::Shown { conversation, hash: hash(7) },
        Key::Expiry { at: Age(0x3132_3334_3536_3738), feed, seq },
    ];
    let mut text = String::new();
    for key in &keys {
        let what = format!("{:?}", key.table());
        assert!(key.encode().len() <= KEY_BYTES, "{what}");
        writeln!(text, "{what}: {}", hex(&key.encode())).unwrap();
        assert_eq!(Key::decode(&key.encode()).as_ref(), Ok(key));
        for bit in 0..key.encode().len() * 8 {
            let mut wrong = key.encode();
            wrong[bit / 8] ^= 1 << (bit % 8);
            if let Ok(other) = Key::decode(&wrong) {
                assert_eq!(other.encode(), wrong, "{what}: bit {bit}");
            }
        }
        for cut in 0..key.encode().len() {
            assert!(Key::decode(&key.encode()[..cut]).is_err(), "{what}: cut to {cut} bytes");
        }
    }
    insta::assert_snapshot!(text);
}

#[test]
fn byte_order_of_keys_is_their_order() {
    let conversation = ConversationNo(1);
    let order =
        |lamport, rank, n, seq| Key::Order(OrderKey { conversation, lamport, rank, epoch: epoch(n), seq });
    let rising = [
        Key::Entry { feed: FeedNo(1), seq: 255 },
        Key::Entry { feed: FeedNo(1), seq: 256 },
        Key::Entry { feed: FeedNo(256), seq: 1 },
        Key::Order(OrderKey::first(conversation)),
        order(1, 1, 1, 1),
        order(2, 0, 9, 9),
        order(2, 1, 1, 300),
        order(2, 1, 2, 1),
        order(256, 0, 0, 0),
        Key::Order(OrderKey::last(conversation)),
        Key::Order(OrderKey::first(ConversationNo(2))),
        Key::Arrival(255),
        Key::Arrival(256),
        Key::Expiry { at: Age(255), feed: FeedNo(2), seq: 2 },
        Key::Expiry { at: Age(256), feed: FeedNo(1), seq: 255 },
        Key::Expiry { at: Age(256), feed: FeedNo(1), seq: 256 },
    ];
    for pair in rising.windows(2) {
        assert!(pair[0].encode() < pair[1].encode(), "{pair:?}");
    }
}

#[test]
fn what_restores_a_node_is_what_it_was() {
    let mut text = String::new();
    let full = Profile {
        epoch: epoch(1),
        start: 300,
        nickname: Some(name("Alice")),
        advertised: addresses(),
        record_seq: 70_000,
        record_addresses: addresses(),
        expire_ms: Some(604_800_000),
    };
    record(&mut text, "profile", &full);
    let new = Profile { nickname: None, advertised: List::new(), record_addresses: List::new(), ..full };
    let new = Profile { expire_ms: None, ..new };
    record(&mut text, "profile, new", &new);
    let lived = Lived { age: Age(70_000), believed_ms: 300, wall: WallClock(1_790_000_000_000) };
    record(&mut text, "lived", &lived);
    record(&mut text, "counters", &Counters { arrival: 300, version: u64::MAX });

    let mut contact = Contact {
        state: ContactState::Pending { secret: [2; 16] },
        petname: name("Bob"),
        nickname: None,
        blocked: false,
        verified: false,
        conversation: ConversationNo(3),
        ticket_addresses: addresses(),
        record_addresses: List::new(),
        relays: List::new(),
        record_seq: 0,
        record: Bytes::new(),
        added: WallClock(1_790_000_000_000),
    };
    record(&mut text, "contact, pending", &contact);
    contact.state = ContactState::Established;
    contact.nickname = Some(name("Robert"));
    (contact.blocked, contact.verified) = (true, true);
    contact.record_addresses = addresses();
    contact.record_seq = 9;
    contact.record = Bytes::from_static(b"signed bytes");
    record(&mut text, "contact, established", &contact);
    contact.state = ContactState::Refused { secret: [2; 16], why: 1 };
    record(&mut text, "contact, refused", &contact);
    contact.state = ContactState::Removed;
    record(&mut text, "contact, removed", &contact);

    record(&mut text, "invite, open", &Invite { expires: WallClock(1_790_000_000_000), spent_by: None });
    record(&mut text, "invite, spent", &Invite { expires: WallClock(5), spent_by: Some(peer()) });
    record(&mut text, "conversation", &Conversation { peer: peer(), received: 300, read: 200, erase: None });
    let erasing = Conversation {
        peer: peer(),
        received: 300,
        read: 300,
        erase: Some(Erase { lamport: 70_000, arrival: 200 }),
    };
    record(&mut text, "conversation, being deleted", &erasing);

    let range = |first, last| Range { first, last, prev: hash(4), hash: hash(5) };
    let feed = Feed {
        conversation: ConversationNo(3),
        mine: false,
        epoch: epoch(1),
        head: 300,
        hash: hash(2),
        beyond: List::of([range(302, 303), range(400, 70_000)]),
        holes: List::new(),
        lamport: 4,
        heads_named: List::of([Head { epoch: epoch(6), seq: 7, hash: hash(8) }]),
        acked: 5,
        acked_hash: hash(3),
        acked_beyond: List::of([range(7, 7)]),
        link: Some(EpochLink { epoch: epoch(9), last: 10, hash: hash(11) }),
        closed: true,
        fork: None,
    };
    record(&mut text, "feed", &feed);
    let new = Feed {
        mine: true,
        head: 0,
        hash: EntryHash::NONE,
        beyond: List::new(),
        holes: List::new(),
        heads_named: List::new(),
        acked_beyond: List::new(),
        link: None,
        closed: false,
        ..feed.clone()
    };
    record(&mut text, "feed, new", &new);
    record(&mut text, "feed, issued again", &Feed { fork: Some(300), ..feed });
    insta::assert_snapshot!(text);
}

#[test]
fn history_is_what_it_was() {
    let mut text = String::new();
    let entry = Entry {
        kind: Kind::Text,
        prev: hash(1),
        hash: hash(2),
        tag: Tag([3; 16]),
        lamport: 300,
        claimed: WallClock(1_790_000_000_000),
        caller: CallerId([4; 16]),
        heads: List::new(),
        link: None,
        replaces: None,
        arrival: 70_000,
        recovered: false,
        dropped: None,
        expires: None,
        body_hash: hash(5),
        body_len: 7,
        body: Bytes::from_static("grüße".as_bytes()),
    };
    record(&mut text, "text", &entry);
    record(&mut text, "text that expires", &Entry { expires: Some(Age(70_000)), ..entry.clone() });
    let mut whole = entry.clone();
    whole.heads = List::of([Head { epoch: epoch(6), seq: 7, hash: hash(8) }]);
    whole.link = Some(EpochLink { epoch: epoch(9), last: 10, hash: hash(11) });
    whole.replaces = Some(Head { epoch: epoch(13), seq: 14, hash: hash(12) });
    whole.recovered = true;
    whole.arrival = 0;
    for (what, kind) in [("tombstone", Kind::Tombstone), ("cancel", Kind::Cancel), ("read", Kind::Read)] {
        record(&mut text, what, &Entry { kind, body: Bytes::new(), ..whole.clone() });
    }
    for dropped in [
        Dropped::Cancelled { settled: false },
        Dropped::Cancelled { settled: true },
        Dropped::Expired { settled: false },
        Dropped::Deleted,
        Dropped::ByAuthor,
        Dropped::Gone { first: 300 },
    ] {
        let what = format!("{dropped:?}");
        record(&mut text, &what, &Entry { dropped: Some(dropped), body: Bytes::new(), ..entry.clone() });
    }
    for table in [Table::Order, Table::Arrival, Table::Caller, Table::Expiry] {
        let place = Place { feed: FeedNo(0x0102_0304), seq: 0x1112_1314_1516_1718 };
        let decode = |bytes: &[u8]| Place::decode(table, bytes);
        frozen(&mut text, &format!("{table:?}"), &place, |place| place.encode().to_vec(), decode);
    }
    insta::assert_snapshot!(text);
}

/// A store of a later program, or one that is sealed, is said to be that, not to be damaged.
#[test]
fn newer_and_sealed_records_are_told_from_damaged_ones() {
    let table = Table::Counters as u8;
    let good = Counters { arrival: 1, version: 2 }.encode().to_vec();
    let changed = |at: usize, to: u8| {
        let mut bytes = good.clone();
        bytes[at] = to;
        Counters::decode(&bytes)
    };
    assert_eq!(changed(0, FORMAT + 1), Err(CorruptRecord::Newer { table, found: FORMAT + 1 }));
    assert_eq!(changed(1, 1), Err(CorruptRecord::Sealed(table)));
    assert_eq!(Counters::decode(&[FORMAT]), Err(CorruptRecord::Value(table)));
    assert_eq!(
        Place::decode(Table::Order, &[FORMAT + 1, 0]),
        Err(CorruptRecord::Newer { table: Table::Order as u8, found: FORMAT + 1 })
    );
    assert_eq!(Place::decode(Table::Order, &[FORMAT, 7]), Err(CorruptRecord::Sealed(Table::Order as u8)));
    assert_eq!(Key::decode(&[]), Err(CorruptRecord::Key));
}
