//! A store with a long history: how soon it is ready, how fast it is read, how much room it takes.

use crate::local::Joined;
use crate::measure::{Mark, Report, Samples};
use crate::pair::Node;
use peerlink_core::api::{Batch, Store as _};
use peerlink_core::ids::BatchId;
use peerlink_storage::Writer;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const MESSAGES: u64 = 1_000_000;

/// Alice said a million messages to Bob; gives the bytes of keys and values that her store was handed.
fn make(dir: &Path) -> u64 {
    let (mut writer, loader, reader): (Writer, _, _) = peerlink_storage::open(dir).expect("room").split();
    drop((loader, reader));
    let handed = Arc::new(AtomicU64::new(0));
    let count = handed.clone();
    let mut joined = Joined::strangers();
    // What Alice wrote before the store was there is little.
    let first = joined.sides[0].disk.iter().map(|(key, value)| (key.clone(), Some(value.clone())));
    writer.commit(&[Batch { id: BatchId(1), writes: first.collect() }]).expect("room");
    let (send, batches) = std::sync::mpsc::sync_channel::<Batch>(64);
    let thread = std::thread::spawn(move || {
        while let Ok(first) = batches.recv() {
            let group: Vec<_> = std::iter::once(first).chain(batches.try_iter().take(32)).collect();
            writer.commit(&group).expect("room");
        }
        writer.close();
    });
    joined.sides[0].store = Some(Box::new(move |batch| {
        let bytes =
            batch.writes.iter().map(|(key, value)| key.len() + value.as_ref().map_or(0, bytes::Bytes::len));
        count.fetch_add(bytes.sum::<usize>() as u64, Ordering::Relaxed);
        send.send(batch.clone()).expect("it runs");
    }));
    joined.introduce();
    joined.settle();
    joined.sides.iter_mut().for_each(|side| side.forgets = true);
    joined.talk(MESSAGES, 512);
    joined.settle();
    drop(joined);
    thread.join().expect("it ends");
    handed.load(Ordering::Relaxed)
}

/// Bytes that files take, not what they are long.
fn room(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::symlink_metadata(path).expect("there");
    let inside = std::fs::read_dir(path).into_iter().flatten();
    metadata.blocks() * 512 + inside.map(|entry| room(&entry.expect("there").path())).sum::<u64>()
}

pub(crate) fn measure(report: &Report, dir: &Path) {
    report.section("A history of 1,000,000 messages of 100 B");
    let dir = dir.join("history");
    let handed = make(&dir);
    let text = dir.to_string_lossy().into_owned();
    let ratio = room(&dir) as f64 / handed as f64;
    report.line(
        "disk after a clean close / keys and values handed to the store",
        ratio,
        "",
        Mark::AtMost(1.5),
    );
    report.line("disk a message", room(&dir) as f64 / MESSAGES as f64, "B", Mark::None);
    let mut ready = Samples::default();
    for start in 1..=7 {
        let mut node = Node::start(&text, 1, start);
        ready.0.push(node.ready_us * 1000);
        if start == 7 {
            let latest = Samples(node.numbers("latest"));
            report.line("latest 50, warm", latest.median(), "us", Mark::AtMost(100.0));
        }
        node.stop();
    }
    report.line("start to ready after a clean close", ready.median() / 1000.0, "ms", Mark::AtMost(300.0));
    let mut ready = Samples::default();
    for start in 8..=11 {
        let mut node = Node::start(&text, 1, start);
        if start > 8 {
            ready.0.push(node.ready_us * 1000);
        }
        node.ask("queue 20000");
        node.kill();
    }
    report.line("start to ready after SIGKILL", ready.median() / 1000.0, "ms", Mark::AtMost(1000.0));
}
