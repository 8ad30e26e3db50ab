//! Messages taken back and deleted, and a profile restored from a backup, with the real program.

mod support;

use std::path::Path;
use support::{Person, friends, until};

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_type().unwrap().is_file() {
            std::fs::copy(entry.path(), &target).unwrap();
        }
        if target.exists() {
            std::fs::set_permissions(&target, entry.metadata().unwrap().permissions()).unwrap();
        }
    }
}

fn texts(person: &Person, contact: &str) -> Vec<String> {
    person.history(contact).into_iter().map(|(_, text)| text).collect()
}

#[test]
fn a_profile_restored_from_a_backup_gets_back_what_it_lost_and_doubles_nothing() {
    let (alice, alice_up, bob, _bob_up) = friends();
    for text in ["one", "two"] {
        alice.run(&["send", "Bob", text]).succeeds();
    }
    alice_up.end();
    let backup = tempfile::tempdir().unwrap();
    copy(&alice.path, backup.path());
    let alice_up = alice.up();
    for text in ["three", "four"] {
        alice.run(&["send", "Bob", text]).succeeds();
    }
    bob.run(&["send", "Alice", "an answer"]).succeeds();
    alice_up.end();
    std::fs::remove_dir_all(&alice.path).unwrap();
    copy(backup.path(), &alice.path);
    std::fs::set_permissions(&alice.path, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    // It does not know yet how old it is, and takes a number that was used before.
    let _queued = alice.run(&["send", "Bob", "five", "--timeout", "0"]);
    let up = alice.start(&["up", "--json"], |line| line["kind"] == "up");
    let all = ["one", "two", "three", "four", "an answer", "five"];
    until("mended", || texts(&bob, "Alice").len() == all.len() && texts(&alice, "Bob").len() == all.len());
    assert_eq!(texts(&bob, "Alice"), all);
    assert_eq!(texts(&alice, "Bob"), all);
    alice.run(&["send", "Bob", "six"]).succeeds();
    assert_eq!(texts(&bob, "Alice").len(), all.len() + 1);
    up.end();
}

#[test]
fn a_message_that_waits_can_be_taken_back_and_one_that_came_cannot() {
    let (alice, alice_up, bob, bob_up) = friends();
    alice.run(&["send", "Bob", "delivered"]).succeeds();
    bob_up.end();
    alice.run(&["send", "Bob", "stays", "--wait", "queued"]).succeeds();
    alice.run(&["send", "Bob", "goes", "--wait", "queued"]).succeeds();
    alice.run(&["cancel", "Bob"]).succeeds();
    let said = alice.run(&["history", "Bob", "--json"]).succeeds().json();
    assert_eq!(said[2]["state"], "cancelled");
    assert_eq!(said[2]["text"], "");
    let first = said[0]["message"].as_str().unwrap().to_owned();
    alice.run(&["cancel", "Bob", &first]).fails(5, "delivered");
    alice.run(&["cancel", "Bob", "nonsense"]).fails(2, "history --json");
    let _bob_up = bob.up();
    until("he has them", || bob.history("Alice").len() == 3);
    assert_eq!(texts(&bob, "Alice"), ["delivered", "stays", ""]);
    alice.run(&["cancel", "Bob"]).fails(5, "nothing waits");
    // Deleted here alone.
    alice.run(&["delete", "Bob", &first]).succeeds();
    assert_eq!(texts(&alice, "Bob"), ["stays", ""]);
    assert_eq!(alice.run(&["delete", "Bob"]).code, 2, "which, or --all");
    alice.run(&["delete", "Bob", "--all"]).succeeds();
    assert!(texts(&alice, "Bob").is_empty());
    alice.run(&["send", "Bob", "after it"]).succeeds();
    assert_eq!(texts(&alice, "Bob"), ["after it"]);
    // A start finds nothing wrong with what is left.
    alice_up.kill();
    let _alice_up = alice.up();
    assert_eq!(texts(&alice, "Bob"), ["after it"]);
    assert_eq!(bob.history("Alice").len(), 4);
}
