//! How reading verbs reach the server.
//!
//! ```text
//!   --server, PORTOLAN_SERVER, ./.portolan/addresses.json, the default --> Client --get--> JSON
//!                                                                             '--watch--> events
//! ```

use std::{
    collections::VecDeque,
    path::Path,
    pin::Pin,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use portolan_wire::{Addresses, DEFAULT_SERVER, Failure as Refusal, WatchEvent, with_query};
use serde::de::DeserializeOwned;

use crate::{Failure, args::Connection, output::Output};

/// The data directory of `portolan up`, below the current directory.
pub const DATA_DIR_DEFAULT: &str = ".portolan";

/// A server may take so long to answer a plain request before it counts as
/// unreachable. Answers are made in milliseconds.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A stream that is silent for so long is taken for lost: the server sends a
/// comment every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// How long a watch tries to come back before it gives up, and how often.
const COME_BACK: Duration = Duration::from_secs(30);
const COME_BACK_PAUSE: Duration = Duration::from_millis(250);

/// A connection to the HTTP API.
#[derive(Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    server: String,
    token: Option<String>,
}

/// A query: keys and values, not yet encoded.
pub(crate) type Query = Vec<(&'static str, String)>;

/// The addresses of the Portolan that runs from the current directory, if any.
pub fn local_addresses() -> Option<Addresses> {
    let path = Path::new(DATA_DIR_DEFAULT).join(Addresses::FILE_NAME);
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

impl Client {
    pub(crate) fn new(connection: &Connection) -> Result<Self, Failure> {
        let server = connection
            .server
            .clone()
            .filter(|server| !server.is_empty())
            .or_else(|| local_addresses().and_then(|addresses| addresses.http))
            .unwrap_or_else(|| DEFAULT_SERVER.to_owned());
        let server = server.trim_end_matches('/').to_owned();
        if !server.starts_with("http://") && !server.starts_with("https://") {
            return Err(Failure::Usage(format!(
                "{server:?} is no URL; --server looks like {DEFAULT_SERVER}"
            )));
        }
        let token = match &connection.token_file {
            None => None,
            Some(path) => Some(
                std::fs::read_to_string(path)
                    .map_err(|error| {
                        Failure::Usage(format!(
                            "cannot read --token-file {}: {error}",
                            path.display()
                        ))
                    })?
                    .trim()
                    .to_owned(),
            ),
        };
        let http = reqwest::Client::builder()
            .connect_timeout(TIMEOUT)
            .no_proxy()
            .build()
            .map_err(|error| Failure::Usage(error.to_string()))?;
        Ok(Self { http, server, token })
    }

    /// Asks, and reads the JSON answer. `patience` is how long the server was
    /// asked to wait before it answers.
    pub(crate) async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&'static str, String)],
        patience: Duration,
    ) -> Result<T, Failure> {
        let answer = self.send(path, query, Some(TIMEOUT + patience)).await?;
        let bytes = answer.bytes().await.map_err(|error| self.unreachable(&error))?;
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// The plain text of a path, with whether the server calls it well.
    pub(crate) async fn text(&self, path: &str) -> Result<(bool, String), Failure> {
        let request = self.request(path, &[]).timeout(TIMEOUT);
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        let fine = answer.status().is_success();
        Ok((fine, answer.text().await.map_err(|error| self.unreachable(&error))?))
    }

    /// Follows `/v1/watch`. The first connection must succeed at once.
    pub(crate) async fn watch(&self, query: Query) -> Result<Watch, Failure> {
        let mut watch = Watch {
            client: self.clone(),
            query,
            stream: None,
            buffer: EventBuffer::default(),
            events: VecDeque::new(),
            version: None,
            lost_at: None,
        };
        watch.connect().await?;
        Ok(watch)
    }

    fn request(&self, path: &str, query: &[(&'static str, String)]) -> reqwest::RequestBuilder {
        let query = query.iter().map(|(name, value)| (*name, value.as_str()));
        let url = with_query(format!("{}{path}", self.server), query);
        let request = self.http.get(url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(
        &self,
        path: &str,
        query: &[(&'static str, String)],
        timeout: Option<Duration>,
    ) -> Result<reqwest::Response, Failure> {
        let mut request = self.request(path, query);
        if let Some(timeout) = timeout {
            request = request.timeout(timeout);
        }
        let answer = request.send().await.map_err(|error| self.unreachable(&error))?;
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        let bytes = answer.bytes().await.map_err(|error| self.unreachable(&error))?;
        Err(match serde_json::from_slice::<Refusal>(&bytes) {
            // A request that makes no sense was typed: that is usage.
            Ok(refusal) if status == 400 => Failure::Usage(match refusal.hint.as_str() {
                "" => refusal.message,
                hint => format!("{}; {hint}", refusal.message),
            }),
            Ok(refusal) => Failure::Refused { message: refusal.message, hint: refusal.hint },
            Err(_) => Failure::Refused {
                message: format!("the server answered {status}"),
                hint: format!("is {} a Portolan HTTP API?", self.server),
            },
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        let mut reason = error.to_string();
        let mut source = std::error::Error::source(error);
        while let Some(inner) = source {
            // The innermost cause is what a person can act on: "connection refused".
            reason = inner.to_string();
            source = inner.source();
        }
        Failure::Unreachable { server: self.server.clone(), reason }
    }
}

/// An open watch. When the connection breaks it comes back by itself, from the
/// version that it has seen whole: the server sends what changed since, or a
/// reset.
pub(crate) struct Watch {
    client: Client,
    query: Query,
    stream: Option<Pin<Box<dyn Stream<Item = reqwest::Result<Bytes>> + Send>>>,
    buffer: EventBuffer,
    events: VecDeque<Result<WatchEvent, Failure>>,
    version: Option<String>,
    /// Since when nothing has been heard.
    lost_at: Option<Instant>,
}

impl Watch {
    async fn connect(&mut self) -> Result<(), Failure> {
        let mut query = self.query.clone();
        query.extend(self.version.iter().map(|version| ("version", version.clone())));
        let answer = self.client.send("/v1/watch", &query, None).await?;
        self.buffer = EventBuffer::default();
        self.stream = Some(Box::pin(answer.bytes_stream()));
        Ok(())
    }

    /// The next event. An error ends the watch.
    pub(crate) async fn next(&mut self, output: &mut Output) -> Result<WatchEvent, Failure> {
        loop {
            if let Some(event) = self.events.pop_front() {
                let event = event?;
                if let WatchEvent::Synced { version } = &event {
                    self.version = Some(version.clone());
                }
                return Ok(event);
            }
            let failure = match &mut self.stream {
                Some(stream) => match tokio::time::timeout(SILENCE_MAX, stream.next()).await {
                    Ok(Some(Ok(chunk))) => {
                        self.lost_at = None;
                        self.events.extend(self.buffer.take(&chunk));
                        continue;
                    }
                    Ok(Some(Err(error))) => self.client.unreachable(&error),
                    Ok(None) => self.ended("it ended the watch"),
                    Err(_) => self.ended("it has gone silent"),
                },
                None => match self.connect().await {
                    Ok(()) => continue,
                    Err(failure @ Failure::Unreachable { .. }) => failure,
                    Err(failure) => return Err(failure),
                },
            };
            self.stream = None;
            let lost_at = *self.lost_at.get_or_insert_with(|| {
                output.word(&format!("{failure}; trying again for {COME_BACK:?}"));
                Instant::now()
            });
            if lost_at.elapsed() >= COME_BACK {
                return Err(failure);
            }
            tokio::time::sleep(COME_BACK_PAUSE).await;
        }
    }

    fn ended(&self, reason: &str) -> Failure {
        Failure::Unreachable { server: self.client.server.clone(), reason: reason.to_owned() }
    }
}

/// Cuts a stream of bytes into server-sent events.
#[derive(Default)]
struct EventBuffer {
    bytes: Vec<u8>,
    /// No event ends before this place: one of some megabytes comes in many
    /// pieces, and is not searched from its beginning for each.
    searched: usize,
}

impl EventBuffer {
    fn take(&mut self, chunk: &[u8]) -> Vec<Result<WatchEvent, Failure>> {
        self.bytes.extend_from_slice(chunk);
        let mut events = Vec::new();
        let mut start = 0;
        let end_of_event = |from: usize, bytes: &[u8]| {
            let rest = bytes.get(from..)?;
            Some(from + rest.windows(2).position(|pair| pair == b"\n\n")? + 2)
        };
        while let Some(end) = end_of_event(self.searched, &self.bytes) {
            let block = String::from_utf8_lossy(self.bytes.get(start..end).unwrap_or_default());
            let data: Vec<&str> = block
                .lines()
                .filter_map(|line| line.strip_prefix("data:"))
                .map(|data| data.strip_prefix(' ').unwrap_or(data))
                .collect();
            // Comments keep the connection alive and carry no data.
            if !data.is_empty() {
                events.push(serde_json::from_str(&data.join("\n")).map_err(Failure::from));
            }
            start = end;
            self.searched = end;
        }
        self.bytes.drain(..start);
        self.searched = self.bytes.len().saturating_sub(1);
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_whole_however_they_are_cut() {
        let text = b": ping\n\nevent: synced\nid: aaaa-1\ndata: {\"event\":\"synced\",\"version\":\"aaaa-1\"}\n\nevent: reset\ndata: {\"event\":\"reset\",\ndata: \"version\":\"aaaa-2\"}\n\n";
        for cut in 0..text.len() {
            for second in cut..text.len() {
                let mut buffer = EventBuffer::default();
                let mut events = Vec::new();
                for part in [&text[..cut], &text[cut..second], &text[second..]] {
                    events.extend(buffer.take(part));
                }
                let versions: Vec<_> =
                    events.iter().flatten().map(|event| event.version().to_owned()).collect();
                assert_eq!(versions, ["aaaa-1", "aaaa-2"], "cut at {cut} and {second}");
                assert!(buffer.bytes.is_empty());
            }
        }
    }
}
