//! The handshake of a WebSocket (RFC 6455, section 4.2), and other upgrades.

use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, header};
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::super::respond::{Answer, Body};
use crate::Status;

/// The one version of the protocol.
const VERSION: &str = "13";

/// Whether a request asks to become something else, and that is `token`.
pub(super) fn asks_for(headers: &HeaderMap, token: &str) -> bool {
    has_word(headers, &header::CONNECTION, "upgrade") && has_word(headers, &header::UPGRADE, token)
}

/// The subprotocols that the client offers, the most wanted first.
pub(super) fn offered(headers: &HeaderMap) -> Vec<String> {
    words(headers, &header::SEC_WEBSOCKET_PROTOCOL).map(str::to_owned).collect()
}

/// The answer that opens a WebSocket; `protocol` may be empty.
pub(super) fn open(headers: &HeaderMap, protocol: &str) -> Result<Answer, Status> {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    if text(header::SEC_WEBSOCKET_VERSION) != Some(VERSION) {
        return Err(Status::bad_request(format!("Sec-WebSocket-Version: expected {VERSION}")));
    }
    let key = text(header::SEC_WEBSOCKET_KEY)
        .ok_or_else(|| Status::bad_request("Sec-WebSocket-Key: is missing"))?;
    let accept = derive_accept_key(key.as_bytes());
    let mut told = vec![(header::SEC_WEBSOCKET_ACCEPT, accept.as_str())];
    if !protocol.is_empty() {
        told.push((header::SEC_WEBSOCKET_PROTOCOL, protocol));
    }
    Ok(switch("websocket", &told))
}

/// `101 Switching Protocols`.
fn switch(to: &'static str, told: &[(HeaderName, &str)]) -> Answer {
    let mut answer = Response::new(Body::Whole(bytes::Bytes::new()));
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = answer.headers_mut();
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static(to));
    for (name, value) in told {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name.clone(), value);
        }
    }
    answer
}

/// The words of a header that is a list, which may also stand there several times.
fn words<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|word| !word.is_empty())
}

fn has_word(headers: &HeaderMap, name: &HeaderName, wanted: &str) -> bool {
    words(headers, name).any(|word| word.eq_ignore_ascii_case(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    #[test]
    fn the_handshake_of_the_rfc() {
        let asked = headers(&[
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
            ("sec-websocket-protocol", "chat, superchat"),
        ]);
        assert!(asks_for(&asked, "websocket"));
        assert_eq!(offered(&asked), ["chat", "superchat"]);
        let answer = open(&asked, "chat").unwrap();
        assert_eq!(answer.status(), 101);
        assert_eq!(answer.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(answer.headers()["sec-websocket-protocol"], "chat");
    }

    #[test]
    fn what_is_no_handshake() {
        assert!(!asks_for(&headers(&[("upgrade", "websocket")]), "websocket"));
        assert!(!asks_for(&headers(&[("connection", "upgrade"), ("upgrade", "h2c")]), "websocket"));
        for pairs in [&[("sec-websocket-version", "13")][..], &[("sec-websocket-key", "x")]] {
            assert_eq!(open(&headers(pairs), "").err().unwrap().code, 400);
        }
    }
}
