//! SPDY/3.1 framing, as far as `kubectl port-forward` speaks it.
//!
//! Port forwarding over WebSocket (KEP-4006) tunnels the bytes of an SPDY
//! connection, because a WebSocket has no streams of its own. Only what a server
//! of such a connection needs is here: streams that the client opens, data, ends,
//! resets and pings. There is no flow control: github.com/moby/spdystream, which
//! every client is built on, has none either. Pure: bytes in, frames out.
//!
//! The specification is draft-mbelshe-httpbis-spdy-00 (version 3), section 2.

mod headers;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use self::headers::Inflater;

/// Largest frame. Clients copy 32 KiB at a time.
const FRAME_BYTES_MAX: usize = 1 << 20;
/// Bytes in front of every frame.
const HEAD_BYTES: usize = 8;
/// The version in every control frame, behind the bit that marks one.
const VERSION: u16 = 3;
const CONTROL: u16 = 0x8000;
/// The sender says no more on this stream.
const FIN: u8 = 0x01;

const SYN_STREAM: u16 = 1;
const SYN_REPLY: u16 = 2;
const RST_STREAM: u16 = 3;
const PING: u16 = 6;
const GOAWAY: u16 = 7;

/// Status of a reset: nobody wants the stream any more.
const CANCEL: u32 = 5;

/// What the client says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Frame {
    /// A new stream, with its headers; names are in lower case.
    Open {
        stream: u32,
        headers: Vec<(String, String)>,
        fin: bool,
    },
    Data {
        stream: u32,
        data: Bytes,
        fin: bool,
    },
    Reset {
        stream: u32,
    },
    Ping {
        id: u32,
    },
    GoAway,
    /// Settings, windows, further headers: nothing to do.
    Other,
}

/// Makes frames of bytes.
pub(super) struct Decoder {
    buffer: BytesMut,
    inflater: Inflater,
}

impl Decoder {
    pub(super) fn new() -> Decoder {
        Decoder { buffer: BytesMut::new(), inflater: Inflater::new() }
    }

    /// Takes what has arrived, in pieces of any size.
    pub(super) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame, if it is there.
    pub(super) fn next(&mut self) -> Result<Option<Frame>, String> {
        let Some(mut head) = self.buffer.get(..HEAD_BYTES) else { return Ok(None) };
        let (first, second, flags_and_length) = (head.get_u16(), head.get_u16(), head.get_u32());
        let length = usize::try_from(flags_and_length & 0x00FF_FFFF).unwrap_or(usize::MAX);
        if length > FRAME_BYTES_MAX {
            return Err(format!("a frame of {length} bytes; the limit is {FRAME_BYTES_MAX}"));
        }
        if self.buffer.len() < HEAD_BYTES + length {
            return Ok(None);
        }
        self.buffer.advance(HEAD_BYTES);
        let payload = self.buffer.split_to(length).freeze();
        let fin = (flags_and_length >> 24) as u8 & FIN != 0;
        if first & CONTROL == 0 {
            let stream = u32::from(first) << 16 | u32::from(second);
            return Ok(Some(Frame::Data { stream, data: payload, fin }));
        }
        if first != CONTROL | VERSION {
            return Err(format!("SPDY version {}; only {VERSION} is spoken", first & !CONTROL));
        }
        self.control(second, payload, fin).map(Some)
    }

    fn control(&mut self, kind: u16, mut payload: Bytes, fin: bool) -> Result<Frame, String> {
        let short = |_| format!("a control frame of type {kind} is too short");
        Ok(match kind {
            SYN_STREAM => {
                let stream = payload.try_get_u32().map_err(short)?;
                // Associated stream, priority, slot: for browsers.
                payload.try_get_u32().map_err(short)?;
                payload.try_get_u16().map_err(short)?;
                let headers = headers::parse(&self.inflater.inflate(&payload)?)?;
                Frame::Open { stream, headers, fin }
            }
            RST_STREAM => Frame::Reset { stream: payload.try_get_u32().map_err(short)? },
            PING => Frame::Ping { id: payload.try_get_u32().map_err(short)? },
            GOAWAY => Frame::GoAway,
            _ => Frame::Other,
        })
    }
}

/// Makes bytes of frames. Only replies depend on what was said before.
#[derive(Debug, Default)]
pub(super) struct Encoder {
    replied: bool,
}

impl Encoder {
    /// The stream is accepted.
    pub(super) fn reply(&mut self, stream: u32) -> Bytes {
        let block = headers::none(!self.replied);
        self.replied = true;
        let mut payload = BytesMut::with_capacity(4 + block.len());
        payload.put_u32(stream);
        payload.put_slice(&block);
        control(SYN_REPLY, &payload)
    }
}

/// Data of a stream.
pub(super) fn data(stream: u32, data: &[u8], fin: bool) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + data.len());
    frame.put_u32(stream & !(u32::from(CONTROL) << 16));
    frame.put_u32(u32::from(if fin { FIN } else { 0 }) << 24 | length(data));
    frame.put_slice(data);
    frame.freeze()
}

/// The stream is over, in both directions.
pub(super) fn reset(stream: u32) -> Bytes {
    let mut payload = [0; 8];
    (&mut payload[..4]).put_u32(stream);
    (&mut payload[4..]).put_u32(CANCEL);
    control(RST_STREAM, &payload)
}

/// The answer to a ping is the ping.
pub(super) fn ping(id: u32) -> Bytes {
    control(PING, &id.to_be_bytes())
}

fn control(kind: u16, payload: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(HEAD_BYTES + payload.len());
    frame.put_u16(CONTROL | VERSION);
    frame.put_u16(kind);
    frame.put_u32(length(payload));
    frame.put_slice(payload);
    frame.freeze()
}

/// Our frames are far below the 24 bits that there are.
fn length(payload: &[u8]) -> u32 {
    u32::try_from(payload.len()).unwrap_or(0) & 0x00FF_FFFF
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(bytes: &[u8]) -> Result<Vec<Frame>, String> {
        let mut decoder = Decoder::new();
        let mut found = Vec::new();
        // Byte by byte: no frame may need to arrive at once.
        for byte in bytes {
            decoder.push(&[*byte]);
            while let Some(frame) = decoder.next()? {
                found.push(frame);
            }
        }
        Ok(found)
    }

    #[test]
    fn frames_without_headers() {
        let bytes = [data(3, b"hello", false), data(3, b"", true), reset(5), ping(7)].concat();
        assert_eq!(
            frames(&bytes).unwrap(),
            [
                Frame::Data { stream: 3, data: Bytes::from_static(b"hello"), fin: false },
                Frame::Data { stream: 3, data: Bytes::new(), fin: true },
                Frame::Reset { stream: 5 },
                Frame::Ping { id: 7 },
            ]
        );
    }

    #[test]
    fn what_is_no_spdy() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            &[0x80, 2, 0, 1, 0, 0, 0, 0],
            &[0x80, 3, 0, 1, 0, 0, 0, 2, 0, 0],
            &[0, 0, 0, 1, 0, 0xFF, 0xFF, 0xFF],
        ] {
            let outcome = frames(bytes);
            assert!(outcome.as_ref().is_ok_and(Vec::is_empty) || outcome.is_err(), "{bytes:?}");
        }
        assert!(frames(&[0x80, 2, 0, 1, 0, 0, 0, 0]).is_err());
        assert!(frames(&[0, 0, 0, 1, 0, 0xFF, 0xFF, 0xFF]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes: Vec<u8>, kind in 0_u16..10) {
            drop(frames(&bytes));
            drop(frames(&control(kind, &bytes)));
        }
    }
}
