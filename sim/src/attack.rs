//! Somebody on the way: flips, cuts, injects, replays, splices and reflects the bytes of a connection. What he reads is
//! the business of the tap.

use crate::fate::{Dice, Fates, Purpose, link};
use crate::fault::Fault;
use crate::limits::{INJECTED_BYTES, TAPE_BYTES};
use crate::net::What;
use crate::op::Attack;
use crate::queue::Side;
use crate::world::World;
use bytes::Bytes;

/// An attack that waits for its segment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Planned {
    pub(crate) how: Attack,
    pub(crate) after: u32,
    pub(crate) salt: u64,
}

impl World {
    /// What becomes of a segment that begins at `side`.
    pub(crate) fn pass_attacker(&mut self, side: Side, part: Bytes) -> Bytes {
        if !self.attackers {
            return part;
        }
        let ends = &self.conns[side.conn].ends;
        let way = link(ends[side.side].host, ends[1 - side.side].host);
        let after = self.attack(side, way, part.clone());
        // He remembers what was sent, not what he made of it.
        let pipe = &mut self.conns[side.conn].pipes[side.side];
        let room = TAPE_BYTES.saturating_sub(pipe.tape.len()).min(part.len());
        pipe.tape.extend_from_slice(&part[..room]);
        pipe.last = part;
        after
    }

    fn attack(&mut self, side: Side, way: usize, part: Bytes) -> Bytes {
        let Some(planned) = self.links[way].attacks.first_mut() else { return part };
        if planned.after > 0 {
            planned.after -= 1;
            return part;
        }
        let Planned { how, salt, .. } = *planned;
        let mut dice = Dice::new(Fates::new(salt));
        let mut below = |bound: usize| dice.below(Purpose::Attack, 0, bound as u64) as usize;
        let mut bytes = part.to_vec();
        let at = below(bytes.len());
        let fault = match how {
            Attack::Flip => {
                bytes[at] ^= 1 << below(8);
                Fault::BitFlipped
            }
            Attack::Cut => {
                let count = 1 + below(bytes.len() - at);
                bytes.drain(at..at + count);
                Fault::BytesCut
            }
            Attack::Inject => {
                let count = 1 + below(INJECTED_BYTES as usize);
                let made_up: Vec<u8> = (0..count).map(|_| below(256) as u8).collect();
                bytes.splice(at..at, made_up);
                Fault::BytesInjected
            }
            Attack::Replay => {
                let pipe = &self.conns[side.conn].pipes[side.side];
                match below(3) {
                    0 => bytes.extend_from_slice(&part),
                    1 => bytes.extend_from_slice(&pipe.last),
                    _ => bytes.extend_from_slice(&pipe.tape),
                }
                Fault::BytesReplayed
            }
            Attack::Splice => {
                // Of an older connection the same way, from its first byte on: its handshake, then its records.
                let first = self.conns[side.conn].pipes[side.side].tape.is_empty();
                let Some(older) = self.older_tape(side).filter(|_| first || below(2) == 0) else {
                    return part;
                };
                if below(2) == 0 {
                    bytes.clear();
                }
                bytes.splice(0..0, older);
                Fault::BytesSpliced
            }
            Attack::Reflect => {
                let back = side.other();
                let pipe = &mut self.conns[back.conn].pipes[back.side];
                if pipe.fin_sent {
                    return part;
                }
                pipe.held += part.len();
                self.send(back, What::Data(part.clone()));
                Fault::BytesReflected
            }
        };
        self.links[way].attacks.remove(0);
        if bytes == part && how != Attack::Reflect {
            return part;
        }
        self.links[way].attacked = true;
        self.counts.add(fault);
        let (from, conn) = (self.hosts[self.conns[side.conn].ends[side.side].host].name(), side.conn);
        let (was, is) = (part.len(), bytes.len());
        self.tracer.note(self.now, || {
            format!("{how:?} of what {from} sends on connection {conn}: {was} bytes are {is}")
        });
        Bytes::from(bytes)
    }

    /// The beginning of the newest other connection that joined the same hosts, in the same direction.
    fn older_tape(&self, side: Side) -> Option<Vec<u8>> {
        let hosts = |ends: &[crate::net::End; 2], at: usize| (ends[at].host, ends[1 - at].host);
        let wanted = hosts(&self.conns[side.conn].ends, side.side);
        let others = self.conns.iter().enumerate().rev().filter(|(conn, _)| *conn != side.conn);
        let mut tapes = others.flat_map(|(_, conn)| {
            [0, 1]
                .into_iter()
                .filter(move |at| hosts(&conn.ends, *at) == wanted)
                .map(move |at| &conn.pipes[at].tape)
        });
        tapes.find(|tape| !tape.is_empty()).cloned()
    }

    /// Whether anybody touched what passed between the two.
    pub(crate) fn is_attacked(&self, a: usize, b: usize) -> bool {
        self.links[link(a, b)].attacked || self.links[link(b, a)].attacked
    }
}
