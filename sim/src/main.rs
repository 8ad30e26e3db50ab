//! Runs worlds: many of the swarm, one of a seed, or one of a file, which it also makes of a seed, and makes smaller.

#![forbid(unsafe_code)]

use peerlink_sim::limits::EVERY_KIND;
use peerlink_sim::probe::Probe;
use peerlink_sim::run::{self, Report};
use peerlink_sim::shrink::shrink;
use peerlink_sim::{Fault, Print, Scenario, schedule};
use std::process::ExitCode;
use std::time::Instant;

const USAGE: &str = "\
usage: peerlink-sim --seeds N [--start S] [--threads T]  run N worlds, report, end with OK or a failure; with
                                                        --hosts H of H hosts (2 to 6) instead of 2
       peerlink-sim --seed S [--hosts H]                replay one world and print its trace
       peerlink-sim replay FILE                         the same of a world in a file
with one world:
       --shrink          take away what its failure does not need, and replay the rest
       --write FILE      write it to a file, after shrinking
       --whole, --quiet  print lines whole, or none";

#[derive(Debug, Default)]
struct Options {
    seeds: Option<u64>,
    seed: Option<u64>,
    file: Option<String>,
    start: u64,
    threads: Option<usize>,
    hosts: Option<usize>,
    write: Option<String>,
    whole: bool,
    quiet: bool,
    shrink: bool,
    #[cfg(peerlink_planted)]
    planted: Option<peerlink_core::planted::Planted>,
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let mut options = Options::default();
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} wants a value"));
        let number = |text: String| text.parse::<u64>().map_err(|_| format!("{text} is not a number"));
        match word.as_str() {
            "--seeds" => options.seeds = Some(number(value()?)?),
            "--seed" => options.seed = Some(number(value()?)?),
            "replay" | "--schedule" => options.file = Some(value()?),
            "--start" => options.start = number(value()?)?,
            "--threads" => options.threads = usize::try_from(number(value()?)?).ok(),
            "--hosts" => options.hosts = usize::try_from(number(value()?)?).ok(),
            "--write" => options.write = Some(value()?),
            "--whole" => options.whole = true,
            "--quiet" => options.quiet = true,
            "--shrink" => options.shrink = true,
            #[cfg(peerlink_planted)]
            "--planted" => {
                let name = value()?;
                let bug = peerlink_core::planted::Planted::by_name(&name);
                options.planted = Some(bug.ok_or(format!("no bug is called {name}"))?);
            }
            _ => return Err(format!("what is {word}?")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = parse(std::env::args().skip(1));
    let ended = options.and_then(|options| match (options.seed, options.seeds, &options.file) {
        (Some(seed), None, None) => replay(scenario(seed, &options), &options),
        (None, None, Some(file)) => {
            let text = std::fs::read_to_string(file).map_err(|error| format!("{file}: {error}"))?;
            let scenario = schedule::read(&text).map_err(|why| format!("{file}: {why}"))?;
            replay(scenario, &options)
        }
        (None, Some(seeds), None) => Ok(swarm(seeds, &options)),
        _ => Err("a number of seeds, one seed, or one file".to_owned()),
    });
    ended.unwrap_or_else(|error| {
        eprintln!("peerlink-sim: {error}\n{USAGE}");
        ExitCode::from(2)
    })
}

fn scenario(seed: u64, options: &Options) -> Scenario {
    #[allow(unused_mut, reason = "a planted bug is set only in builds that have them")]
    let mut scenario = Scenario::among(options.hosts.unwrap_or(2), seed);
    #[cfg(peerlink_planted)]
    {
        scenario.planted = options.planted;
    }
    scenario
}

fn replay(mut scenario: Scenario, options: &Options) -> Result<ExitCode, String> {
    let print = match (options.whole, options.quiet) {
        (true, _) => Print::Whole,
        (_, true) => Print::Nothing,
        _ => Print::Short,
    };
    if options.shrink {
        // A panic inside of a world is one more way to fail.
        std::panic::set_hook(Box::new(|_| {}));
        match shrink(&scenario) {
            Some(smallest) => scenario = smallest,
            None => println!("it does not fail"),
        }
        let _own_hook = std::panic::take_hook();
    }
    let outcome = run::one(scenario.clone(), print);
    let failed =
        outcome.violation.as_ref().map_or("nothing failed".into(), |violation| violation.to_string());
    let text = schedule::write(&scenario, &failed);
    if let Some(file) = &options.write {
        std::fs::write(file, &text).map_err(|error| format!("{file}: {error}"))?;
        println!("written to {file}");
    } else if print != Print::Nothing {
        print!("\n{text}");
    }
    let hash: String = outcome.hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let (sent, delivered, faults) = (outcome.sent, outcome.delivered, outcome.faults.total());
    println!("trace {hash} events={} sent={sent} delivered={delivered} faults={faults}", outcome.events);
    Ok(match outcome.violation {
        None => ExitCode::SUCCESS,
        Some(violation) => {
            println!("FAIL seed={} {violation}", scenario.seed);
            ExitCode::FAILURE
        }
    })
}

#[expect(clippy::disallowed_methods, reason = "how long the real run took, for its report alone")]
fn swarm(seeds: u64, options: &Options) -> ExitCode {
    // A panic inside of a world is reported with its seed; its backtrace comes with the replay.
    std::panic::set_hook(Box::new(|_| {}));
    let threads = options.threads.or(std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let began = Instant::now();
    let stuck = |seed| {
        println!("FAIL seed={seed} Livelock: a node does not come back from a call");
        println!("{}", replay_command(seed, options));
        std::process::exit(1);
    };
    let report = run::many(options.start, seeds, threads, |seed| scenario(seed, options), stuck);
    let seconds = began.elapsed().as_secs_f64().max(0.001);
    print_report(&report, seconds);
    if let Some((seed, violation)) = &report.failure {
        println!("FAIL seed={seed} {violation}");
        println!("{}", replay_command(*seed, options));
        return ExitCode::FAILURE;
    }
    let (delivered, faults) = (report.delivered, report.faults.total());
    let idle: Vec<&str> = report.faults.idle().map(Fault::name).collect();
    let tried = delivered > 0 && report.sent > 0 && faults > 0;
    if !tried || (seeds >= EVERY_KIND && !idle.is_empty()) {
        println!(
            "FAIL nothing was tried: seeds={seeds} delivered={delivered} faults={faults}; never {idle:?}"
        );
        return ExitCode::FAILURE;
    }
    println!("OK seeds={seeds} delivered={delivered} faults={faults}");
    ExitCode::SUCCESS
}

#[cfg(not(peerlink_planted))]
fn replay_command(seed: u64, options: &Options) -> String {
    let hosts = options.hosts.map_or(String::new(), |hosts| format!(" --hosts {hosts}"));
    format!("cargo run --release -p peerlink-sim -- --seed {seed}{hosts}")
}

#[cfg(peerlink_planted)]
fn replay_command(seed: u64, options: &Options) -> String {
    let names = peerlink_core::planted::Planted::ALL.iter().filter(|(_, bug)| Some(*bug) == options.planted);
    let planted: String = names.map(|(name, _)| format!(" --planted {name}")).collect();
    let build = "RUSTFLAGS=\"--cfg peerlink_planted\" cargo run --release --target-dir target/planted -p peerlink-sim";
    format!("{build} -- --seed {seed}{planted}")
}

fn print_report(report: &Report, seconds: f64) {
    let rate = |count: u64| format!("{:.0}", count as f64 / seconds);
    println!(
        "worlds {} in {seconds:.1} s, {}/s; {} were run twice",
        report.worlds,
        rate(report.worlds),
        report.twice
    );
    println!("events {} ({}/s), trace lines {}", report.events, rate(report.events), report.lines);
    println!("messages sent {} delivered {}", report.sent, report.delivered);
    println!("wire {} kB, all of it searched", report.wire_bytes / 1000);
    println!("simulated {} s, {}x", report.simulated / 1_000_000, rate(report.simulated / 1_000_000));
    let (slowest, seed) = report.slowest;
    println!("slowest healing {:.1} s (seed {seed})", slowest as f64 / 1e6);
    let faults = Fault::ALL.map(|fault| format!("{} {}", fault.name(), report.faults.of(fault)));
    println!("faults: {}", faults.join(", "));
    let met = Probe::ALL.map(|probe| format!("{} {}", probe.name(), report.met.of(probe)));
    println!("met: {}", met.join(", "));
}
