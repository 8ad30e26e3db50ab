//! PeerLink's figures beside the limits of the machine they were measured on, in one run: `cargo bench -p
//! peerlink-tests --bench limits`, with words behind `--` for some of it (`machine`, `durable`, `echo`, `core`,
//! `connect`, `idle`, `history`, `program`, `simulator`).
//!
//! What compares runs on one core. A figure that misses its mark is said to, and nothing is left out.

#![forbid(unsafe_code)]

mod core;
mod history;
mod idle;
mod local;
mod machine;
mod measure;
mod node;
mod pair;
mod program;

use measure::{Mark, Report, Samples};
use std::path::Path;
use std::time::Duration;

type Section<'a> = &'a dyn Fn(&Report, &Path);

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| arg != "--bench").collect();
    if args.first().is_some_and(|arg| arg == "--node") {
        return node::run(&args[1..]);
    }
    let wanted = |name: &str| args.is_empty() || args.iter().any(|arg| arg == name);
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("room");
    let (dir, report) = (dir.path(), Report::default());
    let (mut r, mut f) = (Samples::default(), None);
    if ["machine", "durable", "echo"].iter().any(|name| wanted(name)) {
        report.section("The machine");
        r = machine::round_trips(20_000);
        report.line(
            "R: 100 B there and back over TCP on loopback, one core, p50",
            r.median(),
            "us",
            Mark::None,
        );
        f = machine::syncs(dir, 4000, Duration::ZERO);
        match &f {
            Some(f) => {
                report.line(
                    "F: fdatasync of 100 B in a preallocated file, p50",
                    f.median(),
                    "us",
                    Mark::None,
                );
                report.line("F, p99", f.percentile(99), "us", Mark::None);
                if let Some(paused) = machine::syncs(dir, 2000, Duration::from_micros(200)) {
                    let text = "the same with pauses of 0.2 ms, as between two commits, p50";
                    report.line(text, paused.median(), "us", Mark::None);
                    report.line("p99", paused.percentile(99), "us", Mark::None);
                }
            }
            None => report.note("F: not measured, this is a tmpfs: nothing here is durable"),
        }
    }
    let sections: [(&str, Section<'_>); 8] = [
        ("durable", &|report, dir| pair::durable(report, dir, &r, f.as_ref())),
        ("echo", &|report, _| {
            core::echo(report, &r);
            pair::echo_by_driver(report, &r);
        }),
        ("core", &|report, _| core::throughput(report)),
        ("connect", &|report, dir| {
            core::connect(report);
            pair::connect(report, dir);
        }),
        ("idle", &idle::measure),
        ("history", &history::measure),
        ("program", &program::measure),
        ("simulator", &|report, _| program::simulator(report)),
    ];
    for (name, section) in sections {
        if wanted(name) {
            section(&report, dir);
        }
    }
    report.end();
}
