//! What is wrong, damaged, hostile or in the way gets a clear error or a closed connection, and loses nothing.

mod support;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use support::{PROGRAM, Person, command, friends, said, until};

#[test]
fn tickets_that_are_no_good() {
    let (alice, bob) = (Person::new("Alice"), Person::new("Bob"));
    let _up = alice.up();
    let ticket = alice.ticket();
    bob.run(&["add", "hello"]).fails(2, "not a ticket");
    bob.run(&["add", &ticket[..ticket.len() - 3]]).fails(2, "damaged");
    let last = if ticket.ends_with('a') { "b" } else { "a" };
    bob.run(&["add", &format!("{}{last}", &ticket[..ticket.len() - 1])]).fails(2, "damaged");
    alice.run(&["add", &ticket]).fails(2, "your own");
    assert!(bob.run(&["contacts", "--json"]).out.is_empty(), "nothing was added");
    // Good after all, also wrapped and from standard input.
    let wrapped = format!("{}\n  {}\n", &ticket[..40], &ticket[40..]);
    bob.run_with_input(&["add", "-"], wrapped.as_bytes()).succeeds();
    // The same person again succeeds; somebody else does not.
    bob.run(&["add", &ticket]).succeeds();
    Person::new("Carol").run(&["add", &ticket]).fails(5, "somebody else used this ticket");
    let short = alice.run(&["invite", "--expires", "1s", "--json"]).succeeds();
    let short = short.json()[0]["ticket"].as_str().unwrap().to_owned();
    // An invitation's end is a minute, rounded down in the ticket; the inviter judges by the second.
    std::thread::sleep(std::time::Duration::from_millis(1500));
    Person::new("Dave").run(&["add", &short]).fails(5, "expired");
    assert!(alice.status()["turned_away"]["ticket"].as_u64().unwrap() >= 2);
}

#[test]
fn an_inviter_who_is_not_there_is_tried_until_he_comes() {
    let (alice, bob) = (Person::new("Alice"), Person::new("Bob"));
    let ticket = alice.ticket();
    let said = bob.run(&["add", &ticket, "--name", "Al", "--timeout", "0"]);
    said.fails(4, "peerlink up");
    assert!(bob.run(&["contacts"]).out.contains("Al"), "durable all the same");
    let (_bob_up, _alice_up) = (bob.up(), alice.up());
    until("they are contacts", || alice.run(&["contacts", "--json"]).out.contains("\"contact\""));
    assert_eq!(alice.run(&["send", "Bob", "there you are"]).succeeds().out, "delivered\n");
}

#[test]
fn messages_that_cannot_be_sent() {
    let (alice, _alice_up, bob, _bob_up) = friends();
    let most = "x".repeat(64 * 1024);
    alice
        .run_with_input(&["send", "Bob", "--stdin"], format!("{most}y").as_bytes())
        .fails(2, "longer than 65536");
    alice.run(&["send", "Bob", &format!("{most}y")]).fails(2, "longer than 65536");
    alice.run_with_input(&["send", "Bob", "--stdin"], b"\xff\xfe").fails(2, "UTF-8");
    alice.run(&["send", "Bob", ""]).fails(2, "empty");
    assert_eq!(alice.history("Bob"), []);
    // The largest one arrives, and what a terminal would obey arrives unchanged.
    let escapes = "\u{1b}[2J\u{202e}evil\u{7}\ttab\r\nline";
    alice.run_with_input(&["send", "Bob", "--stdin"], format!("{most}\n").as_bytes()).succeeds();
    alice.run(&["send", "Bob", escapes]).succeeds();
    alice.run(&["send", "Bob", &"\u{1}".repeat(64 * 1024)]).succeeds();
    let texts: Vec<String> = bob.history("Alice").into_iter().map(|(_, text)| text).collect();
    assert_eq!(texts, [most, escapes.to_owned(), "\u{1}".repeat(64 * 1024)]);
    let shown = bob.run(&["history", "Alice"]).succeeds().out;
    assert!(!shown.contains(['\u{1b}', '\u{202e}', '\u{7}', '\r']), "nothing of it reaches a terminal");
    assert!(shown.contains("<U+001B>[2J<U+202E>evil<U+0007>"), "and it is not hidden either");
}

#[test]
fn profiles_that_cannot_be_used() {
    let alice = Person::new("Alice");
    let identity = alice.path.join("identity");
    std::fs::set_permissions(&identity, std::fs::Permissions::from_mode(0o644)).unwrap();
    alice.run(&["id"]).fails(8, "chmod 600");
    std::fs::set_permissions(&identity, std::fs::Permissions::from_mode(0o600)).unwrap();
    let whole = std::fs::read(&identity).unwrap();
    std::fs::write(&identity, &whole[..whole.len() / 2]).unwrap();
    alice.run(&["status"]).fails(8, "damaged");
    std::fs::remove_file(&identity).unwrap();
    alice.run(&["status"]).fails(8, "missing");
    assert!(!identity.exists(), "no other identity takes its place");
    std::fs::write(&identity, &whole).unwrap();
    std::fs::set_permissions(&identity, std::fs::Permissions::from_mode(0o600)).unwrap();
    let format = alice.path.join("store/format");
    let known = std::fs::read_to_string(&format).unwrap();
    std::fs::write(&format, known.replace(|digit: char| digit.is_ascii_digit(), "9")).unwrap();
    alice.run(&["status"]).fails(8, "format 9");
    std::fs::write(&format, "nonsense").unwrap();
    alice.run(&["contacts"]).fails(8, "damaged");
    std::fs::write(&format, known).unwrap();
    alice.run(&["status"]).succeeds();
    // A file where the directory should be.
    said(&mut command(&identity, &["id"])).fails(8, "identity");
}

/// A wrong `--profile` must not close somebody's home directory to others, nor fill it.
#[test]
fn a_directory_with_other_things_in_it_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let at = |name: &str| home.path().join(name);
    let mode = || std::fs::metadata(home.path()).unwrap().mode() & 0o7777;
    std::fs::set_permissions(home.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    for (name, text) in [("notes", "mine"), ("settings.json", "{}"), ("identity", "an old ssh key")] {
        std::fs::write(at(name), text).unwrap();
        for args in [&["id"][..], &["init", "--nickname", "Al"], &["up", "--listen", "127.0.0.1:0"]] {
            said(command(home.path(), args).stdin(Stdio::null())).fails(2, "holds other things");
        }
        assert_eq!(std::fs::read_to_string(at(name)).unwrap(), text);
        assert_eq!(std::fs::read_dir(home.path()).unwrap().count(), 1);
        assert_eq!(mode(), 0o755);
        std::fs::remove_file(at(name)).unwrap();
    }
    // What a process left that was killed while it made the profile is no obstacle, nor is nothing.
    std::fs::write(at("identity.new4711"), "PLID1 7").unwrap();
    said(&mut command(home.path(), &["id"])).succeeds();
    assert_eq!(mode(), 0o700);
}

/// Also what the engine makes later: journals, tables, what it renames.
#[test]
fn nobody_else_can_read_a_profile_that_is_in_use() {
    fn walk(path: &Path, seen: &mut usize) {
        // The engine may take a file away at any time.
        let Ok(metadata) = std::fs::symlink_metadata(path) else { return };
        let most = if metadata.is_dir() { 0o700 } else { 0o600 };
        assert_eq!(metadata.mode() & 0o7777, most, "{}", path.display());
        *seen += 1;
        for entry in std::fs::read_dir(path).into_iter().flatten() {
            walk(&entry.unwrap().path(), seen);
        }
    }
    let (alice, alice_up, bob, _bob_up) = friends();
    for n in 0..20 {
        alice.run(&["send", "Bob", &format!("{n} {}", "x".repeat(20_000))]).succeeds();
    }
    let mut seen = [0; 2];
    walk(&alice.path, &mut seen[0]);
    walk(&bob.path, &mut seen[1]);
    assert!(seen.iter().all(|seen| *seen > 8), "{seen:?}");
    assert_eq!(alice_up.end(), 0);
    alice.run(&["contacts"]).succeeds();
    walk(&alice.path, &mut seen[0]);
}

/// Root may write where others may not, but not on a file system that is mounted read-only.
#[test]
fn a_read_only_profile() {
    let alice = Person::new("Alice");
    let mount = "mount --bind \"$1\" \"$1\" && mount -o remount,bind,ro \"$1\" || exit 77\n\
                 exec \"$0\" --profile \"$1\" status";
    let mut unshared = Command::new("unshare");
    unshared.args(["--mount", "--map-root-user", "--user", "sh", "-c", mount, PROGRAM]).arg(&alice.path);
    let mut result = said(unshared.stdin(Stdio::null()));
    if result.code == 77 || result.err.contains("unshare") {
        let mut as_root = Command::new("unshare");
        as_root.args(["--mount", "sh", "-c", mount, PROGRAM]).arg(&alice.path);
        result = said(as_root.stdin(Stdio::null()));
    }
    if result.code == 77 || result.err.contains("unshare") {
        println!("SKIPPED: no mount can be made here: {}", result.err);
        return;
    }
    result.fails(8, "read-only");
    assert!(result.err.contains("writable"), "{result:?}");
}

#[test]
fn a_socket_path_that_is_too_long_is_put_elsewhere() {
    let deep = format!("{}/profile", "d".repeat(120));
    let alice = Person::at("Alice", &deep);
    let _up = alice.up();
    assert_eq!(alice.status()["running"], true);
    assert!(!alice.path.join("socket").exists());
}

#[test]
fn a_node_that_was_killed_leaves_nothing_in_the_way() {
    let alice = Person::new("Alice");
    alice.up().kill();
    let socket = alice.path.join("socket");
    assert!(socket.exists(), "SIGKILL leaves the socket");
    assert_eq!(alice.status()["running"], false);
    let up = alice.up();
    assert_eq!(std::fs::metadata(&socket).unwrap().mode() & 0o777, 0o600);
    assert_eq!(alice.status()["running"], true);
    assert_eq!(up.end(), 0);
    assert!(!socket.exists(), "an orderly end does not");
}

#[test]
fn a_profile_held_by_what_cannot_serve() {
    let alice = Person::new("Alice");
    let up = alice.up();
    up.signal(rustix::process::Signal::STOP);
    alice.run(&["contacts"]).fails(7, "end it");
    up.signal(rustix::process::Signal::CONT);
    until("it goes on", || alice.run(&["contacts"]).code == 0);
    drop(up);
    // Something else has the lock, and no socket.
    let lock = std::fs::OpenOptions::new().write(true).open(alice.path.join("store/lock")).unwrap();
    lock.lock().unwrap();
    alice.run(&["contacts"]).fails(7, "in use");
    lock.unlock().unwrap();
    alice.run(&["contacts"]).succeeds();
}

#[test]
fn a_port_that_is_taken_stops_only_who_must_be_reached() {
    let alice = Person::new("Alice");
    let _other = std::net::TcpListener::bind(("127.0.0.1", alice.port)).unwrap();
    assert!(alice.run(&["contacts"]).succeeds().err.contains("taken by another program"));
    alice.run(&["up"]).fails(1, "--listen");
}

fn ask(socket: &Path, line: &[u8]) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    // It may close before it has read everything.
    let _closed = stream.write_all(line);
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).unwrap();
    answer
}

#[test]
fn a_stable_interface_that_says_what_it_does_not_understand() {
    let alice = Person::new("Alice");
    let _up = alice.up();
    let socket = alice.path.join("socket");
    let ok = ask(&socket, b"{\"v\":1,\"id\":7,\"do\":\"id\"}\n");
    assert!(ok.starts_with("{") && ok.contains("\"id\":7") && ok.contains("\"ok\""), "{ok}");
    let newer = ask(&socket, b"{\"v\":2,\"id\":8,\"do\":\"id\"}\n");
    assert!(newer.contains("protocol version 2 is unknown") && newer.contains("\"id\":8"), "{newer}");
    assert!(ask(&socket, b"{\"v\":1,\"id\":9,\"do\":\"fly\"}\n").contains("fly"));
    assert!(ask(&socket, b"not json\n").contains("not a JSON object"));
    assert!(ask(&socket, b"\xff\xfe\n").contains("UTF-8"));
    assert!(ask(&socket, &vec![b'x'; 600 * 1024]).contains("at most"));
    // More front ends than there is room for: told so, and the room is free again when they go.
    let many: Vec<UnixStream> = (0..32).map(|_| UnixStream::connect(&socket).unwrap()).collect();
    until("it is full", || ask(&socket, b"{\"v\":1,\"id\":1,\"do\":\"id\"}\n").contains("front ends"));
    drop(many);
    until("there is room", || alice.run(&["contacts"]).code == 0);
}

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn garbage_slow_and_endless_bytes_on_the_port() {
    let (alice, alice_up, _bob, _bob_up) = friends();
    let counted = || {
        let away = alice.status()["turned_away"].clone();
        away.as_object().unwrap().values().map(|count| count.as_u64().unwrap()).sum::<u64>()
    };
    alice.run(&["send", "Bob", "before"]).succeeds();
    let before = resident(alice_up.id());
    let mut open = Vec::new();
    for n in 0..200 {
        let mut stream = TcpStream::connect(("127.0.0.1", alice.port)).unwrap();
        match n % 3 {
            0 => drop(stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")),
            1 => drop(stream.write_all(&[0xff; 4096])),
            // Says nothing, and stays.
            _ => open.push(stream),
        }
    }
    let mut endless = TcpStream::connect(("127.0.0.1", alice.port)).unwrap();
    while endless.write_all(&[0; 64 * 1024]).is_ok() {}
    until("all of it is counted", || counted() >= 200);
    let after = resident(alice_up.id());
    assert!(after < before + 8 * 1024, "{before} KiB, then {after} KiB");
    // The slow ones are closed, not kept.
    for mut stream in open {
        let mut byte = [0];
        assert!(matches!(stream.read(&mut byte), Ok(0) | Err(_)));
    }
    assert_eq!(alice.run(&["send", "Bob", "after"]).succeeds().out, "delivered\n");
}
