//! What the machine itself can do: nothing that sends and stores can be faster.

use crate::measure::{Samples, now_ns, pin};
use rustix::fs::FsWord;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::time::Duration;

pub(crate) const MESSAGE: usize = 100;
const TMPFS: FsWord = 0x0102_1994;

/// R: 100 bytes there and back between two threads over TCP on loopback, on one core.
pub(crate) fn round_trips(count: usize) -> Samples {
    pin(Some(0));
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    let echo = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a peer");
        stream.set_nodelay(true).expect("TCP");
        let mut bytes = [0; MESSAGE];
        while stream.read_exact(&mut bytes).is_ok() {
            stream.write_all(&bytes).expect("it is there");
        }
    });
    let mut stream = TcpStream::connect(address).expect("it listens");
    stream.set_nodelay(true).expect("TCP");
    let mut samples = Samples::default();
    let mut bytes = [7; MESSAGE];
    for n in 0..count + count / 10 {
        let from = now_ns();
        stream.write_all(&bytes).expect("it is there");
        stream.read_exact(&mut bytes).expect("it answers");
        if n >= count / 10 {
            samples.0.push(now_ns() - from);
        }
    }
    drop(stream);
    echo.join().expect("it ends");
    pin(None);
    samples
}

/// F: `fdatasync` of 100 bytes written into a preallocated file, one behind the other or with pauses between them. `None`
/// where that would be no disk.
pub(crate) fn syncs(dir: &Path, count: usize, pause: Duration) -> Option<Samples> {
    let kind = rustix::fs::statfs(dir).expect("a file system").f_type;
    if kind == TMPFS {
        return None;
    }
    pin(Some(0));
    let path = dir.join("preallocated");
    let file = std::fs::OpenOptions::new().create(true).truncate(true).write(true).open(&path).expect("room");
    let room = (count + 1) * MESSAGE;
    file.write_all_at(&vec![0; room], 0).expect("room");
    file.sync_all().expect("a disk");
    let mut samples = Samples::default();
    for n in 0..count {
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
        let from = now_ns();
        file.write_all_at(&[7; MESSAGE], (n * MESSAGE) as u64).expect("room");
        file.sync_data().expect("a disk");
        samples.0.push(now_ns() - from);
    }
    std::fs::remove_file(path).expect("it is ours");
    pin(None);
    Some(samples)
}
