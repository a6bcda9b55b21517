//! Events of `/v1/watch`.

use serde::{Deserialize, Serialize};

use crate::{Instance, Service};

/// What a watcher is told. Sent as server-sent events: `event:` is the kind.
///
/// Resume from the version of the last `synced`, with `Last-Event-ID` or
/// `version=`: only `synced` carries an `id:`, since a version is held once all
/// of its events are. One that was cut off between two upserts of a version
/// has not seen that version.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "event")]
pub enum WatchEvent {
    /// Forget everything: what follows is the whole state.
    Reset {
        /// Catalog version.
        version: String,
    },
    /// A service as it is now, with its instances.
    Upsert {
        /// Catalog version.
        version: String,
        /// The service.
        service: Service,
        /// All its instances.
        instances: Vec<Instance>,
    },
    /// Some instances of a service are others than before; the service is as it was. Told
    /// only to watchers that ask for it (`changes=true`), who have been told all of them.
    Change {
        /// Catalog version.
        version: String,
        /// Origin of the service.
        origin: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Instances that are new, or are as this from now on.
        put: Vec<Instance>,
        /// Instances that are gone, with no more than tells them apart: name, address, port,
        /// and of what they said group, version and protocol. To be taken before `put`.
        gone: Vec<Instance>,
    },
    /// A service is gone.
    Remove {
        /// Catalog version.
        version: String,
        /// Its origin.
        origin: String,
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Everything up to this version has been sent. Comes from time to time even
    /// where nothing changed, so that there is always a young version to resume
    /// from.
    Synced {
        /// Catalog version.
        version: String,
    },
}

impl WatchEvent {
    /// The kind, as the `event:` field writes it.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Reset { .. } => "reset",
            Self::Upsert { .. } => "upsert",
            Self::Change { .. } => "change",
            Self::Remove { .. } => "remove",
            Self::Synced { .. } => "synced",
        }
    }

    /// The catalog version that it leads to.
    pub fn version(&self) -> &str {
        match self {
            Self::Reset { version }
            | Self::Upsert { version, .. }
            | Self::Change { version, .. }
            | Self::Remove { version, .. }
            | Self::Synced { version } => version,
        }
    }
}
