//! Bytes from strangers on the port: each costs bounded memory, is counted, ends in a closed connection, and costs no
//! message. Each runs in a process of its own, whose resident memory is measured.

use super::child::{in_child, resident_kib};
use super::memory::Memory;
use super::nodes::Person;
use super::{DriverUnderTest, FAILSAFE, loopback};
use std::io::{Read, Write};
use std::net::TcpStream;

/// What a hostile test may cost in resident memory.
const GROWTH_KIB: u64 = 8 * 1024;
/// Connections of one test, in rounds of those that the node lets one source have half-open.
const ROUNDS: usize = 60;
const AT_ONCE: usize = peerlink_core::limits::HALF_OPEN_PER_SOURCE;

/// Two friends, one of whom is attacked; what it cost; and that they still talk.
fn attacked<D: DriverUnderTest>(attack: impl Fn(&Person)) {
    let alice = Person::start::<D>(1, 0, &Memory::default(), loopback());
    let bob = Person::start::<D>(2, 0, &Memory::default(), loopback());
    alice.befriend(&bob);
    bob.send(alice.peer, 1, "before");
    assert_eq!(alice.message(), "before");
    // What the attack needs itself is there before it is measured.
    attack(&alice);
    let before = resident_kib();
    attack(&alice);
    let growth = resident_kib().saturating_sub(before);
    assert!(growth <= GROWTH_KIB, "{growth} KiB more");
    bob.send(alice.peer, 2, "after");
    assert_eq!(alice.message(), "after");
    bob.delivered();
    let stats = alice.handle.stats();
    let rejected = stats.rejected_half_open
        + stats.rejected_not_for_us
        + stats.rejected_bad_handshake
        + stats.rejected_slow;
    assert!(rejected > 0, "it is counted: {stats:?}");
    alice.handle.shutdown();
    bob.handle.shutdown();
}

fn connect(victim: &Person) -> TcpStream {
    let stream = TcpStream::connect(victim.handle.listen_addresses()[0]).expect("it listens");
    stream.set_read_timeout(Some(FAILSAFE)).expect("a timeout can be set");
    stream
}

/// Waits until the other side has ended it.
fn wait_for_end(mut stream: TcpStream) {
    let mut rest = [0; 4096];
    loop {
        match stream.read(&mut rest) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => panic!("not closed"),
            Err(_) => return,
        }
    }
}

/// Connections full of what is no handshake, of every first byte and several lengths.
pub fn garbage_costs_bounded_memory_and_nothing_else<D: DriverUnderTest>() {
    in_child("garbage_costs_bounded_memory_and_nothing_else", || {
        attacked::<D>(|victim| {
            for round in 0..ROUNDS {
                let streams: Vec<TcpStream> = (0..AT_ONCE).map(|_| connect(victim)).collect();
                for (at, mut stream) in streams.into_iter().enumerate() {
                    let noise = (0..4096_u32).map(|byte| (byte.wrapping_mul(2_654_435_761) >> 13) as u8);
                    let mut bytes: Vec<u8> = noise.collect();
                    bytes.rotate_left(round * AT_ONCE + at);
                    // It may be closed already.
                    let _ = stream.write_all(&bytes);
                    wait_for_end(stream);
                }
            }
        });
    });
}

/// One byte, then silence: the node ends it when a handshake has had its time.
pub fn slow_bytes_cost_bounded_memory_and_nothing_else<D: DriverUnderTest>() {
    in_child("slow_bytes_cost_bounded_memory_and_nothing_else", || {
        attacked::<D>(|victim| {
            let streams: Vec<TcpStream> = (0..2 * AT_ONCE).map(|_| connect(victim)).collect();
            for mut stream in streams {
                let _ = stream.write_all(&[0]);
                wait_for_end(stream);
            }
        });
    });
}

/// A stream that never ends, after a length that promises much.
pub fn endless_bytes_cost_bounded_memory_and_nothing_else<D: DriverUnderTest>() {
    in_child("endless_bytes_cost_bounded_memory_and_nothing_else", || {
        attacked::<D>(|victim| {
            for first in [[0xff; 2], [0, 0], [0, 200], [4, 0]] {
                let mut stream = connect(victim);
                let block = vec![first[0]; 1 << 16];
                let _ = stream.write_all(&first);
                // 64 MiB, or until it is closed.
                for _ in 0..1024 {
                    if stream.write_all(&block).is_err() {
                        break;
                    }
                }
                drop(stream);
            }
        });
    });
}
