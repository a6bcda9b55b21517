//! Ladders: how far one instance, or one Pod, has come.

use std::net::SocketAddr;

use portolan_catalog::{Board, ServiceEntry, Snapshot};
use portolan_model::{Code, Face, Placed, Reason, Rejection, ServiceKey, Stage, Workload};
use portolan_wire::{self as wire, StepState};

use crate::list;

/// The ladder of an instance. `missing`: members that do not serve its service's
/// content yet; `note`: what a client in some place finds.
pub(super) fn instance(
    snapshot: &Snapshot,
    entry: &ServiceEntry,
    placed: &Placed,
    missing: &[String],
    note: &str,
) -> wire::Ladder {
    let key = &entry.service.key;
    let endpoint = &placed.endpoint;
    let reasons = placed.verdict.reasons();
    let stop = match reasons.first() {
        Some(reason) => Some(reason.code.info().stage),
        None => (!missing.is_empty()).then_some(Stage::Acknowledged),
    };
    let detail = |stage: Stage| match stage {
        Stage::Seen => format!("origin {}", key.origin),
        Stage::Parsed => endpoint
            .particulars
            .metadata
            .as_ref()
            .map(|metadata| {
                metadata.iter().map(|(k, v)| format!("{k}={v}")).collect::<Vec<_>>().join(" ")
            })
            .unwrap_or_default(),
        Stage::Matched => format!("service {key}"),
        Stage::Ready => match endpoint.target.as_ref().and_then(|p| snapshot.workload(p)) {
            Some(pod) if pod.hollow => "hollow Pod: it only pretends to run".to_owned(),
            Some(pod) => format!("pod {} is {}", pod.name, pod.phase),
            None => String::new(),
        },
        Stage::Published => format!("since version {}{note}", entry.changed),
        Stage::Acknowledged => missing.join(", "),
    };
    wire::Ladder {
        subject: format!("{} of {key}", endpoint.display_name()),
        address: match endpoint.ports.iter().find_map(|port| port.port) {
            Some(port) => SocketAddr::new(endpoint.address, port).to_string(),
            None => endpoint.address.to_string(),
        },
        steps: steps(stop, reasons, detail),
    }
}

/// Members that do not serve an entry's present content yet.
pub(super) fn missing(board: &Board, entry: &ServiceEntry, faces: &[Face]) -> Vec<String> {
    board
        .convergence(entry.changed, faces)
        .missing
        .iter()
        .map(|member| match member.ack {
            Some(ack) => format!("{} still serves {}", member.id, ack.version),
            None => format!("{} serves nothing yet", member.id),
        })
        .collect()
}

/// The ladder of a Pod that no service lists. Where its registration was refused
/// it stopped there, and not for want of a service.
pub(super) fn unplaced(pod: &Workload, rejections: &[&std::sync::Arc<Rejection>]) -> wire::Ladder {
    let refused = rejections.iter().find(|rejection| rejection.object == pod.name);
    let reason = refused
        .and_then(|rejection| rejection.reasons.first().cloned())
        .unwrap_or_else(|| Reason::plain(Code::NO_SERVICE));
    let stop = reason.code.info().stage;
    wire::Ladder {
        subject: format!("pod {}", pod.name),
        address: pod.addresses.first().map(ToString::to_string).unwrap_or_default(),
        steps: steps(Some(stop), &[reason], |stage| match stage {
            Stage::Seen => format!("phase {}", pod.phase),
            Stage::Matched if pod.labels.is_empty() => "the Pod has no labels".to_owned(),
            Stage::Matched => {
                let labels: Vec<String> =
                    pod.labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
                format!("labels {}", labels.join(","))
            }
            _ => String::new(),
        }),
    }
}

/// The ladder of a Pod that a service selects and does not list.
pub(super) fn waiting(pod: &Workload, service: &ServiceKey) -> wire::Ladder {
    let reason = [waiting_for(pod)];
    wire::Ladder {
        subject: format!("{} of {service}", pod.name.name),
        address: pod.addresses.first().map(ToString::to_string).unwrap_or_default(),
        steps: steps(Some(Stage::Ready), &reason, |stage| match stage {
            Stage::Seen => format!("phase {}", pod.phase),
            Stage::Matched => format!("selector of {service}"),
            _ => String::new(),
        }),
    }
}

fn waiting_for(pod: &Workload) -> Reason {
    if matches!(&*pod.phase, "Succeeded" | "Failed") {
        return Reason::new(Code::PHASE_ENDED, format!("Phase is {}.", pod.phase));
    }
    if pod.terminating {
        return Reason::plain(Code::TERMINATING);
    }
    let phase = &pod.phase;
    match pod.not_ready.as_deref() {
        Some((_, message)) if Code::leading(message).is_some() => {
            let detail = message.get(7..).unwrap_or_default().trim_start_matches([':', ' ']);
            Reason::new(Code::leading(message).unwrap_or(Code::NOT_READY), detail)
        }
        Some((reason, message)) => {
            Reason::new(Code::NOT_READY, format!("Phase {phase}; {reason}: {message}"))
        }
        None if pod.addresses.is_empty() => {
            Reason::new(Code::NOT_READY, format!("Phase {phase}; it has no address yet."))
        }
        None => Reason::new(Code::NOT_READY, format!("Phase {phase}; no EndpointSlice lists it.")),
    }
}

/// The rungs, up to the one that stopped the climb. Further reasons stand at the
/// rungs where they would stop it next.
fn steps(
    stop: Option<Stage>,
    reasons: &[Reason],
    detail: impl Fn(Stage) -> String,
) -> Vec<wire::Step> {
    Stage::LADDER
        .into_iter()
        .map(|stage| {
            let state = match stop {
                Some(stop) if stage == stop => StepState::Stopped,
                Some(stop) if stage > stop => StepState::NotReached,
                _ => StepState::Passed,
            };
            wire::Step {
                stage: stage.as_str().to_owned(),
                state,
                detail: if state == StepState::NotReached { String::new() } else { detail(stage) },
                reason: reasons
                    .iter()
                    .find(|reason| reason.code.info().stage == stage)
                    .map(list::reason),
            }
        })
        .collect()
}
