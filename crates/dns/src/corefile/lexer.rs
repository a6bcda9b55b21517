//! Text to words, by the rules of Caddy 1 that CoreDNS reads its Corefile with.
//!
//! Words are split by white space. A word that begins with a quote goes on to the
//! next quote, over lines too; in it `\"` is a quote, and any other backslash is
//! itself. `#` begins a comment, also in the middle of a word. There is no
//! continuation of lines: a backslash at the end of one is a word.

use std::sync::Arc;

use super::fault::Spot;

/// A word.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Word {
    pub(crate) text: String,
    pub(crate) spot: Spot,
    /// Lines that it spans beyond the first.
    pub(super) breaks: usize,
}

impl Word {
    /// Whether `next` stands on the line where this word ends.
    pub(crate) fn shares_line(&self, next: &Self) -> bool {
        self.spot.file == next.spot.file && self.spot.line + self.breaks >= next.spot.line
    }
}

/// All words of a text.
pub(crate) fn words(text: &str, file: &Arc<str>) -> Vec<Word> {
    let mut lexer = Lexer { line: 1, column: 0, words: Vec::new(), file: file.clone() };
    let mut chars = text.strip_prefix('\u{feff}').unwrap_or(text).chars().peekable();
    while let Some(c) = chars.next() {
        lexer.step(c);
        match c {
            c if c.is_whitespace() => {}
            '#' => lexer.comment(&mut chars),
            '"' => lexer.quoted(&mut chars),
            c => lexer.plain(c, &mut chars),
        }
    }
    lexer.words
}

type Chars<'t> = std::iter::Peekable<std::str::Chars<'t>>;

struct Lexer {
    line: usize,
    column: usize,
    words: Vec<Word>,
    file: Arc<str>,
}

impl Lexer {
    fn step(&mut self, c: char) {
        if c == '\n' {
            self.line += 1;
            self.column = 0;
        } else {
            self.column += 1;
        }
    }

    fn spot(&self) -> Spot {
        Spot { file: self.file.clone(), line: self.line, column: self.column }
    }

    fn push(&mut self, text: String, spot: Spot) {
        let breaks = text.matches('\n').count();
        self.words.push(Word { text, spot, breaks });
    }

    /// Up to the end of the line, which is left.
    fn comment(&mut self, chars: &mut Chars<'_>) {
        while let Some(c) = chars.next_if(|c| *c != '\n') {
            self.step(c);
        }
    }

    fn quoted(&mut self, chars: &mut Chars<'_>) {
        let spot = self.spot();
        let mut text = String::new();
        let mut closed = false;
        while let Some(c) = chars.next() {
            self.step(c);
            match c {
                '"' => {
                    closed = true;
                    break;
                }
                '\\' if chars.next_if_eq(&'"').is_some() => {
                    self.step('"');
                    text.push('"');
                }
                c => text.push(c),
            }
        }
        // Caddy drops a quote that is opened by the last character.
        if closed || !text.is_empty() {
            self.push(text, spot);
        }
    }

    fn plain(&mut self, first: char, chars: &mut Chars<'_>) {
        let spot = self.spot();
        let mut text = String::from(first);
        while let Some(c) = chars.next_if(|c| *c == '\r' || !c.is_whitespace()) {
            self.step(c);
            match c {
                '#' => {
                    self.comment(chars);
                    break;
                }
                // Caddy passes over carriage returns wherever they stand.
                '\r' => {}
                c => text.push(c),
            }
        }
        self.push(text, spot);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str) -> Vec<(String, usize, usize)> {
        let words = words(text, &Arc::from("Corefile"));
        words.into_iter().map(|word| (word.text, word.spot.line, word.spot.column)).collect()
    }

    #[test]
    fn words_of_a_text() {
        for (text, expected) in [
            ("", vec![]),
            ("a  b\n c", vec![("a", 1, 1), ("b", 1, 4), ("c", 2, 2)]),
            ("a # b\nc", vec![("a", 1, 1), ("c", 2, 1)]),
            ("a#b c\nd", vec![("a", 1, 1), ("d", 2, 1)]),
            ("\"a b\" c", vec![("a b", 1, 1), ("c", 1, 7)]),
            (r#""a \"b\" \n" c"#, vec![(r#"a "b" \n"#, 1, 1), ("c", 1, 14)]),
            ("\"a\nb\" c", vec![("a\nb", 1, 1), ("c", 2, 4)]),
            ("\"\" c", vec![("", 1, 1), ("c", 1, 4)]),
            ("a\"b c\"", vec![("a\"b", 1, 1), ("c\"", 1, 5)]),
            ("\"open", vec![("open", 1, 1)]),
            ("\"", vec![]),
            ("\u{feff}a", vec![("a", 1, 1)]),
            ("a\r\nb", vec![("a", 1, 1), ("b", 2, 1)]),
            ("a \\\nb", vec![("a", 1, 1), ("\\", 1, 3), ("b", 2, 1)]),
            ("a\u{a0}b", vec![("a", 1, 1), ("b", 1, 3)]),
        ] {
            let found = read(text);
            let found: Vec<(&str, usize, usize)> =
                found.iter().map(|(word, line, column)| (word.as_str(), *line, *column)).collect();
            assert_eq!(found, expected, "{text:?}");
        }
    }

    #[test]
    fn a_word_over_two_lines_ends_on_the_second() {
        let words = words("\"a\nb\" c\nd", &Arc::from("f"));
        assert!(words[0].shares_line(&words[1]));
        assert!(!words[1].shares_line(&words[2]));
    }

    proptest! {
        /// Any text has words, and each of them stands where it says.
        #[test]
        fn any_text(text in "[ a\"#\\\\{}\n\r$%é]{0,60}") {
            for word in words(&text, &Arc::from("f")) {
                let line = text.split('\n').nth(word.spot.line - 1);
                prop_assert!(line.is_some_and(|line| line.chars().count() >= word.spot.column));
            }
        }
    }
}
