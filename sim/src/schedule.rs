//! A scenario as a file: what a failing seed is turned into, so that it can be read, shrunk, kept and replayed long
//! after seeds mean something else.
//!
//! ```text
//! peerlink-sim 1
//! # anything
//! seed 46
//! messages 17
//! latency 20000
//! 12.044000 crash host=bob outputs=3 writing=no power=yes kept=0 down=1000000
//! ```
//!
//! What is as in [`Scenario::calm`] is left out. A line that begins with a number is something that happens, at that
//! second. Times in fields are microseconds.

use crate::homes::Home;
use crate::limits::{HOSTS, RELAYS};
use crate::op::{Fields, Op, Word};
use crate::scenario::Scenario;
use std::fmt::Write as _;

/// The first line: what it is, and the version of it.
const HEAD: &str = "peerlink-sim 1";

/// Something that stands behind its name on a line.
trait Setting {
    fn get(&self) -> String;
    /// `false`: that is no value of it.
    fn set(&mut self, word: &str) -> bool;
}

macro_rules! settings {
    ($($kind:ty),*) => {
        $(impl Setting for $kind {
            fn get(&self) -> String {
                self.to_string()
            }

            fn set(&mut self, word: &str) -> bool {
                word.parse().map(|value| *self = value).is_ok()
            }
        })*
    };
}
settings!(u64, u32, usize);

impl Setting for bool {
    fn get(&self) -> String {
        self.say()
    }

    fn set(&mut self, word: &str) -> bool {
        Self::hear(word).map(|value| *self = value).is_some()
    }
}

/// What each host is behind.
impl Setting for [Home; HOSTS] {
    fn get(&self) -> String {
        self.map(Home::word).join(",")
    }

    fn set(&mut self, word: &str) -> bool {
        let homes: Option<Vec<Home>> = word.split(',').map(Home::read).collect();
        homes.and_then(|homes| homes.try_into().ok()).map(|homes| *self = homes).is_some()
    }
}

/// One number for each host.
impl Setting for [i64; HOSTS] {
    fn get(&self) -> String {
        self.map(|number| number.to_string()).join(",")
    }

    fn set(&mut self, word: &str) -> bool {
        let numbers: Result<Vec<i64>, _> = word.split(',').map(str::parse).collect();
        numbers.ok().and_then(|numbers| numbers.try_into().ok()).map(|numbers| *self = numbers).is_some()
    }
}

#[cfg(peerlink_planted)]
impl Setting for Option<peerlink_core::planted::Planted> {
    fn get(&self) -> String {
        let named = peerlink_core::planted::Planted::ALL.iter().find(|(_, bug)| Some(*bug) == *self);
        named.map_or("none", |(name, _)| name).to_owned()
    }

    fn set(&mut self, word: &str) -> bool {
        *self = peerlink_core::planted::Planted::by_name(word);
        self.is_some()
    }
}

/// Everything of a scenario but its script.
fn settings(scenario: &mut Scenario) -> Vec<(&'static str, &mut dyn Setting)> {
    let Scenario {
        seed,
        hosts,
        climate,
        messages,
        long,
        flood,
        repeat,
        expire,
        lively,
        looking,
        datagrams,
        streams,
        homes,
        lives,
        meets,
        relays,
        healed,
        ..
    } = scenario;
    let mut all: Vec<(&'static str, &mut dyn Setting)> = vec![
        ("seed", seed),
        ("hosts", hosts),
        ("messages", messages),
        ("long", long),
        ("flood", flood),
        ("repeat", repeat),
        ("expire", expire),
        ("lively", lively),
        ("looking", looking),
        ("datagrams", datagrams),
        ("streams", streams),
        ("homes", homes),
        ("lives", lives),
        ("meets", meets),
        ("relays", relays),
        ("healed", healed),
        ("latency", &mut climate.latency),
        ("jitter", &mut climate.jitter),
        ("window", &mut climate.window),
        ("segment", &mut climate.segment),
        ("read", &mut climate.read),
        ("commit", &mut climate.commit),
        ("lateness", &mut climate.lateness),
        ("defer", &mut climate.defer),
        ("loss", &mut climate.loss),
        ("doubled", &mut climate.doubled),
        ("hops", &mut climate.hops),
        ("mtu", &mut climate.mtu),
        ("wall-skew-ms", &mut climate.wall_skew_ms),
        ("drift-ppm", &mut climate.drift_ppm),
    ];
    #[cfg(peerlink_planted)]
    all.push(("planted", &mut scenario.planted));
    all.shrink_to_fit();
    all
}

/// The file of a scenario; each line of `remark` goes before it.
#[must_use]
pub fn write(scenario: &Scenario, remark: &str) -> String {
    let mut out = format!("{HEAD}\n");
    let mut say = |line: std::fmt::Arguments<'_>| {
        let _infallible = writeln!(out, "{line}");
    };
    remark.lines().for_each(|line| say(format_args!("# {line}")));
    let (mut scenario, mut calm) = (scenario.clone(), Scenario::calm(scenario.seed));
    for ((name, value), (_, usual)) in settings(&mut scenario).iter().zip(settings(&mut calm)) {
        if *name == "seed" || value.get() != usual.get() {
            say(format_args!("{name} {}", value.get()));
        }
    }
    for (at, op) in &scenario.script {
        say(format_args!("{}.{:06} {op}", at / 1_000_000, at % 1_000_000));
    }
    out
}

/// # Errors
/// The number of the line that is wrong, and why.
pub fn read(text: &str) -> Result<Scenario, String> {
    let mut lines = text.lines().enumerate();
    if lines.next().is_none_or(|(_, line)| line.trim() != HEAD) {
        return Err(format!("the first line is not `{HEAD}`"));
    }
    let mut scenario = Scenario::calm(0);
    for (at, line) in lines {
        let line = line.trim();
        if !line.is_empty() && !line.starts_with('#') {
            read_line(&mut scenario, line).map_err(|why| format!("line {}: {why}", at + 1))?;
        }
    }
    if !(2..=HOSTS).contains(&scenario.hosts) {
        return Err(format!("a world has 2 to {HOSTS} hosts"));
    }
    let (hosts, relays) = (scenario.hosts, scenario.relays);
    if relays > RELAYS || hosts + relays > HOSTS {
        return Err(format!("a world has up to {RELAYS} relays, and {HOSTS} hosts with them"));
    }
    if hosts + relays == HOSTS && scenario.script.iter().any(|(_, op)| matches!(op, Op::Mischief { .. })) {
        return Err(format!("with {HOSTS} hosts there is no room for a contact in bad faith"));
    }
    match scenario.script.iter().find(|(_, op)| !op.is_among(hosts, relays)) {
        Some((_, op)) => Err(format!("`{op}` names a host that is not there")),
        None => Ok(scenario),
    }
}

fn read_line(scenario: &mut Scenario, line: &str) -> Result<(), String> {
    let (name, rest) = line.split_once(' ').ok_or(format!("`{line}` is one word"))?;
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        let at = moment(name).ok_or(format!("{name} is no moment"))?;
        let mut words = rest.split_ascii_whitespace();
        let verb = words.next().unwrap_or_default();
        scenario.script.push((at, Op::read(verb, Fields::read(words)?)?));
        return Ok(());
    }
    let mut settings = settings(scenario);
    let (_, setting) =
        settings.iter_mut().find(|(known, _)| *known == name).ok_or(format!("what is {name}?"))?;
    if setting.set(rest.trim()) { Ok(()) } else { Err(format!("{} is no value of {name}", rest.trim())) }
}

/// Microseconds of `seconds.micros`.
fn moment(text: &str) -> Option<u64> {
    let (seconds, micros) = text.split_once('.').unwrap_or((text, "0"));
    let micros = format!("{micros:0<6}");
    let whole: u64 = seconds.parse().ok()?;
    let part: u64 = micros.parse().ok().filter(|part| *part < 1_000_000)?;
    whole.checked_mul(1_000_000)?.checked_add(part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_seed_reads_back_from_its_file() {
        for seed in 0..2000 {
            let scenario = Scenario::among(2 + (seed % 5) as usize, seed);
            assert_eq!(read(&write(&scenario, "one\ntwo")), Ok(scenario));
        }
    }

    #[test]
    fn a_mistake_is_named_with_its_line() {
        let wrong = [
            ("", "the first line is not `peerlink-sim 1`"),
            ("peerlink-sim 1\nsead 4", "line 2: what is sead?"),
            ("peerlink-sim 1\n\nseed four", "line 3: four is no value of seed"),
            ("peerlink-sim 1\nhosts 9", "a world has 2 to 6 hosts"),
            ("peerlink-sim 1\n1.5x reset a=bob b=alice", "line 2: 1.5x is no moment"),
            ("peerlink-sim 1\n1.5 reset a=bob", "line 2: no b="),
            ("peerlink-sim 1\n1.5 reset a=bob b=erin", "`reset a=bob b=erin` names a host that is not there"),
        ];
        for (text, why) in wrong {
            assert_eq!(read(text), Err(why.to_owned()));
        }
        assert_eq!(moment("12.044"), Some(12_044_000));
    }
}
