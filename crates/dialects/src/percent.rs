//! Percent-encoding, strict in what it reads: a broken escape is an error of
//! its entry, not a guess.

use std::fmt::Write as _;

/// Writes `text` with everything escaped but unreserved characters (RFC 3986,
/// section 2.3) and `also`.
pub(crate) fn encode(text: &str, also: &str, out: &mut String) {
    for byte in text.bytes() {
        let plain = byte.is_ascii_alphanumeric()
            || b"-._~".contains(&byte)
            || also.as_bytes().contains(&byte);
        if plain {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            write!(out, "%{byte:02X}").unwrap_or_default();
        }
    }
}

/// What `+` means.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Plus {
    /// Itself, as in paths and names.
    Literal,
    /// A blank, as form encoders write it in queries.
    Blank,
}

/// Reads escapes. `Err` says what is wrong, for people.
pub(crate) fn decode(text: &str, plus: Plus) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let (high, low) = (rest.next().and_then(digit), rest.next().and_then(digit));
                let (Some(high), Some(low)) = (high, low) else {
                    return Err(format!("{text:?} has a '%' without two hexadecimal digits"));
                };
                bytes.push(high << 4 | low);
            }
            b'+' if plus == Plus::Blank => bytes.push(b' '),
            byte => bytes.push(byte),
        }
    }
    String::from_utf8(bytes).map_err(|_| format!("{text:?} does not decode to UTF-8"))
}

/// Reads escapes and takes a broken one for what it literally is: for dialects
/// whose own writers leave bare `%` behind.
pub(crate) fn decode_lenient(text: &str, plus: Plus) -> String {
    decode(text, plus).unwrap_or_else(|_| match plus {
        Plus::Blank => text.replace('+', " "),
        Plus::Literal => text.to_owned(),
    })
}

fn digit(byte: u8) -> Option<u8> {
    char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict() {
        for (text, plus, expected) in [
            ("a%2Fb", Plus::Literal, Some("a/b")),
            ("a+b", Plus::Literal, Some("a+b")),
            ("a+b", Plus::Blank, Some("a b")),
            ("%c3%A9", Plus::Literal, Some("é")),
            ("%", Plus::Literal, None),
            ("%4", Plus::Literal, None),
            ("%zz", Plus::Literal, None),
            ("%+1", Plus::Literal, None),
            ("%ff", Plus::Literal, None),
        ] {
            assert_eq!(decode(text, plus).ok().as_deref(), expected, "{text}");
        }
        assert_eq!(decode_lenient("100%+x", Plus::Blank), "100% x");
    }

    #[test]
    fn writes() {
        let mut out = String::new();
        encode("a b/é:~", "/", &mut out);
        assert_eq!(out, "a%20b/%C3%A9%3A~");
    }
}
