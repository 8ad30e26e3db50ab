//! One pair of endpoints that a box has seen talk: how far its connection is, and until when it lives.

use super::Segment;
use super::cfg::{Lifetimes, NatCfg};
use peerlink_core::time::{Duration, Instant};

/// The way a packet goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    Out,
    In,
}

/// What was seen of a TCP connection, by direction (RFC 5382, section 5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Connection {
    syn: [bool; 2],
    fin: [bool; 2],
    reset: bool,
}

impl Connection {
    fn saw(&mut self, way: Way, segment: Segment) {
        let side = way as usize;
        match segment {
            Segment::Syn => {
                // A new connection between the same endpoints.
                if self.reset || self.fin == [true; 2] {
                    *self = Self::default();
                }
                self.syn[side] = true;
            }
            // One that was picked up in the middle counts as if its beginning had been seen.
            Segment::SynAck | Segment::Data => self.syn[side] = true,
            Segment::Fin => self.fin[side] = true,
            Segment::Rst => self.reset = true,
        }
    }

    fn life(&self, life: &Lifetimes) -> Duration {
        let open = self.syn == [true; 2] && self.fin != [true; 2] && !self.reset;
        if open { life.tcp_established } else { life.tcp_transitory }
    }
}

#[derive(Debug, Clone)]
pub(super) struct Flow {
    began: Instant,
    pub(super) expires: Instant,
    /// Which directions were seen.
    seen: [bool; 2],
    connection: Connection,
}

impl Flow {
    pub(super) fn new(now: Instant) -> Self {
        Self { began: now, expires: now, seen: [false; 2], connection: Connection::default() }
    }

    pub(super) fn is_live(&self, now: Instant) -> bool {
        now < self.expires
    }

    /// Something was sent to this remote endpoint: the filters let it answer.
    pub(super) fn was_asked(&self) -> bool {
        self.seen[Way::Out as usize]
    }

    /// A SYN went out and none came in.
    pub(super) fn opens_outward(&self) -> bool {
        self.connection.syn == [true, false]
    }

    pub(super) fn passed(&mut self, now: Instant, cfg: &NatCfg, way: Way, segment: Option<Segment>) {
        let first = self.seen == [false; 2];
        self.seen[way as usize] = true;
        let life = match segment {
            None if self.seen == [true; 2] && self.began + cfg.life.udp_stream_after <= now => {
                cfg.life.udp_stream
            }
            None => cfg.life.udp_new,
            Some(segment) => {
                self.connection.saw(way, segment);
                self.connection.life(&cfg.life)
            }
        };
        let counts = match way {
            Way::Out => cfg.refresh.out || first,
            Way::In => cfg.refresh.inward,
        };
        if segment.is_some() {
            // What closes lives shorter than before.
            self.expires = now + life;
        } else if counts {
            self.expires = self.expires.max(now + life);
        }
    }
}
