//! How reading verbs reach the server.

use std::{path::Path, time::Duration};

use futures_util::{Stream, StreamExt};
use portolan_wire::{Addresses, DEFAULT_SERVER, Failure as Refusal, WatchEvent};
use serde::de::DeserializeOwned;

use crate::{Failure, args::Connection};

/// The data directory of `portolan up`, below the current directory.
pub(crate) const DATA_DIR_DEFAULT: &str = ".portolan";

/// A server may take so long to answer a plain request before it counts as
/// unreachable. Answers are made in milliseconds.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to the HTTP API.
pub(crate) struct Client {
    http: reqwest::Client,
    server: String,
    token: Option<String>,
}

/// The addresses of the Portolan that runs from the current directory, if any.
pub(crate) fn local_addresses() -> Option<Addresses> {
    let path = Path::new(DATA_DIR_DEFAULT).join(Addresses::FILE_NAME);
    serde_json::from_slice(&std::fs::read(path).ok()?).ok()
}

impl Client {
    pub(crate) fn new(connection: &Connection) -> Result<Self, Failure> {
        let server = connection
            .server
            .clone()
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
        query: &[(&str, String)],
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

    /// Follows `/v1/watch` until the server ends it.
    pub(crate) async fn watch(
        &self,
        query: &[(&str, String)],
    ) -> Result<impl Stream<Item = Result<WatchEvent, Failure>> + Unpin + use<>, Failure> {
        let answer = self.send("/v1/watch", query, None).await?;
        let server = self.server.clone();
        let mut buffer = Vec::new();
        let events = answer.bytes_stream().map(move |chunk| match chunk {
            Ok(chunk) => {
                buffer.extend_from_slice(&chunk);
                take_events(&mut buffer)
            }
            Err(error) => vec![Err(unreachable(&server, &error))],
        });
        Ok(Box::pin(events.flat_map(futures_util::stream::iter)))
    }

    fn request(&self, path: &str, query: &[(&str, String)]) -> reqwest::RequestBuilder {
        let mut url = format!("{}{path}", self.server);
        for (index, (key, value)) in query.iter().enumerate() {
            url.push(if index == 0 { '?' } else { '&' });
            url.push_str(key);
            url.push('=');
            url.push_str(&encode(value));
        }
        let request = self.http.get(url);
        match &self.token {
            Some(token) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(
        &self,
        path: &str,
        query: &[(&str, String)],
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
            Ok(refusal) => Failure::Refused { message: refusal.message, hint: refusal.hint },
            Err(_) => Failure::Refused {
                message: format!("the server answered {status}"),
                hint: format!("is {} a Portolan HTTP API?", self.server),
            },
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        unreachable(&self.server, error)
    }
}

fn unreachable(server: &str, error: &reqwest::Error) -> Failure {
    let mut reason = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        // The innermost cause is what a person can act on: "connection refused".
        reason = inner.to_string();
        source = inner.source();
    }
    Failure::Unreachable { server: server.to_owned(), reason }
}

/// Takes whole server-sent events off the front of a buffer.
fn take_events(buffer: &mut Vec<u8>) -> Vec<Result<WatchEvent, Failure>> {
    let mut events = Vec::new();
    while let Some(end) = buffer.windows(2).position(|pair| pair == b"\n\n") {
        let block: Vec<u8> = buffer.drain(..end + 2).collect();
        let text = String::from_utf8_lossy(&block);
        let data: String = text
            .lines()
            .filter_map(|line| line.strip_prefix("data:"))
            .map(str::trim_start)
            .collect();
        // Comments keep the connection alive and carry no data.
        if !data.is_empty() {
            events.push(serde_json::from_str(&data).map_err(Failure::from));
        }
    }
    events
}

/// Percent-encodes a query value (RFC 3986: all but unreserved characters).
fn encode(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(char::from(byte));
        } else {
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_whole_however_they_are_cut() {
        let text = b": ping\n\nevent: synced\nid: aaaa-1\ndata: {\"event\":\"synced\",\"version\":\"aaaa-1\"}\n\n";
        for cut in 0..text.len() {
            let mut buffer = Vec::new();
            let mut events = Vec::new();
            for part in [&text[..cut], &text[cut..]] {
                buffer.extend_from_slice(part);
                events.extend(take_events(&mut buffer));
            }
            assert_eq!(events.len(), 1, "cut at {cut}");
            assert!(
                matches!(&events[0], Ok(WatchEvent::Synced { version }) if version == "aaaa-1")
            );
        }
    }

    #[test]
    fn values_are_encoded() {
        assert_eq!(encode("svc/a b&c"), "svc%2Fa%20b%26c");
    }
}
