//! Rust source as far as imports go: tokens, without comments, strings and tests; modules and their paths.

use std::collections::BTreeMap;
use std::ops::Range;

pub(crate) struct Token<'a> {
    pub(crate) text: &'a str,
    pub(crate) line: usize,
}

/// A module, in a file of its own or within another's.
#[derive(Default)]
pub(crate) struct Module {
    pub(crate) children: Vec<String>,
    pub(crate) inline: Vec<(String, Module)>,
    /// What `use` brings here: by which name, from which path.
    pub(crate) names: BTreeMap<String, Vec<String>>,
    pub(crate) paths: Vec<Path>,
}

/// A path of at least two names.
pub(crate) struct Path {
    pub(crate) names: Vec<String>,
    pub(crate) line: usize,
    pub(crate) is_reexport: bool,
}

/// The module that `source` is. Empty if all of it is a test.
pub(crate) fn module(source: &str) -> Module {
    let tokens = without_tests(&tokens(source));
    let mut module = Module::default();
    Reader { tokens: &tokens, module: &mut module }.read();
    module
}

fn tokens(source: &str) -> Vec<Token<'_>> {
    let (mut tokens, mut at, mut line) = (Vec::new(), 0, 1);
    while at < source.len() {
        let rest = &source[at..];
        let (len, is_token) = first_token(rest);
        let text = &rest[..len];
        if is_token {
            tokens.push(Token { text, line });
        }
        line += text.matches('\n').count();
        at += len;
    }
    tokens
}

/// The length of what `rest` begins with, and whether it matters.
fn first_token(rest: &str) -> (usize, bool) {
    let first = rest.chars().next().unwrap_or(' ');
    if rest.starts_with("//") {
        (rest.find('\n').unwrap_or(rest.len()), false)
    } else if rest.starts_with("/*") {
        (block_comment_len(rest), false)
    } else if let Some(len) = string_len(rest) {
        (len, false)
    } else if first.is_alphanumeric() || first == '_' {
        (rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()), true)
    } else if rest.starts_with("::") {
        (2, true)
    } else {
        (first.len_utf8(), !first.is_whitespace())
    }
}

fn block_comment_len(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        let step = match &rest.as_bytes()[at..] {
            [b'/', b'*', ..] => (1, 2),
            [b'*', b'/', ..] => (-1, 2),
            _ => (0, 1),
        };
        depth += step.0;
        at += step.1;
        if depth == 0 {
            break;
        }
    }
    at
}

/// The length of the string or character that `rest` begins with. A lifetime is none.
fn string_len(rest: &str) -> Option<usize> {
    let unprefixed = rest.trim_start_matches(['b', 'c', 'r']);
    let prefix = &rest[..rest.len() - unprefixed.len()];
    if prefix.len() > 2 {
        return None;
    }
    if prefix.ends_with('r') {
        let hashes = unprefixed.len() - unprefixed.trim_start_matches('#').len();
        let body = unprefixed[hashes..].strip_prefix('"')?;
        let end = format!("\"{}", "#".repeat(hashes));
        let len = body.find(&end).map_or(body.len(), |found| found + end.len());
        return Some(prefix.len() + hashes + 1 + len);
    }
    let quote = unprefixed.chars().next().filter(|first| matches!(first, '"' | '\''))?;
    let mut characters = unprefixed.char_indices().skip(1);
    if quote == '\'' && !unprefixed.starts_with("'\\") && unprefixed.chars().nth(2) != Some('\'') {
        return None;
    }
    while let Some((at, character)) = characters.next() {
        if character == '\\' {
            characters.next();
        } else if character == quote {
            return Some(prefix.len() + at + 1);
        }
    }
    Some(rest.len())
}

/// Takes out each item behind `#[cfg(test)]`, and all of a file that begins so.
fn without_tests<'a>(tokens: &[Token<'a>]) -> Vec<Token<'a>> {
    let (mut kept, mut at) = (Vec::new(), 0);
    while let Some(token) = tokens.get(at) {
        if is_test_attribute(&tokens[at..], &["#", "!", "["]) {
            return Vec::new();
        }
        if is_test_attribute(&tokens[at..], &["#", "["]) {
            at = item_end(tokens, at);
            continue;
        }
        kept.push(Token { text: token.text, line: token.line });
        at += 1;
    }
    kept
}

fn is_test_attribute(tokens: &[Token<'_>], opening: &[&str]) -> bool {
    let begins = |words: &[&str]| {
        let wanted = opening.iter().chain(words);
        tokens.len() >= opening.len() + words.len()
            && tokens.iter().zip(wanted).all(|(t, w)| t.text == *w)
    };
    begins(&["cfg", "(", "test", ")"]) || begins(&["cfg", "(", "all", "(", "test"])
}

/// Behind the item whose attributes begin at `at`.
fn item_end(tokens: &[Token<'_>], mut at: usize) -> usize {
    while tokens.get(at).is_some_and(|token| token.text == "#") {
        at = group(tokens, at + 1).end;
    }
    // Fields, variants and arms end at a comma, which an item may have at its outermost level, too.
    let is_item = tokens.get(at).is_some_and(|token| ITEMS.contains(&token.text));
    while let Some(token) = tokens.get(at) {
        match token.text {
            "{" => return group(tokens, at).end,
            "(" | "[" => at = group(tokens, at).end,
            ";" => return at + 1,
            "," if !is_item => return at + 1,
            "}" => return at,
            _ => at += 1,
        }
    }
    at
}

const ITEMS: [&str; 16] = [
    "async",
    "const",
    "enum",
    "extern",
    "fn",
    "impl",
    "let",
    "macro_rules",
    "mod",
    "pub",
    "static",
    "struct",
    "trait",
    "type",
    "unsafe",
    "use",
];

/// What stands within the bracket at `at` and the one that closes it, both included.
fn group(tokens: &[Token<'_>], at: usize) -> Range<usize> {
    let mut depth = 0;
    for (index, token) in tokens.iter().enumerate().skip(at) {
        match token.text {
            "(" | "[" | "{" => depth += 1,
            ")" | "]" | "}" => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return at..index + 1;
        }
    }
    at..tokens.len()
}

struct Reader<'a, 'm> {
    tokens: &'a [Token<'a>],
    module: &'m mut Module,
}

impl Reader<'_, '_> {
    fn text(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text)
    }

    fn read(&mut self) {
        let mut at = 0;
        while at < self.tokens.len() {
            at = match self.text(at) {
                "mod" if self.text(at + 2) == ";" => {
                    self.module.children.push(self.text(at + 1).to_owned());
                    at + 3
                }
                "mod" if self.text(at + 2) == "{" => self.inline_module(at),
                // Behind a plus it says what a type captures.
                "use" if self.text(at + 1) != "<" => self.use_line(at),
                _ => self.inline_path(at),
            };
        }
    }

    fn inline_module(&mut self, at: usize) -> usize {
        let body = group(self.tokens, at + 2);
        let mut module = Module::default();
        let tokens = &self.tokens[body.start + 1..body.end - 1];
        Reader { tokens, module: &mut module }.read();
        self.module.inline.push((self.text(at + 1).to_owned(), module));
        body.end
    }

    fn use_line(&mut self, at: usize) -> usize {
        let before = at.checked_sub(1).map_or("", |before| self.text(before));
        let is_reexport = matches!(before, "pub" | ")");
        self.use_tree(at + 1, &[], is_reexport)
    }

    /// Reads one tree of a `use` line that begins at `at`, below `prefix`, and gives where it ends.
    fn use_tree(&mut self, mut at: usize, prefix: &[String], is_reexport: bool) -> usize {
        let (mut names, line) = (prefix.to_vec(), self.tokens[at].line);
        loop {
            match self.text(at) {
                "::" => at += 1,
                "{" => {
                    let end = group(self.tokens, at).end;
                    while at + 1 < end {
                        at = self.use_tree(at + 1, &names, is_reexport);
                    }
                    return end;
                }
                "" | "," | "}" | ";" | "as" => break,
                "self" if !names.is_empty() => at += 1,
                name => {
                    names.push(name.to_owned());
                    at += 1;
                }
            }
        }
        let mut alias = names.last().cloned().unwrap_or_default();
        if self.text(at) == "as" {
            alias = self.text(at + 1).to_owned();
            at += 2;
        }
        if names.last().is_some_and(|last| last == "*") {
            names.pop();
        } else if !names.is_empty() {
            self.module.names.insert(alias, names.clone());
        }
        if !names.is_empty() {
            self.module.paths.push(Path { names, line, is_reexport });
        }
        at
    }

    /// Reads the path that stands at `at`, if one does, and gives where to go on.
    fn inline_path(&mut self, at: usize) -> usize {
        let is_name = |text: &str| text.starts_with(|c: char| c.is_alphabetic() || c == '_');
        if !is_name(self.text(at)) {
            return at + 1;
        }
        let (mut names, mut end) = (vec![self.text(at).to_owned()], at + 1);
        while self.text(end) == "::" && is_name(self.text(end + 1)) {
            names.push(self.text(end + 1).to_owned());
            end += 2;
        }
        let is_continued = at.checked_sub(1).is_some_and(|before| self.text(before) == "::");
        if names.len() > 1 && !is_continued {
            let line = self.tokens[at].line;
            self.module.paths.push(Path { names, line, is_reexport: false });
        }
        end
    }
}
