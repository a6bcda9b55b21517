//! The two requests of a watched resource, list and watch, as bytes and lines.
//!
//! Parsing one line at a time and one object at a time is what keeps an object
//! that cannot be read from costing the whole listing.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Limited};
use kube::{
    Client,
    api::{ListParams, VersionMatch, WatchParams},
    client::Body,
};
use tokio::time::timeout;

use super::objects::Status;

/// client-go's pager: 500 objects a page.
const PAGE_OBJECTS: u32 = 500;
/// A page of 500 Pods is some 5 MB; etcd takes 1.5 MB an object.
const PAGE_BYTES_MAX: usize = 256 << 20;
/// One event: an object of etcd's limit, escaped at worst.
const LINE_BYTES_MAX: usize = 16 << 20;
/// A page must arrive within the API server's own limit for requests.
const PAGE_WITHIN: Duration = Duration::from_secs(60);
/// A watch begins with its headers, at once.
const WATCH_BEGINS_WITHIN: Duration = Duration::from_secs(30);
/// kube refuses 295 s and more; the API server's own habit is 5 to 10 minutes.
const WATCH_SECONDS: u32 = 290;
/// The API server sends a bookmark every minute (bookmarkFrequency of its watch
/// cache), so a longer silence is worth a new request: it is the only way to
/// notice a peer that has vanished.
const SILENCE_MAX: Duration = Duration::from_secs(75);

/// Why a request did not work.
#[derive(Debug)]
pub(super) enum Failure {
    /// The revision is too old, or of another history: list anew.
    Expired(String),
    /// Anything else.
    Other(String),
}

impl Failure {
    pub(super) fn text(&self) -> &str {
        let (Self::Expired(text) | Self::Other(text)) = self;
        text
    }
}

/// A collection of the API.
#[derive(Clone)]
pub(super) struct Resource {
    client: Client,
    path: String,
    selector: Option<String>,
}

impl Resource {
    pub(super) fn new(client: Client, path: &str, selector: Option<String>) -> Self {
        Self { client, path: path.to_owned(), selector }
    }

    /// A page of the collection, as JSON: of one revision, else of the newest. A listing
    /// that may be older than what was seen before would take back what was said.
    pub(super) async fn page(&self, next: &str, exact: Option<&str>) -> Result<Bytes, Failure> {
        // A token for the next page knows its revision.
        let exact = exact.filter(|_| next.is_empty());
        let params = ListParams {
            label_selector: self.selector.clone(),
            limit: Some(PAGE_OBJECTS),
            resource_version: exact.map(str::to_owned),
            version_match: exact.map(|_| VersionMatch::Exact),
            continue_token: Some(next.to_owned()).filter(|next| !next.is_empty()),
            ..ListParams::default()
        };
        let request = kube::core::Request::new(&self.path).list(&params);
        let request = request.map_err(|error| Failure::Other(chain(&error)))?;
        timeout(PAGE_WITHIN, async { collect(self.send(request).await?).await })
            .await
            .map_err(|_| Failure::Other("the list took more than a minute".into()))?
    }

    /// The events after a revision.
    pub(super) async fn watch(&self, revision: &str) -> Result<Lines, Failure> {
        let params = WatchParams {
            label_selector: self.selector.clone(),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request = kube::core::Request::new(&self.path).watch(&params, revision);
        let request = request.map_err(|error| Failure::Other(chain(&error)))?;
        let body = timeout(WATCH_BEGINS_WITHIN, self.send(request))
            .await
            .map_err(|_| Failure::Other("the watch did not begin within 30 seconds".into()))??;
        Ok(Lines { body, buffer: BytesMut::new() })
    }

    async fn send(&self, request: http::Request<Vec<u8>>) -> Result<Body, Failure> {
        let response = self
            .client
            .send(request.map(Body::from))
            .await
            .map_err(|error| Failure::Other(chain(&error)))?;
        let code = response.status();
        let body = response.into_body();
        if code.is_success() {
            return Ok(body);
        }
        let status: Status =
            serde_json::from_slice(&collect(body).await?).unwrap_or_else(|_| Status {
                message: code.canonical_reason().unwrap_or_default().to_owned(),
                ..Status::default()
            });
        Err(refusal(&Status { code: code.as_u16(), ..status }))
    }
}

/// What a `Status` means for a listing or a watch.
pub(super) fn refusal(status: &Status) -> Failure {
    let text = format!("{} {}: {}", status.code, status.reason, status.message);
    // A revision of the future (a store that was restored or replaced) is
    // answered with a timeout whose message says so.
    let future = status.message.contains("Too large resource version");
    if status.code == 410 || matches!(status.reason.as_str(), "Expired" | "Gone") || future {
        Failure::Expired(text)
    } else {
        Failure::Other(text)
    }
}

async fn collect(body: Body) -> Result<Bytes, Failure> {
    let collected = Limited::new(body, PAGE_BYTES_MAX).collect().await;
    collected.map(|all| all.to_bytes()).map_err(|error| Failure::Other(chain(&*error)))
}

/// An error with what caused it: "connection refused" is at the far end.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

/// The lines of a watch.
pub(super) struct Lines {
    body: Body,
    buffer: BytesMut,
}

impl Lines {
    /// All lines that have arrived, at least one. `None`: the watch has ended,
    /// by its own timeout, silence or a broken connection; another one will
    /// tell which, and misses nothing.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<Bytes>>, Failure> {
        loop {
            let lines = self.complete_lines();
            if !lines.is_empty() {
                return Ok(Some(lines));
            }
            if self.buffer.len() > LINE_BYTES_MAX {
                return Err(Failure::Other(format!(
                    "an event of more than {LINE_BYTES_MAX} bytes"
                )));
            }
            match timeout(SILENCE_MAX, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Ok(Some(Err(error))) => {
                    tracing::debug!(error = chain(&error), "watch broke off");
                    return Ok(None);
                }
                Ok(None) | Err(_) => return Ok(None),
            }
        }
    }

    fn complete_lines(&mut self) -> Vec<Bytes> {
        let Some(last) = self.buffer.iter().rposition(|byte| *byte == b'\n') else {
            return Vec::new();
        };
        let mut whole = self.buffer.split_to(last + 1).freeze();
        let mut lines = Vec::new();
        while let Some(end) = whole.iter().position(|byte| *byte == b'\n') {
            let line = whole.split_to(end);
            whole.advance(1);
            if !line.is_empty() {
                lines.push(line);
            }
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_refusals_mean() {
        for (code, reason, message, expired) in [
            (410, "Expired", "too old resource version", true),
            (410, "", "", true),
            (504, "Timeout", "Too large resource version: 9, current: 1", true),
            (504, "Timeout", "slow", false),
            (403, "Forbidden", "no", false),
            (500, "", "", false),
        ] {
            let status = Status { code, reason: reason.into(), message: message.into() };
            assert_eq!(matches!(refusal(&status), Failure::Expired(_)), expired, "{status:?}");
        }
    }

    #[tokio::test]
    async fn lines_across_frames() {
        let mut lines = Lines {
            body: Body::from(b"{\"a\":1}\n\n{\"b\":2}\n{\"half".to_vec()),
            buffer: BytesMut::from(&b"{\"first\":0}\n"[..]),
        };
        let texts = |lines: Vec<Bytes>| -> Vec<String> {
            lines.iter().map(|line| String::from_utf8_lossy(line).into_owned()).collect()
        };
        assert_eq!(texts(lines.next().await.unwrap().unwrap()), ["{\"first\":0}"]);
        assert_eq!(texts(lines.next().await.unwrap().unwrap()), ["{\"a\":1}", "{\"b\":2}"]);
        // Half a line is no event: the next watch brings it whole.
        assert!(lines.next().await.unwrap().is_none());
    }
}
