//! The requests: get and patch one Pod, list and watch those of a namespace.

use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http_body_util::{BodyExt, Limited};
use kube::{
    Client,
    api::{GetParams, ListParams, Patch, PatchParams, WatchParams},
    client::Body,
    core::Request,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    Error, directory,
    error::chain,
    pod::{Meta, Pod, nullable},
};

/// client-go's pager: 500 objects a page.
const PAGE_OBJECTS: u32 = 500;
/// A page of 500 Pods is some 5 MB; etcd takes 1.5 MB an object.
const PAGE_BYTES_MAX: usize = 256 << 20;
/// One event: an object of etcd's limit, escaped at worst.
const LINE_BYTES_MAX: usize = 16 << 20;
/// A page must arrive within the API server's own limit for requests.
const PAGE_WITHIN: Duration = Duration::from_secs(60);
/// One object, or the headers of a watch; half of the API server's limit.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// kube refuses 295 s and more; the API server's own habit is 5 to 10 minutes.
const WATCH_SECONDS: u32 = 290;
/// The API server sends a bookmark every minute (bookmarkFrequency of its watch
/// cache): a longer silence is the only sign of a peer that has vanished.
const SILENCE_MAX: Duration = Duration::from_secs(75);

/// Why a request did not work.
#[derive(Clone, Debug)]
pub(super) enum Failure {
    /// The API's refusal.
    Refused(Status),
    /// No answer, or none that can be read.
    Broken(String),
}

impl Failure {
    /// The revision is too old, or of another history: list anew.
    pub(super) fn is_expired(&self) -> bool {
        // A revision of the future (a store that was restored or replaced) is
        // answered with a timeout whose message says so.
        matches!(self, Self::Refused(status) if status.code == 410
            || matches!(status.reason.as_str(), "Expired" | "Gone")
            || status.message.contains("Too large resource version"))
    }

    pub(super) fn is_code(&self, code: u16) -> bool {
        matches!(self, Self::Refused(status) if status.code == code)
    }

    /// Another try may work: too many requests, a server that is going down or
    /// coming up, a connection that broke.
    pub(super) fn is_passing(&self) -> bool {
        match self {
            Self::Broken(_) => true,
            Self::Refused(status) => status.code == 429 || status.code >= 500,
        }
    }

    pub(super) fn into_error(self, action: &str) -> Error {
        let action = action.to_owned();
        match self {
            Self::Refused(Status { code, reason, message }) => {
                Error::Refused { action, code, reason, message }
            }
            Self::Broken(detail) => Error::Unreachable { action, detail },
        }
    }

    /// In the words of the directory.
    pub(super) fn told(&self) -> directory::Failure {
        match self {
            Self::Refused(status) => directory::Failure {
                status: Some((status.code, status.reason.clone())),
                detail: status.message.clone(),
            },
            Self::Broken(detail) => directory::Failure { status: None, detail: detail.clone() },
        }
    }
}

/// The API's `Status`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Status {
    #[serde(deserialize_with = "nullable")]
    pub(super) code: u16,
    #[serde(deserialize_with = "nullable")]
    pub(super) reason: String,
    #[serde(deserialize_with = "nullable")]
    pub(super) message: String,
}

/// One event of a watch.
#[derive(Debug)]
pub(super) enum Event {
    /// Added or modified.
    Put(Box<Pod>),
    /// Deleted, by name.
    Gone(String),
    /// Nothing else has changed.
    Bookmark,
}

/// The Pods of a namespace.
#[derive(Clone)]
pub(super) struct Pods {
    client: Client,
    path: String,
    selector: Option<String>,
}

impl Pods {
    /// The namespace has been checked to be a name.
    pub(super) fn new(client: Client, namespace: &str, selector: Option<String>) -> Self {
        Self { client, path: format!("/api/v1/namespaces/{namespace}/pods"), selector }
    }

    /// One Pod.
    pub(super) async fn get(&self, name: &str) -> Result<Pod, Failure> {
        self.one(Request::new(&self.path).get(name, &GetParams::default())).await
    }

    /// Changes a Pod by a JSON merge patch (RFC 7386); the Pod as it is then.
    pub(super) async fn patch(&self, name: &str, change: &Value) -> Result<Pod, Failure> {
        let patch = Patch::Merge(change);
        self.one(Request::new(&self.path).patch(name, &PatchParams::default(), &patch)).await
    }

    /// Applies what a field manager wants of a Pod, also over others (server-side apply with
    /// `force`); the Pod as it is then.
    pub(super) async fn apply(
        &self,
        name: &str,
        manager: &str,
        wanted: &Value,
    ) -> Result<Pod, Failure> {
        let params = PatchParams::apply(manager).force();
        self.one(Request::new(&self.path).patch(name, &params, &Patch::Apply(wanted))).await
    }

    /// All that the selector finds, with the revision to watch from.
    pub(super) async fn list(&self) -> Result<(String, Vec<Pod>), Failure> {
        let mut all = Vec::new();
        let mut next = None;
        loop {
            // Revision left open: a listing that may be older than what was
            // seen before would take back what was told.
            let params = ListParams {
                label_selector: self.selector.clone(),
                limit: Some(PAGE_OBJECTS),
                continue_token: next.take(),
                ..ListParams::default()
            };
            let request = Request::new(&self.path).list(&params);
            let bytes = within(PAGE_WITHIN, self.whole(request)).await?;
            let (meta, mut pods) = parse_page(&bytes)?;
            all.append(&mut pods);
            if meta.next.is_empty() {
                return Ok((meta.resource_version, all));
            }
            next = Some(meta.next);
        }
    }

    /// The events after a revision.
    pub(super) async fn watch(&self, revision: &str) -> Result<Lines, Failure> {
        let params = WatchParams {
            label_selector: self.selector.clone(),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request = Request::new(&self.path).watch(&params, revision);
        let body = within(ANSWER_WITHIN, self.send(request)).await?;
        Ok(Lines { body, buffer: BytesMut::new() })
    }

    async fn one(&self, request: Built) -> Result<Pod, Failure> {
        let bytes = within(ANSWER_WITHIN, self.whole(request)).await?;
        parse(&bytes)
    }

    async fn whole(&self, request: Built) -> Result<Bytes, Failure> {
        collect(self.send(request).await?).await
    }

    async fn send(&self, request: Built) -> Result<Body, Failure> {
        let request = request.map_err(|error| Failure::Broken(chain(&error)))?;
        let response = self.client.send(request.map(Body::from)).await;
        let response = response.map_err(|error| Failure::Broken(chain(&error)))?;
        let code = response.status();
        let body = response.into_body();
        if code.is_success() {
            return Ok(body);
        }
        let status = serde_json::from_slice(&collect(body).await?);
        let status = status.unwrap_or_else(|_| Status {
            message: code.canonical_reason().unwrap_or_default().to_owned(),
            ..Status::default()
        });
        Err(Failure::Refused(Status { code: code.as_u16(), ..status }))
    }
}

type Built = Result<http::Request<Vec<u8>>, kube::core::request::Error>;

async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = Result<T, Failure>>,
) -> Result<T, Failure> {
    timeout(limit, answer)
        .await
        .unwrap_or_else(|_| Err(Failure::Broken(format!("no answer within {} s", limit.as_secs()))))
}

async fn collect(body: Body) -> Result<Bytes, Failure> {
    let collected = Limited::new(body, PAGE_BYTES_MAX).collect().await;
    collected.map(|all| all.to_bytes()).map_err(|error| Failure::Broken(chain(&*error)))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    serde_json::from_slice(bytes)
        .map_err(|error| Failure::Broken(format!("the API's answer does not parse: {error}")))
}

#[derive(Deserialize)]
#[serde(bound = "P: Deserialize<'de>")]
struct Page<P> {
    #[serde(default)]
    metadata: PageMeta,
    #[serde(default, deserialize_with = "nullable")]
    items: Vec<P>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct PageMeta {
    #[serde(deserialize_with = "nullable")]
    resource_version: String,
    #[serde(rename = "continue", deserialize_with = "nullable")]
    next: String,
}

/// Reads a page; where it does not parse whole, Pod by Pod, so that one that
/// cannot be read does not cost the others.
fn parse_page(bytes: &Bytes) -> Result<(PageMeta, Vec<Pod>), Failure> {
    if let Ok(page) = serde_json::from_slice::<Page<Pod>>(bytes) {
        return Ok((page.metadata, page.items));
    }
    let page: Page<Value> = parse(bytes)?;
    let pods = page.items.into_iter().filter_map(|item| match Pod::deserialize(&item) {
        Ok(pod) => Some(pod),
        Err(error) => {
            let name = item.pointer("/metadata/name").and_then(Value::as_str);
            tracing::warn!(pod = name, %error, "a Pod cannot be read; it counts as absent");
            None
        }
    });
    Ok((page.metadata, pods.collect()))
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
                return Err(Failure::Broken(format!(
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
                    tracing::debug!(error = chain(&error), "the watch broke off");
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

/// Reads one line of a watch, with the revision that it stands for.
pub(super) fn parse_event(line: &[u8]) -> Result<(String, Event), Failure> {
    /// The kind is read first: what `object` is depends on it.
    #[derive(Deserialize)]
    struct Kind {
        #[serde(rename = "type")]
        kind: String,
    }
    #[derive(Deserialize)]
    struct Of<T> {
        object: T,
    }
    #[derive(Deserialize)]
    struct MetaOnly {
        metadata: Meta,
    }
    let Kind { kind } = parse(line)?;
    if kind == "ERROR" {
        let status: Of<Status> = parse(line)?;
        return Err(Failure::Refused(status.object));
    }
    if !matches!(kind.as_str(), "ADDED" | "MODIFIED" | "DELETED" | "BOOKMARK") {
        return Err(Failure::Broken(format!("unknown event {kind:?}")));
    }
    if matches!(kind.as_str(), "ADDED" | "MODIFIED") {
        match serde_json::from_slice::<Of<Pod>>(line) {
            Ok(Of { object }) => {
                let revision = object.metadata.resource_version.clone();
                return Ok((revision, Event::Put(Box::new(object))));
            }
            Err(error) => {
                tracing::warn!(%error, "a Pod cannot be read; it counts as absent");
            }
        }
    }
    let Of { object: MetaOnly { metadata } } = parse(line)?;
    let event = if kind == "BOOKMARK" { Event::Bookmark } else { Event::Gone(metadata.name) };
    Ok((metadata.resource_version, event))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16, reason: &str, message: &str) -> Failure {
        Failure::Refused(Status { code, reason: reason.into(), message: message.into() })
    }

    #[test]
    fn what_refusals_mean() {
        for (failure, expired, passing) in [
            (refused(410, "Expired", "too old resource version"), true, false),
            (refused(410, "", ""), true, false),
            (refused(504, "Timeout", "Too large resource version: 9, current: 1"), true, true),
            (refused(504, "Timeout", "slow"), false, true),
            (refused(429, "TooManyRequests", ""), false, true),
            (refused(403, "Forbidden", "no"), false, false),
            (refused(409, "Conflict", ""), false, false),
            (Failure::Broken("reset".into()), false, true),
        ] {
            assert_eq!(
                (failure.is_expired(), failure.is_passing()),
                (expired, passing),
                "{failure:?}"
            );
        }
    }

    #[test]
    fn events() {
        let read = |line: &str| match parse_event(line.as_bytes()) {
            Ok((revision, Event::Put(pod))) => format!("put {} {revision}", pod.metadata.name),
            Ok((revision, Event::Gone(name))) => format!("gone {name} {revision}"),
            Ok((revision, Event::Bookmark)) => format!("bookmark {revision}"),
            Err(failure) => format!("{failure:?}"),
        };
        let meta = r#""metadata":{"name":"p","resourceVersion":"7"}"#;
        for (line, expected) in [
            (format!(r#"{{"type":"ADDED","object":{{{meta}}}}}"#), "put p 7"),
            (format!(r#"{{"type":"MODIFIED","object":{{{meta},"status":null}}}}"#), "put p 7"),
            // What cannot be read counts as absent; the revision still counts.
            (format!(r#"{{"type":"MODIFIED","object":{{{meta},"status":7}}}}"#), "gone p 7"),
            (format!(r#"{{"type":"DELETED","object":{{{meta}}}}}"#), "gone p 7"),
            (
                r#"{"type":"BOOKMARK","object":{"metadata":{"resourceVersion":"9"}}}"#.into(),
                "bookmark 9",
            ),
        ] {
            assert_eq!(read(&line), expected, "{line}");
        }
        assert!(read(r#"{"type":"ERROR","object":{"code":410}}"#).contains("410"));
        for broken in ["", "{}", "[", r#"{"type":"ADDED"}"#, r#"{"type":"X","object":{}}"#] {
            assert!(read(broken).starts_with("Broken"), "{broken}");
        }
    }

    #[test]
    fn a_page_with_a_pod_that_cannot_be_read() {
        let page = br#"{"metadata":{"resourceVersion":"3"},
            "items":[{"metadata":{"name":"a"}},{"metadata":{"name":"b"},"status":7}]}"#;
        let (meta, pods) = parse_page(&Bytes::from_static(page)).unwrap();
        assert_eq!((meta.resource_version.as_str(), pods.len()), ("3", 1));
        let (_, none) = parse_page(&Bytes::from_static(br#"{"items":null}"#)).unwrap();
        assert!(none.is_empty());
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
