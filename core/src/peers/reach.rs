//! The dialling that keeps sessions coming: a race over the addresses of a peer, and a backoff between races.

use super::{Peer, Peers};
use crate::api::{AttemptOutcome, DialFailure, Event};
use crate::cx::{Cx, Timer};
use crate::ids::{InviteId, PeerId, QueueId, StreamId};
use crate::links::{Link, Links};
use crate::path::channel::Place;
use crate::path::dial::Datagrams;
use crate::record::{ContactState, Invite};
use crate::ticket::{TicketSecret, knock_queue};
use crate::wire::frame::Port;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::SocketAddr;

impl Peer {
    /// The queue of `recipient`, who is this node or the peer, at `relay`.
    fn queue(&mut self, cx: &Cx, peer: &PeerId, recipient: &PeerId, relay: &PeerId) -> Option<QueueId> {
        if self.shared.is_none() {
            self.shared = cx.identity.shared(peer);
        }
        self.shared.as_ref().map(|shared| shared.queue(recipient, relay))
    }
}

impl Peers {
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

    /// This device is somewhere else: what stood from where it was is probably dead, and nobody says so; and what failed from
    /// there shows nothing here.
    pub(crate) fn moved(&mut self, cx: &mut Cx, links: &mut Links, somewhere: bool) {
        let all: Vec<PeerId> = self.map.keys().copied().collect();
        for id in all {
            self.probe(cx, links, id);
            if let Some(peer) = self.map.get_mut(&id).filter(|_| somewhere) {
                peer.dial.moved();
                self.reach(cx, links, id);
            }
        }
    }

    /// Tries to reach this peer now, if a session is wanted and none stands or is on its way. Beside one that a relay
    /// carries the race is for what goes straight: a stream, since its datagrams find their way by themselves.
    pub(crate) fn reach(&mut self, cx: &mut Cx, links: &mut Links, id: PeerId) {
        let Some(peer) = self.map.get_mut(&id) else { return };
        if self.stopping
            || !self.ready
            || !peer.is_wanted()
            || peer.dial.is_racing()
            || !cx.is_durable(peer.made_in)
        {
            return;
        }
        let straight = |stream: &StreamId| links.get(*stream).is_some_and(|link| !link.is_relayed());
        if peer.sessions.iter().any(straight) {
            return;
        }
        let addresses: Vec<SocketAddr> = peer.addresses().collect();
        let alone = peer.sessions.is_empty();
        if !alone && addresses.is_empty() {
            return;
        }
        let datagrams = match (cx.datagrams && alone, cx.datagrams_first) {
            (false, _) => Datagrams::None,
            (true, false) => Datagrams::Second,
            (true, true) => Datagrams::First,
        };
        peer.dial.race(addresses, datagrams);
        if alone {
            cx.through.extend(peer.contact.relays.iter().map(|relay| (id, *relay)));
        }
        self.dial_next(cx, links, id);
    }

    /// A relay carries what this peer and we say: something may lead straight to it.
    pub(crate) fn go_straight(&mut self, cx: &mut Cx, links: &mut Links, id: PeerId) {
        let Some(peer) = self.map.get_mut(&id) else { return };
        let through = |stream: &StreamId| links.get(*stream).is_none_or(Link::is_relayed);
        let others: Vec<StreamId> = peer.dial.running().iter().copied().filter(through).collect();
        for other in others {
            peer.dial.ended(other);
            links.abort(cx, other);
        }
        if peer.dial.is_racing() {
            self.dial_next(cx, links, id);
        } else if !peer.dial.is_waiting() {
            self.reach(cx, links, id);
        }
    }

    /// A relay serves us now: who can be reached through it and is not, is tried.
    pub(crate) fn relay_up(&self, cx: &mut Cx, relay: &PeerId) {
        for (id, peer) in &self.map {
            let here = peer.contact.relays.iter().filter(|known| known.peer == *relay);
            if peer.is_wanted() {
                cx.through.extend(here.map(|known| (*id, *known)));
            }
        }
    }

    /// The way to this peer is silent: its relays may still lead to it.
    pub(crate) fn through_relays(&self, cx: &mut Cx, id: &PeerId) {
        if let Some(peer) = self.map.get(id) {
            cx.through.extend(peer.contact.relays.iter().map(|relay| (*id, *relay)));
        }
    }

    /// Dials a peer through a relay that serves us, or lets a session whose way is silent go on there.
    pub(crate) fn reach_through(
        &mut self,
        cx: &mut Cx,
        links: &mut Links,
        id: PeerId,
        relay: &PeerId,
        link: StreamId,
    ) {
        let Some(peer) = self.map.get_mut(&id) else { return };
        if self.stopping || !peer.is_wanted() || !links.has_room() {
            return;
        }
        let queue = match peer.contact.state {
            ContactState::Pending { secret } => Some(knock_queue(&TicketSecret(secret).invite_id(), relay)),
            ContactState::Established | ContactState::Refused { .. } | ContactState::Removed => {
                peer.queue(cx, &id, &id, relay)
            }
        };
        let Some(queue) = queue else { return };
        let place = Place::Via { link, port: Port::Queue(queue) };
        if let Some(active) = peer.active {
            links.try_relay(cx, active, place);
            return;
        }
        if !peer.sessions.is_empty() || links.is_dialling(&id, place) {
            return;
        }
        let stream = links.dial_datagrams(cx, id, place, None);
        peer.dial.started(stream);
    }

    /// The queues that should be open at a home relay of ours: one for each contact, one for each invitation; `true`: for
    /// somebody who is no contact yet.
    pub(crate) fn queues(&mut self, cx: &Cx, relay: &PeerId) -> BTreeMap<QueueId, bool> {
        let me = cx.peer();
        let mut queues = BTreeMap::new();
        for (id, peer) in &mut self.map {
            if peer.is_contact()
                && !peer.contact.blocked
                && let Some(queue) = peer.queue(cx, id, &me, relay)
            {
                queues.insert(queue, false);
            }
        }
        // A spent invitation still leads to the contact that it made: on that way the first session goes on.
        let knock =
            |(invite, known): (&InviteId, &Invite)| (knock_queue(invite, relay), known.spent_by.is_none());
        queues.extend(self.invites.iter().map(knock));
        queues
    }

    /// Peers that a relay carries should know where else this node may be.
    pub(crate) fn tell_candidates(&self, cx: &mut Cx, links: &mut Links) {
        for (id, peer) in &self.map {
            for stream in peer.sessions.iter() {
                if let Some(link) = links.get_mut(*stream).filter(|link| link.is_relayed()) {
                    link.candidates_due = cx.datagrams;
                    cx.touch(*id);
                }
            }
        }
    }

    /// The dial timer fired: a new race, or the next address of the one that runs.
    pub(crate) fn dial_due(&mut self, cx: &mut Cx, links: &mut Links, id: PeerId) {
        let Some(peer) = self.map.get_mut(&id) else { return };
        if peer.dial.is_racing() {
            self.dial_next(cx, links, id);
        } else {
            // If a session keeps this from being a race, its end sets the next.
            peer.dial.waited();
            self.reach(cx, links, id);
        }
    }

    fn dial_next(&mut self, cx: &mut Cx, links: &mut Links, id: PeerId) {
        let Some(peer) = self.map.get_mut(&id) else { return };
        if links.has_room()
            && let Some((path, remote)) = peer.dial.next()
        {
            let stream = links.dial(cx, id, path, remote);
            peer.dial.started(stream);
        }
        if let Some(after) = peer.dial.stagger() {
            cx.timer(Timer::Dial(id), after);
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
            cx.event(Event::Attempt { peer: id, remote: link.remote, path: link.path(), outcome });
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

    /// This profile has a new epoch.
    pub(crate) fn new_epoch(&mut self, cx: &mut Cx) {
        for (id, peer) in &mut self.map {
            peer.outgoing.switch(cx);
            cx.unsaved.insert(*id);
        }
    }

    /// Starts reaching everybody: this start is counted, handshakes may name it.
    pub(crate) fn all_reach(&mut self, cx: &mut Cx, links: &mut Links) {
        self.ready = true;
        let all: Vec<PeerId> = self.map.keys().copied().collect();
        for id in all {
            self.reach(cx, links, id);
        }
    }
}
