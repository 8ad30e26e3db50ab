//! Words that must not be written: std in `core`, `unsafe` anywhere, places of one machine in any file.

use super::lexer::{Kind, follows};
use super::tree::Source;

/// Macros that print.
const PRINTS: [&str; 5] = ["println", "eprintln", "print", "eprint", "dbg"];
/// Crates and types that bring a clock, threads, or an order that differs from run to run.
const STD: [&str; 7] = ["HashMap", "HashSet", "SystemTime", "RandomState", "thread", "getrandom", "OsRng"];

pub(crate) fn check_core(source: &Source) -> Vec<String> {
    if source.member() != "core" || !source.is_product() {
        return Vec::new();
    }
    let mut wrong = Vec::new();
    for (at, token) in source.tokens.iter().enumerate() {
        if token.test || token.kind != Kind::Ident {
            continue;
        }
        let path = follows(&source.tokens, at + 1, &[":", ":"]);
        let bad = match token.text.as_str() {
            "std" => path || (at >= 1 && source.tokens[at - 1].is("crate")),
            "Instant" => path && follows(&source.tokens, at + 3, &["now"]),
            "thread" => path,
            word if PRINTS.contains(&word) => follows(&source.tokens, at + 1, &["!"]),
            word => STD.contains(&word),
        };
        if bad {
            wrong.push(format!("{}:{}: `{}` has no place in core", source.path, token.line, token.text));
        }
    }
    wrong
}

/// A word that makes the compiler look away.
pub(crate) fn check_unsafe(source: &Source) -> Vec<String> {
    let found = source.tokens.iter().filter(|token| token.is("unsafe"));
    found.map(|token| format!("{}:{}: `unsafe`", source.path, token.line)).collect()
}

/// That the compiler itself refuses `unsafe`: `path` is a member's `Cargo.toml`.
pub(crate) fn check_lints(path: &str, manifest: &str) -> Vec<String> {
    let lines: Vec<&str> = manifest.lines().map(str::trim).collect();
    let inherited = lines.windows(2).any(|pair| pair == ["[lints]", "workspace = true"]);
    if inherited { Vec::new() } else { vec![format!("{path}: does not take the lints of the workspace")] }
}

/// Places that only one machine has, written in pieces so that this file does not hold them.
const PLACES: [&str; 7] = [
    concat!("/wo", "rk/"),
    concat!("/ro", "ot/"),
    concat!("/ho", "me/"),
    concat!("sha", "red/"),
    concat!("DESI", "GN.md"),
    concat!("index.crat", "es.io"),
    concat!("static.crat", "es.io"),
];

pub(crate) fn check_places(path: &str, text: &str) -> Vec<String> {
    if path == "Cargo.lock" {
        return Vec::new();
    }
    let mut wrong = Vec::new();
    for (at, line) in text.lines().enumerate() {
        for place in PLACES.iter().filter(|place| line.contains(**place)) {
            wrong.push(format!("{path}:{}: names {place}", at + 1));
        }
    }
    wrong
}

#[test]
fn planted_words_of_std_are_caught() {
    let wrong = |path: &str, text: &str| check_core(&Source::new(path, text)).len();
    for text in [
        "use std::vec::Vec;",
        "extern crate std;",
        "fn f() { println!(\"x\") }",
        "fn f() { dbg!(1); }",
        "use alloc::HashMap;",
        "fn f() { Instant::now() }",
        "fn f() -> SystemTime { x }",
        "fn f() { thread::spawn(g) }",
    ] {
        assert_eq!(wrong("core/src/a.rs", text), 1, "{text}");
    }
    for (path, text) in [
        (
            "core/src/a.rs",
            "// std::vec\nconst S: &str = \"std::vec\"; fn f(now: Instant) { Instant::ZERO; print(1) }",
        ),
        ("core/src/a.rs", "#[cfg(test)] mod tests { extern crate std; }"),
        ("core/tests/a.rs", "use std::vec::Vec;"),
        ("sim/src/a.rs", "use std::vec::Vec;"),
    ] {
        assert_eq!(wrong(path, text), 0, "{text}");
    }
}

#[test]
fn planted_unsafe_and_places_are_caught() {
    let word = ["un", "safe"].concat();
    assert_eq!(check_unsafe(&Source::new("a.rs", &format!("fn f() {{ {word} {{ g() }} }}"))).len(), 1);
    assert_eq!(check_unsafe(&Source::new("a.rs", &format!("// {word}\n#![forbid({word}_code)]"))).len(), 0);
    assert_eq!(check_lints("a/Cargo.toml", "[package]\nname = \"a\"\n").len(), 1);
    assert_eq!(check_lints("a/Cargo.toml", "[package]\n[lints]\nworkspace = true\n").len(), 0);
    for place in PLACES {
        assert_eq!(check_places("README.md", &format!("see {place}x")).len(), 1, "{place}");
    }
    assert_eq!(check_places("README.md", "see ARCHITECTURE.md, core/src and /tmp").len(), 0);
}
