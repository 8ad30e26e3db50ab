//! Carries out the script: faults of hosts, disks and the network.

use crate::air::Squall;
use crate::attack::Planned;
use crate::fate::link;
use crate::fault::Fault;
use crate::host::{Doom, Ending};
use crate::limits::{LONG_SLEEP, MICROS_PER_SECOND};
use crate::net::EndState;
use crate::op::{Block, Mischief, Op};
use crate::oracle::Check;
use crate::queue::{Event, Side};
use crate::regret::Wish;
use crate::touch::Awaited;
use crate::world::World;
use peerlink_core::api::{Command, Input};
use peerlink_core::bounded::List;
use peerlink_core::limits::IDLE_PING;

impl World {
    pub(crate) fn script(&mut self, index: usize) {
        if self.healed {
            return;
        }
        let (_, op) = self.scenario.script[index];
        let Some(op) = self.placed(op) else { return };
        self.tracer.note(self.now, || op.to_string());
        if !matches!(op, Op::TouchPacket { .. } | Op::Send { .. }) {
            self.disturb(op.lasts());
        }
        match op {
            Op::Crash { host, outputs, writing, power, kept, down } => {
                let ending = if power { Ending::PowerLoss } else { Ending::Killed };
                self.hosts[host].doom = Some(Doom { outputs: outputs.max(1), writing, ending, kept, down });
            }
            Op::FailCommit { host, kept, down } => self.hosts[host].failing = Some((kept, down)),
            Op::CutCommit { host, kept, down } => self.hosts[host].cutting = Some((kept, down)),
            Op::FullDisk { host, kept, down, lasts } => {
                self.hosts[host].full = Some((self.now, kept, down));
                let event = Event::LinkUp { link: link(host, host), began: self.now };
                self.queue.push(self.now + lasts, event);
            }
            Op::Backup { host } => {
                // Once everybody is known: who loses a contact needs a new ticket, and that is another story.
                if self.is_person(host) && self.knows_everybody(host) {
                    self.hosts[host].backup = Some(self.hosts[host].disk.backup());
                }
            }
            Op::RollBack { host, down } => self.roll_back(host, down),
            Op::Twin { host } => self.begin_twin(host),
            Op::SlowDisk { host, commit, lasts } => {
                self.counts.add(Fault::SlowCommit);
                self.hosts[host].slow = Some((self.now, commit));
                let event = Event::LinkUp { link: link(host, host), began: self.now };
                self.queue.push(self.now + lasts, event);
            }
            Op::Partition { from, to, how, both, lasts } => {
                self.counts.add(match (how, both) {
                    _ if !(self.is_person(from) && self.is_person(to)) => Fault::RelayCutOff,
                    (Block::Loud, _) => Fault::Partition,
                    (Block::Silent, true) => Fault::SilentPartition,
                    (Block::Silent, false) => Fault::OneWayPartition,
                });
                self.block(link(from, to), how, lasts);
                if both {
                    self.block(link(to, from), how, lasts);
                }
            }
            Op::Clog { from, to, delay, lasts } => {
                let people = self.is_person(from) && self.is_person(to);
                self.counts.add(if people { Fault::Clog } else { Fault::RelayLate });
                self.links[link(from, to)].clogged = Some((self.now, delay));
                self.queue.push(self.now + lasts, Event::LinkUp { link: link(from, to), began: self.now });
            }
            Op::Reset { a, b } => self.reset(a, b),
            Op::BlackHole { a, b } => self.black_hole(a, b),
            Op::HalfClose { from, to } => self.half_close(from, to),
            Op::Attack { from, to, how, after, salt } => {
                self.links[link(from, to)].attacks.push(Planned { how, after, salt });
            }
            Op::LosePackets { from, to, share, lasts } => self.squall(from, to, lasts, |squall, now| {
                squall.loses = Some((now, share));
            }),
            Op::DoublePackets { from, to, share, lasts } => self.squall(from, to, lasts, |squall, now| {
                squall.doubles = Some((now, share));
            }),
            Op::ScatterPackets { from, to, by, lasts } => self.squall(from, to, lasts, |squall, now| {
                squall.scatters = Some((now, by));
            }),
            Op::TouchPacket { from, to, how, after, salt } => {
                self.links[link(from, to)].touches.push(Awaited { how, after, salt });
            }
            Op::Rebind { host } => {
                self.counts.add(Fault::Rebound);
                // Where nothing is said, that is found out at the next ping.
                self.disturb(IDLE_PING.as_secs() * MICROS_PER_SECOND);
                // A box that starts again has forgotten everything. Without one, something else did.
                if !self.homes.as_mut().is_some_and(|homes| homes.reboot(host)) {
                    self.hosts[host].rebinds += u16::from(self.homes.is_none());
                    self.watch.knows(self.hosts[host].socket());
                }
            }
            Op::Mischief { to, how, salt } => self.deed(to, how, salt),
            Op::LoseDials { from, to, dials } => self.links[link(from, to)].lose += dials,
            Op::RefuseDials { from, to, dials } => self.links[link(from, to)].refuse += dials,
            Op::Move { host, told } => self.relocate(host, told),
            Op::SetWall { host, by_ms } => {
                self.counts.add(Fault::ClockJump);
                self.hosts[host].was_set = true;
                self.hosts[host].wall_error = self.hosts[host].wall_error.saturating_add(by_ms);
                self.queue.push(self.now, Event::Surroundings { host });
            }
            Op::Pause { host, lasts } => {
                self.counts.add(Fault::Pause);
                self.hosts[host].paused_until = self.now + lasts;
            }
            Op::Sleep { host, lasts, by } => self.sleep(host, lasts, by),
            Op::Restart { host, down } => self.restart(host, down),
            Op::UseRelay { host, relay } => self.change_relay(host, relay),
            Op::Send { host, to, bytes } => self.write_message(host, to, bytes as usize),
            Op::Cancel { host, to, back } => self.wishes_back(host, to, back),
            Op::Delete { host, with, own, back } => self.wishes_away(host, with, own, back),
            Op::DeleteConversation { host, with } => self.wishes(host, with, Some(Wish::DeleteAll)),
            Op::BlockContact { host, contact, lasts } => {
                let until = self.now + lasts;
                self.people[host].block(contact, until);
                self.queue.push(self.now, Event::Act { host });
            }
        }
    }

    /// The disk is lost, and an older copy of it is put in its place.
    fn roll_back(&mut self, host: usize, down: u64) {
        let Some(backup) = self.hosts[host].backup.clone() else { return };
        self.crash(host, Ending::PowerLoss, 0, down);
        self.counts.add(Fault::RolledBack);
        self.hosts[host].disk.bring_back(&backup);
        match self.oracle.rolled_back(host, &self.hosts[host].disk) {
            Ok(lost) => self.forget_messages(host, &lost),
            Err(violation) => self.wrong(violation),
        }
    }

    fn deed(&mut self, to: usize, how: Mischief, salt: u64) {
        let index = self.scenario.hosts;
        let Some(process) = self.hosts.get_mut(index).and_then(|host| host.process.as_mut()) else { return };
        let at = process.clock(self.now);
        if let Some(hostile) = process.mind.hostile() {
            hostile.plan(at, to, how, salt);
            self.counts.add(how.fault());
            self.drain(index);
        }
    }

    /// The clocks jump at once, the process learns of it when it wakes.
    fn sleep(&mut self, host: usize, lasts: u64, by: u64) {
        self.counts.add(if by >= LONG_SLEEP { Fault::LongSleep } else { Fault::Sleep });
        let run = self.run_of(host);
        let host = &mut self.hosts[host];
        host.paused_until = self.now + lasts;
        host.wall_error = host.wall_error.saturating_add_unsigned(by / 1000);
        host.slept_ms += by / 1000;
        if let Some(process) = host.process.as_mut() {
            process.base = process.base.saturating_add(by);
            // The timer that was set is due on waking.
            process.armed = Some(self.now);
            process.generation += 1;
            let event = Event::Timer { run, generation: process.generation };
            self.queue.push(self.now, event);
        }
    }

    fn restart(&mut self, host: usize, down: u64) {
        let Some(process) = self.hosts[host].process.as_mut() else { return };
        if process.stopping.is_some() || process.store_failed.is_some() {
            return;
        }
        process.stopping = Some(down);
        self.counts.add(if self.is_person(host) { Fault::Restart } else { Fault::RelayDied });
        if let Err(why) = self.ask(host, Command::Shutdown) {
            self.fail(Check::Contract, format!("a request to stop was refused: {why}"));
        }
    }

    fn squall(&mut self, from: usize, to: usize, lasts: u64, begin: impl FnOnce(&mut Squall, u64)) {
        let way = link(from, to);
        begin(&mut self.links[way].squall, self.now);
        self.queue.push(self.now + lasts, Event::LinkUp { link: way, began: self.now });
    }

    fn block(&mut self, way: usize, how: Block, lasts: u64) {
        self.links[way].blocked = Some((self.now, how));
        self.queue.push(self.now + lasts, Event::LinkUp { link: way, began: self.now });
    }

    /// Connections that stand between the two.
    fn between(&self, a: usize, b: usize) -> Vec<usize> {
        self.live().into_iter().filter(|conn| self.conns[*conn].joins(a, b)).collect()
    }

    fn reset(&mut self, a: usize, b: usize) {
        for conn in self.between(a, b) {
            self.counts.add(Fault::Reset);
            for side in [0, 1].map(|side| Side { conn, side }) {
                self.conns[conn].pipes[side.side].segments.clear();
                if self.end_state(side) != EndState::Gone {
                    self.broken(side);
                }
            }
        }
    }

    fn black_hole(&mut self, a: usize, b: usize) {
        for conn in self.between(a, b) {
            self.counts.add(Fault::BlackHole);
            self.conns[conn].swallows = true;
        }
    }

    fn half_close(&mut self, from: usize, to: usize) {
        for conn in self.between(from, to) {
            self.counts.add(Fault::HalfClose);
            let side = usize::from(self.conns[conn].ends[0].host != from);
            let pipe = &mut self.conns[conn].pipes[side];
            if !std::mem::replace(&mut pipe.fin_sent, true) {
                // Whatever the writer sends after this is lost: a box on the way ended the connection.
                self.send(Side { conn, side }, crate::net::What::Fin);
            }
        }
    }

    /// The host is somewhere else now.
    fn relocate(&mut self, host: usize, told: bool) {
        self.counts.add(Fault::AddressChange);
        for conn in self.live() {
            let ends = &self.conns[conn].ends;
            let Some(side) = ends.iter().position(|end| end.host == host) else { continue };
            let opening = ends[0].state == EndState::Opening;
            self.conns[conn].swallows = true;
            if told && !opening && self.end_state(Side { conn, side }) != EndState::Gone {
                self.broken(Side { conn, side });
            }
        }
        self.hosts[host].moves = self.hosts[host].moves.saturating_add(1);
        // Whatever gave its datagrams another address stays behind.
        self.hosts[host].rebinds = 0;
        let address = self.hosts[host].address();
        if let Some(homes) = &mut self.homes {
            homes.moved(host, address);
        }
        self.watch.knows(address);
        let hostile = self.hosts.get_mut(self.scenario.hosts).and_then(|host| host.process.as_mut());
        if let Some(hostile) = hostile.and_then(|process| process.mind.hostile()) {
            hostile.moved(host, address);
        }
        self.queue.push(self.now, Event::Surroundings { host });
    }

    /// A driver that runs tells its node what time it is and where it is; one that stands still does so on waking.
    pub(crate) fn notice(&mut self, host: usize) {
        let (wall, address) = (self.hosts[host].wall(self.now), self.hosts[host].address());
        self.feed(host, &Input::WallClock(wall));
        self.feed(host, &Input::LocalAddresses(List::of([address])));
    }
}
