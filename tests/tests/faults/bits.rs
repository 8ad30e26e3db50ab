//! One wrong bit in a file of a store: the program says so, or it does not matter; and `repair` goes on from there.

use crate::people::{Choices, Image, Person, judge, pair, report, settle, times, try_ask, wait_for};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};

/// Files of the store, with the bytes of each that are used.
fn used(image: &Image) -> Vec<(PathBuf, usize)> {
    let store = image.0.iter().filter(|(path, (bytes, _))| path.starts_with("store") && !bytes.is_empty());
    store.map(|(path, (bytes, _))| (path.clone(), bytes.len())).collect()
}

/// What the program says of a profile before it serves anybody: `None` if it sees nothing wrong.
fn refusal(person: &Person) -> Option<String> {
    let said = person.run(&["status"]);
    match said.status.code() {
        Some(0) => None,
        Some(8) => Some(String::from_utf8_lossy(&said.stderr).into_owned()),
        _ => panic!("{said:?}"),
    }
}

fn repair(person: &Person) -> Value {
    let said = person.run(&["--json", "repair"]);
    assert!(said.status.success(), "{said:?}");
    serde_json::from_slice(&said.stdout).unwrap()
}

/// Both live again until nothing is on its way.
fn live(persons: &[Person; 2]) {
    let up = persons.each_ref().map(Person::up);
    for person in persons {
        wait_for("a connection", || {
            let contacts = try_ask(&person.dir, &json!({ "do": "contacts" }))?;
            (contacts[0]["link"]["connected"] == true).then_some(())
        });
    }
    settle(persons);
    drop(up);
}

#[test]
fn one_wrong_bit_is_said_or_harmless_and_never_a_silent_loss() {
    let dir = tempfile::tempdir().unwrap();
    let mut persons = pair(dir.path());
    // A part goes on into tables, the rest stays in the journal.
    for _ in 0..2 {
        let up = persons.each_ref().map(Person::up);
        persons.iter_mut().for_each(|person| person.write(15, || true));
        settle(&persons);
        for mut process in up {
            let id = rustix::process::Pid::from_child(&process.0);
            rustix::process::kill_process(id, rustix::process::Signal::TERM).unwrap();
            process.0.wait().unwrap();
        }
    }
    let up = persons.each_ref().map(Person::up);
    persons.iter_mut().for_each(|person| person.write(25, || true));
    settle(&persons);
    drop(up);
    assert_eq!(judge(&persons), Ok(()));
    let images = persons.each_ref().map(|person| Image::of(&person.dir));

    let files = used(&images[1]);
    let mut choices = Choices(0xb175);
    let (mut harmless, mut back, mut said_lost) = (0, 0, 0);
    let count = times(50, 1_000);
    for turn in 0..count {
        let (path, bytes) = &files[turn % files.len()];
        let (at, bit) = (choices.below(*bytes), choices.below(8));
        for (image, person) in images.iter().zip(&persons) {
            image.put(&person.dir);
        }
        let mut damaged = images[1].clone();
        damaged.0.get_mut(path).unwrap().0[at] ^= 1 << bit;
        damaged.put(&persons[1].dir);
        let what = format!("bit {bit} of byte {at} in {}", path.display());
        match outcome(&persons, &what) {
            Outcome::Harmless => harmless += 1,
            Outcome::Back => back += 1,
            Outcome::SaidLost => said_lost += 1,
        }
    }
    assert!(back + said_lost > count / 5, "damage is met");
    let control = control(&persons, &images);
    report(&format!(
        "RAN bits: {count}, {harmless} harmless, {back} repaired from the other side, {said_lost} repaired as far as \
         it was said; control: {control}"
    ));
}

enum Outcome {
    Harmless,
    Back,
    SaidLost,
}

fn outcome(persons: &[Person; 2], what: &str) -> Outcome {
    let said = if refusal(&persons[1]).is_some() {
        let said = repair(&persons[1]);
        assert_eq!(said["repaired"], true, "{what}: {said}");
        Some(said)
    } else {
        None
    };
    let contacts = said.as_ref().map_or(1, |said| said["contacts"].as_u64().unwrap());
    if contacts == 0 {
        return Outcome::SaidLost;
    }
    live(persons);
    let found = judge(persons);
    match (said, found) {
        (None, Ok(())) => Outcome::Harmless,
        (Some(_), Ok(())) => Outcome::Back,
        // What is read only later is read wrong by nobody: it is refused then.
        (None, Err(_)) if is_refused_later(&persons[1].store()) => {
            assert_eq!(repair(&persons[1])["repaired"], true, "{what}");
            Outcome::SaidLost
        }
        (Some(said), Err(_)) if says_that_something_is_lost(&said) => Outcome::SaidLost,
        (said, Err(found)) => panic!("{what}: {found}; {said:?}"),
    }
}

fn says_that_something_is_lost(said: &Value) -> bool {
    let unreadable = said["unreadable"].as_array().is_some_and(|parts| !parts.is_empty());
    unreadable || said["missing"] != 0 || said["lost_commits"] != 0
}

fn is_refused_later(store: &Path) -> bool {
    peerlink_storage::check(store).is_err()
}

/// Both stores a little older, as whole files: a loss that no checksum shows. The judge must.
fn control(persons: &[Person; 2], images: &[Image; 2]) -> String {
    let older = tempfile::tempdir().unwrap();
    let _fresh = pair(older.path());
    for (person, name) in persons.iter().zip(["alice", "bob"]) {
        Image::of(&older.path().join(name)).put(&person.dir);
    }
    assert!(persons.iter().all(|person| refusal(person).is_none()));
    let found = judge(persons).unwrap_err();
    for (image, person) in images.iter().zip(persons) {
        image.put(&person.dir);
    }
    assert_eq!(judge(persons), Ok(()));
    found
}
