//! The dialling that keeps sessions coming: a race over the addresses of a peer, and a backoff between races.

use super::Peers;
use crate::api::{AttemptOutcome, DialFailure, Event};
use crate::cx::{Cx, Timer};
use crate::ids::{PeerId, StreamId};
use crate::links::Links;
use alloc::vec::Vec;
use core::net::SocketAddr;

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
        peer.dial.race(addresses, cx.datagrams);
        self.dial_next(cx, links, id);
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
