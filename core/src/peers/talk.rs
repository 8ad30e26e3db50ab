//! What goes over the sessions of a peer: frames to the machines that they concern, and at the end of a turn what those
//! have to say and to ask.

use super::{Lookup, Peer, Peers};
use crate::api::{AttemptOutcome, ContactChange, Event, Expire, SessionEnd, TicketRefusal};
use crate::assemble::Whole;
use crate::bounded::List;
use crate::cx::{Asked, Cx, Timer, Wanted};
use crate::giveback::Giveback;
use crate::ids::{CallerId, PeerId, StreamId};
use crate::inbox::{Inbox, Taken};
use crate::limits::RECORD_FRAMES;
use crate::links::{Link, Links};
use crate::outgoing::Outgoing;
use crate::path::dial::dialable;
use crate::planted::planted;
use crate::profile::Own;
use crate::record::{ContactState, Conversation, Key, Place, Record as _, Table};
use crate::wire::Malformed;
use crate::wire::entry::Author;
use crate::wire::frame::{CloseReason, Frame, Frames, Have};
use crate::wire::peer_record::{PeerRecord, Relay};
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::SocketAddr;

impl Peer {
    /// The peer says what it has of its own feeds: what we hold beyond goes back to it.
    fn give_back(&mut self, cx: &Cx, have: &Have) {
        let inbox = &self.inbox;
        let own = have.feeds.iter().filter(|row| row.author == Author::Sender);
        let rows = own.filter_map(|row| {
            let (no, from, to) = inbox.lacking(row)?;
            Some(Wanted { epoch: row.epoch, no, from, to })
        });
        self.giveback.want(cx.now, rows);
    }

    /// Asks storage one question, if there is one to ask. `false`: too many are open.
    fn ask(&mut self, cx: &mut Cx, id: PeerId) -> bool {
        if let Some((feed, what, range)) = self.outgoing.wants_load() {
            let turn = self.outgoing.next_turn();
            let asked = cx.ask(Asked::Outbox { peer: id, feed, what: what.clone(), turn }, range);
            if asked {
                self.outgoing.asked(feed, what, turn);
            }
            return asked;
        }
        if let Some((wanted, range)) = self.giveback.wants_load() {
            let asked = cx.ask(Asked::Giveback { peer: id, wanted }, range);
            if asked {
                self.giveback.asked();
            }
            return asked;
        }
        if let Some((what, range)) = self.inbox.wants_load() {
            let asked = cx.ask(Asked::Renamed { peer: id, what }, range);
            if asked {
                self.inbox.asked(what);
            }
            return asked;
        }
        if let Some(range) = self.wants_erase() {
            let asked = cx.ask(Asked::Erase { peer: id, question: self.erase_questions + 1 }, range);
            if asked {
                self.erase_asked();
            }
            return asked;
        }
        true
    }
}

impl Peers {
    // --- frames ----------------------------------------------------------------------------------------------

    /// A record of an open session.
    pub(crate) fn record(
        &mut self,
        cx: &mut Cx,
        links: &mut Links,
        own: &Own,
        stream: StreamId,
        record: &[u8],
    ) {
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
                    self.frame(cx, links, own, id, stream, frame)
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
        own: &Own,
        id: PeerId,
        stream: StreamId,
        frame: Frame<'_>,
    ) -> Result<(), Malformed> {
        let (Some(peer), Some(link)) = (self.map.get_mut(&id), links.get_mut(stream)) else { return Ok(()) };
        match frame {
            Frame::Have(have) => {
                if peer.outgoing.have(cx, &have) {
                    progressed(cx, id, peer, link);
                }
                link.have_due |= peer.outgoing.take_asking();
                peer.inbox.close(&have);
                peer.give_back(cx, &have);
                cx.unsaved.insert(id);
                cx.touch(id);
            }
            Frame::Entries(run) => {
                let Peer { assembly, inbox, outgoing, conversation, .. } = peer;
                let mut taken = Taken::default();
                let read = assembly.run(stream, run, |whole| {
                    take(cx, inbox, outgoing, conversation, whole, &mut taken);
                });
                peer.conversation_dirty = true;
                cx.unsaved.insert(id);
                link.have_due |= taken.again;
                cx.touch(id);
                read?;
            }
            Frame::Chunk(chunk) => {
                let Peer { assembly, inbox, outgoing, conversation, .. } = peer;
                let mut taken = Taken::default();
                if let Some(whole) = assembly.chunk(stream, &chunk)? {
                    take(cx, inbox, outgoing, conversation, whole, &mut taken);
                    peer.conversation_dirty = true;
                    cx.unsaved.insert(id);
                }
                link.have_due |= taken.again;
                cx.touch(id);
            }
            Frame::Record(signed) => {
                if got_record(cx, id, peer, &link.remote, signed)? {
                    // It may be where we can go straight.
                    self.reach(cx, links, id);
                    return Ok(());
                }
            }
            Frame::Ping(nonce) => {
                link.session.got_ping(nonce);
                cx.touch(id);
            }
            Frame::Pong(nonce) => {
                if let Some(round_trip) = link.session.got_pong(nonce, cx.now) {
                    cx.event(Event::RoundTrip { peer: id, round_trip });
                }
            }
            Frame::Gone(gone) => {
                match gone.author {
                    Author::Sender => peer.inbox.gone(cx, &gone),
                    Author::Receiver => peer.outgoing.given_gone(cx, &gone),
                }
                cx.unsaved.insert(id);
                cx.touch(id);
            }
            Frame::Candidates(candidates) => {
                let places = own.places(&candidates, &link.remote);
                if cx.datagrams {
                    links.try_places(cx, stream, &places);
                }
            }
            Frame::OpenQueue(_)
            | Frame::CloseQueue(_)
            | Frame::Forward { .. }
            | Frame::Relayed { .. }
            | Frame::Undelivered(_)
            | Frame::Observed(_) => return Err(Malformed("a frame between a relay and its clients")),
            // There are no envelopes yet.
            Frame::PrekeyGone(_) => {}
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
        let was = links.closed(cx, stream);
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
        if let Some((remote, path)) = was.filter(|_| refusal.is_some() || reason == CloseReason::Stranger) {
            cx.event(Event::Attempt { peer: id, remote, path, outcome: AttemptOutcome::Refused });
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
    pub(crate) fn append(&mut self, cx: &mut Cx, id: PeerId, caller: CallerId, expire: Expire, body: Bytes) {
        let Some(peer) = self.map.get_mut(&id) else { return };
        let lamport = peer.inbox.lamport().max(peer.outgoing.lamport()) + 1;
        let heads = peer.inbox.heads();
        let expires = cx.expires(expire);
        let message = peer.outgoing.append(cx, caller, expires, body, lamport, &heads);
        cx.unsaved.insert(id);
        if let Some(at) = expires {
            self.expires_at(cx, at);
        }
        cx.promise_event(Event::Queued { peer: id, caller, message, duplicate: false, delivered: false });
    }

    pub(crate) fn can_look_up(&self) -> bool {
        !self.lookups.is_full()
    }

    /// Appends a message unless its caller's id is known.
    pub(crate) fn look_up(&mut self, peer: PeerId, caller: CallerId, expire: Expire, body: Bytes) {
        let _room_was_checked = self.lookups.push(Lookup { peer, caller, expire, body });
    }

    /// The own store told whether a caller's id is known.
    pub(crate) fn looked_up(
        &mut self,
        cx: &mut Cx,
        id: PeerId,
        caller: CallerId,
        (expire, body): (Expire, Bytes),
        found: Result<Option<Place>, ()>,
    ) {
        self.looking_up.remove(&(id, caller));
        let fail = |cx: &mut Cx, why| cx.event(Event::SendFailed { peer: id, caller, why });
        let Some(peer) = self.map.get(&id).filter(|peer| peer.is_contact()) else {
            return fail(cx, crate::api::Refusal::UnknownContact);
        };
        match found {
            Err(()) => fail(cx, crate::api::Refusal::StoreFailed),
            Ok(Some(place)) if !planted!(cx, CallerForgotten) => match peer
                .outgoing
                .find(place.feed, place.seq)
            {
                Some((message, delivered)) => {
                    cx.promise_event(Event::Queued { peer: id, caller, message, duplicate: true, delivered });
                }
                None => fail(cx, crate::api::Refusal::StoreFailed),
            },
            Ok(_) if peer.outgoing.is_full() => fail(cx, crate::api::Refusal::QueueFull),
            Ok(_) => self.append(cx, id, caller, expire, body),
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
            let Lookup { peer, caller, expire, ref body } = next;
            let asked = Asked::Caller { peer, caller, expire, body: body.clone() };
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
            Asked::Outbox { peer: id, feed, what, turn } => {
                if let Some(peer) = self.map.get_mut(&id) {
                    let lamport = peer.inbox.lamport();
                    let progress = peer.outgoing.loaded(cx, feed, (&what, turn), page, lamport);
                    let link = peer.active.and_then(|stream| links.get_mut(stream));
                    let asking = peer.outgoing.take_asking();
                    if let Some(link) = link {
                        link.have_due |= asking;
                        if progress {
                            progressed(cx, id, peer, link);
                        }
                    }
                    cx.unsaved.insert(id);
                    cx.touch(id);
                }
            }
            Asked::Giveback { peer: id, wanted } => {
                if let Some(peer) = self.map.get_mut(&id) {
                    let inbox = &peer.inbox;
                    peer.giveback.loaded(cx.now, wanted, page, |epoch, seq| inbox.holds(epoch, seq));
                    cx.touch(id);
                }
            }
            Asked::Renamed { peer: id, what } => {
                if let Some(peer) = self.map.get_mut(&id) {
                    let mut taken = Taken::default();
                    peer.inbox.loaded(cx, &mut peer.conversation, what, page, &mut taken);
                    peer.conversation_dirty = true;
                    cx.unsaved.insert(id);
                    cx.touch(id);
                }
            }
            Asked::Drop(drop) => self.drop_loaded(cx, &drop, page),
            Asked::Erase { peer: id, question } => {
                if let Some(peer) = self.map.get_mut(&id) {
                    peer.erase_loaded(cx, id, question, page);
                }
            }
            Asked::Expiry => self.expiry_loaded(cx, page),
            Asked::Caller { peer, caller, expire, body } => {
                let found = match page.map(|page| page.records.first()) {
                    None => Err(()),
                    Some(None) => Ok(None),
                    Some(Some((_, value))) => Place::decode(Table::Caller, value).map(Some).map_err(|_| ()),
                };
                self.looked_up(cx, peer, caller, (expire, body), found);
            }
        }
        cx.touched.append(&mut self.waiting);
    }

    // --- the end of a turn -----------------------------------------------------------------------------------

    /// Writes every head and cursor that moved into the batch that is about to close.
    pub(crate) fn write_dirty(&mut self, cx: &mut Cx) {
        for id in core::mem::take(&mut cx.unsaved) {
            let Some(peer) = self.map.get_mut(&id) else { continue };
            peer.outgoing.write_dirty(cx);
            peer.inbox.write_dirty(cx);
            if core::mem::take(&mut peer.conversation_dirty) {
                cx.put(&Key::Conversation(peer.contact.conversation), peer.conversation.encode());
            }
        }
    }

    /// Sends and asks what peers that were touched have to send and to ask.
    pub(crate) fn work(&mut self, cx: &mut Cx, links: &mut Links, own: &Own) {
        let mut overdue = Vec::new();
        for id in core::mem::take(&mut cx.touched) {
            let Some(peer) = self.map.get_mut(&id) else { continue };
            if !peer.ask(cx, id) {
                self.waiting.insert(id);
            }
            overdue.extend(peer.outgoing.hold_overdue(cx).map(|(feed, seq, at)| (id, feed, seq, at)));
            let mut broken = Vec::new();
            if !peer.is_taking_away() && !peer.outgoing.settle_withdrawn(cx) {
                broken.extend(peer.sessions.iter().copied());
            }
            for stream in peer.sessions.iter().copied() {
                let is_ending = broken.contains(&stream);
                if !is_ending
                    && !write_link(
                        cx,
                        links,
                        own,
                        stream,
                        &peer.inbox,
                        (&mut peer.outgoing, &mut peer.giveback),
                        peer.active == Some(stream),
                    )
                {
                    broken.push(stream);
                }
            }
            if peer.outgoing.has_flight()
                && !peer.retry_armed
                && let Some(wait) = peer.outgoing.retry_after(cx)
            {
                peer.retry_armed = true;
                cx.timer(Timer::Retry(id), wait);
            }
            for stream in broken {
                links.end(cx, stream, CloseReason::Goodbye);
                self.stream_over(cx, links, id, stream, SessionEnd::Local);
            }
        }
        for (id, feed, seq, at) in overdue {
            self.expire(cx, id, feed, seq, at);
        }
        self.ask_lookups(cx);
        self.ask_expiry(cx);
        self.ask_drops(cx);
    }

    /// An offer stayed unanswered for a backoff.
    pub(crate) fn retry_due(&mut self, cx: &mut Cx, id: PeerId) {
        if let Some(peer) = self.map.get_mut(&id) {
            peer.retry_armed = false;
            peer.outgoing.retry();
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
        cx.put_stale_age();
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

/// An entry that came whole goes to whom it concerns.
fn take(
    cx: &mut Cx,
    inbox: &mut Inbox,
    outgoing: &mut Outgoing,
    conversation: &mut Conversation,
    whole: Whole,
    taken: &mut Taken,
) {
    let Whole { author, epoch, seq, entry } = whole;
    match author {
        Author::Sender => inbox.take(cx, conversation, epoch, seq, entry, taken),
        Author::Receiver => outgoing.given(cx, epoch, seq, entry),
    }
}

/// Something was answered: patience begins anew.
fn progressed(cx: &mut Cx, id: PeerId, peer: &mut Peer, link: &mut Link) {
    link.session.answered(!peer.outgoing.has_flight(), cx.now);
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
    (outgoing, giveback): (&mut Outgoing, &mut Giveback),
    is_active: bool,
) -> bool {
    let Some(link) = links.get_mut(stream).filter(|link| link.is_writable()) else { return true };
    let offers = is_active && (giveback.wants_record() || outgoing.wants_record());
    let have_due = link.have_due && cx.is_durable(link.have_after);
    let says = have_due || link.record_due || link.candidates_due;
    if !(offers || says || link.session.wants_record()) {
        return true;
    }
    let mut record = link.session.begin_record(&mut cx.rng, cx.now);
    if core::mem::take(&mut link.record_due)
        && let Some(signed) = own.record()
    {
        Frame::Record(signed).encode(&mut record);
    }
    let tells = core::mem::take(&mut link.candidates_due);
    if tells {
        Frame::Candidates(own.candidates()).encode(&mut record);
    }
    if have_due {
        link.have_due = false;
        Frame::Have(inbox.have(cx, outgoing.rows(), outgoing.closed())).encode(&mut record);
    }
    if is_active {
        giveback.fill(&mut record);
        outgoing.fill(cx, &mut record);
        if outgoing.has_flight() {
            link.session.offered(cx.now);
        }
    }
    let written = links.write(cx, stream, record);
    if tells {
        links.told_places(stream);
    }
    written
}

/// `true`: the peer says something new about where it is.
fn got_record(
    cx: &mut Cx,
    id: PeerId,
    peer: &mut Peer,
    remote: &SocketAddr,
    signed: &[u8],
) -> Result<bool, Malformed> {
    if peer.contact.record == signed {
        return Ok(false);
    }
    let record = PeerRecord::open(&id, signed)?;
    if record.seq <= peer.contact.record_seq {
        return Ok(false);
    }
    peer.contact.record_seq = record.seq;
    peer.contact.record_addresses = List::of(dialable(&record.addresses, remote));
    let may_dial = |relay: &&Relay| dialable(&[relay.address], remote).next().is_some();
    peer.contact.relays = List::of(record.relays.iter().filter(may_dial).copied());
    peer.contact.record = Bytes::copy_from_slice(signed);
    cx.put(&Key::Contact(id), peer.contact.encode());
    cx.promise_event(Event::ContactChanged { peer: id, change: ContactChange::Record });
    Ok(true)
}
