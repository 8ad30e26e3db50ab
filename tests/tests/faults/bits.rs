//! One wrong bit in a file of a store: the program says so, or it does not matter; and `repair` goes on from there.

use crate::people::{
    Choices, Image, Person, answer, judge, judge_in_any_order, pair, report, settle, times, try_ask, wait_for,
};
use serde_json::{Value, json};
use std::path::PathBuf;

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

/// Both live again until nothing is on its way. `false`: one of them says that its store is damaged.
fn live(persons: &[Person; 2]) -> bool {
    let up = persons.each_ref().map(Person::up);
    for person in persons {
        wait_for("a connection", || {
            let contacts = try_ask(&person.dir, &json!({ "do": "contacts" }))?;
            (contacts[0]["link"]["connected"] == true).then_some(())
        });
    }
    let all: usize = persons.iter().map(|person| person.promised.len()).sum();
    for person in persons {
        // Own messages that were lost are nobody's gap: they are there when they are there.
        let history = json!({ "do": "history", "contact": "peer", "last": 10 * all });
        let whole = wait_for("everything that was lost", || {
            let answer = answer(&person.dir, &history)?;
            if answer["error"]["code"] == 8 {
                return Some(false);
            }
            (answer["ok"].as_array()?.len() >= all).then_some(true)
        });
        if !whole {
            return false;
        }
    }
    settle(persons);
    drop(up);
    true
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
        "RAN bits: {count}, {harmless} harmless, {back} repaired from the other side, {said_lost} repaired as far as it \
         was said; control: {control}"
    ));
}

enum Outcome {
    Harmless,
    Back,
    SaidLost,
}

fn outcome(persons: &[Person; 2], what: &str) -> Outcome {
    let mut said = refusal(&persons[1]).map(|_| repair(&persons[1]));
    let contacts = |said: &Option<Value>| said.as_ref().map_or(1, |said| said["contacts"].as_u64().unwrap());
    if contacts(&said) > 0 && !live(persons) {
        // What is read only later is refused only then.
        assert_eq!(said, None, "{what}: a repaired store is whole");
        said = Some(repair(&persons[1]));
        assert!(contacts(&said) == 0 || live(persons), "{what}: a repaired store is whole");
    }
    if contacts(&said) == 0 {
        return Outcome::SaidLost;
    }
    let found = if said.is_some() { judge_in_any_order(persons) } else { judge(persons) };
    match (said, found) {
        (None, Ok(())) => Outcome::Harmless,
        (Some(said), Ok(())) if said["repaired"] == true => Outcome::Back,
        (said, found) => panic!("{what}: {found:?}; {said:?}"),
    }
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
