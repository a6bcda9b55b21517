//! Bytes between a client's WebSocket and the ends of a session.
//!
//! ```text
//!  client ─▶ receive ─▶ stdin, terminal size          (ends when the client leaves)
//!  client ◀─ send ◀── stdout, stderr, then the Status (ends when the session does)
//! ```
//!
//! Whoever ends first ends the other. Nothing is queued here: a client that
//! does not read stops the session's output, and a command that does not read
//! stops the client. While that lasts no ping of the client can be answered,
//! because it lies behind the bytes that wait; so a heartbeat goes out unasked.

use std::{
    io,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt, future::BoxFuture};
use serde_json::Value;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    sync::Notify,
    time::MissedTickBehavior,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Error, Message,
        protocol::{CloseFrame, frame::coding::CloseCode},
    },
};

use super::channels::{ERROR, Frame, Protocol, RESIZE, STDERR, STDIN, STDOUT};
use crate::{
    Status,
    registry::{Input, Output, Session, SessionOptions, TerminalSize},
};

/// Bytes of output in one message; what kubectl reads at a time.
const OUTPUT_BYTES: usize = 32 << 10;

/// How often a sign of life goes out. kubectl gives up after 61 s without one.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// A session over which nothing moves ends after this time (kubelet
/// `streamingConnectionIdleTimeout`).
const IDLE_MAX: Duration = Duration::from_secs(4 * 60 * 60);

/// How long the rest of the output is waited for after the command has ended: only a process
/// that could not be killed can hold it back.
const LAST_OUTPUT_WAIT: Duration = Duration::from_secs(2);

/// How long a client may take to answer that it reads, and how long it then gets to be ready.
const READER_WAIT: Duration = Duration::from_secs(1);
const STREAMS_WAIT: Duration = Duration::from_millis(50);

/// How long a client may take to close its side after the last message. Were the socket closed
/// with input of the client unread, the kernel would throw away what the client has not read yet.
const FAREWELL: Duration = Duration::from_secs(5);

/// Relays until one side ends. Dropping it ends the session.
pub(super) async fn run<S>(
    socket: WebSocketStream<S>,
    protocol: Protocol,
    options: &SessionOptions,
    session: Result<Session, Status>,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut sink, stream) = socket.split();
    let moved = AtomicBool::new(true);
    let (input, outputs) = match session {
        Ok(Session { stdin, stdout, stderr, resize, ended }) => {
            (Receiver { stdin, resize }, Ok(Outputs { stdout, stderr, ended }))
        }
        Err(status) => (Receiver { stdin: None, resize: None }, Err(status)),
    };
    let heard = Notify::new();
    let mut receiving = pin!(input.run(stream, protocol, &moved, &heard));
    let sending = async {
        begin(&mut sink, protocol, options, &heard).await?;
        match outputs {
            Ok(outputs) => outputs.run(&mut sink, protocol, &moved).await,
            Err(status) => Ok(Err(status)),
        }
    };
    let outcome = tokio::select! {
        outcome = sending => match outcome {
            Ok(outcome) => outcome,
            Err(error) => return tracing::debug!(%error, "the client of a session left"),
        },
        left = &mut receiving => match left {
            Left::Away => return,
            Left::Odd(why) => {
                let frame = CloseFrame { code: CloseCode::Protocol, reason: why.into() };
                // It may be gone.
                drop(sink.send(Message::Close(Some(frame))).await);
                return;
            }
        },
    };
    let ending = async {
        if let Some(message) = protocol.ending(&outcome) {
            sink.send(message).await?;
        }
        let frame = CloseFrame { code: CloseCode::Normal, reason: "".into() };
        sink.send(Message::Close(Some(frame))).await
    };
    if tokio::time::timeout(FAREWELL, ending).await.is_ok_and(|sent| sent.is_ok()) {
        tokio::time::timeout(FAREWELL, receiving).await.ok();
    }
}

/// What goes in front of everything else.
///
/// Clients before version 5 may wait for an empty message that tells that the session is there,
/// and get it, as from the real server. kubectl's reader begins before the streams that it reads
/// for are there; what comes too early is thrown away (client-go `readDemuxLoop`: "Unknown stream
/// id"). The real server is late enough by the way to its kubelet. So a client of version 5 is
/// asked whether it reads, and gets a moment more, and no empty message.
async fn begin(
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    protocol: Protocol,
    options: &SessionOptions,
    heard: &Notify,
) -> Result<(), Error> {
    if !protocol.is_latest() {
        let first = match options {
            SessionOptions { stdout: true, .. } => STDOUT,
            SessionOptions { stderr: true, .. } => STDERR,
            _ => ERROR,
        };
        return send(sink, protocol.encode(first, &[])).await;
    }
    send(sink, Message::Ping(Bytes::new())).await?;
    // A client without pongs has waited long enough by then.
    tokio::time::timeout(READER_WAIT, heard.notified()).await.ok();
    tokio::time::sleep(STREAMS_WAIT).await;
    Ok(())
}

/// Why nothing comes from the client any more.
enum Left {
    Away,
    /// It said something that the subprotocol does not have.
    Odd(String),
}

/// Where the client's messages go.
struct Receiver {
    stdin: Option<Input>,
    resize: Option<Box<dyn Fn(TerminalSize) + Send + Sync>>,
}

impl Receiver {
    async fn run(
        mut self,
        mut messages: impl Stream<Item = Result<Message, Error>> + Unpin,
        protocol: Protocol,
        moved: &AtomicBool,
        heard: &Notify,
    ) -> Left {
        while let Some(message) = messages.next().await {
            moved.store(true, Ordering::Relaxed);
            heard.notify_one();
            let data = match message {
                Ok(Message::Binary(data)) => data,
                // Some clients send text as text.
                Ok(Message::Text(text)) => Bytes::from(text),
                Ok(Message::Close(_)) | Err(_) => return Left::Away,
                Ok(_) => continue,
            };
            match protocol.decode(data) {
                Err(why) => return Left::Odd(why),
                Ok(Some(Frame::Data(STDIN, data))) => self.feed(&data).await,
                Ok(Some(Frame::Close(STDIN))) => self.stdin = None,
                Ok(Some(Frame::Data(RESIZE, data))) => {
                    if let (Some(resize), Some(size)) = (&self.resize, terminal_size(&data)) {
                        resize(size);
                    }
                }
                Ok(_) => {}
            }
        }
        Left::Away
    }

    async fn feed(&mut self, data: &[u8]) {
        let Some(stdin) = &mut self.stdin else { return };
        let written = async {
            stdin.write_all(data).await?;
            stdin.flush().await
        };
        if written.await.is_err() {
            // The command reads no more; what else comes is for nobody.
            self.stdin = None;
        }
    }
}

/// `{"Width":80,"Height":24}` (client-go `TerminalSize`). What is no size is no order.
fn terminal_size(data: &[u8]) -> Option<TerminalSize> {
    let value: Value = serde_json::from_slice(data).ok()?;
    let number = |key: &str| u16::try_from(value.get(key)?.as_u64()?).ok();
    Some(TerminalSize { width: number("Width")?, height: number("Height")? })
}

/// Where messages for the client come from.
struct Outputs {
    stdout: Option<Output>,
    stderr: Option<Output>,
    ended: BoxFuture<'static, Result<i32, Status>>,
}

impl Outputs {
    /// Sends everything until the session has ended; its outcome, or why the client has it not.
    async fn run(
        mut self,
        sink: &mut (impl Sink<Message, Error = Error> + Unpin),
        protocol: Protocol,
        moved: &AtomicBool,
    ) -> Result<Result<i32, Status>, Error> {
        let mut buffers = (vec![0; OUTPUT_BYTES], vec![0; OUTPUT_BYTES]);
        let mut heartbeat = tokio::time::interval(HEARTBEAT);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut idle = Duration::ZERO;
        let mut outcome = None;
        while outcome.is_none() || self.stdout.is_some() || self.stderr.is_some() {
            tokio::select! {
                read = read(&mut self.stdout, &mut buffers.0) => match read {
                    Ok(count @ 1..) => {
                        moved.store(true, Ordering::Relaxed);
                        send(sink, protocol.encode(STDOUT, &buffers.0[..count])).await?;
                    }
                    // A terminal whose last process has gone answers with an error.
                    Ok(0) | Err(_) => self.stdout = None,
                },
                read = read(&mut self.stderr, &mut buffers.1) => match read {
                    Ok(count @ 1..) => {
                        moved.store(true, Ordering::Relaxed);
                        send(sink, protocol.encode(STDERR, &buffers.1[..count])).await?;
                    }
                    Ok(0) | Err(_) => self.stderr = None,
                },
                ended = &mut self.ended, if outcome.is_none() => outcome = Some(ended),
                _ = heartbeat.tick() => {
                    idle = if moved.swap(false, Ordering::Relaxed) {
                        Duration::ZERO
                    } else {
                        idle + HEARTBEAT
                    };
                    if idle >= IDLE_MAX {
                        let text = format!("nothing moved for {} s", IDLE_MAX.as_secs());
                        return Ok(Err(Status::new(408, "Timeout", text)));
                    }
                    send(sink, Message::Pong(Bytes::new())).await?;
                }
                () = tokio::time::sleep(LAST_OUTPUT_WAIT), if outcome.is_some() => break,
            }
        }
        Ok(outcome.unwrap_or_else(|| Err(Status::internal("the session broke off"))))
    }
}

/// Sends, unless the client reads nothing for as long as a session may be idle.
async fn send(
    sink: &mut (impl Sink<Message, Error = Error> + Unpin),
    message: Message,
) -> Result<(), Error> {
    let sent = tokio::time::timeout(IDLE_MAX, sink.send(message)).await;
    sent.unwrap_or_else(|_| Err(Error::Io(io::ErrorKind::TimedOut.into())))
}

/// Reads if there is something to read from; else waits for ever.
async fn read(from: &mut Option<Output>, buffer: &mut [u8]) -> io::Result<usize> {
    match from {
        Some(from) => from.read(buffer).await,
        None => std::future::pending().await,
    }
}
