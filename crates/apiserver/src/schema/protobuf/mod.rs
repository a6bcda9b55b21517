//! Request bodies in protobuf: what kubectl's generators and reviews send.
//!
//! ```text
//! "k8s\0" + runtime.Unknown{typeMeta, raw} ──▶ wire ──▶ walk along data's table ──▶ JSON Value
//! ```
//!
//! No kind is converted by hand: the table of types has the protobuf number of every field. The
//! JSON is what Go would write for the struct it decodes: zero values of `omitempty` fields are
//! left out (Go's encoder sends them all). Fields that the table does not know are skipped, as
//! upstream does. Answers are always JSON, so there is no encoder.

mod value;
mod wire;

use serde_json::{Map, Value};

use super::data::types;
use value::Decoder;
use wire::Reader;

/// Begins every protobuf body (`k8s.io/apimachinery/pkg/runtime/serializer/protobuf`).
const MAGIC: &[u8] = b"k8s\0";
/// Upstream's limit of a request body (`MaxRequestBodyBytes`).
const MAX_BYTES: usize = 3 * 1024 * 1024;
/// What `contentType` of the envelope may say beside nothing.
const CONTENT_TYPE: &str = "application/vnd.kubernetes.protobuf";

/// Why a body could not be read. Callers answer 400 (415 for [`DecodeError::NotProtobuf`]).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// The magic number is missing.
    #[error(
        "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"
    )]
    NotProtobuf,
    /// Longer than any object may be.
    #[error("request body of {0} bytes is too large")]
    TooLarge(usize),
    /// Structs or lists go deeper, or hold more values, than any object does.
    #[error("protobuf message is too deep or has too many values")]
    TooComplex,
    /// Ends within a field.
    #[error("unexpected EOF")]
    Truncated,
    /// A number longer than 64 bits, field 0, or a wire type that does not exist.
    #[error("proto: malformed field")]
    Malformed,
    /// A field in an encoding that its type does not have.
    #[error("proto: wrong wireType = {wire} for field {field}")]
    WrongWireType {
        /// The wire type found.
        wire: u8,
        /// JSON name of the field.
        field: &'static str,
    },
    /// A string that is not UTF-8, a quantity, a time or raw JSON that does not read.
    #[error("field {field}: not a valid {expected}")]
    Text {
        /// JSON name of the field.
        field: &'static str,
        /// What was expected.
        expected: &'static str,
    },
    /// The envelope names an encoding; upstream defines none.
    #[error("unsupported content {0:?} inside the protobuf envelope")]
    Content(String),
    /// Not among the kinds held.
    #[error("no kind {kind:?} is registered for version {api_version:?}")]
    UnknownKind {
        /// As the envelope says.
        api_version: String,
        /// As the envelope says.
        kind: String,
    },
}

/// Whether [`decode`] can read bodies of this kind.
pub fn knows(api_version: &str, kind: &str) -> bool {
    types().root(api_version, kind).is_some()
}

/// Reads a body: its `apiVersion`, its `kind`, and the object as JSON (which has both, too).
pub fn decode(bytes: &[u8]) -> Result<(String, String, Value), DecodeError> {
    if bytes.len() > MAX_BYTES {
        return Err(DecodeError::TooLarge(bytes.len()));
    }
    let envelope = Envelope::read(bytes.strip_prefix(MAGIC).ok_or(DecodeError::NotProtobuf)?)?;
    let Envelope { api_version, kind, raw, .. } = envelope;
    let Some(root) = types().root(&api_version, &kind) else {
        return Err(DecodeError::UnknownKind { api_version, kind });
    };
    let mut object = Map::new();
    object.insert("apiVersion".to_owned(), api_version.as_str().into());
    object.insert("kind".to_owned(), kind.as_str().into());
    Decoder::default().fill(root, raw, &mut object)?;
    Ok((api_version, kind, Value::Object(object)))
}

/// `runtime.Unknown`.
#[derive(Default)]
struct Envelope<'b> {
    api_version: String,
    kind: String,
    raw: &'b [u8],
    encoding: String,
    content_type: String,
}

impl<'b> Envelope<'b> {
    fn read(bytes: &'b [u8]) -> Result<Self, DecodeError> {
        let mut envelope = Envelope::default();
        for field in Reader::new(bytes) {
            let (number, payload) = field?;
            match number {
                1 => {
                    for field in Reader::new(payload.bytes("typeMeta")?) {
                        match field? {
                            (1, payload) => envelope.api_version = payload.text("apiVersion")?,
                            (2, payload) => envelope.kind = payload.text("kind")?,
                            _ => {}
                        }
                    }
                }
                2 => envelope.raw = payload.bytes("raw")?,
                3 => envelope.encoding = payload.text("contentEncoding")?,
                4 => envelope.content_type = payload.text("contentType")?,
                _ => {}
            }
        }
        if !envelope.encoding.is_empty() {
            return Err(DecodeError::Content(envelope.encoding));
        }
        if !["", CONTENT_TYPE].contains(&envelope.content_type.as_str()) {
            return Err(DecodeError::Content(envelope.content_type));
        }
        Ok(envelope)
    }
}

#[cfg(test)]
mod tests;
