//! Where the agent listens: where nobody comes but its own Pod.

use std::{fmt, io, net::SocketAddr, os::unix::fs::FileTypeExt, path::PathBuf, str::FromStr};

use axum::Router;
use tokio::net::{TcpListener, UnixListener, UnixStream};

/// A loopback address or a Unix socket; nothing else can be said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// A loopback address.
    Loopback(SocketAddr),
    /// A Unix socket: who may connect is a matter of the file.
    Unix(PathBuf),
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            let path = path.strip_prefix("//").unwrap_or(path);
            if path.is_empty() {
                return Err(format!("{text:?} has no path; write unix:/run/portolan/agent.sock"));
            }
            return Ok(Self::Unix(path.into()));
        }
        let address: SocketAddr = text.parse().map_err(|_| {
            format!("{text:?} is no address; write 127.0.0.1:8501, [::1]:8501 or unix:/PATH")
        })?;
        if address.ip().is_loopback() {
            return Ok(Self::Loopback(address));
        }
        Err(format!(
            "{address} can be reached from elsewhere, and the agent writes for whoever asks; write \
             a loopback address such as 127.0.0.1:8501, or unix:/PATH"
        ))
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loopback(address) => write!(f, "http://{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A socket that is bound.
pub(crate) enum Bound {
    Loopback(TcpListener),
    Unix(UnixListener, Socket),
}

/// The file of a Unix socket, which goes with it.
pub(crate) struct Socket(PathBuf);

impl Drop for Socket {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

pub(crate) async fn bind(listen: &Listen) -> io::Result<Bound> {
    match listen {
        Listen::Loopback(address) => TcpListener::bind(address).await.map(Bound::Loopback),
        Listen::Unix(path) => {
            let bound = match UnixListener::bind(path) {
                // What an agent left that was killed; nobody answers there.
                Err(error) if error.kind() == io::ErrorKind::AddrInUse && is_left(path).await => {
                    std::fs::remove_file(path)?;
                    UnixListener::bind(path)
                }
                bound => bound,
            };
            bound.map(|listener| Bound::Unix(listener, Socket(path.clone())))
        }
    }
}

async fn is_left(path: &PathBuf) -> bool {
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|meta| meta.file_type().is_socket());
    is_socket
        && UnixStream::connect(path)
            .await
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

impl Bound {
    pub(crate) fn local(&self) -> io::Result<Listen> {
        Ok(match self {
            Self::Loopback(listener) => Listen::Loopback(listener.local_addr()?),
            Self::Unix(_, socket) => Listen::Unix(socket.0.clone()),
        })
    }

    pub(crate) async fn serve(
        self,
        router: Router,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        match self {
            Self::Loopback(listener) => {
                axum::serve(listener, router).with_graceful_shutdown(stop).await
            }
            Self::Unix(listener, _socket) => {
                axum::serve(listener, router).with_graceful_shutdown(stop).await
            }
        }
    }
}

/// Whether a Host header names this machine. A page that a browser got from elsewhere may reach a
/// loopback port under a name of its own (DNS rebinding); it cannot choose the header.
pub(crate) fn is_own_host(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next().unwrap_or_default(),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost")
        || name.parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_but_loopback() {
        for (text, expected) in [
            ("127.0.0.1:8501", Some("http://127.0.0.1:8501")),
            ("127.10.0.4:0", Some("http://127.10.0.4:0")),
            ("[::1]:8501", Some("http://[::1]:8501")),
            ("unix:/run/a.sock", Some("unix:/run/a.sock")),
            ("unix:///run/a.sock", Some("unix:/run/a.sock")),
            ("0.0.0.0:8501", None),
            ("10.0.0.1:8501", None),
            ("[::]:8501", None),
            ("localhost:8501", None),
            ("unix:", None),
            ("8501", None),
        ] {
            let read = text.parse::<Listen>();
            assert_eq!(read.clone().ok().map(|l| l.to_string()).as_deref(), expected, "{text}");
            assert!(read.is_ok() || read.is_err_and(|error| error.contains("write ")), "{text}");
        }
    }

    #[test]
    fn hosts() {
        for (host, own) in [
            ("127.0.0.1:8501", true),
            ("127.0.0.1", true),
            ("localhost:8501", true),
            ("[::1]:8501", true),
            ("evil.example:8501", false),
            ("10.0.0.1", false),
            ("", false),
        ] {
            assert_eq!(is_own_host(host), own, "{host}");
        }
    }
}
