//! What can be held against a node by who sees nothing of it but its datagrams: where they go, how much before anybody
//! answered, and how they are numbered.
//!
//! An address has answered once something of this run reached who is really there, and something of his came back: from
//! there, or on another way, which a relay may be part of (RFC 9000, section 8.2.3: an answer proves the way of the
//! challenge, whatever way it takes itself). Who only lies about where he is, or says again what others said, never does.

use crate::limits::{CHALLENGE_BYTES, SLACK_RESPONSES, WATCHED};
use crate::oracle::{Check, Violation};
use crate::queue::Run;
use peerlink_core::limits::{AMPLIFICATION, COOKIE_ABOVE, HANDSHAKE_TIMEOUT};
use peerlink_core::wire::stun::Message;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

/// First bytes of packets (see the core's format of packets).
pub(crate) const INITIATION: u8 = 0xc1;
pub(crate) const RESPONSE: u8 = 0xc2;
pub(crate) const DATA: u8 = 0xc4;
pub(crate) const COOKIE: u8 = 0xc5;
/// Where a response says what the responder calls the session.
const RESPONDER: std::ops::Range<usize> = 5..9;
/// Type, name of the session at the receiver, number.
pub(crate) const DATA_HEADER: usize = 1 + 4 + 8;

/// What passed between one run of a node and one address.
#[derive(Debug, Clone, Default)]
struct Account {
    came: usize,
    sent: usize,
    /// Runs that know that something reached who is there: he, and whoever heard of him since.
    aware: BTreeSet<Run>,
    answered: bool,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct Watch {
    accounts: BTreeMap<(Run, SocketAddr), Account>,
    /// Those of which somebody is aware, and who did not answer yet.
    open: BTreeSet<(Run, SocketAddr)>,
    /// By sender and by the name that the receiver gave the session: the last number, and where it went.
    numbers: BTreeMap<(Run, u32), (u64, SocketAddr)>,
    /// Sessions that were responded to and that nobody finished yet, as far as can be seen: when first, where to, and
    /// what the responder calls them.
    responses: BTreeMap<Run, VecDeque<(u64, SocketAddr, Vec<u8>)>>,
    /// Every address that some host ever had, or was seen at.
    known: BTreeSet<SocketAddr>,
}

fn wrong(check: Check, what: String) -> Violation {
    Violation { check, what }
}

impl Watch {
    pub(crate) fn knows(&mut self, address: SocketAddr) {
        self.known.insert(address);
    }

    /// A run sends a datagram, when its own clock shows `now`. `true`: an older session goes another way from now on.
    ///
    /// # Errors
    /// What of it no correct node does.
    pub(crate) fn sent(
        &mut self,
        now: u64,
        run: Run,
        to: SocketAddr,
        bytes: &[u8],
    ) -> Result<bool, Violation> {
        let kind = bytes.first().copied().unwrap_or(0);
        let account = self.accounts.entry((run, to)).or_default();
        if account.came == 0 && !self.known.contains(&to) {
            return Err(wrong(Check::Amplification, format!("a datagram goes to {to}, who asked for none")));
        }
        // Who dials has not heard of the other yet, and where a peer says that it is, is asked whether it is there. How
        // often that may be tried is bounded elsewhere.
        let asks = kind == DATA && bytes.len() == CHALLENGE_BYTES && self.known.contains(&to);
        // A relay is asked from where it sees us, a few times, before it may have heard of us.
        let question = self.known.contains(&to) && matches!(Message::decode(bytes), Ok(Message::Request(_)));
        if kind != INITIATION && !asks && !question {
            account.sent += bytes.len();
            if !account.answered && account.sent > AMPLIFICATION * account.came {
                let what =
                    format!("{} bytes go to who sent {} and never answered", account.sent, account.came);
                return Err(wrong(Check::Amplification, what));
            }
        }
        match kind {
            RESPONSE => self.responded(now, run, to, bytes).map(|()| false),
            DATA => self.numbered(run, to, bytes),
            _ => Ok(false),
        }
    }

    /// Beyond a few sessions that are not yet known to anybody, who begins another must show a cookie. Whoever did so has
    /// answered.
    fn responded(&mut self, now: u64, run: Run, to: SocketAddr, bytes: &[u8]) -> Result<(), Violation> {
        if self.accounts.get(&(run, to)).is_some_and(|account| account.answered) {
            return Ok(());
        }
        let since = now.saturating_sub(u64::try_from(HANDSHAKE_TIMEOUT.as_micros()).unwrap_or(u64::MAX));
        let open = self.responses.entry(run).or_default();
        open.retain(|(at, ..)| *at > since);
        let name = bytes.get(RESPONDER).unwrap_or_default().to_vec();
        if !open.iter().any(|(_, other, called)| *other == to && *called == name) {
            open.push_back((now, to, name));
        }
        if open.len() > COOKIE_ABOVE + SLACK_RESPONSES {
            let what = format!("{} who showed nothing are answered at once", open.len());
            return Err(wrong(Check::Bounded, what));
        }
        Ok(())
    }

    /// No key meets a number twice. The key is that of the session and of this direction of it, and the receiver's name
    /// for the session tells them apart.
    fn numbered(&mut self, run: Run, to: SocketAddr, bytes: &[u8]) -> Result<bool, Violation> {
        let header = bytes.first_chunk::<DATA_HEADER>();
        let Some([_, a, b, c, d, number @ ..]) = header.filter(|_| bytes.len() > DATA_HEADER) else {
            return Err(wrong(Check::Contract, "a packet ends before its pieces begin".into()));
        };
        let (name, number) = (u32::from_be_bytes([*a, *b, *c, *d]), u64::from_be_bytes(*number));
        if self.numbers.len() >= WATCHED {
            self.numbers.pop_first();
        }
        match self.numbers.insert((run, name), (number, to)) {
            Some((before, _)) if before >= number => {
                Err(wrong(Check::NonceOnce, format!("a key seals number {number} after number {before}")))
            }
            Some((_, where_to)) => Ok(where_to != to),
            None => Ok(false),
        }
    }

    /// A datagram reaches a run, as if from `from`. `by`: the run that really sent it, if it is what that run sent.
    pub(crate) fn came(&mut self, run: Run, by: Option<Run>, from: SocketAddr, to: SocketAddr, bytes: usize) {
        let account = self.accounts.entry((run, from)).or_default();
        account.came += bytes;
        if let Some(by) = by {
            // There is somebody, as others see him: behind a box, perhaps.
            self.known.insert(from);
            account.answered |= !account.aware.is_empty();
            let reached = self.accounts.entry((by, to)).or_default();
            reached.aware.insert(run);
            if !reached.answered {
                self.open.insert((by, to));
            }
            self.hears(run, by);
        }
    }

    /// Something of one run reached another, whatever carried it.
    pub(crate) fn hears(&mut self, run: Run, of: Run) {
        let accounts = &mut self.accounts;
        self.open.retain(|(owner, address)| {
            let Some(account) = accounts.get_mut(&(*owner, *address)) else { return false };
            if account.aware.contains(&of) {
                account.aware.insert(run);
                account.answered |= *owner == run;
            }
            !account.answered
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Run = Run { host: 0, incarnation: 0 };
    const BOB: Run = Run { host: 1, incarnation: 0 };

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([5, 0, 0, 1], port))
    }

    fn data(name: u8, number: u8) -> Vec<u8> {
        let mut packet = vec![DATA, 0, 0, 0, name, 0, 0, 0, 0, 0, 0, 0, number];
        packet.resize(1000, 7);
        packet
    }

    #[test]
    fn a_number_counts_for_its_key_alone() {
        let mut watch = Watch::default();
        watch.accounts.insert((ALICE, at(1)), Account { answered: true, came: 1, ..Account::default() });
        watch.accounts.insert((ALICE, at(2)), Account { answered: true, came: 1, ..Account::default() });
        assert_eq!(watch.sent(0, ALICE, at(1), &data(1, 5)), Ok(false));
        assert_eq!(watch.sent(0, ALICE, at(1), &data(2, 5)), Ok(false));
        assert_eq!(watch.sent(0, ALICE, at(2), &data(1, 6)), Ok(true));
        let twice = watch.sent(0, ALICE, at(2), &data(1, 6)).unwrap_err();
        assert_eq!(twice.check, Check::NonceOnce);
    }

    #[test]
    fn who_never_answers_gets_three_times_what_he_sent() {
        let mut watch = Watch::default();
        assert_eq!(watch.sent(0, ALICE, at(1), &data(1, 1)).unwrap_err().check, Check::Amplification);
        // Somebody else's packet, sent again.
        watch.came(ALICE, None, at(1), at(9), 600);
        assert_eq!(watch.sent(0, ALICE, at(1), &data(1, 2)), Ok(false));
        assert_eq!(watch.sent(0, ALICE, at(1), &data(1, 3)).unwrap_err().check, Check::Amplification);
        // Somebody who is there, and heard us.
        watch.came(ALICE, Some(BOB), at(2), at(9), 700);
        assert_eq!(watch.sent(0, ALICE, at(2), &data(1, 4)), Ok(true));
        watch.came(BOB, Some(ALICE), at(9), at(2), 1000);
        watch.came(ALICE, Some(BOB), at(2), at(9), 10);
        for number in 5..50 {
            assert_eq!(watch.sent(0, ALICE, at(2), &data(1, number)), Ok(false));
        }
    }

    #[test]
    fn who_answers_on_another_way_has_answered() {
        const RELAY: Run = Run { host: 2, incarnation: 0 };
        let mut watch = Watch::default();
        watch.came(ALICE, Some(BOB), at(1), at(9), 700);
        assert_eq!(watch.sent(0, ALICE, at(1), &data(1, 1)), Ok(false));
        watch.hears(RELAY, BOB);
        watch.hears(ALICE, RELAY);
        // What Bob said before anything reached him is no answer, and a relay that only forwards others is none.
        assert_eq!(watch.clone().sent(0, ALICE, at(1), &data(1, 2)), Ok(false));
        let over =
            |watch: &mut Watch| (3..6).any(|number| watch.sent(0, ALICE, at(1), &data(1, number)).is_err());
        assert!(over(&mut watch.clone()));
        watch.came(BOB, Some(ALICE), at(9), at(1), 1000);
        watch.hears(ALICE, RELAY);
        assert!(over(&mut watch.clone()), "the relay has not heard of Bob since");
        watch.hears(RELAY, BOB);
        assert!(over(&mut watch.clone()), "nothing came to Alice since");
        watch.hears(ALICE, RELAY);
        assert!(!over(&mut watch));
    }

    #[test]
    fn not_everybody_is_answered_who_showed_nothing() {
        let mut watch = Watch::default();
        let answered = (0..200u16).take_while(|n| {
            watch.came(ALICE, None, at(*n), at(9), 320);
            watch.sent(u64::from(*n) + 1, ALICE, at(*n), &[RESPONSE; 200]).is_ok()
        });
        assert_eq!(answered.count(), COOKIE_ABOVE + SLACK_RESPONSES);
    }
}
