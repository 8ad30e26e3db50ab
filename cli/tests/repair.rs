//! A damaged store is refused by name, kept aside whole by `repair`, and what it lost comes back from the other side.

mod support;

use std::fs;
use std::path::{Path, PathBuf};
use support::{Person, friends, until};

fn journal(profile: &Path) -> PathBuf {
    let files = fs::read_dir(profile.join("store/db")).unwrap().map(|entry| entry.unwrap().path());
    files.into_iter().find(|path| path.extension().is_some_and(|end| end == "jnl")).unwrap()
}

fn talk(alice: &Person, bob: &Person, numbers: std::ops::Range<u32>) {
    for number in numbers {
        alice.run(&["send", "Bob", &format!("from Alice {number}")]).succeeds();
        bob.run(&["send", "Alice", &format!("from Bob {number}")]).succeeds();
    }
}

/// Ends the commits of a journal after three quarters of them.
fn cut(profile: &Path) {
    let path = journal(profile);
    let bytes = fs::read(&path).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    fs::write(path, &bytes[..used * 3 / 4]).unwrap();
}

#[test]
fn a_damaged_store_is_repaired_and_the_other_side_gives_back_what_it_lost() {
    let (alice, _alice_up, bob, bob_up) = friends();
    talk(&alice, &bob, 0..12);
    let before = bob.history("Alice");
    assert_eq!(before.len(), 24);
    bob_up.kill();
    cut(&bob.path);

    for command in [&["status"][..], &["contacts"], &["up"], &["send", "Alice", "lost"]] {
        let said = bob.run(command);
        said.fails(8, "commits were made");
        said.fails(8, &format!("peerlink --profile {} repair", bob.path.display()));
    }
    let damaged = fs::read(journal(&bob.path)).unwrap();
    let said = bob.run(&["repair", "--json"]).succeeds().json().remove(0);
    assert_eq!((&said["repaired"], &said["contacts"]), (&true.into(), &1.into()));
    assert!(said["lost_commits"].as_u64().unwrap() > 0 && said["messages"].as_u64().unwrap() < 24, "{said}");
    let aside = PathBuf::from(said["aside"].as_str().unwrap());
    assert_eq!(fs::read(aside.join("db").join(journal(&bob.path).file_name().unwrap())).unwrap(), damaged);
    assert_eq!(bob.run(&["repair"]).succeeds().out, "The store is whole: there is nothing to repair.\n");

    let _bob_up = bob.up();
    // What Bob wrote before is Bob's again, and shown once. What is not acknowledged has another name, and another place.
    let texts = |person: &Person, contact: &str| {
        let mut texts: Vec<String> = person.history(contact).into_iter().map(|(_, text)| text).collect();
        texts.sort();
        texts
    };
    let mut wanted: Vec<String> = before.into_iter().map(|(_, text)| text).collect();
    wanted.sort();
    until("what was lost is back", || texts(&bob, "Alice") == wanted);
    talk(&alice, &bob, 12..15);
    until("both hold the same", || alice.history("Bob") == bob.history("Alice"));
    assert_eq!(bob.history("Alice").len(), 30);
}

#[test]
fn a_repair_says_what_it_did_and_waits_for_nobody() {
    let (alice, alice_up, bob, _bob_up) = friends();
    talk(&alice, &bob, 0..4);
    alice.run(&["repair"]).fails(7, "end it");
    alice_up.kill();
    cut(&alice.path);
    let said = alice.run(&["repair"]).succeeds().out;
    assert!(said.contains("Nothing was deleted") && said.contains("1 contacts"), "{said}");
    assert!(said.contains(&format!("peerlink --profile {} up", alice.path.display())), "{said}");
    let names =
        fs::read_dir(&alice.path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert_eq!(names.filter(|name| name.starts_with("store")).count(), 2);
}

#[test]
fn what_was_queued_behind_a_damaged_spot_still_goes_out_once() {
    let (alice, alice_up, bob, bob_up) = friends();
    talk(&alice, &bob, 0..3);
    alice_up.kill();
    for number in 0..10 {
        bob.run(&["send", "Alice", &format!("queued {number}"), "--wait", "queued"]).succeeds();
    }
    bob_up.kill();
    let path = journal(&bob.path);
    let mut bytes = fs::read(&path).unwrap();
    let spot = bytes.windows(8).position(|bytes| bytes == b"queued 4").unwrap();
    bytes[spot] ^= 1;
    fs::write(&path, bytes).unwrap();

    bob.run(&["status"]).fails(8, "repair");
    let said = bob.run(&["repair", "--json"]).succeeds().json().remove(0);
    assert_eq!((&said["missing"], &said["lost_commits"]), (&1.into(), &0.into()), "{said}");
    let (_alice_up, _bob_up) = (alice.up(), bob.up());
    let queued = |history: Vec<(String, String)>| -> Vec<String> {
        history.into_iter().map(|(_, text)| text).filter(|text| text.starts_with("queued")).collect()
    };
    until("they are there", || queued(alice.history("Bob")).len() >= 9);
    until("both hold the same", || alice.history("Bob") == bob.history("Alice"));
    let mut wanted: Vec<String> = (0..10).map(|number| format!("queued {number}")).collect();
    // Nobody else ever had it, and the repair said so.
    wanted.remove(4);
    assert_eq!(queued(alice.history("Bob")), wanted);
    assert_eq!(alice.history("Bob").len(), 6 + 9);
}

#[test]
fn a_repair_that_is_killed_leaves_the_damaged_store_or_the_new_one() {
    let (alice, _alice_up, bob, bob_up) = friends();
    talk(&alice, &bob, 0..6);
    bob_up.kill();
    cut(&bob.path);
    for delay_us in (0..24).map(|step| step * 3_000) {
        let mut repair = bob.command(&["repair"]);
        repair.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let mut repair = repair.spawn().unwrap();
        std::thread::sleep(std::time::Duration::from_micros(delay_us));
        repair.kill().unwrap();
        repair.wait().unwrap();
        if bob.run(&["status"]).code == 0 {
            break;
        }
        bob.run(&["status"]).fails(8, "commits were made");
    }
    bob.run(&["repair"]).succeeds();
    assert!(bob.run(&["contacts"]).succeeds().out.contains("Alice"));
    let _bob_up = bob.up();
    until("what was lost is back", || bob.history("Alice").len() == 12);
    until("both hold the same", || alice.history("Bob") == bob.history("Alice"));
}
