//! All my epochs towards one peer: the one that is written now, and the earlier ones that a rollback ended.
//!
//! The earlier ones are offered first, in the order in which they name each other. Once both sides hold one whole it is
//! closed, and one hash stands for all that are.

use crate::api::{Event, Gauge, KeyRange, Page};
use crate::bounded::List;
use crate::chain::{ClosedEpochs, empty_feed, first_name, is_held};
use crate::cx::{Cx, OutboxAsked as Asked};
use crate::ids::{CallerId, ConversationId, ConversationNo, EntryHash, Epoch, FeedNo, MessageRef, PeerId};
use crate::limits::{CREDIT_BYTES, EPOCHS, OPEN_EPOCHS};
use crate::outbox::{Draft, Outbox};
use crate::planted::planted;
use crate::record::{Dropped, Entry, EpochLink, Feed, Head, Key, OrderKey, Place};
use crate::time::{Age, Duration};
use crate::wire::entry::{Author, Gone};
use crate::wire::frame::{Closed, Have, HaveFeed};
use alloc::vec::Vec;
use bytes::Bytes;

/// What is known of an entry that was to expire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expiring {
    /// It is being issued again under another number.
    Moves,
    /// It is not there any more.
    Gone,
    Here {
        message: MessageRef,
        delivered: bool,
    },
}

#[derive(Debug)]
pub(crate) struct Outgoing {
    me: PeerId,
    peer: PeerId,
    conversation: ConversationId,
    no: ConversationNo,
    /// Oldest first.
    earlier: List<Outbox, EPOCHS>,
    current: Outbox,
    in_session: bool,
    credit: u32,
    seen_version: Option<(Epoch, u64)>,
    /// Epochs that the peer says are mine, and that this store does not know.
    unknown: List<Epoch, OPEN_EPOCHS>,
    /// The peer has something of mine that I lost: it should know that I ask for it.
    asking: bool,
    /// Questions to the store so far.
    turn: u64,
}

impl Outgoing {
    pub(crate) fn new(cx: &mut Cx, peer: PeerId, conversation: ConversationId, no: ConversationNo) -> Self {
        let me = cx.peer();
        let feed = empty_feed(no, cx.epoch);
        Self {
            me,
            peer,
            conversation,
            no,
            earlier: List::new(),
            current: Outbox::new(me, peer, conversation, cx.new_feed(), feed),
            in_session: false,
            credit: 0,
            seen_version: None,
            unknown: List::new(),
            asking: false,
            turn: 0,
        }
    }

    /// An own feed that was stored, at start.
    pub(crate) fn restore(&mut self, no: FeedNo, feed: Feed) {
        let is_current = feed.epoch == self.current.feed().epoch;
        let outbox = Outbox::new(self.me, self.peer, self.conversation, no, feed);
        if is_current {
            self.current = outbox;
        } else {
            self.keep(outbox);
        }
    }

    fn keep(&mut self, outbox: Outbox) {
        if self.earlier.is_full() {
            // The oldest that is closed is known whole on both sides: it is history here, and not served any more.
            let at = self.earlier.iter().position(|outbox| outbox.feed().closed).unwrap_or(0);
            self.earlier.remove(at);
        }
        let _room_was_made = self.earlier.push(outbox);
        self.sort();
    }

    fn sort(&mut self) {
        let order = ClosedEpochs::order(self.earlier.iter().map(|outbox| outbox.feed()));
        let rank = |outbox: &Outbox| order.iter().position(|epoch| *epoch == outbox.feed().epoch);
        self.earlier.sort_by_key(rank);
    }

    /// This profile has a new epoch: what was written ends, and goes on in it.
    pub(crate) fn switch(&mut self, cx: &mut Cx) {
        let (no, unused) = (self.current.no(), self.current.is_unused());
        let feed = empty_feed(self.no, cx.epoch);
        let no = if unused { no } else { cx.new_feed() };
        let new = Outbox::new(self.me, self.peer, self.conversation, no, feed);
        let old = core::mem::replace(&mut self.current, new);
        if !unused {
            self.keep(old);
        } else if self.in_session {
            // What the peer has of it may be on its way back already.
            let _as_many_as_fit = self.unknown.push(old.feed().epoch);
        }
        if self.in_session {
            self.current.begin(0);
        }
        self.resume(cx);
    }

    /// What waited for the new epoch goes on.
    fn resume(&mut self, cx: &mut Cx) {
        let ended = self.has_names();
        if self.in_session {
            for outbox in self.earlier.iter_mut().filter(|outbox| outbox.is_stopped() && !outbox.has_fork()) {
                outbox.resume(cx, ended);
                self.asking = true;
            }
        }
        cx.touch(self.peer);
    }

    fn all(&self) -> impl Iterator<Item = &Outbox> {
        self.earlier.iter().chain(core::iter::once(&self.current))
    }

    pub(crate) fn held(&self) -> impl Iterator<Item = Gauge> + '_ {
        self.all().flat_map(Outbox::held)
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Outbox> {
        self.earlier.iter_mut().chain(core::iter::once(&mut self.current))
    }

    // --- writing ---------------------------------------------------------------------------------------------

    pub(crate) fn lamport(&self) -> u64 {
        self.all().map(|outbox| outbox.feed().lamport).max().unwrap_or(0)
    }

    pub(crate) fn is_full(&self) -> bool {
        let waiting = self.all().map(Outbox::unacknowledged).fold(0, u64::saturating_add);
        waiting >= crate::limits::UNACKNOWLEDGED
    }

    /// How many numbers the peer acknowledged, in all epochs.
    pub(crate) fn acknowledged(&self) -> u64 {
        self.all().map(|outbox| outbox.feed().acked).fold(0, u64::saturating_add)
    }

    /// The message that stands there, and whether it is delivered.
    pub(crate) fn find(&self, feed: FeedNo, seq: u64) -> Option<(MessageRef, bool)> {
        let outbox = self.all().find(|outbox| outbox.no() == feed)?;
        Some((MessageRef { epoch: outbox.feed().epoch, seq }, outbox.is_delivered(seq)))
    }

    /// Something must be issued again, with or without a session.
    pub(crate) fn has_fork(&self) -> bool {
        self.all().any(Outbox::has_fork)
    }

    pub(crate) fn feeds(&self) -> impl Iterator<Item = FeedNo> + '_ {
        self.all().map(Outbox::no)
    }

    pub(crate) fn is_last(&self, feed: FeedNo, seq: u64) -> bool {
        let ends = |feed: &Feed| feed.head == seq || feed.beyond.iter().any(|range| range.last == seq);
        self.all().any(|outbox| outbox.no() == feed && ends(outbox.feed()))
    }

    /// The user deleted this entry, and what found it.
    pub(crate) fn hidden(&mut self, cx: &mut Cx, feed: FeedNo, seq: u64) {
        if let Some(outbox) = self.all_mut().find(|outbox| outbox.no() == feed) {
            outbox.hidden(cx, seq);
        }
    }

    pub(crate) fn order(&self, feed: FeedNo, seq: u64, lamport: u64) -> Option<OrderKey> {
        let outbox = self.all().find(|outbox| outbox.no() == feed)?;
        Some(outbox.order(seq, lamport))
    }

    /// Where this own message is stored, and whether it is delivered.
    pub(crate) fn place(&self, message: MessageRef) -> Option<(FeedNo, bool)> {
        let outbox = self.all().find(|outbox| outbox.feed().epoch == message.epoch)?;
        let there = message.seq >= 1 && is_held(outbox.feed(), message.seq);
        there.then(|| (outbox.no(), outbox.is_delivered(message.seq)))
    }

    pub(crate) fn append(
        &mut self,
        cx: &mut Cx,
        caller: CallerId,
        expires: Option<Age>,
        body: Bytes,
        lamport: u64,
        seen: &[Head],
    ) -> MessageRef {
        let draft = Draft {
            caller,
            claimed: cx.wall(),
            body_hash: crate::chain::body_hash(&body),
            body_len: u32::try_from(body.len()).unwrap_or(u32::MAX),
            body,
            dropped: None,
            expires,
            replaces: None,
            lamport,
        };
        let link = self.link();
        let seq = self.current.append(cx, draft, seen, link);
        MessageRef { epoch: self.current.feed().epoch, seq }
    }

    /// What the first entry of the current epoch names.
    fn link(&self) -> Option<EpochLink> {
        let last = self.earlier.last()?.feed();
        // What must be issued again above the last common number is not part of it any more.
        let (head, hash) =
            if last.fork.is_some() { (last.acked, last.acked_hash) } else { (last.head, last.hash) };
        Some(EpochLink { epoch: last.epoch, last: head, hash })
    }

    /// Takes the body of an own entry away.
    pub(crate) fn drop_body(&mut self, cx: &mut Cx, feed: FeedNo, seq: u64, entry: Entry, why: Dropped) {
        if let Some(outbox) = self.all_mut().find(|outbox| outbox.no() == feed) {
            outbox.drop_body(cx, seq, entry, why);
        }
    }

    pub(crate) fn write_dirty(&mut self, cx: &mut Cx) {
        self.all_mut().for_each(|outbox| outbox.write_dirty(cx));
    }

    /// Entries up to `seq` are durable now. `true`: they were given back, and the peer should know.
    pub(crate) fn durable(&mut self, feed: FeedNo, seq: u64, hash: EntryHash) -> bool {
        self.all_mut().find(|outbox| outbox.no() == feed).is_some_and(|outbox| outbox.durable(seq, hash))
    }

    // --- session ---------------------------------------------------------------------------------------------

    /// A session carries the messages from now on. `crossed`: another did until now.
    pub(crate) fn begin(&mut self, crossed: bool) {
        let elsewhere: List<u64, EPOCHS> =
            List::of(self.earlier.iter().map(|outbox| outbox.offered_anywhere(crossed)));
        let current = self.current.offered_anywhere(crossed);
        self.end();
        self.in_session = true;
        self.credit = CREDIT_BYTES;
        for (outbox, elsewhere) in self.earlier.iter_mut().zip(elsewhere.iter()) {
            outbox.begin(*elsewhere);
        }
        self.current.begin(current);
    }

    pub(crate) fn end(&mut self) {
        self.in_session = false;
        self.seen_version = None;
        self.unknown.clear();
        self.asking = false;
        self.all_mut().for_each(Outbox::end);
    }

    pub(crate) fn retry(&mut self) {
        self.all_mut().for_each(Outbox::retry);
    }

    pub(crate) fn retry_after(&mut self, cx: &mut Cx) -> Option<Duration> {
        self.all_mut().find_map(|outbox| outbox.retry_after(cx))
    }

    pub(crate) fn has_flight(&self) -> bool {
        self.all().any(Outbox::has_flight)
    }

    /// What the peer still takes.
    fn left(&self) -> u32 {
        let flight = self.all().map(Outbox::flight_cost).fold(0, u32::saturating_add);
        self.credit.saturating_sub(flight)
    }

    // --- questions -------------------------------------------------------------------------------------------

    /// What must be loaded, one question at a time.
    pub(crate) fn wants_load(&mut self) -> Option<(FeedNo, Asked, KeyRange)> {
        if self.all().any(Outbox::is_asking) {
            return None;
        }
        if let Some(question) = self.wants_first() {
            return Some(question);
        }
        let (left, ended) = (self.left(), self.has_names());
        self.all_mut().find_map(|outbox| {
            let (asked, range) = outbox.wants_load(left, ended)?;
            Some((outbox.no(), asked, range))
        })
    }

    /// Messages of this conversation may have several names: there was more than one epoch.
    fn has_names(&self) -> bool {
        self.earlier.len() > 1 || (self.earlier.len() == 1 && !self.current.is_unused())
    }

    /// The first name of something that comes back, and where that would be here.
    fn wants_first(&self) -> Option<(FeedNo, Asked, KeyRange)> {
        self.earlier.iter().find_map(|outbox| {
            let first = outbox.wants_first()?;
            let (feed, seq) = (self.holder(&first)?, first.seq);
            let key = Key::Entry { feed, seq };
            Some((outbox.no(), Asked::First { feed, seq }, KeyRange::new(&key, &key, 1)))
        })
    }

    fn holder(&self, name: &Head) -> Option<FeedNo> {
        let holds = |outbox: &&Outbox| outbox.feed().epoch == name.epoch && is_held(outbox.feed(), name.seq);
        self.all().find(holds).map(Outbox::no)
    }

    /// What has a first name that is not here has none.
    fn skip_firsts(&mut self) {
        for at in 0..self.earlier.len() {
            let first = self.earlier.get(at).and_then(Outbox::wants_first);
            if first.is_some_and(|first| self.holder(&first).is_none())
                && let Some(outbox) = self.earlier.get_mut(at)
            {
                outbox.no_first();
            }
        }
    }

    /// The number of the next question.
    pub(crate) const fn next_turn(&mut self) -> u64 {
        self.turn += 1;
        self.turn
    }

    pub(crate) fn asked(&mut self, feed: FeedNo, asked: Asked, turn: u64) {
        if let Some(outbox) = self.all_mut().find(|outbox| outbox.no() == feed) {
            outbox.asked(asked, turn);
        }
    }

    /// An answer. `lamport`: the highest logical time that the peer used. `true`: a have-vector acknowledged something.
    pub(crate) fn loaded(
        &mut self,
        cx: &mut Cx,
        feed: FeedNo,
        asked: (&Asked, u64),
        page: Option<&Page>,
        lamport: u64,
    ) -> bool {
        let Some(outbox) = self.all_mut().find(|outbox| outbox.no() == feed) else { return false };
        if !outbox.is_asking() {
            return false;
        }
        let had_fork = outbox.has_fork();
        let progressed = outbox.loaded(cx, asked, page);
        if had_fork && !outbox.has_fork() {
            self.resume(cx);
        }
        if !self.reissue(cx, feed, lamport) {
            self.settle_given(cx);
        }
        progressed
    }

    /// Issues an entry again in the current epoch, if it is known that it was not yet. `false`: there is none.
    fn reissue(&mut self, cx: &mut Cx, feed: FeedNo, lamport: u64) -> bool {
        let Some(at) = self.earlier.iter().position(|outbox| outbox.no() == feed) else { return false };
        let link = self.link();
        let lamport = lamport.max(self.lamport()) + 1;
        let Some(old) = self.earlier.get_mut(at) else { return false };
        let Some((seq, entry, shown)) = old.next_to_reissue() else { return false };
        let (epoch, was, caller) = (old.feed().epoch, entry.lamport, entry.caller);
        let expires = entry.expires;
        let new = if let Some(shown) = shown {
            // It came back already under another name.
            let place = Place { feed: shown.feed, seq: shown.seq }.encode();
            cx.put(&Key::Caller { conversation: self.no, caller }, place);
            MessageRef { epoch: shown.epoch, seq: shown.seq }
        } else {
            let draft = Draft {
                caller,
                claimed: entry.claimed,
                replaces: Some(first_name(epoch, seq, &entry)),
                body: entry.body,
                body_hash: entry.body_hash,
                body_len: entry.body_len,
                dropped: entry.dropped,
                expires,
                lamport,
            };
            let seq = self.current.append(cx, draft, &[], link);
            MessageRef { epoch: self.current.feed().epoch, seq }
        };
        old.reissued(cx, seq, was, expires);
        cx.promise_event(Event::Reissued { peer: self.peer, old: MessageRef { epoch, seq }, new });
        cx.unsaved.insert(self.peer);
        self.resume(cx);
        true
    }

    // --- offers ----------------------------------------------------------------------------------------------

    pub(crate) fn wants_record(&mut self) -> bool {
        let left = self.left();
        self.in_session && self.all_mut().any(|outbox| outbox.wants_record(left))
    }

    /// Settles what was taken back and comes next. `false`: in these sessions that cannot be.
    pub(crate) fn settle_withdrawn(&mut self, cx: &mut Cx) -> bool {
        if self.in_session {
            self.all_mut().for_each(|outbox| {
                outbox.settle_gone(cx);
                outbox.settle_withdrawn(cx);
            });
        }
        !self.in_session || !self.all().any(Outbox::is_unsure)
    }

    /// Holds back what comes next in a session and whose time is over.
    pub(crate) fn hold_overdue(&mut self, cx: &Cx) -> Option<(FeedNo, u64, Age)> {
        let held = self.all_mut().filter_map(|outbox| {
            let (seq, at) = outbox.hold_overdue(cx)?;
            Some((outbox.no(), seq, at))
        });
        // Every one of them must know, and one is enough to do: the others are held until their turn comes.
        held.last()
    }

    /// What is known of an entry of this feed that was to expire; `None`: the feed is not here.
    pub(crate) fn expiring(&self, feed: FeedNo, seq: u64) -> Option<Expiring> {
        let outbox = self.all().find(|outbox| outbox.no() == feed)?;
        Some(if outbox.has_fork() {
            Expiring::Moves
        } else if seq > outbox.feed().head {
            Expiring::Gone
        } else {
            let message = MessageRef { epoch: outbox.feed().epoch, seq };
            Expiring::Here { message, delivered: outbox.is_delivered(seq) }
        })
    }

    /// Whether an entry of this feed is there, and stays where it is.
    pub(crate) fn holds(&self, feed: FeedNo, seq: u64) -> bool {
        let outbox = self.all().find(|outbox| outbox.no() == feed);
        outbox.is_some_and(|outbox| !outbox.has_fork() && seq <= outbox.feed().head)
    }

    /// An entry of this feed does not expire any more.
    pub(crate) fn unexpire(&self, cx: &mut Cx, feed: FeedNo, seq: u64, expires: Option<Age>) {
        if let Some(outbox) = self.all().find(|outbox| outbox.no() == feed) {
            outbox.unexpire(cx, seq, expires);
        }
    }

    pub(crate) fn fill(&mut self, cx: &mut Cx, record: &mut Vec<u8>) {
        let mut left = self.left();
        for outbox in self.all_mut() {
            let before = outbox.flight_cost();
            outbox.fill(cx, record, left);
            left = left.saturating_sub(outbox.flight_cost().saturating_sub(before));
        }
    }

    // --- what the peer has -----------------------------------------------------------------------------------

    /// A have-vector of the peer. `true` if it answered something.
    pub(crate) fn have(&mut self, cx: &mut Cx, have: &Have) -> bool {
        if !self.in_session
            || self
                .seen_version
                .is_some_and(|(holder, version)| holder == have.holder && version > have.version)
        {
            return false;
        }
        self.seen_version = Some((have.holder, have.version));
        self.credit = if planted!(cx, CreditIgnored) { u32::MAX } else { have.credit };
        self.close(cx, have);
        self.note_unknown(have);
        let unread = self.current.feed().acked == 0;
        let mut progressed = false;
        for outbox in self.earlier.iter_mut().filter(|outbox| !outbox.feed().closed) {
            progressed |= outbox.have(cx, have, false);
        }
        progressed |= self.current.have(cx, have, true);
        let more = |feed: &HaveFeed| {
            let mine = self.all().find(|outbox| outbox.feed().epoch == feed.epoch);
            feed.author == Author::Receiver && mine.is_none_or(|outbox| outbox.lacks(feed))
        };
        // The peer knows now what follows the earlier ones: it can close those that I have whole as well.
        let first = unread && self.current.feed().acked > 0;
        let open = self.earlier.iter().any(|outbox| !outbox.feed().closed);
        self.asking = have.feeds.iter().any(more) || (first && open);
        progressed || !self.has_flight()
    }

    /// Whether the peer should be told that I ask for something that it has.
    pub(crate) fn take_asking(&mut self) -> bool {
        let doubts = self.all_mut().filter_map(|outbox| outbox.take_doubt().then_some(())).count();
        core::mem::take(&mut self.asking) || doubts > 0
    }

    /// The peer names by one hash all epochs that it knows whole; the others are open.
    fn close(&mut self, cx: &mut Cx, have: &Have) {
        let said = have.closed.iter().find(|closed| closed.author == Author::Receiver);
        let epochs = said.map_or(0, |said| usize::try_from(said.epochs).unwrap_or(usize::MAX));
        let same = said.is_some_and(|said| {
            epochs <= self.earlier.len()
                && ClosedEpochs::hash(self.earlier.iter().take(epochs).map(Outbox::feed)) == said.hash
        });
        for (at, outbox) in self.earlier.iter_mut().enumerate() {
            let closed = same && at < epochs;
            if closed && !outbox.feed().closed {
                outbox.all_acknowledged(cx);
            }
            if closed != outbox.feed().closed {
                outbox.set_closed(closed);
                cx.unsaved.insert(self.peer);
            }
        }
    }

    fn note_unknown(&mut self, have: &Have) {
        self.unknown.clear();
        let holds = |feed: &&HaveFeed| feed.upto > 0 || !feed.beyond.is_empty();
        for feed in have.feeds.iter().filter(|feed| feed.author == Author::Receiver).filter(holds) {
            if self.all().all(|outbox| outbox.feed().epoch != feed.epoch) {
                let _as_many_as_fit = self.unknown.push(feed.epoch);
            }
        }
    }

    /// What I ask the peer to give back.
    ///
    /// What must be issued again comes first: only then is it known which of what comes back stands for the same.
    pub(crate) fn rows(&self) -> impl Iterator<Item = HaveFeed> + '_ {
        let unsure = self.all().any(|outbox| outbox.has_fork() || outbox.has_doubt());
        let unknown = self.unknown.iter().map(|epoch| HaveFeed {
            author: Author::Sender,
            epoch: *epoch,
            upto: 0,
            hash: EntryHash::NONE,
            beyond: List::new(),
            gone: List::new(),
        });
        let earlier = self.earlier.iter().filter_map(|outbox| outbox.row(false));
        let rows = unknown.chain(earlier).chain(self.current.row(true));
        rows.filter(move |row| !unsure || self.is_doubted(&row.epoch)).take(OPEN_EPOCHS)
    }

    fn is_doubted(&self, epoch: &Epoch) -> bool {
        self.all().any(|outbox| outbox.feed().epoch == *epoch && outbox.has_doubt())
    }

    /// My epochs that both of us have whole.
    pub(crate) fn closed(&self) -> Option<Closed> {
        let closed = self.earlier.iter().map(Outbox::feed).take_while(|feed| feed.closed);
        let epochs = closed.clone().count();
        (epochs > 0).then(|| Closed {
            author: Author::Sender,
            epochs: u32::try_from(epochs).unwrap_or(u32::MAX),
            hash: ClosedEpochs::hash(closed),
        })
    }

    /// The peer gives back an entry of mine.
    pub(crate) fn given(&mut self, cx: &mut Cx, epoch: Epoch, seq: u64, entry: Entry) {
        let tag = cx.identity.tag(&entry.hash);
        if tag != entry.tag && !planted!(cx, ClaimWithoutTagBelieved) {
            cx.misbehaved(self.peer, "gave back what this profile never wrote");
            return;
        }
        if self.unknown.contains(&epoch) {
            let feed = Feed { link: entry.link, ..empty_feed(self.no, epoch) };
            let mut outbox = Outbox::new(self.me, self.peer, self.conversation, cx.new_feed(), feed);
            outbox.begin(0);
            self.unknown.retain(|unknown| *unknown != epoch);
            self.keep(outbox);
            cx.promise_event(Event::RolledBack { peer: self.peer, epoch, common: 0 });
        }
        let ended = self.has_names();
        if self.current.feed().epoch == epoch {
            cx.rolled_back |= self.current.given(cx, seq, entry, true, false);
        } else if let Some(outbox) = self.earlier.iter_mut().find(|outbox| outbox.feed().epoch == epoch)
            && outbox.given(cx, seq, entry, false, ended)
        {
            self.resume(cx);
        }
    }

    fn settle_given(&mut self, cx: &mut Cx) {
        self.skip_firsts();
        cx.rolled_back |= self.current.settle_given(cx, true, false);
        let ended = self.has_names();
        let mut forked = false;
        for outbox in self.earlier.iter_mut() {
            forked |= outbox.settle_given(cx, false, ended);
        }
        if forked {
            self.resume(cx);
        }
    }

    /// The peer does not have these of mine any more.
    pub(crate) fn given_gone(&mut self, cx: &mut Cx, gone: &Gone) {
        let ended = self.has_names();
        if let Some(outbox) = self.earlier.iter_mut().find(|outbox| outbox.feed().epoch == gone.epoch)
            && outbox.given_gone(cx, gone, ended)
        {
            self.resume(cx);
        }
    }
}
