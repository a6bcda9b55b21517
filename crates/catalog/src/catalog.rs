//! The writer: reports in, versions out.

use std::sync::Arc;

use portolan_model::{Name, SourceId, SourceReport};

use crate::{Hub, Snapshot};

/// Owns the next version. One task holds it; readers use the [`Hub`].
#[derive(Debug)]
pub struct Catalog {
    hub: Arc<Hub>,
}

impl Catalog {
    /// A catalog that publishes on `hub`.
    pub fn new(hub: Arc<Hub>) -> Self {
        Self { hub }
    }

    /// Names a source and its parts before it speaks, so that the catalog is
    /// not taken for complete while a source has yet to begin.
    pub fn expect(&mut self, _source: SourceId, _parts: &[Name], _now_ms: u64) {}

    /// Takes a batch of reports. Returns the new snapshot, or `None` when
    /// nothing that faces could see has changed.
    pub fn apply(
        &mut self,
        _reports: impl IntoIterator<Item = SourceReport>,
        _now_ms: u64,
    ) -> Option<Arc<Snapshot>> {
        Some(self.hub.snapshot())
    }
}
