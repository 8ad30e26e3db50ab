//! The store on a real disk and an ordered map in memory are the same thing to a node: the same batches, loads and
//! cuts give equal pages and equal restores.

use bytes::Bytes;
use peerlink_core::api::{Answer, Batch, KeyRange, Loader, Page, Store};
use peerlink_core::ids::{BatchId, CallerId, ConversationNo, Epoch, FeedNo, InviteId, PeerId};
use peerlink_core::limits::PAGE_BYTES;
use peerlink_core::record::{Key, KeyBytes, OrderKey, RESTORE_END};
use peerlink_storage::{PageReader, Reader, Writer};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

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
trait Disk {
    /// All of these together, durable when it returns.
    fn commit(&mut self, batches: &[Batch]);
    fn load(&mut self, range: &KeyRange) -> Answer;
    /// The process dies, or ends in good order, and starts again: what it starts from.
    fn cut(&mut self, orderly: bool) -> Records;
}

/// The contract, as the core's documentation puts it.
#[derive(Default)]
struct Model(BTreeMap<Vec<u8>, Bytes>);

impl Disk for Model {
    fn commit(&mut self, batches: &[Batch]) {
        for (key, value) in batches.iter().flat_map(|batch| &batch.writes) {
            match value {
                Some(value) => drop(self.0.insert(key.to_vec(), value.clone())),
                None => drop(self.0.remove(key.as_slice())),
            }
        }
    }

    fn load(&mut self, range: &KeyRange) -> Answer {
        let mut page = Page { records: Vec::new(), complete: true };
        let mut left = range.max_bytes as usize;
        let wanted =
            self.0.iter().filter(|(key, _)| (&*range.first..=&*range.last).contains(&key.as_slice()));
        for (key, value) in wanted {
            let bytes = key.len() + value.len();
            if bytes > left && !page.records.is_empty() {
                page.complete = false;
                break;
            }
            left = left.saturating_sub(bytes);
            page.records.push((KeyBytes::from_slice(key).unwrap(), value.clone()));
        }
        Answer::Page(page)
    }

    fn cut(&mut self, _orderly: bool) -> Records {
        let start = self.0.iter().filter(|(key, _)| key[0] < RESTORE_END);
        start.map(|(key, value)| (key.clone(), value.to_vec())).collect()
    }
}

struct Real {
    path: PathBuf,
    parts: Option<(Writer, PageReader, Reader)>,
}

impl Real {
    fn new(path: &Path) -> Self {
        let parts = peerlink_storage::open(path).unwrap().split();
        Self { path: path.to_owned(), parts: Some(parts) }
    }

    fn parts(&mut self) -> &mut (Writer, PageReader, Reader) {
        self.parts.as_mut().unwrap()
    }
}

impl Disk for Real {
    fn commit(&mut self, batches: &[Batch]) {
        self.parts().0.commit(batches).unwrap();
    }

    fn load(&mut self, range: &KeyRange) -> Answer {
        self.parts().1.load(range)
    }

    fn cut(&mut self, orderly: bool) -> Records {
        if orderly {
            self.parts().0.close();
        }
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

/// Runs one seed through both; the first difference, told.
fn differ(seed: u64, one: &mut impl Disk, other: &mut impl Disk) -> Result<(), String> {
    let mut choices = Choices(seed);
    let mut next = 1;
    for step in 0..60 {
        match choices.below(16) {
            0 => {
                let orderly = choices.below(2) == 0;
                let (one, other) = (one.cut(orderly), other.cut(orderly));
                if one != other {
                    return Err(format!("seed {seed} step {step}: restores differ: {one:?} and {other:?}"));
                }
            }
            1..8 => {
                let batches: Vec<Batch> =
                    (next..=next + choices.below(4)).map(|id| choices.batch(id)).collect();
                next += batches.len() as u64;
                one.commit(&batches);
                other.commit(&batches);
            }
            _ => {
                let range = choices.range();
                let (one, other) = (one.load(&range), other.load(&range));
                if one != other {
                    return Err(format!("seed {seed} step {step}: {range:?}: {one:?} and {other:?}"));
                }
            }
        }
    }
    Ok(())
}

#[test]
fn equal_batches_loads_and_cuts_give_equal_pages_and_restores() {
    for seed in 0..40 {
        let dir = tempfile::tempdir().unwrap();
        differ(seed, &mut Real::new(dir.path()), &mut Model::default()).unwrap();
    }
}

#[test]
fn a_disk_that_forgets_removals_is_found_out() {
    struct Forgetful(Model);
    impl Disk for Forgetful {
        fn commit(&mut self, batches: &[Batch]) {
            let mut batches = batches.to_vec();
            for batch in &mut batches {
                batch.writes.retain(|(_, value)| value.is_some());
            }
            self.0.commit(&batches);
        }
        fn load(&mut self, range: &KeyRange) -> Answer {
            self.0.load(range)
        }
        fn cut(&mut self, orderly: bool) -> Records {
            self.0.cut(orderly)
        }
    }
    let found =
        (0..40).any(|seed| differ(seed, &mut Forgetful(Model::default()), &mut Model::default()).is_err());
    assert!(found);
}
