//! Rules about the store's two threads, one test each.

use super::memory::{Disk, Memory};
use super::scripted::{Fact, Script, poke};
use super::{DriverUnderTest, loopback};
use bytes::Bytes;
use peerlink_core::api::{Answer, Batch, Command, Event, KeyRange, Output, Page};
use peerlink_core::ids::{BatchId, LoadId};
use peerlink_core::record::KeyBytes;
use peerlink_drivers::{Events, Gone, Handle, Notice};

fn start<D: DriverUnderTest>(script: &Script, memory: &Memory) -> (Handle, Events) {
    D::start(script.machine(), memory.clone(), memory.clone(), &[loopback()]).expect("the driver starts")
}

fn key(n: u64) -> KeyBytes {
    KeyBytes::from_slice(&n.to_be_bytes()).expect("a short key")
}

fn value(n: u64) -> Bytes {
    Bytes::copy_from_slice(&n.to_le_bytes())
}

/// Writes one record, whose key is the batch's number.
fn persist(n: u64) -> Output {
    Output::Persist(Batch { id: BatchId(n), writes: vec![(key(n), Some(value(n)))] })
}

fn load(n: u64) -> Output {
    Output::Load { load: LoadId(n), range: KeyRange { first: key(0), last: key(1000), max_bytes: 1 << 20 } }
}

fn page(records: impl IntoIterator<Item = u64>) -> Answer {
    let records = records.into_iter().map(|n| (key(n), value(n))).collect();
    Answer::Page(Page { records, complete: true })
}

fn ids(numbers: &[u64]) -> Vec<BatchId> {
    numbers.iter().map(|n| BatchId(*n)).collect()
}

fn confirmations(script: &Script) -> Vec<Fact> {
    let about_store =
        |fact: &Fact| matches!(fact, Fact::Persisted(_) | Fact::PersistFailed(_) | Fact::Loaded(..));
    script.facts().into_iter().filter(about_store).collect()
}

/// The loop goes on, order is kept, what queued during a commit shares the next, and a load sees what was emitted
/// before it.
pub fn a_stuck_disk_stops_nothing_and_what_queued_shares_one_commit<D: DriverUnderTest>() {
    let (script, memory) = (Script::default(), Memory::default());
    memory.set(Disk::Stuck);
    let (handle, _events) = start::<D>(&script, &memory);
    script.say(&handle, [persist(1)]);
    memory.wait_begun(1);
    script.say(&handle, [persist(2), load(7), persist(3)]);
    script.say(&handle, [persist(4)]);
    for _ in 0..100 {
        poke(&handle);
    }
    let peer = std::net::TcpStream::connect(handle.listen_addresses()[0]).expect("the driver listens");
    let _accepted = script.accepted(0);
    assert_eq!(confirmations(&script), []);
    memory.set(Disk::Works);
    script.wait(&Fact::Persisted(BatchId(4)));
    script.wait(&Fact::Loaded(LoadId(7), page([1, 2, 3, 4])));
    assert_eq!(memory.commits(), [ids(&[1]), ids(&[2, 3, 4])]);
    assert_eq!(confirmations(&script)[..2], [Fact::Persisted(BatchId(1)), Fact::Persisted(BatchId(4))]);
    drop(peer);
    handle.shutdown();
}

pub fn a_load_does_not_wait_for_a_later_batch<D: DriverUnderTest>() {
    let (script, memory) = (Script::default(), Memory::default());
    let (handle, _events) = start::<D>(&script, &memory);
    script.say(&handle, [persist(1)]);
    script.wait(&Fact::Persisted(BatchId(1)));
    // A commit in memory holds the lock only while it is not waiting.
    memory.set(Disk::Stuck);
    script.say(&handle, [load(1), persist(2)]);
    script.wait(&Fact::Loaded(LoadId(1), page([1])));
    memory.set(Disk::Works);
    script.wait(&Fact::Persisted(BatchId(2)));
    handle.shutdown();
}

/// After a failure the store is not touched again, every later batch fails too, every load is answered, and the driver
/// still serves.
pub fn a_failed_commit_ends_promises_and_nothing_else<D: DriverUnderTest>() {
    let (script, memory) = (Script::default(), Memory::default());
    let (handle, events) = start::<D>(&script, &memory);
    script.say(&handle, [persist(1)]);
    script.wait(&Fact::Persisted(BatchId(1)));
    memory.set(Disk::Fails);
    script.say(&handle, [persist(2), load(1)]);
    script.wait(&Fact::PersistFailed(BatchId(2)));
    script.wait(&Fact::Loaded(LoadId(1), Answer::Damaged));
    script.say(&handle, [persist(3), load(2)]);
    script.wait(&Fact::PersistFailed(BatchId(3)));
    script.wait(&Fact::Loaded(LoadId(2), Answer::Damaged));
    assert_eq!(memory.commits(), [ids(&[1]), ids(&[2])], "the store is not used again");
    let peer = peerlink_core::identity::IdentitySecret::new([3; 32])
        .and_then(|secret| peerlink_core::identity::Identity::new(&secret))
        .expect("a valid seed")
        .peer();
    let refused = handle.command(Command::Reach { peer }).expect("the driver runs");
    assert_eq!(
        refused.map_err(|refused| refused.command),
        Err(Command::Reach { peer }),
        "it comes back whole"
    );
    handle.shutdown();
    assert_eq!(events.recv(), Some(Notice::Event(Event::Stopped)));
    assert_eq!(memory.closed(), 0, "a failed store is not tidied");
}

/// What queued behind the commit that fails is not committed either: it would stand on what may not be there.
pub fn what_queued_behind_a_failed_commit_fails_too<D: DriverUnderTest>() {
    let (script, memory) = (Script::default(), Memory::default());
    memory.set(Disk::Stuck);
    let (handle, _events) = start::<D>(&script, &memory);
    script.say(&handle, [persist(1)]);
    memory.wait_begun(1);
    script.say(&handle, [persist(2), load(1)]);
    memory.set(Disk::Fails);
    script.wait(&Fact::PersistFailed(BatchId(1)));
    script.wait(&Fact::PersistFailed(BatchId(2)));
    script.wait(&Fact::Loaded(LoadId(1), Answer::Damaged));
    assert_eq!(memory.commits(), [ids(&[1])]);
    handle.shutdown();
    assert!(memory.records().is_empty());
}

/// When shutdown returns, or `Stopped` is told, everything is committed and the store is closed.
pub fn shutdown_commits_and_closes_the_store_first<D: DriverUnderTest>() {
    let (script, memory) = (Script::default(), Memory::default());
    memory.set(Disk::Stuck);
    let (handle, events) = start::<D>(&script, &memory);
    script.say(&handle, [persist(1), persist(2), load(1)]);
    memory.wait_begun(1);
    let other = handle.clone();
    let stopping = std::thread::spawn(move || other.shutdown());
    while handle.command(Command::SetNickname { nickname: None }) != Err(Gone) {}
    assert_eq!(memory.closed(), 0);
    memory.set(Disk::Works);
    assert_eq!(events.recv(), Some(Notice::Event(Event::Stopped)));
    assert_eq!(memory.closed(), 1);
    assert_eq!(memory.records().len(), 2);
    stopping.join().expect("shutdown returns");
    handle.shutdown();
    assert_eq!(events.recv(), None);
}

pub fn a_store_that_panics_is_gone_not_silent<D: DriverUnderTest>() {
    let (script, memory) = (Script::default(), Memory::default());
    memory.set(Disk::Panics);
    let (handle, events) = start::<D>(&script, &memory);
    script.say(&handle, [persist(1)]);
    assert_eq!(events.recv(), None, "an end without `Stopped`");
    assert_eq!(handle.command(Command::SetNickname { nickname: None }), Err(Gone));
    handle.shutdown();
}
