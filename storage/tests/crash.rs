//! Processes that die, hold the store, or run out of disk. The child is this test binary, run again for one test.

mod support;

use peerlink_core::api::Store;
use peerlink_storage::OpenError;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use support::{batch, entries, entry_key, open, put};

const PATH: &str = "PEERLINK_TEST_STORE";
const MODE: &str = "PEERLINK_TEST_MODE";

/// What the child does, and what its lines on the standard output mean.
#[test]
#[ignore = "run as a process of its own by the other tests"]
fn child() {
    let (Ok(path), Ok(mode)) = (std::env::var(PATH), std::env::var(MODE)) else { return };
    let (mut writer, mut pages, _reader) = open(Path::new(&path));
    let say = |line: String| {
        let mut out = std::io::stdout().lock();
        out.write_all(format!("@{line}\n").as_bytes()).and_then(|()| out.flush()).unwrap();
    };
    let first = entries(&mut pages, 1).last().map_or(1, |(seq, _)| seq + 1);
    say("open".to_owned());
    match mode.as_str() {
        // Says what is committed, and commits on until it is killed.
        "write" => {
            for seq in first.. {
                writer.commit(&[group(seq)]).unwrap();
                say(seq.to_string());
            }
        }
        // Says that one is committed which is not.
        "lie" => {
            for seq in first.. {
                if seq < first + 5 {
                    writer.commit(&[group(seq)]).unwrap();
                }
                say(seq.to_string());
            }
        }
        // Commits until the disk refuses, and then tries on.
        "fill" => {
            let mut seq = first;
            while writer.commit(&[group(seq)]).is_ok() {
                say(seq.to_string());
                seq += 1;
            }
            let refused = (1..=20).filter(|more| writer.commit(&[group(seq + more)]).is_err()).count();
            writer.close();
            say(format!("refused {refused}"));
        }
        _ => {
            let mut line = String::new();
            std::io::stdin().read_line(&mut line).unwrap();
        }
    }
}

/// Three records that belong together.
fn group(seq: u64) -> peerlink_core::api::Batch {
    let value = format!("value {seq} ").repeat(30);
    batch(seq, (1..=3).map(|feed| put(entry_key(feed, seq), value.clone())).collect())
}

/// Runs the child by way of `wrapper`, a shell line in which `"$@"` is the child.
fn start(path: &Path, mode: &str, wrapper: &str) -> Child {
    Command::new("sh")
        .args(["-c", wrapper, "sh"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--ignored", "--nocapture", "--test-threads=1"])
        .env(PATH, path)
        .env(MODE, mode)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}

/// Lines that the child said.
fn said(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(child.stdout.take().unwrap())
        .lines()
        .map_while(Result::ok)
        .filter_map(|line| line.split_once('@').map(|(_, said)| said.to_owned()))
}

/// Kills the child after it said `lines` lines; the highest number it promised.
fn kill_after(path: &Path, mode: &str, lines: usize) -> u64 {
    let mut child = start(path, mode, r#"exec "$@""#);
    let mut said = said(&mut child);
    let mut promised = said.by_ref().take(lines).filter_map(|line| line.parse().ok()).max().unwrap_or(0);
    child.kill().unwrap();
    child.wait().unwrap();
    for line in said {
        promised = promised.max(line.parse().unwrap_or(0));
    }
    promised
}

/// What of `1..=promised` is lost, and whether any group is there in part or changed.
fn lost(path: &Path, promised: u64) -> Vec<u64> {
    let (_writer, mut pages, _reader) = open(path);
    let feeds = [1, 2, 3].map(|feed| entries(&mut pages, feed));
    assert!(feeds[0] == feeds[1] && feeds[1] == feeds[2], "every group is there whole or not at all");
    for (seq, value) in &feeds[0] {
        assert!(group(*seq).writes[0].1.as_ref() == Some(value), "entry {seq} is what was written");
    }
    (1..=promised).filter(|seq| feeds[0].binary_search_by_key(seq, |(seq, _)| *seq).is_err()).collect()
}

#[test]
fn nothing_promised_is_lost_by_kill_9() {
    let dir = tempfile::tempdir().unwrap();
    let mut before = 0;
    for round in 0..8 {
        let promised = kill_after(dir.path(), "write", 2 + round * 17);
        assert!(promised > before, "round {round}: the child went on where the store was");
        assert_eq!(lost(dir.path(), promised), Vec::<u64>::new(), "round {round}");
        before = promised;
    }
}

#[test]
fn the_check_finds_a_promise_that_was_not_kept() {
    let dir = tempfile::tempdir().unwrap();
    let promised = kill_after(dir.path(), "lie", 12);
    assert!(promised >= 10);
    assert_eq!(lost(dir.path(), promised), (6..=promised).collect::<Vec<_>>());
}

#[test]
fn a_start_that_was_killed_at_any_moment_can_be_made_again() {
    for delay_us in (0..20).map(|step| step * 2_000) {
        let dir = tempfile::tempdir().unwrap();
        let mut child = start(dir.path(), "hold", r#"exec "$@""#);
        std::thread::sleep(std::time::Duration::from_micros(delay_us));
        child.kill().unwrap();
        child.wait().unwrap();
        let (mut writer, mut pages, _reader) = open(dir.path());
        writer.commit(&[group(1)]).unwrap();
        assert_eq!(entries(&mut pages, 1).len(), 1, "killed after {delay_us} us");
    }
}

#[test]
fn a_store_held_by_another_process_is_refused_at_once_and_free_after_its_death() {
    let dir = tempfile::tempdir().unwrap();
    let mut child = start(dir.path(), "hold", r#"exec "$@""#);
    assert_eq!(said(&mut child).next().as_deref(), Some("open"));
    let refused = peerlink_storage::open(dir.path()).unwrap_err();
    assert!(matches!(refused, OpenError::InUse { .. }));
    assert!(refused.to_string().contains("in use by another process"), "{refused}");
    child.kill().unwrap();
    child.wait().unwrap();
    drop(open(dir.path()));
}

#[test]
fn a_full_disk_ends_the_promises_and_loses_none_of_them() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    // A file may not grow beyond 64 KiB. The signal that comes with it is ignored, so that the write fails instead.
    let limit = r#"trap "" XFSZ; ulimit -f 128; exec "$@""#;
    let mut child = start(dir.path(), "fill", limit);
    let said: Vec<String> = said(&mut child).collect();
    assert!(child.wait().unwrap().success());
    let promised = said.iter().filter_map(|line| line.parse::<u64>().ok()).max().unwrap();
    assert!((10..1_000).contains(&promised), "the limit was met: {promised}");
    assert_eq!(said.last().map(String::as_str), Some("refused 20"), "every later commit is refused");
    assert_eq!(lost(dir.path(), promised), Vec::<u64>::new());
    // The store goes on once there is space.
    let (mut writer, mut pages, _reader) = open(dir.path());
    let next = entries(&mut pages, 1).last().unwrap().0 + 1;
    writer.commit(&[group(next)]).unwrap();
}

/// With strace, calls of the child can be counted and made to fail; where there is none, nothing is shown.
fn strace() -> bool {
    let found = Command::new("strace").arg("-V").output().is_ok();
    if !found {
        eprintln!("skipped: no strace");
    }
    found
}

#[test]
fn one_failed_sync_ends_the_promises_and_loses_none_of_them() {
    if !strace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let inject =
        r#"exec strace -f -qq -o /dev/null -e trace=fdatasync -e inject=fdatasync:error=EIO:when=40 "$@""#;
    let mut child = start(dir.path(), "fill", inject);
    let said: Vec<String> = said(&mut child).collect();
    assert!(child.wait().unwrap().success());
    let promised = said.iter().filter_map(|line| line.parse::<u64>().ok()).max().unwrap();
    assert!((10..40).contains(&promised), "it failed once, in the middle: {promised}");
    assert_eq!(said.last().map(String::as_str), Some("refused 20"), "every later commit is refused");
    assert_eq!(lost(dir.path(), promised), Vec::<u64>::new());
}

#[test]
fn every_commit_waits_until_it_is_synced() {
    if !strace() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("calls");
    let wrapper = format!(r#"exec strace -f -qq -e trace=fdatasync,write -o {} "$@""#, log.display());
    let mut child = start(&dir.path().join("store"), "write", &wrapper);
    let mut lines = said(&mut child);
    assert_eq!(lines.by_ref().take(31).count(), 31);
    // The tracer ends with its child; the child ends when nobody reads what it says.
    drop(lines);
    let mut rest = String::new();
    let _ = child.stderr.take().map(|mut stderr| stderr.read_to_string(&mut rest));
    child.wait().unwrap();
    let calls = std::fs::read_to_string(&log).unwrap();
    let mut synced = false;
    let mut promises = 0;
    for call in calls.lines() {
        if call.contains("fdatasync(") && call.contains("= 0") {
            synced = true;
        } else if call.contains("write(1, \"@") && !call.contains("@open") {
            assert!(synced, "promised before it was synced: {call}");
            synced = false;
            promises += 1;
        }
    }
    assert!(promises >= 30, "{promises}");
}
