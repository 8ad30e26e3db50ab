//! The store on a real disk and the simulator's disk are the same thing to a node: the same batches, loads and cuts,
//! drawn at random and recorded from whole simulated worlds, give equal pages and equal restores.

use bytes::Bytes;
use peerlink_core::api::{Answer, Batch, KeyRange, Loader, Store};
use peerlink_core::ids::{BatchId, CallerId, ConversationNo, Epoch, FeedNo, InviteId, PeerId};
use peerlink_core::limits::PAGE_BYTES;
use peerlink_core::record::{Key, KeyBytes, OrderKey};
use peerlink_sim::{Deed, Disk, Op, Print, Scenario, World};
use peerlink_storage::{PageReader, Reader, Writer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Batches of one node that it is killed at.
const BATCHES: usize = 16;

/// SplitMix64 (Steele, Lea, Flood 2014): every run of a seed makes the same choices.
struct Choices(u64);

impl Choices {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn small<T: TryFrom<u64>>(&mut self, end: u64) -> T
    where
        T::Error: std::fmt::Debug,
    {
        self.below(end).try_into().unwrap()
    }

    /// A key of any table, out of few enough that they meet again.
    fn key(&mut self) -> KeyBytes {
        let feed = FeedNo(self.small(3));
        let conversation = ConversationNo(feed.0);
        let seq = match self.below(8) {
            0 => 0,
            1 => u64::MAX,
            _ => self.below(40),
        };
        let key = match self.below(10) {
            0 => Key::Profile,
            1 => Key::Counters,
            2 => Key::Contact(peer(self.small(4))),
            3 => Key::Invite(InviteId([self.small(4); 16])),
            4 => Key::Conversation(conversation),
            5 => Key::Feed(feed),
            6 => {
                let (rank, epoch) = (self.small(2), Epoch([7; 16]));
                Key::Order(OrderKey { conversation, lamport: seq, rank, epoch, seq })
            }
            7 => Key::Arrival(seq),
            8 => Key::Caller { conversation, caller: CallerId([self.small(9); 16]) },
            _ => Key::Entry { feed, seq },
        };
        key.encode()
    }

    fn value(&mut self) -> Option<Bytes> {
        let len = match self.below(12) {
            0 | 1 => return None,
            2 => 0,
            3 => PAGE_BYTES as u64 + 200,
            4 => self.below(9_000),
            _ => self.below(300),
        };
        let first = self.next();
        Some((0..len).map(|at| first.wrapping_add(at).to_le_bytes()[0]).collect())
    }

    fn batch(&mut self, id: u64) -> Batch {
        let writes = (0..self.below(12)).map(|_| (self.key(), self.value())).collect();
        Batch { id: BatchId(id), writes }
    }

    fn range(&mut self) -> KeyRange {
        let max_bytes = match self.below(5) {
            0 => 0,
            1 => u32::MAX,
            2 => self.small(2_000),
            _ => u32::try_from(PAGE_BYTES).unwrap(),
        };
        KeyRange { first: self.key(), last: self.key(), max_bytes }
    }
}

fn peer(number: u8) -> PeerId {
    let secret = peerlink_core::identity::IdentitySecret::new([number + 1; 32]).unwrap();
    peerlink_core::identity::Identity::new(&secret).unwrap().peer()
}

type Records = Vec<(Vec<u8>, Vec<u8>)>;

/// What a node sees of a disk.
trait Medium {
    fn write(&mut self, batch: &Batch);
    /// What is written up to here is durable when it returns.
    fn sync(&mut self, upto: BatchId);
    fn load(&mut self, range: &KeyRange) -> Answer;
    /// The process ends, and starts again: of what is not synced the first `kept` batches are there.
    fn cut(&mut self, kept: usize) -> Records;
    /// What a node starts from.
    fn restored(&mut self) -> Records;
}

impl Medium for Disk {
    fn write(&mut self, batch: &Batch) {
        self.write(batch.clone());
    }

    fn sync(&mut self, upto: BatchId) {
        let _synced = self.sync(upto);
    }

    fn load(&mut self, range: &KeyRange) -> Answer {
        self.load(range)
    }

    fn cut(&mut self, kept: usize) -> Records {
        let _there = self.cut(kept);
        self.restored()
    }

    fn restored(&mut self) -> Records {
        self.restore().map(|(key, value)| (key.to_vec(), value.to_vec())).collect()
    }
}

/// The store. Batches wait outside it until they are synced, as they do in a driver.
struct Real {
    path: PathBuf,
    parts: Option<(Writer, PageReader, Reader)>,
    pending: Vec<Batch>,
    cuts: usize,
}

impl Real {
    fn new(path: &Path) -> Self {
        let parts = peerlink_storage::open(path).unwrap().split();
        Self { path: path.to_owned(), parts: Some(parts), pending: Vec::new(), cuts: 0 }
    }

    fn parts(&mut self) -> &mut (Writer, PageReader, Reader) {
        self.parts.as_mut().unwrap()
    }

    fn commit(&mut self, count: usize) {
        let batches: Vec<Batch> = self.pending.drain(..count.min(self.pending.len())).collect();
        self.parts().0.commit(&batches).unwrap();
    }
}

impl Medium for Real {
    fn write(&mut self, batch: &Batch) {
        self.pending.push(batch.clone());
    }

    fn sync(&mut self, upto: BatchId) {
        self.commit(self.pending.partition_point(|batch| batch.id <= upto));
    }

    fn load(&mut self, range: &KeyRange) -> Answer {
        self.parts().1.load(range)
    }

    fn cut(&mut self, kept: usize) -> Records {
        self.commit(kept);
        self.pending.clear();
        self.cuts += 1;
        // Every other time it ends in good order; to who starts next that must be no difference.
        if self.cuts.is_multiple_of(2) {
            self.parts().0.close();
        }
        self.restored()
    }

    fn restored(&mut self) -> Records {
        self.parts = None;
        let opened = peerlink_storage::open(&self.path).unwrap();
        let mut found = Vec::new();
        let restored = opened.restore(|key, value| {
            found.push((key.to_vec(), value.to_vec()));
            Ok(())
        });
        restored.unwrap();
        self.parts = Some(opened.split());
        found
    }
}

/// Draws what is done from one seed. Only the simulator's disk answers here; the answers are compared later.
fn drawn(seed: u64) -> Vec<Deed> {
    let mut choices = Choices(seed);
    let mut disk = Disk::new();
    disk.record();
    let mut newest = 0;
    for _ in 0..80 {
        match choices.below(16) {
            0 => {
                let pending = disk.pending() as u64;
                drop(disk.cut(choices.small(pending + 1)));
            }
            1..6 => {
                newest += 1;
                disk.write(choices.batch(newest));
            }
            6..9 => drop(disk.sync(BatchId(newest.saturating_sub(choices.below(3))))),
            _ => drop(disk.load(&choices.range())),
        }
    }
    disk.deeds().to_vec()
}

/// Does the same to both; the first difference, told. With what was answered when the deeds were recorded, too.
fn differ(deeds: &[Deed], one: &mut impl Medium, other: &mut impl Medium) -> Result<(), String> {
    let equal = |at: usize, one: Records, other: Records| {
        if one == other { Ok(()) } else { Err(format!("deed {at}: restores differ: {one:?} and {other:?}")) }
    };
    for (at, deed) in deeds.iter().enumerate() {
        match deed {
            Deed::Write(batch) => {
                one.write(batch);
                other.write(batch);
            }
            Deed::Sync(upto) => {
                one.sync(*upto);
                other.sync(*upto);
            }
            Deed::Cut(kept) => equal(at, one.cut(*kept), other.cut(*kept))?,
            Deed::Load(range, answer) => {
                let (one, other) = (one.load(range), other.load(range));
                if one != *answer || other != *answer {
                    return Err(format!("deed {at}: {range:?}: {one:?} and {other:?}, recorded {answer:?}"));
                }
            }
        }
    }
    equal(deeds.len(), one.cut(0), other.cut(0))
}

/// A store that is exchanged for an older copy, or begins as a copy of another, is no deed of its own process.
fn without_rollbacks(seed: u64) -> Scenario {
    let mut scenario = Scenario::from_seed(seed);
    scenario.script.retain(|(_, op)| !matches!(op, Op::RollBack { .. } | Op::Twin { .. }));
    scenario
}

#[test]
fn deeds_drawn_at_random_give_equal_pages_and_restores() {
    let mut deeds = Vec::new();
    for seed in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        let drawn = drawn(seed);
        differ(&drawn, &mut Real::new(dir.path()), &mut Disk::new())
            .unwrap_or_else(|why| panic!("seed {seed}: {why}"));
        deeds.extend(drawn);
    }
    let loaded = deeds
        .iter()
        .filter(|deed| matches!(deed, Deed::Load(_, Answer::Page(page)) if !page.records.is_empty()));
    assert!(loaded.count() > 100);
    assert!(deeds.iter().filter(|deed| matches!(deed, Deed::Cut(kept) if *kept > 0)).count() > 10);
}

#[test]
fn deeds_of_simulated_nodes_give_equal_pages_and_restores() {
    let (mut writes, mut loads, mut cuts) = (0, 0, 0);
    for seed in 1..=12 {
        let mut world = World::new(without_rollbacks(seed), Print::Nothing);
        world.record_disks();
        while world.step() {}
        for disk in world.disks() {
            let dir = tempfile::tempdir().unwrap();
            let deeds = disk.deeds();
            let mut real = Real::new(dir.path());
            differ(deeds, &mut real, &mut Disk::new()).unwrap_or_else(|why| panic!("seed {seed}: {why}"));
            let mut restored = disk.clone();
            assert_eq!(real.restored(), restored.restored(), "seed {seed}: as the world left it");
            writes += deeds.iter().filter(|deed| matches!(deed, Deed::Write(_))).count();
            loads += deeds.iter().filter(|deed| matches!(deed, Deed::Load(..))).count();
            cuts += deeds.iter().filter(|deed| matches!(deed, Deed::Cut(_))).count();
        }
    }
    println!("{writes} batches, {loads} loads, {cuts} cuts");
    assert!(writes > 200 && loads > 20 && cuts > 3, "{writes} {loads} {cuts}");
}

/// The files of a store, as a crash would leave them: after each commit, what is written is synced. The unused end of
/// its journal is left out, and told by its length.
#[derive(Clone)]
struct Image(BTreeMap<PathBuf, (Vec<u8>, u64)>);

impl Image {
    fn of(store: &Path) -> Self {
        let (mut found, mut open) = (BTreeMap::new(), vec![store.to_owned()]);
        while let Some(dir) = open.pop() {
            for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
                if entry.file_type().unwrap().is_dir() {
                    open.push(entry.path());
                    continue;
                }
                let mut bytes = std::fs::read(entry.path()).unwrap();
                let len = bytes.len() as u64;
                bytes.truncate(bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1));
                found.insert(entry.path().strip_prefix(store).unwrap().to_owned(), (bytes, len));
            }
        }
        Self(found)
    }

    fn journal(&mut self) -> &mut Vec<u8> {
        let journals = self.0.iter_mut().filter(|(path, _)| path.extension().is_some_and(|end| end == "jnl"));
        &mut journals.last().unwrap().1.0
    }

    /// What a node finds that starts from it: everything, and what it is restored from.
    fn open(&self) -> (Answer, Records) {
        let dir = tempfile::tempdir().unwrap();
        for (path, (bytes, len)) in &self.0 {
            let path = dir.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, bytes).unwrap();
            std::fs::File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_len((*len).max(bytes.len() as u64))
                .unwrap();
        }
        state(&mut Real::new(dir.path()))
    }
}

fn state(medium: &mut impl Medium) -> (Answer, Records) {
    let key = |byte| KeyBytes::from_slice(&[byte; 40]).unwrap();
    let all = KeyRange { first: key(1), last: key(0xfe), max_bytes: u32::MAX };
    (medium.load(&all), medium.restored())
}

/// Commits one batch after the other, and kills both after each, and in the middle of each: what was written of its
/// journal then ends at any byte, or has gone to the disk in another order. How many batches there were that can be
/// told from no batch.
fn killed_at_each(batches: &[Batch], choices: &mut Choices) -> usize {
    let dir = tempfile::tempdir().unwrap();
    let (mut real, mut disk) = (Real::new(dir.path()), Disk::new());
    let mut before = (Image::of(dir.path()), state(&mut disk.clone()));
    let mut told = 0;
    for (at, batch) in batches.iter().enumerate() {
        for medium in [&mut real as &mut dyn Medium, &mut disk] {
            medium.write(batch);
            medium.sync(batch.id);
        }
        let after = (Image::of(dir.path()), state(&mut disk.clone()));
        assert!(after.0.open() == after.1, "batch {at}: killed after it");
        let written = after.0.clone().journal().clone();
        let synced = before.0.journal().len();
        if after.1 != before.1 {
            told += 1;
            assert!(written.len() > synced, "batch {at}");
            let cut = synced + choices.small::<usize>((written.len() - synced) as u64);
            let mut torn = before.0.clone();
            *torn.journal() = written[..cut].to_vec();
            assert!(
                torn.open() == before.1,
                "batch {at}: killed at byte {cut} of {synced}..{}",
                written.len()
            );
            let mut lost = before.0.clone();
            *lost.journal() = written.clone();
            let hole = cut..written.len().min(cut + 1 + choices.small::<usize>(512));
            lost.journal()[hole.clone()].fill(0);
            // A byte that is zero anyway is not lost.
            let differs = *lost.journal() != written;
            let expected = if differs { &before.1 } else { &after.1 };
            assert!(lost.open() == *expected, "batch {at}: bytes {hole:?} of {synced}..{}", written.len());
            // It is there as soon as its last byte is, also before anybody was told.
            *before.0.journal() = written;
            assert!(before.0.open() == after.1, "batch {at}: killed before it was confirmed");
        }
        before = after;
    }
    told
}

fn batches(deeds: &[Deed]) -> Vec<Batch> {
    let written = deeds.iter().filter_map(|deed| match deed {
        Deed::Write(batch) => Some(batch.clone()),
        _ => None,
    });
    // Batches of several starts: numbered anew, as they would be by one.
    let numbered = written.zip(1..).map(|(batch, id)| Batch { id: BatchId(id), ..batch });
    numbered.take(BATCHES).collect()
}

#[test]
fn kills_at_each_drawn_batch_give_equal_restores() {
    let told: usize = (0..3).map(|seed| killed_at_each(&batches(&drawn(seed)), &mut Choices(seed))).sum();
    assert!(told > 40, "{told}");
}

#[test]
fn kills_at_each_batch_of_simulated_nodes_give_equal_restores() {
    let mut told = 0;
    for seed in 1..=4 {
        let mut world = World::new(without_rollbacks(seed), Print::Nothing);
        world.record_disks();
        while world.step() {}
        told += world
            .disks()
            .map(|disk| killed_at_each(&batches(disk.deeds()), &mut Choices(seed)))
            .sum::<usize>();
    }
    println!("{told} batches");
    assert!(told > 40, "{told}");
}

#[test]
fn a_disk_that_forgets_removals_is_found_out() {
    struct Forgetful(Disk);
    impl Medium for Forgetful {
        fn write(&mut self, batch: &Batch) {
            let mut batch = batch.clone();
            batch.writes.retain(|(_, value)| value.is_some());
            self.0.write(batch);
        }
        fn sync(&mut self, upto: BatchId) {
            let _synced = self.0.sync(upto);
        }
        fn load(&mut self, range: &KeyRange) -> Answer {
            self.0.load(range)
        }
        fn cut(&mut self, kept: usize) -> Records {
            Medium::cut(&mut self.0, kept)
        }
        fn restored(&mut self) -> Records {
            self.0.restored()
        }
    }
    let found = |seed| differ(&drawn(seed), &mut Forgetful(Disk::new()), &mut Disk::new()).is_err();
    assert!((0..40).any(found));
}
