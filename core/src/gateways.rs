//! The gateways in front of this machine: which are asked to open ports, and what is open.

use crate::api::{Event, Gateway, Output, Transport};
use crate::bounded::List;
use crate::cx::{Cx, Timer};
use crate::limits::{GATEWAYS, MAPPED};
use crate::path::mapping::Mapping;
use crate::time::Instant;
use alloc::vec::Vec;
use bytes::Bytes;
use core::net::SocketAddr;

/// A gateway, and a port that it opened.
type Open = (SocketAddr, Transport, SocketAddr);

#[derive(Debug)]
pub(crate) struct Gateways {
    on: bool,
    known: List<Mapping, GATEWAYS>,
    /// What was told last.
    told: List<Open, MAPPED>,
}

impl Gateways {
    pub(crate) const fn new(on: bool) -> Self {
        Self { on, known: List::new(), told: List::new() }
    }

    /// These are the gateways from now on. What others opened is out of reach, and ends by itself.
    pub(crate) fn set(&mut self, cx: &mut Cx, gateways: &List<Gateway, GATEWAYS>) {
        if !self.on {
            return;
        }
        self.known.retain(|known| gateways.contains(known.gateway()));
        for gateway in gateways.iter() {
            if !self.known.iter().any(|known| known.gateway() == gateway) {
                let mapping = Mapping::new(cx.now, &mut cx.rng, *gateway);
                let _as_many_as_told = self.known.push(mapping);
            }
        }
    }

    /// Whether what comes from there is a gateway's.
    pub(crate) fn has(&self, remote: &SocketAddr) -> bool {
        self.known.iter().any(|known| known.gateway().router == *remote)
    }

    /// A gateway answered, or somebody in its name.
    pub(crate) fn answer(&mut self, cx: &mut Cx, remote: SocketAddr, bytes: &[u8]) {
        for known in self.known.iter_mut().filter(|known| known.gateway().router == remote) {
            if known.answer(cx.now, &mut cx.rng, bytes) {
                return;
            }
        }
        cx.stats.datagrams_ignored += 1;
    }

    /// Asks what is to be asked. Gives what is open if that has changed.
    pub(crate) fn work(&mut self, cx: &mut Cx) -> Option<List<SocketAddr, MAPPED>> {
        let mut next = Instant::FAR;
        for known in self.known.iter_mut() {
            let remote = known.gateway().router;
            if let Some(request) = known.leave(cx.now, &mut cx.rng) {
                cx.out.push_back(Output::Datagram { remote, ttl: None, bytes: Bytes::from(request) });
            }
            next = next.min(known.deadline());
        }
        if next == Instant::FAR {
            cx.timers.cancel(Timer::Gateway);
        } else {
            cx.timers.set(Timer::Gateway, next);
        }
        self.tell(cx)
    }

    fn tell(&mut self, cx: &mut Cx) -> Option<List<SocketAddr, MAPPED>> {
        let of = |known: &Mapping| -> Vec<Open> {
            let router = known.gateway().router;
            known.open().map(|(transport, external)| (router, transport, external)).collect()
        };
        let open: List<Open, MAPPED> = List::of(self.known.iter().flat_map(of));
        if open == self.told {
            return None;
        }
        let told = core::mem::replace(&mut self.told, open.clone());
        let gone = told.iter().filter(|one| !open.contains(one)).map(|one| (one, false));
        let new = open.iter().filter(|one| !told.contains(one)).map(|one| (one, true));
        for (&(router, transport, external), up) in gone.chain(new) {
            cx.event(Event::PortMapped { router, transport, external, up });
        }
        let mut all: List<SocketAddr, MAPPED> = List::new();
        for (_, _, external) in open.iter() {
            if !all.contains(external) {
                let _as_many_as_there_are = all.push(*external);
            }
        }
        Some(all)
    }

    /// The node stops: what was opened for it is given back.
    pub(crate) fn shutdown(&mut self, cx: &mut Cx) {
        cx.timers.cancel(Timer::Gateway);
        for known in core::mem::take(&mut self.known).iter_mut() {
            let remote = known.gateway().router;
            for request in known.give_back() {
                cx.out.push_back(Output::Datagram { remote, ttl: None, bytes: Bytes::from(request) });
            }
        }
    }
}
