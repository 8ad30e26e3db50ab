//! Rust source as tokens: comments gone, strings and characters closed, each token with its line and whether only
//! tests compile it. It knows just enough of the language that no rule is fooled by a word in a string or a comment.

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Ident,
    Number,
    Text,
    Lifetime,
    Punct,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    /// From 1.
    pub(crate) line: usize,
    /// Under `#[cfg(test)]` or `#[test]`.
    pub(crate) test: bool,
}

impl Token {
    pub(crate) fn is(&self, text: &str) -> bool {
        matches!(self.kind, Kind::Ident | Kind::Punct) && self.text == text
    }
}

/// Whether the tokens from `at` on are exactly these words and signs.
pub(crate) fn follows(tokens: &[Token], at: usize, what: &[&str]) -> bool {
    what.iter().enumerate().all(|(i, text)| tokens.get(at + i).is_some_and(|token| token.is(text)))
}

/// The index after the bracket that closes the one at `open`.
pub(crate) fn after_group(tokens: &[Token], open: usize) -> usize {
    let mut depth = 0_usize;
    for (at, token) in tokens.iter().enumerate().skip(open) {
        if token.kind == Kind::Punct {
            match token.text.as_str() {
                "(" | "[" | "{" => depth += 1,
                ")" | "]" | "}" => depth = depth.saturating_sub(1),
                _ => {}
            }
            if depth == 0 {
                return at + 1;
            }
        }
    }
    tokens.len()
}

pub(crate) fn lex(source: &str) -> Vec<Token> {
    let mut lexer = Lexer { chars: source.chars().collect(), at: 0, line: 1, tokens: Vec::new() };
    lexer.run();
    let mut tokens = lexer.tokens;
    mark_tests(&mut tokens);
    tokens
}

struct Lexer {
    chars: Vec<char>,
    at: usize,
    line: usize,
    tokens: Vec<Token>,
}

impl Lexer {
    fn peek(&self, ahead: usize) -> char {
        self.chars.get(self.at + ahead).copied().unwrap_or('\0')
    }

    fn step(&mut self) -> char {
        let c = self.peek(0);
        self.at += 1;
        self.line += usize::from(c == '\n');
        c
    }

    fn ended(&self) -> bool {
        self.at >= self.chars.len()
    }

    fn push(&mut self, kind: Kind, text: String, line: usize) {
        self.tokens.push(Token { kind, text, line, test: false });
    }

    fn run(&mut self) {
        while !self.ended() {
            let (c, next, line) = (self.peek(0), self.peek(1), self.line);
            if c.is_whitespace() {
                self.step();
            } else if c == '/' && next == '/' {
                while !self.ended() && self.peek(0) != '\n' {
                    self.step();
                }
            } else if c == '/' && next == '*' {
                self.block_comment();
            } else if let Some(hashes) = self.raw_string() {
                self.raw(hashes, line);
            } else if c == '"' || (matches!(c, 'b' | 'c') && next == '"') {
                self.quoted('"', line);
            } else if c == 'b' && next == '\'' {
                self.quoted('\'', line);
            } else if c == '\'' {
                if next == '\\' || self.peek(2) == '\'' {
                    self.quoted('\'', line);
                } else {
                    self.step();
                    let text = self.word();
                    self.push(Kind::Lifetime, text, line);
                }
            } else if c.is_ascii_digit() {
                let mut text = self.word();
                if self.peek(0) == '.' && self.peek(1).is_ascii_digit() {
                    text.push(self.step());
                    text += &self.word();
                }
                self.push(Kind::Number, text, line);
            } else if c.is_alphabetic() || c == '_' {
                if c == 'r' && next == '#' {
                    self.at += 2;
                }
                let text = self.word();
                self.push(Kind::Ident, text, line);
            } else {
                let sign = self.step();
                self.push(Kind::Punct, sign.to_string(), line);
            }
        }
    }

    fn word(&mut self) -> String {
        let mut text = String::new();
        while self.peek(0).is_alphanumeric() || self.peek(0) == '_' {
            text.push(self.step());
        }
        text
    }

    fn block_comment(&mut self) {
        let mut depth = 0_usize;
        while !self.ended() {
            match (self.peek(0), self.peek(1)) {
                ('/', '*') => {
                    depth += 1;
                    self.at += 2;
                }
                ('*', '/') => {
                    depth -= 1;
                    self.at += 2;
                }
                _ => {
                    self.step();
                }
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// How many `#` open the raw string that starts here, if one does.
    fn raw_string(&self) -> Option<usize> {
        let prefix = match (self.peek(0), self.peek(1)) {
            ('r', _) => 1,
            ('b' | 'c', 'r') => 2,
            _ => return None,
        };
        let mut hashes = 0;
        while self.peek(prefix + hashes) == '#' {
            hashes += 1;
        }
        (self.peek(prefix + hashes) == '"').then_some(hashes)
    }

    fn raw(&mut self, hashes: usize, line: usize) {
        while self.step() != '"' {}
        let mut text = String::new();
        while !self.ended() {
            if self.peek(0) == '"' && (1..=hashes).all(|i| self.peek(i) == '#') {
                self.at += 1 + hashes;
                break;
            }
            text.push(self.step());
        }
        self.push(Kind::Text, text, line);
    }

    fn quoted(&mut self, quote: char, line: usize) {
        while self.step() != quote {}
        let mut text = String::new();
        while !self.ended() && self.peek(0) != quote {
            if self.peek(0) == '\\' {
                text.push(self.step());
            }
            text.push(self.step());
        }
        self.step();
        self.push(Kind::Text, text, line);
    }
}

fn mark_tests(tokens: &mut [Token]) {
    let mut at = 0;
    while at < tokens.len() {
        if follows(tokens, at, &["#", "!", "["]) && only_tests(tokens, at + 3) {
            for token in tokens.iter_mut() {
                token.test = true;
            }
            return;
        }
        if follows(tokens, at, &["#", "["]) && only_tests(tokens, at + 2) {
            let end = item_end(tokens, after_group(tokens, at + 1));
            for token in tokens.iter_mut().take(end).skip(at) {
                token.test = true;
            }
            at = end;
        } else {
            at += 1;
        }
    }
}

/// Whether the attribute whose first word is at `at` leaves the item to tests alone.
fn only_tests(tokens: &[Token], at: usize) -> bool {
    if follows(tokens, at, &["test", "]"]) {
        return true;
    }
    let inside = &tokens[at..after_group(tokens, at + 1).min(tokens.len())];
    follows(tokens, at, &["cfg", "("])
        && inside.iter().any(|token| token.is("test"))
        && !inside.iter().any(|token| token.is("not") || token.is("any"))
}

/// The index after the item (or field) that starts at `at`, its other attributes included.
fn item_end(tokens: &[Token], mut at: usize) -> usize {
    while follows(tokens, at, &["#", "["]) {
        at = after_group(tokens, at + 1);
    }
    if follows(tokens, at, &["pub"]) {
        at = if follows(tokens, at + 1, &["("]) { after_group(tokens, at + 1) } else { at + 1 };
    }
    let first = tokens.get(at).map_or("", |token| token.text.as_str());
    let statement =
        ["use", "const", "static", "let", "type"].contains(&first) && !follows(tokens, at, &["const", "fn"]);
    let item = ["fn", "mod", "impl", "struct", "enum", "trait", "extern", "async", "const", "macro_rules"];
    let field = !statement && !item.contains(&first);
    while let Some(token) = tokens.get(at) {
        match token.text.as_str() {
            _ if token.kind != Kind::Punct => at += 1,
            ";" => return at + 1,
            "," if field => return at + 1,
            ")" | "]" | "}" => return at,
            "{" if !statement => return after_group(tokens, at),
            "(" | "[" | "{" => at = after_group(tokens, at),
            _ => at += 1,
        }
    }
    at
}

#[test]
fn words_in_comments_and_strings_are_no_words() {
    let source = r####"
        // unsafe
        /* unsafe /* unsafe */ unsafe */
        const A: &str = "unsafe \" unsafe"; const B: &str = r#"un"safe unsafe"#; const C: &[u8] = b"unsafe";
        const D: char = '"'; const E: char = '\''; const F: u8 = b'"'; fn life<'a>(x: &'a str) -> &'a str { x }
        fn kept() {}
    "####;
    let tokens = lex(source);
    assert!(!tokens.iter().any(|token| token.is("unsafe")));
    let kept = tokens.iter().find(|token| token.is("kept")).unwrap();
    assert_eq!(kept.line, 6);
    assert!(tokens.iter().any(|token| token.kind == Kind::Lifetime && token.text == "a"));
}

#[test]
fn what_only_tests_compile_is_told_from_the_rest() {
    let source = "
        struct S { a: u8, #[cfg(test)] tested_field: u8, plain_field: u8 }
        #[cfg(test)] use x::{tested_use, y};
        fn plain_one() -> [u8; 2] { [0; 2] }
        #[cfg(test)] #[rustfmt::skip] pub(crate) fn f<A, B>() { tested_fn() }
        #[cfg(not(test))] fn plain_two() {}
        #[cfg_attr(not(test), deny(x))] fn plain_three() {}
        #[test] fn t() { tested_body() }
        #[cfg(test)] mod tests { fn g() { tested_mod() } }
        fn plain_four() {}
    ";
    for token in lex(source) {
        if token.text.starts_with("tested") {
            assert!(token.test, "{token:?}");
        }
        if token.text.starts_with("plain") {
            assert!(!token.test, "{token:?}");
        }
    }
    assert!(lex("#![cfg(test)] fn f() {}").iter().all(|token| token.test));
}
