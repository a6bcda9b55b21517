//! Quantities (`100m`, `1Gi`, `5e3`): reading, comparing, and the one canonical spelling.
//!
//! Format and canonical form: `k8s.io/apimachinery/pkg/api/resource`. A value is held exactly, in
//! billionths (upstream rounds finer fractions up to nano); what does not fit is refused.

use std::fmt;

use serde_json::Value;

const NANO: i128 = 1_000_000_000;

/// Suffixes of powers of 1024.
const BINARY: [(&str, u32); 6] =
    [("Ki", 10), ("Mi", 20), ("Gi", 30), ("Ti", 40), ("Pi", 50), ("Ei", 60)];
/// Suffixes of powers of 1000, by exponent of ten.
const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Style {
    Binary,
    Decimal,
    Exponent,
}

/// An amount of a resource.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nano: i128,
    style: Style,
}

impl Quantity {
    /// Reads a quantity; `None` when it is none.
    pub fn parse(text: &str) -> Option<Quantity> {
        let end = text
            .char_indices()
            .find(|(i, c)| !(c.is_ascii_digit() || *c == '.' || (*i == 0 && "+-".contains(*c))))
            .map_or(text.len(), |(i, _)| i);
        let (number, suffix) = text.split_at(end);
        if let Some((_, shift)) = BINARY.iter().find(|(name, _)| *name == suffix) {
            let nano = scaled(number, 0)?.checked_mul(1_i128.checked_shl(*shift)?)?;
            return Some(Quantity { nano, style: Style::Binary });
        }
        if let Some((_, exponent)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
            return Some(Quantity { nano: scaled(number, *exponent)?, style: Style::Decimal });
        }
        let exponent = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
        Some(Quantity { nano: scaled(number, exponent)?, style: Style::Exponent })
    }

    /// Reads a quantity written as a JSON string or number.
    pub fn from_value(value: &Value) -> Option<Quantity> {
        match value {
            Value::String(text) => Quantity::parse(text),
            Value::Number(number) => Quantity::parse(&number.to_string()),
            _ => None,
        }
    }

    /// Whether this is nothing.
    pub fn is_zero(&self) -> bool {
        self.nano == 0
    }

    /// Whether this is less than nothing.
    pub fn is_negative(&self) -> bool {
        self.nano < 0
    }

    /// Whether this is so many times a whole, positive unit.
    pub fn is_multiple_of(&self, unit: Quantity) -> bool {
        unit.nano > 0 && unit.is_whole() && self.nano % unit.nano == 0
    }

    /// The next amount, away from zero, that is so many thousandths.
    pub fn round_up_to_milli(self) -> Quantity {
        const MILLI: i128 = NANO / 1000;
        let rest = self.nano % MILLI;
        let nano = match rest {
            0 => self.nano,
            rest => self.nano - rest + MILLI * rest.signum(),
        };
        Quantity { nano, ..self }
    }

    /// Whether this is a whole number.
    pub fn is_whole(&self) -> bool {
        self.nano % NANO == 0
    }
}

/// A decimal number times a power of ten, in billionths, fractions rounded away from zero.
fn scaled(number: &str, exponent: i32) -> Option<i128> {
    let (negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if (whole.is_empty() && fraction.is_empty()) || fraction.contains('.') {
        return None;
    }
    let all: String = [whole, fraction].concat();
    let mut value: i128 = if all.is_empty() { 0 } else { all.parse().ok()? };
    let power = exponent.checked_add(9)?.checked_sub(i32::try_from(fraction.len()).ok()?)?;
    if power >= 0 {
        value = value.checked_mul(10_i128.checked_pow(power.unsigned_abs())?)?;
    } else {
        let divisor = 10_i128.checked_pow(power.unsigned_abs())?;
        value = value.checked_add(divisor - 1)? / divisor;
    }
    Some(if negative { -value } else { value })
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nano == other.nano
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.nano.cmp(&other.nano)
    }
}

/// The canonical spelling: no fraction, the largest suffix that leaves a whole number.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nano == 0 {
            return f.write_str("0");
        }
        // Upstream falls back to decimal suffixes for fractions and for amounts under 1024.
        if self.style == Style::Binary && self.is_whole() && self.nano.abs() >= 1024 * NANO {
            let whole = self.nano / NANO;
            let (suffix, shift) = BINARY
                .iter()
                .rev()
                .find(|(_, shift)| whole.trailing_zeros() >= *shift)
                .copied()
                .unwrap_or(("", 0));
            return write!(f, "{}{suffix}", whole >> shift);
        }
        let (mut value, mut exponent) = (self.nano, -9);
        while value % 1000 == 0 && exponent < 18 {
            value /= 1000;
            exponent += 3;
        }
        if self.style == Style::Exponent {
            return if exponent == 0 {
                write!(f, "{value}")
            } else {
                write!(f, "{value}e{exponent}")
            };
        }
        let suffix = DECIMAL.iter().find(|(_, e)| *e == exponent).map_or("", |(name, _)| name);
        write!(f, "{value}{suffix}")
    }
}

#[cfg(test)]
mod tests {
    use super::Quantity;

    #[test]
    fn canonical_spellings() {
        for (text, canonical) in [
            ("0", "0"),
            ("1", "1"),
            ("0.5", "500m"),
            ("1.5", "1500m"),
            ("1000m", "1"),
            ("1024Mi", "1Gi"),
            ("1.5Gi", "1536Mi"),
            ("512", "512"),
            ("1000", "1k"),
            ("1000Ki", "1000Ki"),
            ("5e3", "5e3"),
            ("123456789", "123456789"),
            ("-1Ki", "-1Ki"),
            (".5Ki", "512"),
            ("1n", "1n"),
            ("0.1n", "1n"),
            ("2E", "2E"),
        ] {
            assert_eq!(Quantity::parse(text).unwrap().to_string(), canonical, "{text}");
        }
    }

    #[test]
    fn refuses_what_is_none() {
        for text in ["", "abc", "1x", "1.2.3", "Gi", "1 Gi", "--1", "1e", "1e99", "999999999999E"] {
            assert!(Quantity::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn compares_by_amount() {
        assert_eq!(Quantity::parse("1Gi"), Quantity::parse("1024Mi"));
        assert!(Quantity::parse("1Gi") > Quantity::parse("1G"));
    }
}
