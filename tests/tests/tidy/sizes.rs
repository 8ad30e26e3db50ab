//! Files and functions stay small enough to be read at once.

use super::lexer::{Kind, Token, after_group};
use super::tree::Source;

/// Lines of code in a file: worth a look, and too many.
const FILE: [usize; 2] = [700, 900];
/// Lines of a function, from its name to its last brace: worth a look, and too many.
const FUNCTION: [usize; 2] = [80, 120];

/// What is worth a look, and what is too much.
#[derive(Debug, Default)]
pub(crate) struct Found {
    pub(crate) warnings: Vec<String>,
    pub(crate) wrong: Vec<String>,
}

impl Found {
    fn judge(&mut self, size: usize, [look, most]: [usize; 2], what: &str) {
        if size > most {
            self.wrong.push(format!("{what}: {size} lines, at most {most}"));
        } else if size > look {
            self.warnings.push(format!("{what}: {size} lines"));
        }
    }
}

pub(crate) fn check(source: &Source) -> Found {
    let mut found = Found::default();
    let mut lines: Vec<usize> = source.tokens.iter().map(|token| token.line).collect();
    lines.dedup();
    found.judge(lines.len(), FILE, &source.path);
    for (at, token) in source.tokens.iter().enumerate() {
        let Some(name) = source.tokens.get(at + 1).filter(|name| name.kind == Kind::Ident) else { continue };
        if token.is("fn")
            && let Some(last) = body_end(&source.tokens, at + 2)
        {
            let what = format!("{}:{}: fn {}", source.path, token.line, name.text);
            found.judge(last - token.line + 1, FUNCTION, &what);
        }
    }
    found
}

/// The line where the body of a function ends, if it has one; `at` is behind its name.
fn body_end(tokens: &[Token], mut at: usize) -> Option<usize> {
    loop {
        let token = tokens.get(at)?;
        let argument = tokens[at - 1].is("<") || tokens[at - 1].is(",");
        if token.is(";") {
            return None;
        }
        if token.is("{") && !argument {
            return Some(tokens[after_group(tokens, at) - 1].line);
        }
        let group = token.is("(") || token.is("[") || token.is("{");
        at = if group { after_group(tokens, at) } else { at + 1 };
    }
}

#[test]
fn planted_sizes_are_caught() {
    let file = |lines: usize| check(&Source::new("a.rs", &"static A: u8 = 1;\n".repeat(lines)));
    assert_eq!((file(700).warnings.len(), file(700).wrong.len()), (0, 0));
    assert_eq!((file(701).warnings.len(), file(901).wrong.len()), (1, 1));
    let comments = check(&Source::new("a.rs", &"// why\n\n".repeat(1000)));
    assert_eq!((comments.warnings.len(), comments.wrong.len()), (0, 0));

    let function = |lines: usize| {
        let body = "    g();\n".repeat(lines - 2);
        check(&Source::new(
            "a.rs",
            &format!("fn f<T>(a: [u8; {{ 1 }}]) -> List<{{ N }}>\n {{\n{body}}}\nfn g();"),
        ))
    };
    assert_eq!((function(79).warnings.len(), function(119).wrong.len()), (0, 0));
    assert_eq!((function(81).warnings.len(), function(121).wrong.len()), (1, 1));
}
