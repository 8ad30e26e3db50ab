//! Capacities are in the `limits.rs` of their crate, all of them, and each is used.

use super::lexer::{Kind, Token, after_group, follows};
use super::tree::Source;

/// A numeric constant with one of these words in its name is a capacity.
const WORDS: [&str; 20] = [
    "MAX", "LIMIT", "LIMITS", "CAP", "CAPACITY", "SIZE", "SIZES", "BYTES", "LEN", "LENGTH", "COUNT",
    "TIMEOUT", "BUDGET", "QUEUE", "BACKLOG", "DEPTH", "SLOTS", "ATTEMPTS", "RETRIES", "INTERVAL",
];
/// Calls whose first argument is a capacity.
const SIZED: [&str; 4] = ["with_capacity", "sync_channel", "bounded", "reserve"];
/// Calls that make a queue without an end.
const ENDLESS: [&str; 2] = ["channel", "unbounded"];

fn is_numeric(kind: &str) -> bool {
    let integer = kind
        .strip_prefix(['u', 'i'])
        .is_some_and(|width| ["8", "16", "32", "64", "128", "size"].contains(&width));
    integer || ["f32", "f64", "Duration"].contains(&kind) || kind.starts_with("NonZero")
}

/// Constants and statics of a file: line, name, last word of the type.
fn constants(tokens: &[Token]) -> impl Iterator<Item = (usize, &str, &str)> {
    tokens.iter().enumerate().filter_map(|(at, token)| {
        let name = tokens.get(at + 1)?;
        let named = (token.is("const") || token.is("static")) && name.kind == Kind::Ident && !token.test;
        // `<const N: usize>` is a parameter.
        let parameter = at >= 1 && (tokens[at - 1].is("<") || tokens[at - 1].is(","));
        if !named || parameter || !follows(tokens, at + 2, &[":"]) {
            return None;
        }
        let kind = tokens[at + 3..].iter().take_while(|token| !token.is("=") && !token.is(";"));
        let kind: Vec<&Token> = kind.collect();
        Some((token.line, name.text.as_str(), kind.last()?.text.as_str()))
    })
}

pub(crate) fn check_place(source: &Source) -> Vec<String> {
    if !source.is_product() || source.member() == "tests" || source.path.ends_with("/limits.rs") {
        return Vec::new();
    }
    let mut wrong = Vec::new();
    // There a `LEN` is the width of a field, and a number of the format rather than of this program.
    let format = source.path.starts_with("core/src/wire/");
    for (line, name, kind) in constants(&source.tokens) {
        if is_numeric(kind)
            && !(format && name.ends_with("_LEN"))
            && name.split('_').any(|word| WORDS.contains(&word))
        {
            wrong.push(format!("{}:{line}: `{name}` is a capacity and belongs in limits.rs", source.path));
        }
    }
    for (at, token) in source.tokens.iter().enumerate() {
        let Some(mut open) = (!token.test && token.kind == Kind::Ident).then_some(at + 1) else { continue };
        if follows(&source.tokens, open, &[":", ":", "<"]) {
            open += source.tokens[open..].iter().position(|token| token.is("(")).unwrap_or(0);
        }
        if !follows(&source.tokens, open, &["("]) || (at >= 1 && source.tokens[at - 1].is("fn")) {
            continue;
        }
        let queue = token.is("new") && at >= 3 && source.tokens[at - 3].is("Queue");
        if SIZED.iter().any(|name| token.is(name)) || queue {
            let argument = &source.tokens[open + 1..after_group(&source.tokens, open) - 1];
            let written_out = |token: &Token| {
                token.kind != Kind::Ident || is_numeric(&token.text) || token.is("as") || token.is("from")
            };
            // A channel of none hands over, a channel of one holds the one answer: neither is a queue.
            let slot = ["sync_channel", "bounded"].contains(&token.text.as_str())
                && matches!(argument, [one] if one.text == "0" || one.text == "1");
            let number = argument.iter().any(|token| token.kind == Kind::Number) && !slot;
            if number && argument.iter().all(written_out) {
                wrong.push(format!(
                    "{}:{}: a capacity written out in `{}`",
                    source.path, token.line, token.text
                ));
            }
        }
        if ENDLESS.iter().any(|name| token.is(name))
            && source.tokens[open + 1..].first().is_some_and(|t| t.is(")"))
        {
            wrong.push(format!(
                "{}:{}: `{}()` makes a queue without an end",
                source.path, token.line, token.text
            ));
        }
    }
    wrong
}

/// Constants of every `limits.rs` that no code of their crate uses (those of `core`: no code at all). An assertion
/// about a constant is no use of it.
pub(crate) fn check_use(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for limits in sources.iter().filter(|source| source.path.ends_with("/src/limits.rs")) {
        for (line, name, _) in constants(&limits.tokens).filter(|(_, name, _)| *name != "_") {
            let reaches = |source: &&Source| {
                source.path != limits.path
                    && source.is_product()
                    && (limits.member() == "core" || source.member() == limits.member())
            };
            let elsewhere =
                sources.iter().filter(reaches).any(|source| source.product().any(|token| token.is(name)));
            if !elsewhere && !in_a_value(&limits.tokens, name) {
                wrong.push(format!("{}:{line}: nothing uses `{name}`", limits.path));
            }
        }
    }
    wrong
}

/// Whether another constant is computed from this one.
fn in_a_value(tokens: &[Token], name: &str) -> bool {
    tokens.split(|token| token.is(";")).any(|statement| {
        let named = statement.iter().position(|token| token.is("const"));
        let value = statement.iter().position(|token| token.is("="));
        match (named, value) {
            (Some(named), Some(value)) => {
                !statement[named + 1].is("_") && statement[value..].iter().any(|token| token.is(name))
            }
            _ => false,
        }
    })
}

#[test]
fn planted_capacities_are_caught() {
    let wrong = |path: &str, text: &str| check_place(&Source::new(path, text)).len();
    for text in [
        "const MAX_PEERS: usize = 7;",
        "pub(crate) const RETRY_TIMEOUT: core::time::Duration = Duration::from_secs(3);",
        "impl S { const LEN: u32 = 4; }",
        "fn f() { const READ_BYTES: usize = 9; }",
        "static BACKLOG: i32 = 128;",
        "fn f() { Vec::with_capacity(64) }",
        "fn f() { Vec::with_capacity(64 * 1024) }",
        "fn f() { Vec::with_capacity(usize::from(9u8)) }",
        "fn f() { mpsc::sync_channel::<u8>(16) }",
        "fn f() { bounded(2) }",
        "fn f() { Queue::new(8) }",
        "fn f() { mpsc::channel() }",
        "fn f() { mpsc::channel::<Vec<u8>>() }",
    ] {
        assert_eq!(wrong("drivers/src/a.rs", text), 1, "{text}");
    }
    for (path, text) in [
        ("drivers/src/limits.rs", "pub const MAX_PEERS: usize = 7;"),
        ("core/src/wire/handshake.rs", "const MAC_LEN: usize = 16;"),
        ("drivers/tests/a.rs", "const MAX_PEERS: usize = 7;"),
        ("drivers/src/a.rs", "const FORMAT: u8 = 1; const LENS: &str = \"MAX\"; const MAXIMAL: u8 = 1;"),
        ("drivers/src/a.rs", "struct L<T, const LEN: usize>(T); fn f<const CAP: usize>() {}"),
        ("drivers/src/a.rs", "fn f(n: usize) { Vec::with_capacity(n); Vec::with_capacity(BODY_BYTES * 2); }"),
        ("drivers/src/a.rs", "fn with_capacity(n: usize) {} #[cfg(test)] mod t { const MAX: u8 = 1; }"),
        (
            "drivers/src/a.rs",
            "fn f(q: usize) { Queue::new(q); Queue::new(LOADS); sync_channel(LOADS); sync_channel(1); }",
        ),
    ] {
        assert_eq!(wrong(path, text), 0, "{text}");
    }
}

#[test]
fn a_planted_limit_that_nothing_uses_is_caught() {
    let limits = "pub const A: usize = 1; pub const B: usize = A + 1; pub const C: usize = 2; const _: () = { assert!(C > A); };";
    let sources = |elsewhere: &str| {
        [Source::new("core/src/limits.rs", limits), Source::new("drivers/src/lib.rs", elsewhere)]
    };
    assert_eq!(check_use(&sources("fn f() { g(B, C) }")), Vec::<String>::new());
    assert_eq!(check_use(&sources("fn f() { g(B) } // C")).len(), 1);
    assert_eq!(check_use(&sources("fn f() { g(B) } #[cfg(test)] fn t() { C }")).len(), 1);
    let own = [
        Source::new("drivers/src/limits.rs", "pub const A: usize = 1;"),
        Source::new("cli/src/main.rs", "const A: u8 = 2;"),
    ];
    assert_eq!(check_use(&own).len(), 1, "another crate's word of the same name is no use");
}
