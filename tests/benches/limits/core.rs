//! The core alone: two nodes in one thread, or two threads and a socket, and no disk.

use crate::local::{Joined, Local};
use crate::machine::MESSAGE;
use crate::measure::{Mark, Report, Samples, cpu_ns, now_ns, pin};
use bytes::Bytes;
use peerlink_core::api::Input;
use peerlink_drivers::clock;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

/// Both nodes in one thread: acknowledged messages a second of one core.
pub(crate) fn throughput(report: &Report) {
    report.section(
        "Two nodes in one thread: real crypto, bytes copied through a pipe, persists confirmed at once",
    );
    pin(Some(0));
    let mut joined = Joined::met();
    joined.sides.iter_mut().for_each(|side| side.forgets = true);
    joined.talk(50_000, 64);
    for (window, mark) in [(1, Mark::None), (64, Mark::AtLeast(500_000.0)), (1024, Mark::None)] {
        let count = if window == 1 { 50_000 } else { 500_000 };
        let rates = Samples(
            (0..3)
                .map(|_| {
                    let from = cpu_ns();
                    joined.talk(count, window);
                    count * 1_000_000_000 / (cpu_ns() - from).max(1) * 1000
                })
                .collect(),
        );
        report.line(&format!("{window} in flight, both sides counted"), rates.median(), "msg/s", mark);
    }
    pin(None);
}

/// A side of a conversation over a blocking socket.
fn serve(mut local: Local, mut stream: TcpStream, mut turn: impl FnMut(&mut Local) -> bool) -> Local {
    let mut buffer = vec![0; 64 * 1024];
    let mut wire = Vec::new();
    loop {
        local.drain(clock::now(), &mut wire);
        let goes_on = turn(&mut local);
        local.drain(clock::now(), &mut wire);
        if !wire.is_empty() {
            if stream.write_all(&wire).is_err() {
                return local;
            }
            wire.clear();
        }
        if !goes_on {
            return local;
        }
        let Ok(count) = stream.read(&mut buffer) else { return local };
        let (Some(id), true) = (local.stream, count > 0) else { return local };
        local.handle(clock::now(), Input::StreamData { stream: id, bytes: &buffer[..count] });
    }
}

/// A message and its acknowledgement over TCP, one at a time, both on one core.
pub(crate) fn echo(report: &Report, r: &Samples) {
    report.section("Encrypted echo without a disk: a message and its acknowledgement over TCP, one core");
    pin(Some(0));
    let joined = Joined::met();
    let now = clock::now();
    let [mut alice, mut bob] = joined.sides;
    // They were joined by a pipe; now they are by a socket, on the same session.
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let ours = TcpStream::connect(listener.local_addr().expect("bound")).expect("it listens");
    let (theirs, _) = listener.accept().expect("a peer");
    ours.set_nodelay(true).expect("TCP");
    theirs.set_nodelay(true).expect("TCP");
    (alice.forgets, bob.forgets) = (true, true);
    alice.drain(now, &mut Vec::new());
    bob.drain(now, &mut Vec::new());
    let (to, body) = (bob.peer, Bytes::from(vec![b'x'; MESSAGE]));
    let other = std::thread::scope(|scope| {
        let other = scope.spawn(move || drop(serve(bob, theirs, |_| true)));
        let mut samples = Samples::default();
        let (mut from, mut sent, mut seen) = (0, 0, alice.delivered);
        serve(alice, ours, |alice| {
            if sent > 0 && alice.delivered == seen {
                return true;
            }
            if sent > 1000 {
                samples.0.push(now_ns() - from);
            }
            seen = alice.delivered;
            sent += 1;
            from = now_ns();
            alice.send(clock::now(), to, &body);
            sent <= 21_000
        });
        other.join().expect("it ends");
        samples
    });
    report.line("p50", other.median(), "us", Mark::None);
    report.line("p50 / R", other.median() / r.median(), "", Mark::AtMost(2.3));
    pin(None);
}

/// From a dial to the first acknowledged message to a peer that is known.
pub(crate) fn connect(report: &Report) {
    report.section("From the dial to the first acknowledged message, a known peer");
    pin(Some(0));
    let (mut times, mut flights) = (Samples::default(), 0);
    let mut joined = Joined::met();
    for start in 0..200 {
        // Both start again; the message of who dials waits already.
        let [alice, bob] = joined.sides;
        let (alice, mut bob) = (alice.restart(1, start), bob.restart(2, start));
        let body = Bytes::from(vec![b'x'; MESSAGE]);
        bob.send(clock::now(), alice.peer, &body);
        bob.drain(clock::now(), &mut Vec::new());
        joined = Joined::of([alice, bob]);
        let from = cpu_ns();
        while joined.sides[1].delivered == 0 {
            let busy = joined.step();
            assert!(busy || joined.sides[1].delivered > 0, "nothing happens any more");
        }
        times.0.push(cpu_ns() - from);
        flights = joined.flights;
        joined.settle();
    }
    report.line("processor time of both sides", times.median() / 1000.0, "ms", Mark::AtMost(1.5));
    // The carrier's own handshake is one more.
    report.line("round trips after the carrier stands", flights as f64 / 2.0, "", Mark::None);
    pin(None);
}
