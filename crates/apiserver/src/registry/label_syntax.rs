//! The grammar of label selectors in query strings.
//!
//! ```text
//! text ──▶ tokens ──▶ terms: key, operator, values ──▶ selection::LabelSelector
//! ```
//!
//! Counterpart of apimachinery's `pkg/labels/selector.go`: the same lexer, the
//! same descent, the same words for what is wrong.

use std::collections::BTreeSet;

use crate::{
    go,
    schema::validate::{label_value_faults, qualified_name_faults},
};

const OPERATORS: &str = "in, notin, =, ==, !=, gt, lt";

/// How a label is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Operator {
    In,
    NotIn,
    Exists,
    Absent,
    Above,
    Below,
}

/// One requirement; values are sorted and unique.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Term {
    pub(super) key: String,
    pub(super) operator: Operator,
    pub(super) values: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Token<'t> {
    Word(&'t str),
    /// `=`, `==`, `!=`, `>`, `<`, `!`, `(`, `)`, `,`
    Sign(&'t str),
    /// Signs that mean nothing together.
    Broken,
    End,
}

const SIGNS: [&str; 9] = ["=", "==", "!=", "!", "(", ")", ",", ">", "<"];

fn is_sign(byte: u8) -> bool {
    matches!(byte, b'=' | b'!' | b'(' | b')' | b',' | b'>' | b'<')
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let bytes = text.as_bytes();
    let (mut found, mut at) = (Vec::new(), 0);
    // A NUL is the end: upstream's lexer reads it in place of what is behind the end.
    while at < bytes.len() && bytes[at] != 0 {
        let start = at;
        if is_blank(bytes[at]) {
            at += 1;
            continue;
        }
        if is_sign(bytes[at]) {
            // The longest that is known; one more byte decides.
            let two = text.get(at..at + 2).filter(|two| SIGNS.contains(two));
            at += two.map_or(1, str::len);
            let sign = &text[start..at];
            found.push(if SIGNS.contains(&sign) { Token::Sign(sign) } else { Token::Broken });
        } else {
            let is_over = |byte| byte == 0 || is_sign(byte) || is_blank(byte);
            while at < bytes.len() && !is_over(bytes[at]) {
                at += 1;
            }
            found.push(Token::Word(&text[start..at]));
        }
        // One right behind a token ends no more than the token.
        at += usize::from(bytes.get(at) == Some(&0));
    }
    found.push(Token::End);
    found
}

impl<'t> Token<'t> {
    fn literal(self) -> &'t str {
        match self {
            Token::Word(text) | Token::Sign(text) => text,
            Token::Broken | Token::End => "",
        }
    }
}

struct Parser<'t> {
    tokens: Vec<Token<'t>>,
    at: usize,
}

/// The terms of a selector.
pub(super) fn parse(text: &str) -> Result<Vec<Term>, String> {
    Parser { tokens: tokens(text), at: 0 }.selector()
}

impl<'t> Parser<'t> {
    fn look(&self) -> Token<'t> {
        self.tokens.get(self.at).copied().unwrap_or(Token::End)
    }

    fn take(&mut self) -> Token<'t> {
        let token = self.look();
        self.at += 1;
        token
    }

    fn selector(&mut self) -> Result<Vec<Term>, String> {
        let mut terms = Vec::new();
        loop {
            match self.look() {
                Token::Word(_) | Token::Sign("!") => {}
                Token::End => return Ok(terms),
                other => {
                    let found = other.literal();
                    return Err(format!(
                        "found '{found}', expected: !, identifier, or 'end of string'"
                    ));
                }
            }
            let term = self.term().map_err(|why| format!("unable to parse requirement: {why}"))?;
            terms.push(term);
            match self.take() {
                Token::End => return Ok(terms),
                Token::Sign(",") => match self.look() {
                    Token::Word(_) | Token::Sign("!") => {}
                    other => {
                        let found = other.literal();
                        return Err(format!("found '{found}', expected: identifier after ','"));
                    }
                },
                other => {
                    let found = other.literal();
                    return Err(format!("found '{found}', expected: ',' or 'end of string'"));
                }
            }
        }
    }

    fn term(&mut self) -> Result<Term, String> {
        let negated = self.look() == Token::Sign("!");
        if negated {
            self.at += 1;
        }
        let key = self.word()?.to_owned();
        let faults = qualified_name_faults(&key);
        if !faults.is_empty() {
            return Err(format!(
                "<nil>: Invalid value: {}: {}",
                go::quote(&key),
                faults.join("; ")
            ));
        }
        if negated {
            return Ok(Term { key, operator: Operator::Absent, values: Vec::new() });
        }
        if matches!(self.look(), Token::End | Token::Sign(",")) {
            return Ok(Term { key, operator: Operator::Exists, values: Vec::new() });
        }
        let operator = match self.take() {
            Token::Word("in") | Token::Sign("=" | "==") => Operator::In,
            Token::Word("notin") | Token::Sign("!=") => Operator::NotIn,
            Token::Sign(">") => Operator::Above,
            Token::Sign("<") => Operator::Below,
            other => return Err(format!("found '{}', expected: {OPERATORS}", other.literal())),
        };
        let is_set = matches!(self.tokens[self.at - 1], Token::Word(_));
        let values = if is_set { self.set()? } else { BTreeSet::from([self.exact()?]) };
        check_values(&key, operator, &values)?;
        Ok(Term { key, operator, values: values.into_iter().map(str::to_owned).collect() })
    }

    fn word(&mut self) -> Result<&'t str, String> {
        match self.take() {
            Token::Word(word) => Ok(word),
            other => Err(format!("found '{}', expected: identifier", other.literal())),
        }
    }

    fn exact(&mut self) -> Result<&'t str, String> {
        match self.look() {
            Token::End | Token::Sign(",") => Ok(""),
            _ => self.word(),
        }
    }

    /// `(a, b)`; empty members are empty values.
    fn set(&mut self) -> Result<BTreeSet<&'t str>, String> {
        let open = self.take();
        if open != Token::Sign("(") {
            return Err(format!("found '{}' expected: '('", open.literal()));
        }
        match self.look() {
            Token::Sign(")") => {
                self.at += 1;
                return Ok(BTreeSet::from([""]));
            }
            Token::Word(_) | Token::Sign(",") => {}
            other => {
                let found = other.literal();
                return Err(format!("found '{found}', expected: ',', ')' or identifier"));
            }
        }
        let mut values = BTreeSet::new();
        loop {
            match self.take() {
                Token::Word(word) => {
                    values.insert(word);
                    match self.look() {
                        Token::Sign(",") => {}
                        Token::Sign(")") => break,
                        other => {
                            let found = other.literal();
                            return Err(format!("found '{found}', expected: ',' or ')'"));
                        }
                    }
                }
                Token::Sign(",") => {
                    if values.is_empty() {
                        values.insert("");
                    }
                    match self.look() {
                        Token::Sign(")") => {
                            values.insert("");
                            break;
                        }
                        Token::Sign(",") => {
                            self.at += 1;
                            values.insert("");
                        }
                        _ => {}
                    }
                }
                other => {
                    let found = other.literal();
                    return Err(format!("found '{found}', expected: ',', or identifier"));
                }
            }
        }
        self.at += 1;
        Ok(values)
    }
}

fn check_values(key: &str, operator: Operator, values: &BTreeSet<&str>) -> Result<(), String> {
    let mut faults = Vec::new();
    if matches!(operator, Operator::Above | Operator::Below) {
        for (index, value) in values.iter().enumerate().filter(|(_, v)| v.parse::<i64>().is_err()) {
            faults.push(format!(
                "values[{index}]: Invalid value: {}: for 'Gt', 'Lt' operators, the value must be an \
                 integer",
                go::quote(value)
            ));
        }
    }
    for (index, value) in values.iter().enumerate() {
        let found = label_value_faults(value);
        if !found.is_empty() {
            let (value, why) = (go::quote(value), found.join("; "));
            faults.push(format!("values[{index}][{key}]: Invalid value: {value}: {why}"));
        }
    }
    match faults.as_slice() {
        [] => Ok(()),
        [only] => Err(only.clone()),
        several => Err(format!("[{}]", several.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_named_as_upstream_names_them() {
        for (text, expected) in [
            ("=", "found '=', expected: !, identifier, or 'end of string'"),
            ("a=b,", "found '', expected: identifier after ','"),
            ("a in b", "unable to parse requirement: found 'b' expected: '('"),
            ("a in (b", "unable to parse requirement: found '', expected: ',' or ')'"),
            (
                "a like b",
                "unable to parse requirement: found 'like', expected: in, notin, =, ==, !=, gt, lt",
            ),
            ("a=b c", "found 'c', expected: ',' or 'end of string'"),
            ("a=)", "unable to parse requirement: found ')', expected: identifier"),
            (
                "a>x",
                "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
            ),
        ] {
            assert_eq!(parse(text).expect_err(text), expected, "{text}");
        }
        let fault = parse("-a=b").unwrap_err();
        assert!(fault.starts_with(
            "unable to parse requirement: <nil>: Invalid value: \"-a\": name part must"
        ));
    }

    #[test]
    fn a_nul_ends() {
        let terms = |text: &str| parse(text).map(|t| t.len());
        assert_eq!(terms("\0=("), Ok(0));
        assert_eq!(terms("a=b,c\0"), Ok(2));
        let found = parse("a=\0").unwrap();
        assert_eq!(
            (found[0].operator, found[0].values.as_slice()),
            (Operator::In, &[String::new()][..])
        );
        assert_eq!(parse("a=\0b").unwrap()[0].values, ["b"]);
        assert!(parse("a\0b").is_err());
    }

    #[test]
    fn sets() {
        for (text, expected) in [
            ("a in ()", &[""][..]),
            ("a in (b,)", &["", "b"]),
            ("a in (,b)", &["", "b"]),
            ("a in (in,b, b)", &["b", "in"]),
        ] {
            assert_eq!(parse(text).expect(text)[0].values, expected, "{text}");
        }
    }
}
