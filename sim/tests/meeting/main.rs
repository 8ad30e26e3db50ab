//! Two people behind any boxes, and a relay: what gets the first message through, when, and which path carries them in the
//! end. It must be the one that the closed form expects ([`peerlink_sim::nat::oracle`]), which knows nothing of nodes.

mod figures;
mod matrix;

use peerlink_core::api::PathKind;
use peerlink_sim::limits::{MICROS_PER_MILLI as MILLI, MICROS_PER_SECOND as SECOND};
use peerlink_sim::{Climate, Home, Op, Outcome, Print, Scenario, Turn, World};

const ALICE: usize = 0;
/// Adds Alice, whom he has a ticket of, and writes to her at once: the caller.
const BOB: usize = 1;
/// By then both have been served by their relays for long.
const MEET: u64 = 30 * SECOND;
/// And by then nothing changes any more.
const STAY: u64 = 60 * SECOND;
/// One round trip between any two hosts.
const TRIP: u64 = 100 * MILLI;

/// Good weather in which nothing takes time but the way.
fn weather() -> Climate {
    Climate { latency: TRIP / 2, jitter: 0, commit: 50, ..Climate::default() }
}

/// Bob calls Alice.
fn call(seed: u64, [alice, bob]: [Home; 2]) -> Scenario {
    let mut scenario = Scenario { datagrams: true, relays: 1, meets: MEET, ..Scenario::calm(seed) };
    (scenario.homes[ALICE], scenario.homes[BOB]) = (alice, bob);
    (scenario.climate, scenario.healed) = (weather(), MEET + STAY);
    scenario.with(MEET - 1, Op::Send { host: BOB, to: ALICE, bytes: 100 })
}

fn run(scenario: Scenario) -> Outcome {
    let outcome = World::new(scenario, Print::Nothing).run();
    assert_eq!(outcome.violation, None);
    assert_eq!(outcome.sent, outcome.delivered);
    outcome
}

/// What came of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Call {
    /// The path that Alice had when the first message came, and the one that both have in the end.
    first: PathKind,
    last: [Option<PathKind>; 2],
    /// From when Bob has stored the contact: to the first message, and until both are on a path that stays. Microseconds.
    message: u64,
    settled: u64,
}

impl Call {
    /// Both sides are on one of these.
    fn is_on(&self, wanted: &[PathKind]) -> bool {
        self.last[0] == self.last[1] && self.last[0].is_some_and(|last| wanted.contains(&last))
    }

    fn of(outcome: &Outcome) -> Self {
        let at = |host, turn| outcome.moments.iter().position(|it| it.host == host && it.turn == turn);
        let added = at(BOB, Turn::Added).unwrap();
        let came = at(ALICE, Turn::Came).unwrap();
        let path = |host: usize, until: usize| {
            let turns = outcome.moments[..until].iter().rev().filter(move |it| it.host == host);
            turns
                .filter_map(|it| if let Turn::Path(path) = it.turn { Some((it.at, path)) } else { None })
                .next()
        };
        let all = outcome.moments.len();
        let last = [ALICE, BOB].map(|host| path(host, all));
        let since = |at: u64| at - outcome.moments[added].at;
        Self {
            first: path(ALICE, came).and_then(|(_, path)| path).unwrap(),
            last: last.map(|last| last.and_then(|(_, path)| path)),
            message: since(outcome.moments[came].at),
            settled: last.iter().flatten().map(|(at, _)| since(*at)).max().unwrap(),
        }
    }
}

/// In round trips.
fn trips(micros: u64) -> String {
    let tenths = (micros * 10 + TRIP / 2) / TRIP;
    format!("{}.{}", tenths / 10, tenths % 10)
}

const fn word(path: PathKind) -> &'static str {
    match path {
        PathKind::Stream => "stream",
        PathKind::Datagram => "datagram",
        PathKind::Relayed => "relay",
    }
}
