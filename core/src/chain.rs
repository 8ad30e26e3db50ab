//! The chain of a feed: hashes of entries and bodies, and the ledger of which numbers are held.

use crate::bounded::List;
use crate::identity::Identity;
use crate::ids::{ConversationId, ConversationNo, EntryHash, Epoch, PeerId};
use crate::limits::{HEADER_BYTES, HOLES, RANGES, SEQ_LIMIT};
use crate::record::{Entry, Feed, Head, Hole, Kind, Range};
use crate::wire::entry::Author;
use crate::wire::frame::{HaveFeed, HaveRange};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use blake3::Hasher;

/// Format of the hashed header.
/// 3: conversation, author and epoch are in the key.
const HEADER_VERSION: u8 = 3;

/// A feed in which nothing was written yet: an own one, unless it is said otherwise.
pub(crate) fn empty_feed(conversation: ConversationNo, epoch: Epoch) -> Feed {
    Feed {
        conversation,
        mine: true,
        epoch,
        head: 0,
        hash: EntryHash::NONE,
        beyond: List::new(),
        holes: List::new(),
        lamport: 0,
        heads_named: List::new(),
        acked: 0,
        acked_hash: EntryHash::NONE,
        acked_beyond: List::new(),
        link: None,
        closed: false,
        fork: None,
    }
}

pub(crate) fn body_hash(body: &[u8]) -> EntryHash {
    EntryHash(*blake3::hash(body).as_bytes())
}

/// Whose entries, in which conversation and epoch: what the hashes of a feed have in common, as the key of all of them. It
/// is no secret. Hashing it once instead of with every entry is half of the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FeedKey([u8; 32]);

impl FeedKey {
    pub(crate) fn new(conversation: &ConversationId, author: &PeerId, epoch: &Epoch) -> Self {
        let mut hasher = Hasher::new_derive_key("peerlink 2026-11 v1 feed");
        hasher.update(&conversation.0).update(author.as_bytes()).update(&epoch.0);
        Self(*hasher.finalize().as_bytes())
    }
}

/// BLAKE3 with the feed's key over a fixed encoding of the header, which holds the hash and length of the body: a body can
/// go, the chain still holds. Every field has a fixed length or its count before it, so no two headers encode alike.
pub(crate) fn entry_hash(key: &FeedKey, seq: u64, entry: &Entry) -> EntryHash {
    // In one piece: the hasher takes that much faster than many small ones.
    let mut said = heapless::Vec::<u8, HEADER_BYTES>::new();
    let mut say = |bytes: &[u8]| {
        let fits = said.extend_from_slice(bytes);
        debug_assert!(fits.is_ok(), "a header is longer than any");
    };
    say(&[HEADER_VERSION, kind_byte(entry.kind)]);
    say(&seq.to_be_bytes());
    say(&entry.prev.0);
    say(&entry.lamport.to_be_bytes());
    say(&entry.claimed.0.to_be_bytes());
    say(&entry.caller.0);
    say(&[u8::try_from(entry.heads.len()).unwrap_or(u8::MAX)]);
    for head in entry.heads.iter() {
        say(&head.epoch.0);
        say(&head.seq.to_be_bytes());
        say(&head.hash.0);
    }
    say(&[u8::from(entry.link.is_some()), u8::from(entry.replaces.is_some())]);
    if let Some(link) = &entry.link {
        say(&link.epoch.0);
        say(&link.last.to_be_bytes());
        say(&link.hash.0);
    }
    if let Some(replaced) = &entry.replaces {
        say(&replaced.epoch.0);
        say(&replaced.seq.to_be_bytes());
        say(&replaced.hash.0);
    }
    say(&entry.body_len.to_be_bytes());
    say(&entry.body_hash.0);
    EntryHash(*blake3::keyed_hash(&key.0, &said).as_bytes())
}

const fn kind_byte(kind: Kind) -> u8 {
    match kind {
        Kind::Text => 1,
        Kind::Tombstone => 2,
        Kind::Cancel => 3,
        Kind::Read => 4,
    }
}

/// Completes an own entry: hash and tag.
pub(crate) fn seal_own(identity: &Identity, key: &FeedKey, seq: u64, entry: &mut Entry) {
    entry.hash = entry_hash(key, seq, entry);
    entry.tag = identity.tag(&entry.hash);
}

/// By which name a message is known that may be issued again.
pub(crate) fn first_name(epoch: Epoch, seq: u64, entry: &Entry) -> Head {
    entry.replaces.unwrap_or(Head { epoch, seq, hash: entry.hash })
}

/// The epochs of one author that both sides hold whole: they are told of in one hash, oldest first.
pub(crate) struct ClosedEpochs;

impl ClosedEpochs {
    /// Epochs in the order in which they name each other; those that branched off at the same place, by their bytes.
    pub(crate) fn order<'a>(feeds: impl Iterator<Item = &'a Feed>) -> Vec<Epoch> {
        let links: BTreeMap<Epoch, Option<Epoch>> =
            feeds.map(|feed| (feed.epoch, feed.link.map(|link| link.epoch))).collect();
        let depth = |epoch: &Epoch| {
            let (mut at, mut depth) = (*epoch, 0usize);
            // A circle of names ends where every epoch was met once.
            while let Some(Some(before)) = links.get(&at)
                && depth <= links.len()
            {
                (at, depth) = (*before, depth + 1);
            }
            depth
        };
        let mut order: Vec<(usize, Epoch)> = links.keys().map(|epoch| (depth(epoch), *epoch)).collect();
        order.sort_unstable();
        order.into_iter().map(|(_, epoch)| epoch).collect()
    }

    pub(crate) fn hash<'a>(feeds: impl Iterator<Item = &'a Feed>) -> EntryHash {
        let mut h = Hasher::new_derive_key("peerlink 2026-11 v1 closed epochs");
        for feed in feeds {
            h.update(&feed.epoch.0).update(&feed.head.to_be_bytes()).update(&feed.hash.0);
            // Who has what the other holds as gone does not hold the same.
            h.update(&(feed.holes.len() as u64).to_be_bytes());
            for hole in feed.holes.iter() {
                h.update(&hole.first.to_be_bytes()).update(&hole.last.to_be_bytes());
            }
        }
        EntryHash(*h.finalize().as_bytes())
    }
}

/// What became of a number that was put into a feed's ledger.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placed {
    /// It extends the head, and `filled` tells how far the head moved by it.
    Head,
    /// It stands beyond a gap.
    Beyond,
    /// It was held already (as far as the ledger can tell).
    Held,
    /// It does not fit the chain.
    Conflict,
    /// There are too many gaps.
    NoRoom,
}

/// Whether this number is held.
pub(crate) fn is_held(feed: &Feed, seq: u64) -> bool {
    seq <= feed.head || feed.beyond.iter().any(|range| (range.first..=range.last).contains(&seq))
}

/// The range of gone numbers that this one is in.
pub(crate) fn hole(feed: &Feed, seq: u64) -> Option<&Hole> {
    feed.holes.iter().find(|hole| (hole.first..=hole.last).contains(&seq))
}

/// Puts `first..=last`, which are gone and of which only the last hash is known, into the ledger: only where the head
/// ends, so that nothing is skipped that may still come.
pub(crate) fn place_gone(feed: &mut Feed, first: u64, last: u64, hash: EntryHash, lamport: u64) -> bool {
    let before_next = feed.beyond.first().copied();
    let fits = first == feed.head.saturating_add(1) && last >= first && last <= SEQ_LIMIT;
    if !fits || feed.holes.is_full() {
        return false;
    }
    let hole = Hole { first, last, prev: feed.hash, hash, lamport, arrival: 0 };
    match before_next {
        Some(next) if next.first <= last => return false,
        Some(next) if next.first == last + 1 => {
            if next.prev != hash {
                return false;
            }
            feed.head = next.last;
            feed.hash = next.hash;
            feed.beyond.remove(0);
        }
        Some(_) | None => {
            feed.head = last;
            feed.hash = hash;
        }
    }
    let _room_was_checked = feed.holes.push(hole);
    true
}

/// An entry came after all that was held as gone: the first of its range, so that each fits the one before. Gives what the
/// range was.
pub(crate) fn fill(feed: &mut Feed, seq: u64, prev: EntryHash, hash: EntryHash) -> Option<Hole> {
    let at = feed.holes.iter().position(|hole| hole.first == seq)?;
    let was = *feed.holes.get(at)?;
    if was.prev != prev || (was.last == seq && was.hash != hash) {
        return None;
    }
    feed.holes.remove(at);
    if was.last > seq {
        let left = Hole { first: seq + 1, prev: hash, ..was };
        let _one_was_removed = feed.holes.insert(at, left);
    }
    Some(was)
}

/// What is held of a feed up to its head, said without what is gone.
pub(crate) fn row(author: Author, feed: &Feed, (head, hash): (u64, EntryHash)) -> HaveFeed {
    let mut row =
        HaveFeed { author, epoch: feed.epoch, upto: head, hash, beyond: List::new(), gone: List::new() };
    let holes: List<Hole, HOLES> = List::of(feed.holes.iter().filter(|hole| hole.last <= head).copied());
    if let Some(first) = holes.first() {
        (row.upto, row.hash) = (first.first - 1, first.prev);
    }
    let mut next = holes.iter().skip(1);
    for hole in holes.iter() {
        let (end, hash) = next.next().map_or((head, hash), |next| (next.first - 1, next.prev));
        let _as_many_as_fit = row.gone.push((hole.first, hole.last));
        if hole.last < end {
            let _as_many_as_fit = row.beyond.push(HaveRange { first: hole.last + 1, last: end, hash });
        }
    }
    row
}

/// Takes a number beyond the first gap out of the ledger again: what stood there is issued anew elsewhere. `false` if it
/// stands in the middle of a range and there is no room for two.
pub(crate) fn displace(feed: &mut Feed, seq: u64, prev: EntryHash, hash: EntryHash) -> bool {
    let Some(at) = feed.beyond.iter().position(|range| (range.first..=range.last).contains(&seq)) else {
        return false;
    };
    let Some(range) = feed.beyond.get(at).copied() else { return false };
    let before = Range { last: seq - 1, hash: prev, ..range };
    let after = Range { first: seq.saturating_add(1), prev: hash, ..range };
    match (range.first < seq, seq < range.last) {
        (true, true) if feed.beyond.is_full() => return false,
        (true, true) => {
            feed.beyond.remove(at);
            // There is room: one went, and the list was not full.
            let _room = feed.beyond.insert(at, after);
            let _room = feed.beyond.insert(at, before);
        }
        (first, last) => {
            feed.beyond.remove(at);
            if first || last {
                let _room = feed.beyond.insert(at, if first { before } else { after });
            }
        }
    }
    true
}

/// Puts entry `seq` with its hashes into the ledger.
pub(crate) fn place(feed: &mut Feed, seq: u64, prev: EntryHash, hash: EntryHash) -> Placed {
    if seq == 0 {
        return Placed::Conflict;
    }
    if seq <= feed.head {
        return if seq == feed.head && hash != feed.hash { Placed::Conflict } else { Placed::Held };
    }
    if let Some(range) = feed.beyond.iter().find(|range| (range.first..=range.last).contains(&seq)) {
        return if seq == range.last && hash != range.hash { Placed::Conflict } else { Placed::Held };
    }
    let before = if seq == feed.head + 1 {
        Some(feed.hash)
    } else {
        feed.beyond.iter().find(|range| range.last == seq - 1).map(|range| range.hash)
    };
    let after = feed.beyond.iter().find(|range| range.first == seq.saturating_add(1)).map(|range| range.prev);
    if before.is_some_and(|before| before != prev) || after.is_some_and(|after| after != hash) {
        return Placed::Conflict;
    }
    if seq == feed.head + 1 {
        feed.head = seq;
        feed.hash = hash;
        if let Some(next) = feed.beyond.first().copied().filter(|range| range.first == seq + 1) {
            feed.head = next.last;
            feed.hash = next.hash;
            feed.beyond.remove(0);
        }
        return Placed::Head;
    }
    if insert_range(&mut feed.beyond, Range { first: seq, last: seq, prev, hash }) {
        Placed::Beyond
    } else {
        Placed::NoRoom
    }
}

/// Adds a range, joining those that touch it; `false` if there is no room. Ranges that overlap it are absorbed.
pub(crate) fn insert_range(ranges: &mut List<Range, RANGES>, new: Range) -> bool {
    let mut joined = new;
    let touches = |range: &Range, with: &Range| {
        range.first <= with.last.saturating_add(1) && with.first <= range.last.saturating_add(1)
    };
    if ranges.is_full() && !ranges.iter().any(|range| touches(range, &joined)) {
        return false;
    }
    ranges.retain(|range| {
        if !touches(range, &joined) {
            return true;
        }
        if range.first < joined.first {
            (joined.first, joined.prev) = (range.first, range.prev);
        }
        if range.last > joined.last {
            (joined.last, joined.hash) = (range.last, range.hash);
        }
        false
    });
    let at = ranges.iter().position(|range| range.first > joined.first).unwrap_or(ranges.len());
    ranges.insert(at, joined).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::ConversationNo;
    use alloc::vec;

    fn hash(n: u64) -> EntryHash {
        body_hash(&n.to_be_bytes())
    }

    pub(crate) fn feed() -> Feed {
        Feed {
            conversation: ConversationNo(1),
            mine: false,
            epoch: Epoch([1; 16]),
            head: 0,
            hash: EntryHash::NONE,
            beyond: List::new(),
            holes: List::new(),
            lamport: 0,
            heads_named: List::new(),
            acked: 0,
            acked_hash: EntryHash::NONE,
            acked_beyond: List::new(),
            link: None,
            closed: false,
            fork: None,
        }
    }

    fn before(n: u64) -> EntryHash {
        if n == 1 { EntryHash::NONE } else { hash(n - 1) }
    }

    #[test]
    fn no_two_places_have_the_same_hash() {
        let peer = |n: u8| {
            let secret = crate::identity::IdentitySecret::new([n; 32]).unwrap();
            Identity::new(&secret).unwrap().peer()
        };
        let entry = crate::assemble::gone_marker(1, hash(1), 1);
        let mut seen = alloc::collections::BTreeSet::new();
        for (conversation, author, epoch, seq) in
            [(1, 1, 1, 1), (2, 1, 1, 1), (1, 2, 1, 1), (1, 1, 2, 1), (1, 1, 1, 2)]
        {
            let key = FeedKey::new(&ConversationId([conversation; 32]), &peer(author), &Epoch([epoch; 16]));
            assert!(seen.insert(entry_hash(&key, seq, &entry)));
        }
    }

    #[test]
    fn what_is_gone_is_said_and_what_comes_all_the_same_must_fit() {
        let mut feed = feed();
        assert_eq!(place(&mut feed, 1, before(1), hash(1)), Placed::Head);
        assert!(place_gone(&mut feed, 2, 4, hash(4), 9));
        assert_eq!(place(&mut feed, 5, before(5), hash(5)), Placed::Head);
        assert!(place_gone(&mut feed, 6, 6, hash(6), 9));
        let said = |feed: &Feed| {
            let row = row(Author::Receiver, feed, (feed.head, feed.hash));
            let beyond: Vec<_> =
                row.beyond.iter().map(|range| (range.first, range.last, range.hash)).collect();
            (row.upto, row.hash, beyond, row.gone.to_vec())
        };
        assert_eq!(said(&feed), (1, hash(1), vec![(5, 5, hash(5))], vec![(2, 4), (6, 6)]));
        // Not the first of a range, not what stands before it, not what stands at its end.
        assert_eq!(fill(&mut feed, 3, before(3), hash(3)), None);
        assert_eq!(fill(&mut feed, 2, hash(9), hash(2)), None);
        assert_eq!(fill(&mut feed, 6, before(6), hash(9)), None);
        for seq in 2..=4 {
            assert_eq!(fill(&mut feed, seq, before(seq), hash(seq)).map(|was| was.last), Some(4));
        }
        assert_eq!(said(&feed), (5, hash(5), vec![], vec![(6, 6)]));
        assert_eq!(fill(&mut feed, 6, before(6), hash(6)).map(|was| was.first), Some(6));
        assert_eq!(said(&feed), (6, hash(6), vec![], vec![]));
    }

    #[test]
    fn any_order_of_arrival_ends_with_everything_held() {
        let mut orders = alloc::vec![];
        for a in 0..5040usize {
            let (mut rest, mut order, mut a) = ((1..=7u64).collect::<alloc::vec::Vec<_>>(), alloc::vec![], a);
            for base in (1..=7).rev() {
                order.push(rest.remove(a % base));
                a /= base;
            }
            orders.push(order);
        }
        for order in orders {
            let mut feed = feed();
            for &n in &order {
                let placed = place(&mut feed, n, before(n), hash(n));
                assert!(matches!(placed, Placed::Head | Placed::Beyond), "{order:?}");
                assert_eq!(place(&mut feed, n, before(n), hash(n)), Placed::Held);
            }
            assert_eq!((feed.head, feed.hash, feed.beyond.len()), (7, hash(7), 0), "{order:?}");
        }
    }

    #[test]
    fn what_does_not_fit_the_chain_is_a_conflict_on_either_side_of_a_gap() {
        let mut feed = feed();
        assert_eq!(place(&mut feed, 1, hash(9), hash(1)), Placed::Conflict);
        assert_eq!(place(&mut feed, 1, before(1), hash(1)), Placed::Head);
        assert_eq!(place(&mut feed, 1, before(1), hash(8)), Placed::Conflict);
        assert_eq!(place(&mut feed, 3, before(3), hash(3)), Placed::Beyond);
        assert_eq!(place(&mut feed, 2, before(2), hash(8)), Placed::Conflict);
        assert_eq!(place(&mut feed, 4, hash(8), hash(4)), Placed::Conflict);
        assert_eq!(place(&mut feed, 2, before(2), hash(2)), Placed::Head);
        assert_eq!(feed.head, 3);
        assert_eq!(place(&mut feed, 0, before(1), hash(1)), Placed::Conflict);
        assert_eq!(place(&mut feed, u64::MAX, hash(1), hash(2)), Placed::Beyond);
    }

    #[test]
    fn what_is_issued_anew_leaves_its_old_place() {
        for gone in 3..=6u64 {
            let mut feed = feed();
            for n in 3..=6 {
                assert_eq!(place(&mut feed, n, before(n), hash(n)), Placed::Beyond);
            }
            assert!(!displace(&mut feed, 1, before(1), hash(1)));
            assert!(displace(&mut feed, gone, before(gone), hash(gone)));
            for n in 1..=7 {
                assert_eq!(is_held(&feed, n), (3..=6).contains(&n) && n != gone, "{gone} {n}");
            }
            if gone < 6 {
                assert_eq!(place(&mut feed, gone, before(gone), hash(9)), Placed::Conflict);
            }
            for n in [1, 2, gone] {
                assert_ne!(place(&mut feed, n, before(n), hash(n)), Placed::Conflict, "{gone} {n}");
            }
            assert_eq!((feed.head, feed.hash), (6, hash(6)));
        }
    }

    #[test]
    fn gaps_are_bounded() {
        let mut feed = feed();
        for n in 0..RANGES as u64 {
            assert_eq!(place(&mut feed, 2 * n + 2, hash(0), hash(2 * n + 2)), Placed::Beyond);
        }
        assert_eq!(place(&mut feed, 100, hash(99), hash(100)), Placed::NoRoom);
        assert_eq!(feed.beyond.len(), RANGES);
    }
}
