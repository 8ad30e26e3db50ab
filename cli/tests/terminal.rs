//! What a person sees: the screen of a real pseudo-terminal, drawn by a terminal emulator.

mod support;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::num::NonZero;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use support::{Person, friends, until};

const ROWS: u16 = 24;
const COLUMNS: u16 = 80;

fn cells(count: u16) -> NonZero<u16> {
    NonZero::new(count).unwrap()
}

/// A program on a terminal.
struct Terminal {
    child: Child,
    master: File,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    fn start(mut command: Command) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap().into_string().unwrap();
        let slave = File::options().read(true).write(true).open(name).unwrap();
        let size = Winsize { ws_row: ROWS, ws_col: COLUMNS, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&slave, size).unwrap();
        command.env("TERM", "xterm").env("TZ", "UTC");
        let end = || Stdio::from(slave.try_clone().unwrap());
        let child = command.stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        let master = File::from(master);
        let screen = Arc::new(Mutex::new(vt100::Parser::new(cells(ROWS), cells(COLUMNS), 0)));
        let (mut reader, drawn) = (master.try_clone().unwrap(), screen.clone());
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            // The last one to close the other end makes it an error.
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                drawn.lock().unwrap().process(&bytes[..count]);
            }
        });
        Self { child, master, screen }
    }

    fn text(&self) -> String {
        self.screen.lock().unwrap().screen().contents()
    }

    #[track_caller]
    fn shows(&self, what: &str) {
        for _ in 0..600 {
            if self.text().contains(what) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        panic!("{what:?} is not on the screen:\n{}", self.text());
    }

    /// The line on which the cursor stands.
    fn current_line(&self) -> String {
        let parser = self.screen.lock().unwrap();
        let (row, _) = parser.screen().cursor_position();
        parser.screen().rows(0, COLUMNS).nth(row.into()).unwrap()
    }

    fn keys(&mut self, keys: &str) {
        self.master.write_all(keys.as_bytes()).unwrap();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _ended_already = self.child.wait();
    }
}

/// Clears the screen, sets a title, writes right to left, moves up, rings, and fakes a line of its own.
const EVIL: &str = "\u{1b}[2J\u{1b}]0;pwned\u{7}\u{202e}abc\u{9b}5A\u{8}\u{8}\rAlice: faked\nBob: faked too";

#[track_caller]
fn harmless(terminal: &Terminal) {
    terminal.shows("<U+001B>[2J<U+001B>]0;pwned<U+0007><U+202E>abc<U+009B>5A");
    terminal.shows("\n    Bob: faked too");
    terminal.shows("marker before");
    let parser = terminal.screen.lock().unwrap();
    let shown = parser.screen().contents();
    assert!(
        !shown.lines().any(|line| line.starts_with("Bob: faked") || line.starts_with("Alice: faked")),
        "{shown}"
    );
}

#[test]
fn what_a_peer_writes_is_shown_and_not_obeyed() {
    let (alice, _alice_up, bob, _bob_up) = friends();
    alice.run(&["send", "Bob", "marker before"]).succeeds();
    alice.run(&["send", "Bob", EVIL]).succeeds();
    let history = Terminal::start(bob.command(&["history", "Alice"]));
    harmless(&history);
    let listen = Terminal::start(bob.command(&["listen", "--after", "0"]));
    harmless(&listen);
    let chat = Terminal::start(bob.command(&["chat", "Alice"]));
    harmless(&chat);
}

#[test]
fn what_comes_in_does_not_touch_the_line_being_typed() {
    let (alice, _alice_up, bob, _bob_up) = friends();
    let mut chat = Terminal::start(bob.command(&["chat", "Alice"]));
    chat.shows("you: ");
    chat.keys("half a thou");
    chat.shows("you: half a thou");
    alice.run(&["send", "Bob", "in between"]).succeeds();
    chat.shows("Alice: in between");
    until("the line stands again", || chat.current_line().trim_end() == "you: half a thou");
    // Longer than the screen is wide, and another in the middle of it.
    chat.keys("ght that goes on and on until it needs more than one row of this terminal, ä wide one: 日本");
    chat.shows("日本");
    alice.run(&["send", "Bob", "and again"]).succeeds();
    chat.shows("Alice: and again");
    chat.shows("half a thought that goes on");
    assert_eq!(chat.text().matches("half a thou").count(), 1, "{}", chat.text());
    chat.keys("\r");
    chat.shows("[delivered]");
    let (_, text) = alice.history("Bob").pop().unwrap();
    assert!(text.starts_with("half a thought") && text.ends_with("日本"), "{text}");
    chat.keys("\u{4}");
    until("it ends", || chat.child.try_wait().unwrap().is_some());
    assert!(chat.child.wait().unwrap().success());
}

#[test]
fn a_message_to_who_is_away_is_queued_and_then_delivered() {
    let (alice, alice_up, bob, _bob_up) = friends();
    drop(alice_up);
    let mut chat = Terminal::start(bob.command(&["chat", "Alice"]));
    chat.shows("you: ");
    chat.keys("are you there?\r");
    chat.shows("[queued]");
    let _alice_up = alice.up();
    chat.shows("[delivered] are you there?");
    // A signal leaves the terminal as it was.
    let pid = rustix::process::Pid::from_child(&chat.child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    until("it ends", || chat.child.try_wait().unwrap().is_some());
    let modes = rustix::termios::tcgetattr(&chat.master).unwrap().local_modes;
    assert!(modes.contains(rustix::termios::LocalModes::ECHO | rustix::termios::LocalModes::ICANON));
}

#[test]
fn a_name_cannot_steer_the_terminal_either() {
    let alice = Person::new("Alice");
    let said = alice.run(&["history", "\u{1b}[2Jbob"]);
    said.fails(3, "U+001B");
    assert!(!said.err.contains('\u{1b}'));
}
