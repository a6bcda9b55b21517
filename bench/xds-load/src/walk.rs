//! Walks through a delta response without decoding what is in it.

/// What matters of a response.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Walked<'a> {
    pub(crate) type_url: &'a str,
    pub(crate) nonce: &'a str,
    pub(crate) resources: usize,
    pub(crate) mark: Option<u16>,
}

/// Reads the fields of a `DeltaDiscoveryResponse`; what cannot be read ends the walk.
pub(crate) fn response(mut message: &[u8]) -> Walked<'_> {
    let mut walked = Walked::default();
    let whole = message;
    while let Some((number, content, rest)) = field(message) {
        match number {
            2 => walked.resources += 1,
            4 => walked.type_url = std::str::from_utf8(content).unwrap_or_default(),
            5 => walked.nonce = std::str::from_utf8(content).unwrap_or_default(),
            _ => {}
        }
        message = rest;
    }
    // Marks are addresses of endpoints.
    if walked.type_url.ends_with(".ClusterLoadAssignment") {
        walked.mark = mark(whole);
    }
    walked
}

/// A field that has a length: its number, its content, and what comes after it.
fn field(message: &[u8]) -> Option<(u64, &[u8], &[u8])> {
    let (key, rest) = varint(message)?;
    let (length, rest) = varint(rest)?;
    // A response of delta has no other fields.
    let (content, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    (key & 7 == 2).then_some((key >> 3, content, rest))
}

fn varint(bytes: &[u8]) -> Option<(u64, &[u8])> {
    let mut value = 0;
    for (place, byte) in bytes.iter().enumerate().take(10) {
        value |= u64::from(byte & 0x7f) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, bytes.get(place + 1..)?));
        }
    }
    None
}

/// The number of the first mark in a response.
fn mark(resource: &[u8]) -> Option<u16> {
    const BEGIN: &[u8] = b"10.251.";
    let at = resource.windows(BEGIN.len()).position(|window| window == BEGIN)?;
    let rest = resource.get(at + BEGIN.len()..)?;
    let end = rest.iter().position(|byte| !byte.is_ascii_digit() && *byte != b'.')?;
    let (high, low) = std::str::from_utf8(rest.get(..end)?).ok()?.split_once('.')?;
    Some(high.parse::<u16>().ok()? << 8 | low.parse::<u16>().ok()?)
}

#[cfg(test)]
mod tests {
    use portolan_envoy_proto::{
        Message,
        google::protobuf::Any,
        service::discovery::v3::{DeltaDiscoveryResponse, Resource},
    };

    use super::*;

    #[test]
    fn what_matters_is_found() {
        let resource = |value: &[u8]| Resource {
            name: "x".into(),
            resource: Some(Any { type_url: "t".into(), value: value.to_vec() }),
            ..Resource::default()
        };
        let told = DeltaDiscoveryResponse {
            type_url: "x.ClusterLoadAssignment".into(),
            nonce: "7".into(),
            resources: vec![resource(&[1; 300]), resource(b"..10.251.2.17\x18\x01")],
            removed_resources: vec!["gone".into()],
            ..DeltaDiscoveryResponse::default()
        };
        let bytes = told.encode_to_vec();
        let expected = Walked {
            type_url: "x.ClusterLoadAssignment",
            nonce: "7",
            resources: 2,
            mark: Some(2 << 8 | 17),
        };
        assert_eq!(response(&bytes), expected);
        assert_eq!(response(&bytes[..3]), Walked::default(), "what is cut ends the walk");
        assert_eq!(crate::mark(2 << 8 | 17), "10.251.2.17");
    }
}
