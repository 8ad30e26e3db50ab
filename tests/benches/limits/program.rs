//! The program itself: how large it is, how soon it listens; and the simulator that proves it.

use crate::measure::{Mark, Report, Samples, cpu_ns, now_ns, pin};
use peerlink_sim::Scenario;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The release program of these sources.
fn built() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a workspace");
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("a target directory");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut build = Command::new(cargo);
    build.args(["build", "--quiet", "--release", "--locked", "-p", "peerlink", "--target-dir"]).arg(target);
    assert!(build.current_dir(root).status().expect("cargo").success());
    target.join("release/peerlink")
}

/// From the call until it says that it listens, in nanoseconds.
fn up(program: &Path, profile: &Path) -> u64 {
    let from = now_ns();
    let mut child = Command::new(program)
        .arg("--profile")
        .arg(profile)
        .args(["up", "--json", "--listen", "127.0.0.1:0"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("a program");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("text");
    let took = now_ns() - from;
    assert!(line.contains("\"up\""), "{line}");
    let pid = i32::try_from(child.id()).ok().and_then(rustix::process::Pid::from_raw).expect("a process");
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("it lives");
    child.wait().expect("ours");
    took
}

pub(crate) fn measure(report: &Report, dir: &Path) {
    report.section("The program");
    let program = built();
    let size = std::fs::metadata(&program).expect("built").len() as f64 / 1e6;
    report.line("stripped release binary", size, "MB", Mark::AtMost(6.0));
    let profile = dir.join("profile");
    report.line("spawn to listening, first run", up(&program, &profile) as f64 / 1e6, "ms", Mark::None);
    let again = Samples((0..20).map(|_| up(&program, &profile)).collect());
    report.line("spawn to listening, small profile", again.median() / 1000.0, "ms", Mark::AtMost(5.0));
}

pub(crate) fn simulator(report: &Report) {
    report.section("The simulator, one core, the real core");
    pin(Some(0));
    let from = cpu_ns();
    let sums = peerlink_sim::run::many(0, 300, 1, |seed| Scenario::among(2, seed), |_| {});
    let seconds = (cpu_ns() - from) as f64 / 1e9;
    assert!(sums.failure.is_none(), "a seed failed");
    report.line("events", sums.events as f64 / seconds, "/s", Mark::None);
    report.line("seeds", sums.worlds as f64 / seconds, "/s", Mark::None);
    pin(None);
}
