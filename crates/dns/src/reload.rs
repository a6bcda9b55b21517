//! The configuration file: read at the start, and looked at again for changes.
//!
//! ```text
//!   file --read--> FaceConfig --differs?--> Running::reconfigure
//!                      |  a fault: logged once, counted, and nothing changes
//! ```
//!
//! What is compared is the configuration itself, so that imported files and the
//! environment count and remarks do not. Rejected: watching by inotify, which says
//! nothing of the files behind the links that Kubernetes mounts ConfigMaps by.

use std::path::{Path, PathBuf};

use portolan_runtime::{Metrics, Shutdown};
use prometheus_client::metrics::counter::Counter;
use thiserror::Error;
use tracing::{error, info, warn};

use crate::{
    config::{FaceConfig, read_native},
    corefile::{Disk, Fault, Surroundings, read as read_corefile},
    server::Running,
};

/// A configuration file in one of the two spellings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigFile {
    /// A Corefile.
    Corefile(PathBuf),
    /// TOML.
    Native(PathBuf),
}

/// Why a file gives no configuration.
#[derive(Debug, Error)]
pub enum ReadError {
    /// It cannot be read.
    #[error("cannot read {path}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// Something in it is wrong.
    #[error(transparent)]
    Fault(#[from] Fault),
}

impl ConfigFile {
    /// Where it is.
    pub fn path(&self) -> &Path {
        match self {
            Self::Corefile(path) | Self::Native(path) => path,
        }
    }

    /// Reads and checks it. The faults beside the configuration are remarks: what it
    /// says and changes nothing.
    pub fn read(&self) -> Result<(FaceConfig, Vec<Fault>), ReadError> {
        let path = self.path();
        let read = Disk.read(path);
        let text = read.map_err(|source| ReadError::File { path: path.to_owned(), source })?;
        match self {
            Self::Corefile(_) => {
                let translated = read_corefile(&text, path, &Disk)?;
                Ok((translated.config, translated.notes))
            }
            Self::Native(_) => Ok((read_native(&text, path)?, Vec::new())),
        }
    }
}

/// Looks at a file as often as it asks for, until shutdown. `now` is what runs.
pub async fn follow(
    file: ConfigFile,
    mut now: FaceConfig,
    running: Running,
    metrics: Metrics,
    shutdown: Shutdown,
) {
    let failed = Counter::<u64>::default();
    metrics.register(|registry| {
        registry.register(
            "coredns_reload_failed",
            "Counter of the number of failed reload attempts.",
            failed.clone(),
        );
    });
    let mut last_fault = None;
    while let Some(reload) = now.reload {
        let pause = tokio::time::sleep(reload.interval.0);
        if shutdown.run_until_cancelled(pause).await.is_none() {
            return;
        }
        let attempt = match file.read() {
            Ok((next, _)) if next == now => {
                last_fault = None;
                continue;
            }
            Ok((next, notes)) => match running.reconfigure(&next) {
                Ok(()) => Ok((next, notes)),
                Err(why) => Err(format!("{}: {why}", file.path().display())),
            },
            Err(ReadError::Fault(fault)) => Err(fault.to_string()),
            Err(ReadError::File { path, source }) => Err(format!("{}: {source}", path.display())),
        };
        match attempt {
            Ok((next, notes)) => {
                notes.iter().for_each(|note| warn!("{note}"));
                if sockets(&next) != sockets(&now) {
                    warn!("other addresses to listen on are taken into use at the next start");
                }
                info!(path = %file.path().display(), "the DNS configuration is taken into use");
                now = next;
                last_fault = None;
            }
            Err(fault) if last_fault.as_ref() == Some(&fault) => {}
            Err(fault) => {
                error!("{fault}; the DNS configuration stays as it is");
                failed.inc();
                last_fault = Some(fault);
            }
        }
    }
}

/// What a configuration says of addresses that are listened on.
fn sockets(config: &FaceConfig) -> impl PartialEq {
    let servers = config.servers.iter();
    let servers: Vec<_> = servers
        .map(|server| (server.port, server.bind.clone(), server.transport, server.tls.clone()))
        .collect();
    let health = config.health.map(|health| health.listen);
    let ready = config.ready.map(|ready| ready.listen);
    (servers, health, ready, config.prometheus.map(|metrics| metrics.listen))
}
