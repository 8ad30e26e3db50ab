//! What a peer lost of its own feeds, given back to it: a page each time that it says how far it came.
//!
//! It asks by naming its own feed in its have-vector. It believes nothing of what comes but what carries its own tag.

use crate::api::{KeyRange, Page};
use crate::assemble::{Packer, entries, first_of, gone_marker};
use crate::cx::Wanted;
use crate::ids::Epoch;
use crate::limits::{INLINE_BODY_BYTES, PAGE_BYTES, PLAINTEXT_BYTES, RETRY_FIRST};
use crate::record::{Entry, Key};
use crate::time::Instant;
use crate::wire::entry::Author;
use alloc::collections::VecDeque;
use alloc::vec::Vec;

#[derive(Debug, Default)]
pub(crate) struct Giveback {
    wanted: Option<Wanted>,
    /// What the peer asked for last while something else was on its way to it: it may not ask again.
    next: Option<Wanted>,
    asked: Option<Wanted>,
    ready: VecDeque<(u64, Entry)>,
    /// Bytes of the first body that were sent; `None`: not even announced.
    sent: Option<u32>,
    /// What was given last and when: the same is not given again at every have-vector.
    last: Option<(Epoch, u64, Instant)>,
}

impl Giveback {
    pub(crate) fn session_over(&mut self) {
        *self = Self::default();
    }

    /// The peer asks for these. One at a time, and then the newest.
    pub(crate) fn want(&mut self, now: Instant, mut rows: impl Iterator<Item = Wanted>) {
        let last = self.last;
        let given = |row: &Wanted| {
            last.is_some_and(|(epoch, from, at)| {
                epoch == row.epoch && from == row.from && now.saturating_since(at) < RETRY_FIRST
            })
        };
        let row = rows.find(|row| !given(row));
        if self.wanted.is_some() {
            self.next = row.filter(|row| Some(*row) != self.wanted);
        } else {
            self.wanted = row;
        }
    }

    fn done(&mut self) {
        self.wanted = self.next.take();
    }

    pub(crate) fn wants_load(&self) -> Option<(Wanted, KeyRange)> {
        let wanted = self.wanted.filter(|_| self.asked.is_none() && self.ready.is_empty())?;
        let page = u32::try_from(PAGE_BYTES).unwrap_or(u32::MAX);
        let key = |seq| Key::Entry { feed: wanted.no, seq };
        Some((wanted, KeyRange::new(&key(wanted.from), &key(wanted.to), page)))
    }

    pub(crate) fn asked(&mut self) {
        self.asked = self.wanted;
    }

    /// The page that was asked for; `None`: it is damaged. `held` tells which numbers were held here ever.
    pub(crate) fn loaded(
        &mut self,
        now: Instant,
        wanted: Wanted,
        page: Option<&Page>,
        held: impl Fn(&Epoch, u64) -> bool,
    ) {
        if self.asked != Some(wanted) {
            return;
        }
        self.asked = None;
        self.last = Some((wanted.epoch, wanted.from, now));
        let mut next = wanted.from;
        for (seq, entry) in entries(page) {
            let first = first_of(seq, &entry);
            // What was deleted here is gone; what is missing here may still come.
            if first > next && held(&wanted.epoch, next) {
                let marker = gone_marker(next, entry.prev, entry.lamport);
                self.ready.push_back((first - 1, marker));
            }
            next = seq + 1;
            self.ready.push_back((seq, entry));
        }
        if self.ready.is_empty() {
            self.done();
        }
    }

    pub(crate) fn wants_record(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Appends what fits.
    pub(crate) fn fill(&mut self, record: &mut Vec<u8>) {
        let Some(wanted) = self.wanted.filter(|_| !self.ready.is_empty()) else { return };
        let mut packer = Packer::new(Author::Receiver, wanted.epoch);
        while let Some((seq, entry)) = self.ready.front() {
            if entry.body.len() > INLINE_BODY_BYTES {
                let Some(sent) = packer.push_chunk(record, *seq, entry, self.sent) else { break };
                if sent < entry.body_len {
                    self.sent = Some(sent);
                    continue;
                }
                self.sent = None;
            } else if !packer.push(record, PLAINTEXT_BYTES, *seq, entry) {
                break;
            }
            self.ready.pop_front();
        }
        packer.finish(record);
        if self.ready.is_empty() {
            self.done();
        }
    }
}
