//! Query strings, as clients of the HTTP API write them.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// All but unreserved characters (RFC 3986, section 2.3).
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Adds a query to a URL without one. Values may hold anything; names are the API's.
pub fn with_query<'a>(url: String, query: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let mut whole = url;
    for (number, (name, value)) in query.into_iter().enumerate() {
        whole.push(if number == 0 { '?' } else { '&' });
        whole.push_str(name);
        whole.push('=');
        whole.extend(utf8_percent_encode(value, ENCODED));
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded() {
        for (value, expected) in [
            ("svc/a b&c", "svc%2Fa%20b%26c"),
            ("N\u{e4}me", "N%C3%A4me"),
            ("registry:a/b%", "registry%3Aa%2Fb%25"),
            ("a-b.c_d~1", "a-b.c_d~1"),
        ] {
            assert_eq!(
                with_query("/v1/x".to_owned(), [("on", value)]),
                format!("/v1/x?on={expected}")
            );
        }
        assert_eq!(with_query("/".to_owned(), [("a", "1"), ("b", "")]), "/?a=1&b=");
        assert_eq!(with_query("/".to_owned(), []), "/");
    }
}
