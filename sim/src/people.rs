//! The people: who write messages, insist on an answer, ask twice, rename each other, read, and block.
//!
//! A person believes nothing that its node did not say: a message whose `Send` was not answered before a crash is sent
//! again under the same id.

use crate::fate::{Dice, Purpose, link};
use crate::fault::Fault;
use crate::host::Ending;
use crate::limits::{ATTEMPT, FLOOD_BEGINS, MICROS_PER_MILLI, MICROS_PER_SECOND, SHORT_BYTES};
use crate::oracle::Check;
use crate::queue::Event as Coming;
use crate::regret::Regret;
use crate::tap::Tap;
use crate::world::World;
use bytes::Bytes;
use peerlink_core::api::{
    AttemptOutcome, Command, ContactChange, Event, Expire, PathKind, Refusal, SessionEnd,
};
use peerlink_core::bounded::List;
use peerlink_core::ids::{CallerId, MessageRef, Name, PeerId};
use peerlink_core::limits::BODY_BYTES;
use peerlink_core::ticket::{Ticket, TicketSecret};
use peerlink_core::time::{Duration, WallClock};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What every message, petname and nickname holds, so that a reader on the path can search for it.
const TEXT_MARK: &str = "tExT-mArK-7Qz4";
const PETNAME_MARK: &str = "pEt-mArK-3Kx9";
const NICKNAME_MARK: &str = "nIcK-mArK-5Vw2";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Not asked for, or not answered before a crash, or refused for now.
    Wanted,
    Asked,
    Queued(MessageRef),
    /// The store does not know it any more, and was rolled back. If anybody has it, it comes back by itself.
    Lost,
    /// Deleted with its conversation, together with the id under which it could be asked for.
    Deleted,
}

#[derive(Debug, Clone)]
struct Draft {
    to: usize,
    body: Bytes,
    expire: Expire,
    state: State,
    /// Asked for at least once: it may be stored.
    tried: bool,
    /// How often it was asked for without an answer yet.
    asking: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meeting {
    Wanted,
    Asked,
    Done,
}

/// How far a person has come with another.
#[derive(Debug, Clone)]
struct Acquaintance {
    peer: PeerId,
    /// Somebody else, and not one of two that are the same.
    is_other: bool,
    secret: TicketSecret,
    /// Who has the lower number invites, the other adds.
    meeting: Meeting,
    is_contact: bool,
    /// Asked for its removal, and did not hear that it is done: what is heard before that is old.
    removing: bool,
    received: u64,
    /// What came of it, oldest first.
    came: Vec<MessageRef>,
    blocked_until: Option<u64>,
    renamed: u32,
}

#[derive(Debug, Clone)]
pub(crate) struct Person {
    index: usize,
    /// People in good faith.
    honest: usize,
    others: Vec<Acquaintance>,
    drafts: BTreeMap<CallerId, Draft>,
    order: Vec<CallerId>,
    wanted: VecDeque<CallerId>,
    /// What it thinks better of, until that is answered.
    pub(crate) regrets: Vec<Regret>,
    written: u32,
    /// It was told that its profile runs twice; when it last wrote because it was not.
    pub(crate) knows_of_twin: bool,
    pub(crate) wrote_at: u64,
}

impl Person {
    pub(crate) fn new(
        index: usize,
        peers: &[PeerId],
        honest: usize,
        twins: &[Option<usize>],
        dice: &mut Dice,
    ) -> Self {
        let mut others = Vec::new();
        for (other, peer) in peers.iter().enumerate() {
            // Both sides of a pair draw the same secret: the link is that of the lower number to the higher.
            let pair = link(index.min(other), index.max(other));
            let mut secret = [0; 16];
            secret.copy_from_slice(&dice.bytes(Purpose::Seed, pair)[..16]);
            let is_same =
                twins.get(index) == Some(&Some(other)) || twins.get(other).is_some_and(Option::is_some);
            let is_other = other != index && !is_same;
            others.push(Acquaintance {
                peer: *peer,
                is_other,
                secret: TicketSecret(secret),
                meeting: if is_other { Meeting::Wanted } else { Meeting::Done },
                is_contact: false,
                removing: false,
                received: 0,
                came: Vec::new(),
                blocked_until: None,
                renamed: 0,
            });
        }
        Self {
            index,
            honest,
            others,
            drafts: BTreeMap::new(),
            order: Vec::new(),
            wanted: VecDeque::new(),
            regrets: Vec::new(),
            written: 0,
            knows_of_twin: false,
            wrote_at: 0,
        }
    }

    /// The person before a copy of its store, which knows these of its messages.
    pub(crate) fn twin(&self, index: usize, known: &BTreeSet<CallerId>) -> Self {
        let mut twin = Self { index, regrets: Vec::new(), knows_of_twin: false, ..self.clone() };
        twin.crashed();
        twin.drafts.retain(|caller, draft| known.contains(caller) && matches!(draft.state, State::Queued(_)));
        let drafts = &twin.drafts;
        twin.order.retain(|caller| drafts.contains_key(caller));
        twin.wanted.clear();
        twin
    }

    pub(crate) fn has_met_everybody(&self) -> bool {
        let met =
            |other: &Acquaintance| !other.is_other || (other.meeting == Meeting::Done && other.is_contact);
        self.others.iter().all(met)
    }

    pub(crate) fn all_others(&self) -> impl Iterator<Item = usize> {
        let others = self.others.iter().take(self.honest).enumerate().filter(|(_, other)| other.is_other);
        others.map(|(at, _)| at)
    }

    /// Whom it can write to.
    pub(crate) fn others(&self) -> Vec<usize> {
        let others = self.others.iter().enumerate().filter(|(_, other)| other.is_other && other.is_contact);
        others.map(|(at, _)| at).collect()
    }

    /// The secret of the ticket between this person and another.
    pub(crate) fn ticket_secret(&self, other: usize) -> [u8; 16] {
        self.others[other].secret.0
    }

    /// What nobody on the way may see.
    pub(crate) fn mark(tap: &mut Tap) {
        tap.search_for("the text of a message", TEXT_MARK.as_bytes());
        tap.search_for("a petname", PETNAME_MARK.as_bytes());
        tap.search_for("a nickname", NICKNAME_MARK.as_bytes());
    }

    /// Everything that was not answered is asked again.
    pub(crate) fn crashed(&mut self) {
        self.regrets.iter_mut().for_each(|regret| regret.asked = false);
        for (caller, draft) in &mut self.drafts {
            draft.asking = 0;
            if draft.state == State::Asked {
                draft.state = State::Wanted;
                self.wanted.push_back(*caller);
            }
        }
        for other in &mut self.others {
            other.removing = false;
            if other.meeting == Meeting::Asked {
                other.meeting = Meeting::Wanted;
            }
        }
    }

    /// At a new start it looks into its store who its contacts are.
    pub(crate) fn recall(&mut self, is_contact: impl Fn(&PeerId) -> bool) {
        for other in self.others.iter_mut().filter(|other| other.is_other && is_contact(&other.peer)) {
            other.is_contact = true;
            other.meeting = Meeting::Done;
        }
    }

    /// Its store is an older one: these messages it does not know.
    fn forget_messages(&mut self, lost: &[CallerId]) {
        for caller in lost {
            if let Some(draft) = self.drafts.get_mut(caller) {
                draft.state = State::Lost;
            }
        }
    }

    /// The messages to this contact that are queued, oldest first; those that came of it.
    pub(crate) fn queued(&self, to: usize) -> Vec<MessageRef> {
        let queued = |caller| match self.drafts.get(caller) {
            Some(Draft { to: other, state: State::Queued(message), .. }) if *other == to => Some(*message),
            _ => None,
        };
        self.order.iter().filter_map(queued).collect()
    }

    pub(crate) fn came(&self, from: usize) -> &[MessageRef] {
        &self.others[from].came
    }

    /// Whether it has no answer yet to what it wrote to this contact, and may have to ask again for it by its id.
    pub(crate) fn is_asking(&self, to: usize) -> bool {
        let open = |draft: &Draft| {
            draft.asking > 0 || (draft.tried && matches!(draft.state, State::Wanted | State::Asked))
        };
        self.drafts.values().any(|draft| draft.to == to && open(draft))
    }

    /// Everything that was written to this contact goes, with the ids by which it could be asked for.
    pub(crate) fn delete_all(&mut self, with: usize) {
        for draft in self.drafts.values_mut().filter(|draft| draft.to == with) {
            if matches!(draft.state, State::Queued(_)) {
                draft.state = State::Deleted;
            }
        }
        self.others[with].came.clear();
    }

    pub(crate) fn block(&mut self, contact: usize, until: u64) {
        self.others[contact].blocked_until = Some(until);
    }

    /// What is not answered yet.
    pub(crate) fn waits_for(&self) -> Option<String> {
        let done = |draft: &Draft| matches!(draft.state, State::Queued(_) | State::Lost | State::Deleted);
        let (open, index) = (|draft: &&Draft| !done(draft), self.index);
        let drafts = self.drafts.values().filter(open).count();
        if drafts > 0 {
            return Some(format!("{drafts} messages of person {index} are not queued"));
        }
        let met = |(at, other): (usize, &Acquaintance)| {
            !other.is_other || at >= self.honest || (other.meeting == Meeting::Done && other.is_contact)
        };
        if !self.others.iter().enumerate().all(met) {
            return Some(format!("person {index} has not met everybody"));
        }
        if let Some(regret) = self.regrets.first() {
            return Some(format!("person {index} is not told what became of {regret:?}"));
        }
        let blocked = self.others.iter().take(self.honest).any(|other| other.blocked_until.is_some());
        blocked.then(|| format!("person {index} blocks somebody"))
    }
}

fn name(mark: &str, index: usize, number: u32) -> Option<Name> {
    Name::new(&format!("{mark}-{index}-{number}")).ok()
}

impl World {
    /// What a person learns from its node.
    pub(crate) fn hear(&mut self, index: usize, event: Event) {
        if !self.is_person(index) {
            return self.hear_relay(index, &event);
        }
        let person = &mut self.people[index];
        match event {
            Event::Queued { caller, message, .. } => self.queued(index, caller, message),
            Event::SecondCopy { .. } => person.knows_of_twin = true,
            Event::Reissued { old, new, .. } => {
                for draft in person.drafts.values_mut().filter(|draft| draft.state == State::Queued(old)) {
                    draft.state = State::Queued(new);
                }
            }
            Event::SendFailed { caller, .. } => {
                let Some(draft) = person.drafts.get_mut(&caller) else { return };
                draft.asking = draft.asking.saturating_sub(1);
                if draft.state == State::Asked {
                    draft.state = State::Wanted;
                    person.wanted.push_back(caller);
                }
            }
            Event::Received { peer, ordinal, message, .. } => {
                if let Some(other) = person.others.iter_mut().find(|other| other.peer == peer) {
                    other.received = ordinal;
                    other.came.push(message);
                }
            }
            Event::Dropped { message, .. } | Event::DropFailed { message, .. } => {
                person.regrets.retain(|regret| !regret.is_about(&message));
            }
            Event::ConversationDeleted { peer } => {
                if let Some(with) = person.others.iter().position(|other| other.peer == peer) {
                    person
                        .regrets
                        .retain(|regret| !(regret.with == with && regret.asked && regret.is_about_all()));
                }
            }
            Event::InviteStored { secret } => {
                if let Some(at) = person.others.iter().position(|other| other.secret == secret) {
                    person.others[at].meeting = Meeting::Done;
                }
            }
            Event::ContactChanged { peer, change } => {
                let Some(other) = person.others.iter_mut().find(|other| other.peer == peer) else { return };
                match change {
                    ContactChange::Removed => other.removing = false,
                    ContactChange::Added | ContactChange::Established if other.removing => {}
                    ContactChange::Added | ContactChange::Established => {
                        other.is_contact = true;
                        other.meeting = Meeting::Done;
                    }
                    ContactChange::Refused(why) => {
                        self.fail(Check::Liveness, format!("a good ticket was refused: {why:?}"));
                    }
                    ContactChange::Renamed
                    | ContactChange::Unblocked
                    | ContactChange::Blocked
                    | ContactChange::Verified
                    | ContactChange::Unverified
                    | ContactChange::Record
                    | ContactChange::Read => {}
                }
            }
            Event::Attempt { peer, remote, path, outcome: AttemptOutcome::HandshakeFailed } => {
                // Of datagrams nobody says that there is nobody.
                let there = self.homes.is_none() && self.receiver(remote).is_some();
                if path == PathKind::Stream || (path == PathKind::Datagram && there) {
                    self.turned_away(index, &peer);
                }
            }
            Event::Ready
            | Event::Gone { .. }
            | Event::RolledBack { .. }
            | Event::Recovered { .. }
            | Event::Expired { .. }
            | Event::Delivered { .. }
            | Event::Gap { .. }
            | Event::GapFilled { .. }
            | Event::ProfileChanged
            | Event::PathChanged { .. }
            | Event::RelayChanged { .. }
            | Event::PortMapped { .. }
            | Event::Observed { .. }
            | Event::RoundTrip { .. }
            | Event::Attempt { .. }
            | Event::NextAttempt { .. }
            | Event::Rejected { .. }
            | Event::StoreFailed => {}
            Event::Connected { peer, .. } => self.stands_with(index, peer),
            Event::Disconnected { peer, why } => self.parted(index, &peer, why),
            Event::Stopped => self.stopped(index),
            Event::Misbehaved { peer, what } => self.called_misbehaved(index, &peer, &what),
        }
    }

    /// What a person wrote is on disk, under a name that stays.
    fn queued(&mut self, index: usize, caller: CallerId, message: MessageRef) {
        let Some(draft) = self.people[index].drafts.get_mut(&caller) else {
            return self.fail(Check::ExactlyOnce, "a message was queued that nobody wrote");
        };
        if let State::Queued(before) = draft.state
            && before != message
            && !self.oracle.has_new_names()
        {
            let what = format!("message {caller} is {before}, and now {message}");
            return self.fail(Check::ExactlyOnce, what);
        }
        draft.state = State::Queued(message);
        draft.asking = draft.asking.saturating_sub(1);
    }

    /// A node says that a peer misbehaves.
    fn called_misbehaved(&mut self, index: usize, peer: &PeerId, what: &str) {
        if self.oracle.is_hostile(peer) {
            return;
        }
        let name = self.hosts[index].name();
        let other = self.hosts.iter().position(|host| host.peer == *peer).unwrap_or(index);
        // A peer is asked to answer only for what it said: what was altered on the way must not get that far.
        let check = if what.contains("credit") {
            // What its recipient has no room for was not to be sent.
            Check::Bounded
        } else if self.is_attacked(index, other) || self.is_touched(index, other) {
            Check::Authentic
        } else {
            Check::Contract
        };
        self.fail(check, format!("{name} calls an honest peer misbehaved: {what}"));
    }

    /// A session ended. For bytes that were not as they should be only where somebody may have touched them.
    fn parted(&mut self, index: usize, peer: &PeerId, why: SessionEnd) {
        let other = self.hosts.iter().position(|host| host.peer == *peer).unwrap_or(index);
        let touched = self.is_attacked(index, other) || self.hosts[other].is_hostile;
        if why == SessionEnd::Misbehaved && !touched {
            let name = self.hosts[index].name();
            self.fail(Check::Contract, format!("{name} ends a session for bytes that nobody touched"));
        }
        if !self.sessions_alternate() {
            self.must_last(index, peer, why);
        }
    }

    /// A handshake came to nothing. Once the faults are over that has no good reason: whatever sessions the other side
    /// still believes in, it must take a new one from a contact.
    fn turned_away(&mut self, index: usize, peer: &PeerId) {
        let Some(other) = self.people.iter().position(|person| self.hosts[person.index].peer == *peer) else {
            return;
        };
        // Longer than an attempt takes: it began after the faults had ended, and nobody has restarted since.
        let began = self.now.saturating_sub(ATTEMPT);
        let steady = |at: usize| {
            self.hosts[at]
                .process
                .as_ref()
                .is_some_and(|process| process.boot < began && process.stopping.is_none())
        };
        let wanted = self.oracle.is_blocked(other, &self.hosts[index].peer) == Some(false);
        if began > self.scenario.healed && steady(index) && steady(other) && wanted {
            let (name, to) = (self.hosts[index].name(), self.hosts[other].name());
            self.fail(Check::Liveness, format!("{to} turns {name} away, and nothing is wrong any more"));
        }
    }

    /// A store was rolled back: these messages of its person are not in it, and perhaps not even its contacts.
    pub(crate) fn forget_messages(&mut self, index: usize, lost: &[CallerId]) {
        self.people[index].forget_messages(lost);
        for other in 0..self.acquaintances {
            let peer = self.hosts[other].peer;
            let is_other = self.people[index].others[other].is_other;
            if !is_other || self.oracle.is_blocked(index, &peer).is_some() {
                continue;
            }
            // They have to meet again: who invites does, and who was invited adds the other once more.
            let acquaintance = &mut self.people[index].others[other];
            (acquaintance.is_contact, acquaintance.meeting) = (false, Meeting::Wanted);
            if let Some(adder) = self.people.get_mut(index.max(other)) {
                adder.others[index.min(other)].meeting = Meeting::Wanted;
            }
        }
    }

    pub(crate) fn stopped(&mut self, index: usize) {
        let down = self.hosts[index].process.as_ref().and_then(|process| process.stopping);
        match down {
            Some(down) => self.crash(index, Ending::Stopped, 0, down),
            None => self.fail(Check::Contract, "a node stopped unasked"),
        }
    }

    /// A person does what is due: first what it was not answered, then something new.
    pub(crate) fn act(&mut self, index: usize) {
        let own = link(index, index);
        if self.hosts[index].is_up() {
            self.use_relays(index);
            self.meet(index);
            self.let_in(index);
            self.insist(index);
            self.undo(index);
            self.look_for_overdue(index);
            self.write_on(index);
            let person = &self.people[index];
            let begun = !self.scenario.flood || self.now >= FLOOD_BEGINS;
            if !self.healed && begun && person.written < self.scenario.messages {
                self.something_new(index);
            }
        }
        let pace = match self.dice.below(Purpose::Pace, own, 10) {
            _ if self.scenario.meets > 0 => self.promptly(index),
            _ if self.healed => {
                self.dice.between(Purpose::Pace, own, 100 * MICROS_PER_MILLI, MICROS_PER_SECOND)
            }
            _ if self.scenario.flood => self.dice.below(Purpose::Pace, own, MICROS_PER_MILLI),
            0..=4 => self.dice.below(Purpose::Pace, own, 2 * MICROS_PER_MILLI),
            5..=8 => self.dice.below(Purpose::Pace, own, 500 * MICROS_PER_MILLI),
            _ => self.dice.below(Purpose::Pace, own, 5 * MICROS_PER_SECOND),
        };
        self.queue.push(self.now + 1 + pace, Coming::Act { host: index });
    }

    /// Until people act again who lose no time when they meet.
    fn promptly(&self, index: usize) -> u64 {
        let usual = 100 * MICROS_PER_MILLI;
        let process = self.hosts[index].process.as_ref();
        if process.is_none_or(|process| self.now < process.boot + MICROS_PER_SECOND) {
            return MICROS_PER_MILLI / 10;
        }
        match self.scenario.meets.checked_sub(self.now) {
            Some(left) if left > 0 => left.saturating_sub(1).min(usual),
            _ if self.now < self.scenario.meets + MICROS_PER_SECOND => MICROS_PER_MILLI / 10,
            _ => usual,
        }
    }

    /// Invites and adds, until it is said to be durable.
    fn meet(&mut self, index: usize) {
        for other in 0..self.acquaintances {
            let acquaintance = &self.people[index].others[other];
            if acquaintance.meeting != Meeting::Wanted || acquaintance.removing {
                continue;
            }
            let (secret, peer) = {
                let lower = &self.people[index.min(other)].others[index.max(other)];
                (lower.secret, self.hosts[other].peer)
            };
            // Nobody's clock reaches this: expiry is a scenario of its own.
            let expires = WallClock(u64::from(u32::MAX) * 60_000);
            let command = if index < other {
                Command::Invite { secret, expires }
            } else if self.now < self.scenario.meets {
                continue;
            } else if self.people.get(other).is_some_and(|other| other.others[index].meeting == Meeting::Done)
            {
                let Some(petname) = name(PETNAME_MARK, other, 0) else { return };
                let nickname = name(NICKNAME_MARK, other, 0);
                let addresses = List::of([self.hosts[other].address()]);
                Command::Add {
                    ticket: Box::new(Ticket {
                        peer,
                        secret,
                        nickname,
                        expires,
                        addresses,
                        relays: self.home_relays(other),
                    }),
                    petname,
                }
            } else {
                continue;
            };
            self.people[index].others[other].meeting = Meeting::Asked;
            if self.ask(index, command).is_err() {
                self.people[index].others[other].meeting = Meeting::Wanted;
            }
        }
    }

    /// Blocks, and lets in again whom it blocked long enough, until the store says so.
    fn let_in(&mut self, index: usize) {
        for other in 0..self.acquaintances {
            let acquaintance = &self.people[index].others[other];
            if !acquaintance.is_other {
                continue;
            }
            let (peer, until) = (acquaintance.peer, acquaintance.blocked_until);
            let Some(is_blocked) = self.oracle.is_blocked(index, &peer) else {
                self.people[index].others[other].blocked_until = None;
                continue;
            };
            let blocked = !self.healed && until.is_some_and(|until| until > self.now);
            if blocked != is_blocked {
                let _asked_again_if_refused = self.ask(index, Command::Block { peer, blocked });
            } else if !blocked {
                self.people[index].others[other].blocked_until = None;
            }
        }
    }

    /// Sends again what is not answered.
    fn insist(&mut self, index: usize) {
        for _ in 0..self.people[index].wanted.len() {
            let Some(caller) = self.people[index].wanted.pop_front() else { return };
            let Some(draft) = self.people[index].drafts.get(&caller) else { continue };
            if draft.state != State::Wanted {
                continue;
            }
            if !self.people[index].others[draft.to].is_contact {
                self.people[index].wanted.push_back(caller);
                continue;
            }
            // What was never taken cannot be stored.
            let fresh = !draft.tried;
            self.send_draft(index, caller, fresh);
            if self.people[index].drafts.get(&caller).is_some_and(|draft| draft.state == State::Wanted) {
                return;
            }
        }
    }

    fn send_draft(&mut self, index: usize, caller: CallerId, fresh: bool) {
        let person = &mut self.people[index];
        let Some(draft) = person.drafts.get_mut(&caller) else { return };
        let (peer, body, expire) = (person.others[draft.to].peer, draft.body.clone(), draft.expire);
        let (before, tried) = (draft.state, draft.tried);
        if before == State::Wanted {
            draft.state = State::Asked;
        }
        draft.tried = true;
        draft.asking += 1;
        match self.ask(index, Command::Send { peer, caller, fresh, expire, body }) {
            Ok(()) => {}
            Err(Refusal::Busy | Refusal::QueueFull | Refusal::StoreFailed | Refusal::Stopping) => {
                let person = &mut self.people[index];
                let Some(draft) = person.drafts.get_mut(&caller) else { return };
                draft.asking = draft.asking.saturating_sub(1);
                if draft.state == State::Asked && before == State::Wanted {
                    draft.state = State::Wanted;
                    draft.tried = tried;
                    person.wanted.push_back(caller);
                }
            }
            Err(why) => self.fail(Check::Liveness, format!("a good message was refused: {why}")),
        }
    }

    fn something_new(&mut self, index: usize) {
        let own = link(index, index);
        let count = self.acquaintances as u64;
        let other = self.dice.below(Purpose::Act, own, count) as usize;
        let acquaintance = &self.people[index].others[other];
        if !acquaintance.is_other || !acquaintance.is_contact {
            return;
        }
        let (peer, received) = (acquaintance.peer, acquaintance.received);
        let repeat = self.scenario.repeat;
        if repeat > 0 && self.dice.chance(Purpose::Act, own, repeat) && !self.people[index].order.is_empty() {
            self.counts.add(Fault::RepeatedSend);
            let written = self.people[index].order.len() as u64;
            let at = self.dice.below(Purpose::Act, own, written) as usize;
            let person = &self.people[index];
            let caller = person.order[at];
            let gone = |draft: &Draft| matches!(draft.state, State::Lost | State::Deleted);
            if person.drafts.get(&caller).is_some_and(gone) {
                return;
            }
            let to = person.drafts.get(&caller).map(|draft| &person.others[draft.to]);
            if to.is_some_and(|to| to.is_contact) {
                self.send_draft(index, caller, false);
            }
            return;
        }
        if self.scenario.lively && self.dice.chance(Purpose::Act, own, 100_000) {
            return self.something_else(index, other, peer, received);
        }
        let long = self.scenario.long;
        let bytes = if long > 0 && self.dice.chance(Purpose::Size, own, long) {
            self.dice.between(Purpose::Size, own, SHORT_BYTES, BODY_BYTES as u64)
        } else {
            self.dice.between(Purpose::Size, own, 1, SHORT_BYTES)
        };
        self.write_message(index, other, usize::try_from(bytes).unwrap_or(0));
    }

    /// Opens every conversation, so that its contact is tried at once.
    pub(crate) fn look(&mut self, index: usize) {
        for other in 0..self.acquaintances {
            let (peer, is_other) = (self.hosts[other].peer, self.people[index].others[other].is_other);
            if is_other && self.oracle.is_blocked(index, &peer).is_some() {
                let _nothing_to_look_at = self.ask(index, Command::Reach { peer });
            }
        }
    }

    /// Not everything that people do is writing.
    fn something_else(&mut self, index: usize, other: usize, peer: PeerId, received: u64) {
        let own = link(index, index);
        self.people[index].others[other].renamed += 1;
        let number = self.people[index].others[other].renamed;
        let command = match self.dice.below(Purpose::Act, own, 6) {
            // Who added may remove, and add again by the same ticket.
            5 if index > other => {
                self.people[index].others[other].meeting = Meeting::Wanted;
                self.people[index].others[other].is_contact = false;
                self.people[index].others[other].removing = true;
                Some(Command::Remove { peer })
            }
            5 => Some(Command::Verify { peer, verified: self.dice.chance(Purpose::Act, own, 500_000) }),
            0 => name(PETNAME_MARK, other, number).map(|petname| Command::Rename { peer, petname }),
            1 => Some(Command::SetNickname { nickname: name(NICKNAME_MARK, index, number) }),
            2 => Some(Command::Reach { peer }),
            3 => {
                let lasts = self.dice.below(Purpose::Act, own, 5 * MICROS_PER_SECOND);
                self.people[index].block(other, self.now + lasts);
                None
            }
            _ => Some(Command::MarkRead { peer, ordinal: self.dice.between(Purpose::Act, own, 0, received) }),
        };
        if let Some(command) = command {
            match self.ask(index, command) {
                Ok(()) => {}
                Err(Refusal::Busy | Refusal::StoreFailed | Refusal::Stopping) => {
                    self.people[index].others[other].removing = false;
                }
                Err(why) => self.fail(Check::Contract, format!("a good request was refused: {why}")),
            }
        }
    }

    /// How long a new message is to be tried.
    fn expire(&mut self, index: usize, caller: CallerId) -> Expire {
        let (share, own) = (self.scenario.expire, link(index, index));
        if share == 0 || !self.dice.chance(Purpose::Expiry, own, share) {
            return Expire::Default;
        }
        self.counts.add(Fault::Expiring);
        // From a tenth of a second to about a minute, short ones as often as long ones.
        let bits = self.dice.below(Purpose::Expiry, own, 9);
        let after_ms = self.dice.between(Purpose::Expiry, own, 100 << bits, 200 << bits);
        let since = self.lived(index);
        self.oracle.expires(index, caller, since, after_ms);
        Expire::After(Duration::from_millis(after_ms))
    }

    /// What this person's node runs for so long that its time is over must not wait any more. Only the time counts in which
    /// nothing was wrong with it.
    fn look_for_overdue(&mut self, index: usize) {
        let (now, host) = (self.now, &mut self.hosts[index]);
        let Some(process) = &host.process else { return };
        let trouble = host.paused_until > now
            || host.slow.is_some()
            || host.full.is_some()
            || process.stopping.is_some()
            || process.store_failed.is_some();
        host.troubled = if trouble { now } else { host.troubled.max(process.boot).max(host.paused_until) };
        let calm = now.saturating_sub(host.troubled) / 1000;
        let verdict = self.oracle.check_overdue(index, host.lived_ms(now), calm);
        self.judged(verdict);
    }

    /// Writes a new message of about this many bytes and asks for it to be sent.
    pub(crate) fn write_message(&mut self, index: usize, to: usize, bytes: usize) {
        let person = &mut self.people[index];
        person.written += 1;
        let number = person.order.len() as u64;
        let mut caller = [0; 16];
        caller.copy_from_slice(&self.dice.bytes(Purpose::Seed, link(index, index))[..16]);
        let caller = CallerId(caller);
        let head = format!("{TEXT_MARK} {index}>{to} {number} ");
        let mut body = head.into_bytes();
        // Text that differs from place to place, so that chunks in the wrong order are noticed.
        while body.len() < bytes {
            body.extend_from_slice(format!("{:x}·", body.len()).as_bytes());
        }
        let cut = (0..=bytes.max(TEXT_MARK.len()).min(body.len()))
            .rev()
            .find(|at| std::str::from_utf8(&body[..*at]).is_ok());
        body.truncate(cut.unwrap_or(0));
        let body = Bytes::from(body);
        self.oracle.wrote(index, caller, &body);
        let expire = self.expire(index, caller);
        let person = &mut self.people[index];
        person.order.push(caller);
        person
            .drafts
            .insert(caller, Draft { to, body, expire, state: State::Wanted, tried: false, asking: 0 });
        if self.hosts[index].is_up() && person.others[to].is_contact {
            self.send_draft(index, caller, true);
        } else {
            self.people[index].wanted.push_back(caller);
        }
    }
}
