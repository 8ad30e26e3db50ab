//! What one run of a node has shown to its person: every arrival once and in order, every gap as a gap.

use super::ledger::Ledger;
use super::{Check, Verdict, wrong};
use peerlink_core::ids::{BatchId, Epoch, MessageRef, PeerId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A feed as it was shown.
#[derive(Debug, Clone, Default)]
struct Shown {
    /// Everything up to here, and numbers beyond.
    head: u64,
    beyond: BTreeSet<u64>,
    gaps: Vec<(u64, u64)>,
}

impl Shown {
    fn has(&self, seq: u64) -> bool {
        seq <= self.head || self.beyond.contains(&seq)
    }

    /// The first number below `seq` that was neither shown nor reported as missing.
    fn hidden_below(&self, seq: u64) -> Option<u64> {
        let mut at = self.head + 1;
        while at < seq {
            let gap = self.gaps.iter().filter(|(first, last)| (*first..=*last).contains(&at));
            at = match gap.map(|(_, last)| *last).max() {
                Some(last) => last.saturating_add(1),
                None if self.has(at) => at + 1,
                None => return Some(at),
            };
        }
        None
    }

    fn add(&mut self, seq: u64) {
        self.beyond.insert(seq);
        while self.beyond.remove(&(self.head + 1)) {
            self.head += 1;
        }
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Display {
    /// The newest arrival number that the person knows of.
    arrival: u64,
    feeds: BTreeMap<(PeerId, Epoch), Shown>,
    delivered: BTreeMap<(PeerId, Epoch), Shown>,
    /// How far arrivals go with each batch that is synced and that the node was not told of.
    synced: VecDeque<(BatchId, u64)>,
}

impl Display {
    /// What a person sees who looks into the store at the start.
    pub(super) fn new(ledger: &Ledger) -> Self {
        let mut display = Self { arrival: ledger.arrived(), ..Self::default() };
        for (peer, feed) in ledger.feeds() {
            let (upto, beyond) =
                if feed.mine { (feed.acked, &feed.acked_beyond) } else { (feed.head, &feed.beyond) };
            let mut shown = Shown { head: upto, ..Shown::default() };
            if let Some(first) = feed.holes.first().filter(|_| !feed.mine) {
                // What is gone was never shown, and may come.
                shown.head = first.first - 1;
                shown.beyond.extend(first.first..=upto);
                for hole in feed.holes.iter() {
                    shown.gaps.push((hole.first, hole.last));
                    shown.beyond.retain(|seq| !(hole.first..=hole.last).contains(seq));
                }
            }
            let mut below = upto;
            for range in beyond.iter() {
                shown.gaps.push((below + 1, range.first - 1));
                shown.beyond.extend(range.first..=range.last);
                below = range.last;
            }
            let shelf = if feed.mine { &mut display.delivered } else { &mut display.feeds };
            shelf.insert((peer, feed.epoch), shown);
        }
        display
    }

    pub(super) fn synced(&mut self, batch: BatchId, arrived: u64) {
        self.synced.push_back((batch, arrived));
    }

    pub(super) fn gap(&mut self, peer: &PeerId, epoch: Epoch, first: u64, last: u64) {
        self.feeds.entry((*peer, epoch)).or_default().gaps.push((first, last));
    }

    /// Contract 3: once, in the author's order, and nothing passed over in silence.
    pub(super) fn received(
        &mut self,
        ledger: &Ledger,
        peer: &PeerId,
        arrival: u64,
        message: MessageRef,
    ) -> Verdict {
        if arrival != self.arrival + 1 {
            let check = if arrival <= self.arrival { Check::ExactlyOnce } else { Check::NothingHidden };
            return Err(wrong(check, format!("arrival {arrival} is shown after arrival {}", self.arrival)));
        }
        self.arrival = arrival;
        if ledger.arrival(arrival) != Some((*peer, message)) {
            let what = format!("arrival {arrival} is shown as {message}, and that is not what is stored");
            return Err(wrong(Check::AcknowledgedIsDurable, what));
        }
        let shown = self.feeds.entry((*peer, message.epoch)).or_default();
        if shown.has(message.seq) {
            return Err(wrong(Check::ExactlyOnce, format!("{message} is shown twice")));
        }
        // A message that has several names is shown under one of them.
        let mut hidden = shown.hidden_below(message.seq);
        while let Some(at) = hidden.filter(|at| ledger.has_names(peer, &message.epoch, *at)) {
            shown.add(at);
            hidden = shown.hidden_below(message.seq);
        }
        if let Some(missing) = hidden {
            let what = format!("{message} is shown before {missing}, and no gap was reported");
            return Err(wrong(Check::InOrder, what));
        }
        shown.add(message.seq);
        Ok(())
    }

    /// Numbers that will never come are shown as that, under an arrival number like anything else.
    pub(super) fn gone(
        &mut self,
        ledger: &Ledger,
        peer: &PeerId,
        epoch: Epoch,
        (first, last): (u64, u64),
    ) -> Verdict {
        if ledger.arrival(self.arrival + 1) != Some((*peer, MessageRef { epoch, seq: last })) {
            let what = format!(
                "{epoch}:{last} is shown as gone after arrival {}, and is not what follows",
                self.arrival
            );
            return Err(wrong(Check::ExactlyOnce, what));
        }
        self.arrival += 1;
        self.gap(peer, epoch, first, last);
        Ok(())
    }

    /// `false`: it was shown before.
    pub(super) fn delivered(&mut self, peer: &PeerId, epoch: Epoch, seq: u64) -> bool {
        let shown = self.delivered.entry((*peer, epoch)).or_default();
        let new = !shown.has(seq);
        shown.add(seq);
        new
    }

    /// Everything that became durable must have been shown by now.
    pub(super) fn drained(&mut self, told: BatchId) -> Verdict {
        while let Some((_, arrived)) = self.synced.pop_front_if(|(batch, _)| *batch <= told) {
            if arrived > self.arrival {
                let what = format!("arrival {arrived} is stored, and only {} were shown", self.arrival);
                return Err(wrong(Check::NothingHidden, what));
            }
        }
        Ok(())
    }
}
