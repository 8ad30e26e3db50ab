//! The floors of `core`: a file imports from lower floors, and from its own only where the floor allows it.

use super::lexer::{Kind, Token, after_group, follows};
use super::tree::Source;

/// Whether files of one floor may import each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Neighbours {
    Free,
    /// Only from those named before it.
    Ordered,
    Never,
}

const FLOORS: [(&[&str], Neighbours); 6] = [
    // Vocabulary.
    (&["time", "ids", "limits", "bounded", "planted"], Neighbours::Free),
    // Language.
    (&["rng", "identity", "wire", "record", "ticket", "api", "trace"], Neighbours::Free),
    // Mechanisms: values in and out, no knowledge of peers.
    (
        &[
            "timers",
            "age",
            "backoff",
            "rtt",
            "recovery",
            "congestion",
            "window",
            "bucket",
            "deframe",
            "noise",
            "envelope",
            "chain",
            "assemble",
            "gate",
            "lanes",
            "parts",
            "cx",
        ],
        Neighbours::Free,
    ),
    // Machines: one remote thing each; they do not know each other.
    (&["session", "outbox", "inbox", "giveback", "path", "mailbox", "depot", "directory"], Neighbours::Never),
    // Tables: each routes between machines and may lean on the tables before it.
    (
        &["profile", "gateways", "links", "via", "relay", "outgoing", "peers", "erase", "expire", "contacts"],
        Neighbours::Ordered,
    ),
    // The node.
    (&["restore", "node", "lib"], Neighbours::Free),
];

/// What the crate root hands on under its own name.
const HANDED_ON: [(&str, &str); 3] = [("Node", "node"), ("Config", "node"), ("Restore", "restore")];

/// Floor, place on it, and what it allows.
fn place(module: &str) -> Option<(usize, usize, Neighbours)> {
    FLOORS.iter().enumerate().find_map(|(floor, (modules, neighbours))| {
        let at = modules.iter().position(|name| *name == module)?;
        Some((floor, at, *neighbours))
    })
}

pub(crate) fn check(source: &Source) -> Vec<String> {
    let Some(inside) = source.path.strip_prefix("core/src/") else { return Vec::new() };
    let mut home: Vec<&str> = inside.trim_end_matches(".rs").split('/').collect();
    let top = home[0].to_owned();
    if home.last() == Some(&"mod") {
        home.pop();
    }
    if top == "lib" {
        home.clear();
    }
    let Some((floor, at, neighbours)) = place(&top) else {
        return vec![format!("{}: `{top}` is on no floor", source.path)];
    };
    let mut wrong = Vec::new();
    for (line, module) in imports(&source.tokens, &home) {
        if module == top {
            continue;
        }
        let Some((other_floor, other_at, _)) = place(&module) else {
            wrong.push(format!("{}:{line}: imports `{module}`, which is on no floor", source.path));
            continue;
        };
        let allowed = match neighbours {
            _ if other_floor != floor => other_floor < floor,
            Neighbours::Free => true,
            Neighbours::Ordered => other_at < at,
            Neighbours::Never => false,
        };
        if !allowed {
            wrong.push(format!(
                "{}:{line}: `{top}` (floor {floor}) imports `{module}` (floor {other_floor})",
                source.path
            ));
        }
    }
    wrong
}

/// The top modules that paths in this file name, with lines. `home` is where the file is.
fn imports(tokens: &[Token], home: &[&str]) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    // Inline modules that are open, with the depth at which each closes.
    let mut open: Vec<(String, usize)> = Vec::new();
    let mut depth = 0;
    for (at, token) in tokens.iter().enumerate() {
        match token.text.as_str() {
            _ if token.kind == Kind::Text => {}
            "{" => {
                if at >= 2 && tokens[at - 2].is("mod") {
                    open.push((tokens[at - 1].text.clone(), depth));
                }
                depth += 1;
            }
            "}" => {
                depth -= 1;
                open.pop_if(|(_, closes)| *closes == depth);
            }
            "crate" | "super" if !token.test && follows(tokens, at + 1, &[":", ":"]) => {
                if at >= 1 && tokens[at - 1].is(":") {
                    continue; // Inside a path whose start was read.
                }
                let mut path: Vec<&str> = home.to_vec();
                path.extend(open.iter().map(|(name, _)| name.as_str()));
                let mut next = at;
                if token.text == "crate" {
                    path.clear();
                    next += 3;
                }
                while follows(tokens, next, &["super", ":", ":"]) {
                    path.pop();
                    next += 3;
                }
                match path.first() {
                    Some(top) => found.push((token.line, (*top).to_owned())),
                    None => found.extend(first_names(tokens, next)),
                }
            }
            _ => {}
        }
    }
    found
}

/// The modules that a path behind the crate root starts with: one, or each of a group.
fn first_names(tokens: &[Token], at: usize) -> Vec<(usize, String)> {
    let Some(token) = tokens.get(at) else { return Vec::new() };
    if !token.is("{") {
        let name =
            HANDED_ON.iter().find(|(name, _)| token.is(name)).map_or(token.text.as_str(), |(_, home)| home);
        return vec![(token.line, name.to_owned())];
    }
    let end = after_group(tokens, at);
    let mut found = Vec::new();
    let mut next = at + 1;
    while next + 1 < end {
        found.extend(first_names(tokens, next));
        while next + 1 < end && !tokens[next].is(",") {
            next = if tokens[next].is("{") { after_group(tokens, next) } else { next + 1 };
        }
        next += 1;
    }
    found
}

#[test]
fn planted_imports_are_caught() {
    let wrong = |path: &str, text: &str| check(&Source::new(path, text));
    for (path, text) in [
        // Upward, in every way to say it.
        ("core/src/ids.rs", "use crate::record::Key;"),
        ("core/src/chain.rs", "use crate::{ids::Epoch, outbox::Outbox};"),
        ("core/src/chain.rs", "fn f() { crate::peers::g() }"),
        ("core/src/chain.rs", "use super::session::Session;"),
        ("core/src/wire/frame.rs", "use super::super::chain::place;"),
        ("core/src/wire/frame.rs", "mod inner { use super::super::super::gate::Gate; }"),
        ("core/src/links.rs", "use crate::Node;"),
        ("core/src/links.rs", "use crate::{Config, ids::Epoch};"),
        ("core/src/links.rs", "use crate::*;"),
        // Sideways, where machines must not know each other and tables have an order.
        ("core/src/outbox.rs", "use crate::inbox::Inbox;"),
        ("core/src/path/dial.rs", "use crate::session::Session;"),
        ("core/src/links.rs", "use crate::peers::Peers;"),
        // Nowhere.
        ("core/src/helpers.rs", "fn f() {}"),
        ("core/src/helpers/mod.rs", "fn f() {}"),
        ("core/src/node.rs", "use crate::helpers::f;"),
    ] {
        assert_eq!(wrong(path, text).len(), 1, "{path}: {text}");
    }
    for (path, text) in [
        ("core/src/lib.rs", "pub mod api; pub use node::Node; use crate::peers::Peers;"),
        ("core/src/peers.rs", "use crate::links::Links; use crate::{inbox::Inbox, outbox::{A, B}};"),
        ("core/src/path/dial.rs", "use super::other; use crate::path::race; use crate::backoff::Backoff;"),
        ("core/src/wire/frame.rs", "use super::{Malformed, put}; use super::entry::Entry;"),
        ("core/src/inbox.rs", "#[cfg(test)] mod tests { use super::*; use crate::outbox::Outbox; }"),
        ("core/src/ids.rs", "// use crate::node\nconst S: &str = \"crate::node::x\"; pub(crate) fn f() {}"),
        ("storage/src/open.rs", "use crate::reader::Reader;"),
    ] {
        assert_eq!(wrong(path, text), Vec::<String>::new(), "{path}: {text}");
    }
}
