//! Request bodies: read within limits, decoded by content type.

use std::{
    pin::{Pin, pin},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Body;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::json;
use crate::{
    Status,
    kinds::Kind,
    schema::protobuf::{self, DecodeError},
};

/// Largest request body (apiserver `MaxRequestBodyBytes`).
pub(crate) const BODY_BYTES_MAX: usize = 3 << 20;
/// Bytes of all bodies together, from their arrival until they are answered: what the busiest
/// test sends, 64 clients at a time with objects of the largest size, fits twice.
pub(crate) const BODIES_BYTES_MAX: usize = 256 << 20;
/// Time for a body to arrive whole; the real server's `--request-timeout`.
const BODY_TIMEOUT: Duration = Duration::from_secs(60);

/// What is read, and thrown away, of a body that is refused: a client that sends five times as
/// much as it may is no accident.
const DRAIN_BYTES_MAX: usize = 5 * BODY_BYTES_MAX;
/// How long such a client may pause (Go's `rstAvoidanceDelay`, for the same purpose).
const DRAIN_PAUSE: Duration = Duration::from_millis(500);

/// The encodings of bodies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    Json,
    Yaml,
    Protobuf,
}

/// A whole body, and its share of what all bodies may take; given back when dropped.
pub(crate) struct Held<'a> {
    pub(crate) bytes: Bytes,
    _share: SemaphorePermit<'a>,
}

/// Reads a whole body. `room` has a permit for each byte that bodies may take together.
pub(crate) async fn read<B>(body: B, room: &Semaphore) -> Result<Held<'_>, Status>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
        return Err(too_large());
    }
    tokio::time::timeout(BODY_TIMEOUT, collect(body, room)).await.unwrap_or_else(|_| {
        Err(Status::new(408, "Timeout", "the request body did not arrive in time"))
    })
}

fn too_large() -> Status {
    Status::too_large(format!("Request entity too large: limit is {BODY_BYTES_MAX}"))
}

/// Lets a client finish that sends the body of a request which is refused already: one that is
/// cut off while it writes never reads the refusal.
pub(crate) async fn drain<B: Body<Data = Bytes>>(mut body: Pin<&mut B>) {
    let mut left = DRAIN_BYTES_MAX;
    while !body.is_end_stream() {
        let frame = tokio::time::timeout(DRAIN_PAUSE, body.frame()).await;
        let Ok(Some(Ok(frame))) = frame else { return };
        let bytes = frame.data_ref().map_or(0, Bytes::len);
        let Some(rest) = left.checked_sub(bytes) else { return };
        left = rest;
    }
}

/// Takes room only for what has come: whoever announces much and sends little holds little.
async fn collect<B>(body: B, room: &Semaphore) -> Result<Held<'_>, Status>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let more = |bytes: usize| {
        let permits = u32::try_from(bytes).map_err(|_| too_large())?;
        room.try_acquire_many(permits).map_err(|_| {
            Status::too_many_requests("too many request bodies at once, please try again later", 1)
        })
    };
    let mut body = pin!(body);
    let (mut first, mut rest) = (Bytes::new(), BytesMut::new());
    let mut share = more(0)?;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Status::bad_request(format!("the request body broke off: {}", error.into()))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + rest.len() + data.len() > BODY_BYTES_MAX {
            return Err(too_large());
        }
        share.merge(more(data.len())?);
        // Most bodies come in one piece, which need not be copied.
        if first.is_empty() {
            first = data;
        } else {
            rest.extend_from_slice(&data);
        }
    }
    let bytes = match rest.is_empty() {
        true => first,
        false => [&first[..], &rest[..]].concat().into(),
    };
    Ok(Held { bytes, _share: share })
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
    strict(headers, body, expected).map(|(object, _)| object)
}

/// The object in a body, and the fields that it gives twice.
pub(crate) fn strict(
    headers: &HeaderMap,
    body: &[u8],
    expected: &str,
) -> Result<(Value, Vec<String>), Status> {
    let undecodable = |why: &dyn std::fmt::Display| {
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {expected}): couldn't get \
             version/kind; json parse error: {why}"
        ))
    };
    match encoding(headers)? {
        Encoding::Json => json::parse(body).map_err(|e| undecodable(&e)),
        Encoding::Yaml => yaml(body).map_err(|e| undecodable(&e)).map(|o| (o, Vec::new())),
        Encoding::Protobuf => decode_protobuf(body).map(|o| (o, Vec::new())),
    }
}

/// A YAML document as JSON.
pub(crate) fn yaml(body: &[u8]) -> Result<Value, String> {
    serde_norway::from_slice(body).map_err(|e| e.to_string())
}

fn decode_protobuf(body: &[u8]) -> Result<Value, Status> {
    protobuf::decode(body).map(|(_, _, object)| object).map_err(|error| match error {
        DecodeError::TooLarge(_) => Status::too_large(error.to_string()),
        _ => Status::bad_request(error.to_string()),
    })
}

/// The name of a kind in messages about bodies.
pub(crate) fn expected(kind: &Kind) -> String {
    kind.kind.to_owned()
}
