//! Query strings and percent-encoding. How long they are is bounded by the head of a request.

use crate::{Status, go};

/// The parameters of a request, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads what can be read, as Go's `url.ParseQuery` does for a server that does not look at
    /// its error: a pair with a bad escape or a semicolon is as if it were not there.
    pub(crate) fn parse(text: &str) -> Query {
        let pairs = text.split('&').filter(|p| !p.is_empty() && !p.contains(';'));
        let pairs = pairs.filter_map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |t: &str| percent_decode(&t.replace('+', " "));
            Some((decode(key)?, decode(value)?))
        });
        Query(pairs.collect())
    }

    /// The first value of a parameter.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// All values of a parameter.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// A switch that may be left alone: present without a value counts as on (as upstream's
    /// conversion does).
    pub(crate) fn switch(&self, key: &str) -> Option<bool> {
        self.get(key).map(|v| v != "0" && !v.eq_ignore_ascii_case("false"))
    }

    /// A switch that is off by default.
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.switch(key).unwrap_or(false)
    }

    /// A number, as upstream reads one.
    pub(crate) fn integer(&self, key: &str) -> Result<Option<i64>, Status> {
        self.get(key).map(go::parse_int).transpose().map_err(Status::bad_request)
    }

    /// Looks at the time that the client gives the request. It is not held to it: no request
    /// that is no stream takes long.
    pub(crate) fn check_timeout(&self) -> Result<(), Status> {
        match self.get("timeout") {
            None | Some("") => Ok(()),
            Some(text) => go::check_duration(text).map_err(|why| {
                let what = "invalid timeout specified in the request URL";
                Status::bad_request(format!("{what} - {why}"))
            }),
        }
    }
}

/// Decodes `%41`; `None` when what follows a `%` are no two hexadecimal digits. Bytes that are no
/// UTF-8 become U+FFFD: nothing that is held has such a name.
pub(crate) fn percent_decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(byte) = bytes.get(index) {
        if *byte != b'%' {
            out.push(*byte);
            index += 1;
            continue;
        }
        let high = bytes.get(index + 1).and_then(digit)?;
        let low = bytes.get(index + 2).and_then(digit)?;
        out.push(high << 4 | low);
        index += 3;
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        let query = Query::parse("a=b%3Dc&watch&x=1+2&limit=5&n=-1&dryRun=All&dryRun=");
        assert_eq!(query.get("a"), Some("b=c"));
        assert!(query.flag("watch"));
        assert!(!query.flag("absent"));
        assert_eq!(query.get("x"), Some("1 2"));
        assert_eq!(query.integer("limit").unwrap(), Some(5));
        assert_eq!(query.integer("n").unwrap(), Some(-1));
        assert_eq!(query.all("dryRun").count(), 2);
        assert_eq!(Query::parse("a=%ff").get("a"), Some("\u{fffd}"));
        assert_eq!(query.integer("x").unwrap_err().message, {
            "strconv.ParseInt: parsing \"1 2\": invalid syntax"
        });
        assert_eq!(query.integer("watch").unwrap_err().code, 400);
    }

    #[test]
    fn what_cannot_be_read_is_not_there() {
        let query = Query::parse("a=%zz&b=1&c=%4&%&d;e=2&f=g;h&b=3&=x");
        assert_eq!(query.get("b"), Some("1"));
        for key in ["a", "c", "%", "d", "e", "f"] {
            assert_eq!(query.get(key), None, "{key}");
        }
    }

    #[test]
    fn timeouts_are_looked_at() {
        assert_eq!(Query::parse("timeout=10s").check_timeout(), Ok(()));
        assert_eq!(Query::parse("timeout=").check_timeout(), Ok(()));
        assert_eq!(
            Query::parse("timeout=x").check_timeout().unwrap_err().message,
            "invalid timeout specified in the request URL - time: invalid duration \"x\""
        );
    }

    proptest::proptest! {
        #[test]
        fn any_query_is_read_or_refused(text in "[a-z%0-9A-F&=+é]{0,40}") {
            drop(Query::parse(&text).integer("a"));
        }
    }
}
