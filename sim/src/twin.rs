//! A profile that runs twice: a second process on a copy of a disk whose own process goes on, both with the same contacts.
//!
//! Neither knows of the other; they know what their contacts give back. Each person writes on until its node tells it of
//! the second copy.

use crate::fate::{Purpose, link};
use crate::fault::Fault;
use crate::limits::{MICROS_PER_SECOND, TWIN_BYTES, TWIN_WRITES};
use crate::queue::Event;
use crate::world::World;
use peerlink_core::api::Command;

impl World {
    /// The disk of the host is copied as it is now, and another process starts from the copy.
    pub(crate) fn begin_twin(&mut self, host: usize) {
        let twin = self.scenario.hosts;
        let absent = self.hosts.get(twin).is_some_and(|other| other.absent && other.twin_of == Some(host));
        // Whom it does not know yet, or not where he is, it will not know: that would be another story.
        let others: Vec<_> = self.people[host].all_others().collect();
        let finds = others.iter().all(|other| self.oracle.knows_where(host, &self.hosts[*other].peer));
        if !absent || !self.people[host].has_met_everybody() || !finds {
            return;
        }
        self.counts.add(Fault::Twin);
        let backup = self.hosts[host].disk.backup();
        self.hosts[twin].disk.bring_back(&backup);
        self.hosts[twin].absent = false;
        match self.oracle.twinned(host, twin, &self.hosts[twin].disk) {
            Ok(known) => self.people[twin] = self.people[host].twin(twin, &known),
            Err(violation) => return self.wrong(violation),
        }
        self.tracer.note(self.now, || "there are two of it from now on".into());
        self.disturb(u64::MAX);
        self.queue.push(self.now + 1, Event::Boot { host: twin });
        self.queue.push(self.now + 2, Event::Act { host: twin });
    }

    /// Whether every other person is a contact, as far as is synced.
    pub(crate) fn knows_everybody(&self, host: usize) -> bool {
        let known = |other: usize| self.oracle.is_blocked(host, &self.hosts[other].peer).is_some();
        self.people[host].all_others().all(known)
    }

    fn has_twins(&self) -> bool {
        self.hosts.iter().any(|host| host.twin_of.is_some() && !host.absent)
    }

    /// Which of the two was not told yet that there is another.
    pub(crate) fn waits_for_twins(&self) -> Option<String> {
        let untold = |index: usize| self.is_one_of_two(index) && !self.people[index].knows_of_twin;
        let untold = (0..self.people.len()).find(|index| untold(*index))?;
        Some(format!("{} is not told that its profile runs twice", self.hosts[untold].name()))
    }

    fn is_one_of_two(&self, index: usize) -> bool {
        let twin = self.hosts.iter().find(|host| host.twin_of.is_some() && !host.absent);
        twin.is_some_and(|twin| twin.index == index || twin.twin_of == Some(index))
    }

    /// Writes now and then until both are told: what nobody writes in nobody notices.
    pub(crate) fn write_on(&mut self, index: usize) {
        let own = link(index, index);
        let every = TWIN_WRITES * MICROS_PER_SECOND;
        if !self.healed
            || self.waits_for_twins().is_none()
            || !self.is_one_of_two(index)
            || self.now < self.people[index].wrote_at + every
        {
            return;
        }
        self.people[index].wrote_at = self.now + self.dice.below(Purpose::Twin, own, every);
        for to in self.people[index].others() {
            let peer = self.hosts[to].peer;
            self.write_message(index, to, TWIN_BYTES);
            let _or_later = self.ask(index, Command::Reach { peer });
        }
    }

    /// A session may end because another process of the same profile began one.
    pub(crate) fn sessions_alternate(&self) -> bool {
        self.has_twins()
    }
}
