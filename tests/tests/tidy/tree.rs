//! The project as the rules see it: every text file, the Rust ones as tokens, and the members of the workspace.

use super::lexer::{Token, follows, lex};
use std::fs;
use std::path::{Path, PathBuf};

/// One Rust file.
#[derive(Debug)]
pub(crate) struct Source {
    /// From the workspace root, with `/`.
    pub(crate) path: String,
    pub(crate) tokens: Vec<Token>,
}

impl Source {
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.into(), tokens: lex(text) }
    }

    /// The folder of its crate.
    pub(crate) fn member(&self) -> &str {
        if self.path.starts_with("tests/fuzz/") {
            return "tests/fuzz";
        }
        self.path.split('/').next().unwrap_or_default()
    }

    /// Whether it is part of what the crate is, tests and benches left out.
    pub(crate) fn is_product(&self) -> bool {
        self.path.strip_prefix(self.member()).is_some_and(|rest| rest.starts_with("/src/"))
    }

    /// Tokens that are compiled when nothing is tested.
    pub(crate) fn product(&self) -> impl Iterator<Item = &Token> {
        self.tokens.iter().filter(|token| !token.test)
    }
}

#[derive(Debug)]
pub(crate) struct Tree {
    /// Every text file: path from the workspace root, and content.
    pub(crate) texts: Vec<(String, String)>,
    pub(crate) sources: Vec<Source>,
}

impl Tree {
    pub(crate) fn read() -> Self {
        let root =
            Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the workspace").to_owned();
        let mut texts = Vec::new();
        walk(&root, &root, &mut texts);
        texts.sort();
        let sources = texts.iter().filter(|(path, _)| path.ends_with(".rs"));
        let mut sources: Vec<_> = sources.map(|(path, text)| Source::new(path, text)).collect();
        mark_test_files(&mut sources);
        assert!(sources.len() > 20, "only {} sources under {}", sources.len(), root.display());
        Self { texts, sources }
    }

    pub(crate) fn text(&self, path: &str) -> &str {
        self.texts.iter().find(|(found, _)| found == path).map_or("", |(_, text)| text)
    }

    /// The folders of the workspace members.
    pub(crate) fn members(&self) -> Vec<String> {
        let manifest = self.text("Cargo.toml");
        let list = manifest.split_once("\nmembers = [").and_then(|(_, rest)| rest.split_once(']'));
        let list = list.expect("the workspace lists its members").0;
        list.split(',')
            .map(|name| name.trim().trim_matches('"').to_owned())
            .filter(|name| !name.is_empty())
            .collect()
    }
}

fn walk(root: &Path, folder: &Path, texts: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).expect("the workspace can be read").flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        let kind = entry.file_type().expect("a file has a type");
        if kind.is_dir() {
            let hidden = name.starts_with('.') && name != ".ci" && name != ".cargo";
            // Built, found by the fuzzer, or somebody's own.
            if !hidden && !["target", "artifacts", "corpus"].contains(&name.as_str()) {
                walk(root, &path, texts);
            }
        } else if kind.is_file()
            && (!name.starts_with('.') || name == ".gitignore")
            && let Ok(text) = fs::read_to_string(&path)
        {
            texts.push((relative(root, &path), text));
        }
    }
}

fn relative(root: &Path, path: &Path) -> String {
    let inside: PathBuf = path.strip_prefix(root).expect("found under the root").into();
    inside.to_string_lossy().replace('\\', "/")
}

/// `#[cfg(test)] mod name;` makes a whole file, and what is under it, test code.
fn mark_test_files(sources: &mut [Source]) {
    let mut tested = Vec::new();
    for source in sources.iter() {
        let stem = source.path.trim_end_matches(".rs");
        let (folder, name) = stem.rsplit_once('/').unwrap_or(("", stem));
        let home = if ["lib", "main", "mod"].contains(&name) { folder } else { stem };
        for (at, token) in source.tokens.iter().enumerate() {
            if token.test && token.is("mod") && follows(&source.tokens, at + 2, &[";"]) {
                tested.push(format!("{home}/{}", source.tokens[at + 1].text));
            }
        }
    }
    for source in sources {
        if tested.iter().any(|path| {
            source.path.strip_prefix(path.as_str()).is_some_and(|rest| rest == ".rs" || rest.starts_with('/'))
        }) {
            source.tokens.iter_mut().for_each(|token| token.test = true);
        }
    }
}

#[test]
fn a_file_that_only_tests_include_is_test_code() {
    let mut sources = [
        Source::new("core/src/a.rs", "#[cfg(test)] mod tests;"),
        Source::new("core/src/a/tests.rs", "fn f() {}"),
        Source::new("core/src/a/tests/deeper.rs", "fn f() {}"),
        Source::new("core/src/a/other.rs", "fn f() {}"),
    ];
    mark_test_files(&mut sources);
    let tested: Vec<bool> = sources.iter().map(|source| source.tokens[0].test).collect();
    assert_eq!(tested, [true, true, true, false]);
}
