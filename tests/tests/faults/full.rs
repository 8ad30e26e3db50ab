//! A disk that is full, and free again later: a tmpfs of a few megabytes, mounted where only this test sees it.

use crate::people::{Image, Person, judge, pair_in, report, settle, times, wait_for};
use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

const DISK: &str = "PEERLINK_TEST_DISK";

#[test]
fn a_full_disk_that_is_freed_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut outside = Command::new("unshare");
    if !rustix::process::getuid().is_root() {
        outside.args(["--user", "--map-root-user"]);
    }
    let inside = outside
        .args(["--mount", "--propagation", "private"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "full::inside", "--ignored", "--nocapture"])
        .env(DISK, dir.path())
        .stdin(Stdio::null())
        .output();
    let why = match inside {
        Ok(inside) if inside.status.success() => {
            let out = String::from_utf8_lossy(&inside.stdout).into_owned();
            let ran = out.lines().find(|line| line.starts_with("RAN")).unwrap_or_else(|| panic!("{out}"));
            return report(ran);
        }
        Ok(inside) if dir.path().join("mounted").exists() => panic!("{inside:?}"),
        Ok(inside) => String::from_utf8_lossy(&inside.stderr).trim().replace('\n', " "),
        Err(error) => error.to_string(),
    };
    report(&format!("SKIPPED full: no file system can be mounted here: {why}"));
}

#[test]
#[ignore = "run by the test above, in a mount namespace of its own"]
fn inside() {
    let Some(dir) = std::env::var_os(DISK) else { return };
    let dir = Path::new(&dir);
    let small = dir.join("small");
    fs::create_dir(&small).unwrap();
    let rounds = times(3, 60);
    let size = format!("size={}m", 5 + rounds / 3);
    let mounted =
        Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&small).status().unwrap();
    assert!(mounted.success());
    fs::write(dir.join("mounted"), "").unwrap();

    let [mut alice, mut bob] = pair_in([dir.join("alice"), small.join("bob")]);
    let alice_up = alice.up();
    for _ in 0..rounds {
        let mut up = bob.up();
        bob.write(2, || true);
        alice.write(2, || true);
        let ballast = small.join("ballast");
        fill(&ballast, 48 * 1024);
        // Messages of both make it full; neither is told that something is kept which is not.
        alice.write(60, || true);
        let before = bob.promised.len();
        bob.write(200, || !up.has_ended());
        wait_for("the end of a program without a disk", || up.has_ended().then_some(()));
        assert!(bob.promised.len() < before + 200);
        let full = bob.run(&["status"]);
        // What is there can be read even then, or the disk is named.
        let said = String::from_utf8_lossy(&full.stderr).into_owned();
        assert!(
            full.status.success() || (full.status.code() == Some(8) && said.contains("full")),
            "{full:?}"
        );
        fs::remove_file(&ballast).unwrap();
        let up = bob.up();
        bob.write(1, || true);
        let persons = [alice, bob];
        settle(&persons);
        up.kill();
        [alice, bob] = persons;
    }
    drop(alice_up);
    let persons = [alice, bob];
    assert_eq!(judge(&persons), Ok(()));
    let [one, other] = persons.each_ref().map(|person| person.promised.len());
    println!("RAN full: {rounds} times, {one} and {other} messages; control: {}", control(persons, dir));
}

/// Writes until nothing fits, and leaves a little.
fn fill(path: &Path, left: u64) {
    let mut file = File::create(path).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    let len = file.metadata().unwrap().len();
    file.set_len(len.saturating_sub(left)).unwrap();
}

/// A store that took messages and lost them with its disk: both as they were before.
fn control(persons: [Person; 2], dir: &Path) -> String {
    let early = pair_in([dir.join("early alice"), dir.join("early bob")]);
    for (early, person) in early.iter().zip(&persons) {
        Image::of(&early.dir).put(&person.dir);
    }
    judge(&persons).unwrap_err()
}
