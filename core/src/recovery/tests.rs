use super::link::{Link, Way};
use super::*;
use crate::limits::{INITIAL_WINDOW_BYTES, MINIMUM_WINDOW_BYTES, PACKET_BYTES};
use crate::rng::Rng;
use alloc::collections::BTreeMap;
use alloc::vec::Vec;

/// What is counted is what is there.
pub(super) fn consistent<T>(recovery: &Recovery<T>) {
    let awaited = || recovery.packets.iter().filter(|packet| matches!(packet.state, State::Outstanding(_)));
    assert_eq!(recovery.outstanding, awaited().count());
    let here = awaited().filter(|packet| packet.path == recovery.path);
    assert_eq!(recovery.congestion.in_flight(), here.map(|packet| u64::from(packet.bytes)).sum::<u64>());
    assert!(recovery.packets.len() <= SENT_PACKETS);
    assert_eq!(recovery.deadline().is_some(), recovery.outstanding > 0);
}

/// A trace: milliseconds, and what happened. Payloads are the numbers of their packets.
struct Trace {
    recovery: Recovery<u64>,
    next: u64,
    acked: Vec<u64>,
    lost: Vec<u64>,
}

fn ms(millis: u64) -> Instant {
    Instant::from_micros(millis * 1000)
}

impl Trace {
    fn new() -> Self {
        Self { recovery: Recovery::new(ms(0)), next: 0, acked: Vec::new(), lost: Vec::new() }
    }

    fn send(&mut self, at: u64, packets: u64) {
        for _ in 0..packets {
            self.recovery.sent(ms(at), self.next, PACKET_BYTES, self.next).unwrap();
            self.next += 1;
        }
        consistent(&self.recovery);
    }

    /// Acknowledged and lost now.
    fn gone(&mut self) -> (Vec<u64>, Vec<u64>) {
        consistent(&self.recovery);
        (core::mem::take(&mut self.acked), core::mem::take(&mut self.lost))
    }

    fn ack(&mut self, at: u64, ranges: &[RangeInclusive<u64>]) -> (Vec<u64>, Vec<u64>) {
        let (acked, lost) = (&mut self.acked, &mut self.lost);
        let fate = |fate, number| if fate == Fate::Acked { acked.push(number) } else { lost.push(number) };
        self.recovery.acked(ms(at), ranges.iter().cloned(), Duration::ZERO, fate).unwrap();
        self.gone()
    }

    fn timeout(&mut self, at: u64) -> (bool, Vec<u64>) {
        let lost = &mut self.lost;
        let probe = self.recovery.timeout(ms(at), |fate, number| {
            assert_eq!(fate, Fate::Lost);
            lost.push(number);
        });
        (probe, self.gone().1)
    }
}

#[test]
fn three_packets_beyond_mean_loss() {
    let mut trace = Trace::new();
    trace.send(0, 5);
    assert_eq!(trace.ack(100, &[2..=2]), ([2].into(), [].into()));
    assert_eq!(trace.ack(101, &[3..=3]), ([3].into(), [0].into()));
    assert_eq!(trace.ack(102, &[4..=4]), ([4].into(), [1].into()));
    assert_eq!((trace.recovery.outstanding(), trace.recovery.deadline()), (0, None));
    assert_eq!(trace.recovery.congestion().window(), INITIAL_WINDOW_BYTES / 2, "one event");
}

#[test]
fn nine_eighths_of_a_round_trip_mean_loss() {
    let mut trace = Trace::new();
    trace.send(0, 1);
    trace.ack(80, &[0..=0]);
    trace.send(100, 2);
    assert_eq!(trace.ack(180, &[2..=2]), ([2].into(), [].into()));
    // 9/8 of 80 ms after it was sent.
    assert_eq!(trace.recovery.deadline(), Some(ms(190)));
    assert_eq!(trace.timeout(189), (false, [].into()));
    assert_eq!(trace.timeout(190), (false, [1].into()));
    assert_eq!(trace.recovery.deadline(), None);
}

#[test]
fn silence_is_probed_with_backoff_and_one_answer_ends_it() {
    let mut trace = Trace::new();
    trace.send(0, 1);
    trace.ack(100, &[0..=0]);
    trace.send(200, 10);
    // 100 + 4 * 50 + 25.
    assert_eq!(trace.recovery.deadline(), Some(ms(525)));
    assert_eq!(trace.timeout(525), (true, [].into()));
    assert_eq!(trace.recovery.silence(), 1);
    assert_eq!(trace.recovery.oldest(), Some(&1));
    // The window is full, a probe leaves nevertheless; two of them, no more.
    assert_eq!(trace.recovery.may_send(ms(525), PACKET_BYTES), Sending::Now);
    trace.send(525, 1);
    assert_eq!(trace.recovery.may_send(ms(525), PACKET_BYTES), Sending::Now);
    trace.send(525, 1);
    assert_eq!(trace.recovery.may_send(ms(525), PACKET_BYTES), Sending::Wait);
    assert_eq!(trace.recovery.deadline(), Some(ms(525 + 650)));
    assert_eq!(trace.timeout(1175), (true, [].into()));
    assert_eq!(trace.recovery.deadline(), Some(ms(1175 + 1300)));
    // The probes came, and tell that the ten before are lost.
    let (acked, lost) = trace.ack(1200, &[11..=12]);
    assert_eq!((acked.len(), lost.len()), (2, 10));
    assert_eq!(trace.recovery.silence(), 0);
}

#[test]
fn the_backoff_ends_where_a_session_would() {
    let mut trace = Trace::new();
    trace.send(0, 1);
    let mut before = ms(0);
    for _ in 0..40 {
        let at = trace.recovery.deadline().unwrap();
        assert!(at > before && at.saturating_since(before) <= LIVENESS_MAX);
        assert!(trace.recovery.timeout(at, |_, _| panic!("it is still awaited")));
        before = at;
    }
    assert_eq!(trace.recovery.deadline(), Some(before + LIVENESS_MAX));
}

#[test]
fn a_machine_that_slept_missed_one_timeout() {
    let mut trace = Trace::new();
    trace.send(0, 1);
    assert_eq!(trace.timeout(8 * 3_600_000), (true, [].into()));
    let first = Rtt::new().probe_timeout();
    assert_eq!(trace.recovery.deadline(), Some(ms(8 * 3_600_000) + first * 2));
}

#[test]
fn a_late_acknowledgement_of_a_lost_packet_gives_nothing_back_and_teaches_patience() {
    let mut trace = Trace::new();
    trace.send(0, 6);
    assert_eq!(trace.ack(100, &[1..=3]).1, [0]);
    assert_eq!(trace.ack(101, &[0..=5]), ([4, 5].into(), [].into()));
    assert_eq!(trace.recovery.spurious(), 1);
    // It was overtaken by five: only six are a sign of loss from now on.
    trace.send(110, 10);
    assert_eq!(trace.ack(140, &[7..=11]), ([7, 8, 9, 10, 11].into(), [].into()));
    assert_eq!(trace.ack(141, &[12..=12]), ([12].into(), [6].into()));
}

#[test]
fn what_was_never_sent_is_not_acknowledged() {
    let mut trace = Trace::new();
    let refused = |trace: &mut Trace, range: RangeInclusive<u64>| {
        trace.recovery.acked(ms(1), [range].into_iter(), Duration::ZERO, |_, _| panic!("nothing comes back"))
    };
    assert_eq!(refused(&mut trace, 0..=0), Err(NeverSent));
    trace.send(0, 2);
    assert_eq!(refused(&mut trace, 0..=2), Err(NeverSent));
    trace.recovery.sent_elsewhere(5);
    assert_eq!(refused(&mut trace, 0..=6), Err(NeverSent));
    assert_eq!(trace.recovery.outstanding(), 2);
    assert_eq!(trace.recovery.sent(ms(2), 5, 9, 77), Err(77), "a number twice");
}

#[test]
fn a_round_trip_is_measured_by_the_newest_that_asked() {
    let mut trace = Trace::new();
    trace.send(0, 1);
    trace.recovery.sent_silent(ms(30), 1);
    trace.next = 2;
    // The highest did not ask, but one of those that are new did.
    trace.ack(100, &[0..=1]);
    assert_eq!(trace.recovery.rtt().smoothed(), Duration::from_millis(70));
    trace.recovery.sent_silent(ms(200), 2);
    trace.next = 3;
    trace.ack(900, &[2..=2]);
    assert_eq!(trace.recovery.rtt().smoothed(), Duration::from_millis(70), "it was not answered at once");
    trace.send(1000, 1);
    trace.recovery.sent_elsewhere(4);
    trace.next = 5;
    trace.ack(1900, &[3..=4]);
    assert_eq!(trace.recovery.rtt().smoothed(), Duration::from_millis(70), "the highest went another way");
    trace.send(2000, 1);
    trace.ack(2070, &[5..=5]);
    trace.ack(2900, &[5..=5]);
    assert_eq!(trace.recovery.rtt().smoothed(), Duration::from_millis(70), "told again");
}

#[test]
fn who_only_acknowledges_remembers_little() {
    let mut recovery = Recovery::<()>::new(ms(0));
    for number in 0..100_000 {
        recovery.sent_silent(ms(number), number);
        assert_eq!(recovery.deadline(), None);
    }
    assert!(recovery.packets.len() <= SETTLED_PACKETS);
    assert_eq!(recovery.congestion().in_flight(), 0);
    recovery.acked(ms(100_000), [0..=99_999].into_iter(), Duration::ZERO, |_, ()| panic!()).unwrap();
    assert!(recovery.packets.is_empty());
}

#[test]
fn the_window_grows_only_while_it_is_in_use() {
    let mut trace = Trace::new();
    // Nine packets for each round trip fit: the application is the limit.
    for round in 0..20 {
        for _ in 0..9 {
            assert_eq!(trace.recovery.may_send(ms(round * 1000), PACKET_BYTES), Sending::Now);
            trace.send(round * 1000, 1);
        }
        trace.ack(round * 1000 + 100, &[0..=trace.next - 1]);
    }
    assert_eq!(trace.recovery.congestion().window(), INITIAL_WINDOW_BYTES);
    // Ten, and one more that is held back.
    trace.send(50_000, 10);
    assert_eq!(trace.recovery.may_send(ms(50_000), PACKET_BYTES), Sending::Wait);
    trace.ack(50_100, &[0..=trace.next - 1]);
    assert_eq!(trace.recovery.congestion().window(), 2 * INITIAL_WINDOW_BYTES);
}

/// Sends one packet each 100 ms from 1000 on, loses those in `lost`, then learns of it.
fn one_after_the_other(packets: u64, came: &[u64]) -> u64 {
    let mut trace = Trace::new();
    trace.send(0, 1);
    trace.ack(100, &[0..=0]);
    for packet in 1..=packets {
        trace.send(900 + packet * 100, 1);
    }
    let ranges: Vec<_> = came.iter().map(|number| *number..=*number).collect();
    trace.ack(900 + packets * 100 + 50, &ranges);
    trace.recovery.congestion().window()
}

#[test]
fn only_a_long_loss_without_a_break_is_persistent() {
    // Three probe timeouts are some 960 ms, and what is lost was sent over 1200 and over 900 ms.
    assert_eq!(one_after_the_other(14, &[14]), MINIMUM_WINDOW_BYTES);
    assert!(one_after_the_other(11, &[11]) > MINIMUM_WINDOW_BYTES);
    assert!(one_after_the_other(14, &[14, 7]) > MINIMUM_WINDOW_BYTES, "one of them came");
}

#[test]
fn losses_from_before_the_first_round_trip_are_not_persistent() {
    let mut trace = Trace::new();
    for packet in 0..60 {
        trace.send(packet * 100, 1);
    }
    assert_eq!(trace.ack(6000, &[59..=59]).1.len(), 59);
    assert!(trace.recovery.congestion().window() > MINIMUM_WINDOW_BYTES);
}

#[test]
fn persistent_congestion_is_found_once_for_one_loss() {
    let mut trace = Trace::new();
    trace.send(0, 1);
    trace.ack(100, &[0..=0]);
    for packet in 1..=12 {
        trace.send(900 + packet * 100, 1);
    }
    trace.send(2110, 2);
    assert_eq!(trace.ack(2160, &[14..=14]).1.len(), 11);
    assert_eq!(trace.recovery.congestion().window(), MINIMUM_WINDOW_BYTES);
    // What is left of that time is lost later. It is no new event.
    let grown = 4 * MINIMUM_WINDOW_BYTES;
    trace.recovery.congestion.grow(grown);
    let before = trace.recovery.congestion().window();
    assert_eq!(trace.timeout(2300), (false, [12, 13].into()));
    assert_eq!(trace.recovery.congestion().window(), before / 2);
}

#[test]
fn a_new_path_knows_nothing_of_the_old() {
    let mut trace = Trace::new();
    trace.send(0, 1);
    trace.ack(100, &[0..=0]);
    trace.send(200, 10);
    trace.recovery.change_path(ms(210), None);
    consistent(&trace.recovery);
    assert_eq!(trace.recovery.congestion().in_flight(), 0);
    assert_eq!(trace.recovery.outstanding(), 10);
    assert!(!trace.recovery.rtt().is_measured());
    trace.send(210, 4);
    // The new way is faster. What it overtakes on the old one is not lost by that.
    assert_eq!(trace.ack(230, &[11..=14]), ([11, 12, 13, 14].into(), [].into()));
    assert_eq!(trace.recovery.rtt().smoothed(), Duration::from_millis(20));
    // An acknowledgement from the old one is no round trip of the new, and lets no window grow.
    assert_eq!(trace.ack(300, &[1..=8]).0.len(), 8);
    assert_eq!(trace.recovery.rtt().smoothed(), Duration::from_millis(20));
    assert_eq!(trace.recovery.congestion().window(), INITIAL_WINDOW_BYTES);
    // 9/8 of the old round trip after they were sent the last two are lost, and the new path is not to blame.
    assert_eq!(trace.recovery.deadline(), Some(Instant::from_micros(312_500)));
    assert_eq!(trace.timeout(313), (false, [9, 10].into()));
    assert_eq!(trace.recovery.congestion().window(), INITIAL_WINDOW_BYTES);
}

#[test]
fn what_a_dead_path_held_comes_back_at_once() {
    let mut trace = Trace::new();
    trace.send(0, 3);
    trace.recovery.change_path(ms(10), Some(Duration::from_millis(30)));
    trace.send(20, 2);
    let mut lost = Vec::new();
    trace.recovery.lose_old_path(ms(20), |fate, number| lost.push((fate, number)));
    consistent(&trace.recovery);
    assert_eq!(lost, [0, 1, 2].map(|number| (Fate::Lost, number)));
    assert_eq!(trace.recovery.rtt().smoothed(), Duration::from_millis(30));
    assert_eq!(trace.recovery.congestion().window(), INITIAL_WINDOW_BYTES);
    assert_eq!(trace.ack(50, &[0..=4]), ([3, 4].into(), [].into()));
    assert_eq!(trace.recovery.spurious(), 3);
    assert_eq!(trace.recovery.packet_threshold, PACKET_THRESHOLD);
}

#[test]
fn a_full_table_makes_its_caller_wait_and_still_lets_probes_out() {
    let mut recovery = Recovery::new(ms(0));
    let mut next = 0;
    // Bytes are not the limit: the packets are tiny.
    while recovery.may_send(Instant::FAR, 1) == Sending::Now {
        recovery.sent(ms(0), next, 1, next).unwrap();
        next += 1;
    }
    assert_eq!(next as usize, SENT_PACKETS - PROBE_PACKETS);
    let mut lost = 0;
    for _ in 0..100 {
        let now = recovery.deadline().unwrap();
        assert!(recovery.timeout(now, |_, _| lost += 1));
        while recovery.may_send(now, 1) == Sending::Now {
            recovery.sent(now, next, 1, next).unwrap();
            next += 1;
        }
        consistent(&recovery);
    }
    assert_eq!(lost + recovery.outstanding(), next as usize);
    assert!(lost > 0, "the oldest make room");
}

// --- any order -------------------------------------------------------------------------------------------------------

#[test]
fn every_payload_comes_back_once_in_any_order_of_anything() {
    for seed in 0..60 {
        let mut rng = Rng::from_seed([seed; 32]);
        let mut recovery = Recovery::new(ms(0));
        let (mut now, mut number, mut sent) = (ms(0), 0u64, 0u64);
        let mut back: BTreeMap<u64, Fate> = BTreeMap::new();
        for _ in 0..1500 {
            now += Duration::from_micros(rng.up_to(30_000));
            let mut fate =
                |fate, payload| assert_eq!(back.insert(payload, fate), None, "{payload} came back twice");
            match rng.up_to(20) {
                0..=9 => {
                    let bytes = rng.up_to(PACKET_BYTES as u64) as usize;
                    for _ in 0..=rng.up_to(5) {
                        if recovery.may_send(now, bytes) == Sending::Now {
                            number += 1 + rng.up_to(9) / 9;
                            recovery.sent(now, number, bytes, number).unwrap();
                            sent += 1;
                        }
                    }
                }
                10 => {
                    number += 1;
                    recovery.sent_silent(now, number);
                }
                11 => {
                    number += 1;
                    recovery.sent_elsewhere(number);
                }
                12..=17 => {
                    // Any ranges, also such that overlap or name what was never sent.
                    let mut range = || {
                        let end = number.saturating_sub(rng.up_to(60));
                        end.saturating_sub(rng.up_to(4))..=end
                    };
                    let ranges = [range(), range(), range()];
                    let delay = Duration::from_micros(rng.up_to(50_000));
                    let done = recovery.acked(now, ranges.into_iter(), delay, &mut fate);
                    assert_eq!(done.is_err(), recovery.last.is_none(), "all of them were used");
                }
                18 => {
                    recovery.timeout(now, &mut fate);
                }
                19 if rng.up_to(9) == 0 => recovery.change_path(now, None),
                _ => recovery.lose_old_path(now, &mut fate),
            }
            consistent(&recovery);
        }
        // In the end all of it is acknowledged, or was lost before.
        let mut fate =
            |fate, payload| assert_eq!(back.insert(payload, fate), None, "{payload} came back twice");
        recovery.acked(now, [0..=number].into_iter(), Duration::ZERO, &mut fate).unwrap();
        consistent(&recovery);
        assert_eq!((recovery.outstanding(), recovery.congestion().in_flight()), (0, 0));
        assert_eq!(back.len() as u64, sent);
        assert!(
            back.values().any(|fate| *fate == Fate::Acked) && back.values().any(|fate| *fate == Fate::Lost)
        );
    }
}

// --- a simulated link ------------------------------------------------------------------------------------------------

const MEGABYTE: Way =
    Way { rate: 1_000_000, delay: Duration::from_millis(20), jitter: Duration::ZERO, queue: 50_000, loss: 0 };

#[test]
fn without_loss_the_bottleneck_is_the_limit() {
    for (rate, queue) in [(100_000, 20_000), (1_000_000, 50_000), (10_000_000, 400_000)] {
        let mut link = Link::new(Way { rate, queue, ..MEGABYTE }, 1);
        link.units = u64::MAX;
        link.run(Duration::from_secs(20));
        assert!(link.goodput() > rate * 9 / 10, "{} of {rate}", link.goodput());
        assert_eq!(link.probes, 0);
    }
}

#[test]
fn loss_slows_down_as_new_reno_does_and_stops_nothing() {
    // Lost packets in a thousand each way, and bytes a second. NewReno gives 1.22 packets for each round trip, divided by
    // the root of the loss: 366, 164 and 82 thousand; waiting for timeouts takes its part where packets are few.
    for (loss, least, most) in [(10, 250_000, 420_000), (50, 80_000, 180_000), (200, 25_000, 90_000)] {
        for seed in 0..2 {
            let mut link = Link::new(Way { rate: 100_000_000, queue: 10_000_000, loss, ..MEGABYTE }, seed);
            link.units = u64::MAX;
            link.run(Duration::from_secs(20));
            assert!((least..most).contains(&link.goodput()), "{loss}: {}", link.goodput());
            // Nearly all that is sent twice was lost on one way or on the other.
            let needed = link.came.len() as u64 * 1000 / (1000 - loss);
            assert!(link.packets <= needed * 11 / 10 + link.probes, "{loss}: {} for {needed}", link.packets);
        }
    }
}

#[test]
fn all_that_is_given_arrives_however_much_is_lost() {
    for (loss, seconds) in [(10, 2), (50, 3), (200, 8), (500, 400)] {
        for seed in 0..4 {
            let mut link = Link::new(Way { loss, ..MEGABYTE }, seed);
            link.units = 100;
            link.run(Duration::from_secs(seconds));
            assert_eq!(link.acked.len(), 100, "{loss}, {seed}");
            assert_eq!((link.sender.outstanding(), link.sender.deadline()), (0, None));
        }
    }
}

#[test]
fn reordering_is_learnt_and_costs_little_after_that() {
    let jitter = Duration::from_millis(4);
    let mut link = Link::new(Way { jitter, ..MEGABYTE }, 3);
    link.units = u64::MAX;
    link.run(Duration::from_secs(5));
    let learnt = link.sender.spurious();
    assert!(learnt > 0, "the first were taken for losses");
    let before = link.came.len();
    link.run(Duration::from_secs(10));
    let rate = (link.came.len() - before) as u64 * PACKET_BYTES as u64 / 10;
    assert!(rate > 900_000, "{rate}, spurious {learnt} and {}", link.sender.spurious());
}

#[test]
fn a_path_that_reorders_much_does_not_keep_the_smallest_window() {
    // As much jitter as delay: nearly every packet is overtaken by many.
    let (delay, jitter) = (Duration::from_millis(150), Duration::from_millis(130));
    for seed in 0..4 {
        let mut link = Link::new(Way { delay, jitter, queue: 400_000, ..MEGABYTE }, seed);
        link.units = u64::MAX;
        link.run(Duration::from_secs(30));
        assert!(link.goodput() > 500_000, "{}, spurious {}", link.goodput(), link.sender.spurious());
    }
}

#[test]
fn a_path_that_was_dead_for_a_while_is_used_again_at_once() {
    for seconds in [1, 3, 10] {
        let mut link = Link::new(MEGABYTE, 5);
        link.units = u64::MAX;
        link.run(Duration::from_secs(3));
        let (before, packets) = (link.came.len(), link.packets);
        link.way.loss = 1000;
        link.run(Duration::from_secs(seconds));
        assert!(
            link.packets - packets < 250,
            "the rest of a window and some probes: {}",
            link.packets - packets
        );
        link.way.loss = 0;
        // The wait doubles: it is as long again as the path was dead.
        link.run(Duration::from_secs(seconds + 1));
        let rate = link.sender.congestion().window();
        assert!(
            link.came.len() > before + 100,
            "{seconds}: {} more, window {rate}",
            link.came.len() - before
        );
        link.run(Duration::from_secs(10));
        let (before, at) = (link.came.len(), link.now);
        link.run(Duration::from_secs(5));
        assert!((link.came.len() - before) as u64 * PACKET_BYTES as u64 / 5 > 900_000, "{seconds} {at}");
    }
}

#[test]
fn a_slower_path_is_taken_over_without_a_storm() {
    let mut link = Link::new(Way { rate: 5_000_000, queue: 100_000, ..MEGABYTE }, 6);
    link.units = u64::MAX;
    link.run(Duration::from_secs(3));
    let (packets, came) = (link.packets, link.came.len());
    link.way = Way { rate: 200_000, queue: 20_000, delay: Duration::from_millis(50), ..MEGABYTE };
    let now = link.now;
    link.sender.change_path(now, Some(Duration::from_millis(100)));
    link.run(Duration::from_secs(10));
    let (sent, came) = (link.packets - packets, (link.came.len() - came) as u64);
    assert!(came * PACKET_BYTES as u64 / 10 > 180_000, "{came}");
    assert!(sent < came * 11 / 10, "{sent} for {came}");
}
