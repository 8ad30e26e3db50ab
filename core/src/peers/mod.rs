//! The table of peers: one conversation each, the sessions that carry it, and the dialling that keeps them coming.
//!
//! Two sessions with one peer happen: both dialled at once, or one side lost a session that the other still believes
//! in. Handshakes say which: a later start of the other side, or "after that session of ours", replaces the old one
//! at once. Otherwise they overlap, and both sides prefer the one that the lower PeerId dialled; the other is closed
//! only after the preferred one carried a record, and meanwhile carries the messages if it is the one that works. What
//! goes straight is preferred to what a relay carries.

mod reach;
mod talk;

use crate::api::{
    AttemptOutcome, ContactChange, Event, Expire, Gauge, PathKind, Rejection, SessionEnd, TicketRefusal,
};
use crate::assemble::Assembly;
use crate::bounded::{List, Queue};
use crate::cx::{Cx, Promise, Removal, Timer};
use crate::giveback::Giveback;
use crate::identity::{Shared, conversation_id};
use crate::ids::{BatchId, CallerId, FeedNo, InviteId, PeerId, SessionId, StreamId};
use crate::inbox::Inbox;
use crate::limits::{LOOKUPS, OVERLAP_MAX, PARTIALS, SESSIONS_PER_PEER};
use crate::links::{Link, Links};
use crate::outgoing::Outgoing;
use crate::path::dial::{Dial, is_dialable};
use crate::planted::planted;
use crate::profile::Own;
use crate::record::{Contact, ContactState, Conversation, Erase, Invite, Key, Record as _};
use crate::session::Identified;
use crate::time::Age;
use crate::wire::frame::CloseReason;
use alloc::collections::{BTreeMap, BTreeSet};
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::SocketAddr;

#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) contact: Contact,
    pub(crate) conversation: Conversation,
    pub(crate) conversation_dirty: bool,
    /// The batch in which an invitation made it a contact. Nobody may rely on that before it is durable: the peer
    /// forgets its ticket as soon as a session stands.
    pub(crate) made_in: BatchId,
    pub(crate) outgoing: Outgoing,
    pub(crate) inbox: Inbox,
    assembly: Assembly,
    giveback: Giveback,
    /// The conversation is being deleted.
    pub(crate) erasing: Option<Erasing>,
    /// Messages of it that are being read because they are taken away one by one.
    pub(crate) dropping: BTreeSet<(FeedNo, u64)>,
    /// How many pages were asked for to be deleted: an answer to an older question is about something else.
    pub(crate) erase_questions: u64,
    /// In order of preference.
    sessions: List<StreamId, SESSIONS_PER_PEER>,
    /// The one that carries the messages.
    active: Option<StreamId>,
    /// The newest that ever opened in this run.
    last_session: Option<SessionId>,
    retry_armed: bool,
    connected: bool,
    /// The way that was told last.
    shown: Option<(SocketAddr, PathKind)>,
    dial: Dial,
    /// From which the numbers of queues are made, once one was.
    shared: Option<Shared>,
}

impl Peer {
    pub(crate) fn new(cx: &mut Cx, id: PeerId, contact: Contact, conversation: Conversation) -> Self {
        let (name, no) = (conversation_id(&cx.peer(), &id), contact.conversation);
        let outgoing = Outgoing::new(cx, id, name, no);
        let inbox = Inbox::new(cx.peer(), id, no, cx.counters.version);
        Self {
            contact,
            conversation,
            conversation_dirty: false,
            made_in: BatchId(0),
            outgoing,
            inbox,
            assembly: Assembly::new(name, id, cx.peer()),
            giveback: Giveback::default(),
            erasing: None,
            dropping: BTreeSet::new(),
            erase_questions: 0,
            sessions: List::new(),
            active: None,
            last_session: None,
            retry_armed: false,
            connected: false,
            shown: None,
            dial: Dial::new(),
            shared: None,
        }
    }

    pub(crate) fn is_contact(&self) -> bool {
        self.contact.state != ContactState::Removed
    }

    pub(crate) const fn is_connected(&self) -> bool {
        self.connected
    }

    /// What is held for this peer, each beside the most that it may be.
    pub(crate) fn held(&self) -> impl Iterator<Item = Gauge> + '_ {
        let begun = Gauge::new("bodies begun", self.assembly.parts(), PARTIALS * self.sessions.len());
        [begun, self.inbox.held()].into_iter().chain(self.outgoing.held())
    }

    fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let all = self.contact.record_addresses.iter().chain(self.contact.ticket_addresses.iter());
        all.copied().filter(is_dialable)
    }

    fn is_wanted(&self) -> bool {
        let wanted = matches!(self.contact.state, ContactState::Pending { .. } | ContactState::Established);
        let somewhere = self.addresses().next().is_some() || !self.contact.relays.is_empty();
        wanted && !self.contact.blocked && somewhere
    }
}

/// A conversation that is being deleted: which feeds are left, and how far the first of them is done.
#[derive(Debug)]
pub(crate) struct Erasing {
    /// What is later stays.
    pub(crate) upto: Erase,
    /// Feeds, and whether they are mine.
    pub(crate) feeds: Vec<(FeedNo, bool)>,
    pub(crate) next: u64,
    /// The number of the question that is open.
    pub(crate) asked: Option<u64>,
}

/// A message that may have been sent before.
#[derive(Debug)]
struct Lookup {
    peer: PeerId,
    caller: CallerId,
    expire: Expire,
    body: Bytes,
}

/// What expires, which the store knows in its order.
#[derive(Debug, Default)]
pub(crate) struct Expiries {
    /// The store is to be asked what expires next.
    pub(crate) look: bool,
    /// It was asked.
    pub(crate) looking: bool,
    /// Messages that are being read because their time is over.
    pub(crate) open: usize,
    /// When the store is to be asked again.
    pub(crate) next: Option<Age>,
}

#[derive(Debug)]
pub(crate) struct Peers {
    pub(crate) map: BTreeMap<PeerId, Peer>,
    pub(crate) invites: BTreeMap<InviteId, Invite>,
    /// This start is counted on disk: handshakes may name it.
    pub(crate) ready: bool,
    pub(crate) stopping: bool,
    lookups: Queue<Lookup>,
    looking_up: BTreeSet<(PeerId, CallerId)>,
    /// Messages that the user takes away, and that must be read for that.
    pub(crate) drops: Queue<Removal>,
    pub(crate) expiries: Expiries,
    /// Peers that wait for a free question.
    pub(crate) waiting: BTreeSet<PeerId>,
}

/// Whether who presented itself may come in.
enum Admission {
    Known,
    /// By an invitation; the session opens when the contact is stored.
    Invited,
    Turned(Rejection, CloseReason),
}

impl Peers {
    pub(crate) fn new() -> Self {
        Self {
            map: BTreeMap::new(),
            invites: BTreeMap::new(),
            ready: false,
            stopping: false,
            lookups: Queue::new(LOOKUPS),
            looking_up: BTreeSet::new(),
            drops: Queue::new(LOOKUPS),
            expiries: Expiries::default(),
            waiting: BTreeSet::new(),
        }
    }

    // --- sessions begin --------------------------------------------------------------------------------------

    /// A handshake proved who the other side is.
    pub(crate) fn decide(
        &mut self,
        cx: &mut Cx,
        links: &mut Links,
        own: &Own,
        stream: StreamId,
        who: &Identified,
    ) {
        let dialled = links.get(stream).is_some_and(Link::we_dialled);
        let stands = || self.map.get(&who.peer).is_some_and(|peer| !peer.sessions.is_empty());
        if self.stopping || (planted!(cx, NewerHandshakeRefused) && !dialled && stands()) {
            links.abort(cx, stream);
        } else if dialled {
            self.decide_dialled(cx, links, own, stream, who.peer);
        } else {
            match self.admit(cx, stream, who) {
                Admission::Known => self.open(cx, links, own, stream, None, None),
                Admission::Invited => {}
                Admission::Turned(why, reason) => {
                    let remote = links.get(stream).map(|link| link.remote);
                    if let Some(remote) = remote {
                        reject(cx, remote, Some(who.peer), why);
                    }
                    if let Some(link) = links.get_mut(stream) {
                        link.peer = None;
                    }
                    links.proceed(cx, stream, None, None);
                    links.end(cx, stream, reason);
                }
            }
        }
    }

    fn decide_dialled(&mut self, cx: &mut Cx, links: &mut Links, own: &Own, stream: StreamId, peer: PeerId) {
        let direct = links.get(stream).is_some_and(|link| !link.is_relayed());
        let relayed = |stream: &StreamId| links.get(*stream).is_none_or(Link::is_relayed);
        // What goes straight is welcome beside what a relay carries.
        let useful = |peer: &Peer| peer.sessions.is_empty() || (direct && peer.sessions.iter().all(relayed));
        let Some(known) = self.map.get(&peer).filter(|peer| peer.is_wanted() && useful(peer)) else {
            // Another session was faster, or the user changed his mind.
            self.attempt_over(cx, links, peer, stream, AttemptOutcome::Superseded);
            links.abort(cx, stream);
            return;
        };
        let secret = match known.contact.state {
            ContactState::Pending { secret } => Some(secret),
            ContactState::Established | ContactState::Refused { .. } | ContactState::Removed => None,
        };
        // What a relay carries goes on until this one has proved itself.
        let after = known.last_session.filter(|_| known.sessions.is_empty());
        self.open(cx, links, own, stream, after, secret);
    }

    fn admit(&mut self, cx: &mut Cx, stream: StreamId, who: &Identified) -> Admission {
        let known = self.map.get(&who.peer);
        if known.is_some_and(|peer| peer.contact.blocked) {
            return Admission::Turned(Rejection::Blocked, CloseReason::Stranger);
        }
        let is_contact = known.is_some_and(Peer::is_contact);
        let is_durable = known.is_some_and(|peer| cx.is_durable(peer.made_in));
        match who.secret {
            _ if is_contact && is_durable => Admission::Known,
            _ if is_contact => {
                cx.promise(Promise::Open(stream));
                Admission::Invited
            }
            None => Admission::Turned(Rejection::Stranger, CloseReason::Stranger),
            Some(secret) => match self.redeem(cx, stream, who, secret) {
                Ok(()) => Admission::Invited,
                Err(why) => Admission::Turned(
                    Rejection::Ticket(why),
                    match why {
                        TicketRefusal::Unknown => CloseReason::TicketUnknown,
                        TicketRefusal::Expired => CloseReason::TicketExpired,
                        TicketRefusal::Spent => CloseReason::TicketSpent,
                        TicketRefusal::Full => CloseReason::Full,
                    },
                ),
            },
        }
    }

    /// Opens a session that was decided upon.
    pub(crate) fn open(
        &mut self,
        cx: &mut Cx,
        links: &mut Links,
        own: &Own,
        stream: StreamId,
        after: Option<SessionId>,
        secret: Option<[u8; 16]>,
    ) {
        let Some(id) = links.get(stream).and_then(|link| link.peer) else { return };
        if !links.proceed(cx, stream, after, secret) {
            links.abort(cx, stream);
            self.stream_over(cx, links, id, stream, SessionEnd::Misbehaved);
            return;
        }
        let Some(peer) = self.map.get_mut(&id) else { return };
        let replaced: Vec<StreamId> =
            peer.sessions.iter().copied().filter(|old| replaces(links, stream, *old)).collect();
        let beats = peer.sessions.first().is_none_or(|best| preferred(cx, links, stream, *best));
        for old in replaced {
            links.end(cx, old, CloseReason::Replaced);
            self.stream_over(cx, links, id, old, SessionEnd::Replaced);
        }
        let Some(peer) = self.map.get_mut(&id) else { return };
        if peer.sessions.is_full()
            && let Some(last) = peer.sessions.last().copied()
        {
            links.end(cx, last, CloseReason::Replaced);
            self.stream_over(cx, links, id, last, SessionEnd::Replaced);
        }
        let Some(peer) = self.map.get_mut(&id) else { return };
        let at = if beats { 0 } else { peer.sessions.len() };
        let _room_was_made = peer.sessions.insert(at, stream);
        peer.last_session = links.get(stream).and_then(|link| link.session.id());
        peer.dial.ended(stream);
        if let Some(link) = links.get_mut(stream) {
            link.have_due = !planted!(cx, LostAckNeverRepaired);
            link.have_after = peer.inbox.taken_in(cx);
            link.record_due = own.record().is_some();
            link.candidates_due = cx.datagrams && link.is_relayed();
        }
        self.elect(cx, links, id);
    }

    /// Chooses the session that carries the messages.
    fn elect(&mut self, cx: &mut Cx, links: &mut Links, id: PeerId) {
        let Some(peer) = self.map.get_mut(&id) else { return };
        let confirmed = |stream: &&StreamId| links.get(**stream).is_some_and(|link| link.confirmed);
        let best = peer.sessions.iter().find(confirmed).or(peer.sessions.first()).copied();
        if best != peer.active {
            // What was offered on the one before may still be read by the peer while it tells what it has on this one.
            let crossed = peer.active.is_some();
            peer.active = best;
            match best {
                Some(_) => peer.outgoing.begin(crossed),
                None => peer.outgoing.end(),
            }
            peer.giveback.session_over();
            // What was to be said on the other may never have left.
            if let Some(link) = best.and_then(|best| links.get_mut(best)) {
                link.have_due |= !planted!(cx, LostAckNeverRepaired);
            }
            if core::mem::take(&mut peer.retry_armed) {
                cx.timers.cancel(Timer::Retry(id));
            }
        }
        self.show(cx, links, id);
        cx.touch(id);
    }

    /// Tells on which way the messages go, if that is another one than was told.
    pub(crate) fn show(&mut self, cx: &mut Cx, links: &Links, id: PeerId) {
        let Some(peer) = self.map.get_mut(&id).filter(|peer| peer.connected) else { return };
        let active = peer.active.and_then(|active| links.get(active)).filter(|link| link.confirmed);
        let Some((remote, path)) = active.map(|link| (link.remote, link.path())) else { return };
        if peer.shown.replace((remote, path)) != Some((remote, path)) {
            cx.event(Event::PathChanged { peer: id, remote, path });
        }
    }

    /// The first record came: the other side has the keys, so the session stands.
    fn confirm(&mut self, cx: &mut Cx, links: &mut Links, id: PeerId, stream: StreamId) {
        let Some(link) = links.get_mut(stream) else { return };
        if link.confirmed {
            return;
        }
        link.confirmed = true;
        cx.stats.sessions += 1;
        let (remote, path, initiator) = (link.remote, link.path(), link.we_dialled());
        let (relayed, round_trip) = (link.is_relayed(), link.session.round_trip());
        let Some(peer) = self.map.get_mut(&id) else { return };
        if initiator {
            cx.event(Event::Attempt { peer: id, remote, path, outcome: AttemptOutcome::Connected });
        }
        if !core::mem::replace(&mut peer.connected, true) {
            peer.dial.stands(cx.now, peer.outgoing.acknowledged());
            peer.shown = Some((remote, path));
            cx.event(Event::Connected { peer: id, remote, path, initiator });
            if !round_trip.is_zero() {
                cx.event(Event::RoundTrip { peer: id, round_trip });
            }
        }
        if !relayed {
            cx.timers.cancel(Timer::Dial(id));
            let running = peer.dial.stop();
            for loser in running.iter().copied() {
                links.abort(cx, loser);
            }
        }
        if matches!(peer.contact.state, ContactState::Pending { .. }) {
            peer.contact.state = ContactState::Established;
            cx.put(&Key::Contact(id), peer.contact.encode());
            cx.promise_event(Event::ContactChanged { peer: id, change: ContactChange::Established });
        }
        if peer.sessions.first() == Some(&stream) {
            let losers: Vec<StreamId> =
                peer.sessions.iter().copied().filter(|other| *other != stream).collect();
            for loser in losers {
                links.end(cx, loser, CloseReason::Replaced);
                self.stream_over(cx, links, id, loser, SessionEnd::Replaced);
            }
        } else {
            cx.timer(Timer::Overlap(id), OVERLAP_MAX);
        }
        self.elect(cx, links, id);
        if relayed {
            self.go_straight(cx, links, id);
        }
    }

    /// An overlap had its time. If the preferred session did not prove itself, another carries on. If it did, whoever is
    /// still on another never saw it: a second process of the same profile, which begins anew.
    pub(crate) fn overlap_over(&mut self, cx: &mut Cx, links: &mut Links, id: PeerId) {
        let Some(peer) = self.map.get(&id) else { return };
        let unproven = |stream: &&StreamId| links.get(**stream).is_some_and(|link| !link.confirmed);
        if !peer.sessions.first().as_ref().is_none_or(unproven) {
            let others: Vec<StreamId> = peer.sessions.iter().skip(1).copied().collect();
            for stream in others {
                links.end(cx, stream, CloseReason::Replaced);
                self.stream_over(cx, links, id, stream, SessionEnd::Replaced);
            }
            return;
        }
        let unproven: Vec<StreamId> = peer.sessions.iter().filter(unproven).copied().collect();
        if unproven.len() < peer.sessions.len() {
            for stream in unproven {
                links.abort(cx, stream);
                self.stream_over(cx, links, id, stream, SessionEnd::Silent);
            }
        }
    }

    // --- sessions end ----------------------------------------------------------------------------------------

    /// A stream of this peer is over (and forgotten by the links).
    pub(crate) fn stream_over(
        &mut self,
        cx: &mut Cx,
        links: &mut Links,
        id: PeerId,
        stream: StreamId,
        why: SessionEnd,
    ) {
        let Some(peer) = self.map.get_mut(&id) else { return };
        if !planted!(cx, ChunkKept) {
            peer.assembly.stream_over(stream);
        }
        let before = peer.sessions.len();
        peer.sessions.retain(|other| *other != stream);
        if before == peer.sessions.len() {
            return;
        }
        self.elect(cx, links, id);
        let Some(peer) = self.map.get_mut(&id) else { return };
        if !peer.sessions.is_empty() {
            return;
        }
        let stood = core::mem::take(&mut peer.connected);
        if stood {
            // What was tried beside it was for something better than what is now gone.
            for attempt in peer.dial.stop().iter().copied() {
                links.abort(cx, attempt);
            }
            peer.dial.fell(cx.now, peer.outgoing.acknowledged());
            cx.event(Event::Disconnected { peer: id, why });
        } else if peer.dial.is_waiting() {
            // The attempt that opened it has failed already, and has set the next: one failure counts once.
            return;
        }
        let wait = match why {
            SessionEnd::Lost | SessionEnd::Silent if stood => peer.dial.wait_after_break(&mut cx.rng),
            SessionEnd::Closed
            | SessionEnd::Lost
            | SessionEnd::Silent
            | SessionEnd::Replaced
            | SessionEnd::Local
            | SessionEnd::Misbehaved => peer.dial.wait(&mut cx.rng),
        };
        self.dial_after(cx, id, wait);
    }

    fn dial_after(&mut self, cx: &mut Cx, id: PeerId, wait: crate::time::Duration) {
        let Some(peer) = self.map.get_mut(&id) else { return };
        if self.stopping || !self.ready || !peer.is_wanted() {
            peer.dial.stop();
            return;
        }
        cx.timer(Timer::Dial(id), wait);
        cx.event(Event::NextAttempt { peer: id, at: cx.now + wait });
    }
}

pub(crate) fn reject(cx: &mut Cx, remote: SocketAddr, peer: Option<PeerId>, why: Rejection) {
    let stats = &mut cx.stats;
    let counter = match why {
        Rejection::HalfOpen => &mut stats.rejected_half_open,
        Rejection::NotForUs => &mut stats.rejected_not_for_us,
        Rejection::BadHandshake => &mut stats.rejected_bad_handshake,
        Rejection::Slow => &mut stats.rejected_slow,
        Rejection::Stranger => &mut stats.rejected_stranger,
        Rejection::Ticket(_) => &mut stats.rejected_ticket,
        Rejection::Blocked => &mut stats.rejected_blocked,
    };
    *counter += 1;
    cx.event(Event::Rejected { remote, peer, why });
}

/// Whether the session `new` says that `old` is dead: it was begun by another start of the peer, or after `old`.
fn replaces(links: &Links, new: StreamId, old: StreamId) -> bool {
    let (Some(new), Some(old)) = (links.get(new), links.get(old)) else { return true };
    // A handshake that came late is of a process that may be dead, whatever it says of itself.
    let came_late = new.began < old.began;
    let later = match (new.holder, old.holder) {
        (Some((holder, start)), Some((old_holder, old_start))) => holder != old_holder || start > old_start,
        _ => false,
    };
    // A process that is not the one that the old session was with: its store may have forgotten that it counted.
    let another = new.key.is_some() && old.key.is_some() && new.key != old.key;
    ((later || another) && !came_late) || (new.after.is_some() && new.after == old.session.id())
}

/// Which of two sessions that overlap both sides prefer: that of the lower PeerId; of two by the same, the newer.
fn preferred(cx: &Cx, links: &Links, new: StreamId, old: StreamId) -> bool {
    let (Some(new), Some(old)) = (links.get(new), links.get(old)) else { return true };
    if new.is_relayed() != old.is_relayed() {
        return old.is_relayed();
    }
    if new.we_dialled() == old.we_dialled() {
        return new.began >= old.began;
    }
    let Some(peer) = new.peer else { return true };
    new.we_dialled() == (cx.peer() < peer)
}
