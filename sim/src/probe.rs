//! What a run must have come across at least once, or it proves little: the rare turns of the protocol, counted.

use peerlink_core::api::{AttemptOutcome, Event, PathKind, Refusal, SessionEnd};
use peerlink_core::limits::INLINE_BODY_BYTES;
use peerlink_core::record::Kind;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Probe {
    /// An entry came before one with a lower number, and the hole was filled.
    Gap,
    GapFilled,
    /// A body came in chunks.
    Chunks,
    /// A caller's id was known already; and the message was delivered already.
    Duplicate,
    DuplicateDelivered,
    /// A message that was held was offered again.
    OfferedAgain,
    /// The history was asked for.
    Loaded,
    /// A session replaced another; a dial was overtaken by another session.
    Replaced,
    Superseded,
    /// Two hosts had dialled each other, and both connections stood.
    Crossed,
    /// A session ended because a ping stayed unanswered; because its stream broke; with a goodbye.
    Silent,
    Lost,
    Goodbye,
    /// A dial reached somebody who did not complete the handshake, or was blocked.
    HandshakeFailed,
    Refused,
    /// A stream was turned away.
    Rejected,
    /// A request came back because the disk was behind, or while stopping.
    Busy,
    Stopping,
    /// A send was taken, and could not be answered.
    SendFailed,
    /// A node stopped in good order.
    Stopped,
    /// Somebody was told that a contact misbehaves.
    Misbehaved,
    /// An entry that did not fit what is held, or a have-vector that said more of one's own than is there.
    Doubted,
    /// A rollback was noticed; something was issued again; something came back.
    RollbackNoticed,
    Reissued,
    Recovered,
    /// The header of a message came that its author had taken back; it was too late to take one back; a conversation
    /// was deleted.
    TombstoneCame,
    TooLate,
    Emptied,
    /// The time of a message was over.
    Expired,
    /// A session stands on datagrams; it goes another way; who began was asked to show where he is.
    DatagramSession,
    PathChanged,
    CookieAsked,
    /// A relay serves somebody; a session stands on one; it leaves the relay, or goes back to one.
    RelayServes,
    RelayedSession,
    LeftRelay,
    BackToRelay,
}

impl Probe {
    pub const ALL: [Self; 36] = [
        Self::Gap,
        Self::GapFilled,
        Self::Chunks,
        Self::Duplicate,
        Self::DuplicateDelivered,
        Self::OfferedAgain,
        Self::Loaded,
        Self::Replaced,
        Self::Superseded,
        Self::Crossed,
        Self::Silent,
        Self::Lost,
        Self::Goodbye,
        Self::HandshakeFailed,
        Self::Refused,
        Self::Rejected,
        Self::Busy,
        Self::Stopping,
        Self::SendFailed,
        Self::Stopped,
        Self::Misbehaved,
        Self::Doubted,
        Self::RollbackNoticed,
        Self::Reissued,
        Self::Recovered,
        Self::TombstoneCame,
        Self::TooLate,
        Self::Emptied,
        Self::Expired,
        Self::DatagramSession,
        Self::PathChanged,
        Self::CookieAsked,
        Self::RelayServes,
        Self::RelayedSession,
        Self::LeftRelay,
        Self::BackToRelay,
    ];

    #[must_use]
    pub fn name(self) -> String {
        format!("{self:?}")
    }
}

/// How often each was met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Met([u64; Probe::ALL.len()]);

impl Default for Met {
    fn default() -> Self {
        Self([0; Probe::ALL.len()])
    }
}

impl Met {
    pub(crate) fn add(&mut self, probe: Probe) {
        self.0[probe as usize] += 1;
    }

    pub(crate) fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(sum, more)| *sum += more);
    }

    #[must_use]
    pub fn of(&self, probe: Probe) -> u64 {
        self.0[probe as usize]
    }

    pub(crate) fn event(&mut self, event: &Event) {
        let probe = match event {
            Event::Gap { .. } => Probe::Gap,
            Event::GapFilled { .. } => Probe::GapFilled,
            Event::Queued { duplicate: true, delivered: true, .. } => Probe::DuplicateDelivered,
            Event::Queued { duplicate: true, .. } => Probe::Duplicate,
            Event::Received { kind: Kind::Tombstone, .. } => Probe::TombstoneCame,
            Event::Received { body, .. } if body.len() > INLINE_BODY_BYTES => Probe::Chunks,
            Event::Disconnected { why: SessionEnd::Replaced, .. } => Probe::Replaced,
            Event::Disconnected { why: SessionEnd::Silent, .. } => Probe::Silent,
            Event::Disconnected { why: SessionEnd::Lost, .. } => Probe::Lost,
            Event::Disconnected { why: SessionEnd::Closed, .. } => Probe::Goodbye,
            Event::Attempt { outcome: AttemptOutcome::Superseded, .. } => Probe::Superseded,
            Event::Attempt { outcome: AttemptOutcome::HandshakeFailed, .. } => Probe::HandshakeFailed,
            Event::Attempt { outcome: AttemptOutcome::Refused, .. } => Probe::Refused,
            Event::Rejected { .. } => Probe::Rejected,
            Event::Connected { path: PathKind::Datagram, .. } => Probe::DatagramSession,
            Event::Connected { path: PathKind::Relayed, .. } => Probe::RelayedSession,
            Event::RelayChanged { up: true, .. } => Probe::RelayServes,
            Event::PathChanged { path: PathKind::Relayed, .. } => Probe::BackToRelay,
            Event::SendFailed { .. } => Probe::SendFailed,
            Event::Stopped => Probe::Stopped,
            Event::Misbehaved { .. } => Probe::Misbehaved,
            Event::RolledBack { .. } => Probe::RollbackNoticed,
            Event::Reissued { .. } => Probe::Reissued,
            Event::Recovered { .. } => Probe::Recovered,
            Event::Expired { .. } => Probe::Expired,
            Event::ConversationDeleted { .. } => Probe::Emptied,
            Event::DropFailed { why: Refusal::Delivered, .. } => Probe::TooLate,
            Event::Queued { .. }
            | Event::Received { .. }
            | Event::Disconnected { .. }
            | Event::Attempt { .. }
            | Event::Ready
            | Event::Gone { .. }
            | Event::SecondCopy { .. }
            | Event::Dropped { .. }
            | Event::DropFailed { .. }
            | Event::Delivered { .. }
            | Event::InviteStored { .. }
            | Event::ContactChanged { .. }
            | Event::ProfileChanged
            | Event::Connected { .. }
            | Event::PathChanged { .. }
            | Event::RelayChanged { .. }
            | Event::PortMapped { .. }
            | Event::Observed { .. }
            | Event::RoundTrip { .. }
            | Event::NextAttempt { .. }
            | Event::StoreFailed => return,
        };
        self.add(probe);
    }

    pub(crate) fn refused(&mut self, why: Refusal) {
        match why {
            Refusal::Busy => self.add(Probe::Busy),
            Refusal::Stopping => self.add(Probe::Stopping),
            Refusal::Delivered => self.add(Probe::TooLate),
            Refusal::UnknownContact
            | Refusal::Empty
            | Refusal::TooLong
            | Refusal::NotText
            | Refusal::QueueFull
            | Refusal::UnknownMessage
            | Refusal::NameTaken
            | Refusal::OwnTicket
            | Refusal::TooManyContacts
            | Refusal::TooManyInvites
            | Refusal::StoreFailed => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_probe_has_its_own_place_in_the_count() {
        for (index, probe) in Probe::ALL.iter().enumerate() {
            assert_eq!(*probe as usize, index, "{}", probe.name());
        }
    }
}
