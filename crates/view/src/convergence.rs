//! Is it live everywhere? Is it gone everywhere?
//!
//! The question becomes one about a version: which one brought the target's
//! content, or took the target away; then the board says who serves that version
//! or a later one.

use portolan_catalog::{Board, Convergence, ServiceEntry, Snapshot, choose};
use portolan_model::{Code, Endpoint, Face, Reason, Version};
use portolan_wire as wire;

use crate::{
    list,
    target::{Target, find_services},
};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The target is in the catalog, and every member serves its content.
    There,
    /// The target is not in the catalog, and every member has acknowledged that.
    Gone,
}

/// Whether a target is as wanted in the catalog and on every face asked.
///
/// `since` is the version that an earlier call of the same wait answered with,
/// as long as the target has been as wanted all the while. Who waits for a change
/// waits for the content that was there when the wait began, or a later one: were
/// it always the newest, a busy catalog would move the goal for ever.
pub fn convergence(
    snapshot: &Snapshot,
    board: &Board,
    target: &Target,
    wanted: Wanted,
    faces: &[Face],
    since: Option<Version>,
    now_ms: u64,
) -> wire::Convergence {
    let changed = changed(snapshot, target);
    let (present, newest) = match (wanted, changed) {
        (Wanted::There, Some(changed)) => (true, changed),
        // Absence has no version of its own: the current one is without it.
        (Wanted::There, None) => (false, snapshot.version()),
        (Wanted::Gone, None) => (snapshot.is_synced(), snapshot.version()),
        (Wanted::Gone, Some(changed)) => (false, changed),
    };
    let version = since.filter(|since| present && newest.includes(*since)).unwrap_or(newest);
    let state = board.convergence(version, faces);
    let reasons: Vec<wire::Reason> = absent(board, faces).iter().map(list::reason).collect();
    let residue = match wanted {
        Wanted::There => wire::Residue::default(),
        Wanted::Gone => residue(&state),
    };
    let members = state
        .reached
        .iter()
        .map(|member| (member, true))
        .chain(state.missing.iter().map(|member| (member, false)))
        .map(|(member, reached)| wire::Member {
            id: member.id.to_string(),
            version: member.ack.map(|ack| ack.version.to_string()),
            age_ms: member.ack.map(|ack| now_ms.saturating_sub(ack.at_ms)),
            reached,
        })
        .collect();
    wire::Convergence {
        target: target.text(),
        version: version.to_string(),
        present,
        converged: present && state.is_reached() && reasons.is_empty(),
        residue,
        reasons,
        members,
    }
}

/// Faces that were asked for by name and have no member: to call them converged
/// would be a comfort without ground.
pub(crate) fn absent(board: &Board, faces: &[Face]) -> Vec<Reason> {
    let members = board.members();
    faces
        .iter()
        .filter(|face| members.iter().all(|member| member.id.face != **face))
        .map(|face| Reason::new(Code::FACE_ABSENT, format!("The face is {face}.")))
        .collect()
}

fn residue(state: &Convergence) -> wire::Residue {
    let ms = state.residue_ms();
    let because = if ms == 0 { "" } else { "the largest DNS TTL that was served" };
    wire::Residue { ms, because: because.to_owned() }
}

/// The version that brought the target's present content. `None`: it is not
/// there.
fn changed(snapshot: &Snapshot, target: &Target) -> Option<Version> {
    match target {
        Target::Service { namespace, name } => of_services(snapshot, namespace, name),
        Target::DnsName(key) => snapshot.service(key).map(|entry| entry.changed),
        Target::Pod(pod) => {
            of_endpoints(snapshot, |endpoint| endpoint.target.as_ref() == Some(pod))
        }
        Target::Address(address, port) => {
            let fronts = |entry: &ServiceEntry| {
                entry.service.addresses.contains(address)
                    && port.is_none_or(|port| entry.service.ports.iter().any(|p| p.port == port))
            };
            let virtual_ip = newest(snapshot.services().filter(|entry| fronts(entry)));
            virtual_ip.or_else(|| {
                of_endpoints(snapshot, |endpoint| {
                    endpoint.address == *address
                        && port
                            .is_none_or(|port| endpoint.ports.iter().any(|p| p.port == Some(port)))
                })
            })
        }
        Target::Bare { namespace, name } => of_services(snapshot, namespace, name).or_else(|| {
            of_endpoints(snapshot, |endpoint| {
                let pod = endpoint.target.as_ref();
                pod.is_some_and(|pod| *pod.namespace == **namespace && *pod.name == **name)
            })
        }),
    }
}

fn of_services(snapshot: &Snapshot, namespace: &str, name: &str) -> Option<Version> {
    newest(find_services(snapshot, namespace, name).into_iter())
}

/// Services that may send traffic to such an endpoint. One that terminates counts
/// while its service falls back to it: it is not gone.
fn of_endpoints(snapshot: &Snapshot, accepts: impl Fn(&Endpoint) -> bool) -> Option<Version> {
    newest(
        snapshot.services().filter(|entry| {
            choose::candidates(entry).iter().any(|placed| accepts(&placed.endpoint))
        }),
    )
}

fn newest<'a>(entries: impl Iterator<Item = &'a std::sync::Arc<ServiceEntry>>) -> Option<Version> {
    entries.map(|entry| entry.changed).max_by_key(|version| version.seq)
}
