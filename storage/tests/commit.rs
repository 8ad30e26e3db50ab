//! Commits: atomic, in order, visible when they return, back after a clean close; one holder at a time.

mod support;

use peerlink_core::api::Store;
use peerlink_core::ids::FeedNo;
use peerlink_core::record::{CorruptRecord, Key};
use peerlink_storage::OpenError;
use support::{batch, entries, entry_key, load, open, put, restored};

#[test]
fn later_batches_of_one_commit_win_and_removals_count() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut pages, _reader) = open(dir.path());
    writer
        .commit(&[
            batch(1, vec![put(entry_key(1, 1), "a"), put(entry_key(1, 2), "a"), put(entry_key(1, 3), "a")]),
            batch(2, vec![put(entry_key(1, 2), "b"), (entry_key(1, 3), None)]),
            batch(3, vec![put(entry_key(1, 3), "c"), (entry_key(1, 1), None), (entry_key(1, 9), None)]),
        ])
        .unwrap();
    let found: Vec<(u64, String)> = entries(&mut pages, 1)
        .into_iter()
        .map(|(seq, value)| (seq, String::from_utf8(value.to_vec()).unwrap()))
        .collect();
    assert_eq!(found, [(2, "b".to_owned()), (3, "c".to_owned())]);
    writer.commit(&[]).unwrap();
    writer.commit(&[batch(4, vec![])]).unwrap();
}

#[test]
fn a_commit_with_an_impossible_write_leaves_nothing_and_ends_the_writer() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut pages, reader) = open(dir.path());
    writer.commit(&[batch(1, vec![put(entry_key(1, 1), "kept")])]).unwrap();
    let own = heapless_key(&[0xff, b'n']);
    let refused =
        writer.commit(&[batch(2, vec![put(entry_key(1, 2), "lost")]), batch(3, vec![put(own, "x")])]);
    assert!(refused.is_err());
    assert_eq!(entries(&mut pages, 1).len(), 1, "no part of the group is there");
    let after = writer.commit(&[batch(4, vec![put(entry_key(1, 4), "late")])]);
    assert!(after.unwrap_err().0.contains("opened again"));
    writer.close();
    drop((writer, pages, reader));

    let (mut writer, mut pages, _reader) = open(dir.path());
    assert_eq!(entries(&mut pages, 1).len(), 1);
    writer.commit(&[batch(2, vec![put(entry_key(1, 2), "again")])]).unwrap();
    assert_eq!(entries(&mut pages, 1).len(), 2);
}

fn heapless_key(bytes: &[u8]) -> peerlink_core::record::KeyBytes {
    peerlink_core::record::KeyBytes::from_slice(bytes).unwrap()
}

#[test]
fn restore_streams_what_a_node_starts_from_in_order_and_no_history() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, pages, reader) = open(dir.path());
    writer
        .commit(&[batch(
            1,
            vec![
                put(Key::Feed(FeedNo(2)).encode(), "f2"),
                put(entry_key(1, 1), "history"),
                put(Key::Profile.encode(), "p"),
                put(Key::Feed(FeedNo(1)).encode(), "f1"),
                put(Key::Counters.encode(), "c"),
            ],
        )])
        .unwrap();
    writer.close();
    drop((writer, pages, reader));
    let found = restored(dir.path());
    let values: Vec<&[u8]> = found.iter().map(|(_, value)| value.as_slice()).collect();
    assert_eq!(values, [b"p".as_slice(), b"c", b"f1", b"f2"]);
    assert!(found.is_sorted());

    let opened = peerlink_storage::open(dir.path()).unwrap();
    let refused = opened.restore(|_, _| Err(CorruptRecord::Newer { table: 1, found: 9 }));
    assert!(matches!(refused, Err(OpenError::Newer { found: 9, .. })));
    let refused = opened.restore(|_, _| Err(CorruptRecord::Value(1)));
    assert!(matches!(refused, Err(OpenError::Damaged { .. })));
}

#[test]
fn a_page_ends_at_its_bytes_and_holds_at_least_one_record() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, mut pages, _reader) = open(dir.path());
    let writes = (1..=10).map(|seq| put(entry_key(1, seq), vec![b'x'; 100])).collect();
    writer.commit(&[batch(1, writes)]).unwrap();
    let (first, last) = (entry_key(1, 1), entry_key(1, 10));
    let each = u32::try_from(first.len() + 100).unwrap();

    let page = load(&mut pages, first.clone(), last.clone(), 3 * each);
    assert_eq!((page.records.len(), page.complete), (3, false));
    let page = load(&mut pages, first.clone(), last.clone(), 3 * each - 1);
    assert_eq!((page.records.len(), page.complete), (2, false));
    let page = load(&mut pages, first.clone(), last.clone(), 0);
    assert_eq!((page.records.len(), page.complete), (1, false));
    let page = load(&mut pages, first.clone(), last.clone(), 10 * each);
    assert_eq!((page.records.len(), page.complete), (10, true));
    let page = load(&mut pages, first.clone(), first.clone(), 0);
    assert_eq!((page.records.len(), page.complete), (1, true));
    let page = load(&mut pages, last, first, u32::MAX);
    assert_eq!((page.records.len(), page.complete), (0, true));
    let page = load(&mut pages, heapless_key(&[0x14]), heapless_key(&[0xff; 40]), u32::MAX);
    assert_eq!((page.records.len(), page.complete), (0, true), "the store's own records are nobody's");
}

#[test]
fn everything_dropped_the_store_can_be_opened_again_and_not_before() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, pages, reader) = open(dir.path());
    writer.commit(&[batch(1, vec![put(entry_key(1, 1), "a")])]).unwrap();
    writer.close();
    assert!(writer.commit(&[batch(2, vec![put(entry_key(1, 2), "b")])]).is_err(), "closed is closed");
    let other = reader.clone();
    for part in [Box::new(writer) as Box<dyn std::any::Any>, Box::new(pages), Box::new(reader)] {
        drop(part);
        assert!(matches!(peerlink_storage::open(dir.path()), Err(OpenError::InUse { .. })));
    }
    drop(other);
    let (_writer, mut pages, _reader) = open(dir.path());
    assert_eq!(entries(&mut pages, 1).len(), 1);
}

#[test]
fn an_orderly_close_leaves_nothing_to_replay_even_while_readers_are_there() {
    let dir = tempfile::tempdir().unwrap();
    let journal_bytes = || {
        let files = std::fs::read_dir(dir.path().join("db")).unwrap().map(Result::unwrap);
        let journals = files.filter(|file| file.path().extension().is_some_and(|end| end == "jnl"));
        journals.map(|file| file.metadata().unwrap().len()).sum::<u64>()
    };
    let mut next = 1;
    for round in 0..4 {
        let (mut writer, mut pages, reader) = open(dir.path());
        assert_eq!(entries(&mut pages, 1).len() as u64, next - 1, "round {round}");
        for _ in 0..20 {
            writer.commit(&[batch(next, vec![put(entry_key(1, next), [b'x'; 900])])]).unwrap();
            next += 1;
        }
        assert!(journal_bytes() > 18_000);
        if round != 1 {
            writer.close();
            assert_eq!(journal_bytes(), 0);
        }
        assert_eq!(entries(&mut pages, 1).len() as u64, next - 1, "readers read on");
        drop((writer, pages, reader));
    }
}

#[test]
fn files_and_directories_are_the_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    fn walk(dir: &std::path::Path, wrong: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let meta = entry.metadata().unwrap();
            let want = if meta.is_dir() { 0o700 } else { 0o600 };
            if meta.permissions().mode() & 0o777 != want {
                wrong.push(entry.path().display().to_string());
            }
            if meta.is_dir() {
                walk(&entry.path(), wrong);
            }
        }
    }
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("profile/store");
    let parts = open(&path);
    let mut wrong = Vec::new();
    walk(dir.path(), &mut wrong);
    assert_eq!(wrong, Vec::<String>::new());
    drop(parts);
}

#[test]
fn a_store_larger_than_its_memtable_reads_back_whole() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, pages, reader) = open(dir.path());
    let value = |seq: u64| seq.to_be_bytes().repeat(8 * 1024);
    for seq in 1..=400_u64 {
        writer.commit(&[batch(seq, vec![put(entry_key(1, seq), value(seq))])]).unwrap();
    }
    writer.close();
    drop((writer, pages, reader));
    let (_writer, mut pages, _reader) = open(dir.path());
    let found = entries(&mut pages, 1);
    assert_eq!(found.len(), 400);
    for (at, (seq, bytes)) in found.into_iter().enumerate() {
        assert_eq!(seq, at as u64 + 1);
        assert!(bytes == value(seq));
    }
}
