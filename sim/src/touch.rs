//! Somebody on the way of datagrams: alters, cuts, forges, sends again, from elsewhere, holds back, splices and returns
//! them, or begins sessions from where he is not. What he reads is the business of the tap.

use crate::air::Flight;
use crate::fate::{Dice, Fates, Purpose, link};
use crate::fault::Fault;
use crate::limits::{HOSTS, INJECTED_BYTES, KNOCKS, MICROS_PER_SECOND, TAPE_PACKETS};
use crate::op::Touch;
use crate::watch::{DATA, DATA_HEADER, INITIATION};
use crate::world::World;
use bytes::Bytes;
use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};

/// What waits for its packet.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Awaited {
    pub(crate) how: Touch,
    pub(crate) after: u32,
    pub(crate) salt: u64,
}

/// What he remembers of one way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reel {
    last: VecDeque<Bytes>,
    initiation: Option<Bytes>,
}

impl Reel {
    fn keep(&mut self, bytes: &Bytes) {
        if bytes.first() == Some(&INITIATION) {
            self.initiation = Some(bytes.clone());
        }
        if self.last.len() >= TAPE_PACKETS {
            self.last.pop_front();
        }
        self.last.push_back(bytes.clone());
    }
}

/// Where he says that he is, if he is not the one who is there.
fn elsewhere(salt: u64, number: u16) -> SocketAddr {
    let [a, b] = number.to_be_bytes();
    let network =
        if number == 0 { Ipv4Addr::new(192, 0, 2, salt as u8) } else { Ipv4Addr::new(198, 18, a, b) };
    SocketAddr::from((network, 6666))
}

impl World {
    /// What becomes of a packet, and how much later than it would.
    pub(crate) fn touch(&mut self, flight: Flight) -> Vec<(Flight, u64)> {
        if !self.touchers {
            return vec![(flight, 0)];
        }
        let bytes = flight.bytes.clone();
        let way = flight.way;
        let out = self.touched(flight);
        self.links[way].reel.keep(&bytes);
        out
    }

    /// Whether anybody touched a packet between the two.
    pub(crate) fn is_touched(&self, a: usize, b: usize) -> bool {
        self.links[link(a, b)].touched || self.links[link(b, a)].touched
    }

    fn touched(&mut self, flight: Flight) -> Vec<(Flight, u64)> {
        let way = flight.way;
        let Some(awaited) = self.links[way].touches.first_mut() else { return vec![(flight, 0)] };
        if awaited.after > 0 {
            awaited.after -= 1;
            return vec![(flight, 0)];
        }
        let Awaited { how, salt, .. } = *awaited;
        let mut dice = Dice::new(Fates::new(salt));
        let reel = &self.links[way].reel;
        let Some((fault, out)) = apply(how, salt, &mut dice, reel, &flight) else { return vec![(flight, 0)] };
        self.links[way].touches.remove(0);
        self.links[way].touched = true;
        // What goes elsewhere than the packet did passes other boxes.
        let mut out = out;
        for (made, _) in out.iter_mut().filter(|(made, _)| made.to != flight.to && made.door.is_some()) {
            made.door = self.door_to(made.from, made.to);
        }
        self.counts.add(fault);
        let (to, count) = (flight.to, out.len());
        self.tracer.note(self.now, || format!("{how:?} of a packet to {to}: {count} are under way"));
        out
    }
}

/// `None`: nothing can be done in this way yet.
fn apply(
    how: Touch,
    salt: u64,
    dice: &mut Dice,
    reel: &Reel,
    flight: &Flight,
) -> Option<(Fault, Vec<(Flight, u64)>)> {
    let mut below = |bound: usize| dice.below(Purpose::Attack, 0, bound as u64) as usize;
    let made = |bytes: Vec<u8>, from: SocketAddr| Flight {
        by: None,
        from,
        bytes: Bytes::from(bytes),
        ..flight.clone()
    };
    let bytes = flight.bytes.to_vec();
    let whole = (flight.clone(), 0);
    Some(match how {
        Touch::Flip => {
            let mut bytes = bytes;
            bytes[below(flight.bytes.len())] ^= 1 << below(8);
            // Something of who sent it came all the same: what the seal does not cover may differ, and it is authentic.
            (Fault::PacketFlipped, vec![(Flight { by: flight.by, ..made(bytes, flight.from) }, 0)])
        }
        Touch::Cut => {
            let left = below(bytes.len());
            let part = bytes.get(..left).unwrap_or_default().to_vec();
            (Fault::PacketCut, vec![(made(part, flight.from), 0)])
        }
        Touch::Forge => {
            // A number far ahead, under a name that is in use.
            let header: [u8; DATA_HEADER] = *bytes.first_chunk().filter(|_| bytes[0] == DATA)?;
            let [kind, a, b, c, d, number @ ..] = header;
            let ahead = u64::from_be_bytes(number).saturating_add(1 << below(40));
            let mut forged = [&[kind, a, b, c, d][..], &ahead.to_be_bytes()].concat();
            let count = 17 + below(INJECTED_BYTES as usize);
            forged.extend((0..count).map(|_| below(256) as u8));
            (Fault::PacketForged, vec![(made(forged, flight.from), 0), whole])
        }
        Touch::Replay => {
            let older = reel.last.get(below(reel.last.len().max(1))).unwrap_or(&flight.bytes).to_vec();
            let from = if below(2) == 0 { flight.from } else { elsewhere(salt, 0) };
            (Fault::PacketReplayed, vec![whole, (made(older, from), 0)])
        }
        Touch::Elsewhere => {
            // The copy is there before the packet, which is nothing new then.
            let late = below(MICROS_PER_SECOND as usize) as u64;
            (Fault::PacketFromElsewhere, vec![(made(bytes, elsewhere(salt, 0)), 0), (flight.clone(), late)])
        }
        Touch::Hold => {
            let late = below(10 * MICROS_PER_SECOND as usize) as u64;
            (Fault::PacketHeld, vec![(flight.clone(), late)])
        }
        Touch::Splice => {
            let older = reel.last.get(below(reel.last.len().max(1)))?;
            let at = below(bytes.len().min(older.len()));
            let spliced = [bytes.get(..at)?, older.get(at..)?].concat();
            if spliced == bytes {
                return None;
            }
            (Fault::PacketSpliced, vec![(made(spliced, flight.from), 0)])
        }
        Touch::Reflect => {
            let way = link(flight.way % HOSTS, flight.way / HOSTS);
            let back = Flight { by: None, way, to: flight.from, from: flight.to, ..flight.clone() };
            (Fault::PacketReflected, vec![whole, (back, 0)])
        }
        Touch::Knock => {
            let initiation = reel.initiation.clone()?.to_vec();
            let knock = |number: u16| (made(initiation.clone(), elsewhere(salt, number)), 0);
            (Fault::Knocked, std::iter::once(whole).chain((1..=KNOCKS).map(knock)).collect())
        }
    })
}
