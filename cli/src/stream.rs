//! What comes, for a front end that listens: what the store holds from a given arrival on, then what happens. Every
//! message is read from the store by its arrival number, so at the seam nothing is missed and nothing comes twice;
//! events only say when to look.

use crate::fault::{Code, Fault};
use crate::hub::Note;
use crate::limits::PAGE;
use crate::service::{Service, Watch, message_json};
use peerlink_core::api::{ContactChange, Event, Refusal};
use peerlink_core::ids::PeerId;
use peerlink_core::record::Kind;
use peerlink_storage::{ContactInfo, Message};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Begin {
    /// After this arrival number.
    After(u64),
    /// With what the user has not seen.
    Unread,
    /// With what comes from now on.
    Now,
}

/// What to tell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Filter {
    pub(crate) only: Option<PeerId>,
    /// Show no message, mark nothing as read.
    pub(crate) quiet: bool,
}

impl Filter {
    fn takes(&self, message: &Message) -> bool {
        !self.quiet && message.kind == Kind::Text && self.only.is_none_or(|only| only == message.peer)
    }
}

impl Service {
    /// Runs until `emit` says that nobody reads, the watch says so, or the node ends.
    pub(crate) fn listen(
        &self,
        watch: &Watch<'_>,
        from: Begin,
        filter: Filter,
        mut emit: impl FnMut(&Value) -> bool,
    ) -> Result<(), Fault> {
        // In this order: what is counted as received has arrived at `now`.
        let counted = self.known()?;
        let now = self.reader.counters()?.arrival;
        let mut after = if let Begin::After(after) = from { after } else { now };
        if !emit(&json!({ "kind": "listening", "after": after })) {
            return Ok(());
        }
        if from == Begin::Unread && !filter.quiet && !self.emit_unread(now, &counted, filter, &mut emit)? {
            return Ok(());
        }
        let mut look = !filter.quiet;
        loop {
            if std::mem::take(&mut look) && !self.emit_arrivals(&mut after, filter, &mut emit)? {
                return Ok(());
            }
            let Ok(note) = watch.notes.recv() else { return Ok(()) };
            if self.hub.store_failed() {
                return Err(Fault::new(Code::Store, Refusal::StoreFailed));
            }
            let event = match note {
                Note::Gone => return Ok(()),
                Note::Lagged => {
                    look = !filter.quiet;
                    Some(json!({ "kind": "lagged" }))
                }
                Note::Event(event) => {
                    look = !filter.quiet && matches!(*event, Event::Received { .. });
                    self.event_json(&event, filter.only)
                }
            };
            if event.is_some_and(|event| !emit(&event)) {
                return Ok(());
            }
        }
    }

    fn known(&self) -> Result<BTreeMap<PeerId, ContactInfo>, Fault> {
        Ok(self.reader.contacts()?.into_iter().map(|info| (info.peer, info)).collect())
    }

    /// The messages up to arrival `now` that the user has not seen, as they arrived.
    fn emit_unread(
        &self,
        now: u64,
        counted: &BTreeMap<PeerId, ContactInfo>,
        filter: Filter,
        emit: &mut impl FnMut(&Value) -> bool,
    ) -> Result<bool, Fault> {
        let known = self.known()?;
        let mut unread: BTreeMap<u64, Message> = BTreeMap::new();
        for info in known.values().filter(|info| info.counts.unread > 0) {
            let mut left = info.counts.unread;
            let mut page = self.reader.latest(info.contact.conversation, PAGE)?;
            while let Some(oldest) = page.first().map(|message| message.order) {
                // One that arrived after `now` is counted, perhaps, but its turn comes later.
                let received = |message: &Message| !message.mine && message.arrival <= now;
                for message in page.into_iter().rev().filter(received) {
                    if left > 0 {
                        left -= 1;
                        unread.insert(message.arrival, message);
                    }
                }
                page = if left > 0 { self.reader.before(oldest, PAGE)? } else { Vec::new() };
            }
        }
        let unread = unread.into_values().filter(|message| filter.takes(message));
        self.emit_messages(unread, counted, emit)
    }

    fn emit_arrivals(
        &self,
        after: &mut u64,
        filter: Filter,
        emit: &mut impl FnMut(&Value) -> bool,
    ) -> Result<bool, Fault> {
        // Counted before the messages are read: what comes meanwhile stays unread until it was shown too.
        let known = self.known()?;
        loop {
            let page = self.reader.arrivals(*after, PAGE)?;
            let Some(last) = page.last() else { return Ok(true) };
            *after = last.arrival;
            let wanted = page.into_iter().filter(|message| filter.takes(message));
            if !self.emit_messages(wanted, &known, emit)? {
                return Ok(false);
            }
        }
    }

    fn emit_messages(
        &self,
        messages: impl Iterator<Item = Message>,
        known: &BTreeMap<PeerId, ContactInfo>,
        emit: &mut impl FnMut(&Value) -> bool,
    ) -> Result<bool, Fault> {
        let mut seen = BTreeMap::new();
        for message in messages {
            let info = known.get(&message.peer);
            let mut value = message_json(&message, info.map_or("", |info| info.contact.petname.as_str()));
            if let Some(object) = value.as_object_mut() {
                object.insert("kind".into(), "message".into());
            }
            if !emit(&value) {
                return Ok(false);
            }
            seen.insert(message.peer, info.map_or(0, |info| info.counts.received));
        }
        for (peer, ordinal) in seen {
            self.mark_read(peer, ordinal);
        }
        Ok(true)
    }

    fn event_json(&self, event: &Event, only: Option<PeerId>) -> Option<Value> {
        let (peer, mut value) = match event {
            Event::Delivered { peer, epoch, first, last } => (
                peer,
                json!({ "kind": "delivered", "epoch": epoch.to_string(), "first": first, "last": last }),
            ),
            Event::Connected { peer, remote, .. } => (peer, json!({ "kind": "connected", "remote": remote })),
            Event::Disconnected { peer, .. } => {
                (peer, json!({ "kind": "disconnected", "detail": self.hub.link(peer).describe() }))
            }
            Event::Gap { peer, epoch, first, last } => {
                (peer, json!({ "kind": "gap", "epoch": epoch.to_string(), "first": first, "last": last }))
            }
            Event::GapFilled { peer, epoch, first, last } => (
                peer,
                json!({ "kind": "gap_filled", "epoch": epoch.to_string(), "first": first, "last": last }),
            ),
            Event::Gone { peer, epoch, first, last } => {
                (peer, json!({ "kind": "gone", "epoch": epoch.to_string(), "first": first, "last": last }))
            }
            Event::RolledBack { peer, epoch, .. } => {
                (peer, json!({ "kind": "rolled_back", "epoch": epoch.to_string() }))
            }
            Event::Recovered { peer, epoch, first, last } => (
                peer,
                json!({ "kind": "recovered", "epoch": epoch.to_string(), "first": first, "last": last }),
            ),
            Event::Reissued { peer, old, new } => {
                (peer, json!({ "kind": "reissued", "old": old.to_string(), "new": new.to_string() }))
            }
            Event::SecondCopy { peer, epoch } => {
                (peer, json!({ "kind": "second_copy", "epoch": epoch.to_string() }))
            }
            Event::Dropped { peer, message, cancelled } => {
                let state = if *cancelled { "cancelled" } else { "deleted" };
                (peer, json!({ "kind": "dropped", "message": message.to_string(), "state": state }))
            }
            Event::Expired { peer, message } => {
                (peer, json!({ "kind": "dropped", "message": message.to_string(), "state": "expired" }))
            }
            Event::ConversationDeleted { peer } => (peer, json!({ "kind": "conversation_deleted" })),
            Event::ContactChanged { peer, change: ContactChange::Established } => {
                (peer, json!({ "kind": "contact" }))
            }
            _ => return None,
        };
        if only.is_some_and(|only| only != *peer) {
            return None;
        }
        let name = self.reader.contact(*peer).ok().flatten().map(|info| info.contact.petname);
        if let Some(object) = value.as_object_mut() {
            object.insert("contact".into(), json!(name));
            object.insert("peer".into(), peer.to_string().into());
        }
        Some(value)
    }
}
