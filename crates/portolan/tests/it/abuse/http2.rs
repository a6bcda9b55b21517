//! HTTP/2 by hand: frames that no library sends, and more of them than it would.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    task::JoinHandle,
    time::timeout,
};

use super::{assert_unharmed, block_on, raw, resident_bytes};
use crate::{
    api::{Api, cluster},
    harness::PATIENCE,
};

// Frame types and flags (RFC 9113, section 6).
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

const CANCEL: [u8; 4] = [0, 0, 0, 8];
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What an attack may cost the server; the most of it is the allocator's.
const GROWTH_BYTES_MAX: u64 = 128 << 20;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let mut bytes = length[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header with a literal name and value, not indexed (RFC 7541, section 6.2.2).
fn header(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        // An integer with a prefix of 7 bits.
        let mut rest = text.len();
        if rest < 127 {
            bytes.push(rest as u8);
        } else {
            bytes.push(127);
            rest -= 127;
            while rest >= 128 {
                bytes.push((rest % 128 + 128) as u8);
                rest /= 128;
            }
            bytes.push(rest as u8);
        }
        bytes.extend(text.as_bytes());
    }
    bytes
}

/// The headers of a request of the administrator.
fn request(api: &Api, method: &str, path: &str) -> Vec<u8> {
    let token = format!("Bearer {}", api.token);
    [
        header(":method", method),
        header(":scheme", "https"),
        header(":path", path),
        header(":authority", "x"),
        header("authorization", &token),
    ]
    .concat()
}

/// Type, stream and payload of each frame that came.
type Frames = Vec<(u8, u32, Vec<u8>)>;

struct Connection {
    writing: WriteHalf<raw::Stream>,
    reading: JoinHandle<Frames>,
}

impl Connection {
    /// Greets the server and reads what it says until it closes.
    async fn open(api: &Api, settings: &[u8]) -> Connection {
        let (reading, mut writing) = Connection::halves(api, settings).await;
        writing.flush().await.unwrap();
        Connection { writing, reading: tokio::spawn(frames(reading)) }
    }

    /// Greets the server; nobody reads yet.
    async fn halves(api: &Api, settings: &[u8]) -> (ReadHalf<raw::Stream>, WriteHalf<raw::Stream>) {
        let stream = raw::connect(api, b"h2").await.unwrap();
        let (reading, mut writing) = tokio::io::split(stream);
        writing.write_all(PREFACE).await.unwrap();
        writing.write_all(&frame(SETTINGS, 0, 0, settings)).await.unwrap();
        (reading, writing)
    }

    /// False when the server takes no more.
    async fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = timeout(PATIENCE, self.writing.write_all(bytes)).await;
        sent.expect("the server neither reads nor closes").is_ok()
    }

    /// Says that it is done, and what the server said until it closed.
    async fn end(mut self) -> Frames {
        drop(self.writing.write_all(&frame(GOAWAY, 0, 0, &[0; 8])).await);
        drop(self.writing.flush().await);
        drop(self.writing.shutdown().await);
        timeout(PATIENCE, self.reading).await.expect("the server does not close").unwrap()
    }
}

async fn frames(mut reading: ReadHalf<raw::Stream>) -> Frames {
    let mut frames = Frames::new();
    loop {
        let mut head = [0; 9];
        if reading.read_exact(&mut head).await.is_err() {
            return frames;
        }
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        if reading.read_exact(&mut payload).await.is_err() {
            return frames;
        }
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        frames.push((head[3], stream, payload));
    }
}

fn kinds(frames: &Frames, wanted: u8) -> usize {
    frames.iter().filter(|(kind, _, _)| *kind == wanted).count()
}

#[test]
fn more_streams_than_allowed_are_refused() {
    let api = cluster();
    block_on(async {
        let mut connection = Connection::open(&api, &[]).await;
        let post = request(&api, "POST", "/api/v1/namespaces/default/configmaps");
        for number in 0..400 {
            let open = frame(HEADERS, END_HEADERS, 2 * number + 1, &post);
            assert!(connection.send(&open).await, "the connection is closed at stream {number}");
        }
        assert_unharmed(&api).await;
        let frames = connection.end().await;
        let refused = kinds(&frames, RST_STREAM);
        assert!(refused >= 150, "of 400 streams {refused} were refused");
    });
}

#[test]
fn rapid_resets_harm_nobody() {
    let api = cluster();
    block_on(async {
        let before = resident_bytes(&api);
        let mut connection = Connection::open(&api, &[]).await;
        let list = request(&api, "GET", "/api/v1/pods");
        for number in 0..20_000 {
            let stream = 2 * number + 1;
            let mut both = frame(HEADERS, END_HEADERS | END_STREAM, stream, &list);
            both.extend(frame(RST_STREAM, 0, stream, &CANCEL));
            if !connection.send(&both).await {
                break;
            }
        }
        assert_unharmed(&api).await;
        let grown = resident_bytes(&api).saturating_sub(before);
        assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes");
        connection.end().await;
    });
}

#[test]
fn a_huge_header_list_is_refused() {
    let api = cluster();
    block_on(async {
        let mut connection = Connection::open(&api, &[]).await;
        let mut list = request(&api, "GET", "/api/v1/pods");
        for number in 0..64 {
            list.extend(header(&format!("x-{number}"), &"y".repeat(16 << 10)));
        }
        let mut parts = list.chunks(16 << 10).peekable();
        let mut kind = HEADERS;
        let mut flags = END_STREAM;
        while let Some(part) = parts.next() {
            let last = if parts.peek().is_none() { END_HEADERS } else { 0 };
            if !connection.send(&frame(kind, flags | last, 1, part)).await {
                break;
            }
            (kind, flags) = (CONTINUATION, 0);
        }
        assert_unharmed(&api).await;
        let frames = connection.end().await;
        let served = frames.iter().any(|(kind, _, payload)| *kind == DATA && !payload.is_empty());
        let refused = kinds(&frames, RST_STREAM) + kinds(&frames, GOAWAY) + kinds(&frames, HEADERS);
        assert!(refused > 0 && !served, "{frames:?}");
    });
}

#[test]
fn an_endless_header_block_is_cut_off() {
    let api = cluster();
    block_on(async {
        let before = resident_bytes(&api);
        let mut connection = Connection::open(&api, &[]).await;
        let list = request(&api, "GET", "/api/v1/pods");
        assert!(connection.send(&frame(HEADERS, END_STREAM, 1, &list)).await);
        let more = frame(CONTINUATION, 0, 1, &header("x", &"y".repeat(8_000)));
        let mut sent = 0;
        while sent < 64 << 20 && connection.send(&more).await {
            sent += more.len();
        }
        assert!(sent < 64 << 20, "{sent} bytes of a header block were taken");
        assert_unharmed(&api).await;
        let grown = resident_bytes(&api).saturating_sub(before);
        assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes");
        connection.end().await;
    });
}

/// Empty CONTINUATION frames and pings cost little to send; nobody reads the answers.
#[test]
fn floods_of_small_frames_are_bounded() {
    let api = cluster();
    block_on(async {
        let before = resident_bytes(&api);
        for small in [frame(PING, 0, 0, &[0; 8]), frame(SETTINGS, 0, 0, &[])] {
            let (reading, mut writing) = Connection::halves(&api, &[]).await;
            let many = small.repeat(1_000);
            for _ in 0..300 {
                // A server that waits for us to read has done enough.
                let sent = timeout(std::time::Duration::from_millis(500), writing.write_all(&many));
                if !matches!(sent.await, Ok(Ok(()))) {
                    break;
                }
            }
            assert_unharmed(&api).await;
            drop((reading, writing));
        }
        let mut connection = Connection::open(&api, &[]).await;
        assert!(connection.send(&frame(HEADERS, 0, 1, &[])).await);
        let empty = frame(CONTINUATION, 0, 1, &[]).repeat(1_000);
        for _ in 0..300 {
            if !connection.send(&empty).await {
                break;
            }
        }
        assert_unharmed(&api).await;
        connection.end().await;
        let grown = resident_bytes(&api).saturating_sub(before);
        assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes");
    });
}

/// Large answers to someone who never has room for them.
#[test]
fn answers_that_nobody_takes_are_bounded() {
    let api = cluster();
    block_on(async {
        let before = resident_bytes(&api);
        // SETTINGS_INITIAL_WINDOW_SIZE = 0
        let no_window = [0, 4, 0, 0, 0, 0];
        let mut connections = Vec::new();
        let list = request(&api, "GET", "/openapi/v3/api/v1");
        for _ in 0..8 {
            let mut connection = Connection::open(&api, &no_window).await;
            for number in 0..200 {
                let open = frame(HEADERS, END_HEADERS | END_STREAM, 2 * number + 1, &list);
                assert!(connection.send(&open).await);
            }
            connections.push(connection);
        }
        assert_unharmed(&api).await;
        let grown = resident_bytes(&api).saturating_sub(before);
        assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes");
    });
}

#[test]
fn broken_frames_end_the_connection() {
    let api = cluster();
    block_on(async {
        let get = request(&api, "GET", "/version");
        for (about, bytes) in [
            ("DATA on stream 0", frame(DATA, 0, 0, b"x")),
            ("HEADERS on an even stream", frame(HEADERS, END_HEADERS | END_STREAM, 2, &get)),
            ("CONTINUATION out of nowhere", frame(CONTINUATION, END_HEADERS, 1, &get)),
            ("a SETTINGS of 5 bytes", frame(SETTINGS, 0, 0, &[0; 5])),
            ("a PING of 7 bytes", frame(PING, 0, 0, &[0; 7])),
            ("a window of no growth", frame(WINDOW_UPDATE, 0, 0, &[0; 4])),
            ("a frame of 16 MiB", frame(DATA, 0, 1, &vec![0; (1 << 24) - 1])),
            ("broken compression", frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0xff; 64])),
            ("an enormous table", frame(HEADERS, END_HEADERS, 1, &[0x3f, 0xff, 0xff, 0xff, 0x7f])),
        ] {
            let mut connection = Connection::open(&api, &[]).await;
            connection.send(&bytes).await;
            let frames = timeout(PATIENCE, connection.reading).await;
            let frames = frames.unwrap_or_else(|_| panic!("{about}: not closed")).unwrap();
            assert!(kinds(&frames, GOAWAY) > 0, "{about}: {frames:?}");
        }
        let mut connection = raw::connect(&api, b"h2").await.unwrap();
        connection.write_all(b"PRI * HTTP/3.0\r\n\r\nXX\r\n\r\n").await.unwrap();
        raw::read_to_end(&mut connection).await;
        assert_unharmed(&api).await;
    });
}
