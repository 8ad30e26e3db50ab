//! What expires: an own message that is not proven to be delivered when the time is over that the user had set for it.
//!
//! The store has an index of these, in the order of their time. Only its beginning is looked at: at start, when the next
//! is due, and again when those that were due are done, so many at a time. So it does not matter how many wait, nor that
//! most of them are not in memory. What expired is taken back as if the user had done it just then; what was delivered
//! meanwhile is only taken out of the index. An entry whose turn to be offered comes before that is held back.

use crate::api::{Event, KeyRange, Page};
use crate::cx::{Asked, Cx, Removal, Timer};
use crate::ids::{FeedNo, PeerId};
use crate::limits::{EXPIRED_AT_ONCE, EXPIRY_LOOK, KEY_BYTES, RETRY_FIRST, RETRY_MAX};
use crate::outgoing::Expiring;
use crate::peers::Peers;
use crate::planted::planted;
use crate::record::{Dropped, Entry, Key};
use crate::time::{Age, Duration};
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

impl Peers {
    /// Something expires at `at`.
    pub(crate) fn expires_at(&mut self, cx: &mut Cx, at: Age) {
        if self.expiries.next.is_none_or(|next| at < next) {
            self.expiries.next = Some(at);
            self.set_expiry(cx);
        }
    }

    /// Sets the timer anew: something else expires next, or the count of the age made a step.
    pub(crate) fn set_expiry(&mut self, cx: &mut Cx) {
        if let Some(next) = self.expiries.next {
            let wait = next.saturating_since(cx.age());
            cx.timer(Timer::Expiry, wait.min(EXPIRY_LOOK));
        }
    }

    /// Something is due, or something waits for so long that the time until now must not be lost with a crash.
    pub(crate) fn expiry_due(&mut self, cx: &mut Cx) {
        cx.put_stale_age();
        self.expiries.next = None;
        self.expiries.look = true;
    }

    /// Asks what expires next.
    pub(crate) fn ask_expiry(&mut self, cx: &mut Cx) {
        let busy = self.expiries.looking || self.expiries.open > 0;
        if !self.expiries.look || busy {
            return;
        }
        let key = |at, feed, seq| Key::Expiry { at: Age(at), feed: FeedNo(feed), seq };
        let first = key(0, 0, 0);
        let last = key(u64::MAX, u32::MAX, u64::MAX);
        let most = u32::try_from(EXPIRED_AT_ONCE * KEY_BYTES).unwrap_or(u32::MAX);
        if cx.ask(Asked::Expiry, KeyRange::new(&first, &last, most)) {
            self.expiries.look = false;
            self.expiries.looking = true;
        }
    }

    /// The beginning of the index.
    pub(crate) fn expiry_loaded(&mut self, cx: &mut Cx, page: Option<&Page>) {
        self.expiries.looking = false;
        let Some(page) = page else {
            cx.misbehaved(cx.peer(), "what expires cannot be read from the store");
            return self.look_after(cx, RETRY_MAX);
        };
        let mut due: BTreeMap<FeedNo, Vec<(u64, Age)>> = BTreeMap::new();
        for (key, _) in &page.records {
            let Ok(Key::Expiry { at, feed, seq }) = Key::decode(key) else { continue };
            if at > cx.age() {
                self.expires_at(cx, at);
                break;
            }
            due.entry(feed).or_default().push((seq, at));
        }
        if due.is_empty() {
            return;
        }
        // There may be more behind these.
        self.expiries.look = true;
        let mut moving = false;
        let owners: Vec<(PeerId, FeedNo)> = self
            .map
            .iter()
            .flat_map(|(id, peer)| peer.outgoing.feeds().map(|feed| (*id, feed)))
            .filter(|(_, feed)| due.contains_key(feed))
            .collect();
        for (id, feed) in owners {
            for (seq, at) in due.remove(&feed).unwrap_or_default() {
                moving |= !self.expire(cx, id, feed, seq, at);
            }
        }
        for (feed, seq, at) in
            due.into_iter().flat_map(|(feed, all)| all.into_iter().map(move |(seq, at)| (feed, seq, at)))
        {
            // Nobody's: what it led to is gone.
            cx.delete(&Key::Expiry { at, feed, seq });
        }
        if moving {
            self.expiries.look = false;
            self.look_after(cx, RETRY_FIRST);
        }
    }

    fn look_after(&mut self, cx: &mut Cx, wait: Duration) {
        let at = cx.age() + wait;
        self.expires_at(cx, at);
    }

    /// The time of this entry is over. `false`: it cannot be taken back now, because it is about to be another, or there is no
    /// room.
    pub(crate) fn expire(&mut self, cx: &mut Cx, id: PeerId, feed: FeedNo, seq: u64, at: Age) -> bool {
        let Some(peer) = self.map.get_mut(&id) else { return true };
        if peer.dropping.contains(&(feed, seq)) {
            return true;
        }
        let message = match peer.outgoing.expiring(feed, seq) {
            Some(Expiring::Here { message, delivered: false }) => message,
            Some(Expiring::Here { message, .. }) if planted!(cx, ExpiredThoughDelivered) => message,
            Some(Expiring::Moves) => return false,
            Some(Expiring::Here { .. } | Expiring::Gone) | None => {
                peer.outgoing.unexpire(cx, feed, seq, Some(at));
                return true;
            }
        };
        if peer.erasing.is_some() || self.drops.is_full() {
            self.waiting.insert(id);
            return false;
        }
        peer.dropping.insert((feed, seq));
        self.expiries.open += 1;
        let why = Dropped::Expired { settled: false };
        let _room_was_checked = self.drops.push(Removal {
            peer: id,
            feed,
            seq,
            mine: true,
            message,
            why,
            expires: Some(at),
            cancel: true,
        });
        true
    }

    /// An entry whose time is over was read.
    pub(crate) fn overdue_loaded(&mut self, cx: &mut Cx, drop: &Removal, found: Option<Entry>) {
        self.expiries.open = self.expiries.open.saturating_sub(1);
        let Some(peer) = self.map.get_mut(&drop.peer) else { return };
        let waits = match peer.outgoing.expiring(drop.feed, drop.seq) {
            Some(Expiring::Here { delivered, .. }) => !delivered || planted!(cx, ExpiredThoughDelivered),
            // What leads to it moves with it.
            Some(Expiring::Moves) => return,
            Some(Expiring::Gone) | None => false,
        };
        match found {
            Some(entry) if waits && entry.dropped.is_none() => {
                peer.outgoing.drop_body(cx, drop.feed, drop.seq, entry, drop.why);
            }
            found => {
                if waits && found.is_none() {
                    cx.event(Event::DropFailed {
                        peer: drop.peer,
                        message: drop.message,
                        why: crate::api::Refusal::StoreFailed,
                    });
                }
                peer.outgoing.unexpire(cx, drop.feed, drop.seq, drop.expires);
            }
        }
    }
}
