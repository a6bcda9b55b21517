//! Pseudoterminals: what `kubectl exec -t` gives a command to be on.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
};

use portolan_apiserver::registry::TerminalSize;
use rustix::{
    fs::{OFlags, fcntl_getfl, fcntl_setfl},
    pty::{OpenptFlags, ioctl_tiocgptpeer, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use tokio::net::unix::pipe;

use super::env::Env;

/// What programs on a terminal take it for, unless the container says otherwise (containerd).
const TERM: &str = "xterm";

/// The two sides of a pseudoterminal.
pub(super) struct Terminal {
    /// The kubelet's.
    pub(super) ours: OwnedFd,
    /// The command's.
    pub(super) theirs: OwnedFd,
}

impl Terminal {
    pub(super) fn open() -> io::Result<Terminal> {
        let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
        let ours = openpt(flags)?;
        unlockpt(&ours)?;
        // Not by its name: the command may see another /dev than we do.
        let theirs = ioctl_tiocgptpeer(&ours, flags)?;
        never_wait(&ours)?;
        Ok(Terminal { ours, theirs })
    }
}

/// Tells the programs on a terminal what it is.
pub(super) fn name(env: &mut Env) {
    env.entry("TERM".to_owned()).or_insert_with(|| TERM.to_owned());
}

/// Makes reads and writes return when there is nothing to do, as the runtime wants it.
pub(super) fn never_wait(file: &OwnedFd) -> io::Result<()> {
    Ok(fcntl_setfl(file, fcntl_getfl(file)? | OFlags::NONBLOCK)?)
}

/// Both directions of our side. The runtime's type for pipes fits: it waits for
/// the descriptor, then reads or writes it.
pub(super) fn ends(ours: &OwnedFd) -> io::Result<(pipe::Sender, pipe::Receiver)> {
    Ok((
        pipe::Sender::from_owned_fd_unchecked(ours.try_clone()?)?,
        pipe::Receiver::from_owned_fd_unchecked(ours.try_clone()?)?,
    ))
}

/// The kernel tells the programs on the terminal (SIGWINCH).
pub(super) fn resize(ours: impl AsFd, size: TerminalSize) {
    let size = Winsize { ws_col: size.width, ws_row: size.height, ws_xpixel: 0, ws_ypixel: 0 };
    if let Err(error) = tcsetwinsize(ours, size) {
        tracing::debug!(%error, "a terminal keeps its size");
    }
}
