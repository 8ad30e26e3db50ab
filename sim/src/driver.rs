//! The driver of every node: hands in facts, carries out effects, and holds the node to its side of the contract.

use crate::disk::batch_bytes;
use crate::fate::{Purpose, link};
use crate::fault::Fault;
use crate::host::Ending;
use crate::limits::{IDLE_TICKS, OUTPUTS_PER_DRAIN, UNPERSISTED_SLACK};
use crate::net::EndState;
use crate::oracle::Check;
use crate::probe::Probe;
use crate::queue::{Event, Run};
use crate::world::World;
use peerlink_core::api::{Answer, Command, Gauge, Input, KeyRange, Output, Refusal};
use peerlink_core::ids::{BatchId, LoadId, StreamId};
use peerlink_core::limits::{BATCHES, LOADS, PAGE_BYTES, UNPERSISTED_BYTES};

impl World {
    // --- in --------------------------------------------------------------------------------------------------

    /// Hands a fact to the node of a host that is up.
    pub(crate) fn feed(&mut self, index: usize, input: &Input<'_>) {
        let host = &mut self.hosts[index];
        let name = host.name();
        let Some(process) = host.process.as_mut() else { return };
        let at = process.clock(self.now);
        self.tracer.input(self.now, index, name, at, input);
        process.ticked |= matches!(input, Input::Tick);
        process.mind.handle(at, input);
        if let Some(hostile) = process.mind.hostile() {
            let shown = hostile.take_shown();
            self.oracle.hostile_learned(shown);
        }
        self.after(index);
    }

    /// Hands a request to the node of a host that is up. `Err`: refused, and why.
    pub(crate) fn ask(&mut self, index: usize, command: Command) -> Result<(), Refusal> {
        let host = &mut self.hosts[index];
        let name = host.name();
        let Some(process) = host.process.as_mut() else { return Err(Refusal::Stopping) };
        let at = process.clock(self.now);
        self.tracer.command(self.now, index, name, at, &command);
        let copy = command.clone();
        let Some(node) = process.mind.node() else { return Err(Refusal::Stopping) };
        let answer = node.command(at, command);
        self.after(index);
        answer.map_err(|refused| {
            self.met.refused(refused.why);
            if refused.command != copy {
                self.fail(Check::Contract, "a refused command did not come back whole");
            }
            refused.why
        })
    }

    /// Drains now, or hands in something else first, as a driver does whose wake-up brought several facts.
    fn after(&mut self, index: usize) {
        let own = link(index, index);
        let defer = self.scenario.climate.defer;
        if defer > 0 && self.dice.chance(Purpose::Defer, own, defer) {
            let run = self.run_of(index);
            let Some(process) = self.hosts[index].process.as_mut() else { return };
            if !process.deferred {
                process.deferred = true;
                let later = self.now + self.dice.below(Purpose::Defer, own, 200);
                self.queue.push(later, Event::Drain { run });
            }
        } else {
            self.drain(index);
        }
    }

    // --- out -------------------------------------------------------------------------------------------------

    pub(crate) fn drain(&mut self, index: usize) {
        let mut count = 0u32;
        loop {
            let host = &mut self.hosts[index];
            let name = host.name();
            let Some(process) = host.process.as_mut() else { return };
            let at = process.clock(self.now);
            let Some(output) = process.mind.poll() else { break };
            count += 1;
            let pending = host.disk.pending() > 0;
            if let Some(doom) = host.doom.as_mut().filter(|doom| !doom.writing || pending) {
                doom.outputs = doom.outputs.saturating_sub(1);
                if doom.outputs == 0 {
                    let doom = *doom;
                    self.tracer.note(self.now, || format!("{name} does not get to carry out {output:?}"));
                    return self.crash(index, doom.ending, doom.kept, doom.down);
                }
            }
            self.tracer.output(self.now, index, name, at, &output);
            self.carry_out(index, output);
            if count > OUTPUTS_PER_DRAIN {
                self.fail(Check::Livelock, format!("{name} never stops talking"));
            }
            if self.is_wrong() {
                return;
            }
        }
        let Some(process) = self.hosts[index].process.as_mut() else { return };
        process.deferred = false;
        if let Some(node) = process.mind.node() {
            let duplicates = node.stats().duplicates;
            if std::mem::replace(&mut process.duplicates, duplicates) < duplicates {
                self.met.add(Probe::OfferedAgain);
            }
            let doubted = node.stats().doubts + node.stats().conflicts;
            if std::mem::replace(&mut process.doubted, doubted) < doubted {
                self.met.add(Probe::Doubted);
            }
        }
        let failed = process.store_failed.is_some();
        let over = process.mind.node().and_then(|node| node.held().find(|gauge| gauge.now > gauge.most));
        if let Some(Gauge { what, now, most }) = over {
            let name = self.hosts[index].name();
            self.fail(Check::Bounded, format!("{name} holds {now} {what}, and may {most}"));
        }
        if !failed && self.is_person(index) {
            let Some(process) = self.hosts[index].process.as_ref() else { return };
            let verdict = self.oracle.drained(index, process.told);
            self.judged(verdict);
        }
        self.arm(index, count > 0);
    }

    fn carry_out(&mut self, index: usize, output: Output) {
        match output {
            Output::Dial { stream, remote, timeout } => {
                self.check_dial(index, stream);
                self.dial(index, stream, remote, timeout);
            }
            Output::Write { stream, bytes } => self.write(index, stream, bytes),
            Output::Close { stream, flush } => self.close(index, stream, flush),
            Output::ReadReady { stream } => self.read_ready(index, stream),
            Output::Datagram { remote, ttl, bytes } => self.send_datagram(index, remote, ttl, bytes),
            Output::Persist(batch) => self.persist(index, batch),
            Output::Load { load, range } => self.load(index, load, range),
            Output::Event(event) => {
                self.met.event(&event);
                if self.is_person(index) {
                    self.noticed(index, &event);
                    let verdict = self.oracle.event(index, &event);
                    self.judged(verdict);
                }
                self.hear(index, event);
            }
        }
    }

    /// Dialled streams have even ids that only rise, so none is used twice.
    fn check_dial(&mut self, index: usize, stream: StreamId) {
        let Some(process) = self.hosts[index].process.as_mut() else { return };
        let rises = stream.0.is_multiple_of(2) && stream.0 > process.last_dial;
        process.last_dial = stream.0;
        if !rises {
            self.fail(Check::Contract, format!("stream {stream} was dialled a second time"));
        }
    }

    // --- time ------------------------------------------------------------------------------------------------

    /// Sets the timer of a node that was drained, and sees that it does not ask to be woken for nothing.
    fn arm(&mut self, index: usize, produced: bool) {
        let own = link(index, index);
        let (run, now, lateness) = (self.run_of(index), self.now, self.scenario.climate.lateness);
        let name = self.hosts[index].name();
        let Some(process) = self.hosts[index].process.as_mut() else { return };
        let Some(deadline) = process.mind.deadline() else {
            process.idle = (now, 0);
            return;
        };
        let due = process.when(deadline);
        // Only a tick is asked to bring something: what a refused request leaves due is still due.
        let ticked = std::mem::take(&mut process.ticked);
        let before = if process.idle.0 == now { process.idle.1 } else { 0 };
        let idles = if due > now || produced { 0 } else { before + u32::from(ticked) };
        process.idle = (now, idles);
        if idles > IDLE_TICKS {
            self.fail(
                Check::Livelock,
                format!("the deadline of {name} stays in the past and nothing comes of it"),
            );
            return;
        }
        let target = due.max(now);
        if process.armed.is_none_or(|armed| armed > target) {
            process.generation += 1;
            process.armed = Some(target);
            let generation = process.generation;
            let late = if target > now { self.dice.below(Purpose::Late, own, lateness + 1) } else { 0 };
            self.queue.push(target + late, Event::Timer { run, generation });
        }
    }

    pub(crate) fn timer(&mut self, run: Run, generation: u64) {
        if !self.is_current(run) {
            return;
        }
        let now = self.now;
        let Some(process) = self.hosts[run.host].process.as_mut() else { return };
        if process.generation != generation {
            return;
        }
        process.armed = None;
        let due = process.mind.deadline().is_some_and(|deadline| process.when(deadline) <= now);
        if due {
            self.feed(run.host, &Input::Tick);
        } else {
            // It was set for a deadline that has moved.
            self.arm(run.host, true);
        }
    }

    // --- storage ---------------------------------------------------------------------------------------------

    fn persist(&mut self, index: usize, batch: peerlink_core::api::Batch) {
        let name = self.hosts[index].name();
        let host = &mut self.hosts[index];
        let Some(process) = host.process.as_mut() else { return };
        let expected = BatchId(process.given.0 + 1);
        process.given = batch.id;
        let (failed, told) = (process.store_failed.is_some(), process.told_failed);
        let in_order = batch.id == expected && !batch.writes.is_empty();
        let bytes = host.disk.pending_bytes() + batch_bytes(&batch);
        let unconfirmed = process.given.0 - process.told.0;
        if !failed {
            host.disk.write(batch);
        }
        if !in_order {
            self.fail(
                Check::Contract,
                format!("{name} gave batch {expected} another number, or nothing to write"),
            );
        }
        if told {
            self.fail(Check::Contract, format!("{name} writes on although its store failed"));
        }
        if unconfirmed > BATCHES as u64 {
            self.fail(Check::Bounded, format!("{name} has {unconfirmed} batches under way"));
        }
        if bytes > UNPERSISTED_BYTES + UNPERSISTED_SLACK {
            self.fail(Check::Bounded, format!("{name} has {bytes} bytes under way to the disk"));
        }
        self.commit(index);
    }

    /// Begins a commit of everything that is written, if none is under way.
    fn commit(&mut self, index: usize) {
        let own = link(index, index);
        let run = self.run_of(index);
        let host = &mut self.hosts[index];
        let (Some(process), Some(upto)) = (host.process.as_mut(), host.disk.newest()) else { return };
        if std::mem::replace(&mut process.committing, true) {
            return;
        }
        let least = host.slow.map_or(self.scenario.climate.commit, |(_, commit)| commit);
        let takes = least + self.dice.below(Purpose::Commit, own, 2 * least + 1);
        if self.hosts[index].cutting.is_some() {
            self.queue.push(self.now + takes / 2, Event::Cut { run });
        }
        self.queue.push(self.now + takes, Event::Committed { run, upto });
    }

    pub(crate) fn committed(&mut self, run: Run, upto: BatchId) {
        if !self.is_current(run) {
            return;
        }
        let own = link(run.host, run.host);
        let host = &mut self.hosts[run.host];
        let full = host.full.map(|(_, kept, down)| (kept, down));
        let failing = full.or_else(|| host.failing.take());
        let (batches, failed) = match failing {
            None => (host.disk.sync(upto), false),
            Some((kept, _)) => {
                let pending = host.disk.pending();
                let count = (pending as u64 + 1) * kept / crate::fate::MILLION;
                let there = host.disk.cut(usize::try_from(count).unwrap_or(0));
                self.counts.add(match there.len() {
                    _ if full.is_some() => Fault::FullDisk,
                    0 => Fault::CommitFailed,
                    some if some < pending => Fault::CommitTorn,
                    _ => Fault::CommitFailedKept,
                });
                (there, true)
            }
        };
        if let Some(process) = host.process.as_mut() {
            process.committing = failed;
            process.store_failed = failing.map(|(_, down)| down);
            if !failed {
                process.synced = upto;
            }
        }
        if self.is_person(run.host) {
            let verdict = self.oracle.synced(run.host, self.lived(run.host), &batches);
            self.judged(verdict);
        }
        let told = self.now + self.dice.below(Purpose::Told, own, 100);
        self.queue.push(told, Event::Told { run, upto, failed });
        if !failed {
            self.answer_loads(run);
            self.commit(run.host);
        }
    }

    /// The power goes while a commit is under way: what it held is there in part, batch by batch.
    pub(crate) fn power_cut(&mut self, run: Run) {
        let ordered = if self.is_current(run) { self.hosts[run.host].cutting.take() } else { None };
        if let Some((kept, down)) = ordered {
            self.counts.add(Fault::CommitCut);
            self.crash(run.host, Ending::PowerLoss, kept, down);
        }
    }

    pub(crate) fn told(&mut self, run: Run, upto: BatchId, failed: bool) {
        if !self.is_current(run) {
            return;
        }
        if failed {
            return self.store_failed(run, upto);
        }
        if let Some(process) = self.hosts[run.host].process.as_mut() {
            process.told = process.told.max(upto);
        }
        self.feed(run.host, &Input::Persisted { batch: upto });
    }

    /// Nobody knows what is on disk: the program ends, and finds out at its next start.
    fn store_failed(&mut self, run: Run, upto: BatchId) {
        let down = self.hosts[run.host].process.as_mut().and_then(|process| {
            process.told_failed = true;
            process.store_failed
        });
        self.feed(run.host, &Input::PersistFailed { batch: upto });
        self.drain(run.host);
        if let (true, Some(down)) = (self.is_current(run), down) {
            self.crash(run.host, Ending::Failed, 0, down);
        }
    }

    fn load(&mut self, index: usize, load: LoadId, range: KeyRange) {
        let run = self.run_of(index);
        let name = self.hosts[index].name();
        let Some(process) = self.hosts[index].process.as_mut() else { return };
        let too_large = range.max_bytes as usize > PAGE_BYTES;
        let twice = process.open_loads.insert(load, range.clone()).is_some();
        let after = process.given;
        process.loads.push_back((load, range, after));
        let open = process.open_loads.len();
        if open > LOADS || too_large || twice {
            self.fail(
                Check::Bounded,
                format!("{name} has {open} loads under way, or asks for too large a page"),
            );
        }
        self.answer_loads(run);
    }

    /// Answers the questions whose batches are synced.
    fn answer_loads(&mut self, run: Run) {
        let own = link(run.host, run.host);
        loop {
            let Some(process) = self.hosts[run.host].process.as_mut() else { return };
            let synced = process.synced;
            let Some((load, _, _)) = process.loads.front().filter(|(_, _, after)| *after <= synced) else {
                return;
            };
            let load = *load;
            process.loads.pop_front();
            let takes = self.dice.between(Purpose::Load, own, 10, 500);
            self.queue.push(self.now + takes, Event::Loaded { run, load });
        }
    }

    pub(crate) fn loaded(&mut self, run: Run, load: LoadId) {
        if !self.is_current(run) {
            return;
        }
        let host = &mut self.hosts[run.host];
        let Some(range) = host.process.as_mut().and_then(|process| process.open_loads.remove(&load)) else {
            return;
        };
        self.met.add(Probe::Loaded);
        let answer: Answer = host.disk.load(&range);
        self.feed(run.host, &Input::Loaded { load, answer });
    }

    // --- streams that the node has ended ---------------------------------------------------------------------

    /// Reports a stream as over that the node itself had closed.
    pub(crate) fn over(&mut self, run: Run, stream: StreamId) {
        if self.is_current(run) {
            self.feed(run.host, &Input::StreamClosed { stream, why: peerlink_core::api::StreamEnd::Local });
        }
    }

    /// Forgets the stream of an end whose process is still the same, and gives its run.
    pub(crate) fn forget(&mut self, side: crate::queue::Side) -> Option<(Run, StreamId)> {
        let end = &mut self.conns[side.conn].ends[side.side];
        if end.state == EndState::Gone {
            return None;
        }
        end.state = EndState::Gone;
        let (run, stream) = (Run { host: end.host, incarnation: end.incarnation }, end.stream);
        if !self.is_current(run) {
            return None;
        }
        if let Some(process) = self.hosts[run.host].process.as_mut() {
            process.socks.remove(&stream);
        }
        Some((run, stream))
    }
}
