//! Two nodes in two processes, on loopback and on disks, and what their conversation costs.

use crate::machine;
use crate::measure::{Mark, Report, Samples, pin};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

/// A child that runs [`crate::node`].
pub(crate) struct Node {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// From its own beginning until it was ready, in microseconds.
    pub(crate) ready_us: u64,
}

impl Node {
    pub(crate) fn start(dir: &str, seed: u8, salt: u8) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut child = Command::new(program)
            .args(["--node", dir, &seed.to_string(), &salt.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let mut node = Self { child, input, output, ready_us: 0 };
        let ready = node.hear();
        node.ready_us = ready.strip_prefix("ready ").and_then(|us| us.parse().ok()).expect("it is ready");
        node
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        assert_ne!(self.output.read_line(&mut line).expect("text"), 0, "the node ended");
        line.trim().to_owned()
    }

    pub(crate) fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("it runs");
    }

    pub(crate) fn ask(&mut self, line: &str) -> String {
        self.say(line);
        self.hear()
    }

    pub(crate) fn numbers(&mut self, line: &str) -> Vec<u64> {
        self.ask(line).split(' ').map(|number| number.parse().expect("a number")).collect()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn stop(mut self) {
        assert_eq!(self.ask("stop"), "stopped");
        self.child.wait().expect("ours");
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().expect("ours");
        self.child.wait().expect("ours");
    }
}

/// Contacts with a session; `-` as directory is no disk.
pub(crate) fn met(dirs: [&str; 2]) -> [Node; 2] {
    let (mut alice, mut bob) = (Node::start(dirs[0], 1, 1), Node::start(dirs[1], 2, 1));
    let ticket = alice.ask("ticket");
    assert_eq!(bob.ask(&format!("add {ticket}")), "connected");
    assert_eq!(alice.ask("connected"), "connected");
    [alice, bob]
}

/// Counts system calls of a process while it lives, if the machine lets us.
struct Counter(Option<Child>);

impl Counter {
    fn start(pid: u32) -> Self {
        let events = "raw_syscalls:sys_enter,syscalls:sys_enter_fsync,syscalls:sys_enter_fdatasync";
        let child = Command::new("perf")
            .args(["stat", "-x", ",", "-e", events, "-p", &pid.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        // It says nothing when it has begun.
        std::thread::sleep(std::time::Duration::from_millis(300));
        Self(child.ok())
    }

    /// All calls, and those that sync.
    fn end(self) -> Option<(f64, f64)> {
        let mut child = self.0?;
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).ok()?)?;
        rustix::process::kill_process(pid, rustix::process::Signal::INT).ok()?;
        let mut text = String::new();
        child.stderr.take()?.read_to_string(&mut text).ok()?;
        child.wait().ok()?;
        let count = |name: &str| {
            let lines = text.lines().filter(|line| line.contains(name));
            lines.filter_map(|line| line.split(',').next()?.parse::<f64>().ok()).reduce(|a, b| a + b)
        };
        Some((count("sys_enter,").or_else(|| count("raw_syscalls"))?, count("sync")?))
    }
}

pub(crate) fn durable(report: &Report, dir: &Path, r: &Samples, f: Option<&Samples>) {
    report.section("Durable acknowledged delivery, two processes, loopback, messages of 100 B");
    let dirs = ["alice", "bob"].map(|name| dir.join(name).to_string_lossy().into_owned());
    pin(Some(0));
    let [mut alice, mut bob] = met([&dirs[0], &dirs[1]]);
    let (samples, acknowledged) = singles(&mut alice, 3000);
    let commits = [alice.numbers("commits 6000"), bob.numbers("commits 3000")].map(Samples);
    alice.stop();
    bob.stop();
    pin(None);
    report.line("one at a time, p50 (one core)", samples.median(), "us", Mark::None);
    report.line("one at a time, p99 (one core)", samples.percentile(99), "us", Mark::None);
    let text = "until the acknowledgement is there, and its proof not yet stored, p50";
    report.line(text, acknowledged.median(), "us", Mark::None);
    for (commits, text) in commits.iter().zip(["author (two a message)", "recipient (one)"]) {
        report.line(&format!("a commit of the {text}, p50"), commits.median(), "us", Mark::None);
        report.line("p99", commits.percentile(99), "us", Mark::None);
    }
    if let Some(f) = f {
        // The disk is shared with whoever: F before and after.
        let mut f = f.clone();
        f.0.extend(machine::syncs(dir, f.0.len(), Duration::ZERO).map(|f| f.0).unwrap_or_default());
        // What the machine needs for each: there and back, and one sync on either side.
        let pairs = r.0.iter().zip(f.0.chunks_exact(2));
        let sums = Samples(pairs.map(|(r, f)| r + f.iter().sum::<u64>()).collect());
        let floor = r.median() + 2.0 * f.median();
        report.line("R + 2F, p50", floor, "us", Mark::None);
        report.line("R + 2F, p99", sums.percentile(99), "us", Mark::None);
        report.line("ratio of p50 to R + 2F", samples.median() / floor, "", Mark::AtMost(1.5));
        let text = "the same, until the acknowledgement is there";
        report.line(text, acknowledged.median() / floor, "", Mark::None);
        let tail = samples.percentile(99) / sums.percentile(99);
        report.line("ratio of p99 to that of R + 2F", tail, "", Mark::AtMost(3.0));
    }
    for window in [64, 1024] {
        let dirs = ["a", "b"].map(|name| dir.join(format!("{name}{window}")).to_string_lossy().into_owned());
        in_flight(report, [&dirs[0], &dirs[1]], window);
    }
}

/// How long messages took, one at a time: until each was proven, and until it was acknowledged.
fn singles(alice: &mut Node, count: u64) -> (Samples, Samples) {
    let numbers = alice.numbers(&format!("single {count}"));
    let (pairs, _) = numbers.as_chunks::<2>();
    (
        Samples(pairs.iter().map(|[proven, _]| *proven).collect()),
        Samples(pairs.iter().map(|[_, acknowledged]| *acknowledged).collect()),
    )
}

fn in_flight(report: &Report, dirs: [&str; 2], window: u64) {
    let [mut alice, mut bob] = met(dirs);
    alice.numbers(&format!("flood 20000 {window}"));
    let count = 100_000;
    let before = bob.numbers("stats")[2];
    let flood = alice.numbers(&format!("flood {count} {window}"));
    let bobs_cpu = bob.numbers("stats")[2] - before;
    let rate = count as f64 / (flood[0] as f64 / 1e6);
    let mark = if window == 1024 { Mark::AtLeast(45_000.0) } else { Mark::None };
    report.line(&format!("{window} in flight (all cores)"), rate, "msg/s", mark);
    let cpu = (flood[1] + bobs_cpu) as f64 / count as f64;
    report.line(
        &format!("{window} in flight, processor time of both sides a message"),
        cpu,
        "us",
        Mark::None,
    );
    // Counting costs something, so it is another flood that is counted.
    let counters = [Counter::start(alice.pid()), Counter::start(bob.pid())];
    let count = 30_000;
    alice.numbers(&format!("flood {count} {window}"));
    for (counter, side) in counters.into_iter().zip(["author", "recipient"]) {
        let Some((calls, syncs)) = counter.end() else {
            report.note(&format!(
                "{window} in flight, {side}: system calls not counted (no perf, or not permitted)"
            ));
            continue;
        };
        let each = |number: f64| number / f64::from(count);
        let (few, fewer) = if window == 1024 {
            (Mark::AtMost(0.2), Mark::AtMost(1.0 / 32.0))
        } else {
            (Mark::None, Mark::None)
        };
        report.line(&format!("{window} in flight, {side}: system calls a message"), each(calls), "", few);
        report.line(&format!("{window} in flight, {side}: fsyncs a message"), each(syncs), "", fewer);
    }
    alice.stop();
    bob.stop();
}

/// Wall time from the dial to the first acknowledged message, with disks and processes.
pub(crate) fn connect(report: &Report, dir: &Path) {
    let dirs = ["called", "caller"].map(|name| dir.join(name).to_string_lossy().into_owned());
    let [alice, mut bob] = met([&dirs[0], &dirs[1]]);
    let times = (10..40).map(|salt| 1000 * bob.numbers(&format!("again {salt}"))[0]);
    let times = Samples(times.collect());
    let text = "wall time in processes, from a node that is ready to its first stored proof";
    report.line(text, times.median() / 1000.0, "ms", Mark::None);
    alice.stop();
    bob.stop();
}

/// The same without a disk.
pub(crate) fn echo_by_driver(report: &Report, r: &Samples) {
    pin(Some(0));
    let [mut alice, bob] = met(["-", "-"]);
    let (samples, _) = singles(&mut alice, 10_000);
    report.line(
        "through the driver and a store that is none, p50 / R",
        samples.median() / r.median(),
        "",
        Mark::None,
    );
    pin(None);
    let flood = alice.numbers("flood 200000 1024");
    let rate = 200_000.0 / (flood[0] as f64 / 1e6);
    report.line("the same, 1,024 in flight (all cores)", rate, "msg/s", Mark::None);
    alice.stop();
    bob.stop();
}
