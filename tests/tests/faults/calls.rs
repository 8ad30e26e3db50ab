//! System calls of the store that fail, one in each run, at many places: strace makes them fail.

use crate::people::{Choices, Person, Process, judge, pair, report, settle, times};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What is made to fail, and how often strace may count to it before it is over.
const CALLS: [(&str, &str, usize); 14] = [
    ("write", "EIO", 12),
    ("write", "ENOSPC", 12),
    ("fdatasync", "EIO", 12),
    ("fsync", "EIO", 12),
    ("openat", "EIO", 30),
    ("openat", "EMFILE", 30),
    ("rename", "EIO", 2),
    ("ftruncate", "EIO", 2),
    ("pwrite64", "EIO", 6),
    ("pwrite64", "ENOSPC", 6),
    ("read", "EIO", 20),
    ("pread64", "EIO", 6),
    ("lseek", "EIO", 12),
    ("fdatasync", "ENOSPC", 8),
];

/// Every file and directory of a store, which is all that strace should look at.
fn paths(store: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (vec![store.to_owned()], vec![store.to_owned()]);
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_dir() {
                open.push(entry.path());
            }
            found.push(entry.path());
        }
    }
    found
}

/// The program under strace: `inject` meets the calls on files of its store. And the program itself.
fn traced(person: &Person, call: &str, inject: &str, log: &Path) -> Process {
    let mut wrapper = vec!["strace", "-f", "-qq", "-o", log.to_str().unwrap()];
    let (trace, inject) = (format!("trace={call}"), format!("inject={inject}"));
    wrapper.extend(["-e", &trace, "-e", &inject]);
    let paths = paths(&person.store());
    for path in &paths {
        wrapper.extend(["-P", path.to_str().unwrap()]);
    }
    Process(person.wrapped(&wrapper, &["up"]).spawn().unwrap())
}

/// Ends the program that `strace` runs: by SIGTERM, in good order as far as it can, or by SIGKILL.
fn end(mut strace: Process, orderly: bool) {
    let id = strace.0.id();
    let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap_or_default();
    for child in children.split_whitespace() {
        let child = rustix::process::Pid::from_raw(child.parse().unwrap()).unwrap();
        let signal = if orderly { rustix::process::Signal::TERM } else { rustix::process::Signal::KILL };
        let _ended_already = rustix::process::kill_process(child, signal);
    }
    strace.0.wait().unwrap();
}

fn strace_is_there() -> bool {
    let works = Command::new("strace").args(["-qq", "-o", "/dev/null", "true"]).status();
    works.is_ok_and(|status| status.success())
}

#[test]
fn one_failing_call_of_the_disk_loses_nothing() {
    if !strace_is_there() {
        report("SKIPPED calls: strace cannot trace here");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let [mut alice, mut bob] = pair(dir.path());
    let alice_up = alice.up();
    let log = dir.path().join("strace");
    let (wanted, mut met, mut tried) = (times(60, 600), 0, 0);
    let mut choices = Choices(0x5eed);
    while met < wanted {
        let (call, error, most) = CALLS[tried % CALLS.len()];
        tried += 1;
        assert!(tried < 20 * wanted, "{met} of {tried} calls were met");
        let when = 1 + choices.below(most);
        let mut up = traced(&bob, call, &format!("{call}:error={error}:when={when}"), &log);
        // Until something was promised or the program gave up.
        alice.write(1, || true);
        bob.write(2, || !up.has_ended());
        end(up, tried % 2 == 0);
        if !fs::read_to_string(&log).unwrap().contains("(INJECTED)") {
            continue;
        }
        met += 1;
        // Without the fault, everything goes on.
        let mut up = bob.up();
        bob.write(1, || {
            assert!(!up.has_ended(), "{call} {error} {when}: {:?}", bob_status(dir.path()));
            true
        });
        let persons = [alice, bob];
        settle(&persons);
        up.kill();
        let [one, other] = persons.each_ref().map(|person| person.promised.len());
        let held = persons[1].history().unwrap();
        assert_eq!(held.len(), one + other, "{call} {error} {when}");
        [alice, bob] = persons;
    }
    drop(alice_up);
    let persons = [alice, bob];
    assert_eq!(judge(&persons), Ok(()));
    let control = control(persons, &log);
    report(&format!("RAN calls: {met} failed of {tried} runs; control: {control}"));
}

fn bob_status(dir: &Path) -> String {
    let bob = Person { name: "bob", dir: dir.join("bob"), promised: Vec::new() };
    String::from_utf8_lossy(&bob.run(&["status"]).stderr).into_owned()
}

/// A call that says it wrote and did not: nothing can keep what was promised then, and the check must find that.
fn control(persons: [Person; 2], log: &Path) -> String {
    let [alice, mut bob] = persons;
    let journal = fs::read_dir(bob.store().join("db")).unwrap().map(|entry| entry.unwrap().path());
    let journal = journal.into_iter().find(|path| path.extension().is_some_and(|end| end == "jnl")).unwrap();
    let wrapper = [
        "strace",
        "-f",
        "-qq",
        "-o",
        log.to_str().unwrap(),
        "-e",
        "trace=write",
        "-e",
        "inject=write:retval=7:when=3",
        "-P",
        journal.to_str().unwrap(),
    ];
    let mut up = Process(bob.wrapped(&wrapper, &["up"]).spawn().unwrap());
    let before = bob.promised.len();
    bob.write(5, || !up.has_ended());
    assert_eq!(bob.promised.len(), before + 5, "it believed the call");
    end(up, false);
    assert!(fs::read_to_string(log).unwrap().contains("(INJECTED)"));
    let said = bob.run(&["status"]);
    let found = judge(&[alice, bob]).unwrap_err();
    // It is found by the program as well, and said.
    assert_eq!(said.status.code(), Some(8), "{said:?}");
    found
}
