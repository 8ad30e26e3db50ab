//! Each planted bug is caught, and by the check that its promise belongs to. Exists only in builds that have the bugs:
//! `RUSTFLAGS="--cfg peerlink_planted" cargo test --release -p peerlink-sim --target-dir target/planted --test planted`

#![cfg(peerlink_planted)]

use peerlink_core::planted::Planted;
use peerlink_sim::{Check, Scenario, run};

/// Seeds within which a bug must be caught.
const SEEDS: u64 = 2000;

fn scenario(seed: u64, planted: Option<Planted>) -> Scenario {
    Scenario { planted, ..Scenario::from_seed(seed) }
}

fn stuck(seed: u64) {
    eprintln!("seed {seed} does not come back");
    std::process::abort();
}

#[test]
fn each_is_caught_by_the_check_of_its_promise() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    for (name, bug) in Planted::ALL {
        let expected = match bug {
            Planted::AckBeforeDurable => Check::AcknowledgedIsDurable,
            Planted::DedupOff => Check::ExactlyOnce,
            Planted::LostAckNeverRepaired => Check::Liveness,
            Planted::GapHidesWhatFollows => Check::NothingHidden,
        };
        let report = run::many(0, SEEDS, threads, |seed| scenario(seed, Some(bug)), stuck);
        let (seed, violation) = report.failure.expect("it was not caught");
        println!("{name}: caught by seed {seed} after {} worlds: {violation}", report.worlds);
        assert_eq!(violation.check, expected, "{name}");
    }
}

#[test]
fn without_one_chosen_the_same_build_passes() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let report = run::many(0, SEEDS, threads, |seed| scenario(seed, None), stuck);
    assert_eq!(report.failure, None);
    assert!(report.delivered > 0 && report.faults.total() > 0);
}
