//! What Go's standard library says about text that it cannot read, and how it prints text.
//!
//! Clients see these words in the refusals of a real API server, and people
//! search for them. Each function is the counterpart of the one of `strconv`,
//! `time` or `encoding/json` that it names.

mod json;
mod yaml;

use std::num::IntErrorKind;

pub(crate) use json::{JsonType, check_struct, name_of, syntax_fault};
pub(crate) use yaml::yaml_fault;

/// Text in quotes (`strconv.Quote`, `%q`); differs from Rust's in control characters.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len() + 2);
    quoted.push('"');
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\x07' => quoted.push_str("\\a"),
            '\x08' => quoted.push_str("\\b"),
            '\x0b' => quoted.push_str("\\v"),
            '\x0c' => quoted.push_str("\\f"),
            '\n' => quoted.push_str("\\n"),
            '\t' => quoted.push_str("\\t"),
            '\r' => quoted.push_str("\\r"),
            c if c.is_ascii_control() => quoted.push_str(&format!("\\x{:02x}", u32::from(c))),
            c if is_printed(c) => quoted.push(c),
            c if u32::from(c) < 0x1_0000 => quoted.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => quoted.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    quoted.push('"');
    quoted
}

/// Whether a character stands for itself in quotes; close to `strconv.IsPrint`.
pub(crate) fn is_printed(c: char) -> bool {
    if c.is_ascii() {
        return !c.is_ascii_control();
    }
    // Rust escapes marks, too; Go prints them.
    c.escape_debug().len() == 1 || c.is_alphanumeric()
}

/// A number (`strconv.ParseInt`).
pub(crate) fn parse_int(text: &str) -> Result<i64, String> {
    text.parse().map_err(|error: std::num::ParseIntError| number_fault("ParseInt", text, &error))
}

/// A number that is not negative (`strconv.ParseUint`), which has no sign either.
pub(crate) fn parse_uint(text: &str) -> Result<u64, String> {
    let unsigned = if text.starts_with('+') { "" } else { text };
    unsigned
        .parse()
        .map_err(|error: std::num::ParseIntError| number_fault("ParseUint", text, &error))
}

fn number_fault(function: &str, text: &str, error: &std::num::ParseIntError) -> String {
    let why = match error.kind() {
        IntErrorKind::PosOverflow | IntErrorKind::NegOverflow => "value out of range",
        _ => "invalid syntax",
    };
    format!("strconv.{function}: parsing {}: {why}", quote(text))
}

/// Checks a span of time such as `1h30m` or `-1.5s` (`time.ParseDuration`). How long it is nobody
/// asks here; what is too long for Go is not refused.
pub(crate) fn check_duration(text: &str) -> Result<(), String> {
    const UNITS: [&str; 8] = ["ns", "us", "µs", "μs", "ms", "s", "m", "h"];
    let invalid = || format!("time: invalid duration {}", quote(text));
    let mut rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    if rest == "0" {
        return Ok(());
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let is_digit = |c: char| c.is_ascii_digit();
    while !rest.is_empty() {
        let whole = rest.trim_start_matches(is_digit);
        let fraction = whole.strip_prefix('.').map(|after| after.trim_start_matches(is_digit));
        let unit = fraction.unwrap_or(whole);
        // A point alone is no number.
        let digits = rest.len() - unit.len() - usize::from(fraction.is_some());
        if digits == 0 {
            return Err(invalid());
        }
        let end = unit.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(unit.len());
        let (unit, after) = unit.split_at(end);
        if unit.is_empty() {
            return Err(format!("time: missing unit in duration {}", quote(text)));
        }
        if !UNITS.contains(&unit) {
            let (unit, text) = (quote(unit), quote(text));
            return Err(format!("time: unknown unit {unit} in duration {text}"));
        }
        rest = after;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes() {
        for (text, expected) in [
            ("a\"\\", r#""a\"\\""#),
            ("\0\x07\n\x7f", r#""\x00\a\n\x7f""#),
            ("é\u{85}\u{200b}\u{e0001}", "\"é\\u0085\\u200b\\U000e0001\""),
            ("e\u{fffd}", "\"e\u{fffd}\""),
        ] {
            assert_eq!(quote(text), expected);
        }
    }

    #[test]
    fn numbers() {
        assert_eq!(parse_int("+1"), Ok(1));
        assert_eq!(parse_uint("7"), Ok(7));
        for (found, expected) in [
            (parse_int("").err(), "strconv.ParseInt: parsing \"\": invalid syntax"),
            (parse_int("1.5").err(), "strconv.ParseInt: parsing \"1.5\": invalid syntax"),
            (
                parse_int("99999999999999999999").err(),
                "strconv.ParseInt: parsing \"99999999999999999999\": value out of range",
            ),
            (parse_uint("-1").err(), "strconv.ParseUint: parsing \"-1\": invalid syntax"),
            (parse_uint("+1").err(), "strconv.ParseUint: parsing \"+1\": invalid syntax"),
        ] {
            assert_eq!(found.as_deref(), Some(expected));
        }
    }

    #[test]
    fn durations() {
        for fine in ["0", "-0", "10s", "-1s", "1h30m", "1.5h", ".5s", "5.s", "1µs"] {
            assert_eq!(check_duration(fine), Ok(()), "{fine}");
        }
        for (text, expected) in [
            ("", "time: invalid duration \"\""),
            ("x", "time: invalid duration \"x\""),
            ("-", "time: invalid duration \"-\""),
            (".s", "time: invalid duration \".s\""),
            ("10", "time: missing unit in duration \"10\""),
            ("1d", "time: unknown unit \"d\" in duration \"1d\""),
            ("1s x", "time: unknown unit \"s x\" in duration \"1s x\""),
        ] {
            assert_eq!(check_duration(text), Err(expected.to_owned()), "{text}");
        }
    }
}
