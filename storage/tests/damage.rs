//! Stores that are not what was written. Each is refused or read right, and left as it was found.

mod support;

use peerlink_core::api::{Answer, KeyRange, Loader, Store};
use peerlink_core::ids::FeedNo;
use peerlink_core::record::Key;
use peerlink_storage::OpenError;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use support::{batch, copy, entries, entry_key, files, journal, open, put};

const ENTRIES: u64 = 60;

fn value(seq: u64) -> Vec<u8> {
    format!("value {seq} ").repeat(20).into_bytes()
}

fn commit(writer: &mut peerlink_storage::Writer, seqs: std::ops::RangeInclusive<u64>) {
    for seq in seqs {
        let head = put(Key::Feed(FeedNo(1)).encode(), seq.to_be_bytes());
        writer.commit(&[batch(seq, vec![put(entry_key(1, seq), value(seq)), head])]).unwrap();
    }
}

/// A store with half of its entries in tables and half in the journal.
fn make(path: &Path) {
    let (mut writer, pages, reader) = open(path);
    commit(&mut writer, 1..=ENTRIES / 2);
    writer.close();
    drop((writer, pages, reader));
    let (mut writer, _pages, _reader) = open(path);
    commit(&mut writer, ENTRIES / 2 + 1..=ENTRIES);
}

#[derive(Debug, PartialEq, Eq, Clone, Copy, PartialOrd, Ord)]
enum Outcome {
    Refused,
    ReadError,
    Right,
    Wrong,
}

/// What comes of a store at `path`, which was made by [`make`] and then damaged.
fn outcome(path: &Path) -> Outcome {
    let opened = match peerlink_storage::open(path) {
        Ok(opened) => opened,
        Err(OpenError::Damaged { .. } | OpenError::Newer { .. }) => return Outcome::Refused,
        Err(other) => panic!("{other:?}"),
    };
    let mut heads = Vec::new();
    let restored = opened.restore(|_, value| {
        heads.push(value.to_vec());
        Ok(())
    });
    if restored.is_err() {
        return Outcome::ReadError;
    }
    let (_writer, mut pages, _reader) = opened.split();
    let range = KeyRange { first: entry_key(1, 0), last: entry_key(1, u64::MAX), max_bytes: u32::MAX };
    let Answer::Page(page) = pages.load(&range) else { return Outcome::ReadError };
    let right = page.records.len() as u64 == ENTRIES
        && page
            .records
            .iter()
            .zip(1..)
            .all(|((key, bytes), seq)| *key == entry_key(1, seq) && *bytes == value(seq))
        && heads == [ENTRIES.to_be_bytes()];
    if right { Outcome::Right } else { Outcome::Wrong }
}

#[test]
fn one_flipped_bit_is_refused_or_harmless_in_every_file() {
    let original = tempfile::tempdir().unwrap();
    make(original.path());
    let files = files(original.path());
    assert!(files.keys().any(|path| path.extension().is_some_and(|extension| extension == "jnl")));
    let mut seen: BTreeMap<Outcome, usize> = BTreeMap::new();
    for (path, bytes) in &files {
        // Positions spread over the file, every bit in turn; the journal, where most of the danger is, more densely.
        let journal = path.extension().is_some_and(|extension| extension == "jnl");
        let positions = if journal { 120 } else { 25 };
        let used = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        for turn in 0..positions.min(used) {
            let at = turn * used / positions.min(used);
            let mut damaged = files.clone();
            damaged.get_mut(path).unwrap()[at] ^= 1 << (turn % 8);
            let copied = tempfile::tempdir().unwrap();
            copy(&damaged, original.path(), copied.path());
            let outcome = outcome(copied.path());
            assert_ne!(outcome, Outcome::Wrong, "bit {} of byte {at} in {}", turn % 8, path.display());
            if outcome == Outcome::Refused && journal {
                let name = path.strip_prefix(original.path()).unwrap();
                let left = fs::read(copied.path().join(name)).unwrap();
                assert!(left == damaged[path], "byte {at}: a refused journal is left as it was found");
            }
            *seen.entry(outcome).or_default() += 1;
        }
    }
    println!("{seen:?}");
    assert!(seen[&Outcome::Refused] > 50, "damage is met, and noticed");
    let copied = tempfile::tempdir().unwrap();
    copy(&files, original.path(), copied.path());
    assert_eq!(outcome(copied.path()), Outcome::Right, "without damage, everything is there");
}

/// Opens a damaged copy of a store and expects a refusal that changed nothing.
fn refused(damage: impl FnOnce(&Path)) -> OpenError {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    damage(dir.path());
    let before = files(dir.path());
    let error = peerlink_storage::open(dir.path()).map(drop).unwrap_err();
    let after = files(dir.path());
    assert!(before == after, "nothing was changed");
    error
}

#[test]
fn a_newer_format_is_refused_by_name() {
    let twice = "peerlink store 9\n".repeat(2);
    let error = refused(|dir| fs::write(dir.join("format"), twice).unwrap());
    assert!(matches!(error, OpenError::Newer { found: 9, known: 4, .. }));
    assert!(error.to_string().contains("newer program"), "{error}");
    let error = refused(|dir| fs::write(dir.join("format"), "peerlink store 1\n").unwrap());
    assert!(matches!(error, OpenError::Older { found: 1, known: 4, .. }), "{error}");
}

#[test]
fn one_wrong_bit_in_the_format_makes_no_store_of_another_program() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let right = fs::read(dir.path().join("format")).unwrap();
    for bit in 0..right.len() * 8 {
        let mut wrong = right.clone();
        wrong[bit / 8] ^= 1 << (bit % 8);
        fs::write(dir.path().join("format"), &wrong).unwrap();
        let error = peerlink_storage::open(dir.path()).map(drop).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "bit {bit}: {error}");
    }
    // Earlier programs wrote the line once.
    fs::write(dir.path().join("format"), "peerlink store 2\n").unwrap();
    let error = peerlink_storage::open(dir.path()).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Older { found: 2, .. }), "{error}");
    for number in [0, 3, 6] {
        fs::write(dir.path().join("format"), format!("peerlink store {number}\n")).unwrap();
        let error = peerlink_storage::open(dir.path()).map(drop).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{number}: {error}");
    }
}

fn damaged(damage: impl FnOnce(&Path)) -> String {
    match refused(damage) {
        OpenError::Damaged { detail, .. } => detail,
        other => panic!("{other:?}"),
    }
}

#[test]
fn missing_parts_are_missed() {
    for name in ["format", "db/version", "db/keyspaces/0", "db/keyspaces/1/current", "db"] {
        let detail = damaged(|dir| {
            let path = dir.join(name);
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        });
        println!("{name}: {detail}");
    }
    assert!(damaged(|dir| fs::write(dir.join("format"), "hello\n").unwrap()).contains("format"));
}

#[test]
fn a_journal_that_lost_its_end_is_refused_and_one_with_a_torn_end_is_not() {
    let lost = damaged(|dir| {
        let path = journal(dir);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[..bytes.len() * 3 / 4]).unwrap();
    });
    assert!(lost.contains("60 commits were made"), "{lost}");
    assert!(damaged(|dir| fs::remove_file(journal(dir)).unwrap()).contains("journal"));

    // What a crash in the middle of a commit leaves: a beginning that was never promised.
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let path = journal(dir.path());
    let mut bytes = fs::read(&path).unwrap();
    let torn = bytes[..40].to_vec();
    bytes.extend(torn);
    fs::write(&path, bytes).unwrap();
    let (mut writer, mut pages, reader) = open(dir.path());
    assert_eq!(entries(&mut pages, 1).len() as u64, ENTRIES);
    commit(&mut writer, ENTRIES + 1..=ENTRIES + 3);
    drop((writer, pages, reader));
    let (_writer, mut pages, _reader) = open(dir.path());
    assert_eq!(entries(&mut pages, 1).len() as u64, ENTRIES + 3);
}

/// Where batches begin in a journal: behind the trailer of the one before.
fn batches(journal: &[u8]) -> Vec<usize> {
    journal
        .windows(5)
        .enumerate()
        .filter(|(_, bytes)| *bytes == b"FJL\x03\x01")
        .map(|(at, _)| at + 4)
        .collect()
}

#[test]
fn a_journal_that_lost_its_beginning_is_missed_where_the_tables_end() {
    let lost = damaged(|dir| {
        let path = journal(dir);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, &bytes[batches(&bytes)[10]..]).unwrap();
    });
    assert!(lost.contains("commits 31 to 41 cannot be read"), "{lost}");
}

#[test]
fn a_spot_in_the_middle_is_noticed_without_a_witness() {
    for (bit, tag) in [(0, "no batch"), (1, "an item without a batch"), (5, "nothing known")] {
        let lost = damaged(|dir| {
            let path = journal(dir);
            let mut bytes = fs::read(&path).unwrap();
            let at = batches(&bytes)[10];
            bytes[at] ^= 1 << bit;
            fs::write(&path, bytes).unwrap();
            fs::write(dir.join("witness"), "").unwrap();
        });
        assert!(lost.contains("commit 42 is not what was written"), "{tag}: {lost}");
    }
}

#[test]
fn a_last_commit_that_is_not_right_is_torn_only_if_nobody_was_promised_it() {
    let last = |dir: &Path, witness: Option<&[u8]>| {
        let path = journal(dir);
        let mut bytes = fs::read(&path).unwrap();
        let at = *batches(&bytes).last().unwrap() + 60;
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
        if let Some(witness) = witness {
            fs::write(dir.join("witness"), witness).unwrap();
        }
    };
    assert!(damaged(|dir| last(dir, None)).contains("60 commits were made"), "promised");
    println!("nobody knows: {}", damaged(|dir| last(dir, Some(b""))));
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    let mut witness = b"plwit\0\0\x01".to_vec();
    witness.extend(59_u64.to_be_bytes());
    witness.extend((!59_u64).to_be_bytes());
    last(dir.path(), Some(&witness));
    let (mut writer, mut pages, reader) = open(dir.path());
    assert_eq!(entries(&mut pages, 1).len() as u64, ENTRIES - 1);
    commit(&mut writer, ENTRIES..=ENTRIES + 1);
    drop((writer, pages, reader));
    let (_writer, mut pages, _reader) = open(dir.path());
    assert_eq!(entries(&mut pages, 1).len() as u64, ENTRIES + 1);
}

#[test]
fn a_sequence_number_that_no_checksum_covers_is_checked_all_the_same() {
    let original = tempfile::tempdir().unwrap();
    make(original.path());
    let files = files(original.path());
    let path = journal(original.path());
    let mut refused = 0;
    // A tag, the count of its items, its sequence number.
    for at in batches(&files[&path]).into_iter().map(|at| at + 1 + 4) {
        for bit in 3..8 {
            let mut damaged = files.clone();
            damaged.get_mut(&path).unwrap()[at] ^= 1 << bit;
            let copied = tempfile::tempdir().unwrap();
            copy(&damaged, original.path(), copied.path());
            let outcome = outcome(copied.path());
            assert_ne!(outcome, Outcome::Wrong, "bit {bit} of byte {at}");
            refused += usize::from(outcome == Outcome::Refused);
        }
    }
    assert!(refused > 50, "{refused}");
}

#[test]
fn a_lost_witness_is_made_again() {
    let dir = tempfile::tempdir().unwrap();
    make(dir.path());
    fs::write(dir.path().join("witness"), "garbage").unwrap();
    drop(open(dir.path()));
    let before = fs::read(dir.path().join("witness")).unwrap();
    fs::remove_file(dir.path().join("witness")).unwrap();
    drop(open(dir.path()));
    assert_eq!(fs::read(dir.path().join("witness")).unwrap(), before);
}

#[test]
fn a_directory_that_cannot_be_written_is_named() {
    // Neither root nor anyone else can make directories there.
    let error = peerlink_storage::open(Path::new("/sys/peerlink-store")).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::Unwritable { .. }), "{error:?}");
    assert!(error.to_string().contains("cannot be written"), "{error}");
    let file = tempfile::NamedTempFile::new().unwrap();
    assert!(peerlink_storage::open(&file.path().join("store")).is_err());
}
