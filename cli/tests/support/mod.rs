//! Profiles and processes of the real program, for tests.

#![allow(dead_code, reason = "each test binary uses its part")]

use serde_json::Value;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_peerlink");

/// What a command said and how it ended.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    pub(crate) fn json(&self) -> Vec<Value> {
        let values: Vec<Value> = self.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert!(values.iter().all(|value| value["v"] == 1), "{values:?}");
        values
    }

    /// Ended with this code, and its error names `word`, in one line and without the words of a crash.
    #[track_caller]
    pub(crate) fn fails(&self, code: i32, word: &str) {
        assert_eq!(self.code, code, "{self:?}");
        assert!(self.err.contains(word), "{word:?} in {self:?}");
        assert!(!self.err.contains("panicked"), "{self:?}");
        let errors = self.err.lines().filter(|line| line.starts_with("peerlink: ")).count();
        assert_eq!(errors, 1, "{self:?}");
    }

    #[track_caller]
    pub(crate) fn succeeds(self) -> Self {
        assert_eq!(self.code, 0, "{self:?}");
        self
    }
}

/// One person's profile, on a loopback port of its own.
pub(crate) struct Person {
    dir: TempDir,
    pub(crate) path: PathBuf,
    pub(crate) port: u16,
}

impl Person {
    pub(crate) fn new(nickname: &str) -> Self {
        Self::at(nickname, "profile")
    }

    pub(crate) fn at(nickname: &str, below: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(below);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let person = Self { dir, path, port };
        let listen = format!("127.0.0.1:{port}");
        person.run(&["init", "--nickname", nickname, "--listen", &listen]).succeeds();
        person
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        command(&self.path, args)
    }

    pub(crate) fn run(&self, args: &[&str]) -> Said {
        said(self.command(args).stdin(Stdio::null()))
    }

    pub(crate) fn run_with_input(&self, args: &[&str], input: &[u8]) -> Said {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // A program that does not want all of it closes the pipe.
        let _closed = child.stdin.take().unwrap().write_all(input);
        finish(child)
    }

    /// `up`, running when this returns.
    pub(crate) fn up(&self) -> Running {
        self.start(&["up", "--json"], |line| line["kind"] == "up")
    }

    /// Starts a command that goes on, and waits for the line that says it runs.
    pub(crate) fn start(&self, args: &[&str], runs: impl Fn(&Value) -> bool) -> Running {
        let mut child = self
            .command(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let (input, out) = (child.stdin.take(), BufReader::new(child.stdout.take().unwrap()));
        let mut running = Running { child, input, out };
        running.next_where(runs);
        running
    }

    pub(crate) fn ticket(&self) -> String {
        let said = self.run(&["invite", "--json"]).succeeds();
        said.json()[0]["ticket"].as_str().unwrap().to_owned()
    }

    /// What was said with a contact, as both sides see it: who wrote it does not matter, what and in which order does.
    pub(crate) fn history(&self, contact: &str) -> Vec<(String, String)> {
        let said = self.run(&["history", contact, "--last", "10000", "--json"]).succeeds();
        let field = |value: &Value, name: &str| value[name].as_str().unwrap().to_owned();
        said.json().iter().map(|value| (field(value, "message"), field(value, "text"))).collect()
    }

    pub(crate) fn status(&self) -> Value {
        self.run(&["status", "--json"]).succeeds().json().remove(0)
    }
}

pub(crate) fn command(profile: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg("--profile").arg(profile).args(args);
    command
}

pub(crate) fn said(command: &mut Command) -> Said {
    finish(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
}

fn finish(child: Child) -> Said {
    let output = child.wait_with_output().unwrap();
    Said {
        code: output.status.code().unwrap_or(-1),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// A process that goes on; killed when dropped.
pub(crate) struct Running {
    child: Child,
    pub(crate) input: Option<ChildStdin>,
    out: BufReader<ChildStdout>,
}

impl Running {
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The first line of NDJSON from here on that `wanted` takes.
    #[track_caller]
    pub(crate) fn next_where(&mut self, wanted: impl Fn(&Value) -> bool) -> Value {
        loop {
            let mut line = String::new();
            assert_ne!(self.out.read_line(&mut line).unwrap(), 0, "it ended");
            let value: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(value["v"], 1, "{line}");
            if wanted(&value) {
                return value;
            }
        }
    }

    pub(crate) fn write(&mut self, line: &str) {
        writeln!(self.input.as_mut().unwrap(), "{line}").unwrap();
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.id().try_into().unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn end(mut self) -> i32 {
        drop(self.input.take());
        self.signal(rustix::process::Signal::TERM);
        self.child.wait().unwrap().code().unwrap_or(-1)
    }

    /// Waits for the process to end by itself.
    pub(crate) fn wait(mut self) -> i32 {
        drop(self.input.take());
        self.child.wait().unwrap().code().unwrap_or(-1)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended_already = self.child.kill();
        let _ended_already = self.child.wait();
    }
}

#[track_caller]
pub(crate) fn until(what: &str, mut done: impl FnMut() -> bool) {
    // A failsafe, not a measurement.
    for _ in 0..1200 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    panic!("never: {what}");
}

/// Alice and Bob, contacts, both running.
pub(crate) fn friends() -> (Person, Running, Person, Running) {
    let (alice, bob) = (Person::new("Alice"), Person::new("Bob"));
    let (alice_up, bob_up) = (alice.up(), bob.up());
    bob.run(&["add", &alice.ticket()]).succeeds();
    (alice, alice_up, bob, bob_up)
}
