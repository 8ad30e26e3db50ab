//! Makes a failing scenario smaller while it fails by the same check: fewer faults first, then fewer messages, then
//! better weather. Fates are keyed, so what is taken away leaves the rest as it was.

use crate::oracle::Check;
use crate::run::one;
use crate::scenario::{Climate, Scenario};
use crate::tracer::Print;

/// The smallest scenario that was found to fail as `scenario` does; `None` if it does not fail.
#[must_use]
pub fn shrink(scenario: &Scenario) -> Option<Scenario> {
    let check = fails(scenario)?;
    let mut smallest = scenario.clone();
    loop {
        let before = smallest.clone();
        fewer_faults(&mut smallest, check);
        for simplify in SIMPLER {
            let mut candidate = smallest.clone();
            simplify(&mut candidate);
            keep_if_it_fails(&mut smallest, candidate, check);
        }
        if smallest == before {
            return Some(smallest);
        }
    }
}

fn fails(scenario: &Scenario) -> Option<Check> {
    one(scenario.clone(), Print::Nothing).violation.map(|violation| violation.check)
}

fn keep_if_it_fails(smallest: &mut Scenario, candidate: Scenario, check: Check) -> bool {
    let better = candidate != *smallest && fails(&candidate) == Some(check);
    if better {
        *smallest = candidate;
    }
    better
}

/// Takes away runs of the script: halves, then quarters, down to single acts (ddmin; Zeller, Hildebrandt, 2002).
fn fewer_faults(smallest: &mut Scenario, check: Check) {
    let mut size = smallest.script.len().div_ceil(2);
    while size > 0 {
        let mut at = 0;
        while at < smallest.script.len() {
            let mut candidate = smallest.clone();
            let end = (at + size).min(candidate.script.len());
            candidate.script.drain(at..end);
            if !keep_if_it_fails(smallest, candidate, check) {
                at += size;
            }
        }
        size /= 2;
    }
}

/// What makes a scenario simpler, whatever it is.
const SIMPLER: [fn(&mut Scenario); 14] = [
    |s| s.messages /= 2,
    |s| s.messages -= s.messages.min(1),
    |s| s.long = 0,
    |s| s.repeat = 0,
    |s| s.lively = false,
    |s| s.flood = false,
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
        let check = fails(&smallest).unwrap();
        // It fails for its latency alone.
        assert_eq!((check, smallest.script.len(), smallest.messages), (Check::Liveness, 0, 0));
        assert_eq!(smallest.climate.latency, 2000 * SECOND);
    }
}
