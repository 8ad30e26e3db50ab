//! What RFC 5382 asks of boxes for TCP: a state for each connection.

use crate::{Bench, at};
use peerlink_sim::nat::{Class, Filtering, Loss, NatCfg, Segment, TcpRules, Unsolicited, Verdict, What};

const A: &str = "10.0.0.2:5000";
const S: &str = "9.9.9.9:443";
const T: &str = "8.8.8.8:443";

fn connected(bench: &mut Bench) -> std::net::SocketAddr {
    let outside = bench.tcp_out(A, S, Segment::Syn).unwrap();
    bench.tcp_in(S, outside, Segment::SynAck).unwrap();
    bench.tcp_out(A, S, Segment::Data).unwrap();
    outside
}

#[test]
fn a_dial_outward_passes_and_one_inward_does_not() {
    let mut bench = Bench::new(NatCfg::default());
    let outside = connected(&mut bench);
    assert_eq!(bench.tcp_in(S, outside, Segment::Data), Ok(at(A)));
    assert_eq!(bench.tcp_in(T, outside, Segment::Syn), Err(Loss::Filtered));
    assert_eq!(bench.tcp_in(T, at("5.0.0.1:80"), Segment::Syn), Err(Loss::NoMapping));
    // UDP of the same numbers is another thing.
    assert_eq!(bench.inward(S, outside), Err(Loss::NoMapping));
}

#[test]
fn req_2_a_simultaneous_open_passes_unless_the_box_breaks_it() {
    let crossed = |simultaneous_open| {
        let rules = TcpRules { simultaneous_open, ..NatCfg::default().tcp_rules };
        let mut bench = Bench::new(NatCfg { tcp_rules: rules, ..NatCfg::default() });
        let outside = bench.tcp_out(A, S, Segment::Syn).unwrap();
        let inward = bench.tcp_in(S, outside, Segment::Syn);
        inward.and_then(|_| bench.tcp_out(A, S, Segment::SynAck)).map(|_| ())
    };
    assert_eq!(crossed(true), Ok(()));
    assert_eq!(crossed(false), Err(Loss::NoConnection));
}

#[test]
fn req_4_an_unwanted_connection_is_dropped_or_refused() {
    let answer = |unsolicited, segment| {
        let mut bench = Bench::new(NatCfg { unsolicited, ..NatCfg::default() });
        let header = peerlink_sim::nat::Header::tcp(at(S), at("5.0.0.1:80"), segment);
        match bench.nat.from_outside(bench.now, header) {
            Verdict::Lost(_, answer) => answer.map(|answer| answer.what),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(answer(Unsolicited::Drop, Segment::Syn), None);
    assert!(matches!(answer(Unsolicited::Icmp, Segment::Syn), Some(What::Icmp(_))));
    assert_eq!(answer(Unsolicited::Reset, Segment::Syn), Some(What::Tcp(Segment::Rst)));
    assert_eq!(answer(Unsolicited::Reset, Segment::Rst), None, "a reset is never answered");
}

#[test]
fn req_5_a_connection_lives_two_hours_idle_and_a_half_open_or_closed_one_four_minutes() {
    let mut bench = Bench::new(NatCfg::default());
    let outside = connected(&mut bench);
    assert_eq!(bench.wait(7_439).tcp_in(S, outside, Segment::Data), Ok(at(A)));
    assert_eq!(bench.wait(7_441).tcp_in(S, outside, Segment::Data), Err(Loss::NoMapping));

    let half = bench.tcp_out(A, S, Segment::Syn).unwrap();
    assert_eq!(bench.wait(241).tcp_in(S, half, Segment::SynAck), Err(Loss::NoMapping));

    for [first, last] in [[Segment::Fin, Segment::Fin], [Segment::Data, Segment::Rst]] {
        let outside = connected(&mut bench);
        bench.tcp_out(A, S, first).unwrap();
        bench.tcp_in(S, outside, last).unwrap();
        assert_eq!(bench.wait(239).tcp_in(S, outside, Segment::Data), Ok(at(A)));
        assert_eq!(bench.wait(241).tcp_in(S, outside, Segment::Data), Err(Loss::NoMapping));
    }
    // One side alone closed: the other still sends.
    let outside = connected(&mut bench);
    bench.tcp_in(S, outside, Segment::Fin).unwrap();
    assert!(bench.wait(7_000).tcp_out(A, S, Segment::Data).is_ok());
    // The same endpoints again: a new connection.
    bench.tcp_out(A, S, Segment::Rst).unwrap();
    connected(&mut bench);
    assert!(bench.wait(7_000).tcp_in(S, outside, Segment::Data).is_ok());
}

#[test]
fn after_a_reboot_a_connection_goes_on_only_if_the_box_picks_it_up() {
    let goes_on = |picks_up, from_inside: bool| {
        let rules = TcpRules { picks_up, ..NatCfg::default().tcp_rules };
        let mut bench = Bench::new(NatCfg { tcp_rules: rules, ..NatCfg::default() });
        let outside = connected(&mut bench);
        bench.nat.reboot();
        if from_inside {
            bench.tcp_out(A, S, Segment::Data)?;
        }
        bench.tcp_in(S, outside, Segment::Data)
    };
    assert_eq!(goes_on(true, true), Ok(at(A)));
    assert_eq!(goes_on(true, false), Err(Loss::NoMapping), "nothing from outside begins one");
    assert_eq!(goes_on(false, true), Err(Loss::NoConnection));
}

#[test]
fn a_reset_or_an_answer_to_nothing_opens_no_mapping() {
    let mut bench = Bench::new(NatCfg::default());
    for segment in [Segment::SynAck, Segment::Fin, Segment::Rst] {
        assert_eq!(bench.tcp_out(A, S, segment), Err(Loss::NoConnection));
    }
    let outside = bench.tcp_out(A, S, Segment::Syn).unwrap();
    let rules = TcpRules { filtering: Filtering::Endpoint, ..NatCfg::default().tcp_rules };
    assert_eq!(bench.tcp_in(T, outside, Segment::Data), Err(Loss::Filtered));
    let mut open = Bench::new(NatCfg { tcp_rules: rules, ..NatCfg::default() });
    let outside = open.tcp_out(A, S, Segment::Syn).unwrap();
    assert_eq!(open.tcp_in(T, outside, Segment::Data), Err(Loss::NoConnection), "no connection, no data");
    assert_eq!(open.tcp_in(T, outside, Segment::Syn), Ok(at(A)));
    assert_eq!(open.tcp_in(T, outside, Segment::Data), Ok(at(A)));
}

#[test]
fn only_the_web_goes_out_of_a_strict_network() {
    let mut bench = Bench::new(Class::T443.cfg());
    assert!(bench.tcp_out(A, S, Segment::Syn).is_ok());
    assert_eq!(bench.tcp_out(A, "9.9.9.9:4711", Segment::Syn), Err(Loss::Policy));
    let outside = bench.tcp_out(A, S, Segment::Data).unwrap();
    assert_eq!(bench.tcp_in(S, outside, Segment::SynAck), Ok(at(A)));
    assert_eq!(bench.out_with(peerlink_sim::nat::Header::udp(at(A), at(S))), Err(Loss::Policy));
}
