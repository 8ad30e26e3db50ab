//! What front ends see: messages, contacts with their counts, and gaps, decoded from records.

use bytes::Bytes;
use peerlink_core::ids::{CallerId, Epoch, MessageRef, PeerId};
use peerlink_core::record::{Contact, Dropped, Feed, Kind, OrderKey, Range};
use peerlink_core::time::WallClock;

/// What is proven about a message on this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// An own message, on this device's stable storage.
    Queued,
    /// An own message, on the recipient's stable storage.
    Delivered,
    /// An own message that was taken back, and there is no proof that it came all the same.
    Cancelled,
    /// An own message whose time was over, and there is no proof that it came all the same.
    Expired,
    /// The peer's message, on this device's stable storage.
    Received,
}

/// One entry of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub peer: PeerId,
    /// Whether this profile's identity wrote it.
    pub mine: bool,
    pub message: MessageRef,
    pub caller: CallerId,
    /// What the author's clock said.
    pub claimed: WallClock,
    /// `Tombstone` for what was taken away, here or by its author, and for what is gone.
    pub kind: Kind,
    /// Why it has no body any more.
    pub dropped: Option<Dropped>,
    /// UTF-8 text as its author wrote it; empty if it was taken away.
    pub body: Bytes,
    pub state: State,
    /// Where it stands in the conversation, alike on both sides.
    pub order: OrderKey,
    /// Local arrival number; 0 for own messages.
    pub arrival: u64,
    /// Given back by the peer after a loss.
    pub recovered: bool,
    /// Entries of the same author right before this one that are not here.
    pub missing_before: u64,
}

/// Entries `first..=last` of the peer's feed that are missing while later ones are here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    pub epoch: Epoch,
    pub first: u64,
    pub last: u64,
}

impl Gap {
    /// The entry in front of which the gap is to be shown.
    #[must_use]
    pub const fn before(&self) -> MessageRef {
        MessageRef { epoch: self.epoch, seq: self.last.saturating_add(1) }
    }

    /// How many entries are missing.
    #[must_use]
    pub const fn len(&self) -> u64 {
        self.last.saturating_sub(self.first).saturating_add(1)
    }

    /// Whether it is none at all; a gap never is.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.last < self.first
    }
}

/// How much there is in a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    /// Own entries, ever.
    pub sent: u64,
    /// Own entries that the peer has not acknowledged.
    pub queued: u64,
    /// Messages received, ever.
    pub received: u64,
    /// Messages received that the user has not seen.
    pub unread: u64,
    /// The peer's entries that are missing while later ones are here.
    pub missing: u64,
}

/// A contact as it is stored, and how much there is in the conversation with it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContactInfo {
    pub peer: PeerId,
    pub contact: Contact,
    pub counts: Counts,
}

fn len(range: &Range) -> u64 {
    range.last.saturating_sub(range.first).saturating_add(1)
}

/// Entries of an own feed that are not acknowledged. What a rollback left beyond a gap is.
pub(crate) fn queued(feed: &Feed) -> u64 {
    let below = feed.acked_beyond.iter().filter(|range| range.last <= feed.head);
    let beyond = below.map(len).fold(0, u64::saturating_add);
    feed.head.saturating_sub(feed.acked).saturating_sub(beyond)
}

/// `dropped`: why the message has no body any more. What was taken back and is acknowledged all the same was delivered,
/// unless the peer had said before that it did not have it.
pub(crate) fn state(feed: &Feed, seq: u64, dropped: Option<Dropped>) -> State {
    let acked =
        seq <= feed.acked || feed.acked_beyond.iter().any(|range| (range.first..=range.last).contains(&seq));
    match (feed.mine, dropped) {
        (false, _) => State::Received,
        (true, Some(Dropped::Cancelled { settled })) if settled || !acked => State::Cancelled,
        (true, Some(Dropped::Expired { settled })) if settled || !acked => State::Expired,
        (true, _) if acked => State::Delivered,
        (true, _) => State::Queued,
    }
}

/// The gaps of a feed, in order.
pub(crate) fn gaps(feed: &Feed) -> impl Iterator<Item = Gap> {
    let mut held = feed.head;
    feed.beyond.iter().filter_map(move |range| {
        let gap =
            Gap { epoch: feed.epoch, first: held.saturating_add(1), last: range.first.saturating_sub(1) };
        held = held.max(range.last);
        (!gap.is_empty()).then_some(gap)
    })
}

pub(crate) fn missing_before(feed: &Feed, seq: u64) -> u64 {
    gaps(feed).find(|gap| gap.before().seq == seq).map_or(0, |gap| gap.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use peerlink_core::bounded::List;
    use peerlink_core::ids::{ConversationNo, EntryHash};

    fn range(first: u64, last: u64) -> Range {
        Range { first, last, prev: EntryHash::NONE, hash: EntryHash::NONE }
    }

    pub(crate) fn feed(mine: bool) -> Feed {
        Feed {
            conversation: ConversationNo(1),
            mine,
            epoch: Epoch([1; 16]),
            head: 10,
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

    #[test]
    fn delivered_is_what_the_cursors_prove_and_nothing_else() {
        let mut own = feed(true);
        own.acked = 4;
        own.acked_beyond = List::of([range(6, 7), range(10, 10)]);
        let delivered: Vec<u64> =
            (1..=10).filter(|seq| state(&own, *seq, None) == State::Delivered).collect();
        assert_eq!(delivered, [1, 2, 3, 4, 6, 7, 10]);
        assert_eq!(queued(&own), 3);
        own.acked_beyond = List::of([range(6, 7), range(20, 29)]);
        assert_eq!(queued(&own), 4);
        assert_eq!(state(&feed(false), 1, None), State::Received);
        let cancelled = |settled| Some(Dropped::Cancelled { settled });
        assert_eq!(state(&own, 5, cancelled(false)), State::Cancelled);
        assert_eq!(state(&own, 4, cancelled(false)), State::Delivered);
        assert_eq!(state(&own, 4, cancelled(true)), State::Cancelled);
        assert_eq!(state(&own, 4, Some(Dropped::Deleted)), State::Delivered);
    }

    #[test]
    fn gaps_lie_between_the_head_and_the_ranges_beyond() {
        let mut peers = feed(false);
        peers.beyond = List::of([range(12, 14), range(15, 15), range(20, 30)]);
        let found: Vec<(u64, u64)> = gaps(&peers).map(|gap| (gap.first, gap.last)).collect();
        assert_eq!(found, [(11, 11), (16, 19)]);
        assert_eq!(missing_before(&peers, 12), 1);
        assert_eq!(missing_before(&peers, 20), 4);
        assert_eq!(missing_before(&peers, 13), 0);
        assert_eq!(missing_before(&peers, 11), 0);
    }
}
