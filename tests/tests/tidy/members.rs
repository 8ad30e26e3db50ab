//! A member of the workspace that runs no tests is a hole that nobody sees.

use super::lexer::follows;
use super::tree::Source;

/// `sources` are all of the project, `manifest` is the member's.
pub(crate) fn check(member: &str, manifest: &str, sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    let tests =
        sources.iter().filter(|source| source.member() == member && runs(source)).map(count).sum::<usize>();
    if tests == 0 {
        wrong.push(format!("{member}: runs no tests"));
    }
    // A bench is a program of its own, and no test.
    let tested = manifest.split("[[").filter(|part| !part.starts_with("bench]]"));
    let switched_off = tested
        .flat_map(str::lines)
        .map(|line| line.replace(' ', ""))
        .filter(|line| ["test=false", "autotests=false", "harness=false"].contains(&line.as_str()));
    wrong.extend(switched_off.map(|line| format!("{member}: {line}")));
    wrong
}

fn runs(source: &Source) -> bool {
    let inside = source.path.strip_prefix(source.member()).unwrap_or_default();
    inside.starts_with("/src/") || inside.starts_with("/tests/")
}

/// Tests that are not ignored.
fn count(source: &Source) -> usize {
    let at = (0..source.tokens.len()).filter(|at| follows(&source.tokens, *at, &["#", "[", "test", "]"]));
    at.filter(|at| !follows(&source.tokens, at + 4, &["#", "[", "ignore"])).count()
}

#[test]
fn a_planted_member_without_tests_is_caught() {
    let one = |path: &str, text: &str| check("sim", "", &[Source::new(path, text)]).len();
    assert_eq!(one("sim/src/lib.rs", "#[cfg(test)] mod tests { #[test] fn t() {} }"), 0);
    assert_eq!(one("sim/tests/all.rs", "#[test] fn t() {}"), 0);
    assert_eq!(one("sim/src/lib.rs", "// #[test]\nfn t() {}"), 1);
    assert_eq!(one("sim/src/lib.rs", "#[test] #[ignore] fn t() {}"), 1);
    assert_eq!(one("sim/benches/all.rs", "#[test] fn t() {}"), 1);
    assert_eq!(one("core/src/lib.rs", "#[test] fn t() {}"), 1);
    let tested = [Source::new("sim/src/lib.rs", "#[test] fn t() {}")];
    assert_eq!(check("sim", "[lib]\ntest = false\n", &tested).len(), 1);
    assert_eq!(check("sim", "[[test]]\nharness = false\n[[bench]]\nharness = false\n", &tested).len(), 1);
}
