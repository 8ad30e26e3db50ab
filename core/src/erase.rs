//! What the user takes away: one message, or a whole conversation.
//!
//! A header whose number the peer may still ask about stays; heads, cursors and what is on its way stay always, so that
//! nothing that was deleted comes back as new, and the conversation goes on from where it was.

use crate::api::{Event, KeyRange, Page, Refusal};
use crate::assemble::entries;
use crate::cx::{Asked, Cx, Promise, Removal};
use crate::ids::{FeedNo, MessageRef, PeerId};
use crate::limits::PAGE_BYTES;
use crate::peers::{Erasing, Peer, Peers};
use crate::planted::planted;
use crate::record::{Dropped, Entry, Erase, Key, OrderKey, Record as _};
use bytes::Bytes;

impl Peers {
    /// Why this message cannot be taken away. `cancel`: only while it was not delivered.
    pub(crate) fn drop_refusal(&self, peer: &PeerId, message: MessageRef, cancel: bool) -> Option<Refusal> {
        if self.drops.is_full() {
            return Some(Refusal::Busy);
        }
        let peer = self.map.get(peer)?;
        // What is being taken away, or issued again, is about to be another entry than the store has.
        if peer.is_moving(message) {
            return Some(Refusal::Busy);
        }
        match peer.outgoing.place(message) {
            Some((_, true)) if cancel => Some(Refusal::Delivered),
            Some(_) => None,
            None if cancel => Some(Refusal::UnknownMessage),
            None => peer.inbox.place(message).is_none().then_some(Refusal::UnknownMessage),
        }
    }

    /// Takes a message away that nothing speaks against.
    pub(crate) fn drop_message(&mut self, cx: &mut Cx, id: PeerId, message: MessageRef, cancel: bool) {
        let Some(peer) = self.map.get_mut(&id) else { return };
        let own = peer.outgoing.place(message);
        let (feed, mine, why) = match own {
            Some((feed, false)) => (feed, true, Dropped::Cancelled { settled: false }),
            Some((feed, true)) => (feed, true, Dropped::Deleted),
            None => match peer.inbox.place(message) {
                Some(feed) => (feed, false, Dropped::Deleted),
                None => return,
            },
        };
        peer.dropping.insert((feed, message.seq));
        let seq = message.seq;
        let _room_was_checked =
            self.drops.push(Removal { peer: id, feed, seq, mine, message, why, expires: None, cancel });
        cx.touch(id);
    }

    /// Deletes all that is in a conversation now.
    pub(crate) fn delete_conversation(&mut self, cx: &mut Cx, id: PeerId) {
        let Some(peer) = self.map.get_mut(&id) else { return };
        let lamport = peer.inbox.lamport().max(peer.outgoing.lamport());
        peer.conversation.erase = Some(Erase { lamport, arrival: cx.counters.arrival });
        peer.conversation.read = peer.conversation.received;
        peer.conversation_dirty = true;
        cx.unsaved.insert(id);
        peer.erase();
        cx.touch(id);
    }

    /// Goes on with what the end of the program interrupted.
    pub(crate) fn go_on(&mut self, cx: &mut Cx) {
        for (id, peer) in &mut self.map {
            peer.erase();
            if peer.erasing.is_some() || peer.outgoing.has_fork() {
                cx.touch(*id);
            }
        }
    }

    /// Asks for what must be read before it can go.
    pub(crate) fn ask_drops(&mut self, cx: &mut Cx) {
        while let Some(drop) = self.drops.front().copied() {
            let key = Key::Entry { feed: drop.feed, seq: drop.seq };
            if !cx.ask(Asked::Drop(drop), KeyRange::new(&key, &key, 1)) {
                return;
            }
            self.drops.pop();
        }
    }

    pub(crate) fn drop_loaded(&mut self, cx: &mut Cx, drop: &Removal, page: Option<&Page>) {
        let Some(peer) = self.map.get_mut(&drop.peer) else { return };
        peer.dropping.remove(&(drop.feed, drop.seq));
        cx.touch(drop.peer);
        let found = entries(page).next().filter(|(seq, _)| *seq == drop.seq).map(|(_, entry)| entry);
        if drop.expires.is_some() {
            return self.overdue_loaded(cx, drop, found);
        }
        let failed = |why| Event::DropFailed { peer: drop.peer, message: drop.message, why };
        let Some(entry) = found.filter(|_| !drop.mine || peer.outgoing.holds(drop.feed, drop.seq)) else {
            return cx.event(failed(Refusal::StoreFailed));
        };
        if drop.mine {
            let delivered = peer.outgoing.find(drop.feed, drop.seq).is_some_and(|(_, delivered)| delivered);
            if !delivered && entry.dropped.is_some_and(Dropped::is_withdrawn) {
                // It was taken back already, and what is known of that stays.
                let (peer, message) = (drop.peer, drop.message);
                return cx.promise_event(Event::Dropped { peer, message, cancelled: true });
            }
            // It may have been delivered while it was looked up: then it is too late to take it back.
            if delivered && drop.cancel {
                return cx.event(failed(Refusal::Delivered));
            }
            let why = if delivered { Dropped::Deleted } else { drop.why };
            peer.outgoing.drop_body(cx, drop.feed, drop.seq, entry, why);
        } else {
            peer.inbox.drop_body(cx, drop.feed, drop.seq, entry);
        }
    }
}

impl Peer {
    /// What the store has of this message may be another in a moment.
    fn is_moving(&self, message: MessageRef) -> bool {
        let place = self.outgoing.place(message).map(|(feed, _)| feed);
        let moves = place.is_some_and(|feed| !self.outgoing.holds(feed, message.seq));
        let place = place.or_else(|| self.inbox.place(message));
        moves
            || self.erasing.is_some()
            || place.is_some_and(|feed| self.dropping.contains(&(feed, message.seq)))
    }

    /// Begins, or begins again, what the conversation's record says.
    fn erase(&mut self) {
        let Some(upto) = self.conversation.erase else { return };
        let own = self.outgoing.feeds().map(|no| (no, true));
        let feeds = own.chain(self.inbox.feed_nos().map(|no| (no, false))).collect();
        self.erasing = Some(Erasing { upto, feeds, next: 1, asked: None });
    }

    /// Something was read that will be written back without its body: nobody else may write it until then.
    pub(crate) fn is_taking_away(&self) -> bool {
        !self.dropping.is_empty() || self.erasing.as_ref().is_some_and(|erasing| erasing.asked.is_some())
    }

    /// The next page to erase.
    pub(crate) fn wants_erase(&self) -> Option<KeyRange> {
        let erasing = self.erasing.as_ref().filter(|_| !self.is_taking_away())?;
        let (feed, _) = *erasing.feeds.first()?;
        let page = u32::try_from(PAGE_BYTES).unwrap_or(u32::MAX);
        let key = |seq| Key::Entry { feed, seq };
        Some(KeyRange::new(&key(erasing.next), &key(u64::MAX), page))
    }

    pub(crate) fn erase_asked(&mut self) {
        self.erase_questions += 1;
        if let Some(erasing) = &mut self.erasing {
            erasing.asked = Some(self.erase_questions);
        }
    }

    pub(crate) fn erase_loaded(&mut self, cx: &mut Cx, id: PeerId, question: u64, page: Option<&Page>) {
        // Who deletes it twice begins again: what was asked for first says nothing about what is asked for now.
        let Some(mut erasing) = self.erasing.take_if(|erasing| erasing.asked == Some(question)) else {
            return;
        };
        erasing.asked = None;
        let Some((feed, mine)) = erasing.feeds.first().copied() else { return };
        for (seq, entry) in entries(page) {
            erasing.next = seq.saturating_add(1);
            if erasing.upto.covers(mine, &entry) || planted!(cx, DeletedTooMuch) {
                self.erase_entry(cx, feed, mine, seq, entry);
            }
        }
        // What cannot be read stays: it is not known what it is.
        if page.is_none_or(|page| page.complete) {
            erasing.feeds.remove(0);
            erasing.next = 1;
        }
        if erasing.feeds.is_empty() {
            self.conversation.erase = None;
            self.conversation_dirty = true;
            cx.unsaved.insert(id);
            cx.promise_next(Promise::Event(Event::ConversationDeleted { peer: id }));
        } else {
            self.erasing = Some(erasing);
        }
        cx.touch(id);
    }

    fn erase_entry(&mut self, cx: &mut Cx, feed: FeedNo, mine: bool, seq: u64, entry: Entry) {
        let order = if mine {
            self.outgoing.order(feed, seq, entry.lamport)
        } else {
            self.inbox.order_key(feed, seq, entry.lamport)
        };
        let Some(order) = order else { return };
        hide(cx, &order, &entry, mine);
        self.inbox.hidden(cx, feed, seq);
        self.outgoing.hidden(cx, feed, seq);
        let delivered = self.outgoing.find(feed, seq).is_some_and(|(_, delivered)| delivered);
        if mine && !delivered {
            if entry.dropped.is_none() {
                self.outgoing.drop_body(cx, feed, seq, entry, Dropped::Cancelled { settled: false });
            }
        } else if (self.outgoing.is_last(feed, seq) || self.inbox.is_last(feed, seq))
            && !planted!(cx, HeadDeleted)
        {
            // The last header proves the whole feed to who lost it.
            let kept =
                Entry { body: Bytes::new(), dropped: entry.dropped.or(Some(Dropped::Deleted)), ..entry };
            cx.put(&Key::Entry { feed, seq }, kept.encode());
        } else {
            cx.delete(&Key::Entry { feed, seq });
        }
    }
}

/// Takes an entry out of everything that finds it.
fn hide(cx: &mut Cx, order: &OrderKey, entry: &Entry, mine: bool) {
    cx.delete(&Key::Order(*order));
    if entry.arrival > 0 {
        cx.delete(&Key::Arrival(entry.arrival));
    }
    if mine {
        cx.delete(&Key::Caller { conversation: order.conversation, caller: entry.caller });
    }
}
