//! Answers: one body type, and the few shapes that answers have.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt, stream::BoxStream};
use http::{HeaderValue, Response, header};
use http_body::{Body as HttpBody, Frame, SizeHint};
use serde_json::Value;

use crate::Status;

/// The body of an answer.
pub(crate) enum Body {
    /// All of it at once.
    Whole(Bytes),
    /// Made piece by piece while it is sent, so that a long list is never held twice.
    Pieces(Box<dyn Iterator<Item = Bytes> + Send>),
    /// As long as there is something to say.
    Live(BoxStream<'static, std::io::Result<Bytes>>),
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match &mut *self {
            Body::Whole(bytes) if bytes.is_empty() => Poll::Ready(None),
            Body::Whole(bytes) => Poll::Ready(Some(Ok(Frame::data(std::mem::take(bytes))))),
            Body::Pieces(pieces) => Poll::Ready(pieces.next().map(|p| Ok(Frame::data(p)))),
            Body::Live(stream) => {
                stream.as_mut().poll_next(context).map(|next| next.map(|r| r.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Body::Whole(bytes) if bytes.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Body::Whole(bytes) => SizeHint::with_exact(bytes.len() as u64),
            _ => SizeHint::default(),
        }
    }
}

pub(crate) type Answer = Response<Body>;

/// An answer that never fails to be built: the parts are constants.
fn build(code: u16, content_type: &'static str, body: Body) -> Answer {
    let mut answer = Response::new(body);
    *answer.status_mut() =
        http::StatusCode::from_u16(code).unwrap_or(http::StatusCode::INTERNAL_SERVER_ERROR);
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    answer
}

/// JSON bytes.
pub(crate) fn bytes(code: u16, bytes: Bytes) -> Answer {
    build(code, "application/json", Body::Whole(bytes))
}

/// Bytes under a content type of their own.
pub(crate) fn bytes_as(content_type: &'static str, bytes: Bytes) -> Answer {
    build(200, content_type, Body::Whole(bytes))
}

/// A JSON value.
pub(crate) fn json(code: u16, value: &Value) -> Answer {
    bytes(code, Bytes::from(value.to_string()))
}

/// A JSON value under a content type of its own.
pub(crate) fn json_as(content_type: &'static str, value: &Value) -> Answer {
    bytes_as(content_type, Bytes::from(value.to_string()))
}

/// Plain text.
pub(crate) fn text(code: u16, text: impl Into<Bytes>) -> Answer {
    build(code, "text/plain; charset=utf-8", Body::Whole(text.into()))
}

/// Success, and no more to say.
pub(crate) fn nothing() -> Answer {
    let mut answer = build(204, "text/plain", Body::Whole(Bytes::new()));
    answer.headers_mut().remove(header::CONTENT_TYPE);
    answer
}

/// Metrics, in the text format of Prometheus.
pub(crate) fn metrics(text: String) -> Answer {
    let content_type = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores";
    build(200, content_type, Body::Whole(text.into()))
}

/// Lets clients keep an answer as long as they like.
pub(crate) fn keep_for_ever(mut answer: Answer) -> Answer {
    let value = HeaderValue::from_static("public, max-age=31536000, immutable");
    answer.headers_mut().insert(header::CACHE_CONTROL, value);
    answer
}

/// JSON in pieces.
pub(crate) fn pieces(pieces: impl Iterator<Item = Bytes> + Send + 'static) -> Answer {
    build(200, "application/json", Body::Pieces(Box::new(pieces)))
}

/// JSON documents for as long as they come.
pub(crate) fn live(
    content_type: &'static str,
    stream: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
) -> Answer {
    build(200, content_type, Body::Live(Box::pin(stream)))
}

/// Keeps something until the body is sent or dropped.
pub(crate) fn hold(answer: Answer, kept: impl Send + 'static) -> Answer {
    let (head, body) = answer.into_parts();
    let body = match body {
        Body::Live(stream) => Body::Live(Box::pin(stream.map(move |piece| {
            let _kept = &kept;
            piece
        }))),
        other => other,
    };
    Response::from_parts(head, body)
}

/// A refusal.
pub(crate) fn status(status: &Status) -> Answer {
    let mut answer = json(status.code, &status.to_value());
    if let Some(seconds) = status.details.as_ref().and_then(|d| d.retry_after_seconds)
        && let Ok(value) = HeaderValue::from_str(&seconds.to_string())
    {
        answer.headers_mut().insert(header::RETRY_AFTER, value);
    }
    if status.code == 401 {
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    warn(answer, &status.warnings)
}

/// Adds `Warning` headers: agent 299, as kubectl prints them.
pub(crate) fn warn(mut answer: Answer, warnings: &[String]) -> Answer {
    /// Enough for any request that people look at (apiserver truncates at 256 runes each).
    const WARNINGS_MAX: usize = 64;
    for warning in warnings.iter().take(WARNINGS_MAX) {
        let clean: String = warning.chars().filter(|c| !c.is_control()).collect();
        let text = format!("299 - {clean:?}");
        if let Ok(value) = HeaderValue::from_bytes(text.as_bytes()) {
            answer.headers_mut().append(header::WARNING, value);
        }
    }
    answer
}

/// What the server's own service function returns.
pub(crate) type Outcome = Result<Answer, Infallible>;
