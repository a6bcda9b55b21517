//! The board: which face serves which version.
//!
//! Convergence is a comparison. Each member of a face posts the version it
//! serves; a service has converged when the version that brought its present
//! content is included in what every live member serves.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use portolan_model::{Face, FaceId, Version};
use tokio::sync::watch;

/// Members that a board keeps; the oldest silent one makes room. 2,000 xDS
/// clients and their nodes fit with room to spare.
pub(crate) const MEMBERS_MAX: usize = 16_384;

/// What a member says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ack {
    /// The version it serves.
    pub version: Version,
    /// When it said so, in milliseconds of Unix time.
    pub at_ms: u64,
    /// How long clients may go on with what it served before, in milliseconds
    /// (DNS: the largest TTL). Counts for `gone` only.
    pub residue_ms: u64,
}

/// A member with its acknowledgement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub id: FaceId,
    /// What it last said. `None`: it has joined and serves nothing yet.
    pub ack: Option<Ack>,
}

/// Whether a version is live everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Convergence {
    /// The version that is asked for.
    pub version: Version,
    /// Members that serve it.
    pub reached: Vec<Member>,
    /// Members that do not yet.
    pub missing: Vec<Member>,
}

impl Convergence {
    /// Nobody is missing.
    pub fn is_reached(&self) -> bool {
        self.missing.is_empty()
    }

    /// The longest that clients may go on with what was served before.
    pub fn residue_ms(&self) -> u64 {
        self.reached
            .iter()
            .filter_map(|member| member.ack)
            .map(|ack| ack.residue_ms)
            .max()
            .unwrap_or(0)
    }
}

/// Keeps the members. One short lock per acknowledgement; never on a read path
/// of a face.
#[derive(Debug)]
pub struct Board {
    members: Mutex<BTreeMap<FaceId, Option<Ack>>>,
    changed: watch::Sender<u64>,
}

impl Default for Board {
    fn default() -> Self {
        Self { members: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Board {
    /// A member joins: from now on `wait` waits for it.
    pub fn join(&self, id: FaceId) {
        self.edit(|members| {
            if members.len() >= MEMBERS_MAX
                && let Some(oldest) = members
                    .iter()
                    .min_by_key(|(_, ack)| ack.map_or(0, |ack| ack.at_ms))
                    .map(|(id, _)| id.clone())
            {
                members.remove(&oldest);
            }
            members.entry(id).or_insert(None);
        });
    }

    /// A member says what it serves. One that never joined joins by this.
    pub fn acknowledge(&self, id: &FaceId, ack: Ack) {
        self.edit(|members| {
            if let Some(slot) = members.get_mut(id) {
                *slot = Some(ack);
            } else {
                members.insert(id.clone(), Some(ack));
            }
        });
    }

    /// A member leaves: nobody waits for it any more.
    pub fn leave(&self, id: &FaceId) {
        self.edit(|members| {
            members.remove(id);
        });
    }

    /// All members.
    pub fn members(&self) -> Vec<Member> {
        let members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        members.iter().map(|(id, ack)| Member { id: id.clone(), ack: *ack }).collect()
    }

    /// Who serves `version`, among the faces asked for (empty: all).
    pub fn convergence(&self, version: Version, faces: &[Face]) -> Convergence {
        let (reached, missing) = self
            .members()
            .into_iter()
            .filter(|member| faces.is_empty() || faces.contains(&member.id.face))
            .partition(|member| member.ack.is_some_and(|ack| ack.version.includes(version)));
        Convergence { version, reached, missing }
    }

    /// Wakes at each change of the board.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn edit(&self, edit: impl FnOnce(&mut BTreeMap<FaceId, Option<Ack>>)) {
        edit(&mut self.members.lock().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }
}
