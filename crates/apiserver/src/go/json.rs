//! Why a text is no JSON, as the scanner of `encoding/json` says it, and what of a document does
//! not fit into a struct.

use serde_json::Value;

use super::quote;

/// How deep values may nest.
const DEPTH_MAX: usize = 10_000;
/// What Go says where a text ends too early.
const CUT: &str = "unexpected end of JSON input";

/// The types of the fields of small structs. Those of objects are in the table of types.
#[derive(Clone, Copy, Debug)]
pub(crate) enum JsonType {
    String,
    Int64,
}

/// What Go calls a JSON value.
pub(crate) fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// Whether a document fits into a struct with these fields. `name` has its package, or is the
/// whole type of one without a name.
pub(crate) fn check_struct(
    name: &str,
    fields: &[(&str, JsonType)],
    value: &Value,
) -> Result<(), String> {
    let members = match value {
        Value::Null => return Ok(()),
        Value::Object(members) => members,
        other => {
            let found = name_of(other);
            return Err(format!("json: cannot unmarshal {found} into Go value of type {name}"));
        }
    };
    for (key, value) in members {
        let Some((_, expected)) = fields.iter().find(|(field, _)| field == key) else { continue };
        let (fits, expected) = match expected {
            JsonType::String => (value.is_string(), "string"),
            JsonType::Int64 => (value.is_i64(), "int64"),
        };
        if !fits && !value.is_null() {
            let found = match value {
                Value::Number(number) if expected == "int64" => format!("number {number}"),
                other => name_of(other).to_owned(),
            };
            // A type without a name has no short one.
            let short = name.rsplit_once('.').map_or("", |(_, short)| short);
            return Err(format!(
                "json: cannot unmarshal {found} into Go struct field {short}.{key} of type \
                 {expected}"
            ));
        }
    }
    Ok(())
}

/// The first fault of a text, if it is no JSON.
pub(crate) fn syntax_fault(text: &[u8]) -> Option<String> {
    Scanner { text, at: 0 }.document().err()
}

/// What is open around the place where the scanner is.
#[derive(Clone, Copy)]
enum Open {
    Object,
    Array,
}

struct Scanner<'t> {
    text: &'t [u8],
    at: usize,
}

impl Scanner<'_> {
    fn document(mut self) -> Result<(), String> {
        let mut open = Vec::new();
        loop {
            self.begin(&mut open)?;
            // A value has ended: so may what is around it.
            loop {
                self.blanks();
                let Some(inner) = open.last() else {
                    return self
                        .text
                        .get(self.at)
                        .map_or(Ok(()), |_| self.refuse("after top-level value"));
                };
                match (inner, self.peek()?) {
                    (Open::Object, b'}') | (Open::Array, b']') => {
                        self.at += 1;
                        open.pop();
                    }
                    (Open::Object, b',') => {
                        self.at += 1;
                        self.key()?;
                        break;
                    }
                    (Open::Array, b',') => {
                        self.at += 1;
                        break;
                    }
                    (Open::Object, _) => return self.refuse("after object key:value pair"),
                    (Open::Array, _) => return self.refuse("after array element"),
                }
            }
        }
    }

    /// Goes to the end of the next plain value, or into the first of a list or an object.
    fn begin(&mut self, open: &mut Vec<Open>) -> Result<(), String> {
        loop {
            self.blanks();
            match self.peek()? {
                b'{' => {
                    self.push(open, Open::Object)?;
                    if self.closes(b'}')? {
                        open.pop();
                        return Ok(());
                    }
                    self.key()?;
                }
                b'[' => {
                    self.push(open, Open::Array)?;
                    if self.closes(b']')? {
                        open.pop();
                        return Ok(());
                    }
                }
                b'"' => return self.string(),
                b't' => return self.literal("true"),
                b'f' => return self.literal("false"),
                b'n' => return self.literal("null"),
                b'-' | b'0'..=b'9' => return self.number(),
                _ => return self.refuse("looking for beginning of value"),
            }
        }
    }

    fn push(&mut self, open: &mut Vec<Open>, what: Open) -> Result<(), String> {
        self.at += 1;
        open.push(what);
        if open.len() > DEPTH_MAX { Err("exceeded max depth".to_owned()) } else { Ok(()) }
    }

    fn closes(&mut self, sign: u8) -> Result<bool, String> {
        self.blanks();
        let closes = self.peek()? == sign;
        self.at += usize::from(closes);
        Ok(closes)
    }

    /// The name of a member, and the colon behind it.
    fn key(&mut self) -> Result<(), String> {
        self.blanks();
        if self.peek()? != b'"' {
            return self.refuse("looking for beginning of object key string");
        }
        self.string()?;
        self.blanks();
        if self.peek()? != b':' {
            return self.refuse("after object key");
        }
        self.at += 1;
        Ok(())
    }

    fn string(&mut self) -> Result<(), String> {
        self.at += 1;
        loop {
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Ok(());
                }
                b'\\' => {
                    self.at += 1;
                    match self.peek()? {
                        b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => self.at += 1,
                        b'u' => {
                            self.at += 1;
                            for _ in 0..4 {
                                if !self.peek()?.is_ascii_hexdigit() {
                                    return self.refuse("in \\u hexadecimal character escape");
                                }
                                self.at += 1;
                            }
                        }
                        _ => return self.refuse("in string escape code"),
                    }
                }
                0..0x20 => return self.refuse("in string literal"),
                _ => self.at += 1,
            }
        }
    }

    fn literal(&mut self, word: &str) -> Result<(), String> {
        for expected in word.bytes() {
            if self.peek()? != expected {
                let expected = char::from(expected);
                return self.refuse(&format!("in literal {word} (expecting '{expected}')"));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn number(&mut self) -> Result<(), String> {
        if self.peek()? == b'-' {
            self.at += 1;
        }
        match self.peek()? {
            b'0' => self.at += 1,
            b'1'..=b'9' => self.digits("in numeric literal")?,
            _ => return self.refuse("in numeric literal"),
        }
        if self.text.get(self.at) == Some(&b'.') {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.text.get(self.at), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek()?, b'+' | b'-') {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    /// One digit at least.
    fn digits(&mut self, place: &str) -> Result<(), String> {
        if !self.peek()?.is_ascii_digit() {
            return self.refuse(place);
        }
        while self.text.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        Ok(())
    }

    fn blanks(&mut self) {
        while matches!(self.text.get(self.at), Some(b' ' | b'\t' | b'\r' | b'\n')) {
            self.at += 1;
        }
    }

    fn peek(&self) -> Result<u8, String> {
        self.text.get(self.at).copied().ok_or_else(|| CUT.to_owned())
    }

    /// The byte here belongs to nothing that may be here. Go prints it as the character of this
    /// number, whatever it is a part of.
    fn refuse<T>(&self, place: &str) -> Result<T, String> {
        let found = match self.peek()? {
            b'\'' => "'\\''".to_owned(),
            b'"' => "'\"'".to_owned(),
            byte => {
                let quoted = quote(&char::from(byte).to_string());
                format!("'{}'", &quoted[1..quoted.len() - 1])
            }
        };
        Err(format!("invalid character {found} {place}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_as_go_tells_them() {
        for (text, expected) in [
            ("", CUT),
            ("{", CUT),
            (r#"{"spec":"#, CUT),
            (r#""x"#, CUT),
            ("nul", CUT),
            ("-", CUT),
            ("{} x", "invalid character 'x' after top-level value"),
            ("{'a':1}", r"invalid character '\'' looking for beginning of object key string"),
            (r#"{"a":1,}"#, "invalid character '}' looking for beginning of object key string"),
            (r#"{"a" 1}"#, "invalid character '1' after object key"),
            (r#"{"a":1 "b"}"#, "invalid character '\"' after object key:value pair"),
            ("[1 2]", "invalid character '2' after array element"),
            ("[1,]", "invalid character ']' looking for beginning of value"),
            ("\u{feff}{}", "invalid character 'ï' looking for beginning of value"),
            ("NaN", "invalid character 'N' looking for beginning of value"),
            ("nil", "invalid character 'i' in literal null (expecting 'u')"),
            ("\"a\nb\"", r"invalid character '\n' in string literal"),
            (r#""\x""#, "invalid character 'x' in string escape code"),
            (r#""\u12g4""#, r"invalid character 'g' in \u hexadecimal character escape"),
            ("-x", "invalid character 'x' in numeric literal"),
            ("1.x", "invalid character 'x' after decimal point in numeric literal"),
            ("1ex", "invalid character 'x' in exponent of numeric literal"),
            ("01", "invalid character '1' after top-level value"),
        ] {
            assert_eq!(syntax_fault(text.as_bytes()).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(
            syntax_fault("[".repeat(DEPTH_MAX + 1).as_bytes()).as_deref(),
            Some("exceeded max depth")
        );
    }

    proptest::proptest! {
        #[test]
        fn what_serde_reads_has_no_fault(text in r#"[\[\]{}":,a\\u0-9.eE+\- tn]{0,20}"#) {
            let read = serde_json::from_str::<serde_json::Value>(&text);
            let fault = syntax_fault(text.as_bytes());
            match read {
                Ok(_) => proptest::prop_assert_eq!(fault, None),
                // Halves of characters, and numbers beyond all measure, are a fault of the value.
                Err(e) if e.to_string().contains("surrogate") || e.to_string().contains("range") => {}
                Err(_) => proptest::prop_assert!(fault.is_some()),
            }
        }
    }
}
