//! Objects as JSON: reading metadata, stamping it, and the stored form.
//!
//! An object is parsed once per request into a [`Value`], changed there, and
//! encoded once into bytes that every list and every watcher shares. The
//! revision is only known on the store's writer thread, so [`Encoded`] keeps
//! the text before and after the number and the writer only joins them.
//! Every stored object begins with [`prefix`], which lets lists cut the type
//! off each item without parsing it, as the real server does.

use std::time::{SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rand::{Rng, seq::IndexedRandom};
use serde_json::{Map, Value};

use crate::{Kind, Status, store::Record};

/// Letters of generated names: no vowels and nothing that reads alike
/// (apimachinery `pkg/util/rand`).
const NAME_ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Random letters behind `generateName` (apiserver `pkg/storage/names`).
const NAME_SUFFIX: usize = 5;
/// Longest generated name; longer bases are cut (apiserver `pkg/storage/names`).
const NAME_MAX: usize = 63;

/// Metadata that comes before `resourceVersion` in the stored form; clients do not care, readers do.
const METADATA_FIRST: [&str; 4] = ["name", "generateName", "namespace", "uid"];

/// An object on its way to the store, complete but for its revision.
#[derive(Clone, Debug)]
pub(crate) struct Encoded {
    head: Vec<u8>,
    tail: Vec<u8>,
}

impl Encoded {
    /// Encodes an object whose `metadata` is a map; anything else encodes as empty metadata.
    pub(crate) fn of(kind: &Kind, object: &Value) -> Encoded {
        let mut head = prefix(kind).into_bytes();
        let mut tail = Vec::with_capacity(1024);
        head.extend_from_slice(b"\"metadata\":{");
        let empty = Map::new();
        let metadata = object.get("metadata").and_then(Value::as_object).unwrap_or(&empty);
        for key in METADATA_FIRST {
            if let Some(value) = metadata.get(key) {
                push_pair(&mut head, key, value);
                head.push(b',');
            }
        }
        head.extend_from_slice(b"\"resourceVersion\":\"");
        tail.push(b'"');
        for (key, value) in metadata {
            if key != "resourceVersion" && !METADATA_FIRST.contains(&key.as_str()) {
                tail.push(b',');
                push_pair(&mut tail, key, value);
            }
        }
        tail.push(b'}');
        if let Some(fields) = object.as_object() {
            for (key, value) in fields {
                if !matches!(key.as_str(), "kind" | "apiVersion" | "metadata") {
                    tail.push(b',');
                    push_pair(&mut tail, key, value);
                }
            }
        }
        tail.push(b'}');
        Encoded { head, tail }
    }

    /// Bytes of the stored form, within a few digits.
    pub(crate) fn len(&self) -> usize {
        self.head.len() + self.tail.len()
    }

    /// The stored form at a revision.
    pub(crate) fn at(mut self, revision: u64) -> Bytes {
        self.head.reserve_exact(self.tail.len() + 20);
        self.head.extend_from_slice(revision.to_string().as_bytes());
        self.head.extend_from_slice(&self.tail);
        Bytes::from(self.head)
    }
}

fn push_pair(out: &mut Vec<u8>, key: &str, value: &Value) {
    // Writing a Value into a Vec cannot fail: keys are strings and the writer is memory.
    let wrote = serde_json::to_writer(&mut *out, key).and_then(|()| {
        out.push(b':');
        serde_json::to_writer(&mut *out, value)
    });
    debug_assert!(wrote.is_ok());
}

/// What every stored object of a kind begins with.
pub(crate) fn prefix(kind: &Kind) -> String {
    format!("{{\"kind\":\"{}\",\"apiVersion\":\"{}\",", kind.kind, kind.api_version)
}

/// Parses a stored object.
pub(crate) fn parse(record: &Record) -> Result<Value, Status> {
    serde_json::from_slice(&record.bytes).map_err(|e| {
        Status::internal(format!("stored object {:?} does not parse: {e}", record.key))
    })
}

/// The metadata of an object; an empty map when there is none.
pub fn metadata(object: &Value) -> &Map<String, Value> {
    static EMPTY: std::sync::LazyLock<Map<String, Value>> = std::sync::LazyLock::new(Map::new);
    object.get("metadata").and_then(Value::as_object).unwrap_or(&EMPTY)
}

/// The metadata of an object, made if missing. `object` must be a map (checked on the way in);
/// otherwise it becomes one.
pub fn metadata_mut(object: &mut Value) -> &mut Map<String, Value> {
    map_at(map_of(object), "metadata")
}

/// The map behind a value; anything else becomes an empty map.
pub(crate) fn map_of(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(map) => map,
        _ => unreachable!("made a map above"),
    }
}

/// The map at a key, made if missing or of another type.
pub(crate) fn map_at<'a>(map: &'a mut Map<String, Value>, key: &str) -> &'a mut Map<String, Value> {
    map_of(map.entry(key).or_insert(Value::Null))
}

/// A string of the metadata; empty when absent.
pub fn meta_str<'a>(object: &'a Value, key: &str) -> &'a str {
    metadata(object).get(key).and_then(Value::as_str).unwrap_or_default()
}

/// `metadata.name`.
pub fn name(object: &Value) -> &str {
    meta_str(object, "name")
}

/// `metadata.namespace`; empty for cluster-scoped objects.
pub fn namespace(object: &Value) -> &str {
    meta_str(object, "namespace")
}

/// `metadata.uid`.
pub fn uid(object: &Value) -> &str {
    meta_str(object, "uid")
}

/// The revision in `metadata.resourceVersion`; 0 when there is none.
pub fn revision(object: &Value) -> u64 {
    meta_str(object, "resourceVersion").parse().unwrap_or(0)
}

/// Whether the object is on its way out.
pub fn is_deleting(object: &Value) -> bool {
    metadata(object).get("deletionTimestamp").is_some_and(|t| !t.is_null())
}

/// `metadata.finalizers`.
pub fn finalizers(object: &Value) -> Vec<&str> {
    metadata(object)
        .get("finalizers")
        .and_then(Value::as_array)
        .map(|list| list.iter().filter_map(Value::as_str).collect())
        .unwrap_or_default()
}

/// Sets `metadata.resourceVersion`.
pub(crate) fn set_revision(object: &mut Value, revision: u64) {
    metadata_mut(object).insert("resourceVersion".into(), revision.to_string().into());
}

/// Seconds since 1970.
pub(crate) fn now_unix_seconds() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_secs())
}

/// Now as metav1.Time writes it: RFC 3339, UTC, whole seconds.
pub fn now() -> String {
    timestamp(now_unix_seconds())
}

/// A time as metav1.Time writes it.
pub fn timestamp(unix_seconds: u64) -> String {
    let (days, second) = (unix_seconds / 86_400, unix_seconds % 86_400);
    // Civil date from days, after Howard Hinnant's chrono-compatible algorithms (public domain).
    let z = days + 719_468;
    let era = z / 146_097;
    let day_of_era = z % 146_097;
    let year_of_era =
        (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_shifted + 2) / 5 + 1;
    let month = if month_shifted < 10 { month_shifted + 3 } else { month_shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        second / 3_600,
        second / 60 % 60,
        second % 60
    )
}

/// Seconds since 1970 of an RFC 3339 time in UTC (fractions and offsets as clients send them).
pub fn parse_timestamp(text: &str) -> Option<u64> {
    let number = |range: std::ops::Range<usize>| text.get(range)?.parse::<i64>().ok();
    let (year, month, day) = (number(0..4)?, number(5..7)?, number(8..10)?);
    let (hour, minute, second) = (number(11..13)?, number(14..16)?, number(17..19)?);
    let shifted_year = if month <= 2 { year - 1 } else { year };
    let era = shifted_year.div_euclid(400);
    let year_of_era = shifted_year.rem_euclid(400);
    let day_of_year = (153 * (if month > 2 { month - 3 } else { month + 9 }) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    let days = era * 146_097 + day_of_era - 719_468;
    let local = days * 86_400 + hour * 3_600 + minute * 60 + second;
    let zone = text.get(19..)?.trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    let offset = match zone.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), ..] if zone.len() == 6 => {
            let hours: i64 = zone.get(1..3)?.parse().ok()?;
            let minutes: i64 = zone.get(4..6)?.parse().ok()?;
            (hours * 3_600 + minutes * 60) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    u64::try_from(local - offset).ok()
}

/// A random (version 4) UUID.
pub fn new_uid() -> String {
    let mut bytes: [u8; 16] = rand::rng().random();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// A name from `generateName`.
pub(crate) fn generate_name(base: &str) -> String {
    let mut end = base.len().min(NAME_MAX - NAME_SUFFIX);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let mut name = base[..end].to_owned();
    name.push_str(&random_letters(NAME_SUFFIX));
    name
}

/// Letters fit for names.
pub(crate) fn random_letters(count: usize) -> String {
    let mut rng = rand::rng();
    (0..count).filter_map(|_| NAME_ALPHABET.choose(&mut rng)).map(|b| char::from(*b)).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds;

    #[test]
    fn stored_form_begins_with_the_type_and_holds_the_revision() {
        let object = json!({
            "metadata": {"labels": {"a": "b"}, "name": "x", "resourceVersion": "1"},
            "spec": {"n": 1}, "apiVersion": "v1", "kind": "Pod"
        });
        let bytes = Encoded::of(&kinds::PODS, &object).at(42);
        assert_eq!(
            std::str::from_utf8(&bytes).unwrap(),
            r#"{"kind":"Pod","apiVersion":"v1","metadata":{"name":"x","resourceVersion":"42","labels":{"a":"b"}},"spec":{"n":1}}"#
        );
        assert!(bytes.starts_with(prefix(&kinds::PODS).as_bytes()));
    }

    #[test]
    fn times_round_trip() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_795_248_361, "2026-11-21T08:06:01Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(timestamp(seconds), text);
            assert_eq!(parse_timestamp(text), Some(seconds));
        }
        assert_eq!(parse_timestamp("1970-01-01T01:00:00.123456+01:00"), Some(0));
        for bad in ["", "x", "1970-01-01", "1970-01-01T00:00:00", "1970-01-01T00:00:00é"] {
            assert_eq!(parse_timestamp(bad), None, "{bad}");
        }
    }

    #[test]
    fn generated_names_fit() {
        assert_eq!(generate_name("web-").len(), 9);
        assert_eq!(generate_name(&"x".repeat(80)).len(), 63);
        assert_eq!(new_uid().len(), 36);
        assert_ne!(new_uid(), new_uid());
    }

    proptest::proptest! {
        #[test]
        fn any_time_round_trips(seconds in 0_u64..253_402_300_800, wild in ".{0,30}") {
            proptest::prop_assert_eq!(parse_timestamp(&timestamp(seconds)), Some(seconds));
            proptest::prop_assert!(parse_timestamp(&wild).is_none_or(|_| wild.len() > 19));
        }

        #[test]
        fn any_name_generates_a_name(base in ".{0,80}") {
            proptest::prop_assert!(generate_name(&base).len() <= NAME_MAX);
        }
    }
}
