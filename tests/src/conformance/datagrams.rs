//! Rules about datagrams, one test each.

use super::memory::Memory;
use super::scripted::{Fact, Script, poke};
use super::{DriverUnderTest, FAILSAFE, loopback};
use bytes::Bytes;
use peerlink_core::api::Output;
use peerlink_drivers::{Events, Handle};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};

fn start<D: DriverUnderTest>(script: &Script, listen: &[SocketAddr]) -> (Handle, Events) {
    let memory = Memory::default();
    D::start(script.machine(), memory.clone(), memory, listen).expect("the driver starts")
}

/// Somebody else's socket, of the family of `beside`.
fn stranger(beside: SocketAddr) -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind(SocketAddr::new(beside.ip(), 0)).expect("a port is free");
    socket.set_read_timeout(Some(FAILSAFE)).expect("a timeout can be set");
    let address = socket.local_addr().expect("it is bound");
    (socket, address)
}

fn datagram(remote: SocketAddr, bytes: &[u8]) -> Output {
    Output::Datagram { remote, ttl: None, bytes: Bytes::copy_from_slice(bytes) }
}

fn receive(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut buffer = vec![0; 1 << 16];
    let (count, from) = socket.recv_from(&mut buffer).expect("a datagram comes");
    buffer.truncate(count);
    (buffer, from)
}

/// In both families, whole, with the address of who sent them; and what is sent comes from where the node listens.
pub fn datagrams_come_and_go_where_the_node_listens<D: DriverUnderTest>() {
    let mut listen = vec![loopback()];
    if UdpSocket::bind("[::1]:0").is_ok() {
        listen.push("[::1]:0".parse().expect("an address"));
    }
    let script = Script::default();
    let (handle, _events) = start::<D>(&script, &listen);
    for address in handle.listen_addresses() {
        let (socket, own) = stranger(address);
        // The largest that IPv4 takes, what every path takes, the smallest, and none at all.
        for size in [65_507, 1200, 1, 0] {
            let sent: Vec<u8> = (0..size).map(|at| (at / 251 + at) as u8).collect();
            socket.send_to(&sent, address).expect("it is sent");
            script.wait(&Fact::Datagram(own, sent.clone()));
            if size > 1200 {
                continue; // Nodes send nothing that would have to be cut.
            }
            script.say(&handle, [datagram(own, &sent)]);
            assert!(receive(&socket) == (sent, address), "{size} bytes to {address}");
        }
    }
    handle.shutdown();
}

/// Another program has the port for datagrams: the node starts, is reached by streams, and sends from elsewhere.
pub fn a_port_that_is_taken_for_datagrams_keeps_no_node_from_starting<D: DriverUnderTest>() {
    let (held, address) = stranger(loopback());
    let script = Script::default();
    let (handle, _events) = start::<D>(&script, &[address]);
    assert_eq!(handle.listen_addresses(), [address]);
    let _stream = TcpStream::connect(address).expect("streams are served");
    let _accepted = script.accepted(0);
    script.say(&handle, [datagram(address, b"from elsewhere")]);
    let (bytes, from) = receive(&held);
    assert_eq!(bytes, b"from elsewhere");
    held.send_to(b"back", from).expect("it is sent");
    script.wait(&Fact::Datagram(from_of(&held), b"back".to_vec()));
    handle.shutdown();
}

fn from_of(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("it is bound")
}

/// Nobody listens there, nothing goes there, it is too large, there is no socket for it: each costs that datagram alone.
pub fn what_cannot_be_sent_is_lost_alone<D: DriverUnderTest>() {
    let script = Script::default();
    let (handle, _events) = start::<D>(&script, &[loopback()]);
    let (socket, own) = stranger(loopback());
    let closed = {
        let (_gone, address) = stranger(loopback());
        address
    };
    let wrong = [
        datagram("255.255.255.255:9".parse().expect("an address"), b"to all"),
        datagram("[::1]:9".parse().expect("an address"), b"another family"),
        datagram("127.0.0.1:0".parse().expect("an address"), b"no port"),
        datagram(own, &[0; 70_000]),
    ];
    for round in 0..20u8 {
        script.say(&handle, [datagram(closed, b"nobody"), datagram(closed, b"is here")]);
        script.say(&handle, wrong.clone());
        script.say(&handle, [datagram(own, &[round])]);
        assert_eq!(receive(&socket).0, [round]);
        socket.send_to(&[round], handle.listen_addresses()[0]).expect("it is sent");
        script.wait(&Fact::Datagram(own, vec![round]));
    }
    let carried = handle.carried();
    assert_eq!(carried.datagrams_read, 20);
    assert!(carried.datagram_errors >= 20 * 4, "{carried:?}");
    assert_eq!(carried.datagrams_unsent, 0);
    handle.shutdown();
}

/// As many datagrams as a machine can send do not keep streams and commands waiting.
pub fn a_flood_of_datagrams_starves_no_stream<D: DriverUnderTest>() {
    let script = Script::default();
    let (handle, _events) = start::<D>(&script, &[loopback()]);
    let address = handle.listen_addresses()[0];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (socket, _) = stranger(loopback());
            while !stop.load(Ordering::Relaxed) {
                // Some of them find the node's buffer full.
                let _lost = socket.send_to(&[7; 1200], address);
            }
        });
        script.until("the flood", |state| {
            let flood = state.facts.iter().filter(|fact| matches!(fact, Fact::Datagram(..))).count();
            (flood > 1_000).then_some(())
        });
        script.forget_datagrams();
        let mut stream = TcpStream::connect(address).expect("the driver accepts");
        let accepted = script.accepted(0);
        for count in 1..=50 {
            stream.write_all(&[1; 1000]).expect("it writes");
            script.wait_bytes(accepted, 1000 * count);
            script.say(&handle, [Output::Write { stream: accepted, bytes: Bytes::from_static(b"answer") }]);
            let mut answer = [0; 6];
            stream.read_exact(&mut answer).expect("it answers");
            script.forget_datagrams();
        }
        stop.store(true, Ordering::Relaxed);
    });
    handle.shutdown();
}

/// Streams that never end leave room for datagrams.
pub fn a_flood_of_streams_starves_no_datagram<D: DriverUnderTest>() {
    let script = Script::default();
    script.count_only();
    let (handle, _events) = start::<D>(&script, &[loopback()]);
    let address = handle.listen_addresses()[0];
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let mut stream = TcpStream::connect(address).expect("the driver accepts");
                while !stop.load(Ordering::Relaxed) {
                    stream.write_all(&[3; 65_536]).expect("it reads");
                }
            });
        }
        let accepted = script.accepted(2);
        script.wait_bytes(accepted, 1 << 20);
        let (socket, own) = stranger(loopback());
        for round in 0..50u8 {
            socket.send_to(&[round], address).expect("it is sent");
            script.wait(&Fact::Datagram(own, vec![round]));
            script.say(&handle, [datagram(own, &[round])]);
            assert_eq!(receive(&socket).0, [round]);
        }
        stop.store(true, Ordering::Relaxed);
    });
    handle.shutdown();
}

/// A node that listens nowhere still sends and hears.
pub fn who_listens_nowhere_has_datagrams<D: DriverUnderTest>() {
    let script = Script::default();
    let (handle, _events) = start::<D>(&script, &[]);
    let (socket, own) = stranger(loopback());
    script.say(&handle, [datagram(own, b"hello")]);
    let (bytes, from) = receive(&socket);
    assert_eq!(bytes, b"hello");
    socket.send_to(b"and back", from).expect("it is sent");
    script.wait(&Fact::Datagram(own, b"and back".to_vec()));
    poke(&handle);
    // It has a port of its own for them, and none for streams.
    assert!(TcpListener::bind(from).is_ok());
    handle.shutdown();
}
