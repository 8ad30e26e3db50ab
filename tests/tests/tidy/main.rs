//! Order, kept by tests: each rule reads the sources as they are and names what breaks it, file and line. Beside each
//! rule a test plants an offence and sees it caught.

mod arrows;
mod capacities;
mod contract;
mod floors;
mod lexer;
mod members;
mod sizes;
mod tree;
mod words;

use tree::{Source, Tree};

#[track_caller]
fn nothing_wrong(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

fn each(check: fn(&Source) -> Vec<String>) -> Vec<String> {
    Tree::read().sources.iter().flat_map(check).collect()
}

fn each_manifest(check: fn(&str, &str) -> Vec<String>) -> Vec<String> {
    let tree = Tree::read();
    let manifests = tree.texts.iter().filter(|(path, _)| path.ends_with("/Cargo.toml"));
    manifests.flat_map(|(path, text)| check(path, text)).collect()
}

#[test]
fn core_imports_from_lower_floors_only() {
    nothing_wrong(each(floors::check));
}

#[test]
fn crates_depend_on_each_other_as_designed() {
    nothing_wrong(each_manifest(arrows::check_manifest));
    nothing_wrong(each(arrows::check_source));
    let tree = Tree::read();
    assert!(tree.members().iter().all(|member| !tree.text(&format!("{member}/Cargo.toml")).is_empty()));
}

#[test]
fn capacities_are_in_limits() {
    nothing_wrong(each(capacities::check_place));
}

#[test]
fn every_limit_is_used() {
    nothing_wrong(capacities::check_use(&Tree::read().sources));
}

#[test]
fn core_knows_no_std() {
    nothing_wrong(each(words::check_core));
}

#[test]
fn nothing_is_unsafe() {
    nothing_wrong(each(words::check_unsafe));
    nothing_wrong(each_manifest(words::check_lints));
    let tree = Tree::read();
    assert!(tree.text("Cargo.toml").contains("\nunsafe_code = \"forbid\"\n"));
}

#[test]
fn no_file_names_a_place_of_one_machine() {
    let tree = Tree::read();
    nothing_wrong(tree.texts.iter().flat_map(|(path, text)| words::check_places(path, text)).collect());
}

#[test]
fn files_and_functions_are_small() {
    let found = Tree::read().sources.iter().map(sizes::check).collect::<Vec<_>>();
    for warning in found.iter().flat_map(|found| &found.warnings) {
        println!("worth a look: {warning}");
    }
    nothing_wrong(found.into_iter().flat_map(|found| found.wrong).collect());
}

#[test]
fn every_member_runs_tests() {
    let tree = Tree::read();
    let members = tree.members();
    assert!(members.len() >= 6, "{members:?}");
    let check =
        |member: &String| members::check(member, tree.text(&format!("{member}/Cargo.toml")), &tree.sources);
    nothing_wrong(members.iter().flat_map(check).collect());
}

#[test]
fn the_readme_quotes_the_contract() {
    nothing_wrong(contract::check(Tree::read().text("README.md")));
}

/// A document that names a file which is gone misleads.
#[test]
fn documents_name_files_that_exist() {
    let tree = Tree::read();
    let documents = ["README.md", "ARCHITECTURE.md"];
    nothing_wrong(
        documents.iter().flat_map(|path| contract::check_paths(path, tree.text(path), &tree)).collect(),
    );
}
