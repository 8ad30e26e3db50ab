//! The network between the hosts: dials, segments, resets, and what a kernel does with connections whose process or
//! machine is gone.

use crate::fate::{Purpose, link};
use crate::fault::Fault;
use crate::host::{Ending, Host, source_of};
use crate::limits::{LINGER, RETRANSMISSION, SYN_RETRY};
use crate::nat::{self, Header};
use crate::net::{Conn, End, EndState, Pipe, Segment, What};
use crate::op::Block;
use crate::oracle::Check;
use crate::probe::Probe;
use crate::queue::{Event, Run, Side};
use crate::world::World;
use bytes::Bytes;
use peerlink_core::api::{DialFailure, Input, StreamEnd};
use peerlink_core::ids::StreamId;
use peerlink_core::limits::{RECORD_BYTES, RECORD_PREFIX, STREAM_BUFFER_BYTES};
use peerlink_core::time::Duration;
use std::net::SocketAddr;

impl World {
    // --- dials -----------------------------------------------------------------------------------------------

    pub(crate) fn host_at(&self, remote: SocketAddr) -> Option<usize> {
        self.hosts.iter().position(|host| host.address() == remote)
    }

    pub(crate) fn dial(&mut self, index: usize, stream: StreamId, remote: SocketAddr, timeout: Duration) {
        let run = self.run_of(index);
        let conn = self.conns.len();
        let source = source_of(&self.hosts[index], conn);
        let syn = Header::tcp(source, remote, nat::Segment::Syn);
        let door = self.homes.as_mut().and_then(|homes| homes.depart(self.now, index, syn));
        let owner = door.and_then(|(door, _)| self.homes.as_ref()?.owner(door));
        let target = owner.or_else(|| self.host_at(remote)).unwrap_or(index);
        let dialler = End { host: index, incarnation: run.incarnation, stream, state: EndState::Opening };
        let acceptor = End { host: target, incarnation: 0, stream: StreamId(0), state: EndState::Opening };
        self.conns.push(Conn {
            remote,
            ends: [dialler, acceptor],
            pipes: [Pipe::default(), Pipe::default()],
            swallows: false,
            accepted: false,
            door,
            flow: None,
        });
        if let Some(process) = self.hosts[index].process.as_mut() {
            process.socks.insert(stream, Side { conn, side: 0 });
        }
        let there = self.now + self.latency(index, target);
        let of_its_own = |host: &Host| host.is_hostile || host.relays.is_some();
        let streams =
            self.scenario.streams || of_its_own(&self.hosts[index]) || of_its_own(&self.hosts[target]);
        if streams {
            self.queue.push(there, Event::Syn { conn, attempt: 0 });
        } else {
            self.queue.push(there, Event::DialFailed { conn, refused: true });
        }
        let most = u64::try_from(timeout.as_micros()).unwrap_or(u64::MAX);
        self.queue.push(self.now.saturating_add(most), Event::DialTimeout { conn });
    }

    pub(crate) fn syn(&mut self, conn: usize, attempt: u32) {
        let (from, remote) = (self.conns[conn].ends[0].host, self.conns[conn].remote);
        let conn_state = &self.conns[conn];
        if conn_state.ends[0].state != EndState::Opening || conn_state.accepted || conn_state.swallows {
            return;
        }
        let again = self.now + (SYN_RETRY << attempt.min(6));
        let Some((to, seen)) = self.reached_by(conn, remote) else {
            // Nobody is there (any more): silence, as from most networks.
            return;
        };
        let way = link(from, to);
        match self.links[way].blocked {
            Some((_, Block::Silent)) => {
                self.queue.push(again, Event::Syn { conn, attempt: attempt + 1 });
                return;
            }
            Some((_, Block::Loud)) => {
                self.queue.push(self.now + 1, Event::DialFailed { conn, refused: false });
                return;
            }
            None => {}
        }
        if self.links[way].lose > 0 {
            self.links[way].lose -= 1;
            self.counts.add(Fault::DialLost);
            return;
        }
        let spurious = self.links[way].refuse > 0;
        if spurious {
            self.links[way].refuse -= 1;
            self.counts.add(Fault::DialRefused);
        }
        if self.hosts[to].off {
            self.queue.push(again, Event::Syn { conn, attempt: attempt + 1 });
        } else if spurious || !self.hosts[to].is_up() {
            let back = self.now + self.latency(to, from);
            self.queue.push(back, Event::DialFailed { conn, refused: true });
        } else {
            self.accept(conn, from, to, seen);
        }
    }

    /// Who is dialled, and where the dial seems to come from for him.
    fn reached_by(&mut self, conn: usize, remote: SocketAddr) -> Option<(usize, SocketAddr)> {
        let source = source_of(&self.hosts[self.conns[conn].ends[0].host], conn);
        let Some(homes) = self.homes.as_mut() else { return Some((self.host_at(remote)?, source)) };
        let (door, header) = self.conns[conn].door?;
        let (host, header) = homes.arrive(self.now, door, header)?;
        let is_listener = self.hosts.get(host).is_some_and(|host| host.address() == header.to);
        is_listener.then_some((host, header.from))
    }

    /// Whether the boxes between let a segment pass.
    fn boxes_pass(&mut self, side: Side, segment: nat::Segment) -> bool {
        let (Some(homes), Some(flow)) = (self.homes.as_mut(), self.conns[side.conn].flow) else {
            return true;
        };
        let ends = &self.conns[side.conn].ends;
        let (from, to) = (ends[side.side].host, ends[1 - side.side].host);
        let (own, other) = flow[side.side];
        let departed = homes.depart(self.now, from, Header::tcp(own, other, segment));
        let arrived = departed.and_then(|(door, header)| homes.arrive(self.now, door, header));
        // From another endpoint it is no segment of this connection.
        let seen = flow[1 - side.side].1;
        arrived.is_some_and(|(host, header)| host == to && header.from == seen)
    }

    fn accept(&mut self, conn: usize, from: usize, to: usize, remote: SocketAddr) {
        let run = self.run_of(to);
        let source = source_of(&self.hosts[from], conn);
        self.conns[conn].flow = Some([(source, self.conns[conn].remote), (self.hosts[to].address(), remote)]);
        let Some(process) = self.hosts[to].process.as_mut() else { return };
        let stream = StreamId(process.next_accept);
        process.next_accept += 2;
        process.socks.insert(stream, Side { conn, side: 1 });
        self.conns[conn].ends[1] =
            End { host: to, incarnation: run.incarnation, stream, state: EndState::Open };
        self.conns[conn].accepted = true;
        let _answers = self.boxes_pass(Side { conn, side: 1 }, nat::Segment::SynAck);
        let back = self.now + self.latency(to, from);
        self.queue.push(back, Event::SynAck { conn, attempt: 0 });
        self.feed(to, &Input::StreamAccepted { stream, remote });
    }

    pub(crate) fn syn_ack(&mut self, conn: usize, attempt: u32) {
        let [dialler, acceptor] = &self.conns[conn].ends;
        let (from, to, stream) = (dialler.host, acceptor.host, dialler.stream);
        let run = Run { host: from, incarnation: dialler.incarnation };
        match dialler.state {
            EndState::Opening => {}
            EndState::Gone => return self.send(Side { conn, side: 0 }, What::Rst),
            EndState::Open | EndState::Closing => return,
        }
        if self.links[link(to, from)].blocked.is_some() || self.conns[conn].swallows {
            let again = self.now + (SYN_RETRY << attempt.min(6));
            self.queue.push(again, Event::SynAck { conn, attempt: attempt + 1 });
            return;
        }
        if !self.is_current(run) {
            return;
        }
        self.conns[conn].ends[0].state = EndState::Open;
        let crosses = |other: &Conn| {
            other.accepted
                && other.ends.iter().all(|end| end.state == EndState::Open)
                && other.ends[0].host == to
        };
        if self.live().into_iter().map(|other| &self.conns[other]).any(crosses) {
            self.met.add(Probe::Crossed);
        }
        let local = source_of(&self.hosts[from], conn);
        self.feed(from, &Input::StreamConnected { stream, local });
    }

    pub(crate) fn dial_failed(&mut self, conn: usize, refused: bool) {
        let why = if refused { DialFailure::Refused } else { DialFailure::Unreachable };
        self.dial_over(conn, why);
    }

    pub(crate) fn dial_timeout(&mut self, conn: usize) {
        self.dial_over(conn, DialFailure::TimedOut);
    }

    fn dial_over(&mut self, conn: usize, why: DialFailure) {
        let side = Side { conn, side: 0 };
        if self.end_state(side) != EndState::Opening {
            return;
        }
        if !self.conns[conn].accepted {
            self.conns[conn].ends[1].state = EndState::Gone;
        }
        if let Some((run, stream)) = self.forget(side) {
            self.feed(run.host, &Input::DialFailed { stream, why });
        }
    }

    // --- write -----------------------------------------------------------------------------------------------

    fn latency(&mut self, from: usize, to: usize) -> u64 {
        let way = link(from, to);
        let late = self.links[way].clogged.map_or(0, |(_, delay)| delay);
        let (least, jitter) = (self.scenario.climate.latency, self.scenario.climate.jitter);
        late + least + self.dice.below(Purpose::Latency, way, jitter + 1)
    }

    /// The end that a stream of this host is.
    fn side_of(&self, index: usize, stream: StreamId) -> Option<Side> {
        self.hosts[index].process.as_ref()?.socks.get(&stream).copied()
    }

    pub(crate) fn write(&mut self, index: usize, stream: StreamId, bytes: Bytes) {
        // A write that was decided before the node learned of the stream's end goes nowhere.
        let Some(side) = self.side_of(index, stream) else { return };
        let name = self.hosts[index].name();
        let pipe = &self.conns[side.conn].pipes[side.side];
        if pipe.outgoing.is_some() || pipe.fin_due || self.end_state(side) != EndState::Open {
            return self.fail(Check::Contract, format!("{name} writes on stream {stream} before it may"));
        }
        if bytes.is_empty() || bytes.len() > 2 * (RECORD_BYTES + RECORD_PREFIX) {
            self.fail(Check::Bounded, format!("{name} writes {} bytes at once", bytes.len()));
        }
        let sealing = self.hosts[index].process.as_mut().and_then(|process| process.mind.node());
        let sealing = sealing.and_then(|node| node.sealing(stream));
        let verdict = self.oracle.sealed(sealing);
        self.judged(verdict);
        self.overhear(side, &bytes);
        self.conns[side.conn].pipes[side.side].outgoing = Some(bytes);
        self.pump(side);
    }

    /// Moves what the window has room for from the writer's hand onto the way.
    pub(crate) fn pump(&mut self, side: Side) {
        let way = self.way(side);
        loop {
            let window = self.scenario.climate.window;
            let most = self.scenario.climate.segment as u64;
            let pipe = &mut self.conns[side.conn].pipes[side.side];
            let Some(outgoing) = pipe.outgoing.as_mut() else { break };
            let room = window.saturating_sub(pipe.held);
            if room == 0 {
                return;
            }
            let size = self.dice.between(Purpose::Segment, way, 1.max(most / 8), most);
            let size = usize::try_from(size).unwrap_or(usize::MAX).min(room).min(outgoing.len());
            let part = outgoing.split_to(size);
            let done = outgoing.is_empty();
            if done {
                pipe.outgoing = None;
            }
            let part = self.pass_attacker(side, part);
            if !part.is_empty() {
                self.conns[side.conn].pipes[side.side].held += part.len();
                self.count_segment(self.conns[side.conn].ends[side.side].host, part.len());
                self.send(side, What::Data(part));
            }
            if done {
                let at = self.now + self.dice.below(Purpose::Written, way, 50);
                self.queue.push(at, Event::Written(side));
            }
        }
        let pipe = &mut self.conns[side.conn].pipes[side.side];
        if pipe.fin_due && !std::mem::replace(&mut pipe.fin_sent, true) {
            self.send(side, What::Fin);
        }
    }

    fn way(&self, side: Side) -> usize {
        let ends = &self.conns[side.conn].ends;
        link(ends[side.side].host, ends[1 - side.side].host)
    }

    /// Puts a segment on the way, behind all earlier ones.
    pub(crate) fn send(&mut self, side: Side, what: What) {
        let ends = &self.conns[side.conn].ends;
        let (from, to) = (ends[side.side].host, ends[1 - side.side].host);
        let at = self.now + self.latency(from, to);
        let segment = match what {
            What::Data(_) => nat::Segment::Data,
            What::Fin => nat::Segment::Fin,
            What::Rst => nat::Segment::Rst,
        };
        // Boxes that do not know it (any more) never will.
        let lost = !self.boxes_pass(side, segment);
        let conn = &mut self.conns[side.conn];
        conn.swallows |= lost;
        let swallows = conn.swallows;
        let pipe = &mut conn.pipes[side.side];
        pipe.last_at = pipe.last_at.max(at);
        let at = pipe.last_at;
        pipe.segments.push_back(Segment { at, what });
        if !swallows && !pipe.stalled {
            self.queue.push(at, Event::Arrive(side));
        }
    }

    /// The driver learns that its write was taken whole.
    pub(crate) fn written(&mut self, side: Side) {
        let end = &self.conns[side.conn].ends[side.side];
        let (run, stream) = (Run { host: end.host, incarnation: end.incarnation }, end.stream);
        if end.state == EndState::Open && self.is_current(run) {
            self.feed(run.host, &Input::StreamWritten { stream });
        }
    }

    // --- arrive and read -------------------------------------------------------------------------------------

    /// A segment that began at `side` reaches the other end.
    pub(crate) fn arrive(&mut self, side: Side) {
        let way = self.way(side);
        let blocked = self.links[way].blocked.is_some();
        let conn = &mut self.conns[side.conn];
        let pipe = &mut conn.pipes[side.side];
        if conn.swallows || pipe.stalled {
            return;
        }
        if blocked {
            pipe.stalled = true;
            return;
        }
        // What was held up comes later than its first event said.
        let Some(segment) = pipe.segments.pop_front_if(|segment| segment.at <= self.now) else { return };
        let there = side.other();
        match self.end_state(there) {
            EndState::Opening => {}
            EndState::Open => self.arrive_open(side, segment.what),
            EndState::Closing => self.arrive_closing(side, segment.what),
            EndState::Gone => self.arrive_gone(side, &segment.what),
        }
    }

    fn arrive_open(&mut self, side: Side, what: What) {
        let way = self.way(side);
        let pipe = &mut self.conns[side.conn].pipes[side.side];
        match what {
            // After a FIN that some box on the way made up, nothing counts any more.
            What::Data(bytes) if pipe.eof => pipe.held -= bytes.len(),
            What::Data(bytes) => pipe.arrived.push_back(bytes),
            What::Fin => pipe.eof = true,
            What::Rst => {
                pipe.reset = true;
                // Some kernels throw away what was not read yet, and a waiting reader is told at once.
                if pipe.hungry || self.dice.chance(Purpose::Reset, way, 500_000) {
                    return self.broken(side.other());
                }
            }
        }
        self.wake(side);
    }

    fn arrive_closing(&mut self, side: Side, what: What) {
        match what {
            What::Data(bytes) => {
                self.conns[side.conn].pipes[side.side].held -= bytes.len();
                self.pump(side);
            }
            What::Fin | What::Rst => {
                if let Some((run, stream)) = self.forget(side.other()) {
                    self.over(run, stream);
                }
            }
        }
    }

    /// Nobody knows this connection at the other end: a kernel that runs says so, one that is off says it later.
    fn arrive_gone(&mut self, side: Side, what: &What) {
        let (there, here) = (self.conns[side.conn].ends[1 - side.side].host, self.end_state(side));
        if matches!(what, What::Rst) || here == EndState::Gone {
            return;
        }
        if self.hosts[there].off {
            self.conns[side.conn].pipes[side.side].unknown = true;
        } else {
            self.send(side.other(), What::Rst);
        }
    }

    /// The kernels of a host that is on again answer what had come for connections they do not know.
    pub(crate) fn answer_unknown(&mut self, host: usize) {
        for conn in self.live() {
            for side in [0, 1] {
                let ends = &self.conns[conn].ends;
                let asked = self.conns[conn].pipes[side].unknown && ends[1 - side].host == host;
                if asked && self.end_state(Side { conn, side: 1 - side }) == EndState::Gone {
                    self.conns[conn].pipes[side].unknown = false;
                    self.send(Side { conn, side: 1 - side }, What::Rst);
                }
            }
        }
    }

    /// Lets the driver read, unless it does already or waits for its node.
    fn wake(&mut self, side: Side) {
        let pipe = &mut self.conns[side.conn].pipes[side.side];
        if !pipe.hungry && !std::mem::replace(&mut pipe.reading, true) {
            self.queue.push(self.now, Event::Readable(side.other()));
        }
    }

    pub(crate) fn read_ready(&mut self, index: usize, stream: StreamId) {
        let Some(side) = self.side_of(index, stream) else { return };
        let pipe = &mut self.conns[side.conn].pipes[1 - side.side];
        if std::mem::take(&mut pipe.hungry) {
            self.wake(side.other());
        }
    }

    /// The driver of this end reads once.
    pub(crate) fn readable(&mut self, side: Side) {
        let end = &self.conns[side.conn].ends[side.side];
        let (run, stream) = (Run { host: end.host, incarnation: end.incarnation }, end.stream);
        let pipe = &mut self.conns[side.conn].pipes[1 - side.side];
        pipe.reading = false;
        if self.conns[side.conn].ends[side.side].state != EndState::Open || !self.is_current(run) {
            return;
        }
        let pipe = &self.conns[side.conn].pipes[1 - side.side];
        if pipe.arrived.is_empty() {
            return self.read_end(side, pipe.reset, pipe.eof);
        }
        let Some(process) = self.hosts[run.host].process.as_ref() else { return };
        let budget = process.mind.read_budget(stream);
        if budget > STREAM_BUFFER_BYTES {
            return self.fail(
                Check::Bounded,
                format!("a read budget of {budget} bytes is more than a buffer holds"),
            );
        }
        let most = self.scenario.climate.read as u64;
        let way = self.way(side.other());
        let pipe = &mut self.conns[side.conn].pipes[1 - side.side];
        if budget == 0 {
            pipe.hungry = true;
            if pipe.reset {
                self.broken(side);
            }
            return;
        }
        let size = self.dice.between(Purpose::Read, way, 1.max(most / 4), most);
        let bytes = pipe.take(usize::try_from(size).unwrap_or(usize::MAX).min(budget));
        let more = !pipe.arrived.is_empty() || pipe.eof || pipe.reset;
        if more {
            pipe.reading = true;
            let at = self.now + self.dice.below(Purpose::ReadPause, way, 20);
            self.queue.push(at, Event::Readable(side));
        }
        if !self.conns[side.conn].swallows {
            self.pump(side.other());
        }
        let other = &self.conns[side.conn].ends[1 - side.side];
        self.watch.hears(run, Run { host: other.host, incarnation: other.incarnation });
        self.feed(run.host, &Input::StreamData { stream, bytes: &bytes });
    }

    /// Everything was read: is this the end?
    fn read_end(&mut self, side: Side, reset: bool, eof: bool) {
        if reset {
            return self.broken(side);
        }
        if !eof {
            return;
        }
        let Some((run, stream)) = self.forget(side) else { return };
        // The driver closes its side of a stream that the peer has ended.
        let pipe = &mut self.conns[side.conn].pipes[side.side];
        pipe.outgoing = None;
        if !std::mem::replace(&mut pipe.fin_sent, true) {
            self.send(side, What::Fin);
        }
        self.feed(run.host, &Input::StreamClosed { stream, why: StreamEnd::Finished });
    }

    /// This end learns that its connection is no more.
    pub(crate) fn broken(&mut self, side: Side) {
        if self.end_state(side) == EndState::Opening {
            return self.dial_over(side.conn, DialFailure::Refused);
        }
        self.conns[side.conn].pipes[1 - side.side].discard();
        if let Some((run, stream)) = self.forget(side) {
            self.feed(run.host, &Input::StreamClosed { stream, why: StreamEnd::Broken });
        }
    }

    // --- close -----------------------------------------------------------------------------------------------

    pub(crate) fn close(&mut self, index: usize, stream: StreamId, flush: bool) {
        let Some(side) = self.side_of(index, stream) else { return };
        let state = self.end_state(side);
        if state == EndState::Closing {
            let name = self.hosts[index].name();
            return self.fail(Check::Contract, format!("{name} closes stream {stream} twice"));
        }
        if flush && state == EndState::Open {
            self.conns[side.conn].ends[side.side].state = EndState::Closing;
            self.conns[side.conn].pipes[side.side].fin_due = true;
            let (eof, reset) = {
                let pipe = &mut self.conns[side.conn].pipes[1 - side.side];
                pipe.discard();
                (pipe.eof, pipe.reset)
            };
            self.pump(side);
            self.pump(side.other());
            let patience = if eof || reset { 1 } else { LINGER };
            self.queue.push(self.now + patience, Event::Linger(side));
            return;
        }
        let run = self.run_of(index);
        self.abandon(side);
        self.queue.push(self.now, Event::Over { run, stream });
    }

    /// A closed stream had its time.
    pub(crate) fn linger(&mut self, side: Side) {
        if self.end_state(side) != EndState::Closing {
            return;
        }
        let end = &self.conns[side.conn].ends[side.side];
        let (run, stream) = (Run { host: end.host, incarnation: end.incarnation }, end.stream);
        self.abandon(side);
        self.over(run, stream);
    }

    /// The end is gone at once; the other side is told by a reset.
    fn abandon(&mut self, side: Side) {
        let was = self.end_state(side);
        let _its_run = self.forget(side);
        let conn = &mut self.conns[side.conn];
        conn.pipes[side.side].outgoing = None;
        conn.pipes[1 - side.side].discard();
        if was == EndState::Opening && side.side == 0 && !conn.accepted {
            conn.ends[1].state = EndState::Gone;
        } else if self.end_state(side.other()) != EndState::Gone {
            self.send(side, What::Rst);
        }
    }

    /// What becomes of every connection of a process that is gone. A kernel that lives on ends them; without power
    /// nothing is said, though what was on the way arrives.
    pub(crate) fn close_all(&mut self, run: Run, ending: Ending) {
        for conn in self.live() {
            for side in [0, 1].map(|side| Side { conn, side }) {
                let end = &mut self.conns[conn].ends[side.side];
                if (end.host, end.incarnation) != (run.host, run.incarnation) || end.state == EndState::Gone {
                    continue;
                }
                let unborn = end.state == EndState::Opening && side.side == 1;
                // What a process closed in good order its kernel sends to the end.
                if unborn || (end.state == EndState::Closing && ending == Ending::Stopped) {
                    continue;
                }
                let opening = end.state == EndState::Opening;
                end.state = EndState::Gone;
                let unread = self.conns[conn].pipes[1 - side.side].arrived_bytes() > 0;
                self.conns[conn].pipes[1 - side.side].discard();
                self.conns[conn].pipes[side.side].outgoing = None;
                if opening && !self.conns[conn].accepted {
                    self.conns[conn].ends[1].state = EndState::Gone;
                } else if ending != Ending::PowerLoss {
                    self.send(side, if unread { What::Rst } else { What::Fin });
                }
            }
        }
    }

    // --- links -----------------------------------------------------------------------------------------------

    pub(crate) fn link_up(&mut self, way: usize, began: u64) {
        self.links[way].clogged.take_if(|(at, _)| *at == began);
        self.links[way].squall.ends(began);
        if self.links[way].blocked.is_some_and(|(at, _)| at == began) {
            self.unblock(way);
        }
        for host in &mut self.hosts {
            if link(host.index, host.index) == way {
                host.slow.take_if(|(at, _)| *at == began);
                host.full.take_if(|(at, _, _)| *at == began);
            }
        }
    }

    /// The way is free again: what waited goes on at the next retransmission.
    pub(crate) fn unblock(&mut self, way: usize) {
        (self.links[way].blocked, self.links[way].clogged) = (None, None);
        for conn in self.live() {
            for side in [0, 1].map(|side| Side { conn, side }) {
                if self.way(side) != way || !self.conns[conn].pipes[side.side].stalled {
                    continue;
                }
                let wait = self.dice.below(Purpose::Retransmit, way, RETRANSMISSION);
                let pipe = &mut self.conns[conn].pipes[side.side];
                pipe.stalled = false;
                let at = pipe.last_at.max(self.now + wait);
                pipe.last_at = at;
                pipe.segments.iter_mut().for_each(|segment| segment.at = at);
                for _ in 0..pipe.segments.len() {
                    self.queue.push(at, Event::Arrive(side));
                }
            }
        }
    }
}
