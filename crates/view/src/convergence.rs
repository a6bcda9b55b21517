//! Is it live everywhere? Is it gone everywhere?

use portolan_catalog::{Board, Convergence, Snapshot};
use portolan_model::{Face, Version};
use portolan_wire as wire;

use crate::target::{Target, find_services};

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The target is in the catalog, and every member serves its present
    /// content.
    There,
    /// The target is not in the catalog, and every member has acknowledged that.
    Gone,
}

/// Whether a target is as wanted in the catalog and on every face asked.
pub fn convergence(
    snapshot: &Snapshot,
    board: &Board,
    target: &Target,
    wanted: Wanted,
    faces: &[Face],
    now_ms: u64,
) -> wire::Convergence {
    let changed = changed(snapshot, target);
    let (present, version) = match (wanted, changed) {
        (Wanted::There, Some(changed)) => (true, changed),
        // Absence has no version of its own: the current one is without it.
        (Wanted::There, None) => (false, snapshot.version()),
        (Wanted::Gone, None) => (snapshot.is_synced(), snapshot.version()),
        (Wanted::Gone, Some(changed)) => (false, changed),
    };
    let state = board.convergence(version, faces);
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
        converged: present && state.is_reached(),
        residue,
        members,
    }
}

fn residue(state: &Convergence) -> wire::Residue {
    let ms = state.residue_ms();
    let because = if ms == 0 { "" } else { "the largest DNS TTL that was served" };
    wire::Residue { ms, because: because.to_owned() }
}

/// The version that brought the target's present content. `None`: it is not
/// there.
fn changed(snapshot: &Snapshot, target: &Target) -> Option<Version> {
    let of_endpoints = |accepts: &dyn Fn(&portolan_model::Endpoint) -> bool| {
        snapshot
            .services()
            .filter(|entry| entry.served().any(|placed| accepts(&placed.endpoint)))
            .map(|entry| entry.changed)
            .max_by_key(|version| version.seq)
    };
    let of_services = |namespace: &str, name: &str| {
        find_services(snapshot, namespace, name)
            .into_iter()
            .map(|entry| entry.changed)
            .max_by_key(|version| version.seq)
    };
    match target {
        Target::Service { namespace, name } => of_services(namespace, name),
        Target::DnsName(key) => snapshot.service(key).map(|entry| entry.changed),
        Target::Pod(pod) => of_endpoints(&|endpoint| endpoint.target.as_ref() == Some(pod)),
        Target::Address(address, port) => {
            let vip = snapshot
                .services()
                .find(|entry| entry.service.addresses.contains(address))
                .map(|entry| entry.changed);
            vip.or_else(|| {
                of_endpoints(&|endpoint| {
                    endpoint.address == *address
                        && port
                            .is_none_or(|port| endpoint.ports.iter().any(|p| p.port == Some(port)))
                })
            })
        }
        Target::Bare { namespace, name } => of_services(namespace, name).or_else(|| {
            of_endpoints(&|endpoint| {
                endpoint
                    .target
                    .as_ref()
                    .is_some_and(|pod| *pod.namespace == **namespace && *pod.name == **name)
            })
        }),
    }
}
