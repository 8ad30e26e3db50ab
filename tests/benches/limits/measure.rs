//! Clocks, percentiles, and one line of the report for each figure.

use rustix::time::{ClockId, clock_gettime};
use std::cell::RefCell;
use std::fmt::Write as _;

/// Nanoseconds on a clock that nothing sets.
pub(crate) fn now_ns() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Processor time of this process, all threads, in nanoseconds.
pub(crate) fn cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    u64::try_from(time.tv_sec).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec).unwrap_or(0)
}

/// Samples in nanoseconds.
#[derive(Debug, Default, Clone)]
pub(crate) struct Samples(pub(crate) Vec<u64>);

impl Samples {
    /// In microseconds.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_unstable();
        let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
        sorted.get(at).copied().unwrap_or(0) as f64 / 1000.0
    }

    pub(crate) fn median(&self) -> f64 {
        self.percentile(50)
    }
}

/// What a figure must be.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Mark {
    AtMost(f64),
    AtLeast(f64),
    /// Shown, not judged.
    None,
}

/// The report: printed while it grows.
#[derive(Debug, Default)]
pub(crate) struct Report {
    missed: RefCell<Vec<String>>,
}

impl Report {
    pub(crate) fn section(&self, name: &str) {
        println!("\n{name}");
    }

    pub(crate) fn line(&self, name: &str, value: f64, unit: &str, mark: Mark) {
        let mut text = format!("  {name:<66} {:>12} {unit:<8}", number(value));
        let (kept, sign, limit) = match mark {
            Mark::None => (true, "", 0.0),
            Mark::AtMost(limit) => (value <= limit, "<=", limit),
            Mark::AtLeast(limit) => (value >= limit, ">=", limit),
        };
        if !sign.is_empty() {
            let verdict = if kept { "kept" } else { "MISSED" };
            let _ = write!(text, " {sign} {:<9} {verdict}", number(limit));
        }
        println!("{}", text.trim_end());
        if !kept {
            self.missed.borrow_mut().push(format!("{name}: {} {unit}", number(value)));
        }
    }

    pub(crate) fn note(&self, text: &str) {
        println!("  {text}");
    }

    pub(crate) fn end(&self) {
        let missed = self.missed.borrow();
        println!("\n{} missed", missed.len());
        for line in missed.iter() {
            println!("  {line}");
        }
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        0.0 => "0".into(),
        small if small < 0.1 => format!("{value:.4}"),
        small if small < 10.0 => format!("{value:.2}"),
        middle if middle < 1000.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

/// Takes whatever runs from now on, children too, to one core; `None` to all that there are.
pub(crate) fn pin(core: Option<usize>) {
    let mut set = rustix::thread::CpuSet::new();
    let all = std::thread::available_parallelism().map_or(1, usize::from).max(cores());
    (0..all).filter(|at| core.is_none_or(|core| core == *at)).for_each(|at| set.set(at));
    let _not_permitted = rustix::thread::sched_setaffinity(None, &set);
}

/// Cores of the machine, whatever this process is confined to.
fn cores() -> usize {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    online
        .trim()
        .rsplit(['-', ','])
        .next()
        .and_then(|last| last.parse::<usize>().ok())
        .map_or(1, |last| last + 1)
}
