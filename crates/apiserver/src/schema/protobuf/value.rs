//! Messages to JSON, along the table of types.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Map, Value, map};

use super::DecodeError;
use super::wire::{Payload, Reader};
use crate::schema::data::{Field, Scalar, Shape, StructId, types};
use crate::schema::quantity::Quantity;
use crate::schema::value::is_zero;

/// Structs within structs; the held kinds need 13 (a Pod's probe header in a workload).
const MAX_DEPTH: usize = 32;
/// Values in one object. Two bytes of protobuf can become an empty object of some hundred bytes of
/// memory, so the size of the body alone is no bound.
const MAX_VALUES: usize = 500_000;

/// Keeps count while a message is read.
#[derive(Default)]
pub(super) struct Decoder {
    depth: usize,
    values: usize,
}

impl Decoder {
    /// Reads a message of a struct's type into a JSON object. A message that comes in parts is
    /// merged, as protobuf demands.
    pub(super) fn fill(
        &mut self,
        id: StructId,
        bytes: &[u8],
        into: &mut Map<String, Value>,
    ) -> Result<(), DecodeError> {
        self.enter()?;
        let fields = &types().get(id).fields;
        for entry in Reader::new(bytes) {
            let (number, payload) = entry?;
            if let Some(field) = fields.iter().find(|field| field.number == number) {
                self.field(field, payload, into)?;
            }
        }
        self.depth -= 1;
        Ok(())
    }

    fn enter(&mut self) -> Result<(), DecodeError> {
        self.depth += 1;
        if self.depth > MAX_DEPTH { Err(DecodeError::TooComplex) } else { Ok(()) }
    }

    fn count(&mut self) -> Result<(), DecodeError> {
        self.values += 1;
        if self.values > MAX_VALUES { Err(DecodeError::TooComplex) } else { Ok(()) }
    }

    fn field(
        &mut self,
        field: &Field,
        payload: Payload<'_>,
        into: &mut Map<String, Value>,
    ) -> Result<(), DecodeError> {
        let Some(name) = field.name else {
            return match &field.shape {
                Shape::Struct(id) => self.fill(*id, payload.bytes("embedded")?, into),
                _ => Ok(()),
            };
        };
        match &field.shape {
            Shape::Struct(id) => {
                self.count()?;
                self.fill(*id, payload.bytes(name)?, object(into, name))
            }
            Shape::List(item) => self.items(name, item, payload, list(into, name)),
            Shape::Map(shape, _) => {
                let (key, value) = self.entry(name, shape, payload)?;
                object(into, name).insert(key, value);
                Ok(())
            }
            shape => {
                match self.value(name, shape, payload)? {
                    Some(value) if !(field.omit_zero && is_zero(&value)) => {
                        into.insert(name.to_owned(), value)
                    }
                    _ => into.remove(name),
                };
                Ok(())
            }
        }
    }

    /// One element of a list, or several numbers packed into one payload.
    fn items(
        &mut self,
        name: &'static str,
        item: &Shape,
        payload: Payload<'_>,
        into: &mut Vec<Value>,
    ) -> Result<(), DecodeError> {
        let is_number =
            matches!(item, Shape::Scalar(Scalar::Bool | Scalar::Int32 | Scalar::Int64, _));
        match payload {
            Payload::Bytes(packed) if is_number => {
                let mut numbers = Reader::new(packed);
                while !numbers.is_empty() {
                    let number = Payload::Varint(numbers.varint()?);
                    into.push(self.value(name, item, number)?.unwrap_or_default());
                }
            }
            single => into.push(self.value(name, item, single)?.unwrap_or_default()),
        }
        Ok(())
    }

    /// A map's entry: a message of key (1) and value (2).
    fn entry(
        &mut self,
        name: &'static str,
        shape: &Shape,
        payload: Payload<'_>,
    ) -> Result<(String, Value), DecodeError> {
        let (mut key, mut value) = (String::new(), None);
        for field in Reader::new(payload.bytes(name)?) {
            match field? {
                (1, payload) => key = payload.text(name)?,
                (2, payload) => value = self.value(name, shape, payload)?,
                _ => {}
            }
        }
        let value = match value {
            Some(value) => value,
            // An entry without a value has the value of no bytes.
            None => self.value(name, shape, Payload::Bytes(&[]))?.unwrap_or_default(),
        };
        Ok((key, value))
    }

    /// A value that stands alone; `None` where Go has a zero that JSON writes as null.
    fn value(
        &mut self,
        name: &'static str,
        shape: &Shape,
        payload: Payload<'_>,
    ) -> Result<Option<Value>, DecodeError> {
        self.count()?;
        Ok(Some(match shape {
            Shape::Scalar(Scalar::String, _) => payload.text(name)?.into(),
            Shape::Scalar(Scalar::Bool, _) => (payload.varint(name)? != 0).into(),
            Shape::Scalar(Scalar::Int32, _) => payload.int32(name)?.into(),
            Shape::Scalar(Scalar::Int64, _) => payload.int64(name)?.into(),
            Shape::Scalar(Scalar::Bytes, _) => BASE64_STANDARD.encode(payload.bytes(name)?).into(),
            Shape::Struct(id) => {
                let mut fields = Map::new();
                self.fill(*id, payload.bytes(name)?, &mut fields)?;
                fields.into()
            }
            Shape::List(item) | Shape::NamedList(item, _) => {
                let mut found = Vec::new();
                for field in Reader::new(payload.bytes(name)?) {
                    if let (1, payload) = field? {
                        self.items(name, item, payload, &mut found)?;
                    }
                }
                found.into()
            }
            Shape::Map(shape, _) => {
                let (key, value) = self.entry(name, shape, payload)?;
                Map::from_iter([(key, value)]).into()
            }
            Shape::Time => return time(name, payload, Precision::Second),
            Shape::MicroTime => return time(name, payload, Precision::Micro),
            Shape::Quantity => quantity(name, payload)?,
            Shape::IntOrString => int_or_string(name, payload)?,
            Shape::Any => return raw_json(name, payload),
        }))
    }
}

/// The object under a name, made if it is not there.
fn object<'m>(into: &'m mut Map<String, Value>, name: &str) -> &'m mut Map<String, Value> {
    let slot = into.entry(name).or_insert_with(|| Value::Object(Map::new()));
    if !slot.is_object() {
        *slot = Value::Object(Map::new());
    }
    match slot {
        Value::Object(fields) => fields,
        _ => unreachable!("made an object above"),
    }
}

/// The list under a name, made if it is not there.
fn list<'m>(into: &'m mut Map<String, Value>, name: &str) -> &'m mut Vec<Value> {
    let slot = match into.entry(name) {
        map::Entry::Occupied(slot) => slot.into_mut(),
        map::Entry::Vacant(slot) => slot.insert(Value::Array(Vec::new())),
    };
    if !slot.is_array() {
        *slot = Value::Array(Vec::new());
    }
    match slot {
        Value::Array(items) => items,
        _ => unreachable!("made a list above"),
    }
}

/// `resource.Quantity`: its text.
fn quantity(field: &'static str, payload: Payload<'_>) -> Result<Value, DecodeError> {
    let mut text = "0".to_owned();
    for entry in Reader::new(payload.bytes(field)?) {
        if let (1, payload) = entry? {
            text = payload.text(field)?;
        }
    }
    let quantity = Quantity::parse(&text);
    let quantity = quantity.ok_or(DecodeError::Text { field, expected: "quantity" })?;
    Ok(quantity.to_string().into())
}

/// `intstr.IntOrString`: which of both, the number, the text.
fn int_or_string(field: &'static str, payload: Payload<'_>) -> Result<Value, DecodeError> {
    const STRING: i64 = 1;
    let (mut which, mut number, mut text) = (0, 0, String::new());
    for entry in Reader::new(payload.bytes(field)?) {
        match entry? {
            (1, payload) => which = payload.int64(field)?,
            (2, payload) => number = payload.int32(field)?,
            (3, payload) => text = payload.text(field)?,
            _ => {}
        }
    }
    Ok(if which == STRING { text.into() } else { number.into() })
}

/// `runtime.RawExtension` and `metav1.FieldsV1`: JSON as bytes.
fn raw_json(field: &'static str, payload: Payload<'_>) -> Result<Option<Value>, DecodeError> {
    let mut raw: &[u8] = &[];
    for entry in Reader::new(payload.bytes(field)?) {
        if let (1, payload) = entry? {
            raw = payload.bytes(field)?;
        }
    }
    if raw.is_empty() {
        return Ok(None);
    }
    let value = serde_json::from_slice(raw);
    value.map(Some).map_err(|_| DecodeError::Text { field, expected: "JSON value" })
}

enum Precision {
    Second,
    Micro,
}

/// `metav1.Time` and `metav1.MicroTime`: seconds and nanoseconds; no bytes are no time.
fn time(
    field: &'static str,
    payload: Payload<'_>,
    precision: Precision,
) -> Result<Option<Value>, DecodeError> {
    let bytes = payload.bytes(field)?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let (mut seconds, mut nanos) = (0, 0);
    for entry in Reader::new(bytes) {
        match entry? {
            (1, payload) => seconds = payload.int64(field)?,
            (2, payload) => nanos = payload.int32(field)?,
            _ => {}
        }
    }
    let invalid = DecodeError::Text { field, expected: "time" };
    let fraction = match precision {
        Precision::Second => String::new(),
        Precision::Micro if (0..1_000_000_000).contains(&nanos) => {
            format!(".{:06}", nanos / 1000)
        }
        Precision::Micro => return Err(invalid),
    };
    rfc3339(seconds, &fraction).map(|text| Some(text.into())).ok_or(invalid)
}

/// UTC, for the years that RFC 3339 can write.
fn rfc3339(unix_seconds: i64, fraction: &str) -> Option<String> {
    const DAY: i64 = 86_400;
    const DAYS_FROM_0000_03_01_TO_EPOCH: i64 = 719_468;
    const DAYS_PER_ERA: i64 = 146_097; // 400 years
    let (days, second) = (unix_seconds.div_euclid(DAY), unix_seconds.rem_euclid(DAY));
    // Years that begin in March put the leap day last; an era is 400 of them.
    let days = days.checked_add(DAYS_FROM_0000_03_01_TO_EPOCH)?;
    let (era, day_of_era) = (days.div_euclid(DAYS_PER_ERA), days.rem_euclid(DAYS_PER_ERA));
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = era * 400 + year_of_era + i64::from(month <= 2);
    (0..=9999).contains(&year).then(|| {
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}{fraction}Z")
    })
}

#[cfg(test)]
mod tests {
    use super::rfc3339;

    #[test]
    fn times() {
        for (seconds, expected) in [
            (0, Some("1970-01-01T00:00:00Z")),
            (-1, Some("1969-12-31T23:59:59Z")),
            (951_782_400, Some("2000-02-29T00:00:00Z")),
            (1_709_251_199, Some("2024-02-29T23:59:59Z")),
            (1_709_251_200, Some("2024-03-01T00:00:00Z")),
            (-62_135_596_800, Some("0001-01-01T00:00:00Z")),
            (253_402_300_799, Some("9999-12-31T23:59:59Z")),
            (253_402_300_800, None),
            (i64::MAX, None),
            (i64::MIN, None),
        ] {
            assert_eq!(rfc3339(seconds, "").as_deref(), expected, "{seconds}");
        }
    }
}
