//! Request bodies: read within limits, decoded by content type.

use std::{
    pin::{Pin, pin},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, header};
use http_body::Body;
use http_body_util::BodyExt;
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::json;
use crate::{
    Kind, Status,
    go::{self, JsonType},
    registry,
    schema::protobuf,
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

/// The text of a `Content-Type`; empty when absent.
pub(crate) fn content_type(headers: &HeaderMap) -> &str {
    headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default()
}

/// The media type in a `Content-Type` whose parameters read, too, as with Go's
/// `mime.ParseMediaType`; in small letters.
fn media_type(text: &str) -> Option<String> {
    let mut parts = text.split(';');
    let media = parts.next()?.trim().to_lowercase();
    let is_token = |t: &str| {
        let sign = |b: u8| b"!#$%&'*+-.^_`|~".contains(&b);
        !t.is_empty() && t.bytes().all(|b| b.is_ascii_alphanumeric() || sign(b))
    };
    let (kind, sub) = media.split_once('/').unwrap_or((&media, "x"));
    let mut rest: Vec<&str> = parts.map(str::trim).collect();
    // Semicolons at the end mean nothing.
    while rest.last().is_some_and(|part| part.is_empty()) {
        rest.pop();
    }
    let parameters_read = rest.iter().all(|part| {
        part.split_once('=').is_some_and(|(key, value)| {
            let quoted = value.len() > 1 && value.starts_with('"') && value.ends_with('"');
            is_token(key) && (quoted || is_token(value))
        })
    });
    (is_token(kind) && is_token(sub) && parameters_read).then_some(media)
}

/// The encoding of an object in a body.
pub(crate) fn encoding(headers: &HeaderMap) -> Result<Encoding, Status> {
    let text = content_type(headers);
    if text.is_empty() {
        return Ok(Encoding::Json);
    }
    match media_type(text).as_deref() {
        Some("application/json") => Ok(Encoding::Json),
        Some("application/yaml") => Ok(Encoding::Yaml),
        Some("application/vnd.kubernetes.protobuf") => Ok(Encoding::Protobuf),
        _ => Err(Status::unsupported_media_type(
            "the body of the request was in an unknown format - accepted media types include: \
             application/json, application/yaml, application/vnd.kubernetes.protobuf",
        )),
    }
}

/// The object of a kind in a body that is not stored.
pub(crate) fn object(headers: &HeaderMap, body: &[u8], kind: &Kind) -> Result<Value, Status> {
    let (mut object, _) = strict(encoding(headers)?, body, kind.kind)?;
    registry::read_as(kind, &mut object)?;
    Ok(object)
}

/// The object in a body, and the fields that it gives twice.
pub(crate) fn strict(
    encoding: Encoding,
    body: &[u8],
    expected: &str,
) -> Result<(Value, Vec<String>), Status> {
    decode(encoding, body).map_err(|why| {
        Status::bad_request(format!(
            "the object provided is unrecognized (must be of type {expected}): {why} ({})",
            summary(body)
        ))
    })
}

/// The object in a body, whatever it is, and the fields that it gives twice.
pub(crate) fn decode(encoding: Encoding, body: &[u8]) -> Result<(Value, Vec<String>), String> {
    let unread = |why: String| format!("couldn't get version/kind; json parse error: {why}");
    let (object, twice) = match encoding {
        Encoding::Json => json::parse(body).map_err(unread)?,
        Encoding::Yaml => (yaml(body)?, Vec::new()),
        Encoding::Protobuf => (protobuf(body)?, Vec::new()),
    };
    // The first thing that upstream wants to know.
    let fields = [("apiVersion", JsonType::String), ("kind", JsonType::String)];
    go::check_struct(TYPE_META, &fields, &object).map_err(unread)?;
    let version = object.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    if version.matches('/').count() > 1 {
        return Err(format!("unexpected GroupVersion string: {version}"));
    }
    Ok((object, twice))
}

/// How Go prints the type of what looks only at version and kind.
const TYPE_META: &str = r#"struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }"#;

/// The beginning of a body, for those who wonder what they sent.
fn summary(body: &[u8]) -> String {
    const LENGTH: usize = 30;
    let cut = body.get(..LENGTH);
    let shown = match (body.first(), cut.unwrap_or(body)) {
        (None, _) => return "<empty>".to_owned(),
        (Some(b'{'), text) => String::from_utf8_lossy(text).into_owned(),
        (_, bytes) => bytes.iter().map(|byte| format!("{byte:02x}")).collect(),
    };
    if body.len() > LENGTH { format!("{shown} ...") } else { shown }
}

/// A YAML document as JSON. What follows the first document is not looked at.
pub(crate) fn yaml(body: &[u8]) -> Result<Value, String> {
    let first = serde_norway::Deserializer::from_slice(body).next();
    let Some(document) = first else { return Ok(Value::Null) };
    Value::deserialize(document).map_err(|error| go::yaml_fault(&error.to_string()))
}

/// A protobuf message as JSON.
fn protobuf(body: &[u8]) -> Result<Value, String> {
    protobuf::decode(body).map(|(_, _, object)| object).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_types() {
        for (text, expected) in [
            ("", Some(Encoding::Json)),
            ("Application/JSON", Some(Encoding::Json)),
            ("application/json; charset=utf-8", Some(Encoding::Json)),
            ("application/json;charset=\"utf-8\";", Some(Encoding::Json)),
            ("application/yaml", Some(Encoding::Yaml)),
            ("application/json; charset", None),
            ("application/json; =x", None),
            ("*/*", None),
            (";;;", None),
            ("json", None),
            ("application/merge-patch+json", None),
        ] {
            let mut headers = HeaderMap::new();
            if !text.is_empty() {
                headers.insert(header::CONTENT_TYPE, text.parse().unwrap());
            }
            assert_eq!(encoding(&headers).ok(), expected, "{text}");
        }
    }

    #[test]
    fn faults_are_told_as_upstream_tells_them() {
        for (text, why) in [
            (
                "",
                "couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)",
            ),
            (
                r#"{"kind":5,"apiVersion":"v1","metadata":{"name":"x"}}"#,
                "couldn't get version/kind; json parse error: json: cannot unmarshal number into \
                 Go struct field .kind of type string ({\"kind\":5,\"apiVersion\":\"v1\",\"m ...)",
            ),
            (
                r#"{"apiVersion":"a/b/c"}"#,
                "unexpected GroupVersion string: a/b/c ({\"apiVersion\":\"a/b/c\"})",
            ),
            ("\u{feff}{}", {
                "couldn't get version/kind; json parse error: invalid character 'ï' looking for \
                 beginning of value (efbbbf7b7d)"
            }),
        ] {
            let expected =
                format!("the object provided is unrecognized (must be of type ConfigMap): {why}");
            let refused = strict(Encoding::Json, text.as_bytes(), "ConfigMap").unwrap_err();
            assert_eq!(refused.message, expected);
        }
        let fault = decode(Encoding::Json, b"[]").unwrap_err();
        assert!(
            fault.contains("array into Go value of type struct { APIVersion string"),
            "{fault}"
        );
    }

    #[test]
    fn the_first_document_counts() {
        let text = b"a: 1\n---\nb: [";
        assert_eq!(yaml(text).unwrap(), serde_json::json!({"a": 1}));
        assert_eq!(yaml(b"").unwrap(), Value::Null);
    }
}
