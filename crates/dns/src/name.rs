//! Domain names and records, in the types of `domain`, and how we make them.

use bytes::{Bytes, BytesMut};
use domain::{
    base::{Name, NameBuilder, Record, Ttl, iana::Class},
    rdata::ZoneRecordData,
};

/// A name with its case kept. Comparing two of them ignores case.
pub type DnsName = Name<Bytes>;

/// A record of an answer.
pub type Rr = Record<DnsName, ZoneRecordData<Bytes, DnsName>>;

/// What a label becomes that no name of ours can equal: it holds a dot or a
/// byte that is no visible ASCII.
const UNMATCHABLE: &str = "\0";

/// Makes a record of class IN.
pub(crate) fn record(
    owner: &DnsName,
    ttl: u32,
    data: impl Into<ZoneRecordData<Bytes, DnsName>>,
) -> Rr {
    Record::new(owner.clone(), Class::IN, Ttl::from_secs(ttl), data.into())
}

/// Reads a name as people write it, with or without the last dot. `None` when
/// it is no domain name.
pub(crate) fn parse(text: &str) -> Option<DnsName> {
    DnsName::bytes_from_str(text).ok()
}

/// Puts labels in front of a suffix. Each part may hold several labels, split
/// by dots. `None` when the result is no domain name (a label or the whole is
/// too long, a label is empty).
pub(crate) fn join(parts: &[&str], suffix: &DnsName) -> Option<DnsName> {
    let mut builder = NameBuilder::<BytesMut>::new_bytes();
    for label in parts.iter().flat_map(|part| part.split('.')) {
        if label.is_empty() {
            return None;
        }
        builder.append_label(label.as_bytes()).ok()?;
    }
    builder.append_origin(suffix).ok()
}

/// How many labels a name has, the root not counted.
pub(crate) fn depth(name: &DnsName) -> usize {
    name.label_count().saturating_sub(1)
}

/// The labels of a name in lower case, leftmost first, without the root.
pub(crate) fn folded_labels(name: &DnsName) -> Vec<String> {
    name.iter()
        .filter(|label| !label.is_root())
        .map(|label| {
            let bytes = label.as_slice();
            let plain = bytes.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'.');
            match std::str::from_utf8(bytes) {
                Ok(text) if plain => text.to_ascii_lowercase(),
                _ => UNMATCHABLE.to_owned(),
            }
        })
        .collect()
}

/// The last `labels` labels of a name, in the case in which they stand there.
pub(crate) fn suffix(name: &DnsName, labels: usize) -> DnsName {
    let skip = depth(name).saturating_sub(labels);
    let start = name.iter().take(skip).map(|label| usize::from(label.compose_len())).sum();
    name.range_from(start)
}

/// The text of a name with its last dot.
pub(crate) fn text(name: &DnsName) -> String {
    name.fmt_with_dot().to_string()
}

/// A record in one line, in `dig`'s order of fields and with its last dots.
#[cfg(test)]
pub(crate) fn line(record: &Rr) -> String {
    let line = record.to_string();
    // `domain` leaves the last dot of an SRV's target out.
    let is_srv = record.rtype() == domain::base::Rtype::SRV;
    if is_srv && !line.ends_with('.') { line + "." } else { line }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suffix_keeps_its_case() {
        let name = parse("Web.Demo.SVC.Cluster.Local").unwrap();
        for (labels, expected) in [
            (0, "."),
            (2, "Cluster.Local."),
            (5, "Web.Demo.SVC.Cluster.Local."),
            (9, "Web.Demo.SVC.Cluster.Local."),
        ] {
            assert_eq!(text(&suffix(&name, labels)), expected);
        }
    }

    #[test]
    fn joining_refuses_what_is_no_name() {
        let zone = parse("cluster.local").unwrap();
        let long = "x".repeat(64);
        for (parts, expected) in [
            (&["a", "b"][..], Some("a.b.cluster.local.")),
            (&["com.example.Api"][..], Some("com.example.Api.cluster.local.")),
            (&["a..b"][..], None),
            (&[""][..], None),
            (&[long.as_str()][..], None),
        ] {
            assert_eq!(
                join(parts, &zone).map(|name| text(&name)).as_deref(),
                expected,
                "{parts:?}"
            );
        }
    }

    #[test]
    fn labels_that_hold_a_dot_match_nothing() {
        let name = parse("a\\.b.Demo\\000.x").unwrap();
        assert_eq!(folded_labels(&name), [UNMATCHABLE, UNMATCHABLE, "x"]);
    }
}
