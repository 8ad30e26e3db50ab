//! Runs a test in a process of its own, for limits and measures that belong to a process.

use std::process::Command;

const VARIABLE: &str = "PEERLINK_TEST_CHILD";

/// Runs `body` in a child: the test binary, asked for this one test.
///
/// # Panics
/// If the child fails.
pub fn in_child(test: &str, body: impl FnOnce()) {
    if std::env::var(VARIABLE).is_ok_and(|name| name == test) {
        return body();
    }
    let binary = std::env::current_exe().expect("the test knows its own binary");
    let done = Command::new(binary)
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(VARIABLE, test)
        .output()
        .expect("the test binary runs");
    let told = String::from_utf8_lossy(&done.stdout);
    let failed = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success() && told.contains("1 passed"), "{test} in a child:\n{told}\n{failed}");
}

/// Resident memory of this process, in KiB.
///
/// # Panics
/// Where there is no `/proc`.
#[must_use]
pub fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is there");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("VmRSS is there");
    line.split_whitespace().nth(1).and_then(|number| number.parse().ok()).expect("VmRSS is a number")
}
