//! What a container prints: into its log, and to those who are attached.
//!
//! ```text
//!  pipe or terminal ─▶ Copying ─▶ LogWriter
//!                         └──────▶ Listener, one per `kubectl attach`
//! ```

use std::{io, os::fd::OwnedFd, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream},
    net::unix::pipe,
    sync::{mpsc, oneshot},
    task::JoinHandle,
};

use super::logs::LogWriter;

/// How long the end of a log is waited for after its container has ended.
/// Nothing holds the pipe any more by then, unless a process could not be killed.
const LOG_END_WAIT: Duration = Duration::from_millis(500);

/// How long a container may be held up by somebody who is attached and does not read.
const LISTENER_WAIT: Duration = Duration::from_secs(5);

/// Listeners that wait to be taken on.
pub(super) const LISTENERS_MAX: usize = 16;

/// Somebody who wants what is printed from now on.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) to: DuplexStream,
    /// Told when the listener was too slow.
    pub(super) missed: oneshot::Sender<()>,
}

/// Copies what a run prints, in the background.
pub(super) struct Copying(JoinHandle<()>);

impl Copying {
    pub(super) fn start(
        output: OwnedFd,
        mut log: LogWriter,
        mut newcomers: mpsc::Receiver<Listener>,
    ) -> io::Result<Self> {
        let mut output = pipe::Receiver::from_owned_fd_unchecked(output)?;
        Ok(Self(tokio::spawn(async move {
            let mut buffer = vec![0; 16 << 10];
            let mut lost = false;
            let mut listeners = Vec::new();
            loop {
                let printed = tokio::select! {
                    // Newcomers first: what answers something that one of them wrote comes after.
                    biased;
                    Some(listener) = newcomers.recv() => {
                        listeners.push(listener);
                        continue;
                    }
                    read = output.read(&mut buffer) => match read {
                        Ok(count @ 1..) => &buffer[..count],
                        // A terminal whose last process has gone answers with an error.
                        Ok(0) | Err(_) => return,
                    },
                };
                // The page cache takes it at once; a thread to wait for it would cost more.
                match log.append(printed) {
                    Ok(()) => lost = false,
                    Err(error) if !lost => {
                        // Say so once, and keep the container from blocking on its pipe.
                        tracing::warn!(%error, "a container's output is lost");
                        lost = true;
                    }
                    Err(_) => {}
                }
                listeners = tell(listeners, printed).await;
            }
        })))
    }

    /// Waits until all is stored.
    pub(super) async fn finish(mut self) {
        if tokio::time::timeout(LOG_END_WAIT, &mut self.0).await.is_err() {
            self.0.abort();
        }
    }
}

/// Those of the listeners that are still there.
async fn tell(listeners: Vec<Listener>, printed: &[u8]) -> Vec<Listener> {
    let mut left = Vec::new();
    for mut listener in listeners {
        match tokio::time::timeout(LISTENER_WAIT, listener.to.write_all(printed)).await {
            Ok(Ok(())) => left.push(listener),
            // Gone.
            Ok(Err(_)) => {}
            // It may have gone this very moment.
            Err(_) => drop(listener.missed.send(())),
        }
    }
    left
}
