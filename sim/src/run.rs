//! Runs many worlds on all cores, and adds up what came of them.

use crate::fault::Counts;
use crate::limits::{LOOK_EVERY, STUCK_LOOKS, TWICE_EVERY};
use crate::oracle::{Check, Violation};
use crate::probe::Met;
use crate::scenario::Scenario;
use crate::tracer::Print;
use crate::world::{Outcome, World};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

/// Sums over many worlds.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub worlds: u64,
    pub events: u64,
    pub lines: u64,
    pub sent: u64,
    pub delivered: u64,
    pub faults: Counts,
    pub met: Met,
    pub wire_bytes: u64,
    /// Simulated microseconds.
    pub simulated: u64,
    /// Longest time from the last fault until everything was delivered.
    pub slowest: (u64, u64),
    /// Worlds that were run a second time, to the same hash.
    pub twice: u64,
    /// The failure with the lowest seed.
    pub failure: Option<(u64, Violation)>,
}

impl Report {
    fn add(&mut self, outcome: &Outcome) {
        self.worlds += 1;
        self.events += outcome.events;
        self.lines += outcome.lines;
        self.sent += outcome.sent;
        self.delivered += outcome.delivered;
        self.faults.merge(&outcome.faults);
        self.met.merge(&outcome.met);
        self.wire_bytes += outcome.wire_bytes;
        self.simulated += outcome.ended;
        self.slowest = self.slowest.max((outcome.healed_after, outcome.seed));
        if let Some(violation) = &outcome.violation {
            self.failed(outcome.seed, violation.clone());
        }
    }

    fn failed(&mut self, seed: u64, violation: Violation) {
        if self.failure.as_ref().is_none_or(|(other, _)| seed < *other) {
            self.failure = Some((seed, violation));
        }
    }
}

/// One world from start to end. A panic in it is a violation like any other.
#[must_use]
pub fn one(scenario: Scenario, print: Print) -> Outcome {
    let seed = scenario.seed;
    let run = AssertUnwindSafe(|| World::new(scenario, print).run());
    catch_unwind(run).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Outcome {
            seed,
            violation: Some(Violation { check: Check::Panic, what: text.into() }),
            hash: [0; 32],
            events: 0,
            lines: 0,
            sent: 0,
            delivered: 0,
            faults: Counts::default(),
            met: Met::default(),
            wire_bytes: 0,
            ended: 0,
            healed_after: 0,
            moments: Vec::new(),
            traffic: Vec::new(),
        }
    })
}

/// Runs `count` seeds from `start` on `threads` threads; `scenario` makes a world of each. Ends early on a failure.
/// `stuck` is told of a world that does not come back from one of its nodes, with which nothing else can be done.
#[must_use]
pub fn many(
    start: u64,
    count: u64,
    threads: usize,
    scenario: impl Fn(u64) -> Scenario + Sync,
    stuck: impl Fn(u64) + Sync,
) -> Report {
    let (next, stop) = (AtomicU64::new(0), AtomicBool::new(false));
    let report = Mutex::new(Report::default());
    // What each thread is at, and how many of them there are.
    let slots: Vec<AtomicU64> = (0..threads.max(1)).map(|_| AtomicU64::new(0)).collect();
    let working = AtomicUsize::new(slots.len());
    std::thread::scope(|scope| {
        for slot in &slots {
            let (next, stop, report, working, scenario) = (&next, &stop, &report, &working, &scenario);
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= count {
                        break;
                    }
                    slot.store(start + index, Ordering::Relaxed);
                    work(index, scenario, start + index, report);
                    let failed = report.lock().is_ok_and(|report| report.failure.is_some());
                    stop.fetch_or(failed, Ordering::Relaxed);
                }
                slot.store(u64::MAX, Ordering::Relaxed);
                working.fetch_sub(1, Ordering::Relaxed);
            });
        }
        watch(&slots, &working, &stuck);
    });
    report.into_inner().unwrap_or_default()
}

/// One seed, and for a sample of them once more.
fn work(index: u64, scenario: &(impl Fn(u64) -> Scenario + Sync), seed: u64, report: &Mutex<Report>) {
    let outcome = one(scenario(seed), Print::Nothing);
    let twice = index.is_multiple_of(TWICE_EVERY);
    let same = !twice || one(scenario(seed), Print::Nothing).hash == outcome.hash;
    // A thread that panicked outside of a world would end the program anyway.
    let Ok(mut report) = report.lock() else { return };
    report.add(&outcome);
    report.twice += u64::from(twice);
    if !same {
        let what = "a second run of this seed took another way".to_owned();
        report.failed(seed, Violation { check: Check::Determinism, what });
    }
}

/// Looks at the threads until they are done, and tells of one that stays at the same seed for too many looks.
fn watch(slots: &[AtomicU64], working: &AtomicUsize, stuck: &(impl Fn(u64) + Sync)) {
    let mut seen: Vec<(u64, u32)> = vec![(u64::MAX, 0); slots.len()];
    while working.load(Ordering::Relaxed) > 0 {
        std::thread::sleep(LOOK_EVERY);
        for (slot, (seed, looks)) in slots.iter().zip(&mut seen) {
            let now = slot.load(Ordering::Relaxed);
            *looks = if now == *seed && now != u64::MAX { *looks + 1 } else { 0 };
            *seed = now;
            if *looks >= STUCK_LOOKS {
                stuck(now);
                *looks = 0;
            }
        }
    }
}
