//! Makes a failing scenario smaller while it fails in the same way: fewer faults first, then fewer messages, then less
//! time and better weather. Fates are keyed, so what is taken away leaves the rest as it was.

use crate::homes::Home;
use crate::limits::HOSTS;
use crate::oracle::{Check, Violation};
use crate::run::one;
use crate::scenario::{Climate, Scenario};
use crate::tracer::Print;

/// In what way a scenario fails: the check, and what it saw without the numbers and names of things that are drawn anew
/// in every run. Who it was about stays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    pub check: Check,
    pub words: String,
}

impl Fingerprint {
    fn of(violation: &Violation) -> Self {
        let drawn = |word: &str| {
            let hex = word.len() >= 16 && word.trim_end_matches(':').chars().all(|c| c.is_ascii_hexdigit());
            hex || word.contains(|c: char| c.is_ascii_digit())
        };
        let words = violation.what.split_ascii_whitespace().map(|word| {
            // A host that is named by its number is a role.
            if drawn(word) && !word.ends_with(':') { "#" } else { word }
        });
        Self { check: violation.check, words: words.collect::<Vec<_>>().join(" ") }
    }
}

/// The smallest scenario that was found to fail as `scenario` does; `None` if it does not fail.
#[must_use]
pub fn shrink(scenario: &Scenario) -> Option<Scenario> {
    let way = fails(scenario)?;
    let mut smallest = scenario.clone();
    loop {
        let before = smallest.clone();
        fewer_faults(&mut smallest, &way);
        for simplify in SIMPLER {
            let mut candidate = smallest.clone();
            simplify(&mut candidate);
            keep_if_it_fails(&mut smallest, candidate, &way);
        }
        if smallest == before {
            return Some(smallest);
        }
    }
}

/// How a scenario fails, if it does.
#[must_use]
pub fn fails(scenario: &Scenario) -> Option<Fingerprint> {
    one(scenario.clone(), Print::Nothing).violation.as_ref().map(Fingerprint::of)
}

fn keep_if_it_fails(smallest: &mut Scenario, candidate: Scenario, way: &Fingerprint) -> bool {
    let better = candidate != *smallest && fails(&candidate).as_ref() == Some(way);
    if better {
        *smallest = candidate;
    }
    better
}

/// ddmin (Zeller, Hildebrandt, 2002) over the script: one of so many parts alone, or all but one of them, in ever
/// smaller parts.
fn fewer_faults(smallest: &mut Scenario, way: &Fingerprint) {
    let mut parts = 2;
    while smallest.script.len() >= 2 || parts == 2 && !smallest.script.is_empty() {
        let size = smallest.script.len().div_ceil(parts);
        if subset(smallest, size, way) {
            parts = 2;
        } else if complement(smallest, size, way) {
            parts = (parts - 1).max(2);
        } else if size <= 1 {
            return;
        } else {
            parts = (2 * parts).min(smallest.script.len());
        }
    }
}

fn subset(smallest: &mut Scenario, size: usize, way: &Fingerprint) -> bool {
    // With two parts the complements are these.
    (0..smallest.script.len()).step_by(size).any(|at| {
        let mut candidate = smallest.clone();
        let end = (at + size).min(candidate.script.len());
        candidate.script = candidate.script[at..end].to_vec();
        candidate.script.len() < smallest.script.len() && keep_if_it_fails(smallest, candidate, way)
    })
}

fn complement(smallest: &mut Scenario, size: usize, way: &Fingerprint) -> bool {
    (0..smallest.script.len()).step_by(size).any(|at| {
        let mut candidate = smallest.clone();
        let end = (at + size).min(candidate.script.len());
        candidate.script.drain(at..end);
        keep_if_it_fails(smallest, candidate, way)
    })
}

/// What makes a scenario simpler, whatever it is.
const SIMPLER: [fn(&mut Scenario); 22] = [
    |s| s.relays = s.relays.saturating_sub(1),
    |s| s.homes = [Home::Open; HOSTS],
    |s| s.lives = 0,
    |s| (s.datagrams, s.streams) = (false, true),
    |s| (s.climate.loss, s.climate.doubled) = (0, 0),
    |s| s.messages /= 2,
    |s| s.messages -= s.messages.min(1),
    |s| s.healed -= s.healed / 4,
    |s| s.long = 0,
    |s| s.repeat = 0,
    |s| s.expire = 0,
    |s| s.lively = false,
    |s| s.flood = false,
    |s| s.looking = true,
    |s| s.climate.lateness = 0,
    |s| s.climate.defer = 0,
    |s| (s.climate.read, s.climate.segment) = (Climate::default().read, Climate::default().segment),
    |s| s.climate.window = Climate::default().window,
    |s| (s.climate.latency, s.climate.jitter) = (Climate::default().latency, 0),
    |s| s.climate.commit = Climate::default().commit,
    |s| s.climate.wall_skew_ms = Climate::default().wall_skew_ms,
    |s| s.climate.drift_ppm = Climate::default().drift_ppm,
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::MICROS_PER_SECOND as SECOND;
    use crate::op::Op;

    #[test]
    fn of_many_faults_those_are_left_that_are_needed() {
        let mut scenario = Scenario::from_seed(4);
        scenario.script = (0..20).map(|n| (n * SECOND, Op::Pause { host: 0, lasts: SECOND / 2 })).collect();
        assert_eq!(shrink(&scenario), None);
        // Nobody waits as long for an answer as it takes on this way.
        scenario.climate.latency = 2000 * SECOND;
        let smallest = shrink(&scenario).unwrap();
        // It fails for its latency alone.
        assert_eq!(
            (fails(&smallest).unwrap().check, smallest.script.len(), smallest.messages),
            (Check::Liveness, 0, 0)
        );
        assert_eq!(smallest.climate.latency, 2000 * SECOND);
    }

    #[test]
    fn a_fingerprint_keeps_who_and_drops_what_is_drawn() {
        let of = |what: &str| Fingerprint::of(&Violation { check: Check::Liveness, what: what.into() }).words;
        assert_eq!(of("120 s late: alice has 3 of 18 entries"), "# s late: alice has # of # entries");
        assert_eq!(of("126d0e144169e39dcaa395a6329692c7:12 is gone"), "# is gone");
        assert_eq!(of("host 0: of 5 own entries 2 are left"), "host 0: of # own entries # are left");
        assert_eq!(of("arrival 7 is shown"), of("arrival 12 is shown"));
    }
}
