//! The arrows between crates: what each may depend on, in its manifest and in its sources.

use super::lexer::Kind;
use super::tree::Source;

/// Folder, and the crates of ours that it may use. Nothing uses `cli`.
const ARROWS: [(&str, &[&str]); 7] = [
    ("core", &[]),
    ("drivers", &["peerlink-core"]),
    ("storage", &["peerlink-core"]),
    ("sim", &["peerlink-core"]),
    ("cli", &["peerlink-core", "peerlink-drivers", "peerlink-storage"]),
    ("tests", &["peerlink-core", "peerlink-drivers", "peerlink-storage", "peerlink-sim"]),
    ("tests/fuzz", &["peerlink-tests"]),
];

fn allowed(member: &str) -> Option<&'static [&'static str]> {
    ARROWS.iter().find(|(folder, _)| *folder == member).map(|(_, crates)| *crates)
}

fn is_ours(name: &str) -> bool {
    name == "peerlink" || name.starts_with("peerlink-")
}

/// `path` is that of a `Cargo.toml` in a member.
pub(crate) fn check_manifest(path: &str, manifest: &str) -> Vec<String> {
    let Some(member) = path.strip_suffix("/Cargo.toml") else { return Vec::new() };
    let Some(allowed) = allowed(member) else {
        return vec![format!("{path}: `{member}` is no crate of the design")];
    };
    let mut wrong = Vec::new();
    let mut section = String::new();
    for line in manifest.lines().map(|line| line.split('#').next().unwrap_or_default().trim()) {
        let mut named = Vec::new();
        if let Some(header) = line.strip_prefix('[') {
            section = header.trim_end_matches(']').replace(['"', '\''], "");
            // `[dependencies.name]`
            if let Some((head, name)) = section.rsplit_once('.')
                && head.ends_with("dependencies")
            {
                named.push(name.to_owned());
            }
        } else if section.contains("dependencies") {
            if section.ends_with("dependencies") {
                let key = line.split(['=', '.']).next().unwrap_or_default();
                named.push(key.trim().trim_matches('"').to_owned());
            }
            // A crate of ours under another name.
            if let Some((_, rest)) = line.split_once("package") {
                named.extend(rest.split('"').nth(1).map(ToOwned::to_owned));
            }
        }
        let bad = named.iter().filter(|name| is_ours(name) && !allowed.contains(&name.as_str()));
        wrong.extend(bad.map(|name| format!("{path}: `{member}` must not depend on `{name}`")));
    }
    wrong
}

pub(crate) fn check_source(source: &Source) -> Vec<String> {
    let member = source.member();
    let Some(allowed) = allowed(member) else {
        return vec![format!("{}: `{member}` is no crate of the design", source.path)];
    };
    let itself = format!("peerlink-{member}");
    let mut wrong = Vec::new();
    for (at, token) in source.tokens.iter().enumerate() {
        let path_follows = super::lexer::follows(&source.tokens, at + 1, &[":", ":"]);
        let name = token.text.replace('_', "-");
        let used = token.kind == Kind::Ident
            && (token.text.starts_with("peerlink_") || (token.text == "peerlink" && path_follows));
        // Any other word that starts like a crate of ours is a name of its own, such as `peerlink_planted`.
        let crates = [
            "peerlink",
            "peerlink-core",
            "peerlink-drivers",
            "peerlink-storage",
            "peerlink-sim",
            "peerlink-tests",
        ];
        if used && crates.contains(&name.as_str()) && name != itself && !allowed.contains(&name.as_str()) {
            wrong.push(format!("{}:{}: `{member}` must not use `{name}`", source.path, token.line));
        }
    }
    wrong
}

#[test]
fn planted_arrows_are_caught() {
    for (path, manifest) in [
        ("core/Cargo.toml", "[dependencies]\npeerlink-storage.workspace = true"),
        ("drivers/Cargo.toml", "[dependencies]\npeerlink-storage = { path = \"../storage\" }"),
        ("storage/Cargo.toml", "[dev-dependencies]\n\"peerlink-sim\" = { path = \"../sim\" }"),
        ("sim/Cargo.toml", "[dependencies.peerlink-storage]\nworkspace = true"),
        ("sim/Cargo.toml", "[target.'cfg(unix)'.dependencies]\npeerlink-drivers.workspace = true"),
        ("sim/Cargo.toml", "[dependencies]\nother = { path = \"../cli\", package = \"peerlink\" }"),
        ("tests/Cargo.toml", "[dev-dependencies]\npeerlink = { path = \"../cli\" }"),
        ("extra/Cargo.toml", "[dependencies]"),
    ] {
        assert_eq!(check_manifest(path, manifest).len(), 1, "{manifest}");
    }
    let fine =
        "[package]\nname = \"peerlink\"\n[dependencies]\npeerlink-core.workspace = true # not peerlink-sim";
    assert_eq!(check_manifest("cli/Cargo.toml", fine), Vec::<String>::new());

    for (path, text) in [
        ("core/src/node.rs", "use peerlink_storage::Writer;"),
        ("drivers/src/mio.rs", "fn f() { peerlink_storage::open() }"),
        ("sim/src/main.rs", "extern crate peerlink_drivers;"),
        ("tests/tests/x.rs", "use peerlink::main;"),
        ("extra/src/lib.rs", "fn f() {}"),
    ] {
        assert_eq!(check_source(&Source::new(path, text)).len(), 1, "{text}");
    }
    let fine = "use peerlink_core::Node; // peerlink_sim\n#[cfg(peerlink_planted)] const S: &str = \"peerlink_sim\";";
    assert_eq!(check_source(&Source::new("storage/src/lib.rs", fine)), Vec::<String>::new());
    assert_eq!(
        check_source(&Source::new("core/tests/pair.rs", "use peerlink_core::Node;")),
        Vec::<String>::new()
    );
}
