//! The classic ways in which messages get lost, doubled or hidden, one world each, written by hand; and what a world
//! must be for any of it to mean something.

use peerlink_sim::fate::MILLION;
use peerlink_sim::limits::MICROS_PER_SECOND as SECOND;
use peerlink_sim::probe::Probe;
use peerlink_sim::{
    Attack, Block, Check, Climate, Fault, Mischief, Op, Outcome, Print, Scenario, World, schedule,
};

const ALICE: usize = 0;
const BOB: usize = 1;
/// Everybody has met by then.
const MET: u64 = 5 * SECOND;

fn run(scenario: Scenario) -> Outcome {
    let outcome = World::new(scenario, Print::Nothing).run();
    assert_eq!(outcome.violation, None);
    outcome
}

/// `count` messages from `host`, one every `every`.
fn writes(mut scenario: Scenario, host: usize, from: u64, count: u64, every: u64, bytes: u32) -> Scenario {
    for n in 0..count {
        scenario = scenario.with(from + n * every, Op::Send { host, to: 1 - host, bytes });
    }
    scenario
}

fn power_loss(host: usize, outputs: u32, kept: u64) -> Op {
    Op::Crash { host, outputs, writing: false, power: true, kept, down: SECOND }
}

#[test]
fn in_good_weather_everything_arrives_at_once() {
    let scenario = writes(Scenario::calm(1), ALICE, MET, 20, SECOND / 10, 100);
    let outcome = run(writes(scenario, BOB, MET, 20, SECOND / 7, 100));
    assert_eq!((outcome.sent, outcome.delivered), (40, 40));
    assert_eq!(outcome.met.of(Probe::OfferedAgain), 0);
    assert!(outcome.healed_after < SECOND);
}

#[test]
fn an_acknowledgement_lost_on_its_way_is_given_again() {
    // Bob stores, and nothing of what he says arrives; then both connections die.
    let scenario = writes(Scenario::calm(2), ALICE, MET, 5, SECOND / 100, 100)
        .with(MET, Op::Partition { from: BOB, to: ALICE, how: Block::Silent, both: false, lasts: 3 * SECOND })
        .with(MET + 2 * SECOND, Op::Reset { a: ALICE, b: BOB });
    let outcome = run(scenario);
    assert_eq!((outcome.sent, outcome.delivered), (5, 5));
}

#[test]
fn mail_that_waited_through_a_restart_of_its_author_is_delivered() {
    let scenario = writes(Scenario::calm(3), ALICE, MET + SECOND, 10, SECOND / 10, 200)
        .with(MET, Op::Partition { from: ALICE, to: BOB, how: Block::Loud, both: true, lasts: 10 * SECOND })
        .with(MET + 4 * SECOND, Op::Restart { host: ALICE, down: SECOND });
    let outcome = run(scenario);
    assert_eq!((outcome.sent, outcome.delivered), (10, 10));
    assert_eq!(outcome.met.of(Probe::Stopped), 1);
}

#[test]
fn a_crash_at_any_output_around_a_message_loses_and_doubles_nothing() {
    for outputs in 1..24 {
        for host in [ALICE, BOB] {
            for kept in [0, MILLION] {
                let scenario = writes(Scenario::calm(4), ALICE, MET, 3, SECOND / 1000, 300)
                    .with(MET - 1, power_loss(host, outputs, kept));
                let outcome = run(scenario);
                assert_eq!(
                    (outcome.sent, outcome.delivered),
                    (3, 3),
                    "host {host} at {outputs} keeping {kept}"
                );
            }
        }
    }
}

/// Crash between dedup record and message: there is no between, whatever becomes of the commit that holds both.
#[test]
fn a_commit_cut_in_the_middle_holds_a_message_with_what_remembers_it_or_neither() {
    for host in [ALICE, BOB] {
        for kept in [0, MILLION / 3, 2 * MILLION / 3, MILLION] {
            let mut scenario = writes(Scenario::calm(19), ALICE, MET, 12, SECOND / 4, 200);
            scenario.climate.commit = SECOND / 10;
            for n in 0..6 {
                scenario =
                    scenario.with(MET + n * SECOND / 2, Op::CutCommit { host, kept, down: SECOND / 10 });
            }
            let outcome = run(scenario);
            assert_eq!((outcome.sent, outcome.delivered), (12, 12), "host {host} keeping {kept}");
            assert!(outcome.faults.of(Fault::CommitCut) >= 3);
        }
    }
}

/// Killed between acknowledging and showing, killed between queueing and answering the caller: at each output there is.
#[test]
fn killed_between_any_two_words_a_node_says_them_again_or_not_at_all() {
    let (mut asked_again, mut shown) = (0, 0);
    for outputs in 1..16 {
        for host in [ALICE, BOB] {
            let kill = Op::Crash { host, outputs, writing: false, power: false, kept: MILLION, down: SECOND };
            let scenario = writes(Scenario::calm(20), ALICE, MET, 4, SECOND / 500, 100).with(MET - 1, kill);
            let outcome = run(scenario);
            assert_eq!((outcome.sent, outcome.delivered), (4, 4), "host {host} at {outputs}");
            asked_again += outcome.met.of(Probe::Duplicate) + outcome.met.of(Probe::DuplicateDelivered);
            shown += outcome.met.of(Probe::OfferedAgain);
        }
    }
    assert!(asked_again > 0, "nobody was killed between queueing and answering");
    assert!(shown > 0, "nobody was killed before it could acknowledge what it had stored");
}

#[test]
fn ten_thousand_messages_are_caught_up_in_one_burst() {
    let away = Op::Partition { from: ALICE, to: BOB, how: Block::Loud, both: true, lasts: 22 * SECOND };
    let outcome =
        run(writes(Scenario::calm(21), ALICE, MET + SECOND, 10_000, SECOND / 600, 40).with(MET, away));
    assert_eq!((outcome.sent, outcome.delivered), (10_000, 10_000));
    assert!(outcome.healed_after < 10 * SECOND, "{} us", outcome.healed_after);
}

#[test]
fn clocks_a_year_apart_change_nothing_of_what_arrives_and_in_what_order() {
    let year = 365 * 24 * 3600 * 1000;
    for skew in [year, -year] {
        let mut scenario = writes(Scenario::calm(22), ALICE, MET, 20, SECOND / 3, 100);
        scenario = writes(scenario, BOB, MET + SECOND / 7, 20, SECOND / 4, 100);
        scenario.climate.wall_skew_ms[BOB] = skew;
        // And one of them is put right halfway.
        scenario = scenario.with(MET + 3 * SECOND, Op::SetWall { host: BOB, by_ms: -skew });
        let outcome = run(scenario);
        assert_eq!((outcome.sent, outcome.delivered), (40, 40));
    }
}

#[test]
fn a_message_to_a_peer_that_is_silently_gone_waits_for_it() {
    // Bob's machine loses power: nobody says so. It is on again under another address, from which it must come itself.
    for moves in [false, true] {
        let mut scenario = writes(Scenario::calm(23), ALICE, MET + 2 * SECOND, 5, SECOND, 100)
            .with(
                MET,
                Op::Crash { host: BOB, outputs: 1, writing: false, power: true, kept: 0, down: 15 * SECOND },
            )
            .with(MET, Op::Send { host: ALICE, to: BOB, bytes: 10 });
        if moves {
            scenario = scenario.with(MET + 8 * SECOND, Op::Move { host: BOB, told: false });
        }
        let outcome = run(scenario);
        assert_eq!((outcome.sent, outcome.delivered), (6, 6));
        assert!(outcome.met.of(Probe::Silent) > 0, "Alice never noticed");
    }
}

#[test]
fn a_laptop_that_slept_for_two_days_has_its_mail_soon_after_waking() {
    let days = 2 * 24 * 3600 * SECOND;
    for host in [ALICE, BOB] {
        let mut scenario = writes(Scenario::calm(24), 1 - host, MET + SECOND, 10, SECOND, 100)
            .with(MET, Op::Sleep { host, lasts: 15 * SECOND, by: days })
            .with(
                MET + SECOND,
                Op::Partition { from: ALICE, to: BOB, how: Block::Silent, both: true, lasts: 14 * SECOND },
            )
            .with(MET + 16 * SECOND, Op::Send { host, to: 1 - host, bytes: 100 });
        scenario.looking = false;
        let outcome = run(scenario);
        assert_eq!((outcome.sent, outcome.delivered), (11, 11));
        assert!(outcome.healed_after < 30 * SECOND, "{} s", outcome.healed_after / SECOND);
        assert_eq!(outcome.faults.of(Fault::LongSleep), 1);
    }
}

#[test]
fn both_sides_restored_from_backups_end_with_one_history() {
    let (mut noticed, mut reissued, mut recovered) = (0, 0, 0);
    for (alice, bob) in [(8, 12), (12, 8), (8, 8), (6, 14)] {
        for apart in [false, true] {
            let mut scenario = writes(Scenario::calm(25), ALICE, MET, 30, SECOND / 2, 200);
            scenario = writes(scenario, BOB, MET, 30, SECOND / 2, 300);
            for (host, at) in [(ALICE, alice), (BOB, bob)] {
                scenario = scenario.with(at * SECOND, Op::Backup { host });
                scenario = scenario.with(16 * SECOND, Op::RollBack { host, down: SECOND });
            }
            if apart {
                // Both write on before they meet, and before they know.
                let how = Block::Loud;
                scenario = scenario.with(
                    16 * SECOND,
                    Op::Partition { from: ALICE, to: BOB, how, both: true, lasts: 6 * SECOND },
                );
            }
            let outcome = run(scenario);
            noticed += outcome.met.of(Probe::RollbackNoticed);
            reissued += outcome.met.of(Probe::Reissued);
            recovered += outcome.met.of(Probe::Recovered);
        }
    }
    assert!(noticed > 0 && reissued > 0 && recovered > 0, "{noticed} {reissued} {recovered}");
}

/// A message taken back between others, before it left, while it is on its way, and after it came.
#[test]
fn a_cancelled_message_in_the_middle_leaves_its_place_and_nothing_else() {
    let (mut tombstones, mut too_late) = (0, 0);
    for back in [0, 2, 4] {
        for (apart, after) in [(true, SECOND), (false, SECOND / 200), (false, SECOND / 30), (false, SECOND)] {
            let mut scenario = writes(Scenario::calm(26), ALICE, MET, 5, SECOND / 1000, 12_000);
            if apart {
                let (from, to, how) = (ALICE, BOB, Block::Loud);
                scenario =
                    scenario.with(MET - 1, Op::Partition { from, to, how, both: true, lasts: 4 * SECOND });
            }
            let scenario = writes(scenario, ALICE, MET + 2 * SECOND, 2, SECOND / 10, 100)
                .with(MET + after, Op::Cancel { host: ALICE, to: BOB, back })
                .with(MET + after + SECOND / 5, power_loss(ALICE, 1, MILLION));
            let outcome = run(scenario);
            let came = outcome.met.of(Probe::TombstoneCame);
            assert_eq!((outcome.sent, outcome.delivered + came), (7, 7), "{back} before, after {after} us");
            assert!(came <= 1 && (came == 1 || !apart));
            tombstones += came;
            too_late += outcome.met.of(Probe::TooLate);
        }
    }
    assert!(tombstones > 2 && too_late > 2, "{tombstones} never came, {too_late} had come");
}

/// What the alpha did: a chat was deleted, and what was written after that was refused, or the old came back.
#[test]
fn a_deleted_chat_followed_by_new_messages_goes_on_from_where_it_was() {
    for (host, crash) in [(ALICE, 0), (ALICE, 2), (BOB, 0), (BOB, 3), (BOB, 6)] {
        let mut scenario = writes(Scenario::calm(27), ALICE, MET, 20, SECOND / 50, 200);
        scenario = writes(scenario, BOB, MET, 20, SECOND / 40, 3000)
            .with(MET + SECOND, Op::DeleteConversation { host, with: 1 - host })
            // And once more, while it is not done with that.
            .with(MET + SECOND + 500, Op::DeleteConversation { host, with: 1 - host });
        if crash > 0 {
            scenario = scenario.with(MET + SECOND, power_loss(host, crash, 0));
        }
        scenario = writes(scenario, ALICE, MET + SECOND + SECOND / 100, 10, SECOND / 10, 200);
        scenario = writes(scenario, BOB, MET + SECOND + SECOND / 50, 10, SECOND / 10, 200)
            .with(MET + 4 * SECOND, Op::Restart { host, down: SECOND })
            .with(MET + 6 * SECOND, Op::Send { host, to: 1 - host, bytes: 10 });
        let outcome = run(scenario);
        assert_eq!(outcome.sent, 61);
        assert_eq!(outcome.delivered + outcome.met.of(Probe::TombstoneCame), 61);
        assert!(outcome.met.of(Probe::Emptied) > 0);
    }
}

/// What is queued for somebody who is away goes with its conversation, and never comes.
#[test]
fn a_deleted_chat_takes_back_what_waited_in_it() {
    let away = Op::Partition { from: ALICE, to: BOB, how: Block::Loud, both: true, lasts: 6 * SECOND };
    let scenario = writes(Scenario::calm(28), ALICE, MET, 10, SECOND / 50, 200).with(MET - 1, away);
    let scenario = scenario.with(MET + SECOND, Op::DeleteConversation { host: ALICE, with: BOB });
    let outcome = run(writes(scenario, ALICE, MET + 2 * SECOND, 10, SECOND / 50, 200));
    assert_eq!((outcome.sent, outcome.delivered, outcome.met.of(Probe::TombstoneCame)), (20, 10, 10));
}

#[test]
fn both_dial_at_once_and_one_session_carries_everything() {
    let mut overlaps = 0;
    for seed in 0..20 {
        let mut scenario = writes(Scenario::calm(seed), ALICE, MET, 10, SECOND / 20, 100);
        scenario = writes(scenario, BOB, MET, 10, SECOND / 20, 100);
        scenario.climate = Climate { latency: SECOND / 4, ..Climate::default() };
        // Both lose the connection at the same moment, again and again.
        for n in 0..5 {
            scenario = scenario.with(MET + n * 2 * SECOND, Op::Reset { a: ALICE, b: BOB });
        }
        let outcome = run(scenario);
        assert_eq!((outcome.sent, outcome.delivered), (20, 20));
        overlaps += outcome.met.of(Probe::Crossed);
    }
    assert!(overlaps > 0, "nobody ever dialled at the same time");
}

#[test]
fn a_silent_partition_is_noticed_by_who_waits_for_an_answer() {
    let scenario = writes(Scenario::calm(6), ALICE, MET + SECOND, 3, SECOND / 10, 100)
        .with(MET, Op::BlackHole { a: ALICE, b: BOB });
    let outcome = run(scenario);
    assert_eq!((outcome.sent, outcome.delivered), (3, 3));
    assert!(outcome.met.of(Probe::Silent) > 0);
}

#[test]
fn small_messages_overtake_a_long_one_and_the_gap_is_shown_and_filled() {
    let mut scenario = Scenario::calm(7).with(MET, Op::Send { host: ALICE, to: BOB, bytes: 64 * 1024 });
    scenario = writes(scenario, ALICE, MET + 1, 10, 10, 50);
    scenario.climate.window = 16 * 1024;
    let outcome = run(scenario);
    assert_eq!((outcome.sent, outcome.delivered), (11, 11));
    assert!(outcome.met.of(Probe::Gap) > 0 && outcome.met.of(Probe::GapFilled) > 0);
}

#[test]
fn a_recipient_who_moved_is_found_again_and_who_sleeps_for_weeks_catches_up() {
    let scenario = writes(Scenario::calm(8), ALICE, MET, 40, SECOND / 4, 100)
        .with(MET + SECOND, Op::Move { host: BOB, told: false })
        .with(MET + 4 * SECOND, Op::Sleep { host: BOB, lasts: 2 * SECOND, by: 20 * 24 * 3600 * SECOND })
        .with(MET + 8 * SECOND, Op::Move { host: BOB, told: true });
    let outcome = run(scenario);
    assert_eq!((outcome.sent, outcome.delivered), (40, 40));
}

#[test]
fn a_backlog_of_many_pages_and_long_bodies_is_delivered_after_a_long_absence() {
    let mut scenario = writes(Scenario::calm(9), ALICE, MET + SECOND, 900, SECOND / 200, 400)
        .with(MET, Op::Partition { from: ALICE, to: BOB, how: Block::Loud, both: true, lasts: 20 * SECOND });
    scenario = writes(scenario, ALICE, MET + 7 * SECOND, 20, SECOND / 10, 64 * 1024);
    let outcome = run(scenario);
    assert_eq!((outcome.sent, outcome.delivered), (920, 920));
    assert!(outcome.met.of(Probe::Loaded) > 10);
}

#[test]
fn a_failed_commit_ends_the_promises_and_the_next_start_finds_out() {
    for kept in [0, MILLION] {
        let scenario = writes(Scenario::calm(10), ALICE, MET, 5, SECOND / 10, 100)
            .with(MET, Op::FailCommit { host: ALICE, kept, down: SECOND })
            .with(MET + 3 * SECOND, Op::FailCommit { host: BOB, kept, down: SECOND });
        let outcome = run(writes(scenario, ALICE, MET + 3 * SECOND, 5, SECOND / 10, 100));
        assert_eq!((outcome.sent, outcome.delivered), (10, 10));
    }
}

#[test]
fn whatever_somebody_on_the_way_does_costs_a_connection_and_nothing_else() {
    let all = [
        (Attack::Flip, Fault::BitFlipped),
        (Attack::Cut, Fault::BytesCut),
        (Attack::Inject, Fault::BytesInjected),
        (Attack::Replay, Fault::BytesReplayed),
        (Attack::Splice, Fault::BytesSpliced),
        (Attack::Reflect, Fault::BytesReflected),
    ];
    for (how, fault) in all {
        let mut struck = 0;
        for after in 0..12 {
            for (from, to) in [(ALICE, BOB), (BOB, ALICE)] {
                // Before anything else that happens then: a connection, its handshake, its first messages.
                let salt = u64::from(after) * 7919 + from as u64;
                let scenario = writes(Scenario::calm(16), ALICE, MET, 6, SECOND / 50, 3000)
                    .with(MET, Op::Reset { a: ALICE, b: BOB })
                    .with(MET - 1, Op::Attack { from, to, how, after, salt });
                let outcome = run(writes(scenario, BOB, MET, 6, SECOND / 50, 3000));
                assert_eq!((outcome.sent, outcome.delivered), (12, 12), "{how:?} after {after} from {from}");
                struck += outcome.faults.of(fault);
            }
        }
        assert!(struck >= 4, "{how:?} struck {struck} times");
    }
}

#[test]
fn whatever_a_contact_in_bad_faith_does_the_others_keep_their_promises() {
    let all = [
        (Mischief::Write, false),
        (Mischief::Fork, true),
        (Mischief::BreakChain, true),
        (Mischief::ClaimWrongHash, true),
        (Mischief::ClaimTooMuch, true),
        (Mischief::Epochs, true),
        (Mischief::Flood, true),
        (Mischief::Holes, true),
        (Mischief::Times, true),
        (Mischief::Noise, true),
        (Mischief::Chunks, true),
        (Mischief::Knock, false),
        (Mischief::Pose, false),
        (Mischief::GiveBack, true),
        (Mischief::Leave, false),
    ];
    for (how, noticed) in all {
        let mut scenario = writes(Scenario::calm(18), ALICE, MET, 10, SECOND, 300);
        scenario = writes(scenario, BOB, MET, 10, SECOND, 300);
        for n in 0..10 {
            // To the contact itself people write as well: there is something for it to lie about.
            let to = (n % 2) as usize;
            let write = Op::Send { host: to, to: 2, bytes: 100 };
            scenario = scenario.with(MET + n * SECOND, write);
            scenario = scenario.with(MET + n * SECOND + 1, Op::Mischief { to, how, salt: n * 31 });
        }
        let outcome = run(scenario);
        assert_eq!(
            outcome.met.of(Probe::Misbehaved) + outcome.met.of(Probe::Doubted) > 0,
            noticed,
            "{how:?}"
        );
        assert!(outcome.delivered >= 20, "{how:?}");
    }
}

#[test]
fn a_full_disk_promises_nothing_and_goes_on_when_there_is_room() {
    for kept in [0, MILLION / 2, MILLION] {
        let full = Op::FullDisk { host: ALICE, kept, down: SECOND, lasts: 10 * SECOND };
        let scenario = writes(Scenario::calm(17), ALICE, MET + SECOND, 8, SECOND, 100).with(MET, full);
        let outcome = run(writes(scenario, BOB, MET + SECOND, 8, SECOND, 100));
        assert_eq!((outcome.sent, outcome.delivered), (16, 16), "keeping {kept}");
        assert!(outcome.faults.of(Fault::FullDisk) > 3);
    }
}

#[test]
fn a_blocked_contact_waits_and_is_let_in_again() {
    let scenario = writes(Scenario::calm(11), ALICE, MET + SECOND, 5, SECOND / 10, 100)
        .with(MET, Op::BlockContact { host: BOB, contact: ALICE, lasts: 10 * SECOND });
    let outcome = run(scenario);
    assert_eq!((outcome.sent, outcome.delivered), (5, 5));
    assert!(outcome.met.of(Probe::Refused) > 0);
}

#[test]
fn a_disk_that_falls_behind_pushes_back_and_ends_no_session() {
    let mut scenario = Scenario::calm(13)
        .with(0, Op::SlowDisk { host: ALICE, commit: SECOND, lasts: 20 * SECOND })
        .with(0, Op::SlowDisk { host: BOB, commit: SECOND, lasts: 20 * SECOND });
    scenario.messages = 350;
    (scenario.flood, scenario.long, scenario.climate.window) = (true, MILLION, 512 * 1024);
    let outcome = run(scenario);
    assert_eq!((outcome.sent, outcome.delivered), (700, 700));
    assert!(outcome.met.of(Probe::Busy) > 0, "the disk never fell behind");
    assert_eq!(outcome.met.of(Probe::Silent) + outcome.met.of(Probe::Lost), 0);
}

#[test]
fn three_people_talk_and_no_conversation_disturbs_another() {
    for seed in 0..10 {
        let outcome = run(Scenario::among(3, seed));
        assert!(outcome.delivered > 0);
    }
}

#[test]
fn a_handshake_that_slept_does_not_make_its_node_patient() {
    // Bob dials again, stands still in the middle of the handshake, and wakes somewhere else: his session opens with
    // what had arrived before, on a connection that is dead. That it took so long is not how far away Alice is.
    for moment in 0..30 {
        let asleep = 2 * MET + moment * SECOND / 10;
        let mut scenario = Scenario::calm(14)
            .with(2 * MET, Op::Reset { a: ALICE, b: BOB })
            .with(asleep, Op::Pause { host: BOB, lasts: 25 * SECOND })
            .with(asleep + SECOND, Op::Move { host: BOB, told: false })
            .with(asleep + 2 * SECOND, Op::Send { host: BOB, to: ALICE, bytes: 100 });
        (scenario.climate.latency, scenario.looking) = (SECOND / 2, false);
        let outcome = run(scenario);
        assert_eq!((outcome.sent, outcome.delivered), (1, 1));
        let seconds = outcome.healed_after / SECOND;
        assert!(seconds < 60, "{seconds} s if he fell asleep at {}", asleep / (SECOND / 10));
    }
}

#[test]
fn a_session_on_which_nothing_ever_came_is_soon_given_up_although_nobody_writes_on_it() {
    // Somewhere around the handshake Alice loses power and Bob's connection dies in silence, and he is somewhere else,
    // where she cannot find him: only he can begin again, and he has nothing to say.
    for moment in 0..40 {
        let at = 2 * MET + moment * SECOND / 10;
        let mut scenario = Scenario::calm(15)
            .with(2 * MET, Op::Reset { a: ALICE, b: BOB })
            .with(at, Op::BlackHole { a: ALICE, b: BOB })
            .with(at, power_loss(ALICE, 1, 0))
            .with(2 * MET - 1, Op::Move { host: BOB, told: true })
            .with(at + 4 * SECOND, Op::Send { host: ALICE, to: BOB, bytes: 100 });
        (scenario.climate.latency, scenario.looking) = (SECOND / 2, false);
        let outcome = run(scenario);
        assert_eq!((outcome.sent, outcome.delivered), (1, 1));
        let seconds = outcome.healed_after / SECOND;
        assert!(seconds < 60, "{seconds} s if it happened at {}", at / (SECOND / 10));
    }
}

#[test]
fn a_long_body_that_changes_its_session_halfway_is_nobodys_fault() {
    // Both dial at once while long bodies wait: what one session had begun, the other begins again, and for a while
    // pieces of both arrive in turns.
    let mut crossed = 0;
    for seed in 0..60 {
        let waits = Op::Partition { from: ALICE, to: BOB, how: Block::Loud, both: true, lasts: 2 * SECOND };
        let mut scenario = Scenario::calm(seed)
            .with(MET, Op::Reset { a: ALICE, b: BOB })
            .with(MET, waits)
            .with(MET + SECOND, Op::Send { host: BOB, to: ALICE, bytes: 32 * 1024 })
            .with(MET + SECOND, Op::Send { host: ALICE, to: BOB, bytes: 32 * 1024 })
            // They wake nearly together, and dial as soon as they do.
            .with(MET + SECOND, Op::Pause { host: ALICE, lasts: 15 * SECOND })
            .with(MET + SECOND, Op::Pause { host: BOB, lasts: 15 * SECOND + seed * 500 });
        scenario.climate =
            Climate { latency: 6_600, jitter: 950, segment: 6_700, read: 64, ..Climate::default() };
        let outcome = run(scenario);
        assert_eq!((outcome.sent, outcome.delivered), (2, 2));
        crossed += outcome.met.of(Probe::Crossed);
    }
    assert!(crossed > 30, "only {crossed} of 60 dialled at the same time");
}

// --- worlds that found something ---------------------------------------------------------------------------------

#[test]
fn worlds_that_once_failed() {
    let files = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/worlds")).unwrap();
    let mut files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 6);
    for file in files {
        let scenario = schedule::read(&std::fs::read_to_string(&file).unwrap());
        let outcome = World::new(scenario.unwrap(), Print::Nothing).run();
        assert_eq!(outcome.violation, None, "{}", file.display());
        assert!(outcome.delivered > 0, "{}", file.display());
    }
}

// --- the world itself --------------------------------------------------------------------------------------------

#[test]
fn a_world_takes_the_same_way_twice_and_a_fork_goes_on_as_its_original_does() {
    for seed in 0..20 {
        let mut world = World::new(Scenario::from_seed(seed), Print::Nothing);
        for _ in 0..500 {
            world.step();
        }
        let mut fork = world.fork();
        assert_eq!((fork.events(), fork.hash()), (world.events(), world.hash()));
        while world.step() {}
        while fork.step() {}
        assert_eq!((fork.events(), fork.hash()), (world.events(), world.hash()));
        assert_eq!(run(Scenario::from_seed(seed)).hash, world.hash());
    }
}

#[test]
fn what_never_ends_is_found_to_be_undelivered() {
    // The faults are declared over, and the two still have no way to each other: no seed may pass like that.
    let mut scenario = writes(Scenario::calm(12), ALICE, MET, 1, 1, 100);
    scenario.hosts = 2;
    for n in 0..2000 {
        scenario = scenario.with(MET + n * SECOND / 100, Op::Reset { a: ALICE, b: BOB });
    }
    scenario.healed = MET + 20 * SECOND;
    scenario.climate.latency = 130 * SECOND;
    let outcome = World::new(scenario, Print::Nothing).run();
    assert_eq!(outcome.violation.map(|violation| violation.check), Some(Check::Liveness));
}
