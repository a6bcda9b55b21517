//! The board: which face serves which version.
//!
//! Convergence is a comparison. Each member of a face posts the version it
//! serves; a service has converged when the version that brought its present
//! content is included in what every live member serves.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use portolan_model::{ClientStatus, Face, FaceId, Version};
use tokio::sync::watch;

/// Members that a board keeps; the one that has been silent for longest makes
/// room, and is counted ([`Board::forgotten`]). 2,000 xDS clients and their nodes
/// fit with room to spare.
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

/// Members that a face keeps account of itself: clients, who are many, come and go, and
/// must not cost anything while nothing changes for them.
pub trait Roster: Send + Sync + std::fmt::Debug {
    /// Every client as a member, with what it has accepted.
    fn members(&self) -> Vec<Member>;

    /// Every client, with how far it is.
    fn clients(&self) -> Vec<ClientStatus>;
}

/// Keeps the members. One short lock per acknowledgement; never on a read path
/// of a face.
#[derive(Debug)]
pub struct Board {
    members: Mutex<Members>,
    rosters: Mutex<Vec<Arc<dyn Roster>>>,
    changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
struct Members {
    known: BTreeMap<FaceId, Option<Ack>>,
    forgotten: u64,
}

impl Members {
    /// The slot of a member, made where there is none yet.
    fn slot(&mut self, id: &FaceId) -> &mut Option<Ack> {
        if self.known.len() >= MEMBERS_MAX && !self.known.contains_key(id) {
            self.make_room();
        }
        self.known.entry(id.clone()).or_insert(None)
    }

    fn make_room(&mut self) {
        // One that has only just joined has said nothing yet and is no oldest.
        let oldest = self
            .known
            .iter()
            .min_by_key(|(_, ack)| ack.map_or(u64::MAX, |ack| ack.at_ms))
            .map(|(id, _)| id.clone());
        if let Some(oldest) = oldest {
            self.known.remove(&oldest);
            self.forgotten += 1;
        }
    }
}

impl Default for Board {
    fn default() -> Self {
        Self {
            members: Mutex::default(),
            rosters: Mutex::default(),
            changed: watch::Sender::new(0),
        }
    }
}

impl Board {
    /// A member joins: from now on `wait` waits for it.
    pub fn join(&self, id: FaceId) {
        self.edit(|members| {
            members.slot(&id);
        });
    }

    /// A member says what it serves. One that never joined joins by this.
    pub fn acknowledge(&self, id: &FaceId, ack: Ack) {
        self.edit(|members| *members.slot(id) = Some(ack));
    }

    /// A member leaves: nobody waits for it any more.
    pub fn leave(&self, id: &FaceId) {
        self.edit(|members| {
            members.known.remove(id);
        });
    }

    /// Adds a face that keeps account of its members itself.
    pub fn add(&self, roster: Arc<dyn Roster>) {
        self.rosters.lock().unwrap_or_else(PoisonError::into_inner).push(roster);
    }

    /// Something has changed in a roster.
    pub fn touch(&self) {
        self.changed.send_modify(|count| *count = count.wrapping_add(1));
    }

    /// Members that post what they serve: few, and for long.
    pub fn posted(&self) -> Vec<Member> {
        let known = self.members.lock().unwrap_or_else(PoisonError::into_inner).known.clone();
        known.into_iter().map(|(id, ack)| Member { id, ack }).collect()
    }

    /// All members.
    pub fn members(&self) -> Vec<Member> {
        let posted = self.posted().into_iter();
        posted.chain(self.rosters().iter().flat_map(|roster| roster.members())).collect()
    }

    /// All clients whose progress is known.
    pub fn clients(&self) -> Vec<ClientStatus> {
        self.rosters().iter().flat_map(|roster| roster.clients()).collect()
    }

    fn rosters(&self) -> Vec<Arc<dyn Roster>> {
        self.rosters.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// How many members had to make room for others. Nobody waits for those:
    /// more than none means that the board is too small for what it serves.
    pub fn forgotten(&self) -> u64 {
        self.members.lock().unwrap_or_else(PoisonError::into_inner).forgotten
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

    fn edit(&self, edit: impl FnOnce(&mut Members)) {
        edit(&mut self.members.lock().unwrap_or_else(PoisonError::into_inner));
        self.touch();
    }
}

#[cfg(test)]
mod tests {
    use portolan_model::name;

    use super::*;

    fn id(number: usize) -> FaceId {
        FaceId { face: Face::Xds, member: name(&format!("client-{number:05}")) }
    }

    fn ack(at_ms: u64) -> Ack {
        Ack { version: Version::first(0), at_ms, residue_ms: 0 }
    }

    #[test]
    fn the_longest_silent_makes_room_however_a_member_comes() {
        let board = Board::default();
        for number in 0..MEMBERS_MAX {
            board.acknowledge(&id(number), ack(100 + number as u64));
        }
        assert_eq!((board.members().len(), board.forgotten()), (MEMBERS_MAX, 0));
        // Who is on the board already displaces nobody.
        board.join(id(5));
        board.acknowledge(&id(0), ack(1_000_000));
        assert_eq!((board.members().len(), board.forgotten()), (MEMBERS_MAX, 0));
        // One by joining, one by acknowledging: the two oldest go, and the one
        // that has only just joined stays.
        board.join(id(MEMBERS_MAX));
        board.acknowledge(&id(MEMBERS_MAX + 1), ack(2_000_000));
        let known: Vec<FaceId> = board.members().into_iter().map(|member| member.id).collect();
        assert_eq!((known.len(), board.forgotten()), (MEMBERS_MAX, 2));
        assert!(known.contains(&id(0)) && known.contains(&id(MEMBERS_MAX)));
        assert!(!known.contains(&id(1)) && !known.contains(&id(2)));
    }
}
