//! Messages that are taken back when their time is over, with the real program.

mod support;

use support::{friends, until};

fn states(person: &support::Person, contact: &str) -> Vec<String> {
    let said = person.run(&["history", contact, "--json"]).succeeds().json();
    said.iter().map(|entry| entry["state"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_message_that_is_not_delivered_in_time_is_taken_back() {
    let (alice, alice_up, bob, bob_up) = friends();
    let mut listen = alice.start(&["listen", "--json"], |line| line["kind"] == "listening");
    alice.run(&["send", "Bob", "in time", "--expire", "1h"]).succeeds();
    bob_up.end();
    alice.run(&["send", "Bob", "for ever", "--wait", "queued"]).succeeds();
    // Who waits for it is told when it is over, not when the patience is.
    let said = alice.run(&["send", "Bob", "not in time", "--expire", "1s", "--timeout", "600"]);
    said.fails(4, "expired");
    assert_eq!(said.out, "expired\n");
    listen.next_where(|event| event["kind"] == "dropped" && event["state"] == "expired");
    assert_eq!(states(&alice, "Bob"), ["delivered", "queued", "expired"]);
    let said = alice.run(&["history", "Bob"]).succeeds().out;
    assert!(said.contains("[expired]") && !said.contains("not in time  ["), "{said}");
    let expired = alice.run(&["history", "Bob", "--json"]).succeeds().json()[2]["message"].to_string();
    alice.run(&["cancel", "Bob", expired.trim_matches('"')]).fails(5, "expired");
    // Its time may also be over while nothing runs.
    alice.run(&["send", "Bob", "while nothing runs", "--expire", "2s", "--wait", "queued"]).succeeds();
    drop(listen);
    alice_up.end();
    std::thread::sleep(std::time::Duration::from_secs(2));
    let _bob_up = bob.up();
    let _alice_up = alice.up();
    until("he has what was not taken back", || bob.history("Alice").len() == 4);
    let texts: Vec<String> = bob.history("Alice").into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, ["in time", "for ever", "", ""]);
    until("acknowledged", || states(&alice, "Bob") == ["delivered", "delivered", "expired", "expired"]);
    // The same id again is the same message, and says what became of it.
    let id = "00112233445566778899aabbccddeeff";
    drop(_bob_up);
    alice.run(&["send", "Bob", "mine", "--id", id, "--expire", "1s"]).fails(4, "expired");
    alice.run(&["send", "Bob", "mine", "--id", id]).fails(4, "expired");
}

#[test]
fn the_profile_says_how_long_a_message_is_tried() {
    let (alice, _alice_up, _bob, bob_up) = friends();
    let all = "expire  never\nrelays  none\nstun    none\nrelay   off\nudp     on\nmapping on\n";
    assert_eq!(alice.run(&["config"]).succeeds().out, all);
    alice.run(&["config", "expire", "1s"]).succeeds();
    assert_eq!(alice.run(&["config", "expire"]).succeeds().out, "expire  1s\n");
    assert_eq!(alice.run(&["config", "--json"]).succeeds().json()[0]["expire_s"], 1);
    bob_up.end();
    alice.run(&["send", "Bob", "as the profile says"]).fails(4, "expired");
    alice.run(&["send", "Bob", "never", "--expire", "never", "--timeout", "2"]).fails(4, "kept");
    alice.run(&["config", "expire", "never"]).succeeds();
    alice.run(&["send", "Bob", "never again", "--timeout", "2"]).fails(4, "kept");
    assert_eq!(states(&alice, "Bob"), ["expired", "queued", "queued"]);
    for (bad, words) in [("soon", "is no time"), ("0", "longer than nothing"), ("9999999w", "too long")] {
        alice.run(&["send", "Bob", "text", "--expire", bad]).fails(2, words);
        alice.run(&["config", "expire", bad]).fails(2, words);
        alice.run(&["chat", "Bob", "--expire", bad]).fails(2, words);
    }
    assert_eq!(states(&alice, "Bob").len(), 3, "nothing was sent");
}

#[test]
fn a_chat_says_what_expired() {
    let (alice, _alice_up, _bob, bob_up) = friends();
    bob_up.end();
    let said = alice.run_with_input(&["chat", "Bob", "--expire", "1s"], b"one\ntwo\n");
    said.fails(4, "2 expired");
    assert!(said.out.contains("[expired] one") && said.out.contains("[expired] two"), "{said:?}");
}
