//! OpenAPI v2, of which only the head is told.
//!
//! kubectl turns to it for what v3 has no operation of, a `List` above all, and leaves to the
//! server the validation of each kind that it does not find there. It asks in protobuf
//! (`openapi.v2.Document` of gnostic), as does every client of client-go.

use bytes::Bytes;
use serde_json::{Value, json};

use super::KUBERNETES_VERSION;

const TITLE: &str = "Kubernetes";

/// The document in JSON.
pub fn json() -> Value {
    json!({
        "swagger": "2.0",
        "info": {"title": TITLE, "version": KUBERNETES_VERSION},
        "paths": {},
        "definitions": {},
    })
}

/// The same in protobuf.
pub fn protobuf() -> Bytes {
    let info = [field(1, TITLE.as_bytes()), field(2, KUBERNETES_VERSION.as_bytes())].concat();
    let parts = [field(1, b"2.0"), field(2, &info), field(8, &[]), field(9, &[])];
    Bytes::from(parts.concat())
}

/// A field that is text or a message. Both its number and its length take one byte here.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    const LENGTH_DELIMITED: u8 = 2;
    let length = u8::try_from(content.len()).unwrap_or(u8::MAX);
    debug_assert!(number < 16 && length < 128, "one byte each");
    [&[number << 3 | LENGTH_DELIMITED, length], content].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protobuf_is_as_short_as_assumed() {
        let head = b"\x0a\x032.0\x12\x15\x0a\x0aKubernetes\x12\x07v1.33.4\x42\0\x4a\0";
        assert_eq!(&protobuf()[..], head);
    }
}
