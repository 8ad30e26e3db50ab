//! Rules about streams, one test each.

use super::child::in_child;
use super::memory::Memory;
use super::scripted::{Fact, Script, poke};
use super::{DriverUnderTest, FAILSAFE, loopback};
use bytes::Bytes;
use peerlink_core::api::{Command, DialFailure, Event, Output, StreamEnd};
use peerlink_core::ids::StreamId;
use peerlink_core::time::{Duration, Instant};
use peerlink_drivers::{Events, Gone, Handle, Notice, StartError, clock};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

/// More than the kernel takes of a stream that nobody reads.
const LARGE: usize = 32 << 20;
const DIALLED: StreamId = StreamId(2);

fn start<D: DriverUnderTest>(script: &Script) -> (Handle, Events) {
    let memory = Memory::default();
    D::start(script.machine(), memory.clone(), memory, &[loopback()]).expect("the driver starts")
}

fn connect(handle: &Handle) -> TcpStream {
    let address = handle.listen_addresses()[0];
    let stream = TcpStream::connect(address).expect("the driver listens");
    stream.set_read_timeout(Some(FAILSAFE)).expect("a timeout can be set");
    stream
}

/// A stream that the driver dialled, and the other end of it.
fn dialled(script: &Script, handle: &Handle) -> TcpStream {
    let listener = TcpListener::bind(loopback()).expect("a port is free");
    let remote = listener.local_addr().expect("it is bound");
    script.say(handle, [dial(DIALLED, remote)]);
    let (peer, _) = listener.accept().expect("the driver dials");
    peer.set_read_timeout(Some(FAILSAFE)).expect("a timeout can be set");
    script.wait(&Fact::Connected(DIALLED));
    peer
}

fn dial(stream: StreamId, remote: SocketAddr) -> Output {
    Output::Dial { stream, remote, timeout: Duration::from_secs(30) }
}

fn write(stream: StreamId, bytes: &Bytes) -> Output {
    Output::Write { stream, bytes: bytes.clone() }
}

/// Bytes whose order shows.
fn pattern(length: usize) -> Bytes {
    (0..length).map(|at| (at / 251 + at) as u8).collect()
}

fn count(script: &Script, fact: &Fact) -> usize {
    script.facts().iter().filter(|seen| *seen == fact).count()
}

/// Ends with a reset.
fn reset(stream: TcpStream) {
    let socket = socket2::Socket::from(stream);
    socket.set_linger(Some(Duration::ZERO)).expect("linger can be set");
}

/// A write larger than what the carrier takes goes on when there is room, in order, and is told once it is whole.
pub fn partial_writes_go_on_and_are_told_once_whole<D: DriverUnderTest>() {
    let script = Script::default();
    let (handle, _events) = start::<D>(&script);
    let mut peer = dialled(&script, &handle);
    let sent = pattern(LARGE);
    script.say(&handle, [write(DIALLED, &sent)]);
    let mut got = vec![0; LARGE];
    peer.read_exact(&mut got[..1 << 20]).expect("the first part");
    poke(&handle);
    assert_eq!(count(&script, &Fact::Written(DIALLED)), 0, "not whole yet");
    for part in got[1 << 20..].chunks_mut(100_003) {
        peer.read_exact(part).expect("the rest");
    }
    assert!(got == sent, "in order and unchanged");
    script.wait(&Fact::Written(DIALLED));
    script.say(&handle, [write(DIALLED, &Bytes::from_static(b"next"))]);
    peer.read_exact(&mut got[..4]).expect("the next write");
    assert_eq!(&got[..4], b"next");
    script.until("second written", |state| {
        (state.facts.iter().filter(|fact| **fact == Fact::Written(DIALLED)).count() == 2).then_some(())
    });
    handle.shutdown();
    script.assert_last_words();
}

/// Nothing is read at budget 0, and what waits is read on `ReadReady`, although no edge tells of it again.
pub fn a_budget_of_zero_stops_reading_until_ready<D: DriverUnderTest>() {
    let script = Script::with_budget(0);
    let (handle, _events) = start::<D>(&script);
    let mut peer = connect(&handle);
    let sent = pattern(200_000);
    peer.write_all(&sent).expect("the kernel takes it");
    let stream = script.accepted(0);
    for _ in 0..50 {
        poke(&handle);
    }
    assert_eq!(script.count(stream), 0);
    script.set_budget(stream, 1000);
    script.say(&handle, [Output::ReadReady { stream }]);
    script.wait_bytes(stream, 1000);
    for _ in 0..50 {
        poke(&handle);
    }
    assert_eq!(script.count(stream), 1000);
    script.set_budget(stream, usize::MAX);
    script.say(&handle, [Output::ReadReady { stream }]);
    script.wait_bytes(stream, sent.len());
    assert!(script.received(stream) == sent);
    peer.write_all(b"more").expect("open");
    script.wait_bytes(stream, sent.len() + 4);
    handle.shutdown();
}

/// A peer that sends and goes is read to the end, at any budget, then told as gone: once, and last.
pub fn what_came_before_a_close_is_read_first<D: DriverUnderTest>() {
    let script = Script::default();
    let (handle, _events) = start::<D>(&script);
    drop(connect(&handle));
    script.wait(&Fact::Closed(script.accepted(0), StreamEnd::Finished));

    let mut peer = connect(&handle);
    let sent = pattern(300_000);
    peer.write_all(&sent).expect("open");
    drop(peer);
    let stream = script.accepted(1);
    script.wait(&Fact::Closed(stream, StreamEnd::Finished));
    assert!(script.received(stream) == sent);

    let held = Script::with_budget(0);
    let (other, _events) = start::<D>(&held);
    let mut peer = connect(&other);
    peer.write_all(b"last words").expect("open");
    drop(peer);
    let stream = held.accepted(0);
    for _ in 0..50 {
        poke(&other);
    }
    assert_eq!(count(&held, &Fact::Closed(stream, StreamEnd::Finished)), 0, "not before its bytes");
    held.set_budget(stream, usize::MAX);
    held.say(&other, [Output::ReadReady { stream }]);
    held.wait(&Fact::Closed(stream, StreamEnd::Finished));
    assert_eq!(held.received(stream), b"last words");
    handle.shutdown();
    other.shutdown();
    script.assert_last_words();
    held.assert_last_words();
}

/// A reset in the middle of a write: broken, once, and the write is not told as done.
pub fn a_peer_that_resets_during_a_write_ends_the_stream_once<D: DriverUnderTest>() {
    for budget in [usize::MAX, 0] {
        let script = Script::with_budget(budget);
        let (handle, _events) = start::<D>(&script);
        let mut peer = dialled(&script, &handle);
        script.say(&handle, [write(DIALLED, &pattern(LARGE))]);
        peer.read_exact(&mut [0; 1000]).expect("it began");
        reset(peer);
        script.wait(&Fact::Closed(DIALLED, StreamEnd::Broken));
        // Said by a machine that has not heard yet.
        script.say(&handle, [Output::Close { stream: DIALLED, flush: true }]);
        script.say(&handle, [Output::ReadReady { stream: DIALLED }]);
        assert_eq!(count(&script, &Fact::Written(DIALLED)), 0);
        handle.shutdown();
        script.assert_last_words();
    }
}

/// `Close` with `flush` sends all that was handed over, then FIN; then the stream is over.
pub fn a_close_that_flushes_sends_everything_and_ends<D: DriverUnderTest>() {
    let script = Script::default();
    let (handle, _events) = start::<D>(&script);
    let mut peer = dialled(&script, &handle);
    let sent = pattern(LARGE);
    script.say(&handle, [write(DIALLED, &sent), Output::Close { stream: DIALLED, flush: true }]);
    // The peer still talks; nobody listens, and it must not turn the end into a reset.
    peer.write_all(&[7; 1000]).expect("the kernel takes it");
    let mut got = Vec::new();
    peer.read_to_end(&mut got).expect("ends in good order");
    assert!(got == sent);
    drop(peer);
    script.wait(&Fact::Closed(DIALLED, StreamEnd::Local));
    assert_eq!(script.count(DIALLED), 0, "nothing is told of a stream that was closed");
    handle.shutdown();
    script.assert_last_words();
}

/// `Close` without `flush` ends at once, whatever waits.
pub fn a_close_that_aborts_ends_at_once<D: DriverUnderTest>() {
    let script = Script::default();
    let (handle, _events) = start::<D>(&script);
    let mut peer = dialled(&script, &handle);
    script.say(&handle, [write(DIALLED, &pattern(LARGE))]);
    script.say(&handle, [Output::Close { stream: DIALLED, flush: false }]);
    script.wait(&Fact::Closed(DIALLED, StreamEnd::Local));
    let mut got = Vec::new();
    // An end or a reset.
    let _ = peer.read_to_end(&mut got);
    assert!(got.len() < LARGE);
    handle.shutdown();
    script.assert_last_words();
}

/// A peer that reads nothing cannot hold a stream that was closed.
pub fn a_flush_that_nobody_reads_ends_in_time<D: DriverUnderTest>() {
    let script = Script::default();
    let (handle, _events) = start::<D>(&script);
    let peer = dialled(&script, &handle);
    script.say(&handle, [write(DIALLED, &pattern(LARGE)), Output::Close { stream: DIALLED, flush: true }]);
    script.wait(&Fact::Closed(DIALLED, StreamEnd::Local));
    drop(peer);
    handle.shutdown();
    script.assert_last_words();
}

/// The last bytes of a stream that was closed just before the end still go out.
pub fn a_shutdown_sends_what_was_handed_over<D: DriverUnderTest>() {
    let script = Script::default();
    let (handle, _events) = start::<D>(&script);
    let mut peer = dialled(&script, &handle);
    let sent = pattern(LARGE);
    script.say(&handle, [write(DIALLED, &sent), Output::Close { stream: DIALLED, flush: true }]);
    let stopping = std::thread::spawn(move || handle.shutdown());
    let mut got = Vec::new();
    peer.read_to_end(&mut got).expect("ends in good order");
    assert!(got == sent);
    drop(peer);
    stopping.join().expect("shutdown returns");
}

pub fn a_refused_dial_is_told<D: DriverUnderTest>() {
    let script = Script::default();
    let (handle, _events) = start::<D>(&script);
    let listener = TcpListener::bind(loopback()).expect("a port is free");
    let nobody = listener.local_addr().expect("it is bound");
    drop(listener);
    script.say(&handle, [dial(DIALLED, nobody)]);
    script.wait(&Fact::DialFailed(DIALLED, DialFailure::Refused));
    handle.shutdown();
    script.assert_last_words();
}

/// A listener whose backlog is full, so that the kernel answers nothing; and the streams that fill it.
fn black_hole() -> (socket2::Socket, Vec<socket2::Socket>, SocketAddr) {
    use socket2::{Domain, Socket, Type};
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    listener.bind(&loopback().into()).expect("a port is free");
    listener.listen(0).expect("listens");
    let address = listener.local_addr().expect("bound").as_socket().expect("an internet address");
    let mut fillers = Vec::new();
    for _ in 0..4 {
        let filler = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        filler.set_nonblocking(true).expect("can be set");
        // Under way, for ever, once the backlog is full.
        let _ = filler.connect(&address.into());
        fillers.push(filler);
    }
    (listener, fillers, address)
}

/// A dial that nobody answers fails when its time is over, not before.
pub fn a_dial_into_nothing_times_out<D: DriverUnderTest>() {
    let script = Script::default();
    let (handle, _events) = start::<D>(&script);
    let (_listener, _fillers, remote) = black_hole();
    let timeout = Duration::from_millis(200);
    let began = clock::now();
    script.say(&handle, [Output::Dial { stream: DIALLED, remote, timeout }]);
    script.wait(&Fact::DialFailed(DIALLED, DialFailure::TimedOut));
    assert!(clock::now().saturating_since(began) >= timeout);
    handle.shutdown();
    script.assert_last_words();
}

/// A machine may lose interest in a dial.
pub fn a_dial_that_is_closed_ends_once<D: DriverUnderTest>() {
    let script = Script::default();
    let (handle, _events) = start::<D>(&script);
    let (_listener, _fillers, remote) = black_hole();
    script.say(&handle, [dial(DIALLED, remote)]);
    script.say(&handle, [Output::Close { stream: DIALLED, flush: true }]);
    script.wait(&Fact::Closed(DIALLED, StreamEnd::Local));
    handle.shutdown();
    script.assert_last_words();
}

/// Many connections at once: each is accepted, under an odd id of its own.
pub fn a_storm_of_connections_is_accepted_whole<D: DriverUnderTest>() {
    const STORM: usize = 300;
    let script = Script::default();
    let (handle, _events) = start::<D>(&script);
    let peers: Vec<TcpStream> = (0..STORM).map(|_| connect(&handle)).collect();
    let mut streams: Vec<StreamId> = (0..STORM).map(|n| script.accepted(n)).collect();
    assert_eq!(handle.carried().streams, STORM as u64);
    streams.sort();
    streams.dedup();
    assert_eq!(streams.len(), STORM);
    assert!(streams.iter().all(|stream| stream.0 % 2 == 1));
    drop(peers);
    for stream in streams {
        script.wait(&Fact::Closed(stream, StreamEnd::Finished));
    }
    assert_eq!(handle.carried().streams, 0);
    handle.shutdown();
    script.assert_last_words();
}

/// Who sends without end does not keep others from being heard.
pub fn a_flood_on_one_stream_does_not_starve_another<D: DriverUnderTest>() {
    let script = Script::default();
    script.count_only();
    let (handle, _events) = start::<D>(&script);
    let mut flood = connect(&handle);
    let flooded = script.accepted(0);
    let flooding = std::thread::spawn(move || {
        let block = [1; 1 << 16];
        let mut sent = 0_u64;
        while flood.write_all(&block).is_ok() {
            sent += 1;
        }
        sent
    });
    script.wait_bytes(flooded, 1 << 20);
    let mut quiet = connect(&handle);
    let stream = script.accepted(1);
    for sent in 1..=100 {
        quiet.write_all(b"x").expect("open");
        script.wait_bytes(stream, sent);
        poke(&handle);
    }
    script.say(&handle, [Output::Close { stream: flooded, flush: false }]);
    assert!(flooding.join().expect("no panic") > 0);
    handle.shutdown();
}

/// IPv6 sockets take IPv6 alone, and port 0 is told as what it became.
pub fn both_families_share_a_port<D: DriverUnderTest>() {
    let script = Script::default();
    let (first, _events) = start::<D>(&script);
    let port = first.listen_addresses()[0].port();
    assert_ne!(port, 0);
    first.shutdown();
    if TcpListener::bind("[::1]:0").is_err() {
        return; // No IPv6 here.
    }
    let listen =
        [SocketAddr::from(([0, 0, 0, 0], port)), format!("[::]:{port}").parse().expect("an address")];
    let script = Script::default();
    let memory = Memory::default();
    let (handle, _events) =
        D::start(script.machine(), memory.clone(), memory, &listen).expect("both families listen");
    assert_eq!(handle.listen_addresses(), listen);
    let _v4 = TcpStream::connect(("127.0.0.1", port)).expect("IPv4 is served");
    let _v6 = TcpStream::connect(("::1", port)).expect("IPv6 is served");
    let _both = script.accepted(1);
    assert!(script.facts().contains(&Fact::Wall));
    assert!(script.facts().iter().any(|fact| matches!(fact, Fact::Addresses(found) if !found.is_empty())));
    handle.shutdown();
}

pub fn a_taken_port_is_an_error<D: DriverUnderTest>() {
    let taken = TcpListener::bind(loopback()).expect("a port is free");
    let address = taken.local_addr().expect("it is bound");
    let memory = Memory::default();
    let started = D::start(Script::default().machine(), memory.clone(), memory, &[loopback(), address]);
    assert!(matches!(started, Err(StartError::Listen { address: told, .. }) if told == address));
}

/// A timer is never early, needs nothing else to happen, and is waited for in silence.
pub fn a_deadline_brings_a_tick_and_not_before<D: DriverUnderTest>() {
    let script = Script::default();
    let (handle, _events) = start::<D>(&script);
    let due = clock::now() + Duration::from_micros(50_950);
    script.set_deadline(Some(due));
    poke(&handle);
    let polls = script.polls();
    let at = script.until("tick", |state| {
        state.facts.iter().find_map(|fact| match fact {
            Fact::Tick(at) => Some(*at),
            _ => None,
        })
    });
    assert!(at >= due);
    assert!(script.polls() - polls <= 8, "{} polls for one timer", script.polls() - polls);
    handle.shutdown();
}

/// Who calls hears `Gone`, who waits for events hears the end, and shutdown returns.
pub fn a_machine_that_panics_is_gone_not_silent<D: DriverUnderTest>() {
    let script = Script::default();
    let (handle, events) = start::<D>(&script);
    script.panic();
    let _peer = connect(&handle);
    while handle.command(Command::SetNickname { nickname: None }) != Err(Gone) {}
    assert_eq!(events.recv(), None, "an end without `Stopped`");
    handle.shutdown();
}

/// "Due now" for ever, with nothing to do: a bug that a debug build shows and a release build rests between.
pub fn a_machine_that_is_stuck_does_not_spin<D: DriverUnderTest>() {
    let script = Script::default();
    let (handle, events) = start::<D>(&script);
    script.set_deadline(Some(Instant::ZERO));
    if cfg!(debug_assertions) {
        let _ = handle.command(Command::SetNickname { nickname: None });
        assert_eq!(events.recv(), None, "the loop ends");
    } else {
        poke(&handle);
        poke(&handle);
    }
    script.set_deadline(None);
    handle.shutdown();
}

/// Nobody is left who could stop the node, so it stops.
pub fn handles_that_are_dropped_stop_the_node<D: DriverUnderTest>() {
    let script = Script::default();
    let (handle, events) = start::<D>(&script);
    let clone = handle.clone();
    drop(handle);
    poke(&clone);
    drop(clone);
    assert_eq!(events.recv(), Some(Notice::Event(Event::Stopped)));
    assert_eq!(events.recv(), None);
}

/// Without a free descriptor nothing is accepted; with one again, whoever waited is, although no edge tells of it.
pub fn running_out_of_descriptors_only_delays<D: DriverUnderTest>() {
    in_child("running_out_of_descriptors_only_delays", || {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let script = Script::default();
        let (handle, _events) = start::<D>(&script);
        let mut limit = getrlimit(Resource::Nofile);
        limit.current = Some(64);
        setrlimit(Resource::Nofile, limit).expect("lower is allowed");
        let address = handle.listen_addresses()[0];
        // The peer's socket first; with a connection for it, nothing may be left.
        let peer =
            socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
        let mut fillers = Vec::new();
        // The driver may hold one for a moment, such as when it looks at the interfaces: until a turn of it frees none.
        loop {
            let before = fillers.len();
            while let Ok(filler) = std::fs::File::open("/dev/null") {
                fillers.push(filler);
            }
            if fillers.len() == before {
                break;
            }
            poke(&handle);
        }
        peer.connect(&address.into()).expect("the kernel completes it");
        let mut peer = TcpStream::from(peer);
        peer.write_all(b"patience").expect("open");
        while handle.carried().accept_errors == 0 {
            std::thread::yield_now();
        }
        assert_eq!(handle.carried().accepted, 0);
        let errors = handle.carried().accept_errors;
        for _ in 0..1000 {
            poke(&handle);
        }
        assert!(handle.carried().accept_errors <= errors + 3, "it rests between tries");
        drop(fillers);
        let stream = script.accepted(0);
        script.wait_bytes(stream, 8);
        handle.shutdown();
    });
}
