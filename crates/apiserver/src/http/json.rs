//! JSON as Go's decoder reads it, where serde_json is stricter or says less.
//!
//! Go takes the last of two members of one name, and a strict reader names
//! them; it puts U+FFFD where text is no Unicode. Objects are read here;
//! what they mean is looked at later.

use std::{borrow::Cow, fmt::Write};

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::go;

/// Members reported at most; upstream's decoder stops there too.
const DUPLICATES_MAX: usize = 100;

/// A document, and the members that it gives twice: `duplicate field "spec.a"`.
/// The error is told in Go's words.
pub(crate) fn parse(text: &[u8]) -> Result<(Value, Vec<String>), String> {
    read(text).map_err(|error| go::syntax_fault(text).unwrap_or_else(|| error.to_string()))
}

fn read(text: &[u8]) -> serde_json::Result<(Value, Vec<String>)> {
    let whole = String::from_utf8_lossy(text);
    let whole = without_lone_surrogates(&whole);
    let mut found = Vec::new();
    let mut reader = serde_json::Deserializer::from_str(&whole);
    let mut place = Place { path: String::new(), found: &mut found };
    let value = Reader(&mut place).deserialize(&mut reader)?;
    reader.end()?;
    Ok((value, found))
}

/// Escapes of halves of characters become escapes of U+FFFD.
fn without_lone_surrogates(text: &str) -> Cow<'_, str> {
    let half = |at: usize| -> Option<u16> {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(digits, 16).ok().filter(|n| (0xD800..0xE000).contains(n))
    };
    let mut fixed: Option<String> = None;
    let (mut at, mut done) = (0, 0);
    while let Some(next) = text[at..].find('\\') {
        at += next;
        match (half(at), half(at + 6)) {
            (Some(high), Some(low)) if high < 0xDC00 && low >= 0xDC00 => at += 12,
            (Some(_), _) => {
                let fixed = fixed.get_or_insert_with(String::new);
                fixed.push_str(&text[done..at]);
                fixed.push_str("\\ufffd");
                at += 6;
                done = at;
            }
            // Past whatever is escaped, so that a backslash in the text begins nothing.
            (None, _) => at += 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8),
        }
    }
    match fixed {
        Some(fixed) => Cow::Owned(fixed + &text[done..]),
        None => Cow::Borrowed(text),
    }
}

/// Where the reader is, as upstream writes it: `spec.containers[0].name`.
struct Place<'f> {
    path: String,
    found: &'f mut Vec<String>,
}

impl Place<'_> {
    fn note(&mut self, member: &str) {
        if self.found.len() < DUPLICATES_MAX {
            let dot = if self.path.is_empty() { "" } else { "." };
            self.found.push(format!("duplicate field \"{}{dot}{member}\"", self.path));
        }
    }
}

struct Reader<'p, 'f>(&'p mut Place<'f>);

impl<'de> DeserializeSeed<'de> for Reader<'_, '_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Reader<'_, '_> {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value);
        number.map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let length = self.0.path.len();
        let mut list = Vec::new();
        loop {
            // Into a text, which does not fail.
            let _wrote = write!(self.0.path, "[{}]", list.len());
            let item = items.next_element_seed(Reader(self.0));
            self.0.path.truncate(length);
            match item? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let length = self.0.path.len();
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if map.contains_key(&name) {
                self.0.note(&name);
            }
            if length > 0 {
                self.0.path.push('.');
            }
            self.0.path.push_str(&name);
            let value = members.next_value_seed(Reader(self.0));
            self.0.path.truncate(length);
            map.insert(name, value?);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn read_as_go_reads() {
        for (text, value, duplicates) in [
            (r#"{"a":1,"b":[{"c":1.5,"c":-2}],"a":null}"#, json!({"a": null, "b": [{"c": -2}]}), {
                vec!["duplicate field \"b[0].c\"", "duplicate field \"a\""]
            }),
            (r#"{"a":"\ud800x","b":"\ud83d\ude00"}"#, json!({"a": "\u{fffd}x", "b": "😀"}), vec![]),
            (r#"["\\ud800", "\udc00\ud800"]"#, json!(["\\ud800", "\u{fffd}\u{fffd}"]), vec![]),
            ("null", json!(null), vec![]),
        ] {
            let (found, named) = parse(text.as_bytes()).expect(text);
            assert_eq!(found, value, "{text}");
            assert_eq!(named, duplicates, "{text}");
        }
        assert_eq!(parse(b"\"a\xffb\"").unwrap().0, json!("a\u{fffd}b"));
        for bad in ["", "{", "1 2", "{\"a\"}", "\"\\", "\"\\u12", "nul"] {
            assert!(parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_read_as_serde_reads_it(text in r#"[\[\]{}":,a\\u0-9dDcCé ]{0,30}"#) {
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                proptest::prop_assert_eq!(parse(text.as_bytes()).unwrap().0, value);
            } else {
                drop(parse(text.as_bytes()));
            }
        }
    }
}
