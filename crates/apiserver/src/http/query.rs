//! Query strings and percent-encoding. How long they are is bounded by the head of a request.

use crate::Status;

/// The parameters of a request, in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(text: &str) -> Result<Query, Status> {
        let pairs = text.split('&').filter(|p| !p.is_empty()).map(|pair| {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decode = |t: &str| percent_decode(&t.replace('+', " "));
            Some((decode(key)?, decode(value)?))
        });
        pairs.collect::<Option<_>>().map_or_else(
            || Err(Status::bad_request("the query is not valid UTF-8")),
            |p| Ok(Query(p)),
        )
    }

    /// The first value of a parameter.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// All values of a parameter.
    pub(crate) fn all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a str> {
        self.0.iter().filter(move |(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// A switch: present without a value counts as on (as upstream's conversion does).
    pub(crate) fn flag(&self, key: &str) -> bool {
        self.get(key).is_some_and(|v| v != "0" && !v.eq_ignore_ascii_case("false"))
    }

    /// A number, as upstream reads one.
    pub(crate) fn integer(&self, key: &str) -> Result<Option<i64>, Status> {
        match self.get(key) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                let why = format!("strconv.ParseInt: parsing {text:?}: invalid syntax");
                Status::bad_request(why)
            }),
        }
    }

    /// A number that is not negative.
    pub(crate) fn number(&self, key: &str) -> Result<Option<u64>, Status> {
        match self.get(key) {
            None | Some("") => Ok(None),
            Some(text) => text.parse().map(Some).map_err(|_| {
                Status::bad_request(format!("{key}: {text:?} is not a number from 0"))
            }),
        }
    }
}

/// Decodes `%41`; `None` when the outcome is not UTF-8. A lone `%` stays.
pub(crate) fn percent_decode(text: &str) -> Option<String> {
    if !text.contains('%') {
        return Some(text.to_owned());
    }
    let bytes = text.as_bytes();
    let mut out = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while index < bytes.len() {
        let hex = bytes
            .get(index + 1..index + 3)
            .and_then(|pair| std::str::from_utf8(pair).ok())
            .and_then(|pair| u8::from_str_radix(pair, 16).ok());
        match (bytes[index], hex) {
            (b'%', Some(byte)) => {
                out.push(byte);
                index += 3;
            }
            (byte, _) => {
                out.push(byte);
                index += 1;
            }
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        let query = Query::parse("a=b%3Dc&watch&x=1+2&limit=5&n=-1&dryRun=All&dryRun=").unwrap();
        assert_eq!(query.get("a"), Some("b=c"));
        assert!(query.flag("watch"));
        assert!(!query.flag("absent"));
        assert_eq!(query.get("x"), Some("1 2"));
        assert_eq!(query.number("limit").unwrap(), Some(5));
        assert_eq!(query.number("n").unwrap_err().code, 400);
        assert_eq!(query.all("dryRun").count(), 2);
        assert!(Query::parse("a=%ff").is_err());
        assert_eq!(percent_decode("%zz%4").as_deref(), Some("%zz%4"));
    }

    proptest::proptest! {
        #[test]
        fn any_query_is_read_or_refused(text in "[a-z%0-9A-F&=+é]{0,40}") {
            if let Ok(query) = Query::parse(&text) {
                drop(query.number("a"));
            }
        }
    }
}
