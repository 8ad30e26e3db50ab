//! The delivery contract, as it was given. The README quotes it word for word.

pub(crate) const POINTS: [&str; 8] = [
    "**Queued is durable.** `send` returns only after the message is on stable storage of this device.",
    "**Acknowledged is durable.** A node acknowledges a message only after the message and its dedup record are on \
     stable storage, written in one atomic batch, and fsync returned success.",
    "**Exactly once, in order.** A message is shown once, in its author's order. A gap is shown as a gap, asked for, \
     and filled; it never blocks what comes after it and is never hidden.",
    "**Evidence only grows.** What is shown of a message is read from stored, authenticated evidence: `queued`, \
     `stored at relays {R until T}`, `delivered`, `read`. `expired` and `cancelled` are the user's own decisions and \
     yield to later proof of delivery. A custody that lapsed is shown as lapsed. \"Stored\" is never shown as \
     \"delivered\", and no shown proof is ever lost.",
    "**The sender keeps a message until its recipient has acknowledged it.** A relay that loses, delays, repeats, \
     reorders or lies can delay a message; it cannot lose one.",
    "**Nobody on the way can read, alter or forge** a message, nor add or repeat one unseen.",
    "All of this holds across a crash at any instant, a restart, a sleep of weeks, a wrong clock, a changed address, a \
     full disk, and a profile restored from an old backup.",
    "**Everything is bounded.** Every queue has a limit in `core/src/limits.rs`. A full queue refuses its caller or \
     pushes back on its sender; it never drops in silence and never grows.",
];

/// The points in their order, whatever the lines are wrapped to.
pub(crate) fn check(readme: &str) -> Vec<String> {
    let plain: Vec<&str> = readme.lines().map(|line| line.trim().trim_start_matches("> ")).collect();
    let plain = plain.join(" ").split_whitespace().collect::<Vec<_>>().join(" ");
    let mut from = 0;
    let mut wrong = Vec::new();
    for (at, point) in POINTS.iter().enumerate() {
        match plain[from..].find(&format!("{}. {point}", at + 1)) {
            Some(found) => from += found + point.len(),
            None => {
                wrong.push(format!("README.md: point {} of the contract is not quoted word for word", at + 1))
            }
        }
    }
    wrong
}

#[test]
fn a_planted_change_of_the_contract_is_caught() {
    let quoted = |points: &[&str]| {
        let lines =
            points.iter().enumerate().map(|(at, point)| format!("{}. {point}\n   Holds now.\n", at + 1));
        lines.collect::<String>()
    };
    assert_eq!(check(&quoted(&POINTS)), Vec::<String>::new());
    assert_eq!(check(&quoted(&POINTS).replace(" only after", "\n   only after")), Vec::<String>::new());
    for at in 0..POINTS.len() {
        let mut changed = POINTS.map(ToOwned::to_owned);
        changed[at] = changed[at].replacen(' ', " not ", 3);
        let changed: Vec<&str> = changed.iter().map(String::as_str).collect();
        assert_eq!(check(&quoted(&changed)).len(), 1);
    }
}

/// What stands in backquotes and looks like a path in the project is one.
pub(crate) fn check_paths(document: &str, text: &str, tree: &super::tree::Tree) -> Vec<String> {
    let roots = ["core/", "drivers/", "storage/", "sim/", "cli/", "tests/", ".ci/"];
    let quoted = text.split('`').skip(1).step_by(2);
    let paths = quoted.filter(|word| {
        let begins = roots.iter().any(|root| word.starts_with(root) && word.len() > root.len());
        begins && !word.contains([' ', '\n'])
    });
    let exists = |path: &str| {
        tree.texts
            .iter()
            .any(|(found, _)| found == path || found.starts_with(&format!("{}/", path.trim_end_matches('/'))))
    };
    paths.filter(|path| !exists(path)).map(|path| format!("{document}: `{path}` is not there")).collect()
}

#[test]
fn a_planted_path_to_nowhere_is_caught() {
    let tree =
        super::tree::Tree { texts: vec![("core/src/a/b.rs".into(), String::new())], sources: Vec::new() };
    let wrong = |text: &str| check_paths("README.md", text, &tree).len();
    assert_eq!(wrong("see `core/src/b.rs`"), 1);
    assert_eq!(wrong("see `core/src/a/b.rs`, `core/src/a/`, `core/`, `cli → core`, `a/b.rs`"), 0);
}
