//! Words to server blocks: keys, and lines of directives.
//!
//! `import` is replaced by what it names before anything is made of it, wherever a
//! line may begin: a snippet `(name) { ... }` that was defined above, or files. Where
//! Caddy goes by tokens and leaves it to each plugin to make sense of braces, we build
//! the tree at once, as no directive of CoreDNS has a block in a block.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    fault::{Fault, Spot},
    lexer::{Word, words},
    surroundings::{Surroundings, glob},
};

/// Imports in one file, those of what is imported included: far more than any
/// Corefile has, and an end for snippets that import each other.
const IMPORTS_MAX: usize = 1000;

/// Words in all, imports included.
const WORDS_MAX: usize = 1 << 20;

/// One server block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    /// Its addresses, as they are written.
    pub(crate) keys: Vec<Word>,
    pub(crate) directives: Vec<Directive>,
}

/// One directive of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Directive {
    /// The directive itself, then what stands on its line.
    pub(crate) head: Line,
    /// What stands between its braces.
    pub(crate) body: Vec<Line>,
}

/// A word that says what it is about, and what follows on its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) name: Word,
    pub(crate) args: Vec<Word>,
}

/// Reads a text.
pub(crate) fn parse(
    text: &str,
    file: &Path,
    surroundings: &dyn Surroundings,
) -> Result<Vec<Block>, Fault> {
    let name: Arc<str> = file.display().to_string().into();
    let words = words(text, &name);
    let start = Spot { file: name, line: 1, column: 1 };
    let mut parser =
        Parser { words, at: 0, start, snippets: BTreeMap::new(), imports: 0, surroundings };
    let mut blocks = Vec::new();
    while parser.peek().is_some() {
        if let Some(block) = parser.block()? {
            blocks.push(block);
        }
    }
    Ok(blocks)
}

struct Parser<'s> {
    words: Vec<Word>,
    at: usize,
    start: Spot,
    snippets: BTreeMap<String, Vec<Word>>,
    imports: usize,
    surroundings: &'s dyn Surroundings,
}

impl Parser<'_> {
    fn peek(&self) -> Option<&Word> {
        self.words.get(self.at)
    }

    fn peek_is(&self, text: &str) -> bool {
        self.peek().is_some_and(|word| word.text == text)
    }

    fn take(&mut self) -> Option<Word> {
        let word = self.peek()?.clone();
        self.at += 1;
        Some(word)
    }

    /// Whether the next word is the first of its line.
    fn begins_line(&self) -> bool {
        match (self.at.checked_sub(1).and_then(|before| self.words.get(before)), self.peek()) {
            (Some(before), Some(next)) => !before.shares_line(next),
            _ => true,
        }
    }

    /// Where the text is over: behind what was read last.
    fn end(&self) -> Spot {
        self.words.last().map_or(self.start.clone(), |word| word.spot.clone())
    }

    fn block(&mut self) -> Result<Option<Block>, Fault> {
        let keys = self.keys()?;
        if let [key] = &keys[..]
            && let Some(name) = key.text.strip_prefix('(').and_then(|name| name.strip_suffix(')'))
        {
            self.snippet(key, name)?;
            return Ok(None);
        }
        let braces = self.peek_is("{");
        if braces {
            self.at += 1;
        }
        let mut directives = Vec::new();
        loop {
            if braces && self.peek_is("}") && self.begins_line() {
                self.at += 1;
                break;
            }
            if self.peek_is("import") {
                self.import()?;
                continue;
            }
            match self.peek() {
                Some(_) => directives.push(self.directive()?),
                None if braces => {
                    return Err(Fault::new(&self.end(), "expected '}' that ends the server block"));
                }
                None => break,
            }
        }
        Ok((!keys.is_empty()).then_some(Block { keys, directives }))
    }

    /// The addresses before a block. A comma says that another one follows, also on
    /// the next line.
    fn keys(&mut self) -> Result<Vec<Word>, Fault> {
        let mut keys: Vec<Word> = Vec::new();
        let mut more = false;
        loop {
            if self.begins_line() && self.peek_is("import") {
                self.import()?;
                continue;
            }
            let Some(word) = self.peek().cloned() else {
                if more {
                    return Err(Fault::new(&self.end(), "expected another address behind ','"));
                }
                return Ok(keys);
            };
            if word.text == "{" {
                if more {
                    let text = "expected another address behind ',', found '{'";
                    return Err(Fault::new(&word.spot, text));
                }
                return Ok(keys);
            }
            if word.text == "}" {
                return Err(Fault::new(&word.spot, "expected a server block, found '}'"));
            }
            if !more && !keys.is_empty() && self.begins_line() {
                return Ok(keys);
            }
            self.at += 1;
            let text = self.expanded(&word.text);
            let key = text.strip_suffix(',');
            more = key.is_some() || (text.is_empty() && more);
            let text = key.map(ToOwned::to_owned).unwrap_or(text);
            if !text.is_empty() {
                keys.push(Word { text, ..word });
            }
        }
    }

    /// Keeps what stands between the braces, unread.
    fn snippet(&mut self, key: &Word, name: &str) -> Result<(), Fault> {
        if self.snippets.contains_key(name) {
            let text = format!("the snippet ({name}) is defined above already");
            return Err(Fault::new(&key.spot, text));
        }
        if !self.peek_is("{") {
            return Err(Fault::new(&key.spot, format!("expected '{{' behind ({name})")));
        }
        self.at += 1;
        let (start, mut depth) = (self.at, 1);
        while let Some(word) = self.take() {
            match word.text.as_str() {
                "{" => depth += 1,
                "}" => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                let body = self.words.get(start..self.at - 1).unwrap_or_default();
                self.snippets.insert(name.to_owned(), body.to_vec());
                return Ok(());
            }
        }
        Err(Fault::new(&self.end(), format!("expected '}}' that ends the snippet ({name})")))
    }

    fn directive(&mut self) -> Result<Directive, Fault> {
        let head = self.line()?;
        if !self.peek_is("{") {
            return Ok(Directive { head, body: Vec::new() });
        }
        if self.begins_line() {
            let text = format!("expected '{{' on the line of {:?}", head.name.text);
            return Err(Fault::new(&self.spot(), text));
        }
        self.at += 1;
        let mut body = Vec::new();
        loop {
            if self.peek_is("}") {
                self.at += 1;
                break;
            }
            if self.peek_is("import") && self.begins_line() {
                self.import()?;
                continue;
            }
            if self.peek().is_none() {
                let text = format!("expected '}}' that ends the block of {:?}", head.name.text);
                return Err(Fault::new(&self.end(), text));
            }
            body.push(self.line()?);
            if self.peek_is("{") {
                let text = format!(
                    "found '{{' in the block of {:?}: its lines have no blocks",
                    head.name.text
                );
                return Err(Fault::new(&self.spot(), text));
            }
        }
        if self.peek().is_some() && !self.begins_line() {
            let text = "expected a new line behind '}'";
            return Err(Fault::new(&self.spot(), text));
        }
        Ok(Directive { head, body })
    }

    fn spot(&self) -> Spot {
        self.peek().map_or_else(|| self.end(), |word| word.spot.clone())
    }

    /// Words up to the end of the line, or to a brace.
    fn line(&mut self) -> Result<Line, Fault> {
        let mut words = Vec::new();
        while let Some(word) = self.peek().cloned() {
            if !words.is_empty() && (self.begins_line() || word.text == "{") {
                break;
            }
            if word.text == "}" {
                let text = "found '}' where no block ends; it stands on a line of its own";
                return Err(Fault::new(&word.spot, text));
            }
            if word.text == "{" {
                return Err(Fault::new(&word.spot, "expected a directive, found '{'"));
            }
            self.at += 1;
            words.push(Word { text: self.expanded(&word.text), ..word });
        }
        let mut words = words.into_iter();
        match words.next() {
            Some(name) => Ok(Line { name, args: words.collect() }),
            None => Err(Fault::new(&self.end(), "expected a directive")),
        }
    }

    /// Puts what an `import` names in its place.
    fn import(&mut self) -> Result<(), Fault> {
        let start = self.at;
        let line = self.line()?;
        let spot = &line.name.spot;
        let what = match &line.args[..] {
            [what] if !what.text.is_empty() => what,
            _ => {
                let text = "expected one snippet, file or pattern behind import";
                return Err(Fault::new(spot, text));
            }
        };
        self.imports += 1;
        if self.imports > IMPORTS_MAX {
            let text = format!("more than {IMPORTS_MAX} imports: do they import each other?");
            return Err(Fault::new(spot, text));
        }
        let imported = match self.snippets.get(&what.text) {
            Some(snippet) => snippet.clone(),
            None => self.imported_files(what)?,
        };
        if self.words.len() + imported.len() > WORDS_MAX {
            return Err(Fault::new(spot, format!("more than {WORDS_MAX} words in all")));
        }
        self.words.splice(start..self.at, imported);
        self.at = start;
        Ok(())
    }

    /// The words of all files that are meant, a relative path from the file that
    /// imports. A pattern may mean none.
    fn imported_files(&self, what: &Word) -> Result<Vec<Word>, Fault> {
        let wildcards = |c: char| what.text.matches(c).count();
        if wildcards('*') > 1 || wildcards('?') > 1 || what.text.contains('[') {
            let text = format!("{:?}: a pattern has at most one '*' and one '?'", what.text);
            return Err(Fault::new(&what.spot, text));
        }
        let folder = Path::new(&*what.spot.file).parent().unwrap_or(Path::new(""));
        let pattern = folder.join(&what.text);
        let files: Vec<PathBuf> = glob(self.surroundings, &pattern);
        let mut imported = Vec::new();
        for file in &files {
            let text = self.surroundings.read(file).map_err(|error| {
                let text = format!("cannot import {}: {error}", file.display());
                Fault::new(&what.spot, text)
            })?;
            imported.extend(words(&text, &file.display().to_string().into()));
        }
        Ok(imported)
    }

    /// With `{$NAME}` and `{%NAME%}` replaced; a variable that is not set is empty.
    /// Unlike Caddy, values are not looked through again, which could go on for ever.
    fn expanded(&self, text: &str) -> String {
        let text = self.replaced(text, "{%", "%}");
        self.replaced(&text, "{$", "}")
    }

    fn replaced(&self, text: &str, open: &str, close: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, inside)) = rest.split_once(open) {
            let Some((name, after)) = inside.split_once(close).filter(|(name, _)| !name.is_empty())
            else {
                break;
            };
            out.push_str(before);
            out.push_str(&self.surroundings.variable(name));
            rest = after;
        }
        out.push_str(rest);
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::corefile::surroundings::tests::Fake;

    fn fake() -> Fake {
        Fake::default()
            .file("/etc/custom/a.server", "a.test {\n  whoami\n}\n")
            .file("/etc/custom/b.server", "import c/more\n")
            .file("/etc/custom/c/more", "b.test:5300 {\n  errors\n}")
            .file("/etc/custom/x.override", "log\nerrors {\n  consolidate 5m \".*\" warning\n}")
            .file("/etc/loop", "import loop\n")
            .variable("ZONE", "example.org")
            .variable("PORT", "1053")
            .variable("SELF", "{$SELF}")
    }

    /// Blocks in one line: keys { directive args { line; line } ... }
    fn read(text: &str) -> String {
        match parse(text, Path::new("/etc/Corefile"), &fake()) {
            Err(fault) => format!("error {fault}"),
            Ok(blocks) => blocks.iter().map(shown).collect::<Vec<_>>().join(" | "),
        }
    }

    fn shown(block: &Block) -> String {
        let line = |line: &Line| {
            let words = [&line.name].into_iter().chain(&line.args);
            words.map(|word| word.text.as_str()).collect::<Vec<_>>().join(" ")
        };
        let keys: Vec<&str> = block.keys.iter().map(|key| key.text.as_str()).collect();
        let directives = block.directives.iter().map(|directive| {
            let body: Vec<String> = directive.body.iter().map(line).collect();
            let head = line(&directive.head);
            if body.is_empty() { head } else { format!("{head} [{}]", body.join(", ")) }
        });
        format!("{}: {}", keys.join(" "), directives.collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn blocks_of_a_text() {
        for (text, expected) in [
            ("", ""),
            (".:53 {\n errors\n}", ".:53: errors"),
            ("a.test\nerrors\nlog .", "a.test: errors; log ."),
            ("a b, c,\nd {\n}\n", "a b c d: "),
            ("a {\n}\nb {\n}", "a:  | b: "),
            ("a {\n health {\n lameduck 5s\n }\n ready\n}", "a: health [lameduck 5s]; ready"),
            ("a {\n log {\n }\n log { }\n}", "a: log; log"),
            ("{$ZONE}:{%PORT%} {\n x {$NOT} a{$ZONE}b\n}", "example.org:1053: x  aexample.orgb"),
            ("a {\n x {$SELF} {$}\n}", "a: x {$SELF} {$}"),
            ("(s) {\n errors\n log\n}\na {\n import s\n ready\n}", "a: errors; log; ready"),
            ("(s) {\n class all\n}\na {\n log {\n  import s\n }\n}", "a: log [class all]"),
            ("a {\n import custom/*.override\n}", "a: log; errors [consolidate 5m .* warning]"),
            ("import custom/*.server\n. {\n}", "a.test: whoami | b.test:5300: errors | .: "),
            ("a {\n import none/*\n errors\n}", "a: errors"),
            (
                "a {\n template \"x { y\" \"}\"z\n}",
                "error /etc/Corefile:2:19: found '}' where no block ends; it stands on a line of its own",
            ),
            ("a {\n answer \"{{ .Name }} 60 IN A\"\n}", "a: answer {{ .Name }} 60 IN A"),
        ] {
            assert_eq!(read(text), expected, "{text:?}");
        }
    }

    #[test]
    fn what_is_wrong_and_where() {
        for (text, expected) in [
            ("a {\n errors\n", "2:2: expected '}' that ends the server block"),
            ("a {\n log {\n  class all\n", "3:9: expected '}' that ends the block of \"log\""),
            ("}", "1:1: expected a server block, found '}'"),
            ("a, {\n}", "1:4: expected another address behind ',', found '{'"),
            ("a,", "1:1: expected another address behind ','"),
            ("a {\n log\n {\n }\n}", "3:2: expected '{' on the line of \"log\""),
            ("a {\n {\n}", "2:2: expected a directive, found '{'"),
            ("a { whoami }", "1:12: found '}' where no block ends; it stands on a line of its own"),
            (
                "a {\n log {\n x {\n",
                "3:4: found '{' in the block of \"log\": its lines have no blocks",
            ),
            ("a {\n import\n}", "2:2: expected one snippet, file or pattern behind import"),
            ("a {\n import x y\n}", "2:2: expected one snippet, file or pattern behind import"),
            ("a {\n import none\n}", "2:9: cannot import /etc/none: entity not found"),
            ("a {\n import */x*\n}", "2:9: \"*/x*\": a pattern has at most one '*' and one '?'"),
            ("(s) {\n}\n(s) {\n}", "3:1: the snippet (s) is defined above already"),
            ("(s)\n{", "2:1: expected '}' that ends the snippet (s)"),
            (
                "(s) {\n import s\n}\na {\n import s\n}",
                "2:2: more than 1000 imports: do they import each other?",
            ),
            ("a {\n log {\n } x\n}", "3:4: expected a new line behind '}'"),
        ] {
            assert_eq!(read(text), format!("error /etc/Corefile:{expected}"), "{text:?}");
        }
        let fault = "error /etc/loop:1:1: more than 1000 imports: do they import each other?";
        assert_eq!(read("a {\n import loop\n}"), fault);
    }

    proptest! {
        /// Whatever the text: blocks, or a fault with a place in it.
        #[test]
        fn any_text(words in prop::collection::vec(
            prop::sample::select(vec![
                "a", "{", "}", "\n", "\n", "import", "(s)", "s", ",", "b,", "\"", "#", "{$ZONE}",
                "{%", "custom/*", "\\",
            ]),
            0..40,
        )) {
            let text = words.join(" ");
            if let Err(fault) = parse(&text, Path::new("/etc/Corefile"), &fake()) {
                prop_assert!(fault.spot.line >= 1 && fault.spot.column >= 1);
            }
        }
    }
}
