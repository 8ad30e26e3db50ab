//! The judge: sees the border of every node, the synced disks and what people wrote, and holds the delivery contract
//! against it after every step.

mod display;
mod ledger;
mod past;

use crate::disk::Disk;
use crate::hostile::Shown;
use crate::regret::Wish;
use display::Display;
use ledger::{Ledger, News, Place};
use past::Expiring;
use peerlink_core::api::{Batch, Event, Refusal};
use peerlink_core::ids::{BatchId, CallerId, EntryHash, Epoch, MessageRef, PeerId};
use peerlink_core::record::{ContactState, Dropped, Kind, OrderKey};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// What was being checked when something was found wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// Point 1 of the delivery contract: queued is durable.
    QueuedIsDurable,
    /// Point 2: acknowledged is durable.
    AcknowledgedIsDurable,
    /// Point 3: exactly once, in order, a gap is shown as a gap.
    ExactlyOnce,
    InOrder,
    NothingHidden,
    /// Point 4: evidence only grows.
    EvidenceGrows,
    /// Point 5: the sender keeps a message until it is acknowledged.
    SenderKeeps,
    /// Point 6: nobody on the way can read; nothing is shown that nobody wrote.
    Secrecy,
    Authentic,
    /// No key meets a nonce twice.
    NonceOnce,
    /// Who did not show that he is where he says is not sent three times more than he sent.
    Amplification,
    /// A session whose ends live, and whose way works, lasts, whatever somebody on the way does.
    Lasting,
    /// Point 8: everything is bounded.
    Bounded,
    /// The contract between a node and its driver.
    Contract,
    /// What was stored is what is restored.
    Restore,
    /// After the faults everything is delivered in time.
    Liveness,
    Livelock,
    /// Both histories are equal in the end.
    Histories,
    /// The same seed gives the same trace.
    Determinism,
    /// Something broke in a way that nobody thought of.
    Panic,
}

/// A check that failed, and what it saw.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    pub check: Check,
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.check, self.what)
    }
}

type Verdict = Result<(), Violation>;

fn wrong(check: Check, what: impl Into<String>) -> Violation {
    Violation { check, what: what.into() }
}

/// What the oracle knows of one host.
#[derive(Debug, Clone)]
struct Witness {
    peer: PeerId,
    /// It has not begun.
    absent: bool,
    ledger: Ledger,
    display: Display,
    /// What people wrote, by the id they gave it.
    wrote: BTreeMap<CallerId, [u8; 32]>,
    /// What `Queued` said: it stays.
    queued: BTreeMap<CallerId, (PeerId, MessageRef)>,
    /// What was stored once and was not any more after a rollback: it may come back, as what it was.
    lost: BTreeMap<CallerId, PeerId>,
    rollbacks: u64,
    /// Everything that was ever stored here, in worlds with rollbacks: own entries with their ids, and others'. Under one
    /// number there may have been several.
    wrote_ever: BTreeMap<(PeerId, Epoch, u64, EntryHash), Option<CallerId>>,
    held_ever: BTreeSet<(PeerId, Epoch, u64, EntryHash)>,
    /// Messages of others that were shown to this person as new, by the ids that their authors gave them.
    shown: BTreeSet<(PeerId, CallerId)>,
}

#[derive(Debug, Clone)]
pub(crate) struct Oracle {
    hosts: Vec<Witness>,
    /// How many records each key sealed, by the key's name.
    sealed: BTreeMap<u64, u64>,
    /// Who is in bad faith, and which entries of others it was sent.
    hostile: Option<PeerId>,
    learned: BTreeMap<(PeerId, Epoch, u64), EntryHash>,
    /// Stores will be rolled back, or a profile will run twice.
    rollbacks: bool,
    /// A profile runs twice.
    twins: bool,
}

impl Oracle {
    pub(crate) fn new(
        peers: &[PeerId],
        hostile: Option<PeerId>,
        rollbacks: bool,
        twins: &[Option<usize>],
    ) -> Self {
        let witness = |(at, peer): (usize, &PeerId)| Witness {
            peer: *peer,
            absent: twins.get(at).is_some_and(Option::is_some),
            ledger: Ledger::default(),
            display: Display::default(),
            wrote: BTreeMap::new(),
            queued: BTreeMap::new(),
            lost: BTreeMap::new(),
            rollbacks: 0,
            wrote_ever: BTreeMap::new(),
            held_ever: BTreeSet::new(),
            shown: BTreeSet::new(),
        };
        let hosts: Vec<_> = peers.iter().enumerate().map(witness).collect();
        let rollbacks = rollbacks || hosts.iter().any(|host| host.absent);
        Self { hosts, sealed: BTreeMap::new(), hostile, learned: BTreeMap::new(), rollbacks, twins: false }
    }

    pub(crate) fn is_hostile(&self, peer: &PeerId) -> bool {
        self.hostile == Some(*peer)
    }

    /// Messages may have been issued again, under new names.
    pub(crate) fn has_new_names(&self) -> bool {
        self.twins || self.hosts.iter().any(|host| host.rollbacks > 0)
    }

    /// Every process of this profile that ever ran.
    fn all_of<'a>(&'a self, peer: &'a PeerId) -> impl Iterator<Item = &'a Witness> {
        self.hosts.iter().filter(move |host| host.peer == *peer && !host.absent)
    }

    pub(crate) fn hostile_learned(&mut self, shown: Vec<Shown>) {
        self.learned.extend(shown.into_iter().map(|(author, epoch, seq, hash)| ((author, epoch, seq), hash)));
    }

    /// A record was handed over: the name of the key that sealed it, and how many it sealed with it.
    pub(crate) fn sealed(&mut self, sealing: Option<(u64, u64)>) -> Verdict {
        let Some((key, count)) = sealing.filter(|(_, count)| *count > 0) else { return Ok(()) };
        let before = self.sealed.insert(key, count).unwrap_or(0);
        if count > before {
            return Ok(());
        }
        Err(wrong(Check::NonceOnce, format!("a key seals number {} a second time", count - 1)))
    }

    /// A person wrote a message.
    pub(crate) fn wrote(&mut self, host: usize, caller: CallerId, body: &[u8]) {
        self.hosts[host].wrote.insert(caller, *blake3::hash(body).as_bytes());
    }

    /// It is to be tried for so long, from this moment of its host's life on, if that can be said.
    pub(crate) fn expires(&mut self, host: usize, caller: CallerId, since: Option<u64>, after_ms: u64) {
        self.hosts[host].ledger.past.expiring.insert(caller, Expiring { since, after_ms });
    }

    /// What expires has done so when its time is over. `calm_ms`: how long nothing was wrong with its host.
    pub(crate) fn check_overdue(&self, host: usize, lived_ms: u64, calm_ms: u64) -> Verdict {
        self.hosts[host].ledger.check_overdue(lived_ms, calm_ms)
    }

    /// Messages that were said to be queued.
    pub(crate) fn queued(&self) -> u64 {
        self.hosts.iter().map(|host| host.queued.len() as u64).sum()
    }

    /// Messages of which a recipient holds a copy.
    pub(crate) fn delivered(&self) -> u64 {
        self.hosts.iter().map(|host| host.ledger.received_texts()).sum()
    }

    /// `None`: no contact; else whether it is blocked, as far as is synced.
    pub(crate) fn is_blocked(&self, host: usize, peer: &PeerId) -> Option<bool> {
        let contact = self.hosts[host].ledger.contacts.get(peer)?;
        (contact.state != ContactState::Removed).then_some(contact.blocked)
    }

    /// Whether an address of this contact is stored.
    pub(crate) fn knows_where(&self, host: usize, peer: &PeerId) -> bool {
        let contact = self.hosts[host].ledger.contacts.get(peer);
        contact.is_some_and(|contact| {
            !contact.record_addresses.is_empty() || !contact.ticket_addresses.is_empty()
        })
    }

    // --- disk ------------------------------------------------------------------------------------------------

    /// These batches are on stable storage of this host now.
    pub(crate) fn synced(&mut self, host: usize, lived_ms: Option<u64>, batches: &[Batch]) -> Verdict {
        self.hosts[host].ledger.past.lived_ms = lived_ms;
        for batch in batches {
            let mended = self.has_new_names();
            self.hosts[host].ledger.past.mended = mended;
            let news = self.hosts[host].ledger.apply(batch)?;
            if self.rollbacks {
                self.remember(host, &news);
            }
            for proof in news.proven {
                self.recipient_holds(host, &proof)?;
            }
            for place in news.settled {
                self.never_came(host, &place)?;
            }
            for peer in news.established {
                self.inviter_remembers(host, &peer)?;
            }
            for entry in news.received {
                self.author_holds(host, &entry)?;
            }
            let witness = &mut self.hosts[host];
            witness.display.synced(batch.id, witness.ledger.arrived());
        }
        Ok(())
    }

    fn remember(&mut self, host: usize, news: &News) {
        let Witness { ledger, wrote_ever, held_ever, .. } = &mut self.hosts[host];
        // What stands for numbers that are gone nobody wrote.
        let mine =
            news.written.iter().filter(|place| !ledger.shows_as_gone(&place.peer, &place.epoch, place.seq));
        for place in mine {
            let hash = ledger.own(&place.peer, &place.epoch, place.seq);
            let caller = ledger.caller_of(&place.peer, &place.epoch, place.seq);
            wrote_ever.extend(hash.map(|hash| ((place.peer, place.epoch, place.seq, hash), caller)));
        }
        let entries =
            news.received.iter().filter(|place| !ledger.shows_as_gone(&place.peer, &place.epoch, place.seq));
        for place in entries {
            let hash = ledger.held(&place.peer, &place.epoch, place.seq);
            held_ever.extend(hash.map(|hash| (place.peer, place.epoch, place.seq, hash)));
        }
    }

    /// The store of a host is an older one now. Gives the ids of its own messages that it does not know any more.
    pub(crate) fn rolled_back(&mut self, host: usize, disk: &Disk) -> Result<Vec<CallerId>, Violation> {
        let mut ledger = Ledger::read(disk.records())?;
        ledger.past.mended = true;
        let witness = &mut self.hosts[host];
        witness.rollbacks += 1;
        witness.ledger = ledger;
        witness.display = Display::default();
        witness.shown.clear();
        for ((peer, ..), caller) in &witness.wrote_ever {
            if let Some(caller) = caller.filter(|caller| witness.ledger.find(peer, caller).is_none()) {
                witness.queued.remove(&caller);
                witness.lost.insert(caller, *peer);
            }
        }
        Ok(witness.lost.keys().copied().collect())
    }

    /// This host is another process of that one's profile from now on, on a copy of its disk. Gives the ids of its own
    /// messages that it knows.
    pub(crate) fn twinned(
        &mut self,
        host: usize,
        twin: usize,
        disk: &Disk,
    ) -> Result<BTreeSet<CallerId>, Violation> {
        let mut ledger = Ledger::read(disk.records())?;
        ledger.past.mended = true;
        let mut witness =
            Witness { ledger, absent: false, display: Display::default(), ..self.hosts[host].clone() };
        let found = |caller: &CallerId, peer: &PeerId| witness.ledger.find(peer, caller).is_some();
        witness.queued = self.hosts[host].queued.clone();
        witness.queued.retain(|caller, (peer, _)| found(caller, peer));
        // What its store holds was shown, or will not be.
        let known = witness.queued.keys().copied().collect();
        self.hosts[twin] = witness;
        self.twins = true;
        Ok(known)
    }

    fn is_two(&self, host: &Witness) -> bool {
        self.all_of(&host.peer).count() > 1
    }

    /// Contract 2: what a sender holds as proof of delivery is on the recipient's stable storage.
    fn recipient_holds(&self, host: usize, proof: &Place) -> Verdict {
        let author = &self.hosts[host];
        if self.is_hostile(&proof.peer) {
            let own = author.ledger.own(&proof.peer, &proof.epoch, proof.seq);
            let learned = self.learned.get(&(author.peer, proof.epoch, proof.seq));
            if own.is_some() && own.as_ref() == learned {
                return Ok(());
            }
            let what = format!("{}:{} is acknowledged by who was never sent it", proof.epoch, proof.seq);
            return Err(wrong(Check::AcknowledgedIsDurable, what));
        }
        let own = author.ledger.own(&proof.peer, &proof.epoch, proof.seq);
        if author.ledger.shows_as_gone(&proof.peer, &proof.epoch, proof.seq) {
            // To its author too it is gone, and nobody says that it was delivered.
            return Ok(());
        }
        let mut held = None;
        for recipient in self.all_of(&proof.peer) {
            if held.is_some() && held == own {
                break;
            }
            // What stands for numbers that are gone is nothing that was delivered.
            let gone = recipient.ledger.shows_as_gone(&author.peer, &proof.epoch, proof.seq);
            let now = recipient.ledger.held(&author.peer, &proof.epoch, proof.seq).filter(|_| !gone);
            // What it said before it was rolled back was true then.
            let ever = || {
                let key = (author.peer, proof.epoch, proof.seq, own?);
                recipient.held_ever.contains(&key).then_some(key.3)
            };
            held = now.filter(|hash| own == Some(*hash)).or_else(ever).or(now).or(held);
        }
        match held {
            Some(hash) if Some(hash) == author.ledger.own(&proof.peer, &proof.epoch, proof.seq) => Ok(()),
            Some(_) => Err(wrong(
                Check::AcknowledgedIsDurable,
                format!("{}:{} is acknowledged, and what is stored is another entry", proof.epoch, proof.seq),
            )),
            None => Err(wrong(
                Check::AcknowledgedIsDurable,
                format!("{}:{} is acknowledged, and its recipient has not stored it", proof.epoch, proof.seq),
            )),
        }
    }

    /// Whose ticket was answered forgets it: the inviter has stored by then who presented it.
    fn inviter_remembers(&self, host: usize, peer: &PeerId) -> Verdict {
        if self.is_hostile(peer) {
            return Ok(());
        }
        let stored = |inviter: &Witness| {
            inviter.rollbacks > 0 || inviter.ledger.contacts.contains_key(&self.hosts[host].peer)
        };
        if self.all_of(peer).any(stored) {
            return Ok(());
        }
        Err(wrong(
            Check::AcknowledgedIsDurable,
            "a contact is established whose other side has not stored it",
        ))
    }

    /// What a recipient holds its author has stored before: it was on the wire only after that.
    fn author_holds(&self, host: usize, entry: &Place) -> Verdict {
        if self.is_hostile(&entry.peer) {
            return Ok(());
        }
        let recipient = &self.hosts[host];
        let here = recipient.ledger.held(&entry.peer, &entry.epoch, entry.seq);
        let (mut author, mut stored) = (None, None);
        for other in self.all_of(&entry.peer) {
            if stored.is_some() && stored == here {
                break;
            }
            let now = other.ledger.own(&recipient.peer, &entry.epoch, entry.seq);
            let ever = || {
                let key = (recipient.peer, entry.epoch, entry.seq, here?);
                other.wrote_ever.contains_key(&key).then_some(key.3)
            };
            author = Some(other);
            stored = now.filter(|hash| here == Some(*hash)).or_else(ever).or(now).or(stored);
        }
        let what = |why| format!("{}:{} is stored by its recipient, and {why}", entry.epoch, entry.seq);
        match (stored, here) {
            (Some(stored), Some(held)) if stored == held => match author {
                Some(author) => self.fates_agree(author, recipient, entry),
                None => Ok(()),
            },
            // Several at once, or it moved on in the same batch.
            (_, None) if self.rollbacks => Ok(()),
            (Some(_), _) => Err(wrong(Check::Authentic, what("its author stored another"))),
            (None, _) => {
                let caller = recipient.ledger.held_caller(&entry.peer, &entry.epoch, entry.seq);
                let wrote =
                    author.zip(caller).is_some_and(|(author, caller)| author.wrote.contains_key(&caller));
                let check = if wrote { Check::SenderKeeps } else { Check::Authentic };
                Err(wrong(check, what("its author has not stored it")))
            }
        }
    }

    /// Contract 4: what was taken back for certain is not there, and will not be.
    fn never_came(&self, host: usize, place: &Place) -> Verdict {
        let author = &self.hosts[host];
        let recipient = self.all_of(&place.peer).next();
        let held = recipient.and_then(|other| other.ledger.fate(&author.peer, place, false));
        match held {
            None | Some(Some(_)) => Ok(()),
            Some(None) => Err(wrong(
                Check::EvidenceGrows,
                format!("{}:{} is taken back for certain, and its recipient has it", place.epoch, place.seq),
            )),
        }
    }

    /// What a recipient holds of a message is what its author knows of it: a tombstone of what was taken back for
    /// certain, the message of what was not.
    fn fates_agree(&self, author: &Witness, recipient: &Witness, place: &Place) -> Verdict {
        let own = Place { peer: recipient.peer, ..*place };
        let wrote = author.ledger.fate(&recipient.peer, &own, true);
        let held = recipient.ledger.fate(&author.peer, place, false);
        let is_certain = |fate: Option<Option<Dropped>>| {
            matches!(
                fate,
                Some(Some(Dropped::Cancelled { settled: true } | Dropped::Expired { settled: true }))
            )
        };
        let what = match (wrote, held) {
            // Deleted on one of the two devices.
            (None | Some(Some(Dropped::Deleted)), _) | (_, None | Some(Some(Dropped::Deleted))) => {
                return Ok(());
            }
            (wrote, Some(Some(Dropped::ByAuthor))) if !is_certain(wrote) => "came without its body",
            (wrote, Some(None)) if is_certain(wrote) => "came",
            _ => return Ok(()),
        };
        let (epoch, seq, wrote) = (place.epoch, place.seq, wrote.flatten());
        Err(wrong(Check::EvidenceGrows, format!("{epoch}:{seq} {what}, and to its author it is {wrote:?}")))
    }

    /// A person wishes that something goes, or never was.
    pub(crate) fn wished(&mut self, host: usize, peer: &PeerId, wish: Wish) {
        let past = &mut self.hosts[host].ledger.past;
        match wish {
            Wish::Cancel(message) | Wish::Delete(message) => {
                past.wishes.insert(Place { peer: *peer, epoch: message.epoch, seq: message.seq });
            }
            Wish::DeleteAll => {
                past.erasing.insert(*peer);
            }
        }
    }

    /// It is refused only if it is too late for it, or what it is about is not there any more.
    pub(crate) fn wish_refused(&self, host: usize, peer: &PeerId, wish: Wish, why: Refusal) -> Verdict {
        let (author, recipient) = (&self.hosts[host], self.all_of(peer).next());
        let good = match (wish, why) {
            (Wish::Cancel(message), Refusal::Delivered) => recipient.is_none_or(|recipient| {
                recipient.ledger.held(&author.peer, &message.epoch, message.seq).is_some()
            }),
            (_, Refusal::UnknownContact) => true,
            (_, Refusal::UnknownMessage) => self.has_new_names(),
            _ => false,
        };
        let what = || format!("{wish:?} was refused: {why}");
        if good { Ok(()) } else { Err(wrong(Check::Contract, what())) }
    }

    pub(crate) fn crashed(&mut self, host: usize) {
        self.hosts[host].display = Display::default();
    }

    /// A node is about to start from this disk.
    pub(crate) fn booted(&mut self, host: usize, disk: &Disk) -> Verdict {
        let witness = &mut self.hosts[host];
        let mut read = Ledger::read(disk.records())?;
        read.past = witness.ledger.past.clone();
        if read != witness.ledger {
            return Err(wrong(Check::Restore, "the disk is not what its batches made of it"));
        }
        for (caller, (peer, message)) in &witness.queued {
            witness.ledger.is_queued(peer, caller, message)?;
        }
        witness.display = Display::new(&witness.ledger);
        Ok(())
    }

    // --- what a node says ------------------------------------------------------------------------------------

    pub(crate) fn event(&mut self, host: usize, event: &Event) -> Verdict {
        match event {
            Event::Queued { peer, caller, message, .. } => {
                let renames = self.has_new_names();
                let witness = &mut self.hosts[host];
                witness.ledger.is_queued(peer, caller, message)?;
                match witness.queued.insert(*caller, (*peer, *message)) {
                    Some(before) if before != (*peer, *message) && !renames => Err(wrong(
                        Check::ExactlyOnce,
                        format!("message {caller} was {} and is {message} now", before.1),
                    )),
                    _ => Ok(()),
                }
            }
            Event::Delivered { peer, epoch, first, last } => {
                self.shown_delivered(host, peer, epoch, *first, *last)
            }
            Event::Received { peer, arrival, message, kind, body, .. } => {
                let caller =
                    if *kind == Kind::Text { self.was_written(peer, message, body, host)? } else { None };
                let witness = &mut self.hosts[host];
                if let Some(caller) = caller.filter(|caller| !witness.shown.insert((*peer, *caller))) {
                    let what = format!("message {caller} is shown as new a second time, as {message}");
                    return Err(wrong(Check::ExactlyOnce, what));
                }
                witness.display.received(&witness.ledger, peer, *arrival, *message)
            }
            Event::Gap { peer, epoch, first, last } => {
                self.hosts[host].display.gap(peer, *epoch, *first, *last);
                Ok(())
            }
            Event::Gone { peer, epoch, .. }
                if self.has_new_names() && self.hosts[host].ledger.writes(peer, epoch) =>
            {
                Ok(())
            }
            Event::Gone { peer, epoch, first, last } if self.is_hostile(peer) || self.has_new_names() => {
                let witness = &mut self.hosts[host];
                witness.display.gone(&witness.ledger, peer, *epoch, (*first, *last))
            }
            // Their stores were rolled back, or that of who wrote it.
            Event::RolledBack { .. } | Event::Recovered { .. } | Event::Reissued { .. }
                if self.has_new_names() =>
            {
                Ok(())
            }
            Event::SecondCopy { .. } if self.is_two(&self.hosts[host]) => Ok(()),
            Event::Dropped { peer, message, cancelled } => {
                self.hosts[host].ledger.check_dropped(peer, message, *cancelled)
            }
            Event::Expired { peer, message } => self.hosts[host].ledger.check_dropped(peer, message, true),
            Event::ConversationDeleted { peer } => self.hosts[host].ledger.check_all_deleted(peer),
            // It went in the meantime, with its conversation.
            Event::DropFailed { peer, message, why: Refusal::StoreFailed }
                if self.hosts[host].ledger.lacks_entry(peer, message) =>
            {
                Ok(())
            }
            // Or it was delivered before it could be taken back.
            Event::DropFailed { peer, message, why: Refusal::Delivered } => {
                self.wish_refused(host, peer, Wish::Cancel(*message), Refusal::Delivered)
            }
            Event::Gone { .. }
            | Event::RolledBack { .. }
            | Event::Recovered { .. }
            | Event::Reissued { .. }
            | Event::SecondCopy { .. }
            | Event::DropFailed { .. } => Err(wrong(
                Check::Restore,
                format!("nothing was lost, rolled back or taken away, and it says {event:?}"),
            )),
            Event::Ready
            | Event::SendFailed { .. }
            | Event::GapFilled { .. }
            | Event::InviteStored { .. }
            | Event::ContactChanged { .. }
            | Event::ProfileChanged
            | Event::Connected { .. }
            | Event::PathChanged { .. }
            | Event::RelayChanged { .. }
            | Event::PortMapped { .. }
            | Event::Observed { .. }
            | Event::RoundTrip { .. }
            | Event::Disconnected { .. }
            | Event::Attempt { .. }
            | Event::NextAttempt { .. }
            | Event::Rejected { .. }
            | Event::Misbehaved { .. }
            | Event::StoreFailed
            | Event::Stopped => Ok(()),
        }
    }

    /// Contract 4 and 2: what is shown as delivered is stored as proven here, and is stored there. Shown once.
    fn shown_delivered(
        &mut self,
        host: usize,
        peer: &PeerId,
        epoch: &Epoch,
        first: u64,
        last: u64,
    ) -> Verdict {
        for seq in first..=last {
            let witness = &mut self.hosts[host];
            if !witness.ledger.is_proven(peer, epoch, seq) {
                let what = format!("{epoch}:{seq} is shown as delivered without a stored proof");
                return Err(wrong(Check::EvidenceGrows, what));
            }
            if !witness.display.delivered(peer, *epoch, seq) {
                // Once is enough: a second time means that the proof was forgotten in between.
                return Err(wrong(
                    Check::EvidenceGrows,
                    format!("{epoch}:{seq} is shown as delivered twice"),
                ));
            }
            self.recipient_holds(host, &Place { peer: *peer, epoch: *epoch, seq })?;
        }
        Ok(())
    }

    /// Nothing is shown that its author did not write, and store, to the byte.
    /// Gives the id under which he did.
    fn was_written(
        &self,
        peer: &PeerId,
        message: &MessageRef,
        body: &[u8],
        host: usize,
    ) -> Result<Option<CallerId>, Violation> {
        if self.is_hostile(peer) {
            return Ok(None);
        }
        let reader = &self.hosts[host].peer;
        let shown = self.hosts[host].ledger.held(peer, &message.epoch, message.seq);
        // Under one number two copies may have written two, with the same text.
        let key = shown.map(|hash| (*reader, message.epoch, message.seq, hash));
        let ever = self.all_of(peer).find_map(|author| author.wrote_ever.get(&key?).copied().flatten());
        let written = self.all_of(peer).find_map(|author| {
            let caller = ever.or_else(|| author.ledger.caller_of(reader, &message.epoch, message.seq))?;
            (author.wrote.get(&caller) == Some(blake3::hash(body).as_bytes())).then_some(caller)
        });
        let what = || format!("{message} is shown, and its author did not write that");
        written.map(Some).ok_or_else(|| wrong(Check::Authentic, what()))
    }

    /// The node has said everything that it had to say; it was told of batches up to `told`.
    pub(crate) fn drained(&mut self, host: usize, told: BatchId) -> Verdict {
        self.hosts[host].display.drained(told)
    }

    // --- the end ---------------------------------------------------------------------------------------------

    /// What is not delivered yet, if anything.
    pub(crate) fn waits_for(&self) -> Option<String> {
        for (index, author) in self.hosts.iter().enumerate().filter(|(_, host)| !host.absent) {
            if let Some(what) = author.ledger.unproven(self.hostile.as_ref()) {
                return Some(format!("host {index}: {what}"));
            }
            for other in self.hosts.iter().filter(|other| other.peer != author.peer && !other.absent) {
                if let Some(what) = other.ledger.lacks(&author.peer, &author.ledger, &other.peer) {
                    return Some(format!("from host {index}: {what}"));
                }
            }
        }
        None
    }

    /// Whatever was rolled back: each message is there once, on both sides, and nothing is there that was not sent.
    fn all_came_back(&self) -> Verdict {
        for author in self.hosts.iter().filter(|host| !host.absent) {
            for other in self.hosts.iter().filter(|other| other.peer != author.peer && !other.absent) {
                let own = author.ledger.messages(&other.peer, true);
                let held = other.ledger.messages(&author.peer, false);
                if let Some((caller, count)) = own.iter().chain(&held).find(|(_, count)| **count > 1) {
                    return Err(wrong(
                        Check::ExactlyOnce,
                        format!("message {caller} stands there {count} times"),
                    ));
                }
                let known = |caller: &CallerId| {
                    let mut all = self.all_of(&author.peer);
                    all.any(|author| author.queued.contains_key(caller) || author.lost.contains_key(caller))
                };
                if let Some(caller) = own.keys().find(|caller| !known(caller)) {
                    return Err(wrong(
                        Check::ExactlyOnce,
                        format!("message {caller} was stored and nobody asked for it"),
                    ));
                }
                if let Some(caller) = held.keys().find(|caller| !own.contains_key(caller)) {
                    return Err(wrong(
                        Check::SenderKeeps,
                        format!("message {caller} was lost and is not back"),
                    ));
                }
            }
        }
        Ok(())
    }

    /// Nothing is under way any more: everything is where it should be, once, and equal on both sides.
    pub(crate) fn finish(&self, disks: &[&Disk]) -> Verdict {
        for (witness, disk) in self.hosts.iter().zip(disks) {
            let mut read = Ledger::read(disk.records())?;
            read.past = witness.ledger.past.clone();
            if read != witness.ledger {
                return Err(wrong(Check::Restore, "the disk is not what its batches made of it"));
            }
            for (caller, (peer, message)) in &witness.queued {
                witness.ledger.is_queued(peer, caller, message)?;
            }
            let texts = witness.ledger.own_texts();
            if texts != witness.queued.len() as u64 && !self.rollbacks {
                let queued = witness.queued.len();
                let what = format!("{queued} messages were queued, and {texts} were stored");
                return Err(wrong(Check::ExactlyOnce, what));
            }
        }
        if self.rollbacks {
            self.all_came_back()?;
        }
        for (a, first) in self.hosts.iter().enumerate() {
            for (b, second) in self.hosts.iter().enumerate().skip(a + 1) {
                if first.absent || second.absent || first.peer == second.peer {
                    continue;
                }
                self.one_history((a, first, disks[a]), (b, second, disks[b]))?;
            }
        }
        Ok(())
    }

    /// Both histories are equal, but for what each side deleted on its own device.
    fn one_history(
        &self,
        (a, first, one): (usize, &Witness, &Disk),
        (b, second, other): (usize, &Witness, &Disk),
    ) -> Verdict {
        let (one, one_hid) = first.ledger.history(&second.peer, one);
        let (other, other_hid) = second.ledger.history(&first.peer, other);
        let places = [one.keys().collect::<Vec<_>>(), one_hid.iter().collect()];
        let others = [other.keys().collect::<Vec<_>>(), other_hid.iter().collect()];
        let all: BTreeSet<_> = places.into_iter().chain(others).flatten().collect();
        let equal = |place: &&OrderKey| match (one.get(place), other.get(place)) {
            (Some(line), Some(other)) => line.agrees(other),
            (Some(_), None) => other_hid.contains(place),
            (None, Some(_)) => one_hid.contains(place),
            (None, None) => one_hid.contains(place) && other_hid.contains(place),
        };
        if let Some(at) = all.iter().position(|place| !equal(place)) {
            let what = format!("the histories of hosts {a} and {b} differ from message {at} on");
            return Err(wrong(Check::Histories, what));
        }
        for (author, recipient) in [(first, second), (second, first)] {
            let mut own = author.ledger.own_entries(&recipient.peer);
            own.try_for_each(|place| {
                self.fates_agree(author, recipient, &Place { peer: author.peer, ..place })
            })?;
        }
        Ok(())
    }
}
