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

/// The checks of the promise that a bug breaks. Where a bug breaks one in two ways, whichever is seen first.
fn checks(bug: Planted) -> &'static [Check] {
    match bug {
        Planted::AckBeforeDurable | Planted::ShownBeforeDurable | Planted::ContactBeforeDurable => {
            &[Check::AcknowledgedIsDurable]
        }
        Planted::FailedCommitBelieved => &[Check::AcknowledgedIsDurable, Check::QueuedIsDurable],
        Planted::QueuedBeforeDurable | Planted::StoppedBeforeDurable => &[Check::QueuedIsDurable],
        Planted::OfferedBeforeDurable => &[Check::SenderKeeps],
        Planted::DedupOff | Planted::ArrivalSkipped | Planted::CallerForgotten => &[Check::ExactlyOnce],
        Planted::GapHidesWhatFollows => &[Check::NothingHidden],
        Planted::DeliveredBeforeStored | Planted::EvidenceLostAtStart => &[Check::EvidenceGrows],
        Planted::UnboundedQueue => &[Check::Bounded],
        Planted::LostAckNeverRepaired | Planted::TimerLostAfterSleep | Planted::NewerHandshakeRefused => {
            &[Check::Liveness]
        }
        Planted::NonceReused => &[Check::NonceOnce],
        Planted::PlaintextOnTheWire => &[Check::Secrecy],
        Planted::MacIgnored | Planted::CertificateIgnored => &[Check::Authentic],
        Planted::WrittenBeforeTaken => &[Check::Contract],
        Planted::AwakeForNothing => &[Check::Livelock],
        Planted::EvidenceRegresses | Planted::ExpiredThoughDelivered => &[Check::EvidenceGrows],
        Planted::ExpiryForgotten => &[Check::Liveness],
        Planted::AcknowledgedByNumber => &[Check::AcknowledgedIsDurable],
        // Nobody was rolled back: a new epoch is drawn, and it is said that something was lost.
        Planted::ClaimWithoutTagBelieved => &[Check::EvidenceGrows, Check::Restore],
        Planted::RollbackOvertaken | Planted::SecondCopyUnnamed => &[Check::Liveness],
        // What one wrote oneself is shown as new, and as the other's.
        Planted::RestoredShownAsNew => &[Check::ExactlyOnce, Check::Authentic],
        // More is on its way than the recipient has room for.
        Planted::CreditIgnored => &[Check::Bounded],
        Planted::TakenBackUnheard => &[Check::EvidenceGrows],
        Planted::TombstoneForgotten | Planted::HeadDeleted => &[Check::SenderKeeps],
        // What nobody wished away is gone, in no history, or counted as taken back.
        Planted::DeletedTooMuch => &[Check::SenderKeeps, Check::NothingHidden, Check::EvidenceGrows],
        Planted::EpochsWithoutEnd => &[Check::Bounded],
        Planted::PathBelieved => &[Check::Amplification],
        // The session ends for what somebody did, or for what was lost, that it should have survived; and so does the next.
        Planted::WindowMovedByForged => &[Check::Lasting],
        Planted::LostPartForgotten => &[Check::Lasting, Check::Liveness],
        Planted::CookieNeverAsked | Planted::ChunkKept => &[Check::Bounded],
    }
}

#[test]
fn each_is_caught_by_the_check_of_its_promise() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let mut wrong = Vec::new();
    for (name, bug) in Planted::ALL {
        let report = run::many(0, SEEDS, threads, |seed| scenario(seed, Some(bug)), stuck);
        match report.failure {
            Some((seed, violation)) => {
                println!("{name}: caught by seed {seed} after {} worlds: {violation}", report.worlds);
                if !checks(bug).contains(&violation.check) {
                    wrong.push(name);
                }
            }
            None => {
                println!("{name}: not caught by {SEEDS} seeds");
                wrong.push(name);
            }
        }
    }
    assert!(wrong.is_empty(), "not caught, or by another check than that of their promise: {wrong:?}");
}

#[test]
fn without_one_chosen_the_same_build_passes() {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let report = run::many(0, SEEDS, threads, |seed| scenario(seed, None), stuck);
    assert_eq!(report.failure, None);
    assert!(report.delivered > 0 && report.faults.total() > 0);
}
