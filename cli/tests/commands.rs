//! Every command of the real program, its exit code, and what it prints.

mod support;

use serde_json::Value;
use std::os::unix::fs::PermissionsExt as _;
use support::{Person, command, friends, said, until};

#[test]
fn a_first_run_makes_the_identity_without_asking_and_for_the_owner_alone() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    let first = said(&mut command(&path, &["id"])).succeeds();
    assert!(first.out.starts_with("peer1"), "{first:?}");
    let again = said(&mut command(&path, &["id", "--json"])).succeeds();
    assert_eq!(again.json()[0]["peer"], first.out.trim());
    said(&mut command(&path, &["contacts"])).succeeds();
    let mode = |name: &str| std::fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
    assert_eq!(
        [mode(""), mode("store"), mode("identity"), mode("settings.json")],
        [0o700, 0o700, 0o600, 0o600]
    );
    let names =
        std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    assert_eq!(names, ["identity", "settings.json", "store"], "nothing is left behind");
}

#[test]
fn two_processes_that_make_a_profile_at_once_make_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("new");
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let path = path.clone();
            std::thread::spawn(move || said(&mut command(&path, &["id"])).succeeds().out)
        })
        .collect();
    let all: Vec<String> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
    assert!(all.iter().all(|peer| *peer == all[0]), "{all:?}");
}

#[test]
fn a_wrong_command_line_is_two_and_says_what_is_right() {
    let alice = Person::new("Alice");
    assert_eq!(said(&mut command(&alice.path, &["--help"])).code, 0);
    assert_eq!(alice.run(&[]).code, 2);
    assert_eq!(alice.run(&["fly"]).code, 2);
    assert_eq!(alice.run(&["send"]).code, 2);
    alice.run(&["send", "bob"]).fails(2, "--stdin");
    alice.run(&["invite", "--expires", "soon"]).fails(2, "7d");
    alice.run(&["invite", "--addr", "nowhere"]).fails(2, "HOST:PORT");
    alice.run(&["init", "--nickname", " a"]).fails(2, "name");
    let error = alice.run(&["send", "bob", "hi", "--json"]);
    assert_eq!(error.code, 3);
    assert_eq!(error.json()[0]["error"]["code"], 3);
}

#[test]
fn two_people_meet_talk_and_part() {
    let (alice, _alice_up, bob, _bob_up) = friends();
    for n in 0..3 {
        assert_eq!(alice.run(&["send", "Bob", &format!("a{n}")]).succeeds().out, "delivered\n");
        assert_eq!(bob.run(&["send", "ali", &format!("b{n}")]).succeeds().out, "delivered\n");
    }
    let history = alice.history("Bob");
    assert_eq!(history.len(), 6);
    assert_eq!(history, bob.history("Alice"));
    assert!(alice.run(&["history", "Bob", "--last", "1"]).succeeds().out.ends_with("  Bob: b2\n"));

    let contacts = alice.run(&["contacts", "--json"]).succeeds().json();
    assert_eq!(contacts.len(), 1);
    assert_eq!(contacts[0]["name"], "Bob");
    assert_eq!(contacts[0]["link"]["connected"], true);
    assert_eq!(contacts[0]["unread"], 0);

    let number = |person: &Person, of: &str| {
        let said = person.run(&["verify", of, "--json"]).succeeds();
        said.json()[0]["number"].as_str().unwrap().to_owned()
    };
    let digits = number(&alice, "Bob");
    assert_eq!(digits, number(&bob, "Alice"));
    assert_eq!(digits.chars().filter(char::is_ascii_digit).count(), 60);
    assert!(alice.run(&["verify", "Bob", "--yes"]).succeeds().out.contains("Marked as verified"));
    assert!(alice.run(&["contacts"]).succeeds().out.contains("verified"));
    alice.run(&["verify", "Bob", "--no"]).succeeds();
    assert_eq!(alice.run(&["contacts", "--json"]).json()[0]["verified"], false);

    alice.run(&["rename", "Bob", "Robert"]).succeeds();
    alice.run(&["send", "Bob", "x"]).fails(3, "no contact");
    assert_eq!(alice.run(&["send", "Rob", "by prefix"]).succeeds().out, "delivered\n");

    alice.run(&["block", "Robert"]).succeeds();
    bob.run(&["send", "Alice", "are you there?", "--timeout", "1"]).fails(4, "not delivered within 1 s");
    alice.run(&["block", "Robert", "--undo"]).succeeds();
    until("what waited is delivered", || alice.history("Robert").len() == 8);
    assert_eq!(alice.history("Robert"), bob.history("Alice"));

    alice.run(&["remove", "Robert"]).succeeds();
    alice.run(&["send", "Robert", "x"]).fails(3, "no contact");
    // Added again, it goes on from where it was.
    alice.run(&["add", &bob.ticket()]).succeeds();
    assert_eq!(alice.run(&["send", "Bob", "again"]).succeeds().out, "delivered\n");
    assert_eq!(alice.history("Bob"), bob.history("Alice"));
}

#[test]
fn names_are_completed_and_an_ambiguous_one_names_the_candidates() {
    let alice = Person::new("Alice");
    let _up = alice.up();
    for name in ["Bob", "Bobby", "Carol"] {
        let other = Person::new(name);
        other.run(&["add", &alice.ticket()]).succeeds();
    }
    let ambiguous = alice.run(&["history", "bo"]);
    ambiguous.fails(3, "Bob");
    assert!(ambiguous.err.contains("Bobby"));
    alice.run(&["history", "bob"]).succeeds();
    alice.run(&["history", "c"]).succeeds();
    alice.run(&["history", ""]).fails(3, "no contact");
    // A second Bob cannot pose as the first.
    let other = Person::new("B0b");
    other.run(&["add", &alice.ticket()]).succeeds();
    let names: Vec<Value> =
        alice.run(&["contacts", "--json"]).json().iter().map(|c| c["name"].clone()).collect();
    assert!(names.contains(&"B0b-2".into()), "{names:?}");
    alice.run(&["rename", "carol", "bob"]).fails(2, "another contact");
}

#[test]
fn who_is_away_gets_it_when_he_comes() {
    let (alice, alice_up, bob, bob_up) = friends();
    assert_eq!(bob_up.end(), 0);
    let said = alice.run(&["send", "Bob", "one", "--timeout", "1"]);
    said.fails(4, "not delivered within 1 s");
    assert_eq!(said.out, "queued\n");
    assert_eq!(alice.run(&["send", "Bob", "two", "--wait", "queued"]).succeeds().out, "queued\n");
    let status = alice.status();
    assert_eq!(status["contacts"][0]["queued"], 2);
    assert_eq!(status["contacts"][0]["link"]["connected"], false);
    let _bob_up = bob.up();
    until("both are delivered", || alice.status()["contacts"][0]["queued"] == 0);
    assert_eq!(alice.history("Bob"), bob.history("Alice"));
    // Without a node, the command is the node, and says what becomes of it.
    assert_eq!(alice_up.end(), 0);
    assert_eq!(alice.run(&["send", "Bob", "three"]).succeeds().out, "delivered\n");
    drop(_bob_up);
    let said = alice.run(&["send", "Bob", "four", "--timeout", "1"]);
    assert_eq!(said.code, 4);
    assert_eq!(said.out, "queued, will be sent when peerlink next runs (peerlink up)\n");
    let shown = alice.run(&["history", "Bob"]).succeeds().out;
    assert!(shown.contains("three  [delivered]") && shown.contains("four  [queued]"), "{shown}");
}

#[test]
fn the_same_id_is_the_same_message() {
    let (alice, _alice_up, bob, _bob_up) = friends();
    let id = "00112233445566778899aabbccddeeff";
    let first = alice.run(&["send", "Bob", "once", "--id", id, "--json"]).succeeds().json().remove(0);
    let again = alice.run(&["send", "Bob", "once", "--id", id, "--json"]).succeeds().json().remove(0);
    assert_eq!(first["message"], again["message"]);
    assert_eq!(first["message_id"], id);
    assert_eq!(bob.history("Alice").len(), 1);
    alice.run(&["send", "Bob", "x", "--id", "xyz"]).fails(2, "--id");
}

#[test]
fn a_listener_resumes_without_a_hole_or_a_double() {
    let (alice, _alice_up, bob, bob_up) = friends();
    let mut expected = Vec::new();
    for n in 0..5 {
        expected.push(format!("m{n}"));
        alice.run(&["send", "Bob", &format!("m{n}")]).succeeds();
    }
    let is_message = |value: &Value| value["kind"] == "message";
    // Unread first.
    let mut listener = bob.start(&["listen", "--json"], |value| value["kind"] == "listening");
    for n in 0..5 {
        assert_eq!(listener.next_where(is_message)["text"], format!("m{n}"));
    }
    listener.kill();
    // Now they are read.
    until("read", || bob.status()["contacts"][0]["unread"] == 0);
    // From a number, while more come, across the death of the node that held the profile.
    let mut listener = bob.start(&["listen", "--json", "--after", "2"], |value| value["kind"] == "listening");
    for n in 5..10 {
        expected.push(format!("m{n}"));
        alice.run(&["send", "Bob", &format!("m{n}"), "--wait", "queued"]).succeeds();
        if n == 7 {
            bob_up.signal(rustix::process::Signal::KILL);
        }
    }
    for (n, text) in expected.iter().enumerate().skip(2) {
        let message = listener.next_where(is_message);
        assert_eq!((&message["text"], &message["arrival"]), (&text.as_str().into(), &(n + 1).into()));
    }
    assert_eq!(listener.end(), 0);
    assert_eq!(alice.history("Bob"), bob.history("Alice"));
}

#[test]
fn a_chat_through_pipes_serves_other_commands_and_takes_over() {
    let (alice, _alice_up, bob, bob_up) = friends();
    let mut chat = bob.start(&["chat", "Alice", "--json"], |value| value["kind"] == "listening");
    chat.write("from the chat");
    assert_eq!(chat.next_where(|value| value["kind"] == "sent")["text"], Value::Null);
    alice.run(&["send", "Bob", "to the chat"]).succeeds();
    assert_eq!(chat.next_where(|value| value["kind"] == "message")["text"], "to the chat");
    // The node that served the chat dies: the chat becomes the node, and serves others.
    bob_up.kill();
    chat.write("from the new holder");
    chat.next_where(|value| value["kind"] == "sent");
    bob.run(&["send", "Alice", "beside the chat"]).succeeds();
    until("all is there", || alice.history("Bob").len() == 4);
    assert_eq!(chat.wait(), 0);
    assert_eq!(alice.history("Bob"), bob.history("Alice"));
    // With nobody there, a chat that is over says what is left.
    drop(_alice_up);
    let said = bob.run_with_input(&["chat", "Alice"], b"into the dark\n");
    said.fails(4, "1 not delivered yet");
    assert!(said.out.contains("[queued] into the dark"), "{said:?}");
}

#[test]
fn the_demo_counts_from_both_stores() {
    let dir = tempfile::tempdir().unwrap();
    let said = said(command(dir.path(), &["demo"]).env("TMPDIR", dir.path())).succeeds();
    let last = said.out.lines().last().unwrap();
    assert_eq!(last, "sent 16, delivered 16, lost 0, doubled 0");
    assert!(said.out.contains("SIGKILL"));
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0, "its profiles are gone");
}
