//! Talking with what runs in a Pod: `kubectl exec`, `attach` and `port-forward`.
//!
//! ```text
//!  http::streams ──open, connect──▶ PodSessions (whoever runs Pods)
//!        │ ◀──────── Session, Connection ──────┘
//!        └─ bytes both ways until one side ends
//! ```
//!
//! A session is owned by whoever asked for it: dropping it ends the command, so
//! that nothing runs on for a client that has left.

use std::{fmt, pin::Pin};

use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};

use crate::Status;

/// What a session is asked to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SessionOptions {
    /// Which container; one of the Pod's.
    pub container: String,
    /// What to run in it; `None` is the container's own command, which runs already (`attach`).
    pub command: Option<Vec<String>>,
    /// Whether the client writes.
    pub stdin: bool,
    /// Whether the client wants standard output.
    pub stdout: bool,
    /// Whether the client wants standard error.
    pub stderr: bool,
    /// Run on a terminal; both outputs are one then.
    pub tty: bool,
}

/// The size of a terminal, in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TerminalSize {
    /// Columns.
    pub width: u16,
    /// Rows.
    pub height: u16,
}

/// Where a client's bytes go.
pub type Input = Pin<Box<dyn AsyncWrite + Send>>;

/// Where the bytes for a client come from.
pub type Output = Pin<Box<dyn AsyncRead + Send>>;

/// Something that runs, with the ends that were asked for.
pub struct Session {
    /// Dropping it is the end of the input.
    pub stdin: Option<Input>,
    /// What it prints.
    pub stdout: Option<Output>,
    /// What it prints about itself.
    pub stderr: Option<Output>,
    /// Tells the terminal its size.
    pub resize: Option<Box<dyn Fn(TerminalSize) + Send + Sync>>,
    /// Its end: the exit code, or why there is none. Dropping it ends the session.
    pub ended: BoxFuture<'static, Result<i32, Status>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("stdin", &self.stdin.is_some())
            .field("stdout", &self.stdout.is_some())
            .field("stderr", &self.stderr.is_some())
            .field("tty", &self.resize.is_some())
            .finish_non_exhaustive()
    }
}

/// A connection to a port of a Pod.
pub trait Connection: AsyncRead + AsyncWrite + Send {}

impl<T: AsyncRead + AsyncWrite + Send> Connection for T {}

/// Whoever runs Pods and lets clients in.
pub trait PodSessions: Send + Sync + 'static {
    /// Runs a command in a container, or listens to the one that runs.
    fn open(
        &self,
        pod: Value,
        options: SessionOptions,
    ) -> BoxFuture<'static, Result<Session, Status>>;

    /// Connects to a TCP port of a Pod, as from inside it. The error is for people.
    fn connect(
        &self,
        pod: Value,
        port: u16,
    ) -> BoxFuture<'static, Result<Pin<Box<dyn Connection>>, String>>;
}
