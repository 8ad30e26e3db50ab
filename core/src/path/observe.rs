//! What others see of this node: from where its datagrams come, and what the boxes on the way do with them.
//!
//! Servers are asked by STUN (RFC 8489) from the socket that everything leaves from. Two of them that see the same address
//! show a mapping that does not depend on who is spoken to (RFC 4787, section 4.1): then a peer can be told an address at
//! which it finds us. A server that has a second address (RFC 5780) also shows what the boxes let in, by answering
//! from where nobody was spoken to; and, if it is the only server, what the mapping depends on.
//!
//! An answer counts if it comes from where it must and names the question by its unpredictable transaction. It is still what
//! somebody says: it is told to peers as one place among several, and decides nothing.

use crate::api::{NatFiltering, NatMapping};
use crate::bounded::List;
use crate::limits::{OBSERVERS, STUN_FIRST, STUN_TRIES};
use crate::rng::Rng;
use crate::time::Instant;
use crate::wire::stun::{Change, Message, Request, Success, Transaction};
use alloc::vec::Vec;
use core::net::SocketAddr;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// Where do you see me?
    Mapping,
    /// The same, of the second address of a server that was asked before.
    Elsewhere,
    /// Answer from another address and port.
    OtherAddress,
    /// Answer from another port.
    OtherPort,
}

#[derive(Debug, Clone, Copy)]
struct Question {
    kind: Kind,
    to: SocketAddr,
    /// From where the answer must come.
    from: SocketAddr,
    transaction: Transaction,
    tries: u32,
    due: Instant,
    answer: Option<Success>,
}

impl Question {
    const fn is_open(&self) -> bool {
        self.answer.is_none() && self.tries < STUN_TRIES
    }
}

/// One round of questions.
#[derive(Debug, Default)]
pub(crate) struct Observer {
    questions: List<Question, OBSERVERS>,
    /// The round ended, and that was noticed.
    told: bool,
}

impl Observer {
    /// Begins a round: these servers are asked.
    pub(crate) fn begin(&mut self, now: Instant, rng: &mut Rng, servers: impl Iterator<Item = SocketAddr>) {
        self.questions.clear();
        self.told = false;
        for server in servers {
            if !self.questions.iter().any(|question| question.to == server) {
                self.ask(now, rng, Kind::Mapping, server, server);
            }
        }
    }

    fn ask(&mut self, now: Instant, rng: &mut Rng, kind: Kind, to: SocketAddr, from: SocketAddr) {
        let transaction = rng.bytes();
        let question = Question { kind, to, from, transaction, tries: 0, due: now, answer: None };
        // As many as fit: a few are enough.
        let _surplus = self.questions.push(question);
    }

    pub(crate) fn is_running(&self) -> bool {
        !self.told && !self.questions.is_empty()
    }

    /// When to look again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let waiting = self.questions.iter().filter(|question| question.answer.is_none());
        if self.told { None } else { waiting.map(|question| question.due).min() }
    }

    /// The requests that are due, and where they go.
    pub(crate) fn leave(&mut self, now: Instant) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut out = Vec::new();
        for question in self.questions.iter_mut().filter(|question| question.is_open() && question.due <= now)
        {
            let change = Change {
                ip: question.kind == Kind::OtherAddress,
                port: matches!(question.kind, Kind::OtherAddress | Kind::OtherPort),
            };
            let request = Request { transaction: question.transaction, change, ..Request::default() };
            let mut bytes = Vec::new();
            request.encode(&mut bytes, 0);
            out.push((question.to, bytes));
            // 500 ms, 1 s, 2 s: RFC 8489, section 6.2.1, with fewer repetitions.
            question.due = now + STUN_FIRST * (1 << question.tries.min(8));
            question.tries += 1;
        }
        out
    }

    /// Takes an answer; the address that it states. What nobody asked for is nothing.
    pub(crate) fn answered(
        &mut self,
        now: Instant,
        rng: &mut Rng,
        from: SocketAddr,
        bytes: &[u8],
    ) -> Option<SocketAddr> {
        let message = Message::decode(bytes).ok()?;
        let (transaction, success) = match &message {
            Message::Success(success) => (success.transaction, Some(*success)),
            Message::Failure(failure) => (failure.transaction, None),
            Message::Request(_) | Message::Indication(_) => return None,
        };
        let question = self
            .questions
            .iter_mut()
            .find(|question| question.answer.is_none() && question.transaction == transaction)?;
        let Some(success) = success else {
            // It will not answer, and says so from its own address.
            if question.to == from {
                question.tries = STUN_TRIES;
                question.due = now;
            }
            return None;
        };
        if question.from != from {
            return None;
        }
        question.answer = Some(success);
        let (kind, to) = (question.kind, question.to);
        let known = |kind: Kind| self.questions.iter().any(|question| question.kind == kind);
        if let (Kind::Mapping, Some(other)) = (kind, success.other.filter(|other| is_second(to, other)))
            && !known(Kind::OtherAddress)
        {
            self.ask(now, rng, Kind::OtherAddress, to, other);
            self.ask(now, rng, Kind::OtherPort, to, SocketAddr::new(to.ip(), other.port()));
        }
        Some(success.mapped)
    }

    /// Whether the round ended just now. What is still to be asked is asked first: of the second address of a server, only
    /// after that had its chance to answer from where nobody was spoken to.
    pub(crate) fn ends(&mut self, now: Instant, rng: &mut Rng) -> bool {
        let over =
            |question: &Question| question.answer.is_some() || (!question.is_open() && question.due <= now);
        if self.told || self.questions.is_empty() || !self.questions.iter().all(over) {
            return false;
        }
        let alone = self.answers().count() == 1 && !self.questions.iter().any(|q| q.kind == Kind::Elsewhere);
        let other = self.questions.iter().find(|q| q.kind == Kind::OtherAddress).map(|q| q.from);
        if let Some(other) = other.filter(|_| alone) {
            self.ask(now, rng, Kind::Elsewhere, other, other);
            return false;
        }
        self.told = true;
        true
    }

    /// Whether somebody was asked and did not answer.
    pub(crate) fn has_unanswered(&self) -> bool {
        self.questions.iter().any(|question| question.kind == Kind::Mapping && question.answer.is_none())
    }

    /// Who was asked, and where he sees us, for one family: IPv4 if anybody answered there.
    fn answers(&self) -> impl Iterator<Item = (SocketAddr, SocketAddr)> {
        let told = |question: &Question| match question.kind {
            Kind::Mapping | Kind::Elsewhere => question.answer.map(|answer| (question.to, answer.mapped)),
            Kind::OtherAddress | Kind::OtherPort => None,
        };
        let v4 = self.questions.iter().filter_map(told).any(|(to, _)| to.is_ipv4());
        self.questions.iter().filter_map(told).filter(move |(to, _)| to.is_ipv4() == v4)
    }

    /// What the boxes on the way make of our address.
    pub(crate) fn mapping(&self, local: &[SocketAddr]) -> NatMapping {
        let mut answers = self.answers().map(|(_, mapped)| mapped);
        let Some(first) = answers.next() else { return NatMapping::Unknown };
        let mut count = 1;
        for other in answers {
            if other != first {
                return NatMapping::EndpointDependent;
            }
            count += 1;
        }
        if local.contains(&first) {
            NatMapping::None
        } else if count > 1 {
            NatMapping::EndpointIndependent
        } else {
            NatMapping::Translated
        }
    }

    /// What they let in.
    pub(crate) fn filtering(&self) -> NatFiltering {
        let answered = |kind: Kind| {
            let question = self.questions.iter().find(|question| question.kind == kind);
            question.map(|question| question.answer.is_some())
        };
        match (answered(Kind::OtherAddress), answered(Kind::OtherPort)) {
            (Some(true), _) => NatFiltering::EndpointIndependent,
            (Some(false), Some(true)) => NatFiltering::AddressDependent,
            (Some(false), Some(false)) => NatFiltering::AddressAndPortDependent,
            (None, _) | (_, None) => NatFiltering::Unknown,
        }
    }
}

/// Whether this is what RFC 5780 calls the other address of that server: nothing of it is the same.
fn is_second(server: SocketAddr, other: &SocketAddr) -> bool {
    server.is_ipv4() == other.is_ipv4() && server.ip() != other.ip() && server.port() != other.port()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::STUN_SERVERS;
    use crate::time::Duration;
    use crate::wire::stun::Failure;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    /// A round against a world in which `answer` says what comes of one request: from where, and what.
    struct Round {
        observer: Observer,
        rng: Rng,
        now: Instant,
        /// Every request: when, to whom, and what it asks for.
        sent: Vec<(Instant, SocketAddr, Change)>,
    }

    impl Round {
        fn new(servers: &[&str]) -> Self {
            let (mut observer, mut rng) = (Observer::default(), Rng::from_seed([3; 32]));
            let now = Instant::from_micros(5_000_000);
            observer.begin(now, &mut rng, servers.iter().map(|server| at(server)));
            Self { observer, rng, now, sent: Vec::new() }
        }

        fn run(
            mut self,
            mut answer: impl FnMut(SocketAddr, &Request) -> Option<(SocketAddr, Vec<u8>)>,
        ) -> Self {
            for _ in 0..100 {
                if self.observer.ends(self.now, &mut self.rng) {
                    assert_eq!(self.observer.deadline(), None, "a round that is over is quiet");
                    return self;
                }
                for (to, bytes) in self.observer.leave(self.now) {
                    let Ok(Message::Request(request)) = Message::decode(&bytes) else { panic!("{bytes:?}") };
                    self.sent.push((self.now, to, request.change));
                    if let Some((from, answer)) = answer(to, &request) {
                        self.observer.answered(self.now, &mut self.rng, from, &answer);
                    }
                }
                if let Some(next) = self.observer.deadline() {
                    self.now = self.now.max(next);
                }
            }
            panic!("it never ends");
        }

        fn verdict(&self) -> (NatMapping, NatFiltering) {
            (self.observer.mapping(&[at("10.0.0.2:7000")]), self.observer.filtering())
        }
    }

    fn says(request: &Request, mapped: &str, other: Option<&str>) -> Vec<u8> {
        let success = Success {
            transaction: request.transaction,
            mapped: at(mapped),
            other: other.map(at),
            origin: None,
        };
        let mut out = Vec::new();
        success.encode(&mut out, usize::MAX);
        out
    }

    const ONE: &str = "203.0.113.1:3478";
    const TWO: &str = "198.51.100.1:3478";
    const SECOND: &str = "203.0.113.9:3479";

    #[test]
    fn two_that_see_the_same_address_show_that_it_is_the_same_for_all() {
        let round =
            Round::new(&[ONE, TWO]).run(|to, request| Some((to, says(request, "192.0.2.1:7000", None))));
        assert_eq!(round.verdict(), (NatMapping::EndpointIndependent, NatFiltering::Unknown));
        assert_eq!(round.sent.len(), 2, "who answers is not asked again");
        let round = Round::new(&[ONE, TWO]).run(|to, request| {
            let seen = if to == at(ONE) { "192.0.2.1:7000" } else { "192.0.2.1:7001" };
            Some((to, says(request, seen, None)))
        });
        assert_eq!(round.verdict().0, NatMapping::EndpointDependent);
        let round = Round::new(&[ONE]).run(|to, request| Some((to, says(request, "192.0.2.1:7000", None))));
        assert_eq!(round.verdict().0, NatMapping::Translated, "one alone does not show it");
        let round = Round::new(&[ONE]).run(|to, request| Some((to, says(request, "10.0.0.2:7000", None))));
        assert_eq!(round.verdict().0, NatMapping::None);
    }

    #[test]
    fn who_does_not_answer_is_asked_three_times_with_growing_waits() {
        let round = Round::new(&[ONE]).run(|_, _| None);
        assert_eq!(round.verdict(), (NatMapping::Unknown, NatFiltering::Unknown));
        let times: Vec<Duration> = round
            .sent
            .iter()
            .map(|(when, ..)| when.saturating_since(Instant::from_micros(5_000_000)))
            .collect();
        assert_eq!(times, [0, 500, 1500].map(Duration::from_millis));
        assert_eq!(round.now.saturating_since(Instant::from_micros(5_000_000)), Duration::from_millis(3500));
        assert!(round.observer.has_unanswered());
    }

    /// A server with two addresses behind whose client a box filters: which of the answers from elsewhere get in.
    fn filtered(other_address: bool, other_port: bool) -> Round {
        Round::new(&[ONE]).run(move |to, request| {
            let from = match request.change {
                Change { ip: true, .. } if other_address => at(SECOND),
                Change { ip: false, port: true } if other_port => at("203.0.113.1:3479"),
                Change { ip: false, port: false } => to,
                Change { .. } => return None,
            };
            Some((from, says(request, "192.0.2.1:7000", Some(SECOND))))
        })
    }

    #[test]
    fn a_server_with_two_addresses_shows_what_boxes_let_in() {
        for (address, port, filtering) in [
            (true, true, NatFiltering::EndpointIndependent),
            (false, true, NatFiltering::AddressDependent),
            (false, false, NatFiltering::AddressAndPortDependent),
        ] {
            let round = filtered(address, port);
            assert_eq!(round.verdict(), (NatMapping::EndpointIndependent, filtering));
            let elsewhere = round.sent.iter().position(|(_, to, _)| *to == at(SECOND)).unwrap();
            let asked = |(_, _, change): &(Instant, SocketAddr, Change)| *change != Change::default();
            let last = round.sent.iter().rposition(asked).unwrap();
            assert!(elsewhere > last, "spoken to only after it could show that it gets in unasked");
        }
    }

    #[test]
    fn a_server_alone_shows_by_its_second_address_what_the_mapping_depends_on() {
        let round = Round::new(&[ONE]).run(|to, request| {
            let seen = if to == at(SECOND) { "192.0.2.1:7001" } else { "192.0.2.1:7000" };
            (request.change == Change::default()).then(|| (to, says(request, seen, Some(SECOND))))
        });
        assert_eq!(round.verdict().0, NatMapping::EndpointDependent);
    }

    #[test]
    fn an_answer_counts_from_where_it_must_come_and_for_its_question() {
        let stranger =
            Round::new(&[ONE]).run(|_, request| Some((at(TWO), says(request, "192.0.2.1:7000", None))));
        assert_eq!(stranger.verdict().0, NatMapping::Unknown);
        let guessed = Round::new(&[ONE]).run(|to, request| {
            let other = Request { transaction: [9; 12], ..request.clone() };
            Some((to, says(&other, "192.0.2.1:7000", None)))
        });
        assert_eq!(guessed.verdict().0, NatMapping::Unknown);
        // "From elsewhere" means from where it said that is.
        let liar =
            Round::new(&[ONE]).run(|to, request| Some((to, says(request, "192.0.2.1:7000", Some(SECOND)))));
        assert_eq!(liar.verdict().1, NatFiltering::AddressAndPortDependent);
        // A second address that is half the first shows nothing, and may be anybody's who shares it.
        let half = Round::new(&[ONE])
            .run(|to, request| Some((to, says(request, "192.0.2.1:7000", Some("203.0.113.1:9")))));
        assert_eq!((half.verdict().1, half.sent.len()), (NatFiltering::Unknown, 1));
    }

    #[test]
    fn a_server_that_cannot_is_believed_from_its_own_address_alone() {
        let refuses = |from: &'static str| {
            Round::new(&[ONE]).run(move |_, request| {
                let failure = Failure::cannot_change(request);
                let mut out = Vec::new();
                failure.encode(&mut out);
                Some((at(from), out))
            })
        };
        assert_eq!(refuses(ONE).sent.len(), 1);
        assert_eq!(refuses(TWO).sent.len(), STUN_TRIES as usize);
    }

    #[test]
    fn however_many_servers_there_are_few_are_asked() {
        let many: Vec<SocketAddr> = (0..100).map(|n| SocketAddr::from(([203, 0, 113, n], 3478))).collect();
        let (mut observer, mut rng) = (Observer::default(), Rng::from_seed([3; 32]));
        observer.begin(Instant::ZERO, &mut rng, many.into_iter());
        assert!(observer.leave(Instant::ZERO).len() <= OBSERVERS && OBSERVERS > STUN_SERVERS);
    }
}
