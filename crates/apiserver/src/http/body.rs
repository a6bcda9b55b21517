//! Request bodies: read within limits, decoded by content type.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::Body;
use http_body_util::{BodyExt, Limited};
use serde_json::Value;

use crate::{
    Status,
    kinds::Kind,
    schema::protobuf::{self, DecodeError},
};

/// Largest request body (apiserver `MaxRequestBodyBytes`).
pub(crate) const BODY_BYTES_MAX: usize = 3 << 20;
/// Time for a body to arrive whole; the real server's `--request-timeout`.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// The encodings of bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

/// Reads a whole body.
pub(crate) async fn read<B>(body: B) -> Result<Bytes, Status>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let too_large =
        || Status::too_large(format!("Request entity too large: limit is {BODY_BYTES_MAX}"));
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    match tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, BODY_BYTES_MAX).collect()).await {
        Err(_) => Err(Status::new(408, "Timeout", "the request body did not arrive in time")),
        Ok(Ok(whole)) => Ok(whole.to_bytes()),
        Ok(Err(error)) if error.is::<http_body_util::LengthLimitError>() => Err(too_large()),
        Ok(Err(error)) => Err(Status::bad_request(format!("the request body broke off: {error}"))),
    }
}

/// The media type without parameters; empty when absent.
pub(crate) fn media_type(headers: &HeaderMap) -> &str {
    let text = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim()
}

/// The encoding of an object in a body.
pub(crate) fn encoding(headers: &HeaderMap) -> Result<Encoding, Status> {
    match media_type(headers) {
        "" | "application/json" | "*/*" => Ok(Encoding::Json),
        "application/yaml" => Ok(Encoding::Yaml),
        "application/vnd.kubernetes.protobuf" => Ok(Encoding::Protobuf),
        _ => Err(Status::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: \
             application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

/// The object in a body, meant to be of a kind.
pub(crate) fn object(headers: &HeaderMap, body: &[u8], expected: &str) -> Result<Value, Status> {
    let undecodable = |why: &dyn std::fmt::Display| {
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {expected}): couldn't get \
             version/kind; json parse error: {why}"
        ))
    };
    match encoding(headers)? {
        Encoding::Json => serde_json::from_slice(body).map_err(|e| undecodable(&e)),
        Encoding::Yaml => yaml(body).map_err(|e| undecodable(&e)),
        Encoding::Protobuf => decode_protobuf(body),
    }
}

/// A YAML document as JSON.
pub(crate) fn yaml(body: &[u8]) -> Result<Value, String> {
    serde_norway::from_slice(body).map_err(|e| e.to_string())
}

fn decode_protobuf(body: &[u8]) -> Result<Value, Status> {
    protobuf::decode(body).map(|(_, _, object)| object).map_err(|error| match error {
        DecodeError::NotProtobuf => Status::unsupported_media_type(error.to_string()),
        DecodeError::TooLarge(_) => Status::too_large(error.to_string()),
        _ => Status::bad_request(error.to_string()),
    })
}

/// The name of a kind in messages about bodies.
pub(crate) fn expected(kind: &Kind) -> String {
    kind.kind.to_owned()
}
