//! The list form: base64 of a JSON array of `{"k":...,"v":...}`.
//!
//! `app.io` and dubbo-go's `dubbo.io` both use it. Items stay JSON values here,
//! so that a writer puts back untouched what it does not understand.
//! [`ListDialect`] is either, for whoever writes them.

use base64::{
    Engine as _, alphabet,
    engine::{
        DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig,
        general_purpose::{STANDARD, URL_SAFE},
    },
};
use serde_json::Value;

use crate::{
    Dialect, EncodeError, READ_BYTES_MAX, Reading, Registration, WRITE_BYTES_MAX,
    app::{self, App},
    dubbo::{self, DubboGo},
};

/// Takes padding or none, and bits that a sloppy encoder left behind the end.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A dialect whose annotation is a list that all writers of a Pod share.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListDialect {
    /// `app.io`, or the same under another prefix.
    App(App),
    /// `dubbo.io`, as one of the versions of dubbo-go.
    Dubbo(DubboGo),
}

impl ListDialect {
    /// The dialect in which it is read.
    pub fn reader(&self) -> Dialect {
        match self {
            Self::App(app) => Dialect::App(app.clone()),
            Self::Dubbo(_) => Dialect::Dubbo,
        }
    }

    /// Key and value of the label by which readers find a Pod.
    pub fn label(&self) -> (String, String) {
        match self {
            Self::App(app) => (app.label_key(), app.label_value()),
            Self::Dubbo(dubbo) => (dubbo::LABEL.to_owned(), dubbo.label_value().to_owned()),
        }
    }

    /// Key of the annotation.
    pub fn annotation_key(&self) -> String {
        match self {
            Self::App(app) => app.annotation_key(),
            Self::Dubbo(_) => dubbo::ANNOTATION.to_owned(),
        }
    }

    /// The services in an annotation's text.
    pub fn decode(&self, text: &str) -> Reading {
        match self {
            Self::App(_) => app::decode(text),
            Self::Dubbo(_) => dubbo::decode(text),
        }
    }

    /// The next text of the annotation after `remove` has left it and `add` has
    /// been put in; `None` when nothing is left and the annotation should go.
    /// What other writers put there stays as it is. A text that does not decode
    /// is replaced: nobody could have used it.
    pub fn update(
        &self,
        current: Option<&str>,
        remove: &[Registration],
        add: &[Registration],
    ) -> Result<Option<String>, EncodeError> {
        let mut items = current.and_then(|text| read(text).ok()).unwrap_or_default();
        let goes = |old: &Registration| remove.iter().chain(add).any(|one| one.replaces(old));
        match self {
            Self::App(app) => app.change(&mut items, goes, add)?,
            Self::Dubbo(dubbo) => dubbo.change(&mut items, goes, add)?,
        }
        if items.is_empty() {
            return Ok(None);
        }
        let text = match self {
            Self::App(_) => write(&items),
            Self::Dubbo(_) => write_url_safe(&items),
        };
        if text.len() > WRITE_BYTES_MAX {
            return Err(EncodeError::TooLarge { bytes: text.len() });
        }
        Ok(Some(text))
    }
}

/// Why an annotation does not decode.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// More than the API would have stored.
    #[error("it has {0} bytes; {READ_BYTES_MAX} are the most")]
    TooLarge(usize),
    /// Plain JSON: a common slip, worth its own words.
    #[error("it is JSON that was not encoded as base64")]
    PlainJson,
    /// Neither of the two alphabets.
    #[error("base64: {0}")]
    Base64(#[from] base64::DecodeError),
    /// The decoded bytes.
    #[error("JSON: {0}")]
    Json(#[from] serde_json::Error),
    /// JSON of another shape.
    #[error("JSON: expected an array, found {0}")]
    NoArray(&'static str),
}

/// Reads the items. Both alphabets, padded or not, broken over lines or not; no
/// text at all and JSON `null` (an empty Go slice) are an empty list.
pub fn read(text: &str) -> Result<Vec<Value>, ListError> {
    if text.len() > READ_BYTES_MAX {
        return Err(ListError::TooLarge(text.len()));
    }
    let plain: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .map(|byte| match byte {
            b'-' => b'+',
            b'_' => b'/',
            byte => byte,
        })
        .collect();
    if plain.is_empty() {
        return Ok(Vec::new());
    }
    if matches!(plain.first(), Some(b'[' | b'{')) {
        return Err(ListError::PlainJson);
    }
    match serde_json::from_slice(&LENIENT.decode(plain)?)? {
        Value::Array(items) => Ok(items),
        Value::Null => Ok(Vec::new()),
        Value::Bool(_) => Err(ListError::NoArray("a boolean")),
        Value::Number(_) => Err(ListError::NoArray("a number")),
        Value::String(_) => Err(ListError::NoArray("a string")),
        Value::Object(_) => Err(ListError::NoArray("an object")),
    }
}

/// Writes the items: no blanks, standard alphabet, padded.
pub fn write(items: &[Value]) -> String {
    // A list of JSON values always encodes.
    STANDARD.encode(serde_json::to_vec(items).unwrap_or_default())
}

/// Writes the items as dubbo-go does: the URL-safe alphabet, padded.
pub(crate) fn write_url_safe(items: &[Value]) -> String {
    URL_SAFE.encode(serde_json::to_vec(items).unwrap_or_default())
}

/// Makes an item; `k` comes first, as the writers in the field have it.
pub fn item(k: String, v: String) -> Value {
    let mut members = serde_json::Map::new();
    members.insert("k".into(), k.into());
    members.insert("v".into(), v.into());
    Value::Object(members)
}

/// The key and value of an item. `Err` says what it lacks.
pub fn pair(item: &Value) -> Result<(&str, &str), String> {
    let text = |member: &str| match item.get(member) {
        Some(Value::String(text)) => Ok(text.as_str()),
        Some(other) => Err(format!("Member {member:?} is no string: {}.", excerpt(other))),
        None => Err(format!("Member {member:?} is missing: {}.", excerpt(item))),
    };
    Ok((text("k")?, text("v")?))
}

/// Some of a value, for messages.
fn excerpt(value: &Value) -> String {
    const CHARS_MAX: usize = 80;
    let text = value.to_string();
    match text.char_indices().nth(CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_what_writers_emit() {
        // 0xfb 0xef of the standard alphabet is "++8", of the URL-safe one "--8":
        // a string with bytes that need both signs.
        let items = vec![json!({"k": "a", "v": "~~~???>>>"})];
        let json_text = serde_json::to_string(&items).unwrap();
        let standard = STANDARD.encode(&json_text);
        let url_safe = base64::engine::general_purpose::URL_SAFE.encode(&json_text);
        assert_ne!(standard, url_safe);
        let unpadded = url_safe.trim_end_matches('=').to_owned();
        let wrapped = standard.as_bytes().chunks(10).map(|c| String::from_utf8_lossy(c) + "\n");
        let spaced = STANDARD.encode("[ {\n\"v\":\"~~~???>>>\" , \"k\":\"\\u0061\"} ]");
        for text in [standard.clone(), url_safe, unpadded, wrapped.collect(), spaced] {
            assert_eq!(read(&text).unwrap(), items, "{text}");
        }
        assert_eq!(write(&items), standard);
    }

    #[test]
    fn empty_lists() {
        for text in ["", " \n", &STANDARD.encode("[]"), &STANDARD.encode("null")] {
            assert!(read(text).unwrap().is_empty(), "{text:?}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        for (text, expected) in [
            ("plain text!", "base64: Invalid symbol 33"),
            ("[{\"k\":\"a\"}]", "not encoded as base64"),
            (&STANDARD.encode("not json"), "JSON: expected"),
            (&STANDARD.encode("{}"), "expected an array, found an object"),
            (&STANDARD.encode("[{"), "JSON: EOF"),
            (&"A".repeat(READ_BYTES_MAX + 1), "262145 bytes"),
        ] {
            let error = read(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert_eq!(pair(&json!({"k": "a"})), Err("Member \"v\" is missing: {\"k\":\"a\"}.".into()));
        assert_eq!(pair(&json!({"k": 1, "v": ""})), Err("Member \"k\" is no string: 1.".into()));
    }
}
