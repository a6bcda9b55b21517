//! The subprotocols `*.channel.k8s.io`: several byte streams over one WebSocket.
//!
//! Every message begins with the number of its channel. What each version adds
//! is in k8s.io/apimachinery `pkg/util/remotecommand` and `httpstream/wsstream`:
//! version 4 an end that tells the exit code as JSON, version 5 a message that
//! ends one channel (255 and its number), so that standard input can end. The
//! base64 forms are for clients that only have text. Pure: no sockets here.

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use bytes::{BufMut, Bytes, BytesMut};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::Status;

pub(super) const STDIN: u8 = 0;
pub(super) const STDOUT: u8 = 1;
pub(super) const STDERR: u8 = 2;
/// The end: a Status.
pub(super) const ERROR: u8 = 3;
/// Sizes of the terminal.
pub(super) const RESIZE: u8 = 4;
/// In the place of a channel's number: the channel in the next byte ends (version 5).
const CLOSE: u8 = 255;

/// A version of the subprotocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Protocol {
    /// As it is negotiated; empty when the client names none.
    pub(super) name: &'static str,
    version: u8,
    base64: bool,
}

/// What is spoken. Versions 2 and 3 exist only over SPDY.
const PROTOCOLS: [Protocol; 6] = [
    Protocol { name: "v5.channel.k8s.io", version: 5, base64: false },
    Protocol { name: "v4.channel.k8s.io", version: 4, base64: false },
    Protocol { name: "v4.base64.channel.k8s.io", version: 4, base64: true },
    Protocol { name: "channel.k8s.io", version: 1, base64: false },
    Protocol { name: "base64.channel.k8s.io", version: 1, base64: true },
    Protocol { name: "", version: 1, base64: false },
];

/// A message from the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    Data(u8, Bytes),
    Close(u8),
}

impl Protocol {
    /// The first one that the client offers and that is spoken here.
    pub(super) fn choose(offered: &[String]) -> Result<Protocol, Status> {
        if offered.is_empty() {
            return Self::choose(&[String::new()]);
        }
        let known = |name: &String| PROTOCOLS.into_iter().find(|p| p.name == name);
        offered.iter().find_map(known).ok_or_else(|| {
            let spoken: Vec<&str> = PROTOCOLS.iter().map(|p| p.name).collect();
            Status::bad_request(format!(
                "requested protocol(s) are not supported: {offered:?}; supports {spoken:?}"
            ))
        })
    }

    /// Whether it is the one that kubectl speaks. To its clients the real server tells what its
    /// kubelets refuse only after the handshake, over the error channel.
    pub(super) fn is_latest(self) -> bool {
        self.version >= 5
    }

    /// Reads a message; `None` has nothing to say.
    pub(super) fn decode(self, message: Bytes) -> Result<Option<Frame>, String> {
        let Some(first) = message.first().copied() else { return Ok(None) };
        let rest = message.slice(1..);
        if self.base64 {
            let channel = first.wrapping_sub(b'0');
            let data = BASE64.decode(&rest).map_err(|error| format!("not base64: {error}"))?;
            return Ok(Some(Frame::Data(channel, data.into())));
        }
        if self.version >= 5 && first == CLOSE {
            return match rest[..] {
                [channel] => Ok(Some(Frame::Close(channel))),
                _ => Err("255 is followed by the one channel that ends".to_owned()),
            };
        }
        Ok(Some(Frame::Data(first, rest)))
    }

    /// A message of a channel.
    pub(super) fn encode(self, channel: u8, data: &[u8]) -> Message {
        if self.base64 {
            let mut text = String::with_capacity(1 + data.len().div_ceil(3) * 4);
            text.push(char::from(b'0' + channel));
            BASE64.encode_string(data, &mut text);
            return Message::Text(Utf8Bytes::from(text));
        }
        let mut message = BytesMut::with_capacity(1 + data.len());
        message.put_u8(channel);
        message.put_slice(data);
        Message::Binary(message.freeze())
    }

    /// The last message: how it ended. Version 1 has text, and only for failures.
    pub(super) fn ending(self, outcome: &Result<i32, Status>) -> Option<Message> {
        let value = status(outcome);
        if self.version >= 4 {
            return Some(self.encode(ERROR, value.to_string().as_bytes()));
        }
        let text = value.get("message").and_then(Value::as_str)?;
        Some(self.encode(ERROR, text.as_bytes()))
    }
}

/// An outcome as clients read it (`NonZeroExitCodeReason`, `ExitCodeCauseType`).
pub(super) fn status(outcome: &Result<i32, Status>) -> Value {
    match outcome {
        Ok(0) => json!({"metadata": {}, "status": "Success"}),
        Ok(code) => json!({
            "metadata": {},
            "status": "Failure",
            "message": format!("command terminated with non-zero exit code: exit status {code}"),
            "reason": "NonZeroExitCode",
            "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
        }),
        Err(status) => status.to_value(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn protocol(name: &str) -> Protocol {
        Protocol::choose(&[name.to_owned()]).unwrap()
    }

    #[test]
    fn the_first_known_offer_is_taken() {
        let check = |offered: &[&str], expected: Option<&str>| {
            let offered: Vec<String> = offered.iter().map(ToString::to_string).collect();
            assert_eq!(Protocol::choose(&offered).ok().map(|p| p.name), expected, "{offered:?}");
        };
        check(&["v5.channel.k8s.io"], Some("v5.channel.k8s.io"));
        check(&["v9.channel.k8s.io", "v4.channel.k8s.io"], Some("v4.channel.k8s.io"));
        check(&["base64.channel.k8s.io", "channel.k8s.io"], Some("base64.channel.k8s.io"));
        check(&[], Some(""));
        check(&["graphql-ws"], None);
    }

    #[test]
    fn messages() {
        let check = |name: &str, message: &'static [u8], expected: Result<Option<Frame>, ()>| {
            let found = protocol(name).decode(Bytes::from_static(message)).map_err(drop);
            assert_eq!(found, expected, "{name} {message:?}");
        };
        let data = |channel, data: &'static [u8]| Frame::Data(channel, Bytes::from_static(data));
        check("v5.channel.k8s.io", b"\x00hi", Ok(Some(data(STDIN, b"hi"))));
        check("v5.channel.k8s.io", b"\xff\x00", Ok(Some(Frame::Close(STDIN))));
        check("v5.channel.k8s.io", b"\xff", Err(()));
        check("v5.channel.k8s.io", b"\xff\x00\x00", Err(()));
        check("v5.channel.k8s.io", b"", Ok(None));
        // Version 4 knows no end of a channel: 255 is a channel like any other.
        check("v4.channel.k8s.io", b"\xff\x00", Ok(Some(data(255, b"\0"))));
        check("v4.base64.channel.k8s.io", b"0aGk=", Ok(Some(data(STDIN, b"hi"))));
        check("v4.base64.channel.k8s.io", b"0a", Err(()));
        check("base64.channel.k8s.io", b"", Ok(None));
    }

    #[test]
    fn answers() {
        assert_eq!(protocol("v4.channel.k8s.io").encode(STDOUT, b"hi").into_data(), &b"\x01hi"[..]);
        let text = protocol("base64.channel.k8s.io").encode(STDOUT, b"hi");
        assert_eq!(text, Message::Text("1aGk=".into()));
    }

    #[test]
    fn endings() {
        let of = |name: &str, outcome: Result<i32, Status>| {
            let message = protocol(name).ending(&outcome)?.into_data();
            Some(String::from_utf8(message[1..].to_vec()).unwrap())
        };
        let failed = of("v5.channel.k8s.io", Ok(3)).unwrap();
        let failed: Value = serde_json::from_str(&failed).unwrap();
        assert_eq!(failed["reason"], "NonZeroExitCode");
        assert_eq!(failed["details"]["causes"][0], json!({"reason": "ExitCode", "message": "3"}));
        assert!(of("v4.channel.k8s.io", Ok(0)).unwrap().contains("Success"));
        assert_eq!(of("channel.k8s.io", Ok(0)), None);
        let refused = Err(Status::internal("no"));
        assert_eq!(of("channel.k8s.io", refused).unwrap(), "Internal error occurred: no");
    }
}
