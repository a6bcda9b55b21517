//! Texts with a format of their own inside JSON strings: times, quantities, base64.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{GeneralPurpose, GeneralPurposeConfig};
use serde_json::Value;

use crate::{
    registry::object::{parse_timestamp, timestamp},
    schema::quantity::Quantity,
};

/// Go's layout of RFC 3339.
const RFC3339: &str = "2006-01-02T15:04:05Z07:00";
/// Go's layout of `metav1.MicroTime`: exactly six digits of a fraction.
const RFC3339_MICRO: &str = "2006-01-02T15:04:05.000000Z07:00";
const MICRO_DIGITS: usize = 6;

/// Go's `base64.StdEncoding`: padded, and lenient about bits beyond the last byte.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// Letters that may begin a quantity's suffix.
const QUANTITY_LETTERS: &str = "eEinumkKMGTP";

pub(super) fn quantity(value: &Value) -> Result<(), String> {
    if Quantity::from_value(value).is_some() {
        return Ok(());
    }
    let suffix = value.as_str().map(|text| {
        text.trim_start_matches(['+', '-'])
            .trim_start_matches(|c: char| c == '.' || c.is_ascii_digit())
    });
    let formed = suffix.is_some_and(|suffix| {
        !suffix.is_empty()
            && value.as_str() != Some(suffix)
            && suffix.chars().all(|c| QUANTITY_LETTERS.contains(c))
    });
    Err(if formed {
        "unable to parse quantity's suffix".to_owned()
    } else {
        "quantities must match the regular expression \
         '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
            .to_owned()
    })
}

/// Why a text is not base64. Go skips line breaks inside.
pub(super) fn base64_fault(text: &str) -> Option<String> {
    let fault = if text.contains(['\r', '\n']) {
        BASE64.decode(text.replace(['\r', '\n'], "")).err()
    } else {
        BASE64.decode(text).err()
    };
    fault.map(|fault| {
        let at = match fault {
            base64::DecodeError::InvalidByte(at, _)
            | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            // Go names the start of the group that is not whole.
            _ if text.ends_with('=') => text.len(),
            base64::DecodeError::InvalidLength(_) | base64::DecodeError::InvalidPadding => {
                text.len() - text.len() % 4
            }
        };
        format!("illegal base64 data at input byte {at}")
    })
}

pub(super) fn time(text: &str) -> Result<(), String> {
    Reader { text, rest: text, layout: RFC3339 }.read(None)
}

pub(super) fn micro_time(text: &str) -> Result<(), String> {
    Reader { text, rest: text, layout: RFC3339_MICRO }.read(Some(MICRO_DIGITS))
}

/// Writes a time as Go does, once it has read it: in UTC, with a fraction or without.
pub(super) fn to_utc(text: &mut String, with_fraction: bool) {
    let is_plain = text.ends_with('Z') && (with_fraction || !text.contains('.'));
    if is_plain {
        return;
    }
    let Some(time) = parse_timestamp(text).map(timestamp) else { return };
    let fraction = text.split_once('.').map(|(_, rest)| {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        format!(".{}Z", &rest[..digits])
    });
    *text = match fraction.filter(|_| with_fraction) {
        Some(fraction) => time.replace('Z', &fraction),
        None => time,
    };
}

/// Reads a time as Go's `time.Parse` does, for the sake of its error texts.
struct Reader<'t> {
    text: &'t str,
    rest: &'t str,
    layout: &'static str,
}

impl Reader<'_> {
    fn read(mut self, fraction: Option<usize>) -> Result<(), String> {
        let year = self.digits(4, "2006")?;
        self.literal("-")?;
        let month = self.digits(2, "01")?;
        if !(1..=12).contains(&month) {
            return Err(self.out_of_range("month"));
        }
        self.literal("-")?;
        let day = self.digits(2, "02")?;
        self.literal("T")?;
        self.below(24, "15", "hour")?;
        self.literal(":")?;
        self.below(60, "04", "minute")?;
        self.literal(":")?;
        self.below(60, "05", "second")?;
        self.fraction(fraction)?;
        self.zone()?;
        if !self.rest.is_empty() {
            let (text, rest) = (self.text, self.rest);
            return Err(format!("parsing time {text:?}: extra text: {rest:?}"));
        }
        if day < 1 || day > days_in(year, month) {
            return Err(self.out_of_range("day"));
        }
        Ok(())
    }

    fn digits(&mut self, count: usize, element: &str) -> Result<u32, String> {
        let taken = self.rest.get(..count).filter(|t| t.bytes().all(|b| b.is_ascii_digit()));
        let number = taken.and_then(|taken| taken.parse().ok());
        let number = number.ok_or_else(|| self.cannot_parse(element))?;
        self.rest = &self.rest[count..];
        Ok(number)
    }

    fn below(&mut self, limit: u32, element: &str, name: &str) -> Result<(), String> {
        let number = self.digits(2, element)?;
        if number < limit { Ok(()) } else { Err(self.out_of_range(name)) }
    }

    fn literal(&mut self, literal: &str) -> Result<(), String> {
        self.rest = self.rest.strip_prefix(literal).ok_or_else(|| self.cannot_parse(literal))?;
        Ok(())
    }

    fn fraction(&mut self, exactly: Option<usize>) -> Result<(), String> {
        let digits = self
            .rest
            .strip_prefix('.')
            .map_or(0, |rest| rest.bytes().take_while(u8::is_ascii_digit).count());
        let taken = match exactly {
            Some(count) if digits < count => return Err(self.cannot_parse(".000000")),
            Some(count) => count + 1,
            None if digits > 0 => digits + 1,
            None => 0,
        };
        self.rest = &self.rest[taken..];
        Ok(())
    }

    fn zone(&mut self) -> Result<(), String> {
        if let Some(rest) = self.rest.strip_prefix('Z') {
            self.rest = rest;
            return Ok(());
        }
        let zone = self.rest.get(..6).filter(|zone| {
            zone.bytes().zip("+00:00".bytes()).all(|(found, form)| match form {
                b'+' => found == b'+' || found == b'-',
                b'0' => found.is_ascii_digit(),
                _ => found == form,
            })
        });
        if zone.is_none() {
            return Err(self.cannot_parse("Z07:00"));
        }
        self.rest = &self.rest[6..];
        Ok(())
    }

    fn cannot_parse(&self, element: &str) -> String {
        let Reader { text, rest, layout } = self;
        format!("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {element:?}")
    }

    fn out_of_range(&self, name: &str) -> String {
        format!("parsing time {:?}: {name} out of range", self.text)
    }
}

fn days_in(year: u32, month: u32) -> u32 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 if leap => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        for (text, expected) in [
            ("2024-02-29T23:59:59Z", None),
            ("2024-02-29T23:59:59.123456789-07:00", None),
            ("2023-02-29T00:00:00Z", Some("day out of range")),
            ("2023-13-01T00:00:00Z", Some("month out of range")),
            ("2023-12-01T24:00:00Z", Some("hour out of range")),
            ("2023-12-01", Some("cannot parse \"\" as \"T\"")),
            ("2023-12-01T00:00:00", Some("cannot parse \"\" as \"Z07:00\"")),
            ("2023-12-01T00:00:00Zulu", Some("extra text: \"ulu\"")),
            ("", Some("cannot parse \"\" as \"2006\"")),
            ("20é4-12-01T00:00:00Z", Some("as \"2006\"")),
        ] {
            match (time(text), expected) {
                (Ok(()), None) => {}
                (Err(error), Some(part)) => assert!(error.ends_with(part), "{error}"),
                (got, _) => panic!("{text}: {got:?}"),
            }
        }
        assert!(micro_time("2024-02-29T23:59:59.123456Z").is_ok());
        assert!(micro_time("2024-02-29T23:59:59.1234567Z").is_err());
        assert!(micro_time("2024-02-29T23:59:59.123Z").is_err());
    }

    #[test]
    fn quantities() {
        for (value, expected) in [
            (Value::from("1Gi"), None),
            (Value::from(5), None),
            (Value::from("5nn"), Some("suffix")),
            (Value::from("5x"), Some("regular expression")),
            (Value::from("G"), Some("regular expression")),
            (Value::from(""), Some("regular expression")),
            (Value::from(true), Some("regular expression")),
        ] {
            match (quantity(&value), expected) {
                (Ok(()), None) => {}
                (Err(error), Some(part)) => assert!(error.contains(part), "{error}"),
                (got, _) => panic!("{value}: {got:?}"),
            }
        }
    }
}
