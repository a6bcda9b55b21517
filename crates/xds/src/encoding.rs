//! Pieces of protobuf messages, so that what many clients get is encoded once.
//!
//! A resource is field 2 of both kinds of response: wrapped with its name and version
//! in a delta response, bare in one of state of the world. Within the wrapper the bare
//! resource is field 2 again. Written last, it makes the bare form a tail of the
//! wrapped one, and one buffer serves both.

use bytes::{Bytes, BytesMut};
use portolan_envoy_proto::google::protobuf::Any;
use prost::{Message, bytes::BufMut, encode_length_delimiter, length_delimiter_len};

/// `resources` of both responses, and `resource` of the wrapper.
const RESOURCE: u32 = 2;
/// `version` of the wrapper.
const VERSION: u32 = 1;
/// `name` of the wrapper.
const NAME: u32 = 3;

/// How many bytes a field of text or of a message takes.
fn field_len(content: usize) -> usize {
    // Numbers below 16 fit into one byte with the type of the field.
    1 + length_delimiter_len(content) + content
}

fn begin_field(number: u32, content: usize, into: &mut BytesMut) {
    const LENGTH_DELIMITED: u32 = 2;
    debug_assert!(number < 16, "one byte");
    into.put_u8((number << 3 | LENGTH_DELIMITED) as u8);
    // The buffer grows: there is no other failure.
    encode_length_delimiter(content, into).ok();
}

/// Writes a field of text; an empty one is not written (proto3).
pub(crate) fn text_field(number: u32, text: &str, into: &mut BytesMut) {
    if !text.is_empty() {
        begin_field(number, text.len(), into);
        into.put_slice(text.as_bytes());
    }
}

/// A resource as both kinds of response hold it: the whole, and where the bare form
/// begins.
pub(crate) fn resource(name: &str, version: &str, body: &Any) -> (Bytes, usize) {
    let bare = field_len(body.encoded_len());
    let wrapped = field_len(name.len()) + field_len(version.len()) + bare;
    let mut into = BytesMut::with_capacity(field_len(wrapped));
    begin_field(RESOURCE, wrapped, &mut into);
    text_field(NAME, name, &mut into);
    text_field(VERSION, version, &mut into);
    let at = into.len();
    begin_field(RESOURCE, body.encoded_len(), &mut into);
    body.encode(&mut into).ok();
    (into.freeze(), at)
}

#[cfg(test)]
mod tests {
    use portolan_envoy_proto::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};

    use super::*;

    #[test]
    fn one_buffer_serves_both_kinds_of_response() {
        for size in [0, 1, 100, 127, 128, 20_000] {
            let body = Any { type_url: "type.googleapis.com/x".into(), value: vec![7; size] };
            let (whole, at) = resource("web", "0123", &body);
            let delta = DeltaDiscoveryResponse::decode(whole.clone()).unwrap();
            let [own] = &*delta.resources else { panic!("{delta:?}") };
            assert_eq!((&*own.name, &*own.version), ("web", "0123"));
            assert_eq!(own.resource.as_ref(), Some(&body));
            let plain = DiscoveryResponse::decode(whole.slice(at..)).unwrap();
            assert_eq!(plain.resources, [body]);
        }
    }
}
