//! Requests of the HTTP API, and its server-sent events.

use std::time::Duration;

use ::http::{Request, StatusCode, Uri, header};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Incoming;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use portolan_wire::{Failure as Refusal, WatchEvent, with_query};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::{Error, directory::Failure, error::chain};

/// A list: 100,000 instances are some 40 MB.
const ANSWER_BYTES_MAX: usize = 256 << 20;
/// One event of a watch: one service with all its instances.
const EVENT_BYTES_MAX: usize = 64 << 20;
/// A list of everything takes a second or two to make.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);
/// The server sends a comment every 15 s (axum's keep-alive).
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// A client for one server.
#[derive(Clone)]
pub(super) struct Http {
    client: Client<HttpConnector, Empty<Bytes>>,
    server: String,
}

impl Http {
    pub(super) fn new(url: &str) -> Result<Self, Error> {
        let wrong = |problem: String| Error::Setting {
            name: "PORTOLAN_SERVER",
            problem,
            fix: "write http://HOST:PORT, as `portolan up` prints it",
        };
        let server = url.trim_end_matches('/');
        let uri: Uri = server.parse().map_err(|error| wrong(format!("{url:?}: {error}")))?;
        if uri.scheme_str() != Some("http") || uri.authority().is_none() {
            return Err(wrong(format!("{url:?} is no http:// URL")));
        }
        if uri.path() != "/" || uri.query().is_some() {
            return Err(wrong(format!("{url:?} has a path or a query")));
        }
        let client = Client::builder(TokioExecutor::new()).build_http();
        Ok(Self { client, server: server.to_owned() })
    }

    pub(super) fn server(&self) -> &str {
        &self.server
    }

    /// One answer.
    pub(super) async fn get<'a, T: DeserializeOwned>(
        &self,
        path: &str,
        query: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<T, Error> {
        let answer = async {
            let body = self.send(path, query).await?;
            let bytes = collect(body).await?;
            serde_json::from_slice(&bytes).map_err(|error| broken(&format!("the answer: {error}")))
        };
        let answer = timeout(ANSWER_WITHIN, answer).await;
        let answer = answer.unwrap_or_else(|_| Err(broken("no answer in time")));
        answer.map_err(|failure| failure.into_error(&format!("ask {} for {path}", self.server)))
    }

    /// A stream of events.
    pub(super) async fn watch<'a>(
        &self,
        query: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Events, Failure> {
        let body = timeout(ANSWER_WITHIN, self.send("/v1/watch", query)).await;
        let body = body.unwrap_or_else(|_| Err(broken("no answer in time")))?;
        Ok(Events { body, buffer: BytesMut::new(), searched: 0 })
    }

    async fn send<'a>(
        &self,
        path: &str,
        query: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<Incoming, Failure> {
        let uri = with_query(format!("{}{path}", self.server), query);
        let request = Request::get(uri).header(header::ACCEPT, "application/json");
        let request = request.body(Empty::new()).map_err(|error| broken(&chain(&error)))?;
        let answer = self.client.request(request).await;
        let answer = answer.map_err(|error| broken(&chain(&error)))?;
        let status = answer.status();
        if status == StatusCode::OK {
            return Ok(answer.into_body());
        }
        let text = collect(answer.into_body()).await?;
        let message = match serde_json::from_slice::<Refusal>(&text) {
            Ok(Refusal { message, hint, .. }) if hint.is_empty() => message,
            Ok(Refusal { message, hint, .. }) => format!("{message} ({hint})"),
            Err(_) => String::from_utf8_lossy(&text).trim().to_owned(),
        };
        let reason = status.canonical_reason().unwrap_or_default().to_owned();
        Err(Failure { status: Some((status.as_u16(), reason)), detail: message })
    }
}

fn broken(detail: &str) -> Failure {
    Failure { status: None, detail: detail.to_owned() }
}

async fn collect(body: Incoming) -> Result<Bytes, Failure> {
    let collected = Limited::new(body, ANSWER_BYTES_MAX).collect().await;
    collected.map(|all| all.to_bytes()).map_err(|error| broken(&chain(&*error)))
}

/// What came over an open watch.
#[derive(Debug, PartialEq)]
pub(super) enum Told {
    /// An event.
    Event(Box<WatchEvent>),
    /// A comment: nothing has happened, and the server is there.
    Alive,
}

/// An open watch.
pub(super) struct Events {
    body: Incoming,
    buffer: BytesMut,
    /// No event ends before this place.
    searched: usize,
}

impl Events {
    /// What comes next. `None`: the stream has ended.
    pub(super) async fn next(&mut self) -> Result<Option<Told>, Failure> {
        loop {
            if let Some(block) = self.block() {
                return parse(&block).map(Some);
            }
            if self.buffer.len() > EVENT_BYTES_MAX {
                return Err(broken(&format!("an event of more than {EVENT_BYTES_MAX} bytes")));
            }
            match timeout(SILENCE_MAX, self.body.frame()).await {
                Ok(Some(Ok(frame))) => {
                    if let Some(data) = frame.data_ref() {
                        self.buffer.extend_from_slice(data);
                    }
                }
                Ok(Some(Err(error))) => return Err(broken(&chain(&error))),
                Ok(None) => return Ok(None),
                Err(_) => return Err(broken("the server fell silent")),
            }
        }
    }

    /// The next block that has come whole.
    fn block(&mut self) -> Option<Bytes> {
        let rest = self.buffer.get(self.searched..)?;
        match rest.windows(2).position(|pair| pair == b"\n\n") {
            Some(at) => {
                let end = self.searched + at + 2;
                self.searched = 0;
                Some(self.buffer.split_to(end).freeze())
            }
            None => {
                self.searched = self.buffer.len().saturating_sub(1);
                None
            }
        }
    }
}

/// Reads a block.
fn parse(block: &[u8]) -> Result<Told, Failure> {
    let text = std::str::from_utf8(block).map_err(|error| broken(&format!("an event: {error}")))?;
    let mut data = text.lines().filter_map(|line| line.strip_prefix("data:"));
    // The server writes JSON on one line.
    let Some(data) = data.next() else { return Ok(Told::Alive) };
    serde_json::from_str(data.trim_start())
        .map(|event| Told::Event(Box::new(event)))
        .map_err(|error| broken(&format!("an event does not parse: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers() {
        for (url, fine) in [
            ("http://127.0.0.1:8500", true),
            ("http://127.0.0.1:8500/", true),
            ("http://[::1]:8500", true),
            ("https://127.0.0.1:8500", false),
            ("127.0.0.1:8500", false),
            ("http://127.0.0.1/v1", false),
            ("http://", false),
            ("", false),
        ] {
            assert_eq!(Http::new(url).is_ok(), fine, "{url}");
        }
    }

    #[test]
    fn blocks() {
        assert_eq!(parse(b": keep-alive\n\n").unwrap(), Told::Alive);
        let event =
            parse(b"event: synced\ndata: {\"event\":\"synced\",\"version\":\"a-1\"}\nid: a-1\n\n");
        let synced = WatchEvent::Synced { version: "a-1".into() };
        assert_eq!(event.unwrap(), Told::Event(Box::new(synced)));
        assert!(parse(b"data: {\"event\":\"unheard\"}\n\n").is_err());
        assert!(parse(b"data: \xff\n\n").is_err());
    }
}
