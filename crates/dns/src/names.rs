//! Everything that answers are made from, at one version.
//!
//! [`Names`] is a snapshot with the two indexes that DNS needs beside it. It is
//! a value: the follower makes the next one from a diff, workers keep reading
//! the one they loaded. What has not changed is shared, so a step costs as much
//! as what it changes.

use std::sync::Arc;

use portolan_catalog::{Diff, Snapshot, Update};

use crate::{address_book::AddressBook, folded::FoldedNames, settings::Settings};

/// Everything that answers are made from, at one version.
#[derive(Clone, Debug)]
pub struct Names {
    pub(crate) settings: Arc<Settings>,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) addresses: AddressBook,
    pub(crate) folded: FoldedNames,
    pub(crate) serial: u32,
}

impl Names {
    /// Reads a whole snapshot.
    pub fn new(settings: Arc<Settings>, snapshot: Arc<Snapshot>) -> Self {
        let mut addresses = AddressBook::default();
        let mut folded = FoldedNames::default();
        for entry in snapshot.services() {
            addresses.replace(None, Some(entry));
            folded.replace(None, Some(entry));
        }
        Self { serial: serial(&snapshot, 0), settings, snapshot, addresses, folded }
    }

    /// The names after an update of the catalog.
    #[must_use]
    pub fn follow(&self, update: &Update) -> Self {
        match update {
            Update::Diff(diff, snapshot) if diff.from == self.snapshot.version() => {
                self.step(diff, snapshot)
            }
            Update::Reset(snapshot) | Update::Diff(_, snapshot) => {
                let next = Self::new(self.settings.clone(), snapshot.clone());
                Self { serial: next.serial.max(self.serial), ..next }
            }
        }
    }

    fn step(&self, diff: &Diff, snapshot: &Arc<Snapshot>) -> Self {
        let mut next = Self { snapshot: snapshot.clone(), ..self.clone() };
        for change in &diff.services {
            let (before, after) = (change.before.as_deref(), change.after.as_deref());
            next.addresses.replace(before, after);
            next.folded.replace(before, after);
        }
        if !diff.services.is_empty() || !diff.namespaces.is_empty() {
            next.serial = serial(snapshot, self.serial);
        }
        next
    }

    /// The snapshot behind the names.
    pub fn snapshot(&self) -> &Arc<Snapshot> {
        &self.snapshot
    }

    /// What the operator chose.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }
}

/// Unix time of the change, as CoreDNS has it; never backwards when the clock
/// is set back, which secondaries would take for the distant future.
fn serial(snapshot: &Snapshot, last: u32) -> u32 {
    u32::try_from(snapshot.at_ms() / 1000).unwrap_or(u32::MAX).max(last)
}
