//! The table of peers: one conversation each, the sessions that carry it, and the dialling that keeps them coming.
//!
//! Two sessions with one peer happen: both dialled at once, or one side lost a session that the other still believes
//! in. Handshakes say which: a later start of the other side, or "after that session of ours", replaces the old one
//! at once. Otherwise they overlap, and both sides prefer the one that the lower PeerId dialled; the other is closed
//! only after the preferred one carried a record, and meanwhile carries the messages if it is the one that works.

use crate::api::{AttemptOutcome, ContactChange, DialFailure, Event, Rejection, SessionEnd, TicketRefusal};
use crate::bounded::{List, Queue};
use crate::cx::{Asked, Cx, OutboxAsked, Promise, Timer};
use crate::ids::{BatchId, CallerId, InviteId, MessageRef, PeerId, SessionId, StreamId};
use crate::inbox::Inbox;
use crate::limits::{DIAL_STAGGER, LOOKUPS, OVERLAP_MAX, RECORD_FRAMES, SESSIONS_PER_PEER};
use crate::links::{Link, Links};
use crate::outbox::Outbox;
use crate::path::dial::{Dial, dialable, is_dialable};
use crate::planted::planted;
use crate::profile::Own;
use crate::record::{Contact, ContactState, Conversation, Invite, Key, Place, Record as _, Table};
use crate::session::Identified;
use crate::wire::Malformed;
use crate::wire::frame::{CloseReason, Frame, Frames};
use crate::wire::peer_record::PeerRecord;
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
    pub(crate) outbox: Outbox,
    pub(crate) inbox: Inbox,
    /// In order of preference.
    sessions: List<StreamId, SESSIONS_PER_PEER>,
    /// The one that carries the messages.
    active: Option<StreamId>,
    /// The newest that ever opened in this run.
    last_session: Option<SessionId>,
    retry_armed: bool,
    connected: bool,
    dial: Dial,
}

impl Peer {
    pub(crate) fn new(contact: Contact, conversation: Conversation, outbox: Outbox, inbox: Inbox) -> Self {
        Self {
            contact,
            conversation,
            conversation_dirty: false,
            made_in: BatchId(0),
            outbox,
            inbox,
            sessions: List::new(),
            active: None,
            last_session: None,
            retry_armed: false,
            connected: false,
            dial: Dial::new(),
        }
    }

    pub(crate) fn is_contact(&self) -> bool {
        self.contact.state != ContactState::Removed
    }

    pub(crate) const fn is_connected(&self) -> bool {
        self.connected
    }

    fn addresses(&self) -> impl Iterator<Item = SocketAddr> + '_ {
        let all = self.contact.record_addresses.iter().chain(self.contact.ticket_addresses.iter());
        all.copied().filter(is_dialable)
    }

    fn is_wanted(&self) -> bool {
        let wanted = matches!(self.contact.state, ContactState::Pending { .. } | ContactState::Established);
        wanted && !self.contact.blocked && self.addresses().next().is_some()
    }
}

/// A message that may have been sent before.
#[derive(Debug)]
struct Lookup {
    peer: PeerId,
    caller: CallerId,
    body: Bytes,
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
    /// Peers that wait for a free question.
    waiting: BTreeSet<PeerId>,
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
        let Some(known) = self.map.get(&peer).filter(|peer| peer.is_wanted() && peer.sessions.is_empty())
        else {
            // Another session was faster, or the user changed his mind.
            self.attempt_over(cx, links, peer, stream, AttemptOutcome::Superseded);
            links.abort(cx, stream);
            return;
        };
        let secret = match known.contact.state {
            ContactState::Pending { secret } => Some(secret),
            ContactState::Established | ContactState::Refused { .. } | ContactState::Removed => None,
        };
        let after = known.last_session;
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
            link.record_due = own.record().is_some();
        }
        self.elect(cx, links, id);
    }

    /// Chooses the session that carries the messages.
    fn elect(&mut self, cx: &mut Cx, links: &Links, id: PeerId) {
        let Some(peer) = self.map.get_mut(&id) else { return };
        let confirmed = |stream: &&StreamId| links.get(**stream).is_some_and(|link| link.confirmed);
        let best = peer.sessions.iter().find(confirmed).or(peer.sessions.first()).copied();
        if best != peer.active {
            peer.active = best;
            match best {
                Some(_) => peer.outbox.begin(),
                None => peer.outbox.end(),
            }
            if core::mem::take(&mut peer.retry_armed) {
                cx.timers.cancel(Timer::Retry(id));
            }
        }
        cx.touch(id);
    }

    /// The first record came: the other side has the keys, so the session stands.
    fn confirm(&mut self, cx: &mut Cx, links: &mut Links, id: PeerId, stream: StreamId) {
        let Some(link) = links.get_mut(stream) else { return };
        if link.confirmed {
            return;
        }
        link.confirmed = true;
        cx.stats.sessions += 1;
        let (remote, initiator) = (link.remote, link.we_dialled());
        let Some(peer) = self.map.get_mut(&id) else { return };
        if initiator {
            cx.event(Event::Attempt { peer: id, remote, outcome: AttemptOutcome::Connected });
        }
        if !core::mem::replace(&mut peer.connected, true) {
            peer.dial.stands(cx.now, peer.outbox.feed().acked);
            cx.event(Event::Connected { peer: id, remote, initiator });
        }
        cx.timers.cancel(Timer::Dial(id));
        let running = peer.dial.stop();
        for loser in running.iter().copied() {
            links.abort(cx, loser);
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
    }

    /// The preferred session of an overlap had its time and did not prove itself.
    pub(crate) fn overlap_over(&mut self, cx: &mut Cx, links: &mut Links, id: PeerId) {
        let Some(peer) = self.map.get(&id) else { return };
        let unproven = |stream: &&StreamId| links.get(**stream).is_some_and(|link| !link.confirmed);
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
        peer.inbox.stream_over(stream);
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
            peer.dial.fell(cx.now, peer.outbox.feed().acked);
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

    // --- dialling --------------------------------------------------------------------------------------------

    /// Asks every session of this peer whether it lives, because something made it doubtful or somebody is looking.
    pub(crate) fn probe(&self, cx: &mut Cx, links: &mut Links, id: PeerId) {
        for stream in self.map.get(&id).map(|peer| peer.sessions.iter()).into_iter().flatten() {
            if let Some(link) = links.get_mut(*stream) {
                link.session.probe(cx.now);
                links.arm(cx, *stream);
                cx.touch(id);
            }
        }
    }

    /// This device is somewhere else: what stood from where it was is probably dead, and nobody says so.
    pub(crate) fn probe_all(&self, cx: &mut Cx, links: &mut Links) {
        for id in self.map.keys() {
            self.probe(cx, links, *id);
        }
    }

    /// Tries to reach this peer now, if a session is wanted and none stands or is on its way.
    pub(crate) fn reach(&mut self, cx: &mut Cx, links: &mut Links, id: PeerId) {
        let Some(peer) = self.map.get_mut(&id) else { return };
        if self.stopping
            || !self.ready
            || !peer.is_wanted()
            || !peer.sessions.is_empty()
            || peer.dial.is_racing()
            || !cx.is_durable(peer.made_in)
        {
            return;
        }
        let addresses: Vec<SocketAddr> = peer.addresses().collect();
        peer.dial.race(addresses);
        self.dial_next(cx, links, id);
    }

    /// The dial timer fired: a new race, or the next address of the one that runs.
    pub(crate) fn dial_due(&mut self, cx: &mut Cx, links: &mut Links, id: PeerId) {
        let racing = self.map.get(&id).is_some_and(|peer| peer.dial.is_racing());
        if racing {
            self.dial_next(cx, links, id);
        } else {
            self.reach(cx, links, id);
        }
    }

    fn dial_next(&mut self, cx: &mut Cx, links: &mut Links, id: PeerId) {
        let Some(peer) = self.map.get_mut(&id) else { return };
        if links.has_room()
            && let Some(remote) = peer.dial.next()
        {
            let stream = links.dial(cx, id, remote);
            peer.dial.started(stream);
        }
        if peer.dial.has_more() {
            cx.timer(Timer::Dial(id), DIAL_STAGGER);
        } else if peer.dial.is_lost() {
            let wait = peer.dial.wait(&mut cx.rng);
            self.dial_after(cx, id, wait);
        }
    }

    /// One attempt failed before a session stood.
    pub(crate) fn attempt_over(
        &mut self,
        cx: &mut Cx,
        links: &mut Links,
        id: PeerId,
        stream: StreamId,
        outcome: AttemptOutcome,
    ) {
        let Some(peer) = self.map.get_mut(&id) else { return };
        peer.dial.ended(stream);
        if let Some(link) = links.get(stream) {
            cx.event(Event::Attempt { peer: id, remote: link.remote, outcome });
        }
        if peer.dial.is_racing() {
            self.dial_next(cx, links, id);
        }
    }

    pub(crate) fn dial_failed(&mut self, cx: &mut Cx, links: &mut Links, stream: StreamId, why: DialFailure) {
        let Some(id) = links.get(stream).and_then(|link| link.peer) else { return };
        self.attempt_over(cx, links, id, stream, AttemptOutcome::DialFailed(why));
        links.forget(cx, stream);
    }

    /// Starts reaching everybody: this start is counted, handshakes may name it.
    pub(crate) fn all_reach(&mut self, cx: &mut Cx, links: &mut Links) {
        self.ready = true;
        let all: Vec<PeerId> = self.map.keys().copied().collect();
        for id in all {
            self.reach(cx, links, id);
        }
    }

    // --- frames ----------------------------------------------------------------------------------------------

    /// A record of an open session.
    pub(crate) fn record(&mut self, cx: &mut Cx, links: &mut Links, stream: StreamId, record: &[u8]) {
        let Some(id) = links.get(stream).and_then(|link| link.peer) else { return };
        for (count, frame) in Frames(record).enumerate() {
            let handled = match frame {
                Ok(_) if count >= RECORD_FRAMES => Err(Malformed("too many frames")),
                Ok(Frame::Close(reason)) => {
                    self.got_close(cx, links, id, stream, reason);
                    return;
                }
                Ok(frame) => {
                    self.confirm(cx, links, id, stream);
                    self.frame(cx, links, id, stream, frame)
                }
                Err(malformed) => Err(malformed),
            };
            if let Err(malformed) = handled {
                cx.misbehaved(id, malformed.0);
                links.end(cx, stream, CloseReason::Misbehaved);
                self.stream_over(cx, links, id, stream, SessionEnd::Misbehaved);
                return;
            }
        }
    }

    fn frame(
        &mut self,
        cx: &mut Cx,
        links: &mut Links,
        id: PeerId,
        stream: StreamId,
        frame: Frame<'_>,
    ) -> Result<(), Malformed> {
        let (Some(peer), Some(link)) = (self.map.get_mut(&id), links.get_mut(stream)) else { return Ok(()) };
        match frame {
            Frame::Have(have) => {
                if peer.outbox.have(cx, have) {
                    progressed(cx, id, peer, link);
                }
                cx.unsaved.insert(id);
                cx.touch(id);
            }
            Frame::Entries(run) => {
                let taken = peer.inbox.run(cx, &mut peer.conversation, stream, run);
                peer.conversation_dirty = true;
                cx.unsaved.insert(id);
                link.have_due |= taken?.again;
                cx.touch(id);
            }
            Frame::Chunk(chunk) => {
                let taken = peer.inbox.chunk(cx, &mut peer.conversation, stream, &chunk);
                peer.conversation_dirty = true;
                cx.unsaved.insert(id);
                link.have_due |= taken?.again;
                cx.touch(id);
            }
            Frame::Record(signed) => got_record(cx, id, peer, &link.remote, signed)?,
            Frame::Ping(nonce) => {
                link.session.got_ping(nonce);
                cx.touch(id);
            }
            Frame::Pong(nonce) => link.session.got_pong(nonce, cx.now),
            // Nothing of ours is gone yet at a peer of this version, and there are no envelopes.
            Frame::Gone(_) | Frame::PrekeyGone(_) => {}
            Frame::Close(_) => {}
        }
        links.arm(cx, stream);
        Ok(())
    }

    fn got_close(
        &mut self,
        cx: &mut Cx,
        links: &mut Links,
        id: PeerId,
        stream: StreamId,
        reason: CloseReason,
    ) {
        let remote = links.forget(cx, stream).map(|link| link.remote);
        cx.out.push_back(crate::api::Output::Close { stream, flush: true });
        let Some(peer) = self.map.get_mut(&id) else { return };
        let refusal = match reason {
            CloseReason::TicketUnknown => Some(TicketRefusal::Unknown),
            CloseReason::TicketExpired => Some(TicketRefusal::Expired),
            CloseReason::TicketSpent => Some(TicketRefusal::Spent),
            CloseReason::Full => Some(TicketRefusal::Full),
            CloseReason::Goodbye
            | CloseReason::Replaced
            | CloseReason::Stranger
            | CloseReason::Misbehaved
            | CloseReason::Unsupported => None,
        };
        if let Some(remote) = remote.filter(|_| refusal.is_some() || reason == CloseReason::Stranger) {
            cx.event(Event::Attempt { peer: id, remote, outcome: AttemptOutcome::Refused });
        }
        if let (Some(why), ContactState::Pending { secret }) = (refusal, &peer.contact.state)
            && why != TicketRefusal::Full
        {
            peer.contact.state = ContactState::Refused { secret: *secret, why: why as u8 };
            cx.put(&Key::Contact(id), peer.contact.encode());
            cx.promise_event(Event::ContactChanged { peer: id, change: ContactChange::Refused(why) });
        }
        let why = if reason == CloseReason::Replaced { SessionEnd::Replaced } else { SessionEnd::Closed };
        self.stream_over(cx, links, id, stream, why);
    }

    // --- messages --------------------------------------------------------------------------------------------

    /// Appends a message that is known to be new.
    pub(crate) fn append(&mut self, cx: &mut Cx, id: PeerId, caller: CallerId, body: Bytes) {
        let Some(peer) = self.map.get_mut(&id) else { return };
        let lamport = peer.inbox.lamport().max(peer.outbox.feed().lamport) + 1;
        let heads = peer.inbox.heads();
        let epoch = peer.outbox.feed().epoch;
        let seq = peer.outbox.append(cx, caller, body, lamport, &heads);
        cx.unsaved.insert(id);
        let message = MessageRef { epoch, seq };
        cx.promise_event(Event::Queued { peer: id, caller, message, duplicate: false, delivered: false });
    }

    pub(crate) fn can_look_up(&self) -> bool {
        !self.lookups.is_full()
    }

    /// Appends a message unless its caller's id is known.
    pub(crate) fn look_up(&mut self, peer: PeerId, caller: CallerId, body: Bytes) {
        let _room_was_checked = self.lookups.push(Lookup { peer, caller, body });
    }

    /// The own store told whether a caller's id is known.
    pub(crate) fn looked_up(
        &mut self,
        cx: &mut Cx,
        id: PeerId,
        caller: CallerId,
        body: Bytes,
        found: Result<Option<Place>, ()>,
    ) {
        self.looking_up.remove(&(id, caller));
        let fail = |cx: &mut Cx, why| cx.event(Event::SendFailed { peer: id, caller, why });
        let Some(peer) = self.map.get(&id).filter(|peer| peer.is_contact()) else {
            return fail(cx, crate::api::Refusal::UnknownContact);
        };
        match found {
            Err(()) => fail(cx, crate::api::Refusal::StoreFailed),
            Ok(Some(place)) if !planted!(cx, CallerForgotten) => {
                let message = MessageRef { epoch: peer.outbox.feed().epoch, seq: place.seq };
                let delivered = peer.outbox.is_delivered(place.seq);
                cx.promise_event(Event::Queued { peer: id, caller, message, duplicate: true, delivered });
            }
            Ok(_) if peer.outbox.is_full() => fail(cx, crate::api::Refusal::QueueFull),
            Ok(_) => self.append(cx, id, caller, body),
        }
    }

    /// Asks what can be asked now.
    pub(crate) fn ask_lookups(&mut self, cx: &mut Cx) {
        for _ in 0..self.lookups.len() {
            let Some(next) = self.lookups.pop() else { return };
            let no = self.map.get(&next.peer).map(|peer| peer.contact.conversation);
            let name = (next.peer, next.caller);
            let Some(conversation) = no.filter(|_| !self.looking_up.contains(&name)) else {
                let _it_came_from_there = self.lookups.push(next);
                continue;
            };
            let key = Key::Caller { conversation, caller: next.caller };
            let asked = Asked::Caller { peer: next.peer, caller: next.caller, body: next.body.clone() };
            if !cx.ask(asked, crate::api::KeyRange::new(&key, &key, 1)) {
                let _it_came_from_there = self.lookups.push(next);
                return;
            }
            self.looking_up.insert(name);
        }
    }

    /// Storage answered a question.
    pub(crate) fn loaded(
        &mut self,
        cx: &mut Cx,
        links: &mut Links,
        asked: Asked,
        answer: &crate::api::Answer,
    ) {
        let page = match answer {
            crate::api::Answer::Page(page) => Some(page),
            crate::api::Answer::Damaged => None,
        };
        match asked {
            Asked::Outbox { peer: id, what } => {
                if let Some(peer) = self.map.get_mut(&id) {
                    let progress =
                        peer.outbox.loaded(cx, &what, page) && matches!(what, OutboxAsked::Hash { .. });
                    let link = peer.active.and_then(|stream| links.get_mut(stream));
                    if let (true, Some(link)) = (progress, link) {
                        progressed(cx, id, peer, link);
                    }
                    cx.unsaved.insert(id);
                    cx.touch(id);
                }
            }
            Asked::Caller { peer, caller, body } => {
                let found = match page.map(|page| page.records.first()) {
                    None => Err(()),
                    Some(None) => Ok(None),
                    Some(Some((_, value))) => Place::decode(Table::Caller, value).map(Some).map_err(|_| ()),
                };
                self.looked_up(cx, peer, caller, body, found);
            }
        }
        cx.touched.append(&mut self.waiting);
    }

    // --- the end of a turn -----------------------------------------------------------------------------------

    /// Writes every head and cursor that moved into the batch that is about to close.
    pub(crate) fn write_dirty(&mut self, cx: &mut Cx) {
        for id in core::mem::take(&mut cx.unsaved) {
            let Some(peer) = self.map.get_mut(&id) else { continue };
            peer.outbox.write_dirty(cx);
            peer.inbox.write_dirty(cx);
            if core::mem::take(&mut peer.conversation_dirty) {
                cx.put(&Key::Conversation(peer.contact.conversation), peer.conversation.encode());
            }
        }
    }

    /// Sends and asks what peers that were touched have to send and to ask.
    pub(crate) fn work(&mut self, cx: &mut Cx, links: &mut Links, own: &Own) {
        for id in core::mem::take(&mut cx.touched) {
            let Some(peer) = self.map.get_mut(&id) else { continue };
            if peer.active.is_some()
                && let Some((what, range)) = peer.outbox.wants_load()
            {
                if cx.ask(Asked::Outbox { peer: id, what: what.clone() }, range) {
                    peer.outbox.asked(what);
                } else {
                    self.waiting.insert(id);
                }
            }
            let mut broken = Vec::new();
            for stream in peer.sessions.iter().copied() {
                if !write_link(
                    cx,
                    links,
                    own,
                    stream,
                    &peer.inbox,
                    (peer.active == Some(stream)).then_some(&mut peer.outbox),
                ) {
                    broken.push(stream);
                }
            }
            if peer.outbox.has_flight()
                && !peer.retry_armed
                && let Some(wait) = peer.outbox.retry_after(cx)
            {
                peer.retry_armed = true;
                cx.timer(Timer::Retry(id), wait);
            }
            for stream in broken {
                links.end(cx, stream, CloseReason::Goodbye);
                self.stream_over(cx, links, id, stream, SessionEnd::Local);
            }
        }
        self.ask_lookups(cx);
    }

    /// An offer stayed unanswered for a backoff.
    pub(crate) fn retry_due(&mut self, cx: &mut Cx, id: PeerId) {
        if let Some(peer) = self.map.get_mut(&id) {
            peer.retry_armed = false;
            peer.outbox.retry();
            cx.touch(id);
        }
    }

    /// A snapshot of what we hold is durable: the peer may know.
    pub(crate) fn tell_have(&mut self, cx: &mut Cx, links: &mut Links, id: PeerId) {
        if let Some(link) =
            self.map.get(&id).and_then(|peer| peer.active).and_then(|stream| links.get_mut(stream))
        {
            link.have_due = true;
            cx.touch(id);
        }
    }

    /// The own peer record changed: everybody may know.
    pub(crate) fn tell_record(&mut self, cx: &mut Cx, links: &mut Links) {
        for (id, peer) in &self.map {
            for stream in peer.sessions.iter() {
                if let Some(link) = links.get_mut(*stream) {
                    link.record_due = true;
                    cx.touch(*id);
                }
            }
        }
    }

    /// The node stops: goodbye to everybody, and no more dialling.
    pub(crate) fn shutdown(&mut self, cx: &mut Cx, links: &mut Links) {
        if core::mem::replace(&mut self.stopping, true) {
            return;
        }
        let all: Vec<PeerId> = self.map.keys().copied().collect();
        for id in all {
            self.part(cx, links, id);
        }
        let strangers: Vec<StreamId> = links
            .streams()
            .filter(|stream| links.get(*stream).is_some_and(|link| !link.is_ending()))
            .collect();
        for stream in strangers {
            links.abort(cx, stream);
        }
        cx.timer(Timer::Shutdown, crate::limits::SHUTDOWN_MAX);
    }

    /// Ends every session of this peer and every try to reach it.
    pub(crate) fn part(&mut self, cx: &mut Cx, links: &mut Links, id: PeerId) {
        let Some(peer) = self.map.get_mut(&id) else { return };
        cx.timers.cancel(Timer::Dial(id));
        for stream in peer.dial.stop().iter().copied() {
            links.abort(cx, stream);
        }
        let sessions: Vec<StreamId> = peer.sessions.iter().copied().collect();
        for stream in sessions {
            links.end(cx, stream, CloseReason::Goodbye);
            self.stream_over(cx, links, id, stream, SessionEnd::Local);
        }
    }
}

/// Something was answered: patience begins anew.
fn progressed(cx: &mut Cx, id: PeerId, peer: &mut Peer, link: &mut Link) {
    link.session.answered(!peer.outbox.has_flight(), cx.now);
    if core::mem::take(&mut peer.retry_armed) {
        cx.timers.cancel(Timer::Retry(id));
    }
}

/// Hands one record to a link that has something to say and can. `false`: the session is used up.
fn write_link(
    cx: &mut Cx,
    links: &mut Links,
    own: &Own,
    stream: StreamId,
    inbox: &Inbox,
    outbox: Option<&mut Outbox>,
) -> bool {
    let Some(link) = links.get_mut(stream).filter(|link| link.is_writable()) else { return true };
    let mut outbox = outbox;
    let offers = outbox.as_mut().is_some_and(|outbox| outbox.wants_record());
    if !(offers || link.have_due || link.record_due || link.session.wants_record()) {
        return true;
    }
    let mut record = link.session.begin_record(&mut cx.rng, cx.now);
    if core::mem::take(&mut link.record_due)
        && let Some(signed) = own.record()
    {
        Frame::Record(signed).encode(&mut record);
    }
    if core::mem::take(&mut link.have_due) {
        Frame::Have(inbox.have(cx)).encode(&mut record);
    }
    if let Some(outbox) = outbox {
        outbox.fill(cx, &mut record);
        if outbox.has_flight() {
            link.session.offered(cx.now);
        }
    }
    links.write(cx, stream, record)
}

fn got_record(
    cx: &mut Cx,
    id: PeerId,
    peer: &mut Peer,
    remote: &SocketAddr,
    signed: &[u8],
) -> Result<(), Malformed> {
    if peer.contact.record == signed {
        return Ok(());
    }
    let record = PeerRecord::open(&id, signed)?;
    if record.seq <= peer.contact.record_seq {
        return Ok(());
    }
    peer.contact.record_seq = record.seq;
    peer.contact.record_addresses = List::of(dialable(&record.addresses, remote));
    peer.contact.record = Bytes::copy_from_slice(signed);
    cx.put(&Key::Contact(id), peer.contact.encode());
    cx.promise_event(Event::ContactChanged { peer: id, change: ContactChange::Record });
    Ok(())
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

/// Whether the session `new` says that `old` is dead: it was begun by a later start of the peer, or after `old`.
fn replaces(links: &Links, new: StreamId, old: StreamId) -> bool {
    let (Some(new), Some(old)) = (links.get(new), links.get(old)) else { return true };
    let later = match (new.holder, old.holder) {
        (Some((holder, start)), Some((old_holder, old_start))) => holder != old_holder || start > old_start,
        _ => false,
    };
    later || (new.after.is_some() && new.after == old.session.id())
}

/// Which of two sessions that overlap both sides prefer: that of the lower PeerId; of two by the same, the newer.
fn preferred(cx: &Cx, links: &Links, new: StreamId, old: StreamId) -> bool {
    let (Some(new), Some(old)) = (links.get(new), links.get(old)) else { return true };
    if new.we_dialled() == old.we_dialled() {
        return true;
    }
    let Some(peer) = new.peer else { return true };
    new.we_dialled() == (cx.peer() < peer)
}
