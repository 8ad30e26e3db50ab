//! A disk that holds what a node never wrote.

use super::Draw;
use crate::bench::{Bench, entries, item};
use bytes::Bytes;
use peerlink_core::api::{Command, Expire};
use peerlink_core::ids::{CallerId, EntryHash, Epoch};
use peerlink_core::record::KeyBytes;
use peerlink_core::time::Duration;
use peerlink_core::wire::entry::{Author, Body, RunHead};
use peerlink_core::wire::frame::Frame;

/// Changes of one disk.
const CHANGES: usize = 16;

/// A disk that a node wrote, changed in any way: a start from it fails with an error, or gives a node that does not
/// panic, does not spin, and starts again from what it then stored.
pub fn restore(data: &[u8]) {
    let mut draw = Draw(data);
    let mut disk = used().disk;
    for _ in 0..CHANGES {
        if draw.is_over() {
            break;
        }
        change(&mut draw, &mut disk);
    }
    let Ok(mut bench) = Bench::from_disk(disk) else { return };
    let peer = crate::speaker::Speaker::peer(crate::bench::SPEAKER);
    if let Some((stream, mut speaker)) = bench.try_session() {
        let mut ping = Vec::new();
        Frame::Ping(1).encode(&mut ping);
        for frames in [ping, text(2, EntryHash([7; 32])), draw.bytes().to_vec()] {
            bench.give(stream, &speaker.say(&frames), usize::MAX);
            bench.run();
        }
    }
    for caller in [CallerId([1; 16]), CallerId([2; 16])] {
        bench.command(Command::Send {
            peer,
            caller,
            fresh: false,
            expire: Expire::Default,
            body: "again".into(),
        });
    }
    bench.pass(Duration::from_secs(60));
    bench.pass(Duration::from_secs(60));
    // What was damaged and never needed may still be there; what the node wrote is good.
    let _damaged_elsewhere = bench.restart();
}

fn text(seq: u64, prev: EntryHash) -> Vec<u8> {
    let head = RunHead { author: Author::Sender, epoch: Epoch([9; 16]), first: seq, prev };
    entries(&head, &[item(seq, Body::Inline(b"hello"))])
}

/// A node that conversed a little: its disk has a record of each kind.
fn used() -> Bench {
    let mut bench = Bench::new(false);
    let peer = crate::speaker::Speaker::peer(crate::bench::SPEAKER);
    let (stream, mut speaker) = bench.session();
    for frames in [text(1, EntryHash::NONE), text(5, EntryHash([7; 32]))] {
        bench.give(stream, &speaker.say(&frames), usize::MAX);
        bench.run();
    }
    let secret = peerlink_core::ticket::TicketSecret([5; 16]);
    let expires = peerlink_core::time::WallClock(u64::MAX / 2);
    bench.command(Command::Invite { secret, expires });
    bench.command(Command::Send {
        peer,
        caller: CallerId([1; 16]),
        fresh: true,
        expire: Expire::Default,
        body: "mine".into(),
    });
    bench
}

fn change(draw: &mut Draw<'_>, disk: &mut std::collections::BTreeMap<KeyBytes, Bytes>) {
    let at = usize::from(draw.byte()) % disk.len().max(1);
    let Some((key, value)) = disk.iter().nth(at).map(|(key, value)| (key.clone(), value.clone())) else {
        return;
    };
    let mut value = value.to_vec();
    match draw.byte() % 6 {
        0 => {
            disk.remove(&key);
            return;
        }
        1 => {
            let at = usize::from(draw.byte()) % value.len().max(1);
            if let Some(byte) = value.get_mut(at) {
                *byte ^= draw.byte();
            }
        }
        2 => value.truncate(usize::from(draw.byte())),
        3 => value = draw.bytes().to_vec(),
        4 => {
            // The same value under another key of the same table.
            let mut other = key.to_vec();
            let at = 1 + usize::from(draw.byte()) % other.len();
            if let Some(byte) = other.get_mut(at) {
                *byte ^= draw.byte();
            }
            if let Ok(other) = KeyBytes::try_from(other.as_slice()) {
                disk.insert(other, value.into());
            }
            return;
        }
        _ => {
            // What the fuzzer says, beside it.
            let mut other = vec![key.first().copied().unwrap_or(1)];
            other.extend_from_slice(draw.bytes());
            other.truncate(peerlink_core::limits::KEY_BYTES);
            if let Ok(other) = KeyBytes::try_from(other.as_slice()) {
                disk.insert(other, Bytes::copy_from_slice(draw.bytes()));
            }
            return;
        }
    }
    disk.insert(key, value.into());
}
