//! A record from its text, as zone files write it: `OWNER [TTL] [CLASS] TYPE DATA`.

use bytes::Bytes;
use domain::{
    base::{Record, Ttl, iana::Class, iana::Rtype, scan::IterScanner},
    rdata::ZoneRecordData,
};

use crate::name::{DnsName, Rr, parse};

/// TTL of a record that says none, in seconds (CoreDNS).
const TTL_SECONDS: u32 = 3600;

/// Reads a record; names without a last dot are whole all the same.
pub(super) fn read(text: &str) -> Result<Rr, String> {
    let wrong = |what: &str| format!("{what} in the record {text:?}");
    let words = words(text).ok_or_else(|| wrong("a quote that is not closed"))?;
    let mut words = words.into_iter();
    let owner = words.next().ok_or_else(|| wrong("nothing"))?;
    let owner = parse(&owner).ok_or_else(|| wrong("no domain name"))?;
    let mut ttl = TTL_SECONDS;
    let kind = loop {
        let word = words.next().ok_or_else(|| wrong("no type"))?;
        if let Ok(seconds) = word.parse() {
            ttl = seconds;
        } else if Class::from_mnemonic(word.as_bytes()) == Some(Class::IN) {
            // The class says nothing: there is one.
        } else {
            break word.parse::<Rtype>().map_err(|_| wrong("an unknown type"))?;
        }
    };
    let mut scanner = IterScanner::<_, Bytes>::new(words);
    let data = ZoneRecordData::<Bytes, DnsName>::scan(kind, &mut scanner)
        .map_err(|error| wrong(&error.to_string()))?;
    if !scanner.is_exhausted() {
        return Err(wrong("something behind the end"));
    }
    Ok(Record::new(owner, Class::IN, Ttl::from_secs(ttl), data))
}

/// Words, where quotes hold white space together and vanish. `None`: one is open.
fn words(text: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        if c.is_whitespace() {
            continue;
        }
        let quoted = c == '"';
        let mut word = if quoted { String::new() } else { String::from(c) };
        let mut closed = !quoted;
        while let Some(c) = chars.peek().copied() {
            if quoted && c == '"' {
                chars.next();
                closed = true;
                break;
            }
            if !quoted && c.is_whitespace() {
                break;
            }
            chars.next();
            // What is escaped does not end the word; the scanner takes the escape.
            word.push(c);
            if c == '\\'
                && let Some(next) = chars.next()
            {
                word.push(next);
            }
        }
        if !closed {
            return None;
        }
        words.push(word);
    }
    Some(words)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::name::line;

    #[test]
    fn records_of_texts() {
        for (text, expected) in [
            ("a.test. 60 IN A 10.0.0.1", Some("a.test. 60 IN A 10.0.0.1")),
            ("a.test IN 60 A 10.0.0.1", Some("a.test. 60 IN A 10.0.0.1")),
            ("a.test A 10.0.0.1", Some("a.test. 3600 IN A 10.0.0.1")),
            ("a.test. 60 IN CNAME b.test", Some("a.test. 60 IN CNAME b.test.")),
            ("a.test. 5 IN SRV 0 10 80 b.test.", Some("a.test. 5 IN SRV 0 10 80 b.test.")),
            ("a.test. 5 TXT \"two words\" x", Some("a.test. 5 IN TXT \"two words\" \"x\"")),
            (". 60 IN SOA ns. me. (1 60 60 60 60)", None),
            ("a. 60 IN SOA ns. me. 1 60 60 60 60", Some("a. 60 IN SOA ns. me. 1 60 60 60 60")),
            ("a.test. 60 IN A 10.0.0.256", None),
            ("a.test. 60 IN A 10.0.0.1 x", None),
            ("a.test. 60 IN A", None),
            ("a.test. 60 IN", None),
            ("a..test. A 10.0.0.1", None),
            ("a.test. TXT \"open", None),
            ("", None),
        ] {
            let found = read(text)
                .map(|record| line(&record).split_whitespace().collect::<Vec<_>>().join(" "));
            assert_eq!(found.as_deref().ok(), expected, "{text}: {found:?}");
        }
    }
}
